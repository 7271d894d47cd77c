/*
 * rib_sync.c - the RIB rebuilt: from what the workers hold, from what is stored, and the difference programmed.
 *
 * Owns: the state of a sync (r->syncing, r->dumps_open).
 * Core: control's event loop, after it attached to a dataplane.
 * Spec: DESIGN section 5; a dump is not trusted: what contradicts itself ends the sync.
 */
#include "control/rib.h"

#include <assert.h>
#include <stdio.h>

#include "amqp/table.h"
#include "control/log.h"
#include "control/rib_int.h"

void ctl_rib_sync_begin(struct ctl_rib *r, uint32_t workers_count, const struct ctl_rib_limits *limits)
{
	assert(workers_count >= 1 && workers_count < 32);
	ctl_rib_reset(r, limits);
	r->workers_count = workers_count;
	r->syncing = true;
	r->dumps_open = (1u << workers_count) - 1;
	for (uint32_t w = 0; w < workers_count; w++) {
		struct amqp_record rec = {.kind = AMQP_OP_DUMP};

		r->ops->emit(r->ctx, w, &rec);
	}
}

static bool refuse(struct ctl_rib *r, const char *why)
{
	r->sync_error = why;
	return false;
}

static bool text_ok(struct amqp_span s)
{
	return s.len <= 255 && amqp_utf8_valid(s.ptr, s.len);
}

static bool def_ok(const struct amqp_record *rec)
{
	return text_ok(rec->str[0]) && text_ok(rec->str[1]) && amqp_table_check(rec->blob.ptr, rec->blob.len, NULL) == 0;
}

/* The vhost of a definition, which carries both its name and its id. */
static struct ctl_vhost *vhost_adopt(struct ctl_rib *r, struct amqp_span name, uint32_t id)
{
	struct ctl_vhost *by_id = ctl_rib_vhost_by_id(r, id), *v;

	if (id > UINT16_MAX || (by_id != NULL && !ctl_span_equal(by_id->name, name)))
		return NULL;
	v = ctl_rib_vhost(r, name);
	if (v->id == AMQP_ID_NONE)
		v->id = id;
	return v->id == id ? v : NULL;
}

static bool sync_exchange(struct ctl_rib *r, uint32_t worker, const struct amqp_record *rec)
{
	struct ctl_vhost *v = vhost_adopt(r, rec->str[1], rec->id2);
	struct ctl_exchange *x;

	if (v == NULL || rec->code > AMQP_HEADERS)
		return refuse(r, "an exchange of the dump has an impossible vhost or type");
	x = ctl_rib_exchange(r, v, rec->str[0]);
	if (x == NULL)
		x = ctl_exchange_make(r, rec->id, v, rec->str[0], (enum amqp_exchange_type)rec->code, rec->flags, rec->blob);
	else if (x->id != rec->id || (x->have & 1u << worker) != 0)
		return refuse(r, "an exchange is in the dump twice");
	if (x == NULL)
		return refuse(r, "an exchange of the dump has an id that is out of range or somebody else's");
	x->have |= 1u << worker;
	return true;
}

static bool sync_queue(struct ctl_rib *r, uint32_t worker, const struct amqp_record *rec)
{
	struct ctl_vhost *v = vhost_adopt(r, rec->str[1], rec->id2);
	struct ctl_queue *q;

	if (v == NULL)
		return refuse(r, "a queue of the dump has an impossible vhost");
	q = ctl_rib_queue(r, v, rec->str[0]);
	if (q == NULL)
		q = ctl_queue_make(r, rec->id, v, rec->str[0], rec->flags, rec->conn_uid, rec->blob);
	else if (q->id != rec->id || q->home != rec->id3 || (q->have & 1u << worker) != 0)
		return refuse(r, "a queue is in the dump twice");
	if (q == NULL)
		return refuse(r, "a queue of the dump has an id that is out of range or somebody else's");
	if (rec->id3 >= r->workers_count)
		return refuse(r, "a queue of the dump lives on a worker that does not exist");
	q->home = rec->id3;
	q->have |= 1u << worker;
	return true;
}

static struct ctl_binding *sync_binding_make(struct ctl_rib *r, const struct amqp_record *rec, struct ctl_exchange *src,
					     struct ctl_exchange *dst_x, struct ctl_queue *dst_q)
{
	struct ctl_rule *rule = NULL;
	struct ctl_binding *b;
	struct amqp_span key;
	char why[512];
	bool without;

	if (ctl_rule_key(r, src, rec->str[0], rec->blob, &key, &without, why, sizeof why) != 0)
		return NULL;
	if (!without && (rec->id4 == AMQP_ID_NONE || (rule = ctl_rule_get(r, src, key, rec->id4)) == NULL))
		return NULL;
	b = ctl_binding_make(r, rec->id, src, dst_x, dst_q, rule, rec->str[0], rec->blob);
	if (b == NULL)
		ctl_rule_drop_unused(r, rule);
	return b;
}

