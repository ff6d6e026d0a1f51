"""Resource arithmetic, without a cluster."""

import pytest

from mapl_ray.config import RunConfig, parse_config
from mapl_ray.distributed.resources import Node, Resources, check_stage, demand_of
from mapl_ray.errors import UserError

STAGES = ("score pairs", "score", "train rm", "train dpo", "tune", "synthesize")


def config(**sections: object) -> RunConfig:
    return parse_config(dict(sections), "test")


def test_demands_by_hand() -> None:
    one = config(
        train={"num_workers": 8, "cpus_per_worker": 4, "gpus_per_worker": 1},
        dpo={"num_workers": 16},
        scoring={"num_engines": 3, "cpus_per_engine": 2, "gpus_per_engine": 2},
        tune={"max_concurrent_trials": 2, "num_trials": 5},
    )
    found = {stage: str(demand_of(stage, one)) for stage in STAGES}
    assert found == {
        "score pairs": "3 x (2 CPU + 2 GPU)",
        "score": "3 x (2 CPU + 2 GPU)",
        "train rm": "8 x (4 CPU + 1 GPU)",
        "train dpo": "16 x (4 CPU + 1 GPU)",
        "tune": "16 x (4 CPU + 1 GPU)",  # two trials of eight workers
        "synthesize": "1 x (1 CPU + 0 GPU)",
    }


def test_more_workers_than_the_cluster_holds() -> None:
    resources = Resources((Node(cpus=8, gpus=2), Node(cpus=8, gpus=2)))
    fits = config(train={"num_workers": 4, "cpus_per_worker": 4, "gpus_per_worker": 1})
    check_stage("train rm", fits, resources)
    with pytest.raises(UserError, match=r"train rm wants 5 x .* room for 4 .*train.num_workers"):
        check_stage("train rm", config(train={"num_workers": 5, "cpus_per_worker": 4, "gpus_per_worker": 1}), resources)


def test_an_engine_does_not_span_nodes() -> None:
    # 4 GPUs in all, but no node has 4: an engine over 4 could never start.
    resources = Resources((Node(cpus=8, gpus=2), Node(cpus=8, gpus=2)))
    wide = config(scoring={"gpus_per_engine": 4})
    with pytest.raises(UserError, match="room for 0"):
        check_stage("score", wide, resources)


def test_fractions_add_up() -> None:
    check_stage("train rm", config(train={"num_workers": 3, "cpus_per_worker": 0.1}), Resources((Node(0.3, 0),)))
