/*
 * table.h - AMQP field tables in wire form: check, walk, find, compare, write, print.
 *
 * Owns: nothing; tables stay the bytes that they are, without their leading 32-bit length.
 * Core: pure functions for a worker and for control; no allocation, nesting and field count bounded.
 * Spec: AMQP 0-9-1 section 4.2.5.5, with RabbitMQ's type octets (t b B s u U I i l L f d D S x A T F V).
 */
#ifndef TICKWIRE_AMQP_TABLE_H
#define TICKWIRE_AMQP_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp/records.h"

#define AMQP_TABLE_DEPTH_MAX        32u    /* tables and arrays inside each other, the outermost table included */
#define AMQP_TABLE_FIELDS_MAX       16384u /* over all levels */
#define AMQP_TABLE_EQUAL_FIELDS_MAX 256u   /* larger tables are equal when their bytes are */

/*
 * Walks the whole table, every length and type octet. Errors: 0 is success; 501 when something is cut short or longer than
 * what holds it, 502 for a type octet or nesting that is not allowed; *why is then a sentence (may be NULL).
 * Everything below wants a table that has passed.
 */
int amqp_table_check(const uint8_t *bytes, size_t len, const char **why);

struct amqp_field {
	struct amqp_span name;  /* empty for an array's elements */
	struct amqp_span value; /* S x: the text; F A: what is inside; others: the wire octets after the type */
	uint8_t type;           /* the wire's type octet */
	uint8_t scale;          /* D: decimal places */
	int64_t i;              /* t b B s u U I i l L; T (seconds); D (unscaled) */
	double d;               /* f d */
};
struct amqp_table_iter {
	const uint8_t *at, *end;
	bool array;
};
void amqp_table_iter(struct amqp_table_iter *it, const uint8_t *bytes, size_t len);
void amqp_array_iter(struct amqp_table_iter *it, const uint8_t *bytes, size_t len); /* the value span of an A field */
bool amqp_table_next(struct amqp_table_iter *it, struct amqp_field *out);

/* The first field of that name. */
bool amqp_table_find(const uint8_t *bytes, size_t len, const char *name, struct amqp_field *out);
bool amqp_field_is_int(const struct amqp_field *f);
bool amqp_field_is_text(const struct amqp_field *f); /* S or x */
bool amqp_field_name_is(const struct amqp_field *f, const char *name);

/* Equal by value: int8 100 is int32 100, the order of names does not matter, text S is text x. */
bool amqp_field_equal(const struct amqp_field *a, const struct amqp_field *b);
bool amqp_table_equal(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len);

/* A bounded writer over the caller's buffer; after an overflow every put fails and the bytes are unusable. */
struct amqp_table_writer {
	uint8_t *buf;
	size_t len, cap;
	bool overflow;
	uint32_t depth;
	size_t open[4]; /* where the lengths of opened tables go */
};
void amqp_table_begin(struct amqp_table_writer *w, uint8_t *buf, size_t cap);
bool amqp_table_put_str(struct amqp_table_writer *w, const char *name, const void *text, size_t len);
bool amqp_table_put_cstr(struct amqp_table_writer *w, const char *name, const char *text);
bool amqp_table_put_bool(struct amqp_table_writer *w, const char *name, bool v);
bool amqp_table_put_i32(struct amqp_table_writer *w, const char *name, int32_t v);
bool amqp_table_put_i64(struct amqp_table_writer *w, const char *name, int64_t v);
bool amqp_table_put_double(struct amqp_table_writer *w, const char *name, double v);
bool amqp_table_put_void(struct amqp_table_writer *w, const char *name);
bool amqp_table_put_table(struct amqp_table_writer *w, const char *name, const uint8_t *bytes, size_t len);
bool amqp_table_put_field(struct amqp_table_writer *w, const struct amqp_field *f); /* a field as it was read */
/* A table written in place: open, put…, close; up to four inside each other. */
bool amqp_table_open(struct amqp_table_writer *w, const char *name);
bool amqp_table_close(struct amqp_table_writer *w);

/*
 * "name=value, other=value" as text, always terminated; what does not fit ends in "...". Octets that are not printable
 * ASCII or UTF-8's upper half become \xNN. Returns the length written.
 */
size_t amqp_table_print(char *out, size_t cap, const uint8_t *bytes, size_t len);

/* True for well-formed UTF-8 (no surrogates, no overlong forms, at most U+10FFFF). */
bool amqp_utf8_valid(const uint8_t *bytes, size_t len);

#endif
