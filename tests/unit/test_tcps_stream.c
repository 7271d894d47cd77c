/*
 * test_tcps_stream.c - an established connection: order, acknowledgement, windows, loss, timestamps, resets in the window.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 9293 3.8, 3.10.7.4; RFC 5681, 6582, 6298, 7323, 5961, 3042.
 */
#include "tests/unit/test_tcps_rig.h"

#include <stdlib.h>
#include <string.h>

static uint8_t pattern[1 << 17];

static int established(void **state)
{
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 7 + i / 251);
	rig_setup(state);
	rig_establish(false, 7);
	rig.peer_wnd = 512; /* << 7: 64 KiB */
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_clear();
	return 0;
}

static int established_with_timestamps(void **state)
{
	rig_setup(state);
	rig_establish(true, 7);
	return 0;
}

/* A segment at `offset` of the peer's stream. */
static void data_at(uint32_t offset, size_t len)
{
	rig_segment(ACK | PSH, PEER_ISS + 1 + offset, rig_own(0), pattern + offset, len, NULL, 0);
}

static uint32_t peer_off(uint32_t ack)
{
	return ack - (PEER_ISS + 1);
}

/* RFC 9293 3.8.6.3, RFC 5681 4.2: every second segment at once, a single one within the delay. */
static void every_second_segment_is_acknowledged_at_once(void **state)
{
	(void)state;
	data_at(0, 10);
	rig_flush();
	rig_expect_none();
	data_at(10, 10);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.flags, ACK);
	assert_int_equal(peer_off(s.ack), 20);
	assert_int_equal(rig_count(TCPS_CNT_fast_path_in), 2);
}

static void a_single_segment_is_acknowledged_after_the_delay(void **state)
{
	(void)state;
	data_at(0, 10);
	rig_flush();
	rig_pass(39 * MS);
	rig_expect_none();
	rig_pass(2 * MS);
	assert_int_equal(peer_off(rig_expect().ack), 10);
	rig_pass(SECOND);
	rig_expect_none();
}

static void an_ack_rides_on_data_and_the_delay_stands_aside(void **state)
{
	(void)state;
	data_at(0, 10);
	tcps_send(rig.conn, "answer", 6);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.len, 6);
	assert_int_equal(peer_off(s.ack), 10);
	rig_pass(100 * MS);
	rig_expect_none();
}

static void a_burst_is_acknowledged_once(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 20; i++)
		data_at(i * 100, 100);
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 2000);
	rig_expect_none();
}

/* RFC 5681 4.2: out of order: a duplicate ACK at once; the hole filled: an ACK at once. */
static void out_of_order_segments_are_kept_and_delivered_in_order(void **state)
{
	(void)state;
	data_at(1000, 500);
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 0);
	data_at(3000, 500);
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 0);
	assert_int_equal(rig.got_len, 0);
	data_at(0, 1000);
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 1500);
	assert_int_equal(rig.got_len, 1500);
	data_at(1200, 2000); /* overlaps on both sides */
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 3500);
	assert_int_equal(rig.got_len, 3500);
	assert_memory_equal(rig.got, pattern, 3500);
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 0);
}

static void a_shuffled_stream_arrives_whole(void **state)
{
	(void)state;
	uint32_t order[60];
	uint32_t seed = 5;
	for (uint32_t i = 0; i < 60; i++)
		order[i] = i;
	for (uint32_t i = 59; i > 0; i--) {
		seed = seed * 1664525u + 1013904223u;
		uint32_t k = (seed >> 16) % (i + 1), tmp = order[i];
		order[i] = order[k];
		order[k] = tmp;
	}
	for (unsigned round = 0; round < 10; round++) { /* what found no slot comes again */
		for (uint32_t i = 0; i < 60; i++)
			data_at(order[i] * 1000, 1000);
		rig_flush();
		rig_clear();
	}
	assert_int_equal(rig.got_len, 60000);
	assert_memory_equal(rig.got, pattern, 60000);
}

static void holes_are_bounded_in_number(void **state)
{
	(void)state;
	for (uint32_t i = 1; i <= 20; i++)
		data_at(i * 1000, 1);
	assert_int_equal(rig_count(TCPS_CNT_out_of_order), 16);
	assert_int_equal(rig_count(TCPS_CNT_ooo_dropped), 4);
}

