/* The one clock of tickbench: CLOCK_MONOTONIC in nanoseconds, read here and handed on as an argument everywhere else.
 * Runs on every tickbench thread; publisher and subscribers live in one process, so their stamps compare.
 * Specification: none. */
#ifndef TICKBENCH_CLOCK_H
#define TICKBENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

#define TB_SECOND_NS UINT64_C(1000000000)
#define TB_MS_NS     UINT64_C(1000000)

static inline uint64_t tb_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * TB_SECOND_NS + (uint64_t)ts.tv_nsec;
}

#endif
