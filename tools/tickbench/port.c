/* tickbench's end of a DPDK device: connections of our own TCP stack, on the port code of the dataplane.
 * Runs inside tickbench-dpdk: one thread polls the device, in turns, whenever the load asks what is ready.
 * Specification: tcpstack/tcpstack.h for what is called from where. */
#include "tools/tickbench/port.h"

#include "dataplane/grace.h"
#include "dataplane/log.h"
#include "dataplane/port.h"
#include "dataplane/tap_poll.h"
#include "dataplane/tx.h"
#include "dataplane/worker.h"
#include "tcpstack/tcpstack.h"
#include "tools/tickbench/clock.h"
#include "tools/tickbench/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#define CONNS_MAX     8192u
#define BLOCKS_MAX    16384u
#define SEND_BYTES    ((size_t)16 * 1024) /* of one call of the stack */
#define SEND_HIGH     (512u * 1024)
#define RECV_WINDOW   (256u * 1024)
#define LINK_UP_NS    (5 * TB_SECOND_NS)
#define LINK_LOOK_NS  (10 * TB_MS_NS)
#define CLOSE_NS      (100 * TB_MS_NS)
#define SETTLE_NS     (2 * TB_MS_NS) /* after the last connection, for its last frames */
#define EAL_WORDS_MAX 48
#define HUGE_FREE     "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
#define HUGE_MIN      128

struct stream {
	struct stream *next;       /* of all */
	struct stream *next_ready; /* of those that have something to fill in */
	struct tb_conn *conn;
	struct tcps_conn *tcp; /* NULL: closed */
	size_t arrived;        /* bytes in conn->in that fill() has not told of yet */
	bool connected, held, eof, watched, queued;
	int why; /* errno of the end */
};

struct port {
	struct dp_options options;
	struct dp_port port;
	struct dp_tap_trigger tap;
	struct dp_tx tx;
	struct tcps *tcp;
	void *mem;
	struct stream *all, *first_ready, **last_ready;
	uint64_t next_look_ns;
	bool down, eal_up;
	uint64_t counter[DP_CNT_COUNT];
	_Atomic uint64_t turns;
	char device[TB_PORT_DEVICE_BYTES];
};

static struct port port;

/* ---- what the stack calls ---- */

static void mark(struct stream *s)
{
	if (s->queued)
		return;
	s->queued = true;
	s->next_ready = NULL;
	*port.last_ready = s;
	port.last_ready = &s->next_ready;
}

static uint8_t *on_tx_alloc(void *ctx, size_t len, void **handle)
{
	struct port *p = ctx;

	return dp_tx_alloc(&p->tx, len, handle);
}

static void on_tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct port *p = ctx;

	dp_tx_send(&p->tx, handle, len, meta);
}

/* Nobody listens here. */
static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)ctx;
	(void)conn;
	(void)peer;
	(void)local_port;
	return NULL;
}

static void on_connected(void *user)
{
	struct stream *s = user;

	s->connected = true;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct stream *s = user;
	struct tb_conn *c = s->conn;

	/* The buffer is begun anew as often as it is empty, so that it stays in the cache. */
	if (c->in_head == c->in_tail || c->in_cap - c->in_tail < len)
		tb_conn_compact(c);
	size_t room = c->in_cap - c->in_tail, n = len < room ? len : room;
	memcpy(c->in + c->in_tail, data, n);
	c->in_tail += n;
	s->arrived += n;
	s->held |= n < len;
	mark(s);
	return n;
}

static void on_eof(void *user)
{
	struct stream *s = user;

	s->eof = true;
	mark(s);
}

