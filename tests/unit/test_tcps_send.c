/*
 * test_tcps_send.c - the send stream: slices, reservations, references that come back exactly once, pools that run dry.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 9293 3.10.2; the contract of tcps_reserve(), tcps_send() and tcps_send_ref() in tcpstack.h.
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

/* Gathers what the stack sends from `offset` of the stream on, acknowledging as it goes. */
static size_t drain(uint8_t *to, size_t want, uint32_t offset)
{
	size_t got = 0;
	while (got < want) {
		rig_flush();
		if (rig_pending() == 0)
			break;
		while (rig_pending() > 0) {
			struct seen s = rig_expect();
			if (s.len == 0)
				continue;
			assert_int_equal(s.seq, rig_own(offset + (uint32_t)got));
			memcpy(to + got, s.payload, s.len);
			got += s.len;
		}
		rig_clear();
		rig_send(ACK, rig_own(offset + (uint32_t)got), NULL, 0);
	}
	return got;
}

static void what_is_committed_in_place_goes_out_as_one_segment(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *to = tcps_reserve(rig.conn, 100);
		assert_non_null(to);
		memset(to, (int)('a' + i), 100);
		tcps_commit(rig.conn, 50); /* less than was reserved */
	}
	assert_int_equal(tcps_unsent(rig.conn), 150);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.len, 150);
	assert_true(s.flags & PSH);
	assert_int_equal(s.payload[0], 'a');
	assert_int_equal(s.payload[50], 'b');
	assert_int_equal(s.payload[149], 'c');
	rig_expect_none();
}

static void a_reservation_that_does_not_fit_opens_another_block(void **state)
{
	(void)state;
	static uint8_t got[8 * 1500];
	for (unsigned i = 0; i < 8; i++) {
		uint8_t *to = tcps_reserve(rig.conn, 1500);
		assert_non_null(to);
		memset(to, (int)i, 1500);
		tcps_commit(rig.conn, 1500);
	}
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 8);
	assert_int_equal(drain(got, sizeof(got), 0), sizeof(got));
	for (unsigned i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], i / 1500);
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 0);
}

static void more_than_a_reservation_may_hold_is_refused(void **state)
{
	(void)state;
	assert_non_null(tcps_reserve(rig.conn, TCPS_RESERVE_MAX));
	assert_null(tcps_reserve(rig.conn, TCPS_BLOCK_BYTES));
	tcps_commit(rig.conn, 0);
	rig_flush();
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 0);
}

static void a_reservation_without_a_commit_leaves_no_byte(void **state)
{
	(void)state;
	assert_non_null(tcps_reserve(rig.conn, 10));
	tcps_commit(rig.conn, 0);
	assert_non_null(tcps_reserve(rig.conn, 1536));
	tcps_commit(rig.conn, 0);
	assert_true(tcps_send_ref(rig.conn, "xyz", 3, NULL));
	rig_flush();
	assert_int_equal(rig_expect().len, 3);
	rig_send(ACK, rig_own(3), NULL, 0);
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 0);
}

static void a_reference_is_released_once_when_its_last_byte_is_acknowledged(void **state)
{
	(void)state;
	static uint8_t body[4000];
	int owner;
	memset(body, 'r', sizeof(body));
	assert_true(tcps_send(rig.conn, "head", 4));
	assert_true(tcps_send_ref(rig.conn, body, sizeof(body), &owner));
	assert_true(tcps_send(rig.conn, "tail", 4));
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 1); /* the tail goes on in the head's block */
	assert_int_equal(u.refs_in_use, 1);
	rig_flush();
	rig_send(ACK, rig_own(2000), NULL, 0);
	assert_int_equal(rig.released, 0);
	rig_send(ACK, rig_own(4003), NULL, 0);
	assert_int_equal(rig.released, 0);
	rig_send(ACK, rig_own(4004), NULL, 0);
	assert_int_equal(rig.released, 1);
	assert_ptr_equal(rig.released_owner, &owner);
	rig_send(ACK, rig_own(4008), NULL, 0);
	assert_int_equal(rig.released, 1);
	rig_pass(1000000000); /* the block of the tail is kept for a next tick */
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 0);
	assert_int_equal(u.refs_in_use, 0);
}

static void a_reference_is_released_once_when_the_connection_dies(void **state)
{
	(void)state;
	static uint8_t body[4000];
	assert_true(tcps_send_ref(rig.conn, body, sizeof(body), NULL));
	assert_true(tcps_send_ref(rig.conn, body, 1, NULL));
	rig_flush();
	rig_send(ACK, rig_own(1000), NULL, 0);
	tcps_abort(rig.conn);
	assert_int_equal(rig.released, 2);
	assert_int_equal(rig.closed, 1);
	rig_expect_baseline();
}

