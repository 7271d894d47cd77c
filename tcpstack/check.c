/*
 * check.c - the invariants of a stack, walked from end to end: what must hold between any two calls.
 *
 * Owns: nothing; it reads.
 * Core: the simulator and the tests; far too slow for a worker's path.
 * Spec: RFC 9293 3.3.1 (order of the send and receive variables); the rest is our own book-keeping.
 */
#include "tcpstack/internal.h"

static bool pending_send(const struct tcps_conn *c)
{
	return c->snd_max != c->snd_una || tcps_left(c) > 0 || tcps_fin_owed(c);
}

static const char *check_timers(const struct tcps_conn *c)
{
	uint64_t first = c->rexmt_deadline_ns;
	if (c->delack_deadline_ns < first)
		first = c->delack_deadline_ns;
	if (c->cold->keep_deadline_ns < first)
		first = c->cold->keep_deadline_ns;
	if (first != TCPS_NEVER && (!tcps_timer_armed(&c->timer) || c->timer.at_tick > tcps_wheel_tick_of(first))) {
		/* A deadline that passed already is armed for the next tick of the wheel. */
		if (!tcps_timer_armed(&c->timer) || c->timer.at_tick > c->t->wheel.cur_tick + 1)
			return "a deadline is set that no timer keeps";
	}
	if ((c->flags & CF_TOUCHED) != 0)
		return NULL;
	if (c->state >= TCPS_ESTABLISHED && c->head_idx != TCPS_NIL && c->snd_buf_bytes == 0 && !tcps_timer_armed(&c->timer))
		return "an empty queue keeps a block that no timer takes back";
	bool opening = c->state == TCPS_SYN_SENT || c->state == TCPS_SYN_RECEIVED;
	if ((opening || pending_send(c)) && c->rexmt_deadline_ns == TCPS_NEVER &&
	    !((c->flags & CF_WHOLE) != 0 && tcps_timer_armed(&c->timer)))
		return "data or a SYN or FIN is outstanding and no retransmission or persist timer is armed";
	if ((c->flags & (CF_ACK_NOW | CF_NO_NEIGH)) == CF_ACK_NOW)
		return "an ACK is owed and the connection is not on the touched list";
	uint32_t edge = c->rx_head_seq + tcps_window_budget(c);
	bool nearly_shut = !opening && c->rcv_adv - c->rcv_nxt < c->t->window_step && (c->flags & (CF_EOF | CF_NO_NEIGH)) == 0;
	if (nearly_shut && c->ack_segments == 0 && (int32_t)(edge - c->rcv_adv) >= (int32_t)c->t->window_step)
		return "the reader went on and no window update is on its way";
	if (c->ack_segments > 0 && c->delack_deadline_ns == TCPS_NEVER && (c->flags & CF_NO_NEIGH) == 0)
		return "segments are unacknowledged and no delayed-ACK timer is armed";
	return NULL;
}

/* What the connection keeps of the network layer. */
static const char *check_network(const struct tcps_conn *c)
{
	const struct tcps *t = c->t;
	const struct tcps_neigh *n = &t->neighs[c->neigh_idx];
	struct tcps_peer peer;
	tcps_conn_peer(c, &peer);
	if (n->state == NEIGH_FREE || n->v6 != peer.v6)
		return "a connection sends through a neighbour that does not exist";
	if ((c->flags & CF_NO_NEIGH) != 0 && n->state >= NEIGH_STALE)
		return "a connection waits for a neighbour whose address is known";
	if (t->own[c->own].state != OWN_READY)
		return "a connection is bound to an address that is not in use";
	if (c->mss > (peer.v6 ? t->mss_local6 : t->mss_local))
		return "segments are larger than the link takes";
	return NULL;
}

