/*
 * test_amqp_back_route.c - routes against a naive recomputation: random exchanges of all types, random bindings, cycles included.
 *
 * Owns: a broker and a model of its bindings.
 * Core: test.
 * Spec: AMQP 0-9-1 section 3.1.3; RabbitMQ's exchange-to-exchange bindings; the matcher's oracle for single patterns.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "amqp/header_rule.h"
#include "amqp/table.h"
#include "matcher/matcher.h"
#include "tests/unit/amqp_back_kit.h"

#define EXCHANGES 12u
#define QUEUES    24u
#define BINDINGS  160u

struct model_binding {
	bool in_use, to_exchange;
	uint32_t source, dest, rule;
	char key[64];
	uint8_t args[128];
	uint32_t args_len;
};

struct model {
	struct bk *k;
	struct bk_conn *p;
	uint64_t random;
	uint32_t rules_made;
	uint8_t type[EXCHANGES]; /* enum amqp_exchange_type */
	struct model_binding binding[BINDINGS];
	struct match_db *db[EXCHANGES]; /* and the image behind it */
	uint8_t *image[EXCHANGES];
	struct match_scratch *scratch;
};

static uint32_t any(struct model *m, uint32_t below)
{
	m->random ^= m->random << 13;
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	return (uint32_t)(m->random >> 20) % below;
}

static void random_key(struct model *m, char *out, bool pattern)
{
	static const char *const words[] = {"a", "b", "tick", "", "x1"};
	uint32_t n = any(m, 4);

	out[0] = '\0';
	for (uint32_t i = 0; i < n; i++) {
		if (i != 0)
			strcat(out, ".");
		if (pattern && any(m, 3) == 0)
			strcat(out, any(m, 2) ? "*" : "#");
		else
			strcat(out, words[any(m, 5)]);
	}
}

static uint32_t random_headers(struct model *m, uint8_t *out, bool rule)
{
	static const char *const names[] = {"sym", "ccy", "lvl", "x-h"};
	struct amqp_table_writer w;

	amqp_table_begin(&w, out, 128);
	if (rule && any(m, 2))
		amqp_table_put_cstr(&w, "x-match", any(m, 2) ? "any" : any(m, 2) ? "all-with-x" : "any-with-x");
	for (unsigned i = 0; i < 4; i++) {
		uint32_t kind = any(m, 6);

		if (kind == 0)
			amqp_table_put_i32(&w, names[i], (int32_t)any(m, 2));
		else if (kind == 1)
			amqp_table_put_cstr(&w, names[i], any(m, 2) ? "EUR" : "1");
		else if (kind == 2 && rule)
			amqp_table_put_void(&w, names[i]);
	}
	assert_false(w.overflow);
	return (uint32_t)w.len;
}

/* ---- the naive way ---- */

static bool binding_matches(const struct model *m, const struct model_binding *bd, const char *key, const uint8_t *headers,
			    uint32_t len)
{
	uint8_t rule[4096], subject[4096];
	size_t rule_len, subject_len;
	char why[160];

	switch (m->type[bd->source]) {
	case AMQP_FANOUT:
		return true;
	case AMQP_DIRECT:
		return strcmp(bd->key, key) == 0;
	case AMQP_TOPIC:
		return match_oracle(MATCH_TOPIC, (const uint8_t *)bd->key, strlen(bd->key), (const uint8_t *)key, strlen(key));
	default:
		assert_int_equal(amqp_header_rule(bd->args, bd->args_len, rule, sizeof rule, &rule_len, why, sizeof why), 0);
		assert_int_equal(amqp_header_subject(headers, len, subject, sizeof subject, &subject_len), 0);
		return match_oracle(MATCH_HEADERS, rule, rule_len, subject, subject_len);
	}
}

static void naive_route(const struct model *m, uint32_t exchange, const char *key, const uint8_t *headers, uint32_t len,
			bool *queue, bool *seen)
{
	seen[exchange] = true;
	for (uint32_t i = 0; i < BINDINGS; i++) {
		const struct model_binding *bd = &m->binding[i];

		if (!bd->in_use || bd->source != exchange || !binding_matches(m, bd, key, headers, len))
			continue;
		if (!bd->to_exchange)
			queue[bd->dest] = true;
		else if (!seen[bd->dest])
			naive_route(m, bd->dest, key, headers, len, queue, seen);
	}
}

