/*
 * pool.c - the free list of slices, who may still take a block when they become few, and what happens when there is none.
 *
 * Owns: slice_free_* of struct tcps. Slices below blocks_max belong to their block and are in no list.
 * Core: the worker that owns the stack.
 * Spec: the shares are the dynamic thresholds of Choudhury and Hahne (1998): nobody may hold more than half of what is still
 * free. A few connections may take all they want; where hundreds stall at once each is held to the same share, and the rest
 * stays for those that move. Behind that lies a reserve, for answers and for the first blocks of each connection.
 */
#include "tcpstack/internal.h"

#include <assert.h>

static uint32_t share(const struct tcps *t, uint32_t free)
{
	uint32_t half = free > t->blocks_reserved ? (free - t->blocks_reserved) / 2 : 0;
	return half > TCPS_BLOCKS_ASSURED ? half : TCPS_BLOCKS_ASSURED;
}

uint32_t tcps_block_share(const struct tcps *t)
{
	return share(t, t->block_free_count);
}

uint32_t tcps_slice_share(const struct tcps *t)
{
	return share(t, t->slice_free_count);
}

/* What a connection holds is unacknowledged, so with the last of it comes an ACK that finds this true. */
bool tcps_share_is_low(const struct tcps_conn *c)
{
	return c->cold->snd_blocks <= tcps_block_share(c->t) / 2 && c->cold->snd_refs <= tcps_slice_share(c->t) / 2;
}

uint32_t tcps_block_none(struct tcps *t)
{
	TCPS_COUNT(t, no_blocks);
	return TCPS_NIL;
}

uint32_t tcps_slice_alloc(struct tcps *t)
{
	uint32_t idx = t->slice_free_idx;
	if (idx == TCPS_NIL) {
		TCPS_COUNT(t, no_slices);
		return TCPS_NIL;
	}
	t->slice_free_idx = t->slices[idx].next_idx;
	t->slice_free_count--;
	return idx;
}

void tcps_slice_free(struct tcps *t, uint32_t idx)
{
	assert(idx >= t->cfg.blocks_max && idx < t->slices_max);
	t->slices[idx].next_idx = t->slice_free_idx;
	t->slice_free_idx = idx;
	t->slice_free_count++;
}
