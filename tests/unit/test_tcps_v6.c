/*
 * test_tcps_v6.c - IPv6 under TCP: handshakes both ways, extension headers, what is malformed, ICMPv6 echo and errors.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 8200, 4443, 4291, 6946, 9293.
 */
#include "tests/unit/test_tcps_rig.h"

#include <string.h>

static int setup6(void **state)
{
	(void)state;
	struct tcps_config cfg;
	rig_config(&cfg);
	memcpy(cfg.ipv6, rig_own6, 16);
	cfg.ipv6_prefix_len = 64;
	rig_start(&cfg);
	rig.v6 = true;
	return 0;
}

static void a_handshake_and_a_stream_both_ways_work_over_ipv6(void **state)
{
	(void)state;
	rig_establish(true, 7);
	rig_send(ACK | PSH, rig_own(0), "over six", 8);
	assert_int_equal(rig.got_len, 8);
	tcps_send(rig.conn, "and back", 8);
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.len, 8);
	assert_memory_equal(s.payload, "and back", 8);
	assert_int_equal(s.ack, PEER_ISS + 9);
	assert_true(rig_count(TCPS_CNT_fast_path_in) > 0);
	struct tcps_endpoint local, peer;
	tcps_endpoints(rig.conn, &local, &peer);
	assert_int_equal(local.addr.family, 6);
	assert_memory_equal(local.addr.bytes, rig_own6, 16);
	assert_memory_equal(peer.addr.bytes, rig_peer6, 16);
	assert_int_equal(peer.port, PEER_PORT);
}

/* RFC 4291 2.5.6: the same ports at the link-local addresses are another connection. */
static void the_link_local_address_takes_connections_of_its_own(void **state)
{
	(void)state;
	uint8_t link[16];
	assert_true(tcps_link_local(rig.t, link));
	assert_memory_equal(link, rig_own_link, 16);
	rig_establish(false, -1);
	struct tcps_conn *first = rig.conn;
	rig.link_local = true;
	rig_establish(false, -1);
	assert_ptr_not_equal(rig.conn, first);
	struct tcps_endpoint local, peer;
	tcps_endpoints(rig.conn, &local, &peer);
	assert_memory_equal(local.addr.bytes, rig_own_link, 16);
	assert_memory_equal(peer.addr.bytes, rig_peer_link, 16);
}

/* RFC 9293 3.7.1: 1500 less 40 and 20; and without an option 1220 is assumed. */
static void the_segment_size_over_ipv6_leaves_room_for_its_header(void **state)
{
	(void)state;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	struct seen s = rig_expect();
	assert_int_equal(s.mss, 1440);
	rig.own_iss = s.seq;
	rig.peer_seq = PEER_ISS + 1;
	rig_send(ACK, rig_own(0), NULL, 0);
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_int_equal(info.mss, 1220);
}

static void a_segment_for_no_connection_is_reset_over_ipv6(void **state)
{
	(void)state;
	rig_segment(ACK, 77, 99, NULL, 0, NULL, 0);
	struct seen s = rig_expect();
	assert_int_equal(s.flags, RST);
	assert_int_equal(s.seq, 99);
	assert_memory_equal(rig.out[0].bytes + 14 + 24, rig_peer6, 16);
	assert_memory_equal(rig.out[0].bytes, ((uint8_t[]){2, 0, 0, 0, 0, 1}), 6);
}

/* RFC 9293 3.6.1: the record answers as the connection would. */
static void time_wait_is_kept_and_answered_over_ipv6(void **state)
{
	(void)state;
	rig_establish(true, 7);
	tcps_shutdown(rig.conn);
	rig_flush();
	rig_clear();
	rig_send(FIN | ACK, rig_own(1), NULL, 0);
	rig_flush();
	assert_int_equal(rig.closed, 1);
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.time_wait, 1);
	rig_clear();
	rig.peer_seq--;
	rig_send(FIN | ACK, rig_own(1), NULL, 0);
	assert_int_equal(rig_expect().ack, rig.peer_seq);
}

/* RFC 6528: the addresses, the ports and the time decide. */
static void initial_numbers_differ_between_families_and_addresses(void **state)
{
	(void)state;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	uint32_t six = rig_expect().seq;
	rig.link_local = true;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	uint32_t link = rig_expect().seq;
	rig.v6 = false;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	uint32_t four = rig_expect().seq;
	assert_int_not_equal(six, link);
	assert_int_not_equal(six, four);
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.half_open, 3);
}