/* Tiny segments cannot pin more blocks than the window is worth. */
static void a_window_of_one_byte_segments_costs_no_more_blocks_than_one_of_full_ones(void **state)
{
	(void)state;
	rig.take_max = 0;
	for (uint32_t i = 0; i < 20000; i++) {
		data_at(i, 1);
		if (i % 100 == 0) {
			rig_flush();
			rig_clear();
		}
	}
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_true(u.blocks_in_use <= 20000 / 2032 + 1);
	rig.take_max = SIZE_MAX;
	tcps_resume(rig.conn);
	assert_int_equal(rig.got_len, 20000);
	assert_memory_equal(rig.got, pattern, 20000);
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 0);
}

/* RFC 9293 3.10.7.4: old bytes are cut off, an all-old segment is answered by an ACK. */
static void old_bytes_are_not_delivered_twice(void **state)
{
	(void)state;
	data_at(0, 1000);
	data_at(0, 1000);
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 1000);
	data_at(500, 1000);
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 1500);
	assert_int_equal(rig.got_len, 1500);
	assert_memory_equal(rig.got, pattern, 1500);
	assert_true(rig_count(TCPS_CNT_duplicates) >= 1);
}

static void bytes_beyond_the_window_are_cut_off(void **state)
{
	(void)state;
	rig.take_max = 0;
	for (uint32_t i = 0; i < 66; i++)
		data_at(i * 1000, 1000);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(peer_off(s.ack), 65535);
	assert_int_equal(s.wnd, 0);
	rig.take_max = SIZE_MAX;
	tcps_resume(rig.conn);
	assert_int_equal(rig.got_len, 65535);
	assert_memory_equal(rig.got, pattern, 65535);
	rig_clear();
	rig_flush();
	s = rig_expect(); /* the window update after the reader went on */
	assert_int_equal(s.wnd, 65535);
	assert_int_equal(rig_count(TCPS_CNT_window_updates), 1);
}

/* RFC 9293 3.8.6.1: probes of one byte and of seq - 1 are answered by an ACK with the window. */
static void probes_of_a_shut_window_are_answered(void **state)
{
	(void)state;
	rig.take_max = 0;
	for (uint32_t i = 0; i < 66; i++)
		data_at(i * 1000, 1000);
	rig_flush();
	rig_clear();
	data_at(65535, 1);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(peer_off(s.ack), 65535);
	assert_int_equal(s.wnd, 0);
	rig_segment(ACK, PEER_ISS + 65535, rig_own(0), NULL, 0, NULL, 0);
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 65535);
	rig_segment(ACK, PEER_ISS + 65536, rig_own(0), NULL, 0, NULL, 0);
	rig_flush();
	rig_expect_none(); /* that one is in order and asks nothing */
}

/* RFC 9293 3.10.7.4: with the window shut, ACKs are still taken. */
static void acks_count_while_our_window_is_shut(void **state)
{
	(void)state;
	tcps_send(rig.conn, "abc", 3);
	rig_flush();
	rig.take_max = 0;
	for (uint32_t i = 0; i < 66; i++)
		data_at(i * 1000, 1000);
	assert_int_equal(tcps_unsent(rig.conn), 3);
	rig_segment(ACK | PSH, PEER_ISS + 65536, rig_own(3), "x", 1, NULL, 0);
	assert_int_equal(tcps_unsent(rig.conn), 0);
}

/* RFC 9293 3.8.6.2.2: the window opens by a segment or by half, not by a byte. */
static void a_reader_that_takes_little_does_not_open_the_window_by_little(void **state)
{
	(void)state;
	rig.take_max = 0;
	for (uint32_t i = 0; i < 66; i++)
		data_at(i * 1000, 1000);
	rig_flush();
	rig_clear();
	rig.take_max = 100;
	tcps_resume(rig.conn);
	rig_flush();
	rig_expect_none();
	rig.take_max = 2000;
	tcps_resume(rig.conn);
	rig_flush();
	assert_int_equal(rig_expect().wnd, 2100);
}

