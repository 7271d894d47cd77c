/*
 * ipv4.c - what IPv4 carries besides TCP: ICMP echo; and which source addresses are impossible.
 *
 * Owns: no state but the counters.
 * Core: the worker that owns the stack.
 * Spec: RFC 791, RFC 792, RFC 1122 3.2, RFC 6864 (unfragmentable packets need no identification).
 */
#include "tcpstack/internal.h"

uint32_t tcps_addr_sum(uint32_t a_raw, uint32_t b_raw)
{
	return tcps_sum_fold64((uint64_t)a_raw + b_raw);
}

static void icmp_input(struct tcps *t, const uint8_t *frame, const uint8_t *ip, const uint8_t *icmp, uint32_t len)
{
	if (len < 8 || tcps_sum_fold64(tcps_sum_words(0, icmp, len)) != 0xffff) {
		TCPS_COUNT(t, icmp_bad);
		return;
	}
	if (icmp[0] != 8 || icmp[1] != 0) {
		TCPS_COUNT(t, icmp_other);
		return;
	}
	size_t total = IPV4_HLEN + len;
	if (total > t->cfg.mtu) {
		TCPS_COUNT(t, icmp_bad);
		return;
	}
	void *handle;
	uint8_t *f = t->ops.tx_alloc(t->ctx, ETH_HLEN + total, &handle);
	if (f == NULL) {
		TCPS_COUNT(t, tx_blocked);
		return;
	}
	uint32_t peer = get_raw32(ip + 12);
	memcpy(f, frame + 6, 6);
	memcpy(f + 6, t->cfg.mac, 6);
	put_be16(f + 12, ETH_TYPE_IPV4);
	tcps_ipv4_header(t, f + ETH_HLEN, peer, IPPROTO_ICMP_NUM, total, tcps_addr_sum(t->addr_raw, peer));
	uint8_t *out = f + TCP_OFFSET;
	memcpy(out, icmp, len);
	out[0] = 0;
	put_raw16(out + 2, 0);
	put_raw16(out + 2, (uint16_t)~tcps_sum_fold64(tcps_sum_words(0, out, len)));
	const struct tcps_tx_meta meta = {.ip_cksum = t->cfg.tx_ip_cksum_offload, .l2_len = ETH_HLEN, .l3_len = IPV4_HLEN};
	t->ops.tx_send(t->ctx, handle, ETH_HLEN + total, &meta);
	TCPS_COUNT(t, frames_out);
	TCPS_COUNT(t, icmp_echo);
}

/* RFC 1122 3.2.1.3: these are never the source of a packet that came over a wire. */
bool tcps_source_is_bad(const struct tcps *t, uint32_t addr_raw)
{
	uint32_t a = be32toh(addr_raw);
	uint32_t host_bits = ~be32toh(t->mask_raw);
	bool on_link = ((addr_raw ^ t->addr_raw) & t->mask_raw) == 0;
	return addr_raw == t->addr_raw || a == 0 || a >= 0xe0000000u || a >> 24 == 127 ||
	       (on_link && host_bits > 1 && ((a & host_bits) == host_bits || (a & host_bits) == 0));
}

/* A valid packet for us that is not TCP. */
void tcps_ipv4_other(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t header_len, uint32_t total)
{
	if (tcps_source_is_bad(t, get_raw32(ip + 12)))
		TCPS_COUNT(t, drop_bad_source);
	else if (ip[9] == IPPROTO_ICMP_NUM)
		icmp_input(t, frame, ip, ip + header_len, total - header_len);
	else
		TCPS_COUNT(t, drop_ip_protocol);
}
