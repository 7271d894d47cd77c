/*
 * test_tcps_loss.c - what is told and learnt of losses: SACK, D-SACK, RACK, tail loss probes, and the windows after a loss.
 *
 * Owns: nothing; the peer is played by hand, segment by segment, in virtual time.
 * Core: a unit test.
 * Spec: RFC 2018, 2883, 5482, 6298, 6675, 6937, 8985, 9438.
 */
#include "tests/unit/test_tcps_rig.h"

#define MSS 1448u /* 1460 less the timestamps */

static uint8_t pattern[200000];

static int setup(void **state)
{
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 31 + i / 251);
	int failed = rig_setup(state);
	if (failed == 0)
		rig_establish_sack();
	return failed;
}

static void restart(void (*change)(struct tcps_config *))
{
	struct tcps_config cfg;
	rig_stop();
	rig_config(&cfg);
	change(&cfg);
	rig_start(&cfg);
}

static uint32_t peer_seq(uint32_t off)
{
	return PEER_ISS + 1 + off;
}

static void data_at(uint32_t off, uint32_t len)
{
	uint8_t opts[12] = {1, 1, 8, 10, 0, 0, 0x27, 0x11};
	rig_segment(ACK | PSH, peer_seq(off), rig_own(0), pattern + off, len, opts, 12);
}

static struct seen flushed(void)
{
	rig_flush();
	return rig_expect();
}

/* Lets round trips of `ms` be measured; returns how much has been sent. Within the initial window of ten segments. */
static uint32_t warm_up(unsigned segments, unsigned ms)
{
	uint32_t sent = 0;
	for (unsigned n = 2; n <= segments; n += 4) {
		assert_true(tcps_send(rig.conn, pattern, n * MSS));
		rig_flush();
		assert_int_equal(rig_pending(), n);
		rig_pass(ms * MS);
		sent += n * MSS;
		rig_sack(sent, 0, NULL);
		rig_flush();
		rig_clear();
	}
	return sent;
}

/* ---- what we tell ---- */

/* RFC 2018 2 */
static void sack_is_offered_back_only_to_who_offered_it_and_not_where_it_is_switched_off(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_true(info.sack);
	restart((void (*)(struct tcps_config *))rig_config);
	rig_establish(true, 7); /* asserts that the answer has no SACK-permitted */
	tcps_info(rig.conn, &info);
	assert_false(info.sack);
	data_at(1000, 100);
	assert_int_equal(flushed().sack_count, 0);
}

/* RFC 2018 4: the first block holds the segment that came last; the others follow, as many as fit beside timestamps. */
static void the_first_block_is_of_the_segment_that_came_last(void **state)
{
	(void)state;
	data_at(2000, 100);
	struct seen s = flushed();
	assert_int_equal(s.ack, peer_seq(0));
	assert_int_equal(s.sack_count, 1);
	assert_int_equal(s.sack[0][0], peer_seq(2000));
	assert_int_equal(s.sack[0][1], peer_seq(2100));
	data_at(6000, 100);
	data_at(4000, 100);
	data_at(8000, 100);
	rig_clear();
	data_at(4100, 50);
	s = flushed();
	assert_int_equal(s.sack_count, 3);
	assert_int_equal(s.sack[0][0], peer_seq(4000));
	assert_int_equal(s.sack[0][1], peer_seq(4150));
	assert_int_equal(s.sack[1][0], peer_seq(8000));
	assert_int_equal(s.sack[2][0], peer_seq(6000) - (s.sack[2][0] == peer_seq(2000) ? 4000 : 0));
	/* The hole filled, there is nothing to tell. */
	rig_clear();
	data_at(0, 2000);
	data_at(2100, 1900);
	data_at(4150, 1850);
	data_at(6100, 1900);
	s = flushed();
	assert_int_equal(s.ack, peer_seq(8100));
	assert_int_equal(s.sack_count, 0);
}

