/*
 * watchdog.h - notices a worker that has not looped for a second.
 *
 * Owns: what the main thread last saw of a worker's loop count.
 * Core: the main thread.
 * Spec: issue 2, part 2 (busy and idle cycles, longest loop); a stalled worker delays every client.
 */
#ifndef TICKWIRE_DP_WATCHDOG_H
#define TICKWIRE_DP_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#define DP_WATCHDOG_NS 1000000000ull

enum dp_watchdog_news { DP_WATCHDOG_QUIET, DP_WATCHDOG_STALLED, DP_WATCHDOG_RECOVERED };

struct dp_watchdog {
	uint64_t loops, since_ns;
	bool stalled;
};

void dp_watchdog_init(struct dp_watchdog *d, uint64_t now_ns);
/* Looks at the worker's loop count; each stall and each recovery is news once. *stood_ns: for how long it stood. */
enum dp_watchdog_news dp_watchdog_look(struct dp_watchdog *d, uint64_t loops, uint64_t now_ns, uint64_t *stood_ns);

#endif
