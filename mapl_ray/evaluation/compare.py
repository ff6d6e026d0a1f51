"""Paired comparison of two models on the same relations, and the order of models and comparisons in tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.evaluation.items import FloatArray, RelationItems
from mapl_ray.evaluation.paired import Difference, paired_difference

BASELINE_SUFFIX = "-baseline"


class Comparison(TypedDict):
    """A comparison of two models on the same items; levels without relations are absent."""

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
    """Difference of accuracy per level: the mean of (model right) - (baseline right), resampled by prompt."""
    right_R, baseline_right_R = (margins_R > 0.0).astype(float), (baseline_margins_R > 0.0).astype(float)
    results: dict[str, Difference] = {}
    for level_family in LEVEL_FAMILIES:
        mask_R = items.of_family(level_family)
        found = paired_difference(right_R[mask_R], baseline_right_R[mask_R], items.prompt_R[mask_R], samples, seed)
        if found is not None:
            results[level_family] = found
    return results


def baseline_pairs(models: Iterable[str]) -> list[tuple[str, str]]:
    """`(name, name-baseline)` for each model whose baseline is also in `models`."""
    names = list(models)
    return [(name, name + BASELINE_SUFFIX) for name in names if name + BASELINE_SUFFIX in names]


def pairs_with_the_first(models: Iterable[str]) -> list[tuple[str, str]]:
    """`(name, first)` for each other model: models given by the user are compared with the first one."""
    first, *others = models
    return [(name, first) for name in others]


def is_own_baseline(comparison: Mapping[str, Any]) -> bool:
    """Whether a model is compared with its own plain baseline."""
    return bool(comparison["baseline"] == comparison["model"] + BASELINE_SUFFIX)


def in_table_order(results: Mapping[str, Any]) -> Iterator[tuple[list[str], Any]]:
    """Yield (models to list, comparison to list after them); the comparison is None for the remaining models.

    A model is listed before its own baseline, and after any other model that it is compared with.
    """
    shown: set[str] = set()
    for comparison in results["comparisons"]:
        model, baseline = comparison["model"], comparison["baseline"]
        names = (model, baseline) if is_own_baseline(comparison) else (baseline, model)
        yield [name for name in names if name not in shown], comparison
        shown |= {*names}
    yield [model for model in results["models"] if model not in shown], None
