/*
 * internal.h - the data of one worker's AMQP machine, shared by the files of this folder and by nothing else.
 *
 * Owns: the structs and the seams between the files. Front: frame.c, connection.c, channel.c, declare.c, send.c. Back:
 * pool.c, message.c, queue.c, consumer.c, basic.c, deliver.c, fib.c, route.c, rows.c.
 * Core: the worker. Nothing here is touched by another thread; counts are plain.
 * Spec: AMQP 0-9-1.
 */
#ifndef TICKWIRE_AMQP_INTERNAL_H
#define TICKWIRE_AMQP_INTERNAL_H

#include "amqp/amqp.h"

struct amqp_answer;
struct amqp_group;
struct amqp_mirror;
struct amqp_peer;
struct match_pool;
struct match_set;
struct amqp_route_cache;

#define AMQP_NONE UINT32_MAX

/* ---------------------------------------------------------------- message pool (pool.c) */

/*
 * A buddy allocator over one power-of-two arena with free-list caches for the small orders, so that the pair of a tick's
 * allocation and release is a pop and a push. Blocks are 256 bytes << order, contiguous, 64-byte aligned. Never libc.
 */
struct amqp_pool;
size_t amqp_pool_bytes(size_t arena_bytes);
struct amqp_pool *amqp_pool_init(void *mem, size_t mem_bytes, size_t arena_bytes);
void *amqp_pool_alloc(struct amqp_pool *p, size_t bytes); /* NULL: none that large is free; counted */
/*
 * The same, but a fraction of the pool, 1/16 for messages and 1/32 for what else clients cause, stays free: when publishers have
 * filled it, others must still be able to log in, to declare and to consume, or nobody could ever empty it again.
 */
void *amqp_pool_alloc_message(struct amqp_pool *p, size_t bytes);
void *amqp_pool_alloc_client(struct amqp_pool *p, size_t bytes);
void amqp_pool_free(struct amqp_pool *p, void *block);
size_t amqp_pool_block_bytes(const struct amqp_pool *p, const void *block); /* usable size */
size_t amqp_pool_used(const struct amqp_pool *p);
size_t amqp_pool_size(const struct amqp_pool *p);
const char *amqp_pool_check(const struct amqp_pool *p);
uint64_t amqp_pool_failures(const struct amqp_pool *p); /* allocations that found nothing */

/* ---------------------------------------------------------------- messages (message.c) */

/*
 * One published message: a head and, behind it in the same block, the *template*: what every consumer gets alike, already framed:
 *   [exchange shortstr][routing key shortstr] CE | 02 ch ch len4 [content header payload] CE | 03 ch ch len4 [body] CE
 * A delivery is the consumer's prefix + the template with the channel number patched at two places. The last frame is
 * absent when the body is empty. A body that exceeds a consumer's frame-max is cut into frames at delivery instead.
 * A message of another worker has a head here that counts the holders here; its template is the other's.
 */
struct amqp_msg {
	uint32_t refs;            /* queues, unacknowledged entries, unsent references, frames in the port's ring */
	uint32_t template_bytes;  /* of data[] */
	uint32_t names_bytes;     /* exchange and routing key, both shortstr */
	uint32_t header_frame_at; /* offset in data[] of the content header frame */
	uint32_t header_bytes;    /* content header payload */
	uint32_t body_frame_at;   /* offset in data[] of the body frame; == template_bytes when the body is empty */
	uint32_t body_bytes;
	uint32_t flags;            /* AMQP_MSG_* */
	uint8_t *data;             /* the template; behind the head, or another worker's */
	struct amqp_msg *original; /* another worker's, which is given back when nobody here holds this head; NULL: ours */
	uint32_t owner;            /* that worker */
};
#define AMQP_MSG_PERSISTENT  0x1u
#define AMQP_MSG_CHECK_SHIFT 8 /* the bits above belong to amqp_back_check(), which counts holders in them */

