"""Instructions on bullet and numbered lists."""

from __future__ import annotations

from mapl_ray.instructions import blocks
from mapl_ray.instructions.builders import count_function, exact_function, presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.verdicts import Verdict
from mapl_ray.instructions.wordings import layout

_FAMILY = "lists"

bullet_count = count_function(
    "bullet_count",
    _FAMILY,
    lambda text: blocks.bullet_items(text.prose_lines),
    layout.BULLET_COUNT,
    span=lambda text: text.over_prose("bullets", blocks.bullet_span),
    size=True,
)

bullet_exact = exact_function(
    "bullet_exact",
    _FAMILY,
    lambda text: blocks.bullet_items(text.prose_lines),
    layout.BULLET_EXACT,
    span=lambda text: text.over_prose("bullets", blocks.bullet_span),
    size=True,
    least=0,
)

numbered_count = count_function(
    "numbered_count",
    _FAMILY,
    lambda text: blocks.numbered_items(text.prose_lines),
    layout.NUMBERED_COUNT,
    span=lambda text: text.over_prose("numbered", blocks.numbered_span),
    size=True,
)


def _surely_listed(text: Features) -> Verdict:
    bullets = text.over_prose("bullets", blocks.bullet_span)
    numbered = text.over_prose("numbered", blocks.numbered_span)
    # Only some readers call a single item a list.
    if max(bullets.fewest, numbered.fewest) > 1:
        return True
    return False if bullets.most + numbered.most == 0 else None


list_use = presence_function(
    "list_use",
    _FAMILY,
    lambda text: blocks.bullet_items(text.prose_lines) + blocks.numbered_items(text.prose_lines) > 0,
    layout.LIST_USE,
    surely=_surely_listed,
)
