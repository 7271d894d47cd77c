/*
 * tcp_output.c - what a connection sends, and when: segments cut from slices, ACKs, window updates.
 *
 * Owns: snd_nxt, snd_max and the send cursor; arming of the retransmission, persist and delayed-ACK deadlines.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.8, RFC 5681, RFC 6298 5, RFC 7323 3, RFC 6675 5.
 *
 * Nothing is held back to fill a segment: there is no Nagle algorithm here, coalescing comes from flushing once a burst.
 */
#include "tcpstack/internal.h"

static inline uint16_t window_field(struct tcps_conn *c, uint8_t flags)
{
	uint32_t wnd = tcps_recv_window(c);
	if ((flags & TCP_SYN) == 0)
		wnd >>= c->rcv_wscale;
	/* RFC 7323 2.4: rounding down may retract the edge by less than a unit; we go on accepting up to rcv_adv. */
	return (uint16_t)(wnd > 0xffff ? 0xffff : wnd);
}

static __attribute__((noinline)) uint32_t syn_options(const struct tcps_conn *c, uint8_t *to, uint8_t flags)
{
	const struct tcps *t = c->t;
	bool ack = (flags & TCP_ACK) != 0;
	const struct tcps_syn_ask ask = {.v6 = c->own != OWN_V4,
					 .wscale = !ack || c->snd_wscale != 0 || c->rcv_wscale != 0,
					 .ts = !ack || (c->flags & CF_TS) != 0,
					 .sack = ack ? (c->flags & CF_SACK) != 0 : !t->cfg.no_sack,
					 .ts_val = tcps_ts_now(t, c->ts_offset),
					 .ts_ecr = ack ? c->ts_recent : 0};
	return tcps_options_syn(t, to, &ask);
}

/* With offload the port continues from the sum of the pseudo header, which is not complemented. */
static inline uint16_t tcp_cksum(const struct tcps *t, const struct tcps_conn *c, const uint8_t *tcp, uint32_t header_len,
				 uint32_t len, uint64_t payload_sum, bool cut)
{
	uint64_t pseudo = (uint64_t)c->addr_sum + htobe16(IPPROTO_TCP_NUM);
	/* A frame that the port cuts: it adds the length of each piece itself. */
	if (__builtin_expect(cut, 0))
		return tcps_sum_fold64(pseudo);
	pseudo += htobe16((uint16_t)(header_len + len));
	if (t->cfg.tx_tcp_cksum_offload)
		return tcps_sum_fold64(pseudo);
	uint64_t sum = tcps_sum_add(payload_sum, pseudo);
	if (__builtin_expect(header_len == TCP_HLEN + TCP_OPT_TS_LEN, 1))
		sum = tcps_sum32(sum, tcp);
	else
		sum = tcps_sum_words(sum, tcp, header_len);
	return (uint16_t)~tcps_sum_fold64(sum);
}

static __attribute__((noinline)) void starved(struct tcps *t)
{
	TCPS_COUNT(t, tx_blocked);
	t->tx_starved = true;
	t->wheel.next_tick = 0; /* the next tcps_tick() has something to do */
}

static __attribute__((noinline)) enum tcps_emit no_neighbour(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	TCPS_COUNT(t, no_neighbour);
	if ((c->flags & CF_NO_NEIGH) == 0) {
		c->flags |= CF_NO_NEIGH;
		t->neighs[c->neigh_idx].waiter_count++;
	}
	tcps_neigh_want(t, c->neigh_idx);
	return EMIT_NO_NEIGHBOUR;
}

/* The payload of a segment: nearly always it lies in one slice. */
static inline uint64_t copy_payload(const struct tcps *t, struct tcps_cursor *cur, uint8_t *to, uint32_t len)
{
	const struct tcps_slice *s = &t->slices[cur->idx];
	if (__builtin_expect(s->len_bytes - cur->off < len || t->cfg.tx_tcp_cksum_offload, 0))
		return tcps_send_copy(t, cur, to, len);
	const uint8_t *from = s->data + cur->off;
	cur->off += len;
	return tcps_copy_sum(to, from, len);
}

