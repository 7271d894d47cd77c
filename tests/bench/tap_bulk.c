/*
 * tap_bulk.c - bulk over one DPDK port: what it carries for a bare packet sink and source, and what our TCP carries over it.
 *
 * Owns: one port with its queue pair and pool, opened once as the dataplane opens it; one stack with the dataplane's own sizes;
 * rounds of one of the modes below, told on standard input a line each: `MODE SECONDS`, answered by one line of JSON. Core: a
 * measuring aid, driven by tests/bench/bulk; the last lcore polls in the order of dataplane/worker.c, the main one reads lines.
 * Spec: none. The bound that it is measured against is in tests/bench/README.md.
 *
 *   sink         frames are received and freed
 *   source       prebuilt frames of the MTU to an Ethernet address that nobody has: the kernel drops them at the first look
 *   source-udp   the same frames to a UDP port of the client's, which has to read them
 *   tcp-sink     one connection's bytes are thrown away
 *   tcp-source   one connection is sent bytes without end
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_udp.h>

#include "dataplane/counters.h"
#include "dataplane/log.h"
#include "dataplane/mem.h"
#include "dataplane/options.h"
#include "dataplane/port.h"
#include "dataplane/tap_poll.h"
#include "dataplane/tx.h"
#include "dataplane/worker.h"

#define TCP_PORT    5001u
#define UDP_PORT    5002u
#define SECONDS_MAX 60u
#define WARM_NS     300000000ull  /* slow start, and both cores awake */
#define PATIENCE_NS 5000000000ull /* for the first byte of a round */
#define QUIET_NS    30000000ull   /* after a round, for what is still under way */
#define CHUNK_BYTES 16384u
#define SECOND_NS   1000000000ull

enum mode { SINK, SOURCE, SOURCE_UDP, TCP_SINK, TCP_SOURCE, MODES_COUNT };

static const char *const mode_name[MODES_COUNT] = {"sink", "source", "source-udp", "tcp-sink", "tcp-source"};

/* What grows while a round runs; a round's figures are the difference of two. */
struct tally {
	uint64_t cycles, busy_cycles;  /* of turns that did something */
	uint64_t rx_cycles, tx_cycles; /* of those, inside the driver, which is nearly all system calls */
	uint64_t rx_frames, rx_bytes, payload;
	uint64_t tx[DP_CNT_COUNT];
	uint64_t tcp[TCPS_CNT_COUNT];
};

struct bench {
	struct dp_options options;
	struct dp_port port;
	struct dp_clock clock;
	struct dp_limits limits;
	struct dp_tap_trigger tap;
	struct dp_tx tx;
	struct tcps *tcp;
	struct tcps_conn *conn;                  /* the round's one connection */
	struct rte_mbuf *frame[2][DP_BURST_MAX]; /* prebuilt: to nobody, and to the client's UDP port */
	uint32_t worker_lcore[CTL_WORKERS_MAX];
	uint64_t tsc, now_ns, counter[DP_CNT_COUNT];
	enum mode mode;
	unsigned seconds;
	bool live; /* a round runs; before and after it the port is only emptied */
	bool failed;
	struct tally now, from;
	struct tcps_conn_info info;
	char err[512];
};

static uint8_t chunk[CHUNK_BYTES];

/* ---- what the stack calls ---- */

/* A burst to the port, timed. Returns how many frames it took. */
static uint32_t send_burst(struct bench *b)
{
	uint64_t from = rte_rdtsc();
	uint32_t sent = dp_tx_burst(&b->tx);

	if (sent != 0)
		b->now.tx_cycles += rte_rdtsc() - from;
	return sent;
}

static uint8_t *on_tx_alloc(void *ctx, size_t len, void **handle)
{
	struct bench *b = ctx;

	if (b->tx.frames_count == DP_TX_FRAMES_MAX)
		send_burst(b);
	return dp_tx_alloc(&b->tx, len, handle);
}

