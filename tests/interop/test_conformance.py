#!/usr/bin/python3
"""State by event: every state that a server can be brought into, and every kind of segment, as RFC 9293 section 3.10.7 has it.

The tables at the end are the specification's text in a few words: for each event and state, what may be said at once, and what has
become of the connection. One line of TAP is one cell. Resets, SYNs and ACKs follow RFC 5961.
"""

import struct
import sys

import segments
import tap
from segments import ACK, FIN, HEADER, MODULO, PSH, RST, SYN, URG, Peer, distance, options, plus

# ---------------------------------------------------------------- states


SCALED = options(segments.mss(1460), 1, segments.wscale(7))  # so that the broker's whole window can be said


def established():
    peer = Peer().open(SCALED)
    peer.settle()
    return peer


def syn_received():
    peer = Peer()
    peer.syn(SCALED)
    return peer


def fin_wait_1():
    """The broker closes on a protocol header that is none, and its FIN is not acknowledged."""
    peer = established()
    peer.say(ACK | PSH, b"NOT-AMQP")
    peer.hear("the broker's FIN", lambda s: s.flags & FIN)
    peer.fin_seq = plus(peer.rcv, -1)
    peer.held_ack = peer.fin_seq
    return peer


def fin_wait_2():
    peer = fin_wait_1()
    peer.held_ack = None
    peer.say(ACK)
    peer.settle()
    return peer


def closing():
    """Both FINs cross: ours does not acknowledge the broker's."""
    peer = fin_wait_1()
    peer.say(FIN | ACK)
    peer.hear("the ACK of our FIN", lambda s: s.ack == peer.snd)
    return peer


def time_wait():
    peer = fin_wait_2()
    peer.say(FIN | ACK)
    peer.hear("the ACK of our FIN", lambda s: s.ack == peer.snd)
    return peer


def close_wait():
    """Our window is shut, so connection.start waits, and the broker's FIN behind it."""
    peer = Peer().open(SCALED, window=0)
    peer.say(ACK | PSH, HEADER)
    peer.say(FIN | ACK)
    peer.hear("the ACK of our FIN", lambda s: s.ack == peer.snd)
    peer.settle()
    return peer


def last_ack():
    peer = established()
    peer.say(FIN | ACK)
    peer.hear("the broker's FIN", lambda s: s.flags & FIN and s.ack == peer.snd)
    peer.held_ack = plus(peer.rcv, -1)
    return peer


# ---------------------------------------------------------------- is it still in that state?


def alive_established(peer):
    peer.greet(getattr(peer, "sent_of_header", 0))


def alive_syn_received(peer):
    peer.say(ACK)
    peer.greet(getattr(peer, "sent_of_header", 0))


def our_fin_is_acked(peer):
    """Sends our FIN, new or again, until it is acknowledged: the connection, or its TIME_WAIT, is there."""
    peer.take()
    peer.send(FIN | ACK, seq=plus(peer.snd, -1))
    seg = peer.hear("the ACK of our FIN", lambda s: s.flags & RST or s.ack == peer.snd)
    assert not seg.flags & RST, f"a reset: {seg}"


def alive_fin_wait_1(peer):
    peer.held_ack = None
    peer.say(ACK)
    peer.snd = plus(peer.snd, 1)
    our_fin_is_acked(peer)


def alive_fin_wait_2(peer):
    peer.snd = plus(peer.snd, 1)
    our_fin_is_acked(peer)


def alive_closing(peer):
    our_fin_is_acked(peer)
    peer.held_ack = None
    peer.send(ACK)
    our_fin_is_acked(peer)


def alive_close_wait(peer):
    peer.window = 65535
    peer.send(ACK)
    peer.await_start()
    if not peer.finished:
        peer.hear("the broker's FIN", lambda s: s.flags & FIN)


def alive_last_ack(peer):
    our_fin_is_acked(peer)
    peer.held_ack = None
    peer.send(ACK)
    peer.settle()
    peer.is_gone()


STATES = {
    "ESTABLISHED": (established, alive_established),
    "SYN-RECEIVED": (syn_received, alive_syn_received),
    "FIN-WAIT-1": (fin_wait_1, alive_fin_wait_1),
    "FIN-WAIT-2": (fin_wait_2, alive_fin_wait_2),
    "CLOSE-WAIT": (close_wait, alive_close_wait),
    "CLOSING": (closing, alive_closing),
    "LAST-ACK": (last_ack, alive_last_ack),
    "TIME-WAIT": (time_wait, our_fin_is_acked),
}
FIN_SEEN = ("CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT")

