"""Paired comparison of two models on the same relations, resampled by prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from mapl_ray.evaluation.bootstrap import Estimate, estimate, p_value
from mapl_ray.evaluation.items import FloatArray, RelationItems
from mapl_ray.records import LEVEL_FAMILIES

BASELINE_SUFFIX = "-baseline"


class Difference(TypedDict):
    """Accuracy of `model` minus accuracy of `baseline`, and its two-sided bootstrap p-value."""

    accuracy: Estimate
    p_value: float | None


class Comparison(TypedDict):
    """Two models on the same items; levels without relations are absent."""

    model: str
    baseline: str
    levels: dict[str, Difference]


def compare(
    items: RelationItems,
    margins_R: FloatArray,
    baseline_margins_R: FloatArray,
    samples: int,
    seed: int,
) -> dict[str, Difference]:
    """Differences of accuracy per level: the mean over items of (model right) - (baseline right)."""
    difference_R = (margins_R > 0.0).astype(float) - (baseline_margins_R > 0.0).astype(float)
    results: dict[str, Difference] = {}
    for level_family in LEVEL_FAMILIES:
        mask_R = items.of_family(level_family)
        prompt_N = items.prompt_R[mask_R]
        accuracy = estimate(difference_R[mask_R], prompt_N, samples, seed)
        if accuracy is not None:
            p = p_value(difference_R[mask_R], prompt_N, samples, seed)
            results[level_family] = Difference(accuracy=accuracy, p_value=p)
    return results


def baseline_pairs(models: Iterable[str]) -> list[tuple[str, str]]:
    """`(name, name-baseline)` for every model whose baseline is there too."""
    names = list(models)
    return [(name, name + BASELINE_SUFFIX) for name in names if name + BASELINE_SUFFIX in names]
