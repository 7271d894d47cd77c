/*
 * test_tcps_rig.c - the scripted peer of the TCP tests.
 *
 * Owns: `rig`.
 * Core: tests only.
 * Spec: RFC 791, 826, 9293 3.1.
 */
#include "tests/unit/test_tcps_rig.h"

#include <stdlib.h>
#include <string.h>

struct rig rig;

static const uint8_t own_mac[6] = {0x02, 0, 0, 0, 0, 2}, peer_mac[6] = {0x02, 0, 0, 0, 0, 1};

const uint8_t rig_own6[16] = {0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
const uint8_t rig_peer6[16] = {0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
const uint8_t rig_own_link[16] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 2};
const uint8_t rig_peer_link[16] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1};
const uint8_t rig_own_group[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2};

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static uint32_t sum_bytes(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint8_t *tx_alloc(void *ctx, size_t len, void **handle)
{
	(void)ctx;
	if (rig.no_frames)
		return NULL;
	assert_true(rig.out_count < OUT_MAX && len <= sizeof(rig.out[0].bytes));
	struct out_frame *f = &rig.out[rig.out_count];
	memset(f->bytes, 0x5a, sizeof(f->bytes));
	*handle = f;
	return f->bytes;
}

static void tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	(void)ctx;
	struct out_frame *f = handle;
	f->len = len;
	f->meta = *meta;
	rig.out_count++;
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)ctx;
	assert_int_equal(peer->addr.family, rig.v6 ? 6 : 4);
	assert_int_equal(local_port, OWN_PORT);
	rig.accepted++;
	if (rig.refuse)
		return NULL;
	rig.conn = conn;
	return &rig;
}

static void on_connected(void *user)
{
	assert_ptr_equal(user, &rig);
	rig.connected++;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	assert_ptr_equal(user, &rig);
	assert_int_equal(rig.closed, 0);
	rig.data_calls++;
	if (rig.abort_in_data) {
		tcps_abort(rig.conn);
		return 0;
	}
	size_t take = len < rig.take_max ? len : rig.take_max;
	assert_true(rig.got_len + take <= sizeof(rig.got));
	memcpy(rig.got + rig.got_len, data, take);
	rig.got_len += take;
	rig.take_max -= take;
	return take;
}

static void on_eof(void *user)
{
	assert_ptr_equal(user, &rig);
	rig.eof++;
	if (rig.shutdown_in_eof)
		tcps_shutdown(rig.conn);
}

static void on_writable(void *user)
{
	assert_ptr_equal(user, &rig);
	rig.writable++;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	assert_ptr_equal(user, &rig);
	rig.closed++;
	rig.reason = reason;
}

static void on_release(void *ctx, void *owner)
{
	(void)ctx;
	rig.released++;
	rig.released_owner = owner;
}

void rig_config(struct tcps_config *cfg)
{
	*cfg = (struct tcps_config){.ipv4 = {198, 18, 0, 2},
				    .ipv4_prefix_len = 24,
				    .mtu = 1500,
				    .conns_max = 4,
				    .half_open_max = 4,
				    .time_wait_max = 4,
				    .listeners_max = 2,
				    .neighbours_max = 4,
				    .blocks_max = 256,
				    .send_high_water_bytes = 100000,
				    .recv_window_bytes = 65535,
				    .rto_min_ns = 200 * MS,
				    .rto_max_ns = 60 * SECOND,
				    .msl_ns = 30 * SECOND,
				    .delayed_ack_ns = 40 * MS,
				    .retransmits_max = 6,
				    .secret = {7, 7, 7, 7, 1, 2, 3}};
	memcpy(cfg->mac, own_mac, 6);
}

void rig_start(const struct tcps_config *cfg)
{
	static const struct tcps_ops ops = {tx_alloc,    tx_send,   on_accept,  on_connected, on_data, on_eof,
					    on_writable, on_closed, on_release, NULL,         NULL,    NULL};
	memset(&rig, 0, sizeof(rig));
	size_t bytes = tcps_mem_bytes(cfg);
	rig.mem = aligned_alloc(64, bytes);
	assert_non_null(rig.mem);
	memset(rig.mem, 0, bytes);
	rig.now_ns = 5 * SECOND;
	rig.take_max = SIZE_MAX;
	rig.peer_port = PEER_PORT;
	rig.peer_wnd = 60000;
	rig.peer_seq = PEER_ISS;
	rig.t = tcps_init(rig.mem, bytes, cfg, &ops, NULL, rig.now_ns);
	assert_non_null(rig.t);
	assert_true(tcps_listen(rig.t, OWN_PORT));
}

void rig_stop(void)
{
	rig_check();
	free(rig.mem);
	rig.mem = NULL;
}

