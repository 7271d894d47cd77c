/*
 * queue.c - queues: entries, the ready list in publishing order, bounds and overflow, and the work lists of queues.
 *
 * Owns: the pool of entries, every queue's ready list, b->drain, b->unused and the garbage of deleted queues.
 * Core: the worker.
 * Spec: AMQP 0-9-1 section 3.1.4; RabbitMQ's x-max-length, x-max-length-bytes and x-overflow.
 */
#include <assert.h>

#include "amqp/peer.h"

#define NOTICES_AT_ONCE  16u
#define DROP_AT_ONCE_MAX 64u /* entries freed within one method; more become garbage, so that no burst waits for them */

uint32_t amqp_entry_new(struct amqp_broker *b, struct amqp_queue *q, struct amqp_msg *m)
{
	uint32_t idx = b->entries_free;
	struct amqp_entry *e;

	if (idx == AMQP_NONE)
		return AMQP_NONE;
	e = &b->entries[idx];
	b->entries_free = e->next;
	b->entries_count++;
	amqp_msg_ref(b, m);
	e->msg = m;
	e->seq = q->next_seq++;
	e->next = AMQP_NONE;
	e->prev = AMQP_NONE;
	e->queue = q->id;
	e->redelivered = 0;
	e->out = 0;
	return idx;
}

void amqp_entry_free(struct amqp_broker *b, uint32_t idx)
{
	struct amqp_entry *e = &b->entries[idx];

	assert(idx < b->limits.entries_max);
	amqp_msg_unref(b, e->msg);
	e->msg = NULL;
	e->next = b->entries_free;
	b->entries_free = idx;
	b->entries_count--;
}

/* ---- the ready list ---- */

/* Links the entry behind `after`; AMQP_NONE: at the head. */
static void link_behind(struct amqp_broker *b, struct amqp_queue *q, uint32_t idx, uint32_t after)
{
	struct amqp_entry *e = &b->entries[idx];
	uint32_t before = after == AMQP_NONE ? q->ready_first : b->entries[after].next;

	e->prev = after;
	e->next = before;
	if (after != AMQP_NONE)
		b->entries[after].next = idx;
	else
		q->ready_first = idx;
	if (before != AMQP_NONE)
		b->entries[before].prev = idx;
	else
		q->ready_last = idx;
	q->ready_count++;
	q->ready_bytes += e->msg->body_bytes;
}

void amqp_queue_append(struct amqp_broker *b, struct amqp_queue *q, uint32_t entry)
{
	link_behind(b, q, entry, q->ready_last);
}

uint32_t amqp_queue_take_head(struct amqp_broker *b, struct amqp_queue *q)
{
	uint32_t idx = q->ready_first;
	struct amqp_entry *e;

	if (idx == AMQP_NONE)
		return AMQP_NONE;
	e = &b->entries[idx];
	q->ready_first = e->next;
	if (e->next != AMQP_NONE)
		b->entries[e->next].prev = AMQP_NONE;
	else
		q->ready_last = AMQP_NONE;
	q->ready_count--;
	q->ready_bytes -= e->msg->body_bytes;
	if (q->requeue_hint == idx)
		q->requeue_hint = AMQP_NONE;
	return idx;
}

static void drop_head(struct amqp_broker *b, struct amqp_queue *q)
{
	amqp_entry_free(b, amqp_queue_take_head(b, q));
	q->dropped++;
	AMQP_COUNT(b, dropped_head);
}

/*
 * Where a requeued entry belongs. A batch comes back oldest first, so each is found beside the one before it: the hint
 * makes a batch linear however many messages of other consumers came back in between, and however many turns it takes. A hint that
 * was delivered meanwhile took all before it along: then the next one belongs to the head.
 */
static uint32_t place_of(const struct amqp_broker *b, const struct amqp_queue *q, uint64_t seq)
{
	uint32_t at;

	if (q->ready_first == AMQP_NONE || b->entries[q->ready_first].seq > seq)
		return AMQP_NONE;
	if (b->entries[q->ready_last].seq < seq)
		return q->ready_last;
	at = q->requeue_hint != AMQP_NONE ? q->requeue_hint : q->ready_first;
	while (b->entries[at].seq > seq)
		at = b->entries[at].prev;
	while (b->entries[at].next != AMQP_NONE && b->entries[b->entries[at].next].seq < seq)
		at = b->entries[at].next;
	return at;
}

void amqp_queue_requeue(struct amqp_broker *b, struct amqp_queue *q, uint32_t entry, bool redelivered)
{
	struct amqp_entry *e = &b->entries[entry];

	if (redelivered) {
		e->redelivered = 1;
		q->redelivered++;
	}
	link_behind(b, q, entry, place_of(b, q, e->seq));
	q->requeue_hint = entry;
	while (q->ready_count > q->max_length || (q->ready_count > 0 && q->ready_bytes > q->max_length_bytes))
		drop_head(b, q);
	amqp_queue_drain_later(b, q);
}

enum amqp_queued amqp_queue_enqueue(struct amqp_broker *b, struct amqp_queue *q, struct amqp_msg *m)
{
	uint32_t idx;

	while (q->ready_count > 0 && amqp_queue_would_overflow(q, m->body_bytes))
		drop_head(b, q);
	if (amqp_queue_would_overflow(q, m->body_bytes)) {
		q->dropped++;
		AMQP_COUNT(b, dropped_head);
		return AMQP_DROPPED;
	}
	idx = amqp_entry_new(b, q, m);
	if (idx == AMQP_NONE)
		return AMQP_NO_ENTRY;
	amqp_queue_append(b, q, idx);
	AMQP_COUNT(b, enqueued);
	return AMQP_QUEUED;
}

