/*
 * frame.c - headers of outgoing frames: Ethernet with or without a tag, IPv6, and the sums of addresses.
 *
 * Owns: no state but the counters of frames.
 * Core: the worker that owns the stack.
 * Spec: IEEE 802.1Q, RFC 8200 3 and 8.1, RFC 6437 (flow label).
 */
#include "tcpstack/internal.h"

uint8_t *tcps_eth_header(const struct tcps *t, uint8_t *frame, const uint8_t dst[6], uint16_t type)
{
	uint8_t *p = frame + 12;
	memcpy(frame, dst, 6);
	memcpy(frame + 6, t->cfg.mac, 6);
	if (t->tx_l2_len != ETH_HLEN) {
		put_be16(p, ETH_TYPE_VLAN);
		put_be16(p + 2, t->cfg.vlan_id);
		p += VLAN_HLEN;
	}
	put_be16(p, type);
	return p + 2;
}

struct tcps_tx_meta tcps_plain_meta(const struct tcps *t, bool ipv4)
{
	struct tcps_tx_meta meta = t->form[OWN_V4].meta;
	meta.ip_cksum = ipv4 && meta.ip_cksum;
	meta.tcp_cksum = false;
	meta.l3_len = ipv4 ? IPV4_HLEN : 0;
	return meta;
}

uint8_t *tcps_frame_alloc(struct tcps *t, size_t len, void **handle)
{
	uint8_t *f = t->ops.tx_alloc(t->ctx, t->tx_l2_len + len, handle);
	if (f == NULL)
		TCPS_COUNT(t, tx_blocked);
	return f;
}

void tcps_frame_send(struct tcps *t, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	t->ops.tx_send(t->ctx, handle, t->tx_l2_len + len, meta);
	TCPS_COUNT(t, frames_out);
}

void tcps_ipv6_header(uint8_t *ip, uint32_t flow_raw, const uint8_t src[16], const uint8_t dst[16], uint8_t next,
		      size_t payload_len, uint8_t hop_limit)
{
	put_raw32(ip, flow_raw | htobe32(6u << 28));
	put_be16(ip + 4, (uint16_t)payload_len);
	ip[6] = next;
	ip[7] = hop_limit;
	memcpy(ip + 8, src, 16);
	memcpy(ip + 24, dst, 16);
}

void tcps_ipv6_conn_header(const struct tcps_conn *c, uint8_t *ip, size_t payload_len)
{
	tcps_ipv6_header(ip, c->cold->flow_raw, c->t->own[c->own].addr, c->cold->peer_addr, IPPROTO_TCP_NUM, payload_len,
			 IPV6_HOP_LIMIT);
}

uint16_t tcps_addr_sum(uint32_t a_raw, uint32_t b_raw)
{
	return tcps_sum_fold64((uint64_t)a_raw + b_raw);
}

uint16_t tcps_addr_sum6(const uint8_t a[16], const uint8_t b[16])
{
	uint64_t sum = tcps_sum_add(tcps_load64(a), tcps_load64(a + 8));
	return tcps_sum_fold64(tcps_sum_add(tcps_sum_add(sum, tcps_load64(b)), tcps_load64(b + 8)));
}

uint16_t tcps_peer_sum(const struct tcps *t, const struct tcps_peer *peer)
{
	return peer->v6 ? tcps_addr_sum6(peer->addr, t->own[peer->own].addr) : tcps_addr_sum(peer->key, t->addr_raw);
}
