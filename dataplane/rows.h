/*
 * rows.h - snapshots of connections, channels, queues and consumers for `tickctl list_*`.
 *
 * Owns: the worker's walk over its pools and the rows in shared memory.
 * Core: the worker, a row at a time, so that a listing never costs a tick its place.
 * Spec: control/ctl_shm.h (rows and their sequence numbers).
 */
#ifndef TICKWIRE_DP_ROWS_H
#define TICKWIRE_DP_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "amqp/amqp.h"
#include "dataplane/shm.h"

#define DP_ROWS_SWEEP_NS 100000000ull /* a sweep over all rows begins at most this often */
/*
 * From one row to the next: in a turn that had nothing to do, and in busy ones, so that a worker that is never idle gives rows a
 * two-hundredth of its time. With more than 20,000 rows busy turns write them more often: a sweep ends within
 * DP_ROWS_BUSY_SWEEP_NS.
 */
#define DP_ROWS_IDLE_NS       20000ull
#define DP_ROWS_BUSY_NS       500000ull
#define DP_ROWS_BUSY_SWEEP_NS 10000000000ull

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
	uint64_t due_ns[2]; /* when the next row may be written: by an idle turn, by a busy one */
	uint64_t busy_gap_ns;
};

void dp_rows_init(struct dp_rows *r, const struct dp_shm *shm, uint32_t worker);
/* Writes one row. False: none, for it was the last of a sweep, or the next is not to begin yet. */
bool dp_rows_step(struct dp_rows *r, struct amqp_broker *broker, uint64_t now_ns);

/* Inline: the worker asks at every turn. */
static inline bool dp_rows_due(const struct dp_rows *r, bool busy, uint64_t now_ns)
{
	return now_ns >= r->due_ns[busy];
}

#endif