/* The publisher tries at every turn. */
static void on_writable(void *user)
{
	(void)user;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	static const int why[] = {
		[TCPS_CLOSED_NORMALLY] = 0,
		[TCPS_CLOSED_RESET] = ECONNRESET,
		[TCPS_CLOSED_TIMEOUT] = ETIMEDOUT,
		[TCPS_CLOSED_ABORTED] = ECONNABORTED,
		[TCPS_CLOSED_REFUSED] = ECONNREFUSED,
		[TCPS_CLOSED_NO_BUFFERS] = ENOBUFS,
		[TCPS_CLOSED_UNREACHABLE] = EHOSTUNREACH,
	};
	struct stream *s = user;

	s->tcp = NULL;
	s->why = why[reason];
	mark(s);
}

/* Everything is sent by copy. */
static void on_release(void *ctx, void *owner)
{
	(void)ctx;
	(void)owner;
}

static const struct tcps_ops stack_ops = {
	.tx_alloc = on_tx_alloc,
	.tx_send = on_tx_send,
	.on_accept = on_accept,
	.on_connected = on_connected,
	.on_data = on_data,
	.on_eof = on_eof,
	.on_writable = on_writable,
	.on_closed = on_closed,
	.release = on_release,
};

/* ---- a turn ---- */

static uint32_t rx_flags(const struct rte_mbuf *m)
{
	uint32_t flags = 0;

	if (!port.port.rx_cksum)
		return 0;
	if ((m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
		flags |= TCPS_RX_IP_CKSUM_GOOD;
	if ((m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
		flags |= TCPS_RX_L4_CKSUM_GOOD;
	return flags;
}

static void receive(uint64_t now_ns)
{
	struct rte_mbuf *frame[DP_BURST_MAX];
	uint16_t got;

	if (port.tap.call != NULL)
		port.tap.call(port.tap.signo);
	got = rte_eth_rx_burst(port.port.id, 0, frame, DP_BURST_MAX);
	for (uint16_t i = 0; i < got; i++)
		rte_prefetch0(rte_pktmbuf_mtod(frame[i], void *));
	for (uint16_t i = 0; i < got; i++)
		if (frame[i]->nb_segs == 1)
			tcps_input(port.tcp, rte_pktmbuf_mtod(frame[i], const uint8_t *), frame[i]->data_len, rx_flags(frame[i]),
				   now_ns);
	rte_pktmbuf_free_bulk(frame, got);
}

/* A broker that is gone sends no reset over memif, but its end of the wire goes with it. */
static void look_at_link(uint64_t now_ns)
{
	port.next_look_ns = now_ns + LINK_LOOK_NS;
	dp_port_link_changed(&port.port);
	if (port.port.link_up || port.down)
		return;
	port.down = true;
	for (struct stream *s = port.all; s; s = s->next)
		mark(s);
}

/* What was queued since the last turn leaves first: the tick that has just fallen due among it. */
static void turn(void)
{
	uint64_t now_ns = tb_now_ns();

	tcps_flush(port.tcp, now_ns);
	dp_tx_burst(&port.tx);
	receive(now_ns);
	tcps_tick(port.tcp, now_ns);
	if (now_ns >= port.next_look_ns)
		look_at_link(now_ns);
	atomic_store_explicit(&port.turns, port.turns + 1, memory_order_relaxed);
}

/* ---- what the load calls ---- */

static bool has_ended(const struct stream *s)
{
	return s->tcp == NULL || s->eof || port.down;
}

static void forget(struct stream *s)
{
	struct stream **at = &port.all;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	for (at = &port.first_ready; *at && *at != s;)
		at = &(*at)->next_ready;
	if (*at) {
		*at = s->next_ready;
		if (port.last_ready == &s->next_ready)
			port.last_ready = at;
	}
	free(s);
}

static bool begin_connect(struct tb_conn *c, const struct tb_endpoint *peer)
{
	struct tcps_endpoint to = {.addr.family = 4, .port = (uint16_t)atoi(peer->port)};
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return tb_conn_fail(c, TB_EXIT_OSERR, "out of memory for a connection");
	inet_pton(AF_INET, peer->host, to.addr.bytes);
	s->conn = c;
	s->next = port.all;
	port.all = s;
	c->stream = s;
	s->tcp = tcps_connect(port.tcp, &to, 0, s, tb_now_ns());
	if (s->tcp)
		return true;
	forget(s);
	return tb_conn_fail(c, TB_EXIT_UNAVAILABLE,
			    "cannot reach the broker at %s: no way leads there (--port-ip, --port-gateway), or there are too many "
			    "connections",
			    peer->text);
}

static void port_close(struct tb_conn *c)
{
	struct stream *s = c->stream;
	uint64_t until_ns = tb_now_ns() + CLOSE_NS;

	if (s->tcp && !c->failed && !port.down) {
		tcps_shutdown(s->tcp);
		while (s->tcp && tb_now_ns() < until_ns)
			turn();
	}
	if (s->tcp)
		tcps_abort(s->tcp);
	forget(s);
	c->stream = NULL;
}

static bool port_connect(struct tb_conn *c, const struct tb_endpoint *peer)
{
	uint64_t until_ns = tb_now_ns() + TB_CONNECT_TIMEOUT_NS;

	if (!begin_connect(c, peer))
		return false;
	struct stream *s = c->stream;
	while (!s->connected && !has_ended(s) && !tb_stop_signal && tb_now_ns() < until_ns)
		turn();
	if (s->connected)
		return true;
	if (tb_stop_signal)
		tb_conn_fail(c, TB_EXIT_INTERRUPTED, "interrupted while connecting");
	else
		tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "cannot reach the broker at %s: %s", peer->text,
			     strerror(port.down ? ENETDOWN
				      : s->tcp  ? ETIMEDOUT
						: s->why));
	port_close(c);
	return false;
}

static long port_send(struct tb_conn *c, const uint8_t *bytes, size_t length)
{
	struct stream *s = c->stream;
	size_t done = 0;

	if (s->tcp == NULL || port.down) {
		errno = port.down ? ENETDOWN : s->why ? s->why : EPIPE;
		return -1;
	}
	while (done < length && tcps_writable(s->tcp)) {
		size_t n = length - done < SEND_BYTES ? length - done : SEND_BYTES;
		if (!tcps_send(s->tcp, bytes + done, n))
			break;
		done += n;
	}
	return (long)done;
}

static long port_fill(struct tb_conn *c)
{
	struct stream *s = c->stream;

	if (s->held && s->tcp && s->arrived == 0) {
		s->held = false;
		tb_conn_compact(c);
		tcps_resume(s->tcp);
	}
	size_t n = s->arrived;
	s->arrived = 0;
	if (s->held)
		mark(s);
	if (n > 0)
		return (long)n;
	if (!has_ended(s))
		return 0;
	errno = port.down ? ENETDOWN : s->why;
	return -1;
}

static void port_wait(struct tb_conn *c, int ms)
{
	struct stream *s = c->stream;
	uint64_t until_ns = tb_now_ns() + (uint64_t)ms * TB_MS_NS;

	do
		turn();
	while (s->arrived == 0 && !s->held && !has_ended(s) && !tb_stop_signal && tb_now_ns() < until_ns &&
	       !(c->out.head < c->out.tail && tcps_writable(s->tcp)));
}

static bool port_watch_open(struct tb_watch *w)
{
	w->epoll_fd = -1;
	return true;
}

static bool port_watch(struct tb_watch *w, struct tb_conn *c, void *tag)
{
	struct stream *s = c->stream;

	(void)w;
	c->tag = tag;
	s->watched = true;
	mark(s);
	return true;
}

static void port_watch_out(struct tb_watch *w, struct tb_conn *c, bool wanted)
{
	(void)w;
	(void)c;
	(void)wanted;
}

static int port_ready(struct tb_watch *w, void **tags, int max, const struct timespec *ts)
{
	int n = 0;

	(void)w;
	(void)ts;
	turn();
	while (port.first_ready && n < max) {
		struct stream *s = port.first_ready;
		port.first_ready = s->next_ready;
		if (!port.first_ready)
			port.last_ready = &port.first_ready;
		s->queued = false;
		if (s->watched)
			tags[n++] = s->conn->tag;
	}
	return n;
}

static void port_watch_close(struct tb_watch *w)
{
	(void)w;
}

static const struct tb_transport over_port = {
	.connect = port_connect,
	.send = port_send,
	.fill = port_fill,
	.wait = port_wait,
	.close = port_close,
	.watch_open = port_watch_open,
	.watch = port_watch,
	.watch_out = port_watch_out,
	.ready = port_ready,
	.watch_close = port_watch_close,
};

/* ---- start and end ---- */

static int refuse(enum tb_exit status, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(enum tb_exit status, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "tickbench: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ".\n");
	return (int)status;
}

static long free_hugepages(void)
{
	long count = 0;
	FILE *f = fopen(HUGE_FREE, "re");

	if (f && fscanf(f, "%ld", &count) != 1)
		count = 0;
	if (f)
		fclose(f);
	return count;
}

/* Nothing in the file system, so that nothing is left there however this ends; what the user gives comes last and rules. */
static int start_eal(const struct tb_port_options *o, char **argv)
{
	static char lcore[16], words[2048];
	char *eal[EAL_WORDS_MAX] = {argv[0], (char *)"--no-telemetry", (char *)"--log-level=error", (char *)"--lcores", lcore};
	int count = 5;

	snprintf(lcore, sizeof(lcore), "0@%d", o->core);
	eal[count++] = o->pci ? (char *)"-a" : (char *)"--no-pci";
	if (!o->pci)
		eal[count++] = (char *)"--vdev";
	eal[count++] = port.device;
	if (free_hugepages() >= HUGE_MIN) {
		eal[count++] = (char *)"--in-memory";
	} else { /* those two exclude each other */
		eal[count++] = (char *)"--no-shconf";
		eal[count++] = (char *)"--no-huge";
		eal[count++] = (char *)"-m";
		eal[count++] = (char *)"128";
	}
	snprintf(words, sizeof(words), "%s", o->eal ? o->eal : "");
	for (char *at = strtok(words, " "); at; at = strtok(NULL, " ")) {
		if (count == EAL_WORDS_MAX - 1)
			return refuse(TB_EXIT_USAGE, "--port-eal has too many words");
		eal[count++] = at;
	}
	port.eal_up = rte_eal_init(count, eal) >= 0;
	if (port.eal_up)
		return 0;
	return refuse(rte_errno == EINVAL ? TB_EXIT_USAGE : TB_EXIT_UNAVAILABLE,
		      "DPDK does not start with the device %s (%s): its own lines above say more, and it must be root", o->device,
		      rte_strerror(rte_errno));
}

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

static int open_device(const struct tb_port_options *o)
{
	uint32_t lcore = rte_get_main_lcore();
	char err[512];
	int status;

	dp_log_init(DP_LOG_ERROR, 0);
	port.options.workers = 1;
	port.options.mtu = o->mtu;
	status = dp_port_open(&port.port, &port.options, &lcore, err, sizeof(err));
	if (status == DP_EX_CONFIG)
		return refuse(TB_EXIT_USAGE, "%s", err);
	if (status != 0)
		return refuse(TB_EXIT_UNAVAILABLE, "%s%s", err,
			      strcmp(port.port.driver, "net_memif") == 0 ? "; nobody serves its socket, or it is not root's" : "");
	if (strcmp(port.port.driver, "net_tap") == 0)
		port.tap = dp_tap_poll_take();
	port.tx = (struct dp_tx){.port_id = port.port.id,
				 .prepare = port.port.tx_ip_cksum || port.port.tx_tcp_cksum,
				 .burst_max = port.port.tx_burst_max,
				 .pool = port.port.pool[0],
				 .frame_max = rte_pktmbuf_data_room_size(port.port.pool[0]) - RTE_PKTMBUF_HEADROOM,
				 .counters = port.counter};
	return 0;
}

static int make_stack(const struct tb_port_options *o)
{
	struct tcps_config cfg = {
		.ipv4_prefix_len = o->prefix_len,
		.mtu = port.port.mtu,
		.mss_max = port.port.mss_max,
		.tx_ip_cksum_offload = port.port.tx_ip_cksum,
		.tx_tcp_cksum_offload = port.port.tx_tcp_cksum,
		.conns_max = CONNS_MAX,
		.half_open_max = 16,
		.time_wait_max = CONNS_MAX,
		.listeners_max = 1,
		.neighbours_max = 64,
		.blocks_max = BLOCKS_MAX,
		.send_high_water_bytes = SEND_HIGH,
		.recv_window_bytes = RECV_WINDOW,
		.rto_min_ns = 200 * TB_MS_NS,
		.rto_max_ns = 60 * TB_SECOND_NS,
		.msl_ns = TB_SECOND_NS,
		.delayed_ack_ns = 40 * TB_MS_NS,
		.retransmits_max = 15,
	};

	memcpy(cfg.mac, port.port.mac, sizeof(cfg.mac));
	memcpy(cfg.ipv4, o->ip, sizeof(cfg.ipv4));
	memcpy(cfg.ipv4_gateway, o->gateway, sizeof(cfg.ipv4_gateway));
	if (getrandom(cfg.secret, sizeof(cfg.secret), 0) != (ssize_t)sizeof(cfg.secret))
		return refuse(TB_EXIT_OSERR, "the kernel gives no random bytes: %s", strerror(errno));
	size_t bytes = (tcps_mem_bytes(&cfg) + 63) & ~(size_t)63;
	port.mem = aligned_alloc(64, bytes);
	if (!port.mem)
		return refuse(TB_EXIT_OSERR, "out of memory for the TCP stack");
	memset(port.mem, 0, bytes);
	port.tcp = tcps_init(port.mem, bytes, &cfg, &stack_ops, &port, tb_now_ns());
	if (!port.tcp)
		return refuse(TB_EXIT_USAGE,
			      "the TCP stack refuses its settings: look at --port-ip, --port-gateway and --port-mtu");
	return 0;
}

/* Over memif there is a link when both ends are there. */
static int await_link(void)
{
	uint64_t until_ns = tb_now_ns() + LINK_UP_NS;

	while (!port.port.link_up && tb_now_ns() < until_ns) {
		if (tb_stop_signal)
			return 128 + tb_stop_signal;
		usleep(1000);
		dp_port_link_changed(&port.port);
	}
	if (port.port.link_up)
		return 0;
	return refuse(TB_EXIT_UNAVAILABLE,
		      "the link of %s does not come up: is somebody at the other end, and nobody else at this one?", port.device);
}

int tb_port_open(const struct tb_port_options *o, char **argv, const struct tb_transport **via)
{
	int rc;

	port.last_ready = &port.first_ready;
	memcpy(port.device, o->device, sizeof(port.device));
	block_signals();
	rc = start_eal(o, argv);
	if (rc == 0)
		rc = open_device(o);
	if (rc == 0)
		rc = await_link();
	if (rc == 0)
		rc = make_stack(o);
	if (rc != 0) {
		tb_port_close();
		return rc;
	}
	tcps_announce(port.tcp, tb_now_ns());
	dp_grace_enter(&port.turns);
	*via = &over_port;
	return 0;
}

void tb_port_close(void)
{
	uint64_t until_ns = tb_now_ns() + SETTLE_NS;

	while (port.tcp && !port.down && tb_now_ns() < until_ns)
		turn();
	dp_grace_leave(&port.turns);
	dp_port_close(&port.port);
	if (port.eal_up)
		rte_eal_cleanup();
	free(port.mem);
}
