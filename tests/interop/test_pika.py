#!/usr/bin/python3
"""Debian's python3-pika, unmodified, against the broker: what issue readers' own scripts do first."""

import datetime
import decimal
import os
import socket
import struct
import sys

import pika
import pika.exceptions
from pika.exchange_type import ExchangeType

import tap
from tap import equal, test, unique, until

MIB = bytes(os.urandom(1024)) * 1024


def connect(**more):
    more.setdefault("heartbeat", 0)
    return pika.BlockingConnection(pika.ConnectionParameters(tap.HOST, tap.PORT, blocked_connection_timeout=20, **more))


def get(channel, queue, **more):
    """One message, waited for: (method, properties, body)."""

    def one():
        got = channel.basic_get(queue, **more)
        return got if got[0] else None

    return until(one, f"a message in {queue}")


def nothing_in(channel, queue):
    equal(channel.queue_declare(queue, passive=True).method.message_count, 0, f"messages in {queue}")
    equal(channel.basic_get(queue)[0], None, "basic.get")


def settle(connection):
    """A round trip, so that what was sent before it has been handled."""
    channel = connection.channel()
    channel.close()


def channel_error(function, code):
    try:
        function()
    except pika.exceptions.ChannelClosedByBroker as error:
        equal(error.reply_code, code, "reply code")
        return error.reply_text
    raise AssertionError(f"no channel error, {code} was expected")


@test("pika connects, reads the server's properties and closes")
def connects():
    connection = connect()
    properties = connection._impl.server_properties
    assert properties.get("product"), properties
    for capability in ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "exchange_exchange_bindings"):
        equal(properties["capabilities"].get(capability), True, capability)
    connection.close()
    assert connection.is_closed


@test("a wrong password is refused (connection.close 403 or a closed socket)")
def wrong_password():
    try:
        connect(credentials=pika.PlainCredentials("guest", "not-guest"))
    except (pika.exceptions.ProbableAuthenticationError, pika.exceptions.AuthenticationError):
        return
    raise AssertionError("a wrong password got in")


@test("an unknown virtual host is refused with 530")
def unknown_vhost():
    try:
        connect(virtual_host="no-such-vhost")
    except pika.exceptions.ProbableAccessDeniedError as error:
        assert "530" in str(error), error
        return
    except pika.exceptions.ConnectionClosedByBroker as error:
        equal(error.reply_code, 530)
        return
    raise AssertionError("an unknown vhost was opened")


@test("the default exchange delivers by queue name")
def default_exchange():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    assert queue.startswith("amq.gen-"), queue
    channel.basic_publish("", queue, b"by name")
    method, _, text = get(channel, queue, auto_ack=True)
    equal((text, method.exchange, method.routing_key, method.redelivered), (b"by name", "", queue, False))
    connection.close()


def exchange_case(kind, bind, keys_hit, keys_missed, **publish):
    connection = connect()
    channel = connection.channel()
    exchange = unique(f"pika-{kind}")
    channel.exchange_declare(exchange, exchange_type=kind)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange, bind)
    for key in keys_missed:
        channel.basic_publish(exchange, key, b"missed " + key.encode())
    for key in keys_hit:
        channel.basic_publish(exchange, key, b"hit " + key.encode())
    for key in keys_hit:
        method, _, text = get(channel, queue, auto_ack=True)
        equal((text, method.exchange, method.routing_key), (b"hit " + key.encode(), exchange, key))
    nothing_in(channel, queue)
    channel.queue_unbind(queue, exchange, bind)
    for key in keys_hit:
        channel.basic_publish(exchange, key, b"after unbind")
    settle(connection)
    nothing_in(channel, queue)
    channel.exchange_delete(exchange)
    connection.close()


@test("a direct exchange routes by the exact key, until the unbind")
def direct():
    exchange_case(ExchangeType.direct.value, "nyse.ibm", ["nyse.ibm"], ["nyse.ib", "nyse.ibm.x", "NYSE.IBM", ""])


@test("a fanout exchange routes every key, until the unbind")
def fanout():
    exchange_case(ExchangeType.fanout.value, "", ["", "a", "a.b"], [])


@test("a topic exchange routes '*' and '#', until the unbind")
def topic():
    exchange_case(ExchangeType.topic.value, "*.ibm.#", ["nyse.ibm", ".ibm", "nyse.ibm.bid.1"], ["ibm", "nyse.ibmx", "a.b.ibm", ""])
    exchange_case(ExchangeType.topic.value, "#", ["", "a", "a.b.c"], [])
    exchange_case(ExchangeType.topic.value, "nyse.ibm", ["nyse.ibm"], ["nyse.ibm.", "nyse"])


