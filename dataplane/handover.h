/*
 * handover.h - frames that came to one worker's queue and are for another's stack, or for all.
 *
 * Owns: the rings of frames between workers.
 * Core: each ring has one worker on either side; made by the main thread.
 * Spec: DESIGN section 4: a connection lives on the worker whose queue received its SYN, whatever steers.
 */
#ifndef TICKWIRE_DP_HANDOVER_H
#define TICKWIRE_DP_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dp_worker;
struct rte_mbuf;

/* Makes the rings to one worker, on its node. Errors: false and a sentence. */
bool dp_handover_open(struct dp_worker *w, uint32_t workers_count, char *err, size_t err_bytes);
/* The workers have left: what lies in the rings is freed. */
void dp_handover_close(struct dp_worker *w);
/* A received frame into the stack here, copies of it to the other workers where all must hear it. Takes the frame. */
void dp_handover_input(struct dp_worker *w, struct rte_mbuf *m, uint32_t rx_flags);
/* The stack does not know the frame in hand: to the next worker, unless all have seen it. Returns whether it is gone. */
bool dp_handover_elsewhere(struct dp_worker *w);
/* Frames that others handed over. Returns how many. */
uint32_t dp_handover_poll(struct dp_worker *w);

#endif
