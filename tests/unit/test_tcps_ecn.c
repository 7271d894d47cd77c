/*
 * test_tcps_ecn.c - explicit congestion notification: agreed on in the handshake, told until heard, answered once a round trip.
 *
 * Owns: nothing; the peer is played by hand.
 * Core: a unit test.
 * Spec: RFC 3168 6.1.
 */
#include "tests/unit/test_tcps_rig.h"

#include <string.h>

#define ECE 0x40
#define CWR 0x80

static void with_ecn(struct tcps_config *cfg)
{
	rig_config(cfg);
	cfg->ecn = true;
	cfg->cc = TCPS_CC_NEWRENO;
}

static int setup(void **state)
{
	struct tcps_config cfg;
	(void)state;
	with_ecn(&cfg);
	rig_start(&cfg);
	rig_arp_from_peer(1);
	return 0;
}

static struct seen handshake(uint8_t syn_flags)
{
	rig_segment(syn_flags, PEER_ISS, 0, NULL, 0, NULL, 0);
	struct seen s = rig_expect();
	rig.own_iss = s.seq;
	rig.peer_seq = PEER_ISS + 1;
	rig_send(ACK, rig_own(0), NULL, 0);
	assert_int_equal(rig.accepted, 1);
	rig_flush();
	rig_clear();
	return s;
}

/* The ECN field of the frame that rig_expect() has just given. */
static unsigned ecn_field(void)
{
	return rig.out[rig.out_next - 1].bytes[15] & 3u;
}

static void marked_data(uint8_t flags, const char *data)
{
	uint8_t frame[256];
	size_t len = rig_build(frame, flags, rig.peer_seq, rig_own(0), data, strlen(data), NULL, 0);
	frame[15] |= 3;
	rig_fix_ip_cksum(frame);
	rig_frame(frame, len);
	rig.peer_seq += (uint32_t)strlen(data);
}

/* RFC 3168 6.1.1 */
static void it_is_agreed_on_only_with_who_asks_for_it(void **state)
{
	(void)state;
	assert_int_equal(handshake(SYN | ECE | CWR).flags, SYN | ACK | ECE);
	tcps_abort(rig.conn);
	rig_clear();
	for (unsigned i = 0; i < 3; i++) {
		static const uint8_t odd[] = {SYN, SYN | ECE, SYN | CWR};
		rig.accepted = 0;
		rig.peer_port++;
		assert_int_equal(handshake(odd[i]).flags, SYN | ACK);
		assert_true(tcps_send(rig.conn, "x", 1));
		rig_flush();
		rig_expect();
		assert_int_equal(ecn_field(), 0);
		tcps_abort(rig.conn);
		rig_clear();
	}
}

/* RFC 3168 6.1.2 (ECT on new data), 6.1.4 (not on bare ACKs), 6.1.5 (not on retransmissions). */
static void new_data_alone_may_be_marked(void **state)
{
	(void)state;
	handshake(SYN | ECE | CWR);
	assert_true(tcps_send(rig.conn, "data", 4));
	rig_flush();
	rig_expect();
	assert_int_equal(ecn_field(), 2);
	rig_clear();
	rig_send(ACK | PSH, rig_own(0), "in", 2);
	rig_send(ACK | PSH, rig_own(0), "in", 2);
	rig_flush();
	assert_int_equal(rig_expect().len, 0);
	assert_int_equal(ecn_field(), 0);
	rig_clear();
	rig_pass(1100 * MS);
	assert_int_equal(rig_expect().len, 4);
	assert_int_equal(ecn_field(), 0);
	rig_clear();
}

