"""Histograms of the gap r(., chosen) - r(., rejected) under x, x+ and x-.

A model that follows instructions has a wider gap under x+ and a narrower one under x- (docs/method.md, L_inter).
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from mapl_ray.evaluation.column_table import GAP_KINDS
from mapl_ray.evaluation.columns import GroupColumns
from mapl_ray.evaluation.items import FloatArray

_BINS = 40


class Histogram(TypedDict):
    """Counts between the shared edges. The outer bins include values beyond the edges."""

    counts: list[int]
    mean: float
    median: float
    count: int


class GapHistograms(TypedDict):
    """`edges` has one more entry than each `counts`; kinds without gaps are absent."""

    edges: list[float]
    kinds: dict[str, Histogram]


def gap_histograms(columns: GroupColumns, rewards_S: FloatArray) -> GapHistograms:
    """Histograms of one model's gaps, with common edges over the middle 99 % of all its gaps."""
    gap_N = rewards_S[columns.gap_chosen_N] - rewards_S[columns.gap_rejected_N]
    by_kind = {kind: gap_N[columns.gap_kind_N == number] for number, kind in enumerate(GAP_KINDS)}
    gaps = {kind: values_N for kind, values_N in by_kind.items() if len(values_N)}
    if not gaps:
        return GapHistograms(edges=[], kinds={})
    edges = _edges(gap_N)
    kinds: dict[str, Histogram] = {}
    for kind, values_N in gaps.items():
        counts, _ = np.histogram(np.clip(values_N, edges[0], edges[-1]), bins=edges)
        kinds[kind] = Histogram(
            counts=[int(count) for count in counts],
            mean=float(values_N.mean()),
            median=float(np.median(values_N)),
            count=len(values_N),
        )
    return GapHistograms(edges=[float(edge) for edge in edges], kinds=kinds)


def _edges(values_N: FloatArray) -> FloatArray:
    low, high = np.quantile(values_N, [0.005, 0.995])
    if high - low <= 1e-12 * max(1.0, abs(low)):  # a constant gap still needs bins of positive width
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)
