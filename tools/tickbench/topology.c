/* What a load declares on the broker: the exchange, one queue a subscriber, its bindings, its consumer.
 * Runs inside tickbench before the clock starts; binds are pipelined in batches, everything else is a synchronous call.
 * Specification: AMQP 0-9-1, classes exchange, queue, basic; RabbitMQ's confirm class. */
#include "tools/tickbench/load.h"

#include <stdio.h>

#define BIND_BATCH 128

static const char *const type_names[TB_TYPE_COUNT] = {"direct", "fanout", "topic", "headers"};

const char *tb_type_name(enum tb_type type)
{
	return type_names[type];
}

void tb_symbol_key(char *out, size_t size, uint32_t symbol)
{
	snprintf(out, size, "md.S%05u.trade", symbol);
}

bool tb_topology_exchange(struct tb_conn *c, const struct tb_load *load, const char *exchange)
{
	struct tb_frame f;

	tb_method_begin(&c->out, 1, TB_EXCHANGE_DECLARE);
	tb_put16(&c->out, 0);
	tb_put_shortstr(&c->out, exchange);
	tb_put_shortstr(&c->out, tb_type_name(load->type));
	tb_put8(&c->out, 0x04); /* auto-delete: a killed tickbench leaves nothing behind */
	tb_put32(&c->out, 0);
	tb_frame_finish(&c->out);
	if (!tb_conn_expect(c, TB_EXCHANGE_DECLARE_OK, &f, "exchange.declare"))
		return false;
	if (!load->confirm)
		return true;
	tb_method_begin(&c->out, 1, TB_CONFIRM_SELECT);
	tb_put8(&c->out, 0);
	tb_frame_finish(&c->out);
	return tb_conn_expect(c, TB_CONFIRM_SELECT_OK, &f, "confirm.select");
}

void tb_topology_remove(struct tb_conn *c, const char *exchange)
{
	struct tb_frame f;

	if (!c->connected || c->failed)
		return;
	tb_method_begin(&c->out, 1, TB_EXCHANGE_DELETE);
	tb_put16(&c->out, 0);
	tb_put_shortstr(&c->out, exchange);
	tb_put8(&c->out, 0);
	tb_frame_finish(&c->out);
	tb_conn_expect(c, TB_EXCHANGE_DELETE_OK, &f, "exchange.delete");
}

/* Binding number i of a queue: first those that every tick needs, then the extra matching ones, then those that never match. */
struct binding {
	char key[64];
	const char *x_match; /* headers: with kind, symbol and lot where set */
	bool kind;
	char symbol[32];
	char lot[16]; /* a field that no tick carries: it keeps bindings apart */
};

static uint32_t needed_bindings(const struct tb_load *load)
{
	return load->type == TB_TYPE_DIRECT ? load->symbols : 1;
}

static void needed_binding(const struct tb_load *load, uint32_t i, struct binding *b)
{
	if (load->type == TB_TYPE_DIRECT)
		tb_symbol_key(b->key, sizeof(b->key), i);
	else if (load->type == TB_TYPE_TOPIC)
		snprintf(b->key, sizeof(b->key), "md.*.trade");
	b->x_match = "all";
	b->kind = true;
}

static void matching_binding(const struct tb_load *load, uint32_t i, struct binding *b)
{
	/* Different patterns for one and the same set of keys, so that no broker can fold them into one. */
	static const char *const before[TB_TOPIC_SHAPES] = {"*", "#", "md", "*", "#", "#"};
	static const char *const after[TB_TOPIC_SHAPES] = {"#", "*", "#", "*", "trade", "#"};
	uint32_t shape = i / load->symbols % TB_TOPIC_SHAPES;

	if (load->type == TB_TYPE_TOPIC)
		snprintf(b->key, sizeof(b->key), "%s.S%05u.%s", before[shape], i % load->symbols, after[shape]);
	else
		snprintf(b->key, sizeof(b->key), "extra.%u", i);
	b->x_match = "any";
	snprintf(b->symbol, sizeof(b->symbol), "S%05u", i % load->symbols);
	snprintf(b->lot, sizeof(b->lot), "%u", i);
}

static void idle_binding(const struct tb_load *load, uint32_t queue, uint32_t i, struct binding *b)
{
	if (load->type == TB_TYPE_TOPIC)
		snprintf(b->key, sizeof(b->key), "*.N%u-%u.#", queue, i);
	else
		snprintf(b->key, sizeof(b->key), "md.N%u-%u.trade", queue, i);
	b->x_match = "all";
	b->kind = true;
	snprintf(b->symbol, sizeof(b->symbol), "N%u-%u", queue, i);
}

