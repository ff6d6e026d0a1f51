"""What becomes of a pair by its margin."""

from dataclasses import replace
from typing import Any

import pytest

from mapl_ray.config import PairMarginConfig
from mapl_ray.data.records import Judgement, Message, PreferencePair, Rejection
from mapl_ray.scoring.pair_rewards import score_pairs, with_scores

PAIR = PreferencePair("a", (Message("user", "Why?"),), "river stone bread", "stone", "made-up", margin=7.0)


class LengthScorer:
    """The reward is the number of tokens of the whole sequence."""

    max_tokens = 100

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def score(self, token_ids: Any, starts: Any) -> list[float]:
        return [float(len(ids)) for ids in token_ids]


def test_rewards_of_pairs_and_one_that_is_too_long(tokenizer: Any) -> None:
    scorer = LengthScorer(tokenizer)
    first, long, swapped = score_pairs(
        [PAIR, replace(PAIR, rejected="river " * 200), replace(PAIR, chosen="stone", rejected=PAIR.chosen)], scorer
    )
    assert isinstance(first, tuple)
    assert first[0] - first[1] == 2.0
    assert swapped == first[::-1]
    assert isinstance(long, Rejection)
    assert (long.stage, long.pair_id) == ("score", "a")


@pytest.mark.parametrize(
    ("bound", "rewards", "kept"),
    [
        (0.5, (1.0, 0.5), True),  # at the bound
        (0.5, (1.0, 0.75), False),
        (0.0, (-1.0, -0.5), False),
        (-1.0, (-1.0, -0.5), True),
        (None, (-9.0, 9.0), True),
        (0.0, None, False),  # no number, no margin
        (None, None, True),
    ],
)
def test_small_margins_are_dropped(bound: float | None, rewards: tuple[float, float] | None, kept: bool) -> None:
    found = {} if rewards is None else {"a": rewards}
    result = with_scores(PAIR, PairMarginConfig(min_margin=bound), found, {})
    if kept:
        assert result == PAIR
    else:
        assert isinstance(result, Rejection)
        assert (result.stage, result.pair_id, result.source) == ("score", "a", "made-up")
        number = "no reward" if rewards is None else f"{rewards[0] - rewards[1]:+.4f}"
        assert number in result.reason
        assert f"min_margin={bound:g}" in result.reason


def test_margins_and_judgements_are_filled() -> None:
    config = PairMarginConfig(fill_margin=True)
    filled = with_scores(PAIR, config, {"a": (2.0, 0.5)}, {"a": [Judgement("formal_tone", 0.9, 0.1)]})
    assert filled == replace(PAIR, margin=1.5, judgements=(Judgement("formal_tone", 0.9, 0.1),))
    assert with_scores(PAIR, config, {}, {}) == replace(PAIR, margin=None)  # one scale, or nothing
    given = replace(PAIR, judgements=(Judgement("persuasive", 0.2, 0.8),))
    both = with_scores(given, PairMarginConfig(), {}, {"a": [Judgement("formal_tone", 0.9, 0.1)]})
    assert isinstance(both, PreferencePair)
    assert [judgement.name for judgement in both.judgements] == ["persuasive", "formal_tone"]