/* ---- dropping many ---- */

void amqp_queue_drop_ready(struct amqp_broker *b, struct amqp_queue *q)
{
	if (q->ready_count <= DROP_AT_ONCE_MAX) {
		while (q->ready_first != AMQP_NONE)
			amqp_entry_free(b, amqp_queue_take_head(b, q));
		return;
	}
	if (b->garbage_last != AMQP_NONE)
		b->entries[b->garbage_last].next = q->ready_first;
	else
		b->garbage_first = q->ready_first;
	b->garbage_last = q->ready_last;
	b->garbage_count += q->ready_count;
	q->ready_first = AMQP_NONE;
	q->ready_last = AMQP_NONE;
	q->requeue_hint = AMQP_NONE;
	q->ready_count = 0;
	q->ready_bytes = 0;
}

bool amqp_garbage_step(struct amqp_broker *b, uint32_t budget)
{
	for (; b->garbage_first != AMQP_NONE && budget > 0; budget--) {
		uint32_t idx = b->garbage_first;

		b->garbage_first = b->entries[idx].next;
		b->garbage_count--;
		if (b->garbage_first == AMQP_NONE)
			b->garbage_last = AMQP_NONE;
		amqp_entry_free(b, idx);
	}
	return b->garbage_first != AMQP_NONE;
}

uint32_t amqp_queue_purge(struct amqp_broker *b, struct amqp_queue *q)
{
	uint32_t n = q->ready_count;

	amqp_queue_drop_ready(b, q);
	return n;
}

/* ---- work lists ---- */

void amqp_queue_drain_later(struct amqp_broker *b, struct amqp_queue *q)
{
	if (q->drain_queued || q->ready_count == 0 || q->consumer_next == AMQP_NONE)
		return;
	q->drain_queued = true;
	q->drain_next = AMQP_NONE;
	if (b->drain_last != AMQP_NONE)
		b->queues[b->drain_last].drain_next = q->id;
	else
		b->drain_first = q->id;
	b->drain_last = q->id;
}

void amqp_queue_unused(struct amqp_broker *b, struct amqp_queue *q)
{
	if (!(q->flags & AMQP_DEF_AUTO_DELETE) || !q->had_consumer || q->consumers_count != 0 || q->unused_queued)
		return;
	q->unused_queued = true;
	q->unused_next = b->unused_first;
	b->unused_first = q->id;
	amqp_unused_step(b);
}

/*
 * The notice is dropped where it is no longer true: the queue went, or someone consumes again. While control
 * reads a dump it is told nothing else, and then everything once.
 */
void amqp_unused_step(struct amqp_broker *b)
{
	if (!b->control_attached || b->dumping || b->renewing || b->resync)
		return;
	for (unsigned n = 0; n < NOTICES_AT_ONCE && b->unused_first != AMQP_NONE; n++) {
		struct amqp_queue *q = &b->queues[b->unused_first];
		struct amqp_record rec = {.kind = AMQP_REQ_QUEUE_UNUSED, .id = q->id};

		if (q->in_use && q->consumers_count == 0 && q->had_consumer) {
			if (!b->ops.request(b->ctx, &rec)) {
				AMQP_COUNT(b, requests_deferred);
				return;
			}
			AMQP_COUNT(b, requests_sent);
		}
		b->unused_first = q->unused_next;
		q->unused_queued = false;
	}
}

/* ---- methods ---- */

struct amqp_queue *amqp_queue_of_method(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span name, uint16_t class_id,
					uint16_t method_id, enum amqp_verdict *verdict)
{
	struct amqp_queue *q;

	if (name.len == 0) {
		name = (struct amqp_span){ch->last_queue + 1, ch->last_queue[0]};
		if (name.len == 0) {
			*verdict = amqp_channel_error(c, ch->number, 404, class_id, method_id, "no previously declared queue");
			return NULL;
		}
	}
	q = amqp_queue_find(c->b, c->vhost_id, name);
	if (q == NULL) {
		*verdict = amqp_channel_error(c, ch->number, 404, class_id, method_id, "no queue '%.*s' in vhost '%.*s'",
					      AMQP_SPAN_ARGS(name), AMQP_SPAN_ARGS(c->vhost));
		return NULL;
	}
	if ((q->flags & AMQP_DEF_EXCLUSIVE) && q->owner_uid != c->uid) {
		*verdict = amqp_channel_error(c, ch->number, 405, class_id, method_id,
					      "cannot obtain exclusive access to locked queue '%.*s' in vhost '%.*s'",
					      AMQP_SPAN_ARGS(name), AMQP_SPAN_ARGS(c->vhost));
		return NULL;
	}
	return q;
}

enum amqp_verdict amqp_on_queue_purge(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	struct amqp_writer w;
	struct amqp_queue *q;
	struct amqp_span name;
	enum amqp_verdict verdict;
	bool no_wait;
	uint32_t n;

	amqp_read_u16(args);
	name = amqp_read_shortstr(args);
	no_wait = amqp_read_u8(args) & 1;
	if (args->bad)
		return amqp_conn_error(c, 501, 50, 30, "the arguments are cut short");
	q = amqp_queue_of_method(c, ch, name, 50, 30, &verdict);
	if (q == NULL)
		return verdict;
	if (c->answer != NULL)
		n = (uint32_t)c->answer->number[0];
	else if (!amqp_queue_is_here(c->b, q))
		return amqp_mirror_ask(c, q, AMQP_NOTE_PURGE, 0, false);
	else
		n = amqp_queue_purge(c->b, q);
	if (no_wait)
		return AMQP_DONE;
	amqp_method_begin(&w, ch->number, 50, 31);
	amqp_put_u32(&w, n);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}
