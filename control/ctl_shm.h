/*
 * ctl_shm.h - the memory that control and dataplane share, and the messages that hand it over.
 *
 * Owns: the layout of one memfd: header, per-worker rings, statistics and rows, the database arena.
 * Core: the dataplane creates it; a worker writes its request ring, statistics and rows; control writes operation rings and
 * the arena. Neither side trusts a byte of the other: records are copied out first and checked afterwards.
 * Spec: DESIGN sections 1, 5 and 6; magic and version are written last and read first.
 */
#ifndef TICKWIRE_CTL_SHM_H
#define TICKWIRE_CTL_SHM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp/records.h"

#define CTL_SHM_MAGIC   0x5449434b57495245ull /* "TICKWIRE" */
#define CTL_SHM_VERSION 4u
#define CTL_WORKERS_MAX 16u
#define CTL_LINE_BYTES  64u
#define CTL_RECORD_MAX  (160u * 1024u) /* largest encoded record */
#define CTL_NAME_BYTES  256u

/* A single-producer single-consumer byte ring; `bytes` (a power of two) of data follow the struct. Indexes only grow. */
struct ctl_ring {
	_Alignas(CTL_LINE_BYTES) _Atomic uint64_t head; /* written by the producer */
	_Alignas(CTL_LINE_BYTES) _Atomic uint64_t tail; /* written by the consumer */
	_Alignas(CTL_LINE_BYTES) _Atomic uint32_t
		consumer_sleeps; /* consumer sets 1 before it sleeps; producer exchanges it to 0 */
	uint32_t pad;
	uint8_t data[];
};
/* One side's private view of a ring: the size is remembered here, never re-read from shared memory. */
struct ctl_ring_end {
	struct ctl_ring *ring;
	uint64_t bytes;
};
void ctl_ring_init(struct ctl_ring *r); /* by whoever owns both ends at that moment */
/* Encodes and publishes one record. Errors: false when it does not fit now (or never: see ctl_record_bytes). */
bool ctl_ring_put(struct ctl_ring_end *e, const struct amqp_record *rec);
/*
 * Copies the next record into `scratch` (CTL_RECORD_MAX bytes, private) and decodes it there; spans of *rec point into
 * scratch. 1: got one, 0: empty, -1: the ring is corrupt (it is emptied).
 */
int ctl_ring_get(struct ctl_ring_end *e, uint8_t *scratch, struct amqp_record *rec);
/* Inline: a worker asks at every loop. */
static inline bool ctl_ring_empty(const struct ctl_ring_end *e)
{
	return atomic_load_explicit(&e->ring->head, memory_order_acquire) ==
	       atomic_load_explicit(&e->ring->tail, memory_order_relaxed);
}
/* Producer: after put: must the consumer be kicked? Consumer: say that it sleeps; false when there is work after all. */
bool ctl_ring_wants_kick(struct ctl_ring_end *e);
bool ctl_ring_prepare_sleep(struct ctl_ring_end *e);
size_t ctl_record_bytes(const struct amqp_record *rec);
size_t ctl_record_encode(uint8_t *out, size_t cap, const struct amqp_record *rec); /* 0: does not fit */
bool ctl_record_decode(const uint8_t *in, size_t len, struct amqp_record *rec);    /* every length is checked */

/* ---- statistics: written by the worker with relaxed stores, read at any time ---- */

#define CTL_COUNTERS_MAX 384u
#define CTL_STAGES_MAX   8u
#define CTL_HIST_BUCKETS 512u /* log-linear over ns: 16 sub-buckets an octave, 0 .. 2^35 */

struct ctl_counter_desc { /* constant after start: the counters describe themselves */
	char name[48];    /* "worker.busy_cycles", "tcp.retransmits_rto", "amqp.publishes", "port.rx_packets", "pool.messages" */
	char text[112];
};
struct ctl_hist {
	char name[32]; /* constant: "rx_to_parsed", … */
	_Atomic uint64_t count, sum_ns, max_ns;
	_Atomic uint64_t bucket[CTL_HIST_BUCKETS];
};
static inline uint32_t ctl_hist_bucket(uint64_t ns)
{
	uint32_t shift, idx;

	if (ns < 16)
		return (uint32_t)ns;
	shift = (uint32_t)(63 - __builtin_clzll(ns)) - 4;
	idx = (shift + 1) * 16 + (uint32_t)((ns >> shift) & 15);
	return idx < CTL_HIST_BUCKETS ? idx : CTL_HIST_BUCKETS - 1;
}
/* The highest value that falls into a bucket. */
static inline uint64_t ctl_hist_upper_ns(uint32_t bucket)
{
	uint32_t shift = bucket / 16;

	return shift == 0 ? bucket : ((uint64_t)(16 + bucket % 16 + 1) << (shift - 1)) - 1;
}

struct ctl_worker_stats {
	_Alignas(CTL_LINE_BYTES) _Atomic uint64_t counter[CTL_COUNTERS_MAX];
	_Atomic uint64_t updated_ns;
	char longest_loop_what[32]; /* what the longest loop was doing: "receive: 32 frames" */
	struct ctl_hist stage[CTL_STAGES_MAX];
};

