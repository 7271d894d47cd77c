/*
 * undo.c - a recovery or a time-out that turns out needless is taken back: how that is found out, and what is restored.
 *
 * Owns: cold->undo of a connection.
 * Core: the worker that owns the stack.
 * Spec: RFC 3522 3.2 (the echo of a timestamp), RFC 3708 2 (D-SACK), RFC 5682 3.1 (F-RTO with SACK), RFC 4015 3.2 (the response),
 *       RFC 9438 4.9 (CUBIC's part of it).
 *
 * An episode begins with a fast recovery or a time-out; one saved state belongs to it, and is restored at most once. Whatever a
 * peer claims, the window is never larger than it was.
 */
#include "tcpstack/internal.h"

void tcps_undo_begin(struct tcps_conn *c, bool rto)
{
	struct tcps_cold *cold = c->cold;
	struct tcps_undo *u = &cold->undo;
	bool within = (c->flags & (CF_RECOVERY | CF_RTO)) != 0;
	/* A time-out within a recovery of which nobody knows yet whether it was needed: one episode. */
	if (!within || !u->live || u->judged)
		*u = (struct tcps_undo){.una_seq = c->snd_una,
					.cwnd_bytes = c->cwnd_bytes,
					.ssthresh_bytes = cold->ssthresh_bytes,
					.cubic = cold->cubic,
					.live = true};
	u->rto |= rto;
	u->frto = rto && !within && (c->flags & (CF_SACK | CF_TS)) == CF_SACK ? FRTO_FIRST : FRTO_OFF;
}

void tcps_undo_forget(struct tcps_conn *c)
{
	c->cold->undo.live = false;
	c->cold->undo.frto = FRTO_OFF;
}

static uint32_t mix(uint32_t seq)
{
	seq = (seq ^ seq >> 16) * 0x7feb352du;
	return (seq ^ seq >> 15) * 0x846ca68bu;
}

/*
 * What was sent again and not yet told of as a duplicate, as a sum: however a peer joins or splits ranges, it comes to nothing when
 * each byte was told of once, and when a duplicate is another's, the network's own, it never does.
 */
static void add_again(struct tcps_undo *u, uint32_t start_seq, uint32_t end_seq)
{
	u->again_bytes += end_seq - start_seq;
	u->again_sum += mix(end_seq) - mix(start_seq);
}

void tcps_undo_sent(struct tcps_conn *c, const struct tcps_sent *r)
{
	struct tcps_undo *u = &c->cold->undo;
	if (!u->live || (c->flags & (CF_RECOVERY | CF_RTO)) == 0)
		return;
	if (!u->resent) {
		u->resent = true;
		u->again_us = tcps_now_us(c->t);
		u->first_end_seq = r->end_seq;
		u->first_us = r->time_us;
		u->first_was_again = (r->flags & SENT_AGAIN) != 0;
	}
	add_again(u, r->seq, r->end_seq);
}

void tcps_undo_dsack(struct tcps_conn *c, const struct tcps_range *b)
{
	struct tcps_undo *u = &c->cold->undo;
	/* What lies before the episode is a duplicate of an earlier one. */
	if (u->live && seq_ge(b->start_seq, u->una_seq) && seq_gt(b->end_seq, b->start_seq) && seq_le(b->end_seq, c->snd_max))
		add_again(u, b->end_seq, b->start_seq);
}

/*
 * RFC 3522 3.2: the ACK that covers the first retransmission answers the original, for it echoes a time before it. Timestamps tick
 * once a millisecond or so, and an equal one proves nothing; one from before the original was sent is none that this peer can have.
 */
