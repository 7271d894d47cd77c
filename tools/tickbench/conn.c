/* The client side of an AMQP 0-9-1 connection, over whatever carries its bytes.
 * Runs inside tickbench on the thread that owns the connection.
 * Specification: AMQP 0-9-1, sections 2.2.4 and 4.2, classes connection and channel. */
#include "tools/tickbench/conn.h"

#include "tools/tickbench/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

_Atomic int tb_stop_signal;

bool tb_conn_fail(struct tb_conn *c, enum tb_exit status, const char *format, ...)
{
	if (c->failed == TB_EXIT_OK) {
		va_list args;
		va_start(args, format);
		vsnprintf(c->error, sizeof(c->error), format, args);
		va_end(args);
		c->failed = status;
	}
	return false;
}

bool tb_conn_bad_frame(struct tb_conn *c, enum tb_parse why)
{
	switch (why) {
	case TB_PARSE_NOT_AMQP:
		return tb_conn_fail(c, TB_EXIT_PROTOCOL,
				    "the peer refused AMQP 0-9-1 (it answered with a protocol header of its own)");
	case TB_PARSE_BAD_SIZE:
		return tb_conn_fail(c, TB_EXIT_PROTOCOL,
				    "the peer sent a frame larger than the agreed %u bytes, or does not speak AMQP", c->frame_max);
	default:
		return tb_conn_fail(c, TB_EXIT_PROTOCOL, "the peer sent a frame that does not end in 0xCE");
	}
}

bool tb_conn_flush(struct tb_conn *c, uint64_t now_ns)
{
	struct tb_out *o = &c->out;

	if (o->overflow)
		return tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "the broker has stopped reading what this client must answer");
	while (o->head < o->tail) {
		long n = c->via->send(c, o->bytes + o->head, o->tail - o->head);
		if (n == 0)
			break;
		if (n < 0)
			return tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "lost the connection while sending: %s", strerror(errno));
		o->head += (size_t)n;
		c->last_tx_ns = now_ns;
	}
	tb_out_compact(o);
	return true;
}

long tb_conn_fill(struct tb_conn *c, uint64_t now_ns)
{
	long n = c->via->fill(c);

	if (n > 0)
		c->last_rx_ns = now_ns;
	if (n < 0 && errno == 0)
		tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "the broker closed the connection without a word");
	else if (n < 0)
		tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "lost the connection while receiving: %s", strerror(errno));
	return n;
}

static int on_close(struct tb_conn *c, const struct tb_frame *f, const char *what, enum tb_method answer)
{
	struct tb_args a = tb_args_of(f);
	uint16_t code = tb_args16(&a);
	char text[256];

	tb_args_shortstr(&a, text, sizeof(text));
	uint16_t class_id = tb_args16(&a), method_id = tb_args16(&a);
	tb_put_bare_method(&c->out, f->channel, answer);
	tb_conn_flush(c, c->last_rx_ns);
	tb_conn_fail(c, TB_EXIT_PROTOCOL, "the broker closed the %s: %u %s (method %u.%u)", what, code, text, class_id, method_id);
	return -1;
}

static int on_flow(struct tb_conn *c, const struct tb_frame *f)
{
	struct tb_args a = tb_args_of(f);
	uint8_t active = tb_args8(&a) & 1;

	c->flow_stopped = !active;
	tb_method_begin(&c->out, f->channel, TB_CHANNEL_FLOW_OK);
	tb_put8(&c->out, active);
	tb_frame_finish(&c->out);
	return 1;
}

int tb_conn_common(struct tb_conn *c, const struct tb_frame *f)
{
	if (f->type == TB_FRAME_HEARTBEAT)
		return 1;
	switch (tb_frame_method(f)) {
	case TB_CONNECTION_CLOSE:
		return on_close(c, f, "connection", TB_CONNECTION_CLOSE_OK);
	case TB_CHANNEL_CLOSE:
		return on_close(c, f, "channel", TB_CHANNEL_CLOSE_OK);
	case TB_CHANNEL_FLOW:
		return on_flow(c, f);
	case TB_CONNECTION_BLOCKED:
		c->blocked_count += !c->blocked;
		c->blocked = true;
		return 1;
	case TB_CONNECTION_UNBLOCKED:
		c->blocked = false;
		return 1;
	case TB_BASIC_CANCEL:
		tb_conn_fail(c, TB_EXIT_PROTOCOL, "the broker cancelled the consumer");
		return -1;
	default:
		return 0;
	}
}

