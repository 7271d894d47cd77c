/*
 * test_amqp_front_handshake.c - from the protocol header to connection.open-ok, every way it may fail, and the close handshake.
 *
 * Owns: nothing.
 * Core: test.
 * Spec: AMQP 0-9-1 sections 1.4 and 2.2.4, RabbitMQ 3.10 where it is stricter.
 */
#include "tests/unit/amqp_front_test.h"

static const uint8_t guest[] = "\0guest\0guest", wrong[] = "\0guest\0wrong";
#define GUEST ((struct amqp_span){guest, sizeof guest - 1})
#define WRONG ((struct amqp_span){wrong, sizeof wrong - 1})
static const char protocol[] = "AMQP\0\0\x09\x01";

#define START                                                                                                                      \
	"0 connection.start(0, 9, {capabilities={publisher_confirms=true, exchange_exchange_bindings=true, basic.nack=true, "      \
	"consumer_cancel_notify=true, authentication_failure_close=true, per_consumer_qos=true}, cluster_name=kit, "               \
	"copyright=Copyright (c) 2026 the Tickwire authors, information=Market data over AMQP. See README.md and LICENSE, which "  \
	"came with it., platform=C11, DPDK, product=Tickwire, version=" TICKWIRE_VERSION "}, AMQPLAIN PLAIN, en_US)\n"
#define TUNE "0 connection.tune(2047, 131072, 60)\n"

static struct kit_client *at_start(struct kit *k)
{
	struct kit_client *cl = kit_accept(k);

	kit_send(cl, protocol, 8);
	expect(cl, START);
	return cl;
}

static struct kit_client *at_tune(struct kit *k)
{
	struct kit_client *cl = at_start(k);

	kit_say(cl, 0, AMQP_M_connection_start_ok, KIT_EMPTY, "PLAIN", GUEST, "en_US");
	expect(cl, TUNE);
	return cl;
}

static struct kit_client *at_open(struct kit *k)
{
	struct kit_client *cl = at_tune(k);

	kit_say(cl, 0, AMQP_M_connection_tune_ok, 2047u, 131072u, 60u);
	expect(cl, "");
	return cl;
}

static struct amqp_span failure_close(uint8_t *buf, size_t cap)
{
	struct amqp_table_writer t;

	amqp_table_begin(&t, buf, cap);
	amqp_table_open(&t, "capabilities");
	amqp_table_put_bool(&t, "authentication_failure_close", true);
	amqp_table_close(&t);
	return (struct amqp_span){buf, (uint32_t)t.len};
}

/* ---- the walk ---- */

static void a_client_is_taken_from_the_protocol_header_to_open_ok(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_open(k);
	struct amqp_row_conn row;

	kit_say(cl, 0, AMQP_M_connection_open, "/", "", 0u);
	expect(cl, "0 connection.open_ok()\n");
	assert_int_equal(counted(k, AMQP_CNT_connections_opened), 1);
	assert_true(amqp_row_conn(k->b, 0, &row));
	assert_string_equal(row.state, "running");
	assert_int_equal(row.channel_max, 2047);
	assert_int_equal(row.frame_max, 131072);
	assert_int_equal(row.timeout_s, 60);
	assert_memory_equal(row.user.ptr, "guest", 5);
}

static void amqplain_logs_in_too(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_start(k);
	uint8_t response[64];
	struct amqp_table_writer t;

	amqp_table_begin(&t, response, sizeof response);
	amqp_table_put_cstr(&t, "LOGIN", "guest");
	amqp_table_put_cstr(&t, "PASSWORD", "guest");
	kit_say(cl, 0, AMQP_M_connection_start_ok, KIT_EMPTY, "AMQPLAIN", (struct amqp_span){response, (uint32_t)t.len}, "en_US");
	expect(cl, TUNE);
}

