/*
 * set.c - the matcher's public face on the worker: sets, adding and removing rules, finding, taking a database over.
 *
 * Owns: `match_set`: which records are live here, which are tombstones, and what a new database makes of them.
 * Core: the worker that owns the pool.
 * Spec: DESIGN section 6.
 *
 * An id is reported by the database only if the set keeps no record of it. A record is either live in hash or overlay,
 * which then report it, or a tombstone; so every live rule is reported once at every moment of a take-over.
 *
 * Records never run out when a rule is removed, because of one invariant:
 *     local_count + stale_count + db_rule_count <= rec_max
 * where a present tombstone is counted by its database's rule.
 */
#include <assert.h>

#include "matcher/match_int.h"
#include "matcher/topic.h"

struct match_set *match_set_open(struct match_pool *p, enum match_kind kind)
{
	uint32_t idx = p->set_free;
	struct match_set *s;

	if (idx == MATCH_NONE)
		return NULL;
	s = &p->sets[idx];
	p->set_free = s->next_free;
	*s = (struct match_set){.pool = p, .idx = idx, .next_free = MATCH_NONE, .kind = kind, .open = true};
	match_node_reset(&p->nodes[match_root(s)], MATCH_NONE, NODE_ROOT);
	return s;
}

/* Takes a live record out of hash or overlay; it is still on its ring and in the id index. */
static void record_detach(struct match_set *s, uint32_t rec)
{
	struct match_rec *r = &s->pool->recs[rec];

	if (r->state == REC_EXACT) {
		match_exact_remove(s, rec);
		s->exact_count--;
	} else {
		if (s->kind == MATCH_HEADERS)
			match_predicates_remove(s, rec);
		else
			match_trie_remove(s, rec);
		s->overlay_count--;
	}
	s->pool->local_count--;
}

static void record_drop(struct match_set *s, uint32_t rec)
{
	match_ring_drop(s->pool, rec);
	match_rec_release(s->pool, rec);
}

static void ring_clear(struct match_set *s, enum set_ring ring)
{
	struct match_pool *p = s->pool;
	uint32_t sentinel = match_ring(s, ring), rec;

	while ((rec = p->recs[sentinel].next) != sentinel) {
		if (p->recs[rec].state != REC_TOMB)
			record_detach(s, rec);
		record_drop(s, rec);
	}
}

struct match_db *match_set_close(struct match_set *s)
{
	struct match_pool *p = s->pool;
	struct match_db *db = s->db;

	assert(s->open);
	for (enum set_ring ring = RING_EXACT; ring < RING_COUNT; ring++)
		ring_clear(s, ring);
	p->stale_count -= s->stale_count;
	if (db)
		p->db_rule_count -= match_db_rule_ids(db, NULL);
	*s = (struct match_set){.pool = p, .idx = s->idx, .next_free = p->set_free};
	p->set_free = s->idx;
	return db;
}

/* Whether so many records and database rules leave a record for every removal that may come. */
static bool records_suffice(const struct match_pool *p, uint64_t local, uint64_t stale, uint64_t db_rules)
{
	return local <= p->limits.rules_max && local + stale + db_rules <= p->rec_max;
}

static int structure_add(struct match_set *s, uint32_t rec, const uint8_t *key, size_t len)
{
	if (s->pool->recs[rec].state == REC_EXACT)
		return match_exact_add(s, rec, key, len);
	if (s->kind == MATCH_HEADERS)
		return match_predicates_add(s, rec, key, len);
	return match_trie_add(s, rec, key, len);
}

static void tomb_add(struct match_set *s, uint32_t rec)
{
	struct match_rec *r = &s->pool->recs[rec];

	r->state = REC_TOMB;
	r->take_count = s->take_count;
	match_ring_add(s->pool, match_ring(s, RING_TOMB), rec);
	s->tomb_count++;
}

/* Takes a tombstone off its ring and out of the counts; the record stays. */
static void tomb_lift(struct match_set *s, uint32_t rec)
{
	match_ring_drop(s->pool, rec);
	if (s->pool->recs[rec].take_count == s->take_count) {
		s->tomb_count--;
		return;
	}
	s->stale_count--;
	s->pool->stale_count--;
}

int match_rule_add(struct match_set *s, uint32_t rule_id, const uint8_t *key, size_t len)
{
	struct match_pool *p = s->pool;
	struct match_rec *known = match_rec_find(p, s->idx, rule_id);
	bool exact = s->kind == MATCH_EXACT;
	uint32_t rec;
	int rc;

	assert(s->open);
	if (s->kind != MATCH_HEADERS && len > MATCH_KEY_MAX)
		return -2;
	if (known && known->state != REC_TOMB)
		return -3;
	if (!records_suffice(p, p->local_count + 1u, p->stale_count, p->db_rule_count))
		return -1;
	if (s->kind == MATCH_TOPIC)
		exact = !match_pattern_has_wildcard(key, len);
	if (known) {
		rec = (uint32_t)(known - p->recs);
		tomb_lift(s, rec);
	} else {
		rec = match_rec_new(p, s->idx, rule_id);
		assert(rec != MATCH_NONE);
	}
	/* A record hides what the database says of the id, so the overlay reports it even where the database knows it already. */
	p->recs[rec].state = exact ? REC_EXACT : REC_OVERLAY;
	rc = structure_add(s, rec, key, len);
	if (rc) {
		if (known && s->db && match_db_has(s->db, rule_id))
			tomb_add(s, rec);
		else
			match_rec_release(p, rec);
		return rc;
	}
	match_ring_add(p, match_ring(s, exact ? RING_EXACT : RING_OVERLAY), rec);
	p->local_count++;
	if (exact)
		s->exact_count++;
	else
		s->overlay_count++;
	return 0;
}

