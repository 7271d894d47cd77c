/*
 * compile.c - from rules to one position-independent image.
 *
 * Owns: the translation of topic patterns to regular expressions and of headers predicates to literals.
 * Core: control, off its loop if it can: a thousand patterns take about a second (matcher/README.md).
 * Spec: matcher/README.md, "Image"; needs Hyperscan's compiler, so the dataplane does not link this file.
 */
#include <assert.h>
#include <hs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "matcher/headers.h"
#include "matcher/image.h"
#include "matcher/topic.h"

#define LITERAL_MAX    256u /* bytes of a predicate that go to Hyperscan; the rest is compared behind a hit */
#define EXPRESSION_MAX 4096u
#define REFUSALS_MAX   16u /* expressions that Hyperscan may refuse before we give up */
#define RULE_DROPPED   UINT32_MAX
#define SCAN_FLAGS     (HS_FLAG_DOTALL | HS_FLAG_SINGLEMATCH | HS_FLAG_ALLOWEMPTY)
#define COUNT_MAX      (1u << 24)

enum rule_class { CLASS_SCANNED, CLASS_ALWAYS, CLASS_EMPTY };

/*
 * One pattern as one rule asks for it: TOPIC: the whole pattern in normal form; HEADERS: the bytes of one predicate. Pieces
 * of equal bytes become one Hyperscan pattern, and every piece matches itself as a subject.
 */
struct piece {
	uint8_t *bytes;
	size_t len;
	uint32_t rule;
};

struct compiler {
	enum match_kind kind;
	uint64_t generation;
	struct match_rule *rules; /* sorted by id */
	uint32_t *needs, *index;  /* index: place in the image, or RULE_DROPPED */
	uint8_t *classes;
	uint32_t rule_count;
	struct piece *pieces;
	size_t piece_count, piece_cap;
	/* of one attempt */
	char **expressions;
	unsigned int *ids, *flags;
	struct match_image_pattern *patterns;
	uint32_t *refs;
	const struct piece **firsts; /* the first piece of each pattern */
	uint32_t pattern_count, ref_count, tail_bytes;
	hs_database_t *hs;
	char *err;
	size_t err_bytes;
};

