/*
 * pool.c - the memory of messages, split frames and names: a buddy allocator with free-list caches for small blocks.
 *
 * Owns: one power-of-two arena and, apart from it, a state octet and two links for each 256-byte unit; what a user writes
 * past the end of a block may spoil another message but never the allocator.
 * Core: the worker; nothing is locked, nothing comes from libc.
 * Spec: Knowlton's buddy system; DESIGN section 4 (everything bounded, a full pool is a normal outcome).
 */
#include <assert.h>
#include <string.h>

#include "amqp/internal.h"

#define UNIT_BYTES   256u
#define UNIT_SHIFT   8u
#define ORDERS       32u
#define CACHE_ORDERS 6u    /* 256 bytes .. 8 KiB */
#define CACHE_MAX    1024u /* blocks an order; beyond that they merge */

/* State of a block's first unit; other units hold 0. Low bits: order + 1. */
#define STATE_USED   0x40u
#define STATE_CACHED 0x80u
#define STATE_ORDER  0x3fu

struct amqp_pool {
	uint8_t *arena;
	uint8_t *state;
	uint32_t *next, *prev;
	size_t arena_bytes, used_bytes;
	uint64_t failures;
	uint32_t units, top; /* top: the order of the whole arena */
	uint32_t nonempty;   /* a bit for every order with free blocks */
	uint32_t head[ORDERS];
	uint32_t cache_head[CACHE_ORDERS], cache_count[CACHE_ORDERS];
};

static size_t align64(size_t n)
{
	return (n + 63) & ~(size_t)63;
}

size_t amqp_pool_bytes(size_t arena_bytes)
{
	size_t units = arena_bytes / UNIT_BYTES;

	return align64(sizeof(struct amqp_pool)) + align64(units) + 2 * align64(units * sizeof(uint32_t)) + arena_bytes;
}

static void push_free(struct amqp_pool *p, uint32_t unit, uint32_t order)
{
	uint32_t head = p->head[order];

	p->state[unit] = (uint8_t)(order + 1);
	p->next[unit] = head;
	p->prev[unit] = AMQP_NONE;
	if (head != AMQP_NONE)
		p->prev[head] = unit;
	p->head[order] = unit;
	p->nonempty |= 1u << order;
}

static void take_free(struct amqp_pool *p, uint32_t unit, uint32_t order)
{
	uint32_t next = p->next[unit], prev = p->prev[unit];

	if (prev != AMQP_NONE)
		p->next[prev] = next;
	else
		p->head[order] = next;
	if (next != AMQP_NONE)
		p->prev[next] = prev;
	if (p->head[order] == AMQP_NONE)
		p->nonempty &= ~(1u << order);
	p->state[unit] = 0;
}

struct amqp_pool *amqp_pool_init(void *mem, size_t mem_bytes, size_t arena_bytes)
{
	struct amqp_pool *p = mem;
	uint8_t *at = mem;

	if (arena_bytes < UNIT_BYTES || (arena_bytes & (arena_bytes - 1)) != 0 || arena_bytes / UNIT_BYTES >= 1u << 31 ||
	    mem_bytes < amqp_pool_bytes(arena_bytes))
		return NULL;
	memset(p, 0, sizeof *p);
	p->arena_bytes = arena_bytes;
	p->units = (uint32_t)(arena_bytes / UNIT_BYTES);
	p->top = (uint32_t)__builtin_ctz(p->units);
	at += align64(sizeof *p);
	p->state = at;
	at += align64(p->units);
	p->next = (uint32_t *)(void *)at;
	at += align64(p->units * sizeof(uint32_t));
	p->prev = (uint32_t *)(void *)at;
	at += align64(p->units * sizeof(uint32_t));
	p->arena = at;
	memset(p->state, 0, p->units);
	for (uint32_t i = 0; i < ORDERS; i++)
		p->head[i] = AMQP_NONE;
	for (uint32_t i = 0; i < CACHE_ORDERS; i++)
		p->cache_head[i] = AMQP_NONE;
	push_free(p, 0, p->top);
	return p;
}

