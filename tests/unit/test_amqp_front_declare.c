/*
 * test_amqp_front_declare.c - declarations: what the worker decides itself, what it asks, and the wait for a control that is away.
 *
 * Owns: nothing.
 * Core: test.
 * Spec: AMQP 0-9-1 sections 1.6 and 1.7; DESIGN section 5.
 */
#include "tests/unit/amqp_front_test.h"

#define DECLARE_ARGS(name) 0u, name, 0u, 0u, 0u, 0u, 0u, KIT_EMPTY
#define DEFAULT_REFUSED(class, method)                                                                                             \
	"1 channel.close(403, ACCESS_REFUSED - operation not permitted on the default exchange, " #class ", " #method ")\n"

static void reopen(struct kit_client *cl)
{
	kit_say(cl, 1, AMQP_M_channel_close_ok);
	kit_say(cl, 1, AMQP_M_channel_open, "");
	expect(cl, "1 channel.open_ok()\n");
}

static void publish(struct kit_client *cl, uint16_t channel, const char *exchange, const char *key, const char *body)
{
	struct kit_bytes bytes = {0};

	kit_publish(&bytes, channel, exchange, key, body, strlen(body), 4000);
	kit_send(cl, bytes.p, bytes.len);
	kit_bytes_free(&bytes);
}

/* ---- exchanges ---- */

static void exchanges_are_declared_bound_and_deleted(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "ticks", "topic", 0u, 1u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "ticks", "", 1u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_bind, 0u, "amq.fanout", "ticks", "eu.#", 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_unbind, 0u, "amq.fanout", "ticks", "eu.#", 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_delete, 0u, "ticks", 0u, 0u);
	expect(cl, "1 exchange.declare_ok()\n1 exchange.declare_ok()\n1 exchange.bind_ok()\n1 exchange.unbind_ok()\n"
		   "1 exchange.delete_ok()\n");
	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "ticks", "", 1u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	expect(cl, "1 channel.close(404, NOT_FOUND - no exchange 'ticks' in vhost '/', 40, 10)\n");
}

static void exchange_flags_reach_control_as_they_were_sent(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "a", "direct", 0u, 1u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "b", "direct", 0u, 0u, 1u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "c", "direct", 0u, 0u, 0u, 1u, 0u, KIT_EMPTY);
	assert_int_equal(k->exchange[5].flags, AMQP_DEF_DURABLE);
	assert_int_equal(k->exchange[6].flags, AMQP_DEF_AUTO_DELETE);
	assert_int_equal(k->exchange[7].flags, AMQP_DEF_INTERNAL);
	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "a", 0u, 1u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "b", 0u, 0u, 1u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "c", 0u, 0u, 0u, 1u, 0u, KIT_EMPTY);
	assert_int_equal(k->queue[0].flags, AMQP_DEF_DURABLE);
	assert_int_equal(k->queue[1].flags, AMQP_DEF_EXCLUSIVE);
	assert_int_equal(k->queue[2].flags, AMQP_DEF_AUTO_DELETE);
	assert_true(k->queue[1].owner == cl->c->uid);
}

static void the_default_exchange_is_refused_with_403(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "", "direct", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	expect(cl, DEFAULT_REFUSED(40, 10));
	reopen(cl);
	kit_say(cl, 1, AMQP_M_exchange_delete, 0u, "", 0u, 0u);
	expect(cl, DEFAULT_REFUSED(40, 20));
	reopen(cl);
	kit_say(cl, 1, AMQP_M_exchange_bind, 0u, "", "amq.fanout", "k", 0u, KIT_EMPTY);
	expect(cl, DEFAULT_REFUSED(40, 30));
	reopen(cl);
	kit_say(cl, 1, AMQP_M_exchange_unbind, 0u, "amq.fanout", "", "k", 0u, KIT_EMPTY);
	expect(cl, DEFAULT_REFUSED(40, 40));
	reopen(cl);
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_say(cl, 1, AMQP_M_queue_bind, 0u, "q", "", "k", 0u, KIT_EMPTY);
	expect(cl, "1 queue.declare_ok(q, 0, 0)\n" DEFAULT_REFUSED(50, 20));
	reopen(cl);
	kit_say(cl, 1, AMQP_M_queue_unbind, 0u, "q", "", "k", KIT_EMPTY);
	expect(cl, DEFAULT_REFUSED(50, 50));
}