@test("a headers exchange routes all, any and number by value")
def headers():
    connection = connect()
    channel = connection.channel()
    exchange = unique("pika-headers")
    channel.exchange_declare(exchange, exchange_type="headers")
    every = channel.queue_declare("", exclusive=True).method.queue
    any_of = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(every, exchange, "", {"x-match": "all", "venue": "nyse", "lot": 100})
    channel.queue_bind(any_of, exchange, "", {"x-match": "any", "venue": "nyse", "lot": 100})
    cases = [
        ({"venue": "nyse", "lot": 100, "more": True}, True, True),
        ({"venue": "nyse"}, False, True),
        ({"venue": "nyse", "lot": 101}, False, True),
        ({"venue": "lse", "lot": 7}, False, False),
        ({}, False, False),
        (None, False, False),
    ]
    for i, (given, _, _) in enumerate(cases):
        channel.basic_publish(exchange, "ignored", str(i).encode(), pika.BasicProperties(headers=given))
    for queue, column in ((every, 1), (any_of, 2)):
        for i, case in enumerate(cases):
            if case[column]:
                equal(get(channel, queue, auto_ack=True)[2], str(i).encode())
        nothing_in(channel, queue)
    channel.exchange_delete(exchange)
    connection.close()


@test("an exchange bound to an exchange passes on, until the unbind")
def exchange_to_exchange():
    connection = connect()
    channel = connection.channel()
    source, sink = unique("pika-source"), unique("pika-sink")
    channel.exchange_declare(source, exchange_type="topic")
    channel.exchange_declare(sink, exchange_type="fanout")
    channel.exchange_bind(sink, source, "a.*")
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, sink)
    channel.basic_publish(source, "a.b", b"passed on")
    method, _, text = get(channel, queue, auto_ack=True)
    equal((text, method.exchange), (b"passed on", source))
    channel.exchange_unbind(sink, source, "a.*")
    channel.basic_publish(source, "a.b", b"cut off")
    settle(connection)
    nothing_in(channel, queue)
    channel.exchange_delete(sink)
    channel.exchange_delete(source)
    connection.close()


@test("two bindings of one queue that both match deliver one copy")
def one_copy():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    for key in ("a.#", "#.b", "a.b"):
        channel.queue_bind(queue, "amq.topic", key)
    channel.basic_publish("amq.topic", "a.b", b"once")
    equal(get(channel, queue, auto_ack=True)[2], b"once")
    nothing_in(channel, queue)
    connection.close()


@test("consuming without acknowledgement delivers all in order and leaves none")
def consume_no_ack():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    wanted = [f"tick {i}".encode() for i in range(1000)]
    got = []
    channel.basic_consume(queue, lambda _c, m, _p, text: got.append((m.delivery_tag, text)), auto_ack=True)
    for text in wanted:
        channel.basic_publish("", queue, text)
    while len(got) < len(wanted):
        connection.process_data_events(time_limit=5)
    equal(got, list(enumerate(wanted, 1)))
    nothing_in(channel, queue)
    connection.close()


@test("consuming with acknowledgement: ack, ack multiple, nack requeued is redelivered first, reject drops")
def consume_ack():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    for text in (b"0", b"1", b"2", b"3", b"4"):
        channel.basic_publish("", queue, text)
    got = []
    tag = channel.basic_consume(queue, lambda _c, m, _p, text: got.append((m.delivery_tag, m.redelivered, text)))
    while len(got) < 5:
        connection.process_data_events(time_limit=5)
    equal([g[2] for g in got], [b"0", b"1", b"2", b"3", b"4"])
    channel.basic_ack(got[1][0], multiple=True)
    channel.basic_reject(got[2][0], requeue=False)
    channel.basic_nack(got[3][0], requeue=True)
    while len(got) < 6:
        connection.process_data_events(time_limit=5)
    equal(got[5][1:], (True, b"3"))
    channel.basic_ack(got[4][0])
    channel.basic_ack(got[5][0])
    channel.basic_cancel(tag)
    nothing_in(channel, queue)
    connection.close()


@test("acknowledging an unknown delivery tag closes the channel with 406")
def unknown_tag():
    connection = connect()
    channel = connection.channel()
    channel.basic_ack(77)
    channel_error(lambda: channel.queue_declare("", exclusive=True), 406)
    connection.close()