/* ---- changes ---- */

static bool same_pattern(const struct model *m, const struct model_binding *a, const struct model_binding *b)
{
	if (m->type[a->source] != AMQP_HEADERS)
		return strcmp(a->key, b->key) == 0;
	return a->args_len == b->args_len && memcmp(a->args, b->args, a->args_len) == 0;
}

static void change_binding(struct model *m)
{
	uint32_t i = any(m, BINDINGS);
	struct model_binding *bd = &m->binding[i];

	if (bd->in_use) {
		bk_del(m->k, AMQP_OP_BIND_DEL, i);
		bd->in_use = false;
		return;
	}
	memset(bd, 0, sizeof *bd);
	bd->source = any(m, EXCHANGES);
	bd->to_exchange = any(m, 5) == 0;
	bd->dest = any(m, bd->to_exchange ? EXCHANGES : QUEUES);
	random_key(m, bd->key, m->type[bd->source] == AMQP_TOPIC);
	if (m->type[bd->source] == AMQP_HEADERS)
		bd->args_len = random_headers(m, bd->args, true);
	bd->rule = m->type[bd->source] == AMQP_FANOUT ? AMQP_ID_NONE : ++m->rules_made;
	for (uint32_t j = 0; j < BINDINGS; j++) /* control gives one id to equal patterns of an exchange */
		if (m->binding[j].in_use && m->binding[j].source == bd->source && same_pattern(m, bd, &m->binding[j]))
			bd->rule = m->binding[j].rule;
	bd->in_use = true;
	bk_bind_args(m->k, i, bd->source, bd->dest, bd->to_exchange ? AMQP_DEF_DEST_EXCHANGE : 0, bd->rule, bd->key,
		     (struct amqp_span){bd->args, bd->args_len});
}

static struct model *model_new(struct bk *k, uint64_t seed, const struct amqp_limits *l)
{
	static struct model m;

	memset(&m, 0, sizeof m);
	m.k = k;
	m.random = seed * 0x9e3779b97f4a7c15u + 1;
	bk_init(k, l);
	for (uint32_t i = 0; i < EXCHANGES; i++) {
		char name[16];

		snprintf(name, sizeof name, "x%u", i);
		m.type[i] = (uint8_t)(i % 4);
		bk_exchange(k, i, (enum amqp_exchange_type)(i % 4), name);
	}
	for (uint32_t i = 0; i < QUEUES; i++) {
		char name[16];

		snprintf(name, sizeof name, "q%u", i);
		bk_queue_args(k, i, name, 0, bk_int_arg("x-max-length", 0));
	}
	m.p = bk_connect(k, 1);
	return &m;
}

/* ---- the comparison ---- */

static void publish_and_compare(struct model *m)
{
	bool want[QUEUES] = {false}, seen[EXCHANGES] = {false};
	uint64_t before[QUEUES];
	uint8_t props[256] = {0x20, 0};
	uint32_t exchange = any(m, EXCHANGES), len = random_headers(m, props + 6, false);
	char key[64], name[16];
	bool has_headers = any(m, 4) != 0;

	random_key(m, key, false);
	amqp_set_be32(props + 2, len);
	for (uint32_t q = 0; q < QUEUES; q++)
		before[q] = m->k->b->queues[q].published;
	snprintf(name, sizeof name, "x%u", exchange);
	if (has_headers)
		bk_publish_props(m->p, 1, name, key, false, props, 6 + len, "m", 1);
	else
		bk_publish(m->p, 1, name, key, "m");
	naive_route(m, exchange, key, props + 6, has_headers ? len : 0, want, seen);
	for (uint32_t q = 0; q < QUEUES; q++)
		if (m->k->b->queues[q].published - before[q] != want[q])
			fail_msg("exchange %u key '%s': queue %u got %u, wanted %u", exchange, key, q,
				 (unsigned)(m->k->b->queues[q].published - before[q]), want[q]);
}

