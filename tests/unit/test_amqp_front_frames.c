/*
 * test_amqp_front_frames.c - malformed frames and their reply codes, and frames cut anywhere by packets.
 *
 * Owns: nothing.
 * Core: test.
 * Spec: AMQP 0-9-1 sections 4.2.2, 4.2.3 and 4.2.5, reply codes of section 1.2.
 */
#include "tests/unit/amqp_front_test.h"

#include "amqp/wire.h"

#define DECLARE_ARGS(name) 0u, name, 0u, 0u, 0u, 0u, 0u, KIT_EMPTY

/* One frame on a fresh connection with channel 1 open; meanwhile a neighbour goes on undisturbed. */
static void expect_answer(struct kit *k, const struct kit_bytes *bytes, const char *transcript)
{
	struct kit_client *neighbour = kit_login(k, 1), *cl = kit_login(k, 1);

	kit_send(cl, bytes->p, bytes->len);
	expect(cl, transcript);
	assert_int_equal(cl->in.len, 0);
	kit_say(neighbour, 1, AMQP_M_queue_declare, DECLARE_ARGS("neighbours"));
	expect(neighbour, "1 queue.declare_ok(neighbours, 0, 0)\n");
	assert_null(amqp_check(k->b));
	kit_close(neighbour);
	kit_close(cl);
}

static void expect_frame_answer(struct kit *k, uint8_t type, uint16_t channel, const void *payload, size_t len, uint8_t end,
				const char *transcript)
{
	struct kit_bytes bytes = {0};

	kit_frame(&bytes, type, channel, payload, len, end);
	expect_answer(k, &bytes, transcript);
	kit_bytes_free(&bytes);
}

/* ---- heads ---- */

static void a_frame_of_unknown_type_is_answered_with_501(void **state)
{
	struct kit *k = *state;

	expect_frame_answer(k, 9, 1, "abc", 3, 0xce, "0 connection.close(501, FRAME_ERROR - unknown frame type (9), 0, 0)\nFIN\n");
	expect_frame_answer(k, 0, 1, "abc", 3, 0xce, "0 connection.close(501, FRAME_ERROR - unknown frame type (0), 0, 0)\nFIN\n");
	expect_frame_answer(k, 4, 0, "", 0, 0xce, "0 connection.close(501, FRAME_ERROR - unknown frame type (4), 0, 0)\nFIN\n");
}

static void a_wrong_frame_end_is_answered_with_501(void **state)
{
	struct kit *k = *state;
	static const uint8_t close_ok[] = {0, 20, 0, 10, 0};

	expect_frame_answer(k, 1, 2, close_ok, 5, 0xcd,
			    "0 connection.close(501, FRAME_ERROR - wrong frame end octet (205), 0, 0)\nFIN\n");
	expect_frame_answer(k, 8, 0, "", 0, 0, "0 connection.close(501, FRAME_ERROR - wrong frame end octet (0), 0, 0)\nFIN\n");
}

static void frames_above_frame_max_are_answered_with_501_at_their_head(void **state)
{
	struct kit *k = *state;
	struct kit_bytes bytes = {0};

	kit_raw(&bytes, "\x01\x00\x01\xff\xff\xff\xff", 7); /* 4 GiB less one */
	expect_answer(k, &bytes, "0 connection.close(501, FRAME_ERROR - frame payload too large (4294967295), 0, 0)\nFIN\n");
	bytes.len = 0;
	kit_raw(&bytes, "\x03\x00\x01\x00\x01\xff\xf9", 7); /* 131065 */
	expect_answer(k, &bytes, "0 connection.close(501, FRAME_ERROR - frame payload too large (131065), 0, 0)\nFIN\n");
	bytes.len = 0;
	kit_raw(&bytes, "\x01\x00\x01\x00\x01\xff\xf8", 7); /* 131064: the largest one */
	expect_answer(k, &bytes, "");
	kit_bytes_free(&bytes);
}

static void heartbeats_belong_on_channel_0_and_are_empty(void **state)
{
	struct kit *k = *state;

	expect_frame_answer(k, 8, 0, "", 0, 0xce, "");
	expect_frame_answer(k, 8, 1, "", 0, 0xce, "0 connection.close(505, UNEXPECTED_FRAME - heartbeat on channel 1, 0, 0)\n");
	expect_frame_answer(k, 8, 9999, "", 0, 0xce,
			    "0 connection.close(505, UNEXPECTED_FRAME - heartbeat on channel 9999, 0, 0)\n");
	expect_frame_answer(k, 8, 0, "xy", 2, 0xce,
			    "0 connection.close(501, FRAME_ERROR - heartbeat with a payload of 2 octets, 0, 0)\n");
}

