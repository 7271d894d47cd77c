/*
 * test_ctl_rib.c - declarations, deletions and bindings as the RIB answers them.
 *
 * Owns: nothing.
 * Core: a cmocka program; the RIB with a fake emitter.
 * Spec: AMQP 0-9-1 sections 1.7 and 1.8 with RabbitMQ's semantics and texts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/ctl_rib_kit.h"

static const struct ctl_rib_limits limits = {32, 16, 64, 64};
static struct kit k;

static int setup(void **state)
{
	(void)state;
	kit_init(&k, &limits);
	kit_attach(&k, 1, &limits);
	return 0;
}

static int teardown(void **state)
{
	const char *err = ctl_rib_check(&k.rib);

	(void)state;
	if (err != NULL)
		print_error("%s\n", err);
	kit_fini(&k);
	return err != NULL;
}

/* Sends a request as connection `conn` and returns the reply, which must be the last record. */
static const struct amqp_record *ask(uint64_t conn, struct amqp_record q)
{
	const struct amqp_record *reply;

	kit_forget(&k);
	q.token = 77;
	q.conn_uid = conn;
	ctl_rib_request(&k.rib, 0, &q);
	reply = kit_find(&k, AMQP_OP_REPLY);
	assert_non_null(reply);
	assert_ptr_equal(reply, &k.out[k.out_count - 1].rec);
	assert_int_equal(reply->token, 77);
	for (size_t i = 0; i < k.out_count; i++)
		assert_int_equal(k.out[i].rec.token, 77);
	return reply;
}

static void wants(const struct amqp_record *reply, uint16_t code, const char *sentence)
{
	char got[256];

	memcpy(got, reply->str[0].ptr, reply->str[0].len);
	got[reply->str[0].len] = '\0';
	if (reply->code != code || strcmp(got, sentence) != 0)
		fail_msg("got %u '%s', want %u '%s'", reply->code, got, code, sentence);
}

static struct amqp_record exchange(const char *name, const char *type, uint32_t flags)
{
	return (struct amqp_record){.kind = AMQP_REQ_EXCHANGE_DECLARE, .flags = flags, .str = {kit_text(name), kit_text(type)}};
}

static struct amqp_record queue(const char *name, uint32_t flags)
{
	return (struct amqp_record){.kind = AMQP_REQ_QUEUE_DECLARE, .flags = flags, .str = {kit_text(name)}};
}

static struct amqp_record bind(uint16_t kind, const char *dest, const char *source, const char *key)
{
	return (struct amqp_record){.kind = kind, .str = {kit_text(dest), kit_text(source), kit_text(key)}};
}

static struct amqp_record named(uint16_t kind, const char *name, uint32_t flags)
{
	return (struct amqp_record){.kind = kind, .flags = flags, .str = {kit_text(name)}};
}

static void with_args(struct amqp_record *q, const char *bytes, size_t len)
{
	q->blob = (struct amqp_span){(const uint8_t *)bytes, (uint32_t)len};
}

static void an_exchange_is_declared_once_and_again_when_equivalent(void **state)
{
	const struct amqp_record *op;

	(void)state;
	assert_int_equal(ask(1, exchange("x", "topic", AMQP_DEF_DURABLE))->code, 0);
	op = kit_find(&k, AMQP_OP_EXCHANGE_ADD);
	assert_non_null(op);
	assert_int_equal(op->code, AMQP_TOPIC);
	assert_int_equal(op->flags, AMQP_DEF_DURABLE);
	assert_memory_equal(op->str[1].ptr, "/", 1);
	assert_int_equal(kit_stored(&k), 1);
	assert_int_equal(ask(1, exchange("x", "topic", AMQP_DEF_DURABLE))->code, 0);
	assert_null(kit_find(&k, AMQP_OP_EXCHANGE_ADD));
	assert_int_equal(ask(2, exchange("amq.direct", "direct", AMQP_DEF_DURABLE))->code, 0);
	assert_int_equal(ask(2, exchange("x", "nonsense", AMQP_DEF_PASSIVE | AMQP_DEF_INTERNAL))->code,
			 0); /* passive: the name alone */
}

