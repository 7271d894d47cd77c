/*
 * send.c - method frames on their way out: built in a small buffer on the stack, then sent whole or not at all.
 *
 * Owns: nothing but the connection's outgoing counters.
 * Core: the worker.
 * Spec: AMQP 0-9-1 sections 2.3.5 and 4.2.
 */
#include "amqp/front.h"
#include "amqp/wire.h"

static uint8_t *put(struct amqp_writer *w, uint32_t len)
{
	uint8_t *p = w->buf + w->len;

	if (w->overflow || sizeof w->buf - 1 - w->len < len) { /* one octet stays for the frame end */
		w->overflow = true;
		return NULL;
	}
	w->len += len;
	return p;
}

void amqp_method_begin(struct amqp_writer *w, uint16_t channel, uint16_t class_id, uint16_t method_id)
{
	w->overflow = false;
	w->len = AMQP_FRAME_HEAD_BYTES;
	w->buf[0] = AMQP_FRAME_METHOD;
	amqp_set_be16(w->buf + 1, channel);
	amqp_set_be32(w->buf + 3, 0);
	amqp_put_u16(w, class_id);
	amqp_put_u16(w, method_id);
}

void amqp_put_u8(struct amqp_writer *w, uint8_t v)
{
	uint8_t *p = put(w, 1);

	if (p != NULL)
		*p = v;
}

void amqp_put_u16(struct amqp_writer *w, uint16_t v)
{
	uint8_t *p = put(w, 2);

	if (p != NULL)
		amqp_set_be16(p, v);
}

void amqp_put_u32(struct amqp_writer *w, uint32_t v)
{
	uint8_t *p = put(w, 4);

	if (p != NULL)
		amqp_set_be32(p, v);
}

void amqp_put_u64(struct amqp_writer *w, uint64_t v)
{
	uint8_t *p = put(w, 8);

	if (p != NULL)
		amqp_set_be64(p, v);
}

void amqp_put_shortstr(struct amqp_writer *w, const void *s, size_t len)
{
	uint32_t n = len > 255 ? 255 : (uint32_t)len;
	uint8_t *p = put(w, 1 + n);

	if (p == NULL)
		return;
	p[0] = (uint8_t)n;
	if (n != 0)
		memcpy(p + 1, s, n);
}

void amqp_method_end(struct amqp_writer *w)
{
	if (w->overflow)
		return;
	amqp_set_be32(w->buf + 3, w->len - AMQP_FRAME_HEAD_BYTES);
	w->buf[w->len++] = AMQP_FRAME_END;
}

bool amqp_send_method(struct amqp_conn *c, struct amqp_writer *w)
{
	amqp_method_end(w);
	if (c->reset_due || c->state == AMQP_CONN_FREE || c->state == AMQP_CONN_CLOSED)
		return false;
	if (w->overflow || !c->b->ops.send(c->io, w->buf, w->len)) {
		AMQP_COUNT(c->b, aborts_no_room);
		amqp_conn_reset_later(c);
		return false;
	}
	c->last_send_ns = c->b->now_ns;
	c->send_oct += w->len;
	c->send_cnt++;
	return true;
}
