/*
 * tcp_segment.c - SEGMENT ARRIVES: the general path, in the order of the specification.
 *
 * Owns: the transitions of a connection that an arriving segment causes.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.10.7.3 and 3.10.7.4, RFC 5961, RFC 7323 5.
 */
#include "tcpstack/internal.h"

#define PAWS_IDLE_MS (24u * 86400u * 1000u) /* RFC 7323 5.5: older than that, ts_recent means nothing */

static void ack_now(struct tcps_conn *c)
{
	c->flags |= CF_ACK_NOW;
	tcps_touch(c);
}

static void challenge(struct tcps_conn *c)
{
	if (!tcps_ack_allowed(c))
		return;
	TCPS_COUNT(c->t, challenge_acks);
	ack_now(c);
}

/* The handshake is through: what the owner asked for meanwhile takes effect. */
static void opened(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	tcps_conn_established(c);
	if (c->flags & CF_FIN_QUEUED)
		tcps_conn_set_state(c, TCPS_FIN_WAIT_1);
	TCPS_COUNT(t, connected);
	tcps_touch(c);
	if (c->flags & CF_OWNED)
		t->ops.on_connected(c->user);
}

static void take_peer_options(struct tcps_conn *c, const struct tcps_seg *s, const struct tcps_syn_opts *o)
{
	struct tcps *t = c->t;
	c->cold->irs = s->seq;
	c->rcv_nxt = c->rx_head_seq = c->last_ack_sent = s->seq + 1;
	c->rcv_adv = c->rcv_nxt + (t->cfg.recv_window_bytes < 0xffff ? t->cfg.recv_window_bytes : 0xffff);
	c->snd_wscale = o->has_wscale ? o->wscale & 0xfu : 0u;
	c->rcv_wscale = o->has_wscale ? t->rcv_wscale & 0xfu : 0u;
	if (o->has_ts) {
		c->flags |= CF_TS;
		c->ts_recent = o->ts_val;
	}
	if (o->has_sack && !t->cfg.no_sack)
		c->flags |= CF_SACK;
	/* RFC 3168 6.1.1: a SYN says both, its answer ECE alone. A SYN that was sent again did not ask. */
	uint32_t says = s->flags & (TCP_ECE | TCP_CWR), means = (s->flags & TCP_ACK) != 0 ? TCP_ECE : TCP_ECE | TCP_CWR;
	if (t->cfg.ecn && says == means && c->cold->rexmt_count == 0)
		c->flags |= CF_ECN;
	tcps_conn_mss(c, o->mss);
	if (c->cold->rexmt_count > 0)
		c->cwnd_bytes = c->mss; /* RFC 5681 3.1: the SYN was lost */
	c->snd_wl1 = s->seq;
	tcps_window_changed(c, s->wnd); /* RFC 7323 2.2: never scaled in a SYN */
}

/* RFC 9293 3.10.7.3. */
static void in_syn_sent(struct tcps_conn *c, const struct tcps_seg *s)
{
	struct tcps *t = c->t;
	bool ack = (s->flags & TCP_ACK) != 0;
	if (ack && (seq_le(s->ack, c->cold->iss) || seq_gt(s->ack, c->snd_max))) {
		TCPS_COUNT(t, ack_too_new);
		tcps_reset_reply(t, s);
		return;
	}
	if (s->flags & TCP_RST) {
		TCPS_COUNT_ADD(t, resets_in, ack);
		TCPS_COUNT_ADD(t, resets_ignored, !ack);
		if (ack)
			tcps_conn_close(c, TCPS_CLOSED_REFUSED);
		return;
	}
	struct tcps_syn_opts o;
	if ((s->flags & TCP_SYN) == 0)
		return;
	if (!tcps_options_parse_syn(s, &o)) {
		TCPS_COUNT(t, drop_bad_tcp_options);
		return;
	}
	/* Text of a SYN is not looked at; the peer sends it again behind the handshake. */
	take_peer_options(c, s, &o);
	tcps_neigh_seed(t, c->neigh_idx, s->frame + 6);
	if (!ack) {
		TCPS_COUNT(t, simultaneous_opens);
		tcps_conn_set_state(c, TCPS_SYN_RECEIVED);
		c->snd_nxt = c->cold->iss;
		tcps_touch(c);
		return;
	}
	tcps_measure_syn(c, o.has_ts ? o.ts_ecr : 0);
	c->snd_una = c->snd_nxt = s->ack; /* a SYN about to be resent is not any more */
	ack_now(c);
	opened(c);
}

