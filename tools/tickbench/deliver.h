/* Puts deliveries together from method, header and body frames, and writes and reads the payload of a tick.
 * Runs on the subscribers' thread (reading) and the publishing thread (writing), inline: the client shares a small machine.
 * Specification: AMQP 0-9-1, section 4.2.6 (content framing) and basic.deliver. */
#ifndef TICKBENCH_DELIVER_H
#define TICKBENCH_DELIVER_H

#include "tools/tickbench/wire.h"

#define TB_PAYLOAD_MIN_BYTES 32
#define TB_PAYLOAD_MAGIC     0x54424E43 /* "TBNC" */

struct tb_tick {
	uint64_t seq;
	uint64_t intended_ns;
	uint64_t delivery_tag;
};

/* Ties the stamps together, so that a body that was cut, mixed up or altered is seen. */
static inline uint64_t tb_payload_seal(uint32_t run, uint64_t seq, uint64_t intended_ns)
{
	uint64_t x = seq * UINT64_C(0x9E3779B97F4A7C15) ^ intended_ns ^ (uint64_t)run << 32;

	x ^= x >> 29;
	x *= UINT64_C(0xBF58476D1CE4E5B9);
	return x ^ x >> 32;
}

static inline void tb_payload_write(uint8_t *p, uint32_t run, uint64_t seq, uint64_t intended_ns)
{
	tb_set32(p, TB_PAYLOAD_MAGIC);
	tb_set32(p + 4, run);
	tb_set64(p + 8, seq);
	tb_set64(p + 16, intended_ns);
	tb_set64(p + 24, tb_payload_seal(run, seq, intended_ns));
}

static inline bool tb_payload_read(const uint8_t *p, uint32_t run, struct tb_tick *tick)
{
	tick->seq = tb_get64(p + 8);
	tick->intended_ns = tb_get64(p + 16);
	return tb_get32(p) == TB_PAYLOAD_MAGIC && tb_get32(p + 4) == run &&
	       tb_get64(p + 24) == tb_payload_seal(run, tick->seq, tick->intended_ns);
}

enum tb_assembly_state { TB_ASSEMBLY_METHOD, TB_ASSEMBLY_HEADER, TB_ASSEMBLY_BODY };

struct tb_assembly {
	enum tb_assembly_state state;
	uint32_t head_length;
	uint64_t body_left;
	uint64_t body_size;
	uint64_t delivery_tag;
	uint8_t head[TB_PAYLOAD_MIN_BYTES]; /* the body's first bytes, wherever the broker cut its frames */
};

enum tb_assembled {
	TB_ASSEMBLED_PART,  /* the frame belongs to a delivery that goes on */
	TB_ASSEMBLED_TICK,  /* *body is the first 32 bytes of a whole delivery, or NULL when it was shorter */
	TB_ASSEMBLED_OTHER, /* not part of a delivery */
	TB_ASSEMBLED_ERROR, /* frames in an order that the specification forbids */
};

static inline enum tb_assembled tb_assemble_end(struct tb_assembly *a, const uint8_t *first, const uint8_t **body)
{
	a->state = TB_ASSEMBLY_METHOD;
	*body = first;
	return TB_ASSEMBLED_TICK;
}

static inline enum tb_assembled tb_assemble_body(struct tb_assembly *a, const struct tb_frame *f, const uint8_t **body)
{
	if (f->length > a->body_left)
		return TB_ASSEMBLED_ERROR;
	a->body_left -= f->length;
	if (a->head_length == 0 && f->length >= TB_PAYLOAD_MIN_BYTES) {
		if (a->body_left == 0)
			return tb_assemble_end(a, f->payload, body);
		memcpy(a->head, f->payload, TB_PAYLOAD_MIN_BYTES);
		a->head_length = TB_PAYLOAD_MIN_BYTES;
		return TB_ASSEMBLED_PART;
	}
	if (a->head_length < TB_PAYLOAD_MIN_BYTES) {
		uint32_t room = TB_PAYLOAD_MIN_BYTES - a->head_length, n = f->length < room ? f->length : room;
		memcpy(a->head + a->head_length, f->payload, n);
		a->head_length += n;
	}
	if (a->body_left)
		return TB_ASSEMBLED_PART;
	return tb_assemble_end(a, a->head_length == TB_PAYLOAD_MIN_BYTES ? a->head : NULL, body);
}

/* Feeds one frame of a consuming channel. */
static inline enum tb_assembled tb_assemble(struct tb_assembly *a, const struct tb_frame *f, const uint8_t **body)
{
	if (f->type == TB_FRAME_METHOD) {
		if (tb_frame_method(f) != TB_BASIC_DELIVER)
			return TB_ASSEMBLED_OTHER;
		size_t tag_at = f->length > 4 ? 5u + f->payload[4] : 0;
		if (a->state != TB_ASSEMBLY_METHOD || tag_at == 0 || tag_at + 8 > f->length)
			return TB_ASSEMBLED_ERROR;
		a->delivery_tag = tb_get64(f->payload + tag_at);
		a->state = TB_ASSEMBLY_HEADER;
		return TB_ASSEMBLED_PART;
	}
	if (f->type == TB_FRAME_HEADER) {
		if (a->state != TB_ASSEMBLY_HEADER || f->length < 14)
			return TB_ASSEMBLED_ERROR;
		a->body_size = a->body_left = tb_get64(f->payload + 4);
		a->head_length = 0;
		a->state = TB_ASSEMBLY_BODY;
		return a->body_left ? TB_ASSEMBLED_PART : tb_assemble_end(a, NULL, body);
	}
	if (f->type == TB_FRAME_BODY)
		return a->state == TB_ASSEMBLY_BODY ? tb_assemble_body(a, f, body) : TB_ASSEMBLED_ERROR;
	return TB_ASSEMBLED_OTHER;
}

#endif
