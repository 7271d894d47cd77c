/*
 * stages.c - where the time of a tick goes: rx, parsed, routed, rendered, tx.
 *
 * Owns: the stamps of the one publish under measurement and the histograms in shared memory.
 * Core: the worker; histograms are read by control at any time.
 * Spec: DESIGN section 3 (the walk of a tick).
 */
#include "dataplane/stages.h"

#include <stdio.h>
#include <string.h>

_Static_assert(DP_SPAN_COUNT <= CTL_STAGES_MAX, "the shared memory has room for every span");

static const char *const span_names[DP_SPAN_COUNT] = {
	[DP_SPAN_RX_TO_PARSED] = "rx_to_parsed",
	[DP_SPAN_PARSED_TO_ROUTED] = "parsed_to_routed",
	[DP_SPAN_ROUTED_TO_RENDERED] = "routed_to_rendered",
	[DP_SPAN_RENDERED_TO_TX] = "rendered_to_tx",
	[DP_SPAN_RX_TO_TX] = "rx_to_tx",
};

const char *dp_span_name(unsigned idx)
{
	return idx < DP_SPAN_COUNT ? span_names[idx] : "";
}

void dp_stages_init(struct dp_stages *s, struct ctl_hist *hist, const struct dp_clock *clock, uint32_t every)
{
	memset(s, 0, sizeof *s);
	s->hist = hist;
	s->clock = clock;
	s->every = every;
	s->bursts_left = every;
	for (unsigned i = 0; i < DP_SPAN_COUNT; i++)
		snprintf(hist[i].name, sizeof hist[i].name, "%s", span_names[i]);
}

bool dp_stages_burst(struct dp_stages *s)
{
	if (s->every == 0 || --s->bursts_left != 0)
		return false;
	s->bursts_left = s->every;
	return true;
}

void dp_stages_stamp(struct dp_stages *s, enum dp_stamp stamp, uint64_t tsc, uint64_t rx_tsc)
{
	if (stamp == DP_STAMP_PARSED) {
		s->seen = 1u << DP_STAMP_RX;
		s->tsc[DP_STAMP_RX] = rx_tsc;
	}
	/* A stage without the one before it belongs to a sample that was closed meanwhile. */
	if (stamp == DP_STAMP_RX || (s->seen & 1u << (stamp - 1)) == 0)
		return;
	s->tsc[stamp] = tsc;
	s->seen |= 1u << stamp;
}

static void add_relaxed(_Atomic uint64_t *a, uint64_t n)
{
	atomic_store_explicit(a, atomic_load_explicit(a, memory_order_relaxed) + n, memory_order_relaxed);
}

void dp_hist_add(struct ctl_hist *h, uint64_t ns)
{
	add_relaxed(&h->bucket[ctl_hist_bucket(ns)], 1);
	add_relaxed(&h->sum_ns, ns);
	if (ns > atomic_load_explicit(&h->max_ns, memory_order_relaxed))
		atomic_store_explicit(&h->max_ns, ns, memory_order_relaxed);
	add_relaxed(&h->count, 1);
}

/* Cores of one socket share the counter, yet a migrated virtual machine can step back: such a span counts as nothing. */
static uint64_t span_ns(const struct dp_stages *s, uint64_t from_tsc, uint64_t to_tsc)
{
	return to_tsc > from_tsc ? dp_clock_span_ns(s->clock, to_tsc - from_tsc) : 0;
}

void dp_stages_sent(struct dp_stages *s, uint64_t tsc)
{
	if (s->seen == 0)
		return;
	for (unsigned i = DP_STAMP_PARSED; i < DP_STAMP_COUNT; i++)
		if ((s->seen & 1u << i) != 0)
			dp_hist_add(&s->hist[DP_SPAN_RX_TO_PARSED + i - 1], span_ns(s, s->tsc[i - 1], s->tsc[i]));
	/* A publish that went to no connection in this burst (unroutable, or only queued) was not transmitted. */
	if ((s->seen & 1u << DP_STAMP_RENDERED) != 0) {
		dp_hist_add(&s->hist[DP_SPAN_RENDERED_TO_TX], span_ns(s, s->tsc[DP_STAMP_RENDERED], tsc));
		dp_hist_add(&s->hist[DP_SPAN_RX_TO_TX], span_ns(s, s->tsc[DP_STAMP_RX], tsc));
	}
	s->seen = 0;
}
