#!/usr/bin/python3
"""TCP's rules one by one, from the wire: options, windows, reassembly, timers, TIME-WAIT, rate limits.

What a table of single segments cannot say (that is test_conformance.py) is here a short story each; its sentence names the section.
"""

import struct
import sys

import segments
import tap
from segments import ACK, CWR, ECE, FIN, HEADER, PSH, RST, SACK_PERMITTED, SYN, URG, Peer, distance, mss, options, plus, stamps, wscale
from tap import equal, test

FULL = options(mss(1460), 1, wscale(7), SACK_PERMITTED, stamps(1))
SACK = options(mss(1460), 1, wscale(7), 1, 1, SACK_PERMITTED)


def payloads(said):
    return [s for s in said if s.data]


def one(said, what):
    assert len(said) == 1, f"wanted one segment ({what}), got {said}"
    return said[0]


# ---------------------------------------------------------------- options of a SYN


@test("a SYN without options is answered without window scale, timestamps and SACK (RFC 7323 1.3, RFC 2018 2)")
def no_options():
    peer = Peer()
    answer = peer.syn(raw_options=b"")
    assert not {3, 4, 8} & set(answer.options), answer
    assert 2 in answer.options, "MUST-5: the MSS is sent where it is not the default"
    peer.say(ACK)
    peer.greet()
    peer.kill()


@test("a SYN with all options is answered with all of them, and the timestamp is echoed (RFC 7323 3.2)")
def all_options():
    peer = Peer()
    answer = peer.syn(options(mss(1460), 1, wscale(7), SACK_PERMITTED, stamps(0xFFFFFFF0)))
    assert {2, 3, 4, 8} <= set(answer.options), answer
    equal(answer.stamps[1], 0xFFFFFFF0, "TSecr of the SYN-ACK")
    peer.stamp = (0xFFFFFFF8, answer.stamps[0])
    peer.say(ACK)
    peer.stamp = (4, peer.stamp[1])  # past the wrap, and later all the same
    peer.greet()
    peer.kill()


@test("without an MSS option no segment carries more than 536 bytes (RFC 9293 3.7.1 MUST-15)")
def default_mss():
    peer = Peer()
    peer.syn(raw_options=b"")
    peer.say(ACK)
    peer.say(ACK | PSH, HEADER)
    longest = 0
    while not segments.whole_start(peer.stream):
        seg = peer.hear("connection.start", lambda s: s.data)
        longest = max(longest, len(seg.data))
        peer.say(ACK)
    assert longest <= 536, longest
    peer.kill()


@test("an MSS of 100 is kept to (RFC 9293 3.7.1)")
def small_mss():
    peer = Peer()
    peer.syn(raw_options=options(mss(100)))
    peer.say(ACK)
    peer.say(ACK | PSH, HEADER)
    while not segments.whole_start(peer.stream):
        assert len(peer.hear("connection.start", lambda s: s.data).data) <= 100
        peer.say(ACK)
    peer.kill()


@test("an MSS of 0 does no harm: bytes come all the same (RFC 9293 3.7.1)")
def zero_mss():
    peer = Peer()
    peer.syn(raw_options=options(mss(0)))
    peer.say(ACK)
    peer.greet()
    peer.kill()


@test("a window scale of 15 is taken for 14 (RFC 7323 2.3)")
def large_scale():
    peer = Peer()
    answer = peer.syn(options(mss(1460), 1, wscale(15)))
    assert 3 in answer.options and answer.options[3][0] <= 14, answer
    peer.say(ACK, window=1)  # 16 KiB, if the scale is 14
    peer.window = 1
    peer.greet()
    peer.kill()


@test("the window of a SYN and of a SYN-ACK is never scaled (RFC 7323 2.2)")
def syn_window():
    peer = Peer()
    peer.window = 400
    answer = peer.syn(options(mss(1460), 1, wscale(7)))
    assert answer.window >= 536, f"a window of {answer.window} in the SYN-ACK looks scaled"
    peer.send(ACK, window=65535)
    peer.window = 65535
    peer.greet()
    peer.kill()


@test("unknown options are passed over (RFC 9293 3.1 MUST-6)")
def unknown_options():
    peer = Peer()
    peer.syn(options((253, b"\x12\x34\x56"), (99, b""), mss(1460), 1))
    peer.say(ACK, raw_options=options((200, b"abcdef")))
    peer.say(ACK | PSH, HEADER, raw_options=options((254, bytes(38))))
    peer.await_start()
    peer.kill()


