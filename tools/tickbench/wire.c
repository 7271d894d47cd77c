/* Encoding and decoding of the AMQP 0-9-1 methods that tickbench speaks.
 * Runs inside tickbench, mostly while connections are set up; the per-delivery path is inline in wire.h and deliver.h.
 * Specification: AMQP 0-9-1, section 4.2 (framing, data types, field tables). */
#include "tools/tickbench/wire.h"

#include <stdlib.h>

bool tb_out_init(struct tb_out *o, size_t cap_bytes)
{
	memset(o, 0, sizeof(*o));
	o->bytes = malloc(cap_bytes);
	o->cap = cap_bytes;
	return o->bytes != NULL;
}

void tb_out_fini(struct tb_out *o)
{
	free(o->bytes);
	o->bytes = NULL;
}

void tb_out_compact(struct tb_out *o)
{
	if (o->head == 0)
		return;
	memmove(o->bytes, o->bytes + o->head, o->tail - o->head);
	o->tail -= o->head;
	o->frame = o->frame > o->head ? o->frame - o->head : 0;
	o->head = 0;
}

void tb_put_bytes(struct tb_out *o, const void *bytes, size_t length)
{
	if (o->overflow || o->cap - o->tail < length) {
		o->overflow = true;
		return;
	}
	if (length)
		memcpy(o->bytes + o->tail, bytes, length);
	o->tail += length;
}

void tb_put8(struct tb_out *o, uint8_t v)
{
	tb_put_bytes(o, &v, 1);
}

void tb_put16(struct tb_out *o, uint16_t v)
{
	uint8_t b[2];
	tb_set16(b, v);
	tb_put_bytes(o, b, sizeof(b));
}

void tb_put32(struct tb_out *o, uint32_t v)
{
	uint8_t b[4];
	tb_set32(b, v);
	tb_put_bytes(o, b, sizeof(b));
}

void tb_put64(struct tb_out *o, uint64_t v)
{
	uint8_t b[8];
	tb_set64(b, v);
	tb_put_bytes(o, b, sizeof(b));
}

void tb_put_shortstr(struct tb_out *o, const char *text)
{
	size_t length = strlen(text);

	if (length > 255) {
		o->overflow = true;
		return;
	}
	tb_put8(o, (uint8_t)length);
	tb_put_bytes(o, text, length);
}

void tb_put_longstr(struct tb_out *o, const void *bytes, size_t length)
{
	tb_put32(o, (uint32_t)length);
	tb_put_bytes(o, bytes, length);
}

void tb_put_field_text(struct tb_out *o, const char *name, const char *value)
{
	tb_put_shortstr(o, name);
	tb_put8(o, 'S');
	tb_put_longstr(o, value, strlen(value));
}

void tb_put_field_bool(struct tb_out *o, const char *name, bool value)
{
	tb_put_shortstr(o, name);
	tb_put8(o, 't');
	tb_put8(o, value);
}

size_t tb_put_block_begin(struct tb_out *o)
{
	tb_put32(o, 0);
	return o->tail;
}

void tb_put_block_end(struct tb_out *o, size_t mark)
{
	if (!o->overflow)
		tb_set32(o->bytes + mark - 4, (uint32_t)(o->tail - mark));
}

void tb_frame_begin(struct tb_out *o, uint8_t type, uint16_t channel)
{
	o->frame = o->tail;
	tb_put8(o, type);
	tb_put16(o, channel);
	tb_put32(o, 0);
}

void tb_method_begin(struct tb_out *o, uint16_t channel, enum tb_method method)
{
	tb_frame_begin(o, TB_FRAME_METHOD, channel);
	tb_put32(o, (uint32_t)method);
}

void tb_frame_finish(struct tb_out *o)
{
	if (!o->overflow)
		tb_set32(o->bytes + o->frame + 3, (uint32_t)(o->tail - o->frame - 7));
	tb_put8(o, TB_FRAME_END);
}

void tb_put_bare_method(struct tb_out *o, uint16_t channel, enum tb_method method)
{
	tb_method_begin(o, channel, method);
	tb_frame_finish(o);
}

struct tb_args tb_args_of(const struct tb_frame *f)
{
	struct tb_args a = {.at = f->payload + 4, .left = f->length >= 4 ? f->length - 4 : 0, .bad = f->length < 4};
	return a;
}

static const uint8_t *take(struct tb_args *a, size_t length)
{
	const uint8_t *at = a->at;

	if (a->bad || a->left < length) {
		a->bad = true;
		return NULL;
	}
	a->at += length;
	a->left -= length;
	return at;
}

uint8_t tb_args8(struct tb_args *a)
{
	const uint8_t *p = take(a, 1);
	return p ? p[0] : 0;
}

uint16_t tb_args16(struct tb_args *a)
{
	const uint8_t *p = take(a, 2);
	return p ? tb_get16(p) : 0;
}

uint32_t tb_args32(struct tb_args *a)
{
	const uint8_t *p = take(a, 4);
	return p ? tb_get32(p) : 0;
}

uint64_t tb_args64(struct tb_args *a)
{
	const uint8_t *p = take(a, 8);
	return p ? tb_get64(p) : 0;
}

static void copy_text(char *out, size_t size, const uint8_t *bytes, size_t length)
{
	size_t n = length < size - 1 ? length : size - 1;

	for (size_t i = 0; i < n; i++)
		/* What a peer says goes to a terminal: control characters do not. */
		out[i] = bytes[i] < 0x20 || bytes[i] == 0x7F ? '?' : (char)bytes[i];
	out[n] = '\0';
}

void tb_args_shortstr(struct tb_args *a, char *out, size_t size)
{
	size_t length = tb_args8(a);
	const uint8_t *p = take(a, length);

	copy_text(out, size, p, p ? length : 0);
}

const uint8_t *tb_args_block(struct tb_args *a, size_t *length)
{
	*length = tb_args32(a);
	const uint8_t *p = take(a, *length);
	if (!p)
		*length = 0;
	return p;
}

void tb_args_longstr(struct tb_args *a, char *out, size_t size)
{
	size_t length;
	const uint8_t *p = tb_args_block(a, &length);

	copy_text(out, size, p, length);
}

static size_t fixed_size(uint8_t type)
{
	switch (type) {
	case 't':
	case 'b':
	case 'B':
		return 1;
	case 's':
	case 'U':
	case 'u':
		return 2;
	case 'I':
	case 'i':
	case 'f':
		return 4;
	case 'D':
		return 5;
	case 'L':
	case 'l':
	case 'd':
	case 'T':
		return 8;
	default:
		return 0;
	}
}

void tb_table_find_text(const uint8_t *table, size_t length, const char *name, char *out, size_t size)
{
	struct tb_args a = {.at = table, .left = length, .bad = false};

	out[0] = '\0';
	while (a.left && !a.bad) {
		char field[256];
		tb_args_shortstr(&a, field, sizeof(field));
		uint8_t type = tb_args8(&a);
		if (type == 'S' && strcmp(field, name) == 0) {
			tb_args_longstr(&a, out, size);
			return;
		}
		if (type == 'S' || type == 'F' || type == 'A' || type == 'x') {
			size_t skipped;
			tb_args_block(&a, &skipped);
		} else if (type != 'V') {
			size_t fixed = fixed_size(type);
			if (!fixed)
				return;
			take(&a, fixed);
		}
	}
}
