/*
 * siphash.h - keyed hashing of 4-tuples.
 *
 * Owns: no state; the key is the configured secret.
 * Core: the worker that owns the stack.
 * Spec: SipHash (Aumasson and Bernstein).
 */
#ifndef TICKWIRE_TCPSTACK_SIPHASH_H
#define TICKWIRE_TCPSTACK_SIPHASH_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

struct sip {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t sip_rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = sip_rotl(s->v1, 13) ^ s->v0;
	s->v0 = sip_rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = sip_rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = sip_rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = sip_rotl(s->v1, 17) ^ s->v2;
	s->v2 = sip_rotl(s->v2, 32);
}

/* Words only; where inputs of several lengths meet under one key, the last word tells the length. */
static inline uint64_t siphash(const uint8_t key[16], const uint64_t *words, unsigned word_count, unsigned c_rounds,
			       unsigned d_rounds)
{
	uint64_t k0, k1;
	memcpy(&k0, key, sizeof(k0));
	memcpy(&k1, key + 8, sizeof(k1));
	k0 = le64toh(k0);
	k1 = le64toh(k1);
	struct sip s = {k0 ^ 0x736f6d6570736575ull, k1 ^ 0x646f72616e646f6dull, k0 ^ 0x6c7967656e657261ull,
			k1 ^ 0x7465646279746573ull};
	for (unsigned i = 0; i < word_count; i++) {
		s.v3 ^= words[i];
		for (unsigned r = 0; r < c_rounds; r++)
			sip_round(&s);
		s.v0 ^= words[i];
	}
	s.v2 ^= 0xff;
	for (unsigned r = 0; r < d_rounds; r++)
		sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

/*
 * The table needs no more than SipHash-1-3: all that an attacker gains by a collision is a slow bucket. An IPv4 tuple
 * is one word, for our own address is constant; and as every tuple has that length, none is appended.
 */
static inline uint64_t siphash_tuple(const uint8_t key[16], uint32_t peer_addr_raw, uint32_t ports_raw)
{
	const uint64_t word = (uint64_t)peer_addr_raw << 32 | ports_raw;
	return siphash(key, &word, 1, 1, 3);
}

#endif
