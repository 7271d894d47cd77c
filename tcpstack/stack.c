/*
 * stack.c - making a stack in the memory given, ticking it, and telling its figures.
 *
 * Owns: the layout of the memory; everything is carved out once, here.
 * Core: the worker that owns the stack.
 * Spec: none.
 */
#include "tcpstack/internal.h"

/* What one tick may do: so many timers moved within the wheel, or a quarter of them fired. */
#define TIMER_BUDGET  64u
#define TIMER_COST    3u
#define TSO_MAX_BYTES 61440u /* an IPv4 packet has 65,535, and headers with options are part of it */

struct carver {
	uint8_t *base; /* NULL: only measuring */
	size_t used;
};

static void *carve(struct carver *v, size_t count, size_t size)
{
	v->used = (v->used + 63) & ~(size_t)63;
	void *p = v->base == NULL ? NULL : v->base + v->used;
	v->used += count * size;
	return p;
}

static uint32_t bucket_count(uint32_t items)
{
	uint32_t n = 16;
	while (n < items && n < 1u << 30)
		n <<= 1;
	return n;
}

/* What stays in the second level of a cache. */
static uint32_t recent_count(const struct tcps_config *cfg)
{
	uint32_t n = 2 * bucket_count(cfg->conns_max);
	return n < 16384 ? n : 16384;
}

/* Every block has a slice of its own; references, and inline bytes that go on behind one, take others, and they are small. */
static uint32_t slice_count(const struct tcps_config *cfg)
{
	return cfg->blocks_max * 4;
}

/* Each connection has one; a block of small messages, each flushed alone, takes several more. */
static uint32_t sent_count(const struct tcps_config *cfg)
{
	return cfg->conns_max + cfg->blocks_max * 2;
}

/* Twice as many as connections, so that squeezing out the dead is rare. */
static uint32_t touched_places(const struct tcps_config *cfg)
{
	return cfg->conns_max * 2;
}

static size_t lay_out(struct tcps *t, const struct tcps_config *cfg, uint8_t *base)
{
	struct carver v = {.base = base};
	struct tcps scratch;
	if (t == NULL)
		t = &scratch;
	carve(&v, 1, sizeof(struct tcps));
	t->conns = carve(&v, cfg->conns_max, sizeof(struct tcps_conn));
	t->colds = carve(&v, cfg->conns_max, sizeof(struct tcps_cold));
	t->buckets = carve(&v, bucket_count(cfg->conns_max), sizeof(uint32_t));
	t->recent = carve(&v, recent_count(cfg), sizeof(uint32_t));
	t->touched = carve(&v, touched_places(cfg), sizeof(uint32_t));
	t->half_open.recs = carve(&v, cfg->half_open_max, sizeof(struct tcps_mini));
	t->half_open.buckets = carve(&v, bucket_count(cfg->half_open_max), sizeof(uint32_t));
	t->time_wait.recs = carve(&v, cfg->time_wait_max, sizeof(struct tcps_mini));
	t->time_wait.buckets = carve(&v, bucket_count(cfg->time_wait_max), sizeof(uint32_t));
	t->neighs = carve(&v, cfg->neighbours_max, sizeof(struct tcps_neigh));
	t->neigh_buckets = carve(&v, bucket_count(cfg->neighbours_max), sizeof(uint32_t));
	t->slices = carve(&v, slice_count(cfg), sizeof(struct tcps_slice));
	t->sents = carve(&v, sent_count(cfg), sizeof(struct tcps_sent));
	t->blocks = carve(&v, cfg->blocks_max, sizeof(struct tcps_block));
	return (v.used + 63) & ~(size_t)63;
}

