/*
 * A client of Debian's librabbitmq that walks through what C programs do with a broker, and prints TAP.
 * An ordinary process in the lab's client namespace runs it: AMQP_HOST and AMQP_PORT name the broker.
 * Specification: AMQP 0-9-1 as librabbitmq 0.11 speaks it, publisher confirms included.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BODY_BYTES    (1u << 20)
#define CHANNEL_COUNT 200

static const char *host;
static int port;
static char why[256];

#define CHECK(condition, ...)                                                                                                      \
	do {                                                                                                                       \
		if (!(condition)) {                                                                                                \
			snprintf(why, sizeof(why), __VA_ARGS__);                                                                   \
			return false;                                                                                              \
		}                                                                                                                  \
	} while (0)

static const struct timeval patience = {.tv_sec = 10};

static bool is_normal(amqp_connection_state_t conn)
{
	amqp_rpc_reply_t reply = amqp_get_rpc_reply(conn);

	if (reply.reply_type == AMQP_RESPONSE_NORMAL)
		return true;
	snprintf(why, sizeof(why), "reply type %d: %s", (int)reply.reply_type, amqp_error_string2(reply.library_error));
	return false;
}

static amqp_connection_state_t connect_with(const char *password, int heartbeat_s)
{
	amqp_connection_state_t conn = amqp_new_connection();
	amqp_socket_t *sock = amqp_tcp_socket_new(conn);
	struct timeval limit = patience;
	amqp_rpc_reply_t reply;

	if (!sock || amqp_socket_open_noblock(sock, host, port, &limit) != AMQP_STATUS_OK) {
		snprintf(why, sizeof(why), "no connection to %s:%d", host, port);
		amqp_destroy_connection(conn);
		return NULL;
	}
	reply = amqp_login(conn, "/", 0, 131072, heartbeat_s, AMQP_SASL_METHOD_PLAIN, "guest", password);
	if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
		snprintf(why, sizeof(why), "login: reply type %d", (int)reply.reply_type);
		amqp_destroy_connection(conn);
		return NULL;
	}
	return conn;
}

static amqp_connection_state_t open_one(void)
{
	amqp_connection_state_t conn = connect_with("guest", 0);

	if (!conn)
		return NULL;
	amqp_channel_open(conn, 1);
	if (is_normal(conn))
		return conn;
	amqp_destroy_connection(conn);
	return NULL;
}

static bool close_all(amqp_connection_state_t conn)
{
	amqp_rpc_reply_t reply = amqp_connection_close(conn, AMQP_REPLY_SUCCESS);

	CHECK(reply.reply_type == AMQP_RESPONSE_NORMAL, "the close was not answered");
	CHECK(amqp_destroy_connection(conn) == AMQP_STATUS_OK, "the connection was not destroyed");
	return true;
}

static bool declare_own(amqp_connection_state_t conn, amqp_channel_t channel, amqp_bytes_t *queue)
{
	amqp_queue_declare_ok_t *ok = amqp_queue_declare(conn, channel, amqp_empty_bytes, 0, 0, 1, 0, amqp_empty_table);

	if (!ok)
		return is_normal(conn);
	*queue = amqp_bytes_malloc_dup(ok->queue);
	return true;
}

static bool is_body(const amqp_message_t *message, amqp_bytes_t wanted)
{
	return message->body.len == wanted.len && memcmp(message->body.bytes, wanted.bytes, wanted.len) == 0;
}

/* Asks until the queue has a message: what was published may still be on its way. */
static bool get_one(amqp_connection_state_t conn, amqp_bytes_t queue, bool no_ack, amqp_message_t *message, uint64_t *tag,
		    bool *redelivered)
{
	struct timespec pause = {.tv_nsec = 5000000};

	for (int i = 0; i < 2000; i++) {
		amqp_rpc_reply_t reply = amqp_basic_get(conn, 1, queue, no_ack);

		CHECK(reply.reply_type == AMQP_RESPONSE_NORMAL, "basic.get failed");
		if (reply.reply.id == AMQP_BASIC_GET_OK_METHOD) {
			const amqp_basic_get_ok_t *ok = reply.reply.decoded;

			*tag = ok->delivery_tag;
			*redelivered = ok->redelivered;
			reply = amqp_read_message(conn, 1, message, 0);
			CHECK(reply.reply_type == AMQP_RESPONSE_NORMAL, "the message of get-ok did not come");
			return true;
		}
		nanosleep(&pause, NULL);
	}
	CHECK(false, "no message came");
}

