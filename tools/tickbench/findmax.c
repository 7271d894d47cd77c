/* Doubling and bisection over whole loads.
 * Runs inside tickbench on the main thread, one load after another.
 * Specification: none. */
#include "tools/tickbench/findmax.h"

#include "tools/tickbench/clock.h"

#include <stdio.h>
#include <time.h>

#define SETTLE_NS (200 * TB_MS_NS)

void tb_bisect_init(struct tb_bisect *b, uint64_t first_rate, uint64_t rate_max)
{
	*b = (struct tb_bisect){.rate = first_rate, .max = rate_max};
}

bool tb_bisect_next(struct tb_bisect *b, bool passed)
{
	if (passed && b->rate > b->passed)
		b->passed = b->rate;
	if (!passed && (b->failed == 0 || b->rate < b->failed))
		b->failed = b->rate;
	if (!b->failed) {
		if (b->rate >= b->max)
			return false;
		b->rate = b->rate > b->max / 2 ? b->max : b->rate * 2;
		return true;
	}
	if (!b->passed) {
		b->rate = b->failed / 2;
		return b->rate > 0;
	}
	uint64_t step = b->passed * TB_FINDMAX_STEP_PCT / 100;
	if (b->failed - b->passed <= (step ? step : 1))
		return false;
	b->rate = b->passed + (b->failed - b->passed) / 2;
	return true;
}

enum tb_verdict tb_trial_judge(const struct tb_trial *t, const struct tb_result *r, uint64_t limit_p99_ns)
{
	if (r->status != TB_EXIT_OK || r->interrupted)
		return TB_BROKEN_OFF;
	if (r->gave_up || (r->all.count > 0 && t->p99_ns >= limit_p99_ns))
		return TB_TOO_LATE;
	if (!tb_result_clean(r) || r->all.count == 0)
		return TB_LOSS;
	/* A load that only came up late, or stretched over more time than it was given, says nothing about the rate asked for. */
	if (r->ticks_per_s * 100 < (double)t->rate_per_s * TB_REACHED_MIN_PCT)
		return TB_NOT_REACHED;
	return TB_CARRIED;
}

static void swap_results(struct tb_result *a, struct tb_result *b)
{
	struct tb_result t = *a;

	*a = *b;
	*b = t;
}

/* One load at this rate; the samples stay in r when they are the best so far. */
static bool try_rate(const struct tb_load *base, uint64_t rate, uint64_t limit_p99_ns, struct tb_findmax *f, struct tb_result *r)
{
	struct tb_load load = *base;
	struct tb_trial *t = &f->trials[f->trial_count++];

	load.rate_per_s = rate;
	load.give_up_ns = limit_p99_ns;
	tb_result_reset(r);
	tb_load_run(&load, r);
	t->rate_per_s = rate;
	t->p99_ns = tb_hist_percentile(&r->all, 990000);
	t->client_late_p99_ns = tb_hist_percentile(&r->client_late, 990000);
	t->deliveries_per_s = r->deliveries_per_s;
	t->lost_count = r->lost_count;
	t->ticks_per_s = r->ticks_per_s;
	t->verdict = tb_trial_judge(t, r, limit_p99_ns);
	t->passed = t->verdict == TB_CARRIED;
	if (base->progress)
		fprintf(stderr, "%s %s: %llu ticks/s to %u subscribers: %s (p99 %.2f ms, client late p99 %.2f ms)\n",
			base->broker.text, tb_type_name(base->type), (unsigned long long)rate, base->subscribers,
			tb_verdict_text(t->verdict), (double)t->p99_ns / 1e6, (double)t->client_late_p99_ns / 1e6);
	/* The broker gets a moment to throw an aborted backlog away. */
	nanosleep(&(struct timespec){.tv_nsec = (long)SETTLE_NS}, NULL);
	return t->passed;
}

void tb_findmax_run(const struct tb_load *load, uint64_t limit_p99_ns, uint32_t tries, uint64_t rate_max, struct tb_findmax *f,
		    struct tb_result *best)
{
	struct tb_bisect search;
	struct tb_result trial;
	bool more = true, limited = false;
	uint32_t trials = 0;

	if (!tb_result_init(&trial)) {
		best->status = TB_EXIT_OSERR;
		snprintf(best->error, sizeof(best->error), "out of memory");
		tb_result_fini(&trial);
		return;
	}
	tb_bisect_init(&search, load->rate_per_s, rate_max);
	while (more && trials + tries <= TB_SEARCH_TRIALS_MAX && f->trial_count + tries <= TB_TRIALS_MAX) {
		bool passed = false;
		for (uint32_t i = 0; i < tries && !passed && trial.status == TB_EXIT_OK && !trial.interrupted; i++) {
			passed = try_rate(load, search.rate, limit_p99_ns, f, &trial);
			trials++;
		}
		if (trial.status != TB_EXIT_OK || trial.interrupted)
			break;
		if (passed && search.rate > f->best_rate_per_s) {
			f->best_rate_per_s = search.rate;
			f->best_deliveries_per_s = trial.deliveries_per_s;
			swap_results(best, &trial);
			f->client_limited = limited;
		} else if (!passed) {
			limited = f->trials[f->trial_count - 1].client_late_p99_ns > limit_p99_ns / 2;
			if (search.rate > f->best_rate_per_s)
				f->client_limited = limited;
		}
		more = tb_bisect_next(&search, passed);
	}
	f->done = true;
	best->status = trial.status;
	best->interrupted = trial.interrupted;
	snprintf(best->error, sizeof(best->error), "%s", trial.error);
	tb_result_fini(&trial);
}
