/*
 * matcher.h - binding patterns to rule ids: exact hash, delta overlay, Hyperscan databases.
 *
 * Owns: a `match_pool` per worker with every set's memory, and compiled images made by control.
 * Core: `match_set_*`, `match_find` on the worker that owns the pool, without allocation; `match_compile`, `match_db_open`
 * and scratch growth off the worker.
 * Spec: AMQP 0-9-1 section 3.1.3 (exchange types), RabbitMQ's headers semantics (matcher/README.md).
 *
 * A *rule* is one distinct pattern of one exchange: a routing key (EXACT), a topic pattern (TOPIC) or a canonical headers
 * rule (HEADERS). Its id is given by control, unique in the exchange for as long as any live image names it. Several
 * bindings share one rule. What a rule leads to is the caller's business.
 */
#ifndef TICKWIRE_MATCHER_H
#define TICKWIRE_MATCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum match_kind { MATCH_EXACT, MATCH_TOPIC, MATCH_HEADERS };

#define MATCH_RULE_ITEMS_MAX 1024u /* items of one headers rule */

struct match_pool;
struct match_set;
struct match_db;      /* an opened image, usable by one or more workers */
struct match_scratch; /* Hyperscan scratch that suits every image it was grown for */

struct match_limits {
	uint32_t sets_max;
	uint32_t rules_max;     /* over all sets */
	uint32_t nodes_max;     /* trie nodes over all sets */
	uint32_t key_bytes_max; /* arena for keys and header rules */
	uint8_t secret[16];     /* hash key: keys are chosen by clients */
};

size_t match_pool_bytes(const struct match_limits *limits);
struct match_pool *match_pool_init(void *mem, size_t mem_bytes, const struct match_limits *limits);

/* Errors: NULL when no set is free. */
struct match_set *match_set_open(struct match_pool *p, enum match_kind kind);
/* Frees every rule of the set; a database that it had is returned, for the caller to close off the worker. */
struct match_db *match_set_close(struct match_set *s);

/*
 * Adds a rule to the overlay (EXACT: to the hash), live at once. `key`: routing key, topic pattern or canonical rule.
 * A TOPIC pattern without wildcards goes to the exact hash of the set.
 * An id that was removed, or that only the present database knows (it was compiled before the rule arrived here), may be added:
 * such a rule is the same one, for ids are not given anew while an image names them.
 * Errors: -1 pool full, -2 malformed canonical rule, -3 the id is live in hash or overlay. 0 is success.
 */
int match_rule_add(struct match_set *s, uint32_t rule_id, const uint8_t *key, size_t len);
/* Removes the rule from overlay, hash and (as a tombstone) from the database's results. False: not there. */
bool match_rule_remove(struct match_set *s, uint32_t rule_id);

/*
 * All rules that match `subject` (routing key; HEADERS: canonical subject), each id once, in no order. Returns the count;
 * when it is above `max` only `max` were written and the caller must retry with more room.
 */
size_t match_find(struct match_set *s, const uint8_t *subject, size_t len, uint32_t *ids, size_t max);

/*
 * Takes a database over at a burst boundary; returns the one it replaces, or NULL. Rules that the database covers are
 * then forgotten from the overlay by match_forget_step(), `budget` rules a call; both may report a rule meanwhile, once.
 * The scratch must fit the database already. Errors: returns `db` itself, nothing changed, when it is of another kind or
 * leaves too few records for tombstones (finish match_forget_step() and try again; matcher/README.md).
 */
struct match_db *match_set_take_db(struct match_set *s, struct match_db *db);
bool match_forget_step(struct match_set *s, uint32_t budget); /* true: more to do */
/* The scratch used by match_find(); returns the former one. */
struct match_scratch *match_pool_set_scratch(struct match_pool *p, struct match_scratch *scratch);

struct match_set_info {
	uint32_t rules, overlay_rules, exact_rules, db_rules;
	uint64_t db_generation;
	size_t db_bytes;
	uint64_t scan_failures; /* scans that Hyperscan broke off with an error: their results may lack rules */
};
void match_set_info(const struct match_set *s, struct match_set_info *out);

/* ---- images: made by control, opened by the dataplane, off the worker ---- */

struct match_rule {
	uint32_t id;
	const uint8_t *key;
	size_t len;
};

/*
 * Compiles rules (TOPIC: also those without wildcards are accepted; HEADERS: canonical rules) into one position-
 * independent image of *bytes_out bytes (malloc'd, 64-byte aligned, caller frees). Errors: NULL and a sentence in `err`.
 */
uint8_t *match_compile(enum match_kind kind, const struct match_rule *rules, size_t count, uint64_t generation, size_t *bytes_out,
		       char *err, size_t err_bytes);
/*
 * Opens an image at a 64-byte aligned address that stays mapped (read-only is enough) until match_db_close(). Every offset,
 * count and magic is checked, the bytes are not trusted. Errors: NULL and a sentence.
 */
struct match_db *match_db_open(const uint8_t *image, size_t bytes, char *err, size_t err_bytes);
void match_db_close(struct match_db *db);
uint64_t match_db_generation(const struct match_db *db);
size_t match_db_rule_ids(const struct match_db *db, const uint32_t **ids); /* sorted */
/* Scratch fit for `db` and for all that `old` was fit for; `old` stays valid and is the caller's to free once unused. */
struct match_scratch *match_scratch_grow(const struct match_scratch *old, const struct match_db *db);
void match_scratch_free(struct match_scratch *s);

/* ---- canonical headers: rules (from binding arguments) and subjects (from message headers) ---- */

enum match_value_kind {
	MATCH_VALUE_VOID,   /* rule: the name is present; subject: a void value */
	MATCH_VALUE_BOOL,   /* u: 0 or 1 */
	MATCH_VALUE_INT,    /* i */
	MATCH_VALUE_DOUBLE, /* d; equal to an INT of the same value */
	MATCH_VALUE_BYTES,  /* data: short or long string (text) */
	MATCH_VALUE_OTHER   /* data: wire bytes of a table, array, time stamp or decimal, `tag` its wire type octet */
};

struct match_value {
	enum match_value_kind kind;
	uint8_t tag;
	int64_t i;
	double d;
	const uint8_t *data;
	size_t len;
};

enum match_headers_mode { MATCH_ALL, MATCH_ANY }; /* -with-x is the caller's: it decides which names it puts */

/* A bounded builder over the caller's buffer. put() returns false on overflow and the result is then unusable. */
struct match_headers {
	uint8_t *buf;
	size_t len, cap;
	uint32_t count;
	bool overflow;
};
/* Starts a rule (mode) or a subject. Rules and subjects share the item encoding; a rule has a one-byte mode before it. */
void match_headers_rule_begin(struct match_headers *h, uint8_t *buf, size_t cap, enum match_headers_mode mode);
void match_headers_subject_begin(struct match_headers *h, uint8_t *buf, size_t cap);
bool match_headers_put(struct match_headers *h, const uint8_t *name, size_t name_len, const struct match_value *v);
/* Sorts a rule's items so that equal rules are equal bytes. Returns the final length, 0 on overflow. */
size_t match_headers_end(struct match_headers *h);

/* ---- the naive oracle: for tests, and for nothing else ---- */
bool match_oracle(enum match_kind kind, const uint8_t *key, size_t key_len, const uint8_t *subject, size_t subject_len);

#endif
