/*
 * amqp_front_test.h - what the test programs of amqp/'s front half share: cmocka, a kit per test, the check at its end.
 *
 * Owns: nothing.
 * Core: test.
 * Spec: none of its own.
 */
#ifndef TICKWIRE_TESTS_AMQP_FRONT_TEST_H
#define TICKWIRE_TESTS_AMQP_FRONT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "amqp/table.h"
#include "tests/unit/amqp_kit.h"

static inline int kit_setup(void **state)
{
	struct kit *k = malloc(sizeof *k);

	if (k == NULL)
		return -1;
	kit_init(k, NULL);
	*state = k;
	return 0;
}

/* Every test ends with all pools back where they were. */
static inline int kit_teardown(void **state)
{
	struct kit *k = *state;
	const char *broken = kit_fini(k);

	free(k);
	if (broken != NULL)
		print_error("at the end: %s\n", broken);
	return broken == NULL ? 0 : -1;
}

#define kit_test(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)

static inline void expect(struct kit_client *cl, const char *transcript)
{
	assert_string_equal(kit_read(cl), transcript);
}

static inline uint64_t counted(const struct kit *k, enum amqp_counter counter)
{
	return amqp_counters(k->b)[counter];
}

static inline struct amqp_span span_of(const char *text)
{
	return amqp_text(text);
}

#endif
