/*
 * test_tcps_nd.c - neighbours and own addresses: discovery, unreachability detection, duplicate address detection, ARP probes.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 4861, 4862, 5227, 3810.
 */
#include "tests/unit/test_tcps_rig.h"

#include <string.h>

#define NS            135
#define NA            136
#define NA_SOLICITED  0x40
#define NA_OVERRIDE   0x20
#define OPTION_SOURCE 1
#define OPTION_TARGET 2

static const uint8_t nobody[16], own_mac[6] = {2, 0, 0, 0, 0, 2}, peer_mac[6] = {2, 0, 0, 0, 0, 1},
				 other_mac[6] = {2, 0, 0, 0, 0, 9};
static const uint8_t group_mac[6] = {0x33, 0x33, 0xff, 0, 0, 2}, all_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1};

static void start(unsigned dad, unsigned arp_probes)
{
	struct tcps_config cfg;
	rig_config(&cfg);
	memcpy(cfg.ipv6, rig_own6, 16);
	cfg.ipv6_prefix_len = 64;
	cfg.dad_transmits = (uint8_t)dad;
	cfg.arp_probes = (uint8_t)arp_probes;
	rig_start(&cfg);
	rig.v6 = true;
}

static int setup(void **state)
{
	(void)state;
	start(0, 0);
	return 0;
}

struct nd {
	uint8_t type, flags, hop_limit;
	const uint8_t *eth_dst, *src, *dst, *target;
	uint8_t option; /* 0: none */
	const uint8_t *mac;
};

static size_t build(uint8_t *frame, const struct nd *nd)
{
	uint8_t body[32] = {nd->type, 0, 0, 0, nd->flags};
	size_t len = 24;
	memcpy(body + 8, nd->target, 16);
	if (nd->option != 0) {
		body[24] = nd->option;
		body[25] = 1;
		memcpy(body + 26, nd->mac, 6);
		len = 32;
	}
	size_t frame_len = rig_build6(frame, nd->eth_dst, nd->src, nd->dst, 58, nd->hop_limit, body, len);
	if (nd->mac != NULL)
		memcpy(frame + 6, nd->mac, 6);
	rig_fix_icmp6_cksum(frame + 14, frame + 54, len);
	return frame_len;
}

static void give(const struct nd *nd)
{
	uint8_t frame[128];
	rig_frame(frame, build(frame, nd));
}

static const struct nd question = {NS, 0, 255, group_mac, rig_peer6, rig_own_group, rig_own6, OPTION_SOURCE, peer_mac};
static const struct nd answer = {NA,      NA_SOLICITED | NA_OVERRIDE, 255, NULL, rig_peer6, rig_own6, rig_peer6, OPTION_TARGET,
				 peer_mac};

/* The next ICMPv6 frame of a type that the stack sent; NULL: none. */
static const uint8_t *sent(uint8_t type)
{
	while (rig.out_next < rig.out_count) {
		const uint8_t *f = rig.out[rig.out_next++].bytes;
		if (f[12] == 0x86 && f[20] == 58 && f[54] == type)
			return f;
	}
	return NULL;
}

static const struct tcps_endpoint peer = {.addr = {.family = 6, .bytes = {0x20, 1, 0, 2, [15] = 1}}, .port = PEER_PORT};

/* RFC 4861 7.2.4. */
static void a_solicitation_is_answered_with_our_address_and_both_flags(void **state)
{
	(void)state;
	give(&question);
	const uint8_t *f = sent(NA);
	assert_non_null(f);
	assert_memory_equal(f, peer_mac, 6);
	assert_int_equal(f[21], 255);
	assert_memory_equal(f + 22, rig_own6, 16);
	assert_memory_equal(f + 38, rig_peer6, 16);
	assert_int_equal(f[58], NA_SOLICITED | NA_OVERRIDE);
	assert_memory_equal(f + 62, rig_own6, 16);
	assert_memory_equal(f + 78, ((uint8_t[]){OPTION_TARGET, 1, 2, 0, 0, 0, 0, 2}), 8);
}

/* RFC 4862 5.4.3: somebody asks whether our address is free. */
static void a_question_from_nobody_is_answered_to_all_nodes(void **state)
{
	(void)state;
	struct nd n = question;
	n.src = nobody;
	n.option = 0;
	give(&n);
	const uint8_t *f = sent(NA);
	assert_non_null(f);
	assert_memory_equal(f, all_mac, 6);
	assert_memory_equal(f + 38, all_nodes, 16);
	assert_int_equal(f[58], NA_OVERRIDE);
}

