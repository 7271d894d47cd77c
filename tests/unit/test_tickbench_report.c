/* The reports: JSON that another parser reads with the documented keys, a plot with every series, ratios the right way round.
 * Runs on the build host as part of make test; jansson is the other parser.
 * Specification: RFC 8259; SVG 1.1. */
#include "tools/tickbench/clock.h"
#include "tools/tickbench/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include <cmocka.h>

struct rig {
	struct tb_options options;
	struct tb_report report;
	struct tb_entry a;
	struct tb_entry b;
	char *text;
	size_t size;
};

static void fill(struct tb_entry *e, const struct tb_options *o, char side, const char *address, uint64_t latency_ns)
{
	e->side = side;
	e->load = o->load;
	snprintf(e->load.broker.text, sizeof(e->load.broker.text), "%s", address);
	assert_true(tb_result_init(&e->result));
	snprintf(e->result.product, sizeof(e->result.product), "Br\"oker<%c>\\", side);
	for (uint64_t i = 0; i < 2000; i++) {
		tb_hist_record(&e->result.all, latency_ns + i % 100);
		tb_hist_record(&e->result.last, latency_ns * 2);
	}
	e->result.ticks_scheduled_count = e->result.ticks_sent_count = 2000;
	e->result.expected_count = e->result.received_count = 2000;
}

static void open_rig(struct rig *r, bool vs)
{
	memset(r, 0, sizeof(*r));
	r->options.load =
		(struct tb_load){.type = TB_TYPE_TOPIC, .subscribers = 2, .rate_per_s = 1000, .size_bytes = 64, .symbols = 1};
	r->options.has_vs = vs;
	r->options.has_echo = true;
	r->report.options = &r->options;
	assert_true(tb_hist_init(&r->report.echo.round_trip) && tb_hist_init(&r->report.echo.lateness));
	for (int i = 0; i < 100; i++)
		tb_hist_record(&r->report.echo.round_trip, 10000);
	r->report.echo.done = true;
	fill(&r->a, &r->options, 'A', "198.18.0.2:5672", 20000);
	r->report.entries[r->report.entry_count++] = &r->a;
	fill(&r->b, &r->options, 'B', "198.18.128.2:5672", 100000);
	if (vs)
		r->report.entries[r->report.entry_count++] = &r->b;
}

static const char *written(struct rig *r, void (*form)(const struct tb_report *, FILE *))
{
	free(r->text);
	FILE *f = open_memstream(&r->text, &r->size);
	assert_non_null(f);
	form(&r->report, f);
	fclose(f);
	return r->text;
}

static void close_rig(struct rig *r)
{
	free(r->text);
	tb_result_fini(&r->a.result);
	tb_result_fini(&r->b.result);
	tb_hist_fini(&r->report.echo.round_trip);
	tb_hist_fini(&r->report.echo.lateness);
}

static json_t *json_of(struct rig *r)
{
	json_error_t error;
	json_t *root = json_loads(written(r, tb_report_json), JSON_REJECT_DUPLICATES, &error);

	if (!root)
		fail_msg("line %d: %s", error.line, error.text);
	return root;
}

static void json_is_read_by_another_parser_with_the_documented_keys(void **state)
{
	struct rig r;
	const char *side, *product, *type;
	json_int_t samples, p99, max, sent;
	int clean;

	(void)state;
	open_rig(&r, true);
	json_t *root = json_of(&r), *runs = json_object_get(root, "runs");
	assert_int_equal(json_array_size(runs), 2);
	assert_int_equal(json_unpack(json_array_get(runs, 0), "{s:s, s:s, s:{s:s}, s:{s:{s:I, s:I, s:I}}, s:I, s:b}", "side", &side,
				     "product", &product, "load", "exchange_type", &type, "latency_ns", "all", "sample_count",
				     &samples, "p99", &p99, "max", &max, "ticks_sent_count", &sent, "clean", &clean),
			 0);
	assert_string_equal(side, "A");
	assert_string_equal(product, "Br\"oker<A>\\");
	assert_string_equal(type, "topic");
	assert_int_equal(samples, 2000);
	assert_int_equal(max, 20099);
	assert_in_range(p99, 20090, 20099);
	assert_int_equal(sent, 2000);
	assert_true(clean);
	json_decref(root);
	close_rig(&r);
}

static void ratios_say_how_many_times_slower_b_is_and_how_far_a_is_from_the_floor(void **state)
{
	struct rig r;
	double slower, floor_ratio, last;

	(void)state;
	open_rig(&r, true);
	json_t *root = json_of(&r);
	assert_int_equal(json_unpack(root, "{s:[{s:{s:F}, s:{s:F}, s:{s:F}}]}", "ratios", "b_over_a_all", "p50", &slower,
				     "a_over_echo", "p50", &floor_ratio, "b_over_a_last", "max", &last),
			 0);
	assert_true(slower > 4.9 && slower < 5.1);
	assert_true(floor_ratio > 1.99 && floor_ratio < 2.02);
	assert_true(last > 4.99 && last < 5.01);
	json_decref(root);
	assert_non_null(strstr(written(&r, tb_report_text), "above 1: A is faster"));
	assert_non_null(strstr(r.text, "5.00x"));
	close_rig(&r);
}

