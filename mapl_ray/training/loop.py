"""The training loop: steps, held-out evaluation, checkpoints, and export of the model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from mapl_ray.config import Method, ModelConfig, TrainConfig
from mapl_ray.data.kept_tokens import KeptTokens
from mapl_ray.errors import RunError
from mapl_ray.models import check_same_model
from mapl_ray.objective import Objective
from mapl_ray.progress import tracked
from mapl_ray.training.best import Best, read_best, remove_bests
from mapl_ray.training.deepspeed_engine import ensure_process_group
from mapl_ray.training.engine_config import inlined
from mapl_ray.training.export import Exporter, copy_export
from mapl_ray.training.feed import Feed, Work
from mapl_ray.training.loggers import MetricWriters, check_loggers
from mapl_ray.training.module import ModelSource
from mapl_ray.training.result import TrainResult, vouched_for
from mapl_ray.training.set_up import Run, group_tables, set_up
from mapl_ray.training.step import NotFiniteError, Report, StepInput, Trainer, reference_kind
from mapl_ray.training.stop import StopRequest, StopWatch, sigterm_watch


@dataclass(slots=True)
class Progress:
    """Progress since this process started."""

    resumed_step: int
    done: int  # steps done, including those before a resume
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    tokens: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # groups left out or truncated, by reason
    seconds: float = 0.0
    stopped: bool = False  # whether a stop request ended the loop
    best: Best | None = None


def train(
    config: TrainConfig,
    method: Method,
    *,
    model_path: str,
    model_config: ModelConfig,
    train_dir: Path,
    eval_dir: Path | None,
    output_dir: Path,
    fingerprint: str,
    tokens: KeptTokens | None = None,
    on_report: Report | None = None,
    stop_after: int | None = None,
    export: bool = True,
    model_id: str | None = None,
    stop_requests: Callable[[], StopRequest] | None = None,
) -> TrainResult:
    """Train on this process's rank, resuming from the newest valid checkpoint of the same run.

    Args:
        eval_dir: held-out groups; None if there are none.
        fingerprint: identity of the run (`run_fingerprint`), stored in its result.
        tokens: kept token ids of both splits (`train`, `eval` below its folder); None: tokenize during training.
        on_report: called on every rank with the held-out metrics (or the step's) after each evaluation.
        stop_after: stop after this many steps in total, without an export, as if interrupted.
        export: write `output_dir/model`, `output_dir/best` and `result.json` at the end.
        model_id: identity of the base model (`model_identity`), for checkpoints; None: its path.
        stop_requests: called before the first step and then at least every two seconds, on all ranks in the same step.
            SIGTERM to any rank is a stop request too.

    Raises `UserError` for data or models that can't be trained and for checkpoints that can't be used, `RunError` for
    a loss or gradient that is not finite.
    """
    started = time.monotonic()
    config = inlined(config)
    ensure_process_group()
    objective = Objective.of(config, method)
    check_loggers(config.loggers)
    tables = group_tables(config, train_dir, eval_dir, tokens)
    kind = reference_kind(config, method, [table for table in tables if table is not None])
    if model_id is not None:
        check_same_model(model_path, model_id)
    dtype = model_config.dtype_where(config.in_bf16)
    source = ModelSource(model_path, model_config.revision, dtype, method, config.seed)
    run = set_up(config, objective, source, kind, tables, output_dir, model_id=model_id, export=export)
    with sigterm_watch() as terminated:
        progress = _steps(run, on_report, stop_after, StopWatch(terminated, stop_requests))
    result = _result(run, config, progress, fingerprint, time.monotonic() - started)
    if run.exporter is not None and progress.done == run.plan.total_steps:
        _export(run, run.exporter, progress, result)
    return result


def _export(run: Run, exporter: Exporter, progress: Progress, result: TrainResult) -> None:
    """Write the last and the best model, and then `result.json`, which marks the run finished. A collective."""
    folder, best = run.output_dir, progress.best
    exporter.write(folder / "model", folder / "adapter", progress.done, progress.metrics)
    last_is_best = best is not None and best.step == progress.done
    if best is not None and not last_is_best and not best.weights:
        run.checkpoints.load_best(best)
        exporter.write(folder / "best", folder / "best-adapter", best.step, best.metrics)
    run.engine.from_rank_0(lambda: _write_result(run, best, last_is_best, result))


def _write_result(run: Run, best: Best | None, last_is_best: bool, result: TrainResult) -> None:
    folder = run.output_dir
    weights, best_weights = vouched_for(folder / "model"), {}
    if last_is_best:
        copy_export(folder / "model", folder / "best")
        if (folder / "adapter").is_dir():
            copy_export(folder / "adapter", folder / "best-adapter")
    if best is not None:
        best_weights = best.write(folder).weights
        if last_is_best and best_weights != weights:
            raise RunError(f"{folder / 'best'}: the copy differs from model. Check the storage.")
    replace(result, weights=weights, best_weights=best_weights).write(folder)
    remove_bests(run.checkpoints.directory)


def _result(run: Run, asked: TrainConfig, progress: Progress, fingerprint: str, wall_seconds: float) -> TrainResult:
    counts = run.trainer.counts_of_all_ranks(progress.counts)
    if run.engine.rank == 0 and (refused := counts["refused_by_template"]):
        print(f"  {refused} groups left out: the chat template refuses them (mapl doctor shows one)", flush=True)
    return TrainResult(
        method=run.trainer.objective.method,
        fingerprint=fingerprint,
        steps=progress.done,
        model_dir=str(run.output_dir / "model"),
        metrics=progress.metrics,
        wall_seconds=wall_seconds,
        tokens_per_second=progress.tokens / max(progress.seconds, 1e-9),
        num_workers=run.engine.world_size,
        zero_stage=run.trainer.config.zero_stage,
        tokens=progress.tokens,
        too_long=counts["too_long"],
        counts=counts,
        resumed_step=progress.resumed_step,
        config=asked.model_dump(mode="json"),
    )


def _steps(run: Run, on_report: Report | None, stop_after: int | None, watch: StopWatch) -> Progress:
    config, engine = run.trainer.config, run.engine
    resumed = run.checkpoints.resume()
    progress = Progress(resumed_step=resumed, done=resumed, best=_best_so_far(run, resumed))
    last = run.plan.total_steps if stop_after is None else min(stop_after, run.plan.total_steps)
    show_every = max(10, run.plan.total_steps // 10)
    with ExitStack() as stack:
        writers = None
        if engine.rank == 0:
            method = run.trainer.objective.method
            writers = stack.enter_context(MetricWriters(run.output_dir, resumed, run.plan.total_steps, config, method))
        works = stack.enter_context(closing(run.feed.steps(run.plan, resumed, last)))
        saved, now = resumed, run.trainer.first_step(works, watch)
        request = now.request
        while now.work is not None:
            if request in (StopRequest.SAVE, StopRequest.STOP) and progress.done > saved:
                run.checkpoints.save(saved := progress.done)
                run.checkpoints.commit()  # now, as the node may be shut down soon
            if request == StopRequest.STOP or (request == StopRequest.LEAVE and progress.done == saved > resumed):
                progress.stopped = True
                break
            progress.counts += now.work.counts
            try:
                metrics, now = _one_step(run, progress, now, works, watch)
            except NotFiniteError:  # on all ranks
                run.checkpoints.commit()
                raise
            run.checkpoints.commit()  # the one saved before this step
            request = now.request
            evaluated = progress.done % config.eval_every_steps == 0 or progress.done == run.plan.total_steps
            best = None
            if evaluated:
                progress.metrics = metrics if run.held_out is None else _evaluate(run.trainer, run.held_out)
                metrics |= progress.metrics
                best = _new_best(run, progress)
            if writers is not None:
                show = evaluated or progress.done == 1 or progress.done % show_every == 0
                writers.write(progress.done, metrics, show)
            if evaluated and on_report is not None:
                on_report({**progress.metrics, "step": float(progress.done)})
            due = progress.done % config.checkpoint_every_steps == 0 and progress.done < run.plan.total_steps
            saved = progress.done if due else saved
            # After the last step, the weights are exported instead.
            if due or (best is not None and progress.done < run.plan.total_steps):
                run.checkpoints.save(progress.done, due=due, best=best)
            if (evaluated or due) and now.work is not None:  # minutes may have passed
                request = StopRequest(max(request, engine.max_over_ranks(watch.asked(look=True))))
        run.checkpoints.commit()
    if progress.stopped and engine.rank == 0:
        print(f"  stopped after step {progress.done}, with a checkpoint to resume from", flush=True)
    return progress


def _best_so_far(run: Run, resumed: int) -> Best | None:
    """The best evaluation of this run up to the resumed step, kept next to the checkpoints or already exported."""
    engine, by = run.engine, run.trainer.config.best_by
    kept = run.checkpoints.resume_best(by)
    settings = run.checkpoints.settings
    exported = None if by is None else engine.from_rank_0(lambda: read_best(run.output_dir, by, settings, resumed))
    if engine.rank == 0:
        # Remove files of an earlier run, which would not describe the models of this one.
        (run.output_dir / "result.json").unlink(missing_ok=True)
        if exported is None:
            (run.output_dir / "best.json").unlink(missing_ok=True)
    return max((one for one in (exported, kept) if one is not None), key=lambda one: one.score, default=None)


def _new_best(run: Run, progress: Progress) -> Best | None:
    """The last evaluation if it is the best so far, else None."""
    by = run.trainer.config.best_by
    if run.exporter is None or run.held_out is None or by is None:
        return None
    now = Best.of(by, progress.metrics, progress.done, run.checkpoints.settings)
    if now is None or (progress.best is not None and now.score <= progress.best.score):
        return None
    progress.best = now
    return now


def _evaluate(trainer: Trainer, held_out: Feed) -> dict[str, float]:
    with closing(held_out.held_out()) as batches:
        first = trainer.engine.rank == 0
        return trainer.evaluate(tracked(batches, "held-out groups", "batches") if first else batches)


def _one_step(
    run: Run, progress: Progress, now: StepInput, works: Iterator[Work], watch: StopWatch
) -> tuple[dict[str, float], StepInput]:
    """Run one step. Returns its metrics, and the input of the next step."""
    began, learning_rate, cost = time.monotonic(), run.engine.learning_rate, now.cost
    metrics, following = run.trainer.train_step(now, progress.done, works, watch)
    seconds = time.monotonic() - began
    progress.done += 1
    progress.tokens += int(cost.tokens)
    progress.seconds += seconds
    metrics |= {
        "learning_rate": learning_rate,
        "epoch": progress.done / run.plan.steps_per_epoch,
        **cost.rates(seconds, run.peak_flops),
    }
    return metrics, following
