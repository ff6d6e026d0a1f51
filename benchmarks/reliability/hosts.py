"""Ray nodes as a cluster has them, each with a raylet of its own, all on this machine and with token authentication."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.reliability.commands import kill, titled


@dataclass(frozen=True, slots=True)
class Cluster:
    """A head without CPUs, on which the driver is, and nodes that work."""

    ray: Any  # ray.cluster_utils.Cluster

    @property
    def address(self) -> str:
        """As `cluster.address`."""
        return str(self.ray.address)

    def add(self, cpus: int) -> Any:
        """A node that works."""
        return self.ray.add_node(num_cpus=cpus)

    @property
    def gcs(self) -> psutil.Process:
        """The head's control process."""
        return _process(self.ray.head_node, "gcs_server")

    def start_gcs_again(self) -> None:
        """As a supervisor would, with the same storage."""
        head = self.ray.head_node
        head.kill_gcs_server(check_alive=False)  # it is dead: this forgets it
        head.start_gcs_server()

    def with_worker(self, title: str) -> tuple[Any, list[psutil.Process]]:
        """The node that has most workers of that title, and these."""
        found = [(node, workers_of(node, title)) for node in self.ray.worker_nodes]
        return max(found, key=lambda one: len(one[1]))

    def drain(self, node: Any, seconds: int) -> str:
        """Notify Ray that the node will be taken away so soon; what Ray says."""
        words = ["drain-node", "--address", self.address, "--node-id", node.node_id]
        words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the provider wants it back"]
        command = [sys.executable, "-m", "ray.scripts.scripts", *words, "--deadline-remaining-seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return f"{done.returncode}: {done.stdout}{done.stderr}"


def raylet_of(node: Any) -> psutil.Process:
    """The node's own process."""
    return _process(node, "raylet")


def workers_of(node: Any, title: str) -> list[psutil.Process]:
    """Ray's workers on the node whose title has that word."""
    try:
        return titled(raylet_of(node).children(recursive=True), title)
    except psutil.NoSuchProcess:
        return []


def lose(node: Any) -> None:
    """The host is gone: all its processes at once."""
    raylet = raylet_of(node)
    for process in [*raylet.children(recursive=True), raylet]:
        kill(process)
    node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


@contextmanager
def cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    """The head alone; all that is added is killed at the end. What the head and commands need is in the environment."""
    folder.mkdir(parents=True)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    known = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),  # also where Ray writes which cluster is the newest of this machine
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "DS_ACCELERATOR": "cpu",
    }
    os.environ.update({**known, **environment})  # of this process alone, which does one fault
    import ray.cluster_utils

    made = ray.cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0}
    )
    try:
        yield Cluster(made)
    finally:
        for node in [*made.worker_nodes, made.head_node]:
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def _process(node: Any, kind: str) -> psutil.Process:
    return psutil.Process(node.all_processes[kind][0].process.pid)
