/*
 * send.c - the send stream: a queue of slices that stay until the peer has acknowledged them.
 *
 * Owns: head/tail/cur of a connection, snd_buf_bytes, the blocks and slices that they use.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.10.2 (SEND); the slices are ours, so that a segment can be cut anew at every retransmission.
 */
#include "tcpstack/internal.h"

#include <assert.h>

static inline bool sending_closed(const struct tcps_conn *c)
{
	return (c->flags & (CF_FIN_QUEUED | CF_DEAD | CF_FINISHED)) != 0 || c->state == TCPS_CLOSED;
}

/* One slice fewer lies in the block. */
static void block_put(struct tcps_conn *c, uint32_t block_idx)
{
	struct tcps_block *b = &c->t->blocks[block_idx];
	assert(b->slice_count > 0);
	if (--b->slice_count > 0)
		return;
	if (c->cold->part_block_idx == block_idx)
		c->cold->part_block_idx = TCPS_NIL;
	c->cold->snd_blocks--;
	tcps_block_free(c->t, block_idx);
}

static inline bool share_is_used(const struct tcps_conn *c)
{
	const struct tcps_cold *cold = c->cold;
	if (__builtin_expect(cold->snd_blocks < TCPS_BLOCKS_ASSURED && cold->snd_refs < TCPS_BLOCKS_ASSURED, 1))
		return false;
	return c->cold->snd_blocks >= tcps_block_share(c->t) || c->cold->snd_refs >= tcps_slice_share(c->t);
}

/* Looked at where a block or a slice is taken, so that the path of a delivery need not. */
static inline void mark_if_over(struct tcps_conn *c)
{
	if (c->snd_buf_bytes != 0 && (c->snd_buf_bytes > c->t->cfg.send_high_water_bytes || share_is_used(c))) {
		c->flags |= CF_OVER_HIGH;
		tcps_sent_settle(c); /* what acked_whole() need not ask */
	}
}

static inline void link_tail(struct tcps_conn *c, uint32_t idx)
{
	c->t->slices[idx].next_idx = TCPS_NIL;
	if (c->tail_idx == TCPS_NIL) {
		c->head_idx = idx;
		c->cur_idx = idx;
		c->cur_off = 0;
	} else {
		tcps_send_sync(c);
		c->t->slices[c->tail_idx].next_idx = idx;
	}
	c->tail_idx = idx;
}

/* Goes on writing in `block_idx` from `used` on; `slice_idx` describes it. */
static inline void open_tail(struct tcps_conn *c, uint32_t slice_idx, uint32_t block_idx, uint32_t used)
{
	struct tcps_block *b = &c->t->blocks[block_idx];
	struct tcps_slice *s = &c->t->slices[slice_idx];
	link_tail(c, slice_idx);
	b->slice_count++;
	s->data = b->data + used;
	s->len_bytes = 0;
	s->block_idx = block_idx;
	c->tail_ptr = b->data + used;
	c->tail_room = TCPS_BLOCK_ROOM - used;
}

/* Room for `len` bytes behind the tail, from whatever is free. False: nothing is. */
static inline __attribute__((always_inline)) bool extend_tail(struct tcps_conn *c, size_t len)
{
	struct tcps_cold *cold = c->cold;
	if (__builtin_expect(cold->part_block_idx != TCPS_NIL, 0) && TCPS_BLOCK_ROOM - cold->part_used >= len) {
		uint32_t slice_idx = tcps_slice_alloc(c->t);
		if (slice_idx == TCPS_NIL)
			return false;
		cold->snd_refs++;
		open_tail(c, slice_idx, cold->part_block_idx, cold->part_used);
		cold->part_block_idx = TCPS_NIL;
	} else {
		uint32_t idx = tcps_block_alloc(c->t);
		if (idx == TCPS_NIL)
			return false;
		cold->snd_blocks++;
		cold->part_block_idx = TCPS_NIL;
		open_tail(c, idx, idx, 0);
	}
	mark_if_over(c);
	return true;
}

/* The block that an empty queue has kept (acked_whole() in input.c), full to its end by now: from its beginning again. */
static bool rewind_kept(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	uint32_t idx = c->tail_idx;
	if (c->snd_buf_bytes != 0 || c->head_idx != idx || idx >= t->cfg.blocks_max || c->tail_ptr == NULL)
		return false;
	c->tail_ptr = t->blocks[idx].data;
	c->tail_room = TCPS_BLOCK_ROOM;
	t->slices[idx].data = c->tail_ptr;
	return true;
}

