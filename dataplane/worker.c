/*
 * worker.c - the worker's loop: a table of named polls, run to completion, turn after turn.
 *
 * Owns: what happens between two looks at the clock.
 * Core: the worker's lcore. After start it allocates nothing, takes no lock and makes no system call of its own; the PMD's
 * are the PMD's, the one that wakes control stands in fib_link.c, and --idle adaptive sleeps when there is nothing to do.
 * Spec: DESIGN section 3.
 */
#include "dataplane/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_pause.h>
#include <rte_prefetch.h>

#include "dataplane/conn.h"
#include "dataplane/drain.h"
#include "dataplane/echo.h"
#include "dataplane/fib_link.h"
#include "dataplane/handover.h"

#define PUBLISH_NS      10000000ull /* counters go to shared memory this often */
#define SLEEP_NS        50000ull    /* one step of --idle adaptive */
#define NOTES_A_TURN    64u         /* taken from each ring of another worker */
#define ROWS_IDLE       4u          /* rows written in an idle turn */
#define ROWS_BUSY_EVERY 16u         /* busy turns that share one row */

/* ---- receive ---- */

/* Answers echo requests and takes them out of the burst. Returns how many frames are left. */
static uint16_t echo_burst(struct dp_worker *w, struct rte_mbuf **frame, uint16_t count)
{
	uint16_t left = 0;

	for (uint16_t i = 0; i < count; i++) {
		struct rte_mbuf *m = frame[i];

		if (m->nb_segs == 1 && dp_echo_turn(rte_pktmbuf_mtod(m, uint8_t *), m->data_len, w->mac, w->ipv4) &&
		    dp_tx_forward(&w->tx, m))
			w->counter[DP_CNT_port_udp_echoes]++;
		else
			frame[left++] = m;
	}
	/* At once: what is measured here is the port, not what the burst's other frames cost. */
	if (left != count)
		dp_tx_burst(&w->tx);
	return left;
}

