/*
 * tx.h - outgoing frames of a worker, collected and given to the port a burst at a time.
 *
 * Owns: the array of frames that the port has not taken yet; a small stock of buffers for the next ones.
 * Core: the worker.
 * Spec: DESIGN section 3, step 8: one transmit burst after each receive burst, nothing held back to wait for more.
 */
#ifndef TICKWIRE_DP_TX_H
#define TICKWIRE_DP_TX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcpstack/tcpstack.h"

#define DP_BURST_MAX     32u
#define DP_TX_FRAMES_MAX 128u
#define DP_TX_STOCK_MAX  64u
#define DP_TX_REFILL     32u /* buffers that the stock takes from the pool, or gives back to it, at once */

struct rte_mbuf;
struct rte_mempool;

/* A struct tcps_tx_meta as two numbers, to be compared; all 0 when nothing is asked for. */
struct dp_tx_wish {
	uint64_t flags_and_lengths;
	uint32_t tag_and_mss;
};

/* What a frame asks of the port, in the stack's words and in DPDK's. */
struct dp_tx_form {
	struct dp_tx_wish wish;
	uint64_t ol_flags, tx_offload;
};

struct dp_tx {
	uint16_t port_id, queue;
	bool prepare;       /* an offload is in use, so frames pass rte_eth_tx_prepare() */
	uint16_t burst_max; /* frames that the port gets at a time; 0: as many as there are */
	bool no_stock;      /* each buffer comes from the pool and goes back to it by itself */
	struct rte_mempool *pool;
	struct rte_mempool *tso_pool; /* for frames that the port cuts; NULL: it cuts none */
	size_t frame_max;             /* what a frame of `pool` holds */
	/* Buffers for memory of others, and whom to tell that one is done with; NULL: every frame is one buffer. */
	struct rte_mempool *piece_pool;
	void (*piece_done)(void *ctx, void *owner);
	void *piece_ctx;
	uint64_t *counters;     /* the worker's own */
	struct dp_tx_form form; /* of the last frame: a connection's frames all ask the same */
	uint32_t frames_count, stock_count;
	struct rte_mbuf *frame[DP_TX_FRAMES_MAX];
	struct rte_mbuf *stock[DP_TX_STOCK_MAX]; /* of `pool`: each alone, unchained, with one holder */
};

/* The three calls of struct tcps_ops; `handle` is the mbuf. NULL when the port takes nothing: the stack tries again later. */
uint8_t *dp_tx_alloc(struct dp_tx *tx, size_t len, void **handle);
uint8_t *dp_tx_chain(struct dp_tx *tx, size_t len, const struct tcps_piece *pieces, unsigned count, void **handle);
void dp_tx_send(struct dp_tx *tx, void *handle, size_t len, const struct tcps_tx_meta *meta);
/* Takes over a received frame that was turned round in place. False: no room, the caller keeps it. */
bool dp_tx_forward(struct dp_tx *tx, struct rte_mbuf *m);
/* Received frames are done with: their buffers are the next that dp_tx_alloc() takes. */
void dp_tx_recycle(struct dp_tx *tx, struct rte_mbuf **frame, uint32_t count);
/* Gives the port what was collected; what it does not take stays for the next call. Returns how many it took. */
uint32_t dp_tx_burst(struct dp_tx *tx);
/* A pool for piece_pool. Errors: NULL, with rte_errno set. */
struct rte_mempool *dp_tx_piece_pool(const char *name, uint32_t count, int numa_node);
/* Asks the driver to give back what it has sent: some keep it until they need its descriptor. Returns how many pieces are out. */
uint32_t dp_tx_reclaim(struct dp_tx *tx);
/* Packet buffers that are somewhere: all that are out of the pool but for the stock. */
uint32_t dp_tx_buffers_out(const struct dp_tx *tx);
/* Frees what the port never took, and the stock. */
void dp_tx_drop(struct dp_tx *tx);

#endif
