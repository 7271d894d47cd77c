/* tickbench's AMQP client: frames over every split point, deliveries over every cut of the body, hostile lengths.
 * Runs on the build host as part of make test; bytes go through a socket pair, as they do in the program.
 * Specification: AMQP 0-9-1, sections 4.2.3 (frames) and 4.2.6 (content). */
#include "tools/tickbench/conn.h"
#include "tools/tickbench/deliver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define RUN 77

struct pair {
	struct tb_conn conn;
	int peer;
};

static void open_pair(struct pair *p, uint32_t frame_max)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	memset(p, 0, sizeof(*p));
	p->conn.via = &tb_sockets;
	p->conn.connected = true;
	p->conn.fd = fds[0];
	p->peer = fds[1];
	p->conn.frame_max = frame_max;
	p->conn.in_cap = TB_CONN_IN_MIN_BYTES;
	p->conn.in = malloc(p->conn.in_cap);
	assert_non_null(p->conn.in);
	assert_true(tb_out_init(&p->conn.out, TB_CONN_OUT_BYTES));
}

static void close_pair(struct pair *p)
{
	close(p->peer);
	tb_conn_fini(&p->conn);
}

static void say(struct pair *p, const uint8_t *bytes, size_t length)
{
	assert_int_equal(send(p->peer, bytes, length, 0), (ssize_t)length);
	assert_int_equal(tb_conn_fill(&p->conn, 1), (long)length);
}

static void put_delivery(struct tb_out *o, uint64_t tag, uint64_t seq, uint32_t size, uint32_t cut)
{
	uint8_t body[512] = {0};

	tb_payload_write(body, RUN, seq, seq * 1000);
	tb_method_begin(o, 1, TB_BASIC_DELIVER);
	tb_put_shortstr(o, "ctag");
	tb_put64(o, tag);
	tb_put8(o, 0);
	tb_put_shortstr(o, "exchange");
	tb_put_shortstr(o, "key");
	tb_frame_finish(o);
	tb_frame_begin(o, TB_FRAME_HEADER, 1);
	tb_put32(o, 60u << 16);
	tb_put64(o, size);
	tb_put16(o, 0);
	tb_frame_finish(o);
	for (uint32_t at = 0; at < size; at += cut) {
		tb_frame_begin(o, TB_FRAME_BODY, 1);
		tb_put_bytes(o, body + at, size - at < cut ? size - at : cut);
		tb_frame_finish(o);
	}
}

struct sink {
	struct tb_assembly assembly;
	int ticks;
	int others;
	uint64_t seq_sum;
};

static void drain(struct pair *p, struct sink *s)
{
	struct tb_frame f;
	const uint8_t *body;
	struct tb_tick tick;
	int got;

	while ((got = tb_conn_next(&p->conn, &f)) == 1) {
		enum tb_assembled how = tb_assemble(&s->assembly, &f, &body);
		assert_int_not_equal(how, TB_ASSEMBLED_ERROR);
		s->others += how == TB_ASSEMBLED_OTHER;
		if (how != TB_ASSEMBLED_TICK)
			continue;
		assert_non_null(body);
		assert_true(tb_payload_read(body, RUN, &tick));
		assert_int_equal(tick.intended_ns, tick.seq * 1000);
		assert_int_equal(s->assembly.delivery_tag, tick.seq + 1);
		s->ticks++;
		s->seq_sum += tick.seq;
	}
	assert_int_equal(got, 0);
}

/* Three deliveries, one of them in three body frames, a heartbeat between. */
static void put_stream(struct tb_out *o)
{
	assert_true(tb_out_init(o, 4096));
	put_delivery(o, 1, 0, 64, 64);
	tb_frame_begin(o, TB_FRAME_HEARTBEAT, 0);
	tb_frame_finish(o);
	put_delivery(o, 2, 1, 70, 30);
	put_delivery(o, 3, 2, 32, 32);
	assert_false(o->overflow);
}

