/*
 * deliver.c - delivery: from a route to consumers and queues, from queues to consumers that have credit again.
 *
 * Owns: b->drain's work; writes whole contents or nothing into a connection.
 * Core: the worker.
 * Spec: AMQP 0-9-1 sections 1.8.3.9 (basic.deliver), 2.3.5 (frames of a content follow each other), 4.2.3.
 */
#include <assert.h>

#include "amqp/peer.h"

#define FRAME_END       0xceu
#define DRAIN_QUANTUM   64u /* messages of one queue before the next queue has its turn */
#define GARBAGE_QUANTUM 32u /* entries of deleted queues freed in one step */

static void account(struct amqp_conn *c, uint64_t bytes)
{
	c->last_send_ns = c->b->now_ns;
	c->send_oct += bytes;
	c->send_cnt++;
}

/* The content frames of the template say channel 0; `at` is where the template's byte `from` lies. */
static void patch_channel(uint8_t *at, const struct amqp_msg *m, uint32_t from, uint16_t channel)
{
	amqp_set_be16(at + (m->header_frame_at - from) + 1, channel);
	if (m->body_bytes != 0)
		amqp_set_be16(at + (m->body_frame_at - from) + 1, channel);
}

/* ---- contents that do not fit one reservation: the lead copied, the body referenced ---- */

static uint8_t *put_body_head(uint8_t *p, uint16_t channel, uint32_t payload_bytes)
{
	p[0] = 3;
	amqp_set_be16(p + 1, channel);
	amqp_set_be32(p + 3, payload_bytes);
	return p + 7;
}

/* All before the body's first byte: method frame, content header frame, head of the first body frame. */
static void fill_lead(uint8_t *p, uint16_t channel, const uint8_t *head, uint32_t head_bytes, const struct amqp_msg *m,
		      uint32_t from, uint32_t first_body_bytes)
{
	uint32_t rest = m->body_frame_at - from;

	memcpy(p, head, head_bytes);
	memcpy(p + head_bytes, m->data + from, rest);
	amqp_set_be16(p + head_bytes + (m->header_frame_at - from) + 1, channel);
	if (m->body_bytes != 0)
		put_body_head(p + head_bytes + rest, channel, first_body_bytes);
}

static bool send_lead(struct amqp_conn *c, uint16_t channel, const uint8_t *head, uint32_t head_bytes, const struct amqp_msg *m,
		      uint32_t from, uint32_t first_body_bytes, uint32_t lead)
{
	struct amqp_broker *b = c->b;
	uint8_t *p;
	bool sent;

	if (lead <= AMQP_RESERVE_MAX) {
		p = b->ops.reserve(c->io, lead);
		if (p == NULL)
			return false;
		fill_lead(p, channel, head, head_bytes, m, from, first_body_bytes);
		b->ops.commit(c->io, lead);
		return true;
	}
	/* A long content header: put together apart, since send() takes all or nothing of one piece only. */
	p = amqp_pool_alloc(b->pool, lead);
	if (p == NULL)
		return false;
	fill_lead(p, channel, head, head_bytes, m, from, first_body_bytes);
	sent = b->ops.send(c->io, p, lead);
	amqp_pool_free(b->pool, p);
	return sent;
}

static bool lend(struct amqp_conn *c, struct amqp_msg *m, const uint8_t *at, uint32_t len)
{
	struct amqp_broker *b = c->b;

	amqp_msg_lend(b, m);
	if (b->ops.send_ref(c->io, at, len, m))
		return true;
	amqp_msg_ref_released(b, m);
	return false;
}

/* The body in frames that the connection takes; the template's own frame end closes the last one. */
static bool send_body(struct amqp_conn *c, uint16_t channel, struct amqp_msg *m, uint32_t chunk_max, uint64_t *bytes)
{
	const uint8_t *body = amqp_msg_body(m);
	uint32_t at = 0;

	while (at < m->body_bytes) {
		uint32_t left = m->body_bytes - at, chunk = left < chunk_max ? left : chunk_max;
		bool last = chunk == left;
		uint8_t between[8] = {FRAME_END};

		if (!lend(c, m, body + at, chunk + last))
			return false;
		*bytes += chunk + last;
		at += chunk;
		if (last)
			break;
		left -= chunk;
		put_body_head(between + 1, channel, left < chunk_max ? left : chunk_max);
		if (!c->b->ops.send(c->io, between, sizeof between))
			return false;
		*bytes += sizeof between;
	}
	return true;
}

