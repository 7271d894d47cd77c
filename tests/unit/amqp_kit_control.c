/*
 * amqp_kit_control.c - a control plane in small: users, one vhost, exchanges, queues and bindings, as operations and replies.
 *
 * Owns: the definitions in struct kit.
 * Core: test.
 * Spec: amqp/records.h; what it refuses and how is said by control's own tests.
 */
#include "tests/unit/amqp_kit_control.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/table.h"

static bool span_is(struct amqp_span s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.ptr, text, s.len) == 0;
}

/* ---- requests ---- */

static struct amqp_span copy_span(uint8_t **at, struct amqp_span s)
{
	struct amqp_span copy = {*at, s.len};

	if (s.len != 0)
		memcpy(*at, s.ptr, s.len);
	*at += s.len;
	return copy;
}

static bool is_notice(uint16_t kind)
{
	return kind >= AMQP_REQ_CONN_GONE && kind <= AMQP_REQ_DUMP_END;
}

static void notice(struct kit *k, const struct amqp_record *rec)
{
	/* Exclusive queues go with their connection; their bindings first. */
	for (uint32_t i = 0; rec->kind == AMQP_REQ_CONN_GONE && i < KIT_OBJECTS; i++) {
		struct amqp_record op = {.kind = AMQP_OP_QUEUE_DEL, .id = i};

		if (!k->queue[i].in_use || k->queue[i].owner != rec->conn_uid)
			continue;
		for (uint32_t n = 0; n < KIT_OBJECTS; n++)
			if (k->binding[n].in_use && !k->binding[n].to_exchange && k->binding[n].dest == i) {
				struct amqp_record unbind = {.kind = AMQP_OP_BIND_DEL, .id = n};

				k->binding[n].in_use = false;
				amqp_apply(k->b, &unbind);
			}
		k->queue[i].in_use = false;
		amqp_apply(k->b, &op);
	}
}

bool kit_on_request(void *ctx, const struct amqp_record *rec)
{
	struct kit *k = ctx;
	struct kit_request *r;
	size_t bytes = rec->blob.len + 1;
	uint8_t *at;

	if (k->away || k->requests_count == KIT_REQUESTS)
		return false;
	assert(rec->kind < AMQP_OP_EXCHANGE_ADD);
	k->requests_seen[rec->kind]++;
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		bytes += rec->str[i].len;
	r = &k->requests[k->requests_count++];
	r->rec = *rec;
	r->bytes = at = malloc(bytes);
	assert(at != NULL);
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		r->rec.str[i] = copy_span(&at, rec->str[i]);
	r->rec.blob = copy_span(&at, rec->blob);
	if (k->synchronous)
		kit_answer(k);
	return true;
}

/* ---- answers ---- */

static void reply(struct kit *k, const struct amqp_record *q, uint16_t code, const char *text, uint32_t id, const char *name)
{
	struct amqp_record op = {.kind = AMQP_OP_REPLY, .code = code, .token = q->token, .conn_uid = q->conn_uid, .id = id};

	op.str[0] = amqp_text(text);
	op.str[1] = amqp_text(name);
	amqp_apply(k->b, &op);
}

static uint32_t find(const struct kit_object *o, struct amqp_span name)
{
	for (uint32_t i = 0; i < KIT_OBJECTS; i++)
		if (o[i].in_use && span_is(name, o[i].name))
			return i;
	return AMQP_ID_NONE;
}

static uint32_t make(struct kit_object *o, struct amqp_span name, struct amqp_span type, uint32_t flags, uint64_t owner)
{
	for (uint32_t i = 0; i < KIT_OBJECTS; i++) {
		if (o[i].in_use)
			continue;
		memset(&o[i], 0, sizeof o[i]);
		o[i].in_use = true;
		o[i].flags = flags;
		o[i].owner = owner;
		snprintf(o[i].name, sizeof o[i].name, "%.*s", AMQP_SPAN_ARG(name));
		snprintf(o[i].type, sizeof o[i].type, "%.*s", AMQP_SPAN_ARG(type));
		return i;
	}
	return AMQP_ID_NONE;
}

