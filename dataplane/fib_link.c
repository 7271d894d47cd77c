/*
 * fib_link.c - records between the worker's broker and control: requests out, operations in.
 *
 * Owns: the worker's ends of the two rings, and the decision to wake control.
 * Core: the worker.
 * Spec: DESIGN section 5; control/ctl_shm.h.
 */
#include "dataplane/fib_link.h"

#include <unistd.h>

#include "dataplane/worker.h"

/*
 * The only system call of the worker's own. It comes with declarations, never with ticks, and only when control has said
 * that it sleeps. The eventfd does not block; when its count is full, control has been woken often enough.
 */
static void kick(struct dp_worker *w)
{
	const uint64_t one = 1;

	w->counter[DP_CNT_worker_kicks]++;
	if (write(w->kick_fd, &one, sizeof one) < 0)
		return;
}

bool dp_fib_request(struct dp_worker *w, const struct amqp_record *rec)
{
	if (!w->control_attached || !ctl_ring_put(&w->requests, rec))
		return false;
	if (ctl_ring_wants_kick(&w->requests))
		kick(w);
	return true;
}

uint32_t dp_fib_apply(struct dp_worker *w)
{
	struct amqp_record rec;
	uint32_t count = 0;
	int got = 0;

	while (count < DP_OPS_A_TURN && (got = ctl_ring_get(&w->ops, w->op_scratch, &rec)) == 1) {
		/* A refused operation is reported to control by the broker itself. */
		amqp_apply(w->amqp, &rec);
		count++;
	}
	if (got < 0) {
		/* What was lost is unknown, so nothing more is taken from this control; the main thread sends it away. */
		w->ops_corrupt = true;
		w->counter[DP_CNT_worker_op_ring_corrupt]++;
		dp_mailbox_put(&w->outbox, &(struct dp_mail){.kind = DP_MAIL_RING_CORRUPT});
	}
	w->counter[DP_CNT_worker_ops] += count;
	return count;
}

void dp_fib_attach(struct dp_worker *w)
{
	ctl_ring_init(w->requests.ring);
	ctl_ring_init(w->ops.ring);
	w->ops_corrupt = false;
	w->control_attached = true;
	amqp_control_attached(w->amqp);
}

void dp_fib_detach(struct dp_worker *w)
{
	if (!w->control_attached)
		return;
	w->control_attached = false;
	amqp_control_gone(w->amqp);
}
