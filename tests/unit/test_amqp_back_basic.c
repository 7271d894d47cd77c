/*
 * test_amqp_back_basic.c - class basic and confirms as a client sees them: every method, its answers and its refusals.
 *
 * Owns: a broker with one direct exchange "x", one queue "q" bound by "k", and the default exchange.
 * Core: test.
 * Spec: AMQP 0-9-1 section 1.8, RabbitMQ where the notes say so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/amqp_back_kit.h"

#define NO_TABLE ((struct amqp_span){NULL, 0})

static struct bk *start(void)
{
	static struct bk k;

	bk_init(&k, NULL);
	bk_default_exchange(&k, 0);
	bk_exchange(&k, 1, AMQP_DIRECT, "x");
	bk_queue(&k, 0, "q");
	bk_bind(&k, 0, 1, 0, 7, "k");
	return &k;
}

static void a_published_message_reaches_a_consumer_with_names_header_and_body(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 5);

	(void)state;
	bk_consume(c, 5, "q", "t", true);
	bk_publish(p, 1, "x", "k", "hello");
	bk_assert_read(c, "5 basic.deliver(t, 1, 0, x, k)\n5 header(60, 5)\n5 body(5, hello)\n");
	bk_publish(p, 1, "", "q", "");
	bk_assert_read(c, "5 basic.deliver(t, 2, 0, , q)\n5 header(60, 0)\n"); /* 4.2.6.2: no body frame at all */
	assert_int_equal(k->b->counters[AMQP_CNT_deliveries_direct], 2);
	bk_check(k);
	bk_fini(k);
}

static void publishing_to_a_missing_exchange_closes_the_channel_with_404(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 2);

	(void)state;
	bk_publish(p, 1, "nope", "k", "lost");
	bk_assert_read(p, "1 channel.close(404, NOT_FOUND - no exchange 'nope' in vhost '/', 60, 40)\n");
	bk_publish(p, 2, "x", "k", "kept"); /* the other channel goes on */
	assert_int_equal(k->b->queues[0].ready_count, 1);
	bk_fini(k);
}

static void publishing_to_an_internal_exchange_is_403(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1);

	(void)state;
	assert_true(bk_apply(k, &(struct amqp_record){.kind = AMQP_OP_EXCHANGE_ADD,
						      .id = 9,
						      .flags = AMQP_DEF_INTERNAL,
						      .str = {bk_str("inside"), bk_str("/")}}));
	bk_publish(p, 1, "inside", "k", "lost");
	bk_assert_read(
		p, "1 channel.close(403, ACCESS_REFUSED - cannot publish to internal exchange 'inside' in vhost '/', 60, 40)\n");
	bk_fini(k);
}

static void the_immediate_flag_closes_the_connection_with_540(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1);

	(void)state;
	bk_say(p, 1, 60, 40, 0u, "x", "k", 0u, 1u);
	bk_assert_read(p, "0 connection.close(540, NOT_IMPLEMENTED - immediate=true, 60, 40)\n");
	bk_fini(k);
}

static void an_exchange_deleted_under_a_publish_closes_its_channel_with_404(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1);
	static const uint8_t header[14] = {0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};

	(void)state;
	bk_say(p, 1, 60, 40, 0u, "x", "k", 0u, 0u);
	bk_frame(p, 2, 1, header, sizeof header);
	bk_frame(p, 3, 1, "a", 1);
	bk_del(k, AMQP_OP_BIND_DEL, 0);
	bk_del(k, AMQP_OP_EXCHANGE_DEL, 1);
	bk_exchange(k, 1, AMQP_FANOUT, "another"); /* takes the slot */
	bk_bind(k, 0, 1, 0, AMQP_ID_NONE, "");
	bk_frame(p, 3, 1, "b", 1);
	bk_assert_read(p, "1 channel.close(404, NOT_FOUND - no exchange 'x' in vhost '/', 60, 40)\n");
	assert_int_equal(k->b->queues[0].ready_count, 0);
	bk_check(k);
	bk_fini(k);
}

/* ---- content header ---- */

static void expect_header(const void *header, size_t len, const char *answer)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1);

	bk_say(p, 1, 60, 40, 0u, "x", "k", 0u, 0u);
	bk_frame(p, 2, 1, header, len);
	bk_assert_read(p, answer);
	bk_check(k);
	bk_fini(k);
}

static void a_content_header_of_another_class_or_with_a_weight_is_505(void **state)
{
	(void)state;
	expect_header(
		"\0\x32\0\0\0\0\0\0\0\0\0\1\0\0", 14,
		"0 connection.close(505, UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead, "
		"60, 40)\n");
	expect_header("\0\x3c\0\1\0\0\0\0\0\0\0\1\0\0", 14,
		      "0 connection.close(505, UNEXPECTED_FRAME - weight 1 in a content header, 60, 40)\n");
}

