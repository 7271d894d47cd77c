/*
 * test_tcps_open.c - opening: the three-way handshake from both ends, options, the SYN cache, simultaneous open.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 9293 3.5, 3.7.1, 3.10.7.2, 3.10.7.3; RFC 7323 2 and 3; RFC 6928; RFC 6191.
 */
#include "tests/unit/test_tcps_rig.h"

#include <stdlib.h>
#include <string.h>

static void syn(const uint8_t *opts, size_t len)
{
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, opts, len);
}

/* RFC 9293 3.5, figure 6. */
static void a_syn_is_answered_and_the_ack_completes_the_passive_open(void **state)
{
	(void)state;
	syn(NULL, 0);
	struct seen s = rig_expect();
	assert_int_equal(s.flags, SYN | ACK);
	assert_int_equal(s.ack, PEER_ISS + 1);
	assert_int_equal(s.src_port, OWN_PORT);
	assert_int_equal(s.dst_port, PEER_PORT);
	assert_int_equal(rig.accepted, 0);
	rig_segment(ACK, PEER_ISS + 1, s.seq + 1, NULL, 0, NULL, 0);
	assert_int_equal(rig.accepted, 1);
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.conns, 1);
	assert_int_equal(u.half_open, 0);
	struct tcps_endpoint local, peer;
	tcps_endpoints(rig.conn, &local, &peer);
	assert_int_equal(local.port, OWN_PORT);
	assert_int_equal(peer.port, PEER_PORT);
	assert_memory_equal(peer.addr.bytes, ((uint8_t[]){198, 18, 0, 1}), 4);
	assert_ptr_equal(tcps_user(rig.conn), &rig);
	rig_flush();
	rig_expect_none();
}

/* The layout that Linux has: mss, nop, nop, timestamps, nop, wscale. */
static void only_options_that_were_offered_come_back(void **state)
{
	(void)state;
	static const uint8_t all[] = {2, 4, 5, 0xb4, 1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7};
	syn(all, sizeof(all));
	struct seen s = rig_expect();
	assert_int_equal(s.mss, 1460);
	assert_true(s.has_ts);
	assert_int_equal(s.ts_ecr, 9);
	assert_true(s.wscale >= 0);
	const uint8_t *opts = s.payload - 20;
	assert_memory_equal(opts, ((uint8_t[]){2, 4, 5, 0xb4, 1, 1, 8, 10}), 8);
	assert_memory_equal(opts + 16, ((uint8_t[]){1, 3, 3}), 3);
	rig.peer_port++;
	syn(all, 4);
	s = rig_expect();
	assert_int_equal(s.mss, 1460);
	assert_false(s.has_ts);
	assert_int_equal(s.wscale, -1);
}

static uint32_t first_segment_len(const uint8_t *opts, size_t len)
{
	static uint8_t data[4000];
	syn(opts, len);
	struct seen s = rig_expect();
	rig_segment(ACK, PEER_ISS + 1, s.seq + 1, NULL, 0, NULL, 0);
	assert_true(tcps_send(rig.conn, data, sizeof(data)));
	rig_flush();
	return rig_expect().len;
}

/* RFC 9293 3.7.1, MUST-15: 536 where the option is missing. */
static void a_missing_mss_means_536(void **state)
{
	(void)state;
	assert_int_equal(first_segment_len(NULL, 0), 536);
}

static void a_larger_mss_than_ours_is_cut_to_our_mtu(void **state)
{
	(void)state;
	assert_int_equal(first_segment_len((const uint8_t[]){2, 4, 0x23, 0x28}, 4), 1460);
}

static void an_absurdly_small_mss_is_raised_to_a_floor(void **state)
{
	(void)state;
	assert_int_equal(first_segment_len((const uint8_t[]){2, 4, 0, 1}, 4), 64);
}

/* RFC 7323 2.3: a shift of more than 14 is taken as 14. */
static void a_window_scale_above_14_is_clamped(void **state)
{
	(void)state;
	static const uint8_t opts[] = {1, 3, 3, 200};
	syn(opts, sizeof(opts));
	struct seen s = rig_expect();
	rig.peer_wnd = 3;
	rig_segment(ACK, PEER_ISS + 1, s.seq + 1, NULL, 0, NULL, 0);
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_int_equal(info.snd_wnd_bytes, 3u << 14);
}

