/*
 * ipv4.c - what IPv4 carries besides TCP: ICMP; and which source addresses are impossible.
 *
 * Owns: no state but the counters.
 * Core: the worker that owns the stack.
 * Spec: RFC 791, RFC 792, RFC 1122 3.2, RFC 6864 (unfragmentable packets need no identification).
 */
#include "tcpstack/internal.h"

#define ICMP4_ECHO_REPLY   0u
#define ICMP4_ECHO_REQUEST 8u

static void echo_reply(struct tcps *t, const uint8_t *frame, const uint8_t *ip, const uint8_t *icmp, uint32_t len)
{
	size_t total = IPV4_HLEN + len;
	void *handle;
	uint8_t *f = t->overhears ? NULL : tcps_frame_alloc(t, total, &handle);
	if (f == NULL)
		return;
	uint32_t peer = get_raw32(ip + 12);
	uint8_t *to = tcps_eth_header(t, f, frame + 6, ETH_TYPE_IPV4), *out = to + IPV4_HLEN;
	tcps_ipv4_header(t, to, peer, IPPROTO_ICMP_NUM, total, tcps_addr_sum(t->addr_raw, peer));
	memcpy(out, icmp, len);
	out[0] = ICMP4_ECHO_REPLY;
	put_raw16(out + 2, 0);
	put_raw16(out + 2, (uint16_t)~tcps_sum_fold64(tcps_sum_words(0, out, len)));
	const struct tcps_tx_meta meta = tcps_plain_meta(t, true);
	tcps_frame_send(t, handle, total, &meta);
	TCPS_COUNT(t, icmp_echo);
}

static void icmp_input(struct tcps *t, const uint8_t *frame, const uint8_t *ip, const uint8_t *icmp, uint32_t len)
{
	if (len < ICMP_HLEN || tcps_sum_fold64(tcps_sum_words(0, icmp, len)) != 0xffff || IPV4_HLEN + len > t->cfg.mtu) {
		TCPS_COUNT(t, icmp_bad);
		return;
	}
	uint8_t type = icmp[0], code = icmp[1];
	if (type == ICMP4_ECHO_REQUEST && code == 0)
		echo_reply(t, frame, ip, icmp, len);
	else if (type == ICMP4_UNREACHABLE || type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER)
		tcps_icmp_error(t, false, type, code, get_be32(icmp + 4), icmp + ICMP_HLEN, len - ICMP_HLEN);
	else
		TCPS_COUNT(t, icmp_other);
}

/* RFC 1122 3.2.1.3: these are never the source of a packet that came over a wire. */
bool tcps_source4_is_bad(const struct tcps *t, uint32_t addr_raw)
{
	uint32_t a = be32toh(addr_raw);
	uint32_t host_bits = ~be32toh(t->mask_raw);
	bool on_link = ((addr_raw ^ t->addr_raw) & t->mask_raw) == 0;
	return addr_raw == t->addr_raw || a == 0 || a >= 0xe0000000u || a >> 24 == 127 ||
	       (on_link && host_bits > 1 && ((a & host_bits) == host_bits || (a & host_bits) == 0));
}

bool tcps_source_is_bad(const struct tcps *t, const struct tcps_peer *peer)
{
	return peer->v6 ? tcps_source6_is_bad(t, peer->addr) : tcps_source4_is_bad(t, peer->key);
}

/* A valid packet for us that is not TCP. */
void tcps_ipv4_other(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t header_len, uint32_t total)
{
	if (tcps_source4_is_bad(t, get_raw32(ip + 12))) {
		TCPS_COUNT(t, drop_bad_source);
	} else if (ip[9] == IPPROTO_ICMP_NUM) {
		icmp_input(t, frame, ip, ip + header_len, total - header_len);
	} else {
		TCPS_COUNT(t, drop_ip_protocol);
		/* RFC 1122 3.2.2.1: nothing listens on UDP here, and other protocols are not spoken. */
		tcps_icmp_error_send(t, frame, ip, total, ICMP4_UNREACHABLE, ip[9] == 17 ? 3 : 2, 0);
	}
}
