/*
 * test_tcps_short.c - the short paths in and out: what they must not take, and what they leave behind.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 9293 3.10.7.4, RFC 7323 appendix D, RFC 5681 4.1; that both paths send the same frames is shown by
 *       tests/sim/short_paths.
 */
#include "tests/unit/test_tcps_rig.h"

#include <string.h>

static int established(void **state)
{
	rig_setup(state);
	rig_establish(true, 7);
	return 0;
}

static void queue(size_t len, int byte)
{
	uint8_t *to = tcps_reserve(rig.conn, len);
	assert_non_null(to);
	memset(to, byte, len);
	tcps_commit(rig.conn, len);
}

static uint32_t blocks(void)
{
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	return u.blocks_in_use;
}

/* A tick that went out and was acknowledged, as most are. */
static void tick(size_t len, uint32_t end)
{
	queue(len, 't');
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.len, len);
	rig.ts_ecr = s.ts_val;
	rig_clear();
	rig_send(ACK, rig_own(end), NULL, 0);
}

/* RFC 9293 3.10.7.4: "ACK acks something not yet sent": an ACK in return, and the segment is dropped. */
static void an_ack_of_all_that_is_queued_is_refused_where_some_of_it_was_not_sent(void **state)
{
	(void)state;
	queue(100, 'a');
	rig_flush();
	assert_int_equal(rig_expect().len, 100);
	queue(50, 'b');
	rig_send(ACK, rig_own(150), NULL, 0);
	assert_int_equal(tcps_unsent(rig.conn), 150);
	rig_flush();
	bool sent = false;
	while (rig_pending() > 0) {
		struct seen s = rig_expect();
		if (s.len == 0)
			continue;
		assert_int_equal(s.seq, rig_own(100));
		assert_int_equal(s.len, 50);
		assert_int_equal(s.payload[0], 'b');
		sent = true;
	}
	assert_true(sent);
	rig_send(ACK, rig_own(150), NULL, 0);
	assert_int_equal(tcps_unsent(rig.conn), 0);
}

static void the_ack_of_a_part_of_a_flight_leaves_the_rest_outstanding(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	queue(100, 'a');
	rig_flush();
	rig_clear();
	rig_send(ACK, rig_own(40), NULL, 0);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.unacked_bytes, 60);
	rig_pass(2000000000);
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(40));
	assert_int_equal(s.len, 60);
}

static void an_empty_queue_keeps_its_block_until_the_time_out_that_is_not_needed(void **state)
{
	(void)state;
	tick(100, 100);
	assert_int_equal(blocks(), 1);
	tick(100, 200);
	assert_int_equal(blocks(), 1);
	rig_pass(1000000000);
	assert_int_equal(blocks(), 0);
	tick(100, 300);
}

static void ticks_of_any_length_pass_through_the_block_that_was_kept(void **state)
{
	(void)state;
	uint32_t end = 0;
	for (unsigned i = 0; i < 64; i++) {
		size_t len = 1 + i * 397 % 1400;
		tick(len, end += (uint32_t)len);
		assert_int_equal(blocks(), 1);
	}
}

static void bytes_of_any_kind_follow_in_the_block_that_was_kept(void **state)
{
	(void)state;
	static uint8_t body[3000];
	tick(100, 100);
	assert_true(tcps_send_ref(rig.conn, body, sizeof(body), NULL));
	queue(10, 'q');
	assert_true(tcps_send(rig.conn, body, 2500));
	rig_flush();
	uint32_t got = 0;
	while (rig_pending() > 0) {
		struct seen s = rig_expect();
		assert_int_equal(s.seq, rig_own(100 + got));
		got += s.len;
	}
	assert_int_equal(got, 5510);
	rig_send(ACK, rig_own(5610), NULL, 0);
	assert_int_equal(rig.released, 1);
	rig_pass(1000000000);
	assert_int_equal(blocks(), 0);
}

static int few_blocks(void **state)
{
	struct tcps_config cfg;
	(void)state;
	rig_config(&cfg);
	cfg.blocks_max = 4;
	rig_start(&cfg);
	rig_establish(true, 7);
	return 0;
}

