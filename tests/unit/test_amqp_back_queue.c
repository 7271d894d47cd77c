/*
 * test_amqp_back_queue.c - queues: order, redelivery, bounds and overflow, round robin, deletion under consumers.
 *
 * Owns: a broker with the default exchange and one queue "q".
 * Core: test.
 * Spec: AMQP 0-9-1 sections 3.1.4 and 4.7 (order); RabbitMQ's x-max-length, x-max-length-bytes, x-overflow.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/amqp_back_kit.h"

#define NO_TABLE ((struct amqp_span){NULL, 0})

static struct bk *start(struct amqp_span args)
{
	static struct bk k;

	bk_init(&k, NULL);
	bk_default_exchange(&k, 0);
	bk_queue_args(&k, 0, "q", 0, args);
	return &k;
}

static void publish_letters(struct bk_conn *c, char first, char last)
{
	for (char m[2] = {first, 0}; m[0] <= last; m[0]++)
		bk_publish(c, 1, "", "q", m);
}

/* The bodies of all messages delivered to `c` since the last look, as one text; a redelivered one in upper case. */
static const char *letters(struct bk_conn *c)
{
	static char out[4096];
	const char *at;
	size_t n = 0;
	bool again = false;

	bk_run(c->k);
	for (at = bk_read(c); *at != '\0'; at = strchr(at, '\n') + 1) {
		unsigned channel, len;
		char tag[64], body;
		unsigned long long number;
		int redelivered;

		if (sscanf(at, "%u basic.deliver(%63[^,], %llu, %d,", &channel, tag, &number, &redelivered) == 4)
			again = redelivered;
		else if (sscanf(at, "%u body(%u, %c", &channel, &len, &body) == 3)
			out[n++] = (char)(again ? body - 'a' + 'A' : body);
	}
	out[n] = '\0';
	return out;
}

static void messages_wait_in_order_for_a_consumer(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	publish_letters(c, 'a', 'h');
	bk_check(k);
	bk_consume(c, 1, "q", "t", true);
	assert_string_equal(letters(c), "abcdefgh");
	publish_letters(c, 'i', 'k');
	assert_string_equal(letters(c), "ijk");
	assert_int_equal(k->b->counters[AMQP_CNT_deliveries_direct], 3);
	assert_int_equal(k->b->counters[AMQP_CNT_deliveries], 11);
	bk_fini(k);
}

static void consumers_of_a_queue_are_served_in_turn(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *p = bk_connect(k, 1), *a = bk_connect(k, 1), *b = bk_connect(k, 1), *c = bk_connect(k, 1);

	(void)state;
	bk_consume(a, 1, "q", "t", true);
	bk_consume(b, 1, "q", "t", true);
	bk_consume(c, 1, "q", "t", true);
	publish_letters(p, 'a', 'i');
	assert_string_equal(letters(a), "adg");
	assert_string_equal(letters(b), "beh");
	assert_string_equal(letters(c), "cfi");
	bk_say(b, 1, 60, 30, "t", 1u);
	publish_letters(p, 'a', 'd');
	assert_string_equal(letters(a), "ac");
	assert_string_equal(letters(c), "bd");
	bk_check(k);
	bk_fini(k);
}

static void a_consumer_without_credit_is_passed_over_and_has_its_turn_again_after_an_ack(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *p = bk_connect(k, 1), *a = bk_connect(k, 1), *b = bk_connect(k, 1);

	(void)state;
	bk_say(a, 1, 60, 10, 0u, 1u, 0u);
	bk_consume(a, 1, "q", "t", false);
	bk_consume(b, 1, "q", "t", true);
	publish_letters(p, 'a', 'd');
	assert_string_equal(letters(a), "a");
	assert_string_equal(letters(b), "bcd");
	assert_true(k->b->consumers[0].parked);
	bk_say(a, 1, 60, 80, (uint64_t)1, 0u);
	assert_false(k->b->consumers[0].parked);
	publish_letters(p, 'e', 'g');
	assert_string_equal(letters(a), "f");
	assert_string_equal(letters(b), "eg");
	bk_check(k);
	bk_fini(k);
}

