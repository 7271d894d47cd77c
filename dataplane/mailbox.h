/*
 * mailbox.h - letters between the main thread and a worker.
 *
 * Owns: one ring of slots for one direction; a pair of them serves a worker.
 * Core: exactly one sender and one reader, each on its own thread; neither ever waits inside.
 * Spec: DESIGN section 5: what control sends through the main thread takes effect at a burst boundary.
 */
#ifndef TICKWIRE_DP_MAILBOX_H
#define TICKWIRE_DP_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct match_db;
struct match_scratch;

enum dp_mail_kind {
	/* main to worker */
	DP_MAIL_CONTROL_ATTACHED = 1, /* empty both rings and answer RINGS_READY */
	DP_MAIL_CONTROL_GONE,
	DP_MAIL_NEW_DB, /* exchange_id, db, scratch that fits it */
	DP_MAIL_DRAIN,  /* close all and answer DRAINED; number: how long at most, in ns */
	/* worker to main */
	DP_MAIL_RINGS_READY,
	DP_MAIL_DB_TAKEN,     /* exchange_id, db as mailed; old_db, scratch: given back, may be NULL; old_db == db: refused */
	DP_MAIL_DB_DROPPED,   /* old_db: its exchange was deleted */
	DP_MAIL_RING_CORRUPT, /* control wrote nonsense into the operation ring */
	DP_MAIL_DRAINED       /* number: connections that were still open at the deadline */
};

struct dp_mail {
	enum dp_mail_kind kind;
	uint32_t exchange_id;
	uint64_t number;
	struct match_db *db, *old_db;
	struct match_scratch *scratch;
};

#define DP_MAILBOX_SLOTS 64u /* a power of two */

struct dp_mailbox {
	_Alignas(64) _Atomic uint32_t head; /* written by the sender */
	_Alignas(64) _Atomic uint32_t tail; /* written by the reader */
	_Alignas(64) struct dp_mail slot[DP_MAILBOX_SLOTS];
};

void dp_mailbox_init(struct dp_mailbox *m);
/* Errors: false when all slots are full; nothing was sent. */
bool dp_mailbox_put(struct dp_mailbox *m, const struct dp_mail *mail);
/* Errors: false when there is no letter. */
bool dp_mailbox_get(struct dp_mailbox *m, struct dp_mail *mail);
/* Sender's view: free slots, at least. */
uint32_t dp_mailbox_room(const struct dp_mailbox *m);

/* Reader's view, inline: the worker asks at every loop. */
static inline bool dp_mailbox_empty(const struct dp_mailbox *m)
{
	return atomic_load_explicit(&m->tail, memory_order_relaxed) == atomic_load_explicit(&m->head, memory_order_relaxed);
}

#endif
