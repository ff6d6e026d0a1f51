"""Runs that only have to be trained, and a cluster that jobs are submitted to (of the files that name it)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.config import RunConfig, parse_config
from mapl_ray.data.records import GROUP_SCHEMA
from mapl_ray.data.shards import commit, write_part
from tests.distributed.job_cluster import cluster

__all__ = ["cluster", "run_to_train"]


@pytest.fixture(scope="session")
def run_to_train_in(tiny_model: Path, grid_groups: Any) -> Callable[..., RunConfig]:
    """`run_to_train_in(folder, max_steps=9, ...)`: a run with 16 groups in place and these settings of `train`."""

    def make(output: Path, **train: Any) -> RunConfig:
        for split, groups in (("train", grid_groups(16)), ("eval", [])):
            folder, rows = output / "run" / "groups" / split, [group.to_row() for group in groups]
            commit(folder, "synthesize", "f", [write_part(folder, 0, rows, [], GROUP_SCHEMA, "f")])
        common = {
            "learning_rate": 1e-3, "epochs": train["max_steps"], "micro_batch_size": 4, "max_sequence_tokens": 256,
            "eval_every_steps": 999, "loggers": [], "keep_token_ids": False,
        }  # fmt: skip
        model = {"name_or_path": str(tiny_model)}
        values = {"name": "run", "output_dir": str(output), "model": model, "train": {**common, **train}}
        return parse_config(values, "test")

    return make


@pytest.fixture
def run_to_train(run_to_train_in: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., RunConfig]:
    """`run_to_train(max_steps=9, ...)`: the same, in the folder of one test."""
    return lambda **train: run_to_train_in(tmp_path, **train)
