/*
 * link.h - control's line to the dataplane: the socket, the mapped memory, the rings of every worker.
 *
 * Owns: the mapping and the private copy of its header, what waits to be put into operation rings, and the way back after a loss.
 * Core: control's event loop.
 * Spec: DESIGN sections 1 and 5; control/ctl_shm.h. No byte of the dataplane is trusted.
 */
#ifndef TICKWIRE_CTL_LINK_H
#define TICKWIRE_CTL_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "control/ctl_shm.h"

enum ctl_link_state { CTL_LINK_DOWN, CTL_LINK_GREETING, CTL_LINK_UP };

struct ctl_link_ops {
	/* HELLO was checked and the memory is mapped. */
	void (*attached)(void *ctx);
	/* The link is gone; the memory is still mapped for this call. */
	void (*detached)(void *ctx);
	/* A record of a worker. False: nonsense (a sentence in *why), the link is dropped. */
	bool (*record)(void *ctx, uint32_t worker, const struct amqp_record *rec, const char **why);
	/* May records of this worker be read now? */
	bool (*wants)(void *ctx, uint32_t worker);
	/* A batch of records ends: what was stored must be on the disk before anything is sent. False: it is not. */
	bool (*commit)(void *ctx);
	/* Everything sent was applied, everything received was handled. */
	void (*settled)(void *ctx);
	/* DB_*. False: nonsense. */
	bool (*message)(void *ctx, const struct ctl_msg *msg);
};

struct ctl_outbox { /* encoded records, back to back */
	uint8_t *bytes;
	size_t at, len, cap;
};

struct ctl_link {
	const struct ctl_link_ops *ops;
	void *ctx;
	const char *path;
	struct event_base *base;
	enum ctl_link_state state;
	int fd, kick_fd;
	uint8_t *map;
	size_t map_bytes;
	struct ctl_shm_header shm; /* private: the mapped one is not read again */
	struct ctl_ring_end request[CTL_WORKERS_MAX], op[CTL_WORKERS_MAX];
	struct ctl_outbox outbox[CTL_WORKERS_MAX];
	uint8_t *scratch;
	struct event *socket_ev, *kick_ev, *again_ev, *flush_ev, *retry_ev, *greet_ev;
	uint32_t backoff_ms;
	bool told_down, in_work;
	bool held_back;     /* records lie unread because the outboxes are full */
	const char *doomed; /* dropped when the work in hand is done: why */
	uint64_t records, attaches, drops;
};

void ctl_link_init(struct ctl_link *l, struct event_base *base, const char *path, const struct ctl_link_ops *ops, void *ctx);
void ctl_link_fini(struct ctl_link *l);
/* Connects now, and ever again after a loss. */
void ctl_link_start(struct ctl_link *l);
/* Drops the link (as soon as it is safe) and comes back. */
void ctl_link_drop(struct ctl_link *l, const char *why);
/* The dataplane made sense so far: the next loss is tried again at once. */
void ctl_link_steady(struct ctl_link *l);
/* Queues a record for a worker; it is put into the ring by ctl_link_flush(). */
void ctl_link_emit(struct ctl_link *l, uint32_t worker, const struct amqp_record *rec);
void ctl_link_flush(struct ctl_link *l);
bool ctl_link_send(struct ctl_link *l, const struct ctl_msg *msg);
/* Reads what the socket holds now. */
void ctl_link_read_messages(struct ctl_link *l);
/* Wakes the work: there may be records that are wanted now. */
void ctl_link_wake(struct ctl_link *l);

#endif
