/*
 * test_tcps_close.c - closing in every order, TIME_WAIT and its reuse, segments that come too late.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 9293 3.6, 3.10.4, 3.10.5, 3.10.7.4; RFC 6191, RFC 1337.
 */
#include "tests/unit/test_tcps_rig.h"

#include <stdlib.h>
#include <string.h>

static int established(void **state)
{
	rig_setup(state);
	rig_establish(true, 7);
	return 0;
}

static const char *state_name(void)
{
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	return info.state;
}

static uint32_t time_waits(void)
{
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	return u.time_wait;
}

/* RFC 9293 3.6, case 2: the peer closes first. */
static void the_peer_closes_first(void **state)
{
	(void)state;
	rig_send(ACK | FIN, rig_own(0), NULL, 0);
	assert_int_equal(rig.eof, 1);
	assert_string_equal(state_name(), "CLOSE-WAIT");
	rig_flush();
	assert_int_equal(rig_expect().ack, rig.peer_seq);
	assert_true(tcps_send(rig.conn, "still talking", 13)); /* half closed */
	rig_flush();
	assert_int_equal(rig_expect().len, 13);
	rig_send(ACK, rig_own(13), NULL, 0);
	tcps_shutdown(rig.conn);
	assert_string_equal(state_name(), "LAST-ACK");
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.flags, FIN | ACK | PSH);
	assert_int_equal(s.seq, rig_own(13));
	assert_int_equal(rig.closed, 0);
	rig_send(ACK, rig_own(14), NULL, 0);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_NORMALLY);
	assert_int_equal(time_waits(), 0);
	rig_expect_baseline();
}

/* RFC 9293 3.6, case 1: we close first. */
static void we_close_first(void **state)
{
	(void)state;
	tcps_shutdown(rig.conn);
	rig_flush();
	assert_int_equal(rig_expect().flags & FIN, FIN);
	assert_string_equal(state_name(), "FIN-WAIT-1");
	rig_send(ACK, rig_own(1), NULL, 0);
	assert_string_equal(state_name(), "FIN-WAIT-2");
	rig_send(ACK | PSH, rig_own(1), "reading goes on", 15);
	assert_int_equal(rig.got_len, 15);
	rig_send(ACK | FIN, rig_own(1), "end", 3);
	assert_int_equal(rig.got_len, 18);
	assert_int_equal(rig.eof, 1);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_NORMALLY);
	struct seen s = rig_expect();
	while (rig_pending() > 0)
		s = rig_expect();
	assert_int_equal(s.ack, rig.peer_seq);
	assert_int_equal(time_waits(), 1);
	rig_expect_baseline();
}

static void the_fin_and_the_ack_of_ours_may_come_together(void **state)
{
	(void)state;
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_clear();
	rig_send(ACK | FIN, rig_own(1), NULL, 0);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(time_waits(), 1);
	assert_int_equal(rig_expect().ack, rig.peer_seq);
}

/* RFC 9293 3.6, case 3: figure 13. */
static void both_close_at_once(void **state)
{
	(void)state;
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_clear();
	rig_send(ACK | FIN, rig_own(0), NULL, 0);
	assert_string_equal(state_name(), "CLOSING");
	rig_flush();
	assert_int_equal(rig_expect().ack, rig.peer_seq);
	rig_send(ACK, rig_own(1), NULL, 0);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_NORMALLY);
	assert_int_equal(time_waits(), 1);
}

static void shutdown_from_inside_on_eof_closes_in_one_go(void **state)
{
	(void)state;
	rig.shutdown_in_eof = true;
	rig_send(ACK | FIN, rig_own(0), "last words", 10);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.flags & FIN, FIN);
	assert_int_equal(s.ack, rig.peer_seq);
	rig_expect_none();
	rig_send(ACK, rig_own(1), NULL, 0);
	assert_int_equal(rig.closed, 1);
}

static void the_fin_goes_with_the_last_data(void **state)
{
	(void)state;
	static uint8_t data[3000];
	tcps_send(rig.conn, data, sizeof(data));
	tcps_shutdown(rig.conn);
	rig_flush();
	assert_int_equal(rig_expect().flags & FIN, 0);
	assert_int_equal(rig_expect().flags & FIN, 0);
	struct seen s = rig_expect();
	assert_int_equal(s.flags & FIN, FIN);
	assert_int_equal(s.seq + s.len, rig_own(3000));
}

