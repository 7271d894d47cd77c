/*
 * ctl_fake_dataplane.c - see ctl_fake_dataplane.h.
 *
 * Owns: what the header says.
 * Core: the test's thread; it looks, and never waits inside.
 * Spec: control/ctl_shm.h.
 */
#include "tests/unit/ctl_fake_dataplane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BOUND_S 20

static uint8_t scratch[CTL_RECORD_MAX];

static void die(const char *what)
{
	fprintf(stderr, "fake dataplane: %s: %s\n", what, strerror(errno));
	abort();
}

static void listen_on(struct fake *f)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", f->socket_path);
	unlink(f->socket_path);
	f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->listen_fd < 0 || bind(f->listen_fd, (struct sockaddr *)&addr, sizeof addr) != 0 || listen(f->listen_fd, 4) != 0)
		die("socket");
}

void fake_init(struct fake *f, const char *socket_path)
{
	memset(f, 0, sizeof *f);
	snprintf(f->socket_path, sizeof f->socket_path, "%s", socket_path);
	f->control_fd = f->listen_fd = -1;
	f->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->kick_fd < 0)
		die("eventfd");
}

static void forget(struct fake_def *defs, unsigned *count)
{
	for (unsigned i = 0; i < FAKE_IDS; i++) {
		free(defs[i].bytes);
		defs[i] = (struct fake_def){NULL, 0};
	}
	*count = 0;
}

void fake_hang_up(struct fake *f)
{
	if (f->control_fd >= 0)
		close(f->control_fd);
	f->control_fd = -1;
}

void fake_die(struct fake *f)
{
	fake_hang_up(f);
	if (f->listen_fd >= 0)
		close(f->listen_fd);
	f->listen_fd = -1;
	unlink(f->socket_path);
	if (f->have_shm)
		dp_shm_destroy(&f->shm);
	f->have_shm = false;
	forget(f->exchange, &f->exchanges);
	forget(f->queue, &f->queues);
	forget(f->binding, &f->bindings);
	f->conns_count = 0;
	f->published.kind = 0;
}

void fake_fini(struct fake *f)
{
	fake_die(f);
	close(f->kick_fd);
}

void fake_boot(struct fake *f, uint64_t boot_id)
{
	struct dp_shm_plan plan = {
		.workers_count = 1,
		.counters_count = 6,
		.stages_count = 1,
		.request_ring_bytes = 1u << 19,
		.op_ring_bytes = 1u << 19,
		.arena_bytes = 8u << 20,
		.conns_max = 8,
		.channels_max = 8,
		.queues_max = FAKE_IDS,
		.consumers_max = 8,
		.exchanges_max = FAKE_IDS,
		.bindings_max = FAKE_IDS,
		.rules_max = FAKE_IDS,
		.tsc_hz = 1000000000,
		.boot_id = boot_id,
		.started_s = 1,
		.pid = (uint32_t)getpid(),
		.port_text = "net_fake0",
		.address_text = "198.18.0.2/24",
	};
	char err[256];

	fake_die(f);
	if (!dp_shm_create(&f->shm, &plan, err, sizeof err)) {
		fprintf(stderr, "%s\n", err);
		abort();
	}
	dp_shm_publish(&f->shm);
	f->have_shm = true;
	listen_on(f);
}

static void greet(struct fake *f)
{
	struct ctl_msg msg = {.kind = CTL_MSG_HELLO, .bytes = f->shm.layout.total_bytes};
	const int fds[2] = {f->shm.fd, f->kick_fd};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof fds)];
	} extra;
	struct iovec iov = {&msg, sizeof msg};
	struct msghdr head = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = extra.bytes, .msg_controllen = sizeof extra.bytes};
	struct cmsghdr *c;

	memset(&extra, 0, sizeof extra);
	c = CMSG_FIRSTHDR(&head);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fds);
	memcpy(CMSG_DATA(c), fds, sizeof fds);
	ctl_ring_init(dp_shm_request_ring(&f->shm, 0).ring);
	ctl_ring_init(dp_shm_op_ring(&f->shm, 0).ring);
	if (sendmsg(f->control_fd, &head, MSG_NOSIGNAL) != (ssize_t)sizeof msg)
		fake_hang_up(f);
}

void fake_put(struct fake *f, const struct amqp_record *rec)
{
	struct ctl_ring_end ring = dp_shm_request_ring(&f->shm, 0);
	const uint64_t one = 1;

	if (!ctl_ring_put(&ring, rec))
		die("request ring is full");
	if (ctl_ring_wants_kick(&ring) && write(f->kick_fd, &one, sizeof one) < 0)
		die("kick");
}

static void dump_defs(struct fake *f, const struct fake_def *defs, uint16_t kind)
{
	struct amqp_record rec;

	for (unsigned i = 0; i < FAKE_IDS; i++)
		if (defs[i].bytes != NULL && ctl_record_decode(defs[i].bytes, defs[i].len, &rec)) {
			rec.kind = kind;
			rec.token = 0;
			fake_put(f, &rec);
		}
}