static void missing(struct kit *k, const struct amqp_record *q, const char *what, struct amqp_span name)
{
	char text[512];

	snprintf(text, sizeof text, "NOT_FOUND - no %s '%.*s' in vhost '/'", what, AMQP_SPAN_ARG(name));
	reply(k, q, 404, text, AMQP_ID_NONE, "");
}

static int exchange_type(struct amqp_span s)
{
	static const char *const names[] = {"direct", "fanout", "topic", "headers"};

	for (int i = 0; i < 4; i++)
		if (span_is(s, names[i]))
			return i;
	return -1;
}

static bool add_exchange(struct kit *k, uint32_t id, uint64_t token)
{
	struct amqp_record op = {.kind = AMQP_OP_EXCHANGE_ADD, .id = id, .token = token, .flags = k->exchange[id].flags};

	op.code = (uint16_t)exchange_type(amqp_text(k->exchange[id].type));
	op.str[0] = amqp_text(k->exchange[id].name);
	op.str[1] = amqp_text("/");
	return amqp_apply(k->b, &op);
}

static void exchange_declare(struct kit *k, const struct amqp_record *q)
{
	uint32_t id = find(k->exchange, q->str[0]);

	if (q->flags & AMQP_DEF_PASSIVE) {
		if (id == AMQP_ID_NONE)
			missing(k, q, "exchange", q->str[0]);
		else
			reply(k, q, 0, "", id, "");
		return;
	}
	if (exchange_type(q->str[1]) < 0) {
		reply(k, q, 503, "COMMAND_INVALID - unknown exchange type", AMQP_ID_NONE, "");
		return;
	}
	if (id != AMQP_ID_NONE && !span_is(q->str[1], k->exchange[id].type)) {
		reply(k, q, 406, "PRECONDITION_FAILED - inequivalent arg 'type'", AMQP_ID_NONE, "");
		return;
	}
	if (id == AMQP_ID_NONE) {
		id = make(k->exchange, q->str[0], q->str[1], q->flags, 0);
		if (id == AMQP_ID_NONE) {
			reply(k, q, 506, "RESOURCE_ERROR - full", id, "");
			return;
		}
		add_exchange(k, id, q->token);
	}
	reply(k, q, 0, "", id, "");
}

static void unbind_all(struct kit *k, uint32_t id, bool is_exchange)
{
	for (uint32_t n = 0; n < KIT_OBJECTS; n++) {
		struct kit_binding *bd = &k->binding[n];
		struct amqp_record op = {.kind = AMQP_OP_BIND_DEL, .id = n};

		if (!bd->in_use || !((is_exchange && bd->source == id) || (bd->to_exchange == is_exchange && bd->dest == id)))
			continue;
		bd->in_use = false;
		amqp_apply(k->b, &op);
	}
}

static void exchange_delete(struct kit *k, const struct amqp_record *q)
{
	uint32_t id = find(k->exchange, q->str[0]);
	struct amqp_record op = {.kind = AMQP_OP_EXCHANGE_DEL, .id = id, .token = q->token};

	if (id != AMQP_ID_NONE) {
		unbind_all(k, id, true);
		k->exchange[id].in_use = false;
		amqp_apply(k->b, &op);
	}
	reply(k, q, 0, "", id, "");
}