# ---------------------------------------------------------------- events


def window_of(peer):
    assert peer.broker_window, "the broker's window is shut"
    return peer.broker_window


def data(peer, **more):
    """Four bytes in sequence: of the protocol header where the broker still waits for it."""
    peer.send(ACK | PSH, HEADER[:4], **more)


EVENTS = {
    "SYN": lambda p: p.send(SYN),
    "SYN below the window": lambda p: p.send(SYN, seq=p.snd - 70000),
    "SYN+ACK": lambda p: p.send(SYN | ACK),
    "ACK below the window": lambda p: p.send(ACK, ack=p.rcv - 0x20000000),
    "ACK above what was sent": lambda p: p.send(ACK, ack=p.rcv + 1000),
    "data in the window": data,
    "data above the window": lambda p: data(p, seq=p.snd + window_of(p) + 10),
    "data below the window": lambda p: data(p, seq=p.snd - 5000),
    "data without ACK": lambda p: p.send(PSH, b"AMQP"),
    "urgent data": lambda p: p.send(ACK | PSH | URG, HEADER[:4], urgptr=4),
    "FIN": lambda p: p.send(FIN | ACK),
    "FIN again": lambda p: p.send(FIN | ACK, seq=p.snd - 1),
    "FIN above the window": lambda p: p.send(FIN | ACK, seq=p.snd + window_of(p) + 10),
    "RST at the next number": lambda p: p.send(RST),
    "RST+ACK at the next number": lambda p: p.send(RST | ACK),
    "RST elsewhere in the window": lambda p: p.send(RST, seq=p.snd + 1),
    "RST above the window": lambda p: p.send(RST, seq=p.snd + window_of(p) + 1000),
    "RST below the window": lambda p: p.send(RST, seq=p.snd - 10),
    "bad checksum": lambda p: data(p, chksum=0x1234),
    "RST with a bad checksum": lambda p: p.send(RST, chksum=0x1234),
    "an option of length 0": lambda p: data(p, raw_options=b"\x08\x00\x00\x00"),
    "an option longer than the header": lambda p: data(p, raw_options=b"\x01\x01\x08\x28"),
    "a data offset below 5": lambda p: p.send(RST, dataofs=4),
    "a data offset beyond the segment": lambda p: p.send(RST, dataofs=15),
}

# What may be said at once, by word: see classify(). Then: True, the state goes on; False, the connection is gone; None, either.
GOES_ON, GONE, EITHER = True, False, None


def rule(event, state):
    """RFC 9293 3.10.7.4 (checks first to eighth) with RFC 5961's, in the order of the text. Returns (section, answers, then)."""
    half_open, fin_seen, waits = state == "SYN-RECEIVED", state in FIN_SEEN, state == "TIME-WAIT"
    if event.startswith(("bad checksum", "RST with a bad checksum")):
        return "RFC 9293 MUST-3", {"none"}, GOES_ON
    if event.startswith("a data offset"):
        return "RFC 9293 3.1", {"none"}, GOES_ON
    if event.startswith("an option"):
        return "RFC 9293 MUST-7", {"none", "ack", "taken"} | ({"synack", "rst"} if half_open else set()), EITHER if half_open else GOES_ON
    if event in ("RST at the next number", "RST+ACK at the next number"):
        # RFC 1337: TIME-WAIT may outlive it.
        return "RFC 5961 3.2", {"none"}, EITHER if waits else GONE
    if event == "RST elsewhere in the window":
        return "RFC 5961 3.2", {"ack"} | ({"synack"} if half_open else set()) | ({"none"} if waits else set()), GOES_ON
    if event.startswith("RST"):
        return "RFC 9293 3.10.7.4 first", {"none"}, GOES_ON
    if event.startswith("SYN"):
        if half_open:
            return "RFC 9293 3.10.7.4 fourth", {"ack", "synack", "none"} | ({"rst"} if "ACK" in event else set()), EITHER
        if waits and event == "SYN":
            return "RFC 9293 3.10.7.4, RFC 6191", {"synack", "ack", "rst"}, EITHER
        return "RFC 5961 4.2", {"ack"}, GOES_ON
    if event == "data without ACK":
        return "RFC 9293 3.10.7.4 fifth", {"none"} | ({"ack"} if waits else set()), GOES_ON
    if event == "ACK above what was sent":
        return "RFC 9293 3.10.7.4 fifth", {"rst"} if half_open else {"ack"} | ({"none"} if waits else set()), GOES_ON
    if event == "ACK below the window":
        return "RFC 5961 5.2", {"rst"} if half_open else {"ack"} | ({"none"} if waits else set()), GOES_ON
    if "above the window" in event or "below the window" in event:
        return "RFC 9293 3.10.7.4 first", {"ack"} | ({"synack"} if half_open else set()), GOES_ON
    if event == "FIN again":
        return "RFC 9293 3.10.7.4 first", {"ack"} | ({"synack"} if half_open else set()), GOES_ON
    if event == "FIN":
        if fin_seen:  # a second FIN after the first: there is nothing left to say
            return "RFC 9293 3.10.7.4 eighth", {"ack", "none"}, GOES_ON
        return "RFC 9293 3.10.7.4 eighth", {"taken"}, EITHER
    # Data in the window, urgent or not.
    if fin_seen:
        return "RFC 9293 3.10.7.4 seventh", {"ack", "none"}, GOES_ON
    if state.startswith("FIN-WAIT"):
        # The application has closed: to take and forget, or to reset (3.6.1).
        return "RFC 9293 3.10.7.4 seventh", {"taken", "rst"}, EITHER
    return "RFC 9293 3.10.7.4 seventh", {"taken"}, GOES_ON


