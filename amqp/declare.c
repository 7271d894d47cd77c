/*
 * declare.c - exchange.* and queue.* methods that change definitions: asked of control, answered when every worker has applied
 * them.
 *
 * Owns: nothing; the method itself is held by the connection and runs twice: to ask, and with the answer.
 * Core: the worker.
 * Spec: AMQP 0-9-1 sections 1.6 and 1.7 with RabbitMQ's exchange.bind; an empty queue name is the queue declared last on the
 * channel.
 */
#include "amqp/front.h"
#include "amqp/peer.h"

/* Bits of the methods' flag octets, in their order on the wire. */
#define BIT(n) (1u << (n))

struct name { /* a name with room to be written anew */
	struct amqp_span s;
	uint8_t buf[256];
};

/* RabbitMQ strips CR and LF from names, so clients have come to send them. */
static void read_name(struct amqp_reader *r, struct name *n)
{
	struct amqp_span in = amqp_read_shortstr(r);
	uint32_t len = 0;

	for (uint32_t i = 0; i < in.len; i++)
		if (in.ptr[i] != '\r' && in.ptr[i] != '\n')
			n->buf[len++] = in.ptr[i];
	n->s = (struct amqp_span){n->buf, len};
}

static enum amqp_verdict answer(struct amqp_call *call, bool nowait, uint16_t method_id)
{
	struct amqp_writer w;

	if (nowait)
		return AMQP_DONE;
	amqp_method_begin(&w, call->channel, call->class_id, method_id);
	return amqp_send_method(call->c, &w) ? AMQP_DONE : AMQP_GONE;
}

static enum amqp_verdict default_exchange_refused(struct amqp_call *call)
{
	return amqp_channel_error(call->c, call->channel, 403, call->class_id, call->method_id,
				  "operation not permitted on the default exchange");
}

/* In place of an empty name, the queue that this channel declared last. False: there is none, and the channel was closed. */
static bool resolve_queue(struct amqp_call *call, struct name *queue, enum amqp_verdict *v)
{
	uint8_t len = call->ch->last_queue[0];

	if (queue->s.len != 0)
		return true;
	if (len == 0) {
		*v = amqp_channel_error(call->c, call->channel, 404, call->class_id, call->method_id,
					"no previously declared queue");
		return false;
	}
	memcpy(queue->buf, call->ch->last_queue + 1, len);
	queue->s.len = len;
	return true;
}

/* ---- exchanges ---- */

static uint32_t exchange_flags(uint8_t bits)
{
	return (bits & BIT(0) ? AMQP_DEF_PASSIVE : 0) | (bits & BIT(1) ? AMQP_DEF_DURABLE : 0) |
	       (bits & BIT(2) ? AMQP_DEF_AUTO_DELETE : 0) | (bits & BIT(3) ? AMQP_DEF_INTERNAL : 0);
}

enum amqp_verdict amqp_on_exchange_declare(struct amqp_call *call)
{
	struct amqp_record rec = {.kind = AMQP_REQ_EXCHANGE_DECLARE, .id = call->c->vhost_id};
	struct name name;
	uint8_t bits;

	amqp_read_u16(&call->args); /* reserved */
	read_name(&call->args, &name);
	rec.str[0] = name.s;
	rec.str[1] = amqp_read_shortstr(&call->args);
	bits = amqp_read_u8(&call->args);
	rec.flags = exchange_flags(bits);
	rec.blob = amqp_read_longstr(&call->args);
	if (call->reply != NULL)
		return call->reply->code != 0 ? amqp_refused(call) : answer(call, bits & BIT(4), AMQP_exchange_declare_ok);
	if (name.s.len == 0)
		return default_exchange_refused(call);
	return amqp_ask(call->c, &rec);
}

enum amqp_verdict amqp_on_exchange_delete(struct amqp_call *call)
{
	struct amqp_record rec = {.kind = AMQP_REQ_EXCHANGE_DELETE, .id = call->c->vhost_id};
	struct name name;
	uint8_t bits;

	amqp_read_u16(&call->args);
	read_name(&call->args, &name);
	bits = amqp_read_u8(&call->args);
	if (call->reply != NULL)
		return call->reply->code != 0 ? amqp_refused(call) : answer(call, bits & BIT(1), AMQP_exchange_delete_ok);
	if (name.s.len == 0)
		return default_exchange_refused(call);
	rec.str[0] = name.s;
	rec.flags = bits & BIT(0) ? AMQP_DEF_IF_UNUSED : 0;
	return amqp_ask(call->c, &rec);
}

