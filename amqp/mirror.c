/*
 * mirror.c - consumers and methods here on queues that live on other workers.
 *
 * Owns: the mirrors: for each such consumer a queue of its own, which the queue's worker fills as far as it was allowed to and
 * which the ordinary delivery empties; and the entries that only mirrors use.
 * Core: the worker.
 * Spec: AMQP 0-9-1 class basic. Delivery tags, prefetch and the ring of unacknowledged deliveries are the channel's, so they are
 * here; the order of messages and who gets them is the queue's, so it is there.
 */
#include <assert.h>

#include "amqp/front.h"
#include "amqp/peer.h"

#define WINDOW      64u         /* messages that may wait in a mirror */
#define PASSED_NEWS (64u << 10) /* octets that went on before the owner is told, if it has credit left */

uint32_t amqp_mirrors_max(const struct amqp_limits *l)
{
	/* The first of them are for what basic.get fetches, one a worker. */
	return l->workers_count > 1 ? l->workers_count + l->consumers_max : 0;
}

struct amqp_queue *amqp_mirror_queue(const struct amqp_broker *b, const struct amqp_mirror *m)
{
	return &b->queues[b->limits.queues_max + (uint32_t)(m - b->mirrors)];
}

static struct amqp_mirror *mirror_of_queue(const struct amqp_broker *b, const struct amqp_queue *q)
{
	return &b->mirrors[q->id - b->limits.queues_max];
}

static void open_queue(struct amqp_broker *b, struct amqp_mirror *m)
{
	struct amqp_queue *q = amqp_mirror_queue(b, m);
	uint32_t generation = q->generation;
	bool queued = q->drain_queued;
	uint32_t next = q->drain_next;

	memset(q, 0, sizeof *q);
	q->generation = generation;
	q->drain_queued = queued;
	q->drain_next = next;
	q->in_use = true;
	q->id = (uint32_t)(q - b->queues);
	q->home = b->limits.worker_idx;
	q->max_length = q->max_length_bytes = UINT64_MAX;
	q->dest_first = q->ready_first = q->ready_last = AMQP_NONE;
	q->consumer_next = q->parked_first = q->exclusive_consumer = q->requeue_hint = AMQP_NONE;
}

void amqp_mirrors_init(struct amqp_broker *b)
{
	const struct amqp_limits *l = &b->limits;
	uint32_t max = amqp_mirrors_max(l);

	for (uint32_t i = 0; i < max; i++)
		b->mirrors[i].next = i + 1 < max ? i + 1 : AMQP_NONE;
	for (uint32_t i = 0; i < l->workers_count; i++) {
		b->mirrors[i].home = (uint8_t)i;
		b->mirrors[i].state = AMQP_MIRROR_ON;
		b->mirrors[i].consumer = AMQP_NONE;
		open_queue(b, &b->mirrors[i]);
	}
	b->mirrors_free = b->mirrors_used = l->workers_count;
	for (uint32_t i = 0; i < l->entries_max; i++)
		b->entries[l->entries_max + i].next = i + 1 < l->entries_max ? l->entries_max + i + 1 : AMQP_NONE;
	b->mirror_entries_free = l->entries_max;
}

/* ---- life of a mirror ---- */

uint64_t amqp_mirror_handle(const struct amqp_broker *b, const struct amqp_mirror *m)
{
	return (uint64_t)m->generation << 32 | (uint32_t)(m - b->mirrors);
}

struct amqp_mirror *amqp_mirror_of(struct amqp_broker *b, uint64_t handle, uint32_t worker)
{
	uint32_t idx = (uint32_t)handle;
	struct amqp_mirror *m = idx < b->mirrors_used ? &b->mirrors[idx] : NULL;

	return m != NULL && m->state != AMQP_MIRROR_FREE && m->generation == handle >> 32 && m->home == worker ? m : NULL;
}

struct amqp_mirror *amqp_mirror_new(struct amqp_broker *b, const struct amqp_queue *q)
{
	uint32_t idx = b->mirrors_free;
	struct amqp_mirror *m;