static bool connects_and_closes(void)
{
	amqp_connection_state_t conn = open_one();
	const amqp_table_t *server = conn ? amqp_get_server_properties(conn) : NULL;

	if (!conn)
		return false;
	CHECK(server && server->num_entries > 0, "no server properties");
	return close_all(conn);
}

static bool refuses_a_wrong_password(void)
{
	CHECK(!connect_with("wrong", 0), "a wrong password got in");
	return true;
}

static bool carries_1_mib(void)
{
	amqp_connection_state_t conn = open_one();
	amqp_bytes_t queue, text = amqp_bytes_malloc(BODY_BYTES);
	uint32_t seed = 2463534242u;
	amqp_message_t message;
	uint64_t tag;
	bool again;

	if (!conn)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		seed = seed * 1664525u + 1013904223u;
		((uint8_t *)text.bytes)[i] = (uint8_t)(seed >> 24);
	}
	if (!declare_own(conn, 1, &queue))
		return false;
	CHECK(amqp_basic_publish(conn, 1, amqp_empty_bytes, queue, 0, 0, NULL, text) == AMQP_STATUS_OK, "the publish failed");
	if (!get_one(conn, queue, true, &message, &tag, &again))
		return false;
	CHECK(is_body(&message, text), "other bytes came back (%zu of them)", message.body.len);
	amqp_destroy_message(&message);
	amqp_bytes_free(text);
	amqp_bytes_free(queue);
	return close_all(conn);
}

struct route {
	const char *exchange;
	const char *bound;
	const char *hit;
	const char *missed;
};

static bool route_one(amqp_connection_state_t conn, const struct route *route)
{
	amqp_bytes_t exchange = amqp_cstring_bytes(route->exchange), queue;
	amqp_message_t message;
	uint64_t tag;
	bool again;

	if (!declare_own(conn, 1, &queue))
		return false;
	amqp_queue_bind(conn, 1, queue, exchange, amqp_cstring_bytes(route->bound), amqp_empty_table);
	if (!is_normal(conn))
		return false;
	if (route->missed)
		amqp_basic_publish(conn, 1, exchange, amqp_cstring_bytes(route->missed), 0, 0, NULL, amqp_cstring_bytes("missed"));
	amqp_basic_publish(conn, 1, exchange, amqp_cstring_bytes(route->hit), 0, 0, NULL, amqp_cstring_bytes("hit"));
	if (!get_one(conn, queue, true, &message, &tag, &again))
		return false;
	CHECK(is_body(&message, amqp_cstring_bytes("hit")), "%s routed a message that no binding matches", route->exchange);
	amqp_destroy_message(&message);
	amqp_bytes_free(queue);
	return true;
}

static bool routes_by_type(void)
{
	static const struct route routes[] = {
		{"amq.direct", "a.b", "a.b", "a.c"},
		{"amq.fanout", "x", "y", NULL},
		{"amq.topic", "*.b.#", "a.b", "b.a"},
	};
	amqp_connection_state_t conn = open_one();

	if (!conn)
		return false;
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (!route_one(conn, &routes[i]))
			return false;
	}
	return close_all(conn);
}

static amqp_table_entry_t text_entry(const char *name, const char *value)
{
	amqp_table_entry_t entry = {.key = amqp_cstring_bytes(name)};

	entry.value.kind = AMQP_FIELD_KIND_UTF8;
	entry.value.value.bytes = amqp_cstring_bytes(value);
	return entry;
}

static bool routes_by_headers(void)
{
	amqp_connection_state_t conn = open_one();
	amqp_table_entry_t bound[2] = {text_entry("x-match", "all"), text_entry("venue", "xetra")};
	amqp_table_entry_t hit = text_entry("venue", "xetra"), missed = text_entry("venue", "nyse");
	amqp_table_t arguments = {.num_entries = 2, .entries = bound};
	amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {.num_entries = 1}};
	amqp_bytes_t exchange = amqp_cstring_bytes("amq.headers"), queue;
	amqp_message_t message;
	uint64_t tag;
	bool again;

	if (!conn)
		return false;
	if (!declare_own(conn, 1, &queue))
		return false;
	amqp_queue_bind(conn, 1, queue, exchange, amqp_empty_bytes, arguments);
	if (!is_normal(conn))
		return false;
	properties.headers.entries = &missed;
	amqp_basic_publish(conn, 1, exchange, amqp_empty_bytes, 0, 0, &properties, amqp_cstring_bytes("missed"));
	properties.headers.entries = &hit;
	amqp_basic_publish(conn, 1, exchange, amqp_empty_bytes, 0, 0, &properties, amqp_cstring_bytes("hit"));
	if (!get_one(conn, queue, true, &message, &tag, &again))
		return false;
	CHECK(is_body(&message, amqp_cstring_bytes("hit")), "the headers exchange routed what does not match");
	amqp_destroy_message(&message);
	amqp_bytes_free(queue);
	return close_all(conn);
}

