/*
 * lists.c - the rows of tickctl list_*: definitions from the RIB, figures from shared memory.
 *
 * Owns: nothing; rows are copied out of shared memory, with the dataplane undisturbed, and checked afterwards.
 * Core: control's event loop.
 * Spec: rabbitmqctl's column names; columns of our own come after them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/table.h"
#include "control/cli.h"
#include "control/conf.h"
#include "control/rib_int.h"

/* ---- JSON of foreign bytes ---- */

json_t *ctl_json_span(struct amqp_span s)
{
	json_t *j;
	char *clean;

	if (amqp_utf8_valid(s.ptr, s.len))
		return json_stringn_nocheck(s.len != 0 ? (const char *)s.ptr : "", s.len);
	clean = ctl_alloc((size_t)s.len + 1);
	for (uint32_t i = 0; i < s.len; i++)
		clean[i] = s.ptr[i] >= 0x20 && s.ptr[i] < 0x7f ? (char)s.ptr[i] : '?';
	j = json_stringn_nocheck(clean, s.len);
	free(clean);
	return j;
}

json_t *ctl_json_text(const char *text, size_t cap)
{
	return ctl_json_span((struct amqp_span){(const uint8_t *)text, (uint32_t)strnlen(text, cap)});
}

static json_t *container_json(struct amqp_span s, bool array, unsigned depth);

static json_t *field_json(const struct amqp_field *f, unsigned depth)
{
	char text[64];

	switch (f->type) {
	case 'V':
		return json_null();
	case 't':
		return json_boolean(f->i != 0);
	case 'f':
	case 'd': {
		json_t *real = json_real(f->d);

		return real != NULL ? real : json_string("nan"); /* JSON has neither infinities nor NaN */
	}
	case 'D':
		snprintf(text, sizeof text, "%llde-%u", (long long)f->i, (unsigned)f->scale);
		return json_string(text);
	case 'S':
	case 'x':
		return ctl_json_span(f->value);
	case 'F':
	case 'A':
		return depth < AMQP_TABLE_DEPTH_MAX ? container_json(f->value, f->type == 'A', depth + 1) : json_null();
	default:
		return json_integer(f->i);
	}
}

static json_t *container_json(struct amqp_span s, bool array, unsigned depth)
{
	json_t *out = array ? json_array() : json_object();
	struct amqp_table_iter it;
	struct amqp_field f;

	amqp_table_iter(&it, s.ptr, s.len);
	it.array = array;
	while (amqp_table_next(&it, &f)) {
		json_t *value = field_json(&f, depth), *name;

		if (array) {
			json_array_append_new(out, value);
			continue;
		}
		name = ctl_json_span(f.name);
		json_object_set_new_nocheck(out, json_string_value(name), value);
		json_decref(name);
	}
	return out;
}

json_t *ctl_json_table(struct amqp_span table)
{
	return container_json(table, false, 0);
}

static json_t *rows_of(json_t *rows)
{
	return json_pack("{s:o}", "rows", rows);
}

static json_t *flag(uint32_t flags, uint32_t bit)
{
	return json_boolean((flags & bit) != 0);
}

static json_t *pid_json(uint64_t uid)
{
	char text[48];

	snprintf(text, sizeof text, "%u.%u", (uint32_t)uid, (uint32_t)(uid >> 32));
	return json_string(uid != 0 ? text : "");
}

/* ---- rows of shared memory ---- */

enum row_kind { ROW_CONN, ROW_CHANNEL, ROW_QUEUE, ROW_CONSUMER };

static const struct ctl_table *table_of(const struct ctl_worker_layout *w, enum row_kind kind)
{
	switch (kind) {
	case ROW_CONN:
		return &w->conns;
	case ROW_CHANNEL:
		return &w->channels;
	case ROW_QUEUE:
		return &w->queues;
	case ROW_CONSUMER:
		break;
	}
	return &w->consumers;
}

static uint32_t rows_count(const struct ctl_link *l, uint32_t worker, enum row_kind kind)
{
	const struct ctl_shm_header *live = (const struct ctl_shm_header *)(const void *)l->map;
	uint32_t used, max = table_of(&l->shm.worker[worker], kind)->rows_max;

	used = atomic_load_explicit(&table_of(&live->worker[worker], kind)->rows_used, memory_order_acquire);
	return used < max ? used : max;
}

