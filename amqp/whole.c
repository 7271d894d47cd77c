/*
 * whole.c - the ordinary publish, whose three frames lie in the segment whole: read in one go and copied in two pieces.
 *
 * Owns: no state.
 * Core: the worker; it is asked at the head of every frame that begins a publish.
 * Spec: AMQP 0-9-1 sections 4.2.3 and 4.2.6. It says yes or no: what is not ordinary, or not right, is left to frame.c from the
 * first octet on, so that there is one place that knows what an error is called. tests/unit/test_amqp_front_whole.c gives both the
 * same.
 */
#include "amqp/back.h"
#include "amqp/methods.h"
#include "amqp/table.h"

#define HEAD_BYTES     AMQP_FRAME_HEAD_BYTES
#define ARGS_MIN       5u                                      /* reserved, two empty names, bits */
#define HEADER_MIN     14u                                     /* class, weight, body size, flags */
#define BEHIND_MIN     (2 * (HEAD_BYTES + 1) + HEADER_MIN + 1) /* the shortest frames of a header and a body */
#define WHOLE_MIN      (HEAD_BYTES + 4 + ARGS_MIN + 1 + BEHIND_MIN)
#define FLAG_IMMEDIATE 2u
#define HIGH_BITS      0x8080808080808080ull

/* ---- the arguments of basic.publish ---- */

/* At least five octets. */
static bool ascii(const uint8_t *p, uint32_t len)
{
	uint64_t all = 0;

	if (len < 8)
		return ((amqp_get_be32(p) | amqp_get_be32(p + len - 4)) & (uint32_t)HIGH_BITS) == 0;
	for (uint32_t i = 0; i + 8 < len; i += 8)
		all |= amqp_get_word(p + i);
	return ((all | amqp_get_word(p + len - 8)) & HIGH_BITS) == 0;
}

bool amqp_publish_args_ok(const uint8_t *args, uint32_t len)
{
	uint32_t exchange, key;

	if (len < ARGS_MIN)
		return false;
	exchange = args[2];
	if (len < ARGS_MIN + exchange)
		return false;
	key = args[3 + exchange];
	if (len != ARGS_MIN + exchange + key)
		return false;
	/* Octets that are no names are looked at with them: a high bit there costs a closer look and nothing else. */
	return ascii(args, len) || (amqp_utf8_valid(args + 3, exchange) && amqp_utf8_valid(args + 4 + exchange, key));
}

/* ---- the three frames ---- */

struct whole {
	struct amqp_channel *ch;
	const uint8_t *args; /* of the method */
	uint32_t args_bytes;
	struct amqp_span header;
	const uint8_t *body;
	uint32_t body_bytes;
	bool persistent;
};

static bool read_method(struct amqp_conn *c, const uint8_t *p, size_t avail, struct whole *w)
{
	uint32_t size = amqp_get_be32(p + 3), channel = amqp_get_be16(p + 1);

	if (size > c->frame_max - (HEAD_BYTES + 1) || (size_t)size + HEAD_BYTES + 1 + BEHIND_MIN > avail || size < 4 + ARGS_MIN ||
	    p[HEAD_BYTES + size] != AMQP_FRAME_END)
		return false;
	if (c->state != AMQP_CONN_RUNNING || channel == 0 || channel > c->channel_max)
		return false;
	w->ch = amqp_channel_find(c, (uint16_t)channel);
	if (w->ch == NULL || w->ch->state != AMQP_CH_OPEN || w->ch->content != AMQP_CONTENT_NONE)
		return false;
	w->args = p + HEAD_BYTES + 4;
	w->args_bytes = size - 4;
	return amqp_publish_args_ok(w->args, w->args_bytes);
}