/* Whether a reference may be among these bytes: inline ones mostly lie in one slice. */
static inline bool may_chain(const struct tcps *t, const struct tcps_cursor *cur, uint32_t len)
{
	if (__builtin_expect(t->cfg.tx_pieces_max == 0 || len < TCPS_PIECE_MIN, 1))
		return false;
	const struct tcps_slice *s = &t->slices[cur->idx];
	return s->block_idx == TCPS_NIL || s->len_bytes - cur->off < len;
}

static inline void put_options(struct tcps_conn *c, uint8_t *to, uint32_t len)
{
	if (__builtin_expect((c->flags & CF_TS) != 0, 1)) {
		put_be32(to, TCP_OPT_TS_WORD);
		put_be32(to + 4, tcps_ts_now(c->t, c->ts_offset));
		put_be32(to + 8, c->ts_recent);
		to += TCP_OPT_TS_LEN;
		len -= TCP_OPT_TS_LEN;
	}
	if (__builtin_expect(len != 0, 0))
		tcps_sack_option(c, to, len);
}

/* RFC 3168 6.1.2, 6.1.3: ECE on every ACK until the peer has heard it, CWR on the first new data after a reduction. */
static __attribute__((noinline)) uint8_t ecn_flags(struct tcps_conn *c, uint32_t seq, uint32_t len, uint8_t flags)
{
	uint8_t more = 0;
	if (flags & (TCP_SYN | TCP_RST))
		return 0;
	if (c->cold->ece)
		more |= TCP_ECE;
	if (c->cold->cwr_due && len != 0 && seq == c->snd_max) {
		c->cold->cwr_due = false;
		more |= TCP_CWR;
	}
	return more;
}

/* RFC 3168 6.1.4, 6.1.5: ECT(0) on new data, never on what is sent again nor on bare ACKs. */
static __attribute__((noinline)) void mark_capable(const struct tcps_conn *c, uint8_t *tcp)
{
	if (c->own != OWN_V4) {
		tcp[1 - (int)IPV6_HLEN] |= 0x20;
		return;
	}
	uint8_t *ip = tcp - IPV4_HLEN;
	ip[1] |= 2;
	if (!c->t->cfg.tx_ip_cksum_offload) {
		uint32_t sum = (uint32_t)(uint16_t)~get_raw16(ip + 10) + htobe16(2);
		put_raw16(ip + 10, (uint16_t) ~((sum & 0xffff) + (sum >> 16)));
	}
}

/*
 * Builds and sends one segment: `len` bytes from `cur` on, which moves past them. No state but that of ACKs changes.
 * `opts` are those of a SYN; other segments have the timestamps, if they were agreed on, and what there is to tell by SACK.
 */
