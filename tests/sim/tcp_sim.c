/*
 * tcp_sim.c - stack against stack over the simulated network: each seed is one world, run until everything is closed.
 *
 * Owns: the worlds. After every step tcps_check() looks at both stacks; streams are compared byte by byte; at the end
 *       every pool is back at its baseline, and the whole run has ended within a bound of virtual time.
 * Core: tests only.
 * Spec: the tests' README says what the seeds vary.
 */
#include "tcpstack/internal.h"
#include "tests/sim/tcp_app.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAIRS_MAX     4u
#define CLIENT_PORT   2000u
#define SERVER_PORT   5672u
#define CROSSING_PORT 3000u /* of the server's end where the open is simultaneous */
#define LIVES_MAX     3u
#define BOUND_NS      (3600ull * 1000000000ull) /* virtual: what has not ended by then has stalled */
#define STEPS_MAX     3000000u
#define MS            1000000ull

struct world {
	struct net *net;
	struct host hosts[2];
	struct app clients[PAIRS_MAX], servers[PAIRS_MAX];
	uint64_t connect_at_ns[PAIRS_MAX]; /* 0: connected */
	unsigned lives[PAIRS_MAX];         /* connections still to be made on the same ports */
	unsigned pair_count;
	unsigned stream_count; /* every stream has bytes of its own, so that an old one's cannot pass for them */
	uint32_t refs_out;
	uint64_t start_ns, now_ns;
	uint64_t trouble_at_ns; /* the next blackhole or starvation */
	uint64_t trouble_until_ns;
	uint32_t forge_chance; /* of NET_PER, each step */
	bool v6;               /* both ends speak IPv6 */
	enum app_family families[PAIRS_MAX];
	uint16_t vlan;
	uint32_t path_mtu; /* a router on the way takes no larger packet, and mostly says so; 0: there is none */
	uint32_t path_silent_chance;
	uint64_t too_large;  /* packets that did not fit */
	uint64_t path_at_ns; /* when the path changes */
	uint64_t quiet_ns;   /* nothing is opened before: addresses are being asked about */
	uint64_t steps, digest;
	struct {
		uint32_t iss, edge;
		bool seen;
	} promised[2][16]; /* by connection slot; the ISS tells whether it is still the same connection */
	char why[256];
};

static struct world world;
static bool verbose, trace, digests;
static uint64_t totals[TCPS_CNT_COUNT];
static uint64_t total_steps, total_bytes;
static double total_virtual_s;
static uint64_t whole[APP_FAMILIES]; /* connections whose streams arrived whole */

struct app *app_for(struct host *h, uint16_t peer_port)
{
	unsigned i = peer_port - CLIENT_PORT;
	return h->side == 1 && i < world.pair_count ? &world.servers[i] : NULL;
}

static uint32_t chance_up_to(uint32_t most)
{
	return net_chance(world.net, 4000) ? 0 : (uint32_t)net_spread(world.net, 0, most);
}

static void set_up_wires(struct world *w)
{
	for (unsigned side = 0; side < 2; side++) {
		struct net_params p = {.drop = chance_up_to(1000),
				       .duplicate = chance_up_to(500),
				       .reorder = chance_up_to(2500),
				       .corrupt = chance_up_to(300),
				       .delay_min_ns = net_spread(w->net, 1000, 50 * MS),
				       .reorder_extra_ns = net_spread(w->net, 1000, 100 * MS)};
		p.delay_max_ns = p.delay_min_ns + net_spread(w->net, 0, 20 * MS);
		if (net_chance(w->net, 3000))
			p.bytes_per_second = net_spread(w->net, 100000, 100000000);
		if (net_chance(w->net, 3000))
			p.queue_max = (uint32_t)net_spread(w->net, 4, 64);
		net_set(w->net, side, &p);
	}
}

