/*
 * route.c - routing: (exchange, routing key, headers) to an interned set of queues, through the matcher and a cache.
 *
 * Owns: the interned routes, the route cache, the matcher's pool and sets; the one file of this folder that includes matcher.h.
 * Core: the worker. A key that ticks again costs one look-up until the FIB changes.
 * Spec: AMQP 0-9-1 section 3.1.3, RabbitMQ's exchange-to-exchange bindings; DESIGN sections 3 and 6.
 */
#include <assert.h>

#include "amqp/peer.h"
#include "amqp/hash.h"
#include "amqp/header_rule.h"
#include "matcher/matcher.h"

#define CACHE_KEY_MAX 103u /* longer keys are matched each time */
#define FORGET_BUDGET 16u

/* Two cache lines; a key of up to 39 octets is compared in the first. */
struct amqp_route_cache {
	uint64_t hash;
	uint64_t generation;
	uint32_t exchange;
	uint32_t route;
	uint8_t key_len;
	uint8_t key[CACHE_KEY_MAX];
};
_Static_assert(sizeof(struct amqp_route_cache) == 128, "a cache slot is two cache lines");

/* ---- memory ---- */

static uint32_t pow2_above(uint32_t n)
{
	return n < 2 ? 2 : 1u << (32 - (uint32_t)__builtin_clz(n - 1));
}

/* The arena holds at least one route over all queues, so that after a flush any route fits. */
static uint32_t route_queues_room(const struct amqp_limits *l)
{
	return l->route_queues_max > l->queues_max ? l->route_queues_max : l->queues_max;
}

static size_t subject_room(const struct amqp_limits *l)
{
	return amqp_header_rule_bytes(l->frame_max);
}

static size_t padded(size_t n)
{
	return (n + 63) & ~(size_t)63;
}

static struct match_limits match_limits_of(const struct amqp_limits *l)
{
	struct match_limits m = {.sets_max = l->exchanges_max,
				 .rules_max = l->rules_max,
				 .nodes_max = l->rule_nodes_max,
				 .key_bytes_max = l->rule_key_bytes_max};

	memcpy(m.secret, l->secret, sizeof m.secret);
	return m;
}

size_t amqp_route_bytes(const struct amqp_limits *l)
{
	struct match_limits m = match_limits_of(l);

	return padded(l->routes_max * sizeof(struct amqp_route)) + padded(pow2_above(l->routes_max) * sizeof(uint32_t)) +
	       padded(route_queues_room(l) * sizeof(uint32_t)) +
	       padded(pow2_above(l->route_cache_max) * sizeof(struct amqp_route_cache)) + padded(l->queues_max * sizeof(uint32_t)) +
	       padded(l->rules_max * sizeof(uint32_t)) + padded(l->exchanges_max * sizeof(uint32_t)) +
	       padded(l->queues_max * sizeof(uint64_t)) + padded(l->exchanges_max * sizeof(uint64_t)) + padded(subject_room(l)) +
	       padded(2 * l->exchanges_max * sizeof(struct match_db *)) + padded(match_pool_bytes(&m));
}

static void *take(uint8_t **at, size_t bytes)
{
	void *p = *at;

	*at += padded(bytes);
	return p;
}

bool amqp_route_init(struct amqp_broker *b, void *mem, const char **err)
{
	const struct amqp_limits *l = &b->limits;
	struct match_limits m = match_limits_of(l);
	uint8_t *at = mem;

	b->routes = take(&at, l->routes_max * sizeof(struct amqp_route));
	b->route_hash_mask = pow2_above(l->routes_max) - 1;
	b->route_hash = take(&at, (b->route_hash_mask + 1) * sizeof(uint32_t));
	b->route_queues = take(&at, route_queues_room(l) * sizeof(uint32_t));
	b->cache_mask = pow2_above(l->route_cache_max) - 1;
	b->cache = take(&at, (b->cache_mask + 1) * sizeof(struct amqp_route_cache));
	b->scratch_queues = take(&at, l->queues_max * sizeof(uint32_t));
	b->scratch_rules = take(&at, l->rules_max * sizeof(uint32_t));
	b->scratch_exchanges = take(&at, l->exchanges_max * sizeof(uint32_t));
	b->queue_mark = take(&at, l->queues_max * sizeof(uint64_t));
	b->exchange_mark = take(&at, l->exchanges_max * sizeof(uint64_t));
	b->scratch_subject_bytes = subject_room(l);
	b->scratch_subject = take(&at, b->scratch_subject_bytes);
	b->dropped_db_max = 2 * l->exchanges_max;
	b->dropped_db = take(&at, b->dropped_db_max * sizeof(struct match_db *));
	b->match = match_pool_init(at, match_pool_bytes(&m), &m);
	if (b->match == NULL) {
		*err = "the matcher refused its limits";
		return false;
	}
	b->fib_generation = 1; /* an empty cache slot says 0 */
	memset(b->route_hash, 0xff, (b->route_hash_mask + 1) * sizeof(uint32_t));
	return true;
}

