/* The uncommon paths of the order, loss and duplicate accounting.
 * Runs on the subscribers' thread, only when a delivery is out of order.
 * Specification: none. */
#include "tools/tickbench/track.h"

#include <stdlib.h>
#include <string.h>

static void forget_oldest_gap(struct tb_track *t)
{
	t->forgotten_lost_count += t->gaps[0].to - t->gaps[0].from;
	t->forgotten_below = t->gaps[0].to;
	t->gap_count--;
	memmove(&t->gaps[0], &t->gaps[1], sizeof(t->gaps[0]) * t->gap_count);
}

static void insert_gap(struct tb_track *t, uint32_t at, struct tb_gap gap)
{
	if (t->gap_count == TB_TRACK_GAPS) {
		if (at == 0) {
			/* The new one is the oldest: it is the one to be forgotten. */
			t->forgotten_lost_count += gap.to - gap.from;
			t->forgotten_below = gap.to;
			return;
		}
		forget_oldest_gap(t);
		at--;
	}
	memmove(&t->gaps[at + 1], &t->gaps[at], sizeof(t->gaps[0]) * (t->gap_count - at));
	t->gaps[at] = gap;
	t->gap_count++;
}

/* Takes seq out of gap number i: shortened, removed, or split in two. */
static void fill_gap(struct tb_track *t, uint32_t i, uint64_t seq)
{
	struct tb_gap *g = &t->gaps[i];
	struct tb_gap lower = {.from = g->from, .to = seq};

	g->from = seq + 1;
	if (g->from == g->to) {
		t->gap_count--;
		memmove(g, g + 1, sizeof(*g) * (t->gap_count - i));
	}
	if (lower.from < lower.to)
		insert_gap(t, i, lower);
}

enum tb_arrival tb_track_odd(struct tb_track *t, uint64_t seq, uint64_t sent_count)
{
	if (seq >= sent_count)
		return TB_ARRIVAL_UNKNOWN;
	if (seq >= t->next_seq) {
		struct tb_gap gap = {.from = t->next_seq, .to = seq};
		if (gap.from < gap.to)
			insert_gap(t, t->gap_count, gap);
		t->next_seq = seq + 1;
		t->received_count++;
		return TB_ARRIVAL_NEW;
	}
	for (uint32_t i = 0; i < t->gap_count; i++)
		if (seq >= t->gaps[i].from && seq < t->gaps[i].to) {
			fill_gap(t, i, seq);
			t->received_count++;
			t->reordered_count++;
			return TB_ARRIVAL_REORDERED;
		}
	if (seq < t->forgotten_below) {
		t->stale_count++;
		return TB_ARRIVAL_STALE;
	}
	t->duplicate_count++;
	return TB_ARRIVAL_DUPLICATE;
}

uint64_t tb_track_missing(const struct tb_track *t, uint64_t sent_count)
{
	uint64_t missing = t->forgotten_lost_count + (sent_count > t->next_seq ? sent_count - t->next_seq : 0);

	for (uint32_t i = 0; i < t->gap_count; i++)
		missing += t->gaps[i].to - t->gaps[i].from;
	return missing;
}

bool tb_ticks_init(struct tb_ticks *t, uint64_t tick_count, uint64_t slots_max, uint32_t subscriber_count)
{
	uint64_t size = 1024;

	while (size < tick_count && size * 2 <= slots_max)
		size *= 2;
	memset(t, 0, sizeof(*t));
	t->slots = calloc(size, sizeof(*t->slots));
	t->mask = size - 1;
	t->subscriber_count = subscriber_count;
	t->median_rank = (subscriber_count + 1) / 2;
	return t->slots != NULL;
}

void tb_ticks_fini(struct tb_ticks *t)
{
	free(t->slots);
	t->slots = NULL;
}
