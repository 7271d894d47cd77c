/*
 * test_amqp_front_whole.c - a publish that is read in one go is what its frames are one by one: the same bytes, whole and octet by
 * octet.
 *
 * Owns: two brokers that live the same life.
 * Core: test.
 * Spec: AMQP 0-9-1 sections 4.2.3 and 4.2.6; DESIGN section 6. What a fast way would forget to check shows as a difference.
 */
#include "tests/unit/amqp_front_test.h"

#include "amqp/back.h"
#include "amqp/wire.h"

#define STREAMS 6000u

static uint64_t dice_state;

static uint32_t dice(uint32_t n)
{
	dice_state += 0x9e3779b97f4a7c15u;
	uint64_t z = (dice_state ^ dice_state >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ z >> 31) >> 11) % n;
}

static bool one_in(uint32_t n)
{
	return dice(n) == 0;
}

/* ---- publishes, mostly right ---- */

static const char *any_exchange(void)
{
	static const char *const names[] = {"amq.fanout", "prices", "amq.topic", "amq.topic", "amq.headers", "",
					    "prices",     "inside", "nowhere",   "\xc3\xbc",  "\xff"};

	return names[dice(sizeof names / sizeof names[0] - (one_in(20) ? 0 : 4))];
}

static const char *any_key(char *buf)
{
	static const char *const names[] = {"q", "eu.dax",       "eu.dax", "eu.stoxx50.trade", "us.spx", "",
					    "n", "\xe2\x82\xac", "k",      "eu.\xed\xa0\x80"};
	uint32_t n = dice(12);

	if (n < 10)
		return names[n];
	memset(buf, 'e', 255);
	buf[one_in(2) ? 255 : 90 + dice(40)] = '\0';
	return buf;
}

static void put(struct kit_bytes *b, uint64_t v, unsigned bytes)
{
	while (bytes-- > 0) {
		uint8_t octet = (uint8_t)(v >> 8 * bytes);

		kit_raw(b, &octet, 1);
	}
}

static void put_short(struct kit_bytes *b, const char *s)
{
	put(b, strlen(s), 1);
	kit_raw(b, s, strlen(s));
}

static void put_properties(struct kit_bytes *b)
{
	static const char table[] = "\4feedS\0\0\0\4nyse", broken_table[] = "\4feedY\0\0\0\4nyse";
	static const char *const expirations[] = {"0", "60000", "4294967295", "4294967296", "soon", ""};
	uint32_t flags = one_in(3) ? 0x9000 : one_in(3) ? 0 : (uint32_t)(dice(65536) & (one_in(30) ? 0xffff : 0xfffc));
	const char *t = one_in(16) ? broken_table : table;

	put(b, flags, 2);
	for (unsigned bit = 15; bit >= 2; bit--) {
		if (!(flags & 1u << bit))
			continue;
		if (bit == 13) {
			put(b, one_in(16) ? 15 : 14, 4);
			kit_raw(b, t, 14);
		} else if (bit == 12) {
			put(b, one_in(16) ? dice(256) : 1 + dice(2), 1);
		} else if (bit == 11) {
			put(b, dice(10), 1);
		} else if (bit == 6) {
			put(b, dice(1u << 30), 8);
		} else if (bit == 8) {
			put_short(b, expirations[one_in(4) ? dice(6) : dice(3)]);
		} else if (bit == 4) {
			put_short(b, one_in(16) ? "somebody" : "guest");
		} else {
			put_short(b, "text/plain");
		}
	}
	if (one_in(40))
		put(b, 0, 1);
}

static void put_frame(struct kit_bytes *b, unsigned type, uint32_t channel, const struct kit_bytes *payload)
{
	size_t head = b->len;

	put(b, one_in(500) ? dice(10) : type, 1);
	put(b, one_in(500) ? dice(4) : channel, 2);
	put(b, payload->len, 4);
	kit_raw(b, payload->p, payload->len);
	put(b, one_in(500) ? 0xcd : 0xce, 1);
	if (one_in(500))
		amqp_set_be32(b->p + head + 3, (uint32_t)payload->len + dice(3) - 1);
}

