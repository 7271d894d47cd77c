/*
 * icmp.c - ICMP errors of both families: believed only when they fit a live connection, and sent sparingly.
 *
 * Owns: the rate limit of what is sent; a connection's soft_error.
 * Core: the worker that owns the stack.
 * Spec: RFC 5927 4 and 7, RFC 5461, RFC 1122 3.2.2 and 4.2.3.9, RFC 4443 2.4, RFC 1191, RFC 8201.
 *
 * Whoever sends an error off the path has to guess ports and a sequence number that is in flight. An error about a
 * connection that is established never ends it: what cannot be reached now may be in a minute.
 */
#include "tcpstack/internal.h"

#define ICMPS_PER_SECOND_MAX 100u
#define QUOTE4_MAX           548u /* RFC 1812 4.3.2.3: at most 576 bytes in all */

enum verdict { SOFT, REFUSED, FORBIDDEN, TOO_BIG };

static enum verdict judge4(uint8_t type, uint8_t code)
{
	if (type != ICMP4_UNREACHABLE)
		return SOFT;
	switch (code) {
	case 2: /* protocol */
	case 3: /* port */
		return REFUSED;
	case 4: /* fragmentation needed and DF set */
		return TOO_BIG;
	case 9:
	case 10:
	case 13: /* administratively prohibited */
		return FORBIDDEN;
	default:
		return SOFT;
	}
}

static enum verdict judge6(uint8_t type, uint8_t code)
{
	if (type == ICMP6_TOO_BIG)
		return TOO_BIG;
	if (type == ICMP6_UNREACHABLE && code == 4)
		return REFUSED;
	if (type == ICMP6_PARAMETER && code == 1)
		return REFUSED; /* it does not speak TCP */
	if (type == ICMP6_UNREACHABLE && (code == 1 || code == 5 || code == 6))
		return FORBIDDEN;
	return SOFT;
}

/* RFC 1191 7.1: where an old router does not say how much fits, the next plateau below what did not. */
static uint32_t plateau_below(uint32_t len)
{
	static const uint16_t plateaus[] = {8166, 4352, 2002, 1492, 1006, 576};
	for (unsigned i = 0; i < sizeof(plateaus) / sizeof(plateaus[0]); i++) {
		if (plateaus[i] < len)
			return plateaus[i];
	}
	return 0;
}

/* Our own packet, as the error quotes it. */
struct quote {
	struct tcps_peer peer;
	uint32_t seq;
	uint32_t packet_len;
};

static uint32_t turned(uint32_t ports_raw)
{
	return ports_raw << 16 | ports_raw >> 16;
}

static bool read_quote4(const struct tcps *t, const uint8_t *ip, uint32_t len, struct quote *q)
{
	uint32_t header_len = len == 0 ? 0 : (ip[0] & 0xfu) * 4u;
	if (len < IPV4_HLEN || ip[0] >> 4 != 4 || header_len < IPV4_HLEN || len < header_len + 8 || ip[9] != IPPROTO_TCP_NUM ||
	    get_raw32(ip + 12) != t->addr_raw || (get_be16(ip + 6) & 0x1fffu) != 0)
		return false;
	tcps_peer4(&q->peer, get_raw32(ip + 16), turned(get_raw32(ip + header_len)));
	q->seq = get_be32(ip + header_len + 4);
	q->packet_len = get_be16(ip + 2);
	return true;
}

/* We send no extension headers: behind the base header comes TCP. */
static bool read_quote6(struct tcps *t, const uint8_t *ip, uint32_t len, struct quote *q)
{
	if (len < IPV6_HLEN + 8 || ip[0] >> 4 != 6 || ip[6] != IPPROTO_TCP_NUM)
		return false;
	const struct tcps_own *own = tcps_own_find6(t, ip + 8);
	if (own == NULL)
		return false;
	tcps_peer6(t, &q->peer, ip + 24, turned(get_raw32(ip + IPV6_HLEN)), (unsigned)(own - t->own));
	q->seq = get_be32(ip + IPV6_HLEN + 4);
	q->packet_len = IPV6_HLEN + get_be16(ip + 4);
	return true;
}

/* RFC 5927 4.1: the error must be about something that is in flight. */
static bool in_flight(const struct tcps_conn *c, uint32_t seq)
{
	return seq - c->snd_una < c->snd_max - c->snd_una;
}

/* RFC 5927 7.2: a packet that fits what is claimed was not refused for its size; and no path gets wider by an error. */
static void too_big(struct tcps_conn *c, const struct quote *q, uint32_t mtu)
{
	struct tcps *t = c->t;
	uint32_t least = t->cfg.pmtu_min != 0 ? t->cfg.pmtu_min : TCPS_PMTU_FLOOR;
	if (q->peer.v6)
		least = IPV6_MTU_MIN;
	else if (mtu == 0)
		mtu = plateau_below(q->packet_len);
	uint32_t known = tcps_pmtu_of(t, q->peer.v6, q->peer.addr);
	bool narrower = mtu < q->packet_len && q->packet_len <= t->cfg.mtu;
	if (!q->peer.v6 && mtu < least)
		mtu = least;
	if (!narrower || mtu < least) {
		TCPS_COUNT(t, pmtu_ignored);
		return;
	}
	/* Another connection to there may have learnt it before: then this one follows what is known. */
	uint16_t before = c->mss;
	if (mtu < known)
		tcps_pmtu_note(t, q->peer.v6, q->peer.addr, mtu);
	tcps_conn_pmtu(c);
	TCPS_COUNT_ADD(t, pmtu_lowered, mtu < known);
	TCPS_COUNT_ADD(t, pmtu_ignored, mtu >= known && c->mss == before);
}

