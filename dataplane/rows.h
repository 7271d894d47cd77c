/*
 * rows.h - snapshots of connections, channels, queues and consumers for `tickctl list_*`.
 *
 * Owns: the worker's walk over its pools and the rows in shared memory.
 * Core: the worker, a few rows a turn, so that a listing never costs a tick its place.
 * Spec: control/ctl_shm.h (rows and their sequence numbers).
 */
#ifndef TICKWIRE_DP_ROWS_H
#define TICKWIRE_DP_ROWS_H

#include <stdint.h>

#include "amqp/amqp.h"
#include "dataplane/shm.h"

#define DP_ROWS_SWEEP_NS 100000000ull /* a sweep over all rows begins at most this often */

struct dp_rows_table {
	uint8_t *rows; /* shared */
	_Atomic uint32_t *rows_used;
	uint32_t row_bytes, rows_max;
};

struct dp_rows {
	struct dp_rows_table table[4];
	unsigned current; /* table; 4: no sweep is under way */
	uint32_t next_idx, end_idx;
	uint64_t next_sweep_ns;
};

void dp_rows_init(struct dp_rows *r, const struct dp_shm *shm, uint32_t worker);
/* Writes up to `budget` rows. Returns how many it wrote. */
uint32_t dp_rows_step(struct dp_rows *r, struct amqp_broker *broker, uint32_t budget, uint64_t now_ns);

#endif
