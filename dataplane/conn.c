/*
 * conn.c - the seam between a TCP connection and the AMQP connection on it.
 *
 * Owns: the callbacks that each of the two libraries is given for the other.
 * Core: the worker.
 * Spec: tcpstack/tcpstack.h and amqp/amqp.h; the transport handle of an AMQP connection is its tcps_conn.
 */
#include "dataplane/conn.h"

#include <arpa/inet.h>

#include <rte_cycles.h>

#include "dataplane/fib_link.h"
#include "dataplane/handover.h"
#include "dataplane/worker.h"

#define HANDSHAKE_UNREAD_MAX 4096u /* bytes that control's answer about a log-in may have waiting behind it */

static _Thread_local struct dp_worker *self;

void dp_conn_bind_thread(struct dp_worker *w)
{
	self = w;
}

/* ---- from the stack to the broker ---- */

static uint8_t *on_tx_alloc(void *ctx, size_t len, void **handle)
{
	struct dp_worker *w = ctx;

	return dp_tx_alloc(&w->tx, len, handle);
}

static void on_tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct dp_worker *w = ctx;

	dp_tx_send(&w->tx, handle, len, meta);
}

static uint8_t *on_tx_chain(void *ctx, size_t len, const struct tcps_piece *pieces, unsigned count, void **handle)
{
	struct dp_worker *w = ctx;

	return dp_tx_chain(&w->tx, len, pieces, count, handle);
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	struct dp_worker *w = ctx;
	struct amqp_conn *c;
	char text[INET6_ADDRSTRLEN];

	if (inet_ntop(peer->addr.family == 4 ? AF_INET : AF_INET6, peer->addr.bytes, text, sizeof text) == NULL)
		return NULL;
	c = amqp_conn_accept(w->amqp, conn, text, peer->port, local_port);
	if (c == NULL)
		w->counter[DP_CNT_worker_accepts_refused]++;
	else
		tcps_recv_limit(conn, HANDSHAKE_UNREAD_MAX);
	return c;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct dp_worker *w = self;

	if (!w->burst_has_payload) {
		w->burst_has_payload = true;
		if (dp_stages_burst(&w->stages))
			amqp_sample_next(w->amqp);
	}
	return amqp_conn_input(user, data, len);
}

static void on_eof(void *user)
{
	amqp_conn_eof(user);
}

static void on_writable(void *user)
{
	amqp_conn_writable(user);
}

/* A reset that the broker itself asked for is no news to it: it has forgotten the connection already. */
static void on_closed(void *user, enum tcps_reason reason)
{
	(void)reason;
	if (user != self->aborting)
		amqp_conn_closed(user);
}

static void on_release(void *ctx, void *owner)
{
	struct dp_worker *w = ctx;

	amqp_release(w->amqp, owner);
}

static void on_hold(void *ctx, void *owner)
{
	struct dp_worker *w = ctx;

	amqp_hold(w->amqp, owner);
}

static bool on_elsewhere(void *ctx)
{
	return dp_handover_elsewhere(ctx);
}

/* The broker opens no connection itself, so this is never reached. */
static void on_connected(void *user)
{
	(void)user;
}

void dp_conn_piece_done(void *ctx, void *owner)
{
	on_release(ctx, owner);
}

const struct tcps_ops dp_conn_tcps_ops = {
	.tx_alloc = on_tx_alloc,
	.tx_send = on_tx_send,
	.on_accept = on_accept,
	.on_connected = on_connected,
	.on_data = on_data,
	.on_eof = on_eof,
	.on_writable = on_writable,
	.on_closed = on_closed,
	.release = on_release,
	.tx_chain = on_tx_chain,
	.hold = on_hold,
	.elsewhere = on_elsewhere,
};

/* ---- from the broker to the stack ---- */

static uint8_t *io_reserve(void *io, size_t len)
{
	return tcps_reserve(io, len);
}

static void io_commit(void *io, size_t len)
{
	tcps_commit(io, len);
}

static bool io_send(void *io, const void *data, size_t len)
{
	return tcps_send(io, data, len);
}

static bool io_send_ref(void *io, const void *data, size_t len, void *owner)
{
	return tcps_send_ref(io, data, len, owner);
}

static bool io_has_room(void *io, size_t bytes, size_t refs)
{
	return tcps_has_room(io, bytes, refs);
}

static bool io_writable(void *io)
{
	return tcps_writable(io);
}

static void io_admitted(void *io)
{
	tcps_recv_limit(io, SIZE_MAX);
}

static void io_resume(void *io)
{
	tcps_resume(io);
}

static void io_shutdown(void *io)
{
	tcps_shutdown(io);
}

/* Releases of references run inside and may end in another abort, hence the kept value. */
static void io_abort(void *io)
{
	void *outer = self->aborting;

	self->aborting = tcps_user(io);
	tcps_abort(io);
	self->aborting = outer;
}

static bool on_request(void *ctx, const struct amqp_record *rec)
{
	return dp_fib_request(ctx, rec);
}

static void on_stage(void *ctx, enum amqp_stage stage)
{
	struct dp_worker *w = ctx;

	dp_stages_stamp(&w->stages, (enum dp_stamp)(stage + 1), rte_rdtsc(), w->tsc);
}
_Static_assert((int)AMQP_STAGE_PARSED + 1 == DP_STAMP_PARSED && (int)AMQP_STAGE_ROUTED + 1 == DP_STAMP_ROUTED &&
		       (int)AMQP_STAGE_RENDERED + 1 == DP_STAMP_RENDERED,
	       "the broker's stages are our stamps from PARSED on");

const struct amqp_ops dp_conn_amqp_ops = {
	.reserve = io_reserve,
	.commit = io_commit,
	.send = io_send,
	.send_ref = io_send_ref,
	.has_room = io_has_room,
	.writable = io_writable,
	.admitted = io_admitted,
	.resume = io_resume,
	.shutdown = io_shutdown,
	.abort = io_abort,
	.request = on_request,
	.stage = on_stage,
};
_Static_assert(AMQP_RESERVE_MAX <= TCPS_RESERVE_MAX, "what the broker may reserve the stack can give");