static void another_protocol_gets_ours_back_and_a_fin(void **state)
{
	static const char *const headers[] = {
		"GET / HTTP/1.1\r\n\r\n",           "AMQP\0\1\0\0",    "AMQP\1\1\0\x0a", "AMQP\3\1\0\0",
		"\x16\x03\x01\x02\x00\x01\x00\x01", "AMQP\0\0\x09\x02"};
	struct kit *k = *state;

	for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
		struct kit_client *cl = kit_accept(k);

		kit_send(cl, headers[i], i == 0 ? 18 : 8);
		expect(cl, "AMQP 0 0 9 1\nFIN\n");
		kit_send(cl, "whatever follows is discarded", 29);
		expect(cl, "FIN\n");
		assert_int_equal(cl->in.len, 0);
		kit_close(cl);
	}
	assert_int_equal(counted(k, AMQP_CNT_protocol_headers_refused), 6);
}

static void every_pool_slot_refuses_the_connection_after_the_last(void **state)
{
	struct kit *k = *state;
	struct amqp_conn *c[8];

	for (unsigned i = 0; i < 8; i++) {
		c[i] = amqp_conn_accept(k->b, &k->client[i], "198.18.0.1", 1, 5672);
		assert_non_null(c[i]);
	}
	assert_null(amqp_conn_accept(k->b, NULL, "198.18.0.1", 1, 5672));
	for (unsigned i = 0; i < 8; i++)
		amqp_conn_closed(c[i]);
	c[0] = amqp_conn_accept(k->b, &k->client[0], "198.18.0.1", 1, 5672);
	assert_non_null(c[0]);
	amqp_conn_closed(c[0]);
}

/* ---- log-in ---- */

static void a_wrong_password_closes_with_403_for_a_client_that_can_hear_it(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_start(k);
	uint8_t buf[64];

	kit_say(cl, 0, AMQP_M_connection_start_ok, failure_close(buf, sizeof buf), "PLAIN", WRONG, "en_US");
	expect(cl,
	       "0 connection.close(403, ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see "
	       "the broker logfile., 0, 0)\n");
	assert_int_equal(counted(k, AMQP_CNT_logins_failed), 1);
	kit_say(cl, 0, AMQP_M_connection_close_ok);
	expect(cl, "FIN\n");
}

static void a_wrong_password_closes_in_silence_after_a_second_for_any_other_client(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_start(k);

	kit_say(cl, 0, AMQP_M_connection_start_ok, KIT_EMPTY, "PLAIN", WRONG, "en_US");
	kit_pass(k, 9 * KIT_SECOND / 10);
	kit_say(cl, 0, AMQP_M_connection_start_ok, KIT_EMPTY, "PLAIN", GUEST, "en_US");
	expect(cl, "");
	kit_pass(k, KIT_SECOND / 2);
	expect(cl, "FIN\n");
	assert_int_equal(counted(k, AMQP_CNT_logins_failed), 1);
	assert_int_equal(k->requests_seen[AMQP_REQ_LOGIN], 1);
}

static void an_unknown_mechanism_closes_in_silence(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_start(k);
	uint8_t buf[64];

	kit_say(cl, 0, AMQP_M_connection_start_ok, failure_close(buf, sizeof buf), "SCRAM-SHA-256", GUEST, "en_US");
	kit_pass(k, 2 * KIT_SECOND);
	expect(cl, "FIN\n");
	assert_int_equal(k->requests_seen[AMQP_REQ_LOGIN], 0);
}

static void a_log_in_that_control_does_not_answer_fails_with_541(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_start(k);

	kit_pass(k, 5 * KIT_SECOND); /* the client's own time for the handshake runs out before control's */
	k->silent = true;
	kit_say(cl, 0, AMQP_M_connection_start_ok, KIT_EMPTY, "PLAIN", GUEST, "en_US");
	kit_pass(k, 9 * KIT_SECOND);
	expect(cl, "");
	kit_pass(k, 2 * KIT_SECOND);
	expect(cl, "0 connection.close(541, INTERNAL_ERROR - the control plane is away and did not answer in time, 0, 0)\n");
	kit_say(cl, 0, AMQP_M_connection_close_ok);
	expect(cl, "FIN\n");
	k->silent = false;
	kit_run(k); /* the late answer finds nobody */
	expect(cl, "FIN\n");
}