/* A global or unique local unicast address, and a link that IPv6 may use: RFC 4291 2.4, RFC 8200 5. */
static bool ipv6_valid(const struct tcps_config *cfg)
{
	static const uint8_t none[16];
	const uint8_t *a = cfg->ipv6;
	if (memcmp(a, none, 16) == 0)
		return memcmp(cfg->ipv6_gateway, none, 16) == 0;
	bool unicast = a[0] != 0 && a[0] != 0xff && !(a[0] == 0xfe && (a[1] & 0x80) != 0);
	return unicast && cfg->ipv6_prefix_len > 0 && cfg->ipv6_prefix_len <= 128 && cfg->mtu >= IPV6_MTU_MIN &&
	       cfg->ipv6_gateway[0] != 0xff && memcmp(cfg->ipv6_gateway, a, 16) != 0;
}

static bool config_valid(const struct tcps_config *cfg)
{
	bool pools = cfg->conns_max > 0 && cfg->conns_max < 1u << 28 && cfg->half_open_max > 0 && cfg->half_open_max < 1u << 28 &&
		     cfg->time_wait_max > 0 && cfg->time_wait_max < 1u << 28 && cfg->neighbours_max > 0 &&
		     cfg->neighbours_max < TCPS_NO_NEIGHBOUR && cfg->blocks_max > 0 && cfg->blocks_max < 1u << 30;
	bool times = cfg->rto_min_ns > 0 && cfg->rto_min_ns <= cfg->rto_max_ns && cfg->rto_max_ns / 1000 < UINT32_MAX &&
		     cfg->msl_ns > 0 && cfg->retransmits_max > 0 && cfg->retransmits_max < UINT8_MAX && cfg->cc <= TCPS_CC_NEWRENO;
	bool tso = cfg->tso_max_bytes == 0 ||
		   (cfg->tso_max_bytes <= TSO_MAX_BYTES && cfg->tx_ip_cksum_offload && cfg->tx_tcp_cksum_offload);
	bool network = cfg->route_count <= TCPS_ROUTES_MAX && cfg->vlan_id < VLAN_ID_MASK && ipv6_valid(cfg) &&
		       (cfg->mss_max == 0 || cfg->mss_max >= TCPS_MSS_FLOOR) &&
		       (cfg->pmtu_min == 0 || (cfg->pmtu_min >= 68 && cfg->pmtu_min <= cfg->mtu));
	bool sizes = cfg->mtu >= 576 && cfg->recv_window_bytes >= 2048 && cfg->recv_window_bytes < 1u << 30 &&
		     cfg->ipv4_prefix_len <= 32 && (cfg->mac[0] & 1) == 0;
	return pools && times && sizes && network && tso && cfg->tx_pieces_max <= TCPS_PIECES_MAX;
}

size_t tcps_mem_bytes(const struct tcps_config *cfg)
{
	return lay_out(NULL, cfg, NULL);
}

