/*
 * link.c - attaches to the dataplane, reads request rings when kicked, fills operation rings, and comes back after a loss.
 *
 * Owns: what link.h says.
 * Core: control's event loop; a batch is bounded, so that the CLI and the timers get their turn.
 * Spec: DESIGN section 5 (control is woken, not polled); control/ctl_shm.h.
 */
#include "control/link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/log.h"
#include "control/map.h"

#define BATCH_RECORDS     256u
#define OUTBOX_HIGH_BYTES (4u << 20) /* above it no more requests are read */
#define BACKOFF_FIRST_MS  50u
#define BACKOFF_LAST_MS   2000u
#define GREETING_MS       10000u

static struct timeval in_ms(uint64_t ms)
{
	return (struct timeval){(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};
}

static void after(struct event *ev, uint64_t ms)
{
	struct timeval tv = in_ms(ms);

	event_add(ev, &tv);
}

/* ---- going down and coming back ---- */

static void close_all(struct ctl_link *l)
{
	if (l->socket_ev != NULL)
		event_free(l->socket_ev);
	if (l->kick_ev != NULL)
		event_free(l->kick_ev);
	l->socket_ev = l->kick_ev = NULL;
	event_del(l->again_ev);
	event_del(l->flush_ev);
	event_del(l->greet_ev);
	if (l->map != NULL)
		munmap(l->map, l->map_bytes);
	l->map = NULL;
	if (l->fd >= 0)
		close(l->fd);
	if (l->kick_fd >= 0)
		close(l->kick_fd);
	l->fd = l->kick_fd = -1;
	for (uint32_t w = 0; w < CTL_WORKERS_MAX; w++) {
		free(l->outbox[w].bytes);
		memset(&l->outbox[w], 0, sizeof l->outbox[w]);
	}
	l->held_back = false;
	l->state = CTL_LINK_DOWN;
}

static void retry_later(struct ctl_link *l)
{
	after(l->retry_ev, l->backoff_ms);
	l->backoff_ms = l->backoff_ms * 2 < BACKOFF_LAST_MS ? l->backoff_ms * 2 : BACKOFF_LAST_MS;
}

static void drop_now(struct ctl_link *l, const char *why)
{
	bool was_up = l->state == CTL_LINK_UP;

	if (was_up)
		ctl_log(CTL_LOG_WARNING, "dataplane: %s; the link is dropped and tried again", why);
	else if (!l->told_down)
		ctl_log(CTL_LOG_INFO, "dataplane: not attached (%s): %s; it is tried again until it answers", l->path, why);
	l->told_down = true;
	l->doomed = NULL;
	if (was_up) {
		l->drops++;
		l->ops->detached(l->ctx);
	}
	close_all(l);
	retry_later(l);
}

void ctl_link_drop(struct ctl_link *l, const char *why)
{
	if (l->state == CTL_LINK_DOWN || l->doomed != NULL)
		return;
	if (l->in_work)
		l->doomed = why;
	else
		drop_now(l, why);
}

/* ---- the greeting ---- */

static const char *map_memory(struct ctl_link *l, int memfd, uint64_t bytes)
{
	struct stat st;
	const char *err;
	int seals = fcntl(memfd, F_GET_SEALS);

	if (fstat(memfd, &st) != 0 || st.st_size < (off_t)sizeof l->shm || bytes > (uint64_t)st.st_size)
		return "the memory that it hands over is smaller than it says";
	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
		return "the memory that it hands over is not sealed against shrinking";
	l->map_bytes = (size_t)st.st_size;
	l->map = mmap(NULL, l->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (l->map == MAP_FAILED) {
		l->map = NULL;
		return "the memory that it hands over cannot be mapped";
	}
	return ctl_shm_check(l->map, l->map_bytes, &l->shm, &err) ? NULL : err;
}

static void on_kick(evutil_socket_t fd, short what, void *arg);

static const char *greet(struct ctl_link *l, const struct ctl_msg *msg, const int fds[2])
{
	const char *err = map_memory(l, fds[0], msg->bytes);

	if (err != NULL)
		return err;
	for (uint32_t w = 0; w < l->shm.workers_count; w++) {
		const struct ctl_worker_layout *y = &l->shm.worker[w];

		l->request[w] =
			(struct ctl_ring_end){(struct ctl_ring *)(void *)(l->map + y->request_ring_offset), y->request_ring_bytes};
		l->op[w] = (struct ctl_ring_end){(struct ctl_ring *)(void *)(l->map + y->op_ring_offset), y->op_ring_bytes};
	}
	l->kick_fd = dup(fds[1]);
	if (l->kick_fd < 0 || evutil_make_socket_nonblocking(l->kick_fd) != 0 || evutil_make_socket_closeonexec(l->kick_fd) != 0)
		return "its eventfd cannot be used";
	l->kick_ev = event_new(l->base, l->kick_fd, EV_READ | EV_PERSIST, on_kick, l);
	if (l->kick_ev == NULL || event_add(l->kick_ev, NULL) != 0)
		return "its eventfd cannot be watched";
	l->state = CTL_LINK_UP;
	l->attaches++;
	event_del(l->greet_ev);
	l->ops->attached(l->ctx);
	ctl_link_flush(l);
	ctl_link_wake(l);
	return NULL;
}

/* Two descriptors, whatever else was sent along is closed. */
static bool take_fds(struct msghdr *head, int fds[2])
{
	int count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c != NULL; c = CMSG_NXTHDR(head, c)) {
		size_t n =
			c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (count < 2)
				fds[count] = fd;
			else
				close(fd);
			count++;
		}
	}
	return count == 2;
}

