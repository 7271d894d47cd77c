/*
 * half_open.c - passive opens until the handshake is complete: the SYN cache.
 *
 * Owns: the half-open records of a stack. When they run out the SYN-ACKs are cookies, or where those are switched off the oldest
 *       makes room: an honest peer needs one round trip.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.10.7.2 and 3.10.7.4 for SYN-RECEIVED, RFC 4987 3.4, RFC 5961 3 and 4.
 */
#include "tcpstack/internal.h"

#define ANSWERS_MAX 10u

static bool listening(const struct tcps *t, uint32_t ports_raw)
{
	uint8_t ports[4];
	put_raw32(ports, ports_raw);
	uint16_t port = get_be16(ports + 2);
	return (t->listening[port / 64] & 1ull << (port % 64)) != 0;
}

static uint32_t first_window(const struct tcps *t)
{
	return t->cfg.recv_window_bytes < 0xffff ? t->cfg.recv_window_bytes : 0xffff;
}

static void syn_ack_send(struct tcps *t, const struct tcps_mini *m, const uint8_t *mac)
{
	uint8_t opts[40];
	const struct tcps_syn_ask ask = {.v6 = m->peer.v6,
					 .wscale = m->has_wscale,
					 .ts = m->has_ts,
					 .sack = m->has_sack,
					 .ts_val = tcps_ts_now(t, m->ts_offset),
					 .ts_ecr = m->ts_recent};
	uint32_t opts_len = tcps_options_syn(t, opts, &ask);
	const struct tcps_reply r = {.peer = &m->peer,
				     .seq = m->snd_seq,
				     .ack = m->rcv_seq + 1,
				     .wnd = first_window(t),
				     .flags = (uint8_t)(TCP_SYN | TCP_ACK | (m->has_ecn ? TCP_ECE : 0u)), /* RFC 3168 6.1.1 */
				     .opts = opts,
				     .opts_len = opts_len,
				     .mac = mac};
	if (tcps_reply(t, &r))
		TCPS_COUNT(t, syn_acks_out);
}

static void note_syn(const struct tcps *t, struct tcps_mini *m, const struct tcps_seg *s, const struct tcps_syn_opts *o)
{
	tcps_isn(t, &s->peer, &m->snd_seq, &m->ts_offset);
	m->rcv_seq = s->seq;
	m->peer_mss = o->mss;
	m->has_wscale = o->has_wscale;
	m->snd_wscale = o->wscale;
	m->has_ts = o->has_ts;
	m->has_sack = o->has_sack && !t->cfg.no_sack;
	m->ts_recent = o->ts_val;
	m->has_ecn = t->cfg.ecn && (s->flags & (TCP_ECE | TCP_CWR)) == (TCP_ECE | TCP_CWR);
}

/* A SYN for a port where something listens. `iss_floor`: our ISS must lie above it (RFC 6191, a reused TIME_WAIT). */
void tcps_syn_input(struct tcps *t, const struct tcps_seg *s, uint32_t iss_floor, bool has_floor)
{
	struct tcps_syn_opts o;
	if (!tcps_options_parse_syn(s, &o)) {
		TCPS_COUNT(t, drop_bad_tcp_options);
		return;
	}
	TCPS_COUNT(t, syns_in);
	/* Silence, not RST: the peer asks again, and by then a connection may be free. */
	if (t->conn_free_idx == TCPS_NIL) {
		TCPS_COUNT(t, drop_no_conn);
		return;
	}
	if (tcps_cookie_due(t)) {
		struct tcps_mini forgotten = {.peer = s->peer};
		note_syn(t, &forgotten, s, &o);
		tcps_cookie_make(t, &forgotten);
		TCPS_COUNT(t, cookies_out);
		syn_ack_send(t, &forgotten, s->frame + 6);
		return;
	}
	bool recycled;
	struct tcps_mini *m = tcps_mini_new(t, &t->half_open, &s->peer, &recycled);
	if (recycled)
		TCPS_COUNT(t, syn_cache_full);
	note_syn(t, m, s, &o);
	if (has_floor && !seq_gt(m->snd_seq, iss_floor))
		m->snd_seq = iss_floor + 1;
	tcps_wheel_set(&t->wheel, &m->timer, t->now_ns + TCPS_RTO_INITIAL_NS);
	syn_ack_send(t, m, s->frame + 6);
}

void tcps_half_open_timer(struct tcps *t, struct tcps_timer *timer)
{
	struct tcps_mini *m = (struct tcps_mini *)timer; /* its first member */
	uint32_t tries_max = t->cfg.retransmits_max < TCPS_SYN_TRIES_MAX ? t->cfg.retransmits_max : TCPS_SYN_TRIES_MAX;
	if (m->tries >= tries_max) {
		TCPS_COUNT(t, syn_cache_expired);
		tcps_mini_free(t, &t->half_open, m);
		return;
	}
	m->tries++;
	m->answers = 0;
	tcps_wheel_set(&t->wheel, &m->timer, t->now_ns + (TCPS_RTO_INITIAL_NS << m->tries));
	TCPS_COUNT(t, retransmits_syn);
	syn_ack_send(t, m, NULL);
}

