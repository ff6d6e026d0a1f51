"""Invariance: what happens to the rewards when the instructions stand in another order, or in other words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from mapl_ray.data.records import RelationGroup
from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.items import Rewards, relation_items, relation_margins
from mapl_ray.evaluation.variants import ScoredVariant


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


def invariance(
    groups: Sequence[RelationGroup],
    rewards: Rewards,
    variants: Mapping[str, ScoredVariant],
    model: str,
    samples: int,
    seed: int,
) -> dict[str, Invariance]:
    """Measure `model` on every kind of variant of `groups`; `rewards` are its rewards of the groups themselves."""
    return {
        kind: _measure(
            [groups[index] for index in scored.variant.of],
            [rewards[index] for index in scored.variant.of],
            scored.variant.groups,
            scored.rewards[model],
            model,
            samples,
            seed,
        )
        for kind, scored in variants.items()
    }


def _measure(
    groups: Sequence[RelationGroup],
    rewards: Rewards,
    others: Sequence[RelationGroup],
    other_rewards: Rewards,
    model: str,
    samples: int,
    seed: int,
) -> Invariance:
    items = relation_items(groups, {})
    before_R = relation_margins(groups, rewards, model) > 0.0
    after_R = relation_margins(others, other_rewards, model) > 0.0
    found: dict[str, dict[str, Estimate]] = {"flips": {}, "accuracy": {}, "accuracy_before": {}}
    measures = {"flips": before_R != after_R, "accuracy": after_R, "accuracy_before": before_R}
    for level in ("intra", "inter"):
        mask_R = items.of_family(level)
        for name, values_R in measures.items():
            value = estimate(values_R[mask_R].astype(np.float64), items.prompt_R[mask_R], samples, seed)
            if value is not None:
                found[name][level] = value
    cells = [
        (rewards[g][s], other_rewards[g][s])
        for g, group in enumerate(groups)
        for s, cell in enumerate(group.sequences)
        if cell.prompt != 0
    ]
    before_N, after_N = np.array(cells, dtype=np.float64).reshape(-1, 2).T
    return Invariance(
        groups=len(groups),
        flips=found["flips"],
        accuracy=found["accuracy"],
        accuracy_before=found["accuracy_before"],
        reward_change=float(np.abs(after_N - before_N).mean()),
        reward_deviation=float(before_N.std()),
    )
