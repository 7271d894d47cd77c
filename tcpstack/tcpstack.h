/*
 * tcpstack.h - the public face of the userspace TCP/IP stack.
 *
 * Owns: one `struct tcps` per worker: ARP and neighbour discovery, IPv4 and IPv6, ICMP and TCP as pure transitions over
 *       memory that the caller gave.
 * Core: the worker that made it; nothing here locks, allocates, reads a clock or asks for entropy (all are arguments).
 * Spec: RFC 826, 791, 792, 8200, 4443, 4861, 4862, 1191, 8201, 5927, 9293, 7323, 6298, 5681, IEEE 802.1Q.
 */
#ifndef TICKWIRE_TCPSTACK_H
#define TICKWIRE_TCPSTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tcps;
struct tcps_conn;

/* An address of either family; IPv4 uses the first 4 bytes, in network order. */
struct tcps_addr {
	uint8_t family; /* 4 or 6 */
	uint8_t bytes[16];
};

struct tcps_endpoint {
	struct tcps_addr addr;
	uint16_t port; /* host order */
};

enum tcps_cc {
	TCPS_CC_CUBIC,  /* RFC 9438 */
	TCPS_CC_NEWRENO /* RFC 5681, 6582 */
};

/* A static route. The longest prefix that covers a destination wins, the own networks among them. */
#define TCPS_ROUTES_MAX 16u
struct tcps_route {
	struct tcps_addr prefix;
	uint8_t prefix_len;
	struct tcps_addr gateway; /* of the same family, on the link */
};

struct tcps_config {
	uint8_t mac[6];
	uint8_t ipv4[4];
	uint8_t ipv4_prefix_len;
	uint8_t ipv4_gateway[4];   /* all zero: no gateway */
	uint16_t mtu;              /* IP packet size: 1500 */
	bool tx_ip_cksum_offload;  /* the port fills the IPv4 header checksum */
	bool tx_tcp_cksum_offload; /* the port fills the TCP checksum; the stack then writes the pseudo-header sum */

	uint32_t conns_max;     /* established and closing connections */
	uint32_t half_open_max; /* SYN cache entries */
	uint32_t time_wait_max; /* TIME_WAIT records */
	uint32_t listeners_max;
	uint32_t neighbours_max;
	uint32_t blocks_max; /* TCPS_BLOCK_BYTES blocks for unsent, unacknowledged, held and out-of-order bytes */

	/* tcps_unsent() above this (seen when a block is taken): tcps_writable() is false until it fell below half. */
	uint32_t send_high_water_bytes;
	uint32_t recv_window_bytes; /* byte budget of the receive window of one connection */

	uint64_t rto_min_ns, rto_max_ns; /* RFC 6298 bounds; 200 ms, 60 s */
	uint64_t msl_ns;                 /* TIME_WAIT lasts 2 MSL */
	uint64_t delayed_ack_ns;         /* 40 ms; stands aside when data goes the other way */
	uint64_t keepalive_ns;           /* 0: off */
	uint32_t retransmits_max;        /* then the connection is reported TCPS_CLOSED_TIMEOUT */

	uint64_t user_timeout_ns; /* RFC 5482: unacknowledged for so long, or the window shut; 0: retransmits_max alone decides */
	uint8_t cc;               /* enum tcps_cc, of tcps_listen() and tcps_connect() */
	/*
	 * Payload that one frame may hold for the port to cut (TCP segmentation offload); 0: every segment is a frame of its own.
	 * Needs both checksum offloads.
	 */
	uint32_t tso_max_bytes;
	/* Pieces of the owners' memory that a frame may end in, uncopied: tx_chain(). 0: every frame is contiguous. */
	uint8_t tx_pieces_max;
	bool ecn;         /* RFC 3168: offer it, and accept it where it is offered */
	bool syn_cookies; /* RFC 4987: a full SYN cache answers with cookies; else its oldest record makes room */
	bool no_sack;     /* neither offer SACK nor accept it */

	uint8_t secret[16]; /* siphash key for the connection table and RFC 6528 initial sequence numbers */

