/*
 * worker.h - one worker: a poll-mode core that takes a tick from the wire to the wire.
 *
 * Owns: `struct dp_worker` with its stack, its broker and its share of the shared memory.
 * Core: made by the main thread; run by one lcore of its own; the main thread talks to it by mail alone.
 * Spec: DESIGN sections 3 and 4.
 */
#ifndef TICKWIRE_DP_WORKER_H
#define TICKWIRE_DP_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp/amqp.h"
#include "dataplane/clock.h"
#include "dataplane/counters.h"
#include "dataplane/laps.h"
#include "dataplane/mailbox.h"
#include "dataplane/options.h"
#include "dataplane/port.h"
#include "dataplane/rows.h"
#include "dataplane/shm.h"
#include "dataplane/stages.h"
#include "dataplane/tap_poll.h"
#include "dataplane/tx.h"
#include "tcpstack/tcpstack.h"

#define DP_DRAIN_NS 2000000000ull /* connections have this long to close after SIGTERM */

/* The sizes of everything, from options and defaults. */
struct dp_limits {
	struct amqp_limits amqp;
	struct tcps_config tcp;
	size_t tcp_bytes, amqp_bytes, block_bytes;
};

struct rte_mbuf;
struct rte_ring;

struct dp_worker {
	/* constant after start */
	uint32_t idx, lcore;
	uint16_t port_id, queue;
	uint16_t amqp_port;
	uint32_t workers_count;
	int numa_node;
	struct dp_worker *const *all;           /* workers_count */
	struct rte_ring *hand[CTL_WORKERS_MAX]; /* frames that others hand over, by worker */
	void *mail;                             /* notes that others' machines leave: amqp_mail_connect() */
	bool udp_echo, adaptive;
	bool rx_offloads;
	struct dp_tap_trigger tap; /* net_tap, polled: called before each receive burst */
	uint8_t mac[6], ipv4[4];
	uint64_t idle_after_ns;
	struct dp_clock clock;
	struct tcps *tcp;
	struct amqp_broker *amqp;
	struct ctl_ring_end requests, ops;
	uint8_t *op_scratch; /* CTL_RECORD_MAX */
	struct ctl_worker_stats *stats;
	int kick_fd; /* eventfd that wakes control */

	/* written by the worker */
	_Alignas(CTL_LINE_BYTES) uint64_t tsc; /* of this turn of the loop */
	uint64_t now_ns, last_busy_ns, next_publish_ns;
	bool leave, control_attached, ops_corrupt;
	bool burst_has_payload;
	struct rte_mbuf *in_hand; /* the frame that the stack looks at, if other workers may know it */
	uint32_t in_hand_stacks;  /* that had it before */
	void *aborting;           /* the amqp_conn whose transport is being reset by its own wish */
	struct dp_laps laps;
	struct {
		bool active, conns_told;
		uint32_t next_idx;
		uint64_t until_ns;
	} drain;
	struct dp_stages stages;
	struct dp_rows rows;
	struct dp_tx tx;
	uint64_t counter[DP_CNT_COUNT];

	/* written by the worker, read by the main thread */
	_Alignas(CTL_LINE_BYTES) _Atomic uint64_t loops;
	struct dp_mailbox outbox;

	/* written by the main thread, read by the worker */
	_Alignas(CTL_LINE_BYTES) _Atomic uint64_t wall_s;
	struct dp_mailbox inbox;
};

/* Computes limits from options. `secret` is 32 random bytes: 16 for the stack, 16 for the broker. */
void dp_limits_from_options(struct dp_limits *l, const struct dp_options *o, const struct dp_port *port, const uint8_t secret[32]);
/* Makes a worker in one block of memory on the port's node. Errors: NULL and a sentence. */
struct dp_worker *dp_worker_create(uint32_t idx, uint32_t lcore, const struct dp_limits *l, const struct dp_options *o,
				   const struct dp_port *port, const struct dp_shm *shm, const struct dp_clock *clock, int kick_fd,
				   char *err, size_t err_bytes);
void dp_worker_destroy(struct dp_worker *w);
/* Makes what lies between workers, when all of them are there. Errors: false and a sentence. */
bool dp_workers_connect(struct dp_worker *const *all, uint32_t count, const struct dp_limits *l, char *err, size_t err_bytes);
/* What the port says of a received frame, as the stack takes it. */
uint32_t dp_rx_flags(const struct dp_worker *w, const struct rte_mbuf *m);
/* The loop; returns when it has drained. An lcore_function_t, the argument is the worker. */
int dp_worker_run(void *arg);

#endif
