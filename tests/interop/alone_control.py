#!/usr/bin/python3
"""Control and its CLI beside a running dataplane: killed and started again without a lost tick or definition, columns and
exit codes as rabbitmqctl's, pools at their baseline after clients died in every way."""

import json
import os
import re
import signal
import socket
import struct
import sys
import threading

import tap
import ticker
import wire
from labs import Lab
from tap import equal, test, until
from wire import Wire, method

lab = None


def connect():
    with lab.inside():
        client = Wire()
    return client.login().open()


def bind(client, queue, exchange, key, arguments=b"\0\0\0\0"):
    client.call(1, 50, 20, b"\0\0" + wire.shortstr(queue) + wire.shortstr(exchange) + wire.shortstr(key) + b"\0" + arguments, 21)


def definitions():
    """All that control knows, in one order."""
    columns = {
        "list_exchanges": ["name", "type", "durable", "auto_delete", "internal", "arguments"],
        "list_queues": ["name", "durable", "auto_delete", "exclusive", "arguments", "consumers", "messages"],
        "list_bindings": ["source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"],
    }
    return {verb: sorted(lab.json(verb, *names), key=lambda row: json.dumps(row, sort_keys=True)) for verb, names in columns.items()}


def declare_some(client):
    """Definitions of each kind, durable and not, and a queue of every life span."""
    client.call(1, 40, 10, wire.exchange_declare("c.durable", "topic", 2), 11)
    client.call(1, 40, 10, wire.exchange_declare("c.transient", "headers", 0), 11)
    client.call(1, 40, 10, wire.exchange_declare("c.auto", "fanout", 4), 11)
    client.declare("c.q.durable", 2)
    client.declare("c.q.transient", 0)
    client.declare("c.q.exclusive", 4)
    client.declare("c.q.auto", 8)
    bind(client, "c.q.durable", "c.durable", "nyse.*.#")
    bind(client, "c.q.durable", "c.durable", "nyse.ibm")
    bind(client, "c.q.transient", "c.transient", "", wire.table([("x-match", b"S" + wire.longstr("all")), ("venue", b"S" + wire.longstr("lse"))]))
    bind(client, "c.q.exclusive", "c.auto", "")
    bind(client, "c.q.auto", "amq.direct", "direct")
    client.call(1, 40, 30, b"\0\0" + wire.shortstr("c.auto") + wire.shortstr("c.durable") + wire.shortstr("relay.#") + b"\0" + wire.table(), 31)


class Flow:
    """One publisher, one subscriber, sequence numbers at a steady rate through a topic wildcard, until told to end."""

    def __init__(self, ticks_per_s=1000):
        self.sender, self.receiver = connect(), connect()
        self.queue = self.receiver.declare("", 4)[0]
        bind(self.receiver, self.queue, "amq.topic", "flow.*")
        self.receiver.call(1, 60, 20, wire.basic_consume(self.queue, "", 2), 21)
        self.receiver.sock.settimeout(20)
        self.stop, self.sent, self.got, self.failure = threading.Event(), 0, 0, None
        self.moved = threading.Condition()
        self.threads = [threading.Thread(target=self._guard, args=(work,), daemon=True) for work in (self._send, self._receive)]
        self.pause = 1 / ticks_per_s
        for thread in self.threads:
            thread.start()

    def _guard(self, work):
        try:
            work()
        except Exception as error:
            with self.moved:
                self.failure = f"{work.__name__}: {error!r}"
                self.moved.notify_all()

    def _send(self):
        while not self.stop.wait(self.pause):
            self.sender.publish("amq.topic", "flow.tick", b"%d" % self.sent)
            self.sent += 1
        self.sender.publish("amq.topic", "flow.end", b"end")

    def _receive(self):
        while True:
            self.receiver.expect(60, 60, 1)
            text = self.receiver.read_content()[1]
            if text == b"end":
                return
            equal(text, b"%d" % self.got, "the next tick")
            with self.moved:
                self.got += 1
                self.moved.notify_all()

    def proof(self, ticks=200):
        with self.moved:
            wanted = self.got + ticks
            self.moved.wait_for(lambda: self.failure or self.got >= wanted, 20)
            assert not self.failure, self.failure
            assert self.got >= wanted, f"ticks stopped at {self.got}"

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(25)
        assert not self.failure, self.failure
        equal(self.got, self.sent, "ticks received of those sent")
        return self.sent


