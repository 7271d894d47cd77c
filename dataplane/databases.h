/*
 * databases.h - the compiled binding databases that are open, and where in the arena they lie.
 *
 * Owns: the table of open databases and the newest scratch.
 * Core: the main thread; a worker gets and gives back pointers by mail.
 * Spec: DESIGN section 6; control/ctl_shm.h (DB_PUBLISH and what follows it).
 */
#ifndef TICKWIRE_DP_DATABASES_H
#define TICKWIRE_DP_DATABASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/ctl_shm.h"
#include "matcher/matcher.h"

struct dp_db {
	bool in_use;
	struct match_db *db[CTL_WORKERS_MAX]; /* each worker has its own handle; NULL: it gave it back */
	uint32_t exchange_id;
	bool taken;            /* by a worker at least */
	uint32_t answers_left; /* workers in whose mail it is */
	uint64_t generation, offset, bytes;
};

struct dp_databases {
	const uint8_t *arena;
	uint64_t arena_bytes;
	struct dp_db *slot;
	uint32_t slots_count;
	uint32_t workers_count;
	/* Fits every database opened so far; the worker has it or will have it. A scratch is one thread's. */
	struct match_scratch *scratch[CTL_WORKERS_MAX];
};

/* Room for two databases an exchange: one in use, one on its way. Errors: false when there is no memory. */
bool dp_databases_init(struct dp_databases *d, const uint8_t *arena, uint64_t arena_bytes, uint32_t exchanges_max,
		       uint32_t workers_count);
/* Closes everything; the workers must have left. */
void dp_databases_fini(struct dp_databases *d);
/*
 * Opens what control has put into the arena; nothing in the message or in the arena is trusted. Returns the slot.
 * Errors: NULL and a sentence.
 */
struct dp_db *dp_databases_open(struct dp_databases *d, const struct ctl_msg *msg, char *err, size_t err_bytes);
struct dp_db *dp_databases_find(struct dp_databases *d, uint32_t worker, const struct match_db *db);
/* Closes a worker's handle. True: it was the last, and the slot is free when the caller has read it and cleared in_use. */
bool dp_databases_close(struct dp_db *slot, uint32_t worker);
/* The worker gave a scratch back. */
void dp_databases_return_scratch(struct dp_databases *d, uint32_t worker, struct match_scratch *s);

#endif
