/* The seam between tickbench and what carries its bytes: a transport made of memory, which takes and brings as little as it likes.
 * Runs on the build host as part of make test.
 * Specification: tools/tickbench/transport.h. */
#include "tools/tickbench/conn.h"
#include "tools/tickbench/port.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* One wire: what was sent, what is still to come, and how it behaves. */
static struct wire {
	uint8_t sent[4096], coming[4096];
	size_t sent_bytes, coming_bytes, came_bytes;
	size_t room; /* bytes that send() takes before it says 0 */
	size_t bite; /* bytes of one fill() */
	int end;     /* errno of the end; -1: there is none */
	bool refuses;
	int closes, waits;
} wire;

static bool mem_connect(struct tb_conn *c, const struct tb_endpoint *peer)
{
	return !wire.refuses || tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "cannot reach %s", peer->text);
}

static long mem_send(struct tb_conn *c, const uint8_t *bytes, size_t length)
{
	size_t n = length < wire.room ? length : wire.room;

	(void)c;
	if (wire.end > 0) {
		errno = wire.end;
		return -1;
	}
	memcpy(wire.sent + wire.sent_bytes, bytes, n);
	wire.sent_bytes += n;
	wire.room -= n;
	return (long)n;
}

static long mem_fill(struct tb_conn *c)
{
	size_t left = wire.coming_bytes - wire.came_bytes, n = left < wire.bite ? left : wire.bite;

	tb_conn_compact(c);
	memcpy(c->in + c->in_tail, wire.coming + wire.came_bytes, n);
	c->in_tail += n;
	wire.came_bytes += n;
	if (n > 0 || wire.end < 0)
		return (long)n;
	errno = wire.end;
	return -1;
}

/* Room comes with waiting. */
static void mem_wait(struct tb_conn *c, int ms)
{
	(void)c;
	(void)ms;
	wire.waits++;
	wire.room += 64;
}

static void mem_close(struct tb_conn *c)
{
	(void)c;
	wire.closes++;
}

static const struct tb_transport memory = {
	.connect = mem_connect,
	.send = mem_send,
	.fill = mem_fill,
	.wait = mem_wait,
	.close = mem_close,
};

static const struct tb_endpoint broker = {.host = "198.18.0.2", .port = "5672", .text = "198.18.0.2:5672"};
static const struct tb_login login = {.user = "guest", .password = "guest", .vhost = "/"};

static void expect_frame(struct tb_out *o)
{
	memcpy(wire.coming + wire.coming_bytes, o->bytes, o->tail);
	wire.coming_bytes += o->tail;
	o->tail = 0;
}

/* What a broker says until the channel is open. */
static void script_handshake(void)
{
	struct tb_out o;

	memset(&wire, 0, sizeof(wire));
	wire.end = -1;
	wire.bite = sizeof(wire.coming);
	assert_true(tb_out_init(&o, 1024));
	tb_method_begin(&o, 0, TB_CONNECTION_START);
	tb_put8(&o, 0);
	tb_put8(&o, 9);
	size_t table = tb_put_block_begin(&o);
	tb_put_field_text(&o, "product", "Memory");
	tb_put_block_end(&o, table);
	tb_put_longstr(&o, "PLAIN", 5);
	tb_put_longstr(&o, "en_US", 5);
	tb_frame_finish(&o);
	expect_frame(&o);
	tb_method_begin(&o, 0, TB_CONNECTION_TUNE);
	tb_put16(&o, 10);
	tb_put32(&o, 8192);
	tb_put16(&o, 0);
	tb_frame_finish(&o);
	expect_frame(&o);
	tb_method_begin(&o, 0, TB_CONNECTION_OPEN_OK);
	tb_put8(&o, 0);
	tb_frame_finish(&o);
	expect_frame(&o);
	tb_method_begin(&o, 1, TB_CHANNEL_OPEN_OK);
	tb_put32(&o, 0);
	tb_frame_finish(&o);
	expect_frame(&o);
	tb_out_fini(&o);
}

static void a_log_in_crosses_any_transport_byte_by_byte_and_with_room_for_64_at_a_time(void **state)
{
	static uint8_t first[sizeof(wire.sent)];
	struct tb_conn c;

	(void)state;
	for (size_t bite = 1; bite < 200; bite = bite * 3 + 1) {
		script_handshake();
		wire.bite = bite;
		assert_true(tb_conn_open(&c, &memory, &broker, &login));
		assert_string_equal(c.product, "Memory");
		assert_int_equal(c.frame_max, 8192);
		/* The answers of this broker were there before they were asked for: what was not sent yet goes out 64 bytes at a
		 * time. */
		for (int waits = 0; c.out.head < c.out.tail; waits++) {
			assert_true(waits < 20);
			c.via->wait(&c, 0);
			assert_true(tb_conn_flush(&c, 1));
		}
		if (bite == 1)
			memcpy(first, wire.sent, sizeof(first));
		assert_memory_equal(wire.sent, "AMQP\0\0\x09\x01", 8);
		assert_memory_equal(wire.sent, first, sizeof(first));
		assert_int_equal(wire.sent[wire.sent_bytes - 1], TB_FRAME_END);
		tb_conn_fini(&c);
		assert_int_equal(wire.closes, 1);
	}
}

static void a_refused_connection_is_not_closed_and_keeps_its_sentence(void **state)
{
	struct tb_conn c;

	(void)state;
	script_handshake();
	wire.refuses = true;
	assert_false(tb_conn_open(&c, &memory, &broker, &login));
	assert_int_equal(c.failed, TB_EXIT_UNAVAILABLE);
	assert_string_equal(c.error, "cannot reach 198.18.0.2:5672");
	tb_conn_begin_close(&c, 1);
	tb_conn_fini(&c);
	assert_int_equal(wire.closes, 0);
	assert_int_equal(wire.sent_bytes, 0);
}

