/*
 * fib.c - the FIB: exchanges, queues and bindings as control gives them, by the ids that control chose.
 *
 * Owns: the definitions of one worker, their names and arguments (one block each in the message pool), the name hashes.
 * Core: the worker, at burst boundaries. Control is not trusted: every id, length, type and state is checked.
 * Spec: DESIGN sections 1 and 5 (RIB and FIB); operations of records.h.
 */
#include <assert.h>

#include "amqp/peer.h"
#include "amqp/hash.h"
#include "amqp/header_rule.h"
#include "amqp/table.h"

#define FLAGS_EXCHANGE (AMQP_DEF_DURABLE | AMQP_DEF_AUTO_DELETE | AMQP_DEF_INTERNAL | AMQP_DEF_DEFAULT)
#define FLAGS_QUEUE    (AMQP_DEF_DURABLE | AMQP_DEF_EXCLUSIVE | AMQP_DEF_AUTO_DELETE)

/* An operation in the making: what it is refused with. */
struct fib_op {
	struct amqp_broker *b;
	const struct amqp_record *rec;
	uint16_t code;
	const char *why;
};

static bool refuse(struct fib_op *f, uint16_t code, const char *why)
{
	f->code = code;
	f->why = why;
	return false;
}

/* ---- names ---- */

static uint32_t *exchange_bucket(struct amqp_broker *b, uint32_t vhost_id, struct amqp_span name)
{
	return &b->exchange_hash[amqp_hash(b->limits.secret, vhost_id, name.ptr, name.len) & b->exchange_hash_mask];
}

static uint32_t *queue_bucket(struct amqp_broker *b, uint32_t vhost_id, struct amqp_span name)
{
	return &b->queue_hash[amqp_hash(b->limits.secret, vhost_id, name.ptr, name.len) & b->queue_hash_mask];
}

struct amqp_exchange *amqp_exchange_find(struct amqp_broker *b, uint32_t vhost_id, struct amqp_span name)
{
	uint32_t i = *exchange_bucket(b, vhost_id, name);

	while (i != AMQP_NONE && (b->exchanges[i].vhost_id != vhost_id || !amqp_span_equal(b->exchanges[i].name, name)))
		i = b->exchanges[i].name_hash_next;
	return i == AMQP_NONE ? NULL : &b->exchanges[i];
}

struct amqp_queue *amqp_queue_find(struct amqp_broker *b, uint32_t vhost_id, struct amqp_span name)
{
	uint32_t i = *queue_bucket(b, vhost_id, name);

	while (i != AMQP_NONE && (b->queues[i].vhost_id != vhost_id || !amqp_span_equal(b->queues[i].name, name)))
		i = b->queues[i].name_hash_next;
	return i == AMQP_NONE ? NULL : &b->queues[i];
}

/* Copies up to three spans into one block; a definition without any text needs none. False: the pool is exhausted. */
static bool keep(struct amqp_broker *b, void **block, struct amqp_span *to[3], const struct amqp_span from[3])
{
	size_t bytes = (size_t)from[0].len + from[1].len + from[2].len;
	uint8_t *p;

	*block = amqp_pool_alloc(b->pool, bytes != 0 ? bytes : 1);
	if (*block == NULL)
		return false;
	p = *block;
	for (unsigned i = 0; i < 3; i++) {
		if (from[i].len != 0)
			memcpy(p, from[i].ptr, from[i].len);
		if (to[i] != NULL)
			*to[i] = (struct amqp_span){p, from[i].len};
		p += from[i].len;
	}
	return true;
}

static bool check_text(struct fib_op *f, struct amqp_span s)
{
	if (s.len > 255 || (s.len != 0 && s.ptr == NULL))
		return refuse(f, 541, "a name in an operation is longer than 255 octets");
	return true;
}

static bool check_strings(struct fib_op *f)
{
	const struct amqp_span *args = &f->rec->blob;
	const char *why = "";

	if (!check_text(f, f->rec->str[0]) || !check_text(f, f->rec->str[1]))
		return false;
	if (args->len != 0 && (args->ptr == NULL || amqp_table_check(args->ptr, args->len, &why) != 0))
		return refuse(f, 541, "the arguments in an operation are no well-formed table");
	return true;
}

