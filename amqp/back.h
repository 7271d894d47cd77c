/*
 * back.h - the seams between the files of the AMQP machine's back half: queues, consumers, settlement, delivery, definitions.
 *
 * Owns: nothing; who implements what is said below.
 * Core: the worker.
 * Spec: AMQP 0-9-1 class basic.
 */
#ifndef TICKWIRE_AMQP_BACK_H
#define TICKWIRE_AMQP_BACK_H

#include "amqp/wire.h"

/* ---- queue.c: entries, the ready list, bounds, work lists ---- */

static inline uint32_t amqp_entries_free_count(const struct amqp_broker *b)
{
	return b->limits.entries_max - b->entries_count;
}
/* What became of a delivery. RETURNED: it never reached the client. */
enum amqp_outcome { AMQP_ACKED, AMQP_REJECTED, AMQP_REQUEUED, AMQP_RETURNED };

/* An entry that holds `m`, with the queue's next position; on no list yet. AMQP_NONE: the pool is exhausted. */
uint32_t amqp_entry_new(struct amqp_broker *b, struct amqp_queue *q, struct amqp_msg *m);
void amqp_entry_free(struct amqp_broker *b, uint32_t idx);
void amqp_queue_append(struct amqp_broker *b, struct amqp_queue *q, uint32_t entry);
/* Takes the head off the ready list; the caller owns the entry. AMQP_NONE: empty. */
uint32_t amqp_queue_take_head(struct amqp_broker *b, struct amqp_queue *q);
/* Back between its neighbours; the queue's bounds hold afterwards too. */
void amqp_queue_requeue(struct amqp_broker *b, struct amqp_queue *q, uint32_t entry, bool redelivered);
static inline bool amqp_queue_would_overflow(const struct amqp_queue *q, uint32_t body_bytes)
{
	return q->ready_count >= q->max_length || q->ready_bytes + body_bytes > q->max_length_bytes;
}
/* Appends a message that nobody took, dropping heads as the bounds ask. DROPPED: it was one of those itself. */
enum amqp_queued { AMQP_QUEUED, AMQP_DROPPED, AMQP_NO_ENTRY };
enum amqp_queued amqp_queue_enqueue(struct amqp_broker *b, struct amqp_queue *q, struct amqp_msg *m);
/* Ready messages leave at once; their memory is given back now or, when they are many, by amqp_garbage_step(). */
void amqp_queue_drop_ready(struct amqp_broker *b, struct amqp_queue *q);
bool amqp_garbage_step(struct amqp_broker *b, uint32_t budget); /* true: more to do */
/* Puts it on b->drain when it has ready messages and a consumer in its ring. */
void amqp_queue_drain_later(struct amqp_broker *b, struct amqp_queue *q);
/* Tells control, now or when its ring has room, that the last consumer of an auto-delete queue went. */
void amqp_queue_unused(struct amqp_broker *b, struct amqp_queue *q);
void amqp_unused_step(struct amqp_broker *b);
/* The queue that a method names ("" is the one declared last on the channel). NULL: *verdict is what to return. */
struct amqp_queue *amqp_queue_of_method(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span name, uint16_t class_id,
					uint16_t method_id, enum amqp_verdict *verdict);

/* ---- consumer.c ---- */

