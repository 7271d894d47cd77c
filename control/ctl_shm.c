/*
 * ctl_shm.c - rings, records and rows of the shared memory, and the check of its header.
 *
 * Owns: no memory; both processes link it and run it on their own side.
 * Core: a worker and control's event loop; ctl_ring_put() and ctl_ring_get() take no lock and make no system call.
 * Spec: DESIGN section 5: nothing that the other side wrote is trusted, so everything is copied first and checked afterwards.
 */
#include "control/ctl_shm.h"

#include <string.h>

/* ---- records ---- */

/* The fixed part of an encoded record; the strings and the blob follow in order, without padding. */
struct record_head {
	uint32_t total; /* bytes of the whole record */
	uint16_t kind, code;
	uint32_t flags;
	uint32_t id[4];
	uint32_t len[AMQP_RECORD_STRS + 1];
	uint64_t token, conn_uid;
};
_Static_assert(sizeof(struct record_head) == 64, "the layout of a record is shared between two programs");

/* Every ring position is a multiple of this. */
#define RING_STEP 8u

size_t ctl_record_bytes(const struct amqp_record *rec)
{
	uint64_t total = sizeof(struct record_head) + (uint64_t)rec->blob.len;

	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		total += rec->str[i].len;
	return total <= CTL_RECORD_MAX ? (size_t)total : 0;
}

static void make_head(struct record_head *h, const struct amqp_record *rec, size_t total)
{
	memset(h, 0, sizeof *h);
	h->total = (uint32_t)total;
	h->kind = rec->kind;
	h->code = rec->code;
	h->flags = rec->flags;
	h->id[0] = rec->id;
	h->id[1] = rec->id2;
	h->id[2] = rec->id3;
	h->id[3] = rec->id4;
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		h->len[i] = rec->str[i].len;
	h->len[AMQP_RECORD_STRS] = rec->blob.len;
	h->token = rec->token;
	h->conn_uid = rec->conn_uid;
}

size_t ctl_record_encode(uint8_t *out, size_t cap, const struct amqp_record *rec)
{
	size_t total = ctl_record_bytes(rec), at = sizeof(struct record_head);
	struct record_head h;

	if (total == 0 || total > cap)
		return 0;
	make_head(&h, rec, total);
	memcpy(out, &h, sizeof h);
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++) {
		if (rec->str[i].len != 0)
			memcpy(out + at, rec->str[i].ptr, rec->str[i].len);
		at += rec->str[i].len;
	}
	if (rec->blob.len != 0)
		memcpy(out + at, rec->blob.ptr, rec->blob.len);
	return total;
}

bool ctl_record_decode(const uint8_t *in, size_t len, struct amqp_record *rec)
{
	struct record_head h;
	size_t left, at = sizeof h;

	if (len < sizeof h || len > CTL_RECORD_MAX)
		return false;
	memcpy(&h, in, sizeof h);
	if (h.total != len)
		return false;
	left = len - sizeof h;
	memset(rec, 0, sizeof *rec);
	rec->kind = h.kind;
	rec->code = h.code;
	rec->flags = h.flags;
	rec->token = h.token;
	rec->conn_uid = h.conn_uid;
	rec->id = h.id[0];
	rec->id2 = h.id[1];
	rec->id3 = h.id[2];
	rec->id4 = h.id[3];
	for (unsigned i = 0; i <= AMQP_RECORD_STRS; i++) {
		struct amqp_span *s = i < AMQP_RECORD_STRS ? &rec->str[i] : &rec->blob;

		if (h.len[i] > left)
			return false;
		*s = (struct amqp_span){in + at, h.len[i]};
		at += h.len[i];
		left -= h.len[i];
	}
	return left == 0;
}

/* ---- rings ---- */

void ctl_ring_init(struct ctl_ring *r)
{
	atomic_store_explicit(&r->tail, 0, memory_order_relaxed);
	atomic_store_explicit(&r->consumer_sleeps, 0, memory_order_relaxed);
	atomic_store_explicit(&r->head, 0, memory_order_release);
}

