/*
 * test_amqp_back_fib.c - operations of a control that is not trusted: every wrong id, length, type and state is refused.
 *
 * Owns: a broker with a few definitions.
 * Core: test.
 * Spec: DESIGN section 5: the dataplane treats every byte that control wrote as untrusted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "amqp/table.h"
#include "tests/unit/amqp_back_kit.h"

static struct bk *start(void)
{
	static struct bk k;

	bk_init(&k, NULL);
	bk_default_exchange(&k, 0);
	bk_exchange(&k, 1, AMQP_DIRECT, "d");
	bk_exchange(&k, 2, AMQP_HEADERS, "h");
	bk_exchange(&k, 3, AMQP_FANOUT, "f");
	bk_queue(&k, 0, "q");
	bk_bind(&k, 0, 1, 0, 7, "k");
	return &k;
}

/* Refused with that code, told to control, and nothing has changed. */
static void refused(struct bk *k, uint16_t code, struct amqp_record rec)
{
	struct amqp_usage before, after;
	uint64_t generation = k->b->fib_generation;
	uint32_t told = k->requests_count;

	amqp_usage(k->b, &before);
	assert_false(bk_apply(k, &rec));
	amqp_usage(k->b, &after);
	assert_memory_equal(&before, &after, sizeof before);
	assert_int_equal(k->b->fib_generation, generation);
	bk_run(k);
	assert_int_equal(k->requests_count, told + 1);
	assert_int_equal(k->requests[told].kind, AMQP_REQ_OP_FAILED);
	assert_int_equal(k->requests[told].code, code);
	bk_check(k);
}

#define REC(...) ((struct amqp_record){__VA_ARGS__})
#define NAMES(s) .str = {bk_str(s), bk_str("/")}
static const uint8_t no_table[] = {1, 'a', '?'};
#define BROKEN_ARGS .blob = {no_table, sizeof no_table}

static void exchanges_with_wrong_fields_are_refused(void **state)
{
	struct bk *k = start();
	static uint8_t long_name[300];
	struct amqp_record rec;

	(void)state;
	refused(k, 506, REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 64, NAMES("n")));
	refused(k, 506, REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = UINT32_MAX, NAMES("n")));
	refused(k, 541, REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 1, NAMES("n")));
	refused(k, 541, REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 9, .code = 4, NAMES("n")));
	refused(k, 541, REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 9, .flags = 0x8000, NAMES("n")));
	refused(k, 541, REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 9, NAMES("d")));
	refused(k, 541, REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 9, NAMES("n"), BROKEN_ARGS));
	rec = REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 9, NAMES("n"));
	rec.str[0] = (struct amqp_span){long_name, 256};
	refused(k, 541, rec);
	rec.str[0] = (struct amqp_span){NULL, 3};
	refused(k, 541, rec);
	rec = REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 9, NAMES("n"));
	rec.str[1] = (struct amqp_span){long_name, 256};
	refused(k, 541, rec);
	refused(k, 541, REC(.kind = AMQP_OP_EXCHANGE_DEL, .id = 9));
	refused(k, 541, REC(.kind = AMQP_OP_EXCHANGE_DEL, .id = 64));
	refused(k, 541, REC(.kind = AMQP_OP_EXCHANGE_DEL, .id = 1)); /* it has a binding */
	bk_fini(k);
}

static void queues_with_wrong_fields_are_refused(void **state)
{
	struct bk *k = start();

	(void)state;
	refused(k, 506, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 256, NAMES("n")));
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 0, NAMES("n")));
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 1, NAMES("q")));
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 1, NAMES("")));
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 1, .flags = AMQP_DEF_INTERNAL, NAMES("n")));
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 1, NAMES("n"), BROKEN_ARGS));
	refused(k, 406, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 1, NAMES("n"), .blob = bk_int_arg("x-max-length", -1)));
	refused(k, 406, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 1, NAMES("n"), .blob = bk_int_arg("x-max-length-bytes", -1)));
	refused(k, 406, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 1, NAMES("n"), .blob = bk_int_arg("x-overflow", 1)));
	refused(k, 406,
		REC(.kind = AMQP_OP_QUEUE_ADD, .id = 1, NAMES("n"),
		    .blob = bk_int_text_args("x-max-length", 1, "x-overflow", "drop")));
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_DEL, .id = 1));
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_DEL, .id = 0)); /* it has a binding */
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_PURGE, .id = 1));
	refused(k, 541, REC(.kind = AMQP_OP_QUEUE_PURGE, .id = UINT32_MAX));
	bk_fini(k);
}

