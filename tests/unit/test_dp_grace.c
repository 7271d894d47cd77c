/*
 * test_dp_grace.c - memory goes only when the polling thread has begun another turn.
 *
 * Owns: nothing.
 * Core: tests only; the calling thread is the polling one, another unmaps as DPDK's interrupt thread does.
 * Spec: dataplane/grace.h; munmap(2), mincore(2).
 */
#include "dataplane/grace.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <cmocka.h>

#define BYTES  ((size_t)1 << 16)
#define YIELDS 200

static struct unmap {
	uint8_t *memory;
	_Atomic bool begun, done;
} u;

static _Atomic uint64_t turns;

static bool is_mapped(void)
{
	unsigned char pages[BYTES / 4096];

	return mincore(u.memory, BYTES, pages) == 0;
}

static void map(void)
{
	u.begun = u.done = false;
	u.memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(u.memory, MAP_FAILED);
	u.memory[BYTES - 1] = 7;
}

static void *unmap(void *arg)
{
	(void)arg;
	u.begun = true;
	munmap(u.memory, BYTES);
	u.done = true;
	return NULL;
}

static void others_wait_for_the_end_of_the_turn(void **state)
{
	pthread_t thread;

	(void)state;
	map();
	dp_grace_enter(&turns);
	assert_int_equal(pthread_create(&thread, NULL, unmap, NULL), 0);
	while (!u.begun)
		sched_yield();
	/* Inside a driver: what it reads is there, however long the other one has had to take it away. */
	for (int i = 0; i < YIELDS; i++) {
		sched_yield();
		assert_false(u.done);
		assert_int_equal(u.memory[BYTES - 1], 7);
	}
	turns++;
	pthread_join(thread, NULL);
	assert_false(is_mapped());
	dp_grace_leave(&turns);
}

static void the_polling_thread_itself_waits_for_nobody(void **state)
{
	(void)state;
	map();
	dp_grace_enter(&turns);
	unmap(NULL);
	assert_false(is_mapped());
	dp_grace_leave(&turns);
}

static void a_thread_that_left_holds_nobody_up(void **state)
{
	pthread_t thread;

	(void)state;
	map();
	dp_grace_enter(&turns);
	assert_int_equal(pthread_create(&thread, NULL, unmap, NULL), 0);
	while (!u.begun)
		sched_yield();
	dp_grace_leave(&turns);
	pthread_join(thread, NULL);
	assert_false(is_mapped());
	map();
	unmap(NULL);
	assert_false(is_mapped());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(others_wait_for_the_end_of_the_turn),
		cmocka_unit_test(the_polling_thread_itself_waits_for_nobody),
		cmocka_unit_test(a_thread_that_left_holds_nobody_up),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
