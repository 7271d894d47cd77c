/* Connections over non-blocking kernel sockets, watched by epoll.
 * Runs inside tickbench on the thread that owns the connection.
 * Specification: POSIX.1-2017, sockets; epoll(7). */
#include "tools/tickbench/clock.h"
#include "tools/tickbench/conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 64

/* One address of the peer: connects within the time-out. */
static int connect_one(const struct addrinfo *ai, const char **why)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, err = 0;
	socklen_t err_size = sizeof(err);
	uint64_t deadline_ns = tb_now_ns() + TB_CONNECT_TIMEOUT_NS;

	if (fd < 0) {
		*why = strerror(errno);
		return -1;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) != 0)
		err = errno;
	while (err == EINPROGRESS && !tb_stop_signal) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		if (poll(&p, 1, 100) > 0)
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_size);
		else if (tb_now_ns() > deadline_ns)
			err = ETIMEDOUT;
	}
	if (err == 0)
		return fd;
	*why = err == EINPROGRESS ? "interrupted" : strerror(err);
	close(fd);
	return -1;
}

static bool sock_connect(struct tb_conn *c, const struct tb_endpoint *peer)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
	const char *why = "no address";
	int rc = getaddrinfo(peer->host, peer->port, &hints, &all);

	c->fd = -1;
	if (rc != 0)
		return tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "cannot find the broker %s: %s", peer->text, gai_strerror(rc));
	for (const struct addrinfo *ai = all; ai && c->fd < 0; ai = ai->ai_next)
		c->fd = connect_one(ai, &why);
	freeaddrinfo(all);
	if (c->fd >= 0)
		return true;
	if (tb_stop_signal)
		return tb_conn_fail(c, TB_EXIT_INTERRUPTED, "interrupted while connecting");
	return tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "cannot reach the broker at %s: %s", peer->text, why);
}

static long sock_send(struct tb_conn *c, const uint8_t *bytes, size_t length)
{
	ssize_t n = send(c->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	return (long)n;
}

static long sock_fill(struct tb_conn *c)
{
	tb_conn_compact(c);
	ssize_t n = recv(c->fd, c->in + c->in_tail, c->in_cap - c->in_tail, MSG_DONTWAIT);
	if (n > 0) {
		c->in_tail += (size_t)n;
		return (long)n;
	}
	if (n == 0)
		errno = 0;
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? 0 : -1;
}

static void sock_wait(struct tb_conn *c, int ms)
{
	struct pollfd p = {.fd = c->fd, .events = (short)(POLLIN | (c->out.head < c->out.tail ? POLLOUT : 0))};

	poll(&p, 1, ms);
}

static void sock_close(struct tb_conn *c)
{
	close(c->fd);
	c->fd = -1;
}

static bool sock_watch_open(struct tb_watch *w)
{
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return w->epoll_fd >= 0;
}

static bool sock_watch(struct tb_watch *w, struct tb_conn *c, void *tag)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = tag};

	c->tag = tag;
	return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) == 0;
}

static void sock_watch_out(struct tb_watch *w, struct tb_conn *c, bool wanted)
{
	struct epoll_event ev = {.events = EPOLLIN | (wanted ? (uint32_t)EPOLLOUT : 0), .data.ptr = c->tag};

	epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

static int sock_ready(struct tb_watch *w, void **tags, int max, const struct timespec *ts)
{
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_pwait2(w->epoll_fd, events, max < EVENTS_MAX ? max : EVENTS_MAX, ts, NULL);

	for (int i = 0; i < n; i++)
		tags[i] = events[i].data.ptr;
	return n;
}

static void sock_watch_close(struct tb_watch *w)
{
	if (w->epoll_fd >= 0)
		close(w->epoll_fd);
	w->epoll_fd = -1;
}

const struct tb_transport tb_sockets = {
	.connect = sock_connect,
	.send = sock_send,
	.fill = sock_fill,
	.wait = sock_wait,
	.close = sock_close,
	.watch_open = sock_watch_open,
	.watch = sock_watch,
	.watch_out = sock_watch_out,
	.ready = sock_ready,
	.watch_close = sock_watch_close,
	.direct_max = 4,
};
