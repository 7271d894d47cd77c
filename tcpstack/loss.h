/*
 * loss.h - what is outstanding and what became of it: the scoreboard, RACK, the undo, and the windows of congestion control.
 *
 * Owns: the structures that the cold block of a connection holds for them, and the calls of sent.c, rack.c, undo.c, congestion.c.
 * Core: the worker that owns the stack.
 * Spec: RFC 6675, RFC 8985, RFC 9438, RFC 6937, RFC 4015.
 */
#ifndef TICKWIRE_TCPSTACK_LOSS_H
#define TICKWIRE_TCPSTACK_LOSS_H

#include <stdbool.h>
#include <stdint.h>

struct tcps_conn;

struct tcps_range {
	uint32_t start_seq, end_seq;
};

/*
 * A range of the send stream that went out at one instant, or what is left of it. In order, they cover [snd_una, snd_nxt): the
 * scoreboard of RFC 6675 and the transmit times of RFC 8985 in one. Segments of one flush share a record until SACK splits it.
 */
struct tcps_sent {
	uint32_t next_idx;
	uint32_t seq, end_seq; /* a FIN counts as one */
	uint32_t time_us;      /* of its last transmission, modulo 2^32 */
	uint32_t flags;
};
#define SENT_SACKED 0x1u
#define SENT_LOST   0x2u /* and not sent again since */
#define SENT_AGAIN  0x4u /* its last transmission was not its first, or may not be: no round trip is measured (Karn) */
#define SENT_RTO    0x8u /* lost by time-out: for the counters */

/* RFC 8985 6.1. */
struct tcps_rack {
	uint32_t time_us, end_seq; /* of the segment delivered that was sent last */
	uint32_t rtt_us;
	uint32_t fack_seq;      /* highest sequence number delivered */
	uint32_t min_rtt_us;    /* UINT32_MAX: no sample yet */
	uint32_t min_rtt_at_ms; /* when it was taken, coarse */
	uint32_t dsack_round_seq;
	uint8_t reo_mult, reo_persist;
	bool valid, reordered, dsack_in_round;
};

/* RFC 9438; all of a connection without losses is zero. */
struct tcps_cubic {
	uint32_t w_max_bytes, w_est_bytes;
	uint32_t k_ms, epoch_ms; /* coarse */
	bool in_epoch;
};

/* The state before a recovery or a time-out, and what may show that it was needless. */
struct tcps_undo {
	uint32_t una_seq; /* when it began */
	uint32_t cwnd_bytes, ssthresh_bytes;
	struct tcps_cubic cubic;
	uint32_t again_us;      /* when its first retransmission went out ... */
	uint32_t first_end_seq; /* ... where that ended, and when that range had gone out before */
	uint32_t first_us;
	uint32_t again_bytes, again_sum; /* sent again, and not told of as duplicates */
	bool live;                       /* there is something to restore */
	bool rto;                        /* a time-out belongs to it */
	bool resent;                     /* something was sent again */
	bool first_was_again;            /* ... and what was first had been sent twice before */
	bool judged;                     /* the ACK of the first retransmission came, and did not tell */
	uint8_t frto;                    /* enum tcps_frto */
};

/* RFC 5682 3.1. */
enum tcps_frto {
	FRTO_OFF,
	FRTO_FIRST, /* the first ACK after the time-out is awaited */
	FRTO_ASK,   /* it covered what was sent again: new data is to go, and nothing else */
	FRTO_ASKED  /* it went: the next ACK tells */
};

