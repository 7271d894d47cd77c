/*
 * cksum.c - the Internet checksum over spans of any alignment, and copying with the sum on the way.
 *
 * Owns: no state.
 * Core: any.
 * Spec: RFC 1071.
 */
#include "tcpstack/cksum.h"
#include "tcpstack/tcpstack.h"

/* The last 1 to 7 bytes as the low (first in memory) bytes of a word, where less than a word was given altogether. */
static __attribute__((noinline)) uint64_t load_short(const uint8_t *p, size_t len)
{
	uint64_t v = 0;
	memcpy(&v, p, len);
	return v;
}

uint64_t tcps_sum_words(uint64_t sum, const uint8_t *data, size_t len)
{
	if (__builtin_expect(len < 8, 0))
		return tcps_sum_add(sum, load_short(data, len));
	const uint8_t *end = data + len;
	for (; len >= 64; len -= 64, data += 64)
		sum = tcps_sum32(tcps_sum32(sum, data), data + 32);
	if (len >= 32) {
		sum = tcps_sum32(sum, data);
		data += 32;
		len -= 32;
	}
	for (; len >= 8; len -= 8, data += 8)
		sum = tcps_sum_add(sum, tcps_load64(data));
	/* The rest is the end of the last whole word; shifting drops what was added before. */
	if (len != 0)
		sum = tcps_sum_add(sum, tcps_load64(end - 8) >> (64 - 8 * len));
	return sum;
}

uint64_t tcps_copy_sum(uint8_t *to, const uint8_t *from, size_t len)
{
	uint64_t sum = 0;
	if (__builtin_expect(len < 8, 0)) {
		memcpy(to, from, len);
		return load_short(from, len);
	}
	const uint8_t *end = from + len;
	uint8_t *to_end = to + len;
	for (; len >= 32; len -= 32, from += 32, to += 32) {
		memcpy(to, from, 32);
		sum = tcps_sum32(sum, from);
	}
	for (; len >= 8; len -= 8, from += 8, to += 8) {
		uint64_t v = tcps_load64(from);
		memcpy(to, &v, 8);
		sum = tcps_sum_add(sum, v);
	}
	if (len != 0) {
		uint64_t v = tcps_load64(end - 8);
		memcpy(to_end - 8, &v, 8); /* some bytes a second time */
		sum = tcps_sum_add(sum, v >> (64 - 8 * len));
	}
	return sum;
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