/* RFC 5961 7: what does not fit, or comes again, is answered a few times between two firings of the timer. */
static void answer_again(struct tcps *t, struct tcps_mini *m, const struct tcps_seg *s)
{
	if (m->answers >= ANSWERS_MAX) {
		TCPS_COUNT(t, acks_limited);
		return;
	}
	m->answers++;
	syn_ack_send(t, m, s->frame + 6);
}

static void challenge(struct tcps *t, struct tcps_mini *m, const struct tcps_seg *s)
{
	/* The SYN-ACK again says all that a challenge ACK would, and it completes a handshake that lost the first. */
	TCPS_COUNT(t, challenge_acks);
	answer_again(t, m, s);
}

static struct tcps_conn *promote(struct tcps *t, const struct tcps_mini *m, const struct tcps_seg *s)
{
	struct tcps_conn *c = tcps_conn_new(t, &m->peer);
	if (c == NULL)
		return NULL;
	struct tcps_cold *cold = c->cold;
	cold->iss = m->snd_seq;
	cold->irs = m->rcv_seq;
	c->snd_una = c->snd_nxt = c->snd_max = m->snd_seq + 1;
	c->rcv_nxt = c->rx_head_seq = c->last_ack_sent = m->rcv_seq + 1;
	c->rcv_adv = c->rcv_nxt + first_window(t);
	if (m->has_wscale) {
		c->snd_wscale = m->snd_wscale & 0xfu;
		c->rcv_wscale = t->rcv_wscale & 0xfu;
	}
	if (m->has_ts)
		c->flags |= CF_TS;
	if (m->has_sack)
		c->flags |= CF_SACK;
	if (m->has_ecn)
		c->flags |= CF_ECN;
	cold->cc = tcps_listener_cc(t, m->peer.ports_raw);
	c->ts_recent = m->ts_recent;
	c->ts_offset = m->ts_offset;
	c->snd_wl1 = s->seq;
	tcps_window_changed(c, (uint32_t)s->wnd << c->snd_wscale);
	tcps_conn_mss(c, m->peer_mss);
	if (m->tries > 0) { /* RFC 6298 5.7, RFC 5681 3.1: the handshake was lossy */
		c->rto_us = 3000000;
		c->cwnd_bytes = c->mss;
	}
	tcps_conn_set_state(c, TCPS_SYN_RECEIVED);
	tcps_conn_established(c);
	tcps_neigh_seed(t, c->neigh_idx, s->frame + 6);
	return c;
}

/* `cached`: the record is the cache's, and not needed any more once there is a connection. */
static bool admit(struct tcps *t, struct tcps_mini *m, bool cached, struct tcps_seg *s, struct tcps_conn **done)
{
	struct tcps_conn *c = listening(t, m->peer.ports_raw) ? promote(t, m, s) : NULL;
	if (c == NULL) {
		/* Never RST after SYN-ACK: the peer believes it is connected and will say so again. */
		TCPS_COUNT(t, drop_no_conn);
		return true;
	}
	if (cached)
		tcps_mini_free(t, &t->half_open, m);
	struct tcps_endpoint local, peer;
	tcps_endpoints(c, &local, &peer);
	bool was_busy = tcps_conn_enter(c);
	c->user = t->ops.on_accept(t->ctx, c, &peer, local.port);
	if ((c->flags & CF_DEAD) == 0 && c->user == NULL) {
		TCPS_COUNT(t, accept_refused);
		tcps_abort(c);
	} else if ((c->flags & CF_DEAD) == 0) {
		TCPS_COUNT(t, accepted);
		c->flags |= CF_OWNED;
	}
	*done = (c->flags & CF_DEAD) == 0 ? c : NULL;
	tcps_conn_leave(c, was_busy);
	return *done == NULL;
}

bool tcps_half_open_input(struct tcps *t, struct tcps_mini *m, struct tcps_seg *s, struct tcps_conn **done)
{
	uint32_t rcv_nxt = m->rcv_seq + 1;
	/* Right at the edge counts, too, as for a connection: a peer that has filled our window says so there. */
	bool in_window = s->seq - rcv_nxt <= first_window(t);
	*done = NULL;
	if (s->flags & TCP_RST) {
		if (s->seq == rcv_nxt) {
			TCPS_COUNT(t, resets_in);
			tcps_mini_free(t, &t->half_open, m);
		} else if (in_window) {
			challenge(t, m, s);
		} else {
			TCPS_COUNT(t, resets_ignored);
		}
		return true;
	}
	if (s->flags & TCP_SYN) {
		if (s->seq == m->rcv_seq && (s->flags & TCP_ACK) == 0)
			answer_again(t, m, s); /* it did not see our answer */
		else
			challenge(t, m, s);
		return true;
	}
	if ((s->flags & TCP_ACK) == 0) {
		TCPS_COUNT(t, drop_no_ack);
		return true;
	}
	if (s->ack != m->snd_seq + 1) {
		TCPS_COUNT(t, drop_bad_handshake_ack);
		tcps_reset_reply(t, s);
		return true;
	}
	if (!in_window || (m->has_ts && s->has_ts && seq_lt(s->ts_val, m->ts_recent))) {
		challenge(t, m, s);
		return true;
	}
	return admit(t, m, true, s, done);
}

bool tcps_cookie_input(struct tcps *t, struct tcps_seg *s, struct tcps_conn **done)
{
	struct tcps_mini m;
	*done = NULL;
	if (!tcps_cookie_check(t, s, &m))
		return false;
	admit(t, &m, false, s, done);
	return true;
}