static uint32_t order_of(size_t bytes)
{
	if (bytes <= UNIT_BYTES)
		return 0;
	return 64u - (uint32_t)__builtin_clzll((uint64_t)((bytes - 1) >> UNIT_SHIFT));
}

/* Splits the smallest free block that is large enough. AMQP_NONE: none is. */
static uint32_t split_off(struct amqp_pool *p, uint32_t order)
{
	uint32_t fit = p->nonempty >> order << order, unit, have;

	if (fit == 0)
		return AMQP_NONE;
	have = (uint32_t)__builtin_ctz(fit);
	unit = p->head[have];
	take_free(p, unit, have);
	while (have > order) {
		have--;
		push_free(p, unit + (1u << have), have);
	}
	return unit;
}

/* Gives a block back to the buddies and joins it with those that are free. */
static void merge_back(struct amqp_pool *p, uint32_t unit, uint32_t order)
{
	while (order < p->top) {
		uint32_t buddy = unit ^ (1u << order);

		if (p->state[buddy] != order + 1)
			break;
		take_free(p, buddy, order);
		unit &= ~(1u << order);
		order++;
	}
	push_free(p, unit, order);
}

/* Empties the caches, so that small blocks kept apart do not stand in the way of a large one. */
static void flush_caches(struct amqp_pool *p)
{
	for (uint32_t order = 0; order < CACHE_ORDERS; order++) {
		while (p->cache_head[order] != AMQP_NONE) {
			uint32_t unit = p->cache_head[order];

			p->cache_head[order] = p->next[unit];
			p->state[unit] = 0;
			merge_back(p, unit, order);
		}
		p->cache_count[order] = 0;
	}
}

static void *hand_out(struct amqp_pool *p, uint32_t unit, uint32_t order)
{
	p->state[unit] = (uint8_t)(STATE_USED | (order + 1));
	p->used_bytes += (size_t)UNIT_BYTES << order;
	return p->arena + ((size_t)unit << UNIT_SHIFT);
}

void *amqp_pool_alloc(struct amqp_pool *p, size_t bytes)
{
	uint32_t order, unit;

	if (bytes > p->arena_bytes) {
		p->failures++;
		return NULL;
	}
	order = order_of(bytes);
	if (order < CACHE_ORDERS && p->cache_head[order] != AMQP_NONE) {
		unit = p->cache_head[order];
		p->cache_head[order] = p->next[unit];
		p->cache_count[order]--;
		return hand_out(p, unit, order);
	}
	unit = split_off(p, order);
	if (unit == AMQP_NONE) {
		flush_caches(p);
		unit = split_off(p, order);
	}
	if (unit == AMQP_NONE) {
		p->failures++;
		return NULL;
	}
	return hand_out(p, unit, order);
}

static void *alloc_leaving(struct amqp_pool *p, size_t bytes, size_t reserve)
{
	if (p->used_bytes + bytes > p->arena_bytes - reserve) {
		p->failures++;
		return NULL;
	}
	return amqp_pool_alloc(p, bytes);
}

void *amqp_pool_alloc_message(struct amqp_pool *p, size_t bytes)
{
	return alloc_leaving(p, bytes, p->arena_bytes / 16);
}

void *amqp_pool_alloc_client(struct amqp_pool *p, size_t bytes)
{
	return alloc_leaving(p, bytes, p->arena_bytes / 32);
}

static uint32_t unit_of(const struct amqp_pool *p, const void *block)
{
	size_t at = (size_t)((const uint8_t *)block - p->arena);

	assert(at < p->arena_bytes && at % UNIT_BYTES == 0);
	assert(p->state[at >> UNIT_SHIFT] & STATE_USED);
	return (uint32_t)(at >> UNIT_SHIFT);
}

