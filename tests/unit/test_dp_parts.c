/*
 * test_dp_parts.c - the dataplane's small parts that need no DPDK: clock, stages, laps, echo, watchdog.
 *
 * Owns: nothing.
 * Core: the test's only thread.
 * Spec: RFC 862 for the echo; DESIGN section 3 for the stages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dataplane/clock.h"
#include "dataplane/echo.h"
#include "dataplane/laps.h"
#include "dataplane/stages.h"
#include "dataplane/watchdog.h"

/* ---- clock ---- */

static const uint64_t frequencies[] = {1000000, 24000000, 1000000000, 2099998000, 2500000000, 3693060000, 5000000001};

static void ticks_become_nanoseconds_as_a_division_would_make_them(void **state)
{
	struct dp_clock c;

	(void)state;
	for (size_t f = 0; f < sizeof frequencies / sizeof frequencies[0]; f++) {
		uint64_t hz = frequencies[f];

		dp_clock_init(&c, hz, 12345, 777);
		for (uint64_t ticks = 1; ticks < 1ull << 62; ticks = ticks * 3 + 1) {
			unsigned __int128 exact = (unsigned __int128)ticks * 1000000000u / hz;
			unsigned __int128 got = dp_clock_span_ns(&c, ticks);

			if (exact >> 63 != 0)
				break;
			/* A multiplier that is cut off after 32 binary places is short by less than 2^-32 a tick, and the last
			 * digit. */
			assert_true(got <= exact && exact - got <= (ticks >> 32) + 1);
		}
	}
}

static void the_clock_begins_at_its_base_and_never_goes_back(void **state)
{
	struct dp_clock c;
	uint64_t last = 0;

	(void)state;
	dp_clock_init(&c, 2500000000, 1000, 5000000);
	assert_int_equal(dp_clock_ns(&c, 1000), 5000000);
	assert_in_range(dp_clock_ns(&c, 1000 + 2500000000), 1004999998, 1005000000);
	for (uint64_t tsc = 1000; tsc < 100000; tsc++) {
		assert_true(dp_clock_ns(&c, tsc) >= last);
		last = dp_clock_ns(&c, tsc);
	}
}

/* ---- stages ---- */

static struct ctl_hist hist[CTL_STAGES_MAX];
static struct dp_clock ns_clock; /* a tick is a nanosecond */

static void start_stages(struct dp_stages *s, uint32_t every)
{
	memset(hist, 0, sizeof hist);
	dp_clock_init(&ns_clock, 1000000000, 0, 0);
	dp_stages_init(s, hist, &ns_clock, every);
}

static uint64_t hist_count(unsigned span)
{
	uint64_t in_buckets = 0;

	for (unsigned i = 0; i < CTL_HIST_BUCKETS; i++)
		in_buckets += atomic_load(&hist[span].bucket[i]);
	assert_int_equal(in_buckets, atomic_load(&hist[span].count));
	return in_buckets;
}

static void every_nth_burst_with_payload_is_sampled(void **state)
{
	struct dp_stages s;
	unsigned sampled = 0;

	(void)state;
	start_stages(&s, 64);
	for (unsigned i = 1; i <= 640; i++)
		if (dp_stages_burst(&s)) {
			assert_int_equal(i % 64, 0);
			sampled++;
		}
	assert_int_equal(sampled, 10);
	start_stages(&s, 0);
	for (unsigned i = 0; i < 640; i++)
		assert_false(dp_stages_burst(&s));
}

static void a_sample_fills_every_span_with_its_own_length(void **state)
{
	static const uint64_t lengths[DP_SPAN_COUNT] = {100, 20, 3000, 7, 3127};
	struct dp_stages s;

	(void)state;
	start_stages(&s, 1);
	dp_stages_stamp(&s, DP_STAMP_PARSED, 1100, 1000);
	dp_stages_stamp(&s, DP_STAMP_ROUTED, 1120, 0);
	dp_stages_stamp(&s, DP_STAMP_RENDERED, 4120, 0);
	dp_stages_sent(&s, 4127);
	for (unsigned i = 0; i < DP_SPAN_COUNT; i++) {
		assert_string_equal(hist[i].name, dp_span_name(i));
		assert_int_equal(hist_count(i), 1);
		assert_int_equal(atomic_load(&hist[i].sum_ns), lengths[i]);
		assert_int_equal(atomic_load(&hist[i].max_ns), lengths[i]);
		assert_int_equal(atomic_load(&hist[i].bucket[ctl_hist_bucket(lengths[i])]), 1);
	}
	/* The sample is closed: a further burst adds nothing. */
	dp_stages_sent(&s, 9999);
	assert_int_equal(hist_count(DP_SPAN_RX_TO_TX), 1);
}

