/* The latency histogram: log-linear, three significant digits, nanoseconds, of a fixed size.
 * Runs inside tickbench alone, one histogram per measuring thread, never shared while it is being written.
 * Specification: none; the percentile text follows the layout that HdrHistogram's plotting tools read. */
#ifndef TICKBENCH_HIST_H
#define TICKBENCH_HIST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* 2,048 exact slots, then 1,024 slots for every further power of two: the error is below 1/1024 of the value. */
#define TB_HIST_SUB_BITS   11
#define TB_HIST_VALUE_BITS 42
#define TB_HIST_SLOTS      ((((TB_HIST_VALUE_BITS - TB_HIST_SUB_BITS) + 2) << (TB_HIST_SUB_BITS - 1)))
#define TB_HIST_VALUE_MAX  ((UINT64_C(1) << TB_HIST_VALUE_BITS) - 1)

struct tb_hist {
	uint64_t count;
	uint64_t over_count; /* values above TB_HIST_VALUE_MAX: counted in the topmost slot, exact in max */
	uint64_t min;
	uint64_t max;
	uint64_t *slots;
};

/* Allocates the slots of an empty histogram. Errors: false when there is no memory. */
bool tb_hist_init(struct tb_hist *h);
void tb_hist_fini(struct tb_hist *h);
void tb_hist_reset(struct tb_hist *h);

/* Adds every sample of src to dst. */
void tb_hist_merge(struct tb_hist *dst, const struct tb_hist *src);

/* The smallest recorded value that at least ppm millionths of the samples do not exceed (upper edge of its slot, never above
 * the exact maximum); 0 for an empty histogram. Units: ppm 1..1,000,000. */
uint64_t tb_hist_percentile(const struct tb_hist *h, uint32_t ppm);

/* How many samples lie above the rank that this percentile names: the evidence behind a tail figure. */
uint64_t tb_hist_beyond(const struct tb_hist *h, uint32_t ppm);

/* Samples with low <= value < high, at the resolution of the slots. */
uint64_t tb_hist_count_between(const struct tb_hist *h, uint64_t low, uint64_t high);

double tb_hist_mean(const struct tb_hist *h);
double tb_hist_stddev(const struct tb_hist *h);

/* Writes the percentile distribution as text, values in microseconds. Errors: false when the stream reports one. */
bool tb_hist_write_hgrm(const struct tb_hist *h, FILE *out);

static inline uint32_t tb_hist_slot(uint64_t value)
{
	if (value < (UINT64_C(1) << TB_HIST_SUB_BITS))
		return (uint32_t)value;
	uint32_t shift = (uint32_t)(63 - __builtin_clzll(value)) - (TB_HIST_SUB_BITS - 1);
	return (shift << (TB_HIST_SUB_BITS - 1)) + (uint32_t)(value >> shift);
}

/* Lowest and highest value that share a slot. */
static inline uint64_t tb_hist_slot_low(uint32_t slot)
{
	if (slot < (1u << TB_HIST_SUB_BITS))
		return slot;
	uint32_t shift = (slot >> (TB_HIST_SUB_BITS - 1)) - 1;
	return (uint64_t)(slot - (shift << (TB_HIST_SUB_BITS - 1))) << shift;
}

static inline uint64_t tb_hist_slot_high(uint32_t slot)
{
	if (slot < (1u << TB_HIST_SUB_BITS))
		return slot;
	uint32_t shift = (slot >> (TB_HIST_SUB_BITS - 1)) - 1;
	return tb_hist_slot_low(slot) + (UINT64_C(1) << shift) - 1;
}

static inline void tb_hist_record(struct tb_hist *h, uint64_t value_ns)
{
	uint64_t kept = value_ns;

	if (kept > TB_HIST_VALUE_MAX) {
		kept = TB_HIST_VALUE_MAX;
		h->over_count++;
	}
	h->slots[tb_hist_slot(kept)]++;
	h->count++;
	if (value_ns > h->max)
		h->max = value_ns;
	if (value_ns < h->min)
		h->min = value_ns;
}

#endif
