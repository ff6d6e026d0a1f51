"""Sentences: how many, and how long."""

from __future__ import annotations

from mapl_ray.instructions.builders import count_function

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
        "Open with a sentence of {bound}.",
        "Use {bound} in the first sentence of your response.",
        "Your opening sentence must contain {bound}.",
    ),
    least=3,
)

last_sentence = count_function(
    "last_sentence",
    _FAMILY,
    lambda text: text.sentence_lengths[-1] if text.sentence_lengths else 0,
    ("word", "words"),
    (
        "The last sentence should have {bound}.",
        "Close with a sentence of {bound}.",
        "Use {bound} in the last sentence of your response.",
        "Your closing sentence must contain {bound}.",
    ),
    least=3,
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
)
