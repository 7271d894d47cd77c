/*
 * test_tcps_undo.c - a recovery or a time-out that was needless is taken back, and one that was needed is not.
 *
 * Owns: nothing; the peer is played by hand, segment by segment, in virtual time.
 * Core: a unit test. It looks into the connection for what CUBIC remembers.
 * Spec: RFC 3522, 3708, 4015, 5682, 9438 4.9.
 */
#include "tests/unit/test_tcps_rig.h"

#include <string.h>

#include "tcpstack/internal.h"

#define ECE      0x40u
#define CWR      0x80u
#define MSS      1448u /* 1460 less the timestamps */
#define MSS_BARE 1460u

static uint8_t pattern[200000];

static int setup(void **state)
{
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 31 + i / 251);
	return rig_setup(state);
}

static struct tcps_conn_info info(void)
{
	struct tcps_conn_info i;
	tcps_info(rig.conn, &i);
	return i;
}

/* What the next flight begins with: bytes acknowledged so far. Round trips of 20 ms have been measured. */
static uint32_t warm_up(uint32_t mss)
{
	uint32_t sent = 0;
	for (unsigned n = 2; n <= 10; n += 4) {
		assert_true(tcps_send(rig.conn, pattern, n * mss));
		rig_flush();
		rig_pass(20 * MS);
		sent += n * mss;
		rig_sack(sent, 0, NULL);
		rig_flush();
		rig_clear();
	}
	return sent;
}

/* Sends so many segments; the timestamp that they bear. */
static uint32_t flight(unsigned segments, uint32_t mss)
{
	assert_true(tcps_send(rig.conn, pattern, segments * mss));
	rig_flush();
	assert_int_equal(rig_pending(), segments);
	struct seen s = rig_expect();
	rig_clear();
	return s.ts_val;
}

/* The next segment, which must be this one of the stream. */
static uint32_t expect_segment(uint32_t off)
{
	struct seen s = rig_expect();
	assert_int_equal(s.seq, rig_own(off));
	return s.ts_val;
}

/*
 * Ten segments out, the last one SACKed 20 ms later, and a quarter of that awaited: a recovery that has sent the first again and
 * holds the next eight for lost. Returns the timestamp of the retransmission, and in *first that of the flight.
 */
static uint32_t recovery(uint32_t una, uint32_t *first)
{
	*first = flight(10, MSS);
	rig_pass(20 * MS);
	rig_sack(una, 1, (uint32_t[][2]){{una + 9 * MSS, una + 10 * MSS}});
	rig_pass(8 * MS);
	assert_int_equal(rig_count(TCPS_CNT_recoveries), 1);
	uint32_t again = expect_segment(una);
	rig_expect_none();
	rig_clear();
	struct tcps_conn_info i = info();
	assert_true(i.recovery);
	assert_int_equal(i.lost_bytes, 8 * MSS);
	return again;
}

static void expect_undone(unsigned recoveries, unsigned timeouts)
{
	assert_int_equal(rig_count(TCPS_CNT_undone_recoveries), recoveries);
	assert_int_equal(rig_count(TCPS_CNT_undone_timeouts), timeouts);
}

static void expect_restored(const struct tcps_conn_info *before)
{
	struct tcps_conn_info i = info();
	assert_int_equal(i.cwnd_bytes, before->cwnd_bytes);
	assert_int_equal(i.ssthresh_bytes, before->ssthresh_bytes);
	assert_false(i.recovery);
	assert_int_equal(i.lost_bytes, 0);
	rig_check();
}

/* RFC 3522 3.2, RFC 4015 3.2: the ACK echoes a time before the retransmission, so the original had arrived. */
static void an_echo_of_the_original_undoes_a_recovery(void **state)
{
	(void)state;
	rig_establish_sack();
	uint32_t una = warm_up(MSS), first;
	struct tcps_conn_info before = info();
	struct tcps_cubic cubic = rig.conn->cold->cubic;
	recovery(una, &first);
	assert_true(info().ssthresh_bytes < before.ssthresh_bytes);
	rig_pass(5 * MS);
	rig_clear();
	rig.ts_ecr = first;
	rig_sack(una + MSS, 1, (uint32_t[][2]){{una + 9 * MSS, una + 10 * MSS}});
	expect_undone(1, 0);
	expect_restored(&before);
	assert_memory_equal(&rig.conn->cold->cubic, &cubic, sizeof(cubic));
	assert_true(info().reordering);
	/* What was only held for lost is not sent again: the reordering window waits for it now (RFC 8985 6.2). */
	rig_flush();
	rig_expect_none();
	rig_sack(una + 10 * MSS, 0, NULL);
	rig_flush();
	assert_int_equal(info().retransmits, 1);
	expect_undone(1, 0);
}

