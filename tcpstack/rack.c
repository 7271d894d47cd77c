/*
 * rack.c - loss told by time: RACK, and the probe that asks when the tail of a flight is silent.
 *
 * Owns: cold->rack, the reordering and the tail-loss deadline of a connection.
 * Core: the worker that owns the stack.
 * Spec: RFC 8985 6 and 7.
 *
 * Times are those of flushes, in microseconds; a record of the scoreboard stands for all segments of one flush.
 */
#include "tcpstack/internal.h"

#define DUP_THRESH         3u
#define REO_PERSIST        16u
#define TLP_DELAY_MIN_US   2000u
#define TLP_DELAY_FIRST_US 1000000u

static bool sent_after(uint32_t time_a_us, uint32_t end_a_seq, uint32_t time_b_us, uint32_t end_b_seq)
{
	int32_t apart = (int32_t)(time_a_us - time_b_us);
	return apart > 0 || (apart == 0 && seq_gt(end_a_seq, end_b_seq));
}

/* RFC 8985 6.2, steps 2 and 3: the last sent of what has arrived, and whether something overtook it. */
void tcps_rack_delivered(struct tcps_conn *c, const struct tcps_sent *r, uint32_t end_seq, const struct tcps_delivered *d)
{
	struct tcps_rack *k = &c->cold->rack;
	uint32_t rtt_us = tcps_now_us(c->t) - r->time_us;
	if (seq_gt(end_seq, k->fack_seq))
		k->fack_seq = end_seq;
	else if (seq_lt(end_seq, k->fack_seq) && (r->flags & SENT_AGAIN) == 0)
		k->reordered = true;
	/* The ACK of the first transmission, come after the second: it says nothing of when that one went. */
	bool original = rtt_us < k->min_rtt_us || (d->has_echo && !d->by_sack && seq_lt(d->ts_ecr, tcps_ts_at(c, r->time_us)));
	if ((r->flags & SENT_AGAIN) != 0 && original)
		return;
	k->rtt_us = rtt_us;
	if (!k->valid || sent_after(r->time_us, end_seq, k->time_us, k->end_seq)) {
		k->time_us = r->time_us;
		k->end_seq = end_seq;
		k->valid = true;
	}
}

/* Step 4. */
static uint32_t reo_wnd_us(const struct tcps_conn *c)
{
	const struct tcps_cold *cold = c->cold;
	const struct tcps_rack *k = &cold->rack;
	bool enough = c->dup_acks >= DUP_THRESH || cold->sacked_bytes > (DUP_THRESH - 1) * c->mss;
	if (!k->reordered && ((c->flags & (CF_RECOVERY | CF_RTO)) != 0 || enough))
		return 0;
	uint32_t wnd = k->min_rtt_us / 4 * (k->reo_mult + 1u);
	uint32_t srtt_us = tcps_srtt_us(c);
	return wnd < srtt_us ? wnd : srtt_us;
}

/* Step 5. */
void tcps_rack_detect(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	const struct tcps_rack *k = &c->cold->rack;
	if (!k->valid)
		return;
	uint32_t now_us = tcps_now_us(t), wnd_us = reo_wnd_us(c), lost_before = c->cold->lost_bytes;
	int32_t wait_us = 0;
	for (uint32_t idx = c->cold->sent_first_idx; idx != TCPS_NIL; idx = t->sents[idx].next_idx) {
		struct tcps_sent *r = &t->sents[idx];
		if ((r->flags & (SENT_SACKED | SENT_LOST)) != 0 || !sent_after(k->time_us, k->end_seq, r->time_us, r->end_seq))
			continue;
		int32_t left_us = (int32_t)(r->time_us + k->rtt_us + wnd_us - now_us);
		if (left_us <= 0)
			tcps_sent_mark_lost(c, r, 0);
		else if (left_us > wait_us)
			wait_us = left_us;
	}
	if (c->cold->lost_bytes != lost_before && (c->flags & (CF_RECOVERY | CF_RTO)) == 0)
		tcps_cc_recovery(c);
	if (wait_us > 0) {
		tcps_arm_rexmt(c, (uint64_t)(uint32_t)wait_us * 1000);
		c->flags |= CF_T_REO;
	}
}

/* RFC 8985 6.2 step 4: a retransmission was not needed, so wait longer, once a round trip. */
void tcps_rack_dsack(struct tcps_conn *c)
{
	struct tcps_rack *k = &c->cold->rack;
	TCPS_COUNT(c->t, dsacks_in);
	if (k->dsack_in_round && seq_lt(c->snd_una, k->dsack_round_seq))
		return;
	k->dsack_in_round = true;
	k->dsack_round_seq = c->snd_nxt;
	k->reo_persist = REO_PERSIST;
	if (k->reo_mult < UINT8_MAX)
		k->reo_mult++;
}

