/*
 * internal.h - the structures behind tcpstack.h and the calls between the files of this folder.
 *
 * Owns: struct tcps, its connections (hot and cold blocks), pools, records and tables; each field has one writer, the worker.
 * Core: the worker that made the stack.
 * Spec: RFC 9293 3.3 for the variables, whose names are kept (snd_una, rcv_nxt, ...).
 */
#ifndef TICKWIRE_TCPSTACK_INTERNAL_H
#define TICKWIRE_TCPSTACK_INTERNAL_H

#include "tcpstack/tcpstack.h"
#include "tcpstack/cksum.h"
#include "tcpstack/loss.h"
#include "tcpstack/network.h"
#include "tcpstack/siphash.h"
#include "tcpstack/wheel.h"
#include "tcpstack/wire.h"

/* Set for the test that compares the short paths in and out with the general ones: it leaves the short ones out. */
#ifndef TCPS_GENERAL_ONLY
#define TCPS_GENERAL_ONLY 0
#endif

#define TCPS_NIL            UINT32_MAX
#define TCPS_BLOCK_ROOM     (TCPS_BLOCK_BYTES - 16u)
#define TCPS_OOO_MAX        16u
#define TCPS_QUEUED_MAX     (1u << 30)    /* bytes in one send queue: keeps sequence arithmetic unambiguous */
#define TCPS_MSS_FLOOR      64u           /* a peer that asks for less would make us send headers only */
#define TCPS_RTO_INITIAL_NS 1000000000ull /* RFC 6298 2.1 */
#define TCPS_SYN_TRIES_MAX  5u
#define TCPS_NS_PER_MS      1000000ull
#define TCPS_COOKIES_USED   1024u /* a power of two */
#define TCPS_BLOCKS_ASSURED 2u    /* of each direction of a connection, however short blocks are */
#define TCPS_PIECE_MIN      512u  /* what is shorter costs more as a piece than as a copy (dataplane/README.md) */

/* LISTEN is a port, not a connection; TIME_WAIT is one only while bytes wait for a stopped reader. */
enum tcps_state {
	TCPS_CLOSED,
	TCPS_SYN_SENT,
	TCPS_SYN_RECEIVED,
	TCPS_ESTABLISHED,
	TCPS_FIN_WAIT_1,
	TCPS_FIN_WAIT_2,
	TCPS_CLOSE_WAIT,
	TCPS_CLOSING,
	TCPS_LAST_ACK,
	TCPS_TIME_WAIT,
	TCPS_STATE_COUNT
};

enum tcps_timer_kind {
	TCPS_TIMER_CONN = 1,
	TCPS_TIMER_HALF_OPEN,
	TCPS_TIMER_TIME_WAIT,
	TCPS_TIMER_NEIGHBOUR,
	TCPS_TIMER_OWN,
	TCPS_TIMER_PMTU
};

/* Bits of tcps_conn.flags. */
#define CF_TS         0x00000001u /* both sides sent the timestamps option */
#define CF_TOUCHED    0x00000002u /* on the touched list */
#define CF_ACK_NOW    0x00000004u /* the next flush must send an ACK */
#define CF_FIN_QUEUED 0x00000008u /* tcps_shutdown(): FIN follows the last queued byte */
#define CF_PAUSED     0x00000010u /* on_data() took less than it was given */
#define CF_IN_DATA    0x00000020u /* on_data() is running */
#define CF_RESUME     0x00000040u /* tcps_resume() came from inside on_data(): done at the next flush */
#define CF_OOO        0x00000080u /* something is queued out of order */
#define CF_RECOVERY   0x00000100u /* fast recovery: PRR rules the window */
#define CF_LOST       0x00000200u /* some of what was sent is taken for lost and waits to be sent again */
#define CF_SACK       0x00000400u /* both sides sent the SACK-permitted option */
#define CF_PERSIST    0x00000800u /* rexmt_deadline is the persist timer */
#define CF_EOF        0x00001000u /* the peer's FIN has been taken */
#define CF_EOF_TOLD   0x00002000u /* ... and on_eof() called */
#define CF_FIN_OOO    0x00004000u /* the peer's FIN is at cold->fin_seq, not in order yet */
#define CF_OVER_HIGH  0x00008000u /* above the high-water mark or the share of blocks: on_writable() is owed */
#define CF_BUSY       0x00010000u /* a function up the stack still uses this block */
#define CF_DEAD       0x00020000u /* closed; the slot is freed when CF_BUSY falls */
#define CF_NO_NEIGH   0x00040000u /* waits for the next hop's Ethernet address */
#define CF_ACTIVE     0x00080000u /* opened by tcps_connect() */
#define CF_FINISHED   0x00100000u /* both sides are done but held bytes were not read yet */
#define CF_FIN_ACKED  0x00200000u /* our FIN has been acknowledged */
#define CF_OWNED      0x00400000u /* `user` is set: on_closed() is owed */
#define CF_SHUT       0x00800000u /* for lack of blocks the peer was told a window of 0 while the reader is stopped */
#define CF_ECN        0x01000000u /* agreed on: RFC 3168 */
#define CF_WHOLE                                                                                                                   \
	0x02000000u /* one flush is outstanding, sent once and from one block: whole_us is its record, see tcps_sent_settle() */
#define CF_SCORE   0x80000000u /* sacked_bytes, lost_bytes or dup_acks is not 0: the pipe is less than what is outstanding */
#define CF_RTO     0x40000000u /* slow start after a time-out, until recover_seq is acknowledged */
#define CF_T_TLP   0x20000000u /* rexmt_deadline is the tail loss probe's */
#define CF_T_REO   0x10000000u /* rexmt_deadline is the reordering window's */
#define CF_TLP_OUT 0x08000000u /* a tail loss probe went out, and its ACK has not been seen */
#define CF_DSACK   0x04000000u /* a duplicate arrived: cold->dsack is to be reported */

