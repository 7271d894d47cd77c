/*
 * drain.c - the worker's way out: nobody new, a reason for everybody who is there, then the door.
 *
 * Owns: the drain fields of struct dp_worker.
 * Core: the worker, as one of its polls.
 * Spec: AMQP 0-9-1 1.4.2.9 (connection.close), reply code 320 CONNECTION_FORCED.
 */
#include "dataplane/drain.h"

#include "dataplane/fib_link.h"
#include "dataplane/worker.h"

#define CONNS_A_TURN      2u
#define SLOTS_A_TURN      64u /* of the pool, most of which may be free */
#define CONNECTION_FORCED 320u

void dp_drain_begin(struct dp_worker *w, uint64_t for_ns)
{
	if (w->drain.active)
		return;
	w->drain.active = true;
	w->drain.until_ns = w->now_ns + for_ns;
	tcps_unlisten(w->tcp, w->amqp_port);
}

static uint32_t tell_conns(struct dp_worker *w)
{
	static const char text[] = "CONNECTION_FORCED - broker is shutting down";
	struct amqp_record op = {.kind = AMQP_OP_CONN_CLOSE, .code = CONNECTION_FORCED};
	uint32_t end = amqp_rows_conns(w->amqp), told = 0, looked = 0;
	struct amqp_row_conn row;

	op.str[0] = (struct amqp_span){(const uint8_t *)text, sizeof text - 1};
	for (; told < CONNS_A_TURN && looked < SLOTS_A_TURN && w->drain.next_idx < end; w->drain.next_idx++, looked++)
		if (amqp_row_conn(w->amqp, w->drain.next_idx, &row)) {
			op.conn_uid = row.uid;
			amqp_apply(w->amqp, &op);
			told++;
		}
	w->drain.conns_told = w->drain.next_idx >= end;
	return told;
}

uint32_t dp_drain_step(struct dp_worker *w)
{
	struct tcps_usage usage;

	if (!w->drain.conns_told)
		return tell_conns(w);
	tcps_usage(w->tcp, &usage);
	if ((usage.conns != 0 || w->tx.frames_count != 0) && w->now_ns < w->drain.until_ns)
		return 0;
	if (dp_mailbox_put(&w->outbox, &(struct dp_mail){.kind = DP_MAIL_DRAINED, .number = usage.conns}))
		w->leave = true;
	return 0;
}