static const char *check_sequences(const struct tcps_conn *c)
{
	const struct tcps_cold *cold = c->cold;
	if (c->state < TCPS_ESTABLISHED)
		return NULL;
	uint32_t end = c->snd_una + c->snd_buf_bytes + tcps_fin_owed(c);
	if (seq_gt(c->snd_una, c->snd_nxt) || seq_gt(c->snd_nxt, c->snd_max) || seq_gt(c->snd_max, end))
		return "snd_una <= snd_nxt <= snd_max <= end of the stream does not hold";
	uint32_t held = tcps_recv_end(c) - c->rx_head_seq;
	if (held > c->t->cfg.recv_window_bytes)
		return "more bytes are held than the window's budget";
	if (seq_gt(c->rcv_nxt, c->rcv_adv) && (c->flags & CF_EOF) == 0)
		return "bytes were taken beyond the promised window";
	if (c->rcv_adv - c->rx_head_seq > tcps_window_budget(c) + 1)
		return "the window promised is larger than the budget";
	if (c->rx_head_seq != tcps_recv_end(c) && (c->flags & (CF_PAUSED | CF_IN_DATA)) == 0)
		return "bytes are held for a reader that has not stopped";
	uint32_t at = c->rcv_nxt;
	for (unsigned i = 0; i < cold->ooo_count; i++) {
		if (seq_le(cold->ooo[i].start_seq, at) || seq_ge(cold->ooo[i].start_seq, cold->ooo[i].end_seq) ||
		    seq_gt(cold->ooo[i].end_seq, c->rcv_adv))
			return "out-of-order ranges overlap, or lie outside the window";
		at = cold->ooo[i].end_seq;
	}
	if ((cold->ooo_count > 0) != ((c->flags & CF_OOO) != 0))
		return "CF_OOO does not tell whether there are out-of-order ranges";
	return NULL;
}

/* Adds the blocks and slices of the send queue to the counts. */
static const char *check_send_queue(const struct tcps_conn *c, uint32_t *blocks, uint32_t *slices, uint32_t *refs)
{
	const struct tcps *t = c->t;
	uint32_t blocks_before = *blocks, slices_before = *slices;
	uint32_t slices_seen = 0, bytes = 0, before_cur = 0, last_block = TCPS_NIL, in_block = 0, last = TCPS_NIL;
	bool seen_cur = c->cur_idx == TCPS_NIL;
	for (uint32_t i = c->head_idx; i != TCPS_NIL; i = t->slices[i].next_idx) {
		const struct tcps_slice *s = &t->slices[i];
		uint32_t len = i == c->tail_idx && c->tail_ptr != NULL ? (uint32_t)(c->tail_ptr - s->data) : s->len_bytes;
		if (i == c->cur_idx) {
			seen_cur = true;
			before_cur = bytes + c->cur_off + ((c->flags & CF_WHOLE) != 0 ? c->snd_nxt - c->snd_una : 0);
			if (c->cur_off > len)
				return "the send cursor stands behind the end of its slice";
		}
		if (++slices_seen > t->slices_max)
			return "the send queue goes round in a circle";
		*slices += i >= t->cfg.blocks_max;
		if (i < t->cfg.blocks_max && s->block_idx != i)
			return "the slice of a block describes something else";
		bytes += len;
		last = i;
		if (s->block_idx == TCPS_NIL) {
			++*refs;
			continue;
		}
		if (s->block_idx != last_block) {
			if (last_block != TCPS_NIL && t->blocks[last_block].slice_count != in_block)
				return "a block miscounts its slices";
			++*blocks;
			last_block = s->block_idx;
			in_block = 0;
		}
		in_block++;
	}
	if (last_block != TCPS_NIL && t->blocks[last_block].slice_count != in_block)
		return "a block miscounts its slices";
	if (last != c->tail_idx || bytes != c->snd_buf_bytes || !seen_cur)
		return "the slices do not add up to the bytes queued";
	if (*blocks - blocks_before != c->cold->snd_blocks || *slices - slices_before != c->cold->snd_refs)
		return "a connection miscounts the blocks of its send queue";
	if ((c->flags & (CF_OVER_HIGH | CF_FIN_QUEUED)) == CF_OVER_HIGH && c->snd_buf_bytes == 0)
		return "a connection waits for an ACK to be writable again, and none is due";
	uint32_t sent = c->snd_nxt - c->snd_una;
	if (c->state >= TCPS_ESTABLISHED && before_cur != (sent < c->snd_buf_bytes ? sent : c->snd_buf_bytes))
		return "the send cursor does not stand at snd_nxt";
	return NULL;
}

