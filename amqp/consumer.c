/*
 * consumer.c - consumers: who may take a message now, who is parked, and the methods that make and end them.
 *
 * Owns: the pool of consumers, each queue's ring and parked list, each channel's list.
 * Core: the worker.
 * Spec: AMQP 0-9-1 sections 1.8.3.2-1.8.3.6 (basic.qos, consume, cancel); RabbitMQ's prefetch per consumer and its
 * consumer_cancel_notify. Spec says basic.qos global=1 is for the connection / we do as RabbitMQ: for the channel.
 */
#include <assert.h>
#include <stdio.h>

#include "amqp/peer.h"
#include "amqp/hash.h"
#include "amqp/table.h"

/* ---- ring and parked list of a queue ---- */

/* Who is plain is decided when the ring changes, so that no delivery has to ask. */
static void ring_changed(struct amqp_broker *b, struct amqp_queue *q)
{
	struct amqp_consumer *c = q->consumer_next != AMQP_NONE ? &b->consumers[q->consumer_next] : NULL;

	q->plain = c != NULL && c->no_ack && c->queue_next == q->consumer_next && q->overflow == AMQP_OVERFLOW_DROP_HEAD ? c : NULL;
}

static void ring_insert(struct amqp_broker *b, struct amqp_queue *q, struct amqp_consumer *c, uint32_t idx)
{
	if (q->consumer_next == AMQP_NONE) {
		q->consumer_next = c->queue_next = c->queue_prev = idx;
	} else { /* before the one that is served next: last in turn */
		struct amqp_consumer *next = &b->consumers[q->consumer_next];

		c->queue_next = q->consumer_next;
		c->queue_prev = next->queue_prev;
		b->consumers[next->queue_prev].queue_next = idx;
		next->queue_prev = idx;
	}
	c->parked = false;
	ring_changed(b, q);
}

static void ring_remove(struct amqp_broker *b, struct amqp_queue *q, struct amqp_consumer *c, uint32_t idx)
{
	if (c->queue_next == idx) {
		q->consumer_next = AMQP_NONE;
	} else {
		b->consumers[c->queue_prev].queue_next = c->queue_next;
		b->consumers[c->queue_next].queue_prev = c->queue_prev;
		if (q->consumer_next == idx)
			q->consumer_next = c->queue_next;
	}
	ring_changed(b, q);
}

static void parked_remove(struct amqp_broker *b, struct amqp_queue *q, struct amqp_consumer *c)
{
	if (c->queue_prev != AMQP_NONE)
		b->consumers[c->queue_prev].queue_next = c->queue_next;
	else
		q->parked_first = c->queue_next;
	if (c->queue_next != AMQP_NONE)
		b->consumers[c->queue_next].queue_prev = c->queue_prev;
	c->conn->parked_count--;
}

void amqp_consumer_park(struct amqp_broker *b, struct amqp_consumer *c)
{
	struct amqp_queue *q = &b->queues[c->queue];
	uint32_t idx = (uint32_t)(c - b->consumers);

	ring_remove(b, q, c, idx);
	c->queue_prev = AMQP_NONE;
	c->queue_next = q->parked_first;
	if (q->parked_first != AMQP_NONE)
		b->consumers[q->parked_first].queue_prev = idx;
	q->parked_first = idx;
	c->parked = true;
	c->conn->parked_count++;
}

void amqp_consumer_unpark(struct amqp_broker *b, struct amqp_consumer *c)
{
	struct amqp_queue *q = &b->queues[c->queue];

	if (!c->parked)
		return;
	parked_remove(b, q, c);
	ring_insert(b, q, c, (uint32_t)(c - b->consumers));
	amqp_queue_drain_later(b, q);
}

struct amqp_consumer *amqp_queue_ready_consumer(struct amqp_broker *b, struct amqp_queue *q)
{
	while (q->consumer_next != AMQP_NONE) {
		struct amqp_consumer *c = &b->consumers[q->consumer_next];

		if (amqp_consumer_ready(b, c))
			return c;
		amqp_consumer_park(b, c);
	}
	return NULL;
}

