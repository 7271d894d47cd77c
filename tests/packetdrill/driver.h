/*
 * driver.h - the inside of the packetdrill library: one stack on a virtual clock, and the sockets on top of it.
 *
 * Owns: struct driver, one a script; every field is guarded by its mutex.
 * Core: tests only. packetdrill calls from two threads: one plays packets and time, one sits in blocking calls.
 * Spec: POSIX sockets where the calls name them; README.md says what is left out.
 */
#ifndef TICKWIRE_PACKETDRILL_DRIVER_H
#define TICKWIRE_PACKETDRILL_DRIVER_H

#include "tcpstack/tcpstack.h"
#include "tests/packetdrill/interface.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define FD_BASE       1000 /* ours; what is below belongs to the kernel */
#define SOCKS_MAX     256
#define BACKLOG_MAX   128
#define EPOLLS_MAX    16
#define EPOLL_FDS_MAX 64
#define FRAME_MAX     9216u

struct frame {
	struct frame *next;
	uint64_t at_ns;
	size_t len;
	uint8_t bytes[];
};

enum sock_kind { SOCK_FREE, SOCK_FRESH, SOCK_LISTENING, SOCK_CONNECTING, SOCK_CONNECTED, SOCK_ENDED };

struct sock {
	struct driver *d;
	enum sock_kind kind;
	bool has_fd; /* false: waits in a backlog, or was closed and lives on until its connection ends */
	struct tcps_conn *conn;
	struct sock *listener; /* whose backlog it waits in */
	uint64_t accept_order;
	uint16_t local_port;
	uint16_t backlog;
	bool nonblocking, reuse_address, readable, eof, read_shut, write_shut;
	int error; /* SO_ERROR */
	struct linger linger;
	uint32_t send_buffer_bytes, recv_buffer_bytes;
	uint64_t recv_timeout_ns, send_timeout_ns;
	struct tcps_conn_info last; /* of a connection that has ended */
	uint64_t read_bytes;
	/* a read that is going on: on_data() fills it */
	uint8_t *into;
	size_t into_len, into_got;
	bool peeking;
};

struct epoll_set {
	bool used;
	unsigned count;
	struct {
		int fd;
		struct epoll_event event;
		uint32_t reported; /* what an edge-triggered or one-shot entry has told already */
	} entry[EPOLL_FDS_MAX];
};

struct driver {
	pthread_mutex_t mutex;
	pthread_cond_t changed;   /* a call that waits may go on */
	pthread_cond_t settled;   /* every waiting call has looked at the last change */
	uint64_t generation;      /* of changes */
	unsigned waiting, unseen; /* calls that wait; those of them that have not seen the last change */
	uint64_t alarm_ns;        /* the first time-out among them */

	struct tcps *t;
	void *mem;
	struct tcps_config cfg;
	uint64_t now_ns;
	struct frame *first, **last; /* sent by the stack, not fetched yet */
	struct frame *being_written;
	uint8_t peer_mac[6];

	struct sock *socks[SOCKS_MAX]; /* by fd - FD_BASE */
	struct sock *orphans[SOCKS_MAX];
	struct epoll_set epolls[EPOLLS_MAX];
	uint16_t next_port;
	uint64_t accepted_count;
};

/* driver.c: the clock and the wire. All want the mutex held. */
void driver_advance(struct driver *d, uint64_t until_ns); /* runs every timer on the way */
void driver_flush(struct driver *d);
/* Tells waiting calls that something changed, and waits until each has looked. */
void driver_settle(struct driver *d);
/*
 * Waits for the next change. False: `until_ns` of virtual time is reached, or nobody has moved the clock for seconds
 * of real time (errno tells: EAGAIN, EDEADLK).
 */
bool driver_wait(struct driver *d, uint64_t until_ns);

/* socket.c */
extern const struct tcps_ops sock_ops;
struct sock *sock_of(struct driver *d, int fd); /* NULL, and errno EBADF */
struct sock *sock_new(struct driver *d);
void sock_delete(struct sock *s);
void socket_calls(struct packetdrill_interface *table);
uint32_t sock_poll(const struct sock *s); /* POLLIN, POLLOUT, POLLERR, POLLHUP, POLLRDHUP */
size_t sock_unread(const struct sock *s);
size_t sock_unsent(const struct sock *s);

/* transfer.c: reading and writing */
void transfer_calls(struct packetdrill_interface *table);
ssize_t sock_read(struct sock *s, void *buf, size_t len, int flags);
ssize_t sock_write(struct sock *s, const void *buf, size_t len, int flags);

/* option.c, event.c */
void option_calls(struct packetdrill_interface *table);
void event_calls(struct packetdrill_interface *table);
void epoll_forget(struct driver *d, int fd);

#endif
