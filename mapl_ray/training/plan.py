"""Which groups every rank computes in every micro-batch of every step: plain arithmetic, the same on all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mapl_ray.config import TrainConfig


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The order of training; it depends on the config, the number of groups and nothing else."""

    num_groups: int
    groups_per_step: int
    micro_batches: int  # a step, over all ranks
    total_steps: int
    seed: int

    @classmethod
    def of(cls, config: TrainConfig, num_groups: int, world_size: int) -> StepPlan:
        """Raises `ValueError` without groups."""
        if num_groups < 1:
            raise ValueError("nothing to train on")
        micro_batches = world_size * config.gradient_accumulation_steps
        groups_per_step = micro_batches * config.micro_batch_size
        total = config.epochs * -(-num_groups // groups_per_step)
        total = total if config.max_steps is None else min(total, config.max_steps)
        return cls(num_groups, groups_per_step, micro_batches, total, config.seed)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_groups // self.groups_per_step)

    def groups_of_step(self, step: int) -> list[int]:
        """Indices of the groups of one step (0-based), fewer at the end of an epoch."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_groups)
        return [int(i) for i in order[within * self.groups_per_step : (within + 1) * self.groups_per_step]]

    def micro_batches_of(self, step: int, rank: int, world_size: int) -> list[list[int]]:
        """The micro-batches of one rank; some may be empty, their number is the same on every rank."""
        return deal(self.groups_of_step(step), self.micro_batches)[rank::world_size]


def deal(indices: list[int], hands: int) -> list[list[int]]:
    """Indices dealt one by one, so that hands differ by one at most."""
    return [indices[hand::hands] for hand in range(hands)]
