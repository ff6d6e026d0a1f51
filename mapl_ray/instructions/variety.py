"""Vocabulary: how varied, how long, which letters."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from string import ascii_lowercase

from mapl_ray.instructions.builders import COUNT_TEMPLATES, count_function, within_bound
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.ifeval import at_bound
from mapl_ray.instructions.phrasing import bound_phrases, fill_bounds, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold, in_random_order
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


def _ifeval_letter(args: Args) -> IfEval | None:
    # IFEval counts in `value.lower()`, as the checker here; for anything but one letter from a to z it draws one.
    letter = args["letter"]
    if len(letter) != 1 or letter not in ascii_lowercase:
        return None
    return at_bound("keywords:letter_frequency", args, number="let_frequency", relation="let_relation", letter=letter)


def _letter_phrasings(args: Args) -> Sequence[str]:
    letter = quoted(args["letter"])
    return fill_bounds(
        (
            "Use the letter {letter} {bound}, in small or capital form.",
            "The letter {letter} should occur {bound} in your response (small or capital).",
            "Let the letter {letter} appear {bound} in the answer, capitals included.",
            "Counting capitals too, the letter {letter} must appear {bound}.",
        ),
        bound_phrases(args["direction"], args["n"], "time", "times"),
        letter=letter,
    )


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
        for direction in in_random_order(DIRECTIONS, rng):
            n = draw_threshold(values, direction, rng)
            if n is not None:
                return {"letter": letter, "direction": direction, "n": n}
    return None


long_word_count = count_function(
    "long_word_count",
    _FAMILY,
    lambda text: sum(len(word) > 9 and word.isalpha() for word in text.words),
    ("word of ten or more letters", "words of ten or more letters"),
    COUNT_TEMPLATES,
    quantity="long_words",
    size=True,
)

most_frequent_word = count_function(
    "most_frequent_word",
    _FAMILY,
    lambda text: max((count for word, count in text.word_counts.items() if len(word) > 4), default=0),
    ("time", "times"),
    (
        "The word of five or more letters that you use most should occur {bound}.",
        "Let your most frequent word of five or more letters occur {bound}.",
        "Of all words of five or more letters, the most frequent one should appear {bound} in your response.",
        "The answer's most frequent word of at least five letters must occur {bound}.",
    ),
    least=2,
    size=True,
)


def _initial_phrasings(args: Args) -> Sequence[str]:
    letter = quoted(args["letter"])
    return fill_bounds(
        (
            "Use {bound} beginning with the letter {letter}, small or capital.",
            "Your response should contain {bound} beginning with {letter} (small or capital).",
            "Let {bound} begin with the letter {letter}, capitals included.",
            "Counting capitals too, {bound} must begin with the letter {letter}.",
        ),
        bound_phrases(args["direction"], args["n"], "word", "words"),
        letter=letter,
    )


def _initials(text: Features) -> dict[str, int]:
    return Counter(word[0] for word in text.folded_words)


@instruction_function(
    family=_FAMILY,
    check=lambda text, args: within_bound(text.measure("initials", _initials).get(args["letter"], 0), args),
    phrasings=_initial_phrasings,
    size=True,
)
def initial_count(case: Case, rng: random.Random) -> Args | None:
    """How many words begin with a letter."""
    for letter in rng.sample(COUNTED_LETTERS, 4):
        values = [(text.measure("initials", _initials).get(letter, 0), flag) for text, flag in case.flags]
        for direction in in_random_order(DIRECTIONS, rng):
            n = draw_threshold(values, direction, rng, least=2)
            if n is not None:
                return {"letter": letter, "direction": direction, "n": n}
    return None