static bool echo_tells(struct tcps_conn *c, uint32_t ack, const struct tcps_delivered *d)
{
	struct tcps_undo *u = &c->cold->undo;
	if (!u->resent || u->judged || seq_lt(ack, u->first_end_seq))
		return false;
	u->judged = true;
	uint32_t again_ts = tcps_ts_at(c, u->again_us);
	uint32_t lowest = u->first_was_again ? again_ts - TCPS_RTT_MAX_US / 1000 : tcps_ts_at(c, u->first_us);
	return d->has_echo && seq_lt(d->ts_ecr, again_ts) && seq_ge(d->ts_ecr, lowest);
}

/*
 * RFC 5682 3.1: after a time-out something arrives that was not sent again. An ACK of all there was may be that of the
 * retransmission, the SACKs of what lay behind it lost; and one of the retransmission alone asks for new data (2b).
 */
static bool frto_tells(struct tcps_conn *c, uint32_t ack, bool advanced, const struct tcps_delivered *d)
{
	struct tcps_undo *u = &c->cold->undo;
	if (u->frto == FRTO_OFF || d->bytes == 0)
		return false;
	bool first = u->frto == FRTO_FIRST, all = seq_ge(ack, c->cold->recover_seq);
	u->frto = first && advanced && !all ? FRTO_ASK : FRTO_OFF;
	return d->found && !all && (advanced || !first);
}

/* RFC 4015 3.2, the last step: the round trip that the time-out did not wait for. It is longer than the RTO was, so it counts as a
 * first one does; those after it bring it down again. */
static void believe_round_trip(struct tcps_conn *c)
{
	uint32_t rtt_us = tcps_now_us(c->t) - c->cold->undo.first_us;
	if (rtt_us <= tcps_srtt_us(c))
		return;
	c->cold->srtt_us_x8 = 0;
	tcps_rtt_sample(c, rtt_us);
	if (c->snd_una != c->snd_max && (c->flags & CF_PERSIST) == 0)
		tcps_arm_rexmt(c, tcps_rto_ns(c));
}

/* RFC 4015 3.2, RFC 9438 4.9. */
static void take_back(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	struct tcps_undo *u = &cold->undo;
	TCPS_COUNT_ADD(c->t, undone_recoveries, !u->rto);
	TCPS_COUNT_ADD(c->t, undone_timeouts, u->rto);
	if (c->cwnd_bytes < u->cwnd_bytes) {
		c->cwnd_bytes = u->cwnd_bytes;
		cold->cubic = u->cubic;
	}
	if (cold->ssthresh_bytes < u->ssthresh_bytes)
		cold->ssthresh_bytes = u->ssthresh_bytes;
	if (c->flags & (CF_RECOVERY | CF_RTO)) {
		c->flags &= ~(CF_RECOVERY | CF_RTO);
		c->dup_acks = 0;
		tcps_sent_none_lost(c);
	}
	tcps_undo_forget(c);
	tcps_touch(c);
}

bool tcps_undo_acked(struct tcps_conn *c, uint32_t ack, bool advanced, const struct tcps_delivered *d)
{
	struct tcps_cold *cold = c->cold;
	struct tcps_undo *u = &cold->undo;
	if (!u->live)
		return false;
	bool running = (c->flags & (CF_RECOVERY | CF_RTO)) != 0;
	bool echo = running && echo_tells(c, ack, d), frto = running && frto_tells(c, ack, advanced, d);
	bool none = running && !u->resent && cold->lost_bytes == 0; /* all that was taken for lost came before it was sent again */
	bool dsack = d->dsack && u->resent && u->again_bytes == 0 && u->again_sum == 0;
	if (!echo && !frto && !none && !dsack)
		return false;
	TCPS_COUNT_ADD(c->t, undone_by_frto, frto);
	TCPS_COUNT_ADD(c->t, undone_by_dsack, dsack && !echo && !frto);
	if (!u->rto)
		tcps_rack_late(c, echo ? tcps_now_us(c->t) - u->again_us : 0);
	else if (echo || frto)
		believe_round_trip(c);
	if (frto)
		cold->rack.valid = false; /* what seems to be the last sent of what arrived may be the original of it */
	take_back(c);
	return true;
}
