/*
 * tcp_ack.c - what an acknowledgement does: round-trip time, what is delivered and lost, recovery, our FIN.
 *
 * Owns: snd_una, snd_wnd and the course of a recovery; the scoreboard is sent.c's, the window congestion.c's.
 * Core: the worker that owns the stack.
 * Spec: RFC 6298, RFC 5681, RFC 6582 (peers without SACK), RFC 6675, RFC 8985, RFC 7323 4.
 */
#include "tcpstack/internal.h"

#define ACKS_PER_SECOND_MAX 10u
#define DUP_ACKS_MAX        200u /* a peer without SACK: more say nothing more, and the count has 8 bits */

/* Karn: a segment that was sent again is not timed, but the echoed timestamp tells which copy arrived (RFC 7323 4). */
static void measure_echo(struct tcps_conn *c, uint32_t ts_ecr)
{
	uint32_t age = tcps_ts_now(c->t, c->ts_offset) - ts_ecr, least_us = c->cold->rack.min_rtt_us;
	if ((c->flags & CF_TS) == 0 || ts_ecr == 0 || age >= TCPS_RTT_MAX_US / 1049)
		return;
	tcps_rtt_sample(c, (uint32_t)(((uint64_t)age << 20) / 1000));
	/* A tick is too coarse for the shortest of all: nought would leave RACK no reordering window. */
	if (c->cold->rack.min_rtt_us < least_us && least_us != UINT32_MAX)
		c->cold->rack.min_rtt_us = least_us;
}

