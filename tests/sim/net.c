/*
 * net.c - the simulated wire: a heap of frames by arrival time, and the dice.
 *
 * Owns: struct net.
 * Core: tests only.
 * Spec: none; the dice are splitmix64 (Steele, Lea and Flood).
 */
#include "tests/sim/net.h"

#include <stdlib.h>
#include <string.h>

struct flight {
	uint64_t at_ns, order;
	size_t len;
	unsigned to;
	uint8_t *bytes;
};

struct wire {
	struct net_params p;
	uint64_t last_at_ns;   /* arrival of the frame before: order is kept */
	uint64_t line_free_ns; /* when the last frame has left a line of limited rate */
	uint64_t blackhole_until_ns;
	uint32_t in_flight;
};

struct net {
	uint64_t random;
	uint64_t order;
	struct flight *heap;
	size_t count, room;
	struct wire wire[NET_SIDES];
	struct net_stats stats;
};

struct net *net_new(uint64_t seed)
{
	struct net *n = calloc(1, sizeof(*n));
	if (n != NULL) {
		/* Neighbouring seeds must not walk the same sequence one step apart. */
		n->random = seed;
		n->random = net_random(n) ^ seed << 17;
	}
	return n;
}

void net_free(struct net *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->heap[i].bytes);
	free(n->heap);
	free(n);
}

void net_set(struct net *n, unsigned side, const struct net_params *p)
{
	n->wire[side].p = *p;
}

void net_blackhole(struct net *n, unsigned side, uint64_t until_ns)
{
	n->wire[side].blackhole_until_ns = until_ns;
}

uint64_t net_random(struct net *n)
{
	uint64_t z = n->random += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t net_below(struct net *n, uint64_t bound)
{
	return bound == 0 ? 0 : net_random(n) % bound;
}

bool net_chance(struct net *n, uint32_t in_10000)
{
	return net_below(n, NET_PER) < in_10000;
}

uint64_t net_spread(struct net *n, uint64_t lowest, uint64_t highest)
{
	uint64_t span = highest - lowest;
	unsigned bits = 0;
	while (bits < 63 && span >> bits != 0)
		bits++;
	uint64_t limit = 1ull << net_below(n, bits + 1);
	uint64_t v = net_below(n, limit);
	return lowest + (v > span ? span : v);
}

static bool earlier(const struct flight *a, const struct flight *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void heap_push(struct net *n, struct flight f)
{
	if (n->count == n->room) {
		n->room = n->room == 0 ? 64 : n->room * 2;
		n->heap = realloc(n->heap, n->room * sizeof(*n->heap));
		if (n->heap == NULL)
			abort();
	}
	size_t i = n->count++;
	for (; i > 0 && earlier(&f, &n->heap[(i - 1) / 2]); i = (i - 1) / 2)
		n->heap[i] = n->heap[(i - 1) / 2];
	n->heap[i] = f;
}

static struct flight heap_pop(struct net *n)
{
	struct flight top = n->heap[0], last = n->heap[--n->count];
	size_t i = 0;
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= n->count)
			break;
		if (child + 1 < n->count && earlier(&n->heap[child + 1], &n->heap[child]))
			child++;
		if (!earlier(&n->heap[child], &last))
			break;
		n->heap[i] = n->heap[child];
		i = child;
	}
	n->heap[i] = last;
	return top;
}

/*
 * One bit flips. The Ethernet header, its tag and ARP are spared: on a real wire the frame check sequence guards them, and
 * nothing above it could tell.
 */
static bool corrupt(struct net *n, uint8_t *frame, size_t len)
{
	size_t at = len > 18 && frame[12] == 0x81 && frame[13] == 0x00 ? 16 : 12;
	if (len <= at + 2 || ((frame[at] != 0x08 || frame[at + 1] != 0x00) && (frame[at] != 0x86 || frame[at + 1] != 0xdd)))
		return false;
	at += 2;
	frame[at + net_below(n, len - at)] ^= (uint8_t)(1u << net_below(n, 8));
	return true;
}

static void put_in_flight(struct net *n, unsigned side, const uint8_t *frame, size_t len, uint64_t now_ns)
{
	struct wire *w = &n->wire[side];
	const struct net_params *p = &w->p;
	uint64_t at = now_ns;
	if (p->bytes_per_second != 0) {
		uint64_t start = w->line_free_ns > now_ns ? w->line_free_ns : now_ns;
		w->line_free_ns = start + len * 1000000000ull / p->bytes_per_second;
		at = w->line_free_ns;
	}
	uint64_t off_line = at;
	at += p->delay_min_ns + net_below(n, p->delay_max_ns - p->delay_min_ns + 1);
	if (net_chance(n, p->reorder)) {
		at = p->reorder_at_once ? off_line : at + net_below(n, p->reorder_extra_ns + 1);
		n->stats.reordered++;
	} else {
		if (at < w->last_at_ns)
			at = w->last_at_ns;
		w->last_at_ns = at;
	}
	struct flight f = {.at_ns = at, .order = n->order++, .len = len, .to = !side, .bytes = malloc(len)};
	if (f.bytes == NULL)
		abort();
	memcpy(f.bytes, frame, len);
	if (net_chance(n, p->corrupt) && corrupt(n, f.bytes, len))
		n->stats.corrupted++;
	w->in_flight++;
	heap_push(n, f);
}

void net_send(struct net *n, unsigned side, const uint8_t *frame, size_t len, uint64_t now_ns)
{
	struct wire *w = &n->wire[side];
	n->stats.sent++;
	bool full = w->p.queue_max != 0 && w->in_flight >= w->p.queue_max;
	if (now_ns < w->blackhole_until_ns || full || net_chance(n, w->p.drop)) {
		n->stats.dropped++;
		return;
	}
	put_in_flight(n, side, frame, len, now_ns);
	if (net_chance(n, w->p.duplicate)) {
		n->stats.duplicated++;
		put_in_flight(n, side, frame, len, now_ns);
	}
}

uint64_t net_next_ns(const struct net *n)
{
	return n->count == 0 ? NET_NEVER : n->heap[0].at_ns;
}

size_t net_receive(struct net *n, uint64_t now_ns, unsigned *side, uint8_t frame[NET_FRAME_MAX])
{
	if (n->count == 0 || n->heap[0].at_ns > now_ns)
		return 0;
	struct flight f = heap_pop(n);
	size_t len = f.len < NET_FRAME_MAX ? f.len : NET_FRAME_MAX;
	*side = f.to;
	memcpy(frame, f.bytes, len);
	free(f.bytes);
	n->wire[!f.to].in_flight--;
	n->stats.delivered++;
	return len;
}

const struct net_stats *net_stats(const struct net *n)
{
	return &n->stats;
}
