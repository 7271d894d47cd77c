/*
 * test_ctl_process.c - tickwire-control and tickctl as processes, with a dataplane that is played by the test.
 *
 * Owns: a temporary directory, the processes that it starts.
 * Core: a cmocka program; it waits for what must happen, and for nothing else.
 * Spec: DESIGN section 5: either side may die at any moment, and neither believes the other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "matcher/matcher.h"
#include "tests/unit/ctl_fake_dataplane.h"

static char dir[64], bin[PATH_MAX], path[PATH_MAX + 128];
static pid_t control;
static struct fake f;
static uint64_t boot = 100;

static const char *in_dir(const char *name)
{
	static char out[4][128];
	static unsigned turn;

	turn = (turn + 1) % 4;
	snprintf(out[turn], sizeof out[0], "%s/%s", dir, name);
	return out[turn];
}

static void write_config(const char *more)
{
	FILE *c = fopen(in_dir("tickwire.conf"), "w");

	assert_non_null(c);
	fprintf(c,
		"[control]\ndataplane_socket = %s\ncli_socket = %s\ndata_dir = %s\nlog_file = %s\nstore_sync = "
		"no\ncompile_settle_ms = 1\n"
		"[user guest]\npassword = guest\ntags = administrator\n%s",
		in_dir("dp.sock"), in_dir("ctl.sock"), in_dir("data"), in_dir("log"), more);
	assert_int_equal(fclose(c), 0);
}

static pid_t spawn(const char *program, char *const argv[], int out_fd)
{
	pid_t pid;

	snprintf(path, sizeof path, "%s/%s", bin, program);
	pid = fork();
	assert_true(pid >= 0);
	if (pid != 0)
		return pid;
	if (out_fd >= 0)
		dup2(out_fd, STDOUT_FILENO);
	if (out_fd >= 0 && getenv("CTL_TEST_STDERR") == NULL)
		dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
	execv(path, argv);
	_exit(127);
}

static void start_control(void)
{
	char conf[128];

	snprintf(conf, sizeof conf, "%s", in_dir("tickwire.conf"));
	control = spawn("tickwire-control", (char *[]){"tickwire-control", "--foreground", "--config", conf, NULL}, -1);
}

static int stop_control(int sig)
{
	int status = 0;

	if (control > 0) {
		kill(control, sig);
		assert_int_equal(waitpid(control, &status, 0), control);
	}
	control = 0;
	return status;
}

static bool control_lives(void)
{
	return control > 0 && waitpid(control, NULL, WNOHANG) == 0;
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/ctl_process_XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	fake_init(&f, in_dir("dp.sock"));
	fake_boot(&f, ++boot);
	write_config("");
	start_control();
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"tickwire.conf", "ctl.sock", "log", "data/data.mdb", "data/lock.mdb"};

	(void)state;
	stop_control(SIGKILL);
	fake_fini(&f);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		unlink(in_dir(names[i]));
	rmdir(in_dir("data"));
	return rmdir(dir);
}

/* Runs tickctl and returns what it printed as JSON (NULL: nothing that is JSON); the dataplane goes on meanwhile. */
static json_t *tickctl(int *status, const char *a, const char *b, const char *c)
{
	char socket_path[128], *text = calloc(1, 1 << 20);
	int fds[2], left;
	size_t len = 0;
	ssize_t n;
	json_t *out;
	pid_t pid;

	snprintf(socket_path, sizeof socket_path, "%s", in_dir("ctl.sock"));
	assert_non_null(text);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	pid = spawn("tickctl",
		    (char *[]){"tickctl", "--socket", socket_path, "--formatter", "json", "-t", "20", (char *)(uintptr_t)a,
			       (char *)(uintptr_t)b, (char *)(uintptr_t)c, NULL},
		    fds[1]);
	close(fds[1]);
	while ((n = read(fds[0], text + len, (1 << 20) - 1 - len)) != 0) {
		fake_step(&f);
		if (n > 0)
			len += (size_t)n;
	}
	close(fds[0]);
	assert_int_equal(waitpid(pid, &left, 0), pid);
	*status = WIFEXITED(left) ? WEXITSTATUS(left) : -1;
	out = json_loadb(text, len, 0, NULL);
	free(text);
	return out;
}