static void an_unknown_exchange_type_ends_the_connection_with_503(void **state)
{
	struct kit_client *cl = kit_login(*state, 1);

	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "x", "x-federation-upstream", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	expect(cl, "0 connection.close(503, COMMAND_INVALID - unknown exchange type, 40, 10)\n");
}

/* ---- queues ---- */

static void declare_ok_tells_messages_and_consumers(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	publish(cl, 1, "", "q", "one");
	publish(cl, 1, "", "q", "two");
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	expect(cl, "1 queue.declare_ok(q, 0, 0)\n1 queue.declare_ok(q, 2, 0)\n");
	kit_say(cl, 2, AMQP_M_basic_consume, 0u, "q", "tag", 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_read(cl);
	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "q", 1u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	expect(cl, "1 queue.declare_ok(q, 0, 1)\n");
}

static void a_queue_without_a_name_is_named_and_then_meant_by_the_empty_name(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);

	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "", 0u, 0u, 1u, 1u, 0u, KIT_EMPTY);
	expect(cl, "1 queue.declare_ok(amq.gen-1, 0, 0)\n");
	kit_say(cl, 1, AMQP_M_queue_bind, 0u, "", "amq.direct", "", 0u, KIT_EMPTY); /* no key either: the name is the key */
	publish(cl, 1, "amq.direct", "amq.gen-1", "by its name");
	kit_say(cl, 1, AMQP_M_basic_get, 0u, "", 1u);
	expect(cl, "1 queue.bind_ok()\n1 basic.get_ok(1, 0, amq.direct, amq.gen-1, 0)\n1 header(60, 11)\n1 body(by its name)\n");
	kit_say(cl, 1, AMQP_M_queue_unbind, 0u, "", "amq.direct", "", KIT_EMPTY);
	publish(cl, 1, "amq.direct", "amq.gen-1", "nobody");
	kit_say(cl, 1, AMQP_M_basic_get, 0u, "", 1u);
	expect(cl, "1 queue.unbind_ok()\n1 basic.get_empty()\n");
	kit_say(cl, 1, AMQP_M_queue_delete, 0u, "", 0u, 0u, 0u);
	expect(cl, "1 queue.delete_ok(0)\n");
	kit_say(cl, 2, AMQP_M_queue_bind, 0u, "", "amq.direct", "k", 0u, KIT_EMPTY); /* another channel declared nothing */
	expect(cl, "2 channel.close(404, NOT_FOUND - no previously declared queue, 50, 20)\n");
}

static void an_empty_name_without_a_declaration_is_answered_with_404(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	kit_say(cl, 1, AMQP_M_queue_delete, 0u, "", 0u, 0u, 0u);
	expect(cl, "1 channel.close(404, NOT_FOUND - no previously declared queue, 50, 40)\n");
	reopen(cl);
	kit_say(cl, 1, AMQP_M_queue_unbind, 0u, "", "amq.direct", "k", KIT_EMPTY);
	expect(cl, "1 channel.close(404, NOT_FOUND - no previously declared queue, 50, 50)\n");
	reopen(cl);
	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "", 1u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	expect(cl, "1 channel.close(404, NOT_FOUND - no queue '' in vhost '/', 50, 10)\n");
	for (unsigned kind = AMQP_REQ_QUEUE_DECLARE; kind <= AMQP_REQ_QUEUE_UNBIND; kind++)
		assert_int_equal(k->requests_seen[kind], 0);
}