static __attribute__((noinline)) uint8_t *reserve_slow(struct tcps_conn *c, size_t len)
{
	if (sending_closed(c) || len > TCPS_RESERVE_MAX || c->snd_buf_bytes > TCPS_QUEUED_MAX)
		return NULL;
	if (rewind_kept(c))
		return c->tail_ptr;
	if (share_is_used(c)) {
		mark_if_over(c); /* an ACK of what it holds takes that back */
		TCPS_COUNT(c->t, shares_reached);
		return NULL;
	}
	return extend_tail(c, len) ? c->tail_ptr : NULL;
}

uint8_t *tcps_reserve(struct tcps_conn *c, size_t len)
{
	struct tcps *t = c->t;
	/* tail_room is 0 whenever sending is closed. */
	if (__builtin_expect(len <= c->tail_room && len != 0, 1))
		return c->tail_ptr;
	uint32_t idx = t->block_free_idx;
	if (__builtin_expect(c->tail_idx != TCPS_NIL || idx == TCPS_NIL || sending_closed(c) || len > TCPS_RESERVE_MAX, 0))
		return reserve_slow(c, len);
	/* The first bytes of a queue, in a block of their own: no share can be reached, and no block is begun. */
	struct tcps_block *b = &t->blocks[idx];
	struct tcps_slice *s = &t->slices[idx];
	t->block_free_idx = b->next_idx;
	t->block_free_count--;
	*s = (struct tcps_slice){.data = b->data, .next_idx = TCPS_NIL, .block_idx = idx};
	b->next_idx = TCPS_NIL;
	b->slice_count = 1;
	c->cold->snd_blocks = 1;
	c->head_idx = c->tail_idx = c->cur_idx = idx;
	c->cur_off = 0;
	c->tail_room = TCPS_BLOCK_ROOM;
	return c->tail_ptr = b->data;
}

void tcps_commit(struct tcps_conn *c, size_t len)
{
	c->tail_ptr += len;
	c->tail_room -= (uint32_t)len;
	c->snd_buf_bytes += (uint32_t)len;
	if ((c->flags & CF_TOUCHED) == 0)
		tcps_touch(c);
}

bool tcps_send(struct tcps_conn *c, const void *data, size_t len)
{
	struct tcps *t = c->t;
	if (sending_closed(c) || len > TCPS_QUEUED_MAX || c->snd_buf_bytes > TCPS_QUEUED_MAX)
		return false;
	uint32_t room = c->tail_room;
	if (c->cold->part_block_idx != TCPS_NIL)
		room = TCPS_BLOCK_ROOM - c->cold->part_used;
	size_t blocks = len > room ? (len - room + TCPS_BLOCK_ROOM - 1) / TCPS_BLOCK_ROOM : 0;
	if (blocks > t->block_free_count || (c->cold->part_block_idx != TCPS_NIL && t->slice_free_count == 0)) {
		TCPS_COUNT(t, no_blocks);
		return false;
	}
	const uint8_t *from = data;
	while (len > 0) {
		if (c->tail_room == 0)
			extend_tail(c, 1);
		assert(c->tail_room > 0); /* the room was counted before */
		size_t n = len < c->tail_room ? len : c->tail_room;
		memcpy(c->tail_ptr, from, n);
		tcps_commit(c, n);
		from += n;
		len -= n;
	}
	return true;
}

bool tcps_send_ref(struct tcps_conn *c, const void *data, size_t len, void *owner)
{
	struct tcps *t = c->t;
	if (sending_closed(c) || len == 0 || len > TCPS_QUEUED_MAX || c->snd_buf_bytes > TCPS_QUEUED_MAX)
		return false;
	uint32_t idx = tcps_slice_alloc(t);
	if (idx == TCPS_NIL)
		return false;
	c->cold->snd_refs++;
	if (c->tail_room > 0) {
		/* What is left of the tail block serves the inline bytes that come after the reference. */
		c->cold->part_block_idx = t->slices[c->tail_idx].block_idx;
		c->cold->part_used = TCPS_BLOCK_ROOM - c->tail_room;
	}
	link_tail(c, idx);
	struct tcps_slice *s = &t->slices[idx];
	s->data = data;
	s->len_bytes = (uint32_t)len;
	s->owner = owner;
	s->block_idx = TCPS_NIL;
	c->tail_ptr = NULL;
	c->tail_room = 0;
	c->snd_buf_bytes += (uint32_t)len;
	t->ref_count++;
	mark_if_over(c);
	tcps_touch(c);
	return true;
}