/* What is kept for a reader that stopped ends at its limit; the peer hears a window of 0 in an ACK that takes bytes. */
static void a_limit_on_unread_bytes_shuts_the_window_until_the_reader_goes_on(void **state)
{
	(void)state;
	struct tcps_usage u;
	uint32_t held;
	tcps_recv_limit(rig.conn, 4096);
	rig.take_max = 0;
	for (uint32_t i = 0; i < 10; i++)
		data_at(i * 1000, 1000);
	rig_flush();
	struct seen s = rig_expect();
	held = peer_off(s.ack);
	assert_in_range(held, 4096, 4096 + 2 * 2032);
	assert_int_equal(s.wnd, 0);
	assert_int_equal(rig_count(TCPS_CNT_windows_shut), 1);
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 4); /* 4096 bytes, and what the ends of blocks waste */
	/* A probe, and a reader that tries and stops again: nothing moves, and only the probe is answered. */
	data_at(held, 1);
	rig_flush();
	s = rig_expect();
	assert_int_equal(peer_off(s.ack), held);
	assert_int_equal(s.wnd, 0);
	for (unsigned i = 0; i < 3; i++) {
		tcps_resume(rig.conn);
		rig_flush();
		rig_expect_none();
	}
	rig_check();
	rig.take_max = SIZE_MAX;
	tcps_resume(rig.conn);
	assert_int_equal(rig.got_len, held);
	rig_flush();
	s = rig_expect();
	assert_int_equal(s.wnd, 65535);
	data_at(held, 1000);
	assert_int_equal(rig.got_len, held + 1000);
	assert_memory_equal(rig.got, pattern, held + 1000);
	rig_check();
}

/* The pool is not one connection's to fill, however large a window it was promised. */
static void a_stopped_reader_holds_no_more_than_its_share_of_the_blocks(void **state)
{
	(void)state;
	struct tcps_usage u;
	struct tcps_config cfg;
	rig_stop();
	rig_config(&cfg);
	cfg.blocks_max = 24;
	rig_start(&cfg);
	rig_establish(true, 7);
	rig.take_max = 0;
	for (uint32_t i = 0; i < 40; i++)
		data_at(i * 1000, 1000);
	tcps_usage(rig.t, &u);
	assert_in_range(u.blocks_in_use, 4, 7);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.wnd, 0);
	rig_clear();
	/* Out of order it gets none of the reserve either, and an answer still finds room. */
	data_at(50000, 1000);
	assert_true(tcps_send(rig.conn, "answer", 6));
	rig_check();
	rig.take_max = SIZE_MAX;
	tcps_resume(rig.conn);
	assert_int_equal(rig.got_len, peer_off(s.ack));
	rig_flush();
	rig_clear();
}

static void a_reader_that_stops_gets_nothing_until_it_resumes(void **state)
{
	(void)state;
	rig.take_max = 300;
	data_at(0, 1000);
	assert_int_equal(rig.got_len, 300);
	data_at(1000, 1000);
	assert_int_equal(rig.data_calls, 1);
	tcps_resume(rig.conn); /* takes nothing: stops again */
	assert_int_equal(rig.data_calls, 2);
	rig.take_max = SIZE_MAX;
	tcps_resume(rig.conn);
	assert_int_equal(rig.got_len, 2000);
	assert_memory_equal(rig.got, pattern, 2000);
	tcps_resume(rig.conn); /* nothing is held: nothing happens */
	data_at(2000, 10);
	assert_int_equal(rig.got_len, 2010);
}

static void the_end_of_the_stream_waits_for_a_reader_that_stopped(void **state)
{
	(void)state;
	rig.take_max = 0;
	rig_segment(ACK | FIN, PEER_ISS + 1, rig_own(0), pattern, 1000, NULL, 0);
	assert_int_equal(rig.eof, 0);
	rig_flush();
	assert_int_equal(peer_off(rig_expect().ack), 1001);
	rig.take_max = SIZE_MAX;
	tcps_resume(rig.conn);
	assert_int_equal(rig.got_len, 1000);
	assert_int_equal(rig.eof, 1);
}

static void a_connection_may_be_aborted_from_inside_on_data(void **state)
{
	(void)state;
	rig.abort_in_data = true;
	data_at(0, 100);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_ABORTED);
	assert_true(rig_expect().flags & RST);
	rig_expect_baseline();
}