/* The value of a column in the row of that name, as text; "" when there is none. */
static const char *cell(json_t *rows, const char *key, const char *name, const char *column)
{
	static char out[256];
	json_t *row, *v = NULL;
	size_t i;

	json_array_foreach(rows, i, row) if (json_string_value(json_object_get(row, key)) != NULL &&
					     strcmp(json_string_value(json_object_get(row, key)), name) == 0) v =
		json_object_get(row, column);
	if (json_is_string(v))
		snprintf(out, sizeof out, "%s", json_string_value(v));
	else if (json_is_integer(v))
		snprintf(out, sizeof out, "%lld", (long long)json_integer_value(v));
	else
		snprintf(out, sizeof out, "%s", json_is_true(v) ? "true" : json_is_false(v) ? "false" : "");
	return out;
}

static struct amqp_span text(const char *s)
{
	return (struct amqp_span){(const uint8_t *)s, (uint32_t)strlen(s)};
}

static bool has_exchanges(struct fake *fake, void *arg)
{
	return fake->exchanges == *(unsigned *)arg;
}

static void wait_for_defaults(void)
{
	unsigned six = 6;

	assert_true(fake_until(&f, has_exchanges, &six));
}

static uint16_t ask(uint64_t conn, uint16_t kind, uint32_t flags, const char *s0, const char *s1, const char *s2)
{
	struct amqp_record q = {.kind = kind, .flags = flags, .conn_uid = conn, .str = {text(s0), text(s1), text(s2)}};

	if (!fake_ask(&f, q))
		fail_msg("control did not answer request %u", kind);
	return f.reply.code;
}

static bool grown(struct fake *fake, void *arg)
{
	(void)fake;
	return *(unsigned *)arg != f.hangups;
}

static bool attached_again(struct fake *fake, void *arg)
{
	return fake->control_fd >= 0 && fake->dumps > *(unsigned *)arg;
}

static void declare_all(void)
{
	assert_int_equal(ask(7, AMQP_REQ_OPEN, 0, "/", "guest", ""), 0);
	f.conns[f.conns_count++] = 7;
	assert_int_equal(ask(7, AMQP_REQ_EXCHANGE_DECLARE, AMQP_DEF_DURABLE, "durable x", "topic", ""), 0);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_DURABLE, "durable q", "", ""), 0);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, 0, "transient q", "", ""), 0);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_EXCLUSIVE, "exclusive q", "", ""), 0);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_BIND, 0, "durable q", "durable x", "eur.usd"), 0);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_BIND, 0, "transient q", "durable x", "eur.chf"), 0);
	assert_int_equal(f.bindings, 2);
}

static void log_ins_are_answered_and_refused_ones_leave_no_password_in_the_log(void **state)
{
	struct amqp_record q = {.kind = AMQP_REQ_LOGIN, .conn_uid = 3, .str = {text("PLAIN"), text("198.18.0.1")}};
	char log[8192] = "";
	FILE *l;

	(void)state;
	wait_for_defaults();
	q.blob = (struct amqp_span){(const uint8_t *)"\0guest\0guest", 12};
	assert_true(fake_ask(&f, q));
	assert_int_equal(f.reply.code, 0);
	assert_string_equal(f.reply_name, "guest");
	q.blob = (struct amqp_span){(const uint8_t *)"\0guest\0s3cretly", 15};
	assert_true(fake_ask(&f, q));
	assert_int_equal(f.reply.code, 403);
	assert_string_equal(f.reply_text,
			    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the "
			    "broker logfile.");
	assert_int_equal(ask(3, AMQP_REQ_OPEN, 0, "nowhere", "guest", ""), 530);
	assert_string_equal(f.reply_text, "NOT_ALLOWED - vhost nowhere not found");
	assert_int_equal(ask(3, AMQP_REQ_OPEN, 0, "/", "stranger", ""), 530);
	assert_string_equal(f.reply_text, "NOT_ALLOWED - access to vhost '/' refused for user 'stranger'");
	l = fopen(in_dir("log"), "r");
	assert_non_null(l);
	assert_true(fread(log, 1, sizeof log - 1, l) > 0);
	fclose(l);
	assert_non_null(strstr(log, "log-in refused: user 'guest' from 198.18.0.1"));
	assert_null(strstr(log, "s3cretly"));
}