/* Row `idx` of a worker, copied. False: it is free. */
static bool row_read(const struct ctl_link *l, uint32_t worker, enum row_kind kind, uint32_t idx, void *out)
{
	const struct ctl_table *t = table_of(&l->shm.worker[worker], kind);

	return ctl_row_read(l->map + t->offset + (uint64_t)idx * t->row_bytes, out, t->row_bytes);
}

/* ---- queues ---- */

struct queue_sums {
	struct ctl_row_queue q;
	bool has_exclusive;
	uint64_t exclusive_conn;
	uint32_t exclusive_channel;
	char exclusive_tag[CTL_NAME_BYTES];
};

static void sum_queues(const struct ctl_control *c, struct queue_sums *sums, uint32_t max)
{
	struct ctl_row_queue row;
	struct ctl_row_consumer consumer;

	for (uint32_t w = 0; w < c->link.shm.workers_count; w++) {
		for (uint32_t i = 0, n = rows_count(&c->link, w, ROW_QUEUE); i < n; i++) {
			if (!row_read(&c->link, w, ROW_QUEUE, i, &row) || row.queue_id >= max)
				continue;
			struct ctl_row_queue *s = &sums[row.queue_id].q;

			s->consumers += row.consumers;
			s->messages_ready += row.messages_ready;
			s->messages_unacknowledged += row.messages_unacknowledged;
			s->message_bytes_ready += row.message_bytes_ready;
			s->message_bytes_unacknowledged += row.message_bytes_unacknowledged;
			s->published += row.published;
			s->delivered += row.delivered;
			s->acked += row.acked;
			s->dropped += row.dropped;
			s->redelivered += row.redelivered;
		}
		for (uint32_t i = 0, n = rows_count(&c->link, w, ROW_CONSUMER); i < n; i++) {
			if (!row_read(&c->link, w, ROW_CONSUMER, i, &consumer) || consumer.queue_id >= max ||
			    consumer.exclusive == 0)
				continue;
			sums[consumer.queue_id].has_exclusive = true;
			sums[consumer.queue_id].exclusive_conn = consumer.conn_uid;
			sums[consumer.queue_id].exclusive_channel = consumer.channel;
			memcpy(sums[consumer.queue_id].exclusive_tag, consumer.tag, sizeof consumer.tag);
		}
	}
}

static json_t *channel_pid(uint64_t uid, uint32_t channel)
{
	char text[64];

	snprintf(text, sizeof text, "%u.%u.%u", (uint32_t)uid, (uint32_t)(uid >> 32), channel);
	return json_string(text);
}

static void set_u64(json_t *row, const char *name, uint64_t v)
{
	json_object_set_new(row, name, json_integer((json_int_t)(v <= INT64_MAX ? v : INT64_MAX)));
}

static json_t *queue_row(const struct ctl_queue *q, const struct queue_sums *s, uint32_t dataplane_pid)
{
	json_t *row = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:s, s:s}", "name", ctl_json_span(q->name), "vhost",
				ctl_json_span(q->vhost->name), "durable", flag(q->flags, AMQP_DEF_DURABLE), "auto_delete",
				flag(q->flags, AMQP_DEF_AUTO_DELETE), "exclusive", flag(q->flags, AMQP_DEF_EXCLUSIVE), "arguments",
				ctl_json_table(q->args), "policy", "", "owner_pid", pid_json(q->owner), "type", "classic", "state",
				dataplane_pid != 0 ? "running" : "down");

	if (dataplane_pid != 0)
		set_u64(row, "pid", dataplane_pid); /* queues are no processes of their own */
	else
		json_object_set_new(row, "pid", json_string(""));
	json_object_set_new(row, "exclusive_consumer_pid",
			    s->has_exclusive ? channel_pid(s->exclusive_conn, s->exclusive_channel) : json_string(""));
	json_object_set_new(row, "exclusive_consumer_tag", ctl_json_text(s->exclusive_tag, sizeof s->exclusive_tag));
	set_u64(row, "messages_ready", s->q.messages_ready);
	set_u64(row, "messages_unacknowledged", s->q.messages_unacknowledged);
	set_u64(row, "messages", s->q.messages_ready + s->q.messages_unacknowledged);
	set_u64(row, "message_bytes", s->q.message_bytes_ready + s->q.message_bytes_unacknowledged);
	set_u64(row, "message_bytes_ready", s->q.message_bytes_ready);
	set_u64(row, "message_bytes_unacknowledged", s->q.message_bytes_unacknowledged);
	set_u64(row, "consumers", s->q.consumers);
	set_u64(row, "published", s->q.published);
	set_u64(row, "delivered", s->q.delivered);
	set_u64(row, "acked", s->q.acked);
	set_u64(row, "dropped", s->q.dropped);
	set_u64(row, "redelivered", s->q.redelivered);
	set_u64(row, "id", q->id);
	return row;
}

