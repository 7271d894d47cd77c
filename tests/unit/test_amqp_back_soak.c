/*
 * test_amqp_back_soak.c - random clients on a small broker whose transport, entries and memory keep running out.
 *
 * Owns: six queues on a fanout exchange, eight clients, and what each queue owes for every message number.
 * Core: test. A failure prints its seed.
 * Spec: DESIGN section 4: nothing is lost in silence; an acknowledged or no-ack delivery never comes again; AMQP 0-9-1 section
 * 4.7: what is delivered for the first time comes in the order of publishing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/amqp_back_kit.h"

#define QUEUES   6u
#define CLIENTS  8u
#define MESSAGES 4000u
#define OUT_MAX  256u

struct outstanding { /* delivered, to be acknowledged; a channel serves one queue: its number less one */
	uint64_t tag;
	unsigned number;
};

struct client {
	struct bk_conn *c;
	struct outstanding out[QUEUES][OUT_MAX];
	unsigned out_count[QUEUES];
	bool consuming[QUEUES], no_ack[QUEUES];
	unsigned last[QUEUES][CLIENTS]; /* number + 1 of the last first delivery, by who published it */
	unsigned publishing;            /* number + 1 of a message that the broker has not taken in yet */
};

struct soak {
	struct bk k;
	uint64_t seed, random;
	struct client client[CLIENTS];
	unsigned published;
	uint8_t got[QUEUES][MESSAGES];     /* times */
	uint8_t settled[QUEUES][MESSAGES]; /* 1: must not come again */
	uint8_t publisher[MESSAGES];
	uint8_t doubtful[MESSAGES]; /* the publisher died with it in hand: it may have gone to all queues, to some or to none */
	uint8_t big[6000];
};

static uint32_t any(struct soak *s, uint32_t below)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (uint32_t)(s->random >> 20) % below;
}

static void broken(struct soak *s, const char *what, unsigned queue, unsigned number)
{
	fail_msg("seed %llu: %s (queue %u, message %u)", (unsigned long long)s->seed, what, queue, number);
}

static void connect_client(struct soak *s, struct client *cl)
{
	memset(cl, 0, sizeof *cl);
	cl->c = bk_connect(&s->k, QUEUES);
	if (any(s, 3) == 0)
		cl->c->c->frame_max = 4096;
}

/* ---- what came ---- */

/* The broker has read all that the client sent, and acted on it. */
static bool is_taken_in(const struct client *cl)
{
	return cl->c->c != NULL && cl->c->in_len == 0 && !cl->c->c->reset_due;
}

/* What a client published last is taken in, or went down with the connection. */
static void note_published(struct soak *s, struct client *cl)
{
	if (cl->publishing == 0 || (cl->c->c != NULL && cl->c->in_len != 0))
		return;
	if (!is_taken_in(cl))
		s->doubtful[cl->publishing - 1] = 1;
	cl->publishing = 0;
}

static void on_delivery(struct soak *s, struct client *cl, unsigned queue, uint64_t tag, bool redelivered, bool by_get,
			unsigned number)
{
	bool no_ack = by_get ? false : cl->no_ack[queue];

	if (number >= s->published)
		broken(s, "a message that nobody published", queue, number);
	if (s->settled[queue][number] && cl->c->c != NULL)
		broken(s, "a settled message came again", queue, number);
	if (s->got[queue][number] != 0 && !redelivered)
		broken(s, "a second delivery without the redelivered bit", queue, number);
	if (!redelivered && !by_get) {
		if (number + 1 <= cl->last[queue][s->publisher[number]])
			broken(s, "a first delivery out of order", queue, number);
		cl->last[queue][s->publisher[number]] = number + 1;
	}
	if (s->got[queue][number] < 255)
		s->got[queue][number]++;
	if (no_ack) {
		s->settled[queue][number] = 1;
		return;
	}
	assert_in_range(cl->out_count[queue], 0, OUT_MAX - 1);
	cl->out[queue][cl->out_count[queue]++] = (struct outstanding){tag, number};
}

/* The number that a body begins with, right behind the content header frame at `f`; the rest of it follows in frames of its own. */
static unsigned number_behind(const uint8_t *f)
{
	uint32_t len = amqp_get_be32(f + 3);

	assert_int_equal(f[0], 2);
	return (unsigned)strtoul((const char *)f + 8 + len + 7, NULL, 10);
}

/* The content header frame at `f` and all its body frames are there. */
static bool is_whole(const uint8_t *f, size_t left)
{
	uint64_t body;
	size_t at;

	if (left < 22 || left < 8u + amqp_get_be32(f + 3))
		return false;
	body = amqp_get_be64(f + 11);
	for (at = 8 + amqp_get_be32(f + 3); body > 0; at += 8 + amqp_get_be32(f + at + 3)) {
		if (left - at < 8 || left - at < 8 + (size_t)amqp_get_be32(f + at + 3))
			return false;
		body -= amqp_get_be32(f + at + 3);
	}
	return true;
}

