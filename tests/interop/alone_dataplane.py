#!/usr/bin/python3
"""The dataplane's promises seen from outside: no allocation on the worker after start, wrong options refused with a sentence and
the right status, and what idle connections cost."""

import os
import pathlib
import stat
import struct
import subprocess
import sys
import tempfile

import labs
import tap
import wire
from labs import ROOT, Lab
from tap import equal, test, until

BUILD = pathlib.Path(os.environ.get("TICKWIRE_BUILD", ROOT / "build"))
PROGRAM = BUILD / "bin" / "tickwire-dataplane"
COUNTER = BUILD / "interop" / "malloc_count.so"
IDLE_CONNECTIONS = 200
IDLE_BOUND_BYTES = 32768
BODY_SIZES = (1, 1400, 1537, 1900, 4001, 20_000, 100_001, 100_002, 131_064, 131_065, 400_003)


def counted_programs(folder, counts):
    """A folder of the programs in which the dataplane runs under the allocation counter."""
    for program in (BUILD / "bin").iterdir():
        if program.name != PROGRAM.name:
            os.symlink(program, folder / program.name)
    wrapper = folder / PROGRAM.name
    wrapper.write_text(f'#!/bin/sh\nLD_PRELOAD={COUNTER} MALLOC_COUNT_FILE={counts} exec {PROGRAM} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)


def worker_counts(pid, counts):
    """(allocations, frees) of the worker's thread; None while the file names no thread at all."""
    workers = [
        int(thread.name) for thread in pathlib.Path(f"/proc/{pid}/task").iterdir() if (thread / "comm").read_text().startswith("dp-worker-")
    ]
    equal(len(workers), 1, "threads called dp-worker-")
    slots = {tid: (allocs, frees) for tid, allocs, frees, _ in struct.iter_unpack("<QQQQ", counts.read_bytes()) if tid}
    assert pid in slots and slots[pid][0] > 0, f"the counter saw nothing of the main thread: {slots}"
    return slots.get(workers[0], (0, 0))


def work(client, ticks, word):
    """Ticks and declarations: whatever the worker does for them."""
    queue = client.declare("", 4)[0]
    client.call(1, 50, 20, b"\0\0" + wire.shortstr(queue) + wire.shortstr("amq.topic") + wire.shortstr(word + ".*.#") + b"\0" + wire.table(), 21)
    client.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
    for number in range(ticks):
        client.publish("amq.topic", f"{word}.b.{number % 7}", b"x" * (1 + number * 37 % 5000))
        client.expect(60, 60, 1)
        client.read_content()


@test("the worker neither allocates nor frees after its start, under connections, declarations and ticks", seconds=90)
def no_allocation():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        counts = folder / "counts"
        counted_programs(folder, counts)
        os.environ["TICKWIRE_BIN"] = name
        try:
            with Lab("malloc") as it:
                pid = it.pid("dataplane")
                with it.inside():
                    client = wire.Wire().login().open()
                before = worker_counts(pid, counts)
                work(client, 300, "first")
                with it.inside():
                    second = wire.Wire().login().open()
                work(second, 50, "second")
                second.close()
                client.close()
                after = worker_counts(pid, counts)
                equal(after, before, "allocations and frees of the worker")
        finally:
            del os.environ["TICKWIRE_BIN"]


WRONG = [
    (["--", "--no-such-option"], 64, "no-such-option"),
    (["--", "--ip", "198.18.0.2"], 64, "/"),
    (["--", "--ip", "300.1.1.1/24"], 64, "300.1.1.1"),
    (["--", "--ip", "198.18.0.2/24", "--amqp-port", "0"], 64, "amqp-port"),
    (["--", "--ip", "198.18.0.2/24", "--idle", "sometimes"], 64, "idle"),
    (["--", "--ip", "198.18.0.2/24", "--config", "/no/such/file"], 78, "/no/such/file"),
    (["--no-huge", "-m", "256", "--no-pci", "--lcores", "0,1", "--", "--ip", "198.18.0.2/24", "--workers", "2", "--socket", "/tmp/tickwire-none.sock"], 78, "worker"),
    (["--no-huge", "-m", "256", "--no-pci", "--lcores", "0,1", "--", "--ip", "198.18.0.2/24", "--socket", "/tmp/tickwire-none.sock"], 78, "port"),
]


@test("a wrong option is refused with a sentence that names it, and 64 or 78", seconds=90)
def options():
    for arguments, status, word in WRONG:
        done = subprocess.run([str(PROGRAM), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=30)
        equal(done.returncode, status, f"exit status of {' '.join(arguments)}: {done.stderr}")
        assert word in done.stderr, f"{' '.join(arguments)}: {done.stderr!r} does not say {word!r}"


def pools(it):
    return {name: pool["used"] for name, pool in it.json("status")["dataplane"]["pools"].items()}


@test("an idle connection with a channel costs at most 32 KiB: its fixed part by the libraries' sizes, the rest measured", seconds=90)
def idle_cost():
    fixed_text = subprocess.run([str(BUILD / "bench" / "idle_memory")], stdout=subprocess.PIPE, text=True, check=True).stdout
    fixed = int(fixed_text.split("fixed part ")[1].split()[0])
    with Lab("idle", "--", "--connections", "512", "--channels", "1024") as it:
        before = pools(it)
        with it.inside():
            clients = [wire.Wire().login().open() for _ in range(IDLE_CONNECTIONS)]
        until(lambda: pools(it)["conns"] == before["conns"] + IDLE_CONNECTIONS and pools(it)["tcp_blocks"] == 0, "idle connections")
        after = pools(it)
        held = (after["message_bytes"] - before["message_bytes"]) / IDLE_CONNECTIONS
        print(f"# idle connection: {fixed} bytes fixed, {held:.0f} bytes of the pool: {fixed + held:.0f}")
        assert fixed + held <= IDLE_BOUND_BYTES
        for client in clients:
            client.close()
        until(lambda: pools(it)["conns"] == before["conns"] and pools(it)["message_bytes"] == before["message_bytes"], "the baseline")


@test("with --tso on the port cuts long sends: bodies of 1 MiB arrive unharmed, in fewer frames than segments", seconds=90)
def segmentation_by_the_port():
    with Lab("tso", "--", "--tso", "on") as lab, lab.inside():
        with wire.Wire(20.0).login().open() as client:
            client.declare("long", 4)
            client.call(1, 60, 20, wire.basic_consume("long", "", 2), 21)
            for number in range(8):
                body = os.urandom((1 << 20) + number)
                client.publish("", "long", body)
                client.expect(60, 60, 1)
                assert client.read_content()[1] == body, f"body {number} came otherwise than it went"
            seen = lab.json("stats")["workers"][0]["counters"]
            assert seen["tcp.tso_frames"] > 100 and seen["port.tx_packets"] < seen["tcp.segments_out"] / 2, seen
            equal(seen["tcp.rto_expired"], 0, "time-outs")


@test("--tso on is refused (78) where the port cannot cut", seconds=60)
def no_segmentation():
    done = labs.lab("start", "--name", "no-tso", "--port", "net_af_packet", "--", "--tso", "on", status=None)
    labs.lab("stop", "--name", "no-tso")
    equal(done.returncode, 78, done.stderr)
    assert "--tso on" in done.stderr, done.stderr


def uncopied_bodies(port):
    """Bodies of many sizes, odd ones among them, to three consumers each: intact, sent as pieces, and nothing of them kept."""
    with Lab("pieces", "--port", port, "--", "--multi-segs", "on") as lab, lab.inside():
        counters = lambda: lab.json("stats")["workers"][0]["counters"]
        before = counters()
        consumers = [wire.Wire(20.0).login().open() for _ in range(3)]
        for consumer in consumers:
            queue = consumer.declare("", 4)[0]
            consumer.call(1, 50, 20, b"\0\0" + wire.shortstr(queue) + wire.shortstr("amq.fanout") + wire.shortstr("") + b"\0" + wire.table(), 21)
            consumer.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
        with wire.Wire(20.0).login().open() as publisher:
            for size in BODY_SIZES:
                body = os.urandom(size)
                publisher.publish("amq.fanout", "", body)
                for number, consumer in enumerate(consumers):
                    consumer.expect(60, 60, 1)
                    assert consumer.read_content()[1] == body, f"consumer {number} got another body of {size} bytes"
        for consumer in consumers:
            consumer.close()
        baseline = ("pool.messages", "pool.message_bytes", "pool.entries", "pool.tcp_refs", "pool.tcp_blocks", "pool.pieces")
        until(lambda: all(counters()[name] == before[name] for name in baseline), "the pools' baseline")
        seen = counters()
        assert seen["tcp.chain_bytes"] > 0.98 * 3 * sum(BODY_SIZES), seen


@test("with --multi-segs on large bodies go out from where they lie, over net_tap: they arrive unharmed, and no memory is kept", seconds=90)
def pieces_over_tap():
    uncopied_bodies("net_tap")


@test("... and over net_af_packet", seconds=90)
def pieces_over_af_packet():
    uncopied_bodies("net_af_packet")


@test("--multi-segs on is refused (78) where it would send garbage: over net_af_xdp, and over net_tap with --tso on", seconds=60)
def no_pieces():
    done = labs.lab("start", "--name", "no-pieces", "--port", "net_af_xdp", "--", "--multi-segs", "on", status=None)
    labs.lab("stop", "--name", "no-pieces")
    equal(done.returncode, 78, done.stderr)
    assert "--multi-segs on" in done.stderr, done.stderr
    # The lab would look for the tap's device, which is gone with the program at once: a namespace of its own does.
    with tempfile.TemporaryDirectory() as folder:
        line = ["unshare", "--net", PROGRAM, "--no-huge", "-m", "256", "--no-pci", "--no-shconf", "--lcores", "0,1", "--vdev=net_tap0,iface=tw0", "--",
                "--ip", "198.18.0.2/24", "--socket", f"{folder}/socket", "--tso", "on", "--multi-segs", "on"]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
    equal(done.returncode, 78, done.stderr)
    assert "leave --multi-segs on out" in done.stderr, done.stderr


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
