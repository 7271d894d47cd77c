/*
 * peer.c - the rings between the workers of one process: publishes for queues elsewhere, messages lent and given back.
 *
 * Owns: this worker's end of every ring, what its notes hold until they are taken, and the groups of its routes.
 * Core: the worker; the other end of each ring is another worker's.
 * Spec: DESIGN sections 3 and 4. A note names memory of its sender, who keeps it until the note was taken (groups) or the taker has
 * given it back (messages).
 */
#include "amqp/peer.h"

#include <assert.h>

/* ---- memory ---- */

static size_t lines(size_t bytes)
{
	return (bytes + 63) & ~(size_t)63;
}

static bool alone(const struct amqp_limits *l)
{
	return l->workers_count < 2;
}

static size_t ring_bytes(const struct amqp_limits *l)
{
	return lines(sizeof(struct amqp_ring) + l->mail_slots * sizeof(struct amqp_note));
}

size_t amqp_mail_bytes(const struct amqp_limits *l)
{
	return alone(l) ? 0 : l->workers_count * AMQP_WAYS * ring_bytes(l);
}

size_t amqp_peers_bytes(const struct amqp_limits *l)
{
	if (alone(l))
		return 0;
	return lines(l->workers_count * sizeof(struct amqp_peer)) +
	       l->workers_count * lines(l->mail_slots * sizeof(struct amqp_shadow)) +
	       lines(amqp_mirrors_max(l) * sizeof(struct amqp_mirror)) + lines(l->entries_max * sizeof(uint64_t)) +
	       lines(l->queues_max * sizeof(uint32_t));
}

static void *take(uint8_t **at, size_t bytes)
{
	void *p = *at;

	*at += lines(bytes);
	return p;
}

static void peer_init(struct amqp_broker *b, struct amqp_peer *p)
{
	p->settle_first = p->settle_last = AMQP_NONE;
	p->mirrors_first = AMQP_NONE;
	p->conn.b = b;
	p->conn.state = AMQP_CONN_PEER;
	amqp_channel_init_back(&p->channel);
	p->channel.state = AMQP_CH_OPEN;
	p->channel.active = true;
	p->channel.conn = AMQP_NONE;
}

void amqp_peers_init(struct amqp_broker *b, void *mem)
{
	const struct amqp_limits *l = &b->limits;
	uint8_t *at = mem;

	b->peers_count = alone(l) ? 1 : l->workers_count;
	if (alone(l))
		return;
	b->peers = take(&at, b->peers_count * sizeof *b->peers);
	for (uint32_t w = 0; w < b->peers_count; w++) {
		b->peers[w].shadow = take(&at, l->mail_slots * sizeof(struct amqp_shadow));
		peer_init(b, &b->peers[w]);
	}
	b->mirrors = take(&at, amqp_mirrors_max(l) * sizeof *b->mirrors);
	b->mirror_origin = take(&at, l->entries_max * sizeof *b->mirror_origin);
	b->scratch_take = take(&at, l->queues_max * sizeof *b->scratch_take);
}

/* The ring from one worker to the owner of the block. */
static struct amqp_ring *ring_of(const struct amqp_broker *b, void *block, uint32_t from, uint32_t way)
{
	return (struct amqp_ring *)(void *)((uint8_t *)block + (from * AMQP_WAYS + way) * ring_bytes(&b->limits));
}

void amqp_mail_connect(struct amqp_broker *b, void *const *block)
{
	uint32_t me = b->limits.worker_idx;

	for (uint32_t w = 0; !amqp_is_alone(b) && w < b->peers_count; w++)
		for (uint32_t way = 0; way < AMQP_WAYS; way++) {
			b->peers[w].out[way].ring = ring_of(b, block[w], me, way);
			b->peers[w].in[way].ring = ring_of(b, block[me], w, way);
		}
}

/* ---- the sender's end ---- */

/* Waits for a verdict of other workers' queues no more, and knows it. */
static void tell_verdict(struct amqp_broker *b, const struct amqp_shadow *s, const struct amqp_note *n)
{
	struct amqp_channel *ch = s->channel != AMQP_NONE ? &b->channels[s->channel] : NULL;

	if (ch == NULL || ch->await != s->await)
		return; /* the channel went */
	ch->await_left--;
	ch->route_rejected |= n->rejected != 0;
}

