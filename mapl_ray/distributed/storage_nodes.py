"""Access a folder from two nodes of a cluster, for testing shared storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.runtime import ray_session
from mapl_ray.errors import RunError, first_line
from mapl_ray.storage import Side

_ANSWER_SECONDS = 300.0  # the longest step waits for 90 s, and the first one also waits for the worker's start
_NODES = 2


class _OnNode:
    """Calls the steps of a `Side` in an actor on another node."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, step: str) -> Any:
        def call(*args: str) -> Any:
            try:
                return ray.get(getattr(self._actor, step).remote(*args), timeout=_ANSWER_SECONDS)
            except ray.exceptions.RayTaskError:  # the step's own OSError
                raise
            except ray.exceptions.RayError as error:
                raise RunError(f"a node of the cluster did not answer: {first_line(error)}") from None

        return call


@contextmanager
def sides_on_nodes(cluster: ClusterConfig, folder: Path) -> Iterator[list[Side]]:
    """A `Side` on each of two living nodes, or on the only one. They reserve no CPU.

    Raises `UserError` if the cluster can't be reached, `RunError` if a node does not answer.
    """
    with ray_session(cluster):
        nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])[:_NODES]
        actor = ray.remote(num_cpus=0)(Side)
        actors = [
            actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(folder))
            for node in nodes
        ]
        try:
            yield [cast(Side, _OnNode(one)) for one in actors]
        finally:
            for one in actors:
                ray.kill(one)
