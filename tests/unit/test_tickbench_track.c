/* Order, loss and duplicate accounting, and the ranks of subscribers within a tick.
 * Runs on the build host as part of make test; a plain bitmap is the oracle.
 * Specification: none. */
#include "tools/tickbench/track.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SENT 100

static void deliveries_in_order_lose_nothing(void **state)
{
	struct tb_track t = {0};

	(void)state;
	for (uint64_t seq = 0; seq < SENT; seq++)
		assert_int_equal(tb_track_arrival(&t, seq, SENT), TB_ARRIVAL_NEW);
	assert_int_equal(tb_track_missing(&t, SENT), 0);
	assert_int_equal(t.received_count, SENT);
	assert_int_equal(t.duplicate_count + t.reordered_count + t.stale_count, 0);
}

static void ticks_that_never_come_are_lost_at_the_end_in_the_middle_and_at_the_start(void **state)
{
	struct tb_track t = {0};

	(void)state;
	assert_int_equal(tb_track_arrival(&t, 2, SENT), TB_ARRIVAL_NEW);
	assert_int_equal(tb_track_missing(&t, 3), 2);
	assert_int_equal(tb_track_arrival(&t, 5, SENT), TB_ARRIVAL_NEW);
	assert_int_equal(tb_track_missing(&t, 6), 4);
	assert_int_equal(tb_track_missing(&t, SENT), SENT - 2);
}

static void the_second_copy_is_a_duplicate_and_no_arrival(void **state)
{
	struct tb_track t = {0};

	(void)state;
	for (uint64_t seq = 0; seq < 10; seq++)
		tb_track_arrival(&t, seq, SENT);
	assert_int_equal(tb_track_arrival(&t, 9, SENT), TB_ARRIVAL_DUPLICATE);
	assert_int_equal(tb_track_arrival(&t, 0, SENT), TB_ARRIVAL_DUPLICATE);
	assert_int_equal(t.duplicate_count, 2);
	assert_int_equal(t.received_count, 10);
	assert_int_equal(tb_track_missing(&t, 10), 0);
}

static void a_late_tick_fills_its_gap_once(void **state)
{
	struct tb_track t = {0};
	static const uint64_t order[] = {0, 1, 5, 3, 2, 4, 6};

	(void)state;
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		tb_track_arrival(&t, order[i], SENT);
	assert_int_equal(t.reordered_count, 3);
	assert_int_equal(t.gap_count, 0);
	assert_int_equal(tb_track_missing(&t, 7), 0);
	assert_int_equal(tb_track_arrival(&t, 3, SENT), TB_ARRIVAL_DUPLICATE);
	assert_int_equal(t.duplicate_count, 1);
}

static void a_number_that_was_never_sent_is_unknown(void **state)
{
	struct tb_track t = {0};

	(void)state;
	assert_int_equal(tb_track_arrival(&t, 0, 0), TB_ARRIVAL_UNKNOWN);
	assert_int_equal(tb_track_arrival(&t, SENT, SENT), TB_ARRIVAL_UNKNOWN);
	assert_int_equal(tb_track_arrival(&t, UINT64_MAX, SENT), TB_ARRIVAL_UNKNOWN);
	assert_int_equal(t.received_count, 0);
	assert_int_equal(t.next_seq, 0);
}

static void more_gaps_than_are_remembered_are_lost_and_their_ticks_stale(void **state)
{
	struct tb_track t = {0};
	uint64_t gaps = TB_TRACK_GAPS + 8, sent = gaps * 2 + 1;

	(void)state;
	for (uint64_t seq = 0; seq < sent; seq += 2)
		assert_int_equal(tb_track_arrival(&t, seq, sent), TB_ARRIVAL_NEW);
	assert_int_equal(tb_track_missing(&t, sent), gaps);
	assert_int_equal(t.gap_count, TB_TRACK_GAPS);
	assert_int_equal(tb_track_arrival(&t, 1, sent), TB_ARRIVAL_STALE);
	assert_int_equal(tb_track_arrival(&t, sent - 2, sent), TB_ARRIVAL_REORDERED);
	assert_int_equal(tb_track_missing(&t, sent), gaps - 1);
	assert_int_equal(t.stale_count, 1);
}

