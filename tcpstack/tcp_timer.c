/*
 * tcp_timer.c - what happens when a deadline passes: retransmission, persist, delayed ACK, keepalive.
 *
 * Owns: the deadlines of a connection. Its one wheel timer is armed for the earliest of them or before it: pushing a
 *       deadline back costs nothing, the timer finds out when it fires.
 * Core: the worker that owns the stack.
 * Spec: RFC 6298 5, RFC 9293 3.8.1, 3.8.4, 3.8.6.1, RFC 5681 3.1.
 */
#include "tcpstack/internal.h"

#define KEEPALIVE_INTERVAL_NS    75000000000ull
#define KEEPALIVE_FIN_WAIT_2_NS  60000000000ull
#define KEEPALIVE_UNANSWERED_MAX 9u
#define BACKOFF_SHIFT_MAX        20u

static uint64_t keepalive_idle_ns(const struct tcps_conn *c)
{
	/* A peer that vanished in FIN_WAIT_2 would be waited for for ever: there the question is asked in any case. */
	if (c->t->cfg.keepalive_ns == 0)
		return KEEPALIVE_FIN_WAIT_2_NS;
	return c->t->cfg.keepalive_ns;
}

void tcps_keepalive_start(struct tcps_conn *c)
{
	c->cold->keepalives_unanswered = 0;
	c->cold->keep_deadline_ns = c->t->now_ns + keepalive_idle_ns(c);
	tcps_conn_rearm(c, c->cold->keep_deadline_ns);
}

static void keepalive_due(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	uint64_t idle_ns = (uint64_t)(tcps_coarse_ms(t->now_ns) - c->last_rx_ms) << 20;
	uint64_t limit_ns = keepalive_idle_ns(c);
	uint64_t interval_ns = limit_ns < KEEPALIVE_INTERVAL_NS ? limit_ns : KEEPALIVE_INTERVAL_NS;
	/* The answer may be as old as the probe: on a fast path the idle time alone would say that nothing came. */
	if ((int32_t)(c->last_rx_ms - cold->keep_probe_ms) >= 0)
		cold->keepalives_unanswered = 0;
	if (idle_ns + (1u << 20) < limit_ns) {
		cold->keep_deadline_ns = t->now_ns + limit_ns - idle_ns;
		return;
	}
	cold->keep_deadline_ns = t->now_ns + interval_ns;
	/* RFC 9293 3.8.4: what is outstanding asks the same question by itself, and has a patience of its own. */
	if (c->snd_max != c->snd_una)
		return;
	if (cold->keepalives_unanswered >= KEEPALIVE_UNANSWERED_MAX) {
		tcps_emit(c, c->snd_max, NULL, 0, TCP_RST | TCP_ACK);
		tcps_conn_close(c, TCPS_CLOSED_TIMEOUT);
		return;
	}
	cold->keepalives_unanswered++;
	cold->keep_probe_ms = tcps_coarse_ms(t->now_ns);
	if (tcps_emit(c, c->snd_una - 1, NULL, 0, TCP_ACK) == EMIT_SENT)
		TCPS_COUNT(t, keepalives);
}

static uint64_t backed_off_ns(const struct tcps_conn *c, unsigned shift)
{
	uint64_t delay = tcps_rto_ns(c);
	delay <<= shift < BACKOFF_SHIFT_MAX ? shift : BACKOFF_SHIFT_MAX;
	return delay < c->t->cfg.rto_max_ns ? delay : c->t->cfg.rto_max_ns;
}

static void give_up(struct tcps_conn *c)
{
	bool refused_silently = c->state == TCPS_SYN_SENT;
	if (!refused_silently)
		tcps_emit(c, c->snd_max, NULL, 0, TCP_RST | TCP_ACK);
	tcps_conn_close(c, TCPS_CLOSED_TIMEOUT);
}

