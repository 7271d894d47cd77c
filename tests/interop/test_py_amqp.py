#!/usr/bin/python3
"""Debian's python3-amqp (kombu's and Celery's client), unmodified, against the broker."""

import os
import socket
import struct
import sys
import time

import amqp
import amqp.exceptions

import tap
from tap import equal, test, unique, until

MIB = bytes(os.urandom(1024)) * 1024


def connect(**more):
    connection = amqp.Connection(f"{tap.HOST}:{tap.PORT}", userid="guest", password="guest", virtual_host="/", connect_timeout=10, **more)
    connection.connect()
    return connection


def server_named(channel):
    return channel.queue_declare("", exclusive=True, auto_delete=False).queue


def get(channel, queue, **more):
    return until(lambda: channel.basic_get(queue, **more), f"a message in {queue}")


@test("py-amqp connects with PLAIN and with AMQPLAIN-capable defaults, and closes")
def connects():
    connection = connect()
    assert connection.connected and connection.server_properties.get("product")
    connection.close()
    assert not connection.connected
    plain = connect(login_method="PLAIN")
    plain.close()


@test("a wrong password is refused")
def wrong_password():
    connection = amqp.Connection(f"{tap.HOST}:{tap.PORT}", userid="guest", password="wrong", connect_timeout=10)
    try:
        connection.connect()
    except (amqp.exceptions.AccessRefused, OSError):
        return
    raise AssertionError("a wrong password got in")


def routes(kind, bound, hits, misses, arguments=None):
    connection = connect()
    channel = connection.channel()
    exchange = unique(f"pyamqp-{kind}")
    channel.exchange_declare(exchange, kind, durable=False, auto_delete=False)
    queue = server_named(channel)
    channel.queue_bind(queue, exchange, bound, arguments=arguments)
    for case in misses + hits:
        key, headers = case if isinstance(case, tuple) else (case, None)
        channel.basic_publish(amqp.Message(repr(case), application_headers=headers), exchange, key)
    for case in hits:
        equal(get(channel, queue, no_ack=True).body, repr(case))
    equal(channel.basic_get(queue), None)
    channel.queue_unbind(queue, exchange, bound, arguments=arguments)
    channel.basic_publish(amqp.Message("after"), exchange, hits[0] if isinstance(hits[0], str) else hits[0][0])
    connection.channel().close()
    equal(channel.basic_get(queue), None)
    channel.exchange_delete(exchange)
    connection.close()


@test("the four exchange types route what is bound and nothing else")
def four_types():
    routes("direct", "a.b", ["a.b"], ["a", "a.b.c"])
    routes("fanout", "x", ["", "x", "y"], [])
    routes("topic", "#.fx.*", ["fx.eur", "a.b.fx.usd"], ["fx", "fx.a.b", "xfx.a"])
    routes("headers", "", [("", {"a": 1, "b": "x"}), ("", {"b": "y", "a": 1})], [("", {"a": 2}), ("", None)],
           {"x-match": "any", "a": 1})


@test("consume with acknowledgement; what is not acknowledged comes back on a closed channel's queue")
def consume():
    connection = connect()
    channel = connection.channel()
    queue = unique("pyamqp-ack")
    channel.queue_declare(queue, auto_delete=False)
    got = []
    channel.basic_consume(queue, callback=got.append)
    for i in range(10):
        channel.basic_publish(amqp.Message(str(i)), "", queue)
    while len(got) < 10:
        connection.drain_events(timeout=5)
    equal([m.body for m in got], [str(i) for i in range(10)])
    channel.basic_ack(got[6].delivery_tag, multiple=True)
    channel.close()
    channel = connection.channel()
    again = [get(channel, queue, no_ack=True) for _ in range(3)]
    equal([(m.body, m.delivery_info["redelivered"]) for m in again], [("7", True), ("8", True), ("9", True)])
    channel.queue_delete(queue)
    connection.close()


