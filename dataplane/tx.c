/*
 * tx.c - outgoing frames of a worker, collected and given to the port a burst at a time.
 *
 * Owns: the array of frames that the port has not taken yet, and the stock of buffers for those to come; what ties a piece of a
 * message to the frame that holds it.
 * Core: the worker.
 * Spec: DESIGN section 3, step 8: one transmit burst after each receive burst, nothing held back to wait for more.
 */
#include "dataplane/tx.h"

#include <string.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "dataplane/counters.h"

/* Beside each buffer of the piece pool. Counts in mbufs have 16 bits, so each has its own; the owner counts its holders. */
struct piece {
	struct rte_mbuf_ext_shared_info shared;
	struct dp_tx *tx;
	void *owner;
};

/* Room for one more frame, if need be by giving the port what is there. */
static bool have_room(struct dp_tx *tx)
{
	if (likely(tx->frames_count < DP_TX_FRAMES_MAX) || dp_tx_burst(tx) != 0)
		return true;
	tx->counters[DP_CNT_port_tx_full]++;
	return false;
}

/* ---- buffers ---- */

/* Many at once cost little more than one. Where the pool is nearly empty the last ones come one by one. */
static __attribute__((noinline)) bool refill(struct dp_tx *tx)
{
	if (unlikely(tx->no_stock)) {
		tx->stock[0] = rte_pktmbuf_alloc(tx->pool);
		tx->stock_count = tx->stock[0] != NULL;
		return tx->stock_count != 0;
	}
	if (rte_mempool_get_bulk(tx->pool, (void **)tx->stock, DP_TX_REFILL) == 0)
		tx->stock_count = DP_TX_REFILL;
	else if (rte_mempool_get(tx->pool, (void **)tx->stock) == 0)
		tx->stock_count = 1;
	return tx->stock_count != 0;
}

void dp_tx_recycle(struct dp_tx *tx, struct rte_mbuf **frame, uint32_t count)
{
	if (unlikely(tx->no_stock)) {
		rte_pktmbuf_free_bulk(frame, count);
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct rte_mbuf *m = frame[i];

		if (unlikely(m->pool != tx->pool || m->nb_segs != 1)) {
			rte_pktmbuf_free(m);
			continue;
		}
		m = rte_pktmbuf_prefree_seg(m);
		if (unlikely(m == NULL)) /* somebody else holds it, too */
			continue;
		if (unlikely(tx->stock_count == DP_TX_STOCK_MAX)) {
			tx->stock_count -= DP_TX_REFILL;
			rte_mempool_put_bulk(tx->pool, (void **)(tx->stock + tx->stock_count), DP_TX_REFILL);
		}
		tx->stock[tx->stock_count++] = m;
	}
}

uint32_t dp_tx_buffers_out(const struct dp_tx *tx)
{
	return rte_mempool_in_use_count(tx->pool) - tx->stock_count;
}

/* ---- frames ---- */

/*
 * A buffer as the pool keeps it: one holder, nothing behind it (rte_pktmbuf_prefree_seg). What else a frame needs is written
 * by dp_tx_send(), so nothing is reset here that would be written twice.
 */
static inline uint8_t *begin(struct rte_mbuf *m, size_t len, void **handle)
{
	m->data_off = RTE_PKTMBUF_HEADROOM;
	m->data_len = (uint16_t)len;
	m->pkt_len = (uint32_t)len;
	*handle = m;
	return (uint8_t *)m->buf_addr + RTE_PKTMBUF_HEADROOM;
}

static struct rte_mbuf *find_buffer(struct dp_tx *tx, size_t len)
{
	if (len > tx->frame_max && tx->tso_pool != NULL)
		return rte_mbuf_raw_alloc(tx->tso_pool);
	if (tx->stock_count == 0 && !refill(tx))
		return NULL;
	return tx->stock[--tx->stock_count];
}

/* The port is full, the stock is empty, or the frame is a long one. */
static __attribute__((noinline)) uint8_t *alloc_otherwise(struct dp_tx *tx, size_t len, void **handle)
{
	struct rte_mbuf *m;

	if (!have_room(tx))
		return NULL;
	m = find_buffer(tx, len);
	if (m != NULL && len <= (size_t)m->buf_len - RTE_PKTMBUF_HEADROOM)
		return begin(m, len, handle);
	rte_pktmbuf_free(m);
	tx->counters[DP_CNT_port_tx_no_mbuf]++;
	return NULL;
}

