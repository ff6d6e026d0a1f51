"""Invariance: what happens to the rewards when the instructions are in another order, or in other words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.columns import GroupColumns, relation_margins
from mapl_ray.evaluation.items import FloatArray, IntArray


class Invariance(TypedDict):
    """One model on one kind of variant, over the groups that have one. By level: `intra` and `inter`.

    A decision is whether a relation's signed sum is above 0. `reward_change` is the mean of |r of the variant - r|
    over (instructed prompt, response); `reward_deviation` the standard deviation of those r, which gives it a scale.
    """

    groups: int
    flips: dict[str, Estimate]  # share of the relations whose decision is another
    accuracy: dict[str, Estimate]  # of the variant
    accuracy_before: dict[str, Estimate]  # of the same relations as they were
    reward_change: float
    reward_deviation: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoredVariant:
    """One kind of variant of some groups, with every model's rewards."""

    columns: GroupColumns
    of_G: IntArray  # index of the group that each is a form of, rising
    rewards: Mapping[str, FloatArray]  # model -> [S] of the variant


def invariance(
    columns: GroupColumns,
    rewards_S: FloatArray,
    margins_R: FloatArray,
    variants: Mapping[str, ScoredVariant],
    model: str,
    samples: int,
    seed: int,
) -> dict[str, Invariance]:
    """Measure `model` on every kind of variant; rewards and margins are its own of the groups themselves."""
    return {
        kind: _measure(columns, rewards_S, margins_R, scored, model, samples, seed) for kind, scored in variants.items()
    }


def _measure(
    columns: GroupColumns,
    rewards_S: FloatArray,
    margins_R: FloatArray,
    scored: ScoredVariant,
    model: str,
    samples: int,
    seed: int,
) -> Invariance:
    has_one_G = np.zeros(len(columns), dtype=np.bool_)
    has_one_G[scored.of_G] = True
    items, others_S = scored.columns.items, scored.rewards[model]
    before_R = margins_R[has_one_G[columns.items.group_R]] > 0.0
    after_R = relation_margins(scored.columns, others_S, model) > 0.0
    found: dict[str, dict[str, Estimate]] = {"flips": {}, "accuracy": {}, "accuracy_before": {}}
    measures = {"flips": before_R != after_R, "accuracy": after_R, "accuracy_before": before_R}
    for level in ("intra", "inter"):
        mask_R = items.of_family(level)
        for name, values_R in measures.items():
            value = estimate(values_R[mask_R].astype(np.float64), items.prompt_R[mask_R], samples, seed)
            if value is not None:
                found[name][level] = value
    before_N = rewards_S[has_one_G[columns.group_S] & ~columns.original_S]
    after_N = others_S[~scored.columns.original_S]
    return Invariance(
        groups=len(scored.columns),
        flips=found["flips"],
        accuracy=found["accuracy"],
        accuracy_before=found["accuracy_before"],
        reward_change=float(np.abs(after_N - before_N).mean()),
        reward_deviation=float(before_N.std()),
    )