@test("consume without acknowledgement")
def consume_no_ack():
    connection = connect()
    channel = connection.channel()
    queue = server_named(channel)
    got = []
    channel.basic_consume(queue, callback=got.append, no_ack=True)
    for i in range(200):
        channel.basic_publish(amqp.Message(str(i)), "", queue)
    while len(got) < 200:
        connection.drain_events(timeout=5)
    equal([m.body for m in got], [str(i) for i in range(200)])
    connection.close()


@test("an unroutable mandatory message is returned with 312")
def returned():
    connection = connect()
    channel = connection.channel()
    back = []
    channel.events["basic_return"].add(lambda error, exchange, key, message: back.append((error.reply_code, exchange, key, message.body)))
    channel.basic_publish(amqp.Message("come back"), "amq.topic", "no.where", mandatory=True)
    while not back:
        connection.drain_events(timeout=5)
    equal(back, [(312, "amq.topic", "no.where", "come back")])
    connection.close()


@test("publisher confirms come for each message")
def confirms():
    connection = connect(confirm_publish=True)
    channel = connection.channel()
    queue = server_named(channel)
    for i in range(50):
        channel.basic_publish_confirm(amqp.Message(str(i)), "", queue, confirm_timeout=10)
    equal(channel.queue_declare(queue, passive=True).message_count, 50)
    connection.close()


@test("1 MiB goes out and comes back byte for byte")
def one_mib():
    connection = connect()
    channel = connection.channel()
    queue = server_named(channel)
    channel.basic_publish(amqp.Message(MIB, content_encoding="binary"), "", queue)
    text = get(channel, queue, no_ack=True).body
    assert (text if isinstance(text, bytes) else text.encode()) == MIB, "other bytes came back"
    connection.close()


@test("200 channels on one connection each declare and get their own message")
def many_channels():
    connection = connect()
    channels = [connection.channel() for _ in range(200)]
    queues = [server_named(c) for c in channels]
    for i, channel in enumerate(channels):
        channel.basic_publish(amqp.Message(str(i)), "", queues[i])
    for i, channel in enumerate(channels):
        equal(get(channel, queues[i], no_ack=True).body, str(i))
    connection.close()


@test("a heartbeat of 2 s keeps an idle connection, and the client sees the server's beats", seconds=30)
def heartbeats():
    connection = connect(heartbeat=2)
    equal(connection.heartbeat, 2)
    began = time.monotonic()
    while time.monotonic() - began < 5:
        connection.heartbeat_tick()
        try:
            connection.drain_events(timeout=0.5)
        except socket.timeout:
            pass
    assert connection.connected
    connection.channel().close()
    connection.close()


@test("an abrupt disconnect gives the unacknowledged message back as redelivered")
def abrupt():
    keeper, victim = connect(), connect()
    channel, other = keeper.channel(), victim.channel()
    queue = unique("pyamqp-abrupt")
    channel.queue_declare(queue, auto_delete=False)
    channel.basic_publish(amqp.Message("once more"), "", queue)
    equal(get(other, queue).delivery_info["redelivered"], False)
    victim.transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    victim.transport.sock.close()
    message = get(channel, queue, no_ack=True)
    equal((message.body, message.delivery_info["redelivered"]), ("once more", True))
    channel.queue_delete(queue)
    keeper.close()


@test("errors arrive as the library's exceptions: 404, 406, 403")
def errors():
    connection = connect()
    queue = unique("pyamqp-error")
    connection.channel().queue_declare(queue, auto_delete=False)
    for wanted, call in (
        (amqp.exceptions.NotFound, lambda c: c.queue_declare(unique("missing"), passive=True)),
        (amqp.exceptions.PreconditionFailed, lambda c: c.queue_declare(queue, durable=True, auto_delete=False)),
        (amqp.exceptions.AccessRefused, lambda c: c.exchange_declare("amq.x", "direct")),
    ):
        try:
            call(connection.channel())
        except wanted:
            continue
        raise AssertionError(f"{wanted.__name__} was expected")
    connection.channel().queue_delete(queue)
    connection.close()


if __name__ == "__main__":
    sys.exit(tap.main())