static void requeued_messages_go_back_between_their_neighbours(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *p = bk_connect(k, 1), *odd = bk_connect(k, 1), *even = bk_connect(k, 1), *c = bk_connect(k, 1);

	(void)state;
	bk_say(odd, 1, 60, 10, 0u, 4u, 0u);
	bk_say(even, 1, 60, 10, 0u, 4u, 0u);
	bk_consume(odd, 1, "q", "t", false);
	bk_consume(even, 1, "q", "t", false);
	publish_letters(p, 'a', 'k'); /* a c e g to odd, b d f h to even, i j k wait */
	assert_string_equal(letters(odd), "aceg");
	assert_string_equal(letters(even), "bdfh");
	bk_say(even, 1, 60, 30, "t", 1u);
	bk_disconnect(even);
	bk_check(k);
	bk_say(odd, 1, 60, 30, "t", 1u);
	bk_say(odd, 1, 60, 90, (uint64_t)3, 1u); /* e alone, in the middle */
	bk_check(k);
	bk_disconnect(odd);
	bk_check(k);
	bk_consume(c, 1, "q", "t", true);
	assert_string_equal(letters(c), "ABCDEFGHijk");
	bk_fini(k);
}

static void many_messages_of_two_consumers_interleave_again_in_linear_time(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *p = bk_connect(k, 1), *a = bk_connect(k, 1), *b = bk_connect(k, 1);
	uint64_t seq = 0, turns = 0;

	(void)state;
	bk_consume(a, 1, "q", "t", false);
	bk_consume(b, 1, "q", "t", false);
	for (unsigned i = 0; i < 3000; i++)
		bk_publish(p, 1, "", "q", "m");
	assert_int_equal(k->b->queues[0].unacked_count, 3000);
	bk_say(b, 1, 60, 30, "t", 1u);
	bk_disconnect(a);
	bk_disconnect(b);
	/* Not all at once: ticks wait no longer than a step takes, and until its step a message is one that was delivered. */
	assert_int_equal(k->b->queues[0].ready_count, 0);
	while (k->b->given_up_first != NULL) {
		uint32_t before = k->b->queues[0].ready_count;

		amqp_tick(k->b);
		bk_check(k);
		assert_in_range(k->b->queues[0].ready_count - before, 1, 32);
		assert_int_equal(k->b->queues[0].ready_count + k->b->queues[0].unacked_count, 3000);
		turns++;
	}
	assert_in_range(turns, 3000 / 32, 3000 / 16);
	for (uint32_t i = k->b->queues[0].ready_first; i != AMQP_NONE; i = k->b->entries[i].next)
		assert_int_equal(k->b->entries[i].seq, seq++);
	assert_int_equal(seq, 3000);
	bk_fini(k);
}

/* One turn of a worker; how many unacknowledged ones of the queue it settled. */
static uint32_t settled_in_a_turn(struct bk *k)
{
	uint32_t before = k->b->queues[0].unacked_count;

	k->now_ns += 1000;
	amqp_set_now(k->b, k->now_ns, 1700000000);
	amqp_tick(k->b);
	amqp_burst_end(k->b);
	bk_check(k);
	return before - k->b->queues[0].unacked_count;
}

static void an_ack_of_very_many_is_worked_off_in_steps_and_its_connection_waits(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 2);
	uint32_t turns = 0;

	(void)state;
	bk_consume(c, 1, "q", "t", false);
	for (unsigned i = 0; i < 2000; i++)
		bk_publish(p, 1, "", "q", "m");
	bk_run(k);
	bk_read(c);
	bk_say(c, 1, 60, 80, (uint64_t)1999, 1u);  /* ack, multiple */
	bk_say(c, 2, 20, 40, 200u, "bye", 0u, 0u); /* and something that is answered */
	assert_int_equal(k->b->queues[0].unacked_count, 2000 - 40);
	while (k->b->queues[0].unacked_count > 1) {
		assert_string_equal(bk_read(c), "");
		assert_in_range(settled_in_a_turn(k), 1, 2 * 64);
		turns++;
	}
	assert_in_range(turns, 1999 / 128, 1999 / 32);
	assert_int_equal(k->b->queues[0].acked, 1999);
	assert_int_equal(k->b->counters[AMQP_CNT_stalls_memory], 0);
	bk_assert_read(c, "2 channel.close_ok()\n");
	bk_say(c, 1, 60, 80, (uint64_t)2000, 0u);
	assert_int_equal(k->b->queues[0].unacked_count, 0);
	bk_check(k);
	bk_fini(k);
}