static bool sync_binding(struct ctl_rib *r, uint32_t worker, const struct amqp_record *rec)
{
	bool to_exchange = (rec->flags & AMQP_DEF_DEST_EXCHANGE) != 0;
	struct ctl_exchange *src = rec->id2 < r->limits.exchanges_max ? r->exchange[rec->id2] : NULL, *dst_x = NULL;
	struct ctl_queue *dst_q = NULL;
	struct ctl_binding *b;

	if (to_exchange && rec->id3 < r->limits.exchanges_max)
		dst_x = r->exchange[rec->id3];
	if (!to_exchange && rec->id3 < r->limits.queues_max)
		dst_q = r->queue[rec->id3];
	if (src == NULL || (dst_x == NULL && dst_q == NULL))
		return refuse(r, "a binding of the dump leads from or to nothing");
	b = ctl_binding_find(r, src, dst_x, dst_q, rec->str[0], rec->blob);
	if (b == NULL)
		b = sync_binding_make(r, rec, src, dst_x, dst_q);
	else if (b->id != rec->id || (b->have & 1u << worker) != 0)
		return refuse(r, "a binding is in the dump twice");
	if (b == NULL)
		return refuse(r, "a binding of the dump has impossible ids or arguments");
	b->have |= 1u << worker;
	return true;
}

bool ctl_rib_sync_record(struct ctl_rib *r, uint32_t worker, const struct amqp_record *rec)
{
	if (!r->syncing || (r->dumps_open & 1u << worker) == 0)
		return refuse(r, "a definition came outside of a dump");
	if (!def_ok(rec))
		return refuse(r, "a definition of the dump has a malformed name or table");
	switch ((enum amqp_record_kind)rec->kind) {
	case AMQP_REQ_DEF_EXCHANGE:
		return sync_exchange(r, worker, rec);
	case AMQP_REQ_DEF_QUEUE:
		return sync_queue(r, worker, rec);
	case AMQP_REQ_DEF_BINDING:
		return sync_binding(r, worker, rec);
	case AMQP_REQ_DEF_CONN:
		ctl_rib_conn_add(r, worker, rec->conn_uid, rec->str[0], rec->str[1]);
		return true;
	case AMQP_REQ_DUMP_END:
		r->dumps_open &= ~(1u << worker);
		return true;
	default:
		return refuse(r, "a record that is no definition came as one");
	}
}

/* ---- from the store ---- */

static bool unusable(struct ctl_rib *r, uint64_t store_id, const char *sentence, const char **why)
{
	*why = sentence;
	if (store_id != 0)
		r->ops->store_del(r->ctx, store_id);
	return false;
}

static bool restore_exchange(struct ctl_rib *r, const struct amqp_record *def, uint64_t store_id, const char **why)
{
	struct ctl_vhost *v = ctl_rib_vhost(r, def->str[1]);
	struct ctl_exchange *x = ctl_rib_exchange(r, v, def->str[0]);

	if (def->code > AMQP_HEADERS)
		return unusable(r, 0, "its type is unknown", why);
	if (x != NULL && (x->store_id != 0 || x->type != (enum amqp_exchange_type)def->code || x->flags != def->flags))
		return unusable(r, store_id, "the running exchange of that name is another one", why);
	if (x == NULL)
		x = ctl_exchange_make(r, AMQP_ID_NONE, v, def->str[0], (enum amqp_exchange_type)def->code, def->flags, def->blob);
	if (x == NULL)
		return unusable(r, 0, "the dataplane has no room for another exchange", why);
	x->store_id = store_id;
	return true;
}

static bool restore_queue(struct ctl_rib *r, const struct amqp_record *def, uint64_t store_id, const char **why)
{
	struct ctl_vhost *v = ctl_rib_vhost(r, def->str[1]);
	struct ctl_queue *q = ctl_rib_queue(r, v, def->str[0]);

	if (q != NULL && (q->store_id != 0 || q->flags != def->flags))
		return unusable(r, store_id, "the running queue of that name is another one", why);
	if (q == NULL)
		q = ctl_queue_make(r, AMQP_ID_NONE, v, def->str[0], def->flags, 0, def->blob);
	if (q == NULL)
		return unusable(r, 0, "the dataplane has no room for another queue", why);
	/* It has no connection yet; the workers share such queues. */
	if (q->have == 0 && r->workers_count != 0)
		q->home = q->id % r->workers_count;
	q->store_id = store_id;
	return true;
}