static void an_exchange_declared_otherwise_is_a_precondition_failed(void **state)
{
	(void)state;
	ask(1, exchange("x", "direct", AMQP_DEF_DURABLE));
	wants(ask(1, exchange("x", "direct", 0)), 406,
	      "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'x' in vhost '/': received 'false' but current is "
	      "'true'");
	wants(ask(1, exchange("x", "fanout", AMQP_DEF_DURABLE)), 406,
	      "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'fanout' but current is "
	      "'direct'");
	wants(ask(1, exchange("x", "direct", AMQP_DEF_DURABLE | AMQP_DEF_AUTO_DELETE)), 406,
	      "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for exchange 'x' in vhost '/': received 'true' but current is "
	      "'false'");
	wants(ask(1, exchange("x", "direct", AMQP_DEF_DURABLE | AMQP_DEF_INTERNAL)), 406,
	      "PRECONDITION_FAILED - inequivalent arg 'internal' for exchange 'x' in vhost '/': received 'true' but current is "
	      "'false'");
}

static void names_and_types_that_are_not_allowed_are_refused(void **state)
{
	struct amqp_record long_name = exchange("", "direct", 0);
	char name[257];

	(void)state;
	wants(ask(1, exchange("amq.mine", "direct", 0)), 403,
	      "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'");
	wants(ask(1, exchange("", "direct", 0)), 403, "ACCESS_REFUSED - operation not permitted on the default exchange");
	wants(ask(1, exchange("x", "x-federation-upstream", 0)), 503,
	      "COMMAND_INVALID - unknown exchange type 'x-federation-upstream'");
	wants(ask(1, exchange("nope", "", AMQP_DEF_PASSIVE)), 404, "NOT_FOUND - no exchange 'nope' in vhost '/'");
	wants(ask(1, named(AMQP_REQ_EXCHANGE_DELETE, "amq.topic", 0)), 403,
	      "ACCESS_REFUSED - exchange name 'amq.topic' contains reserved prefix 'amq.*'");
	wants(ask(1, queue("amq.gen-mine", 0)), 403, "ACCESS_REFUSED - queue name 'amq.gen-mine' contains reserved prefix 'amq.*'");
	memset(name, 'n', 256);
	name[256] = '\0';
	long_name.str[0] = kit_text(name);
	assert_int_equal(ask(1, long_name)->code, 501);
	assert_int_equal(ask(1, exchange("\xff", "direct", 0))->code, 501);
	long_name.id = 99;
	assert_int_equal(ask(1, long_name)->code, 530); /* no such vhost */
}

static void deleting_what_is_not_there_is_no_error(void **state)
{
	const struct amqp_record *r;

	(void)state;
	assert_int_equal(ask(1, named(AMQP_REQ_EXCHANGE_DELETE, "nope", 0))->code, 0);
	r = ask(1, named(AMQP_REQ_QUEUE_DELETE, "nope", 0));
	assert_int_equal(r->code, 0);
	assert_int_equal(r->id, AMQP_ID_NONE);
	assert_int_equal(ask(1, bind(AMQP_REQ_QUEUE_UNBIND, "nope", "nope", ""))->code, 0);
}

static void an_exchange_in_use_stays_when_if_unused_is_asked(void **state)
{
	(void)state;
	ask(1, exchange("x", "fanout", 0));
	ask(1, queue("q", 0));
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "q", "x", ""));
	wants(ask(1, named(AMQP_REQ_EXCHANGE_DELETE, "x", AMQP_DEF_IF_UNUSED)), 406,
	      "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use");
	assert_int_equal(ask(1, named(AMQP_REQ_EXCHANGE_DELETE, "x", 0))->code, 0);
	assert_int_equal(k.out[0].rec.kind, AMQP_OP_BIND_DEL); /* bindings go before what they hang on */
	assert_int_equal(k.out[1].rec.kind, AMQP_OP_EXCHANGE_DEL);
}

