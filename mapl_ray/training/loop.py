"""The training loop: steps, held-out evaluation, checkpoints, and a model directory at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mapl_ray.config import Method, ModelConfig, TrainConfig
from mapl_ray.models import load_tokenizer
from mapl_ray.objective import Objective
from mapl_ray.training.checkpoint import begin_checkpoint, commit_checkpoint, remove_old, writing_path
from mapl_ray.training.deepspeed_engine import Engine, ensure_process_group, world_size
from mapl_ray.training.engine_config import inlined
from mapl_ray.training.export import export_model
from mapl_ray.training.group_table import GroupTable
from mapl_ray.training.loggers import check_loggers
from mapl_ray.training.module import training_module
from mapl_ray.training.plan import StepPlan
from mapl_ray.training.result import TrainResult
from mapl_ray.training.resume import find_or_restart, run_settings
from mapl_ray.training.rng import load_rng, save_rng, seed_all
from mapl_ray.training.step import Report, Trainer
from mapl_ray.training.stop import Wish, sigterm_watch
from mapl_ray.training.throughput import FlopCounter, peak_flops
from mapl_ray.training.writers import MetricWriters


@dataclass(slots=True)
class Progress:
    """What has been done since this process started."""

    resumed_step: int
    done: int  # steps, those before a resume included
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    tokens: int = 0
    too_long: int = 0
    seconds: float = 0.0
    stopped: bool = False  # by a wish


@dataclass(frozen=True, slots=True)
class Run:
    """One rank's view of a run."""

    trainer: Trainer
    plan: StepPlan
    table: GroupTable
    held_out: GroupTable | None
    output_dir: Path
    settings: dict[str, str | int | float | bool | None]  # what its checkpoints must agree on

    @property
    def engine(self) -> Engine:
        return self.trainer.engine

    @property
    def peak_flops(self) -> float | None:
        """Of all ranks together, in FLOP/s, where it is known."""
        bf16 = self.trainer.config.bf16 or next(self.engine.module.parameters()).dtype is torch.bfloat16
        peak = peak_flops(self.engine.device, bf16)
        return None if peak is None else peak * self.engine.world_size

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
    model_id: str | None = None,
    wishes: Callable[[], Wish] | None = None,
) -> TrainResult:
    """Train on this process's rank, resuming from the newest whole checkpoint of the same run.

    Args:
        eval_dir: held-out groups, None where there are none.
        fingerprint: identity of the run (`run_fingerprint`), kept in its result.
        on_report: called on every rank with the held-out metrics (or the step's) after each evaluation.
        stop_after: leave after this many steps in all, as an interruption would; nothing is exported.
        export: write `output_dir/model` and `result.json` at the end.
        model_id: what the base model is (`model_identity`), for its checkpoints; None: its path.
        wishes: asked on every rank before each step; SIGTERM to any rank is a wish to stop too.

    Raises `UserError` for data or models that can't be trained and for checkpoints that can't be used, `RunError` for
    a loss or gradient that is not finite.
    """
    started = time.monotonic()
    config = inlined(config)
    ensure_process_group()
    objective = Objective.of(config, method)
    check_loggers(config.loggers)
    table = GroupTable(train_dir, method, needs_margin=config.objective.margin_scale > 0.0)
    held_out = None if eval_dir is None else GroupTable(eval_dir, method)
    tokenizer = load_tokenizer(model_path, model_config.revision)
    module = training_module(config, method, model_path, model_config, tokenizer)
    plan = StepPlan.of(config, len(table), world_size())
    flops = FlopCounter.of(module.model)
    trainer = Trainer(Engine(module, config, plan.total_steps), config, objective, tokenizer, flops)
    settings = run_settings(
        config,
        method,
        model=f"{model_path}@{model_config.revision}" if model_id is None else model_id,
        data=table.manifest.content_hash,
        world_size=trainer.engine.world_size,
    )
    run = Run(trainer, plan, table, held_out, output_dir, settings)
    with sigterm_watch() as terminated:
        progress = _steps(run, on_report, stop_after, lambda: _wish(terminated, wishes))
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
        too_long=progress.too_long,
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


