#!/usr/bin/python3
"""What no honest client sends. Each test sees the reply code that the specification (or RabbitMQ, where clients were written
against it) names, or the closed connection, and then that a bystander's ticks go on.

Where several codes can be argued for, the test names them: AMQP 0-9-1 section 1.2 tells "malformed" (501), "illegal value" (502),
"invalid in this state" (503) and "not implemented" (540) apart by words alone. RabbitMQ 3.10 drops the socket on some of them and
reads others lazily: AMQP_PEER_MAY_DROP in the environment lets it, for when the suite itself is to be tried against that peer.
"""

import os
import socket
import struct
import sys

import tap
import ticker
import wire
from tap import equal, test, unique
from wire import Wire, basic_publish, body, frame, header, longstr, method, queue_declare, exchange_declare, shortstr, table

LENIENT = bool(os.environ.get("AMQP_PEER_MAY_DROP"))
MAX_U32 = 0xFFFFFFFF

bystander = None


def abuse(sentence, seconds=tap.TEST_SECONDS):
    """A test whose end is the bystander's proof."""

    def register(function):
        def run():
            global bystander
            if bystander is None:
                bystander = ticker.Ticker()
            bystander.proof(2)
            function()
            bystander.proof()

        return test(sentence, seconds)(run)

    return register


def closes_connection(client, *codes):
    """The broker answers connection.close with one of the codes, takes close-ok and closes the socket."""
    try:
        class_id, channel, code, text, *_ = client.close_reply()
    except wire.Closed:
        if LENIENT:
            return
        raise AssertionError(f"the socket was closed without a word, wanted connection.close {codes}") from None
    equal((class_id, channel), (10, 0), f"a connection.close on channel 0 (code {code} {text})")
    assert code in codes, f"connection.close {code} '{text}', wanted one of {codes}"
    assert text, "an empty reply text"
    client.send(method(0, 10, 51))
    client.until_closed()


def closes_channel(client, channel, *codes):
    """The broker closes the channel with one of the codes; the connection goes on, and the number is usable again."""
    class_id, number, code, text, *_ = client.close_reply()
    equal((class_id, number), (20, channel), f"a channel.close (code {code} {text})")
    assert code in codes, f"channel.close {code} '{text}', wanted one of {codes}"
    client.send(method(channel, 20, 41))
    client.open(channel)
    client.declare("", 4, channel)


def is_cut_off(client):
    """The socket is closed: without a word, as RabbitMQ does it, or after a connection.close that this answers. What was said before."""
    client.sock.settimeout(20)
    try:
        while True:
            kind, channel, payload = client.read_frame()
            equal((kind, channel), (wire.METHOD, 0), f"a frame ({payload[:40]!r})")
            equal(payload[:4], b"\0\x0a\0\x32", "the method that a stranger is answered with: connection.close")
            client.send(method(0, 10, 51))
    except wire.Closed:
        return


def answers_header(client):
    client.sock.settimeout(20)
    return client.until_closed()


# ---------------------------------------------------------------- before AMQP


@abuse("garbage instead of the protocol header is answered with AMQP 0 0 9 1 and a close (section 4.2.2)")
def garbage_header():
    for junk in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), b"\0" * 8, b"AMQP\x01\x01\x00\x0a",
                 b"AMQP\x02\x00\x01\x00", b"AMQX\x00\x00\x09\x01", b"\xff" * 4096):
        with Wire() as client:
            client.send(junk)
            equal(answers_header(client), wire.PROTOCOL, f"the answer to {junk[:8]!r}")


@abuse("a protocol header that comes octet by octet is understood")
def split_header():
    with Wire() as client:
        for octet in wire.PROTOCOL:
            client.send(bytes([octet]))
        client.expect(10, 10, 0)


@abuse("a client that sends nothing, or half a header, and leaves is forgotten")
def half_header():
    for part in (b"", b"AMQ"):
        client = Wire()
        client.send(part)
        client.sock.close()


@abuse("a first method other than start-ok gets nobody in")
def wrong_first_method():
    for first in (method(1, 20, 10, shortstr("")), method(0, 10, 40, shortstr("/") + shortstr("") + b"\0"), method(0, 10, 31, bytes(8))):
        with Wire() as client:
            client.start()
            client.send(first)
            is_cut_off(client)


