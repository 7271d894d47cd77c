/*
 * counters.h - the dataplane's own counters, and all counters' way into shared memory.
 *
 * Owns: the order of a worker's counters in shared memory: the dataplane's, then TCP's, then AMQP's.
 * Core: a worker counts plainly in its own memory and publishes with relaxed stores; the main thread publishes group `nic`.
 * Spec: control/ctl_shm.h (the counters describe themselves); counters.def.
 */
#ifndef TICKWIRE_DP_COUNTERS_H
#define TICKWIRE_DP_COUNTERS_H

#include <stdint.h>

#include "amqp/amqp.h"
#include "control/ctl_shm.h"
#include "tcpstack/tcpstack.h"

enum dp_counter {
#define DP_COUNTER(group, name, text) DP_CNT_##group##_##name,
#include "dataplane/counters.def"
#undef DP_COUNTER
	DP_CNT_COUNT
};
#define DP_CNT_WORKER_COUNT ((unsigned)DP_CNT_nic_imissed) /* from here on the main thread writes */
#define DP_COUNTERS_ALL     ((unsigned)DP_CNT_COUNT + (unsigned)TCPS_CNT_COUNT + (unsigned)AMQP_CNT_COUNT)

/* Writes DP_COUNTERS_ALL descriptions. */
void dp_counters_describe(struct ctl_counter_desc *desc);
/* Copies a worker's counters of all three parts into shared memory; group `nic` is left alone. */
void dp_counters_publish(struct ctl_worker_stats *stats, const uint64_t *own, const uint64_t *tcp, const uint64_t *amqp);
/* The main thread's one counter. */
void dp_counters_set(struct ctl_worker_stats *stats, enum dp_counter counter, uint64_t value);
/* Fills group `pool` of `own` from the parts' usage. */
void dp_counters_pools(uint64_t *own, const struct tcps_usage *tcp, const struct amqp_usage *amqp);

#endif
