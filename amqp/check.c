/*
 * check.c - the invariants of the back half, over all pools and lists: what every test asks after every step.
 *
 * Owns: nothing; it counts holders in bits of a message's flags that are its alone.
 * Core: the worker that owns the broker, in tests and on demand; linear in what there is.
 * Spec: DESIGN section 8 (invariants are checked after every step).
 */
#include "amqp/peer.h"

#define HOLDER_ONE (1u << AMQP_MSG_CHECK_SHIFT)

/* ---- queues ---- */

static const char *check_ready(const struct amqp_broker *b, const struct amqp_queue *q)
{
	uint32_t n = 0, before = AMQP_NONE;
	uint64_t bytes = 0;

	for (uint32_t i = q->ready_first; i != AMQP_NONE; before = i, i = b->entries[i].next) {
		const struct amqp_entry *e = &b->entries[i];

		if (n++ > b->limits.entries_max || e->msg == NULL || e->queue != q->id || e->prev != before)
			return "a queue's ready list is broken";
		if (before != AMQP_NONE && b->entries[before].seq >= e->seq)
			return "a queue's messages are out of order";
		bytes += e->msg->body_bytes;
	}
	if (n != q->ready_count || bytes != q->ready_bytes || q->ready_last != before)
		return "a queue miscounts its ready messages";
	if (n > q->max_length || (bytes > q->max_length_bytes))
		return "a queue holds more than its bounds allow";
	return NULL;
}

static const struct amqp_consumer *only_plain_consumer(const struct amqp_broker *b, const struct amqp_queue *q)
{
	const struct amqp_consumer *c = q->consumer_next != AMQP_NONE ? &b->consumers[q->consumer_next] : NULL;

	return c != NULL && c->no_ack && c->queue_next == q->consumer_next && q->overflow != AMQP_OVERFLOW_REJECT_PUBLISH ? c
															  : NULL;
}

static const char *check_queue_consumers(const struct amqp_broker *b, const struct amqp_queue *q)
{
	uint32_t n = 0, i = q->consumer_next, before = AMQP_NONE;

	if (i != AMQP_NONE) {
		do {
			const struct amqp_consumer *c = &b->consumers[i];

			if (!c->in_use || c->parked || c->queue != q->id || b->consumers[c->queue_next].queue_prev != i ||
			    n++ > b->limits.consumers_max)
				return "the ring of a queue's consumers is broken";
			i = c->queue_next;
		} while (i != q->consumer_next);
	}
	for (i = q->parked_first; i != AMQP_NONE; before = i, i = b->consumers[i].queue_next) {
		const struct amqp_consumer *c = &b->consumers[i];

		if (!c->in_use || !c->parked || c->queue != q->id || c->queue_prev != before || n++ > b->limits.consumers_max)
			return "a queue's list of parked consumers is broken";
	}
	if (n != q->consumers_count)
		return "a queue miscounts its consumers";
	if (q->plain != only_plain_consumer(b, q))
		return "a queue's plain consumer is not the one that is alone in its ring";
	if (q->exclusive_consumer != AMQP_NONE && (n != 1 || !b->consumers[q->exclusive_consumer].exclusive))
		return "a queue's exclusive consumer is not its only one";
	if (q->ready_count != 0 && q->consumer_next != AMQP_NONE && !q->drain_queued)
		return "a queue has messages and a consumer, and nobody is going to bring them together";
	return NULL;
}

static uint32_t entries_all(const struct amqp_broker *b)
{
	return amqp_is_alone(b) ? b->limits.entries_max : 2 * b->limits.entries_max;
}

/* Queues of control and mirrors. */
static uint32_t queues_all(const struct amqp_broker *b)
{
	return b->limits.queues_max + amqp_mirrors_max(&b->limits);
}

static const char *check_mirrors(const struct amqp_broker *b, uint32_t *queued)
{
	for (uint32_t i = b->limits.queues_max; i < queues_all(b); i++) {
		const struct amqp_queue *q = &b->queues[i];
		const char *broken = NULL;

		*queued += q->drain_queued;
		if (q->in_use != (b->mirrors[i - b->limits.queues_max].state != AMQP_MIRROR_FREE))
			return "a mirror and its queue disagree on whether they are in use";
		if (q->in_use)
			broken = check_ready(b, q);
		if (q->in_use && broken == NULL)
			broken = check_queue_consumers(b, q);
		if (broken != NULL)
			return broken;
	}
	return NULL;
}

