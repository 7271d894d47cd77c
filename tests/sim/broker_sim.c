/*
 * broker_sim.c - the whole broker but for DPDK, against AMQP clients, over the simulated network: each seed is one world.
 *
 * Owns: the worlds. TCP stack, AMQP machine, matcher with compiled databases, and the RIB with delays, full rings and kills; after
 * the steps the invariants of each are checked, and at the end every message has come and every pool is back at its baseline.
 * Core: tests only.
 * Spec: tests/sim/README.md says what the seeds vary.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/broker_client.h"
#include "tests/sim/broker_control.h"

#define MS          1000000ull
#define BOUND_NS    (3600ull * 1000000000ull)
#define STEPS_MAX   2000000u
#define CHECK_EVERY 16u

/* One machine; all workers' connections come over one stack, as if the port steered as the dice fall. */
struct worker {
	struct amqp_broker *broker;
	void *mem, *mail;
	size_t bytes;
	uint64_t asleep_until_ns; /* it does not turn until then: what the others leave for it waits */
};

struct world {
	struct net *net;
	struct host server;
	struct clients clients;
	struct control control;
	struct worker worker[AMQP_WORKERS_MAX];
	uint32_t workers_count;
	void *aborting; /* AMQP connection that the broker itself resets: it has forgotten it already */
	uint64_t start_ns, now_ns, steps, next_kill_ns, back_ns, next_compile_ns, trouble_ns, refs_lent;
	uint32_t kills_left;
	char why[256];
};

static struct world world;
static bool verbose;
static uint32_t workers_wanted; /* 0: by seed */
static uint64_t notes;
static struct {
	uint64_t due, duplicates, aborts, kills, compiled, dropped;
} sum;

/* ---- the seams between TCP and AMQP, as the dataplane has them ---- */

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)ctx;
	return amqp_conn_accept(world.worker[net_below(world.net, world.workers_count)].broker, conn, "198.18.0.2", peer->port,
				local_port);
}

static void on_connected(void *user)
{
	(void)user;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	return amqp_conn_input(user, data, len);
}

static void on_eof(void *user)
{
	amqp_conn_eof(user);
}

static void on_writable(void *user)
{
	amqp_conn_writable(user);
}

static void on_closed(void *user, enum tcps_reason reason)
{
	(void)reason;
	if (user != world.aborting)
		amqp_conn_closed(user);
}

/* Whose memory that is. */
static struct amqp_broker *broker_of(const void *owner)
{
	for (uint32_t w = 0; w < world.workers_count; w++) {
		const struct worker *k = &world.worker[w];

		if ((const uint8_t *)owner >= (const uint8_t *)k->mem &&
		    (const uint8_t *)owner < (const uint8_t *)k->mem + k->bytes)
			return k->broker;
	}
	abort();
}

static void release(void *ctx, void *owner)
{
	(void)ctx;
	world.refs_lent--;
	amqp_release(broker_of(owner), owner);
}

static void hold(void *ctx, void *owner)
{
	(void)ctx;
	world.refs_lent++;
	amqp_hold(broker_of(owner), owner);
}

static uint8_t *io_reserve(void *io, size_t len)
{
	return tcps_reserve(io, len);
}

static void io_commit(void *io, size_t len)
{
	tcps_commit(io, len);
}

static bool io_send(void *io, const void *data, size_t len)
{
	return tcps_send(io, data, len);
}

static bool io_send_ref(void *io, const void *data, size_t len, void *owner)
{
	if (!tcps_send_ref(io, data, len, owner))
		return false;
	world.refs_lent++;
	return true;
}

static bool io_has_room(void *io, size_t bytes, size_t refs)
{
	return tcps_has_room(io, bytes, refs);
}

static bool io_writable(void *io)
{
	return tcps_writable(io);
}

static void io_admitted(void *io)
{
	tcps_recv_limit(io, SIZE_MAX);
}

static void io_resume(void *io)
{
	tcps_resume(io);
}

static void io_shutdown(void *io)
{
	tcps_shutdown(io);
}

static void io_abort(void *io)
{
	void *outer = world.aborting;

	world.aborting = tcps_user(io);
	tcps_abort(io);
	world.aborting = outer;
}