static void channels_that_are_not_open_are_answered_with_504(void **state)
{
	struct kit *k = *state;
	struct kit_bytes bytes = {0};

	kit_method(&bytes, 2, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	expect_answer(k, &bytes, "0 connection.close(504, CHANNEL_ERROR - expected 'channel.open', 50, 10)\n");
	bytes.len = 0;
	kit_method(&bytes, 1, AMQP_M_channel_open, "");
	expect_answer(k, &bytes, "0 connection.close(504, CHANNEL_ERROR - second 'channel.open' seen, 20, 10)\n");
	bytes.len = 0;
	kit_method(&bytes, 0, AMQP_M_channel_open, "");
	expect_answer(k, &bytes, "0 connection.close(504, CHANNEL_ERROR - method channel.open on channel 0, 20, 10)\n");
	bytes.len = 0;
	kit_method(&bytes, 2048, AMQP_M_channel_open, "");
	expect_answer(k, &bytes, "0 connection.close(504, CHANNEL_ERROR - channel 2048 is above the limit of 2047, 0, 0)\n");
	bytes.len = 0;
	kit_method(&bytes, 65535, AMQP_M_channel_open, "");
	expect_answer(k, &bytes, "0 connection.close(504, CHANNEL_ERROR - channel 65535 is above the limit of 2047, 0, 0)\n");
	bytes.len = 0;
	kit_method(&bytes, 2, AMQP_M_channel_close, 200u, "", 0u, 0u);
	expect_answer(k, &bytes, "0 connection.close(504, CHANNEL_ERROR - expected 'channel.open', 20, 40)\n");
	kit_bytes_free(&bytes);
}

static void connection_methods_on_another_channel_are_answered_with_503(void **state)
{
	struct kit_bytes bytes = {0};

	kit_method(&bytes, 1, AMQP_M_connection_close, 200u, "", 0u, 0u);
	expect_answer(*state, &bytes, "0 connection.close(503, COMMAND_INVALID - method connection.close on channel 1, 10, 50)\n");
	kit_bytes_free(&bytes);
}

/* ---- methods ---- */

static void methods_that_do_not_exist_are_answered_with_540(void **state)
{
	struct kit *k = *state;
	struct kit_bytes bytes = {0};

	expect_frame_answer(k, 1, 1, "\0\x3c\0\x63", 4, 0xce,
			    "0 connection.close(540, NOT_IMPLEMENTED - there is no method 60.99, 60, 99)\n");
	expect_frame_answer(k, 1, 0, "\xff\xff\xff\xff", 4, 0xce,
			    "0 connection.close(540, NOT_IMPLEMENTED - there is no method 65535.65535, 65535, 65535)\n");
	kit_method(&bytes, 1, AMQP_M_tx_select);
	expect_answer(k, &bytes, "0 connection.close(540, NOT_IMPLEMENTED - method tx.select is not implemented, 90, 10)\n");
	kit_bytes_free(&bytes);
}

static void a_servers_methods_from_a_client_are_answered_with_503(void **state)
{
	struct kit *k = *state;
	struct kit_bytes bytes = {0};

	kit_method(&bytes, 1, AMQP_M_basic_deliver, "tag", (uint64_t)1, 0u, "", "key");
	expect_answer(k, &bytes, "0 connection.close(503, COMMAND_INVALID - method basic.deliver is not for a server, 60, 60)\n");
	bytes.len = 0;
	kit_method(&bytes, 1, AMQP_M_channel_flow_ok, 1u);
	expect_answer(k, &bytes, "0 connection.close(503, COMMAND_INVALID - method channel.flow_ok answers nothing, 20, 21)\n");
	bytes.len = 0;
	kit_method(&bytes, 1, AMQP_M_channel_close_ok);
	expect_answer(k, &bytes, "0 connection.close(503, COMMAND_INVALID - method channel.close_ok answers nothing, 20, 41)\n");
	bytes.len = 0;
	kit_method(&bytes, 0, AMQP_M_connection_close_ok);
	expect_answer(k, &bytes,
		      "0 connection.close(503, COMMAND_INVALID - method connection.close_ok is not expected now, 10, 51)\n");
	kit_bytes_free(&bytes);
}

/* Whatever the method: cut anywhere it is 501 (or 502 where the cut makes a table's field senseless), one octet more is 502. */
static void every_method_cut_short_or_too_long_is_answered(void **state)
{
	struct kit *k = *state;
	struct kit_bytes whole = {0}, bytes = {0};
	uint8_t args[64];
	struct amqp_table_writer t;
	struct kit_client *cl;
	const char *text;

	amqp_table_begin(&t, args, sizeof args);
	amqp_table_put_i32(&t, "x-max-length", 10);
	kit_method(&whole, 1, AMQP_M_queue_declare, 0u, "queue", 0u, 0u, 0u, 0u, 0u, (struct amqp_span){args, (uint32_t)t.len});
	for (size_t len = 0; len < whole.len - 8; len++) {
		cl = kit_login(k, 1);
		bytes.len = 0;
		kit_frame(&bytes, 1, 1, whole.p + 7, len, 0xce);
		kit_send(cl, bytes.p, bytes.len);
		text = kit_read(cl);
		assert_non_null(strstr(text, "connection.close(501, FRAME_ERROR - "));
		kit_close(cl);
	}
	bytes.len = 0;
	kit_raw(&bytes, whole.p + 7, whole.len - 8);
	kit_raw(&bytes, "!", 1);
	expect_frame_answer(
		k, 1, 1, bytes.p, bytes.len, 0xce,
		"0 connection.close(502, SYNTAX_ERROR - method queue.declare: octets are left over after the arguments, 50, 10)\n");
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], 1); /* the neighbour's */
	kit_bytes_free(&whole);
	kit_bytes_free(&bytes);
}