static void a_killed_control_that_starts_again_knows_everything_and_touches_nothing(void **state)
{
	unsigned ops, dumps;
	json_t *rows;
	int status;

	(void)state;
	wait_for_defaults();
	declare_all();
	for (int round = 0; round < 3; round++) {
		ops = f.ops;
		dumps = f.dumps;
		stop_control(SIGKILL);
		start_control();
		assert_true(fake_until(&f, attached_again, &dumps));
		/* an answer proves that the dump has been digested */
		assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_EXCLUSIVE, "exclusive q", "", ""), 0);
		assert_int_equal(f.ops, ops);
		rows = tickctl(&status, "list_queues", "name durable exclusive owner_pid", NULL);
		assert_int_equal(status, 0);
		assert_int_equal(json_array_size(rows), 3);
		assert_string_equal(cell(rows, "name", "durable q", "durable"), "true");
		assert_string_equal(cell(rows, "name", "exclusive q", "owner_pid"), "7.0");
		json_decref(rows);
		rows = tickctl(&status, "list_bindings", "source_name destination_name routing_key", NULL);
		assert_int_equal(json_array_size(rows), 5); /* three of the default exchange */
		assert_string_equal(cell(rows, "routing_key", "eur.chf", "destination_name"), "transient q");
		json_decref(rows);
	}
	/* ids go on without a clash */
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, 0, "one more", "", ""), 0);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_BIND, 0, "one more", "amq.topic", "a.#"), 0);
}

static void exclusive_queues_go_when_their_connection_went_while_control_was_away(void **state)
{
	unsigned dumps = 0;

	(void)state;
	wait_for_defaults();
	declare_all();
	dumps = f.dumps;
	stop_control(SIGKILL);
	f.conns_count = 0;
	start_control();
	assert_true(fake_until(&f, attached_again, &dumps));
	assert_int_equal(ask(8, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "exclusive q", "", ""), 404);
	assert_int_equal(f.queues, 2);
}

static void a_dataplane_that_starts_again_gets_the_durable_definitions_back(void **state)
{
	unsigned seven = 7, dumps;

	(void)state;
	wait_for_defaults();
	declare_all();
	dumps = f.dumps;
	fake_boot(&f, ++boot);
	assert_true(fake_until(&f, attached_again, &dumps));
	assert_true(fake_until(&f, has_exchanges, &seven));
	assert_int_equal(ask(9, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "durable q", "", ""), 0);
	assert_int_equal(f.queues, 1);
	assert_int_equal(f.bindings, 1);
	assert_int_equal(ask(9, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "transient q", "", ""), 404);
	assert_true(control_lives());
}

static void without_a_dataplane_durable_definitions_are_listed_and_rows_are_unavailable(void **state)
{
	unsigned hangups = f.hangups;
	json_t *rows;
	int status;

	(void)state;
	wait_for_defaults();
	declare_all();
	fake_die(&f);
	do { /* control learns it from the closed socket */
		rows = tickctl(&status, "list_connections", NULL, NULL);
		json_decref(rows);
	} while (status == 0);
	(void)hangups;
	assert_int_equal(status, 69);
	rows = tickctl(&status, "list_queues", "name state", NULL);
	assert_int_equal(status, 0);
	assert_int_equal(json_array_size(rows), 1);
	assert_string_equal(cell(rows, "name", "durable q", "state"), "down");
	json_decref(rows);
	rows = tickctl(&status, "status", NULL, NULL);
	assert_true(json_is_null(json_object_get(rows, "dataplane")));
	json_decref(rows);
	json_decref(tickctl(&status, "ping", NULL, NULL));
	assert_int_equal(status, 69);
}

