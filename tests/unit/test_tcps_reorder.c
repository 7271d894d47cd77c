/*
 * test_tcps_reorder.c - what a path costs that reorders and loses nothing: the same download over it and over one in order.
 *
 * Owns: the worlds of a download, two stacks in virtual time each; nothing here depends on the speed of a machine.
 * Core: a unit test.
 * Spec: RFC 3522, RFC 3708, RFC 4015, RFC 8985 6.2 step 4.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/net.h"
#include "tests/sim/tcp_host.h"

#define MS         1000000ull
#define BULK_BYTES 3000000u
#define BOUND_NS   (600000 * MS)
#define PORT       5672u

struct world {
	struct net *net;
	struct host hosts[2]; /* the second one sends */
	struct tcps_conn *conn;
	uint64_t now_ns, sent, received;
};

struct wire {
	uint32_t reorder; /* of 10,000 */
	bool at_once;     /* let overtake, not held back */
	bool no_timestamps, newreno;
};

struct outcome {
	uint64_t ns, recoveries, timeouts, resent, undone, reordered, drops;
	uint32_t ssthresh;
	bool reordering;
};

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)peer;
	(void)local_port;
	struct host *h = ctx;
	struct world *w = h->app;
	w->conn = conn;
	return w;
}

static void on_nothing(void *user)
{
	(void)user;
}

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 31 + off / 251);
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct world *w = user;
	for (size_t i = 0; i < len; i++)
		assert_int_equal(data[i], byte_at(w->received++));
	return len;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	(void)user;
	(void)reason;
	fail();
}

static void release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

static void start(struct world *w, uint64_t seed, const struct wire *wire)
{
	static const struct tcps_ops ops = {.on_accept = on_accept,
					    .on_connected = on_nothing,
					    .on_data = on_data,
					    .on_eof = on_nothing,
					    .on_writable = on_nothing,
					    .on_closed = on_closed,
					    .release = release};
	static const struct tcps_endpoint to = {.addr = {.family = 4, .bytes = {198, 18, 0, 2}}, .port = PORT};
	struct net_params p = {.delay_min_ns = 10 * MS,
			       .delay_max_ns = 10 * MS,
			       .reorder = wire->reorder,
			       .reorder_extra_ns = 10 * MS,
			       .reorder_at_once = wire->at_once,
			       .bytes_per_second = 10000000};
	w->net = net_new(seed);
	assert_non_null(w->net);
	w->now_ns = 1000 * MS;
	for (unsigned side = 0; side < 2; side++) {
		struct tcps_config cfg;
		net_set(w->net, side, &p);
		host_config(&cfg, side);
		cfg.blocks_max = 1000;
		cfg.recv_window_bytes = 250000;
		cfg.send_high_water_bytes = 600000;
		cfg.cc = wire->newreno ? TCPS_CC_NEWRENO : TCPS_CC_CUBIC;
		host_init(&w->hosts[side], w->net, side, &cfg, &ops, w->now_ns);
		w->hosts[side].app = w;
		w->hosts[side].strip_timestamps = wire->no_timestamps;
	}
	assert_true(tcps_listen(w->hosts[1].t, PORT));
	assert_non_null(tcps_connect(w->hosts[0].t, &to, 2000, w, w->now_ns));
}

static void send_more(struct world *w)
{
	while (w->conn != NULL && w->sent < BULK_BYTES && tcps_writable(w->conn)) {
		uint8_t piece[1000];
		size_t n = BULK_BYTES - w->sent < sizeof(piece) ? (size_t)(BULK_BYTES - w->sent) : sizeof(piece);
		for (size_t i = 0; i < n; i++)
			piece[i] = byte_at(w->sent + i);
		if (!tcps_send(w->conn, piece, n))
			return;
		w->sent += n;
	}
}

static void step(struct world *w)
{
	static uint8_t frame[NET_FRAME_MAX];
	unsigned side;
	size_t len;
	w->hosts[0].now_ns = w->hosts[1].now_ns = w->now_ns;
	while ((len = net_receive(w->net, w->now_ns, &side, frame)) != 0)
		host_input(&w->hosts[side], frame, len);
	uint64_t next = UINT64_MAX;
	for (unsigned i = 0; i < 2; i++)
		tcps_tick(w->hosts[i].t, w->now_ns);
	send_more(w);
	for (unsigned i = 0; i < 2; i++) {
		tcps_flush(w->hosts[i].t, w->now_ns);
		assert_null(tcps_check(w->hosts[i].t));
		uint64_t at = tcps_next_deadline(w->hosts[i].t);
		next = at < next ? at : next;
	}
	next = net_next_ns(w->net) < next ? net_next_ns(w->net) : next;
	w->now_ns = next > w->now_ns ? next : w->now_ns + 1;
	assert_true(w->now_ns < BOUND_NS);
}

