/*
 * rib_request.c - what a worker asks for: exchanges and queues declared and deleted, and its notices.
 *
 * Owns: no state of its own; each request ends in operations for all workers and one reply for the one that asked.
 * Core: control's event loop.
 * Spec: AMQP 0-9-1 sections 1.7 and 1.8; order of checks and texts as RabbitMQ has them.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/table.h"
#include "control/log.h"
#include "control/rib_int.h"

#define WHY_BYTES 1024u

static const char *code_name(uint16_t code)
{
	switch (code) {
#define AMQP_REPLY(number, name, level)                                                                                            \
	case number:                                                                                                               \
		return #name;
#include "amqp/reply_codes.def"
#undef AMQP_REPLY
	default:
		return "INTERNAL_ERROR";
	}
}

/* A reply text is a short string: at most 255 octets of UTF-8. */
static uint32_t fit_text(char *text, size_t len)
{
	if (len > 255)
		len = 255;
	while (len > 0 && !amqp_utf8_valid((const uint8_t *)text, len) && ((uint8_t)text[len - 1] & 0x80) != 0)
		len--;
	if (!amqp_utf8_valid((const uint8_t *)text, len))
		for (size_t i = 0; i < len; i++)
			if ((uint8_t)text[i] >= 0x80)
				text[i] = '?';
	return (uint32_t)len;
}

/* ---- replies that wait until every worker has applied what they are about ---- */

struct ctl_waiting {
	LIST_ENTRY(ctl_waiting) all;
	struct amqp_record reply;
	struct amqp_span name; /* reply.str[1], kept */
	uint32_t worker, left; /* whom it is for; answers that are awaited */
};

static struct ctl_waiting *waiting_find(const struct ctl_rib *r, uint64_t token)
{
	struct ctl_waiting *w;

	LIST_FOREACH(w, &r->waiting, all)
	if (w->reply.token == token)
		break;
	return token == 0 ? NULL : w;
}

static void waiting_free(struct ctl_waiting *w)
{
	LIST_REMOVE(w, all);
	ctl_span_free(&w->name);
	free(w);
}

void ctl_rib_waiting_forget(struct ctl_rib *r)
{
	while (!LIST_EMPTY(&r->waiting))
		waiting_free(LIST_FIRST(&r->waiting));
}

/* Their rings keep the order, so a barrier is met when all before it has been applied. */
static void reply_when_applied(struct ctl_rib *r, uint32_t worker, const struct amqp_record *rec)
{
	struct amqp_record barrier = {.kind = AMQP_OP_BARRIER, .token = rec->token, .conn_uid = rec->conn_uid};
	struct ctl_waiting *w = ctl_alloc(sizeof *w);

	w->reply = *rec;
	w->worker = worker;
	w->left = r->workers_count - 1;
	w->name = ctl_span_dup(rec->str[1]);
	w->reply.str[0] = w->reply.blob = (struct amqp_span){NULL, 0}; /* only refusals have a text */
	w->reply.str[1] = w->name;
	LIST_INSERT_HEAD(&r->waiting, w, all);
	for (uint32_t i = 0; i < r->workers_count; i++)
		if (i != worker)
			r->ops->emit(r->ctx, i, &barrier);
}

static void on_applied(struct ctl_rib *r, const struct amqp_record *q)
{
	struct ctl_waiting *w = waiting_find(r, q->token);

	if (w == NULL || --w->left != 0)
		return;
	r->ops->emit(r->ctx, w->worker, &w->reply);
	waiting_free(w);
}

static bool changes_definitions(const struct amqp_record *q)
{
	return q->kind >= AMQP_REQ_EXCHANGE_DECLARE && q->kind <= AMQP_REQ_QUEUE_UNBIND;
}

static void send_reply(struct ctl_rib *r, uint32_t worker, struct amqp_record *rec, const struct amqp_record *q)
{
	if (q->token == 0)
		return;
	rec->kind = AMQP_OP_REPLY;
	rec->token = q->token;
	rec->conn_uid = q->conn_uid;
	if (worker >= r->workers_count)
		return;
	if (r->workers_count > 1 && rec->code == 0 && changes_definitions(q))
		reply_when_applied(r, worker, rec);
	else
		r->ops->emit(r->ctx, worker, rec);
}