int rig_setup(void **state)
{
	(void)state;
	struct tcps_config cfg;
	rig_config(&cfg);
	rig_start(&cfg);
	return 0;
}

int rig_teardown(void **state)
{
	(void)state;
	rig_stop();
	return 0;
}

void rig_frame(const uint8_t *frame, size_t len)
{
	uint8_t *exact = malloc(len == 0 ? 1 : len); /* so that a sanitizer sees a read beyond the frame */
	assert_non_null(exact);
	if (len != 0)
		memcpy(exact, frame, len);
	tcps_input(rig.t, exact, len, rig.rx_flags, rig.now_ns);
	free(exact);
	rig_check();
}

void rig_fix_ip_cksum(uint8_t *frame)
{
	uint8_t *ip = frame + 14;
	put16(ip + 10, 0);
	put16(ip + 10, ~sum_bytes(0, ip, (ip[0] & 0xfu) * 4u));
}

/* The sum of the pseudo header, of either family. */
static uint32_t pseudo_sum(const uint8_t *ip, uint32_t protocol, uint32_t len)
{
	return ip[0] >> 4 == 6 ? sum_bytes(protocol + len, ip + 8, 32) : sum_bytes(protocol + len, ip + 12, 8);
}

void rig_fix_tcp_cksum(uint8_t *frame)
{
	uint8_t *ip = frame + 14;
	bool v6 = ip[0] >> 4 == 6;
	uint32_t header_len = v6 ? 40 : (ip[0] & 0xfu) * 4u;
	uint32_t tcp_len = v6 ? get16(ip + 4) : get16(ip + 2) - header_len;
	uint8_t *tcp = ip + header_len;
	put16(tcp + 16, 0);
	put16(tcp + 16, ~sum_bytes(pseudo_sum(ip, 6, tcp_len), tcp, tcp_len));
}

void rig_fix_icmp6_cksum(const uint8_t *ip, uint8_t *body, size_t len)
{
	put16(body + 2, 0);
	put16(body + 2, ~sum_bytes(pseudo_sum(ip, 58, (uint32_t)len), body, len));
}

size_t rig_build6(uint8_t *frame, const uint8_t *eth_dst, const uint8_t src[16], const uint8_t dst[16], uint8_t next,
		  uint8_t hop_limit, const void *body, size_t len)
{
	uint8_t *ip = frame + 14;
	memcpy(frame, eth_dst != NULL ? eth_dst : own_mac, 6);
	memcpy(frame + 6, peer_mac, 6);
	put16(frame + 12, 0x86dd);
	put32(ip, 6u << 28);
	put16(ip + 4, (uint32_t)len);
	ip[6] = next;
	ip[7] = hop_limit;
	memcpy(ip + 8, src, 16);
	memcpy(ip + 24, dst, 16);
	if (len != 0)
		memcpy(ip + 40, body, len);
	return 54 + len;
}

static size_t ipv4_packet(uint8_t *frame, size_t tcp_len)
{
	uint8_t *ip = frame + 14;
	memset(frame, 0, 34);
	memcpy(frame, own_mac, 6);
	memcpy(frame + 6, peer_mac, 6);
	put16(frame + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, (uint32_t)(20 + tcp_len));
	ip[8] = 64;
	ip[9] = 6;
	memcpy(ip + 12, (uint8_t[]){198, 18, 0, 1, 198, 18, 0, 2}, 8);
	rig_fix_ip_cksum(frame);
	return 34;
}

static size_t ipv6_packet(uint8_t *frame, size_t tcp_len)
{
	size_t at = rig_build6(frame, NULL, rig.link_local ? rig_peer_link : rig_peer6, rig.link_local ? rig_own_link : rig_own6, 6,
			       64, NULL, 0);
	put16(frame + 18, (uint32_t)tcp_len);
	return at;
}

size_t rig_build(uint8_t *frame, uint8_t flags, uint32_t seq, uint32_t ack, const void *data, size_t len, const uint8_t *opts,
		 size_t opts_len)
{
	size_t at = rig.v6 ? ipv6_packet(frame, 20 + opts_len + len) : ipv4_packet(frame, 20 + opts_len + len);
	uint8_t *tcp = frame + at;
	memset(tcp, 0, 20);
	put16(tcp, rig.peer_port);
	put16(tcp + 2, OWN_PORT);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = (uint8_t)((20 + opts_len) << 2);
	tcp[13] = flags;
	put16(tcp + 14, rig.peer_wnd);
	if (opts_len != 0)
		memcpy(tcp + 20, opts, opts_len);
	if (len != 0)
		memcpy(tcp + 20 + opts_len, data, len);
	rig_fix_tcp_cksum(frame);
	return at + 20 + opts_len + len;
}