static inline uint8_t *amqp_msg_body(struct amqp_msg *m)
{
	return m->data + m->body_frame_at + 7;
}
static inline const uint8_t *amqp_msg_header(const struct amqp_msg *m)
{
	return m->data + m->header_frame_at + 7;
}
/* refs = 1. `header` is the content header's payload (class, weight, size, flags, properties). NULL: pool exhausted. */
struct amqp_msg *amqp_msg_new(struct amqp_broker *b, struct amqp_span exchange, struct amqp_span key, struct amqp_span header,
			      uint32_t body_bytes);
/*
 * The same of a publish as it came: `names` are the two shortstr, and from the frame-end octet of its method on (one octet before
 * the frame of `header`) the bytes are those of the template already, to the end of the body's frame.
 */
struct amqp_msg *amqp_msg_of_frames(struct amqp_broker *b, const uint8_t *names, uint32_t names_bytes, struct amqp_span header,
				    uint32_t body_bytes);
void amqp_msg_ref(struct amqp_broker *b, struct amqp_msg *m);
void amqp_msg_unref(struct amqp_broker *b, struct amqp_msg *m);
void amqp_msg_lend(struct amqp_broker *b, struct amqp_msg *m);         /* one more reference of the transport's */
void amqp_msg_ref_released(struct amqp_broker *b, struct amqp_msg *m); /* amqp_release(): the transport let go of a send_ref */

/* A message on a queue or unacknowledged on a channel; from the pool b->entries. */
struct amqp_entry {
	struct amqp_msg *msg;
	uint64_t seq; /* position in its queue: a requeued entry goes back between its neighbours */
	uint32_t next;
	union {
		uint32_t prev;             /* while it is on a queue */
		uint32_t queue_generation; /* while it is unacknowledged: the queue may have gone, and its slot been reused */
	};
	uint32_t queue; /* index */
	uint8_t redelivered;
	uint8_t out;     /* 1 + the worker whose consumer has it */
	uint8_t settled; /* of a mirror, and settled: enum amqp_outcome, until the owner is told */
};

/* ---------------------------------------------------------------- definitions (fib.c, route.c) */

struct amqp_binding {                  /* in the source exchange's rule and in the destination's list */
	uint32_t id;                   /* == its index */
	uint32_t source;               /* exchange index */
	uint32_t dest;                 /* queue or exchange index */
	uint32_t rule;                 /* slot in b->rules; AMQP_NONE for fanout */
	uint32_t rule_next, rule_prev; /* list of the rule (or of the fanout exchange) */
	uint32_t dest_next, dest_prev;
	bool in_use, dest_is_exchange;
	struct amqp_span key, args; /* in one pool block, for the dump and for unbind */
	void *block;
};

struct amqp_rule { /* (exchange, rule id of control) -> bindings; found by hash */
	uint32_t exchange, rule_id, first_binding, hash_next;
	bool in_use;
};

struct amqp_exchange {
	bool in_use;
	enum amqp_exchange_type type;
	uint32_t vhost_id, flags, name_hash_next;
	struct amqp_span name, vhost_name, args;
	void *block;
	struct match_set *set;   /* NULL for fanout and for the default exchange */
	uint32_t fanout_first;   /* fanout: its bindings */
	uint32_t dest_first;     /* bindings whose destination this exchange is */
	uint32_t bindings_count; /* of which it is the source */
	bool forgetting;         /* match_forget_step() has work left */
};

enum amqp_overflow { AMQP_OVERFLOW_DROP_HEAD, AMQP_OVERFLOW_REJECT_PUBLISH };

