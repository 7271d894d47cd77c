/* The open-loop schedule: when each tick is meant to leave, decided before the run and never moved by what the broker does.
 * Runs on the publishing thread, and wherever a sequence number is turned back into its intended time.
 * Specification: none; this is what keeps coordinated omission out of the figures. */
#ifndef TICKBENCH_SCHED_H
#define TICKBENCH_SCHED_H

#include "tools/tickbench/clock.h"

#include <stdbool.h>

struct tb_sched {
	uint64_t start_ns;
	uint64_t rate_per_s; /* ticks, at least 1 */
	uint64_t burst;      /* ticks that share one instant, at least 1 */
	uint64_t total;      /* ticks in the whole run */
	uint64_t warmup;     /* how many of them, from the first, are not measured */
};

/* The instant at which tick number seq (from 0) is meant to be sent. */
static inline uint64_t tb_sched_intended(const struct tb_sched *s, uint64_t seq)
{
	uint64_t first = seq - seq % s->burst;

	/* Split so that neither product can overflow; every instant is exact to the nanosecond, so no drift adds up. */
	return s->start_ns + first / s->rate_per_s * TB_SECOND_NS + first % s->rate_per_s * TB_SECOND_NS / s->rate_per_s;
}

static inline bool tb_sched_due(const struct tb_sched *s, uint64_t seq, uint64_t now_ns)
{
	return seq < s->total && tb_sched_intended(s, seq) <= now_ns;
}

/* How many ticks of the run are due at this instant. */
static inline uint64_t tb_sched_due_count(const struct tb_sched *s, uint64_t now_ns)
{
	if (now_ns < s->start_ns)
		return 0;
	uint64_t past_ns = now_ns - s->start_ns;
	uint64_t count = past_ns / TB_SECOND_NS * s->rate_per_s + past_ns % TB_SECOND_NS * s->rate_per_s / TB_SECOND_NS;
	/* Rounding down may have lost one, and the burst that has begun is due as a whole. */
	count = (count / s->burst + 1) * s->burst;
	count += tb_sched_intended(s, count) <= now_ns ? s->burst : 0;
	return count < s->total ? count : s->total;
}

/* The instant at which the schedule is over: that of the tick after the last. */
static inline uint64_t tb_sched_end(const struct tb_sched *s)
{
	return s->start_ns + s->total / s->rate_per_s * TB_SECOND_NS + s->total % s->rate_per_s * TB_SECOND_NS / s->rate_per_s;
}

#endif