static uint64_t step_up(size_t bytes)
{
	return ((uint64_t)bytes + RING_STEP - 1) & ~(uint64_t)(RING_STEP - 1);
}

/* Positions are masked with the private size, so whatever an index says the copy stays inside the ring. */
static uint64_t copy_in(const struct ctl_ring_end *e, uint64_t pos, const void *src, size_t len)
{
	size_t at = (size_t)(pos & (e->bytes - 1)), first = (size_t)e->bytes - at;

	if (len == 0)
		return pos;
	if (first > len)
		first = len;
	memcpy(e->ring->data + at, src, first);
	if (len > first)
		memcpy(e->ring->data, (const uint8_t *)src + first, len - first);
	return pos + len;
}

static void copy_out(const struct ctl_ring_end *e, uint64_t pos, void *dst, size_t len)
{
	size_t at = (size_t)(pos & (e->bytes - 1)), first = (size_t)e->bytes - at;

	if (first > len)
		first = len;
	memcpy(dst, e->ring->data + at, first);
	if (len > first)
		memcpy((uint8_t *)dst + first, e->ring->data, len - first);
}

bool ctl_ring_put(struct ctl_ring_end *e, const struct amqp_record *rec)
{
	size_t total = ctl_record_bytes(rec);
	uint64_t head = atomic_load_explicit(&e->ring->head, memory_order_relaxed);
	uint64_t tail = atomic_load_explicit(&e->ring->tail, memory_order_acquire);
	uint64_t used = head - tail, pos;
	struct record_head h;

	if (total == 0 || used > e->bytes || e->bytes - used < step_up(total))
		return false;
	make_head(&h, rec, total);
	pos = copy_in(e, head, &h, sizeof h);
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		pos = copy_in(e, pos, rec->str[i].ptr, rec->str[i].len);
	copy_in(e, pos, rec->blob.ptr, rec->blob.len);
	atomic_store_explicit(&e->ring->head, head + step_up(total), memory_order_release);
	return true;
}

int ctl_ring_get(struct ctl_ring_end *e, uint8_t *scratch, struct amqp_record *rec)
{
	uint64_t tail = atomic_load_explicit(&e->ring->tail, memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&e->ring->head, memory_order_acquire);
	uint64_t used = head - tail;
	uint32_t total;

	if (used == 0)
		return 0;
	if (used > e->bytes || used < sizeof(struct record_head))
		goto corrupt;
	copy_out(e, tail, &total, sizeof total);
	if (total < sizeof(struct record_head) || total > CTL_RECORD_MAX || step_up(total) > used)
		goto corrupt;
	copy_out(e, tail, scratch, total);
	if (!ctl_record_decode(scratch, total, rec))
		goto corrupt;
	atomic_store_explicit(&e->ring->tail, tail + step_up(total), memory_order_release);
	return 1;

corrupt:
	atomic_store_explicit(&e->ring->tail, head, memory_order_release);
	return -1;
}

/*
 * Both sides exchange the same word, so one of the exchanges comes first: either the producer's sees the 1 and kicks, or the
 * consumer's comes after the producer's and sees all that was put before it.
 */
bool ctl_ring_wants_kick(struct ctl_ring_end *e)
{
	return atomic_exchange_explicit(&e->ring->consumer_sleeps, 0, memory_order_acq_rel) != 0;
}

bool ctl_ring_prepare_sleep(struct ctl_ring_end *e)
{
	atomic_exchange_explicit(&e->ring->consumer_sleeps, 1, memory_order_acq_rel);
	if (ctl_ring_empty(e))
		return true;
	atomic_store_explicit(&e->ring->consumer_sleeps, 0, memory_order_relaxed);
	return false;
}

/* ---- rows ---- */

bool ctl_row_read(const void *row, void *copy, size_t bytes)
{
	const struct ctl_row_head *h = row;
	struct ctl_row_head got;

	for (unsigned tries = 0; tries < 1000; tries++) {
		uint32_t before = atomic_load_explicit(&h->seq, memory_order_acquire);

		if (before & 1u)
			continue;
		memcpy(copy, row, bytes);
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&h->seq, memory_order_relaxed) != before)
			continue;
		memcpy(&got, copy, sizeof got);
		return got.in_use != 0;
	}
	return false;
}

