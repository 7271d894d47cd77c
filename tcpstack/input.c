/*
 * input.c - arriving frames: validation of Ethernet, IP and TCP, look-up, and the fast path of a segment next in order.
 *
 * Owns: nothing of its own; it moves rcv_nxt and snd_una of the connection that it finds.
 * Core: the worker that owns the stack. What an ordinary segment needs is in this file, so that the compiler sees it whole.
 * Spec: RFC 791, RFC 8200 3, IEEE 802.1Q, RFC 9293 3.1, 3.10.7.1, 3.10.7.2; the fast path is the header prediction of RFC 7323
 *       appendix D.
 */
#include "tcpstack/internal.h"

#include <assert.h>

#define FLAGS_KNOWN (TCP_FIN | TCP_SYN | TCP_RST | TCP_PSH | TCP_ACK | TCP_URG)
#define FLAGS_ALL   (FLAGS_KNOWN | TCP_ECE | TCP_CWR) /* these two mean something on the general path alone */
#define ECN_CE      3u

static void segment(struct tcps_conn *c, struct tcps_seg *s)
{
	bool was_busy = tcps_conn_enter(c);
	tcps_segment(c, s);
	tcps_conn_leave(c, was_busy);
}

/* A segment for which there is no connection block. */
static __attribute__((noinline)) void stray(struct tcps *t, struct tcps_seg *s)
{
	if (tcps_source_is_bad(t, &s->peer)) {
		TCPS_COUNT(t, drop_bad_source);
		return;
	}
	struct tcps_mini *m = tcps_mini_find(t, &t->half_open, &s->peer);
	if (m != NULL) {
		struct tcps_conn *c = NULL;
		if (!tcps_options_parse_ts(s)) {
			TCPS_COUNT(t, drop_bad_tcp_options);
			return;
		}
		if (!tcps_half_open_input(t, m, s, &c) && c != NULL)
			segment(c, s);
		return;
	}
	m = tcps_mini_find(t, &t->time_wait, &s->peer);
	if (m != NULL) {
		if (tcps_options_parse_ts(s))
			tcps_time_wait_input(t, m, s);
		else
			TCPS_COUNT(t, drop_bad_tcp_options);
		return;
	}
	uint8_t ports[4];
	put_raw32(ports, s->peer.ports_raw);
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
	struct tcps_conn *c = NULL;
	if (listening && tcps_options_parse_ts(s) && tcps_cookie_input(t, s, &c)) {
		if (c != NULL)
			segment(c, s);
		return;
	}
	if (listening && t->ops.elsewhere != NULL && t->ops.elsewhere(t->ctx))
		return;
	/* It may be later data of a handshake that was answered by a cookie; a reset would end what its first segment opens. */
	if (listening && t->now_ns < t->cookie_until_ns && (s->flags & (TCP_ACK | TCP_SYN | TCP_RST)) == TCP_ACK)
		return;
	TCPS_COUNT(t, no_listener);
	tcps_reset_reply(t, s);
}

/* The payload of the fast path: nothing is held, nothing queued, the reader has not stopped. */
static inline __attribute__((always_inline)) void lend_in_order(struct tcps *t, struct tcps_conn *c, const uint8_t *data,
								uint32_t len)
{
	/* Before the reader, which may well have something to send. */
	if (__builtin_expect((c->flags & CF_TOUCHED) == 0, 1))
		tcps_touch_new(t, c);
	c->flags |= CF_IN_DATA | CF_BUSY;
	size_t n = t->ops.on_data(c->user, data, len);
	if (__builtin_expect(n != len || (c->flags & CF_DEAD) != 0, 0)) {
		assert(n <= len);
		c->flags &= ~CF_IN_DATA;
		tcps_recv_short(c, data, len, (uint32_t)n);
		tcps_conn_leave(c, false);
		return;
	}
	c->flags &= ~(CF_IN_DATA | CF_BUSY);
	uint32_t before = c->rcv_nxt;
	c->rx_head_seq = c->rcv_nxt = before + len;
	if (__builtin_expect(c->rcv_nxt < before, 0))
		c->cold->rcv_wraps++;
	TCPS_COUNT_ADD(t, bytes_in, len);
	c->ack_segments = (uint8_t)(c->ack_segments << 1 | 1);
}

