"""Three-valued verdicts: what all reasonable readings of an instruction agree on.

A count is a `Span` from the smallest to the largest number that a reader may arrive at. A property is True (certainly
present), False (certainly absent), or None (arguable).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

Verdict: TypeAlias = bool | None  # None: readings differ


class Span(NamedTuple):
    """The range of counts under reasonable readings, both ends included."""

    fewest: int
    most: int

    @classmethod
    def over(cls, *counts: int | Span) -> Span:
        """The smallest span that includes all of these counts and spans; needs at least one."""
        ends = [end for count in counts for end in (count if isinstance(count, Span) else (count,))]
        return cls(min(ends), max(ends))

    def at_least(self, n: int) -> Verdict:
        """Verdict on "at least n"."""
        return True if self.fewest >= n else False if self.most < n else None

    def at_most(self, n: int) -> Verdict:
        """Verdict on "at most n"."""
        return True if self.most <= n else False if self.fewest > n else None

    def within(self, low: int, high: int) -> Verdict:
        """Verdict on "from low to high", both included."""
        if low <= self.fewest and self.most <= high:
            return True
        return False if self.most < low or self.fewest > high else None


def agreed(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that all readings share; None if they differ or one is undecided."""
    different = set(verdicts)
    return different.pop() if len(different) == 1 else None


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """True if all are True, False if any is False, else None."""
    found = set(verdicts)
    return False if False in found else None if None in found else True


def opposite(verdict: Verdict) -> Verdict:
    """The verdict on the opposite instruction."""
    return None if verdict is None else not verdict


def wanted(verdict: Verdict, use: bool) -> Verdict:
    """The verdict on "use it" or "do not use it", given the verdict on whether it is used."""
    return verdict if use else opposite(verdict)
