"""Try the kernels on one GPU of every node of a cluster, on all nodes in parallel."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.runtime import ray_session
from mapl_ray.models.kernel_process import LIMIT_SECONDS, KernelNeeds, KernelTrial, tried_in_process
from mapl_ray.progress import WAITING_SECONDS, progress

_START_SECONDS = 60.0  # limit for a worker's start; if another job holds the GPU, it would wait for that job to end
_ANSWER_SECONDS = 30.0  # beyond the trial's own limit
_LOOK = "check that the same version of mapl_ray is installed on that node, and read Ray's logs there"


class _OnNode:
    """A worker that holds one GPU of a node."""

    def ready(self) -> None:
        """Return once the worker has its GPU."""

    def tried(self, needs: KernelNeeds, seconds: float) -> KernelTrial:
        """Try the kernels on that GPU."""
        return tried_in_process("cuda", needs, seconds)


def kernels_on_nodes(
    cluster: ClusterConfig, needs: KernelNeeds, seconds: float = LIMIT_SECONDS, start_seconds: float = _START_SECONDS
) -> list[KernelTrial]:
    """One trial per living node with a GPU, sorted by host. The trials reserve no CPU.

    Raises `UserError` if the cluster can't be reached.
    """
    with ray_session(cluster):
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0.0) >= 1.0]
        actor = ray.remote(num_cpus=0, num_gpus=1)(_OnNode)
        actors = [
            actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
            for node in nodes
        ]
        try:
            with progress("compile kernels", silence=WAITING_SECONDS):
                return _trials([node["NodeManagerHostname"] for node in nodes], actors, needs, seconds, start_seconds)
        finally:
            for one in actors:
                ray.kill(one)


def _trials(
    hosts: list[str], actors: list[Any], needs: KernelNeeds, seconds: float, start_seconds: float
) -> list[KernelTrial]:
    ready = [one.ready.remote() for one in actors]
    started = set(ray.wait(ready, num_returns=len(ready), timeout=start_seconds)[0]) if ready else set()
    running = [
        one.tried.remote(needs, seconds) if ref in started else None for one, ref in zip(actors, ready, strict=True)
    ]
    late = f"not tried: no GPU of this node was free within {start_seconds:g} s, or no Ray worker started on it"
    trials = []
    for host, ref in zip(hosts, running, strict=True):
        if ref is None:
            trials.append(KernelTrial(host, "GPU", error=late, cure="run it again when a GPU is free", tried=False))
            continue
        try:
            trials.append(ray.get(ref, timeout=seconds + _ANSWER_SECONDS))
        except ray.exceptions.RayError as error:  # the worker died, or can't load mapl_ray
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            trials.append(
                KernelTrial(host, "GPU", error=f"{type(error).__name__}: {lines[-1] if lines else ''}", cure=_LOOK)
            )
    return sorted(trials, key=lambda trial: trial.host)
