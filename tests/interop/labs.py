"""Labs of a suite's own, for what cannot be shown in a shared one: killed processes, restarts, ports, the lab's own manners.

The suite stays outside; inside() puts the calling thread into the client's namespace for as long as it makes sockets.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys

import tap

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOL = str(ROOT / "tools" / "lab")
BROKER = "198.18.0.2"

libc = ctypes.CDLL(None, use_errno=True)
# A runner that ends a suite must not leave its labs: SIGTERM unwinds.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def lab(*arguments, status=0, **more):
    """Runs tools/lab; fails unless it exits as expected. status None: any."""
    done = subprocess.run([TOOL, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=90, **more)
    if status is not None and done.returncode != status:
        raise AssertionError(f"lab {' '.join(arguments)} left with status {done.returncode}, wanted {status}: {done.stdout}{done.stderr}")
    return done


def namespaces():
    done = subprocess.run(["ip", "netns", "list"], stdout=subprocess.PIPE, text=True)
    return {line.split()[0] for line in done.stdout.splitlines() if line}


class Lab:
    """`with Lab("name", …start's arguments) as it:` – started, and stopped whatever happens."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = f"{name}-{os.getpid()}", arguments

    def __enter__(self):
        try:
            done = lab("start", "--name", self.name, *self.arguments)
        except BaseException:
            self.stop()
            raise
        tap.equal(done.stdout.splitlines()[-1], BROKER, "the last line of lab start")
        tap.HOST = BROKER
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        lab("stop", "--name", self.name)

    def status(self):
        return json.loads(lab("status", "--name", self.name, "--formatter", "json", status=None).stdout)[0]

    def pid(self, role):
        return self.status()["processes"][role]["pid"]

    def restart(self, role):
        lab("restart", role, "--name", self.name)

    @contextlib.contextmanager
    def inside(self):
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        away = os.open(f"/run/netns/tw-{self.name}-c", os.O_RDONLY)
        try:
            if libc.setns(away, 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            libc.setns(home, 0x40000000)
            os.close(home)
            os.close(away)

    def run(self, *command, status=0, **more):
        """A command on the client's side."""
        done = subprocess.run([TOOL, "exec", "--name", self.name, "--", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60, **more)
        if status is not None and done.returncode != status:
            raise AssertionError(f"{' '.join(command)} left with status {done.returncode}, wanted {status}: {done.stdout}{done.stderr}")
        return done

    def tickctl(self, *arguments, status=0):
        return self.run("tickctl", *arguments, status=status)

    def json(self, *arguments):
        return json.loads(self.tickctl(*arguments, "--formatter", "json").stdout)
