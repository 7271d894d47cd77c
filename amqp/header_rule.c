/*
 * header_rule.c - which fields of a table a headers exchange looks at, and as what kind of value.
 *
 * Owns: no state.
 * Core: control and workers alike, so that both see the same rule in the same arguments.
 * Spec: AMQP 0-9-1 section 3.1.3.4; RabbitMQ: names that begin with "x-" count in the -with-x modes alone.
 */
#include "amqp/header_rule.h"

#include <stdio.h>
#include <string.h>

#include "amqp/table.h"
#include "matcher/matcher.h"

static void value_of(const struct amqp_field *f, struct match_value *v)
{
	memset(v, 0, sizeof *v);
	if (f->type == 'V') {
		v->kind = MATCH_VALUE_VOID;
	} else if (f->type == 't') {
		v->kind = MATCH_VALUE_BOOL;
		v->i = f->i;
	} else if (amqp_field_is_int(f)) {
		v->kind = MATCH_VALUE_INT;
		v->i = f->i;
	} else if (f->type == 'f' || f->type == 'd') {
		v->kind = MATCH_VALUE_DOUBLE;
		v->d = f->d;
	} else {
		v->kind = amqp_field_is_text(f) ? MATCH_VALUE_BYTES : MATCH_VALUE_OTHER;
		v->tag = f->type;
		v->data = f->value.ptr;
		v->len = f->value.len;
	}
}

static bool text_is(const struct amqp_field *f, const char *s)
{
	return f->value.len == strlen(s) && memcmp(f->value.ptr, s, f->value.len) == 0;
}

/* What x-match asks. False: nothing that we know. */
static bool read_mode(const uint8_t *args, size_t len, enum match_headers_mode *mode, bool *with_x, char *why, size_t why_bytes)
{
	struct amqp_field f;

	*mode = MATCH_ALL;
	*with_x = false;
	if (!amqp_table_find(args, len, "x-match", &f))
		return true;
	if (!amqp_field_is_text(&f)) {
		snprintf(why, why_bytes, "Invalid x-match field type '%c'; expected a string", f.type);
		return false;
	}
	if (text_is(&f, "all") || text_is(&f, "all-with-x")) {
		*with_x = f.value.len > 3;
		return true;
	}
	if (text_is(&f, "any") || text_is(&f, "any-with-x")) {
		*mode = MATCH_ANY;
		*with_x = f.value.len > 3;
		return true;
	}
	snprintf(why, why_bytes, "Invalid x-match field value '%.*s'; expected all, any, all-with-x, or any-with-x",
		 (int)(f.value.len < 40 ? f.value.len : 40), (const char *)f.value.ptr);
	return false;
}

int amqp_header_rule(const uint8_t *args, size_t len, uint8_t *out, size_t cap, size_t *out_len, char *why, size_t why_bytes)
{
	struct amqp_table_iter it;
	struct match_headers h;
	enum match_headers_mode mode;
	struct amqp_field f;
	struct match_value v;
	bool with_x;

	if (!read_mode(args, len, &mode, &with_x, why, why_bytes))
		return 406;
	match_headers_rule_begin(&h, out, cap, mode);
	amqp_table_iter(&it, args, len);
	while (amqp_table_next(&it, &f)) {
		if (amqp_field_name_is(&f, "x-match"))
			continue;
		if (!with_x && f.name.len >= 2 && f.name.ptr[0] == 'x' && f.name.ptr[1] == '-')
			continue;
		value_of(&f, &v);
		match_headers_put(&h, f.name.ptr, f.name.len, &v);
	}
	*out_len = match_headers_end(&h);
	if (*out_len != 0 && !h.overflow)
		return 0;
	snprintf(why, why_bytes, "the arguments of the binding are too many or too long");
	return 506;
}

int amqp_header_subject(const uint8_t *headers, size_t len, uint8_t *out, size_t cap, size_t *len_out)
{
	struct amqp_table_iter it;
	struct match_headers h;
	struct amqp_field f;
	struct match_value v;

	match_headers_subject_begin(&h, out, cap);
	amqp_table_iter(&it, headers, len);
	while (amqp_table_next(&it, &f)) {
		value_of(&f, &v);
		if (!match_headers_put(&h, f.name.ptr, f.name.len, &v))
			return -1;
	}
	*len_out = match_headers_end(&h);
	return h.overflow ? -1 : 0;
}