/* RFC 2883 4.1 and 4.2 */
static void a_duplicate_is_told_once_as_the_first_block(void **state)
{
	(void)state;
	data_at(0, 1000);
	rig_flush();
	rig_clear();
	data_at(0, 500);
	struct seen s = flushed();
	assert_int_equal(s.ack, peer_seq(1000));
	assert_int_equal(s.sack_count, 1);
	assert_int_equal(s.sack[0][0], peer_seq(0));
	assert_int_equal(s.sack[0][1], peer_seq(500));
	data_at(3000, 500);
	s = flushed();
	assert_int_equal(s.sack_count, 1); /* not again */
	assert_int_equal(s.sack[0][0], peer_seq(3000));
	data_at(3200, 100); /* within what is held out of order */
	s = flushed();
	assert_int_equal(s.sack_count, 2);
	assert_int_equal(s.sack[0][0], peer_seq(3200));
	assert_int_equal(s.sack[0][1], peer_seq(3300));
	assert_int_equal(s.sack[1][0], peer_seq(3000));
	assert_int_equal(s.sack[1][1], peer_seq(3500));
	assert_int_equal(rig_count(TCPS_CNT_dsacks_out), 2);
}

/* The option rides on data, too, and the segment stays within the MTU. */
static void data_that_carries_sack_blocks_is_shorter_by_them(void **state)
{
	(void)state;
	data_at(5000, 100);
	assert_true(tcps_send(rig.conn, pattern, 3 * MSS));
	struct seen s = flushed();
	assert_int_equal(s.sack_count, 1);
	assert_int_equal(s.len, MSS - 12);
}

/* ---- what we learn ---- */

/* RFC 6675, RFC 8985 6.2: three segments above a hole: the hole goes out again at once, and nothing else does. */
static void only_the_hole_is_sent_again(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	assert_true(tcps_send(rig.conn, pattern, 10 * MSS));
	rig_flush();
	assert_int_equal(rig_pending(), 10);
	rig_clear();
	rig_pass(20 * MS);
	for (uint32_t n = 3; n <= 5; n++)
		rig_sack(una, 1, (uint32_t[][2]){{una + 2 * MSS, una + n * MSS}});
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(una));
	assert_int_equal(s.len, MSS);
	s = rig_expect();
	assert_int_equal(s.seq, rig_own(una + MSS));
	rig_expect_none();
	assert_int_equal(rig_count(TCPS_CNT_retransmits_rack), 2);
	assert_int_equal(rig_count(TCPS_CNT_recoveries), 1);
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_true(info.recovery);
	assert_int_equal(info.ssthresh_bytes, 10 * MSS * 7 / 10); /* RFC 9438 4.6 */
	assert_int_equal(info.sacked_bytes, 3 * MSS);
	rig_check();
	rig_pass(20 * MS);
	rig_sack(una + 10 * MSS, 0, NULL);
	tcps_info(rig.conn, &info);
	assert_false(info.recovery);
	assert_int_equal(info.cwnd_bytes, info.ssthresh_bytes);
	assert_int_equal(rig_count(TCPS_CNT_rto_expired), 0);
}

/* RFC 8985 6.2 step 4: one segment overtaken may be mere reordering; a quarter of the shortest round trip later it is not. */
static void a_hole_below_one_sacked_segment_is_given_the_reordering_window(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 40);
	assert_true(tcps_send(rig.conn, pattern, 3 * MSS));
	rig_flush();
	rig_clear();
	rig_pass(40 * MS);
	rig_sack(una, 1, (uint32_t[][2]){{una + MSS, una + 2 * MSS}});
	rig_flush();
	rig_expect_none();
	rig_pass(8 * MS);
	rig_expect_none();
	rig_pass(4 * MS);
	assert_int_equal(rig_expect().seq, rig_own(una));
	assert_int_equal(rig_count(TCPS_CNT_rto_expired), 0);
	/* Had it come late only, the ACK is the end of it. */
	rig_sack(una + 3 * MSS, 0, NULL);
	rig_check();
}

