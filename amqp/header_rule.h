/*
 * header_rule.h - from AMQP field tables to the matcher's canonical headers rules and subjects.
 *
 * Owns: no state.
 * Core: control for rules (what a binding's arguments ask), a worker for both (rules of operations, subjects of messages).
 * Spec: AMQP 0-9-1 section 3.1.3.4 with RabbitMQ's x-match: all, any, all-with-x, any-with-x.
 */
#ifndef TICKWIRE_AMQP_HEADER_RULE_H
#define TICKWIRE_AMQP_HEADER_RULE_H

#include <stddef.h>
#include <stdint.h>

/*
 * The canonical rule of a binding's arguments (a checked table). Errors: 0 is success; 406 when x-match is not a text that
 * we know, 506 when the rule does not fit; `why` (of why_bytes) then holds a sentence.
 */
int amqp_header_rule(const uint8_t *args, size_t len, uint8_t *out, size_t cap, size_t *out_len, char *why, size_t why_bytes);
/* A rule never needs more room than this. */
static inline size_t amqp_header_rule_bytes(size_t args_len)
{
	return 64 + args_len * 16;
}
/*
 * The canonical subject of a message's headers (a checked table; a message without headers has a subject too).
 * Errors: -1 when it does not fit in `cap`; 0 is success, and *len_out its length.
 */
int amqp_header_subject(const uint8_t *headers, size_t len, uint8_t *out, size_t cap, size_t *len_out);

#endif