@test("a SYN with an option of length 0 or 1 does no harm: the next SYN is answered (RFC 9293 3.1 MUST-7)")
def zero_length_in_syn():
    for raw in (b"\x02\x00\x05\xb4", b"\x02\x01\x05\xb4", b"\x03\x00\x00\x00", b"\x08\x0a\x00\x00", b"\x02\x28\x00\x00"):
        peer = Peer()
        peer.send(SYN, raw_options=raw)
        peer.settle()
        peer.kill()
    peer = Peer().open()
    peer.greet()
    peer.kill()


@test("the same option twice does no harm (RFC 9293 3.1)")
def repeated_options():
    peer = Peer()
    peer.syn(options(mss(1460), mss(500), wscale(2), wscale(3), 1, 1, stamps(1)))
    peer.stamp = (2, 0)
    peer.say(ACK)
    peer.greet()
    peer.kill()


@test("reserved bits are not looked at (RFC 9293 3.1)")
def reserved_bits():
    peer = Peer()
    peer.syn(reserved=7)
    peer.say(ACK, reserved=5)
    peer.say(ACK | PSH, HEADER, reserved=7)
    peer.await_start()
    peer.kill()


@test("a SYN that offers ECN is answered with ECE alone or without it, never with CWR (RFC 3168 6.1.1)")
def ecn_offer():
    peer = Peer()
    answer = peer.syn(options(mss(1460)), flags=SYN | ECE | CWR)
    assert not answer.flags & CWR, answer
    peer.say(ACK)
    peer.greet()
    peer.kill()


# ---------------------------------------------------------------- the handshake


@test("the SYN again is answered with the same SYN-ACK (RFC 9293 3.8.1)")
def syn_again():
    peer = Peer()
    first = peer.syn()
    peer.send(SYN, seq=peer.iss, raw_options=options(mss(1460)), ack=0)
    again = one(peer.settle(), "the SYN-ACK again")
    equal((again.seq, again.ack, again.flags & (SYN | ACK)), (first.seq, first.ack, SYN | ACK), "the second SYN-ACK")
    peer.kill()


@test("a SYN-ACK that is not acknowledged comes again with the same number (RFC 6298 5)")
def syn_ack_again():
    peer = Peer()
    first = peer.syn()
    again = peer.hear("the SYN-ACK again", lambda s: s.flags & SYN)
    equal((again.seq, again.ack), (first.seq, first.ack), "the second SYN-ACK")
    peer.say(ACK)
    peer.greet()
    peer.kill()


@test("where the handshake's last ACK was lost, data opens the connection (RFC 9293 3.10.7.4 fifth)")
def ack_lost():
    peer = Peer()
    peer.syn()
    peer.greet()
    peer.kill()


@test("where the handshake's last ACK was lost, data with a FIN opens and half-closes (RFC 9293 3.10.7.4)")
def ack_lost_fin():
    peer = Peer()
    peer.syn()
    peer.say(ACK | PSH | FIN, HEADER)
    peer.await_start()
    if not peer.finished:
        peer.hear("the broker's FIN", lambda s: s.flags & FIN)
    peer.kill()


@test("an ACK without timestamps after a handshake with them does no harm (RFC 7323 3.2)")
def ack_without_stamps():
    peer = Peer()
    answer = peer.syn(FULL)
    peer.say(ACK, raw_options=b"")
    peer.stamp = (2, answer.stamps[0])
    peer.greet()
    peer.kill()


@test("a SYN with data: the data is acknowledged now or again later, and counts once (RFC 9293 3.4 MAY-4)")
def syn_data():
    peer = Peer()
    peer.send(SYN, HEADER, raw_options=options(mss(1460)))
    answer = peer.hear("SYN-ACK", lambda s: s.flags & SYN)
    assert answer.ack in (plus(peer.iss, 1), plus(peer.iss, 9)), answer
    peer.rcv, peer.snd = plus(answer.seq, 1), plus(peer.iss, 1)
    peer.greet()
    peer.kill()


@test("two connections' first numbers differ, and follow no constant step (RFC 6528 3)")
def first_numbers():
    numbers = []
    for _ in range(6):
        peer = Peer()
        numbers.append(peer.syn().seq)
        peer.kill()
    steps = {distance(b, a) for a, b in zip(numbers, numbers[1:])}
    assert len(set(numbers)) == 6 and len(steps) == 5, numbers