static void a_result_with_loss_is_not_clean_and_says_so(void **state)
{
	struct rig r;
	int clean;

	(void)state;
	open_rig(&r, false);
	assert_true(tb_result_clean(&r.a.result));
	r.a.result.lost_count = 3;
	assert_false(tb_result_clean(&r.a.result));
	json_t *root = json_of(&r);
	assert_int_equal(json_unpack(json_array_get(json_object_get(root, "runs"), 0), "{s:b}", "clean", &clean), 0);
	assert_false(clean);
	json_decref(root);
	assert_non_null(strstr(written(&r, tb_report_text), "lost 3,"));
	close_rig(&r);
}

static void a_run_that_never_began_is_told_without_figures(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, false);
	tb_result_reset(&r.a.result);
	r.a.result.status = TB_EXIT_UNAVAILABLE;
	tb_hist_reset(&r.report.echo.round_trip);
	r.report.echo.done = false;
	json_t *root = json_of(&r);
	json_decref(root);
	assert_null(strstr(written(&r, tb_report_text), "nan"));
	assert_null(strstr(written(&r, tb_report_svg), "nan"));
	assert_null(strstr(r.text, "inf"));
	close_rig(&r);
}

static int count_of(const char *text, const char *part)
{
	int n = 0;

	for (; (text = strstr(text, part)); text += strlen(part))
		n++;
	return n;
}

static void the_plot_has_a_line_and_a_legend_for_every_series_and_escapes_names(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, true);
	const char *svg = written(&r, tb_report_svg);
	/* both sides: all and last (first has no samples here); and the floor */
	assert_int_equal(count_of(svg, "<polyline"), 5);
	assert_int_equal(count_of(svg, "<tspan"), 5);
	assert_null(strstr(svg, "oker<A>"));
	assert_non_null(strstr(svg, "prefers-color-scheme:dark"));
	assert_null(strstr(svg, "nan"));
	assert_null(strstr(svg, "href"));
	assert_non_null(strstr(svg, "</svg>"));
	close_rig(&r);
}

static void the_histogram_drawing_counts_every_sample(void **state)
{
	struct rig r;
	unsigned long long sum = 0;

	(void)state;
	open_rig(&r, false);
	FILE *f = open_memstream(&r.text, &r.size);
	tb_draw_histogram(&r.b.result.all, f);
	fclose(f);
	for (char *line = strtok(r.text, "\n"); line; line = strtok(NULL, "\n"))
		sum += strtoull(strrchr(line, ' '), NULL, 10);
	assert_int_equal(sum, 2000);
	close_rig(&r);
}

static void merged_rounds_add_their_counts_and_weigh_their_rates(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, true);
	r.a.result.measured_s = 1;
	r.a.result.busy_share = 0.2;
	r.b.result.busy_share = 0.6;
	r.a.result.deliveries_per_s = 100;
	r.b.result.measured_s = 3;
	r.b.result.deliveries_per_s = 200;
	r.b.result.lost_count = 1;
	tb_result_merge(&r.a.result, &r.b.result);
	assert_int_equal(r.a.result.all.count, 4000);
	assert_int_equal(r.a.result.ticks_sent_count, 4000);
	assert_true(r.a.result.deliveries_per_s == 175);
	assert_true(r.a.result.measured_s == 4);
	assert_true(r.a.result.busy_share > 0.499 && r.a.result.busy_share < 0.501);
	assert_false(tb_result_clean(&r.a.result));
	close_rig(&r);
}

static void a_search_that_carried_nothing_says_so_and_shows_no_zeros(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, false);
	r.options.find_max = true;
	r.options.find_max_p99_ns = 10 * TB_MS_NS;
	tb_result_reset(&r.a.result);
	r.a.findmax.done = true;
	r.a.findmax.trials[r.a.findmax.trial_count++] = (struct tb_trial){.rate_per_s = 7, .verdict = TB_NOT_REACHED};
	const char *text = written(&r, tb_report_text);
	assert_non_null(strstr(text, "not carried: not reached"));
	assert_non_null(strstr(text, "No rate was carried, not even the lowest that was tried, 7 ticks/s"));
	assert_null(strstr(text, "sent 0 of 0"));
	assert_null(strstr(text, "highest rate carried"));
	r.a.findmax.trial_count = 0;
	assert_non_null(strstr(written(&r, tb_report_text), "No rate was tried to its end"));
	close_rig(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_is_read_by_another_parser_with_the_documented_keys),
		cmocka_unit_test(ratios_say_how_many_times_slower_b_is_and_how_far_a_is_from_the_floor),
		cmocka_unit_test(a_result_with_loss_is_not_clean_and_says_so),
		cmocka_unit_test(a_run_that_never_began_is_told_without_figures),
		cmocka_unit_test(the_plot_has_a_line_and_a_legend_for_every_series_and_escapes_names),
		cmocka_unit_test(the_histogram_drawing_counts_every_sample),
		cmocka_unit_test(merged_rounds_add_their_counts_and_weigh_their_rates),
		cmocka_unit_test(a_search_that_carried_nothing_says_so_and_shows_no_zeros),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