static void bindings_with_wrong_fields_are_refused(void **state)
{
	struct bk *k = start();

	(void)state;
	refused(k, 506, REC(.kind = AMQP_OP_BIND_ADD, .id = 4096, .id2 = 1, .id4 = 1, NAMES("k")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 0, .id2 = 1, .id4 = 1, NAMES("k")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 9, .id4 = 1, NAMES("k")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = UINT32_MAX, .id4 = 1, NAMES("k")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 1, .id3 = 1, .id4 = 1, NAMES("k")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 1, .id3 = UINT32_MAX, .id4 = 1, NAMES("k")));
	refused(k, 541,
		REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 1, .id3 = 63, .flags = AMQP_DEF_DEST_EXCHANGE, .id4 = 1, NAMES("k")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 1, .flags = 1, .id4 = 1, NAMES("k")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 0, .id4 = 1, NAMES("k")));
	refused(k, 541,
		REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 1, .id3 = 0, .flags = AMQP_DEF_DEST_EXCHANGE, .id4 = 1, NAMES("k")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 1, .id4 = 7, NAMES("another key")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 1, .id4 = 8, NAMES("k"), BROKEN_ARGS));
	refused(k, 541,
		REC(.kind = AMQP_OP_BIND_ADD, .id = 1, .id2 = 2, .id4 = 8, NAMES("k"),
		    .blob = bk_int_text_args("a", 1, "x-match", "some")));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_DEL, .id = 1));
	refused(k, 541, REC(.kind = AMQP_OP_BIND_DEL, .id = 4096));
	refused(k, 541, REC(.kind = 200));
	bk_fini(k);
}

static void a_headers_rule_id_stands_for_one_rule_whatever_the_order_of_its_arguments(void **state)
{
	struct bk *k = start();
	uint8_t buf[64];
	struct amqp_table_writer w;

	(void)state;
	bk_bind_args(k, 1, 2, 0, 0, 5, "", bk_int_text_args("a", 1, "b", "x"));
	amqp_table_begin(&w, buf, sizeof buf);
	amqp_table_put_cstr(&w, "b", "x");
	amqp_table_put_i32(&w, "a", 1);
	bk_bind_args(k, 2, 2, 0, 0, 5, "", (struct amqp_span){buf, (uint32_t)w.len});
	refused(k, 541, REC(.kind = AMQP_OP_BIND_ADD, .id = 3, .id2 = 2, .id4 = 5, .blob = bk_int_text_args("a", 2, "b", "x")));
	bk_check(k);
	bk_fini(k);
}

static void a_rule_goes_with_its_last_binding_and_its_id_may_come_again(void **state)
{
	struct bk *k = start();

	(void)state;
	bk_queue(k, 1, "r");
	bk_bind(k, 1, 1, 1, 7, "k"); /* shares the rule of binding 0 */
	bk_del(k, AMQP_OP_BIND_DEL, 0);
	assert_int_equal(amqp_route(k->b, 1, bk_str("k"), NULL)->count, 1);
	bk_del(k, AMQP_OP_BIND_DEL, 1);
	assert_int_equal(amqp_route(k->b, 1, bk_str("k"), NULL)->count, 0);
	bk_bind(k, 1, 1, 1, 7, "another");
	assert_int_equal(amqp_route(k->b, 1, bk_str("another"), NULL)->count, 1);
	bk_check(k);
	bk_fini(k);
}

static void pools_that_run_out_refuse_with_506_and_work_again_when_something_goes(void **state)
{
	struct amqp_limits l;
	static struct bk k;
	char key[32];
	uint32_t n = 0;

	(void)state;
	bk_limits(&l);
	l.rules_max = 8;
	bk_init(&k, &l);
	bk_exchange(&k, 0, AMQP_DIRECT, "d");
	bk_queue(&k, 0, "q");
	for (; n < 8; n++) {
		snprintf(key, sizeof key, "k%u", n);
		bk_bind(&k, n, 0, 0, n + 1, key);
	}
	refused(&k, 506, REC(.kind = AMQP_OP_BIND_ADD, .id = 8, .id2 = 0, .id4 = 99, NAMES("more")));
	bk_del(&k, AMQP_OP_BIND_DEL, 3);
	bk_bind(&k, 8, 0, 0, 99, "more");
	bk_check(&k);
	bk_fini(&k);
}

