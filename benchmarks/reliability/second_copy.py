"""For every stage: a second copy of the command, started while the first one is killed at random moments."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
    FEW,
    FEW_A_SHARD,
    SPLITS,
    compare_data,
    compare_weights,
    evaluation_words,
    few_groups,
    leftovers,
    scoring_words,
    synthesis_words,
    training_words,
    undisturbed_synthesis,
    undisturbed_training,
)
from benchmarks.reliability.second_copy_kills import Stage, second_copy


def _from_nothing(scene: Scene, output: Path) -> None:
    output.mkdir(parents=True)


def _from_pairs(scene: Scene, output: Path) -> None:
    made = undisturbed_synthesis(scene, FEW, FEW_A_SHARD)
    shutil.copytree(made / "pairs", output / "run" / "pairs")


def _from_groups(scene: Scene, output: Path) -> None:
    few_groups(scene, output)


def _from_model(scene: Scene, output: Path) -> None:
    shutil.copytree(undisturbed_training(scene), output / "run")


def _synthesis_words(scene: Scene, output: Path) -> list[str]:
    return synthesis_words(scene, output, pairs=FEW, rows_per_shard=FEW_A_SHARD)


def _has(name: str, *folders: str) -> Callable[[Path], bool]:
    return lambda run: all((run / folder / name).is_file() for folder in folders or (".",))


def _both(stage: str) -> Callable[[Path], bool]:
    return _has("manifest.json", *(f"{stage}/{split}" for split in SPLITS))


def _same_data(*stages: str) -> Callable[[Outcome, Path, Path], None]:
    return lambda outcome, there, here: compare_data(outcome, there, here, *stages)


def _same_evaluation(outcome: Outcome, there: Path, here: Path) -> None:
    def numbers(run: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        return {**found, "provenance": {**found["provenance"], "date": ""}}

    outcome.check("evaluation.json is the undisturbed run's, but for its date", numbers(there) == numbers(here))
    outcome.check("no half-written file is left", leftovers(here) == [])


STAGES = {
    "prepare": Stage(
        lease="synthesize",
        begin=_from_nothing,
        words=_synthesis_words,
        done=_both("pairs"),
        compare=_same_data("pairs", "groups"),
        result="pairs/eval/manifest.json",
    ),
    "synthesize": Stage(
        lease="synthesize",
        begin=_from_pairs,
        words=_synthesis_words,
        done=_both("groups"),
        compare=_same_data("pairs", "groups"),
        result="groups/eval/manifest.json",
    ),
    "score": Stage(
        lease="score",
        begin=_from_groups,
        words=lambda scene, output: scoring_words(output),
        done=_both("scored"),
        compare=_same_data("scores/ref_logps", "scored"),
        result="scored/eval/manifest.json",
    ),
    "train": Stage(
        lease="rm",
        begin=_from_groups,
        words=lambda scene, output: training_words(output),
        done=_has("result.json", "rm"),
        compare=compare_weights,
        result="rm/model/model.safetensors",
    ),
    "evaluate": Stage(
        lease="evaluate",
        begin=_from_model,
        words=lambda scene, output: evaluation_words(output),
        done=_has("evaluation.json"),
        compare=_same_evaluation,
        result="evaluation.json",
    ),
}
_LIMITS = {"prepare": 120.0, "synthesize": 180.0, "score": 300.0, "train": 300.0, "evaluate": 180.0}
FAULTS = tuple(
    Fault(
        name=f"second-copy-{name}",
        of_issue="second copy",
        title=f"SIGKILL in {name}, with a second copy of the same command started meanwhile",
        happens="the second copy is refused while the first works, and takes over once the first is gone",
        user="The sentence below and exit code 2, while the first copy works; nothing, once it is gone.",
        recovery="from a kill until a copy of the command holds the lease again, that copy's start included",
        rounds=10,
        limit_seconds=_LIMITS[name],
        measure=partial(second_copy, stage),
    )
    for name, stage in STAGES.items()
)
