/*
 * test_ctl_shm.c - records, rings, rows and the header of the shared memory.
 *
 * Owns: nothing.
 * Core: a cmocka program; one test runs a producer and a consumer side by side.
 * Spec: control/ctl_shm.h; DESIGN section 5: the other side is not trusted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "control/ctl_shm.h"

static uint8_t scratch[CTL_RECORD_MAX];

static struct amqp_span text(const char *s)
{
	return (struct amqp_span){(const uint8_t *)s, (uint32_t)strlen(s)};
}

static struct ctl_ring_end make_ring(uint64_t bytes)
{
	struct ctl_ring *r = aligned_alloc(64, sizeof *r + bytes);

	assert_non_null(r);
	memset(r, 0, sizeof *r + bytes);
	ctl_ring_init(r);
	return (struct ctl_ring_end){r, bytes};
}

static bool span_is(struct amqp_span s, const char *want)
{
	return s.len == strlen(want) && memcmp(s.ptr, want, s.len) == 0;
}

static void a_record_comes_back_as_it_was_put(void **state)
{
	struct amqp_record in = {.kind = 3,
				 .code = 406,
				 .flags = 0x81,
				 .token = UINT64_MAX,
				 .conn_uid = 1ull << 40 | 7,
				 .id = 1,
				 .id2 = 2,
				 .id3 = 3,
				 .id4 = AMQP_ID_NONE,
				 .str = {text("name"), text(""), text("key"), text("x")},
				 .blob = text("blob")};
	struct amqp_record out;
	uint8_t buf[256];
	size_t len = ctl_record_encode(buf, sizeof buf, &in);

	(void)state;
	assert_int_equal(len, ctl_record_bytes(&in));
	assert_true(ctl_record_decode(buf, len, &out));
	assert_int_equal(out.kind, 3);
	assert_int_equal(out.code, 406);
	assert_int_equal(out.flags, 0x81);
	assert_true(out.token == UINT64_MAX && out.conn_uid == in.conn_uid);
	assert_true(out.id == 1 && out.id2 == 2 && out.id3 == 3 && out.id4 == AMQP_ID_NONE);
	assert_true(span_is(out.str[0], "name") && span_is(out.str[1], "") && span_is(out.str[2], "key") &&
		    span_is(out.str[3], "x"));
	assert_true(span_is(out.blob, "blob"));
	assert_int_equal(ctl_record_encode(buf, len - 1, &in), 0);
}

static void a_record_with_any_wrong_length_is_refused(void **state)
{
	struct amqp_record in = {.kind = 1, .str = {text("name"), text("more")}, .blob = text("blob")}, out;
	uint8_t buf[256], bad[256];
	size_t len = ctl_record_encode(buf, sizeof buf, &in);

	(void)state;
	for (size_t cut = 0; cut < len; cut++)
		assert_false(ctl_record_decode(buf, cut, &out));
	assert_false(ctl_record_decode(buf, len + 1, &out));
	/* each of the five lengths, made larger and huge */
	for (size_t at = 28; at < 48; at += 4) {
		memcpy(bad, buf, len);
		bad[at]++;
		assert_false(ctl_record_decode(bad, len, &out));
		memset(bad + at, 0xff, 4);
		assert_false(ctl_record_decode(bad, len, &out));
	}
	in.blob.len = CTL_RECORD_MAX;
	assert_int_equal(ctl_record_bytes(&in), 0);
}

static void a_ring_keeps_order_over_its_end_and_refuses_what_does_not_fit(void **state)
{
	struct ctl_ring_end e = make_ring(4096);
	struct amqp_record in = {.kind = 9}, out;
	char body[512];
	uint32_t put = 0, got = 0;

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		memset(body, (int)(put & 0x7f), sizeof body);
		in.id = put;
		in.blob = (struct amqp_span){(const uint8_t *)body, put * 37 % 500};
		if (ctl_ring_put(&e, &in)) {
			put++;
			continue;
		}
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(ctl_ring_get(&e, scratch, &out), 1);
			assert_int_equal(out.id, got);
			assert_int_equal(out.blob.len, got * 37 % 500);
			for (uint32_t k = 0; k < out.blob.len; k++)
				assert_int_equal(out.blob.ptr[k], got & 0x7f);
			got++;
		}
	}
	assert_true(put > 1000 && got > 900);
	in.blob = (struct amqp_span){scratch, 4096};
	assert_false(ctl_ring_put(&e, &in));
	free(e.ring);
}