bool amqp_remote_ready(struct amqp_broker *b, const struct amqp_consumer *c); /* peer.h */
/* Its channel and its connection take messages; never true of one that stands for a consumer of another worker. */
static inline bool amqp_consumer_open(const struct amqp_broker *b, const struct amqp_consumer *c)
{
	const struct amqp_channel *ch = c->ch;
	const struct amqp_conn *conn = c->conn;

	return ch->active && ch->state == AMQP_CH_OPEN && conn->state == AMQP_CONN_RUNNING && !conn->reset_due &&
	       conn->oversize_header_bytes == 0 && b->ops.writable(conn->io);
}
/* It may take a message now: it has credit, and its connection takes bytes. */
static inline bool amqp_consumer_ready(struct amqp_broker *b, const struct amqp_consumer *c)
{
	const struct amqp_channel *ch = c->ch;

	if (!c->no_ack && ((c->prefetch_max != 0 && c->unacked_count >= c->prefetch_max) ||
			   (ch->prefetch_channel != 0 && ch->unacked_consumed >= ch->prefetch_channel)))
		return false;
	return amqp_consumer_open(b, c) || (c->conn->state == AMQP_CONN_PEER && amqp_remote_ready(b, c));
}
/* The consumer to serve now, parking those without credit. NULL: none is ready. */
struct amqp_consumer *amqp_queue_ready_consumer(struct amqp_broker *b, struct amqp_queue *q);
void amqp_consumer_park(struct amqp_broker *b, struct amqp_consumer *c);
void amqp_consumer_unpark(struct amqp_broker *b, struct amqp_consumer *c);
void amqp_channel_unpark(struct amqp_broker *b, struct amqp_channel *ch);
void amqp_consumer_remove(struct amqp_broker *b, struct amqp_consumer *c);
/* The queue is being deleted: its consumers go, and clients that asked for it get basic.cancel. */
void amqp_queue_cancel_consumers(struct amqp_broker *b, struct amqp_queue *q);
/* A consumer of another worker; NULL: there is no room. */
struct amqp_consumer *amqp_consumer_add_remote(struct amqp_broker *b, struct amqp_queue *q, uint32_t worker, uint64_t handle,
					       bool exclusive);
static inline bool amqp_consumer_is_remote(const struct amqp_consumer *c)
{
	return c->conn->state == AMQP_CONN_PEER;
}
enum amqp_verdict amqp_on_consume(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args);
enum amqp_verdict amqp_on_cancel(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args);
enum amqp_verdict amqp_on_qos(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args);

/* ---- settle.c: the ring of unacknowledged deliveries ---- */

bool amqp_unacked_room(struct amqp_broker *b, struct amqp_channel *ch); /* for one more; grows or compacts the ring */
/* The entry becomes unacknowledged; `consumer` is its index or AMQP_CONSUMER_GET. */
void amqp_unacked_push(struct amqp_broker *b, struct amqp_channel *ch, uint64_t tag, uint32_t entry, uint32_t consumer);
void amqp_unacked_orphan(struct amqp_channel *ch); /* its consumers are about to go, all of them */
void amqp_unacked_forget_consumer(struct amqp_broker *b, struct amqp_consumer *c);
void amqp_unacked_requeue_all(struct amqp_broker *b, struct amqp_channel *ch);
bool amqp_unacked_many(const struct amqp_channel *ch); /* more than are settled at once */
/* The channel goes, its ring stays: it is requeued bit by bit. Without amqp_unacked_orphan() before: its consumers are not looked
 * at. */
void amqp_unacked_give_up(struct amqp_broker *b, struct amqp_channel *ch);
void amqp_given_up_step(struct amqp_broker *b);                               /* some of b->given_up_first, which is not NULL */
const char *amqp_given_up_check(const struct amqp_broker *b, uint64_t *live); /* adds those of queues that exist */
enum amqp_verdict amqp_on_ack(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args);
enum amqp_verdict amqp_on_nack(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args);
enum amqp_verdict amqp_on_reject(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args);
enum amqp_verdict amqp_on_recover(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args, bool reply);

/* ---- props.c: the content header ---- */

struct amqp_props {
	uint16_t flags;
	uint8_t delivery_mode;
	struct amqp_span headers, expiration, user_id; /* ptr NULL: absent */
};
/* Errors: 0 is success, else a reply code and a sentence. */
uint16_t amqp_props_read(struct amqp_span header, struct amqp_props *out, const char **why);
struct amqp_span amqp_msg_headers(const struct amqp_msg *m); /* the headers table; empty when there is none */

/* ---- basic.c, for whole.c ---- */

/* The exchange that a publish names; NULL: there is none. */
struct amqp_exchange *amqp_publish_exchange(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span name);
bool amqp_publish_props_ok(const struct amqp_conn *c, const struct amqp_props *p); /* in what the broker acts on */
/* The channel's message is complete. AMQP_STALL: it stays where it is, and its last body octets are to come again. */
enum amqp_verdict amqp_publish_finish(struct amqp_conn *c, struct amqp_channel *ch);

/* ---- whole.c, for tests ---- */

/* Whether amqp_args_check() would find nothing wrong with the arguments of a basic.publish. */
bool amqp_publish_args_ok(const uint8_t *args, uint32_t len);

/* ---- deliver.c ---- */