static void a_queue_gets_a_name_of_the_servers_when_it_has_none(void **state)
{
	const struct amqp_record *r = ask(1, queue("", 0));
	char first[31];

	(void)state;
	assert_int_equal(r->code, 0);
	assert_int_equal(r->str[1].len, 30);
	memcpy(first, r->str[1].ptr, 30);
	first[30] = '\0';
	assert_memory_equal(first, "amq.gen-", 8);
	assert_int_equal(strspn(first + 8, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 22);
	assert_int_not_equal(r->id, AMQP_ID_NONE);
	assert_int_not_equal(memcmp(ask(1, queue("", 0))->str[1].ptr, first, 30), 0);
	assert_int_equal(ask(1, queue(first, AMQP_DEF_PASSIVE))->code, 0);
}

static void a_queue_declared_otherwise_is_refused_with_the_difference(void **state)
{
	struct amqp_record q = queue("q", 0);

	(void)state;
	with_args(&q, "\14x-max-lengthb\144\5x-fooS\0\0\0\1a", 27);
	assert_int_equal(ask(1, q)->code, 0);
	with_args(&q, "\14x-max-lengthI\0\0\0\144", 18); /* int8 100 is int32 100; x-foo does not count */
	assert_int_equal(ask(1, q)->code, 0);
	with_args(&q, "\14x-max-lengthI\0\0\0\145", 18);
	wants(ask(1, q), 406,
	      "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '101' of type "
	      "'signedint' but current is the value '100' of type 'byte'");
	with_args(&q, "", 0);
	wants(ask(1, q), 406,
	      "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is the "
	      "value '100' "
	      "of type 'byte'");
	q.flags = AMQP_DEF_DURABLE;
	wants(ask(1, q), 406,
	      "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is "
	      "'false'");
}

static void arguments_of_a_queue_are_checked(void **state)
{
	struct amqp_record q = queue("q", 0);

	(void)state;
	with_args(&q, "\14x-max-lengthb\377", 15);
	wants(ask(1, q), 406, "PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}");
	with_args(&q, "\14x-max-lengthS\0\0\0\1a", 19);
	wants(ask(1, q), 406,
	      "PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'q' in vhost '/': \"expected integer, got longstr\"");
	with_args(&q, "\12x-overflowS\0\0\0\1a", 17);
	wants(ask(1, q), 406, "PRECONDITION_FAILED - invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow");
	with_args(&q, "\15x-message-ttlI\0\0\0\1", 19);
	wants(ask(1, q), 406,
	      "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/': this version does not implement it");
	with_args(&q, "\14x-queue-typeS\0\0\0\6quorum", 24);
	assert_int_equal(ask(1, q)->code, 406);
	with_args(&q, "\14x-queue-typeS\0\0\0\7classic", 25);
	assert_int_equal(ask(1, q)->code, 0);
	with_args(&q, "\14x-max-lengthZ", 14);
	assert_int_equal(ask(1, q)->code, 502);
	with_args(&q, "\14x-max-lengthI\0", 15);
	assert_int_equal(ask(1, q)->code, 501);
}

#define LOCKED                                                                                                                     \
	"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be originally declared "   \
	"on another "                                                                                                              \
	"connection or the exclusive property value does not match that of the original declaration."

static void an_exclusive_queue_is_locked_for_every_other_connection(void **state)
{
	const struct amqp_record *op;

	(void)state;
	assert_int_equal(ask(1, queue("mine", AMQP_DEF_EXCLUSIVE | AMQP_DEF_DURABLE))->code, 0);
	op = kit_find(&k, AMQP_OP_QUEUE_ADD);
	assert_non_null(op);
	assert_int_equal(kit_stored(&k), 0); /* it goes with its connection, so it is not stored */
	wants(ask(2, queue("mine", AMQP_DEF_EXCLUSIVE | AMQP_DEF_DURABLE)), 405, LOCKED);
	wants(ask(2, queue("mine", AMQP_DEF_PASSIVE)), 405, LOCKED);
	wants(ask(2, bind(AMQP_REQ_QUEUE_BIND, "mine", "amq.fanout", "")), 405, LOCKED);
	wants(ask(2, named(AMQP_REQ_QUEUE_DELETE, "mine", 0)), 405, LOCKED);
	wants(ask(1, queue("mine", AMQP_DEF_DURABLE)), 405, LOCKED); /* the flag differs */
	assert_int_equal(ask(1, queue("mine", AMQP_DEF_PASSIVE))->code, 0);
	assert_int_equal(ask(1, bind(AMQP_REQ_QUEUE_BIND, "mine", "amq.fanout", ""))->code, 0);
	kit_forget(&k);
	ctl_rib_request(&k.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_CONN_GONE, .conn_uid = 1});
	assert_int_equal(kit_count(&k, AMQP_OP_BIND_DEL), 1);
	assert_int_equal(kit_count(&k, AMQP_OP_QUEUE_DEL), 1);
	wants(ask(2, queue("mine", AMQP_DEF_PASSIVE)), 404, "NOT_FOUND - no queue 'mine' in vhost '/'");
}

