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
#include "dataplane/grace.h"
#include "dataplane/handover.h"

#define PUBLISH_NS   10000000ull /* counters go to shared memory this often */
#define SLEEP_NS     50000ull    /* one step of --idle adaptive */
#define NOTES_A_TURN 64u         /* taken from each ring of another worker */

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
	dp_tx_recycle(&w->tx, frame, count);
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
	return w->control_attached && !w->ops_corrupt && !ctl_ring_empty(&w->ops) ? dp_fib_apply(w) : 0;
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

static uint32_t poll_tcp_timers(struct dp_worker *w)
{
	return tcps_tick(w->tcp, w->now_ns) ? DP_POLL_WORKED : 0;
}

static uint32_t poll_amqp_timers(struct dp_worker *w)
{
	return amqp_tick(w->amqp) ? DP_POLL_WORKED : 0;
}

static uint32_t poll_drain(struct dp_worker *w)
{
	return w->drain.active ? dp_drain_step(w) : 0;
}

static uint32_t poll_queues(struct dp_worker *w)
{
	return amqp_burst_end(w->amqp) ? DP_POLL_WORKED : 0;
}

/* Only what this turn did can have given it work, or a port that was full before. */
static uint32_t poll_flush(struct dp_worker *w)
{
	tcps_flush(w->tcp, w->now_ns);
	return w->laps.worked != 0 ? DP_POLL_WORKED : 0;
}

static uint32_t poll_tx(struct dp_worker *w)
{
	uint32_t sent = dp_tx_burst(&w->tx);

	if (w->stages.seen != 0)
		dp_stages_sent(&w->stages, rte_rdtsc());
	return sent;
}

/* ---- statistics ---- */

static void publish_laps(struct dp_worker *w)
{
	const struct dp_laps *l = &w->laps;

	w->counter[DP_CNT_worker_longest_loop_ns] = dp_clock_span_ns(&w->clock, l->longest_cycles);
	w->counter[DP_CNT_worker_longest_loop_at_ns] = l->longest_at_ns;
	for (unsigned i = 0; i < DP_LONG_TURNS; i++)
		w->counter[DP_CNT_worker_loops_over_5us + i] = l->long_turns[i];
	for (unsigned i = 0; i < DP_POLL_COUNT; i++)
		w->counter[DP_CNT_longest_receive_ns + i] = dp_clock_span_ns(&w->clock, l->poll_cycles[i]);
	dp_laps_text(l, w->stats->longest_loop_what, sizeof w->stats->longest_loop_what);
}
_Static_assert((int)DP_CNT_worker_loops_over_500us - (int)DP_CNT_worker_loops_over_5us + 1 == (int)DP_LONG_TURNS &&
		       (int)DP_CNT_longest_counters_ns - (int)DP_CNT_longest_receive_ns + 1 == (int)DP_POLL_COUNT,
	       "a counter for each");

static void publish(struct dp_worker *w)
{
	struct tcps_usage tcp;
	struct amqp_usage amqp;
	struct match_db *dropped;

	tcps_usage(w->tcp, &tcp);
	amqp_usage(w->amqp, &amqp);
	dp_counters_pools(w->counter, &tcp, &amqp);
	w->counter[DP_CNT_pool_pieces] = dp_tx_reclaim(&w->tx);
	w->counter[DP_CNT_pool_mbufs] = dp_tx_buffers_out(&w->tx);
	publish_laps(w);
	dp_counters_publish(w->stats, w->counter, tcps_counters(w->tcp), amqp_counters(w->amqp));
	atomic_store_explicit(&w->stats->updated_ns, w->now_ns, memory_order_relaxed);
	while (dp_mailbox_room(&w->outbox) > 2 && (dropped = amqp_dropped_db(w->amqp)) != NULL)
		dp_mailbox_put(&w->outbox, &(struct dp_mail){.kind = DP_MAIL_DB_DROPPED, .old_db = dropped});
}

static uint32_t poll_rows(struct dp_worker *w)
{
	return dp_rows_due(&w->rows, w->laps.done != 0, w->now_ns) && dp_rows_step(&w->rows, w->amqp, w->now_ns) ? DP_POLL_WORKED
														 : 0;
}