/* RFC 3522 3.2: timestamps tick in milliseconds; an equal one may be either's. Later ones are the retransmission's. */
static void a_retransmission_that_was_needed_is_not_undone(void **state)
{
	(void)state;
	for (unsigned later = 0; later < 2; later++) {
		struct tcps_config cfg;
		rig_stop();
		rig_config(&cfg);
		rig_start(&cfg);
		rig_establish_sack();
		uint32_t una = warm_up(MSS), first;
		struct tcps_conn_info before = info();
		uint32_t again = recovery(una, &first);
		rig_pass(20 * MS);
		rig_clear();
		rig.ts_ecr = again + later;
		rig_sack(una + MSS, 1, (uint32_t[][2]){{una + 9 * MSS, una + 10 * MSS}});
		assert_true(info().recovery);
		rig.ts_ecr = first; /* too late: the first ACK has told */
		rig_sack(una + 10 * MSS, 0, NULL);
		expect_undone(0, 0);
		assert_true(info().cwnd_bytes < before.cwnd_bytes);
		assert_false(info().recovery);
	}
}

/* An echo from before the original was sent, or none, is none that the peer can have. */
static void an_echo_that_cannot_be_undoes_nothing(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 3; kind++) {
		struct tcps_config cfg;
		rig_stop();
		rig_config(&cfg);
		rig_start(&cfg);
		rig_establish_sack();
		uint32_t una = warm_up(MSS), first;
		uint32_t again = recovery(una, &first);
		rig_pass(5 * MS);
		rig.ts_ecr = kind == 0 ? first - 1 : kind == 1 ? 0 : again + 0x7fffffff;
		rig_sack(una + 2 * MSS, 1, (uint32_t[][2]){{una + 9 * MSS, una + 10 * MSS}});
		expect_undone(0, 0);
		assert_true(info().recovery);
		rig_clear();
	}
}

/* An ACK that does not cover the first retransmission says nothing of it, however old its echo. */
static void an_ack_of_less_than_the_retransmission_tells_nothing(void **state)
{
	(void)state;
	rig_establish_sack();
	uint32_t una = warm_up(MSS), first;
	recovery(una, &first);
	rig_pass(5 * MS);
	rig.ts_ecr = first;
	rig_sack(una, 1, (uint32_t[][2]){{una + 8 * MSS, una + 10 * MSS}});
	rig_sack(una + 100, 1, (uint32_t[][2]){{una + 8 * MSS, una + 10 * MSS}});
	expect_undone(0, 0);
	rig_sack(una + MSS, 1, (uint32_t[][2]){{una + 8 * MSS, una + 10 * MSS}});
	expect_undone(1, 0);
	rig_clear();
}

/* A time-out after which only the first segment went again. */
static uint32_t time_out(uint32_t una)
{
	rig_pass(100 * MS); /* the tail loss probe, where it is wanted */
	rig_clear();
	while (rig_count(TCPS_CNT_rto_expired) == 0)
		rig_pass(10 * MS);
	uint32_t again = expect_segment(una);
	rig_expect_none();
	rig_clear();
	return again;
}

/* RFC 4015 3.2: the windows as they were, nothing more sent again, and a time-out that takes the long round trip to heart. */
static void an_echo_of_the_original_undoes_a_time_out(void **state)
{
	(void)state;
	rig_establish_sack();
	uint32_t una = warm_up(MSS);
	struct tcps_conn_info before = info();
	uint64_t sent_ns = rig.now_ns;
	uint32_t first = flight(10, MSS);
	time_out(una);
	assert_int_equal(info().cwnd_bytes, MSS);
	rig_pass(30 * MS);
	rig.ts_ecr = first;
	rig_sack(una + 2 * MSS, 0, NULL);
	expect_undone(0, 1);
	expect_restored(&before);
	uint64_t rtt_ms = (rig.now_ns - sent_ns) / MS;
	assert_in_range(info().rto_ms, 2 * rtt_ms, 4 * rtt_ms);
	rig_flush();
	rig_expect_none();
	for (unsigned n = 3; n <= 10; n++) {
		rig_sack(una + n * MSS, 0, NULL);
		rig_flush();
		rig_expect_none();
	}
	assert_int_equal(info().retransmits, 2);    /* the probe and the first */
	assert_true(info().rto_ms > before.rto_ms); /* it does not fall at once */
}

