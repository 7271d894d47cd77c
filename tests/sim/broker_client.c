/*
 * broker_client.c - the simulated AMQP clients.
 *
 * Owns: struct clients.
 * Core: tests only.
 * Spec: AMQP 0-9-1 sections 2.2, 4.2; see broker_client.h.
 */
#include "tests/sim/broker_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matcher/matcher.h"

#define MS 1000000ull

const char *const sim_exchange_name[SIM_EXCHANGES] = {"sim.direct", "sim.fanout", "sim.topic", "sim.headers"};
static const char *const sim_exchange_type[SIM_EXCHANGES] = {"direct", "fanout", "topic", "headers"};
static const char *const words[] = {"a", "b", "c", ""};

static void fail(struct clients *cs, const struct client *c, const char *what, uint64_t n)
{
	if (cs->why[0] == '\0')
		snprintf(cs->why, sizeof cs->why, "%s %u: %s (%llu)", c->publisher ? "publisher" : "consumer", c->idx, what,
			 (unsigned long long)n);
}

/* ---- frames out: gathered in c->out, given to TCP as it takes them ---- */

static void put(struct client *c, const void *bytes, size_t len)
{
	if (c->out_len + len > c->out_cap) {
		c->out_cap = (c->out_len + len) * 2;
		c->out = realloc(c->out, c->out_cap);
		if (c->out == NULL)
			abort();
	}
	memcpy(c->out + c->out_len, bytes, len);
	c->out_len += len;
}

static void put8(struct client *c, unsigned v)
{
	put(c, &(uint8_t){(uint8_t)v}, 1);
}

static void put16(struct client *c, unsigned v)
{
	put8(c, v >> 8);
	put8(c, v);
}

static void put32(struct client *c, uint32_t v)
{
	put16(c, v >> 16);
	put16(c, v & 0xffff);
}

static void put64(struct client *c, uint64_t v)
{
	put32(c, (uint32_t)(v >> 32));
	put32(c, (uint32_t)v);
}

static void put_text(struct client *c, const char *s)
{
	put8(c, (unsigned)strlen(s));
	put(c, s, strlen(s));
}

static size_t begin(struct client *c, unsigned type, unsigned channel)
{
	put8(c, type);
	put16(c, channel);
	put32(c, 0);
	return c->out_len;
}

static size_t begin_method(struct client *c, unsigned channel, unsigned class_id, unsigned method_id)
{
	size_t at = begin(c, 1, channel);

	put16(c, class_id);
	put16(c, method_id);
	return at;
}

static void set32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void end(struct client *c, size_t at)
{
	set32(c->out + at - 4, (uint32_t)(c->out_len - at));
	put8(c, 0xce);
}

static void push_out(struct client *c)
{
	size_t at = 0;

	while (c->conn != NULL && at < c->out_len) {
		size_t n = c->out_len - at < 4000 ? c->out_len - at : 4000;

		if (tcps_unsent(c->conn) > 60000 || !tcps_send(c->conn, c->out + at, n))
			break;
		at += n;
	}
	if (at == 0)
		return;
	memmove(c->out, c->out + at, c->out_len - at);
	c->out_len -= at;
}

/* ---- what is bound, published and expected ---- */

static void random_key(struct net *n, char *key, size_t cap, bool pattern)
{
	unsigned count = (unsigned)net_below(n, 4);

	key[0] = '\0';
	for (unsigned i = 0; i <= count; i++) {
		const char *word = words[net_below(n, 4)];

		if (pattern && net_chance(n, 3000))
			word = net_chance(n, 5000) ? "*" : "#";
		snprintf(key + strlen(key), cap - strlen(key), "%s%s", i == 0 ? "" : ".", word);
	}
}

static void choose_bindings(struct client *c)
{
	struct net *n = c->all->net;

	c->bindings_count = 1 + (unsigned)net_below(n, BINDINGS_MAX);
	for (unsigned i = 0; i < c->bindings_count; i++) {
		struct client_binding *b = &c->bindings[i];

		b->exchange = (enum sim_exchange)net_below(n, SIM_EXCHANGES);
		random_key(n, b->key, sizeof b->key, b->exchange == SIM_TOPIC);
		b->any = net_chance(n, 5000);
		for (unsigned h = 0; h < 2; h++)
			b->want[h] = net_chance(n, 3000) ? 255 : (uint8_t)net_below(n, 2);
	}
}

