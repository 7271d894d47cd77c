/*
 * connection.c - connections: accept, the handshake, log-in through control, closing from either side, and the wait for control.
 *
 * Owns: the connection pool of a worker and what each connection holds outside its channels.
 * Core: the worker.
 * Spec: AMQP 0-9-1 sections 1.4 (connection) and 2.2.4. Spec says that an unacceptable tune-ok drops the socket without a
 * word / we close with 530, so that the client's log tells why. Spec says frame-max 0 is "no limit" / we refuse it, as
 * RabbitMQ does, because it exceeds the limit that was offered.
 */
#include <assert.h>
#include <stdio.h>

#include "amqp/front.h"
#include "amqp/peer.h"
#include "amqp/table.h"
#include "amqp/wire.h"

#define RESPONSE_MAX 2048u /* of a renewed secret with its user name */

/* ---- the pool ---- */

struct amqp_conn *amqp_conn_accept(struct amqp_broker *b, void *io, const char *peer_text, uint16_t peer_port, uint16_t local_port)
{
	uint32_t idx = b->conns_free, generation;
	struct amqp_conn *c;

	if (idx == AMQP_NONE)
		return NULL;
	b->conns_free = b->conns_link[idx];
	b->conns_count++;
	if (idx >= b->conns_used)
		b->conns_used = idx + 1;
	generation = (b->conn_generation[idx] + 1) & 0xffffffu;
	b->conn_generation[idx] = generation != 0 ? generation : 1;
	c = &b->conns[idx];
	memset(c, 0, sizeof *c);
	c->b = b;
	c->io = io;
	c->uid = (uint64_t)b->limits.worker_idx << 56 | (uint64_t)b->conn_generation[idx] << 32 | idx;
	c->state = AMQP_CONN_PROTOCOL;
	c->frame_max = AMQP_FRAME_MIN_SIZE; /* until tune-ok */
	snprintf(c->peer_text, sizeof c->peer_text, "%s", peer_text);
	c->peer_port = peer_port;
	c->local_port = local_port;
	c->accepted_ns = c->last_recv_ns = c->last_send_ns = b->now_ns;
	return c;
}

void amqp_conn_slot_free(struct amqp_broker *b, uint32_t idx)
{
	b->conns_link[idx] = b->conns_free;
	b->conns_free = idx;
	b->conns_count--;
}

static void drop_block(struct amqp_conn *c, struct amqp_span *span, void **block)
{
	if (*block != NULL)
		amqp_pool_free(c->b->pool, *block);
	*block = NULL;
	*span = (struct amqp_span){NULL, 0};
}

bool amqp_conn_keep(struct amqp_conn *c, struct amqp_span *span, void **block, struct amqp_span value)
{
	void *copy = amqp_pool_alloc_client(c->b->pool, value.len != 0 ? value.len : 1);

	if (copy == NULL)
		return false;
	if (value.len != 0)
		memcpy(copy, value.ptr, value.len);
	drop_block(c, span, block);
	*block = copy;
	*span = (struct amqp_span){copy, value.len};
	return true;
}

static void drop_held(struct amqp_conn *c)
{
	if (c->held == NULL)
		return;
	if (amqp_get_be16(c->held) == AMQP_CLASS_CONNECTION)
		explicit_bzero(c->held, c->held_len); /* a log-in carries a password */
	amqp_pool_free(c->b->pool, c->held);
	c->held = NULL;
	c->held_len = 0;
}

void amqp_conn_end_wait(struct amqp_conn *c)
{
	if (c->ask_unsent)
		amqp_mirror_ask_dropped(c);
	c->asks_peer = c->ask_unsent = false;
	c->waiting = c->request_unsent = false;
	c->wait_token = c->wait_since_ns = 0;
	c->op_failed_code = 0;
	if (c->current.ptr == NULL || c->current.ptr != c->held)
		drop_held(c); /* else whoever dispatches it drops it */
}

void amqp_conn_settle(struct amqp_conn *c)
{
	struct amqp_broker *b = c->b;
	struct amqp_record rec = {.kind = AMQP_REQ_CONN_GONE, .conn_uid = c->uid};
	bool waited = c->waiting;

	if (c->settled)
		return;
	c->settled = true;
	amqp_channels_drop(c);
	amqp_conn_end_wait(c);
	if (waited && !c->in_input)
		amqp_conn_stall(c); /* the transport is asked for what it kept while we waited */
	if (c->known && !amqp_request(b, &rec)) {
		c->gone_pending = true;
		amqp_idx_push(&b->gone, amqp_conn_idx(c));
	}
}

