"""A Ray cluster on this machine: each node has its own raylet, with token authentication."""

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
    """A head node without CPUs, where the driver runs, and worker nodes."""

    ray: Any  # ray.cluster_utils.Cluster

    @property
    def address(self) -> str:
        """The value for `cluster.address`."""
        return str(self.ray.address)

    def add(self, cpus: int) -> Any:
        """Add a worker node."""
        return self.ray.add_node(num_cpus=cpus)

    @property
    def gcs(self) -> psutil.Process:
        """The GCS process of the head."""
        return _process(self.ray.head_node, "gcs_server")

    def start_gcs_again(self) -> None:
        """Restart the GCS with the same storage, as a supervisor would."""
        head = self.ray.head_node
        head.kill_gcs_server(check_alive=False)  # it is already dead; this removes its entry
        head.start_gcs_server()

    def with_worker(self, title: str) -> tuple[Any, list[psutil.Process]]:
        """The node with the most workers of this title, and these workers."""
        found = [(node, workers_of(node, title)) for node in self.ray.worker_nodes]
        return max(found, key=lambda one: len(one[1]))

    def drain(self, node: Any, seconds: int) -> str:
        """Notify Ray that the node will be removed after this time; return Ray's answer."""
        words = ["drain-node", "--address", self.address, "--node-id", node.node_id]
        words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the provider wants it back"]
        command = [sys.executable, "-m", "ray.scripts.scripts", *words, "--deadline-remaining-seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return f"{done.returncode}: {done.stdout}{done.stderr}"


def raylet_of(node: Any) -> psutil.Process:
    """The raylet process of the node."""
    return _process(node, "raylet")


def workers_of(node: Any, title: str) -> list[psutil.Process]:
    """Ray's workers on the node with this text in their title."""
    try:
        return titled(raylet_of(node).children(recursive=True), title)
    except psutil.NoSuchProcess:
        return []


def lose(node: Any) -> None:
    """Kill all processes of the node at once, as if its host were lost."""
    raylet = raylet_of(node)
    for process in [*raylet.children(recursive=True), raylet]:
        kill(process)
    node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


@contextmanager
def cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    """Start a cluster with only a head, and set its environment variables. All nodes are killed at the end."""
    folder.mkdir(parents=True)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    known = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),  # Ray also writes the address of the newest cluster on this machine there
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "DS_ACCELERATOR": "cpu",
    }
    os.environ.update({**known, **environment})  # only for this process, which runs one fault
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
