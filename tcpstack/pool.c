/*
 * pool.c - the free lists of blocks and slices.
 *
 * Owns: block_free_*, slice_free_* of struct tcps.
 * Core: the worker that owns the stack.
 * Spec: none; last freed is first used, for it is still in the cache.
 */
#include "tcpstack/internal.h"

#include <assert.h>

uint32_t tcps_block_alloc(struct tcps *t)
{
	uint32_t idx = t->block_free_idx;
	if (idx == TCPS_NIL) {
		TCPS_COUNT(t, no_blocks);
		return TCPS_NIL;
	}
	struct tcps_block *b = &t->blocks[idx];
	t->block_free_idx = b->next_idx;
	t->block_free_count--;
	b->next_idx = TCPS_NIL;
	b->slice_count = 0;
	return idx;
}

void tcps_block_free(struct tcps *t, uint32_t idx)
{
	assert(idx < t->cfg.blocks_max && t->block_free_count < t->cfg.blocks_max);
	t->blocks[idx].next_idx = t->block_free_idx;
	t->block_free_idx = idx;
	t->block_free_count++;
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
	assert(idx < t->slices_max && t->slice_free_count < t->slices_max);
	t->slices[idx].next_idx = t->slice_free_idx;
	t->slice_free_idx = idx;
	t->slice_free_count++;
}
