/*
 * time_wait.c - what remains of a connection for two maximum segment lifetimes.
 *
 * Owns: the TIME_WAIT records of a stack; the oldest is forgotten when they run out.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.6.1 and 3.10.7.4, RFC 6191 (reuse), RFC 1337 (resets are ignored).
 */
#include "tcpstack/internal.h"

void tcps_time_wait_new(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	bool recycled;
	struct tcps_peer peer;
	tcps_conn_peer(c, &peer);
	struct tcps_mini *m = tcps_mini_new(t, &t->time_wait, &peer, &recycled);
	if (recycled)
		TCPS_COUNT(t, time_wait_recycled);
	m->snd_seq = c->snd_max;
	m->rcv_seq = c->rcv_nxt;
	m->has_ts = (c->flags & CF_TS) != 0;
	m->ts_recent = c->ts_recent;
	m->ts_offset = c->ts_offset;
	tcps_wheel_set(&t->wheel, &m->timer, t->now_ns + 2 * t->cfg.msl_ns);
}

void tcps_time_wait_timer(struct tcps *t, struct tcps_timer *timer)
{
	tcps_mini_free(t, &t->time_wait, (struct tcps_mini *)timer); /* its first member */
}

static void ack_again(struct tcps *t, const struct tcps_mini *m, const struct tcps_seg *s)
{
	uint8_t opts[TCP_OPT_TS_LEN];
	put_be32(opts, TCP_OPT_TS_WORD);
	put_be32(opts + 4, tcps_ts_now(t, m->ts_offset));
	put_be32(opts + 8, m->ts_recent);
	const struct tcps_reply r = {.peer = &m->peer,
				     .seq = m->snd_seq,
				     .ack = m->rcv_seq,
				     .wnd = 0xffff,
				     .flags = TCP_ACK,
				     .opts = opts,
				     .opts_len = m->has_ts ? TCP_OPT_TS_LEN : 0,
				     .mac = s->frame + 6};
	tcps_reply(t, &r);
}

/* RFC 6191 2: a later timestamp, or where none is to be had a later sequence number, cannot be an old duplicate. */
static bool may_reuse(const struct tcps_mini *m, const struct tcps_seg *s)
{
	if (m->has_ts && s->has_ts && s->ts_val != m->ts_recent)
		return seq_gt(s->ts_val, m->ts_recent);
	return seq_gt(s->seq, m->rcv_seq);
}

void tcps_time_wait_input(struct tcps *t, struct tcps_mini *m, const struct tcps_seg *s)
{
	if (s->flags & TCP_RST) {
		TCPS_COUNT(t, resets_ignored);
		return;
	}
	uint8_t ports[4];
	put_raw32(ports, s->peer.ports_raw);
	uint16_t port = get_be16(ports + 2);
	bool listening = (t->listening[port / 64] & 1ull << (port % 64)) != 0;
	if ((s->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && listening && may_reuse(m, s)) {
		/* Clear of every number that the old connection may still have on the way: a window of 64 KiB. */
		uint32_t floor = m->snd_seq + 0x10000;
		TCPS_COUNT(t, time_wait_reused);
		tcps_mini_free(t, &t->time_wait, m);
		tcps_syn_input(t, s, floor, true);
		return;
	}
	if ((s->flags & (TCP_SYN | TCP_ACK)) == 0) {
		TCPS_COUNT(t, drop_no_ack); /* RFC 9293 3.10.7.4, fifth step */
		return;
	}
	/* What takes no sequence space needs no answer; so two ends in TIME_WAIT never answer each other for ever. */
	if (s->len == 0 && (s->flags & (TCP_SYN | TCP_FIN)) == 0)
		return;
	if (s->flags & TCP_FIN)
		tcps_wheel_set(&t->wheel, &m->timer, t->now_ns + 2 * t->cfg.msl_ns);
	ack_again(t, m, s);
}
