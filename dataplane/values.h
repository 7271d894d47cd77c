/*
 * values.h - text to numbers, sizes, addresses: the values of options.
 *
 * Owns: nothing; pure functions.
 * Core: the main thread, at start.
 * Spec: RFC 791 dotted quads, RFC 4291 2.2, RFC 4632 prefix lengths, IEEE 802 addresses.
 */
#ifndef TICKWIRE_DP_VALUES_H
#define TICKWIRE_DP_VALUES_H

#include <stdbool.h>
#include <stdint.h>

/* Each returns false when `text` is anything but the value alone; *out is then untouched. */
bool dp_value_number(const char *text, uint64_t *out); /* decimal digits */
bool dp_value_size(const char *text, uint64_t *out);   /* with an optional K, M, G or T (powers of 1024) */
bool dp_value_ipv4(const char *text, uint8_t out[4]);
/* As RFC 4291 2.2 writes it, without a zone. */
bool dp_value_ipv6(const char *text, uint8_t out[16]);
bool dp_value_mac(const char *text, uint8_t out[6]);
bool dp_value_bool(const char *text, bool *out); /* yes no true false on off 1 0 */

#endif
