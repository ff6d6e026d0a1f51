"""Instructions on letter case."""

from __future__ import annotations

import re

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import count_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.tokens import stripped
from mapl_ray.instructions.verdicts import Span
from mapl_ray.instructions.wordings import layout

_FAMILY = "case"
_ROMAN = re.compile(r"[IVXLCDM]+")


def _capital_span(text: Features) -> Span:
    """Span from words without Roman numerals and parts of compounds, to names such as U.S., B2B, MAX_SIZE, and PCs."""
    pieces = [token for token in text.text.split() if token[1:] != token[1:].lower()]
    words = [word for token in pieces if sum(map(str.isupper, word := stripped(token))) > 1]
    clear = sum(word.isupper() and word.isalpha() and not _ROMAN.fullmatch(word) for word in words)
    return Span.over(clear, len(words), rules.capital_words(text.words) + len(words) - clear)


capital_word_count = count_function(
    "capital_word_count",
    _FAMILY,
    lambda text: rules.capital_words(text.words),
    layout.CAPITAL_WORDS,
    span=_capital_span,
    spaced=True,
    size=True,
)
