/*
 * recv.c - the receive stream: lending in-order bytes, holding what was not consumed, queueing what is out of order.
 *
 * Owns: rcv_nxt, rx_head_seq, ooo ranges and the receive blocks of a connection.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.10.7.4 (seventh step), 3.8.6.
 *
 * Blocks are addressed by position in the stream: byte `seq` always lies in the block that covers it, however it arrived.
 * So a window's worth of one-byte segments costs no more blocks than a window's worth of full ones, an overlap is
 * written to where it is anyway, and out-of-order bytes become held bytes without a copy when the hole before them fills.
 */
#include "tcpstack/internal.h"

#include <assert.h>

uint32_t tcps_recv_end(const struct tcps_conn *c)
{
	return c->rcv_nxt - ((c->flags & CF_EOF) != 0);
}

/* The connection's share of the blocks is not used up. Out-of-order bytes come again: they get none of what is assured. */
static bool may_grow(const struct tcps_conn *c, bool out_of_order)
{
	const struct tcps *t = c->t;
	uint32_t held = c->cold->rx_blocks;
	if (out_of_order && t->block_free_count <= t->blocks_reserved)
		return false;
	return held < c->cold->rx_blocks_max && held < tcps_block_share(t);
}

/* The block that covers `seq`, made if absent; NULL: the connection may have no more. */
static struct tcps_block *block_at(struct tcps_conn *c, uint32_t seq, bool out_of_order)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	if (cold->rx_first_idx == TCPS_NIL)
		cold->rx_origin_seq = c->rx_head_seq;
	uint32_t base = cold->rx_origin_seq + (seq - cold->rx_origin_seq) / TCPS_BLOCK_ROOM * TCPS_BLOCK_ROOM;
	uint32_t prev = TCPS_NIL, next = cold->rx_first_idx;
	if (cold->rx_last_idx != TCPS_NIL && seq_ge(base, t->blocks[cold->rx_last_idx].base_seq)) {
		prev = cold->rx_last_idx;
		next = TCPS_NIL;
	} else {
		while (next != TCPS_NIL && seq_le(t->blocks[next].base_seq, base)) {
			prev = next;
			next = t->blocks[next].next_idx;
		}
	}
	if (prev != TCPS_NIL && t->blocks[prev].base_seq == base)
		return &t->blocks[prev];
	if (!may_grow(c, out_of_order))
		return NULL;
	uint32_t idx = tcps_block_alloc(t);
	if (idx == TCPS_NIL)
		return NULL;
	cold->rx_blocks++;
	t->blocks[idx].base_seq = base;
	t->blocks[idx].next_idx = next;
	if (prev == TCPS_NIL)
		cold->rx_first_idx = idx;
	else
		t->blocks[prev].next_idx = idx;
	if (next == TCPS_NIL)
		cold->rx_last_idx = idx;
	return &t->blocks[idx];
}

/* Copies to the place of `seq`; returns how many bytes found room, counted from the front. */
static uint32_t store(struct tcps_conn *c, uint32_t seq, const uint8_t *data, uint32_t len, bool out_of_order)
{
	uint32_t done = 0;
	while (done < len) {
		struct tcps_block *b = block_at(c, seq + done, out_of_order);
		if (b == NULL)
			break;
		uint32_t off = seq + done - b->base_seq;
		uint32_t n = TCPS_BLOCK_ROOM - off;
		if (n > len - done)
			n = len - done;
		memcpy(b->data + off, data + done, n);
		done += n;
	}
	return done;
}