static void cr_and_lf_are_stripped_from_names(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("\r\nqu\neue\r"));
	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "tic\nks", "fanout", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_queue_bind, 0u, "queue\n", "ticks\r", "k", 0u, KIT_EMPTY);
	expect(cl, "1 queue.declare_ok(queue, 0, 0)\n1 exchange.declare_ok()\n1 queue.bind_ok()\n");
	assert_string_equal(k->exchange[5].name, "ticks");
}

static void a_missing_queue_or_exchange_ends_the_channel_with_404(void **state)
{
	struct kit_client *cl = kit_login(*state, 1);

	kit_say(cl, 1, AMQP_M_queue_bind, 0u, "nowhere", "amq.direct", "k", 0u, KIT_EMPTY);
	expect(cl, "1 channel.close(404, NOT_FOUND - no queue 'nowhere' in vhost '/', 50, 20)\n");
	reopen(cl);
	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "nowhere", 1u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	expect(cl, "1 channel.close(404, NOT_FOUND - no queue 'nowhere' in vhost '/', 50, 10)\n");
	reopen(cl);
	kit_say(cl, 1, AMQP_M_queue_delete, 0u, "nowhere", 0u, 0u, 0u);
	kit_say(cl, 1, AMQP_M_queue_unbind, 0u, "nowhere", "amq.direct", "k", KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_delete, 0u, "nowhere", 0u, 0u);
	expect(cl, "1 queue.delete_ok(0)\n1 queue.unbind_ok()\n1 exchange.delete_ok()\n");
}

static void queue_delete_checks_use_and_emptiness_with_406(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	publish(cl, 1, "", "q", "one");
	publish(cl, 1, "", "q", "two");
	kit_read(cl);
	kit_say(cl, 1, AMQP_M_queue_delete, 0u, "q", 0u, 1u, 0u);
	expect(cl, "1 channel.close(406, PRECONDITION_FAILED - queue 'q' in vhost '/' not empty, 50, 40)\n");
	reopen(cl);
	kit_say(cl, 2, AMQP_M_basic_qos, 0u, 1u, 0u);
	kit_say(cl, 2, AMQP_M_basic_consume, 0u, "q", "tag", 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_read(cl);
	kit_say(cl, 1, AMQP_M_queue_delete, 0u, "q", 1u, 0u, 0u);
	expect(cl, "1 channel.close(406, PRECONDITION_FAILED - queue 'q' in vhost '/' in use, 50, 40)\n");
	reopen(cl);
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DELETE], 0);
	kit_say(cl, 2, AMQP_M_basic_cancel, "tag", 0u);
	kit_read(cl);
	kit_say(cl, 1, AMQP_M_queue_delete, 0u, "q", 1u, 0u, 0u);
	expect(cl, "1 queue.delete_ok(1)\n"); /* one ready, one unacknowledged */
}

static void an_exclusive_queue_is_locked_to_its_connection_and_goes_with_it(void **state)
{
	struct kit *k = *state;
	struct kit_client *owner = kit_login(k, 1), *other = kit_login(k, 1);

	kit_say(owner, 1, AMQP_M_queue_declare, 0u, "mine", 0u, 0u, 1u, 0u, 0u, KIT_EMPTY);
	kit_say(other, 1, AMQP_M_queue_delete, 0u, "mine", 0u, 0u, 0u);
	expect(other,
	       "1 channel.close(405, RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/', 50, "
	       "40)\n");
	kit_say(owner, 0, AMQP_M_connection_close, 200u, "", 0u, 0u);
	expect(owner, "1 queue.declare_ok(mine, 0, 0)\n0 connection.close_ok()\nFIN\n");
	reopen(other);
	kit_say(other, 1, AMQP_M_queue_declare, 0u, "mine", 0u, 0u, 1u, 0u, 0u, KIT_EMPTY);
	expect(other, "1 queue.declare_ok(mine, 0, 0)\n");
}