static void pools_init(struct tcps *t)
{
	const struct tcps_config *cfg = &t->cfg;
	t->nobody = (struct tcps_conn){.flags = CF_DEAD, .own = OWN_V4};
	t->last_found = &t->nobody;
	t->conn_free_idx = TCPS_NIL;
	for (uint32_t i = cfg->conns_max; i-- > 0;) {
		t->colds[i].hash_next_idx = t->conn_free_idx;
		t->conn_free_idx = i;
	}
	t->block_free_idx = TCPS_NIL;
	for (uint32_t i = cfg->blocks_max; i-- > 0;)
		tcps_block_free(t, i);
	t->slices_max = slice_count(cfg);
	t->slice_free_idx = TCPS_NIL;
	for (uint32_t i = t->slices_max; i-- > cfg->blocks_max;)
		tcps_slice_free(t, i);
	t->sents_max = sent_count(cfg);
	t->sent_free_idx = TCPS_NIL;
	for (uint32_t i = t->sents_max; i-- > cfg->conns_max;) {
		t->sents[i].next_idx = t->sent_free_idx;
		t->sent_free_idx = i;
		t->sent_free_count++;
	}
	t->neigh_free_idx = TCPS_NIL;
	for (uint32_t i = cfg->neighbours_max; i-- > 0;) {
		t->neighs[i].hash_next_idx = t->neigh_free_idx;
		t->neigh_free_idx = i;
	}
	t->bucket_mask = bucket_count(cfg->conns_max) - 1;
	for (uint32_t i = 0; i <= t->bucket_mask; i++)
		t->buckets[i] = TCPS_NIL;
	uint32_t recents = recent_count(cfg);
	t->recent_shift = 32 - (unsigned)__builtin_ctz(recents);
	for (uint32_t i = 0; i < recents; i++)
		t->recent[i] = TCPS_NIL;
	t->neigh_bucket_mask = bucket_count(cfg->neighbours_max) - 1;
	for (uint32_t i = 0; i <= t->neigh_bucket_mask; i++)
		t->neigh_buckets[i] = TCPS_NIL;
	t->half_open.max = cfg->half_open_max;
	t->half_open.bucket_mask = bucket_count(cfg->half_open_max) - 1;
	tcps_mini_init(&t->half_open, TCPS_TIMER_HALF_OPEN);
	t->time_wait.max = cfg->time_wait_max;
	t->time_wait.bucket_mask = bucket_count(cfg->time_wait_max) - 1;
	tcps_mini_init(&t->time_wait, TCPS_TIMER_TIME_WAIT);
}

static uint32_t clamped(const struct tcps_config *cfg, uint32_t mss)
{
	return cfg->mss_max != 0 && cfg->mss_max < mss ? cfg->mss_max : mss;
}

/* Addresses, routes, and what every frame and its description begin with. Errors: false when a route is malformed. */
static bool network_init(struct tcps *t)
{
	const struct tcps_config *cfg = &t->cfg;
	t->addr_raw = get_raw32(cfg->ipv4);
	memcpy(&t->mac_raw, cfg->mac, 6);
	t->mask_raw = cfg->ipv4_prefix_len == 0 ? 0 : htobe32(UINT32_MAX << (32 - cfg->ipv4_prefix_len));
	t->mss_local = clamped(cfg, cfg->mtu - IPV4_HLEN - TCP_HLEN);
	t->mss_local6 = clamped(cfg, cfg->mtu - IPV6_HLEN - TCP_HLEN);
	bool tag_is_ours = cfg->vlan_id != 0 && !cfg->tx_vlan_offload;
	t->tx_l2_len = ETH_HLEN + (tag_is_ours ? VLAN_HLEN : 0);
	const struct tcps_form form4 = {.tcp_at = t->tx_l2_len + IPV4_HLEN,
					.meta = {.l4_len = TCP_HLEN + TCP_OPT_TS_LEN,
						 .ip_cksum = cfg->tx_ip_cksum_offload,
						 .tcp_cksum = cfg->tx_tcp_cksum_offload,
						 .l2_len = (uint8_t)t->tx_l2_len,
						 .l3_len = IPV4_HLEN,
						 .vlan_insert = cfg->vlan_id != 0 && cfg->tx_vlan_offload,
						 .vlan_tci = cfg->vlan_id}};
	struct tcps_form form6 = form4;
	form6.tcp_at = t->tx_l2_len + IPV6_HLEN;
	form6.meta.ip_cksum = false;
	form6.meta.l3_len = IPV6_HLEN;
	form6.meta.ipv6 = true;
	t->form[OWN_V4] = form4;
	t->form[OWN_GLOBAL] = t->form[OWN_LINK] = form6;
	t->pmtu_timer.kind = TCPS_TIMER_PMTU;
	tcps_own_init(t);
	return tcps_routes_init(t);
}

