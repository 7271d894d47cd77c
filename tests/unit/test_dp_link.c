/*
 * test_dp_link.c - the main thread's line to control, with the test in both other parts: control's and the worker's.
 *
 * Owns: a socket below $TMPDIR, shared memory, and a thread that answers mail as a worker does.
 * Core: the test's threads.
 * Spec: DESIGN sections 5 and 6; control/ctl_shm.h (messages on the socket).
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/link.h"
#include "dataplane/log.h"

#define EXCHANGES 8u

static struct {
	struct dp_shm shm;
	struct dp_link link;
	struct dp_mailbox inbox, outbox;
	pthread_t worker;
	_Atomic bool leave, exchanges_gone;
	_Atomic unsigned attached_count, gone_count, drain_count;
	struct match_db *db[EXCHANGES];
	struct match_scratch *scratch;
	char folder[64], path[96];
	uint8_t *control_map;
} t;

/* A worker's answers, as worker.c gives them. */
static void answer(const struct dp_mail *mail)
{
	struct dp_mail reply = {.kind = DP_MAIL_DB_TAKEN, .exchange_id = mail->exchange_id, .db = mail->db};

	switch (mail->kind) {
	case DP_MAIL_CONTROL_ATTACHED:
		atomic_fetch_add(&t.attached_count, 1);
		dp_mailbox_put(&t.outbox, &(struct dp_mail){.kind = DP_MAIL_RINGS_READY});
		break;
	case DP_MAIL_CONTROL_GONE:
		atomic_fetch_add(&t.gone_count, 1);
		break;
	case DP_MAIL_NEW_DB:
		reply.scratch = t.scratch;
		t.scratch = mail->scratch;
		if (mail->exchange_id >= EXCHANGES || atomic_load(&t.exchanges_gone)) {
			reply.old_db = mail->db;
		} else {
			reply.old_db = t.db[mail->exchange_id];
			t.db[mail->exchange_id] = mail->db;
		}
		dp_mailbox_put(&t.outbox, &reply);
		break;
	case DP_MAIL_DRAIN:
		atomic_fetch_add(&t.drain_count, 1);
		dp_mailbox_put(&t.outbox, &(struct dp_mail){.kind = DP_MAIL_DRAINED, .number = 3});
		break;
	default:
		break;
	}
}

static void *work(void *arg)
{
	struct dp_mail mail;

	(void)arg;
	while (!atomic_load(&t.leave))
		if (dp_mailbox_room(&t.outbox) > 1 && dp_mailbox_get(&t.inbox, &mail))
			answer(&mail);
		else
			sched_yield();
	return NULL;
}

static int set_up(void **state)
{
	struct dp_shm_plan plan = {
		.workers_count = 1,
		.request_ring_bytes = 4096,
		.op_ring_bytes = 4096,
		.arena_bytes = 1u << 20,
		.conns_max = 1,
		.channels_max = 1,
		.queues_max = 1,
		.consumers_max = 1,
		.exchanges_max = EXCHANGES,
		.bindings_max = 1,
		.rules_max = 1,
		.tsc_hz = 1000000000,
		.port_text = "",
		.address_text = "",
	};
	char err[512] = "";

	(void)state;
	memset(&t, 0, sizeof t);
	dp_log_init(DP_LOG_ERROR, 0);
	snprintf(t.folder, sizeof t.folder, "/tmp/test_dp_link.??????");
	memset(strchr(t.folder, '?'), 'X', 6);
	assert_non_null(mkdtemp(t.folder));
	snprintf(t.path, sizeof t.path, "%s/dataplane.sock", t.folder);
	dp_mailbox_init(&t.inbox);
	dp_mailbox_init(&t.outbox);
	if (!dp_shm_create(&t.shm, &plan, err, sizeof err) || !dp_link_open(&t.link, t.path, err, sizeof err))
		fail_msg("%s", err);
	dp_shm_publish(&t.shm);
	if (!dp_link_serve(&t.link, &t.shm, (struct dp_mailbox *[]){&t.inbox}, (struct dp_mailbox *[]){&t.outbox}, 1, err,
			   sizeof err))
		fail_msg("%s", err);
	t.control_map = mmap(NULL, t.shm.layout.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, t.shm.fd, 0);
	assert_true(t.control_map != MAP_FAILED);
	return pthread_create(&t.worker, NULL, work, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	atomic_store(&t.leave, true);
	pthread_join(t.worker, NULL);
	munmap(t.control_map, t.shm.layout.total_bytes);
	dp_link_close(&t.link, true);
	dp_shm_destroy(&t.shm);
	assert_int_equal(access(t.path, F_OK), -1);
	return rmdir(t.folder);
}

/* ---- control's part ---- */

static int call(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", t.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	dp_link_accept(&t.link);
	return fd;
}

/* The next message; fds, if any, go to `fds`. */
static struct ctl_msg hear(int fd, int fds[2])
{
	struct ctl_msg msg = {0};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} extra;
	struct iovec iov = {&msg, sizeof msg};
	struct msghdr head = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = extra.bytes, .msg_controllen = sizeof extra.bytes};

	assert_int_equal(recvmsg(fd, &head, 0), sizeof msg);
	if (fds != NULL) {
		struct cmsghdr *c = CMSG_FIRSTHDR(&head);

		assert_non_null(c);
		assert_int_equal(c->cmsg_len, CMSG_LEN(2 * sizeof(int)));
		memcpy(fds, CMSG_DATA(c), 2 * sizeof(int));
	}
	return msg;
}

