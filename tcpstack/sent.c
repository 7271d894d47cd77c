/*
 * sent.c - the scoreboard: what is outstanding, when each part of it went out, what of it has arrived and what is lost.
 *
 * Owns: the list of struct tcps_sent of a connection, sacked_bytes, lost_bytes, and the pool of records.
 * Core: the worker that owns the stack.
 * Spec: RFC 2018 8, RFC 6675 4, RFC 8985 5.2.
 *
 * A connection has one record of its own, taken when the list is empty and so always the first, so that something can always be
 * noted. Where the pool is dry, ranges are joined under the later of their times: loss is then found later, never wrongly.
 */
#include "tcpstack/internal.h"

#include <assert.h>

static uint32_t sent_alloc(struct tcps *t)
{
	uint32_t idx = t->sent_free_idx;
	if (idx == TCPS_NIL) {
		TCPS_COUNT(t, no_sents);
		return TCPS_NIL;
	}
	t->sent_free_idx = t->sents[idx].next_idx;
	t->sent_free_count--;
	return idx;
}

static void sent_free(struct tcps *t, uint32_t idx)
{
	if (idx < t->cfg.conns_max)
		return; /* a connection's own */
	t->sents[idx].next_idx = t->sent_free_idx;
	t->sent_free_idx = idx;
	t->sent_free_count++;
}

static inline uint32_t len_of(const struct tcps_sent *r)
{
	return r->end_seq - r->seq;
}

static void score_changed(struct tcps_conn *c)
{
	const struct tcps_cold *cold = c->cold;
	bool any = cold->sacked_bytes != 0 || cold->lost_bytes != 0 || ((c->flags & CF_SACK) == 0 && c->dup_acks != 0);
	c->flags = any ? c->flags | CF_SCORE : c->flags & ~CF_SCORE;
	if (cold->lost_bytes == 0)
		c->flags &= ~CF_LOST;
}

void tcps_sent_push_slow(struct tcps_conn *c, uint32_t seq, uint32_t end_seq, uint32_t flags)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	struct tcps_sent *last = &t->sents[cold->sent_last_idx];
	uint32_t idx = (last->flags & (SENT_SACKED | SENT_LOST)) == 0 || t->sent_free_idx != TCPS_NIL ? sent_alloc(t) : TCPS_NIL;
	if (idx == TCPS_NIL) {
		/* What the last one knows of arrival and loss would be wrong for the new bytes. */
		if (last->flags & SENT_SACKED)
			cold->sacked_bytes -= len_of(last);
		if (last->flags & SENT_LOST)
			cold->lost_bytes -= len_of(last);
		last->end_seq = end_seq;
		last->time_us = tcps_now_us(t);
		last->flags = SENT_AGAIN;
		score_changed(c);
		return;
	}
	t->sents[idx] =
		(struct tcps_sent){.next_idx = TCPS_NIL, .seq = seq, .end_seq = end_seq, .time_us = tcps_now_us(t), .flags = flags};
	last->next_idx = idx;
	cold->sent_last_idx = idx;
}

bool tcps_sent_cut(struct tcps_conn *c, struct tcps_sent *r, uint32_t len)
{
	struct tcps *t = c->t;
	if (len >= len_of(r))
		return true;
	uint32_t idx = sent_alloc(t);
	if (idx == TCPS_NIL)
		return false;
	t->sents[idx] = *r;
	t->sents[idx].seq += len;
	r->end_seq = r->seq + len;
	r->next_idx = idx;
	if (c->cold->sent_last_idx == (uint32_t)(r - t->sents))
		c->cold->sent_last_idx = idx;
	return true;
}

/* Takes the first record off the list. */
static void pop(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	uint32_t idx = cold->sent_first_idx;
	cold->sent_first_idx = c->t->sents[idx].next_idx;
	if (cold->sent_first_idx == TCPS_NIL)
		cold->sent_last_idx = TCPS_NIL;
	sent_free(c->t, idx);
}

