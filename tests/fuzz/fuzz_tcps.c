/*
 * fuzz_tcps.c - arbitrary frames, times and owner's calls against a stack in a chosen state.
 *
 * Owns: one stack a run. After every step tcps_check() must hold; at the end every pool is back at its baseline.
 * Core: tests only; linked with libFuzzer, or with replay_main.c.
 * Spec: the input: byte 0 chooses the state, bit 6 IPv6, bit 5 a VLAN; then come operations of a kind byte and its operands.
 */
#include "tcpstack/tcpstack.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND   1000000000ull
#define MS       1000000ull
#define OWN_PORT 5672u

#define FIN 0x01u
#define SYN 0x02u
#define RST 0x04u
#define ACK 0x10u
#define ECE 0x40u
#define CWR 0x80u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *at, *end;
};

static struct {
	struct tcps *t;
	struct tcps_conn *conn;
	uint64_t now_ns;
	uint32_t own_seq, peer_seq; /* what the stack has sent and expects, read from its segments */
	uint8_t frame[2048];
	unsigned refs;
	size_t take;
	bool no_frames, ts, active, v6;
	uint16_t vlan;
	uint8_t last[128]; /* the begin of the last packet sent */
	uint32_t last_len;
	uint16_t own_port;
} w;

static const uint8_t body[2000]; /* what the owner sends */

static uint8_t take8(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static uint16_t take16(struct input *in)
{
	uint16_t high = take8(in);
	return (uint16_t)(high << 8 | take8(in));
}

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

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint8_t *tx_alloc(void *ctx, size_t len, void **handle)
{
	(void)ctx;
	if (w.no_frames || len > sizeof(w.frame))
		return NULL;
	*handle = w.frame;
	return w.frame;
}

/* Learns the numbers of the stack's side, so that operands can be near them. */
static void tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	(void)ctx;
	(void)handle;
	(void)meta;
	uint32_t l2 = w.vlan != 0 ? 18 : 14, ip_len = w.v6 ? 40 : 20;
	const uint8_t *ip = w.frame + l2, *tcp = ip + ip_len;
	if (len < l2 + ip_len + 20 || ip[0] >> 4 != (w.v6 ? 6 : 4) || ip[w.v6 ? 6 : 9] != 6)
		return;
	w.last_len = (uint32_t)len - l2 < sizeof(w.last) ? (uint32_t)len - l2 : (uint32_t)sizeof(w.last);
	memcpy(w.last, ip, w.last_len);
	if ((tcp[13] & RST) != 0)
		return;
	uint32_t payload = (uint32_t)len - l2 - ip_len - (tcp[12] >> 4) * 4u;
	w.own_seq = get32(tcp + 4) + payload + ((tcp[13] & (SYN | FIN)) != 0);
	if (tcp[13] & ACK)
		w.peer_seq = get32(tcp + 8);
	w.own_port = (uint16_t)(tcp[0] << 8 | tcp[1]);
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)ctx;
	(void)peer;
	(void)local_port;
	if (w.conn != NULL)
		return NULL; /* refuses a second one */
	w.conn = conn;
	return &w;
}

static void on_connected(void *user)
{
	(void)user;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	(void)user;
	volatile uint8_t sink = 0; /* the bytes lent must be readable to the last */
	for (size_t i = 0; i < len; i++)
		sink = (uint8_t)(sink + data[i]);
	if (w.take == 12345) {
		tcps_abort(w.conn);
		return 0;
	}
	if (w.take % 7 == 3)
		tcps_send(w.conn, "echo", 4);
	return len < w.take ? len : w.take;
}

static void on_eof(void *user)
{
	(void)user;
	if (w.take % 5 == 1)
		tcps_shutdown(w.conn);
}

static void on_writable(void *user)
{
	(void)user;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	(void)user;
	if (tcps_reason_text(reason)[0] == '?')
		abort();
	w.conn = NULL;
}