static void put_bind(struct tb_out *o, const struct tb_load *load, const char *queue, const char *exchange, const struct binding *b)
{
	tb_method_begin(o, 1, TB_QUEUE_BIND);
	tb_put16(o, 0);
	tb_put_shortstr(o, queue);
	tb_put_shortstr(o, exchange);
	tb_put_shortstr(o, b->key);
	tb_put8(o, 0);
	size_t table = tb_put_block_begin(o);
	if (load->type == TB_TYPE_HEADERS) {
		tb_put_field_text(o, "x-match", b->x_match);
		if (b->kind)
			tb_put_field_text(o, "kind", "trade");
		if (b->symbol[0])
			tb_put_field_text(o, "symbol", b->symbol);
		if (b->lot[0])
			tb_put_field_text(o, "lot", b->lot);
	}
	tb_put_block_end(o, table);
	tb_frame_finish(o);
}

static bool bind_all(struct tb_sub *s, const struct tb_load *load, const char *exchange, uint32_t index)
{
	uint32_t needed = needed_bindings(load);
	uint32_t matching = load->type == TB_TYPE_DIRECT ? 0 : load->matching_bindings;
	uint32_t total = needed + matching + load->bindings, asked = 0, answered = 0;
	struct tb_frame f;

	while (answered < total) {
		while (asked < total && asked - answered < BIND_BATCH) {
			struct binding b = {.x_match = "all"};
			if (asked < needed)
				needed_binding(load, asked, &b);
			else if (asked < needed + matching)
				matching_binding(load, asked - needed, &b);
			else
				idle_binding(load, index, asked - needed - matching, &b);
			put_bind(&s->conn.out, load, s->queue, exchange, &b);
			asked++;
		}
		if (!tb_conn_expect(&s->conn, TB_QUEUE_BIND_OK, &f, "queue.bind"))
			return false;
		answered++;
	}
	return true;
}

static bool declare_queue(struct tb_sub *s, const struct tb_load *load, uint32_t index)
{
	struct tb_conn *c = &s->conn;
	struct tb_frame f;
	char name[256] = "";

	if (load->name)
		snprintf(name, sizeof(name), "%.200s-%s-q%u", load->name, tb_type_name(load->type), index);
	tb_method_begin(&c->out, 1, TB_QUEUE_DECLARE);
	tb_put16(&c->out, 0);
	tb_put_shortstr(&c->out, name);
	tb_put8(&c->out, 0x04 | 0x08); /* exclusive, auto-delete */
	tb_put32(&c->out, 0);
	tb_frame_finish(&c->out);
	if (!tb_conn_expect(c, TB_QUEUE_DECLARE_OK, &f, "queue.declare"))
		return false;
	struct tb_args a = tb_args_of(&f);
	tb_args_shortstr(&a, s->queue, sizeof(s->queue));
	if (a.bad || !s->queue[0])
		return tb_conn_fail(c, TB_EXIT_PROTOCOL, "queue.declare-ok names no queue");
	return true;
}

bool tb_topology_queue(struct tb_sub *s, const struct tb_load *load, const char *exchange, uint32_t index)
{
	struct tb_conn *c = &s->conn;
	struct tb_frame f;

	if (!declare_queue(s, load, index) || !bind_all(s, load, exchange, index))
		return false;
	if (load->prefetch) {
		tb_method_begin(&c->out, 1, TB_BASIC_QOS);
		tb_put32(&c->out, 0);
		tb_put16(&c->out, (uint16_t)load->prefetch);
		tb_put8(&c->out, 0);
		tb_frame_finish(&c->out);
		if (!tb_conn_expect(c, TB_BASIC_QOS_OK, &f, "basic.qos"))
			return false;
	}
	tb_method_begin(&c->out, 1, TB_BASIC_CONSUME);
	tb_put16(&c->out, 0);
	tb_put_shortstr(&c->out, s->queue);
	tb_put_shortstr(&c->out, "");
	tb_put8(&c->out, load->ack ? 0x00 : 0x02); /* no-ack unless consumers acknowledge */
	tb_put32(&c->out, 0);
	tb_frame_finish(&c->out);
	return tb_conn_expect(c, TB_BASIC_CONSUME_OK, &f, "basic.consume");
}
