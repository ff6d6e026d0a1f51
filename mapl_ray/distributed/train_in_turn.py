"""Run several trainings in turn on the same workers, because importing torch and DeepSpeed takes longer than training a
small model.

Only on CPUs. A training on GPUs needs empty GPU memory, and is long enough to justify new workers. Elastic training
also starts new workers for every training.
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

_SHARED = ("num_workers", "cpus_per_worker", "max_failures")  # settings that must be equal
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
    """Run all unfinished trainings in order. `begin` and `end` are called for each, finished ones included.

    Raises the errors of `run_training` for the first training that fails; earlier results are kept.
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
    """The training that failed: the one with a worker's error, or else the first without a result."""
    failed = [job for job in jobs if job.has_failed()]
    return (failed or [job for job in jobs if job.finished() is None] or [*jobs])[0]


def train_workers_in_turn(jobs: Sequence[TrainingJob]) -> None:
    """Run all trainings as one rank. A restarted worker group resumes with the first unfinished training."""
    for job in jobs:
        if _finished_for_all(job):
            continue
        train_worker(job)
        gc.collect()  # the engine has reference cycles; the next one needs its memory
        if not _finished_for_all(job):
            return  # all ranks were asked to stop


def _finished_for_all(job: TrainingJob) -> bool:
    """Whether rank 0 sees the training as finished. Ranks that disagree would deadlock."""
    rank = ray.train.get_context().get_world_rank()
    finished: bool = ray.train.collective.broadcast_from_rank_zero(job.finished() is not None if rank == 0 else None)
    return finished


@contextmanager
def _followed(
    trainings: Sequence[tuple[Training, TrainingJob]], todo: Sequence[TrainingJob], begin: Begin, end: End
) -> Iterator[None]:
    """Call `begin` and `end` as results appear, while the workers go from one training to the next."""
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
