/*
 * test_tcps_icmp.c - ICMP errors of both families: what is believed, what it changes, and what a forger gets.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 5927, 5461, 1122 4.2.3.9, 1191, 8201.
 */
#include "tests/unit/test_tcps_rig.h"

#include <string.h>

static bool family6;

static void start(uint16_t pmtu_min, uint16_t mss_max)
{
	struct tcps_config cfg;
	rig_config(&cfg);
	memcpy(cfg.ipv6, rig_own6, 16);
	cfg.ipv6_prefix_len = 64;
	cfg.pmtu_min = pmtu_min;
	cfg.mss_max = mss_max;
	rig_start(&cfg);
	rig.v6 = family6;
}

static int setup4(void **state)
{
	(void)state;
	family6 = false;
	start(0, 0);
	return 0;
}

static int setup6(void **state)
{
	(void)state;
	family6 = true;
	start(0, 0);
	return 0;
}

/* An error about a packet of ours, which `out` shows; `seq_off` makes its sequence number another one. */
static void complain(const struct out_frame *out, uint8_t type, uint8_t code, uint32_t info, uint32_t seq_off)
{
	uint8_t body[8 + 576] = {type,         code, 0, 0, (uint8_t)(info >> 24), (uint8_t)(info >> 16), (uint8_t)(info >> 8),
				 (uint8_t)info};
	uint8_t frame[1400];
	size_t quoted = out->len - 14 < 200 ? out->len - 14 : 200, len = 8 + quoted, ip_len = family6 ? 40 : 20;
	memcpy(body + 8, out->bytes + 14, quoted);
	uint8_t *seq = body + 8 + ip_len + 4;
	uint32_t n = ((uint32_t)seq[0] << 24 | (uint32_t)seq[1] << 16 | (uint32_t)seq[2] << 8 | seq[3]) + seq_off;
	seq[0] = (uint8_t)(n >> 24);
	seq[1] = (uint8_t)(n >> 16);
	seq[2] = (uint8_t)(n >> 8);
	seq[3] = (uint8_t)n;
	/* From a router on the way, not from the peer. */
	uint8_t router[16];
	memcpy(router, rig_peer6, 16);
	router[15] = 77;
	if (family6) {
		size_t frame_len = rig_build6(frame, NULL, router, rig_own6, 58, 64, body, len);
		rig_fix_icmp6_cksum(frame + 14, frame + 54, len);
		rig_frame(frame, frame_len);
		return;
	}
	rig_build(frame, ACK, 0, 0, NULL, 0, NULL, 0);
	frame[16] = (uint8_t)((20 + len) >> 8);
	frame[17] = (uint8_t)(20 + len);
	frame[23] = 1;
	frame[29] = 77;
	rig_fix_ip_cksum(frame);
	uint16_t cksum = tcps_cksum_fold(tcps_cksum_add(0, body, len, false));
	memcpy(body + 2, &cksum, 2);
	memcpy(frame + 34, body, len);
	rig_frame(frame, 34 + len);
}

static void too_big(const struct out_frame *out, uint32_t mtu, uint32_t seq_off)
{
	if (family6)
		complain(out, 2, 0, mtu, seq_off);
	else
		complain(out, 3, 4, mtu, seq_off);
}

static void port_unreachable(const struct out_frame *out, uint32_t seq_off)
{
	complain(out, family6 ? 1 : 3, family6 ? 4 : 3, 0, seq_off);
}

static void host_unreachable(const struct out_frame *out)
{
	complain(out, family6 ? 1 : 3, family6 ? 3 : 1, 0, 0);
}

/* The frame of the segment that rig_expect() gave last. */
static const struct out_frame *last(void)
{
	return &rig.out[rig.out_next - 1];
}

static void open_actively(void)
{
	struct tcps_endpoint peer = {.addr = {.family = 6}, .port = PEER_PORT};
	memcpy(peer.addr.bytes, rig_peer6, 16);
	if (!family6) {
		peer.addr = (struct tcps_addr){.family = 4, .bytes = {198, 18, 0, 1}};
	}
	/* The neighbour is known by a handshake the other way. */
	rig_establish(false, -1);
	tcps_abort(rig.conn);
	rig_clear();
	rig.closed = 0;
	rig.conn = tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns);
	assert_non_null(rig.conn);
	rig_flush();
	assert_int_equal(rig_expect().flags, SYN);
}

/* RFC 5461 3.1 and RFC 1122 4.2.3.9: the port is shut. */
static void a_hard_error_about_our_syn_ends_the_attempt(void **state)
{
	(void)state;
	open_actively();
	port_unreachable(last(), 0);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_REFUSED);
	assert_int_equal(rig_count(TCPS_CNT_icmp_hard), 1);
	rig_expect_baseline();
}

