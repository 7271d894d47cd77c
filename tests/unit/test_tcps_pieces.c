/*
 * test_tcps_pieces.c - frames that end in memory of others: on the wire they are, byte for byte, those that the stack copies.
 *
 * Owns: runs of the same random stream, with pieces and without, the frames on the wire of each, and a count of holders for every
 *       reference.
 * Core: a unit test.
 * Spec: the contract of tx_chain(), hold() and release() in tcpstack.h; RFC 1071 2 (B) for odd pieces.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/net.h"
#include "tests/sim/tcp_host.h"

#define MS         1000000ull
#define WIRE_MAX   2000u
#define BULK_BYTES 60000u
#define OWNERS_MAX 1000u
#define SEEDS      40u

struct wire_frame {
	uint8_t bytes[NET_FRAME_MAX];
	size_t len;
};

/* A scenario; `seed` decides how the stream is put together and what of it is lost. */
struct scene {
	uint64_t seed;
	bool v6, cksum_offload, lossy, talk_back;
	uint16_t vlan, mtu;
	uint32_t tso;
	uint8_t pieces;
	uint32_t refuse; /* one of so many attempts finds no buffers */
	uint64_t ring_hold_ns;
};

struct run {
	struct scene scene;
	struct net *net;
	struct host hosts[2];
	struct tcps_conn *conn, *peer;
	struct wire_frame *wire; /* what the sender put on it, in order */
	unsigned count, data_segments;
	unsigned with_sack; /* payload beside a SACK option; over IPv4, untagged */
	uint64_t received, now_ns, random;
	uint32_t holders[OWNERS_MAX]; /* of each reference: the stack, and frames */
	uint32_t owner_count, holds, given_back;
	uint64_t chains, refused, retransmits;
};

static struct run *now;
static uint8_t body[BULK_BYTES];

/* xorshift64*: the stream is the same whatever the port does. */
static uint32_t below(struct run *r, uint32_t bound)
{
	r->random ^= r->random >> 12;
	r->random ^= r->random << 25;
	r->random ^= r->random >> 27;
	return (uint32_t)(r->random * 0x2545f4914f6cdd1dull >> 33) % bound;
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)ctx;
	(void)peer;
	(void)local_port;
	now->peer = conn;
	return &now->peer;
}

static void on_nothing(void *user)
{
	(void)user;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	if (user != &now->peer)
		return len;
	assert_memory_equal(data, body + now->received, len);
	now->received += len;
	return len;
}

static void on_closed(void *user, enum tcps_reason reason)
{
	(void)user;
	(void)reason;
}

static void hold(void *ctx, void *owner)
{
	uint32_t *holders = owner;

	(void)ctx;
	assert_true(*holders > 0); /* the stack's own still stands */
	++*holders;
	now->holds++;
}

static void release(void *ctx, void *owner)
{
	uint32_t *holders = owner;

	(void)ctx;
	assert_true(*holders > 0);
	--*holders;
	now->given_back++;
}

static bool lost(struct run *r, unsigned side, size_t len)
{
	return side == 1 && len > 300 && r->scene.lossy && ++r->data_segments % 7 == r->scene.seed % 7 && r->data_segments < 60;
}

/* Hands frames over until nothing is under way any more. */
static void settle(struct run *r)
{
	static uint8_t frame[NET_FRAME_MAX];

	for (unsigned quiet = 0; quiet < 700; quiet++) {
		unsigned side;
		size_t len;

		r->now_ns += MS;
		r->hosts[0].now_ns = r->hosts[1].now_ns = r->now_ns;
		while ((len = net_receive(r->net, r->now_ns, &side, frame)) != 0) {
			quiet = 0;
			if (side == 1) {
				assert_true(r->count < WIRE_MAX);
				memcpy(r->wire[r->count].bytes, frame, len);
				r->wire[r->count++].len = len;
				r->with_sack += len > 300 && frame[46] >> 4 > 8;
			}
			if (!lost(r, side, len))
				host_input(&r->hosts[side], frame, len);
			/* Bytes the other way: what is lost of them puts SACK blocks beside our payload. */
			if (r->scene.talk_back && side == 1 && len > 300 && r->peer != NULL)
				tcps_send(r->peer, body, 300);
		}
		for (unsigned i = 0; i < 2; i++) {
			tcps_tick(r->hosts[i].t, r->now_ns);
			tcps_flush(r->hosts[i].t, r->now_ns);
			assert_null(tcps_check(r->hosts[i].t));
		}
	}
}