static void no_wait_is_silent_when_it_succeeds_and_loud_when_it_fails(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	kit_say(cl, 1, AMQP_M_queue_declare, 0u, "q", 0u, 0u, 0u, 0u, 1u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_declare, 0u, "x", "direct", 0u, 0u, 0u, 0u, 1u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_queue_bind, 0u, "q", "x", "k", 1u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_bind, 0u, "amq.fanout", "x", "k", 1u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_exchange_unbind, 0u, "amq.fanout", "x", "k", 1u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_queue_purge, 0u, "q", 1u);
	kit_say(cl, 1, AMQP_M_exchange_delete, 0u, "x", 0u, 1u);
	kit_say(cl, 1, AMQP_M_queue_delete, 0u, "q", 0u, 0u, 1u);
	expect(cl, "");
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DELETE], 1);
	kit_say(cl, 1, AMQP_M_queue_bind, 0u, "q", "amq.direct", "k", 1u, KIT_EMPTY);
	expect(cl, "1 channel.close(404, NOT_FOUND - no queue 'q' in vhost '/', 50, 20)\n");
}

static void purge_tells_how_many_went(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	publish(cl, 1, "", "q", "one");
	publish(cl, 1, "", "q", "two");
	kit_say(cl, 1, AMQP_M_queue_purge, 0u, "", 0u);
	expect(cl, "1 queue.declare_ok(q, 0, 0)\n1 queue.purge_ok(2)\n");
}

/* ---- the wait for control ---- */

static void a_connection_that_waits_is_not_read_and_others_go_on(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2), *other = kit_login(k, 1);

	k->silent = true;
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_say(cl, 2, AMQP_M_basic_qos, 0u, 1u, 0u);
	kit_say(other, 1, AMQP_M_basic_qos, 0u, 1u, 0u);
	expect(cl, "");
	expect(other, "1 basic.qos_ok()\n");
	assert_true(cl->in.len != 0);
	kit_answer(k);
	expect(cl, "1 queue.declare_ok(q, 0, 0)\n2 basic.qos_ok()\n");
	assert_int_equal(cl->in.len, 0);
}

static void a_control_that_stays_away_fails_the_declaration_with_541(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *other = kit_login(k, 1);

	kit_control_lost(k);
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_pass(k, 9 * KIT_SECOND);
	expect(cl, "");
	kit_pass(k, 2 * KIT_SECOND);
	expect(cl, "0 connection.close(541, INTERNAL_ERROR - the control plane is away and did not answer in time, 0, 0)\n");
	assert_int_equal(counted(k, AMQP_CNT_requests_failed), 1);
	assert_int_equal(counted(k, AMQP_CNT_requests_deferred), 1);
	publish(other, 1, "amq.fanout", "k", "ticks flow");
	kit_say(other, 1, AMQP_M_basic_qos, 0u, 1u, 0u);
	expect(other, "1 basic.qos_ok()\n");
	kit_say(cl, 0, AMQP_M_connection_close_ok); /* is read again */
	expect(cl, "FIN\n");
}

static void a_control_that_comes_back_is_asked_again(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *unsent = kit_login(k, 1);

	k->silent = true;
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("asked"));
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], 1);
	kit_control_lost(k); /* the request dies with it */
	kit_say(unsent, 1, AMQP_M_queue_declare, DECLARE_ARGS("unsent"));
	kit_pass(k, KIT_SECOND);
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], 1);
	kit_control_back(k);
	kit_run(k);
	/* After the dump, not before it. */
	assert_int_equal(k->requests[0].rec.kind, AMQP_REQ_DEF_EXCHANGE);
	assert_int_equal(k->requests[5].rec.kind, AMQP_REQ_DEF_CONN);
	assert_int_equal(k->requests[7].rec.kind, AMQP_REQ_DUMP_END);
	assert_int_equal(k->requests[8].rec.kind, AMQP_REQ_QUEUE_DECLARE);
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], 3);
	k->silent = false;
	kit_run(k);
	expect(cl, "1 queue.declare_ok(asked, 0, 0)\n");
	expect(unsent, "1 queue.declare_ok(unsent, 0, 0)\n");
}

