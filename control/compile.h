/*
 * compile.h - which exchanges need a new Hyperscan database, its compile on a thread of its own, and its life in the arena.
 *
 * Owns: the arena's images, the ids of rules that each of them names, and the compile thread.
 * Core: control's event loop calls everything; only match_compile() runs on the thread.
 * Spec: DESIGN section 6: a binding never waits for a compile; the overlay serves it until a database does.
 */
#ifndef TICKWIRE_CTL_COMPILE_H
#define TICKWIRE_CTL_COMPILE_H

#include <stdbool.h>
#include <stdint.h>

#include "control/ctl_shm.h"
#include "control/rib.h"

struct ctl_compiler;

struct ctl_compiler_options {
	uint32_t min_rules;   /* exchanges with fewer patterns keep to the overlay */
	uint32_t settle_ms;   /* a compile begins so long after the last change… */
	uint32_t wait_max_ms; /* … but at most so long after the first */
};

/* `publish` sends a message to the dataplane; false: it could not be sent. */
struct ctl_compiler *ctl_compiler_new(struct ctl_rib *rib, const struct ctl_compiler_options *options,
				      bool (*publish)(void *ctx, const struct ctl_msg *msg), void *ctx);
/* Waits for no compile: a thread in the middle of one ends with the process. */
void ctl_compiler_free(struct ctl_compiler *c);

/* After the dumps and before the store is read: images of a former control are adopted, with the ids that they name. */
void ctl_compiler_attach(struct ctl_compiler *c, uint8_t *arena, uint64_t bytes, uint64_t now_ms);
void ctl_compiler_detach(struct ctl_compiler *c);

void ctl_compiler_changed(struct ctl_compiler *c, uint32_t exchange_id, uint64_t now_ms);
void ctl_compiler_exchange_gone(struct ctl_compiler *c, uint32_t exchange_id);
/* DB_TAKEN, DB_REFUSED, DB_RELEASED. False: it names nothing that was published. */
bool ctl_compiler_message(struct ctl_compiler *c, const struct ctl_msg *msg);
/* Readable when a compile has ended; then call ctl_compiler_finished(). */
int ctl_compiler_fd(const struct ctl_compiler *c);
void ctl_compiler_finished(struct ctl_compiler *c);
/* Begins what is due. Returns in how many ms it wants to be called again, UINT64_MAX: not before something happens. */
uint64_t ctl_compiler_tick(struct ctl_compiler *c, uint64_t now_ms);

struct ctl_compiler_info {
	uint64_t generation, bytes, compile_ms; /* of the database in use; 0: none */
	uint32_t rules;                         /* named by it */
	uint32_t covered;                       /* of these, still bound */
	bool waiting, compiling;
	const char *trouble; /* why the last one failed; "" */
};
void ctl_compiler_info(const struct ctl_compiler *c, uint32_t exchange_id, struct ctl_compiler_info *out);
void ctl_compiler_arena(const struct ctl_compiler *c, uint64_t *used, uint64_t *bytes);

#endif
