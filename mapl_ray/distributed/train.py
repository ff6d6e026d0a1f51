"""Train under Ray Train: one rank per worker, restarted from the newest complete checkpoint when a worker dies.

DeepSpeed and transformers are imported only where they are used: a trial's own process and Ray Train's controller
don't need them, and would spend seconds and half a gigabyte on the imports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from mapl_ray.aside import set_aside
from mapl_ray.awaited import awaited
from mapl_ray.config import Method, RunConfig, TrainConfig
from mapl_ray.data.shards import read_manifest
from mapl_ray.distributed.ray_notice import QuietController
from mapl_ray.distributed.torch_network import NodeNetwork
from mapl_ray.distributed.train_worker import train_worker
from mapl_ray.distributed.training_job import TrainingJob, data_dirs
from mapl_ray.errors import RunError, UserError
from mapl_ray.training.engine_config import COLLECTIVE_TIMEOUT

if TYPE_CHECKING:
    from mapl_ray.training.result import TrainResult

START_TIMEOUT_SECONDS = 600  # limit for finding room for all workers, at the start and after each loss of a node
_START_SECONDS = 60.0  # Ray Train's own limit of one attempt
_CONTROLLER_FAILURES = max(1, round(START_TIMEOUT_SECONDS / _START_SECONDS))


def run_training(
    config: RunConfig, method: Method, *, train_config: TrainConfig, model_path: str, output: Path
) -> TrainResult:
    """Train into `output`; a finished run of the same config, data and model is not repeated.

    Raises `UserError` for a user's mistake, `RunError` for a failure during the run.
    """
    from mapl_ray.distributed.elastic import train_elastically
    from mapl_ray.distributed.tokenize import with_kept_tokens
    from mapl_ray.training.stop import sigterm_watch

    job = checked_job(config, method, train_config, model_path, output)
    if (result := job.finished()) is not None:
        say_skipped(result, output)
        return result
    (job,) = with_kept_tokens(config, [job])
    make_room(job)
    storage, name, train = config.run_dir / "ray", f"{output.name}-{job.token}", job.train

    def attempt(number: int, workers: int) -> None:
        one = train.model_copy(update={"num_workers": workers, "max_failures": 0})
        make_trainer(partial(train_worker, job), one, storage=storage, name=f"{name}-{number}").fit()

    with sigterm_watch() as terminated, stop_files([job], terminated):
        try:
            if train.min_workers is None:
                make_trainer(partial(train_worker, job), train, storage=storage, name=name).fit()
            else:
                train_elastically(
                    train,
                    _worker_resources(train),
                    output,
                    attempt=attempt,
                    ended=lambda: terminated() or job.has_failed() or job.finished() is not None,
                    grow=job.mark("grow"),
                    running=job.mark("running"),
                )
                if job.has_failed():
                    raise failure_of(job, RunError(""))
        except ray.train.TrainingFailedError as error:
            raise failure_of(job, error) from None
    return result_of(job, terminated())


def checked_job(
    config: RunConfig, method: Method, train_config: TrainConfig, model_path: str, output: Path
) -> TrainingJob:
    """The job for training into `output`, with the run's fingerprint. Raises `UserError` for a config that can't be
    trained."""
    from mapl_ray.models import model_identity
    from mapl_ray.training.engine_config import check_sizes, inlined
    from mapl_ray.training.result import run_fingerprint

    train_config = inlined(train_config)
    check_sizes(train_config)
    manifest = read_manifest(data_dirs(config)[0])
    fingerprint = run_fingerprint(train_config, method, model_identity(model_path, config.model.revision), manifest)
    return TrainingJob.of(config, method, train_config, model_path, output, fingerprint)


def make_room(job: TrainingJob) -> None:
    """Create the output folder; a finished model of other settings or data is set aside."""
    from mapl_ray.training.result import other_result

    if other_result(job.output, job.fingerprint):
        set_aside(job.output)
    job.output.mkdir(parents=True, exist_ok=True)


def result_of(job: TrainingJob, terminated: bool) -> TrainResult:
    """The result after the workers have left. If there is none, raises `KeyboardInterrupt` if training was asked to
    stop, else `RunError`."""
    result = job.finished() if terminated else awaited(job.finished, job.output)
    if result is None and terminated:
        raise KeyboardInterrupt  # the workers saved a checkpoint: the same command resumes from it
    if result is None:
        raise RunError(
            f"{job.output}: training ended without a result there. On a cluster, output_dir must be on storage "
            "that all nodes share."
        )
    _tidy(job.output)
    return result


def say_skipped(result: TrainResult, output: Path) -> None:
    """Print that an earlier start has finished this training."""
    _tidy(output)
    print(f"  {output}: already trained ({result.steps} steps), skipped", flush=True)


def _tidy(output: Path) -> None:
    """Remove leftover best-model states of workers that were killed after the result. No worker may be running."""
    from mapl_ray.training.best import remove_bests

    remove_bests(output / "checkpoints")


class LeanTrainer(TorchTrainer):
    """Ray Train's trainer without processes that these trainings do not need.

    Each process takes seconds of a core to start. A training needs a controller, an actor for collectives, and its
    ranks. By default Ray Train adds an actor that splits Ray Data sets, which are not used here, and one that frees the
    placement group if only the controller has died; here the group ends with the job.
    """

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, self._unneeded)]

    _unneeded: tuple[type, ...] = (DatasetsCallback, PlacementGroupCleanerCallback)


class LeanTrialTrainer(LeanTrainer):
    """Trainer for a search's trial: stopping a trial ends only its controller, not the job."""

    _unneeded = (DatasetsCallback,)


