/*
 * timer.c - what a connection owes to the clock: handshake, heartbeats, the wait for control, and the ends of closing.
 *
 * Owns: the position of the sweep over all connections.
 * Core: the worker, a few connections each millisecond, so that ten thousand of them cost nothing.
 * Spec: AMQP 0-9-1 section 4.2.7 (heartbeats) and RabbitMQ's rules: sent after half an interval of silence, and two intervals
 * without an octet end the connection.
 */
#include "amqp/front.h"

#define SWEEP_NS     256000000ull /* one look at every connection */
#define CONNS_A_STEP 256u

static const uint8_t heartbeat_frame[] = {AMQP_FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, AMQP_FRAME_END};

static void send_heartbeat(struct amqp_conn *c)
{
	struct amqp_broker *b = c->b;

	if (!b->ops.send(c->io, heartbeat_frame, sizeof heartbeat_frame)) {
		AMQP_COUNT(b, aborts_no_room);
		amqp_conn_reset_later(c);
		return;
	}
	AMQP_COUNT(b, heartbeats_sent);
	c->last_send_ns = b->now_ns;
	c->send_oct += sizeof heartbeat_frame;
	c->send_cnt++;
}

static void heartbeat(struct amqp_conn *c)
{
	uint64_t now_ns = c->b->now_ns, interval_ns = c->heartbeat_s * AMQP_SECOND_NS;

	if (interval_ns == 0)
		return;
	if (amqp_conn_paused(c))
		c->last_recv_ns = now_ns; /* we do not read: its silence says nothing */
	if (now_ns - c->last_recv_ns > 2 * interval_ns) {
		AMQP_COUNT(c->b, heartbeat_timeouts);
		amqp_conn_abort(c);
		return;
	}
	if (now_ns - c->last_send_ns >= interval_ns / 2)
		send_heartbeat(c);
}

static void end_of_closing(struct amqp_conn *c)
{
	if (c->close_deadline_ns == 0 || c->b->now_ns < c->close_deadline_ns)
		return;
	if (c->state == AMQP_CONN_CLOSED && !c->fin_queued)
		amqp_conn_finish(c); /* the silent second is over */
	else
		amqp_conn_abort(c);
}

static void look_at(struct amqp_conn *c)
{
	struct amqp_broker *b = c->b;

	if (c->state == AMQP_CONN_FREE)
		return;
	if (c->state >= AMQP_CONN_CLOSING) {
		end_of_closing(c);
		return;
	}
	if (c->waiting && !c->asks_peer && b->now_ns - c->wait_since_ns >= b->limits.control_wait_ns) {
		AMQP_COUNT(b, requests_failed);
		amqp_conn_error(c, 541, 0, 0, "the control plane is away and did not answer in time");
		return;
	}
	/* While control is asked, its time counts and not the client's. */
	if (c->state < AMQP_CONN_RUNNING && !c->waiting && b->now_ns - c->accepted_ns >= b->limits.handshake_ns) {
		AMQP_COUNT(b, handshake_timeouts);
		amqp_conn_finish(c);
		return;
	}
	if (c->state >= AMQP_CONN_OPEN_WAIT)
		heartbeat(c);
}

void amqp_timers_step(struct amqp_broker *b)
{
	/* As many as the elapsed time's share of a sweep; called late, it catches up within the bound. */
	uint64_t elapsed_ns = b->timer_ns != 0 && b->now_ns > b->timer_ns ? b->now_ns - b->timer_ns : 0;
	uint64_t share = elapsed_ns >= SWEEP_NS ? b->conns_used : (b->conns_used * elapsed_ns) / SWEEP_NS + 1;
	uint32_t n = share > CONNS_A_STEP ? CONNS_A_STEP : (uint32_t)share;

	b->timer_ns = b->now_ns;
	for (n = n > b->conns_used ? b->conns_used : n; n > 0; n--) {
		if (b->timer_idx >= b->conns_used)
			b->timer_idx = 0;
		look_at(&b->conns[b->timer_idx++]);
	}
}