	if (idx == AMQP_NONE)
		return NULL;
	m = &b->mirrors[idx];
	b->mirrors_free = m->next;
	if (idx >= b->mirrors_used)
		b->mirrors_used = idx + 1;
	*m = (struct amqp_mirror){.state = AMQP_MIRROR_ASKED,
				  .home = q->home,
				  .generation = m->generation + 1,
				  .queue = q->id,
				  .stamp = q->stamp,
				  .remote_consumer = AMQP_NONE,
				  .consumer = AMQP_NONE};
	open_queue(b, m);
	return m;
}

static void mirror_free(struct amqp_broker *b, struct amqp_mirror *m)
{
	amqp_mirror_queue(b, m)->in_use = false;
	m->state = AMQP_MIRROR_FREE;
	m->next = b->mirrors_free;
	b->mirrors_free = (uint32_t)(m - b->mirrors);
}

static void tell_later(struct amqp_broker *b, struct amqp_mirror *m)
{
	struct amqp_peer *p = &b->peers[m->home];

	if (m->told_later)
		return;
	m->told_later = true;
	m->next = p->mirrors_first;
	p->mirrors_first = (uint32_t)(m - b->mirrors);
}

/* What was never delivered goes back; its generation keeps later settlements from counting in the mirror's next life. */
void amqp_mirror_ends(struct amqp_broker *b, struct amqp_mirror *m)
{
	struct amqp_queue *q = amqp_mirror_queue(b, m);

	while (q->ready_count > 0)
		amqp_mirror_settle(b, amqp_queue_take_head(b, q), AMQP_RETURNED);
	q->generation++;
	q->unacked_count = 0;
	q->unacked_bytes = 0;
	if (m->remote_consumer == AMQP_NONE) { /* its worker knows nothing of it */
		if (!m->told_later)
			mirror_free(b, m);
		return;
	}
	m->state = AMQP_MIRROR_ENDS;
	tell_later(b, m);
}

void amqp_mirror_starts(struct amqp_broker *b, struct amqp_mirror *m, uint32_t remote_consumer, uint32_t consumer)
{
	m->state = AMQP_MIRROR_ON;
	m->remote_consumer = remote_consumer;
	m->consumer = consumer;
	tell_later(b, m);
}

void amqp_mirrors_of_queue_end(struct amqp_broker *b, uint32_t queue)
{
	for (uint32_t i = b->peers_count; !amqp_is_alone(b) && i < b->mirrors_used; i++)
		if (b->mirrors[i].state == AMQP_MIRROR_ON && b->mirrors[i].queue == queue)
			amqp_queue_cancel_consumers(b, amqp_mirror_queue(b, &b->mirrors[i]));
}

/* ---- credit ---- */

/*
 * How many the owner may have sent in all: a window of them waits here, and never more than the consumer may have, or its
 * neighbours on other workers would starve beside messages that nobody can take.
 */
static uint64_t allowed(const struct amqp_broker *b, const struct amqp_mirror *m)
{
	const struct amqp_queue *q = amqp_mirror_queue(b, m);
	const struct amqp_consumer *c = &b->consumers[m->consumer];
	uint32_t window = WINDOW, have = q->ready_count;

	if (!c->no_ack && c->prefetch_max != 0) {
		have += c->unacked_count;
		window = c->prefetch_max < WINDOW + c->unacked_count ? c->prefetch_max : WINDOW + c->unacked_count;
	}
	return m->received + (have < window ? window - have : 0);
}

void amqp_mirror_passed(struct amqp_broker *b, const struct amqp_queue *mirror, uint32_t bytes)
{
	mirror_of_queue(b, mirror)->passed += bytes;
}

/* In lots of half a window, or at once when the owner has nothing left to send on. */
void amqp_mirror_moved(struct amqp_broker *b, struct amqp_queue *mirror)
{
	struct amqp_mirror *m = mirror_of_queue(b, mirror);
	uint64_t more;

	if (m->state != AMQP_MIRROR_ON || m->consumer == AMQP_NONE || m->told_later)
		return;
	more = allowed(b, m);
	more = more > m->granted ? more - m->granted : 0;
	if (more >= WINDOW / 2 || (more != 0 && m->granted == m->received) || m->passed - m->told_passed >= PASSED_NEWS)
		tell_later(b, m);
}

/* ---- what the owner is told ---- */

