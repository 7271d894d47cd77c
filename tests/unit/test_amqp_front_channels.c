/*
 * test_amqp_front_channels.c - channels: numbers, closing from either side, errors that end one channel alone, flow.
 *
 * Owns: nothing.
 * Core: test.
 * Spec: AMQP 0-9-1 section 1.5 (channel).
 */
#include "tests/unit/amqp_front_test.h"

#define DECLARE_ARGS(name) 0u, name, 0u, 0u, 0u, 0u, 0u, KIT_EMPTY
#define NO_EXCHANGE(n)     #n " channel.close(404, NOT_FOUND - no exchange 'nowhere' in vhost '/', 60, 40)\n"

static void publish_nowhere(struct kit_client *cl, uint16_t channel)
{
	struct kit_bytes bytes = {0};

	kit_publish(&bytes, channel, "nowhere", "k", "x", 1, 1);
	kit_send(cl, bytes.p, bytes.len);
	kit_bytes_free(&bytes);
}

static void a_closed_number_can_be_opened_again(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 0);

	for (int round = 0; round < 200; round++) {
		kit_say(cl, 1, AMQP_M_channel_open, "");
		kit_say(cl, 1, AMQP_M_channel_close, 200u, "", 0u, 0u);
		expect(cl, "1 channel.open_ok()\n1 channel.close_ok()\n");
	}
	assert_int_equal(k->b->channels_count, 0);
	assert_int_equal(counted(k, AMQP_CNT_channels_opened), 200);
}

static void numbers_need_not_be_dense(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 0);

	kit_say(cl, 2047, AMQP_M_channel_open, "");
	kit_say(cl, 1, AMQP_M_channel_open, "");
	kit_say(cl, 700, AMQP_M_channel_open, "");
	expect(cl, "2047 channel.open_ok()\n1 channel.open_ok()\n700 channel.open_ok()\n");
	kit_say(cl, 2047, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	expect(cl, "2047 queue.declare_ok(q, 0, 0)\n");
	assert_null(amqp_check(k->b));
}

static void the_channel_after_the_last_is_refused_with_506(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 60), *other = kit_login(k, 4);

	kit_say(other, 5, AMQP_M_channel_open, "");
	expect(other, "0 connection.close(506, RESOURCE_ERROR - all 64 channels are in use, 20, 10)\n");
	kit_say(cl, 61, AMQP_M_channel_open, ""); /* four were given back */
	expect(cl, "61 channel.open_ok()\n");
}

static void an_error_ends_its_channel_alone(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);

	publish_nowhere(cl, 1);
	expect(cl, NO_EXCHANGE(1));
	kit_say(cl, 2, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	expect(cl, "2 queue.declare_ok(q, 0, 0)\n");
	assert_int_equal(counted(k, AMQP_CNT_channel_errors), 1);
	assert_int_equal(counted(k, AMQP_CNT_connection_errors), 0);
}

static void a_closing_channel_discards_everything_until_close_ok(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	struct kit_bytes bytes = {0};

	publish_nowhere(cl, 1);
	expect(cl, NO_EXCHANGE(1));
	kit_method(&bytes, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_method(&bytes, 1, AMQP_M_channel_open, "");
	kit_publish(&bytes, 1, "amq.fanout", "k", "hello", 5, 2);
	kit_frame(&bytes, AMQP_FRAME_BODY, 1, "stray", 5, AMQP_FRAME_END);
	kit_frame(&bytes, AMQP_FRAME_METHOD, 1, "\xff\xff\xff\xff", 4, AMQP_FRAME_END);
	kit_frame(&bytes, AMQP_FRAME_METHOD, 1, "\0", 1, AMQP_FRAME_END);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "");
	assert_int_equal(counted(k, AMQP_CNT_publishes), 0);
	assert_int_equal(k->requests_seen[AMQP_REQ_QUEUE_DECLARE], 0);
	kit_say(cl, 1, AMQP_M_channel_close_ok);
	kit_say(cl, 1, AMQP_M_channel_open, "");
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	expect(cl, "1 channel.open_ok()\n1 queue.declare_ok(q, 0, 0)\n");
	kit_bytes_free(&bytes);
}

static void both_sides_closing_a_channel_at_once_both_answer(void **state)
{
	struct kit_client *cl = kit_login(*state, 1);

	publish_nowhere(cl, 1);
	kit_say(cl, 1, AMQP_M_channel_close, 200u, "", 0u, 0u); /* crossed with ours */
	kit_say(cl, 1, AMQP_M_channel_open, "");                /* too early: ours is not answered yet */
	expect(cl, NO_EXCHANGE(1) "1 channel.close_ok()\n");
	kit_say(cl, 1, AMQP_M_channel_close_ok);
	kit_say(cl, 1, AMQP_M_channel_open, "");
	expect(cl, "1 channel.open_ok()\n");
}

static void many_channels_in_error_cost_no_more_than_their_number(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 60);

	for (uint16_t n = 1; n <= 60; n++)
		publish_nowhere(cl, n);
	assert_int_equal(counted(k, AMQP_CNT_channel_errors), 60);
	for (uint16_t n = 1; n <= 60; n++)
		publish_nowhere(cl, n);
	assert_int_equal(counted(k, AMQP_CNT_channel_errors), 60);
	assert_int_equal(k->b->channels_count, 60);
	assert_null(amqp_check(k->b));
}

