/*
 * fuzz_match_image.c - images that were written to by somebody else: refused, or scanned without harm.
 *
 * Owns: the input's format: one octet that chooses the image, then changes of three octets (place, place, value) to its
 * tables, whose sum is set right afterwards; a place with the top bit set changes the Hyperscan part, whose sum is not.
 * Core: test.
 * Spec: DESIGN section 5 (the dataplane treats every byte that control wrote as untrusted).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matcher/image.h"
#include "matcher/match_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *images[2], *copies[2];
static size_t image_bytes[2];
static struct match_pool *pool;

static void images_make(void)
{
	static const struct match_rule topics[] = {{3, (const uint8_t *)"#", 1},      {4, (const uint8_t *)"a.*", 3},
						   {8, (const uint8_t *)"#.b", 3},    {9, (const uint8_t *)"", 0},
						   {70, (const uint8_t *)"a.#.b", 5}, {71, (const uint8_t *)"a.#.b", 5}};
	static const struct match_limits limits = {.sets_max = 1, .rules_max = 64, .nodes_max = 64, .key_bytes_max = 4096};
	static uint8_t rule[1024], value[600];
	struct match_rule headers[] = {{5, rule, 0}, {6, (const uint8_t *)"A\0", 2}, {7, (const uint8_t *)"O\0a\1V\0b\1I1\0", 11}};
	struct match_headers h;
	void *mem = malloc(match_pool_bytes(&limits));

	match_headers_rule_begin(&h, rule, sizeof(rule), MATCH_ALL);
	match_headers_put(&h, (const uint8_t *)"a", 1, &(struct match_value){.kind = MATCH_VALUE_BYTES, .data = value, .len = 200});
	match_headers_put(&h, (const uint8_t *)"b", 1, &(struct match_value){.kind = MATCH_VALUE_INT, .i = 1});
	headers[0].len = match_headers_end(&h);
	images[0] = match_compile(MATCH_TOPIC, topics, 6, 1, &image_bytes[0], NULL, 0);
	images[1] = match_compile(MATCH_HEADERS, headers, 3, 1, &image_bytes[1], NULL, 0);
	for (int i = 0; i < 2; i++) {
		copies[i] = images[i] ? aligned_alloc(64, (image_bytes[i] + 63) & ~(size_t)63) : NULL;
		if (!copies[i] || !mem)
			abort();
	}
	pool = match_pool_init(mem, match_pool_bytes(&limits), &limits);
}

static void scan(struct match_db *db)
{
	static const uint8_t value[200];
	static uint8_t subject[1024];
	static const char *const keys[] = {"", "a", "a.b", "a.x.b", "b", "..."};
	struct match_scratch *scratch = match_scratch_grow(NULL, db);
	struct match_set *set = match_set_open(pool, match_db_kind(db));
	struct match_headers h;
	uint32_t ids[16];

	if (!scratch || !set)
		abort();
	match_pool_set_scratch(pool, scratch);
	if (!match_set_take_db(set, db)) {
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			match_find(set, (const uint8_t *)keys[i], strlen(keys[i]), ids, 16);
		match_headers_subject_begin(&h, subject, sizeof(subject));
		match_headers_put(&h, (const uint8_t *)"a", 1,
				  &(struct match_value){.kind = MATCH_VALUE_BYTES, .data = value, .len = sizeof(value)});
		match_headers_put(&h, (const uint8_t *)"b", 1, &(struct match_value){.kind = MATCH_VALUE_DOUBLE, .d = 1});
		match_find(set, subject, match_headers_end(&h), ids, 16);
	}
	match_set_close(set);
	match_scratch_free(match_pool_set_scratch(pool, NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct match_image_header was, h;
	struct match_db *db;
	uint64_t tables;
	uint8_t *copy;
	size_t which;

	if (!size)
		return 0;
	if (!pool)
		images_make();
	which = data[0] & 1;
	copy = copies[which];
	memcpy(copy, images[which], image_bytes[which]);
	memcpy(&was, copy, sizeof(was));
	tables = match_image_layout(&was).hs;
	for (size_t i = 1; i + 3 <= size; i += 3) {
		uint32_t place = (uint32_t)(data[i] << 8 | data[i + 1]);

		if (place & 0x8000)
			copy[tables + (place & 0x7fff) % was.hs_bytes] = data[i + 2];
		else
			copy[place % tables] = data[i + 2];
	}
	memcpy(&h, copy, sizeof(h));
	tables = match_image_layout(&h).hs;
	if (h.hs_bytes <= image_bytes[which] && tables <= image_bytes[which] && tables >= sizeof(h)) {
		h.tables_sum = match_image_tables_sum(copy, tables);
		memcpy(copy, &h, sizeof(h));
	}
	db = match_db_open(copy, image_bytes[which], NULL, 0);
	if (db) {
		scan(db);
		match_db_close(db);
	}
	return 0;
}
