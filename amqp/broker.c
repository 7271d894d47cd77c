/*
 * broker.c - one worker's machine as a whole: memory, time, control's operations, requests in their turn, deferred work, counters.
 *
 * Owns: struct amqp_broker and the lists of connections that wait for something.
 * Core: the worker.
 * Spec: DESIGN sections 4 and 5.
 */
#include <stdio.h>
#include <string.h>

#include "amqp/front.h"
#include "amqp/peer.h"

#define STALLED_A_BURST  16u
#define STALLED_PAUSE_NS 50000ull
#define REQUESTS_A_TURN  16u
#define RESETS_A_TURN    4u
#define DRAIN_A_TURN     256u
#define DUMP_A_TURN      16u
#define RENEW_A_TURN     128u
#define TICK_STEP_NS     1000000ull
#define CONNS_CAP        (1u << 24)
#define FIRST_OP_WAIT_NS AMQP_SECOND_NS /* control opens with OP_DUMP; requests do not wait longer for it */

void amqp_limits_default(struct amqp_limits *l)
{
	memset(l, 0, sizeof *l);
	l->conns_max = 2048;
	l->channels_max = 8192;
	l->channels_per_conn = 2047;
	l->consumers_max = 16384;
	l->exchanges_max = 4096;
	l->queues_max = 16384;
	l->bindings_max = 65536;
	l->entries_max = 1u << 20;
	l->message_pool_bytes = (size_t)256 << 20;
	l->message_bytes_max = 16u << 20;
	l->frame_max = 131072;
	l->heartbeat_s = 60;
	l->routes_max = 65536;
	l->route_queues_max = 1u << 20;
	l->route_cache_max = 65536;
	l->rules_max = 65536;
	l->rule_nodes_max = 1u << 19;
	l->rule_key_bytes_max = 16u << 20;
	l->handshake_ns = 10 * AMQP_SECOND_NS;
	l->control_wait_ns = 10 * AMQP_SECOND_NS;
	snprintf(l->cluster_name, sizeof l->cluster_name, "tickwire");
}

/* ---- memory ---- */

static size_t lines(size_t bytes)
{
	return (bytes + 63) & ~(size_t)63;
}

static size_t ring_bytes(uint32_t cap)
{
	return lines(cap * sizeof(uint32_t)) + lines(cap);
}

size_t amqp_front_bytes(const struct amqp_limits *l)
{
	return lines(l->conns_max * sizeof(struct amqp_conn)) + lines(l->channels_max * sizeof(struct amqp_channel)) +
	       2 * lines(l->conns_max * sizeof(uint32_t)) + lines(l->channels_max * sizeof(uint32_t)) +
	       5 * ring_bytes(l->conns_max) + lines(AMQP_OP_FAILURES_MAX * sizeof(struct amqp_op_failure));
}

static void *take(uint8_t **at, size_t bytes)
{
	void *p = *at;

	*at += lines(bytes);
	return p;
}

static void ring_init(struct amqp_idx_ring *r, uint8_t **at, uint32_t cap)
{
	r->slot = take(at, cap * sizeof *r->slot);
	r->queued = take(at, cap);
	r->cap = cap;
}

static void chain(uint32_t *link, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		link[i] = i + 1 < count ? i + 1 : AMQP_NONE;
}

bool amqp_front_init(struct amqp_broker *b, void *mem, size_t bytes, const char **err)
{
	const struct amqp_limits *l = &b->limits;
	uint8_t *at = mem;

	if (bytes < amqp_front_bytes(l)) {
		*err = "too little memory for connections and channels";
		return false;
	}
	b->conns = take(&at, l->conns_max * sizeof *b->conns);
	b->channels = take(&at, l->channels_max * sizeof *b->channels);
	b->conns_link = take(&at, l->conns_max * sizeof *b->conns_link);
	b->conn_generation = take(&at, l->conns_max * sizeof *b->conn_generation);
	b->channels_link = take(&at, l->channels_max * sizeof *b->channels_link);
	ring_init(&b->stalled, &at, l->conns_max);
	ring_init(&b->asking, &at, l->conns_max);
	ring_init(&b->gone, &at, l->conns_max);
	ring_init(&b->resets, &at, l->conns_max);
	ring_init(&b->unasked, &at, l->conns_max);
	b->op_failures = take(&at, AMQP_OP_FAILURES_MAX * sizeof *b->op_failures);
	chain(b->conns_link, l->conns_max);
	chain(b->channels_link, l->channels_max);
	return true;
}

