"""A second copy of a command, started while the first is killed at random moments: the stages of `mapl synthesize`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
    FEW,
    FEW_A_SHARD,
    SPLITS,
    compare_data,
    synthesis_words,
    undisturbed_synthesis,
)
from benchmarks.reliability.second_copy_kills import Stage, second_copy


def _from_nothing(scene: Scene, output: Path) -> None:
    output.mkdir(parents=True)


def _from_pairs(scene: Scene, output: Path) -> None:
    made = undisturbed_synthesis(scene, FEW, FEW_A_SHARD)
    shutil.copytree(made / "pairs", output / "run" / "pairs")


def _synthesis_words(scene: Scene, output: Path) -> list[str]:
    return synthesis_words(scene, output, pairs=FEW, rows_per_shard=FEW_A_SHARD)


def _both(stage: str) -> Callable[[Path], bool]:
    return lambda run: all((run / stage / split / "manifest.json").is_file() for split in SPLITS)


def _same_data(*stages: str) -> Callable[[Outcome, Path, Path], None]:
    return lambda outcome, there, here: compare_data(outcome, there, here, *stages)


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
}
_LIMITS = {"prepare": 120.0, "synthesize": 180.0}
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
