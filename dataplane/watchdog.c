/*
 * watchdog.c - notices a worker that has not looped for a second.
 *
 * Owns: what the main thread last saw of a worker's loop count.
 * Core: the main thread.
 * Spec: issue 2, part 2 (busy and idle cycles, longest loop); a stalled worker delays every client.
 */
#include "dataplane/watchdog.h"

void dp_watchdog_init(struct dp_watchdog *d, uint64_t now_ns)
{
	*d = (struct dp_watchdog){.since_ns = now_ns};
}

enum dp_watchdog_news dp_watchdog_look(struct dp_watchdog *d, uint64_t loops, uint64_t now_ns, uint64_t *stood_ns)
{
	bool was_stalled = d->stalled;

	*stood_ns = now_ns - d->since_ns;
	if (loops != d->loops) {
		d->loops = loops;
		d->since_ns = now_ns;
		d->stalled = false;
		return was_stalled ? DP_WATCHDOG_RECOVERED : DP_WATCHDOG_QUIET;
	}
	if (was_stalled || *stood_ns < DP_WATCHDOG_NS)
		return DP_WATCHDOG_QUIET;
	d->stalled = true;
	return DP_WATCHDOG_STALLED;
}
