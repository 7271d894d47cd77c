/*
 * piece_bench.c - what a frame costs whose payload is copied, and one that ends in a piece of a message: cycles for each length.
 *
 * Owns: an EAL without hugepages or privileges, and DPDK's null port, which frees what it is given.
 * Core: a measuring aid: `make piece-bench`; it prints medians of rounds taken in turn, and no bound is asserted.
 * Spec: none.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "dataplane/counters.h"
#include "dataplane/tx.h"
#include "tcpstack/cksum.h"

#define HEADERS 66u
#define ROUNDS  61u
#define WARM    (1u << 17) /* of one message, sent to many: it stays in the caches */
#define COLD    (1u << 26) /* of many, sent to one each */
#define LONG    15360u

static struct dp_tx tx;
static uint64_t counter[DP_CNT_COUNT];
static uint8_t body[COLD];
static size_t cold_at;
static uint64_t sink;

static void piece_done(void *ctx, void *owner)
{
	(void)ctx;
	(*(uint32_t *)owner)--;
}

static void start(void)
{
	char lcores[32];
	char *argv[] = {(char *)"piece_bench",
			(char *)"--no-huge",
			(char *)"-m",
			(char *)"160",
			(char *)"--no-pci",
			(char *)"--no-shconf",
			(char *)"--no-telemetry",
			(char *)"--log-level=error",
			(char *)"--vdev=net_null0",
			(char *)"--lcores",
			lcores,
			NULL};
	struct rte_eth_conf conf;
	cpu_set_t cpus;
	unsigned cpu = 0;

	sched_getaffinity(0, sizeof cpus, &cpus);
	while (!CPU_ISSET(cpu, &cpus))
		cpu++;
	snprintf(lcores, sizeof lcores, "0@%u", cpu);
	memset(&conf, 0, sizeof conf);
	if (rte_eal_init((int)(sizeof argv / sizeof argv[0]) - 1, argv) < 0)
		exit(1);
	tx = (struct dp_tx){.counters = counter, .piece_done = piece_done};
	tx.pool = rte_pktmbuf_pool_create("frames", 2047, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	tx.frame_max = RTE_MBUF_DEFAULT_DATAROOM;
	tx.tso_pool = rte_pktmbuf_pool_create("long", 255, 0, 0, RTE_PKTMBUF_HEADROOM + LONG + HEADERS, SOCKET_ID_ANY);
	tx.piece_pool = dp_tx_piece_pool("pieces", 2047, SOCKET_ID_ANY);
	if (tx.pool == NULL || tx.tso_pool == NULL || tx.piece_pool == NULL || rte_eth_dev_configure(0, 1, 1, &conf) != 0 ||
	    rte_eth_rx_queue_setup(0, 0, 64, 0, NULL, tx.pool) != 0 || rte_eth_tx_queue_setup(0, 0, 64, 0, NULL) != 0 ||
	    rte_eth_dev_start(0) != 0)
		exit(1);
}

static void copied(const uint8_t *from, uint32_t len, bool sum)
{
	static const struct tcps_tx_meta meta;
	void *handle;
	uint8_t *f = dp_tx_alloc(&tx, HEADERS + len, &handle);

	memset(f, 0, HEADERS);
	if (sum)
		sink += tcps_copy_sum(f + HEADERS, from, len);
	else
		memcpy(f + HEADERS, from, len);
	dp_tx_send(&tx, handle, HEADERS + len, &meta);
}

static void attached(const uint8_t *from, uint32_t len, bool sum)
{
	static const struct tcps_tx_meta meta;
	static uint32_t holders;
	const struct tcps_piece piece = {.data = from, .len = len, .owner = &holders};
	void *handle;
	uint8_t *f = dp_tx_chain(&tx, HEADERS, &piece, 1, &handle);

	holders++;
	memset(f, 0, HEADERS);
	if (sum)
		sink += tcps_sum_words(0, from, len);
	dp_tx_send(&tx, handle, HEADERS + len, &meta);
}

/* A round of bursts of 32. Cycles a frame. */
static double pass(void (*send)(const uint8_t *, uint32_t, bool), uint32_t len, bool sum, bool cold)
{
	const uint8_t *from = body + (cold ? cold_at : 0);
	uint64_t before = rte_rdtsc();
	uint32_t frames = 0;

	for (uint32_t at = 0; at + len <= WARM; at += len) {
		send(from + at, len, sum);
		if (++frames % 32 == 0)
			dp_tx_burst(&tx);
	}
	dp_tx_burst(&tx);
	cold_at = (cold_at + WARM) % COLD;
	return (double)(rte_rdtsc() - before) / frames;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void compare(uint32_t len, bool sum, bool cold)
{
	static double copy[ROUNDS], piece[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		copy[i] = pass(copied, len, sum, cold);
		piece[i] = pass(attached, len, sum, cold);
	}
	qsort(copy, ROUNDS, sizeof copy[0], ascending);
	qsort(piece, ROUNDS, sizeof piece[0], ascending);
	printf("%6u bytes, %s, summed by the %s: copied %5.0f cycles a frame, attached %5.0f\n", len, cold ? "cold" : "warm",
	       sum ? "stack" : "port ", copy[ROUNDS / 2], piece[ROUNDS / 2]);
}

int main(void)
{
	static const uint32_t lens[] = {128, 256, 512, 1448, 8948, LONG};

	start();
	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (uint8_t)(i * 7);
	for (unsigned way = 0; way < 4; way++)
		for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; i++)
			compare(lens[i], way / 2 != 0, way % 2 != 0);
	rte_eth_dev_stop(0);
	rte_eth_dev_close(0);
	rte_eal_cleanup();
	return sink == 1; /* so that the sums are made */
}