static void read_all(struct soak *s, struct client *cl)
{
	struct bk_conn *c = cl->c;

	while (c->len - c->read >= 8) {
		const uint8_t *f = c->out + c->read;
		uint32_t len = amqp_get_be32(f + 3);
		unsigned channel = amqp_get_be16(f + 1);
		size_t content = 8 + (size_t)len;

		if (c->len - c->read < 8 + (size_t)len)
			break;
		if (f[0] == 1 && amqp_get_be16(f + 7) == 60 && (amqp_get_be16(f + 9) == 60 || amqp_get_be16(f + 9) == 71)) {
			bool get = amqp_get_be16(f + 9) == 71;
			const uint8_t *tag = get ? f + 11 : f + 12 + f[11];

			/* A content that was cut off by a reset was not delivered. */
			if (is_whole(f + content, c->len - c->read - content))
				on_delivery(s, cl, channel - 1, amqp_get_be64(tag), tag[8], get, number_behind(f + content));
			else if (c->c != NULL && !c->c->reset_due)
				broken(s, "half a content", channel - 1, 0);
			else
				break;
		} else if (f[0] == 1 && amqp_get_be16(f + 9) == 40 && amqp_get_be16(f + 7) == 20) {
			broken(s, "a channel error", channel, amqp_get_be16(f + 11));
		} else if (f[0] == 1 && channel == 0) {
			broken(s, "a connection error", channel, amqp_get_be16(f + 11));
		}
		c->read += 8 + (size_t)len;
	}
}

/* ---- what clients do ---- */

static void publish(struct soak *s, struct client *cl)
{
	char *body = (char *)s->big;
	size_t len;

	if (s->published == MESSAGES || cl->c->in_len != 0)
		return;
	len = (size_t)snprintf(body, 16, "%u ", s->published);
	if (any(s, 6) == 0)
		len = 1000 + any(s, 5000);
	s->publisher[s->published] = (uint8_t)(cl - s->client);
	cl->publishing = ++s->published;
	if (any(s, 4) == 0)
		bk_publish_props(cl->c, 1, "all", "", true, "\0", 2, body, len);
	else
		bk_publish_long(cl->c, 1, "all", "", body, len);
}

/* The broker took it in: from now on the message must not come again. */
static void note_settled(struct soak *s, struct client *cl, unsigned q, unsigned first, unsigned last, bool gone)
{
	for (unsigned i = first; i <= last; i++)
		if (gone)
			s->settled[q][cl->out[q][i].number] = 1;
	memmove(&cl->out[q][first], &cl->out[q][last + 1], (cl->out_count[q] - last - 1) * sizeof cl->out[q][0]);
	cl->out_count[q] -= last + 1 - first;
}

static void settle(struct soak *s, struct client *cl)
{
	unsigned q = any(s, QUEUES), i, what = any(s, 4);
	bool multiple = any(s, 2) != 0, gone = what != 0;

	if (cl->out_count[q] == 0 || cl->c->in_len != 0)
		return;
	i = any(s, cl->out_count[q]);
	if (what == 0)
		bk_say(cl->c, (uint16_t)(q + 1), 60, 120, cl->out[q][i].tag, (unsigned)multiple, 1u);
	else if (what == 1)
		bk_say(cl->c, (uint16_t)(q + 1), 60, 120, cl->out[q][i].tag, (unsigned)multiple, 0u);
	else
		bk_say(cl->c, (uint16_t)(q + 1), 60, 80, cl->out[q][i].tag, (unsigned)multiple);
	note_settled(s, cl, q, multiple ? 0 : i, i, gone && is_taken_in(cl));
}

static void consume(struct soak *s, struct client *cl)
{
	unsigned q = any(s, QUEUES);
	char name[8];

	if (cl->c->in_len != 0)
		return;
	if (cl->consuming[q]) {
		bk_say(cl->c, (uint16_t)(q + 1), 60, 30, "t", 1u);
		cl->consuming[q] = false;
		return;
	}
	if (cl->out_count[q] > OUT_MAX / 2)
		return;
	snprintf(name, sizeof name, "q%u", q);
	cl->no_ack[q] = any(s, 2) != 0;
	memset(cl->last[q], 0, sizeof cl->last[q]);
	bk_say(cl->c, (uint16_t)(q + 1), 60, 10, 0u, 1 + any(s, 20), any(s, 2));
	bk_consume(cl->c, (uint16_t)(q + 1), name, "t", cl->no_ack[q]);
	cl->consuming[q] = true;
}

static void get(struct soak *s, struct client *cl)
{
	unsigned q = any(s, QUEUES);
	char name[8];

	snprintf(name, sizeof name, "q%u", q);
	if (cl->c->in_len == 0 && cl->out_count[q] < OUT_MAX / 2)
		bk_say(cl->c, (uint16_t)(q + 1), 60, 70, 0u, name, 0u);
}

static void recover(struct soak *s, struct client *cl)
{
	unsigned q = any(s, QUEUES);

	if (cl->c->in_len != 0 || cl->c->unsent != 0) /* it would wait, and deliveries pass it */
		return;
	bk_say(cl->c, (uint16_t)(q + 1), 60, any(s, 2) ? 110 : 100, 1u);
	cl->out_count[q] = 0;
}