/* ---- interned routes ---- */

void amqp_routes_flush(struct amqp_broker *b)
{
	AMQP_COUNT(b, route_flushes);
	for (uint32_t i = 0; i < b->routes_count; i++)
		if (b->routes[i].group != NULL)
			amqp_group_drop(b, b->routes[i].group);
	memset(b->route_hash, 0xff, (b->route_hash_mask + 1) * sizeof(uint32_t));
	b->routes_count = 0;
	b->route_queues_count = 0;
	b->fib_generation++; /* the cache's slots name routes that are no more */
}

/* Bottom-up heap sort: no recursion, no allocation, and no input is slow. */
static void sift(uint32_t *v, uint32_t at, uint32_t count)
{
	uint32_t held = v[at];

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= count)
			break;
		if (child + 1 < count && v[child + 1] > v[child])
			child++;
		if (v[child] <= held)
			break;
		v[at] = v[child];
		at = child;
	}
	v[at] = held;
}

static void sort(uint32_t *v, uint32_t count)
{
	for (uint32_t i = count / 2; i-- > 0;)
		sift(v, i, count);
	for (uint32_t end = count; end > 1; end--) {
		uint32_t largest = v[0];

		v[0] = v[end - 1];
		v[end - 1] = largest;
		sift(v, 0, end - 1);
	}
}

/* How many of the sorted queues live here: those of other workers have more than an index, and come behind. */
static uint32_t count_here(const struct amqp_broker *b, const uint32_t *queues, uint32_t count)
{
	uint32_t here = count;

	while (!amqp_is_alone(b) && here > 0 && queues[here - 1] >> AMQP_ROUTE_SHIFT != 0)
		here--;
	return here;
}

static struct amqp_route *intern(struct amqp_broker *b, uint32_t *queues, uint32_t count)
{
	struct amqp_route *r;
	uint64_t hash;
	uint32_t i;

	if (!amqp_is_alone(b))
		for (i = 0; i < count; i++)
			queues[i] |= (b->queues[queues[i]].home + b->peers_count - b->limits.worker_idx) % b->peers_count
				     << AMQP_ROUTE_SHIFT;
	sort(queues, count);
	hash = amqp_hash(b->limits.secret, 0, (const uint8_t *)queues, count * sizeof *queues);
	for (i = b->route_hash[hash & b->route_hash_mask]; i != AMQP_NONE; i = b->routes[i].hash_next) {
		r = &b->routes[i];
		if (r->hash == hash && r->total == count && memcmp(&b->route_queues[r->first], queues, count * sizeof *queues) == 0)
			return r;
	}
	if (b->routes_count == b->limits.routes_max || count > route_queues_room(&b->limits) - b->route_queues_count)
		amqp_routes_flush(b);
	r = &b->routes[b->routes_count];
	r->first = b->route_queues_count;
	r->count = count_here(b, queues, count);
	r->total = count;
	r->group = NULL;
	r->hash = hash;
	r->start = r->count != 0 ? b->routes_begun++ % r->count : 0; /* not at the first again while subscribers come and go */
	r->burst = b->bursts - 1;
	r->hash_next = b->route_hash[hash & b->route_hash_mask];
	b->route_hash[hash & b->route_hash_mask] = b->routes_count++;
	memcpy(&b->route_queues[r->first], queues, count * sizeof *queues);
	b->route_queues_count += count;
	return r;
}

/* ---- matching ---- */

struct walk {
	struct amqp_broker *b;
	struct amqp_span key;
	const struct amqp_msg *m;
	uint32_t queues_count, exchanges_count;
	size_t subject_len; /* of the message's canonical headers */
	bool subject_known;
	bool headers_seen; /* a headers exchange was asked: the result is this message's alone */
};

static void reach_queue(struct walk *w, uint32_t idx)
{
	struct amqp_broker *b = w->b;

	if (b->queue_mark[idx] == b->mark)
		return;
	b->queue_mark[idx] = b->mark;
	b->scratch_queues[w->queues_count++] = idx;
}

static void reach_exchange(struct walk *w, uint32_t idx)
{
	struct amqp_broker *b = w->b;

	if (b->exchange_mark[idx] == b->mark)
		return;
	b->exchange_mark[idx] = b->mark;
	b->scratch_exchanges[w->exchanges_count++] = idx;
}