/* ---- exchanges ---- */

static bool exchange_add(struct fib_op *f)
{
	struct amqp_broker *b = f->b;
	const struct amqp_record *rec = f->rec;
	struct amqp_exchange *x;
	uint32_t *bucket;

	if (rec->id >= b->limits.exchanges_max)
		return refuse(f, 506, "the worker has no room for so many exchanges");
	x = &b->exchanges[rec->id];
	if (x->in_use)
		return refuse(f, 541, "the exchange's id is in use");
	if (rec->code > AMQP_HEADERS || (rec->flags & ~FLAGS_EXCHANGE) != 0)
		return refuse(f, 541, "the exchange has a type or flags that do not exist");
	if (!check_strings(f))
		return false;
	if (amqp_exchange_find(b, rec->id2, rec->str[0]) != NULL)
		return refuse(f, 541, "the vhost has an exchange of that name under another id");
	memset(x, 0, sizeof *x);
	x->type = (enum amqp_exchange_type)rec->code;
	x->flags = rec->flags;
	x->vhost_id = rec->id2;
	x->fanout_first = AMQP_NONE;
	x->dest_first = AMQP_NONE;
	if (!keep(b, &x->block, (struct amqp_span *[3]){&x->name, &x->vhost_name, &x->args},
		  (const struct amqp_span[3]){rec->str[0], rec->str[1], rec->blob}))
		return refuse(f, 506, "no memory for the exchange's name");
	if (!amqp_set_open(b, x)) {
		amqp_pool_free(b->pool, x->block);
		return refuse(f, 506, "the matcher has no set left for the exchange");
	}
	bucket = exchange_bucket(b, x->vhost_id, x->name);
	x->name_hash_next = *bucket;
	*bucket = rec->id;
	x->in_use = true;
	b->exchanges_count++;
	if (rec->id >= b->exchanges_used)
		b->exchanges_used = rec->id + 1;
	return true;
}

static void exchange_free(struct amqp_broker *b, uint32_t id)
{
	struct amqp_exchange *x = &b->exchanges[id];
	uint32_t *link = exchange_bucket(b, x->vhost_id, x->name);

	while (*link != id)
		link = &b->exchanges[*link].name_hash_next;
	*link = x->name_hash_next;
	amqp_set_close(b, x);
	amqp_pool_free(b->pool, x->block);
	x->in_use = false;
	x->block = NULL;
	b->exchanges_count--;
}

static bool exchange_del(struct fib_op *f)
{
	struct amqp_broker *b = f->b;
	struct amqp_exchange *x;

	if (f->rec->id >= b->limits.exchanges_max || !b->exchanges[f->rec->id].in_use)
		return refuse(f, 541, "there is no exchange of that id");
	x = &b->exchanges[f->rec->id];
	if (x->bindings_count != 0 || x->dest_first != AMQP_NONE)
		return refuse(f, 541, "the exchange still has bindings");
	if (!amqp_set_may_close(b, x))
		return refuse(f, 506, "databases of deleted exchanges have not been fetched");
	exchange_free(b, f->rec->id);
	return true;
}

/* ---- queues ---- */

static bool read_limit(struct fib_op *f, const char *name, uint64_t *out)
{
	struct amqp_field field;

	*out = UINT64_MAX;
	if (!amqp_table_find(f->rec->blob.ptr, f->rec->blob.len, name, &field))
		return true;
	if (!amqp_field_is_int(&field) || field.i < 0)
		return refuse(f, 406, "x-max-length and x-max-length-bytes are integers of 0 or more");
	*out = (uint64_t)field.i;
	return true;
}