/* `r` or its first part, up to `end_seq`, has arrived: told by the cumulative ACK or by SACK. */
static void delivered(struct tcps_conn *c, const struct tcps_sent *r, uint32_t end_seq, struct tcps_delivered *d)
{
	uint32_t n = end_seq - r->seq;
	d->bytes += n;
	if (r->flags & SENT_LOST)
		c->cold->lost_bytes -= n;
	d->again |= (r->flags & (SENT_AGAIN | SENT_LOST)) != 0;
	d->found |= (r->flags & (SENT_AGAIN | SENT_LOST)) == SENT_LOST;
	if ((r->flags & SENT_AGAIN) == 0 && !d->has_rtt) {
		d->has_rtt = true;
		d->rtt_us = tcps_now_us(c->t) - r->time_us;
	}
	tcps_rack_delivered(c, r, end_seq, d);
}

void tcps_sent_acked(struct tcps_conn *c, uint32_t ack, struct tcps_delivered *d)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	while (cold->sent_first_idx != TCPS_NIL) {
		struct tcps_sent *r = &t->sents[cold->sent_first_idx];
		if (!seq_lt(r->seq, ack))
			break;
		uint32_t end = seq_lt(ack, r->end_seq) ? ack : r->end_seq;
		if (r->flags & SENT_SACKED)
			cold->sacked_bytes -= end - r->seq; /* it was delivered before */
		else
			delivered(c, r, end, d);
		if (end != r->end_seq) {
			r->seq = end;
			break;
		}
		pop(c);
	}
	/* What had arrived behind a hole waited for the hole: its time is not that of a round trip. */
	d->has_rtt &= !d->again;
	score_changed(c);
}

void tcps_sent_all_acked(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	for (uint32_t idx = cold->sent_first_idx, next; idx != TCPS_NIL; idx = next) {
		next = t->sents[idx].next_idx;
		sent_free(t, idx);
	}
	cold->sent_first_idx = cold->sent_last_idx = TCPS_NIL;
}

void tcps_sent_sacked(struct tcps_conn *c, const struct tcps_range *block, struct tcps_delivered *d)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	for (uint32_t idx = cold->sent_first_idx; idx != TCPS_NIL; idx = t->sents[idx].next_idx) {
		struct tcps_sent *r = &t->sents[idx];
		if (seq_ge(r->seq, block->end_seq))
			break;
		if (seq_le(r->end_seq, block->start_seq) || (r->flags & SENT_SACKED) != 0)
			continue;
		if (seq_lt(r->seq, block->start_seq)) {
			if (!tcps_sent_cut(c, r, block->start_seq - r->seq))
				break;
			continue; /* with the rest */
		}
		if (seq_gt(r->end_seq, block->end_seq) && !tcps_sent_cut(c, r, block->end_seq - r->seq))
			break;
		uint32_t before = d->bytes;
		delivered(c, r, r->end_seq, d);
		d->sacked_bytes += d->bytes - before;
		r->flags = (r->flags & ~(SENT_LOST | SENT_RTO)) | SENT_SACKED;
		cold->sacked_bytes += len_of(r);
	}
	score_changed(c);
}

void tcps_sent_drop(struct tcps_conn *c)
{
	while (c->cold->sent_first_idx != TCPS_NIL)
		pop(c);
	c->cold->sacked_bytes = c->cold->lost_bytes = 0;
	c->flags &= ~(CF_SCORE | CF_LOST | CF_WHOLE);
	c->dup_acks = 0;
}

void tcps_sent_mark_lost(struct tcps_conn *c, struct tcps_sent *r, uint32_t why)
{
	assert((r->flags & (SENT_SACKED | SENT_LOST)) == 0);
	r->flags |= SENT_LOST | why;
	c->cold->lost_bytes += len_of(r);
	c->flags |= CF_LOST | CF_SCORE;
	tcps_touch(c);
}

