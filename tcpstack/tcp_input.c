/*
 * tcp_input.c - arriving segments: validation, look-up, and the fast path of a segment that is next in order.
 *
 * Owns: nothing of its own; it moves rcv_nxt and snd_una of the connection that it finds.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.1, 3.10.7.1, 3.10.7.2; the fast path is the header prediction of RFC 7323 appendix D.
 */
#include "tcpstack/internal.h"

#define FLAGS_KNOWN (TCP_FIN | TCP_SYN | TCP_RST | TCP_PSH | TCP_ACK | TCP_URG)

/* A segment for which there is no connection block. */
static void stray(struct tcps *t, struct tcps_seg *s)
{
	struct tcps_mini *m = tcps_mini_find(t, &t->half_open, s->peer_addr_raw, s->ports_raw);
	if (m != NULL) {
		struct tcps_conn *c = NULL;
		if (!tcps_options_parse_ts(s)) {
			TCPS_COUNT(t, drop_bad_tcp_options);
			return;
		}
		if (!tcps_half_open_input(t, m, s, &c) && c != NULL) {
			bool was_busy = tcps_conn_enter(c);
			tcps_segment(c, s);
			tcps_conn_leave(c, was_busy);
		}
		return;
	}
	m = tcps_mini_find(t, &t->time_wait, s->peer_addr_raw, s->ports_raw);
	if (m != NULL) {
		if (tcps_options_parse_ts(s))
			tcps_time_wait_input(t, m, s);
		else
			TCPS_COUNT(t, drop_bad_tcp_options);
		return;
	}
	uint8_t ports[4];
	put_raw32(ports, s->ports_raw);
	uint16_t port = get_be16(ports + 2);
	bool listening = (t->listening[port / 64] & 1ull << (port % 64)) != 0;
	if (listening && (s->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN) {
		tcps_syn_input(t, s, 0, false);
		return;
	}
	if (listening && (s->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == 0) {
		TCPS_COUNT(t, drop_no_ack); /* RFC 9293 3.10.7.2: neither RST, ACK nor SYN: dropped */
		return;
	}
	TCPS_COUNT(t, no_listener);
	tcps_reset_reply(t, s);
}

/* RFC 7323 appendix D: what is next in order, with nothing special about it. False: the general path has to look. */
static inline bool fast_path(struct tcps_conn *c, const struct tcps_seg *s)
{
	struct tcps *t = c->t;
	uint32_t acked = s->ack - c->snd_una;
	if (c->state != TCPS_ESTABLISHED || (s->flags & ~TCP_PSH) != TCP_ACK || s->seq != c->rcv_nxt ||
	    (c->flags & CF_SLOW_INPUT) != 0 || acked > c->snd_max - c->snd_una || (acked == 0 && s->len == 0) ||
	    s->len > c->rcv_adv - c->rcv_nxt)
		return false;
	if (c->flags & CF_TS) {
		if (!s->has_ts || seq_lt(s->ts_val, c->ts_recent))
			return false;
		if (s->seq == c->last_ack_sent) /* RFC 7323 4.3: the echo is of the first segment not acknowledged yet */
			c->ts_recent = s->ts_val;
	}
	uint32_t wnd = (uint32_t)s->wnd << c->snd_wscale;
	c->snd_wl1 = s->seq;
	c->last_rx_ms = tcps_coarse_ms(t->now_ns);
	c->flags |= CF_BUSY;
	if (wnd != c->snd_wnd)
		tcps_window_changed(c, wnd);
	if (acked != 0)
		tcps_acked(c, s, acked);
	if (s->len != 0 && (c->flags & CF_DEAD) == 0)
		tcps_recv_data(c, s->seq, s->data, s->len);
	TCPS_COUNT(t, fast_path_in);
	tcps_conn_leave(c, false);
	return true;
}

/* The timestamps option as every stack sends it (NOP NOP TS) is recognised by its first word. */
static bool timestamps(struct tcps_seg *s)
{
	if (s->opts_len == 0)
		return true;
	if (s->opts_len == TCP_OPT_TS_LEN && get_be32(s->opts) == TCP_OPT_TS_WORD) {
		s->has_ts = true;
		s->ts_val = get_be32(s->opts + 4);
		s->ts_ecr = get_be32(s->opts + 8);
		return true;
	}
	return tcps_options_parse_ts(s);
}

static void found(struct tcps_conn *c, struct tcps_seg *s)
{
	struct tcps *t = c->t;
	if (!timestamps(s)) {
		TCPS_COUNT(t, drop_bad_tcp_options);
		return;
	}
	if (fast_path(c, s))
		return;
	bool was_busy = tcps_conn_enter(c);
	tcps_segment(c, s);
	tcps_conn_leave(c, was_busy);
}

void tcps_tcp_input(struct tcps *t, const uint8_t *frame, const uint8_t *ip, const uint8_t *tcp, uint32_t len, uint32_t rx_flags)
{
	if (len < TCP_HLEN) {
		TCPS_COUNT(t, drop_short_tcp);
		return;
	}
	uint32_t header_len = (tcp[12] >> 4) * 4u;
	if (header_len < TCP_HLEN || header_len > len) {
		TCPS_COUNT(t, drop_bad_tcp_offset);
		return;
	}
	uint32_t peer = get_raw32(ip + 12);
	if ((rx_flags & TCPS_RX_L4_CKSUM_GOOD) == 0) {
		uint64_t pseudo = (uint64_t)peer + t->addr_raw + htobe16(IPPROTO_TCP_NUM) + htobe16((uint16_t)len);
		if (tcps_sum_fold64(tcps_sum_words(pseudo, tcp, len)) != 0xffff) {
			TCPS_COUNT(t, drop_bad_tcp_cksum);
			return;
		}
	}
	struct tcps_seg s = {.data = tcp + header_len,
			     .len = len - header_len,
			     .seq = get_be32(tcp + 4),
			     .ack = get_be32(tcp + 8),
			     .peer_addr_raw = peer,
			     .ports_raw = get_raw32(tcp),
			     .wnd = get_be16(tcp + 14),
			     .flags = tcp[13] & FLAGS_KNOWN,
			     .frame = frame,
			     .opts = tcp + TCP_HLEN,
			     .opts_len = header_len - TCP_HLEN};
	TCPS_COUNT(t, segments_in);
	struct tcps_conn *c = tcps_conn_find(t, peer, s.ports_raw);
	if (__builtin_expect(c != NULL, 1))
		found(c, &s);
	else
		stray(t, &s);
}