/* The scoreboard covers [snd_una, snd_nxt) without gap, and its sums are those of its parts. */
static const char *check_sent(const struct tcps_conn *c, uint32_t *sents)
{
	const struct tcps *t = c->t;
	const struct tcps_cold *cold = c->cold;
	uint32_t at = c->snd_una, sacked = 0, lost = 0, last = TCPS_NIL, n = 0;
	for (uint32_t i = cold->sent_first_idx; i != TCPS_NIL; i = t->sents[i].next_idx) {
		const struct tcps_sent *r = &t->sents[i];
		if (r->seq != at || seq_le(r->end_seq, r->seq))
			return "the scoreboard has a gap or an empty record";
		if (i < t->cfg.conns_max && (i != c->own_idx || n != 0))
			return "a record of the scoreboard belongs to another connection, or is out of its place";
		if ((r->flags & (SENT_SACKED | SENT_LOST)) == (SENT_SACKED | SENT_LOST))
			return "a range is both delivered and lost";
		sacked += (r->flags & SENT_SACKED) != 0 ? r->end_seq - r->seq : 0;
		lost += (r->flags & SENT_LOST) != 0 ? r->end_seq - r->seq : 0;
		at = r->end_seq;
		last = i;
		*sents += i >= t->cfg.conns_max;
		if (++n > t->sents_max)
			return "the scoreboard goes round in a circle";
	}
	if (last != cold->sent_last_idx)
		return "the last record of the scoreboard is not the last";
	if (c->flags & CF_WHOLE) {
		if (n != 0 || c->snd_nxt != c->snd_max || c->snd_nxt == c->snd_una || c->head_idx != c->cur_idx)
			return "CF_WHOLE does not tell the truth of what is outstanding";
		at = c->snd_nxt;
	}
	if (c->state >= TCPS_ESTABLISHED && at != c->snd_nxt)
		return "the scoreboard does not end at snd_nxt";
	if (sacked != cold->sacked_bytes || lost != cold->lost_bytes)
		return "the scoreboard miscounts what is delivered or lost";
	if ((lost != 0) != ((c->flags & CF_LOST) != 0))
		return "CF_LOST does not tell whether something is lost";
	if ((sacked != 0 || lost != 0) && (c->flags & CF_SCORE) == 0)
		return "CF_SCORE does not tell that the pipe is less than the flight";
	if (cold->undo.frto != FRTO_OFF && (!cold->undo.live || (c->flags & CF_RTO) == 0))
		return "what a time-out marked as lost is held back, and no ACK can set it free";
	return NULL;
}

static const char *check_recv_blocks(const struct tcps_conn *c, uint32_t *blocks)
{
	const struct tcps *t = c->t;
	uint32_t last = TCPS_NIL, n = 0;
	for (uint32_t i = c->cold->rx_first_idx; i != TCPS_NIL; i = t->blocks[i].next_idx) {
		if (last != TCPS_NIL && seq_lt(t->blocks[i].base_seq, t->blocks[last].base_seq + TCPS_BLOCK_ROOM))
			return "receive blocks overlap";
		if ((t->blocks[i].base_seq - c->cold->rx_origin_seq) % TCPS_BLOCK_ROOM != 0)
			return "a receive block is off the grid";
		last = i;
		n++;
	}
	if (last != c->cold->rx_last_idx)
		return "the last receive block is not the last";
	if (n > t->cfg.recv_window_bytes / TCPS_BLOCK_ROOM + 2 && n > 0xffff / TCPS_BLOCK_ROOM + 2)
		return "a connection holds more receive blocks than its window is worth";
	if (n > 0 && c->rx_head_seq == tcps_recv_end(c) && c->cold->ooo_count == 0)
		return "receive blocks are kept and nothing is held";
	if (n != c->cold->rx_blocks)
		return "a connection miscounts its receive blocks";
	if ((c->flags & CF_SHUT) != 0 && (c->flags & (CF_PAUSED | CF_IN_DATA)) == 0)
		return "the window is shut and the reader has not stopped";
	*blocks += n;
	return NULL;
}