static void an_auto_delete_queue_goes_when_the_worker_says_it_is_unused(void **state)
{
	uint32_t id, other;

	(void)state;
	id = ask(1, queue("a", AMQP_DEF_AUTO_DELETE))->id;
	other = ask(1, queue("b", 0))->id;
	kit_forget(&k);
	ctl_rib_request(&k.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_QUEUE_UNUSED, .id = other});
	assert_int_equal(k.out_count, 0);
	ctl_rib_request(&k.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_QUEUE_UNUSED, .id = id});
	assert_int_equal(kit_count(&k, AMQP_OP_QUEUE_DEL), 1);
	ctl_rib_request(&k.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_QUEUE_UNUSED, .id = UINT32_MAX});
}

static void binding_twice_makes_one_binding_and_one_rule(void **state)
{
	const struct amqp_record *op;
	uint32_t rule;

	(void)state;
	ask(1, queue("a", 0));
	ask(1, queue("b", 0));
	assert_int_equal(ask(1, bind(AMQP_REQ_QUEUE_BIND, "a", "amq.topic", "eur.#"))->code, 0);
	op = kit_find(&k, AMQP_OP_BIND_ADD);
	assert_non_null(op);
	rule = op->id4;
	assert_int_equal(ask(1, bind(AMQP_REQ_QUEUE_BIND, "a", "amq.topic", "eur.#"))->code, 0);
	assert_null(kit_find(&k, AMQP_OP_BIND_ADD));
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "b", "amq.topic", "eur.#"));
	op = kit_find(&k, AMQP_OP_BIND_ADD);
	assert_non_null(op);
	assert_int_equal(op->id4, rule); /* another destination, the same pattern */
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "b", "amq.topic", "usd.#"));
	op = kit_find(&k, AMQP_OP_BIND_ADD);
	assert_int_not_equal(op->id4, rule);
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "b", "amq.fanout", "x"));
	op = kit_find(&k, AMQP_OP_BIND_ADD);
	assert_int_equal(op->id4, AMQP_ID_NONE);
	assert_int_equal(k.rules_changed, 2); /* wildcards alone need a database */
	assert_int_equal(k.rib.rule_ids.used, 2);
	ask(1, bind(AMQP_REQ_QUEUE_UNBIND, "a", "amq.topic", "eur.#"));
	assert_int_equal(k.rib.rule_ids.used, 2);
	ask(1, bind(AMQP_REQ_QUEUE_UNBIND, "b", "amq.topic", "eur.#"));
	assert_int_equal(k.rib.rule_ids.used, 1);
}

