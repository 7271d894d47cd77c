/*
 * pmtu.c - destinations whose path takes less than the link: a few, remembered for ten minutes.
 *
 * Owns: tcps.pmtu and its timer. A full table forgets what it learnt first; a connection keeps what it was told.
 * Core: the worker that owns the stack.
 * Spec: RFC 1191 6.3, RFC 8201 4 and 5.3 (increases are tried after ten minutes).
 */
#include "tcpstack/internal.h"

#define PMTU_AGE_NS 600000000000ull

static struct tcps_pmtu *find(struct tcps_pmtu *list, uint32_t count, bool v6, const uint8_t addr[16])
{
	for (uint32_t i = 0; i < count; i++) {
		if (list[i].v6 == v6 && tcps_addr6_equal(list[i].addr, addr))
			return &list[i];
	}
	return NULL;
}

uint32_t tcps_pmtu_of(const struct tcps *t, bool v6, const uint8_t addr[16])
{
	for (uint32_t i = 0; i < t->pmtu_count; i++) {
		const struct tcps_pmtu *p = &t->pmtu[i];
		if (p->v6 == v6 && tcps_addr6_equal(p->addr, addr))
			return p->mtu;
	}
	return t->cfg.mtu;
}

static uint32_t first_to_go(const struct tcps *t)
{
	uint32_t first = 0;
	for (uint32_t i = 1; i < t->pmtu_count; i++) {
		if (t->pmtu[i].until_ns < t->pmtu[first].until_ns)
			first = i;
	}
	return first;
}

void tcps_pmtu_note(struct tcps *t, bool v6, const uint8_t addr[16], uint32_t mtu)
{
	struct tcps_pmtu *p = find(t->pmtu, t->pmtu_count, v6, addr);
	if (p == NULL && t->pmtu_count < TCPS_PMTU_MAX) {
		p = &t->pmtu[t->pmtu_count++];
	} else if (p == NULL) {
		TCPS_COUNT(t, pmtu_forgotten);
		p = &t->pmtu[first_to_go(t)];
	}
	*p = (struct tcps_pmtu){.until_ns = t->now_ns + PMTU_AGE_NS, .v6 = v6, .mtu = (uint16_t)mtu};
	memcpy(p->addr, addr, 16);
	tcps_wheel_set(&t->wheel, &t->pmtu_timer, t->pmtu[first_to_go(t)].until_ns);
}

/* The connections to there try larger segments again: if the path is as narrow as before, it will say so. */
static void widen(struct tcps *t, const struct tcps_pmtu *p)
{
	for (uint32_t i = 0; i < t->cfg.conns_max; i++) {
		struct tcps_conn *c = &t->conns[i];
		struct tcps_peer peer;
		if (c->t == NULL || c->state < TCPS_ESTABLISHED || (c->flags & CF_DEAD) != 0)
			continue;
		tcps_conn_peer(c, &peer);
		if (peer.v6 == p->v6 && tcps_addr6_equal(peer.addr, p->addr))
			tcps_conn_pmtu(c);
	}
}

void tcps_pmtu_timer(struct tcps *t)
{
	for (uint32_t i = 0; i < t->pmtu_count;) {
		if (t->pmtu[i].until_ns > t->now_ns) {
			i++;
			continue;
		}
		const struct tcps_pmtu old = t->pmtu[i];
		t->pmtu[i] = t->pmtu[--t->pmtu_count];
		TCPS_COUNT(t, pmtu_aged);
		widen(t, &old);
	}
	if (t->pmtu_count > 0)
		tcps_wheel_set(&t->wheel, &t->pmtu_timer, t->pmtu[first_to_go(t)].until_ns);
}
