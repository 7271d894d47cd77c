/*
 * lwip_sim.c - the stack against lwIP over the simulated network: each seed is one world, run until everything is closed.
 *
 * Owns: the worlds. Side 0 is the stack, side 1 lwIP; either opens, either closes first, both streams are compared byte by byte,
 *       tcps_check() looks at the stack after every step, and at the end both sides are empty within a bound of virtual time.
 * Core: tests only. Every seed runs in a child process of its own, since lwIP's state is global and cannot be taken down.
 * Spec: RFC 9293 as two programs that share no line read it.
 */
#include "tests/sim/lwip_host.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define OURS         0u
#define LWIP         1u
#define PAIRS_MAX    4u
#define FIRST_PORT   2000u /* of the side that opens; one for each pair */
#define SERVER_PORT  5672u
#define BOUND_NS     (3600ull * 1000000000ull) /* virtual: what has not ended by then has stalled */
#define PATIENCE_NS  (900ull * 1000000000ull)
#define STEPS_MAX    1000000u
#define SEED_SECONDS 60u /* of real time: for a child that spins */
#define MS           1000000ull

struct world {
	struct net *net;
	struct host host;
	struct app ours[PAIRS_MAX];
	struct lwip_end theirs[PAIRS_MAX];
	uint64_t connect_at_ns[PAIRS_MAX]; /* 0: opened */
	unsigned pair_count;
	uint32_t refs_out;
	uint64_t start_ns, now_ns, steps;
	uint64_t trouble_at_ns, trouble_until_ns;
	char why[256];
};

/* What the children add up for --verbose. */
struct totals {
	uint64_t steps, bytes, pairs, unfinished, counters[TCPS_CNT_COUNT];
	double virtual_s;
};

static struct world world;
static struct totals *totals;
static bool verbose, trace;

static unsigned pair_of(uint16_t port)
{
	return port - FIRST_PORT;
}

struct app *app_for(struct host *h, uint16_t peer_port)
{
	unsigned i = pair_of(peer_port);
	(void)h;
	return i < world.pair_count && world.ours[i].server ? &world.ours[i] : NULL;
}

struct lwip_end *lwip_end_for(uint16_t peer_port)
{
	unsigned i = pair_of(peer_port);
	return i < world.pair_count && world.theirs[i].app.server ? &world.theirs[i] : NULL;
}

static uint32_t chance_up_to(struct net *n, uint32_t most)
{
	return net_chance(n, 4000) ? 0 : (uint32_t)net_spread(n, 0, most);
}

static void set_up_wires(struct world *w)
{
	struct net *n = w->net;
	for (unsigned side = 0; side < 2; side++) {
		struct net_params p = {.drop = chance_up_to(n, 500),
				       .duplicate = chance_up_to(n, 500),
				       .reorder = chance_up_to(n, 2500),
				       .corrupt = chance_up_to(n, 200),
				       .delay_min_ns = net_spread(n, 1000, 50 * MS),
				       .reorder_extra_ns = net_spread(n, 1000, 100 * MS)};
		p.delay_max_ns = p.delay_min_ns + net_spread(n, 0, 20 * MS);
		if (net_chance(n, 3000))
			p.bytes_per_second = net_spread(n, 100000, 100000000);
		if (net_chance(n, 3000))
			p.queue_max = (uint32_t)net_spread(n, 8, 64);
		net_set(n, side, &p);
	}
}