static void random_arrivals_agree_with_a_bitmap(void **state)
{
	enum { TICKS = 400, RUNS = 500 };

	(void)state;
	srand(20261123);
	for (int run = 0; run < RUNS; run++) {
		struct tb_track t = {0};
		bool seen[TICKS] = {false};
		uint64_t received = 0, duplicates = 0, missing = 0, at = 0;
		while (at < TICKS) {
			/* mostly forward, at times back by a few, at times a leap over one or two */
			int dice = rand() % 40;
			uint64_t back = 1 + (uint64_t)rand() % 8, seq = dice == 0 && at > 8 ? at - back : at;
			enum tb_arrival how = tb_track_arrival(&t, seq, TICKS);
			assert_int_equal(how == TB_ARRIVAL_DUPLICATE, seen[seq]);
			assert_int_not_equal(how, TB_ARRIVAL_STALE);
			received += !seen[seq];
			duplicates += seen[seq];
			seen[seq] = true;
			if (seq == at)
				at += dice == 1 ? 2 : dice == 2 ? 3 : 1;
			if (t.gap_count == TB_TRACK_GAPS)
				break; /* beyond this the oracle remembers more */
		}
		uint64_t sent = t.next_seq;
		for (uint64_t seq = 0; seq < sent; seq++)
			missing += !seen[seq];
		assert_int_equal(t.received_count, received);
		assert_int_equal(t.duplicate_count, duplicates);
		assert_int_equal(tb_track_missing(&t, sent), missing);
	}
}

static void ranks_within_a_tick_count_up_to_the_last_subscriber(void **state)
{
	struct tb_ticks t;

	(void)state;
	assert_true(tb_ticks_init(&t, 1000, 4096, 5));
	assert_int_equal(t.median_rank, 3);
	for (uint64_t seq = 0; seq < 1000; seq++)
		for (uint32_t rank = 1; rank <= 5; rank++)
			assert_int_equal(tb_ticks_arrival(&t, seq), rank);
	assert_int_equal(t.late_count, 0);
	tb_ticks_fini(&t);
}

static void interleaved_ticks_keep_their_own_ranks(void **state)
{
	struct tb_ticks t;

	(void)state;
	assert_true(tb_ticks_init(&t, 1000, 4096, 2));
	assert_int_equal(t.median_rank, 1);
	assert_int_equal(tb_ticks_arrival(&t, 7), 1);
	assert_int_equal(tb_ticks_arrival(&t, 8), 1);
	assert_int_equal(tb_ticks_arrival(&t, 7), 2);
	assert_int_equal(tb_ticks_arrival(&t, 8), 2);
	tb_ticks_fini(&t);
}

static void a_tick_that_has_left_the_ring_has_no_rank(void **state)
{
	struct tb_ticks t;
	uint64_t ring = 1024;

	(void)state;
	assert_true(tb_ticks_init(&t, 1000000, ring, 2));
	assert_int_equal(t.mask, ring - 1);
	assert_int_equal(tb_ticks_arrival(&t, 0), 1);
	assert_int_equal(tb_ticks_arrival(&t, ring), 1);
	assert_int_equal(tb_ticks_arrival(&t, 0), 0);
	assert_int_equal(t.late_count, 1);
	assert_int_equal(tb_ticks_arrival(&t, ring), 2);
	tb_ticks_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deliveries_in_order_lose_nothing),
		cmocka_unit_test(ticks_that_never_come_are_lost_at_the_end_in_the_middle_and_at_the_start),
		cmocka_unit_test(the_second_copy_is_a_duplicate_and_no_arrival),
		cmocka_unit_test(a_late_tick_fills_its_gap_once),
		cmocka_unit_test(a_number_that_was_never_sent_is_unknown),
		cmocka_unit_test(more_gaps_than_are_remembered_are_lost_and_their_ticks_stale),
		cmocka_unit_test(random_arrivals_agree_with_a_bitmap),
		cmocka_unit_test(ranks_within_a_tick_count_up_to_the_last_subscriber),
		cmocka_unit_test(interleaved_ticks_keep_their_own_ranks),
		cmocka_unit_test(a_tick_that_has_left_the_ring_has_no_rank),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