/* Slots that were taken are free again, and so is what their notes needed of ours. */
static void reap(struct amqp_broker *b, struct amqp_peer *p, enum amqp_way way)
{
	struct amqp_out *o = &p->out[way];
	uint32_t tail = atomic_load_explicit(&o->ring->tail, memory_order_acquire), mask = b->limits.mail_slots - 1;

	for (; way == AMQP_WAY_PUBLISH && o->reaped != tail; o->reaped++) {
		struct amqp_shadow *s = &p->shadow[o->reaped & mask];

		tell_verdict(b, s, &o->ring->slot[o->reaped & mask]);
		amqp_group_drop(b, s->group);
		s->group = NULL;
	}
	o->reaped = tail;
}

bool amqp_note_room(struct amqp_broker *b, uint32_t worker, enum amqp_way way)
{
	struct amqp_out *o = &b->peers[worker].out[way];

	if (o->head - o->reaped == b->limits.mail_slots)
		reap(b, &b->peers[worker], way);
	return o->head - o->reaped < b->limits.mail_slots;
}

struct amqp_note *amqp_note_put(struct amqp_broker *b, uint32_t worker, enum amqp_way way)
{
	struct amqp_out *o = &b->peers[worker].out[way];
	struct amqp_note *n;

	if (!amqp_note_room(b, worker, way))
		return NULL;
	n = &o->ring->slot[o->head++ & (b->limits.mail_slots - 1)];
	*n = (struct amqp_note){.kind = 0};
	AMQP_COUNT(b, notes_sent);
	return n;
}

/*
 * One store a ring and burst, however many notes. Questions last, and not before what is to be settled: whoever sees a question
 * sees all that its connection did before (poll_peer() looks in the other order).
 */
static bool tell(struct amqp_peer *p)
{
	static const enum amqp_way order[] = {AMQP_WAY_SETTLE, AMQP_WAY_PUBLISH, AMQP_WAY_DELIVER, AMQP_WAY_ASK};
	bool settled = p->settle_first == AMQP_NONE && p->mirrors_first == AMQP_NONE, told = false;

	for (unsigned i = 0; i < AMQP_WAYS; i++) {
		struct amqp_out *o = &p->out[order[i]];

		if (o->told == o->head || (order[i] == AMQP_WAY_ASK && !settled))
			continue;
		o->told = o->head;
		told = true;
		atomic_store_explicit(&o->ring->head, o->head, memory_order_release);
	}
	return told;
}

/* ---- messages of other workers ---- */

struct amqp_msg *amqp_msg_adopt(struct amqp_broker *b, struct amqp_msg *original, uint32_t worker, bool publish)
{
	struct amqp_msg *m = publish ? amqp_pool_alloc_message(b->pool, sizeof *m) : amqp_pool_alloc(b->pool, sizeof *m);

	if (m == NULL)
		return NULL;
	/* Not the count, which is its owner's alone and may change now. */
	*m = (struct amqp_msg){.refs = 1,
			       .template_bytes = original->template_bytes,
			       .names_bytes = original->names_bytes,
			       .header_frame_at = original->header_frame_at,
			       .header_bytes = original->header_bytes,
			       .body_frame_at = original->body_frame_at,
			       .body_bytes = original->body_bytes,
			       .flags = original->flags & AMQP_MSG_PERSISTENT,
			       .data = original->data,
			       .original = original,
			       .owner = worker};
	b->messages_count++;
	b->message_refs++;
	return m;
}

void amqp_msg_give_back(struct amqp_broker *b, struct amqp_msg *m)
{
	struct amqp_peer *p = &b->peers[m->owner];

	m->data = (uint8_t *)p->give_first;
	p->give_first = m;
}

static void give_flush(struct amqp_broker *b, uint32_t worker)
{
	struct amqp_peer *p = &b->peers[worker];

	while (p->give_first != NULL) {
		struct amqp_note *n = amqp_note_put(b, worker, AMQP_WAY_SETTLE);

		if (n == NULL)
			return;
		n->kind = AMQP_NOTE_GIVE;
		while (n->count < AMQP_NOTE_MESSAGES && p->give_first != NULL) {
			struct amqp_msg *m = p->give_first;

			n->msg_of[n->count++] = m->original;
			p->give_first = (struct amqp_msg *)(void *)m->data;
			amqp_pool_free(b->pool, m);
		}
	}
}

