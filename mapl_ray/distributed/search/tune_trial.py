"""One trial: a function that runs Ray Train with several workers, and that Ray Tune starts, stops and restarts."""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray import tune

from mapl_ray.awaited import await_files, has_appeared
from mapl_ray.config import RunConfig, Scalar, TrainConfig
from mapl_ray.config.searched import with_params
from mapl_ray.data.shards import write_json
from mapl_ray.distributed.ray_notice import exit_without_traceback
from mapl_ray.distributed.train import failure_of, make_trainer
from mapl_ray.distributed.train_worker import train_worker
from mapl_ray.distributed.training_job import TrainingJob
from mapl_ray.errors import RunError
from mapl_ray.tuning.trial_journal import DONE, FAILURE

_LOOK_SECONDS = 0.1
_TUNE_SECONDS = 60.0  # limit for Tune to process a report


@dataclass(frozen=True, slots=True)
class Shared:
    """Shared arguments of all trials of a search."""

    config: RunConfig
    job: TrainingJob  # without the fields that differ per trial
    output: str  # `run_dir/tune`

    @classmethod
    def of(cls, config: RunConfig, job: TrainingJob) -> Shared:
        """Made once from a training job into the search's folder, so that a trial's own process need not read the base
        model or import the training packages."""
        return cls(config, replace(job, export=False, objective=config.tune.objective), str(job.output))

    def of_trial(self, given: dict[str, Any], train: TrainConfig) -> TrainingJob:
        """The job of one trial. If the trial uses the run's DeepSpeed file, the content read at the start is used."""
        if train.deepspeed_config == self.config.training(self.config.tune.method).deepspeed_config:
            train = train.model_copy(update={"deepspeed_config": self.job.train.deepspeed_config})
        folder = Path(given["folder"])
        return replace(
            self.job,
            train=train,
            output=folder,
            fingerprint=str(given["number"]),
            stop_after=given["stop_after"],
            done=folder / DONE,
            token=uuid.uuid4().hex[:12],
        )


def trial_config(config: RunConfig, params: dict[str, Scalar]) -> TrainConfig:
    """The training section of one trial."""
    tune = config.tune
    section = with_params(config, params).training(tune.method)
    every = tune.perturb_every_steps if tune.scheduler == "pbt" else tune.checkpoint_every_steps
    return section.model_copy(
        update={
            "max_steps": tune.max_steps,
            "eval_every_steps": tune.eval_every_steps,
            "checkpoint_every_steps": every or tune.eval_every_steps,
            "best_by": None,
            "min_workers": None,  # trials need the same number of workers to be comparable
        }
    )


class ReportFile(ray.train.UserCallback):
    """Send the reports of a trial's training to the trial's own process, through a file in the trial's folder.

    Ray's `TuneReportCallback` starts an actor for this, which costs seconds of a core per trial and sometimes ends with
    a meaningless traceback.
    """

    def __init__(self, path: str) -> None:
        """`path`: a file that does not exist yet. A second file next to it counts the reports that Tune has taken."""
        self.path = path

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Add a line with rank 0's metrics, and wait for Tune, so that a trial to be stopped does not train on."""
        path = Path(self.path)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics[0]) + "\n")
        lines, seen = path.read_text(encoding="utf-8").count("\n"), _seen(path)
        until = time.monotonic() + _TUNE_SECONDS
        seen.touch()
        while seen.stat().st_size < lines and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)


@contextmanager
def _passed_on(reports: Path) -> Iterator[None]:
    """Report every new line of the file to Tune while the block runs."""
    ended = threading.Event()

    def pass_on() -> None:
        number, last = 0, False
        while not last:
            last = ended.wait(_LOOK_SECONDS)  # lines written before the end are still reported
            text = reports.read_text(encoding="utf-8") if has_appeared(reports) else ""
            for line in text[: text.rfind("\n") + 1].splitlines()[number:]:
                tune.report(json.loads(line))
                number += 1
                with _seen(reports).open("ab") as file:
                    file.write(b".")

    thread = threading.Thread(target=pass_on, name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        reports.unlink(missing_ok=True)
        _seen(reports).unlink(missing_ok=True)


def _seen(reports: Path) -> Path:
    """Path of the file with one byte per report that Tune has taken."""
    return reports.with_suffix(".seen")


def run_trial(given: dict[str, Any], *, shared: Shared) -> None:
    """Train into `given["folder"]`, from its newest checkpoint if it has one.

    A user's mistake or a non-finite loss ends the trial with `failure.json` instead of an exception, because Tune would
    restart it with the same result.
    """
    exit_without_traceback()
    folder, train = Path(given["folder"]), trial_config(shared.config, given["params"])
    folder.mkdir(parents=True, exist_ok=True)
    job = shared.of_trial(given, train)
    reports = folder / f"reports-{job.token}.jsonl"
    trainer = make_trainer(
        partial(train_worker, job),
        train,
        storage=folder / "ray",
        name=job.token,
        trial_callback=ReportFile(str(reports)),
    )
    try:
        with _passed_on(reports):
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        write_json(folder / FAILURE, {"text": str(failure_of(job, error))})
        return
    await_files(folder, [DONE])
    done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    if done["steps"] < min(given["stop_after"] or done["total_steps"], done["total_steps"]):
        raise RunError(f"{folder}: the trial was asked to stop after step {done['steps']}; it resumes from there.")
    shutil.rmtree(folder / "ray", ignore_errors=True)  # Ray Train's own state is not read again