void tcps_measure_syn(struct tcps_conn *c, uint32_t ts_ecr)
{
	if (c->cold->retransmits == 0)
		tcps_rtt_sample(c, tcps_now_us(c->t) - c->cold->rack.time_us);
	else
		measure_echo(c, ts_ecr);
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

/* What an ACK of new bytes does in a state that is not the ordinary one: probing, closing, a queue above its mark. */
static __attribute__((noinline)) void acked_unusual(struct tcps_conn *c, bool fin)
{
	if ((c->flags & CF_PERSIST) != 0 && tcps_left(c) <= 0 && (fin || !tcps_fin_owed(c))) {
		c->flags &= ~CF_PERSIST;
		tcps_disarm_rexmt(c);
	}
	if (fin)
		fin_acked(c);
	if ((c->flags & (CF_OVER_HIGH | CF_DEAD)) == CF_OVER_HIGH)
		low_water(c);
}

/* Takes `bytes` off the queue. False: release() has aborted the connection. */
static inline bool drop_acked(struct tcps_conn *c, uint32_t bytes)
{
	struct tcps *t = c->t;
	if (bytes != 0 && bytes == c->snd_buf_bytes && c->head_idx == c->tail_idx && c->tail_ptr != NULL &&
	    (c->flags & CF_FIN_QUEUED) == 0) {
		c->cur_off = 0;
		tcps_send_keep(t, c, bytes);
		return true;
	}
	if (bytes != 0)
		tcps_send_acked(c, bytes);
	return (c->flags & CF_DEAD) == 0;
}

/* Moves snd_una; RFC 6298 5.2 and 5.3: only new bytes do this, or an ACK that moves nothing kept the timer from firing. */
static inline void advance_una(struct tcps_conn *c, uint32_t ack)
{
	c->snd_una = ack;
	if (seq_lt(c->snd_nxt, ack)) {
		c->snd_nxt = ack;
		tcps_send_rewind(c);
	}
	c->cold->rexmt_count = 0;
	if ((c->flags & CF_PERSIST) != 0)
		return;
	if (ack == c->snd_max)
		tcps_disarm_rexmt(c);
	else
		tcps_arm_rexmt(c, tcps_rto_ns(c));
}

/* All that it covers was sent once, so what it leaves outstanding went out later: RACK has nothing to find. */
bool tcps_ack_is_plain(struct tcps_conn *c, uint32_t ack)
{
	const struct tcps *t = c->t;
	tcps_sent_settle(c);
	for (uint32_t i = c->cold->sent_first_idx; i != TCPS_NIL && seq_lt(t->sents[i].seq, ack); i = t->sents[i].next_idx) {
		if (t->sents[i].flags != 0)
			return false;
	}
	return true;
}

/* Some flushes, each sent once, lie in one block, and all of them are acknowledged: what an ACK of two ticks finds. */
static inline void acked_all(struct tcps_conn *c, uint32_t ack, uint32_t acked)
{
	struct tcps_cold *cold = c->cold;
	tcps_rtt_sample(c, tcps_now_us(c->t) - c->t->sents[cold->sent_first_idx].time_us);
	tcps_sent_all_acked(c);
	cold->rack.valid = false; /* nothing is left to compare with */
	cold->rexmt_count = 0;
	c->snd_una = ack;
	c->cur_off = 0;
	tcps_disarm_rexmt(c);
	tcps_send_keep(c->t, c, acked);
	tcps_cc_acked(c, acked, acked);
}

void tcps_acked(struct tcps_conn *c, uint32_t ack)
{
	struct tcps_cold *cold = c->cold;
	uint32_t acked = ack - c->snd_una, pipe = c->snd_nxt - c->snd_una;
	uint32_t bytes = acked < c->snd_buf_bytes ? acked : c->snd_buf_bytes;
	if (ack == c->snd_max && acked == c->snd_buf_bytes && c->head_idx == c->tail_idx && c->tail_ptr != NULL &&
	    (c->flags & CF_OVER_HIGH) == 0) {
		acked_all(c, ack, acked);
		return;
	}
	struct tcps_delivered d = {0};
	cold->rack.fack_seq = c->snd_una;
	tcps_sent_acked(c, ack, &d);
	if (d.has_rtt)
		tcps_rtt_sample(c, d.rtt_us);
	cold->rack.valid &= cold->sent_first_idx != TCPS_NIL;
	if (!drop_acked(c, bytes))
		return;
	advance_una(c, ack);
	tcps_cc_acked(c, acked, pipe);
	if (ack != c->snd_max && tcps_tlp_wanted(c)) {
		tcps_arm_rexmt(c, tcps_tlp_delay_ns(c));
		c->flags |= CF_T_TLP;
	}
	if (__builtin_expect((c->flags & (CF_PERSIST | CF_OVER_HIGH)) != 0 || acked > bytes, 0))
		acked_unusual(c, acked > bytes);
	if (tcps_left(c) > 0 || (c->flags & CF_FIN_QUEUED) != 0)
		tcps_touch(c);
}

/* RFC 2883 4: the first block tells of a duplicate when it lies below the ACK, or within the second block. */
static bool is_dsack(const struct tcps_range *b, unsigned n, uint32_t ack)
{
	if (n == 0)
		return false;
	if (seq_le(b[0].end_seq, ack))
		return true;
	return n > 1 && seq_ge(b[0].start_seq, b[1].start_seq) && seq_le(b[0].end_seq, b[1].end_seq);
}

static void take_sacks(struct tcps_conn *c, const struct tcps_seg *s, struct tcps_delivered *d)
{
	struct tcps_range b[TCPS_SACK_BLOCKS_MAX];
	unsigned n = tcps_options_parse_sack(s, b), i = 0;
	d->by_sack = true;
	TCPS_COUNT_ADD(c->t, sacks_in, n != 0);
	if (is_dsack(b, n, s->ack)) {
		d->dsack = true;
		tcps_rack_dsack(c);
		tcps_undo_dsack(c, &b[0]);
		i = 1;
	}
	for (; i < n; i++) {
		if (seq_ge(b[i].start_seq, c->snd_una) && seq_gt(b[i].end_seq, b[i].start_seq) && seq_le(b[i].end_seq, c->snd_max))
			tcps_sent_sacked(c, &b[i], d);
		else
			TCPS_COUNT(c->t, sacks_bad);
	}
}

/* RFC 2883: an ACK that others overtook moves nothing, but the duplicate that it tells of is told of nowhere else. */
void tcps_acked_late(struct tcps_conn *c, const struct tcps_seg *s)
{
	struct tcps_range b[TCPS_SACK_BLOCKS_MAX];
	if (!is_dsack(b, tcps_options_parse_sack(s, b), s->ack))
		return;
	const struct tcps_delivered d = {.dsack = true};
	tcps_rack_dsack(c);
	tcps_undo_dsack(c, &b[0]);
	tcps_undo_acked(c, c->snd_una, false, &d);
}

/* A peer without SACK: three duplicates tell of one loss, an ACK of a part of the flight of the next (RFC 6582 3.2). */
static uint32_t newreno(struct tcps_conn *c, uint32_t acked, bool plain_duplicate)
{
	uint32_t mss = c->mss;
	if (plain_duplicate) {
		if (c->dup_acks < DUP_ACKS_MAX)
			c->dup_acks++;
		c->flags |= CF_SCORE;
		if (c->dup_acks == 3 && (c->flags & (CF_RECOVERY | CF_RTO)) == 0 && seq_gt(c->snd_una - 1, c->cold->recover_seq)) {
			tcps_sent_head_lost(c, mss);
			tcps_cc_recovery(c);
		}
		return mss;
	}
	if (acked == 0)
		return 0;
	/* Duplicates that were counted as delivered before are part of what is acknowledged now. */
	uint32_t counted = (uint32_t)c->dup_acks * mss, fresh = acked > counted ? acked - counted : 0;
	uint32_t segments = (acked + mss - 1) / mss - 1; /* but one of them is the hole's */
	c->dup_acks = (c->flags & CF_RECOVERY) != 0 && segments < c->dup_acks ? (uint8_t)(c->dup_acks - segments) : 0;
	if ((c->flags & CF_RECOVERY) != 0 && seq_lt(c->snd_una, c->cold->recover_seq))
		tcps_sent_head_lost(c, mss);
	return fresh;
}

static void recovery_over(struct tcps_conn *c)
{
	if ((c->flags & (CF_RECOVERY | CF_RTO)) == 0 || seq_lt(c->snd_una, c->cold->recover_seq))
		return;
	if (c->flags & CF_RECOVERY)
		c->cwnd_bytes = c->cold->ssthresh_bytes;
	c->flags &= ~(CF_RECOVERY | CF_RTO);
	c->dup_acks = 0;
	tcps_rack_recovered(c);
}

static void rearm(struct tcps_conn *c, bool advanced)
{
	if ((c->flags & (CF_PERSIST | CF_T_REO)) != 0 || c->snd_una == c->snd_max)
		return;
	if (tcps_tlp_wanted(c)) {
		if (advanced || (c->flags & CF_T_TLP) != 0) {
			tcps_arm_rexmt(c, tcps_tlp_delay_ns(c));
			c->flags |= CF_T_TLP;
		}
	} else if ((c->flags & CF_T_TLP) != 0 || c->rexmt_deadline_ns == TCPS_NEVER) {
		tcps_arm_rexmt(c, tcps_rto_ns(c));
	}
}

void tcps_acked_general(struct tcps_conn *c, const struct tcps_seg *s, bool plain_duplicate)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	uint32_t acked = s->ack - c->snd_una, pipe = tcps_pipe(c);
	uint32_t bytes = acked < c->snd_buf_bytes ? acked : c->snd_buf_bytes;
	struct tcps_delivered d = {.has_echo = (c->flags & CF_TS) != 0 && s->has_ts && s->ts_ecr != 0, .ts_ecr = s->ts_ecr};
	tcps_sent_settle(c);
	TCPS_COUNT_ADD(t, dup_acks_in, plain_duplicate);
	if (cold->sacked_bytes == 0)
		cold->rack.fack_seq = c->snd_una;
	if (acked != 0) {
		tcps_sent_acked(c, s->ack, &d);
		if (d.has_rtt)
			tcps_rtt_sample(c, d.rtt_us);
		else if (s->has_ts)
			measure_echo(c, s->ts_ecr);
		if (!drop_acked(c, bytes))
			return;
		advance_una(c, s->ack);
	}
	bool undone = false;
	if ((c->flags & CF_SACK) != 0) {
		if (acked != 0)
			c->dup_acks = 0;
		take_sacks(c, s, &d);
		undone = tcps_undo_acked(c, s->ack, acked != 0, &d);
		if (acked == 0 && d.sacked_bytes != 0 && c->dup_acks < DUP_ACKS_MAX)
			c->dup_acks++;
		if (c->flags & CF_TLP_OUT)
			tcps_tlp_acked(c, s->ack, plain_duplicate && !tcps_seg_may_sack(s), &d);
		if (c->flags & CF_T_REO)
			tcps_arm_rexmt(c, tcps_rto_ns(c));
		tcps_rack_detect(c);
	} else {
		undone = tcps_undo_acked(c, s->ack, acked != 0, &d);
		d.bytes = newreno(c, acked, plain_duplicate);
	}
	cold->rack.valid &= cold->sent_first_idx != TCPS_NIL;
	bool was_in_recovery = (c->flags & CF_RECOVERY) != 0;
	recovery_over(c);
	if (c->flags & CF_RECOVERY) {
		tcps_cc_prr(c, d.bytes);
		/* RFC 6582 3.2 (3): a partial ACK resends the next hole at once, whatever the reduction says. */
		uint32_t least = tcps_pipe(c) + c->mss;
		if ((c->flags & CF_SACK) == 0 && acked != 0 && c->cwnd_bytes < least)
			c->cwnd_bytes = least;
	} else if (acked != 0 && !was_in_recovery && !undone) {
		tcps_cc_acked(c, acked, pipe);
	}
	if ((c->flags & CF_SACK) == 0 && c->dup_acks == 0 && cold->lost_bytes == 0)
		c->flags &= ~CF_SCORE;
	rearm(c, acked != 0);
	if (acked != 0)
		acked_unusual(c, acked > bytes);
	if ((c->flags & CF_DEAD) == 0 && (tcps_left(c) > 0 || (c->flags & (CF_FIN_QUEUED | CF_LOST)) != 0))
		tcps_touch(c);
}

void tcps_window_changed(struct tcps_conn *c, uint32_t wnd)
{
	if (wnd == 0 && c->snd_wnd != 0)
		TCPS_COUNT(c->t, zero_window_in);
	c->snd_wnd = wnd;
	if (wnd > c->cold->snd_wnd_max)
		c->cold->snd_wnd_max = wnd;
	if (c->state >= TCPS_ESTABLISHED && (tcps_left(c) > 0 || tcps_fin_owed(c) || (c->flags & CF_LOST) != 0))
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