/* Nothing of a window that only moves is worth a call; one that shuts, or grows beyond all before, is. */
static inline void take_window(struct tcps_conn *c, uint32_t wnd)
{
	if (__builtin_expect(wnd - 1 >= c->cold->snd_wnd_max, 0))
		tcps_window_changed(c, wnd);
	else
		c->snd_wnd = wnd; /* what waits for it goes out with the ACK or the data that came along */
}

/* All of what output_whole() sent is acknowledged, and nothing was queued since: the life of most ticks. */
static inline __attribute__((always_inline)) void acked_whole(struct tcps *t, struct tcps_conn *c, uint32_t ack, uint32_t acked)
{
	tcps_rtt_sample(c, t->now_us - c->whole_us);
	c->snd_una = ack;
	c->flags &= ~CF_WHOLE;
	c->rexmt_deadline_ns = TCPS_NEVER;
	tcps_send_keep(t, c, acked);
	if (__builtin_expect(acked + 2u * c->mss >= c->cwnd_bytes, 0))
		tcps_cc_acked(c, acked, acked);
}

/* What is noted of an ordinary segment before its ACK and its bytes are taken. */
static inline __attribute__((always_inline)) void note_segment(struct tcps *t, struct tcps_conn *c, const uint8_t *tcp,
							       uint32_t seq, bool ts, uint32_t ts_val)
{
	if (ts && seq == c->last_ack_sent) /* RFC 7323 4.3: the echo is of the first segment not acknowledged yet */
		c->ts_recent = ts_val;
	c->snd_wl1 = seq;
	c->last_rx_ms = tcps_coarse_ms(t->now_ns);
	TCPS_COUNT(t, segments_in);
	TCPS_COUNT(t, fast_path_in);
	take_window(c, (uint32_t)get_be16(tcp + 14) << c->snd_wscale);
}

/*
 * RFC 7323 appendix D: what is next in order, with nothing special about it. False: the general path has to look, and
 * nothing has changed. `left`: bytes from the TCP header on, which is whole but for its options; `ts` is known where this is
 * inlined: whether the connection has timestamps.
 */
static inline __attribute__((always_inline)) bool fast_path(struct tcps *t, struct tcps_conn *c, const uint8_t *tcp, uint32_t left,
							    bool ts)
{
	const uint16_t looked_at = htobe16(0xf000 | (FLAGS_KNOWN & ~TCP_PSH));
	const uint32_t header_len = TCP_HLEN + (ts ? TCP_OPT_TS_LEN : 0);
	uint32_t seq = get_be32(tcp + 4), ack = get_be32(tcp + 8), flags = c->flags;
	if (TCPS_GENERAL_ONLY)
		return false;
	uint32_t acked = ack - c->snd_una, len = left - header_len; /* too short for its options: longer than any window */
	/* The state is in plain_raw, too. */
	if (__builtin_expect((((get_raw16(tcp + 12) & looked_at) ^ c->plain_raw) | (seq ^ c->rcv_nxt) |
			      ((flags & (CF_SLOW_INPUT | CF_TS)) ^ (ts ? CF_TS : 0))) != 0,
			     0) ||
	    __builtin_expect(len > c->rcv_adv - c->rcv_nxt, 0) ||
	    __builtin_expect(seq_lt(seq, c->snd_wl1), 0)) /* a later one, come before its turn, told of the window already */
		return false;
	uint32_t ts_val = 0;
	if (ts) {
		/* NOP NOP TS, as every stack sends it. */
		ts_val = get_be32(tcp + TCP_HLEN + 4);
		if (__builtin_expect(get_raw32(tcp + TCP_HLEN) != htobe32(TCP_OPT_TS_WORD) || seq_lt(ts_val, c->ts_recent), 0))
			return false;
	}
	if (__builtin_expect((flags & CF_WHOLE) != 0, 1) && __builtin_expect(ack == c->snd_max, 1) &&
	    __builtin_expect(acked == c->snd_buf_bytes, 1)) {
		note_segment(t, c, tcp, seq, ts, ts_val);
		acked_whole(t, c, ack, acked);
	} else {
		if (acked > c->snd_max - c->snd_una || (acked | len) == 0 || (acked != 0 && !tcps_ack_is_plain(c, ack)))
			return false;
		note_segment(t, c, tcp, seq, ts, ts_val);
		if (acked != 0) {
			c->flags |= CF_BUSY;
			tcps_acked(c, ack);
			if (len == 0 || (c->flags & CF_DEAD) != 0) {
				tcps_conn_leave(c, false);
				return true;
			}
		}
	}
	if (len != 0)
		lend_in_order(t, c, tcp + header_len, len);
	return true;
}