static enum amqp_sent send_large(struct amqp_conn *c, uint16_t channel, const uint8_t *head, uint32_t head_bytes,
				 struct amqp_msg *m, uint32_t from)
{
	uint32_t chunk_max = c->frame_max - 8, first = m->body_bytes < chunk_max ? m->body_bytes : chunk_max;
	uint32_t lead = head_bytes + (m->body_frame_at - from) + (m->body_bytes != 0 ? 7 : 0);
	uint32_t frames = m->body_bytes / chunk_max + 1;
	uint64_t bytes = lead;

	if (m->header_bytes > chunk_max) { /* a header cannot be cut; closed by amqp_drain() */
		if (c->oversize_header_bytes == 0)
			c->b->oversize_count++;
		c->oversize_header_bytes = m->header_bytes;
		return AMQP_REFUSED;
	}
	if (!c->b->ops.has_room(c->io, lead + (size_t)(frames * 8), frames) ||
	    !send_lead(c, channel, head, head_bytes, m, from, first, lead))
		return AMQP_NO_ROOM;
	if (!send_body(c, channel, m, chunk_max, &bytes)) {
		/* Half a content is on its way: nothing can follow it but a reset. */
		AMQP_COUNT(c->b, aborts_no_room);
		amqp_conn_reset_later(c);
		return AMQP_REFUSED;
	}
	account(c, bytes);
	return AMQP_SENT;
}

enum amqp_sent amqp_send_content(struct amqp_conn *c, uint16_t channel, const uint8_t *head, uint32_t head_bytes,
				 struct amqp_msg *m, uint32_t from)
{
	uint32_t total = head_bytes + (m->template_bytes - from);
	uint8_t *p;

	if (total > AMQP_RESERVE_MAX)
		return send_large(c, channel, head, head_bytes, m, from);
	p = c->b->ops.reserve(c->io, total);
	if (p == NULL)
		return AMQP_NO_ROOM;
	memcpy(p, head, head_bytes);
	memcpy(p + head_bytes, m->data + from, m->template_bytes - from);
	patch_channel(p + head_bytes, m, from, channel);
	c->b->ops.commit(c->io, total);
	account(c, total);
	return AMQP_SENT;
}

/* ---- one delivery ---- */

/*
 * Consumer's prefix, delivery tag, redelivered; the method's length counts the names that the template begins with. A
 * prefix is seldom longer than PREFIX_COPY: so many bytes go over in two moves, whatever of them is the prefix, since names and
 * content header are behind it in any case and are written after it.
 */
#define PREFIX_COPY 32u
static inline void put_deliver_head(uint8_t *p, const struct amqp_consumer *c, const struct amqp_msg *m, uint64_t tag,
				    uint8_t redelivered)
{
	memcpy(p, c->prefix, PREFIX_COPY);
	if (c->prefix_bytes > PREFIX_COPY)
		memcpy(p + PREFIX_COPY, c->prefix + PREFIX_COPY, c->prefix_bytes - PREFIX_COPY);
	amqp_set_be32(p + 3, c->prefix_bytes - 7u + 9u + m->names_bytes);
	amqp_set_be64(p + c->prefix_bytes, tag);
	p[c->prefix_bytes + 8] = redelivered;
}

__attribute__((noinline)) static enum amqp_sent push_large(const struct amqp_consumer *c, struct amqp_msg *m, uint8_t redelivered)
{
	uint8_t head[sizeof c->prefix + 9];

	put_deliver_head(head, c, m, c->ch->next_delivery_tag, redelivered);
	return send_large(c->conn, c->ch->number, head, c->prefix_bytes + 9u, m, 0);
}

/* Part of its callers: on the way of a tick to one of many, saving and restoring registers is a tenth of the work. */
static inline __attribute__((always_inline)) enum amqp_sent push(struct amqp_broker *b, const struct amqp_consumer *c,
								 struct amqp_msg *m, uint8_t redelivered)
{
	uint32_t head_bytes = c->prefix_bytes + 9u, total = head_bytes + m->template_bytes;
	struct amqp_channel *ch = c->ch;
	enum amqp_sent sent;
	uint8_t *p;

