/*
 * message.c - a published message, rendered once: names, content header and body framed as every consumer gets them.
 *
 * Owns: the messages of one worker, in its message pool, counted by holder.
 * Core: the worker.
 * Spec: AMQP 0-9-1 section 4.2.3 (frames) and 4.2.6 (content).
 */
#include <assert.h>

#include "amqp/wire.h"

#define FRAME_END 0xce

/* Head of a content frame with channel 0; the number is patched in at each delivery. */
static uint8_t *put_frame_head(uint8_t *p, uint8_t type, uint32_t payload_bytes)
{
	p[0] = type;
	p[1] = 0;
	p[2] = 0;
	amqp_set_be32(p + 3, payload_bytes);
	return p + 7;
}

static uint8_t *put_shortstr(uint8_t *p, struct amqp_span s)
{
	*p++ = (uint8_t)s.len;
	if (s.len != 0)
		memcpy(p, s.ptr, s.len);
	return p + s.len;
}

/* Room for a template, with where its parts begin; nothing is written into it yet. NULL: none. */
static inline struct amqp_msg *new_template(struct amqp_broker *b, uint32_t names_bytes, uint32_t header_bytes, uint32_t body_bytes)
{
	uint32_t header_at = names_bytes + 1, body_at = header_at + 8 + header_bytes;
	size_t bytes = (size_t)body_at + (body_bytes != 0 ? (size_t)body_bytes + 8 : 0);
	struct amqp_msg *m;

	if (bytes > UINT32_MAX)
		return NULL;
	m = amqp_pool_alloc_message(b->pool, sizeof *m + bytes);
	if (m == NULL)
		return NULL;
	m->refs = 1;
	m->flags = 0;
	m->template_bytes = (uint32_t)bytes;
	m->names_bytes = names_bytes;
	m->header_frame_at = header_at;
	m->header_bytes = header_bytes;
	m->body_frame_at = body_at;
	m->body_bytes = body_bytes;
	b->messages_count++;
	b->message_refs++;
	return m;
}

struct amqp_msg *amqp_msg_new(struct amqp_broker *b, struct amqp_span exchange, struct amqp_span key, struct amqp_span header,
			      uint32_t body_bytes)
{
	struct amqp_msg *m;
	uint8_t *p;

	assert(exchange.len <= 255 && key.len <= 255);
	m = new_template(b, 2 + exchange.len + key.len, header.len, body_bytes);
	if (m == NULL)
		return NULL;
	p = put_shortstr(put_shortstr(m->data, exchange), key);
	*p++ = FRAME_END;
	p = put_frame_head(p, 2, header.len);
	memcpy(p, header.ptr, header.len);
	p += header.len;
	*p++ = FRAME_END;
	if (body_bytes != 0) {
		p = put_frame_head(p, 3, body_bytes);
		p[body_bytes] = FRAME_END;
	}
	return m;
}

struct amqp_msg *amqp_msg_of_frames(struct amqp_broker *b, const uint8_t *names, uint32_t names_bytes, struct amqp_span header,
				    uint32_t body_bytes)
{
	struct amqp_msg *m = new_template(b, names_bytes, header.len, body_bytes);

	if (m == NULL)
		return NULL;
	memcpy(m->data, names, names_bytes);
	memcpy(m->data + names_bytes, header.ptr - 8, m->template_bytes - names_bytes);
	amqp_set_be16(m->data + m->header_frame_at + 1, 0);
	amqp_set_be16(m->data + m->body_frame_at + 1, 0);
	return m;
}

void amqp_msg_ref(struct amqp_broker *b, struct amqp_msg *m)
{
	m->refs++;
	b->message_refs++;
}

void amqp_msg_unref(struct amqp_broker *b, struct amqp_msg *m)
{
	assert(m->refs > 0);
	b->message_refs--;
	if (--m->refs != 0)
		return;
	b->messages_count--;
	amqp_pool_free(b->pool, m);
}

void amqp_msg_lend(struct amqp_broker *b, struct amqp_msg *m)
{
	amqp_msg_ref(b, m);
	b->lent_refs++;
}

void amqp_msg_ref_released(struct amqp_broker *b, struct amqp_msg *m)
{
	assert(b->lent_refs > 0);
	b->lent_refs--;
	amqp_msg_unref(b, m);
}