/* RFC 7323 2.2: the window of a SYN is never scaled. */
static void the_window_of_a_syn_is_not_scaled(void **state)
{
	(void)state;
	rig_stop();
	struct tcps_config cfg;
	rig_config(&cfg);
	cfg.recv_window_bytes = 1 << 20;
	rig_start(&cfg);
	static const uint8_t opts[] = {1, 3, 3, 7};
	syn(opts, sizeof(opts));
	struct seen s = rig_expect();
	assert_int_equal(s.wnd, 65535);
	assert_int_equal(s.wscale, 5);
	rig.own_iss = s.seq;
	rig.peer_seq = PEER_ISS + 1;
	rig_send(ACK, rig_own(0), NULL, 0);
	rig_send(ACK | PSH, rig_own(0), "a", 1);
	rig_send(ACK | PSH, rig_own(0), "b", 1);
	rig_flush();
	assert_int_equal(rig_expect().wnd, (1 << 20) >> 5);
}

/* RFC 9293 3.2, MUST-7: an illegal option length must not crash; such a segment is dropped. */
static void options_with_impossible_lengths_are_dropped_and_counted(void **state)
{
	(void)state;
	static const uint8_t bad[][4] = {{2, 0, 5, 0xb4}, {2, 1, 5, 0xb4}, {1, 1, 1, 2}, {3, 200, 0, 0}, {1, 1, 8, 10}};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		syn(bad[i], 4);
	assert_int_equal(rig_count(TCPS_CNT_drop_bad_tcp_options), sizeof(bad) / sizeof(bad[0]));
	rig_expect_none();
}

static void options_of_a_wrong_length_or_an_unknown_kind_are_stepped_over(void **state)
{
	(void)state;
	static const uint8_t opts[] = {2, 3, 9, 254, 6, 1, 2, 3, 4, 2, 4, 2, 0, 3, 4, 7, 0, 1, 1, 0};
	syn(opts, sizeof(opts));
	struct seen s = rig_expect();
	assert_int_equal(s.wscale, -1);
	rig_segment(ACK, PEER_ISS + 1, s.seq + 1, NULL, 0, NULL, 0);
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, 512);
}

static void a_second_option_of_a_kind_counts(void **state)
{
	(void)state;
	assert_int_equal(first_segment_len((const uint8_t[]){2, 4, 1, 0, 2, 4, 2, 0}, 8), 512);
}

static void a_syn_for_a_port_where_nothing_listens_is_reset(void **state)
{
	(void)state;
	assert_true(tcps_unlisten(rig.t, OWN_PORT));
	syn(NULL, 0);
	struct seen s = rig_expect();
	/* RFC 9293 3.10.7.1: no ACK in it: seq 0, ack beyond what it took. */
	assert_int_equal(s.flags, RST | ACK);
	assert_int_equal(s.seq, 0);
	assert_int_equal(s.ack, PEER_ISS + 1);
	assert_int_equal(rig_count(TCPS_CNT_no_listener), 1);
}

static void a_stray_ack_is_reset_with_its_own_number_and_a_stray_reset_is_not_answered(void **state)
{
	(void)state;
	rig_segment(ACK | PSH, 5000, 777, "abc", 3, NULL, 0);
	struct seen s = rig_expect();
	assert_int_equal(s.flags, RST);
	assert_int_equal(s.seq, 777);
	rig_segment(RST, 5000, 0, NULL, 0, NULL, 0);
	rig_segment(RST | ACK, 5000, 777, NULL, 0, NULL, 0);
	rig_expect_none();
}

static void resets_are_rate_limited(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 1500; i++) {
		rig_segment(ACK, 5000, i, NULL, 0, NULL, 0);
		if (rig.out_count > OUT_MAX - 4)
			rig_clear();
	}
	assert_int_equal(rig_count(TCPS_CNT_resets_out), 1000);
	assert_int_equal(rig_count(TCPS_CNT_resets_limited), 500);
	rig.now_ns += SECOND;
	rig_segment(ACK, 5000, 1, NULL, 0, NULL, 0);
	assert_int_equal(rig_count(TCPS_CNT_resets_out), 1001);
}

static void a_listener_can_be_opened_once_and_the_table_is_bounded(void **state)
{
	(void)state;
	assert_false(tcps_listen(rig.t, OWN_PORT));
	assert_false(tcps_listen(rig.t, 0));
	assert_true(tcps_listen(rig.t, 1));
	assert_false(tcps_listen(rig.t, 2));
	assert_true(tcps_unlisten(rig.t, 1));
	assert_false(tcps_unlisten(rig.t, 1));
}

