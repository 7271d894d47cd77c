/* The report for programs: one JSON object, keys with their units, described in README.md beside this file.
 * Runs inside tickbench after the measuring is over.
 * Specification: RFC 8259. */
#include "tools/tickbench/report.h"

#include <math.h>

#define DEPTH_MAX 8

struct json {
	FILE *out;
	int depth;
	bool used[DEPTH_MAX]; /* something was written at this depth: a comma comes first */
};

static void put_string(struct json *j, const char *text)
{
	fputc('"', j->out);
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p == '"' || *p == '\\')
			fprintf(j->out, "\\%c", *p);
		else if (*p < 0x20 || *p >= 0x7F)
			/* What a peer calls itself need not be UTF-8. */
			fprintf(j->out, "\\u%04x", *p);
		else
			fputc(*p, j->out);
	}
	fputc('"', j->out);
}

static void put_key(struct json *j, const char *key)
{
	fprintf(j->out, "%s\n%*s", j->used[j->depth] ? "," : "", 2 * j->depth, "");
	j->used[j->depth] = true;
	if (key) {
		put_string(j, key);
		fputs(": ", j->out);
	}
}

static void open_block(struct json *j, const char *key, char bracket)
{
	if (j->depth > 0)
		put_key(j, key);
	fputc(bracket, j->out);
	j->used[++j->depth] = false;
}

static void close_block(struct json *j, char bracket)
{
	bool used = j->used[j->depth--];

	if (used)
		fprintf(j->out, "\n%*s", 2 * j->depth, "");
	fputc(bracket, j->out);
}

static void put_text(struct json *j, const char *key, const char *text)
{
	put_key(j, key);
	put_string(j, text);
}

static void put_count(struct json *j, const char *key, uint64_t value)
{
	put_key(j, key);
	fprintf(j->out, "%llu", (unsigned long long)value);
}

static void put_real(struct json *j, const char *key, double value)
{
	put_key(j, key);
	if (isfinite(value))
		fprintf(j->out, "%.6g", value);
	else
		fputs("null", j->out);
}

static void put_bool(struct json *j, const char *key, bool value)
{
	put_key(j, key);
	fputs(value ? "true" : "false", j->out);
}

static void put_hist(struct json *j, const char *key, const struct tb_hist *h)
{
	open_block(j, key, '{');
	put_count(j, "sample_count", h->count);
	if (h->count) {
		put_count(j, "min", h->min);
		put_real(j, "mean", tb_hist_mean(h));
		put_real(j, "stddev", tb_hist_stddev(h));
		for (int i = 0; i < TB_QUANTILES; i++)
			put_count(j, tb_quantiles[i].json, tb_hist_percentile(h, tb_quantiles[i].ppm));
	}
	close_block(j, '}');
}

static void put_load(struct json *j, const struct tb_load *l)
{
	open_block(j, "load", '{');
	put_text(j, "exchange_type", tb_type_name(l->type));
	put_count(j, "subscriber_count", l->subscribers);
	put_count(j, "rate_ticks_per_s", l->rate_per_s);
	put_count(j, "burst_ticks", l->burst);
	put_count(j, "size_bytes", l->size_bytes);
	put_count(j, "symbol_count", l->symbols);
	put_count(j, "idle_bindings_per_queue", l->bindings);
	put_count(j, "matching_bindings_per_queue", l->type == TB_TYPE_DIRECT ? 0 : l->matching_bindings);
	put_real(j, "duration_s", (double)l->duration_ns / 1e9);
	put_real(j, "warmup_s", (double)l->warmup_ns / 1e9);
	put_bool(j, "acknowledged", l->ack);
	put_count(j, "prefetch_count", l->prefetch);
	put_bool(j, "confirmed", l->confirm);
	put_text(j, "poll", l->busy_poll ? "busy" : "epoll");
	put_count(j, "thread_count", l->threads);
	close_block(j, '}');
}

static void put_findmax(struct json *j, const struct tb_findmax *f, uint64_t limit_ns)
{
	open_block(j, "find_max", '{');
	put_count(j, "limit_p99_ns", limit_ns);
	put_count(j, "best_rate_ticks_per_s", f->best_rate_per_s);
	put_real(j, "best_deliveries_per_s", f->best_deliveries_per_s);
	put_bool(j, "client_limited", f->client_limited);
	open_block(j, "trials", '[');
	for (uint32_t i = 0; i < f->trial_count; i++) {
		const struct tb_trial *t = &f->trials[i];
		open_block(j, NULL, '{');
		put_count(j, "rate_ticks_per_s", t->rate_per_s);
		put_bool(j, "carried", t->passed);
		put_text(j, "verdict", tb_verdict_text(t->verdict));
		put_real(j, "reached_ticks_per_s", t->ticks_per_s);
		put_count(j, "p99_ns", t->p99_ns);
		put_count(j, "client_lateness_p99_ns", t->client_late_p99_ns);
		put_real(j, "deliveries_per_s", t->deliveries_per_s);
		put_count(j, "lost_count", t->lost_count);
		close_block(j, '}');
	}
	close_block(j, ']');
	close_block(j, '}');
}

