/*
 * test_amqp_back_fair.c - who of many subscribers is served first and last, and that one who takes nothing is not asked.
 *
 * Owns: a broker with a fanout "all" and a queue with a no-ack consumer for each subscriber.
 * Core: test.
 * Spec: amqp/README.md, "How a tick goes out": a route is walked round from a start that moves on with every burst.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/amqp_back_kit.h"

#define SUBSCRIBERS_MAX 32u

struct crowd {
	struct bk k;
	struct bk_conn *publisher, *sub[SUBSCRIBERS_MAX];
	unsigned first[SUBSCRIBERS_MAX], last[SUBSCRIBERS_MAX], next[SUBSCRIBERS_MAX]; /* next: tick that is due */
	unsigned ticks;
};

static void join(struct crowd *w, unsigned i, bool no_ack)
{
	char name[16];

	snprintf(name, sizeof name, "q%u", i);
	bk_queue(&w->k, i, name);
	bk_bind(&w->k, i, 0, i, AMQP_ID_NONE, "");
	if (w->sub[i] == NULL)
		w->sub[i] = bk_connect(&w->k, 1);
	bk_consume(w->sub[i], 1, name, name, no_ack); /* its tag is the queue's name */
	w->next[i] = w->ticks;
}

static void leave(struct crowd *w, unsigned i)
{
	char name[16];

	snprintf(name, sizeof name, "q%u", i);
	bk_say(w->sub[i], 1, 60, 30, name, 1u);
	bk_del(&w->k, AMQP_OP_BIND_DEL, i);
	bk_del(&w->k, AMQP_OP_QUEUE_DEL, i);
}

static struct crowd *gather(const struct amqp_limits *l, unsigned count)
{
	struct crowd *w = calloc(1, sizeof *w);

	assert_non_null(w);
	bk_init(&w->k, l);
	bk_exchange(&w->k, 0, AMQP_FANOUT, "all");
	w->publisher = bk_connect(&w->k, 1);
	for (unsigned i = 0; i < count; i++)
		join(w, i, true);
	return w;
}

static void part(struct crowd *w)
{
	bk_check(&w->k);
	bk_fini(&w->k);
	free(w);
}

static void publish(struct crowd *w, unsigned count)
{
	for (; count > 0; count--) {
		char body[16];

		snprintf(body, sizeof body, "%u", w->ticks++);
		bk_publish(w->publisher, 1, "all", "", body);
	}
}

/* Everybody has every tick, in order. */
static void assert_all_came(struct crowd *w, unsigned i)
{
	unsigned channel, len, number;

	for (const char *text = bk_read(w->sub[i]); *text != '\0'; text = strchr(text, '\n') + 1)
		if (sscanf(text, "%u body(%u, %u", &channel, &len, &number) == 3)
			assert_int_equal(number, w->next[i]++);
	assert_int_equal(w->next[i], w->ticks);
}

static void pass_over(struct crowd *w, unsigned i)
{
	bk_read(w->sub[i]);
	w->next[i] = w->ticks;
}

/* One burst, after which it is known who was first written to and who last. */
static void burst(struct crowd *w, unsigned ticks)
{
	unsigned first = SUBSCRIBERS_MAX, last = SUBSCRIBERS_MAX;

	for (unsigned i = 0; i < SUBSCRIBERS_MAX; i++)
		if (w->sub[i] != NULL)
			w->sub[i]->first_write = 0;
	publish(w, ticks);
	amqp_burst_end(w->k.b);
	for (unsigned i = 0; i < SUBSCRIBERS_MAX; i++) {
		if (w->sub[i] == NULL || w->sub[i]->first_write == 0)
			continue;
		if (first == SUBSCRIBERS_MAX || w->sub[i]->first_write < w->sub[first]->first_write)
			first = i;
		if (last == SUBSCRIBERS_MAX || w->sub[i]->first_write > w->sub[last]->first_write)
			last = i;
	}
	w->first[first]++;
	w->last[last]++;
}

static void each_subscriber_is_first_and_last_equally_often_whatever_the_burst(void **state)
{
	static const unsigned sizes[] = {1, 5, 8, 32};

	(void)state;
	for (unsigned n = 1; n <= 11; n++)
		for (unsigned s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
			struct crowd *w = gather(NULL, n);

			for (unsigned i = 0; i < 3 * n; i++)
				burst(w, sizes[s]);
			for (unsigned i = 0; i < n; i++) {
				assert_int_equal(w->first[i], 3);
				assert_int_equal(w->last[i], 3);
				assert_all_came(w, i);
			}
			part(w);
		}
}

static void a_burst_without_the_route_does_not_move_its_start(void **state)
{
	struct crowd *w = gather(NULL, 4);

	(void)state;
	for (unsigned i = 0; i < 12; i++) {
		burst(w, 1);
		amqp_burst_end(w->k.b); /* nobody ticks: every second burst would else have the same ones first */
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(w->first[i], 3);
		assert_int_equal(w->last[i], 3);
	}
	part(w);
}

