/*
 * test_tcps_tso.c - segmentation by the port: what leaves is, byte for byte, what the stack would have cut itself.
 *
 * Owns: two runs of the same scenario, one with the offload and one without, and the frames on the wire of each.
 * Core: a unit test.
 * Spec: RFC 9293 3.8; the simulated port cuts as hardware does (tests/sim/tcp_host.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/net.h"
#include "tests/sim/tcp_host.h"

#define MS         1000000ull
#define WIRE_MAX   4000u
#define BULK_BYTES 300000u

struct wire_frame {
	uint8_t bytes[NET_FRAME_MAX];
	size_t len;
};

struct run {
	struct net *net;
	struct host hosts[2];
	struct tcps_conn *conn;
	struct wire_frame *wire; /* what the sender put on it, in order */
	unsigned count;
	uint64_t received, now_ns;
	uint8_t next;
	bool hole; /* lose the sender's tenth data segment once */
	unsigned data_segments;
	uint64_t frames_cut;
};

static struct run *now;

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)ctx;
	(void)conn;
	(void)peer;
	(void)local_port;
	return now;
}

static void on_nothing(void *user)
{
	(void)user;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct run *r = user;

	for (size_t i = 0; i < len; i++)
		assert_int_equal(data[i], r->next++);
	r->received += len;
	return len;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	(void)user;
	(void)reason;
}

static void release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

/* Hands frames over until nothing is under way any more. */
static void settle(struct run *r)
{
	static uint8_t frame[NET_FRAME_MAX];

	for (unsigned quiet = 0; quiet < 200; quiet++) {
		unsigned side;
		size_t len;

		r->now_ns += MS;
		r->hosts[0].now_ns = r->hosts[1].now_ns = r->now_ns;
		while ((len = net_receive(r->net, r->now_ns, &side, frame)) != 0) {
			quiet = 0;
			if (side == 1) {
				assert_true(r->count < WIRE_MAX);
				memcpy(r->wire[r->count].bytes, frame, len);
				r->wire[r->count++].len = len;
				if (len > 500 && ++r->data_segments == 10 && r->hole)
					continue;
			}
			host_input(&r->hosts[side], frame, len);
		}
		for (unsigned i = 0; i < 2; i++) {
			tcps_tick(r->hosts[i].t, r->now_ns);
			tcps_flush(r->hosts[i].t, r->now_ns);
		}
	}
}

static struct run *play(bool tso, bool hole, uint16_t vlan)
{
	static const struct tcps_ops ops = {.on_accept = on_accept,
					    .on_connected = on_nothing,
					    .on_data = on_data,
					    .on_eof = on_nothing,
					    .on_writable = on_nothing,
					    .on_closed = on_closed,
					    .release = release};
	static const struct tcps_endpoint to = {.addr = {.family = 4, .bytes = {198, 18, 0, 2}}, .port = 5672};
	static uint8_t body[BULK_BYTES];
	struct run *r = calloc(1, sizeof *r);
	struct net_params wire = {.delay_min_ns = 100000, .delay_max_ns = 100000};

	assert_non_null(r);
	now = r;
	r->hole = hole;
	r->now_ns = 1000 * MS;
	r->wire = calloc(WIRE_MAX, sizeof *r->wire);
	r->net = net_new(1);
	assert_true(r->wire != NULL && r->net != NULL);
	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (uint8_t)i;
	for (unsigned side = 0; side < 2; side++) {
		struct tcps_config cfg;

		net_set(r->net, side, &wire);
		host_config(&cfg, side);
		cfg.mtu = 1500;
		cfg.blocks_max = 600;
		cfg.recv_window_bytes = 200000;
		cfg.vlan_id = vlan;
		cfg.tx_ip_cksum_offload = cfg.tx_tcp_cksum_offload = tso && side == 0;
		cfg.tso_max_bytes = tso && side == 0 ? 40000 : 0;
		host_init(&r->hosts[side], r->net, side, &cfg, &ops, r->now_ns);
	}
	assert_true(tcps_listen(r->hosts[1].t, 5672));
	r->conn = tcps_connect(r->hosts[0].t, &to, 2000, r, r->now_ns);
	assert_non_null(r->conn);
	settle(r);
	/* Inline bytes and references in turn, of odd lengths: a frame to be cut gathers them all. */
	for (size_t at = 0, n; at < sizeof body; at += n) {
		n = at % 3 == 0 ? 7001 : 13;
		n = n < sizeof body - at ? n : sizeof body - at;
		assert_true(at % 2 == 0 ? tcps_send(r->conn, body + at, n) : tcps_send_ref(r->conn, body + at, n, NULL));
	}
	tcps_shutdown(r->conn);
	settle(r);
	assert_int_equal(r->received, sizeof body);
	r->frames_cut = tcps_counters(r->hosts[0].t)[TCPS_CNT_tso_frames];
	assert_null(tcps_check(r->hosts[0].t));
	return r;
}

static void end(struct run *r)
{
	for (unsigned i = 0; i < 2; i++)
		host_fini(&r->hosts[i]);
	net_free(r->net);
	free(r->wire);
	free(r);
}

static void compare(bool hole, uint16_t vlan)
{
	struct run *ours = play(false, hole, vlan), *ports = play(true, hole, vlan);

	assert_int_equal(ours->frames_cut, 0);
	assert_true(ports->frames_cut > 5);
	assert_int_equal(ports->count, ours->count);
	for (unsigned i = 0; i < ours->count; i++) {
		assert_int_equal(ports->wire[i].len, ours->wire[i].len);
		assert_memory_equal(ports->wire[i].bytes, ours->wire[i].bytes, ours->wire[i].len);
	}
	end(ours);
	end(ports);
}

static void the_port_and_the_stack_cut_a_stream_alike(void **state)
{
	(void)state;
	compare(false, 0);
}

static void so_they_do_with_a_segment_lost_and_sent_again(void **state)
{
	(void)state;
	compare(true, 0);
}

static void so_they_do_behind_a_tag(void **state)
{
	(void)state;
	compare(false, 42);
}

static void it_needs_both_checksums_of_the_port(void **state)
{
	struct tcps_config cfg;
	static const struct tcps_ops ops = {.on_accept = on_accept};
	void *mem;

	(void)state;
	host_config(&cfg, 0);
	cfg.tso_max_bytes = 20000;
	mem = calloc(1, tcps_mem_bytes(&cfg) + 64);
	assert_non_null(mem);
	assert_null(tcps_init((void *)(((uintptr_t)mem + 63) & ~(uintptr_t)63), tcps_mem_bytes(&cfg), &cfg, &ops, NULL, MS));
	free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_port_and_the_stack_cut_a_stream_alike),
		cmocka_unit_test(so_they_do_with_a_segment_lost_and_sent_again),
		cmocka_unit_test(so_they_do_behind_a_tag),
		cmocka_unit_test(it_needs_both_checksums_of_the_port),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_tso", tests, NULL, NULL);
}
