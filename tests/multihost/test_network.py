"""The harness itself: hosts have names, addresses and processes of their own, and cables that can be cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.multihost.host import Host
from tests.multihost.network import Network, hosts_available

pytestmark = pytest.mark.multihost
_LISTEN = "import socket; s = socket.create_server(('', 7000)); print('up', flush=True)\nwhile True: s.accept()"
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7000), timeout=5)"


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    if reason := hosts_available():
        pytest.skip(reason)
    with Network(2) as made:
        yield made


def test_a_cut_cable_lets_nothing_through_until_it_is_mended(hosts: list[Host], tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = hosts[1].start(["python3", "-c", _LISTEN], log)
    while not log.exists() or "up" not in log.read_text():
        assert server.poll() is None

    def reaches() -> bool:
        return hosts[0].run(["python3", "-c", _CONNECT, hosts[1].address], check=False).returncode == 0

    assert reaches()
    hosts[1].cut()
    assert not reaches()
    hosts[1].restore()
    assert reaches()
    assert len(hosts[1].processes("s.accept")) == 1
    assert hosts[0].processes("s.accept") == []
    server.terminate()
    server.wait()


def test_hosts_have_names_of_their_own_and_see_only_their_own_processes(hosts: list[Host]) -> None:
    assert [host.run(["hostname"]).stdout.strip() for host in hosts] == ["host1", "host2"]
    assert len(hosts[0].run(["ps", "-e", "-o", "pid="]).stdout.split()) == 2  # the first one, and ps