struct amqp_queue {
	/* one cache line: what a message on its way to a ready consumer touches */
	bool in_use;
	bool had_consumer, drain_queued; /* on b->drain: ready messages and a consumer that may take them */
	enum amqp_overflow overflow;
	uint32_t id;
	uint32_t ready_count; /* entries */
	/*
	 * The ring holds the consumers that may take a message; one found without credit is parked and costs nothing until
	 * the event that may free it (ack, qos, flow, writable). Ready messages + a non-empty ring => on b->drain.
	 */
	uint32_t consumer_next; /* consumer of the ring that is served next; AMQP_NONE: none */
	uint32_t generation;    /* grows when the slot is freed */
	uint32_t ready_first, ready_last;
	struct amqp_consumer *plain; /* alone in the ring, no-ack, on a queue that refuses nothing: there is nothing to choose */
	uint64_t published, delivered;
	uint64_t next_seq;
	/* the rest */
	uint64_t ready_bytes, unacked_bytes;
	uint32_t unacked_count;
	uint64_t max_length, max_length_bytes; /* UINT64_MAX: none */
	uint64_t acked, dropped, redelivered;
	uint32_t vhost_id, flags, name_hash_next;
	uint64_t owner_uid; /* exclusive */
	struct amqp_span name, vhost_name, args;
	void *block;
	uint32_t dest_first; /* bindings to it */
	uint32_t parked_first;
	uint32_t consumers_count;    /* ring and parked */
	uint32_t exclusive_consumer; /* AMQP_NONE */
	uint32_t drain_next;
	uint32_t requeue_hint; /* ready entry that was requeued last; AMQP_NONE when anything was taken since */
	bool unused_queued;    /* on b->unused: control is to be told that its last consumer went */
	uint8_t home;          /* worker; elsewhere than there a queue is a name and never has messages or consumers */
	uint32_t stamp;        /* of its name: a note that names its index means this queue */
	uint32_t unused_next;
} __attribute__((aligned(64)));

/*
 * An interned route: sorted distinct queue indexes b->route_queues[first .. first+count), and behind them, up to `total`, those of
 * other workers, with how far the worker is from ours above AMQP_ROUTE_SHIFT.
 */
struct amqp_route {
	uint32_t first, count, hash_next;
	uint32_t start; /* place of the queue here that is served first in this burst, see amqp_route_start() */
	uint64_t hash;
	uint32_t burst; /* b->bursts when it was moved on */
	uint32_t total;
	struct amqp_group *group; /* the same for the others to read; made when the first publish needs it */
};
#define AMQP_ROUTE_SHIFT 28u

/* ---------------------------------------------------------------- consumers, channels, connections */

struct amqp_consumer {
	/* what a delivery reads, constants of the subscription included; with a tag of up to 20 octets, one cache line */
	bool no_ack;
	bool parked;           /* on its queue's parked list instead of the ring */
	uint16_t prefix_bytes; /* frame head (7), class and method (4), consumer tag shortstr: all that is constant */
	uint32_t queue_next;   /* ring or parked list of the queue */
	uint32_t prefetch_max; /* 0: unlimited */
	uint32_t unacked_count;
	struct amqp_channel *ch;
	struct amqp_conn *conn;
	uint8_t prefix[7 + 4 + 256];
	/* the rest */
	bool in_use, exclusive;
	uint32_t queue, channel; /* indexes */
	uint32_t queue_prev;
	uint32_t chan_next, chan_prev; /* list of the channel */
	uint32_t tag_next;             /* chain of b->tag_hash */
	struct {                       /* of a consumer that stands for one of another worker */
		uint64_t handle, sent, sent_max, sent_bytes, passed_bytes;
		uint32_t worker;
	} remote;
} __attribute__((aligned(64)));
static inline struct amqp_span amqp_consumer_tag(const struct amqp_consumer *c)
{
	return (struct amqp_span){c->prefix + 12, c->prefix[11]};
}

struct amqp_unacked { /* one delivered entry; delivery tags grow along the ring */
	uint64_t tag;
	uint32_t entry;    /* AMQP_NONE: settled already, goes when it reaches the front */
	uint32_t consumer; /* or one of the two below */
};
#define AMQP_CONSUMER_GET  AMQP_NONE        /* fetched by basic.get: outside every prefetch */
#define AMQP_CONSUMER_GONE (AMQP_NONE - 1u) /* cancelled since; still counts against the channel's prefetch */

enum amqp_channel_state {
	AMQP_CH_FREE,
	AMQP_CH_OPEN,
	AMQP_CH_CLOSING /* we sent channel.close; all but close, close-ok is discarded */
};
enum amqp_content_state { AMQP_CONTENT_NONE, AMQP_CONTENT_HEADER, AMQP_CONTENT_BODY };