@abuse("before authentication a frame above 4096 octets is refused")
def large_before_login():
    with Wire() as client:
        client.start()
        client.send(frame(wire.METHOD, 0, b"\0\x0a\0\x0b" + bytes(8000)))
        is_cut_off(client)


@abuse("an unknown mechanism, and a PLAIN response that is none, get nobody in")
def bad_sasl():
    for mechanism, response in (("NONSENSE", b"\0guest\0guest"), ("PLAIN", b"guest"), ("PLAIN", b""), ("PLAIN", b"\0" * 255), ("PLAIN", b"\0guest\0guest\0guest")):
        with Wire() as client:
            client.start()
            client.send(method(0, 10, 11, table() + shortstr(mechanism) + longstr(response) + shortstr("en_US")))
            is_cut_off(client)


@abuse("a tune-ok above what was offered, or with a frame-max below 4096, is refused")
def bad_tune():
    for tuning in (dict(frame_max=4095), dict(frame_max=1), dict(frame_max=MAX_U32), dict(channel_max=0xFFFF)):
        with Wire() as client:
            client.start()
            client.start_ok()
            client.tune()
            if tuning.get("channel_max", 0) == client.channel_max:
                raise tap.Skip("the broker offers all channels")
            client.tune_ok(**tuning)
            client.send(method(0, 10, 40, shortstr("/") + shortstr("") + b"\0"))
            is_cut_off(client)


# ---------------------------------------------------------------- frames


def after_login(sentence, data, *codes):
    """Bytes on a connection with channel 1 open, and the connection.close they earn."""

    @abuse(f"{sentence} ({' or '.join(map(str, codes))})")
    def run():
        with Wire().login().open() as client:
            client.send(data(client) if callable(data) else data)
            closes_connection(client, *codes)


after_login("a frame of unknown type is a frame error", frame(9, 1, b"x"), 501)
after_login("a frame that does not end in 0xCE is a frame error", frame(wire.METHOD, 1, b"\0\x14\0\x0a\0", end=b"\xcd"), 501)
after_login("a frame above the negotiated frame-max is a frame error", lambda c: frame(wire.BODY, 1, b"x" * (c.frame_max + 1)), 501)
after_login("a frame that claims 4 GiB is a frame error before its bytes come", struct.pack(">BHI", wire.METHOD, 1, MAX_U32) + b"\0\x3c\0\x28", 501)
after_login("a method frame too short for its own number is a frame error", frame(wire.METHOD, 1, b"\0\x3c\0"), 501, 502)
after_login("an empty method frame is a frame error", frame(wire.METHOD, 1, b""), 501, 502)
after_login("truncated arguments are a frame error", method(1, 50, 10, b"\0\0\x09abc"), 501, 502)
after_login("a short string longer than its frame is a frame error", method(1, 60, 40, b"\0\0\xff" + b"x" * 20), 501, 502)
after_login("a heartbeat on a channel is an unexpected frame", frame(wire.HEARTBEAT, 1, b""), 505, 501)
after_login("a header without a method is an unexpected frame", header(1, 5), 505)
after_login("a body without a header is an unexpected frame", body(1, b"hello"), 505)
after_login("a method where a header must come is an unexpected frame", method(1, 60, 40, basic_publish("", "x")) * 2, 505)
after_login("a method where a body must come is an unexpected frame",
            method(1, 60, 40, basic_publish("", "x")) + header(1, 9) + method(1, 50, 10, queue_declare("")), 505)