/* What control and the dataplane do: the exchange's rules compiled, opened, handed over at a burst boundary. */
static void compile_exchange(struct model *m, uint32_t exchange)
{
	static uint8_t keys[BINDINGS][4096];
	struct match_rule rules[BINDINGS];
	size_t count = 0, bytes;
	char err[256] = "";
	struct match_db *db;
	struct match_scratch *old;
	uint8_t *image;

	for (uint32_t i = 0; i < BINDINGS; i++) {
		const struct model_binding *bd = &m->binding[i];
		bool known = false;

		if (!bd->in_use || bd->source != exchange)
			continue;
		for (size_t j = 0; j < count; j++)
			known |= rules[j].id == bd->rule;
		if (known)
			continue;
		rules[count] = (struct match_rule){bd->rule, keys[count], strlen(bd->key)};
		memcpy(keys[count], bd->key, strlen(bd->key));
		if (m->type[exchange] == AMQP_HEADERS)
			assert_int_equal(
				amqp_header_rule(bd->args, bd->args_len, keys[count], 4096, &rules[count].len, err, sizeof err), 0);
		count++;
	}
	image = match_compile(m->type[exchange] == AMQP_TOPIC ? MATCH_TOPIC : MATCH_HEADERS, rules, count, m->rules_made, &bytes,
			      err, sizeof err);
	if (image == NULL)
		fail_msg("%s", err);
	db = match_db_open(image, bytes, err, sizeof err);
	if (db == NULL)
		fail_msg("%s", err);
	old = m->scratch;
	m->scratch = match_scratch_grow(old, db);
	assert_ptr_equal(amqp_set_scratch(m->k->b, m->scratch), old);
	if (old != NULL)
		match_scratch_free(old);
	assert_ptr_equal(amqp_take_db(m->k->b, exchange, db), m->db[exchange]);
	if (m->db[exchange] != NULL)
		match_db_close(m->db[exchange]);
	free(m->image[exchange]);
	m->db[exchange] = db;
	m->image[exchange] = image;
}

static void model_free(struct model *m)
{
	struct match_db *db;
	unsigned left = 0;

	bk_disconnect(m->p);
	assert_true(bk_apply(m->k, &(struct amqp_record){.kind = AMQP_OP_RESET}));
	for (unsigned i = 0; i < EXCHANGES; i++)
		left += m->db[i] != NULL;
	while ((db = amqp_dropped_db(m->k->b)) != NULL) {
		match_db_close(db);
		left--;
	}
	assert_int_equal(left, 0); /* every database came back to be closed */
	for (unsigned i = 0; i < EXCHANGES; i++)
		free(m->image[i]);
	assert_ptr_equal(amqp_set_scratch(m->k->b, NULL), m->scratch);
	if (m->scratch != NULL)
		match_scratch_free(m->scratch);
	bk_fini(m->k);
}

static void routes_equal_the_naive_ones_for_random_bindings_of_all_types(void **state)
{
	static struct bk k;

	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct model *m = model_new(&k, seed, NULL);

		for (unsigned step = 0; step < 400; step++) {
			change_binding(m);
			for (unsigned i = 0; i < 30; i++)
				publish_and_compare(m);
			if (step % 40 == 0)
				bk_check(&k);
		}
		assert_true(k.b->counters[AMQP_CNT_routes_cached] > 100);
		assert_true(k.b->counters[AMQP_CNT_routes_matched] > 100);
		model_free(m);
	}
}

static void routes_stay_the_same_while_databases_take_over_from_the_overlay(void **state)
{
	static struct bk k;

	(void)state;
	for (uint64_t seed = 100; seed < 103; seed++) {
		struct model *m = model_new(&k, seed, NULL);

		for (unsigned step = 0; step < 240; step++) {
			change_binding(m);
			if (step > 60 && step % 40 < 2) {
				compile_exchange(m, AMQP_TOPIC + 4 * any(m, 3));
				compile_exchange(m, AMQP_HEADERS + 4 * any(m, 3));
			}
			for (unsigned i = 0; i < 6; i++)
				publish_and_compare(m);
			bk_run(&k); /* the overlay forgets, bit by bit */
			if (step % 40 == 0)
				bk_check(&k);
		}
		assert_int_equal(k.b->forget_count, 0);
		model_free(m);
	}
}

