/*
 * store.h - the durable definitions, in LMDB.
 *
 * Owns: the environment in the data directory and the one write transaction that a batch of requests shares.
 * Core: control's event loop.
 * Spec: a definition is a record (rib_store.c) under a 64-bit number; number 0 holds the format's version.
 */
#ifndef TICKWIRE_CTL_STORE_H
#define TICKWIRE_CTL_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp/records.h"

struct ctl_store;

/*
 * Opens or makes the store in `dir`. Without `sync` a commit survives the death of the process but not that of the machine.
 * Errors: NULL and a sentence with its cure.
 */
struct ctl_store *ctl_store_open(const char *dir, uint64_t bytes_max, bool sync, char *err, size_t err_bytes);
void ctl_store_close(struct ctl_store *s); /* what was not committed is lost */

/* Both begin a transaction when none is open. Errors: 0 or false, logged; what came before in the transaction stays. */
uint64_t ctl_store_put(struct ctl_store *s, const struct amqp_record *def);
bool ctl_store_del(struct ctl_store *s, uint64_t id);
/* Writes to the disk what is open. Errors: false, logged; nothing of the transaction was kept. */
bool ctl_store_commit(struct ctl_store *s);
void ctl_store_abort(struct ctl_store *s);

/* Every definition of that kind, to `each` (which may put and delete). Records that cannot be read are logged and left alone. */
void ctl_store_each(struct ctl_store *s, uint16_t kind, void (*each)(void *ctx, const struct amqp_record *def, uint64_t id),
		    void *ctx);

#endif
