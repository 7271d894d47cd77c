/*
 * fastpath_far.c - the far side: one publisher, N subscribers and idle connections over a TCP stack of ours.
 *
 * Owns: the clients; each reads what the broker sends frame by frame and compares every tick's number with the one that is due.
 * Core: a measuring aid; its cost is not measured.
 * Spec: AMQP 0-9-1, what a client library sends and no more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/wire.h"
#include "tests/bench/fastpath.h"
#include "tests/sim/tcp_host.h"

#define CONNECTING_MAX  64u /* at a time, so that the SYN cache is not what is measured */
#define SYMBOLS         32u
#define QUEUE_MAX_TICKS 1000 /* x-max-length of a subscriber's queue */
#define SEEN_BYTES      128u

enum far_kind { FAR_PUBLISHER, FAR_SUBSCRIBER, FAR_IDLE };

struct far_client {
	struct far *far;
	struct tcps_conn *conn;
	enum far_kind kind;
	uint32_t idx; /* among its kind */
	bool ready, held;
	/* the frame in arrival: its first bytes, and how many came */
	uint8_t seen[SEEN_BYTES];
	uint32_t have;
	/* the delivery in arrival, and the account */
	uint64_t tag, acked_tag, body_bytes, next_tick;
	uint32_t first_count, last_count; /* watched ticks that it had before, and after, all others */
};

/* A method frame in the making. */
struct writer {
	uint8_t buf[512];
	size_t len;
};

static void fail(struct far_client *c, const char *what, uint64_t number)
{
	static const char *const kind[] = {"the publisher", "subscriber", "idle connection"};

	if (c->far->why[0] == '\0')
		snprintf(c->far->why, sizeof c->far->why, "%s %u: %s (%llu)", kind[c->kind], c->idx, what,
			 (unsigned long long)number);
}

/* ---- writing ---- */

static void put(struct writer *w, const void *bytes, size_t len)
{
	memcpy(w->buf + w->len, bytes, len);
	w->len += len;
}

static void put_number(struct writer *w, uint64_t v, unsigned bytes)
{
	uint8_t be[8];

	amqp_set_be64(be, v);
	put(w, be + 8 - bytes, bytes);
}

static void put_short(struct writer *w, const char *text)
{
	put_number(w, strlen(text), 1);
	put(w, text, strlen(text));
}

static void put_long(struct writer *w, const void *bytes, size_t len)
{
	put_number(w, len, 4);
	put(w, bytes, len);
}

static void begin(struct writer *w, uint16_t channel, uint16_t class_id, uint16_t method_id)
{
	w->len = 0;
	put_number(w, 1, 1);
	put_number(w, channel, 2);
	put_number(w, 0, 4);
	put_number(w, class_id, 2);
	put_number(w, method_id, 2);
}

static void end(struct far_client *c, struct writer *w)
{
	amqp_set_be32(w->buf + 3, (uint32_t)w->len - 7);
	put_number(w, 0xce, 1);
	if (!tcps_send(c->conn, w->buf, w->len))
		fail(c, "its stack takes no more bytes", w->len);
}

/* ---- the walk to the first tick ---- */

static const char *const exchange_type[] = {
	[FAR_TOPIC] = "topic", [FAR_DIRECT] = "direct", [FAR_FANOUT] = "fanout", [FAR_HEADERS] = "headers"};

static void start_ok(struct far_client *c)
{
	static const char response[] = "\0guest\0guest";
	struct writer w;

	begin(&w, 0, 10, 11);
	put_number(&w, 0, 4);
	put_short(&w, "PLAIN");
	put_long(&w, response, sizeof response - 1);
	put_short(&w, "en_US");
	end(c, &w);
}

static void tune_ok(struct far_client *c, const uint8_t *args)
{
	struct writer w;

	begin(&w, 0, 10, 31);
	put(&w, args, 6);
	put_number(&w, 0, 2);
	end(c, &w);
	begin(&w, 0, 10, 40);
	put_short(&w, "/");
	put_number(&w, 0, 2);
	end(c, &w);
}

static void channel_open(struct far_client *c)
{
	struct writer w;

	begin(&w, 1, 20, 10);
	put_number(&w, 0, 1);
	end(c, &w);
}

static void queue_name(const struct far_client *c, char name[16])
{
	snprintf(name, 16, "feed.%u", c->idx);
}

