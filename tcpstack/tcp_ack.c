/*
 * tcp_ack.c - what an acknowledgement does: round-trip time, congestion window, loss recovery, our FIN.
 *
 * Owns: snd_una, snd_wnd, cwnd_bytes and the recovery state of a connection.
 * Core: the worker that owns the stack.
 * Spec: RFC 6298, RFC 5681, RFC 6582 (NewReno), RFC 7323 4.
 */
#include "tcpstack/internal.h"

#define RTT_GRANULARITY_US  1000u
#define RTT_MAX_US          60000000u /* so that its multiples fit in 32 bits */
#define CWND_MAX_BYTES      (1u << 29)
#define ACKS_PER_SECOND_MAX 10u

/* RFC 6298 2.2 and 2.3. A round trip too short to measure still counts as one microsecond. */
static inline void rtt_sample(struct tcps_conn *c, uint64_t rtt_us)
{
	const struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	uint32_t r = rtt_us == 0 ? 1 : rtt_us > RTT_MAX_US ? RTT_MAX_US : (uint32_t)rtt_us;
	if (__builtin_expect(cold->srtt_us == 0, 0)) {
		cold->srtt_us = r;
		cold->rttvar_us = r / 2;
	} else {
		uint32_t delta = r > cold->srtt_us ? r - cold->srtt_us : cold->srtt_us - r;
		cold->rttvar_us = (3 * cold->rttvar_us + delta) / 4;
		cold->srtt_us = (7 * cold->srtt_us + r) / 8;
		cold->srtt_us += cold->srtt_us == 0;
	}
	uint32_t var = 4 * cold->rttvar_us;
	uint32_t rto = cold->srtt_us + (var > RTT_GRANULARITY_US ? var : RTT_GRANULARITY_US);
	rto = rto < t->rto_min_us ? t->rto_min_us : rto;
	c->rto_us = rto > t->rto_max_us ? t->rto_max_us : rto;
}

/* Karn: a timed segment was sent once only. Where it was resent, the echoed timestamp says which copy arrived. */
static inline void measure(struct tcps_conn *c, uint32_t ack, uint32_t ts_ecr)
{
	struct tcps *t = c->t;
	if (c->flags & CF_TIMING) {
		if (!seq_gt(ack, c->rtt_seq))
			return;
		c->flags &= ~CF_TIMING;
		rtt_sample(c, (t->now_ns - c->cold->rtt_start_ns) / 1000);
	} else if ((c->flags & CF_TS) != 0 && ts_ecr != 0) {
		uint32_t age_ms = tcps_ts_now(t, c->ts_offset) - ts_ecr;
		if (age_ms < RTT_MAX_US / 1000)
			rtt_sample(c, (uint64_t)age_ms * 1000);
	}
}

void tcps_measure(struct tcps_conn *c, uint32_t ack, uint32_t ts_ecr)
{
	measure(c, ack, ts_ecr);
}

/* RFC 5681 3.1, only while the window is what limits us: one that is not used proves nothing. */
static inline void grow(struct tcps_conn *c, uint32_t acked, uint32_t flight)
{
	uint32_t mss = c->mss;
	if (flight + 2 * mss < c->cwnd_bytes || c->cwnd_bytes >= CWND_MAX_BYTES)
		return;
	if (c->cwnd_bytes < c->cold->ssthresh_bytes) {
		c->cwnd_bytes += acked < mss ? acked : mss;
		return;
	}
	uint32_t step = mss * mss / c->cwnd_bytes;
	c->cwnd_bytes += step == 0 ? 1 : step;
}

/* RFC 6582 3.2 (3): an ACK of new data during fast recovery. */
static void recovery_acked(struct tcps_conn *c, uint32_t ack, uint32_t acked)
{
	struct tcps_cold *cold = c->cold;
	if (seq_ge(ack, cold->recover_seq)) {
		uint32_t flight = c->snd_max - ack;
		uint32_t wnd = (flight > c->mss ? flight : c->mss) + c->mss;
		c->cwnd_bytes = wnd < cold->ssthresh_bytes ? wnd : cold->ssthresh_bytes;
		c->flags &= ~(CF_RECOVERY | CF_REXMT_HEAD);
		c->dup_acks = 0;
		return;
	}
	c->flags |= CF_REXMT_HEAD;
	c->cwnd_bytes = c->cwnd_bytes > acked ? c->cwnd_bytes - acked : 0;
	if (acked >= c->mss)
		c->cwnd_bytes += c->mss;
	if (c->cwnd_bytes < c->mss)
		c->cwnd_bytes = c->mss;
}

void tcps_dup_ack(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	TCPS_COUNT(c->t, dup_acks_in);
	if (c->dup_acks < UINT8_MAX)
		c->dup_acks++;
	if (c->flags & CF_RECOVERY) {
		if (c->cwnd_bytes < CWND_MAX_BYTES)
			c->cwnd_bytes += c->mss;
	} else if (c->dup_acks == 3 && seq_gt(c->snd_una - 1, cold->recover_seq)) {
		uint32_t flight = c->snd_max - c->snd_una;
		cold->ssthresh_bytes = flight / 2 > 2u * c->mss ? flight / 2 : 2u * c->mss;
		cold->recover_seq = c->snd_max;
		c->cwnd_bytes = cold->ssthresh_bytes + 3u * c->mss;
		c->flags |= CF_RECOVERY | CF_REXMT_HEAD;
		tcps_arm_rexmt(c, (uint64_t)c->rto_us * 1000);
	}
	tcps_touch(c);
}