static void a_content_header_that_is_cut_short_or_too_long_is_refused(void **state)
{
	(void)state;
	expect_header("\0\x3c\0\0\0\0\0\0\0\0\0\1\0", 13,
		      "0 connection.close(501, FRAME_ERROR - a content header of 13 octets, 60, 40)\n");
	expect_header("\0\x3c\0\0\0\0\0\0\0\0\0\1\x80\0\5abc", 18,
		      "0 connection.close(501, FRAME_ERROR - the content header is cut short, 60, 40)\n");
	expect_header(
		"\0\x3c\0\0\0\0\0\0\0\0\0\1\0\0x", 15,
		"0 connection.close(502, SYNTAX_ERROR - octets are left over after the content header's properties, 60, 40)\n");
}

static void property_flags_that_class_basic_does_not_have_are_502(void **state)
{
	(void)state;
	expect_header("\0\x3c\0\0\0\0\0\0\0\0\0\1\0\2", 14,
		      "0 connection.close(502, SYNTAX_ERROR - the content header has property flags that class basic does not "
		      "define, 60, "
		      "40)\n");
	expect_header("\0\x3c\0\0\0\0\0\0\0\0\0\1\0\1\0\0", 16,
		      "0 connection.close(502, SYNTAX_ERROR - the content header has property flags that class basic does not "
		      "define, 60, "
		      "40)\n");
}

static void a_headers_table_that_lies_about_its_length_is_refused(void **state)
{
	(void)state;
	expect_header("\0\x3c\0\0\0\0\0\0\0\0\0\1\x20\0\0\0\0\6\1aS\0\0\1", 24,
		      "0 connection.close(501, FRAME_ERROR - the length of a table's field is cut short, 60, 40)\n");
	expect_header("\0\x3c\0\0\0\0\0\0\0\0\0\1\x20\0\xff\xff\xff\xff\1aS", 21,
		      "0 connection.close(501, FRAME_ERROR - the content header is cut short, 60, 40)\n");
}

static void every_property_of_class_basic_is_accepted_and_passed_on_unchanged(void **state)
{
	static const uint8_t props[] = "\xff\xfc"
				       "\4text"               /* content-type */
				       "\2gz"                 /* content-encoding */
				       "\0\0\0\7\1hI\0\0\0\1" /* headers */
				       "\2"                   /* delivery-mode */
				       "\x09"                 /* priority */
				       "\1c"                  /* correlation-id */
				       "\1r"                  /* reply-to */
				       "\5"
				       "60000" /* expiration */
				       "\1m"   /* message-id */
				       "\0\0\0\0\x67\0\0\0"
				       "\1t"
				       "\5guest" /* user-id */
				       "\1a"
				       "\1c";
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);
	const uint8_t *header;
	const struct amqp_msg *m;

	(void)state;
	bk_publish_props(p, 1, "x", "k", false, props, sizeof props - 1, "b", 1);
	assert_string_equal(bk_read(p), "");
	m = k->b->entries[k->b->queues[0].ready_first].msg;
	assert_int_equal(m->flags & AMQP_MSG_PERSISTENT, AMQP_MSG_PERSISTENT);
	assert_int_equal(amqp_msg_headers(m).len, 7);
	bk_consume(c, 1, "q", "t", true);
	bk_run(k);
	header = c->out + c->read + 7 + 4 + 2 + 9 + 4 + 1 + 7 + 12; /* method frame, head of the header frame, size */
	assert_memory_equal(header, props, sizeof props - 1);
	bk_fini(k);
}

static void expect_props(const void *props, size_t len, const char *answer)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1);

	bk_publish_props(p, 1, "x", "k", false, props, len, "b", 1);
	bk_assert_read(p, answer);
	assert_int_equal(k->b->queues[0].ready_count, answer[0] == '\0');
	bk_check(k);
	bk_fini(k);
}

static void a_delivery_mode_other_than_1_or_2_is_406(void **state)
{
	(void)state;
	expect_props("\x10\0\1", 3, "");
	expect_props("\x10\0\2", 3, "");
	expect_props("\x10\0\0", 3, "1 channel.close(406, PRECONDITION_FAILED - invalid delivery mode 0, 60, 40)\n");
	expect_props("\x10\0\3", 3, "1 channel.close(406, PRECONDITION_FAILED - invalid delivery mode 3, 60, 40)\n");
}

static void an_expiration_that_is_no_number_is_406(void **state)
{
	(void)state;
	expect_props("\1\0\0014", 4, "");
	expect_props("\1\0\x0a"
		     "4294967295",
		     13, "");
	expect_props("\1\0\x0a"
		     "4294967296",
		     13,
		     "1 channel.close(406, PRECONDITION_FAILED - invalid expiration '4294967296': expected milliseconds as digits, "
		     "60, 40)\n");
	expect_props(
		"\1\0\2-1", 5,
		"1 channel.close(406, PRECONDITION_FAILED - invalid expiration '-1': expected milliseconds as digits, 60, 40)\n");
	expect_props(
		"\1\0\0", 3,
		"1 channel.close(406, PRECONDITION_FAILED - invalid expiration '': expected milliseconds as digits, 60, 40)\n");
}

