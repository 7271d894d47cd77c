/*
 * stats.c - status, counters, histograms and databases as JSON, for tickctl.
 *
 * Owns: nothing; all figures are relaxed loads from shared memory.
 * Core: control's event loop.
 * Spec: control/ctl_shm.h: the counters describe themselves.
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "control/cli.h"

static void set_u64(json_t *o, const char *name, uint64_t v)
{
	json_object_set_new(o, name, json_integer((json_int_t)(v <= INT64_MAX ? v : INT64_MAX)));
}

static const struct ctl_worker_stats *stats_of(const struct ctl_control *c, uint32_t worker)
{
	return (const struct ctl_worker_stats *)(const void *)(c->link.map + c->link.shm.worker[worker].stats_offset);
}

/* The name of a counter, from a private copy. False: it is no name. */
static bool counter_desc(const struct ctl_control *c, uint32_t idx, struct ctl_counter_desc *out)
{
	memcpy(out, c->link.map + c->link.shm.counter_desc_offset + idx * sizeof *out, sizeof *out);
	out->name[sizeof out->name - 1] = '\0';
	out->text[sizeof out->text - 1] = '\0';
	return out->name[0] != '\0';
}

static json_t *descriptions(const struct ctl_control *c)
{
	json_t *out = json_object();
	struct ctl_counter_desc d;

	for (uint32_t i = 0; i < c->link.shm.counters_count; i++)
		if (counter_desc(c, i, &d)) {
			json_t *name = ctl_json_text(d.name, sizeof d.name);

			json_object_set_new(out, json_string_value(name), ctl_json_text(d.text, sizeof d.text));
			json_decref(name);
		}
	return out;
}

static json_t *counters(const struct ctl_control *c, uint32_t worker)
{
	const struct ctl_worker_stats *s = stats_of(c, worker);
	json_t *out = json_object();
	struct ctl_counter_desc d;

	for (uint32_t i = 0; i < c->link.shm.counters_count; i++)
		if (counter_desc(c, i, &d)) {
			json_t *name = ctl_json_text(d.name, sizeof d.name);

			set_u64(out, json_string_value(name), atomic_load_explicit(&s->counter[i], memory_order_relaxed));
			json_decref(name);
		}
	return out;
}

static json_t *histogram(const struct ctl_hist *h)
{
	json_t *buckets = json_array(), *out;
	char name[sizeof h->name];

	memcpy(name, h->name, sizeof name);
	for (uint32_t i = 0; i < CTL_HIST_BUCKETS; i++) {
		uint64_t n = atomic_load_explicit(&h->bucket[i], memory_order_relaxed);

		if (n != 0)
			json_array_append_new(buckets, json_pack("[I, I]", (json_int_t)ctl_hist_upper_ns(i), (json_int_t)n));
	}
	out = json_pack("{s:o, s:o}", "name", ctl_json_text(name, sizeof name), "buckets", buckets);
	set_u64(out, "count", atomic_load_explicit(&h->count, memory_order_relaxed));
	set_u64(out, "sum_ns", atomic_load_explicit(&h->sum_ns, memory_order_relaxed));
	set_u64(out, "max_ns", atomic_load_explicit(&h->max_ns, memory_order_relaxed));
	return out;
}

static json_t *worker_json(const struct ctl_control *c, uint32_t w)
{
	const struct ctl_worker_stats *s = stats_of(c, w);
	json_t *stages = json_array(), *out;
	char what[sizeof s->longest_loop_what];

	memcpy(what, s->longest_loop_what, sizeof what);
	for (uint32_t i = 0; i < c->link.shm.stages_count; i++)
		json_array_append_new(stages, histogram(&s->stage[i]));
	out = json_pack("{s:i, s:i, s:i, s:o, s:o, s:o}", "worker", (int)w, "lcore", (int)c->link.shm.worker[w].lcore, "numa_node",
			(int)c->link.shm.worker[w].numa_node, "longest_loop_what", ctl_json_text(what, sizeof what), "counters",
			counters(c, w), "stages", stages);
	set_u64(out, "updated_ns", atomic_load_explicit(&s->updated_ns, memory_order_relaxed));
	return out;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

json_t *ctl_show_stats(struct ctl_control *c)
{
	json_t *workers = json_array(), *out;

	for (uint32_t w = 0; w < c->link.shm.workers_count; w++)
		json_array_append_new(workers, worker_json(c, w));
	out = json_pack("{s:o, s:o, s:o}", "workers", workers, "texts", descriptions(c), "control",
			json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "logins", (json_int_t)c->logins_ok, "logins_refused",
				  (json_int_t)c->logins_refused, "records", (json_int_t)c->link.records, "batches",
				  (json_int_t)c->batches, "attaches", (json_int_t)c->link.attaches, "links_dropped",
				  (json_int_t)c->link.drops));
	set_u64(out, "now_ns", now_ns());
	set_u64(out, "tsc_hz", c->link.shm.tsc_hz);
	return out;
}

/* ---- status ---- */