after_login("a content header of another class is an unexpected frame", method(1, 60, 40, basic_publish("", "x")) + header(1, 5, class_id=50), 505, 501)
after_login("a content header with a weight is an unexpected frame", method(1, 60, 40, basic_publish("", "x")) + header(1, 5, weight=1), 505, 501)
after_login("a content header cut short is a frame error", method(1, 60, 40, basic_publish("", "x")) + frame(wire.HEADER, 1, b"\0\x3c\0\0\0\0"), 501, 502, 505)
if not LENIENT:
    after_login("property flags that never end are a frame error",
                method(1, 60, 40, basic_publish("", "x")) + header(1, 5, flags=0xFFFF, properties=b"\xff\xff" * 1000), 501, 502)
    after_login("properties shorter than their flags say are a frame error",
                method(1, 60, 40, basic_publish("", "x")) + header(1, 5, flags=0xFC00, properties=b"\x05ab"), 501, 502)
    after_login("a body longer than its header said is a frame error",
                method(1, 60, 40, basic_publish("", "x")) + header(1, 2) + body(1, b"hello"), 501, 505)
    after_login("a method that only a server sends is refused", method(1, 60, 60, shortstr("t") + bytes(9) + shortstr("") + shortstr("k")), 503, 540)
after_login("an unknown class is refused", method(1, 999, 10), 503, 540, 501)
after_login("an unknown method of a known class is refused", method(1, 60, 999), 503, 540, 501)


# ---------------------------------------------------------------- channels

after_login("a method on a channel that was never opened is a channel error", method(7, 50, 10, queue_declare("")), 504)
after_login("opening an open channel is a channel error", method(1, 20, 10, shortstr("")), 504)
after_login("a channel method on channel 0 is refused", method(0, 50, 10, queue_declare("")), 503, 504, 505)
after_login("opening channel 0 is refused", method(0, 20, 10, shortstr("")), 503, 504, 505)
after_login("a connection method on another channel is refused", method(1, 10, 40, shortstr("/") + shortstr("") + b"\0"), 503, 504, 505)
after_login("a content frame on channel 0 is refused", header(0, 5), 504, 505, 501)
if not LENIENT:
    after_login("a channel number above the negotiated channel-max is refused", method(65535, 20, 10, shortstr("")), 504, 530)
after_login("an unsolicited channel.close-ok is refused", method(1, 20, 41) + method(1, 50, 10, queue_declare("")), 503, 504)


@abuse("more channels at a time than were negotiated are refused")
def too_many_channels():
    with Wire().login(channel_max=2) as client:
        client.open(1).open(2)
        client.send(method(3, 20, 10, shortstr("")))
        closes_connection(client, 530, 504)


@abuse("what comes on a channel between its close by the broker and close-ok is ignored (section 2.2.5 of RabbitMQ's errata)")
def closing_channel():
    with Wire().login().open() as client:
        client.send(method(1, 50, 10, queue_declare(unique("missing"), 1)))
        client.send(method(1, 60, 40, basic_publish("", "x")) + header(1, 4) + body(1, b"late") + method(1, 50, 10, queue_declare("amq.no")))
        closes_channel(client, 1, 404)


# ---------------------------------------------------------------- lengths, tables, names


def nested_table(depth):
    inner = b""
    for _ in range(depth):
        inner = shortstr("n") + b"F" + longstr(inner)
    return longstr(inner)


def nested_array(depth):
    inner = b""
    for _ in range(depth):
        inner = b"A" + longstr(inner)
    return longstr(shortstr("n") + inner)


for name, arguments in (("tables", nested_table(1000)), ("arrays", nested_array(1000))):
    if not LENIENT:
        after_login(f"{name} nested 1,000 deep in a declaration are refused", method(1, 50, 10, queue_declare("", 4, arguments)), 501, 502, 506)
        after_login(f"{name} nested 1,000 deep in a message's headers are refused",
                    method(1, 60, 40, basic_publish("amq.headers", "x")) + header(1, 1, flags=0x2000, properties=arguments) + body(1, b"x"), 501, 502, 506)

after_login("a table that claims 4 GiB is a frame error", method(1, 50, 10, struct.pack(">H", 0) + shortstr("q") + b"\0" + struct.pack(">I", MAX_U32)), 501, 502)
after_login("a long string of 4 GiB inside a table is a frame error",
            method(1, 50, 10, queue_declare("q", 0, longstr(shortstr("k") + b"S" + struct.pack(">I", MAX_U32) + b"abc"))), 501, 502)
after_login("an array of 4 GiB inside a table is a frame error",
            method(1, 50, 10, queue_declare("q", 0, longstr(shortstr("k") + b"A" + struct.pack(">I", MAX_U32 - 3) + b"abc"))), 501, 502)
