#!/usr/bin/python3
"""The broker over IPv6: echoes to each of its addresses, log-in, publish, consume, and how the connection is listed.

It needs a lab whose broker has an IPv6 address (AMQP_HOST6); the kernel of the client's namespace is the other end.
"""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess

import amqp

import tap
from tap import Skip, equal, test, unique, until

HOST6 = os.environ.get("AMQP_HOST6", "")
ECHO_REQUEST, ECHO_REPLY = 128, 129


def host6():
    if not HOST6:
        raise Skip("AMQP_HOST6 is not set: the lab has no IPv6")
    return HOST6


def reachable():
    """RFC 4862: after its start the broker asks for a second or two whether the address is free."""
    with contextlib.suppress(OSError), socket.create_connection((host6(), tap.PORT), timeout=1):
        return True
    return False


def connect():
    until(reachable, "the broker's IPv6 address")
    connection = amqp.Connection(f"[{host6()}]:{tap.PORT}", userid="guest", password="guest", connect_timeout=10)
    connection.connect()
    return connection


def echo(address, scope=0, size=56):
    """One ping; the kernel fills and verifies the checksum of ICMPv6."""
    body = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, os.getpid() & 0xffff, size) + os.urandom(size)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
        s.settimeout(5)
        s.sendto(body, (address, 0, 0, scope))
        while True:
            reply, _ = s.recvfrom(65536)
            if reply[0] == ECHO_REPLY and reply[4:8] == body[4:8]:
                equal(reply[8:], body[8:], "the echo's bytes")
                return


@test("echoes of 0 to 1452 bytes come back from the global address")
def pings():
    until(reachable, "the broker's IPv6 address")
    for size in (0, 1, 56, 1451, 1452):
        echo(host6(), size=size)


@test("the link-local address that was made from the Ethernet address answers, too")
def pings_link_local():
    until(reachable, "the broker's IPv6 address")
    echo("fe80::54:57ff:fe00:2", scope=socket.if_nametoindex("tw0"))


@test("log-in, declare, bind, publish and consume work over IPv6, from one byte to a megabyte")
def publishes_and_consumes():
    connection = connect()
    channel = connection.channel()
    exchange = unique("ipv6")
    channel.exchange_declare(exchange, "topic", durable=False, auto_delete=True)
    queue = channel.queue_declare("", exclusive=True).queue
    channel.queue_bind(queue, exchange, "tick.#")
    got = []
    channel.basic_consume(queue, no_ack=True, callback=lambda message: got.append(message.body))
    bodies = [os.urandom(1), os.urandom(1440), os.urandom(1441), os.urandom(100000), os.urandom(1 << 20)]
    for body in bodies:
        channel.basic_publish(amqp.Message(body), exchange, "tick.six")
    while len(got) < len(bodies):
        connection.drain_events(timeout=10)
    equal([len(body) for body in got], [len(body) for body in bodies], "lengths")
    assert got == bodies
    connection.close()


@test("a message that was published over IPv4 is consumed over IPv6")
def families_meet():
    six, four = connect(), amqp.Connection(f"{tap.HOST}:{tap.PORT}", userid="guest", password="guest")
    four.connect()
    channel = six.channel()
    queue = channel.queue_declare("", exclusive=True).queue
    four.channel().basic_publish(amqp.Message("across"), "", queue)
    equal(until(lambda: channel.basic_get(queue, no_ack=True), "the message").body, "across")
    four.close()
    six.close()


@test("list_connections names both ends of an IPv6 connection in brackets")
def is_listed():
    if shutil.which("tickctl") is None:
        raise Skip("no tickctl here")
    connection = connect()
    own = connection.sock.getsockname()

    def row():
        done = subprocess.run(["tickctl", "list_connections", "name", "host", "peer_host", "peer_port", "--formatter", "json"],
                              stdout=subprocess.PIPE, check=True, text=True)
        return [r for r in json.loads(done.stdout) if r["peer_port"] == own[1] and ":" in r["peer_host"]]

    equal(until(row, "the connection's row")[0], {"name": f"[2001:2::c612:1]:{own[1]} -> [2001:2::c612:2]:{tap.PORT}",
                                                  "host": "2001:2::c612:2", "peer_host": "2001:2::c612:1", "peer_port": own[1]})
    connection.close()


if __name__ == "__main__":
    raise SystemExit(tap.main())
