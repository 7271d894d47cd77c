/*
 * back.c - the memory of the back half: every array carved from one block, every list empty, every bound checked once.
 *
 * Owns: the layout of that block.
 * Core: whoever makes the worker, before it runs.
 * Spec: DESIGN section 4: everything is bounded and allocated at start.
 */
#include "amqp/peer.h"

#define COUNT_MAX (1u << 28)

static size_t padded(size_t n)
{
	return (n + 63) & ~(size_t)63;
}

static uint32_t pow2_above(uint32_t n)
{
	return n < 2 ? 2 : 1u << (32 - (uint32_t)__builtin_clz(n - 1));
}

/* With other workers, as many again for what is here of their queues: publishes here must not use those up. */
static size_t entries_of(const struct amqp_limits *l)
{
	return (size_t)l->entries_max * (l->workers_count > 1 ? 2 : 1);
}

size_t amqp_back_bytes(const struct amqp_limits *l)
{
	return padded(l->consumers_max * sizeof(struct amqp_consumer)) + padded(l->exchanges_max * sizeof(struct amqp_exchange)) +
	       padded((l->queues_max + amqp_mirrors_max(l)) * sizeof(struct amqp_queue)) + padded(amqp_peers_bytes(l)) +
	       padded(l->bindings_max * sizeof(struct amqp_binding)) + padded(l->rules_max * sizeof(struct amqp_rule)) +
	       padded(entries_of(l) * sizeof(struct amqp_entry)) + padded(l->consumers_max * sizeof(uint32_t)) +
	       padded(pow2_above(l->exchanges_max) * sizeof(uint32_t)) + padded(pow2_above(l->queues_max) * sizeof(uint32_t)) +
	       padded(pow2_above(l->rules_max) * sizeof(uint32_t)) + padded(pow2_above(l->consumers_max) * sizeof(uint32_t)) +
	       padded(amqp_route_bytes(l)) + padded(amqp_pool_bytes(l->message_pool_bytes));
}

static void *take(uint8_t **at, size_t bytes)
{
	void *p = *at;

	*at += padded(bytes);
	return p;
}

static uint32_t *take_hash(uint8_t **at, uint32_t count, uint32_t *mask)
{
	uint32_t heads = pow2_above(count), *hash = take(at, heads * sizeof *hash);

	memset(hash, 0xff, heads * sizeof *hash);
	*mask = heads - 1;
	return hash;
}

static const char *check_limits(const struct amqp_limits *l)
{
	uint64_t largest = (uint64_t)l->message_bytes_max + l->frame_max + 1024, block = 256;

	if (l->consumers_max == 0 || l->exchanges_max == 0 || l->queues_max == 0 || l->bindings_max == 0 || l->entries_max == 0 ||
	    l->routes_max == 0 || l->route_cache_max == 0 || l->rules_max == 0)
		return "every limit of the broker must be at least 1";
	if (l->consumers_max > COUNT_MAX || l->exchanges_max > COUNT_MAX || l->queues_max > COUNT_MAX ||
	    l->bindings_max > COUNT_MAX || l->rules_max > COUNT_MAX || l->entries_max > COUNT_MAX || l->routes_max > COUNT_MAX ||
	    l->route_cache_max > COUNT_MAX || l->route_queues_max > COUNT_MAX)
		return "a limit of the broker is beyond 268435456";
	if (l->entries_max < l->queues_max)
		return "there must be at least as many entries as queues, or a message to all queues would never find room";
	while (block < largest)
		block *= 2;
	if (block > l->message_pool_bytes / 2)
		return "the message pool must hold the largest message, rounded up to a power of two, at least twice";
	return NULL;
}

static void init_lists(struct amqp_broker *b)
{
	const struct amqp_limits *l = &b->limits;

	for (uint32_t i = 0; i < l->consumers_max; i++)
		b->consumers_link[i] = i + 1 < l->consumers_max ? i + 1 : AMQP_NONE;
	for (uint32_t i = 0; i < l->rules_max; i++)
		b->rules[i].hash_next = i + 1 < l->rules_max ? i + 1 : AMQP_NONE;
	for (uint32_t i = 0; i < l->entries_max; i++)
		b->entries[i].next = i + 1 < l->entries_max ? i + 1 : AMQP_NONE;
	b->consumers_free = b->rules_free = b->entries_free = 0;
	b->drain_first = b->drain_last = AMQP_NONE;
	b->unused_first = AMQP_NONE;
	b->confirm_first = AMQP_NONE;
	b->garbage_first = b->garbage_last = AMQP_NONE;
	b->given_up_first = b->given_up_last = NULL;
}

bool amqp_back_init(struct amqp_broker *b, void *mem, size_t bytes, const char **err)
{
	const struct amqp_limits *l = &b->limits;
	uint8_t *at = mem;

	*err = check_limits(l);
	if (*err != NULL)
		return false;
	if (bytes < amqp_back_bytes(l)) {
		*err = "too little memory for queues, messages and definitions";
		return false;
	}
	b->consumers = take(&at, l->consumers_max * sizeof *b->consumers);
	b->exchanges = take(&at, l->exchanges_max * sizeof *b->exchanges);
	b->queues = take(&at, (l->queues_max + amqp_mirrors_max(l)) * sizeof *b->queues);
	b->bindings = take(&at, l->bindings_max * sizeof *b->bindings);
	b->rules = take(&at, l->rules_max * sizeof *b->rules);
	b->entries = take(&at, entries_of(l) * sizeof *b->entries);
	b->consumers_link = take(&at, l->consumers_max * sizeof *b->consumers_link);
	b->exchange_hash = take_hash(&at, l->exchanges_max, &b->exchange_hash_mask);
	b->queue_hash = take_hash(&at, l->queues_max, &b->queue_hash_mask);
	b->rule_hash = take_hash(&at, l->rules_max, &b->rule_hash_mask);
	b->tag_hash = take_hash(&at, l->consumers_max, &b->tag_hash_mask);
	amqp_peers_init(b, take(&at, amqp_peers_bytes(l)));
	if (!amqp_route_init(b, take(&at, amqp_route_bytes(l)), err))
		return false;
	b->pool = amqp_pool_init(at, amqp_pool_bytes(l->message_pool_bytes), l->message_pool_bytes);
	if (b->pool == NULL) {
		*err = "the message pool's size must be a power of two";
		return false;
	}
	init_lists(b);
	if (!amqp_is_alone(b))
		amqp_mirrors_init(b);
	return true;
}
