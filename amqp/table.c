/*
 * table.c - the field-table codec: one walk that checks, one that reads, one that writes.
 *
 * Owns: no state.
 * Core: called by a worker on what clients send, and by control on what a worker passes on.
 * Spec: AMQP 0-9-1 section 4.2.5.5; type octets as RabbitMQ reads them (s is a signed 16-bit number, L is signed).
 */
#include "amqp/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static uint64_t get_be(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

static void put_be(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = bytes; i-- > 0; v >>= 8)
		p[i] = (uint8_t)v;
}

/* Octets of a value of fixed size; -1: it has a 32-bit length before it; -2: no such type. */
static int fixed_size(uint8_t type)
{
	switch (type) {
	case 'V':
		return 0;
	case 't':
	case 'b':
	case 'B':
		return 1;
	case 's':
	case 'u':
	case 'U':
		return 2;
	case 'I':
	case 'i':
	case 'f':
		return 4;
	case 'D':
		return 5;
	case 'l':
	case 'L':
	case 'd':
	case 'T':
		return 8;
	case 'S':
	case 'x':
	case 'A':
	case 'F':
		return -1;
	default:
		return -2;
	}
}

static int refuse(int code, const char *sentence, const char **why)
{
	if (why != NULL)
		*why = sentence;
	return code;
}

int amqp_table_check(const uint8_t *bytes, size_t len, const char **why)
{
	struct {
		size_t end;
		bool array;
	} level[AMQP_TABLE_DEPTH_MAX];
	uint32_t depth = 0, fields = 0;
	size_t at = 0;

	level[0].end = len;
	level[0].array = false;
	for (;;) {
		size_t end = level[depth].end;
		uint8_t type;
		int size;
		size_t value;

		if (at == end) {
			if (depth == 0)
				return 0;
			depth--;
			continue;
		}
		if (++fields > AMQP_TABLE_FIELDS_MAX)
			return refuse(502, "a field table has too many fields", why);
		if (!level[depth].array) {
			size_t name = bytes[at];

			if (end - at < 1 + name)
				return refuse(501, "the name of a table's field is cut short", why);
			at += 1 + name;
		}
		if (at == end)
			return refuse(501, "a table's field has no value", why);
		type = bytes[at++];
		size = fixed_size(type);
		if (size == -2)
			return refuse(502, "a table's field has an unknown type", why);
		if (size >= 0) {
			if (end - at < (size_t)size)
				return refuse(501, "the value of a table's field is cut short", why);
			at += (size_t)size;
			continue;
		}
		if (end - at < 4)
			return refuse(501, "the length of a table's field is cut short", why);
		value = (size_t)get_be(bytes + at, 4);
		at += 4;
		if (end - at < value)
			return refuse(501, "a table's field is longer than what holds it", why);
		if (type == 'S' || type == 'x') {
			at += value;
			continue;
		}
		if (depth + 1 == AMQP_TABLE_DEPTH_MAX)
			return refuse(502, "a field table is nested too deep", why);
		depth++;
		level[depth].end = at + value;
		level[depth].array = type == 'A';
	}
}

void amqp_table_iter(struct amqp_table_iter *it, const uint8_t *bytes, size_t len)
{
	it->at = bytes;
	it->end = len != 0 ? bytes + len : bytes;
	it->array = false;
}

void amqp_array_iter(struct amqp_table_iter *it, const uint8_t *bytes, size_t len)
{
	amqp_table_iter(it, bytes, len);
	it->array = true;
}

static void decode_scalar(struct amqp_field *f)
{
	const uint8_t *p = f->value.ptr;

	switch (f->type) {
	case 't':
		f->i = p[0] != 0;
		break;
	case 'b':
		f->i = (int8_t)p[0];
		break;
	case 'B':
		f->i = p[0];
		break;
	case 's':
	case 'U':
		f->i = (int16_t)get_be(p, 2);
		break;
	case 'u':
		f->i = (int64_t)get_be(p, 2);
		break;
	case 'I':
		f->i = (int32_t)get_be(p, 4);
		break;
	case 'i':
		f->i = (int64_t)get_be(p, 4);
		break;
	case 'l':
	case 'L':
	case 'T':
		f->i = (int64_t)get_be(p, 8);
		break;
	case 'D':
		f->scale = p[0];
		f->i = (int32_t)get_be(p + 1, 4);
		break;
	case 'f': {
		uint32_t bits = (uint32_t)get_be(p, 4);
		float v;

		memcpy(&v, &bits, sizeof v);
		f->d = (double)v;
		break;
	}
	case 'd': {
		uint64_t bits = get_be(p, 8);

		memcpy(&f->d, &bits, sizeof f->d);
		break;
	}
	default:
		break;
	}
}

