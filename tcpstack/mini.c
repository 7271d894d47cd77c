/*
 * mini.c - pools of small records: half-open connections and TIME_WAIT.
 *
 * Owns: struct tcps_mini_pool: records, hash table, age order. A full pool gives up its oldest record.
 * Core: the worker that owns the stack.
 * Spec: RFC 4987 3.4 (SYN cache).
 */
#include "tcpstack/internal.h"

#include <assert.h>

void tcps_mini_init(struct tcps_mini_pool *p, enum tcps_timer_kind kind)
{
	p->kind = kind;
	p->oldest_idx = TCPS_NIL;
	p->newest_idx = TCPS_NIL;
	p->free_idx = TCPS_NIL;
	for (uint32_t i = p->max; i-- > 0;) {
		p->recs[i].hash_next_idx = p->free_idx;
		p->free_idx = i;
	}
	for (uint32_t i = 0; i <= p->bucket_mask; i++)
		p->buckets[i] = TCPS_NIL;
}

struct tcps_mini *tcps_mini_find(const struct tcps *t, const struct tcps_mini_pool *p, const struct tcps_peer *peer)
{
	if (p->count == 0)
		return NULL;
	uint32_t idx = p->buckets[tcps_hash_key(t, peer->key, peer->ports_raw) & p->bucket_mask];
	while (idx != TCPS_NIL) {
		struct tcps_mini *m = &p->recs[idx];
		if (tcps_peer_equal(&m->peer, peer))
			return m;
		idx = m->hash_next_idx;
	}
	return NULL;
}

void tcps_mini_free(struct tcps *t, struct tcps_mini_pool *p, struct tcps_mini *m)
{
	assert(m->in_use);
	uint32_t idx = (uint32_t)(m - p->recs);
	tcps_wheel_del(&t->wheel, &m->timer);
	uint32_t *link = &p->buckets[tcps_hash_key(t, m->peer.key, m->peer.ports_raw) & p->bucket_mask];
	while (*link != idx)
		link = &p->recs[*link].hash_next_idx;
	*link = m->hash_next_idx;
	if (m->older_idx != TCPS_NIL)
		p->recs[m->older_idx].newer_idx = m->newer_idx;
	else
		p->oldest_idx = m->newer_idx;
	if (m->newer_idx != TCPS_NIL)
		p->recs[m->newer_idx].older_idx = m->older_idx;
	else
		p->newest_idx = m->older_idx;
	m->in_use = false;
	m->hash_next_idx = p->free_idx;
	p->free_idx = idx;
	p->count--;
}

struct tcps_mini *tcps_mini_new(struct tcps *t, struct tcps_mini_pool *p, const struct tcps_peer *peer, bool *recycled)
{
	*recycled = p->free_idx == TCPS_NIL;
	if (*recycled)
		tcps_mini_free(t, p, &p->recs[p->oldest_idx]);
	uint32_t idx = p->free_idx;
	struct tcps_mini *m = &p->recs[idx];
	p->free_idx = m->hash_next_idx;
	*m = (struct tcps_mini){.peer = *peer, .in_use = true};
	m->timer.kind = (uint8_t)p->kind;
	uint32_t *bucket = &p->buckets[tcps_hash_key(t, peer->key, peer->ports_raw) & p->bucket_mask];
	m->hash_next_idx = *bucket;
	*bucket = idx;
	m->newer_idx = TCPS_NIL;
	m->older_idx = p->newest_idx;
	if (p->newest_idx != TCPS_NIL)
		p->recs[p->newest_idx].newer_idx = idx;
	else
		p->oldest_idx = idx;
	p->newest_idx = idx;
	p->count++;
	return m;
}
