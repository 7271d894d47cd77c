/*
 * echo.c - UDP echo at the Ethernet border: the latency floor of a port.
 *
 * Owns: the turning round of one frame in place.
 * Core: the worker, right after its receive burst, when --udp-echo is given.
 * Spec: RFC 862, with RFC 1122 3.2.1.3 (no answer to or from a broadcast or multicast address).
 */
#include "dataplane/echo.h"

#include <string.h>

#define ETHER_BYTES    14u
#define IPV4_MIN_BYTES 20u
#define UDP_BYTES      8u
#define PROTO_UDP      17u

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static void swap(uint8_t *a, uint8_t *b, size_t len)
{
	uint8_t kept[6];

	memcpy(kept, a, len);
	memcpy(a, b, len);
	memcpy(b, kept, len);
}

/* The source may be answered: one host, not a group, not everybody, not nobody. */
static bool is_host(const uint8_t ipv4[4])
{
	return ipv4[0] != 0 && ipv4[0] < 224;
}

bool dp_echo_turn(uint8_t *frame, size_t len, const uint8_t mac[6], const uint8_t ipv4[4])
{
	uint8_t *ip = frame + ETHER_BYTES, *udp;
	size_t header_bytes, total_bytes;

	if (len < ETHER_BYTES + IPV4_MIN_BYTES + UDP_BYTES || be16(frame + 12) != 0x0800)
		return false;
	/* Unicast both ways; the port may be promiscuous, so the destination is ours to check. */
	if (memcmp(frame, mac, 6) != 0 || (frame[6] & 1) != 0)
		return false;
	header_bytes = (size_t)(ip[0] & 15) * 4;
	total_bytes = be16(ip + 2);
	if (ip[0] >> 4 != 4 || header_bytes < IPV4_MIN_BYTES || total_bytes > len - ETHER_BYTES ||
	    total_bytes < header_bytes + UDP_BYTES)
		return false;
	/* No fragments: neither more-fragments nor an offset. */
	if ((be16(ip + 6) & 0x3fff) != 0 || ip[9] != PROTO_UDP || memcmp(ip + 16, ipv4, 4) != 0 || !is_host(ip + 12))
		return false;
	udp = ip + header_bytes;
	/* A datagram from an echo port would go to and fro for ever. */
	if (be16(udp + 2) != DP_ECHO_PORT || be16(udp) == DP_ECHO_PORT || be16(udp + 4) < UDP_BYTES ||
	    be16(udp + 4) > total_bytes - header_bytes)
		return false;
	swap(frame, frame + 6, 6);
	swap(ip + 12, ip + 16, 4);
	swap(udp, udp + 2, 2);
	return true;
}
