"""The training loop: steps, held-out evaluation, checkpoints, and a model directory at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from mapl_ray.config import Method, ModelConfig, TrainConfig
from mapl_ray.models import PolicyLogps, check_same_model, load_tokenizer, prepare_for_trees
from mapl_ray.models.tree_attention import row_budget, row_multiple
from mapl_ray.objective import Objective
from mapl_ray.progress import tracked
from mapl_ray.training.deepspeed_engine import Engine, ensure_process_group, frozen_forward, world_size
from mapl_ray.training.engine_config import inlined
from mapl_ray.training.export import CardFacts, Exporter
from mapl_ray.training.feed import Feed, Work
from mapl_ray.training.group_table import GroupTable
from mapl_ray.training.loggers import MetricWriters, check_loggers
from mapl_ray.training.module import ModelSource, TrainingModule, loaded_in_parts, training_module
from mapl_ray.training.plan import StepPlan, at_size
from mapl_ray.training.result import Best, TrainResult, read_best, vouched_for
from mapl_ray.training.resume import run_settings
from mapl_ray.training.saving import Checkpoints
from mapl_ray.training.step import Fill, Report, Trainer, frozen_reference, reference_kind, switched_off_reference
from mapl_ray.training.stop import StopRequest, sigterm_watch
from mapl_ray.training.throughput import FlopCounter, peak_flops


@dataclass(slots=True)
class Progress:
    """What has been done since this process started."""

    resumed_step: int
    done: int  # steps, those before a resume included
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    tokens: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # groups left out or cut, by reason
    seconds: float = 0.0
    stopped: bool = False  # by a stop request
    best: Best | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One rank's view of a run."""

    trainer: Trainer
    plan: StepPlan
    feed: Feed
    held_out: Feed | None
    output_dir: Path
    checkpoints: Checkpoints
    exporter: Exporter | None  # None: nothing is exported

    @property
    def engine(self) -> Engine:
        return self.trainer.engine

    @property
    def peak_flops(self) -> float | None:
        """Of all ranks together, in FLOP/s, where it is known."""
        bf16 = self.trainer.config.bf16 or next(self.engine.module.parameters()).dtype is torch.bfloat16
        peak = peak_flops(self.engine.device, bf16)
        return None if peak is None else peak * self.engine.world_size


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
    tokens_dir: Path | None = None,
    on_report: Report | None = None,
    stop_after: int | None = None,
    export: bool = True,
    model_id: str | None = None,
    stop_requests: Callable[[], StopRequest] | None = None,
) -> TrainResult:
    """Train on this process's rank, resuming from the newest whole checkpoint of the same run.

    Args:
        eval_dir: held-out groups, None where there are none.
        fingerprint: identity of the run (`run_fingerprint`), kept in its result.
        tokens_dir: token ids of both splits that were made before (`train`, `eval` below it); None: made as they come.
        on_report: called on every rank with the held-out metrics (or the step's) after each evaluation.
        stop_after: leave after this many steps in all, as an interruption would; nothing is exported.
        export: write `output_dir/model` and `result.json` at the end, and `best` when an evaluation is the best so far.
        model_id: what the base model is (`model_identity`), for its checkpoints; None: its path.
        stop_requests: called on every rank before each step; SIGTERM to any rank is a request to stop too.

    Raises `UserError` for data or models that can't be trained and for checkpoints that can't be used, `RunError` for
    a loss or gradient that is not finite.
    """
    started = time.monotonic()
    config = inlined(config)
    ensure_process_group()
    objective = Objective.of(config, method)
    check_loggers(config.loggers)
    tables = _tables(config, train_dir, eval_dir, tokens_dir)
    kind = reference_kind(config, method, [table for table in tables if table is not None])
    if model_id is not None:
        check_same_model(model_path, model_id)
    source = ModelSource(model_path, model_config, method, config.seed)
    run = _set_up(config, objective, source, kind, tables, output_dir, model_id=model_id, export=export)
    with sigterm_watch() as terminated:
        progress = _steps(run, on_report, stop_after, lambda: _strongest(terminated, stop_requests))
    result = _result(run, config, progress, fingerprint, time.monotonic() - started)
    if run.exporter is not None and progress.done == run.plan.total_steps:
        run.exporter.write(output_dir / "model", output_dir / "adapter", progress.done, progress.metrics)
        if run.engine.rank == 0:
            replace(result, weights=vouched_for(output_dir / "model")).write(output_dir)
        run.engine.barrier()
    return result