void rig_segment(uint8_t flags, uint32_t seq, uint32_t ack, const void *data, size_t len, const uint8_t *opts, size_t opts_len)
{
	uint8_t frame[9300];
	size_t frame_len = rig_build(frame, flags, seq, ack, data, len, opts, opts_len);
	if (rig.vlan != 0) {
		memmove(frame + 16, frame + 12, frame_len - 12);
		put16(frame + 12, 0x8100);
		put16(frame + 14, rig.vlan);
		frame_len += 4;
	}
	rig_frame(frame, frame_len);
}

void rig_send(uint8_t flags, uint32_t ack, const void *data, size_t len)
{
	uint8_t opts[12] = {1, 1, 8, 10};
	put32(opts + 4, rig.ts_val);
	put32(opts + 8, rig.ts_ecr);
	rig_segment(flags, rig.peer_seq, ack, data, len, opts, rig.ts ? 12 : 0);
	rig.peer_seq += (uint32_t)len + ((flags & SYN) != 0) + ((flags & FIN) != 0);
}

void rig_arp_from_peer(uint16_t op)
{
	uint8_t f[42] = {0};
	memset(f, 0xff, 6);
	memcpy(f + 6, peer_mac, 6);
	put16(f + 12, 0x0806);
	memcpy(f + 14, (uint8_t[]){0, 1, 8, 0, 6, 4}, 6);
	put16(f + 20, op);
	memcpy(f + 22, peer_mac, 6);
	memcpy(f + 28, (uint8_t[]){198, 18, 0, 1}, 4);
	memcpy(f + 38, (uint8_t[]){198, 18, 0, 2}, 4);
	rig_frame(f, sizeof(f));
}

void rig_flush(void)
{
	tcps_flush(rig.t, rig.now_ns);
	rig_check();
}

void rig_pass(uint64_t ns)
{
	uint64_t until = rig.now_ns + ns;
	rig_flush();
	for (;;) {
		uint64_t next = tcps_next_deadline(rig.t);
		rig.now_ns = next < until ? (next > rig.now_ns ? next : rig.now_ns + 1) : until;
		tcps_tick(rig.t, rig.now_ns);
		rig_flush();
		if (rig.now_ns >= until)
			return;
	}
}

static void take_options(struct seen *s, const uint8_t *p, const uint8_t *end)
{
	while (p < end && *p != 0) {
		if (*p == 1) {
			p++;
			continue;
		}
		assert_true(end - p >= 2 && p[1] >= 2 && p[1] <= end - p);
		if (p[0] == 2)
			s->mss = (uint16_t)get16(p + 2);
		if (p[0] == 3)
			s->wscale = p[2];
		if (p[0] == 4)
			s->sack_ok = true;
		if (p[0] == 5) {
			s->sack_count = (p[1] - 2u) / 8;
			for (unsigned i = 0; i < s->sack_count; i++) {
				s->sack[i][0] = get32(p + 2 + 8 * i);
				s->sack[i][1] = get32(p + 6 + 8 * i);
			}
		}
		if (p[0] == 8) {
			s->has_ts = true;
			s->ts_val = get32(p + 2);
			s->ts_ecr = get32(p + 6);
		}
		p += p[1];
	}
}

/* Behind a tag or none; its type in *type. */
static const uint8_t *packet_of(const struct out_frame *f, uint32_t *type)
{
	const uint8_t *at = f->bytes + 12;
	if (get16(at) == 0x8100) {
		assert_int_equal(get16(at + 2), rig.vlan);
		at += 4;
	}
	*type = get16(at);
	return at + 2;
}

static bool is_tcp(const struct out_frame *f)
{
	uint32_t type;
	const uint8_t *ip = packet_of(f, &type);
	return f->len >= 54 && ((type == 0x0800 && ip[9] == 6) || (type == 0x86dd && ip[6] == 6));
}

unsigned rig_pending(void)
{
	unsigned n = 0;
	for (unsigned i = rig.out_next; i < rig.out_count; i++)
		n += is_tcp(&rig.out[i]);
	return n;
}