/*
 * Nothing had been lost, so it had been overtaken, though step 3 does not see that where it was sent again. Spec says the window
 * grows by a step of min_RTT / 4 a round trip / it grows by as much as was missing: where some packets skip a queue, the
 * shortest round trip is so short that a hundred steps are needed.
 */
void tcps_rack_late(struct tcps_conn *c, uint32_t late_us)
{
	struct tcps_rack *k = &c->cold->rack;
	uint32_t step_us = k->min_rtt_us / 4, mult = k->reo_mult + (step_us != 0 ? (late_us + step_us - 1) / step_us : UINT8_MAX);
	k->reordered = true;
	k->reo_mult = (uint8_t)(mult < UINT8_MAX ? mult : UINT8_MAX);
	k->reo_persist = REO_PERSIST;
}

void tcps_rack_recovered(struct tcps_conn *c)
{
	struct tcps_rack *k = &c->cold->rack;
	if (k->reo_persist > 0 && --k->reo_persist == 0)
		k->reo_mult = 0;
}

/* ---- tail loss probe ---- */

/* RFC 8985 7.2. One segment alone is left to the RTO: the peer may sit on its ACK for as long. */
bool tcps_tlp_wanted(const struct tcps_conn *c)
{
	const struct tcps_cold *cold = c->cold;
	if ((c->flags & (CF_SACK | CF_RECOVERY | CF_RTO | CF_LOST | CF_TLP_OUT | CF_PERSIST)) != CF_SACK || cold->srtt_us_x8 == 0 ||
	    cold->sacked_bytes != 0)
		return false;
	return cold->sent_first_idx != cold->sent_last_idx || c->snd_nxt - c->snd_una > c->mss;
}

uint64_t tcps_tlp_delay_ns(const struct tcps_conn *c)
{
	uint32_t us = 2 * tcps_srtt_us(c);
	us = us < TLP_DELAY_MIN_US ? TLP_DELAY_MIN_US : us;
	return (uint64_t)(us < tcps_rto_us(c) ? us : tcps_rto_us(c)) * 1000;
}

static struct tcps_sent *last_segment(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	uint32_t last = c->cold->sent_last_idx;
	if (last == TCPS_NIL || (t->sents[last].flags & SENT_SACKED) != 0)
		return NULL;
	struct tcps_sent *r = &t->sents[last];
	uint32_t len = r->end_seq - r->seq;
	if (len > c->mss && tcps_sent_cut(c, r, len - c->mss))
		r = &t->sents[c->cold->sent_last_idx];
	return r;
}

/* RFC 8985 7.3: new data if there is some, else the last segment again; either way the peer's answer tells what is missing. */
void tcps_tlp_due(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	tcps_send_sync(c);
	int32_t left = tcps_left(c);
	uint32_t out = c->snd_nxt - c->snd_una, room = c->snd_wnd > out ? c->snd_wnd - out : 0;
	uint32_t len = left > 0 ? (uint32_t)left : 0;
	len = len < c->mss ? len : c->mss;
	enum tcps_emit sent = EMIT_NO_FRAME;
	tcps_arm_rexmt(c, tcps_rto_ns(c));
	if (len > 0 && len <= room && c->snd_nxt == c->snd_max) {
		cold->tlp_again = false;
		sent = tcps_send_new(c, len);
	} else {
		struct tcps_sent *r = last_segment(c);
		cold->tlp_again = true;
		if (r != NULL)
			sent = tcps_send_again(c, r);
	}
	if (sent != EMIT_SENT)
		return;
	TCPS_COUNT(c->t, retransmits_tlp);
	cold->tlp_end_seq = c->snd_nxt;
	c->flags |= CF_TLP_OUT;
}

/* RFC 8985 7.4.2. */
void tcps_tlp_acked(struct tcps_conn *c, uint32_t ack, bool plain_duplicate, const struct tcps_delivered *d)
{
	struct tcps_cold *cold = c->cold;
	if (!seq_ge(ack, cold->tlp_end_seq))
		return;
	if (!cold->tlp_again || d->dsack) {
		c->flags &= ~CF_TLP_OUT;
	} else if (seq_gt(ack, cold->tlp_end_seq)) {
		c->flags &= ~CF_TLP_OUT;
		/* The probe repaired a loss that nothing else told of. */
		TCPS_COUNT(c->t, tlp_repairs);
		if ((c->flags & (CF_RECOVERY | CF_RTO)) == 0) {
			tcps_undo_forget(c);
			tcps_cc_lost(c);
			c->cwnd_bytes = cold->ssthresh_bytes;
		}
	} else if (plain_duplicate) {
		c->flags &= ~CF_TLP_OUT;
	}
}
