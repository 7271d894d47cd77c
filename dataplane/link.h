/*
 * link.h - the main thread's line to the control process.
 *
 * Owns: the Unix socket, the one control that is attached, and the letters to and from the worker about it.
 * Core: the main thread.
 * Spec: DESIGN sections 1 and 5; control/ctl_shm.h (messages on the socket).
 */
#ifndef TICKWIRE_DP_LINK_H
#define TICKWIRE_DP_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/ctl_shm.h"
#include "dataplane/databases.h"
#include "dataplane/mailbox.h"
#include "dataplane/shm.h"

struct dp_link {
	char path[108];
	int listen_fd, control_fd; /* -1: none */
	int kick_fd;               /* eventfd, given to control */
	const struct dp_shm *shm;
	struct dp_mailbox *to_worker[CTL_WORKERS_MAX], *from_worker[CTL_WORKERS_MAX];
	uint32_t workers_count, rings_ready_count, drained_count;
	struct dp_databases databases;
	bool drained;           /* all of them */
	uint64_t cut_off_count; /* connections that were open when the worker left */
};

/* Makes the socket, mode 0600. A path on which somebody answers is not ours. Errors: false and a sentence. */
bool dp_link_open(struct dp_link *l, const char *path, char *err, size_t err_bytes);
/* From here on control may attach. Errors: false and a sentence. */
bool dp_link_serve(struct dp_link *l, const struct dp_shm *shm, struct dp_mailbox *const *to_worker,
		   struct dp_mailbox *const *from_worker, uint32_t workers_count, char *err, size_t err_bytes);
/* Somebody knocks: greets the first, sends the others away. */
void dp_link_accept(struct dp_link *l);
/* Control wrote or went. */
void dp_link_input(struct dp_link *l);
/* Reads the workers' letters. */
void dp_link_mail(struct dp_link *l);
/* Tells the workers to drain and control that we leave. */
void dp_link_drain(struct dp_link *l, uint64_t for_ns);
/* Removes the socket; `worker_left` says that databases can be closed. */
void dp_link_close(struct dp_link *l, bool worker_left);

#endif
