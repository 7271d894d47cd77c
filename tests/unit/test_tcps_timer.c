/*
 * test_tcps_timer.c - the timer wheel: nothing fires early, nothing fires more than a tick late, nothing is forgotten.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tcpstack/wheel.h"

#define TICK_NS (1ull << TCPS_WHEEL_TICK_SHIFT)
#define TIMERS  2000u

static struct tcps_wheel wheel;

static uint64_t seed = 42;

/* However many there are. */
static struct tcps_timer *expire(uint64_t now_ns)
{
	uint32_t budget = UINT32_MAX;
	return tcps_wheel_expire(&wheel, now_ns, &budget);
}

static uint64_t dice(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 20;
}

static void a_timer_fires_at_the_first_tick_after_its_deadline(void **state)
{
	(void)state;
	for (unsigned shift = 0; shift < 44; shift++) {
		uint64_t now = 123456789;
		struct tcps_timer timer = {0};
		tcps_wheel_init(&wheel, now);
		uint64_t at = now + (1ull << shift) + 5;
		tcps_wheel_set(&wheel, &timer, at);
		assert_true(tcps_wheel_next_ns(&wheel) <= at + TICK_NS);
		uint64_t fires = tcps_wheel_tick_of(at) << TCPS_WHEEL_TICK_SHIFT;
		if (fires > now + 2 * TICK_NS)
			assert_null(expire(fires - 1));
		assert_ptr_equal(expire(fires > now + TICK_NS ? fires : now + 2 * TICK_NS), &timer);
		assert_null(expire(fires + (1ull << 50)));
		assert_int_equal(wheel.armed_count, 0);
	}
}

static void a_deadline_in_the_past_fires_at_the_next_tick(void **state)
{
	(void)state;
	struct tcps_timer timer = {0};
	tcps_wheel_init(&wheel, 1000 * TICK_NS);
	tcps_wheel_set(&wheel, &timer, 3);
	assert_null(expire(1000 * TICK_NS));
	assert_ptr_equal(expire(1001 * TICK_NS), &timer);
}

static void a_timer_that_was_moved_or_deleted_does_not_fire_at_its_old_place(void **state)
{
	(void)state;
	struct tcps_timer moved = {0}, deleted = {0};
	tcps_wheel_init(&wheel, 0);
	tcps_wheel_set(&wheel, &moved, 10 * TICK_NS);
	tcps_wheel_set(&wheel, &deleted, 10 * TICK_NS);
	tcps_wheel_set(&wheel, &moved, 100000 * TICK_NS);
	tcps_wheel_del(&wheel, &deleted);
	tcps_wheel_del(&wheel, &deleted); /* twice does no harm */
	assert_null(expire(99999 * TICK_NS));
	assert_ptr_equal(expire(100000 * TICK_NS), &moved);
	assert_int_equal(wheel.armed_count, 0);
	assert_int_equal(tcps_wheel_next_ns(&wheel), TCPS_NEVER);
}

static void a_timer_beyond_the_wheel_comes_back_until_it_is_due(void **state)
{
	(void)state;
	struct tcps_timer timer = {0};
	tcps_wheel_init(&wheel, 0);
	uint64_t at = (1ull << 33) * TICK_NS; /* 13 days; the wheel spans 6 */
	tcps_wheel_set(&wheel, &timer, at);
	uint64_t now = 0;
	unsigned visits = 0;
	while (now < at - TICK_NS) {
		assert_null(expire(now));
		uint64_t next = tcps_wheel_next_ns(&wheel);
		assert_true(next <= at && next > now);
		now = next < at ? next : at - TICK_NS;
		assert_true(++visits < 2000);
	}
	assert_null(expire(at - TICK_NS));
	assert_ptr_equal(expire(at), &timer);
}

/* Against a plain array: random sets, moves, deletions and jumps. */
static void random_timers_fire_as_a_plain_list_says(void **state)
{
	(void)state;
	static struct tcps_timer timers[TIMERS];
	static uint64_t due[TIMERS]; /* 0: not armed */
	memset(timers, 0, sizeof(timers));
	uint64_t now = 7777777;
	tcps_wheel_init(&wheel, now);
	for (unsigned round = 0; round < 3000; round++) {
		for (unsigned k = 0; k < 20; k++) {
			unsigned i = (unsigned)(dice() % TIMERS);
			if (dice() % 8 == 0) {
				tcps_wheel_del(&wheel, &timers[i]);
				due[i] = 0;
			} else {
				due[i] = now + 1 + dice() % (1ull << (dice() % 40));
				tcps_wheel_set(&wheel, &timers[i], due[i]);
			}
		}
		uint64_t next = tcps_wheel_next_ns(&wheel);
		for (unsigned i = 0; i < TIMERS; i++)
			assert_true(due[i] == 0 || next <= due[i] + 2 * TICK_NS);
		now += dice() % (1ull << (dice() % 36));
		struct tcps_timer *timer;
		while ((timer = expire(now)) != NULL) {
			unsigned i = (unsigned)(timer - timers);
			assert_true(due[i] != 0 && due[i] <= now);
			assert_false(tcps_timer_armed(timer));
			due[i] = 0;
		}
		for (unsigned i = 0; i < TIMERS; i++)
			assert_true(due[i] == 0 || due[i] + 2 * TICK_NS > now);
	}
}

