"""Instructions on the number and length of sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from mapl_ray.instructions.builders import count_function, presence_function
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.splitting import Reading, Sentences
from mapl_ray.instructions.text import first_spelled
from mapl_ray.instructions.text import words as words_of
from mapl_ray.instructions.tokens import word_span
from mapl_ray.instructions.verdicts import Span, Verdict, agreed
from mapl_ray.instructions.wordings import amounts, layout, marks

_FAMILY = "sentences"
_MOST_WORDS = 60  # words of a sentence: nobody asks for longer ones
_QUESTION_MARKS = "?\uff1f\u061f\u2047-\u2049"
_QUESTIONS = re.compile(f"[{_QUESTION_MARKS}](?:[{_QUESTION_MARKS}!]| [?!])*+")
_ASKS = re.compile(rf"[{_QUESTION_MARKS}]!*[\"'\u201d\u2019)\]*_ ]*\Z")


def _over(text: Features, *spans: Callable[[Sentences], Span]) -> Span:
    return Span.over(*(span(sentences) for sentences in text.sentence_readings for span in spans))


def _longest_by_readings(text: Features) -> Span:
    readings = [s.by(reading) for s in text.sentence_readings for reading in Reading]
    readings += [pieces for s in text.sentence_readings for pieces in (s.finished, s.running)]
    # Only the three with the most characters: the others are shorter under nearly any reading. Readings share most
    # pieces, so each piece is counted once.
    candidates = [sorted(pieces, key=len)[-3:] for pieces in readings]
    words = {piece: word_span(piece) for piece in {piece for pieces in candidates for piece in pieces}}
    return Span.over(*(_longest([words[piece] for piece in pieces] or [Span(0, 0)]) for pieces in candidates))


def _longest(lengths: Sequence[Span]) -> Span:
    return Span(max(length.fewest for length in lengths), max(length.most for length in lengths))


def _joint(pieces: Sequence[str]) -> Span:
    return Span.over(*(word_span(piece) for piece in pieces)) if pieces else Span(0, 0)


def asks(sentence: str) -> bool:
    """Whether a sentence ends with a question mark; an exclamation mark, quotes and brackets may follow."""
    return _ASKS.search(sentence[-80:]) is not None


sentence_count = count_function(
    "sentence_count",
    _FAMILY,
    lambda text: len(text.sentences),
    amounts.SENTENCE_COUNT,
    span=lambda text: _over(text, lambda s: Span.over(len(s.finished), len(s.by(Reading.FINEST)))),
    size=True,
    least=2,
)

longest_sentence = count_function(
    "longest_sentence",
    _FAMILY,
    lambda text: max(text.sentence_lengths, default=0),
    amounts.LONGEST_SENTENCE,
    span=_longest_by_readings,
    spaced=True,
    size=True,
    least=5,
    most=_MOST_WORDS,
)

first_sentence = count_function(
    "first_sentence",
    _FAMILY,
    lambda text: len(words_of(text.sentences[0])) if text.sentences else 0,
    amounts.FIRST_SENTENCE,
    span=lambda text: _over(text, lambda sentences: _joint(sentences.first)),
    spaced=True,
    least=3,
    most=_MOST_WORDS,
    size=True,
)

last_sentence = count_function(
    "last_sentence",
    _FAMILY,
    lambda text: len(words_of(text.sentences[-1])) if text.sentences else 0,
    amounts.LAST_SENTENCE,
    span=lambda text: _over(text, lambda sentences: _joint(sentences.last)),
    spaced=True,
    least=3,
    most=_MOST_WORDS,
    size=True,
)

question_count = count_function(
    "question_count",
    _FAMILY,
    lambda text: sum(map(asks, text.sentences)),
    marks.QUESTION_COUNT,
    span=lambda text: _over(text, lambda s: Span.over(sum(map(asks, s.finished)), len(_QUESTIONS.findall(text.text)))),
    size=True,
)


def _repeats_a_start(sentences: Sequence[str]) -> bool:
    starts = (fold(first_spelled(sentence) or "") for sentence in sentences)
    return any(one == following for one, following in pairwise(starts))


def _surely_repeats(text: Features) -> Verdict:
    readings = [s.by(reading) for s in text.sentence_readings for reading in Reading]
    readings += [s.running for s in text.sentence_readings]
    different = [pieces for i, pieces in enumerate(readings) if pieces not in readings[:i]]
    return agreed(map(_repeats_a_start, different))


repeated_start_use = presence_function(
    "repeated_start_use",
    _FAMILY,
    lambda text: _repeats_a_start(text.sentences),
    layout.SENTENCE_STARTS,
    surely=_surely_repeats,
    spaced=True,
)