void tcps_sent_head_lost(struct tcps_conn *c, uint32_t bytes)
{
	if (c->cold->sent_first_idx == TCPS_NIL)
		return;
	struct tcps_sent *r = &c->t->sents[c->cold->sent_first_idx];
	if (r->flags & (SENT_LOST | SENT_SACKED))
		return;
	tcps_sent_cut(c, r, bytes); /* where there is no record for the rest, more than needed is sent again */
	tcps_sent_mark_lost(c, r, 0);
}

void tcps_sent_all_lost(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	/* The first byte was SACKed and then not acknowledged: the peer has thrown away what it told of. */
	bool reneged = cold->sent_first_idx != TCPS_NIL && (t->sents[cold->sent_first_idx].flags & SENT_SACKED) != 0;
	TCPS_COUNT_ADD(t, sack_reneged, reneged);
	for (uint32_t idx = cold->sent_first_idx; idx != TCPS_NIL; idx = t->sents[idx].next_idx) {
		struct tcps_sent *r = &t->sents[idx];
		if (reneged && (r->flags & SENT_SACKED) != 0) {
			r->flags &= ~SENT_SACKED;
			cold->sacked_bytes -= len_of(r);
		}
		if ((r->flags & (SENT_SACKED | SENT_LOST)) == 0)
			tcps_sent_mark_lost(c, r, SENT_RTO);
	}
	score_changed(c);
}

void tcps_sent_none_lost(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	for (uint32_t idx = c->cold->sent_first_idx; idx != TCPS_NIL; idx = t->sents[idx].next_idx)
		t->sents[idx].flags &= ~(SENT_LOST | SENT_RTO);
	c->cold->lost_bytes = 0;
	score_changed(c);
}

struct tcps_sent *tcps_sent_first_lost(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	for (uint32_t idx = c->cold->sent_first_idx; idx != TCPS_NIL; idx = t->sents[idx].next_idx) {
		if (t->sents[idx].flags & SENT_LOST)
			return &t->sents[idx];
	}
	return NULL;
}

void tcps_sent_gather(struct tcps_conn *c, struct tcps_sent *r, uint32_t most)
{
	struct tcps *t = c->t;
	while (len_of(r) < most && r->next_idx != TCPS_NIL && (t->sents[r->next_idx].flags & SENT_LOST) != 0) {
		uint32_t gone = r->next_idx;
		r->end_seq = t->sents[gone].end_seq;
		r->flags |= t->sents[gone].flags & (SENT_RTO | SENT_AGAIN);
		if ((int32_t)(t->sents[gone].time_us - r->time_us) > 0)
			r->time_us = t->sents[gone].time_us;
		r->next_idx = t->sents[gone].next_idx;
		if (c->cold->sent_last_idx == gone)
			c->cold->sent_last_idx = (uint32_t)(r - t->sents);
		sent_free(t, gone);
	}
}

void tcps_sent_again(struct tcps_conn *c, struct tcps_sent *r)
{
	struct tcps *t = c->t;
	if (r->flags & SENT_LOST)
		c->cold->lost_bytes -= len_of(r);
	r->flags = SENT_AGAIN;
	r->time_us = tcps_now_us(t);
	score_changed(c);
	/* A run that is sent again in one flush becomes one record again. */
	for (uint32_t idx = c->cold->sent_first_idx; idx != TCPS_NIL && &t->sents[idx] != r; idx = t->sents[idx].next_idx) {
		struct tcps_sent *before = &t->sents[idx];
		uint32_t gone = before->next_idx;
		if (gone == TCPS_NIL || &t->sents[gone] != r || before->flags != SENT_AGAIN || before->time_us != r->time_us)
			continue;
		before->end_seq = r->end_seq;
		before->next_idx = r->next_idx;
		if (c->cold->sent_last_idx == gone)
			c->cold->sent_last_idx = idx;
		sent_free(t, gone);
		break;
	}
}
