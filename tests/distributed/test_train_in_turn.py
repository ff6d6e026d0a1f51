"""Several trainings on the same workers: what they leave, what is skipped, and where one fails or is told to stop."""

import contextlib
import io
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mapl_ray.config import RunConfig
from mapl_ray.distributed.train_in_turn import Training, run_in_turn
from mapl_ray.errors import RunError
from mapl_ray.training.result import TrainResult
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.long]
STEPS = 4
NUMBERS = {"max_steps", "epochs", "zero_stage"}  # settings that change the numbers of a step
Make = Callable[..., RunConfig]


def training(config: RunConfig, name: str, **train: Any) -> Training:
    settings = config.training("rm").model_copy(update=train)
    return Training(name, "rm", settings, config.model.name_or_path, config.run_dir / name)


def in_turn(config: RunConfig, *trainings: Training) -> list[str]:
    """What was begun and ended, in order."""
    seen: list[str] = []

    def end(one: Training, result: TrainResult) -> None:
        assert result.steps == one.config.max_steps
        seen.append(f"end {one.name}")

    try:
        run_in_turn(config, trainings, lambda one: seen.append(f"begin {one.name}"), end)
    except (RunError, KeyboardInterrupt) as error:
        seen.append(type(error).__name__)
    return seen


def rows(config: RunConfig, name: str) -> list[dict[str, float]]:
    """The metrics of every step, without what depends on the machine."""
    path = config.run_dir / name / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    timed = ("second", "memory", "flops", "mfu")
    return [{key: value for key, value in line.items() if not any(word in key for word in timed)} for line in lines]


@dataclass(frozen=True)
class Begun:
    """Two trainings in turn, the second with a loss that is not finite, into folders of which one was in use."""

    config: RunConfig
    first: Training
    seen: list[str]
    printed: str


@pytest.fixture(scope="module")
def begun(local_ray: None, run_to_train_in: Make, tmp_path_factory: pytest.TempPathFactory) -> Begun:
    config = run_to_train_in(tmp_path_factory.mktemp("in-turn"), max_steps=STEPS, num_workers=2, zero_stage=2)
    first, broken = training(config, "a"), training(config, "b", learning_rate=1e30)
    # A finished model of a run that was shorter than its first checkpoint.
    (first.output / "model").mkdir(parents=True)
    (first.output / "model" / "config.json").write_text("{}")
    (first.output / "result.json").write_text(json.dumps({"fingerprint": "of other settings"}))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        seen = in_turn(config, first, broken)
    return Begun(config, first, seen, printed.getvalue())


def test_one_after_the_other(begun: Begun, capfd: pytest.CaptureFixture[str]) -> None:
    """The second one's loss is not finite: the first stays, and is skipped from then on."""
    config, first = begun.config, begun.first
    assert begun.seen == ["begin a", "end a", "begin b", "RunError"]
    assert not (config.run_dir / "b" / "result.json").exists()
    aside = config.run_dir / "a.aside-1"
    assert f"{first.output}: of a run with other settings or data, kept as {aside}" in begun.printed
    assert (aside / "model" / "config.json").read_text() == "{}"
    assert "model_type" in (first.output / "model" / "config.json").read_text()
    written = (first.output / "result.json").stat().st_mtime_ns
    assert in_turn(config, first) == ["begin a", "end a"]
    assert (first.output / "result.json").stat().st_mtime_ns == written
    assert capfd.readouterr().out.count("skipped") == 1


def test_the_second_is_trained_once_it_is_fixed(begun: Begun, capfd: pytest.CaptureFixture[str]) -> None:
    written = (begun.first.output / "result.json").stat().st_mtime_ns
    fixed = training(begun.config, "b")
    assert in_turn(begun.config, begun.first, fixed) == ["begin a", "end a", "begin b", "end b"]
    assert (begun.first.output / "result.json").stat().st_mtime_ns == written
    assert capfd.readouterr().out.count("skipped") == 1


def test_sigterm_in_the_first_goes_on_there(begun: Begun, run_to_train: Make) -> None:
    """And the second, of another ZeRO stage, has the numbers of a training that has its processes to itself."""
    config = run_to_train(max_steps=60, num_workers=2, zero_stage=3, checkpoint_every_steps=999)
    trainings = (training(config, "a"), training(config, "b", **begun.first.config.model_dump(include=NUMBERS)))

    def terminate() -> None:
        until(lambda: len(rows(config, "a")) >= 3, "three steps")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    assert in_turn(config, *trainings) == ["begin a", "KeyboardInterrupt"]
    done = len(rows(config, "a"))
    assert 3 <= done < 60
    assert not (config.run_dir / "b" / "metrics.jsonl").exists()
    assert in_turn(config, *trainings) == ["begin a", "end a", "begin b", "end b"]
    assert json.loads((config.run_dir / "a" / "result.json").read_text())["resumed_step"] == done
    assert rows(config, "b") == rows(begun.config, "a")
    assert len(rows(config, "b")) == STEPS