static void a_user_id_that_is_not_the_connections_user_is_406(void **state)
{
	(void)state;
	expect_props("\0\x10\5guest", 8, "");
	expect_props("\0\x10\3eve", 6,
		     "1 channel.close(406, PRECONDITION_FAILED - user_id property set to 'eve' but authenticated user was 'guest', "
		     "60, 40)\n");
}

static void a_body_beyond_the_limit_is_311_and_beyond_its_header_501(void **state)
{
	struct bk *k;
	struct bk_conn *p;

	(void)state;
	expect_header(
		"\0\x3c\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0", 14,
		"1 channel.close(311, CONTENT_TOO_LARGE - a body of 18446744073709551615 octets, the limit is 1048576, 60, 40)\n");
	k = start();
	p = bk_connect(k, 1);
	bk_say(p, 1, 60, 40, 0u, "x", "k", 0u, 0u);
	bk_frame(p, 2, 1, "\0\x3c\0\0\0\0\0\0\0\0\0\3\0\0", 14);
	bk_frame(p, 3, 1, "four", 4);
	bk_run(k);
	assert_memory_equal(bk_read(p), "0 connection.close(501, FRAME_ERROR", 35);
	bk_check(k);
	bk_fini(k);
}

static void a_body_in_many_frames_is_joined_into_one_message(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);
	static const char body[] = "abcdefghijklmnopqrstuvwxyz";

	(void)state;
	bk_consume(c, 1, "q", "t", true);
	bk_say(p, 1, 60, 40, 0u, "x", "k", 0u, 0u);
	bk_frame(p, 2, 1, "\0\x3c\0\0\0\0\0\0\0\0\0\x1a\0\0", 14);
	for (unsigned i = 0; i < 26; i++)
		bk_frame(p, 3, 1, body + i, 1);
	bk_assert_read(c, "1 basic.deliver(t, 1, 0, x, k)\n1 header(60, 26)\n1 body(26, abcdefghijklmnopqrstuvwx)\n");
	bk_fini(k);
}

static void two_channels_assemble_their_publishes_side_by_side(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 2), *c = bk_connect(k, 1);

	(void)state;
	bk_consume(c, 1, "q", "t", true);
	for (uint16_t n = 1; n <= 2; n++) {
		bk_say(p, n, 60, 40, 0u, "x", "k", 0u, 0u);
		bk_frame(p, 2, n, "\0\x3c\0\0\0\0\0\0\0\0\0\2\0\0", 14);
		bk_frame(p, 3, n, n == 1 ? "a" : "b", 1);
	}
	bk_frame(p, 3, 2, "B", 1);
	bk_frame(p, 3, 1, "A", 1);
	bk_assert_read(c, "1 basic.deliver(t, 1, 0, x, k)\n1 header(60, 2)\n1 body(2, bB)\n"
			  "1 basic.deliver(t, 2, 0, x, k)\n1 header(60, 2)\n1 body(2, aA)\n");
	bk_fini(k);
}

/* ---- mandatory, confirms ---- */

static void a_mandatory_message_without_a_route_comes_back_with_312_before_its_confirm(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1);

	(void)state;
	bk_say(p, 1, 85, 10, 0u);
	bk_publish_mandatory(p, 1, "x", "nowhere", "back");
	bk_assert_read(p, "1 confirm.select_ok()\n1 basic.return(312, NO_ROUTE, x, nowhere)\n1 header(60, 4)\n1 body(4, back)\n"
			  "1 basic.ack(1, 0)\n");
	bk_publish_mandatory(p, 1, "x", "k", "kept");
	bk_publish(p, 1, "x", "nowhere", "dropped");
	bk_assert_read(p, "1 basic.ack(3, 1)\n");
	assert_int_equal(k->b->counters[AMQP_CNT_returns], 1);
	assert_int_equal(k->b->counters[AMQP_CNT_publishes_unroutable], 2);
	bk_fini(k);
}

static void confirms_of_a_burst_are_one_ack_with_multiple(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 2);

	(void)state;
	bk_publish(p, 1, "x", "k", "before"); /* not counted */
	bk_say(p, 1, 85, 10, 1u);
	bk_say(p, 2, 85, 10, 1u);
	for (unsigned i = 0; i < 5; i++)
		bk_publish(p, 1, "x", "k", "tick");
	bk_publish(p, 2, "x", "k", "tick");
	bk_assert_read(p, "2 basic.ack(1, 0)\n1 basic.ack(5, 1)\n");
	bk_publish(p, 1, "x", "k", "tick");
	bk_assert_read(p, "1 basic.ack(6, 0)\n");
	bk_assert_read(p, "");
	assert_int_equal(k->b->counters[AMQP_CNT_confirms], 7);
	bk_fini(k);
}

