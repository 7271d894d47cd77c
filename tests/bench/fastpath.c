/*
 * fastpath.c - what a tick costs the production worker from segment to segment, without I/O: cycles, and instructions under
 * callgrind.
 *
 * Owns: the options, the rounds and their medians, the table.
 * Core: a measuring aid; without arguments a test program that asserts no time: every subscriber gets every tick, in order.
 * Spec: tests/bench/README.md. Instructions of a delivery:
 *   valgrind --tool=callgrind --collect-atstart=no --toggle-collect=fastpath_counted --toggle-collect=fastpath_rx
 *            --toggle-collect=fastpath_tx build/bench/fastpath --count --subscribers 100 --burst 32 --ticks 640
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/fastpath.h"

#define ROUNDS_MAX  10001u
#define TURNS_ABOUT 4u
#define FEW_IDLE    10u
#define ROUND_SIZE  3200u /* deliveries; short, so that most rounds are not interrupted */

static const char *const exchange_name[] = {"topic", "direct", "fanout", "headers"};

struct plan {
	struct path_options path;
	uint32_t rounds, connections;
	uint64_t ticks; /* a round */
	bool count, to_nobody, stalled, hugepages;
};

/* ---- medians ---- */

struct series {
	double value[ROUNDS_MAX];
	uint32_t count;
};