static bool consumes_in_order(bool no_ack)
{
	amqp_connection_state_t conn = open_one();
	amqp_bytes_t queue;

	if (!conn)
		return false;
	if (!declare_own(conn, 1, &queue))
		return false;
	amqp_basic_consume(conn, 1, queue, amqp_empty_bytes, 0, no_ack, 0, amqp_empty_table);
	if (!is_normal(conn))
		return false;
	for (int i = 0; i < 100; i++) {
		amqp_bytes_t text = {.len = sizeof(i), .bytes = &i};

		CHECK(amqp_basic_publish(conn, 1, amqp_empty_bytes, queue, 0, 0, NULL, text) == AMQP_STATUS_OK, "publish %d", i);
	}
	for (int i = 0; i < 100; i++) {
		struct timeval limit = patience;
		amqp_envelope_t envelope;
		amqp_rpc_reply_t reply = amqp_consume_message(conn, &envelope, &limit, 0);
		amqp_bytes_t text = {.len = sizeof(i), .bytes = &i};

		CHECK(reply.reply_type == AMQP_RESPONSE_NORMAL, "delivery %d did not come", i);
		CHECK(is_body(&envelope.message, text) && envelope.delivery_tag == (uint64_t)i + 1, "delivery %d is another", i);
		if (!no_ack)
			CHECK(amqp_basic_ack(conn, 1, envelope.delivery_tag, 0) == 0, "ack %d", i);
		amqp_destroy_envelope(&envelope);
	}
	amqp_bytes_free(queue);
	return close_all(conn);
}

static bool consumes_with_ack(void)
{
	return consumes_in_order(false);
}

static bool consumes_without_ack(void)
{
	return consumes_in_order(true);
}

static bool returns_before_the_confirm(void)
{
	amqp_connection_state_t conn = open_one();
	struct timeval limit = patience;
	amqp_message_t message;
	amqp_rpc_reply_t reply;
	amqp_frame_t frame;

	if (!conn)
		return false;
	amqp_confirm_select(conn, 1);
	if (!is_normal(conn))
		return false;
	amqp_basic_publish(conn, 1, amqp_cstring_bytes("amq.direct"), amqp_cstring_bytes("nowhere"), 1, 0, NULL,
			   amqp_cstring_bytes("back"));
	CHECK(amqp_simple_wait_frame_noblock(conn, &frame, &limit) == AMQP_STATUS_OK, "nothing came back");
	CHECK(frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_RETURN_METHOD,
	      "basic.return is not first");
	CHECK(((amqp_basic_return_t *)frame.payload.method.decoded)->reply_code == AMQP_NO_ROUTE, "the code is not 312");
	reply = amqp_read_message(conn, 1, &message, 0);
	CHECK(reply.reply_type == AMQP_RESPONSE_NORMAL && is_body(&message, amqp_cstring_bytes("back")),
	      "the returned body is another");
	amqp_destroy_message(&message);
	limit = patience;
	CHECK(amqp_simple_wait_frame_noblock(conn, &frame, &limit) == AMQP_STATUS_OK, "no confirm came");
	CHECK(frame.payload.method.id == AMQP_BASIC_ACK_METHOD, "the confirm is not basic.ack");
	CHECK(((amqp_basic_ack_t *)frame.payload.method.decoded)->delivery_tag == 1, "the confirm is not for message 1");
	return close_all(conn);
}

static bool holds_200_channels(void)
{
	amqp_connection_state_t conn = connect_with("guest", 0);
	amqp_bytes_t queue;

	if (!conn)
		return false;
	for (amqp_channel_t channel = 1; channel <= CHANNEL_COUNT; channel++) {
		amqp_channel_open(conn, channel);
		if (!is_normal(conn) || !declare_own(conn, channel, &queue))
			return false;
		amqp_bytes_free(queue);
	}
	return close_all(conn);
}