static void vary_config(struct world *w, struct tcps_config *cfg, unsigned side)
{
	static const uint16_t mtus[] = {576, 1280, 1500, 1500, 4000, 9000};
	struct net *n = w->net;
	cfg->mtu = mtus[net_below(n, 6)];
	cfg->vlan_id = w->vlan;
	cfg->tx_vlan_offload = net_chance(n, 5000);
	cfg->mss_max = net_chance(n, 9000) ? 0 : (uint16_t)net_spread(n, 100, 3000);
	if (w->quiet_ns != 0) {
		cfg->dad_transmits = 1 + (uint8_t)net_below(n, 2);
		cfg->arp_probes = (uint8_t)net_below(n, 4);
	}
	if (cfg->mtu >= IPV6_MTU_MIN)
		host_config_ipv6(cfg, side);
	else
		w->v6 = false;
	cfg->recv_window_bytes = (uint32_t)net_spread(n, 2048, 300000);
	cfg->send_high_water_bytes = (uint32_t)net_spread(n, 1000, 200000);
	cfg->blocks_max = (uint32_t)net_spread(n, 24, 400);
	cfg->rto_min_ns = net_spread(n, 5 * MS, 500 * MS);
	cfg->rto_max_ns = net_spread(n, 8000 * MS, 60000 * MS);
	cfg->delayed_ack_ns = net_chance(n, 2000) ? 0 : net_spread(n, MS, 200 * MS);
	cfg->cc = net_chance(n, 5000) ? TCPS_CC_CUBIC : TCPS_CC_NEWRENO;
	cfg->no_sack = net_chance(n, 3000);
	cfg->syn_cookies = net_chance(n, 5000);
	cfg->ecn = net_chance(n, 6000);
	if (net_chance(n, 2000))
		cfg->half_open_max = 1;
	cfg->tx_ip_cksum_offload = net_chance(n, 3000);
	cfg->tx_tcp_cksum_offload = net_chance(n, 3000);
	if (net_chance(n, 2000)) {
		cfg->tx_ip_cksum_offload = cfg->tx_tcp_cksum_offload = true;
		cfg->tso_max_bytes = (uint32_t)net_spread(n, 2000, 61440);
	}
	for (unsigned i = 0; i < 16; i++)
		cfg->secret[i] = (uint8_t)net_random(n);
}

/* By the seed alone and not by its dice, so that all else of a world is as it was before there were pieces. */
static void vary_pieces(struct tcps_config *cfg, uint64_t seed, unsigned side)
{
	uint64_t mode = (seed + side) % 6;
	cfg->tx_pieces_max = mode < 3 ? (uint8_t)(1 + seed % TCPS_PIECES_MAX) : 0;
}

static void vary_ring(struct host *h, uint64_t seed)
{
	static const uint64_t holds[] = {0, MS, 300 * MS, 20000 * MS};
	h->ring_hold_ns = holds[seed / 2 % 4];
	h->ring_max = 1 + (uint32_t)(seed % HOST_RING_MAX);
	h->chain_refuse = seed % 5 == 0 ? 3 : 0;
}

static void set_up_pair(struct world *w, unsigned i)
{
	struct net *n = w->net;
	struct app *c = &w->clients[i], *s = &w->servers[i];
	unsigned id = w->stream_count;
	w->stream_count += 2;
	enum app_style style = (enum app_style)net_below(n, APP_STYLES);
	*c = (struct app){.host = &w->hosts[0], .net = n, .peer = s, .id = id, .style = style, .refs_out = &w->refs_out};
	*s = (struct app){.host = &w->hosts[1],
			  .net = n,
			  .peer = c,
			  .id = 2 * i + 1,
			  .style = style,
			  .server = true,
			  .refs_out = &w->refs_out};
	uint64_t most = style == APP_SMALL ? 3000 : net_chance(n, 2000) ? 3000000 : 200000;
	c->send_total = 1 + net_below(n, most);
	s->send_total = net_chance(n, 2000) ? 0 : net_chance(n, 5000) ? net_spread(n, 1, most) : 1 + net_below(n, most);
	c->chunk = net_spread(n, 1, 5000);
	if (style == APP_PINGPONG)
		s->send_total = c->send_total = net_spread(n, 1, 100 * c->chunk);
	/* Each order of closing; somebody has to begin. */
	uint64_t order = net_below(n, 3);
	c->shut_after_eof = order == 1;
	s->shut_after_eof = order == 2;
	struct app *ends[2] = {c, s};
	for (unsigned e = 0; e < 2; e++) {
		ends[e]->stall_chance = net_chance(n, 6000) ? 0 : (uint32_t)net_spread(n, 1, 3000);
		ends[e]->stall_max_ns = net_spread(n, MS, 4000 * MS);
	}
	c->connects = true;
	s->connects = net_chance(n, 1000);
	c->family = s->family = w->families[i];
	w->connect_at_ns[i] = w->now_ns + w->quiet_ns + net_spread(n, 1, 500 * MS);
	if (net_chance(n, 1000)) {
		struct app *a = ends[net_below(n, 2)];
		a->abort_at_ns = w->connect_at_ns[i] + net_spread(n, 1, 3000 * MS);
		a->abort_in_callback = net_chance(n, 3000);
	}
}

