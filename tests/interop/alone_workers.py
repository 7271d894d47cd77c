#!/usr/bin/python3
"""Several workers: whatever one connection does with a queue that lives on another worker looks as if there were one.

The port's kernel spreads the connections; `tickctl list_connections` tells which worker each is on.
"""

import json
import struct
import sys

import labs
import tap
import wire
from labs import Lab
from tap import equal, test, until

EXCLUSIVE_CONSUMER, NO_ACK = 4, 2


def tickctl(lab, *command):
    done = labs.lab("exec", "--name", lab.name, "--", "tickctl", "--formatter", "json", *command)
    return json.loads(done.stdout)


def by_worker(lab, count, most=48):
    """One connection on each of `count` workers, with channel 1 open."""
    clients = []
    with lab.inside():
        for _ in range(most):
            clients.append(wire.Wire(20.0).login().open())
    ports = {client.sock.getsockname()[1]: client for client in clients}

    def told():
        rows = tickctl(lab, "list_connections", "peer_port", "rx_queue")
        found = {row["rx_queue"]: ports[row["peer_port"]] for row in rows if row["peer_port"] in ports}
        return found if len(rows) >= len(ports) else None

    found = until(told, "the rows of all connections")
    equal(len(found), count, "workers that have connections")
    for client in clients:
        if client not in found.values():
            client.sock.close()
    return [found[worker] for worker in sorted(found)]


def consume(client, queue, tag, bits=0, channel=1):
    client.call(channel, 60, 20, wire.basic_consume(queue, tag, bits), 21)


def take(client):
    """(delivery tag, redelivered, body) of the next delivery."""
    arguments = client.expect(60, 60)
    at = 1 + arguments[0]
    tag, redelivered = struct.unpack(">QB", arguments[at : at + 9])
    return tag, redelivered, client.read_content()[1]


def ack(client, tag, multiple=0, channel=1):
    client.send(wire.method(channel, 60, 80, struct.pack(">QB", tag, multiple)))


def get(client, queue, no_ack=0):
    """(delivery tag, redelivered, messages left, body), or None."""
    client.send(wire.method(1, 60, 70, b"\0\0" + wire.shortstr(queue) + bytes([no_ack])))
    _channel, _class, method, arguments = client.read_method()
    if method == 72:
        return None
    equal(method, 71, "the answer to basic.get")
    tag, redelivered = struct.unpack(">QB", arguments[:9])
    return tag, redelivered, struct.unpack(">I", arguments[-4:])[0], client.read_content()[1]


def confirm_select(client):
    client.call(1, 85, 10, b"\0", 11)


def at_home_and_away(lab, home, away, name):
    """One queue of `home`, used from `away`."""
    equal(home.declare(name), (name, 0, 0), "declare-ok at home")
    for i in range(5):
        away.publish("", name, b"%d" % i)
    until(lambda: away.declare(name, 1)[1] == 5, "five messages counted from away")
    tag, redelivered, left, text = get(away, name)
    equal((redelivered, left, text), (0, 4, b"0"), "basic.get away")
    away.send(wire.method(1, 60, 90, struct.pack(">QB", tag, 1)))  # reject, requeue
    tag, redelivered, left, text = until(lambda: get(away, name), "the requeued message")
    equal((redelivered, left, text), (1, 4, b"0"), "basic.get after a requeue")
    ack(away, tag)
    consume(away, name, "away")
    for i in range(1, 5):
        tag, redelivered, text = take(away)
        equal((redelivered, text), (0, b"%d" % i), "the order away")
    ack(away, tag, 1)
    equal(home.declare(name, 1)[2], 1, "consumers counted at home")
    away.call(1, 60, 30, wire.shortstr("away") + b"\0", 31)
    equal(get(away, name), None, "basic.get of an empty queue")
    for i in range(7):
        home.publish("", name, b"x")
    until(lambda: away.declare(name, 1)[1] == 7, "seven messages counted from away")
    purged = away.call(1, 50, 30, b"\0\0" + wire.shortstr(name) + b"\0", 31)
    equal(struct.unpack(">I", purged)[0], 7, "messages purged from away")
    deleted = away.call(1, 50, 40, b"\0\0" + wire.shortstr(name) + b"\0", 41)
    equal(struct.unpack(">I", deleted)[0], 0, "messages deleted from away")


