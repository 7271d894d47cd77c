/*
 * db.c - opened images: checking, scanning, and the scratch that scanning needs.
 *
 * Owns: `match_db` (a private copy of the image's tables, the Hyperscan database in place) and `match_scratch`.
 * Core: match_db_find() on a worker, without allocation; opening, growing and freeing off the worker.
 * Spec: matcher/README.md, "Image"; needs Hyperscan's runtime alone.
 */
#include <assert.h>
#include <hs_runtime.h>
#include <stdio.h>
#include <stdlib.h>

#include "matcher/image.h"
#include "matcher/match_int.h"

struct match_db {
	struct match_image_header header;
	const hs_database_t *hs; /* NULL when no pattern needs a scan */
	const uint32_t *ids, *needs, *always, *empties, *refs;
	const struct match_image_pattern *patterns;
	const uint8_t *tails;
	uint8_t *head; /* header and tables, copied, so that nobody changes them once they are checked */
};

struct rule_hits {
	uint32_t epoch, count;
};

struct match_scratch {
	hs_scratch_t *hs;
	struct rule_hits *rules; /* per rule of the database scanned */
	uint32_t *patterns;      /* the epoch of a pattern's last hit */
	uint32_t rules_max, patterns_max, epoch;
};

static bool fail(char *err, size_t err_bytes, const char *sentence)
{
	if (err && err_bytes)
		snprintf(err, err_bytes, "%s", sentence);
	return false;
}

static bool ascending_below(const uint32_t *v, uint32_t count, uint64_t bound)
{
	for (uint32_t i = 0; i < count; i++) {
		if (v[i] >= bound || (i && v[i] <= v[i - 1]))
			return false;
	}
	return true;
}

/* A rule that is in one of these lists needs no hits, and is in one list only: so it is reported once. */
static bool lists_check(const struct match_db *db)
{
	const struct match_image_header *h = &db->header;
	uint32_t e = 0;

	if (!ascending_below(db->always, h->always, h->rules) || !ascending_below(db->empties, h->empties, h->rules))
		return false;
	for (uint32_t i = 0; i < h->empties; i++) {
		if (db->needs[db->empties[i]])
			return false;
	}
	for (uint32_t i = 0; i < h->always; i++) {
		while (e < h->empties && db->empties[e] < db->always[i])
			e++;
		if (db->needs[db->always[i]] || (e < h->empties && db->empties[e] == db->always[i]))
			return false;
	}
	return true;
}

static bool patterns_check(const struct match_db *db)
{
	const struct match_image_header *h = &db->header;

	for (uint32_t i = 0; i < h->refs; i++) {
		if (db->refs[i] >= h->rules)
			return false;
	}
	for (uint32_t i = 0; i < h->patterns; i++) {
		const struct match_image_pattern *p = &db->patterns[i];

		if ((uint64_t)p->ref_first + p->ref_count > h->refs || (uint64_t)p->tail_at + p->tail_len > h->tail_bytes)
			return false;
	}
	return true;
}

static bool header_check(const struct match_image_header *h, size_t bytes, char *err, size_t err_bytes)
{
	struct match_image_layout l = match_image_layout(h);

	if (h->magic != MATCH_IMAGE_MAGIC)
		return fail(err, err_bytes, "The image does not begin with the matcher's magic number.");
	if (h->version != MATCH_IMAGE_VERSION)
		return fail(err, err_bytes, "The image is of another version of the matcher.");
	if (h->kind != MATCH_TOPIC && h->kind != MATCH_HEADERS)
		return fail(err, err_bytes, "The image is for an exchange type that has no databases.");
	if (h->hs_bytes > bytes || l.bytes != h->image_bytes || h->image_bytes > bytes)
		return fail(err, err_bytes, "The image's tables do not fit its size.");
	if (h->hs_bytes ? h->hs_bytes < MATCH_HS_BYTES_MIN || !h->patterns : h->patterns != 0)
		return fail(err, err_bytes, "The image's patterns and its Hyperscan database do not agree.");
	return true;
}