/* RFC 6528 makes the initial number follow the clock; so a start time can be chosen that puts it just below the wrap. */
static uint64_t pick_start(struct world *w, const struct tcps_config *cfg)
{
	uint64_t start = net_below(w->net, 1ull << 45);
	if (!net_chance(w->net, 3000))
		return start;
	struct tcps probe = {.cfg = *cfg, .addr_raw = get_raw32(cfg->ipv4)};
	const uint8_t addr[4] = {198, 18, 0, 2};
	struct tcps_peer peer;
	uint8_t ports[4];
	put_be16(ports, SERVER_PORT);
	put_be16(ports + 2, CLIENT_PORT);
	uint32_t iss, ts_offset;
	tcps_peer4(&peer, get_raw32(addr), get_raw32(ports));
	tcps_isn(&probe, &peer, &iss, &ts_offset);
	uint32_t below = (uint32_t)net_spread(w->net, 0, 200000);
	return (uint64_t)(uint32_t)(0u - below - iss) * 4000 + (1ull << 32) * 4000;
}

static void world_init(struct world *w, uint64_t seed)
{
	*w = (struct world){.net = net_new(seed)};
	if (w->net == NULL)
		abort();
	struct tcps_config cfg[2];
	w->v6 = true;
	w->vlan = net_chance(w->net, 7500) ? 0 : 1 + (uint16_t)net_below(w->net, 4094);
	w->quiet_ns = net_chance(w->net, 8000) ? 0 : 12000 * MS;
	for (unsigned side = 0; side < 2; side++) {
		host_config(&cfg[side], side);
		vary_config(w, &cfg[side], side);
		vary_pieces(&cfg[side], seed, side);
	}
	w->now_ns = w->start_ns = pick_start(w, &cfg[0]) / 1000 * 1000;
	set_up_wires(w);
	for (unsigned side = 0; side < 2; side++) {
		struct host *h = &w->hosts[side];
		host_init(h, w->net, side, &cfg[side], &app_ops, w->start_ns);
		vary_ring(h, seed);
		h->starve_chance = chance_up_to(500);
		h->strip_tag = net_chance(w->net, 5000);
		h->strip_timestamps = net_chance(w->net, 1500);
		h->mark_chance = chance_up_to(1000);
		h->strip_wscale = net_chance(w->net, 1500);
		h->strip_mss = net_chance(w->net, 1000);
	}
	for (unsigned side = 0; side < 2; side++)
		tcps_announce(w->hosts[side].t, w->now_ns);
	w->path_at_ns = net_chance(w->net, 7000) ? NET_NEVER : w->start_ns + w->quiet_ns;
	w->path_silent_chance = (uint32_t)net_below(w->net, 4000);
	tcps_listen(w->hosts[1].t, SERVER_PORT);
	w->pair_count = 1 + (unsigned)net_below(w->net, PAIRS_MAX);
	for (unsigned i = 0; i < w->pair_count; i++) {
		w->families[i] = w->v6 ? (enum app_family)net_below(w->net, APP_FAMILIES) : APP_IPV4;
		set_up_pair(w, i);
		w->lives[i] = net_chance(w->net, 7000) ? 0 : (unsigned)net_below(w->net, LIVES_MAX);
	}
	w->trouble_at_ns = net_chance(w->net, 5000) ? NET_NEVER : w->start_ns + net_spread(w->net, 1, 3000 * MS);
	w->forge_chance = net_chance(w->net, 7000) ? 0 : (uint32_t)net_spread(w->net, 1, 1000);
	w->trouble_until_ns = w->start_ns + 30000 * MS;
}

static void world_fini(struct world *w)
{
	host_fini(&w->hosts[0]);
	host_fini(&w->hosts[1]);
	net_free(w->net);
}

/* The headers before a forged message of `len` bytes from the peer of `c`. Returns where it begins. */
static size_t forge_headers(const struct world *w, const struct tcps *t, const struct tcps_conn *c, uint8_t *f, size_t len)
{
	static const uint8_t from[6] = {2};
	bool v6 = c->own != OWN_V4;
	memcpy(f, t->cfg.mac, 6);
	memcpy(f + 6, from, 6);
	uint8_t *at = f + 12;
	if (w->vlan != 0) {
		put_be16(at, ETH_TYPE_VLAN);
		put_be16(at + 2, w->vlan);
		at += 4;
	}
	put_be16(at, v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IPV4);
	at += 2;
	if (v6) {
		tcps_ipv6_header(at, 0, c->cold->peer_addr, t->own[c->own].addr, IPPROTO_TCP_NUM, len, 64);
		return (size_t)(at - f) + IPV6_HLEN;
	}
	memset(at, 0, IPV4_HLEN);
	put_be16(at, 0x4500);
	put_be16(at + 2, (uint16_t)(IPV4_HLEN + len));
	at[8] = 64;
	at[9] = IPPROTO_TCP_NUM;
	put_raw32(at + 12, c->peer_key);
	put_raw32(at + 16, t->addr_raw);
	return (size_t)(at - f) + IPV4_HLEN;
}