	/* The network beyond one IPv4 address; all zero: none of it. */
	uint8_t ipv6[16]; /* a global or unique local address; with it comes the link-local one, made from `mac` */
	uint8_t ipv6_prefix_len;
	uint8_t ipv6_gateway[16];
	struct tcps_route routes[TCPS_ROUTES_MAX];
	uint32_t route_count;
	uint16_t vlan_id;      /* 1..4094: every frame bears this 802.1Q tag, and others are dropped; 0: frames bear none */
	bool tx_vlan_offload;  /* the port inserts the tag: tcps_tx_meta.vlan_insert */
	uint16_t mss_max;      /* clamps what is announced and what is sent; 0: the MTU decides alone */
	uint16_t pmtu_min;     /* no report lowers an IPv4 path below; 0: 552. IPv6: 1280 always */
	uint8_t dad_transmits; /* RFC 4862: questions before an IPv6 address is used; 0: it is used at once */
	uint8_t arp_probes;    /* RFC 5227: the same for the IPv4 address */
};

#define TCPS_BLOCK_BYTES 2048u

enum tcps_reason {
	TCPS_CLOSED_NORMALLY,   /* both FINs seen and acknowledged */
	TCPS_CLOSED_RESET,      /* RST from the peer */
	TCPS_CLOSED_TIMEOUT,    /* retransmission, keepalive or handshake gave up */
	TCPS_CLOSED_ABORTED,    /* tcps_abort() by the owner */
	TCPS_CLOSED_REFUSED,    /* an active open was answered by RST */
	TCPS_CLOSED_NO_BUFFERS, /* a pool ran dry where nothing else could be done */
	TCPS_CLOSED_UNREACHABLE /* an active open failed, and ICMP said why: no way, or forbidden */
};

/* Bits of the `rx_flags` argument of tcps_input(): what the port has verified already. */
#define TCPS_RX_IP_CKSUM_GOOD 0x1u
#define TCPS_RX_L4_CKSUM_GOOD 0x2u
/* The port took the 802.1Q tag off; its control information is in the upper half: TCPS_RX_VLAN(tci). */
#define TCPS_RX_VLAN_STRIPPED 0x4u
#define TCPS_RX_VLAN(tci)     (TCPS_RX_VLAN_STRIPPED | (uint32_t)(tci) << 16)

/* Bytes of a reference that lie in a frame without having been copied there. */
#define TCPS_PIECES_MAX 8u
struct tcps_piece {
	const uint8_t *data;
	uint32_t len;
	void *owner;
};

/* What the port is asked to do with an outgoing frame. */
struct tcps_tx_meta {
	bool ip_cksum;  /* fill the IPv4 header checksum */
	bool tcp_cksum; /* fill the TCP checksum */
	uint8_t l2_len, l3_len, l4_len;
	bool ipv6;
	bool vlan_insert; /* the port puts an 802.1Q tag with vlan_tci behind the addresses */
	uint16_t vlan_tci;
	uint16_t tso_mss; /* not 0: the port cuts the payload into segments of so many bytes and fills all checksums */
};

/*
 * What the stack calls. `ctx` is that of tcps_init(), `user` what on_accept() returned or tcps_connect() was given.
 * A callback may call any tcps_ function on its connection, tcps_abort() included; the connection's memory stays valid
 * until on_closed() returned.
 */