void ctl_rib_reply(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, uint16_t code, const char *fmt, ...)
{
	struct amqp_record rec = {.code = code, .id = AMQP_ID_NONE};
	char text[WHY_BYTES + 64];
	int n = snprintf(text, sizeof text, "%s - ", code_name(code));
	va_list ap;

	va_start(ap, fmt);
	n += vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
	va_end(ap);
	if (code != 0)
		rec.str[0] = (struct amqp_span){(const uint8_t *)text,
						fit_text(text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1)};
	send_reply(r, worker, &rec, q);
}

void ctl_rib_reply_ok(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, uint32_t id, struct amqp_span name,
		      uint32_t flags)
{
	struct amqp_record rec = {.id = id, .flags = flags, .str = {{NULL, 0}, name}};

	send_reply(r, worker, &rec, q);
}

static bool starts_amq(struct amqp_span name)
{
	return name.len >= 4 && memcmp(name.ptr, "amq.", 4) == 0;
}

static const char *yes_no(uint32_t flag)
{
	return flag != 0 ? "true" : "false";
}

/* ---- exchanges ---- */

static int type_of(struct amqp_span text)
{
	for (int t = AMQP_DIRECT; t <= AMQP_HEADERS; t++)
		if (ctl_span_is(text, ctl_exchange_type_name((enum amqp_exchange_type)t)))
			return t;
	return -1;
}

/* What differs between an exchange and its declaration; false: nothing. */
static bool exchange_differs(const struct ctl_exchange *x, int type, const struct amqp_record *q, char *why, size_t why_bytes)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} flags[] = {{AMQP_DEF_DURABLE, "durable"}, {AMQP_DEF_AUTO_DELETE, "auto_delete"}, {AMQP_DEF_INTERNAL, "internal"}};
	static const char form[] = "inequivalent arg '%s' for exchange '%.*s' in vhost '%.*s': received '%s' but current is '%s'";

	if ((int)x->type != type) {
		snprintf(why, why_bytes, form, "type", CTL_SPAN_ARG(x->name), CTL_SPAN_ARG(x->vhost->name),
			 ctl_exchange_type_name((enum amqp_exchange_type)type), ctl_exchange_type_name(x->type));
		return true;
	}
	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
		if (((x->flags ^ q->flags) & flags[i].flag) != 0) {
			snprintf(why, why_bytes, form, flags[i].name, CTL_SPAN_ARG(x->name), CTL_SPAN_ARG(x->vhost->name),
				 yes_no(q->flags & flags[i].flag), yes_no(x->flags & flags[i].flag));
			return true;
		}
	return false;
}

static void exchange_create(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, struct ctl_vhost *v, int type)
{
	struct ctl_exchange *x = ctl_exchange_make(r, AMQP_ID_NONE, v, q->str[0], (enum amqp_exchange_type)type, q->flags, q->blob);

	if (x == NULL) {
		ctl_rib_reply(r, worker, q, 506, "no room for another exchange: all %u are in use", r->limits.exchanges_max);
		return;
	}
	if (!ctl_exchange_store(r, x)) {
		r->mute = true;
		ctl_exchange_delete(r, x);
		r->mute = false;
		ctl_rib_reply(r, worker, q, 506, CTL_UNSTORED);
		return;
	}
	ctl_emit_exchange(r, CTL_ALL_WORKERS, x);
	ctl_rib_reply_ok(r, worker, q, x->id, x->name, x->flags);
}

static void exchange_declare(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, struct ctl_vhost *v)
{
	struct ctl_exchange *x = ctl_rib_exchange(r, v, q->str[0]);
	bool passive = (q->flags & AMQP_DEF_PASSIVE) != 0;
	int type = type_of(q->str[1]), code;
	char why[WHY_BYTES];

	if (!passive && type < 0)
		ctl_rib_reply(r, worker, q, 503, "unknown exchange type '%.*s'", CTL_SPAN_ARG(q->str[1]));
	else if (q->str[0].len == 0)
		ctl_rib_reply(r, worker, q, 403, "operation not permitted on the default exchange");
	else if (passive && x == NULL)
		ctl_rib_reply(r, worker, q, 404, "no exchange '%.*s' in vhost '%.*s'", CTL_SPAN_ARG(q->str[0]),
			      CTL_SPAN_ARG(v->name));
	else if (passive)
		ctl_rib_reply_ok(r, worker, q, x->id, x->name, x->flags);
	else if ((code = ctl_exchange_args_check(q->blob, q->str[0], v->name, why, sizeof why)) != 0)
		ctl_rib_reply(r, worker, q, (uint16_t)code, "%s", why);
	else if (x != NULL && exchange_differs(x, type, q, why, sizeof why))
		ctl_rib_reply(r, worker, q, 406, "%s", why);
	else if (x != NULL)
		ctl_rib_reply_ok(r, worker, q, x->id, x->name, x->flags);
	else if (starts_amq(q->str[0]))
		ctl_rib_reply(r, worker, q, 403, "exchange name '%.*s' contains reserved prefix 'amq.*'", CTL_SPAN_ARG(q->str[0]));
	else
		exchange_create(r, worker, q, v, type);
}