/* RFC 4861 7.1.1 and 7.1.2. */
static void messages_that_no_neighbour_sends_are_dropped_and_counted(void **state)
{
	(void)state;
	struct nd list[] = {question, question, question, question, answer, answer};
	list[0].hop_limit = 254;
	list[1].target = all_nodes;
	list[2].src = nobody; /* with an option */
	list[3].src = nobody;
	list[3].option = 0;
	list[3].dst = rig_own6;
	list[3].eth_dst = NULL;
	list[4].hop_limit = 64;
	list[5].dst = all_nodes; /* solicited, to a group */
	list[5].eth_dst = all_mac;
	for (unsigned i = 0; i < 6; i++) {
		give(&list[i]);
		assert_int_equal(rig_count(TCPS_CNT_nd_bad), i + 1);
	}
	uint8_t frame[128];
	size_t len = build(frame, &question);
	frame[54 + 25] = 0; /* an option of length 0 */
	rig_fix_icmp6_cksum(frame + 14, frame + 54, 32);
	rig_frame(frame, len);
	assert_int_equal(rig_count(TCPS_CNT_nd_bad), 7);
	assert_int_equal(rig.out_count, 0);
}

/* RFC 4861 7.2.2 and 7.2.5. */
static void an_active_open_asks_the_solicited_node_group_and_sends_its_syn_on_the_answer(void **state)
{
	(void)state;
	assert_non_null(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns));
	rig_flush();
	rig_expect_none();
	const uint8_t *f = sent(NS);
	assert_non_null(f);
	assert_memory_equal(f, ((uint8_t[]){0x33, 0x33, 0xff, 0, 0, 1}), 6);
	assert_memory_equal(f + 22, rig_own6, 16);
	assert_memory_equal(f + 38, ((uint8_t[]){0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1}), 16);
	assert_memory_equal(f + 78, ((uint8_t[]){OPTION_SOURCE, 1, 2, 0, 0, 0, 0, 2}), 8);
	give(&answer);
	rig_flush();
	assert_int_equal(rig_expect().flags, SYN);
}

static void a_lost_answer_is_asked_for_again_and_a_silent_link_gives_up(void **state)
{
	(void)state;
	assert_non_null(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns));
	rig_pass(20 * SECOND);
	uint64_t asked = rig_count(TCPS_CNT_ns_out);
	assert_true(asked >= 15 && asked <= 22);
	rig_pass(200 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
	rig_expect_baseline();
}

static void talk(void)
{
	tcps_send(rig.conn, "x", 1);
	rig_flush();
	struct seen s = rig_expect();
	rig_send(ACK, s.seq + 1, NULL, 0);
	rig_flush();
	rig_clear();
}

/* RFC 4861 7.3.2 and 7.3.3: STALE, DELAY for five seconds, PROBE at the known address, and the flow never waits. */
static void a_neighbour_in_use_is_probed_without_stalling_the_flow(void **state)
{
	(void)state;
	rig_establish(false, -1);
	give(&answer);
	rig_pass(46 * SECOND); /* past the longest reachable time */
	rig_clear();
	talk(); /* DELAY */
	rig_pass(5001 * MS);
	const uint8_t *f = sent(NS);
	assert_non_null(f);
	assert_memory_equal(f, peer_mac, 6);
	assert_memory_equal(f + 38, rig_peer6, 16);
	rig_clear();
	talk(); /* while it is being asked */
	give(&answer);
	rig_pass(10 * SECOND);
	assert_null(sent(NS));
	assert_int_equal(rig_count(TCPS_CNT_neigh_failed), 0);
}

/* RFC 7048: unicast three times, then everybody three times, and only then do the connections wait. */
static void a_neighbour_that_went_silent_is_asked_for_everywhere_before_it_is_given_up(void **state)
{
	(void)state;
	rig_establish(false, -1);
	talk();
	rig_pass(12 * SECOND);
	unsigned unicast = 0, multicast = 0;
	const uint8_t *f;
	while ((f = sent(NS)) != NULL) {
		unicast += f[0] == 2;
		multicast += f[0] == 0x33;
	}
	assert_int_equal(unicast, 3);
	assert_int_equal(multicast, 3);
	assert_int_equal(rig_count(TCPS_CNT_neigh_failed), 1);
	rig_clear();
	tcps_send(rig.conn, "later", 5);
	rig_flush();
	rig_expect_none();
	give(&answer);
	rig_flush();
	assert_int_equal(rig_expect().len, 5);
}

