"""Means with 95 % bootstrap intervals that resample prompts, not rows.

Items of one prompt (its relations, and other groups with the same prompt) are not independent, so they are resampled
together. Dimensions: N items, P distinct prompts, B bootstrap samples.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from mapl_ray.evaluation.items import FloatArray, IntArray

CONFIDENCE = 0.95
_CHUNK = 4_000_000  # prompt indices drawn at a time, to bound memory


class Estimate(TypedDict):
    """A mean over `count` items of `prompts` prompts. It has no interval with fewer than two prompts or no samples."""

    value: float
    low: float | None
    high: float | None
    count: int
    prompts: int


def estimate(values_N: FloatArray, prompt_N: IntArray, samples: int, seed: int) -> Estimate | None:
    """The mean of `values_N` and its percentile interval; None if there are no items."""
    if len(values_N) == 0:
        return None
    sums_P, counts_P = _by_prompt(values_N, prompt_N)
    low = high = None
    means_B = _resampled_means(sums_P, counts_P, samples, seed)
    if len(means_B):
        tail = (1.0 - CONFIDENCE) / 2.0
        low, high = (float(bound) for bound in np.quantile(means_B, [tail, 1.0 - tail]))
    return Estimate(
        value=float(sums_P.sum() / counts_P.sum()), low=low, high=high, count=len(values_N), prompts=len(sums_P)
    )


def p_value(differences_N: FloatArray, prompt_N: IntArray, samples: int, seed: int) -> float | None:
    """Two-sided bootstrap p-value of "the mean difference is 0"; None if there is no interval.

    It is twice the smaller share of resampled means on either side of 0. One is added so that it is never 0.
    """
    if len(differences_N) == 0:
        return None
    means_B = _resampled_means(*_by_prompt(differences_N, prompt_N), samples, seed)
    if len(means_B) == 0:
        return None
    side = min(int((means_B <= 0.0).sum()), int((means_B >= 0.0).sum()))
    return min(1.0, 2.0 * (side + 1) / (len(means_B) + 1))


def _by_prompt(values_N: FloatArray, prompt_N: IntArray) -> tuple[FloatArray, FloatArray]:
    """Sum and number [P] of the items of each prompt that has items."""
    _, inverse_N = np.unique(prompt_N, return_inverse=True)
    sums_P: FloatArray = np.bincount(inverse_N, weights=values_N).astype(np.float64)
    return sums_P, np.bincount(inverse_N).astype(np.float64)


def _resampled_means(sums_P: FloatArray, counts_P: FloatArray, samples: int, seed: int) -> FloatArray:
    """Means [B] of `samples` draws of P prompts with replacement, each prompt with all its items."""
    num_prompts = len(sums_P)
    if samples == 0 or num_prompts < 2:
        return np.empty(0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means: list[FloatArray] = []
    step = max(1, _CHUNK // num_prompts)
    for start in range(0, samples, step):
        drawn_BP = rng.integers(0, num_prompts, size=(min(step, samples - start), num_prompts))
        means.append(sums_P[drawn_BP].sum(axis=1) / counts_P[drawn_BP].sum(axis=1))
    return np.concatenate(means)


def format_percent(value: Estimate) -> str:
    """`72.1 [68.0, 76.3]`: percent, with its interval if there is one."""
    return _format(value, "")


def format_points(value: Estimate) -> str:
    """`+4.2 [-1.0, +9.3]`: signed percentage points, with their interval if there is one."""
    return _format(value, "+")


def _format(value: Estimate, sign: str) -> str:
    text = _percent(value["value"], sign)
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} [{_percent(value['low'], sign)}, {_percent(value['high'], sign)}]"


def _percent(share: float, sign: str) -> str:
    return f"{round(100 * share, 1) + 0.0:{sign}.1f}"  # no -0.0