after_login("a table value of unknown type is refused", method(1, 50, 10, queue_declare("q", 0, longstr(shortstr("k") + b"?" + b"abcd"))), 501, 502)
after_login("a name of 256 octets cannot be said: the rest of it is refused", method(1, 50, 10, b"\0\0\0" + b"n" * 256 + b"\0" + bytes(4)), 501, 502)
if not LENIENT:
    after_login("octets after the last argument are refused or ignored, as a frame error", method(1, 50, 10, queue_declare("", 4) + b"extra"), 501, 502)


@abuse("a body size of 2^63 and of 2^64-1 is refused at the header")
def huge_body_size():
    if LENIENT:
        raise tap.Skip("the peer waits for the whole body first")
    for size in (1 << 63, (1 << 64) - 1, 1 << 40):
        with Wire().login().open() as client:
            client.send(method(1, 60, 40, basic_publish("", "x")) + header(1, size))
            class_id, _channel, code, text, *_ = client.close_reply()
            assert (class_id, code) in ((20, 406), (20, 311), (10, 501), (10, 506)), f"{class_id}: {code} {text}"


@abuse("names of 255 octets work everywhere: queue, exchange, routing key, consumer tag")
def longest_names():
    with Wire().login().open() as client:
        queue, exchange, key = "q" * 255, "x" * 255, ".".join(["k" * 63] * 4)
        equal(len(key), 255)
        client.declare(queue, 4)
        client.call(1, 40, 10, exchange_declare(exchange, "topic"), 11)
        client.call(1, 50, 20, b"\0\0" + shortstr(queue) + shortstr(exchange) + shortstr(key) + b"\0" + table(), 21)
        client.call(1, 60, 20, wire.basic_consume(queue, "t" * 255, 2), 21)
        client.publish(exchange, key, b"long way")
        equal(client.expect(60, 60, 1)[:256], b"\xff" + b"t" * 255)
        equal(client.read_content()[1], b"long way")
        client.call(1, 40, 20, b"\0\0" + shortstr(exchange) + b"\0", 21)
        client.close()


# ---------------------------------------------------------------- methods that ask for what is not allowed


def channel_error(sentence, prepare, data, *codes):
    @abuse(f"{sentence} (channel error {' or '.join(map(str, codes))})")
    def run():
        with Wire().login().open() as client:
            if prepare:
                prepare(client)
            client.send(data)
            closes_channel(client, 1, *codes)


QUEUE, EXCHANGE, OTHER = unique("bad-queue"), unique("bad-exchange"), unique("bad-missing")

channel_error("publishing to a missing exchange", None, method(1, 60, 40, basic_publish(OTHER, "k")) + header(1, 1) + body(1, b"x"), 404)
channel_error("a body-less publish to a missing exchange", None, method(1, 60, 40, basic_publish(OTHER, "k")) + header(1, 0), 404)
channel_error("declaring a queue's name otherwise", lambda c: c.declare(QUEUE, 8), method(1, 50, 10, queue_declare(QUEUE, 0)), 406)
channel_error("declaring a queue durable that is not", lambda c: c.declare(QUEUE, 8), method(1, 50, 10, queue_declare(QUEUE, 10)), 406)
channel_error("declaring an exchange's name with another type", lambda c: c.call(1, 40, 10, exchange_declare(EXCHANGE, "direct"), 11),
              method(1, 40, 10, exchange_declare(EXCHANGE, "fanout")), 406)
