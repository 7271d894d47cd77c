/*
 * fuzz_amqp_frame.c - any bytes as a client's session, cut in any way, against a whole broker with a control of the kit's own.
 *
 * Owns: nothing; every input has a broker of its own, so that a finding replays by itself.
 * Core: test.
 * Spec: AMQP 0-9-1; the oracle is that every frame out is whole, all invariants hold and everything is given back.
 *
 * The first octet says how: bits 0-3 the size of the pieces (0: all at once), 4 control answers at once, 5 control loses what
 * it was asked and comes back, 6 the transport has no room after a while, 7 no log-in first: the bytes begin with the protocol
 * header.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/amqp_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(struct kit *k, const char *broken, const char *when)
{
	(void)k;
	if (broken == NULL)
		return;
	fprintf(stderr, "%s: %s\n", when, broken);
	abort();
}

/* A neighbour with a queue that everything may be routed to, so that there is something to deliver and to disturb. */
static struct kit_client *neighbour(struct kit *k)
{
	struct kit_client *cl = kit_login(k, 1);

	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "n", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_queue_bind, 0u, "n", "amq.fanout", "", 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_queue_bind, 0u, "n", "amq.topic", "eu.#", 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_basic_consume, 0u, "n", "tag", 0u, 1u, 0u, 0u, KIT_EMPTY);
	kit_read(cl);
	return cl;
}

static void feed(struct kit *k, struct kit_client *cl, uint8_t how, const uint8_t *data, size_t size)
{
	size_t piece = how & 15 ? how & 15 : size;
	unsigned pieces = 0;

	for (size_t at = 0; at < size && cl->c != NULL; at += piece) {
		kit_feed(cl, data + at, size - at < piece ? size - at : piece);
		if (++pieces % 16 == 0)
			kit_run(k); /* else control lets it wait while more comes */
		if (how & 32 && at > size / 2) {
			how &= (uint8_t)~32;
			kit_control_lost(k);
			kit_pass(k, KIT_SECOND);
			kit_control_back(k);
		}
		if (how & 64 && at > size / 2)
			cl->no_room = true;
	}
	kit_run(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kit k;
	struct kit_client *cl, *other;
	uint8_t how;

	if (size < 1 || size > 1 << 16)
		return 0;
	how = data[0];
	kit_init(&k, NULL);
	other = neighbour(&k);
	cl = how & 128 ? kit_accept(&k) : kit_login(&k, 3);
	k.synchronous = (how & 16) != 0;
	feed(&k, cl, how, data + 1, size - 1);
	require(&k, amqp_check(k.b), "after the last octet");
	kit_read(cl);
	kit_read(other);
	k.synchronous = false;
	if (other->c == NULL || other->c->state != AMQP_CONN_RUNNING)
		require(&k, "the neighbour lost its connection", "after the last octet");
	kit_pass(&k, 2 * KIT_SECOND);
	require(&k, kit_fini(&k), "at the end");
	return 0;
}