static struct outcome download(uint64_t seed, const struct wire *wire)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	start(w, seed, wire);
	uint64_t began = w->now_ns;
	while (w->received < BULK_BYTES)
		step(w);
	struct outcome o = {
		.ns = w->now_ns - began, .reordered = net_stats(w->net)->reordered, .drops = net_stats(w->net)->dropped};
	/* What was told of the last retransmissions is still on its way. */
	for (uint64_t until = w->now_ns + 200 * MS; w->now_ns < until;)
		step(w);
	const uint64_t *n = tcps_counters(w->hosts[1].t);
	struct tcps_conn_info info;
	tcps_info(w->conn, &info);
	o.recoveries = n[TCPS_CNT_recoveries];
	o.timeouts = n[TCPS_CNT_rto_expired];
	o.resent = info.retransmits;
	o.undone = n[TCPS_CNT_undone_recoveries] + n[TCPS_CNT_undone_timeouts];
	o.ssthresh = info.ssthresh_bytes;
	o.reordering = info.reordering;
	host_fini(&w->hosts[0]);
	host_fini(&w->hosts[1]);
	net_free(w->net);
	free(w);
	return o;
}

static struct outcome told(const char *name, uint64_t seed, const struct wire *wire, uint64_t plain_ns)
{
	struct outcome o = download(seed, wire);
	printf("# %s, seed %u: %.2f times the time in order; recoveries %u, time-outs %u, undone %u, resent %u, ssthresh %u\n",
	       name, (unsigned)seed, (double)o.ns / (double)plain_ns, (unsigned)o.recoveries, (unsigned)o.timeouts,
	       (unsigned)o.undone, (unsigned)o.resent, o.ssthresh);
	assert_int_equal(o.drops, 0);
	assert_true(o.reordered > 100);
	assert_true(o.undone <= o.recoveries + o.timeouts);
	return o;
}

static uint64_t in_order_ns(void)
{
	static const struct wire plain = {0};
	struct outcome o = download(1, &plain);
	assert_int_equal(o.recoveries + o.timeouts + o.resent + o.reordered, 0);
	return o.ns;
}

/* RFC 3522, RFC 4015, RFC 8985 6.2: nothing is lost, so in the end nothing is reduced, and RACK has learnt to wait. */
static void frames_held_back_cost_no_window(void **state)
{
	(void)state;
	static const struct wire wires[] = {{.reorder = 1000}, {.reorder = 2500}, {.reorder = 2500, .newreno = true}};
	static const char *const names[] = {"a tenth late", "a quarter late", "a quarter late, NewReno"};
	uint64_t plain_ns = in_order_ns();
	for (unsigned i = 0; i < 3; i++) {
		for (uint64_t seed = 1; seed <= 4; seed++) {
			struct outcome o = told(names[i], seed, &wires[i], plain_ns);
			assert_true(o.recoveries > 0 && o.reordering);
			assert_int_equal(o.undone, o.recoveries);
			assert_int_equal(o.timeouts, 0);
			assert_int_equal(o.ssthresh, UINT32_MAX / 2);
			assert_true(o.resent < 10);
			assert_true(o.ns < plain_ns * 3 / 2);
		}
	}
}

/*
 * Not all is told of in time here. Where some overtake, a retransmission may arrive before its original, and the shortest round
 * trip is thirty times shorter than the usual one; without timestamps the duplicates alone tell (RFC 3708), and those may come when
 * the next recovery has begun. Without an undo these take 2 to 28 times as long.
 */
static void where_less_is_told_it_costs_little(void **state)
{
	(void)state;
	static const struct wire wires[] = {
		{.reorder = 1000, .at_once = true}, {.reorder = 2500, .at_once = true}, {.reorder = 2500, .no_timestamps = true}};
	static const char *const names[] = {"a tenth early", "a quarter early", "a quarter late, no timestamps"};
	uint64_t plain_ns = in_order_ns();
	for (unsigned i = 0; i < 3; i++) {
		uint64_t ns = 0, recoveries = 0, undone = 0;
		for (uint64_t seed = 1; seed <= 6; seed++) {
			struct outcome o = told(names[i], seed, &wires[i], plain_ns);
			assert_int_equal(o.timeouts, 0);
			ns += o.ns;
			recoveries += o.recoveries;
			undone += o.undone;
		}
		assert_true(undone * 3 >= recoveries * 2);
		assert_true(ns < plain_ns * 6 * 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_held_back_cost_no_window),
		cmocka_unit_test(where_less_is_told_it_costs_little),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_reorder", tests, NULL, NULL);
}