static bool headers_match(const struct client_binding *b, const uint8_t have[2])
{
	unsigned named = 0, equal = 0;

	for (unsigned h = 0; h < 2; h++) {
		named += b->want[h] != 255;
		equal += b->want[h] != 255 && b->want[h] == have[h];
	}
	return b->any ? equal != 0 : equal == named;
}

static bool binding_matches(const struct client_binding *b, enum sim_exchange x, const char *key, const uint8_t headers[2])
{
	if (b->exchange != x)
		return false;
	switch (x) {
	case SIM_FANOUT:
		return true;
	case SIM_DIRECT:
		return strcmp(b->key, key) == 0;
	case SIM_TOPIC:
		return match_oracle(MATCH_TOPIC, (const uint8_t *)b->key, strlen(b->key), (const uint8_t *)key, strlen(key));
	default:
		return headers_match(b, headers);
	}
}

static void expect(struct clients *cs, unsigned publisher, uint32_t seq, enum sim_exchange x, const char *key,
		   const uint8_t headers[2])
{
	for (unsigned i = 0; i < cs->count; i++) {
		const struct client *c = &cs->client[i];

		if (c->publisher)
			continue;
		for (unsigned k = 0; k < c->bindings_count; k++) {
			if (binding_matches(&c->bindings[k], x, key, headers)) {
				cs->ledger[c->idx][publisher][seq] = LEDGER_DUE;
				cs->due++;
				break;
			}
		}
	}
}

static uint8_t body_byte(unsigned publisher, uint32_t seq, uint64_t at)
{
	return (uint8_t)(publisher * 101 + seq * 31 + at * 7 + at / 251);
}

static void publish(struct client *c)
{
	struct clients *cs = c->all;
	struct net *n = cs->net;
	enum sim_exchange x = (enum sim_exchange)net_below(n, SIM_EXCHANGES);
	uint8_t headers[2] = {(uint8_t)net_below(n, 3), (uint8_t)net_below(n, 3)};
	uint32_t size = 8 + (uint32_t)net_spread(n, 0, net_chance(n, 500) ? 20000 : 300), got = 0;
	uint32_t seq = c->published++;
	char key[32];
	size_t at;

	random_key(n, key, sizeof key, false);
	expect(cs, c->idx, seq, x, key, headers);
	at = begin_method(c, 1, 60, 40);
	put16(c, 0);
	put_text(c, sim_exchange_name[x]);
	put_text(c, key);
	put8(c, 0);
	end(c, at);
	at = begin(c, 2, 1);
	put16(c, 60);
	put16(c, 0);
	put64(c, size);
	put16(c, 1u << 13); /* headers */
	put32(c, 2 * (1 + 2 + 1 + 4));
	for (unsigned h = 0; h < 2; h++) {
		put_text(c, h == 0 ? "h0" : "h1");
		put8(c, 'I');
		put32(c, headers[h]);
	}
	end(c, at);
	while (got < size) {
		uint32_t chunk = 1 + (uint32_t)net_below(n, size - got), most = c->server_frame_max - 8;

		if (chunk > most)
			chunk = most;
		at = begin(c, 3, 1);
		for (uint32_t i = got; i < got + chunk; i++) {
			uint8_t fixed[8] = {(uint8_t)c->idx,     0,           0, 0, (uint8_t)(seq >> 24), (uint8_t)(seq >> 16),
					    (uint8_t)(seq >> 8), (uint8_t)seq};

			put8(c, i < 8 ? fixed[i] : body_byte(c->idx, seq, i));
		}
		end(c, at);
		got += chunk;
	}
}

/* ---- the consumer's account ---- */