static void exchange_delete(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, struct ctl_vhost *v)
{
	struct ctl_exchange *x = ctl_rib_exchange(r, v, q->str[0]);

	if (q->str[0].len == 0)
		ctl_rib_reply(r, worker, q, 403, "operation not permitted on the default exchange");
	else if (starts_amq(q->str[0]))
		ctl_rib_reply(r, worker, q, 403, "exchange name '%.*s' contains reserved prefix 'amq.*'", CTL_SPAN_ARG(q->str[0]));
	else if (x != NULL && (q->flags & AMQP_DEF_IF_UNUSED) != 0 && x->bindings_count != 0)
		ctl_rib_reply(r, worker, q, 406, "exchange '%.*s' in vhost '%.*s' in use", CTL_SPAN_ARG(x->name),
			      CTL_SPAN_ARG(v->name));
	else {
		/* Spec says a missing exchange is 404 / we say ok, as RabbitMQ does since 3.2, so that a delete can be repeated. */
		if (x != NULL)
			ctl_exchange_delete(r, x);
		ctl_rib_reply_ok(r, worker, q, AMQP_ID_NONE, q->str[0], 0);
	}
}

/* ---- queues ---- */

static void reply_locked(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, const struct ctl_queue *queue)
{
	ctl_rib_reply(
		r, worker, q, 405,
		"cannot obtain exclusive access to locked queue '%.*s' in vhost '%.*s'. It could be originally declared on another "
		"connection or the exclusive property value does not match that of the original declaration.",
		CTL_SPAN_ARG(queue->name), CTL_SPAN_ARG(queue->vhost->name));
}

static bool queue_differs(const struct ctl_queue *queue, const struct amqp_record *q, char *why, size_t why_bytes)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} flags[] = {{AMQP_DEF_DURABLE, "durable"}, {AMQP_DEF_AUTO_DELETE, "auto_delete"}};

	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
		if (((queue->flags ^ q->flags) & flags[i].flag) != 0) {
			snprintf(why, why_bytes,
				 "inequivalent arg '%s' for queue '%.*s' in vhost '%.*s': received '%s' but current is '%s'",
				 flags[i].name, CTL_SPAN_ARG(queue->name), CTL_SPAN_ARG(queue->vhost->name),
				 yes_no(q->flags & flags[i].flag), yes_no(queue->flags & flags[i].flag));
			return true;
		}
	return ctl_queue_args_equal(queue->args, q->blob, queue->name, queue->vhost->name, why, why_bytes) != 0;
}

static void queue_create(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, struct ctl_vhost *v,
			 struct amqp_span name)
{
	struct ctl_queue *queue = ctl_queue_make(r, AMQP_ID_NONE, v, name, q->flags, q->conn_uid, q->blob);

	if (queue == NULL) {
		ctl_rib_reply(r, worker, q, 506, "no room for another queue: all %u are in use", r->limits.queues_max);
		return;
	}
	queue->home = worker;
	if (!ctl_queue_store(r, queue)) {
		r->mute = true;
		ctl_rib_queue_delete(r, queue);
		r->mute = false;
		ctl_rib_reply(r, worker, q, 506, CTL_UNSTORED);
		return;
	}
	ctl_emit_queue(r, CTL_ALL_WORKERS, queue);
	ctl_rib_reply_ok(r, worker, q, queue->id, queue->name, queue->flags);
}