# ---------------------------------------------------------------- timestamps


def stamped():
    peer = Peer()
    answer = peer.syn(FULL)
    peer.stamp = (1000, answer.stamps[0])
    peer.say(ACK)
    peer.settle()
    return peer


@test("an older timestamp: the segment is dropped and acknowledged, and the stream goes on (RFC 7323 5.3 R1)")
def paws():
    peer = stamped()
    old, peer.stamp = peer.stamp, (500, peer.stamp[1])
    peer.send(ACK | PSH, b"garbage!")
    answer = one(peer.settle(), "the ACK")
    equal((answer.ack, answer.flags & (ACK | RST)), (peer.snd, ACK), "the ACK of a segment that PAWS drops")
    peer.stamp = old
    peer.greet()
    peer.kill()


@test("a reset needs no timestamp, and an old one does not save it (RFC 7323 5.2)")
def paws_reset():
    for raw in (b"", options(1, 1, stamps(500))):
        peer = stamped()
        peer.send(RST, raw_options=raw)
        peer.settle()
        peer.is_gone()


@test("every segment carries a timestamp once agreed, and echoes the newest in sequence (RFC 7323 3.2, 4.3)")
def echo():
    peer = stamped()
    peer.stamp = (2000, peer.stamp[1])
    peer.say(ACK | PSH, HEADER)
    seg = peer.hear("connection.start", lambda s: s.data)
    equal(seg.stamps[1], 2000, "TSecr of the answer")
    peer.stamp = (3000, peer.stamp[1])
    peer.send(ACK | PSH, b"later", seq=plus(peer.snd, 5))  # out of sequence: not the one to echo
    for said in peer.settle():
        assert said.stamps, f"a segment without a timestamp: {said}"
        equal(said.stamps[1], 2000, "TSecr while a hole is open")
    peer.kill()


@test("data without the agreed timestamp is dropped or taken, and the stream stays whole (RFC 7323 3.2)")
def missing_stamp():
    peer = stamped()
    peer.send(ACK | PSH, HEADER[:4], raw_options=b"")
    said = peer.settle()
    assert not any(s.flags & RST for s in said), said
    peer.say(ACK | PSH, HEADER)
    peer.await_start()
    peer.kill()


# ---------------------------------------------------------------- reassembly and SACK


@test("data out of sequence: an ACK of the next number at once, and one of all when the hole is filled (RFC 5681 4.2)")
def out_of_order():
    peer = Peer().open()
    peer.settle()
    peer.send(ACK | PSH, HEADER[4:], seq=plus(peer.snd, 4))
    answer = one(peer.settle(), "the duplicate ACK")
    equal((answer.ack, 5 in answer.options), (peer.snd, False), "its ack; SACK was not agreed (RFC 2018 2)")
    peer.send(ACK | PSH, HEADER[:4])
    peer.snd = plus(peer.snd, 8)
    seg = peer.hear("the ACK of all", lambda s: s.ack == peer.snd)
    assert seg.flags & ACK
    peer.await_start()
    peer.kill()


@test("out-of-sequence data is reported in SACK blocks, the newest first (RFC 2018 4)")
def sack_blocks():
    peer = Peer().open(SACK)
    peer.settle()
    start = peer.snd
    for at in (2, 6, 4):
        peer.send(ACK | PSH, HEADER[at : at + 1], seq=plus(start, at))
        seg = one(peer.settle(), "the duplicate ACK")
        equal(seg.ack, start, "its ack")
        equal(seg.sacks[0], (plus(start, at), plus(start, at + 1)), "the first block holds what came last")
    equal(set(seg.sacks), {(plus(start, at), plus(start, at + 1)) for at in (2, 4, 6)}, "all blocks")
    peer.send(ACK | PSH, HEADER[3:4], seq=plus(start, 3))
    seg = one(peer.settle(), "the ACK that joins two blocks")
    equal(seg.sacks[0], (plus(start, 2), plus(start, 5)), "the joined block")
    peer.say(ACK | PSH, HEADER)
    peer.await_start()
    peer.kill()