static void came(struct client *c)
{
	struct clients *cs = c->all;
	uint32_t seq;
	unsigned p = c->body[0];

	seq = (uint32_t)c->body[4] << 24 | (uint32_t)c->body[5] << 16 | (uint32_t)c->body[6] << 8 | c->body[7];
	if (c->body_size < 8 || p >= cs->publishers || seq >= MESSAGES_MAX) {
		fail(cs, c, "a message that nobody published", seq);
		return;
	}
	for (uint64_t i = 8; i < c->body_size; i++) {
		if (c->body[i] != body_byte(p, seq, i)) {
			fail(cs, c, "a body differs from what was published, message", seq);
			return;
		}
	}
	switch (cs->ledger[c->idx][p][seq]) {
	case LEDGER_NONE:
		fail(cs, c, "a message that no binding of this queue matches", seq);
		return;
	case LEDGER_DUE:
		cs->ledger[c->idx][p][seq] = LEDGER_CAME;
		cs->came++;
		break;
	default:
		cs->duplicates++;
		if (!c->redelivered)
			fail(cs, c, "a second delivery that does not say redelivered, message", seq);
	}
	cs->redelivered += c->redelivered;
	if (c->redelivered)
		return;
	if ((int64_t)seq <= cs->last_fresh[c->idx][p])
		fail(cs, c, "out of order, message", seq);
	cs->last_fresh[c->idx][p] = seq;
}

static void settle(struct client *c, bool nack)
{
	size_t at = begin_method(c, 1, 60, nack ? 120 : 80);

	put64(c, c->last_tag);
	put8(c, nack ? 3 : 1); /* multiple; requeue */
	end(c, at);
	c->acked_tag = c->last_tag;
}

/* ---- set-up: one request after the other ---- */

static void declare_exchange(struct client *c, unsigned x)
{
	size_t at = begin_method(c, 1, 40, 10);

	put16(c, 0);
	put_text(c, sim_exchange_name[x]);
	put_text(c, sim_exchange_type[x]);
	put8(c, 0);
	put32(c, 0);
	end(c, at);
}

static void queue_name(const struct client *c, char *name, size_t cap)
{
	snprintf(name, cap, "sim.q%u", c->idx);
}

static void bind(struct client *c, const struct client_binding *b)
{
	char name[16];
	size_t at, table;

	queue_name(c, name, sizeof name);
	at = begin_method(c, 1, 50, 20);
	put16(c, 0);
	put_text(c, name);
	put_text(c, sim_exchange_name[b->exchange]);
	put_text(c, b->key);
	put8(c, 0);
	put32(c, 0);
	table = c->out_len;
	if (b->exchange == SIM_HEADERS) {
		put_text(c, "x-match");
		put8(c, 'S');
		put32(c, 3);
		put(c, b->any ? "any" : "all", 3);
		for (unsigned h = 0; h < 2; h++) {
			if (b->want[h] == 255)
				continue;
			put_text(c, h == 0 ? "h0" : "h1");
			put8(c, h == 0 ? 'l' : 'b'); /* equal by value, whatever the width */
			if (h == 0)
				put64(c, b->want[h]);
			else
				put8(c, b->want[h]);
		}
	}
	set32(c->out + table - 4, (uint32_t)(c->out_len - table));
	end(c, at);
}

static void consume(struct client *c)
{
	char name[16];
	size_t at;

	queue_name(c, name, sizeof name);
	at = begin_method(c, 1, 60, 20);
	put16(c, 0);
	put_text(c, name);
	put_text(c, "tag");
	put8(c, c->no_ack ? 2 : 0);
	put32(c, 0);
	end(c, at);
}

static void declare_queue(struct client *c)
{
	char name[16];
	size_t at;

	queue_name(c, name, sizeof name);
	at = begin_method(c, 1, 50, 10);
	put16(c, 0);
	put_text(c, name);
	put8(c, 0);
	put32(c, 0);
	end(c, at);
}

static void next_step(struct client *c)
{
	unsigned s = c->step++;
	size_t at;

	if (s < SIM_EXCHANGES) {
		declare_exchange(c, s);
	} else if (c->publisher) {
		if (s == SIM_EXCHANGES) {
			at = begin_method(c, 1, 85, 10);
			put8(c, 0);
			end(c, at);
		} else {
			c->state = CLIENT_READY;
		}
	} else if (s == SIM_EXCHANGES) {
		declare_queue(c);
	} else if (s <= SIM_EXCHANGES + c->bindings_count) {
		bind(c, &c->bindings[s - SIM_EXCHANGES - 1]);
	} else if (s == SIM_EXCHANGES + c->bindings_count + 1) {
		at = begin_method(c, 1, 60, 10);
		put32(c, 0);
		put16(c, c->prefetch);
		put8(c, 0);
		end(c, at);
	} else if (s == SIM_EXCHANGES + c->bindings_count + 2) {
		consume(c);
	} else {
		c->state = CLIENT_READY;
	}
}

