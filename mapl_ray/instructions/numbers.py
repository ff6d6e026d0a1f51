"""Numbers and digits."""

from __future__ import annotations

import re

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import COUNT_TEMPLATES, count_function, exact_function, presence_function

_FAMILY = "numbers"
_DIGIT = re.compile(r"[0-9]")

number_count = count_function(
    "number_count",
    _FAMILY,
    lambda text: rules.numbers(text.lines),
    ("number written in digits (list numbering not counted)", "numbers written in digits (list numbering not counted)"),
    COUNT_TEMPLATES,
    quantity="digits",
    size=True,
)

number_exact = exact_function(
    "number_exact",
    _FAMILY,
    lambda text: rules.numbers(text.lines),
    ("number written in digits", "numbers written in digits"),
    (
        "Use {count} (list numbering not counted).",
        "Apart from list numbering, your response should contain {count}.",
        "Include {count} in your answer, list numbering not counted.",
        "Not counting list numbering, the answer must have {count}.",
    ),
    quantity="digits",
    size=True,
    least=0,
)

digit_use = presence_function(
    "digit_use",
    _FAMILY,
    lambda text: _DIGIT.search(text.text) is not None,
    (
        "Use at least one digit (0-9).",
        "Your response should contain digits (0-9).",
        "Include one or more digits (0-9) in your answer.",
        "There must be at least one digit (0-9) in the answer.",
    ),
    (
        "Use no digits (0-9).",
        "Your response should not contain any digits (0-9).",
        "Leave digits (0-9) out of your answer entirely.",
        "There must not be a single digit (0-9) in the answer.",
    ),
    quantity="digits",
)

_YEAR = re.compile(r"(?<![\w.,])(?:1[0-9]|20)[0-9]{2}(?![\w%]|[.,][0-9])")
_PERCENT = re.compile(r"[0-9]\s?(?:%|per ?cent\b)", re.IGNORECASE)

year_use = presence_function(
    "year_use",
    _FAMILY,
    lambda text: _YEAR.search(text.text) is not None,
    (
        "Name at least one year in four digits (1000 to 2099).",
        "Your response should contain a year in four digits, such as 1987.",
        "Include a four-digit year (1000 to 2099) in your answer.",
        "There must be a year written in four digits (1000 to 2099) in the answer.",
    ),
    (
        "Name no year in four digits (1000 to 2099).",
        "Your response should not contain any year in four digits, such as 1987.",
        "Leave four-digit years (1000 to 2099) out of your answer.",
        "There must not be any year written in four digits (1000 to 2099) in the answer.",
    ),
    excludes=("digits",),
)

percentage_use = presence_function(
    "percentage_use",
    _FAMILY,
    lambda text: _PERCENT.search(text.text) is not None,
    (
        "Give at least one percentage in digits (such as 40%).",
        "Your response should contain a percentage in digits, such as 40%.",
        "Include a percentage written in digits (40% or 40 percent) in your answer.",
        "There must be at least one percentage in digits in the answer, such as 40%.",
    ),
    (
        "Give no percentage in digits (such as 40%).",
        "Your response should not contain any percentage in digits, such as 40%.",
        "Leave percentages written in digits (40% or 40 percent) out of your answer.",
        "There must not be any percentage in digits in the answer, such as 40%.",
    ),
    excludes=("digits",),
)
