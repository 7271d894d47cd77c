/*
 * test_tcps_vlan.c - tags, routes and large frames.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: IEEE 802.1Q, RFC 1812 5.2.4.3.
 */
#include "tests/unit/test_tcps_rig.h"

#include <stdlib.h>
#include <string.h>

static void start_vlan(uint16_t id, bool offload)
{
	struct tcps_config cfg;
	rig_config(&cfg);
	memcpy(cfg.ipv6, rig_own6, 16);
	cfg.ipv6_prefix_len = 64;
	cfg.vlan_id = id;
	cfg.tx_vlan_offload = offload;
	rig_start(&cfg);
}

static int setup(void **state)
{
	(void)state;
	start_vlan(42, false);
	rig.vlan = 42;
	return 0;
}

static void exchange(void)
{
	rig_establish(true, 7);
	rig_send(ACK | PSH, rig_own(0), "tagged", 6);
	tcps_send(rig.conn, "as well", 7);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.len, 7);
	assert_memory_equal(s.payload, "as well", 7);
	assert_int_equal(rig.got_len, 6);
	rig_clear();
}

/* The tag is written and taken off in software; checksums are verified by the rig. */
static void both_families_work_behind_a_tag(void **state)
{
	(void)state;
	exchange();
	assert_true(rig_count(TCPS_CNT_fast_path_in) > 0);
	tcps_abort(rig.conn);
	assert_memory_equal(rig.out[0].bytes + 12, ((uint8_t[]){0x81, 0, 0, 42, 8, 0}), 6);
	assert_int_equal(rig.out[0].meta.l2_len, 18);
	assert_false(rig.out[0].meta.vlan_insert);
	rig_clear();
	rig.got_len = rig.closed = 0;
	rig.v6 = true;
	exchange();
	assert_int_equal(rig_count(TCPS_CNT_drop_vlan), 0);
}

static void arp_and_resets_bear_the_tag(void **state)
{
	(void)state;
	rig_segment(ACK, 1, 2, NULL, 0, NULL, 0);
	assert_int_equal(rig_expect().flags, RST);
	assert_memory_equal(rig.out[0].bytes + 12, ((uint8_t[]){0x81, 0, 0, 42, 8, 0}), 6);
	rig_clear();
	tcps_announce(rig.t, rig.now_ns);
	assert_true(rig.out_count >= 3);
	for (unsigned i = 0; i < rig.out_count; i++)
		assert_memory_equal(rig.out[i].bytes + 12, ((uint8_t[]){0x81, 0, 0, 42}), 4);
}

static void frames_of_other_vlans_and_of_none_are_dropped_and_counted(void **state)
{
	(void)state;
	rig.vlan = 43;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	rig.vlan = 0;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	rig_arp_from_peer(1);
	assert_int_equal(rig_count(TCPS_CNT_drop_vlan), 3);
	rig.vlan = 0x6000 | 42; /* the priority is nobody's business */
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	rig.vlan = 42;
	assert_int_equal(rig_expect().flags, SYN | ACK);
	assert_int_equal(rig_count(TCPS_CNT_syns_in), 1);
}

static void without_a_vlan_tags_are_refused_but_for_a_bare_priority(void **state)
{
	(void)state;
	rig_stop();
	rig_setup(NULL);
	rig.vlan = 42;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_count(TCPS_CNT_drop_vlan), 1);
	rig.vlan = 0xa000;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	rig.vlan = 0;
	assert_int_equal(rig_expect().flags, SYN | ACK);
	static const uint8_t cut[15] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81};
	rig_frame(cut, sizeof(cut));
	assert_int_equal(rig_count(TCPS_CNT_drop_short), 1);
}

/* The port does both: the same bytes, and the tag beside them. */
static void a_port_that_strips_and_inserts_is_told_and_believed(void **state)
{
	(void)state;
	rig_stop();
	start_vlan(42, true);
	rig.rx_flags = TCPS_RX_VLAN(0x2000 | 42);
	exchange();
	tcps_send(rig.conn, "x", 1);
	rig_flush();
	assert_memory_equal(rig.out[0].bytes + 12, ((uint8_t[]){8, 0, 0x45}), 3);
	assert_true(rig.out[0].meta.vlan_insert);
	assert_int_equal(rig.out[0].meta.vlan_tci, 42);
	assert_int_equal(rig.out[0].meta.l2_len, 14);
	rig.rx_flags = TCPS_RX_VLAN(43);
	rig_send(ACK, rig_own(0), "y", 1);
	assert_int_equal(rig_count(TCPS_CNT_drop_vlan), 1);
	rig.rx_flags = TCPS_RX_VLAN(42);
}

static void connect_to(const struct tcps_addr *addr, bool may)
{
	const struct tcps_endpoint to = {.addr = *addr, .port = PEER_PORT};
	struct tcps_conn *c = tcps_connect(rig.t, &to, 0, &rig, rig.now_ns);
	assert_int_equal(c != NULL, may);
	rig_clear();
	rig_flush();
}

#define V4(...)                                                                                                                    \
	{                                                                                                                          \
		.family = 4, .bytes = { __VA_ARGS__ }                                                                              \
	}
#define V6(...)                                                                                                                    \
	{                                                                                                                          \
		.family = 6, .bytes = { __VA_ARGS__ }                                                                              \
	}