/* An error about a segment of `c` that is not in flight: RFC 5927 says that it must do nothing. */
static void forge_icmp(struct world *w, unsigned side, const struct tcps_conn *c)
{
	struct tcps *t = w->hosts[side].t;
	bool v6 = c->own != OWN_V4;
	uint8_t quote[IPV6_HLEN + 8] = {0};
	uint32_t len = v6 ? IPV6_HLEN + 8 : IPV4_HLEN + 8;
	uint8_t *tcp = quote + len - 8;
	if (v6) {
		tcps_ipv6_header(quote, 0, t->own[c->own].addr, c->cold->peer_addr, IPPROTO_TCP_NUM, t->cfg.mtu - IPV6_HLEN, 64);
	} else {
		put_be16(quote, 0x4500);
		put_be16(quote + 2, t->cfg.mtu);
		quote[9] = IPPROTO_TCP_NUM;
		put_raw32(quote + 12, t->addr_raw);
		put_raw32(quote + 16, c->peer_key);
	}
	put_raw32(tcp, c->ports_raw << 16 | c->ports_raw >> 16);
	put_be32(tcp + 4, c->snd_max + (uint32_t)net_below(w->net, 1u << 31));
	uint32_t claim = t->cfg.mtu * 7u / 8u;
	uint16_t mss = c->mss;
	uint8_t state = c->state;
	tcps_icmp_error(t, v6, v6 ? ICMP6_TOO_BIG : ICMP4_UNREACHABLE, v6 ? 0 : 4, claim, quote, len);
	tcps_icmp_error(t, v6, v6 ? ICMP6_UNREACHABLE : ICMP4_UNREACHABLE, v6 ? 4 : 3, 0, quote, len);
	if (c->mss != mss || c->state != state)
		snprintf(w->why, sizeof(w->why), "an ICMP error about nothing in flight was believed");
}

/*
 * Somebody off the path, who guesses well: a segment for a live connection that is inside the window but not what the
 * peer would send. RFC 5961: none of these may do harm.
 */
static void forge(struct world *w)
{
	unsigned side = (unsigned)net_below(w->net, 2);
	const struct tcps *t = w->hosts[side].t;
	const struct tcps_conn *c = &t->conns[net_below(w->net, PAIRS_MAX)];
	if (c->t == NULL || c->state == TCPS_CLOSED || (c->flags & CF_DEAD) != 0)
		return;
	if (c->state < TCPS_ESTABLISHED) {
		forge_icmp(w, side, c);
		return;
	}
	static const uint8_t kinds[] = {TCP_RST, TCP_RST | TCP_ACK, TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK, TCP_ACK | TCP_FIN};
	uint8_t flags = kinds[net_below(w->net, sizeof(kinds))];
	uint32_t window = c->rcv_adv - c->rcv_nxt;
	uint32_t seq = c->rcv_nxt + 1 + (uint32_t)net_below(w->net, window + 1000);
	uint32_t ack = c->snd_una + (flags & TCP_RST ? 0 : 0x40000000u); /* a blind attacker does not know what was sent */
	if (net_chance(w->net, 3000)) {
		forge_icmp(w, side, c);
		return;
	}
	uint8_t f[18 + IPV6_HLEN + TCP_HLEN];
	uint8_t *tcp = f + forge_headers(w, t, c, f, TCP_HLEN);
	put_raw32(tcp, c->ports_raw);
	put_be32(tcp + 4, seq);
	put_be32(tcp + 8, ack);
	put_be32(tcp + 12, 5u << 28 | (uint32_t)flags << 16 | 1000);
	put_be32(tcp + 16, 0);
	tcps_input(w->hosts[side].t, f, (size_t)(tcp - f) + TCP_HLEN, TCPS_RX_IP_CKSUM_GOOD | TCPS_RX_L4_CKSUM_GOOD, w->now_ns);
}

/* The line goes dead for a while, or a port runs out of frames. */
static void trouble(struct world *w)
{
	unsigned side = (unsigned)net_below(w->net, 2);
	uint64_t until = w->now_ns + net_spread(w->net, MS, 3000 * MS);
	switch (net_below(w->net, 3)) {
	case 0:
		net_blackhole(w->net, side, until);
		break;
	case 1:
		net_blackhole(w->net, 0, until);
		net_blackhole(w->net, 1, until);
		break;
	default:
		w->hosts[side].starved_until_ns = until;
		break;
	}
	w->trouble_at_ns = until + net_spread(w->net, 1, 5000 * MS);
	if (w->trouble_at_ns > w->trouble_until_ns)
		w->trouble_at_ns = NET_NEVER;
}

static bool fail(struct world *w, const char *what, unsigned side)
{
	if (w->why[0] == '\0')
		snprintf(w->why, sizeof(w->why), "%s (side %u, %.6f s after the start, step %" PRIu64 ")", what, side,
			 (double)(w->now_ns - w->start_ns) / 1e9, w->steps);
	return false;
}

