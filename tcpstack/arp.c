/*
 * arp.c - the neighbour table: learning, asking, refreshing and answering.
 *
 * Owns: struct tcps_neigh records and their hash table.
 * Core: the worker that owns the stack.
 * Spec: RFC 826, RFC 5227; the refresh in flight follows the idea of RFC 4861 7.3.
 *
 * An entry that connections send through is never deleted: when it grows old it stays usable while it is asked again,
 * and only when nobody answers do its connections wait (their retransmission timers go on), until somebody does.
 */
#include "tcpstack/internal.h"

#include <assert.h>

#define NEIGH_FRESH_NS    60000000000ull
#define NEIGH_ASK_NS      1000000000ull
#define NEIGH_UNICAST_MAX 3u /* questions to the known address before everyone is asked */
#define NEIGH_TRIES_MAX   6u

static const uint8_t mac_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static uint32_t bucket_of(const struct tcps *t, uint32_t addr_raw)
{
	return (addr_raw * 2654435769u >> 12) & t->neigh_bucket_mask;
}

static struct tcps_neigh *neigh_find(const struct tcps *t, uint32_t addr_raw)
{
	uint32_t idx = t->neigh_buckets[bucket_of(t, addr_raw)];
	while (idx != TCPS_NIL && t->neighs[idx].addr_raw != addr_raw)
		idx = t->neighs[idx].hash_next_idx;
	return idx == TCPS_NIL ? NULL : &t->neighs[idx];
}

static void neigh_free(struct tcps *t, struct tcps_neigh *n)
{
	uint32_t idx = (uint32_t)(n - t->neighs);
	uint32_t *link = &t->neigh_buckets[bucket_of(t, n->addr_raw)];
	while (*link != idx)
		link = &t->neighs[*link].hash_next_idx;
	*link = n->hash_next_idx;
	tcps_wheel_del(&t->wheel, &n->timer);
	n->state = NEIGH_FREE;
	n->hash_next_idx = t->neigh_free_idx;
	t->neigh_free_idx = idx;
}

static struct tcps_neigh *neigh_new(struct tcps *t, uint32_t addr_raw)
{
	if (t->neigh_free_idx == TCPS_NIL) {
		/* Whoever nobody sends through makes room. */
		for (uint32_t i = 0; i < t->cfg.neighbours_max && t->neigh_free_idx == TCPS_NIL; i++) {
			if (t->neighs[i].ref_count == 0)
				neigh_free(t, &t->neighs[i]);
		}
		if (t->neigh_free_idx == TCPS_NIL) {
			TCPS_COUNT(t, arp_table_full);
			return NULL;
		}
	}
	uint32_t idx = t->neigh_free_idx;
	struct tcps_neigh *n = &t->neighs[idx];
	t->neigh_free_idx = n->hash_next_idx;
	*n = (struct tcps_neigh){.addr_raw = addr_raw, .state = NEIGH_INCOMPLETE};
	n->timer.kind = TCPS_TIMER_NEIGHBOUR;
	uint32_t *bucket = &t->neigh_buckets[bucket_of(t, addr_raw)];
	n->hash_next_idx = *bucket;
	*bucket = idx;
	return n;
}

/* Sends one ARP packet. `eth_dst` is also the target hardware address of a reply. */
static bool arp_send(struct tcps *t, uint16_t op, const uint8_t eth_dst[6], const uint8_t target_mac[6], uint32_t target_raw)
{
	void *handle;
	size_t len = ETH_HLEN + ARP_LEN;
	uint8_t *f = t->ops.tx_alloc(t->ctx, len, &handle);
	if (f == NULL) {
		TCPS_COUNT(t, tx_blocked);
		return false;
	}
	memcpy(f, eth_dst, 6);
	memcpy(f + 6, t->cfg.mac, 6);
	put_be16(f + 12, ETH_TYPE_ARP);
	uint8_t *a = f + ETH_HLEN;
	put_be16(a, 1); /* Ethernet */
	put_be16(a + 2, ETH_TYPE_IPV4);
	a[4] = 6;
	a[5] = 4;
	put_be16(a + 6, op);
	memcpy(a + 8, t->cfg.mac, 6);
	put_raw32(a + 14, t->addr_raw);
	memcpy(a + 18, target_mac, 6);
	put_raw32(a + 24, target_raw);
	const struct tcps_tx_meta meta = {.l2_len = ETH_HLEN};
	t->ops.tx_send(t->ctx, handle, len, &meta);
	TCPS_COUNT(t, frames_out);
	return true;
}

static void arp_ask(struct tcps *t, struct tcps_neigh *n)
{
	static const uint8_t unknown[6];
	bool unicast = n->state == NEIGH_PROBE && n->tries < NEIGH_UNICAST_MAX;
	n->asked_ns = t->now_ns;
	if (n->tries < UINT8_MAX)
		n->tries++;
	tcps_wheel_set(&t->wheel, &n->timer, t->now_ns + NEIGH_ASK_NS);
	if (arp_send(t, 1, unicast ? n->mac : mac_broadcast, unknown, n->addr_raw))
		TCPS_COUNT(t, arp_requests_out);
}