static void a_publish_that_was_only_queued_counts_no_transmission(void **state)
{
	struct dp_stages s;

	(void)state;
	start_stages(&s, 1);
	dp_stages_stamp(&s, DP_STAMP_PARSED, 1100, 1000);
	dp_stages_stamp(&s, DP_STAMP_ROUTED, 1120, 0);
	dp_stages_sent(&s, 5000);
	assert_int_equal(hist_count(DP_SPAN_RX_TO_PARSED), 1);
	assert_int_equal(hist_count(DP_SPAN_PARSED_TO_ROUTED), 1);
	assert_int_equal(hist_count(DP_SPAN_ROUTED_TO_RENDERED), 0);
	assert_int_equal(hist_count(DP_SPAN_RENDERED_TO_TX), 0);
	assert_int_equal(hist_count(DP_SPAN_RX_TO_TX), 0);
}

static void a_stage_without_the_one_before_it_is_not_counted(void **state)
{
	struct dp_stages s;

	(void)state;
	start_stages(&s, 1);
	dp_stages_stamp(&s, DP_STAMP_ROUTED, 1120, 0);
	dp_stages_stamp(&s, DP_STAMP_RENDERED, 1130, 0);
	dp_stages_sent(&s, 5000);
	for (unsigned i = 0; i < DP_SPAN_COUNT; i++)
		assert_int_equal(hist_count(i), 0);
}

static void a_counter_that_steps_back_makes_a_span_of_nothing(void **state)
{
	struct dp_stages s;

	(void)state;
	start_stages(&s, 1);
	dp_stages_stamp(&s, DP_STAMP_PARSED, 900, 1000);
	dp_stages_sent(&s, 950);
	assert_int_equal(atomic_load(&hist[DP_SPAN_RX_TO_PARSED].max_ns), 0);
	assert_int_equal(hist_count(DP_SPAN_RX_TO_PARSED), 1);
}

static void buckets_hold_their_values_within_a_sixteenth(void **state)
{
	(void)state;
	for (uint64_t ns = 0; ns < 1ull << 34; ns = ns < 64 ? ns + 1 : ns + ns / 7) {
		uint64_t upper = ctl_hist_upper_ns(ctl_hist_bucket(ns));

		assert_true(upper >= ns && upper - ns <= ns / 16);
	}
	assert_int_equal(ctl_hist_bucket(UINT64_MAX), CTL_HIST_BUCKETS - 1);
}

/* ---- laps ---- */

static struct dp_laps laps;

/* A turn of `cycles` at a clock of 1 GHz, in which one poll did something from `from` to `to`. */
static void one_turn(enum dp_poll poll, uint32_t did, uint64_t from, uint64_t to, uint64_t cycles, uint64_t now_ns)
{
	dp_laps_begin(&laps, 1000000);
	if (from != 0)
		dp_laps_stamp(&laps, DP_POLL_receive, 1, 1000000 + from);
	dp_laps_stamp(&laps, poll, did, 1000000 + to);
	dp_laps_end(&laps, cycles, now_ns);
}

static const char *laps_text(void)
{
	static char text[32];

	dp_laps_text(&laps, text, sizeof text);
	return text;
}

static void start_laps(void)
{
	struct dp_clock clock;

	dp_clock_init(&clock, 1000000000, 0, 0);
	dp_laps_init(&laps, &clock);
}

static void the_longest_turn_is_told_with_what_took_most_of_it(void **state)
{
	(void)state;
	start_laps();
	assert_string_equal(laps_text(), "");
	one_turn(DP_POLL_transmit, 3, 1000, 1500, 1600, 77);
	assert_string_equal(laps_text(), "receive: 1 frames");
	assert_int_equal(laps.longest_cycles, 1600);
	assert_int_equal(laps.longest_at_ns, 77);
	one_turn(DP_POLL_operations, 4, 1000, 9000, 9100, 78);
	assert_string_equal(laps_text(), "operations: 4 records");
	one_turn(DP_POLL_rows, DP_POLL_WORKED, 1000, 9000, 9100, 79); /* no longer than that */
	assert_int_equal(laps.longest_at_ns, 78);
	one_turn(DP_POLL_rows, DP_POLL_WORKED, 1000, 9000, 9200, 80);
	assert_string_equal(laps_text(), "rows");
	assert_int_equal(laps.longest_at_ns, 80);
	assert_int_equal(laps.poll_cycles[DP_POLL_receive], 1000);
	assert_int_equal(laps.poll_cycles[DP_POLL_operations], 8000);
	assert_int_equal(laps.poll_cycles[DP_POLL_mail], 0);
}