static void queue_declare(struct kit *k, const struct amqp_record *q)
{
	uint32_t id = find(k->queue, q->str[0]);
	struct amqp_record op = {.kind = AMQP_OP_QUEUE_ADD, .token = q->token, .flags = q->flags, .blob = q->blob};
	char made[64];
	struct amqp_span name = q->str[0];

	if (id == AMQP_ID_NONE && q->flags & AMQP_DEF_PASSIVE) {
		missing(k, q, "queue", name);
		return;
	}
	if (id != AMQP_ID_NONE && k->queue[id].owner != 0 && k->queue[id].owner != q->conn_uid) {
		reply(k, q, 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue", AMQP_ID_NONE, "");
		return;
	}
	if (id == AMQP_ID_NONE) {
		if (name.len == 0) {
			snprintf(made, sizeof made, "amq.gen-%u", ++k->names_made);
			name = amqp_text(made);
		}
		op.conn_uid = q->flags & AMQP_DEF_EXCLUSIVE ? q->conn_uid : 0;
		id = make(k->queue, name, KIT_EMPTY, q->flags, op.conn_uid);
		if (id == AMQP_ID_NONE) {
			reply(k, q, 506, "RESOURCE_ERROR - full", id, "");
			return;
		}
		op.id = k->bad_op ? 1u << 30 : id;
		op.str[0] = name;
		op.str[1] = amqp_text("/");
		if (!amqp_apply(k->b, &op))
			k->queue[id].in_use = false;
		k->bad_op = false;
	}
	reply(k, q, 0, "", id, k->queue[id].name);
}

static void queue_delete(struct kit *k, const struct amqp_record *q)
{
	uint32_t id = find(k->queue, q->str[0]);
	struct amqp_record op = {.kind = AMQP_OP_QUEUE_DEL, .id = id, .token = q->token};

	if (id != AMQP_ID_NONE) {
		unbind_all(k, id, false);
		k->queue[id].in_use = false;
		amqp_apply(k->b, &op);
	}
	reply(k, q, 0, "", id, "");
}

static uint32_t find_binding(const struct kit *k, uint32_t source, uint32_t dest, bool to_exchange, struct amqp_span key)
{
	for (uint32_t n = 0; n < KIT_OBJECTS; n++) {
		const struct kit_binding *bd = &k->binding[n];

		if (bd->in_use && bd->source == source && bd->dest == dest && bd->to_exchange == to_exchange &&
		    span_is(key, bd->key))
			return n;
	}
	return AMQP_ID_NONE;
}

static bool add_binding(struct kit *k, const struct amqp_record *q, uint32_t source, uint32_t dest, bool to_exchange)
{
	uint32_t id = 0;
	struct amqp_record op = {.kind = AMQP_OP_BIND_ADD, .token = q->token, .id2 = source, .id3 = dest, .blob = q->blob};

	while (id < KIT_OBJECTS && k->binding[id].in_use)
		id++;
	if (id == KIT_OBJECTS)
		return false;
	op.id = id;
	op.id4 = strcmp(k->exchange[source].type, "fanout") == 0 ? AMQP_ID_NONE : id;
	op.flags = to_exchange ? AMQP_DEF_DEST_EXCHANGE : 0;
	op.str[0] = q->str[2];
	k->binding[id] = (struct kit_binding){.in_use = true, .to_exchange = to_exchange, .source = source, .dest = dest};
	snprintf(k->binding[id].key, sizeof k->binding[id].key, "%.*s", AMQP_SPAN_ARG(q->str[2]));
	if (!amqp_apply(k->b, &op))
		k->binding[id].in_use = false;
	return true;
}

static void bind_or_unbind(struct kit *k, const struct amqp_record *q)
{
	bool to_exchange = q->kind == AMQP_REQ_EXCHANGE_BIND || q->kind == AMQP_REQ_EXCHANGE_UNBIND;
	bool bind = q->kind == AMQP_REQ_EXCHANGE_BIND || q->kind == AMQP_REQ_QUEUE_BIND;
	uint32_t dest = find(to_exchange ? k->exchange : k->queue, q->str[0]), source = find(k->exchange, q->str[1]), id;

	if (bind && (dest == AMQP_ID_NONE || source == AMQP_ID_NONE)) {
		if (dest == AMQP_ID_NONE)
			missing(k, q, to_exchange ? "exchange" : "queue", q->str[0]);
		else
			missing(k, q, "exchange", q->str[1]);
		return;
	}
	id = find_binding(k, source, dest, to_exchange, q->str[2]);
	if (bind && id == AMQP_ID_NONE && !add_binding(k, q, source, dest, to_exchange)) {
		reply(k, q, 506, "RESOURCE_ERROR - full", AMQP_ID_NONE, "");
		return;
	}
	if (!bind && id != AMQP_ID_NONE) {
		struct amqp_record op = {.kind = AMQP_OP_BIND_DEL, .id = id, .token = q->token};

		k->binding[id].in_use = false;
		amqp_apply(k->b, &op);
	}
	reply(k, q, 0, "", AMQP_ID_NONE, "");
}

static bool login_ok(const struct amqp_record *q)
{
	static const uint8_t guest[] = "\0guest\0guest", renewed[] = "\0guest\0new secret";
	struct amqp_field user, password;

	if (span_is(q->str[0], "AMQPLAIN"))
		return amqp_table_check(q->blob.ptr, q->blob.len, NULL) == 0 &&
		       amqp_table_find(q->blob.ptr, q->blob.len, "LOGIN", &user) &&
		       amqp_table_find(q->blob.ptr, q->blob.len, "PASSWORD", &password) && span_is(user.value, "guest") &&
		       span_is(password.value, "guest");
	return (q->blob.len == sizeof guest - 1 && memcmp(q->blob.ptr, guest, q->blob.len) == 0) ||
	       (q->blob.len == sizeof renewed - 1 && memcmp(q->blob.ptr, renewed, q->blob.len) == 0);
}

static void answer(struct kit *k, const struct amqp_record *q)
{

	switch ((enum amqp_record_kind)q->kind) {
	case AMQP_REQ_LOGIN:
		if (login_ok(q))
			reply(k, q, 0, "", 0, "guest");
		else
			reply(k, q, 403, "ACCESS_REFUSED - wrong password", 0, "");
		break;
	case AMQP_REQ_OPEN:
		if (span_is(q->str[0], "/"))
			reply(k, q, 0, "", 0, "");
		else
			reply(k, q, 530, "NOT_ALLOWED - vhost not found", AMQP_ID_NONE, "");
		break;
	case AMQP_REQ_EXCHANGE_DECLARE:
		exchange_declare(k, q);
		break;
	case AMQP_REQ_EXCHANGE_DELETE:
		exchange_delete(k, q);
		break;
	case AMQP_REQ_QUEUE_DECLARE:
		queue_declare(k, q);
		break;
	case AMQP_REQ_QUEUE_DELETE:
		queue_delete(k, q);
		break;
	case AMQP_REQ_EXCHANGE_BIND:
	case AMQP_REQ_EXCHANGE_UNBIND:
	case AMQP_REQ_QUEUE_BIND:
	case AMQP_REQ_QUEUE_UNBIND:
		bind_or_unbind(k, q);
		break;
	default:
		assert(is_notice(q->kind));
		notice(k, q);
		break;
	}
}

bool kit_answer(struct kit *k)
{
	struct kit_request r;

	if (k->requests_count == 0)
		return false;
	r = k->requests[0];
	k->requests_count--;
	memmove(k->requests, k->requests + 1, k->requests_count * sizeof k->requests[0]);
	answer(k, &r.rec);
	free(r.bytes);
	return true;
}

void kit_drop_requests(struct kit *k)
{
	while (k->requests_count != 0)
		free(k->requests[--k->requests_count].bytes);
}

/* ---- control comes and goes ---- */

void kit_control_lost(struct kit *k)
{
	k->away = true;
	kit_drop_requests(k);
	amqp_control_gone(k->b);
}

void kit_control_back(struct kit *k)
{
	struct amqp_record op = {.kind = AMQP_OP_DUMP};

	k->away = false;
	amqp_control_attached(k->b);
	amqp_apply(k->b, &op);
}

/* ---- the broker ---- */

void kit_limits(struct amqp_limits *l)
{
	amqp_limits_default(l);
	l->conns_max = 8;
	l->channels_max = 64;
	l->consumers_max = 32;
	l->exchanges_max = KIT_OBJECTS;
	l->queues_max = KIT_OBJECTS;
	l->bindings_max = 64;
	l->entries_max = 256;
	l->message_pool_bytes = 1u << 20;
	l->message_bytes_max = 200000;
	l->routes_max = 64;
	l->route_queues_max = 256;
	l->route_cache_max = 64;
	l->rules_max = 64;
	l->rule_nodes_max = 1024;
	l->rule_key_bytes_max = 1u << 16;
	snprintf(l->cluster_name, sizeof l->cluster_name, "kit");
}

void kit_init(struct kit *k, const struct amqp_limits *l)
{
	static const char *const names[] = {"", "amq.direct", "amq.fanout", "amq.topic", "amq.headers"};
	static const char *const types[] = {"direct", "direct", "fanout", "topic", "headers"};
	const char *err = NULL;
	size_t bytes;

	memset(k, 0, sizeof *k);
	if (l != NULL)
		k->limits = *l;
	else
		kit_limits(&k->limits);
	bytes = amqp_broker_bytes(&k->limits);
	k->mem = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
	assert(k->mem != NULL);
	memset(k->mem, 0, bytes);
	k->b = amqp_broker_init(k->mem, bytes, &k->limits, &kit_ops, k, &err);
	if (k->b == NULL) {
		fprintf(stderr, "no broker: %s\n", err);
		abort();
	}
	k->now_ns = KIT_SECOND;
	amqp_set_now(k->b, k->now_ns, 1700000001);
	amqp_control_attached(k->b);
	for (uint32_t i = 0; i < 5; i++) {
		make(k->exchange, amqp_text(names[i]), amqp_text(types[i]), AMQP_DEF_DURABLE | (i == 0 ? AMQP_DEF_DEFAULT : 0), 0);
		if (!add_exchange(k, i, 0))
			abort();
	}
	kit_run(k);
	k->pool_baseline = amqp_pool_used(k->b->pool);
}

/* Control takes its definitions back, so that only what leaked remains. */
static void forget_definitions(struct kit *k)
{
	for (uint32_t i = 0; i < KIT_OBJECTS; i++)
		unbind_all(k, i, true); /* those between exchanges that stay, too */
	for (uint32_t i = 0; i < KIT_OBJECTS; i++) {
		struct amqp_record op = {.kind = AMQP_OP_QUEUE_DEL, .id = i};

		if (!k->queue[i].in_use)
			continue;
		unbind_all(k, i, false);
		k->queue[i].in_use = false;
		amqp_apply(k->b, &op);
	}
	for (uint32_t i = 5; i < KIT_OBJECTS; i++) {
		struct amqp_record op = {.kind = AMQP_OP_EXCHANGE_DEL, .id = i};

		if (!k->exchange[i].in_use)
			continue;
		k->exchange[i].in_use = false;
		amqp_apply(k->b, &op);
	}
}

static const char *left_over(struct kit *k)
{
	struct amqp_usage u;
	const char *broken = amqp_check(k->b);

	if (broken != NULL)
		return broken;
	amqp_usage(k->b, &u);
	if (u.conns != 0 || u.channels != 0 || u.consumers != 0)
		return "connections, channels or consumers were not given back";
	if (u.messages != 0 || u.entries != 0)
		return "messages or entries were not given back";
	if (u.message_bytes != k->pool_baseline)
		return "the pool is not back at its baseline";
	return NULL;
}

const char *kit_fini(struct kit *k)
{
	const char *broken;

	broken = amqp_check(k->b);
	if (k->away) {
		kit_control_back(k);
		kit_run(k);
	}
	k->silent = false;
	for (unsigned i = 0; i < KIT_CLIENTS; i++)
		if (k->client[i].c != NULL)
			kit_close(&k->client[i]);
	kit_release_refs(k);
	kit_run(k);
	forget_definitions(k);
	kit_run(k);
	if (broken == NULL)
		broken = left_over(k);
	for (unsigned i = 0; i < KIT_CLIENTS; i++) {
		kit_bytes_free(&k->client[i].out);
		kit_bytes_free(&k->client[i].in);
	}
	kit_drop_requests(k);
	free(k->mem);
	k->mem = NULL;
	return broken;
}

uint64_t kit_pulse(const struct kit *k)
{
	uint64_t sum = k->requests_count;

	for (unsigned i = 0; i < AMQP_CNT_COUNT; i++)
		sum += k->b->counters[i];
	for (unsigned i = 0; i < AMQP_OP_EXCHANGE_ADD; i++)
		sum += k->requests_seen[i];
	for (unsigned i = 0; i < KIT_CLIENTS; i++)
		sum += k->client[i].out.len + k->client[i].in.len;
	return sum;
}