static bool tell_mirror(struct amqp_broker *b, uint32_t worker, struct amqp_mirror *m)
{
	struct amqp_note *n = amqp_note_put(b, worker, AMQP_WAY_SETTLE);

	if (n == NULL)
		return false;
	n->id = m->remote_consumer;
	n->token = amqp_mirror_handle(b, m);
	if (m->state == AMQP_MIRROR_ENDS) {
		n->kind = AMQP_NOTE_CANCEL;
		return true;
	}
	if (m->state == AMQP_MIRROR_ON && allowed(b, m) > m->granted)
		m->granted = allowed(b, m);
	n->kind = AMQP_NOTE_CREDIT;
	n->number[0] = m->granted;
	n->number[1] = m->told_passed = m->passed;
	return true;
}

static bool settles_flush(struct amqp_broker *b, uint32_t worker)
{
	struct amqp_peer *p = &b->peers[worker];

	while (p->settle_first != AMQP_NONE) {
		struct amqp_note *n = amqp_note_put(b, worker, AMQP_WAY_SETTLE);

		if (n == NULL)
			return false;
		n->kind = AMQP_NOTE_SETTLE;
		n->flags = b->entries[p->settle_first].settled;
		while (p->settle_first != AMQP_NONE && n->count < AMQP_NOTE_ENTRIES &&
		       b->entries[p->settle_first].settled == n->flags) {
			uint32_t entry = p->settle_first;
			struct amqp_entry *e = &b->entries[entry];

			n->entry_of[n->count++] = (uint32_t)b->mirror_origin[entry - b->limits.entries_max];
			p->settle_first = e->next;
			e->next = b->mirror_entries_free;
			b->mirror_entries_free = entry;
			b->mirror_entries_count--;
		}
	}
	p->settle_last = AMQP_NONE;
	return true;
}

/* Who ends first: what goes back must not be sent to it again. */
void amqp_mirrors_flush(struct amqp_broker *b, uint32_t worker)
{
	struct amqp_peer *p = &b->peers[worker];

	while (p->mirrors_first != AMQP_NONE) {
		struct amqp_mirror *m = &b->mirrors[p->mirrors_first];
		uint32_t next = m->next;

		if (!tell_mirror(b, worker, m))
			return;
		p->mirrors_first = next;
		m->told_later = false;
		if (m->state == AMQP_MIRROR_ENDS)
			mirror_free(b, m);
	}
	settles_flush(b, worker);
}

void amqp_mirror_settle(struct amqp_broker *b, uint32_t entry, enum amqp_outcome how)
{
	struct amqp_entry *e = &b->entries[entry];
	uint32_t worker = (uint32_t)(b->mirror_origin[entry - b->limits.entries_max] >> 32);
	struct amqp_peer *p = &b->peers[worker];

	amqp_msg_unref(b, e->msg);
	e->msg = NULL;
	e->settled = (uint8_t)how;
	e->next = AMQP_NONE;
	if (p->settle_last != AMQP_NONE)
		b->entries[p->settle_last].next = entry;
	else
		p->settle_first = entry;
	p->settle_last = entry;
}

/* ---- what comes ---- */

/* The message in an entry of the mirror; AMQP_NONE: no room. */
static uint32_t entry_new(struct amqp_broker *b, uint32_t worker, struct amqp_queue *q, const struct amqp_note *n)
{
	uint32_t idx = b->mirror_entries_free;
	struct amqp_entry *e;
	struct amqp_msg *m;

	if (idx == AMQP_NONE)
		return AMQP_NONE;
	m = amqp_msg_adopt(b, n->msg, worker, false);
	if (m == NULL)
		return AMQP_NONE;
	e = &b->entries[idx];
	b->mirror_entries_free = e->next;
	b->mirror_entries_count++;
	*e = (struct amqp_entry){
		.msg = m, .seq = q->next_seq++, .next = AMQP_NONE, .prev = AMQP_NONE, .queue = q->id, .redelivered = n->flags & 1};
	b->mirror_origin[idx - b->limits.entries_max] = (uint64_t)worker << 32 | AMQP_NOTE_ENTRY(n);
	return idx;
}

static void take_delivery(struct amqp_broker *b, uint32_t entry, struct amqp_mirror *m)
{
	struct amqp_queue *q;

	if (m == NULL || m->state != AMQP_MIRROR_ON) {
		amqp_mirror_settle(b, entry, AMQP_RETURNED);
		return;
	}
	q = amqp_mirror_queue(b, m);
	m->received++;
	AMQP_COUNT(b, mirrored);
	amqp_queue_append(b, q, entry);
	amqp_queue_drain_later(b, q);
}

