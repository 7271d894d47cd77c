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

void tcps_isn(const struct tcps *t, uint32_t peer_addr_raw, uint32_t ports_raw, uint32_t *iss, uint32_t *ts_offset)
{
	const uint64_t words[3] = {(uint64_t)peer_addr_raw << 32 | t->addr_raw, ports_raw, (uint64_t)24 << 56};
	uint64_t f = tcps_siphash24(t->cfg.secret, words, 3);
	*iss = (uint32_t)f + (uint32_t)(t->now_ns / 4000); /* RFC 6528: M counts in steps of 4 us */
	*ts_offset = (uint32_t)(f >> 32);
}