/* "amq.gen-" and 22 characters, which hold 128 random bits. */
static struct amqp_span generate_name(struct ctl_rib *r, char out[32])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint8_t bits[18] = {0};

	r->ops->random(r->ctx, bits, 16);
	memcpy(out, "amq.gen-", 8);
	for (unsigned i = 0; i < 22; i++) {
		unsigned at = i * 6 / 8, shift = i * 6 % 8;
		unsigned two = (unsigned)bits[at] << 8 | bits[at + 1];

		out[8 + i] = digits[two >> (10 - shift) & 63];
	}
	return (struct amqp_span){(const uint8_t *)out, 30};
}

static void queue_declare(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, struct ctl_vhost *v)
{
	struct amqp_span name = q->str[0];
	bool passive = (q->flags & AMQP_DEF_PASSIVE) != 0;
	struct ctl_queue *queue;
	char generated[32], why[WHY_BYTES];
	int code;

	if (name.len == 0 && !passive)
		name = generate_name(r, generated);
	else if (starts_amq(name) && !passive) {
		ctl_rib_reply(r, worker, q, 403, "queue name '%.*s' contains reserved prefix 'amq.*'", CTL_SPAN_ARG(name));
		return;
	}
	queue = ctl_rib_queue(r, v, name);
	if (passive && queue == NULL)
		ctl_rib_reply(r, worker, q, 404, "no queue '%.*s' in vhost '%.*s'", CTL_SPAN_ARG(name), CTL_SPAN_ARG(v->name));
	else if (queue != NULL && queue->owner != 0 && queue->owner != q->conn_uid)
		reply_locked(r, worker, q, queue);
	else if (passive)
		ctl_rib_reply_ok(r, worker, q, queue->id, queue->name, queue->flags);
	else if (queue != NULL && ((queue->flags ^ q->flags) & AMQP_DEF_EXCLUSIVE) != 0)
		reply_locked(r, worker, q, queue);
	else if ((code = ctl_queue_args_check(q->blob, name, v->name, why, sizeof why)) != 0)
		ctl_rib_reply(r, worker, q, (uint16_t)code, "%s", why);
	else if (queue != NULL && queue_differs(queue, q, why, sizeof why))
		ctl_rib_reply(r, worker, q, 406, "%s", why);
	else if (queue != NULL)
		ctl_rib_reply_ok(r, worker, q, queue->id, queue->name, queue->flags);
	else
		queue_create(r, worker, q, v, name);
}

static void queue_delete(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, struct ctl_vhost *v)
{
	struct ctl_queue *queue = ctl_rib_queue(r, v, q->str[0]);
	uint32_t id = queue != NULL ? queue->id : AMQP_ID_NONE;

	if (queue != NULL && queue->owner != 0 && queue->owner != q->conn_uid) {
		reply_locked(r, worker, q, queue);
		return;
	}
	/* Spec says a missing queue is 404 / we say ok, as RabbitMQ does. */
	if (queue != NULL)
		ctl_rib_queue_delete(r, queue);
	ctl_rib_reply_ok(r, worker, q, id, q->str[0], 0);
}

/* ---- dispatch ---- */

static bool names_fit(const struct amqp_record *q)
{
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		if (q->str[i].len > 255 || !amqp_utf8_valid(q->str[i].ptr, q->str[i].len))
			return false;
	return true;
}

static void definition_request(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q)
{
	struct ctl_vhost *v = ctl_rib_vhost_by_id(r, q->id);

	if (v == NULL) {
		ctl_rib_reply(r, worker, q, 530, "the connection's vhost does not exist any more");
		return;
	}
	if (!names_fit(q)) {
		ctl_rib_reply(r, worker, q, 501, "a name is longer than 255 octets or no UTF-8");
		return;
	}
	switch ((enum amqp_record_kind)q->kind) {
	case AMQP_REQ_EXCHANGE_DECLARE:
		exchange_declare(r, worker, q, v);
		break;
	case AMQP_REQ_EXCHANGE_DELETE:
		exchange_delete(r, worker, q, v);
		break;
	case AMQP_REQ_QUEUE_DECLARE:
		queue_declare(r, worker, q, v);
		break;
	case AMQP_REQ_QUEUE_DELETE:
		queue_delete(r, worker, q, v);
		break;
	default:
		ctl_rib_bind_request(r, worker, q);
		break;
	}
}

