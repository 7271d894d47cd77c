#!/usr/bin/python3
"""A SYN flood over the tap: 200,000 SYNs from addresses of 198.18.0.0/15, as fast as a raw socket takes them, while honest clients come.

The honest connect with the kernel's own TCP and want the broker's first frame. Afterwards the pools are where they were.
"""

import os
import random
import socket
import struct
import sys
import threading
import time

import tap
import wire
from labs import BROKER, Lab
from tap import equal, test, until

SYNS, HONEST_LEAST, GOOD_PERCENT = 200_000, 200, 99
NETDEV, FLOODER_MAC = "tw0", bytes.fromhex("0254570000f1")


def fold(number):
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    return number


class Flood:
    """Frames differ in address, port and number; the checksums are carried along."""

    def __init__(self, dice):
        self.dice = dice
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.sock.bind((NETDEV, 0))
        self.broker_mac = self._broker_mac()
        self.sent = 0
        self.to = struct.unpack(">HH", socket.inet_aton(BROKER))

    def _broker_mac(self):
        with wire.Wire() as client:  # fills the kernel's neighbour table
            client.start()
        for line in open("/proc/net/arp"):
            fields = line.split()
            if fields[0] == BROKER:
                return bytes.fromhex(fields[3].replace(":", ""))
        raise AssertionError("the kernel does not know the broker's address")

    def frame(self):
        source = (198 << 24 | 18 << 16) + self.dice.randrange(1 << 17)
        port, seq = self.dice.randrange(1024, 65536), self.dice.getrandbits(32)
        high, low = source >> 16, source & 0xFFFF
        ip_sum = 0xFFFF ^ fold(0x4500 + 44 + 0x4000 + 0x4006 + high + low + sum(self.to))
        tcp_sum = 0xFFFF ^ fold(6 + 24 + high + low + sum(self.to) + port + 5672 + (seq >> 16) + (seq & 0xFFFF) + 0x6002 + 65535 + 0x0204 + 1460)
        return self.broker_mac + FLOODER_MAC + struct.pack(">HHHHHHHIHHHHIIHHHHHH", 0x0800, 0x4500, 44, 0, 0x4000, 0x4006, ip_sum, source, *self.to,
                                                           port, 5672, seq, 0, 0x6002, 65535, tcp_sum, 0, 0x0204, 1460)

    def run(self, count):
        for _ in range(count):
            try:
                self.sock.send(self.frame())
            except OSError as error:  # the tap is full: that is the flood at its best
                if error.errno != 105:
                    raise
            self.sent += 1


def status(lab):
    rows = (line.split() for line in lab.tickctl("status").stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) >= 2}


def pools(lab):
    """What a flood might fill; TIME-WAIT is left out, since honest connections end there by the clock."""
    now = status(lab)
    return {name: int(now[name]) for name in ("tcp_conns", "tcp_half_open", "tcp_blocks", "tcp_refs", "conns")}


def counter(lab, name):
    for line in lab.tickctl("stats", "--all").stdout.splitlines():
        fields = line.split()
        if fields[:1] == [name]:
            return int(fields[1])
    raise AssertionError(f"tickctl stats has no {name}")


def honest(outcome, over):
    """Clients one after the other, each of them through to connection.start, until the flood is over."""
    while not over.is_set() or outcome["tried"] < HONEST_LEAST:
        outcome["tried"] += 1
        try:
            with wire.Wire(timeout=10.0) as client:
                client.start()
            outcome["good"] += 1
        except (OSError, wire.Closed) as error:
            outcome["last"] = repr(error)


@test(f"{SYNS} SYNs that nobody follows up: at least {GOOD_PERCENT} % of honest clients get in, and the pools return (RFC 4987)", seconds=150)
def flood():
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"# seed {seed}", flush=True)
    with Lab("flood") as lab, lab.inside():
        attack = Flood(random.Random(seed))
        empty = dict.fromkeys(pools(lab), 0)
        until(lambda: pools(lab) == empty, "empty pools")
        came_before = counter(lab, "tcp.syns_in")
        over, outcome = threading.Event(), {"tried": 0, "good": 0}
        crowd = threading.Thread(target=honest, args=(outcome, over), daemon=True)
        began = time.monotonic()
        crowd.start()
        attack.run(SYNS)
        over.set()
        crowd.join(100)
        print(f"# {attack.sent} SYNs in {time.monotonic() - began:.1f} s; {outcome}", flush=True)
        assert not crowd.is_alive(), f"the honest did not get through: {outcome}"
        arrived = counter(lab, "tcp.syns_in") - came_before
        print(f"# {arrived} SYNs came to the stack", flush=True)
        assert arrived >= SYNS // 2, f"the tap let only {arrived} SYNs through"
        assert outcome["good"] * 100 >= outcome["tried"] * GOOD_PERCENT, outcome
        deadline = time.monotonic() + 100
        while pools(lab) != empty:
            assert time.monotonic() < deadline, f"the pools are not empty: {pools(lab)}"
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