static void take_back(struct amqp_broker *b, const struct amqp_note *n)
{
	for (uint32_t i = 0; i < n->count && i < AMQP_NOTE_MESSAGES; i++) {
		b->peer_refs--;
		amqp_msg_unref(b, n->msg_of[i]);
	}
}

/* ---- publishes to queues elsewhere ---- */

void amqp_group_drop(struct amqp_broker *b, struct amqp_group *g)
{
	if (--g->refs == 0)
		amqp_pool_free(b->pool, g);
}

/* The route's queues elsewhere are sorted by how far their worker is from ours. */
static uint32_t worker_of(const struct amqp_broker *b, uint32_t packed)
{
	return (b->limits.worker_idx + (packed >> AMQP_ROUTE_SHIFT)) % b->peers_count;
}

static struct amqp_group *make_group(struct amqp_broker *b, const struct amqp_route *r)
{
	const uint32_t *idx = &b->route_queues[r->first + r->count];
	uint32_t count = r->total - r->count, distance = 0;
	struct amqp_group *g = amqp_pool_alloc_message(b->pool, sizeof *g + count * sizeof g->target[0]);

	if (g == NULL)
		return NULL;
	memset(g, 0, sizeof *g);
	g->refs = 1;
	g->queues_gone = b->queues_gone;
	for (uint32_t i = 0; i < count; i++) {
		const struct amqp_queue *q = &b->queues[idx[i] & ((1u << AMQP_ROUTE_SHIFT) - 1)];

		while (distance < idx[i] >> AMQP_ROUTE_SHIFT)
			g->from[++distance] = i;
		g->target[i] = (struct amqp_target){q->id, q->stamp};
		if (q->overflow == AMQP_OVERFLOW_REJECT_PUBLISH)
			g->rejecting |= 1u << worker_of(b, idx[i]);
	}
	while (distance < b->peers_count)
		g->from[++distance] = count;
	return g;
}

/* Routes are constant for those who use them; their groups are made late, for most routes have no queues elsewhere. */
static struct amqp_group *group_of(struct amqp_broker *b, const struct amqp_route *r)
{
	struct amqp_route *own = &b->routes[r - b->routes];

	if (own->group != NULL && own->group->queues_gone != b->queues_gone) {
		amqp_group_drop(b, own->group);
		own->group = NULL;
	}
	if (own->group == NULL)
		own->group = make_group(b, r);
	return own->group;
}

bool amqp_publish_has_room(struct amqp_broker *b, const struct amqp_route *r)
{
	const struct amqp_group *g = group_of(b, r);

	for (uint32_t d = 1; g != NULL && d < b->peers_count; d++)
		if (g->from[d] != g->from[d + 1] &&
		    !amqp_note_room(b, (b->limits.worker_idx + d) % b->peers_count, AMQP_WAY_PUBLISH)) {
			AMQP_COUNT(b, stalls_peer);
			return false;
		}
	return g != NULL;
}

static void put_publish(struct amqp_broker *b, uint32_t worker, struct amqp_group *g, uint32_t distance, struct amqp_channel *ch)
{
	struct amqp_peer *p = &b->peers[worker];
	uint32_t slot = p->out[AMQP_WAY_PUBLISH].head & (b->limits.mail_slots - 1);
	struct amqp_note *n = amqp_note_put(b, worker, AMQP_WAY_PUBLISH);
	bool asks = ch->confirm && (g->rejecting & 1u << worker) != 0;

	assert(n != NULL);
	n->kind = AMQP_NOTE_PUBLISH;
	n->msg = ch->msg;
	n->target = &g->target[g->from[distance]];
	n->count = g->from[distance + 1] - g->from[distance];
	amqp_msg_ref(b, ch->msg);
	b->peer_refs++;
	g->refs++;
	if (asks && ch->await == 0) {
		ch->await = ++b->await_seq;
		ch->await_left = 0;
	}
	ch->await_left += asks;
	p->shadow[slot] = (struct amqp_shadow){g, asks ? (uint32_t)(ch - b->channels) : AMQP_NONE, ch->await};
	AMQP_COUNT(b, publishes_forwarded);
}

