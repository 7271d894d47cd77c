/*
 * basic.c - class basic: a publish from its method to its confirm, basic.get, and the dispatch of the rest.
 *
 * Owns: the publish in assembly of every channel.
 * Core: the worker; a tick's publish walks whole.c, this file, route.c and deliver.c, and nothing else.
 * Spec: AMQP 0-9-1 sections 1.8.3.7-1.8.3.12 and 4.2.6. Order: basic.return, then the confirm. What cannot be stored now is
 * AMQP_STALL with nothing changed: the publisher's window closes.
 */
#include <assert.h>

#include "amqp/peer.h"

#define BASIC 60u

/* ---- basic.publish ---- */

/* The exchange of the channel's last publish again, which a feed names time after time; else by hash. */
struct amqp_exchange *amqp_publish_exchange(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span name)
{
	struct amqp_broker *b = c->b;

	if (ch->publish_exchange != AMQP_NONE && ch->publish_generation == b->fib_generation) {
		struct amqp_exchange *x = &b->exchanges[ch->publish_exchange];

		if (x->name.len == name.len && amqp_same_bytes(x->name.ptr, name.ptr, name.len))
			return x;
	}
	return amqp_exchange_find(b, c->vhost_id, name);
}

static enum amqp_verdict no_exchange(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span name)
{
	ch->publish_exchange = AMQP_NONE;
	return amqp_channel_error(c, ch->number, 404, BASIC, 40, "no exchange '%.*s' in vhost '%.*s'", AMQP_SPAN_ARGS(name),
				  AMQP_SPAN_ARGS(c->vhost));
}

static enum amqp_verdict on_publish(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	struct amqp_exchange *x;
	const uint8_t *names;
	struct amqp_span name;
	uint8_t bits;

	amqp_read_u16(args);
	names = args->p;
	name = amqp_read_shortstr(args);
	amqp_read_shortstr(args);
	ch->publish_names_bytes = (uint16_t)(args->p - names);
	bits = amqp_read_u8(args);
	if (args->bad)
		return amqp_conn_error(c, 501, BASIC, 40, "the arguments are cut short");
	if (bits & 2)
		return amqp_conn_error(c, 540, BASIC, 40, "immediate=true");
	x = amqp_publish_exchange(c, ch, name);
	if (x == NULL)
		return no_exchange(c, ch, name);
	if (x->flags & AMQP_DEF_INTERNAL)
		return amqp_channel_error(c, ch->number, 403, BASIC, 40,
					  "cannot publish to internal exchange '%.*s' in vhost '%.*s'", AMQP_SPAN_ARGS(name),
					  AMQP_SPAN_ARGS(c->vhost));
	memcpy(ch->publish_names, names, ch->publish_names_bytes);
	ch->publish_exchange = (uint32_t)(x - c->b->exchanges);
	ch->publish_generation = c->b->fib_generation;
	ch->publish_mandatory = bits & 1;
	ch->route_from = 0;
	ch->route_rejected = false;
	ch->await = 0;
	ch->content = AMQP_CONTENT_HEADER;
	return AMQP_DONE;
}

/* ---- the message is complete ---- */

/* False: no room now; nothing was sent. */
static bool send_return(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_msg *m)
{
	static const char text[] = "NO_ROUTE";
	uint8_t head[32], *p = head + 7;

	amqp_set_be16(p, BASIC);
	amqp_set_be16(p + 2, 50);
	amqp_set_be16(p + 4, 312);
	p[6] = sizeof text - 1;
	memcpy(p + 7, text, sizeof text - 1);
	p += 7 + sizeof text - 1;
	head[0] = 1;
	amqp_set_be16(head + 1, ch->number);
	amqp_set_be32(head + 3, (uint32_t)(p - head) - 7 + m->names_bytes);
	if (amqp_send_content(c, ch->number, head, (uint32_t)(p - head), m, 0) == AMQP_NO_ROOM)
		return false;
	AMQP_COUNT(c->b, returns);
	return true;
}

