/*
 * link.c - the main thread's line to the control process.
 *
 * Owns: the Unix socket, the one control that is attached, and the letters to and from the worker about it.
 * Core: the main thread.
 * Spec: DESIGN sections 1 and 5; control/ctl_shm.h (messages on the socket).
 */
#include "dataplane/link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/log.h"

#define WORKER_WAIT_NS 2000000000ull /* for the worker's answer to a letter; a turn takes microseconds */
#define WORKER_LOOK_NS 50000L
#define WAITING_CONNS  4
#define CONTROL_SNDBUF (256 << 10)
#define TELL_WAIT_MS   2000 /* a control that reads nothing for so long is disconnected */

/* ---- the socket ---- */

static bool fail(char *err, size_t err_bytes, const char *path, const char *what)
{
	snprintf(err, err_bytes, "the socket %s for control: %s: %s (choose its place with --socket)", path, what, strerror(errno));
	return false;
}

/* Removes what a crashed dataplane has left; true when the path is free. */
static bool clear_path(const struct sockaddr_un *addr, char *err, size_t err_bytes)
{
	struct stat st;
	int fd, rc;

	if (lstat(addr->sun_path, &st) != 0)
		return errno == ENOENT || fail(err, err_bytes, addr->sun_path, "cannot be looked at");
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(err, err_bytes, "%s is there and is no socket: remove it or choose another place with --socket",
			 addr->sun_path);
		return false;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(err, err_bytes, addr->sun_path, "no socket");
	rc = connect(fd, (const struct sockaddr *)addr, sizeof *addr);
	if (rc != 0 && errno != ECONNREFUSED && errno != ENOENT)
		rc = 0; /* a full backlog, another kind of socket: somebody is there */
	close(fd);
	if (rc == 0) {
		snprintf(err, err_bytes,
			 "another process answers on %s: is a dataplane running already? (--socket chooses another place)",
			 addr->sun_path);
		return false;
	}
	return unlink(addr->sun_path) == 0 || errno == ENOENT ||
	       fail(err, err_bytes, addr->sun_path, "the stale one cannot be removed");
}

static bool bind_path(int fd, const struct sockaddr_un *addr)
{
	mode_t before = umask(0177);
	int rc = bind(fd, (const struct sockaddr *)addr, sizeof *addr);

	umask(before);
	return rc == 0;
}

bool dp_link_open(struct dp_link *l, const char *path, char *err, size_t err_bytes)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	memset(l, 0, sizeof *l);
	l->listen_fd = l->control_fd = l->kick_fd = -1;
	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
	if (!clear_path(&addr, err, err_bytes))
		return false;
	l->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->listen_fd < 0 || !bind_path(l->listen_fd, &addr))
		return fail(err, err_bytes, path, "cannot be made");
	snprintf(l->path, sizeof l->path, "%s", path);
	l->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return l->kick_fd >= 0 || fail(err, err_bytes, path, "no eventfd");
}

bool dp_link_serve(struct dp_link *l, const struct dp_shm *shm, struct dp_mailbox *const *to_worker,
		   struct dp_mailbox *const *from_worker, uint32_t workers_count, char *err, size_t err_bytes)
{
	l->shm = shm;
	l->workers_count = workers_count;
	for (uint32_t w = 0; w < workers_count; w++) {
		l->to_worker[w] = to_worker[w];
		l->from_worker[w] = from_worker[w];
	}
	if (!dp_databases_init(&l->databases, shm->arena, shm->layout.arena_bytes, shm->layout.exchanges_max, workers_count)) {
		snprintf(err, err_bytes, "there is no memory for the table of databases: lower --exchanges");
		return false;
	}
	return listen(l->listen_fd, WAITING_CONNS) == 0 || fail(err, err_bytes, l->path, "does not listen");
}

/* ---- letters ---- */

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void wait_a_little(void)
{
	nanosleep(&(struct timespec){.tv_nsec = WORKER_LOOK_NS}, NULL);
}

/* The worker empties its mailbox a letter a turn; false only when it does not turn any more. */
static bool send_mail_to(struct dp_link *l, uint32_t worker, const struct dp_mail *mail)
{
	uint64_t until_ns = clock_ns() + WORKER_WAIT_NS;

	while (!dp_mailbox_put(l->to_worker[worker], mail)) {
		if (clock_ns() > until_ns)
			return false;
		dp_link_mail(l);
		wait_a_little();
	}
	return true;
}

/* To all. False: one does not turn any more. */
static bool send_mail(struct dp_link *l, const struct dp_mail *mail)
{
	bool ok = true;

	for (uint32_t w = 0; w < l->workers_count; w++)
		ok &= send_mail_to(l, w, mail);
	return ok;
}