static void about_conn(struct tcps_conn *c, const struct quote *q, enum verdict verdict, uint8_t type, uint8_t code, uint32_t mtu)
{
	struct tcps *t = c->t;
	if (verdict == TOO_BIG) {
		too_big(c, q, mtu);
		return;
	}
	c->cold->soft_error = (uint16_t)(type << 8 | code);
	/* RFC 5461 3.1: before the handshake is through, and with the number of our SYN, a hard error ends the attempt. */
	if (verdict == SOFT || c->state >= TCPS_ESTABLISHED) {
		TCPS_COUNT(t, icmp_soft);
		return;
	}
	TCPS_COUNT(t, icmp_hard);
	tcps_conn_close(c, verdict == REFUSED ? TCPS_CLOSED_REFUSED : TCPS_CLOSED_UNREACHABLE);
}

void tcps_icmp_error(struct tcps *t, bool v6, uint8_t type, uint8_t code, uint32_t info, const uint8_t *quoted, uint32_t len)
{
	struct quote q;
	TCPS_COUNT(t, icmp_errors_in);
	struct tcps_conn *c = NULL;
	if (v6 ? read_quote6(t, quoted, len, &q) : read_quote4(t, quoted, len, &q))
		c = tcps_conn_find_peer(t, &q.peer);
	if (c == NULL || (c->flags & CF_DEAD) != 0 || !in_flight(c, q.seq)) {
		TCPS_COUNT(t, icmp_ignored);
		return;
	}
	bool was_busy = tcps_conn_enter(c);
	about_conn(c, &q, v6 ? judge6(type, code) : judge4(type, code), type, code, v6 ? info : info & 0xffff);
	tcps_conn_leave(c, was_busy);
}

bool tcps_icmp_allowed(struct tcps *t)
{
	if (t->now_ns - t->icmp_limit_ns >= 1000000000u) {
		t->icmp_limit_ns = t->now_ns;
		t->icmp_limit_count = 0;
	}
	if (t->icmp_limit_count >= ICMPS_PER_SECOND_MAX) {
		TCPS_COUNT(t, icmp_limited);
		return false;
	}
	t->icmp_limit_count++;
	return true;
}

/* RFC 4443 2.4 (e) and RFC 1122 3.2.2: never about an error, nor to or about what is not one host's. */
static bool may_complain(const struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t len)
{
	if ((frame[0] & 1) != 0)
		return false;
	if (ip[0] >> 4 == 4) {
		uint32_t header_len = (ip[0] & 0xfu) * 4u;
		return !tcps_source4_is_bad(t, get_raw32(ip + 12)) && ip[9] != IPPROTO_ICMP_NUM && len >= header_len;
	}
	if (tcps_source6_is_bad(t, ip + 8) || ip[24] == 0xff)
		return false;
	/* Behind extension headers an error may hide: what begins with options is quoted only if they lead to something else. */
	uint32_t at = IPV6_HLEN;
	uint8_t kind = ip[6];
	while ((kind == IPPROTO_HOPOPTS || kind == IPPROTO_DSTOPTS || kind == IPPROTO_ROUTING6) && len >= at + 8) {
		kind = ip[at];
		at += (ip[at + 1] + 1u) * 8u;
	}
	return kind != IPPROTO_ICMP6_NUM || (at < len && (ip[at] & 0x80) != 0 && ip[at] != 137);
}

static void send4(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t len, uint8_t type, uint8_t code)
{
	uint32_t quoted = len < QUOTE4_MAX ? len : QUOTE4_MAX;
	size_t total = IPV4_HLEN + ICMP_HLEN + quoted;
	uint32_t peer = get_raw32(ip + 12);
	void *handle;
	uint8_t *f = tcps_frame_alloc(t, total, &handle);
	if (f == NULL)
		return;
	uint8_t *out = tcps_eth_header(t, f, frame + 6, ETH_TYPE_IPV4), *body = out + IPV4_HLEN;
	tcps_ipv4_header(t, out, peer, IPPROTO_ICMP_NUM, total, tcps_addr_sum(t->addr_raw, peer));
	memset(body, 0, ICMP_HLEN);
	body[0] = type;
	body[1] = code;
	memcpy(body + ICMP_HLEN, ip, quoted);
	put_raw16(body + 2, (uint16_t)~tcps_sum_fold64(tcps_sum_words(0, body, ICMP_HLEN + quoted)));
	const struct tcps_tx_meta meta = tcps_plain_meta(t, true);
	tcps_frame_send(t, handle, total, &meta);
	TCPS_COUNT(t, icmp_errors_out);
}

static void send6(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t len, uint8_t type, uint8_t code, uint32_t info)
{
	const uint32_t most = IPV6_MTU_MIN - IPV6_HLEN - ICMP_HLEN;
	uint32_t quoted = len < most ? len : most;
	struct tcps_out6 out = {.len = ICMP_HLEN + quoted};
	if (!tcps_icmp6_open(t, &out, frame + 6, ip + 24, ip + 8, IPV6_HOP_LIMIT))
		return;
	out.body[0] = type;
	out.body[1] = code;
	put_be32(out.body + 4, info);
	memcpy(out.body + ICMP_HLEN, ip, quoted);
	tcps_icmp6_close(t, &out);
	TCPS_COUNT(t, icmp_errors_out);
}

void tcps_icmp_error_send(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t len, uint8_t type, uint8_t code,
			  uint32_t info)
{
	if (!may_complain(t, frame, ip, len) || !tcps_icmp_allowed(t))
		return;
	if (ip[0] >> 4 == 4)
		send4(t, frame, ip, len, type, code);
	else
		send6(t, frame, ip, len, type, code, info);
}
