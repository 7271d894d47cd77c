/*
 * test_dp_rows.c - rows and counters in shared memory, written from pools that the test makes up, read as control reads them.
 *
 * Owns: the made-up pools: this program has its own amqp_row_*() and tcps_info() in place of the libraries'.
 * Core: the test's only thread.
 * Spec: control/ctl_shm.h (rows and their sequence numbers; counters describe themselves).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dataplane/counters.h"
#include "dataplane/rows.h"

#define CONNS     5u
#define CHANNELS  3u
#define QUEUES    40u
#define CONSUMERS 2u
#define SECOND_NS 1000000000ull

static struct {
	uint32_t conns, channels, queues, consumers; /* high-water marks */
	uint64_t queues_there;                       /* bit an index */
	uint64_t ready;
	struct amqp_span tag, user;
} pool;

uint32_t amqp_rows_conns(const struct amqp_broker *b)
{
	(void)b;
	return pool.conns;
}
uint32_t amqp_rows_channels(const struct amqp_broker *b)
{
	(void)b;
	return pool.channels;
}
uint32_t amqp_rows_queues(const struct amqp_broker *b)
{
	(void)b;
	return pool.queues;
}
uint32_t amqp_rows_consumers(const struct amqp_broker *b)
{
	(void)b;
	return pool.consumers;
}
bool amqp_row_conn(const struct amqp_broker *b, uint32_t idx, struct amqp_row_conn *out)
{
	(void)b;
	*out = (struct amqp_row_conn){.uid = 1000 + idx,
				      .state = "running",
				      .peer_text = "198.18.0.1",
				      .peer_port = 4000,
				      .user = pool.user,
				      .recv_oct = 77};
	return true;
}
bool amqp_row_channel(const struct amqp_broker *b, uint32_t idx, struct amqp_row_channel *out)
{
	(void)b;
	*out = (struct amqp_row_channel){.conn_uid = 1000, .number = idx + 1, .confirm = true, .publishes = 9};
	return true;
}
bool amqp_row_queue(const struct amqp_broker *b, uint32_t idx, struct amqp_row_queue *out)
{
	(void)b;
	*out = (struct amqp_row_queue){.queue_id = idx, .messages_ready = pool.ready};
	return (pool.queues_there & 1ull << idx) != 0;
}
bool amqp_row_consumer(const struct amqp_broker *b, uint32_t idx, struct amqp_row_consumer *out)
{
	(void)b;
	*out = (struct amqp_row_consumer){.queue_id = idx, .tag = pool.tag, .ack_required = true};
	return true;
}
void tcps_info(const struct tcps_conn *c, struct tcps_conn_info *out)
{
	(void)c;
	*out = (struct tcps_conn_info){.state = "ESTABLISHED", .srtt_us = 55, .mss = 1448, .congestion = "cubic"};
}
void tcps_endpoints(const struct tcps_conn *c, struct tcps_endpoint *local, struct tcps_endpoint *peer)
{
	(void)c;
	*local = (struct tcps_endpoint){.addr = {.family = 6, .bytes = {0x20, 1, 0, 2, [15] = 2}}, .port = 5672};
	*peer = *local;
}
const char *tcps_counter_name(unsigned idx)
{
	static char name[TCPS_CNT_COUNT][16];

	snprintf(name[idx], sizeof name[idx], "t%u", idx);
	return name[idx];
}
const char *tcps_counter_text(unsigned idx)
{
	(void)idx;
	return "of TCP";
}
const char *amqp_counter_name(unsigned idx)
{
	static char name[AMQP_CNT_COUNT][16];

	snprintf(name[idx], sizeof name[idx], "a%u", idx);
	return name[idx];
}
const char *amqp_counter_text(unsigned idx)
{
	(void)idx;
	return "of AMQP";
}

static struct dp_shm shm;
static struct dp_rows rows;

