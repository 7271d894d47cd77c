"""A TCP peer made by hand on the lab's netdev: it sends any segment at all with scapy, and takes apart what the broker says.

Its address is one that the kernel does not have, so that nobody resets its connections; ARP for it is answered here. It runs in
the client's namespace of a lab over net_tap. What must not come is awaited by events: echo replies of two bursts later.
"""

import os
import select
import socket
import struct
import time

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

import tap

NETDEV = "tw0"
ADDRESS, MAC = f"198.18.0.{64 + os.urandom(1)[0] % 128}", "02:54:57:00:00:4d"  # another run's TIME-WAIT is not in the way
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
WAIT_SECONDS = 5.0
HEADER = b"AMQP\x00\x00\x09\x01"
MODULO = 1 << 32

conf.verb = 0


def plus(number, offset):
    return (number + offset) % MODULO


def distance(to, start):
    """How far `to` lies after `start`, negative where before."""
    return (to - start + MODULO // 2) % MODULO - MODULO // 2


def options(*pairs):
    """The bytes of options, padded with zeros: (kind, bytes after the length) or a bare kind."""
    raw = b"".join(bytes([p]) if isinstance(p, int) else bytes([p[0], 2 + len(p[1])]) + p[1] for p in pairs)
    return raw + bytes(-len(raw) % 4)


def mss(value):
    return 2, struct.pack(">H", value)


def wscale(value):
    return 3, bytes([value])


def stamps(value, echo=0):
    return 8, struct.pack(">II", value % MODULO, echo % MODULO)


SACK_PERMITTED = (4, b"")


class Segment:
    """What the broker sent."""

    def __init__(self, ip):
        tcp = ip[TCP]
        self.flags, self.seq, self.ack, self.window = int(tcp.flags), tcp.seq, tcp.ack, tcp.window
        self.sport, self.dport = tcp.sport, tcp.dport
        raw = bytes(tcp)
        header = (raw[12] >> 4) * 4
        self.data = raw[header : ip.len - ip.ihl * 4]
        self.options = self._options(raw[20:header])

    @staticmethod
    def _options(raw):
        found = {}
        while raw and raw[0] != 0:
            if raw[0] == 1:
                raw = raw[1:]
                continue
            found[raw[0]] = raw[2 : raw[1]]
            raw = raw[raw[1] :]
        return found

    @property
    def space(self):
        return len(self.data) + bool(self.flags & (SYN | FIN))

    @property
    def stamps(self):
        return struct.unpack(">II", self.options[8]) if 8 in self.options else None

    @property
    def sacks(self):
        raw = self.options.get(5, b"")
        return [struct.unpack(">II", raw[i : i + 8]) for i in range(0, len(raw), 8)]

    def __repr__(self):
        names = [n for bit, n in ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (ACK, "ACK")) if self.flags & bit]
        return f"<{'+'.join(names)} seq {self.seq} ack {self.ack} len {len(self.data)} wnd {self.window} opts {sorted(self.options)}>"


class Link:
    """The raw socket, one for the whole suite."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.sock.bind((NETDEV, 0))
        self.peer_mac, self.echoes = None, 0
        self.queue, self.next_port = {}, 20000 + int.from_bytes(os.urandom(2), "big") % 40000
        self._find_broker()

    def _find_broker(self):
        ask = bytes(Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=MAC, psrc=ADDRESS, pdst=tap.HOST))
        deadline = time.monotonic() + WAIT_SECONDS
        while self.peer_mac is None and time.monotonic() < deadline:
            self.sock.send(ask)
            self.poll(0.2)
        assert self.peer_mac, "the broker does not answer ARP"

    def send(self, ip):
        self.sock.send(bytes(Ether(src=MAC, dst=self.peer_mac)) [:12] + b"\x08\x00" + ip)

    def poll(self, seconds):
        """Takes one frame within the time, and files it. False: none came."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return False
        raw, where = self.sock.recvfrom(65536)
        if where[2] == socket.PACKET_OUTGOING:
            return True
        if raw[12:14] == b"\x08\x06":
            self._arp(Ether(raw)[ARP])
        elif raw[12:14] == b"\x08\x00" and raw[30:34] == socket.inet_aton(ADDRESS):
            ip = IP(raw[14:])
            if raw[23] == 6:
                seen = Segment(ip)
                self.queue.setdefault((seen.sport, seen.dport), []).append(seen)
            elif raw[23] == 1 and ICMP in ip and ip[ICMP].type == 0:
                self.echoes = ip[ICMP].seq
        return True

    def _arp(self, arp):
        if arp.op == 2 and arp.psrc == tap.HOST:
            self.peer_mac = arp.hwsrc
        elif arp.op == 1 and arp.pdst == ADDRESS and arp.psrc == tap.HOST:
            self.sock.send(bytes(Ether(src=MAC, dst=arp.hwsrc) / ARP(op=2, hwsrc=MAC, psrc=ADDRESS, hwdst=arp.hwsrc, pdst=arp.psrc)))

    def barrier(self):
        """Two echoes one after the other: what was sent before them has been handled, and answered, in a burst of its own."""
        for _ in range(2):
            number = self.echoes % 60000 + 1
            self.send(bytes(IP(src=ADDRESS, dst=tap.HOST) / ICMP(id=os.getpid() % 65536, seq=number)))
            deadline = time.monotonic() + WAIT_SECONDS
            while self.echoes != number:
                assert time.monotonic() < deadline, "the broker does not answer an echo request"
                self.poll(0.5)

    def port(self):
        self.next_port = 20000 + (self.next_port - 20000 + 1) % 40000
        return self.next_port


