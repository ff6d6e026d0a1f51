"""Distributions of the gap r(., chosen) - r(., rejected) under x, x+ and x-, as histograms.

A model that reads instructions widens the gap under x+ and narrows it under x- (docs/method.md, L_inter).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from mapl_ray.data.records import Level, RelationGroup
from mapl_ray.evaluation.items import FloatArray, Rewards

KINDS = ("x", "x+", "x-")
_BINS = 40


class Histogram(TypedDict):
    """Counts between the shared edges; the outer bins take what lies beyond."""

    counts: list[int]
    mean: float
    median: float
    count: int


class GapHistograms(TypedDict):
    """`edges` has one entry more than every `counts`; kinds without gaps are absent."""

    edges: list[float]
    kinds: dict[str, Histogram]


def gap_histograms(groups: Sequence[RelationGroup], rewards: Rewards) -> GapHistograms:
    """Histograms of one model's gaps with common edges over the middle 99 % of all its gaps."""
    gaps = {kind: np.array(values) for kind, values in _gaps(groups, rewards).items() if values}
    if not gaps:
        return GapHistograms(edges=[], kinds={})
    edges = _edges(np.concatenate(list(gaps.values())))
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


def _gaps(groups: Sequence[RelationGroup], rewards: Rewards) -> dict[str, list[float]]:
    gaps: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for group, rewards_S in zip(groups, rewards, strict=True):
        cells = {(s.prompt, s.response): rewards_S[index] for index, s in enumerate(group.sequences)}
        for prompt, kind in prompt_kinds(group).items():
            if (prompt, 0) in cells and (prompt, 1) in cells:
                gaps[kind].append(cells[prompt, 0] - cells[prompt, 1])
    return gaps


def prompt_kinds(group: RelationGroup) -> dict[int, str]:
    """Which prompt is x, x+ or x-: read from the inter relations, so that it holds for every layout."""
    kinds = {0: "x"}
    names = {Level.INTER_WIDENING: "x+", Level.INTER_NARROWING: "x-"}
    for relation in group.relations:
        if relation.level in names:
            for index in (*relation.preferred, *relation.dispreferred):
                kinds.setdefault(group.sequences[index].prompt, names[relation.level])
    return kinds


def _edges(values_N: FloatArray) -> FloatArray:
    low, high = np.quantile(values_N, [0.005, 0.995])
    if high - low <= 1e-12 * max(1.0, abs(low)):  # a constant gap still needs a bin with a width
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)