static const char *check_queues(const struct amqp_broker *b)
{
	uint32_t n = 0, queued = 0, on_list = 0;
	const char *broken = check_mirrors(b, &queued);

	if (broken != NULL)
		return broken;

	for (uint32_t i = 0; i < b->limits.queues_max; i++) {
		const struct amqp_queue *q = &b->queues[i];

		queued += q->drain_queued;
		if (!q->in_use)
			continue;
		n++;
		if (!amqp_queue_is_here(b, q) && q->ready_count + q->consumers_count + q->unacked_count != 0)
			return "a queue that lives elsewhere has messages or consumers here";
		if (q->id != i || i >= b->queues_used || amqp_queue_find((struct amqp_broker *)b, q->vhost_id, q->name) != q)
			return "a queue is not found by its name";
		broken = check_ready(b, q);
		if (broken == NULL)
			broken = check_queue_consumers(b, q);
		if (broken != NULL)
			return broken;
	}
	for (uint32_t i = b->drain_first; i != AMQP_NONE && on_list <= queues_all(b); i = b->queues[i].drain_next)
		on_list++;
	if (on_list != queued)
		return "the list of queues to drain is broken";
	return n == b->queues_count ? NULL : "queues in use are miscounted";
}

/* ---- channels and consumers ---- */

/* Unacknowledged messages met in the channels' rings. */
struct settle_count {
	uint64_t live, orphaned; /* of queues that exist; of queues that went */
};

static const char *check_ring(const struct amqp_broker *b, const struct amqp_channel *ch, struct settle_count *count)
{
	uint32_t unsettled = 0, consumed = 0;
	uint64_t before = 0;

	for (uint32_t i = 0; i < ch->unacked_len; i++) {
		const struct amqp_unacked *u = &ch->unacked[(ch->unacked_head + i) & (ch->unacked_cap - 1)];
		const struct amqp_queue *q;

		if (u->tag <= before || u->tag >= ch->next_delivery_tag)
			return "delivery tags do not grow along a channel's ring";
		before = u->tag;
		if (u->entry == AMQP_NONE)
			continue;
		unsettled++;
		consumed += u->consumer != AMQP_CONSUMER_GET;
		if (u->consumer < b->limits.consumers_max &&
		    (!b->consumers[u->consumer].in_use || &b->channels[b->consumers[u->consumer].channel] != ch))
			return "an unacknowledged delivery names a consumer that is not its channel's";
		if (b->entries[u->entry].msg == NULL)
			return "an unacknowledged delivery has no message";
		q = &b->queues[b->entries[u->entry].queue];
		if (q->in_use && q->generation == b->entries[u->entry].queue_generation)
			count->live++;
		else
			count->orphaned++;
	}
	if (unsettled != ch->unacked_count || consumed != ch->unacked_consumed)
		return "a channel miscounts its unacknowledged deliveries";
	if (ch->unacked_len != 0 && ch->unacked[ch->unacked_head].entry == AMQP_NONE)
		return "a settled delivery stayed at the front of a channel's ring";
	return NULL;
}

static uint32_t unacked_of_consumer(const struct amqp_channel *ch, uint32_t consumer)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < ch->unacked_len; i++) {
		const struct amqp_unacked *u = &ch->unacked[(ch->unacked_head + i) & (ch->unacked_cap - 1)];

		n += u->entry != AMQP_NONE && u->consumer == consumer;
	}
	return n;
}

static const char *check_channel(const struct amqp_broker *b, uint32_t idx, uint32_t *consumers, uint32_t *parked,
				 struct settle_count *count)
{
	const struct amqp_channel *ch = &b->channels[idx];
	uint32_t before = AMQP_NONE;

	for (uint32_t i = ch->consumers_first; i != AMQP_NONE; before = i, i = b->consumers[i].chan_next) {
		const struct amqp_consumer *c = &b->consumers[i];

		if (!c->in_use || c->channel != idx || c->chan_prev != before || ++*consumers > b->limits.consumers_max)
			return "a channel's list of consumers is broken";
		if (c->unacked_count != unacked_of_consumer(ch, i))
			return "a consumer miscounts its unacknowledged deliveries";
		*parked += c->parked;
	}
	if ((ch->msg != NULL) != (ch->content == AMQP_CONTENT_BODY))
		return "a channel holds a message that it does not assemble";
	return check_ring(b, ch, count);
}

/* Consumers that stand for those of other workers, and what these have of our queues. */
static const char *check_peers(const struct amqp_broker *b, uint32_t *consumers, uint32_t *parked, uint32_t *parked_told,
			       uint64_t *live)
{
	uint64_t out = 0;

	for (uint32_t w = 0; !amqp_is_alone(b) && w < b->peers_count; w++) {
		const struct amqp_peer *p = &b->peers[w];

		for (uint32_t i = p->channel.consumers_first; i != AMQP_NONE; i = b->consumers[i].chan_next) {
			const struct amqp_consumer *c = &b->consumers[i];

			if (!c->in_use || c->conn != &p->conn || c->remote.worker != w || ++*consumers > b->limits.consumers_max)
				return "a list of another worker's consumers is broken";
			*parked += c->parked;
		}
		*parked_told += p->conn.parked_count;
	}
	for (uint32_t i = 0; i < b->limits.entries_max; i++) {
		const struct amqp_entry *e = &b->entries[i];

		if (e->msg == NULL || e->out == 0)
			continue;
		out++;
		*live += b->queues[e->queue].in_use && b->queues[e->queue].generation == e->queue_generation;
	}
	return out == b->out_count ? NULL : "entries that other workers have are miscounted";
}