def make_trainer(
    worker: Callable[[], None],
    train: TrainConfig,
    *,
    storage: Path,
    name: str,
    trial_callback: ray.train.UserCallback | None = None,
) -> LeanTrainer:
    """A Ray Train trainer whose `train.num_workers` ranks each call `worker`. The ranks write their checkpoints to the
    training's output; Ray keeps its own state below `storage`. `trial_callback` is set for a search's trial."""
    return (LeanTrainer if trial_callback is None else LeanTrialTrainer)(
        worker,
        torch_config=_network(train),
        scaling_config=ray.train.ScalingConfig(
            num_workers=train.num_workers,
            use_gpu=train.gpus_per_worker > 0,
            resources_per_worker=_worker_resources(train),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(
                max_failures=train.max_failures,
                # Each failure is a minute's wait for workers without room; Ray's default is forever. In elastic
                # training `train_elastically` handles every end of an attempt.
                controller_failure_limit=_CONTROLLER_FAILURES if train.min_workers is None else 0,
                max_preemption_failures=-1 if train.min_workers is None else 0,
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            callbacks=[QuietController(), *([] if trial_callback is None else [trial_callback])],
        ),
    )


@contextmanager
def stop_files(jobs: Sequence[TrainingJob], terminated: Callable[[], bool]) -> Iterator[None]:
    """Pass a SIGTERM of the driver on to the workers of all nodes, through files on the shared storage."""
    done = threading.Event()

    def hand_on() -> None:
        while not done.wait(0.5):
            if terminated():
                for job in jobs:
                    job.mark("stop").touch()
                return

    watcher = threading.Thread(target=hand_on, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        for job in jobs:
            job.mark("stop").unlink(missing_ok=True)


def failure_of(job: TrainingJob, error: Exception) -> UserError | RunError:
    """The error to show to the user: the worker's own if it left one."""
    if (failure := job.read_failure()) is not None:
        job.failure_file.unlink()
        return failure
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RunError(
        f"training into {job.output} failed: {lines[-1] if lines else type(error).__name__}. "
        "Checkpoints are kept: run the same command again to resume from the newest."
    )


def _network(train: TrainConfig) -> NodeNetwork:
    if train.gpus_per_worker:
        return NodeNetwork(backend="nccl", timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds()))
    return NodeNetwork(backend="gloo")


def _worker_resources(train: TrainConfig) -> dict[str, float]:
    resources = {"CPU": train.cpus_per_worker}
    return resources | {"GPU": train.gpus_per_worker} if train.gpus_per_worker else resources