/* sent.c: the scoreboard */
struct tcps_delivered {
	uint32_t bytes;        /* newly acknowledged or SACKed */
	uint32_t sacked_bytes; /* of those, SACKed */
	uint32_t rtt_us;       /* of the oldest segment newly acknowledged that was sent only once */
	bool has_rtt, dsack;
	bool again;   /* something that was sent again, or was taken for lost, is among it */
	bool found;   /* something that was taken for lost, and never sent again, is among it */
	bool by_sack; /* what is told now is not told by the cumulative ACK, whose echo says nothing of it */
	bool has_echo;
	uint32_t ts_ecr; /* of the ACK that tells */
};
void tcps_sent_push_slow(struct tcps_conn *c, uint32_t seq, uint32_t end_seq, uint32_t flags);
void tcps_sent_acked(struct tcps_conn *c, uint32_t ack, struct tcps_delivered *d);
void tcps_sent_all_acked(struct tcps_conn *c); /* every record, where nothing is SACKed or lost */
void tcps_sent_sacked(struct tcps_conn *c, const struct tcps_range *block, struct tcps_delivered *d);
void tcps_sent_drop(struct tcps_conn *c); /* forgets all: the connection ends, or goes back to snd_una */
void tcps_sent_mark_lost(struct tcps_conn *c, struct tcps_sent *r, uint32_t why);
/* The first `bytes` of what is outstanding are lost. For peers without SACK: RFC 6582. */
void tcps_sent_head_lost(struct tcps_conn *c, uint32_t bytes);
void tcps_sent_all_lost(struct tcps_conn *c);  /* RFC 6298 5.4, RFC 2018 8 */
void tcps_sent_none_lost(struct tcps_conn *c); /* what waits to be sent again is taken for under way once more */
/* A piece of at most `len` at the front of `r`: the record is cut there. False: no record for the rest is free. */
bool tcps_sent_cut(struct tcps_conn *c, struct tcps_sent *r, uint32_t len);
void tcps_sent_again(struct tcps_conn *c, struct tcps_sent *r); /* it went out again */
/* What is lost right behind a lost `r` joins it, until it has at least `most` bytes: small messages go again in one segment. */
void tcps_sent_gather(struct tcps_conn *c, struct tcps_sent *r, uint32_t most);
struct tcps_sent *tcps_sent_first_lost(struct tcps_conn *c);

/* rack.c: RFC 8985 */
void tcps_rack_delivered(struct tcps_conn *c, const struct tcps_sent *r, uint32_t end_seq, const struct tcps_delivered *d);
/* Marks what must be lost by now, and arms the reordering timer for what may be. */
void tcps_rack_detect(struct tcps_conn *c);
void tcps_rack_dsack(struct tcps_conn *c);
void tcps_rack_late(struct tcps_conn *c, uint32_t late_us); /* what was taken for lost came so long after */
void tcps_rack_recovered(struct tcps_conn *c);
bool tcps_tlp_wanted(const struct tcps_conn *c);
uint64_t tcps_tlp_delay_ns(const struct tcps_conn *c);
void tcps_tlp_due(struct tcps_conn *c);
void tcps_tlp_acked(struct tcps_conn *c, uint32_t ack, bool plain_duplicate, const struct tcps_delivered *d);

/* undo.c */
void tcps_undo_begin(struct tcps_conn *c, bool rto);                   /* before a window is reduced: saves the state */
void tcps_undo_forget(struct tcps_conn *c);                            /* there was congestion after all */
void tcps_undo_sent(struct tcps_conn *c, const struct tcps_sent *r);   /* all of `r`, as it still is, went out again */
void tcps_undo_dsack(struct tcps_conn *c, const struct tcps_range *b); /* it arrived twice */
/* True: what went before is taken back. */
bool tcps_undo_acked(struct tcps_conn *c, uint32_t ack, bool advanced, const struct tcps_delivered *d);

/* congestion.c */
void tcps_cc_acked(struct tcps_conn *c, uint32_t acked, uint32_t pipe_before);
void tcps_cc_lost(struct tcps_conn *c); /* sets ssthresh_bytes, once an event */
void tcps_cc_recovery(struct tcps_conn *c);
void tcps_cc_prr(struct tcps_conn *c, uint32_t delivered_bytes);

#endif