static void tiny_route_arenas_and_caches_change_nothing_but_the_work(void **state)
{
	static struct bk k;
	struct amqp_limits l;

	(void)state;
	bk_limits(&l);
	l.queues_max = QUEUES;
	l.routes_max = 3;
	l.route_queues_max = 1;
	l.route_cache_max = 4;
	for (uint64_t seed = 200; seed < 204; seed++) {
		struct model *m = model_new(&k, seed, &l);

		for (unsigned step = 0; step < 300; step++) {
			change_binding(m);
			for (unsigned i = 0; i < 6; i++)
				publish_and_compare(m);
		}
		assert_true(k.b->counters[AMQP_CNT_route_flushes] > 100);
		bk_check(&k);
		model_free(m);
	}
}

static void a_route_is_sorted_distinct_and_one_object_for_equal_sets(void **state)
{
	static struct bk k;
	const struct amqp_route *r;
	uint32_t first;

	(void)state;
	bk_init(&k, NULL);
	bk_exchange(&k, 0, AMQP_TOPIC, "t");
	for (uint32_t i = 0; i < 100; i++) {
		char name[16];

		snprintf(name, sizeof name, "q%u", i);
		bk_queue(&k, i, name);
	}
	for (uint32_t i = 0; i < 100; i++) {
		bk_bind(&k, 2 * i, 0, (i * 37) % 100, 1, "a.#");
		bk_bind(&k, 2 * i + 1, 0, (i * 73) % 100, 2, "#.b");
	}
	r = amqp_route(k.b, 0, bk_str("a.b"), NULL);
	assert_int_equal(r->count, 100);
	first = r->first;
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(k.b->route_queues[first + i], i);
	assert_int_equal(amqp_route(k.b, 0, bk_str("a"), NULL)->first, first);
	assert_int_equal(amqp_route(k.b, 0, bk_str("x.b"), NULL)->first, first);
	assert_int_equal(k.b->routes_count, 1);
	assert_int_equal(amqp_route(k.b, 0, bk_str("c"), NULL)->count, 0);
	bk_fini(&k);
}

static void a_key_that_ticks_again_is_answered_by_the_cache_until_the_fib_changes(void **state)
{
	static struct bk k;
	const uint64_t *n;
	char long_key[200];

	(void)state;
	bk_init(&k, NULL);
	n = amqp_counters(k.b);
	bk_exchange(&k, 0, AMQP_TOPIC, "t");
	bk_queue(&k, 0, "q");
	bk_queue(&k, 1, "r");
	bk_bind(&k, 0, 0, 0, 1, "#");
	assert_int_equal(amqp_route(k.b, 0, bk_str("a"), NULL)->count, 1);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(amqp_route(k.b, 0, bk_str("a"), NULL)->count, 1);
	assert_int_equal(n[AMQP_CNT_routes_matched], 1);
	assert_int_equal(n[AMQP_CNT_routes_cached], 10);
	bk_bind(&k, 1, 0, 1, 2, "a"); /* the very next publish is routed by it */
	assert_int_equal(amqp_route(k.b, 0, bk_str("a"), NULL)->count, 2);
	bk_del(&k, AMQP_OP_BIND_DEL, 0);
	assert_int_equal(amqp_route(k.b, 0, bk_str("a"), NULL)->count, 1);
	memset(long_key, 'k', sizeof long_key);
	for (unsigned len = 100; len < 108; len++)
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(amqp_route(k.b, 0, (struct amqp_span){(uint8_t *)long_key, len}, NULL)->count, 0);
	bk_fini(&k);
}

static void the_default_exchange_routes_to_the_queue_of_that_name_in_its_vhost_alone(void **state)
{
	static struct bk k;

	(void)state;
	bk_init(&k, NULL);
	bk_default_exchange(&k, 3);
	bk_queue(&k, 5, "here");
	assert_true(bk_apply(&k, &(struct amqp_record){
					 .kind = AMQP_OP_QUEUE_ADD, .id = 6, .id2 = 1, .str = {bk_str("there"), bk_str("other")}}));
	assert_int_equal(amqp_route(k.b, 3, bk_str("here"), NULL)->count, 1);
	assert_int_equal(amqp_route(k.b, 3, bk_str("there"), NULL)->count, 0);
	assert_int_equal(amqp_route(k.b, 3, bk_str(""), NULL)->count, 0);
	bk_del(&k, AMQP_OP_QUEUE_DEL, 5);
	assert_int_equal(amqp_route(k.b, 3, bk_str("here"), NULL)->count, 0);
	bk_fini(&k);
}