static const char *limits_check(const struct amqp_limits *l)
{
	if (l->conns_max == 0 || l->conns_max > CONNS_CAP)
		return "connections: 1 to 16777216";
	if (l->channels_max == 0 || l->channels_per_conn == 0)
		return "at least one channel is needed, in all and on a connection";
	if (l->frame_max < AMQP_FRAME_MIN_SIZE)
		return "frame-max is at least 4096";
	if (l->workers_count > AMQP_WORKERS_MAX || l->worker_idx >= (l->workers_count > 1 ? l->workers_count : AMQP_WORKERS_MAX))
		return "workers: 1 to 16";
	if (l->workers_count > 1 && (l->mail_slots < 2 || (l->mail_slots & (l->mail_slots - 1)) != 0))
		return "the rings between workers have a power of two of slots, at least 2";
	if (memchr(l->cluster_name, '\0', sizeof l->cluster_name) == NULL)
		return "the cluster's name is too long";
	return NULL;
}

size_t amqp_broker_bytes(const struct amqp_limits *l)
{
	return lines(sizeof(struct amqp_broker)) + lines(amqp_front_bytes(l)) + lines(amqp_back_bytes(l));
}

struct amqp_broker *amqp_broker_init(void *mem, size_t bytes, const struct amqp_limits *l, const struct amqp_ops *ops, void *ctx,
				     const char **err)
{
	struct amqp_broker *b = mem;
	uint8_t *front = (uint8_t *)mem + lines(sizeof *b), *back = front + lines(amqp_front_bytes(l));

	*err = limits_check(l);
	if (*err == NULL && bytes < amqp_broker_bytes(l))
		*err = "too little memory for these limits";
	if (*err != NULL)
		return NULL;
	b->limits = *l;
	b->ops = *ops;
	b->ctx = ctx;
	if (!amqp_front_init(b, front, amqp_front_bytes(l), err) || !amqp_back_init(b, back, amqp_back_bytes(l), err))
		return NULL;
	return b;
}

/* ---- lists of connections ---- */

void amqp_idx_push(struct amqp_idx_ring *r, uint32_t idx)
{
	if (r->queued[idx])
		return;
	r->queued[idx] = 1;
	r->slot[(r->head + r->count++) % r->cap] = idx;
}

uint32_t amqp_idx_pop(struct amqp_idx_ring *r)
{
	uint32_t idx;

	if (r->count == 0)
		return AMQP_NONE;
	idx = r->slot[r->head];
	r->head = r->head + 1 == r->cap ? 0 : r->head + 1;
	r->count--;
	r->queued[idx] = 0;
	return idx;
}

/* A slot may have been freed, even taken anew, since its index was put here: every user looks at the state first. */
void amqp_resets_flush(struct amqp_broker *b)
{
	for (uint32_t n = 0; n < RESETS_A_TURN && b->resets.count != 0; n++) {
		struct amqp_conn *c = &b->conns[amqp_idx_pop(&b->resets)];

		if (c->state != AMQP_CONN_FREE && c->reset_due)
			amqp_conn_abort(c);
	}
}

static bool may_resume(const struct amqp_conn *c)
{
	return c->state == AMQP_CONN_CLOSED || c->b->ops.writable(c->io);
}

