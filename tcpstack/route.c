/*
 * route.c - where packets go: the own networks, the static routes and the gateways, the longest prefix first.
 *
 * Owns: the table, which is made once.
 * Core: the worker that owns the stack.
 * Spec: RFC 1812 5.2.4.3 (longest match), RFC 4861 5.2 (next-hop determination), RFC 4291 2.5.6.
 */
#include "tcpstack/internal.h"

static bool covers(const uint8_t prefix[16], unsigned len, const uint8_t addr[16])
{
	unsigned bytes = len / 8, bits = len % 8;
	if (memcmp(prefix, addr, bytes) != 0)
		return false;
	return bits == 0 || ((prefix[bytes] ^ addr[bytes]) & (0xff00u >> bits) & 0xffu) == 0;
}

/* Before the first one that is shorter: where two are equal, the one that came first stands first. */
static void insert(struct tcps *t, const struct tcps_link *link)
{
	uint32_t at = 0;
	while (at < t->link_count && t->links[at].prefix_len >= link->prefix_len)
		at++;
	memmove(&t->links[at + 1], &t->links[at], (t->link_count - at) * sizeof(t->links[0]));
	t->links[at] = *link;
	t->link_count++;
}

static void insert_own(struct tcps *t, bool v6, const uint8_t *addr, unsigned len)
{
	struct tcps_link link = {.prefix_len = (uint8_t)len, .v6 = v6, .on_link = true};
	memcpy(link.prefix, addr, v6 ? 16 : 4);
	insert(t, &link);
}

static void insert_gateway(struct tcps *t, bool v6, const uint8_t *gateway)
{
	static const uint8_t none[16];
	struct tcps_link link = {.v6 = v6};
	if (memcmp(gateway, none, v6 ? 16 : 4) == 0)
		return;
	memcpy(link.gateway, gateway, v6 ? 16 : 4);
	insert(t, &link);
}

/* A gateway must be a neighbour: a route to it over another gateway is a mistake. */
static bool on_link(const struct tcps *t, bool v6, const uint8_t addr[16])
{
	uint8_t hop[16];
	return tcps_route(t, v6, addr, hop) && memcmp(hop, addr, 16) == 0;
}

static bool insert_route(struct tcps *t, const struct tcps_route *r, bool has_v6)
{
	struct tcps_link link = {.prefix_len = r->prefix_len, .v6 = r->prefix.family == 6};
	unsigned bytes = link.v6 ? 16 : 4;
	if ((r->prefix.family != 4 && r->prefix.family != 6) || r->gateway.family != r->prefix.family || (link.v6 && !has_v6) ||
	    r->prefix_len > bytes * 8)
		return false;
	memcpy(link.prefix, r->prefix.bytes, bytes);
	memcpy(link.gateway, r->gateway.bytes, bytes);
	if (!on_link(t, link.v6, link.gateway))
		return false;
	insert(t, &link);
	return true;
}

/* Errors: false when a route is malformed or its gateway is no neighbour. */
bool tcps_routes_init(struct tcps *t)
{
	static const uint8_t link_local[16] = {0xfe, 0x80};
	const struct tcps_config *cfg = &t->cfg;
	bool has_v6 = t->own[OWN_GLOBAL].state != OWN_ABSENT;
	t->link_count = 0;
	insert_own(t, false, cfg->ipv4, cfg->ipv4_prefix_len);
	if (has_v6) {
		insert_own(t, true, cfg->ipv6, cfg->ipv6_prefix_len);
		insert_own(t, true, link_local, 10);
	}
	for (uint32_t i = 0; i < cfg->route_count; i++) {
		if (!insert_route(t, &cfg->routes[i], has_v6))
			return false;
	}
	insert_gateway(t, false, cfg->ipv4_gateway);
	if (has_v6)
		insert_gateway(t, true, cfg->ipv6_gateway);
	return true;
}

bool tcps_route(const struct tcps *t, bool v6, const uint8_t addr[16], uint8_t hop[16])
{
	for (uint32_t i = 0; i < t->link_count; i++) {
		const struct tcps_link *l = &t->links[i];
		if (l->v6 != v6 || !covers(l->prefix, l->prefix_len, addr))
			continue;
		memcpy(hop, l->on_link ? addr : l->gateway, 16);
		return true;
	}
	return false;
}
