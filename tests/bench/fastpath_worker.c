/*
 * fastpath_worker.c - the production worker, dp_worker_run() itself, on a port that is two functions of this file.
 *
 * Owns: EAL, the pool of packet buffers, the worker with its shared memory, a control in process, and the clock that they go by.
 * Core: a measuring aid, one thread. The worker asks its port for frames; the port's receive function lets the far side work and
 * returns what it sent. So the worker's own work is what lies between two calls of the port.
 * Spec: tests/bench/README.md.
 *
 * Time is virtual: the worker's clock has a slope of nothing and a base that is moved here, so that a run does the same on a
 * machine that is busy, and under callgrind.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "dataplane/log.h"
#include "dataplane/shm.h"
#include "dataplane/worker.h"
#include "tests/bench/fastpath.h"
#include "tests/sim/broker_control.h"

#define PORT         0u
#define MBUFS        16384u
#define MBUF_CACHE   256u
#define START_NS     1000000000ull
#define TURN_NS      2000u    /* from one turn to the next */
#define WAIT_NS      1000000u /* ... where nobody has anything to do but wait for a timer */
#define PATIENCE     200000u  /* turns of waiting */
#define SETTLE_TURNS 3000u    /* of a millisecond: what ten thousand log-ins armed is through, some timers a turn */
#define WARM_BURSTS  64u
#define OP_RING      (1u << 20)

struct frames {
	uint32_t head, tail;
	struct rte_mbuf *frame[FAR_PORT_FRAMES];
	uint64_t at[FAR_PORT_FRAMES];
};

enum goal { GOAL_SET_UP, GOAL_TICKS };

struct path {
	struct path_options o;
	struct dp_options dp;
	struct dp_limits limits;
	struct dp_port port;
	struct dp_shm shm;
	struct dp_clock clock;
	struct dp_worker *worker;
	struct net *dice;
	struct control control;
	struct far far;
	struct frames to_worker, to_far;
	uint8_t *scratch;
	/* the run under way */
	enum goal goal;
	uint64_t bursts_left;
	bool to_nobody, stages, ticks_in_turn, in_turn, failed;
	uint32_t waited, settled;
	uint64_t turn_at, port_at, port_cycles, turn_tsc, flush_at, flush_end, flush_port;
	uint64_t calls; /* of the port's functions in a counted run */
	struct path_cost *cost;
};

static struct rte_mempool *pool;
static struct path *current;

/* ---- a port ---- */

static bool put_frame(struct frames *q, struct rte_mbuf *m, uint64_t at)
{
	if (q->tail - q->head == FAR_PORT_FRAMES)
		return false;
	q->at[q->tail % FAR_PORT_FRAMES] = at;
	q->frame[q->tail++ % FAR_PORT_FRAMES] = m;
	return true;
}

static uint8_t *far_tx_alloc(void *ctx, size_t len, void **handle)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

	(void)ctx;
	if (m == NULL)
		return NULL;
	*handle = m;
	return (uint8_t *)rte_pktmbuf_append(m, (uint16_t)len);
}

static void far_tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct path *p = ctx;
	struct rte_mbuf *m = handle;

	(void)meta;
	m->data_len = (uint16_t)len;
	m->pkt_len = (uint32_t)len;
	if (p->o.offload)
		m->ol_flags = RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
	if (!put_frame(&p->to_worker, m, 0))
		rte_pktmbuf_free(m);
}

/* Everything that the worker sent, as it left. */
static void far_receive(struct path *p)
{
	struct frames *q = &p->to_far;
	uint32_t flags = p->o.offload ? TCPS_RX_IP_CKSUM_GOOD | TCPS_RX_L4_CKSUM_GOOD : 0;

	for (; q->head != q->tail; q->head++) {
		struct rte_mbuf *m = q->frame[q->head % FAR_PORT_FRAMES];

		p->far.frame_at = q->at[q->head % FAR_PORT_FRAMES];
		tcps_input(p->far.t, rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, flags, p->far.now_ns);
		rte_pktmbuf_free(m);
	}
}

/* Control's side of the request ring. Its answers go to the broker without the other ring: no tick comes that way. */
static void control_work(struct path *p)
{
	struct ctl_ring_end requests = dp_shm_request_ring(&p->shm, 0);
	struct amqp_record rec;

	while (ctl_ring_get(&requests, p->scratch, &rec) == 1)
		control_request(&p->control, 0, &rec);
	control_step(&p->control, p->far.now_ns);
}

