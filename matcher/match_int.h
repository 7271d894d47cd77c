/*
 * match_int.h - the insides of a pool: rule records, trie nodes, sets, and what the matcher's files call of each other.
 *
 * Owns: the layout of a `match_pool`; every index is a u32 into one of its arrays, MATCH_NONE is none.
 * Core: the worker that owns the pool, but for the database and scratch declarations at the end (any thread off the worker).
 * Spec: DESIGN section 6.
 */
#ifndef TICKWIRE_MATCH_INT_H
#define TICKWIRE_MATCH_INT_H

#include "matcher/match_hash.h"
#include "matcher/matcher.h"

#define MATCH_NONE        UINT32_MAX
#define MATCH_UNIT        16u /* bytes of an arena unit; an edge is one unit */
#define MATCH_ORDERS      28u
#define MATCH_NODE_INLINE 23u

/* Where a rule's record stands. A rule that only a database knows has no record at all. */
enum rec_state { REC_FREE, REC_EXACT, REC_OVERLAY, REC_TOMB };

/*
 * One rule that the pool must know of: live in hash or overlay, or removed while a database still reports it. The
 * `prev`/`next` ring is the set's list for its state; `peer_*` links rules of one trie node or one hash bucket.
 */
struct match_rec {
	uint64_t stamp; /* HEADERS: the find that `hits` belongs to */
	uint32_t hits;
	uint32_t need; /* HEADERS: predicates that must hit */
	uint32_t id;
	uint32_t set_idx;
	uint32_t id_chain;
	uint32_t prev, next;
	uint32_t peer_prev, peer_next;
	uint32_t at;         /* EXACT: arena unit of the key; TOPIC: trie node; HEADERS: arena unit of the first edge */
	uint32_t len;        /* EXACT: key bytes; HEADERS: edges */
	uint32_t key_hash;   /* EXACT */
	uint32_t take_count; /* TOMB: the set's, when it became one or was found to be one still */
	uint8_t state;
};

enum node_kind { NODE_ROOT, NODE_WORD, NODE_STAR, NODE_HASH };

/*
 * A node of the overlay. TOPIC: a trie over words. HEADERS: one level below the set's root, whose "words" are predicates;
 * there `rules` is the first edge, and the root's `rules` are the rules that match always.
 */
struct match_node {
	uint64_t stamp; /* the find that entered it last: '#' nodes and predicates act once a find */
	uint32_t parent;
	uint32_t chain;
	uint32_t rules;
	uint32_t star, hash; /* children */
	uint32_t words;      /* number of word children */
	uint32_t word_hash;
	uint32_t word_len;
	uint8_t kind;
	union {
		uint8_t bytes[MATCH_NODE_INLINE];
		uint32_t unit; /* when word_len > MATCH_NODE_INLINE */
	} word;
};

/* Ties a headers rule to one of its predicates; lives in the arena, and its unit is its index. */
struct match_edge {
	uint32_t rec;
	uint32_t node;
	uint32_t prev, next;
};
_Static_assert(sizeof(struct match_edge) == MATCH_UNIT, "an edge is one arena unit");

struct match_arena {
	uint8_t *base;
	uint8_t *heads; /* one octet a unit: 0 inside a block, else 1 + order, top bit when in use */
	uint32_t units;
	uint32_t free[MATCH_ORDERS];
};

/* Rings of records hang on sentinels behind the real records, so that a whole ring moves in constant time. */
enum set_ring { RING_EXACT, RING_OVERLAY, RING_TOMB, RING_AFRESH, RING_COUNT };

struct match_set {
	struct match_pool *pool;
	struct match_db *db;
	uint32_t idx, next_free;
	uint32_t exact_count, overlay_count;
	uint32_t take_count; /* databases taken over so far: tells stale tombstones from those of the present database */
	uint32_t tomb_count; /* ids that the present database reports */
	uint64_t scan_failures;
	uint32_t stale_count; /* tombstones of former databases, not looked at yet */
	enum match_kind kind;
	bool open;
};