static void tables_locate(struct match_db *db)
{
	struct match_image_layout l = match_image_layout(&db->header);

	db->ids = (const uint32_t *)(const void *)(db->head + l.ids);
	db->needs = (const uint32_t *)(const void *)(db->head + l.needs);
	db->always = (const uint32_t *)(const void *)(db->head + l.always);
	db->empties = (const uint32_t *)(const void *)(db->head + l.empties);
	db->refs = (const uint32_t *)(const void *)(db->head + l.refs);
	db->patterns = (const struct match_image_pattern *)(const void *)(db->head + l.patterns);
	db->tails = db->head + l.tails;
}

static bool hyperscan_check(const hs_database_t *hs, uint64_t bytes, char *err, size_t err_bytes)
{
	size_t size = 0;
	char *info = NULL;
	bool block;

	if (hs_database_size(hs, &size) != HS_SUCCESS || size != bytes)
		return fail(err, err_bytes, "The image's Hyperscan database is not whole, or of another Hyperscan.");
	if (hs_stream_size(hs, &size) != HS_DB_MODE_ERROR)
		return fail(err, err_bytes, "The image's Hyperscan database is not for block mode.");
	if (hs_database_info(hs, &info) != HS_SUCCESS || !info)
		return fail(err, err_bytes, "The image's Hyperscan database does not describe itself.");
	block = strstr(info, "Mode: BLOCK") != NULL;
	free(info);
	return block || fail(err, err_bytes, "The image's Hyperscan database is not for block mode.");
}

static bool db_load(struct match_db *db, const uint8_t *image, size_t bytes, char *err, size_t err_bytes)
{
	struct match_image_layout l;

	if (!image || (uintptr_t)image % MATCH_IMAGE_ALIGN || bytes < sizeof(db->header))
		return fail(err, err_bytes, "The image is shorter than its header, or does not lie on a 64-byte boundary.");
	memcpy(&db->header, image, sizeof(db->header));
	if (!header_check(&db->header, bytes, err, err_bytes))
		return false;
	l = match_image_layout(&db->header);
	db->head = malloc(l.hs);
	if (!db->head)
		return fail(err, err_bytes, "There is no memory for the image's tables.");
	memcpy(db->head, image, l.hs);
	/* The header once more from the copy: the image may have been written to between the two readings. */
	if (memcmp(db->head, &db->header, sizeof(db->header)) != 0 ||
	    match_image_tables_sum(db->head, l.hs) != db->header.tables_sum)
		return fail(err, err_bytes, "The image's tables are damaged: their sum is wrong.");
	tables_locate(db);
	if (!ascending_below(db->ids, db->header.rules, UINT64_MAX) || !lists_check(db) || !patterns_check(db))
		return fail(err, err_bytes, "The image's tables contradict each other.");
	if (!db->header.hs_bytes)
		return true;
	if (match_image_hs_sum(image + l.hs, db->header.hs_bytes) != db->header.hs_sum)
		return fail(err, err_bytes, "The image's Hyperscan database is damaged: its sum is wrong.");
	db->hs = (const hs_database_t *)(const void *)(image + l.hs);
	return hyperscan_check(db->hs, db->header.hs_bytes, err, err_bytes);
}

struct match_db *match_db_open(const uint8_t *image, size_t bytes, char *err, size_t err_bytes)
{
	struct match_db *db = calloc(1, sizeof(*db));

	if (!db) {
		fail(err, err_bytes, "There is no memory for the database.");
		return NULL;
	}
	if (!db_load(db, image, bytes, err, err_bytes)) {
		match_db_close(db);
		return NULL;
	}
	return db;
}

void match_db_close(struct match_db *db)
{
	if (!db)
		return;
	free(db->head);
	free(db);
}

uint64_t match_db_generation(const struct match_db *db)
{
	return db->header.generation;
}

size_t match_db_rule_ids(const struct match_db *db, const uint32_t **ids)
{
	if (ids)
		*ids = db->ids;
	return db->header.rules;
}

enum match_kind match_db_kind(const struct match_db *db)
{
	return (enum match_kind)db->header.kind;
}

size_t match_db_bytes(const struct match_db *db)
{
	return (size_t)db->header.image_bytes;
}

