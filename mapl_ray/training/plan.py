"""Which groups every rank computes in every micro-batch of every step: plain arithmetic, the same on all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mapl_ray.config import TrainConfig
from mapl_ray.training.balance import shares
from mapl_ray.training.group_sizes import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """The order of training; it depends on the config, the groups' number and sizes, and nothing else."""

    sizes: IntArray  # of the groups; they decide how a step is cut, not what is in it
    groups_per_step: int
    micro_batches: int  # a step, over all ranks; together they hold `groups_per_step` or more
    micro_batch_size: int  # the most groups in one
    alike: bool  # micro-batches of groups of like size, else of like sum
    total_steps: int
    seed: int

    @classmethod
    def of(cls, config: TrainConfig, sizes: Sequence[int] | IntArray, world_size: int) -> StepPlan:
        """Raises `ValueError` without groups."""
        if len(sizes) < 1:
            raise ValueError("nothing to train on")
        return cls(
            sizes=np.asarray(sizes),
            groups_per_step=groups_per_step(config, world_size),
            micro_batches=world_size * at_size(config, world_size).gradient_accumulation_steps,
            micro_batch_size=config.micro_batch_size,
            alike=config.batching == "padded",
            total_steps=total_steps(config, len(sizes), world_size),
            seed=config.seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.sizes) // self.groups_per_step)

    def groups_of_step(self, step: int) -> list[int]:
        """Indices of the groups of one step (0-based), fewer at the end of an epoch."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = _order(self.seed, epoch, len(self.sizes))
        chosen: list[int] = order[within * self.groups_per_step : (within + 1) * self.groups_per_step].tolist()
        return chosen

    def micro_batches_of(self, step: int, rank: int, world_size: int) -> list[list[int]]:
        """The micro-batches of one rank; some may be empty, their number is the same on every rank."""
        groups = self.groups_of_step(step)
        sizes = self.sizes[groups].tolist()
        dealt = shares(sizes, world_size, self.micro_batches // world_size, self.micro_batch_size, self.alike)
        return [[groups[position] for position in hand] for hand in dealt[rank]]


def total_steps(config: TrainConfig, num_groups: int, world_size: int) -> int:
    """Optimizer steps of a whole run."""
    total = config.epochs * -(-num_groups // groups_per_step(config, world_size))
    return total if config.max_steps is None else min(total, config.max_steps)


def groups_per_step(config: TrainConfig, world_size: int) -> int:
    """Groups of one optimizer step; of an elastic run what `num_workers` would make, however many there are."""
    workers = world_size if config.min_workers is None else config.num_workers
    return workers * config.gradient_accumulation_steps * config.micro_batch_size


def at_size(config: TrainConfig, world_size: int) -> TrainConfig:
    """What an elastic run's ranks do when there are `world_size` of them: micro-batches of the same size, and as many
    on each as hold the step's groups. Where these don't divide evenly some stay empty. Others: as they are."""
    if config.min_workers is None:
        return config
    turns = -(-config.num_workers * config.gradient_accumulation_steps // world_size)
    return config.model_copy(update={"gradient_accumulation_steps": turns})


@lru_cache(maxsize=2)  # a million groups take as long to shuffle as a thousand take to train
def _order(seed: int, epoch: int, number: int) -> IntArray:
    return np.random.default_rng([seed, epoch]).permutation(number)
