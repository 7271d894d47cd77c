/*
 * rib.c - the objects of the RIB: making, finding, and deleting them with all that hangs on them.
 *
 * Owns: every object, its place in maps and lists, and its id.
 * Core: control's event loop.
 * Spec: AMQP 0-9-1 section 3.1 (exchanges, queues, bindings); auto-delete exchanges as RabbitMQ has them.
 */
#include "control/rib.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/header_rule.h"
#include "amqp/table.h"
#include "control/rib_int.h"

const char *ctl_exchange_type_name(enum amqp_exchange_type t)
{
	static const char *const names[] = {"direct", "fanout", "topic", "headers"};

	return names[t];
}

static struct amqp_span none(void)
{
	return (struct amqp_span){NULL, 0};
}

/* ---- emitting ---- */

static void emit(struct ctl_rib *r, uint32_t worker, struct amqp_record *rec)
{
	if (r->mute)
		return;
	rec->token = r->token;
	if (rec->kind != AMQP_OP_QUEUE_ADD)
		rec->conn_uid = r->conn_uid;
	for (uint32_t w = 0; w < r->workers_count; w++)
		if ((worker == CTL_ALL_WORKERS && w != r->skip_worker) || worker == w)
			r->ops->emit(r->ctx, w, rec);
}

static void emit_del(struct ctl_rib *r, uint16_t kind, uint32_t id)
{
	struct amqp_record rec = {.kind = kind, .id = id};

	emit(r, CTL_ALL_WORKERS, &rec);
}

void ctl_emit_exchange(struct ctl_rib *r, uint32_t worker, const struct ctl_exchange *x)
{
	struct amqp_record rec = {.kind = AMQP_OP_EXCHANGE_ADD,
				  .id = x->id,
				  .id2 = x->vhost->id,
				  .code = (uint16_t)x->type,
				  .flags = x->flags,
				  .str = {x->name, x->vhost->name},
				  .blob = x->args};

	emit(r, worker, &rec);
}

void ctl_emit_queue(struct ctl_rib *r, uint32_t worker, const struct ctl_queue *q)
{
	struct amqp_record rec = {.kind = AMQP_OP_QUEUE_ADD,
				  .id = q->id,
				  .id2 = q->vhost->id,
				  .id3 = q->home,
				  .conn_uid = q->owner,
				  .flags = q->flags,
				  .str = {q->name, q->vhost->name},
				  .blob = q->args};

	emit(r, worker, &rec);
}

void ctl_emit_binding(struct ctl_rib *r, uint32_t worker, const struct ctl_binding *b)
{
	struct amqp_record rec = {.kind = AMQP_OP_BIND_ADD,
				  .id = b->id,
				  .id2 = b->source->id,
				  .id3 = b->dest_exchange != NULL ? b->dest_exchange->id : b->dest_queue->id,
				  .id4 = b->rule != NULL ? b->rule->id : AMQP_ID_NONE,
				  .flags = b->dest_exchange != NULL ? AMQP_DEF_DEST_EXCHANGE : 0,
				  .str = {b->key},
				  .blob = b->args};

	emit(r, worker, &rec);
}

/* ---- vhosts ---- */

struct ctl_vhost *ctl_rib_vhost_find(const struct ctl_rib *r, struct amqp_span name)
{
	struct ctl_vhost *v;

	LIST_FOREACH(v, &r->vhosts, all)
	if (ctl_span_equal(v->name, name))
		return v;
	return NULL;
}

struct ctl_vhost *ctl_rib_vhost_by_id(const struct ctl_rib *r, uint32_t id)
{
	struct ctl_vhost *v;

	if (id == AMQP_ID_NONE)
		return NULL;
	LIST_FOREACH(v, &r->vhosts, all)
	if (v->id == id)
		return v;
	return NULL;
}

struct ctl_vhost *ctl_rib_vhost(struct ctl_rib *r, struct amqp_span name)
{
	struct ctl_vhost *v = ctl_rib_vhost_find(r, name);