static void flow_is_answered_and_stops_deliveries(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);
	struct kit_bytes bytes = {0};

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_say(cl, 1, AMQP_M_basic_consume, 0u, "q", "tag", 0u, 1u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 1, AMQP_M_channel_flow, 0u);
	kit_publish(&bytes, 2, "", "q", "later", 5, 5);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "1 queue.declare_ok(q, 0, 0)\n1 basic.consume_ok(tag)\n1 channel.flow_ok(0)\n");
	kit_say(cl, 1, AMQP_M_channel_flow, 1u);
	assert_non_null(strstr(kit_read(cl), "1 body(later)\n"));
	kit_bytes_free(&bytes);
}

static void a_long_error_text_is_cut_between_two_characters(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1);
	char name[256] = "", text[512];
	struct kit_bytes bytes = {0};

	for (int shift = 0; shift < 2; shift++) {
		const char *said;
		size_t len;

		name[0] = '\0';
		if (shift)
			strcat(name, "x");
		while (strlen(name) + 2 < 250)
			strcat(name, "\xc3\xa9");
		bytes.len = 0;
		kit_publish(&bytes, 1, name, "k", "x", 1, 1);
		kit_send(cl, bytes.p, bytes.len);
		snprintf(text, sizeof text, "%s", kit_read(cl));
		said = strstr(text, "NOT_FOUND");
		assert_non_null(said);
		len = (size_t)(strstr(said, ", 60, 40") - said);
		assert_in_range(len, 254, 255);
		assert_true(amqp_utf8_valid((const uint8_t *)said, len));
		assert_null(memchr(said, '?', len)); /* nothing was made readable by force */
		kit_say(cl, 1, AMQP_M_channel_close_ok);
		kit_say(cl, 1, AMQP_M_channel_open, "");
		kit_read(cl);
	}
	kit_bytes_free(&bytes);
}

static void messages_of_a_closed_channel_go_back_to_their_queue(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);
	struct kit_bytes bytes = {0};

	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	kit_publish(&bytes, 1, "", "q", "one", 3, 3);
	kit_publish(&bytes, 1, "", "q", "two", 3, 3);
	kit_send(cl, bytes.p, bytes.len);
	kit_say(cl, 2, AMQP_M_basic_consume, 0u, "q", "tag", 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(cl, 2, AMQP_M_channel_close, 200u, "", 0u, 0u);
	kit_read(cl);
	kit_say(cl, 1, AMQP_M_basic_get, 0u, "q", 1u);
	expect(cl, "1 basic.get_ok(1, 1, , q, 1)\n1 header(60, 3)\n1 body(one)\n");
	kit_say(cl, 1, AMQP_M_queue_declare, DECLARE_ARGS("q"));
	expect(cl, "1 queue.declare_ok(q, 1, 0)\n");
	kit_bytes_free(&bytes);
}

static void publishes_are_confirmed_before_close_ok(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 2);
	struct kit_bytes bytes = {0};

	kit_say(cl, 1, AMQP_M_confirm_select, 0u);
	kit_publish(&bytes, 1, "amq.fanout", "k", "x", 1, 1);
	kit_method(&bytes, 1, AMQP_M_channel_close, 200u, "", 0u, 0u);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "1 confirm.select_ok()\n1 basic.ack(1, 0)\n1 channel.close_ok()\n");
	bytes.len = 0;
	kit_method(&bytes, 2, AMQP_M_confirm_select, 1u);
	kit_publish(&bytes, 2, "amq.fanout", "k", "x", 1, 1);
	kit_method(&bytes, 0, AMQP_M_connection_close, 200u, "", 0u, 0u);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "2 basic.ack(1, 0)\n0 connection.close_ok()\nFIN\n");
	kit_bytes_free(&bytes);
}

static void a_reply_without_room_resets_the_connection(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *other = kit_login(k, 1);

	cl->no_room = true;
	kit_say(cl, 2, AMQP_M_channel_open, "");
	expect(cl, "RST\n");
	assert_null(cl->c);
	assert_int_equal(counted(k, AMQP_CNT_aborts_no_room), 1);
	assert_int_equal(k->requests_seen[AMQP_REQ_CONN_GONE], 1);
	kit_say(other, 2, AMQP_M_channel_open, "");
	expect(other, "2 channel.open_ok()\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		kit_test(a_closed_number_can_be_opened_again),
		kit_test(numbers_need_not_be_dense),
		kit_test(the_channel_after_the_last_is_refused_with_506),
		kit_test(an_error_ends_its_channel_alone),
		kit_test(a_closing_channel_discards_everything_until_close_ok),
		kit_test(both_sides_closing_a_channel_at_once_both_answer),
		kit_test(many_channels_in_error_cost_no_more_than_their_number),
		kit_test(flow_is_answered_and_stops_deliveries),
		kit_test(a_long_error_text_is_cut_between_two_characters),
		kit_test(messages_of_a_closed_channel_go_back_to_their_queue),
		kit_test(publishes_are_confirmed_before_close_ok),
		kit_test(a_reply_without_room_resets_the_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
