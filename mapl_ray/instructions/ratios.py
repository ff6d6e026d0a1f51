"""Averages and shares, as whole numbers; the margin of a threshold covers what rounding leaves open."""

from __future__ import annotations

from mapl_ray.instructions.builders import count_function
from mapl_ray.instructions.features import Features

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
    ("word", "words"),
    (
        "On average, your sentences should have {bound}.",
        "Let the average sentence have {bound}.",
        "The average length of a sentence must be {bound}.",
        "Write sentences that have {bound} on average.",
    ),
    quantity="words_per_sentence",
    least=4,
    size=True,
)

words_per_paragraph = count_function(
    "words_per_paragraph",
    _FAMILY,
    lambda text: _average(len(text.words), len(text.paragraphs)),
    ("word", "words"),
    (
        "On average, your paragraphs should have {bound}.",
        "Let the average paragraph have {bound}.",
        "The average length of a paragraph (blank lines separate them) must be {bound}.",
        "Write paragraphs that have {bound} on average.",
    ),
    quantity="words_per_paragraph",
    least=5,
    size=True,
)

unique_share = count_function(
    "unique_share",
    _FAMILY,
    lambda text: _average(100 * len(text.word_counts), len(text.words)),
    ("percent", "percent"),
    (
        "The number of different words should be {bound} of the number of all words.",
        "Let the different words make up {bound} of the word count.",
        "Counting each word once, your response should still have {bound} of its word count.",
        "The share of different words among all words must be {bound}.",
    ),
    quantity="unique_words",
    least=10,
    most=_MOST_PERCENT,
    size=True,
)

long_word_share = count_function(
    "long_word_share",
    _FAMILY,
    _long_share,
    ("percent", "percent"),
    (
        "Words of seven or more letters should make up {bound} of all words.",
        "Let {bound} of your words have seven or more letters.",
        "In your response, {bound} of the words should be seven letters long or longer.",
        "The share of words with at least seven letters must be {bound}.",
    ),
    quantity="long_words",
    least=4,
    most=_MOST_PERCENT,
)
