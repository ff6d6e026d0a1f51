"""Sentences: how many, and how long."""

from __future__ import annotations

from itertools import pairwise

from mapl_ray.instructions.builders import count_function, presence_function
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.text import first_word
from mapl_ray.instructions.wordings import amounts, layout, marks

_FAMILY = "sentences"

sentence_count = count_function(
    "sentence_count",
    _FAMILY,
    lambda text: len(text.sentences),
    amounts.SENTENCE_COUNT,
    size=True,
    least=2,
)

longest_sentence = count_function(
    "longest_sentence",
    _FAMILY,
    lambda text: max(text.sentence_lengths, default=0),
    amounts.LONGEST_SENTENCE,
    size=True,
    least=5,
)

first_sentence = count_function(
    "first_sentence",
    _FAMILY,
    lambda text: text.sentence_lengths[0] if text.sentence_lengths else 0,
    amounts.FIRST_SENTENCE,
    least=3,
    size=True,
)

last_sentence = count_function(
    "last_sentence",
    _FAMILY,
    lambda text: text.sentence_lengths[-1] if text.sentence_lengths else 0,
    amounts.LAST_SENTENCE,
    least=3,
    size=True,
)

question_count = count_function(
    "question_count",
    _FAMILY,
    lambda text: sum(sentence.rstrip("\"'\u201d\u2019)]*_ ").endswith(("?", "\uff1f")) for sentence in text.sentences),
    marks.QUESTION_COUNT,
    excludes=("question_mark",),
    size=True,
)


def _repeats_a_start(text: Features) -> bool:
    starts = [fold(first_word(sentence) or "") for sentence in text.sentences]
    return any(one == following for one, following in pairwise(starts))


repeated_start_use = presence_function(
    "repeated_start_use",
    _FAMILY,
    _repeats_a_start,
    layout.SENTENCE_STARTS,
)
