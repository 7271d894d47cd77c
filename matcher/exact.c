/*
 * exact.c - whole routing keys to rules: direct exchanges, and topic patterns without wildcards.
 *
 * Owns: the key buckets of the pool and the key bytes of EXACT records.
 * Core: the worker that owns the pool.
 * Spec: AMQP 0-9-1 section 3.1.3.1 (direct exchange).
 */
#include "matcher/match_int.h"

static uint32_t key_hash(const struct match_set *s, const uint8_t *key, size_t len)
{
	return (uint32_t)match_hash(s->pool->key, 1 + (uint64_t)s->idx, key, len);
}

int match_exact_add(struct match_set *s, uint32_t rec, const uint8_t *key, size_t len)
{
	struct match_pool *p = s->pool;
	struct match_rec *r = &p->recs[rec];
	uint32_t *bucket;

	r->at = match_arena_alloc(&p->arena, len);
	if (r->at == MATCH_NONE)
		return -1;
	if (len)
		memcpy(match_arena_at(&p->arena, r->at), key, len);
	r->len = (uint32_t)len;
	r->key_hash = key_hash(s, key, len);
	bucket = &p->key_buckets[r->key_hash & p->rec_mask];
	r->peer_prev = MATCH_NONE;
	r->peer_next = *bucket;
	if (*bucket != MATCH_NONE)
		p->recs[*bucket].peer_prev = rec;
	*bucket = rec;
	return 0;
}

void match_exact_remove(struct match_set *s, uint32_t rec)
{
	struct match_pool *p = s->pool;
	struct match_rec *r = &p->recs[rec];

	if (r->peer_prev != MATCH_NONE)
		p->recs[r->peer_prev].peer_next = r->peer_next;
	else
		p->key_buckets[r->key_hash & p->rec_mask] = r->peer_next;
	if (r->peer_next != MATCH_NONE)
		p->recs[r->peer_next].peer_prev = r->peer_prev;
	r->peer_prev = r->peer_next = MATCH_NONE;
	match_arena_free(&p->arena, r->at);
	r->at = MATCH_NONE;
}

void match_exact_find(const struct match_set *s, const uint8_t *key, size_t len, struct match_sink *sink)
{
	const struct match_pool *p = s->pool;
	uint32_t hash = key_hash(s, key, len);

	for (uint32_t i = p->key_buckets[hash & p->rec_mask]; i != MATCH_NONE; i = p->recs[i].peer_next) {
		const struct match_rec *r = &p->recs[i];

		if (r->key_hash == hash && r->set_idx == s->idx && r->len == len &&
		    (!len || memcmp(match_arena_at(&p->arena, r->at), key, len) == 0))
			match_sink_put(sink, r->id);
	}
}