bool tb_conn_expect(struct tb_conn *c, enum tb_method wanted, struct tb_frame *reply, const char *what)
{
	uint64_t deadline_ns = tb_now_ns() + TB_CALL_TIMEOUT_NS;

	for (;;) {
		int got;
		while ((got = tb_conn_next(c, reply)) == 1) {
			if (tb_frame_method(reply) == (uint32_t)wanted)
				return true;
			int common = tb_conn_common(c, reply);
			if (common < 0)
				return false;
			if (common == 0)
				return tb_conn_fail(c, TB_EXIT_PROTOCOL, "%s: the broker answered with frame type %u, method %u.%u",
						    what, reply->type, tb_frame_method(reply) >> 16,
						    tb_frame_method(reply) & 0xFFFF);
		}
		if (got < 0 || !tb_conn_flush(c, tb_now_ns()))
			return false;
		if (tb_stop_signal)
			return tb_conn_fail(c, TB_EXIT_INTERRUPTED, "interrupted during %s", what);
		uint64_t now_ns = tb_now_ns();
		if (now_ns > deadline_ns)
			return tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "%s: no answer from the broker in %u s", what,
					    (unsigned)(TB_CALL_TIMEOUT_NS / TB_SECOND_NS));
		c->via->wait(c, 100);
		if (tb_conn_fill(c, now_ns) < 0)
			return false;
	}
}

static void put_start_ok(struct tb_out *o, const struct tb_login *login)
{
	char response[600];
	int n = snprintf(response, sizeof(response), "%c%s%c%s", 0, login->user, 0, login->password);

	tb_method_begin(o, 0, TB_CONNECTION_START_OK);
	size_t table = tb_put_block_begin(o);
	tb_put_field_text(o, "product", "tickbench");
	tb_put_field_text(o, "version", TICKWIRE_VERSION);
	tb_put_field_text(o, "platform", "C11");
	tb_put_shortstr(o, "capabilities");
	tb_put8(o, 'F');
	size_t capabilities = tb_put_block_begin(o);
	tb_put_field_bool(o, "publisher_confirms", true);
	tb_put_field_bool(o, "basic.nack", true);
	tb_put_field_bool(o, "connection.blocked", true);
	tb_put_field_bool(o, "consumer_cancel_notify", true);
	tb_put_field_bool(o, "authentication_failure_close", true);
	tb_put_block_end(o, capabilities);
	tb_put_block_end(o, table);
	tb_put_shortstr(o, "PLAIN");
	tb_put_longstr(o, response, n > 0 && (size_t)n < sizeof(response) ? (size_t)n : 0);
	tb_put_shortstr(o, "en_US");
	tb_frame_finish(o);
}

static bool read_start(struct tb_conn *c, const struct tb_frame *f)
{
	struct tb_args a = tb_args_of(f);
	uint8_t major = tb_args8(&a), minor = tb_args8(&a);
	size_t length;
	const uint8_t *properties = tb_args_block(&a, &length);
	char mechanisms[256];

	tb_args_longstr(&a, mechanisms, sizeof(mechanisms));
	if (a.bad || major != 0 || minor != 9)
		return tb_conn_fail(c, TB_EXIT_PROTOCOL, "connection.start is malformed or names version %u-%u", major, minor);
	if (!strstr(mechanisms, "PLAIN"))
		return tb_conn_fail(c, TB_EXIT_PROTOCOL, "the broker offers no PLAIN login (it offers: %s)", mechanisms);
	tb_table_find_text(properties, length, "product", c->product, sizeof(c->product));
	tb_table_find_text(properties, length, "version", c->version, sizeof(c->version));
	return true;
}

/* Spec: AMQP 0-9-1, connection.tune: the client may lower each value; zero means no limit. */
static bool agree_tune(struct tb_conn *c, const struct tb_frame *f)
{
	struct tb_args a = tb_args_of(f);
	uint16_t channel_max = tb_args16(&a);
	uint32_t frame_max = tb_args32(&a);
	uint16_t heartbeat_s = tb_args16(&a);

	if (a.bad || (frame_max && frame_max < TB_FRAME_MIN_MAX))
		return tb_conn_fail(c, TB_EXIT_PROTOCOL, "connection.tune is malformed (frame-max %u)", frame_max);
	c->channel_max = channel_max ? channel_max : UINT16_MAX;
	c->frame_max = frame_max && frame_max < TB_FRAME_MAX_WANTED ? frame_max : TB_FRAME_MAX_WANTED;
	c->heartbeat_s = heartbeat_s;
	tb_method_begin(&c->out, 0, TB_CONNECTION_TUNE_OK);
	tb_put16(&c->out, channel_max);
	tb_put32(&c->out, c->frame_max);
	tb_put16(&c->out, heartbeat_s);
	tb_frame_finish(&c->out);
	return true;
}