struct match_pool {
	struct match_limits limits;
	uint64_t key[2];
	uint64_t stamp;
	struct match_scratch *scratch;
	struct match_set *sets;
	struct match_rec *recs;
	struct match_node *nodes;
	uint32_t *id_buckets, *key_buckets, *node_buckets;
	uint32_t *active[2], *sticky;
	uint32_t rec_max, node_max; /* without sentinels and roots, which follow them */
	uint32_t rec_mask, node_mask;
	uint32_t set_free, rec_free, node_free;
	uint32_t local_count; /* records in EXACT or OVERLAY state */
	uint32_t stale_count;
	uint64_t db_rule_count; /* over all sets; each may come to need a tombstone */
	struct match_arena arena;
};

/* Collects results; counts on when the caller's array is full. */
struct match_sink {
	uint32_t *ids;
	size_t max, count;
};

static inline void match_sink_put(struct match_sink *k, uint32_t id)
{
	if (k->count < k->max)
		k->ids[k->count] = id;
	k->count++;
}

/* ---- arena.c ---- */
void match_arena_init(struct match_arena *a, uint8_t *base, uint8_t *heads, uint32_t units);
uint32_t match_arena_alloc(struct match_arena *a, size_t bytes); /* a unit, or MATCH_NONE */
void match_arena_free(struct match_arena *a, uint32_t unit);
static inline uint8_t *match_arena_at(const struct match_arena *a, uint32_t unit)
{
	return a->base + (size_t)unit * MATCH_UNIT;
}

/* ---- pool.c ---- */
struct match_rec *match_rec_find(const struct match_pool *p, uint32_t set_idx, uint32_t id);
uint32_t match_rec_new(struct match_pool *p, uint32_t set_idx, uint32_t id);
void match_rec_release(struct match_pool *p, uint32_t rec); /* must be off its ring and structures */
void match_ring_add(struct match_pool *p, uint32_t sentinel, uint32_t rec);
void match_ring_drop(struct match_pool *p, uint32_t rec);
void match_ring_move(struct match_pool *p, uint32_t from, uint32_t to);
static inline uint32_t match_ring(const struct match_set *s, enum set_ring ring)
{
	return s->pool->rec_max + s->idx * RING_COUNT + (uint32_t)ring;
}

/* ---- exact.c ---- */
int match_exact_add(struct match_set *s, uint32_t rec, const uint8_t *key, size_t len);
void match_exact_remove(struct match_set *s, uint32_t rec);
void match_exact_find(const struct match_set *s, const uint8_t *key, size_t len, struct match_sink *sink);

/* ---- node.c ---- */
static inline uint32_t match_root(const struct match_set *s)
{
	return s->pool->node_max + s->idx;
}
void match_node_reset(struct match_node *n, uint32_t parent, enum node_kind kind);
uint32_t match_node_child(const struct match_pool *p, uint32_t parent, uint64_t hash, const uint8_t *word, size_t len);
uint32_t match_node_make(struct match_pool *p, uint32_t parent, enum node_kind kind, const uint8_t *word, size_t len);
void match_node_prune(struct match_pool *p, uint32_t node); /* frees it and its ancestors as far as they lead nowhere */
void match_node_rule_add(struct match_pool *p, uint32_t node, uint32_t rec);
void match_node_rule_drop(struct match_pool *p, uint32_t node, uint32_t rec);
static inline uint64_t match_word_hash(const struct match_pool *p, const uint8_t *word, size_t len)
{
	return match_hash(p->key, 0, word, len);
}

/* ---- trie.c, predicates.c: the overlay ---- */
int match_trie_add(struct match_set *s, uint32_t rec, const uint8_t *pattern, size_t len);
void match_trie_remove(struct match_set *s, uint32_t rec);
void match_trie_find(struct match_set *s, const uint8_t *key, size_t len, struct match_sink *sink);
int match_predicates_add(struct match_set *s, uint32_t rec, const uint8_t *rule, size_t len);
void match_predicates_remove(struct match_set *s, uint32_t rec);
void match_predicates_find(struct match_set *s, const uint8_t *subject, size_t len, struct match_sink *sink);

/* ---- db.c ---- */
enum match_kind match_db_kind(const struct match_db *db);
size_t match_db_bytes(const struct match_db *db);
bool match_db_has(const struct match_db *db, uint32_t id);
/* Reports what the database matches but for ids of which the set keeps a record: those are local, or removed. */
void match_db_find(struct match_set *s, const uint8_t *subject, size_t len, struct match_sink *sink);

#endif