static bool read_overflow(struct fib_op *f, enum amqp_overflow *out)
{
	struct amqp_field field;

	*out = AMQP_OVERFLOW_DROP_HEAD;
	if (!amqp_table_find(f->rec->blob.ptr, f->rec->blob.len, "x-overflow", &field))
		return true;
	if (amqp_field_is_text(&field)) {
		if (field.value.len == 9 && memcmp(field.value.ptr, "drop-head", 9) == 0)
			return true;
		*out = AMQP_OVERFLOW_REJECT_PUBLISH;
		if (field.value.len == 14 && memcmp(field.value.ptr, "reject-publish", 14) == 0)
			return true;
	}
	return refuse(f, 406, "x-overflow is drop-head or reject-publish");
}

/* All but the fields that outlive a deletion: the generation, and the membership of work lists that still name the slot. */
static void queue_clear(struct amqp_queue *q)
{
	q->owner_uid = 0;
	q->dest_first = AMQP_NONE;
	q->ready_first = q->ready_last = AMQP_NONE;
	q->ready_count = q->unacked_count = 0;
	q->ready_bytes = q->unacked_bytes = 0;
	q->next_seq = 0;
	q->consumer_next = AMQP_NONE;
	q->plain = NULL;
	q->parked_first = AMQP_NONE;
	q->consumers_count = 0;
	q->exclusive_consumer = AMQP_NONE;
	q->had_consumer = false;
	q->requeue_hint = AMQP_NONE;
	q->published = q->delivered = q->acked = q->dropped = q->redelivered = 0;
}

static bool queue_add(struct fib_op *f)
{
	struct amqp_broker *b = f->b;
	const struct amqp_record *rec = f->rec;
	struct amqp_queue *q;
	uint32_t *bucket;

	if (rec->id >= b->limits.queues_max)
		return refuse(f, 506, "the worker has no room for so many queues");
	q = &b->queues[rec->id];
	if (q->in_use)
		return refuse(f, 541, "the queue's id is in use");
	if ((rec->flags & ~FLAGS_QUEUE) != 0 || rec->str[0].len == 0)
		return refuse(f, 541, "the queue has no name, or flags that do not exist");
	if (!check_strings(f))
		return false;
	if (!amqp_is_alone(b) && rec->id3 >= b->peers_count)
		return refuse(f, 541, "the queue lives on a worker that does not exist");
	if (amqp_queue_find(b, rec->id2, rec->str[0]) != NULL)
		return refuse(f, 541, "the vhost has a queue of that name under another id");
	queue_clear(q);
	if (!read_limit(f, "x-max-length", &q->max_length) || !read_limit(f, "x-max-length-bytes", &q->max_length_bytes) ||
	    !read_overflow(f, &q->overflow))
		return false;
	if (!keep(b, &q->block, (struct amqp_span *[3]){&q->name, &q->vhost_name, &q->args},
		  (const struct amqp_span[3]){rec->str[0], rec->str[1], rec->blob}))
		return refuse(f, 506, "no memory for the queue's name");
	q->id = rec->id;
	q->vhost_id = rec->id2;
	q->flags = rec->flags;
	q->home = amqp_is_alone(b) ? b->limits.worker_idx : (uint8_t)rec->id3;
	q->stamp = (uint32_t)amqp_hash(b->limits.secret, q->vhost_id, q->name.ptr, q->name.len);
	if (rec->flags & AMQP_DEF_EXCLUSIVE)
		q->owner_uid = rec->conn_uid;
	bucket = queue_bucket(b, q->vhost_id, q->name);
	q->name_hash_next = *bucket;
	*bucket = rec->id;
	q->in_use = true;
	b->queues_count++;
	if (rec->id >= b->queues_used)
		b->queues_used = rec->id + 1;
	return true;
}

/* Messages that consumers hold stay with them; the generation keeps their settlement away from the slot's next queue. */
static void queue_free(struct amqp_broker *b, uint32_t id)
{
	struct amqp_queue *q = &b->queues[id];
	uint32_t *link = queue_bucket(b, q->vhost_id, q->name);

	while (*link != id)
		link = &b->queues[*link].name_hash_next;
	*link = q->name_hash_next;
	amqp_queue_cancel_consumers(b, q);
	if (!amqp_queue_is_here(b, q)) {
		amqp_mirrors_of_queue_end(b, id);
		b->queues_gone++;
	}
	amqp_queue_drop_ready(b, q);
	amqp_pool_free(b->pool, q->block);
	q->block = NULL;
	q->in_use = false;
	q->generation++;
	b->queues_count--;
}