static void where_blocks_are_scarce_an_empty_queue_keeps_none(void **state)
{
	(void)state;
	static uint8_t held[2800];
	tick(100, 100);
	assert_int_equal(blocks(), 1);
	rig_pass(1000000000);
	rig.take_max = 1; /* a reader that stops: what comes is held in blocks */
	rig_send(ACK, rig_own(100), held, 1400);
	rig_send(ACK, rig_own(100), held + 1400, 1400);
	rig_pass(1000000000);
	rig_clear();
	assert_int_equal(blocks(), 2);
	tick(100, 200);
	assert_int_equal(blocks(), 2);
}

/* RFC 9293 3.10.7.4: a window counts where SND.WL1 < SEG.SEQ, or they are equal and the ACK is no older. */
static void an_older_segment_does_not_take_back_the_window_of_a_later_one(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	uint32_t seq = rig.peer_seq;
	uint8_t opts[12] = {1, 1, 8, 10, 0, 0, 0x27, 0x10, 0, 0, 0, 0};
	rig.peer_wnd = 900;
	rig_segment(ACK, seq + 10, rig_own(0), NULL, 0, opts, 12); /* an ACK that overtook ten bytes */
	tcps_info(rig.conn, &info);
	uint32_t told = info.snd_wnd_bytes;
	assert_int_equal(told, 900u << 7);
	rig.peer_wnd = 5;
	rig_segment(ACK | PSH, seq, rig_own(0), "0123456789", 10, opts, 12);
	assert_int_equal(rig.got_len, 10);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.snd_wnd_bytes, told);
}

/* RFC 5681 4.1. */
static void a_window_that_grew_is_given_up_after_an_idle_time_out_and_not_before(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	static uint8_t bytes[30000];
	uint32_t sent = 0;
	assert_true(tcps_send(rig.conn, bytes, sizeof(bytes)));
	while (tcps_unsent(rig.conn) > 0) {
		rig_flush();
		while (rig_pending() > 0)
			sent += rig_expect().len;
		rig_clear();
		rig_send(ACK, rig_own(sent), NULL, 0);
	}
	tcps_info(rig.conn, &info);
	uint32_t grown = info.cwnd_bytes, rto_ms = info.rto_ms;
	assert_true(grown > 10 * info.mss);
	rig_pass((uint64_t)rto_ms * 1000000 / 2);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.cwnd_bytes, grown);
	rig_pass((uint64_t)rto_ms * 1000000);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.cwnd_bytes, 10 * info.mss);
}

/* A record notes microseconds: rig_check() wants a timer no later than the deadline that is worked out from it. */
static void a_deadline_that_rounding_moves_across_a_tick_of_the_wheel_is_kept(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	uint32_t end = 0;
	for (unsigned late_ns = 1; late_ns < 1000; late_ns += 37) {
		rig_pass(400000000);
		tcps_info(rig.conn, &info);
		uint64_t rto_ns = (uint64_t)info.rto_ms * 1000000, tick = ((rig.now_ns + rto_ns) >> 17) + 2;
		rig.now_ns = (tick << 17) - rto_ns + late_ns;
		queue(100, 'd');
		rig_flush();
		struct seen s = rig_expect();
		rig.ts_ecr = s.ts_val;
		rig_clear();
		rig.now_ns = (rig.now_ns / 1000 + 2) * 1000; /* none of its nanoseconds is left */
		queue(10, 'e');
		rig_flush();
		rig_clear();
		rig_send(ACK, rig_own(end += 110), NULL, 0);
	}
}

#define test(f) cmocka_unit_test_setup_teardown(f, established, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(an_ack_of_all_that_is_queued_is_refused_where_some_of_it_was_not_sent),
		test(the_ack_of_a_part_of_a_flight_leaves_the_rest_outstanding),
		test(an_empty_queue_keeps_its_block_until_the_time_out_that_is_not_needed),
		test(ticks_of_any_length_pass_through_the_block_that_was_kept),
		test(bytes_of_any_kind_follow_in_the_block_that_was_kept),
		cmocka_unit_test_setup_teardown(where_blocks_are_scarce_an_empty_queue_keeps_none, few_blocks, rig_teardown),
		test(an_older_segment_does_not_take_back_the_window_of_a_later_one),
		test(a_deadline_that_rounding_moves_across_a_tick_of_the_wheel_is_kept),
		test(a_window_that_grew_is_given_up_after_an_idle_time_out_and_not_before),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_short", tests, NULL, NULL);
}
