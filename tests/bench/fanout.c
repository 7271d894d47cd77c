/*
 * fanout.c - the cost of a tick inside the AMQP machine alone: one publisher, N consumers, a transport that swallows everything.
 *
 * Owns: a broker on one core, driven by bytes as a connection would bring them.
 * Core: bench; prints nanoseconds, and under callgrind the instructions between the toggles tell the same without noise:
 *   valgrind --tool=callgrind --collect-atstart=no --toggle-collect=publish_ticks build/bench/fanout --consumers 50 --ticks 2000
 * Spec: DESIGN section 3 (the walk of a tick).
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "amqp/front.h"
#include "amqp/wire.h"

enum { NAME_MAX_BYTES = 32, BURST = 32 };

struct sink { /* a connection's transport: one buffer, written over and over */
	uint8_t buf[AMQP_RESERVE_MAX];
	uint64_t bytes;
	void *owners[64];
	uint32_t owners_count;
};

static struct amqp_broker *broker;

static uint8_t *io_reserve(void *io, size_t len)
{
	(void)len;
	return ((struct sink *)io)->buf;
}

static void io_commit(void *io, size_t len)
{
	((struct sink *)io)->bytes += len;
}

static bool io_send(void *io, const void *data, size_t len)
{
	struct sink *s = io;

	memcpy(s->buf, data, len < sizeof s->buf ? len : sizeof s->buf);
	s->bytes += len;
	return true;
}

static bool io_send_ref(void *io, const void *data, size_t len, void *owner)
{
	struct sink *s = io;

	(void)data;
	s->bytes += len;
	s->owners[s->owners_count++] = owner;
	return true;
}

static bool io_has_room(void *io, size_t bytes, size_t refs)
{
	(void)io;
	(void)bytes;
	(void)refs;
	return true;
}

static bool io_writable(void *io)
{
	(void)io;
	return true;
}

static void io_nothing(void *io)
{
	(void)io;
}

static bool on_request(void *ctx, const struct amqp_record *rec)
{
	(void)ctx;
	(void)rec;
	return true;
}

static const struct amqp_ops ops = {.reserve = io_reserve,
				    .commit = io_commit,
				    .send = io_send,
				    .send_ref = io_send_ref,
				    .has_room = io_has_room,
				    .writable = io_writable,
				    .admitted = io_nothing,
				    .resume = io_nothing,
				    .shutdown = io_nothing,
				    .abort = io_nothing,
				    .request = on_request};

static void die(const char *what)
{
	fprintf(stderr, "fanout: %s\n", what);
	exit(1);
}

static struct amqp_span text(const char *s)
{
	return (struct amqp_span){(const uint8_t *)s, (uint32_t)strlen(s)};
}

static void apply(struct amqp_record rec)
{
	rec.str[1] = text("/");
	if (!amqp_apply(broker, &rec))
		die("an operation was refused");
}

static size_t put_frame(uint8_t *p, uint8_t type, const void *payload, size_t len)
{
	p[0] = type;
	amqp_set_be16(p + 1, 1);
	amqp_set_be32(p + 3, (uint32_t)len);
	memcpy(p + 7, payload, len);
	p[7 + len] = 0xce;
	return len + 8;
}

static size_t put_names(uint8_t *p, const char *one, const char *two)
{
	size_t a = strlen(one), b = strlen(two);

	p[0] = (uint8_t)a;
	memcpy(p + 1, one, a);
	p[1 + a] = (uint8_t)b;
	memcpy(p + 2 + a, two, b);
	return 2 + a + b;
}

/* A connection past connection.open, with channel 1. */
static struct amqp_conn *connect_one(void)
{
	struct sink *s = calloc(1, sizeof *s);
	struct amqp_conn *c = s != NULL ? amqp_conn_accept(broker, s, "198.18.0.1", 40000, 5672) : NULL;
	uint8_t f[64];

	if (c == NULL)
		die("no connection");
	amqp_conn_input(c, (const uint8_t *)"AMQP\0\0\x09\x01", 8);
	c->state = AMQP_CONN_RUNNING;
	c->vhost = text("/");
	c->user = text("guest");
	c->frame_max = 131072;
	c->channel_max = 2047;
	amqp_conn_input(c, f, put_frame(f, 1, "\0\x14\0\x0a\0", 5));
	return c;
}

static void consume(struct amqp_conn *c, const char *queue, bool no_ack)
{
	uint8_t payload[128] = {0, 60, 0, 20}, f[160];
	size_t n = 6 + put_names(payload + 6, queue, "consumer");

	payload[n++] = (uint8_t)(8 | (no_ack ? 2 : 0));
	memset(payload + n, 0, 4);
	amqp_conn_input(c, f, put_frame(f, 1, payload, n + 4));
}

/* One publish as a client library writes it: method, header with content type and delivery mode, body. */
static size_t put_publish(uint8_t *p, unsigned symbol, size_t body_bytes)
{
	static uint8_t body[65536];
	uint8_t payload[128] = {0, 60, 0, 40};
	static const uint8_t props[] = "\x90\0\x0a"
				       "text/plain"
				       "\1";
	char key[NAME_MAX_BYTES];
	size_t n, at;

	snprintf(key, sizeof key, "nyse.sym%03u.trade", symbol);
	n = 6 + put_names(payload + 6, "ticks", key);
	payload[n++] = 0;
	at = put_frame(p, 1, payload, n);
	memset(payload, 0, 12);
	payload[1] = 60;
	amqp_set_be64(payload + 4, body_bytes);
	memcpy(payload + 12, props, sizeof props - 1);
	at += put_frame(p + at, 2, payload, 12 + sizeof props - 1);
	return at + put_frame(p + at, 3, body, body_bytes);
}

