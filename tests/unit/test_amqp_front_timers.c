/*
 * test_amqp_front_timers.c - what the clock brings about, and input that is paused: heartbeats, deadlines, stalls and their end.
 *
 * Owns: nothing.
 * Core: test; time is virtual.
 * Spec: AMQP 0-9-1 section 4.2.7; RabbitMQ's intervals; DESIGN section 4 (a full pool is a normal outcome).
 */
#include "tests/unit/amqp_front_test.h"

#define DECLARE_ARGS(name) 0u, name, 0u, 0u, 0u, 0u, 0u, KIT_EMPTY

static unsigned count_lines(const char *text, const char *line)
{
	unsigned n = 0;

	for (text = strstr(text, line); text != NULL; text = strstr(text + 1, line))
		n++;
	return n;
}

/* A client past connection.open with a heartbeat of its own choice. */
static struct kit_client *login_with_heartbeat(struct kit *k, unsigned heartbeat_s)
{
	struct kit_client *cl = kit_accept(k);
	struct kit_bytes bytes = {0};

	kit_raw(&bytes, "AMQP\0\0\x09\x01", 8);
	kit_method(&bytes, 0, AMQP_M_connection_start_ok, KIT_EMPTY, "PLAIN",
		   (struct amqp_span){(const uint8_t *)"\0guest\0guest", 12}, "en_US");
	kit_method(&bytes, 0, AMQP_M_connection_tune_ok, 10u, 131072u, heartbeat_s);
	kit_method(&bytes, 0, AMQP_M_connection_open, "/", "", 0u);
	kit_method(&bytes, 1, AMQP_M_channel_open, "");
	kit_send(cl, bytes.p, bytes.len);
	kit_bytes_free(&bytes);
	kit_read(cl);
	return cl;
}

static void heartbeat_of_client(struct kit_client *cl)
{
	kit_send(cl, "\x08\0\0\0\0\0\0\xce", 8);
}

/* ---- heartbeats ---- */

static void a_silent_broker_sends_a_heartbeat_every_half_interval(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = login_with_heartbeat(k, 60);

	kit_pass(k, 29 * KIT_SECOND);
	expect(cl, "");
	kit_pass(k, 2 * KIT_SECOND);
	expect(cl, "heartbeat\n");
	kit_pass(k, 70 * KIT_SECOND);
	assert_int_equal(count_lines(kit_read(cl), "heartbeat\n"), 2);
	assert_int_equal(counted(k, AMQP_CNT_heartbeats_sent), 3);
}

static void a_broker_that_talks_sends_no_heartbeat(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = login_with_heartbeat(k, 4);

	for (int i = 0; i < 20; i++) {
		kit_pass(k, KIT_SECOND);
		kit_say(cl, 1, AMQP_M_basic_qos, 0u, 1u, 0u);
	}
	assert_int_equal(counted(k, AMQP_CNT_heartbeats_sent), 0);
}

static void two_intervals_without_an_octet_reset_the_connection(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = login_with_heartbeat(k, 10), *alive = login_with_heartbeat(k, 10);

	kit_pass(k, 19 * KIT_SECOND);
	assert_non_null(cl->c);
	heartbeat_of_client(alive);
	kit_pass(k, 3 * KIT_SECOND);
	assert_true(cl->rst);
	assert_int_equal(counted(k, AMQP_CNT_heartbeat_timeouts), 1);
	assert_int_equal(k->requests_seen[AMQP_REQ_CONN_GONE], 1);
	heartbeat_of_client(alive);
	assert_non_null(alive->c);
}

static void any_octet_counts_as_life(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = login_with_heartbeat(k, 2);
	struct kit_bytes bytes = {0};

	kit_publish(&bytes, 1, "amq.fanout", "k", "slowly", 6, 6);
	for (size_t i = 0; i < bytes.len; i++) {
		kit_send(cl, bytes.p + i, 1);
		kit_pass(k, 3 * KIT_SECOND);
	}
	assert_non_null(cl->c);
	assert_int_equal(counted(k, AMQP_CNT_publishes), 1);
	kit_bytes_free(&bytes);
}

