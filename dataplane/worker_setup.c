/*
 * worker_setup.c - makes and unmakes a worker: its sizes, its one block of memory, the libraries inside it.
 *
 * Owns: the block.
 * Core: the main thread, before the worker runs and after it left.
 * Spec: DESIGN section 4: everything is bounded and allocated at start.
 */
#include <stdio.h>
#include <string.h>

#include <rte_mbuf.h>

#include "dataplane/conn.h"
#include "dataplane/handover.h"
#include "dataplane/mem.h"
#include "dataplane/worker.h"

#define SECOND_NS 1000000000ull
#define MS_NS     1000000ull

#define MAIL_SLOTS 1024u /* of each ring between two workers: 64 KiB */

/* More bindings than the default bring more rules, trie nodes and key bytes in the same proportion. */
static uint32_t scaled(uint32_t value, uint32_t wanted, uint32_t usual)
{
	uint64_t n = (uint64_t)value * wanted / (usual == 0 ? 1 : usual);

	return n < 64 ? 64 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void amqp_limits(struct amqp_limits *l, const struct dp_options *o)
{
	amqp_limits_default(l);
	if (o->bindings != 0) {
		l->rules_max = scaled(l->rules_max, o->bindings, l->bindings_max);
		l->rule_nodes_max = scaled(l->rule_nodes_max, o->bindings, l->bindings_max);
		l->rule_key_bytes_max = scaled(l->rule_key_bytes_max, o->bindings, l->bindings_max);
		l->bindings_max = o->bindings;
	}
	l->conns_max = o->connections != 0 ? o->connections : l->conns_max;
	l->channels_max = o->channels != 0 ? o->channels : l->channels_max;
	l->consumers_max = o->consumers != 0 ? o->consumers : l->consumers_max;
	l->exchanges_max = o->exchanges != 0 ? o->exchanges : l->exchanges_max;
	l->queues_max = o->queues != 0 ? o->queues : l->queues_max;
	l->entries_max = o->messages != 0 ? o->messages : l->entries_max;
	l->message_pool_bytes = o->messages_memory != 0 ? o->messages_memory : l->message_pool_bytes;
	l->workers_count = (uint8_t)o->workers;
	l->mail_slots = MAIL_SLOTS;
	l->message_bytes_max = o->message_max != 0 ? (uint32_t)o->message_max : l->message_bytes_max;
}

static void tcp_config(struct tcps_config *t, const struct amqp_limits *a, const struct dp_options *o, const struct dp_port *port)
{
	memset(t, 0, sizeof *t);
	memcpy(t->mac, port->mac, 6);
	memcpy(t->ipv4, o->ipv4.addr, 4);
	t->ipv4_prefix_len = (uint8_t)o->ipv4.len;
	memcpy(t->ipv4_gateway, o->gateway, 4);
	if (dp_options_given(o, "ipv6")) {
		memcpy(t->ipv6, o->ipv6.addr, 16);
		t->ipv6_prefix_len = (uint8_t)o->ipv6.len;
		memcpy(t->ipv6_gateway, o->gateway6, 16);
		t->dad_transmits = 1; /* RFC 4862 5.1 */
	}
	t->arp_probes = o->arp_probe ? 3 : 0; /* RFC 5227 1.1 */
	memcpy(t->routes, o->routes.entry, sizeof t->routes);
	t->route_count = o->routes.count;
	t->vlan_id = (uint16_t)o->vlan;
	t->tx_vlan_offload = port->tx_vlan_insert;
	t->mss_max = (uint16_t)(port->mss_max != 0 && (o->mss == 0 || o->mss > port->mss_max) ? port->mss_max : o->mss);
	t->mtu = port->mtu;
	t->tx_ip_cksum_offload = port->tx_ip_cksum;
	t->tx_tcp_cksum_offload = port->tx_tcp_cksum;
	t->tso_max_bytes = port->tx_tso ? DP_TSO_BYTES : 0;
	t->tx_pieces_max = port->tx_pieces_max;
	t->syn_cookies = true;
	t->ecn = true;
	t->conns_max = a->conns_max;
	t->half_open_max = a->conns_max / 4 < 256 ? 256 : a->conns_max / 4;
	t->time_wait_max = a->conns_max < 1024 ? 1024 : a->conns_max;
	t->listeners_max = 4;
	t->neighbours_max = 1024;
	t->blocks_max = (uint32_t)(o->tcp_memory / TCPS_BLOCK_BYTES < UINT32_MAX ? o->tcp_memory / TCPS_BLOCK_BYTES : UINT32_MAX);
	t->send_high_water_bytes = 128u << 10;
	t->recv_window_bytes = 256u << 10;
	t->rto_min_ns = 200 * MS_NS;
	t->rto_max_ns = 60 * SECOND_NS;
	t->msl_ns = 30 * SECOND_NS;
	t->delayed_ack_ns = 40 * MS_NS;
	/* RFC 9293 3.8.4: never shorter than two hours unless asked for; heartbeats find dead clients long before. */
	t->keepalive_ns = 7200 * SECOND_NS;
	t->retransmits_max = 15;
}

static size_t lines(size_t bytes)
{
	return (bytes + CTL_LINE_BYTES - 1) & ~(size_t)(CTL_LINE_BYTES - 1);
}

void dp_limits_from_options(struct dp_limits *l, const struct dp_options *o, const struct dp_port *port, const uint8_t secret[32])
{
	amqp_limits(&l->amqp, o);
	tcp_config(&l->tcp, &l->amqp, o, port);
	memcpy(l->tcp.secret, secret, 16);
	memcpy(l->amqp.secret, secret + 16, 16);
	l->tcp_bytes = tcps_mem_bytes(&l->tcp);
	l->amqp_bytes = amqp_broker_bytes(&l->amqp);
	l->block_bytes = lines(sizeof(struct dp_worker)) + lines(CTL_RECORD_MAX) + lines(l->tcp_bytes) + lines(l->amqp_bytes);
}

static bool make_libraries(struct dp_worker *w, const struct dp_limits *l, uint8_t *at, uint64_t now_ns, char *err,
			   size_t err_bytes)
{
	const char *why = "";
	struct amqp_limits amqp;

	w->op_scratch = at;
	at += lines(CTL_RECORD_MAX);
	w->tcp = tcps_init(at, l->tcp_bytes, &l->tcp, &dp_conn_tcps_ops, w, now_ns);
	if (w->tcp == NULL) {
		snprintf(err, err_bytes,
			 "the TCP stack refuses its limits: look at --mtu, --route, --connections and --tcp-memory");
		return false;
	}
	at += lines(l->tcp_bytes);
	amqp = l->amqp;
	amqp.worker_idx = (uint8_t)w->idx;
	w->amqp = amqp_broker_init(at, l->amqp_bytes, &amqp, &dp_conn_amqp_ops, w, &why);
	if (w->amqp == NULL) {
		snprintf(err, err_bytes, "the AMQP machine refuses its limits: %s", why);
		return false;
	}
	if (!tcps_listen(w->tcp, w->amqp_port)) {
		snprintf(err, err_bytes, "the TCP stack does not listen on port %u", w->amqp_port);
		return false;
	}
	return true;
}

static void set_constants(struct dp_worker *w, const struct dp_options *o, const struct dp_port *port)
{
	w->port_id = port->id;
	w->queue = (uint16_t)w->idx;
	w->amqp_port = (uint16_t)o->amqp_port;
	w->udp_echo = o->udp_echo;
	w->adaptive = o->idle == DP_IDLE_ADAPTIVE;
	w->rx_offloads = port->rx_cksum || port->rx_vlan_strip;
	/* A worker that sleeps is woken by the driver's signal; one that polls is better off without. */
	if (!w->adaptive && strcmp(port->driver, "net_tap") == 0)
		w->tap = dp_tap_poll_take();
	memcpy(w->mac, port->mac, 6);
	memcpy(w->ipv4, o->ipv4.addr, 4);
	w->idle_after_ns = o->idle_after_us * 1000ull;
	w->tx.port_id = port->id;
	w->tx.queue = w->queue;
	w->tx.prepare = port->tx_ip_cksum || port->tx_tcp_cksum || port->tx_vlan_insert;
	w->tx.burst_max = port->tx_burst_max;
	w->tx.pool = port->pool[w->idx];
	w->tx.tso_pool = port->tso_pool[w->idx];
	w->tx.frame_max = rte_pktmbuf_data_room_size(w->tx.pool) - RTE_PKTMBUF_HEADROOM;
	w->tx.piece_pool = port->piece_pool[w->idx];
	w->tx.piece_done = dp_conn_piece_done;
	w->tx.piece_ctx = w;
	w->tx.counters = w->counter;
	w->counter[DP_CNT_pool_mbufs_max] = port->mbufs_count;
}

struct dp_worker *dp_worker_create(uint32_t idx, uint32_t lcore, const struct dp_limits *l, const struct dp_options *o,
				   const struct dp_port *port, const struct dp_shm *shm, const struct dp_clock *clock, int kick_fd,
				   char *err, size_t err_bytes)
{
	char what[32];
	struct dp_worker *w;

	snprintf(what, sizeof what, "worker %u", idx);
	w = dp_mem_alloc(what, l->block_bytes, port->worker_node[idx], err, err_bytes);
	if (w == NULL)
		return NULL;
	w->idx = idx;
	w->lcore = lcore;
	w->numa_node = port->worker_node[idx];
	w->workers_count = 1;
	w->clock = *clock;
	w->kick_fd = kick_fd;
	w->requests = dp_shm_request_ring(shm, idx);
	w->ops = dp_shm_op_ring(shm, idx);
	w->stats = dp_shm_stats(shm, idx);
	dp_laps_init(&w->laps, clock);
	set_constants(w, o, port);
	dp_stages_init(&w->stages, w->stats->stage, &w->clock, o->sample_every);
	dp_rows_init(&w->rows, shm, idx);
	dp_mailbox_init(&w->inbox);
	dp_mailbox_init(&w->outbox);
	if (!make_libraries(w, l, (uint8_t *)w + lines(sizeof *w), clock->base_ns, err, err_bytes)) {
		dp_mem_free(w);
		return NULL;
	}
	dp_mem_report(what, w, l->block_bytes, w->numa_node);
	return w;
}

void dp_worker_destroy(struct dp_worker *w)
{
	if (w == NULL)
		return;
	/* The port is closed, so its ring gave back all pieces of messages; these frames have the last. */
	dp_tx_drop(&w->tx);
	dp_handover_close(w);
	if (w->mail != NULL)
		dp_mem_free(w->mail);
	dp_mem_free(w);
}

bool dp_workers_connect(struct dp_worker *const *all, uint32_t count, const struct dp_limits *l, char *err, size_t err_bytes)
{
	void *mail[CTL_WORKERS_MAX];
	char what[32];

	for (uint32_t i = 0; count > 1 && i < count; i++) {
		struct dp_worker *w = all[i];
		size_t bytes = amqp_mail_bytes(&l->amqp);

		snprintf(what, sizeof what, "mail of worker %u", i);
		w->mail = mail[i] = dp_mem_alloc(what, bytes, w->numa_node, err, err_bytes);
		if (w->mail == NULL || !dp_handover_open(w, count, err, err_bytes))
			return false;
		dp_mem_report(what, w->mail, bytes, w->numa_node);
		w->workers_count = count;
		w->all = all;
	}
	for (uint32_t i = 0; count > 1 && i < count; i++)
		amqp_mail_connect(all[i]->amqp, mail);
	return true;
}
