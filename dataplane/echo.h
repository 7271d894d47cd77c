/*
 * echo.h - UDP echo at the Ethernet border: the latency floor of a port.
 *
 * Owns: the turning round of one frame in place.
 * Core: the worker, right after its receive burst, when --udp-echo is given.
 * Spec: RFC 862, with RFC 1122 3.2.1.3 (no answer to or from a broadcast or multicast address).
 */
#ifndef TICKWIRE_DP_ECHO_H
#define TICKWIRE_DP_ECHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DP_ECHO_PORT 7u

/*
 * Turns an UDP datagram for `ipv4`:7 at `mac` into its own answer. False: it is none, and the frame is untouched.
 * The checksums stay right, because every sum of theirs has the same terms after the exchange.
 */
bool dp_echo_turn(uint8_t *frame, size_t len, const uint8_t mac[6], const uint8_t ipv4[4]);

#endif
