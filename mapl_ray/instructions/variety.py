"""Instructions on vocabulary: variety, word length, letters."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from string import ascii_lowercase

from mapl_ray.instructions.builders import count_function, span_verdict, within_bound
from mapl_ray.instructions.claims import all_of, bounded
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.ifeval import at_bound
from mapl_ray.instructions.phrasing import quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold, in_random_order
from mapl_ray.instructions.tokens import long_span, longest_span, stripped
from mapl_ray.instructions.types import Args, Case, IfEval
from mapl_ray.instructions.verdicts import Span
from mapl_ray.instructions.word_lists import COUNTED_LETTERS
from mapl_ray.instructions.wordings import words

_FAMILY = "vocabulary"
# Letters of the longest word: nearly every text has a word of 6 letters, and hardly any has one of 19.
_SHORTEST, _LONGEST = 7, 18

unique_word_count = count_function(
    "unique_word_count",
    _FAMILY,
    lambda text: len(text.word_counts),
    words.UNIQUE_WORDS,
    span=lambda text: text.unique_span,
    spaced=True,
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
    span=lambda text: longest_span(text.text),
    spaced=True,
    least=_SHORTEST,
    most=_LONGEST,
)


def _ifeval_letter(args: Args) -> IfEval | None:
    # IFEval counts in `value.lower()`, as the checker here. It replaces anything but one letter from a to z by a random
    # letter.
    letter = args["letter"]
    if len(letter) != 1 or letter not in ascii_lowercase:
        return None
    return at_bound("keywords:letter_frequency", args, number="let_frequency", relation="let_relation", letter=letter)


def _letter_span(text: Features, letter: str) -> Span:
    """Span of a letter's occurrences: only some readers count accented forms of it."""
    count = text.lower.count(letter)
    if text.ascii:
        return Span(count, count)
    return Span.over(count, *(form.count(letter) for form in text.measure("letter forms", _letter_forms)))


def _letter_forms(text: Features) -> tuple[str, str]:
    return unicodedata.normalize("NFC", text.lower), unicodedata.normalize("NFKD", text.lower)


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(bounded(f"letter:{args['letter']}", args)),
    check=lambda text, args: within_bound(text.lower.count(args["letter"]), args),
    readings=lambda text, args: span_verdict(_letter_span(text, args["letter"]), args),
    phrasings=lambda args: words.LETTER_COUNT.of(args, letter=quoted(args["letter"])),
    ifeval=_ifeval_letter,
    size=True,
)
def letter_count(case: Case, rng: random.Random) -> Args | None:
    """Draw a bound on the occurrences of a letter, lower or upper case."""
    for letter in rng.sample(COUNTED_LETTERS, 4):
        values = [(_letter_span(text, letter), flag) for text, flag in case.flags]
        for direction in in_random_order(DIRECTIONS, rng):
            n = draw_threshold(values, direction, rng, least=2)
            if n is not None:
                return {"letter": letter, "direction": direction, "n": n}
    return None


long_word_count = count_function(
    "long_word_count",
    _FAMILY,
    lambda text: sum(len(word) > 9 and word.isalpha() for word in text.words),
    words.LONG_WORDS,
    span=lambda text: long_span(text.text, 10),
    spaced=True,
    size=True,
)

most_frequent_word = count_function(
    "most_frequent_word",
    _FAMILY,
    lambda text: max((n for word, n in text.word_counts.items() if len(word) > 4 and word.isalpha()), default=0),
    words.MOST_FREQUENT_WORD,
    span=lambda text: Span.over(max((n for word, n in text.plain_counts.items() if len(word) > 4), default=0)),
    spaced=True,
    least=2,
    size=True,
)


def _initials(text: Features) -> dict[str, int]:
    return Counter(word[0] for word in text.folded_words)


def _first_letters(text: Features) -> dict[str, int]:
    """First letters of the pieces between spaces, without preceding marks and diacritics."""
    starts = [token[0] if token[0].isalnum() else stripped(token)[:1] for token in fold(text.text).split()]
    return Counter(starts if text.ascii else [unicodedata.normalize("NFD", start)[:1] for start in starts])


def _initial_span(text: Features, letter: str) -> Span:
    forms = text.measure("initials", _initials), text.measure("first letters", _first_letters)
    return Span.over(*(form.get(letter, 0) for form in forms))


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(bounded(f"initial:{args['letter']}", args)),
    check=lambda text, args: within_bound(text.measure("initials", _initials).get(args["letter"], 0), args),
    readings=lambda text, args: span_verdict(_initial_span(text, args["letter"]), args),
    spaced=True,
    phrasings=lambda args: words.INITIAL_COUNT.of(args, letter=quoted(args["letter"])),
    size=True,
)
def initial_count(case: Case, rng: random.Random) -> Args | None:
    """Draw a bound on the number of words that begin with a letter."""
    for letter in rng.sample(COUNTED_LETTERS, 4):
        values = [(_initial_span(text, letter), flag) for text, flag in case.flags]
        for direction in in_random_order(DIRECTIONS, rng):
            n = draw_threshold(values, direction, rng, least=2)
            if n is not None:
                return {"letter": letter, "direction": direction, "n": n}
    return None
