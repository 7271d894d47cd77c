/*
 * cksum.c - the Internet checksum over spans of any alignment, and copying with the sum on the way.
 *
 * Owns: no state.
 * Core: any.
 * Spec: RFC 1071. Sums stay in memory order (RFC 1071 2 (B)), so nothing is byte-swapped.
 */
#include "tcpstack/internal.h"

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

/* The carry is added back at once: one add and one add-with-carry. */
static inline uint64_t add64(uint64_t sum, uint64_t v)
{
	sum += v;
	return sum + (sum < v);
}

/* The last 0 to 7 bytes as the low (first in memory) bytes of a word. */
static inline uint64_t load_tail(const uint8_t *p, size_t len)
{
	uint64_t v = 0;
	if (len & 4) {
		uint32_t w;
		memcpy(&w, p, sizeof(w));
		v = w;
		p += 4;
	}
	if (len & 2) {
		uint16_t w;
		memcpy(&w, p, sizeof(w));
		v |= (uint64_t)w << (len & 4) * 8;
		p += 2;
	}
	if (len & 1)
		v |= (uint64_t)*p << (len & 6) * 8;
	return v;
}

uint64_t tcps_sum_words(uint64_t sum, const uint8_t *data, size_t len)
{
	for (; len >= 32; len -= 32, data += 32) {
		sum = add64(sum, load64(data));
		sum = add64(sum, load64(data + 8));
		sum = add64(sum, load64(data + 16));
		sum = add64(sum, load64(data + 24));
	}
	for (; len >= 8; len -= 8, data += 8)
		sum = add64(sum, load64(data));
	return len != 0 ? add64(sum, load_tail(data, len)) : sum;
}

uint64_t tcps_copy_sum(uint8_t *to, const uint8_t *from, size_t len)
{
	uint64_t sum = 0;
	for (; len >= 32; len -= 32, from += 32, to += 32) {
		uint64_t a = load64(from), b = load64(from + 8), c = load64(from + 16), d = load64(from + 24);
		memcpy(to, &a, 8);
		memcpy(to + 8, &b, 8);
		memcpy(to + 16, &c, 8);
		memcpy(to + 24, &d, 8);
		sum = add64(add64(add64(add64(sum, a), b), c), d);
	}
	for (; len >= 8; len -= 8, from += 8, to += 8) {
		uint64_t v = load64(from);
		memcpy(to, &v, 8);
		sum = add64(sum, v);
	}
	if (len != 0) {
		sum = add64(sum, load_tail(from, len));
		memcpy(to, from, len);
	}
	return sum;
}

uint16_t tcps_sum_fold64(uint64_t sum)
{
	sum = (sum & 0xffffffffu) + (sum >> 32);
	sum = (sum & 0xffffffffu) + (sum >> 32);
	sum = (sum & 0xffffu) + (sum >> 16);
	sum = (sum & 0xffffu) + (sum >> 16);
	return (uint16_t)sum;
}

uint32_t tcps_cksum_add(uint32_t sum, const void *data, size_t len, bool odd)
{
	uint16_t part = tcps_sum_fold64(tcps_sum_words(0, data, len));
	/* After an odd count of bytes each byte stands in the other half of its word: RFC 1071 2 (B). */
	if (odd)
		part = (uint16_t)(part << 8 | part >> 8);
	sum += part;
	return sum + (sum < part);
}

uint16_t tcps_cksum_fold(uint32_t sum)
{
	return (uint16_t)~tcps_sum_fold64(sum);
}