static void exchange_declare(struct far_client *c)
{
	struct writer w;

	begin(&w, 1, 40, 10);
	put_number(&w, 0, 2);
	put_short(&w, "ticks");
	put_short(&w, exchange_type[c->far->o->exchange]);
	put_number(&w, 0, 1);
	put_number(&w, 0, 4);
	end(c, &w);
}

static void queue_declare(struct far_client *c)
{
	struct writer w;
	char name[16];
	size_t table;

	queue_name(c, name);
	begin(&w, 1, 50, 10);
	put_number(&w, 0, 2);
	put_short(&w, name);
	put_number(&w, 0, 1);
	table = w.len;
	put_number(&w, 0, 4);
	put_short(&w, "x-max-length");
	put(&w, "I", 1);
	put_number(&w, QUEUE_MAX_TICKS, 4);
	amqp_set_be32(w.buf + table, (uint32_t)(w.len - table - 4));
	end(c, &w);
}

static void queue_bind(struct far_client *c)
{
	static const char *const key[] = {
		[FAR_TOPIC] = "nyse.#", [FAR_DIRECT] = "nyse.sym000.trade", [FAR_FANOUT] = "", [FAR_HEADERS] = ""};
	struct writer w;
	char name[16];
	size_t table;

	queue_name(c, name);
	begin(&w, 1, 50, 20);
	put_number(&w, 0, 2);
	put_short(&w, name);
	put_short(&w, "ticks");
	put_short(&w, key[c->far->o->exchange]);
	put_number(&w, 0, 1);
	table = w.len;
	put_number(&w, 0, 4);
	if (c->far->o->exchange == FAR_HEADERS) {
		put_short(&w, "feed");
		put(&w, "S", 1);
		put_long(&w, "nyse", 4);
	}
	amqp_set_be32(w.buf + table, (uint32_t)(w.len - table - 4));
	end(c, &w);
}

static void basic_consume(struct far_client *c)
{
	struct writer w;
	char name[16];

	queue_name(c, name);
	begin(&w, 1, 60, 20);
	put_number(&w, 0, 2);
	put_short(&w, name);
	put_short(&w, "consumer");
	put_number(&w, c->far->o->acks == 0 ? 2 : 0, 1);
	put_number(&w, 0, 4);
	end(c, &w);
}

static void is_ready(struct far_client *c)
{
	c->ready = true;
	c->far->ready++;
}

static void after_channel(struct far_client *c)
{
	if (c->kind == FAR_PUBLISHER)
		exchange_declare(c);
	else if (c->kind == FAR_SUBSCRIBER)
		queue_declare(c);
	else
		is_ready(c);
}

/* ---- ticks ---- */

static void acknowledge(struct far_client *c)
{
	struct writer w;

	begin(&w, 1, 60, 80);
	put_number(&w, c->tag, 8);
	put_number(&w, c->far->o->acks > 1, 1);
	c->acked_tag = c->tag;
	end(c, &w);
}

/* One that was stalled finds the oldest ones dropped from its queue; nobody else does. */
static void on_tick(struct far_client *c, uint64_t tick)
{
	struct far *f = c->far;

	if (tick != c->next_tick && !(c->idx == 0 && tick > c->next_tick))
		fail(c, "a tick is missing or comes twice, out of order", tick);
	c->next_tick = tick + 1;
	f->deliveries++;
	if (tick == f->watched_tick) {
		f->last_at = f->frame_at;
		if (f->first_at == 0)
			f->first_at = f->frame_at;
		if (f->watched_count++ == 0)
			f->first_idx = c->idx;
		f->last_idx = c->idx;
	}
	if (f->o->acks != 0 && c->tag - c->acked_tag >= f->o->acks)
		acknowledge(c);
}

static void on_method(struct far_client *c, const uint8_t *p)
{
	const uint8_t *args = p + 4;

	switch (amqp_get_be16(p) * 1000u + amqp_get_be16(p + 2)) {
	case 10010:
		start_ok(c);
		break;
	case 10030:
		tune_ok(c, args);
		break;
	case 10041:
		channel_open(c);
		break;
	case 20011:
		after_channel(c);
		break;
	case 50011:
		queue_bind(c);
		break;
	case 50021:
		basic_consume(c);
		break;
	case 40011:
	case 60021:
		is_ready(c);
		break;
	case 60060:
		c->tag = amqp_get_be64(args + 1 + args[0]);
		break;
	default:
		fail(c, "a method that is not due", amqp_get_be16(p) * 1000u + amqp_get_be16(p + 2));
	}
}

