"""Optimizer steps and evaluations, with the same forward pass and loss, and the source of ref_logps.

The ref_logps of DPO come from the data, from a frozen copy of the base model, or from the policy with its adapter
disabled. A loss or gradient that is not finite ends the run with a message that names the groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch

from mapl_ray.batches import Batch
from mapl_ray.config import Method, TrainConfig
from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.errors import RunError, UserError
from mapl_ray.objective import Objective, Result
from mapl_ray.training.deepspeed_engine import Engine, NonFiniteGradientError
from mapl_ray.training.feed import Work
from mapl_ray.training.group_table import REASONS, GroupTable
from mapl_ray.training.module import switched_off
from mapl_ray.training.stop import StopRequest, StopWatch
from mapl_ray.training.throughput import FlopCounter, StepCost, peak_memory_gib


@dataclass(frozen=True, slots=True)
class StepInput:
    """This rank's micro-batches of a step, and values reduced over ranks before it."""

    work: Work | None  # None after the last step
    counts_L: torch.Tensor  # relations per level over all ranks, float64, on the CPU
    cost: StepCost  # over all ranks
    request: StopRequest  # the strongest request over all ranks
    look: bool  # whether all ranks look up requests during the step


@dataclass(frozen=True, slots=True)
class StepSums:
    """Sums of a step over all ranks."""

    sums: torch.Tensor  # as `Result.sums`, on the CPU
    peak_memory_gib: float  # the maximum over ranks