/* Any of these sends an arriving segment down the general path. */
#define CF_SLOW_INPUT                                                                                                              \
	(CF_PAUSED | CF_OOO | CF_RECOVERY | CF_PERSIST | CF_EOF | CF_FIN_OOO | CF_SCORE | CF_LOST | CF_RTO | CF_ECN | CF_TLP_OUT | \
	 CF_BUSY | CF_DEAD | CF_IN_DATA | CF_SHUT | CF_T_REO)

/*
 * The hot block: what an in-order segment and its answer touch. Three cache lines.
 * Written by the worker alone; the first group is constant after the handshake.
 */
struct tcps_conn {
	/* line 0: look-up, reception */
	uint32_t whole_us;  /* with CF_WHOLE: when it went out */
	uint32_t peer_key;  /* IPv4: the address; IPv6: a keyed fold of cold->peer_addr */
	uint32_t ports_raw; /* peer port, own port: the first four bytes of an arriving TCP header */
	uint8_t state;
	uint8_t snd_wscale : 4;
	uint8_t rcv_wscale : 4;
	uint8_t dup_acks;
	uint8_t ack_segments; /* a bit for each data segment taken since the last ACK went out; more than eight are eight */
	uint32_t rcv_nxt;
	uint32_t rcv_adv;     /* right edge promised to the peer; never moves left, even while CF_SHUT hides it */
	uint32_t rx_head_seq; /* first byte that on_data() has not consumed */
	uint32_t ts_recent;
	uint32_t flags;
	uint32_t snd_una;
	uint32_t snd_nxt;
	uint32_t snd_max; /* highest ever sent */
	uint32_t snd_wnd;
	uint32_t snd_wl1; /* seq of the last window update; wl2 is implied, for older ACKs are not looked at */
	uint32_t last_ack_sent;
	uint32_t last_rx_ms; /* 2^20 ns */
	/* line 1: sending */
	struct tcps *t;
	struct tcps_cold *cold;
	void *user;
	uint8_t *tail_ptr; /* where the next inline byte goes; NULL: the tail is no inline slice */
	uint32_t tail_room;
	uint32_t snd_buf_bytes; /* queued from snd_una on */
	uint32_t head_idx;      /* slices */
	uint32_t tail_idx;
	uint32_t cur_idx; /* the slice that holds snd_nxt ... */
	uint32_t cur_off; /* ... and where in it */
	uint16_t mss;     /* payload bytes of a full segment */
	uint16_t neigh_idx;
	uint16_t addr_sum; /* of both addresses, for the IPv4 and the pseudo header */
	uint8_t own;       /* enum tcps_own_idx: which address of ours, and so which family */
	/* line 2: timers, congestion */
	struct tcps_timer timer; /* armed for the earliest deadline or before it */
	uint64_t rexmt_deadline_ns;
	uint64_t delack_deadline_ns;
	uint32_t cwnd_bytes;
	uint32_t rto_us;     /* 0: as the measurements say, tcps_rto_us() */
	uint32_t touched_at; /* where on the touched list */
	uint32_t own_idx;
	uint16_t plain_raw; /* data offset and flags of an ordinary segment, as they lie in its header; 0 unless ESTABLISHED */
	uint16_t unused;
	uint32_t ts_offset;
};
_Static_assert(sizeof(struct tcps_conn) == 192, "the hot block is three cache lines");

/* The cold block. Its first line is touched once a round trip, the rest by what is not ordinary. */
struct tcps_cold {
	uint32_t hash_next_idx;
	uint32_t sent_first_idx, sent_last_idx;
	uint32_t srtt_us_x8, rttvar_us_x4; /* in eighths and quarters; srtt 0: no sample yet */
	uint32_t ssthresh_bytes;
	uint32_t recover_seq;
	uint32_t snd_wnd_max;
	uint32_t iss, irs;
	uint32_t part_block_idx; /* the inline block behind a reference, with room left */
	uint32_t part_used;
	uint32_t snd_blocks, snd_refs; /* in the send queue: blocks, slices that are not a block's own */
	uint32_t rcv_wraps;
	uint8_t rexmt_count;
	uint8_t probes_unanswered;
	uint8_t cc;       /* enum tcps_cc */
	bool tlp_again;   /* the probe was a retransmission */
	bool cwr_due;     /* the window was reduced for a mark: the next new data tells */
	bool ece;         /* a mark arrived: told until the peer says CWR */
	uint32_t ecn_seq; /* marks of what was sent before this belong to one reduction */
	uint32_t sacked_bytes, lost_bytes;
	uint32_t tlp_end_seq;
	uint32_t prr_delivered_bytes, prr_out_bytes, prr_flight_bytes; /* RFC 6937; the last is RecoverFS */
	struct tcps_rack rack;
	struct tcps_cubic cubic;
	struct tcps_undo undo;
	uint32_t stuck_since_ms; /* coarse; when what is outstanding first had to be sent again, or its window was shut */
	uint32_t sack_recent[3]; /* where bytes out of order arrived last: RFC 2018 4 */
	struct tcps_range dsack; /* RFC 2883 */
	uint32_t keep_probe_ms;  /* coarse time of the last keepalive */
	uint8_t keepalives_unanswered;
	uint8_t ooo_count;
	uint64_t keep_deadline_ns;
	uint64_t ack_limit_ns; /* start of the second in which ack_limit_count ACKs were spent */
	uint32_t ack_limit_count;
	uint32_t fin_seq;
	uint32_t rx_first_idx, rx_last_idx; /* blocks of held and out-of-order bytes, by base_seq */
	uint32_t rx_origin_seq;             /* blocks begin at multiples of TCPS_BLOCK_ROOM from here */
	uint32_t retransmits, snd_wraps;
	uint32_t rx_blocks;     /* held and out of order */
	uint32_t rx_blocks_max; /* tcps_recv_limit() */
	struct tcps_range ooo[TCPS_OOO_MAX];
	uint16_t peer_mss;

