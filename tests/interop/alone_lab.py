#!/usr/bin/python3
"""The software lab's own manners: labs side by side, every port, refusals with a cause and a cure, nothing left behind."""

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
import wire
from labs import Lab, lab
from tap import equal, test, until

PR_SET_CHILD_SUBREAPER = 36


def refuses(status, words, *arguments, **more):
    done = lab(*arguments, status=status, **more)
    for word in words:
        assert word in done.stderr, f"'{word}' is not in: {done.stderr}"
    return done


def round_trip(text):
    with wire.Wire().login().open() as client:
        queue = client.declare("", 4)[0]
        client.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
        client.publish("", queue, text)
        client.expect(60, 60, 1)
        equal(client.read_content()[1], text)
        client.close()


def nothing_left(name):
    left = [n for n in labs.namespaces() if n.startswith(f"tw-{name}-")]
    equal(left, [], "namespaces left")
    assert not pathlib.Path(f"/run/tickwire-lab/{name}").exists(), "the run folder is left"
    done = subprocess.run(["ps", "-eo", "pid,args"], stdout=subprocess.PIPE, text=True)
    equal([line for line in done.stdout.splitlines() if f"tickwire-lab/{name}/" in line], [], "processes left")


@test("unknown options, ports and verbs are refused with 64 and usage")
def usage():
    for arguments in (["start", "--prot", "net_tap"], ["start", "--port", "net_wire"], ["start", "--workers", "0"], ["start", "--workers", "many"],
                      ["begin"], [], ["stop", "--", "x"], ["exec"], ["start", "--name", "../x"]):
        done = lab(*arguments, status=64)
        assert done.stderr.strip(), f"no word about {arguments}"


@test("exec, logs and status of a lab that is not there say so with 69; stop of one is no error")
def no_such_lab():
    refuses(69, ["no lab", "lab start"], "exec", "--name", "nowhere", "--", "true")
    refuses(69, ["no lab"], "logs", "--name", "nowhere")
    lab("status", "--name", "nowhere", status=69)
    lab("stop", "--name", "nowhere")