uint32_t dp_rx_flags(const struct dp_worker *w, const struct rte_mbuf *m)
{
	uint32_t flags = 0;

	if (!w->rx_offloads)
		return 0;
	if ((m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
		flags |= TCPS_RX_IP_CKSUM_GOOD;
	if ((m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
		flags |= TCPS_RX_L4_CKSUM_GOOD;
	if ((m->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0)
		flags |= TCPS_RX_VLAN(m->vlan_tci);
	return flags;
}

/* With other workers: each frame by itself, for some go on to them. */
static void input_shared(struct dp_worker *w, struct rte_mbuf **frame, uint16_t count)
{
	for (uint16_t i = 0; i < count; i++) {
		if (frame[i]->nb_segs == 1) {
			dp_handover_input(w, frame[i], dp_rx_flags(w, frame[i]));
			continue;
		}
		w->counter[DP_CNT_port_rx_drop_chained]++;
		rte_pktmbuf_free(frame[i]);
	}
}

static uint32_t poll_rx(struct dp_worker *w)
{
	struct rte_mbuf *frame[DP_BURST_MAX];
	uint16_t got, count;

	if (w->tap.call != NULL)
		w->tap.call(w->tap.signo);
	got = count = rte_eth_rx_burst(w->port_id, w->queue, frame, DP_BURST_MAX);
	if (got == 0)
		return 0;
	w->counter[DP_CNT_worker_rx_bursts]++;
	w->counter[DP_CNT_port_rx_packets] += got;
	for (uint16_t i = 0; i < got; i++) {
		rte_prefetch0(rte_pktmbuf_mtod(frame[i], void *));
		w->counter[DP_CNT_port_rx_bytes] += frame[i]->pkt_len;
	}
	if (w->udp_echo)
		count = echo_burst(w, frame, got);
	w->burst_has_payload = false;
	if (w->workers_count > 1) {
		input_shared(w, frame, count);
		return got;
	}
	for (uint16_t i = 0; i < count; i++) {
		struct rte_mbuf *m = frame[i];

		if (m->nb_segs == 1)
			tcps_input(w->tcp, rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, dp_rx_flags(w, m), w->now_ns);
		else
			w->counter[DP_CNT_port_rx_drop_chained]++;
	}
	rte_pktmbuf_free_bulk(frame, count);
	return got;
}

/* ---- other workers ---- */

static uint32_t poll_others(struct dp_worker *w)
{
	if (w->workers_count < 2)
		return 0;
	return dp_handover_poll(w) + amqp_mail_poll(w->amqp, NOTES_A_TURN);
}

/* ---- control ---- */

static uint32_t poll_ops(struct dp_worker *w)
{
	return dp_fib_apply(w);
}

static void take_db(struct dp_worker *w, const struct dp_mail *mail)
{
	struct dp_mail reply = {.kind = DP_MAIL_DB_TAKEN, .exchange_id = mail->exchange_id, .db = mail->db};

	/* The scratch first: it suits the databases in use and the new one. */
	reply.scratch = amqp_set_scratch(w->amqp, mail->scratch);
	reply.old_db = amqp_take_db(w->amqp, mail->exchange_id, mail->db);
	dp_mailbox_put(&w->outbox, &reply);
}

static uint32_t poll_mail(struct dp_worker *w)
{
	struct dp_mail mail;

	/* A letter is taken only when its answer has a place. */
	if (dp_mailbox_empty(&w->inbox) || dp_mailbox_room(&w->outbox) < 2 || !dp_mailbox_get(&w->inbox, &mail))
		return 0;
	switch (mail.kind) {
	case DP_MAIL_CONTROL_ATTACHED:
		dp_fib_attach(w);
		dp_mailbox_put(&w->outbox, &(struct dp_mail){.kind = DP_MAIL_RINGS_READY});
		break;
	case DP_MAIL_CONTROL_GONE:
		dp_fib_detach(w);
		break;
	case DP_MAIL_NEW_DB:
		take_db(w, &mail);
		break;
	case DP_MAIL_DRAIN:
		dp_drain_begin(w, mail.number);
		break;
	case DP_MAIL_RINGS_READY:
	case DP_MAIL_DB_TAKEN:
	case DP_MAIL_DB_DROPPED:
	case DP_MAIL_RING_CORRUPT:
	case DP_MAIL_DRAINED:
		break; /* the other direction's */
	}
	return 1;
}

/* ---- time and transmit ---- */

static uint32_t poll_timers(struct dp_worker *w)
{
	tcps_tick(w->tcp, w->now_ns);
	amqp_tick(w->amqp);
	return 0;
}

static uint32_t poll_drain(struct dp_worker *w)
{
	return w->drain.active ? dp_drain_step(w) : 0;
}

static uint32_t poll_flush(struct dp_worker *w)
{
	amqp_burst_end(w->amqp);
	tcps_flush(w->tcp, w->now_ns);
	return 0;
}

static uint32_t poll_tx(struct dp_worker *w)
{
	uint32_t sent = dp_tx_burst(&w->tx);

	if (w->stages.seen != 0)
		dp_stages_sent(&w->stages, rte_rdtsc());
	return sent;
}

/* ---- statistics ---- */

static void publish(struct dp_worker *w)
{
	struct tcps_usage tcp;
	struct amqp_usage amqp;
	struct match_db *dropped;

	tcps_usage(w->tcp, &tcp);
	amqp_usage(w->amqp, &amqp);
	dp_counters_pools(w->counter, &tcp, &amqp);
	w->counter[DP_CNT_pool_pieces] = dp_tx_reclaim(&w->tx);
	w->counter[DP_CNT_pool_mbufs] = rte_mempool_in_use_count(w->tx.pool);
	w->counter[DP_CNT_worker_longest_loop_ns] = dp_clock_span_ns(&w->clock, w->longest_cycles);
	memcpy(w->stats->longest_loop_what, w->longest_what, strlen(w->longest_what) + 1);
	dp_counters_publish(w->stats, w->counter, tcps_counters(w->tcp), amqp_counters(w->amqp));
	atomic_store_explicit(&w->stats->updated_ns, w->now_ns, memory_order_relaxed);
	while (dp_mailbox_room(&w->outbox) > 2 && (dropped = amqp_dropped_db(w->amqp)) != NULL)
		dp_mailbox_put(&w->outbox, &(struct dp_mail){.kind = DP_MAIL_DB_DROPPED, .old_db = dropped});
}

static uint32_t poll_statistics(struct dp_worker *w)
{
	bool busy = w->last_busy_ns == w->now_ns;

	if (!busy || w->counter[DP_CNT_worker_loops] % ROWS_BUSY_EVERY == 0)
		dp_rows_step(&w->rows, w->amqp, busy ? 1 : ROWS_IDLE, w->now_ns);
	if (w->now_ns >= w->next_publish_ns) {
		w->next_publish_ns = w->now_ns + PUBLISH_NS;
		publish(w);
	}
	return 0;
}

/* ---- the loop ---- */

struct poll {
	const char *name;
	uint32_t (*run)(struct dp_worker *w); /* returns how much it did; 0: nothing */
};

/* In this order a tick that comes in with one turn goes out with the same turn. */
static const struct poll polls[] = {
	{"receive", poll_rx},  {"others", poll_others}, {"operations", poll_ops},
	{"mail", poll_mail},   {"timers", poll_timers}, {"drain", poll_drain},
	{"flush", poll_flush}, {"transmit", poll_tx},   {"statistics", poll_statistics},
};
#define POLLS_COUNT (sizeof polls / sizeof polls[0])

/* One turn. Returns how much was done; *cycles is how long it took. */
static uint32_t turn(struct dp_worker *w, uint64_t *cycles)
{
	uint64_t before = w->tsc, now = before, worst_cycles = 0;
	const char *worst = "";
	uint32_t done = 0;

	for (size_t i = 0; i < POLLS_COUNT; i++) {
		done += polls[i].run(w);
		if (done != 0)
			w->last_busy_ns = w->now_ns;
		now = rte_rdtsc();
		if (now - before > worst_cycles) {
			worst_cycles = now - before;
			worst = polls[i].name;
		}
		before = now;
	}
	*cycles = now - w->tsc;
	if (*cycles > w->longest_cycles) {
		w->longest_cycles = *cycles;
		w->longest_what = worst;
	}
	return done;
}

/* Sleeps a step, or until the next timer if that is sooner. A software port's signal ends it at once. */
static void doze(struct dp_worker *w)
{
	uint64_t deadline_ns = tcps_next_deadline(w->tcp), sleep_ns = SLEEP_NS;
	struct timespec ts = {0};

	if (w->now_ns - w->last_busy_ns < w->idle_after_ns || w->tx.frames_count != 0 || w->drain.active)
		return;
	if (deadline_ns <= w->now_ns)
		return;
	if (deadline_ns - w->now_ns < sleep_ns)
		sleep_ns = deadline_ns - w->now_ns;
	ts.tv_nsec = (long)sleep_ns;
	w->counter[DP_CNT_worker_idle_sleeps]++;
	nanosleep(&ts, NULL);
}

static void set_time(struct dp_worker *w)
{
	w->tsc = rte_rdtsc();
	w->now_ns = dp_clock_ns(&w->clock, w->tsc);
	amqp_set_now(w->amqp, w->now_ns, atomic_load_explicit(&w->wall_s, memory_order_relaxed));
}

/*
 * With --idle adaptive net_tap tells of a frame by its realtime signal (else see tap_poll.c): the worker, which sleeps until it
 * comes, must not mask it, and the main thread, which would have to be woken, does (main.c).
 */
static void take_realtime_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	for (int signo = SIGRTMIN; signo <= SIGRTMAX; signo++)
		sigaddset(&set, signo);
	pthread_sigmask(how, &set, NULL);
}

int dp_worker_run(void *arg)
{
	struct dp_worker *w = arg;
	char name[16];
	uint64_t cycles;

	snprintf(name, sizeof name, "dp-worker-%u", w->idx % 1000);
	pthread_setname_np(pthread_self(), name);
	prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
	dp_conn_bind_thread(w);
	take_realtime_signals(SIG_UNBLOCK);
	set_time(w);
	w->last_busy_ns = w->now_ns;
	tcps_announce(w->tcp, w->now_ns);
	while (!w->leave) {
		uint32_t done;

		set_time(w);
		done = turn(w, &cycles);
		w->counter[done != 0 ? DP_CNT_worker_busy_cycles : DP_CNT_worker_idle_cycles] += cycles;
		atomic_store_explicit(&w->loops, ++w->counter[DP_CNT_worker_loops], memory_order_relaxed);
		if (done == 0 && w->adaptive)
			doze(w);
	}
	publish(w);
	take_realtime_signals(SIG_BLOCK);
	return 0;
}
