/*
 * test_match_headers.c - the canonical form of headers, and what headers rules mean.
 *
 * Owns: the table of RabbitMQ's answers for headers bindings.
 * Core: test.
 * Spec: AMQP 0-9-1 section 3.1.3.4; RabbitMQ 3.10 for numbers by value and void.
 */
#include <float.h>
#include <math.h>

#include "tests/unit/match_headers_kit.h"

#define H(...)                                                                                                                     \
	(const struct kit_header[])                                                                                                \
	{                                                                                                                          \
		__VA_ARGS__                                                                                                        \
	}
#define COUNT(...) (sizeof(__VA_ARGS__) / sizeof((__VA_ARGS__)[0]))

/* One rule against one message, through oracle, overlay, database and both; all must say `wanted`. */
static void judge(enum match_headers_mode mode, const struct kit_header *rule, size_t rule_count, const struct kit_header *have,
		  size_t have_count, bool wanted)
{
	static uint8_t r[8192], s[8192];
	struct kit_world w;
	size_t rule_len = kit_rule_bytes(r, sizeof(r), mode, rule, rule_count);
	size_t subject_len = kit_subject_bytes(s, sizeof(s), have, have_count), bytes;
	uint32_t id;
	struct match_rule one = {77, r, rule_len};
	uint8_t *image = match_compile(MATCH_HEADERS, &one, 1, 1, &bytes, NULL, 0);

	assert_true(rule_len && subject_len);
	assert_non_null(image);
	assert_int_equal(match_oracle(MATCH_HEADERS, r, rule_len, s, subject_len), wanted);
	assert_int_equal(kit_means(mode, rule, rule_count, have, have_count), wanted);
	kit_world_init(&w, MATCH_HEADERS);
	assert_int_equal(match_rule_add(w.set, 77, r, rule_len), 0);
	assert_int_equal(match_find(w.set, s, subject_len, &id, 1), wanted);
	kit_take(&w, image, bytes);
	assert_int_equal(match_find(w.set, s, subject_len, &id, 1), wanted);
	assert_false(match_forget_step(w.set, 10));
	assert_int_equal(match_find(w.set, s, subject_len, &id, 1), wanted);
	if (wanted)
		assert_int_equal(id, 77);
	kit_world_fini(&w);
	free(image);
}

#define JUDGE(mode, rule, have, wanted) judge(mode, rule, COUNT(rule), have, COUNT(have), wanted)

static void all_needs_every_item_and_any_needs_one(void **state)
{
	(void)state;
	JUDGE(MATCH_ALL, H(kit_text("a", "1"), kit_text("b", "2")), H(kit_text("b", "2"), kit_text("a", "1")), true);
	JUDGE(MATCH_ALL, H(kit_text("a", "1"), kit_text("b", "2")), H(kit_text("a", "1")), false);
	JUDGE(MATCH_ALL, H(kit_text("a", "1")), H(kit_text("a", "1"), kit_text("z", "9")), true);
	JUDGE(MATCH_ALL, H(kit_text("a", "1")), H(kit_text("a", "2")), false);
	JUDGE(MATCH_ANY, H(kit_text("a", "1"), kit_text("b", "2")), H(kit_text("b", "2")), true);
	JUDGE(MATCH_ANY, H(kit_text("a", "1"), kit_text("b", "2")), H(kit_text("b", "2"), kit_text("a", "1")), true);
	JUDGE(MATCH_ANY, H(kit_text("a", "1"), kit_text("b", "2")), H(kit_text("b", "1"), kit_text("a", "2")), false);
}

static void a_rule_without_items_matches_always_if_all_and_never_if_any(void **state)
{
	const struct kit_header x[] = {kit_text("a", "1")};

	(void)state;
	judge(MATCH_ALL, NULL, 0, NULL, 0, true);
	judge(MATCH_ALL, NULL, 0, x, 1, true);
	judge(MATCH_ANY, NULL, 0, NULL, 0, false);
	judge(MATCH_ANY, NULL, 0, x, 1, false);
	judge(MATCH_ALL, x, 1, NULL, 0, false);
	judge(MATCH_ANY, x, 1, NULL, 0, false);
}

