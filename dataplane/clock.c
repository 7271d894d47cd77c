/*
 * clock.c - time stamp counter to nanoseconds without a division.
 *
 * Owns: the making of `struct dp_clock`.
 * Core: the main thread, at start.
 * Spec: now_ns has the base of CLOCK_MONOTONIC at start and then follows the time stamp counter alone.
 */
#include "dataplane/clock.h"

#include <assert.h>

void dp_clock_init(struct dp_clock *c, uint64_t hz, uint64_t tsc, uint64_t now_ns)
{
	assert(hz >= 1000000);
	c->hz = hz;
	c->base_tsc = tsc;
	c->base_ns = now_ns;
	c->mult = (uint64_t)(((unsigned __int128)1000000000u << DP_CLOCK_SHIFT) / hz);
}