static const char *check_channels(const struct amqp_broker *b)
{
	struct settle_count count = {0, 0};
	uint32_t consumers = 0, free_consumers = 0, parked = 0, parked_told = 0;
	uint64_t unacked = 0;
	const char *broken = NULL;

	for (uint32_t i = 0; i < b->channels_used; i++) {
		if (b->channels[i].state != AMQP_CH_FREE)
			broken = check_channel(b, i, &consumers, &parked, &count);
		if (broken != NULL)
			return broken;
	}
	for (uint32_t i = 0; i < b->conns_used; i++)
		if (b->conns[i].state != AMQP_CONN_FREE)
			parked_told += b->conns[i].parked_count;
	broken = amqp_given_up_check(b, &count.live);
	if (broken == NULL)
		broken = check_peers(b, &consumers, &parked, &parked_told, &count.live);
	if (broken != NULL)
		return broken;
	if (parked != parked_told)
		return "connections miscount their parked consumers";
	for (uint32_t i = 0; i < queues_all(b); i++)
		unacked += b->queues[i].in_use ? b->queues[i].unacked_count : 0;
	if (unacked != count.live)
		return "queues miscount their unacknowledged messages";
	for (uint32_t i = b->consumers_free; i != AMQP_NONE && free_consumers <= b->limits.consumers_max;
	     i = b->consumers_link[i]) {
		if (b->consumers[i].in_use || b->consumers[i].unacked_count != 0)
			return "a free consumer is in use, or settled after it went";
		free_consumers++;
	}
	if (consumers != b->consumers_count || consumers + free_consumers != b->limits.consumers_max)
		return "consumers in use and free do not add up";
	return NULL;
}

/* ---- entries and messages ---- */

/* Calls the holder's visitor for every message reference that the machine itself holds. */
static uint64_t visit_holders(const struct amqp_broker *b, void (*visit)(struct amqp_msg *m))
{
	uint64_t n = 0;

	for (uint32_t w = 0; !amqp_is_alone(b) && w < b->peers_count; w++)
		if (b->peers[w].channel.msg != NULL) {
			visit(b->peers[w].channel.msg);
			n++;
		}
	for (uint32_t i = 0; i < entries_all(b); i++)
		if (b->entries[i].msg != NULL) {
			visit(b->entries[i].msg);
			n++;
		}
	for (uint32_t i = 0; i < b->channels_used; i++)
		if (b->channels[i].state != AMQP_CH_FREE && b->channels[i].msg != NULL) {
			visit(b->channels[i].msg);
			n++;
		}
	return n;
}

static void clear_holders(struct amqp_msg *m)
{
	m->flags &= HOLDER_ONE - 1;
}

static void count_holder(struct amqp_msg *m)
{
	m->flags += HOLDER_ONE;
}

static const char *check_messages(const struct amqp_broker *b)
{
	uint64_t held = visit_holders(b, clear_holders), in_use = 0;
	uint32_t free_entries = 0, garbage = 0;
	const char *broken = NULL;

	visit_holders(b, count_holder);
	for (uint32_t i = 0; i < entries_all(b); i++) {
		const struct amqp_msg *m = b->entries[i].msg;

		in_use += m != NULL && i < b->limits.entries_max;
		if (m != NULL && m->refs < m->flags >> AMQP_MSG_CHECK_SHIFT)
			broken = "a message has fewer references than holders";
	}
	visit_holders(b, clear_holders);
	if (broken != NULL)
		return broken;
	if (held + b->lent_refs + b->peer_refs != b->message_refs)
		return "references to messages and their holders do not add up";
	if (b->messages_count > b->message_refs)
		return "there are messages that nobody holds";
	for (uint32_t i = b->entries_free; i != AMQP_NONE && free_entries <= b->limits.entries_max; i = b->entries[i].next)
		free_entries++;
	if (in_use != b->entries_count || in_use + free_entries != b->limits.entries_max)
		return "entries in use and free do not add up";
	for (uint32_t i = b->garbage_first; i != AMQP_NONE && garbage <= b->limits.entries_max; i = b->entries[i].next)
		garbage++;
	return garbage == b->garbage_count ? NULL : "the entries of deleted queues are miscounted";
}