/* Gives all back but the transport, which the caller knows to be gone or ends itself. */
static void release(struct amqp_conn *c)
{
	struct amqp_broker *b = c->b;
	uint32_t idx = amqp_conn_idx(c);

	c->state = AMQP_CONN_CLOSED;
	amqp_conn_settle(c);
	amqp_frame_drop_join(c);
	drop_block(c, &c->user, &c->user_block);
	drop_block(c, &c->vhost, &c->vhost_block);
	drop_block(c, &c->client_properties, &c->properties_block);
	AMQP_COUNT(b, connections_closed);
	c->stalled = c->waiting = c->reset_due = false;
	c->asks_peer = c->ask_unsent = false;
	c->io = NULL;
	c->state = AMQP_CONN_FREE;
	if (!c->gone_pending)
		amqp_conn_slot_free(b, idx);
}

void amqp_conn_closed(struct amqp_conn *c)
{
	if (c->state == AMQP_CONN_FREE)
		return; /* we reset it ourselves */
	assert(!c->in_input);
	release(c);
}

void amqp_conn_abort(struct amqp_conn *c)
{
	struct amqp_broker *b = c->b;
	void *io = c->io;

	if (c->state == AMQP_CONN_FREE)
		return;
	if (c->in_input) {
		c->reset_due = true;
		return;
	}
	release(c);
	b->ops.abort(io);
}

void amqp_conn_reset_later(struct amqp_conn *c)
{
	if (c->state == AMQP_CONN_FREE || c->reset_due)
		return;
	c->reset_due = true;
	amqp_idx_push(&c->b->resets, amqp_conn_idx(c));
}

void amqp_conn_finish(struct amqp_conn *c)
{
	c->state = AMQP_CONN_CLOSED;
	amqp_conn_settle(c);
	c->close_deadline_ns = c->b->now_ns + AMQP_FIN_WAIT_NS;
	if (!c->fin_queued && !c->reset_due) {
		c->fin_queued = true;
		c->b->ops.shutdown(c->io);
	}
}

void amqp_conn_eof(struct amqp_conn *c)
{
	if (c->state == AMQP_CONN_FREE)
		return;
	c->eof = true;
	amqp_conn_finish(c);
}

void amqp_conn_writable(struct amqp_conn *c)
{
	if (c->state == AMQP_CONN_RUNNING)
		amqp_conn_kick(c->b, c);
}

void amqp_conn_stall(struct amqp_conn *c)
{
	c->stalled = true;
	amqp_idx_push(&c->b->stalled, amqp_conn_idx(c));
}

/* ---- asking control ---- */

/* Keeps the method in dispatch until control, or another worker, has answered. */
bool amqp_conn_hold(struct amqp_conn *c)
{
	if (c->held != NULL && c->held == c->current.ptr)
		return true;
	if (c->join == c->current.ptr && c->join != c->small) {
		c->held = c->join;
		c->join = NULL;
	} else {
		c->held = amqp_pool_alloc_client(c->b->pool, c->current.len);
		if (c->held == NULL)
			return false;
		memcpy(c->held, c->current.ptr, c->current.len);
	}
	c->held_len = c->current.len;
	c->held_channel = c->current_channel;
	return true;
}

enum amqp_verdict amqp_ask(struct amqp_conn *c, struct amqp_record *rec)
{
	struct amqp_broker *b = c->b;
	bool first = !c->waiting;

	if (!amqp_conn_hold(c))
		return AMQP_STALL;
	c->asks_peer = false;
	c->waiting = true;
	c->wait_token = amqp_next_token(b, c);
	if (first) {
		c->wait_since_ns = b->now_ns;
		c->op_failed_code = 0;
	}
	rec->token = c->wait_token;
	rec->conn_uid = c->uid;
	c->request_unsent = false; /* before the call: an answer may come out of it */
	if (!amqp_request(b, rec)) {
		c->request_unsent = true;
		if (first)
			AMQP_COUNT(b, requests_deferred);
		amqp_idx_push(&b->asking, amqp_conn_idx(c));
	}
	return AMQP_WAIT;
}

enum amqp_verdict amqp_refused(struct amqp_call *call)
{
	const struct amqp_record *r = call->reply;

