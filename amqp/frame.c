/*
 * frame.c - from the bytes of a connection to frames: methods and content headers whole, bodies piece by piece.
 *
 * Owns: the parse position of each connection and the buffer that joins a frame split over packets.
 * Core: the worker; the bytes are lent for the call and nothing of them is kept but what was copied.
 * Spec: AMQP 0-9-1 sections 4.2.2 and 4.2.3. Spec says that a frame of unknown type, or without its end octet, ends the
 * connection without a word / we say 501 first, as RabbitMQ does, and then send FIN: what follows cannot be read any more.
 */
#include "amqp/front.h"
#include "amqp/wire.h"

enum parse {
	PARSE_PROTOCOL, /* gathers the eight octets of the protocol header */
	PARSE_HEAD,     /* gathers the seven octets of a frame's head */
	PARSE_PAYLOAD,  /* the head is known; the payload is handled whole */
	PARSE_JOIN,     /* some of it lies in c->join */
	PARSE_BODY,     /* hands the payload over as it comes */
	PARSE_SKIP      /* lets the payload pass */
};

bool amqp_conn_paused(const struct amqp_conn *c)
{
	return c->waiting || c->stalled;
}

void amqp_frame_drop_join(struct amqp_conn *c)
{
	if (c->join != NULL && c->state <= AMQP_CONN_SECURE)
		explicit_bzero(c->join, c->join_len); /* it may hold a password */
	if (c->join != NULL && c->join != c->small)
		amqp_pool_free(c->b->pool, c->join);
	c->join = NULL;
}

/* An error after which the next frame cannot be found. */
static enum amqp_verdict lost_sync(struct amqp_conn *c, const char *what, unsigned figure)
{
	amqp_conn_error(c, 501, 0, 0, "%s (%u)", what, figure);
	amqp_conn_finish(c);
	return AMQP_GONE;
}

/* Copies into c->head until it has `need` octets. True: it has. */
static bool gather(struct amqp_conn *c, uint8_t need, const uint8_t *p, size_t avail, size_t *used)
{
	size_t n = (size_t)(need - c->head_len);

	if (n > avail)
		n = avail;
	memcpy(c->head + c->head_len, p, n);
	c->head_len = (uint8_t)(c->head_len + n);
	*used = n;
	return c->head_len == need;
}

static enum amqp_verdict on_protocol(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used)
{
	if (!gather(c, 8, p, avail, used))
		return AMQP_DONE;
	c->head_len = 0;
	c->parse = PARSE_HEAD;
	if (memcmp(c->head, "AMQP\0\0\x09\x01", 8) != 0)
		return amqp_conn_refuse_protocol(c);
	return amqp_conn_greet(c);
}

/* What a content frame must be on its channel to be taken. */
static enum parse content_mode(struct amqp_conn *c, uint8_t type, uint16_t channel, uint32_t size)
{
	struct amqp_channel *ch = amqp_channel_find(c, channel);

	if (channel == 0 || ch == NULL) {
		amqp_conn_error(c, 504, 0, 0, "content frame on channel %u, which is not open", channel);
		return PARSE_SKIP;
	}
	if (ch->state == AMQP_CH_CLOSING)
		return PARSE_SKIP;
	if (type == AMQP_FRAME_HEADER) {
		if (ch->content == AMQP_CONTENT_HEADER)
			return PARSE_PAYLOAD;
		amqp_conn_error(c, 505, 0, 0, "content header on channel %u, where %s is expected", channel,
				ch->content == AMQP_CONTENT_BODY ? "a body" : "a method");
		return PARSE_SKIP;
	}
	if (ch->content != AMQP_CONTENT_BODY) {
		amqp_conn_error(c, 505, 0, 0, "content body on channel %u, where %s is expected", channel,
				ch->content == AMQP_CONTENT_HEADER ? "a content header" : "a method");
		return PARSE_SKIP;
	}
	if (ch->msg != NULL && size > ch->msg->body_bytes - ch->body_got) {
		amqp_conn_error(c, 501, 0, 0, "the body on channel %u is longer than its header says", channel);
		return PARSE_SKIP;
	}
	return PARSE_BODY;
}

/* How the frame whose head was read is to be handled. */
static enum parse frame_mode(struct amqp_conn *c, uint8_t type, uint16_t channel, uint32_t size)
{
	if (c->state == AMQP_CONN_CLOSING)
		return type == AMQP_FRAME_METHOD && channel == 0 ? PARSE_PAYLOAD : PARSE_SKIP;
	if (type == AMQP_FRAME_HEARTBEAT) {
		if (channel != 0)
			amqp_conn_error(c, 505, 0, 0, "heartbeat on channel %u", channel);
		else if (size != 0)
			amqp_conn_error(c, 501, 0, 0, "heartbeat with a payload of %u octets", size);
		return PARSE_SKIP;
	}
	if (channel > c->channel_max) {
		amqp_conn_error(c, 504, 0, 0, "channel %u is above the limit of %u", channel, c->channel_max);
		return PARSE_SKIP;
	}
	if (type == AMQP_FRAME_METHOD)
		return PARSE_PAYLOAD;
	return content_mode(c, type, channel, size);
}

