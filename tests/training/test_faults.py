"""What stops a run in the middle: numbers that are not finite, and a signal. All ranks stop, and nothing is lost."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mapl_ray.models import load_reward_model, load_tokenizer
from mapl_ray.training.checkpoint import committed

CONFIG = {
    "learning_rate": 1e-3,
    "max_sequence_tokens": 256,
    "micro_batch_size": 1,
    "max_steps": 3,
    "eval_every_steps": 1,
    "checkpoint_every_steps": 99,
}
STAGES = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def exploding(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of ordinary rewards whose gradient overflows: the head is huge, the norm before it tiny."""
    folder = tmp_path_factory.mktemp("models") / "exploding"
    model = load_reward_model(tiny_model, "float32", seed=0)
    with torch.no_grad():
        model.model.norm.weight.fill_(1e-38)
        model.score.weight.copy_(model.score.weight.sign() * 2e38)
    model.save_pretrained(folder)
    load_tokenizer(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def faults(
    launch: Any, data: Path, exploding: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Every fault on two ranks, and what each run said."""
    folder = tmp_path_factory.mktemp("faults")
    explosion = {"method": "rm", "model": str(exploding), "eval": None}
    poison = {
        "method": "dpo",
        "config": {**CONFIG, "checkpoint_every_steps": 1, "seed": 1},
        "train": str(data / "poisoned"),
        "eval": None,
    }
    signalled = {"method": "dpo", "config": {**CONFIG, "zero_stage": 3}}
    specs = {f"gradient {stage}": {**explosion, "config": {**CONFIG, "zero_stage": stage}} for stage in STAGES}
    specs |= {"loss": poison, "whole": signalled, "signalled": {**signalled, "sigterm_at": 2}, "taken up": signalled}
    named = [{**spec, "output": str(folder / name.replace("taken up", "signalled"))} for name, spec in specs.items()]
    outcomes = dict(zip(specs, launch(2, *named), strict=True))
    return folder, outcomes


@pytest.mark.parametrize("stage", STAGES)
def test_gradient_that_is_not_finite_stops_before_the_step(faults: tuple[Path, dict[str, Any]], stage: int) -> None:
    folder, outcomes = faults
    error = outcomes[f"gradient {stage}"]["error"]
    assert error["kind"] == "NotFiniteError"
    for words in ("step 1: the loss is finite and its gradient is not", "pref, intra, inter", "pair-0"):
        assert words in error["text"]
    assert not (folder / f"gradient {stage}" / "model").exists()


def test_loss_that_is_not_finite_stops_before_the_step(faults: tuple[Path, dict[str, Any]]) -> None:
    folder, outcomes = faults
    error = outcomes["loss"]["error"]
    assert error["kind"] == "NotFiniteError"
    for words in ("step 2: the loss is not finite at level pref, intra, inter", "pair-0002"):
        assert words in error["text"]
    assert [path.name for path in committed(folder / "loss" / "checkpoints")] == ["step-00000001"]
    assert not (folder / "loss" / "result.json").exists()


def test_sigterm_to_one_rank_stops_all_at_the_step_and_loses_none(faults: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = faults
    whole, signalled = folder / "whole", folder / "signalled"
    assert json.loads((signalled / "result.json").read_text())["resumed_step"] == 2
    assert [path.name for path in committed(signalled / "checkpoints")] == ["step-00000002"]
    a, b = (load_file(run / "model" / "model.safetensors") for run in (whole, signalled))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_result_of_a_training_vouches_for_its_weights(faults: tuple[Path, dict[str, Any]]) -> None:
    from mapl_ray.training.result import vouched_for

    output = faults[0] / "whole"
    named = json.loads((output / "result.json").read_text())["weights"]
    assert named
    assert named == vouched_for(output / "model")
