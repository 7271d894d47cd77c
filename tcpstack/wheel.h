/*
 * wheel.h - a hierarchical timer wheel: four levels of 256 slots, a tick of 2^17 ns (131 us).
 *
 * Owns: the order in which timers of one stack fall due; what a timer means is known to its owner by `kind`.
 * Core: the worker that owns the stack.
 * Spec: none; the scheme is that of Varghese and Lauck.
 */
#ifndef TICKWIRE_TCPSTACK_WHEEL_H
#define TICKWIRE_TCPSTACK_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TCPS_WHEEL_LEVELS     4u
#define TCPS_WHEEL_SLOTS      256u
#define TCPS_WHEEL_TICK_SHIFT 17u
#define TCPS_NEVER            UINT64_MAX

struct tcps_timer {
	struct tcps_timer *next;
	struct tcps_timer **pprev; /* NULL: not armed */
	uint64_t kind : 8;
	uint64_t at_tick : 56;
};

struct tcps_wheel {
	uint64_t cur_tick;  /* every slot before this tick has been emptied, and its own unless there was too much in it */
	uint64_t next_tick; /* no slot needs a visit before this tick */
	uint32_t armed_count;
	bool cascading;                                              /* a higher level's slot of cur_tick is not empty yet */
	uint64_t occupied[TCPS_WHEEL_LEVELS][TCPS_WHEEL_SLOTS / 64]; /* a set bit may be stale, a clear one never is */
	struct tcps_timer *slot[TCPS_WHEEL_LEVELS][TCPS_WHEEL_SLOTS];
};

static inline uint64_t tcps_wheel_tick_of(uint64_t ns)
{
	/* Rounded up, so that a deadline has always passed when its slot is visited. */
	uint64_t tick = (ns >> TCPS_WHEEL_TICK_SHIFT) + ((ns & ((1u << TCPS_WHEEL_TICK_SHIFT) - 1)) != 0);
	return tick;
}

static inline bool tcps_timer_armed(const struct tcps_timer *timer)
{
	return timer->pprev != NULL;
}

void tcps_wheel_init(struct tcps_wheel *w, uint64_t now_ns);
/* Arms or moves a timer. Units: `at_ns` may lie in the past; it then falls due at the next tick. */
void tcps_wheel_set(struct tcps_wheel *w, struct tcps_timer *timer, uint64_t at_ns);
void tcps_wheel_del(struct tcps_wheel *w, struct tcps_timer *timer);
/*
 * Takes one timer that is due at `now_ns` off the wheel. NULL: there is none left, or `*budget` is 0, from which one is taken for
 * each timer, be it handed out or moved on the way; the rest is due at once (tcps_wheel_next_ns). Call until NULL.
 */
struct tcps_timer *tcps_wheel_expire(struct tcps_wheel *w, uint64_t now_ns, uint32_t *budget);
/* When a slot next needs a visit (a lower bound of the first deadline); TCPS_NEVER when nothing is armed. */
uint64_t tcps_wheel_next_ns(const struct tcps_wheel *w);

#endif