static void heartbeat_0_turns_them_off(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = login_with_heartbeat(k, 0);

	kit_pass(k, 600 * KIT_SECOND);
	expect(cl, "");
	assert_non_null(cl->c);
}

static void a_connection_that_we_do_not_read_is_not_taken_for_dead(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = login_with_heartbeat(k, 1);

	k->silent = true;
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_pass(k, 9 * KIT_SECOND);
	assert_non_null(cl->c);
	kit_answer(k);
	assert_non_null(strstr(kit_read(cl), "1 queue.declare_ok(q, 0, 0)\n"));
	k->silent = false;
	kit_pass(k, 3 * KIT_SECOND);
	assert_true(cl->rst); /* now its silence is its own */
}

/* ---- deadlines ---- */

static void a_handshake_that_takes_ten_seconds_is_ended_at_any_stage(void **state)
{
	struct kit *k = *state;
	struct kit_bytes bytes = {0};
	struct kit_client *cl[4];
	size_t cuts[4] = {0, 5, 8, 0};

	kit_handshake(&bytes);
	cuts[3] = bytes.len - 3; /* in the middle of connection.open */
	for (unsigned i = 0; i < 4; i++) {
		cl[i] = kit_accept(k);
		kit_send(cl[i], bytes.p, cuts[i]);
		kit_read(cl[i]);
	}
	kit_pass(k, 9 * KIT_SECOND);
	for (unsigned i = 0; i < 4; i++)
		expect(cl[i], "");
	kit_pass(k, 2 * KIT_SECOND);
	for (unsigned i = 0; i < 4; i++)
		expect(cl[i], "FIN\n");
	assert_int_equal(counted(k, AMQP_CNT_handshake_timeouts), 4);
	kit_bytes_free(&bytes);
}

static void a_client_that_drips_its_handshake_gains_no_time(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_accept(k);
	struct kit_bytes bytes = {0};

	kit_handshake(&bytes);
	for (size_t i = 0; i < 25; i++) {
		kit_send(cl, bytes.p + i, 1);
		kit_pass(k, KIT_SECOND / 2);
	}
	assert_true(cl->fin);
	kit_bytes_free(&bytes);
}

static void a_close_without_an_answer_ends_in_a_reset(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *half = kit_login(k, 1);

	kit_say(cl, 9, AMQP_M_basic_qos, 0u, 1u, 0u);
	kit_say(half, 0, AMQP_M_connection_close, 200u, "", 0u, 0u);
	assert_true(half->fin);
	kit_pass(k, 2 * KIT_SECOND);
	assert_non_null(half->c);
	kit_pass(k, 2 * KIT_SECOND);
	assert_true(half->rst); /* it answered our FIN with nothing */
	kit_pass(k, 5 * KIT_SECOND);
	assert_non_null(cl->c); /* close-ok has more time: our close may lie behind much that the client has to read */
	kit_pass(k, 2 * KIT_SECOND);
	assert_true(cl->rst);
}

/* ---- stalls ---- */

static void a_full_pool_stops_publishers_until_messages_go(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *other = kit_login(k, 1);
	static uint8_t body[60000];
	struct kit_bytes bytes = {0};
	struct amqp_usage u;

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_read(cl);
	for (int i = 0; i < 30; i++)
		kit_publish(&bytes, 1, "", "q", body, sizeof body, 30000);
	kit_send(cl, bytes.p, bytes.len);
	amqp_usage(k->b, &u);
	assert_true(cl->in.len != 0 && u.messages < 30);
	assert_true(counted(k, AMQP_CNT_stalls_memory) > 0);
	kit_pass(k, 5 * KIT_SECOND);
	assert_true(cl->in.len != 0);
	/* The others are served, and their gets make room. */
	for (int i = 0; i < 30; i++) {
		kit_say(other, 1, AMQP_M_basic_get, 0u, "q", 1u);
		assert_non_null(strstr(kit_read(other), "basic.get_ok"));
		kit_release_refs(k);
		kit_run(k);
	}
	assert_int_equal(cl->in.len, 0);
	assert_int_equal(counted(k, AMQP_CNT_publishes), 30);
	kit_say(other, 1, AMQP_M_basic_get, 0u, "q", 1u);
	expect(other, "1 basic.get_empty()\n");
	kit_bytes_free(&bytes);
}