/* The FIN is sent again with the number that it had. */
static void a_lost_fin_is_sent_again_with_its_number(void **state)
{
	(void)state;
	tcps_send(rig.conn, "data", 4);
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_clear();
	rig_send(ACK, rig_own(4), NULL, 0); /* the data came, the FIN did not */
	rig_pass(1100 * MS);
	struct seen s = rig_expect();
	assert_int_equal(s.flags & FIN, FIN);
	assert_int_equal(s.len, 0);
	assert_int_equal(s.seq, rig_own(4));
	rig_send(ACK, rig_own(5), NULL, 0);
	assert_string_equal(state_name(), "FIN-WAIT-2");
}

static void a_fin_that_found_no_frame_is_sent_later(void **state)
{
	(void)state;
	rig.no_frames = true;
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_pass(50 * MS);
	rig.no_frames = false;
	rig_pass(MS);
	assert_int_equal(rig_expect().flags & FIN, FIN);
}

/* The peer's FIN arrives before the data that precede it. */
static void a_fin_out_of_order_waits_for_its_turn(void **state)
{
	(void)state;
	rig.ts = false;
	rig_segment(ACK | FIN, PEER_ISS + 1 + 10, rig_own(0), "fghij", 5, NULL, 0);
	assert_int_equal(rig.eof, 0);
	rig_segment(ACK | PSH, PEER_ISS + 1 + 12, rig_own(0), "hij, beyond", 11, NULL, 0);
	rig_segment(ACK | PSH, PEER_ISS + 1, rig_own(0), "0123456789", 10, NULL, 0);
	assert_int_equal(rig.eof, 1);
	assert_int_equal(rig.got_len, 15);
	assert_memory_equal(rig.got, "0123456789fghij", 15);
	assert_true(rig_count(TCPS_CNT_data_after_fin) >= 1);
	rig_flush();
	struct seen s = rig_expect();
	while (rig_pending() > 0)
		s = rig_expect();
	assert_int_equal(s.ack, PEER_ISS + 1 + 16);
}

static void data_beyond_the_fin_is_ignored(void **state)
{
	(void)state;
	rig_send(ACK | FIN, rig_own(0), "end", 3);
	rig_send(ACK | PSH, rig_own(0), "more", 4);
	assert_int_equal(rig.got_len, 3);
	assert_int_equal(rig.eof, 1);
	assert_int_equal(rig_count(TCPS_CNT_data_after_fin), 1);
}

static void a_repeated_fin_is_acknowledged_again(void **state)
{
	(void)state;
	rig_send(ACK | FIN, rig_own(0), NULL, 0);
	rig_flush();
	rig_clear();
	rig.peer_seq--;
	rig_send(ACK | FIN, rig_own(0), NULL, 0);
	rig_flush();
	assert_int_equal(rig_expect().ack, rig.peer_seq);
	assert_int_equal(rig.eof, 1);
}

static void a_last_ack_that_never_comes_gives_up(void **state)
{
	(void)state;
	rig_send(ACK | FIN, rig_own(0), NULL, 0);
	tcps_shutdown(rig.conn);
	rig_pass(300 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
	rig_expect_baseline();
}

static void a_closing_connection_whose_peer_vanished_gives_up(void **state)
{
	(void)state;
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_send(ACK | FIN, rig_own(0), NULL, 0);
	assert_string_equal(state_name(), "CLOSING");
	rig_pass(300 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
}

/* Half closed the peer may take its time, but it must be alive: it is asked even where keepalive is off. */
static void a_peer_that_vanished_in_fin_wait_2_is_found_out(void **state)
{
	(void)state;
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_send(ACK, rig_own(1), NULL, 0);
	for (unsigned i = 0; i < 5; i++) {
		rig_pass(61 * SECOND);
		rig_send(ACK, rig_own(1), NULL, 0);
	}
	assert_int_equal(rig.closed, 0);
	for (unsigned i = 0; i < 15; i++) {
		rig_pass(60 * SECOND);
		rig_clear();
	}
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
	rig_expect_baseline();
}

static void an_abort_sends_a_reset_with_the_next_number(void **state)
{
	(void)state;
	tcps_send(rig.conn, "abc", 3);
	rig_flush();
	rig_clear();
	tcps_abort(rig.conn);
	struct seen s = rig_expect();
	assert_true(s.flags & RST);
	assert_int_equal(s.seq, rig_own(3));
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_ABORTED);
	rig_expect_baseline();
	/* RFC 9293 3.10.7.1: what comes afterwards is reset. */
	rig_clear();
	rig_send(ACK | PSH, rig_own(3), "late", 4);
	s = rig_expect();
	assert_int_equal(s.flags, RST);
	assert_int_equal(s.seq, rig_own(3));
}

static void a_reset_in_any_state_that_is_closing_ends_it(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		if (i > 0) {
			rig_stop();
			established(state);
		}
		if (i == 0 || i == 3) { /* FIN_WAIT_1, CLOSING */
			tcps_shutdown(rig.conn);
			rig_flush();
		}
		if (i == 1 || i == 2 || i == 3) /* CLOSE_WAIT, LAST_ACK */
			rig_send(ACK | FIN, rig_own(0), NULL, 0);
		if (i == 2)
			tcps_shutdown(rig.conn);
		rig_send(RST, 0, NULL, 0);
		assert_int_equal(rig.closed, 1);
		assert_int_equal(rig.reason, TCPS_CLOSED_RESET);
		rig_expect_baseline();
	}
}