static void add(struct series *s, double over, double under)
{
	if (under != 0 && s->count < ROUNDS_MAX)
		s->value[s->count++] = over / under;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double part(struct series *s, uint32_t over, uint32_t under)
{
	if (s->count == 0)
		return 0;
	qsort(s->value, s->count, sizeof s->value[0], ascending);
	return s->value[s->count * over / under];
}

static double median(struct series *s)
{
	return part(s, 1, 2);
}

/* What the machine does in the tenth of the rounds that others left it most alone in. */
static double quiet(struct series *s)
{
	return part(s, 1, 10);
}

/* ---- the measurement ---- */

struct figures {
	struct series delivery, tick, publish;       /* whole turns, per delivery, per tick; a tick that goes to nobody */
	struct series receive, segments, rest, acks; /* per delivery: of the turns with ticks, and the other turns */
	struct series parse, route, render, skew, out, in, turns; /* of a burst's first tick, and frames per delivery */
};

static bool measure_round(struct path *p, const struct plan *plan, struct figures *f)
{
	uint64_t bursts = plan->ticks / plan->path.burst;
	bool cached = plan->path.exchange == FAR_TOPIC || plan->path.exchange == FAR_DIRECT;
	struct path_cost c, s, n;

	if (!path_run(p, bursts, false, false, &c) || !path_run(p, bursts, false, true, &s))
		return false;
	add(&f->delivery, (double)c.cycles, (double)c.deliveries);
	add(&f->tick, (double)c.cycles, (double)c.ticks);
	add(&f->acks, (double)(c.cycles - c.tick_cycles), (double)c.deliveries);
	add(&f->skew, (double)c.skew_cycles, (double)c.skew_bursts);
	add(&f->out, (double)c.frames_out, (double)c.deliveries);
	add(&f->in, (double)c.frames_in, (double)c.deliveries);
	add(&f->turns, (double)c.turns, (double)c.ticks);
	add(&f->receive, (double)s.receive_cycles, (double)s.deliveries);
	add(&f->segments, (double)s.flush_cycles, (double)s.deliveries);
	add(&f->rest, (double)(s.tick_cycles - s.receive_cycles - s.flush_cycles), (double)s.deliveries);
	add(&f->parse, (double)s.parse_cycles, (double)s.samples);
	add(&f->route, (double)s.route_cycles, (double)s.samples);
	add(&f->render, (double)s.render_cycles, (double)s.samples);
	if (!cached)
		return true;
	if (!path_run(p, bursts, true, false, &n))
		return false;
	add(&f->publish, (double)n.cycles, (double)n.ticks);
	return true;
}

static bool measure(struct path *p, const struct plan *plan, struct figures *f)
{
	for (uint32_t i = 0; i < plan->rounds; i++) {
		if (!measure_round(p, plan, f))
			return false;
	}
	return true;
}

static void line(const char *what, struct series *s, double under)
{
	printf("  %-54s %10.1f %10.1f\n", what, median(s) / under, quiet(s) / under);
}

static void tell_json(const struct plan *plan, bool stalled, uint32_t idle, struct figures *f)
{
	const struct path_options *o = &plan->path;
	struct {
		const char *name;
		struct series *s;
	} all[] = {
		{"delivery", &f->delivery}, {"receive", &f->receive}, {"segments", &f->segments},  {"rest", &f->rest},
		{"acks", &f->acks},         {"tick", &f->tick},       {"rx_to_parsed", &f->parse}, {"parsed_to_routed", &f->route},
		{"rendered", &f->render},   {"publish", &f->publish}, {"skew", &f->skew}};

	printf("fastpath {\"subscribers\": %u, \"idle\": %u, \"burst\": %u, \"bytes\": %u, \"exchange\": \"%s\", \"acks\": %u, "
	       "\"offload\": %d, \"split\": %d, \"stalled\": %d, \"rounds\": %u, \"frames_out\": %.3f, \"frames_in\": %.3f",
	       o->subscribers, idle, o->burst, o->bytes, exchange_name[o->exchange], o->acks, o->offload, o->split, stalled,
	       f->delivery.count, median(&f->out), median(&f->in));
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		printf(", \"%s\": [%.1f, %.1f]", all[i].name, median(all[i].s), quiet(all[i].s));
	printf("}\n");
}

static void tell(const struct plan *plan, bool stalled, uint32_t idle, struct figures *f)
{
	const struct path_options *o = &plan->path;

	printf("1 to %u%s, %s, %u octets, bursts of %u%s, %s, checksums by the %s%s, %u idle connections\n", o->subscribers,
	       stalled ? ", one of them stalled" : "", exchange_name[o->exchange], o->bytes, o->burst,
	       o->split ? " in segments of one" : "", o->acks != 0 ? "acknowledged" : "no-ack", o->offload ? "port" : "stack",
	       plan->hugepages ? ", hugepages" : "", idle);
	printf("  %-54s %10s %10s\n", "cycles; of the rounds", "median", "best tenth");
	line("a delivery, all turns", &f->delivery, 1);
	line("  receive, parse, route, enqueue, render", &f->receive, 1);
	line("  segments (flush)", &f->segments, 1);
	line("  transmit, statistics, the loop", &f->rest, 1);
	line("  turns that bring ACKs alone", &f->acks, 1);
	line("a tick, all turns", &f->tick, 1);
	line("first tick of a burst: rx to parsed", &f->parse, 1);
	line("  parsed to routed", &f->route, 1);
	line("  routed to rendered, a delivery", &f->render, o->subscribers);
	if (f->publish.count != 0)
		line("a publish that is bound nowhere (parse, copy, route)", &f->publish, 1);
	line("skew, first to last subscriber of a tick", &f->skew, 1);
	printf("  %-54s %10.2f\n  %-54s %10.2f\n", "frames out a delivery", median(&f->out), "frames in a delivery",
	       median(&f->in));
	tell_json(plan, stalled, idle, f);
}

static int broken(const struct path *p)
{
	fprintf(stderr, "fastpath: %s\n", path_why(p));
	return 1;
}

/* Turn and turn about with and without, for the machine is not the same from one second to the next. */
static int measure_stalled(struct path *p, const struct plan *plan)
{
	static struct figures with, without;

	for (unsigned i = 0; i < TURNS_ABOUT; i++) {
		if (!measure(p, plan, &without) || !path_stall(p, true) || !measure(p, plan, &with) || !path_stall(p, false))
			return broken(p);
	}
	tell(plan, false, plan->path.idle, &without);
	tell(plan, true, plan->path.idle, &with);
	printf("one of %u stalled: a delivery to the others costs %.3f (best tenth %.3f) of what it costs without\n",
	       plan->path.subscribers, median(&with.delivery) / median(&without.delivery),
	       quiet(&with.delivery) / quiet(&without.delivery));
	return 0;
}

/* With few idle connections beside those that have ticks, and with as many as are asked for. */
static int measure_idle(struct path *p, const struct plan *plan)
{
	static struct figures few, many;

	if (!measure(p, plan, &few) || !path_more_idle(p, plan->connections - plan->path.idle) || !measure(p, plan, &many))
		return broken(p);
	tell(plan, false, plan->path.idle, &few);
	tell(plan, false, plan->connections, &many);
	printf("%u idle connections: a tick costs %.3f (best tenth %.3f) of what it costs with %u\n", plan->connections,
	       median(&many.tick) / median(&few.tick), quiet(&many.tick) / quiet(&few.tick), plan->path.idle);
	return 0;
}

static int measure_plain(struct path *p, const struct plan *plan)
{
	static struct figures f;
	struct far_fairness fair;

	if (!measure(p, plan, &f))
		return broken(p);
	path_fairness(p, &fair);
	if (plan->path.subscribers > 1)
		printf("first tick of %u bursts: who was first most often was so %.2f times as often as an even share, who was "
		       "last %.2f times\n",
		       fair.bursts, fair.first, fair.last);
	tell(plan, false, plan->path.idle, &f);
	return 0;
}

static int count(struct path *p, const struct plan *plan)
{
	struct path_cost c;

	if (plan->stalled && !path_stall(p, true))
		return broken(p);
	if (!path_run_counted(p, plan->ticks / plan->path.burst, plan->to_nobody, &c))
		return broken(p);
	printf("%llu ticks, %llu deliveries, %llu turns, %llu frames in, %llu out\n", (unsigned long long)c.ticks,
	       (unsigned long long)c.deliveries, (unsigned long long)c.turns, (unsigned long long)c.frames_in,
	       (unsigned long long)c.frames_out);
	return 0;
}

static int work(struct plan *plan)
{
	uint32_t later = plan->connections - plan->path.idle;
	char err[512];
	struct path *p;
	int status;

	p = path_new(&plan->path, later, err, sizeof err);
	if (p == NULL) {
		fprintf(stderr, "fastpath: %s\n", err);
		return 1;
	}
	if (plan->count)
		status = count(p, plan);
	else if (plan->stalled)
		status = measure_stalled(p, plan);
	else if (later != 0)
		status = measure_idle(p, plan);
	else
		status = measure_plain(p, plan);
	if (status == 0 && !path_check(p))
		status = broken(p);
	path_free(p);
	return status;
}

/* ---- the test: small worlds, in which every subscriber gets every tick in order ---- */

static bool test_world(const struct path_options *o, bool stall, char *err, size_t err_bytes)
{
	struct path *p = path_new(o, 8, err, err_bytes);
	struct path_cost c;
	bool ok;

	if (p == NULL)
		return false;
	ok = path_run(p, 16, false, true, &c) && c.deliveries == 16ull * o->burst * o->subscribers && c.samples == 16;
	ok = ok && path_more_idle(p, 8) && path_run_counted(p, 16, false, &c) && c.ticks == 16ull * o->burst;
	if (stall) /* the one that is stalled gets nothing, and the others all */
		ok = ok && path_stall(p, true) && path_run(p, 16, false, false, &c) &&
		     c.deliveries == 16ull * o->burst * (o->subscribers - 1) && path_stall(p, false);
	else if (o->exchange == FAR_TOPIC)
		ok = ok && path_run(p, 4, true, false, &c) && c.deliveries == 0 && c.ticks == 4ull * o->burst;
	ok = ok && path_check(p);
	snprintf(err, err_bytes, "%s", path_why(p)[0] != '\0' || ok ? path_why(p) : "a count is wrong");
	path_free(p);
	return ok;
}

static int test(void)
{
	static const struct {
		const char *what;
		struct path_options o;
		bool stall;
	} worlds[] = {
		{"single ticks to ten over a topic exchange", {10, 2, 1, 64, 0, FAR_TOPIC, true, false}, false},
		{"bursts to fifty over a fanout exchange, checksums by the stack",
		 {50, 0, 32, 64, 0, FAR_FANOUT, false, false},
		 false},
		{"bursts in single segments, direct, acknowledged one by one", {5, 0, 32, 64, 1, FAR_DIRECT, true, true}, false},
		{"headers, acknowledged many at a time", {5, 0, 8, 64, 16, FAR_HEADERS, true, false}, false},
		{"bodies that go by reference", {3, 0, 4, 20000, 0, FAR_TOPIC, false, false}, false},
		{"one of ten stalls, and goes on", {10, 0, 32, 64, 0, FAR_TOPIC, true, false}, true},
	};
	unsigned count_all = sizeof worlds / sizeof worlds[0], bad = 0;
	char err[512] = "";

	printf("1..%u\n", count_all);
	for (unsigned i = 0; i < count_all; i++) {
		bool ok = test_world(&worlds[i].o, worlds[i].stall, err, sizeof err);

		printf("%sok %u - %s\n", ok ? "" : "not ", i + 1, worlds[i].what);
		if (!ok)
			printf("# %s\n", err);
		bad += !ok;
	}
	return bad == 0 ? 0 : 1;
}

/* ---- options ---- */

static int usage(void)
{
	fputs("usage: fastpath [--subscribers N] [--burst N] [--bytes N] [--ticks N] [--rounds N] [--exchange topic|direct|fanout|"
	      "headers]\n"
	      "       [--acks N] [--no-offload] [--split] [--stalled | --connections N] [--hugepages] [--count [--nobody]]\n"
	      "Without arguments: a test of the harness itself.\n",
	      stderr);
	return 64;
}

static bool sensible(const struct plan *p)
{
	const struct path_options *o = &p->path;

	return o->subscribers >= 1 && o->subscribers <= 2000 && o->burst >= 1 && o->burst <= 1024 && o->bytes >= 8 &&
	       o->bytes <= 65536 && p->rounds >= 1 && p->rounds <= ROUNDS_MAX / TURNS_ABOUT && p->connections <= 12000 &&
	       (!p->stalled || o->subscribers > 1) && (!p->to_nobody || o->exchange == FAR_TOPIC || o->exchange == FAR_DIRECT);
}

static bool parse(struct plan *p, int argc, char **argv)
{
	static const struct option options[] = {
		{"subscribers", 1, NULL, 's'}, {"burst", 1, NULL, 'b'},
		{"bytes", 1, NULL, 'y'},       {"ticks", 1, NULL, 't'},
		{"rounds", 1, NULL, 'r'},      {"exchange", 1, NULL, 'e'},
		{"acks", 1, NULL, 'a'},        {"no-offload", 0, NULL, 'n'},
		{"split", 0, NULL, 'p'},       {"stalled", 0, NULL, 'd'},
		{"connections", 1, NULL, 'c'}, {"hugepages", 0, NULL, 'h'},
		{"count", 0, NULL, 'i'},       {"nobody", 0, NULL, 'v'},
		{"offload", 0, NULL, 'o'},     {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint32_t n = optarg != NULL ? (uint32_t)strtoul(optarg, NULL, 10) : 0;

		switch (c) {
		case 's':
			p->path.subscribers = n;
			break;
		case 'b':
			p->path.burst = n;
			break;
		case 'y':
			p->path.bytes = n;
			break;
		case 't':
			p->ticks = n;
			break;
		case 'r':
			p->rounds = n;
			break;
		case 'e':
			for (n = 0; n < 4 && strcmp(optarg, exchange_name[n]) != 0;)
				n++;
			if (n == 4)
				return false;
			p->path.exchange = (enum far_exchange)n;
			break;
		case 'a':
			p->path.acks = n;
			break;
		case 'n':
			p->path.offload = false;
			break;
		case 'o':
			p->path.offload = true;
			break;
		case 'p':
			p->path.split = true;
			break;
		case 'd':
			p->stalled = true;
			break;
		case 'c':
			p->connections = n;
			break;
		case 'h':
			p->hugepages = true;
			break;
		case 'i':
			p->count = true;
			break;
		case 'v':
			p->to_nobody = true;
			break;
		default:
			return false;
		}
	}
	return optind == argc && sensible(p);
}

int main(int argc, char **argv)
{
	struct plan plan = {.path = {.subscribers = 100, .burst = 32, .bytes = 64, .offload = true}, .rounds = 101};
	char err[512];
	int status;

	if (!parse(&plan, argc, argv))
		return usage();
	plan.path.idle = plan.count || plan.connections < FEW_IDLE ? plan.connections : FEW_IDLE;
	if (plan.ticks == 0)
		plan.ticks = ROUND_SIZE / plan.path.subscribers;
	/* An even number of bursts: an ACK comes for every second segment. */
	plan.ticks = (plan.ticks / (2 * plan.path.burst) + (plan.ticks < 2 * plan.path.burst)) * (2 * plan.path.burst);
	if (!path_start_eal(argv[0], plan.hugepages, err, sizeof err)) {
		fprintf(stderr, "fastpath: %s\n", err);
		return 69;
	}
	status = argc == 1 ? test() : work(&plan);
	path_stop_eal();
	return status;
}