@test("data that came before is reported as D-SACK in the first block (RFC 2883 4)")
def dsack():
    peer = Peer().open(SACK)
    start = peer.snd
    peer.say(ACK | PSH, HEADER[:4])
    peer.hear("its ACK", lambda s: s.ack == peer.snd)
    peer.send(ACK | PSH, HEADER[:4], seq=start)
    seg = one(peer.settle(), "the ACK")
    equal(seg.ack, peer.snd, "its ack")
    equal(seg.sacks[:1], [(start, plus(start, 4))], "the D-SACK block")
    peer.greet(4)
    peer.kill()


@test("SACK blocks beside timestamps are three at most and fit into 40 bytes of options (RFC 2018 3)")
def sack_and_stamps():
    peer = stamped()
    start = peer.snd
    for at in (1, 3, 5, 7):
        peer.send(ACK | PSH, HEADER[at : at + 1], seq=plus(start, at))
        seg = one(peer.settle(), "the duplicate ACK")
    equal(len(seg.sacks), 3, "blocks beside a timestamp")
    assert seg.stamps
    peer.say(ACK | PSH, HEADER)
    peer.await_start()
    peer.kill()


@test("old bytes at the front of a segment are cut off, the new ones behind them count (RFC 9293 3.10.7.4)")
def overlap():
    peer = Peer().open()
    start = peer.snd
    peer.say(ACK | PSH, HEADER[:5])
    peer.settle()
    peer.send(ACK | PSH, b"wrong" + HEADER[5:], seq=start)
    peer.snd = plus(start, 8)
    peer.await_start()
    peer.kill()


@test("an urgent pointer is tolerated: the bytes are data like all others (RFC 9293 3.8.5, RFC 6093)")
def urgent():
    peer = Peer().open()
    peer.say(ACK | PSH | URG, HEADER, urgptr=60000)
    peer.await_start()
    peer.kill()


@test("the protocol header byte by byte, backwards, is put in order (RFC 9293 SHLD-31)")
def backwards():
    peer = Peer().open()
    for at in range(7, -1, -1):
        peer.send(ACK | PSH, HEADER[at : at + 1], seq=plus(peer.snd, at))
    peer.snd = plus(peer.snd, 8)
    peer.await_start()
    peer.kill()


# ---------------------------------------------------------------- FIN


@test("a FIN with data: both are acknowledged, the data is answered, the broker closes too (RFC 9293 3.6)")
def fin_with_data():
    peer = Peer().open()
    peer.say(ACK | PSH | FIN, HEADER)
    peer.await_start()
    if not peer.finished:
        peer.hear("the broker's FIN", lambda s: s.flags & FIN)
    peer.send(ACK)
    peer.settle()
    peer.is_gone()


@test("a FIN out of sequence counts when the hole before it is filled (RFC 9293 3.10.7.4 eighth)")
def fin_out_of_order():
    peer = Peer().open()
    peer.settle()
    start = peer.snd
    peer.send(ACK | FIN, seq=plus(start, 8))
    equal(one(peer.settle(), "the duplicate ACK").ack, start, "the ack of an early FIN")
    peer.send(ACK | PSH, HEADER)
    peer.snd = plus(start, 9)
    peer.hear("the ACK of data and FIN", lambda s: s.ack == peer.snd)
    peer.await_start()
    peer.kill()


@test("a FIN that is not acknowledged comes again with the same number (RFC 6298 5, RFC 9293 3.8.1)")
def fin_again():
    peer = Peer().open()
    peer.say(ACK | FIN)
    first = peer.hear("the broker's FIN", lambda s: s.flags & FIN)
    again = peer.hear("the FIN again", lambda s: s.flags & FIN)
    equal((again.seq, again.ack), (first.seq, first.ack), "number and ack of the second FIN")
    peer.send(ACK)
    peer.settle()
    peer.is_gone()


# ---------------------------------------------------------------- windows


@test("bytes below what was received (keepalives of one byte and of none at SEG.SEQ-1) are answered with an ACK (RFC 9293 3.8.4)")
def keepalives():
    peer = Peer().open()
    peer.settle()
    for payload in (b"", b"x"):
        peer.send(ACK, payload, seq=plus(peer.snd, -1))
        equal(one(peer.settle(), "the ACK").ack, peer.snd, "the ack of a keepalive")
    peer.greet()
    peer.kill()


