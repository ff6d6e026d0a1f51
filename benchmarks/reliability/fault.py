"""What a row of the table is: a fault, how it is done, and its outcome."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault happens."""

    folder: Path  # the fault's own, empty
    shared: Path  # of undisturbed runs, kept from fault to fault
    data: str  # real pairs: `data.path` of the runs
    rounds: int
    rng: random.Random


@dataclass(slots=True)
class Outcome:
    """What was measured over all rounds of one fault."""

    seconds: list[float] = field(default_factory=list)  # of recovery, one a round
    checks: dict[str, bool] = field(default_factory=dict)  # sentence -> whether it was so in every round
    lost: str = ""  # with the numbers that were measured
    message: str = ""  # what the user saw, the last time; empty where the run recovered by itself

    def check(self, sentence: str, holds: bool) -> None:
        """One more observation; a sentence that failed once has failed."""
        self.checks[sentence] = self.checks.get(sentence, True) and bool(holds)

    @property
    def holds(self) -> bool:
        """Whether anything was checked, and all of it was so."""
        return bool(self.checks) and all(self.checks.values())

    def to_json(self) -> dict[str, Any]:
        """For the process that started this one."""
        return asdict(self)


def nothing_missing() -> str:
    """Of a fault that can be done everywhere."""
    return ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. The texts are those of the page; what is measured comes from `measure`."""

    name: str  # of `--only`
    of_issue: str  # the kind of fault, in the words of the promise (`registry.PROMISED`)
    title: str
    happens: str
    user: str  # what the user sees and has to do
    recovery: str  # from what to what the seconds are counted
    rounds: int
    limit_seconds: float  # of a round; one that takes longer is a hang
    measure: Callable[[Scene], Outcome]
    missing: Callable[[], str] = nothing_missing  # why it can't be done on this machine; empty where it can
