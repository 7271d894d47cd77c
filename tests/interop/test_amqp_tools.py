#!/usr/bin/python3
"""Debian's amqp-tools (librabbitmq's command line), unmodified, against the broker."""

import os
import subprocess
import sys

import tap
import wire
from tap import equal, test, unique, until

MIB = bytes(os.urandom(1024)) * 1024


def tool(name, *arguments, data=b"", status=0):
    done = subprocess.run([f"amqp-{name}", "--server", tap.HOST, "--port", str(tap.PORT), *arguments], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=20)
    if status is not None:
        equal((done.returncode, done.stderr), (status, done.stderr), f"exit status of amqp-{name} {arguments}")
    return done


def is_routed(exchange, key, text):
    """Publishes as mandatory with confirms: what comes before the ack tells whether a queue took it."""
    with wire.Wire().login().open() as client:
        client.call(1, 85, 10, b"\0", 11)
        client.publish(exchange, key, text, bits=1)
        _channel, class_id, method_id, _ = client.read_method()
        return (class_id, method_id) == (60, 80)


@test("declare, publish, get and delete by the tools")
def round_trip():
    queue = unique("tools")
    equal(tool("declare-queue", "-q", queue).stdout.decode().strip(), queue)
    tool("publish", "-r", queue, "-b", "a tick")
    until(lambda: b"a tick" == tool("get", "-q", queue, status=None).stdout, "the message")
    equal(tool("get", "-q", queue, status=None).returncode, 2, "amqp-get of an empty queue")
    tool("delete-queue", "-q", queue)
    assert tool("delete-queue", "-q", queue, "--if-empty", status=None).returncode in (0, 1)


@test("publish reads standard input, persistent and with a content type; get writes it, 1 MiB byte for byte")
def one_mib():
    queue = unique("tools-mib")
    tool("declare-queue", "-q", queue)
    tool("publish", "-r", queue, "-p", "-C", "application/octet-stream", data=MIB)
    got = until(lambda: tool("get", "-q", queue, status=None).stdout, "the body")
    assert got == MIB, f"{len(got)} bytes came back, or others"
    tool("delete-queue", "-q", queue)


@test("consume binds to each exchange type and acknowledges, or does not")
def consume():
    cases = [("amq.direct", "k.1", "k.1"), ("amq.fanout", "x", "any"), ("amq.topic", "k.#", "k.1.2")]
    for flags in ([], ["-A"]):
        for exchange, bound, key in cases:
            child = subprocess.Popen(["amqp-consume", "--server", tap.HOST, "--port", str(tap.PORT), "-e", exchange, "-r", bound, "-c", "3", *flags,
                                      "cat"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                assert b"amq.gen-" in child.stderr.readline(), "amqp-consume told no queue"
                # It names the queue before it binds it, so the first message is offered until a queue takes it.
                until(lambda: is_routed(exchange, key, b"one "), "the consumer's binding")
                for text in ("two ", "three"):
                    tool("publish", "-e", exchange, "-r", key, "-b", text)
                equal(child.communicate(timeout=20)[0], b"one two three", f"{exchange} {flags}")
                equal(child.returncode, 0)
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()


@test("a named queue is shared out: -p 1 takes its messages in order")
def prefetch():
    queue = unique("tools-prefetch")
    tool("declare-queue", "-q", queue)
    for i in range(5):
        tool("publish", "-r", queue, "-b", f"{i};")
    done = tool("consume", "-q", queue, "-c", "5", "-p", "1", "cat")
    equal(done.stdout, b"0;1;2;3;4;")
    tool("delete-queue", "-q", queue)


@test("a message whose command failed is not acknowledged: it stays, redelivered")
def failing_command():
    queue = unique("tools-fail")
    tool("declare-queue", "-q", queue)
    tool("publish", "-r", queue, "-b", "again")
    tool("consume", "-q", queue, "-c", "1", "false", status=None)
    with wire.Wire().login().open() as client:

        def fetch():
            client.send(wire.method(1, 60, 70, b"\0\0" + wire.shortstr(queue) + b"\1"))
            _channel, _class, method_id, arguments = client.read_method()
            return (arguments[8], client.read_content()[1]) if method_id == 71 else None

        equal(until(fetch, "the message"), (1, b"again"), "redelivered flag and body")
    tool("delete-queue", "-q", queue)


@test("errors are told: a missing queue is 404, a wrong password is refused")
def errors():
    done = tool("get", "-q", unique("missing"), status=1)
    assert b"404" in done.stderr or b"NOT_FOUND" in done.stderr, done.stderr
    done = tool("get", "-q", "x", "--username", "guest", "--password", "wrong", status=1)
    assert done.stderr, "no word about the refusal"


if __name__ == "__main__":
    sys.exit(tap.main())