	/* the network layer's */
	uint16_t soft_error;   /* type and code of the last ICMP error about this connection; 0: none */
	uint32_t flow_raw;     /* IPv6: the first word of the header, with the flow label of RFC 6437 */
	uint8_t peer_addr[16]; /* IPv6 */
};
_Static_assert(sizeof(struct tcps_conn) + sizeof(struct tcps_cold) <= 1024, "an idle connection costs at most 1 KiB");

struct tcps_block {
	uint32_t next_idx;
	uint32_t base_seq;    /* receive side: sequence number of data[0] */
	uint32_t slice_count; /* send side: slices that lie in it */
	uint32_t unused;
	uint8_t data[TCPS_BLOCK_ROOM];
};
_Static_assert(sizeof(struct tcps_block) == TCPS_BLOCK_BYTES, "a block has the advertised size");

struct tcps_slice {
	const uint8_t *data;
	void *owner;        /* of a reference */
	uint32_t len_bytes; /* of the tail slice: valid after tcps_send_sync() */
	uint32_t next_idx;
	uint32_t block_idx; /* TCPS_NIL: a reference */
};

struct tcps_cursor {
	uint32_t idx, off;
};

/* What a half-open connection or a TIME_WAIT needs, and no more. */
struct tcps_mini {
	struct tcps_timer timer;
	uint32_t hash_next_idx;
	uint32_t older_idx, newer_idx;
	struct tcps_peer peer;
	uint32_t snd_seq; /* half-open: ISS; TIME_WAIT: snd_nxt */
	uint32_t rcv_seq; /* half-open: IRS; TIME_WAIT: rcv_nxt */
	uint32_t ts_recent, ts_offset;
	uint16_t peer_mss;
	uint8_t snd_wscale, tries;
	uint8_t answers; /* half-open: SYN-ACKs since the timer last fired, but its own */
	bool has_ts, has_wscale, has_sack, has_ecn, in_use;
};

struct tcps_mini_pool {
	struct tcps_mini *recs;
	uint32_t *buckets;
	uint32_t bucket_mask;
	uint32_t free_idx; /* chained through hash_next_idx */
	uint32_t oldest_idx, newest_idx;
	uint32_t count, max;
	enum tcps_timer_kind kind;
};

/* One arriving segment, parsed. */
struct tcps_seg {
	const uint8_t *data;
	uint32_t len;
	uint32_t seq, ack;
	struct tcps_peer peer;
	uint32_t ts_val, ts_ecr;
	uint16_t wnd;
	uint8_t flags;
	bool has_ts;
	const uint8_t *frame; /* its Ethernet header */
	const uint8_t *opts;
	uint32_t opts_len;
	bool ce; /* the IP header bears the mark "congestion experienced" */
};

/* There may be SACK blocks: more options than timestamps take. */
static inline bool tcps_seg_may_sack(const struct tcps_seg *s)
{
	return s->opts_len > (s->has_ts ? TCP_OPT_TS_LEN : 0);
}

/* Options of a SYN. */
struct tcps_syn_opts {
	uint16_t mss;
	uint8_t wscale;
	bool has_wscale, has_ts, has_sack;
	uint32_t ts_val, ts_ecr;
};

struct tcps {
	/* constant after tcps_init() */
	struct tcps_config cfg;
	struct tcps_ops ops;
	void *ctx;
	uint32_t addr_raw, mask_raw;
	uint32_t mss_local;    /* payload of an IPv4 segment without options */
	uint32_t mss_local6;   /* ... of an IPv6 segment */
	uint32_t window_plain; /* of a peer that does not scale windows: at most 65,535 */
	uint32_t window_keep;  /* a window wider than this is not moved yet, whatever its budget */
	uint32_t window_step;  /* the right edge moves by at least this much: RFC 9293 3.8.6.2.2 */
	uint32_t rto_min_us, rto_max_us;
	uint8_t rcv_wscale;
	struct tcps_conn *conns;
	struct tcps_cold *colds;
	uint32_t *buckets;
	uint32_t bucket_mask;
	uint32_t *recent; /* connections looked up of late, by a hash that anybody can work out: a hit is verified, a miss costs
			     little */
	unsigned recent_shift;
	struct tcps_block *blocks;
	struct tcps_slice *slices; /* one for each block, at its index, and behind those the pool of the others */
	struct tcps_sent *sents;   /* one for each connection, at its index, and behind those the pool of the others */
	struct tcps_neigh *neighs;
	uint32_t *neigh_buckets;
	uint32_t neigh_bucket_mask;
	uint32_t slices_max; /* all of them */
	uint32_t sents_max;
	uint32_t blocks_reserved; /* left for connections that hold few, and for answers */
	uint32_t blocks_scarce;   /* fewer are free: no empty queue keeps its block */
	/* the network layer's */
	uint32_t tx_l2_len;                     /* Ethernet header, and the tag where it is ours to write */
	struct tcps_form form[OWN_COUNT];       /* of segments from each own address */
	struct tcps_link links[TCPS_LINKS_MAX]; /* the longest prefix first */
	uint32_t link_count;