/* RFC 2883: all of it had arrived before. What is older than a window is none of the peer's latest doings. */
static void all_duplicate(struct tcps_conn *c, const struct tcps_seg *s)
{
	if (s->len != 0 && seq_le(s->seq + s->len, c->rcv_nxt) && c->rcv_nxt - s->seq <= c->t->cfg.recv_window_bytes)
		tcps_sack_duplicate(c, s->seq, s->seq + s->len);
}

/* No more than others of the same time-out have overtaken it; Linux looks at such, too. Only what it tells of duplicates is used.
 */
static bool overtaken_ack(const struct tcps_conn *c, const struct tcps_seg *s)
{
	return s->len == 0 && (s->flags & (TCP_ACK | TCP_SYN | TCP_FIN)) == TCP_ACK && tcps_seg_may_sack(s) &&
	       (c->flags & CF_SACK) != 0 && c->state >= TCPS_ESTABLISHED && s->seq == c->rcv_nxt && seq_le(s->ack, c->snd_una) &&
	       c->snd_una - s->ack <= c->cold->snd_wnd_max && c->ts_recent - s->ts_val <= tcps_rto_us(c) / 1000;
}

/* RFC 7323 5.3 R1. Returns true when the segment must go. */
static bool paws_refuses(struct tcps_conn *c, const struct tcps_seg *s)
{
	struct tcps *t = c->t;
	if ((c->flags & CF_TS) == 0 || (s->flags & TCP_RST) != 0)
		return false;
	if (!s->has_ts) {
		/* Spec says a segment that lacks the option SHOULD be dropped / we take it, as Linux does: sequence
		 * numbers still guard it, and a middlebox that strips options must not stall a connection. */
		TCPS_COUNT(t, no_timestamp);
		return false;
	}
	if (!seq_lt(s->ts_val, c->ts_recent) || tcps_coarse_ms(t->now_ns) - c->last_rx_ms > PAWS_IDLE_MS)
		return false;
	TCPS_COUNT(t, paws);
	if (overtaken_ack(c, s)) {
		tcps_acked_late(c, s);
		return true;
	}
	all_duplicate(c, s); /* an original behind its retransmission */
	if (s->len != 0 || (s->flags & (TCP_SYN | TCP_FIN)) != 0 || tcps_ack_allowed(c))
		ack_now(c);
	return true;
}

static uint32_t seq_space(const struct tcps_seg *s)
{
	return s->len + ((s->flags & TCP_SYN) != 0) + ((s->flags & TCP_FIN) != 0);
}

/* The table of RFC 9293 3.10.7.4, first step. */
static bool in_window(const struct tcps_conn *c, const struct tcps_seg *s)
{
	uint32_t wnd = c->rcv_adv - c->rcv_nxt;
	uint32_t first = s->seq - c->rcv_nxt;
	uint32_t len = seq_space(s);
	/* Spec says below the right edge / an ACK right at it is taken too: a peer that filled our window sends those. */
	if (len == 0)
		return first <= wnd;
	return wnd != 0 && (first < wnd || first + len - 1 < wnd);
}

/* Out of the window: answered by an ACK, so that a peer whose ACK or window update was lost finds out. */
static void refuse(struct tcps_conn *c, const struct tcps_seg *s)
{
	struct tcps *t = c->t;
	if (s->flags & TCP_RST) {
		TCPS_COUNT(t, resets_ignored);
		return;
	}
	if (seq_le(s->seq + seq_space(s), c->rcv_nxt)) {
		TCPS_COUNT(t, duplicates);
		all_duplicate(c, s);
	} else {
		TCPS_COUNT(t, out_of_window);
	}
	if (s->flags & TCP_SYN)
		challenge(c);
	else if (s->len != 0 || (s->flags & TCP_FIN) != 0 || tcps_ack_allowed(c))
		ack_now(c);
}

/* Cuts what lies outside the window; what is left begins at rcv_nxt or after it. */
static void trim(struct tcps_conn *c, struct tcps_seg *s)
{
	if (seq_lt(s->seq, c->rcv_nxt)) {
		uint32_t cut = c->rcv_nxt - s->seq;
		if (cut > s->len)
			cut = s->len;
		if (cut != 0) {
			tcps_sack_duplicate(c, s->seq, s->seq + cut);
			ack_now(c);
		}
		s->data += cut;
		s->len -= cut;
		s->seq = c->rcv_nxt;
	}
	uint32_t room = c->rcv_adv - s->seq;
	if (s->len > room) {
		s->len = room;
		s->flags &= (uint8_t)~TCP_FIN;
		ack_now(c);
	}
}

