"""One loss for every level and both methods. Dimensions: R relations, S sequences, L level families."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mapl_ray.batches import RelationBatch
from mapl_ray.config import LevelWeights, ObjectiveConfig
from mapl_ray.objective.terms import PREF, centering_terms, nll_terms, relation_terms
from mapl_ray.records import LEVEL_FAMILIES

PLAIN = ObjectiveConfig()


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    """The loss, and the signed sums it is made from."""

    loss: torch.Tensor  # scalar
    margins_R: torch.Tensor  # sum of r over preferred minus sum over dispreferred


def relation_loss(
    rewards_S: torch.Tensor,
    relations: RelationBatch,
    weights: LevelWeights,
    counts_L: torch.Tensor | None = None,
    options: ObjectiveConfig = PLAIN,
    beta: float = 1.0,
    mean_logps_S: torch.Tensor | None = None,
) -> LossOutput:
    """sum over levels of weight * sum(-log sigma(margin)) / count (docs/method.md), or a variant of it.

    L_pref is Bradley-Terry (or DPO's loss, Rafailov et al. 2023, equation 7), L_intra is Rc-BT's (Cai et al. 2025),
    L_inter the gap of gaps. The variants are in `terms`; the terms beside the relations' own (NLL, centring) are means
    over the pref relations.

    Args:
        rewards_S: r(x, y) of every sequence, any float dtype; computed on in float32.
        counts_L: relations per level family in the whole optimizer step, over all ranks and micro-batches, so that
            the sum of all ranks' losses does not depend on how the step was cut. None: this batch is the step.
        beta: of DPO, for `loss=ipo`.
        mean_logps_S: log-probabilities per token of every response, in nats, for `nll_weight`.

    Raises `ValueError` where `nll_weight` is set and there are no log-probabilities.
    """
    rewards_S = rewards_S.float()
    margins_R = relations.signs_RS.to(rewards_S) @ rewards_S
    weights_L = torch.tensor([weights.of(level) for level in LEVEL_FAMILIES], device=rewards_S.device)
    counts_L = (relations.counts() if counts_L is None else counts_L).to(weights_L)
    # A level that does not occur in the step has weight 0, not 0/0.
    scale_L = torch.where(counts_L > 0, weights_L / counts_L.clamp(min=1.0), 0.0)
    losses_R = relation_terms(margins_R, relations, options, beta)
    # Without relations the product keeps the graph: ZeRO's backward hooks must run on every rank.
    loss = (losses_R * scale_L[relations.level_R]).sum() + 0.0 * rewards_S.sum()
    if options.center_rewards_coefficient:
        loss = loss + options.center_rewards_coefficient * scale_L[PREF] * centering_terms(rewards_S, relations).sum()
    if options.nll_weight:
        if mean_logps_S is None:
            raise ValueError("nll_weight needs log-probabilities per token")
        loss = loss + options.nll_weight * scale_L[PREF] * nll_terms(mean_logps_S.float(), relations).sum()
    return LossOutput(loss, margins_R.detach())
