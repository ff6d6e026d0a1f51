"""Draw numbers for instructions: far enough from the response's value, and round as a person would choose them.

A threshold keeps a margin of 10 % and at least 2 units from every value that it is drawn against, so that a person who
counts slightly differently reaches the same verdict. If readings of a text differ, its value is a `Span`, and the
margin is kept from both ends.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeVar

from mapl_ray.instructions.verdicts import Span

T = TypeVar("T")
Direction = Literal["at least", "at most"]
DIRECTIONS: tuple[Direction, Direction] = ("at least", "at most")
Values = Sequence[tuple[int | Span, bool]]  # (value of a text, whether it must satisfy)

_REACH = 2.0  # largest factor between a threshold and the nearest value
_UNITS = (1, 5, 10, 50)


def in_random_order(two: tuple[T, T], rng: random.Random) -> tuple[T, T]:
    """Both values in random order; four times as fast as `rng.sample`, which matters because every draw calls it."""
    return two if rng.random() < 0.5 else (two[1], two[0])


def margin(value: int, min_gap: int = 2) -> int:
    """Minimum distance of a threshold from a value."""
    tenth = -(-value // 10)
    return tenth if tenth > min_gap else min_gap


def draw_threshold(
    values: Values,
    direction: Direction,
    rng: random.Random,
    *,
    least: int = 1,
    most: int | None = None,
    min_gap: int = 2,
) -> int | None:
    """Draw a threshold n log-uniformly within the `limits`; None if there are none."""
    ends = limits(values, direction, least=least, most=most, min_gap=min_gap)
    return None if ends is None else _log_uniform(*ends, rng)


def limits(
    values: Values, direction: Direction, *, least: int = 1, most: int | None = None, min_gap: int = 2
) -> tuple[int, int] | None:
    """Smallest and largest threshold n with `value >= n` (or `<= n`) for exactly the values that must satisfy.

    Limited to `least` to `most`; None if no n keeps the margins.
    """
    low, high = least, None
    bounded_below = False
    for value, satisfied in values:
        fewest, most_here = value if isinstance(value, tuple) else (value, value)
        if satisfied == (direction == "at least"):
            below = fewest - margin(fewest, min_gap)
            high = below if high is None else min(high, below)
        else:
            low, bounded_below = max(low, most_here + margin(most_here, min_gap)), True
    if high is None:
        high = max(math.floor(low * _REACH), low + 3 * min_gap)
    elif not bounded_below:
        low = max(low, math.ceil(high / _REACH))
    high = high if most is None else min(high, most)
    return None if low > high else (low, high)


def draw_range(values: Values, rng: random.Random, *, least: int = 1, min_gap: int = 2) -> tuple[int, int] | None:
    """Draw an inclusive range (low, high) that has exactly the values that must satisfy, at a margin from its ends.

    Returns None if no range keeps the margins.
    """
    inside = [Span.over(value) for value, satisfied in values if satisfied]
    outside = [Span.over(value) for value, satisfied in values if not satisfied]
    if not inside:
        # No value must be inside: invent one to build the range around, away from those that must be outside.
        anchor = max(1, rng.choice(rng.choice(outside))) if outside else 100
        factor = rng.uniform(1.5, 3.0)
        above, below = round(anchor * factor) + 3 * min_gap, round(anchor / factor)
        fits_below = below - margin(below, min_gap) >= least and rng.random() < 0.5
        inside = [Span.over(below if fits_below else above)]
    least_in, most_in = Span.over(*inside)
    lows: Values = [(value, False) for value in outside if value.most <= most_in] + [(Span.over(least_in), True)]
    highs: Values = [(value, False) for value in outside if value.most > most_in] + [(Span.over(most_in), True)]
    low = draw_threshold(lows, "at least", rng, least=least, min_gap=min_gap)
    high = draw_threshold(highs, "at most", rng, least=least, min_gap=min_gap)
    return None if low is None or high is None else (low, high)


def round_as_a_person(value: float, low: int, high: int) -> int:
    """The roundest number near `value` within [low, high]: 120 rather than 117, 25 rather than 23."""
    for unit in _round_units(len(str(int(value)))):
        first, last = -(-low // unit) * unit, high // unit * unit
        if unit <= max(1.0, value / 4) and first <= last:
            return min(max(round(value / unit) * unit, first), last)
    return min(max(round(value), low), high)


@lru_cache(maxsize=64)
def _round_units(digits: int) -> list[int]:
    """Units that numbers with this many digits are rounded to, largest first."""
    scale = 10 ** max(0, digits - 2)
    return sorted({unit * power for unit in _UNITS for power in (1, scale)}, reverse=True)


def _log_uniform(low: int, high: int, rng: random.Random) -> int:
    value = math.exp(rng.uniform(math.log(low), math.log(high)))
    return round_as_a_person(value, low, high)