	/* written by the worker */
	uint64_t now_ns;
	uint32_t now_us;   /* the same, modulo 2^32 */
	bool overhears;    /* the frame in hand is answered by another stack */
	uint32_t *touched; /* connections to flush, in order; TCPS_NIL where one died */
	uint32_t touched_count, touched_max;
	uint32_t flush_at, flush_end; /* how far a running flush is */
	bool tx_starved;              /* the last attempt found no frame */
	struct tcps_conn *last_found; /* segments of one connection often come together; `nobody` where there is none */
	struct tcps_conn *last_found6;
	uint64_t mac_raw;       /* ours, in the first six bytes */
	uint32_t fast_type_raw; /* the Ethernet type that needs no closer look: IPv4, or none while the address may not be used, or
			       where frames bear a tag */
	uint32_t conn_free_idx, conn_count;
	uint32_t block_free_idx, block_free_count;
	uint32_t slice_free_idx, slice_free_count, ref_count;
	uint32_t sent_free_idx, sent_free_count;
	uint32_t neigh_free_idx;
	uint32_t next_ephemeral;
	uint64_t reset_limit_ns;
	uint32_t reset_limit_count;
	/* the network layer's */
	struct tcps_own own[OWN_COUNT];
	uint64_t icmp_limit_ns;
	uint32_t icmp_limit_count;
	uint32_t pmtu_count;
	struct tcps_timer pmtu_timer;
	struct tcps_pmtu pmtu[TCPS_PMTU_MAX];
	uint32_t listener_count;
	uint64_t cookie_until_ns; /* an ACK may answer a SYN cookie */
	uint64_t cookies_used[TCPS_COOKIES_USED];
	struct tcps_mini_pool half_open;
	struct tcps_mini_pool time_wait;
	uint64_t listening[65536 / 64];
	uint64_t listening_newreno[65536 / 64]; /* of those, where NewReno was asked for in place of CUBIC */
	uint64_t counters[TCPS_CNT_COUNT];
	struct tcps_wheel wheel;
	struct tcps_conn nobody; /* has no address and no port */
};

#define TCPS_COUNT(t, name)        ((t)->counters[TCPS_CNT_##name]++)
#define TCPS_COUNT_ADD(t, name, n) ((t)->counters[TCPS_CNT_##name] += (n))

/* siphash.c */
uint64_t tcps_siphash24(const uint8_t key[16], const uint64_t *words, unsigned word_count);
/* RFC 6528 initial sequence number, and a timestamp offset of the same strength. */
void tcps_isn(const struct tcps *t, const struct tcps_peer *peer, uint32_t *iss, uint32_t *ts_offset);
/* The key of an IPv6 end. */
uint32_t tcps_key6(const struct tcps *t, const uint8_t addr[16], unsigned own);
/* A number that follows from the secret, the clock and `salt`, below `bound`: for delays that must not be in step with others'. */
uint64_t tcps_jitter(const struct tcps *t, uint64_t salt, uint64_t bound);

/* conn.c */
struct tcps_conn *tcps_conn_new(struct tcps *t, const struct tcps_peer *peer);
void tcps_conn_peer(const struct tcps_conn *c, struct tcps_peer *peer);
struct tcps_conn *tcps_conn_find_peer(struct tcps *t, const struct tcps_peer *peer);
void tcps_conn_close(struct tcps_conn *c, enum tcps_reason reason);
void tcps_conn_done(struct tcps_conn *c); /* both FINs are through: TIME_WAIT or gone, once all is read */
void tcps_conn_set_state(struct tcps_conn *c, enum tcps_state state);
void tcps_conn_established(struct tcps_conn *c);
void tcps_touched_squeeze(struct tcps *t);
void tcps_conn_slot_free(struct tcps_conn *c);
uint8_t tcps_listener_cc(const struct tcps *t, uint32_t ports_raw);
void tcps_conn_mss(struct tcps_conn *c, uint16_t peer_mss);
/* The path takes packets of at most tcps_pmtu_of(): follows it down, and resends what was too large; or up again. */
void tcps_conn_pmtu(struct tcps_conn *c);
const char *tcps_state_name(unsigned state);

/* mini.c */
void tcps_mini_init(struct tcps_mini_pool *p, enum tcps_timer_kind kind);
struct tcps_mini *tcps_mini_find(const struct tcps *t, const struct tcps_mini_pool *p, const struct tcps_peer *peer);
struct tcps_mini *tcps_mini_new(struct tcps *t, struct tcps_mini_pool *p, const struct tcps_peer *peer, bool *recycled);
void tcps_mini_free(struct tcps *t, struct tcps_mini_pool *p, struct tcps_mini *m);

/* half_open.c */
void tcps_syn_input(struct tcps *t, const struct tcps_seg *s, uint32_t iss_floor, bool has_floor);
/* Returns true when the segment was dealt with, or the connection that it completed in *done. */
bool tcps_half_open_input(struct tcps *t, struct tcps_mini *m, struct tcps_seg *s, struct tcps_conn **done);
/* A segment without a record that may be the answer to a cookie. True: it was dealt with, or *done is the connection. */
bool tcps_cookie_input(struct tcps *t, struct tcps_seg *s, struct tcps_conn **done);
void tcps_half_open_timer(struct tcps *t, struct tcps_timer *timer);

/* cookie.c */
bool tcps_cookie_due(const struct tcps *t);
void tcps_cookie_make(struct tcps *t, struct tcps_mini *m);
bool tcps_cookie_check(struct tcps *t, const struct tcps_seg *s, struct tcps_mini *m);

/* time_wait.c */
void tcps_time_wait_new(struct tcps_conn *c);
void tcps_time_wait_input(struct tcps *t, struct tcps_mini *m, const struct tcps_seg *s);
void tcps_time_wait_timer(struct tcps *t, struct tcps_timer *timer);