channel_error("declaring an exchange's name with other flags", None, method(1, 40, 10, exchange_declare(EXCHANGE, "direct", 4)), 406)
channel_error("declaring a queue named amq.", None, method(1, 50, 10, queue_declare("amq.mine")), 403)
channel_error("declaring an exchange named amq.", None, method(1, 40, 10, exchange_declare("amq.mine", "direct")), 403)
channel_error("declaring the default exchange", None, method(1, 40, 10, exchange_declare("", "direct")), 403)
channel_error("deleting amq.direct", None, method(1, 40, 20, b"\0\0" + shortstr("amq.direct") + b"\0"), 403)
channel_error("binding to the default exchange", lambda c: c.declare("", 4), method(1, 50, 20, b"\0\0" + shortstr("") + shortstr("") + shortstr("k") + b"\0" + table()), 403)
channel_error("binding a missing queue", None, method(1, 50, 20, b"\0\0" + shortstr(OTHER) + shortstr("amq.direct") + shortstr("k") + b"\0" + table()), 404)
channel_error("consuming from a missing queue", None, method(1, 60, 20, wire.basic_consume(OTHER)), 404)
channel_error("getting from a missing queue", None, method(1, 60, 70, b"\0\0" + shortstr(OTHER) + b"\0"), 404)
channel_error("acknowledging what was never delivered", None, method(1, 60, 80, struct.pack(">QB", 12345, 0)), 406)
channel_error("rejecting what was never delivered", None, method(1, 60, 90, struct.pack(">QB", 12345, 0)), 406)
channel_error("x-match of no kind", lambda c: c.declare("", 4),
              method(1, 50, 20, b"\0\0" + shortstr("") + shortstr("amq.headers") + shortstr("") + b"\0" + table([("x-match", b"S" + longstr("some"))])), 406)

after_login("an exchange of unknown type is refused", method(1, 40, 10, exchange_declare(unique("bad-type"), "x-nonsense")), 503)
after_login("immediate is not implemented", method(1, 60, 40, basic_publish("", "x", 2)) + header(1, 1) + body(1, b"x"), 540)
after_login("a prefetch size is not implemented", method(1, 60, 10, struct.pack(">IHB", 4096, 0, 0)), 540)


@abuse("a consumer tag used twice on a channel is not allowed (530)")
def tag_twice():
    with Wire().login().open() as client:
        queue = client.declare("", 4)[0]
        client.call(1, 60, 20, wire.basic_consume(queue, "same"), 21)
        client.send(method(1, 60, 20, wire.basic_consume(queue, "same")))
        closes_connection(client, 530)


@abuse("another connection's exclusive queue is locked (405), for passive too")
def locked():
    with Wire().login().open() as owner, Wire().login().open() as other:
        name = owner.declare(unique("bad-exclusive"), 4)[0]
        for data in (method(1, 50, 10, queue_declare(name, 4)), method(1, 50, 10, queue_declare(name, 1)), method(1, 60, 20, wire.basic_consume(name))):
            other.send(data)
            closes_channel(other, 1, 405)


@abuse("an unknown virtual host is not allowed (530)")
def unknown_vhost():
    with Wire() as client:
        client.start()
        client.start_ok()
        client.tune()
        client.tune_ok()
        client.send(method(0, 10, 40, shortstr("/nowhere") + shortstr("") + b"\0"))
        closes_connection(client, 530)


# ---------------------------------------------------------------- leaving in the middle


@abuse("a client that dies inside a frame, a header or a body leaves its exclusive queue and nothing else to be cleaned, and it is")
def dies_inside():
    cuts = (b"\x01", struct.pack(">BHI", 1, 1, 5000) + b"x" * 100, method(1, 60, 40, basic_publish("", "x")),
            method(1, 60, 40, basic_publish("", "x")) + header(1, 1 << 20) + body(1, b"y" * 100000))
    for number, cut in enumerate(cuts * 5):
        client = Wire().login().open()
        name = client.declare(f"{unique('dies')}-{number}", 4)[0]
        client.send(cut)
        if number % 2:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()

        def gone():
            with Wire().login().open() as looker:
                looker.send(method(1, 50, 10, queue_declare(name, 1)))
                return looker.close_reply()[2] == 404

        tap.until(gone, "the end of the dead client's queue")


@abuse("octets at random after the handshake end that connection alone", seconds=60)
def random_octets():
    seed = 1
    for _ in range(60):
        data = bytearray()
        for _ in range(400):
            seed = (seed * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
            data.append(seed >> 56)
        with Wire().login().open() as client:
            # A first octet that is no frame type, so that the answer is certain.
            client.send(b"\x77" + bytes(data))
            equal(client.close_reply()[:3], (10, 0, 501))


if __name__ == "__main__":
    sys.exit(tap.main())
