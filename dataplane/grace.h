/*
 * grace.h - no memory of a driver's is unmapped while a polling thread is inside that driver.
 *
 * Owns: the list of polling threads, by the counters of their turns.
 * Core: threads enter and leave themselves; DPDK's interrupt thread is the one that waits.
 * Spec: none; dataplane/README.md says what net_memif does.
 */
#ifndef TICKWIRE_DP_GRACE_H
#define TICKWIRE_DP_GRACE_H

#include <stdatomic.h>
#include <stdint.h>

/* From now on the calling thread polls; it adds to *turns whenever it is in no driver. */
void dp_grace_enter(const _Atomic uint64_t *turns);
void dp_grace_leave(const _Atomic uint64_t *turns);

#endif
