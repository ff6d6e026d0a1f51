"""Bullet and numbered lists."""

from __future__ import annotations

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import count_function, exact_function, presence_function
from mapl_ray.instructions.wordings import layout

_FAMILY = "lists"

bullet_count = count_function(
    "bullet_count",
    _FAMILY,
    lambda text: rules.bullet_items(text.prose_lines),
    layout.BULLET_COUNT,
    quantity="bullets",
    size=True,
)

bullet_exact = exact_function(
    "bullet_exact",
    _FAMILY,
    lambda text: rules.bullet_items(text.prose_lines),
    layout.BULLET_EXACT,
    quantity="bullets",
    size=True,
    least=0,
)

numbered_count = count_function(
    "numbered_count",
    _FAMILY,
    lambda text: rules.numbered_items(text.prose_lines),
    layout.NUMBERED_COUNT,
    quantity="numbered_items",
    excludes=("digits",),
    size=True,
)

list_use = presence_function(
    "list_use",
    _FAMILY,
    lambda text: rules.bullet_items(text.prose_lines) + rules.numbered_items(text.prose_lines) > 0,
    layout.LIST_USE,
    excludes=("bullets", "numbered_items"),
)