static void a_ring_written_by_an_enemy_is_emptied_and_never_read_outside(void **state)
{
	struct ctl_ring_end e = make_ring(4096);
	struct amqp_record out;
	uint32_t seed = 12345;

	(void)state;
	for (unsigned round = 0; round < 200000; round++) {
		seed = seed * 1664525u + 1013904223u;
		e.ring->data[seed >> 20] = (uint8_t)(seed >> 8);
		if (round % 7 == 0)
			atomic_store(&e.ring->head, (uint64_t)seed << (seed % 33));
		if (round % 11 == 0)
			atomic_store(&e.ring->tail, (uint64_t)seed << (seed % 17));
		if (ctl_ring_get(&e, scratch, &out) == -1)
			assert_true(ctl_ring_empty(&e));
	}
	free(e.ring);
}

#define THREAD_RECORDS 100000u

static void *produce(void *arg)
{
	struct ctl_ring_end e = *(struct ctl_ring_end *)arg;
	char body[300];

	for (uint32_t i = 0; i < THREAD_RECORDS; i++) {
		struct amqp_record in = {.kind = 7, .id = i, .token = (uint64_t)i * 3};

		memset(body, (int)(i & 0xff), sizeof body);
		in.str[1] = (struct amqp_span){(const uint8_t *)body, i % sizeof body};
		while (!ctl_ring_put(&e, &in))
			sched_yield();
		ctl_ring_wants_kick(&e);
	}
	return NULL;
}

static void two_threads_pass_every_record_in_order(void **state)
{
	struct ctl_ring_end e = make_ring(8192);
	struct amqp_record out;
	pthread_t thread;
	uint32_t got = 0;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, produce, &e), 0);
	while (got < THREAD_RECORDS) {
		int rc = ctl_ring_get(&e, scratch, &out);

		assert_int_not_equal(rc, -1);
		if (rc == 0) {
			ctl_ring_prepare_sleep(&e);
			sched_yield();
			continue;
		}
		assert_true(out.id == got && out.token == (uint64_t)got * 3 && out.str[1].len == got % 300);
		if (out.str[1].len != 0)
			assert_true(out.str[1].ptr[0] == (got & 0xff) && out.str[1].ptr[out.str[1].len - 1] == (got & 0xff));
		got++;
	}
	pthread_join(thread, NULL);
	assert_int_equal(ctl_ring_get(&e, scratch, &out), 0);
	free(e.ring);
}

static void a_consumer_that_sleeps_is_kicked_once_and_one_with_work_does_not_sleep(void **state)
{
	struct ctl_ring_end e = make_ring(4096);
	struct amqp_record rec = {.kind = 1}, out;

	(void)state;
	assert_false(ctl_ring_wants_kick(&e));
	assert_true(ctl_ring_prepare_sleep(&e));
	assert_true(ctl_ring_put(&e, &rec));
	assert_true(ctl_ring_wants_kick(&e));
	assert_false(ctl_ring_wants_kick(&e));
	assert_false(ctl_ring_prepare_sleep(&e));
	assert_false(ctl_ring_wants_kick(&e)); /* it is awake: it found work */
	assert_int_equal(ctl_ring_get(&e, scratch, &out), 1);
	free(e.ring);
}

static void a_row_is_copied_whole_or_not_at_all(void **state)
{
	struct ctl_row_queue row, copy;

	(void)state;
	memset(&row, 0, sizeof row);
	assert_false(ctl_row_read(&row, &copy, sizeof copy));
	ctl_row_begin(&row.head);
	row.head.in_use = 1;
	row.messages_ready = 42;
	assert_false(ctl_row_read(&row, &copy, sizeof copy)); /* being written */
	ctl_row_end(&row.head);
	assert_true(ctl_row_read(&row, &copy, sizeof copy));
	assert_int_equal(copy.messages_ready, 42);
}

static void histogram_buckets_cover_time_without_a_gap(void **state)
{
	(void)state;
	for (uint64_t ns = 0; ns < 100000; ns++) {
		uint32_t b = ctl_hist_bucket(ns);

		assert_true(ns <= ctl_hist_upper_ns(b));
		assert_true(b == 0 || ns > ctl_hist_upper_ns(b - 1));
	}
	assert_true(ctl_hist_bucket(UINT64_MAX) < CTL_HIST_BUCKETS);
}

/* ---- the header ---- */

static struct ctl_shm_header *good_header(size_t *bytes)
{
	struct ctl_shm_header *h;
	uint64_t at = sizeof *h;

