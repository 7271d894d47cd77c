/*
 * arena.h - places for compiled databases in the shared memory, and the list of them that outlives this process.
 *
 * Owns: the arena. Its first pages hold a list of what lies where, so that a control that starts again finds the images that
 * the dataplane still reads; everything else is private.
 * Core: control's event loop.
 * Spec: DESIGN section 6; offsets are multiples of 4096.
 */
#ifndef TICKWIRE_CTL_ARENA_H
#define TICKWIRE_CTL_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#define CTL_ARENA_ALIGN      4096u
#define CTL_ARENA_LIST_BYTES 65536u

struct ctl_image {
	uint64_t offset, bytes, generation; /* offset: into the arena */
	uint32_t exchange_id;
	bool adopted; /* a former control published it */
	bool taken;   /* the dataplane has told that it reads it */
};
struct ctl_arena {
	uint8_t *base; /* NULL: no dataplane */
	uint64_t bytes;
	struct ctl_image *images; /* sorted by offset */
	uint32_t count, cap, max;
};

/*
 * Takes a mapped arena over and adopts what its list names: the memory is of this boot of the dataplane, so the list is a
 * former control's, or empty. It is checked entry by entry, since the dataplane could have written it.
 */
void ctl_arena_attach(struct ctl_arena *a, uint8_t *base, uint64_t bytes);
void ctl_arena_detach(struct ctl_arena *a);
/* First fit. NULL: no room, or the list is full. The entry moves with the next call. */
struct ctl_image *ctl_arena_take(struct ctl_arena *a, uint64_t bytes, uint32_t exchange_id, uint64_t generation);
/* That very place, which the dataplane says it reads. NULL: it cannot be. */
struct ctl_image *ctl_arena_claim(struct ctl_arena *a, const struct ctl_image *img);
/* False: nothing begins there. */
bool ctl_arena_free(struct ctl_arena *a, uint64_t offset);
struct ctl_image *ctl_arena_find(struct ctl_arena *a, uint64_t offset);
uint64_t ctl_arena_used_bytes(const struct ctl_arena *a);

#endif