static inline __attribute__((always_inline)) enum tcps_emit emit(struct tcps_conn *c, uint32_t seq, struct tcps_cursor *cur,
								 uint32_t len, uint8_t flags, const uint8_t *opts,
								 uint32_t opts_len)
{
	struct tcps *t = c->t;
	struct tcps_neigh *n = &t->neighs[c->neigh_idx];
	if (__builtin_expect(n->state <= NEIGH_STALE, 0) && !tcps_neigh_use(t, n))
		return no_neighbour(c);
	const struct tcps_form *form = &t->form[c->own];
	uint32_t header_len = TCP_HLEN + opts_len;
	size_t frame_len = form->tcp_at + header_len + len;
	uint32_t copy = len;
	uint64_t payload_sum = 0;
	void *handle;
	uint8_t *f = NULL;
	if (__builtin_expect(may_chain(t, cur, len), 0) &&
	    (f = tcps_chain(t, cur, len, frame_len - len, &handle, &payload_sum)) != NULL)
		copy = 0;
	else
		f = t->ops.tx_alloc(t->ctx, frame_len, &handle);
	if (__builtin_expect(f == NULL, 0)) {
		starved(t);
		return EMIT_NO_FRAME;
	}
	memcpy(f, n->eth, TCPS_ETH_ROOM); /* what is too much is overwritten */
	uint8_t *tcp = f + form->tcp_at;
	if (__builtin_expect((c->flags & CF_ECN) != 0, 0))
		flags |= ecn_flags(c, seq, len, flags);
	if (__builtin_expect(c->own != OWN_V4, 0))
		tcps_ipv6_conn_header(c, tcp - IPV6_HLEN, header_len + len);
	else
		tcps_ipv4_end(t, tcp - IPV4_HLEN, c->peer_key, IPPROTO_TCP_NUM, IPV4_HLEN + header_len + len, c->addr_sum);
	if (__builtin_expect((c->flags & CF_ECN) != 0, 0) && len != 0 && seq == c->snd_max)
		mark_capable(c, tcp);
	put_raw32(tcp, c->ports_raw << 16 | c->ports_raw >> 16);
	put_be32(tcp + 4, seq);
	put_be32(tcp + 8, (flags & TCP_ACK) != 0 ? c->rcv_nxt : 0);
	put_be16(tcp + 12, (uint16_t)(header_len << 10 | flags));
	put_be16(tcp + 14, window_field(c, flags));
	put_raw32(tcp + 16, 0);
	if (opts != NULL)
		memcpy(tcp + TCP_HLEN, opts, opts_len);
	else if (opts_len != 0)
		put_options(c, tcp + TCP_HLEN, opts_len);
	if (copy != 0)
		payload_sum = copy_payload(t, cur, tcp + header_len, copy);
	uint32_t ts_len = (c->flags & CF_TS) != 0 ? TCP_OPT_TS_LEN : 0;
	bool cut = len + opts_len > c->mss + ts_len; /* for the port to cut */
	put_raw16(tcp + 16, tcp_cksum(t, c, tcp, header_len, len, payload_sum, cut));

	c->last_ack_sent = c->rcv_nxt;
	c->ack_segments = 0;
	c->flags &= ~CF_ACK_NOW;
	c->delack_deadline_ns = TCPS_NEVER;
	TCPS_COUNT(t, frames_out);
	TCPS_COUNT(t, segments_out);
	TCPS_COUNT_ADD(t, bytes_out, len);
	struct tcps_tx_meta meta = form->meta;
	meta.l4_len = (uint8_t)header_len;
	if (__builtin_expect(cut, 0)) {
		meta.tso_mss = (uint16_t)(c->mss + ts_len - opts_len);
		TCPS_COUNT(t, tso_frames);
		TCPS_COUNT_ADD(t, segments_out, (len - 1) / meta.tso_mss);
	}
	t->ops.tx_send(t->ctx, handle, frame_len, &meta);
	return EMIT_SENT;
}

static inline uint32_t sack_len(const struct tcps_conn *c)
{
	return __builtin_expect((c->flags & (CF_OOO | CF_DSACK)) != 0, 0) ? tcps_sack_option_len(c) : 0;
}

static inline uint32_t options_len(const struct tcps_conn *c)
{
	return ((c->flags & CF_TS) != 0 ? TCP_OPT_TS_LEN : 0) + sack_len(c);
}

__attribute__((noinline)) enum tcps_emit tcps_emit(struct tcps_conn *c, uint32_t seq, struct tcps_cursor *cur, uint32_t len,
						   uint8_t flags)
{
	uint8_t opts[40];
	TCPS_COUNT_ADD(c->t, resets_out, (flags & TCP_RST) != 0);
	if (flags & TCP_SYN)
		return emit(c, seq, NULL, 0, flags, opts, syn_options(c, opts, flags));
	return emit(c, seq, cur, len, flags, NULL, options_len(c));
}

/* A segment could not go out: no frame, then the next flush tries again; no neighbour, then its answer or the timer does. */
static __attribute__((noinline)) void put_off(struct tcps_conn *c, enum tcps_emit why)
{
	if (why == EMIT_NO_FRAME)
		tcps_touch(c);
	if (c->rexmt_deadline_ns == TCPS_NEVER && (tcps_left(c) > 0 || c->snd_max != c->snd_una || tcps_fin_owed(c)))
		tcps_arm_rexmt(c, tcps_rto_ns(c));
}

static __attribute__((noinline)) void output_syn(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	uint8_t flags = c->state == TCPS_SYN_RECEIVED ? TCP_SYN | TCP_ACK : TCP_SYN;
	if (c->snd_nxt != cold->iss && (c->flags & CF_ACK_NOW) == 0)
		return;
	bool first = c->snd_max == cold->iss;
	if (t->cfg.ecn && (flags & TCP_ACK) == 0 && cold->rexmt_count == 0)
		flags |= TCP_ECE | TCP_CWR; /* RFC 3168 6.1.1; not when asked again: some middlebox may drop such SYNs */
	if ((flags & TCP_ACK) != 0 && (c->flags & CF_ECN) != 0)
		flags |= TCP_ECE;
	enum tcps_emit sent = tcps_emit(c, cold->iss, NULL, 0, flags);
	if (sent != EMIT_SENT) {
		put_off(c, sent);
		return;
	}
	c->snd_nxt = c->snd_max = cold->iss + 1;
	if (first) {
		cold->rack.time_us = tcps_now_us(t); /* for tcps_measure_syn() */
	} else {
		TCPS_COUNT(t, retransmits_syn);
		cold->retransmits++;
	}
}