void tcps_announce(struct tcps *t, uint64_t now_ns)
{
	static const uint8_t unknown[6];
	t->now_ns = now_ns;
	if (arp_send(t, 1, mac_broadcast, unknown, t->addr_raw)) /* RFC 5227 2.3: sender and target are ourselves */
		TCPS_COUNT(t, arp_requests_out);
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

static void neigh_confirm(struct tcps *t, struct tcps_neigh *n, const uint8_t mac[6])
{
	if (n->state >= NEIGH_PROBE && memcmp(n->mac, mac, 6) != 0)
		TCPS_COUNT(t, arp_mac_changed);
	memcpy(n->mac, mac, 6);
	n->state = NEIGH_REACHABLE;
	n->tries = 0;
	tcps_wheel_set(&t->wheel, &n->timer, t->now_ns + NEIGH_FRESH_NS);
	wake_waiters(t, n);
}

void tcps_arp_input(struct tcps *t, const uint8_t *frame, size_t len)
{
	const uint8_t *a = frame + ETH_HLEN;
	if (len < ETH_HLEN + ARP_LEN || get_be16(a) != 1 || get_be16(a + 2) != ETH_TYPE_IPV4 || a[4] != 6 || a[5] != 4) {
		TCPS_COUNT(t, arp_bad);
		return;
	}
	uint16_t op = get_be16(a + 6);
	const uint8_t *sender_mac = a + 8;
	uint32_t sender = get_raw32(a + 14), target = get_raw32(a + 24);
	if ((op != 1 && op != 2) || (sender_mac[0] & 1) != 0) {
		TCPS_COUNT(t, arp_bad);
		return;
	}
	TCPS_COUNT(t, arp_in);
	if (sender == t->addr_raw) {
		if (memcmp(sender_mac, t->cfg.mac, 6) != 0)
			TCPS_COUNT(t, arp_conflict);
		return;
	}
	/* RFC 826: what is known is updated by any packet; a new entry is made when we are the target. */
	bool on_link = ((sender ^ t->addr_raw) & t->mask_raw) == 0;
	struct tcps_neigh *n = neigh_find(t, sender);
	if (n == NULL && op == 1 && target == t->addr_raw && on_link)
		n = neigh_new(t, sender);
	if (n != NULL)
		neigh_confirm(t, n, sender_mac);
	if (op == 1 && target == t->addr_raw && arp_send(t, 2, sender_mac, sender_mac, sender))
		TCPS_COUNT(t, arp_replies_out);
}

bool tcps_route(const struct tcps *t, uint32_t addr_raw, uint32_t *next_hop_raw)
{
	if (((addr_raw ^ t->addr_raw) & t->mask_raw) == 0)
		*next_hop_raw = addr_raw;
	else if (t->gateway_raw != 0)
		*next_hop_raw = t->gateway_raw;
	else
		return false;
	return true;
}

uint16_t tcps_neigh_get(struct tcps *t, uint32_t addr_raw)
{
	uint32_t hop;
	if (!tcps_route(t, addr_raw, &hop))
		return TCPS_NO_NEIGHBOUR;
	struct tcps_neigh *n = neigh_find(t, hop);
	if (n == NULL)
		n = neigh_new(t, hop);
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
	if (n->state >= NEIGH_PROBE || (mac[0] & 1) != 0)
		return;
	memcpy(n->mac, mac, 6);
	n->state = NEIGH_PROBE;
	n->tries = 0;
	arp_ask(t, n);
	wake_waiters(t, n);
}

void tcps_neigh_want(struct tcps *t, uint16_t idx)
{
	struct tcps_neigh *n = &t->neighs[idx];
	if (n->state == NEIGH_INCOMPLETE && (n->asked_ns == 0 || t->now_ns - n->asked_ns >= NEIGH_ASK_NS))
		arp_ask(t, n);
}

bool tcps_neigh_mac(struct tcps *t, uint32_t addr_raw, uint8_t mac[6])
{
	uint32_t hop;
	if (!tcps_route(t, addr_raw, &hop))
		return false;
	const struct tcps_neigh *n = neigh_find(t, hop);
	if (n == NULL || n->state < NEIGH_PROBE)
		return false;
	memcpy(mac, n->mac, 6);
	return true;
}

void tcps_neigh_timer(struct tcps *t, struct tcps_timer *timer)
{
	struct tcps_neigh *n = (struct tcps_neigh *)timer; /* its first member */
	if (n->state == NEIGH_REACHABLE) {
		if (n->ref_count == 0) {
			neigh_free(t, n);
			return;
		}
		n->state = NEIGH_PROBE;
		n->tries = 0;
	} else if (n->tries >= NEIGH_TRIES_MAX || (n->state == NEIGH_INCOMPLETE && n->ref_count == 0)) {
		TCPS_COUNT(t, arp_failed);
		if (n->ref_count == 0) {
			neigh_free(t, n);
			return;
		}
		n->state = NEIGH_INCOMPLETE;
		n->tries = 0;
	}
	arp_ask(t, n);
}
