/*
 * test_tcps_rig.h - one stack and a scripted peer: frames are built by hand, what the stack answers is taken apart.
 *
 * Owns: the stack under test, the frames that it sent, and what its owner was told.
 * Core: tests only. The checksums here are summed byte by byte, independent of the stack's.
 * Spec: RFC 791, 826, 9293 3.1 for the bytes.
 */
#ifndef TICKWIRE_TEST_TCPS_RIG_H
#define TICKWIRE_TEST_TCPS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tcpstack/tcpstack.h"

#define FIN 0x01u
#define SYN 0x02u
#define RST 0x04u
#define PSH 0x08u
#define ACK 0x10u
#define URG 0x20u

#define MS        1000000ull
#define SECOND    1000000000ull
#define OUT_MAX   512u
#define PEER_PORT 40000u
#define OWN_PORT  5672u
#define PEER_ISS  1000u

struct out_frame {
	uint8_t bytes[9300];
	size_t len;
	struct tcps_tx_meta meta;
};

/* A TCP segment that the stack sent, taken apart; its checksums have been verified. */
struct seen {
	uint8_t flags;
	uint32_t seq, ack, wnd, len;
	uint16_t src_port, dst_port;
	uint16_t mss; /* 0: no option */
	int wscale;   /* -1: no option */
	bool has_ts;
	uint32_t ts_val, ts_ecr;
	bool sack_ok;
	unsigned sack_count;
	uint32_t sack[4][2];
	const uint8_t *payload; /* valid until rig_clear() */
};

struct rig {
	struct tcps *t;
	void *mem;
	uint64_t now_ns;
	bool no_frames;    /* tx_alloc() returns NULL */
	uint32_t rx_flags; /* given to tcps_input() */
	bool v6;           /* segments are built over IPv6 */
	bool link_local;   /* ... between the link-local addresses */
	uint16_t vlan;     /* ... and tagged */
	struct out_frame out[OUT_MAX];
	unsigned out_count, out_next;

	/* the connection under test, as the peer sees it */
	struct tcps_conn *conn;
	uint32_t own_iss;
	uint32_t peer_seq; /* next to send */
	uint16_t peer_port;
	bool ts;
	uint32_t ts_val, ts_ecr; /* of the next segment */
	uint16_t peer_wnd;

	/* what the owner was told */
	unsigned accepted, connected, eof, writable, closed, released;
	enum tcps_reason reason;
	bool refuse;          /* on_accept() returns NULL */
	bool abort_in_data;   /* on_data() aborts */
	bool shutdown_in_eof; /* on_eof() shuts down */
	size_t take_max;      /* on_data() consumes so many bytes in all and then stops */
	uint8_t got[1 << 20];
	size_t got_len;
	unsigned data_calls;
	void *released_owner;
};

extern struct rig rig;

void rig_config(struct tcps_config *cfg);
void rig_start(const struct tcps_config *cfg);
void rig_stop(void);

/* Fixtures for cmocka: a listener on OWN_PORT whose peer is known by ARP. */
int rig_setup(void **state);
int rig_teardown(void **state);

void rig_frame(const uint8_t *frame, size_t len);
/* A TCP segment from the peer with explicit numbers; `opts` may be NULL. */
void rig_segment(uint8_t flags, uint32_t seq, uint32_t ack, const void *data, size_t len, const uint8_t *opts, size_t opts_len);
/* Builds the frame only; for tests that break it. Returns its length. */
size_t rig_build(uint8_t *frame, uint8_t flags, uint32_t seq, uint32_t ack, const void *data, size_t len, const uint8_t *opts,
		 size_t opts_len);
void rig_fix_ip_cksum(uint8_t *frame);
void rig_fix_tcp_cksum(uint8_t *frame);
/* The next segment in order, acknowledging all that was seen (`ack`), with timestamps if agreed on. */
void rig_send(uint8_t flags, uint32_t ack, const void *data, size_t len);
void rig_arp_from_peer(uint16_t op);
/* An IPv6 packet in an Ethernet frame to `eth_dst` (NULL: ours); returns its length. `body` comes behind the header. */
size_t rig_build6(uint8_t *frame, const uint8_t *eth_dst, const uint8_t src[16], const uint8_t dst[16], uint8_t next,
		  uint8_t hop_limit, const void *body, size_t len);
/* Fills the checksum of an ICMPv6 message at `body` of an IPv6 packet. */
void rig_fix_icmp6_cksum(const uint8_t *ip, uint8_t *body, size_t len);
extern const uint8_t rig_own6[16], rig_peer6[16], rig_own_link[16], rig_peer_link[16], rig_own_group[16];

/* Lets `ns` pass in steps no longer than to the next deadline, ticking and flushing. */
void rig_pass(uint64_t ns);
void rig_flush(void);
/* The next TCP segment sent; fails when there is none. */
struct seen rig_expect(void);
/* Fails when a TCP segment was sent and not looked at. */
void rig_expect_none(void);
unsigned rig_pending(void);
void rig_clear(void);

/* Three-way handshake with the peer as client. `ts`: offer timestamps; `wscale` -1: do not offer. */
void rig_establish(bool ts, int wscale);
/* The same with timestamps, window scale 7 and SACK. */
void rig_establish_sack(void);
/* ... with window scale and SACK, without timestamps. */
void rig_establish_sack_alone(void);
/* An ACK with SACK blocks, given as pairs of offsets in our stream. */
void rig_sack(uint32_t ack, unsigned count, const uint32_t (*blocks)[2]);
/* What the peer acknowledges for `n` bytes of our stream. */
uint32_t rig_own(uint32_t n);
uint64_t rig_count(enum tcps_counter counter);
void rig_check(void);
/* All pools are empty again. */
void rig_expect_baseline(void);

#endif
