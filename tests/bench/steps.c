/*
 * steps.c - the longest step of what a worker does beside ticks: a turn of the AMQP machine, or one operation of control, in
 * cycles.
 *
 * Owns: worlds with very many of everything, one after the other.
 * Core: a measuring aid, one thread; asserts no time.
 * Spec: DESIGN section 3: nothing but ticks takes a worker longer than 5 us between two polls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <x86intrin.h>

#include <cmocka.h>

#include "matcher/matcher.h"
#include "tcpstack/wheel.h"
#include "tests/unit/amqp_back_kit.h"

#define RUNS      3u
#define STEPS_MAX 65536u
#define MANY      5000u
#define CHANNELS  200u
#define RULES     500u /* compiling more takes long; a step is the same */

static struct bk k;
static uint8_t *image; /* compiled once */
static size_t image_bytes;
/* Each run does the same steps: of each the best run counts, for in the others it may have been interrupted. */
static uint64_t best[STEPS_MAX];
static uint32_t steps, turns;

static void span(uint64_t from)
{
	uint64_t cycles = __rdtsc() - from;

	if (steps == STEPS_MAX)
		return;
	best[steps] = cycles < best[steps] ? cycles : best[steps];
	steps++;
}

/* Turns without anything to receive, until nothing is left to do. */
static void settle(void)
{
	bool more = true;

	for (turns = 0; more && turns < 1000000; turns++) {
		uint64_t from;

		k.now_ns += 2000;
		amqp_set_now(k.b, k.now_ns, 1700000000);
		from = __rdtsc();
		more = amqp_tick(k.b) | amqp_burst_end(k.b);
		span(from);
	}
}

static void timed(const struct amqp_record *rec)
{
	uint64_t from = __rdtsc();

	amqp_apply(k.b, rec);
	span(from);
}

static void start(void)
{
	struct amqp_limits l;

	bk_limits(&l);
	l.channels_max = 4096;
	l.consumers_max = MANY;
	l.queues_max = MANY;
	l.bindings_max = l.rules_max = MANY;
	l.entries_max = 2 * MANY;
	l.rule_nodes_max = 4 * MANY;
	l.message_pool_bytes = 64u << 20;
	l.channels_per_conn = 2047;
	l.conns_max = BK_CONNS;
	bk_init(&k, &l);
	bk_default_exchange(&k, 0);
	bk_queue(&k, 0, "q");
	steps = 0;
}

static void fill(uint32_t count)
{
	struct bk_conn *p = bk_connect(&k, 1);

	for (uint32_t i = 0; i < count; i++)
		bk_publish(p, 1, "", "q", "a message of some length, as ticks are");
}

static void purge(void)
{
	fill(MANY);
	timed(&(struct amqp_record){.kind = AMQP_OP_QUEUE_PURGE, .id = 0});
	settle();
}

static void delete_queue(void)
{
	fill(MANY);
	timed(&(struct amqp_record){.kind = AMQP_OP_QUEUE_DEL, .id = 0});
	settle();
}

static void consume(struct bk_conn *c, uint32_t channel, uint32_t count)
{
	char tag[16];

	for (uint32_t i = 0; i < count; i++) {
		snprintf(tag, sizeof tag, "c%u", i);
		bk_consume(c, (uint16_t)channel, "q", tag, false);
	}
}

static void delete_queue_with_consumers(void)
{
	consume(bk_connect(&k, 1), 1, 1000);
	timed(&(struct amqp_record){.kind = AMQP_OP_QUEUE_DEL, .id = 0});
	settle();
}

static void lose_connection_with_messages(void)
{
	struct bk_conn *c = bk_connect(&k, 1);
	uint64_t from;

	consume(c, 1, 1);
	fill(MANY);
	from = __rdtsc();
	bk_disconnect(c);
	span(from);
	settle();
}

static void lose_connection_with_channels(void)
{
	struct bk_conn *c = bk_connect(&k, CHANNELS);
	uint64_t from;

	for (uint32_t i = 1; i <= CHANNELS; i++)
		consume(c, i, 1);
	from = __rdtsc();
	bk_disconnect(c);
	span(from);
	settle();
}

static void lose_connection_with_consumers(void)
{
	struct bk_conn *c = bk_connect(&k, 1);
	uint64_t from;

	consume(c, 1, 1000);
	from = __rdtsc();
	bk_disconnect(c);
	span(from);
	settle();
}

static void acknowledge_all(void)
{
	struct bk_conn *c = bk_connect(&k, 1);
	uint64_t from;

	consume(c, 1, 1);
	fill(MANY);
	from = __rdtsc();
	bk_say(c, 1, 60, 80, (uint64_t)0, 1u);
	span(from);
	settle();
}

