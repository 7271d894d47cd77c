/*
 * cookie.c - passive opens that cost no memory: when the SYN cache is full, the SYN-ACK itself carries what must be remembered.
 *
 * Owns: cookie_until_ns, which says for how long an ACK may be the answer to a cookie.
 * Core: the worker that owns the stack.
 * Spec: RFC 4987 3.6; the options in the timestamp are our own layout, as every stack has its own.
 *
 * Sequence number: 5 bits of time (68 s each), 3 bits for the MSS, 24 bits of a keyed hash of the tuple, the peer's number and
 * all of that. Timestamp: its lowest 6 bits are the window scale (15: none) and whether SACK and ECN were offered; the rest is the
 * time rounded down, so that what the connection sends later is never older.
 *
 * A late copy of the answer would open the connection a second time after it was closed. A table remembers the last cookies that
 * were used; what it has forgotten, TIME_WAIT and the numbers of the new connection must bear, as with every stack.
 */
#include "tcpstack/internal.h"

#define SLOT_SHIFT   36u
#define SLOT_BITS    5u
#define SLOTS_VALID  2u
#define HASH_MASK    0xffffffu
#define TS_BITS      0x3fu
#define TS_NO_WSCALE 0xfu
#define TS_SACK      0x10u
#define TS_ECN       0x20u
#define MSS_CHOICES  8u

static const uint16_t mss_of[MSS_CHOICES] = {216, 536, 1188, 1220, 1360, 1440, 1460, 8960};

static uint32_t hash(const struct tcps *t, const struct tcps_peer *peer, uint32_t irs, uint64_t slot, unsigned mss)
{
	const uint8_t *own = t->own[peer->own].addr;
	const uint64_t words[7] = {tcps_load64(peer->addr),       tcps_load64(peer->addr + 8),           tcps_load64(own),
				   tcps_load64(own + 8),          (uint64_t)peer->ports_raw << 32 | irs, slot << 3 | mss,
				   (uint64_t)57 << 56 | peer->own}; /* a length that no other use of the key has */
	return (uint32_t)tcps_siphash24(t->cfg.secret, words, 7) & HASH_MASK;
}

static unsigned mss_choice(uint16_t mss)
{
	unsigned i = MSS_CHOICES - 1;
	while (i > 0 && mss_of[i] > mss)
		i--;
	return i;
}

bool tcps_cookie_due(const struct tcps *t)
{
	return t->cfg.syn_cookies && t->half_open.count == t->half_open.max;
}

/* Makes the record for a SYN-ACK that will be forgotten: its number and, by way of the offset, its timestamp are the cookie. */
void tcps_cookie_make(struct tcps *t, struct tcps_mini *m)
{
	uint64_t slot = t->now_ns >> SLOT_SHIFT;
	unsigned mss = mss_choice(m->peer_mss);
	m->snd_seq = (uint32_t)(slot << (32 - SLOT_BITS)) | mss << 24 | hash(t, &m->peer, m->rcv_seq, slot, mss);
	t->cookie_until_ns = (slot + SLOTS_VALID) << SLOT_SHIFT;
	if (!m->has_ts) {
		/* Nowhere to remember them. */
		m->has_wscale = m->has_sack = m->has_ecn = false;
		return;
	}
	uint32_t now = tcps_ts_now(t, m->ts_offset);
	uint32_t ts = (now & ~TS_BITS) | (m->has_wscale ? m->snd_wscale : TS_NO_WSCALE) | (m->has_sack ? TS_SACK : 0) |
		      (m->has_ecn ? TS_ECN : 0);
	if (seq_gt(ts, now))
		ts -= TS_BITS + 1;
	m->ts_offset += ts - now;
}

/* Notes a cookie as used. False: it was before. */
static bool use_once(struct tcps *t, const struct tcps_peer *peer, uint32_t cookie)
{
	uint64_t mark = ((uint64_t)(peer->key ^ peer->ports_raw * 0x9e3779b1u) << 32 | cookie) + 1;
	uint64_t *place = &t->cookies_used[(cookie ^ mark >> 32) & (TCPS_COOKIES_USED - 1)];
	if (*place == mark)
		return false;
	*place = mark;
	return true;
}

/* An ACK for which there is no record: is it the answer to a cookie? Then *m is what a record of the handshake would be. */
bool tcps_cookie_check(struct tcps *t, const struct tcps_seg *s, struct tcps_mini *m)
{
	if (t->now_ns >= t->cookie_until_ns || (s->flags & (TCP_ACK | TCP_SYN | TCP_RST)) != TCP_ACK)
		return false;
	uint32_t cookie = s->ack - 1, irs = s->seq - 1;
	uint64_t slot = t->now_ns >> SLOT_SHIFT, age = (slot - (cookie >> (32 - SLOT_BITS))) & ((1u << SLOT_BITS) - 1);
	unsigned mss = cookie >> 24 & (MSS_CHOICES - 1);
	if (age >= SLOTS_VALID || hash(t, &s->peer, irs, slot - age, mss) != (cookie & HASH_MASK)) {
		TCPS_COUNT(t, cookies_bad);
		return false;
	}
	if (t->conn_free_idx == TCPS_NIL) {
		TCPS_COUNT(t, drop_no_conn); /* the peer says it again, and the cookie is still good then */
		return false;
	}
	if (!use_once(t, &s->peer, cookie)) {
		TCPS_COUNT(t, cookies_again);
		return false;
	}
	uint32_t iss;
	*m = (struct tcps_mini){.peer = s->peer, .snd_seq = cookie, .rcv_seq = irs, .peer_mss = mss_of[mss]};
	tcps_isn(t, &s->peer, &iss, &m->ts_offset);
	if (s->has_ts) {
		uint32_t said = s->ts_ecr & TS_BITS;
		m->has_ts = true;
		m->ts_recent = s->ts_val;
		m->has_wscale = (said & TS_NO_WSCALE) != TS_NO_WSCALE;
		m->snd_wscale = m->has_wscale ? said & TS_NO_WSCALE : 0;
		m->has_sack = (said & TS_SACK) != 0 && !t->cfg.no_sack;
		m->has_ecn = (said & TS_ECN) != 0 && t->cfg.ecn;
	}
	TCPS_COUNT(t, cookies_good);
	return true;
}
