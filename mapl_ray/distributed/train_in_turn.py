"""Several trainings in turn on the same workers: loading torch and DeepSpeed takes longer than training a small model.

Only on CPUs. A training on GPUs is to find their memory empty, and is long enough to start workers of its own. Workers
that come and go are started for every training as well.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import ray.train
import ray.train.collective

from mapl_ray.config import Method, RunConfig, TrainConfig
from mapl_ray.distributed.train import (
    checked_job,
    failure_of,
    make_room,
    make_trainer,
    result_of,
    run_training,
    say_skipped,
    stop_files,
)
from mapl_ray.distributed.train_worker import train_worker
from mapl_ray.distributed.training_job import TrainingJob
from mapl_ray.progress import WAITING_SECONDS, progress

if TYPE_CHECKING:
    from mapl_ray.training.result import TrainResult

_SHARED = ("num_workers", "cpus_per_worker", "max_failures")  # what must be alike
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Training:
    """One model to train."""

    name: str
    method: Method
    config: TrainConfig
    model_path: str
    output: Path


Begin = Callable[[Training], None]
End = Callable[[Training, "TrainResult"], None]


def run_in_turn(config: RunConfig, trainings: Sequence[Training], begin: Begin, end: End) -> None:
    """Train all that is not trained yet, in order; `begin` and `end` are called around each, finished ones included.

    Raises what `run_training` raises, for the first that fails; those before it stay.
    """
    if len(trainings) > 1 and _can_share([one.config for one in trainings]):
        jobs = [checked_job(config, one.method, one.config, one.model_path, one.output) for one in trainings]
        todo = [job for job in jobs if job.finished() is None]
        with _followed(list(zip(trainings, jobs, strict=True)), todo, begin, end):
            if todo:
                _train_on_shared_workers(config, trainings[0].config, todo)
        return
    for one in trainings:
        begin(one)
        model, output = one.model_path, one.output
        end(one, run_training(config, one.method, train_config=one.config, model_path=model, output=output))


def _can_share(configs: Sequence[TrainConfig]) -> bool:
    on_cpus = all(not one.gpus_per_worker and one.min_workers is None for one in configs)
    return on_cpus and all(len({getattr(one, name) for one in configs}) == 1 for name in _SHARED)


def _train_on_shared_workers(config: RunConfig, train: TrainConfig, jobs: Sequence[TrainingJob]) -> None:
    from mapl_ray.distributed.tokenize import with_kept_tokens
    from mapl_ray.training.stop import sigterm_watch

    jobs = with_kept_tokens(config, jobs)
    for job in jobs:
        make_room(job)
    trainer = make_trainer(
        partial(train_workers_in_turn, list(jobs)),
        train,
        storage=config.run_dir / "ray",
        name=f"in-turn-{jobs[0].token}",
    )
    with sigterm_watch() as terminated, stop_files(jobs, terminated), progress("train", silence=WAITING_SECONDS):
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise failure_of(_unfinished(jobs), error) from None
    for job in jobs:
        result_of(job, terminated())


def _unfinished(jobs: Sequence[TrainingJob]) -> TrainingJob:
    """The one that failed: a worker left its error, or it has no result."""
    failed = [job for job in jobs if job.has_failed()]
    return (failed or [job for job in jobs if job.finished() is None] or [*jobs])[0]


def train_workers_in_turn(jobs: Sequence[TrainingJob]) -> None:
    """One rank. A worker group that is started again goes on with the first training that is not finished."""
    for job in jobs:
        if _finished_for_all(job):
            continue
        train_worker(job)
        gc.collect()  # the engine refers to itself; the next one needs its memory
        if not _finished_for_all(job):
            return  # asked to stop, on all ranks


def _finished_for_all(job: TrainingJob) -> bool:
    """As rank 0 sees it: ranks that disagree would wait for each other."""
    rank = ray.train.get_context().get_world_rank()
    finished: bool = ray.train.collective.broadcast_from_rank_zero(job.finished() is not None if rank == 0 else None)
    return finished


@contextmanager
def _followed(
    trainings: Sequence[tuple[Training, TrainingJob]], todo: Sequence[TrainingJob], begin: Begin, end: End
) -> Iterator[None]:
    """Calls `begin` and `end` while the workers go from one training to the next, as their results appear."""
    left = threading.Event()

    def follow() -> None:
        for training, job in trainings:
            begin(training)
            while (result := job.finished()) is None:
                if left.wait(_LOOK_SECONDS) and job.finished() is None:
                    return
            if job not in todo:
                say_skipped(result, training.output)
            end(training, result)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