static bool on_request(void *ctx, const struct amqp_record *rec)
{
	return control_request(&world.control, (uint32_t)((struct worker *)ctx - world.worker), rec);
}

/* ---- a world ---- */

static uint32_t chance_up_to(uint32_t most)
{
	return net_chance(world.net, 5000) ? 0 : (uint32_t)net_spread(world.net, 0, most);
}

static void set_up_wires(struct world *w)
{
	for (unsigned side = 0; side < 2; side++) {
		struct net_params p = {.drop = chance_up_to(500),
				       .duplicate = chance_up_to(300),
				       .reorder = chance_up_to(1000),
				       .corrupt = chance_up_to(200),
				       .delay_min_ns = net_spread(w->net, 1000, 20 * MS),
				       .reorder_extra_ns = net_spread(w->net, 1000, 20 * MS)};

		p.delay_max_ns = p.delay_min_ns + net_spread(w->net, 0, 5 * MS);
		net_set(w->net, side, &p);
	}
}

static void *zeroed(size_t bytes)
{
	void *mem = aligned_alloc(64, (bytes + 63) / 64 * 64);

	if (mem == NULL)
		abort();
	memset(mem, 0, bytes);
	return mem;
}

static void make_worker(struct world *w, uint32_t idx, struct amqp_limits *l)
{
	static const struct amqp_ops ops = {.reserve = io_reserve,
					    .commit = io_commit,
					    .send = io_send,
					    .send_ref = io_send_ref,
					    .has_room = io_has_room,
					    .writable = io_writable,
					    .admitted = io_admitted,
					    .resume = io_resume,
					    .shutdown = io_shutdown,
					    .abort = io_abort,
					    .request = on_request};
	struct worker *k = &w->worker[idx];
	const char *err = NULL;

	l->worker_idx = (uint8_t)idx;
	k->bytes = amqp_broker_bytes(l);
	k->mem = zeroed(k->bytes);
	if (w->workers_count > 1)
		k->mail = zeroed(amqp_mail_bytes(l));
	k->broker = amqp_broker_init(k->mem, k->bytes, l, &ops, k, &err);
	if (k->broker == NULL) {
		fprintf(stderr, "Bail out! %s\n", err);
		exit(1);
	}
}

static void make_workers(struct world *w)
{
	struct amqp_limits l;
	void *mail[AMQP_WORKERS_MAX];

	amqp_limits_default(&l);
	w->workers_count = workers_wanted != 0 ? workers_wanted : net_chance(w->net, 3000) ? 1 : net_chance(w->net, 3000) ? 2 : 4;
	l.workers_count = (uint8_t)w->workers_count;
	l.mail_slots = net_chance(w->net, 5000) ? 2 : 64;
	l.conns_max = l.consumers_max = 12;
	l.channels_max = 24;
	l.exchanges_max = 32;
	l.queues_max = 16;
	l.bindings_max = 128;
	/* From plenty to the edge of exhaustion. */
	l.entries_max = net_chance(w->net, 5000) ? 8192 : (uint32_t)net_spread(w->net, 600, 4000);
	l.message_pool_bytes = net_chance(w->net, 5000) ? 8u << 20 : 1u << 20;
	l.message_bytes_max = 65536;
	l.routes_max = net_chance(w->net, 5000) ? 1024 : 8;
	l.route_queues_max = 256;
	l.route_cache_max = 64;
	l.rules_max = 128;
	l.rule_nodes_max = 4096;
	l.rule_key_bytes_max = 1u << 16;
	l.handshake_ns = l.control_wait_ns = 600 * 1000 * MS;
	for (uint32_t i = 0; i < w->workers_count; i++) {
		make_worker(w, i, &l);
		mail[i] = w->worker[i].mail;
	}
	for (uint32_t i = 0; i < w->workers_count; i++)
		amqp_mail_connect(w->worker[i].broker, mail);
	control_init(&w->control, w->net, &l);
	w->control.workers_count = w->workers_count;
	for (uint32_t i = 0; i < w->workers_count; i++)
		w->control.broker[i] = w->worker[i].broker;
	w->control.ring_max = net_chance(w->net, 3000) ? 2 : 64;
	w->control.delay_max_ns = net_spread(w->net, 1000, 50 * MS);
}

