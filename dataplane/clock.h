/*
 * clock.h - time stamp counter to nanoseconds without a division.
 *
 * Owns: one `struct dp_clock`, constant after start.
 * Core: any; the worker converts once a burst.
 * Spec: now_ns has the base of CLOCK_MONOTONIC at start and then follows the time stamp counter alone.
 */
#ifndef TICKWIRE_DP_CLOCK_H
#define TICKWIRE_DP_CLOCK_H

#include <stdint.h>

#define DP_CLOCK_SHIFT 32u

struct dp_clock {
	uint64_t hz;
	uint64_t base_tsc, base_ns;
	uint64_t mult; /* nanoseconds a tick, times 2^DP_CLOCK_SHIFT */
};

/*
 * Makes the clock from the counter's frequency and one pair of readings taken together.
 * Errors: a frequency below 1 MHz is our own bug (no such counter exists) and asserts.
 */
void dp_clock_init(struct dp_clock *c, uint64_t hz, uint64_t tsc, uint64_t now_ns);

/* The length of `ticks`. Exact to 2^-32; a product of 96 bits holds 2^64 ticks. */
static inline uint64_t dp_clock_span_ns(const struct dp_clock *c, uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * c->mult) >> DP_CLOCK_SHIFT);
}

static inline uint64_t dp_clock_ns(const struct dp_clock *c, uint64_t tsc)
{
	return c->base_ns + dp_clock_span_ns(c, tsc - c->base_tsc);
}

#endif