static void start(struct run *r)
{
	static const struct tcps_ops ops = {.on_accept = on_accept,
					    .on_connected = on_nothing,
					    .on_data = on_data,
					    .on_eof = on_nothing,
					    .on_writable = on_nothing,
					    .on_closed = on_closed,
					    .release = release,
					    .hold = hold};
	static const struct tcps_endpoint to4 = {.addr = {.family = 4, .bytes = {198, 18, 0, 2}}, .port = 5672},
					  to6 = {.addr = {.family = 6, .bytes = {0x20, 1, 0, 2, [15] = 2}}, .port = 5672};
	const struct scene *s = &r->scene;
	struct net_params wire = {.delay_min_ns = 100000, .delay_max_ns = 100000};

	for (unsigned side = 0; side < 2; side++) {
		struct tcps_config cfg;

		net_set(r->net, side, &wire);
		host_config(&cfg, side);
		host_config_ipv6(&cfg, side);
		cfg.mtu = s->mtu;
		cfg.blocks_max = 600;
		cfg.recv_window_bytes = 200000;
		cfg.vlan_id = s->vlan;
		if (side == 0) {
			cfg.tx_ip_cksum_offload = cfg.tx_tcp_cksum_offload = s->cksum_offload;
			cfg.tso_max_bytes = s->tso;
			cfg.tx_pieces_max = s->pieces;
		}
		host_init(&r->hosts[side], r->net, side, &cfg, &ops, r->now_ns);
	}
	r->hosts[0].ring_hold_ns = s->ring_hold_ns;
	r->hosts[0].chain_refuse = s->refuse;
	assert_true(tcps_listen(r->hosts[1].t, 5672));
	r->conn = tcps_connect(r->hosts[0].t, s->v6 ? &to6 : &to4, 2000, r, r->now_ns);
	assert_non_null(r->conn);
	settle(r);
	/* Losses of what the peer says bring SACK options into our own segments. */
	wire.drop = s->talk_back ? 2000 : 0;
	net_set(r->net, 1, &wire);
}

/* Inline bytes and references of all lengths, odd as often as even. */
static void send_all(struct run *r)
{
	static const uint32_t most[] = {20, 300, 2000, 20000};

	for (uint32_t at = 0, n; at < BULK_BYTES; at += n) {
		n = 1 + below(r, most[below(r, 4)]);
		n = n < BULK_BYTES - at ? n : BULK_BYTES - at;
		if (below(r, 3) == 0) {
			assert_true(tcps_send(r->conn, body + at, n));
		} else {
			assert_true(r->owner_count < OWNERS_MAX);
			uint32_t *holders = &r->holders[r->owner_count++];
			*holders = 1;
			assert_true(tcps_send_ref(r->conn, body + at, n, holders));
		}
		if (below(r, 20) == 0)
			settle(r);
	}
	tcps_shutdown(r->conn);
	settle(r);
}

static struct run *play(const struct scene *s)
{
	struct run *r = calloc(1, sizeof *r);

	assert_non_null(r);
	now = r;
	r->scene = *s;
	r->random = s->seed * 0x9e3779b97f4a7c15ull + 1;
	r->now_ns = 1000 * MS;
	r->wire = calloc(WIRE_MAX, sizeof *r->wire);
	r->net = net_new(s->seed);
	assert_true(r->wire != NULL && r->net != NULL);
	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (uint8_t)(i * 167 + i / 251);
	start(r);
	send_all(r);
	assert_int_equal(r->received, BULK_BYTES);
	const uint64_t *counters = tcps_counters(r->hosts[0].t);
	r->retransmits =
		counters[TCPS_CNT_retransmits_rack] + counters[TCPS_CNT_retransmits_rto] + counters[TCPS_CNT_retransmits_tlp];
	r->chains = counters[TCPS_CNT_chains];
	r->refused = counters[TCPS_CNT_chains_refused];
	assert_int_equal(counters[TCPS_CNT_tso_frames] != 0, s->tso != 0);
	assert_int_equal(r->chains, r->hosts[0].chains);
	return r;
}

static void end(struct run *r)
{
	now = r;
	host_drain(&r->hosts[0]);
	for (uint32_t i = 0; i < r->owner_count; i++)
		assert_int_equal(r->holders[i], 0);
	assert_int_equal(r->given_back, r->owner_count + r->holds);
	for (unsigned i = 0; i < 2; i++)
		host_fini(&r->hosts[i]);
	net_free(r->net);
	free(r->wire);
	free(r);
}

static void compare_wires(const struct run *a, const struct run *b)
{
	assert_int_equal(a->count, b->count);
	for (unsigned i = 0; i < a->count; i++) {
		assert_int_equal(a->wire[i].len, b->wire[i].len);
		assert_memory_equal(a->wire[i].bytes, b->wire[i].bytes, a->wire[i].len);
	}
}