/* RFC 4861 7.2.5: without the override flag a known address is not replaced; with it, it is. */
static void the_override_flag_decides_about_a_new_ethernet_address(void **state)
{
	(void)state;
	rig_establish(false, -1);
	give(&answer);
	struct nd n = answer;
	n.mac = other_mac;
	n.flags = NA_SOLICITED;
	give(&n);
	rig_clear();
	tcps_send(rig.conn, "old", 3);
	rig_flush();
	assert_memory_equal(rig.out[0].bytes, peer_mac, 6);
	n.flags = NA_OVERRIDE;
	give(&n);
	assert_int_equal(rig_count(TCPS_CNT_neigh_mac_changed), 1);
	rig_clear();
	tcps_send(rig.conn, "new", 3);
	rig_flush();
	assert_memory_equal(rig.out[0].bytes, other_mac, 6);
}

/* RFC 4861 7.2.5: an advertisement by somebody that nobody asked for makes no entry; a flood of questions only recycles. */
static void the_table_stays_bounded_under_a_flood(void **state)
{
	(void)state;
	rig_establish(false, -1);
	struct nd n = question;
	uint8_t src[16];
	memcpy(src, rig_peer6, 16);
	n.src = src;
	for (unsigned i = 2; i < 200; i++) {
		src[14] = (uint8_t)i;
		give(&n);
		rig_clear();
	}
	talk();
	assert_int_equal(rig_count(TCPS_CNT_neigh_table_full), 0);
}

/* RFC 4862 5.4.2, 5.4.1: one question for each address from nobody, a second of patience, then it is used. */
static void addresses_are_asked_about_before_they_are_used(void **state)
{
	(void)state;
	rig_stop();
	start(1, 0);
	assert_false(tcps_addresses_ready(rig.t));
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_count(TCPS_CNT_drop_tentative), 1);
	assert_null(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns));
	tcps_announce(rig.t, rig.now_ns);
	rig_pass(1001 * MS);
	unsigned asked = 0;
	const uint8_t *f;
	while ((f = sent(NS)) != NULL) {
		asked++;
		assert_memory_equal(f + 22, nobody, 16);
		assert_memory_equal(f + 38, ((uint8_t[]){0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2}), 16);
		assert_int_equal(f[19], 24); /* no option */
	}
	assert_int_equal(asked, 2);
	/* Another host's question about its address is not ours to answer yet. */
	give(&question);
	assert_null(sent(NA));
	rig_pass(1100 * MS);
	assert_true(tcps_addresses_ready(rig.t));
	f = sent(NA);
	assert_non_null(f);
	assert_memory_equal(f + 38, all_nodes, 16);
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_expect().flags, SYN | ACK);
}

/* RFC 4862 5.4.3 and 5.4.4. */
static void an_address_that_another_host_has_or_asks_for_too_is_not_used(void **state)
{
	for (unsigned how = 0; how < 2; how++) {
		(void)state;
		rig_stop();
		start(1, 0);
		tcps_announce(rig.t, rig.now_ns);
		rig_pass(1001 * MS);
		struct nd n = {how == 0 ? NA : NS,
			       how == 0 ? NA_OVERRIDE : 0,
			       255,
			       how == 0 ? all_mac : group_mac,
			       how == 0 ? rig_own6 : nobody,
			       how == 0 ? all_nodes : rig_own_group,
			       rig_own6,
			       how == 0 ? OPTION_TARGET : 0,
			       other_mac};
		/* Our own question, sent back by the link, is none. */
		struct nd echo = n;
		echo.option = 0;
		echo.mac = own_mac;
		give(&echo);
		assert_int_equal(rig_count(TCPS_CNT_address_duplicate), 0);
		give(&n);
		assert_int_equal(rig_count(TCPS_CNT_address_duplicate), 1);
		rig_pass(5 * SECOND);
		assert_false(tcps_addresses_ready(rig.t));
		rig_clear();
		rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
		rig_expect_none();
		give(&question);
		assert_null(sent(NA));
	}
}

