/*
 * arena.c - first-fit places in the arena, and their list at its beginning.
 *
 * Owns: the arena's list and the private copy that is the one believed.
 * Core: control's event loop.
 * Spec: see arena.h.
 */
#include "control/arena.h"

#include <stdlib.h>
#include <string.h>

#include "control/map.h"

#define LIST_MAGIC 0x5449434b41524e41ull

/* In shared memory, written by control alone. A dataplane that starts makes new memory, so a list is of this boot or empty. */
struct list_entry {
	uint64_t offset, bytes, generation; /* bytes 0: free */
	uint32_t exchange_id, check;
};
struct list {
	uint64_t magic, count;
	struct list_entry entry[];
};
#define LIST_MAX ((CTL_ARENA_LIST_BYTES - sizeof(struct list)) / sizeof(struct list_entry))

static uint32_t check_of(const struct list_entry *e)
{
	static const uint8_t secret[16] = "arena list entry";
	uint64_t parts[4] = {e->offset, e->bytes, e->generation, e->exchange_id};

	return (uint32_t)ctl_siphash(secret, (const uint8_t *)parts, sizeof parts);
}

/* Rewrites the list. The count goes to zero meanwhile: a control killed half way finds an empty list and not a wrong one. */
static void write_list(const struct ctl_arena *a)
{
	struct list *l = (struct list *)(void *)a->base;

	__atomic_store_n(&l->count, 0, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < a->count; i++) {
		struct list_entry e = {a->images[i].offset, a->images[i].bytes, a->images[i].generation, a->images[i].exchange_id,
				       0};

		e.check = check_of(&e);
		memcpy(&l->entry[i], &e, sizeof e);
	}
	__atomic_store_n(&l->magic, LIST_MAGIC, __ATOMIC_RELEASE);
	__atomic_store_n(&l->count, a->count, __ATOMIC_RELEASE);
}

static uint64_t round_up(uint64_t bytes)
{
	return (bytes + CTL_ARENA_ALIGN - 1) & ~(uint64_t)(CTL_ARENA_ALIGN - 1);
}

/* The index at which an image of that offset stands or would stand. */
static uint32_t place_of(const struct ctl_arena *a, uint64_t offset)
{
	uint32_t i = 0;

	while (i < a->count && a->images[i].offset < offset)
		i++;
	return i;
}

static bool fits_at(const struct ctl_arena *a, uint32_t i, uint64_t offset, uint64_t bytes)
{
	uint64_t end = i < a->count ? a->images[i].offset : a->bytes;

	if (offset > end || bytes > end - offset)
		return false;
	return i == 0 || a->images[i - 1].offset + round_up(a->images[i - 1].bytes) <= offset;
}

static struct ctl_image *insert(struct ctl_arena *a, uint32_t i, const struct ctl_image *img)
{
	if (a->count == a->cap) {
		a->cap = a->cap != 0 ? 2 * a->cap : 16;
		a->images = ctl_resize(a->images, a->cap * sizeof a->images[0]);
	}
	memmove(&a->images[i + 1], &a->images[i], (a->count - i) * sizeof a->images[0]);
	a->images[i] = *img;
	a->count++;
	return &a->images[i];
}

struct ctl_image *ctl_arena_claim(struct ctl_arena *a, const struct ctl_image *img)
{
	uint32_t i = place_of(a, img->offset);

	if (a->count >= a->max || img->bytes == 0 || img->bytes > a->bytes || img->offset % CTL_ARENA_ALIGN != 0 ||
	    img->offset < CTL_ARENA_LIST_BYTES || !fits_at(a, i, img->offset, round_up(img->bytes)))
		return NULL;
	return insert(a, i, img);
}

void ctl_arena_attach(struct ctl_arena *a, uint8_t *base, uint64_t bytes)
{
	const struct list *l = (const struct list *)(void *)base;
	uint64_t count;

	memset(a, 0, sizeof *a);
	a->base = base;
	a->bytes = bytes & ~(uint64_t)(CTL_ARENA_ALIGN - 1);
	if (a->bytes < 2 * CTL_ARENA_LIST_BYTES)
		return; /* max stays 0: nothing is ever placed */
	a->max = (uint32_t)LIST_MAX;
	count = __atomic_load_n(&l->count, __ATOMIC_ACQUIRE);
	if (l->magic == LIST_MAGIC && count <= LIST_MAX)
		for (uint64_t i = 0; i < count; i++) {
			struct list_entry e;

			memcpy(&e, &l->entry[i], sizeof e);
			if (e.check == check_of(&e))
				ctl_arena_claim(a,
						&(struct ctl_image){e.offset, e.bytes, e.generation, e.exchange_id, true, false});
		}
	write_list(a);
}

void ctl_arena_detach(struct ctl_arena *a)
{
	free(a->images);
	memset(a, 0, sizeof *a);
}

struct ctl_image *ctl_arena_take(struct ctl_arena *a, uint64_t bytes, uint32_t exchange_id, uint64_t generation)
{
	struct ctl_image img = {CTL_ARENA_LIST_BYTES, bytes, generation, exchange_id, false, false}, *made;
	uint32_t i = 0;

	if (a->count >= a->max || bytes == 0 || bytes > a->bytes)
		return NULL;
	while (i < a->count && !fits_at(a, i, img.offset, round_up(bytes))) {
		img.offset = a->images[i].offset + round_up(a->images[i].bytes);
		i++;
	}
	if (!fits_at(a, i, img.offset, round_up(bytes)))
		return NULL;
	made = insert(a, i, &img);
	write_list(a);
	return made;
}

struct ctl_image *ctl_arena_find(struct ctl_arena *a, uint64_t offset)
{
	uint32_t i = place_of(a, offset);

	return i < a->count && a->images[i].offset == offset ? &a->images[i] : NULL;
}

bool ctl_arena_free(struct ctl_arena *a, uint64_t offset)
{
	struct ctl_image *img = ctl_arena_find(a, offset);
	uint32_t i;

	if (img == NULL)
		return false;
	i = (uint32_t)(img - a->images);
	memmove(img, img + 1, (a->count - i - 1) * sizeof *img);
	a->count--;
	write_list(a);
	return true;
}

uint64_t ctl_arena_used_bytes(const struct ctl_arena *a)
{
	uint64_t used = 0;

	for (uint32_t i = 0; i < a->count; i++)
		used += round_up(a->images[i].bytes);
	return used;
}