static void on_tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct bench *b = ctx;

	dp_tx_send(&b->tx, handle, len, meta);
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	struct bench *b = ctx;

	(void)peer;
	(void)local_port;
	if (b->conn != NULL || (b->mode != TCP_SINK && b->mode != TCP_SOURCE))
		return NULL;
	b->conn = conn;
	return b;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct bench *b = user;

	(void)data;
	b->now.payload += len;
	return len;
}

static void on_nothing(void *user)
{
	(void)user;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	struct bench *b = user;

	(void)reason;
	b->conn = NULL;
}

/* The one chunk is static: nobody waits for it. */
static void on_release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

static const struct tcps_ops tcp_ops = {on_tx_alloc, on_tx_send, on_accept,  on_nothing, on_data, on_nothing,
					on_nothing,  on_closed,  on_release, NULL,       NULL};

/* ---- a turn, in the worker's order ---- */

static uint32_t receive(struct bench *b)
{
	struct rte_mbuf *frame[DP_BURST_MAX];
	uint64_t from = rte_rdtsc();
	uint16_t got;

	if (b->tap.call != NULL)
		b->tap.call(b->tap.signo);
	got = rte_eth_rx_burst(b->port.id, 0, frame, DP_BURST_MAX);
	if (got == 0)
		return 0;
	b->now.rx_cycles += rte_rdtsc() - from;
	b->now.rx_frames += got;
	for (uint16_t i = 0; i < got; i++) {
		rte_prefetch0(rte_pktmbuf_mtod(frame[i], void *));
		b->now.rx_bytes += frame[i]->pkt_len;
	}
	/* The stack sees frames of the bare rounds, too, so that it answers ARP; but for these it would only drop them. */
	for (uint16_t i = 0; i < got && !(b->live && b->mode == SINK); i++)
		if (frame[i]->nb_segs == 1)
			tcps_input(b->tcp, rte_pktmbuf_mtod(frame[i], const uint8_t *), frame[i]->data_len, 0, b->now_ns);
	rte_pktmbuf_free_bulk(frame, got);
	return got;
}

static void fill_stream(struct bench *b)
{
	while (b->conn != NULL && tcps_writable(b->conn) && tcps_send_ref(b->conn, chunk, sizeof chunk, b))
		;
}

/* The prebuilt frames once more: each burst takes one reference of each, and the driver gives it back. */
static void fill_bare(struct bench *b)
{
	struct rte_mbuf **frame = b->frame[b->mode == SOURCE_UDP];

	for (unsigned i = 0; i < DP_BURST_MAX; i++) {
		rte_mbuf_refcnt_update(frame[i], 1);
		if (!dp_tx_forward(&b->tx, frame[i]))
			rte_mbuf_refcnt_update(frame[i], -1);
	}
}

static void turn(struct bench *b)
{
	uint64_t spent;
	uint32_t done;

	b->tsc = rte_rdtsc();
	b->now_ns = dp_clock_ns(&b->clock, b->tsc);
	done = receive(b);
	tcps_tick(b->tcp, b->now_ns);
	if (b->live && b->mode == TCP_SOURCE)
		fill_stream(b);
	else if (b->live && (b->mode == SOURCE || b->mode == SOURCE_UDP))
		fill_bare(b);
	tcps_flush(b->tcp, b->now_ns);
	done += send_burst(b);
	spent = rte_rdtsc() - b->tsc;
	b->now.cycles += spent;
	if (done != 0)
		b->now.busy_cycles += spent;
}

/* ---- a round ---- */

static void look(struct bench *b, struct tally *to)
{
	*to = b->now;
	memcpy(to->tx, b->counter, sizeof to->tx);
	memcpy(to->tcp, tcps_counters(b->tcp), sizeof to->tcp);
}

static bool begun(const struct bench *b, const struct tally *start)
{
	switch (b->mode) {
	case SINK:
		return b->now.rx_frames > start->rx_frames + 100;
	case TCP_SINK:
	case TCP_SOURCE:
		return b->conn != NULL;
	default:
		return true;
	}
}

static void turns_until(struct bench *b, uint64_t until_ns)
{
	do
		turn(b);
	while (b->now_ns < until_ns);
}

