/*
 * cksum.h - sums of the Internet checksum as the worker's path needs them: inline, 64 bits at a time.
 *
 * Owns: no state.
 * Core: any.
 * Spec: RFC 1071. Sums stay in memory order (2 (B)), so nothing is byte-swapped.
 */
#ifndef TICKWIRE_TCPSTACK_CKSUM_H
#define TICKWIRE_TCPSTACK_CKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t tcps_load64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

/* The carry goes back in at the low end: 2^64 - 1 is a multiple of 2^16 - 1. */
static inline uint64_t tcps_sum_add(uint64_t sum, uint64_t v)
{
	sum += v;
	return sum + (sum < v);
}

/* To 16 bits, not complemented. */
static inline uint16_t tcps_sum_fold64(uint64_t sum)
{
	uint32_t half = (uint32_t)(sum >> 32), s = (uint32_t)sum + half;
	s += s < half;
	s += s << 16 | s >> 16;
	return (uint16_t)(s >> 16);
}

static inline uint64_t tcps_sum32(uint64_t sum, const uint8_t *p)
{
#if defined(__x86_64__)
	/* Compilers make three times as many instructions of a chain of carries. */
	__asm__("addq (%1), %0\n\tadcq 8(%1), %0\n\tadcq 16(%1), %0\n\tadcq 24(%1), %0\n\tadcq $0, %0"
		: "+r"(sum)
		: "r"(p), "m"(*(const uint8_t(*)[32])p)
		: "cc");
	return sum;
#else
	sum = tcps_sum_add(tcps_sum_add(sum, tcps_load64(p)), tcps_load64(p + 8));
	return tcps_sum_add(tcps_sum_add(sum, tcps_load64(p + 16)), tcps_load64(p + 24));
#endif
}

/* A header without options. */
static inline uint64_t tcps_sum20(uint64_t sum, const uint8_t *p)
{
	uint32_t last;
	memcpy(&last, p + 16, sizeof(last));
	return tcps_sum_add(tcps_sum_add(tcps_sum_add(sum, tcps_load64(p)), tcps_load64(p + 8)), last);
}

/* cksum.c: any length and alignment. */
uint64_t tcps_sum_words(uint64_t sum, const uint8_t *data, size_t len);
uint64_t tcps_copy_sum(uint8_t *to, const uint8_t *from, size_t len);

#endif