@test("get, requeue, consume, cancel, counts, purge and delete reach a queue of another worker", seconds=90)
def methods_away():
    with Lab("workers", "--workers", "2") as lab:
        one, two = by_worker(lab, 2)
        at_home_and_away(lab, one, two, "of-one")
        at_home_and_away(lab, two, one, "of-two")


@test("a lost connection's deliveries come back redelivered and in order, those it never saw do not bear the mark", seconds=90)
def lost_connection():
    with Lab("workers", "--workers", "2") as lab:
        one, two = by_worker(lab, 2)
        one.declare("work")
        two.call(1, 60, 10, struct.pack(">IHB", 0, 3, 0), 11)  # three at most
        consume(two, "work", "lost")
        for i in range(10):
            one.publish("", "work", b"%d" % i)
        equal([take(two)[2] for _ in range(3)], [b"0", b"1", b"2"], "what came before the loss")
        two.sock.close()
        until(lambda: one.declare("work", 1)[2] == 0, "the end of the lost consumer")
        consume(one, "work", "next")
        equal([take(one)[1:] for _ in range(10)], [(int(i < 3), b"%d" % i) for i in range(10)], "what comes back")


@test("exclusive consumers, if-unused and if-empty hold across workers, and a full queue that refuses has the last word on a confirm", seconds=90)
def rules_away():
    with Lab("workers", "--workers", "2") as lab:
        one, two = by_worker(lab, 2)
        one.declare("mine")
        consume(two, "mine", "all", EXCLUSIVE_CONSUMER)
        one.open(2)
        one.send(wire.method(2, 60, 20, wire.basic_consume("mine", "more", 0)))
        equal(one.close_reply()[2], 403, "a second consumer beside an exclusive one")
        one.send(wire.method(2, 20, 41, b""))
        two.open(2)
        two.send(wire.method(2, 50, 40, b"\0\0" + wire.shortstr("mine") + b"\1"))
        equal(two.close_reply()[2], 406, "if-unused of a queue in use")
        two.send(wire.method(2, 20, 41, b""))
        limits = wire.table([("x-max-length", b"I" + struct.pack(">i", 1)), ("x-overflow", b"S" + wire.longstr(b"reject-publish"))])
        one.call(1, 50, 10, b"\0\0" + wire.shortstr("full") + b"\0" + limits, 11)
        confirm_select(two)
        for number, wanted in ((1, 80), (2, 120), (3, 120)):
            two.publish("", "full", b"x")
            _channel, _class, method, arguments = two.read_method()
            equal((method, struct.unpack(">Q", arguments[:8])[0]), (wanted, number), "the verdict on a publish")


@test("four workers: every tick of every publisher reaches every subscriber once and in its publisher's order", seconds=150)
def fan_out():
    ticks = 300
    with Lab("workers", "--workers", "4", "--", "--messages-memory", "64M", "--queues", "2048", "--connections", "512") as lab:
        clients = by_worker(lab, 4)
        for number, client in enumerate(clients):
            name = client.declare(f"fan-{number}", 4)[0]
            client.call(1, 50, 20, b"\0\0" + wire.shortstr(name) + wire.shortstr("amq.fanout") + wire.shortstr("") + b"\0" + wire.table(), 21)
            consume(client, name, "", NO_ACK)
        for i in range(ticks):
            for number, client in enumerate(clients):
                client.publish("amq.fanout", "", b"%d %d" % (number, i))
        for client in clients:
            last = {}
            for _ in range(ticks * len(clients)):
                number, i = map(int, take(client)[2].split())
                equal(i, last.get(number, -1) + 1, f"the next tick of publisher {number}")
                last[number] = i
        counters = [worker["counters"] for worker in tickctl(lab, "stats")["workers"]]
        equal(len(counters), 4, "workers in the statistics")
        until(lambda: all(w["counters"]["amqp.publishes_forwarded"] >= 3 * ticks for w in tickctl(lab, "stats")["workers"]), "one note a remote worker and message")
        for worker in tickctl(lab, "stats")["workers"]:
            equal(worker["counters"]["amqp.publishes_forwarded"], 3 * ticks, "notes of a worker with three others")


@test("start tells where the memory of each worker lies", seconds=60)
def memory():
    with Lab("workers", "--workers", "2") as lab:
        log = labs.lab("logs", "--name", lab.name).stdout
        for worker in range(2):
            for what in (f"worker {worker}", f"mail of worker {worker}"):
                assert f"memory: {what} has" in log and "on NUMA node" in log, f"no line about {what}: {log}"


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
