/*
 * rib_bind.c - bindings made and undone, to queues and to exchanges.
 *
 * Owns: no state of its own.
 * Core: control's event loop.
 * Spec: AMQP 0-9-1 section 1.8.3 (queue.bind, queue.unbind) and RabbitMQ's exchange.bind and exchange.unbind.
 */
#include <stdio.h>

#include "amqp/table.h"
#include "control/rib_int.h"

/* A request with its names looked up. */
struct bind {
	const struct amqp_record *q;
	uint32_t worker;
	struct ctl_vhost *vhost;
	bool to_exchange;
	struct ctl_exchange *source, *dest_exchange;
	struct ctl_queue *dest_queue;
};

static void refuse_missing(struct ctl_rib *r, const struct bind *b)
{
	bool source = b->source == NULL;

	ctl_rib_reply(r, b->worker, b->q, 404, "no %s '%.*s' in vhost '%.*s'", source || b->to_exchange ? "exchange" : "queue",
		      CTL_SPAN_ARG(source ? b->q->str[1] : b->q->str[0]), CTL_SPAN_ARG(b->vhost->name));
}

/* Checks that bind and unbind share. False: a reply was sent. */
static bool may_touch(struct ctl_rib *r, const struct bind *b)
{
	const struct ctl_queue *queue = b->dest_queue;
	const char *bad;
	int code;

	if (b->q->str[1].len == 0 || (b->to_exchange && b->q->str[0].len == 0)) {
		ctl_rib_reply(r, b->worker, b->q, 403, "operation not permitted on the default exchange");
		return false;
	}
	if (queue != NULL && queue->owner != 0 && queue->owner != b->q->conn_uid) {
		ctl_rib_reply(
			r, b->worker, b->q, 405,
			"cannot obtain exclusive access to locked queue '%.*s' in vhost '%.*s'. It could be originally declared on "
			"another connection or the exclusive property value does not match that of the original declaration.",
			CTL_SPAN_ARG(queue->name), CTL_SPAN_ARG(queue->vhost->name));
		return false;
	}
	code = amqp_table_check(b->q->blob.ptr, b->q->blob.len, &bad);
	if (code != 0) {
		ctl_rib_reply(r, b->worker, b->q, (uint16_t)code, "%s", bad);
		return false;
	}
	return true;
}

static void bind_new(struct ctl_rib *r, const struct bind *b)
{
	struct ctl_rule *rule = NULL;
	struct ctl_binding *made;
	struct amqp_span key;
	char why[512];
	bool without;
	int code = ctl_rule_key(r, b->source, b->q->str[2], b->q->blob, &key, &without, why, sizeof why);

	if (code != 0) {
		ctl_rib_reply(r, b->worker, b->q, (uint16_t)code, "%s", why);
		return;
	}
	if (!without && (rule = ctl_rule_get(r, b->source, key, AMQP_ID_NONE)) == NULL) {
		ctl_rib_reply(r, b->worker, b->q, 506, "no room for another binding key: all %u are in use", r->limits.rules_max);
		return;
	}
	made = ctl_binding_make(r, AMQP_ID_NONE, b->source, b->dest_exchange, b->dest_queue, rule, b->q->str[2], b->q->blob);
	if (made == NULL) {
		ctl_rule_drop_unused(r, rule);
		ctl_rib_reply(r, b->worker, b->q, 506, "no room for another binding: all %u are in use", r->limits.bindings_max);
		return;
	}
	if (!ctl_binding_store(r, made)) {
		r->mute = true;
		ctl_binding_delete(r, made);
		r->mute = false;
		ctl_rib_reply(r, b->worker, b->q, 506, CTL_UNSTORED);
		return;
	}
	ctl_emit_binding(r, CTL_ALL_WORKERS, made);
	ctl_rib_reply(r, b->worker, b->q, 0, "ok");
}

static void bind(struct ctl_rib *r, const struct bind *b)
{
	if (b->source == NULL || (b->dest_exchange == NULL && b->dest_queue == NULL))
		refuse_missing(r, b);
	else if (ctl_binding_find(r, b->source, b->dest_exchange, b->dest_queue, b->q->str[2], b->q->blob) != NULL)
		ctl_rib_reply(r, b->worker, b->q, 0, "ok");
	else
		bind_new(r, b);
}

static void unbind(struct ctl_rib *r, const struct bind *b)
{
	struct ctl_binding *old = NULL;

	/* Spec says a missing queue or exchange is 404 / we say ok, as RabbitMQ does. */
	if (b->source != NULL && (b->dest_exchange != NULL || b->dest_queue != NULL))
		old = ctl_binding_find(r, b->source, b->dest_exchange, b->dest_queue, b->q->str[2], b->q->blob);
	if (old != NULL)
		ctl_binding_delete(r, old);
	ctl_rib_reply(r, b->worker, b->q, 0, "ok");
}

void ctl_rib_bind_request(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q)
{
	struct bind b = {.q = q, .worker = worker, .vhost = ctl_rib_vhost_by_id(r, q->id)};

	b.to_exchange = q->kind == AMQP_REQ_EXCHANGE_BIND || q->kind == AMQP_REQ_EXCHANGE_UNBIND;
	b.source = ctl_rib_exchange(r, b.vhost, q->str[1]);
	if (b.to_exchange)
		b.dest_exchange = ctl_rib_exchange(r, b.vhost, q->str[0]);
	else
		b.dest_queue = ctl_rib_queue(r, b.vhost, q->str[0]);
	if (!may_touch(r, &b))
		return;
	if (q->kind == AMQP_REQ_QUEUE_BIND || q->kind == AMQP_REQ_EXCHANGE_BIND)
		bind(r, &b);
	else
		unbind(r, &b);
}
