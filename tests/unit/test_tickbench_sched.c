/* The open-loop schedule on a simulated clock: no drift, bursts, and no coordinated omission when the broker stalls.
 * Runs on the build host as part of make test; the publisher's half runs without a socket.
 * Specification: none; the wire form is AMQP 0-9-1, basic.publish and section 4.2.6. */
#include "tools/tickbench/findmax.h"
#include "tools/tickbench/load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MS UINT64_C(1000000)

static void instants_are_exact_and_never_drift(void **state)
{
	static const uint64_t rates[] = {1, 3, 7, 1000, 999983, 10000000};

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct tb_sched s = {.start_ns = 5, .rate_per_s = rates[i], .burst = 1, .total = UINT64_MAX};
		assert_int_equal(tb_sched_intended(&s, 0), 5);
		/* after a day of ticks the instant is the day's, to the nanosecond */
		assert_int_equal(tb_sched_intended(&s, rates[i] * 86400), 5 + UINT64_C(86400000000000));
		for (uint64_t seq = 1; seq < 5000; seq++) {
			uint64_t gap = tb_sched_intended(&s, seq) - tb_sched_intended(&s, seq - 1);
			assert_in_range(gap, 1000000000 / rates[i], 1000000000 / rates[i] + 1);
		}
	}
}

static void a_burst_shares_one_instant_and_keeps_the_rate(void **state)
{
	struct tb_sched s = {.rate_per_s = 1000, .burst = 10, .total = 100};

	(void)state;
	for (uint64_t seq = 0; seq < 100; seq++)
		assert_int_equal(tb_sched_intended(&s, seq), seq / 10 * 10 * MS);
	assert_false(tb_sched_due(&s, 10, 10 * MS - 1));
	assert_true(tb_sched_due(&s, 19, 10 * MS));
	assert_false(tb_sched_due(&s, 100, 1000 * MS));
	assert_int_equal(tb_sched_end(&s), 100 * MS);
}

static void the_count_of_due_ticks_agrees_with_the_schedule_tick_by_tick(void **state)
{
	static const uint64_t rates[] = {1, 3, 7, 997, 1000, 999983};
	static const uint64_t bursts[] = {1, 2, 10};

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
		for (size_t j = 0; j < sizeof(bursts) / sizeof(bursts[0]); j++) {
			struct tb_sched s = {.start_ns = 1000, .rate_per_s = rates[i], .burst = bursts[j], .total = 500};
			uint64_t due = 0;
			assert_int_equal(tb_sched_due_count(&s, 999), 0);
			for (uint64_t now_ns = 1000; due < s.total; now_ns += 1 + tb_sched_end(&s) / 4999) {
				while (tb_sched_due(&s, due, now_ns))
					due++;
				assert_int_equal(tb_sched_due_count(&s, now_ns), due);
			}
			for (uint64_t seq = 0; seq < s.total; seq += s.burst) {
				assert_int_equal(tb_sched_due_count(&s, tb_sched_intended(&s, seq)), seq + s.burst);
				assert_int_equal(tb_sched_due_count(&s, tb_sched_intended(&s, seq) - 1), seq);
			}
			assert_int_equal(tb_sched_due_count(&s, UINT64_MAX / 2), s.total);
		}
}

struct rig {
	struct tb_pub pub;
	struct tb_hist lateness;
	struct tb_hist client_late;
	struct tb_hist confirm;
	struct tb_hist latency;
	uint64_t next_seq;
};

static void open_rig(struct rig *r, enum tb_type type, uint32_t size, uint32_t symbols, uint64_t rate, uint64_t total)
{
	struct tb_load load = {.type = type, .size_bytes = size, .symbols = symbols};

	memset(r, 0, sizeof(*r));
	assert_true(tb_hist_init(&r->lateness) && tb_hist_init(&r->client_late) && tb_hist_init(&r->confirm) &&
		    tb_hist_init(&r->latency));
	r->pub.lateness = &r->lateness;
	r->pub.client_late = &r->client_late;
	r->pub.confirm_ns = &r->confirm;
	r->pub.sched = (struct tb_sched){.rate_per_s = rate, .burst = 1, .total = total};
	assert_true(tb_pub_init(&r->pub, &load, "exchange", 4096));
}

static void close_rig(struct rig *r)
{
	tb_pub_fini(&r->pub);
	tb_hist_fini(&r->lateness);
	tb_hist_fini(&r->client_late);
	tb_hist_fini(&r->confirm);
	tb_hist_fini(&r->latency);
}