/* RFC 5961 3.2: only a RST with exactly the expected number resets. */
static void reset_arrived(struct tcps_conn *c, const struct tcps_seg *s)
{
	if (c->flags & CF_FINISHED) {
		/* As in a TIME_WAIT record (RFC 1337): the streams are whole, and the reader has not seen the end of one. */
		TCPS_COUNT(c->t, resets_ignored);
		return;
	}
	if (s->seq != c->rcv_nxt) {
		TCPS_COUNT(c->t, resets_ignored);
		challenge(c);
		return;
	}
	TCPS_COUNT(c->t, resets_in);
	tcps_conn_close(c, c->state == TCPS_SYN_RECEIVED ? TCPS_CLOSED_REFUSED : TCPS_CLOSED_RESET);
}

/* Simultaneous open, RFC 9293 figure 7: our SYN is acknowledged. Returns false when it is not. */
static bool in_syn_received(struct tcps_conn *c, const struct tcps_seg *s)
{
	if (s->ack != c->cold->iss + 1 || c->snd_max == c->cold->iss) {
		TCPS_COUNT(c->t, drop_bad_handshake_ack);
		tcps_reset_reply(c->t, s);
		return false;
	}
	tcps_measure_syn(c, s->has_ts ? s->ts_ecr : 0);
	c->snd_una = c->snd_nxt = s->ack;
	c->snd_wl1 = s->seq;
	if ((s->flags & TCP_SYN) == 0)
		tcps_window_changed(c, (uint32_t)s->wnd << c->snd_wscale);
	opened(c);
	return (c->flags & CF_DEAD) == 0;
}

/* The fifth step: the ACK field. Returns false when the segment goes no further. */
static bool ack_field(struct tcps_conn *c, const struct tcps_seg *s, bool had_fin)
{
	struct tcps *t = c->t;
	if (seq_gt(s->ack, c->snd_max)) {
		TCPS_COUNT(t, ack_too_new);
		if (tcps_ack_allowed(c))
			ack_now(c);
		return false;
	}
	if (seq_lt(s->ack, c->snd_una)) {
		if (c->snd_una - s->ack <= c->cold->snd_wnd_max) {
			if ((c->flags & CF_SACK) != 0 && tcps_seg_may_sack(s))
				tcps_acked_late(c, s);
			return true; /* an old one: its text still counts */
		}
		TCPS_COUNT(t, ack_too_old);
		challenge(c);
		return false;
	}
	uint32_t acked = s->ack - c->snd_una;
	uint32_t wnd = (uint32_t)s->wnd << c->snd_wscale;
	bool duplicate = acked == 0 && s->len == 0 && !had_fin && wnd == c->snd_wnd && c->snd_max != c->snd_una &&
			 (c->flags & CF_PERSIST) == 0;
	c->cold->probes_unanswered = 0;
	if (seq_ge(s->seq, c->snd_wl1)) {
		c->snd_wl1 = s->seq;
		if (wnd != c->snd_wnd)
			tcps_window_changed(c, wnd);
	}
	/* SACK blocks count with nothing outstanding, too: a duplicate that is told of so was a probe's, and that is all it was. */
	if (acked != 0 || duplicate || ((c->flags & CF_SACK) != 0 && tcps_seg_may_sack(s)))
		tcps_acked_general(c, s, duplicate);
	return (c->flags & CF_DEAD) == 0;
}

/* The eighth step: the peer's FIN is next in order. */
static void take_fin(struct tcps_conn *c)
{
	/* What a peer sent beyond its own FIN, before that came, is no part of the stream. */
	c->flags = (c->flags & ~(CF_FIN_OOO | CF_OOO)) | CF_EOF;
	c->cold->ooo_count = 0;
	c->rcv_nxt++;
	ack_now(c);
	if (c->state == TCPS_ESTABLISHED) {
		tcps_conn_set_state(c, TCPS_CLOSE_WAIT);
	} else if (c->state == TCPS_FIN_WAIT_1) {
		tcps_conn_set_state(c, TCPS_CLOSING);
	} else {
		tcps_conn_set_state(c, TCPS_TIME_WAIT);
		/* At once: the block may be gone before the next flush. Should no frame be free, the peer's FIN comes again. */
		tcps_emit(c, c->snd_max, NULL, 0, TCP_ACK);
	}
	tcps_recv_deliver(c);
	if ((c->flags & CF_DEAD) == 0 && c->state == TCPS_TIME_WAIT && (c->flags & CF_FINISHED) == 0)
		tcps_conn_done(c);
}