static void detach(struct dp_link *l, const char *why)
{
	if (l->control_fd < 0)
		return;
	close(l->control_fd);
	l->control_fd = -1;
	dp_log(DP_LOG_INFO, "control: %s; forwarding goes on, declarations wait", why);
	if (!send_mail(l, &(struct dp_mail){.kind = DP_MAIL_CONTROL_GONE}))
		dp_log(DP_LOG_ERROR, "the worker does not take its mail");
}

/* A control that does not read its few messages is no use: it is sent away and comes back with a clean slate. */
static bool tell(struct dp_link *l, const struct ctl_msg *msg)
{
	if (l->control_fd < 0)
		return false;
	for (;;) {
		struct pollfd p = {.fd = l->control_fd, .events = POLLOUT};

		if (send(l->control_fd, msg, sizeof *msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof *msg)
			return true;
		/* Many databases are told of at an attachment; control reads them while it makes its tables. */
		if (errno != EAGAIN || poll(&p, 1, TELL_WAIT_MS) != 1)
			break;
	}
	detach(l, errno == EAGAIN ? "does not read its messages, disconnected" : "gone");
	return false;
}

static bool tell_db(struct dp_link *l, enum ctl_msg_kind kind, const struct dp_db *s, const char *text)
{
	struct ctl_msg msg = {
		.kind = kind,
		.id = s->exchange_id,
		.generation = s->generation,
		.offset = s->offset,
		.bytes = s->bytes,
	};

	snprintf(msg.text, sizeof msg.text, "%s", text);
	return tell(l, &msg);
}

/* Nobody has it, and nobody will take it out of the mail any more. */
static void forget_db(struct dp_link *l, struct dp_db *s)
{
	if (s->taken)
		tell_db(l, CTL_MSG_DB_RELEASED, s, "");
	else
		tell_db(l, CTL_MSG_DB_REFUSED, s, "the exchange is gone, or is of a type that has no database");
	s->in_use = false;
}

static void release_db(struct dp_link *l, uint32_t worker, struct match_db *db)
{
	struct dp_db *s = dp_databases_find(&l->databases, worker, db);

	if (s != NULL && dp_databases_close(s, worker) && s->answers_left == 0)
		forget_db(l, s);
}

/* Control hears of it when all workers have it: until then they match by the patterns themselves, or by the former one. */
static void on_db_taken(struct dp_link *l, uint32_t worker, const struct dp_mail *mail)
{
	struct dp_db *s = dp_databases_find(&l->databases, worker, mail->db);
	bool refused = mail->old_db == mail->db, gone;

	dp_databases_return_scratch(&l->databases, worker, mail->scratch);
	if (s == NULL)
		return;
	s->taken |= !refused;
	gone = refused && dp_databases_close(s, worker);
	if (--s->answers_left == 0 && s->taken)
		tell_db(l, CTL_MSG_DB_TAKEN, s, "");
	if (s->answers_left == 0 && gone)
		forget_db(l, s);
	if (!refused)
		release_db(l, worker, mail->old_db);
}

static void read_mail(struct dp_link *l, uint32_t worker)
{
	struct dp_mail mail;

	while (dp_mailbox_get(l->from_worker[worker], &mail)) {
		switch (mail.kind) {
		case DP_MAIL_RINGS_READY:
			l->rings_ready_count++;
			break;
		case DP_MAIL_DB_TAKEN:
			on_db_taken(l, worker, &mail);
			break;
		case DP_MAIL_DB_DROPPED:
			release_db(l, worker, mail.old_db);
			break;
		case DP_MAIL_RING_CORRUPT:
			detach(l, "wrote nonsense into its operation ring, disconnected");
			break;
		case DP_MAIL_DRAINED:
			l->drained = ++l->drained_count == l->workers_count;
			l->cut_off_count += mail.number;
			break;
		case DP_MAIL_CONTROL_ATTACHED:
		case DP_MAIL_CONTROL_GONE:
		case DP_MAIL_NEW_DB:
		case DP_MAIL_DRAIN:
			break; /* the other direction's */
		}
	}
}

void dp_link_mail(struct dp_link *l)
{
	for (uint32_t w = 0; w < l->workers_count; w++)
		read_mail(l, w);
}

/* ---- control comes, speaks, goes ---- */

/* All rings are fresh before control can see them: only the workers touch them meanwhile. */
static bool reset_rings(struct dp_link *l)
{
	uint64_t until_ns = clock_ns() + WORKER_WAIT_NS;

	l->rings_ready_count = 0;
	if (!send_mail(l, &(struct dp_mail){.kind = DP_MAIL_CONTROL_ATTACHED}))
		return false;
	while (l->rings_ready_count < l->workers_count && clock_ns() < until_ns) {
		dp_link_mail(l);
		wait_a_little();
	}
	return l->rings_ready_count == l->workers_count;
}

static bool send_hello(const struct dp_link *l)
{
	struct ctl_msg msg = {.kind = CTL_MSG_HELLO, .bytes = l->shm->layout.total_bytes};
	const int fds[2] = {l->shm->fd, l->kick_fd};
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
	return sendmsg(l->control_fd, &head, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof msg;
}

/* A control that was restarted learns which images in the arena are still read. */
static void tell_open_databases(struct dp_link *l)
{
	for (uint32_t i = 0; i < l->databases.slots_count; i++)
		if (l->databases.slot[i].in_use && l->databases.slot[i].taken && l->databases.slot[i].answers_left == 0 &&
		    !tell_db(l, CTL_MSG_DB_TAKEN, &l->databases.slot[i], ""))
			return;
}

static void attach(struct dp_link *l, int fd)
{
	const int bytes = CONTROL_SNDBUF;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	l->control_fd = fd;
	if (!reset_rings(l)) {
		dp_log(DP_LOG_ERROR, "the worker does not answer, so control is sent away; it will try again");
		detach(l, "disconnected");
		return;
	}
	if (!send_hello(l)) {
		detach(l, "gone before it was greeted");
		return;
	}
	dp_log(DP_LOG_INFO, "control: attached");
	tell_open_databases(l);
}

void dp_link_accept(struct dp_link *l)
{
	int fd = accept4(l->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (l->control_fd < 0) {
		attach(l, fd);
		return;
	}
	send(fd, &(struct ctl_msg){.kind = CTL_MSG_BUSY, .text = "another control is attached"}, sizeof(struct ctl_msg),
	     MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
	dp_log(DP_LOG_WARNING, "control: a second one was sent away");
}

static void on_db_publish(struct dp_link *l, const struct ctl_msg *msg)
{
	struct ctl_msg refusal = *msg;
	struct dp_mail mail = {.kind = DP_MAIL_NEW_DB, .exchange_id = msg->id};
	struct dp_db *s = dp_databases_open(&l->databases, msg, refusal.text, sizeof refusal.text);

	if (s == NULL) {
		refusal.kind = CTL_MSG_DB_REFUSED;
		dp_log(DP_LOG_WARNING, "control: a database for exchange %u was refused: %s", msg->id, refusal.text);
		tell(l, &refusal);
		return;
	}
	s->answers_left = l->workers_count;
	for (uint32_t w = 0; w < l->workers_count; w++) {
		mail.db = s->db[w];
		mail.scratch = l->databases.scratch[w];
		if (send_mail_to(l, w, &mail))
			continue;
		dp_log(DP_LOG_ERROR, "worker %u does not take its mail", w);
		/* As if it had refused; the scratch that was grown is the newest all the same and stays. */
		on_db_taken(l, w, &(struct dp_mail){.db = s->db[w], .old_db = s->db[w]});
	}
}

void dp_link_input(struct dp_link *l)
{
	struct ctl_msg msg;
	ssize_t got = recv(l->control_fd, &msg, sizeof msg, MSG_DONTWAIT | MSG_TRUNC);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		detach(l, "gone");
		return;
	}
	if (got != (ssize_t)sizeof msg || msg.kind != CTL_MSG_DB_PUBLISH) {
		detach(l, "sent a message that this version does not know, disconnected");
		return;
	}
	msg.text[sizeof msg.text - 1] = '\0';
	on_db_publish(l, &msg);
}

/* ---- the end ---- */

void dp_link_drain(struct dp_link *l, uint64_t for_ns)
{
	tell(l, &(struct ctl_msg){.kind = CTL_MSG_DRAINING, .text = "the dataplane leaves"});
	if (!send_mail(l, &(struct dp_mail){.kind = DP_MAIL_DRAIN, .number = for_ns}))
		dp_log(DP_LOG_ERROR, "the worker does not take its mail");
}

void dp_link_close(struct dp_link *l, bool worker_left)
{
	if (l->control_fd >= 0)
		close(l->control_fd);
	if (l->listen_fd >= 0)
		close(l->listen_fd);
	if (l->path[0] != '\0')
		unlink(l->path);
	if (worker_left)
		dp_databases_fini(&l->databases);
	if (l->kick_fd >= 0)
		close(l->kick_fd);
	l->control_fd = l->listen_fd = l->kick_fd = -1;
}
