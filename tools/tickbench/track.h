/* Order, loss and duplicate accounting by sequence number for each subscriber, and who was first, median and last for each tick.
 * Runs on the subscribers' thread, a few instructions for every delivery that is in order.
 * Specification: none. */
#ifndef TICKBENCH_TRACK_H
#define TICKBENCH_TRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TB_TRACK_GAPS 32

enum tb_arrival {
	TB_ARRIVAL_NEW,       /* in order, or after a gap */
	TB_ARRIVAL_REORDERED, /* fills a gap: late, but delivered */
	TB_ARRIVAL_DUPLICATE,
	TB_ARRIVAL_STALE,   /* older than every gap still remembered: late or twice, it cannot be told */
	TB_ARRIVAL_UNKNOWN, /* a number that was never sent */
};

struct tb_gap {
	uint64_t from; /* first missing */
	uint64_t to;   /* first after it that is not */
};

struct tb_track {
	uint64_t next_seq; /* one above the highest seen */
	uint64_t received_count;
	uint64_t reordered_count;
	uint64_t duplicate_count;
	uint64_t stale_count;
	uint64_t forgotten_lost_count; /* missing numbers of gaps that were forgotten */
	uint64_t forgotten_below;      /* below this, gaps may have been forgotten */
	uint32_t gap_count;
	struct tb_gap gaps[TB_TRACK_GAPS]; /* ascending */
};

/* The uncommon cases of tb_track_arrival. */
enum tb_arrival tb_track_odd(struct tb_track *t, uint64_t seq, uint64_t sent_count);

/* Accounts for one delivery; numbers count from 0 and sent_count is the number of ticks handed to the broker so far. */
static inline enum tb_arrival tb_track_arrival(struct tb_track *t, uint64_t seq, uint64_t sent_count)
{
	if (__builtin_expect(seq == t->next_seq && seq < sent_count, 1)) {
		t->next_seq++;
		t->received_count++;
		return TB_ARRIVAL_NEW;
	}
	return tb_track_odd(t, seq, sent_count);
}

/* Ticks that were sent and have not arrived. */
uint64_t tb_track_missing(const struct tb_track *t, uint64_t sent_count);

/* Per tick: how many subscribers have it. A ring of recent ticks, so memory does not grow with the run. */
struct tb_tick_slot {
	uint32_t seq_low;
	uint32_t arrived_count;
};

struct tb_ticks {
	struct tb_tick_slot *slots;
	uint64_t mask;
	uint64_t late_count; /* deliveries of ticks that had left the ring: in the overall figures only */
	uint32_t subscriber_count;
	uint32_t median_rank;
	uint64_t newest_seq;
};

/* slots_max bounds the ring; it is made no larger than the run needs. Errors: false without memory. */
bool tb_ticks_init(struct tb_ticks *t, uint64_t tick_count, uint64_t slots_max, uint32_t subscriber_count);
void tb_ticks_fini(struct tb_ticks *t);

/* Counts one (new) delivery of this tick; returns its rank among the subscribers, 1 for the first, or 0 when the tick has left
 * the ring. Deliveries must be counted in order of time: then ranks are latency ranks. */
static inline uint32_t tb_ticks_arrival(struct tb_ticks *t, uint64_t seq)
{
	struct tb_tick_slot *slot = &t->slots[seq & t->mask];

	if (seq > t->newest_seq)
		t->newest_seq = seq;
	if (slot->seq_low != (uint32_t)seq || slot->arrived_count == 0) {
		if (seq + t->mask < t->newest_seq) {
			t->late_count++;
			return 0;
		}
		slot->seq_low = (uint32_t)seq;
		slot->arrived_count = 0;
	}
	return ++slot->arrived_count;
}

#endif