static void put_body(struct kit_bytes *b, uint32_t channel, uint32_t announced)
{
	uint32_t len = one_in(40) ? announced + dice(3) : announced, chunk = one_in(8) ? 1 + dice(len + 1) : len;

	for (uint32_t at = 0; at < len || (at == 0 && one_in(20));) {
		uint32_t n = len - at < chunk ? len - at : chunk;
		struct kit_bytes payload = {0};

		for (uint32_t i = 0; i < n; i++)
			put(&payload, 'a' + i % 26, 1);
		put_frame(b, 3, channel, &payload);
		kit_bytes_free(&payload);
		at += n;
		if (n == 0)
			break;
	}
}

static void put_publish(struct kit_bytes *b)
{
	static const uint32_t lengths[] = {0, 1, 8, 64, 64, 64, 200, 1500, 5000};
	uint32_t channel = one_in(60) ? dice(5) : 1 + dice(2), body = lengths[dice(9)];
	bool narrow = one_in(6);
	struct kit_bytes payload = {0};
	char key[256];

	put(&payload, one_in(300) ? dice(100) << 16 | 40 : 60u << 16 | 40, 4);
	put(&payload, one_in(10) ? dice(65536) : 0, 2);
	put_short(&payload, narrow ? "prices" : any_exchange());
	put_short(&payload, narrow ? "n" : any_key(key));
	put(&payload, one_in(6) ? 1 : one_in(60) ? dice(256) : 0, 1);
	if (one_in(200))
		put(&payload, 0, 1);
	put_frame(b, 1, channel, &payload);
	payload.len = 0;
	put(&payload, one_in(200) ? dice(100) : 60, 2);
	put(&payload, one_in(200), 2);
	put(&payload, one_in(200) ? 1u << 24 : body, 8);
	put_properties(&payload);
	if (!one_in(200))
		put_frame(b, 2, channel, &payload);
	put_body(b, channel, body);
	kit_bytes_free(&payload);
}

static void put_something(struct kit_bytes *b)
{
	size_t from = b->len;

	switch (dice(24)) {
	case 0:
		kit_frame(b, 8, 0, NULL, 0, 0xce);
		break;
	case 1:
		kit_method(b, 1, AMQP_M_channel_flow, 1u);
		break;
	case 2:
		kit_method(b, 2, AMQP_M_basic_get, 0u, "q", 1u);
		break;
	case 3:
		kit_method(b, 1, AMQP_M_channel_close_ok);
		break;
	default:
		put_publish(b);
		break;
	}
	if (one_in(60) && b->len != from)
		b->p[from + dice((uint32_t)(b->len - from))] ^= (uint8_t)(1u << dice(8));
}

/* ---- two brokers ---- */

struct side {
	struct kit *k;
	struct kit_client *publisher, *reader;
};

