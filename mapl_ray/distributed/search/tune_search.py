"""Connect a search to Ray Tune: a searcher that reads the journal, the scheduler, and one run of the tuner."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from ray import tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from mapl_ray.config import RunConfig, Scalar, TuneConfig
from mapl_ray.distributed.search.tune_trial import Shared, run_trial
from mapl_ray.training.plan import groups_per_step
from mapl_ray.tuning import Trial, TrialJournal, draw
from mapl_ray.unfinished import unique_word

# Tune requires a trial to hold a resource. The trial's process only waits for its workers, so it holds no CPU, 1 byte.
_TRIAL_HOLDS = {"CPU": 0, "memory": 1}
_RESTARTS = 1  # of the trial's own process
_DIED = (
    f"the process that waits for its workers failed {_RESTARTS + 1} times: its node was lost, or see the messages "
    "above. train.max_failures does not apply to this process"
)


class ValueSource(Protocol):
    """Source of the values of new trials."""

    def ask(self, number: int) -> dict[str, Scalar]:
        """Values for trial `number`."""
        ...

    def resume(self, trial: Trial) -> None:
        """Note that a trial of an earlier start is resumed."""
        ...

    def record(self, trial: Trial) -> None:
        """Note that a trial has ended."""
        ...


class RandomSource:
    """Random draws that depend only on the trial's number, not on the order of calls."""

    def __init__(self, settings: TuneConfig) -> None:
        self._settings = settings

    def ask(self, number: int) -> dict[str, Scalar]:
        """Values of `draw` for trial `number`."""
        return draw(self._settings.dimensions, self._settings.seed, number)

    def resume(self, trial: Trial) -> None:
        """Do nothing: draws don't depend on other trials."""

    def record(self, trial: Trial) -> None:
        """Do nothing: draws don't depend on other trials."""


class JournalSearcher(Searcher):
    """Suggest the unfinished trials of an earlier start, then new ones, and record their results in the journal."""

    def __init__(
        self, journal: TrialJournal, config: RunConfig, todo: Iterable[Trial], source: ValueSource, new: int
    ) -> None:
        super().__init__()
        self._journal, self._source, self._new = journal, source, new
        self._todo = list(todo)
        self._train = config.training(config.tune.method)
        self._total = config.tune.trials
        self.stop_after: int | None = None
        self._numbers: dict[str, int] = {}
        self._seconds: dict[str, float] = {}  # seconds per Tune trial that are already in the journal's cost

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial, recorded in the journal before it starts."""
        if self._todo:
            trial = self._todo.pop(0)
            self._source.resume(trial)
        elif self._new > 0:
            self._new -= 1
            number = next(number for number in count() if number not in self._journal.trials)
            trial = Trial(number, self._source.ask(number))
        else:
            return str(Searcher.FINISHED)
        trial = self._journal.begun(trial)
        self._numbers[trial_id] = trial.number
        folder = str(self._journal.folder(trial))
        return {"number": trial.number, "params": trial.params, "folder": folder, "stop_after": self.stop_after}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record and print an evaluation."""
        number = self._numbers[trial_id]
        self._put(self._with_cost(trial_id, result))
        if "objective" in result:
            step, objective = result.get("step", 0.0), result["objective"]
            print(f"  trial {number + 1}/{self._total}  step {step:.0f}  objective {objective:.3f}", flush=True)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record a trial that has ended, was stopped by the scheduler, or failed."""
        trial = self._with_cost(trial_id, result or {})
        if trial.status == "running":
            if error:
                trial = replace(trial, status="failed", error=_DIED)
            elif self.stop_after is None or trial.steps < self.stop_after:
                trial = replace(trial, status="stopped early")
        self._put(trial)
        if trial.status == "failed":
            print(f"  trial {trial.number + 1}/{self._total}  failed: {trial.error}", flush=True)
        if trial.status == "finished":  # workers of a stopped trial may still be writing
            shutil.rmtree(self._journal.folder(trial) / "checkpoints", ignore_errors=True)
        self._source.record(trial)

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: all state is in the journal."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing. Never called, because a resumed search starts a new tuner."""

    def _with_cost(self, trial_id: str, result: dict[str, Any]) -> Trial:
        trial = self._journal.refreshed(self._journal.trials[self._numbers[trial_id]])
        now, before = float(result.get("time_total_s") or 0.0), self._seconds.get(trial_id, 0.0)
        if not now:
            return trial
        self._seconds[trial_id] = now
        more = now - before if now >= before else now  # Tune has restarted the trial
        return replace(trial, cost=trial.cost.after(more, self._train.num_workers, self._train.gpus_per_worker))

    def _put(self, trial: Trial) -> None:
        per_step = self._groups_per_step(trial)
        self._journal.put(replace(trial, cost=replace(trial.cost, groups=trial.steps * per_step)))

    def _groups_per_step(self, trial: Trial) -> int:
        sizes = {
            name.partition(".")[2]: value
            for name, value in trial.params.items()
            if name.endswith((".micro_batch_size", ".gradient_accumulation_steps"))
        }
        train = self._train.model_copy(update=sizes)
        return groups_per_step(train, train.num_workers)


def scheduler_of(settings: TuneConfig, ended: Iterable[Trial]) -> TrialScheduler:
    """ASHA with the reports of earlier trials, or FIFO. A population uses FIFO within a turn."""
    if settings.scheduler != "asha":
        return FIFOScheduler()
    asha = ASHAScheduler(
        metric="objective",
        mode="max",
        time_attr="step",
        max_t=settings.max_steps + 1,  # a trial at its last step ends by itself
        grace_period=min(settings.grace_period_steps, settings.max_steps),
    )
    for trial in ended:
        stand_in = SimpleNamespace(trial_id=f"earlier-{trial.name}")
        asha.on_trial_add(None, stand_in)
        for report in trial.reports:
            asha.on_trial_result(None, stand_in, report)
    return asha


def run_tuner(searcher: JournalSearcher, number: int, shared: Shared, scheduler: TrialScheduler, at_once: int) -> None:
    """Run `number` trials, `at_once` of them in parallel."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints tables even with verbose=0
    # Ray Tune would copy AWS variables into each trial's runtime environment, which Ray logs and stores. Nodes have
    # their own.
    ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # their files are in `storage`, which is deleted
    storage = Path(shared.output) / "ray"
    shutil.rmtree(storage, ignore_errors=True)  # left by a driver that died; the journal has all results
    trainable: Callable[..., Any] = tune.with_parameters(run_trial, shared=shared)
    tuner = tune.Tuner(
        tune.with_resources(trainable, _TRIAL_HOLDS),
        tune_config=tune.TuneConfig(
            num_samples=number, search_alg=searcher, scheduler=scheduler, max_concurrent_trials=at_once
        ),
        run_config=tune.RunConfig(
            name=f"search-{unique_word()}",
            storage_path=str(storage),
            verbose=0,
            # For the trial's own process. Ray Train restarts workers that die (`train.max_failures`).
            failure_config=tune.FailureConfig(max_failures=_RESTARTS),
        ),
    )
    tuner.fit()
    shutil.rmtree(storage, ignore_errors=True)
