/*
 * amqp.h - the AMQP 0-9-1 machine of one worker: connections, channels, the FIB, queues and delivery.
 *
 * Owns: one `struct amqp_broker` per worker, with all its memory.
 * Core: the worker that made it; no locks, no allocation after init, no clock: time comes in through amqp_set_now().
 * Spec: AMQP 0-9-1 with RabbitMQ's errata; reply codes in reply_codes.def, methods in methods.def.
 */
#ifndef TICKWIRE_AMQP_H
#define TICKWIRE_AMQP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp/records.h"

struct amqp_broker;
struct amqp_conn;
struct match_db;
struct match_scratch;

struct amqp_limits {
	uint32_t conns_max;
	uint32_t channels_max;      /* over all connections */
	uint16_t channels_per_conn; /* offered in connection.tune: 2047 */
	uint32_t consumers_max;
	uint32_t exchanges_max;
	uint32_t queues_max;
	uint32_t bindings_max;
	uint32_t entries_max;       /* messages held by queues and unacknowledged, one entry each */
	size_t message_pool_bytes;  /* a power of two; messages, split frames, definitions' names and tables */
	uint32_t message_bytes_max; /* largest body */
	uint32_t frame_max;         /* offered in connection.tune: 131072 */
	uint16_t heartbeat_s;       /* offered in connection.tune: 60 */
	uint32_t routes_max, route_queues_max, route_cache_max;
	uint32_t rules_max, rule_nodes_max, rule_key_bytes_max; /* matcher */
	uint64_t handshake_ns;                                  /* 10 s from accept to connection.open */
	uint64_t control_wait_ns;                               /* a declaration waits this long for control, then fails with 541 */
	uint8_t secret[16];
	uint8_t worker_idx;    /* makes the uids and tokens of one worker differ from those of the others */
	uint8_t workers_count; /* in this process; 0 and 1: alone */
	uint32_t mail_slots;   /* of each ring between two workers: a power of two from 2 on */
	char cluster_name[64]; /* told in connection.start; federation tells brokers apart by it */
};
#define AMQP_WORKERS_MAX 16u
/* Sensible limits for a software lab; the dataplane's options change single fields. */
void amqp_limits_default(struct amqp_limits *l);

enum amqp_stage { AMQP_STAGE_PARSED, AMQP_STAGE_ROUTED, AMQP_STAGE_RENDERED };

/* What the machine calls. `io` is the transport handle of a connection, `ctx` that of amqp_broker_init(). */
struct amqp_ops {
	/*
	 * Contiguous room for `len` (<= AMQP_RESERVE_MAX) bytes in the unsent stream; then commit. NULL when there is none for
	 * contents; answers go by send(), which may take more.
	 */
	uint8_t *(*reserve)(void *io, size_t len);
	void (*commit)(void *io, size_t len);
	/* Copies any length, all or nothing. */
	bool (*send)(void *io, const void *data, size_t len);
	/* Appends a reference that stays valid until amqp_release(broker, owner). */
	bool (*send_ref)(void *io, const void *data, size_t len, void *owner);
	/* Whether `refs` references with `bytes` of inline bytes before and between them would find room. */
	bool (*has_room)(void *io, size_t bytes, size_t refs);
	/*
	 * The peer takes what it is sent: the transport's mark for unsent bytes is not reached. A connection above it gets no
	 * deliveries and is not read. After a false amqp_conn_writable() follows.
	 */
	bool (*writable)(void *io);
	/* The peer has logged in: bytes of its that are not read may take more than a handshake's worth of memory. */
	void (*admitted)(void *io);
	void (*resume)(void *io);   /* amqp_conn_input() left bytes: hand them over again (may call it at once, nested) */
	void (*shutdown)(void *io); /* FIN after what is queued */
	void (*abort)(void *io);    /* RST now; amqp_conn_closed() has been or will not be called: the conn is forgotten */
	/* A record for control. False: control is away or the ring is full; the machine tries again later. */
	bool (*request)(void *ctx, const struct amqp_record *rec);
	/* Called for a sampled publish only. */
	void (*stage)(void *ctx, enum amqp_stage stage);
};
#define AMQP_RESERVE_MAX 1536u

size_t amqp_broker_bytes(const struct amqp_limits *l);
/* `mem` is zeroed and 64-byte aligned. Errors: NULL and a sentence in *err. */
struct amqp_broker *amqp_broker_init(void *mem, size_t bytes, const struct amqp_limits *l, const struct amqp_ops *ops, void *ctx,
				     const char **err);

/*
 * Several workers: the rings in which the others leave notes for one lie in one block, zeroed and 64-byte aligned, best on its
 * own node. Every machine is given the blocks of all, its own included, before any of them runs; all have the same limits but
 * for worker_idx.
 */
size_t amqp_mail_bytes(const struct amqp_limits *l);
void amqp_mail_connect(struct amqp_broker *b, void *const *block);
/* Takes what the others have left, up to `budget` notes a ring; returns how many. Call it every loop when there are others. */
uint32_t amqp_mail_poll(struct amqp_broker *b, uint32_t budget);
/* Notes taken, messages and bytes that other workers hold of this one. */
struct amqp_mail_usage {
	uint64_t notes_pending, message_refs;
};
void amqp_mail_usage(const struct amqp_broker *b, struct amqp_mail_usage *out);

