"""The objective: loss and metrics of a batch from rewards, with the options of a method (docs/method.md).

The loss is the same for all levels and both methods. Metrics are sums that add up over micro-batches and ranks.
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

    Both inputs are summed over response tokens, in nats. Z(x) depends only on the prompt, so it cancels exactly in pref
    relations and in each gap of inter relations. In intra relations the prompts differ and it does not cancel; it is
    dropped there, as in Rc-DPO (Cai et al. 2025).

    With `lengths_S` (response tokens, [S]) rewards are divided by the lengths: length-normalized DPO (Lambert et al.
    2024, Tulu 3, which trains with beta = 5). Z(x) does not cancel then.
    """
    rewards_S = beta * (logps_S - ref_logps_S)
    return rewards_S if lengths_S is None else rewards_S / lengths_S


def relation_terms(
    margins_R: torch.Tensor, relations: RelationBatch, options: ObjectiveConfig, beta: float
) -> torch.Tensor:
    """Loss of every relation, [R], from its margin m (signed sum of rewards).

    * logistic: -log sigma(m) (Bradley-Terry; DPO: Rafailov et al. 2023, equation 7).
    * pref relations with a margin d in the data: -log sigma(m - d) (Llama 2, Touvron et al. 2023, equation 2; for DPO,
      d is the offset of ODPO, Amini et al. 2024). d is `margin_scale` times the column `margin`.
    * label smoothing e: -(1 - e) log sigma(m - d) - e log sigma(d - m), the cross-entropy if a fraction e of labels is
      wrong (Mitchell 2023, conservative DPO).
    * ipo: (m / beta - 1 / (2 beta))^2 (Azar et al. 2023, equation 17, with tau = beta; m / beta is the paper's h, which
      does not depend on beta). Derived for pref relations; intra and inter relations use the same target.
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
    """Values of the chosen and the rejected sequence of every pref relation, [R] each; 0 at other levels."""
    signs_RS = torch.where((relations.level_R == PREF)[:, None], relations.signs_RS, 0.0).to(values_S)
    return signs_RS.clamp(min=0.0) @ values_S, (-signs_RS).clamp(min=0.0) @ values_S


def centering_terms(rewards_S: torch.Tensor, relations: RelationBatch) -> torch.Tensor:
    """(r(x, y_w) + r(x, y_l))^2 of every pref relation, [R], 0 at other levels (Eisenstein et al. 2023).

    Bradley-Terry determines rewards only up to a constant per prompt; this term pulls the constant to 0.
    """
    chosen_R, rejected_R = chosen_and_rejected(rewards_S, relations)
    return (chosen_R + rejected_R) ** 2


def nll_terms(mean_logps_S: torch.Tensor, relations: RelationBatch) -> torch.Tensor:
    """-log pi(y_w|x) / |y_w| of every pref relation, [R], 0 at other levels (Pang et al. 2024, the term L_NLL).

    x is the original prompt, as pref relations compare its two responses. `mean_logps_S` are in nats per token.
    """
    return -chosen_and_rejected(mean_logps_S, relations)[0]


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    """The loss and the margins it is computed from."""

    loss: torch.Tensor  # scalar
    margins_R: torch.Tensor  # sum of r over preferred minus sum over dispreferred sequences


def relation_loss(
    rewards_S: torch.Tensor,
    relations: RelationBatch,
    weights: LevelWeights,
    counts_L: torch.Tensor | None = None,
    options: ObjectiveConfig = PLAIN,
    beta: float = 1.0,
    mean_logps_S: torch.Tensor | None = None,
) -> LossOutput:
    """Sum over levels of weight * sum(-log sigma(margin)) / count (docs/method.md), or a variant of it.

    L_pref is the Bradley-Terry loss (or DPO's, Rafailov et al. 2023, equation 7), L_intra the Rc-BT loss (Cai et al.
    2025), L_inter the gap of gaps. `relation_terms` has the variants. The additional terms (NLL, centering) are means
    over pref relations.

    Args:
        rewards_S: r(x, y) of every sequence, any float dtype; converted to float32.
        counts_L: relations per level family in the whole optimizer step, over all ranks and micro-batches, so that
            the sum of all ranks' losses does not depend on how the step was split. None: the step is this batch.
        beta: beta of DPO, for `loss=ipo`.
        mean_logps_S: log-probabilities per token of every response, in nats, for `nll_weight`.

    Raises `ValueError` if `nll_weight` is set and `mean_logps_S` is None.
    """
    rewards_S = rewards_S.float()
    margins_R = relations.signs_RS.to(rewards_S) @ rewards_S
    # Without `non_blocking`, the copy would wait for all work that is queued on the GPU.
    device = rewards_S.device
    weights_L = torch.tensor([weights.of(level) for level in LEVEL_FAMILIES]).to(device, non_blocking=True)
    counts_L = (relations.counts() if counts_L is None else counts_L).to(device, weights_L.dtype, non_blocking=True)
    # Avoid 0/0 for levels that do not occur in the step.
    scale_L = torch.where(counts_L > 0, weights_L / counts_L.clamp(min=1.0), 0.0)
    losses_R = relation_terms(margins_R, relations, options, beta)
    # The zero product keeps the graph if there are no relations: ZeRO's backward hooks must run on every rank.
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
    # `index_add` is not deterministic on a GPU, and a matrix product would spread NaN and infinity to all levels.
    return torch.where(of_level_RL[:, :, None], measures_RM[:, None, :], 0.0).sum(0)


def metrics_of(sums_LM: torch.Tensor, weights: LevelWeights) -> dict[str, float]:
    """Compute `loss`, and for every level that occurs `loss/LEVEL`, `rewards/accuracies/LEVEL` and
    `rewards/margins/LEVEL`."""
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
    """The loss of a batch, its margins, and the sums that its metrics are computed from."""

    loss: torch.Tensor  # scalar
    margins_R: torch.Tensor  # signed sums of rewards
    sums: torch.Tensor  # float64 [num_sums]; additive over micro-batches and ranks


@dataclass(frozen=True, slots=True)
class Objective:
    """The training objective of one method: `relation_loss` of its rewards."""

    method: Method
    weights: LevelWeights
    beta: float
    options: ObjectiveConfig

    @classmethod
    def of(cls, config: TrainConfig, method: Method) -> Self:
        """Build the objective from a config. Raises `UserError` for options that the method does not support."""
        if (reason := config.objective.refusal(method)) is not None:
            raise UserError(f"train.objective: {reason}.")
        return cls(method, config.weights, config.beta, config.objective)

    def __call__(self, outputs_S: torch.Tensor, batch: Batch, counts_L: torch.Tensor | None = None) -> Result:
        """Compute loss and metric sums of a batch; `counts_L` as in `relation_loss`.

        Args:
            outputs_S: rewards for `rm`; log-probabilities summed over response tokens, in nats, for `dpo`.

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
        """Group `sums` by level family, [L, 5]: `level_sums`, and for pref the total of its other measures."""
        levels_LM = sums[:_LEVEL_SUMS].view(len(LEVEL_FAMILIES), -1)
        others_L = sums.new_zeros(len(LEVEL_FAMILIES))
        others_L[PREF] = sums[_LEVEL_SUMS:].sum()
        return torch.cat([levels_LM, others_L[:, None]], dim=1)

    def not_finite(self, sums: torch.Tensor) -> list[str]:
        """Level families for which any of `sums` is NaN or infinite."""
        finite_L = torch.isfinite(self.by_level(sums)).all(dim=1)
        return [level for level, finite in zip(LEVEL_FAMILIES, finite_L.tolist(), strict=True) if not finite]

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Compute metrics from sums: means by level (`metrics_of`), and over pref relations the means of rewards and
        logps of chosen and rejected and of the additional terms."""
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
