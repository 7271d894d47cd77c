/*
 * predicates.c - the delta overlay of headers exchanges: predicates to the rules that ask for them.
 *
 * Owns: predicate nodes under a set's root, and the edges between them and the rules, in the pool's arena.
 * Core: the worker that owns the pool; a find costs the subject's items plus the rules that these items touch.
 * Spec: RabbitMQ's headers exchange (matcher/README.md).
 */
#include "matcher/headers.h"
#include "matcher/match_int.h"

static struct match_edge *edge_at(const struct match_pool *p, uint32_t edge)
{
	return (struct match_edge *)(void *)match_arena_at(&p->arena, edge);
}

static void edge_link(struct match_pool *p, uint32_t edge, uint32_t rec, uint32_t node)
{
	struct match_node *n = &p->nodes[node];

	*edge_at(p, edge) = (struct match_edge){.rec = rec, .node = node, .prev = MATCH_NONE, .next = n->rules};
	if (n->rules != MATCH_NONE)
		edge_at(p, n->rules)->prev = edge;
	n->rules = edge;
}

static void edge_unlink(struct match_pool *p, uint32_t edge)
{
	const struct match_edge *e = edge_at(p, edge);

	if (e->prev != MATCH_NONE)
		edge_at(p, e->prev)->next = e->next;
	else
		p->nodes[e->node].rules = e->next;
	if (e->next != MATCH_NONE)
		edge_at(p, e->next)->prev = e->prev;
	match_node_prune(p, e->node);
}

int match_predicates_add(struct match_set *s, uint32_t rec, const uint8_t *rule, size_t len)
{
	struct match_pool *p = s->pool;
	struct match_rec *r = &p->recs[rec];
	struct match_items it;
	const uint8_t *item;
	size_t item_len;
	uint32_t count = 0;
	bool any = false;

	if (!match_rule_check(rule, len, &count, &any))
		return -2;
	r->need = any ? 1 : count;
	r->len = 0;
	if (!count) {
		/* Nothing asked for: ALL matches always, ANY never. */
		if (!any)
			match_node_rule_add(p, match_root(s), rec);
		return 0;
	}
	r->at = match_arena_alloc(&p->arena, (size_t)count * sizeof(struct match_edge));
	if (r->at == MATCH_NONE)
		return -1;
	match_items_begin(&it, rule + 1, len - 1);
	while (match_items_next(&it, &item, &item_len)) {
		bool name_only;
		size_t word_len = match_item_predicate(item, item_len, &name_only);
		uint32_t node = match_node_make(p, match_root(s), NODE_WORD, item, word_len);

		if (node == MATCH_NONE) {
			match_predicates_remove(s, rec);
			return -1;
		}
		edge_link(p, r->at + r->len, rec, node);
		r->len++;
	}
	return 0;
}

void match_predicates_remove(struct match_set *s, uint32_t rec)
{
	struct match_pool *p = s->pool;
	struct match_rec *r = &p->recs[rec];

	if (!r->need) {
		match_node_rule_drop(p, match_root(s), rec);
		return;
	}
	if (r->at == MATCH_NONE)
		return;
	for (uint32_t i = 0; i < r->len; i++)
		edge_unlink(p, r->at + i);
	match_arena_free(&p->arena, r->at);
	r->at = MATCH_NONE;
	r->len = 0;
}

static void predicate_hit(struct match_set *s, const uint8_t *word, size_t len, struct match_sink *sink)
{
	struct match_pool *p = s->pool;
	uint32_t node = match_node_child(p, match_root(s), match_word_hash(p, word, len), word, len);

	/* A subject may hold an item twice, which is still one hit. */
	if (node == MATCH_NONE || p->nodes[node].stamp == p->stamp)
		return;
	p->nodes[node].stamp = p->stamp;
	for (uint32_t e = p->nodes[node].rules; e != MATCH_NONE; e = edge_at(p, e)->next) {
		struct match_rec *r = &p->recs[edge_at(p, e)->rec];

		if (r->stamp != p->stamp) {
			r->stamp = p->stamp;
			r->hits = 0;
		}
		if (++r->hits == r->need)
			match_sink_put(sink, r->id);
	}
}

void match_predicates_find(struct match_set *s, const uint8_t *subject, size_t len, struct match_sink *sink)
{
	struct match_pool *p = s->pool;
	struct match_items it;
	const uint8_t *item, *name_end;
	size_t item_len;

	p->stamp++;
	for (uint32_t r = p->nodes[match_root(s)].rules; r != MATCH_NONE; r = p->recs[r].peer_next)
		match_sink_put(sink, p->recs[r].id);
	if (!p->nodes[match_root(s)].words)
		return;
	match_items_begin(&it, subject, len);
	while (match_items_next(&it, &item, &item_len)) {
		predicate_hit(s, item, item_len, sink);
		name_end = memchr(item, MATCH_NAME_END, item_len);
		if (name_end)
			predicate_hit(s, item, (size_t)(name_end - item) + 1, sink);
	}
}
