/* Runs one load: sets the topology up, drives publisher and subscribers until the ticks are through, adds the figures up.
 * Runs inside tickbench on one thread, or with the publisher on a second one; busy polling, or asleep until there is something.
 * Specification: none of its own; see pub.c, topology.c and conn.c. */
#include "tools/tickbench/load.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TICK_SLOTS_MAX     (UINT64_C(1) << 20)
#define HOUSEKEEPING_NS    (5 * TB_MS_NS)
#define START_DELAY_NS     (20 * TB_MS_NS)
#define CLOSE_TIMEOUT_NS   (3 * TB_SECOND_NS)
#define DRAIN_HARD_FACTOR  12
#define INTERRUPT_DRAIN_NS (500 * TB_MS_NS)
#define READY_MAX          64

struct run {
	const struct tb_load *load;
	struct tb_result *r;
	struct tb_pub pub;
	struct tb_sub *subs;
	struct tb_ticks ticks;
	char exchange[256];
	uint64_t delivered_count; /* new ones, warm-up included */
	uint64_t measured_count;  /* of them, after the warm-up */
	uint64_t over_count;      /* of them, later than give_up_ns */
	uint64_t last_delivery_ns;
	uint64_t stop_asked_ns;
	uint64_t ended_ns; /* when the loop was left */
	uint64_t next_progress_ns;
	uint64_t progress_sent;
	uint64_t progress_delivered;
	struct tb_conn *failed;
	uint64_t next_heartbeat_ns;
	bool bound;            /* the exchange has bindings: it goes with the last of them */
	_Atomic bool stop;     /* publish no more */
	_Atomic bool over;     /* leave the loop */
	_Atomic bool pub_lost; /* the publisher's connection has ended */
	_Atomic bool pub_done; /* nothing left to send */
	_Atomic uint64_t confirmed_count;
};

/* One polling loop: the publisher's, the subscribers', or both on one thread. */
struct loop {
	struct run *run;
	struct tb_watch watch;
	bool has_pub;
	bool has_subs;
	bool pub_wants_out;
	bool moved;               /* something was published or received in this turn */
	uint64_t busy_ns, all_ns; /* of the turns between the next two */
	uint64_t measured_from_ns, measured_until_ns;
	uint64_t next_housekeeping_ns;
};

bool tb_pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return true;
	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) == 0;
}

/* ---- deliveries ---- */

static inline void on_tick(struct run *run, struct tb_sub *s, const uint8_t *body, uint64_t now_ns)
{
	struct tb_result *r = run->r;
	struct tb_tick tick;

	s->unacked_tag = s->assembly.delivery_tag;
	if (!body || s->assembly.body_size != run->load->size_bytes || !tb_payload_read(body, run->pub.run, &tick)) {
		r->corrupt_count++;
		return;
	}
	enum tb_arrival how = tb_track_arrival(&s->track, tick.seq, atomic_load_explicit(&run->pub.rendered, memory_order_acquire));
	if (how == TB_ARRIVAL_UNKNOWN)
		r->corrupt_count++;
	if (how != TB_ARRIVAL_NEW && how != TB_ARRIVAL_REORDERED)
		return;
	run->delivered_count++;
	run->last_delivery_ns = now_ns;
	uint32_t rank = tb_ticks_arrival(&run->ticks, tick.seq);
	if (tick.seq < run->pub.sched.warmup)
		return;
	uint64_t latency_ns = now_ns - tick.intended_ns;
	run->measured_count++;
	run->over_count += latency_ns > run->load->give_up_ns;
	tb_hist_record(&r->all, latency_ns);
	if (rank == 1) {
		tb_hist_record(&r->first, latency_ns);
		s->first_count++;
	}
	if (rank == run->ticks.median_rank)
		tb_hist_record(&r->median, latency_ns);
	if (rank == run->ticks.subscriber_count) {
		tb_hist_record(&r->last, latency_ns);
		s->last_count++;
	}
}