static void a_cycle_of_exchanges_delivers_once(void **state)
{
	static struct bk k;
	struct bk_conn *c;

	(void)state;
	bk_init(&k, NULL);
	for (uint32_t i = 0; i < 3; i++) {
		bk_exchange(&k, i, AMQP_FANOUT, (const char *[]){"a", "b", "c"}[i]);
		bk_queue(&k, i, (const char *[]){"qa", "qb", "qc"}[i]);
		bk_bind(&k, i, i, i, AMQP_ID_NONE, "");
	}
	for (uint32_t i = 0; i < 3; i++)
		bk_bind_args(&k, 10 + i, i, (i + 1) % 3, AMQP_DEF_DEST_EXCHANGE, AMQP_ID_NONE, "", (struct amqp_span){NULL, 0});
	bk_bind_args(&k, 13, 1, 1, AMQP_DEF_DEST_EXCHANGE, AMQP_ID_NONE, "", (struct amqp_span){NULL, 0}); /* to itself */
	c = bk_connect(&k, 1);
	bk_publish(c, 1, "b", "", "m");
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(k.b->queues[i].ready_count, 1);
	bk_check(&k);
	bk_fini(&k);
}

static void a_headers_exchange_behind_another_one_sees_each_messages_own_headers(void **state)
{
	static struct bk k;
	struct bk_conn *c;

	(void)state;
	bk_init(&k, NULL);
	bk_exchange(&k, 0, AMQP_DIRECT, "front");
	bk_exchange(&k, 1, AMQP_HEADERS, "behind");
	bk_queue(&k, 0, "q");
	bk_bind_args(&k, 0, 0, 1, AMQP_DEF_DEST_EXCHANGE, 1, "k", (struct amqp_span){NULL, 0});
	bk_bind_args(&k, 1, 1, 0, 0, 1, "", bk_int_arg("lvl", 1));
	c = bk_connect(&k, 1);
	for (unsigned i = 0; i < 4; i++) /* the same exchange and key: a cached route would be wrong */
		bk_publish_props(c, 1, "front", "k", false,
				 i % 2 ? "\x20\0\0\0\0\x9\3lvlI\0\0\0\1" : "\x20\0\0\0\0\x9\3lvlI\0\0\0\2", 15, "m", 1);
	assert_int_equal(k.b->queues[0].ready_count, 2);
	bk_publish(c, 1, "front", "k", "no headers");
	assert_int_equal(k.b->queues[0].ready_count, 2);
	bk_fini(&k);
}

static void a_content_type_in_front_of_the_headers_does_not_hide_them(void **state)
{
	static struct bk k;
	struct bk_conn *c;

	(void)state;
	bk_init(&k, NULL);
	bk_exchange(&k, 0, AMQP_HEADERS, "h");
	bk_queue(&k, 0, "q");
	bk_bind_args(&k, 1, 0, 0, 0, 1, "", bk_int_arg("lvl", 1));
	c = bk_connect(&k, 1);
	bk_publish_props(c, 1, "h", "k", false, "\xe0\0\4text\2gz\0\0\0\x9\3lvlI\0\0\0\1", 23, "m", 1);
	assert_int_equal(k.b->queues[0].ready_count, 1);
	bk_publish_props(c, 1, "h", "k", false, "\xa0\0\4text\0\0\0\x9\3lvlI\0\0\0\1", 20, "m", 1);
	assert_int_equal(k.b->queues[0].ready_count, 2);
	bk_fini(&k);
}

/* ---- the dump ---- */

