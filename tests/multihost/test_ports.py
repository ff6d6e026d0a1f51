"""A port scan from another host of what each shipped file starts: nothing without the token beyond loopback."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.multihost.cluster import RayCluster
from tests.multihost.host import ROOT, Host
from tests.multihost.ports import Port, scan, table

pytestmark = [pytest.mark.ray, pytest.mark.multihost]
DOCS = ROOT / "docs" / "cluster.md"


def documented(name: str) -> list[str]:
    """Rows of the table below `<!-- ports: NAME -->` in docs/cluster.md."""
    text = DOCS.read_text(encoding="utf-8").partition(f"<!-- ports: {name} -->\n")[2]
    return sorted(line for line in text.partition("\n\n")[0].splitlines() if re.match(r"\| (?!Process|-)", line))


def check(ports: Sequence[Port], name: str) -> None:
    """All are closed, and they are those of the documentation."""
    assert [port for port in ports if not port.is_closed] == []
    assert {"control store (GCS)", "raylet", "dashboard", "worker"} <= {port.process for port in ports}
    rows = "\n".join(table(ports))
    assert documented(name) == table(ports), f"{DOCS}, below `<!-- ports: {name} -->`, should have\n{rows}"


def test_of_the_launchers_file(cluster: RayCluster, groups: Path, stranger: Host) -> None:
    # After a run, so that workers are there as well.
    check([port for host in cluster.hosts for port in scan(host, stranger)], "ray-launcher.yaml")
