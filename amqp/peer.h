/*
 * peer.h - between the workers of one process: the rings, and the seams of the files that use them.
 *
 * Owns: the notes that one worker's machine leaves for another, and how each half sees their rings.
 * Core: one worker on either side of a ring, each on its own core; nothing is locked and nobody waits.
 * Spec: DESIGN sections 3 (one entry per remote worker) and 4 (a message is counted once per worker that holds it).
 */
#ifndef TICKWIRE_AMQP_PEER_H
#define TICKWIRE_AMQP_PEER_H

#include <stdatomic.h>

#include "amqp/back.h"

/*
 * Four rings from each worker to each other one, so that what needs memory never stands before what gives it back:
 * whoever takes from a ring of this list needs room in rings further down only, and nothing at all to take from the last.
 */
enum amqp_way {
	AMQP_WAY_PUBLISH, /* taken while there is memory and entries for messages of publishers */
	AMQP_WAY_ASK,     /* answered by the two below */
	AMQP_WAY_DELIVER, /* taken while there is an entry that only these use */
	AMQP_WAY_SETTLE,  /* always taken */
	AMQP_WAYS
};

enum amqp_note_kind {
	AMQP_NOTE_PUBLISH = 1, /* msg, ids: queues of the taker; `rejected` is written by the taker */
	AMQP_NOTE_CONSUME,     /* ask: token, queue; number[0] handle of the mirror, flags 1: exclusive */
	AMQP_NOTE_GET,         /* ask: token, queue; answered by GOT or ANSWER */
	AMQP_NOTE_PURGE,       /* ask: token, queue */
	AMQP_NOTE_COUNT,       /* ask: token, queue */
	AMQP_NOTE_DELIVER,     /* token: handle of the mirror; msg, entry, flags 1: redelivered */
	AMQP_NOTE_GOT,         /* token, msg, entry, flags 1: redelivered; number[0] messages that stay */
	AMQP_NOTE_ANSWER,      /* token; code; id: consumer; number[0] messages, [1] consumers, [2] handle */
	AMQP_NOTE_CREDIT,      /* id: consumer, token: handle; number[0] most that may have been sent, [1] octets passed on */
	AMQP_NOTE_CANCEL,      /* id: consumer, token: handle */
	AMQP_NOTE_SETTLE,      /* flags: enum amqp_outcome; count entries */
	AMQP_NOTE_GIVE         /* count messages, one reference to each is given back */
};

#define AMQP_NOTE_ENTRIES  8u
#define AMQP_NOTE_MESSAGES 4u

struct amqp_note { /* one cache line */
	uint8_t kind, flags;
	uint16_t code;
	uint32_t count;
	uint32_t id, stamp; /* a queue: index and stamp; or a consumer's index */
	uint64_t token;
	struct amqp_msg *msg;
	union {
		struct {
			const struct amqp_target *target; /* count of them */
			uint32_t rejected;
		};
		uint64_t number[3];
		uint32_t entry_of[AMQP_NOTE_ENTRIES];
		struct amqp_msg *msg_of[AMQP_NOTE_MESSAGES];
	};
};
_Static_assert(sizeof(struct amqp_note) == 64, "a note is one cache line");
/* The entry of DELIVER and GOT stands where a queue's stamp does: neither has one. */
#define AMQP_NOTE_ENTRY(n) ((n)->stamp)

/* Zeroed memory is an empty ring. The sender writes notes and head, the taker tail (and `rejected`). */
struct amqp_ring {
	_Alignas(64) _Atomic uint32_t head;
	_Alignas(64) _Atomic uint32_t tail;
	_Alignas(64) struct amqp_note slot[];
};

struct amqp_target { /* a queue of another worker, and proof that its index means the same one there */
	uint32_t queue, stamp;
};