struct tcps_ops {
	/*
	 * A writable frame of at least `len` bytes, contiguous; NULL: none now, the stack tries again on a later call. This and
	 * tx_send() call nothing of the stack.
	 */
	uint8_t *(*tx_alloc)(void *ctx, size_t len, void **handle);
	/* The frame is complete; ownership of `handle` goes to the callee. */
	void (*tx_send)(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta);
	/* A connection reached ESTABLISHED on a listener. Returns `user`, or NULL to refuse (it is reset). */
	void *(*on_accept)(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port);
	/* An active open succeeded. */
	void (*on_connected)(void *user);
	/*
	 * In-order bytes, lent for the call. Returns how many were consumed; the rest is held by the stack (copied into
	 * blocks), no further on_data() comes for this connection and its window closes until tcps_resume().
	 */
	size_t (*on_data)(void *user, const uint8_t *data, size_t len);
	void (*on_eof)(void *user); /* the peer's FIN, after all data was consumed */
	void (*on_writable)(
		void *user); /* half of the high-water mark and of the share are free again after tcps_writable() was false */
	void (*on_closed)(void *user, enum tcps_reason reason); /* last call for this connection */
	/* A reference given by tcps_send_ref() is not needed any more (acknowledged, or connection gone). */
	void (*release)(void *ctx, void *owner);
	/*
	 * With tx_pieces_max: a frame of `len` writable bytes, contiguous, and behind them the pieces, which are read when it goes
	 * out. NULL: not now; the stack then copies, into a frame of tx_alloc(). tx_send() is told the length with all pieces.
	 */
	uint8_t *(*tx_chain)(void *ctx, size_t len, const struct tcps_piece *pieces, unsigned count, void **handle);
	/*
	 * One more holder of the owner's memory, a frame: for each piece after tx_chain() took it. The port ends each hold, as
	 * release() does, when the frame is gone; that may be within any call of tx_*, long after the reference itself was
	 * released, and must not call the stack.
	 */
	void (*hold)(void *ctx, void *owner);
	/*
	 * A segment in tcps_input() belongs to no connection here and opens none. True: it was handed to another stack with the
	 * same addresses, which may know it. NULL: there is none; such a segment is answered with a reset.
	 */
	bool (*elsewhere)(void *ctx);
};

/* Bytes that tcps_init() needs for this configuration. */
size_t tcps_mem_bytes(const struct tcps_config *cfg);
/* Makes a stack in `mem` (64-byte aligned, zeroed). Errors: NULL when `mem_bytes` is too small or the config is invalid. */
struct tcps *tcps_init(void *mem, size_t mem_bytes, const struct tcps_config *cfg, const struct tcps_ops *ops, void *ctx,
		       uint64_t now_ns);

/* Opens a passive listener. Errors: false when the port is taken or the table full. Spec: RFC 9293 3.10.1. */
bool tcps_listen(struct tcps *t, uint16_t port);
/* The same with a congestion control of its own for this listener's connections. */
bool tcps_listen_cc(struct tcps *t, uint16_t port, enum tcps_cc cc);
bool tcps_unlisten(struct tcps *t, uint16_t port);
/* Active open; `user` is handed to the callbacks. Errors: NULL when no route, port or block is free. */
struct tcps_conn *tcps_connect(struct tcps *t, const struct tcps_endpoint *peer, uint16_t local_port, void *user, uint64_t now_ns);

/* Takes one received Ethernet frame, lent for the call. Malformed frames are dropped and counted by reason. */
void tcps_input(struct tcps *t, const uint8_t *frame, size_t len, uint32_t rx_flags, uint64_t now_ns);
/* A frame for all stacks that share the addresses, which another of them answers: what it says is learnt, nothing is replied. */
void tcps_overhear(struct tcps *t, const uint8_t *frame, size_t len, uint32_t rx_flags, uint64_t now_ns);
/*
 * Runs timers that are due, a bounded number of them: with more, tcps_next_deadline() has passed already, and the next call goes
 * on. Cheap when none is due. Returns whether there was anything to do.
 */
bool tcps_tick(struct tcps *t, uint64_t now_ns);
/* Sends what was queued and what must be acknowledged, for every connection touched since the last flush: once a burst. */
void tcps_flush(struct tcps *t, uint64_t now_ns);
/* The time at which tcps_tick() next has work; UINT64_MAX when no timer is armed. For the simulator and idle sleeping. */
uint64_t tcps_next_deadline(const struct tcps *t);
/*
 * The link is there: asks whether the own addresses are free, where the configuration wants that, and announces them (RFC 5227,
 * RFC 4862, RFC 4861 7.2.6). Addresses that are to be asked about are not used before.
 */
void tcps_announce(struct tcps *t, uint64_t now_ns);

/*
 * Contiguous space for `len` (at most TCPS_RESERVE_MAX) bytes at the tail of the unsent stream, to be written in place and
 * then committed (same or smaller length) before any other call on the connection. NULL: the sending side is
 * closed, or the connection holds its share of the blocks: then it is not writable and on_writable() follows. The high-water
 * mark is advice; reserve goes on above it.
 */
