/*
 * settle.c - unacknowledged deliveries: the ring of a channel, and ack, nack, reject and recover.
 *
 * Owns: every channel's ring, in blocks of the message pool, and the rings that channels left behind.
 * Core: the worker.
 * Spec: AMQP 0-9-1 sections 1.8.3.13-1.8.3.16, RabbitMQ's basic.nack. Spec says recover with requeue=0 redelivers to the
 * original recipient / we do as RabbitMQ: 540.
 */
#include <assert.h>

#include "amqp/peer.h"

#define SETTLE_AT_ONCE  40u /* deliveries; with more, everybody else has a turn in between */
#define GIVE_UP_AT_ONCE 32u /* of a channel that is gone, twice a turn */

static struct amqp_unacked *at(const struct amqp_channel *ch, uint32_t i)
{
	return &ch->unacked[(ch->unacked_head + i) & (ch->unacked_cap - 1)];
}

/* Closes the gaps that settled deliveries left behind one that is never acknowledged. */
static void compact(struct amqp_channel *ch)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < ch->unacked_len; i++)
		if (at(ch, i)->entry != AMQP_NONE)
			*at(ch, kept++) = *at(ch, i);
	ch->unacked_len = kept;
}

static bool grow(struct amqp_broker *b, struct amqp_channel *ch)
{
	uint32_t cap = ch->unacked_cap != 0 ? ch->unacked_cap * 2 : 16;
	struct amqp_unacked *ring;

	if (cap > UINT32_MAX / 2 / sizeof *ring)
		return false;
	ring = amqp_pool_alloc_client(b->pool, cap * sizeof *ring);
	if (ring == NULL)
		return false;
	for (uint32_t i = 0; i < ch->unacked_len; i++)
		ring[i] = *at(ch, i);
	if (ch->unacked != NULL)
		amqp_pool_free(b->pool, ch->unacked);
	ch->unacked = ring;
	ch->unacked_cap = cap;
	ch->unacked_head = 0;
	return true;
}

bool amqp_unacked_room(struct amqp_broker *b, struct amqp_channel *ch)
{
	if (ch->unacked_len < ch->unacked_cap)
		return true;
	if (ch->unacked_cap != 0 && ch->unacked_count <= ch->unacked_cap / 2) {
		compact(ch);
		return true;
	}
	return grow(b, ch);
}

void amqp_unacked_push(struct amqp_broker *b, struct amqp_channel *ch, uint64_t tag, uint32_t entry, uint32_t consumer)
{
	struct amqp_entry *e = &b->entries[entry];
	struct amqp_queue *q = &b->queues[e->queue];

	assert(ch->unacked_len < ch->unacked_cap);
	e->queue_generation = q->generation;
	q->unacked_count++;
	q->unacked_bytes += e->msg->body_bytes;
	*at(ch, ch->unacked_len++) = (struct amqp_unacked){.tag = tag, .entry = entry, .consumer = consumer};
	ch->unacked_count++;
	if (consumer == AMQP_CONSUMER_GET)
		return;
	ch->unacked_consumed++;
	b->consumers[consumer].unacked_count++;
}

void amqp_unacked_orphan(struct amqp_channel *ch)
{
	for (uint32_t i = 0; i < ch->unacked_len; i++)
		if (at(ch, i)->consumer != AMQP_CONSUMER_GET)
			at(ch, i)->consumer = AMQP_CONSUMER_GONE;
}

void amqp_unacked_forget_consumer(struct amqp_broker *b, struct amqp_consumer *c)
{
	struct amqp_channel *ch = c->ch;
	uint32_t idx = (uint32_t)(c - b->consumers);

	for (uint32_t i = 0; c->unacked_count > 0 && i < ch->unacked_len; i++) {
		if (at(ch, i)->entry == AMQP_NONE || at(ch, i)->consumer != idx)
			continue;
		at(ch, i)->consumer = AMQP_CONSUMER_GONE;
		c->unacked_count--;
	}
	assert(c->unacked_count == 0);
}

/* An entry that nobody waits to be acknowledged any more: it is freed, or goes back to its queue or its worker. */
static void leave_ring(struct amqp_broker *b, uint32_t entry, enum amqp_outcome how)
{
	struct amqp_entry *e = &b->entries[entry];
	struct amqp_queue *q = &b->queues[e->queue];
	bool alive = q->in_use && q->generation == e->queue_generation;

	if (alive) {
		q->unacked_count--;
		q->unacked_bytes -= e->msg->body_bytes;
		q->acked += how == AMQP_ACKED;
	}
	AMQP_COUNT_N(b, acks, how == AMQP_ACKED);
	AMQP_COUNT_N(b, rejects_dropped, how == AMQP_REJECTED);
	AMQP_COUNT_N(b, requeues, how == AMQP_REQUEUED);
	if (amqp_queue_is_mirror(b, e->queue)) {
		amqp_mirror_settle(b, entry, how);
		if (alive)
			amqp_mirror_moved(b, q);
	} else if (how == AMQP_REQUEUED && alive) {
		amqp_queue_requeue(b, q, entry, true);
	} else {
		amqp_entry_free(b, entry);
	}
}

