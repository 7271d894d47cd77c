/*
 * fuzz_match_topic.c - topic patterns and keys of any bytes: overlay and database against the oracle.
 *
 * Owns: the input's format: one octet of options, then spans of one length octet and its bytes: the key, then the patterns.
 * Core: test.
 * Spec: AMQP 0-9-1 section 3.1.3.3 (matcher/README.md).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matcher/matcher.h"

#define PATTERNS_MAX 24u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct span {
	const uint8_t *at;
	size_t len;
};

struct input {
	struct span key, pattern[PATTERNS_MAX];
	uint32_t count;
	bool compile;
};

static struct span span_next(const uint8_t **at, const uint8_t *end)
{
	struct span s = {*at, 0};

	if (*at == end)
		return s;
	s.len = *(*at)++;
	if (s.len > (size_t)(end - *at))
		s.len = (size_t)(end - *at);
	s.at = *at;
	*at += s.len;
	return s;
}

static void judge(struct match_set *set, const struct input *in, uint32_t removed, const char *moment)
{
	uint32_t ids[PATTERNS_MAX];
	size_t found = match_find(set, in->key.at, in->key.len, ids, PATTERNS_MAX), expected = 0;

	for (uint32_t i = 0; i < in->count; i++) {
		bool want =
			i != removed && match_oracle(MATCH_TOPIC, in->pattern[i].at, in->pattern[i].len, in->key.at, in->key.len);
		uint32_t have = 0;

		for (size_t j = 0; j < found && j < PATTERNS_MAX; j++)
			have += ids[j] == i;
		expected += want;
		if (have != want) {
			fprintf(stderr, "%s: pattern %u was reported %u times, wanted %d\n", moment, i, have, want);
			abort();
		}
	}
	if (found != expected)
		abort();
}

static void with_database(struct match_pool *pool, struct match_set *set, const struct input *in)
{
	struct match_rule rules[PATTERNS_MAX];
	struct match_db *db;
	struct match_scratch *scratch;
	size_t bytes;
	uint8_t *image;

	for (uint32_t i = 0; i < in->count; i++)
		rules[i] = (struct match_rule){i, in->pattern[i].at, in->pattern[i].len};
	image = match_compile(MATCH_TOPIC, rules, in->count, 1, &bytes, NULL, 0);
	db = image ? match_db_open(image, bytes, NULL, 0) : NULL;
	scratch = db ? match_scratch_grow(NULL, db) : NULL;
	if (!scratch)
		abort();
	match_pool_set_scratch(pool, scratch);
	if (match_set_take_db(set, db))
		abort();
	judge(set, in, UINT32_MAX, "overlay and database");
	while (match_forget_step(set, 1))
		judge(set, in, UINT32_MAX, "forgetting");
	judge(set, in, UINT32_MAX, "database");
	if (in->count && !match_rule_remove(set, 0))
		abort();
	judge(set, in, 0, "tombstone");
	match_db_close(match_set_close(set));
	match_scratch_free(match_pool_set_scratch(pool, NULL));
	free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct match_pool *pool;
	static uint32_t asked;
	const struct match_limits limits = {.sets_max = 1, .rules_max = 64, .nodes_max = 8192, .key_bytes_max = 1u << 18};
	const uint8_t *at = data + 1, *end = data + size;
	struct input in = {.count = 0};
	struct match_set *set;

	if (!size)
		return 0;
	if (!pool) {
		void *mem = malloc(match_pool_bytes(&limits));

		if (!mem)
			abort();
		pool = match_pool_init(mem, match_pool_bytes(&limits), &limits);
	}
	/* A compile is a thousand times dearer than the rest, so a long run does few; a replayed input always gets its own. */
	in.compile = data[0] % 16 == 0 && (asked++ < 64 || asked % 64 == 0);
	in.key = span_next(&at, end);
	while (at < end && in.count < PATTERNS_MAX)
		in.pattern[in.count++] = span_next(&at, end);
	set = match_set_open(pool, MATCH_TOPIC);
	for (uint32_t i = 0; i < in.count; i++) {
		if (match_rule_add(set, i, in.pattern[i].at, in.pattern[i].len))
			abort();
	}
	judge(set, &in, UINT32_MAX, "overlay");
	if (in.compile) {
		with_database(pool, set, &in);
		return 0;
	}
	if (in.count && !match_rule_remove(set, 0))
		abort();
	judge(set, &in, 0, "removed");
	match_set_close(set);
	return 0;
}
