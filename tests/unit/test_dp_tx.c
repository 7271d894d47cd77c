/*
 * test_dp_tx.c - frames on their way out: bursts that the port takes only in part, ports that take nothing, no buffers, and frames
 * that end in memory of others.
 *
 * Owns: an EAL without hugepages or privileges, and DPDK's ring port, which hands each transmitted frame to its own
 * receive queue and takes no more when that is full.
 * Core: the test's only thread.
 * Spec: DESIGN section 4: a full pool is a normal outcome, never a silent drop.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "dataplane/counters.h"
#include "dataplane/tx.h"

#define MBUFS  4095u
#define PIECES 15u

static struct rte_mempool *pool, *piece_pool;
static struct dp_tx tx;
static uint64_t counter[DP_CNT_COUNT];
static unsigned done[8]; /* how often each owner's piece was given back */

static int start_eal(void **state)
{
	char lcores[32];
	char *argv[] = {(char *)"test_dp_tx",
			(char *)"--no-huge",
			(char *)"-m",
			(char *)"64",
			(char *)"--no-pci",
			(char *)"--no-shconf",
			(char *)"--no-telemetry",
			(char *)"--log-level=error",
			(char *)"--lcores",
			lcores,
			(char *)"--vdev=net_ring0",
			NULL};
	struct rte_eth_conf conf;
	cpu_set_t cpus;
	unsigned cpu = 0;

	(void)state;
	sched_getaffinity(0, sizeof cpus, &cpus);
	while (!CPU_ISSET(cpu, &cpus))
		cpu++;
	snprintf(lcores, sizeof lcores, "0@%u", cpu);
	memset(&conf, 0, sizeof conf);
	if (rte_eal_init((int)(sizeof argv / sizeof argv[0]) - 1, argv) < 0)
		return -1;
	pool = rte_pktmbuf_pool_create("tx", MBUFS, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	piece_pool = dp_tx_piece_pool("pieces", PIECES, SOCKET_ID_ANY);
	if (pool == NULL || piece_pool == NULL || rte_eth_dev_configure(0, 1, 1, &conf) != 0 ||
	    rte_eth_rx_queue_setup(0, 0, 64, 0, NULL, pool) != 0 || rte_eth_tx_queue_setup(0, 0, 64, 0, NULL) != 0)
		return -1;
	return rte_eth_dev_start(0);
}

static int stop_eal(void **state)
{
	(void)state;
	rte_eth_dev_stop(0);
	rte_eth_dev_close(0);
	return rte_eal_cleanup();
}

static void piece_done(void *ctx, void *owner)
{
	assert_ptr_equal(ctx, &tx);
	++*(unsigned *)owner;
}

static int fresh(void **state)
{
	(void)state;
	memset(counter, 0, sizeof counter);
	memset(done, 0, sizeof done);
	dp_tx_drop(&tx);
	tx = (struct dp_tx){.pool = pool,
			    .frame_max = RTE_MBUF_DEFAULT_DATAROOM,
			    .counters = counter,
			    .piece_pool = piece_pool,
			    .piece_done = piece_done,
			    .piece_ctx = &tx};
	return 0;
}

/* Takes up to `max` frames off the wire; each carries the number that follows the last. */
static uint32_t receive(uint32_t *next, uint32_t max)
{
	struct rte_mbuf *m;
	uint32_t got = 0, number;

	while (got < max && rte_eth_rx_burst(0, 0, &m, 1) == 1) {
		memcpy(&number, rte_pktmbuf_mtod(m, void *), sizeof number);
		assert_int_equal(number, (*next)++);
		assert_int_equal(m->pkt_len, 60);
		assert_int_equal(m->nb_segs, 1);
		rte_pktmbuf_free(m);
		got++;
	}
	return got;
}

static bool transmit(uint32_t number)
{
	const struct tcps_tx_meta meta = {0};
	void *handle;
	uint8_t *frame = dp_tx_alloc(&tx, 1514, &handle);

	if (frame == NULL)
		return false;
	memcpy(frame, &number, sizeof number);
	/* The stack asks for the largest frame and may fill less. */
	dp_tx_send(&tx, handle, 60, &meta);
	return true;
}

static void empty_the_wire(uint32_t *next)
{
	while (dp_tx_burst(&tx) + receive(next, 64) != 0)
		;
	assert_int_equal(tx.frames_count, 0);
	assert_int_equal(dp_tx_buffers_out(&tx), 0);
}

static void a_port_that_is_full_makes_alloc_say_so_and_loses_no_frame(void **state)
{
	uint32_t sent = 0, next = 0;

	(void)state;
	while (transmit(sent))
		sent++;
	/* The ring is full, and so is the array before it. */
	assert_int_equal(tx.frames_count, DP_TX_FRAMES_MAX);
	assert_true(sent > DP_TX_FRAMES_MAX);
	assert_int_equal(counter[DP_CNT_port_tx_full], 1);
	assert_false(transmit(sent));
	assert_int_equal(counter[DP_CNT_port_tx_full], 2);
	empty_the_wire(&next);
	assert_int_equal(next, sent);
	assert_int_equal(counter[DP_CNT_port_tx_packets], sent);
	assert_int_equal(counter[DP_CNT_port_tx_bytes], sent * 60);
}

static void a_burst_that_is_taken_in_part_keeps_the_rest_in_order(void **state)
{
	uint32_t sent = 0, next = 0;

	(void)state;
	srand(1);
	/* More than goes through at a time, in and out in uneven steps. */
	while (sent < 20000) {
		for (int i = rand() % 200; i > 0 && transmit(sent); i--)
			sent++;
		dp_tx_burst(&tx);
		receive(&next, (uint32_t)rand() % 150);
	}
	assert_true(counter[DP_CNT_port_tx_partial] > 0);
	empty_the_wire(&next);
	assert_int_equal(next, sent);
}

static void without_buffers_alloc_says_so_and_recovers(void **state)
{
	static struct rte_mbuf *taken[MBUFS];
	uint32_t next = 0;

	(void)state;
	assert_int_equal(rte_pktmbuf_alloc_bulk(pool, taken, MBUFS), 0);
	assert_false(transmit(0));
	assert_int_equal(counter[DP_CNT_port_tx_no_mbuf], 1);
	rte_pktmbuf_free_bulk(taken, MBUFS);
	assert_true(transmit(0));
	empty_the_wire(&next);
	assert_int_equal(next, 1);
}

static void the_pools_last_buffers_are_found_though_they_fill_no_stock(void **state)
{
	static struct rte_mbuf *taken[MBUFS];
	const unsigned left = DP_TX_REFILL - 1;
	uint32_t next = 0, sent = 0;

	(void)state;
	assert_int_equal(rte_pktmbuf_alloc_bulk(pool, taken, MBUFS - left), 0);
	while (transmit(sent))
		sent++;
	assert_int_equal(sent, left);
	assert_int_equal(counter[DP_CNT_port_tx_no_mbuf], 1);
	rte_pktmbuf_free_bulk(taken, MBUFS - left);
	empty_the_wire(&next);
	assert_int_equal(next, left);
}

static void received_frames_are_the_next_that_are_sent_and_the_stock_is_bounded(void **state)
{
	static struct rte_mbuf *got[4 * DP_TX_STOCK_MAX];
	uint32_t next = 0;
	void *handle;

	(void)state;
	/* As a receive function leaves them: with lengths and flags of their own. */
	assert_int_equal(rte_pktmbuf_alloc_bulk(pool, got, 4 * DP_TX_STOCK_MAX), 0);
	for (unsigned i = 0; i < 4 * DP_TX_STOCK_MAX; i++) {
		got[i]->data_off = 100;
		got[i]->data_len = 77;
		got[i]->pkt_len = 77;
		got[i]->ol_flags = RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED | RTE_MBUF_F_RX_IP_CKSUM_GOOD;
	}
	dp_tx_recycle(&tx, got, 1);
	assert_ptr_equal(dp_tx_alloc(&tx, 60, &handle), (uint8_t *)got[0]->buf_addr + RTE_PKTMBUF_HEADROOM);
	assert_ptr_equal(handle, got[0]);
	dp_tx_recycle(&tx, (struct rte_mbuf **)&handle, 1);
	assert_true(transmit(0));
	assert_ptr_equal(tx.frame[0], got[0]);
	assert_int_equal(tx.frame[0]->ol_flags, 0);
	assert_int_equal(tx.frame[0]->data_len, 60);
	dp_tx_recycle(&tx, got + 1, 4 * DP_TX_STOCK_MAX - 1);
	assert_in_range(tx.stock_count, 1, DP_TX_STOCK_MAX);
	empty_the_wire(&next);
	assert_int_equal(next, 1);
}

static void a_received_frame_that_somebody_else_holds_is_nobodys_stock(void **state)
{
	struct rte_mbuf *held = rte_pktmbuf_alloc(pool), *chained = rte_pktmbuf_alloc(pool);

	(void)state;
	assert_non_null(held);
	assert_non_null(chained);
	rte_mbuf_refcnt_update(held, 1);
	dp_tx_recycle(&tx, &held, 1);
	assert_int_equal(tx.stock_count, 0);
	rte_pktmbuf_free(held);
	assert_int_equal(rte_pktmbuf_chain(chained, rte_pktmbuf_alloc(pool)), 0);
	dp_tx_recycle(&tx, &chained, 1);
	assert_int_equal(tx.stock_count, 0);
	assert_int_equal(rte_mempool_in_use_count(pool), 0);
}

static void a_frame_larger_than_a_buffer_is_refused_and_leaks_none(void **state)
{
	void *handle;

	(void)state;
	assert_null(dp_tx_alloc(&tx, RTE_MBUF_DEFAULT_DATAROOM + 1, &handle));
	assert_null(dp_tx_alloc(&tx, 100000, &handle));
	assert_int_equal(dp_tx_buffers_out(&tx), 0);
}

static void what_the_port_never_took_is_freed_at_the_end(void **state)
{
	uint32_t next = 0, sent = 0;

	(void)state;
	while (transmit(sent))
		sent++;
	dp_tx_drop(&tx);
	assert_int_equal(tx.frames_count, 0);
	empty_the_wire(&next);
	assert_int_equal(next, sent - DP_TX_FRAMES_MAX);
}

static void the_port_is_told_which_checksums_to_fill_in(void **state)
{
	const struct tcps_tx_meta meta = {.ip_cksum = true, .tcp_cksum = true, .l2_len = 14, .l3_len = 20, .l4_len = 32};
	const struct tcps_tx_meta other = {.tcp_cksum = true,
					   .ipv6 = true,
					   .l2_len = 14,
					   .l3_len = 40,
					   .l4_len = 32,
					   .tso_mss = 1000,
					   .vlan_insert = true,
					   .vlan_tci = 5};
	struct rte_mbuf *m;
	uint32_t next = 0;
	void *handle;

	(void)state;
	assert_non_null(dp_tx_alloc(&tx, 100, &handle));
	dp_tx_send(&tx, handle, 100, &meta);
	m = tx.frame[0];
	assert_true((m->ol_flags & (RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM)) == (RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM));
	assert_true((m->ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM);
	assert_int_equal(m->l2_len, 14);
	assert_int_equal(m->l3_len, 20);
	assert_int_equal(m->l4_len, 32);
	dp_tx_drop(&tx);
	/* The next user of that buffer does not inherit the wish. */
	assert_true(transmit(0));
	assert_int_equal(tx.frame[0]->ol_flags, 0);
	/* Nor does a frame of another form that of the last. */
	for (unsigned i = 0; i < 4; i++) {
		const struct tcps_tx_meta *of = i % 2 == 0 ? &meta : &other;

		assert_non_null(dp_tx_alloc(&tx, 60, &handle));
		memcpy(rte_pktmbuf_mtod((struct rte_mbuf *)handle, void *), &(uint32_t){i + 1}, 4);
		dp_tx_send(&tx, handle, 60, of);
		assert_int_equal(tx.frame[i + 1]->ol_flags,
				 i % 2 == 0 ? RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM
					    : RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_TCP_SEG |
						      RTE_MBUF_F_TX_VLAN);
		assert_int_equal(tx.frame[i + 1]->l3_len, of->l3_len);
		assert_int_equal(tx.frame[i + 1]->tso_segsz, of->tso_mss);
		assert_int_equal(tx.frame[i + 1]->vlan_tci, of->vlan_tci);
	}
	empty_the_wire(&next);
}

/* ---- frames that end in memory of others ---- */

static const uint8_t body[] = "a message that every consumer gets from the one place where it lies";

/* `head`, and a piece for each of `lens`, cut from the body from its start on. False: no frame. */
static bool chain(const char *head, const uint32_t *lens, unsigned count)
{
	const struct tcps_tx_meta meta = {0};
	struct tcps_piece piece[TCPS_PIECES_MAX];
	size_t head_len = strlen(head), all = head_len;
	uint32_t at = 0;
	uint8_t *frame;
	void *handle;

	for (unsigned i = 0; i < count; at += lens[i++]) {
		piece[i] = (struct tcps_piece){.data = body + at, .len = lens[i], .owner = &done[i]};
		all += lens[i];
	}
	frame = dp_tx_chain(&tx, head_len, piece, count, &handle);
	if (frame == NULL)
		return false;
	memcpy(frame, head, head_len);
	dp_tx_send(&tx, handle, all, &meta);
	return true;
}

static void assert_no_buffer_is_out(void)
{
	assert_int_equal(dp_tx_buffers_out(&tx), 0);
	assert_int_equal(rte_mempool_in_use_count(piece_pool), 0);
}

static void a_chain_is_sent_whole_and_uncopied_and_gives_each_piece_back_once(void **state)
{
	const uint32_t lens[] = {3, 10, 5};
	const uint8_t *at = body;
	struct rte_mbuf *m;
	uint8_t all[32];

	(void)state;
	assert_true(chain("head ", lens, 3));
	assert_int_equal(dp_tx_burst(&tx), 1);
	assert_int_equal(counter[DP_CNT_port_tx_bytes], 5 + 18);
	assert_int_equal(rte_eth_rx_burst(0, 0, &m, 1), 1);
	assert_int_equal(m->pkt_len, 5 + 18);
	assert_int_equal(m->nb_segs, 4);
	assert_memory_equal(rte_pktmbuf_read(m, 0, m->pkt_len, all), "head a message that eve", 5 + 18);
	for (struct rte_mbuf *s = m->next; s != NULL; at += s->data_len, s = s->next)
		assert_ptr_equal(rte_pktmbuf_mtod(s, const uint8_t *), at);
	assert_int_equal(done[0] + done[1] + done[2], 0);
	assert_int_equal(dp_tx_reclaim(&tx), 3);
	rte_pktmbuf_free(m);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(done[i], 1);
	assert_int_equal(dp_tx_reclaim(&tx), 0);
	assert_no_buffer_is_out();
}

static void a_chain_may_be_sent_shorter_in_its_head_only(void **state)
{
	const struct tcps_piece piece = {.data = body, .len = 9, .owner = &done[0]};
	const struct tcps_tx_meta meta = {0};
	void *handle;

	(void)state;
	assert_non_null(dp_tx_chain(&tx, 100, &piece, 1, &handle));
	dp_tx_send(&tx, handle, 60 + 9, &meta);
	assert_int_equal(tx.frame[0]->data_len, 60);
	assert_int_equal(tx.frame[0]->next->data_len, 9);
	assert_int_equal(tx.frame[0]->pkt_len, 69);
	dp_tx_drop(&tx);
	assert_int_equal(done[0], 1);
	assert_no_buffer_is_out();
}

static void without_buffers_for_all_pieces_there_is_no_chain_and_nothing_is_held(void **state)
{
	static struct rte_mbuf *taken[MBUFS];
	const uint32_t lens[] = {1, 1, 1, 1};
	unsigned chains = 0;

	(void)state;
	while (chain("head", lens, 4))
		chains++;
	assert_int_equal(chains, PIECES / 4);
	dp_tx_drop(&tx);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(done[i], chains);
	/* The other way round: pieces there are, but no head for them. */
	assert_int_equal(rte_pktmbuf_alloc_bulk(pool, taken, MBUFS), 0);
	assert_false(chain("head", lens, 4));
	rte_pktmbuf_free_bulk(taken, MBUFS);
	assert_int_equal(done[0], chains);
	assert_no_buffer_is_out();
}

static void a_chain_that_the_full_port_does_not_take_is_given_back(void **state)
{
	const uint32_t lens[] = {7};
	const struct tcps_piece piece = {.data = body, .len = 7, .owner = &done[0]};
	const struct tcps_tx_meta meta = {0};
	uint32_t sent = 0, next = 0;
	void *handle;

	(void)state;
	assert_non_null(dp_tx_chain(&tx, 40, &piece, 1, &handle));
	while (transmit(sent))
		sent++;
	assert_false(chain("head", lens, 1));
	assert_int_equal(done[0], 0);
	dp_tx_send(&tx, handle, 47, &meta); /* no room was left for it since */
	assert_int_equal(done[0], 1);
	empty_the_wire(&next);
	assert_int_equal(next, sent);
	assert_no_buffer_is_out();
}

static void a_clone_of_the_drivers_keeps_the_piece_and_its_record(void **state)
{
	const uint32_t one = 11, all[] = {1, 1, 1, 1, 1, 1, 1};
	struct rte_mbuf *clone = rte_pktmbuf_alloc(pool);

	(void)state;
	assert_non_null(clone);
	assert_true(chain("head", &one, 1));
	rte_pktmbuf_attach(clone, tx.frame[0]->next);
	dp_tx_drop(&tx);
	assert_int_equal(done[0], 0);
	/* All buffers are free, but the record beside one of them still counts for the clone. */
	assert_int_equal(rte_mempool_in_use_count(piece_pool), 0);
	for (unsigned i = 0; i < PIECES; i++)
		if (chain("head", all, 7))
			dp_tx_drop(&tx);
	assert_memory_equal(rte_pktmbuf_mtod(clone, const uint8_t *), body, one);
	done[0] = 0;
	rte_pktmbuf_free(clone);
	assert_int_equal(done[0], 1);
	assert_no_buffer_is_out();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_port_that_is_full_makes_alloc_say_so_and_loses_no_frame, fresh),
		cmocka_unit_test_setup(a_burst_that_is_taken_in_part_keeps_the_rest_in_order, fresh),
		cmocka_unit_test_setup(without_buffers_alloc_says_so_and_recovers, fresh),
		cmocka_unit_test_setup(the_pools_last_buffers_are_found_though_they_fill_no_stock, fresh),
		cmocka_unit_test_setup(received_frames_are_the_next_that_are_sent_and_the_stock_is_bounded, fresh),
		cmocka_unit_test_setup(a_received_frame_that_somebody_else_holds_is_nobodys_stock, fresh),
		cmocka_unit_test_setup(a_frame_larger_than_a_buffer_is_refused_and_leaks_none, fresh),
		cmocka_unit_test_setup(what_the_port_never_took_is_freed_at_the_end, fresh),
		cmocka_unit_test_setup(the_port_is_told_which_checksums_to_fill_in, fresh),
		cmocka_unit_test_setup(a_chain_is_sent_whole_and_uncopied_and_gives_each_piece_back_once, fresh),
		cmocka_unit_test_setup(a_chain_may_be_sent_shorter_in_its_head_only, fresh),
		cmocka_unit_test_setup(without_buffers_for_all_pieces_there_is_no_chain_and_nothing_is_held, fresh),
		cmocka_unit_test_setup(a_chain_that_the_full_port_does_not_take_is_given_back, fresh),
		cmocka_unit_test_setup(a_clone_of_the_drivers_keeps_the_piece_and_its_record, fresh),
	};

	return cmocka_run_group_tests_name("dp_tx", tests, start_eal, stop_eal);
}
