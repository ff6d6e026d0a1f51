"""The training function of one rank under Ray Train: it trains, reports metrics and stops on request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING

import ray.train

from mapl_ray.awaited import has_appeared
from mapl_ray.data.shards import await_data_set, read_manifest, write_json
from mapl_ray.distributed.runtime import preemption_watched
from mapl_ray.distributed.training_job import TrainingJob
from mapl_ray.errors import RunError, UserError, no_space
from mapl_ray.progress import progress
from mapl_ray.tuning import values_of

if TYPE_CHECKING:
    from mapl_ray.training.result import TrainResult
    from mapl_ray.training.stop import StopRequest


def train_worker(job: TrainingJob) -> None:
    """Train as this process's rank. A user's mistake or a non-finite loss is written to `job.failure_file`: the next
    attempt ends at once, and the driver reports it."""
    first = ray.train.get_context().get_world_rank() == 0
    if job.done is not None:  # a search's trial: the driver prints its evaluations, the rest goes to a log file
        with (job.output / "log.txt").open("a", encoding="utf-8") as log, redirect_stdout(log):
            _train_rank(job)
        return
    with progress(f"train {job.method}") if first else nullcontext():
        _train_rank(job)


def _train_rank(job: TrainingJob) -> None:
    from mapl_ray.training.loop import train

    # Ray Train logs every report through a logger named after its file's path.
    logging.getLogger().setLevel(logging.WARNING)
    if (failure := job.read_failure()) is not None:
        raise RuntimeError(str(failure))
    if job.train.min_workers is not None:
        job.mark("running").touch()
    for split, folder in job.groups.items():
        await_data_set(folder)  # the driver has already read it
        if job.tokens is not None:
            await_data_set(job.tokens.of(split).folder)
    try:
        result = train(
            job.train,
            job.method,
            model_path=job.model_path,
            model_config=job.model,
            train_dir=job.train_dir,
            eval_dir=job.eval_dir,
            output_dir=job.output,
            fingerprint=job.fingerprint,
            tokens=job.tokens,
            stop_after=job.stop_after,
            on_report=_reporter(job.objective),
            export=job.export,
            model_id=job.model_id,
            stop_requests=stop_requests(job),
        )
    except (UserError, RunError) as error:
        job.write_failure(error)
        raise
    except (OSError, RuntimeError) as error:
        if (message := no_space(error, job.output)) is not None:
            from mapl_ray.training.checkpoint import drop_unfinished

            drop_unfinished(job.output / "checkpoints")  # frees room for the error file
            full = RunError(message)
            job.write_failure(full)
            raise full from None
        raise
    if job.done is not None and ray.train.get_context().get_world_rank() == 0:
        write_json(job.done, _how_far(job, result))


def _how_far(job: TrainingJob, result: TrainResult) -> dict[str, int]:
    from mapl_ray.training.plan import total_steps

    rows = read_manifest(job.train_dir, verify=False).rows
    whole = total_steps(job.train, rows, result.num_workers)
    return {"steps": result.steps, "total_steps": whole, "resumed_step": result.resumed_step, "tokens": result.tokens}


def stop_requests(job: TrainingJob) -> Callable[[], StopRequest]:
    """A function that every rank calls regularly (`StopWatch`), in the same step, to ask whether to stop or save.

    STOP once the driver was asked to stop; SAVE, once, when a worker's node is about to be preempted. In elastic
    training a preemption gives STOP, and room for more workers gives LEAVE: the driver then restarts with the workers
    that fit. A worker's own SIGTERM is handled by Ray and ends it; the run then resumes from its last checkpoint.
    """
    from mapl_ray.training.stop import StopRequest

    saved, elastic, watched = False, job.train.min_workers is not None, preemption_watched()
    # Only rank 0 checks the shared storage: requests apply to all ranks.
    first = ray.train.get_context().get_world_rank() == 0

    def asked() -> StopRequest:
        nonlocal saved
        # This is a collective call of Ray.
        leaving = watched and ray.train.get_preemption_info() is not None
        save, saved = leaving and not saved, saved or leaving
        if (first and has_appeared(job.mark("stop"))) or (leaving and elastic):
            return StopRequest.STOP
        if save:
            return StopRequest.SAVE
        grown = elastic and first and has_appeared(job.mark("grow"))
        return StopRequest.LEAVE if grown else StopRequest.NONE

    return asked


def _reporter(objective: dict[str, float] | None) -> Callable[[dict[str, float]], None]:
    def report(metrics: dict[str, float]) -> None:
        values = dict(metrics)
        if objective is not None:
            values |= values_of(metrics, objective)
        ray.train.report(values)

    return report