static void a_message_refused_by_a_full_queue_is_nacked_in_its_place(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1);

	(void)state;
	bk_queue_args(k, 1, "two", 0, bk_int_text_args("x-max-length", 2, "x-overflow", "reject-publish"));
	bk_say(p, 1, 85, 10, 1u);
	for (unsigned i = 0; i < 4; i++)
		bk_publish(p, 1, "", "two", "tick");
	bk_publish(p, 1, "", "q", "tick");
	bk_assert_read(p, "1 basic.ack(2, 1)\n1 basic.nack(3, 0, 0)\n1 basic.nack(4, 0, 0)\n1 basic.ack(5, 0)\n");
	assert_int_equal(k->b->queues[1].ready_count, 2);
	assert_int_equal(k->b->counters[AMQP_CNT_rejected_publish], 2);
	bk_check(k);
	bk_fini(k);
}

static void confirms_come_before_close_ok_and_none_after_the_channel_went(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 3);

	(void)state;
	for (uint16_t n = 1; n <= 3; n++) {
		bk_say(p, n, 85, 10, 1u);
		bk_publish(p, n, "x", "k", "tick");
	}
	bk_say(p, 2, 20, 40, 200u, "bye", 0u, 0u);
	bk_assert_read(p, "3 basic.ack(1, 0)\n2 basic.ack(1, 0)\n1 basic.ack(1, 0)\n2 channel.close_ok()\n");
	for (uint16_t n = 1; n <= 3; n += 2)
		bk_publish(p, n, "x", "k", "tick");
	bk_say(p, 3, 60, 80, (uint64_t)9, 0u); /* an error of ours closes it with its confirm pending */
	bk_assert_read(p, "3 channel.close(406, PRECONDITION_FAILED - unknown delivery tag 9, 60, 80)\n1 basic.ack(2, 0)\n");
	bk_check(k);
	bk_fini(k);
}

/* ---- consume, cancel ---- */

static void a_consumer_without_a_tag_gets_one_that_no_other_has(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);
	char first[80];

	(void)state;
	bk_say(c, 1, 60, 20, 0u, "q", "", 0u, 1u, 0u, 0u, NO_TABLE);
	bk_run(k);
	snprintf(first, sizeof first, "%.79s", bk_read(c));
	assert_memory_equal(first, "1 basic.consume_ok(amq.ctag-", 28);
	bk_say(c, 1, 60, 20, 0u, "q", "", 0u, 1u, 0u, 0u, NO_TABLE);
	bk_run(k);
	assert_string_not_equal(first, bk_read(c));
	assert_int_equal(k->b->queues[0].consumers_count, 2);
	bk_fini(k);
}

static void a_tag_used_twice_on_a_channel_is_530_but_not_on_two_channels(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 2);

	(void)state;
	bk_consume(c, 1, "q", "t", true);
	bk_consume(c, 2, "q", "t", true);
	bk_assert_read(c, "");
	bk_consume(c, 2, "q", "t", true);
	bk_assert_read(c, "0 connection.close(530, NOT_ALLOWED - attempt to reuse consumer tag 't', 60, 20)\n");
	bk_check(k);
	bk_fini(k);
}

static void an_exclusive_consumer_keeps_others_out_with_403(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 4);

	(void)state;
	bk_say(c, 1, 60, 20, 0u, "q", "t", 0u, 1u, 1u, 0u, NO_TABLE);
	bk_assert_read(c, "1 basic.consume_ok(t)\n");
	bk_consume(c, 2, "q", "u", true);
	bk_assert_read(c, "2 channel.close(403, ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use, 60, 20)\n");
	bk_say(c, 1, 60, 30, "t", 0u);
	bk_consume(c, 3, "q", "u", true);
	bk_assert_read(c, "1 basic.cancel_ok(t)\n");
	bk_say(c, 4, 60, 20, 0u, "q", "v", 0u, 1u, 1u, 1u, NO_TABLE);
	bk_assert_read(c, "4 channel.close(403, ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use, 60, 20)\n");
	bk_check(k);
	bk_fini(k);
}

static void consuming_from_a_missing_or_foreign_exclusive_queue_is_refused(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 3), *owner = bk_connect(k, 1);

	(void)state;
	assert_true(bk_apply(k, &(struct amqp_record){.kind = AMQP_OP_QUEUE_ADD,
						      .id = 3,
						      .flags = AMQP_DEF_EXCLUSIVE,
						      .conn_uid = owner->c->uid,
						      .str = {bk_str("mine"), bk_str("/")}}));
	bk_consume(c, 1, "nope", "t", true);
	bk_assert_read(c, "1 channel.close(404, NOT_FOUND - no queue 'nope' in vhost '/', 60, 20)\n");
	bk_consume(c, 2, "mine", "t", true);
	bk_assert_read(c, "2 channel.close(405, RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost "
			  "'/', 60, 20)\n");
	bk_consume(c, 3, "", "t", true);
	bk_assert_read(c, "3 channel.close(404, NOT_FOUND - no previously declared queue, 60, 20)\n");
	bk_consume(owner, 1, "mine", "t", true);
	bk_assert_read(owner, "");
	bk_fini(k);
}

