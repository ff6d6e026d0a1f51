"""Hosts made of Linux namespaces on one bridge: each with an address, a name, processes and a home of its own.

    with Network(3) as hosts:
        hosts[0].run(["ping", "-c1", hosts[1].address])
        hosts[2].cut()

The bridge is in a network namespace of its own as well, so that no firewall and no address of this machine has a part
in it. Everything ends with the process that made it, however that ends: nothing is left to be cleaned.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import psutil

from tests.multihost.host import Host

_TOOLS = ("unshare", "nsenter", "setpriv", "ip", "mount")
_SUBNET = "10.77.0"
_BRIDGE = "br0"
# The end of a namespace: its first process is killed when `unshare` dies, and that when this process does.
_UNSHARE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", "--net")
# What a host's first process does before it sleeps forever. It ignores SIGCHLD, so that the kernel buries orphans.
# The name resolves to loopback, as on every Debian: whatever takes the name's address for the host's own must fail.
_BOOT = """\
set -e
mount --make-rprivate /
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mkdir -p /tmp/ray
mount --bind "$2/ray" /tmp/ray
echo ready
exec env --ignore-signal=CHLD sleep infinity
"""


@cache
def hosts_available() -> str:
    """Empty if hosts can be made here, else the reason why not, for a test to skip with."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"no hosts of namespaces: {', '.join(missing)} not installed (packages util-linux, iproute2)"
    if os.geteuid() != 0:
        return "no hosts of namespaces: this user is not root"
    try:
        with Network(2) as hosts:
            hosts[0].run(["true"])
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        return f"no hosts of namespaces: {str(error).strip()}"
    return ""


class Network:
    """A bridge with hosts `host1`, `host2`, ... at 10.77.0.1, 10.77.0.2, ..."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._inits: list[subprocess.Popen[str]] = []
        self._folder = Path()

    def __enter__(self) -> list[Host]:
        # Not pytest's folders: Ray's socket paths below this one must stay under 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="mapl-net-"))
        try:
            switch = self._start([*_UNSHARE, "sh", "-c", "echo ready; exec sleep infinity"])
            _ip(switch, "link", "add", _BRIDGE, "type", "bridge")
            # Hosts have a way out, as hosts do, though nothing is there: their own address is found by it.
            _ip(switch, "address", "add", f"{_SUBNET}.254/24", "dev", _BRIDGE)
            _ip(switch, "link", "set", _BRIDGE, "up")
            return [self._host(switch, index) for index in range(1, self._number + 1)]
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for init in self._inits:
            init.kill()
        for init in self._inits:
            init.wait()
            if init.stdout is not None:
                init.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _host(self, switch: int, index: int) -> Host:
        name, address = f"host{index}", f"{_SUBNET}.{index}"
        folder = self._folder / name
        (folder / "ray").mkdir(parents=True)
        (folder / "home").mkdir(mode=0o700)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        command = [*_UNSHARE, "--uts", "--mount", "--pid", "--mount-proc", "sh", "-c", _BOOT, "sh", name, str(folder)]
        init = self._start(command)
        cable = f"to-{name}"
        _ip(switch, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(init))
        _ip(switch, "link", "set", cable, "master", _BRIDGE, "up")
        _ip(init, "link", "set", "lo", "up")
        _ip(init, "address", "add", f"{address}/24", "dev", "eth0")
        _ip(init, "link", "set", "eth0", "up")
        _ip(init, "route", "add", "default", "via", f"{_SUBNET}.254")
        return Host(name, address, folder / "home", init, _cable=(switch, cable, _BRIDGE))

    def _start(self, command: Sequence[str]) -> int:
        """The first process of a namespace; its number as seen from outside, once it is ready."""
        outer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._inits.append(outer)
        assert outer.stdout is not None
        line = outer.stdout.readline()
        if line.strip() != "ready":
            raise RuntimeError(line.strip() or f"{command[0]} ended with {outer.wait()}")
        deadline = time.monotonic() + 10
        while not (children := psutil.Process(outer.pid).children()):
            if time.monotonic() > deadline:
                raise RuntimeError("the first process of a namespace is not there")
        return children[0].pid


def _ip(process: int, *words: str) -> None:
    """`ip ...` in a process's network namespace."""
    command = ["nsenter", f"--net=/proc/{process}/ns/net", "ip", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