def _tables(
    config: TrainConfig, train_dir: Path, eval_dir: Path | None, tokens_dir: Path | None
) -> tuple[GroupTable, GroupTable | None]:
    """The groups of training, and the held-out ones where there are some."""
    of_split = {split: None if tokens_dir is None else tokens_dir / split for split in ("train", "eval")}
    table = GroupTable(train_dir, config.objective.margin_scale > 0.0, of_split["train"])
    return table, None if eval_dir is None else GroupTable(eval_dir, tokens=of_split["eval"])


def _set_up(
    asked: TrainConfig,
    objective: Objective,
    source: ModelSource,
    kind: str,
    tables: tuple[GroupTable, GroupTable | None],
    output_dir: Path,
    *,
    model_id: str | None,
    export: bool,
) -> Run:
    """Load the model and start the engine; `asked` is the config for `num_workers`, whatever the number of ranks."""
    table, held_out = tables
    tokenizer = load_tokenizer(source.path, source.config.revision)
    trained = training_module(asked, source, tokenizer)
    model = f"{source.path}@{source.config.revision}" if model_id is None else model_id
    data = table.manifest.content_hash
    plan = StepPlan.of(asked, table.sizes(asked), world_size())
    settings = run_settings(asked, source.method, model=model, data=data, world_size=world_size())
    config = at_size(asked, world_size())
    flops = FlopCounter.of(trained.module.model)
    engine = Engine(trained.module, config, plan.total_steps)
    if engine.rank == 0 and getattr(trained.module.model, "fresh_head", False):
        print(f"  reward head: {source.path} has none; a fresh one is drawn (train.seed={config.seed})", flush=True)
    reference = _reference(kind, config, source, trained, engine)
    feed = Feed.of(
        table,
        tokenizer,
        config,
        rank=engine.rank,
        world_size=engine.world_size,
        takes_ref_logps=kind == "scored",
        row_tokens=config.row_tokens or row_budget(trained.module.model),
        pad_to_multiple_of=row_multiple(trained.module.model),
        on_gpu=engine.device.type == "cuda",
    )
    facts = _facts(asked, source, table, plan.total_steps, engine.world_size)
    return Run(
        Trainer(engine, config, objective, reference, flops),
        plan,
        feed,
        None if held_out is None else feed.of_table(held_out),
        output_dir,
        Checkpoints(engine, config, output_dir / "checkpoints", settings),
        Exporter(engine, trained, source, tokenizer, facts) if export else None,
    )


def _facts(asked: TrainConfig, source: ModelSource, table: GroupTable, total_steps: int, world_size: int) -> CardFacts:
    return CardFacts(
        method=source.method,
        base_model=source.path,
        revision=source.config.revision,
        data="/".join(table.directory.parts[-3:]),  # run, groups or scored, split: the rest of the path is private
        data_hash=table.manifest.content_hash,
        groups=len(table),
        total_steps=total_steps,
        num_workers=world_size,
        config=asked.model_dump(mode="json"),
    )


def _result(run: Run, asked: TrainConfig, progress: Progress, fingerprint: str, wall_seconds: float) -> TrainResult:
    counts = run.trainer.counts_of_all_ranks(progress.counts)
    if run.engine.rank == 0 and (refused := counts["refused_by_template"]):
        print(f"  {refused} groups left out: the chat template does not take them (mapl doctor names one)", flush=True)
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


def _reference(kind: str, config: TrainConfig, source: ModelSource, trained: TrainingModule, engine: Engine) -> Fill:
    """What fills `ref_logps` of a batch."""
    if kind == "frozen":
        if engine.rank == 0:
            print(f"  reference: a frozen copy of {source.path} (`mapl score` saves its memory)", flush=True)
        with loaded_in_parts(config):
            model = source.load(engine.device.type)
        if config.batching == "tree":
            prepare_for_trees(model, config.attention, engine.device.type, bf16=True if config.bf16 else None)
        return frozen_reference(frozen_forward(PolicyLogps(model), config, engine.device))
    if kind == "adapter":
        return switched_off_reference(engine, trained.wrapped, config.zero_stage)
    return lambda batch: batch


