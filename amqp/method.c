/*
 * method.c - methods.def at work: look-up, the check of states and arguments, and the dispatch to the handlers.
 *
 * Owns: the constant table of methods.
 * Core: the worker.
 * Spec: AMQP 0-9-1 sections 1.3 and 4.2.4; reply codes of section 1.2. Where RabbitMQ drops the socket without a word (unknown
 * method, unknown type octet in a table) we answer with the code that the specification has for it.
 */
#include "amqp/front.h"
#include "amqp/table.h"
#include "amqp/wire.h"

static const struct amqp_method methods[] = {
#define AMQP_METHOD(cid, mid, cname, mname, dir, where, args, content, handler)                                                    \
	{cid, mid, #cname "." #mname, #dir[0], where, args, content, handler},
#include "amqp/methods.def"
#undef AMQP_METHOD
};

enum { /* place in the table, by name */
#define AMQP_METHOD(cid, mid, cname, mname, dir, where, args, content, handler) AT_##cname##_##mname,
#include "amqp/methods.def"
#undef AMQP_METHOD
};

const struct amqp_method *amqp_method_find(uint16_t class_id, uint16_t method_id)
{
	switch ((uint32_t)class_id << 16 | method_id) {
#define AMQP_METHOD(cid, mid, cname, mname, dir, where, args, content, handler)                                                    \
	case (uint32_t)AMQP_M_##cname##_##mname:                                                                                   \
		return &methods[AT_##cname##_##mname];
#include "amqp/methods.def"
#undef AMQP_METHOD
	default:
		return NULL;
	}
}

/* Eight octets at a time: nearly every name is ASCII. */
static bool text_ok(struct amqp_span s)
{
	uint32_t i = 0;
	uint64_t eight;

	for (; s.len - i >= 8; i += 8) {
		memcpy(&eight, s.ptr + i, 8);
		if (eight & 0x8080808080808080ull)
			return amqp_utf8_valid(s.ptr, s.len);
	}
	for (; i < s.len; i++)
		if (s.ptr[i] & 0x80)
			return amqp_utf8_valid(s.ptr, s.len);
	return true;
}

uint16_t amqp_args_check(const struct amqp_method *m, const uint8_t *args, uint32_t len, const char **why)
{
	struct amqp_reader r = {args, args + len, false};

	for (const char *f = m->args; *f != '\0' && !r.bad; f++) {
		struct amqp_span s;
		int code;

		switch (*f) {
		case 'o':
			amqp_read_u8(&r);
			break;
		case 'b':
			amqp_read_u8(&r);
			for (unsigned bits = 1; f[1] == 'b' && bits < 8; bits++)
				f++;
			break;
		case 'h':
			amqp_read_u16(&r);
			break;
		case 'l':
			amqp_read_u32(&r);
			break;
		case 'q':
		case 'T':
			amqp_read_u64(&r);
			break;
		case 's':
			s = amqp_read_shortstr(&r);
			if (!text_ok(s)) {
				*why = "a short string is not UTF-8";
				return 501;
			}
			break;
		case 'S':
			amqp_read_longstr(&r);
			break;
		default: /* t */
			s = amqp_read_longstr(&r);
			code = r.bad || s.len == 0 ? 0 : amqp_table_check(s.ptr, s.len, why);
			if (code != 0)
				return (uint16_t)code;
			break;
		}
	}
	if (r.bad) {
		*why = "the arguments are cut short";
		return 501;
	}
	if (r.p != r.end) {
		*why = "octets are left over after the arguments";
		return 502;
	}
	return 0;
}

enum amqp_verdict amqp_on_unimplemented(struct amqp_call *call)
{
	const struct amqp_method *m = amqp_method_find(call->class_id, call->method_id);

	return amqp_conn_error(call->c, 540, call->class_id, call->method_id, "method %s is not implemented", m->name);
}

/* What a method that may not come now is answered with. `where` says where it may come. */
static enum amqp_verdict misplaced(struct amqp_conn *c, uint16_t channel, const struct amqp_channel *ch,
				   const struct amqp_method *m)
{
	bool for_conn = m->class_id == AMQP_CLASS_CONNECTION;

	if (m->direction == 'S')
		return amqp_conn_error(c, 503, m->class_id, m->method_id, "method %s is not for a server", m->name);
	if (m->handler == NULL)
		return amqp_conn_error(c, 503, m->class_id, m->method_id, "method %s answers nothing", m->name);
	if (for_conn && channel != 0)
		return amqp_conn_error(c, 503, m->class_id, m->method_id, "method %s on channel %u", m->name, channel);
	if (!(m->where & AMQP_IN(c->state)))
		return amqp_conn_error(c, 503, m->class_id, m->method_id, "method %s is not expected now", m->name);
	if (channel == 0)
		return amqp_conn_error(c, 504, m->class_id, m->method_id, "method %s on channel 0", m->name);
	if (ch == NULL)
		return amqp_conn_error(c, 504, m->class_id, m->method_id, "expected 'channel.open'");
	if (m->where & AMQP_ON_NEW)
		return amqp_conn_error(c, 504, m->class_id, m->method_id, "second 'channel.open' seen");
	return amqp_conn_error(c, 503, m->class_id, m->method_id, "method %s answers nothing", m->name);
}

static uint32_t place_of(uint16_t channel, const struct amqp_channel *ch)
{
	if (channel == 0)
		return AMQP_ON_CONN;
	if (ch == NULL)
		return AMQP_ON_NEW;
	return ch->state == AMQP_CH_CLOSING ? AMQP_ON_CLOSING : AMQP_ON_OPEN;
}

static enum amqp_verdict call_handler(struct amqp_conn *c, struct amqp_channel *ch, const struct amqp_method *m, uint16_t channel,
				      struct amqp_span payload, const struct amqp_record *reply)
{
	struct amqp_call call = {.c = c,
				 .ch = ch,
				 .channel = channel,
				 .class_id = m->class_id,
				 .method_id = m->method_id,
				 .args = {payload.ptr + 4, payload.ptr + payload.len, false},
				 .reply = reply};
	enum amqp_verdict v;

	c->current = payload;
	c->current_channel = channel;
	v = m->handler(&call);
	c->current = (struct amqp_span){NULL, 0};
	return v;
}

enum amqp_verdict amqp_dispatch(struct amqp_conn *c, uint16_t channel, struct amqp_span payload)
{
	struct amqp_channel *ch = channel != 0 ? amqp_channel_find(c, channel) : NULL;
	uint32_t place = place_of(channel, ch);
	const struct amqp_method *m = NULL;
	uint16_t class_id = 0, method_id = 0, code;
	const char *why = NULL;

	if (payload.len >= 4) {
		class_id = amqp_get_be16(payload.ptr);
		method_id = amqp_get_be16(payload.ptr + 2);
		m = amqp_method_find(class_id, method_id);
	}
	/* Who said close hears nothing but the answer to it. */
	if (c->state == AMQP_CONN_CLOSING && (m == NULL || place != AMQP_ON_CONN || !(m->where & AMQP_IN(AMQP_CONN_CLOSING))))
		return AMQP_DONE;
	if (place == AMQP_ON_CLOSING && (m == NULL || !(m->where & AMQP_ON_CLOSING)))
		return AMQP_DONE;
	if (payload.len < 4)
		return amqp_conn_error(c, 501, 0, 0, "a method frame of %u octets", payload.len);
	if (m == NULL)
		return amqp_conn_error(c, 540, class_id, method_id, "there is no method %u.%u", class_id, method_id);
	if (m->handler == NULL || !(m->where & AMQP_IN(c->state)) || !(m->where & place))
		return misplaced(c, channel, ch, m);
	if (ch != NULL && ch->content != AMQP_CONTENT_NONE)
		return amqp_conn_error(c, 505, class_id, method_id, "expected content %s for class 60, got method %s instead",
				       ch->content == AMQP_CONTENT_HEADER ? "header" : "body", m->name);
	code = amqp_args_check(m, payload.ptr + 4, payload.len - 4, &why);
	if (code != 0)
		return amqp_conn_error(c, code, class_id, method_id, "method %s: %s", m->name, why);
	return call_handler(c, ch, m, channel, payload, NULL);
}

enum amqp_verdict amqp_dispatch_held(struct amqp_conn *c, const struct amqp_record *reply)
{
	struct amqp_span payload = {c->held, c->held_len};
	const struct amqp_method *m = amqp_method_find(amqp_get_be16(c->held), amqp_get_be16(c->held + 2));
	struct amqp_channel *ch = c->held_channel != 0 ? amqp_channel_find(c, c->held_channel) : NULL;

	if (m == NULL || (c->held_channel != 0 && (ch == NULL || ch->state != AMQP_CH_OPEN)))
		return AMQP_DONE; /* nobody is left to hear it */
	return call_handler(c, ch, m, c->held_channel, payload, reply);
}

enum amqp_verdict amqp_on_basic_method(struct amqp_call *call)
{
	return amqp_on_basic(call->c, call->ch, call->method_id, &call->args);
}

enum amqp_verdict amqp_on_purge(struct amqp_call *call)
{
	return amqp_on_queue_purge(call->c, call->ch, &call->args);
}

enum amqp_verdict amqp_on_confirm(struct amqp_call *call)
{
	return amqp_on_confirm_select(call->c, call->ch, &call->args);
}