static void a_control_that_programs_instead_of_asking_for_a_dump_is_asked_at_once(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct amqp_record op = {.kind = AMQP_OP_QUEUE_PURGE, .id = 7};

	kit_control_lost(k);
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	k->away = false;
	amqp_control_attached(k->b);
	k->silent = true;
	kit_run(k);
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], 0);
	k->silent = false;
	amqp_apply(k->b, &op);
	kit_run(k);
	expect(cl, "1 queue.declare_ok(q, 0, 0)\n");
}

/* Its CONN_GONE lay unread in the ring of a control that died: were it dumped, its exclusive queues would stay for ever. */
static void a_connection_that_is_closing_is_not_dumped_to_a_new_control(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *open = kit_login(k, 1);
	uint64_t uid = cl->c->uid;
	unsigned dumped = 0, others = 0;

	k->silent = true;
	kit_say(cl, 0, AMQP_M_connection_close, 200u, "bye", 0u, 0u);
	kit_control_lost(k);
	kit_control_back(k);
	kit_run(k);
	kit_pass(k, KIT_SECOND);
	for (unsigned i = 0; i < k->requests_count; i++) {
		if (k->requests[i].rec.kind != AMQP_REQ_DEF_CONN)
			continue;
		dumped += k->requests[i].rec.conn_uid == uid;
		others += k->requests[i].rec.conn_uid == open->c->uid;
	}
	assert_int_equal(dumped, 0);
	assert_int_equal(others, 1);
	k->silent = false;
	kit_run(k);
	kit_close(cl);
	kit_run(k);
}

