"""Cuts a row of prefix trees into parts that attention computes in one call each. Plain arithmetic over numpy arrays.

A row falls into branches: runs of tokens each of which is the only child of the one before. A part is a branch, or a
whole subtree of branches; all its tokens see the parts above it. Many small parts compute the fewest scores, few large
ones take the fewest calls. Dimensions: T tokens of a row, L tokens of a part, K keys of a part.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
# What one attention call costs beside its scores, in scores of one head. An estimate, not a measurement:
# `python benchmarks/tree_attention.py` compares values. Any value gives the same results.
CALL_COST = 50_000


class TreePart(NamedTuple):
    """Tokens `start .. end-1` of a row, computed in one call."""

    start: int
    end: int
    above: tuple[int, ...]  # numbers of the parts that all its tokens see, from the root on
    before: int  # tokens in those
    single: bool  # one branch: a token sees every token of the part before it

    @property
    def length(self) -> int:
        """L."""
        return self.end - self.start

    @property
    def causal(self) -> bool:
        """Whether the causal kernel over the whole path, K * K / 2 scores, is cheaper than a mask of L * K."""
        return self.single and self.before < self.length

    @property
    def scores(self) -> int:
        """Scores of one head that its call computes."""
        keys = self.before + self.length
        return keys * (keys + 1) // 2 if self.causal else self.length * keys


def branches_of(subtree_end: IntArray) -> list[TreePart]:
    """Every branch of one row [T] as a part of its own, in the row's order.

    A token's subtree ends where that of the token before ends if and only if it is the only child of that token.
    """
    starts = [0, *(np.flatnonzero(np.diff(subtree_end)) + 1).tolist(), len(subtree_end)]
    branches: list[TreePart] = []
    above: list[int] = []
    for number, (start, end) in enumerate(pairwise(starts)):
        while above and subtree_end[branches[above[-1]].start] <= start:
            above.pop()
        before = branches[above[-1]].before + branches[above[-1]].length if above else 0
        branches.append(TreePart(start, end, tuple(above), before, single=True))
        above.append(number)
    return branches


def parts_of(subtree_end: IntArray, call_cost: int = CALL_COST) -> list[TreePart]:
    """The cheapest cut of one row [T] into parts, in the row's order; `call_cost=0` gives every branch its own.

    A subtree is one part where the calls of its branches cost more than the scores between those of its tokens that
    do not see each other.
    """
    branches = branches_of(subtree_end)
    whole = [branch._replace(end=int(subtree_end[branch.start]), single=False) for branch in branches]
    cost = [call_cost + branch.scores for branch in branches]  # then: of the subtree, cut in the cheapest way
    joined = [False] * len(branches)
    for number in reversed(range(len(branches))):  # children stand behind their parents
        together = call_cost + whole[number].scores
        if whole[number].end > branches[number].end and together <= cost[number]:
            joined[number], cost[number] = True, together
        if branches[number].above:
            cost[branches[number].above[-1]] += cost[number]
    parts: list[TreePart] = []
    number_of: dict[int, int] = {}  # branch -> part
    for number, branch in enumerate(branches):
        if parts and branch.start < parts[-1].end:
            continue  # inside of a subtree that is one part
        number_of[number] = len(parts)
        part = whole[number] if joined[number] else branch
        parts.append(part._replace(above=tuple(number_of[i] for i in branch.above)))
    return parts


def seen_within(part: TreePart, subtree_end: IntArray, window: int | None) -> npt.NDArray[np.bool_]:
    """Who sees whom: boolean [L, K]; keys are the tokens of the parts above and then the part's own.

    A window counts along the path: a token sees itself and the `window - 1` tokens before it.
    """
    own = subtree_end[part.start : part.end] - part.start
    places = np.arange(part.length)
    within = (places[None, :] <= places[:, None]) & (places[:, None] < own[None, :])
    seen: npt.NDArray[np.bool_] = np.concatenate([np.ones((part.length, part.before), dtype=bool), within], axis=1)
    if window is not None:
        positions = part.before + within.sum(1) - 1
        keys = np.concatenate([np.arange(part.before), positions])
        seen &= positions[:, None] - keys[None, :] < window
    return seen