static void a_prohibition_ends_the_attempt_as_unreachable(void **state)
{
	(void)state;
	open_actively();
	complain(last(), family6 ? 1 : 3, family6 ? 1 : 13, 0, 0);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_UNREACHABLE);
}

/* RFC 5927 4.1: the number is not that of our SYN. */
static void a_forged_hard_error_does_nothing(void **state)
{
	(void)state;
	open_actively();
	port_unreachable(last(), 1);
	port_unreachable(last(), 0x80000000u);
	assert_int_equal(rig.closed, 0);
	assert_int_equal(rig_count(TCPS_CNT_icmp_ignored), 2);
}

/* RFC 1122 4.2.3.9: a soft error is noted, and told where the attempt fails in the end. */
static void a_soft_error_is_what_an_attempt_that_failed_is_told(void **state)
{
	(void)state;
	open_actively();
	host_unreachable(last());
	assert_int_equal(rig.closed, 0);
	assert_int_equal(rig_count(TCPS_CNT_icmp_soft), 1);
	rig_pass(300 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_UNREACHABLE);
}

/* RFC 5927 5.2: in a synchronized state every error is soft. */
static void an_established_connection_survives_every_error(void **state)
{
	(void)state;
	rig_establish(false, -1);
	tcps_send(rig.conn, "data", 4);
	rig_flush();
	rig_expect();
	port_unreachable(last(), 0);
	host_unreachable(last());
	complain(last(), family6 ? 4 : 3, family6 ? 1 : 2, 0, 0);
	assert_int_equal(rig.closed, 0);
	assert_int_equal(rig_count(TCPS_CNT_icmp_soft), 3);
	rig_send(ACK, rig_own(4), "on", 2);
	assert_int_equal(rig.got_len, 2);
}

/* RFC 5927 4.1: nothing with that number is in flight. */
static void an_error_about_what_was_acknowledged_or_never_sent_is_ignored(void **state)
{
	(void)state;
	rig_establish(false, -1);
	tcps_send(rig.conn, "data", 4);
	rig_flush();
	rig_expect();
	too_big(last(), 1300, 4);
	too_big(last(), 1300, (uint32_t)-1);
	rig_send(ACK, rig_own(4), NULL, 0);
	too_big(last(), 1300, 0);
	assert_int_equal(rig_count(TCPS_CNT_icmp_ignored), 3);
	assert_int_equal(rig_count(TCPS_CNT_pmtu_lowered), 0);
}

static uint8_t bytes[6000];

/* RFC 1191 6.5, RFC 8201 5.4: at once, from the first byte that was not acknowledged, and what follows in the smaller size. */
static void a_path_that_is_narrower_is_followed_and_what_was_lost_goes_out_again_at_once(void **state)
{
	(void)state;
	uint32_t header = family6 ? 60 : 40;
	rig_establish(false, -1);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7);
	tcps_send(rig.conn, bytes, sizeof(bytes));
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.len, 1500 - header);
	const struct out_frame *first = last();
	while (rig_pending() > 0)
		rig_expect();
	too_big(first, 1400, 0);
	assert_int_equal(rig_count(TCPS_CNT_pmtu_lowered), 1);
	rig_flush();
	uint32_t at = 0;
	while (rig_pending() > 0) {
		s = rig_expect();
		assert_true(s.len <= 1400 - header);
		assert_int_equal(s.seq, rig_own(at));
		assert_memory_equal(s.payload, bytes + at, s.len);
		at += s.len;
	}
	assert_true(at > 3 * (1400 - header));
	rig_send(ACK, rig_own(at), NULL, 0);
	assert_int_equal(rig.closed, 0);
	/* The same error again says nothing new, and one for a wider path nothing at all. */
	rig_clear();
}

/* RFC 5927 7.2. */
static void packet_too_big_errors_that_cannot_be_true_are_ignored(void **state)
{
	(void)state;
	rig_establish(false, -1);
	tcps_send(rig.conn, bytes, 3000);
	rig_flush();
	rig_expect();
	const struct out_frame *first = last();
	too_big(first, 1500, 0); /* it fitted */
	too_big(first, 9000, 0);
	assert_int_equal(rig_count(TCPS_CNT_pmtu_ignored), 2);
	if (family6)
		too_big(first, 1279, 0); /* RFC 8201 4: no IPv6 link takes so little */
	else
		too_big(first, 1400, 0x40000000u);
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, family6 ? 1440 : 1460);
	assert_int_equal(rig_count(TCPS_CNT_pmtu_lowered), 0);
}