static void queue_ack(struct tb_sub *s)
{
	struct tb_out *o = &s->conn.out;

	tb_method_begin(o, 1, TB_BASIC_ACK);
	tb_put64(o, s->unacked_tag);
	tb_put8(o, 1); /* multiple: all that this read brought */
	tb_frame_finish(o);
	s->unacked_tag = 0;
}

/* Reads once and takes in every whole frame. Returns false when the connection has ended. */
static bool read_sub(struct loop *l, struct tb_sub *s, uint64_t *now_ns)
{
	struct run *run = l->run;
	struct tb_conn *c = &s->conn;
	struct tb_frame f;
	const uint8_t *body;
	int got;

	long n = tb_conn_fill(c, *now_ns);
	if (n <= 0)
		return n == 0;
	l->moved = true;
	/* One stamp for all that a read brought: they reached the program at the same time. */
	*now_ns = tb_now_ns();
	while ((got = tb_conn_next(c, &f)) == 1) {
		switch (tb_assemble(&s->assembly, &f, &body)) {
		case TB_ASSEMBLED_TICK:
			on_tick(run, s, body, *now_ns);
			break;
		case TB_ASSEMBLED_PART:
			break;
		case TB_ASSEMBLED_OTHER:
			if (tb_conn_common(c, &f) == 0)
				tb_conn_fail(c, TB_EXIT_PROTOCOL, "unexpected frame of type %u for a subscriber", f.type);
			break;
		case TB_ASSEMBLED_ERROR:
			tb_conn_fail(c, TB_EXIT_PROTOCOL, "content frames out of order for a subscriber");
			break;
		}
		if (c->failed)
			return false;
	}
	if (got < 0)
		return false;
	if (run->load->ack && s->unacked_tag)
		queue_ack(s);
	return c->out.head == c->out.tail || tb_conn_flush(c, *now_ns);
}

/* ---- the loop ---- */

static void connection_lost(struct run *run, struct tb_conn *c)
{
	run->failed = c;
	run->over = true;
}

static void say_progress(struct run *run, uint64_t now_ns)
{
	uint64_t sent = atomic_load(&run->pub.sent);
	uint64_t p50 = tb_hist_percentile(&run->r->all, 500000), p99 = tb_hist_percentile(&run->r->all, 990000);

	if (!run->load->progress || now_ns < run->next_progress_ns)
		return;
	run->next_progress_ns += TB_SECOND_NS;
	fprintf(stderr, "%s %s: %llu of %llu ticks, %llu ticks/s, %llu deliveries/s, p50 %.1f us, p99 %.1f us\n",
		run->load->broker.text, tb_type_name(run->load->type), (unsigned long long)sent,
		(unsigned long long)run->pub.sched.total, (unsigned long long)(sent - run->progress_sent),
		(unsigned long long)(run->delivered_count - run->progress_delivered), (double)p50 / 1e3, (double)p99 / 1e3);
	run->progress_sent = sent;
	run->progress_delivered = run->delivered_count;
}

/* Whether all that can come has come, or waiting for more is over. */
static bool finished(struct run *run, uint64_t now_ns)
{
	const struct tb_load *load = run->load;
	uint64_t sent = atomic_load_explicit(&run->pub.sent, memory_order_acquire);
	uint64_t end_ns = tb_sched_end(&run->pub.sched);
	uint64_t quiet_ns = load->drain_ns, moved_ns = run->last_delivery_ns;

	if (run->stop_asked_ns) {
		quiet_ns = INTERRUPT_DRAIN_NS < load->drain_ns ? INTERRUPT_DRAIN_NS : load->drain_ns;
		end_ns = run->stop_asked_ns;
	}
	if (atomic_load_explicit(&run->pub_done, memory_order_acquire) && run->delivered_count >= sent * load->subscribers &&
	    (!load->confirm || atomic_load(&run->confirmed_count) >= sent))
		return true;
	if (now_ns < end_ns)
		return false;
	if (moved_ns < end_ns)
		moved_ns = end_ns;
	return now_ns > moved_ns + quiet_ns || now_ns > end_ns + quiet_ns * DRAIN_HARD_FACTOR;
}

