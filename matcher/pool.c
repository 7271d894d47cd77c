/*
 * pool.c - a worker's match pool: its memory, rule records, the id index and the record rings.
 *
 * Owns: the carving of the caller's memory into arrays, and the life of every `match_rec`.
 * Core: init before the worker starts; the rest on the worker that owns the pool, without allocation.
 * Spec: DESIGN section 4 (everything is bounded and allocated at start).
 */
#include <assert.h>

#include "matcher/match_int.h"

#define POOL_ALIGN 64u

/* Offsets of the arrays behind the pool, and their element counts. */
struct pool_plan {
	size_t sets, recs, nodes, id_buckets, key_buckets, node_buckets, active0, active1, sticky, heads, arena, bytes;
	uint32_t rec_max, rec_slots, node_slots, rec_buckets, node_bucket_count, units;
};

static size_t plan_take(struct pool_plan *p, size_t count, size_t size)
{
	size_t at = p->bytes;

	p->bytes += (count * size + POOL_ALIGN - 1) & ~(size_t)(POOL_ALIGN - 1);
	return at;
}

static uint32_t power_of_two_above(uint32_t n)
{
	uint32_t p = 16;

	while (p < n)
		p *= 2;
	return p;
}

static struct pool_plan plan_make(const struct match_limits *l)
{
	struct pool_plan p = {0};

	assert(l->sets_max > 0 && l->sets_max < (1u << 24) && l->rules_max < (1u << 28) && l->nodes_max < (1u << 28));
	/* As many records again as live local rules: a rule that only a database knows needs one when it is removed. */
	p.rec_max = 2 * l->rules_max;
	p.rec_slots = p.rec_max + RING_COUNT * l->sets_max;
	p.node_slots = l->nodes_max + l->sets_max;
	p.rec_buckets = power_of_two_above(p.rec_max);
	p.node_bucket_count = power_of_two_above(p.node_slots);
	p.units = (uint32_t)(((uint64_t)l->key_bytes_max + MATCH_UNIT - 1) / MATCH_UNIT);
	plan_take(&p, 1, sizeof(struct match_pool));
	p.sets = plan_take(&p, l->sets_max, sizeof(struct match_set));
	p.recs = plan_take(&p, p.rec_slots, sizeof(struct match_rec));
	p.nodes = plan_take(&p, p.node_slots, sizeof(struct match_node));
	p.id_buckets = plan_take(&p, p.rec_buckets, sizeof(uint32_t));
	p.key_buckets = plan_take(&p, p.rec_buckets, sizeof(uint32_t));
	p.node_buckets = plan_take(&p, p.node_bucket_count, sizeof(uint32_t));
	p.active0 = plan_take(&p, p.node_slots, sizeof(uint32_t));
	p.active1 = plan_take(&p, p.node_slots, sizeof(uint32_t));
	p.sticky = plan_take(&p, p.node_slots, sizeof(uint32_t));
	p.heads = plan_take(&p, p.units, 1);
	p.arena = plan_take(&p, p.units, MATCH_UNIT);
	p.bytes += POOL_ALIGN; /* the caller's memory may begin anywhere */
	return p;
}

size_t match_pool_bytes(const struct match_limits *limits)
{
	return plan_make(limits).bytes;
}

static void pool_lists_init(struct match_pool *p, const struct pool_plan *plan)
{
	for (uint32_t i = 0; i < p->limits.sets_max; i++)
		p->sets[i] = (struct match_set){.pool = p, .idx = i, .next_free = i + 1 < p->limits.sets_max ? i + 1 : MATCH_NONE};
	p->set_free = 0;
	for (uint32_t i = 0; i < p->rec_max; i++)
		p->recs[i] = (struct match_rec){.id_chain = i + 1 < p->rec_max ? i + 1 : MATCH_NONE};
	p->rec_free = p->rec_max ? 0 : MATCH_NONE;
	for (uint32_t i = p->rec_max; i < plan->rec_slots; i++)
		p->recs[i] = (struct match_rec){.prev = i, .next = i};
	for (uint32_t i = 0; i < p->node_max; i++)
		p->nodes[i] = (struct match_node){.chain = i + 1 < p->node_max ? i + 1 : MATCH_NONE};
	p->node_free = p->node_max ? 0 : MATCH_NONE;
	for (uint32_t i = p->node_max; i < plan->node_slots; i++)
		match_node_reset(&p->nodes[i], MATCH_NONE, NODE_ROOT);
	memset(p->id_buckets, 0xff, plan->rec_buckets * sizeof(uint32_t));
	memset(p->key_buckets, 0xff, plan->rec_buckets * sizeof(uint32_t));
	memset(p->node_buckets, 0xff, plan->node_bucket_count * sizeof(uint32_t));
}

