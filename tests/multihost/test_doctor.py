"""`mapl doctor` on a node of real Ray: with a token nothing is to be fixed, without one nearly everything is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.multihost.cluster import PYTHON, RayCluster
from tests.multihost.host import Host
from tests.multihost.network import Network, hosts_available

pytestmark = [pytest.mark.ray, pytest.mark.multihost]


def endpoints(host: Host) -> list[str]:
    """The lines on endpoints, as level and detail."""
    said = host.run([PYTHON, "-m", "mapl_ray.cli", "doctor"], check=False).stdout.splitlines()
    return [f"{words[0]} {words[2]}" for line in said if (words := line.split(maxsplit=2))[1:2] == ["endpoints"]]


@pytest.mark.long
def test_with_a_token_every_port_asks_for_it(cluster: RayCluster, groups: Path) -> None:
    found = endpoints(cluster.hosts[0])
    assert [line for line in found if not line.startswith("ok ")] == []
    for what in ("control store", "raylet", "dashboard's agent", "runtime-environment agent"):
        assert any(what in line and "requires a token" in line for line in found), (what, found)


@pytest.fixture
def unprotected(tmp_path: Path) -> Iterator[Host]:
    """Ray as `ray start --head` starts it where RAY_AUTH_MODE is not set."""
    if reason := hosts_available():
        pytest.skip(reason)
    with Network(1) as (host,):
        ray = PYTHON.with_name("ray")
        small = ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
        host.run([ray, "start", "--head", "--dashboard-host=0.0.0.0", *small], {"RAY_AUTH_MODE": "disabled"})
        yield host


@pytest.mark.multihost_whole
def test_without_one_the_doctor_says_which_ports_are_open(unprotected: Host) -> None:
    found = endpoints(unprotected)
    for what in ("control store", "raylet", "the dashboard (jobs)"):
        assert any(line.startswith("fail ") and what in line for line in found), (what, found)
