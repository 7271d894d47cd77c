/*
 * test_amqp_back_stall.c - what happens when something runs out: a slow consumer, the transport's room, entries, message memory.
 *
 * Owns: a broker with the default exchange, a fanout "all" and queues "q", "r".
 * Core: test.
 * Spec: DESIGN section 4: a full pool is a counted outcome with a defined answer, never a crash and never a silent drop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/amqp_back_kit.h"

#define NO_TABLE ((struct amqp_span){NULL, 0})

static struct bk *start(const struct amqp_limits *l)
{
	static struct bk k;

	bk_init(&k, l);
	bk_default_exchange(&k, 0);
	bk_exchange(&k, 1, AMQP_FANOUT, "all");
	bk_queue(&k, 0, "q");
	bk_queue(&k, 1, "r");
	bk_bind(&k, 0, 1, 0, AMQP_ID_NONE, "");
	bk_bind(&k, 1, 1, 1, AMQP_ID_NONE, "");
	return &k;
}

/* Deliveries in a transcript, which must be whole contents with ascending numbers as bodies. */
static unsigned count_in_order(const char *text, unsigned *next)
{
	unsigned n = 0, channel, len, number;

	for (; *text != '\0'; text = strchr(text, '\n') + 1)
		if (sscanf(text, "%u body(%u, %u", &channel, &len, &number) == 3) {
			assert_int_equal(number, (*next)++);
			n++;
		}
	return n;
}

static void publish_numbers(struct bk_conn *c, const char *exchange, const char *key, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++) {
		char body[16];

		snprintf(body, sizeof body, "%u", i);
		bk_publish(c, 1, exchange, key, body);
	}
}

static void a_slow_consumers_queue_takes_over_while_the_others_go_on(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *p = bk_connect(k, 1), *slow = bk_connect(k, 1), *fast = bk_connect(k, 1);
	unsigned next_slow = 0, next_fast = 0;

	(void)state;
	bk_consume(slow, 1, "q", "t", true);
	bk_consume(fast, 1, "r", "t", true);
	publish_numbers(p, "all", "", 0, 10);
	bk_run(k);
	assert_int_equal(count_in_order(bk_read(slow), &next_slow), 10);
	bk_unsent(slow, BK_UNSENT_HIGH + 1);
	publish_numbers(p, "all", "", 10, 100);
	bk_run(k);
	bk_check(k);
	assert_string_equal(bk_read(slow), "");
	assert_int_equal(k->b->queues[0].ready_count, 100);
	assert_true(k->b->consumers[0].parked);
	assert_int_equal(count_in_order(bk_read(fast), &next_fast), 110);
	assert_int_equal(k->b->drain_first, AMQP_NONE); /* nobody asks the slow one again and again */
	bk_unsent(slow, 0);
	bk_run(k);
	assert_int_equal(count_in_order(bk_read(slow), &next_slow), 100);
	bk_check(k);
	bk_fini(k);
}

static void a_drained_backlog_stops_at_the_mark_and_goes_on_behind_it(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);
	unsigned next = 0, rounds = 0;

	(void)state;
	publish_numbers(p, "", "q", 0, 2000);
	c->count_unsent = true;
	bk_consume(c, 1, "q", "t", true);
	while (next < 2000) {
		bk_run(k);
		assert_in_range(c->len - c->read, 1, BK_UNSENT_HIGH + AMQP_RESERVE_MAX);
		count_in_order(bk_read(c), &next);
		bk_check(k);
		amqp_conn_writable(c->c);
		assert_in_range(++rounds, 1, 100);
	}
	assert_in_range(rounds, 2, 100);
	bk_fini(k);
}

static void a_delivery_that_finds_no_room_is_queued_in_front_of_the_next_and_tried_again(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);
	unsigned next = 0;

	(void)state;
	for (unsigned ack = 0; ack < 2; ack++) {
		char tag[4] = {'t', (char)('0' + ack), 0};

		next = 0;
		bk_consume(c, 1, "q", tag, ack == 0);
		c->writes_left = 3;
		publish_numbers(p, "", "q", 0, 8);
		bk_check(k);
		bk_run(k);
		bk_check(k);
		assert_int_equal(k->b->queues[0].ready_count, 5);
		c->writes_left = 2;
		bk_run(k);
		assert_int_equal(k->b->queues[0].ready_count, 3);
		c->writes_left = -1;
		bk_run(k);
		assert_int_equal(count_in_order(bk_read(c), &next), 8);
		bk_say(c, 1, 60, 30, tag, 1u);
	}
	bk_check(k);
	bk_fini(k);
}

