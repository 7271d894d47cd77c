/*
 * trie.c - the delta overlay of topic exchanges: a trie over words, walked as a set of states.
 *
 * Owns: how topic patterns hang in the pool's nodes.
 * Core: the worker that owns the pool; a find costs at most (nodes reached) x (words of the key), whatever the pattern.
 * Spec: AMQP 0-9-1 section 3.1.3.3, RabbitMQ's reading of empty words (matcher/README.md).
 */
#include "matcher/match_int.h"
#include "matcher/topic.h"

static enum node_kind kind_of(enum match_token token)
{
	return token == TOKEN_STAR ? NODE_STAR : token == TOKEN_HASH ? NODE_HASH : NODE_WORD;
}

int match_trie_add(struct match_set *s, uint32_t rec, const uint8_t *pattern, size_t len)
{
	struct match_pool *p = s->pool;
	struct match_pattern t;
	const uint8_t *word = NULL;
	size_t word_len = 0;
	enum match_token token;
	uint32_t node = match_root(s);

	match_pattern_begin(&t, pattern, len);
	while ((token = match_pattern_next(&t, &word, &word_len)) != TOKEN_END) {
		uint32_t child = match_node_make(p, node, kind_of(token), word, word_len);

		if (child == MATCH_NONE) {
			match_node_prune(p, node);
			return -1;
		}
		node = child;
	}
	match_node_rule_add(p, node, rec);
	return 0;
}

void match_trie_remove(struct match_set *s, uint32_t rec)
{
	uint32_t node = s->pool->recs[rec].at;

	match_node_rule_drop(s->pool, node, rec);
	match_node_prune(s->pool, node);
}

/*
 * The walk's state: `now` holds the nodes that stand exactly behind the words read so far, `sticky` the '#' nodes entered
 * at some word, which stay entered to the end of the key. A node has one parent, so it is reached once a word at most.
 */
struct walk {
	struct match_pool *pool;
	struct match_sink *sink;
	uint32_t *now, *next;
	uint32_t now_count, next_count, sticky_count;
};

static void report(struct walk *w, uint32_t rec)
{
	for (; rec != MATCH_NONE; rec = w->pool->recs[rec].peer_next)
		match_sink_put(w->sink, w->pool->recs[rec].id);
}

static void reach(struct walk *w, uint32_t node)
{
	uint32_t hash = w->pool->nodes[node].hash;
	struct match_node *h;

	w->next[w->next_count++] = node;
	if (hash == MATCH_NONE)
		return;
	h = &w->pool->nodes[hash];
	if (h->stamp == w->pool->stamp)
		return;
	h->stamp = w->pool->stamp;
	/* A final '#' takes whatever is left of the key, so its rules match now. */
	report(w, h->rules);
	if (h->words || h->star != MATCH_NONE)
		w->pool->sticky[w->sticky_count++] = hash;
}

static void step(struct walk *w, uint32_t node, uint64_t hash, const uint8_t *word, size_t len)
{
	const struct match_node *n = &w->pool->nodes[node];
	uint32_t child;

	if (n->star != MATCH_NONE)
		reach(w, n->star);
	if (!n->words)
		return;
	child = match_node_child(w->pool, node, hash, word, len);
	if (child != MATCH_NONE)
		reach(w, child);
}

void match_trie_find(struct match_set *s, const uint8_t *key, size_t len, struct match_sink *sink)
{
	struct match_pool *p = s->pool;
	struct walk w = {.pool = p, .sink = sink, .now = p->active[0], .next = p->active[1]};
	struct match_words words;
	const uint8_t *word;
	size_t word_len;

	p->stamp++;
	reach(&w, match_root(s));
	match_words_begin(&words, key, len);
	while ((w.next_count || w.sticky_count) && match_words_next(&words, &word, &word_len)) {
		uint64_t hash = match_word_hash(p, word, word_len);
		uint32_t *swap = w.now;
		/* A '#' entered by this very word must not read the word again. */
		uint32_t sticky_count = w.sticky_count;

		w.now = w.next;
		w.now_count = w.next_count;
		w.next = swap;
		w.next_count = 0;
		for (uint32_t i = 0; i < w.now_count; i++)
			step(&w, w.now[i], hash, word, word_len);
		for (uint32_t i = 0; i < sticky_count; i++)
			step(&w, p->sticky[i], hash, word, word_len);
	}
	for (uint32_t i = 0; i < w.next_count; i++)
		report(&w, p->nodes[w.next[i]].rules);
}
