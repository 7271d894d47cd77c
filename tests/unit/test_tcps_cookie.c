/*
 * test_tcps_cookie.c - a full SYN cache: cookies that bring back what was offered, and what is no answer to one.
 *
 * Owns: nothing; the peer is played by hand.
 * Core: a unit test.
 * Spec: RFC 4987.
 */
#include "tests/unit/test_tcps_rig.h"

#include <string.h>

#define FLOOD_PORT 20000u

static void with_cookies(struct tcps_config *cfg)
{
	rig_config(cfg);
	cfg->syn_cookies = true;
}

/* The SYNs of peers that never answer fill the cache. */
static void fill_the_cache(void)
{
	uint16_t port = rig.peer_port;
	for (uint16_t i = 0; i < 4; i++) {
		rig.peer_port = (uint16_t)(FLOOD_PORT + i);
		rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	}
	rig.peer_port = port;
	rig_clear();
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.half_open, 4);
}

static int setup(void **state)
{
	struct tcps_config cfg;
	(void)state;
	with_cookies(&cfg);
	rig_start(&cfg);
	rig_arp_from_peer(1);
	fill_the_cache();
	return 0;
}

static const uint8_t full_offer[] = {2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0x27, 0x10, 0, 0, 0, 0, 1, 3, 3, 7};

static void answer(struct seen s, const void *data, size_t len)
{
	uint8_t opts[12] = {1, 1, 8, 10, 0, 0, 0x27, 0x11};
	for (unsigned i = 0; i < 4; i++)
		opts[8 + i] = (uint8_t)(s.ts_val >> (24 - 8 * i));
	rig_segment(ACK, PEER_ISS + 1, s.seq + 1, data, len, opts, s.has_ts ? 12 : 0);
}

/* RFC 4987 3.6: no record is made, and the ACK brings everything back. */
static void a_cookie_completes_a_handshake_with_all_options_and_its_first_data(void **state)
{
	(void)state;
	struct tcps_usage u;
	struct tcps_conn_info info;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, full_offer, sizeof(full_offer));
	struct seen s = rig_expect();
	assert_int_equal(s.flags, SYN | ACK);
	assert_true(s.sack_ok && s.has_ts);
	assert_int_equal(s.ack, PEER_ISS + 1);
	tcps_usage(rig.t, &u);
	assert_int_equal(u.half_open, 4);
	assert_int_equal(rig_count(TCPS_CNT_cookies_out), 1);
	assert_int_equal(rig_count(TCPS_CNT_syn_cache_full), 0);
	rig.peer_wnd = 100;
	answer(s, "first", 5);
	assert_int_equal(rig.accepted, 1);
	assert_int_equal(rig_count(TCPS_CNT_cookies_good), 1);
	assert_int_equal(rig.got_len, 5);
	tcps_info(rig.conn, &info);
	assert_true(info.sack && info.timestamps);
	assert_int_equal(info.mss, 1460 - 12);
	assert_int_equal(info.snd_wnd_bytes, 100u << 7);
	/* What it sends later is not older than the cookie's timestamp. */
	assert_true(tcps_send(rig.conn, "x", 1));
	rig_flush();
	struct seen later = rig_expect();
	assert_true((int32_t)(later.ts_val - s.ts_val) >= 0);
	assert_int_equal(later.seq, s.seq + 1);
	rig_check();
}

/* Where there is no timestamp, window scale and SACK have nowhere to be, and are not promised. */
static void without_timestamps_a_cookie_promises_the_mss_alone(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	const uint8_t offer[] = {2, 4, 0x05, 0x00, 1, 1, 4, 2, 1, 3, 3, 7};
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, offer, sizeof(offer));
	struct seen s = rig_expect();
	assert_false(s.sack_ok || s.has_ts);
	assert_int_equal(s.wscale, -1);
	rig.peer_wnd = 1000;
	answer(s, NULL, 0);
	assert_int_equal(rig.accepted, 1);
	tcps_info(rig.conn, &info);
	assert_false(info.sack);
	assert_int_equal(info.snd_wnd_bytes, 1000);
	assert_int_equal(info.mss, 1220); /* the next lower of what a cookie can say of 1280 */
}

static void what_no_cookie_explains_opens_nothing_and_is_not_reset_while_cookies_are_out(void **state)
{
	(void)state;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, full_offer, sizeof(full_offer));
	struct seen s = rig_expect();
	for (unsigned bit = 0; bit < 32; bit++) {
		struct seen wrong = s;
		wrong.seq ^= 1u << bit;
		answer(wrong, NULL, 0);
	}
	/* Later data of the same handshake, come first. */
	rig_segment(ACK, PEER_ISS + 1 + 1000, s.seq + 1, "late", 4, NULL, 0);
	assert_int_equal(rig.accepted, 0);
	assert_int_equal(rig_count(TCPS_CNT_cookies_bad), 33);
	rig_expect_none();
	answer(s, NULL, 0);
	assert_int_equal(rig.accepted, 1);
}

static void a_cookie_is_good_once_and_not_for_ever(void **state)
{
	(void)state;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, full_offer, sizeof(full_offer));
	struct seen s = rig_expect();
	answer(s, NULL, 0);
	assert_int_equal(rig.accepted, 1);
	tcps_abort(rig.conn);
	rig_clear();
	answer(s, "copy", 4);
	assert_int_equal(rig.accepted, 1);
	assert_int_equal(rig_count(TCPS_CNT_cookies_again), 1);
	/* Another one, answered after three minutes: by then it is a stray ACK. */
	rig.peer_port++;
	fill_the_cache();
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, full_offer, sizeof(full_offer));
	s = rig_expect();
	rig_pass(180 * SECOND);
	rig_clear();
	answer(s, NULL, 0);
	assert_int_equal(rig.accepted, 1);
	assert_true(rig_expect().flags & RST);
}

/* The flood itself: a million attempts take the cache's places and no more; one who answers gets in all the same. */
static void a_million_half_open_attempts_cost_the_caches_fixed_size(void **state)
{
	(void)state;
	struct tcps_usage u;
	uint16_t port = rig.peer_port;
	for (uint32_t i = 0; i < 1000000; i++) {
		rig.peer_port = (uint16_t)(i % 40000 + 2000);
		rig_segment(SYN, PEER_ISS + i, 0, NULL, 0, NULL, 0);
		rig_clear();
	}
	tcps_usage(rig.t, &u);
	assert_int_equal(u.half_open, u.half_open_max);
	assert_int_equal(u.conns, 0);
	assert_int_equal(u.blocks_in_use, 0);
	rig_check();
	rig.peer_port = (uint16_t)(port + 40000);
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, full_offer, sizeof(full_offer));
	answer(rig_expect(), NULL, 0);
	assert_int_equal(rig.accepted, 1);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		test(a_cookie_completes_a_handshake_with_all_options_and_its_first_data),
		test(without_timestamps_a_cookie_promises_the_mss_alone),
		test(what_no_cookie_explains_opens_nothing_and_is_not_reset_while_cookies_are_out),
		test(a_cookie_is_good_once_and_not_for_ever),
		test(a_million_half_open_attempts_cost_the_caches_fixed_size),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_cookie", tests, NULL, NULL);
}