/* Every entry is on a ready list, in a ring or garbage. */
static const char *check_entries_placed(const struct amqp_broker *b)
{
	uint64_t placed = b->garbage_count + b->given_up_count + b->out_count, mirrored = 0, settled = 0;

	for (uint32_t i = b->limits.entries_max; i < entries_all(b); i++)
		mirrored += b->entries[i].msg != NULL;
	for (uint32_t w = 0; !amqp_is_alone(b) && w < b->peers_count; w++)
		for (uint32_t i = b->peers[w].settle_first; i != AMQP_NONE && settled <= b->limits.entries_max;
		     i = b->entries[i].next)
			settled++;
	if (mirrored + settled != b->mirror_entries_count)
		return "entries of mirrors are miscounted";
	for (uint32_t i = 0; i < queues_all(b); i++)
		placed += b->queues[i].in_use ? b->queues[i].ready_count : 0;
	for (uint32_t i = 0; i < b->channels_used; i++)
		placed += b->channels[i].state != AMQP_CH_FREE ? b->channels[i].unacked_count : 0;
	return placed == b->entries_count + mirrored ? NULL : "an entry is on no list";
}

/* ---- definitions ---- */

static const char *check_binding(const struct amqp_broker *b, uint32_t idx)
{
	const struct amqp_binding *bd = &b->bindings[idx];

	if (bd->id != idx || idx >= b->bindings_used || !b->exchanges[bd->source].in_use)
		return "a binding has no source";
	if (bd->dest_is_exchange ? !b->exchanges[bd->dest].in_use : !b->queues[bd->dest].in_use)
		return "a binding has no destination";
	if (bd->rule == AMQP_NONE)
		return b->exchanges[bd->source].type == AMQP_FANOUT ? NULL : "a binding has no rule";
	if (!b->rules[bd->rule].in_use || b->rules[bd->rule].exchange != bd->source)
		return "a binding's rule is another exchange's";
	return amqp_rule_find(b, bd->source, b->rules[bd->rule].rule_id) == &b->rules[bd->rule] ? NULL
												: "a rule is not found by its id";
}

static uint32_t list_length(const struct amqp_broker *b, uint32_t first, bool by_rule)
{
	uint32_t n = 0;

	for (; first != AMQP_NONE && n <= b->limits.bindings_max; n++)
		first = by_rule ? b->bindings[first].rule_next : b->bindings[first].dest_next;
	return n;
}

static const char *check_definitions(const struct amqp_broker *b)
{
	uint32_t bindings = 0, by_rule = 0, by_dest = 0, exchanges = 0, told = 0, rules = 0, free_rules = 0;

	for (uint32_t i = 0; i < b->limits.bindings_max; i++) {
		const char *broken = b->bindings[i].in_use ? check_binding(b, i) : NULL;

		if (broken != NULL)
			return broken;
		bindings += b->bindings[i].in_use;
	}
	for (uint32_t i = 0; i < b->limits.exchanges_max; i++) {
		const struct amqp_exchange *x = &b->exchanges[i];

		if (!x->in_use)
			continue;
		exchanges++;
		told += x->bindings_count;
		by_rule += list_length(b, x->fanout_first, true);
		by_dest += list_length(b, x->dest_first, false);
		if (amqp_exchange_find((struct amqp_broker *)b, x->vhost_id, x->name) != x)
			return "an exchange is not found by its name";
	}
	for (uint32_t i = 0; i < b->limits.queues_max; i++)
		by_dest += b->queues[i].in_use ? list_length(b, b->queues[i].dest_first, false) : 0;
	for (uint32_t i = 0; i < b->limits.rules_max; i++)
		if (b->rules[i].in_use) {
			rules++;
			if (b->rules[i].first_binding == AMQP_NONE)
				return "a rule has no binding";
			by_rule += list_length(b, b->rules[i].first_binding, true);
		}
	for (uint32_t i = b->rules_free; i != AMQP_NONE && free_rules <= b->limits.rules_max; i = b->rules[i].hash_next)
		free_rules++;
	if (bindings != b->bindings_count || bindings != by_rule || bindings != by_dest || bindings != told)
		return "bindings and the lists that hold them do not add up";
	if (rules + free_rules != b->limits.rules_max)
		return "rules in use and free do not add up";
	return exchanges == b->exchanges_count ? NULL : "exchanges in use are miscounted";
}

const char *amqp_back_check(const struct amqp_broker *b)
{
	const char *broken = check_queues(b);

	if (broken == NULL)
		broken = check_channels(b);
	if (broken == NULL)
		broken = check_messages(b);
	if (broken == NULL)
		broken = check_entries_placed(b);
	if (broken == NULL)
		broken = amqp_peers_check(b);
	if (broken == NULL)
		broken = check_definitions(b);
	return broken;
}