static size_t occurrences(const struct kit *k, const char *text)
{
	const uint8_t *mem = k->mem;
	size_t len = amqp_broker_bytes(&k->limits), text_len = strlen(text), n = 0;

	for (size_t i = 0; i + text_len <= len; i++)
		n += mem[i] == (uint8_t)text[0] && memcmp(mem + i, text, text_len) == 0;
	return n;
}

static void the_password_is_wiped_from_memory_that_was_held(void **state)
{
	static const uint8_t secret[] = "\0guest\0a-rare-password-to-look-for";
	static const uint8_t padding[200];
	struct kit *k = *state;
	struct kit_bytes bytes = {0};
	uint8_t props[256];
	struct amqp_table_writer t;

	/* Whole, joined in the connection, and joined in the pool; control looks while it is held. */
	for (unsigned way = 0; way < 3; way++) {
		struct kit_client *cl = at_start(k);

		amqp_table_begin(&t, props, sizeof props);
		amqp_table_put_str(&t, "padding", padding, way == 2 ? 200 : 1);
		bytes.len = 0;
		kit_method(&bytes, 0, AMQP_M_connection_start_ok, (struct amqp_span){props, (uint32_t)t.len}, "PLAIN",
			   (struct amqp_span){secret, sizeof secret - 1}, "en_US");
		k->silent = true;
		if (way != 0)
			kit_send(cl, bytes.p, 20);
		kit_send(cl, bytes.p + (way != 0 ? 20 : 0), bytes.len - (way != 0 ? 20 : 0));
		assert_true(occurrences(k, "a-rare-password-to-look") >= 1);
		k->silent = false;
		kit_run(k);
		assert_int_equal(counted(k, AMQP_CNT_logins_failed), way + 1);
		assert_int_equal(occurrences(k, "a-rare-password-to-look"), 0);
	}
	kit_bytes_free(&bytes);
}

/* ---- order ---- */

static void methods_out_of_their_turn_are_refused_with_503(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_start(k);

	kit_say(cl, 0, AMQP_M_connection_open, "/", "", 0u);
	expect(cl, "0 connection.close(503, COMMAND_INVALID - method connection.open is not expected now, 10, 40)\n");
	cl = at_start(k);
	kit_say(cl, 0, AMQP_M_connection_tune_ok, 2047u, 131072u, 60u);
	expect(cl, "0 connection.close(503, COMMAND_INVALID - method connection.tune_ok is not expected now, 10, 31)\n");
	cl = at_start(k);
	kit_say(cl, 0, AMQP_M_connection_secure_ok, GUEST);
	expect(cl, "0 connection.close(503, COMMAND_INVALID - method connection.secure_ok answers nothing, 10, 21)\n");
	cl = at_start(k);
	kit_say(cl, 0, AMQP_M_queue_declare, 0u, "q", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	expect(cl, "0 connection.close(503, COMMAND_INVALID - method queue.declare is not expected now, 50, 10)\n");
	cl = at_tune(k);
	kit_say(cl, 0, AMQP_M_connection_start_ok, KIT_EMPTY, "PLAIN", GUEST, "en_US");
	expect(cl, "0 connection.close(503, COMMAND_INVALID - method connection.start_ok is not expected now, 10, 11)\n");
}

static void a_second_open_is_refused_with_503(void **state)
{
	struct kit_client *cl = kit_login(*state, 0);

	kit_say(cl, 0, AMQP_M_connection_open, "/", "", 0u);
	expect(cl, "0 connection.close(503, COMMAND_INVALID - method connection.open is not expected now, 10, 40)\n");
}

static void channels_wait_for_open_ok(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_open(k);

	kit_say(cl, 1, AMQP_M_channel_open, "");
	expect(cl, "0 connection.close(503, COMMAND_INVALID - method channel.open is not expected now, 20, 10)\n");
	cl = at_start(k);
	kit_say(cl, 1, AMQP_M_channel_open, "");
	expect(cl, "0 connection.close(504, CHANNEL_ERROR - channel 1 is above the limit of 0, 0, 0)\n");
}

static void frames_before_open_are_bounded_to_4096_octets(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_start(k);
	static uint8_t padding[4096];
	struct kit_bytes bytes = {0};
	uint8_t props[4100];
	struct amqp_table_writer t;

	amqp_table_begin(&t, props, sizeof props);
	amqp_table_put_str(&t, "padding", padding, 3990);
	kit_method(&bytes, 0, AMQP_M_connection_start_ok, (struct amqp_span){props, (uint32_t)t.len}, "PLAIN", GUEST, "en_US");
	assert_true(bytes.len < 4096);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, TUNE);
	cl = at_start(k);
	bytes.len = 0;
	amqp_table_begin(&t, props, sizeof props);
	amqp_table_put_str(&t, "padding", padding, 4050);
	kit_method(&bytes, 0, AMQP_M_connection_start_ok, (struct amqp_span){props, (uint32_t)t.len}, "PLAIN", GUEST, "en_US");
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "0 connection.close(501, FRAME_ERROR - frame payload too large (4099), 0, 0)\nFIN\n");
	kit_bytes_free(&bytes);
}

