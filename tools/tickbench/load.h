/* One load against one broker: what is asked, what is measured, and the two halves (publisher, subscribers) that do it.
 * Runs inside tickbench: on one thread by default, or the publisher on a thread of its own.
 * Specification: AMQP 0-9-1 towards the broker; open loop towards the figures. */
#ifndef TICKBENCH_LOAD_H
#define TICKBENCH_LOAD_H

#include "tools/tickbench/conn.h"
#include "tools/tickbench/deliver.h"
#include "tools/tickbench/hist.h"
#include "tools/tickbench/sched.h"
#include "tools/tickbench/track.h"

#include <stdatomic.h>

enum tb_type { TB_TYPE_DIRECT, TB_TYPE_FANOUT, TB_TYPE_TOPIC, TB_TYPE_HEADERS, TB_TYPE_COUNT };

const char *tb_type_name(enum tb_type type);

struct tb_load {
	const struct tb_transport *via;
	struct tb_endpoint broker;
	struct tb_login login;
	enum tb_type type;
	uint32_t subscribers;
	uint64_t rate_per_s;
	uint32_t size_bytes;
	uint32_t symbols;
	uint32_t bindings;          /* extra ones for each queue that never match */
	uint32_t matching_bindings; /* extra ones for each queue that do match */
	uint64_t duration_ns;
	uint64_t warmup_ns;
	uint64_t drain_ns; /* silence after which what is missing counts as lost */
	uint32_t burst;
	uint32_t prefetch; /* 0: no qos */
	bool ack;
	bool confirm;
	bool busy_poll;
	bool progress;
	uint32_t threads;
	int cpus[2];         /* of the (subscribers') thread and of the publisher's; -1: not pinned */
	const char *name;    /* NULL: names of the broker's and of our own making */
	uint64_t give_up_ns; /* find-max: stop as soon as more than 1 % of the deliveries are later than this; 0: never */
};

struct tb_result {
	struct tb_hist all;
	struct tb_hist first;
	struct tb_hist median;
	struct tb_hist last;
	struct tb_hist lateness;    /* of sending, whatever the cause: a broker that does not read included */
	struct tb_hist client_late; /* of rendering while the socket took everything: this client's own slowness */
	struct tb_hist confirm;
	char product[64];
	char version[64];
	uint64_t ticks_scheduled_count;
	uint64_t ticks_sent_count;
	uint64_t ticks_unsent_count; /* were due, but the broker did not take them before the end */
	uint64_t expected_count;     /* deliveries: ticks sent × subscribers */
	uint64_t received_count;
	uint64_t lost_count;
	uint64_t duplicate_count;
	uint64_t reordered_count;
	uint64_t stale_count;
	uint64_t corrupt_count;
	uint64_t unconfirmed_count;
	uint64_t nacked_count;
	uint64_t untracked_count;  /* deliveries too late for the per-tick ranks */
	uint64_t first_most_count; /* ticks of whoever was first most often; over several runs the sum of each one's */
	uint64_t last_most_count;  /* the same for last */
	uint32_t blocked_count;
	double ticks_per_s;      /* reached, over the measured part */
	double deliveries_per_s; /* reached, over the measured part */
	double measured_s;
	bool interrupted;
	bool gave_up;
	double busy_share;   /* of the loop's time, in turns that published or received something; 0: not polling */
	enum tb_exit status; /* of the connection side: 0, 69, 70, 71, 130 */
	char error[400];
};

bool tb_result_init(struct tb_result *r);
void tb_result_fini(struct tb_result *r);
void tb_result_reset(struct tb_result *r);

/* True when every tick was taken by the broker and delivered once, in order and whole. */
bool tb_result_clean(const struct tb_result *r);

/* Sets up the topology, runs the load, takes it down. Errors: r->status and r->error; figures measured until then stay in r. */
void tb_load_run(const struct tb_load *load, struct tb_result *r);

/* Adds the figures of a further run of the same load. */
void tb_result_merge(struct tb_result *dst, struct tb_result *src);

/* Pins the calling thread; a negative CPU changes nothing. Errors: false. */
bool tb_pin(int cpu);

/* ---- the publisher's half ---- */

struct tb_pub {
	struct tb_conn conn;
	struct tb_sched sched;
	uint32_t run;
	uint32_t symbols;
	struct tb_out templates; /* method and header frame of each symbol, all of one length */
	size_t template_bytes;
	struct tb_out body; /* body frames; the first 32 bytes of payload are written anew for every tick */
	size_t tick_bytes;
	struct tb_out stream; /* rendered ticks that the socket has not taken yet */
	uint64_t stream_sent_bytes;
	_Atomic uint64_t rendered; /* ticks; stored before the first byte leaves */
	_Atomic uint64_t sent;     /* ticks whose last byte the kernel has taken */
	uint64_t last_sent_ns;
	bool blocked; /* the socket has not taken all that was rendered, or flow is stopped: lateness is the broker's doing */
	struct tb_hist *lateness;
	struct tb_hist *client_late;
	struct tb_hist *confirm_ns;
	struct tb_track confirms;
	uint64_t nacked_count;
};

/* Renders the templates for this exchange. Errors: false without memory. */
bool tb_pub_init(struct tb_pub *p, const struct tb_load *load, const char *exchange, uint32_t frame_max);
void tb_pub_fini(struct tb_pub *p);

/* Renders the ticks that are due into the stream, as far as it has room, and records how late this is when the broker is not
 * what held it up. Returns how many. */
uint32_t tb_pub_fill(struct tb_pub *p, uint64_t now_ns);

/* Accounts for bytes that the socket took in a call begun at call_ns; ticks completed by them are sent. */
void tb_pub_account(struct tb_pub *p, size_t bytes, uint64_t call_ns);

/* Fill, send, account. Returns 1 when something moved, 0 when nothing was due or the socket is full, -1 on a lost connection. */
int tb_pub_step(struct tb_pub *p, uint64_t now_ns, bool stopping);

/* Reads what the broker says to the publisher: confirms, flow, blocked, closes. Returns -1 on a lost connection. */
int tb_pub_read(struct tb_pub *p, uint64_t now_ns);

/* True when the stream is at the border of a tick, so that other frames may be sent. */
static inline bool tb_pub_at_border(const struct tb_pub *p)
{
	return p->stream_sent_bytes % p->tick_bytes == 0;
}

/* ---- the subscribers' half ---- */

struct tb_sub {
	struct tb_conn conn;
	struct tb_assembly assembly;
	struct tb_track track;
	uint64_t unacked_tag; /* 0: nothing to acknowledge */
	uint64_t first_count; /* measured ticks that it had before all others */
	uint64_t last_count;  /* ... after all others */
	char queue[256];
};

/* ---- topology ---- */

/* Topic patterns that match one symbol's key and differ from each other. */
#define TB_TOPIC_SHAPES 6

/* The routing key that symbol number i ticks under; the same length for every i. */
void tb_symbol_key(char *out, size_t size, uint32_t symbol);

/* Declares the exchange on the publisher's connection (and confirm.select when asked). */
bool tb_topology_exchange(struct tb_conn *c, const struct tb_load *load, const char *exchange);
/* Declares, binds and consumes one subscriber's queue. */
bool tb_topology_queue(struct tb_sub *s, const struct tb_load *load, const char *exchange, uint32_t index);
/* Deletes the exchange. */
void tb_topology_remove(struct tb_conn *c, const char *exchange);

#endif