struct tcps *tcps_init(void *mem, size_t mem_bytes, const struct tcps_config *cfg, const struct tcps_ops *ops, void *ctx,
		       uint64_t now_ns)
{
	if (!config_valid(cfg) || mem_bytes < tcps_mem_bytes(cfg) || ((uintptr_t)mem & 63) != 0)
		return NULL;
	if (cfg->tx_pieces_max != 0 && (ops->tx_chain == NULL || ops->hold == NULL))
		return NULL;
	struct tcps *t = mem;
	lay_out(t, cfg, mem);
	t->cfg = *cfg;
	t->ops = *ops;
	t->ctx = ctx;
	tcps_clock(t, now_ns);
	if (!network_init(t))
		return NULL;
	t->rto_min_us = (uint32_t)((cfg->rto_min_ns + 999) / 1000);
	t->rto_max_us = (uint32_t)(cfg->rto_max_ns / 1000);
	if (t->rto_max_us < t->rto_min_us)
		t->rto_max_us = t->rto_min_us;
	uint32_t half = cfg->recv_window_bytes / 2;
	t->window_step = half < t->mss_local ? half : t->mss_local;
	t->window_keep = cfg->recv_window_bytes - t->window_step;
	t->window_plain = cfg->recv_window_bytes < 0xffff ? cfg->recv_window_bytes : 0xffff;
	while (t->rcv_wscale < TCP_WSCALE_MAX && cfg->recv_window_bytes >> t->rcv_wscale > 0xffff)
		t->rcv_wscale++;
	t->touched_max = touched_places(cfg);
	uint32_t assured = cfg->conns_max * TCPS_BLOCKS_ASSURED;
	t->blocks_reserved = assured < cfg->blocks_max / 4 ? assured : cfg->blocks_max / 4;
	t->blocks_scarce = cfg->blocks_max / 2;
	pools_init(t);
	tcps_wheel_init(&t->wheel, now_ns);
	return t;
}

/* Some at a time: ten thousand connections may be due together, and their next ticks are not to wait for all of them. */
static void run_timers(struct tcps *t)
{
	uint32_t budget = TIMER_BUDGET;
	struct tcps_timer *timer;
	while ((timer = tcps_wheel_expire(&t->wheel, t->now_ns, &budget)) != NULL) {
		budget -= budget < TIMER_COST ? budget : TIMER_COST;
		switch ((enum tcps_timer_kind)timer->kind) {
		case TCPS_TIMER_CONN:
			tcps_conn_timer(t, timer);
			break;
		case TCPS_TIMER_HALF_OPEN:
			tcps_half_open_timer(t, timer);
			break;
		case TCPS_TIMER_TIME_WAIT:
			tcps_time_wait_timer(t, timer);
			break;
		case TCPS_TIMER_NEIGHBOUR:
			tcps_neigh_timer(t, timer);
			break;
		case TCPS_TIMER_OWN:
			tcps_own_timer(t, timer);
			break;
		case TCPS_TIMER_PMTU:
			tcps_pmtu_timer(t);
			break;
		}
	}
}

static __attribute__((noinline)) void tick_with_work(struct tcps *t, uint64_t now_ns)
{
	tcps_clock(t, now_ns);
	run_timers(t);
	if (t->tx_starved)
		tcps_flush(t, now_ns);
}

bool tcps_tick(struct tcps *t, uint64_t now_ns)
{
	if (__builtin_expect(now_ns >> TCPS_WHEEL_TICK_SHIFT < t->wheel.next_tick, 1))
		return false;
	tick_with_work(t, now_ns);
	return true;
}

uint64_t tcps_next_deadline(const struct tcps *t)
{
	if (t->touched_count > 0)
		return t->tx_starved ? t->now_ns + (1ull << TCPS_WHEEL_TICK_SHIFT) : t->now_ns;
	return tcps_wheel_next_ns(&t->wheel);
}

const uint64_t *tcps_counters(const struct tcps *t)
{
	return t->counters;
}

static const struct {
	const char *name, *text;
} counter_list[TCPS_CNT_COUNT] = {
#define TCPS_COUNTER(name, text) [TCPS_CNT_##name] = {#name, text},
#include "tcpstack/counters.def"
#undef TCPS_COUNTER
};