struct amqp_channel {
	/* one cache line: what a delivery touches */
	enum amqp_channel_state state;
	uint16_t number;
	bool confirm;
	bool active;               /* channel.flow of the client: false stops deliveries */
	uint32_t conn;             /* index */
	uint32_t prefetch_channel; /* basic.qos global=1: over the channel; 0 unlimited */
	uint64_t next_delivery_tag;
	uint64_t deliveries;
	/* unacknowledged deliveries: a ring from the pool */
	struct amqp_unacked *unacked;
	uint32_t unacked_cap, unacked_head, unacked_len; /* len counts settled ones that are not at the front yet */
	uint32_t unacked_count;                          /* not settled */
	uint32_t unacked_consumed;                       /* of these: by consumers, so under prefetch_channel */
	uint64_t settle_to;                              /* the tag up to which a method settles that is not through; 0: none */
	/* the rest */
	uint32_t consumers_first;
	uint32_t prefetch_default; /* for new consumers: basic.qos global=0 */
	/* publish being assembled */
	enum amqp_content_state content;
	uint32_t publish_exchange;   /* index; AMQP_NONE: it was not found, content is swallowed (channel is closing) */
	uint64_t publish_generation; /* b->fib_generation when it was looked up; also lets the next publish skip the look-up */
	bool publish_mandatory;
	struct amqp_msg *msg;
	uint32_t body_got;
	uint8_t publish_names[2 * 256]; /* exchange and routing key as shortstr, until the header came */
	uint16_t publish_names_bytes;
	/*
	 * The publish stalled in the middle of its route: queues less than route_from behind route_first, by index and round the
	 * end, have the message already. 0: none has.
	 */
	uint32_t route_first, route_from;
	bool route_rejected;
	uint32_t await_left; /* verdicts of other workers' queues that the publish waits for */
	uint64_t await;      /* 0: it does not wait */
	/* publisher confirms */
	uint64_t publish_seq;  /* of the last publish */
	uint64_t confirm_from; /* first sequence number not yet confirmed */
	bool confirm_queued;   /* on b->confirm list */
	uint32_t confirm_next;
	uint8_t last_queue[256]; /* shortstr: name of the queue declared last, for empty queue names */
	uint64_t publishes, acks;
} __attribute__((aligned(64)));
/* The front carves and frees channels; amqp_channel_init_back() and amqp_channel_fini_back() frame the fields above. */

enum amqp_conn_state {
	AMQP_CONN_FREE,
	AMQP_CONN_PROTOCOL,  /* waits for the protocol header */
	AMQP_CONN_START,     /* start sent */
	AMQP_CONN_SECURE,    /* LOGIN asked of control */
	AMQP_CONN_TUNE,      /* tune sent */
	AMQP_CONN_OPEN_WAIT, /* tune-ok came; waits for open */
	AMQP_CONN_RUNNING,
	AMQP_CONN_CLOSING, /* we sent close; all but close, close-ok is discarded */
	AMQP_CONN_CLOSED,  /* FIN queued; input is discarded */
	AMQP_CONN_PEER     /* none: it stands for the consumers of another worker */
};

