"""How a step is cut: plain arithmetic, by hand and at large."""

import random

from hypothesis import given
from hypothesis import strategies as st

from mapl_ray.training.plan import alike_in_size, even, shares


def test_longest_first_by_hand() -> None:
    # 8 and 7 first, 6 to the 7, 5 to the 8: 13 and 13
    assert even([5, 8, 6, 7], hands=2, most=2) == [[0, 1], [2, 3]]
    # the first is full with its two, so what is left goes to the second: 9 + 1 and 1 + 1
    assert even([9, 1, 1, 1], hands=2, most=3) == [[0], [1, 2, 3]]
    assert even([9, 1, 1, 1], hands=2, most=2) == [[0, 3], [1, 2]]


def test_like_sizes_by_hand() -> None:
    assert alike_in_size([1, 9, 8, 2], hands=2, most=2) == [[1, 2], [0, 3]]
    assert alike_in_size([1, 9, 8], hands=2, most=2) == [[1, 2], [0]]
    assert alike_in_size([4], hands=2, most=2) == [[0], []]


def test_ranks_take_neighbours_and_turn_round() -> None:
    # hands 9, 8, 7, 6 of one each: 9 and 8 in the first turn, then 7 for the rank that had the 8
    assert shares([6, 9, 7, 8], ranks=2, turns=2, most=1, alike=False) == [[[1], [0]], [[3], [2]]]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_every_group_once_and_no_more_than_fit(sizes: list[int], ranks: int, turns: int, alike: bool) -> None:
    most = -(-len(sizes) // (ranks * turns))
    dealt = shares(sizes, ranks, turns, most, alike)
    assert [len(hands) for hands in dealt] == [turns] * ranks
    hands = [hand for of_rank in dealt for hand in of_rank]
    assert sorted(position for hand in hands for position in hand) == list(range(len(sizes)))
    assert max(map(len, hands)) <= most
    assert sum(not hand for hand in hands) == max(0, len(hands) - len(sizes))  # no filler that isn't needed


def lengths(number: int) -> list[int]:
    """Of real texts' kind: the logarithm is normal, the longest is many times the median."""
    rng = random.Random(0)
    return [max(16, round(rng.lognormvariate(6.0, 0.7))) for _ in range(number)]


def test_what_it_is_worth() -> None:
    """32 ranks of 2 micro-batches of 4 groups: what the slowest rank waits for, and what padding costs."""
    sizes = lengths(32 * 2 * 4)
    as_drawn = [list(range(hand * 4, hand * 4 + 4)) for hand in range(64)]
    mean = sum(sizes) / 64

    def fullest(hands: list[list[int]]) -> float:
        return max(sum(sizes[i] for i in hand) for hand in hands) / mean

    def slots(hands: list[list[int]]) -> int:
        return sum(max(sizes[i] for i in hand) * len(hand) for hand in hands)

    assert fullest(as_drawn) > 1.8
    ordered = sorted(sizes)
    assert fullest(even(sizes, 64, 4)) == sum([*ordered[:3], ordered[-1]]) / mean < 1.25  # no cut has less in it
    assert slots(as_drawn) > 1.5 * sum(sizes)
    assert slots(alike_in_size(sizes, 64, 4)) < 1.1 * sum(sizes)
    by_rank = [sum(sizes[i] for hand in hands for i in hand) for hands in shares(sizes, 32, 2, 4, alike=False)]
    assert max(by_rank) < 1.1 * sum(sizes) / 32