/* options.c */
bool tcps_options_parse_ts(struct tcps_seg *s);
bool tcps_options_parse_syn(const struct tcps_seg *s, struct tcps_syn_opts *out);
struct tcps_syn_ask {
	bool v6, wscale, ts, sack;
	uint32_t ts_val, ts_ecr;
};
uint32_t tcps_options_syn(const struct tcps *t, uint8_t *to, const struct tcps_syn_ask *ask);
#define TCPS_SACK_BLOCKS_MAX 4u
/* The SACK blocks of a segment, in its order; returns how many. Spec: RFC 2018 3. */
unsigned tcps_options_parse_sack(const struct tcps_seg *s, struct tcps_range out[TCPS_SACK_BLOCKS_MAX]);

/* sack.c: what we tell of bytes out of order */
void tcps_sack_arrived(struct tcps_conn *c, uint32_t seq);                           /* out of order, kept */
void tcps_sack_duplicate(struct tcps_conn *c, uint32_t start_seq, uint32_t end_seq); /* RFC 2883: had arrived before */
/* Octets of the option in the next segment, NOPs included; 0: nothing to tell. */
uint32_t tcps_sack_option_len(const struct tcps_conn *c);
void tcps_sack_option(struct tcps_conn *c, uint8_t *to, uint32_t len);

/* tcp_segment.c, tcp_ack.c */
#define TCPS_RTT_GRANULARITY_US 1000u
#define TCPS_RTT_MAX_US         60000000u /* so that its multiples fit in 32 bits */
#define TCPS_MIN_RTT_AGE_MS     10000u
void tcps_segment(struct tcps_conn *c, struct tcps_seg *s);
/* On the fast path, where an ACK is plain: nothing of the scoreboard is in question, no recovery runs. */
bool tcps_ack_is_plain(struct tcps_conn *c, uint32_t ack);
void tcps_acked(struct tcps_conn *c, uint32_t ack);
/* The general path, the ACK being acceptable. `plain_duplicate`: as RFC 5681 2 has it. */
void tcps_acked_general(struct tcps_conn *c, const struct tcps_seg *s, bool plain_duplicate);
void tcps_acked_late(struct tcps_conn *c, const struct tcps_seg *s); /* the ACK is older than snd_una */
void tcps_measure_syn(struct tcps_conn *c, uint32_t ts_ecr);
void tcps_window_changed(struct tcps_conn *c, uint32_t wnd);
bool tcps_ack_allowed(struct tcps_conn *c); /* rate limit of RFC 5961 section 7 */

/* tcp_output.c */
enum tcps_emit { EMIT_SENT, EMIT_NO_FRAME, EMIT_NO_NEIGHBOUR };
void tcps_output(struct tcps_conn *c);
enum tcps_emit tcps_emit(struct tcps_conn *c, uint32_t seq, struct tcps_cursor *cur, uint32_t len, uint8_t flags);
/* A segment of new data; a segment's worth of `r`, which is cut there. Both keep the books. */
enum tcps_emit tcps_send_new(struct tcps_conn *c, uint32_t len);
enum tcps_emit tcps_send_again(struct tcps_conn *c, struct tcps_sent *r);
void tcps_window_open(struct tcps_conn *c); /* owes a window update when one is worth sending */

/* reply.c: segments that belong to no connection block */
struct tcps_reply {
	const struct tcps_peer *peer;
	uint32_t seq, ack;
	uint32_t wnd;
	uint8_t flags;
	const uint8_t *opts;
	uint32_t opts_len;
	const uint8_t *mac; /* NULL: ask the neighbour table */
};
bool tcps_reply(struct tcps *t, const struct tcps_reply *r);
void tcps_reset_reply(struct tcps *t, const struct tcps_seg *s);

/* tcp_timer.c */
void tcps_conn_timer(struct tcps *t, struct tcps_timer *timer);
void tcps_keepalive_start(struct tcps_conn *c);

/* send.c */
void tcps_send_acked(struct tcps_conn *c, uint32_t n);
void tcps_send_free(struct tcps_conn *c);
void tcps_send_rewind(struct tcps_conn *c);
uint64_t tcps_send_copy(const struct tcps *t, struct tcps_cursor *cur, uint8_t *to, uint32_t len);

/* chain.c */
/* A frame for `len` bytes from `cur` on behind `head_len` of headers, those bytes put in; or NULL, and nothing has changed. */
uint8_t *tcps_chain(struct tcps *t, struct tcps_cursor *cur, uint32_t len, size_t head_len, void **handle, uint64_t *payload_sum);

/* recv.c */
void tcps_recv_data(struct tcps_conn *c, uint32_t seq, const uint8_t *data, uint32_t len);
void tcps_recv_deliver(struct tcps_conn *c);
void tcps_recv_free(struct tcps_conn *c);
uint32_t tcps_recv_end(const struct tcps_conn *c); /* rcv_nxt without the peer's FIN */
uint32_t tcps_recv_window_paused(const struct tcps_conn *c);
void tcps_recv_short(struct tcps_conn *c, const uint8_t *data, uint32_t len, uint32_t n);

/* pool.c */
/* How many blocks (slices) a connection may hold in one direction for bytes that can wait. */
uint32_t tcps_block_share(const struct tcps *t);
uint32_t tcps_slice_share(const struct tcps *t);
/* The connection held its share, and has come down far enough from it to be told. */
bool tcps_share_is_low(const struct tcps_conn *c);
uint32_t tcps_block_none(struct tcps *t); /* counts the dry pool, returns TCPS_NIL */
uint32_t tcps_slice_alloc(struct tcps *t);
void tcps_slice_free(struct tcps *t, uint32_t idx);

/* Last freed is first used: it is still in the cache. */
static inline uint32_t tcps_block_alloc(struct tcps *t)
{
	uint32_t idx = t->block_free_idx;
	if (__builtin_expect(idx == TCPS_NIL, 0))
		return tcps_block_none(t);
	struct tcps_block *b = &t->blocks[idx];
	t->block_free_idx = b->next_idx;
	t->block_free_count--;
	b->next_idx = TCPS_NIL;
	b->slice_count = 0;
	return idx;
}