/* ---- garbage ---- */

static void definition_from_nowhere(struct fake *fake)
{
	struct amqp_record rec = {.kind = AMQP_REQ_DEF_BINDING, .id = 3, .id2 = 200, .id3 = 200};

	fake->on_dump = NULL;
	fake_put(fake, &rec);
}

static void too_long_a_name(struct fake *fake)
{
	static uint8_t name[1000];
	struct amqp_record rec = {.kind = AMQP_REQ_DEF_QUEUE, .id = 3, .str = {{name, sizeof name}, {(const uint8_t *)"/", 1}}};

	fake->on_dump = NULL;
	fake_put(fake, &rec);
}

static void noise_in_the_ring(struct fake *fake)
{
	struct ctl_ring *ring = dp_shm_request_ring(&fake->shm, 0).ring;
	const uint64_t one = 1;

	fake->on_dump = NULL;
	memset(ring->data, 0xee, 4096);
	atomic_store(&ring->head, 4096);
	assert_int_equal(write(fake->kick_fd, &one, sizeof one), sizeof one);
}

static void indexes_out_of_this_world(struct fake *fake)
{
	struct ctl_ring *ring = dp_shm_request_ring(&fake->shm, 0).ring;
	const uint64_t one = 1;

	fake->on_dump = NULL;
	atomic_store(&ring->head, UINT64_MAX - 5);
	assert_int_equal(write(fake->kick_fd, &one, sizeof one), sizeof one);
}

static void an_odd_message(struct fake *fake)
{
	fake->on_dump = NULL;
	fake_send(fake, "hello", 5);
}

static void a_database_that_nobody_published(struct fake *fake)
{
	struct ctl_msg msg = {.kind = CTL_MSG_DB_RELEASED, .id = 5, .offset = 4096};
	struct amqp_record end = {.kind = AMQP_REQ_DUMP_END};

	fake->on_dump = NULL;
	fake_send(fake, &msg, sizeof msg);
	fake_put(fake, &end);
}

static void a_message_of_no_known_kind(struct fake *fake)
{
	struct ctl_msg msg = {.kind = 4711};

	fake->on_dump = NULL;
	fake_send(fake, &msg, sizeof msg);
}

static void garbage_from_the_dataplane_costs_the_link_and_never_the_process(void **state)
{
	void (*const lies[])(struct fake *) = {definition_from_nowhere,   too_long_a_name, noise_in_the_ring,
					       indexes_out_of_this_world, an_odd_message,  a_database_that_nobody_published,
					       a_message_of_no_known_kind};
	unsigned hangups, dumps;

	(void)state;
	wait_for_defaults();
	for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		hangups = f.hangups;
		f.on_dump = lies[i];
		fake_hang_up(&f); /* control comes back and asks for a dump, which is the lie */
		if (!fake_until(&f, grown, &hangups))
			fail_msg("lie %zu was believed", i);
		dumps = f.dumps;
		assert_true(fake_until(&f, attached_again, &dumps));
		assert_true(control_lives());
		assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "nope", "", ""), 404);
	}
	assert_int_equal(f.exchanges, 6);
}

