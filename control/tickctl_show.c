/*
 * tickctl_show.c - status, stats and latency, written for people.
 *
 * Owns: nothing.
 * Core: the process of tickctl; rates are differences of two answers of control.
 * Spec: our own; --formatter json gives the figures as they are.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/ctl_proto.h"
#include "control/tickctl.h"

static json_int_t int_of(const json_t *o, const char *name)
{
	return json_integer_value(json_object_get(o, name));
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s != NULL ? s : "";
}

/* A text that somebody else chose, safe on a terminal; free() it. */
static char *clean_of(const json_t *o, const char *name)
{
	return tickctl_cell(json_object_get(o, name));
}

static int print_json(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	printf("\n");
	json_decref(j);
	return 0;
}

static json_t *command(const char *name)
{
	return json_pack("{s:s}", "command", name);
}

/* "1.50 MiB" */
static void bytes_text(double v, char out[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	unsigned u = 0;

	while (v >= 1024 && u < 4)
		v /= 1024, u++;
	snprintf(out, 32, u == 0 ? "%.0f %s" : "%.2f %s", v, units[u]);
}

/* "12.3k" */
static void count_text(double v, char out[32])
{
	static const char *const units[] = {"", "k", "M", "G"};
	unsigned u = 0;

	while (v >= 10000 && u < 3)
		v /= 1000, u++;
	snprintf(out, 32, u == 0 ? "%.0f%s" : "%.1f%s", v, units[u]);
}

static void time_text(double ns, char out[32])
{
	if (ns < 1000)
		snprintf(out, 32, "%.0f ns", ns);
	else if (ns < 1e6)
		snprintf(out, 32, "%.1f us", ns / 1e3);
	else if (ns < 1e9)
		snprintf(out, 32, "%.1f ms", ns / 1e6);
	else
		snprintf(out, 32, "%.2f s", ns / 1e9);
}

/* ---- status ---- */

static void uptime_text(json_int_t s, char out[64])
{
	snprintf(out, 64, "%lld d %02lld:%02lld:%02lld", (long long)(s / 86400), (long long)(s / 3600 % 24),
		 (long long)(s / 60 % 60), (long long)(s % 60));
}

static void print_pools(const json_t *pools)
{
	const char *name;
	json_t *pool;
	char used[32], max[32];

	printf("\nPools (in use / size)\n\n");
	json_object_foreach((json_t *)(uintptr_t)pools, name, pool)
	{
		bool bytes = strstr(name, "bytes") != NULL;
		double u = (double)int_of(pool, "used"), m = (double)int_of(pool, "max");

		(bytes ? bytes_text : count_text)(u, used);
		(bytes ? bytes_text : count_text)(m, max);
		if (m > 0)
			printf("%-18s %10s / %-10s %5.1f %%\n", name, used, max, 100 * u / m);
		else
			printf("%-18s %10s\n", name, used);
	}
}

static void print_dataplane(const json_t *d)
{
	char up[64], a[32], b[32], *version = clean_of(d, "version"), *port = clean_of(d, "port"),
				   *address = clean_of(d, "address");
	json_t *w;
	size_t i;

	uptime_text(int_of(d, "uptime_s"), up);
	printf("\nDataplane\n\nPID: %lld\nTickwire version: %s\nUptime: %s\nPort: %s\nAddress: %s\n", (long long)int_of(d, "pid"),
	       version, up, port, address);
	json_array_foreach(json_object_get(d, "workers"), i, w)
		printf("Worker %lld: lcore %lld, NUMA node %lld\n", (long long)int_of(w, "worker"), (long long)int_of(w, "lcore"),
		       (long long)int_of(w, "numa_node"));
	bytes_text((double)int_of(d, "arena_used_bytes"), a);
	bytes_text((double)int_of(d, "arena_bytes"), b);
	printf("Database arena: %s of %s\n", a, b);
	bytes_text((double)int_of(d, "shared_memory_bytes"), a);
	printf("Shared memory: %s\n", a);
	print_pools(json_object_get(d, "pools"));
	free(version);
	free(port);
	free(address);
}

int tickctl_status(struct tickctl_client *c, const struct tickctl_options *o)
{
	char up[64], mem[32];
	json_t *s, *d;
	int rc = tickctl_ask(c, o, command("status"), &s);

	if (rc != 0 || o->format == TICKCTL_JSON)
		return rc != 0 ? rc : print_json(s);
	if (!o->quiet)
		printf("Status of Tickwire ...\n");
	d = json_object_get(s, "dataplane");
	uptime_text(int_of(s, "uptime_s"), up);
	bytes_text((double)int_of(s, "memory_peak_bytes"), mem);
	printf("Control\n\nPID: %lld\nTickwire version: %s\nUptime: %s\nDefinitions: %s\nMemory (peak): %s\n",
	       (long long)int_of(s, "pid"), text_of(s, "version"), up, text_of(s, "data_dir"), mem);
	printf("Exchanges: %lld\nQueues: %lld\nBindings: %lld\nConnections: %lld\n", (long long)int_of(s, "exchanges"),
	       (long long)int_of(s, "queues"), (long long)int_of(s, "bindings"), (long long)int_of(s, "connections"));
	if (json_is_object(d))
		print_dataplane(d);
	else
		printf("\nDataplane: not attached\n");
	json_decref(s);
	return 0;
}

/* ---- stats ---- */

static double counter(const json_t *worker, const char *name)
{
	return (double)int_of(json_object_get(worker, "counters"), name);
}

struct two { /* a worker at two moments */
	const json_t *before, *now;
	double seconds;
};

static double grown(const struct two *t, const char *name)
{
	return counter(t->now, name) - counter(t->before, name);
}

static void print_rate(const struct two *t, const char *label, const char *name, bool bytes)
{
	char text[32];

	(bytes ? bytes_text : count_text)(t->seconds > 0 ? grown(t, name) / t->seconds : 0, text);
	printf("%s %s/s  ", label, text);
}

/* Counters that should stay at zero on a good day say so in their names. */
static bool is_trouble(const char *name)
{
	static const char *const words[] = {"drop",     "refused",    "failed",     "error",    "lost",       "corrupt",
					    "tx_full",  "tx_no_mbuf", "tx_partial", "timeout",  "missed",     "nombuf",
					    "abort",    "retrans",    "stall",      "bad",      "unroutable", "no_room",
					    "overflow", "rejected",   "malformed",  "deferred", "flushes"};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strstr(name, words[i]) != NULL)
			return true;
	return false;
}

