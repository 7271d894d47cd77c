/*
 * control.h - the control process as a whole: RIB, store, compiler and link put together.
 *
 * Owns: all of them.
 * Core: control's event loop.
 * Spec: DESIGN section 5.
 */
#ifndef TICKWIRE_CTL_CONTROL_H
#define TICKWIRE_CTL_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "control/compile.h"
#include "control/link.h"
#include "control/options.h"
#include "control/rib.h"
#include "control/store.h"

struct ctl_deferred { /* what came in the middle of a dump and is handled after it */
	uint32_t worker;
	uint8_t *bytes;
	size_t len;
};

struct ctl_control {
	struct event_base *base;
	const char *config_path;
	struct ctl_options options;
	struct ctl_rib rib;
	struct ctl_store *store;
	struct ctl_compiler *compiler;
	struct ctl_link link;
	struct event *compile_fd_ev, *compile_timer_ev, *sync_timer_ev;
	struct ctl_deferred *deferred;
	uint32_t deferred_count, deferred_cap;
	struct ctl_msg *messages; /* of the socket, likewise */
	uint32_t messages_count;
	uint64_t boot_id; /* of the dataplane that was attached last; 0: none yet */
	uint64_t started_s, logins_ok, logins_refused, batches;
};

/* Opens the store and loads what it holds. Errors: false and a sentence. */
bool ctl_control_init(struct ctl_control *c, struct event_base *base, char *err, size_t err_bytes);
void ctl_control_start(struct ctl_control *c);
void ctl_control_fini(struct ctl_control *c);
/* Reads users, vhosts and the log level anew; a bad file changes nothing. */
void ctl_control_reload(struct ctl_control *c);
/* After operations of the CLI: stores and sends. False: it could not be stored. */
bool ctl_control_commit(struct ctl_control *c);
bool ctl_control_attached(const struct ctl_control *c); /* and synchronised */
uint64_t ctl_now_ms(void);

#endif
