/*
 * tcp_bench.c - what the TCP stack costs in cycles of the time-stamp counter, without I/O: the pair of a tick, timers of many
 * connections, opening and closing, bulk.
 *
 * Owns: two stacks joined by a queue of frames in one process; both ends' work is measured together where it says "both ends".
 * Core: a measuring aid: `make tcp-bench`; it prints medians, and no bound is asserted.
 * Spec: none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tcpstack/tcpstack.h"
#include "tests/sim/tcp_host.h"

#define CONNS     10000u
#define QUEUE_MAX 4096u
#define MS        1000000ull

struct end {
	struct tcps *t;
	struct end *peer;
	struct tcps_conn *conns[CONNS + 1];
	unsigned conns_count;
	uint8_t (*queue)[2048];
	uint16_t *len;
	unsigned head, tail; /* of the frames that wait to be received */
	uint8_t frame[2048];
	uint64_t received, closed;
};

static struct end ends[2];

static uint64_t cycles(void)
{
	unsigned low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static uint64_t cycles_per_second(void)
{
	struct timespec a, b;
	uint64_t from = cycles(), ns;

	clock_gettime(CLOCK_MONOTONIC, &a);
	do {
		clock_gettime(CLOCK_MONOTONIC, &b);
		ns = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000u + (uint64_t)b.tv_nsec - (uint64_t)a.tv_nsec;
	} while (ns < 50 * MS);
	return (cycles() - from) * 1000000000u / ns;
}

static uint8_t *tx_alloc(void *ctx, size_t len, void **handle)
{
	struct end *e = ctx;

	(void)len;
	if (e->peer->tail - e->peer->head == QUEUE_MAX)
		return NULL;
	*handle = e->peer->queue[e->peer->tail % QUEUE_MAX];
	return *handle;
}

static void tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct end *e = ctx;

	(void)handle;
	(void)meta;
	e->peer->len[e->peer->tail++ % QUEUE_MAX] = (uint16_t)len;
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	struct end *e = ctx;

	(void)peer;
	(void)local_port;
	e->conns[e->conns_count++ % CONNS] = conn;
	return e;
}

static void on_nothing(void *user)
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

static void on_closed(void *user, enum tcps_reason reason)
{
	struct end *e = user;

	(void)reason;
	e->closed++;
}

static void release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

static void make_ends(bool offload, uint64_t now_ns)
{
	static const struct tcps_ops ops = {tx_alloc,   tx_send,   on_accept, on_nothing, on_data, on_nothing,
					    on_nothing, on_closed, release,   NULL,       NULL};

	for (unsigned i = 0; i < 2; i++) {
		struct tcps_config cfg;
		struct end *e = &ends[i];

		free(e->queue);
		free(e->len);
		*e = (struct end){.peer = &ends[!i], .queue = calloc(QUEUE_MAX, 2048), .len = calloc(QUEUE_MAX, 2)};
		host_config(&cfg, i);
		cfg.conns_max = CONNS + 16;
		cfg.half_open_max = CONNS + 16;
		cfg.time_wait_max = CONNS * 2;
		cfg.blocks_max = 4 * CONNS;
		cfg.send_high_water_bytes = 1u << 20;
		cfg.recv_window_bytes = 1u << 20;
		cfg.keepalive_ns = 7200000 * MS;
		cfg.msl_ns = 100 * MS;
		cfg.tx_ip_cksum_offload = cfg.tx_tcp_cksum_offload = offload;
		void *mem = aligned_alloc(64, tcps_mem_bytes(&cfg));
		if (mem == NULL || e->queue == NULL || e->len == NULL)
			abort();
		memset(mem, 0, tcps_mem_bytes(&cfg)); /* the first one's memory goes with the process */
		e->t = tcps_init(mem, tcps_mem_bytes(&cfg), &cfg, &ops, e, now_ns);
		if (e->t == NULL)
			abort();
	}
	tcps_listen(ends[1].t, 5672);
}

/* Hands all that waits to an end's stack, then lets it answer, as a worker does with a burst. Returns how many frames. */
static unsigned turn(struct end *e, uint32_t rx_flags, uint64_t now_ns)
{
	unsigned n = 0;

	for (; e->head != e->tail; e->head++, n++)
		tcps_input(e->t, e->queue[e->head % QUEUE_MAX], e->len[e->head % QUEUE_MAX], rx_flags, now_ns);
	tcps_tick(e->t, now_ns);
	tcps_flush(e->t, now_ns);
	return n;
}

static void settle(uint32_t rx_flags, uint64_t *now_ns)
{
	for (unsigned quiet = 0; quiet < 3;) {
		*now_ns += 20000;
		quiet = turn(&ends[0], rx_flags, *now_ns) + turn(&ends[1], rx_flags, *now_ns) == 0 ? quiet + 1 : 0;
	}
}

static struct tcps_conn *open_one(unsigned number, uint64_t now_ns)
{
	const struct tcps_endpoint to = {.addr = {.family = 4, .bytes = {198, 18, 0, 2}}, .port = 5672};

	return tcps_connect(ends[0].t, &to, (uint16_t)(2000 + number), &ends[0], now_ns);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *v, unsigned n)
{
	qsort(v, n, sizeof *v, by_value);
	return v[n / 2];
}