/* --- TIME_WAIT --- */

static void into_time_wait(void)
{
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_send(ACK | FIN, rig_own(1), NULL, 0);
	assert_int_equal(time_waits(), 1);
	rig_clear();
}

static void time_wait_lasts_two_segment_lifetimes(void **state)
{
	(void)state;
	into_time_wait();
	rig_pass(59 * SECOND);
	assert_int_equal(time_waits(), 1);
	rig_pass(2 * SECOND);
	assert_int_equal(time_waits(), 0);
}

/* RFC 9293 3.10.7.4, fifth step: without the ACK bit a segment is dropped, in TIME_WAIT too. */
static void a_segment_without_ack_is_dropped_in_time_wait(void **state)
{
	(void)state;
	into_time_wait();
	rig_segment(FIN, rig.peer_seq - 1, 0, NULL, 0, NULL, 0);
	rig_flush();
	rig_expect_none();
	assert_int_equal(rig_count(TCPS_CNT_drop_no_ack), 1);
}

static void a_fin_in_time_wait_is_acknowledged_and_starts_the_wait_anew(void **state)
{
	(void)state;
	into_time_wait();
	rig_pass(50 * SECOND);
	rig.peer_seq--;
	rig_send(ACK | FIN, rig_own(1), NULL, 0);
	struct seen s = rig_expect();
	assert_int_equal(s.flags, ACK);
	assert_int_equal(s.seq, rig_own(1));
	assert_int_equal(s.ack, rig.peer_seq);
	assert_true(s.has_ts);
	rig_pass(50 * SECOND);
	assert_int_equal(time_waits(), 1);
}

/* RFC 1337; and two ends in TIME_WAIT never answer each other for ever. */
static void resets_and_bare_acks_in_time_wait_are_ignored(void **state)
{
	(void)state;
	into_time_wait();
	rig_send(RST, 0, NULL, 0);
	rig_send(ACK, rig_own(1), NULL, 0);
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_expect_none();
	assert_int_equal(time_waits(), 1);
}

static void rig_syn_with_ts(uint32_t seq, uint32_t ts_val)
{
	const uint8_t opts[12] = {
		1, 1, 8, 10, (uint8_t)(ts_val >> 24), (uint8_t)(ts_val >> 16), (uint8_t)(ts_val >> 8), (uint8_t)ts_val};
	rig_segment(SYN, seq, 0, NULL, 0, opts, sizeof(opts));
}

/* RFC 6191 2. */
static void a_syn_with_a_later_timestamp_reuses_time_wait(void **state)
{
	(void)state;
	into_time_wait();
	rig_syn_with_ts(rig.peer_seq - 90000, rig.ts_val + 1); /* the number is lower, the clock decides */
	struct seen s = rig_expect();
	assert_int_equal(s.flags, SYN | ACK);
	assert_true((int32_t)(s.seq - rig_own(1)) > 0x10000);
	assert_int_equal(time_waits(), 0);
	assert_int_equal(rig_count(TCPS_CNT_time_wait_reused), 1);
}

