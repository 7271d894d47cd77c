/*
 * shm.c - the memfd that control and dataplane share, from the dataplane's side.
 *
 * Owns: the memfd, its two mappings and the private copy of the layout, which is the one that is used ever after.
 * Core: made by the main thread at start; workers write their rings, statistics and rows.
 * Spec: control/ctl_shm.h; DESIGN section 5 (no byte of the other side is trusted).
 */
#include "dataplane/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_ALIGN 65536u /* whole pages on every architecture */

static uint64_t take(uint64_t *at, uint64_t bytes, uint64_t align)
{
	uint64_t offset = (*at + align - 1) & ~(align - 1);

	*at = offset + bytes;
	return offset;
}

static void place_table(struct ctl_table *t, uint64_t *at, size_t row_bytes, uint32_t rows_max)
{
	t->row_bytes = (uint32_t)row_bytes;
	t->rows_max = rows_max;
	t->offset = take(at, (uint64_t)row_bytes * rows_max, CTL_LINE_BYTES);
}

static void place_worker(struct ctl_worker_layout *w, uint64_t *at, const struct dp_shm_plan *p)
{
	w->request_ring_bytes = p->request_ring_bytes;
	w->request_ring_offset = take(at, sizeof(struct ctl_ring) + p->request_ring_bytes, CTL_LINE_BYTES);
	w->op_ring_bytes = p->op_ring_bytes;
	w->op_ring_offset = take(at, sizeof(struct ctl_ring) + p->op_ring_bytes, CTL_LINE_BYTES);
	w->stats_offset = take(at, sizeof(struct ctl_worker_stats), CTL_LINE_BYTES);
	place_table(&w->conns, at, sizeof(struct ctl_row_conn), p->conns_max);
	place_table(&w->channels, at, sizeof(struct ctl_row_channel), p->channels_max);
	place_table(&w->queues, at, sizeof(struct ctl_row_queue), p->queues_max);
	place_table(&w->consumers, at, sizeof(struct ctl_row_consumer), p->consumers_max);
}

uint64_t dp_shm_layout(struct ctl_shm_header *h, const struct dp_shm_plan *p)
{
	uint64_t at = sizeof *h;

	memset(h, 0, sizeof *h);
	h->version = CTL_SHM_VERSION;
	h->header_bytes = sizeof *h;
	h->boot_id = p->boot_id;
	h->started_s = p->started_s;
	h->tsc_hz = p->tsc_hz;
	h->pid = p->pid;
	h->workers_count = p->workers_count;
	h->counters_count = p->counters_count;
	h->stages_count = p->stages_count;
	h->exchanges_max = p->exchanges_max;
	h->queues_max = p->queues_max;
	h->bindings_max = p->bindings_max;
	h->rules_max = p->rules_max;
	h->conns_max = p->conns_max;
	h->channels_max = p->channels_max;
	snprintf(h->version_text, sizeof h->version_text, "%s", TICKWIRE_VERSION);
	snprintf(h->port_text, sizeof h->port_text, "%s", p->port_text);
	snprintf(h->address_text, sizeof h->address_text, "%s", p->address_text);
	h->counter_desc_offset = take(&at, (uint64_t)p->counters_count * sizeof(struct ctl_counter_desc), CTL_LINE_BYTES);
	for (uint32_t i = 0; i < p->workers_count; i++) {
		h->worker[i].lcore = p->lcore[i];
		h->worker[i].numa_node = p->numa_node[i];
		place_worker(&h->worker[i], &at, p);
	}
	h->arena_bytes = (p->arena_bytes + ARENA_ALIGN - 1) & ~(uint64_t)(ARENA_ALIGN - 1);
	h->arena_offset = take(&at, h->arena_bytes, ARENA_ALIGN);
	h->total_bytes = at;
	return at;
}

static bool fail(char *err, size_t err_bytes, const char *what, uint64_t bytes)
{
	snprintf(err, err_bytes, "the memory shared with control (%llu MiB) cannot be made: %s: %s",
		 (unsigned long long)(bytes >> 20), what, strerror(errno));
	return false;
}

bool dp_shm_create(struct dp_shm *s, const struct dp_shm_plan *plan, char *err, size_t err_bytes)
{
	uint64_t total = dp_shm_layout(&s->layout, plan), writable = s->layout.arena_offset;
	void *map;

	s->base = NULL;
	s->arena = NULL;
	s->fd = memfd_create("tickwire", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (s->fd < 0)
		return fail(err, err_bytes, "memfd_create", total);
	if (ftruncate(s->fd, (off_t)total) != 0)
		return fail(err, err_bytes, "ftruncate", total);
	/* Nobody can pull the memory away under a worker: a shorter file would be a SIGBUS in the middle of a burst. */
	if (fcntl(s->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return fail(err, err_bytes, "seals", total);
	/* Populated now: the worker never waits for a page. */
	map = mmap(NULL, writable, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, s->fd, 0);
	if (map == MAP_FAILED)
		return fail(err, err_bytes, "mmap", total);
	s->base = map;
	map = mmap(NULL, s->layout.arena_bytes, PROT_READ, MAP_SHARED, s->fd, (off_t)writable);
	if (map == MAP_FAILED)
		return fail(err, err_bytes, "mmap of the arena", total);
	s->arena = map;
	s->header = (struct ctl_shm_header *)(void *)s->base;
	memcpy(s->base, &s->layout, sizeof s->layout);
	for (uint32_t i = 0; i < s->layout.workers_count; i++) {
		ctl_ring_init(dp_shm_request_ring(s, i).ring);
		ctl_ring_init(dp_shm_op_ring(s, i).ring);
	}
	return true;
}

void dp_shm_publish(struct dp_shm *s)
{
	atomic_store_explicit(&s->header->magic, CTL_SHM_MAGIC, memory_order_release);
}

void dp_shm_destroy(struct dp_shm *s)
{
	if (s->base != NULL)
		munmap(s->base, s->layout.arena_offset);
	if (s->arena != NULL)
		munmap((void *)(uintptr_t)s->arena, s->layout.arena_bytes);
	if (s->fd >= 0)
		close(s->fd);
	s->base = NULL;
	s->arena = NULL;
	s->fd = -1;
}

static void *at_offset(const struct dp_shm *s, uint64_t offset)
{
	return s->base + offset;
}

struct ctl_ring_end dp_shm_request_ring(const struct dp_shm *s, uint32_t worker)
{
	const struct ctl_worker_layout *w = &s->layout.worker[worker];

	return (struct ctl_ring_end){at_offset(s, w->request_ring_offset), w->request_ring_bytes};
}

struct ctl_ring_end dp_shm_op_ring(const struct dp_shm *s, uint32_t worker)
{
	const struct ctl_worker_layout *w = &s->layout.worker[worker];

	return (struct ctl_ring_end){at_offset(s, w->op_ring_offset), w->op_ring_bytes};
}

struct ctl_worker_stats *dp_shm_stats(const struct dp_shm *s, uint32_t worker)
{
	return at_offset(s, s->layout.worker[worker].stats_offset);
}

struct ctl_counter_desc *dp_shm_counter_desc(const struct dp_shm *s)
{
	return at_offset(s, s->layout.counter_desc_offset);
}