@test("into a shut window comes a probe of one byte at most, again and again, and all bytes when it opens (RFC 9293 3.8.6.1)", seconds=30)
def zero_window():
    peer = Peer().open(window=0)
    peer.say(ACK | PSH, HEADER)
    peer.hear("the ACK of the header", lambda s: s.ack == peer.snd)
    for _ in range(2):
        probe = peer.hear("a probe", lambda s: distance(s.seq, peer.rcv) < 0 or s.data)
        assert len(probe.data) <= 1, probe
        peer.rcv = plus(peer.rcv, -len(probe.data))  # the byte found no room
        peer.stream = b""
        peer.send(ACK)
    peer.window = 65535
    peer.send(ACK)
    peer.await_start()
    peer.kill()


@test("a window that shrinks below what is sent is survived: nothing beyond it, and all bytes when it opens (RFC 9293 3.8.6 SHLD-15, MUST-34)")
def shrinking_window():
    peer = Peer().open(window=300)
    peer.say(ACK | PSH, HEADER)
    while len(peer.stream) < 300:
        peer.hear("the first 300 bytes", lambda s: s.data)
    first, peer.stream = peer.stream, peer.stream[:100]
    equal(len(first), 300, "bytes sent into a window of 300")
    edge = plus(peer.rcv, -200)
    peer.rcv, peer.window = edge, 0
    peer.send(ACK)
    for seg in peer.settle():
        assert not seg.data or distance(plus(seg.seq, len(seg.data)), plus(edge, 200)) <= 0, f"new bytes into a window that was shut: {seg}"
    peer.window = 65535
    peer.send(ACK)
    peer.await_start()
    equal(peer.stream[:300], first, "the bytes before the window shrank")
    peer.kill()


@test("a window of 10 bytes after one of 1000 gets no silly segment at once (RFC 9293 3.8.6.2.1 MUST-38)")
def silly_window():
    peer = Peer()
    peer.window = 1000
    peer.syn()
    peer.window = 10
    peer.say(ACK)
    peer.say(ACK | PSH, HEADER)
    peer.hear("the ACK of the header", lambda s: s.ack == peer.snd)
    equal(payloads(peer.settle()), [], "segments into a silly window")
    peer.window = 65535
    peer.send(ACK)
    peer.await_start()
    peer.kill()


@test("the broker does not take back what its window promised, but for the rounding of the scale (RFC 9293 3.8.6 SHLD-14, RFC 7323 2.4)")
def promise():
    peer = Peer().open(SACK)
    peer.greet()
    edge = None
    for _ in range(40):  # half a frame, so that AMQP has nothing to act upon
        peer.say(ACK | PSH, b"\x01\x00\x00\x00\x01\x00\x00" if edge is None else b"x")
        seg = peer.hear("its ACK", lambda s: s.ack == peer.snd)
        now = plus(seg.ack, seg.window << peer.window_shift)
        assert edge is None or distance(now, edge) > -(1 << peer.window_shift), f"the right edge moved left by {-distance(now, edge)}"
        edge = now if edge is None or distance(now, edge) > 0 else edge
    peer.kill()


# ---------------------------------------------------------------- loss on the way to us


@test("three duplicate ACKs bring the lost segment again before any time-out (RFC 5681 3.2, RFC 8985)")
def fast_retransmit():
    peer = Peer()
    peer.syn(raw_options=options(mss(100), 1, 1, SACK_PERMITTED))
    peer.say(ACK)
    peer.say(ACK | PSH, HEADER)
    lost = peer.hear("the first segment", lambda s: s.data)
    peer.hear("four more", lambda s: distance(plus(s.seq, len(s.data)), lost.seq) >= 400)
    for blocks in (200, 300, 400):
        raw = options(1, 1, (5, struct.pack(">II", plus(lost.seq, 100), plus(lost.seq, blocks))))
        peer.send(ACK, ack=lost.seq, raw_options=raw)
    peer.hear("the lost segment again", lambda s: s.seq == lost.seq and s.data, seconds=2)
    peer.send(ACK)
    peer.kill()


@test("an unacknowledged segment comes again with the same bytes (RFC 6298 5)")
def retransmission():
    peer = Peer().open()
    peer.say(ACK | PSH, HEADER)
    first = peer.hear("connection.start", lambda s: s.data)
    again = peer.hear("the same again", lambda s: s.seq == first.seq and s.data)
    common = min(len(first.data), len(again.data))
    equal(again.data[:common], first.data[:common], "the bytes of the retransmission")
    peer.kill()


# ---------------------------------------------------------------- TIME-WAIT