static void queue_unused(struct ctl_rib *r, uint32_t id)
{
	struct ctl_queue *queue = id < r->limits.queues_max ? r->queue[id] : NULL;

	if (queue != NULL && (queue->flags & AMQP_DEF_AUTO_DELETE) != 0)
		ctl_rib_queue_delete(r, queue);
}

/* Names what a worker had no room for. False: it is gone meanwhile, or the operation added nothing. */
static bool name_failed(const struct ctl_rib *r, uint32_t op_kind, uint32_t id, char *out, size_t out_bytes)
{
	if (op_kind == AMQP_OP_EXCHANGE_ADD && id < r->limits.exchanges_max && r->exchange[id] != NULL)
		snprintf(out, out_bytes, "exchange '%.*s' in vhost '%.*s'", CTL_SPAN_ARG(r->exchange[id]->name),
			 CTL_SPAN_ARG(r->exchange[id]->vhost->name));
	else if (op_kind == AMQP_OP_QUEUE_ADD && id < r->limits.queues_max && r->queue[id] != NULL)
		snprintf(out, out_bytes, "queue '%.*s' in vhost '%.*s'", CTL_SPAN_ARG(r->queue[id]->name),
			 CTL_SPAN_ARG(r->queue[id]->vhost->name));
	else if (op_kind == AMQP_OP_BIND_ADD && id < r->limits.bindings_max && r->binding[id] != NULL)
		snprintf(out, out_bytes, "binding of exchange '%.*s' with key '%.*s'", CTL_SPAN_ARG(r->binding[id]->source->name),
			 CTL_SPAN_ARG(r->binding[id]->key));
	else
		return false;
	return true;
}

/*
 * Without a token nobody asked for the operation: it restored a definition. That the worker has no room for it now is no
 * reason to lose it for good.
 */
static void op_failed(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q)
{
	static const char no_room[] = "a worker has no room for this definition";
	struct ctl_waiting *w = waiting_find(r, q->token);
	char name[640];

	if (w != NULL) {
		w->reply.code = q->code;
		w->reply.str[0] = (struct amqp_span){(const uint8_t *)no_room, sizeof no_room - 1};
	}
	if (q->token == 0 && name_failed(r, q->id2, q->id, name, sizeof name)) {
		ctl_log(CTL_LOG_ERROR, "worker %u could not take the %s: %u %.*s; it is not served, but stays stored", worker, name,
			q->code, CTL_SPAN_ARG(q->str[0]));
		ctl_rib_delete_failed(r, worker, q->id2, q->id, true);
		return;
	}
	ctl_log(CTL_LOG_WARNING, "worker %u could not apply operation %u on object %u: %u %.*s", worker, q->id2, q->id, q->code,
		CTL_SPAN_ARG(q->str[0]));
	ctl_rib_delete_failed(r, worker, q->id2, q->id, false);
}

void ctl_rib_request(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q)
{
	r->token = q->token;
	r->conn_uid = q->conn_uid;
	switch ((enum amqp_record_kind)q->kind) {
	case AMQP_REQ_EXCHANGE_DECLARE:
	case AMQP_REQ_EXCHANGE_DELETE:
	case AMQP_REQ_EXCHANGE_BIND:
	case AMQP_REQ_EXCHANGE_UNBIND:
	case AMQP_REQ_QUEUE_DECLARE:
	case AMQP_REQ_QUEUE_DELETE:
	case AMQP_REQ_QUEUE_BIND:
	case AMQP_REQ_QUEUE_UNBIND:
		definition_request(r, worker, q);
		break;
	case AMQP_REQ_CONN_GONE:
		r->token = r->conn_uid = 0;
		ctl_rib_conn_gone(r, q->conn_uid);
		break;
	case AMQP_REQ_QUEUE_UNUSED:
		r->token = r->conn_uid = 0;
		queue_unused(r, q->id);
		break;
	case AMQP_REQ_APPLIED:
		on_applied(r, q);
		break;
	case AMQP_REQ_OP_FAILED:
		r->token = r->conn_uid = 0;
		op_failed(r, worker, q);
		break;
	default:
		ctl_log(CTL_LOG_WARNING, "worker %u sent a record of kind %u, which is no request", worker, q->kind);
		ctl_rib_reply(r, worker, q, 541, "control does not know this request");
		break;
	}
	r->token = r->conn_uid = 0;
}