/* Frees the blocks that lie wholly before the first byte still wanted. */
static void trim_blocks(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	struct tcps_cold *cold = c->cold;
	bool keep_any = c->rx_head_seq != tcps_recv_end(c) || cold->ooo_count > 0;
	while (cold->rx_first_idx != TCPS_NIL) {
		uint32_t idx = cold->rx_first_idx;
		if (keep_any && seq_gt(t->blocks[idx].base_seq + TCPS_BLOCK_ROOM, c->rx_head_seq))
			break;
		cold->rx_first_idx = t->blocks[idx].next_idx;
		cold->rx_blocks--;
		tcps_block_free(t, idx);
	}
	if (cold->rx_first_idx == TCPS_NIL)
		cold->rx_last_idx = TCPS_NIL;
	/* The origin follows, so that distances from it stay small on a stream that never runs empty. */
	uint32_t behind = c->rx_head_seq - cold->rx_origin_seq;
	cold->rx_origin_seq += behind / TCPS_BLOCK_ROOM * TCPS_BLOCK_ROOM;
}

void tcps_recv_free(struct tcps_conn *c)
{
	c->cold->ooo_count = 0;
	c->flags &= ~CF_OOO;
	c->rx_head_seq = tcps_recv_end(c);
	trim_blocks(c);
}

/* Whether [start, end) can be noted without a slot more than there are. */
static bool range_fits(const struct tcps_cold *cold, uint32_t start, uint32_t end)
{
	if (cold->ooo_count < TCPS_OOO_MAX)
		return true;
	for (unsigned i = 0; i < cold->ooo_count; i++) {
		if (seq_ge(cold->ooo[i].end_seq, start) && seq_le(cold->ooo[i].start_seq, end))
			return true;
	}
	return false;
}

static void range_add(struct tcps_cold *cold, uint32_t start, uint32_t end)
{
	unsigned first = 0;
	while (first < cold->ooo_count && seq_lt(cold->ooo[first].end_seq, start))
		first++;
	unsigned last = first; /* one past the ranges that [start, end) touches */
	while (last < cold->ooo_count && seq_le(cold->ooo[last].start_seq, end)) {
		if (seq_lt(cold->ooo[last].start_seq, start))
			start = cold->ooo[last].start_seq;
		if (seq_gt(cold->ooo[last].end_seq, end))
			end = cold->ooo[last].end_seq;
		last++;
	}
	if (first == last && cold->ooo_count == TCPS_OOO_MAX)
		return;
	memmove(&cold->ooo[first + 1], &cold->ooo[last], (cold->ooo_count - last) * sizeof(cold->ooo[0]));
	cold->ooo[first] = (struct tcps_range){start, end};
	cold->ooo_count = (uint8_t)(cold->ooo_count + 1 - (last - first));
}

/* RFC 2883 4: what of a segment out of order had arrived before. */
static void tell_duplicate(struct tcps_conn *c, uint32_t start, uint32_t end)
{
	for (unsigned i = 0; i < c->cold->ooo_count; i++) {
		const struct tcps_range *r = &c->cold->ooo[i];
		uint32_t from = seq_gt(start, r->start_seq) ? start : r->start_seq;
		uint32_t to = seq_lt(end, r->end_seq) ? end : r->end_seq;
		if (seq_lt(from, to)) {
			TCPS_COUNT(c->t, duplicates);
			tcps_sack_duplicate(c, from, to);
			return;
		}
	}
}

static void queue_out_of_order(struct tcps_conn *c, uint32_t seq, const uint8_t *data, uint32_t len)
{
	struct tcps *t = c->t;
	c->flags |= CF_ACK_NOW; /* RFC 5681 4.2: a duplicate ACK at once */
	tcps_touch(c);
	tell_duplicate(c, seq, seq + len);
	uint32_t stored = range_fits(c->cold, seq, seq + len) ? store(c, seq, data, len, true) : 0;
	if (stored == 0) {
		TCPS_COUNT(t, ooo_dropped);
		if (c->cold->ooo_count == 0)
			trim_blocks(c);
		return;
	}
	range_add(c->cold, seq, seq + stored);
	tcps_sack_arrived(c, seq);
	c->flags |= CF_OOO;
	TCPS_COUNT(t, out_of_order);
}