	*bytes = 4u << 20;
	h = aligned_alloc(4096, *bytes);
	assert_non_null(h);
	memset(h, 0, *bytes);
	h->version = CTL_SHM_VERSION;
	h->header_bytes = sizeof *h;
	h->total_bytes = *bytes;
	h->tsc_hz = 1;
	h->workers_count = 1;
	h->counters_count = 4;
	h->stages_count = 2;
	h->exchanges_max = h->queues_max = h->bindings_max = h->rules_max = 16;
	h->counter_desc_offset = at;
	at = (at + 4 * sizeof(struct ctl_counter_desc) + 63) & ~63ull;
	h->worker[0].request_ring_offset = at;
	h->worker[0].request_ring_bytes = h->worker[0].op_ring_bytes = 65536;
	at += sizeof(struct ctl_ring) + 65536;
	h->worker[0].op_ring_offset = at;
	at += sizeof(struct ctl_ring) + 65536;
	h->worker[0].stats_offset = at;
	at += (sizeof(struct ctl_worker_stats) + 63) & ~63ull;
	h->worker[0].conns = (struct ctl_table){.offset = at, .row_bytes = sizeof(struct ctl_row_conn), .rows_max = 2};
	h->worker[0].channels = (struct ctl_table){.offset = at, .row_bytes = sizeof(struct ctl_row_channel), .rows_max = 2};
	h->worker[0].queues = (struct ctl_table){.offset = at, .row_bytes = sizeof(struct ctl_row_queue), .rows_max = 2};
	h->worker[0].consumers = (struct ctl_table){.offset = at, .row_bytes = sizeof(struct ctl_row_consumer), .rows_max = 2};
	h->arena_offset = 1u << 20;
	h->arena_bytes = 1u << 20;
	atomic_store(&h->magic, CTL_SHM_MAGIC);
	return h;
}

static void a_good_header_is_copied(void **state)
{
	struct ctl_shm_header out;
	const char *err;
	size_t bytes;
	struct ctl_shm_header *h = good_header(&bytes);

	(void)state;
	assert_true(ctl_shm_check(h, bytes, &out, &err));
	assert_int_equal(out.worker[0].op_ring_bytes, 65536);
	free(h);
}

static void a_header_with_any_offset_or_count_out_of_bounds_is_refused(void **state)
{
	size_t bytes;
	struct ctl_shm_header *h = good_header(&bytes), good, out;
	const char *err;
	/* what is written over with all ones, field by field */
	const struct {
		size_t offset, bytes;
	} fields[] = {
		{offsetof(struct ctl_shm_header, magic), 8},
		{offsetof(struct ctl_shm_header, version), 4},
		{offsetof(struct ctl_shm_header, header_bytes), 4},
		{offsetof(struct ctl_shm_header, total_bytes), 8},
		{offsetof(struct ctl_shm_header, workers_count), 4},
		{offsetof(struct ctl_shm_header, counters_count), 4},
		{offsetof(struct ctl_shm_header, stages_count), 4},
		{offsetof(struct ctl_shm_header, counter_desc_offset), 8},
		{offsetof(struct ctl_shm_header, arena_offset), 8},
		{offsetof(struct ctl_shm_header, arena_bytes), 8},
		{offsetof(struct ctl_shm_header, worker[0].request_ring_offset), 8},
		{offsetof(struct ctl_shm_header, worker[0].request_ring_bytes), 8},
		{offsetof(struct ctl_shm_header, worker[0].op_ring_offset), 8},
		{offsetof(struct ctl_shm_header, worker[0].op_ring_bytes), 8},
		{offsetof(struct ctl_shm_header, worker[0].stats_offset), 8},
		{offsetof(struct ctl_shm_header, worker[0].conns.offset), 8},
		{offsetof(struct ctl_shm_header, worker[0].channels.row_bytes), 4},
		{offsetof(struct ctl_shm_header, worker[0].queues.rows_max), 4},
		{offsetof(struct ctl_shm_header, worker[0].consumers.offset), 8},
	};

	(void)state;
	memcpy(&good, h, sizeof good);
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
		memset((uint8_t *)h + fields[i].offset, 0xff, fields[i].bytes);
		err = NULL;
		assert_false(ctl_shm_check(h, bytes, &out, &err));
		assert_non_null(err);
		memcpy(h, &good, sizeof good);
	}
	assert_false(ctl_shm_check(h, sizeof *h - 1, &out, &err));
	assert_false(ctl_shm_check(h, bytes - 1, &out, &err));
	h->worker[0].op_ring_bytes = 65535;
	assert_false(ctl_shm_check(h, bytes, &out, &err));
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_comes_back_as_it_was_put),
		cmocka_unit_test(a_record_with_any_wrong_length_is_refused),
		cmocka_unit_test(a_ring_keeps_order_over_its_end_and_refuses_what_does_not_fit),
		cmocka_unit_test(a_ring_written_by_an_enemy_is_emptied_and_never_read_outside),
		cmocka_unit_test(two_threads_pass_every_record_in_order),
		cmocka_unit_test(a_consumer_that_sleeps_is_kicked_once_and_one_with_work_does_not_sleep),
		cmocka_unit_test(a_row_is_copied_whole_or_not_at_all),
		cmocka_unit_test(histogram_buckets_cover_time_without_a_gap),
		cmocka_unit_test(a_good_header_is_copied),
		cmocka_unit_test(a_header_with_any_offset_or_count_out_of_bounds_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
