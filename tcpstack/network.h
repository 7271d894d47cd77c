/*
 * network.h - what lies below TCP: own addresses, neighbours, routes, narrow paths, frames and ICMP.
 *
 * Owns: the structures of the network layer, which struct tcps holds; each field has one writer, the worker.
 * Core: the worker that made the stack.
 * Spec: RFC 826, 8200, 4861, 4862, 4443, 1191, 8201.
 */
#ifndef TICKWIRE_TCPSTACK_NETWORK_H
#define TICKWIRE_TCPSTACK_NETWORK_H

#include "tcpstack/tcpstack.h"
#include "tcpstack/wheel.h"

#define TCPS_ETH_ROOM     32u                    /* an Ethernet header with a tag, and the constant begin of an IPv4 header */
#define TCPS_PMTU_FLOOR   552u                   /* of IPv4 paths, unless configured */
#define TCPS_PMTU_MAX     64u                    /* destinations with a narrow path that are remembered */
#define TCPS_LINKS_MAX    (TCPS_ROUTES_MAX + 5u) /* the static routes, the own networks, the gateways */
#define TCPS_NO_NEIGHBOUR UINT16_MAX

/* Own addresses; the last two are IPv6. */
enum tcps_own_idx { OWN_V4, OWN_GLOBAL, OWN_LINK, OWN_COUNT };

/* The other end of a connection, and which address of ours it talks to. */
struct tcps_peer {
	uint32_t key; /* as tcps_conn.peer_key */
	uint32_t ports_raw;
	bool v6;
	uint8_t own;      /* enum tcps_own_idx */
	uint8_t addr[16]; /* IPv4 in the first four bytes, zeroes behind */
};

/* RFC 4861 7.3.2, for ARP as well. From STALE on the Ethernet address is usable, and from DELAY on without a thought. */
enum tcps_neigh_state { NEIGH_FREE, NEIGH_INCOMPLETE, NEIGH_STALE, NEIGH_DELAY, NEIGH_PROBE, NEIGH_REACHABLE };

struct tcps_neigh {
	struct tcps_timer timer;
	uint8_t eth[TCPS_ETH_ROOM]; /* what every frame to it begins with: first its address */
	uint8_t addr[16];           /* IPv4 in the first four bytes, zeroes behind */
	uint32_t hash_next_idx;
	uint32_t ref_count;    /* connections that send through it */
	uint32_t waiter_count; /* ... and wait for its address */
	bool v6;
	uint8_t state;
	uint8_t tries;
	uint64_t asked_ns;
};

/* What is the same in all segments from an address. */
struct tcps_form {
	uint32_t tcp_at;          /* where in the frame the TCP header begins */
	struct tcps_tx_meta meta; /* l4_len is that of a header with timestamps alone */
};

enum tcps_own_state { OWN_ABSENT, OWN_TENTATIVE, OWN_READY, OWN_DUPLICATE };

struct tcps_own {
	struct tcps_timer timer;
	uint8_t addr[16];
	uint8_t state;
	bool v6;
	uint8_t probes, announcements; /* sent */
	uint64_t defended_ns;
};

/* Where packets for a prefix go. */
struct tcps_link {
	uint8_t prefix[16], gateway[16];
	uint8_t prefix_len;
	bool v6, on_link; /* on_link: to the destination itself */
};

struct tcps_pmtu {
	uint64_t until_ns;
	uint8_t addr[16];
	bool v6;
	uint16_t mtu;
};

/* frame.c: headers of outgoing frames, and Ethernet addresses */
/* Writes the Ethernet header, the tag included where it is ours to write. Returns where the packet begins. */
uint8_t *tcps_eth_header(const struct tcps *t, uint8_t *frame, const uint8_t dst[6], uint16_t type);
/* What the port must know of a frame that is no TCP segment. */
struct tcps_tx_meta tcps_plain_meta(const struct tcps *t, bool ipv4);
/* A frame for a packet of `len` bytes; NULL: none, counted. */
uint8_t *tcps_frame_alloc(struct tcps *t, size_t len, void **handle);
void tcps_frame_send(struct tcps *t, void *handle, size_t len, const struct tcps_tx_meta *meta);
void tcps_ipv6_header(uint8_t *ip, uint32_t flow_raw, const uint8_t src[16], const uint8_t dst[16], uint8_t next,
		      size_t payload_len, uint8_t hop_limit);
/* The header of a connection's segment. */
void tcps_ipv6_conn_header(const struct tcps_conn *c, uint8_t *ip, size_t payload_len);
uint16_t tcps_addr_sum(uint32_t a_raw, uint32_t b_raw);
uint16_t tcps_addr_sum6(const uint8_t a[16], const uint8_t b[16]);
/* The sum of both ends' addresses. */
uint16_t tcps_peer_sum(const struct tcps *t, const struct tcps_peer *peer);