_link = None


def link():
    global _link
    if _link is None:
        _link = Link()
    return _link


class Peer:
    """One connection, as the client's side sees it. `snd` is our next number, `rcv` the broker's next."""

    def __init__(self, port=None, sport=None):
        self.link = link()
        self.port, self.sport = port or tap.PORT, sport or self.link.port()
        self.iss = self.snd = struct.unpack(">I", os.urandom(4))[0]
        self.rcv = self.window_shift = self.broker_window = 0
        self.window, self.mss = 65535, 1460
        self.held_ack = None  # acknowledged in place of `rcv`, where a FIN is to stay unacknowledged
        self.finished = False
        self.stamp = None  # (our clock, the broker's last value) once agreed
        self.seen, self.stream = set(), b""
        self.key = (self.port, self.sport)
        self.link.queue.pop(self.key, None)

    @property
    def acked(self):
        return self.rcv if self.held_ack is None else self.held_ack

    # ---- sending

    def send(self, flags, data=b"", seq=None, ack=None, raw_options=None, window=None, **fields):
        """Any segment; `fields` override scapy's (chksum, dataofs, urgptr, reserved). It counts nothing."""
        if raw_options is None:
            raw_options = options(1, 1, stamps(*self.stamp)) if self.stamp else b""
        fields.setdefault("dataofs", 5 + len(raw_options) // 4)
        tcp = TCP(sport=self.sport, dport=self.port, flags=flags, seq=self.snd if seq is None else seq % MODULO,
                  ack=(self.acked if ack is None else ack % MODULO) if flags & ACK or ack is not None else 0,
                  window=self.window if window is None else window, **fields)
        self.link.send(bytes(IP(src=ADDRESS, dst=tap.HOST) / tcp / Raw(raw_options + data)))

    def say(self, flags, data=b"", **more):
        """A segment in sequence: what it occupies is counted."""
        self.send(flags, data, **more)
        self.snd = plus(self.snd, len(data) + bool(flags & (SYN | FIN)))

    # ---- hearing

    def take(self):
        return self.link.queue.pop(self.key, [])

    def settle(self):
        """What the broker says at once to what was sent."""
        self.link.barrier()
        return self.take()

    def hear(self, what, accept, seconds=WAIT_SECONDS):
        """Waits for a segment; those before it are passed over. Bytes in sequence are gathered."""
        deadline = time.monotonic() + seconds
        others = []
        while True:
            waiting = self.take()
            for i, seg in enumerate(waiting):
                self.note(seg)
                if accept(seg):
                    self.link.queue.setdefault(self.key, [])[:0] = waiting[i + 1 :]
                    return seg
                others.append(seg)
            left = deadline - time.monotonic()
            assert left > 0, f"{what} did not come within {seconds:.0f} s; came: {others}"
            self.link.poll(left)

    def note(self, seg):
        """Bookkeeping: what is in sequence advances `rcv`; what takes sequence space is remembered, to know it again."""
        if seg.space:
            self.seen.add((seg.seq, seg.space))
        if seg.flags & ACK and seg.flags & (SYN | RST) == 0:
            self.broker_window = seg.window << self.window_shift
        if self.stamp and seg.stamps:
            self.stamp = (self.stamp[0], seg.stamps[0])
        skip = distance(self.rcv, seg.seq)
        if seg.flags & (SYN | RST) == 0 and 0 <= skip < seg.space:
            self.stream += seg.data[skip:]
            self.finished |= bool(seg.flags & FIN)
            self.rcv = plus(seg.seq, seg.space)

    # ---- opening and leaving

    def syn(self, raw_options=None, flags=SYN, **more):
        self.say(flags, raw_options=options(mss(1460)) if raw_options is None else raw_options, **more)
        answer = self.hear("SYN-ACK", lambda s: s.flags & SYN)
        self.heed(answer)
        return answer

    def heed(self, answer):
        tap.equal(answer.flags & (SYN | ACK | RST | FIN), SYN | ACK, "flags of the SYN-ACK")
        tap.equal(answer.ack, self.snd, "number acknowledged by the SYN-ACK")
        self.rcv = plus(answer.seq, 1)
        self.broker_window = answer.window
        self.window_shift = answer.options[3][0] if 3 in answer.options else 0

    def open(self, raw_options=None, window=65535):
        self.window = window
        answer = self.syn(raw_options)
        if raw_options and 8 in answer.options:
            self.stamp = (1, answer.stamps[0])
        self.say(ACK)
        return self

    def greet(self, skip=0):
        """The rest of the protocol header; the broker answers with connection.start."""
        self.say(ACK | PSH, HEADER[skip:])
        self.await_start()

    def await_start(self):
        while not whole_start(self.stream):
            seg = self.hear("connection.start", lambda s: s.data or s.flags & RST)
            assert not seg.flags & RST, f"a reset instead of connection.start: {seg}"
            self.say(ACK)

    def is_gone(self):
        """The broker knows nothing of the connection: RFC 9293 3.10.7.1, a reset numbered by our ACK."""
        self.take()
        self.send(ACK)
        answer = self.settle()
        assert any(s.flags & RST and s.seq == self.acked for s in answer), f"the connection should be gone, but it said {answer}"

    def kill(self):
        self.send(RST, seq=self.snd)
        self.take()


def whole_start(stream):
    """A whole frame: connection.start."""
    return len(stream) >= 8 and len(stream) >= struct.unpack(">I", stream[3:7])[0] + 8 and stream[:1] == b"\x01"