	if (v != NULL)
		return v;
	v = ctl_alloc(sizeof *v);
	v->name = ctl_span_dup(name);
	v->id = AMQP_ID_NONE;
	LIST_INSERT_HEAD(&r->vhosts, v, all);
	return v;
}

static void vhost_number(struct ctl_rib *r, struct ctl_vhost *v)
{
	if (v->id != AMQP_ID_NONE)
		return;
	while (ctl_rib_vhost_by_id(r, r->vhosts_max_id) != NULL)
		r->vhosts_max_id++;
	v->id = r->vhosts_max_id++;
}

static void ensure_exchange(struct ctl_rib *r, struct ctl_vhost *v, const char *name, enum amqp_exchange_type type, uint32_t flags)
{
	struct ctl_exchange *x;

	if (ctl_rib_exchange(r, v, ctl_span(name)) != NULL)
		return;
	x = ctl_exchange_make(r, AMQP_ID_NONE, v, ctl_span(name), type, AMQP_DEF_DURABLE | flags, none());
	if (x != NULL && !r->syncing)
		ctl_emit_exchange(r, CTL_ALL_WORKERS, x);
}

void ctl_rib_defaults(struct ctl_rib *r)
{
	struct ctl_vhost *v;

	LIST_FOREACH(v, &r->vhosts, all)
	{
		vhost_number(r, v);
		ensure_exchange(r, v, "", AMQP_DIRECT, AMQP_DEF_DEFAULT);
		ensure_exchange(r, v, "amq.direct", AMQP_DIRECT, 0);
		ensure_exchange(r, v, "amq.fanout", AMQP_FANOUT, 0);
		ensure_exchange(r, v, "amq.topic", AMQP_TOPIC, 0);
		ensure_exchange(r, v, "amq.headers", AMQP_HEADERS, 0);
		ensure_exchange(r, v, "amq.match", AMQP_HEADERS, 0);
	}
}

/* ---- exchanges ---- */

struct ctl_exchange *ctl_rib_exchange(const struct ctl_rib *r, const struct ctl_vhost *v, struct amqp_span name)
{
	uint64_t hash = ctl_map_hash(&r->exchanges_by_name, 0, v->name, name);

	for (struct ctl_map_node *n = ctl_map_first(&r->exchanges_by_name, hash); n != NULL; n = ctl_map_after(n)) {
		struct ctl_exchange *x = CTL_CONTAINER(n, struct ctl_exchange, by_name);

		if (x->vhost == v && ctl_span_equal(x->name, name))
			return x;
	}
	return NULL;
}

static uint32_t take_id(struct ctl_ids *ids, uint32_t id)
{
	if (id == AMQP_ID_NONE)
		return ctl_ids_take(ids);
	return ctl_ids_claim(ids, id) ? id : AMQP_ID_NONE;
}

struct ctl_exchange *ctl_exchange_make(struct ctl_rib *r, uint32_t id, struct ctl_vhost *v, struct amqp_span name,
				       enum amqp_exchange_type type, uint32_t flags, struct amqp_span args)
{
	struct ctl_exchange *x;

	id = take_id(&r->exchange_ids, id);
	if (id == AMQP_ID_NONE)
		return NULL;
	vhost_number(r, v);
	x = ctl_alloc(sizeof *x);
	x->vhost = v;
	x->name = ctl_span_dup(name);
	x->args = ctl_span_dup(args);
	x->type = type;
	x->flags = flags & (AMQP_DEF_DURABLE | AMQP_DEF_AUTO_DELETE | AMQP_DEF_INTERNAL | AMQP_DEF_DEFAULT);
	x->id = id;
	LIST_INIT(&x->as_source);
	LIST_INIT(&x->as_destination);
	r->exchange[id] = x;
	ctl_map_insert(&r->exchanges_by_name, &x->by_name, ctl_map_hash(&r->exchanges_by_name, 0, v->name, name));
	return x;
}

