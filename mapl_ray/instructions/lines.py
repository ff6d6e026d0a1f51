"""Lines of the response, blank ones aside."""

from __future__ import annotations

from mapl_ray.instructions.builders import count_function, exact_function
from mapl_ray.instructions.features import Features

_FAMILY = "lines"


def _number(text: Features) -> int:
    return sum(bool(line.strip()) for line in text.lines)


line_count = count_function(
    "line_count",
    _FAMILY,
    _number,
    ("line", "lines"),
    (
        "Write {bound} (blank lines do not count).",
        "Your response should consist of {bound}, blank lines not counted.",
        "Spread the answer over {bound}, not counting blank ones.",
        "Blank ones aside, the answer must have {bound}.",
    ),
    quantity="lines",
    size=True,
    least=2,
)

line_exact = exact_function(
    "line_exact",
    _FAMILY,
    _number,
    ("line", "lines"),
    (
        "Write {count} (blank lines do not count).",
        "Your response should consist of {count}, blank lines not counted.",
        "Spread the answer over {count}, not counting blank ones.",
        "Blank ones aside, the answer must have {count}.",
    ),
    quantity="lines",
    size=True,
)

longest_line = count_function(
    "longest_line",
    _FAMILY,
    lambda text: max((len(line.strip()) for line in text.lines), default=0),
    ("character", "characters"),
    (
        "The longest line should have {bound}, spaces included.",
        "Let your longest line (up to the next line break) have {bound}.",
        "Make sure the longest line of the answer has {bound}, counting spaces.",
        "In your response, the longest line must hold {bound} (spaces count).",
    ),
    min_gap=10,
    least=20,
    size=True,
)
