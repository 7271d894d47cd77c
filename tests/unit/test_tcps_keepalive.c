/*
 * test_tcps_keepalive.c - idle connections: an answered keepalive keeps them, an unanswered one ends them.
 *
 * Owns: nothing.
 * Core: a test program; two stacks on the simulated network in virtual time.
 * Spec: RFC 9293 section 3.8.4 (keep-alives must not be taken for a dead peer by themselves).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "tests/sim/tcp_host.h"

#define SECOND 1000000000ull

static struct net *net;
static struct host hosts[2];
static unsigned closed_count, accepted_count;
static enum tcps_reason last_reason;

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)conn;
	(void)peer;
	(void)local_port;
	accepted_count++;
	return ctx;
}

static void on_nothing(void *user)
{
	(void)user;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	(void)user;
	(void)data;
	return len;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	(void)user;
	closed_count++;
	last_reason = reason;
}

static void release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

/* Both sides share the wire; `delay_ns` is the one-way time. */
static void set_up(uint64_t delay_ns)
{
	static const struct tcps_ops ops = {.on_accept = on_accept,
					    .on_connected = on_nothing,
					    .on_data = on_data,
					    .on_eof = on_nothing,
					    .on_writable = on_nothing,
					    .on_closed = on_closed,
					    .release = release};
	static const struct tcps_endpoint broker = {.addr = {.family = 4, .bytes = {198, 18, 0, 1}}, .port = 5672};
	struct net_params wire = {.delay_min_ns = delay_ns, .delay_max_ns = delay_ns};
	struct tcps_config cfg;

	net = net_new(1);
	closed_count = accepted_count = 0;
	for (unsigned side = 0; side < 2; side++) {
		net_set(net, side, &wire);
		host_config(&cfg, side);
		host_init(&hosts[side], net, side, &cfg, &ops, SECOND);
	}
	assert_true(tcps_listen(hosts[0].t, 5672));
	assert_non_null(tcps_connect(hosts[1].t, &broker, 0, &hosts[1], SECOND));
}

static void tear_down(void)
{
	host_fini(&hosts[0]);
	host_fini(&hosts[1]);
	net_free(net);
}

static void run_until(uint64_t end_ns)
{
	uint8_t frame[NET_FRAME_MAX];
	uint64_t now_ns = hosts[0].now_ns;

	while (now_ns < end_ns) {
		unsigned side;
		uint64_t next = end_ns;
		size_t len;

		hosts[0].now_ns = hosts[1].now_ns = now_ns;
		while ((len = net_receive(net, now_ns, &side, frame)) != 0)
			tcps_input(hosts[side].t, frame, len, 0, now_ns);
		for (unsigned i = 0; i < 2; i++) {
			tcps_tick(hosts[i].t, now_ns);
			tcps_flush(hosts[i].t, now_ns);
			if (tcps_next_deadline(hosts[i].t) < next)
				next = tcps_next_deadline(hosts[i].t);
		}
		if (net_next_ns(net) < next)
			next = net_next_ns(net);
		now_ns = next > now_ns ? next : now_ns + 1000;
	}
	hosts[0].now_ns = hosts[1].now_ns = now_ns;
}

static void an_idle_connection_whose_peer_answers_stays_open(void **state)
{
	static const uint64_t delays_ns[] = {1000, 20000, 1000000, 30000000};

	(void)state;
	for (unsigned i = 0; i < sizeof delays_ns / sizeof delays_ns[0]; i++) {
		set_up(delays_ns[i]);
		run_until(4 * 3600 * SECOND);
		assert_int_equal(accepted_count, 1);
		assert_int_equal(closed_count, 0);
		assert_true(tcps_counters(hosts[0].t)[TCPS_CNT_keepalives] > 100);
		tear_down();
	}
}

static void an_idle_connection_whose_peer_vanished_ends_with_a_timeout(void **state)
{
	(void)state;
	set_up(20000);
	run_until(10 * SECOND);
	assert_int_equal(accepted_count, 1);
	net_blackhole(net, 1, UINT64_MAX);
	run_until(3600 * SECOND);
	assert_int_equal(last_reason, TCPS_CLOSED_TIMEOUT);
	assert_int_equal(closed_count, 2);
	tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_idle_connection_whose_peer_answers_stays_open),
		cmocka_unit_test(an_idle_connection_whose_peer_vanished_ends_with_a_timeout),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