static void follow(struct walk *w, uint32_t binding)
{
	while (binding != AMQP_NONE) {
		const struct amqp_binding *bd = &w->b->bindings[binding];

		if (bd->dest_is_exchange)
			reach_exchange(w, bd->dest);
		else
			reach_queue(w, bd->dest);
		binding = bd->rule_next;
	}
}

static struct amqp_span subject_of(struct walk *w, const struct amqp_exchange *x)
{
	struct amqp_broker *b = w->b;
	struct amqp_span headers;

	if (x->type != AMQP_HEADERS)
		return w->key;
	w->headers_seen = true;
	if (!w->subject_known) {
		headers = amqp_msg_headers(w->m);
		/* The room is for the longest header that a frame can carry: it always fits. */
		if (amqp_header_subject(headers.ptr, headers.len, b->scratch_subject, b->scratch_subject_bytes, &w->subject_len) !=
		    0)
			w->subject_len = 0;
		w->subject_known = true;
	}
	return (struct amqp_span){b->scratch_subject, (uint32_t)w->subject_len};
}

static void match_exchange(struct walk *w, uint32_t idx)
{
	struct amqp_broker *b = w->b;
	const struct amqp_exchange *x = &b->exchanges[idx];
	struct amqp_span subject;
	const struct amqp_queue *q;
	size_t count;

	if (x->flags & AMQP_DEF_DEFAULT) {
		q = amqp_queue_find(b, x->vhost_id, w->key);
		if (q != NULL)
			reach_queue(w, q->id);
		return;
	}
	if (x->type == AMQP_FANOUT) {
		follow(w, x->fanout_first);
		return;
	}
	if (x->bindings_count == 0 && x->type != AMQP_HEADERS)
		return;
	subject = subject_of(w, x);
	count = match_find(x->set, subject.ptr, subject.len, b->scratch_rules, b->limits.rules_max);
	for (size_t i = 0; i < count && i < b->limits.rules_max; i++) {
		const struct amqp_rule *r = amqp_rule_find(b, idx, b->scratch_rules[i]);

		if (r != NULL)
			follow(w, r->first_binding);
	}
}

/* Breadth first over exchange-to-exchange bindings; each exchange once, so that a cycle ends. */
static struct amqp_route *match_route(struct walk *w, uint32_t exchange_idx)
{
	struct amqp_broker *b = w->b;

	b->mark++;
	reach_exchange(w, exchange_idx);
	for (uint32_t i = 0; i < w->exchanges_count; i++)
		match_exchange(w, b->scratch_exchanges[i]);
	AMQP_COUNT(b, routes_matched);
	return intern(b, b->scratch_queues, w->queues_count);
}

/* ---- the cache ---- */