static void a_turn_that_was_long_behind_its_last_poll_is_no_polls_fault(void **state)
{
	(void)state;
	start_laps();
	one_turn(DP_POLL_flush, DP_POLL_WORKED, 300, 600, 5000, 1);
	assert_string_equal(laps_text(), "no poll: its core was taken");
	dp_laps_begin(&laps, 0);
	dp_laps_end(&laps, 7000, 2);
	assert_int_equal(laps.longest_at_ns, 2);
	assert_string_equal(laps_text(), "no poll: its core was taken");
}

static void a_turn_is_busy_by_what_came_and_not_by_work_of_its_own(void **state)
{
	(void)state;
	start_laps();
	dp_laps_begin(&laps, 0);
	assert_int_equal(laps.worked, 0);
	dp_laps_stamp(&laps, DP_POLL_tcp_timers, DP_POLL_WORKED, 10);
	assert_int_equal(laps.done, 0);
	assert_int_equal(laps.worked, 1);
	dp_laps_stamp(&laps, DP_POLL_transmit, 5, 20);
	assert_int_equal(laps.done, 5);
}

static void long_turns_are_counted_by_length(void **state)
{
	static const uint64_t us[] = {1, 4, 6, 6, 49, 51, 499, 501, 100000, 2, 7};

	(void)state;
	start_laps();
	for (size_t i = 0; i < sizeof us / sizeof us[0]; i++)
		one_turn(DP_POLL_receive, 1, 0, us[i] * 1000, us[i] * 1000, i);
	assert_int_equal(laps.long_turns[0], 8);
	assert_int_equal(laps.long_turns[1], 4);
	assert_int_equal(laps.long_turns[2], 2);
	assert_int_equal(laps.longest_at_ns, 8);
}

static void the_words_for_any_turn_fit_their_place(void **state)
{
	char text[256];

	(void)state;
	for (unsigned poll = 0; poll < DP_POLL_COUNT; poll++) {
		start_laps();
		one_turn((enum dp_poll)poll, 999999999, 0, 100, 100, 1);
		dp_laps_text(&laps, text, sizeof text);
		assert_in_range(strlen(text), 1, 31);
	}
}

/* ---- echo ---- */

static const uint8_t own_mac[6] = {0x02, 0x54, 0x57, 0, 0, 2}, own_ip[4] = {198, 18, 0, 2};

/* From 02:54:57:00:00:01, 198.18.0.1:40000 to us, port 7, payload "tick"; padded to 60 bytes as Ethernet does. */
static const uint8_t request[60] = {
	0x02, 0x54, 0x57, 0,  0,    2,    0x02, 0x54, 0x57, 0,   0,   1,   0x08, 0x00,                      /* Ethernet */
	0x45, 0,    0,    32, 0x12, 0x34, 0x40, 0,    64,   17,  0,   0,   198,  18,   0, 1, 198, 18, 0, 2, /* IPv4 */
	0x9c, 0x40, 0,    7,  0,    12,   0xbe, 0xef, 't',  'i', 'c', 'k',
};

static uint8_t frame[sizeof request];

static bool turn(void)
{
	return dp_echo_turn(frame, sizeof frame, own_mac, own_ip);
}

/* The request with one byte changed must be left alone. */
static void left_alone(size_t at, uint8_t value)
{
	uint8_t before[sizeof frame];

	memcpy(frame, request, sizeof frame);
	frame[at] = value;
	memcpy(before, frame, sizeof frame);
	assert_false(turn());
	assert_memory_equal(frame, before, sizeof frame);
}

static void a_datagram_to_port_7_is_turned_round(void **state)
{
	(void)state;
	memcpy(frame, request, sizeof frame);
	assert_true(turn());
	assert_memory_equal(frame, request + 6, 6);
	assert_memory_equal(frame + 6, request, 6);
	assert_memory_equal(frame + 12, request + 12, 14);
	assert_memory_equal(frame + 26, request + 30, 4);
	assert_memory_equal(frame + 30, request + 26, 4);
	assert_memory_equal(frame + 34, request + 36, 2);
	assert_memory_equal(frame + 36, request + 34, 2);
	/* Checksums and payload stay. */
	assert_memory_equal(frame + 38, request + 38, sizeof frame - 38);
}

static void what_is_no_echo_request_is_left_alone(void **state)
{
	(void)state;
	left_alone(0, 0x03);  /* broadcast or group destination */
	left_alone(5, 9);     /* somebody else's, seen promiscuously */
	left_alone(6, 0x03);  /* group source */
	left_alone(12, 0x86); /* not IPv4 */
	left_alone(14, 0x65); /* version 6 in an IPv4 frame */
	left_alone(14, 0x44); /* header of 16 bytes */
	left_alone(14, 0x4f); /* header longer than the packet */
	left_alone(16, 0xff); /* packet longer than the frame */
	left_alone(17, 27);   /* packet too short for a UDP header */
	left_alone(20, 0x20); /* more fragments */
	left_alone(21, 1);    /* a later fragment */
	left_alone(23, 6);    /* TCP */
	left_alone(26, 224);  /* multicast source */
	left_alone(26, 0);    /* this network as source */
	left_alone(33, 3);    /* another host */
	left_alone(37, 8);    /* another port */
	left_alone(39, 7);    /* UDP length below its header */
	left_alone(39, 13);   /* UDP length beyond the packet */
}