static int set_up(void **state)
{
	struct dp_shm_plan plan = {
		.workers_count = 1,
		.counters_count = DP_COUNTERS_ALL,
		.request_ring_bytes = 4096,
		.op_ring_bytes = 4096,
		.arena_bytes = 1,
		.conns_max = CONNS,
		.channels_max = CHANNELS,
		.queues_max = QUEUES,
		.consumers_max = CONSUMERS,
		.port_text = "",
		.address_text = "",
	};
	char err[256];

	(void)state;
	memset(&pool, 0, sizeof pool);
	pool.user = pool.tag = (struct amqp_span){(const uint8_t *)"guest", 5};
	assert_true(dp_shm_create(&shm, &plan, err, sizeof err));
	dp_rows_init(&rows, &shm, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	dp_shm_destroy(&shm);
	return 0;
}

static void sweep(uint64_t now_ns)
{
	while (dp_rows_step(&rows, NULL, now_ns))
		;
}

static bool read_queue(uint32_t idx, struct ctl_row_queue *out)
{
	return ctl_row_read(shm.base + shm.layout.worker[0].queues.offset + idx * sizeof *out, out, sizeof *out);
}

static void a_sweep_shows_every_object_of_every_pool(void **state)
{
	struct ctl_row_consumer consumer;
	struct ctl_row_channel channel;
	struct ctl_row_conn conn;
	struct ctl_row_queue queue;
	uint8_t *base = shm.base;

	(void)state;
	pool.conns = CONNS;
	pool.channels = CHANNELS;
	pool.queues = QUEUES;
	pool.consumers = CONSUMERS;
	pool.queues_there = ~0ull;
	pool.ready = 123;
	sweep(SECOND_NS);
	for (uint32_t i = 0; i < CONNS; i++) {
		assert_true(ctl_row_read(base + shm.layout.worker[0].conns.offset + i * sizeof conn, &conn, sizeof conn));
		assert_int_equal(conn.uid, 1000 + i);
		assert_string_equal(conn.state, "running");
		assert_string_equal(conn.tcp_state, "ESTABLISHED");
		assert_string_equal(conn.user, "guest");
		assert_string_equal(conn.peer_host, "198.18.0.1");
		assert_string_equal(conn.host, "2001:2::2");
		assert_int_equal(conn.mss, 1448);
		assert_int_equal(conn.recv_oct, 77);
	}
	for (uint32_t i = 0; i < CHANNELS; i++) {
		assert_true(
			ctl_row_read(base + shm.layout.worker[0].channels.offset + i * sizeof channel, &channel, sizeof channel));
		assert_int_equal(channel.number, i + 1);
		assert_int_equal(channel.confirm, 1);
	}
	for (uint32_t i = 0; i < QUEUES; i++) {
		assert_true(read_queue(i, &queue));
		assert_int_equal(queue.queue_id, i);
		assert_int_equal(queue.messages_ready, 123);
	}
	for (uint32_t i = 0; i < CONSUMERS; i++) {
		assert_true(ctl_row_read(base + shm.layout.worker[0].consumers.offset + i * sizeof consumer, &consumer,
					 sizeof consumer));
		assert_string_equal(consumer.tag, "guest");
	}
	assert_int_equal(atomic_load(&shm.header->worker[0].queues.rows_used), QUEUES);
	assert_int_equal(atomic_load(&shm.header->worker[0].conns.rows_used), CONNS);
}

/* Turns a microsecond apart until a sweep has begun and ended; how many of them wrote a row, and how long it took. */
static uint32_t sweep_by_turns(bool busy, uint64_t from_ns, uint64_t *took_ns)
{
	uint64_t now_ns = from_ns, last_ns = from_ns;
	uint32_t written = 0;

	for (; now_ns < from_ns + 20 * SECOND_NS; now_ns += 1000) {
		if (!dp_rows_due(&rows, busy, now_ns))
			continue;
		if (!dp_rows_step(&rows, NULL, now_ns))
			break;
		written++;
		last_ns = now_ns;
	}
	*took_ns = last_ns - from_ns;
	return written;
}

static void a_worker_that_is_never_idle_gives_rows_little_of_its_time_and_still_ends_a_sweep(void **state)
{
	uint64_t busy_ns, idle_ns;

	(void)state;
	pool.conns = CONNS;
	pool.queues = QUEUES;
	pool.queues_there = ~0ull;
	assert_int_equal(sweep_by_turns(true, SECOND_NS, &busy_ns), CONNS + QUEUES);
	assert_int_equal(busy_ns, (CONNS + QUEUES - 1) * DP_ROWS_BUSY_NS);
	assert_int_equal(sweep_by_turns(false, 3 * SECOND_NS, &idle_ns), CONNS + QUEUES);
	assert_int_equal(idle_ns, (CONNS + QUEUES - 1) * DP_ROWS_IDLE_NS);
}

static void with_very_many_rows_a_busy_worker_ends_a_sweep_all_the_same(void **state)
{
	uint64_t took_ns;
	uint8_t *place = calloc(100000, sizeof(struct ctl_row_consumer));

	(void)state;
	assert_non_null(place);
	/* More than the shared memory of this test has room for: one table stands in memory of its own. */
	rows.table[3].rows = place;
	rows.table[3].rows_max = pool.consumers = 100000;
	assert_int_equal(sweep_by_turns(true, SECOND_NS, &took_ns), 100000);
	assert_in_range(took_ns, DP_ROWS_BUSY_SWEEP_NS * 9 / 10, DP_ROWS_BUSY_SWEEP_NS);
	free(place);
}

static void the_next_sweep_waits_for_its_time(void **state)
{
	struct ctl_row_queue queue;

	(void)state;
	pool.queues = 1;
	pool.queues_there = 1;
	pool.ready = 1;
	sweep(SECOND_NS);
	pool.ready = 2;
	sweep(SECOND_NS + DP_ROWS_SWEEP_NS - 1);
	assert_true(read_queue(0, &queue));
	assert_int_equal(queue.messages_ready, 1);
	sweep(SECOND_NS + DP_ROWS_SWEEP_NS);
	assert_true(read_queue(0, &queue));
	assert_int_equal(queue.messages_ready, 2);
}

static void the_row_of_what_is_gone_is_free(void **state)
{
	struct ctl_row_queue queue;

	(void)state;
	pool.queues = 3;
	pool.queues_there = 7;
	sweep(SECOND_NS);
	pool.queues_there = 5;
	sweep(2 * SECOND_NS);
	assert_true(read_queue(0, &queue));
	assert_false(read_queue(1, &queue));
	assert_true(read_queue(2, &queue));
}

static void a_pool_that_is_larger_than_its_table_is_cut_off(void **state)
{
	(void)state;
	pool.consumers = CONSUMERS + 1000;
	sweep(SECOND_NS);
	assert_int_equal(atomic_load(&shm.header->worker[0].consumers.rows_used), CONSUMERS);
}

static void a_name_that_is_too_long_is_cut_off_and_ended(void **state)
{
	static uint8_t longest[300];
	struct ctl_row_consumer consumer;

	(void)state;
	memset(longest, 'x', sizeof longest);
	pool.consumers = 1;
	pool.tag = (struct amqp_span){longest, sizeof longest};
	sweep(SECOND_NS);
	assert_true(ctl_row_read(shm.base + shm.layout.worker[0].consumers.offset, &consumer, sizeof consumer));
	assert_int_equal(strlen(consumer.tag), CTL_NAME_BYTES - 1);
}

/* ---- counters ---- */

static void every_counter_has_a_name_of_its_own_and_a_text(void **state)
{
	const struct ctl_counter_desc *desc = dp_shm_counter_desc(&shm);

	(void)state;
	dp_counters_describe(dp_shm_counter_desc(&shm));
	for (unsigned i = 0; i < DP_COUNTERS_ALL; i++) {
		assert_non_null(strchr(desc[i].name, '.'));
		assert_true(desc[i].text[0] != '\0' && strlen(desc[i].text) < sizeof desc[i].text - 1);
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(desc[i].name, desc[k].name);
	}
	assert_string_equal(desc[DP_CNT_worker_busy_cycles].name, "worker.busy_cycles");
	assert_string_equal(desc[DP_CNT_COUNT].name, "tcp.t0");
	assert_string_equal(desc[DP_CNT_COUNT + TCPS_CNT_COUNT].name, "amqp.a0");
}

static void counters_are_published_beside_the_main_threads_own(void **state)
{
	static uint64_t own[DP_CNT_COUNT], tcp[TCPS_CNT_COUNT], amqp[AMQP_CNT_COUNT];
	struct ctl_worker_stats *stats = dp_shm_stats(&shm, 0);
	unsigned i;

	(void)state;
	for (i = 0; i < DP_CNT_COUNT; i++)
		own[i] = 1000 + i;
	for (i = 0; i < TCPS_CNT_COUNT; i++)
		tcp[i] = 2000 + i;
	for (i = 0; i < AMQP_CNT_COUNT; i++)
		amqp[i] = 3000 + i;
	dp_counters_set(stats, DP_CNT_nic_imissed, 5);
	dp_counters_publish(stats, own, tcp, amqp);
	assert_int_equal(atomic_load(&stats->counter[DP_CNT_port_rx_packets]), 1000 + DP_CNT_port_rx_packets);
	assert_int_equal(atomic_load(&stats->counter[DP_CNT_nic_imissed]), 5);
	assert_int_equal(atomic_load(&stats->counter[DP_CNT_COUNT + TCPS_CNT_COUNT - 1]), 2000 + TCPS_CNT_COUNT - 1);
	assert_int_equal(atomic_load(&stats->counter[DP_COUNTERS_ALL - 1]), 3000 + AMQP_CNT_COUNT - 1);
}

#define ROWS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ROWS_TEST(a_sweep_shows_every_object_of_every_pool),
		ROWS_TEST(a_worker_that_is_never_idle_gives_rows_little_of_its_time_and_still_ends_a_sweep),
		ROWS_TEST(with_very_many_rows_a_busy_worker_ends_a_sweep_all_the_same),
		ROWS_TEST(the_next_sweep_waits_for_its_time),
		ROWS_TEST(the_row_of_what_is_gone_is_free),
		ROWS_TEST(a_pool_that_is_larger_than_its_table_is_cut_off),
		ROWS_TEST(a_name_that_is_too_long_is_cut_off_and_ended),
		ROWS_TEST(every_counter_has_a_name_of_its_own_and_a_text),
		ROWS_TEST(counters_are_published_beside_the_main_threads_own),
	};

	return cmocka_run_group_tests_name("dp_rows", tests, NULL, NULL);
}
