"""Length bias: does the reward depend on the number of words?"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.columns import GroupColumns
from mapl_ray.evaluation.items import FloatArray


class LengthBias(TypedDict):
    """Pref accuracy by which response is longer, and rank correlations with length in words.

    An unbiased model has equal accuracies. `reward_length` correlates reward and length over (original prompt,
    response). `gap_length` correlates the gap and the difference of lengths, so that prompts are not mixed.
    """

    chosen_longer: Estimate | None
    chosen_shorter: Estimate | None
    reward_length: float | None
    gap_length: float | None


def length_bias(
    columns: GroupColumns, margins_R: FloatArray, rewards_S: FloatArray, samples: int, seed: int
) -> LengthBias:
    """Measure length bias on the `pref` relations and on the sequences with the original prompt."""
    items = columns.items
    longer_R = columns.chosen_longer_G[items.group_R]
    pref_R = items.of_family("pref")
    correct_R = (margins_R > 0.0).astype(float)
    sides: list[Estimate | None] = []
    for side_R in (longer_R > 0, longer_R < 0):
        mask_R = pref_R & side_R
        sides.append(estimate(correct_R[mask_R], items.prompt_R[mask_R], samples, seed))
    words_N = columns.words_S[columns.original_S].astype(np.float64)
    return LengthBias(
        chosen_longer=sides[0],
        chosen_shorter=sides[1],
        reward_length=spearman(rewards_S[columns.original_S], words_N),
        gap_length=spearman(margins_R[pref_R], longer_R[pref_R].astype(np.float64)),
    )


def spearman(first_N: FloatArray, second_N: FloatArray) -> float | None:
    """Spearman's rank correlation, with average ranks for ties; None if one side is constant or N < 2."""
    ranks = np.stack([_average_ranks(first_N), _average_ranks(second_N)])
    if ranks.shape[1] < 2:
        return None
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / scale if scale > 0.0 else None


def _average_ranks(values_N: FloatArray) -> FloatArray:
    """1-based ranks [N]; equal values share the mean of their ranks."""
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: FloatArray = last - (counts - 1) / 2.0
    return means[inverse_N]
