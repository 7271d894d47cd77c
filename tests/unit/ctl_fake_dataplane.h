/*
 * ctl_fake_dataplane.h - a dataplane without packets: the shared memory, the socket, and a worker that only keeps its FIB.
 *
 * Owns: a memfd made by the dataplane's own code, a listening socket, and the definitions that control programmed.
 * Core: tests that run tickwire-control as a process beside themselves.
 * Spec: control/ctl_shm.h.
 */
#ifndef TICKWIRE_CTL_FAKE_DATAPLANE_H
#define TICKWIRE_CTL_FAKE_DATAPLANE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/ctl_shm.h"
#include "dataplane/shm.h"

#define FAKE_IDS 256u

struct fake_def { /* an OP_*_ADD, as it came */
	uint8_t *bytes;
	size_t len;
};
struct fake {
	char socket_path[108];
	int listen_fd, control_fd, kick_fd;
	struct dp_shm shm;
	bool have_shm;
	struct fake_def exchange[FAKE_IDS], queue[FAKE_IDS], binding[FAKE_IDS];
	unsigned exchanges, queues, bindings;
	unsigned dumps, ops, replies, accepts, hangups; /* since fake_init() */
	struct amqp_record reply, close, purge;         /* the last of each; strings in `text` */
	char reply_text[256], reply_name[256], close_text[256];
	struct ctl_msg published; /* the last DB_PUBLISH; kind 0: none */
	unsigned publishes;
	bool mute_dump;                  /* answers OP_DUMP with nothing */
	void (*on_dump)(struct fake *f); /* instead of the true dump */
	uint64_t conns[8];               /* told in dumps */
	unsigned conns_count;
};

void fake_init(struct fake *f, const char *socket_path);
void fake_fini(struct fake *f);
/* A dataplane that starts: fresh memory, another boot_id, an empty FIB. */
void fake_boot(struct fake *f, uint64_t boot_id);
/* The process dies: memory, connection and FIB are gone; the socket's path too. */
void fake_die(struct fake *f);
/* One look at everything: accepts control and greets it, applies operations, reads messages. */
void fake_step(struct fake *f);
/* Steps until `done` says so. False: it did not within the bound. */
bool fake_until(struct fake *f, bool (*done)(struct fake *f, void *arg), void *arg);
void fake_hang_up(struct fake *f);
/* Puts a record into the request ring and kicks. */
void fake_put(struct fake *f, const struct amqp_record *rec);
/* Asks and waits for the reply, which is in f->reply. False: none came. */
bool fake_ask(struct fake *f, struct amqp_record rec);
void fake_send(struct fake *f, const void *msg, size_t len);

#endif