/* Rows: one slot per pool index. Even seq: stable; odd: being written. A reader copies and re-checks seq (ctl_row_read). */
struct ctl_row_head {
	_Atomic uint32_t seq;
	uint32_t in_use;
};
struct ctl_row_conn {
	struct ctl_row_head head;
	uint64_t uid;
	char state[16], tcp_state[16], user[CTL_NAME_BYTES], vhost[CTL_NAME_BYTES], peer_host[48], host[48],
		name[128]; /* host: our own end's */
	char client_product[64], client_version[32], client_platform[64];
	uint16_t peer_port, port;
	uint32_t channels, frame_max, channel_max, timeout_s;
	uint32_t srtt_us, rttvar_us, rto_ms, cwnd_bytes, ssthresh_bytes, mss, snd_wnd_bytes, rcv_wnd_bytes, unsent_bytes,
		unacked_bytes, sacked_bytes, lost_bytes, min_rtt_us;
	char congestion[12];
	uint8_t sack, timestamps, recovery, reordering;
	uint64_t recv_oct, recv_cnt, send_oct, send_cnt, connected_at_s, retransmits;
};
struct ctl_row_channel {
	struct ctl_row_head head;
	uint64_t conn_uid;
	uint32_t number, consumer_count, messages_unacknowledged, messages_unconfirmed, prefetch_count, global_prefetch_count,
		confirm;
	uint32_t pad;
	uint64_t publishes, deliveries, acks;
};
struct ctl_row_queue {
	struct ctl_row_head head;
	uint32_t queue_id, consumers;
	uint64_t messages_ready, messages_unacknowledged, message_bytes_ready, message_bytes_unacknowledged;
	uint64_t published, delivered, acked, dropped, redelivered;
};
struct ctl_row_consumer {
	struct ctl_row_head head;
	uint64_t conn_uid;
	uint32_t queue_id, channel, prefetch_count, unacked, ack_required, exclusive, active, pad;
	char tag[CTL_NAME_BYTES];
};
/* Writer's side. */
static inline void ctl_row_begin(struct ctl_row_head *h)
{
	atomic_store_explicit(&h->seq, atomic_load_explicit(&h->seq, memory_order_relaxed) | 1u, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
}
static inline void ctl_row_end(struct ctl_row_head *h)
{
	atomic_store_explicit(&h->seq, (atomic_load_explicit(&h->seq, memory_order_relaxed) | 1u) + 1u, memory_order_release);
}
/* Reader's side: copies a row of `bytes`; false when it is free or was written all the while (bounded tries). */
bool ctl_row_read(const void *row, void *copy, size_t bytes);

/* ---- the header ---- */

struct ctl_table { /* rows of one kind */
	uint64_t offset;
	uint32_t row_bytes, rows_max;
	_Atomic uint32_t rows_used; /* high-water mark, written by the worker */
	uint32_t pad;
};
struct ctl_worker_layout {
	uint64_t request_ring_offset, request_ring_bytes; /* bytes: of the data, a power of two */
	uint64_t op_ring_offset, op_ring_bytes;
	uint64_t stats_offset;
	struct ctl_table conns, channels, queues, consumers;
	uint32_t lcore, numa_node;
};
struct ctl_shm_header {
	_Atomic uint64_t magic; /* written last */
	uint32_t version, header_bytes;
	uint64_t total_bytes;
	uint64_t boot_id;   /* random per dataplane start: control tells a restarted dataplane from the one it knew */
	uint64_t started_s; /* wall clock */
	uint64_t tsc_hz;
	uint32_t pid, workers_count, counters_count, stages_count;
	uint64_t counter_desc_offset;       /* counters_count descriptions */
	uint64_t arena_offset, arena_bytes; /* databases: page aligned; written by control, mapped read-only by the dataplane */
	/* limits that control keeps to when it gives ids */
	uint32_t exchanges_max, queues_max, bindings_max, rules_max, conns_max, channels_max;
	char version_text[32], port_text[128], address_text[64]; /* for `tickctl status` */
	struct ctl_worker_layout worker[CTL_WORKERS_MAX];
};
/*
 * Checks a mapped header of `mapped_bytes` and copies it to `out`, private; everything that is used afterwards comes from the copy.
 * Errors: false and a sentence.
 */
bool ctl_shm_check(const void *map, size_t mapped_bytes, struct ctl_shm_header *out, const char **err);

/* ---- messages on the Unix socket (SOCK_SEQPACKET) between the dataplane's main thread and control ---- */

enum ctl_msg_kind {
	CTL_MSG_HELLO = 1, /* dataplane: the memfd and the eventfd that kicks control, as SCM_RIGHTS; `bytes` is the memfd's size */
	CTL_MSG_BUSY,      /* dataplane: another control is attached; it closes */
	CTL_MSG_DB_PUBLISH,  /* control: an image for exchange `id` at arena `offset`, `bytes` long */
	CTL_MSG_DB_TAKEN,    /* dataplane: every worker uses generation `generation` of exchange `id` */
	CTL_MSG_DB_REFUSED,  /* dataplane: it does not (text says why); the arena space is control's again */
	CTL_MSG_DB_RELEASED, /* dataplane: nobody reads arena `offset` any more */
	CTL_MSG_DRAINING     /* dataplane: SIGTERM, it leaves now */
};
struct ctl_msg {
	uint32_t kind, id;
	uint64_t generation, offset, bytes;
	char text[160];
};

#endif