	if (total > AMQP_RESERVE_MAX) {
		sent = push_large(c, m, redelivered);
		if (sent != AMQP_SENT)
			return sent;
	} else {
		p = b->ops.reserve(c->conn->io, total);
		if (p == NULL)
			return AMQP_NO_ROOM;
		put_deliver_head(p, c, m, ch->next_delivery_tag, redelivered);
		memcpy(p + head_bytes, m->data, m->template_bytes);
		patch_channel(p + head_bytes, m, 0, ch->number);
		b->ops.commit(c->conn->io, total);
		account(c->conn, total);
	}
	ch->next_delivery_tag++;
	ch->deliveries++;
	return AMQP_SENT;
}

/* A message that never was on the queue. Without acknowledgement it needs no entry at all. */
static enum amqp_sent deliver_fresh(struct amqp_broker *b, struct amqp_queue *q, struct amqp_consumer *c, struct amqp_msg *m)
{
	struct amqp_channel *ch = c->ch;
	uint64_t tag = ch->next_delivery_tag;
	enum amqp_sent sent;
	uint32_t entry;

	if (c->no_ack)
		return push(b, c, m, 0);
	if (!amqp_consumer_is_remote(c) && !amqp_unacked_room(b, ch))
		return AMQP_NO_ROOM;
	entry = amqp_entry_new(b, q, m);
	if (entry == AMQP_NONE)
		return AMQP_NO_ROOM;
	if (amqp_consumer_is_remote(c))
		return amqp_remote_deliver(b, q, c, entry);
	sent = push(b, c, m, 0);
	if (sent == AMQP_SENT)
		amqp_unacked_push(b, ch, tag, entry, (uint32_t)(c - b->consumers));
	else
		amqp_entry_free(b, entry);
	return sent;
}

/* The head of the queue; it stays there unless it was sent. */
static enum amqp_sent deliver_head(struct amqp_broker *b, struct amqp_queue *q, struct amqp_consumer *c)
{
	struct amqp_channel *ch = c->ch;
	struct amqp_entry *e = &b->entries[q->ready_first];
	uint64_t tag = ch->next_delivery_tag;
	enum amqp_sent sent;
	uint32_t entry;

	if (amqp_consumer_is_remote(c))
		return amqp_remote_deliver(b, q, c, amqp_queue_take_head(b, q));
	if (!c->no_ack && !amqp_unacked_room(b, ch))
		return AMQP_NO_ROOM;
	sent = push(b, c, e->msg, e->redelivered);
	if (sent != AMQP_SENT)
		return sent;
	if (amqp_queue_is_mirror(b, q->id))
		amqp_mirror_passed(b, q, e->msg->body_bytes);
	entry = amqp_queue_take_head(b, q);
	if (!c->no_ack)
		amqp_unacked_push(b, ch, tag, entry, (uint32_t)(c - b->consumers));
	else if (amqp_queue_is_mirror(b, q->id))
		amqp_mirror_settle(b, entry, AMQP_ACKED);
	else
		amqp_entry_free(b, entry);
	return AMQP_SENT;
}

/* ---- a published message to all queues of its route ---- */

/* The one that is next in turn and nearly always ready, or whoever is. */
static inline struct amqp_consumer *ready_consumer(struct amqp_broker *b, struct amqp_queue *q)
{
	if (q->consumer_next != AMQP_NONE && amqp_consumer_ready(b, &b->consumers[q->consumer_next]))
		return &b->consumers[q->consumer_next];
	return amqp_queue_ready_consumer(b, q);
}

/* True: a consumer has it. A consumer whose connection refused it is not ready any more, and the next one is asked. */
static bool deliver_direct(struct amqp_broker *b, struct amqp_queue *q, struct amqp_msg *m)
{
	struct amqp_consumer *c;

	while ((c = ready_consumer(b, q)) != NULL) {
		enum amqp_sent sent = deliver_fresh(b, q, c, m);

		if (sent == AMQP_SENT) {
			q->consumer_next = c->queue_next;
			q->delivered++;
			return true;
		}
		if (sent == AMQP_NO_ROOM)
			return false;
	}
	return false;
}

