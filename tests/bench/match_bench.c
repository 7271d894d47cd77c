/*
 * match_bench.c - what a find costs: exact hash, overlay and database for 10, 100 and 1,000 patterns, and what compiling costs.
 *
 * Owns: nothing that is asserted; figures for people.
 * Core: any quiet one.
 * Spec: DESIGN section 6 (the table of measurements).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "matcher/matcher.h"

#define SUBJECTS 256u
#define FINDS    400000u
#define BUF      256u

struct subject {
	uint8_t bytes[BUF];
	size_t len;
};

struct bench {
	enum match_kind kind;
	uint32_t rule_count;
	struct match_rule *rules;
	uint8_t (*keys)[BUF];
	struct subject subjects[SUBJECTS];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static size_t text(uint8_t *out, const char *format, uint32_t a, uint32_t b)
{
	char line[BUF];
	int n = snprintf(line, sizeof(line), format, a, b);

	memcpy(out, line, (size_t)n);
	return (size_t)n;
}

static size_t headers(uint8_t *out, uint32_t a, uint32_t b, bool rule)
{
	struct match_headers h;
	uint8_t symbol[32];
	struct match_value v = {.kind = MATCH_VALUE_BYTES, .data = symbol};

	v.len = text(symbol, "sym%u", a, 0);
	if (rule)
		match_headers_rule_begin(&h, out, BUF, MATCH_ALL);
	else
		match_headers_subject_begin(&h, out, BUF);
	match_headers_put(&h, (const uint8_t *)"symbol", 6, &v);
	match_headers_put(&h, (const uint8_t *)"venue", 5, &(struct match_value){.kind = MATCH_VALUE_INT, .i = b % 7});
	if (!rule)
		match_headers_put(&h, (const uint8_t *)"price", 5, &(struct match_value){.kind = MATCH_VALUE_DOUBLE, .d = 101.25});
	return match_headers_end(&h);
}

/* Rules as people write them: one exchange's symbol, a prefix, a suffix, a hole; subjects hit about one each. */
static void fill(struct bench *b)
{
	static const char *const forms[] = {"md.*.s%u.trade", "md.x%u.#", "#.s%u.quote", "md.x%u.*.s%u"};

	for (uint32_t i = 0; i < b->rule_count; i++) {
		size_t len = b->kind == MATCH_HEADERS ? headers(b->keys[i], i, i, true)
			     : b->kind == MATCH_EXACT ? text(b->keys[i], "md.x1.s%u.trade", i, 0)
						      : text(b->keys[i], forms[i % 4], i, i);

		b->rules[i] = (struct match_rule){i, b->keys[i], len};
	}
	for (uint32_t i = 0; i < SUBJECTS; i++) {
		uint32_t hit = i * 37 % b->rule_count;

		b->subjects[i].len = b->kind == MATCH_HEADERS ? headers(b->subjects[i].bytes, hit, hit, false)
							      : text(b->subjects[i].bytes, "md.x1.s%u.trade", hit, 0);
	}
}

static double find_ns(const struct bench *b, struct match_set *set, double *hits)
{
	uint32_t ids[1024];
	uint64_t began, total = 0;
	double best = 1e18;

	/* The best of five: the machine is shared, and a find cannot be faster than it is. */
	for (uint32_t run = 0; run < 5; run++) {
		total = 0;
		began = now_ns();
		for (uint32_t i = 0; i < FINDS / 5; i++) {
			const struct subject *s = &b->subjects[i % SUBJECTS];

			total += match_find(set, s->bytes, s->len, ids, 1024);
		}
		if ((double)(now_ns() - began) / (FINDS / 5) < best)
			best = (double)(now_ns() - began) / (FINDS / 5);
	}
	*hits = (double)total / (FINDS / 5);
	return best;
}

static void measure(enum match_kind kind, const char *name, uint32_t rule_count)
{
	const struct match_limits l = {.sets_max = 1, .rules_max = 4096, .nodes_max = 65536, .key_bytes_max = 4u << 20};
	struct bench *b = calloc(1, sizeof(*b));
	void *mem = malloc(match_pool_bytes(&l));
	struct match_pool *p = match_pool_init(mem, match_pool_bytes(&l), &l);
	struct match_set *set = match_set_open(p, kind);
	double overlay_hits, db_hits = 0, overlay_ns, db_ns = 0, compile_ms = 0;
	size_t bytes = 0;

	b->kind = kind;
	b->rule_count = rule_count;
	b->rules = calloc(rule_count, sizeof(*b->rules));
	b->keys = calloc(rule_count, sizeof(*b->keys));
	fill(b);
	for (uint32_t i = 0; i < rule_count; i++)
		match_rule_add(set, b->rules[i].id, b->rules[i].key, b->rules[i].len);
	overlay_ns = find_ns(b, set, &overlay_hits);
	if (kind != MATCH_EXACT) {
		char err[200] = "";
		uint64_t began = now_ns();
		uint8_t *image = match_compile(kind, b->rules, rule_count, 1, &bytes, err, sizeof(err));
		struct match_db *db = image ? match_db_open(image, bytes, err, sizeof(err)) : NULL;
		struct match_scratch *scratch = db ? match_scratch_grow(NULL, db) : NULL;

		compile_ms = (double)(now_ns() - began) / 1e6;
		if (!scratch) {
			fprintf(stderr, "%s\n", err);
			exit(1);
		}
		match_pool_set_scratch(p, scratch);
		match_set_take_db(set, db);
		while (match_forget_step(set, 100))
			;
		db_ns = find_ns(b, set, &db_hits);
		match_db_close(match_set_close(set));
		match_scratch_free(scratch);
		free(image);
		printf("%-8s %6u %10.0f %12.0f %12.1f %10zu %8.2f\n", name, rule_count, overlay_ns, db_ns, compile_ms, bytes >> 10,
		       db_hits);
	} else {
		printf("%-8s %6u %10.0f %12s %12s %10s %8.2f\n", name, rule_count, overlay_ns, "-", "-", "-", overlay_hits);
	}
	free(b->rules);
	free(b->keys);
	free(b);
	free(mem);
}

int main(void)
{
	printf("%-8s %6s %10s %12s %12s %10s %8s\n", "kind", "rules", "overlay ns", "database ns", "compile ms", "image KiB",
	       "hits");
	for (uint32_t n = 10; n <= 1000; n *= 10) {
		measure(MATCH_EXACT, "exact", n);
		measure(MATCH_TOPIC, "topic", n);
		measure(MATCH_HEADERS, "headers", n);
	}
	return 0;
}