const char *tcps_counter_name(unsigned idx)
{
	return idx < TCPS_CNT_COUNT ? counter_list[idx].name : "?";
}

const char *tcps_counter_text(unsigned idx)
{
	return idx < TCPS_CNT_COUNT ? counter_list[idx].text : "?";
}

const char *tcps_reason_text(enum tcps_reason reason)
{
	switch (reason) {
	case TCPS_CLOSED_NORMALLY:
		return "closed by both sides";
	case TCPS_CLOSED_RESET:
		return "reset by the peer";
	case TCPS_CLOSED_TIMEOUT:
		return "the peer did not answer";
	case TCPS_CLOSED_ABORTED:
		return "aborted";
	case TCPS_CLOSED_REFUSED:
		return "connection refused";
	case TCPS_CLOSED_NO_BUFFERS:
		return "out of buffers";
	case TCPS_CLOSED_UNREACHABLE:
		return "the peer cannot be reached";
	}
	return "?";
}

void tcps_usage(const struct tcps *t, struct tcps_usage *out)
{
	*out = (struct tcps_usage){.conns = t->conn_count,
				   .half_open = t->half_open.count,
				   .time_wait = t->time_wait.count,
				   .blocks_in_use = t->cfg.blocks_max - t->block_free_count,
				   .refs_in_use = t->ref_count,
				   .conns_max = t->cfg.conns_max,
				   .half_open_max = t->cfg.half_open_max,
				   .time_wait_max = t->cfg.time_wait_max,
				   .blocks_max = t->cfg.blocks_max};
}

void tcps_info(const struct tcps_conn *c, struct tcps_conn_info *out)
{
	const struct tcps_cold *cold = c->cold;
	uint32_t unacked = c->snd_max - c->snd_una;
	if (unacked > c->snd_buf_bytes)
		unacked = c->snd_buf_bytes;
	*out = (struct tcps_conn_info){.state = tcps_state_name(c->state),
				       .srtt_us = tcps_srtt_us(c),
				       .rttvar_us = cold->rttvar_us_x4 / 4,
				       .rto_ms = tcps_rto_us(c) / 1000,
				       .cwnd_bytes = c->cwnd_bytes,
				       .ssthresh_bytes = cold->ssthresh_bytes,
				       .mss = c->mss,
				       .snd_wnd_bytes = c->snd_wnd,
				       .rcv_wnd_bytes =
					       (c->flags & CF_PAUSED) != 0 ? tcps_recv_window_paused(c) : c->rcv_adv - c->rcv_nxt,
				       .unsent_bytes = c->snd_buf_bytes - unacked,
				       .unacked_bytes = unacked,
				       .sacked_bytes = cold->sacked_bytes,
				       .lost_bytes = cold->lost_bytes,
				       .min_rtt_us = cold->srtt_us_x8 != 0 ? cold->rack.min_rtt_us : 0,
				       .congestion = cold->cc == TCPS_CC_CUBIC ? "cubic" : "newreno",
				       .sack = (c->flags & CF_SACK) != 0,
				       .timestamps = (c->flags & CF_TS) != 0,
				       .recovery = (c->flags & (CF_RECOVERY | CF_RTO)) != 0,
				       .reordering = cold->rack.reordered,
				       .retransmits = cold->retransmits};
	if (c->state >= TCPS_ESTABLISHED) {
		/* Both SYNs and FINs take a sequence number; our FIN counts once it was sent. */
		bool fin_sent = c->snd_max - c->snd_una > c->snd_buf_bytes || (c->flags & CF_FIN_ACKED) != 0;
		out->bytes_out = ((uint64_t)cold->snd_wraps << 32 | c->snd_max) - (cold->iss + 1) - fin_sent;
		out->bytes_in = ((uint64_t)cold->rcv_wraps << 32 | tcps_recv_end(c)) - (cold->irs + 1);
	}
}