static bool queue_del(struct fib_op *f)
{
	struct amqp_broker *b = f->b;

	if (f->rec->id >= b->limits.queues_max || !b->queues[f->rec->id].in_use)
		return refuse(f, 541, "there is no queue of that id");
	if (b->queues[f->rec->id].dest_first != AMQP_NONE)
		return refuse(f, 541, "the queue still has bindings");
	queue_free(b, f->rec->id);
	return true;
}

static bool queue_purge(struct fib_op *f)
{
	if (f->rec->id >= f->b->limits.queues_max || !f->b->queues[f->rec->id].in_use)
		return refuse(f, 541, "there is no queue of that id");
	amqp_queue_purge(f->b, &f->b->queues[f->rec->id]); /* elsewhere it is empty */
	return true;
}

/* ---- bindings ---- */

/* The list that a binding is in: its rule's, or its fanout exchange's. */
static uint32_t *rule_list(struct amqp_broker *b, const struct amqp_binding *bd)
{
	return bd->rule != AMQP_NONE ? &b->rules[bd->rule].first_binding : &b->exchanges[bd->source].fanout_first;
}

static uint32_t *dest_list(struct amqp_broker *b, const struct amqp_binding *bd)
{
	return bd->dest_is_exchange ? &b->exchanges[bd->dest].dest_first : &b->queues[bd->dest].dest_first;
}

static void link_binding(struct amqp_broker *b, struct amqp_binding *bd)
{
	uint32_t *head = rule_list(b, bd);

	bd->rule_prev = AMQP_NONE;
	bd->rule_next = *head;
	if (*head != AMQP_NONE)
		b->bindings[*head].rule_prev = bd->id;
	*head = bd->id;
	head = dest_list(b, bd);
	bd->dest_prev = AMQP_NONE;
	bd->dest_next = *head;
	if (*head != AMQP_NONE)
		b->bindings[*head].dest_prev = bd->id;
	*head = bd->id;
}

static void unlink_binding(struct amqp_broker *b, struct amqp_binding *bd)
{
	if (bd->rule_prev != AMQP_NONE)
		b->bindings[bd->rule_prev].rule_next = bd->rule_next;
	else
		*rule_list(b, bd) = bd->rule_next;
	if (bd->rule_next != AMQP_NONE)
		b->bindings[bd->rule_next].rule_prev = bd->rule_prev;
	if (bd->dest_prev != AMQP_NONE)
		b->bindings[bd->dest_prev].dest_next = bd->dest_next;
	else
		*dest_list(b, bd) = bd->dest_next;
	if (bd->dest_next != AMQP_NONE)
		b->bindings[bd->dest_next].dest_prev = bd->dest_prev;
}

/* The pattern that the matcher is given: the routing key, or the canonical headers rule in a block of its own. */
static bool rule_pattern(struct fib_op *f, const struct amqp_exchange *x, struct amqp_span key, struct amqp_span args, void **block,
			 struct amqp_span *out)
{
	size_t cap = amqp_header_rule_bytes(args.len), len;
	char why[160];

	*block = NULL;
	*out = key;
	if (x->type != AMQP_HEADERS)
		return true;
	*block = amqp_pool_alloc(f->b->pool, cap);
	if (*block == NULL)
		return refuse(f, 506, "no memory for the binding's arguments");
	if (amqp_header_rule(args.ptr, args.len, *block, cap, &len, why, sizeof why) != 0) {
		amqp_pool_free(f->b->pool, *block);
		return refuse(f, 541, "the arguments of a headers binding make no rule");
	}
	*out = (struct amqp_span){*block, (uint32_t)len};
	return true;
}

