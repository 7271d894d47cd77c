/*
 * drain.h - the worker's way out: nobody new, a reason for everybody who is there, then the door.
 *
 * Owns: the drain fields of struct dp_worker.
 * Core: the worker, as one of its polls.
 * Spec: AMQP 0-9-1 1.4.2.9 (connection.close), reply code 320 CONNECTION_FORCED.
 */
#ifndef TICKWIRE_DP_DRAIN_H
#define TICKWIRE_DP_DRAIN_H

#include <stdint.h>

struct dp_worker;

/* Stops accepting; connections have `for_ns` to close. */
void dp_drain_begin(struct dp_worker *w, uint64_t for_ns);
/* Closes some connections, and mails DRAINED when all are gone or the time is over. Returns how many it told. */
uint32_t dp_drain_step(struct dp_worker *w);

#endif