static void set_up(struct world *w, uint64_t seed)
{
	static const struct tcps_ops ops = {.on_accept = on_accept,
					    .on_connected = on_connected,
					    .on_data = on_data,
					    .on_eof = on_eof,
					    .on_writable = on_writable,
					    .on_closed = on_closed,
					    .release = release,
					    .hold = hold};
	struct tcps_config cfg;

	*w = (struct world){.net = net_new(seed)};
	w->now_ns = w->start_ns = 1000 * MS + net_spread(w->net, 0, 1ull << 40);
	set_up_wires(w);
	host_config(&cfg, 0);
	cfg.msl_ns = 1000 * MS;
	cfg.retransmits_max = 30;
	cfg.blocks_max = net_chance(w->net, 5000) ? 2048 : (uint32_t)net_spread(w->net, 64, 300);
	cfg.recv_window_bytes = (uint32_t)net_spread(w->net, 3000, 65535);
	cfg.send_high_water_bytes = (uint32_t)net_spread(w->net, 2000, 200000);
	cfg.tx_pieces_max = seed % 2 == 0 ? 6 : 0;
	host_init(&w->server, w->net, 0, &cfg, &ops, w->now_ns);
	w->server.ring_hold_ns = seed % 4 == 0 ? 2000 * MS : 0;
	w->server.app = w;
	w->server.starve_chance = chance_up_to(300);
	make_workers(w);
	for (uint32_t i = 0; i < w->workers_count; i++)
		amqp_set_now(w->worker[i].broker, w->now_ns, w->now_ns / 1000000000u);
	control_start(&w->control, w->now_ns);
	clients_init(&w->clients, w->net, w->now_ns);
	if (!tcps_listen(w->server.t, 5672))
		abort();
	w->kills_left = (uint32_t)net_below(w->net, 4);
	w->next_kill_ns = w->now_ns + net_spread(w->net, MS, 3000 * MS);
	w->next_compile_ns = net_chance(w->net, 7000) ? UINT64_MAX : w->now_ns + net_spread(w->net, MS, 500 * MS);
	w->trouble_ns = w->now_ns + net_spread(w->net, MS, 5000 * MS);
}

static bool broken(struct world *w, const char *who, const char *what)
{
	if (what == NULL || what[0] == '\0')
		return false;
	snprintf(w->why, sizeof w->why, "%s: %s", who, what);
	return true;
}

static bool check(struct world *w, bool all)
{
	if (broken(w, "control", w->control.why) || broken(w, "clients", w->clients.why))
		return false;
	if (!all)
		return true;
	for (uint32_t i = 0; i < w->workers_count; i++)
		if (broken(w, "broker", amqp_check(w->worker[i].broker)))
			return false;
	return !broken(w, "server's TCP", tcps_check(w->server.t)) && !broken(w, "clients' TCP", tcps_check(w->clients.host.t)) &&
	       !(w->control.up && !w->control.syncing && broken(w, "RIB", ctl_rib_check(&w->control.rib)));
}

static void upset(struct world *w)
{
	if (w->control.up && w->kills_left > 0 && w->now_ns >= w->next_kill_ns) {
		w->kills_left--;
		control_kill(&w->control);
		w->back_ns = w->now_ns + net_spread(w->net, MS, 2000 * MS);
	} else if (!w->control.up && w->now_ns >= w->back_ns) {
		control_start(&w->control, w->now_ns);
		w->next_kill_ns = w->now_ns + net_spread(w->net, MS, 3000 * MS);
	}
	if (w->now_ns >= w->next_compile_ns) {
		control_compile(&w->control, net_chance(w->net, 5000) ? "sim.topic" : "sim.headers");
		w->next_compile_ns = w->now_ns + net_spread(w->net, 10 * MS, 3000 * MS);
	}
	if (w->now_ns >= w->trouble_ns && !w->clients.closing) {
		if (net_chance(w->net, 3000))
			w->server.starved_until_ns = w->now_ns + net_spread(w->net, MS, 500 * MS);
		else if (net_chance(w->net, 3000))
			net_blackhole(w->net, (unsigned)net_below(w->net, 2), w->now_ns + net_spread(w->net, MS, 2000 * MS));
		w->trouble_ns = w->now_ns + net_spread(w->net, 100 * MS, 20000 * MS);
	}
}