static uint16_t op_of(uint16_t kind)
{
	switch (kind) {
	case AMQP_REQ_DEF_EXCHANGE:
		return AMQP_OP_EXCHANGE_ADD;
	case AMQP_REQ_DEF_QUEUE:
		return AMQP_OP_QUEUE_ADD;
	case AMQP_REQ_DEF_BINDING:
		return AMQP_OP_BIND_ADD;
	default:
		return 0;
	}
}

static void assert_same_routes(struct model *m, struct bk *one, struct bk *two)
{
	for (unsigned i = 0; i < 500; i++) {
		uint32_t exchange = any(m, EXCHANGES);
		const struct amqp_route *a, *b;
		char key[64];

		if (m->type[exchange] == AMQP_HEADERS)
			continue;
		random_key(m, key, false);
		bk_publish(m->p, 1, "x3", "", "m"); /* a message for the headers exchanges behind others */
		a = amqp_route(one->b, exchange, bk_str(key), one->b->entries[one->b->queues[QUEUES].ready_first].msg);
		b = amqp_route(two->b, exchange, bk_str(key), one->b->entries[one->b->queues[QUEUES].ready_first].msg);
		assert_int_equal(a->count, b->count);
		assert_memory_equal(&one->b->route_queues[a->first], &two->b->route_queues[b->first], a->count * sizeof(uint32_t));
	}
}

static void a_dump_applied_to_another_broker_makes_the_same_routes(void **state)
{
	static struct bk one, two;
	struct model *m = model_new(&one, 77, NULL);
	struct bk_conn *owner = bk_connect(&one, 1);
	unsigned conns = 0;
	uint32_t n;

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		change_binding(m);
	bk_queue_args(&one, QUEUES, "kept", 0, bk_int_text_args("x-max-length", 1000, "x-overflow", "reject-publish"));
	assert_true(bk_apply(&one, &(struct amqp_record){.kind = AMQP_OP_QUEUE_ADD,
							 .id = QUEUES + 1,
							 .flags = AMQP_DEF_EXCLUSIVE | AMQP_DEF_AUTO_DELETE,
							 .conn_uid = owner->c->uid,
							 .str = {bk_str("own"), bk_str("/")}}));
	bk_bind_args(&one, BINDINGS, 3, QUEUES, 0, ++m->rules_made, "", (struct amqp_span){NULL, 0}); /* x3 is a headers exchange */
	one.keep_records = true;
	assert_true(bk_apply(&one, &(struct amqp_record){.kind = AMQP_OP_DUMP}));
	for (unsigned i = 0; i < 200; i++) { /* control's ring is full every other time */
		one.control_full = i % 2;
		amqp_tick(one.b);
		if (i == 4)
			assert_in_range(one.requests_count, 1, 60); /* it goes on in steps: ticks flow meanwhile */
	}
	n = one.requests_count;
	assert_int_equal(one.requests[n - 1].kind, AMQP_REQ_DUMP_END);
	bk_init(&two, NULL);
	for (uint32_t i = 0; i < n; i++) {
		struct amqp_record rec = one.requests[i];

		rec.kind = op_of(rec.kind);
		if (rec.kind != 0)
			assert_true(bk_apply(&two, &rec));
		conns += one.requests[i].kind == AMQP_REQ_DEF_CONN;
	}
	assert_int_equal(conns, 2);
	assert_int_equal(two.b->exchanges_count, one.b->exchanges_count);
	assert_int_equal(two.b->queues_count, one.b->queues_count);
	assert_int_equal(two.b->bindings_count, one.b->bindings_count);
	assert_int_equal(two.b->queues[QUEUES].max_length, 1000);
	assert_int_equal(two.b->queues[QUEUES].overflow, AMQP_OVERFLOW_REJECT_PUBLISH);
	assert_int_equal(two.b->queues[QUEUES + 1].owner_uid, owner->c->uid);
	bk_check(&two);
	assert_same_routes(m, &one, &two);
	bk_fini(&two);
	model_free(m);
}