static bool handshake(struct tb_conn *c, const struct tb_login *login)
{
	struct tb_frame f;

	tb_put_bytes(&c->out, "AMQP\0\0\x09\x01", 8);
	if (!tb_conn_expect(c, TB_CONNECTION_START, &f, "connection.start") || !read_start(c, &f))
		return false;
	put_start_ok(&c->out, login);
	if (!tb_conn_expect(c, TB_CONNECTION_TUNE, &f, "login") || !agree_tune(c, &f))
		return false;
	tb_method_begin(&c->out, 0, TB_CONNECTION_OPEN);
	tb_put_shortstr(&c->out, login->vhost);
	tb_put8(&c->out, 0);
	tb_put8(&c->out, 0);
	tb_frame_finish(&c->out);
	if (!tb_conn_expect(c, TB_CONNECTION_OPEN_OK, &f, "connection.open"))
		return false;
	tb_method_begin(&c->out, 1, TB_CHANNEL_OPEN);
	tb_put8(&c->out, 0);
	tb_frame_finish(&c->out);
	return tb_conn_expect(c, TB_CHANNEL_OPEN_OK, &f, "channel.open");
}

bool tb_conn_open(struct tb_conn *c, const struct tb_transport *via, const struct tb_endpoint *peer, const struct tb_login *login)
{
	memset(c, 0, sizeof(*c));
	c->via = via;
	c->frame_max = TB_FRAME_MAX_WANTED;
	c->in_cap = TB_CONN_IN_MIN_BYTES;
	c->in = malloc(c->in_cap);
	if (!c->in || !tb_out_init(&c->out, TB_CONN_OUT_BYTES))
		return tb_conn_fail(c, TB_EXIT_OSERR, "out of memory for a connection");
	c->connected = via->connect(c, peer);
	if (!c->connected)
		return false;
	c->last_rx_ns = c->last_tx_ns = tb_now_ns();
	return handshake(c, login);
}

static void close_stream(struct tb_conn *c)
{
	if (c->connected)
		c->via->close(c);
	c->connected = false;
}

void tb_conn_fini(struct tb_conn *c)
{
	close_stream(c);
	free(c->in);
	c->in = NULL;
	tb_out_fini(&c->out);
}

bool tb_conn_heartbeat(struct tb_conn *c, uint64_t now_ns)
{
	uint64_t interval_ns = (uint64_t)c->heartbeat_s * TB_SECOND_NS;

	if (!interval_ns)
		return true;
	/* Spec says two missed intervals; a third is granted, because the client itself may have been held up for one. */
	if (now_ns > c->last_rx_ns + 3 * interval_ns)
		return tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "the broker has been silent for three heartbeat intervals");
	if (now_ns > c->last_tx_ns + interval_ns / 2 && c->out.head == c->out.tail) {
		tb_frame_begin(&c->out, TB_FRAME_HEARTBEAT, 0);
		tb_frame_finish(&c->out);
		return tb_conn_flush(c, now_ns);
	}
	return true;
}

void tb_conn_begin_close(struct tb_conn *c, uint64_t now_ns)
{
	if (!c->connected || c->failed || c->closed_by_us)
		return;
	c->closed_by_us = true;
	tb_method_begin(&c->out, 0, TB_CONNECTION_CLOSE);
	tb_put16(&c->out, 200);
	tb_put_shortstr(&c->out, "done");
	tb_put32(&c->out, 0);
	tb_frame_finish(&c->out);
	tb_conn_flush(c, now_ns);
}

void tb_conn_finish_close(struct tb_conn *c, uint64_t deadline_ns)
{
	struct tb_frame f;

	while (c->closed_by_us && !c->failed && tb_now_ns() < deadline_ns) {
		int got;
		c->via->wait(c, 20);
		if (!tb_conn_flush(c, tb_now_ns()) || tb_conn_fill(c, tb_now_ns()) < 0)
			break;
		while ((got = tb_conn_next(c, &f)) == 1)
			if (tb_frame_method(&f) == TB_CONNECTION_CLOSE_OK)
				goto closed;
		if (got < 0)
			break;
	}
closed:
	close_stream(c);
}
