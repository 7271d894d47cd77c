/*
 * rows.c - one object at a time as the operator sees it: connections, channels, queues and consumers for tickctl's lists.
 *
 * Owns: nothing; a snapshot of what the other files own.
 * Core: the worker, between bursts.
 * Spec: rabbitmqctl's column names.
 */
#include "amqp/peer.h"
#include "amqp/table.h"

uint32_t amqp_rows_conns(const struct amqp_broker *b)
{
	return b->conns_used;
}

uint32_t amqp_rows_channels(const struct amqp_broker *b)
{
	return b->channels_used;
}

uint32_t amqp_rows_queues(const struct amqp_broker *b)
{
	return b->queues_used;
}

uint32_t amqp_rows_consumers(const struct amqp_broker *b)
{
	return b->consumers_used;
}

static const char *state_name(enum amqp_conn_state s)
{
	switch (s) {
	case AMQP_CONN_TUNE:
		return "tuning";
	case AMQP_CONN_OPEN_WAIT:
		return "opening";
	case AMQP_CONN_RUNNING:
		return "running";
	case AMQP_CONN_CLOSING:
	case AMQP_CONN_CLOSED:
		return "closing";
	default:
		return "starting";
	}
}

/* A text of the client's properties; empty when it gave none. */
static struct amqp_span property(const struct amqp_conn *c, const char *name)
{
	struct amqp_field f;

	if (!amqp_table_find(c->client_properties.ptr, c->client_properties.len, name, &f) || !amqp_field_is_text(&f))
		return (struct amqp_span){NULL, 0};
	return f.value;
}

bool amqp_row_conn(const struct amqp_broker *b, uint32_t idx, struct amqp_row_conn *out)
{
	const struct amqp_conn *c = &b->conns[idx];

	if (idx >= b->conns_used || c->state == AMQP_CONN_FREE)
		return false;
	*out = (struct amqp_row_conn){
		.uid = c->uid,
		.io = c->io,
		.state = c->state == AMQP_CONN_RUNNING && c->stalled ? "blocking" : state_name(c->state),
		.peer_text = c->peer_text,
		.peer_port = c->peer_port,
		.local_port = c->local_port,
		.user = c->user,
		.vhost = c->vhost,
		.client_product = property(c, "product"),
		.client_version = property(c, "version"),
		.client_platform = property(c, "platform"),
		.connection_name = property(c, "connection_name"),
		.channels = c->channels_count,
		.frame_max = c->frame_max,
		.channel_max = c->channel_max,
		.timeout_s = c->heartbeat_s,
		.recv_oct = c->recv_oct,
		.recv_cnt = c->recv_cnt,
		.send_oct = c->send_oct,
		.send_cnt = c->send_cnt,
		.connected_at_s = c->connected_at_s,
	};
	return true;
}

static uint32_t consumers_of(const struct amqp_broker *b, const struct amqp_channel *ch)
{
	uint32_t n = 0;

	for (uint32_t i = ch->consumers_first; i != AMQP_NONE; i = b->consumers[i].chan_next)
		n++;
	return n;
}

bool amqp_row_channel(const struct amqp_broker *b, uint32_t idx, struct amqp_row_channel *out)
{
	const struct amqp_channel *ch = &b->channels[idx];

	if (idx >= b->channels_used || ch->state == AMQP_CH_FREE)
		return false;
	*out = (struct amqp_row_channel){
		.conn_uid = b->conns[ch->conn].uid,
		.number = ch->number,
		.consumer_count = consumers_of(b, ch),
		.messages_unacknowledged = ch->unacked_count,
		.messages_unconfirmed = ch->confirm ? (uint32_t)(ch->publish_seq + 1 - ch->confirm_from) : 0,
		.prefetch_count = ch->prefetch_default,
		.global_prefetch_count = ch->prefetch_channel,
		.confirm = ch->confirm,
		.publishes = ch->publishes,
		.deliveries = ch->deliveries,
		.acks = ch->acks,
	};
	return true;
}

bool amqp_row_queue(const struct amqp_broker *b, uint32_t idx, struct amqp_row_queue *out)
{
	const struct amqp_queue *q = &b->queues[idx];

	if (idx >= b->queues_used || !q->in_use || !amqp_queue_is_here(b, q))
		return false;
	*out = (struct amqp_row_queue){
		.queue_id = q->id,
		.messages_ready = q->ready_count,
		.messages_unacknowledged = q->unacked_count,
		.message_bytes_ready = q->ready_bytes,
		.message_bytes_unacknowledged = q->unacked_bytes,
		.consumers = q->consumers_count,
		.published = q->published,
		.delivered = q->delivered,
		.acked = q->acked,
		.dropped = q->dropped,
		.redelivered = q->redelivered,
	};
	return true;
}

bool amqp_row_consumer(const struct amqp_broker *b, uint32_t idx, struct amqp_row_consumer *out)
{
	const struct amqp_consumer *c = &b->consumers[idx];

	if (idx >= b->consumers_used || !c->in_use || amqp_consumer_is_remote(c))
		return false;
	*out = (struct amqp_row_consumer){
		.conn_uid = b->conns[b->channels[c->channel].conn].uid,
		.queue_id = amqp_queue_is_mirror(b, c->queue) ? b->mirrors[c->queue - b->limits.queues_max].queue : c->queue,
		.channel = b->channels[c->channel].number,
		.prefetch_count = c->prefetch_max,
		.unacked = c->unacked_count,
		.tag = amqp_consumer_tag(c),
		.ack_required = !c->no_ack,
		.exclusive = c->exclusive,
		.active = true, /* single-active-consumer queues do not exist */
	};
	return true;
}