static enum amqp_verdict on_head(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used)
{
	const uint8_t *head = p;
	uint32_t size;

	if (c->head_len != 0 || avail < AMQP_FRAME_HEAD_BYTES) {
		if (!gather(c, AMQP_FRAME_HEAD_BYTES, p, avail, used))
			return AMQP_DONE;
		head = c->head;
		c->head_len = 0;
	} else {
		*used = AMQP_FRAME_HEAD_BYTES;
	}
	c->frame_type = head[0];
	c->frame_channel = amqp_get_be16(head + 1);
	c->frame_left = size = amqp_get_be32(head + 3);
	c->body_kept = false;
	c->recv_cnt++;
	AMQP_COUNT(c->b, frames_in);
	if (c->frame_type != AMQP_FRAME_METHOD && c->frame_type != AMQP_FRAME_HEADER && c->frame_type != AMQP_FRAME_BODY &&
	    c->frame_type != AMQP_FRAME_HEARTBEAT)
		return lost_sync(c, "unknown frame type", c->frame_type);
	if (size > c->frame_max - (AMQP_FRAME_HEAD_BYTES + 1))
		return lost_sync(c, "frame payload too large", size);
	c->parse = (uint8_t)frame_mode(c, c->frame_type, c->frame_channel, size);
	return AMQP_DONE;
}

/* A method or a content header, complete. */
static enum amqp_verdict handle_whole(struct amqp_conn *c, const uint8_t *payload, uint32_t size)
{
	struct amqp_span s = {payload, size};
	struct amqp_channel *ch;

	if (payload[size] != AMQP_FRAME_END)
		return lost_sync(c, "wrong frame end octet", payload[size]);
	if (c->frame_type == AMQP_FRAME_METHOD)
		return amqp_dispatch(c, c->frame_channel, s);
	ch = amqp_channel_find(c, c->frame_channel);
	if (ch == NULL || ch->state != AMQP_CH_OPEN || ch->content != AMQP_CONTENT_HEADER)
		return AMQP_DONE; /* closed while the frame was on its way */
	return amqp_on_content_header(c, ch, s);
}

static enum amqp_verdict on_payload(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used)
{
	uint32_t need = c->frame_left + 1; /* with the frame end */
	enum amqp_verdict v;

	if (avail >= need) {
		v = handle_whole(c, p, c->frame_left);
		if (v != AMQP_STALL) {
			*used = need;
			c->parse = PARSE_HEAD;
		}
		return v;
	}
	if (need <= sizeof c->small)
		c->join = c->small;
	else if (need <= AMQP_FRAME_MIN_SIZE)
		c->join = amqp_pool_alloc_client(c->b->pool, need);
	else
		c->join = amqp_pool_alloc_message(c->b->pool, need);
	if (c->join == NULL)
		return AMQP_STALL;
	AMQP_COUNT(c->b, frames_joined);
	memcpy(c->join, p, avail);
	c->join_len = (uint32_t)avail;
	c->join_need = need;
	c->parse = PARSE_JOIN;
	*used = avail;
	return AMQP_DONE;
}

static enum amqp_verdict handle_joined(struct amqp_conn *c)
{
	enum amqp_verdict v = handle_whole(c, c->join, c->join_need - 1);

	if (v != AMQP_STALL) {
		amqp_frame_drop_join(c); /* unless amqp_ask() has taken it over */
		c->parse = PARSE_HEAD;
	}
	return v;
}

static enum amqp_verdict on_join(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used)
{
	size_t n = c->join_need - c->join_len;

	if (n > avail)
		n = avail;
	memcpy(c->join + c->join_len, p, n);
	c->join_len += (uint32_t)n;
	*used = n;
	return c->join_len == c->join_need ? handle_joined(c) : AMQP_DONE;
}

static enum amqp_verdict body_piece(struct amqp_conn *c, const uint8_t *p, uint32_t len)
{
	struct amqp_channel *ch = amqp_channel_find(c, c->frame_channel);

	if (len == 0 || ch == NULL || ch->state != AMQP_CH_OPEN || ch->content != AMQP_CONTENT_BODY)
		return AMQP_DONE;
	return amqp_on_content_body(c, ch, p, len);
}

/*
 * The last octet of a body completes a message, so it is handed over only when the frame-end octet behind it has been seen: a
 * frame that is malformed publishes nothing, wherever the packets cut it.
 */
static enum amqp_verdict on_body(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used)
{
	uint32_t left = c->frame_left, n = left, kept = 0;
	enum amqp_verdict v;