static void names_and_tables_without_memory_are_refused_with_506(void **state)
{
	struct bk *k = start();
	void *held[64];
	unsigned n = 0;
	size_t bytes = 1u << 23;

	(void)state;
	while (bytes >= 256 && n < 64) {
		held[n] = amqp_pool_alloc(k->b->pool, bytes);
		if (held[n] != NULL)
			n++;
		else
			bytes /= 2;
	}
	refused(k, 506, REC(.kind = AMQP_OP_EXCHANGE_ADD, .id = 9, NAMES("n")));
	refused(k, 506, REC(.kind = AMQP_OP_QUEUE_ADD, .id = 9, NAMES("n")));
	refused(k, 506, REC(.kind = AMQP_OP_BIND_ADD, .id = 9, .id2 = 1, .id4 = 9, NAMES("n")));
	refused(k, 506, REC(.kind = AMQP_OP_BIND_ADD, .id = 9, .id2 = 2, .id4 = 9, NAMES("n"), .blob = bk_int_arg("a", 1)));
	refused(k, 506, REC(.kind = AMQP_OP_BIND_ADD, .id = 9, .id2 = 3, .id4 = AMQP_ID_NONE, NAMES("n")));
	while (n > 0)
		amqp_pool_free(k->b->pool, held[--n]);
	bk_exchange(k, 9, AMQP_TOPIC, "n");
	bk_fini(k);
}

static void an_operators_purge_empties_the_queue_and_changes_no_route(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);
	uint64_t generation = k->b->fib_generation;

	(void)state;
	bk_publish(c, 1, "d", "k", "m");
	bk_del(k, AMQP_OP_QUEUE_PURGE, 0);
	assert_int_equal(k->b->queues[0].ready_count, 0);
	assert_int_equal(k->b->fib_generation, generation);
	bk_fini(k);
}

static void a_reset_forgets_everything_and_control_programs_from_scratch(void **state)
{
	struct bk *k = start();
	struct bk_conn *c = bk_connect(k, 1);

	(void)state;
	bk_consume(c, 1, "q", "t", false);
	bk_publish(c, 1, "d", "k", "m");
	bk_run(k);
	bk_read(c);
	assert_true(bk_apply(k, &REC(.kind = AMQP_OP_RESET)));
	bk_check(k);
	bk_assert_read(c, "1 basic.cancel(t, 1)\n");
	bk_publish(c, 1, "d", "k", "m");
	bk_assert_read(c, "1 channel.close(404, NOT_FOUND - no exchange 'd' in vhost '/', 60, 40)\n");
	bk_exchange(k, 1, AMQP_FANOUT, "d");
	bk_check(k);
	bk_fini(k);
}

/* ---- any record at all ---- */

static uint32_t any(uint64_t *s, uint32_t below)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return (uint32_t)(*s >> 20) % below;
}

static void random_record(uint64_t *s, struct amqp_record *rec)
{
	static const char *const names[] = {"", "a", "b", "c", "a.*", "#"};
	static uint8_t noise[64];
	static const uint16_t kinds[] = {AMQP_OP_EXCHANGE_ADD, AMQP_OP_QUEUE_ADD, AMQP_OP_BIND_ADD,     AMQP_OP_BIND_ADD,
					 AMQP_OP_BIND_DEL,     AMQP_OP_QUEUE_DEL, AMQP_OP_EXCHANGE_DEL, AMQP_OP_QUEUE_PURGE};

	memset(rec, 0, sizeof *rec);
	rec->kind = kinds[any(s, 8)];
	rec->code = (uint16_t)any(s, 5);
	rec->id = any(s, rec->kind == AMQP_OP_BIND_ADD || rec->kind == AMQP_OP_BIND_DEL ? 60 : 9);
	rec->id2 = any(s, rec->kind == AMQP_OP_BIND_ADD ? 9 : 2);
	rec->id3 = any(s, 9);
	rec->id4 = any(s, 12);
	if (any(s, 3) == 0)
		rec->flags = 1u << any(s, 10);
	rec->str[0] = bk_str(names[any(s, 6)]);
	rec->str[1] = bk_str("/");
	if (any(s, 3) == 0)
		rec->blob = bk_int_arg(any(s, 2) ? "x-max-length" : "h", (int32_t)any(s, 3));
	if (any(s, 20) == 0) {
		for (unsigned i = 0; i < sizeof noise; i++)
			noise[i] = (uint8_t)any(s, 256);
		rec->blob = (struct amqp_span){noise, any(s, sizeof noise)};
	}
	if (any(s, 40) == 0)
		rec->id = rec->id2 = rec->id3 = UINT32_MAX - any(s, 3);
}