static void on_release(void *ctx, void *owner)
{
	(void)ctx;
	if (owner != &w || w.refs == 0)
		abort();
	w.refs--;
}

static void check(void)
{
	const char *why = tcps_check(w.t);
	if (why != NULL) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
}

static void input(const uint8_t *frame, size_t len, uint32_t rx_flags)
{
	uint8_t *exact = malloc(len == 0 ? 1 : len);
	if (exact == NULL)
		abort();
	if (len != 0)
		memcpy(exact, frame, len);
	tcps_input(w.t, exact, len, rx_flags, w.now_ns);
	free(exact);
	check();
}

static const uint8_t own6[16] = {0x20, 1, 0, 2, [15] = 2}, peer6[16] = {0x20, 1, 0, 2, [15] = 1};

/* The headers before `len` bytes of a protocol. Returns where they begin. */
static size_t headers(uint8_t *f, uint8_t protocol, uint8_t hop_limit, size_t len)
{
	static const uint8_t macs[12] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};
	uint8_t *at = f + 12;
	memcpy(f, macs, 12);
	if (w.vlan != 0) {
		put16(at, 0x8100);
		put16(at + 2, w.vlan);
		at += 4;
	}
	put16(at, w.v6 ? 0x86dd : 0x0800);
	at += 2;
	memset(at, 0, 40);
	if (w.v6) {
		at[0] = 0x60;
		put16(at + 4, (uint32_t)len);
		at[6] = protocol;
		at[7] = hop_limit;
		memcpy(at + 8, peer6, 16);
		memcpy(at + 24, own6, 16);
		return (size_t)(at - f) + 40;
	}
	at[0] = 0x45;
	put16(at + 2, (uint32_t)(20 + len));
	at[8] = hop_limit;
	at[9] = protocol;
	memcpy(at + 12, (uint8_t[]){198, 18, 0, 1, 198, 18, 0, 2}, 8);
	return (size_t)(at - f) + 20;
}

static void segment(uint8_t flags, uint32_t seq, uint32_t ack, uint16_t wnd, const uint8_t *opts, size_t opts_len, size_t len)
{
	uint8_t f[18 + 40 + 60 + 1500];
	size_t at = headers(f, 6, 64, 20 + opts_len + len);
	uint8_t *tcp = f + at;
	memset(tcp, 0, 20);
	put16(tcp, 40000);
	put16(tcp + 2, w.own_port);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = (uint8_t)((20 + opts_len) << 2);
	tcp[13] = flags;
	put16(tcp + 14, wnd);
	if (opts_len != 0)
		memcpy(tcp + 20, opts, opts_len);
	for (size_t i = 0; i < len; i++)
		tcp[20 + opts_len + i] = (uint8_t)(seq + i);
	input(f, at + 20 + opts_len + len, TCPS_RX_IP_CKSUM_GOOD | TCPS_RX_L4_CKSUM_GOOD);
}

/* Fills the checksum of an ICMP message of either family, and gives it. */
static void icmp(uint8_t *f, size_t at, size_t len)
{
	uint8_t *message = f + at;
	uint32_t sum = 0;
	put16(message + 2, 0);
	if (w.v6) {
		const uint8_t pseudo[8] = {0, 0, (uint8_t)(len >> 8), (uint8_t)len, 0, 0, 0, 58};
		sum = tcps_cksum_add(tcps_cksum_add(0, f + at - 32, 32, false), pseudo, 8, false);
	}
	uint16_t cksum = tcps_cksum_fold(tcps_cksum_add(sum, message, len, false));
	memcpy(message + 2, &cksum, 2);
	input(f, at + len, TCPS_RX_IP_CKSUM_GOOD);
}

