/*
 * tcp_app.h - the application at one end of a simulated connection: what it sends, reads, stalls and closes.
 *
 * Owns: the expected streams. Every byte that arrives is compared with what the other end sent at that place.
 * Core: tests only.
 * Spec: none.
 */
#ifndef TICKWIRE_SIM_TCP_APP_H
#define TICKWIRE_SIM_TCP_APP_H

#include "tests/sim/tcp_host.h"

enum app_style { APP_BULK, APP_PINGPONG, APP_SMALL, APP_STYLES };
enum app_family { APP_IPV4, APP_IPV6, APP_LINK_LOCAL, APP_FAMILIES };

struct app {
	struct host *host;
	struct net *net; /* the dice */
	struct app *peer;
	struct tcps_conn *conn;
	unsigned id; /* of the stream that it sends */
	enum app_style style;
	enum app_family family;
	bool server;
	bool connects; /* opens actively; both ends do where the open is simultaneous */

	uint64_t send_total, sent, received;
	uint64_t chunk;        /* ping-pong: bytes a turn */
	uint32_t stall_chance; /* of NET_PER: a call of on_data() stops reading */
	uint64_t stall_max_ns;
	bool shut_after_eof;    /* waits for the other end's FIN before its own */
	uint64_t abort_at_ns;   /* 0: never */
	bool abort_in_callback; /* ... and then from inside on_data() */
	uint64_t next_act_ns, resume_at_ns;

	bool open, eof, shut, closed, abort_wanted, accepted;
	enum tcps_reason reason;
	const char *broken; /* what went wrong, in a sentence */
	uint32_t *refs_out; /* references given and not yet released, in the whole run */
};

extern const struct tcps_ops app_ops;

/* The byte at a place of a stream: what arrives is compared with it. */
uint8_t app_byte(unsigned id, uint64_t off);

/* Does what is due; returns when it next wants to be called. */
uint64_t app_act(struct app *a, uint64_t now_ns);
/* False: the stack would not, because the tuple is still in TIME_WAIT. */
bool app_connect(struct app *a, uint16_t local_port, uint16_t port, uint64_t now_ns);
/* The server's half of a connection from `peer_port`; supplied by the simulation. */
struct app *app_for(struct host *h, uint16_t peer_port);

#endif
