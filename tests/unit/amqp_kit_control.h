/*
 * amqp_kit_control.h - the seam between the kit's transport and its control.
 *
 * Owns: declarations of amqp_kit_control.c.
 * Core: test.
 * Spec: amqp/records.h.
 */
#ifndef TICKWIRE_TESTS_AMQP_KIT_CONTROL_H
#define TICKWIRE_TESTS_AMQP_KIT_CONTROL_H

#include "tests/unit/amqp_kit.h"

extern const struct amqp_ops kit_ops;
bool kit_on_request(void *ctx, const struct amqp_record *rec);
/* Grows whenever a byte, a request or an operation moves. */
uint64_t kit_pulse(const struct kit *k);

#endif