json_t *ctl_list_queues(struct ctl_control *c, const struct ctl_vhost *v)
{
	struct queue_sums *sums = ctl_alloc(((size_t)c->rib.limits.queues_max + 1) * sizeof *sums);
	bool attached = ctl_control_attached(c);
	json_t *rows = json_array();

	if (attached)
		sum_queues(c, sums, c->rib.limits.queues_max);
	for (uint32_t i = 0; i < c->rib.limits.queues_max; i++)
		if (c->rib.queue[i] != NULL && (v == NULL || c->rib.queue[i]->vhost == v))
			json_array_append_new(rows, queue_row(c->rib.queue[i], &sums[i], attached ? c->link.shm.pid : 0));
	free(sums);
	return rows_of(rows);
}

/* ---- exchanges and bindings ---- */

json_t *ctl_list_exchanges(struct ctl_control *c, const struct ctl_vhost *v)
{
	json_t *rows = json_array(), *row;

	for (uint32_t i = 0; i < c->rib.limits.exchanges_max; i++) {
		const struct ctl_exchange *x = c->rib.exchange[i];

		if (x == NULL || (v != NULL && x->vhost != v))
			continue;
		row = json_pack("{s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:s, s:i, s:i}", "name", ctl_json_span(x->name), "vhost",
				ctl_json_span(x->vhost->name), "type", ctl_exchange_type_name(x->type), "durable",
				flag(x->flags, AMQP_DEF_DURABLE), "auto_delete", flag(x->flags, AMQP_DEF_AUTO_DELETE), "internal",
				flag(x->flags, AMQP_DEF_INTERNAL), "arguments", ctl_json_table(x->args), "policy", "", "bindings",
				(int)x->bindings_count, "id", (int)x->id);
		json_array_append_new(rows, row);
	}
	return rows_of(rows);
}

static json_t *binding_row(const struct ctl_vhost *v, struct amqp_span source, struct amqp_span destination, const char *kind,
			   struct amqp_span key, struct amqp_span args)
{
	return json_pack("{s:o, s:s, s:o, s:s, s:o, s:o, s:o}", "source_name", ctl_json_span(source), "source_kind", "exchange",
			 "destination_name", ctl_json_span(destination), "destination_kind", kind, "routing_key",
			 ctl_json_span(key), "arguments", ctl_json_table(args), "vhost", ctl_json_span(v->name));
}

json_t *ctl_list_bindings(struct ctl_control *c, const struct ctl_vhost *v)
{
	const struct amqp_span empty = {NULL, 0};
	json_t *rows = json_array();

	/* The default exchange: every queue by its name. */
	for (uint32_t i = 0; i < c->rib.limits.queues_max; i++) {
		const struct ctl_queue *q = c->rib.queue[i];

		if (q != NULL && (v == NULL || q->vhost == v))
			json_array_append_new(rows, binding_row(q->vhost, empty, q->name, "queue", q->name, empty));
	}
	for (uint32_t i = 0; i < c->rib.limits.bindings_max; i++) {
		const struct ctl_binding *b = c->rib.binding[i];

		if (b == NULL || (v != NULL && b->source->vhost != v))
			continue;
		json_array_append_new(rows, binding_row(b->source->vhost, b->source->name,
							b->dest_queue != NULL ? b->dest_queue->name : b->dest_exchange->name,
							b->dest_queue != NULL ? "queue" : "exchange", b->key, b->args));
	}
	return rows_of(rows);
}

/* ---- connections ---- */

