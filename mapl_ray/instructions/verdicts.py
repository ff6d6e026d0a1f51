"""Three-valued verdicts: what all reasonable readings of an instruction agree on.

A count is a `Span` from the fewest to the most that a reader may come to. A property is True (surely there), False
(surely not), or None (arguable).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

Verdict: TypeAlias = bool | None  # None: readings differ


class Span(NamedTuple):
    """The counts that reasonable readings come to, both ends included."""

    fewest: int
    most: int

    @classmethod
    def over(cls, *counts: int | Span) -> Span:
        """The smallest span that holds all of these counts and spans; at least one."""
        ends = [end for count in counts for end in (count if isinstance(count, Span) else (count,))]
        return cls(min(ends), max(ends))

    def at_least(self, n: int) -> Verdict:
        """Whether there are at least n."""
        return True if self.fewest >= n else False if self.most < n else None

    def at_most(self, n: int) -> Verdict:
        """Whether there are at most n."""
        return True if self.most <= n else False if self.fewest > n else None

    def within(self, low: int, high: int) -> Verdict:
        """Whether the count lies between the two, both included."""
        if low <= self.fewest and self.most <= high:
            return True
        return False if self.most < low or self.fewest > high else None


def agreed(verdicts: Iterable[Verdict]) -> Verdict:
    """The one verdict of all readings; None where they differ or one is undecided."""
    different = set(verdicts)
    return different.pop() if len(different) == 1 else None


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """True where all are, False where one is not, whatever the undecided ones are."""
    found = set(verdicts)
    return False if False in found else None if None in found else True


def opposite(verdict: Verdict) -> Verdict:
    """The verdict on the opposite instruction."""
    return None if verdict is None else not verdict


def wanted(verdict: Verdict, use: bool) -> Verdict:
    """The verdict on "use it" or "do not use it", given whether it is there."""
    return verdict if use else opposite(verdict)