static void a_time_out_that_was_needed_is_not_undone(void **state)
{
	(void)state;
	rig_establish_sack();
	uint32_t una = warm_up(MSS);
	flight(10, MSS);
	rig.ts_ecr = time_out(una);
	rig_pass(20 * MS);
	rig_sack(una + MSS, 0, NULL);
	expect_undone(0, 0);
	assert_true(info().recovery);
	rig_flush();
	expect_segment(una + MSS); /* slow start sends the rest again */
	rig_clear();
	rig.ts_ecr -= 200;
	rig_sack(una + 10 * MSS, 0, NULL);
	expect_undone(0, 0);
}

/* A time-out within a recovery: one episode, the state before all of it, restored once. */
static void a_time_out_within_a_recovery_restores_what_was_before_both(void **state)
{
	(void)state;
	rig_establish_sack();
	uint32_t una = warm_up(MSS), first;
	struct tcps_conn_info before = info();
	recovery(una, &first);
	time_out(una);
	assert_true(info().ssthresh_bytes < before.ssthresh_bytes && info().cwnd_bytes == MSS);
	rig.ts_ecr = first;
	rig_sack(una + 10 * MSS, 0, NULL);
	expect_undone(0, 1);
	expect_restored(&before);
	rig_sack(una + 10 * MSS, 1, (uint32_t[][2]){{una, una + MSS}});
	rig_sack(una + 10 * MSS, 1, (uint32_t[][2]){{una, una + MSS}});
	expect_undone(0, 1);
	expect_restored(&before);
}

/* All that was held for lost arrives before any of it was sent again. */
static void what_came_before_it_was_sent_again_undoes_the_recovery(void **state)
{
	(void)state;
	rig_establish_sack();
	uint32_t una = warm_up(MSS);
	struct tcps_conn_info before = info();
	flight(10, MSS);
	rig_pass(20 * MS);
	rig_sack(una, 1, (uint32_t[][2]){{una + MSS, una + 5 * MSS}});
	assert_int_equal(rig_count(TCPS_CNT_recoveries), 1);
	rig_sack(una + 5 * MSS, 0, NULL); /* in the same burst */
	expect_undone(1, 0);
	expect_restored(&before);
	rig_flush();
	rig_expect_none();
}

/* RFC 3708 2: every segment that was sent again is told of as a duplicate; not before the last of them. */
static void duplicates_undo_a_recovery_when_all_are_told_of(void **state)
{
	(void)state;
	rig_establish_sack();
	uint32_t una = warm_up(MSS), first;
	struct tcps_conn_info before = info();
	rig.ts_ecr = recovery(una, &first); /* an echo that proves nothing */
	rig_sack(una + MSS, 1, (uint32_t[][2]){{una + 9 * MSS, una + 10 * MSS}});
	rig_flush();
	expect_segment(una + MSS);
	expect_segment(una + 2 * MSS);
	rig_expect_none();
	rig_clear();
	rig_sack(una + 10 * MSS, 0, NULL);
	assert_false(info().recovery);
	rig_sack(una + 10 * MSS, 1, (uint32_t[][2]){{una, una + MSS}});
	rig_sack(una + 10 * MSS, 1, (uint32_t[][2]){{una + 2 * MSS, una + 3 * MSS}});
	expect_undone(0, 0);
	rig_sack(una + 9 * MSS, 1, (uint32_t[][2]){{una + MSS, una + 2 * MSS}}); /* on an ACK that others overtook */
	expect_undone(1, 0);
	assert_int_equal(rig_count(TCPS_CNT_undone_by_dsack), 1);
	expect_restored(&before);
}