/* Hundreds may be stalled for long: a round that helped nobody is not repeated at once, or it would take the worker's time. */
void amqp_stalled_retry(struct amqp_broker *b, uint32_t budget)
{
	if (b->stalled.count == 0 || b->now_ns < b->stalled_again_ns)
		return;
	if (b->stalled_fruitless >= b->stalled.count) {
		b->stalled_fruitless = 0;
		b->stalled_again_ns = b->now_ns + STALLED_PAUSE_NS;
		return;
	}
	for (uint32_t n = b->stalled.count < budget ? b->stalled.count : budget; n > 0; n--) {
		struct amqp_conn *c = &b->conns[amqp_idx_pop(&b->stalled)];

		if (c->state == AMQP_CONN_FREE || !c->stalled)
			continue;
		b->stalled_fruitless++;
		if (!may_resume(c)) {
			amqp_conn_stall(c);
			continue;
		}
		c->stalled = false;
		c->last_recv_ns = b->now_ns; /* its silence was ours */
		amqp_conn_proceed(c);
		if (!c->stalled)
			b->stalled_fruitless = 0;
	}
}

/* ---- requests ---- */

uint64_t amqp_next_token(struct amqp_broker *b, const struct amqp_conn *c)
{
	b->token_seq = (b->token_seq + 1) & 0xffffffu;
	if (b->token_seq == 0)
		b->token_seq = 1;
	return (uint64_t)b->limits.worker_idx << 56 | (uint64_t)b->token_seq << 32 | amqp_conn_idx(c);
}

struct amqp_conn *amqp_conn_by_token(struct amqp_broker *b, uint64_t token)
{
	uint32_t idx = (uint32_t)token;
	struct amqp_conn *c = idx < b->conns_used ? &b->conns[idx] : NULL;

	return c != NULL && token != 0 && c->state != AMQP_CONN_FREE && c->waiting && c->wait_token == token ? c : NULL;
}

static struct amqp_conn *conn_by_uid(struct amqp_broker *b, uint64_t uid)
{
	uint32_t idx = (uint32_t)uid;
	struct amqp_conn *c = idx < b->conns_used ? &b->conns[idx] : NULL;

	return c != NULL && c->state != AMQP_CONN_FREE && c->uid == uid ? c : NULL;
}

static bool gate_open(const struct amqp_broker *b)
{
	return b->control_attached && !b->dumping && !b->resync;
}

static bool put_request(struct amqp_broker *b, const struct amqp_record *rec)
{
	if (!gate_open(b) || !b->ops.request(b->ctx, rec))
		return false;
	AMQP_COUNT(b, requests_sent);
	return true;
}

bool amqp_request(struct amqp_broker *b, const struct amqp_record *rec)
{
	if (!b->flushing && (b->gone.count != 0 || b->asking.count != 0))
		return false;
	return put_request(b, rec);
}

/* These return false as long as there are more to tell, be it that the ring is full or that the budget is used up. */
static bool tell_op_failures(struct amqp_broker *b, uint32_t *budget)
{
	for (; b->op_failures_count != 0; --*budget) {
		const struct amqp_op_failure *f = &b->op_failures[b->op_failures_head];
		struct amqp_record rec = {.kind = AMQP_REQ_OP_FAILED,
					  .token = f->token,
					  .conn_uid = f->conn_uid,
					  .code = f->code,
					  .id = f->id,
					  .id2 = f->kind,
					  .str = {amqp_text(f->why)}};

		if (f->kind == AMQP_OP_BARRIER)
			rec = (struct amqp_record){.kind = AMQP_REQ_APPLIED, .token = f->token, .conn_uid = f->conn_uid};
		if (*budget == 0 || !put_request(b, &rec))
			return false;
		b->op_failures_head = (b->op_failures_head + 1) % AMQP_OP_FAILURES_MAX;
		b->op_failures_count--;
	}
	return true;
}

static bool tell_gone(struct amqp_broker *b, uint32_t *budget)
{
	for (; b->gone.count != 0; --*budget) {
		uint32_t idx = b->gone.slot[b->gone.head];
		struct amqp_conn *c = &b->conns[idx];
		struct amqp_record rec = {.kind = AMQP_REQ_CONN_GONE, .conn_uid = c->uid};

		if (*budget == 0 || !put_request(b, &rec))
			return false;
		amqp_idx_pop(&b->gone);
		c->gone_pending = false;
		if (c->state == AMQP_CONN_FREE)
			amqp_conn_slot_free(b, idx);
	}
	return true;
}

