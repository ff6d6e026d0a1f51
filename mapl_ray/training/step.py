"""One optimizer step and one evaluation, over the same forward pass and loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass

import torch

from mapl_ray.batches import Batch
from mapl_ray.config import TrainConfig
from mapl_ray.objective import Objective, Result
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.feed import Work
from mapl_ray.training.finite import check_loss, checked_step
from mapl_ray.training.group_table import REASONS
from mapl_ray.training.throughput import FlopCounter, StepCost, peak_memory_gib


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything a step needs."""

    engine: Engine
    config: TrainConfig
    objective: Objective
    reference: Callable[[Batch], Batch] = lambda batch: batch  # fills `ref_logps_S` where the data has none
    flops: FlopCounter | None = None

    def train_step(self, work: Work, step: int) -> tuple[dict[str, float], StepCost]:
        """Metrics and cost of one optimizer step, both over all ranks. Two reductions, whatever is measured.

        Raises `RunError` for a loss or gradient that is not finite, before the weights change, on all ranks alike.
        """
        self.engine.train_mode(True)
        batches, last = work.batches, len(work.batches) - 1
        counts_L, cost = self._counts(work)
        sums, margins = self._no_sums(), []
        for index, batch in enumerate(batches):
            batch = self.reference(batch.to(self.engine.device))
            result = self._loss(batch, counts_L)
            self.engine.backward(result.loss)
            sums += result.sums
            margins.append(result.margins_R)
            if index == last:
                sums, memory = self._summed(sums)
                check_loss(self.engine, self.objective.by_level(sums), step, batches, margins)
                checked_step(self.engine, step, batches)
            else:
                self.engine.step()
        metrics = {**self.objective.metrics(sums), "grad_norm": self.engine.grad_norm, "peak_memory_gib": memory}
        return metrics, cost

    def evaluate(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Held-out metrics, `eval/...`; every rank computes its share, of as many batches, and returns the whole."""
        self.engine.train_mode(False)
        sums, no_weight = self._no_sums(), torch.ones(3, dtype=torch.float64)
        with torch.no_grad():
            for batch in batches:
                batch = self.reference(batch.to(self.engine.device))
                sums += self._loss(batch, no_weight).sums
        metrics = self.objective.metrics(self.engine.sum_over_ranks(sums))
        return {f"eval/{name}": value for name, value in metrics.items()}

    def counts_of_all_ranks(self, counts: Counter[str]) -> dict[str, int]:
        """Groups left out or cut, by reason; every rank must call it."""
        mine = torch.tensor([counts[reason] for reason in REASONS])
        return dict(zip(REASONS, self.engine.sum_over_ranks(mine).tolist(), strict=True))

    def _loss(self, batch: Batch, counts_L: torch.Tensor) -> Result:
        return self.objective(self.engine(batch), batch, counts_L)

    def _counts(self, work: Work) -> tuple[torch.Tensor, StepCost]:
        """Relations per level and cost of the step, over all ranks."""
        counts_L = torch.stack([batch.relations.counts() for batch in work.batches]).sum(0)
        mine = astuple(StepCost.of(work.batches, work.groups, self.flops))
        total = self.engine.sum_over_ranks(torch.cat([counts_L, counts_L.new_tensor(mine)]))
        return total[: len(counts_L)], StepCost(*total[len(counts_L) :].tolist())

    def _summed(self, sums: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Sums over all ranks, and the largest of their peaks of memory: a place for each in the same tensor."""
        peaks = sums.new_zeros(self.engine.world_size)
        peaks[self.engine.rank] = peak_memory_gib(self.engine.device)
        total = self.engine.sum_over_ranks(torch.cat([sums, peaks]))
        return total[: len(sums)], total[len(sums) :].max().item()

    def _no_sums(self) -> torch.Tensor:
        return torch.zeros(self.objective.num_sums, dtype=torch.float64, device=self.engine.device)


Report = Callable[[dict[str, float]], None]
