/*
 * main.c - the dataplane process: start, watch, leave.
 *
 * Owns: the process: EAL, port, shared memory, worker and link, made in this order and unmade in the other.
 * Core: the main lcore; it sleeps in poll(2) but for control's messages, signals and a look at the worker ten times a second.
 * Spec: DESIGN section 1; exit statuses in options.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_pdump.h>

#include "dataplane/link.h"
#include "dataplane/log.h"
#include "dataplane/options.h"
#include "dataplane/port.h"
#include "dataplane/shm.h"
#include "dataplane/watchdog.h"
#include "dataplane/worker.h"

#define LOOK_MS            100
#define REQUEST_RING_BYTES (1u << 20)
#define OP_RING_BYTES      (4u << 20)
#define SECOND_NS          1000000000ull

struct dataplane {
	struct dp_options options;
	struct dp_port port;
	struct dp_shm shm;
	struct dp_clock clock;
	struct dp_limits limits;
	struct dp_link link;
	struct dp_worker *worker[CTL_WORKERS_MAX];
	struct dp_watchdog watchdog[CTL_WORKERS_MAX];
	uint32_t worker_lcore[CTL_WORKERS_MAX];
	int signal_fd;
	uint32_t running; /* workers that were launched */
	bool eal_up, pdump_up;
	char err[1024];
};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * SECOND_NS + (uint64_t)ts.tv_nsec;
}

/* ---- signals ---- */

/*
 * Before DPDK makes its threads, which inherit the mask: the signals to leave are read from a descriptor, and the realtime
 * ones, with which net_tap tells of frames, are left to the worker alone. SIGIO is what the kernel sends instead when
 * its queue of realtime signals is full, and its default would end the process; the queued ones do the waking then.
 */
