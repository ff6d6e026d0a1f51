"""Synthesis over three hosts, and who is let in."""

import dataclasses
from pathlib import Path

import pytest

from mapl_ray.config import load_config
from mapl_ray.data.shards import commit, finished_part, read_manifest
from mapl_ray.distributed.shard_tasks import Stage
from mapl_ray.distributed.synthesis_stage import recipe_of, split_configs
from mapl_ray.distributed.synthesize_actor import SynthesizeShard
from tests.multihost.cluster import PYTHON, RayCluster
from tests.multihost.host import Host

pytestmark = [pytest.mark.ray, pytest.mark.multihost, pytest.mark.long]
_CONNECT = "import sys, ray; ray.init(sys.argv[1], logging_level='error'); print('let in')"


def test_hosts_make_the_bytes_that_one_process_makes(
    cluster: RayCluster, run: list[str], run_dir: Path, groups: Path, tmp_path: Path
) -> None:
    config = load_config(None, run)
    configs = split_configs(config.synthesis)
    for split, synthesis in configs.items():
        stage = Stage("synthesize", run_dir / "pairs" / split, tmp_path / split, recipe_of(synthesis, config.seed))
        make, wanted = SynthesizeShard([stage], [synthesis], config.seed, []), stage.wanted()
        for index, mark in wanted.items():
            assert make({"stage": 0, "index": index, "fingerprint": mark}) == {"error": "", "mistake": False}
        parts = [finished_part(stage.target, index, mark) for index, mark in sorted(wanted.items())]
        alone = commit(stage.target, stage.name, stage.fingerprint, [part for part in parts if part is not None])
        over_hosts = read_manifest(groups / split)  # every file's sha256 is looked at
        assert dataclasses.asdict(over_hosts) == dataclasses.asdict(alone)
        assert over_hosts.rows > 0
    assert len(read_manifest(groups / "train").parts) > 2 * len(cluster.hosts)
    worker = "MapWorker(Map(SynthesizeShard))"
    assert set(cluster.actors(worker).values()) == {host.name for host in cluster.hosts}
    # On a busy machine the last host's workers may come when all is done.
    assert len(cluster.hosts_of_calls(f"{worker}.submit", number=2)) >= 2


def test_a_driver_without_the_token_is_refused(cluster: RayCluster, stranger: Host, tmp_path: Path) -> None:
    """With a wrong one, and with none; wherever it is: on the cluster's own last host as well, under another home."""
    once = {"HOME": "/nonexistent", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    ways = {"wrong": {**once, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, "none": once}
    command, drivers = [PYTHON, "-c", _CONNECT, cluster.address], {}
    for host in (stranger, cluster.hosts[-1]):
        for way, env in ways.items():
            log = tmp_path / f"{host.name} {way}"
            drivers[log] = host.start(command, log, env)
    for log, driver in drivers.items():
        assert driver.wait(timeout=120) != 0
        said = log.read_text()
        assert "let in" not in said
        assert "nauthenticated" in said or "authentication" in said, said[-2000:]