/* The urgent pointer is tolerated: RFC 6093. */
static void urgent_data_is_ordinary_data(void **state)
{
	(void)state;
	rig_segment(ACK | PSH | URG, PEER_ISS + 1, rig_own(0), "urgent", 6, NULL, 0);
	assert_int_equal(rig.got_len, 6);
	assert_int_equal(rig_count(TCPS_CNT_urgent), 1);
}

/* --- sending --- */

/* RFC 6928: ten segments to begin with; RFC 5681 3.1: slow start, by RFC 3465 2.2 two segments an ACK at most. */
static void the_initial_window_is_ten_segments_and_grows_with_acks(void **state)
{
	(void)state;
	tcps_send(rig.conn, pattern, 60000);
	rig_flush();
	assert_int_equal(rig_pending(), 10);
	rig_clear();
	rig_send(ACK, rig_own(2920), NULL, 0);
	rig_flush();
	assert_int_equal(rig_pending(), 4); /* two acknowledged, two more for growth */
}

static void an_rto_resends_the_first_segment_and_backs_off(void **state)
{
	(void)state;
	tcps_send(rig.conn, pattern, 5000);
	rig_flush();
	assert_int_equal(rig_pending(), 4);
	rig_clear();
	rig_pass(990 * MS);
	rig_expect_none();
	rig_pass(20 * MS);
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(0));
	assert_int_equal(s.len, 1460);
	rig_expect_none(); /* one segment: the loss window */
	rig_pass(1980 * MS);
	rig_expect_none();
	rig_pass(20 * MS);
	assert_int_equal(rig_expect().seq, rig_own(0));
	/* Half of it arrives: slow start from there. */
	rig_clear();
	rig_send(ACK, rig_own(1460), NULL, 0);
	rig_flush();
	s = rig_expect();
	assert_int_equal(s.seq, rig_own(1460));
}

static void retransmission_gives_up_in_the_end(void **state)
{
	(void)state;
	tcps_send_ref(rig.conn, pattern, 100, NULL);
	rig_pass(300 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
	assert_int_equal(rig.released, 1);
	assert_int_equal(rig_count(TCPS_CNT_rto_expired), 6);
	rig_expect_baseline();
}

/* RFC 6298 5.2: an ACK that moves nothing must not keep the timer from firing. */
static void acks_of_nothing_do_not_postpone_the_retransmission(void **state)
{
	(void)state;
	tcps_send(rig.conn, pattern, 100);
	rig_flush();
	rig_clear();
	for (unsigned i = 0; i < 12; i++) {
		rig_pass(100 * MS);
		rig_send(ACK, rig_own(0), "k", 1);
	}
	bool resent = false;
	while (rig_pending() > 0)
		resent |= rig_expect().len == 100;
	assert_true(resent);
}

/* RFC 5681 3.2, RFC 6582, RFC 6937: a peer without SACK, NewReno. */
static void the_third_duplicate_ack_resends_at_once_and_partial_acks_go_on(void **state)
{
	(void)state;
	struct tcps_config cfg;
	rig_stop();
	rig_config(&cfg);
	cfg.cc = TCPS_CC_NEWRENO;
	rig_start(&cfg);
	rig_establish(false, -1);
	tcps_send(rig.conn, pattern, 14600);
	rig_flush();
	rig_clear();
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_flush();
	rig_expect_none();
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(0));
	assert_int_equal(s.len, 1460);
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_int_equal(info.ssthresh_bytes, 7300);
	assert_int_equal(info.congestion[0], 'n');
	assert_true(info.cwnd_bytes <= 14600 - 3 * 1460 + 1460); /* what is still in the network, and one more */
	rig_clear();
	/* A partial ACK: the next hole is resent without waiting for three more. */
	rig_send(ACK, rig_own(4380), NULL, 0);
	rig_flush();
	assert_int_equal(rig_expect().seq, rig_own(4380));
	rig_clear();
	/* A full one ends the recovery with the halved window. */
	rig_send(ACK, rig_own(14600), NULL, 0);
	tcps_info(rig.conn, &info);
	assert_true(info.cwnd_bytes <= 7300);
	assert_int_equal(rig_count(TCPS_CNT_retransmits_fast), 2);
	assert_int_equal(rig_count(TCPS_CNT_rto_expired), 0);
}