static void vary_config(struct net *n, struct tcps_config *cfg)
{
	static const uint16_t mtus[] = {576, 1280, 1500, 1500, 4000};
	memset(cfg->ipv6, 0, sizeof(cfg->ipv6));
	cfg->cc = net_chance(n, 5000) ? TCPS_CC_CUBIC : TCPS_CC_NEWRENO;
	cfg->no_sack = net_chance(n, 3000);
	cfg->syn_cookies = net_chance(n, 5000);
	if (net_chance(n, 2000))
		cfg->half_open_max = 1;
	cfg->mtu = mtus[net_below(n, 5)];
	cfg->recv_window_bytes = (uint32_t)net_spread(n, 2048, 300000);
	cfg->send_high_water_bytes = (uint32_t)net_spread(n, 1000, 200000);
	cfg->blocks_max = (uint32_t)net_spread(n, 24, 400);
	cfg->rto_min_ns = net_spread(n, 5 * MS, 500 * MS);
	cfg->rto_max_ns = net_spread(n, 8000 * MS, 60000 * MS);
	cfg->delayed_ack_ns = net_chance(n, 2000) ? 0 : net_spread(n, MS, 200 * MS);
	/* On at both ends, since the reset of an abort may get lost; ten probes without a word end a connection. */
	cfg->keepalive_ns = net_spread(n, 20000 * MS, 120000 * MS);
	cfg->tx_ip_cksum_offload = net_chance(n, 3000);
	cfg->tx_tcp_cksum_offload = net_chance(n, 3000);
	for (unsigned i = 0; i < 16; i++)
		cfg->secret[i] = (uint8_t)net_random(n);
}

/* Sizes and turns; the two ends agree about both. */
static void set_up_streams(struct net *n, struct app *opener, struct app *server)
{
	enum app_style style = (enum app_style)net_below(n, APP_STYLES);
	uint64_t most = style == APP_SMALL ? 3000 : net_chance(n, 2000) ? 2000000 : 200000;
	opener->style = server->style = style;
	opener->send_total = 1 + net_below(n, most);
	server->send_total = net_chance(n, 2000) ? 0 : net_chance(n, 5000) ? net_spread(n, 1, most) : 1 + net_below(n, most);
	opener->chunk = net_spread(n, 1, 5000);
	if (style == APP_PINGPONG)
		server->send_total = opener->send_total = net_spread(n, 1, 100 * opener->chunk);
	/* Each order of closing; somebody has to begin. */
	uint64_t order = net_below(n, 3);
	opener->shut_after_eof = order == 1;
	server->shut_after_eof = order == 2;
}

static void set_up_pair(struct world *w, unsigned i)
{
	struct net *n = w->net;
	struct app *ends[2] = {&w->ours[i], &w->theirs[i].app};
	bool we_open = net_chance(n, 5000);
	for (unsigned side = 0; side < 2; side++) {
		*ends[side] = (struct app){.net = n, .peer = ends[!side], .id = 2 * i + side, .refs_out = &w->refs_out};
		ends[side]->server = we_open == (side != OURS);
		ends[side]->connects = !ends[side]->server;
		ends[side]->stall_chance = net_chance(n, 6000) ? 0 : (uint32_t)net_spread(n, 1, 3000);
		ends[side]->stall_max_ns = net_spread(n, MS, 4000 * MS);
	}
	ends[OURS]->host = &w->host;
	w->theirs[i].refuses = net_chance(n, 3000);
	w->theirs[i].nagle = net_chance(n, 5000);
	set_up_streams(n, ends[we_open ? OURS : LWIP], ends[we_open ? LWIP : OURS]);
	w->connect_at_ns[i] = w->now_ns + net_spread(n, 1, 2000 * MS);
	if (net_chance(n, 1000)) {
		struct app *a = ends[net_below(n, 2)];
		a->abort_at_ns = w->connect_at_ns[i] + net_spread(n, 1, 3000 * MS);
		a->abort_in_callback = net_chance(n, 3000);
	}
}

static void world_init(struct world *w, uint64_t seed)
{
	*w = (struct world){.net = net_new(seed)};
	if (w->net == NULL)
		abort();
	struct tcps_config cfg;
	host_config(&cfg, OURS);
	vary_config(w->net, &cfg);
	w->now_ns = w->start_ns = net_below(w->net, 1ull << 52); /* 2^32 ms lie within: lwIP's clock wraps in some worlds */
	if (net_chance(w->net, 500))
		w->now_ns = w->start_ns = ((1ull << 32) - net_below(w->net, 60000)) * MS;
	set_up_wires(w);
	host_init(&w->host, w->net, OURS, &cfg, &app_ops, w->start_ns);
	w->host.starve_chance = chance_up_to(w->net, 500);
	w->host.strip_wscale = net_chance(w->net, 1500);
	w->host.strip_mss = net_chance(w->net, 1000);
	tcps_listen(w->host.t, SERVER_PORT);
	lwip_host_start(w->net, LWIP, 1500, w->start_ns);
	lwip_host_listen(SERVER_PORT);
	w->pair_count = 1 + (unsigned)net_below(w->net, PAIRS_MAX);
	for (unsigned i = 0; i < w->pair_count; i++)
		set_up_pair(w, i);
	w->trouble_at_ns = net_chance(w->net, 6000) ? NET_NEVER : w->start_ns + net_spread(w->net, 1, 3000 * MS);
	w->trouble_until_ns = w->start_ns + 20000 * MS;
}