static void bindings_are_refused_where_rabbitmq_refuses_them(void **state)
{
	struct amqp_record q;

	(void)state;
	ask(1, queue("a", 0));
	wants(ask(1, bind(AMQP_REQ_QUEUE_BIND, "a", "", "k")), 403,
	      "ACCESS_REFUSED - operation not permitted on the default exchange");
	wants(ask(1, bind(AMQP_REQ_QUEUE_BIND, "a", "nope", "k")), 404, "NOT_FOUND - no exchange 'nope' in vhost '/'");
	wants(ask(1, bind(AMQP_REQ_QUEUE_BIND, "nope", "amq.direct", "k")), 404, "NOT_FOUND - no queue 'nope' in vhost '/'");
	wants(ask(1, bind(AMQP_REQ_EXCHANGE_BIND, "nope", "amq.direct", "k")), 404, "NOT_FOUND - no exchange 'nope' in vhost '/'");
	q = bind(AMQP_REQ_QUEUE_BIND, "a", "amq.headers", "");
	with_args(&q, "\7x-matchS\0\0\0\4most", 17);
	wants(ask(1, q), 406,
	      "PRECONDITION_FAILED - Invalid x-match field value 'most'; expected all, any, all-with-x, or any-with-x");
}

static void headers_bindings_with_equal_arguments_share_their_rule(void **state)
{
	struct amqp_record q = bind(AMQP_REQ_QUEUE_BIND, "a", "amq.headers", "");
	uint32_t rule;

	(void)state;
	ask(1, queue("a", 0));
	ask(1, queue("b", 0));
	with_args(&q, "\1ab\1\1bV", 7);
	ask(1, q);
	rule = kit_find(&k, AMQP_OP_BIND_ADD)->id4;
	with_args(&q, "\1bV\1aI\0\0\0\1", 10);
	ask(1, q);
	assert_null(kit_find(&k, AMQP_OP_BIND_ADD)); /* the same table: the same binding */
	q.str[0] = kit_text("b");
	ask(1, q);
	assert_int_equal(kit_find(&k, AMQP_OP_BIND_ADD)->id4, rule);
	with_args(&q, "\1ab\2", 4);
	ask(1, q);
	assert_int_not_equal(kit_find(&k, AMQP_OP_BIND_ADD)->id4, rule);
}

static void a_chain_of_auto_delete_exchanges_falls_when_its_queue_goes(void **state)
{
	char name[16], next[16];

	(void)state;
	ask(1, queue("end", 0));
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "x%d", i);
		ask(1, exchange(name, "fanout", AMQP_DEF_AUTO_DELETE));
	}
	for (int i = 0; i < 19; i++) {
		snprintf(name, sizeof name, "x%d", i);
		snprintf(next, sizeof next, "x%d", i + 1);
		assert_int_equal(ask(1, bind(AMQP_REQ_EXCHANGE_BIND, next, name, ""))->code, 0);
	}
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "end", "x19", ""));
	ask(1, named(AMQP_REQ_QUEUE_DELETE, "end", 0));
	assert_int_equal(kit_count(&k, AMQP_OP_EXCHANGE_DEL), 20);
	assert_int_equal(kit_count(&k, AMQP_OP_BIND_DEL), 20);
	assert_int_equal(k.exchanges_gone, 20);
	/* one that never had a binding stays */
	ask(1, exchange("lonely", "direct", AMQP_DEF_AUTO_DELETE));
	assert_int_equal(ask(1, exchange("lonely", "", AMQP_DEF_PASSIVE))->code, 0);
}

static void exchanges_bound_in_a_circle_can_be_deleted(void **state)
{
	(void)state;
	ask(1, exchange("a", "fanout", AMQP_DEF_AUTO_DELETE));
	ask(1, exchange("b", "fanout", AMQP_DEF_AUTO_DELETE));
	ask(1, bind(AMQP_REQ_EXCHANGE_BIND, "b", "a", ""));
	ask(1, bind(AMQP_REQ_EXCHANGE_BIND, "a", "b", ""));
	ask(1, bind(AMQP_REQ_EXCHANGE_BIND, "a", "a", ""));
	assert_int_equal(ask(1, named(AMQP_REQ_EXCHANGE_DELETE, "a", 0))->code, 0);
	assert_int_equal(kit_count(&k, AMQP_OP_EXCHANGE_DEL), 2);
	assert_int_equal(kit_count(&k, AMQP_OP_BIND_DEL), 3);
}

