/*
 * port.c - the one Ethernet port: chosen, configured by what it can do, started and stopped.
 *
 * Owns: `struct dp_port` and the packet buffer pools of its queues.
 * Core: the main thread; a worker only bursts on its own queue pair.
 * Spec: DPDK 22.11 ethdev; which PMD it is comes from the EAL arguments.
 */
#include "dataplane/port.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#include "dataplane/counters.h"
#include "dataplane/log.h"
#include "dataplane/tx.h"

#define DESCS_WANTED    1024u
#define MBUF_CACHE      256u
#define ETHER_OVERHEAD  (RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 2u * RTE_VLAN_HLEN)
#define PIECES_WANTED   6u   /* i40e takes 8 buffers a packet */
#define TSO_HEADERS     160u /* Ethernet, tag, IPv6, TCP with options */
#define TAP_TSO_HEADERS 74u  /* Ethernet, IPv6, TCP without options */

struct fault {
	char *text;
	size_t bytes;
};

static int fault(struct fault *f, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fault(struct fault *f, int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(f->text, f->bytes, format, args);
	va_end(args);
	return status;
}

static int choose(struct dp_port *p, struct rte_eth_dev_info *info, struct fault *f)
{
	uint16_t count = rte_eth_dev_count_avail();
	const struct rte_bus *bus;
	const char *bus_name;

	if (count == 0)
		return fault(f, DP_EX_CONFIG,
			     "no DPDK port: give one with --vdev=… or bind a NIC (dpdk-devbind.py); if one was given, DPDK's lines "
			     "above "
			     "say why it could not be made");
	if (count > 1)
		return fault(f, DP_EX_CONFIG,
			     "%u DPDK ports, but one is served: name it alone with -a ADDRESS or --vdev=… and --no-pci", count);
	p->id = (uint16_t)rte_eth_find_next(0);
	if (rte_eth_dev_info_get(p->id, info) != 0 || rte_eth_dev_get_name_by_port(p->id, p->name) != 0)
		return fault(f, DP_EX_UNAVAILABLE, "DPDK port %u tells nothing about itself: is the device still there?", p->id);
	snprintf(p->driver, sizeof p->driver, "%s", info->driver_name);
	bus = rte_dev_bus(info->device);
	bus_name = bus == NULL ? NULL : rte_bus_name(bus);
	p->software = bus_name != NULL && strcmp(bus_name, "vdev") == 0;
	/* Measured (README): bursts of more than 16 frames lose some in net_af_xdp's copy mode, and TCP then waits for its RTO. */
	p->tx_burst_max = strcmp(p->driver, "net_af_xdp") == 0 ? 8 : 0;
	return 0;
}

static int choose_mtu(struct dp_port *p, const struct rte_eth_dev_info *info, const struct dp_options *o, struct fault *f)
{
	uint16_t mtu = 0;

	if (rte_eth_dev_get_mtu(p->id, &mtu) != 0)
		mtu = RTE_ETHER_MTU;
	if (o->mtu != 0 && (o->mtu < info->min_mtu || (info->max_mtu != 0 && o->mtu > info->max_mtu)))
		return fault(f, DP_EX_CONFIG, "--mtu %u: port %s (%s) takes %u to %u", o->mtu, p->name, p->driver, info->min_mtu,
			     info->max_mtu);
	p->mtu = o->mtu != 0 ? (uint16_t)o->mtu : mtu;
	return 0;
}

/*
 * Software ports offer checksums that are computed on the CPU all the same, net_tap's wrongly at that (README): the stack
 * does it then. A NIC is asked for what it has.
 */
static int choose_offloads(struct dp_port *p, const struct rte_eth_dev_info *info, const struct dp_options *o,
			   struct rte_eth_conf *conf, struct fault *f)
{
	const uint64_t rx_cksum = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
	const uint64_t tso = RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
	bool can_tso = (info->tx_offload_capa & tso) == tso;

	conf->rxmode.mtu = p->mtu;
	if (o->tso == DP_OFFLOAD_ON && !can_tso)
		return fault(f, DP_EX_CONFIG, "port %s (%s) cannot cut frames into segments: leave --tso on out", p->name,
			     p->driver);
	p->tx_tso = can_tso && (o->tso == DP_OFFLOAD_ON || (o->tso == DP_OFFLOAD_AUTO && !p->software));
	if (p->software && p->tx_tso) {
		p->tx_ip_cksum = p->tx_tcp_cksum = true;
		conf->txmode.offloads |= tso;
		/* It holds the Ethernet header against the MTU, and never takes a frame whose pieces would be longer. */
		if (strcmp(p->driver, "net_tap") == 0)
			p->mss_max = (uint16_t)(p->mtu - TAP_TSO_HEADERS);
	}
	if (p->software)
		return 0;
	p->rx_cksum = (info->rx_offload_capa & rx_cksum) == rx_cksum;
	p->tx_ip_cksum = (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0;
	p->tx_tcp_cksum = (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) != 0;
	conf->rxmode.offloads |= p->rx_cksum ? rx_cksum : 0;
	conf->txmode.offloads |= p->tx_ip_cksum ? RTE_ETH_TX_OFFLOAD_IPV4_CKSUM : 0;
	conf->txmode.offloads |= p->tx_tcp_cksum ? RTE_ETH_TX_OFFLOAD_TCP_CKSUM : 0;
	p->rx_vlan_strip = o->vlan != 0 && (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_STRIP) != 0;
	p->tx_vlan_insert = o->vlan != 0 && (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_VLAN_INSERT) != 0;
	conf->rxmode.offloads |= p->rx_vlan_strip ? RTE_ETH_RX_OFFLOAD_VLAN_STRIP : 0;
	conf->txmode.offloads |= p->tx_vlan_insert ? RTE_ETH_TX_OFFLOAD_VLAN_INSERT : 0;
	conf->txmode.offloads |= p->tx_tso ? tso : 0;
	return 0;
}

/* Why the port takes no frames of several pieces; NULL: it does. */
static const char *no_pieces(const struct dp_port *p, const struct rte_eth_dev_info *info)
{
	/* net_af_xdp is such a one: it would send the first buffer and whatever lies behind it. */
	if ((info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) == 0 || info->tx_desc_lim.nb_mtu_seg_max == 1 ||
	    info->tx_desc_lim.nb_seg_max == 1)
		return "its driver takes one buffer a frame";
	if (!p->software && rte_eal_iova_mode() != RTE_IOVA_VA)
		return "messages have no address that a NIC knows without an IOMMU (--iova-mode=va)";
	if (strcmp(p->driver, "net_tap") == 0 && p->tx_tso)
		return "net_tap's checksums are wrong behind a piece of odd length, and --tso on asks for them";
	return NULL;
}

/*
 * Messages lie in one block of DPDK's heap (mem.c), which is mapped for the port and contiguous by virtual address. Pieces pay
 * where nobody reads them but the NIC: where the stack sums them, a copy made on the way costs less (README).
 */
static int choose_pieces(struct dp_port *p, const struct rte_eth_dev_info *info, const struct dp_options *o,
			 struct rte_eth_conf *conf, struct fault *f)
{
	const char *why = no_pieces(p, info);
	uint32_t most = PIECES_WANTED;

	if (o->multi_segs == DP_OFFLOAD_ON && why != NULL)
		return fault(f, DP_EX_CONFIG,
			     "port %s (%s) cannot send messages from where they lie (%s): leave --multi-segs on out", p->name,
			     p->driver, why);
	if (info->tx_desc_lim.nb_mtu_seg_max != 0)
		most = RTE_MIN(most, info->tx_desc_lim.nb_mtu_seg_max - 1u);
	if (info->tx_desc_lim.nb_seg_max != 0)
		most = RTE_MIN(most, info->tx_desc_lim.nb_seg_max - 1u);
	if (why == NULL &&
	    (o->multi_segs == DP_OFFLOAD_ON || (o->multi_segs == DP_OFFLOAD_AUTO && !p->software && p->tx_tcp_cksum)))
		p->tx_pieces_max = (uint8_t)most;
	if (p->tx_pieces_max != 0)
		conf->txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	/* Fast: every frame of a queue is one buffer of that queue's pool with one reference. */
	else if (!p->software && !p->tx_tso)
		conf->txmode.offloads |= info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	return 0;
}

/* As many as the port's descriptors and our array hold; where there are none, bytes are copied. */
static int make_piece_pool(struct dp_port *p, uint32_t worker, struct fault *f)
{
	uint32_t count = p->tx_desc_count + DP_TX_FRAMES_MAX;
	char name[RTE_MEMPOOL_NAMESIZE];

	if (p->tx_pieces_max == 0)
		return 0;
	snprintf(name, sizeof name, "dp_pieces_%u", worker);
	p->piece_pool[worker] = dp_tx_piece_pool(name, count, p->worker_node[worker]);
	if (p->piece_pool[worker] == NULL)
		return fault(f, DP_EX_UNAVAILABLE,
			     "no memory for %u packet buffers on NUMA node %d (%s): give DPDK more (-m MIB or --socket-mem)", count,
			     p->worker_node[worker], rte_strerror(rte_errno));
	return 0;
}

/* Frames that the port cuts: as many as its descriptors and our array hold. */
static int make_tso_pool(struct dp_port *p, uint32_t worker, struct fault *f)
{
	uint32_t room = RTE_PKTMBUF_HEADROOM + DP_TSO_BYTES + TSO_HEADERS, count = p->tx_desc_count + DP_TX_FRAMES_MAX;
	char name[RTE_MEMPOOL_NAMESIZE];

	if (!p->tx_tso)
		return 0;
	snprintf(name, sizeof name, "dp_long_%u", worker);
	p->tso_pool[worker] = rte_pktmbuf_pool_create(name, count, 0, 0, (uint16_t)room, p->worker_node[worker]);
	if (p->tso_pool[worker] == NULL)
		return fault(f, DP_EX_UNAVAILABLE,
			     "no memory for %u long packet buffers on NUMA node %d (%s): give DPDK more (-m MIB or --socket-mem), "
			     "or --tso off",
			     count, p->worker_node[worker], rte_strerror(rte_errno));
	return 0;
}

static int make_pool(struct dp_port *p, uint32_t worker, struct fault *f)
{
	uint32_t room = RTE_PKTMBUF_HEADROOM + p->mtu + ETHER_OVERHEAD;
	char name[RTE_MEMPOOL_NAMESIZE];

	/* All descriptors of both directions filled, the collected frames, the caches, and a burst in hand. */
	p->mbufs_count = p->rx_desc_count + p->tx_desc_count + DP_TX_FRAMES_MAX + 3 * MBUF_CACHE + DP_BURST_MAX;
	room = room < RTE_MBUF_DEFAULT_BUF_SIZE ? RTE_MBUF_DEFAULT_BUF_SIZE : RTE_ALIGN_CEIL(room, 64u);
	snprintf(name, sizeof name, "dp_mbufs_%u", worker);
	p->pool[worker] = rte_pktmbuf_pool_create(name, p->mbufs_count, MBUF_CACHE, 0, (uint16_t)room, p->worker_node[worker]);
	if (p->pool[worker] == NULL)
		return fault(f, DP_EX_UNAVAILABLE,
			     "no memory for %u packet buffers on NUMA node %d (%s): give DPDK more (-m MIB or --socket-mem)",
			     p->mbufs_count, p->worker_node[worker], rte_strerror(rte_errno));
	return 0;
}

/*
 * A NIC spreads flows over its queues by their hash. Software ports are not asked: their kernel does it by a hash of its own, or
 * the peer chooses the queue; a flow stays where it began all the same.
 */
static void choose_steering(struct dp_port *p, const struct rte_eth_dev_info *info, const struct dp_options *o,
			    struct rte_eth_conf *conf)
{
	const uint64_t flows = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_TCP;

	if (o->workers < 2 || p->software || (info->flow_type_rss_offloads & flows) == 0)
		return;
	conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	conf->rx_adv_conf.rss_conf.rss_hf = info->flow_type_rss_offloads & flows;
	p->rss = true;
}

static int make_queues(struct dp_port *p, const struct rte_eth_dev_info *info, const struct dp_options *o, struct fault *f)
{
	uint32_t workers_count = o->workers;
	struct rte_eth_conf conf;
	int rc;

	memset(&conf, 0, sizeof conf);
	if (info->max_rx_queues < workers_count || info->max_tx_queues < workers_count)
		return fault(f, DP_EX_CONFIG,
			     "port %s (%s) has %u receive and %u transmit queues, and %u workers need one pair each", p->name,
			     p->driver, info->max_rx_queues, info->max_tx_queues, workers_count);
	rc = choose_offloads(p, info, o, &conf, f);
	if (rc == 0)
		rc = choose_pieces(p, info, o, &conf, f);
	if (rc != 0)
		return rc;
	choose_steering(p, info, o, &conf);
	rc = rte_eth_dev_configure(p->id, (uint16_t)workers_count, (uint16_t)workers_count, &conf);
	if (rc != 0)
		return fault(f, DP_EX_UNAVAILABLE, "port %s (%s) refuses its configuration: %s", p->name, p->driver,
			     rte_strerror(-rc));
	p->rx_desc_count = p->tx_desc_count = DESCS_WANTED;
	rc = rte_eth_dev_adjust_nb_rx_tx_desc(p->id, &p->rx_desc_count, &p->tx_desc_count);
	for (uint32_t i = 0; rc == 0 && i < workers_count; i++) {
		int status = make_pool(p, i, f);

		if (status == 0)
			status = make_tso_pool(p, i, f);
		if (status == 0)
			status = make_piece_pool(p, i, f);
		if (status != 0)
			return status;
		rc = rte_eth_rx_queue_setup(p->id, (uint16_t)i, p->rx_desc_count, (unsigned)p->worker_node[i], NULL, p->pool[i]);
		if (rc == 0)
			rc = rte_eth_tx_queue_setup(p->id, (uint16_t)i, p->tx_desc_count, (unsigned)p->worker_node[i], NULL);
	}
	if (rc != 0)
		return fault(f, DP_EX_UNAVAILABLE, "port %s (%s) gives no queues: %s", p->name, p->driver, rte_strerror(-rc));
	return 0;
}

/*
 * net_tap's kernel netdev has the port's own address, and a host must not have an address twice on one wire: the stack
 * takes the locally administered one beside it.
 */
static void choose_mac(struct dp_port *p, const struct rte_ether_addr *port_mac, const struct dp_options *o)
{
	memcpy(p->mac, port_mac->addr_bytes, 6);
	if (dp_options_given(o, "mac")) {
		memcpy(p->mac, o->mac, 6);
	} else if (strcmp(p->driver, "net_tap") == 0) {
		p->mac[0] = (uint8_t)((p->mac[0] | 2u) & ~1u);
		p->mac[5] ^= 1u;
	}
}

static int receive_own_mac(struct dp_port *p, const struct rte_ether_addr *port_mac, struct fault *f)
{
	struct rte_ether_addr own;
	int rc;

	memcpy(own.addr_bytes, p->mac, 6);
	if (memcmp(port_mac->addr_bytes, p->mac, 6) == 0)
		return 0;
	/* A software port's address is that of a kernel interface, which is left as it is. */
	if (!p->software && (rte_eth_dev_default_mac_addr_set(p->id, &own) == 0 || rte_eth_dev_mac_addr_add(p->id, &own, 0) == 0))
		return 0;
	rc = rte_eth_promiscuous_enable(p->id);
	if (rc != 0)
		return fault(f, DP_EX_UNAVAILABLE,
			     "port %s (%s) cannot receive for another Ethernet address than its own (%s): leave --mac out", p->name,
			     p->driver, rte_strerror(-rc));
	p->promiscuous = true;
	return 0;
}

/* Neighbour discovery comes to groups. Software ports bring every frame of their wire, and some refuse to be told so. */
static int receive_groups(struct dp_port *p, const struct dp_options *o, struct fault *f)
{
	int rc;

	if (!dp_options_given(o, "ipv6") || p->promiscuous)
		return 0;
	rc = rte_eth_allmulticast_enable(p->id);
	if (rc == 0 || p->software)
		return 0;
	rc = rte_eth_promiscuous_enable(p->id);
	if (rc != 0)
		return fault(f, DP_EX_UNAVAILABLE,
			     "port %s (%s) cannot receive for groups (%s), and IPv6 needs that: leave --ipv6 out", p->name,
			     p->driver, rte_strerror(-rc));
	p->promiscuous = true;
	return 0;
}

static int start(struct dp_port *p, const struct dp_options *o, struct fault *f)
{
	struct rte_ether_addr port_mac;
	int rc = 0, status;

	if (o->mtu != 0)
		rc = rte_eth_dev_set_mtu(p->id, p->mtu);
	if (rc != 0)
		return fault(f, DP_EX_UNAVAILABLE, "port %s (%s) refuses --mtu %u: %s", p->name, p->driver, p->mtu,
			     rte_strerror(-rc));
	rc = rte_eth_dev_start(p->id);
	if (rc != 0)
		return fault(f, DP_EX_UNAVAILABLE, "port %s (%s) does not start: %s", p->name, p->driver, rte_strerror(-rc));
	p->started = true;
	rc = rte_eth_macaddr_get(p->id, &port_mac);
	if (rc != 0)
		return fault(f, DP_EX_UNAVAILABLE, "port %s (%s) has no Ethernet address: %s", p->name, p->driver,
			     rte_strerror(-rc));
	choose_mac(p, &port_mac, o);
	status = receive_own_mac(p, &port_mac, f);
	if (status == 0)
		status = receive_groups(p, o, f);
	dp_port_link_changed(p);
	return status;
}

static void tell(struct dp_port *p, const struct dp_options *o)
{
	uint32_t workers_count = o->workers;

	snprintf(p->text, sizeof p->text, "%s (%s) %02x:%02x:%02x:%02x:%02x:%02x mtu %u", p->name, p->driver, p->mac[0], p->mac[1],
		 p->mac[2], p->mac[3], p->mac[4], p->mac[5], p->mtu);
	dp_log(DP_LOG_INFO, "port: %s%s, %u queue pair%s, %u+%u descriptors, NUMA node %d", p->text,
	       p->promiscuous ? ", promiscuous" : "", workers_count, workers_count == 1 ? "" : "s", p->rx_desc_count,
	       p->tx_desc_count, p->numa_node);
	dp_log(DP_LOG_INFO, "port: checksums verified by the %s, filled in by the %s; segments cut by the %s; link is %s",
	       p->rx_cksum ? "port" : "stack", p->tx_tcp_cksum ? "port" : "stack", p->tx_tso ? "port" : "stack",
	       p->link_up ? "up" : "down");
	if (workers_count > 1)
		dp_log(DP_LOG_INFO, "port: flows are spread over its queues by %s",
		       p->rss ? "the port (RSS)" : "whoever is behind it");
	if (p->tx_pieces_max != 0)
		dp_log(DP_LOG_INFO, "port: large bodies are sent from where they lie, in up to %u pieces a frame",
		       p->tx_pieces_max);
	else
		dp_log(DP_LOG_INFO, "port: large bodies are copied into frames");
	if (o->vlan != 0)
		dp_log(DP_LOG_INFO, "port: VLAN %u, tags taken off by the %s, put on by the %s", o->vlan,
		       p->rx_vlan_strip ? "port" : "stack", p->tx_vlan_insert ? "port" : "stack");
}

int dp_port_open(struct dp_port *p, const struct dp_options *o, const uint32_t *worker_lcore, char *err, size_t err_bytes)
{
	struct fault f = {err, err_bytes};
	struct rte_eth_dev_info info;
	int status, worker_node = (int)rte_lcore_to_socket_id(worker_lcore[0]);

	memset(p, 0, sizeof *p);
	status = choose(p, &info, &f);
	if (status != 0)
		return status;
	p->numa_node = rte_eth_dev_socket_id(p->id);
	if (p->numa_node < 0)
		p->numa_node = worker_node;
	else if (p->numa_node != worker_node)
		dp_log(DP_LOG_WARNING,
		       "the port is on NUMA node %d and the worker on node %d: every frame crosses between them; choose other "
		       "lcores",
		       p->numa_node, worker_node);
	for (uint32_t i = 0; i < o->workers; i++)
		p->worker_node[i] = o->workers > 1 ? (int)rte_lcore_to_socket_id(worker_lcore[i]) : p->numa_node;
	status = choose_mtu(p, &info, o, &f);
	if (status == 0)
		status = make_queues(p, &info, o, &f);
	if (status == 0)
		status = start(p, o, &f);
	if (status == 0)
		tell(p, o);
	return status;
}

void dp_port_close(struct dp_port *p)
{
	if (p->started) {
		rte_eth_dev_stop(p->id);
		rte_eth_dev_close(p->id);
		p->started = false;
	}
}

bool dp_port_link_changed(struct dp_port *p)
{
	struct rte_eth_link link;
	bool was_up = p->link_up;

	if (rte_eth_link_get_nowait(p->id, &link) == 0)
		p->link_up = link.link_status == RTE_ETH_LINK_UP;
	return p->link_up != was_up;
}

void dp_port_publish(const struct dp_port *p, struct ctl_worker_stats *stats)
{
	struct rte_eth_stats s;

	if (rte_eth_stats_get(p->id, &s) != 0)
		return;
	dp_counters_set(stats, DP_CNT_nic_imissed, s.imissed);
	dp_counters_set(stats, DP_CNT_nic_ierrors, s.ierrors);
	dp_counters_set(stats, DP_CNT_nic_oerrors, s.oerrors);
	dp_counters_set(stats, DP_CNT_nic_rx_nombuf, s.rx_nombuf);
	dp_counters_set(stats, DP_CNT_nic_link_up, p->link_up);
}