static bool goal_reached(struct path *p)
{
	if (p->goal == GOAL_SET_UP) {
		/* Acknowledgements of the last answers come late; they are no part of what follows. */
		p->settled = far_set_up(&p->far) ? p->settled + 1 : 0;
		return p->settled > SETTLE_TURNS;
	}
	if (!p->to_nobody && !far_all_came(&p->far))
		return false;
	if (p->bursts_left == 0)
		return true;
	p->bursts_left--;
	p->waited = 0;
	far_publish(&p->far, p->o.burst, p->to_nobody);
	p->ticks_in_turn = true;
	return false;
}

/* Lets everybody but the worker work. Nothing to receive afterwards: time goes on, or the run is over. */
static void far_work(struct path *p)
{
	struct far *f = &p->far;

	f->now_ns += TURN_NS;
	control_work(p);
	far_receive(p);
	tcps_tick(f->t, f->now_ns);
	tcps_flush(f->t, f->now_ns);
	p->ticks_in_turn = false;
	if (p->to_worker.head == p->to_worker.tail && !p->worker->leave) {
		p->worker->leave = goal_reached(p);
		tcps_flush(f->t, f->now_ns);
		if (p->to_worker.head == p->to_worker.tail && p->waited++ != 0)
			f->now_ns += WAIT_NS;
	}
	if (f->why[0] != '\0' || p->control.why != NULL || p->waited > PATIENCE)
		p->worker->leave = p->failed = true;
	p->worker->clock.base_ns = f->now_ns;
}

static void turn_ends(struct path *p, uint64_t tsc)
{
	struct path_cost *c = p->cost;
	uint64_t cycles = tsc - p->turn_at - p->port_cycles;
	const uint64_t *stamp = p->worker->stages.tsc;

	if (!p->in_turn)
		return;
	c->turns++;
	c->cycles += cycles;
	if (!p->ticks_in_turn)
		return;
	c->tick_turns++;
	c->tick_cycles += cycles;
	if (!p->stages || stamp[DP_STAMP_RX] != p->turn_tsc)
		return;
	c->samples++;
	c->receive_cycles += p->flush_at - p->turn_at;
	c->flush_cycles += p->flush_end - p->flush_at - p->flush_port;
	c->parse_cycles += stamp[DP_STAMP_PARSED] - p->turn_at;
	c->route_cycles += stamp[DP_STAMP_ROUTED] - stamp[DP_STAMP_PARSED];
	c->render_cycles += stamp[DP_STAMP_RENDERED] - stamp[DP_STAMP_ROUTED];
}

static void skew(struct path *p)
{
	if (p->far.first_at == 0)
		return;
	p->cost->skew_bursts++;
	p->cost->skew_cycles += p->far.last_at - p->far.first_at;
	p->far.first_at = 0;
}

static uint16_t port_rx(struct path *p, struct rte_mbuf **frame, uint16_t max)
{
	struct frames *q = &p->to_worker;
	uint16_t n = 0;

	turn_ends(p, rte_rdtsc());
	if (p->far.last_at != 0 && q->head == q->tail)
		skew(p);
	if (q->head == q->tail || p->to_far.head != p->to_far.tail)
		far_work(p);
	else
		p->ticks_in_turn = false;
	for (; n < max && q->head != q->tail; q->head++)
		frame[n++] = q->frame[q->head % FAR_PORT_FRAMES];
	p->cost->frames_in += n;
	p->in_turn = n != 0;
	p->turn_tsc = p->worker->tsc;
	p->port_cycles = p->flush_port = 0;
	p->turn_at = rte_rdtsc();
	return n;
}

static uint16_t port_tx(struct path *p, struct rte_mbuf **frame, uint16_t count)
{
	uint64_t from = rte_rdtsc(), at = p->cost->cycles + (from - p->turn_at - p->port_cycles);
	uint16_t n = 0;

	while (n < count && put_frame(&p->to_far, frame[n], at))
		n++;
	p->cost->frames_out += n;
	from = rte_rdtsc() - from;
	p->port_cycles += from;
	p->flush_port += from;
	return n;
}

/* Pairs of their own, so that callgrind can be told of those of a counted run by name. */
static uint16_t plain_rx(void *q, struct rte_mbuf **frame, uint16_t max)
{
	return port_rx(q, frame, max);
}

