"""Which groups share a micro-batch, and which rank takes it: plain arithmetic, the same on all ranks.

Ranks wait for each other, after every micro-batch under ZeRO-2 and 3 and after every step in any case, so a step takes
as long as its fullest share. What a step holds is settled before; this is only about how it is cut.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

Hands = list[list[int]]


def shares(sizes: Sequence[int], ranks: int, turns: int, most: int, alike: bool) -> list[Hands]:
    """Positions of `sizes` as `turns` micro-batches of every rank, each of at most `most`; some may be empty.

    In every turn the ranks take neighbours in size, the fullest in the first turn, where memory that is short is found
    short at once; the order of ranks turns round, so that no rank takes the fullest of every turn.

    Args:
        sizes: positive, at most `ranks * turns * most` of them.
        alike: those of like size together (`alike_in_size`), else as much in each as can be had (`even`).
    """
    hands = (alike_in_size if alike else even)(sizes, ranks * turns, most)
    hands.sort(key=lambda hand: (-_load(sizes, hand, alike), hand))
    rounds = [hands[turn * ranks : (turn + 1) * ranks][:: -1 if turn % 2 else 1] for turn in range(turns)]
    return [[hands_of_turn[rank] for hands_of_turn in rounds] for rank in range(ranks)]


def even(sizes: Sequence[int], hands: int, most: int) -> Hands:
    """Hands of about the same sum: longest first, each to the hand that holds least and has room.

    Without the limit to `most`, the fullest is at most 4/3 of the best there is (Graham 1969, "Bounds on
    multiprocessing timing anomalies").
    """
    dealt: Hands = [[] for _ in range(hands)]
    open_hands = [(0, hand) for hand in range(hands)]  # (sum, hand), a heap
    for position in _longest_first(sizes):
        total, hand = heapq.heappop(open_hands)
        dealt[hand].append(position)
        if len(dealt[hand]) < most:
            heapq.heappush(open_hands, (total + sizes[position], hand))
    return [sorted(hand) for hand in dealt]


def alike_in_size(sizes: Sequence[int], hands: int, most: int) -> Hands:
    """Hands of like sizes, as many in each: a padded batch is as wide as its longest, and has the least padding so."""
    cut = np.array_split(np.array(_longest_first(sizes), dtype=np.int64), hands)
    dealt = [sorted(hand.tolist()) for hand in cut]
    assert all(len(hand) <= most for hand in dealt)
    return dealt


def _longest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda position: (-sizes[position], position))


def _load(sizes: Sequence[int], hand: list[int], alike: bool) -> int:
    of_hand = [sizes[position] for position in hand]
    return max(of_hand, default=0) * len(hand) if alike else sum(of_hand)