/* Runs the method that asked, with the answer, if it is still there. */
static void answer(struct amqp_broker *b, uint64_t token, struct amqp_answer *a)
{
	struct amqp_conn *c = amqp_conn_by_token(b, token);
	struct amqp_record reply = {.kind = AMQP_OP_REPLY, .token = token};

	if (c == NULL || !c->asks_peer)
		return;
	reply.id = c->ask_queue;
	c->answer = a;
	amqp_conn_answered(c, &reply);
}

bool amqp_mirror_take(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n)
{
	struct amqp_answer a = {.worker = worker, .number = {n->number[0]}};
	struct amqp_mirror *m = n->kind == AMQP_NOTE_DELIVER ? amqp_mirror_of(b, n->token, worker) : NULL;
	struct amqp_queue *q = amqp_mirror_queue(b, m != NULL ? m : &b->mirrors[worker]);

	a.entry = entry_new(b, worker, q, n);
	if (a.entry == AMQP_NONE)
		return false;
	if (n->kind == AMQP_NOTE_DELIVER) {
		take_delivery(b, a.entry, m);
		return true;
	}
	answer(b, n->token, &a);
	if (a.entry != AMQP_NONE) /* nobody took it */
		amqp_mirror_settle(b, a.entry, AMQP_RETURNED);
	return true;
}

void amqp_mirror_answer(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n)
{
	struct amqp_answer a = {.code = n->code,
				.worker = worker,
				.id = n->id,
				.entry = AMQP_NONE,
				.number = {n->number[0], n->number[1], n->number[2]}};
	struct amqp_mirror *m = n->number[2] != 0 ? amqp_mirror_of(b, n->number[2], worker) : NULL;

	answer(b, n->token, &a);
	if (m == NULL || m->state != AMQP_MIRROR_ASKED)
		return;
	/* No consumer came of it: refused, or the connection went meanwhile. */
	m->remote_consumer = n->code == 0 ? n->id : AMQP_NONE;
	amqp_mirror_ends(b, m);
}

/* ---- questions ---- */

static bool put_question(struct amqp_conn *c)
{
	struct amqp_note *n = amqp_note_put(c->b, c->ask_worker, AMQP_WAY_ASK);

	if (n == NULL)
		return false;
	n->kind = c->ask_kind;
	n->flags = c->ask_exclusive;
	n->token = c->wait_token;
	n->id = c->ask_queue;
	n->stamp = c->ask_stamp;
	n->number[0] = c->ask_handle;
	c->ask_unsent = false;
	return true;
}

enum amqp_verdict amqp_mirror_ask(struct amqp_conn *c, const struct amqp_queue *q, enum amqp_note_kind kind, uint64_t handle,
				  bool exclusive)
{
	struct amqp_broker *b = c->b;

	if (!amqp_conn_hold(c))
		return AMQP_STALL;
	c->waiting = c->asks_peer = c->ask_unsent = true;
	c->request_unsent = false;
	c->wait_token = amqp_next_token(b, c);
	c->wait_since_ns = b->now_ns;
	c->op_failed_code = 0;
	c->ask_kind = (uint8_t)kind;
	c->ask_worker = q->home;
	c->ask_queue = q->id;
	c->ask_stamp = q->stamp;
	c->ask_handle = handle;
	c->ask_exclusive = exclusive;
	if (b->unasked.count != 0 || !put_question(c))
		amqp_idx_push(&b->unasked, amqp_conn_idx(c));
	return AMQP_WAIT;
}

void amqp_mirror_ask_dropped(struct amqp_conn *c)
{
	struct amqp_mirror *m = c->ask_kind == AMQP_NOTE_CONSUME ? amqp_mirror_of(c->b, c->ask_handle, c->ask_worker) : NULL;

	if (m != NULL)
		amqp_mirror_ends(c->b, m);
}

void amqp_mirror_asks_flush(struct amqp_broker *b)
{
	for (uint32_t n = b->unasked.count; n > 0; n--) {
		uint32_t idx = amqp_idx_pop(&b->unasked);
		struct amqp_conn *c = &b->conns[idx];

		if (c->state != AMQP_CONN_FREE && c->waiting && c->ask_unsent && !put_question(c))
			amqp_idx_push(&b->unasked, idx);
	}
}