/* RFC 8985 5.2: what was sent after the retransmission has arrived, so that is lost, too. No time-out is needed. */
static void a_lost_retransmission_is_found(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	assert_true(tcps_send(rig.conn, pattern, 8 * MSS));
	rig_flush();
	rig_clear();
	rig_pass(20 * MS);
	rig_sack(una, 1, (uint32_t[][2]){{una + MSS, una + 5 * MSS}});
	rig_flush();
	assert_int_equal(rig_expect().seq, rig_own(una));
	/* Later: new data, which arrives. */
	rig_pass(2 * MS);
	assert_true(tcps_send(rig.conn, pattern, 2 * MSS));
	rig_flush();
	assert_int_equal(rig_expect().seq, rig_own(una + 8 * MSS));
	rig_expect_none(); /* as much as the reduction leaves */
	rig_pass(20 * MS);
	rig_sack(una, 1, (uint32_t[][2]){{una + MSS, una + 9 * MSS}});
	rig_flush();
	assert_int_equal(rig_expect().seq, rig_own(una));
	assert_int_equal(rig_count(TCPS_CNT_rto_expired), 0);
	assert_int_equal(rig_count(TCPS_CNT_recoveries), 1); /* one event, one reduction */
}

/* RFC 8985 7: the tail is lost, so no later segment tells of it; the probe comes long before the time-out. */
static void the_silent_tail_of_a_flight_is_probed(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	assert_true(tcps_send(rig.conn, pattern, 4 * MSS));
	rig_flush();
	rig_clear();
	rig_pass(20 * MS);
	rig_sack(una + MSS, 0, NULL);
	rig_flush();
	rig_pass(35 * MS);
	rig_expect_none();
	rig_pass(15 * MS); /* two round trips: 40 ms and a tick */
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(una + 3 * MSS));
	assert_int_equal(rig_count(TCPS_CNT_retransmits_tlp), 1);
	/* The probe arrived: what lies before it did not. */
	rig_pass(20 * MS);
	rig_sack(una + MSS, 1, (uint32_t[][2]){{una + 3 * MSS, una + 4 * MSS}});
	rig_flush();
	rig_pass(10 * MS);
	assert_int_equal(rig_expect().seq, rig_own(una + MSS));
	assert_int_equal(rig_expect().seq, rig_own(una + 2 * MSS));
	assert_int_equal(rig_count(TCPS_CNT_rto_expired), 0);
	rig_sack(una + 4 * MSS, 0, NULL);
	rig_check();
}

/* RFC 8985 7.3: new data serves as a probe where there is some; 7.4: it repaired nothing, so nothing is reduced. */
static void a_probe_is_new_data_where_the_peer_has_room(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	struct tcps_conn_info before, after;
	tcps_info(rig.conn, &before);
	assert_true(tcps_send(rig.conn, pattern, before.cwnd_bytes + 3 * MSS));
	rig_flush();
	uint32_t out = 0;
	while (rig_pending() > 0)
		out += rig_expect().len;
	assert_in_range(out, before.cwnd_bytes - MSS, before.cwnd_bytes);
	rig_clear();
	rig_pass(60 * MS);
	assert_int_equal(rig_expect().seq, rig_own(una + out));
	assert_int_equal(rig_count(TCPS_CNT_retransmits_tlp), 1);
	rig_sack(una + out + MSS, 0, NULL);
	tcps_info(rig.conn, &after);
	assert_true(after.cwnd_bytes >= before.cwnd_bytes);
	assert_int_equal(rig_count(TCPS_CNT_tlp_repairs), 0);
	rig_check();
}

/* RFC 8985 7.4.2: the last segment alone was lost and the probe replaced it: that was a loss all the same. */
static void a_loss_that_the_probe_repaired_reduces_the_window(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	struct tcps_conn_info before, after;
	tcps_info(rig.conn, &before);
	assert_true(tcps_send(rig.conn, pattern, 4 * MSS));
	rig_flush();
	rig_clear();
	rig_pass(20 * MS);
	rig_sack(una + 3 * MSS, 0, NULL);
	assert_true(tcps_send(rig.conn, pattern, 100));
	rig_flush();
	rig_clear();
	rig_pass(60 * MS);
	assert_int_equal(rig_count(TCPS_CNT_retransmits_tlp), 1);
	rig_clear();
	assert_true(tcps_send(rig.conn, pattern, 200)); /* so that an ACK beyond the probe can come */
	rig_flush();
	rig_sack(una + 4 * MSS + 300, 0, NULL);
	tcps_info(rig.conn, &after);
	assert_int_equal(rig_count(TCPS_CNT_tlp_repairs), 1);
	assert_true(after.cwnd_bytes < before.cwnd_bytes);
}

