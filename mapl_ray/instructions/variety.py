"""Vocabulary: how varied, how long, which letters."""

from __future__ import annotations

import random

from mapl_ray.instructions.builders import COUNT_TEMPLATES, count_function, within_bound
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.phrasing import bound_phrases, fill, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold
from mapl_ray.instructions.types import Args, Case, IfEval
from mapl_ray.instructions.word_lists import COUNTED_LETTERS

_FAMILY = "vocabulary"

unique_word_count = count_function(
    "unique_word_count",
    _FAMILY,
    lambda text: len(text.word_counts),
    ("different word", "different words"),
    COUNT_TEMPLATES,
    quantity="unique_words",
    size=True,
    least=5,
)


def _longest_word(text: Features) -> int:
    return max((len(word) for word in text.word_counts if word.isalpha()), default=0)


longest_word = count_function(
    "longest_word",
    _FAMILY,
    _longest_word,
    ("letter", "letters"),
    (
        "The longest word should have {bound}.",
        "Let your longest word have {bound}.",
        "Make sure the longest word of the answer has {bound}.",
        "Your response's longest word must consist of {bound}.",
    ),
    least=5,
)


def _ifeval_letter(args: Args) -> IfEval:
    # IFEval counts in `value.lower()`, as the checker here, and knows "at least n" and "less than n".
    at_least = args["direction"] == "at least"
    return "keywords:letter_frequency", {
        "letter": args["letter"],
        "let_frequency": args["n"] if at_least else args["n"] + 1,
        "let_relation": "at least" if at_least else "less than",
    }


def _letter_phrasings(args: Args) -> list[str]:
    letter = quoted(args["letter"])
    texts: list[str] = []
    for bound in bound_phrases(args["direction"], args["n"], "time", "times"):
        texts += fill(
            (
                "Use the letter {letter} {bound}, in small or capital form.",
                "The letter {letter} should occur {bound} in your response (small or capital).",
                "Let the letter {letter} appear {bound} in the answer, capitals included.",
                "Counting capitals too, the letter {letter} must appear {bound}.",
            ),
            letter=letter,
            bound=bound,
        )
    return texts


@instruction_function(
    family=_FAMILY,
    check=lambda text, args: within_bound(text.lower.count(args["letter"]), args),
    phrasings=_letter_phrasings,
    ifeval=_ifeval_letter,
    size=True,
)
def letter_count(case: Case, rng: random.Random) -> Args | None:
    """How often a letter occurs, small or capital."""
    for letter in rng.sample(COUNTED_LETTERS, 4):
        values = [(text.lower.count(letter), flag) for text, flag in case.flags]
        for direction in rng.sample(DIRECTIONS, 2):
            n = draw_threshold(values, direction, rng)
            if n is not None:
                return {"letter": letter, "direction": direction, "n": n}
    return None