static void print_counters(const struct two *t, const json_t *texts, bool all)
{
	const char *name;
	json_t *value;
	bool any = false;

	json_object_foreach(json_object_get(t->now, "counters"), name, value)
	{
		double v = (double)json_integer_value(value), rate = t->seconds > 0 ? grown(t, name) / t->seconds : 0;
		char *shown, *text;

		if (!all && (v <= 0 || !is_trouble(name)))
			continue;
		if (!any)
			printf("  %-32s %14s %12s\n", all ? "counter" : "drops and trouble", "total", "per second");
		any = true;
		shown = tickctl_cell(json_object_get(texts, name));
		text = strdup(name);
		printf("  %-32s %14.0f %12.1f  %s\n", text != NULL ? text : "", v, rate, shown);
		free(shown);
		free(text);
	}
	if (!any)
		printf("  no drops, no trouble\n");
}

static void print_worker(const struct two *t, const json_t *texts, bool all)
{
	double busy = grown(t, "worker.busy_cycles"), idle = grown(t, "worker.idle_cycles"), sum = busy + idle;
	char loops[32], longest[32], *what = clean_of(t->now, "longest_loop_what");

	count_text(t->seconds > 0 ? grown(t, "worker.loops") / t->seconds : 0, loops);
	time_text(counter(t->now, "worker.longest_loop_ns"), longest);
	printf("worker %lld (lcore %lld, NUMA node %lld)\n", (long long)int_of(t->now, "worker"),
	       (long long)int_of(t->now, "lcore"), (long long)int_of(t->now, "numa_node"));
	printf("  busy %5.1f %%  idle %5.1f %%  loops %s/s  longest loop %s%s%s\n  ", sum > 0 ? 100 * busy / sum : 0,
	       sum > 0 ? 100 * idle / sum : 0, loops, longest, *what != '\0' ? " in " : "", what);
	print_rate(t, "rx", "port.rx_packets", false);
	print_rate(t, "", "port.rx_bytes", true);
	print_rate(t, "tx", "port.tx_packets", false);
	print_rate(t, "", "port.tx_bytes", true);
	printf("\n  ");
	print_rate(t, "published", "amqp.publishes", false);
	print_rate(t, "delivered", "amqp.deliveries", false);
	print_rate(t, "acked", "amqp.acks", false);
	printf("\n");
	print_counters(t, texts, all);
	free(what);
}

