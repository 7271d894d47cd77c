/*
 * broker_control.h - control for the whole-broker simulator: the real RIB behind queues that delay, fill up and die.
 *
 * Owns: the records in flight between the simulated worker and the RIB, encoded as shared memory would hold them.
 * Core: tests only.
 * Spec: control/ctl_shm.h (encoding), DESIGN section 5 (what happens when control is away).
 */
#ifndef TICKWIRE_SIM_BROKER_CONTROL_H
#define TICKWIRE_SIM_BROKER_CONTROL_H

#include "amqp/amqp.h"
#include "control/rib.h"
#include "tests/sim/net.h"

struct control_record {
	struct control_record *next;
	uint64_t at_ns;
	size_t len;
	uint8_t bytes[];
};
struct control_fifo {
	struct control_record *first, **last;
	uint32_t count;
	uint64_t last_at_ns;
};

struct control {
	struct amqp_broker *broker[AMQP_WORKERS_MAX]; /* workers */
	uint32_t workers_count;
	struct net *net; /* the dice */
	struct ctl_rib rib;
	struct ctl_rib_limits limits;
	struct control_fifo requests[AMQP_WORKERS_MAX], ops[AMQP_WORKERS_MAX];
	uint32_t ring_max; /* requests that fit before the worker hears "full" */
	uint64_t delay_max_ns, now_ns;
	bool up, syncing;
	uint32_t kills, compiled;
	uint64_t generation;
	const char *why; /* what went wrong, or NULL */
};

void control_init(struct control *c, struct net *net, const struct amqp_limits *limits);
void control_fini(struct control *c);
void control_start(struct control *c, uint64_t now_ns); /* attaches: dump, sync, defaults */
void control_kill(struct control *c);                   /* SIGKILL: everything it knew is gone */
/* amqp_ops.request of a worker. */
bool control_request(struct control *c, uint32_t worker, const struct amqp_record *rec);
/* Nothing is on its way. */
bool control_quiet(const struct control *c);
/* Handles what has arrived by now, on both sides. */
void control_step(struct control *c, uint64_t now_ns);
uint64_t control_next_ns(const struct control *c);
/* Compiles the wildcard rules of one exchange and hands the database to the worker, as the dataplane would. */
void control_compile(struct control *c, const char *exchange);
/* The workers are gone: closes whatever they had. */
void control_forget_databases(void);

#endif