def known(peer, seg):
    """A retransmission of what was there before, or a probe of a shut window: these come by the clock, not for the event."""
    if seg.space and (seg.seq, seg.space) in peer.seen and not seg.flags & SYN:
        return True
    return peer.window == 0 and len(seg.data) <= 1 and not seg.flags & (RST | FIN) and (seg.data or distance(seg.seq, peer.rcv) < 0)


def classify(peer, seg):
    if seg.flags & RST:
        return "rst"
    if seg.flags & SYN:
        return "synack"
    if seg.flags & ACK and distance(seg.ack, peer.snd) > 0:
        return "taken"
    if seg.flags & ACK and seg.ack == peer.snd and seg.seq == peer.rcv and not seg.space:
        return "ack"
    return f"something else: {seg}"


def after(peer, event, words):
    """What was taken is counted, so that the peer goes on in sequence."""
    if "taken" in words:
        if event == "FIN":
            peer.snd = plus(peer.snd, 1)
        else:
            peer.snd = plus(peer.snd, 4)
            peer.sent_of_header = 4


def run_cell(state, event):
    build, alive = STATES[state]
    section, allowed, then = rule(event, state)
    peer = build()
    peer.take()
    EVENTS[event](peer)
    if "taken" in allowed and "none" not in allowed:  # the ACK of data may be delayed (RFC 9293 3.8.6.3)
        seg = peer.hear(f"the ACK of it ({section})", lambda s: s.flags & RST or distance(s.ack, peer.snd) > 0 and not s.flags & SYN)
        said = [seg]
    else:
        said = [s for s in peer.settle() if not known(peer, s)]
    words = {classify(peer, s) for s in said} or {"none"}
    assert words <= allowed, f"{section}: it said {said}, which is {sorted(words)}; allowed is one of {sorted(allowed)}"
    assert len(said) <= 1 or event == "FIN", f"{section}: more than one answer: {said}"
    for seg in said:
        peer.note(seg)
        if seg.flags & RST and state == "SYN-RECEIVED":
            tap.equal(seg.ack if not seg.flags & ACK else None, 0, "the ack field of a reset that answers an ACK")
    after(peer, event, words)
    if then is GOES_ON:
        alive(peer)
    elif then is GONE:
        peer.is_gone()
    peer.kill()


def register_cells():
    for state in STATES:
        for event in EVENTS:
            if event == "FIN again" and state not in FIN_SEEN:
                continue
            section, allowed, then = rule(event, state)
            fate = {GOES_ON: "goes on", GONE: "is gone", EITHER: "is as it may be"}[then]
            tap.test(f"{state}, {event}: {' or '.join(sorted(allowed))}, and it {fate} ({section})", seconds=20)(
                lambda state=state, event=event: run_cell(state, event))


# ---------------------------------------------------------------- LISTEN and CLOSED: no connection yet