/* One delivery is settled: its slot empties, and its consumer has credit again. */
static void settle(struct amqp_broker *b, struct amqp_channel *ch, struct amqp_unacked *u, enum amqp_outcome how)
{
	uint32_t entry = u->entry;

	ch->unacked_count--;
	if (u->consumer != AMQP_CONSUMER_GET)
		ch->unacked_consumed--;
	if (u->consumer < b->limits.consumers_max) {
		b->consumers[u->consumer].unacked_count--;
		amqp_consumer_unpark(b, &b->consumers[u->consumer]);
	}
	u->entry = AMQP_NONE;
	ch->acks += how == AMQP_ACKED;
	leave_ring(b, entry, how);
}

static void pop_settled(struct amqp_channel *ch)
{
	while (ch->unacked_len > 0 && at(ch, 0)->entry == AMQP_NONE) {
		ch->unacked_head = (ch->unacked_head + 1) & (ch->unacked_cap - 1);
		ch->unacked_len--;
	}
}

/* Position of an unsettled tag; AMQP_NONE: there is none. Tags grow along the ring. */
static uint32_t find(const struct amqp_channel *ch, uint64_t tag)
{
	uint32_t low = 0, high = ch->unacked_len;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (at(ch, mid)->tag < tag)
			low = mid + 1;
		else
			high = mid;
	}
	return low < ch->unacked_len && at(ch, low)->tag == tag && at(ch, low)->entry != AMQP_NONE ? low : AMQP_NONE;
}

/* Oldest first, so that what is requeued finds its place beside the one before it (see amqp_queue_requeue). */
static void settle_range(struct amqp_broker *b, struct amqp_channel *ch, uint32_t first, uint32_t last, enum amqp_outcome how)
{
	bool was_full = ch->prefetch_channel != 0 && ch->unacked_consumed >= ch->prefetch_channel;

	for (uint32_t i = first; i <= last; i++)
		if (at(ch, i)->entry != AMQP_NONE)
			settle(b, ch, at(ch, i), how);
	pop_settled(ch);
	if (was_full && ch->unacked_consumed < ch->prefetch_channel)
		amqp_channel_unpark(b, ch);
}

/*
 * All up to `last`, or the oldest of them: then the same frame is handed over again when others had their turn. It finds its tag,
 * whose delivery is settled last; `settle_to` keeps it for those that name none, since more may be delivered meanwhile.
 */
static enum amqp_verdict settle_up_to(struct amqp_conn *c, struct amqp_channel *ch, uint32_t last, enum amqp_outcome how)
{
	if (last < SETTLE_AT_ONCE) {
		ch->settle_to = 0;
		settle_range(c->b, ch, 0, last, how);
		return AMQP_DONE;
	}
	ch->settle_to = at(ch, last)->tag;
	settle_range(c->b, ch, 0, SETTLE_AT_ONCE - 1, how);
	c->unfinished = true;
	c->b->stalled_fruitless = 0;
	return AMQP_STALL;
}

static enum amqp_verdict settle_all(struct amqp_conn *c, struct amqp_channel *ch, enum amqp_outcome how)
{
	uint32_t last = ch->settle_to != 0 ? find(ch, ch->settle_to) : ch->unacked_len - 1;

	if (ch->unacked_len != 0 && last != AMQP_NONE)
		return settle_up_to(c, ch, last, how);
	ch->settle_to = 0;
	return AMQP_DONE;
}

void amqp_unacked_requeue_all(struct amqp_broker *b, struct amqp_channel *ch)
{
	if (ch->unacked_len > 0)
		settle_range(b, ch, 0, ch->unacked_len - 1, AMQP_REQUEUED);
}

static enum amqp_verdict settle_tag(struct amqp_conn *c, struct amqp_channel *ch, uint64_t tag, bool multiple,
				    enum amqp_outcome how, uint16_t method_id)
{
	uint32_t i;

	if (tag == 0 && multiple)
		return settle_all(c, ch, how);
	i = find(ch, tag);
	if (i == AMQP_NONE)
		return amqp_channel_error(c, ch->number, 406, 60, method_id, "unknown delivery tag %llu", (unsigned long long)tag);
	if (multiple)
		return settle_up_to(c, ch, i, how);
	settle_range(c->b, ch, i, i, how);
	return AMQP_DONE;
}

/* ---- rings of channels that are gone ---- */

