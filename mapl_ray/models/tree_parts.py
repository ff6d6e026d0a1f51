"""Splits a row of prefix trees into parts, each computed with one attention call. Uses only numpy.

A row consists of branches: runs of tokens in which each token is the only child of the one before. A part is a branch
or a whole subtree. All tokens of a part see the parts above it. Many small parts need the fewest scores, few large
parts the fewest calls. Dimensions: T tokens per row, L tokens of a part, K keys of a part.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
# Overhead of one attention call, in scores of one head. An estimate, not a measurement:
# `python benchmarks/tree_attention.py` compares values. The value affects only speed, not results.
CALL_COST = 50_000


class TreePart(NamedTuple):
    """Tokens `start .. end-1` of a row, computed in one call."""

    start: int
    end: int
    above: tuple[int, ...]  # indices of the parts that all its tokens see, from the root on
    before: int  # number of tokens in those parts
    single: bool  # whether it is one branch: a token sees all earlier tokens of the part

    @property
    def length(self) -> int:
        """Number of tokens, L."""
        return self.end - self.start

    @property
    def causal(self) -> bool:
        """Whether the causal kernel over the whole path (K * K / 2 scores) is cheaper than a mask (L * K scores)."""
        return self.single and self.before < self.length

    @property
    def scores(self) -> int:
        """Number of scores per head that its call computes."""
        keys = self.before + self.length
        return keys * (keys + 1) // 2 if self.causal else self.length * keys


def branches_of(subtree_end: IntArray) -> list[TreePart]:
    """Split one row [T] into its branches, one part each, in the row's order.

    A token has the same subtree end as the token before it if and only if it is the only child of that token.
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
    """Split one row [T] into parts with the lowest cost, in the row's order. `call_cost=0`: every branch is a part.

    A subtree becomes one part if separate calls for its branches would cost more than the unneeded scores between its
    branches.
    """
    branches = branches_of(subtree_end)
    whole = [branch._replace(end=int(subtree_end[branch.start]), single=False) for branch in branches]
    cost = [call_cost + branch.scores for branch in branches]  # after the loop: lowest cost of each subtree
    joined = [False] * len(branches)
    for number in reversed(range(len(branches))):  # children come after their parents
        together = call_cost + whole[number].scores
        if whole[number].end > branches[number].end and together <= cost[number]:
            joined[number], cost[number] = True, together
        if branches[number].above:
            cost[branches[number].above[-1]] += cost[number]
    parts: list[TreePart] = []
    number_of: dict[int, int] = {}  # branch -> part
    for number, branch in enumerate(branches):
        if parts and branch.start < parts[-1].end:
            continue  # inside a subtree that is one part
        number_of[number] = len(parts)
        part = whole[number] if joined[number] else branch
        parts.append(part._replace(above=tuple(number_of[i] for i in branch.above)))
    return parts


def seen_within(part: TreePart, subtree_end: IntArray, window: int | None) -> npt.NDArray[np.bool_]:
    """Build a part's mask, bool [L, K]. Keys are the tokens of the parts above, followed by the part's tokens.

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