/* The right edge of a receive window never moves left: a promise to the peer is kept. */
static bool check_promises(struct world *w, unsigned side)
{
	const struct tcps *t = w->hosts[side].t;
	for (uint32_t i = 0; i < t->cfg.conns_max; i++) {
		const struct tcps_conn *c = &t->conns[i];
		if (c->t == NULL || c->state < TCPS_ESTABLISHED || (c->flags & CF_DEAD) != 0) {
			w->promised[side][i].seen = false;
			continue;
		}
		if (w->promised[side][i].seen && w->promised[side][i].iss == c->cold->iss &&
		    seq_lt(c->rcv_adv, w->promised[side][i].edge))
			return fail(w, "the right edge of a receive window moved left", side);
		w->promised[side][i].seen = true;
		w->promised[side][i].iss = c->cold->iss;
		w->promised[side][i].edge = c->rcv_adv;
	}
	return true;
}

/* The other end of a connection; NULL: it is gone, or another life of the same ports. */
static const struct tcps_conn *other_end(const struct world *w, unsigned side, const struct tcps_conn *c)
{
	const struct tcps *t = w->hosts[!side].t;
	for (uint32_t i = 0; i < t->cfg.conns_max; i++) {
		const struct tcps_conn *o = &t->conns[i];
		bool live = o->t != NULL && o->state >= TCPS_ESTABLISHED && (o->flags & CF_DEAD) == 0;
		if (live && o->ports_raw == (c->ports_raw << 16 | c->ports_raw >> 16) && o->cold->irs == c->cold->iss &&
		    o->cold->iss == c->cold->irs)
			return o;
	}
	return NULL;
}

static bool has_received(const struct tcps_conn *o, uint32_t start, uint32_t end)
{
	if (seq_le(end, o->rcv_nxt))
		return true;
	start = seq_lt(start, o->rcv_nxt) ? o->rcv_nxt : start;
	for (unsigned i = 0; i < o->cold->ooo_count; i++) {
		if (seq_ge(start, o->cold->ooo[i].start_seq) && seq_le(end, o->cold->ooo[i].end_seq))
			return true;
	}
	return false;
}

/* Whatever a sender believes SACKed lies at the receiver, for that never throws away what it told of. */
static bool check_sacked(struct world *w, unsigned side)
{
	const struct tcps *t = w->hosts[side].t;
	for (uint32_t i = 0; i < t->cfg.conns_max; i++) {
		const struct tcps_conn *c = &t->conns[i], *o;
		if (c->t == NULL || c->state < TCPS_ESTABLISHED || (c->flags & CF_DEAD) != 0 || c->cold->sacked_bytes == 0)
			continue;
		o = other_end(w, side, c);
		for (uint32_t s = c->cold->sent_first_idx; o != NULL && s != TCPS_NIL; s = t->sents[s].next_idx) {
			if ((t->sents[s].flags & SENT_SACKED) != 0 && !has_received(o, t->sents[s].seq, t->sents[s].end_seq))
				return fail(w, "bytes count as delivered that the other end does not have", side);
		}
	}
	return true;
}

static bool check(struct world *w)
{
	if (w->why[0] != '\0')
		return false;
	for (unsigned side = 0; side < 2; side++) {
		const char *why = tcps_check(w->hosts[side].t);
		if (why != NULL)
			return fail(w, why, side);
		if (!check_promises(w, side) || !check_sacked(w, side))
			return false;
	}
	for (unsigned i = 0; i < w->pair_count; i++) {
		if (w->clients[i].broken != NULL)
			return fail(w, w->clients[i].broken, 0);
		if (w->servers[i].broken != NULL)
			return fail(w, w->servers[i].broken, 1);
	}
	return true;
}

static bool pair_closed(const struct world *w, unsigned i)
{
	const struct app *c = &w->clients[i], *s = &w->servers[i];
	return w->connect_at_ns[i] == 0 && c->closed && ((!s->accepted && !s->connects) || s->closed);
}

/* A connection that nobody aborted carried both streams whole, unless its handshake never came through. */
static bool judge_pair(struct world *w, unsigned i)
{
	const struct app *c = &w->clients[i], *s = &w->servers[i];
	if (c->abort_wanted || s->abort_wanted || !s->accepted || !c->accepted)
		return true;
	if (c->reason != TCPS_CLOSED_NORMALLY || s->reason != TCPS_CLOSED_NORMALLY) {
		char what[128];
		snprintf(what, sizeof(what), "pair %u ended otherwise than by FIN: client %s, server %s", i,
			 tcps_reason_text(c->reason), tcps_reason_text(s->reason));
		return fail(w, what, 0);
	}
	if (c->received != s->send_total || s->received != c->send_total || !c->eof || !s->eof)
		return fail(w, "a stream ended before its last byte", 0);
	whole[c->family]++;
	return true;
}