def _strongest(terminated: Callable[[], bool], stop_requests: Callable[[], StopRequest] | None) -> StopRequest:
    asked = (
        StopRequest.NONE if stop_requests is None else stop_requests()
    )  # always called: it may be a collective of all ranks
    return StopRequest.STOP if terminated() else asked


def _steps(
    run: Run, on_report: Report | None, stop_after: int | None, stop_requests: Callable[[], StopRequest]
) -> Progress:
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
        work = stack.enter_context(closing(run.feed.steps(run.plan, resumed, last)))
        saved = resumed
        while progress.done < last:
            request = engine.max_over_ranks(stop_requests())
            if request in (StopRequest.SAVE, StopRequest.STOP) and progress.done > saved:
                run.checkpoints.save(saved := progress.done)
            if request == StopRequest.STOP or (request == StopRequest.LEAVE and progress.done == saved > resumed):
                progress.stopped = True
                break
            metrics = _one_step(run, progress, work)
            evaluated = progress.done % config.eval_every_steps == 0 or progress.done == run.plan.total_steps
            if evaluated:
                progress.metrics = metrics if run.held_out is None else _evaluate(run.trainer, run.held_out)
                metrics |= progress.metrics
                _keep_best(run, progress)
            if writers is not None:
                show = evaluated or progress.done == 1 or progress.done % show_every == 0
                writers.write(progress.done, metrics, show)
            if evaluated and on_report is not None:
                on_report({**progress.metrics, "step": float(progress.done)})
            if progress.done % config.checkpoint_every_steps == 0 and progress.done < run.plan.total_steps:
                run.checkpoints.save(saved := progress.done)
    if progress.stopped and engine.rank == 0:
        print(f"  left after step {progress.done}, with a checkpoint to go on from", flush=True)
    return progress


def _best_so_far(run: Run, resumed: int) -> Best | None:
    engine, by = run.engine, run.trainer.config.best_by
    best = None
    if by is not None:
        best = engine.from_rank_0(lambda: read_best(run.output_dir, by, run.checkpoints.settings, resumed))
    if engine.rank == 0:
        # Of an earlier run: a reader must not take the models to come for that one's.
        (run.output_dir / "result.json").unlink(missing_ok=True)
        if best is None:
            (run.output_dir / "best.json").unlink(missing_ok=True)
    return best


def _keep_best(run: Run, progress: Progress) -> None:
    by = run.trainer.config.best_by
    if run.exporter is None or run.held_out is None or by is None:
        return
    now = Best.of(by, progress.metrics, progress.done, run.checkpoints.settings)
    if now is None or (progress.best is not None and now.score <= progress.best.score):
        return
    folder = run.output_dir
    run.exporter.write(folder / "best", folder / "best-adapter", progress.done, progress.metrics)
    progress.best = now
    if run.engine.rank == 0:
        now.write(folder)


def _evaluate(trainer: Trainer, held_out: Feed) -> dict[str, float]:
    with closing(held_out.held_out()) as batches:
        first = trainer.engine.rank == 0
        return trainer.evaluate(tracked(batches, "held-out groups", "batches") if first else batches)


def _one_step(run: Run, progress: Progress, work_of_steps: Iterator[Work]) -> dict[str, float]:
    began, learning_rate = time.monotonic(), run.engine.learning_rate
    work = next(work_of_steps)
    metrics, cost = run.trainer.train_step(work, progress.done)
    seconds = time.monotonic() - began
    progress.done += 1
    progress.tokens += int(cost.tokens)
    progress.counts += work.counts
    progress.seconds += seconds
    return metrics | {
        "learning_rate": learning_rate,
        "epoch": progress.done / run.plan.steps_per_epoch,
        **cost.rates(seconds, run.peak_flops),
    }
