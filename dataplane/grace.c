/*
 * grace.c - no memory of a driver's is unmapped while a polling thread is inside that driver.
 *
 * Owns: the list of polling threads, by the counters of their turns; the program's munmap().
 * Core: threads enter and leave themselves; DPDK's interrupt thread is the one that waits.
 * Spec: munmap(2). net_memif marks itself as disconnected and unmaps the shared rings at once, on DPDK's interrupt thread, when
 *       the other end leaves; a worker that looked at the mark just before reads them still (README).
 */
#include "dataplane/grace.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define POLLERS_MAX 64u
#define STEP_NS     20000L
#define STEPS_MAX   50000u /* a second: who has not turned by then is held up, and not by a driver */

static const _Atomic uint64_t *_Atomic poller[POLLERS_MAX];
static _Thread_local bool polls;

void dp_grace_enter(const _Atomic uint64_t *turns)
{
	polls = true;
	for (unsigned i = 0; i < POLLERS_MAX; i++) {
		const _Atomic uint64_t *none = NULL;

		if (atomic_compare_exchange_strong(&poller[i], &none, turns))
			return;
	}
}

void dp_grace_leave(const _Atomic uint64_t *turns)
{
	polls = false;
	for (unsigned i = 0; i < POLLERS_MAX; i++) {
		const _Atomic uint64_t *own = turns;

		if (atomic_compare_exchange_strong(&poller[i], &own, NULL))
			return;
	}
}

/* Until the turn under way is over: the next one sees what was written before. A thread that leaves meanwhile is no hindrance. */
static void await_turn(unsigned i)
{
	const _Atomic uint64_t *turns = atomic_load(&poller[i]);
	uint64_t before = turns == NULL ? 0 : atomic_load(turns);

	for (unsigned step = 0; turns != NULL && step < STEPS_MAX; step++) {
		if (atomic_load(&poller[i]) != turns || atomic_load(turns) != before)
			return;
		nanosleep(&(struct timespec){.tv_nsec = STEP_NS}, NULL);
	}
}

/* In place of libc's: drivers call it by name, and find this program's first. */
int munmap(void *addr, size_t len)
{
	for (unsigned i = 0; i < POLLERS_MAX && !polls; i++)
		await_turn(i);
	return (int)syscall(SYS_munmap, addr, len);
}