static void memory_that_is_not_as_it_says_is_refused(void **state)
{
	static const struct {
		size_t offset, bytes;
	} fields[] = {{offsetof(struct ctl_shm_header, magic), 8},
		      {offsetof(struct ctl_shm_header, version), 4},
		      {offsetof(struct ctl_shm_header, worker[0].op_ring_offset), 8},
		      {offsetof(struct ctl_shm_header, worker[0].request_ring_bytes), 8},
		      {offsetof(struct ctl_shm_header, arena_bytes), 8},
		      {offsetof(struct ctl_shm_header, workers_count), 4}};
	uint8_t *header = (uint8_t *)f.shm.header, good[8];
	unsigned hangups, dumps;

	(void)state;
	wait_for_defaults();
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
		memcpy(good, header + fields[i].offset, fields[i].bytes);
		memset(header + fields[i].offset, 0xff, fields[i].bytes);
		hangups = f.hangups;
		dumps = f.dumps;
		fake_hang_up(&f);
		assert_true(fake_until(&f, grown, &hangups));
		assert_int_equal(f.dumps, dumps);
		memcpy(header + fields[i].offset, good, fields[i].bytes);
		assert_true(fake_until(&f, attached_again, &dumps));
		assert_true(control_lives());
	}
}

static void what_comes_in_the_middle_of_a_dump_is_handled_after_it(void **state)
{
	unsigned dumps;

	(void)state;
	wait_for_defaults();
	declare_all();
	dumps = f.dumps;
	f.mute_dump = true;
	fake_hang_up(&f);
	assert_true(fake_until(&f, attached_again, &dumps));
	f.mute_dump = false;
	/* the connection goes before its exclusive queue has been told of */
	fake_put(&f, &(struct amqp_record){.kind = AMQP_REQ_CONN_GONE, .conn_uid = 7});
	for (unsigned pass = 0; pass < 3; pass++)
		for (unsigned i = 0; i < FAKE_IDS; i++) {
			const struct fake_def *d = pass == 0 ? &f.exchange[i] : pass == 1 ? &f.queue[i] : &f.binding[i];
			struct amqp_record rec;

			if (d->bytes == NULL)
				continue;
			assert_true(ctl_record_decode(d->bytes, d->len, &rec));
			rec.kind = (uint16_t)(AMQP_REQ_DEF_EXCHANGE + pass);
			fake_put(&f, &rec);
		}
	fake_put(&f, &(struct amqp_record){.kind = AMQP_REQ_DEF_CONN, .conn_uid = 7, .str = {text("/"), text("guest")}});
	fake_put(&f, &(struct amqp_record){.kind = AMQP_REQ_DUMP_END});
	assert_int_equal(ask(8, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "exclusive q", "", ""), 404);
	assert_int_equal(ask(8, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "transient q", "", ""), 0);
}

/* ---- databases ---- */

static bool published(struct fake *fake, void *arg)
{
	return fake->publishes > *(unsigned *)arg;
}

static struct match_db *open_published(void)
{
	char err[256] = "";
	struct match_db *db = match_db_open(f.shm.arena + f.published.offset, f.published.bytes, err, sizeof err);

	if (db == NULL)
		fail_msg("%s", err);
	return db;
}

static void tell(enum ctl_msg_kind kind, const struct ctl_msg *about)
{
	struct ctl_msg msg = *about;

	msg.kind = kind;
	fake_send(&f, &msg, sizeof msg);
}

static uint64_t pages(uint64_t bytes)
{
	return (bytes + 4095) / 4096 * 4096;
}