@dataclass(frozen=True, slots=True)
class Trainer:
    """Runs optimizer steps and evaluations on one rank."""

    engine: Engine
    config: TrainConfig
    objective: Objective
    reference: Callable[[Batch], Batch] = lambda batch: batch  # fills `ref_logps_S` if the data has none
    flops: FlopCounter | None = None

    def first_step(self, works: Iterator[Work], watch: StopWatch) -> StepInput:
        """Prepare the input of this process's first step. A collective."""
        _, first = self._reduced(self._no_sums(), next(works, None), watch, look=True)
        return first

    def train_step(
        self, now: StepInput, step: int, works: Iterator[Work], watch: StopWatch
    ) -> tuple[dict[str, float], StepInput]:
        """Run one optimizer step. Returns its metrics over all ranks, and the input of the next step, from `works`.

        Needs one all-reduce and one read from the device in addition to those of the gradient. Losses are divided by
        counts over all ranks, so a step's all-reduce includes the counts of the next step.

        Raises `NotFiniteError`, and `ValueError` after the last step.
        """
        if now.work is None:
            raise ValueError("train_step after the last step")
        self.engine.train_mode(True)
        batches, last = now.work.batches, len(now.work.batches) - 1
        sums, margins = self._no_sums(), []
        for index, batch in enumerate(batches):
            batch = self.reference(batch.to(self.engine.device))
            result = self._loss(batch, now.counts_L)
            self.engine.backward(result.loss)
            sums += result.sums
            margins.append(result.margins_R)
            if index < last:
                self.engine.step()
        found, following = self._reduced(sums, next(works, None), watch, now.look)
        check_loss(self.engine, self.objective.not_finite(found.sums), step, batches, margins)
        checked_step(self.engine, step, batches)
        metrics = self.objective.metrics(found.sums)
        return {**metrics, "grad_norm": self.engine.grad_norm, "peak_memory_gib": found.peak_memory_gib}, following

    def evaluate(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Compute held-out metrics, `eval/...`. Every rank needs the same number of batches; all return the total."""
        self.engine.train_mode(False)
        sums, no_weight = self._no_sums(), torch.ones(3, dtype=torch.float64)
        with torch.no_grad():
            for batch in batches:
                batch = self.reference(batch.to(self.engine.device))
                sums += self._loss(batch, no_weight).sums
        metrics = self.objective.metrics(self.engine.sum_over_ranks(self._once(sums)))
        return {f"eval/{name}": value for name, value in metrics.items()}

    def counts_of_all_ranks(self, counts: Counter[str]) -> dict[str, int]:
        """Sum the counts of groups left out or truncated, by reason, over ranks. Every rank must call it."""
        mine = torch.tensor([counts[reason] for reason in REASONS])
        return dict(zip(REASONS, self.engine.sum_over_ranks(self._once(mine)).tolist(), strict=True))

    def _loss(self, batch: Batch, counts_L: torch.Tensor) -> Result:
        return self.objective(self.engine(batch), batch, counts_L)

    def _reduced(
        self, sums: torch.Tensor, work: Work | None, watch: StopWatch, look: bool
    ) -> tuple[StepSums, StepInput]:
        """All-reduce the sums of this step and the counts, cost and requests of the next one, as one tensor.

        Values that are not sums have one slot per rank (peak memory) or per kind (requests).
        """
        ranks = self.engine.world_size
        peaks = [0.0] * ranks
        peaks[self.engine.rank] = peak_memory_gib(self.engine.device)
        counts_L = torch.zeros(len(LEVEL_FAMILIES), dtype=torch.float64)
        cost = StepCost(0, 0, 0, 0)
        if work is not None and self.engine.leads:
            counts_L = torch.stack([batch.relations.counts() for batch in work.batches]).sum(0)
            cost = StepCost.of(work.batches, work.groups, self.flops)
        requests = [0.0] * len(StopRequest)
        requests[watch.asked(look)] = 1.0
        due = float(self.engine.rank == 0 and watch.is_due())
        numbers = torch.tensor([*peaks, *astuple(cost), *requests, due], dtype=torch.float64)
        together = torch.cat([self._once(sums), torch.cat([counts_L, numbers]).to(sums.device, non_blocking=True)])
        values = iter(self.engine.sum_over_ranks(together).tolist())

        def taken(number: int) -> list[float]:
            return list(islice(values, number))

        found_sums, counts = taken(len(sums)), taken(len(counts_L))
        found = StepSums(torch.tensor(found_sums, dtype=torch.float64), max(taken(ranks)))
        return found, StepInput(
            work=work,
            counts_L=torch.tensor(counts, dtype=torch.float64),
            cost=StepCost(*taken(len(astuple(cost)))),
            request=max(kind for kind, number in zip(StopRequest, taken(len(requests)), strict=True) if number),
            look=bool(next(values)),
        )

    def _once(self, values: torch.Tensor) -> torch.Tensor:
        """The values if this rank adds to sums over ranks; zeros if another rank adds them for the same groups."""
        return values if self.engine.leads else torch.zeros_like(values)

    def _no_sums(self) -> torch.Tensor:
        return torch.zeros(self.objective.num_sums, dtype=torch.float64, device=self.engine.device)


Report = Callable[[dict[str, float]], None]


Kind = Literal["none", "scored", "frozen", "adapter"]
Fill = Callable[[Batch], Batch]


def reference_kind(config: TrainConfig, method: Method, tables: list[GroupTable]) -> Kind:
    """Resolve `train.reference`. `auto` is the cheapest one that is available.

    Scores cost nothing, an adapter one more forward pass, a frozen copy also memory. Scores are computed with
    unquantized weights, so a policy with 4-bit weights would not start equal to its reference; `auto` uses the adapter
    for it. Raises `UserError` if `scored` is set and a group has no ref_logps.
    """
    if method == "rm":
        return "none"
    unscored = [table.directory for table in tables if not table.has_ref_logps]
    if config.reference == "scored" and unscored:
        raise UserError(
            f"{unscored[0]}: no ref_logps, which train.reference=scored needs. Run `mapl score` with "
            "scoring.ref_logps=true, or set train.reference=frozen (adapter with train.lora)."
        )
    if config.reference != "auto":
        return config.reference
    if not unscored and (config.lora is None or config.lora.quantize is None):
        return "scored"
    return "frozen" if config.lora is None else "adapter"


def switched_off_reference(engine: Engine, wrapped: Any, zero_stage: int) -> Fill:
    """Create a reference that runs the policy's engine with its adapter disabled, without dropout."""
    begun = False

    def fill(batch: Batch) -> Batch:
        nonlocal begun
        training = engine.module.training
        engine.train_mode(False)
        with torch.no_grad(), switched_off(wrapped, same_modules=zero_stage == 3):
            ref_logps_S = engine(batch)
        engine.train_mode(training)
        if zero_stage == 3 and not begun:
            # ZeRO-3 recorded a pass without a backward pass, whose module order differs from a training step's.
            engine.forget_module_order()
            begun = True
        return replace(batch, ref_logps_S=ref_logps_S)

    return fill


def frozen_reference(forward: Callable[[Batch], torch.Tensor]) -> Fill:
    """Create a reference that runs a separate frozen model."""

    def fill(batch: Batch) -> Batch:
        with torch.no_grad():
            return replace(batch, ref_logps_S=forward(batch))

    return fill


_NAMED = 16  # groups in a message


class NotFiniteError(RunError):
    """A loss or gradient that is not finite. All ranks raise it in the same step, before the weights change."""


def check_loss(
    engine: Engine, levels: Sequence[str], step: int, batches: Sequence[Batch], margins: Sequence[torch.Tensor]
) -> None:
    """Raise `NotFiniteError` on every rank if the sums of a step over ranks are not finite.

    Args:
        levels: levels whose sums are not finite, the same on all ranks.
        step: number of steps before this one.
        margins: margins of each batch of this rank.
    """
    if not levels:
        return
    mine = [b for b, m in zip(batches, margins, strict=True) if not torch.isfinite(m).all()]
    raise NotFiniteError(
        f"step {step + 1}: the loss is not finite at level {', '.join(levels)}; the weights were not changed. "
        f"Groups of the affected micro-batches: {_groups(engine, mine)}. "
        "Lower train.learning_rate, or check these groups' ref_logps."
    )


def checked_step(engine: Engine, step: int, batches: Sequence[Batch]) -> None:
    """Run `Engine.step` after the last micro-batch. Raises `NotFiniteError` on every rank for such a gradient."""
    try:
        engine.step()
    except NonFiniteGradientError:
        counts_L = engine.sum_over_ranks(torch.stack([b.relations.counts() for b in batches]).sum(0))
        levels = [level for level, count in zip(LEVEL_FAMILIES, counts_L.tolist(), strict=True) if count]
        raise NotFiniteError(
            f"step {step + 1}: the loss is finite and its gradient is not (levels in this step: {', '.join(levels)}); "
            f"the weights were not changed. Groups of this step: {_groups(engine, batches)}. "
            "Lower train.learning_rate, or check the weights and these groups."
        ) from None


def _groups(engine: Engine, batches: Sequence[Batch]) -> str:
    """Format the pair ids of all ranks. Every rank must call it."""
    ranks = engine.gather([pair_id for batch in batches for pair_id in batch.pair_ids])
    ids = list(dict.fromkeys(pair_id for rank in ranks for pair_id in rank))
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{', '.join(ids[:_NAMED])}{more}"
