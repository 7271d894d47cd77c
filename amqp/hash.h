/*
 * hash.h - the keyed hash of everything that clients name: exchanges, queues, routing keys, consumer tags.
 *
 * Owns: nothing; a pure function over bytes and the broker's secret.
 * Core: the worker.
 * Spec: SipHash-1-3 (Aumasson, Bernstein): short input, and a client that chooses names cannot aim at one bucket.
 */
#ifndef TICKWIRE_AMQP_HASH_H
#define TICKWIRE_AMQP_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct amqp_sip {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t amqp_rotl64(uint64_t v, unsigned n)
{
	return v << n | v >> (64 - n);
}

static inline void amqp_sip_round(struct amqp_sip *s)
{
	s->v0 += s->v1;
	s->v1 = amqp_rotl64(s->v1, 13) ^ s->v0;
	s->v0 = amqp_rotl64(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = amqp_rotl64(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = amqp_rotl64(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = amqp_rotl64(s->v1, 17) ^ s->v2;
	s->v2 = amqp_rotl64(s->v2, 32);
}

static inline void amqp_sip_word(struct amqp_sip *s, uint64_t w)
{
	s->v3 ^= w;
	amqp_sip_round(s);
	s->v0 ^= w;
}

/* The hash of `bytes` in the space `scope` (a vhost, an exchange, a channel): equal names in two scopes do not collide. */
static inline uint64_t amqp_hash(const uint8_t secret[16], uint64_t scope, const uint8_t *bytes, size_t len)
{
	struct amqp_sip s;
	uint64_t k0, k1, w, last = (uint64_t)len << 56;
	size_t at = 0;

	memcpy(&k0, secret, 8);
	memcpy(&k1, secret + 8, 8);
	s.v0 = k0 ^ 0x736f6d6570736575u;
	s.v1 = k1 ^ 0x646f72616e646f6du;
	s.v2 = k0 ^ 0x6c7967656e657261u;
	s.v3 = k1 ^ 0x7465646279746573u;
	amqp_sip_word(&s, scope);
	for (; len - at >= 8; at += 8) {
		memcpy(&w, bytes + at, 8);
		amqp_sip_word(&s, w);
	}
	for (unsigned shift = 0; at < len; at++, shift += 8)
		last |= (uint64_t)bytes[at] << shift;
	amqp_sip_word(&s, last);
	s.v2 ^= 0xff;
	amqp_sip_round(&s);
	amqp_sip_round(&s);
	amqp_sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

#endif
