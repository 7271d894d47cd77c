/*
 * arp.c - ARP packets: taken apart, answered, and sent.
 *
 * Owns: no state but the counters; what they say goes to the neighbour table and to the own address.
 * Core: the worker that owns the stack.
 * Spec: RFC 826, RFC 5227.
 */
#include "tcpstack/internal.h"

#define ARP_REQUEST 1u
#define ARP_REPLY   2u

static const uint8_t mac_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t unknown[6];

struct arp {
	uint16_t op;
	const uint8_t *eth_dst;
	const uint8_t *target_mac;
	uint32_t sender_raw, target_raw;
};

static bool arp_send(struct tcps *t, const struct arp *arp)
{
	void *handle;
	uint8_t *f = tcps_frame_alloc(t, ARP_LEN, &handle);
	if (f == NULL)
		return false;
	uint8_t *a = tcps_eth_header(t, f, arp->eth_dst, ETH_TYPE_ARP);
	put_be16(a, 1); /* Ethernet */
	put_be16(a + 2, ETH_TYPE_IPV4);
	a[4] = 6;
	a[5] = 4;
	put_be16(a + 6, arp->op);
	memcpy(a + 8, t->cfg.mac, 6);
	put_raw32(a + 14, arp->sender_raw);
	memcpy(a + 18, arp->target_mac, 6);
	put_raw32(a + 24, arp->target_raw);
	const struct tcps_tx_meta meta = tcps_plain_meta(t, false);
	tcps_frame_send(t, handle, ARP_LEN, &meta);
	return true;
}

bool tcps_arp_ask(struct tcps *t, const uint8_t addr[4], const uint8_t *mac, bool probe)
{
	const struct arp arp = {.op = ARP_REQUEST,
				.eth_dst = mac != NULL ? mac : mac_broadcast,
				.target_mac = unknown,
				.sender_raw = probe ? 0 : t->addr_raw,
				.target_raw = get_raw32(addr)};
	bool sent = arp_send(t, &arp);
	TCPS_COUNT_ADD(t, arp_requests_out, sent);
	return sent;
}

static bool well_formed(const uint8_t *a, size_t len)
{
	if (len < ARP_LEN || get_be16(a) != 1 || get_be16(a + 2) != ETH_TYPE_IPV4 || a[4] != 6 || a[5] != 4)
		return false;
	uint16_t op = get_be16(a + 6);
	return (op == ARP_REQUEST || op == ARP_REPLY) && (a[8] & 1) == 0;
}

/* RFC 5227 2.1.1: while we ask whether the address is free, whoever uses it or asks for it too has it. */
static bool conflicts(const struct tcps *t, uint32_t sender, uint32_t target, const uint8_t *sender_mac)
{
	if (memcmp(sender_mac, t->cfg.mac, 6) == 0)
		return false;
	return sender == t->addr_raw || (t->own[OWN_V4].state == OWN_TENTATIVE && sender == 0 && target == t->addr_raw);
}

void tcps_arp_input(struct tcps *t, const uint8_t *frame, const uint8_t *a, size_t len)
{
	if (!well_formed(a, len)) {
		TCPS_COUNT(t, arp_bad);
		return;
	}
	TCPS_COUNT(t, arp_in);
	bool request = get_be16(a + 6) == ARP_REQUEST;
	const uint8_t *sender_mac = a + 8;
	uint32_t sender = get_raw32(a + 14), target = get_raw32(a + 24);
	if (conflicts(t, sender, target, sender_mac)) {
		TCPS_COUNT(t, arp_conflict);
		tcps_own_conflict(t, &t->own[OWN_V4], sender_mac);
		return;
	}
	bool for_us = target == t->addr_raw && t->own[OWN_V4].state == OWN_READY;
	if (sender == t->addr_raw || (sender != 0 && tcps_source4_is_bad(t, sender)))
		return;
	/* RFC 826: what is known is updated by any packet; a new entry is made when we are the target. */
	if (sender != 0) {
		uint8_t addr[16] = {0};
		put_raw32(addr, sender);
		struct tcps_neigh *n = tcps_neigh_find(t, false, addr);
		if (n != NULL && !request && for_us && memcmp(frame, t->cfg.mac, 6) == 0)
			tcps_neigh_confirm(t, n, sender_mac);
		else if (((sender ^ t->addr_raw) & t->mask_raw) == 0)
			tcps_neigh_heard(t, false, addr, sender_mac, request && for_us);
	}
	if (request && for_us && !t->overhears) {
		const struct arp reply = {.op = ARP_REPLY,
					  .eth_dst = sender_mac,
					  .target_mac = sender_mac,
					  .sender_raw = t->addr_raw,
					  .target_raw = sender};
		TCPS_COUNT_ADD(t, arp_replies_out, arp_send(t, &reply));
	}
}
