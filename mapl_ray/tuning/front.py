"""The Pareto front."""

from __future__ import annotations

from collections.abc import Sequence


def on_front(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Whether no other point is at least as good in every coordinate and better in one; larger is better.

    Equal points are on the front together.
    """
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))
