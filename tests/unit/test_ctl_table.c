/*
 * test_ctl_table.c - the field-table codec and the rules that headers bindings make.
 *
 * Owns: nothing.
 * Core: a cmocka program.
 * Spec: AMQP 0-9-1 section 4.2.5.5; section 3.1.3.4 with RabbitMQ's x-match.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "amqp/header_rule.h"
#include "amqp/table.h"
#include "matcher/matcher.h"

#define LIT(s) (const uint8_t *)(s), sizeof(s) - 1

static void every_type_of_the_specification_passes_and_is_read_by_value(void **state)
{
	static const char bytes[] = "\1at\1"
				    "\1bb\377"
				    "\1cB\377"
				    "\1ds\377\376"
				    "\1eu\377\376"
				    "\1fU\377\375"
				    "\1gI\377\377\377\377"
				    "\1hi\377\377\377\377"
				    "\1il\200\0\0\0\0\0\0\0"
				    "\1jL\0\0\0\0\0\0\0\7"
				    "\1kf\77\300\0\0"
				    "\1ld\277\370\0\0\0\0\0\0"
				    "\1mD\2\0\0\1\54"
				    "\1nS\0\0\0\2xy"
				    "\1ox\0\0\0\1z"
				    "\1pA\0\0\0\2t\0"
				    "\1qT\0\0\0\0\0\0\0\11"
				    "\1rF\0\0\0\3\1zV"
				    "\1sV";
	static const int64_t want[] = {1, -1, 255, -2, 65534, -3, -1, 4294967295, INT64_MIN, 7};
	struct amqp_table_iter it;
	struct amqp_field f;
	const char *why;
	unsigned n = 0;

	(void)state;
	assert_int_equal(amqp_table_check(LIT(bytes), &why), 0);
	amqp_table_iter(&it, LIT(bytes));
	for (; amqp_table_next(&it, &f); n++) {
		assert_int_equal(f.name.len, 1);
		assert_int_equal(f.name.ptr[0], 'a' + n);
		if (n < 10)
			assert_int_equal(f.i, want[n]);
	}
	assert_int_equal(n, 19);
	assert_true(amqp_table_find(LIT(bytes), "k", &f) && f.d > 1.49 && f.d < 1.51);
	assert_true(amqp_table_find(LIT(bytes), "l", &f) && f.d < -1.49 && f.d > -1.51);
	assert_true(amqp_table_find(LIT(bytes), "m", &f) && f.scale == 2 && f.i == 300);
	assert_true(amqp_table_find(LIT(bytes), "n", &f) && f.value.len == 2 && memcmp(f.value.ptr, "xy", 2) == 0);
	assert_true(amqp_table_find(LIT(bytes), "p", &f));
	amqp_array_iter(&it, f.value.ptr, f.value.len);
	assert_true(amqp_table_next(&it, &f) && f.type == 't' && f.i == 0);
	assert_false(amqp_table_next(&it, &f));
	assert_false(amqp_table_find(LIT(bytes), "zz", &f));
}

static void a_table_that_is_cut_anywhere_is_refused_with_501(void **state)
{
	static const char bytes[] = "\1aI\0\0\0\1\2xyS\0\0\0\3abc\1tF\0\0\0\13\1uA\0\0\0\5l\0\0\0\0";
	uint8_t copy[64];
	const char *why;

	(void)state;
	for (size_t len = 1; len < sizeof bytes - 1; len++) {
		memcpy(copy, bytes, len);
		if (len == 7 || len == 18)
			continue; /* between two fields: a whole, shorter table */
		assert_int_equal(amqp_table_check(copy, len, &why), 501);
	}
	assert_int_equal(amqp_table_check((const uint8_t *)"", 0, &why), 0);
	assert_int_equal(amqp_table_check(LIT("\1aS\377\377\377\377x"), &why), 501);
}

static void an_unknown_type_and_a_nesting_without_end_are_refused_with_502(void **state)
{
	static uint8_t deep[1000 * 5];
	const char *why;
	size_t len = 0;

	(void)state;
	assert_int_equal(amqp_table_check(LIT("\1aZ"), &why), 502);
	/* arrays in arrays, 1,000 deep; the lengths are right */
	for (unsigned i = 0; i < 1000; i++) {
		uint32_t inside = (uint32_t)(sizeof deep - len - 5);

		deep[len++] = 'A';
		for (int s = 24; s >= 0; s -= 8)
			deep[len++] = (uint8_t)(inside >> s);
	}
	uint8_t table[sizeof deep + 2];
	table[0] = 1;
	table[1] = 'a';
	memcpy(table + 2, deep, sizeof deep);
	assert_int_equal(amqp_table_check(table, sizeof table, &why), 502);
	assert_string_equal(why, "a field table is nested too deep");
}