/* "198.18.0.1:40000", "[2001:2::1]:40000". */
static void put_end(char *out, size_t out_bytes, const char *host, size_t host_bytes, unsigned port)
{
	int len = (int)strnlen(host, host_bytes);
	const char *bracket = memchr(host, ':', (size_t)len) != NULL ? "[]" : "";

	snprintf(out, out_bytes, "%.1s%.*s%s:%u", bracket, len, host, bracket[0] != '\0' ? bracket + 1 : "", port);
}

/* "198.18.0.1:40000 -> 198.18.0.2:5672", as RabbitMQ names connections. */
static void conn_name(const struct ctl_row_conn *r, char *out, size_t out_bytes)
{
	char peer[64], own[64];

	put_end(peer, sizeof peer, r->peer_host, sizeof r->peer_host, r->peer_port);
	put_end(own, sizeof own, r->host, sizeof r->host, r->port);
	snprintf(out, out_bytes, "%s -> %s", peer, own);
}

static void conn_tcp(json_t *row, const struct ctl_row_conn *r)
{
	json_object_set_new(row, "tcp_state", ctl_json_text(r->tcp_state, sizeof r->tcp_state));
	set_u64(row, "srtt_us", r->srtt_us);
	set_u64(row, "rttvar_us", r->rttvar_us);
	set_u64(row, "rto_ms", r->rto_ms);
	set_u64(row, "cwnd", r->cwnd_bytes);
	set_u64(row, "ssthresh", r->ssthresh_bytes);
	set_u64(row, "mss", r->mss);
	set_u64(row, "snd_wnd", r->snd_wnd_bytes);
	set_u64(row, "rcv_wnd", r->rcv_wnd_bytes);
	set_u64(row, "snd_queue_bytes", r->unsent_bytes);
	set_u64(row, "unacked_bytes", r->unacked_bytes);
	set_u64(row, "retrans", r->retransmits);
	set_u64(row, "sacked_bytes", r->sacked_bytes);
	set_u64(row, "lost_bytes", r->lost_bytes);
	set_u64(row, "min_rtt_us", r->min_rtt_us);
	json_object_set_new(row, "congestion", ctl_json_text(r->congestion, sizeof r->congestion));
	json_object_set_new(row, "sack", json_boolean(r->sack != 0));
	json_object_set_new(row, "timestamps", json_boolean(r->timestamps != 0));
	json_object_set_new(row, "recovery", json_boolean(r->recovery != 0));
	json_object_set_new(row, "reordering", json_boolean(r->reordering != 0));
	json_object_set_new(row, "zero_window", json_boolean(r->snd_wnd_bytes == 0));
}

static json_t *conn_row(const struct ctl_control *c, const struct ctl_row_conn *r, uint32_t worker)
{
	char name[256];
	json_t *row;

	conn_name(r, name, sizeof name);
	row = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:s}", "pid", pid_json(r->uid), "name",
			ctl_json_text(name, sizeof name), "user_provided_name", ctl_json_text(r->name, sizeof r->name), "host",
			ctl_json_text(r->host, sizeof r->host), "peer_host", ctl_json_text(r->peer_host, sizeof r->peer_host),
			"state", ctl_json_text(r->state, sizeof r->state), "user", ctl_json_text(r->user, sizeof r->user), "vhost",
			ctl_json_text(r->vhost, sizeof r->vhost), "ssl", 0, "protocol", "{0,9,1}");
	json_object_set_new(row, "client_properties",
			    json_pack("{s:o, s:o, s:o}", "product", ctl_json_text(r->client_product, sizeof r->client_product),
				      "version", ctl_json_text(r->client_version, sizeof r->client_version), "platform",
				      ctl_json_text(r->client_platform, sizeof r->client_platform)));
	set_u64(row, "port", r->port);
	set_u64(row, "peer_port", r->peer_port);
	set_u64(row, "channels", r->channels);
	set_u64(row, "timeout", r->timeout_s);
	set_u64(row, "frame_max", r->frame_max);
	set_u64(row, "channel_max", r->channel_max);
	set_u64(row, "recv_oct", r->recv_oct);
	set_u64(row, "recv_cnt", r->recv_cnt);
	set_u64(row, "send_oct", r->send_oct);
	set_u64(row, "send_cnt", r->send_cnt);
	set_u64(row, "send_pend", r->unsent_bytes);
	set_u64(row, "connected_at", r->connected_at_s * 1000);
	set_u64(row, "lcore", c->link.shm.worker[worker].lcore);
	set_u64(row, "rx_queue", worker);
	conn_tcp(row, r);
	return row;
}