/* exchange.bind and exchange.unbind */
enum amqp_verdict amqp_on_exchange_bind(struct amqp_call *call)
{
	bool bind = call->method_id == AMQP_exchange_bind;
	struct amqp_record rec = {.kind = bind ? AMQP_REQ_EXCHANGE_BIND : AMQP_REQ_EXCHANGE_UNBIND, .id = call->c->vhost_id};
	struct name dest, source;
	bool nowait;

	amqp_read_u16(&call->args);
	read_name(&call->args, &dest);
	read_name(&call->args, &source);
	rec.str[0] = dest.s;
	rec.str[1] = source.s;
	rec.str[2] = amqp_read_shortstr(&call->args);
	nowait = amqp_read_u8(&call->args) & BIT(0);
	rec.blob = amqp_read_longstr(&call->args);
	if (call->reply != NULL && call->reply->code != 0)
		return amqp_refused(call);
	if (call->reply != NULL)
		return answer(call, nowait, bind ? AMQP_exchange_bind_ok : AMQP_exchange_unbind_ok);
	if (dest.s.len == 0 || source.s.len == 0)
		return default_exchange_refused(call);
	return amqp_ask(call->c, &rec);
}

/* ---- queues ---- */

static uint32_t queue_flags(uint8_t bits)
{
	return (bits & BIT(0) ? AMQP_DEF_PASSIVE : 0) | (bits & BIT(1) ? AMQP_DEF_DURABLE : 0) |
	       (bits & BIT(2) ? AMQP_DEF_EXCLUSIVE : 0) | (bits & BIT(3) ? AMQP_DEF_AUTO_DELETE : 0);
}

/* The queue that control's answer means; its worker knows what is in it. */
static const struct amqp_queue *queue_of(const struct amqp_broker *b, uint32_t id)
{
	return id < b->limits.queues_max && b->queues[id].in_use ? &b->queues[id] : NULL;
}

static enum amqp_verdict queue_declared(struct amqp_call *call, struct amqp_span asked, bool nowait)
{
	const struct amqp_record *r = call->reply;
	const struct amqp_queue *q = queue_of(call->c->b, r->id);
	struct amqp_span name = r->str[1].len != 0 && r->str[1].len <= 255 ? r->str[1] : asked;
	const struct amqp_answer *a = call->c->answer;
	struct amqp_writer w;

	if (a != NULL && q != NULL)
		name = q->name;
	call->ch->last_queue[0] = (uint8_t)name.len;
	memcpy(call->ch->last_queue + 1, name.ptr, name.len);
	if (nowait)
		return AMQP_DONE;
	if (a == NULL && q != NULL && !amqp_queue_is_here(call->c->b, q))
		return amqp_mirror_ask(call->c, q, AMQP_NOTE_COUNT, 0, false);
	amqp_method_begin(&w, call->channel, AMQP_CLASS_QUEUE, AMQP_queue_declare_ok);
	amqp_put_shortstr(&w, name.ptr, name.len);
	amqp_put_u32(&w, a != NULL ? (uint32_t)a->number[0] : q != NULL ? q->ready_count : 0);
	amqp_put_u32(&w, a != NULL ? (uint32_t)a->number[1] : q != NULL ? q->consumers_count : 0);
	return amqp_send_method(call->c, &w) ? AMQP_DONE : AMQP_GONE;
}

enum amqp_verdict amqp_on_queue_declare(struct amqp_call *call)
{
	struct amqp_record rec = {.kind = AMQP_REQ_QUEUE_DECLARE, .id = call->c->vhost_id};
	struct name name;
	uint8_t bits;

	amqp_read_u16(&call->args);
	read_name(&call->args, &name);
	bits = amqp_read_u8(&call->args);
	rec.str[0] = name.s;
	rec.flags = queue_flags(bits);
	rec.blob = amqp_read_longstr(&call->args);
	if (call->reply != NULL)
		return call->reply->code != 0 ? amqp_refused(call) : queue_declared(call, name.s, bits & BIT(4));
	if (name.s.len == 0 && bits & BIT(0)) /* a name is made up for a new queue only */
		return amqp_channel_error(call->c, call->channel, 404, call->class_id, call->method_id,
					  "no queue '' in vhost '%.*s'", AMQP_SPAN_ARG(call->c->vhost));
	return amqp_ask(call->c, &rec);
}