static inline void tcps_block_free(struct tcps *t, uint32_t idx)
{
	t->blocks[idx].next_idx = t->block_free_idx;
	t->block_free_idx = idx;
	t->block_free_count++;
}

static inline uint64_t tcps_hash_key(const struct tcps *t, uint32_t peer_key, uint32_t ports_raw)
{
	return siphash_tuple(t->cfg.secret, peer_key, ports_raw);
}

/* Returns whether the block was busy already, to be handed to tcps_conn_leave(). */
static inline bool tcps_conn_enter(struct tcps_conn *c)
{
	bool was_busy = (c->flags & CF_BUSY) != 0;
	c->flags |= CF_BUSY;
	return was_busy;
}

/* The block may be gone afterwards. */
static inline void tcps_conn_leave(struct tcps_conn *c, bool was_busy)
{
	if (was_busy)
		return;
	c->flags &= ~CF_BUSY;
	if (__builtin_expect((c->flags & CF_DEAD) != 0, 0))
		tcps_conn_slot_free(c);
}

static inline uint32_t *tcps_recent(const struct tcps *t, uint32_t peer_key, uint32_t ports_raw)
{
	return &t->recent[(peer_key ^ ports_raw) * 0x9e3779b1u >> t->recent_shift];
}

/* Over IPv4. Where address and port of the peer are 0, it may be `nobody`. */
static inline __attribute__((always_inline)) struct tcps_conn *tcps_conn_find(struct tcps *t, uint32_t peer_addr_raw,
									      uint32_t ports_raw)
{
	struct tcps_conn *last = t->last_found;
	if (__builtin_expect(last->ports_raw == ports_raw, 1) && __builtin_expect(last->peer_key == peer_addr_raw, 1))
		return last;
	uint32_t *recent = tcps_recent(t, peer_addr_raw, ports_raw), idx = *recent;
	if (__builtin_expect(idx != TCPS_NIL, 1)) {
		last = &t->conns[idx];
		if (last->ports_raw == ports_raw && last->peer_key == peer_addr_raw && last->own == OWN_V4)
			return t->last_found = last;
	}
	idx = t->buckets[tcps_hash_key(t, peer_addr_raw, ports_raw) & t->bucket_mask];
	while (idx != TCPS_NIL) {
		struct tcps_conn *c = &t->conns[idx];
		if (c->ports_raw == ports_raw && c->peer_key == peer_addr_raw && c->own == OWN_V4) {
			*recent = idx;
			return t->last_found = c;
		}
		idx = c->cold->hash_next_idx;
	}
	return NULL;
}

static inline bool tcps_addr6_equal(const uint8_t a[16], const uint8_t b[16])
{
	return ((tcps_load64(a) ^ tcps_load64(b)) | (tcps_load64(a + 8) ^ tcps_load64(b + 8))) == 0;
}

static inline struct tcps_conn *tcps_conn_find6(struct tcps *t, const uint8_t addr[16], uint32_t ports_raw, unsigned own)
{
	struct tcps_conn *last = t->last_found6;
	if (last != NULL && last->ports_raw == ports_raw && last->own == own && tcps_addr6_equal(last->cold->peer_addr, addr))
		return last;
	uint32_t key = tcps_key6(t, addr, own), idx = t->buckets[tcps_hash_key(t, key, ports_raw) & t->bucket_mask];
	while (idx != TCPS_NIL) {
		struct tcps_conn *c = &t->conns[idx];
		if (c->ports_raw == ports_raw && c->peer_key == key && c->own == own &&
		    tcps_addr6_equal(c->cold->peer_addr, addr)) {
			t->last_found6 = c;
			return c;
		}
		idx = c->cold->hash_next_idx;
	}
	return NULL;
}

static inline void tcps_peer4(struct tcps_peer *peer, uint32_t addr_raw, uint32_t ports_raw)
{
	*peer = (struct tcps_peer){.key = addr_raw, .ports_raw = ports_raw, .own = OWN_V4};
	put_raw32(peer->addr, addr_raw);
}

static inline void tcps_peer6(const struct tcps *t, struct tcps_peer *peer, const uint8_t addr[16], uint32_t ports_raw,
			      unsigned own)
{
	*peer = (struct tcps_peer){.key = tcps_key6(t, addr, own), .ports_raw = ports_raw, .v6 = true, .own = (uint8_t)own};
	memcpy(peer->addr, addr, 16);
}

static inline bool tcps_peer_equal(const struct tcps_peer *a, const struct tcps_peer *b)
{
	return a->key == b->key && a->ports_raw == b->ports_raw && a->own == b->own && tcps_addr6_equal(a->addr, b->addr);
}

/* Puts the connection on the list of those that the next flush looks at. */
static inline void tcps_touch_new(struct tcps *t, struct tcps_conn *c)
{
	if (__builtin_expect(t->touched_count == t->touched_max, 0))
		tcps_touched_squeeze(t);
	uint32_t at = t->touched_count++;
	t->touched[at] = c->own_idx;
	c->touched_at = at;
	c->flags |= CF_TOUCHED;
}

static inline void tcps_touch(struct tcps_conn *c)
{
	if ((c->flags & (CF_TOUCHED | CF_DEAD)) == 0)
		tcps_touch_new(c->t, c);
}

static inline void tcps_untouch(struct tcps_conn *c)
{
	if ((c->flags & CF_TOUCHED) == 0)
		return;
	c->flags &= ~CF_TOUCHED;
	c->t->touched[c->touched_at] = TCPS_NIL;
}

/* A burst has one time for all of its calls. */
static inline void tcps_clock(struct tcps *t, uint64_t now_ns)
{
	if (now_ns == t->now_ns)
		return;
	t->now_ns = now_ns;
	t->now_us = (uint32_t)(now_ns / 1000);
}

