/*
 * socket.c - sockets on the stack: open, listen, accept, connect, close; and what the stack tells them.
 *
 * Owns: struct sock. A connection that has ended leaves its socket until it is closed; a closed socket lives until its
 *       connection has ended.
 * Core: tests only.
 * Spec: POSIX.1-2017 socket calls, as far as they can be told apart on the wire.
 */
#include "tests/packetdrill/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EPHEMERAL_FIRST 32768u

static int fail(int error)
{
	errno = error;
	return -1;
}

/* ---- the table ---- */

struct sock *sock_of(struct driver *d, int fd)
{
	if (fd < FD_BASE || fd >= FD_BASE + SOCKS_MAX || d->socks[fd - FD_BASE] == NULL) {
		errno = EBADF;
		return NULL;
	}
	return d->socks[fd - FD_BASE];
}

static int give_fd(struct driver *d, struct sock *s)
{
	for (int i = 0; i < SOCKS_MAX; i++) {
		if (d->socks[i] == NULL) {
			d->socks[i] = s;
			s->has_fd = true;
			return FD_BASE + i;
		}
	}
	return fail(EMFILE);
}

/* Without an fd it is kept here, so that nothing is lost when the script ends. */
static bool make_orphan(struct driver *d, struct sock *s)
{
	for (unsigned i = 0; i < SOCKS_MAX; i++) {
		if (d->orphans[i] == NULL) {
			d->orphans[i] = s;
			s->has_fd = false;
			return true;
		}
	}
	return false;
}

struct sock *sock_new(struct driver *d)
{
	struct sock *s = calloc(1, sizeof(*s));
	if (s != NULL) {
		s->d = d;
		s->kind = SOCK_FRESH;
		s->send_buffer_bytes = d->cfg.send_high_water_bytes;
		s->recv_buffer_bytes = d->cfg.recv_window_bytes;
		s->recv_timeout_ns = s->send_timeout_ns = UINT64_MAX;
	}
	return s;
}

static void leave_table(struct sock *s)
{
	struct driver *d = s->d;
	for (int i = 0; i < SOCKS_MAX; i++) {
		if (d->socks[i] == s) {
			d->socks[i] = NULL;
			epoll_forget(d, FD_BASE + i);
		}
		if (d->orphans[i] == s)
			d->orphans[i] = NULL;
	}
}

void sock_delete(struct sock *s)
{
	leave_table(s);
	free(s);
}

/* ---- what the stack tells ---- */

static struct sock *listener_on(struct driver *d, uint16_t port)
{
	for (unsigned i = 0; i < SOCKS_MAX; i++) {
		struct sock *s = d->socks[i];
		if (s != NULL && s->kind == SOCK_LISTENING && s->local_port == port)
			return s;
	}
	return NULL;
}

static struct sock *first_in_backlog(const struct sock *listener, unsigned *count)
{
	struct sock *first = NULL;
	*count = 0;
	for (unsigned i = 0; i < SOCKS_MAX; i++) {
		struct sock *s = listener->d->orphans[i];
		if (s == NULL || s->listener != listener)
			continue;
		++*count;
		if (first == NULL || s->accept_order < first->accept_order)
			first = s;
	}
	return first;
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	struct driver *d = ctx;
	struct sock *listener = listener_on(d, local_port);
	unsigned waiting;
	(void)peer;
	if (listener == NULL)
		return NULL;
	first_in_backlog(listener, &waiting);
	struct sock *s = waiting > listener->backlog ? NULL : sock_new(d);
	if (s == NULL || !make_orphan(d, s)) {
		free(s);
		return NULL;
	}
	s->kind = SOCK_CONNECTED;
	s->conn = conn;
	s->listener = listener;
	s->local_port = local_port;
	s->accept_order = ++d->accepted_count;
	s->send_buffer_bytes = listener->send_buffer_bytes;
	s->recv_buffer_bytes = listener->recv_buffer_bytes;
	return s;
}

static void on_connected(void *user)
{
	struct sock *s = user;
	s->kind = SOCK_CONNECTED;
}

