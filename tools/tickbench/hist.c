/* Percentiles, moments and the text form of the latency histogram.
 * Runs inside tickbench, after the measuring loop has ended; recording itself is inline in hist.h.
 * Specification: none; the percentile text follows the layout that HdrHistogram's plotting tools read. */
#include "tools/tickbench/hist.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool tb_hist_init(struct tb_hist *h)
{
	h->slots = malloc(sizeof(*h->slots) * TB_HIST_SLOTS);
	if (!h->slots)
		return false;
	tb_hist_reset(h);
	return true;
}

void tb_hist_fini(struct tb_hist *h)
{
	free(h->slots);
	h->slots = NULL;
}

void tb_hist_reset(struct tb_hist *h)
{
	memset(h->slots, 0, sizeof(*h->slots) * TB_HIST_SLOTS);
	h->count = 0;
	h->over_count = 0;
	h->max = 0;
	h->min = UINT64_MAX;
}

void tb_hist_merge(struct tb_hist *dst, const struct tb_hist *src)
{
	for (uint32_t i = 0; i < TB_HIST_SLOTS; i++)
		dst->slots[i] += src->slots[i];
	dst->count += src->count;
	dst->over_count += src->over_count;
	if (src->max > dst->max)
		dst->max = src->max;
	if (src->min < dst->min)
		dst->min = src->min;
}

static uint64_t rank_of(const struct tb_hist *h, uint32_t ppm)
{
	/* Integer arithmetic: 0.999 * 1000 in doubles would round a whole rank up. */
	uint64_t whole = h->count / 1000000 * ppm, rest = h->count % 1000000 * ppm;
	uint64_t rank = whole + (rest + 999999) / 1000000;
	return rank ? rank : 1;
}

static uint64_t value_at_rank(const struct tb_hist *h, uint64_t rank)
{
	uint64_t seen = 0;

	if (rank >= h->count)
		return h->max;
	for (uint32_t i = 0; i < TB_HIST_SLOTS; i++) {
		seen += h->slots[i];
		if (seen >= rank) {
			uint64_t edge = tb_hist_slot_high(i);
			return edge < h->max ? edge : h->max;
		}
	}
	return h->max;
}

uint64_t tb_hist_percentile(const struct tb_hist *h, uint32_t ppm)
{
	return h->count ? value_at_rank(h, rank_of(h, ppm)) : 0;
}

uint64_t tb_hist_beyond(const struct tb_hist *h, uint32_t ppm)
{
	return h->count ? h->count - rank_of(h, ppm) : 0;
}

uint64_t tb_hist_count_between(const struct tb_hist *h, uint64_t low, uint64_t high)
{
	uint64_t sum = 0;

	if (low > TB_HIST_VALUE_MAX)
		return 0;
	for (uint32_t i = tb_hist_slot(low); i < TB_HIST_SLOTS && tb_hist_slot_low(i) < high; i++)
		if (tb_hist_slot_low(i) >= low)
			sum += h->slots[i];
	return sum;
}

static double slot_middle(uint32_t slot)
{
	return ((double)tb_hist_slot_low(slot) + (double)tb_hist_slot_high(slot)) / 2.0;
}

double tb_hist_mean(const struct tb_hist *h)
{
	double sum = 0;

	if (!h->count)
		return 0;
	for (uint32_t i = 0; i < TB_HIST_SLOTS; i++)
		if (h->slots[i])
			sum += (double)h->slots[i] * slot_middle(i);
	return sum / (double)h->count;
}

double tb_hist_stddev(const struct tb_hist *h)
{
	double mean = tb_hist_mean(h), sum = 0;

	if (!h->count)
		return 0;
	for (uint32_t i = 0; i < TB_HIST_SLOTS; i++)
		if (h->slots[i]) {
			double d = slot_middle(i) - mean;
			sum += d * d * (double)h->slots[i];
		}
	return sqrt(sum / (double)h->count);
}

/* Five steps for every halving of the distance to 100 %, so that the tail gets as many lines as the body. */
#define HGRM_STEPS 5

bool tb_hist_write_hgrm(const struct tb_hist *h, FILE *out)
{
	double level = 0.0;

	fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
	while (h->count) {
		double wanted = ceil(level / 100.0 * (double)h->count - 1e-9);
		uint64_t rank = wanted < 1 ? 1 : (uint64_t)wanted;
		uint64_t value = value_at_rank(h, rank), upto = 0;

		for (uint32_t i = 0; i <= tb_hist_slot(value > TB_HIST_VALUE_MAX ? TB_HIST_VALUE_MAX : value); i++)
			upto += h->slots[i];
		if (upto >= h->count || level >= 100.0)
			break;
		fprintf(out, "%12.3f %2.12f %10llu %14.2f\n", (double)value / 1e3, level / 100.0, (unsigned long long)upto,
			1.0 / (1.0 - level / 100.0));
		double halvings = floor(log2(100.0 / (100.0 - level))) + 1;
		level += 100.0 / (HGRM_STEPS * exp2(halvings));
	}
	if (h->count)
		fprintf(out, "%12.3f %2.12f %10llu\n", (double)h->max / 1e3, 1.0, (unsigned long long)h->count);
	fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", tb_hist_mean(h) / 1e3, tb_hist_stddev(h) / 1e3);
	fprintf(out, "#[Max     = %12.3f, Total count    = %12llu]\n", (double)h->max / 1e3, (unsigned long long)h->count);
	fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n", TB_HIST_VALUE_BITS - TB_HIST_SUB_BITS + 1,
		1 << TB_HIST_SUB_BITS);
	return !ferror(out);
}
