/*
 * rows.c - snapshots of connections, channels, queues and consumers for `tickctl list_*`.
 *
 * Owns: the worker's walk over its pools and the rows in shared memory.
 * Core: the worker, a row at a time, so that a listing never costs a tick its place.
 * Spec: control/ctl_shm.h (rows and their sequence numbers).
 */
#include "dataplane/rows.h"

#include <arpa/inet.h>
#include <string.h>

#include "tcpstack/tcpstack.h"

enum { CONNS, CHANNELS, QUEUES, CONSUMERS, TABLES };

static void put_span(char *to, size_t to_bytes, struct amqp_span s)
{
	size_t len = s.len < to_bytes ? s.len : to_bytes - 1;

	if (len != 0)
		memcpy(to, s.ptr, len);
	to[len] = '\0';
}

static void put_text(char *to, size_t to_bytes, const char *text)
{
	put_span(to, to_bytes, (struct amqp_span){(const uint8_t *)text, (uint32_t)strlen(text)});
}

/* The wire half of a row: what TCP knows about the connection. */
static void put_tcp(struct ctl_row_conn *row, const struct tcps_conn *conn)
{
	struct tcps_conn_info t;

	struct tcps_endpoint own, peer;

	tcps_endpoints(conn, &own, &peer);
	if (inet_ntop(own.addr.family == 4 ? AF_INET : AF_INET6, own.addr.bytes, row->host, sizeof row->host) == NULL)
		row->host[0] = '\0';
	tcps_info(conn, &t);
	put_text(row->tcp_state, sizeof row->tcp_state, t.state);
	row->srtt_us = t.srtt_us;
	row->rttvar_us = t.rttvar_us;
	row->rto_ms = t.rto_ms;
	row->cwnd_bytes = t.cwnd_bytes;
	row->ssthresh_bytes = t.ssthresh_bytes;
	row->mss = t.mss;
	row->snd_wnd_bytes = t.snd_wnd_bytes;
	row->rcv_wnd_bytes = t.rcv_wnd_bytes;
	row->unsent_bytes = t.unsent_bytes;
	row->unacked_bytes = t.unacked_bytes;
	row->sacked_bytes = t.sacked_bytes;
	row->lost_bytes = t.lost_bytes;
	row->min_rtt_us = t.min_rtt_us;
	put_text(row->congestion, sizeof row->congestion, t.congestion);
	row->sack = t.sack;
	row->timestamps = t.timestamps;
	row->recovery = t.recovery;
	row->reordering = t.reordering;
	row->retransmits = t.retransmits;
}

static void put_conn(struct ctl_row_conn *row, const struct amqp_row_conn *c)
{
	row->uid = c->uid;
	put_text(row->state, sizeof row->state, c->state);
	put_span(row->user, sizeof row->user, c->user);
	put_span(row->vhost, sizeof row->vhost, c->vhost);
	put_text(row->peer_host, sizeof row->peer_host, c->peer_text);
	put_span(row->name, sizeof row->name, c->connection_name);
	put_span(row->client_product, sizeof row->client_product, c->client_product);
	put_span(row->client_version, sizeof row->client_version, c->client_version);
	put_span(row->client_platform, sizeof row->client_platform, c->client_platform);
	row->peer_port = c->peer_port;
	row->port = c->local_port;
	row->channels = c->channels;
	row->frame_max = c->frame_max;
	row->channel_max = c->channel_max;
	row->timeout_s = c->timeout_s;
	row->recv_oct = c->recv_oct;
	row->recv_cnt = c->recv_cnt;
	row->send_oct = c->send_oct;
	row->send_cnt = c->send_cnt;
	row->connected_at_s = c->connected_at_s;
	put_tcp(row, c->io);
}

static void put_channel(struct ctl_row_channel *row, const struct amqp_row_channel *c)
{
	row->conn_uid = c->conn_uid;
	row->number = c->number;
	row->consumer_count = c->consumer_count;
	row->messages_unacknowledged = c->messages_unacknowledged;
	row->messages_unconfirmed = c->messages_unconfirmed;
	row->prefetch_count = c->prefetch_count;
	row->global_prefetch_count = c->global_prefetch_count;
	row->confirm = c->confirm;
	row->publishes = c->publishes;
	row->deliveries = c->deliveries;
	row->acks = c->acks;
}

static void put_queue(struct ctl_row_queue *row, const struct amqp_row_queue *q)
{
	row->queue_id = q->queue_id;
	row->consumers = q->consumers;
	row->messages_ready = q->messages_ready;
	row->messages_unacknowledged = q->messages_unacknowledged;
	row->message_bytes_ready = q->message_bytes_ready;
	row->message_bytes_unacknowledged = q->message_bytes_unacknowledged;
	row->published = q->published;
	row->delivered = q->delivered;
	row->acked = q->acked;
	row->dropped = q->dropped;
	row->redelivered = q->redelivered;
}