bool amqp_table_next(struct amqp_table_iter *it, struct amqp_field *out)
{
	const uint8_t *at = it->at;
	size_t left = (size_t)(it->end - at), value;
	int size;

	memset(out, 0, sizeof *out);
	if (left == 0)
		return false;
	if (!it->array) {
		out->name = (struct amqp_span){at + 1, at[0]};
		if (left < 1 + (size_t)at[0] + 1)
			return false;
		left -= 1 + (size_t)at[0];
		at += 1 + (size_t)at[0];
	}
	out->type = *at++;
	left--;
	size = fixed_size(out->type);
	if (size == -2)
		return false;
	if (size == -1) {
		if (left < 4)
			return false;
		value = (size_t)get_be(at, 4);
		at += 4;
		left -= 4;
	} else {
		value = (size_t)size;
	}
	if (left < value)
		return false;
	out->value = (struct amqp_span){at, (uint32_t)value};
	decode_scalar(out);
	it->at = at + value;
	return true;
}

bool amqp_field_name_is(const struct amqp_field *f, const char *name)
{
	return strlen(name) == f->name.len && memcmp(f->name.ptr, name, f->name.len) == 0;
}

bool amqp_table_find(const uint8_t *bytes, size_t len, const char *name, struct amqp_field *out)
{
	struct amqp_table_iter it;

	amqp_table_iter(&it, bytes, len);
	while (amqp_table_next(&it, out))
		if (amqp_field_name_is(out, name))
			return true;
	return false;
}

bool amqp_field_is_int(const struct amqp_field *f)
{
	return f->type != '\0' && strchr("bBsuUIilL", f->type) != NULL;
}

bool amqp_field_is_text(const struct amqp_field *f)
{
	return f->type == 'S' || f->type == 'x';
}

static bool is_float(const struct amqp_field *f)
{
	return f->type == 'f' || f->type == 'd';
}

/* An integer against a double, exactly: a conversion of the integer alone would round above 2^53. */
static bool int_equals_double(int64_t i, double d)
{
	if (!(d >= -9223372036854775808.0 && d < 9223372036854775808.0))
		return false;
	return (double)(int64_t)d == d && (int64_t)d == i;
}

