"""Paired tests of two models on the same items."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

from mapl_ray.evaluation.bootstrap import Estimate, estimate, p_value
from mapl_ray.evaluation.items import BoolArray, FloatArray, IntArray


class Difference(TypedDict):
    """Accuracy of `model` minus accuracy of `baseline`, with two tests of "there is no difference".

    `p_value` is from the bootstrap over prompts. McNemar's exact test assumes independent items, so use it only with
    one item per prompt. It is None if the items are not binary.
    """

    accuracy: Estimate
    p_value: float | None
    only_model: int | None  # items that only the model gets right
    only_baseline: int | None
    mcnemar_p: float | None


def paired_difference(
    values_N: FloatArray, baseline_N: FloatArray, prompt_N: IntArray, samples: int, seed: int
) -> Difference | None:
    """Compare two models by their scores in [0, 1] on the same N items; None if there are no items."""
    difference_N = values_N - baseline_N
    accuracy = estimate(difference_N, prompt_N, samples, seed)
    if accuracy is None:
        return None
    binary = bool(np.isin(values_N, (0.0, 1.0)).all() and np.isin(baseline_N, (0.0, 1.0)).all())
    only_model, only_baseline = _count(difference_N > 0.0), _count(difference_N < 0.0)
    return Difference(
        accuracy=accuracy,
        p_value=p_value(difference_N, prompt_N, samples, seed),
        only_model=only_model if binary else None,
        only_baseline=only_baseline if binary else None,
        mcnemar_p=mcnemar_exact(only_model, only_baseline) if binary else None,
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's test (1947) in its exact, binomial form.

    Items that only one model gets right favor either model with probability 1/2:
    min(1, 2 P(X <= the smaller number)), X ~ Binomial(sum of both, 1/2).
    """
    number, least = only_first + only_second, min(only_first, only_second)
    # In logarithms: with thousands of items the coefficients overflow a float.
    terms = [_log_choose(number, k) - number * math.log(2.0) for k in range(least + 1)]
    return min(1.0, 2.0 * math.fsum(math.exp(term) for term in terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _count(mask_N: BoolArray) -> int:
    return int(mask_N.sum())