static inline uint64_t folded(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/*
 * A multiplication for 16 octets, keyed, instead of SipHash: names lie in chains that somebody who finds collisions could make
 * long, but a slot of the cache holds one key, so that collisions cost no more than keys that tick once: a match.
 */
static uint64_t cache_hash(const struct amqp_broker *b, uint32_t exchange, struct amqp_span key)
{
	const uint8_t *p = key.ptr;
	uint32_t len = key.len;
	uint64_t k0, k1, h, low = 0, high = 0;

	memcpy(&k0, b->limits.secret, 8);
	memcpy(&k1, b->limits.secret + 8, 8);
	h = k0 ^ ((uint64_t)len << 32 | exchange);
	for (; len > 16; len -= 16, p += 16)
		h = folded(amqp_get_word(p) ^ k1, amqp_get_word(p + 8) ^ h);
	if (len >= 8) {
		low = amqp_get_word(p);
		high = amqp_get_word(p + len - 8);
	} else if (len >= 4) {
		low = amqp_get_be32(p);
		high = amqp_get_be32(p + len - 4);
	} else if (len > 0) {
		low = (uint64_t)(p[0] << 16 | p[len / 2] << 8 | p[len - 1]);
	}
	h = folded(low ^ k1, high ^ h);
	return folded(h ^ 0x9e3779b97f4a7c15u, k1 | 1);
}

static inline bool slot_holds(const struct amqp_route_cache *s, const struct amqp_broker *b, uint64_t hash, uint32_t exchange,
			      struct amqp_span key)
{
	return s->hash == hash && s->generation == b->fib_generation && s->exchange == exchange && s->key_len == key.len &&
	       amqp_same_bytes(s->key, key.ptr, key.len);
}

static void cache_put(struct amqp_broker *b, uint64_t hash, uint32_t exchange, struct amqp_span key, const struct amqp_route *r)
{
	struct amqp_route_cache *s = &b->cache[hash & b->cache_mask & ~1u];

	/* The stale one of the pair, else the one that another bit of the hash picks. */
	if (s[0].generation == b->fib_generation && (s[1].generation != b->fib_generation || (hash >> 63) != 0))
		s++;
	s->hash = hash;
	s->generation = b->fib_generation;
	s->exchange = exchange;
	s->route = (uint32_t)(r - b->routes);
	s->key_len = (uint8_t)key.len;
	memcpy(s->key, key.ptr, key.len);
}

const struct amqp_route *amqp_route(struct amqp_broker *b, uint32_t exchange_idx, struct amqp_span key, const struct amqp_msg *m)
{
	struct walk w = {.b = b, .key = key, .m = m};
	const struct amqp_route_cache *s;
	const struct amqp_route *r;
	uint64_t hash;

	if (key.len > CACHE_KEY_MAX || b->exchanges[exchange_idx].type == AMQP_HEADERS)
		return match_route(&w, exchange_idx);
	hash = cache_hash(b, exchange_idx, key);
	s = &b->cache[hash & b->cache_mask & ~1u];
	if (slot_holds(&s[0], b, hash, exchange_idx, key) || slot_holds(++s, b, hash, exchange_idx, key)) {
		AMQP_COUNT(b, routes_cached);
		return &b->routes[s->route];
	}
	r = match_route(&w, exchange_idx);
	if (!w.headers_seen)
		cache_put(b, hash, exchange_idx, key, r);
	return r;
}

/* ---- the matcher's sets, for fib.c ---- */

bool amqp_set_open(struct amqp_broker *b, struct amqp_exchange *x)
{
	static const enum match_kind kind[] = {
		[AMQP_DIRECT] = MATCH_EXACT, [AMQP_TOPIC] = MATCH_TOPIC, [AMQP_HEADERS] = MATCH_HEADERS};

	x->set = NULL;
	if (x->type == AMQP_FANOUT || (x->flags & AMQP_DEF_DEFAULT))
		return true;
	x->set = match_set_open(b->match, kind[x->type]);
	return x->set != NULL;
}

bool amqp_set_may_close(const struct amqp_broker *b, const struct amqp_exchange *x)
{
	return x->set == NULL || b->dropped_db_count < b->dropped_db_max / 2;
}

void amqp_set_close(struct amqp_broker *b, struct amqp_exchange *x)
{
	struct match_db *db;

	if (x->set == NULL)
		return;
	db = match_set_close(x->set);
	x->set = NULL;
	if (x->forgetting) {
		x->forgetting = false;
		b->forget_count--;
	}
	if (db == NULL)
		return;
	assert(b->dropped_db_count < b->dropped_db_max);
	b->dropped_db[b->dropped_db_count++] = db;
}

uint16_t amqp_set_add_rule(struct amqp_exchange *x, uint32_t rule_id, struct amqp_span key, const char **why)
{
	switch (match_rule_add(x->set, rule_id, key.ptr, key.len)) {
	case 0:
		return 0;
	case -1:
		*why = "the matcher has no room for the binding";
		return 506;
	case -2:
		*why = "the matcher refused the binding's headers rule";
		return 541;
	default:
		*why = "the matcher has the binding's rule id in use";
		return 541;
	}
}

void amqp_set_remove_rule(struct amqp_exchange *x, uint32_t rule_id)
{
	match_rule_remove(x->set, rule_id);
}

/* ---- compiled databases ---- */

struct match_db *amqp_take_db(struct amqp_broker *b, uint32_t exchange_id, struct match_db *db)
{
	struct amqp_exchange *x;

	if (exchange_id >= b->limits.exchanges_max)
		return db;
	x = &b->exchanges[exchange_id];
	if (!x->in_use || x->set == NULL || x->type == AMQP_DIRECT)
		return db;
	if (!x->forgetting) {
		x->forgetting = true;
		b->forget_count++;
	}
	return match_set_take_db(x->set, db);
}

/* A few exchanges a step; what a database covers leaves the overlay bit by bit. */
void amqp_forget_step(struct amqp_broker *b)
{
	for (uint32_t n = 0; n < 64 && b->forget_count > 0; n++) {
		struct amqp_exchange *x;

		if (b->forget_idx >= b->exchanges_used)
			b->forget_idx = 0;
		x = &b->exchanges[b->forget_idx];
		if (x->forgetting) {
			if (match_forget_step(x->set, FORGET_BUDGET))
				return;
			x->forgetting = false;
			b->forget_count--;
		}
		b->forget_idx++;
	}
}

struct match_scratch *amqp_set_scratch(struct amqp_broker *b, struct match_scratch *s)
{
	return match_pool_set_scratch(b->match, s);
}

struct match_db *amqp_dropped_db(struct amqp_broker *b)
{
	return b->dropped_db_count != 0 ? b->dropped_db[--b->dropped_db_count] : NULL;
}
