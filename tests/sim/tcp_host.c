/*
 * tcp_host.c - the simulated port under a TCP stack.
 *
 * Owns: struct host.
 * Core: tests only.
 * Spec: none; the checksums filled for offload are summed byte by byte here, independent of the stack's own.
 */
#include "tests/sim/tcp_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void host_config(struct tcps_config *cfg, unsigned side)
{
	*cfg = (struct tcps_config){
		.mac = {0x02, 0, 0, 0, 0, (uint8_t)(side + 1)},
		.ipv4 = {198, 18, 0, (uint8_t)(side + 1)},
		.ipv4_prefix_len = 24,
		.mtu = 1500,
		.conns_max = 16,
		.half_open_max = 16,
		.time_wait_max = 16,
		.listeners_max = 4,
		.neighbours_max = 8,
		.blocks_max = 256,
		.send_high_water_bytes = 65536,
		.recv_window_bytes = 65536,
		.rto_min_ns = 200000000ull,
		.rto_max_ns = 60000000000ull,
		.msl_ns = 60000000000ull,
		.delayed_ack_ns = 40000000ull,
		.keepalive_ns = 30000000000ull,
		.retransmits_max = 15,
		.secret = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, (uint8_t)side},
	};
}

void host_config_ipv6(struct tcps_config *cfg, unsigned side)
{
	static const uint8_t prefix[4] = {0x20, 1, 0, 2};
	memcpy(cfg->ipv6, prefix, sizeof(prefix));
	cfg->ipv6[15] = (uint8_t)(side + 1);
	cfg->ipv6_prefix_len = 64;
}

static uint32_t sum_bytes(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

uint8_t *host_packet(uint8_t *frame, unsigned *type)
{
	uint8_t *at = frame + 12;
	if (at[0] == 0x81 && at[1] == 0)
		at += 4;
	*type = (unsigned)(at[0] << 8 | at[1]);
	return at + 2;
}

static void fill_tcp_cksum(uint8_t *ip, size_t tcp_len, bool pseudo_is_there)
{
	bool v6 = ip[0] >> 4 == 6;
	uint8_t *tcp = ip + (v6 ? 40 : 20);
	uint32_t pseudo;
	if (pseudo_is_there) /* as hardware does: the field holds the sum to continue from */
		pseudo = (uint32_t)tcp[16] << 8 | tcp[17];
	else
		pseudo = sum_bytes(6 + (uint32_t)tcp_len, ip + (v6 ? 8 : 12), v6 ? 32 : 8);
	put16(tcp + 16, 0);
	put16(tcp + 16, ~sum_bytes(pseudo, tcp, tcp_len));
}

/* What some middleboxes do to a SYN: options that they do not like become no-operations. */
static void strip_options(const struct host *h, uint8_t *frame, size_t len)
{
	unsigned type;
	uint8_t *ip = host_packet(frame, &type), *tcp = ip + (type == 0x86dd ? 40 : 20);
	bool is_tcp = (type == 0x0800 && ip[9] == 6) || (type == 0x86dd && ip[6] == 6);
	if (len < 54 || !is_tcp || (tcp[13] & 2) == 0)
		return;
	uint8_t *end = tcp + (tcp[12] >> 4) * 4;
	for (uint8_t *p = tcp + 20; p < end && *p != 0;) {
		if (*p == 1) {
			p++;
			continue;
		}
		uint8_t kind = p[0], size = p[1];
		if ((kind == 8 && h->strip_timestamps) || (kind == 3 && h->strip_wscale) || (kind == 2 && h->strip_mss))
			memset(p, 1, size);
		p += size;
	}
	fill_tcp_cksum(ip, len - (size_t)(tcp - frame), false);
}

/* A router with a long queue: RFC 3168 5. */
static void mark_congestion(uint8_t *frame)
{
	unsigned type;
	uint8_t *ip = host_packet(frame, &type);
	if (type == 0x0800 && (ip[1] & 3) != 0) {
		ip[1] |= 3;
		put16(ip + 10, 0);
		put16(ip + 10, ~sum_bytes(0, ip, 20));
	} else if (type == 0x86dd && (ip[1] & 0x30) != 0) {
		ip[1] |= 0x30;
	}
}

static uint64_t sum_chain(const struct host_chain *c)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < c->count; i++)
		for (uint32_t k = 0; k < c->pieces[i].len; k++)
			sum = sum * 31 + c->pieces[i].data[k];
	return sum;
}