/* "pool.x" and "pool.x_max" of all workers together: {"x": {"used", "max"}}. */
static json_t *pools(const struct ctl_control *c)
{
	json_t *out = json_object();
	struct ctl_counter_desc d;

	for (uint32_t i = 0; i < c->link.shm.counters_count; i++) {
		uint64_t sum = 0;
		char *end;
		bool max;
		json_t *pool;

		if (!counter_desc(c, i, &d) || strncmp(d.name, "pool.", 5) != 0)
			continue;
		for (uint32_t w = 0; w < c->link.shm.workers_count; w++)
			sum += atomic_load_explicit(&stats_of(c, w)->counter[i], memory_order_relaxed);
		end = strstr(d.name, "_max");
		max = end != NULL && end[4] == '\0';
		if (max)
			*end = '\0';
		pool = json_object_get(out, d.name + 5);
		if (pool == NULL) {
			pool = json_object();
			if (json_object_set_new(out, d.name + 5, pool) != 0)
				continue; /* the name is no UTF-8 */
		}
		set_u64(pool, max ? "max" : "used", sum);
	}
	return out;
}

static json_t *dataplane_status(struct ctl_control *c)
{
	const struct ctl_shm_header *h = &c->link.shm;
	uint64_t now_s = (uint64_t)time(NULL), used, bytes;
	json_t *workers = json_array(), *out;

	if (!ctl_control_attached(c))
		return json_null();
	for (uint32_t w = 0; w < h->workers_count; w++)
		json_array_append_new(workers, json_pack("{s:i, s:i, s:i}", "worker", (int)w, "lcore", (int)h->worker[w].lcore,
							 "numa_node", (int)h->worker[w].numa_node));
	ctl_compiler_arena(c->compiler, &used, &bytes);
	out = json_pack("{s:i, s:o, s:o, s:o, s:o, s:o}", "pid", (int)h->pid, "version",
			ctl_json_text(h->version_text, sizeof h->version_text), "port",
			ctl_json_text(h->port_text, sizeof h->port_text), "address",
			ctl_json_text(h->address_text, sizeof h->address_text), "workers", workers, "pools", pools(c));
	set_u64(out, "uptime_s", now_s > h->started_s ? now_s - h->started_s : 0);
	set_u64(out, "shared_memory_bytes", h->total_bytes);
	set_u64(out, "arena_used_bytes", used);
	set_u64(out, "arena_bytes", bytes);
	return out;
}

json_t *ctl_show_status(struct ctl_control *c)
{
	uint64_t now_s = (uint64_t)time(NULL);
	struct rusage usage;
	json_t *out;

	getrusage(RUSAGE_SELF, &usage);
	out = json_pack("{s:i, s:s, s:o, s:o}", "pid", (int)getpid(), "version", TICKWIRE_VERSION, "dataplane", dataplane_status(c),
			"data_dir", ctl_json_text(c->options.data_dir, sizeof c->options.data_dir));
	set_u64(out, "uptime_s", now_s > c->started_s ? now_s - c->started_s : 0);
	set_u64(out, "exchanges", c->rib.exchange_ids.used);
	set_u64(out, "queues", c->rib.queue_ids.used);
	set_u64(out, "bindings", c->rib.binding_ids.used);
	set_u64(out, "connections", c->rib.conns_by_uid.count);
	set_u64(out, "memory_peak_bytes", (uint64_t)usage.ru_maxrss * 1024);
	return out;
}

/* ---- databases ---- */

static json_t *matcher_row(struct ctl_control *c, const struct ctl_exchange *x)
{
	struct ctl_compiler_info info;
	json_t *row;

	ctl_compiler_info(c->compiler, x->id, &info);
	row = json_pack("{s:o, s:s, s:o, s:s, s:s}", "name", ctl_json_span(x->name), "type", ctl_exchange_type_name(x->type),
			"vhost", ctl_json_span(x->vhost->name), "state",
			info.compiling         ? "compiling"
			: info.waiting         ? "waiting"
			: info.generation != 0 ? "compiled"
					       : "overlay",
			"trouble", info.trouble);
	set_u64(row, "patterns", x->pattern_rules);
	set_u64(row, "overlay", x->pattern_rules > info.covered ? x->pattern_rules - info.covered : 0);
	set_u64(row, "database_patterns", info.rules);
	set_u64(row, "generation", info.generation);
	set_u64(row, "bytes", info.bytes);
	set_u64(row, "compile_ms", info.compile_ms);
	return row;
}

json_t *ctl_show_matcher(struct ctl_control *c, const struct ctl_vhost *v)
{
	json_t *rows = json_array();

	for (uint32_t i = 0; i < c->rib.limits.exchanges_max; i++) {
		const struct ctl_exchange *x = c->rib.exchange[i];

		if (x != NULL && (v == NULL || x->vhost == v) && (x->type == AMQP_TOPIC || x->type == AMQP_HEADERS))
			json_array_append_new(rows, matcher_row(c, x));
	}
	return json_pack("{s:o}", "rows", rows);
}
