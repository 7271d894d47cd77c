/*
 * sack.c - what we tell the peer of bytes that arrived out of order or twice.
 *
 * Owns: sack_recent and dsack of a connection; the ranges themselves are recv.c's.
 * Core: the worker that owns the stack.
 * Spec: RFC 2018 3 and 4, RFC 2883 4.
 */
#include "tcpstack/internal.h"

#define BLOCK_BYTES     8u
#define OPTION_HEAD_LEN 4u /* NOP NOP kind length */
#define RECENT_COUNT    (sizeof(((struct tcps_cold *)0)->sack_recent) / sizeof(uint32_t))

void tcps_sack_arrived(struct tcps_conn *c, uint32_t seq)
{
	uint32_t *recent = c->cold->sack_recent;
	for (unsigned i = RECENT_COUNT - 1; i > 0; i--)
		recent[i] = recent[i - 1];
	recent[0] = seq;
}

void tcps_sack_duplicate(struct tcps_conn *c, uint32_t start_seq, uint32_t end_seq)
{
	if ((c->flags & CF_SACK) == 0 || start_seq == end_seq)
		return;
	c->cold->dsack = (struct tcps_range){start_seq, end_seq};
	c->flags |= CF_DSACK;
}

static unsigned blocks_due(const struct tcps_conn *c)
{
	/* Beside timestamps there is room for three. */
	unsigned most = (c->flags & CF_TS) != 0 ? 3 : 4;
	unsigned n = c->cold->ooo_count + ((c->flags & CF_DSACK) != 0 ? 1u : 0u);
	return n < most ? n : most;
}

uint32_t tcps_sack_option_len(const struct tcps_conn *c)
{
	if ((c->flags & CF_SACK) == 0 || (c->flags & (CF_OOO | CF_DSACK)) == 0)
		return 0;
	unsigned n = blocks_due(c);
	return n == 0 ? 0 : OPTION_HEAD_LEN + n * BLOCK_BYTES;
}

static const struct tcps_range *range_of(const struct tcps_cold *cold, uint32_t seq)
{
	for (unsigned i = 0; i < cold->ooo_count; i++) {
		if (seq_ge(seq, cold->ooo[i].start_seq) && seq_lt(seq, cold->ooo[i].end_seq))
			return &cold->ooo[i];
	}
	return NULL;
}

static bool listed(const struct tcps_range *const *list, unsigned n, const struct tcps_range *r)
{
	for (unsigned i = 0; i < n; i++) {
		if (list[i] == r)
			return true;
	}
	return false;
}

/* RFC 2018 4: first the block of the segment that came last, then those told before, then what else fits. */
void tcps_sack_option(struct tcps_conn *c, uint8_t *to, uint32_t len)
{
	const struct tcps_cold *cold = c->cold;
	const struct tcps_range *list[TCPS_SACK_BLOCKS_MAX];
	unsigned n = 0, most = (len - OPTION_HEAD_LEN) / BLOCK_BYTES;
	if (c->flags & CF_DSACK)
		list[n++] = &cold->dsack;
	for (unsigned i = 0; i < RECENT_COUNT && n < most; i++) {
		const struct tcps_range *r = range_of(cold, cold->sack_recent[i]);
		if (r != NULL && !listed(list, n, r))
			list[n++] = r;
	}
	for (unsigned i = cold->ooo_count; i-- > 0 && n < most;) {
		if (!listed(list, n, &cold->ooo[i]))
			list[n++] = &cold->ooo[i];
	}
	to[0] = to[1] = TCP_OPT_NOP;
	to[2] = TCP_OPT_SACK;
	to[3] = (uint8_t)(2 + n * BLOCK_BYTES);
	for (unsigned i = 0; i < n; i++) {
		put_be32(to + OPTION_HEAD_LEN + i * BLOCK_BYTES, list[i]->start_seq);
		put_be32(to + OPTION_HEAD_LEN + 4 + i * BLOCK_BYTES, list[i]->end_seq);
	}
	TCPS_COUNT_ADD(c->t, dsacks_out, (c->flags & CF_DSACK) != 0);
	TCPS_COUNT(c->t, sacks_out);
	c->flags &= ~CF_DSACK; /* told once: RFC 2883 4 */
}
