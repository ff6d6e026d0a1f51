"""Bullet and numbered lists."""

from __future__ import annotations

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import COUNT_TEMPLATES, count_function, exact_function, presence_function

_FAMILY = "lists"

bullet_count = count_function(
    "bullet_count",
    _FAMILY,
    lambda text: rules.bullet_items(text.prose_lines),
    ("bullet point", "bullet points"),
    COUNT_TEMPLATES,
    quantity="bullets",
    size=True,
)

bullet_exact = exact_function(
    "bullet_exact",
    _FAMILY,
    lambda text: rules.bullet_items(text.prose_lines),
    ("bullet point", "bullet points"),
    (
        "Use {count}.",
        "Your response should contain {count}.",
        "Let your answer have {count}, nested ones included.",
        "The answer must have {count}.",
    ),
    quantity="bullets",
    size=True,
    least=0,
)

numbered_count = count_function(
    "numbered_count",
    _FAMILY,
    lambda text: rules.numbered_items(text.prose_lines),
    ("numbered list item", "numbered list items"),
    COUNT_TEMPLATES,
    quantity="numbered_items",
    excludes=("digits",),
    size=True,
)

list_use = presence_function(
    "list_use",
    _FAMILY,
    lambda text: rules.bullet_items(text.prose_lines) + rules.numbered_items(text.prose_lines) > 0,
    (
        "Use a bulleted or numbered list.",
        "Your response should contain at least one list item, bulleted or numbered.",
        "Present something in the form of a list (bullet points or numbers).",
        "The answer must contain a bulleted or numbered list.",
    ),
    (
        "Do not use any bulleted or numbered list.",
        "Your response should contain no list items, neither bulleted nor numbered.",
        "Present nothing in the form of a list (no bullet points, no numbered items).",
        "The answer must not contain a bulleted or numbered list.",
    ),
    excludes=("bullets", "numbered_items"),
)
