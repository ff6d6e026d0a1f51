"""A private Ray cluster of eight logical CPUs for the tests of a file."""

from collections.abc import Iterator

import pytest
import ray

from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.runtime import ray_session


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """The session that `mapl` itself would start."""
    with ray_session(ClusterConfig(num_cpus=8)):
        assert ray.is_initialized()
        yield
    assert not ray.is_initialized()
