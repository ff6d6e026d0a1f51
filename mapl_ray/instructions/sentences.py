"""Sentences: how many, and how long."""

from __future__ import annotations

from itertools import pairwise

from mapl_ray.instructions.builders import count_function, presence_function
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.text import first_word

_FAMILY = "sentences"

sentence_count = count_function(
    "sentence_count",
    _FAMILY,
    lambda text: len(text.sentences),
    ("sentence", "sentences"),
    (
        "Write {bound}.",
        "Your response should contain {bound}.",
        "Answer in {bound}.",
        "The answer must consist of {bound}.",
    ),
    size=True,
    least=2,
)

longest_sentence = count_function(
    "longest_sentence",
    _FAMILY,
    lambda text: max(text.sentence_lengths, default=0),
    ("word", "words"),
    (
        "The longest sentence should have {bound}.",
        "Let your longest sentence have {bound}.",
        "Make sure the longest sentence of the answer contains {bound}.",
        "In the longest sentence of your response, use {bound}.",
    ),
    size=True,
    least=5,
)

first_sentence = count_function(
    "first_sentence",
    _FAMILY,
    lambda text: text.sentence_lengths[0] if text.sentence_lengths else 0,
    ("word", "words"),
    (
        "The first sentence should have {bound}.",
        "Open with a sentence that has {bound}.",
        "Use {bound} in the first sentence of your response.",
        "Your opening sentence must contain {bound}.",
    ),
    least=3,
    size=True,
)

last_sentence = count_function(
    "last_sentence",
    _FAMILY,
    lambda text: text.sentence_lengths[-1] if text.sentence_lengths else 0,
    ("word", "words"),
    (
        "The last sentence should have {bound}.",
        "Close with a sentence that has {bound}.",
        "Use {bound} in the last sentence of your response.",
        "Your closing sentence must contain {bound}.",
    ),
    least=3,
    size=True,
)

question_count = count_function(
    "question_count",
    _FAMILY,
    lambda text: sum(sentence.rstrip("\"'\u201d\u2019)]*_ ").endswith(("?", "\uff1f")) for sentence in text.sentences),
    ("question", "questions"),
    (
        "Ask {bound}.",
        "Your response should contain {bound} (sentences that end with a question mark).",
        "Put {bound} into your answer.",
        "The answer must have {bound}, each ending with a question mark.",
    ),
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
    (
        "Begin two sentences in a row with the same word at least once.",
        "In your response, some sentence should start with the same word as the sentence before it.",
        "Let at least two neighbouring sentences open with the same word.",
        "The answer must have two consecutive sentences that start with the same word.",
    ),
    (
        "Never begin two sentences in a row with the same word.",
        "In your response, no sentence should start with the same word as the sentence before it.",
        "Let no two neighbouring sentences open with the same word.",
        "The answer must not have two consecutive sentences that start with the same word.",
    ),
)
