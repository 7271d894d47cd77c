/*
 * match_headers_kit.h - headers as names and values, and what a rule means, without the canonical encoding.
 *
 * Owns: `kit_header` lists and a judge that compares values as values, so that the encoding itself is on trial.
 * Core: tests only.
 * Spec: RabbitMQ's headers exchange (matcher/README.md).
 */
#ifndef TICKWIRE_TESTS_MATCH_HEADERS_KIT_H
#define TICKWIRE_TESTS_MATCH_HEADERS_KIT_H

#include "tests/unit/match_kit.h"

struct kit_header {
	const char *name;
	size_t name_len;
	struct match_value value;
};

static inline struct kit_header kit_named(const char *name, struct match_value v)
{
	return (struct kit_header){name, strlen(name), v};
}

static inline struct kit_header kit_text(const char *name, const char *text)
{
	return kit_named(name, (struct match_value){.kind = MATCH_VALUE_BYTES, .data = (const uint8_t *)text, .len = strlen(text)});
}

static inline struct kit_header kit_int(const char *name, int64_t i)
{
	return kit_named(name, (struct match_value){.kind = MATCH_VALUE_INT, .i = i});
}

static inline struct kit_header kit_double(const char *name, double d)
{
	return kit_named(name, (struct match_value){.kind = MATCH_VALUE_DOUBLE, .d = d});
}

static inline struct kit_header kit_bool(const char *name, bool b)
{
	return kit_named(name, (struct match_value){.kind = MATCH_VALUE_BOOL, .i = b});
}

static inline struct kit_header kit_void(const char *name)
{
	return kit_named(name, (struct match_value){.kind = MATCH_VALUE_VOID});
}

static inline struct kit_header kit_other(const char *name, uint8_t tag, const char *wire)
{
	return kit_named(name, (struct match_value){
				       .kind = MATCH_VALUE_OTHER, .tag = tag, .data = (const uint8_t *)wire, .len = strlen(wire)});
}

static inline size_t kit_rule_bytes(uint8_t *buf, size_t cap, enum match_headers_mode mode, const struct kit_header *h,
				    size_t count)
{
	struct match_headers b;

	match_headers_rule_begin(&b, buf, cap, mode);
	for (size_t i = 0; i < count; i++)
		match_headers_put(&b, (const uint8_t *)h[i].name, h[i].name_len, &h[i].value);
	return match_headers_end(&b);
}

static inline size_t kit_subject_bytes(uint8_t *buf, size_t cap, const struct kit_header *h, size_t count)
{
	struct match_headers b;

	match_headers_subject_begin(&b, buf, cap);
	for (size_t i = 0; i < count; i++)
		match_headers_put(&b, (const uint8_t *)h[i].name, h[i].name_len, &h[i].value);
	return match_headers_end(&b);
}

static inline bool kit_value_equal(const struct match_value *a, const struct match_value *b)
{
	bool a_number = a->kind == MATCH_VALUE_INT || a->kind == MATCH_VALUE_DOUBLE;
	bool b_number = b->kind == MATCH_VALUE_INT || b->kind == MATCH_VALUE_DOUBLE;

	if (a_number && b_number) {
		if (a->kind == b->kind)
			return a->kind == MATCH_VALUE_INT ? a->i == b->i : a->d == b->d;
		/* a long double holds every int64 and every double */
		return (a->kind == MATCH_VALUE_INT ? (long double)a->i : (long double)a->d) ==
		       (b->kind == MATCH_VALUE_INT ? (long double)b->i : (long double)b->d);
	}
	if (a->kind != b->kind)
		return false;
	if (a->kind == MATCH_VALUE_BOOL)
		return !a->i == !b->i;
	if (a->kind == MATCH_VALUE_VOID)
		return true;
	if (a->kind == MATCH_VALUE_OTHER && a->tag != b->tag)
		return false;
	return a->len == b->len && (!a->len || memcmp(a->data, b->data, a->len) == 0);
}

static inline bool kit_holds(const struct kit_header *want, const struct kit_header *have, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (have[i].name_len != want->name_len || memcmp(have[i].name, want->name, want->name_len) != 0)
			continue;
		if (want->value.kind == MATCH_VALUE_VOID || kit_value_equal(&want->value, &have[i].value))
			return true;
	}
	return false;
}

static inline bool kit_means(enum match_headers_mode mode, const struct kit_header *rule, size_t rule_count,
			     const struct kit_header *have, size_t have_count)
{
	size_t held = 0;

	for (size_t i = 0; i < rule_count; i++)
		held += kit_holds(&rule[i], have, have_count);
	return mode == MATCH_ALL ? held == rule_count : held > 0;
}

#endif