/* ---- tune ---- */

static void expect_tune_refused(struct kit *k, unsigned channel_max, unsigned frame_max, const char *transcript)
{
	struct kit_client *cl = at_tune(k);

	kit_say(cl, 0, AMQP_M_connection_tune_ok, channel_max, frame_max, 60u);
	expect(cl, transcript);
	kit_close(cl);
}

static void tune_ok_beyond_the_offer_is_refused_with_530(void **state)
{
	struct kit *k = *state;

	expect_tune_refused(
		k, 0, 131072,
		"0 connection.close(530, NOT_ALLOWED - negotiated channel_max = 0 (no limit) is higher than the maximum "
		"allowed value (2047), 10, 31)\n");
	expect_tune_refused(
		k, 2048, 131072,
		"0 connection.close(530, NOT_ALLOWED - negotiated channel_max = 2048 is higher than the maximum allowed "
		"value (2047), 10, 31)\n");
	expect_tune_refused(
		k, 2047, 0,
		"0 connection.close(530, NOT_ALLOWED - negotiated frame_max = 0 bytes (no limit) is higher than the maximum "
		"allowed value (131072), 10, 31)\n");
	expect_tune_refused(k, 2047, 131073,
			    "0 connection.close(530, NOT_ALLOWED - negotiated frame_max = 131073 bytes is higher than the maximum "
			    "allowed value (131072), 10, 31)\n");
	expect_tune_refused(
		k, 2047, 4095,
		"0 connection.close(530, NOT_ALLOWED - negotiated frame_max = 4095 bytes is lower than the minimum allowed "
		"value (4096), 10, 31)\n");
}

static void what_tune_ok_lowers_holds(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_tune(k);
	struct kit_bytes bytes = {0};
	static uint8_t body[8192];

	kit_say(cl, 0, AMQP_M_connection_tune_ok, 2u, 4096u, 0u);
	kit_say(cl, 0, AMQP_M_connection_open, "/", "", 0u);
	kit_say(cl, 2, AMQP_M_channel_open, "");
	expect(cl, "0 connection.open_ok()\n2 channel.open_ok()\n");
	kit_publish(&bytes, 2, "amq.direct", "k", body, 4088, 4088); /* the largest payload that fits */
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "");
	bytes.len = 0;
	kit_publish(&bytes, 2, "amq.direct", "k", body, 4089, 4089);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "0 connection.close(501, FRAME_ERROR - frame payload too large (4089), 0, 0)\nFIN\n");
	kit_bytes_free(&bytes);
	cl = at_tune(k);
	kit_say(cl, 0, AMQP_M_connection_tune_ok, 2u, 4096u, 0u);
	kit_say(cl, 0, AMQP_M_connection_open, "/", "", 0u);
	kit_say(cl, 3, AMQP_M_channel_open, "");
	expect(cl, "0 connection.open_ok()\n"
		   "0 connection.close(504, CHANNEL_ERROR - channel 3 is above the limit of 2, 0, 0)\n");
}

