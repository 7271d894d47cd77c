/*
 * conn.c - connection blocks: table, life and death, and the calls of the owner that open, shut and abort.
 *
 * Owns: the connection table, the free list, the touched list; the only writer of `state` is tcps_conn_set_state().
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.10.1 (OPEN), 3.10.4 (CLOSE), 3.10.5 (ABORT), RFC 6056 (ports).
 */
#include "tcpstack/internal.h"

#include <assert.h>

#define EPHEMERAL_FIRST 49152u
#define EPHEMERAL_COUNT 16384u

static uint32_t *bucket_of(const struct tcps *t, const struct tcps_conn *c)
{
	return &t->buckets[tcps_hash_key(t, c->peer_key, c->ports_raw) & t->bucket_mask];
}

/* What may follow what: RFC 9293 figure 5, with the roads by which a connection is dropped left out (all lead to CLOSED). */
static const uint16_t state_next[TCPS_STATE_COUNT] = {
	[TCPS_CLOSED] = 1u << TCPS_SYN_SENT | 1u << TCPS_SYN_RECEIVED,
	[TCPS_SYN_SENT] = 1u << TCPS_SYN_RECEIVED | 1u << TCPS_ESTABLISHED,
	[TCPS_SYN_RECEIVED] = 1u << TCPS_ESTABLISHED,
	[TCPS_ESTABLISHED] = 1u << TCPS_FIN_WAIT_1 | 1u << TCPS_CLOSE_WAIT,
	[TCPS_FIN_WAIT_1] = 1u << TCPS_FIN_WAIT_2 | 1u << TCPS_CLOSING,
	[TCPS_FIN_WAIT_2] = 1u << TCPS_TIME_WAIT,
	[TCPS_CLOSE_WAIT] = 1u << TCPS_LAST_ACK,
	[TCPS_CLOSING] = 1u << TCPS_TIME_WAIT,
	[TCPS_LAST_ACK] = 0,
	[TCPS_TIME_WAIT] = 0,
};

void tcps_conn_set_state(struct tcps_conn *c, enum tcps_state state)
{
	assert(state == TCPS_CLOSED || (state_next[c->state] & 1u << state) != 0);
	c->state = (uint8_t)state;
	c->plain_raw = 0;
	if (state == TCPS_ESTABLISHED) {
		uint32_t header_len = TCP_HLEN + ((c->flags & CF_TS) != 0 ? TCP_OPT_TS_LEN : 0);
		c->plain_raw = htobe16((uint16_t)(header_len << 10 | TCP_ACK));
	}
}

const char *tcps_state_name(unsigned state)
{
	static const char *const names[TCPS_STATE_COUNT] = {
		[TCPS_CLOSED] = "CLOSED",           [TCPS_SYN_SENT] = "SYN-SENT",     [TCPS_SYN_RECEIVED] = "SYN-RECEIVED",
		[TCPS_ESTABLISHED] = "ESTABLISHED", [TCPS_FIN_WAIT_1] = "FIN-WAIT-1", [TCPS_FIN_WAIT_2] = "FIN-WAIT-2",
		[TCPS_CLOSE_WAIT] = "CLOSE-WAIT",   [TCPS_CLOSING] = "CLOSING",       [TCPS_LAST_ACK] = "LAST-ACK",
		[TCPS_TIME_WAIT] = "TIME-WAIT"};
	return state < TCPS_STATE_COUNT ? names[state] : "?";
}

static void take_peer6(struct tcps_conn *c, const struct tcps_peer *peer)
{
	/* RFC 6437 3: a label that differs from flow to flow and tells nothing. */
	const uint64_t words[3] = {peer->key, peer->ports_raw, (uint64_t)23 << 56};
	uint32_t label = (uint32_t)tcps_siphash24(c->t->cfg.secret, words, 3) & 0xfffffu;
	c->cold->flow_raw = htobe32(6u << 28 | label);
	memcpy(c->cold->peer_addr, peer->addr, 16);
}

