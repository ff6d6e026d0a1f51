"""Paragraphs: blocks of lines between blank lines."""

from __future__ import annotations

import random

from mapl_ray.instructions.builders import count_function, exact_function
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.phrasing import fill, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.start_end import usable
from mapl_ray.instructions.text import first_word, words
from mapl_ray.instructions.types import Args, Case
from mapl_ray.instructions.word_lists import OPENERS

_FAMILY = "paragraphs"

paragraph_count = count_function(
    "paragraph_count",
    _FAMILY,
    lambda text: len(text.paragraphs),
    ("paragraph", "paragraphs"),
    (
        "Write {bound}, separated by blank lines.",
        "Your response should contain {bound} with blank lines between them.",
        "Divide the answer by blank lines into {bound}.",
        "The answer must consist of {bound} (a blank line starts a new one).",
    ),
    size=True,
    least=2,
)

first_paragraph = count_function(
    "first_paragraph",
    _FAMILY,
    lambda text: len(words(text.paragraphs[0])) if text.paragraphs else 0,
    ("word", "words"),
    (
        "The first paragraph should have {bound}.",
        "Open with a paragraph that has {bound}.",
        "Use {bound} in the first paragraph of your response.",
        "Your opening paragraph must contain {bound}.",
    ),
    least=5,
    size=True,
)

last_paragraph = count_function(
    "last_paragraph",
    _FAMILY,
    lambda text: len(words(text.paragraphs[-1])) if text.paragraphs else 0,
    ("word", "words"),
    (
        "The last paragraph should have {bound}.",
        "Close with a paragraph that has {bound}.",
        "Use {bound} in the last paragraph of your response.",
        "Your closing paragraph must contain {bound}.",
    ),
    least=5,
    size=True,
)

paragraph_exact = exact_function(
    "paragraph_exact",
    _FAMILY,
    lambda text: len(text.paragraphs),
    ("paragraph", "paragraphs"),
    (
        "Write {count}; a blank line starts a new one.",
        "Your response should contain {count} (blank lines separate paragraphs).",
        "Give the answer {count}, as blank lines divide it.",
        "With blank lines between paragraphs, the answer must have {count}.",
    ),
    quantity="paragraph_count",
    size=True,
)


def _start(text: Features) -> str | None:
    return first_word(text.paragraphs[-1]) if text.paragraphs else None


def _last_starts(text: Features, word: str) -> bool:
    start = text.measure("last_paragraph_word", _start)
    return start is not None and fold(start) == fold(word)


@instruction_function(
    family=_FAMILY,
    check=lambda text, args: _last_starts(text, args["word"]),
    phrasings=lambda args: fill(
        (
            "Begin the last paragraph with the word {word}.",
            "The last paragraph of your response should start with the word {word}.",
            "Let your closing paragraph start with {word}.",
            "{word} must be the first word of the last paragraph.",
        ),
        word=quoted(args["word"]),
    ),
    excludes=("opening",),
)
def last_paragraph_start(case: Case, rng: random.Random) -> Args | None:
    """The first word of the last paragraph."""
    wanted = [text.measure("last_paragraph_word", _start) for text in case.satisfied]
    near = [text.measure("last_paragraph_word", _start) for text in case.context]
    pool = wanted[:1] or [*near, *OPENERS]
    fitting = [
        word
        for word in pool
        if word is not None and usable(word) and all(_last_starts(text, word) == flag for text, flag in case.flags)
    ]
    return {"word": rng.choice(fitting)} if fitting else None