/* RFC 5482, locally: the owner's patience with a peer that acknowledges nothing. */
static bool out_of_patience(const struct tcps_conn *c)
{
	const struct tcps *t = c->t;
	uint64_t stuck_ns = (uint64_t)(tcps_coarse_ms(t->now_ns) - c->cold->stuck_since_ms) << 20;
	return t->cfg.user_timeout_ns != 0 && stuck_ns >= t->cfg.user_timeout_ns;
}

/* RFC 9293 3.8.6.1: at least one octet of new data, or all that the window takes when it is only too small to like. */
static void persist_due(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	if (cold->rexmt_count == 0)
		cold->stuck_since_ms = tcps_coarse_ms(t->now_ns);
	if (cold->probes_unanswered >= t->cfg.retransmits_max || out_of_patience(c)) {
		give_up(c);
		return;
	}
	tcps_send_sync(c);
	int32_t left = tcps_left(c);
	uint32_t len = c->snd_wnd > 1 ? c->snd_wnd : 1;
	if (len > c->mss)
		len = c->mss;
	if (len > (uint32_t)left)
		len = (uint32_t)left;
	bool fin = len == (uint32_t)left && tcps_fin_owed(c) && (len == 0 || len < c->snd_wnd);
	cold->probes_unanswered++;
	if (cold->rexmt_count < UINT8_MAX)
		cold->rexmt_count++;
	tcps_arm_rexmt(c, backed_off_ns(c, cold->rexmt_count));
	struct tcps_cursor cur = {c->cur_idx, c->cur_off};
	uint8_t flags = (uint8_t)(TCP_ACK | (fin ? TCP_FIN : 0u));
	if (tcps_emit(c, c->snd_nxt, &cur, len, flags) != EMIT_SENT)
		return;
	TCPS_COUNT(t, zero_window_probes);
	/* snd_nxt stays: should the byte be refused, it is the next to go; should it be taken, the ACK moves us on. */
	uint32_t end = c->snd_nxt + len + fin;
	if (seq_gt(end, c->snd_max)) {
		cold->snd_wraps += end < c->snd_max;
		c->snd_max = end;
	}
}

/* The peer has shut its window over what is in flight: that is thrown away there, and goes out anew when the window opens. */
static void back_to_una(struct tcps_conn *c)
{
	tcps_sent_drop(c);
	tcps_undo_forget(c);
	c->snd_nxt = c->snd_una;
	c->flags &= ~(CF_RECOVERY | CF_RTO | CF_TLP_OUT);
	tcps_send_rewind(c);
}

/* RFC 5681 3.1, RFC 6298 5.4: all that is outstanding and not SACKed is lost, and slow start sends it again. */
static void flight_lost(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	if (cold->rexmt_count == 1) {
		tcps_undo_begin(c, true);
		tcps_cc_lost(c);
	}
	c->cwnd_bytes = c->mss;
	c->dup_acks = 0;
	cold->recover_seq = c->snd_max;
	c->flags = (c->flags & ~(CF_RECOVERY | CF_TLP_OUT)) | CF_RTO;
	tcps_sent_all_lost(c);
	/* A byte that probed a shut window lies behind snd_nxt, and goes out with the next. */
	if (c->cold->sent_first_idx == TCPS_NIL)
		back_to_una(c);
}

static void rexmt_due(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	bool opening = c->state == TCPS_SYN_SENT || c->state == TCPS_SYN_RECEIVED;
	uint32_t tries_max = t->cfg.retransmits_max;
	if (opening && tries_max > TCPS_SYN_TRIES_MAX)
		tries_max = TCPS_SYN_TRIES_MAX;
	c->rexmt_deadline_ns = TCPS_NEVER;
	if (c->flags & CF_PERSIST) {
		persist_due(c);
		return;
	}
	if (cold->rexmt_count == 0)
		cold->stuck_since_ms = tcps_coarse_ms(t->now_ns - tcps_rto_ns(c));
	if (cold->rexmt_count >= tries_max || (!opening && out_of_patience(c))) {
		give_up(c);
		return;
	}
	TCPS_COUNT(t, rto_expired);
	cold->rexmt_count++;
	c->rto_us = (uint32_t)(backed_off_ns(c, 1) / 1000); /* RFC 6298 5.5; kept until a round trip is measured again */
	if (opening) {
		c->snd_nxt = cold->iss;
		c->cwnd_bytes = c->mss;
	} else {
		tcps_send_sync(c);
		flight_lost(c);
		if (c->snd_wnd == 0)
			back_to_una(c);
	}
	tcps_arm_rexmt(c, tcps_rto_ns(c));
	tcps_output(c);
}