static void stage(struct amqp_broker *b, enum amqp_stage s)
{
	if (b->sample_next && b->ops.stage != NULL)
		b->ops.stage(b->ctx, s);
}

/* The exchange may have gone, and its slot been reused, since the method came. */
static bool exchange_still_there(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span name)
{
	struct amqp_exchange *x;

	if (ch->publish_generation == c->b->fib_generation)
		return true;
	x = amqp_exchange_find(c->b, c->vhost_id, name);
	if (x == NULL)
		return false;
	ch->publish_exchange = (uint32_t)(x - c->b->exchanges);
	ch->publish_generation = c->b->fib_generation;
	return true;
}

static void end_publish(struct amqp_broker *b, struct amqp_channel *ch)
{
	amqp_msg_unref(b, ch->msg);
	ch->msg = NULL;
	ch->content = AMQP_CONTENT_NONE;
}

/* To the queues here, then to the workers of the others. False: what is left is due later. */
static bool distribute(struct amqp_broker *b, const struct amqp_route *r, struct amqp_channel *ch)
{
	const uint32_t *idx = &b->route_queues[r->first];

	if (ch->route_from == 0 &&
	    (!amqp_route_has_room(b, idx, r->count, ch->msg) || (r->total != r->count && !amqp_publish_has_room(b, r))))
		return false;
	return amqp_deliver_route(b, idx, r->count, amqp_route_start(b, r), ch) &&
	       (r->total == r->count || amqp_publish_remote(b, r, ch));
}

/* It is with all queues that take it, or has been returned. */
static enum amqp_verdict published(struct amqp_conn *c, struct amqp_channel *ch)
{
	struct amqp_broker *b = c->b;

	stage(b, AMQP_STAGE_RENDERED);
	b->sample_next = false;
	AMQP_COUNT(b, publishes);
	ch->publishes++;
	ch->await = 0;
	end_publish(b, ch);
	if (ch->confirm) {
		ch->publish_seq++;
		if (ch->route_rejected)
			amqp_confirm_nack(c, ch);
		else
			amqp_confirm_later(b, ch);
	}
	return c->reset_due ? AMQP_GONE : AMQP_DONE;
}

enum amqp_verdict amqp_publish_finish(struct amqp_conn *c, struct amqp_channel *ch)
{
	struct amqp_broker *b = c->b;
	struct amqp_msg *m = ch->msg;
	struct amqp_span exchange = {m->data + 1, m->data[0]};
	struct amqp_span key = {m->data + 2 + exchange.len, m->data[1 + exchange.len]};
	const struct amqp_route *r;

	if (ch->await != 0)
		return ch->await_left != 0 ? AMQP_STALL : published(c, ch);
	stage(b, AMQP_STAGE_PARSED);
	if (!exchange_still_there(c, ch, exchange))
		return no_exchange(c, ch, exchange);
	r = amqp_route(b, ch->publish_exchange, key, m);
	ch->publish_generation = b->fib_generation; /* a flush of the routes changes it, but no exchange */
	stage(b, AMQP_STAGE_ROUTED);
	if (r->total == 0) {
		if (ch->publish_mandatory && ch->route_from == 0 && !send_return(c, ch, m))
			return AMQP_STALL;
		AMQP_COUNT(b, publishes_unroutable);
	} else if (!distribute(b, r, ch)) {
		return AMQP_STALL;
	}
	return published(c, ch);
}

/* ---- content header ---- */

static bool expiration_ok(struct amqp_span s)
{
	uint64_t v = 0;

	for (uint32_t i = 0; i < s.len; i++) {
		if (s.ptr[i] < '0' || s.ptr[i] > '9' || v > UINT32_MAX)
			return false;
		v = v * 10 + (s.ptr[i] - '0');
	}
	return s.len != 0 && v <= UINT32_MAX;
}