/* As RFC 5227 2.4 (c), for an address that is in use. */
static void a_claim_to_our_address_is_answered_once_in_ten_seconds(void **state)
{
	(void)state;
	const struct nd claim = {NA, NA_OVERRIDE, 255, all_mac, rig_own6, all_nodes, rig_own6, OPTION_TARGET, other_mac};
	give(&claim);
	give(&claim);
	assert_non_null(sent(NA));
	assert_null(sent(NA));
	assert_int_equal(rig_count(TCPS_CNT_nd_conflict), 2);
	assert_int_equal(rig_count(TCPS_CNT_address_defended), 1);
	assert_true(tcps_addresses_ready(rig.t));
}

/* RFC 4862 5.4.2, RFC 3810 5.2: switches that look into reports let the groups through. */
static void the_groups_are_reported_before_the_addresses_are_asked_about(void **state)
{
	(void)state;
	tcps_announce(rig.t, rig.now_ns);
	const uint8_t *f = rig.out[0].bytes;
	assert_memory_equal(f, ((uint8_t[]){0x33, 0x33, 0, 0, 0, 0x16}), 6);
	assert_int_equal(f[20], 0); /* hop-by-hop: router alert */
	assert_int_equal(f[21], 1);
	assert_memory_equal(f + 54, ((uint8_t[]){58, 0, 5, 2, 0, 0}), 6);
	assert_int_equal(f[62], 143);
	assert_int_equal(f[69], 2);
	assert_memory_equal(f + 74, rig_own_group, 16);
}

/* RFC 5227 2.1.1 and 2.3: three probes with no sender, two seconds of patience, two announcements. */
static void the_ipv4_address_is_probed_for_and_then_announced(void **state)
{
	(void)state;
	rig_stop();
	start(0, 3);
	rig.v6 = false;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_count(TCPS_CNT_drop_tentative), 1);
	tcps_announce(rig.t, rig.now_ns);
	rig_pass(10 * SECOND);
	unsigned probes = 0, announcements = 0;
	for (unsigned i = 0; i < rig.out_count; i++) {
		const uint8_t *f = rig.out[i].bytes;
		if (f[12] != 8 || f[13] != 6)
			continue;
		assert_memory_equal(f + 38, ((uint8_t[]){198, 18, 0, 2}), 4);
		probes += f[28] == 0 && announcements == 0;
		announcements += f[28] == 198;
	}
	assert_int_equal(probes, 3);
	assert_int_equal(announcements, 2);
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_expect().flags, SYN | ACK);
}

/* RFC 5227 2.1.1: also by whoever probes for it at the same time. */
static void an_ipv4_address_that_somebody_probes_for_too_is_not_used(void **state)
{
	(void)state;
	rig_stop();
	start(0, 3);
	tcps_announce(rig.t, rig.now_ns);
	rig_pass(1500 * MS);
	uint8_t f[42] = {0};
	memset(f, 0xff, 6);
	memcpy(f + 12, (uint8_t[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 66, 0, 0, 0, 0}, 20);
	memcpy(f + 38, (uint8_t[]){198, 18, 0, 2}, 4);
	rig_frame(f, sizeof(f));
	assert_int_equal(rig_count(TCPS_CNT_address_duplicate), 1);
	rig_pass(20 * SECOND);
	assert_false(tcps_addresses_ready(rig.t));
	rig_clear();
	rig_arp_from_peer(1);
	assert_int_equal(rig.out_count, 0);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_solicitation_is_answered_with_our_address_and_both_flags),
		test(a_question_from_nobody_is_answered_to_all_nodes),
		test(messages_that_no_neighbour_sends_are_dropped_and_counted),
		test(an_active_open_asks_the_solicited_node_group_and_sends_its_syn_on_the_answer),
		test(a_lost_answer_is_asked_for_again_and_a_silent_link_gives_up),
		test(a_neighbour_in_use_is_probed_without_stalling_the_flow),
		test(a_neighbour_that_went_silent_is_asked_for_everywhere_before_it_is_given_up),
		test(the_override_flag_decides_about_a_new_ethernet_address),
		test(the_table_stays_bounded_under_a_flood),
		test(addresses_are_asked_about_before_they_are_used),
		test(an_address_that_another_host_has_or_asks_for_too_is_not_used),
		test(a_claim_to_our_address_is_answered_once_in_ten_seconds),
		test(the_groups_are_reported_before_the_addresses_are_asked_about),
		test(the_ipv4_address_is_probed_for_and_then_announced),
		test(an_ipv4_address_that_somebody_probes_for_too_is_not_used),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_nd", tests, NULL, NULL);
}
