"""Thresholds: margins, truth, roundness."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_range, draw_threshold, margin, round_as_a_person

values = st.lists(st.tuples(st.integers(0, 100_000), st.booleans()), min_size=1, max_size=3)


@given(values, st.sampled_from(DIRECTIONS), st.randoms(use_true_random=False))
def test_threshold_keeps_truth_and_margin(flags, direction, rng) -> None:
    n = draw_threshold(flags, direction, rng)
    if n is None:
        return
    assert n >= 1
    for value, satisfied in flags:
        assert (value >= n if direction == "at least" else value <= n) == satisfied
        assert abs(value - n) >= max(2, value / 10)


@given(values, st.randoms(use_true_random=False))
def test_range_keeps_truth_and_margin(flags, rng) -> None:
    ends = draw_range(flags, rng)
    if ends is None:
        return
    for value, satisfied in flags:
        if satisfied:
            assert ends[0] + margin(value) <= value <= ends[1] - margin(value)
        else:
            assert value <= ends[0] - margin(value) or value >= ends[1] + margin(value)


@pytest.mark.parametrize(("value", "direction"), [(0, "at least"), (0, "at most"), (120, "at least"), (120, "at most")])
def test_one_response_can_always_be_served_in_some_direction(value, direction) -> None:
    rng = random.Random(0)
    # 0 things: "at least n" can only be violated and "at most n" only be satisfied; 120 things: either, both ways.
    expected = [direction == "at most", direction == "at least"] if value == 0 else [True, True]
    served = [draw_threshold([(value, flag)], direction, rng) is not None for flag in (True, False)]
    assert served == expected


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [(117, 50, 200, 120), (23, 10, 40, 25), (7.4, 1, 20, 7), (117, 116, 119, 117), (1234, 900, 2000, 1000)],
)
def test_rounding(value, low, high, expected) -> None:
    rounded = round_as_a_person(value, low, high)
    assert low <= rounded <= high
    if value < 1000:
        assert rounded == expected
    else:
        assert rounded % 100 == 0


TEXT = " ".join(f"{letter}orning, because {letter}ountain stands: a path of stone." for letter in "ABCDEFGHIJKLMNOP")
FAIR = ("word_count", "character_count", "sentence_count", "longest_sentence", "comma_count", "words_per_sentence")


@pytest.mark.parametrize("name", FAIR)
@pytest.mark.parametrize("flag", [True, False])
def test_both_directions_are_drawn_alike_whatever_the_flag(name: str, flag: bool) -> None:
    rng = random.Random(name)
    drawn = [REGISTRY[name].generate(TEXT, flag, rng) for _ in range(200)]
    share = sum(i.args["direction"] == "at least" for i in drawn if i is not None) / 200
    assert 0.36 < share < 0.64  # a fair coin, within 4 standard deviations of 0.035


@pytest.mark.parametrize(
    ("name", "key"), [("some_of_words", "direction"), ("all_of_words", "use"), ("any_of_words", "use")]
)
def test_a_list_of_words_tells_no_flag(name: str, key: str, real_pairs: list[tuple[str, str]]) -> None:
    rng = random.Random(0)
    for flag in (True, False):
        drawn = [REGISTRY[name].generate(a, flag, rng, other=b) for a, b in real_pairs]
        sides = [instruction.args[key] in (True, "at least") for instruction in drawn if instruction is not None]
        assert 0.35 < sides.count(True) / len(sides) < 0.65