bool tcps_has_room(const struct tcps_conn *c, size_t bytes, size_t refs)
{
	const struct tcps *t = c->t;
	/*
	 * Inline bytes between two references: a slice for each, and the blocks that all of them fill. What could never have that
	 * much may try with half of the pool.
	 */
	size_t slices = 2 * refs + 1, blocks = bytes / (TCPS_BLOCK_ROOM / 2) + 1;
	size_t slices_half = (t->slices_max - t->cfg.blocks_max) / 2, blocks_half = t->cfg.blocks_max / 2;
	slices = slices < slices_half ? slices : slices_half;
	blocks = blocks < blocks_half ? blocks : blocks_half;
	return !sending_closed(c) && slices + t->blocks_reserved <= t->slice_free_count &&
	       blocks + t->blocks_reserved <= t->block_free_count;
}

static void drop_head(struct tcps_conn *c)
{
	struct tcps *t = c->t;
	uint32_t idx = c->head_idx;
	struct tcps_slice *s = &t->slices[idx];
	uint32_t block_idx = s->block_idx;
	void *owner = s->owner;
	c->head_idx = s->next_idx;
	if (c->cur_idx == idx) {
		c->cur_idx = c->head_idx;
		c->cur_off = 0;
	}
	if (c->head_idx == TCPS_NIL)
		tcps_send_emptied(c);
	if (idx >= t->cfg.blocks_max) {
		c->cold->snd_refs--;
		tcps_slice_free(t, idx);
	}
	if (block_idx != TCPS_NIL) {
		block_put(c, block_idx);
	} else {
		t->ref_count--;
		t->ops.release(t->ctx, owner);
	}
}

/* The first `n` bytes have been acknowledged. snd_nxt may lie anywhere; the caller moves it if it was passed. */
void tcps_send_acked(struct tcps_conn *c, uint32_t n)
{
	assert(n <= c->snd_buf_bytes);
	c->snd_buf_bytes -= n;
	tcps_send_sync(c);
	while (c->head_idx != TCPS_NIL) {
		struct tcps_slice *s = &c->t->slices[c->head_idx];
		uint32_t k = n < s->len_bytes ? n : s->len_bytes;
		s->data += k;
		s->len_bytes -= k;
		n -= k;
		if (c->cur_idx == c->head_idx)
			c->cur_off -= k < c->cur_off ? k : c->cur_off;
		if (s->len_bytes > 0)
			break;
		drop_head(c);
	}
	assert(n == 0 || (c->flags & CF_DEAD) != 0); /* release() may have aborted the connection */
}

void tcps_send_free(struct tcps_conn *c)
{
	tcps_send_acked(c, c->snd_buf_bytes);
	c->tail_room = 0;
}

void tcps_send_rewind(struct tcps_conn *c)
{
	c->cur_idx = c->head_idx;
	c->cur_off = 0;
}

/* Copies the next `len` bytes; they must be there. Returns their sum, or 0 where the port works out the checksum. */
uint64_t tcps_send_copy(const struct tcps *t, struct tcps_cursor *cur, uint8_t *to, uint32_t len)
{
	bool sum_here = !t->cfg.tx_tcp_cksum_offload;
	uint64_t sum = 0;
	bool odd = false;
	for (;;) {
		const struct tcps_slice *s = &t->slices[cur->idx];
		uint32_t n = s->len_bytes - cur->off;
		bool last = n >= len;
		if (last)
			n = len;
		if (sum_here) {
			uint64_t part = tcps_copy_sum(to, s->data + cur->off, n);
			if (odd)
				part = part << 8 | part >> 56;
			sum += part;
			sum += sum < part;
		} else {
			memcpy(to, s->data + cur->off, n);
		}
		cur->off += n;
		if (last)
			return sum;
		odd ^= n & 1;
		to += n;
		len -= n;
		cur->idx = s->next_idx;
		cur->off = 0;
	}
}

size_t tcps_unsent(const struct tcps_conn *c)
{
	return c->snd_buf_bytes;
}

bool tcps_writable(const struct tcps_conn *c)
{
	return (c->flags & CF_OVER_HIGH) == 0 && !sending_closed(c);
}
