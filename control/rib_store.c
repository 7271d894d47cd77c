/*
 * rib_store.c - which definitions outlive the machine, and the records that they are stored as.
 *
 * Owns: no state; a stored definition is a record of kind OP_*_ADD whose ids are those of nobody.
 * Core: control's event loop.
 * Spec: AMQP 0-9-1 section 1.7.2.1 (durable): a binding is stored when both its ends are.
 *
 * EXCHANGE_ADD: s0 name, s1 vhost, code type, flags, blob arguments. QUEUE_ADD: s0 name, s1 vhost, flags, blob. BIND_ADD: s0 key,
 * s1 vhost, s2 source, s3 destination, flags DEST_EXCHANGE, blob.
 */
#include "control/rib_int.h"

#include <string.h>

/* Those that every vhost has are made anew at every start. */
static bool predeclared(struct amqp_span name)
{
	return name.len == 0 || (name.len >= 4 && memcmp(name.ptr, "amq.", 4) == 0);
}

bool ctl_exchange_stored(const struct ctl_exchange *x)
{
	return (x->flags & AMQP_DEF_DURABLE) != 0 && !predeclared(x->name);
}

bool ctl_queue_stored(const struct ctl_queue *q)
{
	return (q->flags & AMQP_DEF_DURABLE) != 0 && (q->flags & AMQP_DEF_EXCLUSIVE) == 0;
}

bool ctl_binding_stored(const struct ctl_binding *b)
{
	return (b->source->flags & AMQP_DEF_DURABLE) != 0 &&
	       (b->dest_queue != NULL ? ctl_queue_stored(b->dest_queue) : (b->dest_exchange->flags & AMQP_DEF_DURABLE) != 0);
}

bool ctl_exchange_store(struct ctl_rib *r, struct ctl_exchange *x)
{
	struct amqp_record rec = {.kind = AMQP_OP_EXCHANGE_ADD,
				  .code = (uint16_t)x->type,
				  .flags = x->flags,
				  .str = {x->name, x->vhost->name},
				  .blob = x->args};

	if (!ctl_exchange_stored(x) || x->store_id != 0)
		return true;
	x->store_id = r->ops->store_put(r->ctx, &rec);
	return x->store_id != 0;
}

bool ctl_queue_store(struct ctl_rib *r, struct ctl_queue *q)
{
	struct amqp_record rec = {.kind = AMQP_OP_QUEUE_ADD, .flags = q->flags, .str = {q->name, q->vhost->name}, .blob = q->args};

	if (!ctl_queue_stored(q) || q->store_id != 0)
		return true;
	q->store_id = r->ops->store_put(r->ctx, &rec);
	return q->store_id != 0;
}

bool ctl_binding_store(struct ctl_rib *r, struct ctl_binding *b)
{
	struct amqp_record rec = {.kind = AMQP_OP_BIND_ADD,
				  .flags = b->dest_exchange != NULL ? AMQP_DEF_DEST_EXCHANGE : 0,
				  .str = {b->key, b->source->vhost->name, b->source->name,
					  b->dest_exchange != NULL ? b->dest_exchange->name : b->dest_queue->name},
				  .blob = b->args};

	if (!ctl_binding_stored(b) || b->store_id != 0)
		return true;
	b->store_id = r->ops->store_put(r->ctx, &rec);
	return b->store_id != 0;
}