static void frames_come_out_whole_at_every_split_point_section_4_2_3(void **state)
{
	struct tb_out o;

	(void)state;
	put_stream(&o);
	for (size_t split = 1; split < o.tail; split++) {
		struct pair p;
		struct sink s = {0};
		open_pair(&p, 4096);
		say(&p, o.bytes, split);
		drain(&p, &s);
		say(&p, o.bytes + split, o.tail - split);
		drain(&p, &s);
		assert_int_equal(s.ticks, 3);
		assert_int_equal(s.others, 1);
		assert_int_equal(s.seq_sum, 3);
		assert_int_equal(p.conn.in_head, p.conn.in_tail);
		close_pair(&p);
	}
	tb_out_fini(&o);
}

static void frames_come_out_whole_byte_by_byte_section_4_2_3(void **state)
{
	struct tb_out o;
	struct pair p;
	struct sink s = {0};

	(void)state;
	put_stream(&o);
	open_pair(&p, 4096);
	for (size_t at = 0; at < o.tail; at++) {
		say(&p, o.bytes + at, 1);
		drain(&p, &s);
	}
	assert_int_equal(s.ticks, 3);
	close_pair(&p);
	tb_out_fini(&o);
}

static void a_body_may_be_cut_into_frames_of_any_size_section_4_2_6(void **state)
{
	(void)state;
	for (uint32_t cut = 1; cut <= 200; cut++) {
		struct tb_out o;
		struct pair p;
		struct sink s = {0};
		assert_true(tb_out_init(&o, 8192));
		put_delivery(&o, 1, 0, 200, cut);
		open_pair(&p, 4096);
		say(&p, o.bytes, o.tail);
		drain(&p, &s);
		assert_int_equal(s.ticks, 1);
		assert_int_equal(s.assembly.body_size, 200);
		close_pair(&p);
		tb_out_fini(&o);
	}
}

static void expect_ended(const uint8_t *bytes, size_t length, enum tb_exit status, const char *part)
{
	struct pair p;
	struct tb_frame f;

	open_pair(&p, 4096);
	say(&p, bytes, length);
	assert_int_equal(tb_conn_next(&p.conn, &f), -1);
	assert_int_equal(p.conn.failed, status);
	assert_non_null(strstr(p.conn.error, part));
	close_pair(&p);
}

static void a_frame_larger_than_agreed_ends_the_connection_section_4_2_3(void **state)
{
	static const uint8_t bytes[] = {1, 0, 1, 0, 0, 0x0F, 0xF9, 0};
	static const uint8_t huge[] = {1, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0};

	(void)state;
	expect_ended(bytes, sizeof(bytes), TB_EXIT_PROTOCOL, "larger");
	expect_ended(huge, sizeof(huge), TB_EXIT_PROTOCOL, "larger");
}

static void a_wrong_end_octet_ends_the_connection_section_4_2_3(void **state)
{
	static const uint8_t bytes[] = {8, 0, 0, 0, 0, 0, 0, 0xCD};

	(void)state;
	expect_ended(bytes, sizeof(bytes), TB_EXIT_PROTOCOL, "0xCE");
}

static void a_protocol_header_in_return_is_named_as_a_refusal_section_4_2_2(void **state)
{
	(void)state;
	expect_ended((const uint8_t *)"AMQP\0\0\x09\x01", 8, TB_EXIT_PROTOCOL, "refused");
	expect_ended((const uint8_t *)"AMQP", 4, TB_EXIT_PROTOCOL, "refused");
}

static void content_out_of_order_is_an_error_section_4_2_6(void **state)
{
	struct tb_assembly a = {0};
	const uint8_t *body;
	uint8_t header[14] = {0, 60};
	uint8_t text[40] = {0};
	struct tb_frame body_frame = {.type = TB_FRAME_BODY, .channel = 1, .length = 40, .payload = text};
	struct tb_frame header_frame = {.type = TB_FRAME_HEADER, .channel = 1, .length = 14, .payload = header};
	struct tb_frame short_header = {.type = TB_FRAME_HEADER, .channel = 1, .length = 13, .payload = header};

	(void)state;
	header[11] = 33;
	assert_int_equal(tb_assemble(&a, &body_frame, &body), TB_ASSEMBLED_ERROR);
	assert_int_equal(tb_assemble(&a, &header_frame, &body), TB_ASSEMBLED_ERROR);
	a.state = TB_ASSEMBLY_HEADER;
	assert_int_equal(tb_assemble(&a, &short_header, &body), TB_ASSEMBLED_ERROR);
	assert_int_equal(tb_assemble(&a, &header_frame, &body), TB_ASSEMBLED_PART);
	/* more body than the header announced */
	assert_int_equal(tb_assemble(&a, &body_frame, &body), TB_ASSEMBLED_ERROR);
}

