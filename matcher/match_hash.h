/*
 * match_hash.h - the keyed hash of the matcher: SipHash-1-3 with a 64-bit tweak as its first block.
 *
 * Owns: nothing; both functions are pure.
 * Core: any; worker look-ups and the image sums of control use the same code.
 * Spec: Aumasson & Bernstein, "SipHash: a fast short-input PRF" (2012), with one compression and three final rounds.
 */
#ifndef TICKWIRE_MATCH_HASH_H
#define TICKWIRE_MATCH_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct match_sip {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t match_rotl(uint64_t x, unsigned bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static inline void match_sip_round(struct match_sip *s)
{
	s->v0 += s->v1;
	s->v1 = match_rotl(s->v1, 13) ^ s->v0;
	s->v0 = match_rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = match_rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = match_rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = match_rotl(s->v1, 17) ^ s->v2;
	s->v2 = match_rotl(s->v2, 32);
}

static inline void match_sip_block(struct match_sip *s, uint64_t m)
{
	s->v3 ^= m;
	match_sip_round(s);
	s->v0 ^= m;
}

/* Hashes `tweak` followed by `len` bytes under `key`. Core: any. */
static inline uint64_t match_hash(const uint64_t key[2], uint64_t tweak, const uint8_t *data, size_t len)
{
	struct match_sip s = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
			      key[1] ^ 0x7465646279746573u};
	uint64_t last = (uint64_t)(len + 8) << 56;
	uint64_t m;

	match_sip_block(&s, tweak);
	for (; len >= 8; data += 8, len -= 8) {
		memcpy(&m, data, 8);
		match_sip_block(&s, m);
	}
	for (size_t i = 0; i < len; i++)
		last |= (uint64_t)data[i] << (8 * i);
	match_sip_block(&s, last);
	s.v2 ^= 0xff;
	match_sip_round(&s);
	match_sip_round(&s);
	match_sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

/* Spreads an already keyed hash together with a small index over 64 bits. Core: any. */
static inline uint64_t match_mix(uint64_t hash, uint64_t index)
{
	uint64_t x = hash ^ (index * 0x9e3779b97f4a7c15u);

	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	return x ^ (x >> 32);
}

#endif