static void a_syn_with_an_old_timestamp_does_not(void **state)
{
	(void)state;
	into_time_wait();
	rig_syn_with_ts(rig.peer_seq + 90000, rig.ts_val - 1);
	assert_int_equal(rig_expect().flags, ACK);
	assert_int_equal(time_waits(), 1);
}

/* RFC 9293 3.6.1 MAY-2: without timestamps a greater number is needed. */
static void without_timestamps_the_sequence_number_decides(void **state)
{
	(void)state;
	into_time_wait();
	rig_segment(SYN, rig.peer_seq - 1, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_expect().flags, ACK);
	rig_segment(SYN, rig.peer_seq + 1, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_expect().flags, SYN | ACK);
}

static void when_time_wait_records_run_out_the_oldest_goes(void **state)
{
	(void)state;
	tcps_abort(rig.conn);
	rig_clear();
	for (uint16_t i = 1; i < 7; i++) {
		rig.peer_port = (uint16_t)(PEER_PORT + i);
		rig.closed = 0;
		rig_establish(true, 7);
		tcps_shutdown(rig.conn);
		rig_flush();
		rig_send(ACK | FIN, rig_own(1), NULL, 0);
		assert_int_equal(rig.closed, 1);
		rig_clear();
	}
	assert_int_equal(time_waits(), 4);
	assert_int_equal(rig_count(TCPS_CNT_time_wait_recycled), 2);
}

/* Closed on both sides, but the reader has not seen the end: nothing is lost, and a reset cannot cut it short. */
static void what_a_stopped_reader_has_not_seen_outlives_the_connection(void **state)
{
	(void)state;
	rig.take_max = 0;
	rig_send(ACK | PSH, rig_own(0), "unread", 6);
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_send(ACK | FIN, rig_own(1), NULL, 0);
	assert_int_equal(rig.closed, 0);
	assert_string_equal(state_name(), "TIME-WAIT");
	rig_send(RST, 0, NULL, 0);
	rig_pass(200 * SECOND);
	assert_int_equal(rig.closed, 0);
	rig.take_max = SIZE_MAX;
	tcps_resume(rig.conn);
	assert_int_equal(rig.got_len, 6);
	assert_int_equal(rig.eof, 1);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_NORMALLY);
	assert_int_equal(time_waits(), 1);
	rig_expect_baseline();
}

static void shutting_down_or_aborting_twice_does_nothing(void **state)
{
	(void)state;
	tcps_shutdown(rig.conn);
	tcps_shutdown(rig.conn);
	rig_flush();
	assert_int_equal(rig_expect().flags & FIN, FIN);
	rig_expect_none();
	tcps_abort(rig.conn);
	assert_int_equal(rig.closed, 1);
}

#define test(name) cmocka_unit_test_setup_teardown(name, established, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(the_peer_closes_first),
		test(we_close_first),
		test(the_fin_and_the_ack_of_ours_may_come_together),
		test(both_close_at_once),
		test(shutdown_from_inside_on_eof_closes_in_one_go),
		test(the_fin_goes_with_the_last_data),
		test(a_lost_fin_is_sent_again_with_its_number),
		test(a_fin_that_found_no_frame_is_sent_later),
		test(a_fin_out_of_order_waits_for_its_turn),
		test(data_beyond_the_fin_is_ignored),
		test(a_repeated_fin_is_acknowledged_again),
		test(a_last_ack_that_never_comes_gives_up),
		test(a_closing_connection_whose_peer_vanished_gives_up),
		test(a_peer_that_vanished_in_fin_wait_2_is_found_out),
		test(an_abort_sends_a_reset_with_the_next_number),
		test(a_reset_in_any_state_that_is_closing_ends_it),
		test(time_wait_lasts_two_segment_lifetimes),
		test(a_segment_without_ack_is_dropped_in_time_wait),
		test(a_fin_in_time_wait_is_acknowledged_and_starts_the_wait_anew),
		test(resets_and_bare_acks_in_time_wait_are_ignored),
		test(a_syn_with_a_later_timestamp_reuses_time_wait),
		test(a_syn_with_an_old_timestamp_does_not),
		test(without_timestamps_the_sequence_number_decides),
		test(when_time_wait_records_run_out_the_oldest_goes),
		test(what_a_stopped_reader_has_not_seen_outlives_the_connection),
		test(shutting_down_or_aborting_twice_does_nothing),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_close", tests, NULL, NULL);
}