static void exchange_free(struct ctl_rib *r, struct ctl_exchange *x)
{
	r->exchange[x->id] = NULL;
	ctl_ids_free(&r->exchange_ids, x->id);
	ctl_map_remove(&r->exchanges_by_name, &x->by_name);
	ctl_span_free(&x->name);
	ctl_span_free(&x->args);
	free(x);
}

/* ---- queues ---- */

struct ctl_queue *ctl_rib_queue(const struct ctl_rib *r, const struct ctl_vhost *v, struct amqp_span name)
{
	uint64_t hash = ctl_map_hash(&r->queues_by_name, 0, v->name, name);

	for (struct ctl_map_node *n = ctl_map_first(&r->queues_by_name, hash); n != NULL; n = ctl_map_after(n)) {
		struct ctl_queue *q = CTL_CONTAINER(n, struct ctl_queue, by_name);

		if (q->vhost == v && ctl_span_equal(q->name, name))
			return q;
	}
	return NULL;
}

struct ctl_queue *ctl_queue_make(struct ctl_rib *r, uint32_t id, struct ctl_vhost *v, struct amqp_span name, uint32_t flags,
				 uint64_t owner, struct amqp_span args)
{
	struct ctl_queue *q;

	id = take_id(&r->queue_ids, id);
	if (id == AMQP_ID_NONE)
		return NULL;
	vhost_number(r, v);
	q = ctl_alloc(sizeof *q);
	q->vhost = v;
	q->name = ctl_span_dup(name);
	q->args = ctl_span_dup(args);
	q->flags = flags & (AMQP_DEF_DURABLE | AMQP_DEF_AUTO_DELETE | AMQP_DEF_EXCLUSIVE);
	q->owner = (flags & AMQP_DEF_EXCLUSIVE) != 0 ? owner : 0;
	q->id = id;
	LIST_INIT(&q->as_destination);
	r->queue[id] = q;
	ctl_map_insert(&r->queues_by_name, &q->by_name, ctl_map_hash(&r->queues_by_name, 0, v->name, name));
	if (q->owner != 0)
		ctl_map_insert(&r->queues_by_owner, &q->by_owner, ctl_map_hash(&r->queues_by_owner, q->owner, none(), none()));
	return q;
}

static void queue_free(struct ctl_rib *r, struct ctl_queue *q)
{
	r->queue[q->id] = NULL;
	ctl_ids_free(&r->queue_ids, q->id);
	ctl_map_remove(&r->queues_by_name, &q->by_name);
	if (q->owner != 0)
		ctl_map_remove(&r->queues_by_owner, &q->by_owner);
	ctl_span_free(&q->name);
	ctl_span_free(&q->args);
	free(q);
}

/* ---- rules ---- */

bool ctl_rule_is_pattern(enum amqp_exchange_type type, struct amqp_span key)
{
	if (type == AMQP_HEADERS)
		return true;
	if (type != AMQP_TOPIC)
		return false;
	for (uint32_t i = 0; i < key.len; i++)
		if ((key.ptr[i] == '*' || key.ptr[i] == '#') && (i == 0 || key.ptr[i - 1] == '.') &&
		    (i + 1 == key.len || key.ptr[i + 1] == '.'))
			return true;
	return false;
}

int ctl_rule_key(struct ctl_rib *r, const struct ctl_exchange *x, struct amqp_span key, struct amqp_span args,
		 struct amqp_span *out, bool *without, char *why, size_t why_bytes)
{
	size_t len;
	int code;

	*without = x->type == AMQP_FANOUT;
	*out = key;
	if (x->type != AMQP_HEADERS)
		return 0;
	code = amqp_header_rule(args.ptr, args.len, r->rule_scratch, CTL_RULE_BYTES_MAX, &len, why, why_bytes);
	*out = (struct amqp_span){r->rule_scratch, code == 0 ? (uint32_t)len : 0};
	return code;
}

static struct ctl_rule *rule_find(const struct ctl_rib *r, const struct ctl_exchange *x, struct amqp_span key)
{
	uint64_t hash = ctl_map_hash(&r->rules_by_key, x->id, key, none());