/* The simulated broker: takes every byte at once and delivers after a fixed time. Reads the ticks as a broker would. */
static void broker_takes(struct rig *r, uint64_t now_ns, uint64_t travel_ns)
{
	struct tb_out *s = &r->pub.stream;
	size_t at = s->head, used = 0, body_at = 0;
	struct tb_frame f = {0};
	struct tb_tick tick;

	while (at < s->tail) {
		assert_int_equal(tb_frame_parse(s->bytes + at, s->tail - at, 4096, &f, &used), TB_PARSE_FRAME);
		if (f.type == TB_FRAME_METHOD) {
			assert_int_equal(tb_frame_method(&f), TB_BASIC_PUBLISH);
			body_at = 0;
		} else if (f.type == TB_FRAME_BODY && body_at == 0) {
			body_at = at;
			assert_true(tb_payload_read(f.payload, r->pub.run, &tick));
			assert_int_equal(tick.seq, r->next_seq++);
			tb_hist_record(&r->latency, now_ns + travel_ns - tick.intended_ns);
		}
		at += used;
	}
	size_t bytes = s->tail - s->head;
	s->head = s->tail = 0;
	tb_pub_account(&r->pub, bytes, now_ns);
}

static void a_stalled_client_counts_every_tick_from_its_intended_time(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, TB_TYPE_DIRECT, 64, 1, 1000, 1000);
	for (uint64_t now_ns = 0; now_ns <= 1200 * MS; now_ns += MS / 10) {
		if (now_ns > 300 * MS && now_ns < 500 * MS)
			continue; /* nobody runs: a closed-loop client would simply skip these ticks */
		tb_pub_fill(&r.pub, now_ns);
		broker_takes(&r, now_ns, MS / 20);
	}
	assert_int_equal(r.latency.count, 1000);
	assert_int_equal(tb_hist_percentile(&r.latency, 500000) / 1000, 50);
	/* the stall's ticks wait 200, 199, 198 ... ms: 190 of them for more than 10 ms */
	uint64_t waited = tb_hist_count_between(&r.latency, 10 * MS, UINT64_MAX);
	assert_in_range(waited, 188, 192);
	assert_in_range(r.latency.max, 198 * MS, 200 * MS);
	/* and it shows that the client, not the broker, was the cause */
	assert_in_range(r.client_late.max, 198 * MS, 200 * MS);
	assert_in_range(r.lateness.max, 198 * MS, 200 * MS);
	close_rig(&r);
}

static void a_broker_that_does_not_read_costs_it_the_latency_and_not_the_client(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, TB_TYPE_DIRECT, 64, 1, 1000, 1000);
	for (uint64_t now_ns = 0; now_ns <= 1200 * MS; now_ns += MS / 10) {
		tb_pub_fill(&r.pub, now_ns);
		r.pub.blocked = now_ns > 300 * MS && now_ns < 500 * MS; /* what tb_pub_step sets when send() says EAGAIN */
		if (!r.pub.blocked)
			broker_takes(&r, now_ns, MS / 20);
	}
	assert_int_equal(r.latency.count, 1000);
	assert_in_range(tb_hist_count_between(&r.latency, 10 * MS, UINT64_MAX), 188, 192);
	assert_in_range(r.lateness.max, 198 * MS, 200 * MS);
	assert_true(r.client_late.max < MS);
	close_rig(&r);
}

static void ticks_stay_due_while_the_stream_is_full(void **state)
{
	struct rig r;
	uint64_t room;

	(void)state;
	open_rig(&r, TB_TYPE_DIRECT, 1024, 1, 1000000, 100000);
	room = r.pub.stream.cap / r.pub.tick_bytes;
	while (tb_pub_fill(&r.pub, 100 * MS))
		;
	assert_int_equal(r.pub.rendered, room);
	assert_int_equal(r.pub.sent, 0);
	while (r.pub.sent < 100000) {
		broker_takes(&r, 200 * MS, 0);
		tb_pub_fill(&r.pub, 200 * MS);
	}
	assert_int_equal(r.latency.count, 100000);
	assert_int_equal(r.latency.max, 200 * MS);
	close_rig(&r);
}

static void a_tick_is_sent_when_its_last_byte_is_taken(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, TB_TYPE_DIRECT, 64, 1, 1000, 10);
	tb_pub_fill(&r.pub, 9 * MS);
	tb_pub_account(&r.pub, r.pub.tick_bytes - 1, 10 * MS);
	assert_int_equal(r.pub.sent, 0);
	assert_false(tb_pub_at_border(&r.pub));
	tb_pub_account(&r.pub, 1, 12 * MS);
	assert_int_equal(r.pub.sent, 1);
	assert_true(tb_pub_at_border(&r.pub));
	assert_int_equal(r.lateness.max, 12 * MS);
	tb_pub_account(&r.pub, r.pub.tick_bytes * 9, 12 * MS);
	assert_int_equal(r.pub.sent, 10);
	close_rig(&r);
}