static void print_control(const json_t *c)
{
	printf("control\n  log-ins %lld (refused: %lld)  requests %lld in %lld batches  links lost %lld\n",
	       (long long)int_of(c, "logins"), (long long)int_of(c, "logins_refused"), (long long)int_of(c, "records"),
	       (long long)int_of(c, "batches"), (long long)int_of(c, "links_dropped"));
}

static void print_stats(const json_t *before, const json_t *now, const struct tickctl_options *o)
{
	double seconds = (double)(int_of(now, "now_ns") - int_of(before, "now_ns")) / 1e9;
	json_t *w;
	size_t i;

	json_array_foreach(json_object_get(now, "workers"), i, w)
	{
		struct two t = {json_array_get(json_object_get(before, "workers"), i), w, seconds};

		print_worker(&t, json_object_get(now, "texts"), o->all);
	}
	print_control(json_object_get(now, "control"));
	fflush(stdout);
}

static void sleep_s(double s)
{
	struct timespec ts = {(time_t)s, (long)((s - floor(s)) * 1e9)};

	nanosleep(&ts, NULL);
}

int tickctl_stats(struct tickctl_client *c, const struct tickctl_options *o)
{
	json_t *before, *now;
	int rc = tickctl_ask(c, o, command("stats"), &before);

	if (rc != 0 || o->format == TICKCTL_JSON)
		return rc != 0 ? rc : print_json(before);
	do {
		sleep_s(o->watch ? o->watch_s : 0.5);
		rc = tickctl_ask(c, o, command("stats"), &now);
		if (rc != 0)
			break;
		if (o->watch && isatty(STDOUT_FILENO))
			printf("\033[H\033[2J");
		print_stats(before, now, o);
		json_decref(before);
		before = now;
	} while (o->watch && !ferror(stdout));
	json_decref(before);
	return rc;
}

/* ---- latency ---- */

uint64_t tickctl_percentile(const json_t *buckets, uint64_t count, double q)
{
	/* The smallest bound below which at least that share of the values lies. */
	double rank = ceil((double)count * q);
	uint64_t want = rank < 1 ? 1 : (uint64_t)rank, seen = 0, bound = 0;
	json_t *b;
	size_t i;

	json_array_foreach(buckets, i, b)
	{
		bound = (uint64_t)json_integer_value(json_array_get(b, 0));
		seen += (uint64_t)json_integer_value(json_array_get(b, 1));
		if (seen >= want)
			return bound;
	}
	return bound;
}

static int by_bound(const void *a, const void *b)
{
	json_int_t x = json_integer_value(json_array_get(*(json_t *const *)a, 0)),
		   y = json_integer_value(json_array_get(*(json_t *const *)b, 0));

	return x < y ? -1 : x > y;
}

static void merge_buckets(json_t *into, const json_t *more)
{
	json_t *b, *have;
	size_t i, k, n = json_array_size(into);
	json_t **sorted;

	json_array_foreach(more, i, b)
	{
		bool found = false;

		for (k = 0; k < n && !found; k++) {
			have = json_array_get(into, k);
			found = json_integer_value(json_array_get(have, 0)) == json_integer_value(json_array_get(b, 0));
			if (found)
				json_integer_set(json_array_get(have, 1), json_integer_value(json_array_get(have, 1)) +
										  json_integer_value(json_array_get(b, 1)));
		}
		if (!found)
			json_array_append_new(into, json_deep_copy(b));
	}
	n = json_array_size(into);
	sorted = calloc(n + 1, sizeof sorted[0]);
	if (sorted == NULL)
		abort();
	for (i = 0; i < n; i++)
		sorted[i] = json_incref(json_array_get(into, i));
	qsort(sorted, n, sizeof sorted[0], by_bound);
	json_array_clear(into);
	for (i = 0; i < n; i++)
		json_array_append_new(into, sorted[i]);
	free(sorted);
}

