/* The report for people: tables in microseconds, ratios, ASCII histograms.
 * Runs inside tickbench after the measuring is over.
 * Specification: none. */
#include "tools/tickbench/report.h"

#include <math.h>
#include <string.h>

const struct tb_quantile tb_quantiles[TB_QUANTILES] = {
	{"p50", "p50", 500000},     {"p90", "p90", 900000},       {"p99", "p99", 990000},
	{"p99.9", "p99_9", 999000}, {"p99.99", "p99_99", 999900}, {"max", "max", 1000000},
};

/* Fewer samples than this beyond a percentile, and it is marked. */
#define EVIDENCE_MIN 10

const struct tb_entry *tb_report_counterpart(const struct tb_report *r, const struct tb_entry *e)
{
	for (uint32_t i = 0; i < r->entry_count; i++)
		if (r->entries[i]->side != e->side && r->entries[i]->load.type == e->load.type)
			return r->entries[i];
	return NULL;
}

void tb_entry_label(const struct tb_entry *e, char *out, size_t size)
{
	const struct tb_result *r = &e->result;

	if (r->product[0])
		snprintf(out, size, "%s %s at %s", r->product, r->version, e->load.broker.text);
	else
		snprintf(out, size, "%s", e->load.broker.text);
}

static void print_us(FILE *out, uint64_t ns, char mark)
{
	double us = (double)ns / 1e3;

	fprintf(out, " %9.*f%c", us < 1000 ? 1 : 0, us, mark);
}

static void print_head(FILE *out)
{
	fprintf(out, "  %-26s %11s", "microseconds", "samples");
	for (int i = 0; i < TB_QUANTILES; i++)
		fprintf(out, " %9s ", tb_quantiles[i].name);
	fprintf(out, "\n");
}

static bool print_row(FILE *out, const char *name, const struct tb_hist *h)
{
	bool marked = false;

	fprintf(out, "  %-26s %11llu", name, (unsigned long long)h->count);
	for (int i = 0; i < TB_QUANTILES; i++) {
		bool thin = tb_quantiles[i].ppm < 1000000 && tb_hist_beyond(h, tb_quantiles[i].ppm) < EVIDENCE_MIN;
		marked |= thin;
		if (h->count)
			print_us(out, tb_hist_percentile(h, tb_quantiles[i].ppm), thin ? '~' : ' ');
		else
			fprintf(out, " %9s ", "-");
	}
	fprintf(out, "\n");
	return marked;
}

void tb_draw_histogram(const struct tb_hist *h, FILE *out)
{
	uint64_t rows[4 * TB_HIST_VALUE_BITS] = {0}, highest = 0;
	int first = -1, last = 0;

	for (int i = 0; i < 4 * TB_HIST_VALUE_BITS; i++) {
		uint64_t low = (uint64_t)exp2(i / 4.0), high = (uint64_t)exp2((i + 1) / 4.0);
		rows[i] = i < 16 ? 0 : tb_hist_count_between(h, low, high);
		if (!rows[i])
			continue;
		first = first < 0 ? i : first;
		last = i;
		highest = rows[i] > highest ? rows[i] : highest;
	}
	for (int i = first; first >= 0 && i <= last; i++) {
		int bar = (int)(50.0 * (double)rows[i] / (double)highest + 0.5);
		fprintf(out, "  %10.1f us |%-50.*s| %6.2f%% %llu\n", exp2(i / 4.0) / 1e3, bar,
			"##################################################", 100.0 * (double)rows[i] / (double)h->count,
			(unsigned long long)rows[i]);
	}
}

static void print_counts(FILE *out, const struct tb_entry *e)
{
	const struct tb_result *r = &e->result;

	fprintf(out, "  sent %llu of %llu ticks; delivered %llu of %llu; lost %llu, twice %llu, out of order %llu, damaged %llu\n",
		(unsigned long long)r->ticks_sent_count, (unsigned long long)r->ticks_scheduled_count,
		(unsigned long long)r->received_count, (unsigned long long)r->expected_count, (unsigned long long)r->lost_count,
		(unsigned long long)r->duplicate_count, (unsigned long long)r->reordered_count,
		(unsigned long long)r->corrupt_count);
	fprintf(out, "  reached %.0f ticks/s and %.0f deliveries/s over %.2f s\n", r->ticks_per_s, r->deliveries_per_s,
		r->measured_s);
	if (r->busy_share > 0)
		fprintf(out, "  this client was busy for %.0f %% of that time\n", 100 * r->busy_share);
	if (r->ticks_unsent_count)
		fprintf(out, "  %llu ticks were due but the broker did not take them before the end\n",
			(unsigned long long)r->ticks_unsent_count);
	if (r->stale_count)
		fprintf(out, "  %llu deliveries came so late that order or repetition cannot be told\n",
			(unsigned long long)r->stale_count);
	if (r->untracked_count)
		fprintf(out, "  %llu deliveries came too late for the first/median/last figures\n",
			(unsigned long long)r->untracked_count);
	if (e->load.confirm)
		fprintf(out, "  unconfirmed %llu, refused by the broker %llu\n", (unsigned long long)r->unconfirmed_count,
			(unsigned long long)r->nacked_count);
	if (r->blocked_count)
		fprintf(out, "  the broker said connection.blocked %u times\n", r->blocked_count);
	if (r->status != TB_EXIT_OK)
		fprintf(out, "  STOPPED: %s\n", r->error);
	if (r->interrupted)
		fprintf(out, "  interrupted: these are the figures up to then\n");
}