/* Where byte `off` behind snd_una lies. */
static struct tcps_cursor cursor_at(const struct tcps_conn *c, uint32_t off)
{
	const struct tcps *t = c->t;
	struct tcps_cursor cur = {c->head_idx, off};
	while (cur.idx != TCPS_NIL && cur.off >= t->slices[cur.idx].len_bytes) {
		cur.off -= t->slices[cur.idx].len_bytes;
		cur.idx = t->slices[cur.idx].next_idx;
	}
	return cur;
}

static void count_again(struct tcps_conn *c, const struct tcps_sent *r)
{
	struct tcps *t = c->t;
	c->cold->retransmits++;
	if (r->flags & SENT_RTO)
		TCPS_COUNT(t, retransmits_rto);
	else if ((r->flags & SENT_LOST) != 0 && (c->flags & CF_SACK) != 0)
		TCPS_COUNT(t, retransmits_rack);
	else if (r->flags & SENT_LOST)
		TCPS_COUNT(t, retransmits_fast);
}

/* All of `r`, in as many segments as it takes: more than one only where no record was left to cut it. */
enum tcps_emit tcps_send_again(struct tcps_conn *c, struct tcps_sent *r)
{
	uint32_t mss = c->mss - sack_len(c), end_of_data = c->snd_una + c->snd_buf_bytes;
	tcps_sent_cut(c, r, mss);
	for (uint32_t seq = r->seq; seq != r->end_seq;) {
		mss = c->mss - sack_len(c);
		uint32_t len = r->end_seq - seq < mss ? r->end_seq - seq : mss;
		bool fin = seq_gt(seq + len, end_of_data);
		struct tcps_cursor cur = cursor_at(c, seq - c->snd_una);
		uint8_t flags = (uint8_t)(TCP_ACK | (fin ? TCP_FIN : 0u) | (seq + len == end_of_data ? TCP_PSH : 0u));
		enum tcps_emit sent = emit(c, seq, &cur, len - fin, flags, NULL, options_len(c));
		if (sent != EMIT_SENT)
			return sent;
		seq += len;
	}
	if (c->flags & CF_RECOVERY)
		c->cold->prr_out_bytes += r->end_seq - r->seq;
	count_again(c, r);
	tcps_undo_sent(c, r);
	tcps_sent_again(c, r);
	return EMIT_SENT;
}

/* What is lost goes out first, as far as the congestion window allows; with an empty network one segment always does. */
static __attribute__((noinline)) enum tcps_emit resend_lost(struct tcps_conn *c, bool *sent_any)
{
	struct tcps_sent *r;
	while ((c->flags & CF_LOST) != 0 && (r = tcps_sent_first_lost(c)) != NULL) {
		uint32_t mss = c->mss - sack_len(c);
		tcps_sent_gather(c, r, mss);
		uint32_t off = r->seq - c->snd_una, len = r->end_seq - r->seq, pipe = tcps_pipe(c);
		len = len < mss ? len : mss;
		if (off >= c->snd_wnd || (pipe != 0 && pipe + len > c->cwnd_bytes))
			break;
		if (len > c->snd_wnd - off && !tcps_sent_cut(c, r, c->snd_wnd - off))
			break;
		enum tcps_emit sent = tcps_send_again(c, r);
		if (sent != EMIT_SENT)
			return sent;
		*sent_any = true;
	}
	if (c->rexmt_deadline_ns == TCPS_NEVER)
		tcps_arm_rexmt(c, tcps_rto_ns(c));
	return EMIT_SENT;
}

