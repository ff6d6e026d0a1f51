"""What `mapl plan` says that a training worker sends, against what DeepSpeed sends."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mapl_ray.config import TrainConfig
from mapl_ray.planning.shape import ModelShape
from mapl_ray.planning.stage_times import exchanged_bytes, sent_bytes
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
RUNS = {
    **{f"ZeRO-{stage}": {"zero_stage": stage, "gradient_accumulation_steps": 2} for stage in (0, 1, 2)},
    "ZeRO-3": {"zero_stage": 3, "gradient_accumulation_steps": 2, "deepspeed_config": NOT_KEPT},
    "float32": {"zero_stage": 2, "bf16": False},
    "shared rows": {"zero_stage": 2, "num_workers": 2, "sequence_parallel_size": 2, "gradient_accumulation_steps": 2},
    "adapters": {"zero_stage": 2, "gradient_accumulation_steps": 2, "lora": {"r": 4}},
}


@pytest.fixture(scope="module")
def sent(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[float], Path]]:
    """Bytes that a rank of two sends in the steps after the first, and the run's folder, by name of the run."""
    folder = tmp_path_factory.mktemp("traffic")
    specs = [
        {"method": "dpo", "eval": None, "config": {**CONFIG, "bf16": True, **changes}, "output": str(folder / name)}
        for name, changes in RUNS.items()
    ]
    outcomes = launch(2, *specs)
    assert [outcome["error"] for outcome in outcomes] == [None] * len(specs)
    return {
        name: ([b - a for a, b in zip(outcome["sent"], outcome["sent"][1:], strict=False)], folder / name)
        for name, outcome in zip(RUNS, outcomes, strict=True)
    }


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_the_plan_counts_what_is_sent(sent: dict[str, tuple[list[float], Path]], tiny_model: Path, name: str) -> None:
    config = TrainConfig.model_validate({**CONFIG, "bf16": True, **RUNS[name]})
    parameters = sum(tensor.numel() for tensor in load_file(tiny_model / "model.safetensors").values())
    shape = ModelShape("tiny", parameters, layers=2, hidden=64, mlp=256, attention=64, key_value=64, vocabulary=400)
    found, run = sent[name]
    assert len(found) == 2
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[1:]]
    tokens = [row["tokens_per_second"] / row["groups_per_second"] for row in rows]  # of a group, in the same seconds
    expected = [
        sent_bytes(shape, config, 2, config.zero_stage) + exchanged_bytes(shape, config, 2, of_a_group)
        for of_a_group in tokens
    ]
    assert found == pytest.approx(expected, rel=0.02)
    assert (exchanged_bytes(shape, config, 2, tokens[0]) > 0) is (config.sequence_parallel_size > 1)
    assert weights(run)  # it went to its end