static void open_pair(struct world *w, unsigned i)
{
	struct app *c = &w->clients[i], *s = &w->servers[i];
	uint16_t port = (uint16_t)(CLIENT_PORT + i), other = s->connects ? (uint16_t)(CROSSING_PORT + i) : SERVER_PORT;
	w->connect_at_ns[i] = 0;
	bool opened = app_connect(c, port, other, w->now_ns);
	c->closed = !opened;
	if (s->connects)
		s->closed = !opened || !app_connect(s, other, port, w->now_ns);
	if (c->closed != s->closed && s->connects)
		(c->closed ? s : c)->abort_at_ns = w->now_ns; /* one end may, the other may not: no connection */
}

/* Opens what is due, lets every application act, and begins anew on the same ports where lives are left. */
static uint64_t run_apps(struct world *w)
{
	uint64_t next = NET_NEVER;
	for (unsigned i = 0; i < w->pair_count; i++) {
		if (w->connect_at_ns[i] != 0 && w->now_ns >= w->connect_at_ns[i])
			open_pair(w, i);
		uint64_t c = app_act(&w->clients[i], w->now_ns), s = app_act(&w->servers[i], w->now_ns);
		next = c < next ? c : next;
		next = s < next ? s : next;
		/* Not where the server never heard of it: it may yet, from a segment still on the way. */
		if (w->lives[i] > 0 && pair_closed(w, i) && !w->servers[i].accepted)
			w->lives[i] = 0;
		if (w->lives[i] > 0 && pair_closed(w, i) && judge_pair(w, i)) {
			total_bytes += w->clients[i].received + w->servers[i].received;
			w->lives[i]--;
			set_up_pair(w, i);
		}
		if (w->connect_at_ns[i] != 0 && w->connect_at_ns[i] < next)
			next = w->connect_at_ns[i];
	}
	return next;
}

/* One line a TCP segment, as it arrives: enough to follow a failing seed. */
static void trace_frame(const struct world *w, unsigned side, uint8_t *frame)
{
	unsigned type;
	const uint8_t *ip = host_packet(frame, &type);
	bool v6 = type == ETH_TYPE_IPV6;
	if ((!v6 && type != ETH_TYPE_IPV4) || ip[v6 ? 6 : 9] != IPPROTO_TCP_NUM) {
		printf("# %.6f to %u type %04x protocol %u\n", (double)(w->now_ns - w->start_ns) / 1e9, side, type, ip[v6 ? 6 : 9]);
		return;
	}
	const uint8_t *tcp = ip + (v6 ? IPV6_HLEN : IPV4_HLEN);
	uint32_t header_len = (tcp[12] >> 4) * 4u, len = v6 ? get_be16(ip + 4) : get_be16(ip + 2) - IPV4_HLEN;
	printf("# %.6f to %u port %u>%u seq %" PRIu32 " ack %" PRIu32 " len %u wnd %u%s%s%s%s\n",
	       (double)(w->now_ns - w->start_ns) / 1e9, side, get_be16(tcp), get_be16(tcp + 2), get_be32(tcp + 4),
	       get_be32(tcp + 8), len - header_len, get_be16(tcp + 14), tcp[13] & TCP_SYN ? " SYN" : "",
	       tcp[13] & TCP_FIN ? " FIN" : "", tcp[13] & TCP_RST ? " RST" : "", tcp[13] & TCP_ACK ? "" : " noack");
}