void amqp_pool_free(struct amqp_pool *p, void *block)
{
	uint32_t unit = unit_of(p, block), order = (p->state[unit] & STATE_ORDER) - 1u;

	p->used_bytes -= (size_t)UNIT_BYTES << order;
	if (order < CACHE_ORDERS && p->cache_count[order] < CACHE_MAX) {
		p->state[unit] = (uint8_t)(STATE_CACHED | (order + 1));
		p->next[unit] = p->cache_head[order];
		p->cache_head[order] = unit;
		p->cache_count[order]++;
		return;
	}
	p->state[unit] = 0;
	merge_back(p, unit, order);
}

size_t amqp_pool_block_bytes(const struct amqp_pool *p, const void *block)
{
	return (size_t)UNIT_BYTES << ((p->state[unit_of(p, block)] & STATE_ORDER) - 1u);
}

size_t amqp_pool_used(const struct amqp_pool *p)
{
	return p->used_bytes;
}

size_t amqp_pool_size(const struct amqp_pool *p)
{
	return p->arena_bytes;
}

uint64_t amqp_pool_failures(const struct amqp_pool *p)
{
	return p->failures;
}

/* Blocks on the list of one order, or in its cache; UINT32_MAX: the list is broken. */
static uint32_t count_list(const struct amqp_pool *p, uint32_t first, uint8_t state, bool linked_back)
{
	uint32_t n = 0, before = AMQP_NONE;

	for (uint32_t u = first; u != AMQP_NONE; before = u, u = p->next[u])
		if (u >= p->units || p->state[u] != state || (linked_back && p->prev[u] != before) || ++n > p->units)
			return UINT32_MAX;
	return n;
}

static const char *check_lists(const struct amqp_pool *p, const uint32_t *seen_free, const uint32_t *seen_cached)
{
	for (uint32_t order = 0; order <= p->top; order++) {
		if (count_list(p, p->head[order], (uint8_t)(order + 1), true) != seen_free[order])
			return "a free list of the message pool does not hold the free blocks of its order";
		if (((p->nonempty >> order & 1) != 0) != (p->head[order] != AMQP_NONE))
			return "the message pool's map of free orders is wrong";
	}
	for (uint32_t order = 0; order < CACHE_ORDERS; order++) {
		uint32_t n = count_list(p, p->cache_head[order], (uint8_t)(STATE_CACHED | (order + 1)), false);

		if (n != seen_cached[order] || n != p->cache_count[order])
			return "a cache of the message pool does not hold the cached blocks of its order";
	}
	return NULL;
}

/* Walks the arena from block to block: they must fill it without gap or overlap, and no two free buddies stay apart. */
const char *amqp_pool_check(const struct amqp_pool *p)
{
	uint32_t seen_free[ORDERS] = {0}, seen_cached[ORDERS] = {0};
	size_t used = 0;

	for (uint32_t unit = 0; unit < p->units;) {
		uint8_t state = p->state[unit];
		uint32_t order = (state & STATE_ORDER) - 1u;

		if (state == 0 || order > p->top || (unit & ((1u << order) - 1)) != 0 || unit + (1u << order) > p->units)
			return "the message pool has a block of impossible order";
		for (uint32_t i = 1; i < 1u << order; i++)
			if (p->state[unit + i] != 0)
				return "a block of the message pool begins inside another";
		if (state & STATE_USED)
			used += (size_t)UNIT_BYTES << order;
		else if (state & STATE_CACHED)
			seen_cached[order]++;
		else
			seen_free[order]++;
		if (!(state & (STATE_USED | STATE_CACHED)) && order < p->top && p->state[unit ^ (1u << order)] == state)
			return "two free buddies of the message pool were not joined";
		unit += 1u << order;
	}
	if (used != p->used_bytes)
		return "the message pool's count of used bytes is wrong";
	return check_lists(p, seen_free, seen_cached);
}