/* One 100-byte segment in, its ACK riding on 100 bytes out: the receiving end alone. */
static void pair(bool offload)
{
	static uint64_t seen[20000];
	uint32_t flags = offload ? TCPS_RX_IP_CKSUM_GOOD | TCPS_RX_L4_CKSUM_GOOD : 0;
	uint64_t now = 1000 * MS;
	uint8_t payload[100] = {0};

	make_ends(offload, now);
	struct tcps_conn *c = open_one(0, now);
	settle(flags, &now);
	for (unsigned i = 0; i < 20000; i++) {
		now += 20000;
		tcps_send(c, payload, sizeof payload);
		tcps_flush(ends[0].t, now);
		uint64_t from = cycles();
		struct end *e = &ends[1];
		tcps_input(e->t, e->queue[e->head % QUEUE_MAX], e->len[e->head % QUEUE_MAX], flags, now);
		e->head++;
		tcps_send(e->conns[0], payload, sizeof payload);
		tcps_tick(e->t, now);
		tcps_flush(e->t, now);
		seen[i] = cycles() - from;
		turn(&ends[0], flags, now);
	}
	printf("  %-64s %9lu cycles\n",
	       offload ? "segment in, ACK on a segment out, checksums by offload" : "segment in, ACK on a segment out",
	       (unsigned long)median(seen, 20000));
}

/* Idle connections, each with its keepalive timer, and all of them with data outstanding. */
static void timers(uint64_t hz)
{
	uint64_t now = 1000 * MS;
	static uint64_t seen[3000];

	make_ends(false, now);
	for (unsigned i = 0; i < CONNS; i++) {
		open_one(i, now);
		if (i % 256 == 255)
			settle(0, &now);
	}
	settle(0, &now);
	for (unsigned outstanding = 0; outstanding < 2; outstanding++) {
		uint64_t total = 0;

		for (unsigned i = 0; outstanding && i < CONNS; i++)
			tcps_send(ends[1].conns[i], "tick", 4);
		tcps_flush(ends[1].t, now);
		ends[0].head = ends[0].tail; /* the peers are silent from now on */
		for (unsigned i = 0; i < 3000; i++) {
			now += MS;
			uint64_t from = cycles();
			tcps_tick(ends[1].t, now);
			seen[i] = cycles() - from;
			total += seen[i];
			tcps_flush(ends[1].t, now);
			ends[0].head = ends[0].tail;
		}
		printf("  10,000 connections, a tick every ms, %-27s %9lu cycles a tick, %.3f %% of a core\n",
		       outstanding ? "all retransmitting for 3 s:" : "each with its timer:", (unsigned long)(total / 3000),
		       100.0 * (double)total / (double)(hz * 3));
	}
}

static void open_and_close(void)
{
	uint64_t now = 1000 * MS, from, spent = 0;

	make_ends(false, now);
	open_one(0, now);
	settle(0, &now);
	for (unsigned round = 0; round < 200; round++) {
		struct tcps_conn *c[50];

		for (unsigned i = 0; i < 50; i++)
			c[i] = open_one(1 + round * 50 + i, now);
		from = cycles();
		settle(0, &now);
		for (unsigned i = 0; i < 50; i++)
			tcps_shutdown(c[i]);
		settle(0, &now);
		for (unsigned i = 0; i < 50; i++)
			tcps_shutdown(ends[1].conns[(1 + round * 50 + i) % CONNS]);
		settle(0, &now);
		spent += cycles() - from;
	}
	printf("  %-64s %9lu cycles\n", "a connection opened and closed, both ends", (unsigned long)(spent / 10000));
}

static void bulk(bool offload, uint64_t hz)
{
	static uint8_t chunk[60000];
	uint32_t flags = offload ? TCPS_RX_IP_CKSUM_GOOD | TCPS_RX_L4_CKSUM_GOOD : 0;
	uint64_t now = 1000 * MS, from, out = 0, in = 0, bytes;

	make_ends(offload, now);
	struct tcps_conn *c = open_one(0, now);
	settle(flags, &now);
	for (unsigned i = 0; i < 20000; i++) {
		now += 20000;
		from = cycles();
		while (tcps_writable(c) && tcps_send(c, chunk, sizeof chunk))
			;
		turn(&ends[0], flags, now);
		out += cycles() - from;
		from = cycles();
		turn(&ends[1], flags, now);
		in += cycles() - from;
	}
	bytes = ends[1].received;
	printf("  bulk%-21s %5.2f cycles a byte sent, %5.2f received: %.1f and %.1f Gbit/s a core\n",
	       offload ? ", checksums by offload" : "", (double)out / (double)bytes, (double)in / (double)bytes,
	       8e-9 * (double)bytes * (double)hz / (double)out, 8e-9 * (double)bytes * (double)hz / (double)in);
}

int main(void)
{
	uint64_t hz = cycles_per_second();

	printf("TCP without I/O, time-stamp counter at %.0f MHz\n", (double)hz / 1e6);
	pair(false);
	pair(true);
	timers(hz);
	open_and_close();
	bulk(false, hz);
	bulk(true, hz);
	return 0;
}