/* The same with packets that cut the frames, so that a stalled frame lies joined in the connection. */
static void a_stalled_frame_that_was_joined_is_handled_when_there_is_room(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *other = kit_login(k, 1);
	static uint8_t body[60000];
	struct kit_bytes bytes = {0};

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_read(cl);
	for (int i = 0; i < 30; i++)
		kit_publish(&bytes, 1, "", "q", body, sizeof body, 60000);
	for (size_t at = 0; at < bytes.len; at += 11)
		kit_feed(cl, bytes.p + at, bytes.len - at < 11 ? bytes.len - at : 11);
	kit_run(k);
	assert_true(counted(k, AMQP_CNT_stalls_memory) > 0);
	for (int i = 0; i < 30; i++) {
		kit_say(other, 1, AMQP_M_basic_get, 0u, "q", 1u);
		assert_non_null(strstr(kit_read(other), "basic.get_ok"));
		kit_release_refs(k);
		kit_run(k);
	}
	assert_int_equal(counted(k, AMQP_CNT_publishes), 30);
	assert_int_equal(cl->in.len, 0);
	kit_bytes_free(&bytes);
}

static void acks_get_through_when_the_pool_is_full(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);
	struct kit_bytes bytes = {0};
	void *blocks[4097];
	unsigned blocks_count = 0;

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_publish(&bytes, 1, "", "q", "x", 1, 1);
	kit_send(cl, bytes.p, bytes.len);
	kit_say(cl, 2, AMQP_M_basic_consume, 0u, "q", "tag", 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_read(cl);
	while ((blocks[blocks_count] = amqp_pool_alloc(k->b->pool, 1)) != NULL)
		blocks_count++;
	bytes.len = 0;
	kit_method(&bytes, 2, AMQP_M_basic_ack, (uint64_t)1, 0u);
	for (size_t at = 0; at < bytes.len; at++)
		kit_send(cl, bytes.p + at, 1);
	assert_int_equal(counted(k, AMQP_CNT_acks), 1);
	assert_int_equal(counted(k, AMQP_CNT_stalls_memory), 0);
	assert_int_equal(cl->in.len, 0);
	while (blocks_count != 0)
		amqp_pool_free(k->b->pool, blocks[--blocks_count]);
	kit_bytes_free(&bytes);
}

/* Whole, and cut by packets: then the frame lies complete in the connection, and no byte follows that would bring it up again. */
static void a_declaration_that_cannot_be_held_waits_for_memory(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct kit_bytes bytes = {0};
	void *blocks[4097];
	unsigned blocks_count = 0;

	kit_method(&bytes, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	for (unsigned cut = 0; cut < bytes.len; cut += 9) {
		while ((blocks[blocks_count] = amqp_pool_alloc(k->b->pool, 1)) != NULL)
			blocks_count++;
		kit_send(cl, bytes.p, cut);
		kit_send(cl, bytes.p + cut, bytes.len - cut);
		expect(cl, "");
		assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], cut / 9);
		while (blocks_count != 0)
			amqp_pool_free(k->b->pool, blocks[--blocks_count]);
		kit_run(k);
		expect(cl, "1 queue.declare_ok(q, 0, 0)\n");
		assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], cut / 9 + 1);
	}
	kit_bytes_free(&bytes);
}

static void a_client_that_does_not_read_its_answers_is_not_read(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct kit_bytes bytes = {0};

	for (int i = 0; i < 100; i++)
		kit_method(&bytes, 1, AMQP_M_basic_qos, 0u, 1u, 0u);
	cl->over_mark = true;
	kit_send(cl, bytes.p, bytes.len);
	assert_true(count_lines(kit_read(cl), "qos_ok") <= 1);
	assert_true(counted(k, AMQP_CNT_stalls_unsent) >= 1);
	cl->over_mark = false;
	amqp_conn_writable(cl->c);
	kit_run(k);
	assert_true(count_lines(kit_read(cl), "qos_ok") >= 99);
	assert_int_equal(cl->in.len, 0);
	kit_bytes_free(&bytes);
}