void tcps_conn_peer(const struct tcps_conn *c, struct tcps_peer *peer)
{
	*peer = (struct tcps_peer){.key = c->peer_key, .ports_raw = c->ports_raw, .v6 = c->own != OWN_V4, .own = c->own};
	if (peer->v6)
		memcpy(peer->addr, c->cold->peer_addr, 16);
	else
		put_raw32(peer->addr, c->peer_key);
}

struct tcps_conn *tcps_conn_find_peer(struct tcps *t, const struct tcps_peer *peer)
{
	struct tcps_conn *c = peer->v6 ? tcps_conn_find6(t, peer->addr, peer->ports_raw, peer->own)
				       : tcps_conn_find(t, peer->key, peer->ports_raw);
	return c == &t->nobody ? NULL : c;
}

/* Makes a block in state CLOSED, in the table. NULL: no block or no way to the peer. */
struct tcps_conn *tcps_conn_new(struct tcps *t, const struct tcps_peer *peer)
{
	uint32_t idx = t->conn_free_idx;
	if (idx == TCPS_NIL)
		return NULL;
	uint16_t neigh_idx = tcps_neigh_get(t, peer);
	if (neigh_idx == TCPS_NO_NEIGHBOUR)
		return NULL;
	struct tcps_conn *c = &t->conns[idx];
	struct tcps_cold *cold = &t->colds[idx];
	t->conn_free_idx = cold->hash_next_idx;
	t->conn_count++;
	*c = (struct tcps_conn){.t = t, .cold = cold, .own_idx = idx, .peer_key = peer->key, .ports_raw = peer->ports_raw};
	*cold = (struct tcps_cold){.rack.min_rtt_us = UINT32_MAX,
				   .sent_first_idx = TCPS_NIL,
				   .sent_last_idx = TCPS_NIL,
				   .part_block_idx = TCPS_NIL,
				   .rx_first_idx = TCPS_NIL,
				   .rx_last_idx = TCPS_NIL,
				   .rx_blocks_max = UINT32_MAX};
	c->timer.kind = TCPS_TIMER_CONN;
	c->neigh_idx = neigh_idx;
	c->addr_sum = tcps_peer_sum(t, peer);
	c->own = peer->own;
	if (peer->v6)
		take_peer6(c, peer);
	c->head_idx = c->tail_idx = c->cur_idx = TCPS_NIL;
	c->rexmt_deadline_ns = c->delack_deadline_ns = cold->keep_deadline_ns = TCPS_NEVER;
	c->rto_us = (uint32_t)(TCPS_RTO_INITIAL_NS / 1000);
	if (t->cfg.rto_max_ns < TCPS_RTO_INITIAL_NS)
		c->rto_us = (uint32_t)(t->cfg.rto_max_ns / 1000);
	c->last_rx_ms = tcps_coarse_ms(t->now_ns);
	cold->ssthresh_bytes = UINT32_MAX / 2;
	uint32_t *bucket = bucket_of(t, c);
	cold->hash_next_idx = *bucket;
	*bucket = idx;
	return c;
}

/* Closes the gaps that dead connections left. There are more places than connections, so room is found. */
void tcps_touched_squeeze(struct tcps *t)
{
	uint32_t kept = 0, flush_at = t->flush_at, flush_end = t->flush_end;
	for (uint32_t i = 0; i < t->touched_count; i++) {
		uint32_t idx = t->touched[i];
		t->flush_at = i == flush_at ? kept : t->flush_at;
		t->flush_end = i == flush_end ? kept : t->flush_end;
		if (idx == TCPS_NIL)
			continue;
		t->conns[idx].touched_at = kept;
		t->touched[kept++] = idx;
	}
	t->flush_at = flush_at >= t->touched_count ? kept : t->flush_at;
	t->flush_end = flush_end >= t->touched_count ? kept : t->flush_end;
	t->touched_count = kept;
}

void tcps_conn_slot_free(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	c->flags = 0;
	c->cold->hash_next_idx = t->conn_free_idx;
	t->conn_free_idx = c->own_idx;
	t->conn_count--;
}

