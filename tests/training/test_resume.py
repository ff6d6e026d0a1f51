"""A resume loses nothing: on as many ranks to the bit, on another number of ranks up to the order of sums."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

STEPS = 6
CONFIG = {
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "max_sequence_tokens": 256,
    "max_steps": STEPS,
    "epochs": 9,
    "eval_every_steps": STEPS,
    "checkpoint_every_steps": 99,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 2,
}
STAGES = (0, 1, 2, 3)
# Where a run is stopped, another place for every stage, and others still at another seed.
STOPS = dict(zip(STAGES, random.Random(4).sample(range(1, STEPS), 4), strict=True))


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def rows(output: Path) -> list[dict[str, float]]:
    """What was logged at every step, without what depends on clock and machine."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    of_the_machine = ("second", "memory")
    return [{k: v for k, v in json.loads(line).items() if not any(w in k for w in of_the_machine)} for line in lines]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def runs(launch: Any, dropout_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On two ranks: whole runs, stopped runs taken up again, and runs left for one rank to take up; and back."""
    folder = tmp_path_factory.mktemp("runs")
    method = {0: "dpo", 1: "rm", 2: "dpo", 3: "rm"}

    def spec(name: str, stage: int, **more: Any) -> dict[str, Any]:
        config = {**CONFIG, "zero_stage": stage, **more.pop("config", {})}
        if "stop_after" in more:
            config["checkpoint_every_steps"] = more["stop_after"]
        return {"method": method[stage], "config": config, "output": str(folder / f"{name} {stage}"), **more}

    dropout = {"model": str(dropout_model)}
    two = [spec("whole", stage, **dropout) for stage in STAGES]
    for stage, stop in STOPS.items():
        two += [spec("resumed", stage, stop_after=stop, **dropout), spec("resumed", stage, **dropout)]
    decay = {2: 0.1, 3: 0.0}  # ZeRO-3 with decay groups is refused, see below

    def resized(name: str, stage: int, accumulation: int = 2, **more: Any) -> dict[str, Any]:
        changes = {"weight_decay": decay[stage], "gradient_accumulation_steps": accumulation}
        return spec(name, stage, config=changes, **more)

    two += [resized("plain", stage) for stage in decay]
    two += [resized("2 to 1", stage, stop_after=3) for stage in decay]
    launch(2, *two, spec("refused", 3, stop_after=3))
    # One rank accumulates four micro-batches: the same eight groups a step.
    one = [resized("2 to 1", stage, 4) for stage in decay]
    one += [resized("1 to 2", stage, 4, stop_after=3) for stage in decay]
    *_, refused = launch(1, *one, spec("refused", 3, config={"gradient_accumulation_steps": 4}))
    (folder / "refused.json").write_text(json.dumps(refused))
    launch(2, *[resized("1 to 2", stage) for stage in decay])
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_equals_uninterrupted_to_the_bit(runs: Path, stage: int) -> None:
    whole, resumed = runs / f"whole {stage}", runs / f"resumed {stage}"
    assert json.loads((resumed / "result.json").read_text())["resumed_step"] == STOPS[stage]
    assert largest_difference(weights(whole), weights(resumed)) == 0.0
    assert rows(whole) == rows(resumed)
    assert len(rows(whole)) == STEPS


@pytest.mark.parametrize("way", ["2 to 1", "1 to 2"])
@pytest.mark.parametrize("stage", [2, 3])
def test_another_number_of_ranks_goes_on(runs: Path, stage: int, way: str) -> None:
    """After three more steps of Adam at a rate of 1e-3 weights differ by less than 5e-5, as those of two cuts do."""
    whole, resized = runs / f"plain {stage}", runs / f"{way} {stage}"
    result = json.loads((resized / "result.json").read_text())
    assert (result["resumed_step"], result["num_workers"]) == (3, int(way[-1]))
    assert largest_difference(weights(whole), weights(resized)) < 5e-5
    for a, b in zip(rows(whole), rows(resized), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
    assert not list((resized / "checkpoints").glob("universal-*"))


def test_another_number_of_ranks_is_refused_where_it_would_go_wrong(runs: Path) -> None:
    """DeepSpeed's universal checkpoint of ZeRO-3 takes one group of parameters; with decay there are two."""
    error = json.loads((runs / "refused.json").read_text())["error"]
    assert error["kind"] == "UserError"
    for words in ("written by 2 worker(s), and there are 1", "train.weight_decay"):
        assert words in error["text"]