static void ten_thousand_timers_cost_a_visit_only_when_they_are_due(void **state)
{
	(void)state;
	static struct tcps_timer timers[10000];
	memset(timers, 0, sizeof(timers));
	tcps_wheel_init(&wheel, 0);
	for (unsigned i = 0; i < 10000; i++)
		tcps_wheel_set(&wheel, &timers[i], 200000000ull + i * 1000ull);
	/* Before the first of them is near, ticking touches nothing but moves the clock: at most one visit a cascade. */
	assert_true(tcps_wheel_next_ns(&wheel) > 100000000ull);
	unsigned fired = 0;
	for (uint64_t now = 0; now < 300000000ull; now += 1000000) {
		while (expire(now) != NULL)
			fired++;
	}
	assert_int_equal(fired, 10000);
}

/* The same, in steps of a few timers each, with other timers set and deleted between the steps. */
static void steps_hand_out_no_more_than_their_budget_and_lose_nothing(void **state)
{
	(void)state;
	static struct tcps_timer timers[TIMERS];
	static uint64_t due[TIMERS];
	memset(timers, 0, sizeof(timers));
	memset(due, 0, sizeof(due));
	uint64_t now = 5 * TICK_NS;
	tcps_wheel_init(&wheel, now);
	unsigned cut = 0;
	for (unsigned round = 0; round < 400; round++) {
		/* Crowds that fall due together, near and on higher levels. */
		uint64_t crowd = now + 1 + dice() % (1ull << (20 + dice() % 20));
		for (unsigned k = 0; k < 100; k++) {
			unsigned i = (unsigned)(dice() % TIMERS);
			due[i] = crowd + dice() % 3 * TICK_NS;
			tcps_wheel_set(&wheel, &timers[i], due[i]);
		}
		uint64_t next = tcps_wheel_next_ns(&wheel);
		now = dice() % 2 == 0 && next > now && next != TCPS_NEVER ? next + TICK_NS : now + dice() % (1ull << (dice() % 36));
		for (unsigned steps = 0;; steps++) {
			const uint32_t budget = 1 + (uint32_t)(dice() % 16);
			uint32_t left = budget, handed = 0;
			struct tcps_timer *timer;
			while ((timer = tcps_wheel_expire(&wheel, now, &left)) != NULL) {
				unsigned i = (unsigned)(timer - timers);
				assert_true(due[i] != 0 && due[i] <= now);
				due[i] = 0;
				handed++;
			}
			assert_true(handed <= budget - left);
			if (left != 0)
				break;
			/* There may be more, and then the wheel says that it is due. Meanwhile others come and go. */
			unsigned i = (unsigned)(dice() % TIMERS), j = (unsigned)(dice() % TIMERS);
			due[i] = now + 1 + dice() % (1ull << (dice() % 40));
			tcps_wheel_set(&wheel, &timers[i], due[i]);
			tcps_wheel_del(&wheel, &timers[j]);
			due[j] = 0;
			uint64_t first = TCPS_NEVER;
			for (unsigned k = 0; k < TIMERS; k++)
				if (due[k] != 0 && due[k] < first)
					first = due[k];
			assert_true(first == TCPS_NEVER || tcps_wheel_next_ns(&wheel) <= first + 2 * TICK_NS);
			cut += steps == 0;
			assert_true(steps < 100000);
		}
		for (unsigned i = 0; i < TIMERS; i++)
			assert_true(due[i] == 0 || due[i] + 2 * TICK_NS > now);
	}
	assert_true(cut > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_timer_fires_at_the_first_tick_after_its_deadline),
		cmocka_unit_test(a_deadline_in_the_past_fires_at_the_next_tick),
		cmocka_unit_test(a_timer_that_was_moved_or_deleted_does_not_fire_at_its_old_place),
		cmocka_unit_test(a_timer_beyond_the_wheel_comes_back_until_it_is_due),
		cmocka_unit_test(random_timers_fire_as_a_plain_list_says),
		cmocka_unit_test(steps_hand_out_no_more_than_their_budget_and_lose_nothing),
		cmocka_unit_test(ten_thousand_timers_cost_a_visit_only_when_they_are_due),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_timer", tests, NULL, NULL);
}
