"""Three hosts with a Ray cluster over them, and a fourth that has no part in it.

Tests are skipped, with the reason, where no hosts can be made. `make test` tries the hosts alone, `make test-long` runs
what is marked `long` on the cluster, and `make test-multihost` all of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.multihost.cluster import RayCluster, ray_cluster
from tests.multihost.host import Host
from tests.multihost.network import Network, hosts_available
from tests.schedule import shared

NODES = 3
CPUS = 2  # of a node, as Ray counts


@pytest.fixture(scope="session")
def hosts() -> Iterator[list[Host]]:
    """Three for the cluster, and a stranger."""
    if reason := hosts_available():
        pytest.skip(reason)
    with Network(NODES + 1) as made:
        yield made


@pytest.fixture(scope="session")
def stranger(hosts: Sequence[Host]) -> Host:
    """On the same network, without the token."""
    return hosts[NODES]


@pytest.fixture(scope="session")
def cluster(hosts: Sequence[Host]) -> Iterator[RayCluster]:
    """A head and two workers, started by the launcher's file, with a token."""
    with ExitStack() as running:
        started = running.enter_context(ray_cluster(hosts[:NODES], CPUS))
        shared.append(running.close)
        yield started


@pytest.fixture(scope="session")
def run(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of one run on storage that all hosts share: the shipped sample in many parts, and a tiny model."""
    return [
        "name=run",
        f"output_dir={tmp_path_factory.mktemp('shared')}",
        "data.path=demo",
        "data.eval_fraction=0.2",
        "synthesis.rows_per_shard=4",
        "model.tiny={vocab_size: 1000, hidden_size: 64, num_layers: 2, num_heads: 2}",
    ]


@pytest.fixture(scope="session")
def run_dir(run: list[str]) -> Path:
    """Of `run`."""
    return Path(run[1].partition("=")[2]) / "run"


@pytest.fixture(scope="session")
def groups(cluster: RayCluster, run: list[str], run_dir: Path) -> Path:
    """`run`'s groups, made over all hosts by a driver on the last one."""
    cluster.mapl("synthesize", *run)
    return run_dir / "groups"