/* RFC 3708 3: as many duplicates as retransmissions, but not of them: the network's own. And one of them twice. */
static void duplicates_of_something_else_undo_nothing(void **state)
{
	(void)state;
	rig_establish_sack();
	uint32_t una = warm_up(MSS), first;
	rig.ts_ecr = recovery(una, &first);
	rig_sack(una + 10 * MSS, 0, NULL);
	assert_int_equal(info().retransmits, 1);
	rig_sack(una + 10 * MSS, 1, (uint32_t[][2]){{una + 4 * MSS, una + 5 * MSS}});
	rig_sack(una + 10 * MSS, 1, (uint32_t[][2]){{una, una + MSS}});
	expect_undone(0, 0);
	rig_sack(una + 10 * MSS, 1, (uint32_t[][2]){{una, una + MSS}});
	expect_undone(0, 0);
	assert_int_equal(rig_count(TCPS_CNT_dsacks_in), 3);
}

/* ---- without timestamps ---- */

/* RFC 5682 3.1 (2b), (3b): the ACK of the first segment is either's, so new data goes; that of the second is the original's. */
static void what_was_not_sent_again_undoes_a_time_out(void **state)
{
	(void)state;
	rig_establish_sack_alone();
	uint32_t una = warm_up(MSS_BARE);
	struct tcps_conn_info before = info();
	flight(10, MSS_BARE);
	time_out(una);
	assert_true(tcps_send(rig.conn, pattern, 5 * MSS_BARE));
	rig_sack(una + MSS_BARE, 0, NULL);
	rig_flush();
	expect_segment(una + 10 * MSS_BARE);
	expect_segment(una + 11 * MSS_BARE);
	rig_expect_none();
	expect_undone(0, 0);
	rig_sack(una + 2 * MSS_BARE, 0, NULL);
	expect_undone(0, 1);
	assert_int_equal(rig_count(TCPS_CNT_undone_by_frto), 1);
	expect_restored(&before);
	rig_flush();
	while (rig_pending() > 0)
		assert_true(rig_expect().seq - rig_own(una + 12 * MSS_BARE) < 3 * MSS_BARE);
	assert_int_equal(info().retransmits, 2);
	rig_sack(una + 15 * MSS_BARE, 0, NULL);
}

/* RFC 5682 3.1 (3a): new data arrives above the hole, and nothing of what was outstanding: the time-out was right. */
static void new_data_above_the_hole_confirms_the_time_out(void **state)
{
	(void)state;
	rig_establish_sack_alone();
	uint32_t una = warm_up(MSS_BARE);
	flight(10, MSS_BARE);
	time_out(una);
	assert_true(tcps_send(rig.conn, pattern, 5 * MSS_BARE));
	rig_sack(una + MSS_BARE, 0, NULL);
	rig_flush();
	rig_clear();
	rig_sack(una + MSS_BARE, 1, (uint32_t[][2]){{una + 10 * MSS_BARE, una + 11 * MSS_BARE}});
	rig_flush();
	expect_segment(una + MSS_BARE);
	expect_undone(0, 0);
	assert_true(info().recovery);
	rig_clear();
}

/* RFC 5682 3.1 (2b): where there is no new data to ask with, what was lost goes again. */
static void without_new_data_a_time_out_is_taken_at_its_word(void **state)
{
	(void)state;
	rig_establish_sack_alone();
	uint32_t una = warm_up(MSS_BARE);
	flight(10, MSS_BARE);
	time_out(una);
	rig_sack(una + MSS_BARE, 0, NULL);
	rig_flush();
	expect_segment(una + MSS_BARE);
	expect_undone(0, 0);
	rig_clear();
}

/* RFC 5682 3.1 (2): one ACK of more than went again tells at once; one of all there was may be the retransmission's. */
static void the_first_ack_after_a_time_out_may_tell(void **state)
{
	(void)state;
	for (unsigned all = 0; all < 2; all++) {
		struct tcps_config cfg;
		rig_stop();
		rig_config(&cfg);
		rig_start(&cfg);
		rig_establish_sack_alone();
		uint32_t una = warm_up(MSS_BARE);
		flight(10, MSS_BARE);
		time_out(una);
		rig_sack(una + (all ? 10 : 3) * MSS_BARE, 0, NULL);
		expect_undone(0, !all);
		assert_false(info().recovery);
		rig_flush();
		rig_expect_none();
	}
}

/* ---- without SACK ---- */

static void dup_acks(uint32_t una, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		rig_send(ACK, rig_own(una), NULL, 0);
	rig_flush();
}