static void tables_are_equal_by_value_whatever_their_order(void **state)
{
	(void)state;
	assert_true(amqp_table_equal(LIT("\1ab\144"), LIT("\1aI\0\0\0\144"))); /* int8 100, int32 100 */
	assert_true(amqp_table_equal(LIT("\1ab\1\1bt\1"), LIT("\1bt\1\1ab\1")));
	assert_true(amqp_table_equal(LIT("\1ad\77\360\0\0\0\0\0\0"), LIT("\1ab\1")));
	assert_false(amqp_table_equal(LIT("\1ab\1"), LIT("\1at\1"))); /* a number is no truth value */
	assert_false(amqp_table_equal(LIT("\1ab\1"), LIT("\1ab\2")));
	assert_false(amqp_table_equal(LIT("\1ab\1"), LIT("\1ab\1\1bb\1")));
	assert_false(amqp_table_equal(LIT("\1ab\1\1ab\1"), LIT("\1ab\1\1bb\1")));
	assert_false(amqp_table_equal(LIT("\1bb\1\1ab\1"), LIT("\1ab\1\1ab\1")));
	/* 2^53 + 1 as an integer and 2^53 as a double */
	assert_false(amqp_table_equal(LIT("\1al\0\40\0\0\0\0\0\1"), LIT("\1ad\103\100\0\0\0\0\0\0")));
	assert_true(amqp_table_equal(LIT("\1aF\0\0\0\7\1xb\1\1yV"), LIT("\1aF\0\0\0\7\1yV\1xb\1")));
	assert_false(amqp_table_equal(LIT("\1aA\0\0\0\4b\1b\2"), LIT("\1aA\0\0\0\4b\2b\1"))); /* an array has an order */
}

static void what_the_writer_wrote_is_read_back(void **state)
{
	struct amqp_table_writer w;
	struct amqp_field f;
	uint8_t buf[256];
	const char *why;
	char text[256];

	(void)state;
	amqp_table_begin(&w, buf, sizeof buf);
	assert_true(amqp_table_put_cstr(&w, "product", "Tickwire"));
	assert_true(amqp_table_open(&w, "capabilities"));
	assert_true(amqp_table_put_bool(&w, "publisher_confirms", true));
	assert_true(amqp_table_close(&w));
	assert_true(amqp_table_put_i32(&w, "n", -5));
	assert_true(amqp_table_put_i64(&w, "big", INT64_MIN));
	assert_true(amqp_table_put_double(&w, "d", 0.5));
	assert_true(amqp_table_put_void(&w, "v"));
	assert_int_equal(amqp_table_check(buf, w.len, &why), 0);
	assert_true(amqp_table_find(buf, w.len, "capabilities", &f));
	assert_true(amqp_table_find(f.value.ptr, f.value.len, "publisher_confirms", &f) && f.i == 1);
	assert_true(amqp_table_find(buf, w.len, "big", &f) && f.i == INT64_MIN);
	amqp_table_print(text, sizeof text, buf, w.len);
	assert_string_equal(
		text, "product=Tickwire, capabilities={publisher_confirms=true}, n=-5, big=-9223372036854775808, d=0.5, v=void");
	assert_true(amqp_table_print(text, 16, buf, w.len) < 16);
	assert_string_equal(text + strlen(text) - 3, "...");
}

static void a_writer_that_overflows_says_so_and_writes_nothing_beyond(void **state)
{
	struct amqp_table_writer w;
	uint8_t buf[16];

	(void)state;
	for (size_t cap = 0; cap < 12; cap++) {
		memset(buf, 0xaa, sizeof buf);
		amqp_table_begin(&w, buf, cap);
		amqp_table_put_cstr(&w, "ab", "cdef");
		assert_int_equal(w.overflow, cap < 12);
		for (size_t i = cap; i < sizeof buf; i++)
			assert_int_equal(buf[i], 0xaa);
	}
	amqp_table_begin(&w, buf, sizeof buf);
	assert_true(amqp_table_put_cstr(&w, "ab", "cdef"));
	assert_int_equal(w.len, 12);
}

static void utf8_is_checked_as_rfc_3629_says(void **state)
{
	(void)state;
	assert_true(amqp_utf8_valid(LIT("gr\303\274n \342\202\254 \360\237\230\200")));
	assert_false(amqp_utf8_valid(LIT("\300\200")));         /* overlong */
	assert_false(amqp_utf8_valid(LIT("\355\240\200")));     /* a surrogate */
	assert_false(amqp_utf8_valid(LIT("\364\220\200\200"))); /* above U+10FFFF */
	assert_false(amqp_utf8_valid(LIT("a\342\202")));
	assert_false(amqp_utf8_valid(LIT("\200")));
}

/* ---- headers rules ---- */