static void wildcard_bindings_are_compiled_published_and_survive_a_killed_control(void **state)
{
	unsigned none = 0, one, dumps;
	struct ctl_msg first, second;
	struct match_db *db;
	const uint32_t *ids;
	json_t *rows;
	int status;

	(void)state;
	wait_for_defaults();
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_DURABLE, "q", "", ""), 0);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_BIND, 0, "q", "amq.topic", "eur.*"), 0);
	assert_true(fake_until(&f, published, &none));
	first = f.published;
	db = open_published();
	assert_int_equal(match_db_rule_ids(db, &ids), 1);
	assert_true(match_db_generation(db) == first.generation);
	tell(CTL_MSG_DB_TAKEN, &first);
	do {
		rows = tickctl(&status, "matcher", NULL, NULL);
		assert_int_equal(status, 0);
		one = (unsigned)(strcmp(cell(rows, "name", "amq.topic", "state"), "compiled") == 0);
		if (one != 0)
			assert_string_equal(cell(rows, "name", "amq.topic", "overlay"), "0");
		json_decref(rows);
	} while (one == 0);
	match_db_close(db);

	/* a new control adopts the image: it compiles nothing that is compiled */
	dumps = f.dumps;
	one = f.publishes;
	stop_control(SIGKILL);
	start_control();
	assert_true(fake_until(&f, attached_again, &dumps));
	tell(CTL_MSG_DB_TAKEN, &first);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "q", "", ""), 0);
	rows = tickctl(&status, "matcher", NULL, NULL);
	assert_string_equal(cell(rows, "name", "amq.topic", "state"), "compiled");
	json_decref(rows);
	assert_int_equal(f.publishes, one);

	/* another pattern: another generation, beside the first one, whose place is free once it is released */
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_BIND, 0, "q", "amq.topic", "#.usd"), 0);
	assert_true(fake_until(&f, published, &one));
	assert_true(f.published.generation > first.generation);
	assert_true(f.published.offset >= first.offset + first.bytes || first.offset >= f.published.offset + f.published.bytes);
	db = open_published();
	assert_int_equal(match_db_rule_ids(db, &ids), 2);
	match_db_close(db);
	second = f.published;
	tell(CTL_MSG_DB_TAKEN, &second);
	tell(CTL_MSG_DB_RELEASED, &first);
	one = f.publishes;
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_BIND, 0, "q", "amq.topic", "a.*.c"), 0);
	assert_true(fake_until(&f, published, &one));
	rows = tickctl(&status, "status", NULL, NULL); /* two images lie there: the first one's place is free */
	assert_int_equal(json_integer_value(json_object_get(json_object_get(rows, "dataplane"), "arena_used_bytes")),
			 pages(second.bytes) + pages(f.published.bytes));
	json_decref(rows);
	first = f.published;
	one = f.publishes;
	tell(CTL_MSG_DB_REFUSED, &first);
	assert_true(fake_until(&f, published, &one)); /* nothing changed, and yet it is tried again */
	assert_true(f.published.generation > first.generation);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "q", "", ""), 0);
	assert_true(control_lives());
}

/* ---- the operator ---- */

static void write_conn_row(uint32_t idx, uint64_t uid, const char *vhost)
{
	struct ctl_row_conn *row = (struct ctl_row_conn *)(void *)(f.shm.base + f.shm.layout.worker[0].conns.offset) + idx;

	ctl_row_begin(&row->head);
	row->head.in_use = 1;
	row->uid = uid;
	strcpy(row->state, "running");
	strcpy(row->user, "guest");
	strcpy(row->vhost, vhost);
	strcpy(row->peer_host, "198.18.0.1");
	strcpy(row->host, "198.18.0.2");
	memset(row->client_product, 'x', sizeof row->client_product); /* no terminator: it must not be read on */
	row->peer_port = 40000;
	row->port = 5672;
	row->srtt_us = 33;
	ctl_row_end(&row->head);
	atomic_store(&f.shm.header->worker[0].conns.rows_used, 1000000); /* more than there are */
}

static void write_channel_row(uint32_t idx, uint64_t uid, uint32_t number)
{
	struct ctl_row_channel *row = (struct ctl_row_channel *)(void *)(f.shm.base + f.shm.layout.worker[0].channels.offset) + idx;

	ctl_row_begin(&row->head);
	row->head.in_use = 1;
	row->conn_uid = uid;
	row->number = number;
	ctl_row_end(&row->head);
	atomic_store(&f.shm.header->worker[0].channels.rows_used, idx + 1);
}