/* Puts `ext` between the header and TCP of a data segment; its first byte must name TCP. */
static void send_behind(const uint8_t *ext, size_t ext_len, uint8_t kind)
{
	uint8_t plain[256], frame[1024];
	size_t len = rig_build(plain, ACK, rig.peer_seq, rig_own(0), "ab", 2, NULL, 0);
	memcpy(frame, plain, 54);
	memcpy(frame + 54, ext, ext_len);
	memcpy(frame + 54 + ext_len, plain + 54, len - 54);
	size_t payload = len - 54 + ext_len;
	frame[18] = (uint8_t)(payload >> 8);
	frame[19] = (uint8_t)payload;
	frame[20] = kind;
	rig_frame(frame, 54 + payload);
}

/* RFC 8200 4.3, 4.6, 4.4 with no segments left, RFC 6946. */
static void extension_headers_are_stepped_over(void **state)
{
	(void)state;
	rig_establish(false, -1);
	static const uint8_t padded[8] = {6, 0, 1, 4, 0, 0, 0, 0}, routed[8] = {6, 0, 3, 0, 0, 0, 0, 0},
			     atomic[8] = {6, 0, 0, 0, 1, 2, 3, 4};
	const struct {
		const uint8_t *ext;
		uint8_t kind;
	} list[] = {{padded, 0}, {padded, 60}, {routed, 43}, {atomic, 44}};
	for (unsigned i = 0; i < 4; i++) {
		send_behind(list[i].ext, 8, list[i].kind);
		rig.peer_seq += 2;
		assert_int_equal(rig.got_len, 2 * (i + 1));
	}
}

static void fragments_are_dropped_and_counted(void **state)
{
	(void)state;
	rig_establish(false, -1);
	send_behind((uint8_t[]){6, 0, 0, 1, 1, 2, 3, 4}, 8, 44);
	send_behind((uint8_t[]){6, 0, 0, 8, 1, 2, 3, 4}, 8, 44);
	assert_int_equal(rig.got_len, 0);
	assert_int_equal(rig_count(TCPS_CNT_drop_fragment), 2);
}

static void more_extension_headers_than_any_honest_packet_has_are_refused(void **state)
{
	(void)state;
	rig_establish(false, -1);
	uint8_t ext[9 * 8] = {0};
	for (unsigned i = 0; i < 9; i++)
		memcpy(ext + 8 * i, (uint8_t[]){i == 8 ? 6 : 60, 0, 1, 4, 0, 0, 0, 0}, 8);
	send_behind(ext, sizeof(ext), 60);
	assert_int_equal(rig.got_len, 0);
	assert_int_equal(rig_count(TCPS_CNT_drop_ip6_extension), 1);
	send_behind(ext + 8, sizeof(ext) - 8, 60);
	assert_int_equal(rig.got_len, 2);
}

/* The ICMPv6 message that the stack sent last: its type, code and the word behind. */
static void expect_icmp6(uint8_t type, uint8_t code, uint32_t info)
{
	assert_int_equal(rig.out_count, 1);
	const uint8_t *ip = rig.out[0].bytes + 14, *icmp = ip + 40;
	assert_int_equal(ip[6], 58);
	assert_int_equal(icmp[0], type);
	assert_int_equal(icmp[1], code);
	assert_int_equal((uint32_t)icmp[4] << 24 | (uint32_t)icmp[5] << 16 | (uint32_t)icmp[6] << 8 | icmp[7], info);
	rig_clear();
}

/* RFC 8200 4.2 and 4.4, RFC 4443 3.4. */
static void what_is_not_understood_is_told_of_with_the_place(void **state)
{
	(void)state;
	rig_establish(false, -1);
	send_behind((uint8_t[]){6, 0, 0x85, 4, 0, 0, 0, 0}, 8, 60); /* option 10xxxxxx */
	expect_icmp6(4, 2, 42);
	send_behind((uint8_t[]){6, 0, 0x45, 4, 0, 0, 0, 0}, 8, 60); /* 01xxxxxx: in silence */
	assert_int_equal(rig.out_count, 0);
	send_behind((uint8_t[]){6, 0, 0, 1, 0, 0, 0, 0}, 8, 43);
	expect_icmp6(4, 0, 42);
	send_behind((uint8_t[]){6, 0, 0, 0, 0, 0, 0, 0}, 8, 200);
	expect_icmp6(4, 1, 6);
	send_behind((uint8_t[]){6, 0, 0, 0, 0, 0, 0, 0}, 8, 17);
	expect_icmp6(1, 4, 0);
	send_behind((uint8_t[]){0, 0, 1, 4, 0, 0, 0, 0}, 8, 60); /* hop-by-hop anywhere but first */
	expect_icmp6(4, 1, 40);
	assert_int_equal(rig.got_len, 0);
}