/* The oldest frame of the ring has been sent: nobody may have touched its bytes, and its holds end. */
static void ring_pop(struct host *h)
{
	struct host_chain *c = &h->ring[h->ring_first];
	if (sum_chain(c) != c->sum) {
		fprintf(stderr, "Bail out! bytes of a reference changed while a frame held them\n");
		abort();
	}
	for (unsigned i = 0; i < c->count; i++)
		h->release(h, c->pieces[i].owner);
	h->ring_first = (h->ring_first + 1) % HOST_RING_MAX;
	h->ring_count--;
}

void host_drain(struct host *h)
{
	while (h->ring_count > 0)
		ring_pop(h);
}

/* As a driver does when it is given the next frame. */
static void ring_clean(struct host *h)
{
	while (h->ring_count > 0 && (h->ring[h->ring_first].until_ns <= h->now_ns || h->ring_count > h->ring_max))
		ring_pop(h);
}

static uint8_t *tx_alloc(void *ctx, size_t len, void **handle)
{
	struct host *h = ctx;
	ring_clean(h);
	if (h->frame_out || len + 4 > sizeof(h->frame)) {
		fprintf(stderr, "Bail out! a second frame was allocated before the first was sent\n");
		abort();
	}
	if (h->now_ns < h->starved_until_ns || net_chance(h->net, h->starve_chance)) {
		h->frames_refused++;
		return NULL;
	}
	h->frame_out = true;
	memset(h->frame, 0xa5, len); /* nothing may rely on a frame being zero */
	*handle = h->frame;
	return h->frame;
}

/* No dice of the net's: a world runs alike with pieces and without. */
static uint8_t *tx_chain(void *ctx, size_t len, const struct tcps_piece *pieces, unsigned count, void **handle)
{
	struct host *h = ctx;
	size_t all = len;
	for (unsigned i = 0; i < count; i++)
		all += pieces[i].len;
	ring_clean(h);
	if (h->ring_count == HOST_RING_MAX || (h->chain_refuse != 0 && ++h->chain_tries % h->chain_refuse == 0)) {
		h->chains_refused++;
		return NULL;
	}
	uint8_t *f = tx_alloc(ctx, all, handle);
	if (f == NULL)
		return NULL;
	h->chains++;
	h->chain_out = true;
	h->chain.count = count;
	memcpy(h->chain.pieces, pieces, count * sizeof(pieces[0]));
	return f;
}

/* Gathers a chain as the wire does, and keeps its pieces. */
static void ring_push(struct host *h, uint8_t *frame, size_t len)
{
	struct host_chain *c = &h->chain;
	size_t at = len;
	h->chain_out = false;
	for (unsigned i = c->count; i-- > 0; memcpy(frame + at, c->pieces[i].data, c->pieces[i].len))
		at -= c->pieces[i].len;
	c->sum = sum_chain(c);
	c->until_ns = h->now_ns + h->ring_hold_ns;
	h->ring[(h->ring_first + h->ring_count++) % HOST_RING_MAX] = *c;
}