static uint16_t plain_tx(void *q, struct rte_mbuf **frame, uint16_t count)
{
	return port_tx(q, frame, count);
}

uint16_t fastpath_rx(void *q, struct rte_mbuf **frame, uint16_t max);
__attribute__((noinline)) uint16_t fastpath_rx(void *q, struct rte_mbuf **frame, uint16_t max)
{
	((struct path *)q)->calls++;
	return port_rx(q, frame, max);
}

uint16_t fastpath_tx(void *q, struct rte_mbuf **frame, uint16_t count);
__attribute__((noinline)) uint16_t fastpath_tx(void *q, struct rte_mbuf **frame, uint16_t count)
{
	((struct path *)q)->calls++;
	return port_tx(q, frame, count);
}

/* The linker gives the worker's call of tcps_flush() to this one (--wrap): where receiving ends and segments begin. */
void __real_tcps_flush(struct tcps *t, uint64_t now_ns);
void __wrap_tcps_flush(struct tcps *t, uint64_t now_ns);
void __wrap_tcps_flush(struct tcps *t, uint64_t now_ns)
{
	struct path *p = current;

	if (!p->stages || t != p->worker->tcp) {
		__real_tcps_flush(t, now_ns);
		return;
	}
	p->flush_port = 0;
	p->flush_at = rte_rdtsc();
	__real_tcps_flush(t, now_ns);
	p->flush_end = rte_rdtsc();
}

/* ---- making ---- */

