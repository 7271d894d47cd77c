#!/usr/bin/python3
"""Rules that the broker does not keep yet: `make test` leaves pending_* out. What is mended moves to test_tcp_rules.py."""

import sys

import tap
from segments import ACK, HEADER, PSH, RST, Peer, mss, options
from tap import test


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
