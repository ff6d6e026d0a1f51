"""Instructions on length: words and characters of the whole response."""

from __future__ import annotations

import random

from mapl_ray.instructions.builders import count_function
from mapl_ray.instructions.claims import Bound, all_of
from mapl_ray.instructions.ifeval import at_bound
from mapl_ray.instructions.phrasing import fill
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import draw_range
from mapl_ray.instructions.tokens import character_span
from mapl_ray.instructions.types import Args, Case, IfEval
from mapl_ray.instructions.wordings import amounts

_FAMILY = "length"


def _ifeval_words(args: Args) -> IfEval | None:
    # Both count `\w+` runs with the package `regex`. NLTK versions that use `re` end a word at a combining mark.
    return at_bound("length_constraints:number_words", args, number="num_words", relation="relation")


def _ifbench_range(args: Args) -> IfEval | None:
    low, high = args["low"], args["high"]
    if not all(isinstance(n, int) and n >= 0 for n in (low, high)):  # IFBench replaces negative numbers by random ones
        return None
    return "count:word_count_range", {"min_words": low, "max_words": high}


word_count = count_function(
    "word_count",
    _FAMILY,
    lambda text: text.num_words,
    amounts.WORD_COUNT,
    span=lambda text: text.word_span,
    spaced=True,
    ifeval=_ifeval_words,
    size=True,
    least=5,
)

character_count = count_function(
    "character_count",
    _FAMILY,
    lambda text: text.num_characters,
    amounts.CHARACTER_COUNT,
    span=lambda text: character_span(text.text),
    min_gap=20,
    size=True,
    least=50,
)


@instruction_function(
    family=_FAMILY,
    quantity="word",
    claims=lambda args: all_of(Bound("word", args["low"], args["high"])),
    check=lambda text, args: bool(args["low"] <= text.num_words <= args["high"]),
    phrasings=lambda args: fill(amounts.WORD_COUNT_BETWEEN, **args),
    ifeval=_ifbench_range,
    readings=lambda text, args: text.word_span.within(args["low"], args["high"]),
    spaced=True,
    size=True,
)
def word_count_between(case: Case, rng: random.Random) -> Args | None:
    """Draw a range for the number of words, both ends included."""
    ends = draw_range([(text.word_span, flag) for text, flag in case.flags], rng, least=3)
    return None if ends is None or ends[0] >= ends[1] else {"low": ends[0], "high": ends[1]}
