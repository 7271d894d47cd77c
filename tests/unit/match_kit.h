/*
 * match_kit.h - what the matcher's tests share: a seeded generator, a pool on the heap, and a judge.
 *
 * Owns: `kit_world`, a set together with the list of rules that ought to be live in it.
 * Core: tests only.
 * Spec: DESIGN section 8 (every structure is proved equal to the naive oracle).
 */
#ifndef TICKWIRE_TESTS_MATCH_KIT_H
#define TICKWIRE_TESTS_MATCH_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "matcher/match_int.h"
#include "matcher/matcher.h"

#define KIT_RULES_MAX 512u
#define KIT_KEY_MAX   1024u

struct kit_rng {
	uint64_t state;
};

static inline uint64_t kit_next(struct kit_rng *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static inline uint32_t kit_below(struct kit_rng *r, uint32_t n)
{
	return (uint32_t)(kit_next(r) % n);
}

struct kit_rule {
	uint32_t id;
	bool live;
	size_t len;
	uint8_t key[KIT_KEY_MAX];
};

struct kit_world {
	void *mem;
	struct match_pool *pool;
	struct match_set *set;
	enum match_kind kind;
	struct kit_rule *rules;
	uint32_t rule_count;
	uint64_t comparisons;
	const char *moment; /* named in a failure */
	uint64_t seed;
};

/* Free records, nodes and arena bytes: equal before and after means that nothing leaked. */
struct kit_pool_free {
	uint32_t recs, nodes;
	uint64_t arena_bytes;
};

static inline struct kit_pool_free kit_pool_free(const struct match_pool *p)
{
	struct kit_pool_free f = {0};

	for (uint32_t i = p->rec_free; i != MATCH_NONE; i = p->recs[i].id_chain)
		f.recs++;
	for (uint32_t i = p->node_free; i != MATCH_NONE; i = p->nodes[i].chain)
		f.nodes++;
	for (uint32_t o = 0; o < MATCH_ORDERS; o++) {
		for (uint32_t u = p->arena.free[o]; u != MATCH_NONE;) {
			const uint32_t *links = (const uint32_t *)(const void *)match_arena_at(&p->arena, u);

			f.arena_bytes += (uint64_t)MATCH_UNIT << o;
			u = links[1];
		}
	}
	return f;
}

static inline void kit_assert_pool_free(const struct match_pool *p, struct kit_pool_free want)
{
	struct kit_pool_free have = kit_pool_free(p);

	assert_int_equal(have.recs, want.recs);
	assert_int_equal(have.nodes, want.nodes);
	assert_int_equal(have.arena_bytes, want.arena_bytes);
}

static inline struct match_limits kit_limits(void)
{
	return (struct match_limits){.sets_max = 4,
				     .rules_max = 2048,
				     .nodes_max = 65536,
				     .key_bytes_max = 4u << 20,
				     .secret = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
}

static inline struct match_pool *kit_pool(const struct match_limits *l, void **mem)
{
	size_t bytes = match_pool_bytes(l);

	*mem = malloc(bytes);
	assert_non_null(*mem);
	memset(*mem, 0xa5, bytes);
	return match_pool_init(*mem, bytes, l);
}

static inline void kit_world_init(struct kit_world *w, enum match_kind kind)
{
	struct match_limits l = kit_limits();

	*w = (struct kit_world){.kind = kind, .moment = "at the start"};
	w->rules = calloc(KIT_RULES_MAX, sizeof(*w->rules));
	assert_non_null(w->rules);
	w->pool = kit_pool(&l, &w->mem);
	w->set = match_set_open(w->pool, kind);
	assert_non_null(w->set);
}

static inline void kit_world_fini(struct kit_world *w)
{
	match_db_close(match_set_close(w->set));
	match_scratch_free(match_pool_set_scratch(w->pool, NULL));
	free(w->mem);
	free(w->rules);
}

static inline struct kit_rule *kit_add(struct kit_world *w, uint32_t id, const void *key, size_t len)
{
	struct kit_rule *r = &w->rules[w->rule_count++];

	assert_true(w->rule_count <= KIT_RULES_MAX && len <= KIT_KEY_MAX);
	*r = (struct kit_rule){.id = id, .live = true, .len = len};
	if (len)
		memcpy(r->key, key, len);
	assert_int_equal(match_rule_add(w->set, id, r->key, len), 0);
	return r;
}

static inline void kit_remove(struct kit_world *w, struct kit_rule *r)
{
	assert_true(r->live);
	assert_true(match_rule_remove(w->set, r->id));
	r->live = false;
}

/* An image of the world's live rules. */
static inline uint8_t *kit_compile(const struct kit_world *w, uint64_t generation, size_t *bytes)
{
	struct match_rule list[KIT_RULES_MAX];
	size_t count = 0;
	char err[200] = "";
	uint8_t *image;

	for (uint32_t i = 0; i < w->rule_count; i++) {
		if (w->rules[i].live)
			list[count++] = (struct match_rule){w->rules[i].id, w->rules[i].key, w->rules[i].len};
	}
	image = match_compile(w->kind, list, count, generation, bytes, err, sizeof(err));
	if (!image)
		print_error("%s\n", err);
	assert_non_null(image);
	return image;
}

/* Opens the image and hands it to the set, the scratch first, as a worker's owner does. Frees what it replaces. */
static inline void kit_take(struct kit_world *w, const uint8_t *image, size_t bytes)
{
	char err[200] = "";
	struct match_db *db = match_db_open(image, bytes, err, sizeof(err));
	struct match_scratch *grown;

	if (!db)
		print_error("%s\n", err);
	assert_non_null(db);
	grown = match_scratch_grow(w->pool->scratch, db);
	assert_non_null(grown);
	match_scratch_free(match_pool_set_scratch(w->pool, grown));
	match_db_close(match_set_take_db(w->set, db));
	assert_ptr_equal(w->set->db, db);
}

static inline void kit_print_bytes(const char *what, const uint8_t *b, size_t len)
{
	print_error("# %s: ", what);
	for (size_t i = 0; i < len; i++)
		print_error(b[i] > 32 && b[i] < 127 && b[i] != '\\' ? "%c" : "\\x%02x", b[i]);
	print_error("\n");
}

/* match_find() must give exactly the live rules that the oracle says, each once. */
static inline void kit_judge(struct kit_world *w, const uint8_t *subject, size_t len)
{
	uint32_t ids[KIT_RULES_MAX];
	size_t found = match_find(w->set, subject, len, ids, KIT_RULES_MAX), expected = 0;

	assert_true(found <= KIT_RULES_MAX);
	for (uint32_t i = 0; i < w->rule_count; i++) {
		const struct kit_rule *r = &w->rules[i];
		bool want = r->live && match_oracle(w->kind, r->key, r->len, subject, len);
		size_t have = 0;

		for (size_t j = 0; j < found; j++)
			have += ids[j] == r->id;
		w->comparisons++;
		expected += want;
		if (have != (want ? 1u : 0u)) {
			kit_print_bytes("rule", r->key, r->len);
			kit_print_bytes("subject", subject, len);
			fail_msg("seed %llu, %s: rule %u was reported %zu times, wanted %d", (unsigned long long)w->seed, w->moment,
				 r->id, have, want);
		}
	}
	assert_int_equal(found, expected);
	assert_int_equal(w->set->scan_failures, 0);
}

#endif
