/*
 * counters.c - the dataplane's own counters, and all counters' way into shared memory.
 *
 * Owns: the order of a worker's counters in shared memory: the dataplane's, then TCP's, then AMQP's.
 * Core: a worker counts plainly in its own memory and publishes with relaxed stores; the main thread publishes group `nic`.
 * Spec: control/ctl_shm.h (the counters describe themselves); counters.def.
 */
#include "dataplane/counters.h"

#include <stdio.h>

_Static_assert(DP_COUNTERS_ALL <= CTL_COUNTERS_MAX, "the shared memory has a slot for every counter");

static const char *const own_names[] = {
#define DP_COUNTER(group, name, text) #group "." #name,
#include "dataplane/counters.def"
#undef DP_COUNTER
};
static const char *const own_texts[] = {
#define DP_COUNTER(group, name, text) text,
#include "dataplane/counters.def"
#undef DP_COUNTER
};

void dp_counters_describe(struct ctl_counter_desc *desc)
{
	unsigned i;

	for (i = 0; i < DP_CNT_COUNT; i++, desc++) {
		snprintf(desc->name, sizeof desc->name, "%s", own_names[i]);
		snprintf(desc->text, sizeof desc->text, "%s", own_texts[i]);
	}
	for (i = 0; i < TCPS_CNT_COUNT; i++, desc++) {
		snprintf(desc->name, sizeof desc->name, "tcp.%s", tcps_counter_name(i));
		snprintf(desc->text, sizeof desc->text, "%s", tcps_counter_text(i));
	}
	for (i = 0; i < AMQP_CNT_COUNT; i++, desc++) {
		snprintf(desc->name, sizeof desc->name, "amqp.%s", amqp_counter_name(i));
		snprintf(desc->text, sizeof desc->text, "%s", amqp_counter_text(i));
	}
}

static void store_all(_Atomic uint64_t *to, const uint64_t *from, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		atomic_store_explicit(&to[i], from[i], memory_order_relaxed);
}

void dp_counters_publish(struct ctl_worker_stats *stats, const uint64_t *own, const uint64_t *tcp, const uint64_t *amqp)
{
	store_all(stats->counter, own, DP_CNT_WORKER_COUNT);
	store_all(stats->counter + DP_CNT_COUNT, tcp, TCPS_CNT_COUNT);
	store_all(stats->counter + DP_CNT_COUNT + TCPS_CNT_COUNT, amqp, AMQP_CNT_COUNT);
}

void dp_counters_set(struct ctl_worker_stats *stats, enum dp_counter counter, uint64_t value)
{
	atomic_store_explicit(&stats->counter[counter], value, memory_order_relaxed);
}

void dp_counters_pools(uint64_t *own, const struct tcps_usage *tcp, const struct amqp_usage *amqp)
{
	own[DP_CNT_pool_tcp_conns] = tcp->conns;
	own[DP_CNT_pool_tcp_conns_max] = tcp->conns_max;
	own[DP_CNT_pool_tcp_half_open] = tcp->half_open;
	own[DP_CNT_pool_tcp_half_open_max] = tcp->half_open_max;
	own[DP_CNT_pool_tcp_time_wait] = tcp->time_wait;
	own[DP_CNT_pool_tcp_time_wait_max] = tcp->time_wait_max;
	own[DP_CNT_pool_tcp_blocks] = tcp->blocks_in_use;
	own[DP_CNT_pool_tcp_blocks_max] = tcp->blocks_max;
	own[DP_CNT_pool_tcp_refs] = tcp->refs_in_use;
	own[DP_CNT_pool_conns] = amqp->conns;
	own[DP_CNT_pool_conns_max] = amqp->conns_max;
	own[DP_CNT_pool_channels] = amqp->channels;
	own[DP_CNT_pool_channels_max] = amqp->channels_max;
	own[DP_CNT_pool_consumers] = amqp->consumers;
	own[DP_CNT_pool_consumers_max] = amqp->consumers_max;
	own[DP_CNT_pool_exchanges] = amqp->exchanges;
	own[DP_CNT_pool_exchanges_max] = amqp->exchanges_max;
	own[DP_CNT_pool_queues] = amqp->queues;
	own[DP_CNT_pool_queues_max] = amqp->queues_max;
	own[DP_CNT_pool_bindings] = amqp->bindings;
	own[DP_CNT_pool_bindings_max] = amqp->bindings_max;
	own[DP_CNT_pool_entries] = amqp->entries;
	own[DP_CNT_pool_entries_max] = amqp->entries_max;
	own[DP_CNT_pool_messages] = amqp->messages;
	own[DP_CNT_pool_message_bytes] = amqp->message_bytes;
	own[DP_CNT_pool_message_bytes_max] = amqp->message_bytes_max;
}