static void count_close(struct tcps *t, enum tcps_reason reason)
{
	static const enum tcps_counter by_reason[] = {
		[TCPS_CLOSED_NORMALLY] = TCPS_CNT_closed_normally,      [TCPS_CLOSED_RESET] = TCPS_CNT_closed_reset,
		[TCPS_CLOSED_TIMEOUT] = TCPS_CNT_closed_timeout,        [TCPS_CLOSED_ABORTED] = TCPS_CNT_closed_aborted,
		[TCPS_CLOSED_REFUSED] = TCPS_CNT_closed_refused,        [TCPS_CLOSED_NO_BUFFERS] = TCPS_CNT_closed_no_buffers,
		[TCPS_CLOSED_UNREACHABLE] = TCPS_CNT_closed_unreachable};
	t->counters[by_reason[reason]]++;
}

static void table_remove(struct tcps *t, struct tcps_conn *c)
{
	uint32_t idx = c->own_idx;
	uint32_t *link = bucket_of(t, c);
	while (*link != idx)
		link = &t->colds[*link].hash_next_idx;
	*link = c->cold->hash_next_idx;
	uint32_t *recent = tcps_recent(t, c->peer_key, c->ports_raw);
	if (*recent == idx)
		*recent = TCPS_NIL;
	if (t->last_found == c)
		t->last_found = &t->nobody;
	if (t->last_found6 == c)
		t->last_found6 = NULL;
}

/* Gives everything back and tells the owner. The block itself outlives on_closed() and whoever is busy with it. */
void tcps_conn_close(struct tcps_conn *c, enum tcps_reason reason)
{
	struct tcps *t = c->t;
	assert((c->flags & CF_DEAD) == 0);
	/* RFC 1122 4.2.3.9: an attempt that ran out of time is told why, if anybody knew. */
	if (reason == TCPS_CLOSED_TIMEOUT && c->state == TCPS_SYN_SENT && c->cold->soft_error != 0)
		reason = TCPS_CLOSED_UNREACHABLE;
	bool was_busy = tcps_conn_enter(c);
	tcps_conn_set_state(c, TCPS_CLOSED);
	table_remove(t, c);
	tcps_untouch(c);
	tcps_wheel_del(&t->wheel, &c->timer);
	if (c->flags & CF_NO_NEIGH)
		t->neighs[c->neigh_idx].waiter_count--;
	c->flags = (c->flags & ~CF_NO_NEIGH) | CF_DEAD;
	tcps_neigh_put(t, c->neigh_idx);
	tcps_send_free(c);
	tcps_sent_drop(c);
	tcps_recv_free(c);
	count_close(t, reason);
	if (c->flags & CF_OWNED)
		t->ops.on_closed(c->user, reason);
	tcps_conn_leave(c, was_busy);
}

void tcps_conn_done(struct tcps_conn *c)
{
	bool all_read = (c->flags & CF_EOF_TOLD) != 0;
	if (!all_read) {
		/* The reader has stopped: what it has not seen yet must outlive the connection. */
		c->flags |= CF_FINISHED;
		c->rexmt_deadline_ns = TCPS_NEVER;
		c->cold->keep_deadline_ns = TCPS_NEVER;
		return;
	}
	if (c->state == TCPS_TIME_WAIT)
		tcps_time_wait_new(c);
	tcps_conn_close(c, TCPS_CLOSED_NORMALLY);
}

/* RFC 9293 3.7.1: the smaller of both sides' limits and of the path's, less the options that every segment carries. */
static uint16_t effective_mss(const struct tcps_conn *c)
{
	const struct tcps *t = c->t;
	struct tcps_peer peer;
	tcps_conn_peer(c, &peer);
	uint32_t headers = (peer.v6 ? IPV6_HLEN : IPV4_HLEN) + TCP_HLEN, path = tcps_pmtu_of(t, peer.v6, peer.addr) - headers;
	uint32_t mss = peer.v6 ? t->mss_local6 : t->mss_local;
	mss = mss < path ? mss : path;
	mss = mss < c->cold->peer_mss ? mss : c->cold->peer_mss;
	if (mss < TCPS_MSS_FLOOR)
		mss = TCPS_MSS_FLOOR;
	return (uint16_t)((c->flags & CF_TS) != 0 ? mss - TCP_OPT_TS_LEN : mss);
}