static void advance(struct tcps_conn *c, uint32_t n)
{
	uint32_t before = c->rcv_nxt;
	c->rcv_nxt += n;
	c->cold->rcv_wraps += c->rcv_nxt < before;
	TCPS_COUNT_ADD(c->t, bytes_in, n);
}

/*
 * Keeps bytes at rcv_nxt for a stopped reader. What finds no block is not acknowledged, so the peer sends it again. With the
 * last block that the connection may have its window shuts, in an acknowledgement that takes bytes: such a one moves the
 * window of every peer, while many ignore a smaller window in a duplicate.
 */
static void hold(struct tcps_conn *c, const uint8_t *data, uint32_t len)
{
	uint32_t stored = store(c, c->rcv_nxt, data, len, false);
	TCPS_COUNT_ADD(c->t, held_bytes, stored);
	advance(c, stored);
	if (stored == len && may_grow(c, false))
		return;
	TCPS_COUNT_ADD(c->t, windows_shut, (c->flags & CF_SHUT) == 0);
	c->flags |= CF_SHUT | CF_ACK_NOW;
}

void tcps_recv_limit(struct tcps_conn *c, size_t bytes)
{
	size_t blocks = bytes / TCPS_BLOCK_ROOM + 2; /* the first of them may begin in the middle */
	c->cold->rx_blocks_max = (uint32_t)(blocks < UINT32_MAX ? blocks : UINT32_MAX);
}

/*
 * The window while the reader is stopped: no more than there are blocks for. RFC 9293 3.8.6 (SHLD-14) asks not to shrink a
 * window, but here one that shrinks makes the peer probe, where one that stays makes it retransmit until it gives up. What the
 * peer has sent already is still accepted up to rcv_adv, block for block.
 */
uint32_t tcps_recv_window_paused(const struct tcps_conn *c)
{
	const struct tcps_cold *cold = c->cold;
	uint32_t promised = c->rcv_adv - c->rcv_nxt, may = tcps_block_share(c->t);
	if (c->flags & CF_SHUT)
		return 0;
	may = may < cold->rx_blocks_max ? may : cold->rx_blocks_max;
	may = may > cold->rx_blocks ? may - cold->rx_blocks : 0;
	if (may > promised / TCPS_BLOCK_ROOM)
		return promised;
	return may * TCPS_BLOCK_ROOM < c->t->window_step ? 0 : may * TCPS_BLOCK_ROOM;
}

/* Takes over what had arrived before its turn, now that the hole is filled. */
static void join_ranges(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	unsigned n = 0;
	while (n < cold->ooo_count && seq_le(cold->ooo[n].start_seq, c->rcv_nxt)) {
		if (seq_gt(cold->ooo[n].end_seq, c->rcv_nxt))
			advance(c, cold->ooo[n].end_seq - c->rcv_nxt);
		n++;
	}
	if (n == 0)
		return;
	cold->ooo_count = (uint8_t)(cold->ooo_count - n);
	memmove(&cold->ooo[0], &cold->ooo[n], cold->ooo_count * sizeof(cold->ooo[0]));
	if (cold->ooo_count == 0)
		c->flags &= ~CF_OOO;
	c->flags |= CF_ACK_NOW; /* RFC 5681 4.2: when a segment fills a gap */
	tcps_touch(c);
}

static size_t lend(struct tcps_conn *c, const uint8_t *data, uint32_t len)
{
	c->flags |= CF_IN_DATA;
	size_t n = c->t->ops.on_data(c->user, data, len);
	c->flags &= ~CF_IN_DATA;
	assert(n <= len);
	if (n < len && (c->flags & CF_DEAD) == 0)
		c->flags |= CF_PAUSED;
	return n;
}