static void drop_refs(uint32_t conns)
{
	for (uint32_t i = 0; i < conns; i++) {
		struct sink *s = broker->conns[i].io;

		while (s->owners_count != 0)
			amqp_release(broker, s->owners[--s->owners_count]);
	}
}

/* Not inlined: callgrind collects between its entry and its return. */
void publish_ticks(struct amqp_conn *p, const uint8_t *stream, size_t burst_bytes, uint64_t bursts, uint32_t conns);
__attribute__((noinline)) void publish_ticks(struct amqp_conn *p, const uint8_t *stream, size_t burst_bytes, uint64_t bursts,
					     uint32_t conns)
{
	for (uint64_t i = 0; i < bursts; i++) {
		if (amqp_conn_input(p, stream, burst_bytes) != burst_bytes)
			die("the broker left bytes");
		amqp_burst_end(broker);
		drop_refs(conns);
	}
}

static void ack_all(uint32_t conns)
{
	static const uint8_t ack[] = {1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xce};

	for (uint32_t i = 1; i < conns; i++)
		amqp_conn_input(&broker->conns[i], ack, sizeof ack);
}

static void make_broker(void)
{
	struct amqp_limits l;
	const char *err = "no memory";
	size_t bytes;
	void *mem;

	amqp_limits_default(&l);
	memcpy(l.secret, "0123456789abcdef", 16);
	bytes = (amqp_broker_bytes(&l) + 63) & ~(size_t)63;
	mem = aligned_alloc(64, bytes);
	if (mem != NULL) {
		memset(mem, 0, bytes);
		broker = amqp_broker_init(mem, bytes, &l, &ops, NULL, &err);
	}
	if (broker == NULL)
		die(err);
	amqp_set_now(broker, 1000000000, 1700000000);
	amqp_control_attached(broker);
}

static void run(uint32_t consumers, uint64_t ticks, size_t body_bytes, bool no_ack)
{
	static uint8_t stream[BURST * 66000];
	struct amqp_conn *p;
	struct timespec from, to;
	size_t bytes = 0;
	uint64_t bursts = ticks / BURST, deliveries, before;
	double ns;

	apply((struct amqp_record){.kind = AMQP_OP_EXCHANGE_ADD, .id = 0, .code = AMQP_TOPIC, .str = {text("ticks")}});
	p = connect_one();
	for (uint32_t i = 0; i < consumers; i++) {
		char name[NAME_MAX_BYTES];

		snprintf(name, sizeof name, "feed.%u", i);
		apply((struct amqp_record){.kind = AMQP_OP_QUEUE_ADD, .id = i, .str = {text(name)}});
		apply((struct amqp_record){
			.kind = AMQP_OP_BIND_ADD, .id = i, .id2 = 0, .id3 = i, .id4 = 1, .str = {text("nyse.#")}});
		consume(connect_one(), name, no_ack);
	}
	for (unsigned i = 0; i < BURST; i++)
		bytes += put_publish(stream + bytes, i, body_bytes);
	publish_ticks(p, stream, bytes, 1, consumers + 1); /* routes are cached from now on */
	if (!no_ack)
		ack_all(consumers + 1);
	before = amqp_counters(broker)[AMQP_CNT_deliveries];
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (no_ack)
		publish_ticks(p, stream, bytes, bursts, consumers + 1);
	else
		for (uint64_t i = 0; i < bursts; i++) {
			publish_ticks(p, stream, bytes, 1, consumers + 1);
			ack_all(consumers + 1);
		}
	clock_gettime(CLOCK_MONOTONIC, &to);
	deliveries = amqp_counters(broker)[AMQP_CNT_deliveries] - before;
	ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
	if (deliveries != bursts * BURST * consumers)
		die("a delivery is missing");
	printf("%u consumers (%s), %zu-byte body: %.0f ns a publish, %.1f ns a delivery, %llu deliveries\n", consumers,
	       no_ack ? "no-ack" : "ack", body_bytes, ns / (double)(bursts * BURST), ns / (double)deliveries,
	       (unsigned long long)deliveries);
}

int main(int argc, char **argv)
{
	uint32_t consumers = 50;
	uint64_t ticks = 200000;
	size_t body = 64;
	bool no_ack = true;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--ack") == 0)
			no_ack = false;
		else if (i + 1 < argc && strcmp(argv[i], "--consumers") == 0)
			consumers = (uint32_t)strtoul(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--ticks") == 0)
			ticks = strtoull(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--body") == 0)
			body = strtoull(argv[++i], NULL, 10);
		else
			die("usage: fanout [--consumers N] [--ticks N] [--body BYTES] [--ack]");
	}
	if (consumers == 0 || consumers > 2000 || ticks < BURST || body > 65536)
		die("1 to 2000 consumers, 32 ticks or more, a body of up to 65536 bytes");
	make_broker();
	run(consumers, ticks, body, no_ack);
	return 0;
}
