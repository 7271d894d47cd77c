/*
 * rib.h - the RIB: all that was declared, by whom, durable or not; requests in, operations and replies out.
 *
 * Owns: vhosts, exchanges, queues, bindings, rules and the connections that own exclusive queues; their ids.
 * Core: control's event loop. A pure module: what it has to tell anybody goes through `struct ctl_rib_ops`.
 * Spec: AMQP 0-9-1 sections 1.7 and 1.8 (exchange, queue) with RabbitMQ's semantics and texts.
 */
#ifndef TICKWIRE_CTL_RIB_H
#define TICKWIRE_CTL_RIB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "amqp/records.h"
#include "control/map.h"

#define CTL_ALL_WORKERS UINT32_MAX

struct ctl_vhost {
	LIST_ENTRY(ctl_vhost) all;
	struct amqp_span name;
	uint32_t id;
	bool configured; /* it may be opened; others are kept because definitions name them */
};

/* One distinct pattern of one exchange. Without bindings it lives on while an image names it. */
struct ctl_rule {
	struct ctl_map_node by_key;
	struct ctl_exchange *source; /* NULL: no binding has it any more */
	struct amqp_span key;
	uint32_t id, bindings_count, images_count;
};

struct ctl_binding {
	struct ctl_map_node by_key;
	LIST_ENTRY(ctl_binding) of_source, of_destination;
	struct ctl_exchange *source, *dest_exchange;
	struct ctl_queue *dest_queue; /* exactly one of dest_exchange, dest_queue */
	struct ctl_rule *rule;        /* NULL: fanout */
	struct amqp_span key, args;
	uint64_t store_id; /* 0: not stored */
	uint32_t id;
	uint32_t have; /* bit a worker: it has told that it has this one (sync) */
};
LIST_HEAD(ctl_binding_list, ctl_binding);

struct ctl_exchange {
	struct ctl_map_node by_name;
	struct ctl_vhost *vhost;
	struct amqp_span name, args;
	enum amqp_exchange_type type;
	uint32_t id, flags, have;
	uint64_t store_id;
	bool dying;
	struct ctl_exchange *next_dying;
	struct ctl_binding_list as_source, as_destination;
	uint32_t bindings_count; /* as source */
	uint32_t pattern_rules;  /* rules that a database can hold: wildcard topics, headers */
};

struct ctl_queue {
	struct ctl_map_node by_name, by_owner; /* by_owner: exclusive ones only */
	struct ctl_vhost *vhost;
	struct amqp_span name, args;
	uint32_t id, flags, have;
	uint64_t store_id;
	uint64_t owner; /* conn_uid, of an exclusive queue */
	uint32_t home;  /* worker that it lives on: that of the connection that declared it */
	struct ctl_binding_list as_destination;
};

/* A connection past connection.open. */
struct ctl_conn {
	struct ctl_map_node by_uid;
	uint64_t uid;
	uint32_t worker;
	struct amqp_span vhost, user;
};

struct ctl_rib_limits {
	uint32_t exchanges_max, queues_max, bindings_max, rules_max;
};

/* A reply that is due when every other worker has applied what it is about. */
struct ctl_waiting;
LIST_HEAD(ctl_waiting_list, ctl_waiting);

/* What the RIB calls. A record's spans are lent for the call. */
struct ctl_rib_ops {
	/* An operation or REPLY for `worker`, or for CTL_ALL_WORKERS; delivered after what was stored has been committed. */
	void (*emit)(void *ctx, uint32_t worker, const struct amqp_record *rec);
	/* Stores a definition: kind OP_*_ADD, see rib_store.c. Returns its store id; 0: could not. */
	uint64_t (*store_put)(void *ctx, const struct amqp_record *def);
	bool (*store_del)(void *ctx, uint64_t store_id);
	void (*rules_changed)(void *ctx, struct ctl_exchange *x);
	void (*exchange_gone)(void *ctx, uint32_t exchange_id);
	void (*random)(void *ctx, void *out, size_t bytes);
};

struct ctl_rib {
	const struct ctl_rib_ops *ops;
	void *ctx;
	uint32_t workers_count; /* 0: no dataplane is attached */
	struct ctl_rib_limits limits;
	LIST_HEAD(, ctl_vhost) vhosts;
	uint32_t vhosts_max_id;
	struct ctl_map exchanges_by_name, queues_by_name, bindings_by_key, rules_by_key, conns_by_uid, queues_by_owner;
	struct ctl_exchange **exchange;
	struct ctl_queue **queue;
	struct ctl_binding **binding;
	struct ctl_rule **rule; /* by id, those without bindings included */
	struct ctl_ids exchange_ids, queue_ids, binding_ids, rule_ids;
	uint8_t secret[16];
	/* of the request in hand: operations carry it */
	uint64_t token, conn_uid;
	uint32_t skip_worker; /* not told of operations: it has reported the failure that they undo */
	bool keep_stored;     /* what is undone stays in the store */
	bool mute;            /* nobody is told: what is undone was never told */
	struct ctl_exchange *dying;
	/* sync */
	bool syncing;
	uint32_t dumps_open; /* workers whose DUMP_END is awaited */
	const char *sync_error;
	struct ctl_waiting_list waiting; /* replies that wait for workers */
	/* scratch for canonical headers rules */
	uint8_t *rule_scratch;
};
#define CTL_RULE_BYTES_MAX 65536u