/* What the last round left in the tap's queue is no traffic of this one. */
static void settle(struct bench *b)
{
	b->live = false;
	turn(b);
	turns_until(b, b->now_ns + QUIET_NS);
}

static int run_round(void *arg)
{
	struct bench *b = arg;
	struct tally start;
	uint64_t give_up_ns;

	settle(b);
	b->live = true;
	b->failed = false;
	look(b, &start);
	for (give_up_ns = b->now_ns + PATIENCE_NS; !begun(b, &start) && b->now_ns < give_up_ns;)
		turn(b);
	if (!begun(b, &start)) {
		b->failed = true;
		settle(b);
		return 0;
	}
	turns_until(b, b->now_ns + WARM_NS);
	look(b, &b->from);
	turns_until(b, b->now_ns + b->seconds * SECOND_NS);
	look(b, &b->now);
	if ((b->mode == TCP_SINK || b->mode == TCP_SOURCE) && b->conn == NULL)
		b->failed = true;
	if (b->conn != NULL) {
		tcps_info(b->conn, &b->info);
		tcps_abort(b->conn);
	}
	settle(b);
	return 0;
}

/* ---- start ---- */

/* As main.c of the dataplane does it: realtime signals of net_tap interrupt nobody, and SIGIO ends nobody. */
static void block_signals(void)
{
	sigset_t realtime;

	sigemptyset(&realtime);
	for (int signo = SIGRTMIN; signo <= SIGRTMAX; signo++)
		sigaddset(&realtime, signo);
	sigprocmask(SIG_BLOCK, &realtime, NULL);
	signal(SIGIO, SIG_IGN);
}

static void build_frame(const struct bench *b, struct rte_mbuf *m, bool to_client)
{
	static const uint8_t nobody[6] = {0x02, 0, 0, 0, 0, 0xfe};
	uint16_t len = (uint16_t)(RTE_ETHER_HDR_LEN + b->port.mtu);
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)rte_pktmbuf_append(m, len);
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(eth + 1);
	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
	struct rte_ether_addr client;

	memset(eth, 0, len);
	rte_eth_macaddr_get(b->port.id, &client); /* of net_tap that is the kernel's netdev */
	memcpy(&eth->dst_addr, to_client ? client.addr_bytes : nobody, 6);
	memcpy(&eth->src_addr, b->port.mac, 6);
	eth->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = 0x45;
	ip->total_length = rte_cpu_to_be_16(b->port.mtu);
	ip->time_to_live = 64;
	ip->next_proto_id = IPPROTO_UDP;
	memcpy(&ip->src_addr, b->options.ipv4.addr, 4);
	memcpy(&ip->dst_addr, b->options.gateway, 4);
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	udp->src_port = udp->dst_port = rte_cpu_to_be_16(UDP_PORT);
	udp->dgram_len = rte_cpu_to_be_16((uint16_t)(b->port.mtu - sizeof *ip)); /* a checksum of 0: none */
}

static int build_frames(struct bench *b)
{
	for (unsigned i = 0; i < 2 * DP_BURST_MAX; i++) {
		struct rte_mbuf *m = rte_pktmbuf_alloc(b->port.pool[0]);

		if (m == NULL) {
			snprintf(b->err, sizeof b->err, "no packet buffer for the prebuilt frames");
			return DP_EX_UNAVAILABLE;
		}
		build_frame(b, m, i >= DP_BURST_MAX);
		b->frame[i / DP_BURST_MAX][i % DP_BURST_MAX] = m;
	}
	return 0;
}

static void set_up_tx(struct bench *b)
{
	b->tx.port_id = b->port.id;
	b->tx.prepare = b->port.tx_ip_cksum || b->port.tx_tcp_cksum;
	b->tx.burst_max = b->port.tx_burst_max;
	b->tx.pool = b->port.pool[0];
	b->tx.tso_pool = b->port.tso_pool[0];
	b->tx.frame_max = rte_pktmbuf_data_room_size(b->tx.pool) - RTE_PKTMBUF_HEADROOM;
	b->tx.counters = b->counter;
}

