#!/usr/bin/python3
"""make demo's script: it shows what it promises, and interrupted at any moment it leaves no process, namespace or file of a lab."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import labs
import tap
from tap import equal, test

DEMO = str(labs.ROOT / "tools" / "demo")
NAME = f"demo-{os.getpid()}"


def start(folder, seconds):
    environment = dict(os.environ, DEMO_LAB=NAME, DEMO_OUT=folder, DEMO_SECONDS=str(seconds), DEMO_SUBSCRIBERS="5")
    # A session of its own: Ctrl-C at a terminal reaches every process of the foreground group, and so does the test's signal.
    return subprocess.Popen([DEMO], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def nothing_left(folder):
    """The lab's parts carry its name in their arguments, tickbench the folder of its plot."""
    equal([name for name in labs.namespaces() if NAME in name], [], "namespaces left")
    assert not pathlib.Path(f"/run/tickwire-lab/{NAME}").exists(), "the lab's folder is left"
    done = subprocess.run(["ps", "-eo", "pid,args"], stdout=subprocess.PIPE, text=True)
    equal([line for line in done.stdout.splitlines() if NAME in line or folder in line], [], "processes left")


@test("the demo shows table, histogram, plot, queues, busy and idle, stages, and leaves with 0; twice in a row", seconds=120)
def shows():
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            child = start(folder, 1)
            out, err = child.communicate(timeout=60)
            equal(child.returncode, 0, err[-1500:])
            for word in ("direct", "fanout", "topic", "headers", "p99.9", " us |", f"{folder}/latency.svg", "list_queues", "amq.gen-", "busy", "idle",
                         "rendered_to_tx"):
                assert word in out, f"'{word}' is not in what the demo shows:\n{out[-3000:]}"
            assert "<svg" in pathlib.Path(folder, "latency.svg").read_text()
            assert err.count("ticks/s") >= 4, f"no progress was shown: {err}"
            nothing_left(folder)


@test("interrupted at any moment it leaves nothing behind", seconds=150)
def interrupted():
    for delay in (0.2, 0.7, 1.5, 3.0, 5.0):
        with tempfile.TemporaryDirectory() as folder:
            child = start(folder, 2)
            time.sleep(delay)
            os.killpg(child.pid, signal.SIGINT)
            child.communicate(timeout=40)
            equal(child.returncode, 130, f"exit status after {delay} s")
            nothing_left(folder)


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