struct amqp_conn {
	/* one cache line: what a delivery touches */
	enum amqp_conn_state state;
	uint32_t frame_max;
	bool reset_due; /* a reply found no room: reset at the next safe point by the front, see amqp_conn_reset_later() */
	/* A content header of so many octets was due that its frame-max forbids: closed with 501 by amqp_drain(), where nothing
	 * iterates. */
	uint32_t oversize_header_bytes;
	struct amqp_broker *b;
	uint64_t uid; /* generation << 32 | index */
	void *io;
	uint64_t last_send_ns, send_oct, send_cnt;
	/* the rest */
	/* input */
	uint8_t *join; /* a frame split over packets; from the pool, only while needed */
	uint32_t join_len, join_cap, join_need;
	uint32_t channel_max, heartbeat_s;
	/* A method that waits for control: its payload, held, is dispatched again when the ring had no room or control came back.
	 */
	uint8_t *held;
	uint32_t held_len;
	uint16_t held_channel;
	uint64_t wait_token, wait_since_ns;
	bool waiting;            /* an answer of control is awaited: input is paused */
	bool request_unsent;     /* the ring had no room, or control is away: asked again */
	uint16_t op_failed_code; /* an operation with our token failed in the FIB */
	bool stalled;            /* input is paused for lack of message memory or because of unsent bytes; retried */
	bool unfinished;         /* the method in hand did a part and stalls only to let others have a turn */
	bool eof;
	uint32_t parked_count; /* parked consumers of all its channels */
	/* channels: index by number, grown from the pool */
	uint32_t *channel_by_number; /* channel index, AMQP_NONE free */
	uint32_t channel_table_len, channels_count;
	uint32_t vhost_id;
	/* names in one pool block each; client properties are kept as their wire bytes */
	struct amqp_span user, vhost, client_properties;
	void *user_block, *vhost_block, *properties_block;
	bool cap_auth_failure_close, cap_cancel_notify, cap_blocked, cap_nack, cap_confirms;
	char peer_text[48];
	uint16_t peer_port, local_port;
	uint64_t accepted_ns, last_recv_ns, connected_at_s, close_deadline_ns;
	uint64_t recv_oct, recv_cnt;

	/* ---- added by the front ---- */
	bool in_input; /* amqp_conn_input() is on the stack: its loop goes on by itself */
	bool known;    /* control has heard of it: it is owed a CONN_GONE */
	bool settled;  /* channels are gone and CONN_GONE was put or queued */
	bool gone_pending, fin_queued;
	uint8_t head[8]; /* frame head or protocol header, gathered */
	uint8_t head_len, parse, frame_type;
	bool body_kept; /* the last octet of a body frame waits in body_octet for the frame-end octet */
	uint8_t body_octet;
	uint16_t frame_channel;
	uint32_t frame_left;      /* octets of the payload not yet handed over */
	uint8_t small[96];        /* joins short frames: an ack gets through when the pool is exhausted */
	struct amqp_span current; /* payload of the method in dispatch */
	uint16_t current_channel;
	uint32_t wait_count;         /* queue.delete: messages that were ready when control was asked */
	uint64_t unsent_checked_oct; /* send_oct when unsent bytes were last looked at */
	/* what another worker is asked while the method is held; the answer while it runs again */
	bool asks_peer, ask_unsent, ask_exclusive;
	uint8_t ask_kind, ask_worker;
	uint32_t ask_queue, ask_stamp;
	uint64_t ask_handle;
	struct amqp_answer *answer;
} __attribute__((aligned(64)));

/* ---------------------------------------------------------------- the broker */

/* Indexes in the order in which they came, each at most once: work that is tried again later. */
struct amqp_idx_ring {
	uint32_t *slot;
	uint8_t *queued; /* by index */
	uint32_t head, count, cap;
};

/* A FIB operation that failed, until control could be told. */
struct amqp_op_failure {
	uint64_t token, conn_uid;
	uint32_t id, kind;
	uint16_t code;
	const char *why;
};
#define AMQP_OP_FAILURES_MAX 256u

struct amqp_broker {
	struct amqp_limits limits;
	struct amqp_ops ops;
	void *ctx;
	uint64_t now_ns, wall_s, next_tick_ns;
	bool control_attached, sample_next, dumping;
	uint64_t fib_generation; /* grows with every change that can alter a route */
	struct amqp_pool *pool;
	struct match_pool *match;

	/*
	 * Pools: arrays with free lists; *_used is the high-water index for rows. amqp_front_init() carves conns and channels
	 * with their links and generations, amqp_back_init() all the rest, the message pool and the matcher's included.
	 */
	struct amqp_conn *conns;
	struct amqp_channel *channels;
	struct amqp_consumer *consumers;
	struct amqp_exchange *exchanges; /* indexed by control's id */
	struct amqp_queue *queues;       /* indexed by control's id */
	struct amqp_binding *bindings;   /* indexed by control's id */
	struct amqp_rule *rules;
	struct amqp_entry *entries;
	uint32_t conns_free, channels_free, consumers_free, rules_free, entries_free; /* heads; links live in the free object */
	uint32_t *conns_link, *channels_link, *consumers_link;                        /* free-list links */
	uint32_t conns_used, channels_used, consumers_used, exchanges_used, queues_used, bindings_used;
	uint32_t conns_count, channels_count, consumers_count, exchanges_count, queues_count, bindings_count, entries_count;
	uint32_t *conn_generation;
	uint64_t messages_count;