/* A message as every subscriber gets it: where things are in its template, read once for the whole route. */
struct tick {
	const uint8_t *data;
	uint32_t bytes;
	uint32_t method_bytes;       /* of the method frame's payload, but for the prefix */
	uint32_t header_at, body_at; /* where the channel's number goes; without a body the same place twice */
};

static struct tick tick_of(const struct amqp_msg *m)
{
	return (struct tick){.data = m->data,
			     .bytes = m->template_bytes,
			     .method_bytes = m->names_bytes + 9u - 7u,
			     .header_at = m->header_frame_at + 1,
			     .body_at = (m->body_bytes != 0 ? m->body_frame_at : m->header_frame_at) + 1};
}

/*
 * To a consumer that needs neither credit nor an entry. False: it cannot take it now, or not that way. What is needed behind a call
 * of the transport is read behind it: there are fewer registers that survive one than there are values.
 */
static inline __attribute__((always_inline)) bool deliver_plain(struct amqp_broker *b, struct amqp_consumer *c,
								const struct tick *t)
{
	uint32_t total = c->prefix_bytes + 9u + t->bytes, prefix_bytes;
	struct amqp_channel *ch;
	uint16_t number; /* in network order */
	uint8_t *p;

	if (total > AMQP_RESERVE_MAX || !amqp_consumer_open(b, c))
		return false;
	p = b->ops.reserve(c->conn->io, total);
	if (p == NULL)
		return false;
	prefix_bytes = c->prefix_bytes;
	ch = c->ch;
	memcpy(p, c->prefix, PREFIX_COPY);
	if (prefix_bytes > PREFIX_COPY)
		memcpy(p + PREFIX_COPY, c->prefix + PREFIX_COPY, prefix_bytes - PREFIX_COPY);
	amqp_set_be32(p + 3, prefix_bytes + t->method_bytes);
	p += prefix_bytes;
	amqp_set_be64(p, ch->next_delivery_tag++);
	p[8] = 0;
	ch->deliveries++;
	p = memcpy(p + 9, t->data, t->bytes);
	memcpy(&number, c->prefix + 1, sizeof number);
	memcpy(p + t->header_at, &number, sizeof number);
	memcpy(p + t->body_at, &number, sizeof number);
	b->ops.commit(c->conn->io, total);
	account(c->conn, total);
	return true;
}

/* The message to a consumer, or onto the queue. False: there is no entry for it. */
static inline __attribute__((always_inline)) bool offer(struct amqp_broker *b, struct amqp_queue *q, struct amqp_channel *ch,
							uint32_t *direct)
{
	struct amqp_msg *m = ch->msg;
	enum amqp_queued queued;

	if (q->overflow == AMQP_OVERFLOW_REJECT_PUBLISH && amqp_queue_would_overflow(q, m->body_bytes)) {
		AMQP_COUNT(b, rejected_publish);
		q->dropped++;
		ch->route_rejected = true;
		return true;
	}
	if (q->ready_count == 0 && deliver_direct(b, q, m)) {
		q->published++;
		(*direct)++;
		return true;
	}
	queued = amqp_queue_enqueue(b, q, m);
	if (queued == AMQP_NO_ENTRY)
		return false;
	q->published++;
	if (queued == AMQP_QUEUED)
		amqp_queue_drain_later(b, q);
	return true;
}

/* To the queues from `idx` to `end`. False: the one at ch->route_from has found no entry. */
static bool deliver_part(struct amqp_broker *b, const uint32_t *idx, const uint32_t *end, struct amqp_channel *ch, uint32_t *direct)
{
	const struct tick t = tick_of(ch->msg);
	uint32_t plain = 0;

	while (idx < end && *idx - ch->route_first < ch->route_from) /* these have it */
		idx++;
	for (; idx < end; idx++) {
		struct amqp_queue *q = &b->queues[*idx];

		if (q->plain != NULL && q->ready_count == 0 && deliver_plain(b, q->plain, &t)) {
			q->published++;
			q->delivered++;
			plain++;
		} else if (!offer(b, q, ch, direct)) {
			break;
		}
	}
	*direct += plain;
	if (idx == end)
		return true;
	ch->route_from = *idx - ch->route_first;
	return false;
}