json_t *ctl_list_connections(struct ctl_control *c)
{
	json_t *rows = json_array();
	struct ctl_row_conn r;

	for (uint32_t w = 0; w < c->link.shm.workers_count; w++)
		for (uint32_t i = 0, n = rows_count(&c->link, w, ROW_CONN); i < n; i++)
			if (row_read(&c->link, w, ROW_CONN, i, &r))
				json_array_append_new(rows, conn_row(c, &r, w));
	return rows_of(rows);
}

static bool text_equal(const char *field, size_t cap, const char *text)
{
	size_t len = strnlen(field, cap);

	return len == strlen(text) && memcmp(field, text, len) == 0;
}

static bool conn_is(const struct ctl_row_conn *r, const char *id)
{
	char name[256], pid[48];

	conn_name(r, name, sizeof name);
	snprintf(pid, sizeof pid, "%u.%u", (uint32_t)r->uid, (uint32_t)(r->uid >> 32));
	return strcmp(id, pid) == 0 || strcmp(id, name) == 0 || (*id != '\0' && text_equal(r->name, sizeof r->name, id));
}

unsigned ctl_close_connections(struct ctl_control *c, const char *id, const char *vhost, const char *reason)
{
	struct ctl_row_conn r;
	unsigned closed = 0;
	char text[240];

	snprintf(text, sizeof text, "CONNECTION_FORCED - %.200s", reason);
	for (uint32_t w = 0; w < c->link.shm.workers_count; w++)
		for (uint32_t i = 0, n = rows_count(&c->link, w, ROW_CONN); i < n; i++) {
			struct amqp_record rec = {.kind = AMQP_OP_CONN_CLOSE, .code = 320, .str = {ctl_span(text)}};

			if (!row_read(&c->link, w, ROW_CONN, i, &r) || (id != NULL && !conn_is(&r, id)) ||
			    (vhost != NULL && !text_equal(r.vhost, sizeof r.vhost, vhost)))
				continue;
			rec.conn_uid = r.uid;
			ctl_link_emit(&c->link, w, &rec);
			closed++;
		}
	return closed;
}

/* ---- channels and consumers ---- */

struct named_conn {
	uint64_t uid;
	char name[256];
};

static int by_uid(const void *a, const void *b)
{
	uint64_t x = ((const struct named_conn *)a)->uid, y = ((const struct named_conn *)b)->uid;

	return x < y ? -1 : x > y;
}

/* The names of a worker's connections, sorted by uid; free() them. */
static struct named_conn *conn_names(const struct ctl_control *c, uint32_t worker, size_t *count)
{
	uint32_t rows = rows_count(&c->link, worker, ROW_CONN);
	struct named_conn *all = ctl_alloc(((size_t)rows + 1) * sizeof *all);
	struct ctl_row_conn r;

	*count = 0;
	for (uint32_t i = 0; i < rows; i++)
		if (row_read(&c->link, worker, ROW_CONN, i, &r)) {
			all[*count].uid = r.uid;
			conn_name(&r, all[(*count)++].name, sizeof all[0].name);
		}
	qsort(all, *count, sizeof *all, by_uid);
	return all;
}

static json_t *channel_name(const struct named_conn *conns, size_t count, const struct ctl_row_channel *r)
{
	struct named_conn key = {.uid = r->conn_uid};
	const struct named_conn *conn = bsearch(&key, conns, count, sizeof *conns, by_uid);
	char text[280];

	if (conn == NULL)
		return json_string("");
	snprintf(text, sizeof text, "%s (%u)", conn->name, r->number);
	return ctl_json_text(text, sizeof text);
}