static void only_bindings_between_durable_ends_are_stored(void **state)
{
	(void)state;
	ask(1, queue("d", AMQP_DEF_DURABLE));
	ask(1, queue("t", 0));
	ask(1, exchange("x", "direct", AMQP_DEF_DURABLE));
	ask(1, exchange("y", "direct", 0));
	assert_int_equal(kit_stored(&k), 2);
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "t", "x", "k"));
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "d", "y", "k"));
	assert_int_equal(kit_stored(&k), 2);
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "d", "x", "k"));
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "d", "amq.topic", "k"));
	ask(1, bind(AMQP_REQ_EXCHANGE_BIND, "x", "amq.topic", "k"));
	assert_int_equal(kit_stored(&k), 5);
	ask(1, named(AMQP_REQ_QUEUE_DELETE, "d", 0));
	assert_int_equal(kit_stored(&k), 2);
}

static void what_cannot_be_stored_is_not_made(void **state)
{
	(void)state;
	k.store_fails = true;
	assert_int_equal(ask(1, queue("d", AMQP_DEF_DURABLE))->code, 506);
	assert_int_equal(k.out_count, 1); /* no worker heard of it */
	assert_int_equal(ask(1, queue("d", AMQP_DEF_PASSIVE))->code, 404);
	assert_int_equal(ask(1, exchange("x", "direct", AMQP_DEF_DURABLE))->code, 506);
	k.store_fails = false;
	ask(1, queue("d", AMQP_DEF_DURABLE));
	ask(1, exchange("x", "topic", AMQP_DEF_DURABLE | AMQP_DEF_AUTO_DELETE));
	k.store_fails = true;
	assert_int_equal(ask(1, bind(AMQP_REQ_QUEUE_BIND, "d", "x", "k"))->code, 506);
	assert_int_equal(ask(1, exchange("x", "", AMQP_DEF_PASSIVE))->code, 0); /* its only binding never was: it stays */
}

static void a_full_pool_is_a_resource_error_and_freed_room_is_used_again(void **state)
{
	char name[16];

	(void)state;
	for (int i = 0; i < 16; i++) {
		snprintf(name, sizeof name, "q%d", i);
		assert_int_equal(ask(1, queue(name, 0))->code, 0);
	}
	wants(ask(1, queue("one more", 0)), 506, "RESOURCE_ERROR - no room for another queue: all 16 are in use");
	for (int i = 0; i < 40; i++) {
		assert_int_equal(ask(1, named(AMQP_REQ_QUEUE_DELETE, "q3", 0))->code, 0);
		assert_int_equal(ask(1, queue("q3", 0))->code, 0);
	}
}

static void a_freed_id_comes_back_as_late_as_can_be(void **state)
{
	uint32_t first, id;

	(void)state;
	first = ask(1, queue("a", 0))->id;
	ask(1, named(AMQP_REQ_QUEUE_DELETE, "a", 0));
	ctl_rib_settle(&k.rib);
	for (int i = 0; i < 15; i++) {
		char name[16];

		snprintf(name, sizeof name, "n%d", i);
		id = ask(1, queue(name, 0))->id;
		assert_int_not_equal(id, first);
	}
	assert_int_equal(ask(1, queue("last", 0))->id, first);
}