/* ---- frames in ---- */

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

static void start_ok(struct client *c)
{
	static const char response[] = "\0guest\0guest";
	size_t at = begin_method(c, 0, 10, 11);

	put32(c, 0);
	put_text(c, "PLAIN");
	put32(c, sizeof response - 1);
	put(c, response, sizeof response - 1);
	put_text(c, "en_US");
	end(c, at);
}

static void tune_ok(struct client *c, const uint8_t *args)
{
	size_t at;

	c->server_frame_max = net_chance(c->all->net, 5000) ? 4096 : (uint32_t)get(args + 2, 4);
	at = begin_method(c, 0, 10, 31);
	put16(c, (unsigned)get(args, 2));
	put32(c, c->server_frame_max);
	put16(c, 0);
	end(c, at);
	at = begin_method(c, 0, 10, 40);
	put_text(c, "/");
	put8(c, 0);
	put8(c, 0);
	end(c, at);
}

static void on_confirm(struct client *c, const uint8_t *args, bool nack)
{
	uint64_t tag = get(args, 8);

	if (nack)
		fail(c->all, c, "a publish was nacked, tag", tag);
	if (tag > c->published || tag <= c->confirmed || (!(args[8] & 1) && tag != c->confirmed + 1))
		fail(c->all, c, "a confirm out of order, tag", tag);
	c->confirmed = (uint32_t)tag;
}

static void on_method(struct client *c, unsigned class_id, unsigned method_id, const uint8_t *args)
{
	size_t at;

	switch (class_id * 1000 + method_id) {
	case 10010:
		start_ok(c);
		break;
	case 10030:
		tune_ok(c, args);
		break;
	case 10041:
		at = begin_method(c, 1, 20, 10);
		put8(c, 0);
		end(c, at);
		break;
	case 10050:
	case 20040:
		fail(c->all, c, (const char *)args + 3, get(args, 2));
		break;
	case 10051:
		tcps_shutdown(c->conn);
		break;
	case 60060:
		at = 1u + args[0];
		c->tag = get(args + at, 8);
		c->redelivered = args[at + 8] & 1;
		if (c->tag != c->last_tag + 1)
			fail(c->all, c, "a delivery tag out of sequence", c->tag);
		break;
	case 60080:
	case 60120:
		on_confirm(c, args, method_id == 120);
		break;
	case 20011:
	case 40011:
	case 50011:
	case 50021:
	case 60011:
	case 60021:
	case 85011:
		next_step(c);
		break;
	default:
		fail(c->all, c, "an unexpected method", class_id * 1000 + method_id);
	}
}

static void content_complete(struct client *c)
{
	came(c);
	c->last_tag = c->tag; /* not before: what is acknowledged is gone from the broker */
	free(c->body);
	c->body = NULL;
}

static void on_frame(struct client *c, unsigned type, const uint8_t *p, size_t len)
{
	if (type == 1) {
		on_method(c, (unsigned)get(p, 2), (unsigned)get(p + 2, 2), p + 4);
	} else if (type == 2) {
		c->body_size = get(p + 4, 8);
		c->body_got = 0;
		c->body = calloc(1, c->body_size + 8);
		if (c->body_size == 0)
			content_complete(c);
	} else if (type == 3) {
		if (c->body == NULL || c->body_got + len > c->body_size || len + 8 > c->server_frame_max) {
			fail(c->all, c, "a body frame that is too long or has no header, bytes", len);
			return;
		}
		memcpy(c->body + c->body_got, p, len);
		c->body_got += len;
		if (c->body_got == c->body_size)
			content_complete(c);
	} else {
		fail(c->all, c, "an unexpected frame type", type);
	}
}

static void parse(struct client *c)
{
	size_t at = 0;

	while (c->conn != NULL && c->all->why[0] == '\0' && c->in_len - at >= 8) {
		size_t len = get(c->in + at + 3, 4);

		if (c->in_len - at < len + 8)
			break;
		if (c->in[at + 7 + len] != 0xce)
			fail(c->all, c, "a frame without frame-end, bytes", len);
		else
			on_frame(c, c->in[at], c->in + at + 7, len);
		at += len + 8;
	}
	if (at == 0)
		return;
	memmove(c->in, c->in + at, c->in_len - at);
	c->in_len -= at;
}

