/*
 * databases.c - the compiled binding databases that are open, and where in the arena they lie.
 *
 * Owns: the table of open databases and the newest scratch.
 * Core: the main thread; a worker gets and gives back pointers by mail.
 * Spec: DESIGN section 6; control/ctl_shm.h (DB_PUBLISH and what follows it).
 */
#include "dataplane/databases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define IMAGE_ALIGN 64u

bool dp_databases_init(struct dp_databases *d, const uint8_t *arena, uint64_t arena_bytes, uint32_t exchanges_max,
		       uint32_t workers_count)
{
	memset(d, 0, sizeof *d);
	d->arena = arena;
	d->arena_bytes = arena_bytes;
	d->slots_count = 2 * exchanges_max;
	d->workers_count = workers_count;
	d->slot = calloc(d->slots_count, sizeof *d->slot);
	return d->slot != NULL;
}

void dp_databases_fini(struct dp_databases *d)
{
	for (uint32_t i = 0; d->slot != NULL && i < d->slots_count; i++)
		for (uint32_t w = 0; w < d->workers_count; w++)
			dp_databases_close(&d->slot[i], w);
	for (uint32_t w = 0; w < d->workers_count; w++)
		if (d->scratch[w] != NULL)
			match_scratch_free(d->scratch[w]);
	free(d->slot);
	memset(d, 0, sizeof *d);
}

static const char *check(const struct dp_databases *d, const struct ctl_msg *msg)
{
	if (msg->offset % IMAGE_ALIGN != 0)
		return "the image is not aligned to 64 bytes";
	if (msg->bytes == 0 || msg->offset > d->arena_bytes || msg->bytes > d->arena_bytes - msg->offset)
		return "the image lies outside the arena";
	for (uint32_t i = 0; i < d->slots_count; i++) {
		const struct dp_db *s = &d->slot[i];

		if (s->in_use && msg->offset < s->offset + s->bytes && s->offset < msg->offset + msg->bytes)
			return "the image overlaps one that is still in use";
	}
	return NULL;
}

/* The worker then never waits for the page tables of a fresh image. Without the call in the kernel it waits once a page. */
static void populate(const struct dp_databases *d, const struct ctl_msg *msg)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uintptr_t from = (uintptr_t)(d->arena + msg->offset) & ~(uintptr_t)(page - 1);

#ifdef MADV_POPULATE_READ
	madvise((void *)from, (uintptr_t)(d->arena + msg->offset + msg->bytes) - from, MADV_POPULATE_READ);
#else
	madvise((void *)from, (uintptr_t)(d->arena + msg->offset + msg->bytes) - from, MADV_WILLNEED);
#endif
}

static struct dp_db *free_slot(struct dp_databases *d)
{
	for (uint32_t i = 0; i < d->slots_count; i++)
		if (!d->slot[i].in_use)
			return &d->slot[i];
	return NULL;
}

static bool open_for(struct dp_databases *d, struct dp_db *s, uint32_t worker, char *err, size_t err_bytes)
{
	struct match_scratch *scratch;

	s->db[worker] = match_db_open(d->arena + s->offset, s->bytes, err, err_bytes);
	if (s->db[worker] == NULL)
		return false;
	scratch = match_scratch_grow(d->scratch[worker], s->db[worker]);
	if (scratch == NULL) {
		snprintf(err, err_bytes, "there is no memory for the image's scratch space");
		return false;
	}
	/* The former one is in the worker's hands, or in its mail, and comes back from there. */
	d->scratch[worker] = scratch;
	s->generation = match_db_generation(s->db[worker]);
	return true;
}

struct dp_db *dp_databases_open(struct dp_databases *d, const struct ctl_msg *msg, char *err, size_t err_bytes)
{
	const char *why = check(d, msg);
	struct dp_db *s = free_slot(d);
	bool opened = true;

	if (why == NULL && s == NULL)
		why = "too many images are open";
	if (why != NULL) {
		snprintf(err, err_bytes, "%s", why);
		return NULL;
	}
	populate(d, msg);
	*s = (struct dp_db){.in_use = true, .exchange_id = msg->id, .offset = msg->offset, .bytes = msg->bytes};
	for (uint32_t w = 0; w < d->workers_count && opened; w++)
		opened = open_for(d, s, w, err, err_bytes);
	if (opened)
		return s;
	for (uint32_t w = 0; w < d->workers_count; w++)
		dp_databases_close(s, w);
	s->in_use = false;
	return NULL;
}

struct dp_db *dp_databases_find(struct dp_databases *d, uint32_t worker, const struct match_db *db)
{
	for (uint32_t i = 0; db != NULL && i < d->slots_count; i++)
		if (d->slot[i].in_use && d->slot[i].db[worker] == db)
			return &d->slot[i];
	return NULL;
}

bool dp_databases_close(struct dp_db *slot, uint32_t worker)
{
	if (slot->db[worker] != NULL)
		match_db_close(slot->db[worker]);
	slot->db[worker] = NULL;
	for (uint32_t w = 0; w < CTL_WORKERS_MAX; w++)
		if (slot->db[w] != NULL)
			return false;
	return true;
}

void dp_databases_return_scratch(struct dp_databases *d, uint32_t worker, struct match_scratch *s)
{
	if (s != NULL && s != d->scratch[worker])
		match_scratch_free(s);
}