/* The deadline of a loss that only time can tell of: RFC 8985 6.3 and 7.3. */
static void loss_timer_due(struct tcps_conn *c)
{
	bool tail = (c->flags & CF_T_TLP) != 0;
	c->flags &= ~(CF_T_TLP | CF_T_REO);
	c->rexmt_deadline_ns = TCPS_NEVER;
	if (tail) {
		tcps_tlp_due(c);
		return;
	}
	tcps_arm_rexmt(c, tcps_rto_ns(c));
	tcps_rack_detect(c);
	if (c->flags & CF_RECOVERY)
		tcps_cc_prr(c, 0);
	tcps_send_sync(c);
	tcps_output(c);
}

/*
 * RFC 5681 4.1: after an idle time longer than the RTO the old window says nothing about the path. Looked at here, where such a
 * connection comes by anyway, and not where the next tick is to go out. Returns when to look again.
 */
static uint64_t restart_after_idle(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	uint32_t initial = 10u * c->mss;
	if (c->cwnd_bytes <= initial || c->snd_max != c->snd_una || c->state < TCPS_ESTABLISHED)
		return TCPS_NEVER;
	uint64_t idle_ns = (uint64_t)(tcps_coarse_ms(t->now_ns) - c->last_rx_ms) << 20, rto_ns = tcps_rto_ns(c);
	if (idle_ns <= rto_ns)
		return t->now_ns + rto_ns - idle_ns + (1u << 20);
	c->cwnd_bytes = initial;
	c->cold->cubic.in_epoch = false;
	return TCPS_NEVER;
}

static void next_deadline(struct tcps_conn *c)
{
	uint64_t at = restart_after_idle(c);
	if (c->rexmt_deadline_ns < at)
		at = c->rexmt_deadline_ns;
	if (c->delack_deadline_ns < at)
		at = c->delack_deadline_ns;
	if (c->cold->keep_deadline_ns < at)
		at = c->cold->keep_deadline_ns;
	if (at != TCPS_NEVER)
		tcps_conn_rearm(c, at);
}

void tcps_conn_timer(struct tcps *t, struct tcps_timer *timer)
{
	struct tcps_conn *c = (struct tcps_conn *)(void *)((uint8_t *)timer - offsetof(struct tcps_conn, timer));
	bool was_busy = tcps_conn_enter(c);
	tcps_sent_settle(c);
	if (c->snd_buf_bytes == 0)
		tcps_send_free(c); /* the block that acked_whole() left for a next tick that did not come */
	if (c->delack_deadline_ns <= t->now_ns) {
		c->delack_deadline_ns = TCPS_NEVER;
		c->flags |= CF_ACK_NOW;
		TCPS_COUNT(t, delayed_acks);
		tcps_output(c);
	}
	if (c->rexmt_deadline_ns <= t->now_ns) {
		if (c->flags & (CF_T_TLP | CF_T_REO))
			loss_timer_due(c);
		else
			rexmt_due(c);
	}
	if ((c->flags & CF_DEAD) == 0 && c->cold->keep_deadline_ns <= t->now_ns)
		keepalive_due(c);
	if ((c->flags & CF_DEAD) == 0)
		next_deadline(c);
	tcps_conn_leave(c, was_busy);
}