/* RFC 3042. */
static void the_first_two_duplicate_acks_let_one_new_segment_out_each(void **state)
{
	(void)state;
	tcps_send(rig.conn, pattern, 20000);
	rig_flush();
	assert_int_equal(rig_pending(), 10);
	rig_clear();
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_flush();
	assert_int_equal(rig_expect().seq, rig_own(14600));
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_flush();
	assert_int_equal(rig_expect().seq, rig_own(16060));
	rig_expect_none();
}

/* RFC 5681 2: data, a changed window or nothing outstanding make no duplicate ACK. */
static void what_looks_like_a_duplicate_ack_but_is_none_triggers_nothing(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5; i++)
		rig_send(ACK, rig_own(0), NULL, 0);
	tcps_send(rig.conn, pattern, 14600);
	rig_flush();
	rig_clear();
	for (unsigned i = 0; i < 5; i++)
		rig_send(ACK | PSH, rig_own(0), "d", 1);
	for (unsigned i = 0; i < 5; i++) {
		rig.peer_wnd++;
		rig_send(ACK, rig_own(0), NULL, 0);
	}
	assert_int_equal(rig_count(TCPS_CNT_dup_acks_in), 0);
	assert_int_equal(rig_count(TCPS_CNT_retransmits_fast), 0);
}

/* RFC 9293 3.8.6.1: a lost window update is found out by probing. */
static void a_shut_window_is_probed_with_backoff_and_data_flows_when_it_opens(void **state)
{
	(void)state;
	rig.peer_wnd = 0;
	rig_send(ACK, rig_own(0), NULL, 0);
	tcps_send(rig.conn, pattern, 5000);
	rig_flush();
	rig_expect_none();
	rig_pass(1010 * MS);
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(0));
	assert_int_equal(s.len, 1);
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_pass(1900 * MS);
	rig_expect_none();
	rig_pass(200 * MS);
	s = rig_expect();
	assert_int_equal(s.seq, rig_own(0));
	rig_clear();
	/* The byte was taken, and the window is open again. */
	rig.peer_wnd = 512;
	rig_send(ACK, rig_own(1), NULL, 0);
	rig_flush();
	size_t n = 0;
	while (rig_pending() > 0) {
		s = rig_expect();
		assert_int_equal(s.seq, rig_own(1 + (uint32_t)n));
		assert_memory_equal(s.payload, pattern + 1 + n, s.len);
		n += s.len;
	}
	assert_int_equal(n, 4999);
	assert_int_equal(rig_count(TCPS_CNT_rto_expired), 0);
}

/* RFC 9293 3.8.6.1, MUST-37: as long as the probes are answered the connection stays. */
static void a_reader_that_never_reads_keeps_its_connection_while_it_answers(void **state)
{
	(void)state;
	rig.peer_wnd = 0;
	rig_send(ACK, rig_own(0), NULL, 0);
	tcps_send(rig.conn, pattern, 10);
	for (unsigned i = 0; i < 50; i++) {
		rig_pass(60 * SECOND);
		rig_clear();
		rig_send(ACK, rig_own(0), NULL, 0);
	}
	assert_int_equal(rig.closed, 0);
	rig_pass(600 * SECOND); /* now it is silent */
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
}

/* RFC 9293 3.8.6.2.1: no silly segments; half of the largest window is worth one. */
static void a_window_smaller_than_a_segment_is_filled_only_when_it_is_half_of_the_largest(void **state)
{
	(void)state;
	rig.peer_wnd = 2; /* 256 bytes */
	rig_send(ACK, rig_own(0), NULL, 0);
	tcps_send(rig.conn, pattern, 5000);
	rig_flush();
	rig_expect_none();
	rig_pass(1100 * MS); /* the persist timer overrides: all that fits goes */
	assert_int_equal(rig_expect().len, 256);
	rig_clear();
	rig.peer_wnd = 300; /* 38,400: more than half */
	rig_send(ACK, rig_own(256), NULL, 0);
	rig_flush();
	assert_int_equal(rig_expect().len, 1460);
}

static void a_peer_that_shrinks_its_window_is_not_sent_beyond_it(void **state)
{
	(void)state;
	tcps_send(rig.conn, pattern, 20000);
	rig_flush();
	rig_clear();
	rig.peer_wnd = 8; /* 1,024 < what is in flight */
	rig_send(ACK, rig_own(1460), NULL, 0);
	rig_flush();
	rig_expect_none();
	data_at(0, 10);
	data_at(10, 10);
	rig_flush();
	/* A bare ACK stays inside the window as well. */
	assert_int_equal(rig_expect().seq, rig_own(1460 + 1024));
}