/* Book-keeping after [snd_nxt, snd_nxt + len) and perhaps FIN went out. */
static inline void sent_segment(struct tcps_conn *c, uint32_t len, bool fin)
{
	struct tcps *t = c->t;
	uint32_t seq = c->snd_nxt;
	if (__builtin_expect(seq_lt(seq, c->snd_max), 0)) {
		/* Behind a window that was shut: the peer may have thrown this away. */
		c->cold->retransmits++;
		TCPS_COUNT(t, retransmits_window);
	}
	tcps_sent_push(c, seq, seq + len + fin, seq_lt(seq, c->snd_max) ? SENT_AGAIN : 0);
	c->snd_nxt += len + fin;
	if (seq_gt(c->snd_nxt, c->snd_max)) {
		if (__builtin_expect(c->snd_nxt < c->snd_max, 0))
			c->cold->snd_wraps++;
		c->snd_max = c->snd_nxt;
	}
	if (__builtin_expect((c->flags & CF_RECOVERY) != 0, 0))
		c->cold->prr_out_bytes += len + fin;
	if (c->rexmt_deadline_ns == TCPS_NEVER || seq == c->snd_una || (c->flags & CF_PERSIST) != 0) {
		if (c->flags & CF_PERSIST)
			c->cold->rexmt_count = 0; /* probes counted in it, too */
		c->flags &= ~CF_PERSIST;
		tcps_arm_rexmt(c, tcps_rto_ns(c));
	}
}

enum tcps_emit tcps_send_new(struct tcps_conn *c, uint32_t len)
{
	struct tcps_cursor cur = {c->cur_idx, c->cur_off};
	uint32_t most = c->mss - sack_len(c);
	len = len < most ? len : most;
	uint8_t flags = (uint8_t)(TCP_ACK | ((int32_t)len == tcps_left(c) ? TCP_PSH : 0u));
	enum tcps_emit sent = emit(c, c->snd_nxt, &cur, len, flags, NULL, options_len(c));
	if (sent != EMIT_SENT)
		return sent;
	c->cur_idx = cur.idx;
	c->cur_off = cur.off;
	sent_segment(c, len, false);
	return EMIT_SENT;
}

/* How many bytes may go out now in one segment; 0 with *wait: none. RFC 9293 3.8.6.2.1 without Nagle. */
static inline uint32_t segment_len(const struct tcps_conn *c, uint32_t left, bool *wait)
{
	uint32_t flight = c->snd_nxt - c->snd_una, pipe = tcps_pipe(c);
	uint32_t by_peer = c->snd_wnd > flight ? c->snd_wnd - flight : 0;
	uint32_t room = c->cwnd_bytes > pipe ? c->cwnd_bytes - pipe : 0;
	bool peer_limits = by_peer <= room;
	if (peer_limits)
		room = by_peer;
	uint32_t mss = c->mss - sack_len(c), len = left < mss ? left : mss, tso = c->t->cfg.tso_max_bytes;
	*wait = false;
	if (__builtin_expect(tso > mss && left > mss && room > mss, 0)) {
		/* Whole segments for the port to cut, and the end of the stream with them. */
		uint32_t most = tso < room ? tso : room;
		return left <= most ? left : most / mss * mss;
	}
	if (__builtin_expect(len <= room, 1))
		return len;
	/* Not even this segment fits: half of the largest window ever seen is worth sending, less is silly. */
	*wait = room == 0 || !peer_limits || room < c->cold->snd_wnd_max / 2;
	return *wait ? 0 : room;
}

static inline enum tcps_emit send_stream(struct tcps_conn *c, bool *sent_any)
{
	for (;;) {
		int32_t left = tcps_left(c);
		bool fin = tcps_fin_owed(c) && left >= 0;
		if (left <= 0 && !fin)
			return EMIT_SENT;
		bool wait = false;
		uint32_t len = left > 0 ? segment_len(c, (uint32_t)left, &wait) : 0;
		bool last = len == (uint32_t)left;
		fin = fin && last && c->snd_wnd > c->snd_nxt - c->snd_una + len;
		if (wait || (len == 0 && !fin))
			break;
		uint8_t flags = TCP_ACK;
		if (last)
			flags |= (uint8_t)(TCP_PSH | (fin ? TCP_FIN : 0u));
		if (c->dup_acks > 0 && c->snd_nxt == c->snd_max && (c->flags & CF_RECOVERY) == 0)
			TCPS_COUNT(c->t, limited_transmits);
		struct tcps_cursor cur = {c->cur_idx, c->cur_off};
		enum tcps_emit sent = emit(c, c->snd_nxt, &cur, len, flags, NULL, options_len(c));
		if (sent != EMIT_SENT)
			return sent;
		*sent_any = true;
		c->cur_idx = cur.idx;
		c->cur_off = cur.off;
		sent_segment(c, len, fin);
		if (last && fin == tcps_fin_owed(c))
			return EMIT_SENT;
	}
	/* The peer's window is shut and nothing is in flight whose ACK could open it: RFC 9293 3.8.6.1. */
	if (c->snd_nxt == c->snd_una && (c->flags & CF_PERSIST) == 0) {
		c->flags |= CF_PERSIST;
		c->cold->rexmt_count = 0;
		c->cold->probes_unanswered = 0;
		tcps_arm_rexmt(c, tcps_rto_ns(c));
	}
	return EMIT_SENT;
}

