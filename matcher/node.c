/*
 * node.c - the nodes of the overlay: children by word, rules on a node, pruning.
 *
 * Owns: `match_node` and the pool-wide hash from (parent, word) to child.
 * Core: the worker that owns the pool.
 * Spec: DESIGN section 6 (delta overlay).
 */
#include <assert.h>

#include "matcher/match_int.h"

static uint32_t *node_bucket(const struct match_pool *p, uint32_t parent, uint64_t hash)
{
	return &p->node_buckets[match_mix(hash, parent) & p->node_mask];
}

static const uint8_t *node_word(const struct match_pool *p, const struct match_node *n)
{
	return n->word_len <= MATCH_NODE_INLINE ? n->word.bytes : match_arena_at(&p->arena, n->word.unit);
}

void match_node_reset(struct match_node *n, uint32_t parent, enum node_kind kind)
{
	*n = (struct match_node){.parent = parent,
				 .chain = MATCH_NONE,
				 .rules = MATCH_NONE,
				 .star = MATCH_NONE,
				 .hash = MATCH_NONE,
				 .kind = (uint8_t)kind};
}

uint32_t match_node_child(const struct match_pool *p, uint32_t parent, uint64_t hash, const uint8_t *word, size_t len)
{
	for (uint32_t i = *node_bucket(p, parent, hash); i != MATCH_NONE; i = p->nodes[i].chain) {
		const struct match_node *n = &p->nodes[i];

		if (n->parent == parent && n->word_hash == (uint32_t)hash && n->word_len == len &&
		    (!len || memcmp(node_word(p, n), word, len) == 0))
			return i;
	}
	return MATCH_NONE;
}

static bool node_word_set(struct match_pool *p, struct match_node *n, const uint8_t *word, size_t len)
{
	uint32_t unit;

	n->word_len = (uint32_t)len;
	if (len <= MATCH_NODE_INLINE) {
		if (len)
			memcpy(n->word.bytes, word, len);
		return true;
	}
	unit = match_arena_alloc(&p->arena, len);
	if (unit == MATCH_NONE)
		return false;
	memcpy(match_arena_at(&p->arena, unit), word, len);
	n->word.unit = unit;
	return true;
}

/* The child of `parent` for that word or wildcard, made if it is missing; MATCH_NONE when pool or arena is full. */
uint32_t match_node_make(struct match_pool *p, uint32_t parent, enum node_kind kind, const uint8_t *word, size_t len)
{
	struct match_node *up = &p->nodes[parent];
	uint64_t hash = kind == NODE_WORD ? match_word_hash(p, word, len) : 0;
	uint32_t child = kind == NODE_STAR ? up->star : kind == NODE_HASH ? up->hash : match_node_child(p, parent, hash, word, len);
	uint32_t next;

	if (child != MATCH_NONE || p->node_free == MATCH_NONE)
		return child;
	child = p->node_free;
	next = p->nodes[child].chain;
	match_node_reset(&p->nodes[child], parent, kind);
	if (kind == NODE_WORD) {
		uint32_t *bucket = node_bucket(p, parent, hash);

		if (!node_word_set(p, &p->nodes[child], word, len)) {
			p->nodes[child].chain = next;
			return MATCH_NONE;
		}
		p->nodes[child].word_hash = (uint32_t)hash;
		p->nodes[child].chain = *bucket;
		*bucket = child;
		up->words++;
	} else if (kind == NODE_STAR) {
		up->star = child;
	} else {
		up->hash = child;
	}
	p->node_free = next;
	return child;
}

static void node_unlink(struct match_pool *p, uint32_t node)
{
	struct match_node *n = &p->nodes[node], *up = &p->nodes[n->parent];
	uint32_t *link;

	if (n->kind == NODE_STAR) {
		up->star = MATCH_NONE;
		return;
	}
	if (n->kind == NODE_HASH) {
		up->hash = MATCH_NONE;
		return;
	}
	/* The bucket needs all 64 bits of the hash, of which the node keeps 32: hashing again is dearer but off the find path. */
	link = node_bucket(p, n->parent, match_word_hash(p, node_word(p, n), n->word_len));
	while (*link != node)
		link = &p->nodes[*link].chain;
	*link = n->chain;
	up->words--;
	if (n->word_len > MATCH_NODE_INLINE)
		match_arena_free(&p->arena, n->word.unit);
}

void match_node_prune(struct match_pool *p, uint32_t node)
{
	while (p->nodes[node].kind != NODE_ROOT) {
		struct match_node *n = &p->nodes[node];
		uint32_t up = n->parent;

		if (n->rules != MATCH_NONE || n->words || n->star != MATCH_NONE || n->hash != MATCH_NONE)
			return;
		node_unlink(p, node);
		n->chain = p->node_free;
		p->node_free = node;
		node = up;
	}
}

void match_node_rule_add(struct match_pool *p, uint32_t node, uint32_t rec)
{
	struct match_node *n = &p->nodes[node];

	p->recs[rec].peer_prev = MATCH_NONE;
	p->recs[rec].peer_next = n->rules;
	if (n->rules != MATCH_NONE)
		p->recs[n->rules].peer_prev = rec;
	n->rules = rec;
	p->recs[rec].at = node;
}

void match_node_rule_drop(struct match_pool *p, uint32_t node, uint32_t rec)
{
	struct match_rec *r = &p->recs[rec];

	assert(r->at == node);
	if (r->peer_prev != MATCH_NONE)
		p->recs[r->peer_prev].peer_next = r->peer_next;
	else
		p->nodes[node].rules = r->peer_next;
	if (r->peer_next != MATCH_NONE)
		p->recs[r->peer_next].peer_prev = r->peer_prev;
	r->peer_prev = r->peer_next = r->at = MATCH_NONE;
}