static int make_stack(struct bench *b)
{
	uint8_t secret[32] = "bulk: nobody here is an enemy..";
	struct timespec ts;
	void *mem;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	dp_clock_init(&b->clock, rte_get_tsc_hz(), rte_rdtsc(), (uint64_t)ts.tv_sec * SECOND_NS + (uint64_t)ts.tv_nsec);
	dp_limits_from_options(&b->limits, &b->options, &b->port, secret);
	mem = dp_mem_alloc("the TCP stack", b->limits.tcp_bytes, b->port.numa_node, b->err, sizeof b->err);
	if (mem == NULL)
		return DP_EX_UNAVAILABLE;
	b->tcp = tcps_init(mem, b->limits.tcp_bytes, &b->limits.tcp, &tcp_ops, b, b->clock.base_ns);
	if (b->tcp == NULL || !tcps_listen(b->tcp, TCP_PORT)) {
		snprintf(b->err, sizeof b->err, "the TCP stack refuses its limits");
		return DP_EX_CONFIG;
	}
	return 0;
}

static int start(struct bench *b)
{
	int status;

	block_signals();
	if (rte_eal_init(b->options.eal_argc, b->options.eal_argv) < 0) {
		snprintf(b->err, sizeof b->err, "DPDK does not start: its own lines above say why");
		return DP_EX_UNAVAILABLE;
	}
	b->worker_lcore[0] = rte_get_next_lcore(UINT32_MAX, 1, 0);
	if (b->worker_lcore[0] >= RTE_MAX_LCORE) {
		snprintf(b->err, sizeof b->err, "there is no lcore beside the main one: give two with --lcores=0@0,1@1");
		return DP_EX_CONFIG;
	}
	status = dp_port_open(&b->port, &b->options, b->worker_lcore, b->err, sizeof b->err);
	if (status == 0)
		status = build_frames(b);
	if (status != 0)
		return status;
	if (strcmp(b->port.driver, "net_tap") == 0)
		b->tap = dp_tap_poll_take();
	set_up_tx(b);
	return make_stack(b);
}

/* ---- rounds told by lines ---- */

static uint64_t retransmits(const uint64_t *tcp)
{
	return tcp[TCPS_CNT_retransmits_rto] + tcp[TCPS_CNT_retransmits_rack] + tcp[TCPS_CNT_retransmits_fast];
}

static void tell_tcp(const struct bench *b)
{
	const uint64_t *now = b->now.tcp, *from = b->from.tcp;

	printf(", \"retransmits\": %" PRIu64 ", \"window_updates\": %" PRIu64 ", \"out_of_order\": %" PRIu64
	       ", \"tso_frames\": %" PRIu64,
	       retransmits(now) - retransmits(from), now[TCPS_CNT_window_updates] - from[TCPS_CNT_window_updates],
	       now[TCPS_CNT_out_of_order] - from[TCPS_CNT_out_of_order], now[TCPS_CNT_tso_frames] - from[TCPS_CNT_tso_frames]);
	printf(", \"mss\": %u, \"cwnd\": %u, \"peer_window\": %u, \"own_window\": %u, \"srtt_us\": %u", b->info.mss,
	       b->info.cwnd_bytes, b->info.snd_wnd_bytes, b->info.rcv_wnd_bytes, b->info.srtt_us);
}

static uint64_t payload(const struct bench *b)
{
	switch (b->mode) {
	case TCP_SINK:
		return b->now.payload - b->from.payload;
	case TCP_SOURCE:
		return b->now.tcp[TCPS_CNT_bytes_out] - b->from.tcp[TCPS_CNT_bytes_out];
	case SINK:
		return b->now.rx_bytes - b->from.rx_bytes - (b->now.rx_frames - b->from.rx_frames) * RTE_ETHER_HDR_LEN;
	default:
		return (b->now.tx[DP_CNT_port_tx_packets] - b->from.tx[DP_CNT_port_tx_packets]) * b->port.mtu;
	}
}