static void a_return_that_finds_no_room_stalls_the_publisher_and_nothing_is_lost(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *p = bk_connect(k, 1);

	(void)state;
	for (unsigned with_body = 0; with_body < 2; with_body++) {
		p->writes_left = 0;
		bk_publish_mandatory(p, 1, "", "nobody", with_body ? "back" : "");
		bk_run(k);
		assert_true(p->c->stalled);
		bk_check(k);
		p->writes_left = -1;
		bk_assert_read(p, with_body ? "1 basic.return(312, NO_ROUTE, , nobody)\n1 header(60, 4)\n1 body(4, back)\n"
					    : "1 basic.return(312, NO_ROUTE, , nobody)\n1 header(60, 0)\n");
		assert_false(p->c->stalled);
	}
	assert_int_equal(k->b->counters[AMQP_CNT_publishes], 2);
	bk_fini(k);
}

static void a_get_that_finds_no_room_is_answered_later(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_publish(c, 1, "", "q", "m");
	c->writes_left = 0;
	bk_say(c, 1, 60, 70, 0u, "q", 0u);
	bk_run(k);
	assert_int_equal(k->b->queues[0].ready_count, 1);
	bk_check(k);
	c->writes_left = -1;
	bk_assert_read(c, "1 basic.get_ok(1, 0, , q, 0)\n1 header(60, 1)\n1 body(1, m)\n");
	bk_check(k);
	bk_fini(k);
}

/* ---- entries ---- */

static void a_route_that_needs_more_entries_than_are_free_stalls_its_publisher_before_anything_is_queued(void **state)
{
	struct amqp_limits l;
	struct bk *k;
	struct bk_conn *p, *c;
	unsigned next = 0;

	(void)state;
	bk_limits(&l);
	l.queues_max = 4;
	l.entries_max = 9;
	k = start(&l);
	p = bk_connect(k, 1);
	c = bk_connect(k, 1);
	bk_say(p, 1, 85, 10, 1u);
	publish_numbers(p, "all", "", 0, 6); /* four fit, with two entries each */
	bk_run(k);
	bk_check(k);
	assert_true(p->c->stalled);
	assert_int_equal(k->b->queues[0].ready_count, 4);
	assert_int_equal(k->b->queues[1].ready_count, 4);
	assert_true(k->b->counters[AMQP_CNT_stalls_memory] > 0);
	assert_string_equal(bk_read(p), "1 basic.ack(4, 1)\n");
	bk_consume(c, 1, "q", "t", true); /* frees one of two, message by message */
	bk_run(k);
	bk_consume(c, 1, "r", "u", true);
	bk_run(k);
	assert_false(p->c->stalled);
	assert_int_equal(k->b->entries_count, 0);
	assert_int_equal(k->b->queues[0].delivered, 6);
	assert_int_equal(k->b->queues[1].delivered, 6);
	assert_string_equal(bk_read(p), "1 basic.ack(6, 1)\n");
	(void)next;
	bk_check(k);
	bk_fini(k);
}

static void no_ack_deliveries_go_on_when_other_queues_have_taken_all_entries(void **state)
{
	struct amqp_limits l;
	struct bk *k;
	struct bk_conn *p, *c;
	unsigned next = 0;

	(void)state;
	bk_limits(&l);
	l.queues_max = 4;
	l.entries_max = 4;
	k = start(&l);
	p = bk_connect(k, 1);
	c = bk_connect(k, 1);
	publish_numbers(p, "", "r", 0, 4); /* nobody consumes r */
	bk_consume(c, 1, "q", "t", true);
	publish_numbers(p, "", "q", 0, 50);
	bk_run(k);
	assert_int_equal(count_in_order(bk_read(c), &next), 50);
	assert_false(p->c->stalled);
	bk_check(k);
	bk_fini(k);
}

