#!/usr/bin/python3
"""tickbench over memif: our own TCP stack at both ends, two processes, and no kernel between them.

What is lost, who goes first, and what is left behind; figures are the benchmark's matter.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import labs
import tap
from labs import Lab, lab
from tap import equal, test

BIN = labs.ROOT / "build" / "bin"
TICKBENCH = [str(BIN / "tickbench"), "--port", "memif", labs.BROKER]
RUN_FOLDERS = pathlib.Path("/var/run/dpdk")


def environment(it):
    return dict(os.environ, TICKWIRE_MEMIF=f"/run/tickwire-lab/{it.name}/memif.sock")


def begin(it, *arguments):
    """A tickbench that runs beside us. Its socket is in the file system, so it may live in any network namespace: this one."""
    return subprocess.Popen([*TICKBENCH, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment(it))


def end(child, status):
    try:
        out, err = child.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        child.kill()
        raise AssertionError(f"tickbench did not leave: {child.communicate()}") from None
    equal(child.returncode, status, f"exit status; it said: {out}{err}")
    return out, err


def measure(it, *arguments, status=0):
    out, _err = end(begin(it, "--json", "-", "--quiet", "--warmup", "0.1", "--duration", "0.4", *arguments), status)
    return json.loads(out)["runs"]


def running(it):
    """A child whose ticks are under way."""
    child = begin(it, "--rate", "2000", "--duration", "60", "--progress")
    line = child.stderr.readline()
    assert "deliveries/s" in line, f"{line}{child.stderr.read() if child.poll() is not None else ''}"
    return child


def run_folders():
    return set(os.listdir(RUN_FOLDERS)) if RUN_FOLDERS.is_dir() else set()


def is_alive(it):
    equal(it.status()["state"], "running", "the lab's state")


@test("ticks of all four exchange types arrive over memif, once and in order, acknowledged and confirmed", seconds=120)
def lossless():
    with Lab("memif", "--port", "memif") as it:
        for run in measure(it, "--type", "all", "--subscribers", "5", "--rate", "5000", "--symbols", "7", "--ack", "--confirm"):
            equal((run["clean"], run["error"]), (True, ""), run["load"])
            equal(run["deliveries_received_count"], 2500 * 5)
        # Bodies of many frames and segments, more of them at once than a window holds.
        for run in measure(it, "--size", "300000", "--subscribers", "3", "--rate", "100", "--burst", "10"):
            equal((run["clean"], run["deliveries_received_count"]), (True, 150))
        counters = it.tickctl("stats", "--all").stdout
        chained = [line.split()[1] for line in counters.splitlines() if "port.rx_drop_chained" in line]
        equal(chained in (["0"], []), True, "frames of several buffers")
    assert not pathlib.Path(f"/run/tickwire-lab/{it.name}").exists(), "the run folder is left"


@test("one client after another finds the broker, and what the last one declared is gone", seconds=120)
def again():
    with Lab("memif-again", "--port", "memif") as it:
        before = run_folders()
        for _ in range(5):
            equal(measure(it, "--subscribers", "2", "--rate", "1000")[0]["clean"], True)
        tap.until(lambda: it.json("list_queues") == [], "no queue")
        equal(run_folders() - before, set(), "run-time folders of DPDK left")


@test("Ctrl-C prints the figures up to then (130), and the next client finds no trace", seconds=90)
def interrupted():
    with Lab("memif-int", "--port", "memif") as it:
        child = running(it)
        child.send_signal(signal.SIGINT)
        out, _err = end(child, 130)
        assert "interrupted: these are the figures up to then" in out and "lost 0," in out, out
        tap.until(lambda: it.json("list_queues") == [], "no queue")
        equal(measure(it, "--rate", "1000")[0]["clean"], True)


@test("a broker that is killed ends the load at once (69), in a sentence; one that is back serves again", seconds=90)
def broker_gone():
    with Lab("memif-gone", "--port", "memif") as it:
        child = running(it)
        os.kill(it.pid("dataplane"), signal.SIGKILL)
        _out, err = end(child, 69)
        assert "Network is down" in err, err
        end(begin(it), 69)
        it.restart("dataplane")
        equal(measure(it, "--rate", "1000")[0]["clean"], True)


@test("clients that are killed while the worker is in the driver harm neither it nor who comes next", seconds=150)
def clients_killed():
    with Lab("memif-kill", "--port", "memif") as it:
        pid = it.pid("dataplane")
        for _ in range(12):
            child = begin(it, "--rate", "200000", "--duration", "60", "--progress")
            child.stderr.readline()
            child.kill()
            child.communicate()
            is_alive(it)
        equal(it.pid("dataplane"), pid)
        equal(measure(it, "--rate", "1000", "--subscribers", "3")[0]["clean"], True)


@test("a second client at one wire is told that the link does not come up (69); the first one loses nothing", seconds=90)
def second_client():
    with Lab("memif-two", "--port", "memif") as it:
        first = begin(it, "--rate", "1000", "--duration", "8", "--progress")
        first.stderr.readline()
        _out, err = end(begin(it), 69)
        assert "link" in err, err
        out, _err = end(first, 0)
        assert "lost 0," in out, out


@test("what cannot be is refused in a sentence: no such device, nobody at the socket, an address without a way, no program", seconds=60)
def refused():
    def fails(status, words, *arguments, **more):
        done = subprocess.run([str(BIN / "tickbench"), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=30, **more)
        equal(done.returncode, status, done.stderr)
        last = [line for line in done.stderr.splitlines() if line.startswith("tickbench: ")][-1]
        for word in words:
            assert word in last, f"'{word}' is not in: {done.stderr}"

    fails(64, ["net_ring"], "--port", "net_ring0", labs.BROKER)
    fails(64, ["--threads"], "--port", "memif", "--threads", "2", labs.BROKER)
    fails(69, ["net_nonsense0"], "--port", "net_nonsense0", labs.BROKER)
    fails(69, ["nobody serves its socket"], "--port", "memif,socket=/run/nobody.sock", labs.BROKER)
    with tempfile.TemporaryDirectory() as folder:
        plain = shutil.copy(BIN / "tickbench", folder)
        done = subprocess.run([plain, "--port", "memif", labs.BROKER], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={"PATH": folder}, timeout=30)
        equal(done.returncode, 69, done.stderr)
        assert "tickbench-dpdk" in done.stderr, done.stderr
    with Lab("memif-way", "--port", "memif") as it:
        _out, err = end(begin(it, "--port-ip", "10.0.0.1/8"), 69)
        assert "--port-gateway" in err, err
        _out, err = end(begin(it, "--password", "wrong"), 70)
        assert "403" in err, err


@test("any device of DPDK will do: the same load over net_af_packet on a veth pair", seconds=60)
def other_device():
    with Lab("memif-not", "--port", "net_af_packet") as it:
        # The kernel has its own address on that end, so tickbench takes another.
        done = it.run("tickbench", "--port", "net_af_packet0,iface=tw0", "--port-ip", "198.18.0.9/24", "--rate", "500", "--duration", "0.5", "--warmup", "0.1",
                      "--subscribers", "3", "--json", "-", "--quiet")
        run = json.loads(done.stdout)["runs"][0]
        equal((run["clean"], run["deliveries_received_count"]), (True, 900))


@test("the lab gives back the hugepages that it was asked to add, and no others")
def hugepages():
    pages = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    before = int(pages.read_text())
    with Lab("memif-huge", "--port", "memif", "--hugepages", "3") as it:
        equal(int(pages.read_text()) - before, 3)
        is_alive(it)
    equal(int(pages.read_text()), before)
    available_kb = next(int(line.split()[1]) for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    if available_kb < 2 * 65536 * 2048:
        done = lab("start", "--name", "memif-many", "--hugepages", "65536", status=69)
        assert "more than half" in done.stderr, done.stderr
        equal(int(pages.read_text()), before, "after a start that could not have them")


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