#define TCPS_RESERVE_MAX 1536u
uint8_t *tcps_reserve(struct tcps_conn *c, size_t len);
void tcps_commit(struct tcps_conn *c, size_t len);
/*
 * Copies `len` bytes of any length into the tail; all or nothing. It is meant for answers, and takes what blocks there are, the
 * reserve included: who looks at tcps_writable() before he reads on is bounded by that. Errors: false when blocks ran out or
 * sending is closed.
 */
bool tcps_send(struct tcps_conn *c, const void *data, size_t len);
/* Appends a reference; `data` stays valid until release(owner). Errors: false (no release follows). */
bool tcps_send_ref(struct tcps_conn *c, const void *data, size_t len, void *owner);
/* Bytes queued and not yet sent, plus sent and not yet acknowledged. */
size_t tcps_unsent(const struct tcps_conn *c);
/* Neither the high-water mark nor the share of the blocks is reached. Once it was false, on_writable() follows. */
bool tcps_writable(const struct tcps_conn *c);
/* Whether `refs` references with `bytes` inline bytes before and between them would find room, with the reserve left alone. */
bool tcps_has_room(const struct tcps_conn *c, size_t bytes, size_t refs);
/* At most about so many unread bytes (up to a block more) are kept while the reader stops; there is no limit of its own at first.
 */
void tcps_recv_limit(struct tcps_conn *c, size_t bytes);
/* Hands over held bytes again after on_data() had consumed less than it was given. */
void tcps_resume(struct tcps_conn *c);
/* Sends FIN after all that is queued. Reading goes on. */
void tcps_shutdown(struct tcps_conn *c);
/* Sends RST and forgets the connection; on_closed(ABORTED) comes before it returns. */
void tcps_abort(struct tcps_conn *c);

void *tcps_user(const struct tcps_conn *c);
void tcps_endpoints(const struct tcps_conn *c, struct tcps_endpoint *local, struct tcps_endpoint *peer);

/* Per-connection figures for `tickctl list_connections`. */
struct tcps_conn_info {
	const char *state; /* RFC 9293 name */
	uint32_t srtt_us, rttvar_us, rto_ms, cwnd_bytes, ssthresh_bytes, mss;
	uint32_t snd_wnd_bytes, rcv_wnd_bytes, unsent_bytes, unacked_bytes;
	uint32_t sacked_bytes, lost_bytes, min_rtt_us;
	const char *congestion; /* "cubic", "newreno" */
	bool sack, timestamps, recovery, reordering;
	uint64_t retransmits, bytes_in, bytes_out;
};
void tcps_info(const struct tcps_conn *c, struct tcps_conn_info *out);

/* The link-local address, in network order; false where IPv6 is not configured. */
bool tcps_link_local(const struct tcps *t, uint8_t addr[16]);
/* Every configured address is in use: none is still being asked about, none turned out to be another host's. */
bool tcps_addresses_ready(const struct tcps *t);

/* Counters, listed once in counters.def (drop reasons included). */
enum tcps_counter {
#define TCPS_COUNTER(name, text) TCPS_CNT_##name,
#include "counters.def"
#undef TCPS_COUNTER
	TCPS_CNT_COUNT
};
const uint64_t *tcps_counters(const struct tcps *t); /* TCPS_CNT_COUNT values, written by the worker alone */
const char *tcps_counter_name(unsigned idx);
const char *tcps_counter_text(unsigned idx);
const char *tcps_reason_text(enum tcps_reason reason);

struct tcps_usage {
	uint32_t conns, half_open, time_wait, blocks_in_use, refs_in_use;
	uint32_t conns_max, half_open_max, time_wait_max, blocks_max;
};
void tcps_usage(const struct tcps *t, struct tcps_usage *out);

/*
 * Checks the invariants of the whole stack (a timer is armed whenever data is outstanding, sequence order, window promise,
 * block conservation). For the simulator and tests. Returns NULL, or a sentence that names what is broken.
 */
const char *tcps_check(const struct tcps *t);

/* RFC 1071 sum of a span of any alignment and length, continuing `sum`; `odd` says that an odd count of bytes came before. */
uint32_t tcps_cksum_add(uint32_t sum, const void *data, size_t len, bool odd);
uint16_t tcps_cksum_fold(uint32_t sum);

#endif