/* `p` is behind the method frame, whose check left room for the shortest of headers and bodies. */
static bool read_header(struct amqp_conn *c, const uint8_t *p, size_t avail, struct whole *w)
{
	uint32_t size = amqp_get_be32(p + 3);
	struct amqp_props props;
	uint64_t body_bytes;
	const char *why;

	if (p[0] != AMQP_FRAME_HEADER || amqp_get_be16(p + 1) != w->ch->number || size > c->frame_max - (HEAD_BYTES + 1) ||
	    size < HEADER_MIN || (size_t)size + 2 * (HEAD_BYTES + 1) + 1 > avail || p[HEAD_BYTES + size] != AMQP_FRAME_END)
		return false;
	w->header = (struct amqp_span){p + HEAD_BYTES, size};
	if (amqp_get_be32(w->header.ptr) != AMQP_CLASS_BASIC << 16) /* and a weight of 0 */
		return false;
	body_bytes = amqp_get_be64(w->header.ptr + 4);
	if (body_bytes == 0 || body_bytes > c->b->limits.message_bytes_max)
		return false;
	w->body_bytes = (uint32_t)body_bytes;
	if (amqp_props_read(w->header, &props, &why) != 0 || !amqp_publish_props_ok(c, &props))
		return false;
	w->persistent = props.delivery_mode == 2;
	return true;
}

static bool read_body(struct amqp_conn *c, const uint8_t *p, size_t avail, struct whole *w)
{
	uint32_t size = amqp_get_be32(p + 3);

	w->body = p + HEAD_BYTES;
	return p[0] == AMQP_FRAME_BODY && amqp_get_be16(p + 1) == w->ch->number && size == w->body_bytes &&
	       size <= c->frame_max - (HEAD_BYTES + 1) && (size_t)size + HEAD_BYTES + 1 <= avail && w->body[size] == AMQP_FRAME_END;
}

/* ---- the message ---- */

static bool make_message(struct amqp_conn *c, struct whole *w)
{
	struct amqp_broker *b = c->b;
	struct amqp_channel *ch = w->ch;
	uint32_t names_bytes = w->args_bytes - 3;
	uint8_t bits = w->args[w->args_bytes - 1];
	struct amqp_exchange *x;

	if (bits & FLAG_IMMEDIATE)
		return false;
	x = amqp_publish_exchange(c, ch, (struct amqp_span){w->args + 3, w->args[2]});
	if (x == NULL || (x->flags & AMQP_DEF_INTERNAL))
		return false;
	ch->msg = amqp_msg_of_frames(b, w->args + 2, names_bytes, w->header, w->body_bytes);
	if (ch->msg == NULL)
		return false;
	if (w->persistent)
		ch->msg->flags |= AMQP_MSG_PERSISTENT;
	ch->publish_exchange = (uint32_t)(x - b->exchanges);
	ch->publish_generation = b->fib_generation;
	ch->publish_mandatory = bits & 1;
	ch->route_from = 0;
	ch->route_rejected = false;
	ch->body_got = 0;
	ch->content = AMQP_CONTENT_BODY;
	return true;
}

/* The message waits where it waits when its frames came one by one: for its body, which is handed over again. */
static void before_body(struct amqp_conn *c, const struct whole *w)
{
	c->frame_type = AMQP_FRAME_BODY;
	c->frame_channel = w->ch->number;
	c->frame_left = w->body_bytes;
	c->body_kept = false;
	c->b->sample_next = false; /* its stages would not be those of a tick that passes */
}

bool amqp_publish_whole(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used, enum amqp_verdict *verdict)
{
	struct whole w;
	const uint8_t *end = p + avail, *at;

	if (avail < WHOLE_MIN || p[0] != AMQP_FRAME_METHOD || amqp_get_be32(p + HEAD_BYTES) != AMQP_M_basic_publish ||
	    !read_method(c, p, avail, &w))
		return false;
	at = w.args + w.args_bytes + 1;
	if (!read_header(c, at, (size_t)(end - at), &w))
		return false;
	at = w.header.ptr + w.header.len + 1;
	if (!read_body(c, at, (size_t)(end - at), &w) || !make_message(c, &w))
		return false;
	c->recv_cnt += 3;
	AMQP_COUNT_N(c->b, frames_in, 3);
	AMQP_COUNT(c->b, publishes_whole);
	*verdict = amqp_publish_finish(c, w.ch);
	if (*verdict == AMQP_STALL) {
		before_body(c, &w);
		*used = (size_t)(w.body - p);
	} else {
		*used = (size_t)(w.body + w.body_bytes + 1 - p);
	}
	return true;
}