/* Bytes stay in the stack, and in its window, until somebody reads them. */
static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct sock *s = user;
	if (!s->has_fd && s->listener == NULL) {
		tcps_abort(s->conn); /* nobody will ever read them: RFC 9293 3.6.1 */
		return 0;
	}
	if (s->read_shut)
		return len;
	size_t n = s->into == NULL ? 0 : s->into_len - s->into_got;
	n = n < len ? n : len;
	if (n > 0)
		memcpy(s->into + s->into_got, data, n);
	s->into_got += n;
	s->readable = n < len || s->peeking;
	return s->peeking ? 0 : n;
}

static void on_eof(void *user)
{
	struct sock *s = user;
	s->eof = true;
}

static void on_writable(void *user)
{
	(void)user; /* whoever waits asks tcps_writable() after every change */
}

static void on_closed(void *user, enum tcps_reason reason)
{
	struct sock *s = user;
	bool opening = s->kind == SOCK_CONNECTING;
	tcps_info(s->conn, &s->last);
	s->conn = NULL;
	s->kind = SOCK_ENDED;
	if (reason == TCPS_CLOSED_RESET)
		s->error = opening ? ECONNREFUSED : s->eof ? EPIPE : ECONNRESET;
	else if (reason == TCPS_CLOSED_REFUSED)
		s->error = ECONNREFUSED;
	else if (reason == TCPS_CLOSED_TIMEOUT)
		s->error = ETIMEDOUT;
	else if (reason == TCPS_CLOSED_NO_BUFFERS)
		s->error = ENOBUFS;
	if (!s->has_fd && s->listener == NULL)
		sock_delete(s);
}

static void release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner; /* no references are given */
}

const struct tcps_ops sock_ops = {.on_accept = on_accept,
				  .on_connected = on_connected,
				  .on_data = on_data,
				  .on_eof = on_eof,
				  .on_writable = on_writable,
				  .on_closed = on_closed,
				  .release = release};

/* ---- calls ---- */

static int drill_socket(void *user, int domain, int type, int protocol)
{
	struct driver *d = user;
	if (domain != AF_INET)
		return fail(EAFNOSUPPORT);
	if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM || (protocol != 0 && protocol != IPPROTO_TCP))
		return fail(EPROTONOSUPPORT);
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_new(d);
	int fd = s == NULL ? fail(ENOMEM) : give_fd(d, s);
	if (fd < 0)
		free(s);
	else
		s->nonblocking = (type & SOCK_NONBLOCK) != 0;
	pthread_mutex_unlock(&d->mutex);
	return fd;
}

static const struct sockaddr_in *ipv4_address(const struct sockaddr *addr, socklen_t len)
{
	if (addr == NULL || len < sizeof(struct sockaddr_in) || addr->sa_family != AF_INET) {
		errno = addr != NULL && addr->sa_family != AF_INET ? EAFNOSUPPORT : EINVAL;
		return NULL;
	}
	return (const struct sockaddr_in *)(const void *)addr;
}

static bool port_taken(const struct driver *d, const struct sock *self, uint16_t port)
{
	for (unsigned i = 0; i < SOCKS_MAX; i++) {
		const struct sock *s = d->socks[i];
		if (s != NULL && s != self && s->local_port == port && !(self->reuse_address && s->kind != SOCK_LISTENING))
			return true;
	}
	return false;
}

static uint16_t pick_port(struct driver *d, const struct sock *s)
{
	do {
		d->next_port = d->next_port < 60999 ? (uint16_t)(d->next_port + 1) : EPHEMERAL_FIRST;
	} while (port_taken(d, s, d->next_port));
	return d->next_port;
}

static int drill_bind(void *user, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct driver *d = user;
	const struct sockaddr_in *in = ipv4_address(addr, len);
	if (in == NULL)
		return -1;
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	int result = 0;
	uint16_t port = ntohs(in->sin_port);
	if (s == NULL)
		result = -1;
	else if (s->kind != SOCK_FRESH || s->local_port != 0)
		result = fail(EINVAL);
	else if (in->sin_addr.s_addr != INADDR_ANY && memcmp(&in->sin_addr, d->cfg.ipv4, 4) != 0)
		result = fail(EADDRNOTAVAIL);
	else if (port != 0 && port_taken(d, s, port))
		result = fail(EADDRINUSE);
	else
		s->local_port = port != 0 ? port : pick_port(d, s);
	pthread_mutex_unlock(&d->mutex);
	return result;
}

