"""Invariance: how rewards change when instructions are reordered or rephrased."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.columns import GroupColumns, relation_margins
from mapl_ray.evaluation.items import FloatArray, IntArray


class Invariance(TypedDict):
    """One model on one kind of variant, over the groups that have this variant. Levels are `intra` and `inter`.

    A decision is whether a relation's margin is above 0. `reward_change` is the mean of |r of the variant - r| over
    (prompt with instructions, response); `reward_deviation` is the standard deviation of r, for scale.
    """

    groups: int
    flips: dict[str, Estimate]  # share of relations whose decision changes
    accuracy: dict[str, Estimate]  # of the variant
    accuracy_before: dict[str, Estimate]  # of the same relations in the original groups
    reward_change: float
    reward_deviation: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoredVariant:
    """One kind of variant of some groups, with every model's rewards."""

    columns: GroupColumns
    of_G: IntArray  # index of the original group of each variant, ascending
    rewards: Mapping[str, FloatArray]  # model -> rewards [S] of the variants


def invariance(
    columns: GroupColumns,
    rewards_S: FloatArray,
    margins_R: FloatArray,
    variants: Mapping[str, ScoredVariant],
    model: str,
    samples: int,
    seed: int,
) -> dict[str, Invariance]:
    """Measure `model` on every kind of variant; `rewards_S` and `margins_R` are those of the original groups."""
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
