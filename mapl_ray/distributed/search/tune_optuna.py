"""Suggest values with Optuna: a TPE study of one or two objectives that includes the trials of earlier starts."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

from mapl_ray.config import Dimension, Scalar, TuneConfig
from mapl_ray.errors import UserError
from mapl_ray.tuning import MULTI, PREF, Trial


def check_optuna() -> None:
    """Raise `UserError` if Optuna is not installed."""
    if find_spec("optuna") is None:
        raise UserError(
            "tune.search=optuna: the package optuna is not installed. pip install optuna -c constraints.txt (or the "
            "extra `tuning`), or set tune.search=random."
        )


class OptunaSource:
    """Draw values from an Optuna study and record results. Earlier trials come from the journal; no study is stored."""

    def __init__(self, settings: TuneConfig, earlier: list[Trial]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._settings = optuna, settings
        self._keys = (PREF, MULTI) if settings.multi_objective else ("objective",)
        self._space = {name: _distribution(optuna, one) for name, one in settings.dimensions.items()}
        # The seed changes after a restart; otherwise the first values would be suggested again.
        sampler = optuna.samplers.TPESampler(seed=settings.seed + len(earlier))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(sampler=sampler, directions=["maximize"] * len(self._keys))
        self._asked: dict[int, Any] = {}
        for trial in earlier:
            if trial.ended and (values := self._values(trial)) is not None:
                params = self._to_study(trial.params)
                done = optuna.trial.create_trial(params=params, distributions=self._space, values=values)
                self._study.add_trial(done)

    def ask(self, number: int) -> dict[str, Scalar]:
        """The study's next suggestion, for trial `number`."""
        asked = self._asked[number] = self._study.ask(self._space)
        return {name: _value(one, asked.params[name]) for name, one in self._settings.dimensions.items()}

    def resume(self, trial: Trial) -> None:
        """Add an unfinished trial of an earlier start to the study."""
        self._study.enqueue_trial(self._to_study(trial.params))
        self._asked[trial.number] = self._study.ask(self._space)

    def record(self, trial: Trial) -> None:
        """Record a trial's objective values. A trial without values is recorded as failed."""
        asked, values = self._asked.pop(trial.number), self._values(trial)
        if values is None or trial.status == "failed":
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(asked, values)

    def _values(self, trial: Trial) -> list[float] | None:
        found = [trial.last[key] for key in self._keys if key in trial.last]
        return found if len(found) == len(self._keys) else None

    def _to_study(self, params: dict[str, Scalar]) -> dict[str, Any]:
        return {name: params[name] for name in self._space}


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    kinds = optuna.distributions
    if dimension.values is not None:
        return kinds.CategoricalDistribution(dimension.values)
    low, high = dimension.given[:2]
    if dimension.kind == "randint":
        return kinds.IntDistribution(low, high - 1)
    if dimension.kind == "quniform":
        return kinds.FloatDistribution(low, dimension.at(dimension.steps), step=dimension.given[2])
    return kinds.FloatDistribution(low, high, log=dimension.kind == "loguniform")


def _value(dimension: Dimension, value: Any) -> Scalar:
    if dimension.kind == "quniform":
        return dimension.at(round((value - dimension.given[0]) / dimension.given[2]))
    plain: Scalar = value
    return plain
