"""A bare AMQP 0-9-1 client on a socket: it sends any bytes at all and reads frames, for what no honest client library does.

Method numbers and field encodings are those of the AMQP 0-9-1 specification, sections 2.3 and 4.2.
"""

import socket
import struct

import tap

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
PROTOCOL = b"AMQP\x00\x00\x09\x01"


def shortstr(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return bytes([len(raw)]) + raw


def longstr(raw):
    raw = raw if isinstance(raw, bytes) else raw.encode()
    return struct.pack(">I", len(raw)) + raw


def table(pairs=()):
    """Pairs of (name, already encoded value with its type letter)."""
    return longstr(b"".join(shortstr(name) + value for name, value in pairs))


def frame(kind, channel, payload, end=FRAME_END, size=None):
    return struct.pack(">BHI", kind, channel, len(payload) if size is None else size) + payload + end


def method(channel, class_id, method_id, arguments=b""):
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


def header(channel, body_size, class_id=60, weight=0, flags=0, properties=b""):
    return frame(HEADER, channel, struct.pack(">HHQH", class_id, weight, body_size, flags) + properties)


def body(channel, payload):
    return frame(BODY, channel, payload)


def queue_declare(queue, bits=0, arguments=b"\0\0\0\0"):
    """bits: passive 1, durable 2, exclusive 4, auto-delete 8, no-wait 16."""
    return struct.pack(">H", 0) + shortstr(queue) + bytes([bits]) + arguments


def exchange_declare(exchange, kind, bits=0, arguments=b"\0\0\0\0"):
    return struct.pack(">H", 0) + shortstr(exchange) + shortstr(kind) + bytes([bits]) + arguments


def basic_publish(exchange, key, bits=0):
    return struct.pack(">H", 0) + shortstr(exchange) + shortstr(key) + bytes([bits])


def basic_consume(queue, tag="", bits=0):
    """bits: no-local 1, no-ack 2, exclusive 4, no-wait 8."""
    return struct.pack(">H", 0) + shortstr(queue) + shortstr(tag) + bytes([bits]) + table()


class Closed(Exception):
    """The peer closed the socket."""


class Wire:
    """One connection. `start` greets, `login` also opens the connection on vhost '/', `open` a channel."""

    def __init__(self, timeout=10.0):
        self.sock = socket.create_connection((tap.HOST, tap.PORT), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""
        self.frame_max = self.channel_max = self.heartbeat = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def _take(self, count):
        while len(self.held) < count:
            try:
                more = self.sock.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed(self.held)
            self.held += more
        taken, self.held = self.held[:count], self.held[count:]
        return taken

    def read_frame(self):
        """(type, channel, payload) of the next frame."""
        kind, channel, size = struct.unpack(">BHI", self._take(7))
        payload = self._take(size)
        tap.equal(self._take(1), FRAME_END, "frame end")
        return kind, channel, payload

    def read_method(self):
        """(channel, class, method, arguments) of the next method; heartbeats are passed over."""
        while True:
            kind, channel, payload = self.read_frame()
            if kind == HEARTBEAT:
                continue
            tap.equal(kind, METHOD, f"frame type (payload {payload[:40]!r})")
            return (channel, *struct.unpack(">HH", payload[:4]), payload[4:])

    def expect(self, class_id, method_id, channel=None):
        got = self.read_method()
        if got[1:3] != (class_id, method_id):
            raise AssertionError(f"wanted method {class_id}.{method_id}, got {got[1]}.{got[2]} {got[3][:120]!r}")
        if channel is not None:
            tap.equal(got[0], channel, "channel")
        return got[3]

    def start(self):
        self.send(PROTOCOL)
        return self.expect(10, 10, 0)

    def start_ok(self, user="guest", password="guest", mechanism="PLAIN", properties=b"\0\0\0\0"):
        response = b"\0" + user.encode() + b"\0" + password.encode()
        self.send(method(0, 10, 11, properties + shortstr(mechanism) + longstr(response) + shortstr("en_US")))

    def tune(self):
        self.channel_max, self.frame_max, self.heartbeat = struct.unpack(">HIH", self.expect(10, 30, 0))

    def tune_ok(self, channel_max=None, frame_max=None, heartbeat=0):
        self.channel_max = self.channel_max if channel_max is None else channel_max
        self.frame_max = self.frame_max if frame_max is None else frame_max
        self.send(method(0, 10, 31, struct.pack(">HIH", self.channel_max, self.frame_max, heartbeat)))

    def login(self, **tuning):
        self.start()
        self.start_ok()
        self.tune()
        self.tune_ok(**tuning)
        self.send(method(0, 10, 40, shortstr("/") + shortstr("") + b"\0"))
        self.expect(10, 41, 0)
        return self

    def open(self, channel=1):
        self.send(method(channel, 20, 10, shortstr("")))
        self.expect(20, 11, channel)
        return self

    def call(self, channel, class_id, method_id, arguments, reply):
        """A method and the reply to it, both by number."""
        self.send(method(channel, class_id, method_id, arguments))
        return self.expect(class_id, reply, channel)

    def declare(self, queue, bits=0, channel=1):
        """Declares and returns (name, messages, consumers)."""
        got = self.call(channel, 50, 10, queue_declare(queue, bits), 11)
        end = 1 + got[0]
        return (got[1:end].decode(), *struct.unpack(">II", got[end : end + 8]))

    def publish(self, exchange, key, payload, channel=1, bits=0):
        chunk = (self.frame_max or 131072) - 8
        frames = [method(channel, 60, 40, basic_publish(exchange, key, bits)), header(channel, len(payload))]
        frames += [body(channel, payload[i : i + chunk]) for i in range(0, len(payload), chunk)]
        self.send(b"".join(frames))

    def read_content(self):
        """Header and body after a method that carries content: (header payload, body)."""
        kind, _channel, head = self.read_frame()
        tap.equal(kind, HEADER, "frame type")
        size, text = struct.unpack(">Q", head[4:12])[0], b""
        while len(text) < size:
            kind, _channel, part = self.read_frame()
            tap.equal(kind, BODY, "frame type")
            text += part
        return head, text

    def close_reply(self):
        """Waits for connection.close or channel.close: (class of it, channel, code, text, failing class, failing method)."""
        while True:
            channel, class_id, method_id, arguments = self.read_method()
            if (class_id, method_id) in ((10, 50), (20, 40)):
                code = struct.unpack(">H", arguments[:2])[0]
                end = 3 + arguments[2]
                return (class_id, channel, code, arguments[3:end].decode(errors="replace"), *struct.unpack(">HH", arguments[end : end + 4]))

    def until_closed(self):
        """Everything that comes until the peer closes the socket."""
        data = self.held
        try:
            while True:
                more = self.sock.recv(65536)
                if not more:
                    return data
                data += more
        except ConnectionResetError:
            return data

    def close(self):
        """The orderly close of section 2.2.4."""
        self.send(method(0, 10, 50, struct.pack(">H", 200) + shortstr("") + struct.pack(">HH", 0, 0)))
        self.expect(10, 51, 0)
        self.sock.close()