static void arp(void)
{
	static const uint8_t reply[42] = {2, 0, 0, 0, 0, 2, 2, 0,   0,  0, 0, 1, 8, 6, 0, 1, 8, 0,   6,  4, 0,
					  2, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1, 2, 0, 0, 0, 0, 2, 198, 18, 0, 2};
	/* A solicitation for our address, with the sender's Ethernet address. */
	static const uint8_t ns[32] = {135, [8] = 0x20, 1, 0, 2, [23] = 2, 1, 1, 2, [31] = 1};
	uint8_t f[128];
	if (w.v6) {
		size_t at = headers(f, 58, 255, sizeof(ns));
		memcpy(f + at, ns, sizeof(ns));
		icmp(f, at, sizeof(ns));
	} else if (w.vlan == 0) {
		input(reply, sizeof(reply), 0);
	}
}

static void start(uint8_t which)
{
	static const struct tcps_ops ops = {tx_alloc,    tx_send,   on_accept,  on_connected, on_data, on_eof,
					    on_writable, on_closed, on_release, NULL,         NULL,    NULL};
	struct tcps_config cfg = {.mac = {2, 0, 0, 0, 0, 2},
				  .ipv4 = {198, 18, 0, 2},
				  .ipv4_prefix_len = 24,
				  .mtu = 1500,
				  .conns_max = 3,
				  .half_open_max = 3,
				  .time_wait_max = 2,
				  .listeners_max = 2,
				  .neighbours_max = 2,
				  .blocks_max = 24,
				  .send_high_water_bytes = 9000,
				  .recv_window_bytes = 20000,
				  .rto_min_ns = 200 * MS,
				  .rto_max_ns = 10 * SECOND,
				  .msl_ns = 5 * SECOND,
				  .delayed_ack_ns = 40 * MS,
				  .keepalive_ns = 20 * SECOND,
				  .user_timeout_ns = 30 * SECOND,
				  .cc = which % 3 == 0 ? TCPS_CC_NEWRENO : TCPS_CC_CUBIC,
				  .ecn = true,
				  .syn_cookies = true,
				  .retransmits_max = 4};
	memcpy(cfg.ipv6, own6, 16);
	cfg.ipv6_prefix_len = 64;
	cfg.vlan_id = (which & 0x20) != 0 ? 42 : 0;
	static uint8_t *mem;
	size_t bytes = tcps_mem_bytes(&cfg);
	if (mem == NULL)
		mem = aligned_alloc(64, bytes);
	if (mem == NULL)
		abort();
	memset(mem, 0, bytes);
	memset(&w, 0, sizeof(w));
	w.now_ns = SECOND;
	w.own_port = OWN_PORT;
	w.v6 = (which & 0x40) != 0;
	w.vlan = cfg.vlan_id;
	w.take = SIZE_MAX - SIZE_MAX % 35; /* neither echoes nor shuts down */
	w.t = tcps_init(mem, bytes, &cfg, &ops, NULL, w.now_ns);
	if (w.t == NULL || !tcps_listen(w.t, OWN_PORT))
		abort();
}

static void establish(bool ts)
{
	/* With timestamps come SACK and, over IPv6, ECN. */
	static const uint8_t opts[] = {2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 2};
	static const uint8_t stamps[] = {1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0};
	arp();
	segment(ts && w.v6 ? SYN | ECE | CWR : SYN, 1000, 0, 8000, opts, ts ? 20 : 4, 0);
	segment(ACK, 1001, w.own_seq, 8000, stamps, ts ? 12 : 0, 0);
	w.ts = ts;
	if (w.conn == NULL)
		abort();
}

static void flush(void)
{
	tcps_flush(w.t, w.now_ns);
	check();
}

