"""Config of a search: space, search algorithm, scheduler and objective."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mapl_ray.config.field_types import Section
from mapl_ray.config.loss_options import Method
from mapl_ray.config.space import Dimension, flattened
from mapl_ray.data.records import LEVEL_FAMILIES

_DEFAULT_TRIALS = 4
_LOSS_WEIGHTS = {f"train.weights.{name}": Dimension(loguniform=(0.1, 2.0)) for name in ("lambda_intra", "lambda_inter")}


class TuneConfig(Section):
    """A Ray Tune search over training options (docs/tuning.md)."""

    method: Method = "rm"  # What the trials train.
    # Dotted config name to dimension, as in `train.learning_rate: {loguniform: [1e-6, 1e-4]}`. Empty: the loss weights.
    space: dict[str, Dimension] = Field(default_factory=dict)
    search: Literal["random", "optuna"] = "random"  # Search algorithm.
    # Optuna: optimize pref and multi-instruction accuracy as two objectives, not as one mean.
    multi_objective: bool = False
    # Trial scheduler: ASHA stops trials early, PBT changes them while they run.
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    # Number of trials. null: every grid point once; at most 4 without a grid.
    num_trials: int | None = Field(default=None, ge=1)
    # Maximum number of concurrent trials. null: as many as fit on the cluster.
    max_concurrent_trials: int | None = Field(default=None, ge=1)
    max_steps: int = Field(default=50, ge=1)  # Maximum optimizer steps of a trial.
    eval_every_steps: int = Field(default=10, ge=1)  # Steps between evaluations of a trial.
    grace_period_steps: int = Field(default=10, ge=1)  # ASHA: steps before a trial may be stopped.
    perturb_every_steps: int = Field(default=10, ge=1)  # PBT: steps between changes of the population.
    # Steps between checkpoints of a trial. null: at every evaluation.
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    # Weights of the level accuracies whose mean is maximized.
    objective: dict[str, float] = Field(default={"pref": 1.0, "intra": 0.5, "inter": 0.5})
    seed: int = 0  # Seed of the search.

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """The searched dimensions by dotted name; the loss weights if `space` is empty."""
        return self.space or _LOSS_WEIGHTS

    @property
    def grid_points(self) -> int:
        """Number of grid points; 1 without a grid."""
        return math.prod(len(one.given) for one in self.dimensions.values() if one.kind == "grid")

    @property
    def points(self) -> int | None:
        """Number of distinct points in the space; None if a range of real numbers makes it infinite."""
        sizes = [one.size for one in self.dimensions.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    @property
    def trials(self) -> int:
        """Number of trials of the search."""
        if self.num_trials is not None:
            return self.num_trials
        if any(one.kind == "grid" for one in self.dimensions.values()):
            return self.grid_points
        # Equal trials give equal results, except under PBT, which changes them later.
        most = None if self.scheduler == "pbt" else self.points
        return _DEFAULT_TRIALS if most is None else min(_DEFAULT_TRIALS, most)

    @field_validator("space", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        return flattened(value)

    @field_validator("objective")
    @classmethod
    def _levels(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or set(value) - set(LEVEL_FAMILIES) or min(value.values()) < 0 or sum(value.values()) <= 0:
            raise ValueError(f"expected non-negative weights of {', '.join(LEVEL_FAMILIES)}, at least one above 0")
        return value

    @model_validator(mode="after")
    def _grid(self) -> Self:
        kinds = {one.kind for one in self.dimensions.values()}
        points = self.grid_points
        if "grid" not in kinds:
            return self
        if self.search == "optuna" or self.scheduler == "pbt":
            how = "search=optuna" if self.search == "optuna" else "scheduler=pbt"
            raise ValueError(f"{how} takes no grid: use choice instead, or set search=random and scheduler=asha")
        if self.trials < points:
            raise ValueError(f"num_trials={self.num_trials}: the grid has {points} points; set it to {points} or more")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        points = self.points
        if points is None:
            return self
        if self.scheduler == "pbt" and points == 1:
            raise ValueError("scheduler=pbt: the space has only one point; add values, so that trials differ")
        if self.scheduler != "pbt" and self.trials > points:
            what = "grid" if any(one.kind == "grid" for one in self.dimensions.values()) else "space"
            raise ValueError(
                f"num_trials={self.num_trials}: the {what} has {points} point{'s' * (points > 1)}, and more would "
                f"repeat them; set it to {points} or less"
            )
        return self

    @model_validator(mode="after")
    def _search(self) -> Self:
        if self.multi_objective and self.search != "optuna":
            raise ValueError("multi_objective=true needs search=optuna; the Pareto front is always reported")
        if self.scheduler != "pbt":
            return self
        if self.search == "optuna":
            raise ValueError("scheduler=pbt draws values itself: set search=random")
        if self.trials < 2:
            raise ValueError(f"num_trials={self.trials}: scheduler=pbt needs at least 2 trials")
        if self.perturb_every_steps % self.eval_every_steps:
            raise ValueError(
                f"perturb_every_steps={self.perturb_every_steps}: expected a multiple of eval_every_steps="
                f"{self.eval_every_steps}, because PBT compares trials by their evaluations"
            )
        return self