/* Many streams, each sent three times: copied; in pieces; and in pieces for which there often are no buffers. */
static void compare(const struct scene *scene)
{
	uint64_t chains = 0, again = 0, refused = 0, with_sack = 0;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct scene s = *scene;
		struct run *copied, *pieces, *some;

		s.seed = seed;
		s.pieces = 0;
		copied = play(&s);
		s.pieces = (uint8_t)(1 + seed % TCPS_PIECES_MAX);
		pieces = play(&s);
		s.refuse = 2;
		some = play(&s);
		assert_int_equal(copied->chains, 0);
		assert_int_equal(pieces->refused, 0);
		compare_wires(copied, pieces);
		compare_wires(copied, some);
		chains += pieces->chains;
		again += pieces->retransmits;
		refused += some->refused;
		with_sack += pieces->with_sack;
		end(copied);
		end(pieces);
		end(some);
	}
	print_message("# %u chains, %u refused, %u sent again, %u beside SACK blocks\n", (unsigned)chains, (unsigned)refused,
		      (unsigned)again, (unsigned)with_sack);
	assert_true(chains > SEEDS && refused > SEEDS / 2);
	assert_true(!scene->lossy || again > SEEDS / 2);
	assert_true(!scene->talk_back || with_sack > SEEDS);
}

static void over_ipv4_with_our_own_checksums(void **state)
{
	(void)state;
	compare(&(struct scene){.mtu = 1500});
}

static void over_ipv6_with_our_own_checksums(void **state)
{
	(void)state;
	compare(&(struct scene){.mtu = 1500, .v6 = true});
}

static void with_checksums_by_the_port(void **state)
{
	(void)state;
	compare(&(struct scene){.mtu = 1500, .cksum_offload = true});
}

static void behind_a_tag_in_jumbo_frames(void **state)
{
	(void)state;
	compare(&(struct scene){.mtu = 9000, .vlan = 42});
}

static void with_segments_lost_and_sent_again(void **state)
{
	(void)state;
	compare(&(struct scene){.mtu = 1500, .lossy = true, .ring_hold_ns = 300 * MS});
	compare(&(struct scene){.mtu = 1280, .v6 = true, .lossy = true, .cksum_offload = true});
}

static void beside_sack_options(void **state)
{
	(void)state;
	compare(&(struct scene){.mtu = 1500, .lossy = true, .talk_back = true});
}

static void in_frames_that_the_port_cuts(void **state)
{
	(void)state;
	compare(&(struct scene){.mtu = 1500, .cksum_offload = true, .tso = 20000, .lossy = true});
	compare(&(struct scene){.mtu = 1500, .v6 = true, .vlan = 42, .cksum_offload = true, .tso = 40000});
}

/* All is acknowledged, the connection gone; the frames are not. */
static void memory_is_held_until_the_last_frame_with_it_is_gone(void **state)
{
	struct run *r;
	uint32_t held = 0, free_again = 0;

	(void)state;
	r = play(&(struct scene){.seed = 3, .mtu = 1500, .pieces = 2, .ring_hold_ns = 3600000 * MS, .lossy = true});
	struct tcps_usage u;
	tcps_usage(r->hosts[0].t, &u);
	assert_int_equal(u.refs_in_use, 0);
	for (uint32_t i = 0; i < r->owner_count; i++)
		held += r->holders[i];
	assert_true(r->hosts[0].ring_count > 10);
	uint32_t in_ring = 0;
	for (uint32_t i = 0; i < r->hosts[0].ring_count; i++)
		in_ring += r->hosts[0].ring[(r->hosts[0].ring_first + i) % HOST_RING_MAX].count;
	assert_int_equal(held, in_ring);
	host_drain(&r->hosts[0]);
	for (uint32_t i = 0; i < r->owner_count; i++)
		free_again += r->holders[i] == 0;
	assert_int_equal(free_again, r->owner_count);
	end(r);
}

static void the_calls_that_it_needs_must_be_there(void **state)
{
	static const struct tcps_ops ops = {.on_accept = on_accept};
	struct tcps_config cfg;
	void *mem;

	(void)state;
	host_config(&cfg, 0);
	mem = aligned_alloc(64, tcps_mem_bytes(&cfg));
	assert_non_null(mem);
	memset(mem, 0, tcps_mem_bytes(&cfg));
	cfg.tx_pieces_max = 1;
	assert_null(tcps_init(mem, tcps_mem_bytes(&cfg), &cfg, &ops, NULL, MS));
	cfg.tx_pieces_max = 0;
	assert_non_null(tcps_init(mem, tcps_mem_bytes(&cfg), &cfg, &ops, NULL, MS));
	free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(over_ipv4_with_our_own_checksums),
		cmocka_unit_test(over_ipv6_with_our_own_checksums),
		cmocka_unit_test(with_checksums_by_the_port),
		cmocka_unit_test(behind_a_tag_in_jumbo_frames),
		cmocka_unit_test(with_segments_lost_and_sent_again),
		cmocka_unit_test(beside_sack_options),
		cmocka_unit_test(in_frames_that_the_port_cuts),
		cmocka_unit_test(memory_is_held_until_the_last_frame_with_it_is_gone),
		cmocka_unit_test(the_calls_that_it_needs_must_be_there),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_pieces", tests, NULL, NULL);
}