def time_wait(raw_options=None):
    peer = Peer().open(raw_options)
    peer.say(ACK | PSH, b"NOT-AMQP")
    if not peer.finished:
        peer.hear("the broker's FIN", lambda s: s.flags & FIN)
    peer.say(ACK | FIN)
    peer.hear("the ACK of our FIN", lambda s: s.ack == peer.snd)
    return peer


@test("a SYN above the old numbers reuses a TIME-WAIT (RFC 9293 3.6.1 MAY-2, RFC 6191)")
def time_wait_reuse():
    old = time_wait()
    peer = Peer(sport=old.sport)
    peer.iss = peer.snd = plus(old.snd, 100000)
    answer = peer.syn()
    assert distance(answer.seq, old.rcv) > 0, "its numbers begin above the old ones (MAY-2)"
    peer.say(ACK)
    peer.greet()
    peer.kill()


@test("with timestamps a SYN with a later one reuses a TIME-WAIT whatever its number (RFC 6191 2)")
def time_wait_reuse_stamps():
    old = time_wait(FULL)
    peer = Peer(sport=old.sport)
    peer.iss = peer.snd = plus(old.snd, -100000)
    peer.syn(options(mss(1460), 1, wscale(7), SACK_PERMITTED, stamps(5000)))
    peer.stamp = (5001, 0)
    peer.say(ACK)
    peer.greet()
    peer.kill()


@test("a SYN below the old numbers does not disturb a TIME-WAIT: it is answered with the old ACK (RFC 9293 3.10.7.4)")
def time_wait_old_syn():
    peer = time_wait()
    peer.send(SYN, seq=plus(peer.snd, -50000), ack=0)
    seg = one(peer.settle(), "the ACK")
    equal((seg.flags & (SYN | ACK | RST), seg.seq, seg.ack), (ACK, peer.rcv, peer.snd), "flags and numbers")


@test("our FIN again in TIME-WAIT is acknowledged again (RFC 9293 3.10.7.4 eighth)")
def time_wait_fin():
    peer = time_wait()
    for _ in range(3):
        peer.send(ACK | FIN, seq=plus(peer.snd, -1))
        seg = one(peer.settle(), "the ACK")
        equal((seg.flags & (ACK | RST | SYN), seg.ack), (ACK, peer.snd), "the ACK in TIME-WAIT")


# ---------------------------------------------------------------- rate limits, last


def flood(event, count=400):
    peer = Peer().open(options(mss(1460), 1, wscale(7)))
    peer.settle()
    for i in range(count):
        event(peer, i)
    said = peer.settle()
    assert 1 <= len(said) <= count // 4, f"{len(said)} answers to {count} segments"
    assert all(s.ack == peer.snd and not s.flags & (RST | SYN) for s in said), said[:4]
    peer.greet()
    peer.kill()


@test("challenge ACKs to resets in the window are limited, and the connection lives (RFC 5961 3.2, 7)")
def flood_resets():
    flood(lambda p, i: p.send(RST, seq=p.snd + 1 + i))


@test("challenge ACKs to SYNs are limited, and the connection lives (RFC 5961 4.2, 7)")
def flood_syns():
    flood(lambda p, i: p.send(SYN, seq=p.snd + i, ack=0))


@test("ACKs of what was never sent are answered at a limited rate, and the connection lives (RFC 5961 5.2, 7)")
def flood_acks():
    flood(lambda p, i: p.send(ACK, ack=p.rcv + 1000 + i))


@test("without window scale nothing beyond the 65,535 bytes that were said is in the window: a RST there is ignored (RFC 9293 3.10.7.4, RFC 5961 3.2)")
def unscaled_window():
    peer = Peer().open(options(mss(1460)))
    peer.say(ACK | PSH, HEADER)
    peer.await_start()
    peer.settle()
    peer.send(RST, seq=peer.snd + peer.broker_window + 1000)
    said = peer.settle()
    peer.kill()
    assert not said, f"it is taken to be in the window: {said}"


@test("in SYN-RECEIVED answers to segments that do not fit are limited (RFC 5961 7)")
def half_open_flood():
    peer = Peer()
    peer.syn()
    peer.settle()
    for i in range(400):
        peer.send(RST, seq=peer.snd + 1 + i)
    said = peer.settle()
    peer.kill()
    assert len(said) <= 100, f"{len(said)} answers to 400 segments"


if __name__ == "__main__":
    sys.exit(tap.main())
