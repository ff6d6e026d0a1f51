"""Paired comparison of two models on the same relations, resampled by prompt; the order in which tables list both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.evaluation.items import FloatArray, RelationItems
from mapl_ray.evaluation.paired import Difference, paired_difference

BASELINE_SUFFIX = "-baseline"


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
    right_R, baseline_right_R = (margins_R > 0.0).astype(float), (baseline_margins_R > 0.0).astype(float)
    results: dict[str, Difference] = {}
    for level_family in LEVEL_FAMILIES:
        mask_R = items.of_family(level_family)
        found = paired_difference(right_R[mask_R], baseline_right_R[mask_R], items.prompt_R[mask_R], samples, seed)
        if found is not None:
            results[level_family] = found
    return results


def baseline_pairs(models: Iterable[str]) -> list[tuple[str, str]]:
    """`(name, name-baseline)` for every model whose baseline is there too."""
    names = list(models)
    return [(name, name + BASELINE_SUFFIX) for name in names if name + BASELINE_SUFFIX in names]


def pairs_with_the_first(models: Iterable[str]) -> list[tuple[str, str]]:
    """`(name, first)` for every other model: of models that were named one by one, the first is what to beat."""
    first, *others = models
    return [(name, first) for name in others]


def is_own_baseline(comparison: Mapping[str, Any]) -> bool:
    """Whether a model is compared with the plain baseline that was trained beside it."""
    return bool(comparison["baseline"] == comparison["model"] + BASELINE_SUFFIX)


def in_table_order(results: Mapping[str, Any]) -> Iterator[tuple[list[str], Any]]:
    """Models that have not been listed yet, and the comparison whose row follows them; None: there is none left.

    A model stands before its own baseline, and after any other model that it is compared with.
    """
    shown: set[str] = set()
    for comparison in results["comparisons"]:
        model, baseline = comparison["model"], comparison["baseline"]
        names = (model, baseline) if is_own_baseline(comparison) else (baseline, model)
        yield [name for name in names if name not in shown], comparison
        shown |= {*names}
    yield [model for model in results["models"] if model not in shown], None
