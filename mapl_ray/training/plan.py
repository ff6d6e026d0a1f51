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
    micro_batches: int  # a step, over all ranks
    micro_batch_size: int  # the most groups in one
    alike: bool  # micro-batches of groups of like size, else of like sum
    total_steps: int
    seed: int

    @classmethod
    def of(cls, config: TrainConfig, sizes: Sequence[int] | IntArray, world_size: int) -> StepPlan:
        """Raises `ValueError` without groups."""
        if len(sizes) < 1:
            raise ValueError("nothing to train on")
        micro_batches = world_size * config.gradient_accumulation_steps
        total, alike = total_steps(config, len(sizes), world_size), config.batching == "padded"
        return cls(np.asarray(sizes), micro_batches, config.micro_batch_size, alike, total, config.seed)

    @property
    def groups_per_step(self) -> int:
        return self.micro_batches * self.micro_batch_size

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
    a_step = world_size * config.gradient_accumulation_steps * config.micro_batch_size
    total = config.epochs * -(-num_groups // a_step)
    return total if config.max_steps is None else min(total, config.max_steps)


@lru_cache(maxsize=2)  # a million groups take as long to shuffle as a thousand take to train
def _order(seed: int, epoch: int, number: int) -> IntArray:
    return np.random.default_rng([seed, epoch]).permutation(number)