static void rule_free(struct amqp_broker *b, uint32_t slot)
{
	struct amqp_rule *r = &b->rules[slot];
	uint32_t *link = amqp_rule_bucket(b, r->exchange, r->rule_id);

	while (*link != slot)
		link = &b->rules[*link].hash_next;
	*link = r->hash_next;
	r->in_use = false;
	r->hash_next = b->rules_free;
	b->rules_free = slot;
}

/* A rule that is there already: the binding must ask the same of it. */
static bool same_rule(struct fib_op *f, const struct amqp_exchange *x, const struct amqp_rule *r, struct amqp_span pattern)
{
	const struct amqp_binding *first = &f->b->bindings[r->first_binding];
	struct amqp_span other;
	void *block;
	bool same;

	if (!rule_pattern(f, x, first->key, first->args, &block, &other))
		return false;
	same = amqp_span_equal(pattern, other);
	if (block != NULL)
		amqp_pool_free(f->b->pool, block);
	return same || refuse(f, 541, "the binding's rule id stands for another pattern");
}

/* Finds or makes the rule of a binding. */
static bool rule_of_binding(struct fib_op *f, struct amqp_exchange *x, struct amqp_span pattern, uint32_t *slot)
{
	struct amqp_broker *b = f->b;
	uint32_t exchange = f->rec->id2, rule_id = f->rec->id4, *bucket;
	struct amqp_rule *r = amqp_rule_find(b, exchange, rule_id);
	uint16_t code;

	if (r != NULL) {
		*slot = (uint32_t)(r - b->rules);
		return same_rule(f, x, r, pattern);
	}
	if (b->rules_free == AMQP_NONE)
		return refuse(f, 506, "the worker has no room for so many rules");
	code = amqp_set_add_rule(x, rule_id, pattern, &f->why);
	if (code != 0)
		return refuse(f, code, f->why);
	*slot = b->rules_free;
	r = &b->rules[*slot];
	b->rules_free = r->hash_next;
	r->in_use = true;
	r->exchange = exchange;
	r->rule_id = rule_id;
	r->first_binding = AMQP_NONE;
	bucket = amqp_rule_bucket(b, exchange, rule_id);
	r->hash_next = *bucket;
	*bucket = *slot;
	return true;
}

static bool check_binding(struct fib_op *f)
{
	struct amqp_broker *b = f->b;
	const struct amqp_record *rec = f->rec;
	bool to_exchange = rec->flags == AMQP_DEF_DEST_EXCHANGE;

	if (rec->id >= b->limits.bindings_max)
		return refuse(f, 506, "the worker has no room for so many bindings");
	if (b->bindings[rec->id].in_use)
		return refuse(f, 541, "the binding's id is in use");
	if ((rec->flags & ~AMQP_DEF_DEST_EXCHANGE) != 0)
		return refuse(f, 541, "the binding has flags that do not exist");
	if (rec->id2 >= b->limits.exchanges_max || !b->exchanges[rec->id2].in_use)
		return refuse(f, 541, "the binding's source does not exist");
	if (to_exchange ? rec->id3 >= b->limits.exchanges_max || !b->exchanges[rec->id3].in_use
			: rec->id3 >= b->limits.queues_max || !b->queues[rec->id3].in_use)
		return refuse(f, 541, "the binding's destination does not exist");
	if ((b->exchanges[rec->id2].flags | (to_exchange ? b->exchanges[rec->id3].flags : 0)) & AMQP_DEF_DEFAULT)
		return refuse(f, 541, "the default exchange takes no bindings");
	return check_strings(f);
}

/* A failure after the rule was made: it must not stay without a binding. */
static void drop_empty_rule(struct amqp_broker *b, struct amqp_exchange *x, uint32_t slot)
{
	if (slot == AMQP_NONE || b->rules[slot].first_binding != AMQP_NONE)
		return;
	amqp_set_remove_rule(x, b->rules[slot].rule_id);
	rule_free(b, slot);
}

