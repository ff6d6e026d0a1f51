"""Metrics as sums that add up over micro-batches and ranks. Dimensions: R relations, L level families, M measures."""

from __future__ import annotations

import torch

from mapl_ray.batches import RelationBatch
from mapl_ray.config import LevelWeights, ObjectiveConfig
from mapl_ray.objective.relation_loss import PLAIN
from mapl_ray.objective.terms import relation_terms
from mapl_ray.records import LEVEL_FAMILIES

_MEASURES = ("loss", "rewards/accuracies", "rewards/margins")


def level_sums(
    margins_R: torch.Tensor, relations: RelationBatch, options: ObjectiveConfig = PLAIN, beta: float = 1.0
) -> torch.Tensor:
    """Sums per level family, float64 [L, 4]: loss, correct (margin > 0), margin, count."""
    margins_R = margins_R.double()
    losses_R = relation_terms(margins_R, relations, options, beta)
    measures_RM = torch.stack([losses_R, (margins_R > 0).double(), margins_R, torch.ones_like(margins_R)], dim=1)
    of_level_RL = relations.level_R[:, None] == torch.arange(len(LEVEL_FAMILIES), device=margins_R.device)
    # `index_add` sums in any order on a GPU; a product would spread what is not finite over all levels.
    return torch.where(of_level_RL[:, :, None], measures_RM[:, None, :], 0.0).sum(0)


def metrics_of(sums_LM: torch.Tensor, weights: LevelWeights) -> dict[str, float]:
    """`loss`, and `loss/LEVEL`, `rewards/accuracies/LEVEL`, `rewards/margins/LEVEL` of every level that occurs."""
    metrics = {"loss": 0.0}
    for level, sums_M in zip(LEVEL_FAMILIES, sums_LM.tolist(), strict=True):
        *sums, count = sums_M
        if count == 0:
            continue
        for name, value in zip(_MEASURES, sums, strict=True):
            metrics[f"{name}/{level}"] = value / count
        metrics["loss"] += weights.of(level) * metrics[f"loss/{level}"]
    return metrics