/* In the order in which they came up: a connection that went is told before anybody's next declaration. */
void amqp_requests_flush(struct amqp_broker *b, uint32_t budget)
{
	if (b->flushing || !gate_open(b))
		return;
	b->flushing = true;
	if (tell_op_failures(b, &budget) && tell_gone(b, &budget))
		for (uint32_t n = b->asking.count < budget ? b->asking.count : budget; n > 0; n--) {
			struct amqp_conn *c = &b->conns[b->asking.slot[b->asking.head]];
			uint64_t uid = c->uid;

			if (c->state != AMQP_CONN_FREE && c->waiting && c->request_unsent)
				amqp_conn_answered(c, NULL);
			if (c->uid == uid && c->state != AMQP_CONN_FREE && c->waiting && c->request_unsent)
				break; /* the ring is full again */
			amqp_idx_pop(&b->asking);
		}
	b->flushing = false;
}

/* ---- control ---- */

static void on_conn_close(struct amqp_broker *b, const struct amqp_record *op)
{
	struct amqp_conn *c = conn_by_uid(b, op->conn_uid);
	uint16_t code = op->code != 0 ? op->code : 320;

	if (c == NULL)
		return;
	if (c->state == AMQP_CONN_PROTOCOL)
		amqp_conn_finish(c); /* no AMQP was spoken yet */
	else
		amqp_conn_error(c, code, 0, 0, "%.*s", AMQP_SPAN_ARG(op->str[0]));
}

/* In one list with those that failed: control hears of a failure before it hears that all up to there was done. */
static void tell_later(struct amqp_broker *b, const struct amqp_record *op, uint16_t code, const char *why)
{
	struct amqp_op_failure *f;

	if (b->op_failures_count == AMQP_OP_FAILURES_MAX)
		return; /* control has not read for that long: it is attached anew soon, and asks for everything */
	f = &b->op_failures[(b->op_failures_head + b->op_failures_count++) % AMQP_OP_FAILURES_MAX];
	*f = (struct amqp_op_failure){op->token, op->conn_uid, op->id, op->kind, code, why};
	tell_op_failures(b, &(uint32_t){1});
}

static void on_op_failed(struct amqp_broker *b, const struct amqp_record *op, uint16_t code, const char *why)
{
	struct amqp_conn *c = amqp_conn_by_token(b, op->token);

	AMQP_COUNT(b, ops_refused);
	if (c != NULL)
		c->op_failed_code = code;
	tell_later(b, op, code, why);
}

bool amqp_apply(struct amqp_broker *b, const struct amqp_record *op)
{
	uint16_t code = 506;
	const char *why = "the operation was refused";
	struct amqp_conn *c;

	if (op->kind != AMQP_OP_DUMP)
		b->resync = false; /* control programs: it has what it needs from us */
	switch (op->kind) {
	case AMQP_OP_REPLY:
		c = amqp_conn_by_token(b, op->token);
		if (c != NULL)
			amqp_conn_answered(c, op);
		break;
	case AMQP_OP_CONN_CLOSE:
		on_conn_close(b, op);
		break;
	case AMQP_OP_BARRIER:
		tell_later(b, op, 0, "");
		break;
	case AMQP_OP_DUMP:
		b->dumping = true;
		b->renewing = false;
		b->dump_phase = b->dump_idx = 0;
		break;
	default:
		if (!amqp_fib_apply(b, op, &code, &why)) {
			on_op_failed(b, op, code, why);
			return false;
		}
		break;
	}
	AMQP_COUNT(b, ops_applied);
	return true;
}

