"""Train one run with the project's training step on trees, in a plain process."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.arms import Arm
from benchmarks.evidence.groups import GroupStream
from benchmarks.evidence.scale import Scale
from mapl_ray.batches import Batch, EncodedGroup, collate, of_levels
from mapl_ray.config import TrainConfig
from mapl_ray.models import PolicyLogps, prepare_for_trees
from mapl_ray.models.tree_attention import row_budget, row_multiple
from mapl_ray.objective import Objective
from mapl_ray.training.deepspeed_engine import Engine, frozen_forward
from mapl_ray.training.feed import Work
from mapl_ray.training.module import ModelSource, training_module
from mapl_ray.training.step import Trainer, frozen_reference
from mapl_ray.training.stop import StopWatch


@dataclass(frozen=True, slots=True)
class Trained:
    """Cost and learning curve of a run."""

    steps: int
    tokens: int  # tokens computed by the trained model
    wall_seconds: float
    cpu_seconds: float
    curve: list[dict[str, float]]  # step, tokens, training means since the last row, held-out `eval/...`


def train_config(arm: Arm, scale: Scale, seed: int) -> TrainConfig:
    """The arm's settings as a `TrainConfig`."""
    return TrainConfig(
        weights=arm.weights,
        learning_rate=scale.learning_rate if arm.method == "rm" else scale.dpo_learning_rate,
        weight_decay=scale.weight_decay,
        warmup_ratio=0.05,
        micro_batch_size=scale.groups_per_step,
        max_sequence_tokens=scale.max_sequence_tokens,
        zero_stage=0,
        loggers=(),
        best_by=None,
        seed=seed,
    )


def train_arm(
    arm: Arm,
    scale: Scale,
    seed: int,
    steps: int,
    stream: GroupStream,
    curve_groups: list[EncodedGroup],
    start: Path,
    tokenizer: Any,
    target: Path,
) -> Trained:
    """Train from the model in `start` and save the result in `target`."""
    config = train_config(arm, scale, seed)
    source = ModelSource(str(start), None, "float32", arm.method, seed)
    trained = training_module(config, source, tokenizer)
    engine = Engine(trained.module, config, steps)
    model = trained.module.model
    trainer = Trainer(engine, config, Objective.of(config, arm.method), _reference(arm, config, source, engine))

    def batch_of(groups: list[EncodedGroup]) -> Batch:
        return collate(groups, "tree", tokenizer.pad_token_id, row_multiple(model), row_budget(model))

    size = scale.groups_per_step
    held_out = [batch_of(curve_groups[i : i + size]) for i in range(0, len(curve_groups), size)]
    began, cpu_began = time.monotonic(), time.process_time()
    tokens, curve, since = 0, list[dict[str, float]](), list[dict[str, float]]()
    marks = {round(steps * number / scale.evaluations) for number in range(1, scale.evaluations + 1)}

    def works() -> Iterator[Work]:
        for step in range(steps):
            groups = [of_levels(group, config.weights.families) for group in stream.step(step)]
            yield Work([batch_of(groups)], len(groups), Counter())

    made, watch = works(), StopWatch(lambda: False, None)
    now = trainer.first_step(made, watch)
    for step in range(steps):
        metrics, following = trainer.train_step(now, step, made, watch)
        tokens += int(now.cost.tokens)
        now = following
        since.append(metrics)
        if step + 1 in marks:
            means = {name: sum(row[name] for row in since) / len(since) for name in since[0]}
            curve.append({"step": step + 1, "tokens": tokens, **means, **trainer.evaluate(iter(held_out))})
            since = []
    result = Trained(steps, tokens, time.monotonic() - began, time.process_time() - cpu_began, curve)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return result


def _reference(arm: Arm, config: TrainConfig, source: ModelSource, engine: Engine) -> Any:
    if arm.method == "rm":
        return lambda batch: batch
    frozen = source.load(engine.device.type)
    prepare_for_trees(frozen, device_type=engine.device.type)
    return frozen_reference(frozen_forward(PolicyLogps(frozen), config, engine.device))