/* RFC 8985 7.4.2: what the probe sent again had arrived; its D-SACK comes when nothing is outstanding any more. */
static void a_probe_that_was_not_needed_reduces_nothing(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	struct tcps_conn_info before, after;
	tcps_info(rig.conn, &before);
	assert_true(tcps_send(rig.conn, pattern, 3 * MSS));
	rig_flush();
	rig_clear();
	rig_pass(50 * MS);
	assert_int_equal(rig_count(TCPS_CNT_retransmits_tlp), 1);
	rig_sack(una + 3 * MSS, 0, NULL);
	rig_sack(una + 3 * MSS, 1, (uint32_t[][2]){{una + 2 * MSS, una + 3 * MSS}});
	assert_int_equal(rig_count(TCPS_CNT_dsacks_in), 1);
	assert_true(tcps_send(rig.conn, pattern, 100));
	rig_flush();
	rig_clear();
	rig_sack(una + 3 * MSS + 100, 0, NULL);
	tcps_info(rig.conn, &after);
	assert_int_equal(rig_count(TCPS_CNT_tlp_repairs), 0);
	assert_true(after.cwnd_bytes >= before.cwnd_bytes);
	rig_check();
}

/* RFC 2018 8, RFC 6298 5.4: after a time-out what was SACKed stays where it is; from slow start only the rest goes. */
static void a_time_out_sends_nothing_again_that_was_sacked(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	assert_true(tcps_send(rig.conn, pattern, 2 * MSS));
	rig_flush();
	rig_pass(MS);
	assert_true(tcps_send(rig.conn, pattern, 2 * MSS));
	rig_flush();
	rig_pass(20 * MS);
	rig_sack(una, 1, (uint32_t[][2]){{una + 3 * MSS, una + 4 * MSS}});
	rig_flush();
	rig_clear();
	rig_pass(3 * SECOND);
	assert_true(rig_count(TCPS_CNT_rto_expired) > 0);
	while (rig_pending() > 0) {
		struct seen s = rig_expect();
		assert_true(s.len == 0 || s.seq - rig_own(una) < 3 * MSS);
	}
	rig_sack(una + 4 * MSS, 0, NULL);
	rig_check();
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_false(info.recovery);
}

/* RFC 6298 3: what arrived behind a hole is acknowledged when the hole is filled, which may be a minute later. */
static void what_waited_for_a_hole_is_no_round_trip(void **state)
{
	(void)state;
	struct tcps_conn_info before, after;
	uint32_t una = warm_up(10, 20);
	tcps_info(rig.conn, &before);
	assert_true(tcps_send(rig.conn, pattern, 2 * MSS));
	rig_flush();
	rig_pass(MS);
	assert_true(tcps_send(rig.conn, pattern, MSS));
	rig_flush();
	rig_pass(5 * SECOND);
	assert_true(rig_count(TCPS_CNT_rto_expired) >= 3);
	rig.ts_ecr = 0; /* no help from timestamps */
	rig_sack(una + 3 * MSS, 0, NULL);
	tcps_info(rig.conn, &after);
	assert_int_equal(after.srtt_us, before.srtt_us);
	rig_clear();
}