bool amqp_publish_props_ok(const struct amqp_conn *c, const struct amqp_props *p)
{
	return (!(p->flags & 1u << 12) || p->delivery_mode == 1 || p->delivery_mode == 2) &&
	       (p->expiration.ptr == NULL || expiration_ok(p->expiration)) &&
	       (p->user_id.ptr == NULL || amqp_span_equal(p->user_id, c->user));
}

static enum amqp_verdict check_props(struct amqp_conn *c, struct amqp_channel *ch, const struct amqp_props *p)
{
	if (amqp_publish_props_ok(c, p))
		return AMQP_DONE;
	if ((p->flags & 1u << 12) && p->delivery_mode != 1 && p->delivery_mode != 2)
		return amqp_channel_error(c, ch->number, 406, BASIC, 40, "invalid delivery mode %u", p->delivery_mode);
	if (p->expiration.ptr != NULL && !expiration_ok(p->expiration))
		return amqp_channel_error(c, ch->number, 406, BASIC, 40,
					  "invalid expiration '%.*s': expected milliseconds as digits",
					  AMQP_SPAN_ARGS(p->expiration));
	return amqp_channel_error(c, ch->number, 406, BASIC, 40, "user_id property set to '%.*s' but authenticated user was '%.*s'",
				  AMQP_SPAN_ARGS(p->user_id), AMQP_SPAN_ARGS(c->user));
}

static struct amqp_msg *new_message(struct amqp_broker *b, struct amqp_channel *ch, struct amqp_span header, uint32_t body_bytes)
{
	struct amqp_span exchange = {ch->publish_names + 1, ch->publish_names[0]};
	struct amqp_span key = {ch->publish_names + 2 + exchange.len, ch->publish_names[1 + exchange.len]};

	return amqp_msg_new(b, exchange, key, header, body_bytes);
}

enum amqp_verdict amqp_on_content_header(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span payload)
{
	struct amqp_broker *b = c->b;
	struct amqp_props props;
	const char *why = "";
	enum amqp_verdict verdict;
	uint64_t size;
	uint16_t code;

	if (ch->content != AMQP_CONTENT_HEADER)
		return amqp_conn_error(c, 505, 0, 0, "a content header without a method that announces it");
	if (payload.len < 14)
		return amqp_conn_error(c, 501, BASIC, 40, "a content header of %u octets", payload.len);
	if (amqp_get_be16(payload.ptr) != BASIC)
		return amqp_conn_error(c, 505, BASIC, 40, "expected content header for class 60, got one for class %u instead",
				       amqp_get_be16(payload.ptr));
	if (amqp_get_be16(payload.ptr + 2) != 0)
		return amqp_conn_error(c, 505, BASIC, 40, "weight %u in a content header", amqp_get_be16(payload.ptr + 2));
	code = amqp_props_read(payload, &props, &why);
	if (code != 0)
		return amqp_conn_error(c, code, BASIC, 40, "%s", why);
	size = amqp_get_be64(payload.ptr + 4);
	if (size > b->limits.message_bytes_max)
		return amqp_channel_error(c, ch->number, 311, BASIC, 40, "a body of %llu octets, the limit is %u",
					  (unsigned long long)size, b->limits.message_bytes_max);
	if (props.flags != 0) {
		verdict = check_props(c, ch, &props);
		if (verdict != AMQP_DONE || ch->content != AMQP_CONTENT_HEADER)
			return verdict;
	}
	ch->msg = new_message(b, ch, payload, (uint32_t)size);
	if (ch->msg == NULL) {
		/* Memory that messages hold comes back; what is short without them stays short. */
		if (b->messages_count == 0)
			return amqp_channel_error(c, ch->number, 311, BASIC, 40, "no room for a body of %llu octets",
						  (unsigned long long)size);
		return AMQP_STALL;
	}
	if (props.delivery_mode == 2)
		ch->msg->flags |= AMQP_MSG_PERSISTENT;
	ch->body_got = 0;
	ch->content = AMQP_CONTENT_BODY;
	if (size != 0)
		return AMQP_DONE;
	verdict = amqp_publish_finish(c, ch);
	if (verdict == AMQP_STALL) { /* nothing was changed: the header will come again */
		amqp_msg_unref(b, ch->msg);
		ch->msg = NULL;
		ch->content = AMQP_CONTENT_HEADER;
		b->sample_next = false;
	}
	return verdict;
}