uint8_t *dp_tx_alloc(struct dp_tx *tx, size_t len, void **handle)
{
	if (unlikely(tx->frames_count == DP_TX_FRAMES_MAX || tx->stock_count == 0 || len > tx->frame_max))
		return alloc_otherwise(tx, len, handle);
	return begin(tx->stock[--tx->stock_count], len, handle);
}

static void on_piece_done(void *data, void *opaque)
{
	struct piece *p = opaque;

	(void)data;
	p->tx->piece_done(p->tx->piece_ctx, p->owner);
}

/* All or none. A driver's clone may outlive the buffer that it was made of (net_tap's software TSO), and counts beside it. */
static bool take_pieces(struct dp_tx *tx, struct rte_mbuf **m, unsigned count)
{
	bool free = true;

	if (rte_pktmbuf_alloc_bulk(tx->piece_pool, m, count) != 0)
		return false;
	for (unsigned i = 0; i < count; i++) {
		struct piece *p = rte_mbuf_to_priv(m[i]);

		free = free && rte_mbuf_ext_refcnt_read(&p->shared) == 0;
	}
	if (!free)
		rte_pktmbuf_free_bulk(m, count);
	return free;
}

/* The address is the IOVA, too: what needs one gets pieces only where that is so (port.c). */
static void attach(struct dp_tx *tx, struct rte_mbuf *m, const struct tcps_piece *from)
{
	struct piece *p = rte_mbuf_to_priv(m);

	p->shared.free_cb = on_piece_done;
	p->shared.fcb_opaque = p;
	rte_mbuf_ext_refcnt_set(&p->shared, 1);
	p->tx = tx;
	p->owner = from->owner;
	rte_pktmbuf_attach_extbuf(m, (void *)(uintptr_t)from->data, (rte_iova_t)(uintptr_t)from->data, (uint16_t)from->len,
				  &p->shared);
	m->data_len = (uint16_t)from->len;
}

uint8_t *dp_tx_chain(struct dp_tx *tx, size_t len, const struct tcps_piece *pieces, unsigned count, void **handle)
{
	struct rte_mbuf *part[TCPS_PIECES_MAX], *head, *last;
	uint8_t *data;

	if (!take_pieces(tx, part, count))
		return NULL;
	data = dp_tx_alloc(tx, len, handle);
	if (data == NULL) {
		rte_pktmbuf_free_bulk(part, count);
		return NULL;
	}
	head = last = *handle;
	for (unsigned i = 0; i < count; i++) {
		attach(tx, part[i], &pieces[i]);
		last->next = part[i];
		last = part[i];
		head->nb_segs++;
		head->pkt_len += pieces[i].len;
	}
	return data;
}

static inline void collect(struct dp_tx *tx, struct rte_mbuf *m)
{
	tx->counters[DP_CNT_port_tx_bytes] += m->pkt_len;
	tx->frame[tx->frames_count++] = m;
}

/* Its one unused octet may be anything. */
static inline struct dp_tx_wish wish_of(const struct tcps_tx_meta *meta)
{
	struct dp_tx_wish w;

	_Static_assert(sizeof *meta == sizeof w.flags_and_lengths + sizeof w.tag_and_mss, "two numbers");
	_Static_assert(offsetof(struct tcps_tx_meta, vlan_insert) == 6 && offsetof(struct tcps_tx_meta, vlan_tci) == 8,
		       "the unused octet is the eighth");
	memcpy(&w.flags_and_lengths, meta, sizeof w.flags_and_lengths);
	w.flags_and_lengths &= UINT64_MAX >> 8;
	memcpy(&w.tag_and_mss, (const uint8_t *)meta + sizeof w.flags_and_lengths, sizeof w.tag_and_mss);
	return w;
}

/* What DPDK is told of frames of this form; it holds for the next frame, too, unless that asks for something else. */
static __attribute__((noinline)) void set_form(struct dp_tx_form *form, const struct tcps_tx_meta *meta, struct dp_tx_wish wish)
{
	uint64_t flags = 0;

	form->tx_offload = 0;
	if (meta->ip_cksum || meta->tcp_cksum) {
		flags |= meta->ipv6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4;
		if (meta->ip_cksum)
			flags |= RTE_MBUF_F_TX_IP_CKSUM;
		if (meta->tcp_cksum)
			flags |= RTE_MBUF_F_TX_TCP_CKSUM;
		if (meta->tso_mss != 0)
			flags |= RTE_MBUF_F_TX_TCP_SEG;
		form->tx_offload = rte_mbuf_tx_offload(meta->l2_len, meta->l3_len, meta->l4_len, meta->tso_mss, 0, 0, 0);
	}
	if (meta->vlan_insert)
		flags |= RTE_MBUF_F_TX_VLAN;
	form->ol_flags = flags;
	form->wish = wish;
}