static inline uint32_t tcps_coarse_ms(uint64_t now_ns)
{
	return (uint32_t)(now_ns >> 20);
}

/* The timestamp clock of RFC 7323 5.4 ticks every 2^20 ns. */
static inline uint32_t tcps_ts_now(const struct tcps *t, uint32_t offset)
{
	return tcps_coarse_ms(t->now_ns) + offset;
}

/* Bytes queued and never sent, counted from snd_nxt; -1: FIN went out behind them. */
static inline int32_t tcps_left(const struct tcps_conn *c)
{
	return (int32_t)(c->snd_una + c->snd_buf_bytes - c->snd_nxt);
}

/* tcps_commit() only moves tail_ptr; the length of the tail slice is worked out when someone needs it. */
static inline void tcps_send_sync(struct tcps_conn *c)
{
	if (c->tail_ptr != NULL) {
		struct tcps_slice *s = &c->t->slices[c->tail_idx];
		s->len_bytes = (uint32_t)(c->tail_ptr - s->data);
	}
}

/* The ten bytes that an IPv4 header begins with; of these only the length is not known beforehand. */
#define TCPS_IPV4_BEGIN 10u
static inline void tcps_ipv4_begin(uint8_t *ip, uint8_t protocol)
{
	put_be32(ip, 0x4500u << 16);
	put_be32(ip + 4, IPV4_FLAG_DF);
	put_be16(ip + 8, (uint16_t)(IPV4_TTL << 8 | protocol));
}

/* The other ten, and the length. `addr_sum` of both addresses is constant per connection. */
static inline void tcps_ipv4_end(const struct tcps *t, uint8_t *ip, uint32_t peer_addr_raw, uint8_t protocol, size_t len,
				 uint32_t addr_sum)
{
	uint16_t total = htobe16((uint16_t)len);
	put_raw16(ip + 2, total);
	put_raw32(ip + 12, t->addr_raw);
	put_raw32(ip + 16, peer_addr_raw);
	uint16_t cksum = 0;
	if (!t->cfg.tx_ip_cksum_offload) {
		uint32_t constant =
			(uint32_t)htobe16(0x4500) + htobe16(IPV4_FLAG_DF) + htobe16((uint16_t)(IPV4_TTL << 8 | protocol));
		uint32_t sum = addr_sum + constant + total;
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		cksum = (uint16_t)~sum;
	}
	put_raw16(ip + 10, cksum);
}

static inline void tcps_ipv4_header(const struct tcps *t, uint8_t *ip, uint32_t peer_addr_raw, uint8_t protocol, size_t len,
				    uint32_t addr_sum)
{
	tcps_ipv4_begin(ip, protocol);
	tcps_ipv4_end(t, ip, peer_addr_raw, protocol, len, addr_sum);
}

/* Makes sure that the connection's one timer fires no later than this deadline. */
static inline void tcps_conn_rearm(struct tcps_conn *c, uint64_t deadline_ns)
{
	if (!tcps_timer_armed(&c->timer) || tcps_wheel_tick_of(deadline_ns) < c->timer.at_tick)
		tcps_wheel_set(&c->t->wheel, &c->timer, deadline_ns);
}

static inline void tcps_arm_rexmt(struct tcps_conn *c, uint64_t delay_ns)
{
	c->flags &= ~(CF_T_TLP | CF_T_REO);
	c->rexmt_deadline_ns = c->t->now_ns + delay_ns;
	tcps_conn_rearm(c, c->rexmt_deadline_ns);
}

static inline void tcps_disarm_rexmt(struct tcps_conn *c)
{
	c->flags &= ~(CF_T_TLP | CF_T_REO);
	c->rexmt_deadline_ns = TCPS_NEVER;
}

static inline uint32_t tcps_now_us(const struct tcps *t)
{
	return t->now_us;
}

/* The timestamp of what went out then. */
static inline uint32_t tcps_ts_at(const struct tcps_conn *c, uint32_t time_us)
{
	uint32_t age_us = c->t->now_us - time_us;
	return tcps_coarse_ms(c->t->now_ns - (uint64_t)age_us * 1000) + c->ts_offset;
}

static inline uint32_t tcps_srtt_us(const struct tcps_conn *c)
{
	return (c->cold->srtt_us_x8 + 7) / 8;
}

/*
 * RFC 6298 2.2, 2.3, 2.4: what the last measurement says; while it was backed off, what 5.5 made of it. It is worked out when
 * somebody asks, which on the life of most ticks nobody does.
 */
static inline uint32_t tcps_rto_us(const struct tcps_conn *c)
{
	if (__builtin_expect(c->rto_us != 0, 0))
		return c->rto_us;
	const struct tcps *t = c->t;
	uint32_t srtt = c->cold->srtt_us_x8, var = c->cold->rttvar_us_x4;
	uint32_t rto = (srtt >> 3) + (var > TCPS_RTT_GRANULARITY_US ? var : TCPS_RTT_GRANULARITY_US);
	rto = rto < t->rto_min_us ? t->rto_min_us : rto;
	return rto > t->rto_max_us ? t->rto_max_us : rto;
}

static inline uint64_t tcps_rto_ns(const struct tcps_conn *c)
{
	return (uint64_t)tcps_rto_us(c) * 1000;
}