static void a_method_frame_without_a_method_is_answered_with_501(void **state)
{
	struct kit *k = *state;

	expect_frame_answer(k, 1, 1, "", 0, 0xce, "0 connection.close(501, FRAME_ERROR - a method frame of 0 octets, 0, 0)\n");
	expect_frame_answer(k, 1, 0, "\0\x0a\0", 3, 0xce,
			    "0 connection.close(501, FRAME_ERROR - a method frame of 3 octets, 0, 0)\n");
}

static void a_name_that_is_not_utf8_is_answered_with_501(void **state)
{
	static const char *const names[] = {"\xff",
					    "caf\xe9",
					    "12345678\xc0\xaf",
					    "\xed\xa0\x80",
					    "abcdefg\xf5",
					    "abc\xff"
					    "efghij"};
	struct kit *k = *state;
	struct kit_bytes bytes = {0};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		bytes.len = 0;
		kit_method(&bytes, 1, AMQP_M_queue_declare, DECLARE_ARGS(names[i]));
		expect_answer(k, &bytes,
			      "0 connection.close(501, FRAME_ERROR - method queue.declare: a short string is not UTF-8, 50, 10)\n");
	}
	bytes.len = 0;
	kit_method(&bytes, 1, AMQP_M_queue_declare, DECLARE_ARGS("caf\xc3\xa9"));
	expect_answer(k, &bytes, "1 queue.declare_ok(caf\xc3\xa9, 0, 0)\n");
	kit_bytes_free(&bytes);
}

static void expect_table_answer(struct kit *k, const void *table, size_t len, const char *transcript)
{
	struct kit_bytes bytes = {0};

	kit_method(&bytes, 1, AMQP_M_queue_declare, 0u, "q", 0u, 0u, 0u, 0u, 0u, (struct amqp_span){table, (uint32_t)len});
	expect_answer(k, &bytes, transcript);
	kit_bytes_free(&bytes);
}

static void malformed_tables_are_answered_with_501_or_502(void **state)
{
	struct kit *k = *state;
	static uint8_t deep[8000];
	size_t len = 1000 * 7;

	expect_table_answer(
		k, "\1xQ\0", 4,
		"0 connection.close(502, SYNTAX_ERROR - method queue.declare: a table's field has an unknown type, 50, 10)\n");
	expect_table_answer(
		k, "\1xS\xff\xff\xff\xff", 7,
		"0 connection.close(501, FRAME_ERROR - method queue.declare: a table's field is longer than what holds it, "
		"50, 10)\n");
	expect_table_answer(
		k, "\1xI\0", 4,
		"0 connection.close(501, FRAME_ERROR - method queue.declare: the value of a table's field is cut short, 50, "
		"10)\n");
	for (size_t at = 0; at < len; at += 7) { /* a thousand tables, each inside the one before */
		memcpy(deep + at, "\1xF", 3);
		amqp_set_be32(deep + at + 3, (uint32_t)(len - at - 7));
	}
	expect_table_answer(
		k, deep, len,
		"0 connection.close(502, SYNTAX_ERROR - method queue.declare: a field table is nested too deep, 50, 10)\n");
}