/* Time of the burst that follows: monotonic, and seconds since the epoch for `connected_at`. */
void amqp_set_now(struct amqp_broker *b, uint64_t now_ns, uint64_t wall_s);
/* The next publish is stamped by ops->stage (once; cleared by it). */
void amqp_sample_next(struct amqp_broker *b);

/* A transport was accepted. `peer_text` is "198.18.0.1", copied. Errors: NULL when the pool is full. */
struct amqp_conn *amqp_conn_accept(struct amqp_broker *b, void *io, const char *peer_text, uint16_t peer_port, uint16_t local_port);
/* Bytes from the peer, lent. Returns how many were consumed; fewer: the rest is handed over again after ops->resume. */
size_t amqp_conn_input(struct amqp_conn *c, const uint8_t *data, size_t len);
void amqp_conn_eof(struct amqp_conn *c);      /* FIN from the peer */
void amqp_conn_writable(struct amqp_conn *c); /* ops->writable was false and is true again */
void amqp_conn_closed(struct amqp_conn *c);   /* the transport is gone; `c` is invalid after this */
void amqp_release(struct amqp_broker *b, void *owner);
/* One more holder of a referenced message: a frame on its way out that reads it in place. Each ends with amqp_release(). */
void amqp_hold(struct amqp_broker *b, void *owner);

/*
 * Timers (heartbeats, handshake, control_wait) and deferred work, in small steps. Call it every loop; cheap when idle.
 * Returns whether there was anything to do.
 */
bool amqp_tick(struct amqp_broker *b);
/* End of a burst: coalesced confirms go out, stalled connections are tried again. Returns whether there was anything to do. */
bool amqp_burst_end(struct amqp_broker *b);

/* One operation of control, at a burst boundary. Every index and length in it is checked. False: refused (and reported). */
bool amqp_apply(struct amqp_broker *b, const struct amqp_record *op);
void amqp_control_attached(struct amqp_broker *b); /* rings are fresh: unanswered requests are issued again after the dump */
void amqp_control_gone(struct amqp_broker *b);

/* A compiled database for one exchange. Returns the one it replaces (or `db` itself when the exchange is gone), or NULL. */
struct match_db *amqp_take_db(struct amqp_broker *b, uint32_t exchange_id, struct match_db *db);
struct match_scratch *amqp_set_scratch(struct amqp_broker *b, struct match_scratch *s);
/* Databases that the machine dropped by itself (an exchange was deleted); NULL when there is none. For the caller to close. */
struct match_db *amqp_dropped_db(struct amqp_broker *b);

/* ---- counters ---- */
enum amqp_counter {
#define AMQP_COUNTER(name, text) AMQP_CNT_##name,
#include "amqp/counters.def"
#undef AMQP_COUNTER
	AMQP_CNT_COUNT
};
const uint64_t *amqp_counters(const struct amqp_broker *b);
const char *amqp_counter_name(unsigned idx);
const char *amqp_counter_text(unsigned idx);

struct amqp_usage { /* pools: in use and size */
	uint32_t conns, conns_max, channels, channels_max, consumers, consumers_max, exchanges, exchanges_max, queues, queues_max;
	uint32_t bindings, bindings_max, entries, entries_max;
	uint64_t message_bytes, message_bytes_max; /* pool bytes: in use, size */
	uint64_t messages;
};
void amqp_usage(const struct amqp_broker *b, struct amqp_usage *out);
/* Invariants over all pools and lists, for tests: NULL, or a sentence that names what is broken. */
const char *amqp_check(const struct amqp_broker *b);

/* ---- rows for `tickctl list_*`: a snapshot of one object; false when the index is free. idx < the pool's high-water mark ---- */
uint32_t amqp_rows_conns(const struct amqp_broker *b);
uint32_t amqp_rows_channels(const struct amqp_broker *b);
uint32_t amqp_rows_queues(const struct amqp_broker *b);
uint32_t amqp_rows_consumers(const struct amqp_broker *b);

struct amqp_row_conn {
	uint64_t uid;
	void *io;
	const char *state; /* starting tuning opening running blocking closing, as RabbitMQ names them */
	const char *peer_text;
	uint16_t peer_port, local_port;
	struct amqp_span user, vhost, client_product, client_version, client_platform, connection_name;
	uint32_t channels, frame_max, channel_max, timeout_s;
	uint64_t recv_oct, recv_cnt, send_oct, send_cnt, connected_at_s;
};
bool amqp_row_conn(const struct amqp_broker *b, uint32_t idx, struct amqp_row_conn *out);

struct amqp_row_channel {
	uint64_t conn_uid;
	uint32_t number, consumer_count, messages_unacknowledged, messages_unconfirmed, prefetch_count, global_prefetch_count;
	bool confirm;
	uint64_t publishes, deliveries, acks;
};
bool amqp_row_channel(const struct amqp_broker *b, uint32_t idx, struct amqp_row_channel *out);

struct amqp_row_queue {
	uint32_t queue_id;
	uint64_t messages_ready, messages_unacknowledged, message_bytes_ready, message_bytes_unacknowledged;
	uint32_t consumers;
	uint64_t published, delivered, acked, dropped, redelivered;
};
bool amqp_row_queue(const struct amqp_broker *b, uint32_t idx, struct amqp_row_queue *out);

struct amqp_row_consumer {
	uint64_t conn_uid;
	uint32_t queue_id, channel, prefetch_count, unacked;
	struct amqp_span tag;
	bool ack_required, exclusive, active;
};
bool amqp_row_consumer(const struct amqp_broker *b, uint32_t idx, struct amqp_row_consumer *out);

#endif
