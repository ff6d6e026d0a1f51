"""One optimizer step and one evaluation, over the same forward pass and loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mapl_ray.batches import Batch, EncodedGroup, collate, without_relations
from mapl_ray.config import Method, TrainConfig
from mapl_ray.errors import RunError
from mapl_ray.models.tree_attention import FLEX_BLOCK
from mapl_ray.objective import LossOutput, dpo_rewards, level_sums, metrics_of, relation_loss
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.finite import check_loss, checked_step
from mapl_ray.training.group_table import GroupTable, encode_all
from mapl_ray.training.plan import deal


@dataclass(slots=True)
class Work:
    """Micro-batches of one rank, and what was left out of them."""

    batches: list[Batch]
    too_long: int


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything a step needs."""

    engine: Engine
    config: TrainConfig
    method: Method
    tokenizer: Any
    reference: Callable[[Batch], Batch] = lambda batch: batch  # fills `ref_logps_S` where the data has none

    def work(self, table: GroupTable, micro_batches: list[list[int]], filler: int) -> Work:
        """Encode and collate; empty micro-batches take the filler group, without its relations."""
        found = [
            encode_all(table, indices, self.tokenizer, self.config.max_sequence_tokens) for indices in micro_batches
        ]
        batches = [self._collate(groups or [self._filler(table, filler)]) for groups, _ in found]
        return Work(batches, sum(len(rejected) for _, rejected in found))

    def train_step(self, batches: list[Batch], step: int) -> tuple[dict[str, float], int]:
        """Metrics and number of tokens (all ranks) of one optimizer step.

        Raises `RunError` for a loss or gradient that is not finite, before the weights change, on all ranks alike.
        """
        self.engine.train_mode(True)
        counts_L = torch.stack([batch.relations.counts() for batch in batches]).sum(0)
        counts_L = self.engine.sum_over_ranks(counts_L)
        sums_LM, tokens, last = self._no_sums(), 0, len(batches) - 1
        margins: list[torch.Tensor] = []
        for index, batch in enumerate(batches):
            batch = self.reference(batch.to(self.engine.device))
            out = self._loss(batch, counts_L)
            self.engine.backward(out.loss)
            sums_LM += level_sums(out.margins_R, batch.relations)
            margins.append(out.margins_R)
            tokens += batch.num_tokens
            if index == last:
                sums_LM = self.engine.sum_over_ranks(sums_LM)
                check_loss(self.engine, sums_LM, step, batches, margins)
                checked_step(self.engine, step, batches)
            else:
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
                batch = self.reference(batch.to(self.engine.device))
                sums_LM += level_sums(self._loss(batch, no_weight).margins_R, batch.relations)
        metrics = metrics_of(self.engine.sum_over_ranks(sums_LM), self.config.weights)
        return {f"eval/{name}": value for name, value in metrics.items()}

    def _loss(self, batch: Batch, counts_L: torch.Tensor) -> LossOutput:
        rewards_S = self.engine(batch)
        if self.method == "dpo":
            assert batch.ref_logps_S is not None  # GroupTable refuses data without them
            rewards_S = dpo_rewards(rewards_S, batch.ref_logps_S, self.config.beta)
        return relation_loss(rewards_S, batch.relations, self.config.weights, counts_L)

    def _collate(self, groups: list[EncodedGroup]) -> Batch:
        multiple = FLEX_BLOCK if self.engine.device.type == "cuda" else 1
        return collate(groups, self.config.batching, self.tokenizer.pad_token_id, multiple)

    def _filler(self, table: GroupTable, index: int) -> EncodedGroup:
        limit = self.config.max_sequence_tokens
        for candidate in (index, *range(len(table))):
            groups, _ = encode_all(table, [candidate], self.tokenizer, limit)
            if groups:
                return without_relations(groups[0])
        raise RunError(f"{table.directory}: every group is longer than train.max_sequence_tokens={limit}.")

    def _no_sums(self) -> torch.Tensor:
        return torch.zeros(3, 4, dtype=torch.float64, device=self.engine.device)


Report = Callable[[dict[str, float]], None]
