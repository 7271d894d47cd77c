/*
 * match_image_child.c - the other process of test_match_image: opens an image that it did not make, and scans.
 *
 * Owns: nothing; reads descriptors 3 (image) and 4 (subjects), writes descriptor 5 (results).
 * Core: test. Linked with Hyperscan's runtime alone, as the dataplane is.
 * Spec: DESIGN section 6 (an image scans from a read-only mapping in another process).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "matcher/match_int.h"

#define RESULTS_MAX 4096u

static uint8_t *map(int fd, size_t *bytes)
{
	struct stat st;
	uint8_t *at;

	if (fstat(fd, &st) || st.st_size <= 0)
		return NULL;
	*bytes = (size_t)st.st_size;
	/* An address that no compiler has seen: a hole is left before the mapping. */
	if (mmap(NULL, 5u << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		return NULL;
	at = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, fd, 0);
	return at == MAP_FAILED ? NULL : at;
}

/* Subjects: u32 length and bytes, again and again. Results: u32 count and ids. */
static int scan_all(struct match_set *set, const uint8_t *at, const uint8_t *end)
{
	static uint32_t ids[1 + RESULTS_MAX];
	uint32_t len;

	while (end - at >= 4) {
		size_t found;

		memcpy(&len, at, 4);
		at += 4;
		if (len > (size_t)(end - at))
			return 6;
		found = match_find(set, at, len, ids + 1, RESULTS_MAX);
		at += len;
		ids[0] = (uint32_t)found;
		if (found > RESULTS_MAX || write(5, ids, 4 * (1 + found)) != (ssize_t)(4 * (1 + found)))
			return 7;
	}
	return set->scan_failures ? 8 : 0;
}

int main(void)
{
	struct match_limits l = {.sets_max = 1, .rules_max = RESULTS_MAX, .nodes_max = 16, .key_bytes_max = 4096};
	size_t image_bytes = 0, subject_bytes = 0;
	uint8_t *image = map(3, &image_bytes), *subjects = map(4, &subject_bytes);
	struct match_pool *pool;
	struct match_set *set;
	struct match_db *db;
	struct match_scratch *scratch;
	void *mem = malloc(match_pool_bytes(&l));
	char err[200] = "";
	int rc;

	if (!image || !subjects || !mem)
		return 2;
	db = match_db_open(image, image_bytes, err, sizeof(err));
	if (!db) {
		fprintf(stderr, "%s\n", err);
		return 3;
	}
	pool = match_pool_init(mem, match_pool_bytes(&l), &l);
	set = match_set_open(pool, match_db_kind(db));
	scratch = match_scratch_grow(NULL, db);
	if (!scratch)
		return 4;
	match_pool_set_scratch(pool, scratch);
	if (match_set_take_db(set, db))
		return 5;
	rc = scan_all(set, subjects, subjects + subject_bytes);
	match_db_close(match_set_close(set));
	match_scratch_free(scratch);
	free(mem);
	return rc;
}
