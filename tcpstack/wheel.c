/*
 * wheel.c - arming, cascading and expiring timers.
 *
 * Owns: struct tcps_wheel.
 * Core: the worker that owns the stack.
 * Spec: none.
 */
#include "tcpstack/wheel.h"

#include <assert.h>

#define SLOT_BITS 8u
#define SLOT_MASK (TCPS_WHEEL_SLOTS - 1u)

void tcps_wheel_init(struct tcps_wheel *w, uint64_t now_ns)
{
	*w = (struct tcps_wheel){.cur_tick = now_ns >> TCPS_WHEEL_TICK_SHIFT, .next_tick = TCPS_NEVER};
}

static void slot_push(struct tcps_wheel *w, unsigned level, unsigned idx, struct tcps_timer *timer)
{
	struct tcps_timer **head = &w->slot[level][idx];
	timer->next = *head;
	if (timer->next != NULL)
		timer->next->pprev = &timer->next;
	timer->pprev = head;
	*head = timer;
	w->occupied[level][idx / 64] |= 1ull << (idx % 64);
}

/* Puts a timer into the slot that its distance from now calls for; returns the tick at which that slot is visited. */
static uint64_t place(struct tcps_wheel *w, struct tcps_timer *timer)
{
	uint64_t at = timer->at_tick;
	for (unsigned level = 0; level < TCPS_WHEEL_LEVELS; level++) {
		unsigned shift = level * SLOT_BITS;
		if ((at >> shift) - (w->cur_tick >> shift) < TCPS_WHEEL_SLOTS) {
			slot_push(w, level, (unsigned)(at >> shift) & SLOT_MASK, timer);
			return (at >> shift) << shift;
		}
	}
	/* Beyond the wheel (about six days): the farthest slot, placed anew when that is reached. */
	unsigned shift = (TCPS_WHEEL_LEVELS - 1) * SLOT_BITS;
	uint64_t far = (w->cur_tick >> shift) + TCPS_WHEEL_SLOTS - 1;
	slot_push(w, TCPS_WHEEL_LEVELS - 1, (unsigned)far & SLOT_MASK, timer);
	return far << shift;
}

static void unlink_timer(struct tcps_timer *timer)
{
	*timer->pprev = timer->next;
	if (timer->next != NULL)
		timer->next->pprev = timer->pprev;
	timer->next = NULL;
	timer->pprev = NULL;
}

void tcps_wheel_set(struct tcps_wheel *w, struct tcps_timer *timer, uint64_t at_ns)
{
	if (timer->pprev != NULL)
		unlink_timer(timer);
	else
		w->armed_count++;
	uint64_t at = tcps_wheel_tick_of(at_ns);
	if (at <= w->cur_tick)
		at = w->cur_tick + 1;
	timer->at_tick = at & ((1ull << 56) - 1);
	uint64_t visit = place(w, timer);
	if (visit < w->next_tick)
		w->next_tick = visit;
}

void tcps_wheel_del(struct tcps_wheel *w, struct tcps_timer *timer)
{
	if (timer->pprev == NULL)
		return;
	unlink_timer(timer);
	assert(w->armed_count > 0);
	w->armed_count--;
}

/* Distance (1..256) from slot `from` to the next occupied one, going round; 0: the level is empty. */
static unsigned next_occupied(const uint64_t *bits, unsigned from)
{
	for (unsigned i = 0; i <= TCPS_WHEEL_SLOTS / 64; i++) {
		unsigned start = (from + 1) & SLOT_MASK;
		unsigned word = (start / 64 + i) % (TCPS_WHEEL_SLOTS / 64);
		uint64_t found = bits[word];
		if (i == 0)
			found &= ~0ull << (start % 64);
		else if (i == TCPS_WHEEL_SLOTS / 64)
			found &= (1ull << (start % 64)) - 1;
		if (found != 0) {
			unsigned idx = word * 64 + (unsigned)__builtin_ctzll(found);
			return ((idx - start) & SLOT_MASK) + 1;
		}
	}
	return 0;
}

static uint64_t find_next_tick(const struct tcps_wheel *w)
{
	uint64_t best = TCPS_NEVER;
	for (unsigned level = 0; level < TCPS_WHEEL_LEVELS; level++) {
		unsigned shift = level * SLOT_BITS;
		uint64_t cur = w->cur_tick >> shift;
		unsigned distance = next_occupied(w->occupied[level], (unsigned)cur & SLOT_MASK);
		uint64_t tick = (cur + distance) << shift;
		if (distance != 0 && tick < best)
			best = tick;
	}
	return best;
}

/*
 * Moves what a higher level kept for the span that begins at cur_tick down to the levels below. False: the budget was used up
 * before all were moved. Meanwhile no other timer gets into such a slot: whatever is set lies less than a round ahead of it.
 */
static bool cascade(struct tcps_wheel *w, uint32_t *budget)
{
	for (unsigned level = TCPS_WHEEL_LEVELS - 1; level > 0; level--) {
		unsigned shift = level * SLOT_BITS;
		if ((w->cur_tick & ((1ull << shift) - 1)) != 0)
			continue;
		unsigned idx = (unsigned)(w->cur_tick >> shift) & SLOT_MASK;
		struct tcps_timer *timer;
		while ((timer = w->slot[level][idx]) != NULL) {
			if (*budget == 0)
				return false;
			--*budget;
			unlink_timer(timer);
			place(w, timer);
		}
		w->occupied[level][idx / 64] &= ~(1ull << (idx % 64));
	}
	w->cascading = false;
	return true;
}

struct tcps_timer *tcps_wheel_expire(struct tcps_wheel *w, uint64_t now_ns, uint32_t *budget)
{
	uint64_t target = now_ns >> TCPS_WHEEL_TICK_SHIFT;
	for (;;) {
		if (w->cascading && !cascade(w, budget))
			return NULL;
		unsigned idx = (unsigned)w->cur_tick & SLOT_MASK;
		struct tcps_timer *timer = w->slot[0][idx];
		if (timer != NULL) {
			if (*budget == 0)
				return NULL;
			--*budget;
			unlink_timer(timer);
			w->armed_count--;
			return timer;
		}
		w->occupied[0][idx / 64] &= ~(1ull << (idx % 64));
		if (w->next_tick <= w->cur_tick)
			w->next_tick = find_next_tick(w);
		if (w->next_tick > target) {
			if (target > w->cur_tick)
				w->cur_tick = target;
			return NULL;
		}
		w->cur_tick = w->next_tick;
		w->cascading = (w->cur_tick & SLOT_MASK) == 0;
	}
}

uint64_t tcps_wheel_next_ns(const struct tcps_wheel *w)
{
	if (w->armed_count == 0)
		return TCPS_NEVER;
	if (w->cascading || w->slot[0][w->cur_tick & SLOT_MASK] != NULL)
		return w->cur_tick << TCPS_WHEEL_TICK_SHIFT;
	/* A set bit may be stale, so this may name a visit that finds nothing; it never names one too late. */
	uint64_t tick = w->next_tick > w->cur_tick ? w->next_tick : find_next_tick(w);
	return tick == TCPS_NEVER ? TCPS_NEVER : tick << TCPS_WHEEL_TICK_SHIFT;
}