static void bind_and_unbind(void)
{
	char key[64];
	bk_exchange(&k, 1, AMQP_TOPIC, "x");
	for (uint32_t i = 0; i < MANY / 2; i++) {
		struct amqp_record rec = {.kind = AMQP_OP_BIND_ADD, .id = i, .id2 = 1, .id3 = 0, .id4 = i};

		snprintf(key, sizeof key, "exchange.segment%u.*.symbol%u.#", i % 100, i);
		rec.str[0] = bk_str(key);
		timed(&rec);
	}
	for (uint32_t i = 0; i < MANY / 2; i++)
		timed(&(struct amqp_record){.kind = AMQP_OP_BIND_DEL, .id = i});
	settle();
}

static void dump(void)
{
	char name[32];

	for (uint32_t i = 1; i < MANY; i++) {
		snprintf(name, sizeof name, "queue number %u", i);
		bk_queue(&k, i, name);
	}
	k.requests_count = 0;
	timed(&(struct amqp_record){.kind = AMQP_OP_DUMP});
	for (turns = 0; k.b->dumping && turns < 100000; turns++) {
		uint64_t from = __rdtsc();

		k.requests_count = 0;
		amqp_tick(k.b);
		span(from);
	}
}

/* A database that covers many bindings is taken, and what it covers leaves the overlay. */
static void take_database(void)
{
	static char key[RULES][64];
	static struct match_rule rules[RULES];
	struct match_scratch *scratch;
	struct match_db *db;
	char err[256];
	size_t bytes;
	uint64_t from;

	bk_exchange(&k, 1, AMQP_TOPIC, "x");
	for (uint32_t i = 0; i < RULES; i++) {
		snprintf(key[i], sizeof key[i], "exchange.segment%u.*.symbol%u.#", i % 100, i);
		bk_bind(&k, i, 1, 0, i, key[i]);
		rules[i] = (struct match_rule){.id = i, .key = (const uint8_t *)key[i], .len = strlen(key[i])};
	}
	if (image == NULL)
		image = match_compile(MATCH_TOPIC, rules, RULES, 1, &bytes, err, sizeof err);
	image_bytes = image_bytes != 0 ? image_bytes : bytes;
	db = match_db_open(image, image_bytes, err, sizeof err);
	scratch = match_scratch_grow(NULL, db);
	amqp_set_scratch(k.b, scratch);
	from = __rdtsc();
	amqp_take_db(k.b, 1, db);
	span(from);
	settle();
	for (uint32_t i = 0; i < RULES; i++)
		bk_del(&k, AMQP_OP_BIND_DEL, i);
	bk_del(&k, AMQP_OP_EXCHANGE_DEL, 1);
	amqp_dropped_db(k.b);
	match_db_close(db);
	match_scratch_free(amqp_set_scratch(k.b, NULL));
}

/* The wheel alone: ten thousand timers of one slot on the second level, cut as the stack does. */
static void timers(void)
{
	static struct tcps_wheel wheel;
	static struct tcps_timer timer[10000];
	uint32_t fired = 0;

	memset(timer, 0, sizeof timer);
	tcps_wheel_init(&wheel, 0);
	for (unsigned i = 0; i < 10000; i++)
		tcps_wheel_set(&wheel, &timer[i], 200000000);
	for (turns = 0; fired < 10000 && turns < 1000000; turns++) {
		uint64_t from = __rdtsc();
		uint32_t budget = 64;

		while (tcps_wheel_expire(&wheel, 300000000, &budget) != NULL) {
			fired++;
			budget -= budget < 3 ? budget : 3;
		}
		span(from);
	}
}

int main(void)
{
	static const struct {
		const char *what;
		void (*run)(void);
	} worlds[] = {
		{"purge of 5,000 messages", purge},
		{"deletion of a queue with 5,000 messages", delete_queue},
		{"deletion of a queue with 1,000 consumers", delete_queue_with_consumers},
		{"a connection goes with 5,000 unacknowledged", lose_connection_with_messages},
		{"a connection goes with 200 channels", lose_connection_with_channels},
		{"a connection goes with 1,000 consumers", lose_connection_with_consumers},
		{"an ack of 5,000", acknowledge_all},
		{"one of 2,500 bindings of a topic exchange, on and off", bind_and_unbind},
		{"dump of 5,000 queues", dump},
		{"a database is taken and its rules leave the overlay", take_database},
		{"10,000 timers due together, the wheel alone", timers},
	};

	printf("%-60s %10s %10s\n", "the longest step; of each step the best run", "cycles", "turns");
	for (size_t i = 0; i < sizeof worlds / sizeof worlds[0]; i++) {
		uint64_t longest = 0;

		memset(best, 0xff, sizeof best);
		for (unsigned run = 0; run < RUNS; run++) {
			start();
			worlds[i].run();
			bk_fini(&k);
		}
		for (uint32_t n = 0; n < steps; n++)
			longest = best[n] > longest ? best[n] : longest;
		printf("%-60s %10llu %10u\n", worlds[i].what, (unsigned long long)longest, turns);
		fflush(stdout);
	}
	return 0;
}