enum amqp_sent {
	AMQP_SENT,
	AMQP_NO_ROOM, /* nothing was written: the transport, the entries or the ring had no room; try again later */
	AMQP_REFUSED  /* not to this connection, and nothing more: it is doomed, or its frame-max forbids the content header */
};
/* Method frame of `head_bytes` (complete but for what the template gives from offset `from` on), content header and body. */
enum amqp_sent amqp_send_content(struct amqp_conn *c, uint16_t channel, const uint8_t *head, uint32_t head_bytes,
				 struct amqp_msg *m, uint32_t from);
/*
 * The channel's message to these queues, sorted by index: from place `start` on and round the end, or on from where it stopped
 * (ch->route_from); ch->route_rejected: a queue with reject-publish refused it. False: a queue found no entry, since a consumer
 * that needed none had no room after all; the rest is due later.
 */
bool amqp_deliver_route(struct amqp_broker *b, const uint32_t *idx, uint32_t count, uint32_t start, struct amqp_channel *ch);
/* True when every queue of the route can take a message now without running out of entries. */
bool amqp_route_has_room(struct amqp_broker *b, const uint32_t *idx, uint32_t count, const struct amqp_msg *m);

/* ---- confirm.c ---- */

void amqp_confirm_later(struct amqp_broker *b, struct amqp_channel *ch);
/* The publish numbered ch->publish_seq is refused; what was accepted before it is acknowledged first. */
void amqp_confirm_nack(struct amqp_conn *c, struct amqp_channel *ch);
void amqp_confirm_forget(struct amqp_broker *b, struct amqp_channel *ch);

/* ---- route.c ---- */

bool amqp_set_open(struct amqp_broker *b, struct amqp_exchange *x); /* the matcher's set that its type needs; false: none is free */
bool amqp_set_may_close(const struct amqp_broker *b,
			const struct amqp_exchange *x); /* false: nobody fetched the dropped databases */
void amqp_set_close(struct amqp_broker *b, struct amqp_exchange *x);
/* The rule's pattern, in the matcher. 0, or a reply code and a sentence. */
uint16_t amqp_set_add_rule(struct amqp_exchange *x, uint32_t rule_id, struct amqp_span key, const char **why);
void amqp_set_remove_rule(struct amqp_exchange *x, uint32_t rule_id);
void amqp_forget_step(struct amqp_broker *b);
size_t amqp_route_bytes(const struct amqp_limits *l);
bool amqp_route_init(struct amqp_broker *b, void *mem, const char **err);
void amqp_routes_flush(struct amqp_broker *b);
/*
 * Place of the queue that a walk over a route's queues here begins at. It moves on with every burst in which the route is used
 * and not with every tick, since what a burst holds leaves together, in the order in which its first tick touched the connections:
 * as many ticks a burst as there are subscribers would have the same one first for ever.
 */
static inline uint32_t amqp_route_start(struct amqp_broker *b, const struct amqp_route *route)
{
	struct amqp_route *r = &b->routes[route - b->routes];

	if (r->burst != b->bursts) {
		r->burst = b->bursts;
		r->start = r->start + 1 < r->count ? r->start + 1 : 0;
	}
	return r->start;
}

static inline struct amqp_rule *amqp_rule_find(const struct amqp_broker *b, uint32_t exchange, uint32_t rule_id)
{
	/* Ids are control's, not a client's: a multiplication spreads them well enough. */
	uint64_t h = ((uint64_t)exchange << 32 | rule_id) * 0x9e3779b97f4a7c15u;
	uint32_t i = b->rule_hash[(h >> 32) & b->rule_hash_mask];

	while (i != AMQP_NONE && (b->rules[i].exchange != exchange || b->rules[i].rule_id != rule_id))
		i = b->rules[i].hash_next;
	return i == AMQP_NONE ? NULL : &b->rules[i];
}
static inline uint32_t *amqp_rule_bucket(const struct amqp_broker *b, uint32_t exchange, uint32_t rule_id)
{
	uint64_t h = ((uint64_t)exchange << 32 | rule_id) * 0x9e3779b97f4a7c15u;

	return &b->rule_hash[(h >> 32) & b->rule_hash_mask];
}

static inline bool amqp_span_equal(struct amqp_span a, struct amqp_span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
#define AMQP_SPAN_ARGS(s) (int)(s).len, (const char *)(s).ptr

#endif