static void dump(struct fake *f)
{
	struct amqp_record rec = {.kind = AMQP_REQ_DEF_CONN, .str = {{(const uint8_t *)"/", 1}, {(const uint8_t *)"guest", 5}}};

	f->dumps++;
	if (f->mute_dump)
		return;
	if (f->on_dump != NULL) {
		f->on_dump(f);
		return;
	}
	dump_defs(f, f->exchange, AMQP_REQ_DEF_EXCHANGE);
	dump_defs(f, f->queue, AMQP_REQ_DEF_QUEUE);
	dump_defs(f, f->binding, AMQP_REQ_DEF_BINDING);
	for (unsigned i = 0; i < f->conns_count; i++) {
		rec.conn_uid = f->conns[i];
		fake_put(f, &rec);
	}
	rec = (struct amqp_record){.kind = AMQP_REQ_DUMP_END};
	fake_put(f, &rec);
}

static void keep(struct fake_def *defs, unsigned *count, const struct amqp_record *rec)
{
	struct fake_def *d = rec->id < FAKE_IDS ? &defs[rec->id] : NULL;

	if (d == NULL || d->bytes != NULL)
		die("control added an id twice, or out of range");
	d->len = ctl_record_bytes(rec);
	d->bytes = malloc(d->len);
	if (d->bytes == NULL || ctl_record_encode(d->bytes, d->len, rec) != d->len)
		die("memory");
	(*count)++;
}

static void drop(struct fake_def *defs, unsigned *count, uint32_t id)
{
	if (id >= FAKE_IDS || defs[id].bytes == NULL)
		die("control deleted an id that is not there");
	free(defs[id].bytes);
	defs[id] = (struct fake_def){NULL, 0};
	(*count)--;
}

static void copy_text(char *out, size_t bytes, struct amqp_span s)
{
	snprintf(out, bytes, "%.*s", (int)s.len, (const char *)s.ptr);
}

static void apply(struct fake *f, const struct amqp_record *op)
{
	switch ((enum amqp_record_kind)op->kind) {
	case AMQP_OP_EXCHANGE_ADD:
		keep(f->exchange, &f->exchanges, op);
		break;
	case AMQP_OP_EXCHANGE_DEL:
		drop(f->exchange, &f->exchanges, op->id);
		break;
	case AMQP_OP_QUEUE_ADD:
		keep(f->queue, &f->queues, op);
		break;
	case AMQP_OP_QUEUE_DEL:
		drop(f->queue, &f->queues, op->id);
		break;
	case AMQP_OP_BIND_ADD:
		keep(f->binding, &f->bindings, op);
		break;
	case AMQP_OP_BIND_DEL:
		drop(f->binding, &f->bindings, op->id);
		break;
	case AMQP_OP_DUMP:
		dump(f);
		return;
	case AMQP_OP_REPLY:
		f->reply = *op;
		copy_text(f->reply_text, sizeof f->reply_text, op->str[0]);
		copy_text(f->reply_name, sizeof f->reply_name, op->str[1]);
		f->replies++;
		return;
	case AMQP_OP_CONN_CLOSE:
		f->close = *op;
		copy_text(f->close_text, sizeof f->close_text, op->str[0]);
		return;
	case AMQP_OP_QUEUE_PURGE:
		f->purge = *op;
		return;
	default:
		die("an operation of no known kind");
	}
	f->ops++;
}

static void read_messages(struct fake *f)
{
	struct ctl_msg msg;
	ssize_t n;

	while (f->control_fd >= 0 && (n = recv(f->control_fd, &msg, sizeof msg, MSG_DONTWAIT)) != -1) {
		if (n == 0) {
			f->hangups++;
			fake_hang_up(f);
		} else if (n == (ssize_t)sizeof msg && msg.kind == CTL_MSG_DB_PUBLISH) {
			f->published = msg;
			f->publishes++;
		}
	}
	if (f->control_fd >= 0 && errno != EAGAIN) {
		f->hangups++;
		fake_hang_up(f);
	}
}

void fake_step(struct fake *f)
{
	struct amqp_record op;
	struct ctl_ring_end ring;
	int fd = f->listen_fd >= 0 ? accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC) : -1;

	if (fd >= 0) {
		fake_hang_up(f);
		f->control_fd = fd;
		f->accepts++;
		greet(f);
	}
	if (f->have_shm && f->control_fd >= 0) {
		ring = dp_shm_op_ring(&f->shm, 0);
		while (ctl_ring_get(&ring, scratch, &op) == 1)
			apply(f, &op);
	}
	read_messages(f);
}

bool fake_until(struct fake *f, bool (*done)(struct fake *f, void *arg), void *arg)
{
	time_t until = time(NULL) + BOUND_S;

	while (!done(f, arg)) {
		if (time(NULL) > until)
			return false;
		fake_step(f);
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
	return true;
}

static bool replied(struct fake *f, void *arg)
{
	return f->replies != 0 && f->reply.token == *(uint64_t *)arg;
}

bool fake_ask(struct fake *f, struct amqp_record rec)
{
	static uint64_t token = 1000;

	rec.token = ++token;
	fake_put(f, &rec);
	return fake_until(f, replied, &rec.token);
}

void fake_send(struct fake *f, const void *msg, size_t len)
{
	if (f->control_fd >= 0 && send(f->control_fd, msg, len, MSG_NOSIGNAL) < 0)
		fake_hang_up(f);
}
