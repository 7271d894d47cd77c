/*
 * lwip_host.h - the other end of the simulated network: Debian's lwIP, single-threaded and in virtual time.
 *
 * Owns: lwIP's one interface and its connections. lwIP keeps its state in globals, so a process has one such host at most.
 * Core: tests only. lwIP's own thread is never started: frames, timers and the raw API are driven from the caller's.
 * Spec: none; lwIP 2.1 is the independent reading of RFC 793 that the stack is compared with.
 */
#ifndef TICKWIRE_SIM_LWIP_HOST_H
#define TICKWIRE_SIM_LWIP_HOST_H

#include "tests/sim/tcp_app.h"

struct tcp_pcb;
struct pbuf;

/* An application on lwIP: `app` says what it wants, as on the other side; its `host` and `conn` stay NULL. */
struct lwip_end {
	struct app app;
	struct tcp_pcb *pcb;
	struct pbuf *held; /* taken from lwIP, not read yet: the window stays shut for it */
	bool refuses;      /* stalls by refusing what lwIP hands over, not by holding it */
	bool eof_waits;    /* the end came while bytes are held */
	bool nagle;
	uint32_t refusals;
};

/* Starts lwIP with 198.18.0.(side + 1)/24 on that side of the net. Called once a process. */
void lwip_host_start(struct net *net, unsigned side, uint16_t mtu, uint64_t now_ns);
void lwip_host_listen(uint16_t port);
void lwip_host_input(const uint8_t *frame, size_t len, uint64_t now_ns);
/* Runs lwIP's timers that are due. */
void lwip_host_tick(uint64_t now_ns);
/* When lwIP's timers next want to run; its cyclic ones always do. */
uint64_t lwip_host_next_ns(void);
/* No connection is left, TIME_WAIT included. */
bool lwip_host_idle(void);

/* Active open. False: lwIP would not. */
bool lwip_connect(struct lwip_end *e, uint16_t local_port, uint16_t port);
/* Does what is due; returns when it next wants to be called. */
uint64_t lwip_act(struct lwip_end *e, uint64_t now_ns);
/* What lwIP thinks of the connection, for whoever looks at a failed seed. */
void lwip_print(const struct lwip_end *e);
/* The end for an accepted connection from `peer_port`, or NULL; supplied by the simulation. */
struct lwip_end *lwip_end_for(uint16_t peer_port);

#endif
