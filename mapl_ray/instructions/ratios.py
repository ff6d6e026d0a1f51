"""Averages and shares, as whole numbers; the margin of a threshold covers what rounding leaves open."""

from __future__ import annotations

from mapl_ray.instructions.builders import count_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.wordings import amounts, words

_FAMILY = "ratios"
_MOST_PERCENT = 95  # "at most 100 percent" says nothing


def _average(part: int, of: int) -> int:
    return round(part / of) if of else 0


def _long_share(text: Features) -> int:
    return _average(100 * sum(len(word) > 6 for word in text.words), len(text.words))


words_per_sentence = count_function(
    "words_per_sentence",
    _FAMILY,
    lambda text: _average(sum(text.sentence_lengths), len(text.sentence_lengths)),
    amounts.WORDS_PER_SENTENCE,
    quantity="words_per_sentence",
    least=4,
    size=True,
)

words_per_paragraph = count_function(
    "words_per_paragraph",
    _FAMILY,
    lambda text: _average(len(text.words), len(text.paragraphs)),
    amounts.WORDS_PER_PARAGRAPH,
    quantity="words_per_paragraph",
    least=5,
    size=True,
)

long_word_share = count_function(
    "long_word_share",
    _FAMILY,
    _long_share,
    words.LONG_WORD_SHARE,
    quantity="long_words",
    least=4,
    most=_MOST_PERCENT,
)
