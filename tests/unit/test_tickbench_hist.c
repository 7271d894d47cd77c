/* The latency histogram: accuracy over its whole range, percentiles at their edges, the text form.
 * Runs on the build host as part of make test.
 * Specification: none; the bound on the error is the one that hist.h states. */
#include "tools/tickbench/hist.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct tb_hist fresh(void)
{
	struct tb_hist h;

	assert_true(tb_hist_init(&h));
	return h;
}

static void every_value_lies_within_its_slot_and_slots_are_narrow(void **state)
{
	uint64_t value = 0;

	(void)state;
	while (value <= TB_HIST_VALUE_MAX) {
		uint32_t slot = tb_hist_slot(value);
		uint64_t low = tb_hist_slot_low(slot), high = tb_hist_slot_high(slot);
		assert_true(slot < TB_HIST_SLOTS);
		assert_in_range(value, low, high);
		/* three significant digits */
		assert_true((high - low) * 1024 <= low || high == low);
		value += 1 + value / 777;
	}
}

static void slots_follow_each_other_without_a_hole(void **state)
{
	(void)state;
	for (uint32_t slot = 0; slot + 1 < TB_HIST_SLOTS; slot++) {
		assert_int_equal(tb_hist_slot_high(slot) + 1, tb_hist_slot_low(slot + 1));
		assert_int_equal(tb_hist_slot(tb_hist_slot_low(slot)), slot);
		assert_int_equal(tb_hist_slot(tb_hist_slot_high(slot)), slot);
	}
	assert_int_equal(tb_hist_slot_high(TB_HIST_SLOTS - 1), TB_HIST_VALUE_MAX);
}

static void an_empty_histogram_answers_zero(void **state)
{
	struct tb_hist h = fresh();

	(void)state;
	assert_int_equal(tb_hist_percentile(&h, 500000), 0);
	assert_int_equal(tb_hist_percentile(&h, 1000000), 0);
	assert_int_equal(tb_hist_beyond(&h, 999000), 0);
	assert_true(tb_hist_mean(&h) == 0);
	assert_true(tb_hist_stddev(&h) == 0);
	tb_hist_fini(&h);
}

static void a_single_sample_is_every_percentile(void **state)
{
	struct tb_hist h = fresh();

	(void)state;
	tb_hist_record(&h, 123456789);
	for (uint32_t ppm = 1; ppm <= 1000000; ppm += 9999)
		assert_int_equal(tb_hist_percentile(&h, ppm), 123456789);
	assert_int_equal(h.min, 123456789);
	tb_hist_fini(&h);
}