static bool refuse(struct compiler *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(struct compiler *c, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (c->err && c->err_bytes)
		vsnprintf(c->err, c->err_bytes, format, ap);
	va_end(ap);
	return false;
}

static bool piece_add(struct compiler *c, uint32_t rule, const void *bytes, size_t len)
{
	struct piece *more;

	if (c->piece_count == c->piece_cap) {
		size_t cap = c->piece_cap ? 2 * c->piece_cap : 64;

		more = realloc(c->pieces, cap * sizeof(*more));
		if (!more)
			return refuse(c, "There is no memory for %zu patterns.", cap);
		c->pieces = more;
		c->piece_cap = cap;
	}
	c->pieces[c->piece_count].bytes = malloc(len);
	if (!c->pieces[c->piece_count].bytes)
		return refuse(c, "There is no memory for a pattern of %zu bytes.", len);
	memcpy(c->pieces[c->piece_count].bytes, bytes, len);
	c->pieces[c->piece_count].len = len;
	c->pieces[c->piece_count].rule = rule;
	c->piece_count++;
	return true;
}

/* Joins the tokens with dots again; a word is never "*" or "#", so the result reads as what it came from. */
static size_t normal_form(const uint8_t *pattern, size_t len, uint8_t *out)
{
	struct match_pattern t;
	const uint8_t *word = NULL;
	size_t word_len = 0, at = 0;
	enum match_token token;

	match_pattern_begin(&t, pattern, len);
	for (bool first = true; (token = match_pattern_next(&t, &word, &word_len)) != TOKEN_END; first = false) {
		if (!first)
			out[at++] = '.';
		if (token != TOKEN_WORD) {
			out[at++] = token == TOKEN_STAR ? '*' : '#';
		} else {
			memcpy(out + at, word, word_len);
			at += word_len;
		}
	}
	return at;
}

static bool topic_rule(struct compiler *c, uint32_t rule)
{
	const struct match_rule *r = &c->rules[rule];
	struct match_pattern t;
	uint8_t normal[MATCH_KEY_MAX];
	const uint8_t *word;
	size_t word_len;
	enum match_token token;

	if (r->len > MATCH_KEY_MAX)
		return refuse(c, "Rule %u has a topic pattern of %zu bytes; %u are allowed.", r->id, r->len, MATCH_KEY_MAX);
	match_pattern_begin(&t, r->key, r->len);
	token = match_pattern_next(&t, &word, &word_len);
	c->needs[rule] = 0;
	if (token == TOKEN_END) {
		c->classes[rule] = CLASS_EMPTY;
		return true;
	}
	if (token == TOKEN_HASH && match_pattern_next(&t, &word, &word_len) == TOKEN_END) {
		c->classes[rule] = CLASS_ALWAYS;
		return true;
	}
	c->needs[rule] = 1;
	return piece_add(c, rule, normal, normal_form(r->key, r->len, normal));
}

static bool headers_rule(struct compiler *c, uint32_t rule)
{
	const struct match_rule *r = &c->rules[rule];
	struct match_items it;
	const uint8_t *item;
	size_t len;
	uint32_t count;
	bool any, name_only;

	if (!match_rule_check(r->key, r->len, &count, &any))
		return refuse(c, "Rule %u is not a canonical headers rule.", r->id);
	c->needs[rule] = any ? 1 : count;
	if (!any && !count)
		c->classes[rule] = CLASS_ALWAYS;
	match_items_begin(&it, r->key + 1, r->len - 1);
	while (match_items_next(&it, &item, &len)) {
		size_t word_len = match_item_predicate(item, len, &name_only);

		/* Both 0x00 around the item belong to the predicate: in a canonical rule they are there. */
		if (!piece_add(c, rule, item - 1, 1 + word_len + (name_only ? 0 : 1)))
			return false;
	}
	return true;
}

static int by_id(const void *a, const void *b)
{
	const struct match_rule *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static int by_bytes(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;
	size_t n = x->len < y->len ? x->len : y->len;
	int order = memcmp(x->bytes, y->bytes, n);

	if (order)
		return order;
	if (x->len != y->len)
		return x->len < y->len ? -1 : 1;
	return (x->rule > y->rule) - (x->rule < y->rule);
}

static bool piece_equal(const struct piece *a, const struct piece *b)
{
	return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

static bool rules_read(struct compiler *c, const struct match_rule *rules, size_t count)
{
	size_t room = count ? count : 1;

	if (c->kind != MATCH_TOPIC && c->kind != MATCH_HEADERS)
		return refuse(c, "Only topic and headers exchanges have databases.");
	if (count > COUNT_MAX)
		return refuse(c, "%zu rules are more than an image may hold (%u).", count, COUNT_MAX);
	c->rules = calloc(room, sizeof(*c->rules));
	c->needs = calloc(room, sizeof(*c->needs));
	c->index = calloc(room, sizeof(*c->index));
	c->classes = calloc(room, sizeof(*c->classes));
	if (!c->rules || !c->needs || !c->index || !c->classes)
		return refuse(c, "There is no memory for %zu rules.", count);
	c->rule_count = (uint32_t)count;
	if (count)
		memcpy(c->rules, rules, count * sizeof(*rules));
	qsort(c->rules, count, sizeof(*c->rules), by_id);
	for (uint32_t i = 0; i < c->rule_count; i++) {
		if (i && c->rules[i].id == c->rules[i - 1].id)
			return refuse(c, "Rule %u was given twice.", c->rules[i].id);
		if (!(c->kind == MATCH_TOPIC ? topic_rule(c, i) : headers_rule(c, i)))
			return false;
	}
	if (c->piece_count)
		qsort(c->pieces, c->piece_count, sizeof(*c->pieces), by_bytes);
	return true;
}

static bool attempt_alloc(struct compiler *c)
{
	size_t n = c->piece_count ? c->piece_count : 1;

	if (c->piece_count > COUNT_MAX)
		return refuse(c, "%zu patterns are more than an image may hold (%u).", c->piece_count, COUNT_MAX);
	c->expressions = calloc(n, sizeof(*c->expressions));
	c->ids = calloc(n, sizeof(*c->ids));
	c->flags = calloc(n, sizeof(*c->flags));
	c->patterns = calloc(n, sizeof(*c->patterns));
	c->refs = calloc(n, sizeof(*c->refs));
	c->firsts = calloc(n, sizeof(*c->firsts));
	if (!c->expressions || !c->ids || !c->flags || !c->patterns || !c->refs || !c->firsts)
		return refuse(c, "There is no memory for %zu patterns.", n);
	return true;
}

struct expression {
	char text[EXPRESSION_MAX];
	size_t len;
};

static void append(struct expression *e, const char *text)
{
	size_t n = strlen(text);

	assert(e->len + n < sizeof(e->text)); /* a key of 255 bytes and a predicate of LITERAL_MAX stay far below */
	memcpy(e->text + e->len, text, n + 1);
	e->len += n;
}

static void append_bytes(struct expression *e, const uint8_t *bytes, size_t len)
{
	char escaped[8];

	for (size_t i = 0; i < len; i++) {
		snprintf(escaped, sizeof(escaped), "\\x%02x", bytes[i]);
		append(e, escaped);
	}
}

/*
 * Every word but the first has its dot before it; after a leading '#' the words that it took have their dots behind
 * them. In normal form a '#' is followed by a word or by nothing, so those two forms are enough.
 */
static void topic_expression(struct expression *e, const uint8_t *pattern, size_t len)
{
	struct match_pattern t;
	const uint8_t *word = NULL;
	size_t word_len = 0;
	enum match_token token;
	bool first = true;

	append(e, "\\A");
	match_pattern_begin(&t, pattern, len);
	while ((token = match_pattern_next(&t, &word, &word_len)) != TOKEN_END) {
		if (token == TOKEN_HASH) {
			append(e, first ? "(?:[^.]*\\.)*" : "(?:\\.[^.]*)*");
			continue;
		}
		if (!first)
			append(e, "\\.");
		first = false;
		if (token == TOKEN_STAR)
			append(e, "[^.]*");
		else
			append_bytes(e, word, word_len);
	}
	append(e, "\\z");
}

static bool pattern_open(struct compiler *c, const struct piece *first)
{
	uint32_t id = c->pattern_count++;
	size_t head = first->len, tail = 0;
	struct expression e = {.len = 0};

	if (c->kind == MATCH_TOPIC) {
		topic_expression(&e, first->bytes, first->len);
	} else {
		if (head > LITERAL_MAX) {
			tail = head - LITERAL_MAX;
			head = LITERAL_MAX;
		}
		append_bytes(&e, first->bytes, head);
	}
	if (tail > UINT32_MAX - c->tail_bytes)
		return refuse(c, "The headers rules' values are larger together than an image may hold.");
	c->firsts[id] = first;
	free(c->expressions[id]);
	c->expressions[id] = strdup(e.text);
	if (!c->expressions[id])
		return refuse(c, "There is no memory for an expression of %zu bytes.", e.len);
	c->ids[id] = id;
	/* A cut literal may hit at several places before its tail fits at one of them. */
	c->flags[id] = tail ? HS_FLAG_DOTALL : SCAN_FLAGS;
	c->patterns[id] = (struct match_image_pattern){c->ref_count, 0, tail ? c->tail_bytes : 0, (uint32_t)tail};
	c->tail_bytes += (uint32_t)tail;
	return true;
}

/* Numbers what is left after refusals: rules to image indices, distinct pieces to pattern ids. */
static bool attempt_number(struct compiler *c)
{
	uint32_t next = 0;
	const struct piece *open = NULL;

	for (uint32_t i = 0; i < c->rule_count; i++) {
		if (c->index[i] != RULE_DROPPED)
			c->index[i] = next++;
	}
	c->pattern_count = c->ref_count = c->tail_bytes = 0;
	for (size_t i = 0; i < c->piece_count; i++) {
		const struct piece *p = &c->pieces[i];

		if (c->index[p->rule] == RULE_DROPPED)
			continue;
		if ((!open || !piece_equal(open, p)) && !pattern_open(c, p))
			return false;
		open = p;
		c->refs[c->ref_count++] = c->index[p->rule];
		c->patterns[c->pattern_count - 1].ref_count++;
	}
	return true;
}

/* A rule that Hyperscan refuses is left out: the image does not name it, so it stays in every overlay. */
static void rules_drop(struct compiler *c, const struct piece *pattern)
{
	for (size_t i = 0; i < c->piece_count; i++) {
		if (piece_equal(&c->pieces[i], pattern))
			c->index[c->pieces[i].rule] = RULE_DROPPED;
	}
}

enum outcome { OUTCOME_DONE, OUTCOME_RETRY, OUTCOME_FAILED };

struct trial_hit {
	uint32_t id;
	bool hit;
};

static int HS_CDECL on_trial_hit(unsigned int id, unsigned long long from, unsigned long long to, unsigned int flags, void *ctx)
{
	struct trial_hit *t = ctx;

	(void)from;
	(void)to;
	(void)flags;
	t->hit = t->hit || id == t->id;
	return t->hit; /* no need to scan on */
}

/*
 * Every pattern must be found in itself before anybody relies on the database: Hyperscan has had defects in what it compiles.
 * A pattern that is not found is dropped like a refused one.
 */
static enum outcome trial(struct compiler *c)
{
	enum outcome outcome = OUTCOME_DONE;
	hs_scratch_t *scratch = NULL;

	if (hs_alloc_scratch(c->hs, &scratch) != HS_SUCCESS) {
		refuse(c, "There is no memory for Hyperscan's scratch.");
		return OUTCOME_FAILED;
	}
	for (uint32_t id = 0; id < c->pattern_count; id++) {
		const struct piece *p = c->firsts[id];
		struct trial_hit t = {.id = id};
		hs_error_t rc = hs_scan(c->hs, (const char *)p->bytes, (unsigned int)p->len, 0, scratch, on_trial_hit, &t);

		if ((rc == HS_SUCCESS || rc == HS_SCAN_TERMINATED) && t.hit)
			continue;
		refuse(c, "Hyperscan does not find rule %u in its own pattern (result %d).", c->rules[p->rule].id, rc);
		rules_drop(c, p);
		outcome = OUTCOME_RETRY;
	}
	hs_free_scratch(scratch);
	return outcome;
}

static enum outcome attempt(struct compiler *c)
{
	hs_compile_error_t *error = NULL;
	enum outcome outcome = OUTCOME_FAILED;
	hs_error_t rc;

	if (!attempt_number(c))
		return OUTCOME_FAILED;
	if (!c->pattern_count)
		return OUTCOME_DONE;
	if (c->hs)
		hs_free_database(c->hs);
	c->hs = NULL;
	/* Not hs_compile_lit_multi(): in 5.4.0 its databases fail while scanning, with HS_UNKNOWN_ERROR (README). */
	rc = hs_compile_multi((const char *const *)c->expressions, c->flags, c->ids, c->pattern_count, HS_MODE_BLOCK, NULL, &c->hs,
			      &error);
	if (rc == HS_SUCCESS)
		return trial(c);
	if (error && error->expression >= 0 && (uint32_t)error->expression < c->pattern_count) {
		rules_drop(c, c->firsts[error->expression]);
		outcome = OUTCOME_RETRY;
	}
	refuse(c, "Hyperscan cannot compile the patterns: %s", error ? error->message : "no reason given");
	if (error)
		hs_free_compile_error(error);
	return outcome;
}

static void tables_write(const struct compiler *c, uint8_t *image, const struct match_image_header *h)
{
	struct match_image_layout l = match_image_layout(h);
	uint32_t *ids = (uint32_t *)(void *)(image + l.ids), *needs = (uint32_t *)(void *)(image + l.needs);
	uint32_t *always = (uint32_t *)(void *)(image + l.always), *empties = (uint32_t *)(void *)(image + l.empties);

	for (uint32_t i = 0; i < c->rule_count; i++) {
		if (c->index[i] == RULE_DROPPED)
			continue;
		*ids++ = c->rules[i].id;
		*needs++ = c->needs[i];
		if (c->classes[i] == CLASS_ALWAYS)
			*always++ = c->index[i];
		else if (c->classes[i] == CLASS_EMPTY)
			*empties++ = c->index[i];
	}
	memcpy(image + l.refs, c->refs, c->ref_count * sizeof(*c->refs));
	memcpy(image + l.patterns, c->patterns, c->pattern_count * sizeof(*c->patterns));
	for (uint32_t i = 0; i < c->pattern_count; i++) {
		if (c->patterns[i].tail_len)
			memcpy(image + l.tails + c->patterns[i].tail_at, c->firsts[i]->bytes + LITERAL_MAX,
			       c->patterns[i].tail_len);
	}
}

static struct match_image_header header_make(const struct compiler *c, size_t hs_bytes)
{
	struct match_image_header h = {.magic = MATCH_IMAGE_MAGIC,
				       .version = MATCH_IMAGE_VERSION,
				       .kind = (uint32_t)c->kind,
				       .generation = c->generation,
				       .hs_bytes = hs_bytes,
				       .refs = c->ref_count,
				       .patterns = c->pattern_count,
				       .tail_bytes = c->tail_bytes};

	for (uint32_t i = 0; i < c->rule_count; i++) {
		if (c->index[i] == RULE_DROPPED)
			continue;
		h.rules++;
		h.always += c->classes[i] == CLASS_ALWAYS;
		h.empties += c->classes[i] == CLASS_EMPTY;
	}
	h.image_bytes = match_image_layout(&h).bytes;
	return h;
}

/* Unpacks the database into its place, where its code expects to lie at this distance from a 64-byte boundary. */
static bool hs_place(struct compiler *c, uint8_t *at)
{
	char *packed = NULL;
	size_t packed_bytes = 0;
	bool done = hs_serialize_database(c->hs, &packed, &packed_bytes) == HS_SUCCESS &&
		    hs_deserialize_database_at(packed, packed_bytes, (hs_database_t *)(void *)at) == HS_SUCCESS;

	free(packed);
	return done || refuse(c, "Hyperscan cannot place its database.");
}

static uint8_t *image_write(struct compiler *c, size_t *bytes_out)
{
	struct match_image_header h;
	struct match_image_layout l;
	size_t hs_bytes = 0;
	uint8_t *image;

	if (c->hs && hs_database_size(c->hs, &hs_bytes) != HS_SUCCESS) {
		refuse(c, "Hyperscan cannot tell its database's size.");
		return NULL;
	}
	h = header_make(c, hs_bytes);
	l = match_image_layout(&h);
	image = aligned_alloc(MATCH_IMAGE_ALIGN, (l.bytes + MATCH_IMAGE_ALIGN - 1) & ~(uint64_t)(MATCH_IMAGE_ALIGN - 1));
	if (!image) {
		refuse(c, "There is no memory for an image of %zu bytes.", (size_t)l.bytes);
		return NULL;
	}
	memset(image, 0, l.bytes);
	tables_write(c, image, &h);
	if (c->hs && !hs_place(c, image + l.hs)) {
		free(image);
		return NULL;
	}
	if (hs_bytes)
		h.hs_sum = match_image_hs_sum(image + l.hs, hs_bytes);
	memcpy(image, &h, sizeof(h));
	h.tables_sum = match_image_tables_sum(image, l.hs);
	memcpy(image, &h, sizeof(h));
	*bytes_out = l.bytes;
	return image;
}

static void compiler_fini(struct compiler *c)
{
	for (size_t i = 0; i < c->piece_count; i++)
		free(c->pieces[i].bytes);
	free(c->pieces);
	free(c->rules);
	free(c->needs);
	free(c->index);
	free(c->classes);
	for (size_t i = 0; c->expressions && i < c->piece_count; i++)
		free(c->expressions[i]);
	free(c->expressions);
	free(c->ids);
	free(c->flags);
	free(c->patterns);
	free(c->refs);
	free(c->firsts);
	if (c->hs)
		hs_free_database(c->hs);
}

uint8_t *match_compile(enum match_kind kind, const struct match_rule *rules, size_t count, uint64_t generation, size_t *bytes_out,
		       char *err, size_t err_bytes)
{
	struct compiler c = {.kind = kind, .generation = generation, .err = err, .err_bytes = err_bytes};
	enum outcome outcome = OUTCOME_FAILED;
	uint8_t *image = NULL;

	if (rules_read(&c, rules, count) && attempt_alloc(&c)) {
		unsigned tries = 0;

		do
			outcome = attempt(&c);
		while (outcome == OUTCOME_RETRY && ++tries <= REFUSALS_MAX);
	}
	if (outcome == OUTCOME_DONE) {
		if (err && err_bytes)
			*err = '\0';
		image = image_write(&c, bytes_out);
	}
	compiler_fini(&c);
	return image;
}
