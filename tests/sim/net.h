/*
 * net.h - a simulated network between two endpoints: seeded, in virtual time, as bad as it is asked to be.
 *
 * Owns: frames in flight and the random source of a run.
 * Core: tests only. It knows frames, not stacks: whoever has an Ethernet frame can put it in and gets it out on the other side.
 * Spec: none.
 */
#ifndef TICKWIRE_SIM_NET_H
#define TICKWIRE_SIM_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_SIDES     2u
#define NET_FRAME_MAX 9216u
#define NET_PER       10000u /* chances are so many in 10,000 */
#define NET_NEVER     UINT64_MAX

/* One direction of the wire. */
struct net_params {
	uint32_t drop, duplicate, reorder, corrupt;
	uint64_t delay_min_ns, delay_max_ns; /* drawn for each frame; order is kept all the same ... */
	uint64_t reorder_extra_ns;           /* ... but for frames that `reorder` holds back by up to this much */
	bool reorder_at_once;                /* ... or lets overtake: they arrive without delay, as Linux's netem has it */
	uint64_t bytes_per_second;           /* 0: no limit */
	uint32_t queue_max;                  /* frames in flight in this direction; 0: no limit */
};

struct net_stats {
	uint64_t sent, delivered, dropped, duplicated, reordered, corrupted;
};

struct net;

/* Errors: NULL when there is no memory. */
struct net *net_new(uint64_t seed);
void net_free(struct net *n);
/* The direction that begins at `side`. */
void net_set(struct net *n, unsigned side, const struct net_params *p);
/* Nothing that is sent from `side` before `until_ns` arrives. */
void net_blackhole(struct net *n, unsigned side, uint64_t until_ns);
void net_send(struct net *n, unsigned side, const uint8_t *frame, size_t len, uint64_t now_ns);
/* When the next frame arrives; NET_NEVER: none is in flight. */
uint64_t net_next_ns(const struct net *n);
/* Takes the next frame that has arrived by `now_ns`; its length, or 0. `side`: where it comes out. */
size_t net_receive(struct net *n, uint64_t now_ns, unsigned *side, uint8_t frame[NET_FRAME_MAX]);
const struct net_stats *net_stats(const struct net *n);

/* The run's random source: everything random in a simulation is drawn from it, so that the seed tells all. */
uint64_t net_random(struct net *n);
/* 0 .. bound-1 */
uint64_t net_below(struct net *n, uint64_t bound);
bool net_chance(struct net *n, uint32_t in_10000);
/* lowest .. highest, small values as likely as large ones: uniform in magnitude. */
uint64_t net_spread(struct net *n, uint64_t lowest, uint64_t highest);

#endif