@test("control killed by SIGKILL while ticks flow costs no tick, and none while it is away", seconds=90)
def kill_control():
    flow = Flow()
    flow.proof()
    os.kill(lab.pid("control"), signal.SIGKILL)
    until(lambda: not lab.status()["processes"]["control"]["running"], "control's end")
    flow.proof(1000)
    equal(lab.tickctl("status", status=None).returncode, 69, "tickctl's exit status without control")
    lab.restart("control")
    flow.proof(1000)
    print(f"# {flow.end()} ticks")


@test("control started again knows every exchange, queue and binding, the transient and exclusive ones too", seconds=90)
def knows_again():
    client = connect()
    declare_some(client)
    before = definitions()
    for name in ("c.durable", "c.transient", "c.auto", "amq.topic"):
        assert any(row["name"] == name for row in before["list_exchanges"]), (name, before["list_exchanges"])
    for name in ("c.q.durable", "c.q.transient", "c.q.exclusive", "c.q.auto"):
        assert any(row["name"] == name for row in before["list_queues"]), (name, before["list_queues"])
    os.kill(lab.pid("control"), signal.SIGKILL)
    lab.restart("control")
    equal(definitions(), before, "definitions after the restart")
    # What is there is in force: routing, equivalence, and new declarations.
    client.publish("c.durable", "nyse.ibm.bid", b"routed")
    until(lambda: client.declare("c.q.durable", 2)[1] == 1, "the routed message")
    client.send(method(1, 50, 10, wire.queue_declare("c.q.transient", 2)))
    equal(client.close_reply()[2], 406, "a declaration otherwise")
    client.send(method(1, 20, 41))
    client.open()
    client.declare("c.q.new", 4)
    bind(client, "c.q.new", "c.durable", "later.*")
    client.publish("c.durable", "later.x", b"new")
    until(lambda: client.declare("c.q.new", 4)[1] == 1, "the message of the new binding")
    for queue in ("c.q.durable", "c.q.transient", "c.q.auto"):
        client.call(1, 50, 40, b"\0\0" + wire.shortstr(queue) + b"\0", 41)
    for exchange in ("c.durable", "c.transient"):
        client.call(1, 40, 20, b"\0\0" + wire.shortstr(exchange) + b"\0", 21)
    client.close()


@test("a declaration made while control is away waits, and is answered when it is back", seconds=60)
def waits():
    client = connect()
    os.kill(lab.pid("control"), signal.SIGKILL)
    until(lambda: not lab.status()["processes"]["control"]["running"], "control's end")
    client.send(method(1, 50, 10, wire.queue_declare("c.q.waited", 4)))
    lab.restart("control")
    equal(client.expect(50, 11, 1)[:11], wire.shortstr("c.q.waited"))
    client.close()


@test("what a client left while control was away is gone when it is back", seconds=60)
def left_meanwhile():
    client = connect()
    client.declare("c.q.left", 4)
    assert any(row["name"] == "c.q.left" for row in lab.json("list_queues", "name"))
    os.kill(lab.pid("control"), signal.SIGKILL)
    until(lambda: not lab.status()["processes"]["control"]["running"], "control's end")
    client.sock.close()
    lab.restart("control")
    until(lambda: not any(row["name"] == "c.q.left" for row in lab.json("list_queues", "name")), "the exclusive queue's end")


@test("list_queues, list_exchanges, list_bindings, list_consumers show what was declared under rabbitmqctl's column names")
def lists():
    client = connect()
    declare_some(client)
    client.call(1, 60, 20, wire.basic_consume("c.q.transient", "watcher", 0), 21)
    client.publish("", "c.q.durable", b"12345")
    client.publish("", "c.q.transient", b"123")
    client.expect(60, 60, 1)
    client.read_content()

    def queues():
        return {row["name"]: row for row in lab.json("list_queues", "name", "messages", "messages_ready", "messages_unacknowledged", "consumers",
                                                     "durable", "exclusive", "auto_delete")}

    def settled():
        rows = queues()
        return rows if rows["c.q.durable"]["messages"] == 1 and rows["c.q.transient"]["messages_unacknowledged"] == 1 else None

    rows = until(settled, "the counts of the queues")
    equal(rows["c.q.durable"], {"name": "c.q.durable", "messages": 1, "messages_ready": 1, "messages_unacknowledged": 0, "consumers": 0,
                                "durable": True, "exclusive": False, "auto_delete": False})
    equal(rows["c.q.transient"]["consumers"], 1)
    equal((rows["c.q.exclusive"]["exclusive"], rows["c.q.auto"]["auto_delete"]), (True, True))
    exchanges = {row["name"]: row["type"] for row in lab.json("list_exchanges", "name", "type")}
    wanted = {"": "direct", "amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic", "amq.headers": "headers", "amq.match": "headers",
              "c.durable": "topic", "c.transient": "headers", "c.auto": "fanout"}
    for name, kind in wanted.items():
        equal(exchanges.get(name), kind, f"type of exchange '{name}'")
    bindings = [(r["source_name"], r["destination_kind"], r["destination_name"], r["routing_key"])
                for r in lab.json("list_bindings", "source_name", "destination_kind", "destination_name", "routing_key")]
    for row in (("c.durable", "queue", "c.q.durable", "nyse.*.#"), ("c.durable", "exchange", "c.auto", "relay.#"), ("", "queue", "c.q.auto", "c.q.auto")):
        assert row in bindings, (row, bindings)
    until(lambda: any(row["queue_name"] == "c.q.transient" and row["consumer_tag"] == "watcher" and row["ack_required"] is True
                      for row in lab.json("list_consumers")), "the row of the consumer")
    for queue in ("c.q.durable", "c.q.transient", "c.q.auto"):
        client.call(1, 50, 40, b"\0\0" + wire.shortstr(queue) + b"\0", 41)
    for exchange in ("c.durable", "c.transient"):
        client.call(1, 40, 20, b"\0\0" + wire.shortstr(exchange) + b"\0", 21)
    client.close()