static bool span_equal(struct amqp_span a, struct amqp_span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static bool container_equal(struct amqp_span a, struct amqp_span b, bool array, uint32_t depth);

static bool field_equal(const struct amqp_field *a, const struct amqp_field *b, uint32_t depth)
{
	if (amqp_field_is_int(a) && amqp_field_is_int(b))
		return a->i == b->i;
	if (is_float(a) && is_float(b))
		return a->d <= b->d && a->d >= b->d;
	if (amqp_field_is_int(a) && is_float(b))
		return int_equals_double(a->i, b->d);
	if (is_float(a) && amqp_field_is_int(b))
		return int_equals_double(b->i, a->d);
	if (amqp_field_is_text(a) && amqp_field_is_text(b))
		return span_equal(a->value, b->value);
	if (a->type != b->type)
		return false;
	if (a->type == 't')
		return a->i == b->i;
	if (a->type == 'F' || a->type == 'A')
		return depth + 1 < AMQP_TABLE_DEPTH_MAX && container_equal(a->value, b->value, a->type == 'A', depth + 1);
	return span_equal(a->value, b->value);
}

/* Every field of `a` has one of the same name and value in `b`. */
static bool covers(struct amqp_span a, struct amqp_span b, uint32_t depth)
{
	struct amqp_table_iter ia, ib;
	struct amqp_field fa, fb;

	amqp_table_iter(&ia, a.ptr, a.len);
	while (amqp_table_next(&ia, &fa)) {
		bool found = false;

		amqp_table_iter(&ib, b.ptr, b.len);
		while (!found && amqp_table_next(&ib, &fb))
			found = span_equal(fa.name, fb.name);
		if (!found || !field_equal(&fa, &fb, depth))
			return false;
	}
	return true;
}

static uint32_t count_fields(struct amqp_span s, bool array)
{
	struct amqp_table_iter it;
	struct amqp_field f;
	uint32_t n = 0;

	amqp_table_iter(&it, s.ptr, s.len);
	it.array = array;
	while (n <= AMQP_TABLE_EQUAL_FIELDS_MAX && amqp_table_next(&it, &f))
		n++;
	return n;
}

static bool container_equal(struct amqp_span a, struct amqp_span b, bool array, uint32_t depth)
{
	struct amqp_table_iter ia, ib;
	struct amqp_field fa, fb;
	uint32_t n;

	if (span_equal(a, b))
		return true;
	n = count_fields(a, array);
	if (n != count_fields(b, array) || n > AMQP_TABLE_EQUAL_FIELDS_MAX)
		return false;
	/* Both ways, since a name given twice would otherwise hide one that is missing; tables nest too seldom for 2^depth to show.
	 */
	if (!array)
		return covers(a, b, depth) && (depth > 4 || covers(b, a, depth));
	amqp_array_iter(&ia, a.ptr, a.len);
	amqp_array_iter(&ib, b.ptr, b.len);
	while (amqp_table_next(&ia, &fa))
		if (!amqp_table_next(&ib, &fb) || !field_equal(&fa, &fb, depth))
			return false;
	return true;
}

bool amqp_field_equal(const struct amqp_field *a, const struct amqp_field *b)
{
	return field_equal(a, b, 0);
}

bool amqp_table_equal(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	return container_equal((struct amqp_span){a, (uint32_t)a_len}, (struct amqp_span){b, (uint32_t)b_len}, false, 0);
}

/* ---- writing ---- */

void amqp_table_begin(struct amqp_table_writer *w, uint8_t *buf, size_t cap)
{
	memset(w, 0, sizeof *w);
	w->buf = buf;
	w->cap = cap;
}

/* Name, type octet and room for the value: where the value goes, or NULL. */
static uint8_t *put_head(struct amqp_table_writer *w, struct amqp_span name, uint8_t type, size_t value_bytes)
{
	uint8_t *p = w->buf + w->len;

	if (w->overflow || name.len > 255 || value_bytes > w->cap || w->cap - w->len < 2 + (size_t)name.len + value_bytes) {
		w->overflow = true;
		return NULL;
	}
	*p++ = (uint8_t)name.len;
	if (name.len != 0)
		memcpy(p, name.ptr, name.len);
	p += name.len;
	*p++ = type;
	w->len += 2 + name.len + value_bytes;
	return p;
}

static struct amqp_span text_span(const char *s)
{
	return (struct amqp_span){(const uint8_t *)s, (uint32_t)strlen(s)};
}

static bool put_scalar(struct amqp_table_writer *w, const char *name, uint8_t type, uint64_t v, unsigned bytes)
{
	uint8_t *p = put_head(w, text_span(name), type, bytes);

	if (p == NULL)
		return false;
	put_be(p, v, bytes);
	return true;
}

static bool put_sized(struct amqp_table_writer *w, struct amqp_span name, uint8_t type, const void *data, size_t len)
{
	uint8_t *p;

	if (len > UINT32_MAX - 4) {
		w->overflow = true;
		return false;
	}
	p = put_head(w, name, type, 4 + len);
	if (p == NULL)
		return false;
	put_be(p, len, 4);
	if (len != 0)
		memcpy(p + 4, data, len);
	return true;
}

bool amqp_table_put_str(struct amqp_table_writer *w, const char *name, const void *text, size_t len)
{
	return put_sized(w, text_span(name), 'S', text, len);
}

bool amqp_table_put_cstr(struct amqp_table_writer *w, const char *name, const char *text)
{
	return amqp_table_put_str(w, name, text, strlen(text));
}

bool amqp_table_put_bool(struct amqp_table_writer *w, const char *name, bool v)
{
	return put_scalar(w, name, 't', v, 1);
}

bool amqp_table_put_i32(struct amqp_table_writer *w, const char *name, int32_t v)
{
	return put_scalar(w, name, 'I', (uint32_t)v, 4);
}

bool amqp_table_put_i64(struct amqp_table_writer *w, const char *name, int64_t v)
{
	return put_scalar(w, name, 'l', (uint64_t)v, 8);
}

bool amqp_table_put_double(struct amqp_table_writer *w, const char *name, double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof bits);
	return put_scalar(w, name, 'd', bits, 8);
}

bool amqp_table_put_void(struct amqp_table_writer *w, const char *name)
{
	return put_head(w, text_span(name), 'V', 0) != NULL;
}

bool amqp_table_put_table(struct amqp_table_writer *w, const char *name, const uint8_t *bytes, size_t len)
{
	return put_sized(w, text_span(name), 'F', bytes, len);
}

bool amqp_table_put_field(struct amqp_table_writer *w, const struct amqp_field *f)
{
	uint8_t *p;

	if (fixed_size(f->type) == -1)
		return put_sized(w, f->name, f->type, f->value.ptr, f->value.len);
	p = put_head(w, f->name, f->type, f->value.len);
	if (p == NULL)
		return false;
	if (f->value.len != 0)
		memcpy(p, f->value.ptr, f->value.len);
	return true;
}