static int drill_listen(void *user, int fd, int backlog)
{
	struct driver *d = user;
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	int result = 0;
	if (s == NULL)
		result = -1;
	else if (s->kind != SOCK_FRESH && s->kind != SOCK_LISTENING)
		result = fail(EINVAL);
	else {
		if (s->local_port == 0)
			s->local_port = pick_port(d, s);
		if (s->kind == SOCK_FRESH && !tcps_listen(d->t, s->local_port))
			result = fail(EADDRINUSE);
		else
			s->kind = SOCK_LISTENING;
		s->backlog = (uint16_t)(backlog < 0 ? 0 : backlog > BACKLOG_MAX ? BACKLOG_MAX : backlog);
	}
	pthread_mutex_unlock(&d->mutex);
	return result;
}

static void write_address(const struct sock *s, bool peer, struct sockaddr *addr, socklen_t *len)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct tcps_endpoint local, remote;
	if (addr == NULL || len == NULL)
		return;
	if (s->conn != NULL) {
		tcps_endpoints(s->conn, &local, &remote);
		const struct tcps_endpoint *e = peer ? &remote : &local;
		in.sin_port = htons(e->port);
		memcpy(&in.sin_addr, e->addr.bytes, 4);
	}
	memcpy(addr, &in, *len < sizeof(in) ? *len : sizeof(in));
	*len = sizeof(in);
}

static int drill_accept(void *user, int fd, struct sockaddr *addr, socklen_t *len)
{
	struct driver *d = user;
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd), *child = NULL;
	int result = -1;
	unsigned waiting;
	uint64_t until_ns = s == NULL || s->recv_timeout_ns == UINT64_MAX ? UINT64_MAX : d->now_ns + s->recv_timeout_ns;
	while (s != NULL) {
		if (s->kind != SOCK_LISTENING) {
			fail(EINVAL);
			break;
		}
		child = first_in_backlog(s, &waiting);
		if (child != NULL)
			break;
		if (s->nonblocking) {
			fail(EAGAIN);
			break;
		}
		if (!driver_wait(d, until_ns))
			break;
		s = sock_of(d, fd);
	}
	if (child != NULL) {
		leave_table(child);
		child->listener = NULL;
		result = give_fd(d, child);
		if (result < 0)
			make_orphan(d, child);
		else
			write_address(child, true, addr, len);
	}
	pthread_mutex_unlock(&d->mutex);
	return result;
}

static int start_connect(struct driver *d, struct sock *s, const struct sockaddr_in *in)
{
	struct tcps_endpoint peer = {.addr.family = 4, .port = ntohs(in->sin_port)};
	memcpy(peer.addr.bytes, &in->sin_addr, 4);
	if (s->kind == SOCK_CONNECTING)
		return fail(EALREADY);
	if (s->kind != SOCK_FRESH)
		return fail(EISCONN);
	if (s->local_port == 0)
		s->local_port = pick_port(d, s);
	s->conn = tcps_connect(d->t, &peer, s->local_port, s, d->now_ns);
	if (s->conn == NULL)
		return fail(EADDRNOTAVAIL);
	s->kind = SOCK_CONNECTING;
	driver_flush(d);
	return 0;
}

static int drill_connect(void *user, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct driver *d = user;
	const struct sockaddr_in *in = ipv4_address(addr, len);
	if (in == NULL)
		return -1;
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	int result = s == NULL ? -1 : start_connect(d, s, in);
	uint64_t until_ns = s == NULL || s->send_timeout_ns == UINT64_MAX ? UINT64_MAX : d->now_ns + s->send_timeout_ns;
	if (result == 0 && s->nonblocking && s->kind == SOCK_CONNECTING)
		result = fail(EINPROGRESS);
	while (result == 0 && s->kind == SOCK_CONNECTING) {
		if (!driver_wait(d, until_ns))
			result = -1;
	}
	if (result == 0 && s->kind == SOCK_ENDED) {
		result = fail(s->error);
		s->error = 0;
	}
	pthread_mutex_unlock(&d->mutex);
	return result;
}

/* ---- closing ---- */

static void close_listener(struct sock *s)
{
	struct driver *d = s->d;
	tcps_unlisten(d->t, s->local_port);
	for (unsigned i = 0; i < SOCKS_MAX; i++) {
		struct sock *child = d->orphans[i];
		if (child == NULL || child->listener != s)
			continue;
		child->listener = NULL;
		if (child->conn != NULL)
			tcps_abort(child->conn); /* deletes it */
		else
			sock_delete(child);
	}
	sock_delete(s);
}