static void a_bounded_queue_takes_messages_in_place_of_those_it_drops_when_no_entry_is_free(void **state)
{
	struct amqp_limits l;
	struct bk *k;
	struct bk_conn *p;

	(void)state;
	bk_limits(&l);
	l.queues_max = 4;
	l.entries_max = 4;
	k = start(&l);
	p = bk_connect(k, 1);
	bk_queue_args(k, 2, "two", 0, bk_int_arg("x-max-length", 2));
	publish_numbers(p, "", "two", 0, 2);
	publish_numbers(p, "", "r", 0, 2);
	publish_numbers(p, "", "two", 2, 6);
	assert_false(p->c->stalled);
	assert_int_equal(k->b->queues[2].ready_count, 2);
	assert_int_equal(k->b->queues[2].dropped, 6);
	bk_check(k);
	bk_fini(k);
}

/* ---- message memory ---- */

static void a_publisher_without_memory_for_its_message_waits_and_acks_still_come_through(void **state)
{
	struct amqp_limits l;
	struct bk *k;
	struct bk_conn *p, *c;
	static uint8_t body[200000];
	unsigned published;

	(void)state;
	bk_limits(&l);
	l.message_bytes_max = 400000;
	l.message_pool_bytes = 4u << 20;
	k = start(&l);
	p = bk_connect(k, 1);
	c = bk_connect(k, 1);
	bk_consume(c, 1, "q", "t", false);
	for (unsigned i = 0; i < 40; i++) /* 40 x 256 KiB into 4 MiB */
		bk_publish_long(p, 1, "", "q", body, sizeof body);
	bk_run(k);
	assert_true(p->c->stalled);
	published = (unsigned)k->b->counters[AMQP_CNT_publishes];
	assert_in_range(published, 10, 15);
	bk_check(k);
	for (uint64_t tag = 1; tag <= 40; tag++) {
		uint8_t ack[21] = {1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, (uint8_t)tag, 0, 0xce};

		bk_release(k, k->refs_count); /* the transport has sent all */
		bk_input(c, ack, 9);          /* an ack in two packets: to be joined although memory is short */
		bk_run(k);
		bk_input(c, ack + 9, sizeof ack - 9);
		bk_run(k);
		bk_check(k);
	}
	assert_int_equal(k->b->counters[AMQP_CNT_publishes], 40);
	assert_int_equal(k->b->queues[0].acked, 40);
	assert_false(p->c->stalled);
	bk_fini(k);
}

static void publishes_leave_a_sixteenth_of_the_pool_to_acks_and_names(void **state)
{
	struct amqp_limits l;
	struct bk *k;
	struct bk_conn *p;
	static uint8_t body[700];

	(void)state;
	bk_limits(&l);
	l.message_bytes_max = 65536;
	l.message_pool_bytes = 1u << 20;
	k = start(&l);
	p = bk_connect(k, 1);
	while (!p->c->stalled)
		bk_publish_long(p, 1, "", "q", body, sizeof body);
	assert_in_range(amqp_pool_used(k->b->pool), (1u << 20) / 16 * 15 - 1023, (1u << 20) / 16 * 15);
	bk_queue(k, 2, "a name still finds room");
	bk_check(k);
	bk_fini(k);
}

static void a_body_for_which_there_is_no_room_although_no_message_is_held_is_refused_not_awaited(void **state)
{
	struct amqp_limits l;
	struct bk *k;
	struct bk_conn *p;
	void *held[64];
	unsigned n = 0;

	(void)state;
	bk_limits(&l);
	l.message_bytes_max = 400000;
	l.message_pool_bytes = 4u << 20;
	k = start(&l);
	p = bk_connect(k, 1);
	while (n < 64 && (held[n] = amqp_pool_alloc(k->b->pool, 65536)) != NULL) /* names and tables, say */
		n++;
	bk_say(p, 1, 60, 40, 0u, "", "q", 0u, 0u);
	bk_frame(p, 2, 1, "\0\x3c\0\0\0\0\0\0\0\5\0\0\0\0", 14);
	bk_assert_read(p, "1 channel.close(311, CONTENT_TOO_LARGE - no room for a body of 327680 octets, 60, 40)\n");
	while (n > 0)
		amqp_pool_free(k->b->pool, held[--n]);
	bk_check(k);
	bk_fini(k);
}

/* ---- large bodies ---- */

static uint8_t *pattern(size_t len)
{
	uint8_t *p = malloc(len);

	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)("0123456789abcdef"[i % 16]);
	return p;
}

