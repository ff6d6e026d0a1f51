"""What `mapl plan` says that a training worker sends, against what DeepSpeed sends."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mapl_ray.config import TrainConfig
from mapl_ray.planning.shape import ModelShape
from mapl_ray.planning.traffic import exchanged_bytes, step_traffic
from tests.training.compare import weights

# At 8 billion parameters weights are not kept gathered from the forward to the backward pass; at this size they are.
NOT_KEPT = {
    "zero_optimization": {
        "stage3_param_persistence_threshold": 0,
        "stage3_max_live_parameters": 0,
        "stage3_max_reuse_distance": 0,
    }
}
CONFIG = {
    "learning_rate": 1e-3,
    "max_sequence_tokens": 256,
    "epochs": 9,
    "max_steps": 3,
    "micro_batch_size": 2,
    "eval_every_steps": 1,
    "checkpoint_every_steps": 99,
    "loggers": [],
}
TWICE = {"zero_stage": 3, "gradient_accumulation_steps": 2, "deepspeed_config": NOT_KEPT}
HPZ = {**TWICE, "num_workers": 4, "zero_hpz_partition_size": 2, "micro_batch_size": 1}
RUNS: dict[str, dict[str, Any]] = {
    **{f"ZeRO-{stage}": {"zero_stage": stage, "gradient_accumulation_steps": 2} for stage in (0, 1, 2)},
    "ZeRO-3": TWICE,
    "ZeRO-3, frozen reference": {**TWICE, "reference": "frozen"},
    "ZeRO-3, adapter as reference": {**TWICE, "lora": {"r": 4}, "reference": "adapter"},
    "float32": {"zero_stage": 2, "bf16": False},
    "shared rows": {"zero_stage": 2, "num_workers": 2, "sequence_parallel_size": 2, "gradient_accumulation_steps": 2},
    "adapters": {"zero_stage": 2, "gradient_accumulation_steps": 2, "lora": {"r": 4}},
    "hpZ": HPZ,
    "hpZ, frozen reference": {**HPZ, "reference": "frozen"},
    "hpZ, adapter as reference": {**HPZ, "lora": {"r": 4}, "reference": "adapter"},
    "hpZ, offloaded": {**HPZ, "offload": "optimizer+parameters"},
    "hpZ, shared rows": {**HPZ, "sequence_parallel_size": 2},
}
RANKS = {name: 4 if name.startswith("hpZ") else 2 for name in RUNS}
Spans = dict[int, float]


@pytest.fixture(scope="module")
def sent(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Spans], Path]]:
    """Bytes that a rank sends in each step after the first, by ranks that a collective spans, and the run's folder."""
    folder = tmp_path_factory.mktemp("traffic")
    outcomes: dict[str, Any] = {}
    for ranks in sorted({*RANKS.values()}):
        names = [name for name in RUNS if RANKS[name] == ranks]
        specs = [
            {
                "method": "dpo",
                "eval": None,
                "config": {**CONFIG, "bf16": True, **RUNS[name]},
                "output": f"{folder / name}",
            }
            for name in names
        ]
        outcomes.update(zip(names, launch(ranks, *specs), strict=True))
    assert {name: outcome["error"] for name, outcome in outcomes.items()} == dict.fromkeys(RUNS)
    return {name: (_steps(outcome["sent"]), folder / name) for name, outcome in outcomes.items()}


def _steps(sums: list[dict[str, float]]) -> list[Spans]:
    return [{int(span): b[span] - a.get(span, 0.0) for span in b} for a, b in pairwise(sums)]


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_the_plan_counts_what_is_sent(sent: dict[str, tuple[list[Spans], Path]], tiny_model: Path, name: str) -> None:
    config = TrainConfig.model_validate({**CONFIG, "bf16": True, **RUNS[name]})
    parameters = sum(tensor.numel() for tensor in load_file(tiny_model / "model.safetensors").values())
    shape = ModelShape("tiny", parameters, layers=2, hidden=64, mlp=256, attention=64, key_value=64, vocabulary=400)
    found, run = sent[name]
    assert len(found) == 2
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[1:]]
    tokens = [row["tokens_per_second"] / row["groups_per_second"] for row in rows]  # of a group, in the same seconds
    for step, of_a_group in zip(found, tokens, strict=True):
        expected = step_traffic(shape, config, "dpo", RANKS[name], config.zero_stage, of_a_group)
        assert {span: sent for span, sent in step.items() if sent} == pytest.approx(expected, rel=0.02)
    assert (exchanged_bytes(shape, config, 2, tokens[0]) > 0) is (config.sequence_parallel_size > 1)
    assert weights(run)  # it went to its end