static int attach(void)
{
	int fds[2], fd = call();
	struct ctl_msg msg = hear(fd, fds);

	assert_int_equal(msg.kind, CTL_MSG_HELLO);
	close(fds[0]);
	close(fds[1]);
	return fd;
}

/* What a loop of the main thread does when control wrote: takes it, and the worker's answer when that is there. */
static void until_mail(unsigned letters)
{
	uint32_t from = atomic_load(&t.outbox.tail);

	while (atomic_load(&t.outbox.tail) - from < letters) {
		dp_link_mail(&t.link);
		sched_yield();
	}
}

static void say(int fd, struct ctl_msg msg)
{
	assert_int_equal(send(fd, &msg, sizeof msg, 0), sizeof msg);
	dp_link_input(&t.link);
}

static struct ctl_msg publish_at(uint64_t offset, uint32_t exchange, uint64_t generation, const char *pattern)
{
	struct match_rule rule = {1, (const uint8_t *)pattern, strlen(pattern)};
	char err[256] = "";
	size_t bytes = 0;
	uint8_t *image = match_compile(MATCH_TOPIC, &rule, 1, generation, &bytes, err, sizeof err);

	if (image == NULL)
		fail_msg("%s", err);
	memcpy(t.control_map + t.shm.layout.arena_offset + offset, image, bytes);
	free(image);
	return (struct ctl_msg){
		.kind = CTL_MSG_DB_PUBLISH, .id = exchange, .generation = generation, .offset = offset, .bytes = bytes};
}

/* Publishes and waits for the worker. */
static struct ctl_msg take(int fd, uint64_t offset, uint32_t exchange, uint64_t generation)
{
	struct ctl_msg msg = publish_at(offset, exchange, generation, "ticks.*.#");

	assert_int_equal(send(fd, &msg, sizeof msg, 0), sizeof msg);
	dp_link_input(&t.link);
	until_mail(1);
	return msg;
}

/* ---- tests ---- */

static void control_is_greeted_with_memory_and_eventfd_after_the_rings_were_reset(void **state)
{
	int fds[2], fd = call();
	struct ctl_msg msg;
	struct ctl_shm_header seen;
	struct stat st;
	const char *err;
	uint64_t one = 1;
	void *map;

	(void)state;
	/* The worker had reset its rings before the greeting was written. */
	assert_int_equal(atomic_load(&t.attached_count), 1);
	msg = hear(fd, fds);
	assert_int_equal(msg.kind, CTL_MSG_HELLO);
	assert_int_equal(fstat(fds[0], &st), 0);
	assert_int_equal(st.st_size, msg.bytes);
	map = mmap(NULL, msg.bytes, PROT_READ, MAP_SHARED, fds[0], 0);
	assert_true(map != MAP_FAILED);
	assert_true(ctl_shm_check(map, msg.bytes, &seen, &err));
	assert_int_equal(write(t.link.kick_fd, &one, sizeof one), sizeof one);
	assert_int_equal(read(fds[1], &one, sizeof one), sizeof one);
	munmap(map, msg.bytes);
	close(fds[0]);
	close(fds[1]);
	close(fd);
}