/* ---- TCP's callbacks ---- */

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct client *c = user;

	if (c->all->now_ns < c->stalled_until_ns) {
		c->held_back = true;
		return 0;
	}
	if (c->in_len + len > c->in_cap) {
		c->in_cap = (c->in_len + len) * 2;
		c->in = realloc(c->in, c->in_cap);
		if (c->in == NULL)
			abort();
	}
	memcpy(c->in + c->in_len, data, len);
	c->in_len += len;
	parse(c);
	return len;
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)ctx;
	(void)conn;
	(void)peer;
	(void)local_port;
	return NULL;
}

static void on_connected(void *user)
{
	struct client *c = user;

	c->state = CLIENT_SETUP;
	put(c, "AMQP\0\0\x09\x01", 8);
	push_out(c);
}

static void on_eof(void *user)
{
	struct client *c = user;

	tcps_shutdown(c->conn);
}

static void on_writable(void *user)
{
	push_out(user);
}

static void forget_connection(struct client *c)
{
	c->conn = NULL;
	c->in_len = c->out_len = 0;
	c->step = 0;
	c->last_tag = c->acked_tag = 0;
	c->held_back = false;
	c->stalled_until_ns = 0;
	free(c->body);
	c->body = NULL;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	struct client *c = user;
	bool wanted = c->state == CLIENT_CLOSING;

	forget_connection(c);
	c->state = wanted ? CLIENT_DONE : CLIENT_DOWN;
	if (!wanted && reason != TCPS_CLOSED_ABORTED)
		fail(c->all, c, tcps_reason_text(reason), 0);
	c->connect_at_ns = c->all->now_ns + net_spread(c->all->net, 0, 200 * MS);
}

static void release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

/* ---- life ---- */

void clients_init(struct clients *cs, struct net *net, uint64_t now_ns)
{
	static const struct tcps_ops ops = {.on_accept = on_accept,
					    .on_connected = on_connected,
					    .on_data = on_data,
					    .on_eof = on_eof,
					    .on_writable = on_writable,
					    .on_closed = on_closed,
					    .release = release};
	struct tcps_config cfg;

	memset(cs, 0, sizeof *cs);
	cs->net = net;
	cs->now_ns = now_ns;
	host_config(&cfg, 1);
	cfg.msl_ns = 1000 * MS;
	cfg.retransmits_max = 30;
	cfg.recv_window_bytes = (uint32_t)net_spread(net, 3000, 65535);
	host_init(&cs->host, net, 1, &cfg, &ops, now_ns);
	cs->host.app = cs;
	cs->publishers = 1 + (unsigned)net_below(net, PUBLISHERS_MAX);
	cs->consumers = 1 + (unsigned)net_below(net, CLIENTS_MAX - cs->publishers);
	cs->count = cs->publishers + cs->consumers;
	for (unsigned i = 0; i < cs->count; i++) {
		struct client *c = &cs->client[i];

		c->all = cs;
		c->publisher = i < cs->publishers;
		c->idx = c->publisher ? i : i - cs->publishers;
		c->connect_at_ns = now_ns + net_spread(net, 0, 50 * MS);
		c->to_publish = (uint32_t)net_below(net, MESSAGES_MAX) + 1;
		c->no_ack = net_chance(net, 3000);
		c->prefetch = net_chance(net, 5000) ? 0 : (uint16_t)(1 + net_below(net, 20));
		c->aborts_left = c->no_ack ? 0 : (uint32_t)net_below(net, 3);
		c->nacks_left = (uint32_t)net_below(net, 4);
		c->stall_left = (uint32_t)net_below(net, 3);
		if (!c->publisher)
			choose_bindings(c);
		for (unsigned p = 0; p < PUBLISHERS_MAX; p++)
			cs->last_fresh[i][p] = -1;
	}
}

void clients_fini(struct clients *cs)
{
	for (unsigned i = 0; i < cs->count; i++) {
		free(cs->client[i].in);
		free(cs->client[i].out);
		free(cs->client[i].body);
	}
	host_fini(&cs->host);
}