/* Where the walk begins, or began: the route of a publish that stalled may have changed since. */
static uint32_t first_place(const uint32_t *idx, uint32_t count, uint32_t start, struct amqp_channel *ch)
{
	uint32_t place;

	if (ch->route_from == 0) {
		ch->route_first = idx[start];
		return start;
	}
	for (place = 0; place < count && idx[place] < ch->route_first;)
		place++;
	return place;
}

bool amqp_deliver_route(struct amqp_broker *b, const uint32_t *idx, uint32_t count, uint32_t start, struct amqp_channel *ch)
{
	uint32_t first, direct = 0;
	bool done;

	if (count == 0) /* all of them live elsewhere, or went */
		return true;
	first = first_place(idx, count, start, ch);
	done = deliver_part(b, idx + first, idx + count, ch, &direct) && deliver_part(b, idx, idx + first, ch, &direct);
	AMQP_COUNT_N(b, deliveries, direct);
	AMQP_COUNT_N(b, deliveries_direct, direct);
	return done;
}

static bool needs_entry(struct amqp_broker *b, struct amqp_queue *q, const struct amqp_msg *m)
{
	const struct amqp_consumer *c;

	if (amqp_queue_would_overflow(q, m->body_bytes)) /* refused, dropped itself, or in place of a head that is dropped */
		return q->ready_count == 0 && q->overflow == AMQP_OVERFLOW_DROP_HEAD && q->consumer_next != AMQP_NONE;
	if (q->ready_count != 0)
		return true;
	c = amqp_queue_ready_consumer(b, q);
	return c == NULL || !c->no_ack;
}

bool amqp_route_has_room(struct amqp_broker *b, const uint32_t *idx, uint32_t count, const struct amqp_msg *m)
{
	uint32_t have = amqp_entries_free_count(b), need = 0;

	if (count <= have)
		return true;
	for (uint32_t i = 0; i < count; i++)
		need += needs_entry(b, &b->queues[idx[i]], m);
	return need <= have;
}

/* ---- queues that wait for a consumer ---- */

static bool drain_queue(struct amqp_broker *b, struct amqp_queue *q, uint32_t *budget)
{
	for (uint32_t n = 0; n<DRAIN_QUANTUM && * budget> 0 && q->ready_count > 0; n++) {
		struct amqp_consumer *c = amqp_queue_ready_consumer(b, q);
		enum amqp_sent sent;

		if (c == NULL)
			break;
		sent = deliver_head(b, q, c);
		if (sent == AMQP_NO_ROOM)
			return false;
		if (sent == AMQP_REFUSED)
			continue;
		q->consumer_next = c->queue_next;
		q->delivered++;
		AMQP_COUNT(b, deliveries);
		(*budget)--;
	}
	return true;
}

static void close_oversized(struct amqp_broker *b)
{
	b->oversize_count = 0;
	for (uint32_t i = 0; i < b->conns_used; i++) {
		struct amqp_conn *c = &b->conns[i];

		if (c->state == AMQP_CONN_RUNNING && c->oversize_header_bytes != 0)
			amqp_conn_error(c, 501, 60, 60, "a content header of %u octets is due, the frame-max is %u",
					c->oversize_header_bytes, c->frame_max);
	}
}

void amqp_drain(struct amqp_broker *b, uint32_t budget)
{
	if (b->oversize_count != 0)
		close_oversized(b);
	if (b->unused_first != AMQP_NONE)
		amqp_unused_step(b);
	if (b->garbage_first != AMQP_NONE)
		amqp_garbage_step(b, GARBAGE_QUANTUM);
	if (b->given_up_first != NULL)
		amqp_given_up_step(b);
	if (b->forget_count != 0)
		amqp_forget_step(b);
	for (uint32_t visits = 0; b->drain_first != AMQP_NONE && budget > 0 && visits < 256; visits++) {
		struct amqp_queue *q = &b->queues[b->drain_first];
		bool room;

		b->drain_first = q->drain_next;
		if (b->drain_first == AMQP_NONE)
			b->drain_last = AMQP_NONE;
		q->drain_queued = false;
		if (!q->in_use)
			continue;
		room = drain_queue(b, q, &budget);
		amqp_queue_drain_later(b, q);
		if (amqp_queue_is_mirror(b, q->id))
			amqp_mirror_moved(b, q);
		if (!room)
			return;
	}
}
