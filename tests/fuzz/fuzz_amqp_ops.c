/*
 * fuzz_amqp_ops.c - any records as operations of control, among the declarations of a client: control is not trusted.
 *
 * Owns: nothing; every input has a broker of its own.
 * Core: test.
 * Spec: DESIGN section 5 (the dataplane treats every byte that control wrote as untrusted); the oracle is amqp_check().
 *
 * An input is a row of operations: kind, code, flags, four ids, conn and token selectors, then three short lengths with their
 * bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/amqp_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p, *end;
};

static uint32_t octet(struct input *in)
{
	return in->p < in->end ? *in->p++ : 0;
}

/* Mostly ids that exist, sometimes any. */
static uint32_t id(struct input *in)
{
	uint32_t v = octet(in);

	if (v < 0xf0)
		return v & 31;
	return v == 0xff ? AMQP_ID_NONE : 0x01010101u * octet(in);
}

static struct amqp_span bytes(struct input *in)
{
	uint32_t len = octet(in);
	struct amqp_span s = {in->p, len};

	if ((size_t)(in->end - in->p) < len)
		s.len = (uint32_t)(in->end - in->p);
	in->p += s.len;
	return s;
}

static void apply_one(struct kit *k, struct kit_client *cl, struct input *in)
{
	struct amqp_record op = {.kind = (uint16_t)(AMQP_OP_EXCHANGE_ADD + octet(in) % 14)};
	uint32_t who;

	op.code = (uint16_t)octet(in);
	if (op.code & 0x80)
		op.code = (uint16_t)(400 + op.code);
	op.flags = octet(in) | (octet(in) & 3) << 8;
	op.id = id(in);
	op.id2 = id(in);
	op.id3 = id(in);
	op.id4 = id(in);
	who = octet(in);
	if (cl->c != NULL && who & 1)
		op.conn_uid = cl->c->uid + (who & 2 ? 1ull << 32 : 0);
	if (cl->c != NULL && who & 4)
		op.token = cl->c->wait_token + (who & 8 ? 1ull << 32 : 0);
	op.str[0] = bytes(in);
	op.str[1] = bytes(in);
	op.blob = bytes(in);
	amqp_apply(k->b, &op);
}

static void require(const char *broken, const char *when)
{
	if (broken == NULL)
		return;
	fprintf(stderr, "%s: %s\n", when, broken);
	abort();
}

/* Control takes back what it made, as any control may: by ids, bindings first. */
static void delete_all(struct kit *k)
{
	struct amqp_record op = {.kind = AMQP_OP_RESET};

	amqp_apply(k->b, &op);
}

/* Things happen between operations: a declaration that waits, a delivery, a get. */
static void client_turn(struct kit *k, struct kit_client *cl, uint32_t turn)
{
	struct kit_bytes b = {0};

	if (cl->c == NULL)
		return;
	switch (turn % 4) {
	case 0:
		kit_method(&b, 1, AMQP_M_queue_declare, 0u, "q", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
		break;
	case 1:
		kit_publish(&b, 2, "amq.fanout", "k", "tick", 4, 4);
		break;
	case 2:
		kit_method(&b, 2, AMQP_M_basic_consume, 0u, "q", "", 0u, 0u, 0u, 0u, KIT_EMPTY);
		break;
	default:
		kit_method(&b, 2, AMQP_M_basic_get, 0u, "q", 0u);
		break;
	}
	kit_feed(cl, b.p, b.len);
	kit_bytes_free(&b);
	if (turn & 8)
		kit_run(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kit k;
	struct input in = {data, data + size};
	struct kit_client *cl;
	struct amqp_usage u;

	if (size > 1 << 14)
		return 0;
	kit_init(&k, NULL);
	cl = kit_login(&k, 3);
	k.silent = true;
	for (uint32_t turn = 0; in.p < in.end; turn++) {
		apply_one(&k, cl, &in);
		client_turn(&k, cl, turn);
		if (turn % 4 == 3) {
			kit_drop_requests(&k);
			require(amqp_check(k.b), "between operations");
		}
	}
	kit_read(cl);
	kit_pass(&k, KIT_SECOND);
	require(amqp_check(k.b), "after the last operation");
	kit_drop_requests(&k);
	kit_close(cl);
	kit_drop_requests(&k);
	kit_release_refs(&k);
	delete_all(&k);
	kit_pass(&k, KIT_SECOND);
	kit_drop_requests(&k);
	require(amqp_check(k.b), "after a reset");
	amqp_usage(k.b, &u);
	if (u.message_bytes != 0 || u.entries != 0 || u.channels != 0 || u.queues != 0 || u.exchanges != 0 || u.bindings != 0)
		require("something was not given back", "after a reset");
	memset(k.exchange, 0, sizeof k.exchange); /* control's side of what is gone */
	k.pool_baseline = 0;
	require(kit_fini(&k), "at the end");
	return 0;
}