/* No Nagle: the last partial segment is sent at once. */
static void nothing_is_held_back_to_fill_a_segment(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		tcps_send(rig.conn, pattern, 10);
		rig_flush();
		assert_int_equal(rig_expect().len, 10);
	}
}

static void keepalives_ask_an_idle_peer_and_give_up_on_a_dead_one(void **state)
{
	(void)state;
	rig_stop();
	struct tcps_config cfg;
	rig_config(&cfg);
	cfg.keepalive_ns = 10 * SECOND;
	rig_start(&cfg);
	rig_establish(false, 7);
	rig_pass(9 * SECOND);
	rig_expect_none();
	rig_pass(2 * SECOND);
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(0) - 1);
	assert_int_equal(s.len, 0);
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_pass(9 * SECOND);
	rig_expect_none();
	rig_pass(200 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
	rig_expect_baseline();
}

/* --- what an attacker or a confused peer sends --- */

/* RFC 5961 3.2. */
static void only_a_reset_with_the_exact_number_resets(void **state)
{
	(void)state;
	rig_segment(RST, PEER_ISS + 1 + 100, 0, NULL, 0, NULL, 0);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.flags, ACK);
	assert_int_equal(s.ack, PEER_ISS + 1);
	rig_segment(RST, PEER_ISS + 1 + 70000, 0, NULL, 0, NULL, 0);
	rig_segment(RST, PEER_ISS, 0, NULL, 0, NULL, 0);
	rig_flush();
	rig_expect_none();
	assert_int_equal(rig.closed, 0);
	rig_segment(RST, PEER_ISS + 1, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_RESET);
	rig_expect_none();
	rig_expect_baseline();
}

/* RFC 5961 4.2, and the rate limit of section 7. */
static void a_syn_in_an_established_connection_is_challenged_at_a_limited_rate(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		rig_segment(SYN, PEER_ISS + 1 + i, 0, NULL, 0, NULL, 0);
		rig_flush();
	}
	assert_int_equal(rig_pending(), 10);
	assert_int_equal(rig_expect().flags, ACK);
	assert_int_equal(rig_count(TCPS_CNT_challenge_acks), 10);
	assert_int_equal(rig_count(TCPS_CNT_acks_limited), 40);
	assert_int_equal(rig.closed, 0);
	rig_clear();
	rig.now_ns += SECOND;
	rig_segment(SYN | ACK, PEER_ISS, rig_own(0), NULL, 0, NULL, 0);
	rig_flush();
	assert_int_equal(rig_pending(), 1);
}

/* RFC 5961 5.2. */
static void acks_outside_what_was_sent_are_challenged_and_their_data_dropped(void **state)
{
	(void)state;
	rig_segment(ACK | PSH, PEER_ISS + 1, rig_own(1000), "new", 3, NULL, 0);
	assert_int_equal(rig_count(TCPS_CNT_ack_too_new), 1);
	rig_segment(ACK | PSH, PEER_ISS + 1, rig_own(0) - 0x1000000, "old", 3, NULL, 0);
	assert_int_equal(rig_count(TCPS_CNT_ack_too_old), 1);
	assert_int_equal(rig.got_len, 0);
	rig_flush();
	assert_int_equal(rig_expect().flags, ACK);
	rig_segment(ACK | PSH, PEER_ISS + 1, rig_own(0) - 1, "late", 4, NULL, 0); /* merely an old one */
	assert_int_equal(rig.got_len, 4);
}

static void a_segment_below_the_window_is_answered_with_an_ack(void **state)
{
	(void)state;
	rig_segment(ACK | PSH, PEER_ISS - 5000, rig_own(0), "x", 1, NULL, 0);
	rig_flush();
	assert_int_equal(rig_expect().ack, PEER_ISS + 1);
	assert_int_equal(rig.got_len, 0);
}

static void a_segment_above_the_window_is_answered_with_an_ack(void **state)
{
	(void)state;
	rig_segment(ACK | PSH, PEER_ISS + 1 + 70000, rig_own(0), "x", 1, NULL, 0);
	rig_flush();
	assert_int_equal(rig_expect().ack, PEER_ISS + 1);
	assert_int_equal(rig_count(TCPS_CNT_out_of_window), 1);
}

