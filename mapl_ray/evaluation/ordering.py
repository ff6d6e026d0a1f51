"""The order in which a table lists models and their differences, on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mapl_ray.evaluation.compare import BASELINE_SUFFIX


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