static void put_counts(struct json *j, const struct tb_result *r)
{
	put_count(j, "ticks_scheduled_count", r->ticks_scheduled_count);
	put_count(j, "ticks_sent_count", r->ticks_sent_count);
	put_count(j, "ticks_unsent_count", r->ticks_unsent_count);
	put_count(j, "deliveries_expected_count", r->expected_count);
	put_count(j, "deliveries_received_count", r->received_count);
	put_count(j, "lost_count", r->lost_count);
	put_count(j, "duplicate_count", r->duplicate_count);
	put_count(j, "reordered_count", r->reordered_count);
	put_count(j, "stale_count", r->stale_count);
	put_count(j, "damaged_count", r->corrupt_count);
	put_count(j, "unconfirmed_count", r->unconfirmed_count);
	put_count(j, "nacked_count", r->nacked_count);
	put_count(j, "unranked_count", r->untracked_count);
	put_count(j, "first_most_count", r->first_most_count);
	put_count(j, "last_most_count", r->last_most_count);
	put_count(j, "blocked_count", r->blocked_count);
	put_bool(j, "clean", tb_result_clean(r) && r->status == TB_EXIT_OK);
	put_real(j, "reached_ticks_per_s", r->ticks_per_s);
	put_real(j, "reached_deliveries_per_s", r->deliveries_per_s);
	put_real(j, "measured_s", r->measured_s);
	put_real(j, "client_busy_share", r->busy_share);
	put_bool(j, "interrupted", r->interrupted);
	put_text(j, "error", r->error);
}

static void put_entry(struct json *j, const struct tb_report *rep, const struct tb_entry *e)
{
	const struct tb_result *r = &e->result;

	open_block(j, NULL, '{');
	put_text(j, "side", (char[]){e->side, '\0'});
	put_text(j, "broker", e->load.broker.text);
	put_text(j, "product", r->product);
	put_text(j, "product_version", r->version);
	put_load(j, &e->load);
	if (rep->options->find_max)
		put_findmax(j, &e->findmax, rep->options->find_max_p99_ns);
	open_block(j, "latency_ns", '{');
	put_hist(j, "all", &r->all);
	put_hist(j, "first", &r->first);
	put_hist(j, "median", &r->median);
	put_hist(j, "last", &r->last);
	close_block(j, '}');
	put_hist(j, "send_lateness_ns", &r->lateness);
	put_hist(j, "client_lateness_ns", &r->client_late);
	if (e->load.confirm)
		put_hist(j, "confirm_ns", &r->confirm);
	put_counts(j, r);
	close_block(j, '}');
}

static void put_ratio_row(struct json *j, const char *key, const struct tb_hist *over, const struct tb_hist *under)
{
	open_block(j, key, '{');
	for (int i = 0; i < TB_QUANTILES; i++) {
		uint64_t below = tb_hist_percentile(under, tb_quantiles[i].ppm);
		put_real(j, tb_quantiles[i].json,
			 below ? (double)tb_hist_percentile(over, tb_quantiles[i].ppm) / (double)below : NAN);
	}
	close_block(j, '}');
}

static void put_ratios(struct json *j, const struct tb_report *rep)
{
	open_block(j, "ratios", '[');
	for (uint32_t i = 0; i < rep->entry_count; i++) {
		const struct tb_entry *a = rep->entries[i], *b = tb_report_counterpart(rep, a);
		if (a->side != 'A' || (!b && !rep->echo.done))
			continue;
		open_block(j, NULL, '{');
		put_text(j, "exchange_type", tb_type_name(a->load.type));
		if (rep->echo.done)
			put_ratio_row(j, "a_over_echo", &a->result.all, &rep->echo.round_trip);
		if (b) {
			put_ratio_row(j, "b_over_a_all", &b->result.all, &a->result.all);
			put_ratio_row(j, "b_over_a_last", &b->result.last, &a->result.last);
		}
		if (b && rep->options->find_max)
			put_real(j, "a_over_b_best_rate",
				 b->findmax.best_rate_per_s
					 ? (double)a->findmax.best_rate_per_s / (double)b->findmax.best_rate_per_s
					 : NAN);
		close_block(j, '}');
	}
	close_block(j, ']');
}

static void put_echo(struct json *j, const struct tb_report *rep)
{
	const struct tb_echo_result *e = &rep->echo;

	open_block(j, "echo", '{');
	put_text(j, "peer", rep->options->echo.text);
	put_hist(j, "round_trip_ns", &e->round_trip);
	put_hist(j, "send_lateness_ns", &e->lateness);
	put_count(j, "sent_count", e->sent_count);
	put_count(j, "received_count", e->received_count);
	put_count(j, "lost_count", e->sent_count - e->received_count);
	put_count(j, "unsent_count", e->unsent_count);
	put_text(j, "error", e->error);
	close_block(j, '}');
}

void tb_report_json(const struct tb_report *rep, FILE *out)
{
	struct json j = {.out = out};

	open_block(&j, NULL, '{');
	put_text(&j, "tool", "tickbench");
	put_text(&j, "version", TICKWIRE_VERSION);
	put_count(&j, "format", 1);
	if (rep->options->has_echo)
		put_echo(&j, rep);
	open_block(&j, "runs", '[');
	for (uint32_t i = 0; i < rep->entry_count; i++)
		put_entry(&j, rep, rep->entries[i]);
	close_block(&j, ']');
	put_ratios(&j, rep);
	close_block(&j, '}');
	fputc('\n', out);
}