static void a_segment_without_ack_is_dropped(void **state)
{
	(void)state;
	rig_segment(PSH, PEER_ISS + 1, 0, "x", 1, NULL, 0);
	rig_segment(0, PEER_ISS + 1, 0, "x", 1, NULL, 0);
	assert_int_equal(rig.got_len, 0);
	assert_int_equal(rig_count(TCPS_CNT_drop_no_ack), 2);
}

/* --- timestamps --- */

/* RFC 7323 4.3: the echo is of the first segment that was not acknowledged yet. */
static void the_echo_is_of_the_oldest_unacknowledged_segment(void **state)
{
	(void)state;
	rig.ts_val = 20000;
	rig_send(ACK | PSH, rig_own(0), "a", 1);
	rig.ts_val = 20500;
	rig_send(ACK | PSH, rig_own(0), "b", 1);
	rig_flush();
	assert_int_equal(rig_expect().ts_ecr, 20000);
}

/* RFC 7323 5.3. */
static void an_old_timestamp_is_refused_with_an_ack(void **state)
{
	(void)state;
	rig.ts_val = 20000;
	rig_send(ACK | PSH, rig_own(0), "a", 1);
	rig_flush();
	rig.ts_val = 19999;
	rig_send(ACK | PSH, rig_own(0), "b", 1);
	rig_flush();
	assert_int_equal(rig.got_len, 1);
	assert_int_equal(rig_count(TCPS_CNT_paws), 1);
	assert_int_equal(rig_expect().ack, rig.peer_seq - 1);
	rig.peer_seq--;
	rig.ts_val = 20001;
	rig_send(ACK | PSH, rig_own(0), "b", 1);
	assert_int_equal(rig.got_len, 2);
}

static void timestamps_may_wrap_around(void **state)
{
	(void)state;
	rig.ts_val = 0x7fffff00;
	rig_send(ACK | PSH, rig_own(0), "a", 1);
	rig_pass(50 * MS);
	rig.ts_val = 0xf0000000;
	rig_send(ACK | PSH, rig_own(0), "b", 1);
	rig_pass(50 * MS);
	rig.ts_val = 3;
	rig_send(ACK | PSH, rig_own(0), "c", 1);
	assert_int_equal(rig.got_len, 3);
	assert_int_equal(rig_count(TCPS_CNT_paws), 0);
}

/* RFC 7323 5.5: after 24 days of silence ts_recent means nothing. */
static void after_24_days_of_silence_any_timestamp_is_taken(void **state)
{
	(void)state;
	rig.ts_val = 0x50000000;
	rig_send(ACK | PSH, rig_own(0), "a", 1);
	rig_flush();
	rig.ts_val = 0x40000000;
	rig.now_ns += 27ull * 86400 * SECOND;
	tcps_tick(rig.t, rig.now_ns);
	rig_send(ACK | PSH, rig_own(0), "b", 1);
	assert_int_equal(rig.got_len, 2);
}

/* A middlebox that strips options must not stall a connection. */
static void a_segment_without_the_agreed_timestamp_is_taken_and_counted(void **state)
{
	(void)state;
	rig.ts = false;
	rig_send(ACK | PSH, rig_own(0), "plain", 5);
	assert_int_equal(rig.got_len, 5);
	assert_int_equal(rig_count(TCPS_CNT_no_timestamp), 1);
}

/* RFC 6298 2.2: the first measurement; here 50 ms, so that the minimum rules. */
static void a_round_trip_is_measured(void **state)
{
	(void)state;
	tcps_send(rig.conn, "x", 1);
	rig_flush();
	rig_pass(50 * MS);
	rig_send(ACK, rig_own(1), NULL, 0);
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_in_range(info.srtt_us, 49000, 51000);
	assert_int_equal(info.rto_ms, 200);
	assert_int_equal(info.bytes_out, 1);
	assert_string_equal(info.state, "ESTABLISHED");
}