static void consumer_arguments_that_are_not_acted_on_are_refused_and_harmless_ones_taken(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 2);

	(void)state;
	bk_say(c, 1, 60, 20, 0u, "q", "t", 0u, 1u, 0u, 0u, bk_int_arg("x-cancel-on-ha-failover", 1));
	bk_assert_read(c, "1 basic.consume_ok(t)\n");
	bk_say(c, 2, 60, 20, 0u, "q", "t", 0u, 1u, 0u, 0u, bk_int_arg("x-priority", 5));
	bk_assert_read(c, "2 channel.close(406, PRECONDITION_FAILED - consumer argument 'x-priority' is not supported, 60, 20)\n");
	bk_fini(k);
}

static void cancelling_an_unknown_consumer_is_fine(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_say(c, 1, 60, 30, "nobody", 0u);
	bk_assert_read(c, "1 basic.cancel_ok(nobody)\n");
	bk_say(c, 1, 60, 30, "nobody", 1u);
	bk_assert_read(c, "");
	bk_fini(k);
}

static void the_last_consumer_of_an_auto_delete_queue_is_told_to_control_even_if_its_ring_was_full(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 2);

	(void)state;
	bk_queue_args(k, 1, "auto", AMQP_DEF_AUTO_DELETE, NO_TABLE);
	bk_run(k);
	assert_int_equal(k->requests_count, 0); /* it never had a consumer */
	bk_consume(c, 1, "auto", "t", true);
	bk_consume(c, 2, "auto", "t", true);
	bk_say(c, 1, 60, 30, "t", 1u);
	assert_int_equal(k->requests_count, 0);
	k->control_full = true;
	bk_say(c, 2, 60, 30, "t", 1u);
	bk_run(k);
	assert_int_equal(k->requests_count, 0);
	k->control_full = false;
	bk_run(k);
	assert_int_equal(k->requests_count, 1);
	assert_int_equal(k->requests[0].kind, AMQP_REQ_QUEUE_UNUSED);
	assert_int_equal(k->requests[0].id, 1);
	bk_run(k);
	assert_int_equal(k->requests_count, 1);
	bk_fini(k);
}

static void a_notice_that_is_no_longer_true_is_not_sent(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_queue_args(k, 1, "auto", AMQP_DEF_AUTO_DELETE, NO_TABLE);
	bk_consume(c, 1, "auto", "t", true);
	k->control_full = true;
	bk_say(c, 1, 60, 30, "t", 1u);
	bk_consume(c, 1, "auto", "t", true);
	k->control_full = false;
	bk_run(k);
	assert_int_equal(k->requests_count, 0);
	bk_fini(k);
}

/* ---- qos ---- */

static void a_prefetch_size_is_540(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_say(c, 1, 60, 10, 1u, 0u, 0u);
	bk_assert_read(c, "0 connection.close(540, NOT_IMPLEMENTED - prefetch_size!=0 (1), 60, 10)\n");
	bk_fini(k);
}

static void prefetch_holds_for_consumers_made_after_it(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);

	(void)state;
	bk_say(c, 1, 60, 10, 0u, 2u, 0u);
	bk_consume(c, 1, "q", "t", false);
	bk_say(c, 1, 60, 10, 0u, 1u, 0u); /* not for t */
	for (unsigned i = 0; i < 4; i++)
		bk_publish(p, 1, "x", "k", "m");
	bk_assert_read(c, "1 basic.qos_ok()\n1 basic.qos_ok()\n"
			  "1 basic.deliver(t, 1, 0, x, k)\n1 header(60, 1)\n1 body(1, m)\n"
			  "1 basic.deliver(t, 2, 0, x, k)\n1 header(60, 1)\n1 body(1, m)\n");
	bk_say(c, 1, 60, 80, (uint64_t)2, 0u);
	bk_assert_read(c, "1 basic.deliver(t, 3, 0, x, k)\n1 header(60, 1)\n1 body(1, m)\n");
	bk_say(c, 1, 60, 80, (uint64_t)3, 1u);
	bk_assert_read(c, "1 basic.deliver(t, 4, 0, x, k)\n1 header(60, 1)\n1 body(1, m)\n");
	bk_check(k);
	bk_fini(k);
}

static void global_prefetch_holds_over_the_channels_consumers_together(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);

	(void)state;
	bk_queue(k, 1, "r");
	bk_say(c, 1, 60, 10, 0u, 2u, 1u);
	bk_consume(c, 1, "q", "t", false);
	bk_consume(c, 1, "r", "u", false);
	bk_publish(p, 1, "", "q", "a");
	bk_publish(p, 1, "", "r", "b");
	bk_publish(p, 1, "", "r", "c");
	bk_publish(p, 1, "", "q", "d");
	bk_assert_read(c, "1 basic.qos_ok()\n1 basic.deliver(t, 1, 0, , q)\n1 header(60, 1)\n1 body(1, a)\n"
			  "1 basic.deliver(u, 2, 0, , r)\n1 header(60, 1)\n1 body(1, b)\n");
	bk_say(c, 1, 60, 80, (uint64_t)1, 0u);
	bk_run(k);
	assert_int_equal(k->b->channels[k->b->consumers[0].channel].unacked_count, 2);
	bk_say(c, 1, 60, 10, 0u, 0u, 1u); /* no limit any more */
	bk_run(k);
	assert_int_equal(k->b->queues[0].ready_count + k->b->queues[1].ready_count, 0);
	bk_check(k);
	bk_fini(k);
}

