/* The floor of the path: 64-byte UDP datagrams to an echo, on the same open-loop schedule and into the same histogram.
 * Runs inside tickbench on the main thread, before each round of loads.
 * Specification: RFC 862 (echo protocol). */
#include "tools/tickbench/clock.h"
#include "tools/tickbench/report.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ECHO_BYTES    64
#define ECHO_DRAIN_NS (200 * TB_MS_NS)

struct echo {
	int fd;
	uint32_t run;
	bool busy;
	struct tb_sched sched;
	struct tb_track track;
	uint64_t next;
	struct tb_echo_result *r;
};

static void fail(struct tb_echo_result *r, enum tb_exit status, const char *what, const char *peer, const char *why)
{
	r->status = status;
	snprintf(r->error, sizeof(r->error), "%s %s: %s", what, peer, why);
}

static bool open_socket(struct echo *e, const struct tb_endpoint *peer)
{
	struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *ai = NULL;
	int rc = getaddrinfo(peer->host, peer->port, &hints, &ai);

	if (rc != 0) {
		fail(e->r, TB_EXIT_UNAVAILABLE, "cannot find the echo", peer->text, gai_strerror(rc));
		return false;
	}
	e->fd = socket(ai->ai_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (e->fd < 0 || connect(e->fd, ai->ai_addr, ai->ai_addrlen) != 0)
		fail(e->r, TB_EXIT_UNAVAILABLE, "cannot reach the echo at", peer->text, strerror(errno));
	freeaddrinfo(ai);
	return e->r->status == TB_EXIT_OK;
}

static void send_due(struct echo *e, uint64_t now_ns)
{
	uint8_t bytes[ECHO_BYTES];

	if (!tb_sched_due(&e->sched, e->next, now_ns))
		return;
	uint64_t intended_ns = tb_sched_intended(&e->sched, e->next);
	memset(bytes, '0', sizeof(bytes));
	tb_payload_write(bytes, e->run, e->next, intended_ns);
	if (send(e->fd, bytes, sizeof(bytes), MSG_DONTWAIT) < 0)
		return; /* full, or a refusal of an earlier one: this tick stays due */
	if (e->next >= e->sched.warmup)
		tb_hist_record(&e->r->lateness, now_ns - intended_ns);
	e->next++;
	e->r->sent_count++;
}

static void receive(struct echo *e)
{
	uint8_t bytes[2048];
	struct tb_tick tick;

	for (;;) {
		ssize_t n = recv(e->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n < 0)
			return;
		uint64_t now_ns = tb_now_ns();
		if (n != ECHO_BYTES || !tb_payload_read(bytes, e->run, &tick))
			continue;
		enum tb_arrival how = tb_track_arrival(&e->track, tick.seq, e->next);
		if (how != TB_ARRIVAL_NEW && how != TB_ARRIVAL_REORDERED)
			continue;
		e->r->received_count++;
		if (tick.seq >= e->sched.warmup)
			tb_hist_record(&e->r->round_trip, now_ns - tick.intended_ns);
	}
}

static void wait_epoll(const struct echo *e, uint64_t now_ns)
{
	uint64_t due_ns = e->next < e->sched.total ? tb_sched_intended(&e->sched, e->next) : now_ns + TB_MS_NS;
	struct pollfd p = {.fd = e->fd, .events = POLLIN};
	uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;

	if (wait_ns > 5 * TB_MS_NS)
		wait_ns = 5 * TB_MS_NS;
	ppoll(&p, 1, &(struct timespec){.tv_nsec = (long)wait_ns}, NULL);
}

static void echo_loop(struct echo *e)
{
	uint64_t end_ns = tb_sched_end(&e->sched);

	while (!tb_stop_signal) {
		uint64_t now_ns = tb_now_ns();
		send_due(e, now_ns);
		if (!e->busy)
			wait_epoll(e, now_ns);
		receive(e);
		if (e->next == e->sched.total && e->track.received_count == e->next)
			break;
		if (now_ns > end_ns + ECHO_DRAIN_NS)
			break;
	}
}

void tb_echo_run(const struct tb_load *load, const struct tb_endpoint *peer, struct tb_echo_result *r)
{
	struct echo e = {.fd = -1, .r = r, .run = (uint32_t)getpid(), .busy = load->busy_poll};

	if (open_socket(&e, peer)) {
		e.sched =
			(struct tb_sched){.start_ns = tb_now_ns() + TB_MS_NS, .rate_per_s = load->rate_per_s, .burst = load->burst};
		e.sched.warmup = load->warmup_ns / TB_MS_NS * load->rate_per_s / 1000;
		e.sched.total = e.sched.warmup + load->duration_ns / TB_MS_NS * load->rate_per_s / 1000;
		echo_loop(&e);
		r->interrupted = tb_stop_signal != 0;
		r->unsent_count += r->interrupted ? 0 : e.sched.total - e.next;
		if (e.track.received_count == 0 && !r->interrupted)
			fail(r, TB_EXIT_UNAVAILABLE, "no echo came back from", peer->text,
			     "the echo service is not on; a lab has it when it is started with '-- --udp-echo'");
		r->done = r->round_trip.count > 0;
	}
	if (e.fd >= 0)
		close(e.fd);
}