/* neigh.c: the neighbour table of both families */
/* The neighbour through which the peer is reached, made when absent and pinned; TCPS_NO_NEIGHBOUR: none. */
uint16_t tcps_neigh_get(struct tcps *t, const struct tcps_peer *peer);
void tcps_neigh_put(struct tcps *t, uint16_t idx);
/* A frame came from there and its sender answered us: usable until it is asked. */
void tcps_neigh_seed(struct tcps *t, uint16_t idx, const uint8_t mac[6]);
/* Asks again for an address that something waits for. */
void tcps_neigh_want(struct tcps *t, uint16_t idx);
/* A segment is to go out through a neighbour that is STALE or less; false: its address is not known. */
bool tcps_neigh_use(struct tcps *t, struct tcps_neigh *n);
void tcps_neigh_timer(struct tcps *t, struct tcps_timer *timer);
/* Finds a usable Ethernet address without pinning. */
bool tcps_neigh_mac(struct tcps *t, const struct tcps_peer *peer, uint8_t mac[6]);
struct tcps_neigh *tcps_neigh_find(const struct tcps *t, bool v6, const uint8_t addr[16]);
/* Its host speaks of itself: an entry is made if `create`; a new address makes it STALE, for nobody says that it hears us. */
void tcps_neigh_heard(struct tcps *t, bool v6, const uint8_t addr[16], const uint8_t mac[6], bool create);
/* Its host answered our question. */
void tcps_neigh_confirm(struct tcps *t, struct tcps_neigh *n, const uint8_t mac[6]);
/* A new Ethernet address that nobody confirmed. */
void tcps_neigh_stale(struct tcps *t, struct tcps_neigh *n, const uint8_t mac[6]);
const uint8_t *tcps_neigh_eth(const struct tcps_neigh *n);

/* arp.c */
void tcps_arp_input(struct tcps *t, const uint8_t *frame, const uint8_t *arp, size_t len);
/* `mac` NULL: everybody is asked. `probe`: RFC 5227 1.1, the sender's address is left open. */
bool tcps_arp_ask(struct tcps *t, const uint8_t addr[4], const uint8_t *mac, bool probe);

/* nd.c */
struct tcps_icmp6 {
	const uint8_t *frame, *ip, *body; /* `body` is the ICMPv6 message, checksum verified */
	uint32_t len;
};
void tcps_nd_input(struct tcps *t, const struct tcps_icmp6 *m);
/* `mac` NULL: to the solicited-node group. `probe`: RFC 4862 5.4.2, from the unspecified address. */
bool tcps_nd_ask(struct tcps *t, const uint8_t addr[16], const uint8_t *mac, bool probe);
/* RFC 4861 7.2.6: unsolicited, to all nodes. */
bool tcps_nd_announce(struct tcps *t, const struct tcps_own *own);
/* RFC 3810: we listen to the solicited-node groups of our addresses. */
void tcps_mld_report(struct tcps *t);
void tcps_solicited_node(const uint8_t addr[16], uint8_t group[16]);

/* own.c: the own addresses; DAD, ARP probes, announcements, defence */
void tcps_own_init(struct tcps *t);
void tcps_own_timer(struct tcps *t, struct tcps_timer *timer);
/* Somebody else claims the address. */
void tcps_own_conflict(struct tcps *t, struct tcps_own *own, const uint8_t mac[6]);
/* Which of our IPv6 addresses it is, in whatever state; NULL: none. */
struct tcps_own *tcps_own_find6(struct tcps *t, const uint8_t addr[16]);

/* route.c */
bool tcps_routes_init(struct tcps *t);
/* The address on the link to which a packet for `addr` goes. */
bool tcps_route(const struct tcps *t, bool v6, const uint8_t addr[16], uint8_t hop[16]);

/* ipv4.c */
void tcps_ipv4_other(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t header_len, uint32_t total);
bool tcps_source_is_bad(const struct tcps *t, const struct tcps_peer *peer);
bool tcps_source4_is_bad(const struct tcps *t, uint32_t addr_raw);

/* ipv6.c */
/* A valid packet that is not plain TCP for us: extension headers are stepped over. Returns the TCP header of one that is after
 * all, with what is left of the packet in *len, or NULL: dealt with. */
const uint8_t *tcps_ipv6_other(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t *len);
bool tcps_source6_is_bad(const struct tcps *t, const uint8_t addr[16]);
/* An ICMPv6 message being built; `len` and the header before it, if any, are given beforehand. */
struct tcps_out6 {
	size_t len, ext_len;
	const uint8_t *ext; /* hop-by-hop options */
	void *handle;
	uint8_t *ip, *body; /* `body` is zeroed */
};
/* Errors: false when no frame is free. */
bool tcps_icmp6_open(struct tcps *t, struct tcps_out6 *out, const uint8_t mac[6], const uint8_t src[16], const uint8_t dst[16],
		     uint8_t hop_limit);
void tcps_icmp6_close(struct tcps *t, struct tcps_out6 *out);
/* Sums message and pseudo header. */
uint16_t tcps_icmp6_sum(const uint8_t *ip, const uint8_t *body, uint32_t len);

/* icmp.c: errors, both families, both ways */
/* An error message arrived: `quoted` is the packet that caused it, as far as it came. */
void tcps_icmp_error(struct tcps *t, bool v6, uint8_t type, uint8_t code, uint32_t info, const uint8_t *quoted, uint32_t len);
/* Tells the source of a packet that it could not be used. */
void tcps_icmp_error_send(struct tcps *t, const uint8_t *frame, const uint8_t *ip, uint32_t len, uint8_t type, uint8_t code,
			  uint32_t info);
bool tcps_icmp_allowed(struct tcps *t);

/* pmtu.c */
/* The largest packet to there. */
uint32_t tcps_pmtu_of(const struct tcps *t, bool v6, const uint8_t addr[16]);
void tcps_pmtu_note(struct tcps *t, bool v6, const uint8_t addr[16], uint32_t mtu);
void tcps_pmtu_timer(struct tcps *t);

#endif
