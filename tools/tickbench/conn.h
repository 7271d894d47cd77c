/* One client connection to an AMQP 0-9-1 broker: a stream that never blocks, handshake, synchronous calls, heartbeats, close.
 * Runs inside tickbench on the thread that owns the connection; nothing here is shared between threads.
 * Specification: AMQP 0-9-1, sections 2.2.4, 4.2 and the connection and channel classes; RabbitMQ's connection.blocked. */
#ifndef TICKBENCH_CONN_H
#define TICKBENCH_CONN_H

#include "tools/tickbench/transport.h"
#include "tools/tickbench/wire.h"

#include <stdatomic.h>

#define TB_CONN_IN_MIN_BYTES  ((size_t)256 * 1024)
#define TB_CONN_OUT_BYTES     ((size_t)64 * 1024)
#define TB_FRAME_MAX_WANTED   131072
#define TB_CALL_TIMEOUT_NS    UINT64_C(10000000000)
#define TB_CONNECT_TIMEOUT_NS UINT64_C(5000000000)

/* Exit statuses, from sysexits.h where it has one. */
enum tb_exit {
	TB_EXIT_OK = 0,
	TB_EXIT_LOSS = 1,
	TB_EXIT_USAGE = 64,
	TB_EXIT_UNAVAILABLE = 69,
	TB_EXIT_PROTOCOL = 70,
	TB_EXIT_OSERR = 71,
	TB_EXIT_CANTCREAT = 73,
	TB_EXIT_INTERRUPTED = 130,
};

/* Set by the signal handler: everything that waits looks at it. */
extern _Atomic int tb_stop_signal;

struct tb_endpoint {
	char host[256];
	char port[8];
	char text[272]; /* HOST:PORT as it is printed */
};

struct tb_login {
	const char *user;
	const char *password;
	const char *vhost;
};

struct tb_conn {
	const struct tb_transport *via;
	bool connected;
	int fd;       /* of a kernel socket */
	void *stream; /* of another transport */
	void *tag;    /* what ready() calls it */
	uint32_t frame_max;
	uint16_t channel_max;
	uint16_t heartbeat_s;
	uint8_t *in;
	size_t in_cap;
	size_t in_head;
	size_t in_tail;
	struct tb_out out;
	uint64_t last_rx_ns;
	uint64_t last_tx_ns;
	bool flow_stopped; /* channel.flow(active=0): publishing pauses */
	bool blocked;      /* connection.blocked */
	uint32_t blocked_count;
	bool closed_by_us;   /* connection.close was sent: anything but close-ok is discarded */
	enum tb_exit failed; /* what this connection's end means for the exit status */
	char error[400];
	char product[64];
	char version[64];
};

/* Connects by this transport, authenticates and opens the virtual host.
 * Errors: false with failed and error set (69 unreachable, 70 the peer broke or refused the protocol, 130 interrupted). */
bool tb_conn_open(struct tb_conn *c, const struct tb_transport *via, const struct tb_endpoint *peer, const struct tb_login *login);

/* Frees everything; the stream is closed as it is. */
void tb_conn_fini(struct tb_conn *c);

/* Sends what is queued in out, as much as the transport takes. Errors: false when the connection is gone. */
bool tb_conn_flush(struct tb_conn *c, uint64_t now_ns);

/* Receives once into the buffer. Returns the bytes received, 0 when none are there, -1 when the connection is gone. */
long tb_conn_fill(struct tb_conn *c, uint64_t now_ns);

/* Moves what is not taken in yet to the front of the buffer: at most one partial frame, where all whole ones were taken. */
static inline void tb_conn_compact(struct tb_conn *c)
{
	if (c->in_head == 0)
		return;
	memmove(c->in, c->in + c->in_head, c->in_tail - c->in_head);
	c->in_tail -= c->in_head;
	c->in_head = 0;
}

/* Takes the next whole frame out of the buffer. Returns 1, 0 when there is none, -1 after a framing error. */
static inline int tb_conn_next(struct tb_conn *c, struct tb_frame *f);

/* Treats what any connection may get at any time: heartbeats, closes, blocked, flow.
 * Returns 1 when the frame was such a one, 0 when it is the caller's, -1 when it ended the connection. */
int tb_conn_common(struct tb_conn *c, const struct tb_frame *f);

/* Flushes, then waits for this method; other common frames are served meanwhile.
 * Errors: false with failed and error set; *reply is lent until the next fill. */
bool tb_conn_expect(struct tb_conn *c, enum tb_method wanted, struct tb_frame *reply, const char *what);

/* Sends heartbeats when the connection has been silent for half the interval, and notices a peer silent for two. */
bool tb_conn_heartbeat(struct tb_conn *c, uint64_t now_ns);

/* Says connection.close; tb_conn_finish_close waits for the answer until the deadline and closes the stream. */
void tb_conn_begin_close(struct tb_conn *c, uint64_t now_ns);
void tb_conn_finish_close(struct tb_conn *c, uint64_t deadline_ns);

/* Marks the connection as failed, with a sentence; the first failure is kept. Always returns false. */
bool tb_conn_fail(struct tb_conn *c, enum tb_exit status, const char *format, ...) __attribute__((format(printf, 3, 4)));

bool tb_conn_bad_frame(struct tb_conn *c, enum tb_parse why);

static inline int tb_conn_next(struct tb_conn *c, struct tb_frame *f)
{
	size_t used;
	enum tb_parse r = tb_frame_parse(c->in + c->in_head, c->in_tail - c->in_head, c->frame_max, f, &used);

	if (r == TB_PARSE_FRAME) {
		c->in_head += used;
		return 1;
	}
	if (r == TB_PARSE_MORE)
		return 0;
	tb_conn_bad_frame(c, r);
	return -1;
}

#endif
