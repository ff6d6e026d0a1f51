"""Paired tests of two models on the same items."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

from mapl_ray.evaluation.bootstrap import Estimate, estimate, p_value
from mapl_ray.evaluation.items import BoolArray, FloatArray, IntArray


class Difference(TypedDict):
    """Accuracy of `model` minus accuracy of `baseline`, with two tests of "there is none".

    `p_value` is of the bootstrap that resamples prompts. McNemar's exact test takes items for independent, which
    relations of one prompt are not: it is meant for levels with one item a prompt. None where an item is no yes or no.
    """

    accuracy: Estimate
    p_value: float | None
    only_model: int | None  # items that the model alone gets right
    only_baseline: int | None
    mcnemar_p: float | None


def paired_difference(
    values_N: FloatArray, baseline_N: FloatArray, prompt_N: IntArray, samples: int, seed: int
) -> Difference | None:
    """Compare two models by what each scored on the same N items, in [0, 1]; None where there are no items."""
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
    """Two-sided p-value: the items that one model alone gets right fall on either side with probability 1/2.

    McNemar 1947 in its exact, binomial form: min(1, 2 P(X <= the smaller number)), X ~ Binomial(their sum, 1/2).
    """
    number, least = only_first + only_second, min(only_first, only_second)
    # In logarithms: for some thousands of items the coefficients are beyond a float.
    terms = [_log_choose(number, k) - number * math.log(2.0) for k in range(least + 1)]
    return min(1.0, 2.0 * math.fsum(math.exp(term) for term in terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _count(mask_N: BoolArray) -> int:
    return int(mask_N.sum())
