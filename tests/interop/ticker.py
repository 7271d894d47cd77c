"""A bystander: one connection that keeps publishing numbered ticks to its own queue and checks that each comes back, in order.

Tests that abuse the broker on another connection ask it for proof: some more ticks after the abuse, none lost or late by more
than the bound, on the very connection that was there before.
"""

import threading

import wire


class Ticker:
    def __init__(self):
        self.wire = wire.Wire().login().open()
        self.queue = self.wire.declare("", 4)[0]
        self.wire.call(1, 60, 20, wire.basic_consume(self.queue, "", 2), 21)
        self.seen, self.failure, self.stop = 0, None, threading.Event()
        self.moved = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.stop.is_set():
                text = b"%d" % self.seen
                self.wire.publish("", self.queue, text)
                self.wire.expect(60, 60, 1)
                got = self.wire.read_content()[1]
                if got != text:
                    raise AssertionError(f"tick {text!r} was awaited, {got!r} came")
                with self.moved:
                    self.seen += 1
                    self.moved.notify_all()
                self.stop.wait(0.001)
        except Exception as error:
            with self.moved:
                self.failure = error
                self.moved.notify_all()

    def proof(self, ticks=5, seconds=10.0):
        """Returns once so many more ticks have come; fails if the connection broke, a tick was lost or none comes."""
        with self.moved:
            wanted = self.seen + ticks
            self.moved.wait_for(lambda: self.failure or self.seen >= wanted, seconds)
            if self.failure:
                raise AssertionError(f"the bystander's connection broke after {self.seen} ticks: {self.failure!r}")
            if self.seen < wanted:
                raise AssertionError(f"the bystander's ticks stopped at {self.seen}")
        return self.seen

    def end(self):
        self.stop.set()
        self.thread.join(10)
        self.wire.close()