/* Unread bytes are lost, and the peer must hear of it (RFC 9293 3.6.1); else a FIN goes after what is queued. */
static void close_connection(struct sock *s)
{
	struct tcps_conn *conn = s->conn;
	bool reset = (s->linger.l_onoff != 0 && s->linger.l_linger == 0) || s->readable || s->kind == SOCK_CONNECTING;
	leave_table(s);
	if (!make_orphan(s->d, s))
		reset = true;
	s->has_fd = false;
	if (reset)
		tcps_abort(conn); /* deletes it */
	else if (!s->write_shut)
		tcps_shutdown(conn);
}

static int drill_close(void *user, int fd)
{
	struct driver *d = user;
	if (fd < FD_BASE)
		return close(fd);
	pthread_mutex_lock(&d->mutex);
	if (fd >= FD_BASE + SOCKS_MAX) {
		unsigned set = (unsigned)(fd - FD_BASE - SOCKS_MAX);
		bool mine = set < EPOLLS_MAX && d->epolls[set].used;
		if (mine)
			d->epolls[set].used = false;
		pthread_mutex_unlock(&d->mutex);
		return mine ? 0 : fail(EBADF);
	}
	struct sock *s = sock_of(d, fd);
	if (s != NULL) {
		if (s->kind == SOCK_LISTENING)
			close_listener(s);
		else if (s->conn != NULL)
			close_connection(s);
		else
			sock_delete(s);
		driver_flush(d);
	}
	pthread_mutex_unlock(&d->mutex);
	return s == NULL ? -1 : 0;
}

static int drill_shutdown(void *user, int fd, int how)
{
	struct driver *d = user;
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	int result = 0;
	if (s == NULL)
		result = -1;
	else if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
		result = fail(EINVAL);
	else if (s->conn == NULL || s->kind != SOCK_CONNECTED)
		result = fail(ENOTCONN);
	else {
		if (how != SHUT_WR) {
			s->read_shut = true;
			s->readable = false;
			tcps_resume(s->conn); /* what is held is thrown away, and what comes */
		}
		if (how != SHUT_RD && !s->write_shut && s->conn != NULL) {
			s->write_shut = true;
			tcps_shutdown(s->conn);
		}
		driver_flush(d);
	}
	pthread_mutex_unlock(&d->mutex);
	return result;
}

/* ---- what poll() and ioctl() ask ---- */

size_t sock_unread(const struct sock *s)
{
	struct tcps_conn_info info = s->last;
	if (s->conn != NULL)
		tcps_info(s->conn, &info);
	return info.bytes_in > s->read_bytes ? (size_t)(info.bytes_in - s->read_bytes) : 0;
}

size_t sock_unsent(const struct sock *s)
{
	return s->conn == NULL ? 0 : tcps_unsent(s->conn);
}

uint32_t sock_poll(const struct sock *s)
{
	unsigned waiting;
	switch (s->kind) {
	case SOCK_LISTENING:
		return first_in_backlog(s, &waiting) != NULL ? POLLIN | POLLRDNORM : 0;
	case SOCK_FRESH:
		return POLLOUT | POLLHUP;
	case SOCK_CONNECTING:
		return 0;
	case SOCK_ENDED:
		return POLLIN | POLLRDNORM | POLLOUT | POLLHUP | POLLRDHUP | (s->error != 0 ? (uint32_t)POLLERR : 0);
	default:
		break;
	}
	uint32_t events = 0;
	if (s->readable || s->eof || s->read_shut)
		events |= POLLIN | POLLRDNORM;
	if (s->eof || s->read_shut)
		events |= POLLRDHUP;
	if (s->eof && s->write_shut)
		events |= POLLHUP;
	if (s->write_shut || (tcps_writable(s->conn) && tcps_unsent(s->conn) < s->send_buffer_bytes))
		events |= POLLOUT | POLLWRNORM;
	return events;
}

void socket_calls(struct packetdrill_interface *table)
{
	table->socket = drill_socket;
	table->bind = drill_bind;
	table->listen = drill_listen;
	table->accept = drill_accept;
	table->connect = drill_connect;
	table->close = drill_close;
	table->shutdown = drill_shutdown;
}
