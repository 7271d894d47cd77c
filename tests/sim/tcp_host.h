/*
 * tcp_host.h - one end of the simulated network with a TCP stack on it: memory, transmit frames, a port that can be bad.
 *
 * Owns: the stack's memory, the port's ring of frames that hold references, and the port's misbehaviour (no frames, offload done
 *       here, a middlebox that strips options).
 * Core: tests only.
 * Spec: none.
 */
#ifndef TICKWIRE_SIM_TCP_HOST_H
#define TICKWIRE_SIM_TCP_HOST_H

#include "tcpstack/tcpstack.h"
#include "tests/sim/net.h"

#define HOST_RING_MAX 64u

/* A frame that went out and lies in the port's ring yet, with the pieces that it was made of. */
struct host_chain {
	struct tcps_piece pieces[TCPS_PIECES_MAX];
	unsigned count;
	uint64_t sum; /* of the pieces' bytes as they went out */
	uint64_t until_ns;
};

struct host {
	struct tcps *t;
	void *mem;
	struct net *net;
	unsigned side;
	uint64_t now_ns;
	uint64_t starved_until_ns; /* no transmit frame until then */
	uint32_t starve_chance;    /* of NET_PER: a single attempt fails */
	bool strip_tag;            /* received tags are taken off by the port, and told beside the frame */
	uint32_t mark_chance;      /* of a congestion mark, in 10,000 */
	bool strip_timestamps, strip_wscale, strip_mss;
	bool frame_out; /* a frame was allocated and not sent yet */
	uint64_t frames_refused;
	void *app; /* the `ctx` of the application's callbacks */
	/* Frames of several pieces: how long they stay in the ring, and how often there is no room for one. */
	uint64_t ring_hold_ns;
	uint32_t ring_max;     /* at most HOST_RING_MAX */
	uint32_t chain_refuse; /* one of so many; 0: none */
	uint32_t chain_tries;
	uint64_t chains, chains_refused;
	void (*release)(void *ctx, void *owner);      /* the application's */
	struct host_chain ring[HOST_RING_MAX], chain; /* `chain`: under construction, its head in `frame` */
	uint32_t ring_first, ring_count;
	bool chain_out;
	uint8_t frame[65536];
};

/* A configuration with every field set: 198.18.0.(side + 1)/24, pools small enough that tcps_check() is
 * cheap. */
void host_config(struct tcps_config *cfg, unsigned side);
/* Adds 2001:2::(side + 1)/64; the MTU must be one that IPv6 takes. */
void host_config_ipv6(struct tcps_config *cfg, unsigned side);
/* Takes the callbacks of `app_ops` but those of the port, which are the host's own; their ctx is the host. */
void host_init(struct host *h, struct net *net, unsigned side, const struct tcps_config *cfg, const struct tcps_ops *app_ops,
	       uint64_t now_ns);
void host_fini(struct host *h);
/* The port gives back what lies in its ring: before conservation is looked at. host_fini() does it, too. */
void host_drain(struct host *h);
/* A received frame goes into the stack, as the port hands it over. */
void host_input(struct host *h, const uint8_t *frame, size_t len);
/* The packet in a frame, behind a tag or none; its Ethernet type in *type. */
uint8_t *host_packet(uint8_t *frame, unsigned *type);

#endif
