"""Calibration: are relations with a predicted probability of 80 % right in 80 % of cases?

A model gives a relation the probability sigmoid(margin), as in its loss, so the side that it prefers has
p = sigmoid(|margin|) >= 1/2. Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3):

    ECE = sum over bins of (items in the bin / all items) * |accuracy - mean p|
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.evaluation.items import FloatArray, RelationItems

NUM_BINS = 10


class Bin(TypedDict):
    """Relations with p in [low, high); the last bin includes its upper end."""

    low: float
    high: float
    count: int
    confidence: float  # mean p
    accuracy: float


class Calibration(TypedDict):
    """Calibration at one level: `bins` without the empty ones; `confidence` is the mean p of all relations."""

    ece: float
    confidence: float
    accuracy: float
    count: int
    bins: list[Bin]


def calibration_by_level(items: RelationItems, margins_R: FloatArray) -> dict[str, Calibration]:
    """Calibration of `pref`, `intra` and `inter`; levels without relations are absent."""
    results: dict[str, Calibration] = {}
    for level in LEVEL_FAMILIES:
        margins_N = margins_R[items.of_family(level)]
        if len(margins_N):
            results[level] = calibration(margins_N)
    return results


def calibration(margins_N: FloatArray) -> Calibration:
    """Calibration of N > 0 relations, with bins of equal width over [1/2, 1]."""
    p_N = 1.0 / (1.0 + np.exp(-np.abs(margins_N)))
    correct_N = (margins_N > 0.0).astype(np.float64)
    edges = np.linspace(0.5, 1.0, NUM_BINS + 1)
    bin_N = np.clip(np.digitize(p_N, edges) - 1, 0, NUM_BINS - 1)
    bins = [
        Bin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            count=int(inside.sum()),
            confidence=float(p_N[inside].mean()),
            accuracy=float(correct_N[inside].mean()),
        )
        for index in range(NUM_BINS)
        if (inside := bin_N == index).any()
    ]
    ece = sum(one["count"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / len(margins_N)
    return Calibration(
        ece=float(ece),
        confidence=float(p_N.mean()),
        accuracy=float(correct_N.mean()),
        count=len(margins_N),
        bins=bins,
    )
