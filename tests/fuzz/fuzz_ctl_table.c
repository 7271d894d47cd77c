/*
 * fuzz_ctl_table.c - a field table of a client: checked, walked, printed, compared, made into a rule and a subject.
 *
 * Owns: nothing.
 * Core: libFuzzer, or the replay of the corpus.
 * Spec: amqp/table.h: what passes the check can be walked to its end, and is equal to itself.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/header_rule.h"
#include "amqp/table.h"
#include "matcher/matcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t rule[1 << 17], subject[1 << 17], copy[1 << 16];
	struct amqp_table_writer w;
	struct amqp_table_iter it;
	struct amqp_field f;
	char text[64], why[64];
	size_t rule_len, subject_len, end = 0;
	const char *reason = NULL;
	uint8_t *exact = malloc(size + 1); /* so that a read beyond it is seen */

	assert(exact != NULL);
	memcpy(exact, data, size);
	if (amqp_table_check(exact, size, &reason) != 0) {
		assert(reason != NULL);
		free(exact);
		return 0;
	}
	amqp_table_begin(&w, copy, sizeof copy);
	amqp_table_iter(&it, exact, size);
	while (amqp_table_next(&it, &f)) {
		assert(f.value.ptr >= exact && f.value.ptr + f.value.len <= exact + size);
		end = (size_t)(f.value.ptr + f.value.len - exact);
		amqp_table_put_field(&w, &f);
	}
	assert(end == size && (w.overflow || (w.len == size && memcmp(copy, exact, size) == 0)));
	assert(amqp_table_print(text, sizeof text, exact, size) == strlen(text));
	assert(amqp_table_equal(exact, size, exact, size));
	if (amqp_header_rule(exact, size, rule, sizeof rule, &rule_len, why, sizeof why) == 0 &&
	    amqp_header_subject(exact, size, subject, sizeof subject, &subject_len) == 0 && size < 2000)
		match_oracle(MATCH_HEADERS, rule, rule_len, subject, subject_len);
	free(exact);
	return 0;
}
