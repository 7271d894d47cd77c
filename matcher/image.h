/*
 * image.h - the layout of a compiled image, shared by the writer (compile.c) and the reader (db.c).
 *
 * Owns: the header and the order of the tables; every offset follows from the counts, so none is stored.
 * Core: any.
 * Spec: matcher/README.md, "Image".
 *
 * header | ids[rules] | needs[rules] | always[] | empties[] | refs[] | patterns[] | tails | padding to 64 | Hyperscan database
 */
#ifndef TICKWIRE_MATCH_IMAGE_H
#define TICKWIRE_MATCH_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "matcher/match_hash.h"
#include "matcher/matcher.h"

#define MATCH_IMAGE_MAGIC   0x3147414d49575454u /* "TTWIMAG1" */
#define MATCH_IMAGE_VERSION 1u
#define MATCH_IMAGE_ALIGN   64u
#define MATCH_HS_BYTES_MIN  128u /* Hyperscan's own header is 104 octets; below this there is no database */

struct match_image_header {
	uint64_t magic;
	uint32_t version;
	uint32_t kind;
	uint64_t generation;
	uint64_t image_bytes;
	uint64_t hs_bytes;
	uint32_t rules;    /* ids, ascending, and as many needs: distinct patterns that must hit; 0 for always and empties */
	uint32_t always;   /* rules (as indices, ascending) that match every subject */
	uint32_t empties;  /* rules that match the empty key only */
	uint32_t refs;     /* rule indices; a pattern owns a run of them */
	uint32_t patterns; /* indexed by Hyperscan's pattern id */
	uint32_t tail_bytes;
	uint64_t hs_sum;
	uint64_t tables_sum; /* over the header up to here and all between the header and the database */
};

struct match_image_pattern {
	uint32_t ref_first, ref_count;
	uint32_t tail_at, tail_len; /* what must follow behind a hit, when the literal was too long for Hyperscan */
};

/* Where the tables begin, from the image's start, as the counts have it. */
struct match_image_layout {
	uint64_t ids, needs, always, empties, refs, patterns, tails, hs, bytes;
};

static inline struct match_image_layout match_image_layout(const struct match_image_header *h)
{
	struct match_image_layout l;

	l.ids = sizeof(*h);
	l.needs = l.ids + 4 * (uint64_t)h->rules;
	l.always = l.needs + 4 * (uint64_t)h->rules;
	l.empties = l.always + 4 * (uint64_t)h->always;
	l.refs = l.empties + 4 * (uint64_t)h->empties;
	l.patterns = l.refs + 4 * (uint64_t)h->refs;
	l.tails = l.patterns + sizeof(struct match_image_pattern) * (uint64_t)h->patterns;
	l.hs = (l.tails + h->tail_bytes + MATCH_IMAGE_ALIGN - 1) & ~(uint64_t)(MATCH_IMAGE_ALIGN - 1);
	l.bytes = l.hs + h->hs_bytes;
	return l;
}

/*
 * The sums find damage, not malice: whoever may write the image may write its sums too. What follows from the tables is
 * therefore checked besides; Hyperscan's bytecode cannot be, and must come from control alone.
 */
static inline uint64_t match_image_sum(uint64_t tweak, const uint8_t *data, size_t len)
{
	static const uint64_t key[2] = {0x7469636b77697265u, 0x6d61746368657221u};

	return match_hash(key, tweak, data, len);
}

static inline uint64_t match_image_tables_sum(const uint8_t *head, size_t head_bytes)
{
	uint64_t sum = match_image_sum(1, head, offsetof(struct match_image_header, tables_sum));

	return match_image_sum(sum, head + sizeof(struct match_image_header), head_bytes - sizeof(struct match_image_header));
}

static inline uint64_t match_image_hs_sum(const uint8_t *hs, size_t hs_bytes)
{
	return match_image_sum(2, hs, hs_bytes);
}

#endif