/*
 * A ring that nobody owns says where it goes on in the tags of its first slots, which nobody asks for any more: the next ring,
 * its capacity, the position of the oldest that is left, and how many slots there are from there. It has 16 slots at least.
 */
enum { NEXT_RING, CAPACITY, POSITION, LEFT };

bool amqp_unacked_many(const struct amqp_channel *ch)
{
	return ch->unacked_len > SETTLE_AT_ONCE;
}

void amqp_unacked_give_up(struct amqp_broker *b, struct amqp_channel *ch)
{
	struct amqp_unacked *ring = ch->unacked;

	ring[NEXT_RING].tag = 0;
	ring[CAPACITY].tag = ch->unacked_cap;
	ring[POSITION].tag = ch->unacked_head;
	ring[LEFT].tag = ch->unacked_len;
	if (b->given_up_last != NULL)
		b->given_up_last[NEXT_RING].tag = (uintptr_t)ring;
	else
		b->given_up_first = ring;
	b->given_up_last = ring;
	b->given_up_count += ch->unacked_count;
	ch->unacked = NULL;
	ch->unacked_cap = ch->unacked_head = ch->unacked_len = 0;
	ch->unacked_count = ch->unacked_consumed = 0;
}

void amqp_given_up_step(struct amqp_broker *b)
{
	struct amqp_unacked *ring = b->given_up_first;
	uint64_t mask = ring[CAPACITY].tag - 1;

	for (uint32_t n = 0; n < GIVE_UP_AT_ONCE && ring[LEFT].tag > 0; n++) {
		uint32_t entry = ring[ring[POSITION].tag++ & mask].entry;

		ring[LEFT].tag--;
		if (entry == AMQP_NONE)
			continue;
		b->given_up_count--;
		leave_ring(b, entry, AMQP_REQUEUED);
	}
	if (ring[LEFT].tag > 0)
		return;
	b->given_up_first = (struct amqp_unacked *)(uintptr_t)ring[NEXT_RING].tag;
	if (b->given_up_first == NULL)
		b->given_up_last = NULL;
	amqp_pool_free(b->pool, ring);
}

const char *amqp_given_up_check(const struct amqp_broker *b, uint64_t *live)
{
	uint64_t left = 0;

	for (const struct amqp_unacked *ring = b->given_up_first; ring != NULL;
	     ring = (const struct amqp_unacked *)(uintptr_t)ring[NEXT_RING].tag)
		for (uint64_t i = 0; i < ring[LEFT].tag; i++) {
			uint32_t entry = ring[(ring[POSITION].tag + i) & (ring[CAPACITY].tag - 1)].entry;
			const struct amqp_queue *q;

			if (entry == AMQP_NONE)
				continue;
			left++;
			q = &b->queues[b->entries[entry].queue];
			*live += q->in_use && q->generation == b->entries[entry].queue_generation;
		}
	return left == b->given_up_count ? NULL : "what channels that are gone had unacknowledged is miscounted";
}

/* ---- methods ---- */

enum amqp_verdict amqp_on_ack(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	uint64_t tag = amqp_read_u64(args);
	bool multiple = amqp_read_u8(args) & 1;

	if (args->bad)
		return amqp_conn_error(c, 501, 60, 80, "the arguments are cut short");
	return settle_tag(c, ch, tag, multiple, AMQP_ACKED, 80);
}

enum amqp_verdict amqp_on_nack(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	uint64_t tag = amqp_read_u64(args);
	uint8_t bits = amqp_read_u8(args);

	if (args->bad)
		return amqp_conn_error(c, 501, 60, 120, "the arguments are cut short");
	return settle_tag(c, ch, tag, (bits & 1) != 0, bits & 2 ? AMQP_REQUEUED : AMQP_REJECTED, 120);
}

enum amqp_verdict amqp_on_reject(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	uint64_t tag = amqp_read_u64(args);
	bool requeue = amqp_read_u8(args) & 1;

	if (args->bad)
		return amqp_conn_error(c, 501, 60, 90, "the arguments are cut short");
	return settle_tag(c, ch, tag, false, requeue ? AMQP_REQUEUED : AMQP_REJECTED, 90);
}

enum amqp_verdict amqp_on_recover(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args, bool reply)
{
	bool requeue = amqp_read_u8(args) & 1;
	uint16_t method_id = reply ? 110 : 100;
	struct amqp_writer w;

	if (args->bad)
		return amqp_conn_error(c, 501, 60, method_id, "the arguments are cut short");
	if (!requeue)
		return amqp_conn_error(c, 540, 60, method_id, "requeue=false");
	if (settle_all(c, ch, AMQP_REQUEUED) == AMQP_STALL)
		return AMQP_STALL;
	if (!reply)
		return AMQP_DONE;
	amqp_method_begin(&w, ch->number, 60, 111);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}