static void a_lost_syn_ack_is_sent_again_and_then_forgotten(void **state)
{
	(void)state;
	rig_arp_from_peer(1);
	syn(NULL, 0);
	uint32_t iss = rig_expect().seq;
	rig_pass(1010 * MS);
	assert_int_equal(rig_expect().seq, iss);
	rig_pass(200 * SECOND);
	assert_int_equal(rig_count(TCPS_CNT_syn_cache_expired), 1);
	rig_expect_baseline();
	assert_int_equal(rig_count(TCPS_CNT_syn_acks_out), 6);
}

static void a_repeated_syn_gets_the_same_answer(void **state)
{
	(void)state;
	syn(NULL, 0);
	uint32_t iss = rig_expect().seq;
	rig.now_ns += 300 * MS;
	syn(NULL, 0);
	assert_int_equal(rig_expect().seq, iss);
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.half_open, 1);
}

/* The final ACK was lost: the first data completes the handshake and is delivered. */
static void data_completes_the_handshake_when_the_final_ack_was_lost(void **state)
{
	(void)state;
	syn(NULL, 0);
	struct seen s = rig_expect();
	rig_segment(ACK | PSH, PEER_ISS + 1, s.seq + 1, "hello", 5, NULL, 0);
	assert_int_equal(rig.accepted, 1);
	assert_int_equal(rig.got_len, 5);
	assert_memory_equal(rig.got, "hello", 5);
}

/* RFC 9293 3.10.7.4: the final ACK and a whole window of data were lost; what the peer says next stands at the right edge. */
static void an_ack_at_the_right_edge_of_the_window_completes_the_handshake(void **state)
{
	(void)state;
	syn(NULL, 0);
	struct seen s = rig_expect();
	rig_segment(ACK, PEER_ISS + 1 + 65535, s.seq + 1, NULL, 0, NULL, 0);
	assert_int_equal(rig.accepted, 1);
	assert_int_equal(rig_count(TCPS_CNT_challenge_acks), 0);
	rig_flush();
	rig_clear();
}

static void a_fin_may_come_with_the_final_ack(void **state)
{
	(void)state;
	syn(NULL, 0);
	struct seen s = rig_expect();
	rig_segment(ACK | FIN, PEER_ISS + 1, s.seq + 1, "bye", 3, NULL, 0);
	assert_int_equal(rig.got_len, 3);
	assert_int_equal(rig.eof, 1);
	rig_flush();
	assert_int_equal(rig_expect().ack, PEER_ISS + 5);
}

/* RFC 9293 3.10.7.4, fifth step, SYN-RECEIVED. */
static void a_handshake_ack_of_something_else_is_reset(void **state)
{
	(void)state;
	syn(NULL, 0);
	struct seen s = rig_expect();
	rig_segment(ACK, PEER_ISS + 1, s.seq + 2, NULL, 0, NULL, 0);
	struct seen r = rig_expect();
	assert_int_equal(r.flags, RST);
	assert_int_equal(r.seq, s.seq + 2);
	assert_int_equal(rig.accepted, 0);
	/* The right one still completes it. */
	rig_segment(ACK, PEER_ISS + 1, s.seq + 1, NULL, 0, NULL, 0);
	assert_int_equal(rig.accepted, 1);
}

/* RFC 5961 3.2 for a half-open connection. */
static void only_an_exact_reset_ends_a_half_open_connection(void **state)
{
	(void)state;
	syn(NULL, 0);
	rig_expect();
	rig_segment(RST, PEER_ISS + 100, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_expect().flags, SYN | ACK);
	rig_segment(RST, PEER_ISS - 100000, 0, NULL, 0, NULL, 0);
	rig_expect_none();
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.half_open, 1);
	rig_segment(RST, PEER_ISS + 1, 0, NULL, 0, NULL, 0);
	tcps_usage(rig.t, &u);
	assert_int_equal(u.half_open, 0);
	rig_expect_none();
}