bool path_start_eal(const char *program, bool hugepages, char *err, size_t err_bytes)
{
	char lcores[32], name[64];
	char *argv[] = {name,
			(char *)"-m",
			(char *)"1536",
			(char *)"--no-pci",
			(char *)"--no-telemetry",
			(char *)"--log-level=error",
			(char *)"--no-shconf",
			(char *)"--lcores",
			lcores,
			hugepages ? (char *)"--in-memory" : (char *)"--no-huge",
			NULL};
	cpu_set_t cpus;
	unsigned cpu = CPU_SETSIZE - 1;

	/* The last one: interrupts tend to come to the first. */
	sched_getaffinity(0, sizeof cpus, &cpus);
	while (!CPU_ISSET(cpu, &cpus))
		cpu--;
	snprintf(lcores, sizeof lcores, "0@%u", cpu);
	snprintf(name, sizeof name, "%s", program);
	dp_log_init(DP_LOG_ERROR, 0);
	if (rte_eal_init((int)(sizeof argv / sizeof argv[0]) - 1, argv) < 0) {
		snprintf(err, err_bytes, "DPDK does not start");
		return false;
	}
	pool = rte_pktmbuf_pool_create("fastpath", MBUFS, MBUF_CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (pool == NULL)
		snprintf(err, err_bytes, "no memory for packet buffers");
	return pool != NULL;
}

void path_stop_eal(void)
{
	rte_eal_cleanup();
}

/* The worker's own options, as the command line would bring them. */
static bool read_options(struct path *p, uint32_t conns, char *err, size_t err_bytes)
{
	char number[3][16];
	char *argv[] = {(char *)"fastpath",
			(char *)"--ip",
			(char *)"198.18.0.1/24",
			(char *)"--connections",
			number[0],
			(char *)"--channels",
			number[0],
			(char *)"--queues",
			number[1],
			(char *)"--messages",
			number[2],
			(char *)"--messages-memory",
			(char *)"64M",
			(char *)"--database-memory",
			(char *)"1M",
			(char *)"--sample-every",
			(char *)"0",
			NULL};

	snprintf(number[0], sizeof number[0], "%u", conns + 16);
	snprintf(number[1], sizeof number[1], "%u", p->o.subscribers + 64);
	snprintf(number[2], sizeof number[2], "%u", 65536 + 1024 * p->o.subscribers);
	return dp_options_parse(&p->dp, (int)(sizeof argv / sizeof argv[0]) - 1, argv, err, err_bytes) == 0;
}

static void make_port(struct path *p)
{
	struct rte_eth_fp_ops *ops = &rte_eth_fp_ops[PORT];
	static void *queue[2], *no_callbacks[2];

	p->port = (struct dp_port){.id = PORT,
				   .name = "fastpath",
				   .driver = "fastpath",
				   .mac = {0x02, 0, 0, 0, 0, 1},
				   .mtu = 1500,
				   .rx_cksum = p->o.offload,
				   .tx_ip_cksum = p->o.offload,
				   .tx_tcp_cksum = p->o.offload,
				   .numa_node = 0,
				   .mbufs_count = MBUFS,
				   .pool = {pool}};
	queue[0] = p;
	*ops = (struct rte_eth_fp_ops){
		.rx_pkt_burst = plain_rx, .rxq = {queue, no_callbacks}, .tx_pkt_burst = plain_tx, .txq = {queue, no_callbacks}};
}

static bool make_shm(struct path *p, char *err, size_t err_bytes)
{
	const struct amqp_limits *a = &p->limits.amqp;
	struct dp_shm_plan plan = {.workers_count = 1,
				   .counters_count = DP_COUNTERS_ALL,
				   .stages_count = DP_SPAN_COUNT,
				   .request_ring_bytes = OP_RING,
				   .op_ring_bytes = OP_RING,
				   .arena_bytes = p->dp.database_memory,
				   .conns_max = a->conns_max,
				   .channels_max = a->channels_max,
				   .queues_max = a->queues_max,
				   .consumers_max = a->consumers_max,
				   .exchanges_max = a->exchanges_max,
				   .bindings_max = a->bindings_max,
				   .rules_max = a->rules_max,
				   .tsc_hz = p->clock.hz,
				   .pid = (uint32_t)getpid(),
				   .port_text = "fastpath",
				   .address_text = "198.18.0.1/24:5672"};

	return dp_shm_create(&p->shm, &plan, err, err_bytes);
}

static bool make_worker(struct path *p, char *err, size_t err_bytes)
{
	static const uint8_t secret[32] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};

	p->clock = (struct dp_clock){.hz = rte_get_tsc_hz(), .base_ns = START_NS};
	dp_limits_from_options(&p->limits, &p->dp, &p->port, secret);
	if (!make_shm(p, err, err_bytes))
		return false;
	p->worker = dp_worker_create(0, 0, &p->limits, &p->dp, &p->port, &p->shm, &p->clock, -1, err, err_bytes);
	if (p->worker == NULL)
		return false;
	p->worker->wall_s = 1700000000;
	p->worker->laps.watch_cycles = UINT64_MAX; /* under callgrind every turn would be a long one */
	p->dice = net_new(1);
	control_init(&p->control, p->dice, &p->limits.amqp);
	p->control.ring_max = UINT32_MAX;
	p->control.delay_max_ns = 0;
	p->worker->control_attached = true;
	amqp_set_now(p->worker->amqp, START_NS, 1700000000);
	p->control.broker[0] = p->worker->amqp;
	p->control.workers_count = 1;
	control_start(&p->control, START_NS);
	return true;
}

static bool run(struct path *p, enum goal goal, uint64_t bursts, bool to_nobody, bool stages, struct path_cost *out)
{
	const uint64_t *amqp = amqp_counters(p->worker->amqp);
	uint64_t published = amqp[AMQP_CNT_publishes], delivered = amqp[AMQP_CNT_deliveries];

	*out = (struct path_cost){.turns = 0};
	p->cost = out;
	p->goal = goal;
	p->bursts_left = bursts;
	p->to_nobody = to_nobody;
	p->stages = stages;
	p->waited = p->settled = 0;
	p->in_turn = p->worker->leave = false;
	p->worker->stages.every = p->worker->stages.bursts_left = stages;
	dp_worker_run(p->worker);
	out->ticks = amqp[AMQP_CNT_publishes] - published;
	out->deliveries = amqp[AMQP_CNT_deliveries] - delivered;
	return !p->failed;
}

static bool fill(struct path *p, uint32_t idle_later, char *err, size_t err_bytes)
{
	static const struct tcps_ops far_port = {.tx_alloc = far_tx_alloc, .tx_send = far_tx_send};
	struct path_options room = p->o;
	struct path_cost cost;

	room.idle += idle_later;
	p->scratch = malloc(CTL_RECORD_MAX);
	if (p->scratch == NULL || !read_options(p, 1 + room.subscribers + room.idle, err, err_bytes))
		return false;
	make_port(p);
	if (!make_worker(p, err, err_bytes))
		return false;
	if (!far_init(&p->far, &room, &far_port, p, START_NS)) {
		snprintf(err, err_bytes, "the far side cannot be made");
		return false;
	}
	p->far.o = &p->o;
	far_more_idle(&p->far, p->o.idle);
	if (run(p, GOAL_SET_UP, 0, false, false, &cost) && run(p, GOAL_TICKS, WARM_BURSTS, false, false, &cost))
		return true;
	snprintf(err, err_bytes, "%s", path_why(p));
	return false;
}