/* RFC 3168 6.1.3: ECE in every ACK from the mark on, until the peer says CWR. */
static void a_mark_is_told_until_the_peer_has_reduced(void **state)
{
	(void)state;
	handshake(SYN | ECE | CWR);
	marked_data(ACK | PSH, "one");
	rig_flush();
	assert_int_equal(rig_expect().flags, ACK | ECE);
	for (unsigned i = 0; i < 2; i++)
		rig_send(ACK | PSH, rig_own(0), "two", 3);
	rig_flush();
	assert_int_equal(rig_expect().flags, ACK | ECE);
	rig_send(ACK | PSH | CWR, rig_own(0), "three", 5);
	rig_send(ACK | PSH, rig_own(0), "four", 4);
	rig_flush();
	assert_int_equal(rig_expect().flags, ACK);
	assert_int_equal(rig_count(TCPS_CNT_ecn_marks_in), 1);
	assert_int_equal(rig.got_len, 3 + 6 + 5 + 4);
	rig_check();
}

/* RFC 3168 6.1.2: as after a loss, but once a window of data, and nothing is sent again; the next new data says CWR. */
static void what_the_peer_tells_of_reduces_the_window_once_a_round_trip(void **state)
{
	(void)state;
	static uint8_t data[30000];
	struct tcps_conn_info before, after;
	handshake(SYN | ECE | CWR);
	rig.peer_wnd = 60000;
	rig_send(ACK, rig_own(0), NULL, 0);
	assert_true(tcps_send(rig.conn, data, sizeof(data)));
	rig_flush();
	tcps_info(rig.conn, &before);
	rig_clear();
	rig_send(ACK | ECE, rig_own(2 * 536), NULL, 0);
	rig_send(ACK | ECE, rig_own(4 * 536), NULL, 0);
	tcps_info(rig.conn, &after);
	assert_int_equal(rig_count(TCPS_CNT_ecn_reductions), 1);
	assert_int_equal(after.ssthresh_bytes, before.unacked_bytes / 2);
	assert_true(after.cwnd_bytes <= before.cwnd_bytes / 2 + 536);
	assert_int_equal(after.retransmits, 0);
	/* All of that flight is acknowledged; what goes then tells of the reduction, once. */
	rig_send(ACK, rig_own(before.unacked_bytes), NULL, 0);
	rig_flush();
	assert_true(rig_expect().flags & CWR);
	assert_false(rig_expect().flags & CWR);
	rig_check();
	rig_clear();
}

/* To the port of the active open. */
static void reply(uint8_t flags, uint16_t port)
{
	uint8_t frame[64];
	size_t len = rig_build(frame, flags, PEER_ISS, rig_own(0), NULL, 0, NULL, 0);
	frame[36] = (uint8_t)(port >> 8);
	frame[37] = (uint8_t)port;
	rig_fix_tcp_cksum(frame);
	rig_frame(frame, len);
}

/* RFC 3168 6.1.1, from the side that asks. */
static void an_active_open_asks_and_takes_no_for_an_answer(void **state)
{
	(void)state;
	for (unsigned agreed = 0; agreed < 2; agreed++) {
		struct tcps_endpoint to = {.addr = {.family = 4, .bytes = {198, 18, 0, 1}}, .port = PEER_PORT};
		rig.conn = tcps_connect(rig.t, &to, (uint16_t)(OWN_PORT + 1 + agreed), &rig, rig.now_ns);
		assert_non_null(rig.conn);
		rig_flush();
		struct seen s = rig_expect();
		assert_int_equal(s.flags, SYN | ECE | CWR);
		rig.own_iss = s.seq;
		reply((uint8_t)(SYN | ACK | (agreed ? ECE : 0)), s.src_port);
		rig_flush();
		rig_clear();
		assert_true(tcps_send(rig.conn, "x", 1));
		rig_flush();
		rig_expect();
		assert_int_equal(ecn_field(), agreed ? 2u : 0u);
		tcps_abort(rig.conn);
		rig_clear();
		rig.closed = 0;
	}
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		test(it_is_agreed_on_only_with_who_asks_for_it),
		test(new_data_alone_may_be_marked),
		test(a_mark_is_told_until_the_peer_has_reduced),
		test(what_the_peer_tells_of_reduces_the_window_once_a_round_trip),
		test(an_active_open_asks_and_takes_no_for_an_answer),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_ecn", tests, NULL, NULL);
}