static void an_echo_port_is_not_answered_by_an_echo_port(void **state)
{
	(void)state;
	memcpy(frame, request, sizeof frame);
	frame[34] = 0;
	frame[35] = 7;
	assert_false(turn());
}

static void a_frame_of_any_shorter_length_is_left_alone_and_not_read_beyond(void **state)
{
	(void)state;
	for (size_t len = 0; len < 46; len++) {
		/* Of exactly this size on the heap, so that a sanitizer sees every byte too far. */
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, request, len);
		assert_false(dp_echo_turn(exact, len, own_mac, own_ip));
		free(exact);
	}
}

/* ---- watchdog ---- */

static void a_worker_that_stands_still_is_news_once_and_so_is_its_return(void **state)
{
	struct dp_watchdog d;
	uint64_t stood_ns;

	(void)state;
	dp_watchdog_init(&d, 1000);
	assert_int_equal(dp_watchdog_look(&d, 5, 2000, &stood_ns), DP_WATCHDOG_QUIET);
	assert_int_equal(dp_watchdog_look(&d, 5, 2000 + DP_WATCHDOG_NS - 1, &stood_ns), DP_WATCHDOG_QUIET);
	assert_int_equal(dp_watchdog_look(&d, 5, 2000 + DP_WATCHDOG_NS, &stood_ns), DP_WATCHDOG_STALLED);
	assert_int_equal(stood_ns, DP_WATCHDOG_NS);
	assert_int_equal(dp_watchdog_look(&d, 5, 2000 + 2 * DP_WATCHDOG_NS, &stood_ns), DP_WATCHDOG_QUIET);
	assert_int_equal(dp_watchdog_look(&d, 6, 2000 + 3 * DP_WATCHDOG_NS, &stood_ns), DP_WATCHDOG_RECOVERED);
	assert_int_equal(stood_ns, 3 * DP_WATCHDOG_NS);
	assert_int_equal(dp_watchdog_look(&d, 7, 2000 + 3 * DP_WATCHDOG_NS + 1, &stood_ns), DP_WATCHDOG_QUIET);
}

static void a_worker_that_never_began_is_news(void **state)
{
	struct dp_watchdog d;
	uint64_t stood_ns;

	(void)state;
	dp_watchdog_init(&d, 1000);
	assert_int_equal(dp_watchdog_look(&d, 0, 1000 + DP_WATCHDOG_NS, &stood_ns), DP_WATCHDOG_STALLED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ticks_become_nanoseconds_as_a_division_would_make_them),
		cmocka_unit_test(the_clock_begins_at_its_base_and_never_goes_back),
		cmocka_unit_test(every_nth_burst_with_payload_is_sampled),
		cmocka_unit_test(a_sample_fills_every_span_with_its_own_length),
		cmocka_unit_test(a_publish_that_was_only_queued_counts_no_transmission),
		cmocka_unit_test(a_stage_without_the_one_before_it_is_not_counted),
		cmocka_unit_test(a_counter_that_steps_back_makes_a_span_of_nothing),
		cmocka_unit_test(buckets_hold_their_values_within_a_sixteenth),
		cmocka_unit_test(the_longest_turn_is_told_with_what_took_most_of_it),
		cmocka_unit_test(a_turn_that_was_long_behind_its_last_poll_is_no_polls_fault),
		cmocka_unit_test(a_turn_is_busy_by_what_came_and_not_by_work_of_its_own),
		cmocka_unit_test(long_turns_are_counted_by_length),
		cmocka_unit_test(the_words_for_any_turn_fit_their_place),
		cmocka_unit_test(a_datagram_to_port_7_is_turned_round),
		cmocka_unit_test(what_is_no_echo_request_is_left_alone),
		cmocka_unit_test(an_echo_port_is_not_answered_by_an_echo_port),
		cmocka_unit_test(a_frame_of_any_shorter_length_is_left_alone_and_not_read_beyond),
		cmocka_unit_test(a_worker_that_stands_still_is_news_once_and_so_is_its_return),
		cmocka_unit_test(a_worker_that_never_began_is_news),
	};

	return cmocka_run_group_tests_name("dp_parts", tests, NULL, NULL);
}