static void fin_acked(struct tcps_conn *c)
{
	c->flags |= CF_FIN_ACKED;
	if (c->state == TCPS_FIN_WAIT_1) {
		tcps_conn_set_state(c, TCPS_FIN_WAIT_2);
		if (c->cold->keep_deadline_ns == TCPS_NEVER)
			tcps_keepalive_start(c);
	} else if (c->state == TCPS_CLOSING) {
		tcps_conn_set_state(c, TCPS_TIME_WAIT);
		tcps_conn_done(c);
	} else if (c->state == TCPS_LAST_ACK) {
		tcps_conn_done(c);
	}
}

/* The queue was above the high-water mark, or above its share of the blocks: half of either must be free again. */
static __attribute__((noinline)) void low_water(struct tcps_conn *c)
{
	if (c->snd_buf_bytes >= (c->t->cfg.send_high_water_bytes + 1) / 2 || !tcps_share_is_low(c))
		return;
	c->flags &= ~CF_OVER_HIGH;
	if ((c->flags & (CF_OWNED | CF_FIN_QUEUED)) == CF_OWNED)
		c->t->ops.on_writable(c->user);
}

/* What an ACK does in a state that is not the ordinary one: recovery, probing, closing, a queue above its mark. */
static __attribute__((noinline)) void acked_slow(struct tcps_conn *c, uint32_t ack, uint32_t acked, bool fin)
{
	if (c->flags & CF_RECOVERY)
		recovery_acked(c, ack, acked);
	if ((c->flags & CF_PERSIST) != 0 && tcps_left(c) <= 0 && (fin || !tcps_fin_owed(c))) {
		c->flags &= ~CF_PERSIST;
		c->rexmt_deadline_ns = TCPS_NEVER;
	}
	if (fin)
		fin_acked(c);
	if ((c->flags & (CF_OVER_HIGH | CF_DEAD)) == CF_OVER_HIGH)
		low_water(c);
}

#define ACKED_SLOW (CF_RECOVERY | CF_PERSIST | CF_OVER_HIGH)

/* `ack` is beyond snd_una and not beyond snd_max. The connection may be dead afterwards. */
void tcps_acked(struct tcps_conn *c, uint32_t ack, uint32_t ts_ecr)
{
	struct tcps *t = c->t;
	uint32_t acked = ack - c->snd_una, flight = c->snd_max - c->snd_una;
	uint32_t bytes = acked < c->snd_buf_bytes ? acked : c->snd_buf_bytes;
	measure(c, ack, ts_ecr);
	uint32_t head = c->head_idx;
	if (__builtin_expect(bytes == c->snd_buf_bytes && head == c->tail_idx && head < t->cfg.blocks_max, 1)) {
		/* All of it, and all in one block: the life of most ticks. */
		c->snd_buf_bytes = 0;
		tcps_send_emptied(c);
		c->cold->snd_blocks = 0;
		tcps_block_free(t, head);
	} else if (bytes != 0) {
		tcps_send_acked(c, bytes);
		if (__builtin_expect((c->flags & CF_DEAD) != 0, 0))
			return; /* release() aborted it */
	}
	c->snd_una = ack;
	if (seq_lt(c->snd_nxt, ack)) {
		c->snd_nxt = ack;
		tcps_send_rewind(c);
	}
	c->cold->rexmt_count = 0;
	if ((c->flags & CF_RECOVERY) == 0) {
		c->dup_acks = 0;
		grow(c, acked, flight);
	}
	/* RFC 6298 5.2 and 5.3. Only new data does this: an ACK that moves nothing must not keep the timer from firing. */
	if ((c->flags & CF_PERSIST) == 0) {
		if (ack == c->snd_max)
			c->rexmt_deadline_ns = TCPS_NEVER;
		else
			tcps_arm_rexmt(c, (uint64_t)c->rto_us * 1000);
	}
	if (__builtin_expect((c->flags & ACKED_SLOW) != 0 || acked > bytes, 0))
		acked_slow(c, ack, acked, acked > bytes);
	if (tcps_left(c) > 0 || (c->flags & (CF_FIN_QUEUED | CF_REXMT_HEAD)) != 0)
		tcps_touch(c);
}

void tcps_window_changed(struct tcps_conn *c, uint32_t wnd)
{
	if (wnd == 0 && c->snd_wnd != 0)
		TCPS_COUNT(c->t, zero_window_in);
	c->snd_wnd = wnd;
	if (wnd > c->cold->snd_wnd_max)
		c->cold->snd_wnd_max = wnd;
	if (c->state >= TCPS_ESTABLISHED && (tcps_left(c) > 0 || tcps_fin_owed(c)))
		tcps_touch(c);
}

bool tcps_ack_allowed(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	uint64_t now_ns = c->t->now_ns;
	if (now_ns - cold->ack_limit_ns >= 1000000000u) {
		cold->ack_limit_ns = now_ns;
		cold->ack_limit_count = 0;
	}
	if (cold->ack_limit_count >= ACKS_PER_SECOND_MAX) {
		TCPS_COUNT(c->t, acks_limited);
		return false;
	}
	cold->ack_limit_count++;
	return true;
}