	return amqp_reply_error(call->c, call->channel, r->code, call->class_id, call->method_id, "%.*s", AMQP_SPAN_ARG(r->str[0]));
}

/* Runs the held method: with control's answer, or to ask again. */
void amqp_conn_answered(struct amqp_conn *c, const struct amqp_record *reply)
{
	struct amqp_record failed;
	bool nested = c->in_input;
	enum amqp_verdict v;

	if (reply != NULL) {
		if (c->op_failed_code != 0 && reply->code == 0) {
			failed = *reply;
			failed.code = c->op_failed_code;
			failed.str[0] = amqp_text("a worker has no room for this definition");
			reply = &failed;
		}
		c->waiting = c->request_unsent = c->asks_peer = c->ask_unsent = false;
		c->wait_token = c->wait_since_ns = 0;
		c->op_failed_code = 0;
	}
	c->in_input = true;
	v = amqp_dispatch_held(c, reply);
	c->answer = NULL;
	c->in_input = nested;
	if (v == AMQP_WAIT && c->waiting)
		return;
	amqp_conn_end_wait(c);
	if (nested)
		return;
	if (c->reset_due)
		amqp_conn_abort(c);
	else
		amqp_conn_proceed(c);
}

/* ---- handshake ---- */

static bool put_server_properties(struct amqp_writer *w, const struct amqp_broker *b)
{
	static const char *const capabilities[] = {"publisher_confirms",     "exchange_exchange_bindings",   "basic.nack",
						   "consumer_cancel_notify", "authentication_failure_close", "per_consumer_qos"};
	struct amqp_table_writer t;

	if (sizeof w->buf - w->len < 5)
		return false;
	amqp_table_begin(&t, w->buf + w->len + 4, sizeof w->buf - w->len - 5);
	amqp_table_open(&t, "capabilities");
	for (size_t i = 0; i < sizeof capabilities / sizeof capabilities[0]; i++)
		amqp_table_put_bool(&t, capabilities[i], true);
	amqp_table_close(&t);
	amqp_table_put_cstr(&t, "cluster_name", b->limits.cluster_name);
	amqp_table_put_cstr(&t, "copyright", "Copyright (c) 2026 the Tickwire authors");
	amqp_table_put_cstr(&t, "information", "Market data over AMQP. See README.md and LICENSE, which came with it.");
	amqp_table_put_cstr(&t, "platform", "C11, DPDK");
	amqp_table_put_cstr(&t, "product", "Tickwire");
	amqp_table_put_cstr(&t, "version", TICKWIRE_VERSION);
	if (t.overflow)
		return false;
	amqp_set_be32(w->buf + w->len, (uint32_t)t.len);
	w->len += 4 + (uint32_t)t.len;
	return true;
}

static void put_longstr(struct amqp_writer *w, const char *s)
{
	amqp_put_u32(w, (uint32_t)strlen(s));
	for (; *s != '\0'; s++)
		amqp_put_u8(w, (uint8_t)*s);
}

enum amqp_verdict amqp_conn_greet(struct amqp_conn *c)
{
	struct amqp_writer w;

	amqp_method_begin(&w, 0, AMQP_CLASS_CONNECTION, AMQP_connection_start);
	amqp_put_u8(&w, 0);
	amqp_put_u8(&w, 9);
	w.overflow |= !put_server_properties(&w, c->b);
	put_longstr(&w, "AMQPLAIN PLAIN");
	put_longstr(&w, "en_US");
	c->state = AMQP_CONN_START;
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}

enum amqp_verdict amqp_conn_refuse_protocol(struct amqp_conn *c)
{
	AMQP_COUNT(c->b, protocol_headers_refused);
	if (!c->b->ops.send(c->io, "AMQP\0\0\x09\x01", 8)) {
		AMQP_COUNT(c->b, aborts_no_room);
		amqp_conn_reset_later(c);
	}
	amqp_conn_finish(c);
	return AMQP_GONE;
}

static void read_capabilities(struct amqp_conn *c, struct amqp_span properties)
{
	const struct {
		const char *name;
		bool *to;
	} known[] = {{"authentication_failure_close", &c->cap_auth_failure_close},
		     {"consumer_cancel_notify", &c->cap_cancel_notify},
		     {"connection.blocked", &c->cap_blocked},
		     {"basic.nack", &c->cap_nack},
		     {"publisher_confirms", &c->cap_confirms}};
	struct amqp_field caps, f;

	if (properties.len == 0 || !amqp_table_find(properties.ptr, properties.len, "capabilities", &caps) || caps.type != 'F')
		return;
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		*known[i].to = amqp_table_find(caps.value.ptr, caps.value.len, known[i].name, &f) && f.type == 't' && f.i != 0;
}