json_t *ctl_list_channels(struct ctl_control *c)
{
	json_t *rows = json_array();
	struct ctl_row_channel r;

	for (uint32_t w = 0; w < c->link.shm.workers_count; w++) {
		size_t conns_count;
		struct named_conn *conns = conn_names(c, w, &conns_count);

		for (uint32_t i = 0, n = rows_count(&c->link, w, ROW_CHANNEL); i < n; i++) {
			const struct ctl_conn *conn;
			json_t *row;

			if (!row_read(&c->link, w, ROW_CHANNEL, i, &r))
				continue;
			conn = ctl_rib_conn(&c->rib, r.conn_uid);
			row = json_pack("{s:o, s:o, s:o, s:o, s:b, s:b}", "pid", channel_pid(r.conn_uid, r.number), "connection",
					pid_json(r.conn_uid), "user", conn != NULL ? ctl_json_span(conn->user) : json_string(""),
					"vhost", conn != NULL ? ctl_json_span(conn->vhost) : json_string(""), "transactional", 0,
					"confirm", (int)(r.confirm != 0));
			json_object_set_new(row, "name", channel_name(conns, conns_count, &r));
			set_u64(row, "messages_uncommitted", 0); /* there are no transactions, so this is what there is */
			set_u64(row, "acks_uncommitted", 0);
			set_u64(row, "number", r.number);
			set_u64(row, "consumer_count", r.consumer_count);
			set_u64(row, "messages_unacknowledged", r.messages_unacknowledged);
			set_u64(row, "messages_unconfirmed", r.messages_unconfirmed);
			set_u64(row, "prefetch_count", r.prefetch_count);
			set_u64(row, "global_prefetch_count", r.global_prefetch_count);
			set_u64(row, "publishes", r.publishes);
			set_u64(row, "deliveries", r.deliveries);
			set_u64(row, "acks", r.acks);
			json_array_append_new(rows, row);
		}
		free(conns);
	}
	return rows_of(rows);
}

json_t *ctl_list_consumers(struct ctl_control *c, const struct ctl_vhost *v)
{
	json_t *rows = json_array(), *row;
	struct ctl_row_consumer r;

	for (uint32_t w = 0; w < c->link.shm.workers_count; w++)
		for (uint32_t i = 0, n = rows_count(&c->link, w, ROW_CONSUMER); i < n; i++) {
			const struct ctl_queue *q;

			if (!row_read(&c->link, w, ROW_CONSUMER, i, &r))
				continue;
			q = r.queue_id < c->rib.limits.queues_max ? c->rib.queue[r.queue_id] : NULL;
			if (q == NULL || (v != NULL && q->vhost != v))
				continue;
			row = json_pack("{s:o, s:o, s:o, s:b, s:b, s:b, s:{}}", "queue_name", ctl_json_span(q->name), "channel_pid",
					channel_pid(r.conn_uid, r.channel), "consumer_tag", ctl_json_text(r.tag, sizeof r.tag),
					"ack_required", (int)(r.ack_required != 0), "active", (int)(r.active != 0), "exclusive",
					(int)(r.exclusive != 0), "arguments");
			set_u64(row, "prefetch_count", r.prefetch_count);
			json_object_set_new(row, "activity_status", json_string(r.active != 0 ? "up" : "waiting"));
			set_u64(row, "messages_unacknowledged", r.unacked);
			json_array_append_new(rows, row);
		}
	return rows_of(rows);
}

/* ---- vhosts and users ---- */

json_t *ctl_list_vhosts(struct ctl_control *c)
{
	json_t *rows = json_array();
	const struct ctl_vhost *v;

	LIST_FOREACH(v, &c->rib.vhosts, all)
	json_array_append_new(rows, json_pack("{s:o, s:b}", "name", ctl_json_span(v->name), "configured", (int)v->configured));
	return rows_of(rows);
}

static json_t *list_json(const char *words)
{
	json_t *out = json_array();
	const char *at = words;
	char word[256];
	bool too_long;

	while (ctl_conf_list_next(&at, word, sizeof word, &too_long))
		json_array_append_new(out, ctl_json_text(word, sizeof word));
	return out;
}

json_t *ctl_list_users(struct ctl_control *c)
{
	json_t *rows = json_array();

	for (uint32_t i = 0; i < c->options.users.count; i++) {
		const struct ctl_user *u = &c->options.users.user[i];

		json_array_append_new(rows, json_pack("{s:o, s:o, s:o}", "user", ctl_json_text(u->name, sizeof u->name), "tags",
						      list_json(u->tags), "vhosts", list_json(u->vhosts)));
	}
	return rows_of(rows);
}
