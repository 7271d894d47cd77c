/*
 * handover.c - frames that came to one worker's queue and are for another's stack, or for all.
 *
 * Owns: the rings of frames between workers.
 * Core: each ring has one worker on either side; made by the main thread.
 * Spec: DESIGN section 4. Ports steer a flow to one queue, so segments go round only when steering has changed; what no port steers
 * by flow (ARP, ICMP, neighbour discovery) is heard by every stack and answered by the one whose queue it came to.
 */
#include "dataplane/handover.h"

#include <stdio.h>

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#include "dataplane/worker.h"

#define SLOTS        512u
#define BURST        32u
#define TYPE_IPV4    0x0800u
#define TYPE_IPV6    0x86ddu
#define TYPE_ARP     0x0806u
#define TYPE_VLAN    0x8100u
#define PROTO_ICMP   1u
#define PROTO_ICMP6  58u
#define PROTO_HOPOPT 0u /* before ICMPv6 of multicast listeners */
#define A_COPY       UINT32_MAX

/* What a frame between two workers is, in a field that only a port's receive side uses: A_COPY, or how many stacks had it. */
#define KIND(m) ((m)->hash.usr)

bool dp_handover_open(struct dp_worker *w, uint32_t workers_count, char *err, size_t err_bytes)
{
	for (uint32_t from = 0; workers_count > 1 && from < workers_count; from++) {
		char name[RTE_RING_NAMESIZE];

		snprintf(name, sizeof name, "dp_hand_%u_%u", from, w->idx);
		w->hand[from] = rte_ring_create(name, SLOTS, w->numa_node, RING_F_SP_ENQ | RING_F_SC_DEQ);
		if (w->hand[from] == NULL) {
			snprintf(err, err_bytes, "no memory for the rings between workers on NUMA node %d (%s)", w->numa_node,
				 rte_strerror(rte_errno));
			return false;
		}
	}
	return true;
}

void dp_handover_close(struct dp_worker *w)
{
	for (uint32_t from = 0; from < CTL_WORKERS_MAX; from++) {
		void *m;

		if (w->hand[from] == NULL)
			continue;
		while (rte_ring_dequeue(w->hand[from], &m) == 0)
			rte_pktmbuf_free(m);
		rte_ring_free(w->hand[from]);
		w->hand[from] = NULL;
	}
}

static uint32_t be16_at(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* Not steered by flow, and of use to every stack: neighbours, and errors about connections that may be anybody's. */
static bool for_all(const struct rte_mbuf *m)
{
	const uint8_t *at = rte_pktmbuf_mtod(m, const uint8_t *) + 12, *end = at - 12 + m->data_len;
	uint32_t type;

	if (m->data_len >= 18 && be16_at(at) == TYPE_VLAN)
		at += 4;
	if (end - at < 12)
		return false;
	type = be16_at(at);
	if (type == TYPE_IPV4)
		return at[2 + 9] == PROTO_ICMP;
	if (type == TYPE_IPV6)
		return at[2 + 6] == PROTO_ICMP6 || at[2 + 6] == PROTO_HOPOPT;
	return type == TYPE_ARP;
}

static bool put(struct dp_worker *w, uint32_t to, struct rte_mbuf *m, uint32_t kind)
{
	KIND(m) = kind;
	if (rte_ring_enqueue(w->all[to]->hand[w->idx], m) == 0) {
		w->counter[DP_CNT_worker_handed_over]++;
		return true;
	}
	w->counter[DP_CNT_worker_handover_full]++;
	return false;
}

static void copy_to_others(struct dp_worker *w, const struct rte_mbuf *m)
{
	for (uint32_t to = 0; to < w->workers_count; to++) {
		struct rte_mbuf *copy;

		if (to == w->idx)
			continue;
		copy = rte_pktmbuf_copy(m, w->tx.pool, 0, UINT32_MAX);
		if (copy == NULL)
			w->counter[DP_CNT_worker_handover_full]++;
		else if (!put(w, to, copy, A_COPY))
			rte_pktmbuf_free(copy);
	}
}

static void into_stack(struct dp_worker *w, struct rte_mbuf *m, uint32_t rx_flags, uint32_t stacks_before)
{
	w->in_hand = m;
	w->in_hand_stacks = stacks_before;
	tcps_input(w->tcp, rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, rx_flags, w->now_ns);
	if (w->in_hand != NULL)
		rte_pktmbuf_free(m);
	w->in_hand = NULL;
}

void dp_handover_input(struct dp_worker *w, struct rte_mbuf *m, uint32_t rx_flags)
{
	if (for_all(m))
		copy_to_others(w, m);
	into_stack(w, m, rx_flags, 0);
}

/* A full ring loses the frame, which is counted; a reset would lose the connection. */
bool dp_handover_elsewhere(struct dp_worker *w)
{
	struct rte_mbuf *m = w->in_hand;

	if (m == NULL || w->in_hand_stacks + 1 >= w->workers_count)
		return false;
	if (put(w, (w->idx + 1) % w->workers_count, m, w->in_hand_stacks + 1))
		w->in_hand = NULL;
	return true;
}

uint32_t dp_handover_poll(struct dp_worker *w)
{
	uint32_t taken = 0;

	for (uint32_t from = 0; from < w->workers_count; from++) {
		void *frame[BURST];
		uint32_t count = from == w->idx ? 0 : rte_ring_dequeue_burst(w->hand[from], frame, BURST, NULL);

		for (uint32_t i = 0; i < count; i++) {
			struct rte_mbuf *m = frame[i];

			if (KIND(m) == A_COPY) {
				tcps_overhear(w->tcp, rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, dp_rx_flags(w, m),
					      w->now_ns);
				rte_pktmbuf_free(m);
			} else {
				into_stack(w, m, dp_rx_flags(w, m), KIND(m));
			}
		}
		taken += count;
	}
	return taken;
}