static bool text_is(struct amqp_span s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.ptr, text, s.len) == 0;
}

/* The client hears nothing for a while, so that guessing is slow; the timer sends FIN. */
static enum amqp_verdict close_silently(struct amqp_conn *c)
{
	c->state = AMQP_CONN_CLOSED;
	amqp_conn_settle(c);
	c->close_deadline_ns = c->b->now_ns + AMQP_SILENT_CLOSE_NS;
	return AMQP_GONE;
}

static enum amqp_verdict login_refused(struct amqp_conn *c, const struct amqp_record *r, struct amqp_span mechanism)
{
	AMQP_COUNT(c->b, logins_failed);
	if (r != NULL && r->code != 403)
		return amqp_conn_error(c, r->code, 0, 0, "%.*s", AMQP_SPAN_ARG(r->str[0]));
	if (r == NULL || !c->cap_auth_failure_close)
		return close_silently(c);
	return amqp_conn_error(c, 403, 0, 0,
			       "Login was refused using authentication mechanism %.*s. For details see the broker logfile.",
			       AMQP_SPAN_ARG(mechanism));
}

static enum amqp_verdict logged_in(struct amqp_conn *c, const struct amqp_record *r)
{
	const struct amqp_limits *l = &c->b->limits;
	struct amqp_writer w;

	if (!amqp_conn_keep(c, &c->user, &c->user_block, r->str[1]))
		return amqp_conn_error(c, 506, AMQP_CLASS_CONNECTION, AMQP_connection_start_ok, "no memory for the user's name");
	c->state = AMQP_CONN_TUNE;
	c->b->ops.admitted(c->io);
	amqp_method_begin(&w, 0, AMQP_CLASS_CONNECTION, AMQP_connection_tune);
	amqp_put_u16(&w, l->channels_per_conn);
	amqp_put_u32(&w, l->frame_max);
	amqp_put_u16(&w, l->heartbeat_s);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}

/* The locale is not looked at: our texts exist in one language, and RabbitMQ takes any too. */
enum amqp_verdict amqp_on_start_ok(struct amqp_call *call)
{
	struct amqp_conn *c = call->c;
	struct amqp_span properties = amqp_read_longstr(&call->args);
	struct amqp_span mechanism = amqp_read_shortstr(&call->args);
	struct amqp_record rec = {.kind = AMQP_REQ_LOGIN};
	enum amqp_verdict v;

	if (call->reply != NULL)
		return call->reply->code == 0 ? logged_in(c, call->reply) : login_refused(c, call->reply, mechanism);
	if (!text_is(mechanism, "PLAIN") && !text_is(mechanism, "AMQPLAIN"))
		return login_refused(c, NULL, mechanism);
	if (c->properties_block == NULL && !amqp_conn_keep(c, &c->client_properties, &c->properties_block, properties))
		return AMQP_STALL;
	read_capabilities(c, properties);
	rec.str[0] = mechanism;
	rec.str[1] = amqp_text(c->peer_text);
	rec.blob = amqp_read_longstr(&call->args);
	c->state = AMQP_CONN_SECURE; /* before the question: the answer may come out of it */
	v = amqp_ask(c, &rec);
	if (v == AMQP_STALL)
		c->state = AMQP_CONN_START;
	return v;
}

enum amqp_verdict amqp_on_tune_ok(struct amqp_call *call)
{
	struct amqp_conn *c = call->c;
	const struct amqp_limits *l = &c->b->limits;
	uint32_t channel_max = amqp_read_u16(&call->args);
	uint32_t frame_max = amqp_read_u32(&call->args);
	uint16_t heartbeat_s = amqp_read_u16(&call->args);