static void icmp6(uint8_t *frame, size_t *frame_len, const uint8_t *src, const uint8_t *dst, const uint8_t *body, size_t len)
{
	*frame_len = rig_build6(frame, NULL, src, dst, 58, 64, body, len);
	rig_fix_icmp6_cksum(frame + 14, frame + 54, len);
}

/* RFC 4443 4.2. */
static void an_echo_request_over_ipv6_is_answered_with_the_same_bytes(void **state)
{
	(void)state;
	uint8_t body[8 + 21] = {128, 0, 0, 0, 0x12, 0x34, 0, 7}, frame[256];
	size_t len;
	for (unsigned i = 8; i < sizeof(body); i++)
		body[i] = (uint8_t)i;
	icmp6(frame, &len, rig_peer6, rig_own6, body, sizeof(body));
	rig_frame(frame, len);
	assert_int_equal(rig.out_count, 1);
	const uint8_t *o = rig.out[0].bytes;
	assert_int_equal(rig.out[0].len, len);
	assert_int_equal(o[54], 129);
	assert_memory_equal(o + 58, frame + 58, sizeof(body) - 4);
	assert_memory_equal(o + 14 + 8, rig_own6, 16);
	assert_memory_equal(o + 14 + 24, rig_peer6, 16);
	frame[60] ^= 1;
	rig_frame(frame, len);
	assert_int_equal(rig_count(TCPS_CNT_icmp_bad), 1);
	assert_int_equal(rig.out_count, 1);
}

/* RFC 4443 2.4 (e). */
static void errors_are_never_answered_by_errors_nor_sent_about_groups(void **state)
{
	(void)state;
	uint8_t frame[256], all_nodes[16] = {0xff, 2};
	all_nodes[15] = 1;
	/* An error message behind a destination option that asks for complaint. */
	uint8_t hidden[8 + 8] = {58, 0, 0x85, 4, 0, 0, 0, 0, 1, 4};
	size_t len = rig_build6(frame, NULL, rig_peer6, rig_own6, 60, 64, hidden, sizeof(hidden));
	rig_frame(frame, len);
	/* From nobody, and to a group. */
	uint8_t udp[8] = {0};
	static const uint8_t nobody[16], group_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
	len = rig_build6(frame, NULL, nobody, rig_own6, 17, 64, udp, 8);
	rig_frame(frame, len);
	len = rig_build6(frame, group_mac, rig_peer6, all_nodes, 17, 64, udp, 8);
	rig_frame(frame, len);
	assert_int_equal(rig.out_count, 0);
	assert_int_equal(rig_count(TCPS_CNT_icmp_errors_out), 0);
}

/* RFC 4443 2.4 (f). */
static void errors_are_rate_limited(void **state)
{
	(void)state;
	uint8_t frame[256], udp[8] = {0};
	size_t len = rig_build6(frame, NULL, rig_peer6, rig_own6, 17, 64, udp, 8);
	for (unsigned i = 0; i < 150; i++)
		rig_frame(frame, len);
	assert_int_equal(rig_count(TCPS_CNT_icmp_errors_out), 100);
	assert_int_equal(rig_count(TCPS_CNT_icmp_limited), 50);
	rig_clear();
	rig_pass(SECOND);
	rig_frame(frame, len);
	assert_int_equal(rig_count(TCPS_CNT_icmp_errors_out), 101);
}

