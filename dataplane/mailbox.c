/*
 * mailbox.c - letters between the main thread and a worker.
 *
 * Owns: one ring of slots for one direction; a pair of them serves a worker.
 * Core: exactly one sender and one reader, each on its own thread; neither ever waits inside.
 * Spec: DESIGN section 5: what control sends through the main thread takes effect at a burst boundary.
 */
#include "dataplane/mailbox.h"

#include <string.h>

void dp_mailbox_init(struct dp_mailbox *m)
{
	memset(m, 0, sizeof *m);
}

uint32_t dp_mailbox_room(const struct dp_mailbox *m)
{
	uint32_t head = atomic_load_explicit(&m->head, memory_order_relaxed);

	return DP_MAILBOX_SLOTS - (head - atomic_load_explicit(&m->tail, memory_order_acquire));
}

bool dp_mailbox_put(struct dp_mailbox *m, const struct dp_mail *mail)
{
	uint32_t head = atomic_load_explicit(&m->head, memory_order_relaxed);

	if (dp_mailbox_room(m) == 0)
		return false;
	m->slot[head % DP_MAILBOX_SLOTS] = *mail;
	atomic_store_explicit(&m->head, head + 1, memory_order_release);
	return true;
}

bool dp_mailbox_get(struct dp_mailbox *m, struct dp_mail *mail)
{
	uint32_t tail = atomic_load_explicit(&m->tail, memory_order_relaxed);

	if (tail == atomic_load_explicit(&m->head, memory_order_acquire))
		return false;
	*mail = m->slot[tail % DP_MAILBOX_SLOTS];
	atomic_store_explicit(&m->tail, tail + 1, memory_order_release);
	return true;
}
