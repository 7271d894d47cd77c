/*
 * remote.c - what other workers want of the queues that live here: their consumers, their basic.get, purge and counts.
 *
 * Owns: the consumers that stand for those of other workers, and the entries that these have.
 * Core: the worker.
 * Spec: AMQP 0-9-1 class basic. A message that goes to another worker stays here as unacknowledged, in its entry, until that
 * worker says what became of it: it is never in two places, and never in none.
 */
#include <assert.h>

#include "amqp/peer.h"

#define OUT_BYTES_MAX (256u << 10) /* on the way to one consumer: large messages do not fill the other worker's reach */

bool amqp_remote_ready(struct amqp_broker *b, const struct amqp_consumer *c)
{
	if (c->remote.sent >= c->remote.sent_max || c->remote.sent_bytes - c->remote.passed_bytes >= OUT_BYTES_MAX)
		return false; /* a CREDIT unparks it */
	if (amqp_note_room(b, c->remote.worker, AMQP_WAY_DELIVER))
		return true;
	b->peers[c->remote.worker].full = true;
	return false;
}

static void send_out(struct amqp_broker *b, struct amqp_queue *q, uint32_t entry, uint32_t worker, struct amqp_note *n)
{
	struct amqp_entry *e = &b->entries[entry];

	e->out = (uint8_t)(worker + 1);
	e->queue_generation = q->generation;
	q->unacked_count++;
	q->unacked_bytes += e->msg->body_bytes;
	b->out_count++;
	amqp_msg_ref(b, e->msg);
	b->peer_refs++;
	n->msg = e->msg;
	n->flags = e->redelivered;
	AMQP_NOTE_ENTRY(n) = entry;
}

enum amqp_sent amqp_remote_deliver(struct amqp_broker *b, struct amqp_queue *q, struct amqp_consumer *c, uint32_t entry)
{
	struct amqp_note *n = amqp_note_put(b, c->remote.worker, AMQP_WAY_DELIVER);

	assert(n != NULL); /* it was ready just now */
	n->kind = AMQP_NOTE_DELIVER;
	n->token = c->remote.handle;
	c->remote.sent++;
	c->remote.sent_bytes += b->entries[entry].msg->body_bytes;
	send_out(b, q, entry, c->remote.worker, n);
	return AMQP_SENT;
}

/* ---- questions ---- */

static void consume(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n, struct amqp_queue *q,
		    struct amqp_note *answer)
{
	bool exclusive = n->flags & 1;
	struct amqp_consumer *c;

	answer->number[2] = n->number[0];
	if (q == NULL) {
		answer->code = 404;
		return;
	}
	if (q->exclusive_consumer != AMQP_NONE || (exclusive && q->consumers_count > 0)) {
		answer->code = 403;
		return;
	}
	c = amqp_consumer_add_remote(b, q, worker, n->number[0], exclusive);
	if (c == NULL)
		answer->code = 506;
	else
		answer->id = (uint32_t)(c - b->consumers);
}

/* The head of the queue, or the news that there is none. */
static void get(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n, struct amqp_queue *q)
{
	struct amqp_note *answer;

	if (q == NULL || q->ready_count == 0) {
		answer = amqp_note_put(b, worker, AMQP_WAY_SETTLE);
		answer->kind = AMQP_NOTE_ANSWER;
		answer->token = n->token;
		return;
	}
	answer = amqp_note_put(b, worker, AMQP_WAY_DELIVER);
	answer->kind = AMQP_NOTE_GOT;
	answer->token = n->token;
	send_out(b, q, amqp_queue_take_head(b, q), worker, answer);
	answer->number[0] = q->ready_count;
	q->delivered++;
}

bool amqp_remote_ask(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n)
{
	struct amqp_queue *q = amqp_queue_is(b, n->id, n->stamp) ? &b->queues[n->id] : NULL;
	struct amqp_note *answer;

	if (!amqp_note_room(b, worker, AMQP_WAY_SETTLE) || !amqp_note_room(b, worker, AMQP_WAY_DELIVER))
		return false;
	if (n->kind == AMQP_NOTE_GET) {
		get(b, worker, n, q);
		return true;
	}
	answer = amqp_note_put(b, worker, AMQP_WAY_SETTLE);
	answer->kind = AMQP_NOTE_ANSWER;
	answer->token = n->token;
	if (n->kind == AMQP_NOTE_CONSUME) {
		consume(b, worker, n, q, answer);
		return true;
	}
	answer->code = q == NULL ? 404 : 0;
	if (q == NULL)
		return true;
	answer->number[0] = n->kind == AMQP_NOTE_PURGE ? amqp_queue_purge(b, q) : q->ready_count;
	answer->number[1] = q->consumers_count;
	return true;
}

/* ---- what became of deliveries ---- */

static void settle(struct amqp_broker *b, uint32_t worker, uint32_t entry, enum amqp_outcome how)
{
	struct amqp_entry *e = &b->entries[entry];
	struct amqp_queue *q;
	bool alive;

	if (entry >= b->limits.entries_max || e->msg == NULL || e->out != worker + 1)
		return;
	q = &b->queues[e->queue];
	alive = q->in_use && q->generation == e->queue_generation;
	e->out = 0;
	b->out_count--;
	if (alive) {
		q->unacked_count--;
		q->unacked_bytes -= e->msg->body_bytes;
		q->acked += how == AMQP_ACKED;
	}
	if (alive && (how == AMQP_REQUEUED || how == AMQP_RETURNED))
		amqp_queue_requeue(b, q, entry, how == AMQP_REQUEUED);
	else
		amqp_entry_free(b, entry);
}

void amqp_remote_settle(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n)
{
	for (uint32_t i = 0; i < n->count && i < AMQP_NOTE_ENTRIES; i++)
		settle(b, worker, n->entry_of[i], (enum amqp_outcome)n->flags);
}

/* The consumer that a note means; NULL: it went with its queue. */
static struct amqp_consumer *consumer_of(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n)
{
	struct amqp_consumer *c = n->id < b->limits.consumers_max ? &b->consumers[n->id] : NULL;

	return c != NULL && c->in_use && amqp_consumer_is_remote(c) && c->remote.worker == worker && c->remote.handle == n->token
		       ? c
		       : NULL;
}

void amqp_remote_credit(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n)
{
	struct amqp_consumer *c = consumer_of(b, worker, n);

	if (c == NULL)
		return;
	c->remote.sent_max = n->number[0];
	c->remote.passed_bytes = n->number[1];
	amqp_consumer_unpark(b, c);
}

void amqp_remote_cancel(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n)
{
	struct amqp_consumer *c = consumer_of(b, worker, n);
	struct amqp_queue *q;

	if (c == NULL)
		return;
	q = &b->queues[c->queue];
	amqp_consumer_remove(b, c);
	amqp_queue_unused(b, q);
}