static void basic_get_and_no_ack_consumers_are_outside_of_prefetch(void **state)
{
	struct bk *k = start();
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);

	(void)state;
	bk_say(c, 1, 60, 10, 0u, 1u, 1u);
	for (unsigned i = 0; i < 4; i++)
		bk_publish(p, 1, "x", "k", "m");
	bk_say(c, 1, 60, 70, 0u, "q", 0u);
	bk_say(c, 1, 60, 70, 0u, "q", 0u);
	bk_assert_read(c, "1 basic.qos_ok()\n1 basic.get_ok(1, 0, x, k, 3)\n1 header(60, 1)\n1 body(1, m)\n"
			  "1 basic.get_ok(2, 0, x, k, 2)\n1 header(60, 1)\n1 body(1, m)\n");
	bk_consume(c, 1, "q", "t", true);
	bk_assert_read(c, "1 basic.deliver(t, 3, 0, x, k)\n1 header(60, 1)\n1 body(1, m)\n"
			  "1 basic.deliver(t, 4, 0, x, k)\n1 header(60, 1)\n1 body(1, m)\n");
	bk_check(k);
	bk_fini(k);
}

/* ---- get ---- */

static void basic_get_says_how_many_are_left_or_that_the_queue_is_empty(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 2);

	(void)state;
	bk_say(c, 1, 60, 70, 0u, "q", 1u);
	bk_assert_read(c, "1 basic.get_empty()\n");
	bk_publish(c, 1, "x", "k", "one");
	bk_publish(c, 1, "x", "k", "");
	bk_say(c, 1, 60, 70, 0u, "q", 1u);
	bk_say(c, 1, 60, 70, 0u, "q", 1u);
	bk_assert_read(
		c,
		"1 basic.get_ok(1, 0, x, k, 1)\n1 header(60, 3)\n1 body(3, one)\n1 basic.get_ok(2, 0, x, k, 0)\n1 header(60, 0)\n");
	bk_say(c, 2, 60, 70, 0u, "nope", 1u);
	bk_assert_read(c, "2 channel.close(404, NOT_FOUND - no queue 'nope' in vhost '/', 60, 70)\n");
	bk_fini(k);
}

static void a_message_that_was_got_and_not_acknowledged_comes_back_redelivered(void **state)
{
	struct bk *k = start();
	struct bk_conn *a = bk_connect(k, 1), *b = bk_connect(k, 1);

	(void)state;
	bk_publish(a, 1, "x", "k", "m");
	bk_say(a, 1, 60, 70, 0u, "q", 0u);
	bk_say(b, 1, 60, 70, 0u, "q", 0u);
	bk_assert_read(b, "1 basic.get_empty()\n");
	bk_disconnect(a);
	bk_say(b, 1, 60, 70, 0u, "q", 0u);
	bk_assert_read(b, "1 basic.get_ok(1, 1, x, k, 0)\n1 header(60, 1)\n1 body(1, m)\n");
	bk_check(k);
	bk_fini(k);
}

/* ---- ack, nack, reject, recover ---- */

static struct bk_conn *four_unacked(struct bk *k)
{
	struct bk_conn *c = bk_connect(k, 1);

	bk_consume(c, 1, "q", "t", false);
	for (char m[2] = "a"; m[0] <= 'd'; m[0]++)
		bk_publish(c, 1, "x", "k", m);
	bk_run(k);
	bk_read(c);
	assert_int_equal(k->b->queues[0].unacked_count, 4);
	return c;
}

static void acks_settle_one_or_all_up_to_the_tag(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = four_unacked(k);

	(void)state;
	bk_say(c, 1, 60, 80, (uint64_t)3, 0u);
	assert_int_equal(k->b->queues[0].unacked_count, 3);
	bk_say(c, 1, 60, 80, (uint64_t)2, 1u);
	assert_int_equal(k->b->queues[0].unacked_count, 1);
	bk_say(c, 1, 60, 80, (uint64_t)0, 1u); /* all */
	assert_int_equal(k->b->queues[0].unacked_count, 0);
	bk_say(c, 1, 60, 80, (uint64_t)0, 1u); /* none is left: still fine */
	bk_assert_read(c, "");
	assert_int_equal(k->b->queues[0].acked, 4);
	bk_check(k);
	bk_fini(k);
}

static void expect_settle_error(uint16_t method_id, uint64_t tag, bool multiple, const char *answer)
{
	struct bk *k = start();
	struct bk_conn *c = four_unacked(k);

	bk_say(c, 1, 60, 80, (uint64_t)2, 0u);
	if (method_id == 120)
		bk_say(c, 1, 60, 120, tag, (unsigned)multiple, 1u);
	else
		bk_say(c, 1, 60, method_id, tag, (unsigned)multiple);
	bk_assert_read(c, answer);
	assert_int_equal(k->b->queues[0].ready_count, 3); /* the channel is gone: all that was unacknowledged is back */
	bk_check(k);
	bk_fini(k);
}

