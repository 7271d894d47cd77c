/*
 * nd.c - neighbour discovery: solicitations and advertisements, checked, answered and sent; the groups that we listen to.
 *
 * Owns: no state but the counters; what they say goes to the neighbour table and to the own addresses.
 * Core: the worker that owns the stack.
 * Spec: RFC 4861 4.3, 4.4, 7.1, 7.2, RFC 4862 5.4, RFC 4291 2.7.1, RFC 3810 5.2 (reports).
 */
#include "tcpstack/internal.h"

#define ND_LEN         24u /* without options */
#define ND_OPT_LEN     8u
#define OPT_SOURCE     1u
#define OPT_TARGET     2u
#define NA_ROUTER      0x80u
#define NA_SOLICITED   0x40u
#define NA_OVERRIDE    0x20u
#define ND_HOP_LIMIT   255u
#define MLD_HBH_LEN    8u
#define MLD_RECORD_LEN 20u
#define MLD_TO_EXCLUDE 4u

static const uint8_t unspecified[16];
static const uint8_t all_nodes[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
static const uint8_t mld_routers[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16};

void tcps_solicited_node(const uint8_t addr[16], uint8_t group[16])
{
	static const uint8_t prefix[13] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff};
	memcpy(group, prefix, 13);
	memcpy(group + 13, addr + 13, 3);
}

static void group_mac(const uint8_t group[16], uint8_t mac[6])
{
	mac[0] = mac[1] = 0x33;
	memcpy(mac + 2, group + 12, 4);
}

/* One NS or NA, with the link-layer address option if it is asked for. */
static bool nd_send(struct tcps *t, uint8_t type, uint8_t flags, const uint8_t *mac, const uint8_t src[16], const uint8_t dst[16],
		    const uint8_t target[16], bool option)
{
	uint8_t group[6];
	struct tcps_out6 out = {.len = ND_LEN + (option ? ND_OPT_LEN : 0)};
	if (mac == NULL) {
		group_mac(dst, group);
		mac = group;
	}
	if (!tcps_icmp6_open(t, &out, mac, src, dst, ND_HOP_LIMIT))
		return false;
	out.body[0] = type;
	out.body[4] = flags;
	memcpy(out.body + 8, target, 16);
	if (option) {
		out.body[24] = type == ICMP6_NS ? OPT_SOURCE : OPT_TARGET;
		out.body[25] = 1;
		memcpy(out.body + 26, t->cfg.mac, 6);
	}
	tcps_icmp6_close(t, &out);
	return true;
}

bool tcps_nd_ask(struct tcps *t, const uint8_t addr[16], const uint8_t *mac, bool probe)
{
	uint8_t group[16];
	bool link_local = addr[0] == 0xfe && (addr[1] & 0xc0) == 0x80;
	const struct tcps_own *own = &t->own[link_local ? OWN_LINK : OWN_GLOBAL];
	if (!probe && own->state != OWN_READY)
		return false;
	tcps_solicited_node(addr, group);
	bool sent = nd_send(t, ICMP6_NS, 0, mac, probe ? unspecified : own->addr, mac != NULL ? addr : group, addr, !probe);
	TCPS_COUNT_ADD(t, ns_out, sent);
	return sent;
}

bool tcps_nd_announce(struct tcps *t, const struct tcps_own *own)
{
	bool sent = nd_send(t, ICMP6_NA, NA_OVERRIDE, NULL, own->addr, all_nodes, own->addr, true);
	TCPS_COUNT_ADD(t, na_out, sent);
	return sent;
}

/* Checks the options and finds the link-layer address of a kind; false: malformed. */
static bool find_option(const struct tcps_icmp6 *m, uint8_t kind, const uint8_t **mac)
{
	*mac = NULL;
	for (uint32_t at = ND_LEN; at < m->len;) {
		uint32_t left = m->len - at;
		const uint8_t *opt = m->body + at;
		if (left < 2 || opt[1] == 0 || opt[1] * 8u > left)
			return false;
		if (opt[0] == kind && opt[1] == 1)
			*mac = opt + 2;
		at += opt[1] * 8u;
	}
	return *mac == NULL || ((*mac)[0] & 1) == 0;
}

static bool is_unspecified(const uint8_t addr[16])
{
	return tcps_addr6_equal(addr, unspecified);
}

/* RFC 4861 7.1.1 and 7.1.2, what both kinds share. */
static bool well_formed(const struct tcps_icmp6 *m)
{
	return m->len >= ND_LEN && m->ip[7] == ND_HOP_LIMIT && m->body[1] == 0 && m->body[8] != 0xff;
}

/* RFC 4861 7.2.4: to whom the answer goes. Somebody who asks whether our address is free has none of his own. */
static void answer(struct tcps *t, const struct tcps_icmp6 *m, const struct tcps_own *own)
{
	const uint8_t *src = m->ip + 8;
	bool anonymous = is_unspecified(src);
	uint8_t flags = (uint8_t)(NA_OVERRIDE | (anonymous ? 0u : NA_SOLICITED));
	bool sent = nd_send(t, ICMP6_NA, flags, anonymous ? NULL : m->frame + 6, own->addr, anonymous ? all_nodes : src, own->addr,
			    true);
	TCPS_COUNT_ADD(t, na_out, sent);
}

