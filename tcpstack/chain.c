/*
 * chain.c - frames that end in pieces of references: the port reads them where they lie, nothing of them is copied.
 *
 * Owns: no state; which bytes of a segment are copied and which are not.
 * Core: the worker that owns the stack.
 * Spec: RFC 1071 2 (B) for the sums of odd pieces; the contract of tx_chain() and hold() in tcpstack.h.
 */
#include "tcpstack/internal.h"

struct plan {
	uint32_t copied; /* bytes in front, which lie behind the headers */
	struct tcps_cursor end;
	unsigned count;
	struct tcps_piece pieces[TCPS_PIECES_MAX];
};

static void add_piece(const struct tcps *t, struct plan *p, const struct tcps_slice *s, uint32_t off, uint32_t len)
{
	if (p->count == t->cfg.tx_pieces_max) {
		/* One too many: the first is copied, with what came before it. */
		p->copied += p->pieces[0].len;
		memmove(&p->pieces[0], &p->pieces[1], --p->count * sizeof(p->pieces[0]));
	}
	p->pieces[p->count++] = (struct tcps_piece){.data = s->data + off, .len = len, .owner = s->owner};
}

/*
 * A frame is one writable buffer and pieces behind it, so pieces are what a segment ends in: after the last of its bytes that
 * are inline, or too few. Large bodies are all piece but for the segments in which they begin and end.
 */
static void make_plan(const struct tcps *t, struct tcps_cursor cur, uint32_t len, struct plan *p)
{
	uint32_t seen = 0;
	p->count = 0;
	for (;;) {
		const struct tcps_slice *s = &t->slices[cur.idx];
		uint32_t n = s->len_bytes - cur.off, left = len - seen;
		bool last = n >= left;
		n = last ? left : n;
		if (s->block_idx == TCPS_NIL && n >= TCPS_PIECE_MIN) {
			if (p->count == 0)
				p->copied = seen;
			add_piece(t, p, s, cur.off, n);
		} else if (n != 0) {
			p->count = 0;
		}
		seen += n;
		if (last) {
			p->end = (struct tcps_cursor){cur.idx, cur.off + n};
			return;
		}
		cur = (struct tcps_cursor){s->next_idx, 0};
	}
}

static uint64_t sum_pieces(const struct plan *p, uint64_t sum)
{
	bool odd = (p->copied & 1) != 0;
	for (unsigned i = 0; i < p->count; i++) {
		uint64_t part = tcps_sum_words(0, p->pieces[i].data, p->pieces[i].len);
		/* After an odd count of bytes each byte stands in the other half of its word. */
		if (odd)
			part = part << 8 | part >> 56;
		sum = tcps_sum_add(sum, part);
		odd ^= (p->pieces[i].len & 1) != 0;
	}
	return sum;
}

__attribute__((noinline)) uint8_t *tcps_chain(struct tcps *t, struct tcps_cursor *cur, uint32_t len, size_t head_len, void **handle,
					      uint64_t *payload_sum)
{
	struct plan p;
	make_plan(t, *cur, len, &p);
	if (p.count == 0)
		return NULL;
	uint8_t *f = t->ops.tx_chain(t->ctx, head_len + p.copied, p.pieces, p.count, handle);
	if (f == NULL) {
		TCPS_COUNT(t, chains_refused);
		return NULL;
	}
	for (unsigned i = 0; i < p.count; i++)
		t->ops.hold(t->ctx, p.pieces[i].owner);
	if (p.copied != 0)
		*payload_sum = tcps_send_copy(t, cur, f + head_len, p.copied);
	if (!t->cfg.tx_tcp_cksum_offload)
		*payload_sum = sum_pieces(&p, *payload_sum);
	*cur = p.end;
	TCPS_COUNT(t, chains);
	TCPS_COUNT_ADD(t, chain_bytes, len - p.copied);
	return f;
}