static void every_malformed_ipv6_frame_is_dropped_under_its_own_counter(void **state)
{
	(void)state;
	static const uint8_t loopback[16] = {[15] = 1}, mapped[16] = {[10] = 0xff, [11] = 0xff, [12] = 198, [13] = 18, [15] = 9},
			     multicast[16] = {0xff, 2, [15] = 9};
	static const struct {
		const char *what;
		enum tcps_counter counter;
		int at, value; /* at < 0: shorter by so much */
		const uint8_t *src;
	} list[] = {{"a frame shorter than IPv6", TCPS_CNT_drop_short, -21, 0, NULL},
		    {"version 4", TCPS_CNT_drop_bad_ip_header, 14, 0x45, NULL},
		    {"a payload length beyond the frame", TCPS_CNT_drop_bad_ip_header, 18, 1, NULL},
		    {"another host", TCPS_CNT_drop_not_for_us, 53, 9, NULL},
		    {"another host of the link", TCPS_CNT_drop_not_for_us, 5, 9, NULL},
		    {"one host's packet in a frame for a group", TCPS_CNT_drop_not_for_us, 0, 0x33, NULL},
		    {"a bad TCP checksum", TCPS_CNT_drop_bad_tcp_cksum, 70, 7, NULL},
		    {"ourselves as source", TCPS_CNT_drop_bad_source, 0, 2, rig_own6},
		    {"loopback as source", TCPS_CNT_drop_bad_source, 0, 2, loopback},
		    {"IPv4 in disguise as source", TCPS_CNT_drop_bad_source, 0, 2, mapped},
		    {"a group as source", TCPS_CNT_drop_bad_source, 0, 2, multicast}};
	for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		uint8_t frame[256];
		size_t len = rig_build(frame, SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
		if (list[i].src != NULL) {
			memcpy(frame + 22, list[i].src, 16);
			rig_fix_tcp_cksum(frame);
		}
		if (list[i].at < 0)
			len += (size_t)list[i].at;
		else
			frame[list[i].at] = (uint8_t)list[i].value;
		if (list[i].value == 0x33)
			frame[1] = 0x33;
		uint64_t before = rig_count(list[i].counter);
		rig_frame(frame, len);
		if (rig_count(list[i].counter) != before + 1 || rig.out_count != 0)
			fail_msg("%s was not dropped under its counter", list[i].what);
	}
	assert_int_equal(rig_count(TCPS_CNT_syns_in), 0);
}

static void where_no_ipv6_is_configured_none_is_spoken(void **state)
{
	(void)state;
	rig_stop();
	rig_setup(NULL);
	rig.v6 = true;
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig.out_count, 0);
	assert_int_equal(rig_count(TCPS_CNT_drop_ethertype), 1);
	uint8_t link[16];
	assert_false(tcps_link_local(rig.t, link));
}

static void an_ipv6_configuration_that_cannot_be_is_refused(void **state)
{
	(void)state;
	struct tcps_config good, cfg;
	const struct tcps_ops ops = {0};
	rig_config(&good);
	memcpy(good.ipv6, rig_own6, 16);
	good.ipv6_prefix_len = 64;
	size_t need = tcps_mem_bytes(&good);
	cfg = good;
	cfg.mtu = 1279; /* RFC 8200 5 */
	assert_null(tcps_init(rig.mem, need, &cfg, &ops, NULL, 0));
	cfg = good;
	cfg.ipv6[0] = 0xff;
	assert_null(tcps_init(rig.mem, need, &cfg, &ops, NULL, 0));
	cfg = good;
	memcpy(cfg.ipv6, rig_own_link, 16);
	assert_null(tcps_init(rig.mem, need, &cfg, &ops, NULL, 0));
	cfg = good;
	cfg.ipv6_prefix_len = 0;
	assert_null(tcps_init(rig.mem, need, &cfg, &ops, NULL, 0));
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup6, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_handshake_and_a_stream_both_ways_work_over_ipv6),
		test(the_link_local_address_takes_connections_of_its_own),
		test(the_segment_size_over_ipv6_leaves_room_for_its_header),
		test(a_segment_for_no_connection_is_reset_over_ipv6),
		test(time_wait_is_kept_and_answered_over_ipv6),
		test(initial_numbers_differ_between_families_and_addresses),
		test(extension_headers_are_stepped_over),
		test(fragments_are_dropped_and_counted),
		test(more_extension_headers_than_any_honest_packet_has_are_refused),
		test(what_is_not_understood_is_told_of_with_the_place),
		test(an_echo_request_over_ipv6_is_answered_with_the_same_bytes),
		test(errors_are_never_answered_by_errors_nor_sent_about_groups),
		test(errors_are_rate_limited),
		test(every_malformed_ipv6_frame_is_dropped_under_its_own_counter),
		test(where_no_ipv6_is_configured_none_is_spoken),
		test(an_ipv6_configuration_that_cannot_be_is_refused),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_v6", tests, NULL, NULL);
}