/* What a port that cuts frames does: each piece has the header, its own numbers, and the end flags only at the end. */
static void tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta);
static void cut(struct host *h, const uint8_t *frame, size_t len, const struct tcps_tx_meta *meta)
{
	size_t ip_at = meta->l2_len, tcp_at = ip_at + meta->l3_len, head = tcp_at + meta->l4_len, payload = len - head;
	struct tcps_tx_meta piece = *meta;
	uint8_t *one = malloc(head + meta->tso_mss + 4);
	if (one == NULL)
		abort();
	piece.tso_mss = 0;
	for (size_t at = 0; at < payload; at += meta->tso_mss) {
		size_t n = payload - at < meta->tso_mss ? payload - at : meta->tso_mss, tcp_len = meta->l4_len + n;
		bool last = at + n == payload;
		memcpy(one, frame, head);
		memcpy(one + head, frame + head + at, n);
		uint8_t *tcp = one + tcp_at;
		uint32_t seq = ((uint32_t)tcp[4] << 24 | (uint32_t)tcp[5] << 16 | (uint32_t)tcp[6] << 8 | tcp[7]) + (uint32_t)at;
		put16(tcp + 4, seq >> 16);
		put16(tcp + 6, seq);
		if (!last)
			tcp[13] &= (uint8_t)~9u; /* FIN, PSH */
		if (at != 0)
			tcp[13] &= (uint8_t)~0x80u; /* CWR: RFC 3168 is for the first */
		if (meta->ipv6)
			put16(one + ip_at + 4, (uint32_t)tcp_len);
		else
			put16(one + ip_at + 2, (uint32_t)(20 + tcp_len));
		uint32_t pseudo = ((uint32_t)tcp[16] << 8 | tcp[17]) + (uint32_t)tcp_len; /* the stack left the length out */
		put16(tcp + 16, (pseudo & 0xffff) + (pseudo >> 16));
		h->frame_out = true;
		tx_send(h, one, head + n, &piece);
	}
	free(one);
}

static void tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct host *h = ctx;
	uint8_t *frame = handle;
	h->frame_out = false;
	if (h->chain_out)
		ring_push(h, frame, len);
	if (meta->tso_mss != 0) {
		cut(h, frame, len, meta);
		return;
	}
	if (meta->vlan_insert) { /* as hardware does, behind the addresses */
		memmove(frame + 16, frame + 12, len - 12);
		put16(frame + 12, 0x8100);
		put16(frame + 14, meta->vlan_tci);
		len += 4;
	}
	unsigned type;
	uint8_t *ip = host_packet(frame, &type);
	if (meta->ip_cksum) {
		put16(ip + 10, 0);
		put16(ip + 10, ~sum_bytes(0, ip, 20));
	}
	if (meta->tcp_cksum)
		fill_tcp_cksum(ip, len - (size_t)(ip - frame) - meta->l3_len, true);
	if (h->strip_timestamps || h->strip_wscale || h->strip_mss)
		strip_options(h, frame, len);
	if (net_chance(h->net, h->mark_chance))
		mark_congestion(frame);
	net_send(h->net, h->side, frame, len, h->now_ns);
}

void host_init(struct host *h, struct net *net, unsigned side, const struct tcps_config *cfg, const struct tcps_ops *app_ops,
	       uint64_t now_ns)
{
	*h = (struct host){.net = net, .side = side, .now_ns = now_ns};
	size_t bytes = tcps_mem_bytes(cfg);
	h->mem = aligned_alloc(64, bytes);
	if (h->mem == NULL)
		abort();
	memset(h->mem, 0, bytes);
	struct tcps_ops ops = *app_ops;
	ops.tx_alloc = tx_alloc;
	ops.tx_send = tx_send;
	ops.tx_chain = tx_chain;
	h->release = app_ops->release;
	h->ring_max = HOST_RING_MAX;
	h->t = tcps_init(h->mem, bytes, cfg, &ops, h, now_ns);
	if (h->t == NULL) {
		fprintf(stderr, "Bail out! tcps_init refused the configuration\n");
		abort();
	}
}

void host_fini(struct host *h)
{
	host_drain(h);
	free(h->mem);
	h->mem = NULL;
}

void host_input(struct host *h, const uint8_t *frame, size_t len)
{
	bool strip = h->strip_tag && len >= 18 && frame[12] == 0x81 && frame[13] == 0;
	size_t exact_len = strip ? len - 4 : len;
	uint8_t *exact = malloc(exact_len); /* so that a sanitizer sees a read beyond the frame */
	uint32_t rx_flags = 0;
	if (exact == NULL)
		abort();
	if (strip) {
		memcpy(exact, frame, 12);
		memcpy(exact + 12, frame + 16, len - 16);
		rx_flags = TCPS_RX_VLAN(frame[14] << 8 | frame[15]);
	} else {
		memcpy(exact, frame, len);
	}
	tcps_input(h->t, exact, exact_len, rx_flags, h->now_ns);
	free(exact);
}