/* The states of RFC 9293 figure 5, by the first byte. */
static void enter_state(uint8_t which)
{
	struct tcps_endpoint peer = {.addr = {.family = 4, .bytes = {198, 18, 0, 1}}, .port = 40000};
	if (w.v6) {
		peer.addr.family = 6;
		memcpy(peer.addr.bytes, peer6, 16);
	}
	bool ts = (which & 0x80) != 0;
	switch (which % 11) {
	case 0: /* LISTEN */
		return;
	case 1: /* SYN-SENT, and by the next segment perhaps SYN-RECEIVED */
		arp();
		w.conn = tcps_connect(w.t, &peer, 6000, &w, w.now_ns);
		flush();
		return;
	case 2: /* SYN-RECEIVED in the SYN cache */
		segment(SYN, 1000, 0, 8000, NULL, 0, 0);
		return;
	default:
		establish(ts);
	}
	switch (which % 11) {
	case 4: /* data outstanding */
		tcps_send(w.conn, "outstanding", 11);
		w.refs += tcps_send_ref(w.conn, body, 1900, &w);
		tcps_send(w.conn, "more", 4);
		break;
	case 5: /* a stopped reader, and a hole */
		w.take = 0;
		segment(ACK, w.peer_seq, w.own_seq, 8000, NULL, 0, 500);
		flush();
		segment(ACK, w.peer_seq + 3000, w.own_seq, 8000, NULL, 0, 500);
		break;
	case 6: /* FIN-WAIT-1 */
		tcps_shutdown(w.conn);
		break;
	case 7: /* CLOSE-WAIT */
		segment(FIN | ACK, w.peer_seq, w.own_seq, 8000, NULL, 0, 3);
		break;
	case 8: /* CLOSING */
		tcps_shutdown(w.conn);
		flush();
		segment(FIN | ACK, w.peer_seq, w.own_seq - 1, 8000, NULL, 0, 0);
		break;
	case 9: /* LAST-ACK */
		segment(FIN | ACK, w.peer_seq, w.own_seq, 8000, NULL, 0, 0);
		tcps_shutdown(w.conn);
		break;
	case 10: /* FIN-WAIT-2, and TIME-WAIT by the next FIN */
		tcps_shutdown(w.conn);
		flush();
		segment(ACK, w.peer_seq, w.own_seq, 8000, NULL, 0, 0);
		break;
	default:
		break;
	}
	flush();
}

static void near_segment(struct input *in)
{
	uint8_t flags = take8(in);
	int32_t seq_off = (int16_t)take16(in), ack_off = (int16_t)take16(in);
	uint32_t seq = w.peer_seq + (uint32_t)seq_off, ack = w.own_seq + (uint32_t)ack_off;
	uint16_t wnd = take16(in);
	size_t len = take16(in) % 1461, opts_len = take8(in) % 11 * 4u;
	uint8_t opts[40];
	for (size_t i = 0; i < opts_len; i++)
		opts[i] = take8(in);
	segment(flags, seq, ack, wnd, opts, opts_len, len);
}

/* An ACK with SACK blocks below and around what was sent last. */
static void near_sack(struct input *in)
{
	uint8_t opts[40] = {1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 1, 5}, count = (uint8_t)(take8(in) % 4);
	uint32_t ack = w.own_seq - take16(in) % 5000u;
	opts[15] = (uint8_t)(2 + 8 * count);
	for (unsigned i = 0; i < count; i++) {
		uint32_t start = ack + (uint32_t)(int16_t)take16(in) % 8000u;
		put32(opts + 16 + 8 * i, start);
		put32(opts + 20 + 8 * i, start + take16(in) % 3000u);
	}
	segment(ACK, w.peer_seq, ack, 8000, w.ts ? opts : opts + 12, (w.ts ? 16u : 4u) + 8u * count, 0);
}

/* An ICMP error about the last segment that went out, or one near it. */
static void near_error(struct input *in)
{
	uint8_t f[18 + 40 + 8 + sizeof(w.last)], type = take8(in), code = take8(in);
	uint16_t info = take16(in);
	int32_t seq_off = (int16_t)take16(in);
	uint32_t quoted = take8(in), ip_len = w.v6 ? 40 : 20;
	quoted = quoted < w.last_len ? quoted : w.last_len;
	size_t at = headers(f, w.v6 ? 58 : 1, 64, 8 + quoted);
	uint8_t *quote = f + at + 8;
	f[at] = type;
	f[at + 1] = code;
	put32(f + at + 4, info);
	memcpy(quote, w.last, quoted);
	if (quoted >= ip_len + 8)
		put32(quote + ip_len + 4, get32(quote + ip_len + 4) + (uint32_t)seq_off);
	icmp(f, at, 8 + quoted);
}