static bool restore_binding(struct ctl_rib *r, const struct amqp_record *def, uint64_t store_id, const char **why)
{
	struct ctl_vhost *v = ctl_rib_vhost(r, def->str[1]);
	struct ctl_exchange *src = ctl_rib_exchange(r, v, def->str[2]), *dst_x = NULL;
	struct ctl_queue *dst_q = NULL;
	struct ctl_rule *rule = NULL;
	struct ctl_binding *b;
	struct amqp_span key;
	char text[512];
	bool without;

	if ((def->flags & AMQP_DEF_DEST_EXCHANGE) != 0)
		dst_x = ctl_rib_exchange(r, v, def->str[3]);
	else
		dst_q = ctl_rib_queue(r, v, def->str[3]);
	if (src == NULL || (dst_x == NULL && dst_q == NULL))
		return unusable(r, 0, "it leads from or to nothing", why);
	b = ctl_binding_find(r, src, dst_x, dst_q, def->str[0], def->blob);
	if (b != NULL && b->store_id != 0)
		return unusable(r, store_id, "it is stored twice", why);
	if (b == NULL) {
		if (ctl_rule_key(r, src, def->str[0], def->blob, &key, &without, text, sizeof text) != 0)
			return unusable(r, 0, "its arguments make no rule", why);
		if (!without && (rule = ctl_rule_get(r, src, key, AMQP_ID_NONE)) == NULL)
			return unusable(r, 0, "the dataplane has no room for another binding key", why);
		b = ctl_binding_make(r, AMQP_ID_NONE, src, dst_x, dst_q, rule, def->str[0], def->blob);
	}
	if (b == NULL) {
		ctl_rule_drop_unused(r, rule);
		return unusable(r, 0, "the dataplane has no room for another binding", why);
	}
	b->store_id = store_id;
	return true;
}

bool ctl_rib_restore(struct ctl_rib *r, const struct amqp_record *def, uint64_t store_id, const char **why)
{
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		if (!text_ok(def->str[i]))
			return unusable(r, 0, "a name in it is malformed", why);
	if (amqp_table_check(def->blob.ptr, def->blob.len, NULL) != 0)
		return unusable(r, 0, "its arguments are malformed", why);
	switch ((enum amqp_record_kind)def->kind) {
	case AMQP_OP_EXCHANGE_ADD:
		return restore_exchange(r, def, store_id, why);
	case AMQP_OP_QUEUE_ADD:
		return restore_queue(r, def, store_id, why);
	case AMQP_OP_BIND_ADD:
		return restore_binding(r, def, store_id, why);
	default:
		return unusable(r, 0, "it is of an unknown kind", why);
	}
}

/* ---- the end of a sync ---- */

/* Objects are programmed in the order in which they lean on each other. */
static void program_missing(struct ctl_rib *r)
{
	for (uint32_t w = 0; w < r->workers_count; w++) {
		for (uint32_t i = 0; i < r->limits.exchanges_max; i++)
			if (r->exchange[i] != NULL && (r->exchange[i]->have & 1u << w) == 0)
				ctl_emit_exchange(r, w, r->exchange[i]);
		for (uint32_t i = 0; i < r->limits.queues_max; i++)
			if (r->queue[i] != NULL && (r->queue[i]->have & 1u << w) == 0)
				ctl_emit_queue(r, w, r->queue[i]);
		for (uint32_t i = 0; i < r->limits.bindings_max; i++)
			if (r->binding[i] != NULL && (r->binding[i]->have & 1u << w) == 0)
				ctl_emit_binding(r, w, r->binding[i]);
	}
}

/* Durable definitions that run but were not stored: the store was lost, or control died between the two. */
static void store_missing(struct ctl_rib *r)
{
	bool ok = true;

	for (uint32_t i = 0; i < r->limits.exchanges_max; i++)
		ok &= r->exchange[i] == NULL || ctl_exchange_store(r, r->exchange[i]);
	for (uint32_t i = 0; i < r->limits.queues_max; i++)
		ok &= r->queue[i] == NULL || ctl_queue_store(r, r->queue[i]);
	for (uint32_t i = 0; i < r->limits.bindings_max; i++)
		ok &= r->binding[i] == NULL || ctl_binding_store(r, r->binding[i]);
	if (!ok)
		ctl_log(CTL_LOG_ERROR,
			"some running durable definitions could not be stored; they would be lost with the dataplane");
}

void ctl_rib_sync_end(struct ctl_rib *r)
{
	assert(r->syncing && r->dumps_open == 0);
	ctl_rib_defaults(r);
	store_missing(r);
	program_missing(r);
	r->syncing = false;
	for (uint32_t i = 0; i < r->limits.queues_max; i++)
		if (r->queue[i] != NULL && (r->queue[i]->flags & AMQP_DEF_EXCLUSIVE) != 0 &&
		    ctl_rib_conn(r, r->queue[i]->owner) == NULL)
			ctl_rib_queue_delete(r, r->queue[i]);
}
