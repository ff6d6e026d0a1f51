"""A resume loses nothing: on as many ranks to the bit, on another number of ranks up to the order of sums."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.training.compare import largest_difference, weights

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
RESIZED = (2, 3)  # with two groups of parameters, those that decay and those that don't
# Where a run is stopped, another place for every stage, and others still at another seed.
STOPS = dict(zip(STAGES, random.Random(4).sample(range(1, STEPS), 4), strict=True))


def rows(output: Path) -> list[dict[str, float]]:
    """What was logged at every step, without what depends on clock and machine."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    of_the_machine = ("second", "memory")
    return [{k: v for k, v in json.loads(line).items() if not any(w in k for w in of_the_machine)} for line in lines]


@pytest.fixture(scope="module")
def runs(launch: Any, dropout_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On two ranks: whole runs, stopped runs taken up again, and runs left for one rank to take up; and back."""
    folder = tmp_path_factory.mktemp("runs")
    method = {0: "dpo", 1: "rm", 2: "dpo", 3: "rm"}

    def spec(name: str, stage: int, **more: Any) -> dict[str, Any]:
        config = {**CONFIG, "zero_stage": stage, **more.get("config", {})}
        if "stop_after" in more:
            config["checkpoint_every_steps"] = more["stop_after"]
        return {**more, "method": method[stage], "config": config, "output": str(folder / f"{name} {stage}")}

    dropout = {"model": str(dropout_model)}
    two = [spec("whole", stage, **dropout) for stage in STAGES]
    for stage, stop in STOPS.items():
        # Batches made ahead by a thread, some of them for nothing: the run stops before they are used.
        ahead = {"config": {"prefetch": 3}, **dropout}
        two += [spec("resumed", stage, stop_after=stop, **ahead), spec("resumed", stage, **ahead)]
    two += [spec("plain", stage) for stage in RESIZED]
    two += [spec("2 to 1", stage, stop_after=3) for stage in RESIZED]
    launch(2, *two)
    # One rank accumulates four micro-batches: the same eight groups per step.
    four = {"config": {"gradient_accumulation_steps": 4}}
    one = [spec("2 to 1", stage, **four) for stage in RESIZED]
    one += [spec("1 to 2", stage, stop_after=3, **four) for stage in RESIZED]
    launch(1, *one)
    launch(2, *[spec("1 to 2", stage) for stage in RESIZED])
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_equals_uninterrupted_to_the_bit(runs: Path, stage: int) -> None:
    whole, resumed = runs / f"whole {stage}", runs / f"resumed {stage}"
    assert json.loads((resumed / "result.json").read_text())["resumed_step"] == STOPS[stage]
    assert largest_difference(weights(whole), weights(resumed)) == 0.0
    assert rows(whole) == rows(resumed)
    assert len(rows(whole)) == STEPS


@pytest.mark.parametrize("way", ["2 to 1", "1 to 2"])
@pytest.mark.parametrize("stage", RESIZED)
def test_another_number_of_ranks_goes_on(runs: Path, stage: int, way: str) -> None:
    """After three more steps of Adam at a rate of 1e-3 weights differ by less than 5e-6: sums go in another order."""
    whole, resized = runs / f"plain {stage}", runs / f"{way} {stage}"
    result = json.loads((resized / "result.json").read_text())
    assert (result["resumed_step"], result["num_workers"]) == (3, int(way[-1]))
    assert largest_difference(weights(whole), weights(resized)) < 5e-6
    for a, b in zip(rows(whole), rows(resized), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
    assert not list((resized / "checkpoints").glob(".*"))