static json_t *stage_of(json_t *merged, const char *name)
{
	json_t *s;
	size_t i;

	json_array_foreach(merged, i, s) if (strcmp(text_of(s, "name"), name) == 0) return s;
	s = json_pack("{s:s, s:i, s:i, s:i, s:[]}", "name", name, "count", 0, "sum_ns", 0, "max_ns", 0, "buckets");
	json_array_append_new(merged, s);
	return s;
}

json_t *tickctl_merge_stages(const json_t *stats)
{
	json_t *merged = json_array(), *w, *s;
	size_t i, k;

	json_array_foreach(json_object_get(stats, "workers"), i, w) json_array_foreach(json_object_get(w, "stages"), k, s)
	{
		json_t *m = stage_of(merged, text_of(s, "name"));

		merge_buckets(json_object_get(m, "buckets"), json_object_get(s, "buckets"));
		json_integer_set(json_object_get(m, "count"), int_of(m, "count") + int_of(s, "count"));
		json_integer_set(json_object_get(m, "sum_ns"), int_of(m, "sum_ns") + int_of(s, "sum_ns"));
		if (int_of(s, "max_ns") > int_of(m, "max_ns"))
			json_integer_set(json_object_get(m, "max_ns"), int_of(s, "max_ns"));
	}
	return merged;
}

static const struct {
	const char *name;
	double q;
} percentiles[] = {{"p50_ns", 0.5}, {"p90_ns", 0.9}, {"p99_ns", 0.99}, {"p99_9_ns", 0.999}};
#define PERCENTILES (sizeof percentiles / sizeof percentiles[0])

/* The count of buckets of one process need not be that of its histogram: the reader may come between the two. */
static uint64_t count_of(const json_t *stage)
{
	json_t *b;
	uint64_t n = 0;
	size_t i;

	json_array_foreach(json_object_get(stage, "buckets"), i, b) n += (uint64_t)json_integer_value(json_array_get(b, 1));
	return n;
}

static json_t *summary(const json_t *stage)
{
	uint64_t count = count_of(stage), max = (uint64_t)int_of(stage, "max_ns");
	json_t *row = json_pack("{s:O, s:I}", "name", json_object_get(stage, "name"), "count", (json_int_t)count);

	for (size_t i = 0; i < PERCENTILES; i++) {
		uint64_t v = tickctl_percentile(json_object_get(stage, "buckets"), count, percentiles[i].q);

		json_object_set_new(row, percentiles[i].name, json_integer((json_int_t)(v < max ? v : max)));
	}
	json_object_set_new(row, "max_ns", json_integer((json_int_t)max));
	return row;
}

/* One line an octave of time, the bar's length by the share of samples. */
static void print_bars(const json_t *stage)
{
	uint64_t octave[64] = {0}, most = 0, count = count_of(stage);
	unsigned first = 64, last = 0;
	char low[32], high[32];
	json_t *b;
	size_t i;

	json_array_foreach(json_object_get(stage, "buckets"), i, b)
	{
		uint64_t bound = (uint64_t)json_integer_value(json_array_get(b, 0));
		unsigned o = bound < 2 ? 0 : (unsigned)(63 - __builtin_clzll(bound));

		octave[o] += (uint64_t)json_integer_value(json_array_get(b, 1));
		most = octave[o] > most ? octave[o] : most;
		first = o < first ? o : first;
		last = o > last ? o : last;
	}
	for (unsigned o = first; o <= last && most != 0; o++) {
		int bar = (int)(50 * octave[o] / most);

		time_text(o == 0 ? 0 : ldexp(1, (int)o), low);
		time_text(ldexp(1, (int)o + 1), high);
		printf("  %9s .. %-9s %6.2f %% %.*s%s\n", low, high, 100.0 * (double)octave[o] / (double)count, bar,
		       "##################################################", bar == 0 && octave[o] != 0 ? "." : "");
	}
}