void amqp_control_attached(struct amqp_broker *b)
{
	b->control_attached = b->resync = true;
	b->dumping = b->renewing = false;
	b->attached_ns = b->now_ns;
	b->op_failures_count = 0; /* whom they were for is gone */
	for (uint32_t i = 0; i < b->conns_used; i++)
		if (b->conns[i].state != AMQP_CONN_FREE && b->conns[i].waiting && !b->conns[i].asks_peer) {
			b->conns[i].request_unsent = true;
			amqp_idx_push(&b->asking, i);
		}
}

void amqp_control_gone(struct amqp_broker *b)
{
	b->control_attached = b->dumping = b->resync = false;
}

/* ---- time ---- */

void amqp_set_now(struct amqp_broker *b, uint64_t now_ns, uint64_t wall_s)
{
	b->now_ns = now_ns;
	b->wall_s = wall_s;
}

void amqp_sample_next(struct amqp_broker *b)
{
	b->sample_next = true;
}

/* Queues with a backlog, and what amqp_drain() does on the way to them. */
static bool drain_due(const struct amqp_broker *b)
{
	return (b->drain_first & b->garbage_first & b->unused_first) != AMQP_NONE || (b->oversize_count | b->forget_count) != 0 ||
	       b->given_up_first != NULL;
}
_Static_assert(AMQP_NONE == UINT32_MAX, "lists are empty together when all their bits are set");

static void every_step(struct amqp_broker *b)
{
	b->next_tick_ns = b->now_ns + TICK_STEP_NS;
	if (b->resync && !b->dumping && b->now_ns - b->attached_ns > FIRST_OP_WAIT_NS)
		b->resync = false;
	amqp_timers_step(b);
	amqp_requests_flush(b, REQUESTS_A_TURN);
	amqp_stalled_retry(b, STALLED_A_BURST);
	amqp_confirms_flush(b);
	amqp_resets_flush(b);
}

/* Connections that went, while the ring was full or others were told first: their places are free when control knows. */
static bool gone_due(const struct amqp_broker *b)
{
	return b->gone.count != 0 && gate_open(b);
}

static __attribute__((noinline)) void tick_with_work(struct amqp_broker *b)
{
	if (b->dumping && !amqp_dump_step(b, DUMP_A_TURN))
		b->dumping = b->resync = false;
	else if (b->renewing)
		amqp_renew_step(b, RENEW_A_TURN);
	amqp_drain(b, DRAIN_A_TURN);
	if (b->resets.count != 0)
		amqp_resets_flush(b);
	if (b->now_ns >= b->next_tick_ns)
		every_step(b);
	else if (gone_due(b))
		amqp_requests_flush(b, REQUESTS_A_TURN);
}

bool amqp_tick(struct amqp_broker *b)
{
	if (b->now_ns < b->next_tick_ns && !b->dumping && !b->renewing && !drain_due(b) && b->resets.count == 0 && !gone_due(b))
		return false;
	tick_with_work(b);
	return true;
}

static __attribute__((noinline)) void burst_end_with_work(struct amqp_broker *b)
{
	amqp_stalled_retry(b, STALLED_A_BURST);
	amqp_drain(b, DRAIN_A_TURN);
	amqp_confirms_flush(b);
	if (b->resets.count != 0)
		amqp_resets_flush(b);
	if (!amqp_is_alone(b))
		amqp_mail_flush(b);
}

bool amqp_burst_end(struct amqp_broker *b)
{
	b->bursts++;
	if (b->stalled.count == 0 && !drain_due(b) && b->confirm_first == AMQP_NONE && b->resets.count == 0)
		return !amqp_is_alone(b) && amqp_mail_flush(b);
	burst_end_with_work(b);
	return true;
}

void amqp_release(struct amqp_broker *b, void *owner)
{
	amqp_msg_ref_released(b, owner);
}

void amqp_hold(struct amqp_broker *b, void *owner)
{
	amqp_msg_lend(b, owner);
}

/* ---- counters and checks ---- */

static const struct {
	const char *name, *text;
} counter_desc[] = {
#define AMQP_COUNTER(name, text) {#name, text},
#include "amqp/counters.def"
#undef AMQP_COUNTER
};