static void a_full_ring_defers_requests_in_their_order(void **state)
{
	struct kit *k = *state;
	struct kit_client *a = kit_login(k, 1), *b = kit_login(k, 1), *gone = kit_login(k, 1), *c = kit_login(k, 1);

	k->away = true; /* to the machine a full ring looks the same */
	kit_say(a, 1, AMQP_M_queue_declare, 0u, "", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_close(gone);
	kit_say(b, 1, AMQP_M_queue_declare, 0u, "", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_pass(k, KIT_SECOND);
	k->away = false;
	k->silent = true;
	kit_say(c, 1, AMQP_M_queue_declare, 0u, "", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	k->silent = false;
	kit_run(k);
	assert_int_equal(k->requests_seen[AMQP_REQ_CONN_GONE], 1);
	expect(a, "1 queue.declare_ok(amq.gen-1, 0, 0)\n");
	expect(b, "1 queue.declare_ok(amq.gen-2, 0, 0)\n");
	expect(c, "1 queue.declare_ok(amq.gen-3, 0, 0)\n");
	assert_int_equal(counted(k, AMQP_CNT_requests_deferred), 3);
}

static void the_end_of_a_connection_is_told_however_long_control_is_away(void **state)
{
	struct kit *k = *state;
	struct kit_client *owner = kit_login(k, 1), *other = kit_login(k, 1);
	uint64_t uid = owner->c->uid;

	kit_say(owner, 1, AMQP_M_queue_declare, 0u, "mine", 0u, 0u, 1u, 0u, 0u, KIT_EMPTY);
	kit_control_lost(k);
	kit_close(owner);
	kit_pass(k, 60 * KIT_SECOND);
	assert_int_equal(k->b->conns_count, 1 + 1); /* the slot waits, so that its uid is not given anew */
	assert_null(amqp_check(k->b));
	k->silent = true;
	kit_control_back(k);
	kit_run(k);
	assert_int_equal(k->requests[k->requests_count - 1].rec.kind, AMQP_REQ_CONN_GONE);
	assert_true(k->requests[k->requests_count - 1].rec.conn_uid == uid);
	assert_int_equal(k->b->conns_count, 1);
	k->silent = false;
	kit_run(k);
	kit_read(other);
	kit_say(other, 1, AMQP_M_queue_declare, 0u, "mine", 0u, 0u, 1u, 0u, 0u, KIT_EMPTY);
	assert_non_null(strstr(kit_read(other), "queue.declare_ok(mine"));
}

static void a_client_that_leaves_while_it_waits_leaves_nothing(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	k->silent = true;
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_close(cl);
	assert_null(amqp_check(k->b));
	k->silent = false;
	cl = kit_login(k, 1); /* the slot's next user is not the one that the answer is for */
	expect(cl, "");
	assert_int_equal(cl->c->channels_count, 1);
}

static void a_definition_that_finds_no_room_is_answered_with_506(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);

	k->bad_op = true;
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	expect(cl, "0 connection.close(506, RESOURCE_ERROR - a worker has no room for this definition, 50, 10)\n");
	assert_int_equal(k->requests_seen[AMQP_REQ_OP_FAILED], 1);
	assert_int_equal(counted(k, AMQP_CNT_ops_refused), 1);
}

static void answers_to_nobody_are_ignored(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct amqp_record op = {.kind = AMQP_OP_REPLY, .conn_uid = cl->c->uid, .code = 404};
	static const uint64_t tokens[] = {0, 1, 1ull << 32, UINT64_MAX, 0xffffffffull};

	for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
		op.token = tokens[i];
		assert_true(amqp_apply(k->b, &op));
	}
	expect(cl, "");
	op.kind = 9999;
	assert_false(amqp_apply(k->b, &op));
	op.kind = AMQP_REC_NONE;
	assert_false(amqp_apply(k->b, &op));
	expect(cl, "");
}

static void an_answer_with_senseless_values_is_survived(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct amqp_record op = {.kind = AMQP_OP_REPLY, .id = 0xdeadbeefu};

	k->silent = true;
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	op.token = cl->c->wait_token;
	amqp_apply(k->b, &op);
	expect(cl, "1 queue.declare_ok(q, 0, 0)\n");
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	op.token = cl->c->wait_token;
	op.code = 999;
	op.str[0] = (struct amqp_span){(const uint8_t *)"\xff\xfe", 2};
	amqp_apply(k->b, &op);
	expect(cl, "0 connection.close(541, INTERNAL_ERROR - ??, 50, 10)\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		kit_test(exchanges_are_declared_bound_and_deleted),
		kit_test(exchange_flags_reach_control_as_they_were_sent),
		kit_test(the_default_exchange_is_refused_with_403),
		kit_test(an_unknown_exchange_type_ends_the_connection_with_503),
		kit_test(declare_ok_tells_messages_and_consumers),
		kit_test(a_queue_without_a_name_is_named_and_then_meant_by_the_empty_name),
		kit_test(an_empty_name_without_a_declaration_is_answered_with_404),
		kit_test(cr_and_lf_are_stripped_from_names),
		kit_test(a_missing_queue_or_exchange_ends_the_channel_with_404),
		kit_test(queue_delete_checks_use_and_emptiness_with_406),
		kit_test(an_exclusive_queue_is_locked_to_its_connection_and_goes_with_it),
		kit_test(no_wait_is_silent_when_it_succeeds_and_loud_when_it_fails),
		kit_test(purge_tells_how_many_went),
		kit_test(a_connection_that_waits_is_not_read_and_others_go_on),
		kit_test(a_control_that_stays_away_fails_the_declaration_with_541),
		kit_test(a_control_that_comes_back_is_asked_again),
		kit_test(a_control_that_programs_instead_of_asking_for_a_dump_is_asked_at_once),
		kit_test(a_connection_that_is_closing_is_not_dumped_to_a_new_control),
		kit_test(a_full_ring_defers_requests_in_their_order),
		kit_test(the_end_of_a_connection_is_told_however_long_control_is_away),
		kit_test(a_client_that_leaves_while_it_waits_leaves_nothing),
		kit_test(a_definition_that_finds_no_room_is_answered_with_506),
		kit_test(answers_to_nobody_are_ignored),
		kit_test(an_answer_with_senseless_values_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