/* Rates are of the round's own clock: cycles that the turns took, which is all of the polling core's time but preemption. */
static void tell(const struct bench *b)
{
	const struct tally *now = &b->now, *from = &b->from;
	double cycles = (double)(now->cycles - from->cycles), seconds = cycles / (double)b->clock.hz;

	if (b->failed) {
		printf("{\"mode\": \"%s\", \"error\": \"%s\"}\n", mode_name[b->mode],
		       b->mode == SINK ? "no frames came" : "no client came, or it left early");
		return;
	}
	printf("{\"mode\": \"%s\", \"seconds\": %.3f, \"payload_bytes_per_s\": %.0f", mode_name[b->mode], seconds,
	       (double)payload(b) / seconds);
	printf(", \"rx_frames_per_s\": %.0f, \"tx_frames_per_s\": %.0f", (double)(now->rx_frames - from->rx_frames) / seconds,
	       (double)(now->tx[DP_CNT_port_tx_packets] - from->tx[DP_CNT_port_tx_packets]) / seconds);
	printf(", \"busy\": %.3f, \"rx_calls\": %.3f, \"tx_calls\": %.3f", (double)(now->busy_cycles - from->busy_cycles) / cycles,
	       (double)(now->rx_cycles - from->rx_cycles) / cycles, (double)(now->tx_cycles - from->tx_cycles) / cycles);
	printf(", \"tx_partial\": %" PRIu64, now->tx[DP_CNT_port_tx_partial] - from->tx[DP_CNT_port_tx_partial]);
	if (b->mode == TCP_SINK || b->mode == TCP_SOURCE)
		tell_tcp(b);
	puts("}");
}

static bool read_command(struct bench *b, const char *line)
{
	char name[32];

	if (sscanf(line, "%31s %u", name, &b->seconds) != 2 || b->seconds < 1 || b->seconds > SECONDS_MAX)
		return false;
	for (unsigned i = 0; i < MODES_COUNT; i++)
		if (strcmp(name, mode_name[i]) == 0) {
			b->mode = (enum mode)i;
			return true;
		}
	return false;
}

/* Asleep: rte_eal_wait_lcore() alone would spin on the core that the kernel's client has. */
static void await_round(const struct bench *b)
{
	while (rte_eal_get_lcore_state(b->worker_lcore[0]) == RUNNING)
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	rte_eal_wait_lcore(b->worker_lcore[0]);
}

/* Until end of file. Returns an exit status. */
static int obey(struct bench *b)
{
	char line[128];

	printf("{\"ready\": \"%02x:%02x:%02x:%02x:%02x:%02x\", \"mtu\": %u, \"tso\": %s}\n", b->port.mac[0], b->port.mac[1],
	       b->port.mac[2], b->port.mac[3], b->port.mac[4], b->port.mac[5], b->port.mtu, b->port.tx_tso ? "true" : "false");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin) != NULL) {
		if (!read_command(b, line)) {
			snprintf(b->err, sizeof b->err,
				 "a line is `MODE SECONDS` with one of sink, source, source-udp, tcp-sink, tcp-source and 1 to %u "
				 "seconds",
				 SECONDS_MAX);
			return DP_EX_USAGE;
		}
		rte_eal_remote_launch(run_round, b, b->worker_lcore[0]);
		await_round(b);
		tell(b);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct bench b;
	int status = dp_options_parse(&b.options, argc, argv, b.err, sizeof b.err);

	dp_log_init(DP_LOG_WARNING, 0);
	if (status == 0 && b.options.help) {
		puts("Usage: tap_bulk EAL-OPTIONS -- --ip A.B.C.D/LEN --gateway CLIENT [--tso on] [--mtu BYTES], then lines `MODE "
		     "SECONDS`;\n"
		     "tests/bench/bulk calls it.");
		return 0;
	}
	if (status == 0)
		status = start(&b);
	if (status == 0)
		status = obey(&b);
	if (status != 0)
		fprintf(stderr, "tap_bulk: %s\n", b.err);
	dp_tx_drop(&b.tx);
	dp_port_close(&b.port);
	return status;
}