	for (struct ctl_map_node *n = ctl_map_first(&r->rules_by_key, hash); n != NULL; n = ctl_map_after(n)) {
		struct ctl_rule *rule = CTL_CONTAINER(n, struct ctl_rule, by_key);

		if (rule->source == x && ctl_span_equal(rule->key, key))
			return rule;
	}
	return NULL;
}

struct ctl_rule *ctl_rule_get(struct ctl_rib *r, struct ctl_exchange *x, struct amqp_span key, uint32_t id)
{
	struct ctl_rule *rule = rule_find(r, x, key);

	if (rule != NULL)
		return id == AMQP_ID_NONE || rule->id == id ? rule : NULL;
	id = take_id(&r->rule_ids, id);
	if (id == AMQP_ID_NONE)
		return NULL;
	rule = ctl_alloc(sizeof *rule);
	rule->id = id;
	rule->source = x;
	rule->key = ctl_span_dup(key);
	r->rule[id] = rule;
	ctl_map_insert(&r->rules_by_key, &rule->by_key, ctl_map_hash(&r->rules_by_key, x->id, key, none()));
	return rule;
}

static void rule_free(struct ctl_rib *r, struct ctl_rule *rule)
{
	r->rule[rule->id] = NULL;
	ctl_ids_free(&r->rule_ids, rule->id);
	ctl_span_free(&rule->key);
	free(rule);
}

void ctl_rule_drop_unused(struct ctl_rib *r, struct ctl_rule *rule)
{
	if (rule == NULL || rule->bindings_count != 0)
		return;
	if (rule->source != NULL)
		ctl_map_remove(&r->rules_by_key, &rule->by_key);
	rule->source = NULL;
	if (rule->images_count == 0)
		rule_free(r, rule);
}

void ctl_rib_rule_hold(struct ctl_rib *r, uint32_t id)
{
	if (id < r->limits.rules_max && r->rule[id] != NULL)
		r->rule[id]->images_count++;
}

void ctl_rib_rule_release(struct ctl_rib *r, uint32_t id)
{
	struct ctl_rule *rule = id < r->limits.rules_max ? r->rule[id] : NULL;

	if (rule == NULL || rule->images_count == 0)
		return;
	rule->images_count--;
	ctl_rule_drop_unused(r, rule);
}

bool ctl_rib_rule_adopt(struct ctl_rib *r, uint32_t id)
{
	if (id >= r->limits.rules_max)
		return false;
	if (r->rule[id] == NULL) {
		if (!ctl_ids_claim(&r->rule_ids, id))
			return false;
		r->rule[id] = ctl_alloc(sizeof *r->rule[id]);
		r->rule[id]->id = id;
	}
	r->rule[id]->images_count++;
	return true;
}

/* ---- bindings ---- */

static uint64_t binding_hash(const struct ctl_rib *r, const struct ctl_exchange *src, const struct ctl_exchange *dst_x,
			     const struct ctl_queue *dst_q, struct amqp_span key)
{
	uint64_t dest = dst_x != NULL ? 1ull << 63 | (uint64_t)dst_x->id << 32 : (uint64_t)dst_q->id << 32;

	return ctl_map_hash(&r->bindings_by_key, dest | src->id, key, none());
}

struct ctl_binding *ctl_binding_find(const struct ctl_rib *r, const struct ctl_exchange *src, const struct ctl_exchange *dst_x,
				     const struct ctl_queue *dst_q, struct amqp_span key, struct amqp_span args)
{
	uint64_t hash = binding_hash(r, src, dst_x, dst_q, key);

	for (struct ctl_map_node *n = ctl_map_first(&r->bindings_by_key, hash); n != NULL; n = ctl_map_after(n)) {
		struct ctl_binding *b = CTL_CONTAINER(n, struct ctl_binding, by_key);

		if (b->source == src && b->dest_exchange == dst_x && b->dest_queue == dst_q && ctl_span_equal(b->key, key) &&
		    amqp_table_equal(b->args.ptr, b->args.len, args.ptr, args.len))
			return b;
	}
	return NULL;
}