static void a_table_longer_than_its_frame_is_answered_with_501(void **state)
{
	struct kit *k = *state;
	struct kit_bytes bytes = {0};

	kit_method(&bytes, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	amqp_set_be32(bytes.p + bytes.len - 5, 0xffffffffu);
	expect_answer(k, &bytes,
		      "0 connection.close(501, FRAME_ERROR - method queue.declare: the arguments are cut short, 50, 10)\n");
	kit_bytes_free(&bytes);
}

/* ---- contents ---- */

static const uint8_t header_of_5[14] = {0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0};

static void content_without_its_method_is_answered_with_505(void **state)
{
	struct kit *k = *state;

	expect_frame_answer(
		k, 2, 1, header_of_5, 14, 0xce,
		"0 connection.close(505, UNEXPECTED_FRAME - content header on channel 1, where a method is expected, 0, 0)\n");
	expect_frame_answer(
		k, 3, 1, "hello", 5, 0xce,
		"0 connection.close(505, UNEXPECTED_FRAME - content body on channel 1, where a method is expected, 0, 0)\n");
	expect_frame_answer(k, 3, 0, "hello", 5, 0xce,
			    "0 connection.close(504, CHANNEL_ERROR - content frame on channel 0, which is not open, 0, 0)\n");
	expect_frame_answer(k, 2, 5, header_of_5, 14, 0xce,
			    "0 connection.close(504, CHANNEL_ERROR - content frame on channel 5, which is not open, 0, 0)\n");
}

/* basic.publish, then a frame that does not belong there. */
static void expect_after_publish(struct kit *k, bool with_header, uint8_t type, const void *payload, size_t len,
				 const char *transcript)
{
	struct kit_bytes bytes = {0};

	kit_method(&bytes, 1, AMQP_M_basic_publish, 0u, "amq.fanout", "k", 0u, 0u);
	if (with_header)
		kit_frame(&bytes, 2, 1, header_of_5, 14, 0xce);
	kit_frame(&bytes, type, 1, payload, len, 0xce);
	expect_answer(k, &bytes, transcript);
	assert_int_equal(counted(k, AMQP_CNT_publishes), 0);
	kit_bytes_free(&bytes);
}

static void frames_in_the_middle_of_a_content_are_answered_with_505(void **state)
{
	struct kit *k = *state;
	static const uint8_t qos[] = {0, 60, 0, 10, 0, 0, 0, 0, 0, 1, 0}, other_class[14] = {0, 50}, weight[14] = {0, 60, 0, 1};

	expect_after_publish(
		k, false, 1, qos, sizeof qos,
		"0 connection.close(505, UNEXPECTED_FRAME - expected content header for class 60, got method basic.qos "
		"instead, 60, 10)\n");
	expect_after_publish(k, true, 1, qos, sizeof qos,
			     "0 connection.close(505, UNEXPECTED_FRAME - expected content body for class 60, got method basic.qos "
			     "instead, 60, 10)\n");
	expect_after_publish(
		k, false, 3, "hello", 5,
		"0 connection.close(505, UNEXPECTED_FRAME - content body on channel 1, where a content header is expected, "
		"0, 0)\n");
	expect_after_publish(
		k, true, 2, header_of_5, 14,
		"0 connection.close(505, UNEXPECTED_FRAME - content header on channel 1, where a body is expected, 0, 0)\n");
	expect_after_publish(
		k, false, 2, other_class, 14,
		"0 connection.close(505, UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 "
		"instead, 60, 40)\n");
	expect_after_publish(k, false, 2, weight, 14,
			     "0 connection.close(505, UNEXPECTED_FRAME - weight 1 in a content header, 60, 40)\n");
}

static void a_body_longer_than_announced_is_answered_with_501(void **state)
{
	expect_after_publish(*state, true, 3, "hello!", 6,
			     "0 connection.close(501, FRAME_ERROR - the body on channel 1 is longer than its header says, 0, 0)\n");
}

static void a_short_content_header_is_answered_with_501(void **state)
{
	struct kit *k = *state;
	char text[128];

	for (size_t len = 0; len < 14; len++) {
		snprintf(text, sizeof text, "0 connection.close(501, FRAME_ERROR - a content header of %zu octets, 60, 40)\n", len);
		expect_after_publish(k, false, 2, header_of_5, len, text);
	}
}

static void a_body_frame_with_a_wrong_end_publishes_nothing_wherever_it_is_cut(void **state)
{
	struct kit *k = *state;
	struct kit_bytes bytes = {0};

	kit_publish(&bytes, 1, "amq.fanout", "k", "hello", 5, 5);
	bytes.p[bytes.len - 1] = 0xcf;
	for (size_t cut = bytes.len - 10; cut < bytes.len; cut++) {
		struct kit_client *cl = kit_login(k, 1);

		kit_send(cl, bytes.p, cut);
		kit_send(cl, bytes.p + cut, bytes.len - cut);
		expect(cl, "0 connection.close(501, FRAME_ERROR - wrong frame end octet (207), 0, 0)\nFIN\n");
		kit_close(cl);
	}
	assert_int_equal(counted(k, AMQP_CNT_publishes), 0);
	kit_bytes_free(&bytes);
}

static void a_missing_exchange_closes_the_channel_with_404_and_swallows_the_content(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);
	struct kit_bytes bytes = {0};

	kit_publish(&bytes, 1, "nowhere", "k", "hello", 5, 2);
	kit_publish(&bytes, 2, "amq.fanout", "k", "hello", 5, 2);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "1 channel.close(404, NOT_FOUND - no exchange 'nowhere' in vhost '/', 60, 40)\n");
	assert_int_equal(counted(k, AMQP_CNT_publishes), 1);
	kit_say(cl, 1, AMQP_M_channel_close_ok);
	kit_say(cl, 1, AMQP_M_channel_open, "");
	expect(cl, "1 channel.open_ok()\n");
	kit_bytes_free(&bytes);
}

