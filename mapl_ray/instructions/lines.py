"""Instructions on the number of non-blank lines."""

from __future__ import annotations

from mapl_ray.instructions import blocks
from mapl_ray.instructions.builders import count_function, exact_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.verdicts import Span
from mapl_ray.instructions.wordings import amounts

_FAMILY = "lines"


def _number(text: Features) -> int:
    return sum(not blocks.is_blank(line) for line in text.lines)


def _line_span(text: Features) -> Span:
    """Span from lines without rules, fences and dashes of tables, to all non-blank lines."""
    bare = sum(
        blocks.is_rule(line) or line.lstrip().startswith(("```", "~~~", "|-", "|:", "| -")) for line in text.lines
    )
    return Span(_number(text) - bare, _number(text))


line_count = count_function(
    "line_count",
    _FAMILY,
    _number,
    amounts.LINE_COUNT,
    span=_line_span,
    size=True,
    least=2,
)

line_exact = exact_function(
    "line_exact",
    _FAMILY,
    _number,
    amounts.LINE_EXACT,
    span=_line_span,
    size=True,
)