static void come_and_go(const struct amqp_limits *l)
{
	const unsigned stay = 7, bursts = 350;
	struct crowd *w = gather(l, stay);
	bool there = false;

	for (unsigned i = 0; i < bursts; i++) {
		unsigned guest = stay + i / 2 % 3;

		if (there)
			leave(w, guest);
		else
			join(w, guest, true);
		there = !there;
		burst(w, 1 + i % 3);
		if (there) /* its queue goes with the next burst */
			assert_all_came(w, guest);
	}
	for (unsigned i = 0; i < stay; i++) {
		assert_all_came(w, i);
		assert_in_range(w->first[i], bursts / (2 * stay), 2 * bursts / stay);
		assert_in_range(w->last[i], bursts / (2 * stay), 2 * bursts / stay);
	}
	part(w);
}

static void nobody_starves_while_others_join_and_leave(void **state)
{
	struct amqp_limits l;

	(void)state;
	come_and_go(NULL);
	bk_limits(&l);
	l.routes_max = 1; /* every burst has a route that was never used before */
	come_and_go(&l);
}

/*
 * No entry is free and a consumer that needs none has no room after all: the walk stops in its middle, wherever it began. Meanwhile
 * a queue may join or leave.
 */
static void a_walk_that_stops_in_the_middle_goes_on_behind_it(void **state)
{
	struct amqp_limits l;

	(void)state;
	bk_limits(&l);
	l.queues_max = l.entries_max = 16;
	for (unsigned i = 0; i < 120; i++) {
		struct crowd *w = gather(&l, 6);
		unsigned stopper = i % 6, change = i / 6 % 4;

		bk_default_exchange(&w->k, 1);
		bk_queue(&w->k, 15, "hoard");
		for (unsigned n = 0; n < l.entries_max; n++)
			bk_publish(w->publisher, 1, "", "hoard", "x");
		for (unsigned n = 0; n < i / 24; n++)
			burst(w, 1);
		w->sub[stopper]->writes_left = 0;
		publish(w, 1);
		assert_true(w->publisher->c->stalled);
		amqp_burst_end(w->k.b);
		if (change == 1)
			join(w, 6, true);
		else if (change == 2)
			leave(w, (stopper + 3) % 6);
		else if (change == 3)
			leave(w, stopper);
		w->sub[stopper]->writes_left = -1;
		bk_run(&w->k);
		assert_false(w->publisher->c->stalled);
		if (change == 1)
			pass_over(w, 6); /* whether the tick in the middle is for it is open */
		burst(w, 1);             /* the next one begins anew */
		for (unsigned n = 0; n < 6 + (change == 1); n++)
			if (!(change == 2 && n == (stopper + 3) % 6) && !(change == 3 && n == stopper))
				assert_all_came(w, n);
		part(w);
	}
}

static unsigned calls_during(struct crowd *w, const struct bk_conn *c, unsigned bursts)
{
	unsigned before = c->calls;

	for (unsigned i = 0; i < bursts; i++) {
		publish(w, 2);
		bk_run(&w->k);
	}
	return c->calls - before;
}

static void one_who_takes_nothing_is_found_out_at_once_and_left_alone_until_it_says_so(void **state)
{
	struct crowd *w = gather(NULL, 3);
	struct bk_conn *slow = w->sub[1];

	(void)state;
	for (unsigned i = 3; i < 6; i++) { /* more queues of its own, with and without acknowledgement */
		w->sub[i] = slow;
		join(w, i, i != 4);
		w->sub[i] = NULL;
	}
	bk_unsent(slow, BK_UNSENT_HIGH + 1);
	assert_in_range(calls_during(w, slow, 1), 4, 3 * 4); /* it has four queues */
	assert_int_equal(calls_during(w, slow, 50), 0);
	assert_int_equal(w->k.b->drain_first, AMQP_NONE);
	assert_int_equal(w->k.b->queues[1].ready_count, 102);
	assert_all_came(w, 0);
	assert_all_came(w, 2);
	bk_unsent(slow, 0);
	bk_run(&w->k);
	assert_int_equal(w->k.b->queues[1].ready_count + w->k.b->queues[3].ready_count + w->k.b->queues[5].ready_count, 0);
	assert_int_equal(w->k.b->queues[1].delivered, 102);
	bk_check(&w->k);
	bk_fini(&w->k);
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_subscriber_is_first_and_last_equally_often_whatever_the_burst),
		cmocka_unit_test(a_burst_without_the_route_does_not_move_its_start),
		cmocka_unit_test(nobody_starves_while_others_join_and_leave),
		cmocka_unit_test(a_walk_that_stops_in_the_middle_goes_on_behind_it),
		cmocka_unit_test(one_who_takes_nothing_is_found_out_at_once_and_left_alone_until_it_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