static void a_full_syn_cache_forgets_the_oldest(void **state)
{
	(void)state;
	uint32_t iss[6];
	for (uint16_t i = 0; i < 5; i++) {
		rig.peer_port = (uint16_t)(PEER_PORT + i);
		syn(NULL, 0);
		iss[i] = rig_expect().seq;
	}
	assert_int_equal(rig_count(TCPS_CNT_syn_cache_full), 1);
	rig.peer_port = PEER_PORT + 4;
	rig_segment(ACK, PEER_ISS + 1, iss[4] + 1, NULL, 0, NULL, 0);
	assert_int_equal(rig.accepted, 1);
	rig.peer_port = PEER_PORT;
	rig_segment(ACK, PEER_ISS + 1, iss[0] + 1, NULL, 0, NULL, 0);
	assert_int_equal(rig.accepted, 1);
}

/* Never RST after SYN-ACK: silence, until a connection is free. */
static void when_no_connection_is_free_the_peer_is_kept_waiting_not_reset(void **state)
{
	(void)state;
	for (uint16_t i = 0; i < 4; i++) {
		rig.peer_port = (uint16_t)(PEER_PORT + i);
		syn(NULL, 0);
	}
	uint32_t iss[5];
	for (uint16_t i = 0; i < 4; i++)
		iss[i] = rig_expect().seq;
	for (uint16_t i = 0; i < 3; i++) {
		rig.peer_port = (uint16_t)(PEER_PORT + i);
		rig_segment(ACK, PEER_ISS + 1, iss[i] + 1, NULL, 0, NULL, 0);
	}
	rig.peer_port = PEER_PORT + 9;
	syn(NULL, 0);
	iss[4] = rig_expect().seq;
	rig_segment(ACK, PEER_ISS + 1, iss[4] + 1, NULL, 0, NULL, 0);
	assert_int_equal(rig.accepted, 4);
	rig.peer_port = PEER_PORT + 3;
	rig_segment(ACK | PSH, PEER_ISS + 1, iss[3] + 1, "x", 1, NULL, 0);
	rig.peer_port = PEER_PORT + 10;
	syn(NULL, 0);
	rig_expect_none();
	assert_int_equal(rig_count(TCPS_CNT_drop_no_conn), 2);
	tcps_abort(rig.conn);
	rig.closed = 0; /* that was another one */
	rig_clear();
	rig.peer_port = PEER_PORT + 3;
	rig_segment(ACK | PSH, PEER_ISS + 1, iss[3] + 1, "x", 1, NULL, 0);
	assert_int_equal(rig.accepted, 5);
	assert_int_equal(rig.got_len, 1);
}

static void an_owner_that_refuses_has_the_peer_reset(void **state)
{
	(void)state;
	rig.refuse = true;
	syn(NULL, 0);
	struct seen s = rig_expect();
	rig_segment(ACK, PEER_ISS + 1, s.seq + 1, NULL, 0, NULL, 0);
	assert_true(rig_expect().flags & RST);
	assert_int_equal(rig.closed, 0);
	assert_int_equal(rig_count(TCPS_CNT_accept_refused), 1);
	rig_expect_baseline();
}

/* Active open, as a client of the scripted peer. Returns our SYN. */
static struct seen connect_to_peer(void)
{
	const struct tcps_endpoint peer = {.addr = {.family = 4, .bytes = {198, 18, 0, 1}}, .port = PEER_PORT};
	rig_arp_from_peer(1);
	rig.conn = tcps_connect(rig.t, &peer, OWN_PORT + 1, &rig, rig.now_ns);
	assert_non_null(rig.conn);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.flags, SYN);
	assert_int_equal(s.dst_port, PEER_PORT);
	assert_int_equal(s.src_port, OWN_PORT + 1);
	rig.own_iss = s.seq;
	rig.peer_seq = PEER_ISS;
	return s;
}

/* A segment to the port of the active open. */
static void reply(uint8_t flags, uint32_t seq, uint32_t ack, const void *data, size_t len)
{
	uint8_t frame[256];
	size_t n = rig_build(frame, flags, seq, ack, data, len, NULL, 0);
	frame[36] = (uint8_t)((OWN_PORT + 1) >> 8);
	frame[37] = (uint8_t)(OWN_PORT + 1);
	rig_fix_tcp_cksum(frame);
	rig_frame(frame, n);
}

