/*
 * test_dp_shm.c - the shared memory as the dataplane lays it out, read as control reads it; mailboxes between two threads.
 *
 * Owns: memfds and threads of its own.
 * Core: the test's threads.
 * Spec: control/ctl_shm.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/mailbox.h"
#include "dataplane/shm.h"

static struct dp_shm_plan usual_plan(void)
{
	return (struct dp_shm_plan){
		.workers_count = 1,
		.counters_count = 150,
		.stages_count = 5,
		.request_ring_bytes = 1u << 16,
		.op_ring_bytes = 1u << 17,
		.arena_bytes = 1u << 20,
		.conns_max = 100,
		.channels_max = 333,
		.queues_max = 77,
		.consumers_max = 55,
		.exchanges_max = 64,
		.bindings_max = 1000,
		.rules_max = 900,
		.lcore = {1},
		.tsc_hz = 2500000000,
		.boot_id = 42,
		.started_s = 1700000000,
		.pid = 99,
		.port_text = "net_tap0",
		.address_text = "198.18.0.2/24:5672",
	};
}

static void make(struct dp_shm *s, const struct dp_shm_plan *plan)
{
	char err[256] = "";

	if (!dp_shm_create(s, plan, err, sizeof err))
		fail_msg("%s", err);
}

static void *map_as_control(const struct dp_shm *s)
{
	void *map = mmap(NULL, s->layout.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);

	assert_true(map != MAP_FAILED);
	return map;
}

static void control_accepts_what_the_dataplane_lays_out(void **state)
{
	struct dp_shm_plan plan = usual_plan();
	struct ctl_shm_header seen;
	const char *err = "";
	struct dp_shm s;
	void *map;

	(void)state;
	make(&s, &plan);
	map = map_as_control(&s);
	/* Before the magic is written nobody takes it for finished. */
	assert_false(ctl_shm_check(map, s.layout.total_bytes, &seen, &err));
	dp_shm_publish(&s);
	if (!ctl_shm_check(map, s.layout.total_bytes, &seen, &err))
		fail_msg("%s", err);
	assert_int_equal(seen.boot_id, 42);
	assert_int_equal(seen.conns_max, 100);
	assert_int_equal(seen.worker[0].queues.rows_max, 77);
	assert_int_equal(seen.worker[0].lcore, 1);
	assert_string_equal(seen.address_text, "198.18.0.2/24:5672");
	assert_true(seen.arena_bytes >= 1u << 20);
	munmap(map, s.layout.total_bytes);
	dp_shm_destroy(&s);
}

static void control_accepts_every_size_of_plan(void **state)
{
	struct ctl_shm_header seen;
	const char *err = "";

	(void)state;
	for (uint32_t i = 1; i <= CTL_WORKERS_MAX; i++) {
		struct dp_shm_plan plan = usual_plan();
		struct dp_shm s;

		plan.workers_count = i;
		plan.counters_count = i * 16;
		plan.conns_max = i * 7;
		plan.channels_max = i * i * 3;
		plan.queues_max = i;
		plan.consumers_max = 1;
		plan.arena_bytes = 1 + i * 1000;
		make(&s, &plan);
		dp_shm_publish(&s);
		if (!ctl_shm_check(s.base, s.layout.total_bytes, &seen, &err))
			fail_msg("%u workers: %s", i, err);
		dp_shm_destroy(&s);
	}
}

struct range {
	uint64_t from, to;
};

