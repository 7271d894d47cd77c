/*
 * neigh.c - the neighbour table of both families: learning, asking, growing old, and who waits.
 *
 * Owns: struct tcps_neigh records and their hash table. arp.c and nd.c bring what the wire says and ask for us.
 * Core: the worker that owns the stack.
 * Spec: RFC 4861 7.2, 7.3 (neighbour unreachability detection, for IPv4 too), RFC 7048 (patience), RFC 1122 2.3.2.
 *
 * An entry that connections send through is never deleted: when it grows old it stays usable while it is asked again, first
 * at its known address and then by asking everyone, and only when nobody answers do its connections wait (their
 * retransmission timers go on), until somebody does. No packet waits here, so nothing but the table has to be bounded.
 */
#include "tcpstack/internal.h"

#include <assert.h>

#define NEIGH_REACHABLE_NS 30000000000ull /* RFC 4861 10; times 0.5 to 1.5 */
#define NEIGH_DELAY_NS     5000000000ull
#define NEIGH_ASK_NS       1000000000ull /* RFC 1122 2.3.2.1: at most one question a second */
#define NEIGH_FORGET_NS    600000000000ull
#define NEIGH_UNICAST_MAX  3u /* questions to the known address before everyone is asked */
#define NEIGH_TRIES_MAX    6u

static uint32_t bucket_of(const struct tcps *t, bool v6, const uint8_t addr[16])
{
	const uint64_t words[3] = {tcps_load64(addr), tcps_load64(addr + 8), v6};
	return (uint32_t)siphash(t->cfg.secret, words, 3, 1, 3) & t->neigh_bucket_mask;
}

struct tcps_neigh *tcps_neigh_find(const struct tcps *t, bool v6, const uint8_t addr[16])
{
	uint32_t idx = t->neigh_buckets[bucket_of(t, v6, addr)];
	while (idx != TCPS_NIL && (t->neighs[idx].v6 != v6 || !tcps_addr6_equal(t->neighs[idx].addr, addr)))
		idx = t->neighs[idx].hash_next_idx;
	return idx == TCPS_NIL ? NULL : &t->neighs[idx];
}

static void neigh_free(struct tcps *t, struct tcps_neigh *n)
{
	uint32_t idx = (uint32_t)(n - t->neighs);
	uint32_t *link = &t->neigh_buckets[bucket_of(t, n->v6, n->addr)];
	while (*link != idx)
		link = &t->neighs[*link].hash_next_idx;
	*link = n->hash_next_idx;
	tcps_wheel_del(&t->wheel, &n->timer);
	n->state = NEIGH_FREE;
	n->hash_next_idx = t->neigh_free_idx;
	t->neigh_free_idx = idx;
}

/* Whoever nobody sends through makes room; one that nobody answered for before one that is known. */
static bool make_room(struct tcps *t)
{
	struct tcps_neigh *victim = NULL;
	for (uint32_t i = 0; i < t->cfg.neighbours_max; i++) {
		struct tcps_neigh *n = &t->neighs[i];
		if (n->ref_count == 0 && (victim == NULL || n->state < victim->state))
			victim = n;
	}
	if (victim == NULL) {
		TCPS_COUNT(t, neigh_table_full);
		return false;
	}
	neigh_free(t, victim);
	return true;
}

static struct tcps_neigh *neigh_new(struct tcps *t, bool v6, const uint8_t addr[16])
{
	if (t->neigh_free_idx == TCPS_NIL && !make_room(t))
		return NULL;
	uint32_t idx = t->neigh_free_idx;
	struct tcps_neigh *n = &t->neighs[idx];
	t->neigh_free_idx = n->hash_next_idx;
	*n = (struct tcps_neigh){.v6 = v6, .state = NEIGH_INCOMPLETE};
	memcpy(n->addr, addr, 16);
	n->timer.kind = TCPS_TIMER_NEIGHBOUR;
	uint32_t *bucket = &t->neigh_buckets[bucket_of(t, v6, addr)];
	n->hash_next_idx = *bucket;
	*bucket = idx;
	return n;
}

const uint8_t *tcps_neigh_eth(const struct tcps_neigh *n)
{
	return n->eth; /* the destination comes first */
}

static void ask(struct tcps *t, struct tcps_neigh *n)
{
	bool unicast = n->state == NEIGH_PROBE && n->tries < NEIGH_UNICAST_MAX;
	const uint8_t *mac = unicast ? n->eth : NULL;
	n->asked_ns = t->now_ns;
	if (n->tries < UINT8_MAX)
		n->tries++;
	tcps_wheel_set(&t->wheel, &n->timer, t->now_ns + NEIGH_ASK_NS);
	if (n->v6)
		tcps_nd_ask(t, n->addr, mac, false);
	else
		tcps_arp_ask(t, n->addr, mac, false);
}

static void wake_waiters(struct tcps *t, struct tcps_neigh *n)
{
	uint16_t idx = (uint16_t)(n - t->neighs);
	for (uint32_t i = 0; i < t->cfg.conns_max && n->waiter_count > 0; i++) {
		struct tcps_conn *c = &t->conns[i];
		if ((c->flags & CF_NO_NEIGH) == 0 || c->neigh_idx != idx)
			continue;
		c->flags &= ~CF_NO_NEIGH;
		n->waiter_count--;
		tcps_touch(c);
	}
}

static void take_mac(struct tcps *t, struct tcps_neigh *n, const uint8_t mac[6])
{
	if (n->state >= NEIGH_STALE && memcmp(n->eth, mac, 6) != 0)
		TCPS_COUNT(t, neigh_mac_changed);
	uint8_t *packet = tcps_eth_header(t, n->eth, mac, n->v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IPV4);
	if (!n->v6)
		tcps_ipv4_begin(packet, IPPROTO_TCP_NUM);
}

