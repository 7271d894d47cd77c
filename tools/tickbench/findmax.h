/* The search for the highest rate that a broker carries without loss and below a latency limit.
 * Runs inside tickbench on the main thread, one load after another.
 * Specification: none. */
#ifndef TICKBENCH_FINDMAX_H
#define TICKBENCH_FINDMAX_H

#include "tools/tickbench/load.h"

#define TB_TRIALS_MAX        320 /* of all searches */
#define TB_SEARCH_TRIALS_MAX 64
#define TB_FINDMAX_STEP_PCT  4  /* the search ends when the best and the failing rate are this close */
#define TB_REACHED_MIN_PCT   97 /* of the rate asked for; below this a rate was not reached, whatever its latency */

enum tb_verdict { TB_CARRIED, TB_BROKEN_OFF, TB_LOSS, TB_TOO_LATE, TB_NOT_REACHED };

struct tb_trial {
	uint64_t rate_per_s;
	uint64_t p99_ns;
	uint64_t client_late_p99_ns;
	double ticks_per_s; /* reached */
	double deliveries_per_s;
	uint64_t lost_count;
	enum tb_verdict verdict;
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

/* Whether this load of t->rate_per_s was carried, and if not, why. */
enum tb_verdict tb_trial_judge(const struct tb_trial *t, const struct tb_result *r, uint64_t limit_p99_ns);
/* Two or three words for people. */
static inline const char *tb_verdict_text(enum tb_verdict verdict)
{
	static const char *const texts[] = {[TB_CARRIED] = "carried",
					    [TB_BROKEN_OFF] = "not carried: broken off",
					    [TB_LOSS] = "not carried: loss",
					    [TB_TOO_LATE] = "not carried: too late",
					    [TB_NOT_REACHED] = "not carried: not reached"};

	return texts[verdict];
}

void tb_bisect_init(struct tb_bisect *b, uint64_t first_rate, uint64_t rate_max);
/* Takes the verdict on b->rate in and sets the next rate. Returns false when the search is over. */
bool tb_bisect_next(struct tb_bisect *b, bool passed);

/* Searches; may be called again for a further search, of which the better result is kept. best receives the figures of the best
 * rate's load. Errors: best->status and best->error. */
void tb_findmax_run(const struct tb_load *load, uint64_t limit_p99_ns, uint32_t tries, uint64_t rate_max, struct tb_findmax *f,
		    struct tb_result *best);

#endif