static void side_begin(struct side *s)
{
	static const char narrow[] = "\14x-max-lengthI\0\0\0\0\12x-overflowS\0\0\0\16reject-publish";

	s->k = malloc(sizeof *s->k);
	assert_non_null(s->k);
	kit_init(s->k, NULL);
	s->reader = kit_login(s->k, 1);
	kit_say(s->reader, 1, AMQP_M_exchange_declare, 0u, "prices", "direct", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(s->reader, 1, AMQP_M_exchange_declare, 0u, "inside", "direct", 0u, 0u, 0u, 1u, 0u, KIT_EMPTY);
	kit_say(s->reader, 1, AMQP_M_queue_declare, 0u, "q", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(s->reader, 1, AMQP_M_queue_declare, 0u, "all", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_say(s->reader, 1, AMQP_M_queue_declare, 0u, "narrow", 0u, 0u, 0u, 0u, 0u,
		(struct amqp_span){(const uint8_t *)narrow, sizeof narrow - 1});
	kit_say(s->reader, 1, AMQP_M_queue_bind, 0u, "narrow", "prices", "n", 0u, KIT_EMPTY);
	kit_say(s->reader, 1, AMQP_M_queue_bind, 0u, "all", "amq.fanout", "", 0u, KIT_EMPTY);
	kit_say(s->reader, 1, AMQP_M_queue_bind, 0u, "all", "amq.topic", "eu.#", 0u, KIT_EMPTY);
	kit_say(s->reader, 1, AMQP_M_queue_bind, 0u, "all", "prices", "k", 0u, KIT_EMPTY);
	kit_say(s->reader, 1, AMQP_M_basic_consume, 0u, "all", "tag", 0u, 1u, 0u, 0u, KIT_EMPTY);
	kit_read(s->reader);
}

static void side_end(struct side *s)
{
	const char *broken;

	kit_release_refs(s->k);
	broken = kit_fini(s->k);
	if (broken != NULL)
		fail_msg("at the end: %s", broken);
	free(s->k);
}

/* What the way that frames took may change. */
static bool may_differ(unsigned counter)
{
	return counter == AMQP_CNT_publishes_whole || counter == AMQP_CNT_frames_joined;
}

static void assert_same_channel(const struct amqp_channel *a, const struct amqp_channel *b)
{
	assert_int_equal(a->state, b->state);
	assert_int_equal(a->content, b->content);
	assert_int_equal(a->publishes, b->publishes);
	assert_int_equal(a->publish_seq, b->publish_seq);
	assert_int_equal(a->next_delivery_tag, b->next_delivery_tag);
	assert_int_equal(a->msg != NULL, b->msg != NULL);
	if (a->content == AMQP_CONTENT_BODY) {
		assert_int_equal(a->body_got, b->body_got);
		assert_int_equal(a->msg->flags, b->msg->flags);
		assert_int_equal(a->msg->template_bytes, b->msg->template_bytes);
	}
}

/* Byte for byte what later readers will get. */
static void assert_same_ready(const struct side *a, const struct side *b)
{
	for (uint32_t i = 0; i < a->k->b->queues_used; i++) {
		const struct amqp_queue *p = &a->k->b->queues[i], *q = &b->k->b->queues[i];
		uint32_t at = p->ready_first, other = q->ready_first;

		assert_int_equal(p->ready_count, q->ready_count);
		for (uint32_t n = p->in_use ? p->ready_count : 0; n > 0; n--) {
			const struct amqp_msg *m = a->k->b->entries[at].msg, *o = b->k->b->entries[other].msg;

			assert_memory_equal(m, o, offsetof(struct amqp_msg, data));
			assert_memory_equal(m->data, o->data, m->template_bytes);
			assert_true(m->original == NULL && o->original == NULL);
			at = a->k->b->entries[at].next;
			other = b->k->b->entries[other].next;
		}
	}
}

static void assert_same(const struct side *a, const struct side *b)
{
	const struct amqp_conn *x = a->publisher->c, *y = b->publisher->c;
	struct amqp_usage u, v;

	assert_string_equal(kit_read(a->publisher), kit_read(b->publisher));
	assert_string_equal(kit_read(a->reader), kit_read(b->reader));
	for (unsigned i = 0; i < AMQP_CNT_COUNT; i++)
		if (!may_differ(i) && amqp_counters(a->k->b)[i] != amqp_counters(b->k->b)[i])
			fail_msg("%s is %llu and %llu", amqp_counter_name(i), (unsigned long long)amqp_counters(a->k->b)[i],
				 (unsigned long long)amqp_counters(b->k->b)[i]);
	amqp_usage(a->k->b, &u);
	amqp_usage(b->k->b, &v);
	assert_int_equal(u.messages, v.messages);
	assert_int_equal(u.entries, v.entries);
	assert_int_equal(u.message_bytes, v.message_bytes);
	assert_same_ready(a, b);
	assert_null(amqp_check(a->k->b));
	assert_null(amqp_check(b->k->b));
	assert_int_equal(x != NULL, y != NULL);
	if (x == NULL)
		return;
	assert_int_equal(x->state, y->state);
	assert_int_equal(x->recv_cnt, y->recv_cnt);
	assert_int_equal(x->recv_oct, y->recv_oct);
	assert_int_equal(x->send_oct, y->send_oct);
	assert_int_equal(x->parse, y->parse);
	assert_int_equal(x->head_len, y->head_len);
	assert_int_equal(x->channels_count, y->channels_count);
	for (uint32_t n = 1; n < x->channel_table_len; n++)
		if (x->channel_by_number[n] != AMQP_NONE)
			assert_same_channel(&a->k->b->channels[x->channel_by_number[n]],
					    &b->k->b->channels[y->channel_by_number[n]]);
}

/* One stream of a new connection: to the one in segments, to the other octet by octet. */
static void run_stream(struct side *whole, struct side *octets)
{
	struct kit_bytes stream = {0};
	bool confirms = one_in(3);

	whole->publisher = kit_login(whole->k, 2);
	octets->publisher = kit_login(octets->k, 2);
	if (confirms)
		kit_method(&stream, 1, AMQP_M_confirm_select, 0u);
	for (uint32_t n = 1 + dice(12); n > 0; n--)
		put_something(&stream);
	for (size_t at = 0; at < stream.len;) {
		size_t left = stream.len - at, n = one_in(2) ? left : 1 + dice(one_in(2) ? 1448 : 200);

		n = n < left ? n : left;
		kit_feed(whole->publisher, stream.p + at, n);
		at += n;
	}
	for (size_t at = 0; at < stream.len; at++)
		kit_feed(octets->publisher, stream.p + at, 1);
	kit_run(whole->k);
	kit_run(octets->k);
	assert_same(whole, octets);
	kit_close(whole->publisher);
	kit_close(octets->publisher);
	kit_release_refs(whole->k);
	kit_release_refs(octets->k);
	kit_say(whole->reader, 1, AMQP_M_queue_purge, 0u, "q", 0u);
	kit_say(octets->reader, 1, AMQP_M_queue_purge, 0u, "q", 0u);
	kit_say(whole->reader, 1, AMQP_M_queue_purge, 0u, "narrow", 0u);
	kit_say(octets->reader, 1, AMQP_M_queue_purge, 0u, "narrow", 0u);
	kit_bytes_free(&stream);
}

static void a_publish_read_in_one_go_is_what_its_octets_are_one_by_one(void **state)
{
	struct side whole, octets;
	uint64_t in_one_go, errors;

	(void)state;
	side_begin(&whole);
	side_begin(&octets);
	for (unsigned i = 0; i < STREAMS; i++) {
		dice_state = i;
		run_stream(&whole, &octets);
	}
	in_one_go = counted(whole.k, AMQP_CNT_publishes_whole);
	errors = counted(whole.k, AMQP_CNT_connection_errors) + counted(whole.k, AMQP_CNT_channel_errors);
	assert_true(in_one_go > STREAMS / 2 && in_one_go < counted(whole.k, AMQP_CNT_publishes));
	assert_int_equal(counted(octets.k, AMQP_CNT_publishes_whole), 0);
	assert_in_range(errors, STREAMS / 8, 4 * STREAMS);
	side_end(&whole);
	side_end(&octets);
}

/* ---- its arguments ---- */

static uint32_t any_arguments(uint8_t *args)
{
	static const uint8_t pieces[][4] = {"\xc3\xbc", "\xe2\x82\xac", "\xed\xa0\x80", "\xc0\xaf", "\xf0\x9f\x98", "abc"};
	uint32_t len = 0, names[2];

	args[len++] = (uint8_t)dice(256);
	args[len++] = (uint8_t)dice(256);
	for (unsigned i = 0; i < 2; i++) {
		names[i] = one_in(8) ? dice(256) : dice(24);
		args[len++] = (uint8_t)names[i];
		for (uint32_t n = 0; n < names[i]; n++)
			args[len + n] = (uint8_t)('a' + n % 26);
		if (one_in(4) && names[i] >= 4)
			memcpy(args + len + dice(names[i] - 3), pieces[dice(6)], 1 + dice(4));
		len += names[i];
	}
	args[len++] = (uint8_t)dice(256);
	if (one_in(4))
		args[dice(len)] = (uint8_t)dice(256);
	if (one_in(4))
		len = dice(len + 1);
	else if (one_in(4))
		args[len++] = 0;
	return len;
}

static void its_arguments_are_right_where_the_table_of_methods_says_so(void **state)
{
	const struct amqp_method *m = amqp_method_find(60, 40);
	uint8_t args[600];
	unsigned right = 0;

	(void)state;
	dice_state = 1;
	for (unsigned i = 0; i < 300000; i++) {
		uint32_t len = any_arguments(args);
		uint8_t *lent = malloc(len != 0 ? len : 1); /* at their exact size */
		const char *why = NULL;
		bool ok;

		assert_non_null(lent);
		memcpy(lent, args, len);
		ok = amqp_args_check(m, lent, len, &why) == 0;
		assert_int_equal(amqp_publish_args_ok(lent, len), ok);
		right += ok;
		free(lent);
	}
	assert_in_range(right, 60000, 240000);
}

/* ---- what only happens to it ---- */

static void put_numbered(struct kit_bytes *b, const char *exchange, const char *key, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++) {
		char body[16];
		int n = snprintf(body, sizeof body, "%015u", i);

		kit_publish(b, 1, exchange, key, body, (size_t)n, 16);
	}
}

static void one_that_stalls_goes_on_from_its_body(void **state)
{
	struct kit_bytes bytes = {0};
	struct amqp_limits l;
	struct kit *k = malloc(sizeof *k);
	struct kit_client *cl, *reader;
	const char *broken, *text;
	unsigned number, next = 0, entries;

	(void)state;
	assert_non_null(k);
	kit_limits(&l);
	l.entries_max = entries = l.queues_max;
	kit_init(k, &l);
	cl = kit_login(k, 1);
	reader = kit_login(k, 1);
	kit_say(reader, 1, AMQP_M_queue_declare, 0u, "q", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_read(reader);
	kit_publish(&bytes, 1, "", "nobody's", "in three pieces", 15, 5);
	put_numbered(&bytes, "", "q", 0, entries + 40);
	kit_send(cl, bytes.p, bytes.len);
	assert_true(cl->c->stalled);
	assert_int_equal(counted(k, AMQP_CNT_publishes), 1 + entries);
	assert_int_equal(counted(k, AMQP_CNT_publishes_whole), entries + 1);
	assert_int_equal(cl->c->recv_cnt, counted(k, AMQP_CNT_frames_in) - reader->c->recv_cnt);
	assert_null(amqp_check(k->b));
	kit_say(reader, 1, AMQP_M_basic_consume, 0u, "q", "t", 0u, 1u, 0u, 1u, KIT_EMPTY);
	for (text = kit_read(reader); *text != '\0'; text = strchr(text, '\n') + 1)
		if (sscanf(text, "1 body(%u)", &number) == 1)
			assert_int_equal(number, next++);
	assert_int_equal(next, entries + 40);
	assert_int_equal(counted(k, AMQP_CNT_publishes), 1 + next);
	kit_bytes_free(&bytes);
	kit_release_refs(k);
	broken = kit_fini(k);
	free(k);
	assert_null(broken);
}

static void an_exchange_that_became_internal_is_found_out(void **state)
{
	struct kit *k = *state;
	struct kit_client *cl = kit_login(k, 1), *owner = kit_login(k, 1);
	struct kit_bytes bytes = {0};

	put_numbered(&bytes, "prices", "k", 0, 2);
	kit_say(owner, 1, AMQP_M_exchange_declare, 0u, "prices", "direct", 0u, 0u, 0u, 0u, 0u, KIT_EMPTY);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "");
	kit_say(owner, 1, AMQP_M_exchange_delete, 0u, "prices", 0u, 0u);
	kit_say(owner, 1, AMQP_M_exchange_declare, 0u, "prices", "direct", 0u, 0u, 0u, 1u, 0u, KIT_EMPTY);
	kit_send(cl, bytes.p, bytes.len);
	expect(cl, "1 channel.close(403, ACCESS_REFUSED - cannot publish to internal exchange 'prices' in vhost '/', 60, 40)\n");
	kit_bytes_free(&bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_publish_read_in_one_go_is_what_its_octets_are_one_by_one),
		cmocka_unit_test(its_arguments_are_right_where_the_table_of_methods_says_so),
		cmocka_unit_test(one_that_stalls_goes_on_from_its_body),
		kit_test(an_exchange_that_became_internal_is_found_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