void ctl_rib_init(struct ctl_rib *r, const struct ctl_rib_ops *ops, void *ctx, const struct ctl_rib_limits *limits);
void ctl_rib_fini(struct ctl_rib *r);
/* Forgets everything but the configured vhosts, whose ids it forgets as well; emits nothing. */
void ctl_rib_reset(struct ctl_rib *r, const struct ctl_rib_limits *limits);

/* ---- vhosts ---- */
/* The vhost of that name, made when it is not there. */
struct ctl_vhost *ctl_rib_vhost(struct ctl_rib *r, struct amqp_span name);
struct ctl_vhost *ctl_rib_vhost_find(const struct ctl_rib *r, struct amqp_span name);
struct ctl_vhost *ctl_rib_vhost_by_id(const struct ctl_rib *r, uint32_t id);
/* The default exchanges of every vhost ("", amq.direct, …) that are not there are made (and emitted). */
void ctl_rib_defaults(struct ctl_rib *r);

/* ---- requests and notices of workers (all but LOGIN and OPEN, which access.c answers, and DEF_*) ---- */
void ctl_rib_request(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q);
/* Answers a request: text is "NAME - sentence" of the code, made fit for a short string. */
void ctl_rib_reply(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, uint16_t code, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* The reply of success: id and s1 as the request says. */
void ctl_rib_reply_ok(struct ctl_rib *r, uint32_t worker, const struct amqp_record *q, uint32_t id, struct amqp_span name,
		      uint32_t flags);
void ctl_rib_conn_add(struct ctl_rib *r, uint32_t worker, uint64_t uid, struct amqp_span vhost, struct amqp_span user);
/* An operator deletes a queue. */
void ctl_rib_queue_delete(struct ctl_rib *r, struct ctl_queue *q);
/* Ids freed so far may come back: every worker has applied what was emitted, and has nothing unread in its request ring. */
void ctl_rib_settle(struct ctl_rib *r);

/* ---- sync with the dataplane: begin, DEF_* records of every worker, the store's definitions, end ---- */
/* Forgets all, asks every worker for its dump. */
void ctl_rib_sync_begin(struct ctl_rib *r, uint32_t workers_count, const struct ctl_rib_limits *limits);
/* A DEF_* or DUMP_END record. False: it contradicts itself or what came before (r->sync_error says how). */
bool ctl_rib_sync_record(struct ctl_rib *r, uint32_t worker, const struct amqp_record *rec);
/* A stored definition: made when it is missing. False: it cannot be used (a sentence in *why). Also without a dataplane. */
bool ctl_rib_restore(struct ctl_rib *r, const struct amqp_record *def, uint64_t store_id, const char **why);
/* After the last dump and the store: programs what workers lack, drops exclusive queues whose connections are gone. */
void ctl_rib_sync_end(struct ctl_rib *r);

/* ---- looking ---- */
struct ctl_exchange *ctl_rib_exchange(const struct ctl_rib *r, const struct ctl_vhost *v, struct amqp_span name);
struct ctl_queue *ctl_rib_queue(const struct ctl_rib *r, const struct ctl_vhost *v, struct amqp_span name);
struct ctl_conn *ctl_rib_conn(const struct ctl_rib *r, uint64_t uid);
const char *ctl_exchange_type_name(enum amqp_exchange_type t);
/* Does a Hyperscan database hold such a rule? Topic patterns without wildcards live in a hash. */
bool ctl_rule_is_pattern(enum amqp_exchange_type type, struct amqp_span key);
/* An image names this rule, or does no more. */
void ctl_rib_rule_hold(struct ctl_rib *r, uint32_t rule_id);
void ctl_rib_rule_release(struct ctl_rib *r, uint32_t rule_id);
/* An image of a former control names an id that no binding has: it stays reserved. False: out of range. */
bool ctl_rib_rule_adopt(struct ctl_rib *r, uint32_t rule_id);
/* Invariants over all maps and lists, for tests: NULL, or a sentence. */
const char *ctl_rib_check(const struct ctl_rib *r);

#endif