/* RFC 5682 3.1 (2b): where there is no new data to ask with, the time-out is taken at its word. */
static __attribute__((noinline)) enum tcps_emit frto_asked(struct tcps_conn *c, bool *sent_any)
{
	c->cold->undo.frto = *sent_any ? FRTO_ASKED : FRTO_OFF;
	return *sent_any ? EMIT_SENT : resend_lost(c, sent_any);
}

/* A bare ACK carries the highest sequence number sent, or the edge of the window where that has moved left of it. */
static uint32_t ack_seq(const struct tcps_conn *c)
{
	return c->snd_max - c->snd_una <= c->snd_wnd ? c->snd_max : c->snd_una + c->snd_wnd;
}

static void output_ack(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	if ((c->flags & CF_ACK_NOW) != 0 || c->ack_segments >= 2 || (c->ack_segments > 0 && t->cfg.delayed_ack_ns == 0)) {
		enum tcps_emit sent = tcps_emit(c, ack_seq(c), NULL, 0, TCP_ACK);
		if (sent == EMIT_NO_FRAME)
			tcps_touch(c);
	} else if (c->ack_segments > 0 && c->delack_deadline_ns == TCPS_NEVER) {
		c->delack_deadline_ns = t->now_ns + t->cfg.delayed_ack_ns;
		tcps_conn_rearm(c, c->delack_deadline_ns);
	}
}

/* The tail loss probe after a flush: RFC 8985 7.2. */
static inline void arm_probe(struct tcps_conn *c)
{
	if ((c->flags & CF_T_REO) != 0 || !tcps_tlp_wanted(c))
		return;
	tcps_arm_rexmt(c, tcps_tlp_delay_ns(c));
	c->flags |= CF_T_TLP;
}

void tcps_output(struct tcps_conn *c)
{
	if (__builtin_expect(c->state < TCPS_ESTABLISHED, 0)) {
		if (c->state != TCPS_CLOSED)
			output_syn(c);
		return;
	}
	if (c->snd_buf_bytes == 0 && !tcps_timer_armed(&c->timer))
		tcps_send_free(c); /* of a reservation that came to nothing */
	tcps_send_sync(c);
	tcps_sent_settle(c);
	bool sent_any = false;
	enum tcps_emit sent = EMIT_SENT;
	bool lost = (c->flags & CF_LOST) != 0;
	if (lost && c->cold->undo.frto < FRTO_ASK)
		sent = resend_lost(c, &sent_any);
	if (sent == EMIT_SENT && (c->snd_buf_bytes != 0 || tcps_fin_owed(c)))
		sent = send_stream(c, &sent_any);
	if (lost && sent == EMIT_SENT && c->cold->undo.frto == FRTO_ASK)
		sent = frto_asked(c, &sent_any);
	if (sent != EMIT_SENT)
		put_off(c, sent);
	else if (!sent_any)
		output_ack(c);
	else
		arm_probe(c);
}

/* tcps_resume() was called while on_data() ran. */
static __attribute__((noinline)) void resume_late(struct tcps_conn *c)
{
	bool was_busy = tcps_conn_enter(c);
	c->flags &= ~CF_RESUME;
	tcps_resume(c);
	tcps_output(c);
	tcps_conn_leave(c, was_busy);
}

void tcps_window_open(struct tcps_conn *c)
{
	uint32_t edge = c->rx_head_seq + tcps_window_budget(c);
	if ((int32_t)(edge - c->rcv_adv) < (int32_t)c->t->window_step || (c->flags & CF_EOF) != 0)
		return;
	TCPS_COUNT(c->t, window_updates);
	c->flags |= CF_ACK_NOW;
	tcps_touch(c);
}