/* The bytes of one content in `c`'s output: body frames joined and compared with `body`. */
static void assert_body(struct bk_conn *c, const uint8_t *body, size_t len, unsigned *frames)
{
	size_t got = 0;

	*frames = 0;
	while (c->read < c->len) {
		const uint8_t *f = c->out + c->read;
		uint32_t n = amqp_get_be32(f + 3);

		assert_true(n + 8 <= c->c->frame_max);
		assert_int_equal(f[7 + n], 0xce);
		assert_int_equal(amqp_get_be16(f + 1), 1);
		if (f[0] == 3) {
			assert_true(got + n <= len);
			assert_memory_equal(f + 7, body + got, n);
			got += n;
			(*frames)++;
		}
		c->read += n + 8;
	}
	assert_int_equal(got, len);
}

static void a_large_body_is_referenced_and_cut_into_frames_that_each_consumer_takes(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *p = bk_connect(k, 1), *small = bk_connect(k, 1), *big = bk_connect(k, 1);
	static const size_t lens[] = {1400, 1500, 4087, 4088, 4089, 8176, 100000, 131064, 131065, 1 << 20};
	unsigned frames;

	(void)state;
	small->c->frame_max = 4096;
	bk_consume(small, 1, "q", "t", true);
	bk_consume(big, 1, "r", "t", false);
	for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; i++) {
		uint8_t *body = pattern(lens[i]);

		bk_publish_long(p, 1, "all", "", body, lens[i]);
		bk_run(k);
		assert_body(small, body, lens[i], &frames);
		assert_int_equal(frames, (lens[i] + 4087) / 4088);
		assert_body(big, body, lens[i], &frames);
		assert_int_equal(frames, (lens[i] + 131063) / 131064);
		bk_check(k);
		bk_say(big, 1, 60, 80, (uint64_t)0, 1u);
		bk_check(k);
		bk_release(k, k->refs_count / 2);
		free(body);
	}
	bk_release(k, k->refs_count);
	assert_int_equal(k->b->messages_count, 0);
	bk_fini(k);
}

static void a_large_body_comes_by_get_and_in_a_return_as_well(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *c = bk_connect(k, 1);
	uint8_t *body = pattern(300000);
	unsigned frames;

	(void)state;
	bk_publish_props(c, 1, "", "nobody", true, "\0", 2, body, 300000);
	bk_run(k);
	assert_body(c, body, 300000, &frames);
	assert_int_equal(frames, 3);
	bk_publish_long(c, 1, "", "q", body, 300000);
	bk_say(c, 1, 60, 70, 0u, "q", 1u);
	bk_run(k);
	assert_body(c, body, 300000, &frames);
	free(body);
	bk_check(k);
	bk_fini(k);
}

static void a_content_cut_off_in_the_middle_resets_that_connection_and_the_message_goes_elsewhere(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *p = bk_connect(k, 1);
	uint8_t *body = pattern(200000);
	unsigned frames;

	(void)state;
	/* Lead, two body references with a frame end and head between them: the second, third or fourth write fails. */
	for (uint32_t nth = 2; nth <= 4; nth++) {
		struct bk_conn *broken = bk_connect(k, 1), *good = bk_connect(k, 1);

		bk_consume(broken, 1, "q", "t", false);
		bk_consume(good, 1, "q", "t", true);
		broken->fail_nth = nth;
		bk_publish_long(p, 1, "", "q", body, 200000);
		bk_run(k);
		bk_check(k);
		assert_true(broken->aborted);
		assert_body(good, body, 200000, &frames);
		assert_int_equal(k->b->counters[AMQP_CNT_aborts_no_room], nth - 1);
		bk_disconnect(good);
		bk_release(k, k->refs_count);
		bk_check(k);
	}
	free(body);
	bk_fini(k);
}

