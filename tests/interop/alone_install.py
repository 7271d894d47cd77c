#!/usr/bin/python3
"""make install into a folder of its own: every file where Debian has such files, units and configuration that hold what they
name, completion that completes, and uninstall that takes away what install brought."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import tap
import wire
from labs import ROOT, Lab
from tap import equal, test

WANTED = {
    "usr/bin/tickctl", "usr/bin/tickbench", "usr/bin/tickbench-dpdk", "usr/sbin/tickwire-dataplane", "usr/sbin/tickwire-control", "usr/sbin/tickwire-lab",
    "usr/sbin/tickwire-doctor", "lib/systemd/system/tickwire-dataplane.service", "lib/systemd/system/tickwire-control.service",
    "etc/tickwire/tickwire.conf", "usr/share/bash-completion/completions/tickctl", "usr/share/bash-completion/completions/tickbench",
    "usr/share/bash-completion/completions/tickwire-lab", "usr/share/zsh/vendor-completions/_tickctl",
    "usr/share/zsh/vendor-completions/_tickbench", "usr/share/zsh/vendor-completions/_tickwire-lab", "usr/share/doc/tickwire/README.md",
    "usr/share/doc/tickwire/tickwire.conf.example",
}

stage = None


def make(target, *more):
    # Not this make's flags: a make above may have handed its job server down.
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make", "--no-print-directory", target, f"DESTDIR={stage}", *more], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=200)
    equal(done.returncode, 0, f"make {target}: {done.stdout[-1500:]}")
    return done.stdout


def files():
    return {str(p.relative_to(stage)) for p in stage.rglob("*") if p.is_file()}


@test("make install puts each file in its place, programs executable, the configuration closed to others", seconds=220)
def installs():
    last = make("install").splitlines()[-1]
    assert "tickwire-dataplane tickwire-control" in last, f"the last line does not name both units: {last}"
    equal(files(), WANTED)
    for name in WANTED:
        mode = (stage / name).stat().st_mode & 0o777
        wanted = 0o755 if "bin/" in name else 0o640 if name.startswith("etc/") else 0o644
        equal(oct(mode), oct(wanted), f"mode of {name}")
    for name in ("tickctl", "tickbench"):
        subprocess.run([stage / "usr/bin" / name, "--help"], check=True, stdout=subprocess.DEVNULL)
    for name in ("tickwire-lab", "tickwire-doctor", "tickwire-control", "tickwire-dataplane"):
        subprocess.run([stage / "usr/sbin" / name, "--help"], check=True, stdout=subprocess.DEVNULL)


@test("a second install keeps the configuration that an operator has edited")
def keeps_configuration():
    conf = stage / "etc/tickwire/tickwire.conf"
    conf.write_text("# mine\n")
    make("install")
    equal(conf.read_text(), "# mine\n")


@test("the units start what was installed, and systemd finds no fault in them")
def units():
    for name in ("tickwire-dataplane", "tickwire-control"):
        text = (stage / f"lib/systemd/system/{name}.service").read_text()
        assert "@" not in re.sub(r"@system-service", "", text), "an unfilled place in the unit"
        program = re.search(r"^ExecStart=(\S+)", text, re.M).group(1)
        assert (stage / program.lstrip("/")).exists(), program
    # The example log_file lies where the unit lets control write, although the rest is read-only to it.
    example = re.search(r"^#log_file = (\S+)/", (ROOT / "tools/packaging/tickwire.conf").read_text(), re.M).group(1)
    wanted = re.search(r"^LogsDirectory=(\S+)", (stage / "lib/systemd/system/tickwire-control.service").read_text(), re.M).group(1)
    equal(example, f"/var/log/{wanted}")
    if not shutil.which("systemd-analyze"):
        raise tap.Skip("no systemd on this host")
    done = subprocess.run(["systemd-analyze", "verify", f"--root={stage}", "tickwire-dataplane.service", "tickwire-control.service"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # The staging folder is a root without systemd's own units.
    ours = [line for line in done.stdout.splitlines() if "tickwire" in line and "sysinit.target not found" not in line]
    equal(ours, [], "what systemd-analyze says")


@test("every key of the shipped configuration, commented ones too, is known to the daemons: a lab runs with all of them", seconds=90)
def configuration():
    lines = (ROOT / "tools/packaging/tickwire.conf").read_text().splitlines()
    kept = []
    for line in lines:
        line = re.sub(r"^#(?=\[|[a-z0-9_-]+ ?=)", "", line)
        # Where the lab's network and port differ, its own options say so already.
        if not re.match(r"(ip|gateway|ipv6|gateway6|route|vlan|eal|socket|mtu)\b", line):
            kept.append(line)
    text = "\n".join(kept) + "\n"
    equal(len(re.findall(r"^#[a-z]", text, re.M)), 0, "keys left commented out")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write(text)
        conf.flush()
        with Lab("install", "--config", conf.name) as lab, lab.inside():
            with wire.Wire() as client:
                client.start()
                client.start_ok("feed", "test12")
                client.tune()
                client.tune_ok()
                client.send(wire.method(0, 10, 40, wire.shortstr("/") + wire.shortstr("") + b"\0"))
                client.expect(10, 41, 0)
            with wire.Wire() as stranger:
                stranger.start()
                stranger.start_ok("guest", "guest")
                answer = stranger.until_closed()
                assert b"\x00\x0a\x00\x1e" not in answer, "guest got in without being configured"


def complete(name, *words):
    """What bash offers after these words."""
    script = ('. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; '
              'f=$(complete -p "$1" | sed "s/.*-F \\([^ ]*\\).*/\\1/"); "$f" "$1" "${COMP_WORDS[COMP_CWORD]}" ""; printf "%s\\n" "${COMPREPLY[@]}"')
    environment = dict(os.environ, PATH=f"{stage}/usr/bin:{stage}/usr/sbin:{os.environ['PATH']}")
    done = subprocess.run(["bash", "-c", script, "bash", stage / f"usr/share/bash-completion/completions/{name}", name, *words],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    equal(done.stderr, "", "completion's errors")
    return done.stdout.split()


@test("with another PREFIX the installed lab finds the programs beside it, and names itself as installed", seconds=120)
def other_prefix():
    with tempfile.TemporaryDirectory(prefix="tickwire-prefix-") as root:
        make("install", f"DESTDIR={root}", "PREFIX=/opt/tickwire")
        tool, name = f"{root}/opt/tickwire/sbin/tickwire-lab", f"prefix-{os.getpid()}"
        environment = {key: value for key, value in os.environ.items() if key != "TICKWIRE_BIN"}

        def call(*arguments):
            return subprocess.run([tool, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, timeout=60)

        done = call("exec", "--name", name, "--", "true")
        assert done.returncode == 69 and "tickwire-lab start" in done.stderr and "tools/lab" not in done.stderr, done.stderr
        try:
            done = call("start", "--name", name)
            equal(done.returncode, 0, done.stderr)
            done = call("exec", "--name", name, "--", "sh", "-c", "command -v tickctl && tickctl status")
            equal((done.returncode, done.stdout.splitlines()[:1]), (0, [f"{root}/opt/tickwire/bin/tickctl"]), done.stderr)
            command = json.loads(pathlib.Path(f"/run/tickwire-lab/{name}/lab.json").read_text())["processes"]["dataplane"]["command"]
            equal(command[0], f"{root}/opt/tickwire/sbin/tickwire-dataplane")
        finally:
            equal(call("stop", "--name", name).returncode, 0, "stop")
        os.unlink(f"{root}/opt/tickwire/sbin/tickwire-control")
        done = call("start", "--name", name)
        if not pathlib.Path("/usr/sbin/tickwire-control").exists():
            assert done.returncode == 69 and "not installed" in done.stderr and "TICKWIRE_BIN" in done.stderr, done.stderr


@test("completion knows verbs, options and their values")
def completion():
    assert {"start", "stop", "exec", "status"} <= set(complete("tickwire-lab", "")), complete("tickwire-lab", "")
    equal(complete("tickwire-lab", "start", "--port", "net_af"), ["net_af_packet", "net_af_xdp"])
    assert "--subscribers=" in complete("tickbench", "--sub")
    equal(complete("tickbench", "--type", "=", "fan"), ["fanout"])
    assert {"list_queues", "list_exchanges"} <= set(complete("tickctl", "list_")), complete("tickctl", "list_")
    assert "--formatter" in complete("tickctl", "list_queues", "--f")
    assert "json" in complete("tickctl", "list_queues", "--formatter", "")
    assert "messages" in complete("tickctl", "list_queues", "mess")


@test("make uninstall takes away what install brought, and leaves the configuration")
def uninstalls():
    make("uninstall")
    equal(files(), {"etc/tickwire/tickwire.conf"})


def main():
    global stage
    with tempfile.TemporaryDirectory(prefix="tickwire-stage-") as folder:
        stage = pathlib.Path(folder)
        return tap.main(needs_broker=False)


if __name__ == "__main__":
    sys.exit(main())