/* RFC 6298 2.2 and 2.3, in Jacobson's scaled integers. A round trip too short to measure still counts as one microsecond. */
static inline void tcps_rtt_sample(struct tcps_conn *c, uint32_t rtt_us)
{
	struct tcps_cold *cold = c->cold;
	uint32_t r = rtt_us, srtt = cold->srtt_us_x8, var = cold->rttvar_us_x4;
	if (__builtin_expect(r - 1 >= TCPS_RTT_MAX_US, 0))
		r = r == 0 ? 1 : TCPS_RTT_MAX_US;
	if (__builtin_expect(srtt == 0, 0)) {
		srtt = r * 8;
		var = r * 2;
	} else {
		int32_t off = (int32_t)(r - (srtt >> 3));
		srtt += (uint32_t)off;
		var += (uint32_t)(off < 0 ? -off : off) - (var >> 2);
	}
	cold->srtt_us_x8 = srtt;
	cold->rttvar_us_x4 = var;
	/* RFC 8985 6.1 wants a minimum of recent times, so that a path that grew longer is learnt. */
	if (__builtin_expect(r <= cold->rack.min_rtt_us, 0) ||
	    __builtin_expect(c->last_rx_ms - cold->rack.min_rtt_at_ms > TCPS_MIN_RTT_AGE_MS, 0)) {
		cold->rack.min_rtt_us = r;
		cold->rack.min_rtt_at_ms = c->last_rx_ms;
	}
	c->rto_us = 0;
}

/* Bytes in the network as far as is known: RFC 6675's pipe. */
static inline uint32_t tcps_pipe(const struct tcps_conn *c)
{
	uint32_t out = c->snd_nxt - c->snd_una;
	if (__builtin_expect((c->flags & CF_SCORE) == 0, 1))
		return out;
	uint32_t gone = c->cold->sacked_bytes + c->cold->lost_bytes;
	/* A peer without SACK says with each duplicate ACK that some segment has left the network. */
	if ((c->flags & CF_SACK) == 0)
		gone += (uint32_t)c->dup_acks * c->mss;
	return out > gone ? out - gone : 0;
}

/*
 * What went out whole becomes a record of the scoreboard like any other. Called before anything looks at the scoreboard; the
 * short paths in and out, which neither need nor know it, leave CF_WHOLE standing.
 */
static inline void tcps_sent_settle(struct tcps_conn *c)
{
	if ((c->flags & CF_WHOLE) == 0)
		return;
	c->flags &= ~CF_WHOLE;
	c->t->sents[c->own_idx] =
		(struct tcps_sent){.next_idx = TCPS_NIL, .seq = c->snd_una, .end_seq = c->snd_nxt, .time_us = c->whole_us};
	c->cold->sent_first_idx = c->cold->sent_last_idx = c->own_idx;
	c->cur_off = c->snd_nxt - c->snd_una;
	/* The timer is armed for this or before it. */
	c->rexmt_deadline_ns = c->t->now_ns - (uint64_t)(c->t->now_us - c->whole_us) * 1000 + tcps_rto_ns(c);
}

/* [seq, end_seq) went out behind all else; `flags`: SENT_AGAIN or 0. Segments of one flush share a record. */
static inline void tcps_sent_push(struct tcps_conn *c, uint32_t seq, uint32_t end_seq, uint32_t flags)
{
	struct tcps_cold *cold = c->cold;
	uint32_t now_us = tcps_now_us(c->t);
	if (__builtin_expect(cold->sent_first_idx == TCPS_NIL, 1)) {
		struct tcps_sent *own = &c->t->sents[c->own_idx];
		*own = (struct tcps_sent){.next_idx = TCPS_NIL, .seq = seq, .end_seq = end_seq, .time_us = now_us, .flags = flags};
		cold->sent_first_idx = cold->sent_last_idx = c->own_idx;
		return;
	}
	struct tcps_sent *last = &c->t->sents[cold->sent_last_idx];
	if (last->time_us == now_us && last->flags == flags)
		last->end_seq = end_seq;
	else
		tcps_sent_push_slow(c, seq, end_seq, flags);
}

/*
 * All that was queued is acknowledged and lay in one slice of inline bytes: its block stays for the next. The connection's timer,
 * still armed for the time-out that is not needed now, gives it back.
 */
static inline void tcps_send_keep(struct tcps *t, struct tcps_conn *c, uint32_t bytes)
{
	c->snd_buf_bytes = 0;
	c->tail_ptr -= bytes;
	c->tail_room += bytes;
	if (__builtin_expect(t->block_free_count < t->blocks_scarce, 0))
		tcps_send_free(c);
}

static inline void tcps_send_emptied(struct tcps_conn *c)
{
	c->head_idx = c->tail_idx = c->cur_idx = TCPS_NIL;
	c->cur_off = 0;
	c->tail_ptr = NULL;
	c->tail_room = 0;
}

/* FIN was asked for and has not been acknowledged. */
static inline bool tcps_fin_owed(const struct tcps_conn *c)
{
	return (c->flags & (CF_FIN_QUEUED | CF_FIN_ACKED)) == CF_FIN_QUEUED;
}

/* Bytes that the window may span: without the option of RFC 7323 2.2 it can say no more than 65,535. */
static inline uint32_t tcps_window_budget(const struct tcps_conn *c)
{
	const struct tcps *t = c->t;
	return c->rcv_wscale != 0 ? t->cfg.recv_window_bytes : t->window_plain;
}

/*
 * The window to advertise. RFC 9293 3.8.6.2.2: the right edge moves in steps worth a segment; it never moves left,
 * for rx_head_seq only grows. What is told while the reader is stopped may be less.
 */
static inline uint32_t tcps_recv_window(struct tcps_conn *c)
{
	uint32_t edge = c->rx_head_seq + tcps_window_budget(c);
	if ((int32_t)(edge - c->rcv_adv) >= (int32_t)c->t->window_step)
		c->rcv_adv = edge;
	if (__builtin_expect((c->flags & CF_PAUSED) != 0, 0))
		return tcps_recv_window_paused(c);
	return c->rcv_adv - c->rcv_nxt;
}

#endif