/* ---- the header ---- */

static bool inside(uint64_t offset, uint64_t bytes, uint64_t align, const struct ctl_shm_header *h)
{
	return offset % align == 0 && offset >= h->header_bytes && offset <= h->total_bytes && bytes <= h->total_bytes - offset;
}

static bool ring_fits(uint64_t offset, uint64_t bytes, const struct ctl_shm_header *h)
{
	return bytes >= 4096 && bytes <= (1ull << 32) && (bytes & (bytes - 1)) == 0 &&
	       inside(offset, sizeof(struct ctl_ring) + bytes, CTL_LINE_BYTES, h);
}

static bool table_fits(const struct ctl_table *t, size_t row_bytes, const struct ctl_shm_header *h)
{
	return t->row_bytes == row_bytes && inside(t->offset, (uint64_t)t->rows_max * row_bytes, 8, h);
}

static const char *check_worker(const struct ctl_worker_layout *w, const struct ctl_shm_header *h)
{
	if (!ring_fits(w->request_ring_offset, w->request_ring_bytes, h) || !ring_fits(w->op_ring_offset, w->op_ring_bytes, h))
		return "a ring lies outside the shared memory or has a size that is no power of two";
	if (!inside(w->stats_offset, sizeof(struct ctl_worker_stats), CTL_LINE_BYTES, h))
		return "a worker's statistics lie outside the shared memory";
	if (!table_fits(&w->conns, sizeof(struct ctl_row_conn), h) ||
	    !table_fits(&w->channels, sizeof(struct ctl_row_channel), h) ||
	    !table_fits(&w->queues, sizeof(struct ctl_row_queue), h) ||
	    !table_fits(&w->consumers, sizeof(struct ctl_row_consumer), h))
		return "a table of rows lies outside the shared memory or has rows of another size";
	return NULL;
}

static const char *check_copy(const struct ctl_shm_header *h, size_t mapped_bytes)
{
	if (h->version != CTL_SHM_VERSION)
		return "the shared memory has another layout version: dataplane and control are of different releases";
	if (h->header_bytes != sizeof *h)
		return "the shared memory's header has another size";
	if (h->total_bytes > mapped_bytes || h->total_bytes < sizeof *h)
		return "the shared memory says that it is larger than it is";
	if (h->workers_count == 0 || h->workers_count > CTL_WORKERS_MAX || h->counters_count > CTL_COUNTERS_MAX ||
	    h->stages_count > CTL_STAGES_MAX)
		return "the shared memory has impossible counts of workers, counters or stages";
	if (!inside(h->counter_desc_offset, h->counters_count * sizeof(struct ctl_counter_desc), 8, h))
		return "the descriptions of the counters lie outside the shared memory";
	if (!inside(h->arena_offset, h->arena_bytes, 4096, h))
		return "the arena lies outside the shared memory";
	if (h->exchanges_max == 0 || h->queues_max == 0 || h->bindings_max == 0 || h->rules_max == 0 || h->tsc_hz == 0)
		return "the shared memory has a limit of zero";
	for (uint32_t i = 0; i < h->workers_count; i++) {
		const char *err = check_worker(&h->worker[i], h);

		if (err != NULL)
			return err;
	}
	return NULL;
}

bool ctl_shm_check(const void *map, size_t mapped_bytes, struct ctl_shm_header *out, const char **err)
{
	const struct ctl_shm_header *h = map;

	*err = NULL;
	if (mapped_bytes < sizeof *h)
		*err = "the shared memory is smaller than its header";
	else if (atomic_load_explicit(&h->magic, memory_order_acquire) != CTL_SHM_MAGIC)
		*err = "the shared memory does not begin with Tickwire's magic";
	if (*err != NULL)
		return false;
	memcpy(out, map, sizeof *out);
	out->version_text[sizeof out->version_text - 1] = '\0';
	out->port_text[sizeof out->port_text - 1] = '\0';
	out->address_text[sizeof out->address_text - 1] = '\0';
	*err = check_copy(out, mapped_bytes);
	return *err == NULL;
}