/* ---- cut by packets ---- */

/* A session that uses every kind of frame in both directions. */
static void session(struct kit_bytes *b)
{
	static uint8_t body[300];

	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (uint8_t)('a' + i % 26);
	kit_handshake(b);
	kit_method(b, 1, AMQP_M_channel_open, "");
	kit_method(b, 2, AMQP_M_channel_open, "");
	kit_frame(b, 8, 0, NULL, 0, 0xce);
	kit_method(b, 1, AMQP_M_exchange_declare, 0u, "prices", "topic", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_method(b, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_method(b, 1, AMQP_M_queue_bind, 0u, "", "prices", "eu.#", 0u, KIT_EMPTY);
	kit_method(b, 2, AMQP_M_basic_consume, 0u, "q", "tag", 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_publish(b, 1, "prices", "eu.dax", "12345.67", 8, 8);
	kit_publish(b, 1, "prices", "us.spx", "nobody", 6, 6);
	kit_publish(b, 1, "prices", "eu.cac", body, sizeof body, 77);
	kit_publish(b, 1, "prices", "eu.empty", "", 0, 1);
	kit_method(b, 2, AMQP_M_basic_ack, (uint64_t)2, 1u);
	kit_method(b, 2, AMQP_M_basic_nack, (uint64_t)3, 0u, 0u);
	kit_method(b, 2, AMQP_M_basic_cancel, "tag", 0u);
	kit_publish(b, 1, "", "q", "to get", 6, 1);
	kit_method(b, 1, AMQP_M_basic_get, 0u, "", 1u);
	kit_method(b, 1, AMQP_M_basic_get, 0u, "q", 1u);
	kit_publish(b, 2, "nowhere", "k", "swallowed", 9, 3);
	kit_method(b, 2, AMQP_M_channel_close_ok);
	kit_method(b, 1, AMQP_M_queue_delete, 0u, "q", 0u, 0u, 0u);
	kit_method(b, 1, AMQP_M_exchange_delete, 0u, "prices", 0u, 0u);
	kit_method(b, 1, AMQP_M_channel_close, 200u, "done", 0u, 0u);
	kit_method(b, 0, AMQP_M_connection_close, 200u, "done", 0u, 0u);
}

/* Feeds `b` in pieces of `step` octets from `from` on, the octets before as one piece. */
static void run_cut(struct kit *k, const struct kit_bytes *b, size_t from, size_t step, struct kit_bytes *out)
{
	struct kit_client *cl = kit_accept(k);

	assert_non_null(cl);
	if (from != 0)
		kit_send(cl, b->p, from);
	for (size_t at = from; at < b->len; at += step)
		kit_send(cl, b->p + at, b->len - at < step ? b->len - at : step);
	assert_true(cl->fin);
	assert_int_equal(cl->in.len, 0);
	out->len = 0;
	kit_raw(out, cl->out.p, cl->out.len);
	kit_close(cl);
	kit_release_refs(k);
	assert_int_equal(amqp_pool_used(k->b->pool), k->pool_baseline);
}

static void every_cut_of_a_session_gives_the_same_answers(void **state)
{
	struct kit *k = *state;
	struct kit_bytes b = {0}, whole = {0}, cut = {0};

	session(&b);
	run_cut(k, &b, 0, b.len, &whole);
	assert_true(whole.len > 1000);
	for (size_t at = 1; at < b.len; at++) {
		run_cut(k, &b, at, b.len, &cut);
		assert_int_equal(cut.len, whole.len);
		assert_memory_equal(cut.p, whole.p, whole.len);
	}
	for (size_t step = 1; step < 40; step++) {
		run_cut(k, &b, 0, step, &cut);
		assert_int_equal(cut.len, whole.len);
		assert_memory_equal(cut.p, whole.p, whole.len);
	}
	assert_int_equal(counted(k, AMQP_CNT_connection_errors), 0);
	kit_bytes_free(&b);
	kit_bytes_free(&whole);
	kit_bytes_free(&cut);
}

/* The answer comes out of the very call that asks: nothing may be lost or run twice. */
static void a_control_that_answers_at_once_changes_nothing(void **state)
{
	struct kit *k = *state;
	struct kit_bytes b = {0}, whole = {0}, other = {0};

	session(&b);
	run_cut(k, &b, 0, b.len, &whole);
	k->synchronous = true;
	for (size_t step = 1; step < b.len; step = step * 2 + 1) {
		run_cut(k, &b, 0, step, &other);
		assert_int_equal(other.len, whole.len);
		assert_memory_equal(other.p, whole.p, whole.len);
	}
	kit_bytes_free(&b);
	kit_bytes_free(&whole);
	kit_bytes_free(&other);
}

/* Every octet of the session, replaced: an answer or a close, never a crash, and nothing left behind. */
static void a_session_with_any_octet_damaged_leaves_nothing_behind(void **state)
{
	static const uint8_t damage[] = {0x00, 0xff, 0x80, 0x01};
	struct kit *k = *state;
	struct kit_bytes b = {0};

	session(&b);
	for (size_t at = 0; at < b.len; at++) {
		for (size_t d = 0; d < sizeof damage; d++) {
			struct kit_client *cl = kit_accept(k);
			uint8_t was = b.p[at];

			assert_non_null(cl);
			b.p[at] ^= damage[d] == 0 ? was : damage[d];
			kit_send(cl, b.p, b.len);
			b.p[at] = was;
			kit_read(cl); /* asserts that every frame is whole */
			kit_close(cl);
			kit_release_refs(k);
		}
		assert_null(amqp_check(k->b));
		assert_int_equal(k->b->conns_count, 0);
		assert_int_equal(k->b->channels_count, 0);
		assert_int_equal(k->b->consumers_count, 0);
	}
	kit_bytes_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		kit_test(a_frame_of_unknown_type_is_answered_with_501),
		kit_test(a_wrong_frame_end_is_answered_with_501),
		kit_test(frames_above_frame_max_are_answered_with_501_at_their_head),
		kit_test(heartbeats_belong_on_channel_0_and_are_empty),
		kit_test(channels_that_are_not_open_are_answered_with_504),
		kit_test(connection_methods_on_another_channel_are_answered_with_503),
		kit_test(methods_that_do_not_exist_are_answered_with_540),
		kit_test(a_servers_methods_from_a_client_are_answered_with_503),
		kit_test(every_method_cut_short_or_too_long_is_answered),
		kit_test(a_method_frame_without_a_method_is_answered_with_501),
		kit_test(a_name_that_is_not_utf8_is_answered_with_501),
		kit_test(malformed_tables_are_answered_with_501_or_502),
		kit_test(a_table_longer_than_its_frame_is_answered_with_501),
		kit_test(content_without_its_method_is_answered_with_505),
		kit_test(frames_in_the_middle_of_a_content_are_answered_with_505),
		kit_test(a_body_longer_than_announced_is_answered_with_501),
		kit_test(a_short_content_header_is_answered_with_501),
		kit_test(a_body_frame_with_a_wrong_end_publishes_nothing_wherever_it_is_cut),
		kit_test(a_missing_exchange_closes_the_channel_with_404_and_swallows_the_content),
		kit_test(every_cut_of_a_session_gives_the_same_answers),
		kit_test(a_control_that_answers_at_once_changes_nothing),
		kit_test(a_session_with_any_octet_damaged_leaves_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