void tcps_conn_mss(struct tcps_conn *c, uint16_t peer_mss)
{
	c->cold->peer_mss = peer_mss;
	c->mss = effective_mss(c);
	/* RFC 6928: IW10. */
	uint32_t mss = c->mss, floor = 2 * mss > 14600 ? 2 * mss : 14600;
	c->cwnd_bytes = 10 * mss < floor ? 10 * mss : floor;
}

void tcps_conn_pmtu(struct tcps_conn *c)
{
	uint16_t before = c->mss;
	c->mss = effective_mss(c);
	if (c->mss >= before || c->state < TCPS_ESTABLISHED || c->snd_max == c->snd_una)
		return;
	/*
	 * RFC 1191 6.5: what is outstanding was too large and is lost, but nothing is congested: it goes out again at once, cut
	 * anew, with the congestion window as it is. Small segments among it may arrive twice, which D-SACK makes harmless.
	 */
	tcps_send_sync(c);
	tcps_sent_settle(c);
	tcps_sent_all_lost(c);
	tcps_touch(c);
}

void tcps_conn_established(struct tcps_conn *c)
{
	tcps_conn_set_state(c, TCPS_ESTABLISHED);
	c->cold->rexmt_count = 0;
	c->rexmt_deadline_ns = TCPS_NEVER;
	c->cold->ecn_seq = c->cold->iss;
	c->cold->recover_seq = c->cold->iss - 1; /* so that the loss of the very first segment counts, too */
	if (c->t->cfg.keepalive_ns != 0)
		tcps_keepalive_start(c);
}

bool tcps_listen_cc(struct tcps *t, uint16_t port, enum tcps_cc cc)
{
	uint64_t bit = 1ull << (port % 64);
	if (port == 0 || (t->listening[port / 64] & bit) != 0 || t->listener_count == t->cfg.listeners_max)
		return false;
	t->listening[port / 64] |= bit;
	t->listening_newreno[port / 64] &= ~bit;
	t->listening_newreno[port / 64] |= cc == TCPS_CC_NEWRENO ? bit : 0;
	t->listener_count++;
	return true;
}

bool tcps_listen(struct tcps *t, uint16_t port)
{
	return tcps_listen_cc(t, port, t->cfg.cc);
}

uint8_t tcps_listener_cc(const struct tcps *t, uint32_t ports_raw)
{
	uint8_t ports[4];
	put_raw32(ports, ports_raw);
	uint16_t port = get_be16(ports + 2);
	return (t->listening_newreno[port / 64] & 1ull << (port % 64)) != 0 ? TCPS_CC_NEWRENO : TCPS_CC_CUBIC;
}

bool tcps_unlisten(struct tcps *t, uint16_t port)
{
	uint64_t bit = 1ull << (port % 64);
	if ((t->listening[port / 64] & bit) == 0)
		return false;
	t->listening[port / 64] &= ~bit;
	t->listener_count--;
	return true;
}

static uint32_t ports_raw_of(uint16_t peer_port, uint16_t local_port)
{
	uint8_t bytes[4];
	put_be16(bytes, peer_port);
	put_be16(bytes + 2, local_port);
	return get_raw32(bytes);
}

static bool tuple_taken(struct tcps *t, const struct tcps_peer *peer)
{
	return tcps_conn_find_peer(t, peer) != NULL || tcps_mini_find(t, &t->time_wait, peer) != NULL ||
	       tcps_mini_find(t, &t->half_open, peer) != NULL;
}

/* RFC 6056 3.3.3: a secret offset per destination, then one step a connection. False: every port is taken. */
static bool pick_port(struct tcps *t, struct tcps_peer *peer, uint16_t peer_port)
{
	uint32_t offset = (uint32_t)tcps_hash_key(t, peer->key, peer_port);
	for (uint32_t i = 0; i < EPHEMERAL_COUNT; i++) {
		uint16_t port = (uint16_t)(EPHEMERAL_FIRST + (offset + t->next_ephemeral++) % EPHEMERAL_COUNT);
		bool listening = (t->listening[port / 64] & 1ull << (port % 64)) != 0;
		peer->ports_raw = ports_raw_of(peer_port, port);
		if (!listening && !tuple_taken(t, peer))
			return true;
	}
	return false;
}