static void settling_an_unknown_or_settled_tag_is_406(void **state)
{
	(void)state;
	expect_settle_error(80, 9, false, "1 channel.close(406, PRECONDITION_FAILED - unknown delivery tag 9, 60, 80)\n");
	expect_settle_error(80, 2, false, "1 channel.close(406, PRECONDITION_FAILED - unknown delivery tag 2, 60, 80)\n");
	expect_settle_error(80, 2, true, "1 channel.close(406, PRECONDITION_FAILED - unknown delivery tag 2, 60, 80)\n");
	expect_settle_error(80, 0, false, "1 channel.close(406, PRECONDITION_FAILED - unknown delivery tag 0, 60, 80)\n");
	expect_settle_error(90, 9, true, "1 channel.close(406, PRECONDITION_FAILED - unknown delivery tag 9, 60, 90)\n");
	expect_settle_error(120, 9, true, "1 channel.close(406, PRECONDITION_FAILED - unknown delivery tag 9, 60, 120)\n");
}

static void reject_and_nack_without_requeue_drop(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = four_unacked(k);

	(void)state;
	bk_say(c, 1, 60, 90, (uint64_t)1, 0u);
	bk_say(c, 1, 60, 120, (uint64_t)3, 1u, 0u);
	bk_assert_read(c, "");
	assert_int_equal(k->b->queues[0].unacked_count, 1);
	assert_int_equal(k->b->counters[AMQP_CNT_rejects_dropped], 3);
	bk_check(k);
	bk_fini(k);
}

static void nack_with_requeue_brings_back_in_order_and_redelivered(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = four_unacked(k);

	(void)state;
	bk_say(c, 1, 60, 120, (uint64_t)3, 1u, 1u);
	bk_assert_read(c, "1 basic.deliver(t, 5, 1, x, k)\n1 header(60, 1)\n1 body(1, a)\n"
			  "1 basic.deliver(t, 6, 1, x, k)\n1 header(60, 1)\n1 body(1, b)\n"
			  "1 basic.deliver(t, 7, 1, x, k)\n1 header(60, 1)\n1 body(1, c)\n");
	assert_int_equal(k->b->counters[AMQP_CNT_requeues], 3);
	bk_check(k);
	bk_fini(k);
}

static void recover_requeues_all_and_answers_unless_it_is_recover_async(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = four_unacked(k);

	(void)state;
	bk_say(c, 1, 60, 30, "t", 1u);
	bk_say(c, 1, 60, 110, 1u);
	bk_assert_read(c, "1 basic.recover_ok()\n");
	assert_int_equal(k->b->queues[0].ready_count, 4);
	bk_say(c, 1, 60, 70, 0u, "q", 0u);
	bk_assert_read(c, "1 basic.get_ok(5, 1, x, k, 3)\n1 header(60, 1)\n1 body(1, a)\n");
	bk_say(c, 1, 60, 100, 1u);
	bk_assert_read(c, "");
	assert_int_equal(k->b->queues[0].ready_count, 4);
	bk_say(c, 1, 60, 110, 0u);
	bk_assert_read(c, "0 connection.close(540, NOT_IMPLEMENTED - requeue=false, 60, 110)\n");
	bk_check(k);
	bk_fini(k);
}

/* ---- purge, flow ---- */

static void purge_drops_what_is_ready_and_nothing_else(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 2);

	(void)state;
	for (unsigned i = 0; i < 200; i++)
		bk_publish(c, 1, "x", "k", "m");
	bk_say(c, 1, 60, 70, 0u, "q", 0u);
	bk_run(k);
	bk_read(c);
	bk_say(c, 1, 50, 30, 0u, "q", 0u);
	bk_assert_read(c, "1 queue.purge_ok(199)\n");
	assert_int_equal(k->b->queues[0].unacked_count, 1);
	bk_check(k);
	bk_run(k);
	assert_int_equal(k->b->entries_count, 1); /* the 199 entries were freed in steps */
	bk_say(c, 1, 50, 30, 0u, "q", 1u);
	bk_assert_read(c, "");
	bk_say(c, 2, 50, 30, 0u, "nope", 0u);
	bk_assert_read(c, "2 channel.close(404, NOT_FOUND - no queue 'nope' in vhost '/', 50, 30)\n");
	bk_fini(k);
}

static void a_client_that_says_flow_off_gets_nothing_until_it_says_on(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_consume(c, 1, "q", "t", true);
	bk_say(c, 1, 20, 20, 0u);
	bk_publish(c, 1, "x", "k", "m");
	bk_assert_read(c, "1 channel.flow_ok(0)\n");
	bk_check(k);
	bk_say(c, 1, 20, 20, 1u);
	bk_assert_read(c, "1 channel.flow_ok(1)\n1 basic.deliver(t, 1, 0, x, k)\n1 header(60, 1)\n1 body(1, m)\n");
	bk_fini(k);
}