enum amqp_verdict amqp_on_content_body(struct amqp_conn *c, struct amqp_channel *ch, const uint8_t *bytes, uint32_t len)
{
	enum amqp_verdict verdict;

	if (ch->content != AMQP_CONTENT_BODY)
		return amqp_conn_error(c, 505, 0, 0, "a body frame where none is expected");
	if (len > ch->msg->body_bytes - ch->body_got)
		return amqp_conn_error(c, 501, BASIC, 40, "more body than the %u octets of the content header",
				       ch->msg->body_bytes);
	memcpy(amqp_msg_body(ch->msg) + ch->body_got, bytes, len);
	if (ch->body_got + len < ch->msg->body_bytes) {
		ch->body_got += len;
		return AMQP_DONE;
	}
	verdict = amqp_publish_finish(c, ch);
	if (verdict == AMQP_STALL)
		c->b->sample_next = false; /* its stages would not be those of a tick that passes */
	return verdict;
}

/* ---- basic.get ---- */

static enum amqp_verdict get_empty(struct amqp_conn *c, struct amqp_channel *ch)
{
	struct amqp_writer w;

	AMQP_COUNT(c->b, gets_empty);
	amqp_method_begin(&w, ch->number, BASIC, 72);
	amqp_put_shortstr(&w, "", 0);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}

/* get-ok has the message count behind the names: the head copies these, and the template goes on with the content header. */
static enum amqp_sent send_get_ok(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_entry *e, uint32_t left)
{
	uint8_t head[7 + 4 + 9 + 512 + 5], *p = head + 7;
	struct amqp_msg *m = e->msg;

	amqp_set_be16(p, BASIC);
	amqp_set_be16(p + 2, 71);
	amqp_set_be64(p + 4, ch->next_delivery_tag);
	p[12] = e->redelivered;
	p += 13;
	memcpy(p, m->data, m->names_bytes);
	p += m->names_bytes;
	amqp_set_be32(p, left);
	p[4] = 0xce;
	p += 5;
	head[0] = 1;
	amqp_set_be16(head + 1, ch->number);
	amqp_set_be32(head + 3, (uint32_t)(p - head) - 8);
	return amqp_send_content(c, ch->number, head, (uint32_t)(p - head), m, m->header_frame_at);
}

/*
 * The answer to a question about a queue of another worker: a message in an entry of ours, or none. One that finds no room in
 * the transport goes back as if nobody had seen it, and is asked for again.
 */
static enum amqp_verdict got_elsewhere(struct amqp_conn *c, struct amqp_channel *ch, const struct amqp_queue *q, bool no_ack)
{
	struct amqp_broker *b = c->b;
	uint32_t entry = c->answer->entry;
	struct amqp_entry *e = &b->entries[entry];
	enum amqp_sent sent;

	c->answer->entry = AMQP_NONE;
	if (e->msg->header_bytes > c->frame_max - 8) {
		amqp_mirror_settle(b, entry, AMQP_RETURNED);
		return amqp_conn_error(c, 501, BASIC, 70, "a content header of more octets is due than the frame-max of %u takes",
				       c->frame_max);
	}
	sent = no_ack || amqp_unacked_room(b, ch) ? send_get_ok(c, ch, e, (uint32_t)c->answer->number[0]) : AMQP_NO_ROOM;
	if (sent != AMQP_SENT) {
		amqp_mirror_settle(b, entry, AMQP_RETURNED);
		return sent == AMQP_REFUSED ? AMQP_GONE : amqp_mirror_ask(c, q, AMQP_NOTE_GET, 0, false);
	}
	if (no_ack)
		amqp_mirror_settle(b, entry, AMQP_ACKED);
	else
		amqp_unacked_push(b, ch, ch->next_delivery_tag, entry, AMQP_CONSUMER_GET);
	ch->next_delivery_tag++;
	ch->deliveries++;
	AMQP_COUNT(b, gets);
	return AMQP_DONE;
}