static void print_stage(const json_t *stage)
{
	json_t *row = summary(stage);
	char cell[32], *name = clean_of(row, "name");

	printf("%-22s %10lld", name, (long long)int_of(row, "count"));
	for (size_t i = 0; i < PERCENTILES; i++) {
		time_text((double)int_of(row, percentiles[i].name), cell);
		printf(" %10s", cell);
	}
	time_text((double)int_of(row, "max_ns"), cell);
	printf(" %10s\n", cell);
	free(name);
	json_decref(row);
}

/* Of a counter of the group "longest": the poll's name, without group and unit. False: it is another counter. */
static bool poll_name(const char *counter_name, char out[32])
{
	size_t len = strlen(counter_name), n;

	if (strncmp(counter_name, "longest.", 8) != 0 || len < 12 || len - 11 >= 32 || strcmp(counter_name + len - 3, "_ns") != 0)
		return false;
	for (n = 0; n < len - 11; n++) {
		char c = counter_name[8 + n];

		if ((c < 'a' || c > 'z') && c != '_')
			return false;
		out[n] = c == '_' ? ' ' : c;
	}
	out[n] = '\0';
	return true;
}

/* What keeps ticks waiting: how long a turn of a worker's loop took at most, with what, when, and how many were long. */
static void print_turns(const json_t *worker, uint64_t now_ns)
{
	char longest[32], ago[32], name[32], cell[32], *what = clean_of(worker, "longest_loop_what");
	uint64_t at_ns = (uint64_t)counter(worker, "worker.longest_loop_at_ns");
	const char *key;
	json_t *value;

	time_text(counter(worker, "worker.longest_loop_ns"), longest);
	time_text(now_ns > at_ns ? (double)(now_ns - at_ns) : 0, ago);
	printf("\nworker %lld: longest turn %s, %s ago%s%s\n", (long long)int_of(worker, "worker"), longest, ago,
	       *what != '\0' ? ", in " : "", what);
	printf("  turns %.0f, over 5 us %.0f, over 50 us %.0f, over 500 us %.0f\n", counter(worker, "worker.loops"),
	       counter(worker, "worker.loops_over_5us"), counter(worker, "worker.loops_over_50us"),
	       counter(worker, "worker.loops_over_500us"));
	printf("  longest of each:");
	json_object_foreach(json_object_get(worker, "counters"), key, value) if (poll_name(key, name))
	{
		time_text((double)json_integer_value(value), cell);
		printf("  %s %s", name, cell);
	}
	printf("\n");
	free(what);
}

int tickctl_latency(struct tickctl_client *c, const struct tickctl_options *o)
{
	json_t *stats, *stages, *s, *rows = json_array();
	size_t i;
	int rc = tickctl_ask(c, o, command("stats"), &stats);

	if (rc != 0) {
		json_decref(rows);
		return rc;
	}
	stages = tickctl_merge_stages(stats);
	json_array_foreach(stages, i, s) json_array_append_new(rows, summary(s));
	if (o->format == TICKCTL_JSON) {
		json_decref(stats);
		json_decref(stages);
		return print_json(rows);
	}
	if (!o->quiet)
		printf("Time that sampled ticks spent in each stage ...\n");
	printf("%-22s %10s %10s %10s %10s %10s %10s\n", "stage", "samples", "p50", "p90", "p99", "p99.9", "max");
	json_array_foreach(stages, i, s) print_stage(s);
	/* The last stage is the whole way. */
	s = json_array_get(stages, json_array_size(stages) - 1);
	if (s != NULL && count_of(s) != 0) {
		printf("\n%s\n", text_of(s, "name"));
		print_bars(s);
	} else {
		printf("\nno tick has been sampled yet: publish some\n");
	}
	json_array_foreach(json_object_get(stats, "workers"), i, s) print_turns(s, (uint64_t)int_of(stats, "now_ns"));
	json_decref(stats);
	json_decref(rows);
	json_decref(stages);
	return 0;
}