static void the_end_of_a_stream_says_whose_doing_it_was(void **state)
{
	static const struct {
		int end;
		const char *part;
	} ends[] = {{0, "closed the connection without a word"}, {ECONNRESET, "reset"}, {ENETDOWN, "Network is down"}};
	struct tb_conn c;

	(void)state;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		script_handshake();
		wire.coming_bytes /= 2;
		wire.end = ends[i].end;
		wire.room = sizeof(wire.sent) / 2;
		assert_false(tb_conn_open(&c, &memory, &broker, &login));
		assert_int_equal(c.failed, TB_EXIT_UNAVAILABLE);
		assert_non_null(strstr(c.error, ends[i].part));
		tb_conn_fini(&c);
		assert_int_equal(wire.closes, 1);
	}
}

static void a_close_that_was_answered_closes_once(void **state)
{
	struct tb_conn c;
	struct tb_out o;

	(void)state;
	script_handshake();
	assert_true(tb_conn_open(&c, &memory, &broker, &login));
	assert_true(tb_out_init(&o, 64));
	tb_put_bare_method(&o, 0, TB_CONNECTION_CLOSE_OK);
	expect_frame(&o);
	wire.room = 1000;
	tb_conn_begin_close(&c, 1);
	tb_conn_finish_close(&c, UINT64_MAX);
	assert_int_equal(wire.closes, 1);
	assert_int_equal(c.failed, TB_EXIT_OK);
	tb_conn_fini(&c);
	assert_int_equal(wire.closes, 1);
	tb_out_fini(&o);
}

/* A connection over one end of a socket pair, without the handshake. */
static int pair(struct tb_conn *c)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	memset(c, 0, sizeof(*c));
	c->via = &tb_sockets;
	c->connected = true;
	c->fd = fds[0];
	c->in_cap = 4096;
	c->in = malloc(c->in_cap);
	assert_non_null(c->in);
	return fds[1];
}

static void sockets_name_the_ready_one_by_its_tag(void **state)
{
	struct tb_conn a, b;
	struct tb_watch w;
	void *tags[4];
	int peer_a = pair(&a), peer_b = pair(&b);

	(void)state;
	assert_true(tb_sockets.watch_open(&w));
	assert_true(tb_sockets.watch(&w, &a, NULL));
	assert_true(tb_sockets.watch(&w, &b, &b));
	assert_int_equal(tb_sockets.ready(&w, tags, 4, &(struct timespec){0}), 0);
	assert_int_equal(write(peer_b, "x", 1), 1);
	assert_int_equal(tb_sockets.ready(&w, tags, 4, &(struct timespec){0}), 1);
	assert_ptr_equal(tags[0], &b);
	assert_int_equal(tb_sockets.fill(&b), 1);
	assert_int_equal(tb_sockets.fill(&b), 0);
	tb_sockets.watch_out(&w, &a, true);
	assert_int_equal(tb_sockets.ready(&w, tags, 4, &(struct timespec){0}), 1);
	assert_null(tags[0]);
	tb_sockets.watch_out(&w, &a, false);
	assert_int_equal(tb_sockets.ready(&w, tags, 4, &(struct timespec){0}), 0);
	close(peer_a);
	assert_int_equal(tb_sockets.fill(&a), -1);
	assert_int_equal(errno, 0);
	tb_sockets.watch_close(&w);
	close(peer_b);
	tb_conn_fini(&a);
	tb_conn_fini(&b);
}

static void devices_are_written_out_as_dpdk_wants_them(void **state)
{
	static const struct {
		const char *text, *device;
		bool pci;
	} good[] = {
		{"memif", "net_memif0,role=client,socket=/run/tickwire/memif.sock,socket-abstract=no", false},
		{"memif,id=3", "net_memif0,role=client,socket=/run/tickwire/memif.sock,socket-abstract=no,id=3", false},
		{"memif,socket=/x,rsize=11", "net_memif0,role=client,socket-abstract=no,socket=/x,rsize=11", false},
		{"memif,role=server,socket-abstract=yes,socket=x", "net_memif0,role=server,socket-abstract=yes,socket=x", false},
		{"net_af_packet0,iface=eth1", "net_af_packet0,iface=eth1", false},
		{"0000:3b:00.0", "0000:3b:00.0", true},
		{"3b:00.1,mprq_en=1", "3b:00.1,mprq_en=1", true},
	};
	static const char *const bad[] = {"", "memory", "memif0", "net_", "net_1", "tap0", "3b:00", "0000:3b:00.0x", "-"};
	struct tb_port_options o;

	(void)state;
	unsetenv("TICKWIRE_MEMIF");
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_true(tb_port_device(&o, good[i].text));
		assert_string_equal(o.device, good[i].device);
		assert_int_equal(o.pci, good[i].pci);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(tb_port_device(&o, bad[i]));
	setenv("TICKWIRE_MEMIF", "/lab/m", 1);
	assert_true(tb_port_device(&o, "memif"));
	assert_string_equal(o.device, "net_memif0,role=client,socket=/lab/m,socket-abstract=no");
	unsetenv("TICKWIRE_MEMIF");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_log_in_crosses_any_transport_byte_by_byte_and_with_room_for_64_at_a_time),
		cmocka_unit_test(a_refused_connection_is_not_closed_and_keeps_its_sentence),
		cmocka_unit_test(the_end_of_a_stream_says_whose_doing_it_was),
		cmocka_unit_test(a_close_that_was_answered_closes_once),
		cmocka_unit_test(sockets_name_the_ready_one_by_its_tag),
		cmocka_unit_test(devices_are_written_out_as_dpdk_wants_them),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