void amqp_channel_unpark(struct amqp_broker *b, struct amqp_channel *ch)
{
	for (uint32_t i = ch->consumers_first; i != AMQP_NONE; i = b->consumers[i].chan_next)
		amqp_consumer_unpark(b, &b->consumers[i]);
}

void amqp_conn_kick(struct amqp_broker *b, struct amqp_conn *c)
{
	if (c->parked_count == 0)
		return;
	for (uint32_t n = 0; n < c->channel_table_len; n++)
		if (c->channel_by_number[n] != AMQP_NONE)
			amqp_channel_unpark(b, &b->channels[c->channel_by_number[n]]);
}

void amqp_channel_flow(struct amqp_broker *b, struct amqp_channel *ch, bool active)
{
	ch->active = active;
	if (active)
		amqp_channel_unpark(b, ch);
}

/* ---- making and ending ---- */

static uint32_t *tag_bucket(struct amqp_broker *b, uint32_t channel, struct amqp_span tag)
{
	return &b->tag_hash[amqp_hash(b->limits.secret, channel, tag.ptr, tag.len) & b->tag_hash_mask];
}

static struct amqp_consumer *find_by_tag(struct amqp_broker *b, uint32_t channel, struct amqp_span tag)
{
	uint32_t i = *tag_bucket(b, channel, tag);

	while (i != AMQP_NONE && (b->consumers[i].channel != channel || !amqp_span_equal(amqp_consumer_tag(&b->consumers[i]), tag)))
		i = b->consumers[i].tag_next;
	return i == AMQP_NONE ? NULL : &b->consumers[i];
}

/* All of a delivery's method that stays the same: frame head (its length is patched in), class and method, consumer tag. */
static void render_prefix(struct amqp_consumer *c, uint16_t channel, struct amqp_span tag)
{
	c->prefix[0] = 1;
	amqp_set_be16(c->prefix + 1, channel);
	amqp_set_be32(c->prefix + 3, 0);
	amqp_set_be16(c->prefix + 7, 60);
	amqp_set_be16(c->prefix + 9, 60);
	c->prefix[11] = (uint8_t)tag.len;
	memcpy(c->prefix + 12, tag.ptr, tag.len);
	c->prefix_bytes = (uint16_t)(12 + tag.len);
}

static struct amqp_consumer *consumer_add(struct amqp_broker *b, struct amqp_channel *ch, struct amqp_conn *conn,
					  struct amqp_queue *q, struct amqp_span tag, bool no_ack, bool exclusive)
{
	uint32_t idx = b->consumers_free, channel = conn->state == AMQP_CONN_PEER ? AMQP_NONE : (uint32_t)(ch - b->channels);
	struct amqp_consumer *c = &b->consumers[idx];
	uint32_t *bucket;

	b->consumers_free = b->consumers_link[idx];
	b->consumers_count++;
	if (idx >= b->consumers_used)
		b->consumers_used = idx + 1;
	c->in_use = true;
	c->no_ack = no_ack;
	c->exclusive = exclusive;
	c->queue = q->id;
	c->channel = channel;
	c->ch = ch;
	c->conn = conn;
	c->prefetch_max = ch->prefetch_default;
	c->unacked_count = 0;
	render_prefix(c, ch->number, tag);
	bucket = tag_bucket(b, channel, tag);
	c->tag_next = *bucket;
	*bucket = idx;
	c->chan_prev = AMQP_NONE;
	c->chan_next = ch->consumers_first;
	if (c->chan_next != AMQP_NONE)
		b->consumers[c->chan_next].chan_prev = idx;
	ch->consumers_first = idx;
	ring_insert(b, q, c, idx);
	q->consumers_count++;
	q->had_consumer = true;
	if (exclusive)
		q->exclusive_consumer = idx;
	amqp_queue_drain_later(b, q);
	return c;
}

/* Its tag is the mirror's handle, so that it is found and removed like any other. */
struct amqp_consumer *amqp_consumer_add_remote(struct amqp_broker *b, struct amqp_queue *q, uint32_t worker, uint64_t handle,
					       bool exclusive)
{
	struct amqp_peer *p = &b->peers[worker];
	struct amqp_consumer *c;
	uint8_t tag[8];

	if (b->consumers_free == AMQP_NONE)
		return NULL;
	amqp_set_be64(tag, handle);
	c = consumer_add(b, &p->channel, &p->conn, q, (struct amqp_span){tag, sizeof tag}, false, exclusive);
	memset(&c->remote, 0, sizeof c->remote);
	c->remote.handle = handle;
	c->remote.worker = worker;
	return c;
}