static void a_segment_may_begin_and_end_anywhere_in_slices_of_any_length(void **state)
{
	(void)state;
	static uint8_t want[40000], got[40000];
	static uint8_t source[40000];
	uint32_t seed = 99;
	size_t n = 0;
	for (size_t i = 0; i < sizeof(source); i++) {
		seed = seed * 1664525u + 1013904223u;
		source[i] = (uint8_t)(seed >> 24);
	}
	while (n < 30000) {
		seed = seed * 1664525u + 1013904223u;
		size_t len = 1 + (seed >> 16) % 301;
		bool ok;
		if (seed >> 30 == 0) {
			ok = tcps_send_ref(rig.conn, source + n, len, NULL);
		} else if (seed >> 30 == 1) {
			ok = tcps_send(rig.conn, source + n, len);
		} else {
			uint8_t *to = tcps_reserve(rig.conn, len);
			ok = to != NULL;
			if (ok) {
				memcpy(to, source + n, len);
				tcps_commit(rig.conn, len);
			}
		}
		assert_true(ok);
		memcpy(want + n, source + n, len);
		n += len;
		rig_check();
	}
	assert_int_equal(drain(got, n, 0), n);
	assert_memory_equal(got, want, n);
}

/* A retransmission is cut anew: what was sent as three segments may go out again as one. */
static void a_retransmission_is_cut_anew_from_the_slices(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		tcps_send(rig.conn, "0123456789", 10);
		rig_flush();
		assert_int_equal(rig_expect().len, 10);
	}
	rig_clear();
	rig_pass(1100 * MS);
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(0));
	assert_int_equal(s.len, 30);
	assert_memory_equal(s.payload, "012345678901234567890123456789", 30);
}

static void tcps_send_is_all_or_nothing_when_blocks_run_out(void **state)
{
	(void)state;
	static uint8_t big[256 * TCPS_BLOCK_BYTES];
	assert_false(tcps_send(rig.conn, big, sizeof(big)));
	assert_int_equal(tcps_unsent(rig.conn), 0);
	assert_true(rig_count(TCPS_CNT_no_blocks) > 0);
	assert_true(tcps_send(rig.conn, big, 255u * 2000u));
	/* Deliveries get nothing of the rest, answers do. */
	assert_true(tcps_reserve(rig.conn, 1500) == NULL || (tcps_commit(rig.conn, 1500), tcps_reserve(rig.conn, 1500) == NULL));
	unsigned n = 0;
	while (tcps_send(rig.conn, big, 1000))
		assert_true(++n < 12);
	assert_true(n > 0);
	assert_false(tcps_send(rig.conn, big, 3000));
	rig_check();
}

/* Whatever a connection hoards by deliveries, half of what is then free beyond the reserve is not its own. */
static void a_connection_that_hoards_leaves_room_and_is_told_when_half_of_its_share_is_free(void **state)
{
	(void)state;
	struct tcps_usage u;
	unsigned blocks = 0;
	while (tcps_writable(rig.conn)) {
		assert_non_null(tcps_reserve(rig.conn, 1500)); /* one fits into a block, as most ticks of 1,000 bytes */
		tcps_commit(rig.conn, 1500);
		assert_true(++blocks < 200);
	}
	tcps_usage(rig.t, &u);
	assert_true(u.blocks_in_use <= 100000 / 1500 + 2); /* the mark came first */
	/* The same with a mark that never comes: the share does. */
	rig_stop();
	struct tcps_config cfg;
	rig_config(&cfg);
	cfg.send_high_water_bytes = 1u << 29;
	rig_start(&cfg);
	rig_establish(true, 7);
	for (blocks = 0; tcps_writable(rig.conn); blocks++) {
		assert_non_null(tcps_reserve(rig.conn, 1500));
		tcps_commit(rig.conn, 1500);
	}
	tcps_usage(rig.t, &u);
	assert_in_range(u.blocks_in_use, 80, 90); /* a third of 256 less the reserve of 4 connections */
	assert_null(tcps_reserve(rig.conn, 1500));
	assert_true(rig_count(TCPS_CNT_shares_reached) > 0);
	rig_check();
	rig.peer_wnd = 60000;
	for (uint32_t acked = 0; acked < blocks * 1500u;) {
		rig_flush();
		rig_clear();
		acked += 1500;
		assert_int_equal(rig.writable, tcps_writable(rig.conn));
		rig_send(ACK, rig_own(acked), NULL, 0);
		rig_check();
	}
	assert_int_equal(rig.writable, 1);
	assert_true(tcps_writable(rig.conn));
}

static void references_run_out_without_a_trace(void **state)
{
	(void)state;
	unsigned n = 0;
	assert_true(tcps_has_room(rig.conn, 8 * 100, 100));
	assert_true(tcps_has_room(rig.conn, 8 * 10000, 10000)); /* more than there is: it may try with half */
	while (tcps_send_ref(rig.conn, "x", 1, NULL))
		assert_true(++n < 10000);
	assert_false(tcps_has_room(rig.conn, 8, 1));
	assert_int_equal(tcps_unsent(rig.conn), n);
	assert_int_equal(rig.released, 0);
	rig_check();
}

