"""The objective: rewards -> terms -> loss, with a method's options, and metrics as sums (docs/method.md).

One loss for every level and both methods. Metrics are sums that add up over micro-batches and ranks.
Dimensions: S sequences, R relations, L level families, M measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch.nn.functional import logsigmoid

from mapl_ray.batches import Batch, RelationBatch
from mapl_ray.config import LevelWeights, Method, ObjectiveConfig, TrainConfig
from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.errors import UserError

PREF = LEVEL_FAMILIES.index("pref")
PLAIN = ObjectiveConfig()
_MEASURES = ("loss", "rewards/accuracies", "rewards/margins")
_LEVEL_SUMS = 4 * len(LEVEL_FAMILIES)


def dpo_rewards(
    logps_S: torch.Tensor, ref_logps_S: torch.Tensor, beta: float, lengths_S: torch.Tensor | None = None
) -> torch.Tensor:
    """r(x, y) = beta * log(pi(y|x) / pi_ref(y|x)), [S] (Rafailov et al. 2023, equation 5, without beta * log Z(x)).

    Both inputs are summed over response tokens, in nats. Z(x) depends on the prompt alone: it cancels exactly in
    pref relations and in each gap of inter relations. In intra relations the prompts differ and it does not; it is
    dropped there, as Rc-DPO does (Cai et al. 2025).

    With `lengths_S` (response tokens, [S]) it is divided by them: the rewards of length-normalised DPO (Lambert et al.
    2024, Tulu 3, which trains with beta = 5). Z(x) does not cancel then.
    """
    rewards_S = beta * (logps_S - ref_logps_S)
    return rewards_S if lengths_S is None else rewards_S / lengths_S


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
        wrong_R = torch.tensor(smoothed).to(losses_R.device, non_blocking=True)[relations.level_R]
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
    L_inter the gap of gaps. The variants are in `relation_terms`; the terms beside the relations' own (NLL, centering)
    are means over the pref relations.

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
    # Without `non_blocking` a copy to a GPU waits for all that the GPU has to do before it.
    device = rewards_S.device
    weights_L = torch.tensor([weights.of(level) for level in LEVEL_FAMILIES]).to(device, non_blocking=True)
    counts_L = (relations.counts() if counts_L is None else counts_L).to(device, weights_L.dtype, non_blocking=True)
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


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The loss of a batch, and what its metrics are made from."""

    loss: torch.Tensor  # scalar
    margins_R: torch.Tensor  # signed sums of rewards
    sums: torch.Tensor  # float64 [num_sums]; they add up over micro-batches and ranks


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised: `relation_loss` over the rewards of one method."""

    method: Method
    weights: LevelWeights
    beta: float
    options: ObjectiveConfig

    @classmethod
    def of(cls, config: TrainConfig, method: Method) -> Self:
        """Raises `UserError` for options of the other method."""
        if (reason := config.objective.refusal(method)) is not None:
            raise UserError(f"train.objective: {reason}.")
        return cls(method, config.weights, config.beta, config.objective)

    def __call__(self, outputs_S: torch.Tensor, batch: Batch, counts_L: torch.Tensor | None = None) -> Result:
        """Loss and sums of a batch; `counts_L` as in `relation_loss`.

        Args:
            outputs_S: for `rm` rewards, for `dpo` log-probabilities summed over response tokens, in nats.

        Raises `ValueError` for DPO without `ref_logps_S`.
        """
        rewards_S, mean_logps_S = outputs_S, None
        if self.method == "dpo":
            if batch.ref_logps_S is None:
                raise ValueError("DPO needs ref_logps")
            lengths_S = batch.response_lengths()
            mean_logps_S = outputs_S / lengths_S
            by_length_S = lengths_S if self.options.length_normalised else None
            rewards_S = dpo_rewards(outputs_S, batch.ref_logps_S, self.beta, by_length_S)
        out = relation_loss(rewards_S, batch.relations, self.weights, counts_L, self.options, self.beta, mean_logps_S)
        with torch.no_grad():
            levels_LM = level_sums(out.margins_R, batch.relations, self.options, self.beta)
            sums = torch.cat([levels_LM.flatten(), self._pref_sums(rewards_S, outputs_S, mean_logps_S, batch)])
        return Result(out.loss, out.margins_R, sums)

    @property
    def num_sums(self) -> int:
        """Length of `Result.sums`."""
        return _LEVEL_SUMS + len(self._pref_measures)

    def by_level(self, sums: torch.Tensor) -> torch.Tensor:
        """What `sums` holds of every level family, [L, 5]: as `level_sums`, and the sum of pref's other measures."""
        levels_LM = sums[:_LEVEL_SUMS].view(len(LEVEL_FAMILIES), -1)
        others_L = sums.new_zeros(len(LEVEL_FAMILIES))
        others_L[PREF] = sums[_LEVEL_SUMS:].sum()
        return torch.cat([levels_LM, others_L[:, None]], dim=1)

    def not_finite(self, sums: torch.Tensor) -> list[str]:
        """The level families at which any of `sums` is not finite."""
        finite_L = torch.isfinite(self.by_level(sums)).all(dim=1)
        return [level for level, finite in zip(LEVEL_FAMILIES, finite_L.tolist(), strict=True) if not finite]

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Means by level (`metrics_of`) and, over pref relations, rewards and logps of either side and other terms."""
        levels_LM = sums[:_LEVEL_SUMS].view(len(LEVEL_FAMILIES), -1)
        metrics, count = metrics_of(levels_LM, self.weights), levels_LM[PREF, -1].item()
        if count:
            values = sums[_LEVEL_SUMS:].tolist()
            metrics |= {name: value / count for name, value in zip(self._pref_measures, values, strict=True)}
        metrics["loss"] += self.options.nll_weight * metrics.get("loss/nll", 0.0)
        metrics["loss"] += self.options.center_rewards_coefficient * metrics.get("loss/centering", 0.0)
        return metrics

    @property
    def _pref_measures(self) -> tuple[str, ...]:
        names = ["rewards/chosen", "rewards/rejected"]
        if self.method == "dpo":
            names += ["logps/chosen", "logps/rejected"]
        if self.options.nll_weight:
            names.append("loss/nll")
        if self.options.center_rewards_coefficient:
            names.append("loss/centering")
        return tuple(names)

    def _pref_sums(
        self, rewards_S: torch.Tensor, outputs_S: torch.Tensor, mean_logps_S: torch.Tensor | None, batch: Batch
    ) -> torch.Tensor:
        terms = [*chosen_and_rejected(rewards_S.double(), batch.relations)]
        if self.method == "dpo":
            terms += chosen_and_rejected(outputs_S.double(), batch.relations)
        if self.options.nll_weight and mean_logps_S is not None:
            terms.append(nll_terms(mean_logps_S.double(), batch.relations))
        if self.options.center_rewards_coefficient:
            terms.append(centering_terms(rewards_S.double(), batch.relations))
        return torch.stack([term_R.sum() for term_R in terms])
