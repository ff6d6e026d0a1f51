"""Numbers and digits."""

from __future__ import annotations

import re

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import COUNT_TEMPLATES, count_function, presence_function

_FAMILY = "numbers"
_DIGIT = re.compile(r"[0-9]")

number_count = count_function(
    "number_count",
    _FAMILY,
    lambda text: rules.numbers(text.lines),
    ("number written in digits (list numbering not counted)", "numbers written in digits (list numbering not counted)"),
    COUNT_TEMPLATES,
    quantity="digits",
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
