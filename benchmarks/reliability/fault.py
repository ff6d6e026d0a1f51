"""The data of a row of the table: a fault, how it is injected, and its outcome."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Scene:
    """Folders and data of a fault."""

    folder: Path  # the fault's own folder, initially empty
    shared: Path  # undisturbed runs, shared by all faults
    data: str  # real pairs: `data.path` of the runs
    rounds: int
    rng: random.Random


@dataclass(slots=True)
class Outcome:
    """The measurements over all rounds of one fault."""

    seconds: list[float] = field(default_factory=list)  # seconds of recovery, one value per round
    checks: dict[str, bool] = field(default_factory=dict)  # sentence -> whether it held in every round
    lost: str = ""  # the lost work, with measured numbers
    message: str = ""  # the last message to the user; empty if the run recovered by itself

    def check(self, sentence: str, holds: bool) -> None:
        """Add an observation. A sentence that failed once stays failed."""
        self.checks[sentence] = self.checks.get(sentence, True) and bool(holds)

    @property
    def holds(self) -> bool:
        """Whether there are checks and all of them held."""
        return bool(self.checks) and all(self.checks.values())

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON, for the parent process."""
        return asdict(self)


def nothing_missing() -> str:
    """`missing` of a fault that needs nothing special."""
    return ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the page. The texts are shown on the page; `measure` returns the measurements."""

    name: str  # the name for `--only`
    of_issue: str  # the kind of fault, as named in `registry.PROMISED`
    title: str
    happens: str
    user: str  # what the user sees and must do
    recovery: str  # the start and the end of the measured seconds
    rounds: int
    limit_seconds: float  # time limit of a round; a longer one counts as a hang
    measure: Callable[[Scene], Outcome]
    missing: Callable[[], str] = nothing_missing  # why it can't run on this machine; empty if it can