static bool matches(const uint8_t *args, size_t args_len, const uint8_t *headers, size_t headers_len)
{
	uint8_t rule[512], subject[512];
	size_t rule_len, subject_len;
	char why[128];

	assert_int_equal(amqp_header_rule(args, args_len, rule, sizeof rule, &rule_len, why, sizeof why), 0);
	assert_int_equal(amqp_header_subject(headers, headers_len, subject, sizeof subject, &subject_len), 0);
	return match_oracle(MATCH_HEADERS, rule, rule_len, subject, subject_len);
}

#define ARGS_ALL "\7x-matchS\0\0\0\3all\1ab\1\1bS\0\0\0\1x"
#define ARGS_ANY "\7x-matchS\0\0\0\3any\1ab\1\1bS\0\0\0\1x"

static void x_match_all_wants_every_header_and_any_wants_one(void **state)
{
	(void)state;
	assert_true(matches(LIT(ARGS_ALL), LIT("\1bS\0\0\0\1x\1aI\0\0\0\1\1cV")));
	assert_false(matches(LIT(ARGS_ALL), LIT("\1bS\0\0\0\1x")));
	assert_true(matches(LIT(ARGS_ANY), LIT("\1bS\0\0\0\1x")));
	assert_false(matches(LIT(ARGS_ANY), LIT("\1bS\0\0\0\1y")));
	assert_true(matches(LIT("\1ab\1"), LIT("\1ab\1"))); /* all is the default */
	assert_true(matches((const uint8_t *)"", 0, LIT("\1ab\1")));
	assert_true(matches((const uint8_t *)"", 0, (const uint8_t *)"", 0));
	assert_false(matches(LIT("\7x-matchS\0\0\0\3any"), LIT("\1ab\1")));
	assert_true(matches(LIT("\1aV"), LIT("\1aS\0\0\0\1q"))); /* void: the name is there */
}

static void names_with_x_count_in_the_with_x_modes_alone(void **state)
{
	(void)state;
	assert_true(matches(LIT("\7x-matchS\0\0\0\3all\3x-ab\1"), LIT("\1bb\1")));
	assert_false(matches(LIT("\7x-matchS\0\0\0\12all-with-x\3x-ab\1"), LIT("\1bb\1")));
	assert_true(matches(LIT("\7x-matchS\0\0\0\12all-with-x\3x-ab\1"), LIT("\3x-ab\1")));
	assert_true(matches(LIT("\7x-matchS\0\0\0\12any-with-x\3x-ab\1\1bb\1"), LIT("\3x-ab\1")));
}

static void an_x_match_that_nobody_knows_is_a_precondition_failed(void **state)
{
	uint8_t rule[64];
	char why[160];
	size_t len;

	(void)state;
	assert_int_equal(amqp_header_rule(LIT("\7x-matchS\0\0\0\4some"), rule, sizeof rule, &len, why, sizeof why), 406);
	assert_non_null(strstr(why, "'some'"));
	assert_int_equal(amqp_header_rule(LIT("\7x-matchb\1"), rule, sizeof rule, &len, why, sizeof why), 406);
	assert_int_equal(amqp_header_rule(LIT("\1aS\0\0\0\20qqqqqqqqqqqqqqqq"), rule, 8, &len, why, sizeof why), 506);
}

static void equal_arguments_in_another_order_make_the_same_rule(void **state)
{
	uint8_t a[256], b[256];
	size_t a_len, b_len;
	char why[128];

	(void)state;
	assert_int_equal(amqp_header_rule(LIT("\1ab\1\1bV"), a, sizeof a, &a_len, why, sizeof why), 0);
	assert_int_equal(amqp_header_rule(LIT("\1bV\1aI\0\0\0\1"), b, sizeof b, &b_len, why, sizeof why), 0);
	assert_int_equal(a_len, b_len);
	assert_memory_equal(a, b, a_len);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_of_the_specification_passes_and_is_read_by_value),
		cmocka_unit_test(a_table_that_is_cut_anywhere_is_refused_with_501),
		cmocka_unit_test(an_unknown_type_and_a_nesting_without_end_are_refused_with_502),
		cmocka_unit_test(tables_are_equal_by_value_whatever_their_order),
		cmocka_unit_test(what_the_writer_wrote_is_read_back),
		cmocka_unit_test(a_writer_that_overflows_says_so_and_writes_nothing_beyond),
		cmocka_unit_test(utf8_is_checked_as_rfc_3629_says),
		cmocka_unit_test(x_match_all_wants_every_header_and_any_wants_one),
		cmocka_unit_test(names_with_x_count_in_the_with_x_modes_alone),
		cmocka_unit_test(an_x_match_that_nobody_knows_is_a_precondition_failed),
		cmocka_unit_test(equal_arguments_in_another_order_make_the_same_rule),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
