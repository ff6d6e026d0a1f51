"""Instructions on paragraphs: blocks of lines between blank lines."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mapl_ray.instructions import blocks
from mapl_ray.instructions.builders import count_function, exact_function
from mapl_ray.instructions.claims import stands
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.phrasing import fill, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.start_end import usable
from mapl_ray.instructions.text import first_spelled, words
from mapl_ray.instructions.tokens import folded, opening_readings, word_span
from mapl_ray.instructions.types import Args, Case
from mapl_ray.instructions.verdicts import Span, Verdict, agreed
from mapl_ray.instructions.word_lists import OPENERS
from mapl_ray.instructions.wordings import amounts, places

_FAMILY = "paragraphs"
_LOOKED_AT = 4  # consecutive titles and lists to skip before giving up on finding a paragraph


def _openings(paragraphs: Sequence[str]) -> list[str]:
    """Candidates for the first paragraph: only the very first, unless that is a title or a list."""
    found: list[str] = []
    for paragraph in paragraphs[:_LOOKED_AT]:
        found.append(paragraph)
        found += blocks.introduction(paragraph)
        if not blocks.is_title(paragraph) and not blocks.item_end(paragraph):
            break
        # If a list ends the text, its last item also counts, or the paragraph before it.
        found += [line for line in paragraph.split("\n")[-1:] if blocks.item_end(line)]
    return found or [""]


def _joined(text: Features) -> Span:
    """Number of paragraphs under all readings; only some readers call one block of several lines one paragraph."""
    span = text.paragraph_span
    return Span(1, max(1, sum(map(bool, map(str.strip, text.lines))))) if span == (1, 1) else span


def _of_last(text: Features) -> Span:
    """Number of words of the last paragraph; may be 0 if there is only one, which some readers do not call the last."""
    words_of_last = map(word_span, _openings(text.paragraphs[::-1]))
    return Span.over(*words_of_last, *(() if _several(text) else (0,)))


def _several(text: Features) -> bool:
    return text.paragraph_span.fewest > 1


paragraph_count = count_function(
    "paragraph_count",
    _FAMILY,
    lambda text: len(text.paragraphs),
    amounts.PARAGRAPH_COUNT,
    span=lambda text: text.paragraph_span,
    size=True,
    least=2,
)

first_paragraph = count_function(
    "first_paragraph",
    _FAMILY,
    lambda text: len(words(text.paragraphs[0])) if text.paragraphs else 0,
    amounts.FIRST_PARAGRAPH,
    span=lambda text: Span.over(*map(word_span, _openings(text.paragraphs))),
    spaced=True,
    least=5,
    size=True,
)

last_paragraph = count_function(
    "last_paragraph",
    _FAMILY,
    lambda text: len(words(text.paragraphs[-1])) if text.paragraphs else 0,
    amounts.LAST_PARAGRAPH,
    span=_of_last,
    spaced=True,
    least=5,
    size=True,
)

paragraph_exact = exact_function(
    "paragraph_exact",
    _FAMILY,
    lambda text: len(text.paragraphs),
    amounts.PARAGRAPH_EXACT,
    span=_joined,
    size=True,
)


def _start(text: Features) -> str | None:
    return first_spelled(text.paragraphs[-1]) if text.paragraphs else None


def _last_starts(text: Features, word: str) -> bool:
    start = text.measure("last_paragraph_word", _start)
    return start is not None and fold(start) == fold(word)


def _surely_starts(text: Features, args: Args) -> Verdict:
    word = folded(args["word"])
    if not _several(text) and _last_starts(text, args["word"]):
        return None
    starts = [words for block in _openings(text.paragraphs[::-1]) for words in opening_readings(block, 1)]
    return agreed(words == [word] for words in starts)


@instruction_function(
    family=_FAMILY,
    claims=lambda args: stands("last_paragraph_start", args["word"]),
    check=lambda text, args: _last_starts(text, args["word"]),
    readings=_surely_starts,
    spaced=True,
    phrasings=lambda args: fill(places.LAST_PARAGRAPH_START, word=quoted(args["word"])),
)
def last_paragraph_start(case: Case, rng: random.Random) -> Args | None:
    """Draw the first word of the last paragraph."""
    wanted = [text.measure("last_paragraph_word", _start) for text in case.satisfied]
    near = [text.measure("last_paragraph_word", _start) for text in case.context]
    pool = wanted[:1] or [*near, *OPENERS]
    fitting = [
        word
        for word in pool
        if word is not None and usable(word) and all(_last_starts(text, word) == flag for text, flag in case.flags)
    ]
    return {"word": rng.choice(fitting)} if fitting else None