static void the_socket_is_for_its_owner_alone(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(stat(t.path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_second_control_is_told_that_it_is_too_many(void **state)
{
	int first = attach(), second = call();
	char byte;

	(void)state;
	assert_int_equal(hear(second, NULL).kind, CTL_MSG_BUSY);
	assert_int_equal(recv(second, &byte, 1, 0), 0);
	assert_int_equal(atomic_load(&t.attached_count), 1);
	close(first);
	close(second);
}

static void when_control_goes_the_worker_hears_of_it_and_the_next_may_come(void **state)
{
	int fd = attach();

	(void)state;
	close(fd);
	dp_link_input(&t.link);
	assert_int_equal(t.link.control_fd, -1);
	fd = attach();
	assert_int_equal(atomic_load(&t.gone_count), 1);
	assert_int_equal(atomic_load(&t.attached_count), 2);
	close(fd);
}

static void a_database_is_taken_and_the_one_before_it_released(void **state)
{
	int fd = attach();
	struct ctl_msg msg;

	(void)state;
	take(fd, 0, 3, 1);
	msg = hear(fd, NULL);
	assert_int_equal(msg.kind, CTL_MSG_DB_TAKEN);
	assert_int_equal(msg.id, 3);
	assert_int_equal(msg.generation, 1);
	take(fd, 256 << 10, 3, 2);
	msg = hear(fd, NULL);
	assert_int_equal(msg.kind, CTL_MSG_DB_TAKEN);
	assert_int_equal(msg.generation, 2);
	assert_int_equal(msg.offset, 256 << 10);
	msg = hear(fd, NULL);
	assert_int_equal(msg.kind, CTL_MSG_DB_RELEASED);
	assert_int_equal(msg.offset, 0);
	assert_int_equal(msg.generation, 1);
	/* Its place is free again. */
	take(fd, 0, 3, 3);
	assert_int_equal(hear(fd, NULL).generation, 3);
	close(fd);
}

static void a_database_for_an_exchange_that_is_gone_is_refused(void **state)
{
	int fd = attach();
	struct ctl_msg msg;

	(void)state;
	atomic_store(&t.exchanges_gone, true);
	take(fd, 0, 3, 1);
	msg = hear(fd, NULL);
	assert_int_equal(msg.kind, CTL_MSG_DB_REFUSED);
	assert_true(msg.text[0] != '\0');
	atomic_store(&t.exchanges_gone, false);
	take(fd, 0, 3, 2);
	assert_int_equal(hear(fd, NULL).kind, CTL_MSG_DB_TAKEN);
	close(fd);
}

static void expect_refusal(int fd, struct ctl_msg msg, const char *says)
{
	struct ctl_msg got;

	say(fd, msg);
	got = hear(fd, NULL);
	assert_int_equal(got.kind, CTL_MSG_DB_REFUSED);
	assert_int_equal(got.offset, msg.offset);
	assert_int_equal(got.id, msg.id);
	if (strstr(got.text, says) == NULL)
		fail_msg("refused with \"%s\", not \"%s\"", got.text, says);
}

static void nothing_in_a_publication_is_trusted(void **state)
{
	int fd = attach();
	uint64_t arena_bytes = t.shm.layout.arena_bytes;
	struct ctl_msg good = publish_at(0, 1, 1, "a.*"), bad;

	(void)state;
	bad = good;
	bad.offset = 8;
	expect_refusal(fd, bad, "aligned");
	bad = good;
	bad.bytes = 0;
	expect_refusal(fd, bad, "outside");
	bad.bytes = arena_bytes + 1;
	expect_refusal(fd, bad, "outside");
	bad = good;
	bad.offset = arena_bytes;
	expect_refusal(fd, bad, "outside");
	bad.offset = UINT64_MAX & ~63ull;
	bad.bytes = 128;
	expect_refusal(fd, bad, "outside");
	bad.offset = 64;
	bad.bytes = UINT64_MAX - 32;
	expect_refusal(fd, bad, "outside");
	/* Inside, aligned, and not an image. */
	bad = good;
	bad.offset = 64;
	bad.bytes = good.bytes;
	expect_refusal(fd, bad, "");
	bad = good;
	bad.bytes = good.bytes / 2;
	expect_refusal(fd, bad, "");
	/* And none of it was held against the good one. */
	take(fd, 0, 1, 1);
	assert_int_equal(hear(fd, NULL).kind, CTL_MSG_DB_TAKEN);
	/* An image over one that is in use would be written while it is read. */
	bad = good;
	bad.offset = 64;
	expect_refusal(fd, bad, "overlaps");
	close(fd);
}

static void an_unknown_message_ends_the_connection_and_nothing_else(void **state)
{
	int fd = attach();
	char byte;

	(void)state;
	say(fd, (struct ctl_msg){.kind = CTL_MSG_HELLO});
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
	fd = attach();
	assert_int_equal(send(fd, "short", 5, 0), 5);
	dp_link_input(&t.link);
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
	fd = attach();
	close(fd);
}

static void a_restarted_control_learns_which_databases_are_in_use(void **state)
{
	int fd = attach();
	struct ctl_msg msg;

	(void)state;
	take(fd, 128 << 10, 5, 9);
	close(fd);
	dp_link_input(&t.link);
	fd = attach();
	msg = hear(fd, NULL);
	assert_int_equal(msg.kind, CTL_MSG_DB_TAKEN);
	assert_int_equal(msg.id, 5);
	assert_int_equal(msg.generation, 9);
	assert_int_equal(msg.offset, 128 << 10);
	/* The exchange goes: the worker sends its database back, and the place is free. */
	dp_mailbox_put(&t.outbox, &(struct dp_mail){.kind = DP_MAIL_DB_DROPPED, .old_db = t.db[5]});
	t.db[5] = NULL;
	dp_link_mail(&t.link);
	msg = hear(fd, NULL);
	assert_int_equal(msg.kind, CTL_MSG_DB_RELEASED);
	assert_int_equal(msg.offset, 128 << 10);
	close(fd);
}

static void a_control_that_spoils_its_ring_is_sent_away(void **state)
{
	int fd = attach();
	char byte;

	(void)state;
	dp_mailbox_put(&t.outbox, &(struct dp_mail){.kind = DP_MAIL_RING_CORRUPT});
	dp_link_mail(&t.link);
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

static void draining_is_told_to_both_sides(void **state)
{
	int fd = attach();

	(void)state;
	dp_link_drain(&t.link, 1);
	assert_int_equal(hear(fd, NULL).kind, CTL_MSG_DRAINING);
	until_mail(1);
	assert_true(t.link.drained);
	assert_int_equal(t.link.cut_off_count, 3);
	assert_int_equal(atomic_load(&t.drain_count), 1);
	close(fd);
}

static void a_path_where_somebody_answers_is_not_taken(void **state)
{
	struct dp_link other;
	char err[512] = "";

	(void)state;
	assert_false(dp_link_open(&other, t.path, err, sizeof err));
	assert_non_null(strstr(err, "already"));
	dp_link_close(&other, true);
	/* The refused one took nothing away. */
	assert_int_equal(access(t.path, F_OK), 0);
	/* Its knock was no control: it is forgotten before the next comes. */
	dp_link_accept(&t.link);
	assert_int_equal(t.link.control_fd, -1);
	close(attach());
}

static void a_stale_socket_is_replaced_but_a_file_is_not(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char path[96], err[512] = "";
	struct dp_link other;
	FILE *f;
	int fd;

	(void)state;
	snprintf(path, sizeof path, "%s/other.sock", t.folder);
	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	close(fd);
	assert_true(dp_link_open(&other, path, err, sizeof err));
	dp_link_close(&other, true);
	f = fopen(path, "w");
	fclose(f);
	assert_false(dp_link_open(&other, path, err, sizeof err));
	assert_non_null(strstr(err, "no socket"));
	dp_link_close(&other, true);
	assert_int_equal(unlink(path), 0);
}

#define LINK_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LINK_TEST(control_is_greeted_with_memory_and_eventfd_after_the_rings_were_reset),
		LINK_TEST(the_socket_is_for_its_owner_alone),
		LINK_TEST(a_second_control_is_told_that_it_is_too_many),
		LINK_TEST(when_control_goes_the_worker_hears_of_it_and_the_next_may_come),
		LINK_TEST(a_database_is_taken_and_the_one_before_it_released),
		LINK_TEST(a_database_for_an_exchange_that_is_gone_is_refused),
		LINK_TEST(nothing_in_a_publication_is_trusted),
		LINK_TEST(an_unknown_message_ends_the_connection_and_nothing_else),
		LINK_TEST(a_restarted_control_learns_which_databases_are_in_use),
		LINK_TEST(a_control_that_spoils_its_ring_is_sent_away),
		LINK_TEST(draining_is_told_to_both_sides),
		LINK_TEST(a_path_where_somebody_answers_is_not_taken),
		LINK_TEST(a_stale_socket_is_replaced_but_a_file_is_not),
	};

	return cmocka_run_group_tests_name("dp_link", tests, NULL, NULL);
}