/* Find-max: more than one delivery in a hundred is already too late, so p99 cannot come in any more. */
static bool hopeless(const struct run *run, uint64_t now_ns)
{
	const struct tb_load *load = run->load;
	uint64_t expected = (run->pub.sched.total - run->pub.sched.warmup) * load->subscribers;
	uint64_t late = run->over_count;

	if (!load->give_up_ns)
		return false;
	if (now_ns > tb_sched_end(&run->pub.sched) + load->give_up_ns)
		late += expected - run->measured_count;
	return late > expected / 100 + 1;
}

static void housekeep(struct loop *l, uint64_t now_ns)
{
	struct run *run = l->run;

	l->next_housekeeping_ns = now_ns + HOUSEKEEPING_NS;
	if (l->has_pub) {
		/* The publisher's socket is looked at here too, so that a close or a flow is seen without confirms. */
		if (tb_pub_read(&run->pub, now_ns) < 0 ||
		    (tb_pub_at_border(&run->pub) && !tb_conn_heartbeat(&run->pub.conn, now_ns)))
			run->pub_lost = true;
	}
	if (!l->has_subs)
		return;
	bool beat = now_ns >= run->next_heartbeat_ns;
	if (beat)
		run->next_heartbeat_ns = now_ns + TB_SECOND_NS;
	for (uint32_t i = 0; beat && i < run->load->subscribers; i++)
		if (!tb_conn_heartbeat(&run->subs[i].conn, now_ns))
			connection_lost(run, &run->subs[i].conn);
	if (tb_stop_signal && !run->stop_asked_ns) {
		run->stop_asked_ns = now_ns;
		run->stop = true;
	}
	say_progress(run, now_ns);
	if (hopeless(run, now_ns)) {
		run->r->gave_up = true;
		run->over = true;
	}
	if (run->pub_lost)
		connection_lost(run, &run->pub.conn);
}

/* Level-triggered writability is asked for only while the socket is full: it would wake the loop for nothing otherwise. */
static void watch_pub_out(struct loop *l, bool wanted)
{
	if (l->pub_wants_out == wanted)
		return;
	l->pub_wants_out = wanted;
	l->run->load->via->watch_out(&l->watch, &l->run->pub.conn, wanted);
}

static void publish(struct loop *l, uint64_t now_ns)
{
	struct run *run = l->run;
	struct tb_pub *p = &run->pub;
	bool stopping = atomic_load_explicit(&run->stop, memory_order_relaxed);

	if (run->pub_lost)
		return;
	int moved = tb_pub_step(p, now_ns, stopping);
	if (moved < 0)
		run->pub_lost = true;
	l->moved |= moved > 0;
	if (!run->load->busy_poll)
		watch_pub_out(l, moved == 0 && p->stream.head < p->stream.tail && !stopping);
	if (tb_pub_at_border(p) && (stopping || atomic_load_explicit(&p->sent, memory_order_relaxed) == p->sched.total))
		atomic_store_explicit(&run->pub_done, true, memory_order_release);
}

static void wait_time(struct loop *l, uint64_t now_ns, struct timespec *ts)
{
	uint64_t until_ns = l->next_housekeeping_ns;
	struct tb_pub *p = &l->run->pub;
	uint64_t seq = atomic_load_explicit(&p->rendered, memory_order_relaxed);

	if (l->has_pub && seq < p->sched.total && !p->conn.flow_stopped && !l->run->stop && !l->pub_wants_out) {
		uint64_t due_ns = tb_sched_intended(&p->sched, seq);
		if (due_ns < until_ns)
			until_ns = due_ns;
	}
	uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
	*ts = (struct timespec){.tv_sec = (time_t)(wait_ns / TB_SECOND_NS), .tv_nsec = (long)(wait_ns % TB_SECOND_NS)};
}