/* `q` may be NULL: the method has failed with `verdict`, or its queue went while its worker was asked. */
static enum amqp_verdict get_elsewhere(struct amqp_conn *c, struct amqp_channel *ch, const struct amqp_queue *q, bool no_ack,
				       enum amqp_verdict verdict)
{
	if (q == NULL)
		return verdict;
	if (c->answer == NULL)
		return amqp_mirror_ask(c, q, AMQP_NOTE_GET, 0, false);
	return c->answer->entry != AMQP_NONE ? got_elsewhere(c, ch, q, no_ack) : get_empty(c, ch);
}

static enum amqp_verdict on_get(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	struct amqp_broker *b = c->b;
	struct amqp_span name;
	struct amqp_queue *q;
	struct amqp_entry *e;
	enum amqp_verdict verdict;
	uint32_t entry;
	bool no_ack;

	amqp_read_u16(args);
	name = amqp_read_shortstr(args);
	no_ack = amqp_read_u8(args) & 1;
	if (args->bad)
		return amqp_conn_error(c, 501, BASIC, 70, "the arguments are cut short");
	q = amqp_queue_of_method(c, ch, name, BASIC, 70, &verdict);
	if (q == NULL || !amqp_queue_is_here(b, q))
		return get_elsewhere(c, ch, q, no_ack, verdict);
	if (q->ready_count == 0)
		return get_empty(c, ch);
	e = &b->entries[q->ready_first];
	if (e->msg->header_bytes > c->frame_max - 8)
		return amqp_conn_error(c, 501, BASIC, 70, "a content header of %u octets is due, the frame-max is %u",
				       e->msg->header_bytes, c->frame_max);
	if (!no_ack && !amqp_unacked_room(b, ch))
		return AMQP_STALL;
	switch (send_get_ok(c, ch, e, q->ready_count - 1)) {
	case AMQP_NO_ROOM:
		return AMQP_STALL;
	case AMQP_REFUSED:
		return AMQP_GONE;
	case AMQP_SENT:
		break;
	}
	entry = amqp_queue_take_head(b, q);
	if (no_ack)
		amqp_entry_free(b, entry);
	else
		amqp_unacked_push(b, ch, ch->next_delivery_tag, entry, AMQP_CONSUMER_GET);
	ch->next_delivery_tag++;
	ch->deliveries++;
	q->delivered++;
	AMQP_COUNT(b, gets);
	return AMQP_DONE;
}

/* ---- dispatch ---- */

enum amqp_verdict amqp_on_basic(struct amqp_conn *c, struct amqp_channel *ch, uint16_t method_id, struct amqp_reader *args)
{
	switch (method_id) {
	case 40:
		return on_publish(c, ch, args);
	case 80:
		return amqp_on_ack(c, ch, args);
	case 10:
		return amqp_on_qos(c, ch, args);
	case 20:
		return amqp_on_consume(c, ch, args);
	case 30:
		return amqp_on_cancel(c, ch, args);
	case 70:
		return on_get(c, ch, args);
	case 90:
		return amqp_on_reject(c, ch, args);
	case 100:
		return amqp_on_recover(c, ch, args, false);
	case 110:
		return amqp_on_recover(c, ch, args, true);
	case 120:
		return amqp_on_nack(c, ch, args);
	default:
		return amqp_conn_error(c, 503, BASIC, method_id, "basic method %u is not for a server", method_id);
	}
}