/* The length of the TCP header, or 0: dropped and counted. */
static uint32_t tcp_header_len(struct tcps *t, const uint8_t *tcp, uint32_t left)
{
	uint32_t header_len = (tcp[12] >> 4) * 4u;
	if (header_len >= TCP_HLEN && header_len <= left)
		return header_len;
	TCPS_COUNT(t, drop_bad_tcp_offset);
	return 0;
}

/* `left`: bytes from the TCP header on, whose checksum is right. */
static __attribute__((noinline)) void slow_path(struct tcps *t, struct tcps_conn *c, const uint8_t *frame,
						const struct tcps_peer *peer, const uint8_t *ip, const uint8_t *tcp, uint32_t left)
{
	uint32_t ecn = peer->v6 ? ip[1] >> 4 : ip[1], header_len = tcp_header_len(t, tcp, left);
	if (header_len == 0)
		return;
	TCPS_COUNT(t, segments_in);
	struct tcps_seg s = {.data = tcp + header_len,
			     .len = left - header_len,
			     .seq = get_be32(tcp + 4),
			     .ack = get_be32(tcp + 8),
			     .peer = *peer,
			     .wnd = get_be16(tcp + 14),
			     .flags = tcp[13] & FLAGS_ALL,
			     .ce = (ecn & ECN_CE) == ECN_CE,
			     .frame = frame,
			     .opts = tcp + TCP_HLEN,
			     .opts_len = header_len - TCP_HLEN};
	if (c == NULL) {
		stray(t, &s);
		return;
	}
	if (!tcps_options_parse_ts(&s)) {
		TCPS_COUNT(t, drop_bad_tcp_options);
		return;
	}
	segment(c, &s);
}

/* For all but untagged IPv4 without IP options and with timestamps: a second copy for it would cost that one its place. */
static __attribute__((noinline)) bool fast_path_call(struct tcps *t, struct tcps_conn *c, const uint8_t *tcp, uint32_t left)
{
	return (c->flags & CF_TS) != 0 ? fast_path(t, c, tcp, left, true) : fast_path(t, c, tcp, left, false);
}

/* An untagged IPv4 frame without IP options. */
static __attribute__((noinline)) void slow_path4(struct tcps *t, struct tcps_conn *c, const uint8_t *frame, uint32_t left)
{
	const uint8_t *ip = frame + ETH_HLEN, *tcp = frame + TCP_OFFSET;
	struct tcps_peer peer;
	if (c == &t->nobody)
		c = NULL;
	if (c != NULL && (c->flags & CF_TS) == 0 && fast_path_call(t, c, tcp, left))
		return;
	tcps_peer4(&peer, get_raw32(ip + 12), get_raw32(tcp));
	slow_path(t, c, frame, &peer, ip, tcp, left);
}

