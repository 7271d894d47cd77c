#!/usr/bin/python3
"""Our TCP against the Linux kernel's over a wire that loses frames: nftables drops them at the tap, both ways, by chance.

Whatever is lost, streams arrive whole and in order, connections open and close, and the losses are repaired by SACK and RACK rather
than by time-outs alone.
"""

import concurrent.futures
import hashlib
import random
import sys
import threading

import labs
import tap
import wire
from labs import Lab
from tap import equal, test

LOSSY = """
table netdev loss {{
	chain in {{ type filter hook ingress device tw0 priority 0; ip protocol tcp numgen random mod 1000 < {per_mille} counter drop
	}}
	chain out {{ type filter hook egress device tw0 priority 0; ip protocol tcp numgen random mod 1000 < {per_mille} counter drop
	}}
}}
"""


def lose(lab, per_mille):
    lab.run("nft", "flush", "ruleset")
    if per_mille:
        lab.run("nft", LOSSY.format(per_mille=per_mille))


def dropped(lab):
    rules = lab.run("nft", "list", "ruleset").stdout.split()
    return sum(int(rules[i + 1]) for i, word in enumerate(rules) if word == "packets")


def counters(lab):
    return lab.json("stats")["workers"][0]["counters"]


def consumer(queue, timeout):
    client = wire.Wire(timeout).login().open()
    client.declare(queue, 4)
    client.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
    return client


def there_and_back(client, queue, bodies):
    """Publishes while it consumes, so that data crosses both ways; what comes back must be what went."""
    sender = threading.Thread(target=lambda: [client.publish("", queue, body) for body in bodies], daemon=True)
    sender.start()
    for body in bodies:
        client.expect(60, 60, 1)
        equal(hashlib.sha256(client.read_content()[1]).hexdigest(), hashlib.sha256(body).hexdigest())
    sender.join()


@test("3 % of all frames lost: twelve bodies of 1 MiB cross both ways unharmed, most losses found by RACK", seconds=150)
def bulk():
    with Lab("bulk") as lab, lab.inside():
        dice = random.Random(5)
        client = consumer("bulk", 60.0)
        lose(lab, 30)
        there_and_back(client, "bulk", [dice.randbytes(1 << 20) for _ in range(12)])
        seen = counters(lab)
        assert dropped(lab) > 100, "nothing was lost: the test shows nothing"
        # What the egress hook drops the kernel may notice itself and send again in order: only the other way is sure to show holes.
        assert seen["tcp.sacks_in"] > 0, seen
        assert seen["tcp.retransmits_rack"] > seen["tcp.retransmits_rto"], seen
        lose(lab, 0)


@test("5 % lost: 3,000 small messages arrive once each and in order", seconds=150)
def small():
    with Lab("small") as lab, lab.inside():
        client = consumer("small", 60.0)
        lose(lab, 50)
        there_and_back(client, "small", [b"%06d" % number + b"x" * (number % 900) for number in range(3000)])
        assert dropped(lab) > 20
        lose(lab, 0)


@test("1 % lost: 1,000 connections are opened, used and closed, and every pool is empty again", seconds=150)
def many():
    def one(number):
        with wire.Wire(60.0).login().open() as client:
            queue = client.declare("", 4)[0]
            client.publish("", queue, b"%d" % number)
            client.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
            client.expect(60, 60, 1)
            equal(client.read_content()[1], b"%d" % number)
            client.send(wire.method(0, 10, 50, b"\0\xc8" + wire.shortstr("bye") + b"\0\0\0\0"))
            client.expect(10, 51, 0)
            equal(client.until_closed(), b"")

    with Lab("many") as lab:
        lab_thread = threading.local()

        def in_lab(number):
            if not getattr(lab_thread, "inside", None):
                lab_thread.inside = lab.inside()  # a pool's thread stays there: it makes nothing but these sockets
                lab_thread.inside.__enter__()
            one(number)

        lose(lab, 10)
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            list(pool.map(in_lab, range(1000)))
        lose(lab, 0)

        def idle():
            used = lab.json("status")["dataplane"]["pools"]
            return used["tcp_conns"]["used"] == 0 and used["tcp_blocks"]["used"] == 0 and used["queues"]["used"] == 0

        tap.until(idle, "empty pools", 70)


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