static void percentiles_of_a_thousand_known_values_are_exact_ranks(void **state)
{
	struct tb_hist h = fresh();

	(void)state;
	for (uint64_t v = 1; v <= 1000; v++)
		tb_hist_record(&h, v);
	assert_int_equal(tb_hist_percentile(&h, 1), 1);
	assert_int_equal(tb_hist_percentile(&h, 500000), 500);
	assert_int_equal(tb_hist_percentile(&h, 900000), 900);
	assert_int_equal(tb_hist_percentile(&h, 990000), 990);
	/* In doubles 0.999 * 1000 lies above 999 and would name the maximum. */
	assert_int_equal(tb_hist_percentile(&h, 999000), 999);
	assert_int_equal(tb_hist_percentile(&h, 999001), 1000);
	assert_int_equal(tb_hist_percentile(&h, 1000000), 1000);
	assert_int_equal(tb_hist_beyond(&h, 990000), 10);
	tb_hist_fini(&h);
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void percentiles_of_random_latencies_stay_within_a_thousandth(void **state)
{
	enum { COUNT = 20000 };
	static uint64_t values[COUNT];
	struct tb_hist h = fresh();
	uint64_t x = 88172645463325252u;
	static const uint32_t ppms[] = {1, 1000, 500000, 900000, 990000, 999000, 999900, 1000000};

	(void)state;
	for (int i = 0; i < COUNT; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		values[i] = x >> (24 + x % 40); /* all magnitudes */
		tb_hist_record(&h, values[i]);
	}
	qsort(values, COUNT, sizeof(values[0]), ascending);
	for (size_t i = 0; i < sizeof(ppms) / sizeof(ppms[0]); i++) {
		uint64_t rank = ((uint64_t)COUNT * ppms[i] + 999999) / 1000000;
		uint64_t exact = values[rank ? rank - 1 : 0], got = tb_hist_percentile(&h, ppms[i]);
		assert_true(got >= exact);
		assert_true(got - exact <= exact / 1024 + 1);
	}
	tb_hist_fini(&h);
}

static void a_value_beyond_the_range_is_counted_and_keeps_its_exact_maximum(void **state)
{
	struct tb_hist h = fresh();

	(void)state;
	tb_hist_record(&h, 10);
	tb_hist_record(&h, UINT64_MAX / 2);
	assert_int_equal(h.count, 2);
	assert_int_equal(h.over_count, 1);
	assert_int_equal(h.max, UINT64_MAX / 2);
	assert_int_equal(tb_hist_percentile(&h, 1000000), UINT64_MAX / 2);
	assert_int_equal(tb_hist_percentile(&h, 500000), 10);
	tb_hist_fini(&h);
}

static void merging_is_the_same_as_recording_into_one(void **state)
{
	struct tb_hist a = fresh(), b = fresh(), both = fresh();

	(void)state;
	for (uint64_t v = 1; v < 5000000; v += 997) {
		tb_hist_record(v % 2 ? &a : &b, v * v);
		tb_hist_record(&both, v * v);
	}
	tb_hist_merge(&a, &b);
	assert_int_equal(a.count, both.count);
	assert_int_equal(a.min, both.min);
	assert_int_equal(a.max, both.max);
	assert_int_equal(a.over_count, both.over_count);
	assert_memory_equal(a.slots, both.slots, sizeof(*a.slots) * TB_HIST_SLOTS);
	tb_hist_fini(&a);
	tb_hist_fini(&b);
	tb_hist_fini(&both);
}

static void mean_and_deviation_are_those_of_the_samples(void **state)
{
	struct tb_hist h = fresh();

	(void)state;
	for (int i = 0; i < 1000; i++) {
		tb_hist_record(&h, 1000);
		tb_hist_record(&h, 2000);
	}
	assert_true(fabs(tb_hist_mean(&h) - 1500) < 1);
	assert_true(fabs(tb_hist_stddev(&h) - 500) < 1);
	tb_hist_fini(&h);
}

static void counting_between_borders_sees_each_sample_once(void **state)
{
	struct tb_hist h = fresh();
	uint64_t sum = 0;

	(void)state;
	for (uint64_t v = 1; v < 3000000; v += 7)
		tb_hist_record(&h, v);
	for (uint64_t low = 0; low < 4194304; low += 65536)
		sum += tb_hist_count_between(&h, low, low + 65536);
	assert_int_equal(sum, h.count);
	assert_int_equal(tb_hist_count_between(&h, UINT64_MAX - 1, UINT64_MAX), 0);
	tb_hist_fini(&h);
}

static void the_percentile_text_ends_at_the_maximum_and_the_full_count(void **state)
{
	struct tb_hist h = fresh();
	char text[65536] = "";
	FILE *f = fmemopen(text, sizeof(text), "w");
	double last_value = -1, last_level = -1;
	unsigned long long count = 0;

	(void)state;
	for (uint64_t v = 1; v <= 100000; v++)
		tb_hist_record(&h, v * 100);
	assert_true(tb_hist_write_hgrm(&h, f));
	fclose(f);
	int lines = 0;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		double value, level;
		unsigned long long upto;
		if (line[0] == '#' || sscanf(line, "%lf %lf %llu", &value, &level, &upto) != 3)
			continue;
		assert_true(value >= last_value && level > last_level && upto >= count);
		/* the value at a level is that level of the range, to three digits */
		assert_true(fabs(value - level * 10000) <= 10000 * 0.002);
		last_value = value, last_level = level, count = upto, lines++;
	}
	assert_true(lines > 50);
	assert_int_equal(count, 100000);
	assert_true(last_level == 1.0);
	assert_true(fabs(last_value - 10000.0) < 0.001);
	tb_hist_fini(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_value_lies_within_its_slot_and_slots_are_narrow),
		cmocka_unit_test(slots_follow_each_other_without_a_hole),
		cmocka_unit_test(an_empty_histogram_answers_zero),
		cmocka_unit_test(a_single_sample_is_every_percentile),
		cmocka_unit_test(percentiles_of_a_thousand_known_values_are_exact_ranks),
		cmocka_unit_test(percentiles_of_random_latencies_stay_within_a_thousandth),
		cmocka_unit_test(a_value_beyond_the_range_is_counted_and_keeps_its_exact_maximum),
		cmocka_unit_test(merging_is_the_same_as_recording_into_one),
		cmocka_unit_test(mean_and_deviation_are_those_of_the_samples),
		cmocka_unit_test(counting_between_borders_sees_each_sample_once),
		cmocka_unit_test(the_percentile_text_ends_at_the_maximum_and_the_full_count),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