static void numbers_compare_by_value_and_with_nothing_else(void **state)
{
	(void)state;
	JUDGE(MATCH_ALL, H(kit_int("n", 1)), H(kit_double("n", 1.0)), true);
	JUDGE(MATCH_ALL, H(kit_double("n", 1.0)), H(kit_int("n", 1)), true);
	JUDGE(MATCH_ALL, H(kit_double("n", -0.0)), H(kit_int("n", 0)), true);
	JUDGE(MATCH_ALL, H(kit_double("n", 1.5)), H(kit_double("n", 1.5)), true);
	JUDGE(MATCH_ALL, H(kit_double("n", 1.5)), H(kit_int("n", 1)), false);
	JUDGE(MATCH_ALL, H(kit_int("n", -1)), H(kit_int("n", 1)), false);
	JUDGE(MATCH_ALL, H(kit_int("n", INT64_MIN)), H(kit_double("n", -0x1p63)), true);
	JUDGE(MATCH_ALL, H(kit_int("n", INT64_MAX)), H(kit_double("n", 0x1p63)), false);
	JUDGE(MATCH_ALL, H(kit_int("n", (1ll << 53) + 1)), H(kit_double("n", 0x1p53)), false);
	JUDGE(MATCH_ALL, H(kit_double("n", DBL_MAX)), H(kit_double("n", DBL_MAX)), true);
	JUDGE(MATCH_ALL, H(kit_double("n", HUGE_VAL)), H(kit_double("n", -HUGE_VAL)), false);
	JUDGE(MATCH_ALL, H(kit_int("n", 1)), H(kit_bool("n", true)), false);
	JUDGE(MATCH_ALL, H(kit_int("n", 1)), H(kit_text("n", "1")), false);
	JUDGE(MATCH_ALL, H(kit_text("n", "true")), H(kit_bool("n", true)), false);
	JUDGE(MATCH_ALL, H(kit_bool("n", true)), H(kit_bool("n", true)), true);
	JUDGE(MATCH_ALL, H(kit_bool("n", true)), H(kit_bool("n", false)), false);
}

static void a_void_item_asks_for_the_name_alone(void **state)
{
	(void)state;
	JUDGE(MATCH_ALL, H(kit_void("n")), H(kit_text("n", "x")), true);
	JUDGE(MATCH_ALL, H(kit_void("n")), H(kit_void("n")), true);
	JUDGE(MATCH_ALL, H(kit_void("n")), H(kit_text("nn", "x")), false);
	JUDGE(MATCH_ALL, H(kit_void("n")), H(kit_text("m", "n")), false);
	JUDGE(MATCH_ALL, H(kit_text("n", "")), H(kit_void("n")), false);
	JUDGE(MATCH_ALL, H(kit_void("n"), kit_int("n", 4)), H(kit_int("n", 4)), true);
	JUDGE(MATCH_ALL, H(kit_void("n"), kit_int("n", 4)), H(kit_int("n", 5)), false);
	JUDGE(MATCH_ANY, H(kit_void("n"), kit_int("n", 4)), H(kit_int("n", 5)), true);
}

static void tables_and_time_stamps_compare_by_type_and_bytes(void **state)
{
	(void)state;
	JUDGE(MATCH_ALL, H(kit_other("t", 'T', "12345678")), H(kit_other("t", 'T', "12345678")), true);
	JUDGE(MATCH_ALL, H(kit_other("t", 'T', "12345678")), H(kit_other("t", 'F', "12345678")), false);
	JUDGE(MATCH_ALL, H(kit_other("t", 'T', "12345678")), H(kit_other("t", 'T', "12345679")), false);
	JUDGE(MATCH_ALL, H(kit_other("t", 'S', "x")), H(kit_text("t", "x")), false);
}

static void a_values_bytes_cannot_imitate_another_item(void **state)
{
	static const char inside[] = "x\0b\1Sy\0";
	struct match_value sly = {.kind = MATCH_VALUE_BYTES, .data = (const uint8_t *)inside, .len = sizeof(inside) - 1};
	const struct kit_header by_value[] = {kit_named("a", sly)};
	const struct kit_header by_name[] = {{inside, sizeof(inside) - 1, {.kind = MATCH_VALUE_INT, .i = 1}}};

	(void)state;
	JUDGE(MATCH_ANY, H(kit_text("b", "y"), kit_void("b"), kit_text("a", "x")), by_value, false);
	JUDGE(MATCH_ANY, H(kit_text("b", "y"), kit_void("b"), kit_text("x", "")), by_name, false);
	JUDGE(MATCH_ALL, by_value, by_value, true);
	JUDGE(MATCH_ALL, by_name, by_name, true);
	JUDGE(MATCH_ALL, H(kit_text("a\1S", "b")), H(kit_text("a", "\1Sb")), false);
	JUDGE(MATCH_ALL, H(kit_text("a", "\2\3")),
	      H(kit_named("a", (struct match_value){.kind = MATCH_VALUE_BYTES, .data = (const uint8_t *)"", .len = 1})), false);
	JUDGE(MATCH_ALL, H(kit_text("a", "b")), H(kit_text("a", "bc")), false);
	JUDGE(MATCH_ALL, H(kit_text("a", "bc")), H(kit_text("a", "b")), false);
	JUDGE(MATCH_ALL, H(kit_text("ab", "c")), H(kit_text("xab", "c")), false);
}

