/*
 * dump.c - the definitions of a worker told back to control, which lost its own: what a control process reads when it returns.
 *
 * Owns: the position in a dump under way.
 * Core: the worker, a few records a step, so that ticks flow meanwhile.
 * Spec: DESIGN section 5; records AMQP_REQ_DEF_* of records.h.
 */
#include "amqp/back.h"

enum phase { EXCHANGES, QUEUES, BINDINGS, CONNS, END };

static uint32_t phase_len(const struct amqp_broker *b)
{
	switch (b->dump_phase) {
	case EXCHANGES:
		return b->exchanges_used;
	case QUEUES:
		return b->queues_used;
	case BINDINGS:
		return b->bindings_used;
	case CONNS:
		return b->conns_used;
	default:
		return 1;
	}
}

static bool exchange_record(const struct amqp_exchange *x, struct amqp_record *rec)
{
	if (!x->in_use)
		return false;
	rec->kind = AMQP_REQ_DEF_EXCHANGE;
	rec->code = (uint16_t)x->type;
	rec->id2 = x->vhost_id;
	rec->flags = x->flags;
	rec->str[0] = x->name;
	rec->str[1] = x->vhost_name;
	rec->blob = x->args;
	return true;
}

static bool queue_record(const struct amqp_queue *q, struct amqp_record *rec)
{
	if (!q->in_use)
		return false;
	rec->kind = AMQP_REQ_DEF_QUEUE;
	rec->id2 = q->vhost_id;
	rec->flags = q->flags;
	rec->id3 = q->home;
	rec->conn_uid = q->owner_uid;
	rec->str[0] = q->name;
	rec->str[1] = q->vhost_name;
	rec->blob = q->args;
	return true;
}

static bool binding_record(const struct amqp_broker *b, const struct amqp_binding *bd, struct amqp_record *rec)
{
	if (!bd->in_use)
		return false;
	rec->kind = AMQP_REQ_DEF_BINDING;
	rec->id2 = bd->source;
	rec->id3 = bd->dest;
	rec->id4 = bd->rule != AMQP_NONE ? b->rules[bd->rule].rule_id : AMQP_ID_NONE;
	rec->flags = bd->dest_is_exchange ? AMQP_DEF_DEST_EXCHANGE : 0;
	rec->str[0] = bd->key;
	rec->blob = bd->args;
	return true;
}

/* Past connection.open: only those have declared anything that goes with them. */
static bool conn_record(const struct amqp_conn *c, struct amqp_record *rec)
{
	/* One that has said CONN_GONE, or owes it, is gone for control: a notice that died with the former control is not said
	 * again. */
	if (c->state < AMQP_CONN_RUNNING || c->connected_at_s == 0 || c->settled)
		return false;
	rec->kind = AMQP_REQ_DEF_CONN;
	rec->conn_uid = c->uid;
	rec->str[0] = c->vhost;
	rec->str[1] = c->user;
	return true;
}

/* The record at the dump's position. False: nothing is there. */
static bool record_at(const struct amqp_broker *b, struct amqp_record *rec)
{
	*rec = (struct amqp_record){.id = b->dump_idx};
	switch (b->dump_phase) {
	case EXCHANGES:
		return exchange_record(&b->exchanges[b->dump_idx], rec);
	case QUEUES:
		return queue_record(&b->queues[b->dump_idx], rec);
	case BINDINGS:
		return binding_record(b, &b->bindings[b->dump_idx], rec);
	case CONNS:
		return conn_record(&b->conns[b->dump_idx], rec);
	default:
		rec->kind = AMQP_REQ_DUMP_END;
		rec->id = 0;
		return true;
	}
}

void amqp_renew_step(struct amqp_broker *b, uint32_t budget)
{
	for (; budget > 0 && b->renew_idx < b->queues_used; budget--) {
		struct amqp_queue *q = &b->queues[b->renew_idx++];

		if (q->in_use)
			amqp_queue_unused(b, q);
	}
	b->renewing = b->renew_idx < b->queues_used;
}

bool amqp_dump_step(struct amqp_broker *b, uint32_t budget)
{
	struct amqp_record rec;

	for (; b->dumping && budget > 0; budget--) {
		if (b->dump_idx >= phase_len(b)) {
			b->dump_phase++;
			b->dump_idx = 0;
			continue;
		}
		if (record_at(b, &rec)) {
			if (!b->ops.request(b->ctx, &rec))
				return true;
			AMQP_COUNT(b, requests_sent);
		}
		if (b->dump_phase == END) {
			b->dumping = false;
			b->renewing = true;
			b->renew_idx = 0;
			return false;
		}
		b->dump_idx++;
	}
	return b->dumping;
}