static void solicitation(struct tcps *t, const struct tcps_icmp6 *m)
{
	const uint8_t *src = m->ip + 8, *dst = m->ip + 24, *target = m->body + 8, *mac;
	uint8_t group[16];
	bool anonymous = is_unspecified(src);
	tcps_solicited_node(target, group);
	if (!find_option(m, OPT_SOURCE, &mac) || (anonymous && (mac != NULL || !tcps_addr6_equal(dst, group))) ||
	    (!anonymous && tcps_source6_is_bad(t, src))) {
		TCPS_COUNT(t, nd_bad);
		return;
	}
	struct tcps_own *own = tcps_own_find6(t, target);
	if (own == NULL)
		return;
	if (own->state == OWN_TENTATIVE) {
		/* RFC 4862 5.4.3: two ask whether it is free; a question from an address is for its owner, who is not us yet. */
		if (anonymous)
			tcps_own_conflict(t, own, m->frame + 6);
		return;
	}
	if (own->state != OWN_READY)
		return;
	if (!anonymous && mac != NULL)
		tcps_neigh_heard(t, true, src, mac, true);
	if (!t->overhears)
		answer(t, m, own);
}

/* RFC 4861 7.2.5, for an entry that has an Ethernet address. */
static void advertised(struct tcps *t, struct tcps_neigh *n, uint8_t flags, const uint8_t *mac)
{
	bool changed = mac != NULL && memcmp(mac, tcps_neigh_eth(n), 6) != 0;
	if ((flags & NA_OVERRIDE) == 0 && changed) {
		if (n->state == NEIGH_REACHABLE)
			tcps_neigh_stale(t, n, tcps_neigh_eth(n));
		return;
	}
	if ((flags & NA_SOLICITED) != 0)
		tcps_neigh_confirm(t, n, mac != NULL ? mac : tcps_neigh_eth(n));
	else if (changed)
		tcps_neigh_stale(t, n, mac);
}

static void advertisement(struct tcps *t, const struct tcps_icmp6 *m)
{
	const uint8_t *target = m->body + 8, *mac;
	uint8_t flags = m->body[4];
	if (!find_option(m, OPT_TARGET, &mac) || (m->ip[24] == 0xff && (flags & NA_SOLICITED) != 0)) {
		TCPS_COUNT(t, nd_bad);
		return;
	}
	struct tcps_own *own = tcps_own_find6(t, target);
	if (own != NULL) {
		TCPS_COUNT(t, nd_conflict);
		tcps_own_conflict(t, own, m->frame + 6);
		return;
	}
	/* Of nobody that we want to know: not learnt. */
	struct tcps_neigh *n = tcps_neigh_find(t, true, target);
	if (n == NULL)
		return;
	if (n->state != NEIGH_INCOMPLETE)
		advertised(t, n, flags, mac);
	else if (mac != NULL && (flags & NA_SOLICITED) != 0)
		tcps_neigh_confirm(t, n, mac);
	else if (mac != NULL)
		tcps_neigh_stale(t, n, mac);
}

void tcps_nd_input(struct tcps *t, const struct tcps_icmp6 *m)
{
	if (!well_formed(m)) {
		TCPS_COUNT(t, nd_bad);
		return;
	}
	TCPS_COUNT(t, nd_in);
	if (m->body[0] == ICMP6_NS)
		solicitation(t, m);
	else
		advertisement(t, m);
}

void tcps_mld_report(struct tcps *t)
{
	/* Router alert for MLD, padded (RFC 2711, RFC 3810 5). */
	static const uint8_t hop_by_hop[MLD_HBH_LEN] = {IPPROTO_ICMP6_NUM, 0, 5, 2, 0, 0, 1, 0};
	const struct tcps_own *link = &t->own[OWN_LINK];
	uint8_t mac[6];
	unsigned count = 0;
	for (unsigned i = OWN_GLOBAL; i < OWN_COUNT; i++)
		count += t->own[i].state == OWN_TENTATIVE || t->own[i].state == OWN_READY;
	struct tcps_out6 out = {.len = 8 + count * MLD_RECORD_LEN, .ext = hop_by_hop, .ext_len = MLD_HBH_LEN};
	group_mac(mld_routers, mac);
	if (count == 0 || !tcps_icmp6_open(t, &out, mac, link->state == OWN_READY ? link->addr : unspecified, mld_routers, 1))
		return;
	out.body[0] = ICMP6_MLD2_REPORT;
	out.body[7] = (uint8_t)count;
	uint8_t *record = out.body + 8;
	for (unsigned i = OWN_GLOBAL; i < OWN_COUNT; i++) {
		if (t->own[i].state != OWN_TENTATIVE && t->own[i].state != OWN_READY)
			continue;
		record[0] = MLD_TO_EXCLUDE; /* nobody: whatever is sent to the group is wanted */
		tcps_solicited_node(t->own[i].addr, record + 4);
		record += MLD_RECORD_LEN;
	}
	tcps_icmp6_close(t, &out);
	TCPS_COUNT(t, mld_reports_out);
}
