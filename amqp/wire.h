/*
 * wire.h - big-endian readers and writers of AMQP's elementary types.
 *
 * Owns: nothing; pure functions over spans, each bounds-checked (a short read sets `bad` and yields zeros).
 * Core: the worker.
 * Spec: AMQP 0-9-1 section 4.2.5.
 */
#ifndef TICKWIRE_AMQP_WIRE_H
#define TICKWIRE_AMQP_WIRE_H

#include <string.h>

#include "amqp/internal.h"

static inline uint16_t amqp_get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t amqp_get_be32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}
static inline uint64_t amqp_get_be64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return __builtin_bswap64(v);
}
/* Eight octets in the machine's own order: to be compared or tested, not to be read as a number. */
static inline uint64_t amqp_get_word(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}
static inline void amqp_set_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}
static inline void amqp_set_be32(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, 4);
}
static inline void amqp_set_be64(uint8_t *p, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(p, &v, 8);
}

/* memcmp() == 0 for names, which are short: the call would be most of it. */
static inline bool amqp_same_bytes(const uint8_t *a, const uint8_t *b, uint32_t len)
{
	uint32_t i = 0;

	if (len >= 8) {
		for (; i + 8 < len; i += 8)
			if (amqp_get_word(a + i) != amqp_get_word(b + i))
				return false;
		return amqp_get_word(a + len - 8) == amqp_get_word(b + len - 8);
	}
	if (len >= 4)
		return amqp_get_be32(a) == amqp_get_be32(b) && amqp_get_be32(a + len - 4) == amqp_get_be32(b + len - 4);
	for (; i < len; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

static inline bool amqp_reader_has(struct amqp_reader *r, size_t n)
{
	if (!r->bad && (size_t)(r->end - r->p) >= n)
		return true;
	r->bad = true;
	return false;
}
static inline uint8_t amqp_read_u8(struct amqp_reader *r)
{
	return amqp_reader_has(r, 1) ? *r->p++ : 0;
}
static inline uint16_t amqp_read_u16(struct amqp_reader *r)
{
	if (!amqp_reader_has(r, 2))
		return 0;
	r->p += 2;
	return amqp_get_be16(r->p - 2);
}
static inline uint32_t amqp_read_u32(struct amqp_reader *r)
{
	if (!amqp_reader_has(r, 4))
		return 0;
	r->p += 4;
	return amqp_get_be32(r->p - 4);
}
static inline uint64_t amqp_read_u64(struct amqp_reader *r)
{
	if (!amqp_reader_has(r, 8))
		return 0;
	r->p += 8;
	return amqp_get_be64(r->p - 8);
}
static inline struct amqp_span amqp_read_bytes(struct amqp_reader *r, uint32_t len)
{
	struct amqp_span s = {r->p, len};

	if (!amqp_reader_has(r, len))
		return (struct amqp_span){NULL, 0};
	r->p += len;
	return s;
}
static inline struct amqp_span amqp_read_shortstr(struct amqp_reader *r)
{
	return amqp_read_bytes(r, amqp_read_u8(r));
}
/* A longstr, or a table's bytes without its length. */
static inline struct amqp_span amqp_read_longstr(struct amqp_reader *r)
{
	return amqp_read_bytes(r, amqp_read_u32(r));
}

#endif
