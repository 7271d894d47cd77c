"""A router that spoils the wire: Debian's user-mode-linux, whose kernel has sch_netem where the host's may have none.

It stands between two namespaces, the lab's client side and one of a far client, and impairs what it sends to either. The suites own it;
its root is the host's own file system, read only, so that no image is needed. It follows tc-netem(8) for the words of a profile.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import tempfile
import threading

import tap

UML = "/usr/bin/linux.uml"
MODULES = pathlib.Path("/usr/lib/uml/modules")
TUN = "/dev/net/tun"
NEAR, NEAR_ROUTER = "198.18.1.1", "198.18.1.2"
FAR_ROUTER, FAR = "198.18.2.1", "198.18.2.2"
FAR_NET = "198.18.2.0/24"
BOOT_SECONDS, ANSWER_SECONDS, END_SECONDS = 40, 20, 10
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000

# It obeys its standard input a line at a time, and says how each command ended.
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
stty -echo -onlcr
mount -t proc proc /proc
insmod {module}
echo 1 > /proc/sys/net/ipv4/ip_forward
ip addr add {near}/24 dev vec0 && ip addr add {far}/24 dev vec1 &&
ip link set vec0 up && ip link set vec1 up && ip route add 198.18.0.0/24 via {gateway}
echo "=$?"
while read -r line; do
	eval "$line" </dev/null 2>&1
	echo "=$?"
done
"""

libc = ctypes.CDLL(None, use_errno=True)


def netem_module():
    return next(iter(MODULES.glob("*/kernel/net/sched/sch_netem.ko")), None)


def missing():
    """Why there can be no such router here, or None."""
    if not os.access(UML, os.X_OK):
        return f"{UML} is missing: install package user-mode-linux"
    if netem_module() is None:
        return f"no sch_netem.ko below {MODULES}"
    if not os.path.exists(TUN):
        return f"{TUN} is missing"
    for program in ("insmod", "tc", "ip", "setpriv", "unshare"):
        if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            return f"the command {program} is missing"
    return None


def enter(namespace):
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def within(namespace):
    """The calling thread, and threads that it starts, are in the namespace of this descriptor."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        yield
    finally:
        enter(home)
        os.close(home)


def nameless_namespace():
    """A network namespace that lasts as long as its descriptor: nothing is left of it, however this process ends."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    finally:
        enter(home)
        os.close(home)


def ip(*words):
    done = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise AssertionError(f"ip {' '.join(words)}: {done.stdout}")


def new_tap(name, address):
    """A tap without offloads, so that each frame on it is a whole one; it goes with its last descriptor."""
    tun = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        ip("addr", "add", f"{address}/24", "dev", name)
        ip("link", "set", name, "up")
    except BaseException:
        os.close(tun)
        raise
    return tun


class Router:
    """`with Router(near) as router:` where near is a context that puts the thread into the lab's client namespace."""

    def __init__(self, near):
        self.near, self.child, self.said, self.told = near, None, [], threading.Condition()
        self.undo = contextlib.ExitStack()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.undo.close()
            raise
        return self

    def __exit__(self, *_):
        self.undo.close()

    def start(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="tickwire-netem."))
        self.undo.callback(shutil.rmtree, folder, ignore_errors=True)
        init = folder / "init"
        init.write_text(INIT.format(module=netem_module(), near=NEAR_ROUTER, far=FAR_ROUTER, gateway=NEAR))
        init.chmod(0o755)
        self.far_ns = nameless_namespace()
        self.undo.callback(os.close, self.far_ns)
        with self.near():
            near_tap = new_tap("um0", NEAR)
            self.undo.callback(os.close, near_tap)
            # Both ends recover by the same rules then, and only the two stacks are compared: the host's choice may be another.
            ip("route", "add", FAR_NET, "via", NEAR_ROUTER, "congctl", "cubic")
            pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        with self.far():
            far_tap = new_tap("um1", FAR)
            self.undo.callback(os.close, far_tap)
            ip("route", "add", "default", "via", FAR_ROUTER, "congctl", "cubic")
        # A process namespace of its own: killing its first process ends all of the many that user-mode-linux has. Should this suite be
        # killed, they go with it.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", UML, "mem=64M", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}",
                   "con=null", "ssl=null", "con0=fd:0,fd:1", "quiet", f"uml_dir={folder}/",
                   f"vec0:transport=fd,fd={near_tap},vec=0", f"vec1:transport=fd,fd={far_tap},vec=0"]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
                                      pass_fds=(near_tap, far_tap), start_new_session=True, env=dict(os.environ, TMPDIR="/tmp"))
        self.undo.callback(self.end)
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()
        self.answer(BOOT_SECONDS)

    def end(self):
        # Its first process goes first, so that its parent, unshare, sees it out; should there be none, unshare alone goes.
        first = pathlib.Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()
        for pid in first:
            os.kill(int(pid), signal.SIGKILL)
        if not first:
            self.child.kill()
        try:
            self.child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        # The output ends when the last process that has it is gone.
        self.reader.join(END_SECONDS)
        self.child.stdin.close()
        self.child.stdout.close()
        assert not self.reader.is_alive(), "user-mode-linux was killed and still runs"

    def listen(self):
        for line in self.child.stdout:
            with self.told:
                self.said.append(line.decode(errors="replace").rstrip("\r\n"))
                self.told.notify()
        with self.told:
            self.said.append(None)
            self.told.notify()

    def answer(self, seconds):
        """What it printed up to its '=status' line, which must be '=0'."""

        def whole():
            return any(line is None or line.startswith("=") for line in self.said)

        with self.told:
            if not self.told.wait_for(whole, seconds):
                raise AssertionError(f"the router did not answer within {seconds} s; it said {self.said[-12:]}")
            end = next(i for i, line in enumerate(self.said) if line is None or line.startswith("="))
            text, status = self.said[:end], self.said[end]
            del self.said[: end + 1]
        if status != "=0":
            raise AssertionError(f"the router answered {status} after {text[-12:]}")
        return "\n".join(text)

    def tell(self, command):
        self.child.stdin.write(command.encode() + b"\n")
        self.child.stdin.flush()
        return self.answer(ANSWER_SECONDS)

    def impair(self, profile):
        """Both ways by tc-netem(8)'s words; an empty profile makes it a plain router."""
        for device in ("vec0", "vec1"):
            self.tell(f"tc qdisc del dev {device} root 2>/dev/null; true")
            if profile:
                self.tell(f"tc qdisc add dev {device} root netem limit 5000 {profile}")

    def dropped(self):
        """Frames that netem took away since impair()."""
        words = self.tell("tc -s qdisc show").replace(",", " ").split()
        return sum(int(words[i + 1]) for i, word in enumerate(words) if word == "(dropped")

    def far(self):
        return within(self.far_ns)