static void random_operations_between_publishes_break_nothing(void **state)
{
	static struct bk k;
	static const char *const names[] = {"", "a", "b", "c"};
	uint64_t s = 4711, taken = 0;

	(void)state;
	bk_init(&k, NULL);
	for (unsigned i = 0; i < 20000; i++) {
		struct amqp_record rec;
		struct bk_conn *c;

		random_record(&s, &rec);
		taken += bk_apply(&k, &rec);
		if (any(&s, 500) == 0)
			taken += bk_apply(&k, &(struct amqp_record){.kind = AMQP_OP_RESET});
		k.requests_count = 0;
		if (i % 8 != 0)
			continue;
		c = bk_connect(&k, 2);
		bk_publish(c, 1, names[any(&s, 4)], names[any(&s, 4)], "m");
		bk_consume(c, 2, names[1 + any(&s, 3)], "t", any(&s, 2));
		if (any(&s, 2))
			bk_disconnect(c);
		if (i % 400 == 0) {
			for (unsigned n = 0; n < BK_CONNS; n++)
				bk_disconnect(&k.conn[n]);
			bk_run(&k);
		}
		if (i % 100 == 0)
			bk_check(&k);
		for (unsigned n = 0, live = 0; n < BK_CONNS; n++) {
			live += k.conn[n].c != NULL;
			if (live == 40)
				bk_disconnect(&k.conn[n]);
		}
	}
	assert_true(taken > 2000);
	bk_fini(&k);
}

static void limits_that_cannot_work_are_refused_with_a_sentence(void **state)
{
	static uint8_t small[64];
	struct amqp_limits l;
	struct amqp_broker b;
	const char *err = NULL;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		bk_limits(&l);
		*(uint32_t *[]){&l.queues_max, &l.entries_max, &l.rules_max, &l.consumers_max, &l.message_bytes_max}[i] =
			(uint32_t[]){0, 255, UINT32_MAX, UINT32_MAX, 16u << 20}[i];
		memset(&b, 0, sizeof b);
		b.limits = l;
		assert_false(amqp_back_init(&b, small, sizeof small, &err));
		assert_non_null(err);
	}
	bk_limits(&l);
	memset(&b, 0, sizeof b);
	b.limits = l;
	assert_false(amqp_back_init(&b, small, sizeof small, &err));
	assert_string_equal(err, "too little memory for queues, messages and definitions");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exchanges_with_wrong_fields_are_refused),
		cmocka_unit_test(queues_with_wrong_fields_are_refused),
		cmocka_unit_test(bindings_with_wrong_fields_are_refused),
		cmocka_unit_test(a_headers_rule_id_stands_for_one_rule_whatever_the_order_of_its_arguments),
		cmocka_unit_test(a_rule_goes_with_its_last_binding_and_its_id_may_come_again),
		cmocka_unit_test(pools_that_run_out_refuse_with_506_and_work_again_when_something_goes),
		cmocka_unit_test(names_and_tables_without_memory_are_refused_with_506),
		cmocka_unit_test(an_operators_purge_empties_the_queue_and_changes_no_route),
		cmocka_unit_test(a_reset_forgets_everything_and_control_programs_from_scratch),
		cmocka_unit_test(random_operations_between_publishes_break_nothing),
		cmocka_unit_test(limits_that_cannot_work_are_refused_with_a_sentence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