struct ctl_binding *ctl_binding_make(struct ctl_rib *r, uint32_t id, struct ctl_exchange *src, struct ctl_exchange *dst_x,
				     struct ctl_queue *dst_q, struct ctl_rule *rule, struct amqp_span key, struct amqp_span args)
{
	struct ctl_binding *b;

	id = take_id(&r->binding_ids, id);
	if (id == AMQP_ID_NONE)
		return NULL;
	b = ctl_alloc(sizeof *b);
	b->id = id;
	b->source = src;
	b->dest_exchange = dst_x;
	b->dest_queue = dst_q;
	b->rule = rule;
	b->key = ctl_span_dup(key);
	b->args = ctl_span_dup(args);
	r->binding[id] = b;
	ctl_map_insert(&r->bindings_by_key, &b->by_key, binding_hash(r, src, dst_x, dst_q, key));
	LIST_INSERT_HEAD(&src->as_source, b, of_source);
	LIST_INSERT_HEAD(dst_x != NULL ? &dst_x->as_destination : &dst_q->as_destination, b, of_destination);
	src->bindings_count++;
	if (rule != NULL && rule->bindings_count++ == 0 && ctl_rule_is_pattern(src->type, rule->key)) {
		src->pattern_rules++;
		r->ops->rules_changed(r->ctx, src);
	}
	return b;
}

static void rule_unbind(struct ctl_rib *r, struct ctl_exchange *x, struct ctl_rule *rule)
{
	if (rule == NULL || --rule->bindings_count != 0)
		return;
	if (ctl_rule_is_pattern(x->type, rule->key)) {
		x->pattern_rules--;
		if (!x->dying)
			r->ops->rules_changed(r->ctx, x);
	}
	ctl_rule_drop_unused(r, rule);
}

/* A definition that could not be restored stays in the store: with more room in the dataplane the next attach has it again. */
static void forget_stored(struct ctl_rib *r, uint64_t store_id)
{
	if (store_id != 0 && !r->keep_stored)
		r->ops->store_del(r->ctx, store_id);
}

/* Takes one binding away; its source joins the dying ones when this was the last of an auto-delete exchange. */
static void unlink_binding(struct ctl_rib *r, struct ctl_binding *b)
{
	struct ctl_exchange *x = b->source;

	emit_del(r, AMQP_OP_BIND_DEL, b->id);
	forget_stored(r, b->store_id);
	LIST_REMOVE(b, of_source);
	LIST_REMOVE(b, of_destination);
	ctl_map_remove(&r->bindings_by_key, &b->by_key);
	r->binding[b->id] = NULL;
	ctl_ids_free(&r->binding_ids, b->id);
	rule_unbind(r, x, b->rule);
	ctl_span_free(&b->key);
	ctl_span_free(&b->args);
	free(b);
	x->bindings_count--;
	if (x->bindings_count == 0 && (x->flags & AMQP_DEF_AUTO_DELETE) != 0 && !x->dying && !r->mute) {
		x->dying = true;
		x->next_dying = r->dying;
		r->dying = x;
	}
}

/* A loop and not a recursion: clients can build a chain of auto-delete exchanges as long as they like. */
static void bury_dying(struct ctl_rib *r)
{
	while (r->dying != NULL) {
		struct ctl_exchange *x = r->dying;

		r->dying = x->next_dying;
		while (!LIST_EMPTY(&x->as_source))
			unlink_binding(r, LIST_FIRST(&x->as_source));
		while (!LIST_EMPTY(&x->as_destination))
			unlink_binding(r, LIST_FIRST(&x->as_destination));
		emit_del(r, AMQP_OP_EXCHANGE_DEL, x->id);
		forget_stored(r, x->store_id);
		r->ops->exchange_gone(r->ctx, x->id);
		exchange_free(r, x);
	}
}

void ctl_exchange_delete(struct ctl_rib *r, struct ctl_exchange *x)
{
	assert(!x->dying && r->dying == NULL);
	x->dying = true;
	x->next_dying = NULL;
	r->dying = x;
	bury_dying(r);
}

