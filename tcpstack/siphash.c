/*
 * siphash.c - keyed hashing of 4-tuples and the choice of initial sequence numbers.
 *
 * Owns: no state; the key is the configured secret.
 * Core: the worker that owns the stack.
 * Spec: SipHash (Aumasson and Bernstein), RFC 6528, RFC 7323 5.4.
 */
#include "tcpstack/internal.h"

struct sip {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = rotl(s->v1, 13) ^ s->v0;
	s->v0 = rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotl(s->v1, 17) ^ s->v2;
	s->v2 = rotl(s->v2, 32);
}

/* Words only: every input here is padded to words, with its byte count in the top byte of the last. */
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

uint64_t tcps_siphash24(const uint8_t key[16], const uint64_t *words, unsigned word_count)
{
	return siphash(key, words, word_count, 2, 4);
}

/* The table needs no more than SipHash-1-3: what an attacker could learn from a collision is a slow bucket. */
uint64_t tcps_hash_key(const struct tcps *t, uint32_t peer_addr_raw, uint32_t ports_raw)
{
	const uint64_t words[2] = {(uint64_t)peer_addr_raw << 32 | t->addr_raw, (uint64_t)12 << 56 | ports_raw};
	return siphash(t->cfg.secret, words, 2, 1, 3);
}

void tcps_isn(const struct tcps *t, uint32_t peer_addr_raw, uint32_t ports_raw, uint32_t *iss, uint32_t *ts_offset)
{
	const uint64_t words[3] = {(uint64_t)peer_addr_raw << 32 | t->addr_raw, ports_raw, (uint64_t)24 << 56};
	uint64_t f = tcps_siphash24(t->cfg.secret, words, 3);
	*iss = (uint32_t)f + (uint32_t)(t->now_ns / 4000); /* RFC 6528: M counts in steps of 4 us */
	*ts_offset = (uint32_t)(f >> 32);
}
