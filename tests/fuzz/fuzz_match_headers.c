/*
 * fuzz_match_headers.c - canonical headers: what the builder writes is accepted and agrees with the oracle; anything else is
 * refused or agrees as well.
 *
 * Owns: the input's format: one octet of options; then either a raw rule and a raw subject behind a length octet, or headers
 * to build both from.
 * Core: test.
 * Spec: matcher/README.md, "Canonical headers".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matcher/matcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *take(const uint8_t **at, const uint8_t *end, size_t want, size_t *len)
{
	const uint8_t *p = *at;

	*len = want < (size_t)(end - *at) ? want : (size_t)(end - *at);
	*at += *len;
	return p;
}

static uint8_t take_byte(const uint8_t **at, const uint8_t *end)
{
	return *at < end ? *(*at)++ : 0;
}

/* One header: kind and lengths in one octet, then name and value. */
static void put_next(struct match_headers *h, const uint8_t **at, const uint8_t *end)
{
	uint8_t how = take_byte(at, end);
	struct match_value v = {.kind = (enum match_value_kind)(how % 6)};
	size_t name_len, raw_len;
	const uint8_t *name = take(at, end, how / 6 % 4, &name_len), *raw;
	uint8_t buf[8] = {0};

	v.tag = take_byte(at, end);
	raw = take(at, end, how >> 5 ? v.tag % 24 : 8, &raw_len);
	memcpy(buf, raw, raw_len < 8 ? raw_len : 8);
	if (v.kind == MATCH_VALUE_DOUBLE)
		memcpy(&v.d, buf, 8);
	else
		memcpy(&v.i, buf, 8);
	v.data = raw;
	v.len = raw_len;
	match_headers_put(h, name, name_len, &v);
}

static void agree(bool want, bool have, const char *moment)
{
	if (want == have)
		return;
	fprintf(stderr, "%s: reported %d, wanted %d\n", moment, have, want);
	abort();
}

static void judge(struct match_pool *pool, const uint8_t *rule, size_t rule_len, const uint8_t *subject, size_t subject_len,
		  bool built, bool compile)
{
	struct match_set *set = match_set_open(pool, MATCH_HEADERS);
	bool want = match_oracle(MATCH_HEADERS, rule, rule_len, subject, subject_len);
	struct match_rule one = {9, rule, rule_len};
	uint32_t id;
	size_t bytes;
	uint8_t *image;
	int rc = match_rule_add(set, 9, rule, rule_len);

	if (rc && (built || rc != -2))
		abort();
	if (!rc)
		agree(want, match_find(set, subject, subject_len, &id, 1) == 1, "overlay");
	if (compile) {
		image = match_compile(MATCH_HEADERS, &one, 1, 1, &bytes, NULL, 0);
		if (!image != (rc != 0))
			abort();
		if (image && built) {
			struct match_db *db = match_db_open(image, bytes, NULL, 0);
			struct match_scratch *scratch = db ? match_scratch_grow(NULL, db) : NULL;

			if (!scratch || match_set_take_db(set, db))
				abort();
			match_pool_set_scratch(pool, scratch);
			while (match_forget_step(set, 1))
				;
			agree(want, match_find(set, subject, subject_len, &id, 1) == 1, "database");
			match_set_take_db(set, NULL);
			match_db_close(db);
			match_scratch_free(match_pool_set_scratch(pool, NULL));
		}
		free(image);
	}
	match_set_close(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct match_pool *pool;
	static uint32_t asked;
	const struct match_limits limits = {.sets_max = 1, .rules_max = 8, .nodes_max = 4096, .key_bytes_max = 1u << 20};
	static uint8_t rule[1u << 16], subject[1u << 16];
	const uint8_t *at = data + 1, *end = data + size;
	struct match_headers h;
	size_t rule_len, subject_len;
	uint8_t count;
	bool compile;

	if (!size)
		return 0;
	if (!pool) {
		void *mem = malloc(match_pool_bytes(&limits));

		if (!mem)
			abort();
		pool = match_pool_init(mem, match_pool_bytes(&limits), &limits);
	}
	/* A compile is dear, so a long run does few; a replayed input always gets its own. */
	compile = !(data[0] & 0x78) && (asked++ < 64 || asked % 16 == 0);
	if (data[0] & 1) {
		const uint8_t *raw = take(&at, end, take_byte(&at, end), &rule_len);

		judge(pool, raw, rule_len, at, (size_t)(end - at), false, compile);
		return 0;
	}
	match_headers_rule_begin(&h, rule, sizeof(rule), data[0] & 2 ? MATCH_ANY : MATCH_ALL);
	for (count = take_byte(&at, end) % 8; count && at < end; count--)
		put_next(&h, &at, end);
	rule_len = match_headers_end(&h);
	match_headers_subject_begin(&h, subject, sizeof(subject));
	/* Option 4: the subject is made from the rule's own bytes again, so that matches are frequent. */
	if (data[0] & 4)
		at = data + 2;
	while (at < end && h.count < 64)
		put_next(&h, &at, end);
	subject_len = match_headers_end(&h);
	if (rule_len && subject_len)
		judge(pool, rule, rule_len, subject, subject_len, true, compile);
	return 0;
}
