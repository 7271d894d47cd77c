/*
 * transfer.c - reading from and writing to sockets, in every form that the interface has.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: POSIX.1-2017 recv(), send() and their kin.
 */
#include "tests/packetdrill/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES 16384u

static ssize_t fail(int error)
{
	errno = error;
	return -1;
}

static uint64_t deadline(const struct driver *d, uint64_t timeout_ns)
{
	return timeout_ns == UINT64_MAX ? UINT64_MAX : d->now_ns + timeout_ns;
}

/* What is there now; 0 where nothing is. */
static size_t take(struct sock *s, uint8_t *buf, size_t len, bool peek)
{
	s->into = buf;
	s->into_len = len;
	s->into_got = 0;
	s->peeking = peek;
	if (s->conn != NULL)
		tcps_resume(s->conn);
	s->into = NULL;
	s->peeking = false;
	if (!peek)
		s->read_bytes += s->into_got;
	return s->into_got;
}

static ssize_t ended(struct sock *s)
{
	int error = s->error;
	s->error = 0;
	return error != 0 && !s->eof ? fail(error) : 0;
}

ssize_t sock_read(struct sock *s, void *buf, size_t len, int flags)
{
	struct driver *d = s->d;
	bool peek = (flags & MSG_PEEK) != 0;
	size_t wanted = (flags & MSG_WAITALL) != 0 && !peek ? len : 1, got = 0;
	uint64_t until_ns = deadline(d, s->recv_timeout_ns);
	for (;;) {
		if (s->kind == SOCK_FRESH || s->kind == SOCK_LISTENING || s->kind == SOCK_CONNECTING)
			return fail(ENOTCONN);
		if (s->readable && !s->read_shut)
			got += take(s, (uint8_t *)buf + got, len - got, peek);
		driver_flush(d); /* the window may be worth an update */
		if (got >= wanted || len == 0)
			return (ssize_t)got;
		if (s->eof || s->read_shut)
			return (ssize_t)got;
		if (s->kind == SOCK_ENDED)
			return got > 0 ? (ssize_t)got : ended(s);
		if (s->nonblocking || (flags & MSG_DONTWAIT) != 0)
			return got > 0 ? (ssize_t)got : fail(EAGAIN);
		if (!driver_wait(d, until_ns))
			return got > 0 ? (ssize_t)got : -1;
	}
}

/* As much as the send buffer takes now. */
static size_t put(struct sock *s, const uint8_t *buf, size_t len)
{
	size_t sent = 0;
	while (sent < len && tcps_writable(s->conn)) {
		size_t queued = tcps_unsent(s->conn);
		size_t room = queued < s->send_buffer_bytes ? s->send_buffer_bytes - queued : 0;
		size_t n = len - sent < PIECE_BYTES ? len - sent : PIECE_BYTES;
		n = n < room ? n : room;
		if (n == 0 || !tcps_send(s->conn, buf + sent, n))
			break;
		sent += n;
	}
	return sent;
}

ssize_t sock_write(struct sock *s, const void *buf, size_t len, int flags)
{
	struct driver *d = s->d;
	size_t sent = 0;
	uint64_t until_ns = deadline(d, s->send_timeout_ns);
	for (;;) {
		if (s->kind == SOCK_FRESH || s->kind == SOCK_LISTENING || s->write_shut)
			return fail(EPIPE);
		if (s->kind == SOCK_ENDED) {
			int error = s->error != 0 ? s->error : EPIPE;
			s->error = 0;
			return sent > 0 ? (ssize_t)sent : fail(error);
		}
		if (s->kind == SOCK_CONNECTED) {
			sent += put(s, (const uint8_t *)buf + sent, len - sent);
			driver_flush(d);
			if (sent == len)
				return (ssize_t)sent;
		}
		if (s->nonblocking || (flags & MSG_DONTWAIT) != 0)
			return sent > 0 ? (ssize_t)sent : fail(EAGAIN);
		if (!driver_wait(d, until_ns))
			return sent > 0 ? (ssize_t)sent : -1;
	}
}

/* ---- the calls, all of them these two ---- */

static ssize_t receive(struct driver *d, int fd, void *buf, size_t len, int flags)
{
	if ((flags & ~(MSG_PEEK | MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL)) != 0)
		return fail(EOPNOTSUPP);
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	ssize_t n = s == NULL ? -1 : sock_read(s, buf, len, flags);
	pthread_mutex_unlock(&d->mutex);
	return n;
}

static ssize_t transmit(struct driver *d, int fd, const void *buf, size_t len, int flags)
{
	if ((flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_EOR)) != 0)
		return fail(EOPNOTSUPP);
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	ssize_t n = s == NULL ? -1 : sock_write(s, buf, len, flags);
	pthread_mutex_unlock(&d->mutex);
	return n;
}

/* Sum of the lengths; SIZE_MAX: too many. */
static size_t iov_bytes(const struct iovec *iov, size_t count)
{
	size_t sum = 0;
	for (size_t i = 0; i < count; i++) {
		if (iov[i].iov_len > SSIZE_MAX - sum)
			return SIZE_MAX;
		sum += iov[i].iov_len;
	}
	return sum;
}

