"""The training loop: steps, held-out evaluation, checkpoints, and a model directory at the end."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from mapl_ray.config import Method, ModelConfig, TrainConfig
from mapl_ray.models import load_tokenizer
from mapl_ray.training.checkpoint import checkpoint_path, commit_checkpoint, remove_old, resume, start_afresh
from mapl_ray.training.deepspeed_engine import Engine, ensure_process_group, world_size
from mapl_ray.training.export import export_model
from mapl_ray.training.group_table import GroupTable
from mapl_ray.training.module import training_module
from mapl_ray.training.plan import StepPlan
from mapl_ray.training.result import TrainResult
from mapl_ray.training.step import Report, Trainer
from mapl_ray.training.writers import MetricWriters


@dataclass(slots=True)
class Progress:
    """What has been done since this process started."""

    resumed_step: int
    done: int  # steps, those before a resume included
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    tokens: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # groups left out or cut, by reason
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One rank's view of a run."""

    trainer: Trainer
    plan: StepPlan
    table: GroupTable
    held_out: GroupTable | None
    output_dir: Path
    fingerprint: str

    @property
    def engine(self) -> Engine:
        return self.trainer.engine

    @property
    def checkpoints(self) -> Path:
        return self.output_dir / "checkpoints"


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
    on_report: Report | None = None,
    stop_after: int | None = None,
    export: bool = True,
) -> TrainResult:
    """Train on this process's rank, resuming from the newest whole checkpoint of the same run.

    Args:
        eval_dir: held-out groups, None where there are none.
        fingerprint: identity of the run (`run_fingerprint`); checkpoints of another one are not resumed from.
        on_report: called on every rank with the held-out metrics (or the step's) after each evaluation.
        stop_after: leave after this many steps in all, as an interruption would; nothing is exported.
        export: write `output_dir/model` and `result.json` at the end.

    Raises `UserError` for data or models that can't be trained, `RunError` for a loss that is not finite.
    """
    started = time.monotonic()
    ensure_process_group()
    table = GroupTable(train_dir, method)
    held_out = None if eval_dir is None else GroupTable(eval_dir, method)
    tokenizer = load_tokenizer(model_path, model_config.revision)
    module = training_module(config, method, model_path, model_config, tokenizer)
    plan = StepPlan.of(config, len(table), world_size())
    trainer = Trainer(Engine(module, config, plan.total_steps), config, method, tokenizer)
    run = Run(trainer, plan, table, held_out, output_dir, fingerprint)
    progress = _steps(run, on_report, stop_after)
    counts = trainer.counts_of_all_ranks(progress.counts)
    result = TrainResult(
        method=method,
        fingerprint=fingerprint,
        steps=progress.done,
        model_dir=str(output_dir / "model"),
        metrics=progress.metrics,
        wall_seconds=time.monotonic() - started,
        tokens_per_second=progress.tokens / max(progress.seconds, 1e-9),
        num_workers=run.engine.world_size,
        zero_stage=config.zero_stage,
        tokens=progress.tokens,
        too_long=counts["too_long"],
        counts=counts,
        resumed_step=progress.resumed_step,
        config=config.model_dump(mode="json"),
    )
    if export and progress.done == plan.total_steps:
        state_dict = run.engine.full_state_dict()
        if run.engine.rank == 0 and state_dict is not None:
            export_model(module.model, tokenizer, state_dict, output_dir / "model")
            result.write(output_dir)
        run.engine.barrier()
    return result


def _steps(run: Run, on_report: Report | None, stop_after: int | None) -> Progress:
    config, engine = run.trainer.config, run.engine
    resumed = resume(engine, run.checkpoints, run.fingerprint)
    progress = Progress(resumed_step=resumed, done=resumed)
    last = run.plan.total_steps if stop_after is None else min(stop_after, run.plan.total_steps)
    show_every = max(5, run.plan.total_steps // 10)
    with ExitStack() as stack:
        writers = None
        if engine.rank == 0:
            writers = stack.enter_context(MetricWriters(run.output_dir, resumed, run.plan.total_steps))
        while progress.done < last:
            metrics = _one_step(run, progress)
            evaluated = progress.done % config.eval_every_steps == 0 or progress.done == run.plan.total_steps
            if evaluated:
                progress.metrics = metrics if run.held_out is None else run.trainer.evaluate(run.held_out)
                metrics |= progress.metrics
            if writers is not None:
                show = evaluated or progress.done == 1 or progress.done % show_every == 0
                writers.write(progress.done, metrics, show)
            if evaluated and on_report is not None:
                on_report({**progress.metrics, "step": float(progress.done)})
            if progress.done % config.checkpoint_every_steps == 0 and progress.done < run.plan.total_steps:
                _save(run, progress.done)
    return progress


def _one_step(run: Run, progress: Progress) -> dict[str, float]:
    began, engine, plan = time.monotonic(), run.engine, run.plan
    mine = plan.micro_batches_of(progress.done, engine.rank, engine.world_size)
    work = run.trainer.work(run.table, mine, filler=plan.groups_of_step(progress.done)[0])
    learning_rate = engine.learning_rate
    metrics, tokens = run.trainer.train_step(work.batches, progress.done)
    seconds = time.monotonic() - began
    progress.done += 1
    progress.tokens += tokens
    progress.counts += work.counts
    progress.seconds += seconds
    return metrics | {
        "learning_rate": learning_rate,
        "epoch": progress.done / plan.steps_per_epoch,
        "tokens_per_second": tokens / seconds,
    }


def _save(run: Run, step: int) -> None:
    path, engine = checkpoint_path(run.checkpoints, step), run.engine
    if engine.rank == 0:
        start_afresh(path)
    engine.barrier()
    engine.save(path)
    engine.barrier()
    if engine.rank == 0:
        commit_checkpoint(path, step, run.fingerprint, engine.world_size, run.trainer.config.zero_stage)
        remove_old(run.checkpoints, run.trainer.config.checkpoints_to_keep)
    engine.barrier()
