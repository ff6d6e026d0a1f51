"""Lines of the response, blank ones aside."""

from __future__ import annotations

from mapl_ray.instructions.builders import count_function, exact_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.wordings import amounts

_FAMILY = "lines"


def _number(text: Features) -> int:
    return sum(bool(line.strip()) for line in text.lines)


line_count = count_function(
    "line_count",
    _FAMILY,
    _number,
    amounts.LINE_COUNT,
    quantity="lines",
    size=True,
    least=2,
)

line_exact = exact_function(
    "line_exact",
    _FAMILY,
    _number,
    amounts.LINE_EXACT,
    quantity="lines",
    size=True,
)
