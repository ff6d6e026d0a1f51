"""A token-protected Ray cluster over hosts, started by the very commands of `cluster/ray-launcher.yaml`."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.multihost.host import ROOT, Host

TOKEN = ".ray/mapl/auth_token"  # below a home
LAUNCHER = ROOT / "cluster" / "ray-launcher.yaml"
PYTHON = Path(sys.executable)
_PORT = 6379
_SMALL = "--object-store-memory=100000000 --block"  # what a test adds to the file's own commands
_FIRST_GROUP = 7701  # of the groups by which files show who made them: see `RayCluster.maker`
# Run on the head: nodes that are alive, by address, once there are that many.
_NODES = """\
import json, sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
deadline = time.monotonic() + float(sys.argv[3])
while len(alive := [n for n in ray.nodes() if n["Alive"]]) != int(sys.argv[2]) and time.monotonic() < deadline:
    time.sleep(0.2)
print(json.dumps({n["NodeManagerAddress"]: n["NodeID"] for n in alive}))
"""


@dataclass(slots=True)
class RayCluster:
    """The head is the first host. A driver on any of them that has the token takes part."""

    hosts: Sequence[Host]
    cpus: int  # of a node, as Ray counts
    env: dict[str, str] = field(default_factory=dict)  # of Ray's own processes, hence of all workers
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # `ray start --block`, by host
    nodes: dict[str, str] = field(default_factory=dict)  # id by address, of those that were there at the start

    @property
    def address(self) -> str:
        """Of the control store."""
        return f"{self.hosts[0].address}:{_PORT}"

    @property
    def token(self) -> dict[str, str]:
        """What a driver's environment needs."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.hosts[0].home / TOKEN)}

    def start(self, host: Host, options: str = "") -> None:
        """`ray start` on a host, as the head if it is the first; the command's own options come last.

        Ray's processes of each host have a group of their own.
        """
        head = host is self.hosts[0]
        commands = _start_commands("head_start_ray_commands" if head else "worker_start_ray_commands")
        words = " ; ".join(f"{command} {_SMALL} --num-cpus={self.cpus} {options}" for command in commands)
        env = {**self.env, "RAY_HEAD_IP": self.hosts[0].address, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        # A change of group clears the signal that the host's own `setpriv` has asked for.
        group = ["setpriv", f"--regid={_FIRST_GROUP + self.hosts.index(host)}", "--clear-groups", "--pdeathsig=TERM"]
        self.running[host.name] = host.start([*group, "bash", "-c", words], self.log(host), env)

    def log(self, host: Host) -> Path:
        """What `ray start` said on a host."""
        return host.home / "ray-start.log"

    def wait(self, number: int, seconds: float = 120.0) -> dict[str, str]:
        """Id of every living node by its address, once there are that many; fails with the logs if there never are."""
        command = [PYTHON, "-c", _NODES, self.address, str(number), str(seconds)]
        try:
            done = self.hosts[0].run(command, self.token, timeout=seconds + 30)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"{error}\n{self.logs()}") from None
        nodes = json.loads(done.stdout)
        if len(nodes) != number:
            raise RuntimeError(f"{len(nodes)} nodes of {number}: {done.stderr[-2000:]}\n{self.logs()}")
        return dict(nodes)

    def wait_for_head(self, seconds: float = 120.0) -> None:
        """Return once the control store takes connections: workers give up soon where it does not."""
        deadline = time.monotonic() + seconds
        port = ["bash", "-c", f": </dev/tcp/{self.hosts[0].address}/{_PORT}"]
        while self.hosts[0].run(port, check=False).returncode:
            if time.monotonic() > deadline or self.running[self.hosts[0].name].poll() is not None:
                raise RuntimeError(f"the head did not start:\n{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of what `ray start` said, of every host."""
        found = {host.name: self.log(host) for host in self.hosts if self.log(host).exists()}
        return "\n".join(f"--- {name}\n{path.read_text()[-2000:]}" for name, path in found.items())

    def mapl(
        self,
        *words: str,
        host: Host | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
        module: str = "mapl_ray.cli",
    ) -> str:
        """Run `mapl ...` on a host (the last) against the cluster, to its end; what it printed."""
        command = [PYTHON, "-m", module, *words, f"cluster.address={self.address}"]
        return (host or self.hosts[-1]).run(command, {**self.token, **(env or {})}, timeout).stdout

    def maker(self, path: Path) -> str:
        """Name of the host whose Ray has made a file on shared storage; "driver" for one that another process made."""
        index = path.stat().st_gid - _FIRST_GROUP
        return self.hosts[index].name if 0 <= index < len(self.hosts) else "driver"

    def actors(self, name: str) -> dict[str, str]:
        """The host's name by the actor's id, of every actor of a class that there ever was."""
        return {actor: self._host_of(node) for actor, node in self._state()["actors"].get(name, {}).items()}

    def hosts_of_calls(self, name: str, number: int, seconds: float = 15.0) -> set[str]:
        """Names of the hosts on which calls came to an end, once there are that many: Ray tells some seconds later."""
        deadline = time.monotonic() + seconds
        while True:
            hosts = {self._host_of(node) for node in self._state()["calls"].get(name, [])}
            if len(hosts) >= number or time.monotonic() > deadline:
                return hosts

    def _state(self) -> dict[str, dict[str, Any]]:
        env = {**self.token, "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8265"}
        told: dict[str, dict[str, Any]] = json.loads(
            self.hosts[0].run([PYTHON, "-m", "tests.multihost.nodes"], env).stdout
        )
        return told

    def _host_of(self, node: str) -> str:
        address = next(address for address, identity in self.nodes.items() if identity == node)
        return next(host.name for host in self.hosts if host.address == address)


@contextmanager
def ray_cluster(hosts: Sequence[Host], cpus: int = 2, env: Mapping[str, str] | None = None) -> Iterator[RayCluster]:
    """Ray on all the hosts, all joined; it ends with the hosts at the latest."""
    token = secrets.token_hex(32)
    for host in hosts:
        _furnish(host, token)
    cluster = RayCluster(hosts, cpus, {"DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false", **(env or {})})
    try:
        cluster.start(hosts[0])
        cluster.wait_for_head()
        for host in hosts[1:]:
            cluster.start(host)
        cluster.nodes = cluster.wait(len(hosts))
        yield cluster
    finally:
        for process in cluster.running.values():
            process.terminate()
        for process in cluster.running.values():
            process.wait(timeout=30)


def _furnish(host: Host, token: str) -> None:
    """What the launcher's file asks of a machine: the project, and the token that its owner alone can read."""
    (host.home / "mapl_ray").symlink_to(ROOT)
    path = host.home / TOKEN
    path.parent.mkdir(mode=0o700, parents=True)
    path.touch(mode=0o600)
    path.write_text(token)
    (host.home / "ray_bootstrap_config.yaml").write_text(LAUNCHER.read_text())
    cache = Path.home() / ".cache"  # kernels that DeepSpeed and vLLM have built
    if cache.is_dir():
        (host.home / ".cache").symlink_to(cache)


def _start_commands(section: str) -> list[str]:
    """The commands of a section of the launcher's file that start Ray; it starts none with `--block`."""
    commands: list[Any] = yaml.safe_load(LAUNCHER.read_text(encoding="utf-8"))[section]
    # The autoscaler would ask the provider for machines; which are there is the harness's affair.
    return [re.sub(r"--autoscaling-config=\S+", "", one) for one in commands if re.search(r"\bray start\b", one)]
