"""What trials are compared by: held-out level accuracies, a weighted mean of them, and the two of the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping

from mapl_ray.records import LEVEL_FAMILIES

PREF, MULTI = "pref_accuracy", "multi_accuracy"  # the two objectives
_PREFIX = "eval/rewards/accuracies/"


def level_accuracies(metrics: Mapping[str, float]) -> dict[str, float]:
    """Held-out accuracy of the levels that occur."""
    return {level: metrics[_PREFIX + level] for level in LEVEL_FAMILIES if _PREFIX + level in metrics}


def objective_of(metrics: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted mean of the held-out level accuracies; levels that do not occur count as 0."""
    found = level_accuracies(metrics)
    return sum(weight * found.get(level, 0.0) for level, weight in weights.items()) / sum(weights.values())


def values_of(metrics: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """`objective`, and the two objectives of the front: accuracy on the original preferences, and multi-instruction
    accuracy, the mean of intra and inter. A level that does not occur counts as 0."""
    return {
        "objective": objective_of(metrics, weights),
        PREF: objective_of(metrics, {"pref": 1.0}),
        MULTI: objective_of(metrics, {"intra": 1.0, "inter": 1.0}),
    }