static bool beats_while_idle(void)
{
	amqp_connection_state_t conn = connect_with("guest", 1);
	struct timeval limit = {.tv_sec = 4};
	amqp_bytes_t queue;
	amqp_frame_t frame;

	if (!conn)
		return false;
	CHECK(amqp_get_heartbeat(conn) == 1, "a heartbeat of 1 s was not agreed on");
	/* The library sends and counts beats inside this wait; a silent broker would end it with AMQP_STATUS_HEARTBEAT_TIMEOUT. */
	CHECK(amqp_simple_wait_frame_noblock(conn, &frame, &limit) == AMQP_STATUS_TIMEOUT, "the idle connection did not stay");
	amqp_channel_open(conn, 1);
	if (!is_normal(conn) || !declare_own(conn, 1, &queue))
		return false;
	amqp_bytes_free(queue);
	return close_all(conn);
}

static bool gives_back_after_a_reset(void)
{
	amqp_connection_state_t keeper = open_one(), victim = open_one();
	struct linger reset = {.l_onoff = 1, .l_linger = 0};
	amqp_message_t message;
	amqp_bytes_t queue;
	char name[64];
	uint64_t tag;
	bool again;

	if (!keeper || !victim)
		return false;
	snprintf(name, sizeof(name), "librabbitmq-%d", (int)getpid());
	queue = amqp_cstring_bytes(name);
	amqp_queue_declare(keeper, 1, queue, 0, 0, 0, 0, amqp_empty_table);
	if (!is_normal(keeper))
		return false;
	amqp_basic_publish(keeper, 1, amqp_empty_bytes, queue, 0, 0, NULL, amqp_cstring_bytes("again"));
	if (!get_one(victim, queue, false, &message, &tag, &again))
		return false;
	CHECK(!again, "the first delivery says redelivered");
	amqp_destroy_message(&message);
	setsockopt(amqp_get_sockfd(victim), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	amqp_destroy_connection(victim);
	if (!get_one(keeper, queue, true, &message, &tag, &again))
		return false;
	CHECK(again && is_body(&message, amqp_cstring_bytes("again")), "it did not come back as redelivered");
	amqp_destroy_message(&message);
	amqp_queue_delete(keeper, 1, queue, 0, 0);
	return close_all(keeper);
}

static bool hears_of_errors(void)
{
	amqp_connection_state_t conn = open_one();
	amqp_rpc_reply_t reply;

	if (!conn)
		return false;
	amqp_queue_declare(conn, 1, amqp_cstring_bytes("librabbitmq-missing"), 1, 0, 0, 0, amqp_empty_table);
	reply = amqp_get_rpc_reply(conn);
	CHECK(reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD,
	      "no channel.close came");
	CHECK(((amqp_channel_close_t *)reply.reply.decoded)->reply_code == AMQP_NOT_FOUND, "the code is not 404");
	return close_all(conn);
}

static const struct {
	const char *sentence;
	bool (*run)(void);
} tests[] = {
	{"librabbitmq logs in, reads the server's properties and closes", connects_and_closes},
	{"a wrong password is refused", refuses_a_wrong_password},
	{"1 MiB goes out and comes back byte for byte", carries_1_mib},
	{"direct, fanout and topic exchanges route what is bound and nothing else", routes_by_type},
	{"the headers exchange routes what is bound and nothing else", routes_by_headers},
	{"consuming with acknowledgement keeps the order", consumes_with_ack},
	{"consuming without acknowledgement keeps the order", consumes_without_ack},
	{"an unroutable mandatory message is returned with 312 before its confirm", returns_before_the_confirm},
	{"200 channels on one connection each declare a queue", holds_200_channels},
	{"a heartbeat of 1 s keeps an idle connection for 4 s", beats_while_idle},
	{"an abrupt disconnect gives the unacknowledged message back as redelivered", gives_back_after_a_reset},
	{"a missing queue is a channel error 404, and the connection goes on to its close", hears_of_errors},
};

int main(void)
{
	const char *port_text = getenv("AMQP_PORT");
	int failed = 0, count = (int)(sizeof(tests) / sizeof(tests[0]));

	host = getenv("AMQP_HOST");
	port = port_text ? atoi(port_text) : 5672;
	if (!host) {
		puts("Bail out! AMQP_HOST is not set");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("1..%d\n", count);
	for (int i = 0; i < count; i++) {
		alarm(60);
		if (tests[i].run()) {
			printf("ok %d - %s\n", i + 1, tests[i].sentence);
			continue;
		}
		failed++;
		printf("not ok %d - %s\n# %s\n", i + 1, tests[i].sentence, why);
	}
	return failed ? 1 : 0;
}
