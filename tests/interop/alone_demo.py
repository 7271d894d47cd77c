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
    for delay in (0.05, 0.2, 0.7, 1.5, 3.0, 5.0):
        with tempfile.TemporaryDirectory() as folder:
            child = start(folder, 2)
            time.sleep(delay)
            os.killpg(child.pid, signal.SIGINT)
            err = child.communicate(timeout=40)[1]
            equal(child.returncode, 130, f"exit status after {delay} s ({err[-500:]})")
            assert "Traceback" not in err, err
            nothing_left(folder)


@test("--help shows how to use it; an unknown argument is refused with 64, and nothing is started")
def usage():
    done = subprocess.run([DEMO, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=10)
    equal((done.returncode, done.stderr), (0, ""))
    assert "DEMO_LAB" in done.stdout and "64" in done.stdout, done.stdout
    done = subprocess.run([DEMO, "--fast"], env=dict(os.environ, DEMO_LAB=NAME), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=10)
    equal((done.returncode, done.stdout), (64, ""))
    assert "--fast" in done.stderr and "usage" in done.stderr, done.stderr


@test("a lab of that name that others started is refused (75) and lives on", seconds=60)
def spares_others():
    with labs.Lab("mine") as mine, tempfile.TemporaryDirectory() as folder:
        before = mine.pid("dataplane")
        done = subprocess.run([DEMO], env=dict(os.environ, DEMO_LAB=mine.name, DEMO_OUT=folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=30)
        equal(done.returncode, 75, done.stderr)
        assert "running already" in done.stderr, done.stderr
        equal((mine.status()["state"], mine.pid("dataplane")), ("running", before))
        equal(os.listdir(folder), [], "files left")


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
