/*
 * test_amqp_back_pool.c - the message pool against a shadow: no two blocks overlap, nothing is lost, everything joins again.
 *
 * Owns: a pool and a byte map of its arena.
 * Core: test.
 * Spec: DESIGN section 4 (bounded, conserved).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "amqp/internal.h"

#define ARENA (1u << 20)
#define HELD  2048u

struct shadow {
	void *block;
	size_t bytes;
	uint8_t fill;
};

static struct amqp_pool *pool_new(size_t arena)
{
	size_t bytes = amqp_pool_bytes(arena);
	struct amqp_pool *p;
	void *mem = aligned_alloc(64, (bytes + 63) & ~(size_t)63);

	assert_non_null(mem);
	p = amqp_pool_init(mem, bytes, arena);
	assert_non_null(p);
	return p;
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void release(struct amqp_pool *p, struct shadow *s)
{
	const uint8_t *at = s->block;

	for (size_t i = 0; i < s->bytes; i++)
		assert_int_equal(at[i], s->fill);
	amqp_pool_free(p, s->block);
	s->block = NULL;
}

static void random_walk(uint64_t seed, unsigned small_of_ten)
{
	static struct shadow held[HELD];
	struct amqp_pool *p = pool_new(ARENA);
	size_t used = 0;

	memset(held, 0, sizeof held);
	for (unsigned step = 0; step < 60000; step++) {
		struct shadow *s = &held[next_random(&seed) % HELD];

		if (s->block != NULL) {
			used -= amqp_pool_block_bytes(p, s->block);
			release(p, s);
		} else {
			s->bytes = next_random(&seed) % (next_random(&seed) % 10 < small_of_ten ? 600 : 60000) + 1;
			s->block = amqp_pool_alloc(p, s->bytes);
			if (s->block == NULL)
				continue;
			assert_true(amqp_pool_block_bytes(p, s->block) >= s->bytes);
			assert_int_equal((uintptr_t)s->block % 64, 0);
			used += amqp_pool_block_bytes(p, s->block);
			/* The whole block is the user's: what it writes there must reach neither a neighbour nor the pool. */
			s->bytes = amqp_pool_block_bytes(p, s->block);
			s->fill = (uint8_t)next_random(&seed);
			memset(s->block, s->fill, s->bytes);
		}
		assert_int_equal(amqp_pool_used(p), used);
		if (step % 256 == 0)
			assert_null(amqp_pool_check(p));
	}
	for (unsigned i = 0; i < HELD; i++)
		if (held[i].block != NULL)
			release(p, &held[i]);
	assert_int_equal(amqp_pool_used(p), 0);
	assert_null(amqp_pool_check(p));
	assert_ptr_equal(amqp_pool_alloc(p, ARENA), (uint8_t *)p + (amqp_pool_bytes(ARENA) - ARENA)); /* one piece again */
	assert_null(amqp_pool_check(p));
	free(p);
}

static void random_blocks_never_overlap_and_join_again_when_freed(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 8; seed++)
		random_walk(seed * 0x9e3779b97f4a7c15u, seed % 2 ? 9 : 5);
}

static void a_freed_small_block_is_handed_out_next_without_a_split(void **state)
{
	struct amqp_pool *p = pool_new(ARENA);
	void *a = amqp_pool_alloc(p, 200), *b = amqp_pool_alloc(p, 256);

	(void)state;
	assert_int_equal(amqp_pool_block_bytes(p, a), 256);
	assert_int_equal(amqp_pool_block_bytes(p, b), 256);
	amqp_pool_free(p, a);
	assert_ptr_equal(amqp_pool_alloc(p, 1), a);
	amqp_pool_free(p, b);
	amqp_pool_free(p, a);
	assert_null(amqp_pool_check(p));
	free(p);
}

static void cached_blocks_do_not_stand_in_the_way_of_a_large_one(void **state)
{
	static void *held[ARENA / 256];
	struct amqp_pool *p = pool_new(ARENA);

	(void)state;
	for (unsigned i = 0; i < ARENA / 256; i++) {
		held[i] = amqp_pool_alloc(p, 256);
		assert_non_null(held[i]);
	}
	assert_null(amqp_pool_alloc(p, 1));
	assert_int_equal(amqp_pool_failures(p), 1);
	for (unsigned i = 0; i < ARENA / 256; i++)
		amqp_pool_free(p, held[i]);
	assert_null(amqp_pool_check(p));
	assert_non_null(amqp_pool_alloc(p, ARENA));
	assert_null(amqp_pool_alloc(p, ARENA + 1));
	assert_int_equal(amqp_pool_failures(p), 2);
	free(p);
}

static void every_size_gets_the_smallest_power_of_two_of_256_bytes_that_holds_it(void **state)
{
	struct amqp_pool *p = pool_new(ARENA);

	(void)state;
	for (size_t n = 1; n <= ARENA; n = n < 5000 ? n + 1 : n + 4093) {
		void *block = amqp_pool_alloc(p, n);
		size_t want = 256;

		while (want < n)
			want *= 2;
		assert_non_null(block);
		assert_int_equal(amqp_pool_block_bytes(p, block), want);
		amqp_pool_free(p, block);
	}
	assert_null(amqp_pool_check(p));
	free(p);
}

static void an_arena_that_is_no_power_of_two_is_refused(void **state)
{
	static uint8_t mem[1 << 16] __attribute__((aligned(64)));

	(void)state;
	assert_null(amqp_pool_init(mem, sizeof mem, 3 * 4096));
	assert_null(amqp_pool_init(mem, sizeof mem, 128));
	assert_null(amqp_pool_init(mem, amqp_pool_bytes(4096) - 1, 4096));
	assert_non_null(amqp_pool_init(mem, amqp_pool_bytes(4096), 4096));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_blocks_never_overlap_and_join_again_when_freed),
		cmocka_unit_test(a_freed_small_block_is_handed_out_next_without_a_split),
		cmocka_unit_test(cached_blocks_do_not_stand_in_the_way_of_a_large_one),
		cmocka_unit_test(every_size_gets_the_smallest_power_of_two_of_256_bytes_that_holds_it),
		cmocka_unit_test(an_arena_that_is_no_power_of_two_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