void ctl_binding_delete(struct ctl_rib *r, struct ctl_binding *b)
{
	unlink_binding(r, b);
	bury_dying(r);
}

void ctl_rib_queue_delete(struct ctl_rib *r, struct ctl_queue *q)
{
	while (!LIST_EMPTY(&q->as_destination))
		unlink_binding(r, LIST_FIRST(&q->as_destination));
	emit_del(r, AMQP_OP_QUEUE_DEL, q->id);
	forget_stored(r, q->store_id);
	queue_free(r, q);
	bury_dying(r);
}

void ctl_rib_delete_failed(struct ctl_rib *r, uint32_t worker, uint32_t op_kind, uint32_t id, bool keep_stored)
{
	r->skip_worker = worker;
	r->keep_stored = keep_stored;
	if (op_kind == AMQP_OP_EXCHANGE_ADD && id < r->limits.exchanges_max && r->exchange[id] != NULL)
		ctl_exchange_delete(r, r->exchange[id]);
	else if (op_kind == AMQP_OP_QUEUE_ADD && id < r->limits.queues_max && r->queue[id] != NULL)
		ctl_rib_queue_delete(r, r->queue[id]);
	else if (op_kind == AMQP_OP_BIND_ADD && id < r->limits.bindings_max && r->binding[id] != NULL)
		ctl_binding_delete(r, r->binding[id]);
	r->skip_worker = CTL_ALL_WORKERS;
	r->keep_stored = false;
}

/* ---- connections ---- */

struct ctl_conn *ctl_rib_conn(const struct ctl_rib *r, uint64_t uid)
{
	uint64_t hash = ctl_map_hash(&r->conns_by_uid, uid, none(), none());

	for (struct ctl_map_node *n = ctl_map_first(&r->conns_by_uid, hash); n != NULL; n = ctl_map_after(n)) {
		struct ctl_conn *c = CTL_CONTAINER(n, struct ctl_conn, by_uid);

		if (c->uid == uid)
			return c;
	}
	return NULL;
}

static void conn_free(struct ctl_rib *r, struct ctl_conn *c)
{
	ctl_map_remove(&r->conns_by_uid, &c->by_uid);
	ctl_span_free(&c->vhost);
	ctl_span_free(&c->user);
	free(c);
}

void ctl_rib_conn_add(struct ctl_rib *r, uint32_t worker, uint64_t uid, struct amqp_span vhost, struct amqp_span user)
{
	struct ctl_conn *c = ctl_rib_conn(r, uid);

	if (c != NULL)
		conn_free(r, c);
	c = ctl_alloc(sizeof *c);
	c->uid = uid;
	c->worker = worker;
	c->vhost = ctl_span_dup(vhost);
	c->user = ctl_span_dup(user);
	ctl_map_insert(&r->conns_by_uid, &c->by_uid, ctl_map_hash(&r->conns_by_uid, uid, none(), none()));
}

static struct ctl_queue *exclusive_of(const struct ctl_rib *r, uint64_t uid)
{
	uint64_t hash = ctl_map_hash(&r->queues_by_owner, uid, none(), none());

	for (struct ctl_map_node *n = ctl_map_first(&r->queues_by_owner, hash); n != NULL; n = ctl_map_after(n)) {
		struct ctl_queue *q = CTL_CONTAINER(n, struct ctl_queue, by_owner);

		if (q->owner == uid)
			return q;
	}
	return NULL;
}

void ctl_rib_conn_gone(struct ctl_rib *r, uint64_t uid)
{
	struct ctl_conn *c = ctl_rib_conn(r, uid);
	struct ctl_queue *q;

	if (c != NULL)
		conn_free(r, c);
	while ((q = exclusive_of(r, uid)) != NULL)
		ctl_rib_queue_delete(r, q);
}

/* ---- the whole ---- */

