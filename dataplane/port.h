/*
 * port.h - the one Ethernet port: chosen, configured by what it can do, started and stopped.
 *
 * Owns: `struct dp_port` and the packet buffer pools of its queues.
 * Core: the main thread; a worker only bursts on its own queue pair.
 * Spec: DPDK 22.11 ethdev; which PMD it is comes from the EAL arguments.
 */
#ifndef TICKWIRE_DP_PORT_H
#define TICKWIRE_DP_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/ctl_shm.h"
#include "dataplane/options.h"

/* One descriptor of every NIC that we know of takes 16,383 bytes. */
#define DP_TSO_BYTES 15360u

struct rte_mempool;

struct dp_port {
	uint16_t id;
	char name[64], driver[32];
	bool software; /* on the vdev bus: the kernel or another process is the wire */
	bool started;
	uint8_t mac[6]; /* of our stack, which need not be the port's */
	bool promiscuous;
	bool rss; /* the port spreads flows over the queues */
	uint16_t mtu, rx_desc_count, tx_desc_count;
	uint16_t tx_burst_max; /* 0: any */
	bool rx_cksum, tx_ip_cksum, tx_tcp_cksum;
	bool tx_tso;                        /* the port cuts frames of up to DP_TSO_BYTES of payload */
	uint8_t tx_pieces_max;              /* pieces of messages that a frame may end in; 0: frames are contiguous */
	uint16_t mss_max;                   /* what it can cut to, where that is less than the MTU leaves; 0: no limit */
	bool rx_vlan_strip, tx_vlan_insert; /* the tag of --vlan is the port's to take off, to put on */
	int numa_node;                      /* of the port; that of the first worker where the port has none */
	int worker_node[CTL_WORKERS_MAX];   /* where a worker's pools lie: on its own node, if there are several */
	uint32_t mbufs_count;               /* in each pool */
	struct rte_mempool *pool[CTL_WORKERS_MAX], *tso_pool[CTL_WORKERS_MAX], *piece_pool[CTL_WORKERS_MAX];
	bool link_up;
	char text[128]; /* one line for `tickctl status` */
};

/* Finds the only port, sets it up with a queue pair a worker and starts it. Errors: an exit status and a sentence. */
int dp_port_open(struct dp_port *p, const struct dp_options *o, const uint32_t *worker_lcore, char *err, size_t err_bytes);
void dp_port_close(struct dp_port *p);
/* Reads the link; true when it changed since the last look. */
bool dp_port_link_changed(struct dp_port *p);
/* The port's own registers, for group `nic` of the counters. */
void dp_port_publish(const struct dp_port *p, struct ctl_worker_stats *stats);

#endif
