/*
 * fib_link.h - records between the worker's broker and control: requests out, operations in.
 *
 * Owns: the worker's ends of the two rings, and the decision to wake control.
 * Core: the worker.
 * Spec: DESIGN section 5; control/ctl_shm.h.
 */
#ifndef TICKWIRE_DP_FIB_LINK_H
#define TICKWIRE_DP_FIB_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "amqp/records.h"

#define DP_OPS_A_TURN 4u /* operations applied at one burst boundary */

struct dp_worker;

/* Puts a request of the broker. False: control is away or the ring is full; the broker asks again. */
bool dp_fib_request(struct dp_worker *w, const struct amqp_record *rec);
/* Control is there, and its ring is not empty: dp_fib_apply() applies what it has sent, up to DP_OPS_A_TURN. Returns how many. */
uint32_t dp_fib_apply(struct dp_worker *w);
/* A new control process: both rings are emptied, while the worker alone touches them. */
void dp_fib_attach(struct dp_worker *w);
void dp_fib_detach(struct dp_worker *w);

#endif