static void poll_sockets(struct loop *l, uint64_t *now_ns)
{
	struct run *run = l->run;
	const struct tb_transport *via = run->load->via;
	void *tags[READY_MAX];
	struct timespec ts = {0};

	if (run->load->busy_poll && l->has_subs && run->load->subscribers <= via->direct_max) {
		for (uint32_t i = 0; i < run->load->subscribers; i++)
			if (!read_sub(l, &run->subs[i], now_ns))
				connection_lost(run, &run->subs[i].conn);
		if (l->has_pub && run->load->confirm && tb_pub_read(&run->pub, *now_ns) < 0)
			run->pub_lost = true;
		return;
	}
	if (!run->load->busy_poll)
		wait_time(l, *now_ns, &ts);
	int n = via->ready(&l->watch, tags, READY_MAX, &ts);
	for (int i = 0; i < n; i++) {
		struct tb_sub *s = tags[i];
		if (s) {
			if (!read_sub(l, s, now_ns))
				connection_lost(run, &s->conn);
		} else if (tb_pub_read(&run->pub, *now_ns) < 0) {
			run->pub_lost = true;
		}
	}
}

/* Of the time after the warm-up alone: setting out is not what a client is busy with. */
static void account_turn(struct loop *l, uint64_t from_ns, uint64_t now_ns)
{
	if (from_ns >= l->measured_from_ns && now_ns < l->measured_until_ns) {
		l->all_ns += now_ns - from_ns;
		l->busy_ns += l->moved ? now_ns - from_ns : 0;
	}
	l->moved = false;
}

static void run_loop(struct loop *l)
{
	struct run *run = l->run;
	uint64_t turn_ns = 0;

	while (!run->over) {
		uint64_t now_ns = tb_now_ns();
		account_turn(l, turn_ns, now_ns);
		turn_ns = now_ns;
		if (l->has_pub)
			publish(l, now_ns);
		poll_sockets(l, &now_ns);
		if (l->has_pub && run->load->confirm)
			atomic_store_explicit(&run->confirmed_count,
					      run->pub.confirms.received_count + run->pub.confirms.stale_count,
					      memory_order_relaxed);
		if (now_ns >= l->next_housekeeping_ns)
			housekeep(l, now_ns);
		if (l->has_subs && finished(run, now_ns))
			run->over = true;
	}
}

static bool loop_init(struct loop *l, struct run *run, bool has_pub, bool has_subs)
{
	const struct tb_transport *via = run->load->via;
	const struct tb_sched *s = &run->pub.sched;

	*l = (struct loop){.run = run, .has_pub = has_pub, .has_subs = has_subs, .watch.epoll_fd = -1};
	l->measured_from_ns = tb_sched_intended(s, s->warmup);
	l->measured_until_ns = tb_sched_end(s);
	if (!via->watch_open(&l->watch))
		return false;
	if (has_pub && !via->watch(&l->watch, &run->pub.conn, NULL))
		return false;
	for (uint32_t i = 0; has_subs && i < run->load->subscribers; i++)
		if (!via->watch(&l->watch, &run->subs[i].conn, &run->subs[i]))
			return false;
	return true;
}

static void *pub_thread(void *arg)
{
	struct loop *l = arg;

	tb_pin(l->run->load->cpus[1]);
	run_loop(l);
	return NULL;
}

static void fail_run(struct run *run, enum tb_exit status, const char *text)
{
	if (run->r->status == TB_EXIT_OK) {
		run->r->status = status;
		snprintf(run->r->error, sizeof(run->r->error), "%s", text);
	}
}