static void on_frame(struct far_client *c, uint32_t payload_bytes)
{
	const uint8_t *p = c->seen + 7;

	switch (c->seen[0]) {
	case 1:
		on_method(c, p);
		break;
	case 2:
		c->body_bytes = amqp_get_be64(p + 4);
		break;
	case 3:
		if (payload_bytes != c->far->o->bytes || c->body_bytes != payload_bytes)
			fail(c, "a body of another length", payload_bytes);
		on_tick(c, amqp_get_be64(p));
		break;
	default:
		fail(c, "a frame of an unknown type", c->seen[0]);
	}
}

/* Takes some of a frame; of its bytes only the first are kept. */
static size_t take(struct far_client *c, const uint8_t *data, size_t len)
{
	size_t total = c->have < 7 ? 7 : (size_t)amqp_get_be32(c->seen + 3) + 8, n = total - c->have;

	if (n > len)
		n = len;
	if (c->have < SEEN_BYTES)
		memcpy(c->seen + c->have, data, n < SEEN_BYTES - c->have ? n : SEEN_BYTES - c->have);
	c->have += (uint32_t)n;
	if (total > 7 && c->have == total) {
		if (data[n - 1] != 0xce)
			fail(c, "a frame without its end", data[n - 1]);
		else
			on_frame(c, (uint32_t)total - 8);
		c->have = 0;
	}
	return n;
}

/* ---- what the stack calls ---- */

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct far_client *c = user;

	if (c->far->stalled && c->kind == FAR_SUBSCRIBER && c->idx == 0) {
		c->held = true;
		return 0;
	}
	for (size_t at = 0; at < len && c->far->why[0] == '\0';)
		at += take(c, data + at, len - at);
	return len;
}

static void on_connected(void *user)
{
	struct far_client *c = user;

	tcps_send(c->conn, "AMQP\0\0\x09\x01", 8);
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)ctx;
	(void)conn;
	(void)peer;
	(void)local_port;
	return NULL;
}

static void on_eof(void *user)
{
	fail(user, "the broker closes", 0);
}

static void on_writable(void *user)
{
	(void)user;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	struct far_client *c = user;

	c->conn = NULL;
	fail(c, tcps_reason_text(reason), 0);
}

static void release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

/* ---- what the bench calls ---- */

static void add_clients(struct far *f, enum far_kind kind, uint32_t count, uint32_t idx)
{
	for (uint32_t i = 0; i < count; i++)
		f->clients[f->clients_count++] = (struct far_client){.far = f, .kind = kind, .idx = idx + i};
}

bool far_init(struct far *f, const struct path_options *o, const struct tcps_ops *port, void *ctx, uint64_t now_ns)
{
	struct tcps_ops ops = {.tx_alloc = port->tx_alloc,
			       .tx_send = port->tx_send,
			       .on_accept = on_accept,
			       .on_connected = on_connected,
			       .on_data = on_data,
			       .on_eof = on_eof,
			       .on_writable = on_writable,
			       .on_closed = on_closed,
			       .release = release};
	uint32_t count = 1 + o->subscribers + o->idle;
	struct tcps_config cfg;

	*f = (struct far){.o = o, .now_ns = now_ns, .watched_tick = UINT64_MAX};
	host_config(&cfg, 1);
	cfg.conns_max = count;
	cfg.blocks_max = 1024 + 2 * count;
	cfg.recv_window_bytes = 256u << 10;
	cfg.send_high_water_bytes = 1u << 20;
	cfg.keepalive_ns = 0;
	cfg.tx_ip_cksum_offload = cfg.tx_tcp_cksum_offload = o->offload;
	f->clients = calloc(count, sizeof *f->clients);
	f->mem = aligned_alloc(64, tcps_mem_bytes(&cfg));
	if (f->clients == NULL || f->mem == NULL)
		return false;
	memset(f->mem, 0, tcps_mem_bytes(&cfg));
	f->t = tcps_init(f->mem, tcps_mem_bytes(&cfg), &cfg, &ops, ctx, now_ns);
	add_clients(f, FAR_PUBLISHER, 1, 0);
	add_clients(f, FAR_SUBSCRIBER, o->subscribers, 0);
	return f->t != NULL;
}

void far_fini(struct far *f)
{
	free(f->clients);
	free(f->mem);
}

void far_more_idle(struct far *f, uint32_t count)
{
	add_clients(f, FAR_IDLE, count, f->clients_count - 1 - f->o->subscribers);
}

