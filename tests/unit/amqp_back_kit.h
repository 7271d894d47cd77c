/*
 * amqp_back_kit.h - a broker on a transport whose room the test decides, with definitions given straight to the FIB.
 *
 * Owns: struct bk and its connections, which are past connection.open from the start.
 * Core: test.
 * Spec: AMQP 0-9-1, seen from clients.
 */
#ifndef TICKWIRE_TESTS_AMQP_BACK_KIT_H
#define TICKWIRE_TESTS_AMQP_BACK_KIT_H

#include "amqp/back.h"

#define BK_UNSENT_HIGH 65536u
#define BK_CONNS       64u
#define BK_REFS        65536u

struct bk_ref { /* lent to the transport: must not change until it is released */
	void *owner;
	const void *data;
	uint8_t *copy;
	size_t len;
};

struct bk_conn {
	struct bk *k;
	struct amqp_conn *c; /* NULL: gone */
	uint8_t *out;
	size_t len, cap, read;
	uint8_t *in; /* not consumed yet */
	size_t in_len;
	size_t unsent;       /* above BK_UNSENT_HIGH it is not writable */
	bool count_unsent;   /* all bytes not read by the test are unsent, too */
	int64_t writes_left; /* reserves, sends and send_refs that still succeed; negative: all */
	uint32_t fail_nth;   /* that write fails, those behind it succeed; 0: none */
	bool blocked, shut, aborted;
	uint32_t calls;       /* of the transport, in which the broker asked about this connection or wrote to it */
	uint64_t first_write; /* k->writes at its first write since this was made 0 */
	bool gathers;         /* what is put in is handed over later, together */
};

struct bk {
	struct amqp_broker *b;
	struct amqp_limits limits;
	void *mem;
	uint64_t now_ns;
	struct bk_conn conn[BK_CONNS];
	struct bk_ref *refs;
	uint32_t refs_count;
	bool control_full; /* requests are refused */
	struct amqp_record requests[8192];
	uint32_t requests_count;
	bool keep_records; /* requests' texts are copied, for the dump */
	uint32_t stages[3], publishes;
	uint64_t writes; /* to any connection */
	size_t baseline_bytes;
	char text[1 << 18];
};

void bk_limits(struct amqp_limits *l); /* small ones */
void bk_init(struct bk *k, const struct amqp_limits *l);
/* Closes every connection, resets the FIB, and asserts that all pools are at their baseline. */
void bk_fini(struct bk *k);
void bk_check(struct bk *k); /* amqp_check() says nothing */

/* ---- definitions; each asserts that the FIB takes it ---- */
void bk_exchange(struct bk *k, uint32_t id, enum amqp_exchange_type type, const char *name);
void bk_default_exchange(struct bk *k, uint32_t id);
void bk_queue(struct bk *k, uint32_t id, const char *name);
void bk_queue_args(struct bk *k, uint32_t id, const char *name, uint32_t flags, struct amqp_span args);
void bk_bind(struct bk *k, uint32_t id, uint32_t exchange, uint32_t queue, uint32_t rule, const char *key);
void bk_bind_args(struct bk *k, uint32_t id, uint32_t exchange, uint32_t dest, uint32_t flags, uint32_t rule, const char *key,
		  struct amqp_span args);
bool bk_apply(struct bk *k, const struct amqp_record *rec);
void bk_del(struct bk *k, uint16_t kind, uint32_t id);
struct amqp_span bk_str(const char *s);
/* A table of one integer, or of one text, in a static buffer; up to 8 at a time. */
struct amqp_span bk_int_arg(const char *name, int32_t v);
struct amqp_span bk_int_text_args(const char *name, int32_t v, const char *name2, const char *text);

/* ---- connections ---- */
struct bk_conn *bk_connect(struct bk *k, uint16_t channels); /* channels 1..n are open */
void bk_disconnect(struct bk_conn *c);                       /* the transport breaks */
/* A method frame. Arguments as methods.def lists them: o h l b as unsigned, q as uint64_t, s as text, t as struct amqp_span. */
void bk_say(struct bk_conn *c, uint16_t channel, uint16_t class_id, unsigned method_id, ...);
void bk_consume(struct bk_conn *c, uint16_t channel, const char *queue, const char *tag, bool no_ack);
void bk_input(struct bk_conn *c, const void *bytes, size_t len);
void bk_frame(struct bk_conn *c, uint8_t type, uint16_t channel, const void *payload, size_t len);
void bk_publish(struct bk_conn *c, uint16_t channel, const char *exchange, const char *key, const char *body);
void bk_publish_long(struct bk_conn *c, uint16_t channel, const char *exchange, const char *key, const void *body, size_t len);
/* `props` are the content header's bytes from the flags on. */
void bk_publish_props(struct bk_conn *c, uint16_t channel, const char *exchange, const char *key, bool mandatory, const void *props,
		      size_t props_len, const void *body, size_t len);
void bk_publish_mandatory(struct bk_conn *c, uint16_t channel, const char *exchange, const char *key, const char *body);
void bk_unsent(struct bk_conn *c, size_t bytes); /* what the transport says from now on; falling below the mark is told */
void bk_run(struct bk *k);                       /* burst ends and ticks, some rounds */
void bk_release(struct bk *k, uint32_t count);   /* the oldest references */
/* What came since the last call, a line a frame: "1 basic.deliver(t, 1, 0, x, k)"; bodies as "1 body(N, first 24 octets)". */
const char *bk_read(struct bk_conn *c);

#define bk_assert_read(c, text)                                                                                                    \
	do {                                                                                                                       \
		bk_run((c)->k);                                                                                                    \
		assert_string_equal(bk_read(c), text);                                                                             \
	} while (0)

#endif