/* The queues of a route that live elsewhere, by worker; holders are the route and the notes that were not taken yet. */
struct amqp_group {
	uint32_t refs, rejecting; /* a bit a worker: one of its queues may refuse a publish */
	uint64_t queues_gone;     /* b->queues_gone when it was made: an index means the same queue until one goes */
	uint32_t from[AMQP_WORKERS_MAX + 1];
	struct amqp_target target[];
};

struct amqp_out {
	struct amqp_ring *ring;
	uint32_t head;   /* notes put, published or not */
	uint32_t told;   /* what the ring's head says */
	uint32_t reaped; /* notes that are known to be taken: their slots are free */
};

/* What a publish note leaves behind until it was taken. */
struct amqp_shadow {
	struct amqp_group *group;
	uint32_t channel; /* waits for the verdict; AMQP_NONE */
	uint64_t await;
};

/* Another worker, as this one sees it. */
struct amqp_peer {
	struct amqp_out out[AMQP_WAYS];
	struct {
		struct amqp_ring *ring;
		uint32_t tail;
	} in[AMQP_WAYS];
	uint32_t asked, published_before;   /* questions up to here are due when publishes up to there were taken */
	struct amqp_shadow *shadow;         /* by slot of the publish ring */
	uint32_t settle_first, settle_last; /* entries of mirrors that are settled, until the owner could be told */
	struct amqp_msg *give_first;        /* heads of messages that nobody here holds any more; chained by `data` */
	uint32_t mirrors_first;             /* mirrors with something to say to it */
	bool full;                          /* a delivery found no room: its consumers are parked */
	/* Stand for the consumers that are there. The channel also holds the publish that is being taken from there. */
	struct amqp_conn conn;
	struct amqp_channel channel;
};

/* ---- peer.c ---- */

static inline bool amqp_is_alone(const struct amqp_broker *b)
{
	return b->peers_count < 2;
}
static inline bool amqp_queue_is_here(const struct amqp_broker *b, const struct amqp_queue *q)
{
	return q->home == b->limits.worker_idx;
}
size_t amqp_peers_bytes(const struct amqp_limits *l);
void amqp_peers_init(struct amqp_broker *b, void *mem);
/* A free note of that ring, zeroed, to be filled at once; it is told with the burst. NULL: full. */
struct amqp_note *amqp_note_put(struct amqp_broker *b, uint32_t worker, enum amqp_way way);
bool amqp_note_room(struct amqp_broker *b, uint32_t worker, enum amqp_way way);
/* A local head of a message that another worker's note names. NULL: no room. */
struct amqp_msg *amqp_msg_adopt(struct amqp_broker *b, struct amqp_msg *original, uint32_t worker, bool publish);
void amqp_msg_give_back(struct amqp_broker *b, struct amqp_msg *m);
/* The channel's message to the workers that own the route's other queues, all of them or none. False: no room now. */
bool amqp_publish_remote(struct amqp_broker *b, const struct amqp_route *r, struct amqp_channel *ch);
bool amqp_publish_has_room(struct amqp_broker *b, const struct amqp_route *r);
void amqp_group_drop(struct amqp_broker *b, struct amqp_group *g);
/* End of a burst: what waited for room goes out, and the others see all that was put. Returns whether there was anything. */
bool amqp_mail_flush(struct amqp_broker *b);
const char *amqp_peers_check(const struct amqp_broker *b);

/* ---- remote.c: consumers and methods of other workers on queues that live here ---- */

/* The consumer's worker has credit for it and a slot for a note. */
bool amqp_remote_ready(struct amqp_broker *b, const struct amqp_consumer *c);
/* A message that the queue does not hold, or its head, goes to the consumer's worker and becomes unacknowledged. */
enum amqp_sent amqp_remote_deliver(struct amqp_broker *b, struct amqp_queue *q, struct amqp_consumer *c, uint32_t entry);
/* False: there is no room for the answer, the note stays. */
bool amqp_remote_ask(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n);
void amqp_remote_settle(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n);
void amqp_remote_credit(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n);
void amqp_remote_cancel(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n);