static void receive_burst(struct world *w)
{
	uint8_t frame[NET_FRAME_MAX];

	for (unsigned n = 0; n < 32; n++) {
		unsigned side;
		size_t len = net_receive(w->net, w->now_ns, &side, frame);

		if (len == 0)
			return;
		tcps_input(side == 0 ? w->server.t : w->clients.host.t, frame, len, 0, w->now_ns);
	}
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* A worker's part of a turn; some are late, so that rings fill up and notes are taken one by one. */
static void turn(struct world *w, uint32_t idx)
{
	struct worker *k = &w->worker[idx];

	if (w->workers_count > 1 && w->now_ns >= k->asleep_until_ns && net_chance(w->net, 300))
		k->asleep_until_ns = w->now_ns + net_spread(w->net, 1000, 5 * MS);
	if (w->now_ns >= k->asleep_until_ns)
		notes += amqp_mail_poll(k->broker, (uint32_t)net_spread(w->net, 1, 64));
	amqp_tick(k->broker);
	amqp_burst_end(k->broker);
}

/* One turn of the worker's loop and of everybody else; returns false when something is broken. */
static bool step(struct world *w)
{
	uint64_t next;

	w->steps++;
	w->server.now_ns = w->clients.host.now_ns = w->clients.now_ns = w->now_ns;
	for (uint32_t i = 0; i < w->workers_count; i++)
		amqp_set_now(w->worker[i].broker, w->now_ns, w->now_ns / 1000000000u);
	receive_burst(w);
	if (w->control.up)
		control_step(&w->control, w->now_ns);
	upset(w);
	tcps_tick(w->server.t, w->now_ns);
	tcps_tick(w->clients.host.t, w->now_ns);
	for (uint32_t i = 0; i < w->workers_count; i++)
		turn(w, i);
	next = clients_act(&w->clients, w->now_ns);
	tcps_flush(w->server.t, w->now_ns);
	tcps_flush(w->clients.host.t, w->now_ns);
	if (!check(w, w->steps % CHECK_EVERY == 0))
		return false;
	next = earlier(next, net_next_ns(w->net));
	next = earlier(next, earlier(tcps_next_deadline(w->server.t), tcps_next_deadline(w->clients.host.t)));
	next = earlier(next, earlier(w->control.up ? control_next_ns(&w->control) : w->back_ns, w->now_ns + 10 * MS));
	w->now_ns = next > w->now_ns ? next : w->now_ns + 1000;
	return true;
}

/* Who waits for what, when a world has stalled. */
static void tell_worker(const struct amqp_broker *b, uint32_t idx)
{
	struct amqp_row_queue row;
	struct amqp_mail_usage mail;

	amqp_mail_usage(b, &mail);
	printf("# worker %u: %" PRIu64 " notes on their way, %" PRIu64 " references lent\n", idx, mail.notes_pending,
	       mail.message_refs);
	for (uint32_t i = 0; i < amqp_rows_queues(b); i++) {
		if (amqp_row_queue(b, i, &row))
			printf("# queue %u: ready %" PRIu64 " unacknowledged %" PRIu64 " consumers %u\n", row.queue_id,
			       row.messages_ready, row.messages_unacknowledged, row.consumers);
	}
	for (unsigned i = 0; i < AMQP_CNT_COUNT; i++) {
		if (amqp_counters(b)[i] != 0)
			printf("# %s %" PRIu64 "\n", amqp_counter_name(i), amqp_counters(b)[i]);
	}
}

static void tell_state(struct world *w)
{
	struct tcps_conn_info info;

	for (unsigned i = 0; i < w->clients.count; i++) {
		const struct client *c = &w->clients.client[i];

		printf("# %s %u: state %d step %u published %u/%u confirmed %u tag %" PRIu64 " acked %" PRIu64
		       " prefetch %u%s, %zu bytes to send",
		       c->publisher ? "publisher" : "consumer", c->idx, c->state, c->step, c->published, c->to_publish,
		       c->confirmed, c->last_tag, c->acked_tag, c->prefetch, c->no_ack ? " no-ack" : "", c->out_len);
		if (c->conn != NULL) {
			tcps_info(c->conn, &info);
			printf(", %s unsent %u unacked %u window %u", info.state, info.unsent_bytes, info.unacked_bytes,
			       info.snd_wnd_bytes);
		}
		printf("\n");
	}
	for (uint32_t k = 0; k < w->workers_count; k++)
		tell_worker(w->worker[k].broker, k);
	for (unsigned i = 0; i < TCPS_CNT_COUNT; i++) {
		if (tcps_counters(w->server.t)[i] != 0)
			printf("# tcp %s %" PRIu64 "\n", tcps_counter_name(i), tcps_counters(w->server.t)[i]);
	}
	for (unsigned i = 0; i < TCPS_CNT_COUNT; i++) {
		if (tcps_counters(w->clients.host.t)[i] != 0)
			printf("# clients' tcp %s %" PRIu64 "\n", tcps_counter_name(i), tcps_counters(w->clients.host.t)[i]);
	}
}

static bool run_until(struct world *w, bool (*done)(struct world *), const char *what)
{
	while (!done(w)) {
		if (!step(w))
			return false;
		if (w->now_ns - w->start_ns > BOUND_NS || w->steps > STEPS_MAX) {
			snprintf(w->why, sizeof w->why, "stalled: %s; %" PRIu64 " of %" PRIu64 " messages came", what,
				 w->clients.came, w->clients.due);
			return false;
		}
	}
	return true;
}

static bool delivered(struct world *w)
{
	return clients_delivered(&w->clients);
}

static bool queues_empty(struct world *w)
{
	struct amqp_row_queue row;

	for (uint32_t k = 0; k < w->workers_count; k++)
		for (uint32_t i = 0; i < amqp_rows_queues(w->worker[k].broker); i++) {
			if (amqp_row_queue(w->worker[k].broker, i, &row) && row.messages_ready + row.messages_unacknowledged != 0)
				return false;
		}
	return true;
}

static bool worker_quiet(const struct amqp_broker *b)
{
	struct amqp_usage a;
	struct amqp_mail_usage mail;

	amqp_usage(b, &a);
	amqp_mail_usage(b, &mail);
	return a.conns == 0 && mail.notes_pending == 0;
}

static bool closed(struct world *w)
{
	struct tcps_usage u;

	tcps_usage(w->server.t, &u);
	for (uint32_t i = 0; i < w->workers_count; i++)
		if (!worker_quiet(w->worker[i].broker))
			return false;
	return clients_done(&w->clients) && u.conns + u.half_open + u.time_wait == 0 && w->control.up && !w->control.syncing &&
	       control_quiet(&w->control);
}

/* What the port's ring let go of last is still to be given back to the worker that it is of. */
static bool given_back(struct world *w)
{
	struct amqp_mail_usage mail;

	for (uint32_t i = 0; i < w->workers_count; i++) {
		amqp_mail_usage(w->worker[i].broker, &mail);
		if (mail.notes_pending + mail.message_refs != 0)
			return false;
	}
	return true;
}

static bool worker_baseline(struct world *w, uint32_t idx)
{
	struct amqp_usage a;
	struct amqp_mail_usage mail;

	amqp_usage(w->worker[idx].broker, &a);
	amqp_mail_usage(w->worker[idx].broker, &mail);
	if (a.channels + a.consumers + a.entries != 0 || a.messages != 0 || mail.message_refs != 0) {
		snprintf(w->why, sizeof w->why,
			 "AMQP's pools of worker %u: %u channels, %u consumers, %u entries, %" PRIu64 " messages left, %" PRIu64
			 " lent",
			 idx, a.channels, a.consumers, a.entries, a.messages, mail.message_refs);
		return false;
	}
	if (!clients_set_up(&w->clients))
		return true;
	/* Kills and all: what was declared is known to both sides. Five defaults and the nameless one, four of ours. */
	if (a.exchanges != 6 + SIM_EXCHANGES || a.queues != w->clients.consumers ||
	    w->control.rib.exchanges_by_name.count != a.exchanges || w->control.rib.queues_by_name.count != a.queues ||
	    w->control.rib.bindings_by_key.count != a.bindings) {
		snprintf(w->why, sizeof w->why, "definitions differ: FIB of worker %u %u/%u/%u", idx, a.exchanges, a.queues,
			 a.bindings);
		return false;
	}
	return true;
}

static bool baseline(struct world *w)
{
	struct tcps_usage u;

	tcps_usage(w->server.t, &u);
	if (u.blocks_in_use + u.refs_in_use != 0 || w->refs_lent != 0) {
		snprintf(w->why, sizeof w->why, "TCP's pools: %u blocks, %u references left", u.blocks_in_use, u.refs_in_use);
		return false;
	}
	for (uint32_t i = 0; i < w->workers_count; i++)
		if (!worker_baseline(w, i))
			return false;
	return true;
}

static void account(struct world *w)
{
	sum.due += w->clients.due;
	sum.duplicates += w->clients.duplicates;
	sum.aborts += w->clients.aborts;
	sum.kills += w->control.kills;
	sum.compiled += w->control.compiled;
	sum.dropped += net_stats(w->net)->dropped;
}

static bool run_seed(uint64_t seed)
{
	struct world *w = &world;
	bool ok;

	set_up(w, seed);
	ok = run_until(w, delivered, "not everything was delivered and confirmed") &&
	     run_until(w, queues_empty, "acknowledged messages stay on a queue");
	w->clients.closing = true;
	ok = ok && run_until(w, closed, "connections do not close") && check(w, true);
	host_drain(&w->server);
	ok = ok && run_until(w, given_back, "messages that workers lent each other do not come back") && baseline(w);
	if (verbose || !ok)
		printf("# seed %" PRIu64 ": %" PRIu64 " steps, %.3f virtual s, %u publishers, %u consumers, %" PRIu64 " messages\n",
		       seed, w->steps, (double)(w->now_ns - w->start_ns) / 1e9, w->clients.publishers, w->clients.consumers,
		       w->clients.due);
	if (!ok)
		tell_state(w);
	account(w);
	clients_fini(&w->clients);
	control_fini(&w->control);
	control_forget_databases();
	host_fini(&w->server);
	for (uint32_t i = 0; i < w->workers_count; i++) {
		free(w->worker[i].mem);
		free(w->worker[i].mail);
	}
	net_free(w->net);
	return ok;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"count", required_argument, NULL, 'c'},
						{"workers", required_argument, NULL, 'w'},
						{"verbose", no_argument, NULL, 'v'},
						{0}};
	uint64_t first = (uint64_t)time(NULL) * 1000u, count = 300;
	bool ok = true;

	for (int o; (o = getopt_long(argc, argv, "s:c:w:v", options, NULL)) != -1;) {
		if (o == 's')
			first = strtoull(optarg, NULL, 0);
		else if (o == 'c')
			count = strtoull(optarg, NULL, 0);
		else if (o == 'w' && atoi(optarg) >= 1 && atoi(optarg) <= (int)AMQP_WORKERS_MAX)
			workers_wanted = (uint32_t)atoi(optarg);
		else if (o == 'v')
			verbose = true;
		else
			return 64;
	}
	printf("1..1\n# broker_sim: seeds from %" PRIu64 ", %" PRIu64 " of them\n", first, count);
	fflush(stdout);
	for (uint64_t i = 0; i < count && ok; i++) {
		ok = run_seed(first + i);
		if (!ok)
			printf("not ok 1 - seed %" PRIu64 ": %s\n# replay: build/bin/broker_sim --seed %" PRIu64
			       " --count 1 --verbose\n",
			       first + i, world.why, first + i);
	}
	if (ok)
		printf("ok 1 - %" PRIu64 " worlds: %" PRIu64 " deliveries due and made, %" PRIu64 " repeated, %" PRIu64
		       " clients lost, %" PRIu64 " kills of control, %" PRIu64 " databases, %" PRIu64 " frames dropped, %" PRIu64
		       " notes between workers\n",
		       count, sum.due, sum.duplicates, sum.aborts, sum.kills, sum.compiled, sum.dropped, notes);
	return ok ? 0 : 1;
}
