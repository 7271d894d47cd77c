#!/usr/bin/python3
"""Crowds of clients that stall at once: subscribers that never read, publishers that nobody drains, peers that never log in.

Whatever they hold, one healthy publisher and its subscriber, a declaration and a log-in must go on as if they were not there.
"""

import os
import signal
import socket
import struct
import sys
import tempfile

import labs
import tap
import wire
from labs import Lab
from tap import equal, test, until

CROWD = 400
TICK = bytes(1000)


def bind(queue, exchange):
    return b"\0\0" + wire.shortstr(queue) + wire.shortstr(exchange) + wire.shortstr("") + b"\0" + wire.table()


def subscriber(queue, exchange=None, timeout=5.0):
    client = wire.Wire(timeout).login().open()
    client.declare(queue, 4)
    if exchange:
        client.call(1, 50, 20, bind(queue, exchange), 21)
    client.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
    return client


def take(client):
    client.expect(60, 60, 1)
    return client.read_content()[1]


def others_go_on(healthy):
    """A declaration on a connection that was there, and a stranger who comes, publishes to himself and goes."""
    healthy.declare("", 4)
    with subscriber("stranger") as stranger:
        stranger.publish("", "stranger", b"to myself")
        equal(take(stranger), b"to myself")
        stranger.send(wire.method(0, 10, 50, struct.pack(">H", 200) + wire.shortstr("bye") + b"\0\0\0\0"))
        stranger.expect(10, 51, 0)


@test(f"{CROWD} subscribers that never read stop neither the ticks of one that does, nor declarations, nor log-ins", seconds=120)
def stalled_subscribers():
    with Lab("crowd") as lab, lab.inside():
        crowd = [subscriber(f"stalled-{i}", "amq.fanout", 10.0) for i in range(CROWD)]
        healthy = subscriber("healthy", "amq.fanout")
        publisher = wire.Wire(5.0).login().open()
        for _ in range(2000):
            publisher.publish("amq.fanout", "", TICK)
            equal(take(healthy), TICK)
        others_go_on(publisher)
        for client in crowd:
            client.sock.close()
        others_go_on(publisher)
        # Each had its share of the blocks, and it comes back with the connection.
        until(lambda: blocks_in_use(lab) <= 4, "the blocks of the crowd")


def blocks_in_use(lab):
    text = labs.lab("exec", "--name", lab.name, "--", "tickctl", "status").stdout
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("tcp_blocks ")))


@test("300 publishers whose queue nobody drains are made to wait; all else goes on, and what waits arrives when it is consumed", seconds=120)
def blocked_publishers():
    with Lab("blocked", "--", "--messages-memory=16M", "--message-max=1M") as lab, lab.inside():
        reader = wire.Wire(10.0).login().open()
        reader.declare("full", 2)
        one = wire.method(1, 60, 40, wire.basic_publish("", "full")) + wire.header(1, len(TICK)) + wire.body(1, TICK)
        many = one * 100
        sent = {}
        for _ in range(300):
            client = wire.Wire(10.0).login().open()
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
            client.sock.setblocking(False)
            sent[client] = 0

        def nobody_can():
            moved = False
            for client in sent:
                try:
                    sent[client] += client.sock.send(many[sent[client] % len(one):])
                    moved = True
                except BlockingIOError:
                    pass
            nobody_can.rounds = 0 if moved else nobody_can.rounds + 1
            return nobody_can.rounds >= 50

        nobody_can.rounds = 0
        until(nobody_can, "a standstill of the publishers", 60)
        others_log_in(lab)
        # Consumed, the standstill dissolves, and what went into the sockets comes out, of publishers that have left as well.
        for client in list(sent)[::2]:
            client.sock.close()
        reader.call(1, 60, 20, wire.basic_consume("full", "", 2), 21)
        for _ in range(sum(count // len(one) for count in sent.values())):
            equal(take(reader), TICK)
        for client in list(sent)[1::2]:
            client.sock.close()
        others_go_on(reader)
        until(lambda: blocks_in_use(lab) <= 4, "the blocks of the crowd")


def others_log_in(lab):
    """Publishing has to wait, as for every broker whose memory is full; declaring, consuming and looking do not."""
    with wire.Wire(5.0).login().open() as stranger:
        stranger.declare("mine", 4)
        stranger.call(1, 60, 20, wire.basic_consume("mine", "", 2), 21)
        labs.lab("exec", "--name", lab.name, "--", "tickctl", "list_queues", "name", "messages")


@test("300 peers that send 256 KiB behind their credentials, with no control to judge them, disturb nobody", seconds=120)
def unknown_peers():
    with Lab("unknown") as lab, lab.inside():
        healthy = subscriber("healthy")
        os.kill(lab.pid("control"), signal.SIGKILL)
        crowd = []
        for _ in range(300):
            peer = wire.Wire(5.0)
            peer.start()
            peer.start_ok()
            peer.sock.setblocking(False)
            try:
                while True:
                    peer.sock.send(bytes(65536))
            except BlockingIOError:
                pass
            crowd.append(peer)
        for _ in range(500):
            healthy.publish("", "healthy", TICK)
            equal(take(healthy), TICK)
        for peer in crowd:
            peer.sock.close()
        lab.restart("control")
        others_go_on(healthy)


FULL_STORE = """
[control]
store_bytes = 1M
[user guest]
password = guest
tags = administrator
vhosts = /
[dataplane]
log-level = info
"""


@test("a definitions store that three clients fill refuses each further one with 506, and neither the link nor anybody else suffers", seconds=120)
def full_store():
    long = wire.longstr(wire.shortstr("foo") + b"S" + wire.longstr(b"y" * 2000))
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
        config.write(FULL_STORE)
        config.flush()
        with Lab("full", "--config", config.name) as lab, lab.inside():
            healthy = subscriber("healthy")
            stored, refused = [], 0
            hogs = [wire.Wire(10.0).login().open() for _ in range(3)]
            for number in range(1500):
                hog = hogs[number % len(hogs)]
                hog.send(wire.method(1, 50, 10, wire.queue_declare(f"hog-{number}", 2, long)))
                _channel, class_id, method_id, arguments = hog.read_method()
                if (class_id, method_id) == (50, 11):
                    stored.append(f"hog-{number}")
                    continue
                # 506 is an error of the connection (specification, 1.1 constants): the hog comes again.
                equal((class_id, method_id, struct.unpack(">H", arguments[:2])[0]), (10, 50, 506), str(arguments))
                assert b"store" in arguments, arguments
                refused += 1
                hog.sock.close()
                hogs[number % len(hogs)] = wire.Wire(10.0).login().open()
                if refused >= 60:
                    break
            assert len(stored) > 50 and refused >= 60, (len(stored), refused)
            healthy.publish("", "healthy", TICK)
            equal(take(healthy), TICK)
            others_go_on(healthy)
            log = labs.lab("logs", "--name", lab.name, "-n", "2000", "control").stdout
            equal(log.count("dataplane: attached"), 1, log[-1500:])
            assert "full" in log, log[-1500:]
            # Room comes back with what is deleted, and what was stored is there after a restart.
            for name in stored[:20]:
                hogs[0].call(1, 50, 40, b"\0\0" + wire.shortstr(name) + b"\0", 41)
            hogs[0].declare("again", 2)
            lab.restart("control")
            names = labs.lab("exec", "--name", lab.name, "--", "tickctl", "-q", "list_queues", "name").stdout.split()
            equal(sorted(n for n in names if n.startswith("hog-")), sorted(stored[20:]))
            assert "again" in names, names


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
