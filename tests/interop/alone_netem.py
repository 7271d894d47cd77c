#!/usr/bin/python3
"""Our TCP against the Linux kernel's across a router that loses, delays, duplicates and reorders, both ways (netem.py).

Whatever the wire does, streams arrive whole and in order, connections open and close, and repairs come from SACK and RACK rather than
from time-outs. The same bytes also go between two Linux kernels over the same wire; how long each took is printed, not judged.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import random
import signal
import socket
import sys
import time

import labs
import netem
import tap
import wire
from tap import equal, test

MIB = 1 << 20
LINUX, LINUX_PORT = "198.18.0.1", 5673
CHUNK = 256 << 10
CONNECTIONS, HANDS = 1000, 100
PATIENCE = 30.0


class Bench:
    """One lab and one router for all tests: both take seconds to start. Made by the first test that needs it."""

    undo = contextlib.ExitStack()
    lab = router = None
    begun = {}

    @classmethod
    def ready(cls):
        reason = netem.missing()
        if reason:
            raise tap.Skip(reason)
        if cls.router is None:
            cls.lab = cls.undo.enter_context(labs.Lab("netem", "--", "--gateway", LINUX))
            # The worker's core is the last one (tools/lab): what else runs here keeps off it.
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:-1] or os.sched_getaffinity(0))
            cls.router = cls.undo.enter_context(netem.Router(cls.lab.inside))
            cls.begun = cls.counters()
        return cls

    @classmethod
    def counters(cls):
        return cls.lab.json("stats")["workers"][0]["counters"]

    @classmethod
    def since(cls, before):
        """What TCP has counted since, without the zeroes."""
        now = cls.counters()
        return {name[4:]: now[name] - before[name] for name in now if name.startswith("tcp.") and now[name] != before[name]}


@contextlib.contextmanager
def spoilt(profile):
    """The thread is with the far client, and the wire between is as bad as the profile says."""
    bench = Bench.ready()
    bench.router.impair(profile)
    before = bench.counters()
    try:
        with bench.router.far():
            yield bench, before
    finally:
        bench.router.impair("")


def tell(text):
    print(f"# {text}", flush=True)


def told(seen):
    names = ("segments_in", "segments_out", "recoveries", "retransmits_rack", "retransmits_tlp", "retransmits_rto", "rto_expired",
             "undone_recoveries", "undone_timeouts", "sacks_in", "sacks_out", "dsacks_in", "dsacks_out", "out_of_order", "duplicates")
    return ", ".join(f"{name} {seen.get(name, 0)}" for name in names)


def some(seen, *names):
    for name in names:
        assert seen.get(name, 0) > 0, f"{name} is nought: {told(seen)}"


def digest(bodies):
    return [hashlib.sha256(body).hexdigest() for body in bodies]


def open_channel():
    return wire.Wire(PATIENCE).login().open()


def consume(client, queue):
    client.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)


def take(client, count):
    taken = []
    for _ in range(count):
        client.expect(60, 60, 1)
        taken.append(client.read_content()[1])
    return taken


def through_broker(name, bodies):
    """Up, then down, each alone on the wire: (seconds up, seconds down)."""
    with open_channel() as client:
        queue = client.declare(tap.unique(name), 4)[0]
        began = time.monotonic()
        for body in bodies:
            client.publish("", queue, body)
        equal(client.declare(queue, 1)[1], len(bodies), "messages in the queue")
        up = time.monotonic() - began
        began = time.monotonic()
        consume(client, queue)
        came = take(client, len(bodies))
        down = time.monotonic() - began
        equal(digest(came), digest(bodies), "what came back")
        client.call(1, 50, 40, b"\0\0" + wire.shortstr(queue) + b"\0", 41)
        client.close()
    return up, down


def whole(sock, size):
    data = bytearray()
    while len(data) < size:
        more = sock.recv(65536)
        assert more, f"the peer closed after {len(data)} of {size} bytes"
        data += more
    return bytes(data)


def serve_once(listener, size):
    """A Linux peer: it takes so many bytes, says the word, and gives them back when it hears the word."""
    with listener, listener.accept()[0] as peer:
        peer.settimeout(PATIENCE)
        data = whole(peer, size)
        peer.sendall(b"!")
        whole(peer, 1)
        peer.sendall(data)


def through_linux(bodies):
    """The same bytes to the lab's own kernel, in place of the broker and over the same wire."""
    data = b"".join(bodies)
    with Bench.lab.inside():
        listener = socket.create_server((LINUX, LINUX_PORT))
    listener.settimeout(PATIENCE)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve_once, listener, len(data))
        with socket.create_connection((LINUX, LINUX_PORT), timeout=PATIENCE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.monotonic()
            sock.sendall(data)
            whole(sock, 1)
            up = time.monotonic() - began
            began = time.monotonic()
            sock.sendall(b"!")
            came = whole(sock, len(data))
            down = time.monotonic() - began
        served.result()
    equal(digest([came]), digest([data]), "what Linux gave back")
    return up, down


def bulk(name, profile, size):
    dice = random.Random(size)
    bodies = [dice.randbytes(CHUNK) for _ in range(size // CHUNK)]
    with spoilt(profile) as (bench, before):
        up, down = through_broker(name, bodies)
        seen, lost = bench.since(before), bench.router.dropped()
        linux_up, linux_down = through_linux(bodies)
    tell(f"{size // 1024} KiB, broker: up {up:.1f} s, down {down:.1f} s; Linux: up {linux_up:.1f} s, down {linux_down:.1f} s; "
         f"ratio up {up / linux_up:.2f}, down {down / linux_down:.2f}")
    tell(f"{lost} frames lost; {told(seen)}")
    some(seen, "sacks_in", "sacks_out", "out_of_order")
    if "loss" in profile:
        assert lost > 0, "nothing was lost: the test shows nothing"
        some(seen, "retransmits_rack")
    else:
        equal(lost, 0, "frames lost")
    if "duplicate" in profile:
        some(seen, "dsacks_in", "dsacks_out")


@test("1 % lost, 1 ms: 8 MiB up and 8 MiB down arrive unharmed", seconds=60)
def bulk_near():
    bulk("near", "delay 1ms 200us loss 1% duplicate 1%", 8 * MIB)


@test("3 % lost, 10 ms, a tenth reordered, 1 % twice: 1 MiB each way arrives unharmed", seconds=60)
def bulk_middle():
    bulk("middle", "delay 10ms 1ms loss 3% duplicate 1% reorder 10%", MIB)


@test("1 % lost, 50 ms, a quarter reordered, 1 % twice: 512 KiB each way arrive unharmed", seconds=60)
def bulk_far():
    bulk("far", "delay 50ms 5ms loss 1% duplicate 1% reorder 25%", MIB // 2)


@test("5 % lost, 1 ms, a quarter reordered, 1 % twice: 2 MiB each way arrive unharmed", seconds=60)
def bulk_worst():
    bulk("worst", "delay 1ms 500us loss 5% duplicate 1% reorder 25%", 2 * MIB)


@test("nothing lost, 10 ms, a quarter reordered: 1 MiB each way arrives unharmed", seconds=60)
def disorder():
    bulk("disorder", "delay 10ms reorder 25%", MIB)


def small(name, profile, count):
    """Messages go up while they come down, so that both ends have data and acknowledgements in one segment."""
    bodies = [b"%06d" % number + b"x" * (number % 700) for number in range(count)]
    with spoilt(profile) as (bench, before):
        with open_channel() as client:
            queue = client.declare(tap.unique(name), 4)[0]
            consume(client, queue)
            began = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                sent = pool.submit(lambda: [client.publish("", queue, body) for body in bodies])
                came = take(client, count)
                sent.result()
            seconds = time.monotonic() - began
            equal([body[:6] for body in came], [body[:6] for body in bodies], "the order")
            equal(digest(came), digest(bodies), "what came")
            client.call(1, 50, 40, b"\0\0" + wire.shortstr(queue) + b"\0", 41)
            client.close()
        seen, lost = bench.since(before), bench.router.dropped()
    tell(f"{seconds:.1f} s; {lost} frames lost; {told(seen)}")
    some(seen, "sacks_in", "sacks_out", "out_of_order")


@test("5 % lost, 10 ms, a tenth reordered, 1 % twice: 2,000 small messages come once each and in order", seconds=60)
def small_worst():
    small("small", "delay 10ms 1ms loss 5% duplicate 1% reorder 10%", 2000)


@test("3 % lost, 50 ms, a quarter reordered, 1 % twice: 700 small messages come once each and in order", seconds=60)
def small_far():
    small("small-far", "delay 50ms 5ms loss 3% duplicate 1% reorder 25%", 700)


def use(client, number):
    queue = client.declare("", 2 | 8)[0]
    client.publish("", queue, b"%d" % number)
    consume(client, queue)
    equal(take(client, 1), [b"%d" % number], "what came")


@test("1 % lost, 10 ms, a tenth reordered, 1 % twice: 1,000 connections open together, are used, and close", seconds=60)
def many():
    marks = [time.monotonic()]
    with spoilt("delay 10ms 1ms loss 1% duplicate 1% reorder 10%") as (bench, before), contextlib.ExitStack() as sockets:
        with concurrent.futures.ThreadPoolExecutor(HANDS) as pool:
            clients = list(pool.map(lambda _: open_channel(), range(CONNECTIONS)))
            for client in clients:
                sockets.enter_context(client)
            marks.append(time.monotonic())
            equal(bench.counters()["pool.tcp_conns"], CONNECTIONS, "connections in the stack")
            list(pool.map(use, clients, range(CONNECTIONS)))
            marks.append(time.monotonic())
            list(pool.map(lambda client: client.close(), clients))
            marks.append(time.monotonic())
        seen, lost = bench.since(before), bench.router.dropped()
    tell("opened in {:.1f} s, used in {:.1f} s, closed in {:.1f} s".format(*(b - a for a, b in zip(marks, marks[1:]))) +
         f"; {lost} frames lost; SYN-ACKs resent {seen.get('retransmits_syn', 0)}; {told(seen)}")
    assert lost > 50, "hardly anything was lost: the test shows nothing"
    assert seen.get("accepted", 0) >= CONNECTIONS, seen


@test("in all this RACK repaired more than time-outs did, no segment was found damaged, and every pool is empty again", seconds=60)
def after_all():
    bench = Bench.ready()

    def idle():
        used = bench.lab.json("status")["dataplane"]["pools"]
        return all(used[pool]["used"] == 0 for pool in ("tcp_conns", "tcp_blocks", "tcp_refs", "conns", "channels", "consumers", "queues", "messages"))

    tap.until(idle, "empty pools", 50)
    seen = bench.since(bench.begun)
    tell(f"in all: {told(seen)}")
    assert seen.get("retransmits_rack", 0) > seen.get("retransmits_rto", 0), told(seen)
    for name in ("drop_bad_tcp_cksum", "drop_bad_ip_cksum", "drop_bad_tcp_options", "closed_timeout", "closed_no_buffers", "no_blocks"):
        equal(seen.get(name, 0), 0, name)


def main():
    try:
        return tap.main(needs_broker=False)
    finally:
        # A second Ctrl-C must not keep the first from taking everything down.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        Bench.undo.close()


if __name__ == "__main__":
    sys.exit(main())