bool amqp_table_open(struct amqp_table_writer *w, const char *name)
{
	if (w->depth == sizeof w->open / sizeof w->open[0] || !put_sized(w, text_span(name), 'F', NULL, 0)) {
		w->overflow = true;
		return false;
	}
	w->open[w->depth++] = w->len;
	return true;
}

bool amqp_table_close(struct amqp_table_writer *w)
{
	size_t start;

	if (w->overflow || w->depth == 0)
		return false;
	start = w->open[--w->depth];
	put_be(w->buf + start - 4, w->len - start, 4);
	return true;
}

/* ---- printing ---- */

struct printer {
	char *out;
	size_t len, cap;
	bool full;
};

static void emit(struct printer *p, const char *text, size_t len)
{
	if (p->full)
		return;
	if (p->cap - p->len <= len + 3) { /* room for the dots, always */
		memcpy(p->out + p->len, "...", 3);
		p->len += 3;
		p->full = true;
		return;
	}
	memcpy(p->out + p->len, text, len);
	p->len += len;
}

static void emit_text(struct printer *p, struct amqp_span s)
{
	bool utf8 = amqp_utf8_valid(s.ptr, s.len);

	for (uint32_t i = 0; i < s.len && !p->full; i++) {
		char hex[8];

		if ((s.ptr[i] >= 0x20 && s.ptr[i] < 0x7f) || (utf8 && s.ptr[i] >= 0x80)) {
			emit(p, (const char *)&s.ptr[i], 1);
		} else {
			snprintf(hex, sizeof hex, "\\x%02x", s.ptr[i]);
			emit(p, hex, 4);
		}
	}
}

static void emit_container(struct printer *p, struct amqp_span s, bool array, uint32_t depth);

static void emit_value(struct printer *p, const struct amqp_field *f, uint32_t depth)
{
	char text[64];
	int n;

	switch (f->type) {
	case 'V':
		n = snprintf(text, sizeof text, "void");
		break;
	case 't':
		n = snprintf(text, sizeof text, "%s", f->i ? "true" : "false");
		break;
	case 'f':
	case 'd':
		n = snprintf(text, sizeof text, "%.17g", f->d);
		break;
	case 'D':
		n = snprintf(text, sizeof text, "%" PRId64 "e-%u", f->i, (unsigned)f->scale);
		break;
	case 'S':
	case 'x':
		emit_text(p, f->value);
		return;
	case 'F':
	case 'A':
		emit(p, f->type == 'A' ? "[" : "{", 1);
		if (depth + 1 < AMQP_TABLE_DEPTH_MAX)
			emit_container(p, f->value, f->type == 'A', depth + 1);
		emit(p, f->type == 'A' ? "]" : "}", 1);
		return;
	default:
		n = snprintf(text, sizeof text, "%" PRId64, f->i);
		break;
	}
	emit(p, text, (size_t)n);
}

static void emit_container(struct printer *p, struct amqp_span s, bool array, uint32_t depth)
{
	struct amqp_table_iter it;
	struct amqp_field f;
	bool first = true;

	amqp_table_iter(&it, s.ptr, s.len);
	it.array = array;
	while (!p->full && amqp_table_next(&it, &f)) {
		if (!first)
			emit(p, ", ", 2);
		first = false;
		if (!array) {
			emit_text(p, f.name);
			emit(p, "=", 1);
		}
		emit_value(p, &f, depth);
	}
}

size_t amqp_table_print(char *out, size_t cap, const uint8_t *bytes, size_t len)
{
	struct printer p = {.out = out, .cap = cap};

	if (cap < 4) {
		if (cap != 0)
			out[0] = '\0';
		return 0;
	}
	emit_container(&p, (struct amqp_span){bytes, (uint32_t)len}, false, 0);
	out[p.len] = '\0';
	return p.len;
}

bool amqp_utf8_valid(const uint8_t *bytes, size_t len)
{
	size_t i = 0;

	while (i < len) {
		uint8_t c = bytes[i++];
		uint32_t more, min, cp;

		if (c < 0x80)
			continue;
		if (c >= 0xc2 && c <= 0xdf)
			more = 1, min = 0x80, cp = c & 0x1fu;
		else if (c >= 0xe0 && c <= 0xef)
			more = 2, min = 0x800, cp = c & 0x0fu;
		else if (c >= 0xf0 && c <= 0xf4)
			more = 3, min = 0x10000, cp = c & 0x07u;
		else
			return false;
		if (len - i < more)
			return false;
		for (; more > 0; more--, i++) {
			if ((bytes[i] & 0xc0) != 0x80)
				return false;
			cp = cp << 6 | (bytes[i] & 0x3fu);
		}
		if (cp < min || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
			return false;
	}
	return true;
}