static const char *check_conn(const struct tcps_conn *c, uint32_t *blocks, uint32_t *slices, uint32_t *refs, uint32_t *sents)
{
	const char *why = check_timers(c);
	if (why == NULL)
		why = check_network(c);
	if (why == NULL)
		why = check_sequences(c);
	if (why == NULL)
		why = check_send_queue(c, blocks, slices, refs);
	if (why == NULL)
		why = check_sent(c, sents);
	if (why == NULL)
		why = check_recv_blocks(c, blocks);
	return why;
}

static const char *check_touched(const struct tcps *t)
{
	uint32_t live = 0, flagged = 0;
	for (uint32_t i = 0; i < t->touched_count; i++) {
		uint32_t idx = t->touched[i];
		if (idx == TCPS_NIL)
			continue;
		if ((t->conns[idx].flags & CF_TOUCHED) == 0 || t->conns[idx].touched_at != i)
			return "the touched list is broken";
		live++;
	}
	for (uint32_t i = 0; i < t->cfg.conns_max; i++)
		flagged += (t->conns[i].flags & CF_TOUCHED) != 0;
	return live == flagged ? NULL : "the touched list miscounts";
}

static const char *check_minis(const struct tcps_mini_pool *p)
{
	uint32_t n = 0, last = TCPS_NIL;
	for (uint32_t i = p->oldest_idx; i != TCPS_NIL; i = p->recs[i].newer_idx) {
		if (!p->recs[i].in_use || p->recs[i].older_idx != last || ++n > p->count)
			return "the age order of small records is broken";
		if (!tcps_timer_armed(&p->recs[i].timer))
			return "a half-open or TIME_WAIT record has no timer";
		last = i;
	}
	return n == p->count && last == p->newest_idx ? NULL : "a pool of small records miscounts";
}

static const char *check_neighbours(const struct tcps *t)
{
	uint32_t pins = 0;
	for (uint32_t i = 0; i < t->cfg.neighbours_max; i++) {
		const struct tcps_neigh *n = &t->neighs[i];
		if (n->state == NEIGH_FREE)
			continue;
		if (n->waiter_count > n->ref_count)
			return "more connections wait for a neighbour than use it";
		if (n->waiter_count > 0 && !tcps_timer_armed(&n->timer))
			return "a neighbour is waited for and nobody asks";
		pins += n->ref_count;
	}
	/* A dead block that someone is still busy with has let go of its neighbour already. */
	return pins <= t->conn_count ? NULL : "neighbours are pinned by connections that do not exist";
}

const char *tcps_check(const struct tcps *t)
{
	uint32_t conns = 0, blocks = 0, slices = 0, refs = 0, sents = 0;
	for (uint32_t b = 0; b <= t->bucket_mask; b++) {
		for (uint32_t i = t->buckets[b]; i != TCPS_NIL; i = t->colds[i].hash_next_idx) {
			const char *why = check_conn(&t->conns[i], &blocks, &slices, &refs, &sents);
			if (why != NULL)
				return why;
			if (++conns > t->cfg.conns_max)
				return "the connection table goes round in a circle";
		}
	}
	if (conns > t->conn_count)
		return "the connection table holds more than was made";
	if (blocks + t->block_free_count != t->cfg.blocks_max)
		return "blocks have leaked or are used twice";
	if (slices + t->slice_free_count != t->slices_max - t->cfg.blocks_max || refs != t->ref_count)
		return "slices have leaked or are used twice";
	if (sents + t->sent_free_count != t->sents_max - t->cfg.conns_max)
		return "records of the scoreboard have leaked or are used twice";
	const char *why = check_touched(t);
	if (why == NULL)
		why = check_minis(&t->half_open);
	if (why == NULL)
		why = check_minis(&t->time_wait);
	return why != NULL ? why : check_neighbours(t);
}
