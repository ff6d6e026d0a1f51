"""Vocabulary: how varied, how long, which letters."""

from __future__ import annotations

import random
from collections import Counter
from string import ascii_lowercase

from mapl_ray.instructions.builders import count_function, within_bound
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.ifeval import at_bound
from mapl_ray.instructions.phrasing import quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold, in_random_order
from mapl_ray.instructions.types import Args, Case, IfEval
from mapl_ray.instructions.word_lists import COUNTED_LETTERS
from mapl_ray.instructions.wordings import words

_FAMILY = "vocabulary"

unique_word_count = count_function(
    "unique_word_count",
    _FAMILY,
    lambda text: len(text.word_counts),
    words.UNIQUE_WORDS,
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
    words.LONGEST_WORD,
    least=5,
)


def _ifeval_letter(args: Args) -> IfEval | None:
    # IFEval counts in `value.lower()`, as the checker here; for anything but one letter from a to z it draws one.
    letter = args["letter"]
    if len(letter) != 1 or letter not in ascii_lowercase:
        return None
    return at_bound("keywords:letter_frequency", args, number="let_frequency", relation="let_relation", letter=letter)


@instruction_function(
    family=_FAMILY,
    check=lambda text, args: within_bound(text.lower.count(args["letter"]), args),
    phrasings=lambda args: words.LETTER_COUNT.of(args, letter=quoted(args["letter"])),
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
    words.LONG_WORDS,
    quantity="long_words",
    size=True,
)

most_frequent_word = count_function(
    "most_frequent_word",
    _FAMILY,
    lambda text: max((count for word, count in text.word_counts.items() if len(word) > 4), default=0),
    words.MOST_FREQUENT_WORD,
    least=2,
    size=True,
)


def _initials(text: Features) -> dict[str, int]:
    return Counter(word[0] for word in text.folded_words)


@instruction_function(
    family=_FAMILY,
    check=lambda text, args: within_bound(text.measure("initials", _initials).get(args["letter"], 0), args),
    phrasings=lambda args: words.INITIAL_COUNT.of(args, letter=quoted(args["letter"])),
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