static void text_and_fin(struct tcps_conn *c, struct tcps_seg *s)
{
	struct tcps *t = c->t;
	if (c->flags & CF_EOF) {
		if (s->len != 0)
			TCPS_COUNT(t, data_after_fin);
		return;
	}
	uint32_t end = s->seq + s->len;
	bool fin = (s->flags & TCP_FIN) != 0;
	if ((c->flags & CF_FIN_OOO) != 0 && s->len != 0 && seq_gt(end, c->cold->fin_seq)) {
		TCPS_COUNT(t, data_after_fin);
		s->len = seq_lt(s->seq, c->cold->fin_seq) ? c->cold->fin_seq - s->seq : 0;
		fin = false;
	}
	if (s->len != 0)
		tcps_recv_data(c, s->seq, s->data, s->len);
	if (c->flags & CF_DEAD)
		return;
	if (fin && (c->flags & CF_FIN_OOO) == 0) {
		c->flags |= CF_FIN_OOO;
		c->cold->fin_seq = end;
		ack_now(c);
	}
	if ((c->flags & CF_FIN_OOO) != 0 && c->cold->fin_seq == c->rcv_nxt)
		take_fin(c);
}

/* RFC 3168 6.1.2 and 6.1.3: marks that arrive are told; marks that the peer tells of reduce the window once a round trip. */
static void take_marks(struct tcps_conn *c, const struct tcps_seg *s)
{
	struct tcps_cold *cold = c->cold;
	if (s->flags & TCP_CWR)
		cold->ece = false;
	if (s->ce && s->len != 0) {
		TCPS_COUNT(c->t, ecn_marks_in);
		cold->ece = true;
		ack_now(c);
	}
	bool acceptable = (s->flags & TCP_ACK) != 0 && seq_le(s->ack, c->snd_max) && seq_ge(s->ack, c->snd_una);
	if ((s->flags & TCP_ECE) == 0 || !acceptable || c->state < TCPS_ESTABLISHED || seq_le(s->ack, cold->ecn_seq))
		return;
	tcps_undo_forget(c); /* RFC 4015 3.2: no loss, perhaps, but congestion */
	if (c->flags & (CF_RECOVERY | CF_RTO))
		return;
	TCPS_COUNT(c->t, ecn_reductions);
	tcps_cc_lost(c);
	c->cwnd_bytes = cold->ssthresh_bytes;
	cold->ecn_seq = c->snd_max;
	cold->cwr_due = true;
}

/* The caller has set CF_BUSY; the connection may be dead afterwards. */
void tcps_segment(struct tcps_conn *c, struct tcps_seg *s)
{
	struct tcps *t = c->t;
	if (c->flags & CF_DEAD)
		return;
	if (c->state == TCPS_SYN_SENT) {
		c->last_rx_ms = tcps_coarse_ms(t->now_ns);
		in_syn_sent(c, s);
		return;
	}
	if (paws_refuses(c, s))
		return;
	bool crossing = c->state == TCPS_SYN_RECEIVED && (s->flags & (TCP_SYN | TCP_RST)) == TCP_SYN && s->seq == c->cold->irs;
	if (crossing) {
		/* The SYN was taken before; its SYN-ACK form carries the ACK that we wait for. */
		s->flags &= (uint8_t)~TCP_SYN;
		s->seq++;
	}
	/* RFC 9293 3.10.7.4: with the window shut the ACK and the RST of a segment at rcv_nxt still count. */
	if (c->rcv_adv == c->rcv_nxt && s->seq == c->rcv_nxt && (s->flags & TCP_SYN) == 0 && seq_space(s) != 0) {
		TCPS_COUNT(t, out_of_window);
		s->len = 0;
		s->flags &= (uint8_t)~TCP_FIN;
		ack_now(c);
	}
	if (!in_window(c, s)) {
		refuse(c, s);
		return;
	}
	c->last_rx_ms = tcps_coarse_ms(t->now_ns);
	if (s->flags & TCP_RST) {
		reset_arrived(c, s);
		return;
	}
	if (s->flags & TCP_SYN) {
		challenge(c);
		return;
	}
	if ((s->flags & TCP_ACK) == 0) {
		TCPS_COUNT(t, drop_no_ack);
		return;
	}
	if ((c->flags & CF_TS) != 0 && s->has_ts && seq_le(s->seq, c->last_ack_sent) && seq_ge(s->ts_val, c->ts_recent))
		c->ts_recent = s->ts_val;
	if (c->flags & CF_ECN)
		take_marks(c, s);
	bool had_fin = (s->flags & TCP_FIN) != 0;
	trim(c, s);
	TCPS_COUNT_ADD(t, urgent, (s->flags & TCP_URG) != 0);
	if (c->state == TCPS_SYN_RECEIVED && !in_syn_received(c, s))
		return;
	if (ack_field(c, s, had_fin))
		text_and_fin(c, s);
}