/* RFC 1812 5.2.4.3: the longest prefix decides whom we ask for. */
static void the_longest_prefix_decides_in_both_families(void **state)
{
	(void)state;
	rig_stop();
	struct tcps_config cfg;
	rig_config(&cfg);
	memcpy(cfg.ipv6, rig_own6, 16);
	cfg.ipv6_prefix_len = 64;
	cfg.conns_max = 16;
	cfg.neighbours_max = 16;
	memcpy(cfg.ipv4_gateway, (uint8_t[]){198, 18, 0, 250}, 4);
	memcpy(cfg.ipv6_gateway, (uint8_t[]){0xfe, 0x80, [15] = 0xfa}, 16);
	const struct tcps_route routes[] = {
		{V4(10, 1), 16, V4(198, 18, 0, 251)},
		{V4(10, 1, 2, 128), 25, V4(198, 18, 0, 252)},
		{V4(198, 18, 0, 192), 28, V4(198, 18, 0, 253)},
		{V6(0x20, 1, 0xd, 0xb8), 32, V6(0x20, 1, 0, 2, [15] = 0xfb)},
		{V6(0x20, 1, 0xd, 0xb8, 0x80), 33, V6(0xfe, 0x80, [15] = 0xfc)},
	};
	memcpy(cfg.routes, routes, sizeof(routes));
	cfg.route_count = 5;
	rig_start(&cfg);
	static const struct {
		struct tcps_addr to;
		uint8_t hop; /* the last byte of whom we ask for */
	} list[] = {{V4(10, 1, 2, 3), 251},
		    {V4(10, 1, 2, 200), 252},
		    {V4(10, 2, 2, 200), 250},
		    {V4(198, 18, 0, 7), 7},
		    {V4(198, 18, 0, 200), 253},
		    {V6(0x20, 1, 0xd, 0xb8, 0x10, [15] = 5), 0xfb},
		    {V6(0x20, 1, 0xd, 0xb8, 0x90, [15] = 5), 0xfc},
		    {V6(0x20, 1, 0xd, 0xb9, [15] = 5), 0xfa},
		    {V6(0x20, 1, 0, 2, [15] = 5), 5}};
	for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		connect_to(&list[i].to, true);
		assert_int_equal(rig.out_count, 1);
		const uint8_t *f = rig.out[0].bytes;
		assert_int_equal(list[i].to.family == 4 ? f[41] : f[77], list[i].hop);
	}
}

static void a_route_over_a_gateway_that_is_no_neighbour_is_refused(void **state)
{
	(void)state;
	struct tcps_config cfg;
	const struct tcps_ops ops = {0};
	rig_config(&cfg);
	size_t need = tcps_mem_bytes(&cfg);
	const struct tcps_route bad[] = {{V4(10, 1), 16, V4(198, 19, 0, 1)},
					 {V4(10, 1), 33, V4(198, 18, 0, 1)},
					 {V6(0x20, 1, 0xd, 0xb8), 32, V4(198, 18, 0, 1)},
					 {V6(0x20, 1, 0xd, 0xb8), 32, V6(0xfe, 0x80, [15] = 1)}}; /* no IPv6 here */
	cfg.route_count = 1;
	void *mem = aligned_alloc(64, need);
	assert_non_null(mem);
	for (unsigned i = 0; i < 4; i++) {
		cfg.routes[0] = bad[i];
		memset(mem, 0, need);
		assert_null(tcps_init(mem, need, &cfg, &ops, NULL, 0));
	}
	free(mem);
}

static void jumbo_frames_carry_jumbo_segments(void **state)
{
	(void)state;
	static uint8_t bytes[20000];
	for (unsigned six = 0; six < 2; six++) {
		rig_stop();
		struct tcps_config cfg;
		rig_config(&cfg);
		memcpy(cfg.ipv6, rig_own6, 16);
		cfg.ipv6_prefix_len = 64;
		cfg.mtu = 9000;
		rig_start(&cfg);
		rig.v6 = six == 1;
		uint32_t mss = six == 1 ? 8940 : 8960;
		rig_segment(SYN, PEER_ISS, 0, NULL, 0, (uint8_t[]){2, 4, 0x23, 0x28}, 4);
		struct seen s = rig_expect();
		assert_int_equal(s.mss, mss);
		rig.own_iss = s.seq;
		rig.peer_seq = PEER_ISS + 1;
		rig_send(ACK, rig_own(0), bytes, mss);
		assert_int_equal(rig.got_len, mss);
		tcps_send(rig.conn, bytes, sizeof(bytes));
		rig_flush();
		assert_int_equal(rig_expect().len, mss);
	}
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(both_families_work_behind_a_tag),
		test(arp_and_resets_bear_the_tag),
		test(frames_of_other_vlans_and_of_none_are_dropped_and_counted),
		test(without_a_vlan_tags_are_refused_but_for_a_bare_priority),
		test(a_port_that_strips_and_inserts_is_told_and_believed),
		test(the_longest_prefix_decides_in_both_families),
		test(a_route_over_a_gateway_that_is_no_neighbour_is_refused),
		test(jumbo_frames_carry_jumbo_segments),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_vlan", tests, NULL, NULL);
}