static inline uint64_t addr_sum4(const struct tcps *t, const uint8_t *ip)
{
	return (uint64_t)get_raw32(ip + 12) + t->addr_raw;
}

static __attribute__((noinline)) void bad_cksum(struct tcps *t, const uint8_t *tcp, uint32_t left)
{
	if (tcp_header_len(t, tcp, left) != 0)
		TCPS_COUNT(t, drop_bad_tcp_cksum);
}

/* There are 20 bytes at least. False: dropped and counted. */
static inline bool cksum_good(struct tcps *t, uint64_t addr_sum, const uint8_t *tcp, uint32_t left, uint32_t rx_flags)
{
	if (rx_flags & TCPS_RX_L4_CKSUM_GOOD)
		return true;
	uint64_t pseudo = addr_sum + htobe16(IPPROTO_TCP_NUM) + htobe16((uint16_t)left);
	if (__builtin_expect(tcps_sum_fold64(tcps_sum_words(pseudo, tcp, left)) == 0xffff, 1))
		return true;
	bad_cksum(t, tcp, left);
	return false;
}

static inline __attribute__((always_inline)) void tcp_input(struct tcps *t, const uint8_t *frame, uint32_t left, uint32_t rx_flags)
{
	const uint8_t *ip = frame + ETH_HLEN, *tcp = frame + TCP_OFFSET;
	if (__builtin_expect(!cksum_good(t, addr_sum4(t, ip), tcp, left, rx_flags), 0))
		return;
	struct tcps_conn *c = tcps_conn_find(t, get_raw32(ip + 12), get_raw32(tcp));
	if (__builtin_expect(c == NULL, 0) || __builtin_expect(!fast_path(t, c, tcp, left, true), 0))
		slow_path4(t, c, frame, left);
}

/* Behind IP options, or behind a tag. */
static __attribute__((noinline)) void tcp_unusual(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t ip_header_len,
						  uint32_t left, uint32_t rx_flags)
{
	const uint8_t *tcp = ip + ip_header_len;
	if (left < TCP_HLEN) {
		TCPS_COUNT(t, drop_short_tcp);
		return;
	}
	if (!cksum_good(t, addr_sum4(t, ip), tcp, left, rx_flags))
		return;
	struct tcps_peer peer;
	tcps_peer4(&peer, get_raw32(ip + 12), get_raw32(tcp));
	struct tcps_conn *c = tcps_conn_find_peer(t, &peer);
	if (c == NULL || !fast_path_call(t, c, tcp, left))
		slow_path(t, c, frame, &peer, ip, tcp, left);
}

/* Whatever is not the ordinary case below: options, fragments, other protocols, malformed headers. `len`: from `ip` on. */
static __attribute__((noinline)) void ipv4_unusual(struct tcps *t, const uint8_t *frame, const uint8_t *ip, size_t len,
						   uint32_t rx_flags)
{
	if (len < IPV4_HLEN) {
		TCPS_COUNT(t, drop_short);
		return;
	}
	uint32_t header_len = (ip[0] & 0xfu) * 4u;
	uint32_t total = get_be16(ip + 2);
	if (ip[0] >> 4 != 4 || header_len < IPV4_HLEN || total < header_len || total > len)
		TCPS_COUNT(t, drop_bad_ip_header);
	else if ((rx_flags & TCPS_RX_IP_CKSUM_GOOD) == 0 && tcps_sum_fold64(tcps_sum_words(0, ip, header_len)) != 0xffff)
		TCPS_COUNT(t, drop_bad_ip_cksum);
	else if (get_raw32(ip + 16) != t->addr_raw)
		TCPS_COUNT(t, drop_not_for_us);
	else if ((get_be16(ip + 6) & IPV4_FRAGMENT_MASK) != 0)
		TCPS_COUNT(t, drop_fragment);
	else if (ip[9] == IPPROTO_TCP_NUM)
		tcp_unusual(t, frame, ip, header_len, total - header_len, rx_flags);
	else
		tcps_ipv4_other(t, frame, ip, header_len, total);
}

