/*
 * fastpath.h - the production worker between two functions that stand for its port, and a crowd of AMQP clients behind them.
 *
 * Owns: what the options, the worker's side (fastpath_worker.c), the far side (fastpath_far.c) and the report (fastpath.c) share.
 * Core: a measuring aid; everything runs in one thread.
 * Spec: tests/bench/README.md says what is measured and what is not.
 */
#ifndef TICKWIRE_BENCH_FASTPATH_H
#define TICKWIRE_BENCH_FASTPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcpstack/tcpstack.h"

#define FAR_PORT_FRAMES 65536u /* waiting in one direction; a power of two */

enum far_exchange { FAR_TOPIC, FAR_DIRECT, FAR_FANOUT, FAR_HEADERS };

struct path_options {
	uint32_t subscribers, idle; /* connections; beside them there is the publisher's */
	uint32_t burst;             /* ticks that arrive together */
	uint32_t bytes;             /* of a tick's body; the first eight are its number */
	uint32_t acks;              /* a consumer acknowledges after so many deliveries; 0: it consumes without */
	enum far_exchange exchange;
	bool offload; /* the port verifies and fills checksums */
	bool split;   /* every tick of a burst in a segment of its own */
};

/* ---- the far side ---- */

struct far_client;
struct far {
	struct tcps *t;
	void *mem;
	const struct path_options *o;
	struct far_client *clients; /* the publisher, then subscribers, then idle ones */
	uint32_t clients_count, started, ready;
	uint64_t now_ns, tick; /* ticks published with a key that is bound */
	uint64_t frame_at;     /* when the frame that is being received left the worker, in the worker's cycles */
	uint64_t first_at, last_at, watched_tick; /* of one tick of the burst: when it left to its first and to its last reader */
	uint64_t deliveries;
	uint32_t first_idx, last_idx; /* who had that tick first and last, in the order of the frames */
	uint32_t watched_count;       /* how many have it */
	uint32_t watched_bursts;
	bool stalled; /* subscriber 0 does not read */
	char why[200];
};

/* `ops` brings the port's two functions, with the context `ctx`; the callbacks of connections are the far side's own. */
bool far_init(struct far *f, const struct path_options *o, const struct tcps_ops *port, void *ctx, uint64_t now_ns);
void far_fini(struct far *f);
/* Opens connections, a few at a time; true when every client has done what it does before the first tick. */
bool far_set_up(struct far *f);
/* Writes ticks into the publisher's connection: to everybody, or with a key that is bound nowhere. */
void far_publish(struct far *f, uint32_t count, bool to_nobody);
/* The subscriber that was first, or last, most often, as a multiple of an even share; `bursts` of them were counted. */
struct far_fairness {
	uint32_t bursts;
	double first, last;
};
void far_fairness(const struct far *f, struct far_fairness *out);
/* Every subscriber that reads has every tick. */
bool far_all_came(const struct far *f);
void far_stall(struct far *f, bool stall);
/* How many more idle ones there are from now on. */
void far_more_idle(struct far *f, uint32_t count);

/* ---- the worker's side ---- */

/* What one run of the worker cost. Cycles are those between a receive burst's end and the next one's begin, less the port's own. */
struct path_cost {
	uint64_t ticks, deliveries, turns, frames_in, frames_out;
	uint64_t cycles;
	uint64_t tick_turns, tick_cycles;                            /* turns that brought ticks; the others brought ACKs alone */
	uint64_t receive_cycles, flush_cycles;                       /* of the turns with ticks: until the flush, and the flush */
	uint64_t samples, parse_cycles, route_cycles, render_cycles; /* of each burst's first tick */
	uint64_t skew_cycles, skew_bursts;
};

struct path;
bool path_start_eal(const char *program, bool hugepages, char *err, size_t err_bytes);
void path_stop_eal(void);
/* A worker with everybody connected and the routes in its cache. Errors: NULL and a sentence. */
struct path *path_new(const struct path_options *o, uint32_t idle_later, char *err, size_t err_bytes);
void path_free(struct path *p);
/* Runs the worker until `bursts` bursts went through and all is acknowledged. `stages`: with the time stamps inside. */
bool path_run(struct path *p, uint64_t bursts, bool to_nobody, bool stages, struct path_cost *out);
/* The same inside a function of its own, with the far side outside of it: what callgrind is told to look at. */
bool path_run_counted(struct path *p, uint64_t bursts, bool to_nobody, struct path_cost *out);
void path_fairness(const struct path *p, struct far_fairness *out);
bool path_stall(struct path *p, bool stall);
bool path_more_idle(struct path *p, uint32_t count);
/* Nothing is left anywhere that was lent or taken. */
bool path_check(struct path *p);
const char *path_why(const struct path *p);

#endif