void amqp_consumer_remove(struct amqp_broker *b, struct amqp_consumer *c)
{
	struct amqp_queue *q = &b->queues[c->queue];
	struct amqp_channel *ch = c->ch;
	uint32_t idx = (uint32_t)(c - b->consumers), *link = tag_bucket(b, c->channel, amqp_consumer_tag(c));

	while (*link != idx)
		link = &b->consumers[*link].tag_next;
	*link = c->tag_next;
	if (c->chan_prev != AMQP_NONE)
		b->consumers[c->chan_prev].chan_next = c->chan_next;
	else
		ch->consumers_first = c->chan_next;
	if (c->chan_next != AMQP_NONE)
		b->consumers[c->chan_next].chan_prev = c->chan_prev;
	if (c->parked)
		parked_remove(b, q, c);
	else
		ring_remove(b, q, c, idx);
	q->consumers_count--;
	if (q->exclusive_consumer == idx)
		q->exclusive_consumer = AMQP_NONE;
	amqp_unacked_forget_consumer(b, c);
	c->in_use = false;
	c->parked = false;
	b->consumers_link[idx] = b->consumers_free;
	b->consumers_free = idx;
	b->consumers_count--;
	if (amqp_queue_is_mirror(b, q->id))
		amqp_mirror_ends(b, &b->mirrors[q->id - b->limits.queues_max]);
}

void amqp_queue_cancel_consumers(struct amqp_broker *b, struct amqp_queue *q)
{
	while (q->consumers_count > 0) {
		struct amqp_consumer *c = &b->consumers[q->consumer_next != AMQP_NONE ? q->consumer_next : q->parked_first];
		struct amqp_channel *ch = c->ch;
		struct amqp_conn *conn = c->conn;
		struct amqp_writer w;

		if (conn->cap_cancel_notify && conn->state == AMQP_CONN_RUNNING && ch->state == AMQP_CH_OPEN) {
			struct amqp_span tag = amqp_consumer_tag(c);

			amqp_method_begin(&w, ch->number, 60, 30);
			amqp_put_shortstr(&w, tag.ptr, tag.len);
			amqp_put_u8(&w, 1); /* no-wait */
			amqp_send_method(conn, &w);
		}
		amqp_consumer_remove(b, c);
	}
}

/* ---- methods ---- */

static struct amqp_span make_tag(struct amqp_broker *b, struct amqp_channel *ch, char buf[64])
{
	uint32_t channel = (uint32_t)(ch - b->channels);
	struct amqp_span tag;

	do { /* a client may have taken such a name for a tag of its own */
		int n = snprintf(buf, 64, "amq.ctag-%u.%016llx", ch->number, (unsigned long long)++b->tags_made);

		tag = (struct amqp_span){(const uint8_t *)buf, (uint32_t)n};
	} while (find_by_tag(b, channel, tag) != NULL);
	return tag;
}

/* Arguments that change what a consumer gets, and that we do not act on, are refused; others are ignored as RabbitMQ does. */
static const char *unsupported_argument(struct amqp_span args)
{
	struct amqp_field f;

	if (amqp_table_find(args.ptr, args.len, "x-priority", &f))
		return "x-priority";
	if (amqp_table_find(args.ptr, args.len, "x-stream-offset", &f))
		return "x-stream-offset";
	return NULL;
}

static enum amqp_verdict in_exclusive_use(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span queue)
{
	return amqp_channel_error(c, ch->number, 403, 60, 20, "queue '%.*s' in vhost '%.*s' in exclusive use",
				  AMQP_SPAN_ARGS(queue), AMQP_SPAN_ARGS(c->vhost));
}

static enum amqp_verdict no_more_consumers(struct amqp_conn *c, struct amqp_channel *ch)
{
	return amqp_reply_error(c, ch->number, 506, 60, 20, "no more than %u consumers", c->b->limits.consumers_max);
}