static void notices_of_unused_queues_are_given_again_after_a_dump(void **state)
{
	static struct bk k;
	struct bk_conn *c;

	(void)state;
	bk_init(&k, NULL);
	bk_queue_args(&k, 4, "auto", AMQP_DEF_AUTO_DELETE, (struct amqp_span){NULL, 0});
	c = bk_connect(&k, 1);
	bk_consume(c, 1, "auto", "t", true);
	bk_say(c, 1, 60, 30, "t", 1u);
	bk_run(&k);
	assert_int_equal(k.requests[k.requests_count - 1].kind, AMQP_REQ_QUEUE_UNUSED);
	k.requests_count = 0; /* control dies with it */
	amqp_control_gone(k.b);
	bk_queue_args(&k, 5, "more", AMQP_DEF_AUTO_DELETE, (struct amqp_span){NULL, 0});
	bk_consume(c, 1, "more", "t", true);
	bk_say(c, 1, 60, 30, "t", 1u);
	bk_run(&k);
	assert_int_equal(k.requests_count, 0); /* nobody is there to be told */
	amqp_control_attached(k.b);
	assert_true(bk_apply(&k, &(struct amqp_record){.kind = AMQP_OP_DUMP}));
	for (unsigned i = 0; i < 20; i++)
		bk_run(&k);
	assert_int_equal(k.requests[k.requests_count - 3].kind, AMQP_REQ_DUMP_END);
	assert_int_equal(k.requests[k.requests_count - 2].kind, AMQP_REQ_QUEUE_UNUSED);
	assert_int_equal(k.requests[k.requests_count - 1].kind, AMQP_REQ_QUEUE_UNUSED);
	assert_int_equal(k.requests[k.requests_count - 2].id + k.requests[k.requests_count - 1].id, 4 + 5);
	bk_fini(&k);
}

static void very_many_notices_are_given_again_some_a_turn_and_each_once(void **state)
{
	static struct bk k;
	struct amqp_limits l;
	struct bk_conn *c;
	bool told[200] = {false};
	uint32_t turns = 0;
	char name[16];

	(void)state;
	bk_limits(&l);
	bk_init(&k, &l);
	c = bk_connect(&k, 1);
	amqp_control_gone(k.b);
	for (uint32_t i = 0; i < 200; i++) {
		snprintf(name, sizeof name, "auto%u", i);
		bk_queue_args(&k, i, name, AMQP_DEF_AUTO_DELETE, (struct amqp_span){NULL, 0});
		bk_consume(c, 1, name, "t", true);
		bk_say(c, 1, 60, 30, "t", 1u);
	}
	amqp_control_attached(k.b);
	assert_true(bk_apply(&k, &(struct amqp_record){.kind = AMQP_OP_DUMP}));
	for (uint32_t before = k.requests_count; turns < 100; turns++, before = k.requests_count) {
		k.now_ns += 1000;
		amqp_set_now(k.b, k.now_ns, 1700000000);
		amqp_tick(k.b);
		assert_true(k.requests_count - before <= 2 * 16);
		for (uint32_t i = before; i < k.requests_count; i++)
			if (k.requests[i].kind == AMQP_REQ_QUEUE_UNUSED) {
				assert_false(told[k.requests[i].id]);
				told[k.requests[i].id] = true;
			}
	}
	for (uint32_t i = 0; i < 200; i++)
		assert_true(told[i]);
	bk_fini(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(routes_equal_the_naive_ones_for_random_bindings_of_all_types),
		cmocka_unit_test(routes_stay_the_same_while_databases_take_over_from_the_overlay),
		cmocka_unit_test(tiny_route_arenas_and_caches_change_nothing_but_the_work),
		cmocka_unit_test(a_route_is_sorted_distinct_and_one_object_for_equal_sets),
		cmocka_unit_test(a_key_that_ticks_again_is_answered_by_the_cache_until_the_fib_changes),
		cmocka_unit_test(the_default_exchange_routes_to_the_queue_of_that_name_in_its_vhost_alone),
		cmocka_unit_test(a_cycle_of_exchanges_delivers_once),
		cmocka_unit_test(a_headers_exchange_behind_another_one_sees_each_messages_own_headers),
		cmocka_unit_test(a_content_type_in_front_of_the_headers_does_not_hide_them),
		cmocka_unit_test(a_dump_applied_to_another_broker_makes_the_same_routes),
		cmocka_unit_test(notices_of_unused_queues_are_given_again_after_a_dump),
		cmocka_unit_test(very_many_notices_are_given_again_some_a_turn_and_each_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