	/* name -> index, keyed by (vhost, name); power-of-two heads */
	uint32_t *exchange_hash, *queue_hash, *rule_hash;
	uint32_t exchange_hash_mask, queue_hash_mask, rule_hash_mask;
	uint32_t *tag_hash; /* (channel, consumer tag) -> consumer */
	uint32_t tag_hash_mask;
	uint64_t tags_made; /* by us, for consumers that named none */

	/* routes */
	struct amqp_route *routes;
	uint32_t *route_queues, *route_hash;
	uint32_t routes_count, route_queues_count, route_hash_mask;
	uint32_t bursts;                /* since the start; wraps */
	uint32_t routes_begun;          /* routes interned; wraps */
	struct amqp_route_cache *cache; /* route.c */
	uint32_t cache_mask;
	uint32_t *scratch_queues, *scratch_rules, *scratch_exchanges; /* for one routing; sized by limits */
	uint64_t *queue_mark;                                         /* generation marks: a queue is taken once a route */
	uint64_t *exchange_mark;                                      /* the same for exchanges: a cycle ends */
	uint64_t mark;
	uint8_t *scratch_subject; /* canonical headers of one message */
	size_t scratch_subject_bytes;

	/* work lists, by index */
	uint32_t drain_first; /* queues with ready messages and maybe a consumer */
	uint32_t drain_last;
	uint32_t unused_first;                /* auto-delete queues whose last consumer went, until control was told */
	uint32_t garbage_first, garbage_last; /* entries of deleted and purged queues, freed in small steps */
	uint32_t garbage_count;
	struct amqp_unacked *given_up_first, *given_up_last; /* rings of channels that are gone, requeued in small steps */
	uint32_t given_up_count;                             /* entries in them */
	uint32_t oversize_count;                             /* connections with oversize_header_bytes set */
	uint32_t forget_count, forget_idx;                   /* exchanges with `forgetting` set */
	uint32_t confirm_first;                              /* channels with confirms to send */
	uint32_t dump_phase, dump_idx;
	uint32_t renew_idx; /* the queue that amqp_renew_step() looks at next, while `renewing` */
	bool renewing;
	uint32_t timer_idx;           /* connection that the timer step looks at next */
	struct match_db **dropped_db; /* for amqp_dropped_db() */
	uint32_t dropped_db_count, dropped_db_max;
	uint64_t message_refs, lent_refs; /* over all messages; of these, held by the transport until amqp_release() */

	/* ---- added by the front ---- */
	uint32_t token_seq;
	uint64_t attached_ns;
	bool resync;   /* control came back: requests wait until the dump is told */
	bool flushing; /* older requests are being put: amqp_request() lets them pass */
	uint64_t timer_ns;
	uint64_t stalled_again_ns;  /* the next look at stalled connections, once a round of them helped nobody */
	uint32_t stalled_fruitless; /* looked at in a row that could not go on */
	struct amqp_idx_ring stalled, asking, gone, resets; /* connections */
	struct amqp_idx_ring unasked;                       /* connections whose question found a full ring */
	struct amqp_op_failure *op_failures;
	uint32_t op_failures_head, op_failures_count;

	/* ---- other workers: peer.h ---- */
	uint32_t peers_count;    /* workers of this process; below 2: alone */
	struct amqp_peer *peers; /* by worker; the own one is not used */
	uint64_t peer_refs;      /* references to messages that other workers hold */
	uint64_t out_count;      /* entries that other workers' consumers have */
	uint64_t await_seq;
	uint64_t queues_gone; /* grows when a queue of another worker is deleted */
	struct amqp_mirror *mirrors;
	uint32_t mirrors_free, mirrors_used;
	/* Entries of mirrors are b->entries[entries_max ..): publishes cannot use them up. Where each came from is kept apart. */
	uint64_t *mirror_origin;
	uint32_t mirror_entries_free, mirror_entries_count;
	uint32_t *scratch_take; /* queues of a publish that is taken from a ring */