static void make_tables(struct ctl_rib *r, const struct ctl_rib_limits *l)
{
	r->limits = *l;
	r->exchange = ctl_alloc(l->exchanges_max * sizeof r->exchange[0]);
	r->queue = ctl_alloc(l->queues_max * sizeof r->queue[0]);
	r->binding = ctl_alloc(l->bindings_max * sizeof r->binding[0]);
	r->rule = ctl_alloc(l->rules_max * sizeof r->rule[0]);
	ctl_ids_init(&r->exchange_ids, l->exchanges_max);
	ctl_ids_init(&r->queue_ids, l->queues_max);
	ctl_ids_init(&r->binding_ids, l->bindings_max);
	ctl_ids_init(&r->rule_ids, l->rules_max);
	ctl_map_init(&r->exchanges_by_name, r->secret);
	ctl_map_init(&r->queues_by_name, r->secret);
	ctl_map_init(&r->bindings_by_key, r->secret);
	ctl_map_init(&r->rules_by_key, r->secret);
	ctl_map_init(&r->conns_by_uid, r->secret);
	ctl_map_init(&r->queues_by_owner, r->secret);
}

static void free_objects(struct ctl_rib *r)
{
	for (uint32_t i = 0; i < r->limits.bindings_max; i++)
		if (r->binding[i] != NULL) {
			ctl_span_free(&r->binding[i]->key);
			ctl_span_free(&r->binding[i]->args);
			free(r->binding[i]);
		}
	for (uint32_t i = 0; i < r->limits.rules_max; i++)
		if (r->rule[i] != NULL) {
			ctl_span_free(&r->rule[i]->key);
			free(r->rule[i]);
		}
	for (uint32_t i = 0; i < r->limits.queues_max; i++)
		if (r->queue[i] != NULL)
			queue_free(r, r->queue[i]);
	for (uint32_t i = 0; i < r->limits.exchanges_max; i++)
		if (r->exchange[i] != NULL)
			exchange_free(r, r->exchange[i]);
	for (size_t i = 0; i <= r->conns_by_uid.mask; i++)
		while (r->conns_by_uid.bucket[i] != NULL)
			conn_free(r, CTL_CONTAINER(r->conns_by_uid.bucket[i], struct ctl_conn, by_uid));
}

static void free_tables(struct ctl_rib *r)
{
	ctl_rib_waiting_forget(r);
	free_objects(r);
	free(r->exchange);
	free(r->queue);
	free(r->binding);
	free(r->rule);
	ctl_ids_fini(&r->exchange_ids);
	ctl_ids_fini(&r->queue_ids);
	ctl_ids_fini(&r->binding_ids);
	ctl_ids_fini(&r->rule_ids);
	ctl_map_fini(&r->exchanges_by_name);
	ctl_map_fini(&r->queues_by_name);
	ctl_map_fini(&r->bindings_by_key);
	ctl_map_fini(&r->rules_by_key);
	ctl_map_fini(&r->conns_by_uid);
	ctl_map_fini(&r->queues_by_owner);
}

void ctl_rib_init(struct ctl_rib *r, const struct ctl_rib_ops *ops, void *ctx, const struct ctl_rib_limits *limits)
{
	memset(r, 0, sizeof *r);
	r->ops = ops;
	r->ctx = ctx;
	r->skip_worker = CTL_ALL_WORKERS;
	LIST_INIT(&r->vhosts);
	LIST_INIT(&r->waiting);
	ops->random(ctx, r->secret, sizeof r->secret);
	r->rule_scratch = ctl_alloc(CTL_RULE_BYTES_MAX);
	make_tables(r, limits);
}

void ctl_rib_fini(struct ctl_rib *r)
{
	free_tables(r);
	while (!LIST_EMPTY(&r->vhosts)) {
		struct ctl_vhost *v = LIST_FIRST(&r->vhosts);

		LIST_REMOVE(v, all);
		ctl_span_free(&v->name);
		free(v);
	}
	free(r->rule_scratch);
}