const uint64_t *amqp_counters(const struct amqp_broker *b)
{
	return b->counters;
}

const char *amqp_counter_name(unsigned idx)
{
	return idx < AMQP_CNT_COUNT ? counter_desc[idx].name : NULL;
}

const char *amqp_counter_text(unsigned idx)
{
	return idx < AMQP_CNT_COUNT ? counter_desc[idx].text : NULL;
}

void amqp_usage(const struct amqp_broker *b, struct amqp_usage *out)
{
	*out = (struct amqp_usage){
		.conns = b->conns_count,
		.conns_max = b->limits.conns_max,
		.channels = b->channels_count,
		.channels_max = b->limits.channels_max,
		.consumers = b->consumers_count,
		.consumers_max = b->limits.consumers_max,
		.exchanges = b->exchanges_count,
		.exchanges_max = b->limits.exchanges_max,
		.queues = b->queues_count,
		.queues_max = b->limits.queues_max,
		.bindings = b->bindings_count,
		.bindings_max = b->limits.bindings_max,
		.entries = b->entries_count,
		.entries_max = b->limits.entries_max,
		.message_bytes = amqp_pool_used(b->pool),
		.message_bytes_max = amqp_pool_size(b->pool),
		.messages = b->messages_count,
	};
}

static uint32_t chain_length(const uint32_t *link, uint32_t first, uint32_t max)
{
	uint32_t n = 0;

	for (; first != AMQP_NONE && n <= max; first = link[first])
		n++;
	return n;
}

static const char *conn_check(const struct amqp_broker *b, const struct amqp_conn *c, uint32_t *channels)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->channel_table_len; i++) {
		uint32_t idx = c->channel_by_number[i];

		if (idx == AMQP_NONE)
			continue;
		n++;
		if (idx >= b->channels_used || b->channels[idx].state == AMQP_CH_FREE)
			return "a connection has a channel that is free";
		if (b->channels[idx].conn != amqp_conn_idx(c) || b->channels[idx].number != i)
			return "a channel is not the one that its connection's table says";
	}
	if (n != c->channels_count)
		return "a connection miscounts its channels";
	if (c->settled && (n != 0 || c->channel_by_number != NULL))
		return "a connection that has settled still has channels";
	if (c->waiting && c->held == NULL)
		return "a connection waits for control without the method that it asked about";
	if (c->waiting && c->request_unsent && !b->asking.queued[amqp_conn_idx(c)])
		return "a request that was not sent is not on the list of those to send";
	if (c->stalled && !b->stalled.queued[amqp_conn_idx(c)])
		return "a stalled connection is not on the list of those to resume";
	*channels += n;
	return NULL;
}

const char *amqp_front_check(const struct amqp_broker *b)
{
	uint32_t channels = 0, conns = 0;

	for (uint32_t i = 0; i < b->conns_used; i++) {
		const struct amqp_conn *c = &b->conns[i];
		const char *broken;

		if (c->state == AMQP_CONN_FREE) {
			if (c->b != NULL && (c->join != NULL || c->held != NULL || c->channel_by_number != NULL ||
					     c->user_block != NULL || c->vhost_block != NULL || c->properties_block != NULL))
				return "a free connection still holds memory";
			conns += c->gone_pending;
			continue;
		}
		conns++;
		broken = conn_check(b, c, &channels);
		if (broken != NULL)
			return broken;
	}
	if (conns != b->conns_count ||
	    chain_length(b->conns_link, b->conns_free, b->limits.conns_max) + conns != b->limits.conns_max)
		return "connections in use and free do not add up";
	if (channels != b->channels_count ||
	    chain_length(b->channels_link, b->channels_free, b->limits.channels_max) + channels != b->limits.channels_max)
		return "channels in use and free do not add up";
	return NULL;
}

const char *amqp_check(const struct amqp_broker *b)
{
	const char *broken = amqp_front_check(b);

	if (broken == NULL)
		broken = amqp_back_check(b);
	return broken != NULL ? broken : amqp_pool_check(b->pool);
}
