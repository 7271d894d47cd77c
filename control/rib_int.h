/*
 * rib_int.h - what the files of the RIB share among themselves.
 *
 * Owns: nothing.
 * Core: control's event loop.
 * Spec: see rib.h.
 */
#ifndef TICKWIRE_CTL_RIB_INT_H
#define TICKWIRE_CTL_RIB_INT_H

#include "control/rib.h"

#define CTL_UNSTORED "the durable definition could not be stored: the store is full or cannot be written (control's log says which)"

/* printf arguments for "%.*s" */
#define CTL_SPAN_ARG(s) (int)(s).len, (const char *)(s).ptr

/* Makes an object with a new id (AMQP_ID_NONE) or with that very one. NULL: no id, or it is taken. */
struct ctl_exchange *ctl_exchange_make(struct ctl_rib *r, uint32_t id, struct ctl_vhost *v, struct amqp_span name,
				       enum amqp_exchange_type type, uint32_t flags, struct amqp_span args);
struct ctl_queue *ctl_queue_make(struct ctl_rib *r, uint32_t id, struct ctl_vhost *v, struct amqp_span name, uint32_t flags,
				 uint64_t owner, struct amqp_span args);
struct ctl_binding *ctl_binding_make(struct ctl_rib *r, uint32_t id, struct ctl_exchange *src, struct ctl_exchange *dst_x,
				     struct ctl_queue *dst_q, struct ctl_rule *rule, struct amqp_span key, struct amqp_span args);
struct ctl_binding *ctl_binding_find(const struct ctl_rib *r, const struct ctl_exchange *src, const struct ctl_exchange *dst_x,
				     const struct ctl_queue *dst_q, struct amqp_span key, struct amqp_span args);
/* The rule of that key (its use is counted by ctl_binding_make). NULL: no id left, or `id` is another rule's. */
struct ctl_rule *ctl_rule_get(struct ctl_rib *r, struct ctl_exchange *x, struct amqp_span key, uint32_t id);
/* A rule that ctl_rule_get() made and that no binding came to use. */
void ctl_rule_drop_unused(struct ctl_rib *r, struct ctl_rule *rule);
/* The key of a binding's rule; *none for fanout. Errors: a reply code and a sentence. */
int ctl_rule_key(struct ctl_rib *r, const struct ctl_exchange *x, struct amqp_span key, struct amqp_span args,
		 struct amqp_span *out, bool *none, char *why, size_t why_bytes);

/* Deletes with all that hangs on it: bindings, auto-delete sources that lose their last one; store and workers are told. */
void ctl_exchange_delete(struct ctl_rib *r, struct ctl_exchange *x);
void ctl_binding_delete(struct ctl_rib *r, struct ctl_binding *b);
/* An operation failed in `worker`: that one is not told of the deletion. `keep_stored`: what is stored stays stored. */
void ctl_rib_delete_failed(struct ctl_rib *r, uint32_t worker, uint32_t op_kind, uint32_t id, bool keep_stored);

/* Replies that wait for workers, which will not answer any more. */
void ctl_rib_waiting_forget(struct ctl_rib *r);

/* The connection is gone, and its exclusive queues with it. */
void ctl_rib_conn_gone(struct ctl_rib *r, uint64_t uid);

void ctl_emit_exchange(struct ctl_rib *r, uint32_t worker, const struct ctl_exchange *x);
void ctl_emit_queue(struct ctl_rib *r, uint32_t worker, const struct ctl_queue *q);
void ctl_emit_binding(struct ctl_rib *r, uint32_t worker, const struct ctl_binding *b);

/* rib_store.c: definitions as records. False: the store refused. */
bool ctl_exchange_stored(const struct ctl_exchange *x);
bool ctl_queue_stored(const struct ctl_queue *q);
bool ctl_binding_stored(const struct ctl_binding *b);
bool ctl_exchange_store(struct ctl_rib *r, struct ctl_exchange *x);
bool ctl_queue_store(struct ctl_rib *r, struct ctl_queue *q);
bool ctl_binding_store(struct ctl_rib *r, struct ctl_binding *b);

/* args.c: arguments of declarations. Errors: 0, or a reply code and a sentence without the code's name. */
int ctl_queue_args_check(struct amqp_span args, struct amqp_span name, struct amqp_span vhost, char *why, size_t why_bytes);
int ctl_exchange_args_check(struct amqp_span args, struct amqp_span name, struct amqp_span vhost, char *why, size_t why_bytes);
/* Do the arguments that count say the same? */
int ctl_queue_args_equal(struct amqp_span now, struct amqp_span asked, struct amqp_span name, struct amqp_span vhost, char *why,
			 size_t why_bytes);

/* rib_bind.c */
void ctl_rib_bind_request(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q);

#endif