void ctl_rib_reset(struct ctl_rib *r, const struct ctl_rib_limits *limits)
{
	struct ctl_vhost *v, *next;

	free_tables(r);
	make_tables(r, limits);
	for (v = LIST_FIRST(&r->vhosts); v != NULL; v = next) {
		next = LIST_NEXT(v, all);
		v->id = AMQP_ID_NONE;
		if (v->configured)
			continue;
		LIST_REMOVE(v, all);
		ctl_span_free(&v->name);
		free(v);
	}
	r->vhosts_max_id = 0;
	r->workers_count = 0;
	r->syncing = false;
	r->dumps_open = 0;
	r->sync_error = NULL;
	r->token = r->conn_uid = 0;
}

void ctl_rib_settle(struct ctl_rib *r)
{
	ctl_ids_settle(&r->exchange_ids);
	ctl_ids_settle(&r->queue_ids);
	ctl_ids_settle(&r->binding_ids);
	ctl_ids_settle(&r->rule_ids);
}

/* ---- invariants, for tests ---- */

static const char *check_binding(const struct ctl_rib *r, const struct ctl_binding *b, uint32_t id)
{
	if (b->id != id)
		return "a binding is not where its id says";
	if ((b->dest_exchange == NULL) == (b->dest_queue == NULL))
		return "a binding has not exactly one destination";
	if (ctl_binding_find(r, b->source, b->dest_exchange, b->dest_queue, b->key, b->args) != b)
		return "a binding is not found by its key";
	if ((b->rule == NULL) != (b->source->type == AMQP_FANOUT))
		return "a binding has a rule where its exchange needs none, or none where it needs one";
	if (b->rule != NULL && (b->rule->source != b->source || r->rule[b->rule->id] != b->rule))
		return "a binding has another exchange's rule";
	return NULL;
}

static const char *check_exchange(const struct ctl_rib *r, const struct ctl_exchange *x, uint32_t id)
{
	const struct ctl_binding *b;
	uint32_t count = 0;

	if (x->id != id || ctl_rib_exchange(r, x->vhost, x->name) != x)
		return "an exchange is not found by its id and name";
	LIST_FOREACH(b, &x->as_source, of_source)
	count += b->source == x ? 1u : 1000000u;
	return count == x->bindings_count ? NULL : "an exchange counts its bindings wrongly";
}

const char *ctl_rib_check(const struct ctl_rib *r)
{
	uint32_t exchanges = 0, queues = 0, bindings = 0, rules = 0, uses = 0;
	const char *err = NULL;

	for (uint32_t i = 0; i < r->limits.exchanges_max && err == NULL; i++)
		if (r->exchange[i] != NULL) {
			exchanges++;
			err = check_exchange(r, r->exchange[i], i);
		}
	for (uint32_t i = 0; i < r->limits.queues_max && err == NULL; i++)
		if (r->queue[i] != NULL) {
			queues++;
			if (ctl_rib_queue(r, r->queue[i]->vhost, r->queue[i]->name) != r->queue[i])
				err = "a queue is not found by its name";
		}
	for (uint32_t i = 0; i < r->limits.bindings_max && err == NULL; i++)
		if (r->binding[i] != NULL) {
			bindings++;
			uses += r->binding[i]->rule != NULL;
			err = check_binding(r, r->binding[i], i);
		}
	for (uint32_t i = 0; i < r->limits.rules_max; i++)
		if (r->rule[i] != NULL) {
			rules++;
			uses -= r->rule[i]->bindings_count;
			if (err == NULL && r->rule[i]->bindings_count == 0 && r->rule[i]->images_count == 0)
				err = "a rule that nobody uses is still there";
		}
	if (err == NULL && uses != 0)
		err = "the rules count their bindings wrongly";
	if (err == NULL && (exchanges != r->exchange_ids.used || queues != r->queue_ids.used || bindings != r->binding_ids.used ||
			    rules != r->rule_ids.used))
		err = "ids are in use that no object has, or the other way round";
	if (err == NULL &&
	    (exchanges != r->exchanges_by_name.count || queues != r->queues_by_name.count || bindings != r->bindings_by_key.count))
		err = "a map holds more or fewer objects than there are";
	return err;
}
