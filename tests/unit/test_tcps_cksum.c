/*
 * test_tcps_cksum.c - the Internet checksum against an independent reference, over every way to cut a span in three.
 *
 * Owns: nothing.
 * Core: tests only.
 * Spec: RFC 1071.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tcpstack/internal.h"

#define LEN 211u

/* The definition, two bytes at a time in network order. */
static uint16_t reference(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;
	for (size_t i = 0; i < len; i++)
		sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static uint16_t stored(uint16_t value)
{
	uint8_t bytes[2];
	memcpy(bytes, &value, 2);
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static void fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = (uint8_t)(seed >> 24);
	}
}

static void every_split_in_three_gives_the_sum_of_the_whole(void **state)
{
	(void)state;
	uint8_t data[LEN];
	fill(data, LEN, 1);
	uint16_t want = reference(data, LEN);
	for (size_t a = 0; a <= LEN; a++) {
		for (size_t b = a; b <= LEN; b++) {
			uint32_t sum = tcps_cksum_add(0, data, a, false);
			sum = tcps_cksum_add(sum, data + a, b - a, a & 1);
			sum = tcps_cksum_add(sum, data + b, LEN - b, b & 1);
			assert_int_equal(stored(tcps_cksum_fold(sum)), want);
		}
	}
}

static void the_lengths_that_break_dpdk_22_11_come_out_right(void **state)
{
	(void)state;
	static const size_t splits[][2] = {{101, 100}, {7, 200}, {100, 101}, {8, 200}};
	uint8_t data[256];
	fill(data, sizeof(data), 2);
	for (unsigned i = 0; i < 4; i++) {
		size_t first = splits[i][0], second = splits[i][1];
		uint32_t sum = tcps_cksum_add(tcps_cksum_add(0, data, first, false), data + first, second, first & 1);
		assert_int_equal(stored(tcps_cksum_fold(sum)), reference(data, first + second));
	}
}

static void every_length_and_alignment_agrees_with_the_reference(void **state)
{
	(void)state;
	uint8_t data[LEN + 16];
	fill(data, sizeof(data), 3);
	for (size_t off = 0; off < 16; off++) {
		for (size_t len = 0; len <= LEN; len++)
			assert_int_equal(stored(tcps_cksum_fold(tcps_cksum_add(0, data + off, len, false))),
					 reference(data + off, len));
	}
}

static void carries_from_all_ones_are_not_lost(void **state)
{
	(void)state;
	uint8_t data[LEN];
	memset(data, 0xff, sizeof(data));
	for (size_t len = 0; len <= LEN; len++)
		assert_int_equal(stored(tcps_cksum_fold(tcps_cksum_add(0xffff, data, len, false))) & 0xffff,
				 len % 2 == 0 ? 0 : stored(tcps_cksum_fold(tcps_cksum_add(0, data, len, false))));
}

static void a_copy_is_whole_keeps_its_bounds_and_sums_as_the_source(void **state)
{
	(void)state;
	uint8_t from[LEN + 8], to[LEN + 32];
	fill(from, sizeof(from), 4);
	for (size_t off = 0; off < 8; off++) {
		for (size_t len = 0; len <= LEN; len++) {
			memset(to, 0xee, sizeof(to));
			uint64_t sum = tcps_copy_sum(to + 8 + off, from + off, len);
			assert_memory_equal(to + 8 + off, from + off, len);
			for (size_t i = 0; i < 8 + off; i++)
				assert_int_equal(to[i], 0xee);
			for (size_t i = 8 + off + len; i < sizeof(to); i++)
				assert_int_equal(to[i], 0xee);
			assert_int_equal(stored((uint16_t)~tcps_sum_fold64(sum)), reference(from + off, len));
		}
	}
}

static void adding_the_checksum_makes_the_whole_sum_to_all_ones(void **state)
{
	(void)state;
	uint8_t header[20];
	fill(header, sizeof(header), 5);
	memset(header + 10, 0, 2);
	uint16_t cksum = tcps_cksum_fold(tcps_cksum_add(0, header, sizeof(header), false));
	memcpy(header + 10, &cksum, 2);
	assert_int_equal(tcps_cksum_fold(tcps_cksum_add(0, header, sizeof(header), false)), 0);
	assert_int_equal(tcps_sum_fold64(tcps_sum20(0, header)), 0xffff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_split_in_three_gives_the_sum_of_the_whole),
		cmocka_unit_test(the_lengths_that_break_dpdk_22_11_come_out_right),
		cmocka_unit_test(every_length_and_alignment_agrees_with_the_reference),
		cmocka_unit_test(carries_from_all_ones_are_not_lost),
		cmocka_unit_test(a_copy_is_whole_keeps_its_bounds_and_sums_as_the_source),
		cmocka_unit_test(adding_the_checksum_makes_the_whole_sum_to_all_ones),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_cksum", tests, NULL, NULL);
}