static void the_high_water_mark_is_told_and_taken_back_below_half(void **state)
{
	(void)state;
	static uint8_t data[60000];
	assert_true(tcps_writable(rig.conn));
	assert_true(tcps_send(rig.conn, data, 60000));
	assert_true(tcps_writable(rig.conn));
	assert_true(tcps_send(rig.conn, data, 50000));
	assert_false(tcps_writable(rig.conn));
	rig_flush();
	/* Above the mark, between mark and half, and below half: only the last is told, once. */
	rig_clear();
	rig_send(ACK, rig_own(14480), NULL, 0);
	rig_flush();
	assert_int_equal(tcps_unsent(rig.conn), 95520);
	assert_false(tcps_writable(rig.conn));
	assert_int_equal(rig.writable, 0);
	rig_clear();
	size_t done = 14480;
	while (tcps_unsent(rig.conn) >= 50000) {
		assert_int_equal(rig.writable, 0);
		rig_flush();
		rig_clear();
		done += 1448;
		rig_send(ACK, rig_own((uint32_t)done), NULL, 0);
	}
	assert_int_equal(rig.writable, 1);
	assert_true(tcps_writable(rig.conn));
	rig_clear();
}

/* A port without frames delays, it does not lose: the connection stays on the list. */
static void without_a_transmit_frame_nothing_is_lost_and_nothing_stalls(void **state)
{
	(void)state;
	rig.no_frames = true;
	tcps_send(rig.conn, "later", 5);
	rig_flush();
	rig_expect_none();
	assert_true(rig_count(TCPS_CNT_tx_blocked) > 0);
	assert_true(tcps_next_deadline(rig.t) <= rig.now_ns + MS);
	rig.no_frames = false;
	tcps_tick(rig.t, rig.now_ns);
	assert_int_equal(rig_expect().len, 5);
}

static void a_flush_stops_at_a_dry_port_and_the_next_one_goes_on(void **state)
{
	(void)state;
	static uint8_t data[8000];
	tcps_send(rig.conn, data, sizeof(data));
	rig.no_frames = true;
	rig_flush();
	rig_flush();
	rig.no_frames = false;
	rig_flush();
	size_t n = 0;
	while (rig_pending() > 0)
		n += rig_expect().len;
	assert_int_equal(n, sizeof(data));
}

static void after_shutdown_nothing_more_is_taken(void **state)
{
	(void)state;
	assert_non_null(tcps_reserve(rig.conn, 10));
	tcps_commit(rig.conn, 10);
	tcps_shutdown(rig.conn);
	assert_null(tcps_reserve(rig.conn, 1));
	assert_false(tcps_send(rig.conn, "x", 1));
	assert_false(tcps_send_ref(rig.conn, "x", 1, NULL));
	assert_false(tcps_writable(rig.conn));
}

static void the_offloaded_checksum_is_the_sum_of_the_pseudo_header(void **state)
{
	(void)state;
	rig_stop();
	struct tcps_config cfg;
	rig_config(&cfg);
	cfg.tx_ip_cksum_offload = cfg.tx_tcp_cksum_offload = true;
	rig_start(&cfg);
	rig_establish(true, 7);
	tcps_send(rig.conn, "abc", 3);
	rig_flush();
	const struct out_frame *f = &rig.out[rig.out_count - 1];
	assert_true(f->meta.ip_cksum && f->meta.tcp_cksum);
	assert_int_equal(f->meta.l2_len, 14);
	assert_int_equal(f->meta.l3_len, 20);
	assert_int_equal(f->meta.l4_len, 32);
	assert_memory_equal(f->bytes + 24, ((uint8_t[]){0, 0}), 2);
	/* 198.18 + 0.2 + 198.18 + 0.1 + 6 + 35, added with their carries */
	uint32_t sum = 0xc612u + 0x0002u + 0xc612u + 0x0001u + 6u + 35u;
	sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(f->bytes[50] << 8 | f->bytes[51], sum);
}

#define test(name) cmocka_unit_test_setup_teardown(name, established, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(what_is_committed_in_place_goes_out_as_one_segment),
		test(a_reservation_that_does_not_fit_opens_another_block),
		test(more_than_a_reservation_may_hold_is_refused),
		test(a_reservation_without_a_commit_leaves_no_byte),
		test(a_reference_is_released_once_when_its_last_byte_is_acknowledged),
		test(a_reference_is_released_once_when_the_connection_dies),
		test(a_segment_may_begin_and_end_anywhere_in_slices_of_any_length),
		test(a_retransmission_is_cut_anew_from_the_slices),
		test(tcps_send_is_all_or_nothing_when_blocks_run_out),
		test(a_connection_that_hoards_leaves_room_and_is_told_when_half_of_its_share_is_free),
		test(references_run_out_without_a_trace),
		test(the_high_water_mark_is_told_and_taken_back_below_half),
		test(without_a_transmit_frame_nothing_is_lost_and_nothing_stalls),
		test(a_flush_stops_at_a_dry_port_and_the_next_one_goes_on),
		test(after_shutdown_nothing_more_is_taken),
		test(the_offloaded_checksum_is_the_sum_of_the_pseudo_header),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_send", tests, NULL, NULL);
}
