/*
 * test_tcps_link.c - below TCP: ARP, IPv4 validation, ICMP echo; each malformed frame has a counter of its own.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 826, 5227, 791, 792, 1122.
 */
#include "tests/unit/test_tcps_rig.h"

#include <string.h>

static size_t a_syn(uint8_t *frame)
{
	return rig_build(frame, SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
}

/* RFC 826: the target answers, and learns the sender. */
static void an_arp_request_for_our_address_is_answered(void **state)
{
	(void)state;
	rig_arp_from_peer(1);
	assert_int_equal(rig.out_count, 1);
	const uint8_t *f = rig.out[0].bytes;
	assert_int_equal(rig.out[0].len, 42);
	assert_memory_equal(f, ((uint8_t[]){2, 0, 0, 0, 0, 1}), 6);
	assert_memory_equal(f + 12, ((uint8_t[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 2}), 10);
	assert_memory_equal(f + 22, ((uint8_t[]){2, 0, 0, 0, 0, 2, 198, 18, 0, 2}), 10);
	assert_memory_equal(f + 32, ((uint8_t[]){2, 0, 0, 0, 0, 1, 198, 18, 0, 1}), 10);
	assert_int_equal(rig_count(TCPS_CNT_arp_replies_out), 1);
}

static void an_arp_request_for_another_address_is_not_answered(void **state)
{
	(void)state;
	uint8_t f[42] = {0};
	memset(f, 0xff, 6);
	f[6] = 2;
	memcpy(f + 12, (uint8_t[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1}, 20);
	memcpy(f + 38, (uint8_t[]){198, 18, 0, 77}, 4);
	rig_frame(f, sizeof(f));
	assert_int_equal(rig.out_count, 0);
}

static void a_malformed_arp_packet_is_counted_and_ignored(void **state)
{
	(void)state;
	uint8_t good[42] = {0};
	memset(good, 0xff, 6);
	memcpy(good + 12, (uint8_t[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1}, 20);
	memcpy(good + 38, (uint8_t[]){198, 18, 0, 2}, 4);
	static const uint8_t breaks[][2] = {{15, 2}, {16, 9}, {18, 7}, {19, 5}, {21, 9}, {22, 1}}; /* where, what */
	for (unsigned i = 0; i < sizeof(breaks) / 2; i++) {
		uint8_t f[42];
		memcpy(f, good, sizeof(f));
		f[breaks[i][0]] = breaks[i][1];
		rig_frame(f, sizeof(f));
	}
	rig_frame(good, 41);
	assert_int_equal(rig_count(TCPS_CNT_arp_bad), sizeof(breaks) / 2 + 1);
	assert_int_equal(rig.out_count, 0);
}

/* RFC 5227 2.4. */
static void somebody_else_with_our_address_is_told_so_once_in_ten_seconds(void **state)
{
	(void)state;
	uint8_t f[42] = {0};
	memset(f, 0xff, 6);
	memcpy(f + 12, (uint8_t[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 66, 198, 18, 0, 2}, 20);
	memcpy(f + 38, (uint8_t[]){198, 18, 0, 2}, 4);
	rig_frame(f, sizeof(f));
	assert_int_equal(rig_count(TCPS_CNT_arp_conflict), 1);
	assert_int_equal(rig.out_count, 1);
	assert_memory_equal(rig.out[0].bytes + 28, ((uint8_t[]){198, 18, 0, 2}), 4);
	assert_memory_equal(rig.out[0].bytes + 38, ((uint8_t[]){198, 18, 0, 2}), 4);
	/* DEFEND_INTERVAL: two hosts that both defend must not fill the link. */
	rig_frame(f, sizeof(f));
	assert_int_equal(rig.out_count, 1);
	rig_pass(10 * SECOND);
	rig_frame(f, sizeof(f));
	assert_int_equal(rig.out_count, 2);
}

/* RFC 5227 2.3. */
static void the_announcement_names_us_twice(void **state)
{
	(void)state;
	tcps_announce(rig.t, rig.now_ns);
	assert_int_equal(rig.out_count, 1);
	const uint8_t *f = rig.out[0].bytes;
	assert_memory_equal(f, ((uint8_t[]){0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), 6);
	assert_memory_equal(f + 28, ((uint8_t[]){198, 18, 0, 2}), 4);
	assert_memory_equal(f + 38, ((uint8_t[]){198, 18, 0, 2}), 4);
}

static void an_active_open_asks_for_the_address_and_sends_its_syn_on_the_answer(void **state)
{
	(void)state;
	const struct tcps_endpoint peer = {.addr = {.family = 4, .bytes = {198, 18, 0, 1}}, .port = PEER_PORT};
	assert_non_null(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns));
	rig_flush();
	assert_int_equal(rig.out_count, 1);
	assert_memory_equal(rig.out[0].bytes + 12, ((uint8_t[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 1}), 10);
	assert_memory_equal(rig.out[0].bytes + 38, ((uint8_t[]){198, 18, 0, 1}), 4);
	rig_arp_from_peer(2);
	rig_flush();
	assert_int_equal(rig_expect().flags, SYN);
}

static void an_address_that_nobody_has_is_asked_for_once_a_second_and_the_open_gives_up(void **state)
{
	(void)state;
	const struct tcps_endpoint peer = {.addr = {.family = 4, .bytes = {198, 18, 0, 99}}, .port = PEER_PORT};
	assert_non_null(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns));
	rig_pass(20 * SECOND);
	uint64_t asked = rig_count(TCPS_CNT_arp_requests_out);
	assert_true(asked >= 15 && asked <= 25);
	rig_pass(200 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
	rig_expect_none();
	rig_expect_baseline();
}

static void a_destination_without_a_route_is_refused(void **state)
{
	(void)state;
	const struct tcps_endpoint peer = {.addr = {.family = 4, .bytes = {10, 0, 0, 1}}, .port = PEER_PORT};
	assert_null(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns));
	const struct tcps_endpoint six = {.addr = {.family = 6}, .port = PEER_PORT};
	assert_null(tcps_connect(rig.t, &six, 0, &rig, rig.now_ns));
}

static void beyond_the_subnet_the_gateway_is_asked_for(void **state)
{
	(void)state;
	rig_stop();
	struct tcps_config cfg;
	rig_config(&cfg);
	memcpy(cfg.ipv4_gateway, (uint8_t[]){198, 18, 0, 1}, 4);
	rig_start(&cfg);
	const struct tcps_endpoint peer = {.addr = {.family = 4, .bytes = {10, 0, 0, 1}}, .port = PEER_PORT};
	assert_non_null(tcps_connect(rig.t, &peer, 0, &rig, rig.now_ns));
	rig_flush();
	assert_memory_equal(rig.out[0].bytes + 38, ((uint8_t[]){198, 18, 0, 1}), 4);
	rig_arp_from_peer(2);
	rig_flush();
	assert_int_equal(rig_expect().flags, SYN);
	assert_memory_equal(rig.out[rig.out_count - 1].bytes + 30, ((uint8_t[]){10, 0, 0, 1}), 4);
}

/* RFC 4861 7.3.2, for ARP too: an old entry stays usable while it is asked again; deletion never breaks a live connection. */
static void a_neighbour_that_grows_old_is_asked_again_and_a_new_address_is_followed(void **state)
{
	(void)state;
	rig_establish(true, 7);
	rig_pass(61 * SECOND);
	rig_clear();
	uint64_t asked = rig_count(TCPS_CNT_arp_requests_out);
	tcps_send(rig.conn, "still here", 10);
	rig_flush();
	assert_int_equal(rig_expect().len, 10);
	rig_pass(6 * SECOND);
	assert_true(rig_count(TCPS_CNT_arp_requests_out) > asked);
	/* The peer comes back with another card. */
	uint8_t f[42] = {0};
	memset(f, 0xff, 6);
	memcpy(f + 12, (uint8_t[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 198, 18, 0, 1}, 20);
	memcpy(f + 38, (uint8_t[]){198, 18, 0, 1}, 4);
	rig_frame(f, sizeof(f));
	assert_int_equal(rig_count(TCPS_CNT_neigh_mac_changed), 1);
	rig_clear();
	tcps_send(rig.conn, "moved", 5);
	rig_flush();
	assert_memory_equal(rig.out[0].bytes, ((uint8_t[]){2, 0, 0, 0, 0, 9}), 6);
}

static void when_a_neighbour_falls_silent_its_connections_wait_and_go_on_when_it_is_back(void **state)
{
	(void)state;
	rig_establish(true, 7);
	tcps_send(rig.conn, "lost", 4);
	rig_pass(20 * SECOND);
	assert_true(rig_count(TCPS_CNT_neigh_failed) >= 1);
	rig_clear();
	tcps_send(rig.conn, "patience", 8);
	rig_flush();
	rig_expect_none();
	rig_arp_from_peer(1);
	rig_pass(20 * SECOND);
	assert_true(rig_pending() > 0);
}

/* RFC 792. */
static void an_echo_request_is_answered_with_the_same_bytes(void **state)
{
	(void)state;
	uint8_t f[14 + 20 + 8 + 33];
	a_syn(f);
	f[16] = 0;
	f[17] = 20 + 8 + 33;
	f[23] = 1;
	memset(f + 34, 0, 8);
	f[34] = 8;
	memcpy(f + 38, (uint8_t[]){0x12, 0x34, 0, 7}, 4);
	for (unsigned i = 0; i < 33; i++)
		f[42 + i] = (uint8_t)i;
	rig_fix_ip_cksum(f);
	uint32_t sum = tcps_cksum_add(0, f + 34, 41, false);
	uint16_t cksum = tcps_cksum_fold(sum);
	memcpy(f + 36, &cksum, 2);
	rig_frame(f, sizeof(f));
	assert_int_equal(rig.out_count, 1);
	const uint8_t *o = rig.out[0].bytes;
	assert_int_equal(rig.out[0].len, sizeof(f));
	assert_int_equal(o[34], 0);
	assert_memory_equal(o + 38, f + 38, 4 + 33);
	assert_memory_equal(o + 26, ((uint8_t[]){198, 18, 0, 2, 198, 18, 0, 1}), 8);
	assert_int_equal(tcps_cksum_fold(tcps_cksum_add(0, o + 34, 41, false)), 0);
	f[50] ^= 1;
	rig_frame(f, sizeof(f));
	assert_int_equal(rig_count(TCPS_CNT_icmp_bad), 1);
	assert_int_equal(rig.out_count, 1);
}

struct broken {
	const char *what;
	enum tcps_counter counter;
	void (*breaks)(uint8_t *frame, size_t *len);
};

static void cut_ethernet(uint8_t *f, size_t *len)
{
	(void)f;
	*len = 13;
}
static void cut_ip(uint8_t *f, size_t *len)
{
	(void)f;
	*len = 33;
}
static void ethertype(uint8_t *f, size_t *len)
{
	(void)len;
	f[12] = 0x88;
}
static void other_mac(uint8_t *f, size_t *len)
{
	(void)len;
	f[5] = 77;
}
static void version(uint8_t *f, size_t *len)
{
	(void)len;
	f[14] = 0x65;
}
static void header_length(uint8_t *f, size_t *len)
{
	(void)len;
	f[14] = 0x44;
}
static void total_length(uint8_t *f, size_t *len)
{
	(void)len;
	f[17] = 200;
	rig_fix_ip_cksum(f);
}
static void total_too_small(uint8_t *f, size_t *len)
{
	(void)len;
	f[17] = 19;
	rig_fix_ip_cksum(f);
}
static void ip_cksum(uint8_t *f, size_t *len)
{
	(void)len;
	f[24] ^= 0x40;
}
static void more_fragments(uint8_t *f, size_t *len)
{
	(void)len;
	f[20] = 0x20;
	rig_fix_ip_cksum(f);
}
static void fragment_offset(uint8_t *f, size_t *len)
{
	(void)len;
	f[21] = 1;
	rig_fix_ip_cksum(f);
}
static void other_host(uint8_t *f, size_t *len)
{
	(void)len;
	f[33] = 9;
	rig_fix_ip_cksum(f);
}
static void from_ourselves(uint8_t *f, size_t *len)
{
	(void)len;
	f[29] = 2;
	rig_fix_ip_cksum(f);
	rig_fix_tcp_cksum(f);
}
static void from_multicast(uint8_t *f, size_t *len)
{
	(void)len;
	f[26] = 224;
	rig_fix_ip_cksum(f);
	rig_fix_tcp_cksum(f);
}
static void from_broadcast(uint8_t *f, size_t *len)
{
	(void)len;
	f[29] = 255;
	rig_fix_ip_cksum(f);
	rig_fix_tcp_cksum(f);
}
static void protocol(uint8_t *f, size_t *len)
{
	(void)len;
	f[23] = 17;
	rig_fix_ip_cksum(f);
}
static void tcp_cut(uint8_t *f, size_t *len)
{
	*len = 14 + 20 + 19;
	f[17] = 39;
	rig_fix_ip_cksum(f);
}
static void offset_small(uint8_t *f, size_t *len)
{
	(void)len;
	f[46] = 4 << 4;
	rig_fix_tcp_cksum(f);
}
static void offset_large(uint8_t *f, size_t *len)
{
	(void)len;
	f[46] = 6 << 4;
	rig_fix_tcp_cksum(f);
}
static void tcp_cksum(uint8_t *f, size_t *len)
{
	(void)len;
	f[50] ^= 1;
}

static void every_malformed_frame_is_dropped_under_its_own_counter(void **state)
{
	(void)state;
	static const struct broken list[] = {
		{"a frame shorter than Ethernet", TCPS_CNT_drop_short, cut_ethernet},
		{"a frame shorter than IPv4", TCPS_CNT_drop_short, cut_ip},
		{"an unknown ethertype", TCPS_CNT_drop_ethertype, ethertype},
		{"another station", TCPS_CNT_drop_not_for_us, other_mac},
		{"IP version 6 in an IPv4 frame", TCPS_CNT_drop_bad_ip_header, version},
		{"a header length of four words", TCPS_CNT_drop_bad_ip_header, header_length},
		{"a total length beyond the frame", TCPS_CNT_drop_bad_ip_header, total_length},
		{"a total length below the header's", TCPS_CNT_drop_bad_ip_header, total_too_small},
		{"a bad header checksum", TCPS_CNT_drop_bad_ip_cksum, ip_cksum},
		{"a first fragment", TCPS_CNT_drop_fragment, more_fragments},
		{"a later fragment", TCPS_CNT_drop_fragment, fragment_offset},
		{"another host", TCPS_CNT_drop_not_for_us, other_host},
		{"our own address as source", TCPS_CNT_drop_bad_source, from_ourselves},
		{"a multicast source", TCPS_CNT_drop_bad_source, from_multicast},
		{"a broadcast source", TCPS_CNT_drop_bad_source, from_broadcast},
		{"UDP", TCPS_CNT_drop_ip_protocol, protocol},
		{"a TCP header cut short", TCPS_CNT_drop_short_tcp, tcp_cut},
		{"a data offset of four words", TCPS_CNT_drop_bad_tcp_offset, offset_small},
		{"a data offset beyond the segment", TCPS_CNT_drop_bad_tcp_offset, offset_large},
		{"a bad TCP checksum", TCPS_CNT_drop_bad_tcp_cksum, tcp_cksum},
	};
	for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		uint8_t frame[256];
		size_t len = a_syn(frame);
		list[i].breaks(frame, &len);
		uint64_t before = rig_count(list[i].counter);
		rig_frame(frame, len);
		/* Only a packet of a protocol that nobody speaks is answered, and by ICMP. */
		bool complains = rig.out_count == 1 && rig.out[0].bytes[23] == 1 && list[i].breaks == protocol;
		if (rig_count(list[i].counter) != before + 1 || (rig.out_count != 0 && !complains))
			fail_msg("%s was not dropped under its counter", list[i].what);
		rig_clear();
	}
	assert_int_equal(rig_count(TCPS_CNT_syns_in), 0);
}

static void padding_behind_the_packet_is_not_payload(void **state)
{
	(void)state;
	rig_establish(false, -1);
	uint8_t frame[128] = {0};
	size_t len = rig_build(frame, ACK, rig.peer_seq, rig_own(0), "ab", 2, NULL, 0);
	memset(frame + len, 0xcc, 4);
	rig_frame(frame, len + 4);
	assert_int_equal(rig.got_len, 2);
}

static void ip_options_are_stepped_over(void **state)
{
	(void)state;
	rig_establish(false, -1);
	uint8_t frame[128], with[128];
	size_t len = rig_build(frame, ACK, rig.peer_seq, rig_own(0), "ab", 2, NULL, 0);
	memcpy(with, frame, 34);
	memcpy(with + 34, (uint8_t[]){1, 1, 1, 0}, 4);
	memcpy(with + 38, frame + 34, len - 34);
	with[14] = 0x46;
	with[17] = (uint8_t)(with[17] + 4);
	rig_fix_ip_cksum(with);
	rig_frame(with, len + 4);
	assert_int_equal(rig.got_len, 2);
}

/* The port has verified them already: they are not looked at again. */
static void verified_checksums_are_believed(void **state)
{
	(void)state;
	uint8_t frame[128];
	size_t len = a_syn(frame);
	frame[24] ^= 0x40;
	frame[50] ^= 1;
	rig.rx_flags = TCPS_RX_IP_CKSUM_GOOD | TCPS_RX_L4_CKSUM_GOOD;
	rig_frame(frame, len);
	assert_int_equal(rig_expect().flags, SYN | ACK);
}

static void an_invalid_configuration_is_refused(void **state)
{
	(void)state;
	static uint8_t mem[64] __attribute__((aligned(64)));
	struct tcps_config cfg;
	const struct tcps_ops ops = {0};
	rig_config(&cfg);
	assert_null(tcps_init(mem, sizeof(mem), &cfg, &ops, NULL, 0));
	size_t need = tcps_mem_bytes(&cfg);
	cfg.conns_max = 0;
	assert_null(tcps_init(rig.mem, need, &cfg, &ops, NULL, 0));
	rig_config(&cfg);
	cfg.rto_min_ns = cfg.rto_max_ns + 1;
	assert_null(tcps_init(rig.mem, need, &cfg, &ops, NULL, 0));
	rig_config(&cfg);
	cfg.mtu = 68;
	assert_null(tcps_init(rig.mem, need, &cfg, &ops, NULL, 0));
}

static void an_idle_connection_costs_at_most_a_kibibyte(void **state)
{
	(void)state;
	struct tcps_config cfg;
	rig_config(&cfg);
	cfg.conns_max = 1024;
	size_t few = tcps_mem_bytes(&cfg);
	cfg.conns_max = 2048;
	assert_true(tcps_mem_bytes(&cfg) - few <= 1024 * 1024);
	rig_establish(true, 7);
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.blocks_in_use, 0);
}

static void every_counter_has_a_name_and_a_text(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TCPS_CNT_COUNT; i++) {
		assert_true(strlen(tcps_counter_name(i)) > 2);
		assert_true(strlen(tcps_counter_text(i)) > 5);
	}
	assert_string_equal(tcps_counter_name(TCPS_CNT_COUNT), "?");
	assert_string_equal(tcps_reason_text(TCPS_CLOSED_RESET), "reset by the peer");
}

#define test(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(an_arp_request_for_our_address_is_answered),
		test(an_arp_request_for_another_address_is_not_answered),
		test(a_malformed_arp_packet_is_counted_and_ignored),
		test(somebody_else_with_our_address_is_told_so_once_in_ten_seconds),
		test(the_announcement_names_us_twice),
		test(an_active_open_asks_for_the_address_and_sends_its_syn_on_the_answer),
		test(an_address_that_nobody_has_is_asked_for_once_a_second_and_the_open_gives_up),
		test(a_destination_without_a_route_is_refused),
		test(beyond_the_subnet_the_gateway_is_asked_for),
		test(a_neighbour_that_grows_old_is_asked_again_and_a_new_address_is_followed),
		test(when_a_neighbour_falls_silent_its_connections_wait_and_go_on_when_it_is_back),
		test(an_echo_request_is_answered_with_the_same_bytes),
		test(every_malformed_frame_is_dropped_under_its_own_counter),
		test(padding_behind_the_packet_is_not_payload),
		test(ip_options_are_stepped_over),
		test(verified_checksums_are_believed),
		test(an_invalid_configuration_is_refused),
		test(an_idle_connection_costs_at_most_a_kibibyte),
		test(every_counter_has_a_name_and_a_text),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_link", tests, NULL, NULL);
}