static bool send_consume_ok(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span tag)
{
	struct amqp_writer w;

	amqp_method_begin(&w, ch->number, 60, 21);
	amqp_put_shortstr(&w, tag.ptr, tag.len);
	return amqp_send_method(c, &w);
}

/* The queue lives on another worker, which is asked for a consumer there that feeds a mirror here. */
static enum amqp_verdict ask_to_consume(struct amqp_conn *c, struct amqp_channel *ch, const struct amqp_queue *q, bool exclusive)
{
	struct amqp_mirror *m = amqp_mirror_new(c->b, q);
	enum amqp_verdict verdict;

	if (m == NULL)
		return no_more_consumers(c, ch);
	verdict = amqp_mirror_ask(c, q, AMQP_NOTE_CONSUME, amqp_mirror_handle(c->b, m), exclusive);
	if (verdict == AMQP_STALL)
		amqp_mirror_ends(c->b, m);
	return verdict;
}

/* That worker's answer. A mirror that gets no consumer is ended by amqp_mirror_answer(). */
static enum amqp_verdict consume_elsewhere(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span name,
					   struct amqp_span tag, uint8_t bits)
{
	struct amqp_broker *b = c->b;
	struct amqp_mirror *m = amqp_mirror_of(b, c->answer->number[2], c->answer->worker);
	struct amqp_consumer *consumer;

	/* Deleted here already: whoever looks for mirrors of it will not come again. */
	if (c->answer->code == 404 || m == NULL || !b->queues[m->queue].in_use || b->queues[m->queue].stamp != m->stamp)
		return amqp_channel_error(c, ch->number, 404, 60, 20, "no queue '%.*s' in vhost '%.*s'", AMQP_SPAN_ARGS(name),
					  AMQP_SPAN_ARGS(c->vhost));
	if (c->answer->code == 403)
		return in_exclusive_use(c, ch, name);
	if (c->answer->code != 0 || b->consumers_free == AMQP_NONE)
		return no_more_consumers(c, ch);
	if (!(bits & 8) && !send_consume_ok(c, ch, tag))
		return AMQP_GONE;
	consumer = consumer_add(b, ch, c, amqp_mirror_queue(b, m), tag, (bits & 2) != 0, false);
	amqp_mirror_starts(b, m, c->answer->id, (uint32_t)(consumer - b->consumers));
	return AMQP_DONE;
}

enum amqp_verdict amqp_on_consume(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	struct amqp_broker *b = c->b;
	struct amqp_span name, tag, table;
	enum amqp_verdict verdict;
	struct amqp_queue *q;
	const char *refused;
	char made[64];
	uint8_t bits;

	amqp_read_u16(args);
	name = amqp_read_shortstr(args);
	tag = amqp_read_shortstr(args);
	bits = amqp_read_u8(args); /* no-local, no-ack, exclusive, no-wait; no-local is ignored, as RabbitMQ does */
	table = amqp_read_longstr(args);
	if (args->bad)
		return amqp_conn_error(c, 501, 60, 20, "the arguments are cut short");
	if (c->answer != NULL)
		return consume_elsewhere(c, ch, name, tag.len != 0 ? tag : make_tag(b, ch, made), bits);
	q = amqp_queue_of_method(c, ch, name, 60, 20, &verdict);
	if (q == NULL)
		return verdict;
	if (tag.len == 0)
		tag = make_tag(b, ch, made);
	else if (find_by_tag(b, (uint32_t)(ch - b->channels), tag) != NULL)
		return amqp_conn_error(c, 530, 60, 20, "attempt to reuse consumer tag '%.*s'", AMQP_SPAN_ARGS(tag));
	refused = unsupported_argument(table);
	if (refused != NULL)
		return amqp_channel_error(c, ch->number, 406, 60, 20, "consumer argument '%s' is not supported", refused);
	if (q->exclusive_consumer != AMQP_NONE || ((bits & 4) && q->consumers_count > 0))
		return in_exclusive_use(c, ch, q->name);
	if (b->consumers_free == AMQP_NONE)
		return no_more_consumers(c, ch);
	if (!amqp_queue_is_here(b, q))
		return ask_to_consume(c, ch, q, (bits & 4) != 0);
	if (!(bits & 8) && !send_consume_ok(c, ch, tag))
		return AMQP_GONE;
	consumer_add(b, ch, c, q, tag, (bits & 2) != 0, (bits & 4) != 0);
	return AMQP_DONE;
}