static void an_operation_that_failed_in_the_fib_is_rolled_back(void **state)
{
	uint32_t id, rules;

	(void)state;
	id = ask(1, queue("q", AMQP_DEF_DURABLE))->id;
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "q", "amq.topic", "a.*"));
	rules = k.rib.rule_ids.used;
	assert_int_equal(rules, 1);
	kit_forget(&k);
	ctl_rib_request(&k.rib, 0,
			&(struct amqp_record){.kind = AMQP_REQ_OP_FAILED,
					      .token = 77,
					      .id = id,
					      .id2 = AMQP_OP_QUEUE_ADD,
					      .code = 506,
					      .str = {kit_text("no room")}});
	assert_int_equal(k.out_count, 0); /* the one worker that there is has nothing to undo */
	assert_int_equal(ask(1, queue("q", AMQP_DEF_PASSIVE))->code, 404);
	assert_int_equal(kit_stored(&k), 0);
	assert_int_equal(k.rib.rule_ids.used, 0);
	ctl_rib_request(&k.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_OP_FAILED, .id = UINT32_MAX, .id2 = AMQP_OP_BIND_ADD});
	ctl_rib_request(&k.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_OP_FAILED, .id = 3, .id2 = AMQP_OP_QUEUE_DEL});
}

static const struct kit_record *last_of(uint16_t kind)
{
	for (size_t i = k.out_count; i-- > 0;)
		if (k.out[i].rec.kind == kind)
			return &k.out[i];
	return NULL;
}

static size_t count_of(uint16_t kind)
{
	size_t n = 0;

	for (size_t i = 0; i < k.out_count; i++)
		n += k.out[i].rec.kind == kind;
	return n;
}

static void a_reply_waits_until_every_worker_has_applied_it(void **state)
{
	struct amqp_record declare = queue("q", 0), applied = {.kind = AMQP_REQ_APPLIED, .token = 9};

	(void)state;
	k.rib.workers_count = 3;
	kit_forget(&k);
	declare.token = 9;
	ctl_rib_request(&k.rib, 1, &declare);
	assert_int_equal(count_of(AMQP_OP_QUEUE_ADD), 3);
	assert_int_equal(last_of(AMQP_OP_QUEUE_ADD)->rec.id3, 1); /* it lives where it was declared */
	assert_int_equal(count_of(AMQP_OP_BARRIER), 2);
	assert_null(last_of(AMQP_OP_REPLY));
	ctl_rib_request(&k.rib, 0, &applied);
	assert_null(last_of(AMQP_OP_REPLY));
	ctl_rib_request(&k.rib, 2, &applied);
	assert_int_equal(last_of(AMQP_OP_REPLY)->worker, 1);
	assert_int_equal(last_of(AMQP_OP_REPLY)->rec.code, 0);
	assert_int_equal(last_of(AMQP_OP_REPLY)->rec.str[1].len, 1);
	ctl_rib_request(&k.rib, 2, &applied); /* nobody waits for that one */
	assert_int_equal(count_of(AMQP_OP_REPLY), 1);
}

static void a_reply_tells_of_a_worker_that_had_no_room(void **state)
{
	struct amqp_record declare = queue("q", 0), applied = {.kind = AMQP_REQ_APPLIED, .token = 9};
	struct amqp_record failed = {.kind = AMQP_REQ_OP_FAILED, .token = 9, .id2 = AMQP_OP_QUEUE_ADD, .code = 506};

	(void)state;
	k.rib.workers_count = 2;
	kit_forget(&k);
	declare.token = 9;
	ctl_rib_request(&k.rib, 0, &declare);
	failed.id = last_of(AMQP_OP_QUEUE_ADD)->rec.id;
	ctl_rib_request(&k.rib, 1, &failed);
	ctl_rib_request(&k.rib, 1, &applied);
	assert_int_equal(last_of(AMQP_OP_REPLY)->rec.code, 506);
	assert_int_equal(last_of(AMQP_OP_QUEUE_DEL)->worker, 0); /* undone where it was done */
	assert_int_equal(count_of(AMQP_OP_QUEUE_DEL), 1);
}