bool match_rule_remove(struct match_set *s, uint32_t rule_id)
{
	struct match_pool *p = s->pool;
	struct match_rec *r = match_rec_find(p, s->idx, rule_id);
	bool in_db = s->db && match_db_has(s->db, rule_id);
	uint32_t rec;

	assert(s->open);
	if (r && r->state == REC_TOMB)
		return false;
	if (!r && !in_db)
		return false;
	if (r) {
		rec = (uint32_t)(r - p->recs);
		record_detach(s, rec);
		if (!in_db) {
			record_drop(s, rec);
			return true;
		}
		match_ring_drop(p, rec);
	} else {
		rec = match_rec_new(p, s->idx, rule_id);
		assert(rec != MATCH_NONE); /* the invariant above */
	}
	tomb_add(s, rec);
	return true;
}

size_t match_find(struct match_set *s, const uint8_t *subject, size_t len, uint32_t *ids, size_t max)
{
	struct match_sink sink = {.ids = ids, .max = max};

	if (s->exact_count)
		match_exact_find(s, subject, len, &sink);
	if (s->overlay_count) {
		if (s->kind == MATCH_HEADERS)
			match_predicates_find(s, subject, len, &sink);
		else
			match_trie_find(s, subject, len, &sink);
	}
	if (s->db)
		match_db_find(s, subject, len, &sink);
	return sink.count;
}

struct match_db *match_set_take_db(struct match_set *s, struct match_db *db)
{
	struct match_pool *p = s->pool;
	struct match_db *old = s->db;
	uint64_t rules = p->db_rule_count + (db ? match_db_rule_ids(db, NULL) : 0) - (old ? match_db_rule_ids(old, NULL) : 0);

	assert(s->open);
	if (db && match_db_kind(db) != s->kind)
		return db;
	if (!records_suffice(p, p->local_count, (uint64_t)p->stale_count + s->tomb_count, rules))
		return db;
	p->db_rule_count = rules;
	p->stale_count += s->tomb_count;
	s->stale_count += s->tomb_count;
	s->tomb_count = 0;
	/* What the new database makes of overlay rules and tombstones is found out by match_forget_step(). */
	match_ring_move(p, match_ring(s, RING_OVERLAY), match_ring(s, RING_AFRESH));
	match_ring_move(p, match_ring(s, RING_TOMB), match_ring(s, RING_AFRESH));
	s->take_count++;
	s->db = db;
	return old;
}

static void forget_one(struct match_set *s, uint32_t rec)
{
	struct match_pool *p = s->pool;
	bool in_db = s->db && match_db_has(s->db, p->recs[rec].id);

	if (p->recs[rec].state == REC_OVERLAY) {
		match_ring_drop(p, rec);
		if (!in_db) {
			match_ring_add(p, match_ring(s, RING_OVERLAY), rec);
			return;
		}
		record_detach(s, rec);
		match_rec_release(p, rec);
		return;
	}
	s->stale_count--;
	p->stale_count--;
	match_ring_drop(p, rec);
	if (in_db) {
		tomb_add(s, rec);
	} else {
		match_rec_release(p, rec);
	}
}

bool match_forget_step(struct match_set *s, uint32_t budget)
{
	const struct match_rec *afresh = &s->pool->recs[match_ring(s, RING_AFRESH)];
	uint32_t sentinel = match_ring(s, RING_AFRESH);

	assert(s->open);
	while (budget-- && afresh->next != sentinel)
		forget_one(s, afresh->next);
	return afresh->next != sentinel;
}

void match_set_info(const struct match_set *s, struct match_set_info *out)
{
	const uint32_t *ids = NULL;
	size_t count = s->db ? match_db_rule_ids(s->db, &ids) : 0;
	uint32_t db_only = 0;

	for (size_t i = 0; i < count; i++)
		db_only += !match_rec_find(s->pool, s->idx, ids[i]);
	*out = (struct match_set_info){.rules = s->exact_count + s->overlay_count + db_only,
				       .overlay_rules = s->overlay_count,
				       .exact_rules = s->exact_count,
				       .db_rules = (uint32_t)count,
				       .db_generation = s->db ? match_db_generation(s->db) : 0,
				       .db_bytes = s->db ? match_db_bytes(s->db) : 0,
				       .scan_failures = s->scan_failures};
}