static void an_active_open_offers_everything_and_reports_success(void **state)
{
	(void)state;
	struct seen s = connect_to_peer();
	assert_int_equal(s.mss, 1460);
	assert_true(s.has_ts && s.wscale >= 0);
	assert_int_equal(s.ts_ecr, 0);
	reply(SYN | ACK, PEER_ISS, rig_own(0), NULL, 0);
	assert_int_equal(rig.connected, 1);
	rig_flush();
	s = rig_expect();
	assert_int_equal(s.flags, ACK);
	assert_int_equal(s.seq, rig_own(0));
	assert_int_equal(s.ack, PEER_ISS + 1);
	assert_false(s.has_ts);
}

static void what_was_queued_before_the_handshake_goes_out_after_it(void **state)
{
	(void)state;
	connect_to_peer();
	assert_true(tcps_send(rig.conn, "early", 5));
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_expect_none();
	reply(SYN | ACK, PEER_ISS, rig_own(0), NULL, 0);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.len, 5);
	assert_true(s.flags & FIN);
}

static void a_refused_open_is_told(void **state)
{
	(void)state;
	connect_to_peer();
	reply(RST | ACK, 0, rig_own(0), NULL, 0);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_REFUSED);
	rig_expect_baseline();
}

/* RFC 9293 3.10.7.3, first and second step: neither a wrong ACK nor a blind reset ends it. */
static void an_active_open_ignores_resets_without_its_number(void **state)
{
	(void)state;
	connect_to_peer();
	reply(RST, 0, 0, NULL, 0);
	reply(RST | ACK, 0, rig_own(5), NULL, 0);
	assert_int_equal(rig.closed, 0);
	rig_expect_none();
	reply(SYN | ACK, PEER_ISS, rig_own(7), NULL, 0);
	struct seen s = rig_expect();
	assert_int_equal(s.flags, RST);
	assert_int_equal(s.seq, rig_own(7));
	assert_int_equal(rig.closed, 0);
}

static void an_open_without_an_answer_backs_off_and_gives_up(void **state)
{
	(void)state;
	connect_to_peer();
	rig_pass(900 * MS);
	rig_expect_none();
	rig_pass(200 * MS);
	assert_int_equal(rig_expect().flags, SYN);
	rig_pass(1800 * MS);
	rig_expect_none();
	rig_pass(200 * MS);
	assert_int_equal(rig_expect().flags, SYN);
	rig_pass(100 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
	rig_expect_baseline();
}

/* RFC 9293 3.5, figure 7. */
static void a_simultaneous_open_succeeds(void **state)
{
	(void)state;
	connect_to_peer();
	reply(SYN, PEER_ISS, 0, NULL, 0);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.flags, SYN | ACK);
	assert_int_equal(s.seq, rig.own_iss);
	assert_int_equal(s.ack, PEER_ISS + 1);
	assert_int_equal(rig.connected, 0);
	reply(SYN | ACK, PEER_ISS, rig_own(0), NULL, 0);
	assert_int_equal(rig.connected, 1);
	assert_int_equal(rig_count(TCPS_CNT_simultaneous_opens), 1);
	reply(ACK | PSH, PEER_ISS + 1, rig_own(0), "hi", 2);
	assert_int_equal(rig.got_len, 2);
}

static void a_simultaneous_open_can_be_completed_by_a_plain_ack_and_ended_by_a_reset(void **state)
{
	(void)state;
	connect_to_peer();
	reply(SYN, PEER_ISS, 0, NULL, 0);
	reply(ACK, PEER_ISS + 1, rig_own(9), NULL, 0);
	assert_int_equal(rig_expect().flags, RST);
	reply(RST, PEER_ISS + 1, 0, NULL, 0);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_REFUSED);
}

static void ports_for_active_opens_differ_and_a_taken_tuple_is_refused(void **state)
{
	(void)state;
	const struct tcps_endpoint peer = {.addr = {.family = 4, .bytes = {198, 18, 0, 1}}, .port = PEER_PORT};
	struct tcps_endpoint a, b, p;
	tcps_endpoints(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns), &a, &p);
	tcps_endpoints(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns), &b, &p);
	assert_true(a.port >= 49152 && b.port >= 49152 && a.port != b.port);
	assert_null(tcps_connect(rig.t, &peer, a.port, &rig, rig.now_ns));
	assert_non_null(tcps_connect(rig.t, &peer, 7, &rig, rig.now_ns));
	assert_non_null(tcps_connect(rig.t, &peer, 8, &rig, rig.now_ns));
	assert_null(tcps_connect(rig.t, &peer, 9, &rig, rig.now_ns)); /* conns_max */
}