enum amqp_verdict amqp_on_cancel(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	struct amqp_broker *b = c->b;
	struct amqp_span tag = amqp_read_shortstr(args);
	bool no_wait = amqp_read_u8(args) & 1;
	struct amqp_consumer *consumer;
	struct amqp_writer w;

	if (args->bad)
		return amqp_conn_error(c, 501, 60, 30, "the arguments are cut short");
	consumer = find_by_tag(b, (uint32_t)(ch - b->channels), tag);
	if (consumer != NULL) {
		struct amqp_queue *q = &b->queues[consumer->queue];

		amqp_consumer_remove(b, consumer);
		amqp_queue_unused(b, q);
	}
	if (no_wait)
		return AMQP_DONE;
	amqp_method_begin(&w, ch->number, 60, 31);
	amqp_put_shortstr(&w, tag.ptr, tag.len);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}

enum amqp_verdict amqp_on_qos(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	uint32_t size = amqp_read_u32(args);
	uint16_t count = amqp_read_u16(args);
	bool global = amqp_read_u8(args) & 1;
	struct amqp_writer w;

	if (args->bad)
		return amqp_conn_error(c, 501, 60, 10, "the arguments are cut short");
	if (size != 0)
		return amqp_conn_error(c, 540, 60, 10, "prefetch_size!=0 (%u)", size);
	if (global) {
		ch->prefetch_channel = count;
		amqp_channel_unpark(c->b, ch);
	} else {
		ch->prefetch_default = count;
	}
	amqp_method_begin(&w, ch->number, 60, 11);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}

/* ---- a channel begins and ends ---- */

void amqp_channel_init_back(struct amqp_channel *ch)
{
	ch->confirm = false;
	ch->active = true;
	ch->consumers_first = AMQP_NONE;
	ch->prefetch_default = 0;
	ch->prefetch_channel = 0;
	ch->next_delivery_tag = 1;
	ch->unacked = NULL;
	ch->unacked_cap = ch->unacked_head = ch->unacked_len = 0;
	ch->unacked_count = ch->unacked_consumed = 0;
	ch->settle_to = 0;
	ch->content = AMQP_CONTENT_NONE;
	ch->publish_exchange = AMQP_NONE;
	ch->publish_generation = 0;
	ch->publish_mandatory = false;
	ch->msg = NULL;
	ch->body_got = 0;
	ch->publish_names_bytes = 0;
	ch->publish_seq = 0;
	ch->confirm_from = 1;
	ch->confirm_queued = false;
	ch->await = 0;
	ch->await_left = 0;
	ch->last_queue[0] = 0;
	ch->publishes = ch->deliveries = ch->acks = 0;
}

void amqp_channel_fini_back(struct amqp_broker *b, struct amqp_channel *ch)
{
	bool many = amqp_unacked_many(ch);

	/* Consumers first: what is requeued is for others, not for one that is about to go. */
	if (!many)
		amqp_unacked_orphan(ch);
	while (ch->consumers_first != AMQP_NONE) {
		struct amqp_consumer *c = &b->consumers[ch->consumers_first];
		struct amqp_queue *q = &b->queues[c->queue];

		c->unacked_count = 0; /* its deliveries are orphans already: no need to walk the ring for each consumer */
		amqp_consumer_remove(b, c);
		amqp_queue_unused(b, q);
	}
	if (many)
		amqp_unacked_give_up(b, ch);
	else
		amqp_unacked_requeue_all(b, ch);
	if (ch->unacked != NULL)
		amqp_pool_free(b->pool, ch->unacked);
	ch->unacked = NULL;
	ch->unacked_cap = 0;
	if (ch->msg != NULL)
		amqp_msg_unref(b, ch->msg);
	ch->msg = NULL;
	ch->content = AMQP_CONTENT_NONE;
	ch->publish_exchange = AMQP_NONE;
	ch->await = 0;
	amqp_confirm_forget(b, ch);
}
