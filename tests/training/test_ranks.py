"""Real DeepSpeed on one and two ranks: the cut of the work changes nothing, a resume changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

CONFIG = {
    "learning_rate": 1e-3,
    "max_sequence_tokens": 256,
    "epochs": 2,
    "eval_every_steps": 2,
    "checkpoint_every_steps": 2,
    "weight_decay": 0.1,
}
# The same eight groups a step, cut in four ways.
CUTS = {
    "one rank": (1, {"micro_batch_size": 8, "gradient_accumulation_steps": 1, "zero_stage": 0}),
    "padded": (1, {"micro_batch_size": 4, "gradient_accumulation_steps": 2, "zero_stage": 1, "batching": "padded"}),
    "rows": (1, {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "zero_stage": 0, "row_tokens": 300}),
    "ZeRO-2": (2, {"micro_batch_size": 2, "gradient_accumulation_steps": 2, "zero_stage": 2}),
    "ZeRO-3": (2, {"micro_batch_size": 4, "gradient_accumulation_steps": 1, "zero_stage": 3}),
}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def runs(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every cut of both methods, and a ZeRO-3 run stopped after three of its four steps and taken up again."""
    folder = tmp_path_factory.mktemp("runs")
    for ranks in (1, 2):
        specs: list[dict[str, Any]] = []
        for name, (needs, cut) in CUTS.items():
            if needs == ranks:
                specs += [
                    {"method": method, "config": {**CONFIG, **cut}, "output": str(folder / f"{method} {name}")}
                    for method in ("rm", "dpo")
                ]
        if ranks == 2:
            whole = {"method": "dpo", "config": {**CONFIG, **CUTS["ZeRO-3"][1]}, "output": str(folder / "resumed")}
            specs += [{**whole, "stop_after": 3}, whole]
            # 11 of the 13 groups are longer than 50 tokens, by prompts that can be cut.
            cut = {**CONFIG, **CUTS["ZeRO-2"][1], "max_sequence_tokens": 50, "epochs": 1}
            specs += [
                {
                    "method": method,
                    "config": {**cut, "truncate_prompt": policy},
                    "output": str(folder / f"{method} {policy}"),
                }
                for method, policy in (("rm", "left"), ("dpo", "left"), ("rm", "refuse"))
            ]
        launch(ranks, *specs)
    return folder


@pytest.mark.parametrize("method", ["rm", "dpo"])
@pytest.mark.parametrize("cut", ["padded", "rows", "ZeRO-2", "ZeRO-3"])
def test_every_cut_learns_the_same(runs: Path, method: str, cut: str) -> None:
    one, other = runs / f"{method} one rank", runs / f"{method} {cut}"
    # Adam divides by the square root of tiny second moments, which magnifies float noise; lr is 1e-3 a step.
    assert largest_difference(weights(one), weights(other)) < 5e-5
    a, b = (json.loads((run / "result.json").read_text())["metrics"] for run in (one, other))
    assert a["eval/loss"] == pytest.approx(b["eval/loss"], abs=1e-4)
    assert a.keys() == b.keys()


@pytest.mark.parametrize(
    ("run", "reason"),
    [("rm left", "prompt_truncated"), ("dpo left", "ref_logps_of_whole_prompt"), ("rm refuse", "too_long")],
)
def test_what_is_left_out_or_cut_is_counted_over_all_ranks(runs: Path, run: str, reason: str) -> None:
    result = json.loads((runs / run / "result.json").read_text())
    assert {name: number for name, number in result["counts"].items() if number} == {reason: 11}
    assert result["too_long"] == (11 if reason == "too_long" else 0)


@pytest.mark.parametrize("method", ["rm", "dpo"])
def test_training_learns_every_level(launch: Any, data: Path, tmp_path: Path, method: str) -> None:
    """13 groups can be learnt by heart, the intra and inter relations included."""
    config = {
        **CONFIG,
        "learning_rate": 3e-3,
        "micro_batch_size": 13,
        "epochs": 60,
        "eval_every_steps": 30,
        "beta": 0.5,
    }
    (outcome,) = launch(1, {"method": method, "config": config, "eval": str(data / "train"), "output": str(tmp_path)})
    first, last = outcome["reports"]
    assert (first["step"], last["step"]) == (30.0, 60.0)
    assert last["eval/loss"] < first["eval/loss"]
    for level in ("pref", "intra", "inter"):
        assert last[f"eval/rewards/accuracies/{level}"] > 0.9


def test_resumed_equals_uninterrupted(runs: Path) -> None:
    result = json.loads((runs / "resumed" / "result.json").read_text())
    assert result["resumed_step"] == 2  # the last checkpoint before the stop
    assert largest_difference(weights(runs / "dpo ZeRO-3"), weights(runs / "resumed")) == 0.0
    a, b = ((runs / name / "metrics.jsonl").read_text().splitlines() for name in ("dpo ZeRO-3", "resumed"))
    for x, y in zip(map(json.loads, a), map(json.loads, b), strict=True):
        assert {k: v for k, v in x.items() if k != "tokens_per_second"} == {
            k: v for k, v in y.items() if k != "tokens_per_second"
        }


@pytest.mark.parametrize(
    ("run", "auto"), [("rm ZeRO-3", AutoModelForSequenceClassification), ("dpo ZeRO-2", AutoModelForCausalLM)]
)
def test_export_opens_in_transformers(runs: Path, run: str, auto: Any) -> None:
    model, info = auto.from_pretrained(str(runs / run / "model"), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(str(runs / run / "model"))
    assert tokenizer.chat_template is not None
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_tensorboard_holds_the_curves(runs: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(runs / "rm ZeRO-2" / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("eval/rewards/accuracies/pref")] == [2, 4]


def test_loss_that_is_not_finite_stops_before_the_step(launch: Any, data: Path, tmp_path: Path) -> None:
    config = {**CONFIG, "micro_batch_size": 3, "epochs": 1, "max_steps": 5}
    (outcome,) = launch(
        2, {"method": "dpo", "config": config, "train": str(data / "poisoned"), "output": str(tmp_path / "run")}
    )
    assert outcome["error"]["kind"] == "RunError"
    assert "step 1: the loss is not finite" in outcome["error"]["text"]
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "result.json").exists()
