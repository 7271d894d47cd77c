/*
 * map.c - hash map, ids and memory of control.
 *
 * Owns: buckets and id states.
 * Core: control's event loop; ctl_alloc() also in the compile thread.
 * Spec: SipHash-2-4 after Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.
 */
#include "control/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "control/log.h"

static void *must(void *p)
{
	if (p == NULL) {
		ctl_log(CTL_LOG_ERROR, "out of memory");
		abort();
	}
	return p;
}

void *ctl_alloc(size_t bytes)
{
	return must(calloc(1, bytes != 0 ? bytes : 1));
}

void *ctl_resize(void *p, size_t bytes)
{
	return must(realloc(p, bytes != 0 ? bytes : 1));
}

struct amqp_span ctl_span_dup(struct amqp_span s)
{
	uint8_t *p = ctl_alloc((size_t)s.len + 1);

	if (s.len != 0)
		memcpy(p, s.ptr, s.len);
	return (struct amqp_span){p, s.len};
}

void ctl_span_free(struct amqp_span *s)
{
	free((void *)(uintptr_t)s->ptr);
	*s = (struct amqp_span){NULL, 0};
}

bool ctl_span_equal(struct amqp_span a, struct amqp_span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool ctl_span_is(struct amqp_span s, const char *text)
{
	return ctl_span_equal(s, ctl_span(text));
}

/* ---- SipHash ---- */

static inline uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static void sip_rounds(uint64_t v[4], unsigned rounds)
{
	while (rounds-- > 0) {
		v[0] += v[1], v[2] += v[3];
		v[1] = rotl(v[1], 13) ^ v[0], v[3] = rotl(v[3], 16) ^ v[2];
		v[0] = rotl(v[0], 32);
		v[2] += v[1], v[0] += v[3];
		v[1] = rotl(v[1], 17) ^ v[2], v[3] = rotl(v[3], 21) ^ v[0];
		v[2] = rotl(v[2], 32);
	}
}

static uint64_t load_le(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint64_t ctl_siphash(const uint8_t secret[16], const uint8_t *data, size_t len)
{
	uint64_t k0 = load_le(secret, 8), k1 = load_le(secret + 8, 8), m;
	uint64_t v[4] = {k0 ^ 0x736f6d6570736575ull, k1 ^ 0x646f72616e646f6dull, k0 ^ 0x6c7967656e657261ull,
			 k1 ^ 0x7465646279746573ull};
	size_t left = len;

	for (; left >= 8; left -= 8, data += 8) {
		m = load_le(data, 8);
		v[3] ^= m;
		sip_rounds(v, 2);
		v[0] ^= m;
	}
	m = load_le(data, left) | (uint64_t)len << 56;
	v[3] ^= m;
	sip_rounds(v, 2);
	v[0] ^= m;
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- the map ---- */

void ctl_map_init(struct ctl_map *m, const uint8_t secret[16])
{
	memset(m, 0, sizeof *m);
	m->mask = 63;
	m->bucket = ctl_alloc((m->mask + 1) * sizeof m->bucket[0]);
	m->secret = secret;
}

void ctl_map_fini(struct ctl_map *m)
{
	free(m->bucket);
	memset(m, 0, sizeof *m);
}

uint64_t ctl_map_hash(const struct ctl_map *m, uint64_t number, struct amqp_span a, struct amqp_span b)
{
	uint64_t parts[3] = {number, ctl_siphash(m->secret, a.len != 0 ? a.ptr : (const uint8_t *)"", a.len),
			     ctl_siphash(m->secret, b.len != 0 ? b.ptr : (const uint8_t *)"", b.len)};

	return ctl_siphash(m->secret, (const uint8_t *)parts, sizeof parts);
}

static void grow(struct ctl_map *m)
{
	size_t mask = 2 * (m->mask + 1) - 1;
	struct ctl_map_node **bucket = ctl_alloc((mask + 1) * sizeof bucket[0]);

	for (size_t i = 0; i <= m->mask; i++)
		for (struct ctl_map_node *n = m->bucket[i], *next; n != NULL; n = next) {
			next = n->next;
			n->next = bucket[n->hash & mask];
			bucket[n->hash & mask] = n;
		}
	free(m->bucket);
	m->bucket = bucket;
	m->mask = mask;
}

void ctl_map_insert(struct ctl_map *m, struct ctl_map_node *n, uint64_t hash)
{
	if (m->count > m->mask)
		grow(m);
	n->hash = hash;
	n->next = m->bucket[hash & m->mask];
	m->bucket[hash & m->mask] = n;
	m->count++;
}

void ctl_map_remove(struct ctl_map *m, struct ctl_map_node *n)
{
	struct ctl_map_node **at = &m->bucket[n->hash & m->mask];

	while (*at != n) {
		assert(*at != NULL);
		at = &(*at)->next;
	}
	*at = n->next;
	m->count--;
}

static struct ctl_map_node *same_hash(struct ctl_map_node *n, uint64_t hash)
{
	while (n != NULL && n->hash != hash)
		n = n->next;
	return n;
}

struct ctl_map_node *ctl_map_first(const struct ctl_map *m, uint64_t hash)
{
	return same_hash(m->bucket[hash & m->mask], hash);
}

struct ctl_map_node *ctl_map_after(const struct ctl_map_node *n)
{
	return same_hash(n->next, n->hash);
}

/* ---- ids ---- */

enum { ID_FREE, ID_USED, ID_RESTING };

void ctl_ids_init(struct ctl_ids *ids, uint32_t max)
{
	memset(ids, 0, sizeof *ids);
	ids->max = max;
	ids->state = ctl_alloc(max);
}

void ctl_ids_fini(struct ctl_ids *ids)
{
	free(ids->state);
	free(ids->resting);
	memset(ids, 0, sizeof *ids);
}

uint32_t ctl_ids_take(struct ctl_ids *ids)
{
	uint32_t id;

	if (ids->used + ids->resting_count >= ids->max)
		ctl_ids_settle(ids);
	if (ids->used >= ids->max)
		return AMQP_ID_NONE;
	while (ids->state[ids->cursor] != ID_FREE)
		ids->cursor = ids->cursor + 1 == ids->max ? 0 : ids->cursor + 1;
	id = ids->cursor;
	ids->cursor = id + 1 == ids->max ? 0 : id + 1;
	ids->state[id] = ID_USED;
	ids->used++;
	return id;
}

bool ctl_ids_claim(struct ctl_ids *ids, uint32_t id)
{
	if (id >= ids->max || ids->state[id] == ID_USED)
		return false;
	if (ids->state[id] == ID_RESTING)
		ctl_ids_settle(ids);
	ids->state[id] = ID_USED;
	ids->used++;
	return true;
}

void ctl_ids_free(struct ctl_ids *ids, uint32_t id)
{
	assert(id < ids->max && ids->state[id] == ID_USED);
	if (ids->resting_count == ids->resting_cap) {
		ids->resting_cap = ids->resting_cap != 0 ? 2 * ids->resting_cap : 64;
		ids->resting = ctl_resize(ids->resting, ids->resting_cap * sizeof ids->resting[0]);
	}
	ids->resting[ids->resting_count++] = id;
	ids->state[id] = ID_RESTING;
	ids->used--;
}

void ctl_ids_settle(struct ctl_ids *ids)
{
	for (uint32_t i = 0; i < ids->resting_count; i++)
		ids->state[ids->resting[i]] = ID_FREE;
	ids->resting_count = 0;
}