static void a_sampled_publish_is_stamped_once_at_each_stage(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_publish(c, 1, "x", "k", "m");
	assert_int_equal(k->stages[0] + k->stages[1] + k->stages[2], 0);
	amqp_sample_next(k->b);
	bk_publish(c, 1, "x", "k", "m");
	bk_publish(c, 1, "x", "k", "m");
	assert_int_equal(k->stages[AMQP_STAGE_PARSED], 1);
	assert_int_equal(k->stages[AMQP_STAGE_ROUTED], 1);
	assert_int_equal(k->stages[AMQP_STAGE_RENDERED], 1);
	bk_fini(k);
}

static void a_server_method_from_a_client_is_503(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);
	struct amqp_reader none = {(const uint8_t *)"", (const uint8_t *)"", false};

	(void)state;
	assert_int_not_equal(amqp_on_basic(c->c, &k->b->channels[c->c->channel_by_number[1]], 60, &none), AMQP_STALL);
	bk_assert_read(c, "0 connection.close(503, COMMAND_INVALID - basic method 60 is not for a server, 60, 60)\n");
	bk_fini(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_published_message_reaches_a_consumer_with_names_header_and_body),
		cmocka_unit_test(publishing_to_a_missing_exchange_closes_the_channel_with_404),
		cmocka_unit_test(publishing_to_an_internal_exchange_is_403),
		cmocka_unit_test(the_immediate_flag_closes_the_connection_with_540),
		cmocka_unit_test(an_exchange_deleted_under_a_publish_closes_its_channel_with_404),
		cmocka_unit_test(a_content_header_of_another_class_or_with_a_weight_is_505),
		cmocka_unit_test(a_content_header_that_is_cut_short_or_too_long_is_refused),
		cmocka_unit_test(property_flags_that_class_basic_does_not_have_are_502),
		cmocka_unit_test(a_headers_table_that_lies_about_its_length_is_refused),
		cmocka_unit_test(every_property_of_class_basic_is_accepted_and_passed_on_unchanged),
		cmocka_unit_test(a_delivery_mode_other_than_1_or_2_is_406),
		cmocka_unit_test(an_expiration_that_is_no_number_is_406),
		cmocka_unit_test(a_user_id_that_is_not_the_connections_user_is_406),
		cmocka_unit_test(a_body_beyond_the_limit_is_311_and_beyond_its_header_501),
		cmocka_unit_test(a_body_in_many_frames_is_joined_into_one_message),
		cmocka_unit_test(two_channels_assemble_their_publishes_side_by_side),
		cmocka_unit_test(a_mandatory_message_without_a_route_comes_back_with_312_before_its_confirm),
		cmocka_unit_test(confirms_of_a_burst_are_one_ack_with_multiple),
		cmocka_unit_test(a_message_refused_by_a_full_queue_is_nacked_in_its_place),
		cmocka_unit_test(confirms_come_before_close_ok_and_none_after_the_channel_went),
		cmocka_unit_test(a_consumer_without_a_tag_gets_one_that_no_other_has),
		cmocka_unit_test(a_tag_used_twice_on_a_channel_is_530_but_not_on_two_channels),
		cmocka_unit_test(an_exclusive_consumer_keeps_others_out_with_403),
		cmocka_unit_test(consuming_from_a_missing_or_foreign_exclusive_queue_is_refused),
		cmocka_unit_test(consumer_arguments_that_are_not_acted_on_are_refused_and_harmless_ones_taken),
		cmocka_unit_test(cancelling_an_unknown_consumer_is_fine),
		cmocka_unit_test(the_last_consumer_of_an_auto_delete_queue_is_told_to_control_even_if_its_ring_was_full),
		cmocka_unit_test(a_notice_that_is_no_longer_true_is_not_sent),
		cmocka_unit_test(a_prefetch_size_is_540),
		cmocka_unit_test(prefetch_holds_for_consumers_made_after_it),
		cmocka_unit_test(global_prefetch_holds_over_the_channels_consumers_together),
		cmocka_unit_test(basic_get_and_no_ack_consumers_are_outside_of_prefetch),
		cmocka_unit_test(basic_get_says_how_many_are_left_or_that_the_queue_is_empty),
		cmocka_unit_test(a_message_that_was_got_and_not_acknowledged_comes_back_redelivered),
		cmocka_unit_test(acks_settle_one_or_all_up_to_the_tag),
		cmocka_unit_test(settling_an_unknown_or_settled_tag_is_406),
		cmocka_unit_test(reject_and_nack_without_requeue_drop),
		cmocka_unit_test(nack_with_requeue_brings_back_in_order_and_redelivered),
		cmocka_unit_test(recover_requeues_all_and_answers_unless_it_is_recover_async),
		cmocka_unit_test(purge_drops_what_is_ready_and_nothing_else),
		cmocka_unit_test(a_client_that_says_flow_off_gets_nothing_until_it_says_on),
		cmocka_unit_test(a_sampled_publish_is_stamped_once_at_each_stage),
		cmocka_unit_test(a_server_method_from_a_client_is_503),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