static void transport(struct soak *s, struct client *cl)
{
	switch (any(s, 5)) {
	case 0:
		bk_unsent(cl->c, any(s, 2) ? BK_UNSENT_HIGH + 1 : 0);
		break;
	case 1:
		cl->c->writes_left = any(s, 12);
		break;
	case 2:
		cl->c->writes_left = -1;
		break;
	case 3:
		bk_release(&s->k, any(s, s->k.refs_count + 1));
		break;
	default:
		bk_run(&s->k);
		break;
	}
}

static void act(struct soak *s, struct client *cl)
{
	uint32_t what = any(s, 100);

	if (what < 35)
		publish(s, cl);
	else if (what < 65)
		settle(s, cl);
	else if (what < 75)
		consume(s, cl);
	else if (what < 80)
		get(s, cl);
	else if (what < 82)
		recover(s, cl);
	else if (what < 97)
		transport(s, cl);
	else if (what < 98)
		bk_disconnect(cl->c);
}

static void step(struct soak *s)
{
	struct client *cl = &s->client[any(s, CLIENTS)];
	bool dead[CLIENTS];

	act(s, cl);
	for (unsigned i = 0; i < CLIENTS; i++) {
		dead[i] = s->client[i].c->c == NULL;
		note_published(s, &s->client[i]);
		if (dead[i]) /* first: what they had may have gone to another one within this very step */
			read_all(s, &s->client[i]);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		if (dead[i])
			connect_client(s, &s->client[i]);
		else
			read_all(s, &s->client[i]);
}

/* Everybody goes; one honest consumer a queue gets the rest, and then nothing may be missing. */
static void finish(struct soak *s)
{
	struct client *last = &s->client[0];

	for (unsigned i = 0; i < CLIENTS; i++) {
		note_published(s, &s->client[i]);
		s->client[i].c->writes_left = -1;
		bk_unsent(s->client[i].c, 0);
	}
	for (unsigned i = 0; i < 100; i++) { /* stalled publishers go on as the entries come back */
		for (unsigned q = 0; q < QUEUES; q++)
			for (unsigned n = 0; n < CLIENTS; n++)
				if (s->client[n].out_count[q] != 0 && s->client[n].c->in_len == 0) {
					bk_say(s->client[n].c, (uint16_t)(q + 1), 60, 80, (uint64_t)0, 1u);
					note_settled(s, &s->client[n], q, 0, s->client[n].out_count[q] - 1,
						     is_taken_in(&s->client[n]));
				}
		bk_run(&s->k);
		bk_release(&s->k, s->k.refs_count);
		for (unsigned n = 0; n < CLIENTS; n++)
			read_all(s, &s->client[n]);
		if (i == 50) {
			for (unsigned n = 0; n < CLIENTS; n++) {
				bk_disconnect(s->client[n].c);
				note_published(s, &s->client[n]);
			}
			connect_client(s, last);
		}
		for (unsigned q = 0; q < QUEUES && i > 50; q++)
			if (!last->consuming[q]) {
				char name[8];

				snprintf(name, sizeof name, "q%u", q);
				last->no_ack[q] = true;
				memset(last->last[q], 0, sizeof last->last[q]);
				bk_consume(last->c, (uint16_t)(q + 1), name, "t", true);
				last->consuming[q] = true;
			}
	}
	bk_check(&s->k);
	if (s->k.b->entries_count != 0)
		broken(s, "a message stayed behind", 0, 0);
	for (unsigned q = 0; q < QUEUES; q++)
		for (unsigned n = 0; n < s->published; n++)
			if (s->got[q][n] == 0 && !s->doubtful[n])
				broken(s, "a message was lost", q, n);
}

static void run_seed(uint64_t seed)
{
	static struct soak s;
	struct amqp_limits l;

	memset(&s, 0, sizeof s);
	s.seed = seed;
	s.random = seed * 0x9e3779b97f4a7c15u + 1;
	memset(s.big, '.', sizeof s.big);
	bk_limits(&l);
	l.queues_max = 16;
	l.entries_max = 250;
	l.message_bytes_max = 8192;
	l.message_pool_bytes = 1u << 20;
	l.frame_max = 8192;
	bk_init(&s.k, &l);
	bk_exchange(&s.k, 0, AMQP_FANOUT, "all");
	for (uint32_t q = 0; q < QUEUES; q++) {
		char name[8];

		snprintf(name, sizeof name, "q%u", q);
		bk_queue(&s.k, q, name);
		bk_bind(&s.k, q, 0, q, AMQP_ID_NONE, "");
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		connect_client(&s, &s.client[i]);
	for (unsigned i = 0; i < 6000; i++) {
		step(&s);
		if (i % 50 == 0)
			bk_check(&s.k);
	}
	finish(&s);
	bk_fini(&s.k);
}

static void random_clients_lose_nothing_and_see_nothing_twice(void **state)
{
	const char *one = getenv("SEED");

	(void)state;
	if (one != NULL) {
		run_seed(strtoull(one, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= 60; seed++)
		run_seed(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_clients_lose_nothing_and_see_nothing_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