static void a_delivery_that_is_cut_short_is_an_error_not_an_overrun(void **state)
{
	struct tb_out o;
	const uint8_t *body;

	(void)state;
	assert_true(tb_out_init(&o, 1024));
	put_delivery(&o, 1, 0, 64, 64);
	uint32_t whole = tb_get32(o.bytes + 3);
	/* a consumer tag and delivery tag need 4 + 1 + 4 + 8 bytes here */
	for (uint32_t length = 4; length < whole; length++) {
		/* in memory of exactly this size, so that the sanitizer sees one byte too many */
		uint8_t *exact = malloc(length);
		assert_non_null(exact);
		memcpy(exact, o.bytes + 7, length);
		struct tb_assembly a = {0};
		struct tb_frame f = {.type = TB_FRAME_METHOD, .channel = 1, .length = length, .payload = exact};
		assert_int_equal(tb_assemble(&a, &f, &body), length < 17 ? TB_ASSEMBLED_ERROR : TB_ASSEMBLED_PART);
		free(exact);
	}
	tb_out_fini(&o);
}

static void an_empty_or_short_body_yields_a_delivery_without_payload(void **state)
{
	struct tb_assembly a = {.state = TB_ASSEMBLY_HEADER};
	uint8_t header[14] = {0, 60}, text[31] = {0};
	const uint8_t *body = text;
	struct tb_frame header_frame = {.type = TB_FRAME_HEADER, .length = 14, .payload = header};
	struct tb_frame body_frame = {.type = TB_FRAME_BODY, .length = 31, .payload = text};

	(void)state;
	assert_int_equal(tb_assemble(&a, &header_frame, &body), TB_ASSEMBLED_TICK);
	assert_null(body);
	a.state = TB_ASSEMBLY_HEADER;
	header[11] = 31;
	body = text;
	assert_int_equal(tb_assemble(&a, &header_frame, &body), TB_ASSEMBLED_PART);
	assert_int_equal(tb_assemble(&a, &body_frame, &body), TB_ASSEMBLED_TICK);
	assert_null(body);
}

static void any_altered_payload_byte_is_seen(void **state)
{
	uint8_t p[TB_PAYLOAD_MIN_BYTES];
	struct tb_tick tick;

	(void)state;
	tb_payload_write(p, RUN, 12345, 678901234567);
	assert_true(tb_payload_read(p, RUN, &tick));
	assert_int_equal(tick.seq, 12345);
	assert_false(tb_payload_read(p, RUN + 1, &tick));
	for (size_t i = 0; i < sizeof(p); i++) {
		p[i] ^= 0x10;
		assert_false(tb_payload_read(p, RUN, &tick));
		p[i] ^= 0x10;
	}
}

static void text_is_found_in_a_table_behind_every_other_type_section_4_2_5_5(void **state)
{
	static const char types[] = "tbBsUuIifDLldT";
	static const size_t sizes[] = {1, 1, 1, 2, 2, 2, 4, 4, 4, 5, 8, 8, 8, 8};
	struct tb_out o;
	char text[64];

	(void)state;
	assert_true(tb_out_init(&o, 4096));
	for (size_t i = 0; i < sizeof(types) - 1; i++) {
		tb_put_shortstr(&o, "field");
		tb_put8(&o, (uint8_t)types[i]);
		tb_put_bytes(&o, "12345678", sizes[i]);
	}
	tb_put_shortstr(&o, "none");
	tb_put8(&o, 'V');
	tb_put_shortstr(&o, "nested");
	tb_put8(&o, 'F');
	size_t nested = tb_put_block_begin(&o);
	tb_put_field_text(&o, "product", "the wrong one");
	tb_put_block_end(&o, nested);
	tb_put_field_text(&o, "product", "Tick\x1bwire");
	tb_table_find_text(o.bytes, o.tail, "product", text, sizeof(text));
	/* control characters of a peer never reach the terminal */
	assert_string_equal(text, "Tick?wire");
	for (size_t length = 0; length < o.tail; length++) {
		uint8_t *exact = malloc(length + 1);
		assert_non_null(exact);
		memcpy(exact, o.bytes, length);
		tb_table_find_text(exact, length, "product", text, sizeof(text));
		assert_string_equal(text, "");
		free(exact);
	}
	tb_out_fini(&o);
}