static void connections_are_listed_from_shared_memory_and_closed_by_pid(void **state)
{
	const uint64_t uid = 5ull << 32 | 2;
	json_t *rows;
	int status;

	(void)state;
	wait_for_defaults();
	write_conn_row(2, uid, "/");
	write_conn_row(4, 9ull << 32 | 4, "other");
	rows = tickctl(&status, "list_connections", "pid name user peer_port srtt_us", NULL);
	assert_int_equal(status, 0);
	assert_int_equal(json_array_size(rows), 2);
	assert_string_equal(cell(rows, "pid", "2.5", "name"), "198.18.0.1:40000 -> 198.18.0.2:5672");
	assert_string_equal(cell(rows, "pid", "2.5", "srtt_us"), "33");
	json_decref(rows);
	write_channel_row(0, 9ull << 32 | 4, 7);
	write_channel_row(1, uid, 3);
	write_channel_row(2, 77, 1); /* its connection's row is gone already */
	rows = tickctl(&status, "list_channels", "pid name messages_uncommitted acks_uncommitted", NULL);
	assert_int_equal(status, 0);
	assert_int_equal(json_array_size(rows), 3);
	assert_string_equal(cell(rows, "pid", "2.5.3", "name"), "198.18.0.1:40000 -> 198.18.0.2:5672 (3)");
	assert_string_equal(cell(rows, "pid", "4.9.7", "name"), "198.18.0.1:40000 -> 198.18.0.2:5672 (7)");
	assert_string_equal(cell(rows, "pid", "77.0.1", "name"), "");
	assert_string_equal(cell(rows, "pid", "2.5.3", "acks_uncommitted"), "0");
	json_decref(rows);
	rows = tickctl(&status, "close_connection", "2.5", "maintenance");
	assert_int_equal(status, 0);
	json_decref(rows);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, 0, "q", "", ""), 0); /* what was sent before has come */
	assert_true(f.close.conn_uid == uid && f.close.code == 320);
	assert_string_equal(f.close_text, "CONNECTION_FORCED - maintenance");
	json_decref(tickctl(&status, "close_connection", "99.99", "maintenance"));
	assert_int_equal(status, 65);
	json_decref(tickctl(&status, "close_connection", NULL, NULL));
	assert_int_equal(status, 64);
}

static void queues_are_purged_and_deleted_by_the_operator(void **state)
{
	int status;

	(void)state;
	wait_for_defaults();
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_DURABLE, "q", "", ""), 0);
	json_decref(tickctl(&status, "purge_queue", "q", NULL));
	assert_int_equal(status, 0);
	json_decref(tickctl(&status, "delete_queue", "q", NULL));
	assert_int_equal(status, 0);
	json_decref(tickctl(&status, "delete_queue", "q", NULL));
	assert_int_equal(status, 65);
	assert_int_equal(ask(7, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_PASSIVE, "q", "", ""), 404);
	assert_int_equal(f.purge.kind, AMQP_OP_QUEUE_PURGE);
	assert_int_equal(f.queues, 0);
}

static void a_reload_takes_good_files_and_refuses_bad_ones_whole(void **state)
{
	struct amqp_record q = {.kind = AMQP_REQ_LOGIN, .conn_uid = 3, .str = {text("PLAIN"), text("x")}};
	unsigned twelve = 12;

	(void)state;
	wait_for_defaults();
	write_config("[user new]\npassword = new\nvhosts = two\n[vhost two]\n");
	kill(control, SIGHUP);
	assert_true(fake_until(&f, has_exchanges, &twelve)); /* the new vhost has its exchanges */
	q.blob = (struct amqp_span){(const uint8_t *)"\0new\0new", 8};
	assert_true(fake_ask(&f, q));
	assert_int_equal(f.reply.code, 0);
	assert_int_equal(ask(3, AMQP_REQ_OPEN, 0, "two", "new", ""), 0);
	write_config("[user other]\npassword = other\n[nonsense]\n");
	kill(control, SIGHUP);
	for (int i = 0; i < 5; i++) { /* whenever it is read, nothing changes */
		assert_true(fake_ask(&f, q));
		assert_int_equal(f.reply.code, 0);
	}
	assert_true(control_lives());
}