static int by_from(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

static void no_two_parts_of_the_memory_overlap(void **state)
{
	struct dp_shm_plan plan = usual_plan();
	struct range part[CTL_WORKERS_MAX * 7 + 3];
	struct ctl_shm_header h;
	uint64_t total;
	size_t n = 0;

	(void)state;
	plan.workers_count = CTL_WORKERS_MAX;
	total = dp_shm_layout(&h, &plan);
	part[n++] = (struct range){0, sizeof h};
	part[n++] =
		(struct range){h.counter_desc_offset, h.counter_desc_offset + h.counters_count * sizeof(struct ctl_counter_desc)};
	part[n++] = (struct range){h.arena_offset, h.arena_offset + h.arena_bytes};
	for (uint32_t i = 0; i < CTL_WORKERS_MAX; i++) {
		const struct ctl_worker_layout *w = &h.worker[i];
		const struct ctl_table *t[] = {&w->conns, &w->channels, &w->queues, &w->consumers};

		part[n++] = (struct range){w->request_ring_offset,
					   w->request_ring_offset + sizeof(struct ctl_ring) + w->request_ring_bytes};
		part[n++] = (struct range){w->op_ring_offset, w->op_ring_offset + sizeof(struct ctl_ring) + w->op_ring_bytes};
		part[n++] = (struct range){w->stats_offset, w->stats_offset + sizeof(struct ctl_worker_stats)};
		for (unsigned k = 0; k < 4; k++)
			part[n++] = (struct range){t[k]->offset, t[k]->offset + (uint64_t)t[k]->row_bytes * t[k]->rows_max};
	}
	qsort(part, n, sizeof part[0], by_from);
	for (size_t i = 1; i < n; i++)
		assert_true(part[i - 1].to <= part[i].from);
	assert_int_equal(part[n - 1].to, total);
}

static void the_memory_cannot_be_made_shorter_by_control(void **state)
{
	struct dp_shm_plan plan = usual_plan();
	struct dp_shm s;

	(void)state;
	make(&s, &plan);
	assert_int_equal(ftruncate(s.fd, 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(s.fd, (off_t)s.layout.total_bytes * 2), -1);
	assert_int_equal(fcntl(s.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	dp_shm_destroy(&s);
}

static void the_arena_is_read_only_for_the_dataplane_and_shows_what_control_writes(void **state)
{
	struct dp_shm_plan plan = usual_plan();
	struct dp_shm s;
	uint8_t *map;
	int status;
	pid_t child;

	(void)state;
	make(&s, &plan);
	map = map_as_control(&s);
	map[s.layout.arena_offset + 12345] = 0x5a;
	assert_int_equal(s.arena[12345], 0x5a);
	/* The kernel's word, not the compiler's: a write through the dataplane's own mapping is a fault. */
	child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile uint8_t *)(uintptr_t)(s.arena + 12345) = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
	munmap(map, s.layout.total_bytes);
	dp_shm_destroy(&s);
}

static void rings_carry_records_between_the_two_mappings(void **state)
{
	struct dp_shm_plan plan = usual_plan();
	static uint8_t scratch[CTL_RECORD_MAX];
	struct amqp_record rec = {.kind = AMQP_REQ_OPEN, .token = 7, .str = {{(const uint8_t *)"/", 1}}}, got;
	struct ctl_ring_end here, there;
	struct dp_shm s;
	uint8_t *map;

	(void)state;
	make(&s, &plan);
	map = map_as_control(&s);
	here = dp_shm_request_ring(&s, 0);
	there = here;
	there.ring = (struct ctl_ring *)(void *)(map + s.layout.worker[0].request_ring_offset);
	assert_true(ctl_ring_put(&here, &rec));
	assert_int_equal(ctl_ring_get(&there, scratch, &got), 1);
	assert_int_equal(got.token, 7);
	assert_int_equal(got.str[0].len, 1);
	assert_int_equal(ctl_ring_get(&there, scratch, &got), 0);
	munmap(map, s.layout.total_bytes);
	dp_shm_destroy(&s);
}

/* ---- mailboxes ---- */

static void a_full_mailbox_refuses_and_loses_nothing(void **state)
{
	static struct dp_mailbox m;
	struct dp_mail mail = {.kind = DP_MAIL_NEW_DB};

	(void)state;
	dp_mailbox_init(&m);
	assert_true(dp_mailbox_empty(&m));
	assert_false(dp_mailbox_get(&m, &mail));
	/* Twice round, so that the indexes pass the last slot. */
	for (unsigned round = 0; round < 2; round++) {
		for (mail.number = 0; mail.number < DP_MAILBOX_SLOTS; mail.number++) {
			assert_int_equal(dp_mailbox_room(&m), DP_MAILBOX_SLOTS - mail.number);
			assert_true(dp_mailbox_put(&m, &mail));
		}
		assert_false(dp_mailbox_put(&m, &mail));
		for (uint64_t i = 0; i < DP_MAILBOX_SLOTS; i++) {
			assert_true(dp_mailbox_get(&m, &mail));
			assert_int_equal(mail.number, i);
		}
		assert_true(dp_mailbox_empty(&m));
	}
}

#define LETTERS 200000u

static struct dp_mailbox there, back;

/* The worker's part: a database comes, the one before it goes back. */
static void *answer_letters(void *arg)
{
	struct match_db *in_use = NULL;
	struct dp_mail mail;
	uint64_t next = 1;

	(void)arg;
	while (next <= LETTERS) {
		if (dp_mailbox_room(&back) == 0 || !dp_mailbox_get(&there, &mail)) {
			sched_yield();
			continue;
		}
		if (mail.number != next++)
			return "a letter was lost or came twice";
		mail.kind = DP_MAIL_DB_TAKEN;
		mail.old_db = in_use;
		in_use = mail.db;
		dp_mailbox_put(&back, &mail);
	}
	return NULL;
}

static void databases_go_there_and_back_each_exactly_once(void **state)
{
	uint64_t sent = 0, got = 0;
	pthread_t worker;
	void *complaint;

	(void)state;
	dp_mailbox_init(&there);
	dp_mailbox_init(&back);
	assert_int_equal(pthread_create(&worker, NULL, answer_letters, NULL), 0);
	while (got < LETTERS) {
		struct dp_mail mail = {.kind = DP_MAIL_NEW_DB, .number = sent + 1, .db = (struct match_db *)(uintptr_t)(sent + 1)};

		if (sent < LETTERS && dp_mailbox_put(&there, &mail))
			sent++;
		if (!dp_mailbox_get(&back, &mail)) {
			sched_yield();
			continue;
		}
		assert_int_equal(mail.kind, DP_MAIL_DB_TAKEN);
		assert_int_equal((uintptr_t)mail.old_db, got);
		assert_int_equal((uintptr_t)mail.db, ++got);
	}
	pthread_join(worker, &complaint);
	assert_null(complaint);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(control_accepts_what_the_dataplane_lays_out),
		cmocka_unit_test(control_accepts_every_size_of_plan),
		cmocka_unit_test(no_two_parts_of_the_memory_overlap),
		cmocka_unit_test(the_memory_cannot_be_made_shorter_by_control),
		cmocka_unit_test(the_arena_is_read_only_for_the_dataplane_and_shows_what_control_writes),
		cmocka_unit_test(rings_carry_records_between_the_two_mappings),
		cmocka_unit_test(a_full_mailbox_refuses_and_loses_nothing),
		cmocka_unit_test(databases_go_there_and_back_each_exactly_once),
	};

	return cmocka_run_group_tests_name("dp_shm", tests, NULL, NULL);
}
