/*
 * confirm.c - publisher confirms: what was published in a burst is acknowledged at its end, by one basic.ack where one will do.
 *
 * Owns: b->confirm_first, the list of channels that have something to acknowledge.
 * Core: the worker.
 * Spec: RabbitMQ's confirm class (85) and basic.ack, basic.nack from the server; never reordered beyond what `multiple` says.
 */
#include "amqp/back.h"

void amqp_confirm_later(struct amqp_broker *b, struct amqp_channel *ch)
{
	if (ch->confirm_queued)
		return;
	ch->confirm_queued = true;
	ch->confirm_next = b->confirm_first;
	b->confirm_first = (uint32_t)(ch - b->channels);
}

/* Acknowledges all from ch->confirm_from to `last`. */
static bool send_ack(struct amqp_conn *c, struct amqp_channel *ch, uint64_t last)
{
	struct amqp_writer w;

	if (last < ch->confirm_from)
		return true;
	amqp_method_begin(&w, ch->number, 60, 80);
	amqp_put_u64(&w, last);
	amqp_put_u8(&w, last > ch->confirm_from);
	if (!amqp_send_method(c, &w))
		return false;
	AMQP_COUNT_N(c->b, confirms, last - ch->confirm_from + 1);
	ch->confirm_from = last + 1;
	return true;
}

void amqp_confirm_nack(struct amqp_conn *c, struct amqp_channel *ch)
{
	struct amqp_writer w;

	if (!send_ack(c, ch, ch->publish_seq - 1))
		return;
	amqp_method_begin(&w, ch->number, 60, 120);
	amqp_put_u64(&w, ch->publish_seq);
	amqp_put_u8(&w, 0);
	if (!amqp_send_method(c, &w))
		return;
	AMQP_COUNT(c->b, confirms_nacked);
	ch->confirm_from = ch->publish_seq + 1;
}

void amqp_confirms_flush(struct amqp_broker *b)
{
	while (b->confirm_first != AMQP_NONE) {
		struct amqp_channel *ch = &b->channels[b->confirm_first];
		struct amqp_conn *c = &b->conns[ch->conn];

		b->confirm_first = ch->confirm_next;
		ch->confirm_queued = false;
		if (c->state == AMQP_CONN_RUNNING && ch->state == AMQP_CH_OPEN)
			send_ack(c, ch, ch->publish_seq); /* a failure resets the connection: nobody waits for the confirm */
	}
}

void amqp_confirm_forget(struct amqp_broker *b, struct amqp_channel *ch)
{
	uint32_t idx = (uint32_t)(ch - b->channels), *link = &b->confirm_first;

	if (!ch->confirm_queued)
		return;
	while (*link != idx)
		link = &b->channels[*link].confirm_next;
	*link = ch->confirm_next;
	ch->confirm_queued = false;
}

enum amqp_verdict amqp_on_confirm_select(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args)
{
	bool no_wait = amqp_read_u8(args) & 1;
	struct amqp_writer w;

	if (args->bad)
		return amqp_conn_error(c, 501, 85, 10, "the arguments are cut short");
	ch->confirm = true;
	if (no_wait)
		return AMQP_DONE;
	amqp_method_begin(&w, ch->number, 85, 11);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}
