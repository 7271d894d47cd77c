/*
 * conn.h - the seam between a TCP connection and the AMQP connection on it.
 *
 * Owns: the callbacks that each of the two libraries is given for the other.
 * Core: the worker.
 * Spec: tcpstack/tcpstack.h and amqp/amqp.h; the transport handle of an AMQP connection is its tcps_conn.
 */
#ifndef TICKWIRE_DP_CONN_H
#define TICKWIRE_DP_CONN_H

#include "amqp/amqp.h"
#include "tcpstack/tcpstack.h"

struct dp_worker;

/* What the stack calls; its ctx is the worker. */
extern const struct tcps_ops dp_conn_tcps_ops;
/* A frame that held a piece of a message is gone; `ctx` is the worker. */
void dp_conn_piece_done(void *ctx, void *owner);
/* What the broker calls; its ctx is the worker. */
extern const struct amqp_ops dp_conn_amqp_ops;

/* Callbacks without a ctx find the calling thread's worker; to be set before the thread's first frame. */
void dp_conn_bind_thread(struct dp_worker *w);

#endif