static void drive(struct run *run)
{
	struct loop subs_loop = {.watch.epoll_fd = -1}, pub_loop = {.watch.epoll_fd = -1};
	bool two = run->load->threads == 2;
	pthread_t thread;

	run->pub.sched.start_ns = tb_now_ns() + START_DELAY_NS;
	run->last_delivery_ns = run->pub.sched.start_ns;
	run->next_progress_ns = run->pub.sched.start_ns + TB_SECOND_NS;
	if (!loop_init(&subs_loop, run, !two, true) || (two && !loop_init(&pub_loop, run, true, false)) ||
	    (two && pthread_create(&thread, NULL, pub_thread, &pub_loop) != 0)) {
		fail_run(run, TB_EXIT_OSERR, "cannot set up epoll or a thread");
	} else {
		run_loop(&subs_loop);
		run->ended_ns = tb_now_ns();
		if (two)
			pthread_join(thread, NULL);
	}
	if (run->load->busy_poll && subs_loop.all_ns)
		run->r->busy_share = (double)subs_loop.busy_ns / (double)subs_loop.all_ns;
	run->load->via->watch_close(&subs_loop.watch);
	run->load->via->watch_close(&pub_loop.watch);
}

/* ---- before and after ---- */

/* Heartbeats while others are being set up; what the broker says meanwhile is read, so that its own count as heard. */
static void keep_alive(struct run *run, uint32_t ready, uint64_t now_ns)
{
	run->next_heartbeat_ns = now_ns + TB_SECOND_NS;
	tb_pub_read(&run->pub, now_ns);
	tb_conn_heartbeat(&run->pub.conn, now_ns);
	for (uint32_t i = 0; i <= ready; i++) {
		tb_conn_fill(&run->subs[i].conn, now_ns);
		tb_conn_heartbeat(&run->subs[i].conn, now_ns);
	}
}

static bool set_up(struct run *run)
{
	const struct tb_load *load = run->load;
	static unsigned run_number;

	run->pub.run = (uint32_t)getpid() << 8 | (++run_number & 0xFF);
	snprintf(run->exchange, sizeof(run->exchange), "%.200s-%s-%u", load->name ? load->name : "tickbench",
		 tb_type_name(load->type), run->pub.run);
	run->failed = &run->pub.conn;
	if (!tb_conn_open(&run->pub.conn, load->via, &load->broker, &load->login) ||
	    !tb_topology_exchange(&run->pub.conn, load, run->exchange))
		return false;
	for (uint32_t i = 0; i < load->subscribers; i++) {
		struct tb_sub *s = &run->subs[i];
		run->failed = &s->conn;
		if (!tb_conn_open(&s->conn, load->via, &load->broker, &load->login) ||
		    !tb_topology_queue(s, load, run->exchange, i))
			return false;
		run->bound = true;
		/* Setting up thousands, or thousands of bindings, may outlast a heartbeat interval of the first. */
		uint64_t now_ns = tb_now_ns();
		if (now_ns >= run->next_heartbeat_ns)
			keep_alive(run, i, now_ns);
	}
	run->failed = NULL;
	run->pub.sched = (struct tb_sched){.rate_per_s = load->rate_per_s, .burst = load->burst};
	run->pub.sched.warmup = load->warmup_ns / TB_MS_NS * load->rate_per_s / 1000;
	run->pub.sched.total = run->pub.sched.warmup + load->duration_ns / TB_MS_NS * load->rate_per_s / 1000;
	run->r->ticks_scheduled_count = run->pub.sched.total;
	run->pub.lateness = &run->r->lateness;
	run->pub.client_late = &run->r->client_late;
	run->pub.confirm_ns = &run->r->confirm;
	if (!tb_pub_init(&run->pub, load, run->exchange, run->pub.conn.frame_max) ||
	    !tb_ticks_init(&run->ticks, run->pub.sched.total, TICK_SLOTS_MAX, load->subscribers)) {
		fail_run(run, TB_EXIT_OSERR, "out of memory");
		return false;
	}
	return true;
}

