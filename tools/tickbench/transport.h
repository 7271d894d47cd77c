/* What carries the bytes of connections: kernel sockets (sock.c), or a TCP stack of our own on a DPDK port (port.c).
 * Runs inside tickbench on the thread that owns the connections; scheduler, tracker and reports know only what is here.
 * Specification: none; a call that takes or brings bytes never waits, and says why a stream has ended with errno. */
#ifndef TICKBENCH_TRANSPORT_H
#define TICKBENCH_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct tb_conn;
struct tb_endpoint;

/* The connections that one loop looks after. */
struct tb_watch {
	int epoll_fd; /* of kernel sockets; -1: none */
};

struct tb_transport {
	/* Connects within the time-out. Errors: false, with the connection's failure set. */
	bool (*connect)(struct tb_conn *c, const struct tb_endpoint *peer);
	/* Returns the bytes taken, fewer when there is no room, 0 when there is none; -1 with errno when the stream has ended. */
	long (*send)(struct tb_conn *c, const uint8_t *bytes, size_t length);
	/* Appends what has come to the buffer. Returns how much, 0 for nothing; -1 at the end, with errno (0: the peer's own wish).
	 */
	long (*fill)(struct tb_conn *c);
	/* Waits until there is something to fill in, or room for what is queued in out, `ms` at most. */
	void (*wait)(struct tb_conn *c, int ms);
	/* Ends the stream and frees what belongs to it. */
	void (*close)(struct tb_conn *c);

	bool (*watch_open)(struct tb_watch *w);
	bool (*watch)(struct tb_watch *w, struct tb_conn *c, void *tag);
	/* Whether ready() should also end when there is room to send again. */
	void (*watch_out)(struct tb_watch *w, struct tb_conn *c, bool wanted);
	/* Sends what waits to be sent, waits no longer than `ts`, and stores the tags of connections to fill. Returns how many. */
	int (*ready)(struct tb_watch *w, void **tags, int max, const struct timespec *ts);
	void (*watch_close)(struct tb_watch *w);
	unsigned direct_max; /* so many connections are cheaper to fill one by one than to ask for with ready() */
};

extern const struct tb_transport tb_sockets;

#endif