/* ---- open ---- */

static void an_unknown_vhost_is_refused_with_530(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_open(k);

	kit_say(cl, 0, AMQP_M_connection_open, "nowhere", "", 0u);
	expect(cl, "0 connection.close(530, NOT_ALLOWED - vhost not found, 10, 40)\n");
	assert_int_equal(counted(k, AMQP_CNT_connections_opened), 0);
}

static void a_new_secret_is_proved_before_it_is_accepted(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct kit_bytes big = {0};

	kit_say(cl, 0, AMQP_M_connection_update_secret, span_of("new secret"), "it was time");
	expect(cl, "0 connection.update_secret_ok()\n");
	kit_say(cl, 0, AMQP_M_connection_update_secret, span_of("no secret of his"), "");
	expect(cl, "0 connection.close(530, NOT_ALLOWED - the new secret was refused, 10, 70)\n");
	assert_int_equal(k->requests_seen[AMQP_REQ_LOGIN], 3);
	cl = kit_login(k, 1);
	for (int i = 0; i < 5000; i++)
		kit_raw(&big, "x", 1);
	kit_say(cl, 0, AMQP_M_connection_update_secret, (struct amqp_span){big.p, 5000}, "");
	expect(cl, "0 connection.close(530, NOT_ALLOWED - the new secret was refused, 10, 70)\n");
	kit_bytes_free(&big);
}

/* ---- the close handshake ---- */

static void a_client_that_closes_hears_close_ok_and_fin(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);

	kit_say(cl, 0, AMQP_M_connection_close, 200u, "bye", 0u, 0u);
	expect(cl, "0 connection.close_ok()\nFIN\n");
	assert_int_equal(k->requests_seen[AMQP_REQ_CONN_GONE], 1);
	kit_say(cl, 1, AMQP_M_channel_close, 200u, "", 0u, 0u);
	expect(cl, "FIN\n");
	kit_eof(cl);
	kit_close(cl);
	assert_int_equal(counted(k, AMQP_CNT_connections_closed), 1);
	assert_int_equal(k->requests_seen[AMQP_REQ_CONN_GONE], 1);
}

static void a_client_may_close_in_the_middle_of_the_handshake(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = at_tune(k);

	kit_say(cl, 0, AMQP_M_connection_close, 200u, "", 0u, 0u);
	expect(cl, "0 connection.close_ok()\nFIN\n");
	cl = at_open(k);
	kit_say(cl, 0, AMQP_M_connection_close, 200u, "", 0u, 0u);
	expect(cl, "0 connection.close_ok()\nFIN\n");
	assert_int_equal(k->requests_seen[AMQP_REQ_CONN_GONE], 0); /* control never heard of them */
}

static void after_our_close_all_but_the_answer_is_discarded(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct kit_bytes bytes = {0};

	kit_say(cl, 7, AMQP_M_basic_qos, 0u, 1u, 0u);
	expect(cl, "0 connection.close(504, CHANNEL_ERROR - expected 'channel.open', 60, 10)\n");
	kit_method(&bytes, 1, AMQP_M_queue_declare, 0u, "q", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_publish(&bytes, 1, "amq.direct", "k", "hello", 5, 2);
	kit_frame(&bytes, AMQP_FRAME_HEARTBEAT, 0, NULL, 0, AMQP_FRAME_END);
	kit_frame(&bytes, AMQP_FRAME_METHOD, 0, "\xff\xff\xff\xff", 4, AMQP_FRAME_END);
	kit_method(&bytes, 0, AMQP_M_connection_open, "/", "", 0u);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "");
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], 0);
	kit_say(cl, 0, AMQP_M_connection_close_ok);
	expect(cl, "FIN\n");
	kit_bytes_free(&bytes);
}

