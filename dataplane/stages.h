/*
 * stages.h - where the time of a tick goes: rx, parsed, routed, rendered, tx.
 *
 * Owns: the stamps of the one publish under measurement and the histograms in shared memory.
 * Core: the worker; histograms are read by control at any time.
 * Spec: DESIGN section 3 (the walk of a tick).
 */
#ifndef TICKWIRE_DP_STAGES_H
#define TICKWIRE_DP_STAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "control/ctl_shm.h"
#include "dataplane/clock.h"

enum dp_span {
	DP_SPAN_RX_TO_PARSED,
	DP_SPAN_PARSED_TO_ROUTED,
	DP_SPAN_ROUTED_TO_RENDERED,
	DP_SPAN_RENDERED_TO_TX,
	DP_SPAN_RX_TO_TX,
	DP_SPAN_COUNT
};
/* In the order of the walk; values from PARSED on are those of enum amqp_stage plus one. */
enum dp_stamp { DP_STAMP_RX, DP_STAMP_PARSED, DP_STAMP_ROUTED, DP_STAMP_RENDERED, DP_STAMP_COUNT };

struct dp_stages {
	const struct dp_clock *clock;
	struct ctl_hist *hist; /* DP_SPAN_COUNT of them, in shared memory */
	uint32_t every;        /* bursts with payload between two samples; 0: never */
	uint32_t bursts_left;
	uint32_t seen; /* bit a stamp */
	uint64_t tsc[DP_STAMP_COUNT];
};

const char *dp_span_name(unsigned idx);
/* Names the histograms; `hist` has room for DP_SPAN_COUNT. */
void dp_stages_init(struct dp_stages *s, struct ctl_hist *hist, const struct dp_clock *clock, uint32_t every);
/* A burst brought TCP payload. True: the next publish shall be sampled. */
bool dp_stages_burst(struct dp_stages *s);
/* `stamp` was passed at `tsc`; PARSED also takes `rx_tsc`, the time of the burst that completed the publish. */
void dp_stages_stamp(struct dp_stages *s, enum dp_stamp stamp, uint64_t tsc, uint64_t rx_tsc);
/* The burst's frames were given to the port: closes a sample, if there is one. */
void dp_stages_sent(struct dp_stages *s, uint64_t tsc);
/* Adds one value; the only writer is the calling thread. */
void dp_hist_add(struct ctl_hist *h, uint64_t ns);

#endif
