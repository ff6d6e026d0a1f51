"""One loss for every level and both methods. Dimensions: R relations, S sequences, L level families."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from mapl_ray.batches import RelationBatch
from mapl_ray.config import LevelWeights
from mapl_ray.records import LEVEL_FAMILIES


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    """The loss, and the signed sums it is made from."""

    loss: torch.Tensor  # scalar
    margins_R: torch.Tensor  # sum of r over preferred minus sum over dispreferred


def relation_loss(
    rewards_S: torch.Tensor, relations: RelationBatch, weights: LevelWeights, counts_L: torch.Tensor | None = None
) -> LossOutput:
    """sum over levels of weight * sum(-log sigma(margin)) / count (METHOD.md, "The objectives").

    L_pref is Bradley-Terry (or DPO's loss, Rafailov et al. 2023, equation 7), L_intra is Rc-BT's (Cai et al. 2025),
    L_inter the gap of gaps.

    Args:
        rewards_S: r(x, y) of every sequence, any float dtype; computed on in float32.
        counts_L: relations a level family in the whole optimizer step, over all ranks and micro-batches, so that
            the sum of all ranks' losses does not depend on how the step was cut. None: this batch is the step.
    """
    rewards_S = rewards_S.float()
    margins_R = relations.signs_RS.to(rewards_S) @ rewards_S
    weights_L = torch.tensor([weights.of(level) for level in LEVEL_FAMILIES], device=rewards_S.device)
    counts_L = (relations.counts() if counts_L is None else counts_L).to(weights_L)
    # A level that does not occur in the step has weight 0, not 0/0.
    scale_L = torch.where(counts_L > 0, weights_L / counts_L.clamp(min=1.0), 0.0)
    losses_R = -logsigmoid(margins_R)
    # Without relations the product keeps the graph: ZeRO's backward hooks must run on every rank.
    loss = (losses_R * scale_L[relations.level_R]).sum() + 0.0 * rewards_S.sum()
    return LossOutput(loss, margins_R.detach())