/* Karn: the ACK of a segment that was sent twice says nothing without timestamps. */
static void a_retransmitted_segment_is_not_timed_without_timestamps(void **state)
{
	(void)state;
	rig_stop();
	established(state);
	tcps_send(rig.conn, "x", 1);
	rig_flush();
	rig_pass(1500 * MS);
	rig_send(ACK, rig_own(1), NULL, 0);
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_int_equal(info.srtt_us, 0);
	assert_int_equal(info.rto_ms, 2000); /* backed off, until something is measured */
	tcps_send(rig.conn, "y", 1);
	rig_flush();
	rig_pass(10 * MS);
	rig_send(ACK, rig_own(2), NULL, 0);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.rto_ms, 200);
}

/* A round trip of nothing must not stop the flow. */
static void a_round_trip_of_zero_is_a_measurement_too(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		tcps_send(rig.conn, "x", 1);
		rig_flush();
		rig_send(ACK, rig_own(i + 1), NULL, 0);
	}
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_true(info.srtt_us >= 1);
	assert_int_equal(info.rto_ms, 200);
}

#define test(name)    cmocka_unit_test_setup_teardown(name, established, rig_teardown)
#define test_ts(name) cmocka_unit_test_setup_teardown(name, established_with_timestamps, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(every_second_segment_is_acknowledged_at_once),
		test(a_single_segment_is_acknowledged_after_the_delay),
		test(an_ack_rides_on_data_and_the_delay_stands_aside),
		test(a_burst_is_acknowledged_once),
		test(out_of_order_segments_are_kept_and_delivered_in_order),
		test(a_shuffled_stream_arrives_whole),
		test(holes_are_bounded_in_number),
		test(a_window_of_one_byte_segments_costs_no_more_blocks_than_one_of_full_ones),
		test(old_bytes_are_not_delivered_twice),
		test(bytes_beyond_the_window_are_cut_off),
		test(probes_of_a_shut_window_are_answered),
		test(acks_count_while_our_window_is_shut),
		test(a_reader_that_takes_little_does_not_open_the_window_by_little),
		test(a_limit_on_unread_bytes_shuts_the_window_until_the_reader_goes_on),
		test(a_stopped_reader_holds_no_more_than_its_share_of_the_blocks),
		test(a_reader_that_stops_gets_nothing_until_it_resumes),
		test(the_end_of_the_stream_waits_for_a_reader_that_stopped),
		test(a_connection_may_be_aborted_from_inside_on_data),
		test(urgent_data_is_ordinary_data),
		test(the_initial_window_is_ten_segments_and_grows_with_acks),
		test(an_rto_resends_the_first_segment_and_backs_off),
		test(retransmission_gives_up_in_the_end),
		test(acks_of_nothing_do_not_postpone_the_retransmission),
		test(the_third_duplicate_ack_resends_at_once_and_partial_acks_go_on),
		test(the_first_two_duplicate_acks_let_one_new_segment_out_each),
		test(what_looks_like_a_duplicate_ack_but_is_none_triggers_nothing),
		test(a_shut_window_is_probed_with_backoff_and_data_flows_when_it_opens),
		test(a_reader_that_never_reads_keeps_its_connection_while_it_answers),
		test(a_window_smaller_than_a_segment_is_filled_only_when_it_is_half_of_the_largest),
		test(a_peer_that_shrinks_its_window_is_not_sent_beyond_it),
		test(nothing_is_held_back_to_fill_a_segment),
		test(keepalives_ask_an_idle_peer_and_give_up_on_a_dead_one),
		test(only_a_reset_with_the_exact_number_resets),
		test(a_syn_in_an_established_connection_is_challenged_at_a_limited_rate),
		test(acks_outside_what_was_sent_are_challenged_and_their_data_dropped),
		test(a_segment_below_the_window_is_answered_with_an_ack),
		test(a_segment_above_the_window_is_answered_with_an_ack),
		test(a_segment_without_ack_is_dropped),
		test_ts(the_echo_is_of_the_oldest_unacknowledged_segment),
		test_ts(an_old_timestamp_is_refused_with_an_ack),
		test_ts(timestamps_may_wrap_around),
		test_ts(after_24_days_of_silence_any_timestamp_is_taken),
		test_ts(a_segment_without_the_agreed_timestamp_is_taken_and_counted),
		test_ts(a_round_trip_is_measured),
		test_ts(a_retransmitted_segment_is_not_timed_without_timestamps),
		test_ts(a_round_trip_of_zero_is_a_measurement_too),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_stream", tests, NULL, NULL);
}