/* IPv4 without options, not a fragment, TCP, for us, and no padding behind it: a few comparisons tell. There are 54 bytes. */
static inline void ipv4_input(struct tcps *t, const uint8_t *frame, size_t len, uint32_t rx_flags)
{
	const uint8_t *ip = frame + ETH_HLEN;
	const uint32_t frag_protocol_mask = htobe32(IPV4_FRAGMENT_MASK << 16 | 0xff), tcp_unfragmented = htobe32(IPPROTO_TCP_NUM);
	if (__builtin_expect(ip[0] != 0x45 || (get_raw32(ip + 6) & frag_protocol_mask) != tcp_unfragmented ||
				     get_raw32(ip + 16) != t->addr_raw,
			     0)) {
		ipv4_unusual(t, frame, ip, len - ETH_HLEN, rx_flags);
		return;
	}
	bool sum_good = (rx_flags & TCPS_RX_IP_CKSUM_GOOD) != 0 || tcps_sum_fold64(tcps_sum20(0, ip)) == 0xffff;
	if (__builtin_expect(get_raw16(ip + 2) != htobe16((uint16_t)(len - ETH_HLEN)) || !sum_good, 0))
		ipv4_unusual(t, frame, ip, len - ETH_HLEN, rx_flags);
	else
		tcp_input(t, frame, (uint32_t)len - TCP_OFFSET, rx_flags);
}

/* A TCP segment over IPv6, for one of our addresses. */
static inline void tcp_input6(struct tcps *t, const uint8_t *frame, const uint8_t *ip, const uint8_t *tcp, uint32_t left,
			      unsigned own, uint32_t rx_flags)
{
	if (left < TCP_HLEN) {
		TCPS_COUNT(t, drop_short_tcp);
		return;
	}
	if (!cksum_good(t, tcps_addr_sum6(ip + 8, ip + 24), tcp, left, rx_flags))
		return;
	struct tcps_conn *c = tcps_conn_find6(t, ip + 8, get_raw32(tcp), own);
	if (__builtin_expect(c != NULL, 1) && fast_path_call(t, c, tcp, left))
		return;
	struct tcps_peer peer;
	tcps_peer6(t, &peer, ip + 8, get_raw32(tcp), own);
	slow_path(t, c, frame, &peer, ip, tcp, left);
}

/* Which of our addresses that are in use it is; OWN_V4: none. */
static inline unsigned own_of(const struct tcps *t, const uint8_t dst[16])
{
	if (t->own[OWN_GLOBAL].state == OWN_READY && tcps_addr6_equal(t->own[OWN_GLOBAL].addr, dst))
		return OWN_GLOBAL;
	return t->own[OWN_LINK].state == OWN_READY && tcps_addr6_equal(t->own[OWN_LINK].addr, dst) ? OWN_LINK : OWN_V4;
}

static __attribute__((noinline)) void ipv6_input(struct tcps *t, const uint8_t *frame, const uint8_t *ip, size_t len,
						 uint32_t rx_flags)
{
	if (len < IPV6_HLEN) {
		TCPS_COUNT(t, drop_short);
		return;
	}
	uint32_t left = get_be16(ip + 4);
	if (ip[0] >> 4 != 6 || left > len - IPV6_HLEN) {
		TCPS_COUNT(t, drop_bad_ip_header);
		return;
	}
	const uint8_t *tcp = ip + IPV6_HLEN;
	unsigned own = own_of(t, ip + 24);
	if (__builtin_expect(ip[6] != IPPROTO_TCP_NUM || own == OWN_V4 || (frame[0] & 1) != 0, 0)) {
		tcp = tcps_ipv6_other(t, frame, ip, &left);
		if (tcp == NULL)
			return;
	}
	tcp_input6(t, frame, ip, tcp, left, own, rx_flags);
}

