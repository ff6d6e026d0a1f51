"""A port scan from another host of what each shipped file starts: nothing without the token beyond loopback."""

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.multihost.cluster import PYTHON, RayCluster
from tests.multihost.host import ROOT, Host
from tests.multihost.network import Network, hosts_available
from tests.multihost.ports import Port, scan, table
from tests.multihost.slurm import slurm_job

pytestmark = [pytest.mark.ray, pytest.mark.multihost]
# What `mapl` starts where no cluster is named, with a worker that has done something.
LOCAL = """
import time, ray
from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.runtime import ray_session
with ray_session(ClusterConfig(num_cpus=1)):
    ray.get(ray.remote(lambda: 1).remote())
    print("up", flush=True)
    time.sleep(600)
"""
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


@pytest.mark.long
def test_of_the_launchers_file(cluster: RayCluster, groups: Path, stranger: Host) -> None:
    # After a run, so that workers are there as well.
    check([port for host in cluster.hosts for port in scan(host, stranger)], "ray-launcher.yaml")


@pytest.mark.multihost_whole
def test_of_the_slurm_script(tmp_path: Path) -> None:
    if reason := hosts_available():
        pytest.skip(reason)
    words = ["synthesize", "name=run", f"output_dir={tmp_path}/runs", "data.path=demo", "synthesis.rows_per_shard=8"]
    with Network(3) as hosts:
        try:
            with slurm_job(hosts[:2], tmp_path, words) as log:
                assert "Ray: 2 node(s)" in log.read_text()
                assert (tmp_path / "runs" / "run" / "groups" / "train" / "manifest.json").is_file()
                check([port for host in hosts[:2] for port in scan(host, hosts[2])], "slurm.sh")
        finally:
            shutil.rmtree(f"/tmp/mapl-hosts{hosts[0].init}", ignore_errors=True)


@pytest.mark.multihost_whole
def test_of_the_cluster_that_mapl_starts_itself(tmp_path: Path) -> None:
    if reason := hosts_available():
        pytest.skip(reason)
    with Network(2) as hosts:
        log = tmp_path / "log"
        process = hosts[0].start([PYTHON, "-c", LOCAL], log)
        deadline = time.monotonic() + 120
        while "up" not in log.read_text().split():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        check(scan(hosts[0], hosts[1]), "one machine")
