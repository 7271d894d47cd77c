/*
 * ipv6.c - what IPv6 carries besides plain TCP: extension headers, ICMPv6; and which source addresses are impossible.
 *
 * Owns: no state but the counters.
 * Core: the worker that owns the stack.
 * Spec: RFC 8200 4, RFC 4443, RFC 4291 2.5 and 2.7, RFC 6946 (atomic fragments), RFC 5095 (no source routes).
 */
#include "tcpstack/internal.h"

#define EXT_HEADERS_MAX 8u /* more are no honest packet's */
#define EXT_BYTES_MAX   512u

static const uint8_t all_nodes[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

uint16_t tcps_icmp6_sum(const uint8_t *ip, const uint8_t *body, uint32_t len)
{
	uint64_t pseudo = (uint64_t)tcps_addr_sum6(ip + 8, ip + 24) + htobe16(IPPROTO_ICMP6_NUM) + htobe16((uint16_t)len);
	return tcps_sum_fold64(tcps_sum_words(pseudo, body, len));
}

bool tcps_icmp6_open(struct tcps *t, struct tcps_out6 *out, const uint8_t mac[6], const uint8_t src[16], const uint8_t dst[16],
		     uint8_t hop_limit)
{
	size_t payload = out->ext_len + out->len;
	uint8_t *f = tcps_frame_alloc(t, IPV6_HLEN + payload, &out->handle);
	if (f == NULL)
		return false;
	out->ip = tcps_eth_header(t, f, mac, ETH_TYPE_IPV6);
	tcps_ipv6_header(out->ip, 0, src, dst, out->ext_len != 0 ? IPPROTO_HOPOPTS : IPPROTO_ICMP6_NUM, payload, hop_limit);
	if (out->ext_len != 0)
		memcpy(out->ip + IPV6_HLEN, out->ext, out->ext_len);
	out->body = out->ip + IPV6_HLEN + out->ext_len;
	memset(out->body, 0, out->len);
	return true;
}

void tcps_icmp6_close(struct tcps *t, struct tcps_out6 *out)
{
	const struct tcps_tx_meta meta = tcps_plain_meta(t, false);
	put_raw16(out->body + 2, 0);
	put_raw16(out->body + 2, (uint16_t)~tcps_icmp6_sum(out->ip, out->body, (uint32_t)out->len));
	tcps_frame_send(t, out->handle, IPV6_HLEN + out->ext_len + out->len, &meta);
}

bool tcps_source6_is_bad(const struct tcps *t, const uint8_t addr[16])
{
	static const uint8_t none[15];
	/* Multicast; unspecified and loopback; ourselves; IPv4 in disguise (RFC 4291 2.5.5), which no wire carries. */
	return addr[0] == 0xff || (memcmp(addr, none, 15) == 0 && addr[15] <= 1) || memcmp(addr, none, 10) == 0 ||
	       tcps_addr6_equal(addr, t->own[OWN_GLOBAL].addr) || tcps_addr6_equal(addr, t->own[OWN_LINK].addr);
}

static void echo_reply(struct tcps *t, const struct tcps_icmp6 *m)
{
	struct tcps_out6 out = {.len = m->len};
	if (IPV6_HLEN + m->len > t->cfg.mtu) {
		TCPS_COUNT(t, icmp_bad);
		return;
	}
	if (t->overhears || !tcps_icmp6_open(t, &out, m->frame + 6, m->ip + 24, m->ip + 8, IPV6_HOP_LIMIT))
		return;
	memcpy(out.body, m->body, m->len);
	out.body[0] = ICMP6_ECHO_REPLY;
	tcps_icmp6_close(t, &out);
	TCPS_COUNT(t, icmp_echo);
}

static void icmp6_input(struct tcps *t, const struct tcps_icmp6 *m)
{
	bool impossible = tcps_source6_is_bad(t, m->ip + 8), multicast = m->ip[24] == 0xff;
	if (m->len < ICMP_HLEN || tcps_icmp6_sum(m->ip, m->body, m->len) != 0xffff) {
		TCPS_COUNT(t, icmp_bad);
		return;
	}
	uint8_t type = m->body[0], code = m->body[1];
	if (type == ICMP6_NS || type == ICMP6_NA) {
		tcps_nd_input(t, m);
	} else if (impossible) {
		TCPS_COUNT(t, drop_bad_source);
	} else if (type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER) {
		tcps_icmp_error(t, true, type, code, get_be32(m->body + 4), m->body + ICMP_HLEN, m->len - ICMP_HLEN);
	} else if (type == ICMP6_MLD_QUERY && m->ip[7] == 1 && tcps_icmp_allowed(t)) {
		tcps_mld_report(t);
	} else if (type == ICMP6_ECHO_REQUEST && code == 0 && !multicast) {
		echo_reply(t, m);
	} else {
		TCPS_COUNT(t, icmp_other); /* echoes to a group among them: they would multiply */
	}
}

/* RFC 8200 4.2: what an option that is not known asks for is in its two highest bits. */
static bool options_allow(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t at, uint32_t header_len, uint32_t total)
{
	uint32_t end = at + header_len;
	at += 2;
	while (at < end) {
		uint8_t kind = ip[at];
		if (kind == 0) { /* Pad1 */
			at++;
			continue;
		}
		if (end - at < 2 || ip[at + 1] > end - at - 2) {
			TCPS_COUNT(t, drop_ip6_extension);
			return false;
		}
		/* PadN, and router alert: nothing to be done by a host. */
		if (kind >> 6 != 0 && kind != 1) {
			TCPS_COUNT(t, drop_ip6_extension);
			if (kind >> 6 == 2 || (kind >> 6 == 3 && ip[24] != 0xff))
				tcps_icmp_error_send(t, frame, ip, total, ICMP6_PARAMETER, 2, at);
			return false;
		}
		at += 2u + ip[at + 1];
	}
	return true;
}

/* An extension header at `at`: its length, or 0: the packet was dropped and counted. `total` is the packet's. */
static uint32_t extension(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint8_t kind, uint32_t at, uint32_t total)
{
	const uint8_t *h = ip + at;
	if (total - at < 8) {
		TCPS_COUNT(t, drop_ip6_extension);
		return 0;
	}
	if (kind == IPPROTO_FRAGMENT6) {
		/* RFC 6946: an atomic fragment is whole. Others are not put together: no honest TCP sends them. */
		if ((get_be16(h + 2) & 0xfff9u) == 0)
			return 8;
		TCPS_COUNT(t, drop_fragment);
		return 0;
	}
	uint32_t len = (h[1] + 1u) * 8u;
	if (len > total - at) {
		TCPS_COUNT(t, drop_ip6_extension);
		return 0;
	}
	if (kind == IPPROTO_ROUTING6) {
		if (h[3] == 0)
			return len;
		TCPS_COUNT(t, drop_ip6_extension);
		tcps_icmp_error_send(t, frame, ip, total, ICMP6_PARAMETER, 0, at + 2);
		return 0;
	}
	return options_allow(t, frame, ip, at, len, total) ? len : 0;
}

/* Steps over the extension headers. Returns where the upper layer begins, its kind in *next; 0: dropped and counted. */
static uint32_t step_over(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t total, uint8_t *next)
{
	uint32_t at = IPV6_HLEN, next_at = 6;
	for (unsigned n = 0;; n++) {
		uint8_t kind = ip[next_at];
		bool known = kind == IPPROTO_DSTOPTS || kind == IPPROTO_ROUTING6 || kind == IPPROTO_FRAGMENT6;
		if (!known && !(kind == IPPROTO_HOPOPTS && at == IPV6_HLEN)) {
			*next = kind;
			if (kind == IPPROTO_TCP_NUM || kind == IPPROTO_ICMP6_NUM)
				return at;
			TCPS_COUNT(t, drop_ip_protocol);
			if (kind == 17)
				tcps_icmp_error_send(t, frame, ip, total, ICMP6_UNREACHABLE, 4, 0);
			else if (kind != IPPROTO_NONE6)
				tcps_icmp_error_send(t, frame, ip, total, ICMP6_PARAMETER, 1, next_at);
			return 0;
		}
		if (n == EXT_HEADERS_MAX || at > EXT_BYTES_MAX) {
			TCPS_COUNT(t, drop_ip6_extension);
			return 0;
		}
		uint32_t len = extension(t, frame, ip, kind, at, total);
		if (len == 0)
			return 0;
		next_at = at;
		at += len;
	}
}

/* Whether a packet with this destination, in a frame with that one, is ours. Counts when not. */
static bool for_us(struct tcps *t, const uint8_t *frame, const uint8_t dst[16])
{
	uint8_t group[16];
	if (dst[0] != 0xff) {
		const struct tcps_own *own = tcps_own_find6(t, dst);
		/* RFC 1122 3.3.6: a packet for one host in a frame for many is nobody's. */
		if (own == NULL || (frame[0] & 1) != 0)
			TCPS_COUNT(t, drop_not_for_us);
		else if (own->state != OWN_READY)
			TCPS_COUNT(t, drop_tentative);
		else
			return true;
		return false;
	}
	if (tcps_addr6_equal(dst, all_nodes))
		return true;
	for (unsigned i = OWN_GLOBAL; i < OWN_COUNT; i++) {
		tcps_solicited_node(t->own[i].addr, group);
		if (t->own[i].state != OWN_ABSENT && tcps_addr6_equal(dst, group))
			return true;
	}
	TCPS_COUNT(t, drop_not_for_us);
	return false;
}

const uint8_t *tcps_ipv6_other(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t *len)
{
	uint32_t total = IPV6_HLEN + get_be16(ip + 4);
	uint8_t next = 0;
	if (!for_us(t, frame, ip + 24))
		return NULL;
	/* Neighbour discovery also speaks from no address, and a host that has ours speaks from it: nd.c looks. */
	if (tcps_source6_is_bad(t, ip + 8) && (ip[6] != IPPROTO_ICMP6_NUM || ip[8] == 0xff)) {
		TCPS_COUNT(t, drop_bad_source);
		return NULL;
	}
	uint32_t at = step_over(t, frame, ip, total, &next);
	if (at == 0)
		return NULL;
	*len = total - at;
	if (next == IPPROTO_TCP_NUM) {
		if (ip[24] != 0xff)
			return ip + at;
		TCPS_COUNT(t, drop_not_for_us); /* RFC 9293 MUST-57: no segment to a group */
		return NULL;
	}
	const struct tcps_icmp6 m = {.frame = frame, .ip = ip, .body = ip + at, .len = *len};
	icmp6_input(t, &m);
	return NULL;
}
