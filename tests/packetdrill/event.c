/*
 * event.c - poll() and epoll.
 *
 * Owns: the epoll sets.
 * Core: tests only.
 * Spec: poll(2), epoll(7).
 */
#include "tests/packetdrill/driver.h"

#include <errno.h>

#define MS 1000000ull

static int fail(int error)
{
	errno = error;
	return -1;
}

static uint64_t until(const struct driver *d, int timeout_ms)
{
	if (timeout_ms < 0)
		return UINT64_MAX;
	uint64_t wait_ns = (unsigned)timeout_ms * MS;
	return d->now_ns + wait_ns;
}

/* Waits for something to report. False: the time is up, or (with *result -1) nobody moves the clock. */
static bool go_on(struct driver *d, uint64_t until_ns, int *result)
{
	if (driver_wait(d, until_ns))
		return true;
	if (errno != EAGAIN)
		*result = -1;
	return false;
}

static int look(struct driver *d, struct pollfd *fds, nfds_t count)
{
	int ready = 0;
	for (nfds_t i = 0; i < count; i++) {
		const struct sock *s = fds[i].fd < 0 ? NULL : sock_of(d, fds[i].fd);
		fds[i].revents = 0;
		if (fds[i].fd < 0)
			continue;
		if (s == NULL)
			fds[i].revents = POLLNVAL;
		else
			fds[i].revents = (short)(sock_poll(s) & ((uint16_t)fds[i].events | (uint32_t)(POLLERR | POLLHUP)));
		ready += fds[i].revents != 0;
	}
	return ready;
}

static int drill_poll(void *user, struct pollfd *fds, nfds_t count, int timeout_ms)
{
	struct driver *d = user;
	pthread_mutex_lock(&d->mutex);
	uint64_t until_ns = until(d, timeout_ms);
	int ready = look(d, fds, count);
	while (ready == 0 && go_on(d, until_ns, &ready))
		ready = look(d, fds, count);
	pthread_mutex_unlock(&d->mutex);
	return ready;
}

/* ---- epoll ---- */

static struct epoll_set *set_of(struct driver *d, int epfd)
{
	int i = epfd - FD_BASE - SOCKS_MAX;
	if (i < 0 || i >= EPOLLS_MAX || !d->epolls[i].used) {
		errno = EBADF;
		return NULL;
	}
	return &d->epolls[i];
}

void epoll_forget(struct driver *d, int fd)
{
	for (unsigned i = 0; i < EPOLLS_MAX; i++) {
		struct epoll_set *set = &d->epolls[i];
		for (unsigned k = 0; k < set->count; k++) {
			if (set->entry[k].fd == fd)
				set->entry[k--] = set->entry[--set->count];
		}
	}
}

static int drill_epoll_create(void *user, int size)
{
	struct driver *d = user;
	if (size <= 0)
		return fail(EINVAL);
	int result = fail(EMFILE);
	pthread_mutex_lock(&d->mutex);
	for (int i = 0; i < EPOLLS_MAX && result < 0; i++) {
		if (d->epolls[i].used)
			continue;
		d->epolls[i] = (struct epoll_set){.used = true};
		result = FD_BASE + SOCKS_MAX + i;
	}
	pthread_mutex_unlock(&d->mutex);
	return result;
}

static int change(struct epoll_set *set, int op, int fd, const struct epoll_event *event)
{
	unsigned k = 0;
	while (k < set->count && set->entry[k].fd != fd)
		k++;
	bool there = k < set->count;
	if (op == EPOLL_CTL_ADD && there)
		return fail(EEXIST);
	if (op != EPOLL_CTL_ADD && !there)
		return fail(ENOENT);
	if (op == EPOLL_CTL_DEL) {
		set->entry[k] = set->entry[--set->count];
		return 0;
	}
	if ((op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD) || event == NULL)
		return fail(EINVAL);
	if (!there && set->count == EPOLL_FDS_MAX)
		return fail(ENOSPC);
	set->count += !there;
	set->entry[k].fd = fd;
	set->entry[k].event = *event;
	set->entry[k].reported = 0;
	return 0;
}

static int drill_epoll_ctl(void *user, int epfd, int op, int fd, struct epoll_event *event)
{
	struct driver *d = user;
	pthread_mutex_lock(&d->mutex);
	struct epoll_set *set = set_of(d, epfd);
	int result = set == NULL || sock_of(d, fd) == NULL ? -1 : change(set, op, fd, event);
	pthread_mutex_unlock(&d->mutex);
	return result;
}

/* POLL and EPOLL give the same events the same numbers. */
static int collect(struct driver *d, struct epoll_set *set, struct epoll_event *events, int count)
{
	int ready = 0;
	for (unsigned k = 0; k < set->count && ready < count; k++) {
		uint32_t asked = set->entry[k].event.events;
		const struct sock *s = sock_of(d, set->entry[k].fd);
		uint32_t now = s == NULL ? 0 : sock_poll(s) & (asked | EPOLLERR | EPOLLHUP);
		uint32_t fresh = asked & EPOLLET ? now & ~set->entry[k].reported : now;
		if (asked & EPOLLONESHOT && set->entry[k].reported != 0)
			fresh = 0;
		else
			set->entry[k].reported = now;
		if (fresh == 0)
			continue;
		events[ready].events = now;
		events[ready++].data = set->entry[k].event.data;
	}
	return ready;
}

static int drill_epoll_wait(void *user, int epfd, struct epoll_event *events, int count, int timeout_ms)
{
	struct driver *d = user;
	if (count <= 0)
		return fail(EINVAL);
	pthread_mutex_lock(&d->mutex);
	struct epoll_set *set = set_of(d, epfd);
	uint64_t until_ns = until(d, timeout_ms);
	int ready = set == NULL ? -1 : collect(d, set, events, count);
	while (ready == 0 && go_on(d, until_ns, &ready))
		ready = collect(d, set, events, count);
	pthread_mutex_unlock(&d->mutex);
	return ready;
}

void event_calls(struct packetdrill_interface *table)
{
	table->poll = drill_poll;
	table->epoll_create = drill_epoll_create;
	table->epoll_ctl = drill_epoll_ctl;
	table->epoll_wait = drill_epoll_wait;
}