/*
 * A queue elsewhere that refuses publishes has the last word on a confirm: the channel's publish waits for it, and with it
 * whatever the connection sends behind it.
 */
bool amqp_publish_remote(struct amqp_broker *b, const struct amqp_route *r, struct amqp_channel *ch)
{
	struct amqp_group *g;

	if (!amqp_publish_has_room(b, r)) {
		ch->route_first = 0;
		ch->route_from = AMQP_NONE; /* the queues here have it */
		return false;
	}
	g = group_of(b, r);
	for (uint32_t d = 1; d < b->peers_count; d++)
		if (g->from[d] != g->from[d + 1])
			put_publish(b, (b->limits.worker_idx + d) % b->peers_count, g, d, ch);
	return ch->await == 0;
}

bool amqp_queue_is(const struct amqp_broker *b, uint32_t idx, uint32_t stamp)
{
	return idx < b->limits.queues_max && b->queues[idx].in_use && b->queues[idx].stamp == stamp &&
	       amqp_queue_is_here(b, &b->queues[idx]);
}

/* The queues that are still there: an operation may have come between the publish and now. */
static uint32_t targets_here(struct amqp_broker *b, const struct amqp_note *n)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < n->count && count < b->limits.queues_max; i++)
		if (amqp_queue_is(b, n->target[i].queue, n->target[i].stamp))
			b->scratch_take[count++] = n->target[i].queue;
	return count;
}

/*
 * The start moves on with the bursts of this worker, as amqp_route_start() does: the queues come without the route.
 * False: no room; what was begun is kept by the pseudo-channel and goes on when there is some.
 */
static bool take_publish(struct amqp_broker *b, uint32_t worker, struct amqp_note *n)
{
	struct amqp_channel *ch = &b->peers[worker].channel;
	uint32_t count = targets_here(b, n);

	if (ch->msg == NULL) {
		ch->msg = amqp_msg_adopt(b, n->msg, worker, true);
		if (ch->msg == NULL)
			return false;
		ch->route_from = 0;
		ch->route_rejected = false;
	}
	if ((ch->route_from == 0 && !amqp_route_has_room(b, b->scratch_take, count, ch->msg)) ||
	    !amqp_deliver_route(b, b->scratch_take, count, count != 0 ? b->bursts % count : 0, ch))
		return false;
	n->rejected = ch->route_rejected;
	amqp_msg_unref(b, ch->msg);
	ch->msg = NULL;
	return true;
}

/* ---- the taker's end ---- */

/* False: it stays where it is, and what is behind it too. */
static bool take_note(struct amqp_broker *b, uint32_t worker, enum amqp_way way, struct amqp_note *n)
{
	switch ((enum amqp_note_kind)n->kind) {
	case AMQP_NOTE_PUBLISH:
		return take_publish(b, worker, n);
	case AMQP_NOTE_CONSUME:
	case AMQP_NOTE_GET:
	case AMQP_NOTE_PURGE:
	case AMQP_NOTE_COUNT:
		return amqp_remote_ask(b, worker, n);
	case AMQP_NOTE_DELIVER:
	case AMQP_NOTE_GOT:
		return amqp_mirror_take(b, worker, n);
	case AMQP_NOTE_ANSWER:
		amqp_mirror_answer(b, worker, n);
		return true;
	case AMQP_NOTE_CREDIT:
		amqp_remote_credit(b, worker, n);
		return true;
	case AMQP_NOTE_CANCEL:
		amqp_remote_cancel(b, worker, n);
		return true;
	case AMQP_NOTE_SETTLE:
		amqp_remote_settle(b, worker, n);
		return true;
	case AMQP_NOTE_GIVE:
		take_back(b, n);
		return true;
	}
	assert(way >= AMQP_WAYS); /* no other kind exists */
	return true;
}

static uint32_t head_of(const struct amqp_broker *b, uint32_t worker, enum amqp_way way)
{
	return atomic_load_explicit(&b->peers[worker].in[way].ring->head, memory_order_acquire);
}