static int status_of(char *const argv[])
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC), left;
	pid_t pid = spawn(argv[0], argv, null);

	assert_int_equal(waitpid(pid, &left, 0), pid);
	close(null);
	return WIFEXITED(left) ? WEXITSTATUS(left) : -1;
}

static void options_and_signals_give_the_exit_statuses_of_sysexits(void **state)
{
	char conf[128];
	int status;

	(void)state;
	wait_for_defaults();
	snprintf(conf, sizeof conf, "%s", in_dir("tickwire.conf"));
	assert_int_equal(status_of((char *[]){"tickwire-control", "--nonsense", NULL}), 64);
	assert_int_equal(status_of((char *[]){"tickwire-control", "extra", NULL}), 64);
	assert_int_equal(status_of((char *[]){"tickwire-control", "--config", "/nonexistent", NULL}), 78);
	assert_int_equal(status_of((char *[]){"tickwire-control", "--check-config", "--config", conf, NULL}), 0);
	assert_int_equal(status_of((char *[]){"tickwire-control", "--version", NULL}), 0);
	assert_int_equal(status_of((char *[]){"tickctl", "--nonsense", NULL}), 64);
	assert_int_equal(status_of((char *[]){"tickctl", "no_such_command", NULL}), 64);
	assert_int_equal(status_of((char *[]){"tickctl", "--socket", "/nonexistent", "status", NULL}), 69);
	assert_int_equal(status_of((char *[]){"tickctl", "--version", NULL}), 0);
	assert_int_equal(status_of((char *[]){"tickctl", "list_queues", "--help", NULL}), 0);
	assert_int_equal(status_of((char *[]){"tickctl", "help", "no_such_command", NULL}), 64);
	assert_int_equal(status_of((char *[]){"tickctl", "stats", "--watch", "x", NULL}), 64);
	assert_int_equal(status_of((char *[]){"tickctl", "stats", "--watch", "--help", NULL}), 0);
	assert_int_equal(status_of((char *[]){"tickctl", "stats", "--watch", "0", NULL}), 64);
	assert_int_equal(status_of((char *[]){"tickctl", "ping", "extra", NULL}), 64);
	assert_int_equal(status_of((char *[]){"tickctl", "--formatter", "csv", "status", NULL}), 64);
	/* a second control on the same sockets is refused */
	assert_int_equal(status_of((char *[]){"tickwire-control", "--foreground", "--config", conf, NULL}), 69);
	json_decref(tickctl(&status, "list_queues", "name colour", NULL));
	assert_int_equal(status, 64);
	status = stop_control(SIGTERM);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(access(in_dir("ctl.sock"), F_OK), -1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(log_ins_are_answered_and_refused_ones_leave_no_password_in_the_log),
		T(a_killed_control_that_starts_again_knows_everything_and_touches_nothing),
		T(exclusive_queues_go_when_their_connection_went_while_control_was_away),
		T(a_dataplane_that_starts_again_gets_the_durable_definitions_back),
		T(without_a_dataplane_durable_definitions_are_listed_and_rows_are_unavailable),
		T(garbage_from_the_dataplane_costs_the_link_and_never_the_process),
		T(memory_that_is_not_as_it_says_is_refused),
		T(what_comes_in_the_middle_of_a_dump_is_handled_after_it),
		T(wildcard_bindings_are_compiled_published_and_survive_a_killed_control),
		T(connections_are_listed_from_shared_memory_and_closed_by_pid),
		T(queues_are_purged_and_deleted_by_the_operator),
		T(a_reload_takes_good_files_and_refuses_bad_ones_whole),
		T(options_and_signals_give_the_exit_statuses_of_sysexits),
	};
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n < 0)
		return 1;
	self[n] = '\0';
	snprintf(bin, sizeof bin, "%s", dirname(dirname(self)));
	strncat(bin, "/bin", sizeof bin - strlen(bin) - 1);
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
