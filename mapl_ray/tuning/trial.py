"""One trial: its values, results and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mapl_ray.config import Scalar

Status = Literal["running", "finished", "stopped early", "failed"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a trial so far, including failed starts."""

    seconds: float = 0.0
    worker_seconds: float = 0.0
    gpu_seconds: float = 0.0
    groups: int = 0  # trained on; steps that are repeated after a failure count once

    def after(self, seconds: float, workers: int, gpus_per_worker: float) -> Cost:
        """Add seconds of all workers."""
        return replace(
            self,
            seconds=self.seconds + seconds,
            worker_seconds=self.worker_seconds + seconds * workers,
            gpu_seconds=self.gpu_seconds + seconds * workers * gpus_per_worker,
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial: content of `trial.json`. `number`: its index in the search, from 0."""

    number: int
    params: dict[str, Scalar]  # by dotted config name
    status: Status = "running"
    reports: tuple[dict[str, float], ...] = ()  # step, objective, eval/...: one per evaluation, sorted by step
    cost: Cost = field(default_factory=Cost)
    starts: int = 0  # how often it was started or resumed
    run: int = 0  # in a population: how often it copied another member's checkpoint
    moves: tuple[dict[str, Any], ...] = ()  # one per copy: step, the donor's number, the values before
    error: str | None = None

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.number:04d}"

    @property
    def ended(self) -> bool:
        """Whether it is complete and must not run again."""
        return self.status in ("finished", "stopped early")

    @property
    def last(self) -> dict[str, float]:
        """The last report; empty if there is none."""
        return self.reports[-1] if self.reports else {}

    @property
    def steps(self) -> int:
        """Number of steps at its last evaluation."""
        return int(self.last.get("step", 0))

    @property
    def objective(self) -> float | None:
        """Objective at the last evaluation."""
        return self.last.get("objective")

    def objective_at(self, step: int) -> float:
        """Objective at the evaluation after `step`. Raises `StopIteration` if there was none."""
        return next(report["objective"] for report in self.reports if report["step"] == step)

    def with_reports(self, found: list[dict[str, float]]) -> Trial:
        """Add reports. A new report replaces an existing one of the same step."""
        by_step = {report["step"]: report for report in (*self.reports, *found)}
        return replace(self, reports=tuple(by_step[step] for step in sorted(by_step)))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON-serializable values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """Inverse of `to_json`. Raises `TypeError` or `KeyError` for invalid values."""
        plain = dict(values)
        cost = Cost(**plain.pop("cost"))
        return cls(**{**plain, "cost": cost, "reports": tuple(plain["reports"]), "moves": tuple(plain["moves"])})