/* queue.bind and queue.unbind */
enum amqp_verdict amqp_on_queue_bind(struct amqp_call *call)
{
	bool bind = call->method_id == AMQP_queue_bind, nowait, unnamed;
	struct amqp_record rec = {.kind = bind ? AMQP_REQ_QUEUE_BIND : AMQP_REQ_QUEUE_UNBIND, .id = call->c->vhost_id};
	struct name queue, exchange;
	enum amqp_verdict v;

	amqp_read_u16(&call->args);
	read_name(&call->args, &queue);
	read_name(&call->args, &exchange);
	rec.str[2] = amqp_read_shortstr(&call->args);
	nowait = bind && amqp_read_u8(&call->args) & BIT(0);
	rec.blob = amqp_read_longstr(&call->args);
	if (call->reply != NULL && call->reply->code != 0)
		return amqp_refused(call);
	if (call->reply != NULL)
		return answer(call, nowait, bind ? AMQP_queue_bind_ok : AMQP_queue_unbind_ok);
	unnamed = queue.s.len == 0;
	if (!resolve_queue(call, &queue, &v))
		return v;
	if (exchange.s.len == 0)
		return default_exchange_refused(call);
	if (unnamed && rec.str[2].len == 0)
		rec.str[2] = queue.s;
	rec.str[0] = queue.s;
	rec.str[1] = exchange.s;
	return amqp_ask(call->c, &rec);
}

/* What only the worker knows about a queue: who holds it, who consumes from it, whether it is empty. 0, or the reply code. */
static uint16_t may_delete(const struct amqp_conn *c, const struct amqp_queue *q, uint8_t bits, const char *words[2])
{
	uint64_t ready = c->answer != NULL ? c->answer->number[0] : q->ready_count;
	uint64_t consumers = c->answer != NULL ? c->answer->number[1] : q->consumers_count;

	if (q->flags & AMQP_DEF_EXCLUSIVE && q->owner_uid != c->uid) {
		words[0] = "cannot obtain exclusive access to locked ";
		words[1] = "";
		return 405;
	}
	words[0] = "";
	words[1] = bits & BIT(0) && consumers != 0 ? " in use" : " not empty";
	return (bits & BIT(0) && consumers != 0) || (bits & BIT(1) && ready != 0) ? 406 : 0;
}

static enum amqp_verdict queue_deleted(struct amqp_call *call, bool nowait)
{
	struct amqp_writer w;

	if (nowait)
		return AMQP_DONE;
	amqp_method_begin(&w, call->channel, AMQP_CLASS_QUEUE, AMQP_queue_delete_ok);
	amqp_put_u32(&w, call->reply->id != AMQP_ID_NONE ? call->c->wait_count : 0);
	return amqp_send_method(call->c, &w) ? AMQP_DONE : AMQP_GONE;
}

enum amqp_verdict amqp_on_queue_delete(struct amqp_call *call)
{
	struct amqp_conn *c = call->c;
	struct amqp_record rec = {.kind = AMQP_REQ_QUEUE_DELETE, .id = c->vhost_id};
	const struct amqp_queue *q;
	const char *words[2];
	struct name queue;
	enum amqp_verdict v;
	uint16_t code;
	uint8_t bits;

	amqp_read_u16(&call->args);
	read_name(&call->args, &queue);
	bits = amqp_read_u8(&call->args);
	if (call->reply != NULL && c->answer == NULL)
		return call->reply->code != 0 ? amqp_refused(call) : queue_deleted(call, bits & BIT(2));
	if (!resolve_queue(call, &queue, &v))
		return v;
	q = amqp_queue_find(c->b, c->vhost_id, queue.s);
	if (q != NULL && !amqp_queue_is_here(c->b, q) && c->answer == NULL)
		return amqp_mirror_ask(c, q, AMQP_NOTE_COUNT, 0, false);
	code = q != NULL ? may_delete(c, q, bits, words) : 0;
	if (code != 0)
		return amqp_channel_error(c, call->channel, code, call->class_id, call->method_id,
					  "%squeue '%.*s' in vhost '%.*s'%s", words[0], AMQP_SPAN_ARG(queue.s),
					  AMQP_SPAN_ARG(c->vhost), words[1]);
	c->wait_count = q == NULL ? 0 : c->answer != NULL ? (uint32_t)c->answer->number[0] : q->ready_count;
	rec.str[0] = queue.s;
	rec.flags = (bits & BIT(0) ? AMQP_DEF_IF_UNUSED : 0) | (bits & BIT(1) ? AMQP_DEF_IF_EMPTY : 0);
	return amqp_ask(c, &rec);
}