@test("names that no terminal likes are listed as they are: NUL and line feed escaped, UTF-8 whole")
def odd_names():
    client = connect()
    queue = client.declare("", 4)[0]
    keys = ["\0.é", "\n..", "x.é", "tab\t"]
    for key in keys:
        bind(client, queue, "amq.topic", key)
    rows = [row["routing_key"] for row in lab.json("list_bindings", "source_name", "routing_key") if row["source_name"] == "amq.topic"]
    equal(sorted(rows), sorted(keys))
    table = lab.tickctl("-q", "list_bindings", "routing_key").stdout
    for text in ("\\x00.é", "\\x0a..", "x.é", "tab\\x09"):
        assert text in table, (text, table)
    client.close()


@test("list_connections and list_channels show a client; close_connection closes it with 320 and the reason")
def connections():
    client = connect()
    client.open(2)
    port = client.sock.getsockname()[1]
    columns = ("pid", "user", "vhost", "peer_host", "peer_port", "state", "channels", "frame_max")
    # Rows are written in a sweep: one that is new, or whose second channel is, comes with the next.
    mine = until(lambda: [row for row in lab.json("list_connections", *columns) if row["peer_port"] == port and row["channels"] == 2],
                 f"the row of the connection from port {port}")
    equal(len(mine), 1, f"rows of the connection from port {port}")
    equal({k: mine[0][k] for k in ("user", "vhost", "peer_host", "state", "channels", "frame_max")},
          {"user": "guest", "vhost": "/", "peer_host": "198.18.0.1", "state": "running", "channels": 2, "frame_max": client.frame_max})
    until(lambda: len(lab.json("list_channels", "number", "user")) >= 2, "the rows of two channels")
    lab.tickctl("close_connection", str(mine[0]["pid"]), "closed by the operator")
    class_id, _channel, code, text, *_ = client.close_reply()
    equal((class_id, code), (10, 320))
    assert "closed by the operator" in text, text
    client.send(method(0, 10, 51))
    client.until_closed()
    until(lambda: not any(row["peer_port"] == port for row in lab.json("list_connections", "peer_port")), "the row's end")


@test("the table is headed, tab-separated and quiet on demand; stats and latency print what was measured")
def tables():
    text = lab.tickctl("list_exchanges", "name", "type").stdout.splitlines()
    assert "name\ttype" in text and "amq.topic\ttopic" in text, text
    quiet = lab.tickctl("-q", "list_exchanges", "name", "type", "--no-table-headers").stdout.splitlines()
    assert "name\ttype" not in quiet and "amq.topic\ttopic" in quiet, quiet
    flow = Flow()
    flow.proof(1000)
    flow.end()
    stats = lab.tickctl("stats").stdout
    assert "busy" in stats and "idle" in stats, stats
    latency = lab.tickctl("latency").stdout
    for stage in ("parsed", "routed", "rendered", "tx"):
        assert stage in latency, latency
    # What kept the worker from its port longest, when, how often; and each poll's own longest.
    assert re.search(r"worker 0: longest turn [0-9.]+ .?s, [0-9.]+ .?s ago, in \w", latency), latency
    turns, over_5, over_50, over_500 = map(int, re.search(r"turns (\d+), over 5 us (\d+), over 50 us (\d+), over 500 us (\d+)", latency).groups())
    assert turns > over_5 >= over_50 >= over_500, latency
    for poll in ("receive", "operations", "tcp timers", "flush", "transmit", "rows", "counters"):
        assert re.search(rf" {poll} [0-9.]+ .?s", latency), latency
    assert lab.json("status"), "an empty status"