	uint64_t counters[AMQP_CNT_COUNT];
};
#define AMQP_COUNT(b, name)      ((b)->counters[AMQP_CNT_##name]++)
#define AMQP_COUNT_N(b, name, n) ((b)->counters[AMQP_CNT_##name] += (n))

/* ---------------------------------------------------------------- seams */

/* What a method or content handler says to the frame loop. */
enum amqp_verdict {
	AMQP_DONE,
	AMQP_STALL, /* no memory or room now: nothing was changed, the same frame is to be handed over again later */
	AMQP_WAIT,  /* control was asked: the connection waits (declare.c) */
	AMQP_GONE   /* the connection was aborted or closed: stop reading */
};

/* Reader over a method's arguments; after the last read check r->bad. */
struct amqp_reader {
	const uint8_t *p, *end;
	bool bad;
};
/* Big-endian readers and writers are inline in wire.h. */

/* send.c (front): every frame but deliveries goes out through these. They keep last_send_ns, send_oct, send_cnt. */
struct amqp_writer { /* one method frame, built in a stack buffer, then sent whole */
	uint8_t buf[1200];
	uint32_t len;
	bool overflow;
};
void amqp_method_begin(struct amqp_writer *w, uint16_t channel, uint16_t class_id, uint16_t method_id);
void amqp_put_u8(struct amqp_writer *w, uint8_t v);
void amqp_put_u16(struct amqp_writer *w, uint16_t v);
void amqp_put_u32(struct amqp_writer *w, uint32_t v);
void amqp_put_u64(struct amqp_writer *w, uint64_t v);
void amqp_put_shortstr(struct amqp_writer *w, const void *s, size_t len); /* cut at 255 */
void amqp_method_end(struct amqp_writer *w);
bool amqp_send_method(struct amqp_conn *c, struct amqp_writer *w); /* ends it, sends it; false: the transport had no block */

/*
 * The connection cannot go on because a reply found no room: it is reset at the next safe point of the front, its channels stay
 * valid until then. amqp_send_method() does this by itself when it fails; callers return AMQP_GONE.
 */
void amqp_conn_reset_later(struct amqp_conn *c);

/*
 * channel.c / connection.c (front). They log nothing; text is printf-like, cut at 255 bytes. The code's name and " - " are
 * put in front: pass the sentence alone ("no exchange 'x' in vhost '/'"). amqp_channel_error() runs amqp_channel_fini_back()
 * on the channel, amqp_conn_error() on all of them: return its verdict at once and touch the channel no more.
 * By the time amqp_on_*() is called the front has checked the arguments against methods.def: complete, nothing left over,
 * short strings are UTF-8, tables pass amqp_table_check(). Body frames of more octets than the header announced are refused.
 */