static void a_name_that_the_message_gives_twice_matches_with_either_value(void **state)
{
	(void)state;
	JUDGE(MATCH_ALL, H(kit_int("n", 1)), H(kit_int("n", 1), kit_int("n", 2)), true);
	JUDGE(MATCH_ALL, H(kit_int("n", 2)), H(kit_int("n", 1), kit_int("n", 2)), true);
	/* and an item that is there twice is one hit, not two */
	JUDGE(MATCH_ALL, H(kit_int("n", 1), kit_int("m", 1)), H(kit_int("n", 1), kit_int("n", 1)), false);
}

static void values_longer_than_a_scanned_literal_compare_to_their_last_byte(void **state)
{
	static char a[3000], b[3000], c[3000];

	(void)state;
	memset(a, 'v', sizeof(a) - 1);
	memset(b, 'v', sizeof(b) - 1);
	memset(c, 'v', sizeof(c) - 2);
	b[sizeof(b) - 2] = 'w';
	JUDGE(MATCH_ALL, H(kit_text("n", a)), H(kit_text("n", a)), true);
	JUDGE(MATCH_ALL, H(kit_text("n", a)), H(kit_text("n", b)), false);
	JUDGE(MATCH_ALL, H(kit_text("n", a)), H(kit_text("n", c)), false);
	JUDGE(MATCH_ALL, H(kit_text("n", c)), H(kit_text("n", a)), false);
	JUDGE(MATCH_ALL, H(kit_text("n", a)), H(kit_text("n", b), kit_text("n", a)), true);
	JUDGE(MATCH_ALL, H(kit_text("n", a), kit_text("n", b)), H(kit_text("n", b), kit_text("n", a)), true);
}

static void equal_rules_are_equal_bytes_in_whatever_order_they_were_put(void **state)
{
	const struct kit_header forth[] = {kit_int("a", 1), kit_text("bb", "x"), kit_void("b"), kit_double("c", 2),
					   kit_int("a", 1)};
	const struct kit_header back[] = {kit_int("c", 2), kit_void("b"), kit_text("bb", "x"), kit_double("a", 1)};
	uint8_t x[256], y[256];
	size_t x_len = kit_rule_bytes(x, sizeof(x), MATCH_ALL, forth, COUNT(forth));
	size_t y_len = kit_rule_bytes(y, sizeof(y), MATCH_ALL, back, COUNT(back));

	(void)state;
	assert_int_equal(x_len, y_len);
	assert_memory_equal(x, y, x_len);
	y_len = kit_rule_bytes(y, sizeof(y), MATCH_ANY, back, COUNT(back));
	assert_int_equal(x_len, y_len);
	assert_memory_not_equal(x, y, x_len);
}

static void a_builder_that_runs_over_says_so(void **state)
{
	const struct kit_header x[] = {kit_text("name", "value")};
	uint8_t buf[64];
	struct match_headers b;

	(void)state;
	for (size_t cap = 0; cap < 13; cap++) {
		memset(buf, 0xee, sizeof(buf));
		assert_int_equal(kit_subject_bytes(buf, cap, x, 1), 0);
		assert_int_equal(kit_rule_bytes(buf, cap, MATCH_ALL, x, 1), 0);
		for (size_t i = cap; i < sizeof(buf); i++)
			assert_int_equal(buf[i], 0xee);
	}
	assert_int_equal(kit_subject_bytes(buf, 13, x, 1), 13);
	assert_int_equal(kit_rule_bytes(buf, 14, MATCH_ALL, x, 1), 14);
	match_headers_subject_begin(&b, buf, 5);
	assert_false(match_headers_put(&b, (const uint8_t *)x[0].name, 4, &x[0].value));
}

