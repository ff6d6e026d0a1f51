"""Three hosts and the Ray cluster over them; skipped, with the reason, where no hosts can be made."""

from collections.abc import Iterator

import pytest

from tests.multihost.cluster import RayCluster, ray_cluster
from tests.multihost.network import Network, hosts_available


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A head and two workers of two logical CPUs each, of the launcher's file, with a token."""
    if reason := hosts_available():
        pytest.skip(reason)
    with Network(3) as hosts, ray_cluster(hosts) as started:
        yield started
