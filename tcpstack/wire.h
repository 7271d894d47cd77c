/*
 * wire.h - the bytes of Ethernet, VLAN, ARP, IPv4, IPv6, ICMP and TCP headers, and sequence-number order.
 *
 * Owns: no state; offsets, flags and unaligned big-endian access for the files of this folder.
 * Core: any.
 * Spec: RFC 826, 791, 792, 8200, 4443, 4861, 9293 3.1 and 3.4, IEEE 802.1Q.
 */
#ifndef TICKWIRE_TCPSTACK_WIRE_H
#define TICKWIRE_TCPSTACK_WIRE_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ETH_HLEN           14u
#define ETH_TYPE_IPV4      0x0800u
#define ETH_TYPE_ARP       0x0806u
#define ETH_TYPE_VLAN      0x8100u
#define ETH_TYPE_IPV6      0x86ddu
#define VLAN_HLEN          4u
#define VLAN_ID_MASK       0x0fffu
#define ARP_LEN            28u
#define IPV4_HLEN          20u
#define IPV4_FLAG_DF       0x4000u
#define IPV4_FRAGMENT_MASK 0x3fffu /* more-fragments flag and offset */
#define IPPROTO_ICMP_NUM   1u
#define IPPROTO_TCP_NUM    6u
#define IPV4_TTL           64u
#define TCP_HLEN           20u
#define TCP_OFFSET         (ETH_HLEN + IPV4_HLEN) /* of an untagged IPv4 frame */

#define IPV6_HLEN         40u
#define IPV6_MTU_MIN      1280u /* RFC 8200 5 */
#define IPV6_HOP_LIMIT    64u
#define IPPROTO_HOPOPTS   0u
#define IPPROTO_ROUTING6  43u
#define IPPROTO_FRAGMENT6 44u
#define IPPROTO_ICMP6_NUM 58u
#define IPPROTO_NONE6     59u
#define IPPROTO_DSTOPTS   60u
#define ICMP_HLEN         8u

#define ICMP4_UNREACHABLE   3u
#define ICMP4_TIME_EXCEEDED 11u
#define ICMP4_PARAMETER     12u
#define ICMP6_UNREACHABLE   1u
#define ICMP6_TOO_BIG       2u
#define ICMP6_TIME_EXCEEDED 3u
#define ICMP6_PARAMETER     4u
#define ICMP6_ECHO_REQUEST  128u
#define ICMP6_ECHO_REPLY    129u
#define ICMP6_MLD_QUERY     130u
#define ICMP6_NS            135u
#define ICMP6_NA            136u
#define ICMP6_MLD2_REPORT   143u

#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_RST 0x04u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u
#define TCP_URG 0x20u
#define TCP_ECE 0x40u
#define TCP_CWR 0x80u

#define TCP_OPT_END        0u
#define TCP_OPT_NOP        1u
#define TCP_OPT_MSS        2u
#define TCP_OPT_WSCALE     3u
#define TCP_OPT_SACK_OK    4u
#define TCP_OPT_SACK       5u
#define TCP_OPT_TIMESTAMPS 8u
#define TCP_OPT_TS_LEN     12u         /* as sent: NOP NOP TS */
#define TCP_OPT_TS_WORD    0x0101080au /* those first four bytes */

#define TCP_MSS_DEFAULT  536u  /* RFC 9293 3.7.1: no MSS option in the SYN */
#define TCP_MSS_DEFAULT6 1220u /* ... over IPv6 */
#define TCP_WSCALE_MAX   14u   /* RFC 7323 2.3 */

static inline uint16_t get_be16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static inline uint32_t get_be32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

/* As it lies in memory: for values that are only compared or copied. */
static inline uint32_t get_raw32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t get_raw16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void put_be16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void put_be32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void put_raw16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void put_raw32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* RFC 9293 3.4: sequence numbers are compared modulo 2^32. */
static inline bool seq_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline bool seq_le(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}

static inline bool seq_gt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static inline bool seq_ge(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) >= 0;
}

#endif
