"""One private Ray cluster for all tests of a process that need one: a start costs ten to fifteen seconds of a core."""

from __future__ import annotations

from contextlib import ExitStack

from mapl_ray.config import ClusterConfig
from tests.schedule import shared

CPUS = 8  # as Ray counts them


class SharedRay:
    """The session that `mapl` itself would start; it stays up between files until a test needs a process without."""

    def __init__(self) -> None:
        self._session = ExitStack()

    def start(self) -> None:
        """Start the cluster where it is not up."""
        import ray

        from mapl_ray.distributed.runtime import ray_session

        if not ray.is_initialized():
            self._session.enter_context(ray_session(ClusterConfig(num_cpus=CPUS)))
            shared.append(self.stop)
        assert ray.is_initialized()

    def stop(self) -> None:
        """End it where it is up."""
        self._session.close()
