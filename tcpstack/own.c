/*
 * own.c - the stack's own addresses: made, asked about, announced and defended.
 *
 * Owns: tcps.own; an address that is TENTATIVE or a DUPLICATE is neither answered for nor sent from.
 * Core: the worker that owns the stack.
 * Spec: RFC 4862 5.3 and 5.4, RFC 4291 appendix A, RFC 5227 2.1, 2.3 and 2.4 (c), RFC 4861 7.2.6.
 */
#include "tcpstack/internal.h"

#define NO_TYPE          0x10000u /* of no frame */
#define SECOND_NS        1000000000ull
#define ANNOUNCE_NUM     2u
#define ANNOUNCE_NS      (2 * SECOND_NS)
#define DEFEND_NS        (10 * SECOND_NS)
#define RETRY_NS         (SECOND_NS / 10) /* no frame was free */
#define ARP_AFTERMATH_NS (2 * SECOND_NS)  /* ANNOUNCE_WAIT */

static uint8_t probes_wanted(const struct tcps *t, const struct tcps_own *own)
{
	return own->v6 ? t->cfg.dad_transmits : t->cfg.arp_probes;
}

static void set_fast_type(struct tcps *t)
{
	t->fast_type_raw = t->own[OWN_V4].state == OWN_READY && t->cfg.vlan_id == 0 ? htobe16(ETH_TYPE_IPV4) : NO_TYPE;
}

static void own_init(struct tcps *t, enum tcps_own_idx idx, bool v6, const uint8_t *addr)
{
	struct tcps_own *own = &t->own[idx];
	*own = (struct tcps_own){.v6 = v6};
	own->timer.kind = TCPS_TIMER_OWN;
	memcpy(own->addr, addr, v6 ? 16 : 4);
	own->state = probes_wanted(t, own) != 0 ? OWN_TENTATIVE : OWN_READY;
}

void tcps_own_init(struct tcps *t)
{
	static const uint8_t none[16];
	const uint8_t *mac = t->cfg.mac;
	own_init(t, OWN_V4, false, t->cfg.ipv4);
	set_fast_type(t);
	t->own[OWN_GLOBAL].state = t->own[OWN_LINK].state = OWN_ABSENT;
	if (memcmp(t->cfg.ipv6, none, 16) == 0)
		return;
	const uint8_t link[16] = {0xfe,   0x80,   0,    0,    0,      0,      0,     0, (uint8_t)(mac[0] ^ 2),
				  mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
	own_init(t, OWN_GLOBAL, true, t->cfg.ipv6);
	own_init(t, OWN_LINK, true, link);
}

struct tcps_own *tcps_own_find6(struct tcps *t, const uint8_t addr[16])
{
	for (unsigned i = OWN_GLOBAL; i < OWN_COUNT; i++) {
		if (t->own[i].state != OWN_ABSENT && tcps_addr6_equal(t->own[i].addr, addr))
			return &t->own[i];
	}
	return NULL;
}

static void announce(struct tcps *t, struct tcps_own *own)
{
	bool sent = own->v6 ? tcps_nd_announce(t, own) : tcps_arp_ask(t, own->addr, NULL, false);
	own->announcements = (uint8_t)(own->announcements + sent);
	if (own->announcements < ANNOUNCE_NUM)
		tcps_wheel_set(&t->wheel, &own->timer, t->now_ns + (sent ? ANNOUNCE_NS : RETRY_NS));
}

static void ready(struct tcps *t, struct tcps_own *own)
{
	own->state = OWN_READY;
	set_fast_type(t);
	announce(t, own);
}

static void probe(struct tcps *t, struct tcps_own *own)
{
	uint64_t wait = RETRY_NS;
	bool sent = own->v6 ? tcps_nd_ask(t, own->addr, NULL, true) : tcps_arp_ask(t, own->addr, NULL, true);
	if (sent) {
		own->probes++;
		wait = SECOND_NS;
		if (!own->v6 && own->probes == probes_wanted(t, own))
			wait = ARP_AFTERMATH_NS;
		else if (!own->v6)
			wait += tcps_jitter(t, own->probes, SECOND_NS);
	}
	tcps_wheel_set(&t->wheel, &own->timer, t->now_ns + wait);
}

void tcps_own_timer(struct tcps *t, struct tcps_timer *timer)
{
	struct tcps_own *own = (struct tcps_own *)timer; /* its first member */
	if (own->state == OWN_READY)
		announce(t, own);
	else if (own->state == OWN_TENTATIVE && own->probes < probes_wanted(t, own))
		probe(t, own);
	else if (own->state == OWN_TENTATIVE)
		ready(t, own);
}

void tcps_announce(struct tcps *t, uint64_t now_ns)
{
	tcps_clock(t, now_ns);
	/* RFC 4862 5.4.2: the group is joined before the question, so that a switch that looks lets the answers through. */
	if (t->own[OWN_LINK].state != OWN_ABSENT)
		tcps_mld_report(t);
	for (unsigned i = 0; i < OWN_COUNT; i++) {
		struct tcps_own *own = &t->own[i];
		own->announcements = 0;
		if (own->state == OWN_READY) {
			announce(t, own);
		} else if (own->state == OWN_TENTATIVE) {
			/* RFC 4862 5.4.2 and PROBE_WAIT of RFC 5227: not in step with everybody else after a power cut. */
			own->probes = 0;
			tcps_wheel_set(&t->wheel, &own->timer, now_ns + tcps_jitter(t, i, SECOND_NS));
		}
	}
}

void tcps_own_conflict(struct tcps *t, struct tcps_own *own, const uint8_t mac[6])
{
	if (memcmp(mac, t->cfg.mac, 6) == 0)
		return; /* our own question, sent back by the link */
	if (own->state == OWN_TENTATIVE) {
		TCPS_COUNT(t, address_duplicate);
		own->state = OWN_DUPLICATE;
		tcps_wheel_del(&t->wheel, &own->timer);
		return;
	}
	/* RFC 5227 2.4 (c): a server keeps its address, and says so no more than once in ten seconds. */
	if (own->state != OWN_READY || (own->defended_ns != 0 && t->now_ns - own->defended_ns < DEFEND_NS))
		return;
	own->defended_ns = t->now_ns;
	TCPS_COUNT(t, address_defended);
	if (own->v6)
		tcps_nd_announce(t, own);
	else
		tcps_arp_ask(t, own->addr, NULL, false);
}

bool tcps_link_local(const struct tcps *t, uint8_t addr[16])
{
	if (t->own[OWN_LINK].state == OWN_ABSENT)
		return false;
	memcpy(addr, t->own[OWN_LINK].addr, 16);
	return true;
}

bool tcps_addresses_ready(const struct tcps *t)
{
	for (unsigned i = 0; i < OWN_COUNT; i++) {
		if (t->own[i].state == OWN_TENTATIVE || t->own[i].state == OWN_DUPLICATE)
			return false;
	}
	return true;
}