/* Whom to call, and from which address: RFC 6724 5 rule 2, the scope decides. False: nobody can be called there. */
static bool read_endpoint(const struct tcps *t, const struct tcps_endpoint *to, struct tcps_peer *peer)
{
	const uint8_t *b = to->addr.bytes;
	if (to->addr.family == 4)
		tcps_peer4(peer, get_raw32(b), 0);
	else if (to->addr.family == 6)
		tcps_peer6(t, peer, b, 0, b[0] == 0xfe && (b[1] & 0xc0) == 0x80 ? OWN_LINK : OWN_GLOBAL);
	else
		return false;
	return to->port != 0 && t->own[peer->own].state == OWN_READY && !tcps_source_is_bad(t, peer);
}

struct tcps_conn *tcps_connect(struct tcps *t, const struct tcps_endpoint *to, uint16_t local_port, void *user, uint64_t now_ns)
{
	struct tcps_peer peer;
	tcps_clock(t, now_ns);
	if (!read_endpoint(t, to, &peer))
		return NULL;
	peer.ports_raw = ports_raw_of(to->port, local_port);
	if (local_port == 0 ? !pick_port(t, &peer, to->port) : tuple_taken(t, &peer))
		return NULL;
	struct tcps_conn *c = tcps_conn_new(t, &peer);
	if (c == NULL)
		return NULL;
	c->user = user;
	c->flags |= CF_ACTIVE | CF_OWNED;
	tcps_isn(t, &peer, &c->cold->iss, &c->ts_offset);
	c->snd_una = c->snd_nxt = c->snd_max = c->cold->iss;
	c->rcv_wscale = t->rcv_wscale & 0xfu;
	c->cold->cc = t->cfg.cc;
	tcps_conn_mss(c, peer.v6 ? TCP_MSS_DEFAULT6 : TCP_MSS_DEFAULT);
	tcps_conn_set_state(c, TCPS_SYN_SENT);
	TCPS_COUNT(t, connects);
	tcps_arm_rexmt(c, tcps_rto_ns(c));
	tcps_touch(c);
	return c;
}

void tcps_shutdown(struct tcps_conn *c)
{
	if (c->flags & (CF_FIN_QUEUED | CF_DEAD))
		return;
	tcps_send_sync(c);
	c->flags |= CF_FIN_QUEUED;
	c->tail_room = 0;
	/* Before ESTABLISHED the FIN waits for the handshake; tcps_segment() then makes the change. */
	if (c->state == TCPS_ESTABLISHED)
		tcps_conn_set_state(c, TCPS_FIN_WAIT_1);
	else if (c->state == TCPS_CLOSE_WAIT)
		tcps_conn_set_state(c, TCPS_LAST_ACK);
	tcps_touch(c);
}

void tcps_abort(struct tcps_conn *c)
{
	if (c->flags & CF_DEAD)
		return;
	/* RFC 9293 3.10.5: RST from SYN-RECEIVED on, until both sides are done. */
	if (c->state != TCPS_SYN_SENT && c->state != TCPS_TIME_WAIT && (c->flags & CF_FINISHED) == 0) {
		tcps_send_sync(c);
		tcps_emit(c, c->snd_max, NULL, 0, TCP_RST | TCP_ACK);
	}
	tcps_conn_close(c, TCPS_CLOSED_ABORTED);
}

void *tcps_user(const struct tcps_conn *c)
{
	return c->user;
}

void tcps_endpoints(const struct tcps_conn *c, struct tcps_endpoint *local, struct tcps_endpoint *peer)
{
	uint8_t ports[4];
	struct tcps_peer p;
	tcps_conn_peer(c, &p);
	put_raw32(ports, c->ports_raw);
	*local = (struct tcps_endpoint){.addr.family = p.v6 ? 6 : 4, .port = get_be16(ports + 2)};
	*peer = (struct tcps_endpoint){.addr.family = p.v6 ? 6 : 4, .port = get_be16(ports)};
	memcpy(local->addr.bytes, c->t->own[p.own].addr, 16);
	memcpy(peer->addr.bytes, p.addr, 16);
}
