"""Accuracy per level, and of intra and inter also by the number of instructions k (docs/method.md).

Accuracy is the share of relations with a margin above 0.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from mapl_ray.data.records import LEVEL_FAMILIES, Level
from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.items import BoolArray, FloatArray, RelationItems


class LevelResult(TypedDict):
    """One level of one model. Ties count as wrong; `ties` is their share, 1 for a constant reward."""

    accuracy: Estimate
    mean_margin: float
    ties: float


def level_results(items: RelationItems, margins_R: FloatArray, samples: int, seed: int) -> dict[str, LevelResult]:
    """Results of `pref`, `intra` and `inter`; levels without relations are absent."""
    masks = {family: items.of_family(family) for family in LEVEL_FAMILIES}
    return _results(masks, items, margins_R, samples, seed)


def kind_results(items: RelationItems, margins_R: FloatArray, samples: int, seed: int) -> dict[str, LevelResult]:
    """Separate results of widening and narrowing inter relations; kinds without relations are absent."""
    masks = {level.value: items.of_level(level) for level in (Level.INTER_WIDENING, Level.INTER_NARROWING)}
    return _results(masks, items, margins_R, samples, seed)


def _results(
    masks: dict[str, BoolArray], items: RelationItems, margins_R: FloatArray, samples: int, seed: int
) -> dict[str, LevelResult]:
    results: dict[str, LevelResult] = {}
    for name, mask_R in masks.items():
        margins = margins_R[mask_R]
        accuracy = estimate((margins > 0.0).astype(float), items.prompt_R[mask_R], samples, seed)
        if accuracy is not None:
            results[name] = LevelResult(
                accuracy=accuracy, mean_margin=float(margins.mean()), ties=float((margins == 0.0).mean())
            )
    return results


def accuracy_by_k(
    items: RelationItems, margins_R: FloatArray, samples: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """`{"intra": {"1": ..., "2": ...}, "inter": ...}` in ascending order of k, which is a string as JSON keys are."""
    results: dict[str, dict[str, Estimate]] = {}
    correct_R = (margins_R > 0.0).astype(float)
    for level_family in ("intra", "inter"):
        of_level_R = items.of_family(level_family)
        results[level_family] = {}
        for k in np.unique(items.k_R[of_level_R]):
            mask_R = of_level_R & (items.k_R == k)
            accuracy = estimate(correct_R[mask_R], items.prompt_R[mask_R], samples, seed)
            if accuracy is not None:
                results[level_family][str(int(k))] = accuracy
    return results