static bool fail(struct world *w, const char *what)
{
	if (w->why[0] == '\0')
		snprintf(w->why, sizeof(w->why), "%s (%.6f s after the start, step %" PRIu64 ")", what,
			 (double)(w->now_ns - w->start_ns) / 1e9, w->steps);
	return false;
}

/* The line goes dead for a while, in one direction or both. Shortly: lwIP gives a SYN up after six. */
static void trouble(struct world *w)
{
	uint64_t until = w->now_ns + net_spread(w->net, MS, 2000 * MS), which = net_below(w->net, 4);
	if (which == 3)
		w->host.starved_until_ns = until;
	for (unsigned side = 0; side < 2; side++) {
		if (which == side || which == 2)
			net_blackhole(w->net, side, until);
	}
	w->trouble_at_ns = until + net_spread(w->net, 1, 5000 * MS);
	if (w->trouble_at_ns > w->trouble_until_ns)
		w->trouble_at_ns = NET_NEVER;
}

static bool pair_closed(const struct world *w, unsigned i)
{
	const struct app *a = &w->ours[i], *b = &w->theirs[i].app;
	return w->connect_at_ns[i] == 0 && (a->closed || (a->server && !a->accepted)) && (b->closed || (b->server && !b->accepted));
}

/* A connection that nobody aborted carried both streams whole, unless its handshake never came through. */
static bool judge_pair(struct world *w, unsigned i)
{
	const struct app *a = &w->ours[i], *b = &w->theirs[i].app;
	totals->bytes += a->received + b->received;
	totals->pairs++;
	if (a->abort_wanted || b->abort_wanted || !a->accepted || !b->accepted) {
		totals->unfinished++;
		return true;
	}
	if (a->reason != TCPS_CLOSED_NORMALLY || b->reason != TCPS_CLOSED_NORMALLY) {
		char what[128];
		snprintf(what, sizeof(what), "pair %u ended otherwise than by FIN: ours %s, lwIP's %s", i,
			 tcps_reason_text(a->reason), tcps_reason_text(b->reason));
		return fail(w, what);
	}
	if (a->received != b->send_total || b->received != a->send_total || !a->eof || !b->eof)
		return fail(w, "a stream ended before its last byte");
	return true;
}

static void open_pair(struct world *w, unsigned i)
{
	uint16_t port = (uint16_t)(FIRST_PORT + i);
	w->connect_at_ns[i] = 0;
	if (w->ours[i].connects)
		w->ours[i].closed = !app_connect(&w->ours[i], port, SERVER_PORT, w->now_ns);
	else
		w->theirs[i].app.closed = !lwip_connect(&w->theirs[i], port, SERVER_PORT);
	if (w->ours[i].closed || w->theirs[i].app.closed)
		fail(w, "a connection could not be opened");
}

/* lwIP waits for ever in FIN_WAIT_2 for a peer that has gone: its application has enough after a while. */
static void give_up_on_gone(struct world *w, unsigned i)
{
	struct app *theirs = &w->theirs[i].app;
	if (w->ours[i].abort_wanted && theirs->open && !theirs->closed && theirs->abort_at_ns == 0) {
		theirs->abort_at_ns = w->now_ns + PATIENCE_NS;
		theirs->abort_in_callback = false;
	}
}