@test("a prefetch of 2 holds the third message back until one is acknowledged")
def prefetch():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_qos(prefetch_count=2)
    for i in range(5):
        channel.basic_publish("", queue, str(i).encode())
    settle(connection)
    got = []
    channel.basic_consume(queue, lambda _c, m, _p, text: got.append((m.delivery_tag, text)))
    while len(got) < 2:
        connection.process_data_events(time_limit=5)
    settle(connection)
    connection.process_data_events(time_limit=0)
    equal([g[1] for g in got], [b"0", b"1"])
    channel.basic_ack(got[0][0])
    while len(got) < 3:
        connection.process_data_events(time_limit=5)
    settle(connection)
    connection.process_data_events(time_limit=0)
    equal([g[1] for g in got], [b"0", b"1", b"2"])
    connection.close()


@test("recover puts the unacknowledged back, redelivered")
def recover():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", queue, b"again")
    equal(get(channel, queue)[0].redelivered, False)
    channel.basic_recover(requeue=True)
    method, _, text = get(channel, queue, auto_ack=True)
    equal((method.redelivered, text), (True, b"again"))
    connection.close()


@test("get tells how many messages are left, and get-empty when none is")
def get_counts():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    equal(channel.basic_get(queue), (None, None, None))
    for i in range(3):
        channel.basic_publish("", queue, str(i).encode())
    settle(connection)
    until(lambda: channel.queue_declare(queue, passive=True).method.message_count == 3, "three messages")
    for i in range(3):
        method, _, text = channel.basic_get(queue, auto_ack=True)
        equal((text, method.message_count), (str(i).encode(), 2 - i))
    connection.close()


@test("a mandatory message that no queue takes is returned with 312 and its body; one that a queue takes is not")
def returned():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    back = []
    channel.add_on_return_callback(lambda _c, m, p, text: back.append((m.reply_code, m.exchange, m.routing_key, p.message_id, text)))
    channel.basic_publish("", queue, b"taken", mandatory=True)
    channel.basic_publish("amq.direct", "nowhere", b"come back", pika.BasicProperties(message_id="m1"), mandatory=True)
    channel.basic_publish("amq.direct", "nowhere", b"dropped silently")
    settle(connection)
    until(lambda: connection.process_data_events(time_limit=0) or back, "basic.return")
    equal(back, [(312, "amq.direct", "nowhere", "m1", b"come back")])
    connection.close()


@test("confirms: a routed message is acked, an unroutable mandatory one is returned and acked")
def confirms():
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    queue = channel.queue_declare("", exclusive=True).method.queue
    for i in range(50):
        channel.basic_publish("", queue, str(i).encode(), mandatory=True)
    channel.basic_publish("amq.direct", "nowhere", b"unroutable, not mandatory")
    try:
        channel.basic_publish("amq.direct", "nowhere", b"come back", mandatory=True)
        raise AssertionError("the unroutable message was confirmed only")
    except pika.exceptions.UnroutableError as error:
        equal(error.messages[0].body, b"come back")
    equal(channel.queue_declare(queue, passive=True).method.message_count, 50)
    connection.close()


@test("1 MiB goes out and comes back byte for byte, by get and by consume, framed small and large")
def one_mib():
    for frame_max in (131072, 4096):
        connection = connect(frame_max=frame_max)
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, MIB)
        text = get(channel, queue, auto_ack=True)[2]
        assert text == MIB, f"{len(text)} bytes came back, or others"
        got = []
        channel.basic_consume(queue, lambda _c, _m, _p, text, got=got: got.append(text), auto_ack=True)
        channel.basic_publish("", queue, MIB)
        channel.basic_publish("", queue, b"")
        while len(got) < 2:
            connection.process_data_events(time_limit=5)
        assert got[0] == MIB and got[1] == b"", [len(g) for g in got]
        connection.close()


@test("all properties and every field-table type pass unchanged")
def properties():
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    table = {"bool": True, "int": -7, "long": 1 << 40, "text": "grüße", "void": None, "list": [1, "two", {"three": 3}],
             "decimal": decimal.Decimal("12.34"), "when": datetime.datetime(2026, 1, 2, 3, 4, 5), "deep": {"a": {"b": {"c": 1}}}}
    given = dict(content_type="text/plain", content_encoding="utf-8", headers=table, delivery_mode=1, priority=9, correlation_id="c",
                 reply_to="r", expiration="60000", message_id="m", timestamp=1767322800, type="t", user_id="guest", app_id="a", cluster_id="x")
    channel.basic_publish("", queue, b"", pika.BasicProperties(**given))
    _, back, text = get(channel, queue, auto_ack=True)
    equal(text, b"")
    for name, value in given.items():
        equal(getattr(back, name), value, name)
    connection.close()