static void a_definition_that_could_not_be_restored_stays_in_the_store(void **state)
{
	uint32_t id;

	(void)state;
	ask(1, exchange("x", "topic", AMQP_DEF_DURABLE | AMQP_DEF_AUTO_DELETE));
	id = ask(1, queue("q", AMQP_DEF_DURABLE))->id;
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "q", "x", "a.*"));
	assert_int_equal(kit_stored(&k), 3);
	ctl_rib_request(
		&k.rib, 0,
		&(struct amqp_record){
			.kind = AMQP_REQ_OP_FAILED, .id = id, .id2 = AMQP_OP_QUEUE_ADD, .code = 506, .str = {kit_text("no room")}});
	assert_int_equal(ask(1, queue("q", AMQP_DEF_PASSIVE))->code, 404);
	assert_int_equal(kit_stored(&k), 3); /* queue, binding, and the exchange that lost its last binding */
	assert_int_equal(ask(1, queue("other", AMQP_DEF_DURABLE))->code, 0);
	assert_int_equal(kit_stored(&k), 4);
	assert_int_equal(ask(1, named(AMQP_REQ_QUEUE_DELETE, "other", 0))->code, 0);
	assert_int_equal(kit_stored(&k), 3); /* only what was undone was kept */
}

static void a_rule_named_by_an_image_keeps_its_id_until_it_is_released(void **state)
{
	uint32_t rule;

	(void)state;
	ask(1, queue("q", 0));
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "q", "amq.topic", "a.*"));
	rule = kit_find(&k, AMQP_OP_BIND_ADD)->id4;
	ctl_rib_rule_hold(&k.rib, rule);
	ask(1, bind(AMQP_REQ_QUEUE_UNBIND, "q", "amq.topic", "a.*"));
	assert_int_equal(k.rib.rule_ids.used, 1);
	ask(1, bind(AMQP_REQ_QUEUE_BIND, "q", "amq.topic", "a.*"));
	assert_int_not_equal(kit_find(&k, AMQP_OP_BIND_ADD)->id4, rule); /* the old one is a tombstone in a database */
	assert_int_equal(k.rib.rule_ids.used, 2);
	ctl_rib_rule_release(&k.rib, rule);
	assert_int_equal(k.rib.rule_ids.used, 1);
}

static void a_request_of_no_known_kind_is_answered(void **state)
{
	(void)state;
	assert_int_equal(ask(1, (struct amqp_record){.kind = 63})->code, 541);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_exchange_is_declared_once_and_again_when_equivalent),
		T(an_exchange_declared_otherwise_is_a_precondition_failed),
		T(names_and_types_that_are_not_allowed_are_refused),
		T(deleting_what_is_not_there_is_no_error),
		T(an_exchange_in_use_stays_when_if_unused_is_asked),
		T(a_queue_gets_a_name_of_the_servers_when_it_has_none),
		T(a_queue_declared_otherwise_is_refused_with_the_difference),
		T(arguments_of_a_queue_are_checked),
		T(an_exclusive_queue_is_locked_for_every_other_connection),
		T(an_auto_delete_queue_goes_when_the_worker_says_it_is_unused),
		T(binding_twice_makes_one_binding_and_one_rule),
		T(bindings_are_refused_where_rabbitmq_refuses_them),
		T(headers_bindings_with_equal_arguments_share_their_rule),
		T(a_chain_of_auto_delete_exchanges_falls_when_its_queue_goes),
		T(exchanges_bound_in_a_circle_can_be_deleted),
		T(only_bindings_between_durable_ends_are_stored),
		T(what_cannot_be_stored_is_not_made),
		T(a_full_pool_is_a_resource_error_and_freed_room_is_used_again),
		T(a_freed_id_comes_back_as_late_as_can_be),
		T(an_operation_that_failed_in_the_fib_is_rolled_back),
		T(a_reply_waits_until_every_worker_has_applied_it),
		T(a_reply_tells_of_a_worker_that_had_no_room),
		T(a_definition_that_could_not_be_restored_stays_in_the_store),
		T(a_rule_named_by_an_image_keeps_its_id_until_it_is_released),
		T(a_request_of_no_known_kind_is_answered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