/* The packet in a frame that is not the ordinary one, or bore a tag. */
static __attribute__((noinline)) void packet_input(struct tcps *t, const uint8_t *frame, const uint8_t *packet, size_t len,
						   uint16_t type, uint32_t rx_flags)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	bool to_us = memcmp(frame, t->cfg.mac, 6) == 0, ipv6 = type == ETH_TYPE_IPV6 && t->own[OWN_LINK].state != OWN_ABSENT;
	if (type == ETH_TYPE_ARP && (to_us || memcmp(frame, broadcast, 6) == 0))
		tcps_arp_input(t, frame, packet, len);
	else if (type == ETH_TYPE_IPV4 && to_us && t->own[OWN_V4].state == OWN_READY)
		ipv4_unusual(t, frame, packet, len, rx_flags);
	else if (type == ETH_TYPE_IPV4 && to_us)
		TCPS_COUNT(t, drop_tentative);
	else if (ipv6 && (to_us || (frame[0] == 0x33 && frame[1] == 0x33)))
		ipv6_input(t, frame, packet, len, rx_flags);
	else if (type == ETH_TYPE_IPV4 || type == ETH_TYPE_ARP || ipv6)
		TCPS_COUNT(t, drop_not_for_us);
	else
		TCPS_COUNT(t, drop_ethertype);
}

/* IEEE 802.1Q 9.6: a tag with VLAN 0 tells a priority and nothing else. */
static __attribute__((noinline)) void other_frame(struct tcps *t, const uint8_t *frame, size_t len, uint32_t rx_flags)
{
	if (len < ETH_HLEN) {
		TCPS_COUNT(t, drop_short);
		return;
	}
	const uint8_t *at = frame + ETH_HLEN - 2;
	uint32_t vlan = (rx_flags & TCPS_RX_VLAN_STRIPPED) != 0 ? rx_flags >> 16 & VLAN_ID_MASK : 0;
	size_t left = len - ETH_HLEN;
	uint16_t type = get_be16(at);
	if (type == ETH_TYPE_VLAN && (rx_flags & TCPS_RX_VLAN_STRIPPED) == 0) {
		if (left < VLAN_HLEN) {
			TCPS_COUNT(t, drop_short);
			return;
		}
		vlan = get_be16(at + 2) & VLAN_ID_MASK;
		at += VLAN_HLEN;
		left -= VLAN_HLEN;
		type = get_be16(at);
	}
	if (vlan != t->cfg.vlan_id)
		TCPS_COUNT(t, drop_vlan);
	else
		packet_input(t, frame, at + 2, left, type, rx_flags);
}

void tcps_input(struct tcps *t, const uint8_t *frame, size_t len, uint32_t rx_flags, uint64_t now_ns)
{
	tcps_clock(t, now_ns);
	TCPS_COUNT(t, frames_in);
	/* One branch for three questions: for us, IPv4 without a tag (which may be all that is waited for), no tag taken off. */
	if (__builtin_expect(len < TCP_OFFSET + TCP_HLEN, 0)) {
		other_frame(t, frame, len, rx_flags);
		return;
	}
	uint64_t differs = (tcps_load64(frame) ^ t->mac_raw) & htobe64(0xffffffffffff0000u);
	differs |= (get_raw16(frame + 12) ^ t->fast_type_raw) | (rx_flags & TCPS_RX_VLAN_STRIPPED);
	if (__builtin_expect(differs == 0, 1))
		ipv4_input(t, frame, len, rx_flags);
	else
		other_frame(t, frame, len, rx_flags);
}

void tcps_overhear(struct tcps *t, const uint8_t *frame, size_t len, uint32_t rx_flags, uint64_t now_ns)
{
	t->overhears = true;
	tcps_input(t, frame, len, rx_flags, now_ns);
	t->overhears = false;
}
