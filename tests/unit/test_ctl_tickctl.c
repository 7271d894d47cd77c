/*
 * test_ctl_tickctl.c - what tickctl prints: rows in every form, percentiles, merged histograms.
 *
 * Owns: nothing.
 * Core: a cmocka program.
 * Spec: rabbitmqctl's formatters; RFC 4180 for CSV.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/tickctl.h"

static const char *const columns[] = {"name", "messages", "durable", "arguments"};

static json_t *two_rows(void)
{
	json_t *rows = json_pack("[{s:s, s:i, s:b, s:{s:i, s:s}}, {s:s, s:i, s:b, s:{}}]", "name", "q\"1\t", "messages", 7,
				 "durable", 1, "arguments", "x-max-length", 5, "a", "b", "name", "zwei \xe2\x82\xac", "messages",
				 12345, "durable", 0, "arguments");

	assert_non_null(rows);
	return rows;
}

static char *print(json_t *rows, enum tickctl_format format, bool headers)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	tickctl_print_rows(f, rows, columns, 4, format, headers);
	fclose(f);
	json_decref(rows);
	return text;
}

static void prints(json_t *rows, enum tickctl_format format, bool headers, const char *want)
{
	char *got = print(rows, format, headers);

	assert_string_equal(got, want);
	free(got);
}

static void a_table_is_rows_of_cells_with_tabs_between(void **state)
{
	(void)state;
	prints(two_rows(), TICKCTL_TABLE, true,
	       "name\tmessages\tdurable\targuments\nq\"1\\x09\t7\ttrue\t[x-max-length=5, a=b]\nzwei "
	       "\xe2\x82\xac\t12345\tfalse\t[]\n");
	prints(two_rows(), TICKCTL_TABLE, false,
	       "q\"1\\x09\t7\ttrue\t[x-max-length=5, a=b]\nzwei \xe2\x82\xac\t12345\tfalse\t[]\n");
	prints(json_array(), TICKCTL_TABLE, true, "");
}

static void csv_quotes_all_but_numbers(void **state)
{
	(void)state;
	prints(two_rows(), TICKCTL_CSV, true,
	       "\"name\",\"messages\",\"durable\",\"arguments\"\n\"q\"\"1\\x09\",7,\"true\",\"[x-max-length=5, a=b]\"\n"
	       "\"zwei \xe2\x82\xac\",12345,\"false\",\"[]\"\n");
}

static void json_has_the_chosen_columns_in_their_order(void **state)
{
	char *got = print(two_rows(), TICKCTL_JSON, true);
	json_t *back = json_loads(got, 0, NULL);

	(void)state;
	assert_int_equal(json_array_size(back), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(back, 1), "messages")), 12345);
	assert_string_equal(json_string_value(json_object_get(json_array_get(back, 0), "name")), "q\"1\t");
	assert_non_null(strstr(got, "{\"name\":\"q\\\"1\\t\",\"messages\":7,\"durable\":true,\"arguments\":"));
	json_decref(back);
	free(got);
	prints(json_array(), TICKCTL_JSON, true, "[\n]\n");
}

static void a_pretty_table_is_as_wide_as_its_widest_cells(void **state)
{
	(void)state;
	prints(json_pack("[{s:s, s:i, s:b, s:s}]", "name", "gr\xc3\xbcn", "messages", 1, "durable", 1, "arguments", ""),
	       TICKCTL_PRETTY, true,
	       "┌──────┬──────────┬─────────┬───────────┐\n"
	       "│ name │ messages │ durable │ arguments │\n"
	       "├──────┼──────────┼─────────┼───────────┤\n"
	       "│ grün │ 1        │ true    │           │\n"
	       "└──────┴──────────┴─────────┴───────────┘\n");
}

static void a_percentile_is_the_bound_below_which_that_share_lies(void **state)
{
	json_t *b = json_pack("[[i,i],[i,i],[i,i]]", 10, 50, 20, 49, 1000, 1);

	(void)state;
	assert_int_equal(tickctl_percentile(b, 100, 0.5), 10);
	assert_int_equal(tickctl_percentile(b, 100, 0.501), 20);
	assert_int_equal(tickctl_percentile(b, 100, 0.99), 20);
	assert_int_equal(tickctl_percentile(b, 100, 0.999), 1000);
	assert_int_equal(tickctl_percentile(b, 100, 1), 1000);
	json_decref(b);
	b = json_array();
	assert_int_equal(tickctl_percentile(b, 0, 0.5), 0);
	json_decref(b);
}

static void histograms_of_two_workers_become_one(void **state)
{
	json_t *stats =
		json_pack("{s:[{s:[{s:s, s:i, s:i, s:i, s:[[i,i],[i,i]]}]}, {s:[{s:s, s:i, s:i, s:i, s:[[i,i],[i,i]]}]}]}",
			  "workers", "stages", "name", "rx_to_tx", "count", 3, "sum_ns", 30, "max_ns", 20, "buckets", 10, 1, 20, 2,
			  "stages", "name", "rx_to_tx", "count", 2, "sum_ns", 50, "max_ns", 40, "buckets", 5, 1, 20, 1);
	json_t *merged, *buckets;

	(void)state;
	assert_non_null(stats);
	merged = tickctl_merge_stages(stats);
	assert_int_equal(json_array_size(merged), 1);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(merged, 0), "count")), 5);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(merged, 0), "max_ns")), 40);
	buckets = json_object_get(json_array_get(merged, 0), "buckets");
	assert_int_equal(json_array_size(buckets), 3);
	assert_int_equal(json_integer_value(json_array_get(json_array_get(buckets, 0), 0)), 5);
	assert_int_equal(json_integer_value(json_array_get(json_array_get(buckets, 2), 1)), 3);
	json_decref(merged);
	json_decref(stats);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_table_is_rows_of_cells_with_tabs_between),
		cmocka_unit_test(csv_quotes_all_but_numbers),
		cmocka_unit_test(json_has_the_chosen_columns_in_their_order),
		cmocka_unit_test(a_pretty_table_is_as_wide_as_its_widest_cells),
		cmocka_unit_test(a_percentile_is_the_bound_below_which_that_share_lies),
		cmocka_unit_test(histograms_of_two_workers_become_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