static uint32_t poll_counters(struct dp_worker *w)
{
	if (w->now_ns < w->next_publish_ns)
		return 0;
	w->next_publish_ns = w->now_ns + PUBLISH_NS;
	publish(w);
	return DP_POLL_WORKED;
}

/* ---- the loop ---- */

/* A poll returns how much it did, or DP_POLL_WORKED; only one that did something is worth a look at the counter. */
static inline void lap(struct dp_worker *w, enum dp_poll poll, uint32_t did)
{
	if (did != 0)
		dp_laps_stamp(&w->laps, poll, did, rte_rdtsc());
}

/* One turn, in an order in which a tick that comes in with it goes out with it. Returns how much was done. */
static uint32_t turn(struct dp_worker *w)
{
	dp_laps_begin(&w->laps, w->tsc);
	lap(w, DP_POLL_receive, poll_rx(w));
	lap(w, DP_POLL_others, poll_others(w));
	lap(w, DP_POLL_operations, poll_ops(w));
	lap(w, DP_POLL_mail, poll_mail(w));
	lap(w, DP_POLL_tcp_timers, poll_tcp_timers(w));
	lap(w, DP_POLL_amqp_timers, poll_amqp_timers(w));
	lap(w, DP_POLL_drain, poll_drain(w));
	lap(w, DP_POLL_queues, poll_queues(w));
	lap(w, DP_POLL_flush, poll_flush(w));
	lap(w, DP_POLL_transmit, poll_tx(w));
	lap(w, DP_POLL_rows, poll_rows(w));
	lap(w, DP_POLL_counters, poll_counters(w));
	return w->laps.done;
}

/* Sleeps a step, or until the next timer if that is sooner; a software port's signal ends it at once. False: not now. */
static bool doze(struct dp_worker *w)
{
	uint64_t deadline_ns = tcps_next_deadline(w->tcp), sleep_ns = SLEEP_NS;
	struct timespec ts = {0};

	if (w->now_ns - w->last_busy_ns < w->idle_after_ns || w->tx.frames_count != 0 || w->drain.active)
		return false;
	if (deadline_ns <= w->now_ns)
		return false;
	if (deadline_ns - w->now_ns < sleep_ns)
		sleep_ns = deadline_ns - w->now_ns;
	ts.tv_nsec = (long)sleep_ns;
	w->counter[DP_CNT_worker_idle_sleeps]++;
	nanosleep(&ts, NULL);
	return true;
}

static void set_time(struct dp_worker *w, uint64_t tsc)
{
	w->tsc = tsc;
	w->now_ns = dp_clock_ns(&w->clock, tsc);
	amqp_set_now(w->amqp, w->now_ns, atomic_load_explicit(&w->wall_s, memory_order_relaxed));
}

/* What a turn took, which ended at `tsc`. */
static void account(struct dp_worker *w, uint32_t done, uint64_t tsc)
{
	uint64_t cycles = tsc - w->tsc;

	w->counter[done != 0 ? DP_CNT_worker_busy_cycles : DP_CNT_worker_idle_cycles] += cycles;
	dp_laps_end(&w->laps, cycles, w->now_ns);
	if (done != 0)
		w->last_busy_ns = w->now_ns;
	atomic_store_explicit(&w->loops, ++w->counter[DP_CNT_worker_loops], memory_order_relaxed);
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

	snprintf(name, sizeof name, "dp-worker-%u", w->idx % 1000);
	pthread_setname_np(pthread_self(), name);
	prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
	dp_conn_bind_thread(w);
	take_realtime_signals(SIG_UNBLOCK);
	set_time(w, rte_rdtsc());
	w->last_busy_ns = w->now_ns;
	tcps_announce(w->tcp, w->now_ns);
	dp_grace_enter(&w->loops);
	/* The end of a turn is the beginning of the next: the counter is read once for both. */
	while (!w->leave) {
		uint32_t done = turn(w);
		uint64_t tsc = rte_rdtsc();

		account(w, done, tsc);
		if (done == 0 && w->adaptive && doze(w))
			tsc = rte_rdtsc();
		set_time(w, tsc);
	}
	dp_grace_leave(&w->loops);
	publish(w);
	take_realtime_signals(SIG_BLOCK);
	return 0;
}