@test("without privilege it says so (77) and how to get it")
def no_privilege():
    bare = ["setpriv", "--bounding-set", "-net_admin,-sys_admin", "--inh-caps", "-net_admin,-sys_admin", labs.TOOL, "start", "--name", "bare"]
    done = subprocess.run(bare, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    equal(done.returncode, 77, done.stderr)
    assert "CAP_NET_ADMIN" in done.stderr and "root" in done.stderr, done.stderr
    nothing_left("bare")


@test("without programs it names 'make' (69)")
def not_built():
    with tempfile.TemporaryDirectory() as empty:
        refuses(69, ["not built", "make"], "start", "--name", "unbuilt", env=dict(os.environ, TICKWIRE_BIN=empty))
    nothing_left("unbuilt")


@test("without /dev/net/tun it names the cause and three cures (69)")
def no_tun():
    script = f"touch $1/tun && mount --bind $1/tun /dev/net/tun && exec {labs.TOOL} start --name tunless"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    equal(done.returncode, 69, done.stderr)
    for word in ("/dev/net/tun", "modprobe tun", "net_af_packet"):
        assert word in done.stderr, done.stderr
    nothing_left("tunless")


@test("a dataplane that refuses its options shows its words, and nothing is left", seconds=60)
def bad_extra():
    refuses(64, ["no-such-option"], "start", "--name", "badextra", "--", "--no-such-option")
    nothing_left("badextra")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write("[dataplane]\nno_such_key = 1\n")
        conf.flush()
        refuses(78, ["no_such_key"], "start", "--name", "badextra", "--config", conf.name)
    nothing_left("badextra")


@test("another user is told to be root (77), in a sentence, by whatever asks about a running lab", seconds=60)
def other_user():
    with Lab("private") as it, tempfile.TemporaryDirectory() as folder:
        # A copy where anybody may read: the tree itself may lie in a closed folder.
        os.chmod(folder, 0o755)
        tool = shutil.copy(labs.TOOL, folder)
        for arguments in (["status"], ["status", "--name", it.name], ["logs", "--name", it.name], ["exec", "--name", it.name, "--", "true"],
                          ["restart", "control", "--name", it.name], ["stop", "--name", it.name], ["start", "--name", it.name]):
            bare = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", tool, *arguments]
            done = subprocess.run(bare, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
            equal(done.returncode, 77, f"{arguments}: {done.stderr}")
            assert "root" in done.stderr and "Traceback" not in done.stderr, done.stderr
        equal(it.status()["state"], "running")


@test("a namespace of that name made by others is left alone (75)")
def foreign_namespace():
    subprocess.run(["ip", "netns", "add", "tw-foreign-c"], check=True)
    try:
        refuses(75, ["tw-foreign-c"], "start", "--name", "foreign")
        assert "tw-foreign-c" in labs.namespaces(), "a foreign namespace was deleted"
    finally:
        subprocess.run(["ip", "netns", "del", "tw-foreign-c"], check=True)


@test("a recorded pid that was given to another process since is not killed")
def recycled_pid():
    folder = pathlib.Path("/run/tickwire-lab/recycled")
    folder.mkdir(parents=True)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        entry = {"name": "dataplane", "pid": bystander.pid, "start_ticks": 1, "command": ["sleep"]}
        (folder / "lab.json").write_text(json.dumps({"name": "recycled", "processes": {"dataplane": entry}}))
        lab("stop", "--name", "recycled")
        equal(bystander.poll(), None, "the bystander's end")
        assert not folder.exists()
    finally:
        bystander.kill()
        bystander.wait()


@test("two labs run side by side, each with its own broker at the same address", seconds=120)
def side_by_side():
    with Lab("left") as left, Lab("right") as right:
        for number, one in enumerate((left, right)):
            with one.inside():
                client = wire.Wire().login().open()
            client.declare("only-here", 4 if number == 0 else 2)
            client.publish("", "only-here", b"from %d" % number)
            tap.until(lambda: client.declare("only-here", 1)[1] == 1, "its message")
            one.client = client
        # Declared otherwise in each: the same name is not the same queue.
        equal(left.client.declare("only-here", 4)[1], 1)
        equal(right.client.declare("only-here", 2)[1], 1)
        names = {entry["name"]: entry["state"] for entry in json.loads(lab("status", "--formatter", "json", status=None).stdout)}
        equal((names[left.name], names[right.name]), ("running", "running"))
        refuses(75, ["running already"], "start", "--name", left.name)
        left.stop()
        equal(right.client.declare("only-here", 2)[1], 1)
        nothing_left(left.name)
    nothing_left(right.name)


for port in ("net_tap", "net_af_packet", "net_af_xdp"):

    @test(f"a broker on {port} answers real bytes, 1 MiB of them", seconds=90)
    def on_port(port=port):
        with Lab("port", "--port", port) as it, it.inside():
            round_trip(b"small")
            round_trip(os.urandom(1 << 20))
        nothing_left(it.name)


@test("a lab that is interrupted while it starts leaves nothing, at whatever moment", seconds=120)
def interrupted():
    for number, delay in enumerate((0.05, 0.15, 0.3, 0.6, 1.0)):
        name = f"cut{number}-{os.getpid()}"
        child = subprocess.Popen([labs.TOOL, "start", "--name", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=40)
        # On a machine that is busy the signal may come before Python has begun with the program.
        early = child.returncode == 1 and "import_site" in said
        assert early or child.returncode in (0, 130, -signal.SIGINT), (child.returncode, said)
        lab("stop", "--name", name) if child.returncode == 0 else None
        nothing_left(name)


@test("Ctrl-C right after 'ip' made a namespace leaves none: 'ip' is not in the group that the terminal signals", seconds=60)
def interrupted_in_ip():
    name = f"torn-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        # An 'ip' that makes the namespace, has the lab's group interrupted, and is slow to leave.
        slow = pathlib.Path(folder, "ip")
        slow.write_text(f"""#!/bin/sh
[ "$1 $2" = "netns add" ] || exec {shutil.which('ip')} "$@"
{shutil.which('ip')} "$@"; status=$?
kill -INT "-$(cat {folder}/group)"; sleep 0.3
exit $status
""")
        slow.chmod(0o755)
        child = subprocess.Popen([labs.TOOL, "start", "--name", name], env=dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}"),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        pathlib.Path(folder, "group").write_text(str(child.pid))
        try:
            out, err = child.communicate(timeout=40)
        finally:
            lab("stop", "--name", name)
        equal((child.returncode, out), (130, ""), err)
        nothing_left(name)


@test("a dataplane that was killed is started again at once: restart waits until its last thread is gone", seconds=90)
def restart_after_kill():
    with Lab("again") as again:
        for _ in range(3):
            os.kill(again.pid("dataplane"), signal.SIGKILL)
            again.restart("dataplane")
            equal(again.status()["state"], "running")
        # Both dead: one after the other comes back, and the last one finds the broker whole.
        for role in ("dataplane", "control"):
            os.kill(again.pid(role), signal.SIGKILL)
        again.restart("dataplane")
        again.restart("control")
        equal(again.status()["state"], "running")


@test("SIGTERM tells clients with connection.close 320, and ends the dataplane with status 0", seconds=60)
def sigterm():
    # As the nearest subreaper, this process becomes the parent of the lab's processes and sees how they end.
    labs.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with Lab("sigterm") as it:
            with it.inside():
                client = wire.Wire().login().open()
            client.declare("", 4)
            pid = it.pid("dataplane")
            os.kill(pid, signal.SIGTERM)
            equal(client.close_reply()[:3], (10, 0, 320))
            client.send(wire.method(0, 10, 51))
            client.until_closed()
            found = until(lambda: next(((p, s) for p, s in [os.waitpid(pid, os.WNOHANG)] if p), None), "the dataplane's end")
            equal(os.waitstatus_to_exitcode(found[1]), 0, "exit status")
            equal(it.status()["state"], "broken")
        nothing_left(it.name)
    finally:
        labs.libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@test("under load the worker makes no system call but the port's: read, readv, write, writev (and the tap's signal)", seconds=90)
def system_calls():
    with Lab("strace") as it:
        with it.inside():
            client = wire.Wire().login().open()
        queue = client.declare("", 4)[0]
        client.call(1, 60, 20, wire.basic_consume(queue, "", 2), 21)
        pid = it.pid("dataplane")
        worker = busiest_thread(pid)
        with tempfile.NamedTemporaryFile("r") as out:
            tracer = subprocess.Popen(["strace", "-c", "-p", str(worker), "-o", out.name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, text=True)
            assert "attached" in tracer.stderr.readline()
            end = time.monotonic() + 1.5
            ticks = 0
            while time.monotonic() < end:
                client.publish("", queue, b"tick")
                client.expect(60, 60, 1)
                client.read_content()
                ticks += 1
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=20)
            text = out.read()
        rows = [line.split() for line in text.splitlines() if line.strip() and line.split()[0][0].isdigit()]
        calls = {row[-1]: int(row[3]) for row in rows if row[-1] != "total"}
        print(f"# {ticks} ticks; system calls of the worker: {calls}")
        assert ticks > 10 and sum(calls.values()) >= ticks, text
        stray = {name: count for name, count in calls.items() if name not in ("read", "readv", "write", "writev", "rt_sigreturn")}
        equal(stray, {}, "system calls that are not the port's")


def busiest_thread(pid):
    """The worker is the thread that never sleeps."""

    def ticks():
        used = {}
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = pathlib.Path(f"/proc/{pid}/task/{thread}/stat").read_text()
            fields = text[text.rindex(")") + 2 :].split()
            used[int(thread)] = int(fields[11]) + int(fields[12])
        return used

    before = ticks()
    time.sleep(0.5)
    after = ticks()
    return max(after, key=lambda thread: after[thread] - before.get(thread, 0))


if __name__ == "__main__":
    sys.exit(tap.main(needs_broker=False))
