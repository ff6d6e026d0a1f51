"""The relations of a batch as tensors. Dimensions: R relations, S sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mapl_ray.data.records import LEVEL_FAMILIES, Level, Relation


@dataclass(frozen=True, slots=True, eq=False)
class RelationBatch:
    """Signed sums over the batch's sequences (docs/method.md, "One form for every loss")."""

    signs_RS: torch.Tensor  # float32: +1 preferred, -1 dispreferred, 0 not part of the relation
    level_R: torch.Tensor  # int64: index into records.LEVEL_FAMILIES
    margin_R: torch.Tensor | None = None  # float32: margins from the data, 0 if missing; None: no relation has one

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> RelationBatch:
        """Apply `change` to every tensor, for example a move to a device."""
        margin_R = None if self.margin_R is None else change(self.margin_R)
        return RelationBatch(change(self.signs_RS), change(self.level_R), margin_R)

    def counts(self) -> torch.Tensor:
        """Relations per level family, float64 [3]."""
        return torch.bincount(self.level_R, minlength=len(LEVEL_FAMILIES)).double()


def relation_batch(relations: Sequence[tuple[int, Relation, float | None]], num_sequences: int) -> RelationBatch:
    """Build the tensors from tuples: the index of the group's first sequence in the batch, the relation, the group's
    margin."""
    signs_RS = torch.zeros(len(relations), num_sequences)
    levels, margins = [], []
    for row, (offset, relation, margin) in enumerate(relations):
        for sequence in relation.preferred:
            signs_RS[row, offset + sequence] += 1.0
        for sequence in relation.dispreferred:
            signs_RS[row, offset + sequence] -= 1.0
        levels.append(LEVEL_FAMILIES.index(relation.level.family))
        # A margin compares chosen with rejected under one prompt, so it does not apply to intra and inter relations.
        margins.append(margin or 0.0 if relation.level is Level.PREF else 0.0)
    return RelationBatch(signs_RS, torch.tensor(levels, dtype=torch.int64), torch.tensor(margins))