static uint32_t poll_way(struct amqp_broker *b, uint32_t worker, enum amqp_way way, uint32_t head, uint32_t budget)
{
	struct amqp_peer *p = &b->peers[worker];
	struct amqp_ring *ring = p->in[way].ring;
	uint32_t first = p->in[way].tail, tail = first;

	while (tail != head && tail - first < budget && take_note(b, worker, way, &ring->slot[tail & (b->limits.mail_slots - 1)]))
		tail++;
	if (tail == first)
		return 0;
	p->in[way].tail = tail;
	atomic_store_explicit(&ring->tail, tail, memory_order_release);
	return tail - first;
}

/*
 * What gives back memory and slots comes first, and questions last: what their connections published, acknowledged or rejected
 * before is seen in the answer. But a publish that finds no room stops no question, for the answer may make some.
 */
static uint32_t poll_peer(struct amqp_broker *b, uint32_t w, uint32_t budget)
{
	struct amqp_peer *p = &b->peers[w];
	uint32_t taken, published;

	if (p->in[AMQP_WAY_ASK].tail == p->asked) {
		p->asked = head_of(b, w, AMQP_WAY_ASK);
		p->published_before = head_of(b, w, AMQP_WAY_PUBLISH);
	}
	taken = poll_way(b, w, AMQP_WAY_SETTLE, head_of(b, w, AMQP_WAY_SETTLE), UINT32_MAX);
	taken += poll_way(b, w, AMQP_WAY_DELIVER, head_of(b, w, AMQP_WAY_DELIVER), budget);
	published = poll_way(b, w, AMQP_WAY_PUBLISH, head_of(b, w, AMQP_WAY_PUBLISH), budget);
	if (published < budget || (int32_t)(p->in[AMQP_WAY_PUBLISH].tail - p->published_before) >= 0)
		taken += poll_way(b, w, AMQP_WAY_ASK, p->asked, budget);
	return taken + published;
}

/* Consumers elsewhere that were parked for want of a slot, once there is one. */
static void unpark(struct amqp_broker *b, uint32_t worker)
{
	struct amqp_peer *p = &b->peers[worker];

	if (!p->full || !amqp_note_room(b, worker, AMQP_WAY_DELIVER))
		return;
	p->full = false;
	amqp_channel_unpark(b, &p->channel);
}

uint32_t amqp_mail_poll(struct amqp_broker *b, uint32_t budget)
{
	uint32_t taken = 0;

	for (uint32_t w = 0; w < b->peers_count; w++) {
		if (amqp_is_alone(b) || w == b->limits.worker_idx)
			continue;
		taken += poll_peer(b, w, budget);
		if (b->peers[w].out[AMQP_WAY_PUBLISH].reaped != b->peers[w].out[AMQP_WAY_PUBLISH].head)
			reap(b, &b->peers[w], AMQP_WAY_PUBLISH);
		unpark(b, w);
	}
	AMQP_COUNT_N(b, notes_taken, taken);
	return taken;
}

bool amqp_mail_flush(struct amqp_broker *b)
{
	bool told = false;

	amqp_mirror_asks_flush(b);
	for (uint32_t w = 0; w < b->peers_count; w++) {
		if (w == b->limits.worker_idx)
			continue;
		amqp_mirrors_flush(b, w);
		give_flush(b, w);
		told |= tell(&b->peers[w]);
	}
	return told;
}

/* ---- usage and check ---- */

void amqp_mail_usage(const struct amqp_broker *b, struct amqp_mail_usage *out)
{
	*out = (struct amqp_mail_usage){.message_refs = b->peer_refs};
	for (uint32_t w = 0; !amqp_is_alone(b) && w < b->peers_count; w++)
		for (unsigned way = 0; w != b->limits.worker_idx && way < AMQP_WAYS; way++)
			out->notes_pending += b->peers[w].out[way].head -
					      atomic_load_explicit(&b->peers[w].out[way].ring->tail, memory_order_relaxed);
}

const char *amqp_peers_check(const struct amqp_broker *b)
{
	for (uint32_t w = 0; !amqp_is_alone(b) && w < b->peers_count; w++) {
		const struct amqp_peer *p = &b->peers[w];

		for (unsigned way = 0; w != b->limits.worker_idx && way < AMQP_WAYS; way++)
			if (p->out[way].head - p->out[way].reaped > b->limits.mail_slots)
				return "a ring holds more notes than it has slots";
	}
	return NULL;
}
