/*
 * broker_client.h - AMQP clients on a simulated host: publishers and consumers that keep account of every message.
 *
 * Owns: the clients' connections, and the ledger: which message each queue has to deliver, which came, in what order.
 * Core: tests only.
 * Spec: AMQP 0-9-1; expectations come from matcher's naive oracle and from rules written out here, not from the broker's code.
 */
#ifndef TICKWIRE_SIM_BROKER_CLIENT_H
#define TICKWIRE_SIM_BROKER_CLIENT_H

#include "tests/sim/tcp_host.h"

#define CLIENTS_MAX    6u
#define PUBLISHERS_MAX 2u
#define MESSAGES_MAX   200u
#define BINDINGS_MAX   6u

enum client_state { CLIENT_DOWN, CLIENT_CONNECTING, CLIENT_SETUP, CLIENT_READY, CLIENT_CLOSING, CLIENT_DONE };
enum sim_exchange { SIM_DIRECT, SIM_FANOUT, SIM_TOPIC, SIM_HEADERS, SIM_EXCHANGES };
extern const char *const sim_exchange_name[SIM_EXCHANGES];

struct client_binding {
	enum sim_exchange exchange;
	char key[32];
	uint8_t any, want[2]; /* headers: x-match any; value of h0, h1, 255: not named */
};

struct client {
	struct clients *all;
	enum client_state state;
	bool publisher, no_ack;
	unsigned idx;  /* among its kind */
	unsigned step; /* of the set-up */
	struct tcps_conn *conn;
	uint64_t connect_at_ns, act_at_ns;
	uint8_t *in, *out;
	size_t in_len, in_cap, out_len, out_cap;
	uint32_t server_frame_max;
	/* consumer */
	struct client_binding bindings[BINDINGS_MAX];
	unsigned bindings_count;
	uint16_t prefetch;
	uint64_t last_tag, acked_tag;
	uint32_t aborts_left, nacks_left, stall_left;
	uint64_t stalled_until_ns;
	bool held_back; /* on_data() left bytes: resume when the stall ends */
	/* content in assembly */
	bool redelivered;
	uint64_t body_size, body_got, tag;
	uint8_t *body;
	/* publisher */
	uint32_t to_publish, published, confirmed;
	uint64_t channel_opened_ns;
};

enum { LEDGER_NONE, LEDGER_DUE, LEDGER_CAME };

struct clients {
	struct host host;
	struct net *net;
	struct client client[CLIENTS_MAX];
	unsigned count, publishers, consumers;
	uint8_t ledger[CLIENTS_MAX][PUBLISHERS_MAX][MESSAGES_MAX]; /* by consumer, publisher, sequence number */
	int64_t last_fresh[CLIENTS_MAX][PUBLISHERS_MAX];
	uint64_t due, came, duplicates, redelivered, aborts;
	uint64_t now_ns;
	bool closing;
	char why[200];
};

void clients_init(struct clients *cs, struct net *net, uint64_t now_ns);
void clients_fini(struct clients *cs);
/* Everybody acts; the time at which someone wants to act again. */
uint64_t clients_act(struct clients *cs, uint64_t now_ns);
bool clients_set_up(const struct clients *cs);    /* every consumer has subscribed */
bool clients_delivered(const struct clients *cs); /* published, confirmed, and all that is due has come */
bool clients_done(const struct clients *cs);      /* closed */

#endif