static void connect_now(struct client *c)
{
	static const struct tcps_endpoint broker = {.addr = {.family = 4, .bytes = {198, 18, 0, 1}}, .port = 5672};

	c->conn = tcps_connect(c->all->host.t, &broker, 0, c, c->all->now_ns);
	if (c->conn != NULL)
		c->state = CLIENT_CONNECTING;
	else
		c->connect_at_ns = c->all->now_ns + 100 * MS;
}

static void act_consumer(struct client *c)
{
	struct clients *cs = c->all;
	struct net *n = cs->net;
	bool idle = c->last_tag == c->acked_tag;

	if (c->aborts_left > 0 && clients_set_up(cs) && net_chance(n, 200)) {
		c->aborts_left--;
		cs->aborts++;
		tcps_abort(c->conn);
		return;
	}
	if (c->stall_left > 0 && net_chance(n, 200)) {
		c->stall_left--;
		c->stalled_until_ns = cs->now_ns + net_spread(n, MS, 2000 * MS);
		return;
	}
	if (c->no_ack || idle || cs->now_ns < c->stalled_until_ns)
		return;
	if (c->nacks_left > 0 && net_chance(n, 1000)) {
		c->nacks_left--;
		settle(c, true);
	} else if (net_chance(n, 5000)) {
		settle(c, false);
	}
}

static void act(struct client *c)
{
	struct clients *cs = c->all;

	if (c->held_back && cs->now_ns >= c->stalled_until_ns) {
		c->held_back = false;
		tcps_resume(c->conn);
		if (c->conn == NULL)
			return;
	}
	if (c->state == CLIENT_READY && c->publisher && clients_set_up(cs)) {
		for (unsigned i = 0; i < 4 && c->published < c->to_publish && c->out_len < 30000; i++)
			publish(c);
	} else if (c->state == CLIENT_READY && !c->publisher) {
		act_consumer(c);
	}
	if (c->conn == NULL)
		return;
	if (cs->closing && c->state == CLIENT_READY) {
		size_t at;

		if (!c->publisher && !c->no_ack && c->last_tag != c->acked_tag)
			settle(c, false);
		at = begin_method(c, 0, 10, 50);
		put16(c, 200);
		put_text(c, "bye");
		put32(c, 0);
		end(c, at);
		c->state = CLIENT_CLOSING;
	}
	push_out(c);
}

uint64_t clients_act(struct clients *cs, uint64_t now_ns)
{
	uint64_t next = UINT64_MAX;

	cs->now_ns = cs->host.now_ns = now_ns;
	for (unsigned i = 0; i < cs->count; i++) {
		struct client *c = &cs->client[i];

		if (c->state == CLIENT_DONE)
			continue;
		if (c->state == CLIENT_DOWN) {
			if (now_ns >= c->connect_at_ns)
				connect_now(c);
			else if (c->connect_at_ns < next)
				next = c->connect_at_ns;
		} else if (now_ns >= c->act_at_ns) {
			if (c->conn != NULL)
				act(c);
			c->act_at_ns = now_ns + net_spread(cs->net, MS / 10, 20 * MS);
		}
		if (c->state != CLIENT_DOWN && c->state != CLIENT_DONE && c->act_at_ns < next)
			next = c->act_at_ns;
	}
	return next;
}

bool clients_set_up(const struct clients *cs)
{
	for (unsigned i = 0; i < cs->count; i++) {
		const struct client *c = &cs->client[i];

		/* One that lost its connection has its queue and bindings all the same. */
		if (!c->publisher && c->state != CLIENT_READY && cs->due == 0)
			return false;
	}
	return true;
}

bool clients_delivered(const struct clients *cs)
{
	for (unsigned i = 0; i < cs->count; i++) {
		const struct client *c = &cs->client[i];

		if (c->state != CLIENT_READY)
			return false;
		if (c->publisher && (c->published < c->to_publish || c->confirmed < c->published))
			return false;
		if (!c->publisher && !c->no_ack && c->last_tag != c->acked_tag)
			return false;
	}
	return cs->came == cs->due;
}

bool clients_done(const struct clients *cs)
{
	for (unsigned i = 0; i < cs->count; i++) {
		if (cs->client[i].state != CLIENT_DONE)
			return false;
	}
	return true;
}