@test("200 channels on one connection each declare, publish and consume")
def many_channels():
    connection = connect()
    channels = [connection.channel() for _ in range(200)]
    got = {}
    queues = [c.queue_declare("", exclusive=True).method.queue for c in channels]
    for i, (channel, queue) in enumerate(zip(channels, queues)):
        channel.basic_consume(queue, lambda c, _m, _p, text, i=i: got.setdefault(i, (c.channel_number, text)), auto_ack=True)
    for i, channel in enumerate(channels):
        channel.basic_publish("", queues[199 - i], str(i).encode())
    while len(got) < 200:
        connection.process_data_events(time_limit=5)
    equal(got, {i: (channels[i].channel_number, str(199 - i).encode()) for i in range(200)})
    connection.close()


@test("an abrupt disconnect puts unacknowledged messages back as redelivered and removes exclusive queues")
def abrupt():
    keeper = connect()
    kept = keeper.channel()
    queue = unique("pika-abrupt")
    kept.queue_declare(queue)
    victim = connect()
    channel = victim.channel()
    exclusive = channel.queue_declare(unique("pika-mine"), exclusive=True).method.queue
    channel_error(lambda: keeper.channel().queue_declare(exclusive, passive=True), 405)
    for i in range(3):
        kept.basic_publish("", queue, str(i).encode())
    got = []
    channel.basic_consume(queue, lambda _c, _m, _p, text: got.append(text))
    while len(got) < 3:
        victim.process_data_events(time_limit=5)
    equal(kept.basic_get(queue)[0], None)
    sock = victim._impl._transport._sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that close() sends RST
    sock.close()
    for i in range(3):
        method, _, text = get(kept, queue, auto_ack=True)
        equal((text, method.redelivered), (str(i).encode(), True))

    def exclusive_is_gone():
        try:
            keeper.channel().queue_declare(exclusive, passive=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            return error.reply_code == 404
        return False

    until(exclusive_is_gone, "the exclusive queue's end")
    kept.queue_delete(queue)
    keeper.close()


@test("an auto-delete queue goes with its last consumer; a purge and a delete tell their counts")
def queue_life():
    connection = connect()
    channel = connection.channel()
    queue = unique("pika-auto")
    channel.queue_declare(queue, auto_delete=True)
    tag = channel.basic_consume(queue, lambda *_: None)
    channel.basic_cancel(tag)
    channel_error(lambda: connection.channel().queue_declare(queue, passive=True), 404)
    queue = unique("pika-purge")
    channel.queue_declare(queue)
    for _ in range(4):
        channel.basic_publish("", queue, b"x")
    until(lambda: channel.queue_declare(queue, passive=True).method.message_count == 4, "four messages")
    equal(channel.queue_purge(queue).method.message_count, 4)
    channel.basic_publish("", queue, b"x")
    until(lambda: channel.queue_declare(queue, passive=True).method.message_count == 1, "one message")
    channel_error(lambda: connection.channel().queue_delete(queue, if_empty=True), 406)
    equal(channel.queue_delete(queue).method.message_count, 1)
    connection.close()


@test("channel errors carry RabbitMQ's codes: 404, 405 is tested above, 403 and 406")
def channel_errors():
    connection = connect()
    queue, exchange = unique("pika-error"), unique("pika-error-x")
    channel = connection.channel()
    channel.queue_declare(queue)
    channel.exchange_declare(exchange, exchange_type="direct")
    text = channel_error(lambda: connection.channel().queue_declare(queue, durable=True), 406)
    assert text.startswith("PRECONDITION_FAILED"), text
    text = channel_error(lambda: connection.channel().exchange_declare(exchange, exchange_type="topic"), 406)
    assert "type" in text, text
    channel_error(lambda: connection.channel().queue_declare(unique("missing"), passive=True), 404)
    channel_error(lambda: connection.channel().exchange_declare("amq.mine", exchange_type="direct"), 403)
    channel_error(lambda: connection.channel().queue_declare("amq.mine"), 403)
    channel_error(lambda: connection.channel().queue_bind(queue, unique("missing"), "k"), 404)
    channel.queue_delete(queue)
    channel.exchange_delete(exchange)
    equal(connection.channel().is_open, True, "the connection goes on")
    connection.close()


if __name__ == "__main__":
    sys.exit(tap.main())
