"""Numbers and digits."""

from __future__ import annotations

import re

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import count_function, exact_function, presence_function
from mapl_ray.instructions.wordings import marks

_FAMILY = "numbers"
_DIGIT = re.compile(r"[0-9]")

number_count = count_function(
    "number_count",
    _FAMILY,
    lambda text: rules.numbers(text.lines),
    marks.NUMBER_COUNT,
    quantity="digits",
    size=True,
)

number_exact = exact_function(
    "number_exact",
    _FAMILY,
    lambda text: rules.numbers(text.lines),
    marks.NUMBER_EXACT,
    quantity="digits",
    size=True,
    least=0,
)

digit_use = presence_function(
    "digit_use",
    _FAMILY,
    lambda text: _DIGIT.search(text.text) is not None,
    marks.DIGIT_USE,
    quantity="digits",
)

_YEAR = re.compile(r"(?<![\w.,])(?:1[0-9]|20)[0-9]{2}(?![\w%]|[.,][0-9])")
_PERCENT = re.compile(r"[0-9]\s?(?:%|per ?cent\b)", re.IGNORECASE)

year_use = presence_function(
    "year_use",
    _FAMILY,
    lambda text: _YEAR.search(text.text) is not None,
    marks.YEAR_USE,
    excludes=("digits",),
)

percentage_use = presence_function(
    "percentage_use",
    _FAMILY,
    lambda text: _PERCENT.search(text.text) is not None,
    marks.PERCENTAGE_USE,
    excludes=("digits",),
)
