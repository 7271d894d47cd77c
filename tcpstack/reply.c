/*
 * reply.c - segments that belong to no connection block: SYN-ACKs, resets, ACKs of TIME_WAIT.
 *
 * Owns: the rate limit of resets.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.10.7.1 (what a reset carries).
 */
#include "tcpstack/internal.h"

#define RESETS_PER_SECOND_MAX 1000u

/* Sends at once or not at all: whoever caused the reply will cause it again. */
bool tcps_reply(struct tcps *t, const struct tcps_reply *r)
{
	uint8_t mac[6];
	const struct tcps_peer *peer = r->peer;
	if (!tcps_neigh_mac(t, peer, mac)) {
		/* Not asked for yet: the way back is the way it came. */
		if (r->mac == NULL) {
			TCPS_COUNT(t, no_neighbour);
			return false;
		}
		memcpy(mac, r->mac, 6);
	}
	uint32_t header_len = TCP_HLEN + r->opts_len, ip_len = peer->v6 ? IPV6_HLEN : IPV4_HLEN;
	void *handle;
	uint8_t *f = tcps_frame_alloc(t, ip_len + header_len, &handle);
	if (f == NULL)
		return false;
	uint32_t addr_sum = tcps_peer_sum(t, peer);
	uint8_t *ip = tcps_eth_header(t, f, mac, peer->v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IPV4), *tcp = ip + ip_len;
	if (peer->v6)
		tcps_ipv6_header(ip, 0, t->own[peer->own].addr, peer->addr, IPPROTO_TCP_NUM, header_len, IPV6_HOP_LIMIT);
	else
		tcps_ipv4_header(t, ip, peer->key, IPPROTO_TCP_NUM, ip_len + header_len, addr_sum);
	put_raw32(tcp, peer->ports_raw << 16 | peer->ports_raw >> 16);
	put_be32(tcp + 4, r->seq);
	put_be32(tcp + 8, r->ack);
	tcp[12] = (uint8_t)(header_len << 2);
	tcp[13] = r->flags;
	put_be16(tcp + 14, (uint16_t)(r->wnd > 0xffff ? 0xffff : r->wnd));
	put_raw32(tcp + 16, 0);
	if (r->opts_len != 0)
		memcpy(tcp + TCP_HLEN, r->opts, r->opts_len);
	uint64_t sum = (uint64_t)addr_sum + htobe16(IPPROTO_TCP_NUM) + htobe16((uint16_t)header_len);
	if (t->cfg.tx_tcp_cksum_offload)
		put_raw16(tcp + 16, tcps_sum_fold64(sum));
	else
		put_raw16(tcp + 16, (uint16_t)~tcps_sum_fold64(tcps_sum_words(sum, tcp, header_len)));
	struct tcps_tx_meta meta = t->form[peer->own].meta;
	meta.l4_len = (uint8_t)header_len;
	tcps_frame_send(t, handle, ip_len + header_len, &meta);
	TCPS_COUNT(t, segments_out);
	return true;
}

static bool reset_allowed(struct tcps *t)
{
	if (t->now_ns - t->reset_limit_ns >= 1000000000u) {
		t->reset_limit_ns = t->now_ns;
		t->reset_limit_count = 0;
	}
	if (t->reset_limit_count >= RESETS_PER_SECOND_MAX) {
		TCPS_COUNT(t, resets_limited);
		return false;
	}
	t->reset_limit_count++;
	return true;
}

void tcps_reset_reply(struct tcps *t, const struct tcps_seg *s)
{
	if ((s->flags & TCP_RST) != 0 || !reset_allowed(t))
		return;
	struct tcps_reply r = {.peer = &s->peer, .mac = s->frame + 6};
	if (s->flags & TCP_ACK) {
		r.seq = s->ack;
		r.flags = TCP_RST;
	} else {
		r.ack = s->seq + s->len + ((s->flags & TCP_SYN) != 0) + ((s->flags & TCP_FIN) != 0);
		r.flags = TCP_RST | TCP_ACK;
	}
	if (tcps_reply(t, &r))
		TCPS_COUNT(t, resets_out);
}