@test("exit codes are rabbitmqctl's: 64 for usage, 69 when control is not there, 0 otherwise")
def exit_codes():
    lab.tickctl("status")
    for arguments in (["no_such_command"], ["list_queues", "no_such_column"], ["status", "--no-such-flag"], ["list_queues", "--formatter", "nonsense"],
                      ["close_connection"]):
        done = lab.tickctl(*arguments, status=64)
        assert done.stderr.strip(), f"no word about {arguments}"
    lab.run("env", "TICKWIRE_SOCKET=/nowhere", "tickctl", "--socket", "/nowhere/control.sock", "status", status=69)


POOLS = ("tcp_conns", "tcp_half_open", "tcp_blocks", "tcp_refs", "conns", "channels", "consumers", "exchanges", "queues", "bindings", "entries",
         "messages", "message_bytes")


def pools():
    """The pools of the first worker, wherever the status keeps them: name -> in use."""

    def find(node):
        if isinstance(node, dict):
            if "message_bytes" in node and "tcp_conns" in node:
                return node
            node = list(node.values())
        for child in node if isinstance(node, list) else ():
            found = find(child)
            if found:
                return found
        return None

    status = lab.json("status")
    found = find(status)
    assert found, f"no pools in the status: {json.dumps(status)[:600]}"
    return {name: (found[name]["used"] if isinstance(found[name], dict) else found[name]) for name in POOLS}


def raw():
    with lab.inside():
        return Wire()


def reset(client):
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()


def die_in_handshake():
    for part in (b"", b"AMQ", wire.PROTOCOL):
        client = raw()
        client.send(part)
        yield client
    client = raw()
    client.start()
    client.start_ok()
    yield client


def die_in_frames():
    for cut in (b"\x01\0", struct.pack(">BHI", 1, 1, 100000) + b"x" * 50000, method(1, 60, 40, wire.basic_publish("", "x")),
                method(1, 60, 40, wire.basic_publish("", "x")) + wire.header(1, 1 << 20) + wire.body(1, b"y" * 100000)):
        client = connect()
        client.send(cut)
        yield client


def die_with_messages():
    """Queues that go with their owner: full, half acknowledged, and one whose consumer never read."""
    for number in range(10):
        client = connect()
        queue = client.declare("", 4)[0]
        bind(client, queue, "amq.topic", f"die.{number}.#")
        for i in range(50):
            client.publish("amq.topic", f"die.{number}.x", b"z" * 5000)
        client.call(1, 60, 20, wire.basic_consume(queue, "", 0), 21)
        client.expect(60, 60, 1)
        client.send(method(1, 60, 80, struct.pack(">QB", 1, 0)))
        yield client
    # One that reads nothing: its connection fills, then its queue.
    client, publisher = connect(), connect()
    queue = client.declare("", 4)[0]
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.send(method(1, 60, 20, wire.basic_consume(queue, "", 2)))
    for _ in range(60):
        publisher.publish("", queue, b"w" * 60000)
    publisher.close()
    yield client


@test("clients that die in the handshake, in a frame, with messages held or unread: every pool is back at its baseline", seconds=120)
def baseline():
    bystander = None
    with lab.inside():
        bystander = ticker.Ticker()
    try:
        warm = connect()
        warm.close()
        bystander.proof()
        before = None

        def calm():
            # The bystander is silent: two equal looks are a baseline, once a timer has taken back the block of what it sent last.
            nonlocal before
            before, last = pools(), before
            return last == before and before["tcp_blocks"] == 0

        bystander.stop.set()
        bystander.thread.join(10)
        until(calm, "a baseline", 20)
        for cause in (die_in_handshake, die_in_frames, die_with_messages):
            for how in (reset, lambda client: client.sock.close()):
                for client in cause():
                    how(client)
                seen = {}

                def back():
                    seen.update(pools())
                    return seen == before

                try:
                    until(back, f"the baseline after {cause.__name__}", 20)
                except AssertionError as error:
                    changed = {name: (before[name], seen[name]) for name in before if before[name] != seen[name]}
                    raise AssertionError(f"{error}; pool: (before, now) {changed}") from None
        bystander.wire.declare(bystander.queue, 1)
    finally:
        bystander.wire.sock.close()


def main():
    global lab
    with Lab("control") as lab:
        return tap.main(needs_broker=False)


if __name__ == "__main__":
    sys.exit(main())