/* Hands over held bytes until they are gone or the reader stops, then the end of the stream. */
void tcps_recv_deliver(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	if (c->flags & (CF_IN_DATA | CF_DEAD))
		return;
	bool was_busy = tcps_conn_enter(c);
	while (c->rx_head_seq != tcps_recv_end(c) && (c->flags & (CF_PAUSED | CF_DEAD)) == 0) {
		trim_blocks(c);
		const struct tcps_block *b = &t->blocks[c->cold->rx_first_idx];
		uint32_t off = c->rx_head_seq - b->base_seq;
		uint32_t len = tcps_recv_end(c) - c->rx_head_seq;
		if (len > TCPS_BLOCK_ROOM - off)
			len = TCPS_BLOCK_ROOM - off;
		size_t n = lend(c, b->data + off, len);
		if ((c->flags & CF_DEAD) == 0)
			c->rx_head_seq += (uint32_t)n;
	}
	if ((c->flags & CF_DEAD) == 0)
		trim_blocks(c);
	if (c->rx_head_seq == tcps_recv_end(c) && (c->flags & (CF_EOF | CF_EOF_TOLD | CF_DEAD | CF_PAUSED)) == CF_EOF) {
		c->flags |= CF_EOF_TOLD;
		t->ops.on_eof(c->user);
	}
	if ((c->flags & (CF_FINISHED | CF_EOF_TOLD | CF_DEAD)) == (CF_FINISHED | CF_EOF_TOLD))
		tcps_conn_done(c);
	tcps_conn_leave(c, was_busy);
}

/* on_data() took `n` of the bytes at rcv_nxt: the rest is held, unless the connection is gone. */
void tcps_recv_short(struct tcps_conn *c, const uint8_t *data, uint32_t len, uint32_t n)
{
	if (c->flags & CF_DEAD)
		return;
	advance(c, n);
	c->rx_head_seq += n;
	if (n < len) {
		c->flags |= CF_PAUSED;
		hold(c, data + n, len - n);
	}
	c->ack_segments = (uint8_t)(c->ack_segments << 1 | 1);
	tcps_touch(c);
}

/* Payload that lies in the window. The caller has set CF_BUSY and looks at CF_DEAD afterwards. */
void tcps_recv_data(struct tcps_conn *c, uint32_t seq, const uint8_t *data, uint32_t len)
{
	if (seq != c->rcv_nxt) {
		queue_out_of_order(c, seq, data, len);
		return;
	}
	uint32_t n = 0;
	if (c->rx_head_seq == c->rcv_nxt && (c->flags & (CF_PAUSED | CF_IN_DATA)) == 0)
		n = (uint32_t)lend(c, data, len);
	tcps_recv_short(c, data, len, n);
	if (c->flags & CF_DEAD)
		return;
	if (c->flags & CF_OOO)
		join_ranges(c);
	if (c->rx_head_seq != c->rcv_nxt)
		tcps_recv_deliver(c);
	else if (c->cold->rx_first_idx != TCPS_NIL)
		trim_blocks(c);
}

/* The peer was told 0. A reader that stopped again at once, and freed nothing, leaves it at that: it may try very often. */
static void reopen(struct tcps_conn *c)
{
	if (tcps_recv_window(c) == 0 && (c->flags & CF_EOF) == 0) {
		c->flags |= CF_SHUT;
		return;
	}
	c->flags |= CF_ACK_NOW;
	tcps_touch(c);
}

void tcps_resume(struct tcps_conn *c)
{
	if ((c->flags & CF_DEAD) != 0 || (c->flags & (CF_PAUSED | CF_IN_DATA)) == 0)
		return;
	if (c->flags & CF_IN_DATA) {
		/* Its verdict on the present bytes is not known yet. */
		c->flags |= CF_RESUME;
		tcps_touch(c);
		return;
	}
	bool was_shut = (c->flags & CF_SHUT) != 0;
	c->flags &= ~(CF_PAUSED | CF_RESUME | CF_SHUT);
	bool was_busy = tcps_conn_enter(c);
	tcps_recv_deliver(c);
	if (was_shut && (c->flags & CF_DEAD) == 0)
		reopen(c);
	if ((c->flags & CF_DEAD) == 0)
		tcps_window_open(c);
	tcps_conn_leave(c, was_busy);
}