struct path *path_new(const struct path_options *o, uint32_t idle_later, char *err, size_t err_bytes)
{
	struct path *p = calloc(1, sizeof *p);

	snprintf(err, err_bytes, "no memory");
	if (p == NULL)
		return NULL;
	p->o = *o;
	p->shm.fd = -1;
	current = p;
	if (fill(p, idle_later, err, err_bytes))
		return p;
	path_free(p);
	return NULL;
}

static void drop(struct frames *q)
{
	for (; q->head != q->tail; q->head++)
		rte_pktmbuf_free(q->frame[q->head % FAR_PORT_FRAMES]);
}

void path_free(struct path *p)
{
	drop(&p->to_worker);
	drop(&p->to_far);
	far_fini(&p->far);
	if (p->dice != NULL)
		control_fini(&p->control);
	net_free(p->dice);
	dp_worker_destroy(p->worker);
	dp_shm_destroy(&p->shm);
	free(p->scratch);
	free(p);
}

/* ---- running ---- */

bool path_run(struct path *p, uint64_t bursts, bool to_nobody, bool stages, struct path_cost *out)
{
	return run(p, GOAL_TICKS, bursts, to_nobody, stages, out);
}

__attribute__((noinline)) static bool fastpath_counted(struct path *p, uint64_t bursts, bool to_nobody, struct path_cost *out)
{
	return run(p, GOAL_TICKS, bursts, to_nobody, false, out);
}

bool path_run_counted(struct path *p, uint64_t bursts, bool to_nobody, struct path_cost *out)
{
	struct rte_eth_fp_ops *ops = &rte_eth_fp_ops[PORT];
	bool ok;

	ops->rx_pkt_burst = fastpath_rx;
	ops->tx_pkt_burst = fastpath_tx;
	ok = fastpath_counted(p, bursts, to_nobody, out);
	ops->rx_pkt_burst = plain_rx;
	ops->tx_pkt_burst = plain_tx;
	return ok;
}

/* Until its window is shut, what may be unsent is unsent and its queue is full; from then on a stalled reader's state is steady. */
bool path_stall(struct path *p, bool stall)
{
	struct path_cost cost;
	uint64_t ticks = 2 * ((256u << 10) + (128u << 10)) / (p->o.bytes + 100) + 2000;

	far_stall(&p->far, stall);
	return run(p, GOAL_TICKS, stall ? ticks / p->o.burst + 1 : WARM_BURSTS, false, false, &cost);
}

void path_fairness(const struct path *p, struct far_fairness *out)
{
	far_fairness(&p->far, out);
}

bool path_more_idle(struct path *p, uint32_t count)
{
	struct path_cost cost;

	far_more_idle(&p->far, count);
	return run(p, GOAL_SET_UP, 0, false, false, &cost) && run(p, GOAL_TICKS, WARM_BURSTS, false, false, &cost);
}

bool path_check(struct path *p)
{
	const char *what = tcps_check(p->worker->tcp);
	struct tcps_usage tcp;
	struct amqp_usage amqp;

	if (what == NULL)
		what = amqp_check(p->worker->amqp);
	tcps_usage(p->worker->tcp, &tcp);
	amqp_usage(p->worker->amqp, &amqp);
	if (what == NULL && !p->far.stalled && amqp.messages + amqp.entries + tcp.refs_in_use != 0 && p->o.acks == 0)
		what = "messages are left in the broker";
	if (what == NULL && dp_tx_buffers_out(&p->worker->tx) != 0)
		what = "packet buffers are left";
	if (what != NULL)
		snprintf(p->far.why, sizeof p->far.why, "%s", what);
	return what == NULL;
}

const char *path_why(const struct path *p)
{
	if (p->far.why[0] != '\0')
		return p->far.why;
	if (p->control.why != NULL)
		return p->control.why;
	return p->waited > PATIENCE ? "a tick does not come to everybody" : "";
}
