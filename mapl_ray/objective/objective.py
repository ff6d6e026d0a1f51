"""A method with its options: model outputs -> loss, and sums -> metrics. S sequences, R relations, L level families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from mapl_ray.batches import Batch
from mapl_ray.config import LevelWeights, Method, ObjectiveConfig, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.objective.metrics import level_sums, metrics_of
from mapl_ray.objective.relation_loss import relation_loss
from mapl_ray.objective.rewards import dpo_rewards
from mapl_ray.objective.terms import PREF, centering_terms, chosen_and_rejected, nll_terms
from mapl_ray.records import LEVEL_FAMILIES

_LEVEL_SUMS = 4 * len(LEVEL_FAMILIES)


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
