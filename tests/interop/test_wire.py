#!/usr/bin/python3
"""What is seen frame by frame: tuning, heartbeats, framing at any cut, flow control of TCP under AMQP, and the ways to leave."""

import os
import socket
import struct
import sys
import threading
import time

import tap
import wire
from tap import equal, test, unique, until
from wire import Wire, method

MIB = os.urandom(1024) * 1024


@test("connection.tune offers 2047 channels, frames of 131072 octets and a heartbeat of 60 s")
def tuning():
    with Wire() as client:
        greeting = client.start()
        equal(greeting[:2], b"\x00\x09", "version")
        assert b"PLAIN" in greeting and b"en_US" in greeting, greeting
        client.start_ok()
        client.tune()
        equal((client.channel_max, client.frame_max, client.heartbeat), (2047, 131072, 60))


@test("with a heartbeat of 1 s an idle client sees heartbeat frames: type 8, channel 0, empty (section 4.2.7)")
def beats():
    with Wire().login(heartbeat=1) as client:
        for _ in range(3):
            equal(client.read_frame(), (wire.HEARTBEAT, 0, b""))
            client.send(wire.frame(wire.HEARTBEAT, 0, b""))


@test("a client that sends nothing for more than two heartbeats is cut off; one that only beats is not; nor is one without heartbeat", seconds=30)
def silence():
    with Wire().login(heartbeat=1) as silent, Wire().login(heartbeat=1) as beating, Wire().login(heartbeat=0) as unwatched:
        stop = threading.Event()

        def beat():
            while not stop.wait(0.4):
                beating.send(wire.frame(wire.HEARTBEAT, 0, b""))

        beater = threading.Thread(target=beat, daemon=True)
        beater.start()
        silent.sock.settimeout(15)
        silent.until_closed()
        stop.set()
        beater.join()
        beating.open(1)
        unwatched.open(1)


@test("without heartbeat no heartbeat frame comes")
def no_beats():
    with Wire().login(heartbeat=0) as client:
        client.sock.settimeout(2.5)
        try:
            raise AssertionError(f"a frame came: {client.read_frame()}")
        except TimeoutError:
            pass


@test("methods, header and body that come octet by octet, and all in one segment, make the same message")
def any_cut():
    with Wire().login().open() as client:
        queue = client.declare("", 4)[0]
        client.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
        parts = method(1, 60, 40, wire.basic_publish("", queue)) + wire.header(1, 11) + wire.body(1, b"tick ") + wire.body(1, b"by bit")
        for octet in parts:
            client.send(bytes([octet]))
        client.send(parts * 200)
        for _ in range(201):
            client.expect(60, 60, 1)
            equal(client.read_content()[1], b"tick by bit")
        client.close()


@test("a body is cut to the frame-max of who receives it, whatever the sender's was")
def recut():
    with Wire().login(frame_max=131072).open() as large, Wire().login(frame_max=4096).open() as small:
        queue = unique("wire-recut")
        small.declare(queue, 4)
        sent, got = MIB[:300001], b""
        large.publish("", small.declare(queue, 4)[0], sent)
        small.send(method(1, 60, 70, b"\0\0" + wire.shortstr(queue) + b"\1"))
        while small.read_method()[2] != 71:
            time.sleep(0.01)
            small.send(method(1, 60, 70, b"\0\0" + wire.shortstr(queue) + b"\1"))
        small.read_frame()
        while len(got) < len(sent):
            kind, _channel, part = small.read_frame()
            equal(kind, wire.BODY)
            assert 0 < len(part) <= 4096 - 8, len(part)
            got += part
        assert got == sent, "other octets came back"


@test("a consumer that stops reading while 8 MiB come gets all of it afterwards, and others are served meanwhile", seconds=60)
def slow_reader():
    with Wire().login().open() as slow, Wire().login().open() as publisher, Wire().login().open() as other:
        queue = unique("wire-slow")
        slow.declare(queue, 4)
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
        # The bystander's queue is read by its own connection while the slow one's window is shut.
        mine = other.declare("", 4)[0]
        other.call(1, 60, 20, wire.basic_consume(mine, "", 2), 21)
        exclusive_name = unique("wire-slow-x")
        publisher.call(1, 40, 10, wire.exchange_declare(exclusive_name, "fanout", 4), 11)
        for client, target in ((slow, queue), (other, mine)):
            client.call(1, 50, 20, b"\0\0" + wire.shortstr(target) + wire.shortstr(exclusive_name) + wire.shortstr("") + b"\0" + wire.table(), 21)
        sender = threading.Thread(target=lambda: [publisher.publish(exclusive_name, "", b"%07d" % i + MIB[:65529]) for i in range(128)], daemon=True)
        sender.start()
        for client in (other, slow):
            client.sock.settimeout(30)
            for i in range(128):
                client.expect(60, 60, 1)
                text = client.read_content()[1]
                assert text == b"%07d" % i + MIB[:65529], f"message {i} is another"
        sender.join()


@test("publishes that are followed at once by connection.close, or by a FIN alone, all arrive")
def leave_at_once():
    with Wire().login().open() as keeper:
        queue = unique("wire-leave")
        keeper.declare(queue)
        # RabbitMQ forgets what it has not yet handled when the FIN comes; TCP has delivered it, so Tickwire takes it.
        for orderly in (True,) if os.environ.get("AMQP_PEER_MAY_DROP") else (True, False):
            leaver = Wire().login().open()
            for i in range(100):
                leaver.publish("", queue, b"%d" % i)
            if orderly:
                leaver.close()
            else:
                leaver.sock.shutdown(socket.SHUT_WR)
                leaver.until_closed()
            until(lambda: keeper.declare(queue)[1] == 100, "all hundred messages")
            equal(keeper.call(1, 50, 30, b"\0\0" + wire.shortstr(queue) + b"\0", 31), struct.pack(">I", 100))
        keeper.call(1, 50, 40, b"\0\0" + wire.shortstr(queue) + b"\0", 41)


@test("a half-closed connection (FIN without connection.close) is closed by the broker, too")
def half_close():
    with Wire().login().open() as client:
        client.sock.shutdown(socket.SHUT_WR)
        client.sock.settimeout(10)
        client.until_closed()


@test("a hundred connections open and close at once")
def many_connections():
    clients = [Wire() for _ in range(100)]
    for client in clients:
        client.send(wire.PROTOCOL)
    for client in clients:
        client.expect(10, 10, 0)
        client.start_ok()
    for client in clients:
        client.tune()
        client.tune_ok()
        client.send(method(0, 10, 40, wire.shortstr("/") + wire.shortstr("") + b"\0"))
    for client in clients:
        client.expect(10, 41, 0)
        client.open()
    for client in clients:
        client.close()


@test("the host answers ICMP echo (RFC 792)")
def echo():
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(5)
        sock.connect((tap.HOST, 0))
        head, text = struct.pack(">BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1), b"tickwire?" * 9
        total = sum(struct.unpack(f">{(len(head) + len(text) + 1) // 2}H", head + text + b"\0" * (len(text) % 2)))
        total = (total & 0xFFFF) + (total >> 16)
        sock.send(struct.pack(">BBHHH", 8, 0, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF, os.getpid() & 0xFFFF, 1) + text)
        while True:
            packet = sock.recv(2048)
            answer = packet[(packet[0] & 15) * 4 :]
            if answer[0] == 0 and answer[4:8] == head[4:8]:
                equal(answer[8:], text)
                return


if __name__ == "__main__":
    sys.exit(tap.main())