static void put_consumer(struct ctl_row_consumer *row, const struct amqp_row_consumer *c)
{
	row->conn_uid = c->conn_uid;
	row->queue_id = c->queue_id;
	row->channel = c->channel;
	row->prefetch_count = c->prefetch_count;
	row->unacked = c->unacked;
	row->ack_required = c->ack_required;
	row->exclusive = c->exclusive;
	row->active = c->active;
	put_span(row->tag, sizeof row->tag, c->tag);
}

static void place(struct dp_rows_table *t, const struct dp_shm *shm, const struct ctl_table *private_table,
		  struct ctl_table *shared_table)
{
	t->rows = shm->base + private_table->offset;
	t->row_bytes = private_table->row_bytes;
	t->rows_max = private_table->rows_max;
	t->rows_used = &shared_table->rows_used;
}

void dp_rows_init(struct dp_rows *r, const struct dp_shm *shm, uint32_t worker)
{
	const struct ctl_worker_layout *w = &shm->layout.worker[worker];
	struct ctl_worker_layout *s = &shm->header->worker[worker];

	memset(r, 0, sizeof *r);
	r->current = TABLES;
	place(&r->table[CONNS], shm, &w->conns, &s->conns);
	place(&r->table[CHANNELS], shm, &w->channels, &s->channels);
	place(&r->table[QUEUES], shm, &w->queues, &s->queues);
	place(&r->table[CONSUMERS], shm, &w->consumers, &s->consumers);
}

static void mark_free(struct ctl_row_head *head)
{
	if (!head->in_use)
		return;
	ctl_row_begin(head);
	head->in_use = 0;
	ctl_row_end(head);
}

/* One row of one kind: fetched from the pool, written between the two halves of its sequence number. */
#define STEP_ROW(kind, broker, idx, head)                                                                                          \
	do {                                                                                                                       \
		struct amqp_row_##kind from;                                                                                       \
		if (!amqp_row_##kind(broker, idx, &from)) {                                                                        \
			mark_free(head);                                                                                           \
		} else {                                                                                                           \
			ctl_row_begin(head);                                                                                       \
			(head)->in_use = 1;                                                                                        \
			put_##kind((struct ctl_row_##kind *)(void *)(head), &from);                                                \
			ctl_row_end(head);                                                                                         \
		}                                                                                                                  \
	} while (0)

static void step_row(struct dp_rows *r, struct amqp_broker *broker, unsigned table, uint32_t idx)
{
	struct ctl_row_head *head = (void *)(r->table[table].rows + (size_t)idx * r->table[table].row_bytes);

	switch (table) {
	case CONNS:
		STEP_ROW(conn, broker, idx, head);
		break;
	case CHANNELS:
		STEP_ROW(channel, broker, idx, head);
		break;
	case QUEUES:
		STEP_ROW(queue, broker, idx, head);
		break;
	default:
		STEP_ROW(consumer, broker, idx, head);
		break;
	}
}

static uint32_t rows_used(const struct dp_rows *r, const struct amqp_broker *broker, unsigned table)
{
	uint32_t used = table == CONNS      ? amqp_rows_conns(broker)
			: table == CHANNELS ? amqp_rows_channels(broker)
			: table == QUEUES   ? amqp_rows_queues(broker)
					    : amqp_rows_consumers(broker);

	return used < r->table[table].rows_max ? used : r->table[table].rows_max;
}

static void open_table(struct dp_rows *r, const struct amqp_broker *broker, unsigned table)
{
	r->current = table;
	r->next_idx = 0;
	r->end_idx = rows_used(r, broker, table);
	atomic_store_explicit(r->table[table].rows_used, r->end_idx, memory_order_relaxed);
}

static void begin_sweep(struct dp_rows *r, const struct amqp_broker *broker, uint64_t now_ns)
{
	uint64_t all = 1;

	for (unsigned table = CONNS; table < TABLES; table++)
		all += rows_used(r, broker, table);
	r->busy_gap_ns = DP_ROWS_BUSY_SWEEP_NS / all;
	if (r->busy_gap_ns > DP_ROWS_BUSY_NS)
		r->busy_gap_ns = DP_ROWS_BUSY_NS;
	r->next_sweep_ns = now_ns + DP_ROWS_SWEEP_NS;
	open_table(r, broker, CONNS);
}

bool dp_rows_step(struct dp_rows *r, struct amqp_broker *broker, uint64_t now_ns)
{
	if (r->current == TABLES) {
		if (now_ns < r->next_sweep_ns)
			return false;
		begin_sweep(r, broker, now_ns);
	}
	while (r->next_idx == r->end_idx && r->current + 1 < TABLES)
		open_table(r, broker, r->current + 1);
	if (r->next_idx == r->end_idx) {
		r->current = TABLES;
		r->due_ns[false] = r->due_ns[true] = r->next_sweep_ns;
		return false;
	}
	step_row(r, broker, r->current, r->next_idx++);
	r->due_ns[false] = now_ns + DP_ROWS_IDLE_NS;
	r->due_ns[true] = now_ns + r->busy_gap_ns;
	return true;
}