/* Two frames may have been allocated before the first was sent, so the room is looked at again. */
static __attribute__((noinline)) void send_when_full(struct dp_tx *tx, struct rte_mbuf *m)
{
	if (have_room(tx))
		collect(tx, m);
	else
		rte_pktmbuf_free(m);
}

void dp_tx_send(struct dp_tx *tx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct dp_tx_wish wish = wish_of(meta);
	struct rte_mbuf *m = handle;

	/* It may be less than was asked for; pieces are whole. */
	m->data_len = (uint16_t)(m->data_len + len - m->pkt_len);
	m->pkt_len = (uint32_t)len;
	m->vlan_tci = meta->vlan_tci;
	if (unlikely(wish.flags_and_lengths != tx->form.wish.flags_and_lengths || wish.tag_and_mss != tx->form.wish.tag_and_mss))
		set_form(&tx->form, meta, wish);
	m->ol_flags = tx->form.ol_flags;
	m->tx_offload = tx->form.tx_offload;
	if (unlikely(tx->frames_count == DP_TX_FRAMES_MAX))
		send_when_full(tx, m);
	else
		collect(tx, m);
}

bool dp_tx_forward(struct dp_tx *tx, struct rte_mbuf *m)
{
	if (!have_room(tx))
		return false;
	m->ol_flags = 0;
	collect(tx, m);
	return true;
}

/* One call of the driver. Returns how many of `count` frames are done with, those that it will never take included. */
static uint16_t give(struct dp_tx *tx, struct rte_mbuf **frame, uint16_t count)
{
	uint16_t ready = count, sent;

	if (tx->prepare)
		ready = rte_eth_tx_prepare(tx->port_id, tx->queue, frame, count);
	sent = rte_eth_tx_burst(tx->port_id, tx->queue, frame, ready);
	tx->counters[DP_CNT_port_tx_bursts]++;
	tx->counters[DP_CNT_port_tx_packets] += sent;
	/* A frame that the driver will never take must not stand in the way of the others; the stack sends it anew. */
	if (sent == ready && ready != count) {
		rte_pktmbuf_free(frame[ready]);
		tx->counters[DP_CNT_port_tx_refused]++;
		sent++;
	}
	return sent;
}

uint32_t dp_tx_burst(struct dp_tx *tx)
{
	uint16_t count = (uint16_t)tx->frames_count, done = 0;

	if (count == 0)
		return 0;
	while (done < count) {
		uint16_t left = (uint16_t)(count - done), ask = tx->burst_max != 0 && left > tx->burst_max ? tx->burst_max : left;
		uint16_t sent = give(tx, tx->frame + done, ask);

		done = (uint16_t)(done + sent);
		if (sent != ask || tx->burst_max == 0)
			break;
	}
	if (done != count) {
		tx->counters[DP_CNT_port_tx_partial]++;
		memmove(tx->frame, tx->frame + done, (count - done) * sizeof tx->frame[0]);
	}
	tx->frames_count = (uint32_t)count - done;
	return done;
}

struct rte_mempool *dp_tx_piece_pool(const char *name, uint32_t count, int numa_node)
{
	return rte_pktmbuf_pool_create(name, count, RTE_MIN(count / 4, 256u),
				       RTE_ALIGN_CEIL(sizeof(struct piece), RTE_MBUF_PRIV_ALIGN), 0, numa_node);
}

uint32_t dp_tx_reclaim(struct dp_tx *tx)
{
	if (tx->piece_pool == NULL || rte_mempool_in_use_count(tx->piece_pool) == 0)
		return 0;
	rte_eth_tx_done_cleanup(tx->port_id, tx->queue, 0); /* not every driver can */
	return rte_mempool_in_use_count(tx->piece_pool);
}

void dp_tx_drop(struct dp_tx *tx)
{
	rte_pktmbuf_free_bulk(tx->frame, tx->frames_count);
	tx->frames_count = 0;
	if (tx->stock_count != 0)
		rte_mempool_put_bulk(tx->pool, (void **)tx->stock, tx->stock_count);
	tx->stock_count = 0;
}
