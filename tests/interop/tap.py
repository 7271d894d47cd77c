"""TAP for the interop suites: @test("a sentence") registers, main() runs them in order with a bound each and prints.

Suites find the broker in AMQP_HOST and AMQP_PORT, which `tools/lab exec` sets; any AMQP 0-9-1 broker that lets
guest/guest in will do for the suites that name no Tickwire tool.
"""

import os
import signal
import sys
import time
import traceback

HOST = os.environ.get("AMQP_HOST", "")
PORT = int(os.environ.get("AMQP_PORT", "5672"))
TEST_SECONDS = 40

_tests = []


class Skip(Exception):
    """The environment lacks what a test is about (never: the broker failed)."""


def test(sentence, seconds=TEST_SECONDS):
    def register(function):
        _tests.append((sentence, function, seconds))
        return function

    return register


def unique(name):
    """A name that no other run uses, so that a suite can run twice against one broker."""
    return f"{name}-{os.getpid()}"


def until(condition, what, seconds=10.0):
    """Polls until the condition holds: what is awaited is an event, and the bound only ends a failure."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.01)


def equal(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.400}, wanted {wanted!r:.400}")


def _on_alarm(_number, _frame):
    raise TimeoutError("the test overran its bound")


def main(needs_broker=True):
    if needs_broker and not HOST:
        print("Bail out! AMQP_HOST is not set: run it as 'tools/lab exec -- tests/interop/" + os.path.basename(sys.argv[0]) + "'")
        return 1
    # SIGTERM unwinds, so that a suite takes down what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, _on_alarm)
    chosen = [t for t in _tests if len(sys.argv) < 2 or any(word in t[0] for word in sys.argv[1:])]
    if not chosen:
        print(f"Bail out! no test has {sys.argv[1:]} in its sentence")
        return 1
    print(f"1..{len(chosen)}", flush=True)
    failed = 0
    for number, (sentence, function, seconds) in enumerate(chosen, 1):
        signal.alarm(seconds)
        try:
            function()
            signal.alarm(0)
            print(f"ok {number} - {sentence}", flush=True)
        except Skip as reason:
            signal.alarm(0)
            print(f"ok {number} - {sentence} # SKIP {reason}", flush=True)
        except Exception:
            signal.alarm(0)
            failed += 1
            print(f"not ok {number} - {sentence}")
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
            sys.stdout.flush()
    return 1 if failed else 0
