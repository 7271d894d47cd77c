/*
 * laps.c - where the time of a turn of the worker's loop goes: what is kept of turns that are longer than others.
 *
 * Owns: nothing but what struct dp_laps holds.
 * Core: the worker.
 * Spec: DESIGN section 3: nothing but ticks takes the worker longer than 5 us between two polls; what does is told.
 */
#include "dataplane/laps.h"

#include <stdio.h>
#include <string.h>

static const uint32_t long_us[DP_LONG_TURNS] = {5, 50, 500};

static const struct {
	const char *name, *of;
} polls[] = {
#define DP_POLL(poll, name, of) {name, of},
	DP_POLLS(DP_POLL)
#undef DP_POLL
};

void dp_laps_init(struct dp_laps *l, const struct dp_clock *clock)
{
	memset(l, 0, sizeof *l);
	l->longest = DP_POLL_COUNT;
	for (unsigned i = 0; i < DP_LONG_TURNS; i++)
		l->limit_cycles[i] = clock->hz / 1000000 * long_us[i];
}

void dp_laps_long(struct dp_laps *l, uint64_t cycles, uint64_t now_ns)
{
	for (unsigned i = 0; i < DP_LONG_TURNS; i++)
		l->long_turns[i] += cycles > l->limit_cycles[i];
	if (cycles > l->longest_cycles) {
		l->longest_cycles = cycles;
		l->longest_at_ns = now_ns;
		/* Polls that find nothing to do take no time: in what is behind the last that did, the core was elsewhere. */
		l->longest = cycles - (l->stamp - l->begin) > l->worst_cycles ? DP_POLL_COUNT : l->worst;
		l->longest_count = l->worst_count;
	}
	l->watch_cycles = l->longest_cycles < l->limit_cycles[0] ? l->longest_cycles : l->limit_cycles[0];
}

void dp_laps_text(const struct dp_laps *l, char *out, size_t bytes)
{
	if (l->longest_cycles == 0)
		snprintf(out, bytes, "%s", "");
	else if (l->longest == DP_POLL_COUNT)
		snprintf(out, bytes, "no poll: its core was taken");
	else if (l->longest_count == 0 || polls[l->longest].of[0] == '\0')
		snprintf(out, bytes, "%s", polls[l->longest].name);
	else
		snprintf(out, bytes, "%s: %u %s", polls[l->longest].name, l->longest_count, polls[l->longest].of);
}
