"""hpZ: a second copy of ZeRO-3's weights in groups of ranks changes where weights come from, and not what is learned.

What it sends is in test_traffic.py. One group of two ranks is tested by `make test`; adapters, offloading, resuming and
two groups of two ranks by `make test-long`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig

from mapl_ray.errors import UserError
from mapl_ray.training.deepspeed_engine import ensure_process_group
from mapl_ray.training.weight_groups import check_nodes, use_weight_groups
from tests.training.compare import largest_difference, weights

STEPS = 4
CONFIG = {
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "max_sequence_tokens": 256,
    "max_steps": STEPS,
    "epochs": 9,
    "eval_every_steps": 2,
    "checkpoint_every_steps": 99,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "zero_stage": 3,
    # Weights are dropped after every use, as those of a large model are: at this size DeepSpeed would keep them.
    "deepspeed_config": {
        "zero_optimization": {
            "stage3_param_persistence_threshold": 0,
            "stage3_max_live_parameters": 0,
            "stage3_max_reuse_distance": 0,
        }
    },
}
HPZ = {"zero_hpz_partition_size": 2}
# Of both: with a second copy of the weights and without.
KINDS: dict[str, dict[str, Any]] = {"rm": {}, "dpo": {"reference": "frozen"}}
MORE_KINDS: dict[str, dict[str, Any]] = {
    "dpo adapter": {"lora": {"r": 4}, "reference": "adapter", "gradient_checkpointing": True},
    "dpo offloaded": {"offload": "optimizer+parameters"},
}
WIDE = {"rm": {}, "dpo adapter": MORE_KINDS["dpo adapter"], "rm shared rows": {"sequence_parallel_size": 2}}


def rows(run: Path) -> list[dict[str, float]]:
    """What was logged at every step, without what depends on clock and machine."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    of_the_machine = ("second", "memory")
    return [{k: v for k, v in json.loads(line).items() if not any(w in k for w in of_the_machine)} for line in lines]


def specs_of(folder: Path, ranks: int, kinds: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each kind with a second copy and without, in turns: in one process groups of one size follow another's."""
    return [
        {
            "method": name.split()[0],
            "config": {**CONFIG, "num_workers": ranks, **more, **copy},
            "output": str(folder / f"{name}{ending}"),
        }
        for name, more in kinds.items()
        for ending, copy in ((" hpZ", HPZ), ("", {}))
    ]


def run_all(launch: Any, specs: list[dict[str, Any]]) -> None:
    """On two ranks."""
    assert [outcome["error"] for outcome in launch(2, *specs)] == [None] * len(specs)


@pytest.fixture(scope="module")
def runs(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hpz")
    run_all(launch, specs_of(folder, 2, KINDS))
    return folder


@pytest.fixture(scope="module")
def more_runs(launch: Any, dropout_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hpz-more")
    specs = specs_of(folder, 2, MORE_KINDS)
    # Stopped after a step and resumed: with a copy throughout, and where it is added or dropped on the way.
    for name, copies in {"kept": (HPZ, HPZ), "added": ({}, HPZ), "dropped": (HPZ, {})}.items():
        common = {"method": "rm", "output": str(folder / name), "model": str(dropout_model)}
        first, second = ({**CONFIG, "num_workers": 2, **copy} for copy in copies)
        stopped = {**common, "config": {**first, "checkpoint_every_steps": 3}, "stop_after": 3}
        specs += [stopped, {**common, "config": second}]
    whole = {"method": "rm", "config": {**CONFIG, "num_workers": 2, **HPZ}, "model": str(dropout_model)}
    run_all(launch, [*specs, {**whole, "output": str(folder / "whole")}])
    return folder


def check_kind(runs: Path, kind: str) -> None:
    plain, hpz = runs / kind, runs / f"{kind} hpZ"
    assert largest_difference(weights(plain), weights(hpz)) == 0.0
    assert rows(plain) == rows(hpz)
    assert len(rows(hpz)) == STEPS


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_learn_the_same_to_the_bit(runs: Path, kind: str) -> None:
    check_kind(runs, kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", MORE_KINDS)
def test_two_ranks_learn_the_same_to_the_bit_in_other_modes(more_runs: Path, kind: str) -> None:
    check_kind(more_runs, kind)


@pytest.mark.long
@pytest.mark.parametrize("way", ["kept", "added", "dropped"])
def test_resumed_equals_uninterrupted_to_the_bit(more_runs: Path, way: str) -> None:
    whole, resumed = more_runs / "whole", more_runs / way
    assert json.loads((resumed / "result.json").read_text())["resumed_step"] == 3
    assert largest_difference(weights(whole), weights(resumed)) == 0.0
    assert rows(whole) == rows(resumed)


@pytest.mark.long
def test_two_groups_of_two_ranks_learn_the_same_to_the_bit(launch: Any, tmp_path: Path) -> None:
    specs = specs_of(tmp_path, 4, WIDE)
    assert [outcome["error"] for outcome in launch(4, *specs)] == [None] * len(specs)
    for kind in WIDE:
        assert largest_difference(weights(tmp_path / kind), weights(tmp_path / f"{kind} hpZ")) == 0.0, kind
        assert rows(tmp_path / kind) == rows(tmp_path / f"{kind} hpZ"), kind


def test_a_model_without_sdpa(launch: Any, tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """transformers fails after it has begun to build the model, which is then built a second time."""
    sizes = json.loads((tiny_model / "config.json").read_text())
    config = GptOssConfig(
        **{name: sizes[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers")},
        intermediate_size=64, num_attention_heads=2, num_key_value_heads=2, head_dim=32, num_local_experts=2,
        num_experts_per_tok=1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    specs = specs_of(tmp_path, 2, {"dpo": {"batching": "padded", "max_steps": 2}})
    outcomes = launch(2, *({**spec, "model": str(tmp_path / "model")} for spec in specs))
    assert [outcome["error"] for outcome in outcomes] == [None, None]
    assert largest_difference(weights(tmp_path / "dpo"), weights(tmp_path / "dpo hpZ")) == 0.0


def test_a_group_is_on_one_node() -> None:
    check_nodes(2, ["a", "a", "b", "b", "b", "b"])
    check_nodes(1, ["a", "b"])
    with pytest.raises(UserError) as caught:
        check_nodes(2, ["a", "a", "a", "b", "b", "b"])
    for words in (
        "train.zero_hpz_partition_size=2",
        "ranks 2 to 3 run on nodes a and b",
        "expected a divisor of the number of workers on every node (3 on a, 3 on b)",
        "or 1",
    ):
        assert words in str(caught.value)
    with pytest.raises(UserError, match="ranks 0 to 3"):
        check_nodes(4, ["a", "a", "b", "b"])


def test_groups_divide_the_ranks_that_run() -> None:
    ensure_process_group()
    with pytest.raises(UserError, match=r"train.zero_hpz_partition_size=2: 1 worker\(s\) run, not a multiple of it"):
        use_weight_groups(2)