	if (c->body_kept || avail > left) {
		if (p[c->body_kept ? 0 : left] != AMQP_FRAME_END)
			return lost_sync(c, "wrong frame end octet", p[c->body_kept ? 0 : left]);
		v = c->body_kept ? body_piece(c, &c->body_octet, 1) : body_piece(c, p, left);
		if (v == AMQP_STALL)
			return v;
		*used = c->body_kept ? 1 : (size_t)left + 1;
		c->parse = PARSE_HEAD;
		return v;
	}
	if (avail == left) {
		kept = 1;
		n = left - 1;
	} else {
		n = (uint32_t)avail;
	}
	v = body_piece(c, p, n);
	if (v == AMQP_STALL)
		return v;
	if (kept != 0) {
		c->body_kept = true;
		c->body_octet = p[n];
	}
	c->frame_left = left - n;
	*used = n + kept;
	return v;
}

static enum amqp_verdict on_skip(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used)
{
	if (avail <= c->frame_left) {
		c->frame_left -= (uint32_t)avail;
		*used = avail;
		return AMQP_DONE;
	}
	*used = (size_t)c->frame_left + 1;
	if (p[c->frame_left] != AMQP_FRAME_END)
		return lost_sync(c, "wrong frame end octet", p[c->frame_left]);
	c->parse = PARSE_HEAD;
	return AMQP_DONE;
}

/* A client that asks and asks but does not read the answers is not read either. */
static bool too_much_unsent(struct amqp_conn *c)
{
	struct amqp_broker *b = c->b;

	if (c->send_oct == c->unsent_checked_oct)
		return false;
	if (!b->ops.writable(c->io))
		return true;
	c->unsent_checked_oct = c->send_oct;
	return false;
}

static inline bool begins_publish(const uint8_t *p, size_t avail)
{
	return avail >= AMQP_FRAME_HEAD_BYTES + 4 && amqp_get_be32(p + AMQP_FRAME_HEAD_BYTES) == AMQP_M_basic_publish;
}

static enum amqp_verdict step(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used)
{
	enum amqp_verdict v;

	switch ((enum parse)c->parse) {
	case PARSE_PROTOCOL:
		return on_protocol(c, p, avail, used);
	case PARSE_HEAD:
		if (c->head_len != 0 || !begins_publish(p, avail) || !amqp_publish_whole(c, p, avail, used, &v))
			return on_head(c, p, avail, used);
		if (v == AMQP_STALL)
			c->parse = PARSE_BODY;
		return v;
	case PARSE_PAYLOAD:
		return on_payload(c, p, avail, used);
	case PARSE_JOIN:
		return on_join(c, p, avail, used);
	case PARSE_BODY:
		return on_body(c, p, avail, used);
	default:
		return on_skip(c, p, avail, used);
	}
}

static void stalled_for(struct amqp_conn *c, bool unsent)
{
	if (unsent)
		AMQP_COUNT(c->b, stalls_unsent);
	else
		AMQP_COUNT_N(c->b, stalls_memory, !c->unfinished);
	c->unfinished = false;
	amqp_conn_stall(c);
}

/* False: the connection is gone. */
static bool leave_input(struct amqp_conn *c)
{
	c->in_input = false;
	if (c->reset_due) {
		amqp_conn_abort(c);
		return false;
	}
	if (c->state == AMQP_CONN_CLOSED)
		amqp_frame_drop_join(c);
	return true;
}

size_t amqp_conn_input(struct amqp_conn *c, const uint8_t *data, size_t len)
{
	size_t at = 0;

	if (c->state == AMQP_CONN_FREE)
		return len;
	c->last_recv_ns = c->b->now_ns;
	if (c->in_input || amqp_conn_paused(c))
		return 0;
	c->in_input = true;
	while (at < len && !amqp_conn_paused(c) && !c->reset_due) {
		size_t used = 0;

		if (c->state == AMQP_CONN_CLOSED) {
			at = len;
		} else if (c->parse == PARSE_HEAD && c->head_len == 0 && too_much_unsent(c)) {
			stalled_for(c, true);
		} else {
			if (step(c, data + at, len - at, &used) == AMQP_STALL)
				stalled_for(c, false);
			at += used;
		}
	}
	c->recv_oct += at;
	return leave_input(c) ? at : len;
}

void amqp_conn_proceed(struct amqp_conn *c)
{
	if (c->in_input || amqp_conn_paused(c))
		return;
	c->in_input = true;
	if (c->parse == PARSE_JOIN && c->join_len == c->join_need && c->state != AMQP_CONN_CLOSED)
		if (handle_joined(c) == AMQP_STALL)
			stalled_for(c, false);
	if (leave_input(c) && !amqp_conn_paused(c))
		c->b->ops.resume(c->io);
}
