"""Setup of a rank before its first step: groups, model, engine, reference, feed, checkpoints and export."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from mapl_ray.config import TrainConfig
from mapl_ray.data.kept_tokens import KeptTokens
from mapl_ray.models import PolicyLogps, load_tokenizer, prepare_for_trees
from mapl_ray.models.sequence_parallel import SequenceGroup, share_sequences
from mapl_ray.models.tree_attention import row_budget, row_multiple
from mapl_ray.objective import Objective
from mapl_ray.training.deepspeed_engine import Engine, frozen_forward, world_size
from mapl_ray.training.export import CardFacts, Exporter
from mapl_ray.training.feed import Feed
from mapl_ray.training.group_table import GroupTable
from mapl_ray.training.module import ModelSource, TrainingModule, loaded_in_parts, training_module
from mapl_ray.training.plan import StepPlan, at_size, replicas
from mapl_ray.training.resume import run_settings
from mapl_ray.training.saving import Checkpoints
from mapl_ray.training.sequence_ranks import sequence_group
from mapl_ray.training.step import Fill, Trainer, frozen_reference, switched_off_reference
from mapl_ray.training.throughput import FlopCounter, peak_flops


@dataclass(frozen=True, slots=True)
class Run:
    """The objects that one rank needs for a run."""

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
        """Peak FLOP/s of all ranks together; None if unknown."""
        bf16 = self.trainer.config.in_bf16 or next(self.engine.module.parameters()).dtype is torch.bfloat16
        peak = peak_flops(self.engine.device, bf16)
        return None if peak is None else peak * self.engine.world_size


def group_tables(
    config: TrainConfig, train_dir: Path, eval_dir: Path | None, tokens: KeptTokens | None
) -> tuple[GroupTable, GroupTable | None]:
    """Open the training groups, and the held-out groups if there are any."""
    of_split = {split: None if tokens is None else tokens.of(split) for split in ("train", "eval")}
    table = GroupTable(train_dir, config.objective.margin_scale > 0.0, of_split["train"])
    return table, None if eval_dir is None else GroupTable(eval_dir, tokens=of_split["eval"])


def set_up(
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
    """Load the model and start the engine. `asked`: the run's config, not adapted to the current number of ranks."""
    table, held_out = tables
    tokenizer = load_tokenizer(source.path, source.revision)
    ranks = sequence_group(asked.sequence_parallel_size)
    trained = training_module(asked, source, tokenizer, ranks)
    model = f"{source.path}@{source.revision}" if model_id is None else model_id
    data = table.manifest.content_hash
    plan = StepPlan.of(asked, table.sizes(asked), world_size(), mapped=table.is_large)
    settings = run_settings(asked, source.method, model=model, data=data, world_size=world_size())
    config = at_size(asked, world_size())
    flops = FlopCounter.of(trained.module.model)
    engine = Engine(trained.module, config, plan.total_steps)
    if engine.rank == 0 and getattr(trained.module.model, "fresh_head", False):
        print(f"  reward head: {source.path} has none; initialized at random (train.seed={config.seed})", flush=True)
    reference = _reference(kind, config, source, trained, engine, ranks)
    feed = Feed.of(
        table,
        tokenizer,
        config,
        replica=engine.replica,
        replicas=replicas(config, engine.world_size),
        takes_ref_logps=kind == "scored",
        row_tokens=config.row_tokens or row_budget(trained.module.model),
        pad_to_multiple_of=math.lcm(row_multiple(trained.module.model), config.sequence_parallel_size),
        on_gpu=engine.device.type == "cuda",
        part=None if ranks is None else (ranks.rank, ranks.size),
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


def _reference(
    kind: str,
    config: TrainConfig,
    source: ModelSource,
    trained: TrainingModule,
    engine: Engine,
    ranks: SequenceGroup | None,
) -> Fill:
    """Create the function that fills `ref_logps` of a batch."""
    if kind == "frozen":
        if engine.rank == 0:
            print(f"  reference: a frozen copy of {source.path} (`mapl score` saves its memory)", flush=True)
        with loaded_in_parts(config):
            model = source.load(engine.device.type)
        if config.batching == "tree":
            prepare_for_trees(model, config.attention, engine.device.type, bf16=True if config.in_bf16 else None)
        if ranks is not None:
            share_sequences(model, ranks)
        return frozen_reference(frozen_forward(PolicyLogps(model, ranks), config, engine.device))
    if kind == "adapter":
        return switched_off_reference(engine, trained.wrapped, config.zero_stage)
    return lambda batch: batch


def _facts(asked: TrainConfig, source: ModelSource, table: GroupTable, total_steps: int, world_size: int) -> CardFacts:
    return CardFacts(
        method=source.method,
        base_model=source.path,
        revision=source.revision,
        data="/".join(table.directory.parts[-3:]),  # run, groups or scored, split: the full path is private
        data_hash=table.manifest.content_hash,
        groups=len(table),
        total_steps=total_steps,
        num_workers=world_size,
        config=asked.model_dump(mode="json"),
    )
