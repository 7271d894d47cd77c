/*
 * laps.h - where the time of a turn of the worker's loop goes: which of its polls took how long, at most, and how many turns
 * were long.
 *
 * Owns: the stamps of the turn under way; the longest turn, the longest run of each poll, and counts of turns by length.
 * Core: the worker. A poll that did nothing takes no stamp: its time is the next one's, and a turn without work takes none.
 * Spec: DESIGN section 3: nothing but ticks takes the worker longer than 5 us between two polls; what does is told.
 */
#ifndef TICKWIRE_DP_LAPS_H
#define TICKWIRE_DP_LAPS_H

#include <stddef.h>
#include <stdint.h>

#include "dataplane/clock.h"

/* The polls in the order of a turn: X(poll, name, of what it returns a count). */
#define DP_POLLS(X)                                                                                                                \
	X(receive, "receive", "frames")                                                                                            \
	X(others, "others", "items")                                                                                               \
	X(operations, "operations", "records")                                                                                     \
	X(mail, "mail", "letters")                                                                                                 \
	X(tcp_timers, "TCP's timers", "")                                                                                          \
	X(amqp_timers, "AMQP's timers", "")                                                                                        \
	X(drain, "drain", "connections")                                                                                           \
	X(queues, "queues", "")                                                                                                    \
	X(flush, "flush", "")                                                                                                      \
	X(transmit, "transmit", "frames")                                                                                          \
	X(rows, "rows", "")                                                                                                        \
	X(counters, "counters", "")

enum dp_poll {
#define DP_POLL(poll, name, of) DP_POLL_##poll,
	DP_POLLS(DP_POLL)
#undef DP_POLL
		DP_POLL_COUNT /* as the worst of a turn: no poll had anything to do */
};

/* What a poll returns beside a count: it took time, but nothing came or went that would make the turn a busy one. */
#define DP_POLL_WORKED 0x80000000u

#define DP_LONG_TURNS 3u /* 5, 50 and 500 us */

struct dp_laps {
	uint64_t begin, stamp; /* of the turn; of the last poll that did something */
	uint64_t worst_cycles;
	uint32_t worst_count, done, worked;
	enum dp_poll worst;
	uint64_t watch_cycles; /* a turn longer than this is news */
	uint64_t limit_cycles[DP_LONG_TURNS];
	/* what is told */
	uint64_t longest_cycles, longest_at_ns;
	uint32_t longest_count;
	enum dp_poll longest;
	uint64_t long_turns[DP_LONG_TURNS]; /* longer than 5, 50, 500 us; each also counts in those before it */
	uint64_t poll_cycles[DP_POLL_COUNT];
};

void dp_laps_init(struct dp_laps *l, const struct dp_clock *clock);
/* The longest turn in words, as "receive: 32 frames"; `bytes` of 32 hold every one. */
void dp_laps_text(const struct dp_laps *l, char *out, size_t bytes);
/* For dp_laps_end() alone: a turn that may be the longest, or counts as a long one. */
void dp_laps_long(struct dp_laps *l, uint64_t cycles, uint64_t now_ns);

static inline void dp_laps_begin(struct dp_laps *l, uint64_t tsc)
{
	l->begin = l->stamp = tsc;
	l->worst_cycles = 0;
	l->done = l->worked = l->worst_count = 0;
	l->worst = DP_POLL_COUNT;
}

/* A poll that returned `did`, not 0, ended at `tsc`. */
static inline void dp_laps_stamp(struct dp_laps *l, enum dp_poll poll, uint32_t did, uint64_t tsc)
{
	uint64_t cycles = tsc - l->stamp;

	l->stamp = tsc;
	l->worked = 1;
	l->done += did & ~DP_POLL_WORKED;
	if (cycles > l->poll_cycles[poll])
		l->poll_cycles[poll] = cycles;
	if (cycles > l->worst_cycles) {
		l->worst_cycles = cycles;
		l->worst_count = did & ~DP_POLL_WORKED;
		l->worst = poll;
	}
}

/* The turn took so many cycles. */
static inline void dp_laps_end(struct dp_laps *l, uint64_t cycles, uint64_t now_ns)
{
	if (__builtin_expect(cycles > l->watch_cycles, 0))
		dp_laps_long(l, cycles, now_ns);
}

#endif