static void warm_up_ticks_are_not_measured(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, TB_TYPE_DIRECT, 64, 1, 1000, 10);
	r.pub.sched.warmup = 4;
	tb_pub_fill(&r.pub, 9 * MS);
	broker_takes(&r, 9 * MS, 0);
	assert_int_equal(r.lateness.count, 6);
	assert_int_equal(r.client_late.count, 6);
	close_rig(&r);
}

static void every_type_symbol_and_size_renders_whole_frames_of_one_length_section_4_2_6(void **state)
{
	static const uint32_t sizes[] = {32, 64, 4087, 4088, 4089, 10000, 100000};

	(void)state;
	for (int type = 0; type < TB_TYPE_COUNT; type++)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			struct rig r;
			open_rig(&r, (enum tb_type)type, sizes[i], 300, 1000, 301);
			for (uint64_t now_ns = 0; r.pub.sent < 301; now_ns += MS) {
				tb_pub_fill(&r.pub, now_ns);
				assert_int_equal((r.pub.stream.tail - r.pub.stream.head) % r.pub.tick_bytes, 0);
				broker_takes(&r, now_ns, 0);
			}
			assert_int_equal(r.next_seq, 301);
			close_rig(&r);
		}
}

static void the_search_ends_just_below_the_capacity(void **state)
{
	static const uint64_t capacities[] = {1, 2, 13, 499, 500, 501, 1234, 99999, 1234567, 9999999};

	(void)state;
	for (size_t i = 0; i < sizeof(capacities) / sizeof(capacities[0]); i++) {
		struct tb_bisect b;
		int trials = 0;
		tb_bisect_init(&b, 500, 10000000);
		while (tb_bisect_next(&b, b.rate <= capacities[i]))
			assert_true(++trials < 60);
		assert_true(b.passed <= capacities[i]);
		assert_true(capacities[i] - b.passed <= b.passed * TB_FINDMAX_STEP_PCT / 100 + 1);
	}
}

static void the_search_ends_at_nothing_and_at_the_maximum(void **state)
{
	struct tb_bisect b;
	int trials = 0;

	(void)state;
	tb_bisect_init(&b, 500, 10000000);
	while (tb_bisect_next(&b, false))
		assert_true(++trials < 60);
	assert_int_equal(b.passed, 0);
	tb_bisect_init(&b, 500, 10000000);
	while (tb_bisect_next(&b, true))
		assert_true(++trials < 60);
	assert_int_equal(b.passed, 10000000);
}

static void a_rate_that_was_not_reached_is_not_carried(void **state)
{
	const uint64_t limit_ns = 10 * TB_MS_NS;
	struct tb_trial t = {.rate_per_s = 100000, .p99_ns = TB_MS_NS};
	struct tb_result r = {.ticks_per_s = 97000, .all = {.count = 1000}};

	(void)state;
	assert_int_equal(tb_trial_judge(&t, &r, limit_ns), TB_CARRIED);
	r.ticks_per_s = 96900;
	assert_int_equal(tb_trial_judge(&t, &r, limit_ns), TB_NOT_REACHED);
	r.lost_count = 1;
	assert_int_equal(tb_trial_judge(&t, &r, limit_ns), TB_LOSS);
	t.p99_ns = limit_ns;
	assert_int_equal(tb_trial_judge(&t, &r, limit_ns), TB_TOO_LATE);
	r.interrupted = true;
	assert_int_equal(tb_trial_judge(&t, &r, limit_ns), TB_BROKEN_OFF);
	r = (struct tb_result){.gave_up = true};
	assert_int_equal(tb_trial_judge(&t, &r, limit_ns), TB_TOO_LATE);
	r = (struct tb_result){.ticks_per_s = 100000};
	assert_int_equal(tb_trial_judge(&t, &r, limit_ns), TB_LOSS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(instants_are_exact_and_never_drift),
		cmocka_unit_test(a_burst_shares_one_instant_and_keeps_the_rate),
		cmocka_unit_test(the_count_of_due_ticks_agrees_with_the_schedule_tick_by_tick),
		cmocka_unit_test(a_stalled_client_counts_every_tick_from_its_intended_time),
		cmocka_unit_test(a_broker_that_does_not_read_costs_it_the_latency_and_not_the_client),
		cmocka_unit_test(ticks_stay_due_while_the_stream_is_full),
		cmocka_unit_test(a_tick_is_sent_when_its_last_byte_is_taken),
		cmocka_unit_test(warm_up_ticks_are_not_measured),
		cmocka_unit_test(every_type_symbol_and_size_renders_whole_frames_of_one_length_section_4_2_6),
		cmocka_unit_test(the_search_ends_just_below_the_capacity),
		cmocka_unit_test(the_search_ends_at_nothing_and_at_the_maximum),
		cmocka_unit_test(a_rate_that_was_not_reached_is_not_carried),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
