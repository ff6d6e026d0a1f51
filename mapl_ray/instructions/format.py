"""Markdown: bold parts, headings, code blocks."""

from __future__ import annotations

import re

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import count_function, presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.wordings import layout

_FAMILY = "format"

_LINK = re.compile(r"https?://\w|(?<![\w.])www\.\w|\[[^\[\]\n]+\]\([^)\s]{1,1000}\)")
_INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_TABLE_RULE = re.compile(r"\|?+[ \t]*+:?+-++:?+[ \t]*+(?:\|[ \t]*+:?+-++:?+[ \t]*+)*+\|?+")


def _has_table(text: Features) -> bool:
    return any("|" in line and _TABLE_RULE.fullmatch(line.strip()) is not None for line in text.prose_lines)


def _has_markdown(text: Features) -> bool:
    lines = text.prose_lines
    return bool(
        _has_table(text)
        or rules.has_code_block(text.lines)
        or rules.bold_parts(lines)
        or rules.headings(lines)
        or rules.bullet_items(lines)
        or rules.numbered_items(lines)
    )


bold_use = presence_function(
    "bold_use",
    _FAMILY,
    lambda text: rules.bold_parts(text.prose_lines) > 0,
    layout.BOLD_USE,
)

heading_use = presence_function(
    "heading_use",
    _FAMILY,
    lambda text: rules.headings(text.prose_lines) > 0,
    layout.HEADING_USE,
)

code_block_use = presence_function(
    "code_block_use",
    _FAMILY,
    lambda text: rules.has_code_block(text.lines),
    layout.CODE_BLOCK_USE,
)

bold_count = count_function(
    "bold_count",
    _FAMILY,
    lambda text: rules.bold_parts(text.prose_lines),
    layout.BOLD_COUNT,
    quantity="bold_use",
    size=True,
)

heading_count = count_function(
    "heading_count",
    _FAMILY,
    lambda text: rules.headings(text.prose_lines),
    layout.HEADING_COUNT,
    quantity="heading_use",
    size=True,
)

link_use = presence_function(
    "link_use",
    _FAMILY,
    lambda text: _LINK.search(text.text) is not None,
    layout.LINK_USE,
)

inline_code_use = presence_function(
    "inline_code_use",
    _FAMILY,
    lambda text: any("`" in line and _INLINE_CODE.search(line) for line in text.prose_lines),
    layout.INLINE_CODE_USE,
)

table_use = presence_function(
    "table_use",
    _FAMILY,
    _has_table,
    layout.TABLE_USE,
)

markdown_use = presence_function(
    "markdown_use",
    _FAMILY,
    _has_markdown,
    layout.MARKDOWN_USE,
    excludes=(
        "bold_use",
        "heading_use",
        "code_block_use",
        "inline_code_use",
        "link_use",
        "table_use",
        "bullets",
        "numbered_items",
        "list_use",
    ),
)