static void a_close_from_the_broker_is_answered_and_quoted(void **state)
{
	struct tb_out o;
	struct pair p;
	struct tb_frame f;
	uint8_t answer[64];

	(void)state;
	assert_true(tb_out_init(&o, 1024));
	tb_method_begin(&o, 0, TB_CONNECTION_CLOSE);
	tb_put16(&o, 320);
	tb_put_shortstr(&o, "CONNECTION_FORCED - test");
	tb_put32(&o, 0);
	tb_frame_finish(&o);
	open_pair(&p, 4096);
	say(&p, o.bytes, o.tail);
	assert_int_equal(tb_conn_next(&p.conn, &f), 1);
	assert_int_equal(tb_conn_common(&p.conn, &f), -1);
	assert_non_null(strstr(p.conn.error, "320 CONNECTION_FORCED - test"));
	assert_int_equal(recv(p.peer, answer, sizeof(answer), 0), 12);
	assert_int_equal(tb_get32(answer + 7), TB_CONNECTION_CLOSE_OK);
	close_pair(&p);
	tb_out_fini(&o);
}

static void a_silent_interval_brings_a_heartbeat_and_three_end_the_connection_section_4_2_7(void **state)
{
	struct pair p;
	uint8_t sent[64];
	uint64_t second = 1000000000;

	(void)state;
	open_pair(&p, 4096);
	p.conn.heartbeat_s = 10;
	assert_true(tb_conn_heartbeat(&p.conn, 4 * second));
	assert_int_equal(recv(p.peer, sent, sizeof(sent), 0), -1);
	assert_true(tb_conn_heartbeat(&p.conn, 6 * second));
	assert_int_equal(recv(p.peer, sent, sizeof(sent), 0), 8);
	assert_memory_equal(sent, "\x08\0\0\0\0\0\0\xCE", 8);
	assert_true(tb_conn_heartbeat(&p.conn, 8 * second));
	assert_int_equal(recv(p.peer, sent, sizeof(sent), 0), -1);
	assert_true(tb_conn_heartbeat(&p.conn, 29 * second));
	assert_false(tb_conn_heartbeat(&p.conn, 31 * second));
	assert_int_equal(p.conn.failed, TB_EXIT_UNAVAILABLE);
	close_pair(&p);
}

static void what_does_not_fit_is_never_sent_in_part(void **state)
{
	struct tb_out o;

	(void)state;
	assert_true(tb_out_init(&o, 16));
	tb_put_bytes(&o, "0123456789abcdef", 16);
	assert_false(o.overflow);
	tb_put8(&o, 1);
	assert_true(o.overflow);
	assert_int_equal(o.tail, 16);
	tb_out_fini(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_come_out_whole_at_every_split_point_section_4_2_3),
		cmocka_unit_test(frames_come_out_whole_byte_by_byte_section_4_2_3),
		cmocka_unit_test(a_body_may_be_cut_into_frames_of_any_size_section_4_2_6),
		cmocka_unit_test(a_frame_larger_than_agreed_ends_the_connection_section_4_2_3),
		cmocka_unit_test(a_wrong_end_octet_ends_the_connection_section_4_2_3),
		cmocka_unit_test(a_protocol_header_in_return_is_named_as_a_refusal_section_4_2_2),
		cmocka_unit_test(content_out_of_order_is_an_error_section_4_2_6),
		cmocka_unit_test(a_delivery_that_is_cut_short_is_an_error_not_an_overrun),
		cmocka_unit_test(an_empty_or_short_body_yields_a_delivery_without_payload),
		cmocka_unit_test(any_altered_payload_byte_is_seen),
		cmocka_unit_test(text_is_found_in_a_table_behind_every_other_type_section_4_2_5_5),
		cmocka_unit_test(a_close_from_the_broker_is_answered_and_quoted),
		cmocka_unit_test(a_silent_interval_brings_a_heartbeat_and_three_end_the_connection_section_4_2_7),
		cmocka_unit_test(what_does_not_fit_is_never_sent_in_part),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