	if (channel_max == 0 || channel_max > l->channels_per_conn)
		return amqp_conn_error(c, 530, call->class_id, call->method_id,
				       "negotiated channel_max = %u%s is higher than the maximum allowed value (%u)", channel_max,
				       channel_max == 0 ? " (no limit)" : "", l->channels_per_conn);
	if (frame_max == 0 || frame_max > l->frame_max)
		return amqp_conn_error(c, 530, call->class_id, call->method_id,
				       "negotiated frame_max = %u bytes%s is higher than the maximum allowed value (%u)", frame_max,
				       frame_max == 0 ? " (no limit)" : "", l->frame_max);
	if (frame_max < AMQP_FRAME_MIN_SIZE)
		return amqp_conn_error(c, 530, call->class_id, call->method_id,
				       "negotiated frame_max = %u bytes is lower than the minimum allowed value (%u)", frame_max,
				       AMQP_FRAME_MIN_SIZE);
	c->channel_max = channel_max;
	c->frame_max = frame_max;
	c->heartbeat_s = heartbeat_s;
	c->state = AMQP_CONN_OPEN_WAIT;
	return AMQP_DONE;
}

enum amqp_verdict amqp_on_open(struct amqp_call *call)
{
	struct amqp_conn *c = call->c;
	struct amqp_span vhost = amqp_read_shortstr(&call->args);
	struct amqp_record rec = {.kind = AMQP_REQ_OPEN, .str = {vhost, c->user}};
	struct amqp_writer w;

	if (call->reply == NULL) {
		c->known = true;
		return amqp_ask(c, &rec);
	}
	if (call->reply->code != 0)
		return amqp_conn_error(c, call->reply->code, call->class_id, call->method_id, "%.*s",
				       AMQP_SPAN_ARG(call->reply->str[0]));
	if (!amqp_conn_keep(c, &c->vhost, &c->vhost_block, vhost))
		return amqp_conn_error(c, 506, call->class_id, call->method_id, "no memory for the vhost's name");
	c->vhost_id = call->reply->id;
	c->connected_at_s = c->b->wall_s;
	c->state = AMQP_CONN_RUNNING;
	AMQP_COUNT(c->b, connections_opened);
	amqp_method_begin(&w, 0, AMQP_CLASS_CONNECTION, AMQP_connection_open_ok);
	amqp_put_shortstr(&w, NULL, 0);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}

/* ---- running ---- */

/* The new secret is proved like the first one: PLAIN, with the name that logged in. Spec: RabbitMQ's connection.update-secret. */
enum amqp_verdict amqp_on_update_secret(struct amqp_call *call)
{
	struct amqp_conn *c = call->c;
	struct amqp_span secret = amqp_read_longstr(&call->args);
	struct amqp_record rec = {.kind = AMQP_REQ_LOGIN, .str = {amqp_text("PLAIN"), amqp_text(c->peer_text)}};
	uint8_t response[RESPONSE_MAX];
	struct amqp_writer w;
	enum amqp_verdict v;

	if (call->reply != NULL && call->reply->code == 0) {
		amqp_method_begin(&w, 0, AMQP_CLASS_CONNECTION, AMQP_connection_update_secret_ok);
		return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
	}
	if (call->reply != NULL && call->reply->code != 403)
		return amqp_refused(call);
	if (call->reply != NULL || (uint64_t)secret.len + c->user.len + 2 > sizeof response)
		return amqp_conn_error(c, 530, call->class_id, call->method_id, "the new secret was refused");
	response[0] = response[1 + c->user.len] = 0;
	memcpy(response + 1, c->user.ptr, c->user.len);
	if (secret.len != 0)
		memcpy(response + 2 + c->user.len, secret.ptr, secret.len);
	rec.blob = (struct amqp_span){response, 2 + c->user.len + secret.len};
	v = amqp_ask(c, &rec);
	explicit_bzero(response, sizeof response);
	return v;
}

enum amqp_verdict amqp_on_conn_close(struct amqp_call *call)
{
	struct amqp_conn *c = call->c;
	struct amqp_writer w;

	if (c->state == AMQP_CONN_RUNNING)
		amqp_confirms_flush(c->b); /* what was published is confirmed before the connection goes */
	c->state = AMQP_CONN_CLOSING;      /* nothing more is delivered */
	amqp_conn_settle(c);
	amqp_method_begin(&w, 0, AMQP_CLASS_CONNECTION, AMQP_connection_close_ok);
	amqp_send_method(c, &w);
	amqp_conn_finish(c);
	return AMQP_GONE;
}

enum amqp_verdict amqp_on_conn_close_ok(struct amqp_call *call)
{
	amqp_conn_finish(call->c);
	return AMQP_GONE;
}