/* States in which a flush has more to think of than "send what is queued". */
#define CF_SLOW_OUTPUT                                                                                                             \
	(CF_RESUME | CF_LOST | CF_SCORE | CF_RECOVERY | CF_RTO | CF_PERSIST | CF_FIN_QUEUED | CF_OOO | CF_DSACK | CF_PAUSED |      \
	 CF_EOF | CF_NO_NEIGH | CF_DEAD | CF_T_REO | CF_ECN | CF_OVER_HIGH)

/*
 * The end of the stream, `len` bytes of one block, goes out in a segment with timestamps. False: no frame is free. `v6` is known
 * where this is inlined.
 */
static inline __attribute__((always_inline)) bool send_tail(struct tcps *t, struct tcps_conn *c, uint32_t len, bool v6)
{
	const uint32_t header_len = TCP_HLEN + TCP_OPT_TS_LEN;
	const struct tcps_form *form = &t->form[v6 ? c->own : OWN_V4];
	size_t frame_len = form->tcp_at + header_len + len;
	void *handle;
	uint8_t *f = t->ops.tx_alloc(t->ctx, frame_len, &handle);
	if (__builtin_expect(f == NULL, 0)) {
		starved(t); /* flush_one() looks at it */
		return false;
	}
	uint8_t *tcp = f + form->tcp_at;
	memcpy(f, t->neighs[c->neigh_idx].eth, TCPS_ETH_ROOM); /* what is too much is overwritten */
	if (v6)
		tcps_ipv6_conn_header(c, tcp - IPV6_HLEN, header_len + len);
	else
		tcps_ipv4_end(t, tcp - IPV4_HLEN, c->peer_key, IPPROTO_TCP_NUM, IPV4_HLEN + header_len + len, c->addr_sum);
	put_raw32(tcp, c->ports_raw << 16 | c->ports_raw >> 16);
	put_be32(tcp + 4, c->snd_nxt);
	put_be32(tcp + 8, c->rcv_nxt);
	put_be16(tcp + 12, (uint16_t)(header_len << 10 | TCP_ACK | TCP_PSH));
	/* The reader goes on. Wide enough still: nothing moves. It fits: tcps_window_budget(). */
	uint32_t wnd = c->rcv_adv - c->rcv_nxt;
	if (__builtin_expect(wnd <= t->window_keep, 0))
		wnd = tcps_recv_window(c);
	put_be16(tcp + 14, (uint16_t)(wnd >> c->rcv_wscale));
	put_raw32(tcp + 16, 0);
	put_be32(tcp + 20, TCP_OPT_TS_WORD);
	put_be32(tcp + 24, tcps_ts_now(t, c->ts_offset));
	put_be32(tcp + 28, c->ts_recent);
	const uint8_t *from = c->tail_ptr - len;
	uint64_t payload_sum = 0;
	if (t->cfg.tx_tcp_cksum_offload)
		memcpy(tcp + header_len, from, len);
	else
		payload_sum = tcps_copy_sum(tcp + header_len, from, len);
	put_raw16(tcp + 16, tcp_cksum(t, c, tcp, header_len, len, payload_sum, false));
	c->last_ack_sent = c->rcv_nxt;
	c->ack_segments = 0;
	c->delack_deadline_ns = TCPS_NEVER;
	if (__builtin_expect(__builtin_add_overflow(c->snd_nxt, len, &c->snd_nxt), 0))
		c->cold->snd_wraps++;
	c->snd_max = c->snd_nxt;
	TCPS_COUNT(t, frames_out);
	TCPS_COUNT(t, segments_out);
	TCPS_COUNT_ADD(t, bytes_out, len);
	t->ops.tx_send(t->ctx, handle, frame_len, &form->meta);
	return true;
}

/* What send_tail() takes for granted; 0: it is so. ESTABLISHED and timestamps are in the word. */
static inline uint32_t tail_is_odd(const struct tcps_conn *c)
{
	const uint16_t plain = htobe16((TCP_HLEN + TCP_OPT_TS_LEN) << 10 | TCP_ACK);
	return (c->flags & CF_SLOW_OUTPUT) | (uint32_t)(c->plain_raw ^ plain) | (c->cur_idx ^ c->tail_idx);
}

