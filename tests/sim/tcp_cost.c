/*
 * tcp_cost.c - the cost of the worker's path in instructions: one 100-byte segment in, its ACK riding on 100 bytes out.
 *
 * Owns: two stacks joined by a queue of frames; only the second one's work is between cost_begin and cost_end.
 * Core: a measuring aid, run under callgrind by tests/bench/run; it prints the pairs it made. Functions whose names begin with
 *       cost_ switch the counting on and off where they begin and end, so that it is the stack's alone.
 * Spec: none.
 */
#include "tcpstack/tcpstack.h"
#include "tests/sim/tcp_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAYLOAD_BYTES 100u
#define PAIRS         1000u
#define STEP_NS       20000u

struct end {
	struct tcps *t;
	struct tcps_conn *conn;
	struct end *peer;
	uint8_t frame[2048]; /* being written */
	uint8_t queue[16][2048];
	size_t queue_len[16];
	unsigned queued;
	bool echo;
	uint64_t received;
};

static uint8_t *tx_alloc(void *ctx, size_t len, void **handle)
{
	struct end *e = ctx;
	(void)len;
	*handle = e->frame;
	return e->frame;
}

static void tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct end *e = ctx;
	(void)handle;
	(void)meta;
	if (e->peer->queued == 16)
		abort();
	memcpy(e->peer->queue[e->peer->queued], e->frame, len);
	e->peer->queue_len[e->peer->queued++] = len;
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)peer;
	(void)local_port;
	struct end *e = ctx;
	e->conn = conn;
	return e;
}

static void on_connected(void *user)
{
	(void)user;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct end *e = user;
	(void)data;
	e->received += len;
	return len;
}

static void on_event(void *user)
{
	(void)user;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	(void)user;
	(void)reason;
}

static void on_release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

/* The measured end's callbacks are not the stack; what they call of it is. */
#define COST __attribute__((noinline, noclone))
COST uint8_t *cost_tx_alloc(void *ctx, size_t len, void **handle);
COST void cost_tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta);
COST size_t cost_on_data(void *user, const uint8_t *data, size_t len);
COST uint8_t *cost_reserve(struct tcps_conn *c, size_t len);
COST void cost_commit(struct tcps_conn *c, size_t len);

COST uint8_t *cost_tx_alloc(void *ctx, size_t len, void **handle)
{
	return tx_alloc(ctx, len, handle);
}

COST void cost_tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	tx_send(ctx, handle, len, meta);
}

COST uint8_t *cost_reserve(struct tcps_conn *c, size_t len)
{
	return tcps_reserve(c, len);
}

COST void cost_commit(struct tcps_conn *c, size_t len)
{
	tcps_commit(c, len);
}

COST size_t cost_on_data(void *user, const uint8_t *data, size_t len)
{
	struct end *e = user;
	e->received += len;
	if (e->echo) {
		uint8_t *to = cost_reserve(e->conn, len);
		memcpy(to, data, len);
		cost_commit(e->conn, len);
	}
	return len;
}

static const struct tcps_ops cost_ops = {cost_tx_alloc, cost_tx_send, on_accept,  on_connected, cost_on_data, on_event,
					 on_event,      on_closed,    on_release, NULL,         NULL};
static const struct tcps_ops ops = {tx_alloc, tx_send,   on_accept,  on_connected, on_data, on_event,
				    on_event, on_closed, on_release, NULL,         NULL};

static uint32_t rx_flags;

COST void cost_input(struct tcps *t, const uint8_t *frame, size_t len, uint32_t flags, uint64_t now_ns);
COST void cost_tick(struct tcps *t, uint64_t now_ns);
COST void cost_flush(struct tcps *t, uint64_t now_ns);

COST void cost_input(struct tcps *t, const uint8_t *frame, size_t len, uint32_t flags, uint64_t now_ns)
{
	tcps_input(t, frame, len, flags, now_ns);
}

COST void cost_tick(struct tcps *t, uint64_t now_ns)
{
	tcps_tick(t, now_ns);
}

COST void cost_flush(struct tcps *t, uint64_t now_ns)
{
	tcps_flush(t, now_ns);
}

static void drain(struct end *e, uint64_t now_ns)
{
	unsigned n = e->queued;
	for (unsigned i = 0; i < n; i++) {
		static uint8_t copy[2048];
		size_t len = e->queue_len[i];
		memcpy(copy, e->queue[i], len);
		if (e->echo) { /* what a worker does with a burst of one */
			cost_input(e->t, copy, len, rx_flags, now_ns);
			cost_tick(e->t, now_ns);
			cost_flush(e->t, now_ns);
		} else {
			tcps_input(e->t, copy, len, rx_flags, now_ns);
		}
	}
	e->queued = 0;
	tcps_tick(e->t, now_ns);
	tcps_flush(e->t, now_ns);
}

int main(int argc, char **argv)
{
	static struct end ends[2];
	bool offload = false, ipv6 = false;
	for (int i = 1; i < argc; i++) {
		offload |= strcmp(argv[i], "--offload") == 0;
		ipv6 |= strcmp(argv[i], "--ipv6") == 0;
	}
	uint64_t now = 1000000000;
	rx_flags = offload ? TCPS_RX_IP_CKSUM_GOOD | TCPS_RX_L4_CKSUM_GOOD : 0;
	for (unsigned i = 0; i < 2; i++) {
		struct tcps_config cfg;
		host_config(&cfg, i);
		if (ipv6)
			host_config_ipv6(&cfg, i);
		cfg.tx_ip_cksum_offload = cfg.tx_tcp_cksum_offload = offload && i == 1;
		void *mem = aligned_alloc(64, tcps_mem_bytes(&cfg));
		if (mem == NULL)
			return 1;
		memset(mem, 0, tcps_mem_bytes(&cfg));
		ends[i].t = tcps_init(mem, tcps_mem_bytes(&cfg), &cfg, i == 1 ? &cost_ops : &ops, &ends[i], now);
		ends[i].peer = &ends[!i];
	}
	/* What one end leaves to its port, no port fills here: the other end has to take it as verified. */
	rx_flags = offload ? TCPS_RX_IP_CKSUM_GOOD | TCPS_RX_L4_CKSUM_GOOD : 0;
	tcps_listen(ends[1].t, 5672);
	struct tcps_endpoint to = {.addr = {.family = 4, .bytes = {198, 18, 0, 2}}, .port = 5672};
	if (ipv6)
		to.addr = (struct tcps_addr){.family = 6, .bytes = {0x20, 1, 0, 2, [15] = 2}};
	ends[0].conn = tcps_connect(ends[0].t, &to, 0, &ends[0], now);
	for (unsigned i = 0; i < 20; i++, now += STEP_NS) {
		drain(&ends[0], now);
		drain(&ends[1], now);
	}
	if (ends[1].conn == NULL)
		return 1;
	ends[1].echo = true;
	if (offload)
		printf("checksums by offload\n");
	static const uint8_t payload[PAYLOAD_BYTES];
	for (unsigned i = 0; i < PAIRS; i++, now += STEP_NS) {
		tcps_send(ends[0].conn, payload, sizeof(payload));
		tcps_flush(ends[0].t, now);
		drain(&ends[1], now);
		drain(&ends[0], now);
	}
	printf("%u pairs, %lu bytes there, %lu back\n", PAIRS, (unsigned long)ends[1].received, (unsigned long)ends[0].received);
	return ends[0].received == (uint64_t)PAIRS * PAYLOAD_BYTES ? 0 : 1;
}