bool match_db_has(const struct match_db *db, uint32_t id)
{
	uint32_t low = 0, high = db->header.rules;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (db->ids[mid] < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low < db->header.rules && db->ids[low] == id;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

struct match_scratch *match_scratch_grow(const struct match_scratch *old, const struct match_db *db)
{
	struct match_scratch *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->rules_max = larger(db->header.rules, old ? old->rules_max : 1);
	s->patterns_max = larger(db->header.patterns, old ? old->patterns_max : 1);
	s->rules = calloc(s->rules_max, sizeof(*s->rules));
	s->patterns = calloc(s->patterns_max, sizeof(*s->patterns));
	if (!s->rules || !s->patterns || (old && old->hs && hs_clone_scratch(old->hs, &s->hs) != HS_SUCCESS) ||
	    (db->hs && hs_alloc_scratch(db->hs, &s->hs) != HS_SUCCESS)) {
		match_scratch_free(s);
		return NULL;
	}
	return s;
}

void match_scratch_free(struct match_scratch *s)
{
	if (!s)
		return;
	if (s->hs)
		hs_free_scratch(s->hs);
	free(s->rules);
	free(s->patterns);
	free(s);
}

struct scan {
	const struct match_set *set;
	const struct match_db *db;
	struct match_scratch *scratch;
	struct match_sink *sink;
	const uint8_t *subject;
	size_t len;
	bool has_records;
};

static void rule_report(const struct scan *c, uint32_t rule)
{
	uint32_t id = c->db->ids[rule];

	if (!c->has_records || !match_rec_find(c->set->pool, c->set->idx, id))
		match_sink_put(c->sink, id);
}

static int HS_CDECL on_hit(unsigned int id, unsigned long long from, unsigned long long to, unsigned int flags, void *ctx)
{
	const struct scan *c = ctx;
	const struct match_image_pattern *p;

	(void)from;
	(void)flags;
	if (id >= c->db->header.patterns || c->scratch->patterns[id] == c->scratch->epoch)
		return 0;
	p = &c->db->patterns[id];
	if (p->tail_len && (p->tail_len > c->len - to || memcmp(c->subject + to, c->db->tails + p->tail_at, p->tail_len) != 0))
		return 0;
	c->scratch->patterns[id] = c->scratch->epoch;
	for (uint32_t i = p->ref_first; i < p->ref_first + p->ref_count; i++) {
		uint32_t rule = c->db->refs[i];
		struct rule_hits *hits = &c->scratch->rules[rule];

		if (hits->epoch != c->scratch->epoch)
			*hits = (struct rule_hits){.epoch = c->scratch->epoch};
		if (++hits->count == c->db->needs[rule])
			rule_report(c, rule);
	}
	return 0;
}

static void epoch_next(struct match_scratch *s)
{
	if (++s->epoch)
		return;
	memset(s->rules, 0, s->rules_max * sizeof(*s->rules));
	memset(s->patterns, 0, s->patterns_max * sizeof(*s->patterns));
	s->epoch = 1;
}

void match_db_find(struct match_set *s, const uint8_t *subject, size_t len, struct match_sink *sink)
{
	const struct match_db *db = s->db;
	struct match_scratch *scratch = s->pool->scratch;
	struct scan c = {.set = s, .db = db, .scratch = scratch, .sink = sink, .subject = subject, .len = len};
	hs_error_t rc;

	c.has_records = s->exact_count + s->overlay_count + s->tomb_count + s->stale_count != 0;
	for (uint32_t i = 0; i < db->header.always; i++)
		rule_report(&c, db->always[i]);
	if (!len) {
		/* Hyperscan reports nothing for no bytes at all, whatever the pattern. */
		for (uint32_t i = 0; i < db->header.empties; i++)
			rule_report(&c, db->empties[i]);
		return;
	}
	if (!db->hs || len > UINT32_MAX)
		return;
	assert(scratch && scratch->hs && scratch->rules_max >= db->header.rules && scratch->patterns_max >= db->header.patterns);
	epoch_next(scratch);
	rc = hs_scan(db->hs, (const char *)subject, (unsigned int)len, 0, scratch->hs, on_hit, &c);
	if (rc != HS_SUCCESS)
		s->scan_failures++;
}