CLOSED_PORT = 1


def answered(port, flags, payload=b"", **more):
    peer = Peer(port)
    peer.send(flags, payload, **more)
    return peer, peer.settle()


def expect_reset(sentence, port, flags, payload=b"", **more):
    @tap.test(sentence, seconds=20)
    def check():
        peer, said = answered(port, flags, payload, **more)
        assert len(said) == 1 and said[0].flags & RST, f"wanted one reset, got {said}"
        if flags & ACK:
            tap.equal((said[0].seq, said[0].flags & ACK), (more.get("ack", 0), 0), "the reset's number and ACK bit")
        else:
            occupied = len(payload) + bool(flags & SYN) + bool(flags & FIN)
            tap.equal((said[0].seq, said[0].flags & ACK, said[0].ack), (0, ACK, plus(peer.snd, occupied)), "number, ACK bit and ack of the reset")


def expect_silence(sentence, port, flags, payload=b"", **more):
    @tap.test(sentence, seconds=20)
    def check():
        _peer, said = answered(port, flags, payload, **more)
        assert not said, f"wanted silence, got {said}"


expect_reset("CLOSED, SYN: a reset that acknowledges it (RFC 9293 3.10.7.1)", CLOSED_PORT, SYN)
expect_reset("CLOSED, SYN with data: the reset acknowledges all of it (RFC 9293 3.10.7.1)", CLOSED_PORT, SYN, b"12345")
expect_reset("CLOSED, FIN: a reset that acknowledges it (RFC 9293 3.10.7.1)", CLOSED_PORT, FIN)
expect_reset("CLOSED, ACK: a reset with the number that it acknowledges (RFC 9293 3.10.7.1)", CLOSED_PORT, ACK, ack=77777)
expect_reset("CLOSED, data with ACK: a reset with the number that it acknowledges (RFC 9293 3.10.7.1)", CLOSED_PORT, ACK | PSH, b"123", ack=88888)
expect_reset("CLOSED, SYN+ACK: a reset with the number that it acknowledges (RFC 9293 3.10.7.1)", CLOSED_PORT, SYN | ACK, ack=99999)
expect_silence("CLOSED, RST: silence (RFC 9293 3.10.7.1)", CLOSED_PORT, RST)
expect_silence("CLOSED, RST+ACK: silence (RFC 9293 3.10.7.1)", CLOSED_PORT, RST | ACK, ack=5)
expect_silence("CLOSED, SYN with a bad checksum: silence (RFC 9293 MUST-3)", CLOSED_PORT, SYN, chksum=0x4321)
expect_silence("CLOSED, SYN with a data offset below 5: silence (RFC 9293 3.1)", CLOSED_PORT, SYN, dataofs=3)
expect_reset("LISTEN, ACK: a reset with the number that it acknowledges (RFC 9293 3.10.7.2 second)", tap.PORT, ACK, ack=77777)
expect_reset("LISTEN, SYN+ACK: a reset with the number that it acknowledges (RFC 9293 3.10.7.2 second)", tap.PORT, SYN | ACK, ack=99999)
expect_reset("LISTEN, FIN+ACK: a reset with the number that it acknowledges (RFC 9293 3.10.7.2 second)", tap.PORT, FIN | ACK, ack=4242)
expect_silence("LISTEN, RST: silence (RFC 9293 3.10.7.2 first)", tap.PORT, RST)
expect_silence("LISTEN, SYN+RST: silence (RFC 9293 3.10.7.2 first)", tap.PORT, SYN | RST)
expect_silence("LISTEN, SYN with a bad checksum: silence (RFC 9293 MUST-3)", tap.PORT, SYN, chksum=0x4321)
expect_silence("LISTEN, SYN with a data offset below 5: silence (RFC 9293 3.1)", tap.PORT, SYN, dataofs=4)
expect_silence("LISTEN, SYN with a data offset beyond the segment: silence (RFC 9293 3.1)", tap.PORT, SYN, dataofs=12)
expect_silence("LISTEN, no flag at all: silence (RFC 9293 3.10.7.2 fourth)", tap.PORT, 0, b"data")
expect_silence("LISTEN, FIN without SYN or ACK: silence (RFC 9293 3.10.7.2 fourth)", tap.PORT, FIN)

register_cells()

if __name__ == "__main__":
    sys.exit(tap.main())