static void a_content_header_that_a_consumers_frame_max_forbids_closes_that_connection_with_501(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *p = bk_connect(k, 1), *small = bk_connect(k, 1), *big = bk_connect(k, 1), *getter = bk_connect(k, 1);
	static uint8_t props[6000] = {0x20, 0, 0, 0, 0x17, 0x6a, 1, 'h', 'S', 0, 0, 0x17, 0x63};

	(void)state;
	small->c->frame_max = 4096;
	getter->c->frame_max = 4096;
	memset(props + 13, 'v', sizeof props - 13);
	bk_consume(small, 1, "q", "t", true);
	bk_consume(big, 1, "q", "t", true);
	bk_publish_props(p, 1, "", "q", false, props, sizeof props, "b", 1);
	bk_run(k);
	bk_check(k);
	assert_string_equal(bk_read(small),
			    "0 connection.close(501, FRAME_ERROR - a content header of 6012 octets is due, the frame-max "
			    "is 4096, 60, 60)\n");
	assert_string_equal(bk_read(big), "1 basic.deliver(t, 1, 0, , q)\n1 header(60, 1)\n1 body(1, b)\n");
	bk_disconnect(big);
	bk_publish_props(p, 1, "", "q", false, props, sizeof props, "b", 1);
	bk_say(getter, 1, 60, 70, 0u, "q", 1u);
	bk_assert_read(getter,
		       "0 connection.close(501, FRAME_ERROR - a content header of 6012 octets is due, the frame-max is 4096, 60, "
		       "70)\n");
	assert_int_equal(k->b->queues[0].ready_count, 1);
	bk_check(k);
	bk_fini(k);
}

static void a_confirm_that_finds_no_room_resets_the_publisher(void **state)
{
	struct bk *k = start(NULL);
	struct bk_conn *p = bk_connect(k, 1);

	(void)state;
	bk_say(p, 1, 85, 10, 1u);
	bk_publish(p, 1, "", "q", "m");
	p->writes_left = 0;
	bk_run(k);
	assert_true(p->aborted);
	assert_int_equal(k->b->queues[0].ready_count, 1); /* it was not confirmed, but neither is it lost */
	bk_check(k);
	bk_fini(k);
}

static void a_client_that_dies_in_the_middle_of_a_publish_leaves_nothing_behind(void **state)
{
	struct bk *k = start(NULL);
	size_t used = amqp_pool_used(k->b->pool);
	static const uint8_t publish[] = {1, 0, 1, 0,    0, 0, 10, 0, 60, 0, 40, 0,   0,   0,   1,   'q', 0, 0xce,
					  2, 0, 1, 0,    0, 0, 14, 0, 60, 0, 0,  0,   0,   0,   0,   0,   0, 0,
					  4, 0, 0, 0xce, 3, 0, 1,  0, 0,  0, 4,  'b', 'o', 'd', 'y', 0xce};

	(void)state;
	for (size_t cut = 0; cut < sizeof publish; cut++) {
		struct bk_conn *p = bk_connect(k, 1);

		bk_input(p, publish, cut);
		bk_check(k);
		bk_disconnect(p);
		bk_check(k);
		assert_int_equal(amqp_pool_used(k->b->pool), used);
	}
	assert_int_equal(k->b->queues[0].ready_count, 0);
	bk_fini(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_slow_consumers_queue_takes_over_while_the_others_go_on),
		cmocka_unit_test(a_drained_backlog_stops_at_the_mark_and_goes_on_behind_it),
		cmocka_unit_test(a_delivery_that_finds_no_room_is_queued_in_front_of_the_next_and_tried_again),
		cmocka_unit_test(a_return_that_finds_no_room_stalls_the_publisher_and_nothing_is_lost),
		cmocka_unit_test(a_get_that_finds_no_room_is_answered_later),
		cmocka_unit_test(a_route_that_needs_more_entries_than_are_free_stalls_its_publisher_before_anything_is_queued),
		cmocka_unit_test(no_ack_deliveries_go_on_when_other_queues_have_taken_all_entries),
		cmocka_unit_test(a_bounded_queue_takes_messages_in_place_of_those_it_drops_when_no_entry_is_free),
		cmocka_unit_test(a_publisher_without_memory_for_its_message_waits_and_acks_still_come_through),
		cmocka_unit_test(publishes_leave_a_sixteenth_of_the_pool_to_acks_and_names),
		cmocka_unit_test(a_body_for_which_there_is_no_room_although_no_message_is_held_is_refused_not_awaited),
		cmocka_unit_test(a_large_body_is_referenced_and_cut_into_frames_that_each_consumer_takes),
		cmocka_unit_test(a_large_body_comes_by_get_and_in_a_return_as_well),
		cmocka_unit_test(a_content_cut_off_in_the_middle_resets_that_connection_and_the_message_goes_elsewhere),
		cmocka_unit_test(a_content_header_that_a_consumers_frame_max_forbids_closes_that_connection_with_501),
		cmocka_unit_test(a_confirm_that_finds_no_room_resets_the_publisher),
		cmocka_unit_test(a_client_that_dies_in_the_middle_of_a_publish_leaves_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