/* The router's complaint about a packet of `side`, which goes the way back through the same weather. */
static void complain(struct world *w, unsigned side, uint8_t *frame, size_t len)
{
	unsigned type;
	const uint8_t *ip = host_packet(frame, &type);
	bool v6 = type == ETH_TYPE_IPV6;
	uint8_t out[18 + IPV6_HLEN + ICMP_HLEN + IPV6_HLEN + 8];
	uint32_t ip_len = v6 ? IPV6_HLEN : IPV4_HLEN, quoted = ip_len + 8, icmp_len = ICMP_HLEN + quoted;
	size_t l2_len = (size_t)(ip - frame);
	uint8_t *oip = out + l2_len, *icmp = oip + ip_len;
	(void)len;
	memcpy(out, frame + 6, 6); /* back to where it came from */
	memcpy(out + 6, frame, 6);
	memcpy(out + 12, frame + 12, l2_len - 12);
	memset(icmp, 0, ICMP_HLEN);
	icmp[0] = v6 ? ICMP6_TOO_BIG : ICMP4_UNREACHABLE;
	icmp[1] = v6 ? 0 : 4;
	put_be32(icmp + 4, w->path_mtu);
	memcpy(icmp + ICMP_HLEN, ip, quoted);
	if (v6) {
		tcps_ipv6_header(oip, 0, ip + 24, ip + 8, IPPROTO_ICMP6_NUM, icmp_len, 64);
		put_raw16(icmp + 2, (uint16_t)~tcps_icmp6_sum(oip, icmp, icmp_len));
	} else {
		memset(oip, 0, IPV4_HLEN);
		put_be16(oip, 0x4500);
		put_be16(oip + 2, (uint16_t)(IPV4_HLEN + icmp_len));
		oip[8] = 64;
		oip[9] = IPPROTO_ICMP_NUM;
		memcpy(oip + 12, ip + 16, 4);
		memcpy(oip + 16, ip + 12, 4);
		put_raw16(oip + 10, (uint16_t)~tcps_sum_fold64(tcps_sum_words(0, oip, IPV4_HLEN)));
		put_raw16(icmp + 2, (uint16_t)~tcps_sum_fold64(tcps_sum_words(0, icmp, icmp_len)));
	}
	net_send(w->net, !side, out, l2_len + ip_len + icmp_len, w->now_ns);
}

/* The path becomes narrower or wider. 576 and 1280 fit through everywhere. */
static void change_path(struct world *w)
{
	w->path_mtu = net_chance(w->net, 3000) ? 0 : (uint32_t)net_spread(w->net, w->v6 ? 1280 : 576, 4000);
	w->path_at_ns = w->now_ns + net_spread(w->net, MS, 5000 * MS);
	if (w->path_at_ns > w->trouble_until_ns)
		w->path_at_ns = NET_NEVER;
}

/* Whether the router lets it pass; `side` is where it comes out. */
static bool passes(struct world *w, unsigned side, uint8_t *frame, size_t len)
{
	unsigned type;
	const uint8_t *ip = host_packet(frame, &type);
	size_t packet = len - (size_t)(ip - frame);
	if (w->path_mtu == 0 || packet <= w->path_mtu || (type != ETH_TYPE_IPV4 && type != ETH_TYPE_IPV6))
		return true;
	w->too_large++;
	if (!net_chance(w->net, w->path_silent_chance))
		complain(w, !side, frame, len);
	return false;
}

/* FNV-1a over what arrives, where and when. */
static void add_to_digest(struct world *w, unsigned side, const uint8_t *frame, size_t len)
{
	uint64_t h = w->digest ^ (w->now_ns * 2 + side);
	for (size_t i = 0; i < len; i++)
		h = (h ^ frame[i]) * 0x100000001b3u;
	w->digest = h * 0x100000001b3u;
}

/* Up to 32 frames, as a worker takes them from its port. */
static void receive_burst(struct world *w)
{
	uint8_t frame[NET_FRAME_MAX];
	for (unsigned n = 0; n < 32; n++) {
		unsigned side;
		size_t len = net_receive(w->net, w->now_ns, &side, frame);
		if (len == 0)
			return;
		if (!passes(w, side, frame, len))
			continue;
		if (trace)
			trace_frame(w, side, frame);
		if (digests)
			add_to_digest(w, side, frame, len);
		host_input(&w->hosts[side], frame, len);
	}
}

static bool all_closed(const struct world *w)
{
	for (unsigned i = 0; i < w->pair_count; i++) {
		if (!pair_closed(w, i) || w->lives[i] > 0)
			return false;
	}
	for (unsigned side = 0; side < 2; side++) {
		struct tcps_usage u;
		tcps_usage(w->hosts[side].t, &u);
		if (u.conns + u.half_open + u.time_wait != 0)
			return false;
	}
	return true;
}

static bool step(struct world *w)
{
	w->steps++;
	for (unsigned side = 0; side < 2; side++)
		w->hosts[side].now_ns = w->now_ns;
	receive_burst(w);
	for (unsigned side = 0; side < 2; side++)
		tcps_tick(w->hosts[side].t, w->now_ns);
	if (w->now_ns >= w->trouble_at_ns)
		trouble(w);
	if (w->now_ns >= w->path_at_ns)
		change_path(w);
	if (net_chance(w->net, w->forge_chance))
		forge(w);
	uint64_t next = run_apps(w);
	for (unsigned side = 0; side < 2; side++)
		tcps_flush(w->hosts[side].t, w->now_ns);
	if (!check(w))
		return false;
	for (unsigned side = 0; side < 2; side++) {
		uint64_t at = tcps_next_deadline(w->hosts[side].t);
		next = at < next ? at : next;
	}
	next = net_next_ns(w->net) < next ? net_next_ns(w->net) : next;
	next = w->trouble_at_ns < next ? w->trouble_at_ns : next;
	next = w->path_at_ns < next ? w->path_at_ns : next;
	if (next == NET_NEVER && !all_closed(w))
		return fail(w, "stalled: nothing is armed, nothing is in flight, and not everything is closed", 0);
	if (next == NET_NEVER)
		return true;
	/* In whole microseconds, which is how finely the stack notes times: then both of its paths have the same deadlines. */
	next = (next + 999) / 1000 * 1000;
	w->now_ns = next > w->now_ns ? next : w->now_ns;
	if (w->now_ns - w->start_ns > BOUND_NS || w->steps > STEPS_MAX)
		return fail(w, "stalled: not everything is closed within the bound", 0);
	return true;
}