/* What was flushed piece by piece goes again in full segments, and what found no frame is not counted as sent. */
static void small_messages_that_are_lost_go_again_in_one_segment(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	for (unsigned i = 0; i < 30; i++) {
		assert_true(tcps_send(rig.conn, pattern + 100 * i, 100));
		rig_flush();
		rig_pass(MS);
	}
	rig_clear();
	rig.no_frames = true;
	rig_pass(2 * SECOND);
	assert_int_equal(rig_count(TCPS_CNT_retransmits_rto) + rig_count(TCPS_CNT_retransmits_tlp), 0);
	rig.no_frames = false;
	rig_flush();
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(una));
	assert_int_equal(s.len, MSS);
	assert_memory_equal(s.payload, pattern, MSS);
	rig_sack(una + MSS, 0, NULL);
	rig_flush();
	assert_int_equal(rig_expect().len, MSS);
	assert_int_equal(rig_expect().len, 3000 - 2 * MSS);
	assert_int_equal(rig_count(TCPS_CNT_retransmits_rto), 3);
	rig_check();
	rig_clear();
}

/* RFC 2018 8: a peer that takes back what it SACKed, which shows by the first byte SACKed and not acknowledged. */
static void a_peer_that_reneges_gets_all_of_it_again(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	assert_true(tcps_send(rig.conn, pattern, 2 * MSS));
	rig_flush();
	rig_pass(20 * MS);
	rig_sack(una, 1, (uint32_t[][2]){{una, una + 2 * MSS}});
	rig_flush();
	rig_clear();
	rig_pass(2 * SECOND);
	assert_int_equal(rig_count(TCPS_CNT_sack_reneged), 1);
	assert_int_equal(rig_expect().seq, rig_own(una));
	rig_sack(una + 2 * MSS, 0, NULL);
	rig_check();
}

/* RFC 2018 5, RFC 2883 5: blocks of what was never sent, or upside down, change nothing. */
static void blocks_that_cannot_be_are_ignored(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	assert_true(tcps_send(rig.conn, pattern, 4 * MSS));
	rig_flush();
	rig_clear();
	rig_sack(una, 2, (uint32_t[][2]){{una + 3 * MSS, una + 5 * MSS}, {una + 2 * MSS, una + MSS}});
	rig_sack(una, 1, (uint32_t[][2]){{una + 100 * MSS, una + 101 * MSS}});
	struct tcps_conn_info info;
	tcps_info(rig.conn, &info);
	assert_int_equal(info.sacked_bytes, 0);
	assert_true(rig_count(TCPS_CNT_sacks_bad) >= 3);
	rig_check();
}

/* ---- windows ---- */

static void newreno(struct tcps_config *cfg)
{
	cfg->cc = TCPS_CC_NEWRENO;
}

/* RFC 5681 3.1: half; RFC 9438 4.6: seven tenths; each listener its own. */
static void the_reduction_is_that_of_the_listeners_congestion_control(void **state)
{
	(void)state;
	struct tcps_conn_info info;
	restart(newreno);
	rig_establish_sack();
	tcps_info(rig.conn, &info);
	assert_string_equal(info.congestion, "newreno");
	uint32_t una = warm_up(10, 20);
	assert_true(tcps_send(rig.conn, pattern, 10 * MSS));
	rig_flush();
	rig_pass(20 * MS);
	rig_sack(una, 1, (uint32_t[][2]){{una + MSS, una + 5 * MSS}});
	tcps_info(rig.conn, &info);
	assert_int_equal(info.ssthresh_bytes, 5 * MSS);
	assert_false(tcps_listen_cc(rig.t, OWN_PORT, TCPS_CC_CUBIC)); /* taken */
	assert_true(tcps_unlisten(rig.t, OWN_PORT));
	assert_true(tcps_listen_cc(rig.t, OWN_PORT, TCPS_CC_CUBIC));
	rig_clear();
	rig.peer_port++;
	rig_establish_sack();
	tcps_info(rig.conn, &info);
	assert_string_equal(info.congestion, "cubic");
}