static void both_sides_closing_at_once_both_answer(void **state)
{
	struct kit_client *cl = kit_login(*state, 1);

	kit_say(cl, 7, AMQP_M_basic_qos, 0u, 1u, 0u);
	expect(cl, "0 connection.close(504, CHANNEL_ERROR - expected 'channel.open', 60, 10)\n");
	kit_say(cl, 0, AMQP_M_connection_close, 200u, "", 0u, 0u);
	expect(cl, "0 connection.close_ok()\nFIN\n");
}

static void an_operator_closes_a_connection_with_320(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *other = kit_login(k, 1), *early = kit_accept(k);
	struct amqp_record op = {.kind = AMQP_OP_CONN_CLOSE, .conn_uid = cl->c->uid, .code = 320};

	op.str[0] = span_of("CONNECTION_FORCED - closed by an operator");
	amqp_apply(k->b, &op);
	expect(cl, "0 connection.close(320, CONNECTION_FORCED - closed by an operator, 0, 0)\n");
	expect(other, "");
	kit_say(cl, 0, AMQP_M_connection_close_ok);
	expect(cl, "FIN\n");
	op.conn_uid = early->c->uid;
	amqp_apply(k->b, &op); /* no AMQP was spoken: nothing but FIN */
	expect(early, "FIN\n");
	op.conn_uid = other->c->uid + (1ull << 32); /* another generation */
	amqp_apply(k->b, &op);
	expect(other, "");
}

static void a_client_that_goes_away_is_forgotten_at_every_stage(void **state)
{
	struct kit *k = *state;
	struct kit_bytes bytes = {0};

	kit_handshake(&bytes);
	kit_method(&bytes, 1, AMQP_M_channel_open, "");
	kit_publish(&bytes, 1, "amq.direct", "k", "hello", 5, 2);
	for (size_t cut = 0; cut <= bytes.len; cut++) {
		struct kit_client *cl = kit_accept(k);

		assert_non_null(cl);
		kit_send(cl, bytes.p, cut);
		if (cut & 1)
			kit_eof(cl);
		assert_null(amqp_check(k->b));
		kit_close(cl);
		assert_int_equal(k->b->conns_count, 0);
		assert_int_equal(amqp_pool_used(k->b->pool), k->pool_baseline);
	}
	kit_bytes_free(&bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		kit_test(a_client_is_taken_from_the_protocol_header_to_open_ok),
		kit_test(amqplain_logs_in_too),
		kit_test(another_protocol_gets_ours_back_and_a_fin),
		kit_test(every_pool_slot_refuses_the_connection_after_the_last),
		kit_test(a_wrong_password_closes_with_403_for_a_client_that_can_hear_it),
		kit_test(a_wrong_password_closes_in_silence_after_a_second_for_any_other_client),
		kit_test(an_unknown_mechanism_closes_in_silence),
		kit_test(a_log_in_that_control_does_not_answer_fails_with_541),
		kit_test(the_password_is_wiped_from_memory_that_was_held),
		kit_test(methods_out_of_their_turn_are_refused_with_503),
		kit_test(a_second_open_is_refused_with_503),
		kit_test(channels_wait_for_open_ok),
		kit_test(frames_before_open_are_bounded_to_4096_octets),
		kit_test(tune_ok_beyond_the_offer_is_refused_with_530),
		kit_test(what_tune_ok_lowers_holds),
		kit_test(an_unknown_vhost_is_refused_with_530),
		kit_test(a_new_secret_is_proved_before_it_is_accepted),
		kit_test(a_client_that_closes_hears_close_ok_and_fin),
		kit_test(a_client_may_close_in_the_middle_of_the_handshake),
		kit_test(after_our_close_all_but_the_answer_is_discarded),
		kit_test(both_sides_closing_at_once_both_answer),
		kit_test(an_operator_closes_a_connection_with_320),
		kit_test(a_client_that_goes_away_is_forgotten_at_every_stage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
