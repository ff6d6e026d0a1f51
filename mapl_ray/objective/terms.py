"""The terms of the loss, one value per relation. Dimensions: R relations, S sequences."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from mapl_ray.batches import RelationBatch
from mapl_ray.config import ObjectiveConfig
from mapl_ray.records import LEVEL_FAMILIES

PREF = LEVEL_FAMILIES.index("pref")


def relation_terms(
    margins_R: torch.Tensor, relations: RelationBatch, options: ObjectiveConfig, beta: float
) -> torch.Tensor:
    """The loss of every relation, [R], from its signed sum of rewards m.

    * logistic: -log sigma(m) (Bradley-Terry; DPO: Rafailov et al. 2023, equation 7).
    * with a margin d of the data, pref relations: -log sigma(m - d) (Llama 2, Touvron et al. 2023, equation 2; for DPO
      it is the offset of Amini et al. 2024, ODPO). d is `margin_scale` times the column.
    * with label smoothing e: -(1 - e) log sigma(m - d) - e log sigma(d - m), the cross-entropy against labels of which
      a share e is wrong (Mitchell 2023, conservative DPO).
    * ipo: (m / beta - 1 / (2 beta))^2 (Azar et al. 2023, equation 17, with tau = beta; m / beta is its h, free of
      beta). Its derivation is for pref relations; intra and inter ones are drawn to the same distance.
    """
    if options.loss == "ipo":
        return ((margins_R - 0.5) / beta) ** 2
    if options.margin_scale and relations.margin_R is not None:
        margins_R = margins_R - options.margin_scale * relations.margin_R.to(margins_R)
    losses_R = -logsigmoid(margins_R)
    if options.label_smoothing:
        smoothed = [options.label_smoothing * (level in options.label_smoothing_levels) for level in LEVEL_FAMILIES]
        wrong_R = losses_R.new_tensor(smoothed)[relations.level_R]
        losses_R = (1.0 - wrong_R) * losses_R - wrong_R * logsigmoid(-margins_R)
    return losses_R


def chosen_and_rejected(values_S: torch.Tensor, relations: RelationBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of the preferred and of the dispreferred sequences of every pref relation, [R] each; 0 at other levels."""
    signs_RS = torch.where((relations.level_R == PREF)[:, None], relations.signs_RS, 0.0).to(values_S)
    return signs_RS.clamp(min=0.0) @ values_S, (-signs_RS).clamp(min=0.0) @ values_S


def centering_terms(rewards_S: torch.Tensor, relations: RelationBatch) -> torch.Tensor:
    """(r(x, y_w) + r(x, y_l))^2 of every pref relation, [R], 0 at other levels (Eisenstein et al. 2023).

    Bradley-Terry leaves a constant a prompt open; this draws it to 0.
    """
    chosen_R, rejected_R = chosen_and_rejected(rewards_S, relations)
    return (chosen_R + rejected_R) ** 2


def nll_terms(mean_logps_S: torch.Tensor, relations: RelationBatch) -> torch.Tensor:
    """-log pi(y_w|x) / |y_w| of every pref relation, [R], 0 at other levels (Pang et al. 2024, the term L_NLL).

    x is the original prompt: pref relations are between its two responses. `mean_logps_S` in nats per token.
    """
    return -chosen_and_rejected(mean_logps_S, relations)[0]
