"""A plan: stages, memory and storage of a run for one number of pairs and GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mapl_ray.config import Method, RunConfig, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.planning.groups import GroupSize, group_size
from mapl_ray.planning.memory import Memory, training_memory
from mapl_ray.planning.rates import Rates
from mapl_ray.planning.shape import ModelShape, model_shape
from mapl_ray.planning.stage_times import (
    METHODS,
    StageTime,
    StageWork,
    best_bytes,
    checkpoint_bytes,
    stages,
)
from mapl_ray.planning.traffic import shared_by, step_traffic
from mapl_ray.training.group_table import MAPPED_FROM

PAIRS = (10**4, 10**5, 10**6, 10**7, 10**8, 10**9)
GPUS = (1, 8, 64, 1024)
STAGES_OF_ZERO = (0, 1, 2, 3)
# Bytes per mapped group (its size, and its index in the orders of two epochs), and per token id in memory.
_BYTES_OF_PLAN, _BYTES_OF_ID = 3 * 4.0, 4.0


@dataclass(frozen=True, slots=True)
class RunSize:
    """Estimates for one number of pairs and of GPUs."""

    pairs: int
    gpus: int
    stages: tuple[StageTime, ...]
    storage: dict[str, float]  # bytes, by kind of data
    host_memory: float  # bytes per node of groups and token ids, if these are small enough for a copy per worker
    node_disk: float  # bytes per node of groups and token ids, if these are large and memory-mapped
    fits: bool  # whether it fits in device and node memory, for both methods at the config's ZeRO stage

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Hours of all GPUs for the whole run, which must be paid for."""
        return self.seconds * self.gpus / 3600

    @property
    def busy_gpu_hours(self) -> float:
        """Hours of GPUs that a stage uses."""
        return sum(stage.seconds * stage.gpus for stage in self.stages) / 3600

    @property
    def longest(self) -> StageTime:
        """The stage that takes longest."""
        return max(self.stages, key=lambda stage: stage.seconds)

    @property
    def bottleneck(self) -> str:
        """The stage that takes longest, and what most of its time is spent on."""
        return f"{self.longest.name}: {self.longest.bound}"


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Memory and traffic of one method, number of GPUs and ZeRO stage."""

    method: Method
    gpus: int
    zero_stage: int
    memory: Memory
    sent: float  # bytes that a worker sends in a step
    sent_between_nodes: float  # of these, in collectives of more workers than a node has
    fits: bool
    chosen: bool  # whether the config has this ZeRO stage


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything that `mapl plan` reports."""

    config: RunConfig
    shape: ModelShape
    group: GroupSize
    rates: Rates
    memory: tuple[MemoryRow, ...]
    sizes: tuple[RunSize, ...]


def make_plan(config: RunConfig, rates: Rates, pairs: Sequence[int] = PAIRS, gpus: Sequence[int] = GPUS) -> RunPlan:
    """Make a plan for every number of pairs and of GPUs. Starts nothing and downloads nothing.

    Raises `UserError` for numbers outside 10 thousand to 1 billion and 1 to 1024, and for a model of unknown size.
    """
    _check("--pairs", pairs, PAIRS[0], PAIRS[-1])
    _check("--gpus", gpus, 1, 1024)
    shape, group = model_shape(config), group_size(config)
    memory = tuple(_memory(config, shape, group, rates, gpus))
    fitting = {count: all(row.fits for row in memory if row.chosen and row.gpus == count) for count in gpus}
    works = [StageWork(config, shape, group, rates, float(of), count) for of in pairs for count in gpus]
    return RunPlan(config, shape, group, rates, memory, tuple(_size(work, fitting[work.gpus]) for work in works))


def _check(option: str, values: Sequence[int], least: int, most: int) -> None:
    wrong = [value for value in values if not least <= value <= most]
    if wrong or not values:
        raise UserError(f"{option}: {wrong or 'nothing'}: expected numbers from {least:,} to {most:,}, as in 8,64.")


def _memory(
    config: RunConfig, shape: ModelShape, group: GroupSize, rates: Rates, gpus: Iterable[int]
) -> Iterable[MemoryRow]:
    each = rates["characters_per_token"].value
    for count in gpus:
        for method in METHODS:
            train = config.training(method)
            # A micro-batch of average groups and one as large as the largest in the sample that is not left out.
            largest = min(group.largest_tree / each, 6.0 * train.max_sequence_tokens)
            groups = train.micro_batch_size - 1 + largest * each / group.all.tree
            tokens = groups * (group.all.tree if train.batching == "tree" else group.all.padded) / each
            edges = groups * group.all.responses / each
            workers = max(1, math.floor(count / max(1.0, train.gpus_per_worker)))
            ranks = shared_by(train, workers)
            tokens, edges = tokens / ranks, edges / ranks
            for stage in STAGES_OF_ZERO:
                memory = training_memory(shape, train, method, workers, tokens=tokens, edges=edges, zero_stage=stage)
                fits = memory.total <= rates["gpu_memory"].value
                spans = step_traffic(shape, train, method, workers, stage, group.all.tree / each)
                between = sum(sent for span, sent in spans.items() if span > rates["gpus_per_node"].value)
                chosen = stage == train.zero_stage
                yield MemoryRow(method, count, stage, memory, sum(spans.values()), between, fits, chosen)


def _size(work: StageWork, fits: bool) -> RunSize:
    workers, groups = min(work.gpus, work.value("gpus_per_node")), work.groups
    ids = work.token_ids
    disk, host = 0.0, 0.0
    for parquet, memory in (
        (groups * work.group.group_bytes, groups * (work.group.group_bytes_in_memory + _BYTES_OF_PLAN)),
        (ids * work.value("token_id"), ids * _BYTES_OF_ID),
    ):
        disk += memory if parquet >= MAPPED_FROM else 0.0
        host += workers * memory if parquet < MAPPED_FROM else 0.0
    storage = _storage(work)
    of_all = tuple(stages(work))
    there = work.value("node_memory")
    return RunSize(round(work.pairs), work.gpus, of_all, storage, host, disk, fits and host <= there)


def _weight_bytes(work: StageWork, train: TrainConfig) -> float:
    """Bytes of an exported model's weights."""
    bf16 = train.in_bf16 or work.config.model.dtype == "bfloat16"
    return work.shape.parameters * (2.0 if bf16 else 4.0)


def _storage(work: StageWork) -> dict[str, float]:
    """Bytes below `output_dir` after the run, plus temporary ones: one checkpoint more than are kept, and the kept
    bests."""
    config, group = work.config, work.group
    runs = [config.training(method) for method in METHODS] * (2 if config.evaluation.baseline else 1)
    columns = int(config.scoring.ref_logps) + int(config.scoring.reward_model is not None)
    models = sum(_weight_bytes(work, train) * (1 if train.best_by is None else 2) for train in runs)
    return {
        "pairs": work.pairs * group.pair_bytes,
        "groups": work.groups * group.group_bytes,
        "scored": work.groups * (group.group_bytes + columns * 2 * 4.0 * group.sequences),
        "tokens": work.token_ids * work.value("token_id"),
        "checkpoints": sum((train.checkpoints_to_keep + 1) * checkpoint_bytes(work.shape, train) for train in runs),
        "best": sum(best_bytes(work.shape, train) for train in runs),
        "models": models,
    }