struct match_pool *match_pool_init(void *mem, size_t mem_bytes, const struct match_limits *limits)
{
	struct pool_plan plan = plan_make(limits);
	uint8_t *base = (uint8_t *)(((uintptr_t)mem + POOL_ALIGN - 1) & ~(uintptr_t)(POOL_ALIGN - 1));
	struct match_pool *p = (struct match_pool *)(void *)base;

	assert(mem && mem_bytes >= plan.bytes);
	memset(p, 0, sizeof(*p));
	p->limits = *limits;
	memcpy(p->key, limits->secret, sizeof(p->key));
	p->sets = (struct match_set *)(void *)(base + plan.sets);
	p->recs = (struct match_rec *)(void *)(base + plan.recs);
	p->nodes = (struct match_node *)(void *)(base + plan.nodes);
	p->id_buckets = (uint32_t *)(void *)(base + plan.id_buckets);
	p->key_buckets = (uint32_t *)(void *)(base + plan.key_buckets);
	p->node_buckets = (uint32_t *)(void *)(base + plan.node_buckets);
	p->active[0] = (uint32_t *)(void *)(base + plan.active0);
	p->active[1] = (uint32_t *)(void *)(base + plan.active1);
	p->sticky = (uint32_t *)(void *)(base + plan.sticky);
	p->rec_max = plan.rec_max;
	p->node_max = limits->nodes_max;
	p->rec_mask = plan.rec_buckets - 1;
	p->node_mask = plan.node_bucket_count - 1;
	pool_lists_init(p, &plan);
	match_arena_init(&p->arena, base + plan.arena, base + plan.heads, plan.units);
	return p;
}

struct match_scratch *match_pool_set_scratch(struct match_pool *p, struct match_scratch *scratch)
{
	struct match_scratch *old = p->scratch;

	p->scratch = scratch;
	return old;
}

static uint32_t *id_bucket(const struct match_pool *p, uint32_t set_idx, uint32_t id)
{
	/* Ids are control's, not clients': mixing is enough, a keyed hash would only cost time. */
	return &p->id_buckets[match_mix(p->key[0], ((uint64_t)set_idx << 32) | id) & p->rec_mask];
}

struct match_rec *match_rec_find(const struct match_pool *p, uint32_t set_idx, uint32_t id)
{
	for (uint32_t r = *id_bucket(p, set_idx, id); r != MATCH_NONE; r = p->recs[r].id_chain) {
		if (p->recs[r].id == id && p->recs[r].set_idx == set_idx)
			return &p->recs[r];
	}
	return NULL;
}

uint32_t match_rec_new(struct match_pool *p, uint32_t set_idx, uint32_t id)
{
	uint32_t r = p->rec_free;
	uint32_t *bucket = id_bucket(p, set_idx, id);

	if (r == MATCH_NONE)
		return MATCH_NONE;
	p->rec_free = p->recs[r].id_chain;
	p->recs[r] = (struct match_rec){.id = id,
					.set_idx = set_idx,
					.id_chain = *bucket,
					.prev = r,
					.next = r,
					.peer_prev = MATCH_NONE,
					.peer_next = MATCH_NONE,
					.at = MATCH_NONE};
	*bucket = r;
	return r;
}

void match_rec_release(struct match_pool *p, uint32_t rec)
{
	struct match_rec *r = &p->recs[rec];
	uint32_t *link = id_bucket(p, r->set_idx, r->id);

	while (*link != rec)
		link = &p->recs[*link].id_chain;
	*link = r->id_chain;
	r->state = REC_FREE;
	r->id_chain = p->rec_free;
	p->rec_free = rec;
}

void match_ring_add(struct match_pool *p, uint32_t sentinel, uint32_t rec)
{
	uint32_t last = p->recs[sentinel].prev;

	p->recs[rec].prev = last;
	p->recs[rec].next = sentinel;
	p->recs[last].next = rec;
	p->recs[sentinel].prev = rec;
}

void match_ring_drop(struct match_pool *p, uint32_t rec)
{
	struct match_rec *r = &p->recs[rec];

	p->recs[r->prev].next = r->next;
	p->recs[r->next].prev = r->prev;
	r->prev = r->next = rec;
}

/* Puts all of ring `from` behind ring `to`, in constant time. */
void match_ring_move(struct match_pool *p, uint32_t from, uint32_t to)
{
	struct match_rec *f = &p->recs[from], *t = &p->recs[to];

	if (f->next == from)
		return;
	p->recs[t->prev].next = f->next;
	p->recs[f->next].prev = t->prev;
	p->recs[f->prev].next = to;
	t->prev = f->prev;
	f->prev = f->next = from;
}