static void take_down(struct run *run)
{
	uint64_t deadline_ns = tb_now_ns() + CLOSE_TIMEOUT_NS;

	if (run->pub.tick_bytes && !tb_pub_at_border(&run->pub))
		tb_conn_fail(&run->pub.conn, TB_EXIT_UNAVAILABLE, "stopped in the middle of a tick");
	if (!run->bound && run->pub.conn.in)
		tb_topology_remove(&run->pub.conn, run->exchange);
	for (uint32_t i = 0; i < run->load->subscribers; i++)
		tb_conn_begin_close(&run->subs[i].conn, tb_now_ns());
	for (uint32_t i = 0; i < run->load->subscribers; i++) {
		if (run->subs[i].conn.in)
			tb_conn_finish_close(&run->subs[i].conn, deadline_ns);
		tb_conn_fini(&run->subs[i].conn);
	}
	if (run->pub.conn.in) {
		tb_conn_begin_close(&run->pub.conn, tb_now_ns());
		tb_conn_finish_close(&run->pub.conn, tb_now_ns() + CLOSE_TIMEOUT_NS);
	}
	tb_conn_fini(&run->pub.conn);
	tb_pub_fini(&run->pub);
	tb_ticks_fini(&run->ticks);
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void add_up(struct run *run)
{
	struct tb_result *r = run->r;
	const struct tb_sched *s = &run->pub.sched;
	uint64_t sent = atomic_load(&run->pub.sent), begin_ns = tb_sched_intended(s, s->warmup), end_ns = tb_sched_end(s);

	r->ticks_sent_count = sent;
	r->interrupted = run->stop_asked_ns != 0;
	uint64_t due = tb_sched_due_count(s, run->ended_ns);
	r->ticks_unsent_count = r->interrupted || due < sent ? 0 : due - sent;
	r->expected_count = sent * run->load->subscribers;
	for (uint32_t i = 0; i < run->load->subscribers; i++) {
		const struct tb_track *t = &run->subs[i].track;
		r->received_count += t->received_count;
		r->lost_count += tb_track_missing(t, sent);
		r->duplicate_count += t->duplicate_count;
		r->reordered_count += t->reordered_count;
		r->stale_count += t->stale_count;
		r->first_most_count = most(r->first_most_count, run->subs[i].first_count);
		r->last_most_count = most(r->last_most_count, run->subs[i].last_count);
	}
	r->untracked_count = run->ticks.late_count;
	if (run->load->confirm) {
		uint64_t missing = tb_track_missing(&run->pub.confirms, sent), stale = run->pub.confirms.stale_count;
		r->unconfirmed_count = missing > stale ? missing - stale : 0;
		r->nacked_count = run->pub.nacked_count;
	}
	r->blocked_count = run->pub.conn.blocked_count;
	if (r->interrupted)
		end_ns = run->stop_asked_ns;
	/* What is reached is counted up to the last arrival: a backlog that drains late lowers the rate. */
	if (run->last_delivery_ns > end_ns || r->gave_up || run->failed)
		end_ns = run->last_delivery_ns;
	if (sent > s->warmup && end_ns > begin_ns) {
		r->measured_s = (double)(end_ns - begin_ns) / 1e9;
		r->ticks_per_s = (double)(sent - s->warmup) / r->measured_s;
		r->deliveries_per_s = (double)run->measured_count / r->measured_s;
	}
}

void tb_load_run(const struct tb_load *load, struct tb_result *r)
{
	struct run *run = calloc(1, sizeof(*run));

	if (run)
		run->subs = calloc(load->subscribers, sizeof(*run->subs));
	if (!run || !run->subs) {
		free(run);
		r->status = TB_EXIT_OSERR;
		snprintf(r->error, sizeof(r->error), "out of memory");
		return;
	}
	run->load = load;
	run->r = r;
	if (set_up(run)) {
		drive(run);
		add_up(run);
		snprintf(r->product, sizeof(r->product), "%s", run->pub.conn.product);
		snprintf(r->version, sizeof(r->version), "%s", run->pub.conn.version);
	}
	if (run->failed && run->failed->failed)
		fail_run(run, run->failed->failed, run->failed->error);
	if (tb_stop_signal)
		r->interrupted = true;
	take_down(run);
	free(run->subs);
	free(run);
}

/* ---- results ---- */

static struct tb_hist *result_hists(struct tb_result *r, int i)
{
	struct tb_hist *all[] = {&r->all, &r->first, &r->median, &r->last, &r->lateness, &r->client_late, &r->confirm};

	return i < (int)(sizeof(all) / sizeof(all[0])) ? all[i] : NULL;
}

bool tb_result_init(struct tb_result *r)
{
	memset(r, 0, sizeof(*r));
	for (int i = 0; result_hists(r, i); i++)
		if (!tb_hist_init(result_hists(r, i)))
			return false;
	return true;
}

void tb_result_fini(struct tb_result *r)
{
	for (int i = 0; result_hists(r, i); i++)
		tb_hist_fini(result_hists(r, i));
}

void tb_result_reset(struct tb_result *r)
{
	struct tb_result fresh = {.all = r->all,
				  .first = r->first,
				  .median = r->median,
				  .last = r->last,
				  .lateness = r->lateness,
				  .client_late = r->client_late,
				  .confirm = r->confirm};

	*r = fresh;
	for (int i = 0; result_hists(r, i); i++)
		tb_hist_reset(result_hists(r, i));
}

static double weighed(double a, double a_s, double b, double b_s)
{
	return a_s + b_s > 0 ? (a * a_s + b * b_s) / (a_s + b_s) : 0;
}

void tb_result_merge(struct tb_result *dst, struct tb_result *src)
{
	for (int i = 0; result_hists(dst, i); i++)
		tb_hist_merge(result_hists(dst, i), result_hists(src, i));
	memcpy(dst->product, src->product, sizeof(dst->product));
	memcpy(dst->version, src->version, sizeof(dst->version));
	dst->ticks_scheduled_count += src->ticks_scheduled_count;
	dst->ticks_sent_count += src->ticks_sent_count;
	dst->ticks_unsent_count += src->ticks_unsent_count;
	dst->expected_count += src->expected_count;
	dst->received_count += src->received_count;
	dst->lost_count += src->lost_count;
	dst->duplicate_count += src->duplicate_count;
	dst->reordered_count += src->reordered_count;
	dst->stale_count += src->stale_count;
	dst->corrupt_count += src->corrupt_count;
	dst->unconfirmed_count += src->unconfirmed_count;
	dst->nacked_count += src->nacked_count;
	dst->untracked_count += src->untracked_count;
	dst->first_most_count += src->first_most_count;
	dst->last_most_count += src->last_most_count;
	dst->blocked_count += src->blocked_count;
	dst->ticks_per_s = weighed(dst->ticks_per_s, dst->measured_s, src->ticks_per_s, src->measured_s);
	dst->busy_share = weighed(dst->busy_share, dst->measured_s, src->busy_share, src->measured_s);
	dst->deliveries_per_s = weighed(dst->deliveries_per_s, dst->measured_s, src->deliveries_per_s, src->measured_s);
	dst->measured_s += src->measured_s;
	dst->interrupted |= src->interrupted;
	if (dst->status == TB_EXIT_OK) {
		dst->status = src->status;
		memcpy(dst->error, src->error, sizeof(dst->error));
	}
}

bool tb_result_clean(const struct tb_result *r)
{
	return r->lost_count == 0 && r->duplicate_count == 0 && r->reordered_count == 0 && r->stale_count == 0 &&
	       r->corrupt_count == 0 && r->ticks_unsent_count == 0 && r->unconfirmed_count == 0 && r->nacked_count == 0;
}
