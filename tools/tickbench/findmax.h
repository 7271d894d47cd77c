/* The search for the highest rate that a broker carries without loss and below a latency limit.
 * Runs inside tickbench on the main thread, one load after another.
 * Specification: none. */
#ifndef TICKBENCH_FINDMAX_H
#define TICKBENCH_FINDMAX_H

#include "tools/tickbench/load.h"

#define TB_TRIALS_MAX        320 /* of all searches */
#define TB_SEARCH_TRIALS_MAX 64
#define TB_FINDMAX_STEP_PCT  4 /* the search ends when the best and the failing rate are this close */

struct tb_trial {
	uint64_t rate_per_s;
	uint64_t p99_ns;
	uint64_t client_late_p99_ns;
	double deliveries_per_s;
	uint64_t lost_count;
	bool passed;
};

/* The state of the search, free of clocks and sockets: doubling up, then halving the gap. */
struct tb_bisect {
	uint64_t passed; /* highest that passed, 0: none */
	uint64_t failed; /* lowest that failed, 0: none */
	uint64_t rate;   /* the one to try */
	uint64_t max;
};

struct tb_findmax {
	bool done;
	uint64_t best_rate_per_s; /* 0: even the lowest rate tried failed */
	double best_deliveries_per_s;
	bool client_limited; /* at the lowest failing rate this client was itself late: the broker may carry more */
	uint32_t trial_count;
	struct tb_trial trials[TB_TRIALS_MAX];
};

void tb_bisect_init(struct tb_bisect *b, uint64_t first_rate, uint64_t rate_max);
/* Takes the verdict on b->rate in and sets the next rate. Returns false when the search is over. */
bool tb_bisect_next(struct tb_bisect *b, bool passed);

/* Searches; may be called again for a further search, of which the better result is kept. best receives the figures of the best
 * rate's load. Errors: best->status and best->error. */
void tb_findmax_run(const struct tb_load *load, uint64_t limit_p99_ns, uint32_t tries, uint64_t rate_max, struct tb_findmax *f,
		    struct tb_result *best);

#endif
