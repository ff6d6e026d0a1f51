"""End a Ray Data stage that waits for a node for too long: Ray Data waits forever, Ray Train has its own limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mapl_ray.config import RunConfig
from mapl_ray.distributed.resources import check_one
from mapl_ray.distributed.runtime import available_resources
from mapl_ray.distributed.watch import watched
from mapl_ray.errors import UserError


@contextmanager
def nodes_watched(stage: str, config: RunConfig) -> Iterator[None]:
    """End the process with exit code 1 if no node has had room for the stage for `cluster.wait_minutes`."""

    def problem() -> str:
        try:
            check_one(stage, config, available_resources())
        except UserError as error:
            return f"{error} None came in {config.cluster.wait_minutes:g} minutes (cluster.wait_minutes)."
        return ""

    with watched(problem, config.cluster.wait_minutes * 60):
        yield
