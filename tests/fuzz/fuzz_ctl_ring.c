/*
 * fuzz_ctl_ring.c - a request ring and its records, written by an enemy.
 *
 * Owns: nothing.
 * Core: libFuzzer, or the replay of the corpus.
 * Spec: control/ctl_shm.h: nothing outside the ring is read, what decodes is inside the scratch, what decodes encodes again.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/ctl_shm.h"

#define RING_BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct amqp_span s, const uint8_t *scratch)
{
	assert(s.ptr >= scratch && s.ptr + s.len <= scratch + CTL_RECORD_MAX);
}

static void check_record(const uint8_t *bytes, const struct amqp_record *rec)
{
	size_t len = ctl_record_bytes(rec);
	uint8_t *again = malloc(len);

	assert(len >= 64 && again != NULL);
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		inside(rec->str[i], bytes);
	inside(rec->blob, bytes);
	assert(ctl_record_encode(again, len, rec) == len && memcmp(again, bytes, len) == 0);
	free(again);
}

/* The first 16 octets are the indexes, the rest is the ring's data; the whole is also tried as one record. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t scratch[CTL_RECORD_MAX];
	struct ctl_ring *r = aligned_alloc(64, sizeof *r + RING_BYTES);
	struct ctl_ring_end e = {r, RING_BYTES};
	struct amqp_record rec;
	uint64_t index[2] = {0, 0};
	int got;

	assert(r != NULL);
	memset(r, 0, sizeof *r + RING_BYTES);
	if (size <= CTL_RECORD_MAX) {
		memcpy(scratch, data, size);
		if (ctl_record_decode(scratch, size, &rec))
			check_record(scratch, &rec);
	}
	memcpy(index, data, size < sizeof index ? size : sizeof index);
	if (size > sizeof index)
		memcpy(r->data, data + sizeof index, size - sizeof index < RING_BYTES ? size - sizeof index : RING_BYTES);
	atomic_store(&r->head, index[0]);
	atomic_store(&r->tail, index[1]);
	for (unsigned i = 0; i < 128 && (got = ctl_ring_get(&e, scratch, &rec)) != 0; i++)
		if (got == 1)
			check_record(scratch, &rec);
	free(r);
	return 0;
}