static uint64_t run_apps(struct world *w)
{
	uint64_t next = NET_NEVER;
	for (unsigned i = 0; i < w->pair_count; i++) {
		give_up_on_gone(w, i);
		if (w->connect_at_ns[i] != 0 && w->now_ns >= w->connect_at_ns[i])
			open_pair(w, i);
		uint64_t a = app_act(&w->ours[i], w->now_ns), b = lwip_act(&w->theirs[i], w->now_ns);
		next = a < next ? a : next;
		next = b < next ? b : next;
		if (w->connect_at_ns[i] != 0 && w->connect_at_ns[i] < next)
			next = w->connect_at_ns[i];
	}
	return next;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* One line a TCP segment, as it arrives: enough to follow a failing seed. */
static void trace_frame(const struct world *w, unsigned side, const uint8_t *frame, size_t len)
{
	if (len < 54 || frame[12] != 8 || frame[13] != 0 || frame[23] != 6)
		return;
	const uint8_t *tcp = frame + 34;
	unsigned total = (unsigned)(frame[16] << 8 | frame[17]), header = 20u + (tcp[12] >> 4) * 4u;
	printf("# %.6f to %s port %u>%u seq %" PRIu32 " ack %" PRIu32 " len %d wnd %u%s%s%s%s\n",
	       (double)(w->now_ns - w->start_ns) / 1e9, side == OURS ? "us  " : "lwIP", (unsigned)(tcp[0] << 8 | tcp[1]),
	       (unsigned)(tcp[2] << 8 | tcp[3]), be32(tcp + 4), be32(tcp + 8), (int)total - (int)header,
	       (unsigned)(tcp[14] << 8 | tcp[15]), tcp[13] & 2 ? " SYN" : "", tcp[13] & 1 ? " FIN" : "", tcp[13] & 4 ? " RST" : "",
	       tcp[13] & 16 ? "" : " noack");
}

static void receive_burst(struct world *w)
{
	uint8_t frame[NET_FRAME_MAX];
	for (unsigned n = 0; n < 32; n++) {
		unsigned side;
		size_t len = net_receive(w->net, w->now_ns, &side, frame);
		if (len == 0)
			return;
		if (trace)
			trace_frame(w, side, frame, len);
		if (side == LWIP) {
			lwip_host_input(frame, len, w->now_ns);
			continue;
		}
		uint8_t *exact = malloc(len); /* so that a sanitizer sees a read beyond the frame */
		if (exact == NULL)
			abort();
		memcpy(exact, frame, len);
		tcps_input(w->host.t, exact, len, 0, w->now_ns);
		free(exact);
	}
}

static bool all_closed(const struct world *w)
{
	for (unsigned i = 0; i < w->pair_count; i++) {
		if (!pair_closed(w, i))
			return false;
	}
	struct tcps_usage u;
	tcps_usage(w->host.t, &u);
	return u.conns + u.half_open + u.time_wait == 0 && lwip_host_idle();
}

static bool check(struct world *w)
{
	const char *why = tcps_check(w->host.t);
	if (why != NULL)
		return fail(w, why);
	for (unsigned i = 0; i < w->pair_count; i++) {
		if (w->ours[i].broken != NULL)
			return fail(w, w->ours[i].broken);
		if (w->theirs[i].app.broken != NULL)
			return fail(w, w->theirs[i].app.broken);
	}
	return w->why[0] == '\0';
}

static bool step(struct world *w)
{
	w->steps++;
	w->host.now_ns = w->now_ns;
	receive_burst(w);
	tcps_tick(w->host.t, w->now_ns);
	lwip_host_tick(w->now_ns);
	if (w->now_ns >= w->trouble_at_ns)
		trouble(w);
	uint64_t next = run_apps(w);
	tcps_flush(w->host.t, w->now_ns);
	if (!check(w))
		return false;
	const uint64_t others[] = {tcps_next_deadline(w->host.t), lwip_host_next_ns(), net_next_ns(w->net), w->trouble_at_ns};
	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		next = others[i] < next ? others[i] : next;
	w->now_ns = next > w->now_ns ? next : w->now_ns;
	if (w->now_ns - w->start_ns > BOUND_NS || w->steps > STEPS_MAX)
		return fail(w, "stalled: not everything is closed within the bound");
	return true;
}

static bool judge(struct world *w)
{
	for (unsigned i = 0; i < w->pair_count; i++) {
		if (!judge_pair(w, i))
			return false;
	}
	struct tcps_usage u;
	tcps_usage(w->host.t, &u);
	if (u.conns + u.half_open + u.time_wait + u.blocks_in_use + u.refs_in_use != 0)
		return fail(w, "a pool is not back at its baseline");
	return w->refs_out == 0 || fail(w, "a reference was never released");
}

static void print_end(const char *who, const struct app *a)
{
	printf("#   %s: sent %" PRIu64 " of %" PRIu64 ", received %" PRIu64 "%s%s%s%s%s\n", who, a->sent, a->send_total,
	       a->received, a->open ? ", open" : "", a->eof ? ", eof" : "", a->shut ? ", shut" : "", a->closed ? ", closed" : "",
	       a->resume_at_ns != 0 ? ", stopped" : "");
}

static void print_failure(const struct world *w, uint64_t seed)
{
	printf("# seed %" PRIu64 ": %s\n", seed, w->why);
	for (unsigned i = 0; i < w->pair_count; i++) {
		print_end("ours  ", &w->ours[i]);
		print_end("lwIP's", &w->theirs[i].app);
		lwip_print(&w->theirs[i]);
	}
}

/* Runs in a child: its whole lwIP goes with it. */
static bool run_seed(uint64_t seed)
{
	struct world *w = &world;
	world_init(w, seed);
	bool ok = true;
	while (ok && !all_closed(w))
		ok = step(w);
	ok = ok && judge(w);
	for (unsigned k = 0; k < TCPS_CNT_COUNT; k++)
		totals->counters[k] += tcps_counters(w->host.t)[k];
	totals->steps += w->steps;
	totals->virtual_s += (double)(w->now_ns - w->start_ns) / 1e9;
	if (!ok)
		print_failure(w, seed);
	host_fini(&w->host);
	net_free(w->net);
	return ok;
}

static bool run_child(uint64_t seed)
{
	fflush(stdout);
	pid_t child = fork();
	if (child < 0) {
		perror("# fork");
		return false;
	}
	if (child == 0) {
		alarm(SEED_SECONDS);
		bool ok = run_seed(seed);
		fflush(stdout);
		_exit(ok ? 0 : 1);
	}
	int status = 0;
	if (waitpid(child, &status, 0) != child)
		return false;
	bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (WIFSIGNALED(status))
		printf("# seed %" PRIu64 ": ended by %s\n", seed, strsignal(WTERMSIG(status)));
	if (!ok)
		printf("# replay: build/bin/lwip_sim --seed %" PRIu64 " --count 1\n", seed);
	return ok;
}

static void print_totals(void)
{
	printf("# %" PRIu64 " connections (%" PRIu64 " aborted or never open), %" PRIu64 " steps, %" PRIu64
	       " bytes delivered, %.0f s of virtual time\n",
	       totals->pairs, totals->unfinished, totals->steps, totals->bytes, totals->virtual_s);
	for (unsigned k = 0; k < TCPS_CNT_COUNT; k++) {
		if (totals->counters[k] != 0)
			printf("#   %-24s %" PRIu64 "\n", tcps_counter_name(k), totals->counters[k]);
	}
}

static int usage(int status)
{
	fprintf(status == 0 ? stdout : stderr, "usage: lwip_sim [--seed N] [--count N] [--verbose] [--keep-going] [--trace]\n");
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"count", required_argument, NULL, 'c'},
						{"verbose", no_argument, NULL, 'v'},
						{"keep-going", no_argument, NULL, 'k'},
						{"trace", no_argument, NULL, 't'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	uint64_t seed = 1, count = 1000, failed = 0, ran = 0;
	bool keep_going = false;
	int opt;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			count = strtoull(optarg, NULL, 0);
			break;
		case 'v':
			verbose = true;
			break;
		case 't':
			trace = true;
			break;
		case 'k':
			keep_going = true;
			break;
		case 'h':
			return usage(0);
		default:
			return usage(64);
		}
	}
	if (optind != argc)
		return usage(64);
	totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (totals == MAP_FAILED)
		return 71;
	printf("TAP version 13\n1..1\n");
	for (; ran < count && (failed == 0 || keep_going); ran++)
		failed += !run_child(seed + ran);
	if (verbose)
		print_totals();
	printf("%sok 1 - the stack and lwIP understand each other: %" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " failed\n",
	       failed == 0 ? "" : "not ", ran, seed, failed);
	return failed == 0 ? 0 : 1;
}