/* A message of neighbour discovery, any bytes behind a kind that is looked at. */
static void near_discovery(struct input *in)
{
	uint8_t f[18 + 40 + 64], message[64] = {0};
	uint8_t type = take8(in), flags = take8(in), hop_limit = take8(in), target = take8(in);
	size_t len = 24u + take8(in) % 41u;
	bool v6 = w.v6;
	message[0] = (uint8_t)(type % 16 + 128);
	message[4] = flags;
	memcpy(message + 8, target & 1 ? own6 : peer6, 16);
	for (size_t i = 24; i < len; i++)
		message[i] = take8(in);
	w.v6 = true;
	size_t at = headers(f, 58, hop_limit < 128 ? 255 : hop_limit, len);
	if (target & 2)
		memset(f + at - 32, 0, 16); /* from the unspecified address */
	memcpy(f + at, message, len);
	icmp(f, at, len);
	w.v6 = v6;
}

static void raw_frame(struct input *in)
{
	size_t len = take16(in) % 1600;
	uint8_t flags = take8(in);
	uint32_t rx_flags = (flags & 3u) | (flags & 4u ? TCPS_RX_VLAN(flags >> 3) : 0);
	size_t left = (size_t)(in->end - in->at);
	if (len > left)
		len = left;
	const uint8_t *frame = in->at;
	in->at += len;
	input(frame, len, rx_flags);
}

static void owner_call(struct input *in)
{
	uint8_t what = take8(in);
	if (w.conn == NULL)
		return;
	uint8_t *room;
	switch (what % 8) {
	case 0:
		tcps_send(w.conn, body, take16(in) % 2000);
		break;
	case 1:
		room = tcps_reserve(w.conn, what);
		if (room != NULL) {
			memset(room, what, what);
			tcps_commit(w.conn, what / 2);
		}
		break;
	case 2:
		w.refs += tcps_send_ref(w.conn, body, take16(in) % 2000, &w);
		break;
	case 3:
		tcps_shutdown(w.conn);
		break;
	case 4:
		w.take = take16(in);
		break;
	case 5:
		tcps_resume(w.conn);
		break;
	case 6:
		tcps_abort(w.conn);
		break;
	default:
		w.no_frames = !w.no_frames;
		break;
	}
	check();
}

static void pass(uint64_t ns)
{
	uint64_t until = w.now_ns + ns;
	for (unsigned i = 0; i < 3000 && w.now_ns < until; i++) {
		uint64_t next = tcps_next_deadline(w.t);
		w.now_ns = next < until ? (next > w.now_ns ? next : w.now_ns + 1) : until;
		tcps_tick(w.t, w.now_ns);
		flush();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	uint8_t which = take8(&in);
	start(which);
	enter_state(which);
	while (in.at < in.end) {
		switch (take8(&in) % 9) {
		case 8:
			near_sack(&in);
			break;
		case 0:
		case 1:
			near_segment(&in);
			break;
		case 2:
			raw_frame(&in);
			break;
		case 3:
			owner_call(&in);
			break;
		case 4:
			pass((uint64_t)take16(&in) * MS);
			break;
		case 5:
			flush();
			break;
		case 6:
			near_error(&in);
			break;
		default:
			near_discovery(&in);
			break;
		}
	}
	w.no_frames = false;
	if (w.conn != NULL)
		tcps_abort(w.conn);
	pass(400 * SECOND);
	struct tcps_usage u;
	tcps_usage(w.t, &u);
	if (u.conns + u.half_open + u.blocks_in_use + u.refs_in_use != 0 || w.refs != 0) {
		fprintf(stderr, "a pool is not back at its baseline\n");
		abort();
	}
	return 0;
}
