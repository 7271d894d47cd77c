/*
 * front.h - the seams between the files of the machine's front half; nothing else includes it.
 *
 * Owns: declarations of frame.c, method.c, connection.c, channel.c, declare.c, timer.c and broker.c.
 * Core: the worker.
 * Spec: AMQP 0-9-1.
 */
#ifndef TICKWIRE_AMQP_FRONT_H
#define TICKWIRE_AMQP_FRONT_H

#include "amqp/internal.h"
#include "amqp/methods.h"

#define AMQP_SECOND_NS       1000000000ull
#define AMQP_CLOSE_WAIT_NS   (10 * AMQP_SECOND_NS) /* for close-ok */
#define AMQP_FIN_WAIT_NS     (3 * AMQP_SECOND_NS)  /* then for the peer's FIN; a client that leaves its socket open is reset */
#define AMQP_SILENT_CLOSE_NS AMQP_SECOND_NS        /* a refused log-in hears nothing for this long */

/* ---- method.c: methods.def at work ---- */

#define AMQP_IN(state)  (1u << (state))
#define AMQP_ON_CONN    (1u << 16)
#define AMQP_ON_NEW     (1u << 17)
#define AMQP_ON_OPEN    (1u << 18)
#define AMQP_ON_CLOSING (1u << 19)

/* A method as it is taken: who sent it, on what, and its checked arguments. */
struct amqp_call {
	struct amqp_conn *c;
	struct amqp_channel *ch; /* NULL on channel 0 and for channel.open */
	uint16_t channel, class_id, method_id;
	struct amqp_reader args;
	const struct amqp_record *reply; /* control's answer; NULL when the method has just come */
};
typedef enum amqp_verdict amqp_handler(struct amqp_call *call);

struct amqp_method {
	uint16_t class_id, method_id;
	const char *name; /* "queue.declare_ok" */
	char direction;
	uint32_t where;
	const char *args;
	bool content;
	amqp_handler *handler;
};
const struct amqp_method *amqp_method_find(uint16_t class_id, uint16_t method_id); /* NULL: there is no such method */
/* 0, or the reply code for arguments that are cut short (501), not UTF-8 (501), left over or of an unknown type (502). */
uint16_t amqp_args_check(const struct amqp_method *m, const uint8_t *args, uint32_t len, const char **why);
/* One method frame's payload: every check, then the handler. */
enum amqp_verdict amqp_dispatch(struct amqp_conn *c, uint16_t channel, struct amqp_span payload);
/* The held method again, because it could not be asked before or because control has answered (`reply`). */
enum amqp_verdict amqp_dispatch_held(struct amqp_conn *c, const struct amqp_record *reply);

amqp_handler amqp_on_start_ok, amqp_on_tune_ok, amqp_on_open, amqp_on_conn_close, amqp_on_conn_close_ok, amqp_on_update_secret,
	amqp_on_channel_open, amqp_on_channel_flow, amqp_on_channel_close, amqp_on_channel_close_ok, amqp_on_unimplemented,
	amqp_on_exchange_declare, amqp_on_exchange_delete, amqp_on_exchange_bind, amqp_on_queue_declare, amqp_on_queue_bind,
	amqp_on_queue_delete, amqp_on_purge, amqp_on_basic_method, amqp_on_confirm;

/* ---- frame.c ---- */

/* A pause may have ended: dispatches a frame that waited in `join`, then asks the transport for the rest. `c` may be gone. */
void amqp_conn_proceed(struct amqp_conn *c);
bool amqp_conn_paused(const struct amqp_conn *c);
void amqp_frame_drop_join(struct amqp_conn *c);

/* ---- connection.c ---- */

enum amqp_verdict amqp_conn_greet(struct amqp_conn *c);           /* the protocol header came: connection.start */
enum amqp_verdict amqp_conn_refuse_protocol(struct amqp_conn *c); /* it was another: ours back, and FIN */
void amqp_conn_finish(struct amqp_conn *c);                       /* FIN after what is queued; input is discarded from now on */
void amqp_conn_settle(struct amqp_conn *c); /* lets go of all that others could miss: channels, exclusive queues */
void amqp_conn_slot_free(struct amqp_broker *b, uint32_t idx);
void amqp_conn_answered(struct amqp_conn *c, const struct amqp_record *reply);
void amqp_conn_end_wait(struct amqp_conn *c);
/* Copies a name into a pool block of its own, in place of an older one. False: no room. */
bool amqp_conn_keep(struct amqp_conn *c, struct amqp_span *span, void **block, struct amqp_span value);
/*
 * Asks control about the method in dispatch, which is held until the answer is there. WAIT, or STALL when there is no memory
 * to hold it. Sets the record's token and conn_uid.
 */
enum amqp_verdict amqp_ask(struct amqp_conn *c, struct amqp_record *rec);
/* Keeps the method in dispatch until somebody has answered. False: no memory. */
bool amqp_conn_hold(struct amqp_conn *c);
/* The answer's failure as an AMQP error, at the level of its code. */
enum amqp_verdict amqp_refused(struct amqp_call *call);

/* ---- channel.c ---- */

void amqp_channels_drop(struct amqp_conn *c);
const char *amqp_code_name(uint16_t code); /* "NOT_FOUND"; NULL for a code that reply_codes.def does not have */
bool amqp_code_is_hard(uint16_t code);

/* ---- broker.c ---- */

void amqp_idx_push(struct amqp_idx_ring *r, uint32_t idx); /* once each */
uint32_t amqp_idx_pop(struct amqp_idx_ring *r);            /* AMQP_NONE: empty */
struct amqp_conn *amqp_conn_by_token(struct amqp_broker *b, uint64_t token);
uint64_t amqp_next_token(struct amqp_broker *b, const struct amqp_conn *c);
/* A request in its turn: false when older ones wait already or the ring takes none. */
bool amqp_request(struct amqp_broker *b, const struct amqp_record *rec);
void amqp_requests_flush(struct amqp_broker *b, uint32_t budget);
void amqp_resets_flush(struct amqp_broker *b);
void amqp_stalled_retry(struct amqp_broker *b, uint32_t budget);

/* ---- timer.c ---- */

void amqp_timers_step(struct amqp_broker *b);

/* ---- spans ---- */

static inline struct amqp_span amqp_text(const char *s)
{
	return (struct amqp_span){(const uint8_t *)s, (uint32_t)__builtin_strlen(s)};
}
#define AMQP_SPAN_ARG(s) (int)(s).len, (const char *)(s).ptr

#endif