/* RFC 6528: the clock and a secret of the tuple. */
static void initial_sequence_numbers_differ_by_tuple_and_grow_with_time(void **state)
{
	(void)state;
	syn(NULL, 0);
	uint32_t first = rig_expect().seq;
	rig.peer_port++;
	syn(NULL, 0);
	uint32_t other = rig_expect().seq;
	assert_true(other - first > 1000 && first - other > 1000);
	rig.peer_port--;
	rig_segment(RST, PEER_ISS + 1, 0, NULL, 0, NULL, 0);
	rig.now_ns += 4 * MS;
	syn(NULL, 0);
	assert_int_equal(rig_expect().seq - first, 1000);
}

#define test(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

/* However many timers are due together, one tick runs some of them, and says that it is not through. */
static void very_many_timers_that_are_due_together_run_some_a_tick(void **state)
{
	(void)state;
	const unsigned half_open = 60;
	unsigned answered = 0, ticks = 0;
	struct tcps_config cfg;
	rig_stop();
	rig_config(&cfg);
	cfg.half_open_max = half_open;
	rig_start(&cfg);
	for (unsigned i = 0; i < half_open; i++) {
		rig.peer_port = (uint16_t)(PEER_PORT + i);
		rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	}
	rig_flush();
	struct tcps_usage usage;
	tcps_usage(rig.t, &usage);
	assert_int_equal(usage.half_open, half_open);
	rig_clear();
	rig.now_ns += 1500 * MS; /* beyond the first repetition of all of them */
	for (; answered < half_open; ticks++) {
		assert_true(tcps_next_deadline(rig.t) <= rig.now_ns);
		assert_true(tcps_tick(rig.t, rig.now_ns));
		rig_flush();
		assert_in_range(rig_count(TCPS_CNT_retransmits_syn) - answered, 0, 16);
		answered = (unsigned)rig_count(TCPS_CNT_retransmits_syn);
		assert_true(ticks < 100);
	}
	assert_int_equal(answered, half_open);
	assert_in_range(ticks, half_open / 16, 30);
	assert_true(tcps_next_deadline(rig.t) > rig.now_ns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_syn_is_answered_and_the_ack_completes_the_passive_open),
		test(only_options_that_were_offered_come_back),
		test(a_missing_mss_means_536),
		test(a_larger_mss_than_ours_is_cut_to_our_mtu),
		test(an_absurdly_small_mss_is_raised_to_a_floor),
		test(a_window_scale_above_14_is_clamped),
		test(the_window_of_a_syn_is_not_scaled),
		test(options_with_impossible_lengths_are_dropped_and_counted),
		test(options_of_a_wrong_length_or_an_unknown_kind_are_stepped_over),
		test(a_second_option_of_a_kind_counts),
		test(a_syn_for_a_port_where_nothing_listens_is_reset),
		test(a_stray_ack_is_reset_with_its_own_number_and_a_stray_reset_is_not_answered),
		test(resets_are_rate_limited),
		test(a_listener_can_be_opened_once_and_the_table_is_bounded),
		test(a_lost_syn_ack_is_sent_again_and_then_forgotten),
		test(a_repeated_syn_gets_the_same_answer),
		test(data_completes_the_handshake_when_the_final_ack_was_lost),
		test(an_ack_at_the_right_edge_of_the_window_completes_the_handshake),
		test(a_fin_may_come_with_the_final_ack),
		test(a_handshake_ack_of_something_else_is_reset),
		test(only_an_exact_reset_ends_a_half_open_connection),
		test(a_full_syn_cache_forgets_the_oldest),
		test(when_no_connection_is_free_the_peer_is_kept_waiting_not_reset),
		test(an_owner_that_refuses_has_the_peer_reset),
		test(an_active_open_offers_everything_and_reports_success),
		test(what_was_queued_before_the_handshake_goes_out_after_it),
		test(a_refused_open_is_told),
		test(an_active_open_ignores_resets_without_its_number),
		test(an_open_without_an_answer_backs_off_and_gives_up),
		test(a_simultaneous_open_succeeds),
		test(a_simultaneous_open_can_be_completed_by_a_plain_ack_and_ended_by_a_reset),
		test(ports_for_active_opens_differ_and_a_taken_tuple_is_refused),
		test(initial_sequence_numbers_differ_by_tuple_and_grow_with_time),
		test(very_many_timers_that_are_due_together_run_some_a_tick),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_open", tests, NULL, NULL);
}