void tcps_neigh_confirm(struct tcps *t, struct tcps_neigh *n, const uint8_t mac[6])
{
	take_mac(t, n, mac);
	n->state = NEIGH_REACHABLE;
	n->tries = 0;
	uint64_t span = NEIGH_REACHABLE_NS / 2 + tcps_jitter(t, (uint64_t)(n - t->neighs), NEIGH_REACHABLE_NS);
	tcps_wheel_set(&t->wheel, &n->timer, t->now_ns + span);
	wake_waiters(t, n);
}

void tcps_neigh_stale(struct tcps *t, struct tcps_neigh *n, const uint8_t mac[6])
{
	take_mac(t, n, mac);
	n->state = NEIGH_STALE;
	n->tries = 0;
	tcps_wheel_set(&t->wheel, &n->timer, t->now_ns + NEIGH_FORGET_NS);
	wake_waiters(t, n);
}

void tcps_neigh_heard(struct tcps *t, bool v6, const uint8_t addr[16], const uint8_t mac[6], bool create)
{
	struct tcps_neigh *n = tcps_neigh_find(t, v6, addr);
	if (n == NULL && create)
		n = neigh_new(t, v6, addr);
	if (n == NULL || (n->state >= NEIGH_STALE && memcmp(n->eth, mac, 6) == 0))
		return;
	tcps_neigh_stale(t, n, mac);
}

uint16_t tcps_neigh_get(struct tcps *t, const struct tcps_peer *peer)
{
	uint8_t hop[16];
	if (!tcps_route(t, peer->v6, peer->addr, hop))
		return TCPS_NO_NEIGHBOUR;
	struct tcps_neigh *n = tcps_neigh_find(t, peer->v6, hop);
	if (n == NULL)
		n = neigh_new(t, peer->v6, hop);
	if (n == NULL)
		return TCPS_NO_NEIGHBOUR;
	n->ref_count++;
	return (uint16_t)(n - t->neighs);
}

void tcps_neigh_put(struct tcps *t, uint16_t idx)
{
	struct tcps_neigh *n = &t->neighs[idx];
	assert(n->ref_count > 0);
	n->ref_count--;
	/* An entry without a timer was never asked for nor answered: nothing would ever collect it. */
	if (n->ref_count == 0 && !tcps_timer_armed(&n->timer))
		neigh_free(t, n);
}

void tcps_neigh_seed(struct tcps *t, uint16_t idx, const uint8_t mac[6])
{
	struct tcps_neigh *n = &t->neighs[idx];
	if (n->state < NEIGH_STALE && (mac[0] & 1) == 0)
		tcps_neigh_stale(t, n, mac);
}

void tcps_neigh_want(struct tcps *t, uint16_t idx)
{
	struct tcps_neigh *n = &t->neighs[idx];
	if (n->state != NEIGH_INCOMPLETE)
		return;
	if (n->asked_ns == 0 || t->now_ns - n->asked_ns >= NEIGH_ASK_NS)
		ask(t, n);
	else if (!tcps_timer_armed(&n->timer))
		tcps_wheel_set(&t->wheel, &n->timer, n->asked_ns + NEIGH_ASK_NS);
}

bool tcps_neigh_use(struct tcps *t, struct tcps_neigh *n)
{
	if (n->state == NEIGH_STALE) {
		n->state = NEIGH_DELAY;
		tcps_wheel_set(&t->wheel, &n->timer, t->now_ns + NEIGH_DELAY_NS);
	}
	return n->state >= NEIGH_STALE;
}

bool tcps_neigh_mac(struct tcps *t, const struct tcps_peer *peer, uint8_t mac[6])
{
	uint8_t hop[16];
	if (!tcps_route(t, peer->v6, peer->addr, hop))
		return false;
	const struct tcps_neigh *n = tcps_neigh_find(t, peer->v6, hop);
	if (n == NULL || n->state < NEIGH_STALE)
		return false;
	memcpy(mac, n->eth, 6);
	return true;
}

/* Nobody answers. Who waits goes on asking, once a second; whose connections only idle is asked for when they send. */
static void fail(struct tcps *t, struct tcps_neigh *n)
{
	TCPS_COUNT(t, neigh_failed);
	if (n->ref_count == 0) {
		neigh_free(t, n);
		return;
	}
	n->state = NEIGH_INCOMPLETE;
	n->tries = 0;
	if (n->waiter_count > 0)
		ask(t, n);
}

void tcps_neigh_timer(struct tcps *t, struct tcps_timer *timer)
{
	struct tcps_neigh *n = (struct tcps_neigh *)timer; /* its first member */
	switch ((enum tcps_neigh_state)n->state) {
	case NEIGH_FREE:
		break;
	case NEIGH_REACHABLE:
		n->state = NEIGH_STALE;
		tcps_wheel_set(&t->wheel, &n->timer, t->now_ns + NEIGH_FORGET_NS);
		break;
	case NEIGH_STALE:
		if (n->ref_count == 0)
			neigh_free(t, n);
		else
			tcps_wheel_set(&t->wheel, &n->timer, t->now_ns + NEIGH_FORGET_NS);
		break;
	case NEIGH_DELAY:
		n->state = NEIGH_PROBE;
		n->tries = 0;
		ask(t, n);
		break;
	case NEIGH_PROBE:
	case NEIGH_INCOMPLETE:
		if (n->tries >= (n->state == NEIGH_PROBE ? NEIGH_TRIES_MAX : NEIGH_UNICAST_MAX) || n->ref_count == 0)
			fail(t, n);
		else
			ask(t, n);
		break;
	}
}