/* Tag 0 means what the client has seen when it says so, not what it is sent while that is worked off. */
static void an_ack_of_all_in_steps_spares_what_is_delivered_meanwhile(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);

	(void)state;
	bk_consume(c, 1, "q", "t", false);
	for (unsigned i = 0; i < 1000; i++)
		bk_publish(p, 1, "", "q", "m");
	bk_run(k);
	bk_say(c, 1, 60, 80, (uint64_t)0, 1u);
	assert_int_equal(k->b->queues[0].unacked_count, 1000 - 40);
	bk_publish(p, 1, "", "q", "x");
	bk_publish(p, 1, "", "q", "y");
	bk_run(k);
	while (k->b->queues[0].acked < 1000)
		settled_in_a_turn(k);
	bk_run(k);
	assert_int_equal(k->b->queues[0].acked, 1000);
	assert_int_equal(k->b->queues[0].unacked_count, 2);
	bk_say(c, 1, 60, 80, (uint64_t)0, 1u); /* the next one is not mistaken for the rest of the last */
	assert_int_equal(k->b->queues[0].unacked_count, 0);
	bk_check(k);
	bk_fini(k);
}

static void very_many_that_are_recovered_come_again_in_their_order(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *p = bk_connect(k, 1), *c = bk_connect(k, 1);
	uint64_t seq = 0;
	uint32_t turns = 0;

	(void)state;
	bk_consume(c, 1, "q", "t", false);
	for (unsigned i = 0; i < 1500; i++)
		bk_publish(p, 1, "", "q", "m");
	bk_run(k);
	bk_read(c);
	bk_say(c, 1, 60, 30, "t", 1u); /* nobody takes them meanwhile */
	bk_say(c, 1, 60, 110, 1u);
	for (; k->b->queues[0].unacked_count > 0; turns++)
		assert_in_range(settled_in_a_turn(k), 1, 2 * 64);
	assert_in_range(turns, 1500 / 128, 1500 / 32);
	for (uint32_t i = k->b->queues[0].ready_first; i != AMQP_NONE; i = k->b->entries[i].next)
		assert_int_equal(k->b->entries[i].seq, seq++);
	assert_int_equal(seq, 1500);
	bk_assert_read(c, "1 basic.recover_ok()\n");
	bk_fini(k);
}

/* ---- bounds ---- */

static void a_full_queue_drops_its_oldest_message(void **state)
{
	struct bk *k = start(bk_int_arg("x-max-length", 3));
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	publish_letters(c, 'a', 'g');
	bk_check(k);
	assert_int_equal(k->b->queues[0].dropped, 4);
	assert_int_equal(k->b->counters[AMQP_CNT_dropped_head], 4);
	bk_consume(c, 1, "q", "t", true);
	assert_string_equal(letters(c), "efg");
	publish_letters(c, 'a', 'g'); /* delivered at once: nothing is dropped */
	assert_string_equal(letters(c), "abcdefg");
	bk_fini(k);
}

static void a_queue_full_by_bytes_drops_until_the_new_message_fits(void **state)
{
	struct bk *k = start(bk_int_arg("x-max-length-bytes", 10));
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_publish(c, 1, "", "q", "aaaa");
	bk_publish(c, 1, "", "q", "bbbb");
	bk_publish(c, 1, "", "q", "cccccccc");
	assert_int_equal(k->b->queues[0].ready_count, 1);
	bk_publish(c, 1, "", "q", "ddddddddddd"); /* larger than the queue */
	assert_int_equal(k->b->queues[0].ready_count, 0);
	assert_int_equal(k->b->queues[0].dropped, 4);
	bk_publish(c, 1, "", "q", "");
	bk_publish(c, 1, "", "q", "eeeeeeeeee");
	assert_int_equal(k->b->queues[0].ready_count, 2);
	bk_check(k);
	bk_fini(k);
}

static void a_queue_of_length_0_delivers_at_once_or_not_at_all(void **state)
{
	struct bk *k = start(bk_int_arg("x-max-length", 0));
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	publish_letters(c, 'a', 'c');
	bk_consume(c, 1, "q", "t", true);
	publish_letters(c, 'd', 'f');
	assert_string_equal(letters(c), "def");
	bk_check(k);
	bk_fini(k);
}

static void requeued_messages_obey_the_bounds_too(void **state)
{
	struct bk *k = start(bk_int_arg("x-max-length", 2));
	struct bk_conn *p = bk_connect(k, 1), *a = bk_connect(k, 1);

	(void)state;
	bk_say(a, 1, 60, 10, 0u, 3u, 0u);
	bk_consume(a, 1, "q", "t", false);
	publish_letters(p, 'a', 'e'); /* a b c are out, d e wait */
	assert_string_equal(letters(a), "abc");
	bk_disconnect(a);
	bk_check(k);
	bk_consume(p, 1, "q", "t", true);
	assert_string_equal(letters(p), "de");
	bk_fini(k);
}