bool far_set_up(struct far *f)
{
	static const struct tcps_endpoint broker = {.addr = {.family = 4, .bytes = {198, 18, 0, 1}}, .port = 5672};

	/* The publisher is first, alone: it declares the exchange. */
	while (f->started < f->clients_count && f->started - f->ready < (f->ready == 0 ? 1 : CONNECTING_MAX)) {
		struct far_client *c = &f->clients[f->started++];

		c->conn = tcps_connect(f->t, &broker, 0, c, f->now_ns);
		if (c->conn == NULL)
			fail(c, "its stack opens no connection", f->started);
	}
	return f->ready == f->clients_count;
}

/* One publish as a client library writes it: method, header with content type and delivery mode (and a header), body. */
static size_t put_publish(struct far *f, uint8_t *to, uint64_t tick, bool to_nobody)
{
	static const uint8_t props[] = "\x90\0\x0a"
				       "text/plain"
				       "\1";
	static const uint8_t props_headers[] = "\xb0\0\x0a"
					       "text/plain"
					       "\0\0\0\x0e\4feedS\0\0\0\4nyse"
					       "\1";
	bool headers = f->o->exchange == FAR_HEADERS;
	const uint8_t *p = headers ? props_headers : props;
	size_t bytes = headers ? sizeof props_headers - 1 : sizeof props - 1;
	char key[32];
	struct writer w;

	snprintf(key, sizeof key, "%s.sym%03u.trade", to_nobody ? "void" : "nyse",
		 f->o->exchange == FAR_DIRECT ? 0 : (unsigned)(tick % SYMBOLS));
	begin(&w, 1, 60, 40);
	put_number(&w, 0, 2);
	put_short(&w, "ticks");
	put_short(&w, key);
	put_number(&w, 0, 1);
	amqp_set_be32(w.buf + 3, (uint32_t)w.len - 7);
	put_number(&w, 0xce, 1);
	put_number(&w, 2, 1);
	put_number(&w, 1, 2);
	put_number(&w, 12 + bytes, 4);
	put_number(&w, 60, 2);
	put_number(&w, 0, 2);
	put_number(&w, f->o->bytes, 8);
	put(&w, p, bytes);
	put_number(&w, 0xce, 1);
	put_number(&w, 3, 1);
	put_number(&w, 1, 2);
	put_number(&w, f->o->bytes, 4);
	memcpy(to, w.buf, w.len);
	memset(to + w.len, 'x', f->o->bytes);
	amqp_set_be64(to + w.len, tick);
	to[w.len + f->o->bytes] = 0xce;
	return w.len + f->o->bytes + 1;
}

/* The burst before is with everybody who reads: only such bursts are counted. */
static void count_ranks(struct far *f)
{
	if (f->watched_count == f->o->subscribers) {
		f->clients[1 + f->first_idx].first_count++;
		f->clients[1 + f->last_idx].last_count++;
		f->watched_bursts++;
	}
	f->watched_count = 0;
}

void far_fairness(const struct far *f, struct far_fairness *out)
{
	uint32_t first = 0, last = 0;

	for (uint32_t i = 0; i < f->o->subscribers; i++) {
		const struct far_client *c = &f->clients[1 + i];

		first = c->first_count > first ? c->first_count : first;
		last = c->last_count > last ? c->last_count : last;
	}
	*out = (struct far_fairness){.bursts = f->watched_bursts};
	if (f->watched_bursts == 0)
		return;
	out->first = (double)first * f->o->subscribers / f->watched_bursts;
	out->last = (double)last * f->o->subscribers / f->watched_bursts;
}

void far_publish(struct far *f, uint32_t count, bool to_nobody)
{
	static uint8_t buf[512 + 65536];
	struct far_client *c = &f->clients[0];

	count_ranks(f);
	f->first_at = f->last_at = 0;
	f->watched_tick = to_nobody ? UINT64_MAX : f->tick;
	for (uint32_t i = 0; i < count; i++) {
		size_t len = put_publish(f, buf, to_nobody ? i : f->tick++, to_nobody);

		if (!tcps_send(c->conn, buf, len))
			fail(c, "its stack takes no more bytes", len);
		if (f->o->split)
			tcps_flush(f->t, f->now_ns);
	}
}

bool far_all_came(const struct far *f)
{
	for (uint32_t i = 0; i < f->o->subscribers; i++) {
		if (!(i == 0 && f->stalled) && f->clients[1 + i].next_tick != f->tick)
			return false;
	}
	return true;
}

void far_stall(struct far *f, bool stall)
{
	struct far_client *c = &f->clients[1];

	f->stalled = stall;
	if (!stall && c->held) {
		c->held = false;
		tcps_resume(c->conn);
	}
}
