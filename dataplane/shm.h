/*
 * shm.h - the memfd that control and dataplane share, from the dataplane's side.
 *
 * Owns: the memfd, its two mappings and the private copy of the layout, which is the one that is used ever after.
 * Core: made by the main thread at start; workers write their rings, statistics and rows.
 * Spec: control/ctl_shm.h; DESIGN section 5 (no byte of the other side is trusted).
 */
#ifndef TICKWIRE_DP_SHM_H
#define TICKWIRE_DP_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/ctl_shm.h"

/* What the layout is computed from. */
struct dp_shm_plan {
	uint32_t workers_count, counters_count, stages_count;
	uint64_t request_ring_bytes, op_ring_bytes; /* powers of two */
	uint64_t arena_bytes;
	uint32_t conns_max, channels_max, queues_max, consumers_max; /* rows a worker */
	uint32_t exchanges_max, bindings_max, rules_max;
	uint32_t lcore[CTL_WORKERS_MAX], numa_node[CTL_WORKERS_MAX];
	uint64_t tsc_hz, boot_id, started_s;
	uint32_t pid;
	const char *port_text, *address_text;
};

struct dp_shm {
	int fd;
	struct ctl_shm_header layout;  /* private: nothing is read from the shared header again */
	struct ctl_shm_header *header; /* shared */
	uint8_t *base;                 /* header, rings, statistics, rows: read and write */
	const uint8_t *arena;          /* databases: read-only */
};

/* Fills the header (all but the magic) from the plan; returns the bytes of the whole memory. Pure. */
uint64_t dp_shm_layout(struct ctl_shm_header *h, const struct dp_shm_plan *plan);
/* Makes, maps, fills and seals the memory. Errors: false and a sentence. */
bool dp_shm_create(struct dp_shm *s, const struct dp_shm_plan *plan, char *err, size_t err_bytes);
/* Writes the magic: from now on others may read it. */
void dp_shm_publish(struct dp_shm *s);
void dp_shm_destroy(struct dp_shm *s);

/* Views of a worker's parts. */
struct ctl_ring_end dp_shm_request_ring(const struct dp_shm *s, uint32_t worker);
struct ctl_ring_end dp_shm_op_ring(const struct dp_shm *s, uint32_t worker);
struct ctl_worker_stats *dp_shm_stats(const struct dp_shm *s, uint32_t worker);
struct ctl_counter_desc *dp_shm_counter_desc(const struct dp_shm *s);

#endif
