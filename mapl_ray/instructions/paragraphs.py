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
from mapl_ray.instructions.wordings import amounts, places

_FAMILY = "paragraphs"

paragraph_count = count_function(
    "paragraph_count",
    _FAMILY,
    lambda text: len(text.paragraphs),
    amounts.PARAGRAPH_COUNT,
    size=True,
    least=2,
)

first_paragraph = count_function(
    "first_paragraph",
    _FAMILY,
    lambda text: len(words(text.paragraphs[0])) if text.paragraphs else 0,
    amounts.FIRST_PARAGRAPH,
    least=5,
    size=True,
)

last_paragraph = count_function(
    "last_paragraph",
    _FAMILY,
    lambda text: len(words(text.paragraphs[-1])) if text.paragraphs else 0,
    amounts.LAST_PARAGRAPH,
    least=5,
    size=True,
)

paragraph_exact = exact_function(
    "paragraph_exact",
    _FAMILY,
    lambda text: len(text.paragraphs),
    amounts.PARAGRAPH_EXACT,
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
    phrasings=lambda args: fill(places.LAST_PARAGRAPH_START, word=quoted(args["word"])),
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