/* ---- mirror.c: consumers and methods of ours on queues that live elsewhere ---- */

enum amqp_mirror_state { AMQP_MIRROR_FREE, AMQP_MIRROR_ASKED, AMQP_MIRROR_ON, AMQP_MIRROR_ENDS };

/* What is here of a queue elsewhere, for one consumer of ours: its queue is b->queues[queues_max + index]. */
struct amqp_mirror {
	enum amqp_mirror_state state;
	bool told_later; /* on peer->mirrors_first */
	uint8_t home;
	uint32_t generation, next;
	uint32_t queue, stamp;        /* there */
	uint32_t remote_consumer;     /* there */
	uint32_t consumer;            /* here */
	uint64_t received, granted;   /* messages that came; most that it was allowed to send */
	uint64_t passed, told_passed; /* octets that went on to the client; of these the owner knows */
};

/* An answer in the hands of the method that asked, which takes the entry by setting it to AMQP_NONE. */
struct amqp_answer {
	uint16_t code;
	uint32_t worker;    /* who answers */
	uint32_t id, entry; /* entry: of a message that basic.get fetched; AMQP_NONE */
	uint64_t number[3];
};

static inline bool amqp_queue_is_mirror(const struct amqp_broker *b, uint32_t idx)
{
	return idx >= b->limits.queues_max;
}
void amqp_mirrors_init(struct amqp_broker *b);
uint32_t amqp_mirrors_max(const struct amqp_limits *l);
/* Asks the queue's worker; the method in dispatch is held and runs again with c->answer. WAIT, or STALL. */
enum amqp_verdict amqp_mirror_ask(struct amqp_conn *c, const struct amqp_queue *q, enum amqp_note_kind kind, uint64_t handle,
				  bool exclusive);
void amqp_mirror_asks_flush(struct amqp_broker *b);
/* The question was not put yet, and nobody waits for the answer any more. */
void amqp_mirror_ask_dropped(struct amqp_conn *c);
/* A mirror for a consumer of that queue. NULL: all are in use. */
struct amqp_mirror *amqp_mirror_new(struct amqp_broker *b, const struct amqp_queue *q);
struct amqp_mirror *amqp_mirror_of(struct amqp_broker *b, uint64_t handle, uint32_t worker);
uint64_t amqp_mirror_handle(const struct amqp_broker *b, const struct amqp_mirror *m);
struct amqp_queue *amqp_mirror_queue(const struct amqp_broker *b, const struct amqp_mirror *m);
void amqp_mirror_starts(struct amqp_broker *b, struct amqp_mirror *m, uint32_t remote_consumer, uint32_t consumer);
/* Its consumer went, or never came: what waits in it goes back to the queue. */
void amqp_mirror_ends(struct amqp_broker *b, struct amqp_mirror *m);
void amqp_mirrors_of_queue_end(struct amqp_broker *b, uint32_t queue);
/* A delivery of so many octets goes on to the client. */
void amqp_mirror_passed(struct amqp_broker *b, const struct amqp_queue *mirror, uint32_t bytes);
/* Deliveries left the mirror, or were settled: the owner may send more. */
void amqp_mirror_moved(struct amqp_broker *b, struct amqp_queue *mirror);
/* An entry of a mirror is done with; its owner is told. */
void amqp_mirror_settle(struct amqp_broker *b, uint32_t entry, enum amqp_outcome how);
/* False: there is no room to take the note. */
bool amqp_mirror_take(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n);
void amqp_mirror_answer(struct amqp_broker *b, uint32_t worker, const struct amqp_note *n);
/* What waits for room in the rings. */
void amqp_mirrors_flush(struct amqp_broker *b, uint32_t worker);

/* Queues are known elsewhere by index and by this. */
bool amqp_queue_is(const struct amqp_broker *b, uint32_t idx, uint32_t stamp);

#endif
