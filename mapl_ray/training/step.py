"""One optimizer step and one evaluation, over the same forward pass and loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mapl_ray.batches import Batch, EncodedGroup, collate, without_relations
from mapl_ray.config import Method, TrainConfig
from mapl_ray.errors import RunError
from mapl_ray.models.tree_attention import FLEX_BLOCK, row_budget
from mapl_ray.objective import LossOutput, dpo_rewards, level_sums, metrics_of, relation_loss
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.group_table import REASONS, GroupTable, encode_all
from mapl_ray.training.plan import deal


@dataclass(slots=True)
class Work:
    """Micro-batches of one rank, and what was left out of them."""

    batches: list[Batch]
    counts: Counter[str]  # groups left out or cut, by reason (`group_table.REASONS`)


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything a step needs."""

    engine: Engine
    config: TrainConfig
    method: Method
    tokenizer: Any

    def work(self, table: GroupTable, micro_batches: list[list[int]], filler: int) -> Work:
        """Encode and collate; empty micro-batches take the filler group, without its relations."""
        found = [encode_all(table, indices, self.tokenizer, self.config) for indices in micro_batches]
        batches = [self._collate(encoded.groups or [self._filler(table, filler)]) for encoded in found]
        return Work(batches, sum((encoded.counts for encoded in found), Counter()))

    def train_step(self, batches: list[Batch], step: int) -> tuple[dict[str, float], int]:
        """Metrics and number of tokens (all ranks) of one optimizer step.

        Raises `RunError` for a loss that is not finite, before the weights change, on all ranks alike.
        """
        self.engine.train_mode(True)
        counts_L = torch.stack([batch.relations.counts() for batch in batches]).sum(0)
        counts_L = self.engine.sum_over_ranks(counts_L)
        sums_LM, tokens, last = self._no_sums(), 0, len(batches) - 1
        for index, batch in enumerate(batches):
            batch = batch.to(self.engine.device)
            out = self._loss(batch, counts_L)
            self.engine.backward(out.loss)
            sums_LM += level_sums(out.margins_R, batch.relations)
            tokens += batch.num_tokens
            if index == last:
                sums_LM = self.engine.sum_over_ranks(sums_LM)
                self._check_finite(sums_LM, step, batches)
            self.engine.step()
        return {
            **metrics_of(sums_LM, self.config.weights),
            "grad_norm": self.engine.grad_norm,
        }, int(self.engine.sum_over_ranks(torch.tensor(tokens)).item())

    def evaluate(self, table: GroupTable) -> dict[str, float]:
        """Held-out metrics, `eval/...`; every rank computes its share and returns the whole."""
        self.engine.train_mode(False)
        rank, world_size = self.engine.rank, self.engine.world_size
        per_rank = -(-len(table) // (world_size * self.config.micro_batch_size))
        mine = deal(list(range(len(table))), per_rank * world_size)[rank::world_size]
        sums_LM, no_weight = self._no_sums(), torch.ones(3, dtype=torch.float64)
        with torch.no_grad():
            for indices in mine:
                (batch,) = self.work(table, [indices], filler=0).batches
                batch = batch.to(self.engine.device)
                sums_LM += level_sums(self._loss(batch, no_weight).margins_R, batch.relations)
        metrics = metrics_of(self.engine.sum_over_ranks(sums_LM), self.config.weights)
        return {f"eval/{name}": value for name, value in metrics.items()}

    def counts_of_all_ranks(self, counts: Counter[str]) -> dict[str, int]:
        """Groups left out or cut, by reason; every rank must call it."""
        mine = torch.tensor([counts[reason] for reason in REASONS])
        return dict(zip(REASONS, self.engine.sum_over_ranks(mine).tolist(), strict=True))

    def _loss(self, batch: Batch, counts_L: torch.Tensor) -> LossOutput:
        rewards_S = self.engine(batch)
        if self.method == "dpo":
            assert batch.ref_logps_S is not None  # GroupTable refuses data without them
            rewards_S = dpo_rewards(rewards_S, batch.ref_logps_S, self.config.beta)
        return relation_loss(rewards_S, batch.relations, self.config.weights, counts_L)

    def _collate(self, groups: list[EncodedGroup]) -> Batch:
        multiple = FLEX_BLOCK if self.engine.device.type == "cuda" else 1
        row_tokens = self.config.row_tokens or row_budget(self.engine.module.model)
        return collate(groups, self.config.batching, self.tokenizer.pad_token_id, multiple, row_tokens)

    def _filler(self, table: GroupTable, index: int) -> EncodedGroup:
        for candidate in (index, *range(len(table))):
            if groups := encode_all(table, [candidate], self.tokenizer, self.config).groups:
                return without_relations(groups[0])
        limit = self.config.max_sequence_tokens
        raise RunError(f"{table.directory}: every group is longer than train.max_sequence_tokens={limit}.")

    def _no_sums(self) -> torch.Tensor:
        return torch.zeros(3, 4, dtype=torch.float64, device=self.engine.device)

    def _check_finite(self, sums_LM: torch.Tensor, step: int, batches: list[Batch]) -> None:
        if torch.isfinite(sums_LM).all():
            return
        ids = ", ".join(pair_id for batch in batches for pair_id in batch.pair_ids)
        raise RunError(
            f"step {step + 1}: the loss is not finite; the weights were not changed. Pairs of this rank: {ids}. "
            "Lower train.learning_rate, or look at these pairs' ref_logps."
        )


Report = Callable[[dict[str, float]], None]