enum amqp_verdict amqp_channel_error(struct amqp_conn *c, uint16_t channel_number, uint16_t code, uint16_t class_id,
				     uint16_t method_id, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
enum amqp_verdict amqp_conn_error(struct amqp_conn *c, uint16_t code, uint16_t class_id, uint16_t method_id, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* By the level that reply_codes.def gives to the code. */
enum amqp_verdict amqp_reply_error(struct amqp_conn *c, uint16_t channel_number, uint16_t code, uint16_t class_id,
				   uint16_t method_id, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
static inline struct amqp_channel *amqp_channel_find(struct amqp_conn *c, uint16_t number)
{
	uint32_t idx = number < c->channel_table_len ? c->channel_by_number[number] : AMQP_NONE;

	return idx != AMQP_NONE ? &c->b->channels[idx] : NULL;
}
/*
 * Resets the transport and forgets the connection with its channels. Not while anything iterates over consumers:
 * amqp_conn_reset_later() then. On a connection whose input is being handled it only marks it: amqp_conn_input() resets it on its
 * way out.
 */
void amqp_conn_abort(struct amqp_conn *c);
void amqp_conn_stall(
	struct amqp_conn *c); /* puts it on b->stalled; amqp_burst_end() and amqp_tick() resume it when there is room */

/* basic.c, consumer.c (back), called by the front's dispatch with the channel open and the arguments unread. */
enum amqp_verdict amqp_on_basic(struct amqp_conn *c, struct amqp_channel *ch, uint16_t method_id, struct amqp_reader *args);
enum amqp_verdict amqp_on_queue_purge(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args);
enum amqp_verdict amqp_on_confirm_select(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_reader *args);
enum amqp_verdict amqp_on_content_header(struct amqp_conn *c, struct amqp_channel *ch, struct amqp_span payload);
/* Body bytes as they come, any cut: the frame loop has checked the frame's head and hands the payload over piece by piece. */
enum amqp_verdict amqp_on_content_body(struct amqp_conn *c, struct amqp_channel *ch, const uint8_t *bytes, uint32_t len);
/*
 * whole.c: a publish whose frames lie at `p` whole, and with which everything is right: published. False: nothing was looked at,
 * and nothing changed. STALL: all before the body's first octet is used, and c->frame_* say what is left.
 */
bool amqp_publish_whole(struct amqp_conn *c, const uint8_t *p, size_t avail, size_t *used, enum amqp_verdict *verdict);
void amqp_channel_init_back(struct amqp_channel *ch);
/* Requeues what is unacknowledged, cancels consumers, drops the publish in assembly, frees the ring. Channel or connection goes. */
void amqp_channel_fini_back(struct amqp_broker *b, struct amqp_channel *ch);
void amqp_channel_flow(struct amqp_broker *b, struct amqp_channel *ch, bool active);
void amqp_confirms_flush(struct amqp_broker *b);                 /* from amqp_burst_end */
void amqp_drain(struct amqp_broker *b, uint32_t budget);         /* queues on b->drain get delivered; from burst end and tick */
void amqp_conn_kick(struct amqp_broker *b, struct amqp_conn *c); /* became writable: its consumers' queues go on b->drain */

/* fib.c (back) */
bool amqp_fib_apply(struct amqp_broker *b, const struct amqp_record *op, uint16_t *code,
		    const char **why);                       /* all OP_* but REPLY, CONN_CLOSE, DUMP */
bool amqp_dump_step(struct amqp_broker *b, uint32_t budget); /* true: more to do */
/* Notices that died with the former control are given again: it cannot see from a dump that a queue once had consumers. */
void amqp_renew_step(struct amqp_broker *b, uint32_t budget);
struct amqp_queue *amqp_queue_find(struct amqp_broker *b, uint32_t vhost_id, struct amqp_span name);
struct amqp_exchange *amqp_exchange_find(struct amqp_broker *b, uint32_t vhost_id, struct amqp_span name);
uint32_t amqp_queue_purge(struct amqp_broker *b, struct amqp_queue *q); /* ready messages dropped */
/* If-unused / if-empty / exclusive checks the worker owes before it asks control to delete. 0, or a reply code. */
/*
 * Who makes what: the front b->conns, b->channels, their links and generations (index 0 .. max-1, AMQP_NONE ends a list) and
 * its rings; the back everything else, b->pool included. Front first, then back; mem is zeroed and 64-byte aligned for both.
 */
size_t amqp_back_bytes(const struct amqp_limits *l);
bool amqp_back_init(struct amqp_broker *b, void *mem, size_t bytes, const char **err);
size_t amqp_front_bytes(const struct amqp_limits *l);
bool amqp_front_init(struct amqp_broker *b, void *mem, size_t bytes, const char **err);
const char *amqp_back_check(const struct amqp_broker *b);
const char *amqp_front_check(const struct amqp_broker *b);

/* route.c (back): the one file here that includes matcher.h. Valid until the next call of amqp_route. */
const struct amqp_route *amqp_route(struct amqp_broker *b, uint32_t exchange_idx, struct amqp_span key, const struct amqp_msg *m);

static inline uint32_t amqp_conn_idx(const struct amqp_conn *c)
{
	return (uint32_t)c->uid;
}

#endif