static void a_rule_of_too_many_items_is_refused_and_the_most_allowed_is_not(void **state)
{
	static uint8_t buf[65536];
	struct match_headers b;
	struct kit_world w;
	uint32_t id;

	(void)state;
	for (uint32_t count = MATCH_RULE_ITEMS_MAX; count <= MATCH_RULE_ITEMS_MAX + 1; count++) {
		match_headers_rule_begin(&b, buf, sizeof(buf), MATCH_ALL);
		for (uint32_t i = 0; i < count; i++) {
			char name[16];
			int len = snprintf(name, sizeof(name), "h%u", (i * 7919) % 4099);

			assert_true(match_headers_put(&b, (const uint8_t *)name, (size_t)len,
						      &(struct match_value){.kind = MATCH_VALUE_INT, .i = i}));
		}
		if (count > MATCH_RULE_ITEMS_MAX)
			assert_int_equal(match_headers_end(&b), 0);
		else
			assert_int_not_equal(match_headers_end(&b), 0);
		if (count > MATCH_RULE_ITEMS_MAX)
			break;
		kit_world_init(&w, MATCH_HEADERS);
		assert_int_equal(match_rule_add(w.set, 5, buf, b.len), 0);
		assert_int_equal(match_find(w.set, buf + 1, b.len - 1, &id, 1), 1);
		kit_world_fini(&w);
	}
}

static void malformed_rules_are_refused_everywhere(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} bad[] = {
		{"", 0},
		{"A", 1},
		{"A\0a\1I1", 6},           /* not closed */
		{"Z\0a\1I1\0", 7},         /* no such mode */
		{"Aa\1I1\0", 6},           /* not opened */
		{"A\0a\0", 4},             /* an item without a value */
		{"A\0a\1\0", 5},           /* an empty value */
		{"A\0a\1Q\0", 6},          /* no such kind */
		{"A\0a\1B2\0", 7},         /* neither false nor true */
		{"A\0a\1I\0", 6},          /* no digits */
		{"A\0a\1I01\0", 8},        /* a leading zero */
		{"A\0a\1Ix\0", 7},         /* not a digit */
		{"A\0a\1S\2\0", 7},        /* an escape cut short */
		{"A\0a\1S\2\6\0", 8},      /* an escape of nothing */
		{"A\0a\1S\1\0", 7},        /* an unescaped name end */
		{"A\0\0a\1I1\0", 8},       /* an empty item */
		{"A\0b\1I1\0a\1I1\0", 12}, /* not in order */
		{"A\0a\1I1\0a\1I1\0", 12}, /* twice */
		{"A\0a\1VV\0", 7},         /* a void with a value */
		{"A\0a\1X\0", 6},          /* a wire value without its type */
	};
	struct kit_world w;
	struct kit_pool_free before;

	(void)state;
	kit_world_init(&w, MATCH_HEADERS);
	before = kit_pool_free(w.pool);
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct match_rule rule = {1, (const uint8_t *)bad[i].bytes, bad[i].len};
		size_t bytes;
		char err[200] = "";

		if (match_rule_add(w.set, 1, rule.key, rule.len) != -2)
			fail_msg("malformed rule %zu was accepted by the overlay", i);
		if (match_compile(MATCH_HEADERS, &rule, 1, 1, &bytes, err, sizeof(err)))
			fail_msg("malformed rule %zu was compiled", i);
		assert_non_null(strstr(err, "canonical"));
	}
	kit_assert_pool_free(w.pool, before);
	kit_world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_needs_every_item_and_any_needs_one),
		cmocka_unit_test(a_rule_without_items_matches_always_if_all_and_never_if_any),
		cmocka_unit_test(numbers_compare_by_value_and_with_nothing_else),
		cmocka_unit_test(a_void_item_asks_for_the_name_alone),
		cmocka_unit_test(tables_and_time_stamps_compare_by_type_and_bytes),
		cmocka_unit_test(a_values_bytes_cannot_imitate_another_item),
		cmocka_unit_test(a_name_that_the_message_gives_twice_matches_with_either_value),
		cmocka_unit_test(values_longer_than_a_scanned_literal_compare_to_their_last_byte),
		cmocka_unit_test(equal_rules_are_equal_bytes_in_whatever_order_they_were_put),
		cmocka_unit_test(a_builder_that_runs_over_says_so),
		cmocka_unit_test(a_rule_of_too_many_items_is_refused_and_the_most_allowed_is_not),
		cmocka_unit_test(malformed_rules_are_refused_everywhere),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