static void reject_publish_refuses_the_new_message_and_keeps_the_old_ones(void **state)
{
	struct bk *k = start(bk_int_text_args("x-max-length-bytes", 6, "x-overflow", "reject-publish"));
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_publish(c, 1, "", "q", "aaaa");
	bk_publish(c, 1, "", "q", "bbbb");
	bk_publish(c, 1, "", "q", "cc");
	assert_int_equal(k->b->queues[0].ready_count, 2);
	assert_int_equal(k->b->queues[0].published, 2);
	bk_consume(c, 1, "q", "t", true);
	assert_string_equal(letters(c), "ac");
	bk_check(k);
	bk_fini(k);
}

static void one_message_on_many_queues_is_one_message(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_exchange(k, 1, AMQP_FANOUT, "all");
	for (uint32_t i = 1; i <= 50; i++) {
		char name[16];

		snprintf(name, sizeof name, "q%u", i);
		bk_queue(k, i, name);
		bk_bind(k, i, 1, i, AMQP_ID_NONE, "");
	}
	bk_publish(c, 1, "all", "", "m");
	assert_int_equal(k->b->messages_count, 1);
	assert_int_equal(k->b->message_refs, 50);
	bk_check(k);
	bk_say(c, 1, 60, 70, 0u, "q7", 1u);
	assert_int_equal(k->b->message_refs, 49);
	bk_fini(k);
}

/* ---- deletion ---- */

static void deleting_a_queue_cancels_its_consumers_where_the_client_understands_it(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *a = bk_connect(k, 1), *b = bk_connect(k, 1), *c = bk_connect(k, 1);

	(void)state;
	b->c->cap_cancel_notify = false;
	bk_say(c, 1, 60, 10, 0u, 1u, 0u);
	bk_consume(a, 1, "q", "ta", true);
	bk_consume(b, 1, "q", "tb", true);
	bk_consume(c, 1, "q", "tc", false);
	publish_letters(a, 'a', 'e'); /* c is parked by now */
	bk_run(k);
	bk_read(a);
	bk_read(b);
	bk_read(c);
	bk_del(k, AMQP_OP_QUEUE_DEL, 0);
	bk_check(k);
	bk_assert_read(a, "1 basic.cancel(ta, 1)\n");
	bk_assert_read(b, "");
	bk_assert_read(c, "1 basic.cancel(tc, 1)\n");
	assert_int_equal(k->b->consumers_count, 0);
	bk_fini(k);
}

static void messages_of_a_deleted_queue_can_still_be_settled_and_never_touch_the_slots_next_queue(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_consume(c, 1, "q", "t", false);
	publish_letters(c, 'a', 'd');
	assert_string_equal(letters(c), "abcd");
	publish_letters(c, 'e', 'f');
	bk_del(k, AMQP_OP_QUEUE_DEL, 0);
	bk_queue(k, 0, "next");
	bk_check(k);
	assert_int_equal(k->b->entries_count, 6);
	bk_say(c, 1, 60, 80, (uint64_t)1, 0u);
	bk_say(c, 1, 60, 90, (uint64_t)2, 1u); /* requeue: there is no queue any more */
	bk_say(c, 1, 60, 90, (uint64_t)3, 0u);
	bk_check(k);
	assert_int_equal(k->b->queues[0].ready_count + k->b->queues[0].unacked_count, 0);
	assert_int_equal(k->b->queues[0].acked, 0);
	assert_int_equal(k->b->entries_count, 3);
	bk_disconnect(c);
	assert_int_equal(k->b->queues[0].ready_count, 0);
	bk_check(k);
	bk_fini(k);
}

static void a_long_queue_that_is_deleted_is_freed_in_small_steps(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *c = bk_connect(k, 1);
	uint32_t before;

	(void)state;
	for (unsigned i = 0; i < 4000; i++)
		bk_publish(c, 1, "", "q", "m");
	bk_del(k, AMQP_OP_QUEUE_DEL, 0);
	before = k->b->entries_count;
	assert_int_equal(before, 4000);
	amqp_tick(k->b);
	assert_in_range(before - k->b->entries_count, 1, 512);
	bk_check(k);
	for (unsigned i = 0; i < 20; i++)
		bk_run(k);
	assert_int_equal(k->b->entries_count, 0);
	bk_fini(k);
}