/* RFC 6582 and RFC 3522: timestamps need no SACK. */
static void a_newreno_recovery_is_undone_by_an_echo(void **state)
{
	(void)state;
	rig_establish(true, 7);
	struct tcps_conn_info before = info();
	uint32_t first = flight(8, MSS);
	rig_pass(20 * MS);
	rig.ts_ecr = first - 1;
	dup_acks(0, 3);
	assert_int_equal(rig_count(TCPS_CNT_retransmits_fast), 1);
	assert_true(info().recovery);
	rig_clear();
	rig_pass(2 * MS);
	rig.ts_ecr = first;
	rig_send(ACK, rig_own(3 * MSS), NULL, 0);
	expect_undone(1, 0);
	expect_restored(&before);
	rig_flush();
	rig_expect_none();
	rig_send(ACK, rig_own(8 * MSS), NULL, 0);
	assert_int_equal(info().retransmits, 1);
}

/* With neither, nothing tells; a recovery runs its course (RFC 6582 3.2), and so does a time-out. */
static void with_neither_nothing_is_undone(void **state)
{
	(void)state;
	rig_establish(false, 7);
	struct tcps_conn_info before = info();
	flight(8, MSS_BARE);
	rig_pass(20 * MS);
	dup_acks(0, 3);
	rig_clear();
	rig_send(ACK, rig_own(3 * MSS_BARE), NULL, 0);
	rig_flush();
	expect_segment(3 * MSS_BARE); /* a partial ACK */
	rig_clear();
	rig_send(ACK, rig_own(8 * MSS_BARE), NULL, 0);
	assert_false(info().recovery);
	flight(4, MSS_BARE);
	time_out(8 * MSS_BARE);
	rig_send(ACK, rig_own(10 * MSS_BARE), NULL, 0);
	expect_undone(0, 0);
	assert_true(info().ssthresh_bytes < before.ssthresh_bytes && info().cwnd_bytes < before.cwnd_bytes);
	rig_flush();
	expect_segment(10 * MSS_BARE);
	rig_clear();
}

/* RFC 4015 3.2: where the peer tells of a congestion mark meanwhile, the window stays reduced. */
static void a_mark_of_congestion_leaves_nothing_to_undo(void **state)
{
	(void)state;
	for (unsigned mark = 0; mark < 2; mark++) {
		struct tcps_config cfg;
		rig_stop();
		rig_config(&cfg);
		cfg.ecn = true;
		rig_start(&cfg);
		rig_arp_from_peer(1);
		rig_segment(SYN | ECE | CWR, PEER_ISS, 0, NULL, 0, NULL, 0);
		rig.own_iss = rig_expect().seq;
		rig.peer_seq = PEER_ISS + 1;
		rig_send(ACK, rig_own(0), NULL, 0);
		rig_flush();
		rig_clear();
		uint32_t mss = info().mss;
		flight(4, mss);
		for (unsigned i = 0; i < 3; i++)
			rig_send(ACK, rig_own(0), NULL, 0);
		assert_int_equal(rig_count(TCPS_CNT_recoveries), 1);
		rig_send((uint8_t)(ACK | (mark != 0 ? ECE : 0u)), rig_own(mss), NULL, 0); /* before anything was sent again */
		expect_undone(!mark, 0);
		rig_flush();
		rig_clear();
	}
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		test(an_echo_of_the_original_undoes_a_recovery),
		test(a_retransmission_that_was_needed_is_not_undone),
		test(an_echo_that_cannot_be_undoes_nothing),
		test(an_ack_of_less_than_the_retransmission_tells_nothing),
		test(an_echo_of_the_original_undoes_a_time_out),
		test(a_time_out_that_was_needed_is_not_undone),
		test(a_time_out_within_a_recovery_restores_what_was_before_both),
		test(what_came_before_it_was_sent_again_undoes_the_recovery),
		test(duplicates_undo_a_recovery_when_all_are_told_of),
		test(duplicates_of_something_else_undo_nothing),
		test(what_was_not_sent_again_undoes_a_time_out),
		test(new_data_above_the_hole_confirms_the_time_out),
		test(without_new_data_a_time_out_is_taken_at_its_word),
		test(the_first_ack_after_a_time_out_may_tell),
		test(a_newreno_recovery_is_undone_by_an_echo),
		test(with_neither_nothing_is_undone),
		test(a_mark_of_congestion_leaves_nothing_to_undo),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tcps_undo", tests, NULL, NULL);
}