def _wish(terminated: Callable[[], bool], wishes: Callable[[], Wish] | None) -> Wish:
    asked = Wish.NONE if wishes is None else wishes()  # always called: it may be a collective of all ranks
    return Wish.STOP if terminated() else asked


def _steps(run: Run, on_report: Report | None, stop_after: int | None, wishes: Callable[[], Wish]) -> Progress:
    config, engine = run.trainer.config, run.engine
    resumed = _resume(run)
    progress = Progress(resumed_step=resumed, done=resumed)
    last = run.plan.total_steps if stop_after is None else min(stop_after, run.plan.total_steps)
    show_every = max(5, run.plan.total_steps // 10)
    with ExitStack() as stack:
        writers = None
        if engine.rank == 0:
            method = run.trainer.objective.method
            writers = stack.enter_context(MetricWriters(run.output_dir, resumed, run.plan.total_steps, config, method))
        saved = resumed
        while progress.done < last:
            wish = engine.max_over_ranks(wishes())
            if wish and progress.done > saved:
                _save(run, saved := progress.done)
            if wish == Wish.STOP:
                progress.stopped = True
                break
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
                _save(run, saved := progress.done)
    if progress.stopped and engine.rank == 0:
        print(f"  asked to stop: left after step {progress.done}; the same command goes on from there", flush=True)
    return progress


def _one_step(run: Run, progress: Progress) -> dict[str, float]:
    began, engine, plan = time.monotonic(), run.engine, run.plan
    mine = plan.micro_batches_of(progress.done, engine.rank, engine.world_size)
    work = run.trainer.work(run.table, mine, filler=plan.groups_of_step(progress.done)[0])
    learning_rate = engine.learning_rate
    metrics, cost = run.trainer.train_step(work, progress.done)
    seconds = time.monotonic() - began
    progress.done += 1
    progress.tokens += int(cost.tokens)
    progress.too_long += work.too_long
    progress.seconds += seconds
    return metrics | {
        "learning_rate": learning_rate,
        "epoch": progress.done / plan.steps_per_epoch,
        **cost.rates(seconds, run.peak_flops),
    }


def _resume(run: Run) -> int:
    """Load the newest whole checkpoint of this run on every rank; returns the steps already done."""
    engine, config = run.engine, run.trainer.config
    seed_all(config.seed, engine.rank)
    found = engine.from_rank_0(lambda: find_or_restart(run.checkpoints, run.settings, config))
    if engine.rank == 0:  # of an earlier run; a reader must not take the model to come for that one's
        (run.output_dir / "result.json").unlink(missing_ok=True)
    if found is None:
        return 0
    path = Path(found.path)
    engine.load(path, found.world_size)
    if found.world_size == engine.world_size:
        load_rng(path / _rng_file(engine.rank))
    else:  # There is no state of this very rank: draw anew, the same at every attempt.
        seed_all(config.seed, engine.rank, found.step)
    if engine.rank == 0:
        print(f"  resumed after step {found.step} from {path}", flush=True)
    return found.step


def _save(run: Run, step: int) -> None:
    engine, directory, config = run.engine, run.checkpoints, run.trainer.config
    if engine.rank == 0:
        begin_checkpoint(directory, step)
    engine.barrier()
    path = writing_path(directory, step)
    engine.save(path)
    save_rng(path / _rng_file(engine.rank))
    engine.barrier()
    if engine.rank == 0:
        commit_checkpoint(
            directory, step, world_size=engine.world_size, zero_stage=config.zero_stage, settings=run.settings
        )
        remove_old(directory, config.checkpoints_to_keep)
    engine.barrier()


def _rng_file(rank: int) -> str:
    return f"rng-{rank:05d}.pt"