/* RFC 6937 3: in recovery out goes what came in, reduced by the ratio of the windows; never a burst. */
static void recovery_sends_in_proportion_to_what_arrives(void **state)
{
	(void)state;
	uint32_t una = warm_up(10, 20);
	assert_true(tcps_send(rig.conn, pattern, 60 * MSS));
	rig_flush();
	unsigned flight = rig_pending();
	assert_in_range(flight, 10, 60);
	rig_clear();
	rig_pass(20 * MS);
	unsigned out = 0;
	for (uint32_t n = 2; n <= flight; n++) {
		rig_sack(una, 1, (uint32_t[][2]){{una + MSS, una + n * MSS}});
		rig_flush();
		unsigned now = rig_pending();
		assert_true(now <= 3);
		out += now;
		rig_clear();
	}
	assert_in_range(out, flight * 6 / 10, flight * 8 / 10 + 2);
}

static void impatient(struct tcps_config *cfg)
{
	cfg->user_timeout_ns = 5 * SECOND;
	cfg->retransmits_max = 15;
}

/* RFC 5482 3, RFC 9293 3.8.3: the owner's time-out, for data that is not acknowledged and for a window that stays shut. */
static void the_user_time_out_ends_what_makes_no_progress(void **state)
{
	(void)state;
	for (unsigned shut = 0; shut < 2; shut++) {
		restart(impatient);
		rig_establish_sack();
		warm_up(4, 20);
		if (shut == 1) {
			rig.peer_wnd = 0;
			rig_send(ACK, rig_own(6 * MSS), NULL, 0);
		}
		assert_true(tcps_send(rig.conn, pattern, 1000));
		rig_flush();
		for (unsigned i = 0; i < 80 && rig.closed == 0; i++) {
			rig_pass(100 * MS);
			rig_clear();
			if (shut == 1 && rig.closed == 0)
				rig_send(ACK, rig_own(6 * MSS), NULL, 0); /* it answers, and stays shut */
			if (i == 45)
				assert_int_equal(rig.closed, 0);
		}
		assert_int_equal(rig.closed, 1);
		assert_int_equal(rig.reason, TCPS_CLOSED_TIMEOUT);
	}
}

static void short_keepalive(struct tcps_config *cfg)
{
	cfg->keepalive_ns = SECOND;
	cfg->retransmits_max = 8;
}

/* RFC 9293 3.8.4: keepalive is for the silence of an idle connection; outstanding data has its own time-outs. */
static void keepalive_does_not_end_a_connection_that_retransmits(void **state)
{
	(void)state;
	restart(short_keepalive);
	rig_establish_sack();
	assert_true(tcps_send(rig.conn, pattern, 1000));
	rig_flush();
	rig_pass(40 * SECOND);
	assert_int_equal(rig.closed, 0);
	rig_pass(400 * SECOND);
	assert_int_equal(rig.closed, 1);
	assert_int_equal(rig_count(TCPS_CNT_rto_expired), 8);
	rig_clear();
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		test(sack_is_offered_back_only_to_who_offered_it_and_not_where_it_is_switched_off),
		test(the_first_block_is_of_the_segment_that_came_last),
		test(a_duplicate_is_told_once_as_the_first_block),
		test(data_that_carries_sack_blocks_is_shorter_by_them),
		test(only_the_hole_is_sent_again),
		test(a_hole_below_one_sacked_segment_is_given_the_reordering_window),
		test(a_lost_retransmission_is_found),
		test(the_silent_tail_of_a_flight_is_probed),
		test(a_probe_is_new_data_where_the_peer_has_room),
		test(a_loss_that_the_probe_repaired_reduces_the_window),
		test(a_probe_that_was_not_needed_reduces_nothing),
		test(a_time_out_sends_nothing_again_that_was_sacked),
		test(what_waited_for_a_hole_is_no_round_trip),
		test(small_messages_that_are_lost_go_again_in_one_segment),
		test(a_peer_that_reneges_gets_all_of_it_again),
		test(blocks_that_cannot_be_are_ignored),
		test(the_reduction_is_that_of_the_listeners_congestion_control),
		test(recovery_sends_in_proportion_to_what_arrives),
		test(the_user_time_out_ends_what_makes_no_progress),
		test(keepalive_does_not_end_a_connection_that_retransmits),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_loss", tests, NULL, NULL);
}