/* RFC 5927 7.1: an attacker who is on the path cannot make every segment tiny. */
static void an_ipv4_path_is_never_taken_for_narrower_than_the_floor(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	rig_establish(false, -1);
	tcps_send(rig.conn, bytes, 1400);
	rig_flush();
	rig_expect();
	too_big(last(), 68, 0);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, 552 - 40);
	rig_stop();
	start(1000, 0);
	rig_establish(false, -1);
	tcps_send(rig.conn, bytes, 1400);
	rig_flush();
	rig_expect();
	too_big(last(), 68, 0);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, 1000 - 40);
}

/* RFC 1191 7.1: an old router says 0. */
static void a_router_that_does_not_say_how_much_fits_is_tried_plateau_by_plateau(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	rig_establish(false, -1);
	tcps_send(rig.conn, bytes, 1460);
	rig_flush();
	rig_expect();
	too_big(last(), 0, 0);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, 1492 - 40);
	rig_flush();
	rig_expect();
	too_big(last(), 0, 0);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, 1006 - 40);
}

/* RFC 1191 6.3, RFC 8201 5.3: the next connection knows, and after ten minutes all try again. */
static void a_narrow_path_is_remembered_for_ten_minutes(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	uint32_t header = family6 ? 60 : 40, peer_mss = 1460;
	uint32_t full = 1500 - header < peer_mss ? 1500 - header : peer_mss;
	rig_establish(false, -1);
	tcps_send(rig.conn, bytes, 1500 - header);
	rig_flush();
	rig_expect();
	too_big(last(), 1350, 0);
	rig_flush();
	struct tcps_conn *first = rig.conn;
	rig_send(ACK, rig_own(1500 - header), NULL, 0);
	rig_flush();
	rig_clear();
	rig.peer_port++;
	rig_establish(false, -1);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, 1350 - header);
	rig_pass(601 * SECOND);
	assert_int_equal(rig_count(TCPS_CNT_pmtu_aged), 1);
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, full);
	tcps_info(first, &info);
	assert_int_equal(info.mss, full);
}

static void the_configured_clamp_limits_what_is_announced_and_what_is_sent(void **state)
{
	(void)state;
	rig_stop();
	start(0, 1200);
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, (uint8_t[]){2, 4, 5, 0xb4}, 4);
	struct seen s = rig_expect();
	assert_int_equal(s.mss, 1200);
	rig.own_iss = s.seq;
	rig.peer_seq = PEER_ISS + 1;
	rig_send(ACK, rig_own(0), NULL, 0);
	tcps_send(rig.conn, bytes, 3000);
	rig_flush();
	rig_clear();
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, 1200);
}

/* Quotes that are cut short, are not ours, or are not TCP. */
static void an_error_with_a_quote_that_is_not_ours_is_ignored(void **state)
{
	(void)state;
	rig_establish(false, -1);
	tcps_send(rig.conn, "data", 4);
	rig_flush();
	rig_expect();
	struct out_frame f = *last();
	f.len = 14 + (family6 ? 40 : 20) + 7;
	port_unreachable(&f, 0);
	f = *last();
	f.bytes[14 + (family6 ? 6 : 9)] = 17;
	port_unreachable(&f, 0);
	f = *last();
	f.bytes[14 + (family6 ? 23 : 15)] ^= 1;
	port_unreachable(&f, 0);
	f = *last();
	f.bytes[14] = 0x12;
	port_unreachable(&f, 0);
	assert_int_equal(rig_count(TCPS_CNT_icmp_ignored), 4);
	assert_int_equal(rig_count(TCPS_CNT_icmp_soft), 0);
}

#define four(name) cmocka_unit_test_setup_teardown(name, setup4, rig_teardown)
#define six(name)                                                                                                                  \
	{                                                                                                                          \
#name "_over_ipv6", name, setup6, rig_teardown, NULL                                                               \
	}
#define both(name) four(name), six(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		both(a_hard_error_about_our_syn_ends_the_attempt),
		both(a_prohibition_ends_the_attempt_as_unreachable),
		both(a_forged_hard_error_does_nothing),
		both(a_soft_error_is_what_an_attempt_that_failed_is_told),
		both(an_established_connection_survives_every_error),
		both(an_error_about_what_was_acknowledged_or_never_sent_is_ignored),
		both(a_path_that_is_narrower_is_followed_and_what_was_lost_goes_out_again_at_once),
		both(packet_too_big_errors_that_cannot_be_true_are_ignored),
		four(an_ipv4_path_is_never_taken_for_narrower_than_the_floor),
		four(a_router_that_does_not_say_how_much_fits_is_tried_plateau_by_plateau),
		both(a_narrow_path_is_remembered_for_ten_minutes),
		both(the_configured_clamp_limits_what_is_announced_and_what_is_sent),
		both(an_error_with_a_quote_that_is_not_ours_is_ignored),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_icmp", tests, NULL, NULL);
}
