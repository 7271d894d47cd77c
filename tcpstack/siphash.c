/*
 * siphash.c - the choice of initial sequence numbers and timestamp offsets.
 *
 * Owns: no state; the key is the configured secret.
 * Core: the worker that owns the stack.
 * Spec: SipHash-2-4 (Aumasson and Bernstein), RFC 6528, RFC 7323 5.4.
 */
#include "tcpstack/internal.h"

uint64_t tcps_siphash24(const uint8_t key[16], const uint64_t *words, unsigned word_count)
{
	return siphash(key, words, word_count, 2, 4);
}

void tcps_isn(const struct tcps *t, const struct tcps_peer *peer, uint32_t *iss, uint32_t *ts_offset)
{
	const uint8_t *own = t->own[peer->own].addr;
	const uint64_t words4[3] = {(uint64_t)peer->key << 32 | t->addr_raw, peer->ports_raw, (uint64_t)24 << 56};
	const uint64_t words6[6] = {tcps_load64(peer->addr), tcps_load64(peer->addr + 8), tcps_load64(own), tcps_load64(own + 8),
				    peer->ports_raw,         (uint64_t)48 << 56};
	uint64_t f = peer->v6 ? tcps_siphash24(t->cfg.secret, words6, 6) : tcps_siphash24(t->cfg.secret, words4, 3);
	*iss = (uint32_t)f + (uint32_t)(t->now_ns / 4000); /* RFC 6528: M counts in steps of 4 us */
	*ts_offset = (uint32_t)(f >> 32);
}

uint32_t tcps_key6(const struct tcps *t, const uint8_t addr[16], unsigned own)
{
	const uint64_t words[3] = {tcps_load64(addr), tcps_load64(addr + 8), (uint64_t)17 << 56 | own};
	return (uint32_t)siphash(t->cfg.secret, words, 3, 1, 3);
}

uint64_t tcps_jitter(const struct tcps *t, uint64_t salt, uint64_t bound)
{
	const uint64_t words[4] = {t->now_ns, salt, tcps_load64(t->own[OWN_LINK].addr + 8) ^ t->addr_raw, (uint64_t)32 << 56};
	return tcps_siphash24(t->cfg.secret, words, 4) % bound;
}