static const char *on_message(struct ctl_link *l, struct ctl_msg *msg, const int fds[2], bool has_fds)
{
	msg->text[sizeof msg->text - 1] = '\0';
	if (l->state == CTL_LINK_GREETING) {
		if (msg->kind == CTL_MSG_BUSY)
			return "another control is attached to it";
		if (msg->kind != CTL_MSG_HELLO || !has_fds)
			return "its first message is no greeting";
		return greet(l, msg, fds);
	}
	switch ((enum ctl_msg_kind)msg->kind) {
	case CTL_MSG_DB_TAKEN:
	case CTL_MSG_DB_REFUSED:
	case CTL_MSG_DB_RELEASED:
		return l->ops->message(l->ctx, msg) ? NULL : "it tells of a database that it was never given";
	case CTL_MSG_DRAINING:
		ctl_log(CTL_LOG_INFO, "dataplane: it is leaving");
		return NULL;
	case CTL_MSG_HELLO:
	case CTL_MSG_BUSY:
	case CTL_MSG_DB_PUBLISH:
		break;
	}
	return "it sent a message that makes no sense here";
}

/* One message. 1: handled, 0: there is none, -1: dropped or doomed. */
static int read_message(struct ctl_link *l)
{
	struct ctl_msg msg;
	int fds[2] = {-1, -1};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} extra;
	struct iovec iov = {&msg, sizeof msg};
	struct msghdr head = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = extra.bytes, .msg_controllen = sizeof extra.bytes};
	ssize_t n = recvmsg(l->fd, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const char *err;
	bool has_fds;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	has_fds = n > 0 && take_fds(&head, fds);
	if (n <= 0)
		err = "it closed the link";
	else if (n != (ssize_t)sizeof msg || (head.msg_flags & MSG_TRUNC) != 0)
		err = "it sent a message of an odd size";
	else
		err = on_message(l, &msg, fds, has_fds);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (err == NULL)
		return 1;
	ctl_link_drop(l, err);
	return -1;
}

void ctl_link_read_messages(struct ctl_link *l)
{
	for (unsigned i = 0; i < 64 && l->fd >= 0 && l->doomed == NULL; i++)
		if (read_message(l) != 1)
			break;
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	ctl_link_read_messages(arg);
}

static void on_greeting_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	ctl_link_drop(arg, "it accepted and said nothing");
}

static void try_connect(struct ctl_link *l)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", l->path);
	l->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0 || connect(l->fd, (struct sockaddr *)&addr, sizeof addr) != 0) {
		drop_now(l, strerror(errno));
		return;
	}
	l->state = CTL_LINK_GREETING;
	l->socket_ev = event_new(l->base, l->fd, EV_READ | EV_PERSIST, on_socket, l);
	if (l->socket_ev == NULL || event_add(l->socket_ev, NULL) != 0) {
		drop_now(l, "its socket cannot be watched");
		return;
	}
	after(l->greet_ev, GREETING_MS);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	try_connect(arg);
}

void ctl_link_start(struct ctl_link *l)
{
	try_connect(l);
}

void ctl_link_steady(struct ctl_link *l)
{
	l->told_down = false;
	l->backoff_ms = BACKOFF_FIRST_MS;
}

