"""The time of every function grows with the length of a text, and not with its square, whatever the text is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapl_ray.instructions import REGISTRY, Features
from mapl_ray.instructions.types import _FUNCTIONS
from tests.instructions.hostile import PIECES, seconds, text_of

TIMES_LONGER = 8
# Between the growth of a linear rule, 8, and that of a quadratic one, 64: a machine that does other work wavers.
MOST_GROWTH = 24
NOISE_SECONDS = 0.02  # what takes less says nothing
TRIES = 4


def growing_too_fast(unit: str, length: int) -> list[str]:
    """Functions whose time grows faster than the text; each is measured again before it is named.

    The texts' features are shared, so that each is computed once, and counts for the function that asks first.
    """
    slow = [function for function in REGISTRY.values() if function.sides != "soft"]
    for _ in range(TRIES):
        short, long = (Features(text_of(unit, size)) for size in (length, TIMES_LONGER * length))
        times = {function.name: (seconds(function, short), seconds(function, long)) for function in slow}
        slow = [one for one in slow if _too_fast(*times[one.name])]
        if not slow:
            return []
    return [f"{one.name} on {unit!r}: {times[one.name]}" for one in slow]


def _too_fast(short: float, long: float) -> bool:
    return long > NOISE_SECONDS and long > MOST_GROWTH * short


@pytest.mark.parametrize("unit", PIECES)
def test_time_grows_with_the_length(unit: str) -> None:
    assert growing_too_fast(unit, 2_500) == []


@pytest.mark.long
@pytest.mark.parametrize("unit", PIECES)
def test_a_megabyte(unit: str) -> None:
    assert growing_too_fast(unit, 125_000) == []


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=2, max_size=4))
def test_mixed_units(pieces: list[str]) -> None:
    assert growing_too_fast("".join(pieces), 25_000) == []


def test_a_quadratic_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: a rule that looks for every word among all words."""
    function = REGISTRY["word_count"]

    def quadratic(text: Features, args: object) -> bool:
        return sum(words.count(word) for word in words) > 0 if (words := text.text.split()) else False

    slow = type(function)(
        name="quadratic", family="x", quantity="x", draw=lambda case, rng: {}, check=quadratic,
        phrasings=lambda args: ["Go on."],
    )  # fmt: skip
    monkeypatch.setitem(_FUNCTIONS, "quadratic", slow)
    monkeypatch.setattr("tests.instructions.test_hostile.REGISTRY", {"quadratic": slow})
    assert len(growing_too_fast("word ", 2_000)) == 1