static void block_signals(struct dataplane *d)
{
	sigset_t all, leave;

	sigemptyset(&leave);
	sigaddset(&leave, SIGTERM);
	sigaddset(&leave, SIGINT);
	sigaddset(&leave, SIGHUP);
	all = leave;
	for (int signo = SIGRTMIN; signo <= SIGRTMAX; signo++)
		sigaddset(&all, signo);
	sigprocmask(SIG_BLOCK, &all, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGIO, SIG_IGN);
	d->signal_fd = signalfd(-1, &leave, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The number of a signal that came; 0: none. */
static int take_signal(const struct dataplane *d)
{
	struct signalfd_siginfo info;

	return read(d->signal_fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

/* ---- start ---- */

static bool has_eal_argument(const struct dp_options *o, const char *name)
{
	for (int i = 1; i < o->eal_argc; i++)
		if (strcmp(o->eal_argv[i], name) == 0)
			return true;
	return false;
}

static long hugepages_count(void)
{
	long count = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, "HugePages_Total:", 16) == 0)
			count = strtol(line + 16, NULL, 10);
	if (f != NULL)
		fclose(f);
	return count;
}

static int eal_failed(struct dataplane *d)
{
	const char *cure = "DPDK's own lines above say more";
	int error = rte_errno;

	/* EAL prints its usage to stdout: into a file or pipe it would come behind our sentence, and hide it. */
	fflush(stdout);

	if (error == EINVAL)
		cure = "one of DPDK's arguments is wrong: its own lines above name it";
	else if (hugepages_count() == 0 && !has_eal_argument(&d->options, "--no-huge"))
		cure = "there are no hugepages: reserve some (sysctl vm.nr_hugepages=512), or add --no-huge -m 1024 for a slower "
		       "start without";
	else if (geteuid() != 0)
		cure = "it is not run as root: DPDK needs the privilege to map memory and to open devices";
	snprintf(d->err, sizeof d->err, "DPDK does not start (%s): %s", rte_strerror(error), cure);
	return error == EINVAL ? DP_EX_USAGE : DP_EX_UNAVAILABLE;
}

static int start_eal(struct dataplane *d)
{
	uint32_t lcore, count = 0;

	if (rte_eal_init(d->options.eal_argc, d->options.eal_argv) < 0)
		return eal_failed(d);
	d->eal_up = true;
	/* What RTE_LCORE_FOREACH_WORKER() stands for. */
	for (lcore = rte_get_next_lcore(UINT32_MAX, 1, 0); lcore < RTE_MAX_LCORE; lcore = rte_get_next_lcore(lcore, 1, 0)) {
		if (count < d->options.workers)
			d->worker_lcore[count] = lcore;
		count++;
	}
	if (count < d->options.workers) {
		snprintf(d->err, sizeof d->err,
			 "there are %u lcores beside the main one, which serves control, and %u worker%s, which need one each; "
			 "give %u "
			 "with "
			 "-l 0-%u or --lcores=0@0,1@1…",
			 count, d->options.workers, d->options.workers == 1 ? "" : "s", d->options.workers + 1, d->options.workers);
		return DP_EX_CONFIG;
	}
	return 0;
}

static void start_clock(struct dataplane *d)
{
	dp_clock_init(&d->clock, rte_get_tsc_hz(), rte_rdtsc(), clock_ns(CLOCK_MONOTONIC));
}

static int random_bytes(struct dataplane *d, void *to, size_t bytes)
{
	if (getrandom(to, bytes, 0) == (ssize_t)bytes)
		return 0;
	snprintf(d->err, sizeof d->err, "the kernel gives no random bytes: %s", strerror(errno));
	return DP_EX_UNAVAILABLE;
}

static int make_shm(struct dataplane *d)
{
	const struct amqp_limits *a = &d->limits.amqp;
	const uint8_t *ip = d->options.ipv4.addr;
	char address[64];
	struct dp_shm_plan plan = {
		.workers_count = d->options.workers,
		.counters_count = DP_COUNTERS_ALL,
		.stages_count = DP_SPAN_COUNT,
		.request_ring_bytes = REQUEST_RING_BYTES,
		.op_ring_bytes = OP_RING_BYTES,
		.arena_bytes = d->options.database_memory,
		.conns_max = a->conns_max,
		.channels_max = a->channels_max,
		.queues_max = a->queues_max,
		.consumers_max = a->consumers_max,
		.exchanges_max = a->exchanges_max,
		.bindings_max = a->bindings_max,
		.rules_max = a->rules_max,
		.tsc_hz = d->clock.hz,
		.started_s = clock_ns(CLOCK_REALTIME) / SECOND_NS,
		.pid = (uint32_t)getpid(),
		.port_text = d->port.text,
		.address_text = address,
	};

	snprintf(address, sizeof address, "%u.%u.%u.%u/%u:%u", ip[0], ip[1], ip[2], ip[3], d->options.ipv4.len,
		 d->options.amqp_port);
	for (uint32_t i = 0; i < d->options.workers; i++) {
		plan.lcore[i] = d->worker_lcore[i];
		plan.numa_node[i] = rte_lcore_to_socket_id(d->worker_lcore[i]);
	}
	if (random_bytes(d, &plan.boot_id, sizeof plan.boot_id) != 0 || !dp_shm_create(&d->shm, &plan, d->err, sizeof d->err))
		return DP_EX_UNAVAILABLE;
	dp_counters_describe(dp_shm_counter_desc(&d->shm));
	return 0;
}

static int make_workers(struct dataplane *d)
{
	struct dp_mailbox *inbox[CTL_WORKERS_MAX], *outbox[CTL_WORKERS_MAX];

	for (uint32_t i = 0; i < d->options.workers; i++) {
		struct dp_worker *w = dp_worker_create(i, d->worker_lcore[i], &d->limits, &d->options, &d->port, &d->shm, &d->clock,
						       d->link.kick_fd, d->err, sizeof d->err);

		if (w == NULL)
			return DP_EX_UNAVAILABLE;
		d->worker[i] = w;
		atomic_store(&w->wall_s, clock_ns(CLOCK_REALTIME) / SECOND_NS);
		inbox[i] = &w->inbox;
		outbox[i] = &w->outbox;
	}
	if (!dp_workers_connect(d->worker, d->options.workers, &d->limits, d->err, sizeof d->err))
		return DP_EX_UNAVAILABLE;
	dp_shm_publish(&d->shm);
	if (!dp_link_serve(&d->link, &d->shm, inbox, outbox, d->options.workers, d->err, sizeof d->err))
		return DP_EX_UNAVAILABLE;
	return 0;
}

static int launch_workers(struct dataplane *d)
{
	for (uint32_t i = 0; i < d->options.workers; i++) {
		if (rte_eal_remote_launch(dp_worker_run, d->worker[i], d->worker_lcore[i]) != 0) {
			snprintf(d->err, sizeof d->err, "lcore %u does not take the worker", d->worker_lcore[i]);
			dp_link_drain(&d->link, 0); /* those that run must leave before anything goes */
			return DP_EX_SOFTWARE;
		}
		d->running++;
		dp_watchdog_init(&d->watchdog[i], clock_ns(CLOCK_MONOTONIC));
	}
	return 0;
}

static void start_pdump(struct dataplane *d)
{
	d->pdump_up = rte_pdump_init() == 0;
	if (!d->pdump_up)
		dp_log(DP_LOG_INFO, "dpdk-dumpcap cannot attach (%s)", rte_strerror(rte_errno));
	else if (has_eal_argument(&d->options, "--no-huge") || has_eal_argument(&d->options, "--in-memory"))
		dp_log(DP_LOG_DEBUG, "dpdk-dumpcap can attach only with hugepages in files (no --no-huge, no --in-memory)");
}

/* Told apart from the IPv4 address: these two are in use only when nobody else on the link claims them. */
static void tell_ipv6(const struct dataplane *d)
{
	char global[INET6_ADDRSTRLEN], link_text[INET6_ADDRSTRLEN];
	uint8_t link[16];

	if (!tcps_link_local(d->worker[0]->tcp, link) || inet_ntop(AF_INET6, d->options.ipv6.addr, global, sizeof global) == NULL ||
	    inet_ntop(AF_INET6, link, link_text, sizeof link_text) == NULL)
		return;
	dp_log(DP_LOG_INFO, "IPv6: [%s]/%u and [%s], as soon as the link has been asked whether they are free", global,
	       d->options.ipv6.len, link_text);
}

static int start(struct dataplane *d)
{
	uint8_t secret[32];
	int status;

	if (!dp_link_open(&d->link, d->options.socket_path, d->err, sizeof d->err))
		return DP_EX_UNAVAILABLE;
	status = start_eal(d);
	if (status == 0)
		status = random_bytes(d, secret, sizeof secret);
	if (status == 0)
		status = dp_port_open(&d->port, &d->options, d->worker_lcore, d->err, sizeof d->err);
	if (status != 0)
		return status;
	start_clock(d);
	dp_limits_from_options(&d->limits, &d->options, &d->port, secret);
	status = make_shm(d);
	if (status == 0)
		status = make_workers(d);
	if (status != 0)
		return status;
	start_pdump(d);
	tell_ipv6(d);
	status = launch_workers(d);
	if (status != 0)
		return status;
	dp_log(DP_LOG_INFO, "serving AMQP on %s, lcore %u%s, %s; control at %s", d->shm.layout.address_text, d->worker_lcore[0],
	       d->options.workers > 1 ? " and others" : "",
	       d->options.idle == DP_IDLE_POLL ? "polling" : "polling, asleep in silence", d->options.socket_path);
	return 0;
}

/* ---- watch ---- */

static void watch_worker(struct dataplane *d, uint32_t idx)
{
	const struct dp_worker *w = d->worker[idx];
	uint64_t stood_ns, loops = atomic_load_explicit(&w->loops, memory_order_relaxed);

	switch (dp_watchdog_look(&d->watchdog[idx], loops, clock_ns(CLOCK_MONOTONIC), &stood_ns)) {
	case DP_WATCHDOG_STALLED:
		dp_log(DP_LOG_WARNING, "worker %u has not looped for %.1f s: is its core taken by somebody else?", w->idx,
		       (double)stood_ns / (double)SECOND_NS);
		break;
	case DP_WATCHDOG_RECOVERED:
		dp_log(DP_LOG_WARNING, "worker %u loops again after %.1f s", w->idx, (double)stood_ns / (double)SECOND_NS);
		break;
	case DP_WATCHDOG_QUIET:
		break;
	}
}

/* What is looked at every LOOK_MS; the port only once a second. */
static void look(struct dataplane *d, uint64_t *port_look_ns)
{
	uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);

	for (uint32_t i = 0; i < d->running; i++) {
		atomic_store_explicit(&d->worker[i]->wall_s, clock_ns(CLOCK_REALTIME) / SECOND_NS, memory_order_relaxed);
		watch_worker(d, i);
	}
	if (now_ns - *port_look_ns < SECOND_NS)
		return;
	*port_look_ns = now_ns;
	if (dp_port_link_changed(&d->port))
		dp_log(DP_LOG_WARNING, "port: the link is %s", d->port.link_up ? "up" : "down");
	dp_port_publish(&d->port, d->worker[0]->stats);
}

/* Until a signal comes, or until the worker has drained. Returns the signal's number, 0 when drained. */
static int serve(struct dataplane *d)
{
	uint64_t port_look_ns = 0;
	int signo;

	while (!d->link.drained) {
		/* poll(2) passes over a negative descriptor, so there may be no control. */
		struct pollfd fds[] = {
			{.fd = d->signal_fd, .events = POLLIN},
			{.fd = d->link.control_fd, .events = POLLIN},
			{.fd = d->link.listen_fd, .events = POLLIN},
		};

		poll(fds, 3, LOOK_MS / (d->link.control_fd < 0 ? 1 : 5));
		dp_link_mail(&d->link);
		signo = take_signal(d);
		if (signo != 0)
			return signo;
		if (fds[1].revents != 0 && fds[1].fd == d->link.control_fd)
			dp_link_input(&d->link);
		if (fds[2].revents != 0)
			dp_link_accept(&d->link);
		look(d, &port_look_ns);
	}
	return 0;
}

/* ---- leave ---- */

static void drain(struct dataplane *d, int signo)
{
	dp_log(DP_LOG_INFO, "%s: closing connections, %.0f s at most; a second signal leaves at once", strsignal(signo),
	       (double)DP_DRAIN_NS / (double)SECOND_NS);
	dp_link_drain(&d->link, DP_DRAIN_NS);
	signo = serve(d);
	if (signo == 0)
		return;
	dp_log(DP_LOG_WARNING, "%s again: leaving at once", strsignal(signo));
	unlink(d->options.socket_path);
	_exit(128 + signo);
}

static void summary(const struct dataplane *d)
{
	uint64_t published = 0, delivered = 0, served = 0;
	const struct dp_worker *slowest = d->worker[0];
	char what[32];

	for (uint32_t i = 0; i < d->running; i++) {
		const uint64_t *amqp = amqp_counters(d->worker[i]->amqp);

		published += amqp[AMQP_CNT_publishes];
		delivered += amqp[AMQP_CNT_deliveries];
		served += amqp[AMQP_CNT_connections_opened];
		if (d->worker[i]->laps.longest_cycles > slowest->laps.longest_cycles)
			slowest = d->worker[i];
	}
	dp_laps_text(&slowest->laps, what, sizeof what);
	dp_log(DP_LOG_INFO,
	       "left: %llu messages published, %llu delivered, %llu connections served, %llu cut off; longest turn %.1f us (%s)",
	       (unsigned long long)published, (unsigned long long)delivered, (unsigned long long)served,
	       (unsigned long long)d->link.cut_off_count, (double)slowest->counter[DP_CNT_worker_longest_loop_ns] / 1000.0, what);
}

static void stop(struct dataplane *d)
{
	for (uint32_t i = 0; i < d->running; i++)
		rte_eal_wait_lcore(d->worker_lcore[i]);
	if (d->running != 0)
		summary(d);
	dp_link_close(&d->link, true);
	if (d->pdump_up)
		rte_pdump_uninit();
	dp_port_close(&d->port);
	for (uint32_t i = 0; i < CTL_WORKERS_MAX; i++)
		dp_worker_destroy(d->worker[i]);
	dp_shm_destroy(&d->shm);
	if (d->eal_up)
		rte_eal_cleanup();
}

int main(int argc, char **argv)
{
	static struct dataplane d = {.shm = {.fd = -1}, .link = {.listen_fd = -1, .control_fd = -1, .kick_fd = -1}};
	int status = dp_options_parse(&d.options, argc, argv, d.err, sizeof d.err);

	dp_log_init((enum dp_log_level)d.options.log_level, getenv("JOURNAL_STREAM") != NULL);
	if (status == 0 && d.options.help) {
		dp_options_help(stdout);
		return 0;
	}
	if (status == 0 && d.options.version) {
		puts("tickwire-dataplane " TICKWIRE_VERSION);
		return 0;
	}
	if (status == 0) {
		block_signals(&d);
		status = start(&d);
	}
	if (status == 0)
		drain(&d, serve(&d));
	else
		dp_log(DP_LOG_ERROR, "%s", d.err);
	stop(&d);
	return status;
}
