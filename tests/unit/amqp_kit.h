/*
 * amqp_kit.h - a broker with a transport and a control of its own, for tests and fuzzers: bytes in, bytes out, virtual time.
 *
 * Owns: struct kit; everything a test touches hangs off it.
 * Core: test.
 * Spec: AMQP 0-9-1, seen from the client.
 */
#ifndef TICKWIRE_TESTS_AMQP_KIT_H
#define TICKWIRE_TESTS_AMQP_KIT_H

#include "amqp/front.h"

#define KIT_CLIENTS  8u
#define KIT_REQUESTS 256u
#define KIT_OBJECTS  32u
#define KIT_SECOND   1000000000ull

struct kit_bytes { /* grows */
	uint8_t *p;
	size_t len, cap;
};
void kit_raw(struct kit_bytes *k, const void *bytes, size_t len);
/* A frame of any type, with any end octet. */
void kit_frame(struct kit_bytes *k, uint8_t type, uint16_t channel, const void *payload, size_t len, uint8_t end);
/*
 * A method frame. Arguments as methods.def lists them: o h l b as int (unsigned), q as uint64_t, s as const char *, S and t as
 * struct amqp_span (a table without its length).
 */
void kit_method(struct kit_bytes *k, uint16_t channel, uint32_t key, ...);
/* A publish: method, content header without properties, body in frames of at most `chunk`. */
void kit_publish(struct kit_bytes *k, uint16_t channel, const char *exchange, const char *key, const void *body, size_t len,
		 size_t chunk);
void kit_bytes_free(struct kit_bytes *k);
#define KIT_EMPTY ((struct amqp_span){NULL, 0})

struct kit_client {
	struct kit *k;
	struct amqp_conn *c;  /* NULL: the broker or the transport let go of it */
	struct kit_bytes out; /* from the broker */
	size_t out_read;      /* of these seen by kit_read() */
	struct kit_bytes in;  /* given to the broker and not consumed */
	bool blocked;         /* the broker left bytes: it gets no more until it says resume */
	bool eof_due;
	bool fin, rst;  /* of the broker */
	bool no_room;   /* the transport takes nothing */
	bool over_mark; /* ops->writable says no */
	bool admitted;
	uint32_t resumes;
};

struct kit_object { /* of control: an exchange or a queue */
	bool in_use;
	char name[256], type[16];
	uint32_t flags;
	uint64_t owner;
};
struct kit_binding {
	bool in_use, to_exchange;
	uint32_t source, dest;
	char key[256];
};
struct kit_request {
	struct amqp_record rec;
	uint8_t *bytes; /* what its spans point to */
};

struct kit {
	struct amqp_broker *b;
	struct amqp_limits limits;
	void *mem;
	uint64_t now_ns;
	struct kit_client client[KIT_CLIENTS];
	/* control */
	bool away;        /* requests are refused */
	bool silent;      /* requests are taken, but answered only by kit_answer() */
	bool synchronous; /* the answer comes out of the request itself */
	bool bad_op;      /* the next queue is one that the worker has to refuse */
	uint32_t requests_count, names_made;
	uint64_t requests_seen[AMQP_OP_EXCHANGE_ADD];
	struct kit_request requests[KIT_REQUESTS];
	struct kit_object exchange[KIT_OBJECTS], queue[KIT_OBJECTS];
	struct kit_binding binding[KIT_OBJECTS];
	/* references that the transport holds */
	void *owners[1024];
	uint32_t owners_count;
	size_t pool_baseline;
	char text[65536];
};

void kit_limits(struct amqp_limits *l);
/* A broker by these limits (NULL: kit_limits()), with a control attached that has told the exchanges "" and amq.*. */
void kit_init(struct kit *k, const struct amqp_limits *l);
/* NULL, or what was not given back: every test ends with it. Closes what is open. */
const char *kit_fini(struct kit *k);

/* A transport is accepted. NULL: refused. */
struct kit_client *kit_accept(struct kit *k);
/* A client past connection.open-ok, its transcript read. Channels 1..n are open. */
struct kit_client *kit_login(struct kit *k, uint16_t channels);
void kit_handshake(struct kit_bytes *k); /* protocol header to connection.open, as one client's bytes */

/* Bytes to the broker, then everything that follows from them (kit_run). */
void kit_send(struct kit_client *cl, const void *bytes, size_t len);
void kit_say(struct kit_client *cl, uint16_t channel, uint32_t key, ...);
void kit_feed(struct kit_client *cl, const void *bytes, size_t len); /* without kit_run */
void kit_eof(struct kit_client *cl);
void kit_close(struct kit_client *cl); /* the transport breaks */
/* Answers of control, burst ends and ticks until nothing happens any more; time stands still. */
void kit_run(struct kit *k);
/* Time passes in steps of 50 ms. */
void kit_pass(struct kit *k, uint64_t ns);
bool kit_answer(struct kit *k); /* the oldest request; false: there is none */
void kit_drop_requests(struct kit *k);
void kit_control_lost(struct kit *k); /* control dies: requests are refused */
void kit_control_back(struct kit *k); /* and returns with its definitions, asking for the dump */
void kit_release_refs(struct kit *k); /* the transport gives back what it was lent */

/*
 * What the broker sent since the last call, a line a frame: "1 queue.declare_ok(q, 0, 0)", "1 header(60, 5)", "1 body(hello)",
 * "heartbeat"; "FIN" and "RST" when they came. Valid until the next call.
 */
const char *kit_read(struct kit_client *cl);

#endif