static bool bind_add(struct fib_op *f)
{
	struct amqp_broker *b = f->b;
	const struct amqp_record *rec = f->rec;
	struct amqp_binding *bd;
	struct amqp_exchange *x;
	struct amqp_span pattern;
	void *pattern_block = NULL;
	uint32_t slot = AMQP_NONE;
	bool done;

	if (!check_binding(f))
		return false;
	bd = &b->bindings[rec->id];
	x = &b->exchanges[rec->id2];
	if (x->type != AMQP_FANOUT) {
		if (!rule_pattern(f, x, rec->str[0], rec->blob, &pattern_block, &pattern))
			return false;
		done = rule_of_binding(f, x, pattern, &slot);
		if (pattern_block != NULL)
			amqp_pool_free(b->pool, pattern_block);
		if (!done)
			return false;
	}
	memset(bd, 0, sizeof *bd);
	if (!keep(b, &bd->block, (struct amqp_span *[3]){&bd->key, NULL, &bd->args},
		  (const struct amqp_span[3]){rec->str[0], {NULL, 0}, rec->blob})) {
		drop_empty_rule(b, x, slot);
		return refuse(f, 506, "no memory for the binding's key");
	}
	bd->id = rec->id;
	bd->source = rec->id2;
	bd->dest = rec->id3;
	bd->dest_is_exchange = rec->flags == AMQP_DEF_DEST_EXCHANGE;
	bd->rule = slot;
	bd->in_use = true;
	link_binding(b, bd);
	x->bindings_count++;
	b->bindings_count++;
	if (rec->id >= b->bindings_used)
		b->bindings_used = rec->id + 1;
	return true;
}

static void binding_free(struct amqp_broker *b, uint32_t id)
{
	struct amqp_binding *bd = &b->bindings[id];
	struct amqp_exchange *x = &b->exchanges[bd->source];

	unlink_binding(b, bd);
	drop_empty_rule(b, x, bd->rule);
	amqp_pool_free(b->pool, bd->block);
	bd->block = NULL;
	bd->in_use = false;
	x->bindings_count--;
	b->bindings_count--;
}

static bool bind_del(struct fib_op *f)
{
	if (f->rec->id >= f->b->limits.bindings_max || !f->b->bindings[f->rec->id].in_use)
		return refuse(f, 541, "there is no binding of that id");
	binding_free(f->b, f->rec->id);
	return true;
}

/* ---- all at once ---- */

static bool reset(struct fib_op *f)
{
	struct amqp_broker *b = f->b;

	if (b->dropped_db_count + b->exchanges_count > b->dropped_db_max)
		return refuse(f, 506, "databases of deleted exchanges have not been fetched");
	for (uint32_t i = 0; i < b->bindings_used; i++)
		if (b->bindings[i].in_use)
			binding_free(b, i);
	for (uint32_t i = 0; i < b->queues_used; i++)
		if (b->queues[i].in_use)
			queue_free(b, i);
	for (uint32_t i = 0; i < b->exchanges_used; i++)
		if (b->exchanges[i].in_use)
			exchange_free(b, i);
	return true;
}

static bool dispatch(struct fib_op *f)
{
	switch (f->rec->kind) {
	case AMQP_OP_EXCHANGE_ADD:
		return exchange_add(f);
	case AMQP_OP_EXCHANGE_DEL:
		return exchange_del(f);
	case AMQP_OP_QUEUE_ADD:
		return queue_add(f);
	case AMQP_OP_QUEUE_DEL:
		return queue_del(f);
	case AMQP_OP_BIND_ADD:
		return bind_add(f);
	case AMQP_OP_BIND_DEL:
		return bind_del(f);
	case AMQP_OP_QUEUE_PURGE:
		return queue_purge(f);
	case AMQP_OP_RESET:
		return reset(f);
	default:
		return refuse(f, 541, "there is no such operation");
	}
}

bool amqp_fib_apply(struct amqp_broker *b, const struct amqp_record *op, uint16_t *code, const char **why)
{
	struct fib_op f = {.b = b, .rec = op, .code = 0, .why = ""};

	if (!dispatch(&f)) {
		*code = f.code;
		*why = f.why;
		return false;
	}
	if (op->kind != AMQP_OP_QUEUE_PURGE)
		b->fib_generation++;
	return true;
}
