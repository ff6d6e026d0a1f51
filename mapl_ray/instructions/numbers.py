"""Instructions on numbers and digits."""

from __future__ import annotations

import re

from mapl_ray.instructions import blocks, signs
from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import count_function, exact_function, presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.verdicts import Span
from mapl_ray.instructions.wordings import marks

_FAMILY = "numbers"
_DIGIT_OF_ANY_SCRIPT = re.compile(r"\d")
_DIGIT = re.compile(r"[0-9]")


def _number_span(text: Features) -> Span:
    """Number of numbers under all readings; clear list numbers never count."""
    return text.measure("numbers span", _numbers_by_readings)


def _numbers_by_readings(text: Features) -> Span:
    if not _DIGIT_OF_ANY_SCRIPT.search(text.text):
        return Span(0, 0)
    every, clear = (_unnumbered(lines) for lines in (text.lines, text.prose_lines))
    numbering = text.over_prose("numbered", blocks.numbered_span).most - blocks.numbered_items(text.prose_lines)
    return signs.number_span(every, numbering, signs.prose("\n".join(clear)))


def _unnumbered(lines: list[str]) -> list[str]:
    return [line[blocks.number_end(line) :] for line in lines if _DIGIT_OF_ANY_SCRIPT.search(line)]


number_count = count_function(
    "number_count",
    _FAMILY,
    lambda text: rules.numbers(text.lines),
    marks.NUMBER_COUNT,
    span=_number_span,
    size=True,
)

number_exact = exact_function(
    "number_exact",
    _FAMILY,
    lambda text: rules.numbers(text.lines),
    marks.NUMBER_EXACT,
    span=_number_span,
    size=True,
    least=0,
)

digit_use = presence_function(
    "digit_use",
    _FAMILY,
    lambda text: _DIGIT.search(text.text) is not None,
    marks.DIGIT_USE,
    surely=lambda text: signs.surely_digits(text.text),
)

_YEAR = re.compile(r"(?<![\w.,])(?:1[0-9]|20)[0-9]{2}(?![\w%]|[.,][0-9])")
_PERCENT = re.compile(r"[0-9]\s?(?:%|per ?cent\b)", re.IGNORECASE)

year_use = presence_function(
    "year_use",
    _FAMILY,
    lambda text: _YEAR.search(text.text) is not None,
    marks.YEAR_USE,
    surely=lambda text: signs.surely_year(text.text),
)

percentage_use = presence_function(
    "percentage_use",
    _FAMILY,
    lambda text: _PERCENT.search(text.text) is not None,
    marks.PERCENTAGE_USE,
    surely=lambda text: signs.surely_percentage(text.text),
)