/*
 * What nearly every flush finds: nothing in flight, some bytes at the end of one block, no more than a segment, and room for
 * them. It is the general path with all that cannot be the case left out. False: it is otherwise, or no frame is free; nothing has
 * changed.
 */
static inline __attribute__((always_inline)) bool output_whole(struct tcps *t, struct tcps_conn *c, bool v6)
{
	uint32_t len = c->snd_buf_bytes;
	if (TCPS_GENERAL_ONLY)
		return false;
	if (__builtin_expect((tail_is_odd(c) | (c->snd_una ^ c->snd_max)) != 0 || len - 1 >= c->mss || len > c->snd_wnd ||
				     c->tail_ptr == NULL || t->neighs[c->neigh_idx].state <= NEIGH_STALE,
			     0))
		return false;
	if (!send_tail(t, c, len, v6))
		return false;
	c->flags = (c->flags & ~(CF_ACK_NOW | CF_T_TLP | CF_TOUCHED)) | CF_WHOLE;
	c->whole_us = tcps_now_us(t);
	/* The deadline itself is worked out when the timer fires, which is early enough: tcps_sent_settle(). */
	uint64_t least_ns = t->now_ns + t->cfg.rto_min_ns;
	if (__builtin_expect(!tcps_timer_armed(&c->timer) || c->timer.at_tick > least_ns >> TCPS_WHEEL_TICK_SHIFT, 0))
		tcps_conn_rearm(c, t->now_ns + tcps_rto_ns(c));
	return true;
}

/* The same behind what is in flight, all of it sent once: the peer acknowledges every second segment. */
static inline __attribute__((always_inline)) bool output_more(struct tcps *t, struct tcps_conn *c, bool v6)
{
	uint32_t flight = c->snd_nxt - c->snd_una, len = c->snd_buf_bytes - flight, room = c->cwnd_bytes;
	if (TCPS_GENERAL_ONLY)
		return false;
	room = room < c->snd_wnd ? room : c->snd_wnd;
	if (tail_is_odd(c) != 0 || c->snd_nxt != c->snd_max || flight == 0 || len - 1 >= c->mss || flight + len > room ||
	    c->tail_ptr == NULL || t->neighs[c->neigh_idx].state <= NEIGH_STALE)
		return false;
	uint32_t seq = c->snd_nxt;
	tcps_sent_settle(c);
	if (!send_tail(t, c, len, v6))
		return false;
	c->flags &= ~(CF_ACK_NOW | CF_TOUCHED);
	c->cur_off += len;
	tcps_sent_push(c, seq, seq + len, 0);
	arm_probe(c);
	return true;
}

/* What output_whole() leaves, and IPv6: a copy of its own, so that the loop of the flush stays small. */
static __attribute__((noinline)) void flush_one(struct tcps *t, struct tcps_conn *c)
{
	if (!t->tx_starved && (c->own == OWN_V4 ? output_more(t, c, false) : output_whole(t, c, true) || output_more(t, c, true)))
		return;
	c->flags &= ~CF_TOUCHED;
	if (t->tx_starved) {
		put_off(c, EMIT_NO_FRAME);
		return;
	}
	if (__builtin_expect((c->flags & CF_RESUME) != 0, 0))
		resume_late(c);
	else
		tcps_output(c);
}

void tcps_flush(struct tcps *t, uint64_t now_ns)
{
	tcps_clock(t, now_ns);
	t->tx_starved = false;
	/* As many as there are now: one that touches itself again waits for the next flush. */
	uint32_t end = t->touched_count;
	for (uint32_t at = 0; at < end; at++) {
		uint32_t idx = t->touched[at];
		if (__builtin_expect(idx == TCPS_NIL, 0))
			continue;
		struct tcps_conn *c = &t->conns[idx];
		t->touched[at] = TCPS_NIL;
		if (__builtin_expect(c->own == OWN_V4, 1) && __builtin_expect(output_whole(t, c, false), 1))
			continue;
		t->flush_at = at + 1;
		t->flush_end = end;
		flush_one(t, c);
		end = t->flush_end; /* the list may have been squeezed */
		at = t->flush_at - 1;
		if (__builtin_expect(t->tx_starved, 0)) {
			tcps_touched_squeeze(t);
			return;
		}
	}
	if (__builtin_expect(end == t->touched_count, 1))
		t->touched_count = 0;
	else
		tcps_touched_squeeze(t);
}
