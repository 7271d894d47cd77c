/*
 * arena.c - a buddy allocator over the pool's byte arena, for keys, long words and edges.
 *
 * Owns: `match_arena`: blocks of 16 << order bytes, contiguous, merged with their buddies when freed.
 * Core: the worker that owns the pool; every call is O(MATCH_ORDERS).
 * Spec: Knuth, The Art of Computer Programming, section 2.5, "the buddy system".
 */
#include <assert.h>

#include "matcher/match_int.h"

#define HEAD_USED 0x80u

struct free_block {
	uint32_t prev, next;
};

static struct free_block *block_at(const struct match_arena *a, uint32_t unit)
{
	return (struct free_block *)(void *)match_arena_at(a, unit);
}

static void block_push(struct match_arena *a, uint32_t unit, uint32_t order)
{
	struct free_block *b = block_at(a, unit);

	b->prev = MATCH_NONE;
	b->next = a->free[order];
	if (b->next != MATCH_NONE)
		block_at(a, b->next)->prev = unit;
	a->free[order] = unit;
	a->heads[unit] = (uint8_t)(1 + order);
}

static void block_take(struct match_arena *a, uint32_t unit, uint32_t order)
{
	const struct free_block *b = block_at(a, unit);

	if (b->prev != MATCH_NONE)
		block_at(a, b->prev)->next = b->next;
	else
		a->free[order] = b->next;
	if (b->next != MATCH_NONE)
		block_at(a, b->next)->prev = b->prev;
	a->heads[unit] = 0;
}

void match_arena_init(struct match_arena *a, uint8_t *base, uint8_t *heads, uint32_t units)
{
	a->base = base;
	a->heads = heads;
	a->units = units;
	memset(heads, 0, units);
	for (uint32_t o = 0; o < MATCH_ORDERS; o++)
		a->free[o] = MATCH_NONE;
	/* The arena need not be a power of two: it is cut into the largest aligned blocks that fit. */
	for (uint32_t unit = 0; unit < units;) {
		uint32_t order = 0;

		while (order + 1 < MATCH_ORDERS && !(unit & ((2u << order) - 1)) && units - unit >= (2u << order))
			order++;
		block_push(a, unit, order);
		unit += 1u << order;
	}
}

uint32_t match_arena_alloc(struct match_arena *a, size_t bytes)
{
	uint32_t want = 0, order, unit;

	while (want < MATCH_ORDERS && ((size_t)MATCH_UNIT << want) < bytes)
		want++;
	for (order = want; order < MATCH_ORDERS && a->free[order] == MATCH_NONE;)
		order++;
	if (order >= MATCH_ORDERS)
		return MATCH_NONE;
	unit = a->free[order];
	block_take(a, unit, order);
	while (order > want) {
		order--;
		block_push(a, unit + (1u << order), order);
	}
	a->heads[unit] = (uint8_t)(HEAD_USED | (1 + order));
	return unit;
}

void match_arena_free(struct match_arena *a, uint32_t unit)
{
	uint32_t order;

	assert(unit < a->units && (a->heads[unit] & HEAD_USED));
	order = (a->heads[unit] & ~HEAD_USED) - 1u;
	a->heads[unit] = 0;
	while (order + 1 < MATCH_ORDERS) {
		uint32_t buddy = unit ^ (1u << order);

		if (buddy >= a->units || a->heads[buddy] != 1 + order)
			break;
		block_take(a, buddy, order);
		unit &= ~(1u << order);
		order++;
	}
	block_push(a, unit, order);
}