static void a_queue_on_the_work_list_may_be_deleted_and_its_slot_reused(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	publish_letters(c, 'a', 'c');
	bk_consume(c, 1, "q", "t", true); /* on the list now */
	assert_true(k->b->queues[0].drain_queued);
	bk_del(k, AMQP_OP_QUEUE_DEL, 0);
	bk_check(k);
	bk_queue(k, 0, "q");
	bk_consume(c, 1, "q", "t", true);
	publish_letters(c, 'd', 'e');
	bk_check(k);
	assert_string_equal(letters(c), "de");
	bk_fini(k);
}

static void an_unacknowledged_delivery_that_is_never_settled_does_not_make_the_ring_grow(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *c = bk_connect(k, 1);
	const struct amqp_channel *ch = &k->b->channels[c->c->channel_by_number[1]];

	(void)state;
	bk_consume(c, 1, "q", "t", false);
	for (uint64_t i = 1; i <= 5000; i++) {
		bk_publish(c, 1, "", "q", "m");
		if (i > 1)
			bk_say(c, 1, 60, 80, i, 0u);
	}
	assert_int_equal(ch->unacked_count, 1);
	assert_true(ch->unacked_cap <= 64);
	bk_check(k);
	bk_say(c, 1, 60, 80, (uint64_t)1, 0u);
	assert_int_equal(ch->unacked_len, 0);
	bk_fini(k);
}

static void closing_a_channel_requeues_and_the_next_consumer_has_it_at_once(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *a = bk_connect(k, 2), *b = bk_connect(k, 1);

	(void)state;
	bk_consume(a, 2, "q", "t", false);
	publish_letters(a, 'a', 'c');
	assert_string_equal(letters(a), "abc");
	bk_consume(b, 1, "q", "t", true);
	bk_say(a, 2, 20, 40, 200u, "", 0u, 0u);
	assert_string_equal(letters(b), "ABC");
	bk_check(k);
	bk_fini(k);
}

static void cancelling_keeps_what_was_delivered_settleable(void **state)
{
	struct bk *k = start(NO_TABLE);
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_say(c, 1, 60, 10, 0u, 3u, 1u);
	bk_consume(c, 1, "q", "t", false);
	publish_letters(c, 'a', 'f');
	assert_string_equal(letters(c), "abc");
	bk_say(c, 1, 60, 30, "t", 1u);
	bk_check(k);
	bk_consume(c, 1, "q", "u", false); /* the channel's prefetch is still taken by what t left */
	assert_string_equal(letters(c), "");
	bk_say(c, 1, 60, 80, (uint64_t)2, 1u);
	assert_string_equal(letters(c), "de");
	bk_check(k);
	bk_fini(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_wait_in_order_for_a_consumer),
		cmocka_unit_test(consumers_of_a_queue_are_served_in_turn),
		cmocka_unit_test(a_consumer_without_credit_is_passed_over_and_has_its_turn_again_after_an_ack),
		cmocka_unit_test(requeued_messages_go_back_between_their_neighbours),
		cmocka_unit_test(many_messages_of_two_consumers_interleave_again_in_linear_time),
		cmocka_unit_test(an_ack_of_very_many_is_worked_off_in_steps_and_its_connection_waits),
		cmocka_unit_test(an_ack_of_all_in_steps_spares_what_is_delivered_meanwhile),
		cmocka_unit_test(very_many_that_are_recovered_come_again_in_their_order),
		cmocka_unit_test(a_full_queue_drops_its_oldest_message),
		cmocka_unit_test(a_queue_full_by_bytes_drops_until_the_new_message_fits),
		cmocka_unit_test(a_queue_of_length_0_delivers_at_once_or_not_at_all),
		cmocka_unit_test(requeued_messages_obey_the_bounds_too),
		cmocka_unit_test(reject_publish_refuses_the_new_message_and_keeps_the_old_ones),
		cmocka_unit_test(one_message_on_many_queues_is_one_message),
		cmocka_unit_test(deleting_a_queue_cancels_its_consumers_where_the_client_understands_it),
		cmocka_unit_test(messages_of_a_deleted_queue_can_still_be_settled_and_never_touch_the_slots_next_queue),
		cmocka_unit_test(a_long_queue_that_is_deleted_is_freed_in_small_steps),
		cmocka_unit_test(a_queue_on_the_work_list_may_be_deleted_and_its_slot_reused),
		cmocka_unit_test(an_unacknowledged_delivery_that_is_never_settled_does_not_make_the_ring_grow),
		cmocka_unit_test(closing_a_channel_requeues_and_the_next_consumer_has_it_at_once),
		cmocka_unit_test(cancelling_keeps_what_was_delivered_settleable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