bool ctl_link_send(struct ctl_link *l, const struct ctl_msg *msg)
{
	return l->state == CTL_LINK_UP && send(l->fd, msg, sizeof *msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof *msg;
}

/* ---- towards the workers ---- */

void ctl_link_emit(struct ctl_link *l, uint32_t worker, const struct amqp_record *rec)
{
	struct ctl_outbox *o = &l->outbox[worker];
	size_t need = ctl_record_bytes(rec);

	if (l->state != CTL_LINK_UP || worker >= l->shm.workers_count)
		return;
	if (need == 0 || need + 8 > l->op[worker].bytes) {
		ctl_log(CTL_LOG_ERROR, "an operation of kind %u is too large for the ring and was not sent", rec->kind);
		return;
	}
	if (o->cap - o->len < need) {
		o->cap = 2 * (o->len + need);
		o->bytes = ctl_resize(o->bytes, o->cap);
	}
	o->len += ctl_record_encode(o->bytes + o->len, need, rec);
}

/* False: the ring is full for now. */
static bool flush_worker(struct ctl_link *l, uint32_t w)
{
	struct ctl_outbox *o = &l->outbox[w];
	struct amqp_record rec;
	uint32_t total;

	while (o->at < o->len) {
		memcpy(&total, o->bytes + o->at, sizeof total);
		if (!ctl_record_decode(o->bytes + o->at, total, &rec) || !ctl_ring_put(&l->op[w], &rec))
			return false;
		o->at += total;
	}
	o->at = o->len = 0;
	return true;
}

static bool outbox_high(const struct ctl_link *l)
{
	for (uint32_t w = 0; w < l->shm.workers_count; w++)
		if (l->outbox[w].len - l->outbox[w].at > OUTBOX_HIGH_BYTES)
			return true;
	return false;
}

void ctl_link_flush(struct ctl_link *l)
{
	bool all = true;

	if (l->state != CTL_LINK_UP)
		return;
	for (uint32_t w = 0; w < l->shm.workers_count; w++)
		all &= flush_worker(l, w);
	if (l->held_back && !outbox_high(l)) {
		l->held_back = false;
		ctl_link_wake(l);
	}
	if (!all)
		after(l->flush_ev, 1); /* a worker empties its ring every few microseconds; nobody tells when */
}

/* ---- from the workers ---- */

static void read_ring(struct ctl_link *l, uint32_t w)
{
	struct amqp_record rec;
	const char *why = NULL;

	for (unsigned i = 0; i < BATCH_RECORDS && l->doomed == NULL && l->ops->wants(l->ctx, w); i++) {
		int got = ctl_ring_get(&l->request[w], l->scratch, &rec);

		if (got == 0)
			return;
		l->records++;
		if (got < 0)
			l->doomed = "a worker's request ring holds nonsense";
		else if (!l->ops->record(l->ctx, w, &rec, &why) && l->doomed == NULL)
			l->doomed = why != NULL ? why : "a worker sent nonsense";
	}
}

/* True when everything wanted was read and the next kick will come. */
static bool may_sleep(struct ctl_link *l)
{
	for (uint32_t w = 0; w < l->shm.workers_count; w++)
		if (l->ops->wants(l->ctx, w) && !ctl_ring_prepare_sleep(&l->request[w]))
			return false;
	return true;
}

static bool ops_applied(const struct ctl_link *l)
{
	for (uint32_t w = 0; w < l->shm.workers_count; w++)
		if (l->outbox[w].len != 0 || !ctl_ring_empty(&l->op[w]))
			return false;
	return true;
}

static void work(struct ctl_link *l)
{
	if (l->state != CTL_LINK_UP)
		return;
	if (outbox_high(l)) {
		l->held_back = true; /* no kick will come for what lies in the rings: ctl_link_flush() wakes */
		return;
	}
	l->in_work = true;
	for (uint32_t w = 0; w < l->shm.workers_count && l->doomed == NULL; w++)
		read_ring(l, w);
	/* What was asked before nonsense came is still stored, but nobody is told: the worker asks again when the link is back. */
	if (!l->ops->commit(l->ctx) && l->doomed == NULL)
		l->doomed = "definitions could not be written to the disk";
	l->in_work = false;
	if (l->doomed != NULL) {
		drop_now(l, l->doomed);
		return;
	}
	ctl_link_flush(l);
	if (!may_sleep(l))
		ctl_link_wake(l);
	else if (ops_applied(l))
		l->ops->settled(l->ctx);
}

void ctl_link_wake(struct ctl_link *l)
{
	if (l->state == CTL_LINK_UP)
		event_active(l->again_ev, EV_TIMEOUT, 0);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	work(arg);
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct ctl_link *l = arg;
	uint64_t n;

	(void)what;
	if (read((int)fd, &n, sizeof n) < 0 && errno != EAGAIN && errno != EINTR) {
		ctl_link_drop(l, "its eventfd cannot be read");
		return;
	}
	work(l);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	ctl_link_flush(arg);
}

void ctl_link_init(struct ctl_link *l, struct event_base *base, const char *path, const struct ctl_link_ops *ops, void *ctx)
{
	memset(l, 0, sizeof *l);
	l->base = base;
	l->path = path;
	l->ops = ops;
	l->ctx = ctx;
	l->fd = l->kick_fd = -1;
	l->backoff_ms = BACKOFF_FIRST_MS;
	l->scratch = ctl_alloc(CTL_RECORD_MAX);
	l->again_ev = event_new(base, -1, 0, on_again, l);
	l->flush_ev = event_new(base, -1, 0, on_flush, l);
	l->retry_ev = event_new(base, -1, 0, on_retry, l);
	l->greet_ev = event_new(base, -1, 0, on_greeting_late, l);
	if (l->again_ev == NULL || l->flush_ev == NULL || l->retry_ev == NULL || l->greet_ev == NULL)
		abort();
}

void ctl_link_fini(struct ctl_link *l)
{
	close_all(l);
	event_free(l->again_ev);
	event_free(l->flush_ev);
	event_free(l->retry_ev);
	event_free(l->greet_ev);
	free(l->scratch);
}