/* Gathered first: one call of writev() is one run of bytes for the stack, as one write() is. */
static ssize_t transmit_iov(struct driver *d, int fd, const struct iovec *iov, size_t count, int flags)
{
	size_t len = iov_bytes(iov, count), at = 0;
	uint8_t *all = len == SIZE_MAX ? NULL : malloc(len + 1);
	if (all == NULL)
		return fail(len == SIZE_MAX ? EINVAL : ENOMEM);
	for (size_t i = 0; i < count; i++) {
		if (iov[i].iov_len > 0)
			memcpy(all + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	ssize_t n = transmit(d, fd, all, len, flags);
	free(all);
	return n;
}

static ssize_t receive_iov(struct driver *d, int fd, const struct iovec *iov, size_t count, int flags)
{
	size_t len = iov_bytes(iov, count), at = 0;
	uint8_t *all = len == SIZE_MAX ? NULL : malloc(len + 1);
	if (all == NULL)
		return fail(len == SIZE_MAX ? EINVAL : ENOMEM);
	ssize_t n = receive(d, fd, all, len, flags);
	for (size_t i = 0; n > 0 && i < count && at < (size_t)n; i++) {
		size_t part = (size_t)n - at < iov[i].iov_len ? (size_t)n - at : iov[i].iov_len;
		memcpy(iov[i].iov_base, all + at, part);
		at += part;
	}
	free(all);
	return n;
}

static ssize_t drill_read(void *user, int fd, void *buf, size_t len)
{
	return fd < FD_BASE ? read(fd, buf, len) : receive(user, fd, buf, len, 0);
}

static ssize_t drill_readv(void *user, int fd, const struct iovec *iov, int count)
{
	if (fd < FD_BASE)
		return readv(fd, iov, count);
	return count < 0 ? fail(EINVAL) : receive_iov(user, fd, iov, (size_t)count, 0);
}

static ssize_t drill_recv(void *user, int fd, void *buf, size_t len, int flags)
{
	return receive(user, fd, buf, len, flags);
}

static ssize_t drill_recvfrom(void *user, int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addr_len)
{
	(void)addr;
	if (addr_len != NULL)
		*addr_len = 0; /* of a stream socket no address is returned */
	return receive(user, fd, buf, len, flags);
}

static ssize_t drill_recvmsg(void *user, int fd, struct msghdr *msg, int flags)
{
	msg->msg_flags = 0;
	msg->msg_controllen = 0;
	msg->msg_namelen = 0;
	return receive_iov(user, fd, msg->msg_iov, msg->msg_iovlen, flags);
}

static ssize_t drill_write(void *user, int fd, const void *buf, size_t len)
{
	return fd < FD_BASE ? write(fd, buf, len) : transmit(user, fd, buf, len, 0);
}

static ssize_t drill_writev(void *user, int fd, const struct iovec *iov, int count)
{
	if (fd < FD_BASE)
		return writev(fd, iov, count);
	return count < 0 ? fail(EINVAL) : transmit_iov(user, fd, iov, (size_t)count, 0);
}

static ssize_t drill_send(void *user, int fd, const void *buf, size_t len, int flags)
{
	return transmit(user, fd, buf, len, flags);
}

static ssize_t drill_sendto(void *user, int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,
			    socklen_t addr_len)
{
	(void)addr_len;
	return addr != NULL ? fail(EISCONN) : transmit(user, fd, buf, len, flags);
}

static ssize_t drill_sendmsg(void *user, int fd, const struct msghdr *msg, int flags)
{
	if (msg->msg_controllen != 0)
		return fail(EOPNOTSUPP);
	return transmit_iov(user, fd, msg->msg_iov, msg->msg_iovlen, flags);
}

static int drill_pipe(void *user, int fds[2])
{
	(void)user;
	return pipe(fds);
}

/* One end is a pipe of the kernel's, the other one of our sockets: the bytes go through a buffer here. */
static int drill_splice(void *user, int fd_in, loff_t *off_in, int fd_out, loff_t *off_out, size_t len, unsigned int flags)
{
	struct driver *d = user;
	uint8_t buf[65536];
	ssize_t n;
	int wait = (flags & SPLICE_F_NONBLOCK) != 0 ? MSG_DONTWAIT : 0;
	if (fd_in < FD_BASE && fd_out < FD_BASE)
		return (int)splice(fd_in, off_in, fd_out, off_out, len, flags);
	if (off_in != NULL || off_out != NULL || (fd_in >= FD_BASE && fd_out >= FD_BASE))
		return (int)fail(ESPIPE);
	len = len < sizeof(buf) ? len : sizeof(buf);
	if (fd_in >= FD_BASE) {
		n = receive(d, fd_in, buf, len, wait);
		return n <= 0 ? (int)n : (int)write(fd_out, buf, (size_t)n);
	}
	n = read(fd_in, buf, len);
	return n <= 0 ? (int)n : (int)transmit(d, fd_out, buf, (size_t)n, wait);
}

void transfer_calls(struct packetdrill_interface *table)
{
	table->read = drill_read;
	table->readv = drill_readv;
	table->recv = drill_recv;
	table->recvfrom = drill_recvfrom;
	table->recvmsg = drill_recvmsg;
	table->write = drill_write;
	table->writev = drill_writev;
	table->send = drill_send;
	table->sendto = drill_sendto;
	table->sendmsg = drill_sendmsg;
	table->pipe = drill_pipe;
	table->splice = drill_splice;
}