static bool judge(struct world *w)
{
	for (unsigned i = 0; i < w->pair_count; i++) {
		if (!judge_pair(w, i))
			return false;
	}
	for (unsigned side = 0; side < 2; side++) {
		struct tcps_usage u;
		host_drain(&w->hosts[side]);
		tcps_usage(w->hosts[side].t, &u);
		if (u.conns + u.half_open + u.time_wait + u.blocks_in_use + u.refs_in_use != 0)
			return fail(w, "a pool is not back at its baseline", side);
		if (!tcps_addresses_ready(w->hosts[side].t))
			return fail(w, "an address of its own was never found to be free", side);
	}
	return w->refs_out == 0 || fail(w, "a reference was never released", 0);
}

static bool run_seed(uint64_t seed)
{
	struct world *w = &world;
	world_init(w, seed);
	bool ok = true;
	while (ok && !all_closed(w))
		ok = step(w);
	ok = ok && judge(w);
	for (unsigned side = 0; side < 2; side++) {
		for (unsigned k = 0; k < TCPS_CNT_COUNT; k++)
			totals[k] += tcps_counters(w->hosts[side].t)[k];
	}
	for (unsigned i = 0; i < w->pair_count; i++)
		total_bytes += w->clients[i].received + w->servers[i].received;
	total_steps += w->steps;
	if (digests)
		printf("# seed %" PRIu64 ": %016" PRIx64 " after %" PRIu64 " steps\n", seed, w->digest, w->steps);
	total_virtual_s += (double)(w->now_ns - w->start_ns) / 1e9;
	if (!ok)
		printf("# seed %" PRIu64 ": %s\n# replay: build/bin/tcp_sim --seed %" PRIu64 " --count 1\n", seed, w->why, seed);
	world_fini(w);
	return ok;
}

static void print_totals(void)
{
	printf("# %" PRIu64 " steps, %" PRIu64 " bytes delivered, %.0f s of virtual time\n", total_steps, total_bytes,
	       total_virtual_s);
	for (unsigned k = 0; k < TCPS_CNT_COUNT; k++) {
		if (totals[k] != 0)
			printf("#   %-24s %" PRIu64 "\n", tcps_counter_name(k), totals[k]);
	}
}

static int usage(int status)
{
	fprintf(status == 0 ? stdout : stderr,
		"usage: tcp_sim [--seed N] [--count N] [--verbose] [--keep-going] [--trace] [--digests]\n");
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'}, {"count", required_argument, NULL, 'c'},
						{"verbose", no_argument, NULL, 'v'},    {"keep-going", no_argument, NULL, 'k'},
						{"trace", no_argument, NULL, 't'},      {"digests", no_argument, NULL, 'd'},
						{"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0}};
	uint64_t seed = 1, count = 3000, failed = 0, ran = 0;
	bool keep_going = false;
	int opt;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			count = strtoull(optarg, NULL, 0);
			break;
		case 'v':
			verbose = true;
			break;
		case 't':
			trace = true;
			break;
		case 'd':
			digests = true;
			break;
		case 'k':
			keep_going = true;
			break;
		case 'h':
			return usage(0);
		default:
			return usage(64);
		}
	}
	if (optind != argc)
		return usage(64);
	printf("TAP version 13\n1..1\n");
	for (; ran < count && (failed == 0 || keep_going); ran++)
		failed += !run_seed(seed + ran);
	if (verbose)
		print_totals();
	/* A handshake that never comes through is no failure of its world: but where a family never works, it is one of ours. */
	uint64_t all = whole[APP_IPV4] + whole[APP_IPV6] + whole[APP_LINK_LOCAL];
	for (unsigned f = 0; failed == 0 && ran >= 300 && f < APP_FAMILIES; f++) {
		if (whole[f] * 10 < all) {
			printf("# only %" PRIu64 " of %" PRIu64 " connections are of family %u\n", whole[f], all, f);
			failed++;
		}
	}
	printf("%sok 1 - %" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " failed\n", failed == 0 ? "" : "not ", ran, seed, failed);
	return failed == 0 ? 0 : 1;
}
