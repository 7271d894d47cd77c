/*
 * pool.c - the free list of slices, and what happens when blocks run out.
 *
 * Owns: slice_free_* of struct tcps. Slices below blocks_max belong to their block and are in no list.
 * Core: the worker that owns the stack.
 * Spec: none.
 */
#include "tcpstack/internal.h"

#include <assert.h>

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
