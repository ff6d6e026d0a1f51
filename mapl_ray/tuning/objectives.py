"""Objectives of trials: held-out level accuracies, their weighted mean, and the Pareto front of two objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapl_ray.data.records import LEVEL_FAMILIES

PREF, MULTI = "pref_accuracy", "multi_accuracy"  # the two objectives
_PREFIX = "eval/rewards/accuracies/"


def level_accuracies(metrics: Mapping[str, float]) -> dict[str, float]:
    """Held-out accuracies of the levels that occur."""
    return {level: metrics[_PREFIX + level] for level in LEVEL_FAMILIES if _PREFIX + level in metrics}


def objective_of(metrics: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Weighted mean of the held-out level accuracies. Levels that do not occur count as 0."""
    found = level_accuracies(metrics)
    return sum(weight * found.get(level, 0.0) for level, weight in weights.items()) / sum(weights.values())


def values_of(metrics: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Compute `objective`, and the two objectives of the Pareto front: accuracy on the original preferences, and
    multi-instruction accuracy (the mean of intra and inter). A level that does not occur counts as 0."""
    return {
        "objective": objective_of(metrics, weights),
        PREF: objective_of(metrics, {"pref": 1.0}),
        MULTI: objective_of(metrics, {"intra": 1.0, "inter": 1.0}),
    }


def on_front(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Whether each point is on the Pareto front: no other point is at least as good in every coordinate and better in
    one. Larger is better. Equal points are on the front together.
    """
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))