static void a_stalled_client_that_closes_leaves_nothing(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct kit_bytes bytes = {0};

	for (int i = 0; i < 10; i++)
		kit_method(&bytes, 1, AMQP_M_basic_qos, 0u, 1u, 0u);
	cl->over_mark = true;
	kit_send(cl, bytes.p, bytes.len);
	assert_true(cl->c->stalled);
	kit_close(cl);
	cl = kit_login(k, 1); /* in the same slot, whose index is still on the list */
	assert_false(cl->c->stalled);
	kit_say(cl, 1, AMQP_M_basic_qos, 0u, 1u, 0u);
	expect(cl, "1 basic.qos_ok()\n");
	kit_bytes_free(&bytes);
}

static void input_that_waits_is_discarded_after_an_operators_close(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct amqp_record op = {.kind = AMQP_OP_CONN_CLOSE, .conn_uid = cl->c->uid, .code = 320};
	struct kit_bytes bytes = {0};

	op.str[0] = span_of("closed by an operator");
	k->silent = true;
	kit_method(&bytes, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	for (int i = 0; i < 10; i++)
		kit_method(&bytes, 1, AMQP_M_basic_qos, 0u, 1u, 0u);
	kit_method(&bytes, 0, AMQP_M_connection_close_ok);
	kit_send(cl, bytes.p, bytes.len);
	assert_true(cl->in.len != 0);
	amqp_apply(k->b, &op);
	kit_run(k);
	expect(cl, "0 connection.close(320, CONNECTION_FORCED - closed by an operator, 0, 0)\nFIN\n");
	assert_int_equal(cl->in.len, 0);
	kit_bytes_free(&bytes);
}

/* ---- the sweep ---- */

static void many_connections_are_all_looked_at_within_a_second(void **state)
{
	struct kit *k = malloc(sizeof *k);
	struct amqp_limits l;
	struct amqp_conn *c[3000];
	static struct kit_client io[3000];
	unsigned ended = 0;

	(void)state;
	kit_limits(&l);
	l.conns_max = 3000;
	kit_init(k, &l);
	for (unsigned i = 0; i < 3000; i++) {
		io[i] = (struct kit_client){.k = k};
		c[i] = amqp_conn_accept(k->b, &io[i], "198.18.0.1", 1, 5672);
		assert_non_null(c[i]);
	}
	/* A millisecond a turn, as the worker has it. */
	for (unsigned ms = 0; ms < 10900; ms++) {
		k->now_ns += 1000000;
		amqp_set_now(k->b, k->now_ns, 0);
		amqp_tick(k->b);
	}
	for (unsigned i = 0; i < 3000; i++)
		ended += io[i].fin;
	assert_int_equal(ended, 3000);
	for (unsigned i = 0; i < 3000; i++)
		amqp_conn_closed(c[i]);
	assert_null(kit_fini(k));
	free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		kit_test(a_silent_broker_sends_a_heartbeat_every_half_interval),
		kit_test(a_broker_that_talks_sends_no_heartbeat),
		kit_test(two_intervals_without_an_octet_reset_the_connection),
		kit_test(any_octet_counts_as_life),
		kit_test(heartbeat_0_turns_them_off),
		kit_test(a_connection_that_we_do_not_read_is_not_taken_for_dead),
		kit_test(a_handshake_that_takes_ten_seconds_is_ended_at_any_stage),
		kit_test(a_client_that_drips_its_handshake_gains_no_time),
		kit_test(a_close_without_an_answer_ends_in_a_reset),
		kit_test(a_full_pool_stops_publishers_until_messages_go),
		kit_test(a_stalled_frame_that_was_joined_is_handled_when_there_is_room),
		kit_test(acks_get_through_when_the_pool_is_full),
		kit_test(a_declaration_that_cannot_be_held_waits_for_memory),
		kit_test(a_client_that_does_not_read_its_answers_is_not_read),
		kit_test(a_stalled_client_that_closes_leaves_nothing),
		kit_test(input_that_waits_is_discarded_after_an_operators_close),
		cmocka_unit_test(many_connections_are_all_looked_at_within_a_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