/* An even share is one tick in as many as there are subscribers. */
static void print_fairness(FILE *out, const struct tb_entry *e)
{
	const struct tb_result *r = &e->result;
	double even = 1.0 / e->load.subscribers;
	double first = (double)r->first_most_count / (double)r->first.count,
	       last = (double)r->last_most_count / (double)r->last.count;

	if (e->load.subscribers > 1 && r->first.count && r->last.count && r->first_most_count)
		fprintf(out,
			"  whoever is first most often: %.2f %% of the ticks; last most often: %.2f %%; an even share: %.2f %% "
			"(%.2f and %.2f times)\n",
			100 * first, 100 * last, 100 * even, first / even, last / even);
}

static void print_title(FILE *out, const struct tb_report *rep, const struct tb_entry *e)
{
	const struct tb_load *l = &e->load;
	char label[512];

	tb_entry_label(e, label, sizeof(label));
	if (rep->options->has_vs)
		fprintf(out, "%c: ", e->side);
	fprintf(out, "%s\n  %s exchange, 1 publisher to %u subscriber%s, ", label, tb_type_name(l->type), l->subscribers,
		l->subscribers == 1 ? "" : "s");
	if (rep->options->find_max)
		fprintf(out, "search for the highest rate with p99 below %g ms", (double)rep->options->find_max_p99_ns / 1e6);
	else
		fprintf(out, "%llu ticks/s", (unsigned long long)l->rate_per_s);
	fprintf(out, ", %u bytes, %u symbol%s%s%s\n", l->size_bytes, l->symbols, l->symbols == 1 ? "" : "s",
		l->ack ? ", acknowledged" : "", l->confirm ? ", confirmed" : "");
	if (l->burst > 1 || l->bindings || l->matching_bindings)
		fprintf(out, "  bursts of %u; for each queue %u idle and %u matching extra bindings\n", l->burst, l->bindings,
			l->matching_bindings);
}

static bool print_latencies(FILE *out, const struct tb_entry *e)
{
	const struct tb_result *r = &e->result;
	bool marked = false;

	print_head(out);
	marked |= print_row(out, "tick to delivery, all", &r->all);
	if (e->load.subscribers > 1) {
		marked |= print_row(out, "  first subscriber", &r->first);
		marked |= print_row(out, "  median subscriber", &r->median);
		marked |= print_row(out, "  last subscriber", &r->last);
	}
	if (e->load.confirm)
		marked |= print_row(out, "tick to confirm", &r->confirm);
	marked |= print_row(out, "sent late, any cause", &r->lateness);
	marked |= print_row(out, "  this client's own doing", &r->client_late);
	return marked;
}

static void print_findmax(FILE *out, const struct tb_entry *e)
{
	const struct tb_findmax *f = &e->findmax;

	for (uint32_t i = 0; i < f->trial_count; i++) {
		const struct tb_trial *t = &f->trials[i];
		fprintf(out, "  %10llu ticks/s  %-24s p99 %10.3f ms  client late p99 %10.3f ms  %.0f deliveries/s\n",
			(unsigned long long)t->rate_per_s, tb_verdict_text(t->verdict), (double)t->p99_ns / 1e6,
			(double)t->client_late_p99_ns / 1e6, t->deliveries_per_s);
	}
	if (f->best_rate_per_s)
		fprintf(out, "  highest rate carried: %llu ticks/s = %.0f deliveries/s\n", (unsigned long long)f->best_rate_per_s,
			f->best_deliveries_per_s);
	else if (f->trial_count)
		fprintf(out,
			"  No rate was carried, not even the lowest that was tried, %llu ticks/s: there are no figures to show.\n",
			(unsigned long long)f->trials[f->trial_count - 1].rate_per_s);
	else
		fprintf(out, "  No rate was tried to its end: there are no figures to show.\n");
	if (f->client_limited)
		fprintf(out, "  at the lowest rate not carried this client was itself late: the broker may carry more\n");
}

