"""Nodes that come and go under one cluster: training, and work by parts, that go on with what is there."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from safetensors.torch import load_file

from mapl_ray.config import RunConfig, parse_config
from mapl_ray.distributed.train import run_training
from mapl_ray.records import GROUP_SCHEMA
from mapl_ray.shards import commit, write_part
from mapl_ray.training.checkpoint import committed

pytestmark = pytest.mark.ray
STEPS = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, as in the shipped files, and two nodes of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.5")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(2):
            made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=True)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def training(tiny_model: Path, grid_groups: Any, tmp_path: Path) -> RunConfig:
    for split, groups in (("train", grid_groups(16)), ("eval", [])):
        folder, rows = tmp_path / "run" / "groups" / split, [group.to_row() for group in groups]
        commit(folder, "synthesize", "f", [write_part(folder, 0, rows, [], GROUP_SCHEMA, "f")])
    train = {
        "learning_rate": 1e-3, "max_steps": STEPS, "epochs": STEPS, "micro_batch_size": 4, "max_sequence_tokens": 256,
        "num_workers": 2, "min_workers": 1, "eval_every_steps": 999, "checkpoint_every_steps": 4, "loggers": [],
    }  # fmt: skip
    model = {"name_or_path": str(tiny_model)}
    return parse_config({"name": "run", "output_dir": str(tmp_path), "model": model, "train": train}, "test")


def test_x(cluster: Cluster, training: RunConfig, capfd) -> None:
    output = training.run_dir / "rm"
    metrics = output / "metrics.jsonl"
    t0 = time.monotonic()

    def steps() -> int:
        return len(metrics.read_text().splitlines()) if metrics.is_file() else 0
    def say(*a):
        with open("/tmp/elastic-log", "a") as f: print(f"{time.monotonic()-t0:.1f}", steps(), *a, file=f)

    def disturb() -> None:
        while steps() < 6:
            time.sleep(0.05)
        say("kill")
        cluster.remove_node(sorted(cluster.worker_nodes, key=lambda n: n.unique_id)[0], allow_graceful=False)
        while steps() >= 6: time.sleep(0.05)
        say("back")
        node = cluster.add_node(num_cpus=1)
        say("added")

    threading.Thread(target=disturb, daemon=True).start()
    result = run_training(training, "rm", train_config=training.training("rm"), model_path=training.model.name_or_path, output=output)
    say("done", result)
    with capfd.disabled():
        print(capfd.readouterr())