struct seen rig_expect(void)
{
	while (rig.out_next < rig.out_count && !is_tcp(&rig.out[rig.out_next]))
		rig.out_next++;
	assert_true(rig.out_next < rig.out_count);
	const struct out_frame *f = &rig.out[rig.out_next++];
	uint32_t type;
	const uint8_t *ip = packet_of(f, &type);
	bool v6 = type == 0x86dd;
	uint32_t ip_len = v6 ? 40 : 20, total = v6 ? 40 + get16(ip + 4) : get16(ip + 2);
	const uint8_t *tcp = ip + ip_len;
	assert_int_equal(total + (size_t)(ip - f->bytes), f->len);
	assert_memory_equal(f->bytes + 6, own_mac, 6);
	assert_int_equal(f->meta.ipv6, v6);
	if (!v6 && !f->meta.ip_cksum)
		assert_int_equal(sum_bytes(0, ip, 20), 0xffff);
	if (!f->meta.tcp_cksum)
		assert_int_equal(sum_bytes(pseudo_sum(ip, 6, total - ip_len), tcp, total - ip_len), 0xffff);
	uint32_t header_len = (tcp[12] >> 4) * 4u;
	struct seen s = {.flags = tcp[13],
			 .seq = get32(tcp + 4),
			 .ack = get32(tcp + 8),
			 .wnd = get16(tcp + 14),
			 .len = total - ip_len - header_len,
			 .src_port = (uint16_t)get16(tcp),
			 .dst_port = (uint16_t)get16(tcp + 2),
			 .wscale = -1,
			 .payload = tcp + header_len};
	take_options(&s, tcp + 20, tcp + header_len);
	return s;
}

void rig_expect_none(void)
{
	assert_int_equal(rig_pending(), 0);
}

void rig_clear(void)
{
	rig.out_count = rig.out_next = 0;
}

static void establish(bool ts, int wscale, bool sack)
{
	uint8_t opts[24];
	size_t n = 0;
	memcpy(opts, (uint8_t[]){2, 4, 0x05, 0xb4}, 4);
	n += 4;
	if (ts) {
		memcpy(opts + n, (uint8_t[]){1, 1, 8, 10, 0, 0, 0x27, 0x10, 0, 0, 0, 0}, 12);
		if (sack)
			memcpy(opts + n, (uint8_t[]){4, 2}, 2);
		n += 12;
		rig.ts_val = 10000;
	} else if (sack) {
		memcpy(opts + n, (uint8_t[]){1, 1, 4, 2}, 4);
		n += 4;
	}
	if (wscale >= 0) {
		memcpy(opts + n, (uint8_t[]){1, 3, 3, (uint8_t)wscale}, 4);
		n += 4;
	}
	if (!rig.v6 && rig.vlan == 0)
		rig_arp_from_peer(1);
	rig_segment(SYN, PEER_ISS, 0, NULL, 0, opts, n);
	struct seen s = rig_expect();
	assert_int_equal(s.flags, SYN | ACK);
	assert_int_equal(s.ack, PEER_ISS + 1);
	assert_int_equal(s.has_ts, ts);
	assert_int_equal(s.wscale >= 0, wscale >= 0);
	assert_int_equal(s.sack_ok, sack);
	rig.own_iss = s.seq;
	rig.peer_seq = PEER_ISS + 1;
	rig.ts = ts;
	rig.ts_ecr = s.ts_val;
	unsigned before = rig.accepted;
	rig_send(ACK, rig_own(0), NULL, 0);
	assert_int_equal(rig.accepted, before + 1);
	rig_flush();
	rig_clear();
}

void rig_establish(bool ts, int wscale)
{
	establish(ts, wscale, false);
}

void rig_establish_sack(void)
{
	establish(true, 7, true);
}

void rig_establish_sack_alone(void)
{
	establish(false, 7, true);
}

void rig_sack(uint32_t ack, unsigned count, const uint32_t (*blocks)[2])
{
	uint8_t opts[40] = {1, 1, 8, 10};
	put32(opts + 4, rig.ts_val);
	put32(opts + 8, rig.ts_ecr);
	uint8_t *at = opts + (rig.ts ? 12 : 0);
	memcpy(at, (uint8_t[]){1, 1, 5, (uint8_t)(2 + 8 * count)}, 4);
	for (unsigned i = 0; i < count; i++) {
		put32(at + 4 + 8 * i, rig_own(blocks[i][0]));
		put32(at + 8 + 8 * i, rig_own(blocks[i][1]));
	}
	rig_segment(ACK, rig.peer_seq, rig_own(ack), NULL, 0, opts, (size_t)(at - opts) + 4 + 8 * (size_t)count);
}

uint32_t rig_own(uint32_t n)
{
	return rig.own_iss + 1 + n;
}

uint64_t rig_count(enum tcps_counter counter)
{
	return tcps_counters(rig.t)[counter];
}

void rig_check(void)
{
	const char *why = tcps_check(rig.t);
	if (why != NULL)
		fail_msg("%s", why);
}

void rig_expect_baseline(void)
{
	struct tcps_usage u;
	tcps_usage(rig.t, &u);
	assert_int_equal(u.conns, 0);
	assert_int_equal(u.half_open, 0);
	assert_int_equal(u.blocks_in_use, 0);
	assert_int_equal(u.refs_in_use, 0);
}
