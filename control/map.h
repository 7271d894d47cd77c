/*
 * map.h - the containers of control: an intrusive keyed hash map, an allocator of ids, and memory that does not fail.
 *
 * Owns: buckets and id states; the elements are the caller's.
 * Core: control's event loop.
 * Spec: keys are chosen by clients, so they are hashed with SipHash-2-4 and a random secret.
 */
#ifndef TICKWIRE_CTL_MAP_H
#define TICKWIRE_CTL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp/records.h"

/* Memory of control: without it the process cannot keep its promises, so it says so and ends; the service manager restarts it. */
void *ctl_alloc(size_t bytes); /* zeroed */
void *ctl_resize(void *p, size_t bytes);
struct amqp_span ctl_span_dup(struct amqp_span s); /* free((void *)span.ptr) */
void ctl_span_free(struct amqp_span *s);
static inline struct amqp_span ctl_span(const char *text)
{
	return (struct amqp_span){(const uint8_t *)text, (uint32_t)__builtin_strlen(text)};
}
bool ctl_span_is(struct amqp_span s, const char *text);
bool ctl_span_equal(struct amqp_span a, struct amqp_span b);

struct ctl_map_node {
	struct ctl_map_node *next;
	uint64_t hash;
};
struct ctl_map {
	struct ctl_map_node **bucket;
	size_t mask, count;
	const uint8_t *secret; /* 16 octets */
};
#define CTL_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

void ctl_map_init(struct ctl_map *m, const uint8_t secret[16]);
void ctl_map_fini(struct ctl_map *m);
/* The hash of a number and up to two strings, each with its length. */
uint64_t ctl_map_hash(const struct ctl_map *m, uint64_t number, struct amqp_span a, struct amqp_span b);
void ctl_map_insert(struct ctl_map *m, struct ctl_map_node *n, uint64_t hash);
void ctl_map_remove(struct ctl_map *m, struct ctl_map_node *n);
/* The first node of that hash, and the next one after `n`; the caller compares keys. */
struct ctl_map_node *ctl_map_first(const struct ctl_map *m, uint64_t hash);
struct ctl_map_node *ctl_map_after(const struct ctl_map_node *n);

uint64_t ctl_siphash(const uint8_t secret[16], const uint8_t *data, size_t len);

/*
 * Ids 0..max-1. The next one is looked for behind the last, so a freed id comes back as late as can be; freed ids rest until
 * ctl_ids_settle(), unless there is no other left.
 */
struct ctl_ids {
	uint8_t *state;
	uint32_t max, cursor, used, resting_count, resting_cap;
	uint32_t *resting;
};
void ctl_ids_init(struct ctl_ids *ids, uint32_t max);
void ctl_ids_fini(struct ctl_ids *ids);
uint32_t ctl_ids_take(struct ctl_ids *ids);           /* AMQP_ID_NONE: all are in use */
bool ctl_ids_claim(struct ctl_ids *ids, uint32_t id); /* this very one; false: out of range or in use */
void ctl_ids_free(struct ctl_ids *ids, uint32_t id);
void ctl_ids_settle(struct ctl_ids *ids);

#endif