static double ratio(uint64_t over, uint64_t under)
{
	return under ? (double)over / (double)under : NAN;
}

static void print_ratios(FILE *out, const char *title, const struct tb_hist *over, const struct tb_hist *under)
{
	if (!over->count || !under->count)
		return;
	fprintf(out, "  %-38s", title);
	for (int i = 0; i < TB_QUANTILES; i++)
		fprintf(out, " %9.2fx",
			ratio(tb_hist_percentile(over, tb_quantiles[i].ppm), tb_hist_percentile(under, tb_quantiles[i].ppm)));
	fprintf(out, "\n");
}

static void print_comparison(FILE *out, const struct tb_report *rep, const struct tb_entry *a)
{
	const struct tb_entry *b = tb_report_counterpart(rep, a);
	char label_a[512], label_b[512];

	if (!b || a->side != 'A')
		return;
	tb_entry_label(a, label_a, sizeof(label_a));
	tb_entry_label(b, label_b, sizeof(label_b));
	fprintf(out, "%s: B (%s) divided by A (%s)\n", tb_type_name(a->load.type), label_b, label_a);
	if (rep->options->find_max) {
		fprintf(out, "  highest rate carried: A %llu, B %llu ticks/s; A carries %.2f times B\n",
			(unsigned long long)a->findmax.best_rate_per_s, (unsigned long long)b->findmax.best_rate_per_s,
			ratio(a->findmax.best_rate_per_s, b->findmax.best_rate_per_s));
		return;
	}
	fprintf(out, "  %-38s", "above 1: A is faster");
	for (int i = 0; i < TB_QUANTILES; i++)
		fprintf(out, " %9s ", tb_quantiles[i].name);
	fprintf(out, "\n");
	print_ratios(out, "all deliveries", &b->result.all, &a->result.all);
	if (a->load.subscribers > 1) {
		print_ratios(out, "first subscriber", &b->result.first, &a->result.first);
		print_ratios(out, "median subscriber", &b->result.median, &a->result.median);
		print_ratios(out, "last subscriber", &b->result.last, &a->result.last);
	}
}

static bool print_echo(FILE *out, const struct tb_report *rep)
{
	const struct tb_echo_result *e = &rep->echo;
	bool marked = false;

	if (!rep->options->has_echo)
		return false;
	fprintf(out, "UDP echo of 64 bytes at %s, %llu a second: the floor of the path\n", rep->options->echo.text,
		(unsigned long long)rep->options->load.rate_per_s);
	if (e->done) {
		print_head(out);
		marked = print_row(out, "round trip", &e->round_trip);
		marked |= print_row(out, "sent late by this client", &e->lateness);
		fprintf(out, "  sent %llu, came back %llu, lost %llu\n", (unsigned long long)e->sent_count,
			(unsigned long long)e->received_count, (unsigned long long)(e->sent_count - e->received_count));
	}
	if (e->status != TB_EXIT_OK)
		fprintf(out, "  STOPPED: %s\n", e->error);
	fprintf(out, "\n");
	return marked;
}

void tb_report_text(const struct tb_report *rep, FILE *out)
{
	bool marked = print_echo(out, rep);

	for (uint32_t i = 0; i < rep->entry_count; i++) {
		const struct tb_entry *e = rep->entries[i];
		if (e->result.ticks_scheduled_count == 0 && !rep->options->find_max)
			continue; /* it never began; why is said when leaving */
		print_title(out, rep, e);
		if (rep->options->find_max)
			print_findmax(out, e);
		if (e->result.all.count) {
			marked |= print_latencies(out, e);
			print_fairness(out, e);
			if (rep->echo.done)
				print_ratios(out, "all deliveries / echo round trip", &e->result.all, &rep->echo.round_trip);
		}
		if (!rep->options->find_max || e->findmax.best_rate_per_s)
			print_counts(out, e);
		if (rep->options->histogram && e->result.all.count)
			tb_draw_histogram(&e->result.all, out);
		fprintf(out, "\n");
	}
	if (rep->options->has_vs)
		for (uint32_t i = 0; i < rep->entry_count; i++)
			print_comparison(out, rep, rep->entries[i]);
	if (marked)
		fprintf(out, "~ fewer than %d samples lie beyond this percentile\n", EVIDENCE_MIN);
}
