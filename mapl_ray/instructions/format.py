"""Instructions on Markdown: bold parts, headings, code blocks, links, tables."""

from __future__ import annotations

import re

from mapl_ray.instructions import blocks, signs
from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import count_function, presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.verdicts import Span, Verdict
from mapl_ray.instructions.wordings import layout

_FAMILY = "format"

_CLEAR_BOLD = re.compile(r"(?<![\w*])\*\*(?=[^\s*])[^*\n]*+(?<!\s)\*\*(?!\*)")
_INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
# Text that only some readers call bold: over several lines, in HTML, between single stars or within a word.
_LIKE_BOLD = re.compile(r"\*\*|__|<(?:b|strong)>|(?<![\w*])\*[^\s*]", re.IGNORECASE)
_ANY_MARKDOWN = re.compile(r"[`|]|\*\*|__|<\w|\]\(|(?<![\w*])[*_]\w|^[ \t]*[>#]|^[ \t]*[-*_=]{3,}", re.MULTILINE)


def _has_code(text: Features) -> bool:
    return text.code.blocks + text.code.doubtful > 0


def _surely_code(text: Features) -> Verdict:
    return True if text.code.blocks else None if text.code.doubtful or "```" in text.text else False


def _bold_parts(text: Features) -> int:
    return rules.bold_parts([_without_code(line) for line in text.prose_lines])


def _bold_span(text: Features) -> Span:
    """Span from separate `**bold**` parts to everything that looks like the start or end of bold text."""
    if not any(sign in text.text for sign in "*_<"):
        return Span(0, 0)
    clear = sum(len(_CLEAR_BOLD.findall(_without_code(line))) for line in text.prose_lines if "**" in line)
    ends = sum(len(_LIKE_BOLD.findall(line)) for line in text.lines)
    return Span(clear, clear + ends - 2 * clear)


def _without_code(line: str) -> str:
    return _INLINE_CODE.sub("`", line) if "`" in line else line


def _surely_inline_code(text: Features) -> Verdict:
    if any("`" in line and _INLINE_CODE.search(line) for line in text.prose_lines):
        return True
    return None if any("`" in line for lines in text.prose_readings for line in lines) else False


def _surely_table(text: Features) -> Verdict:
    if blocks.surely_table(text.prose_lines):
        return True
    return None if blocks.has_table(text.lines) or blocks.like_table(text.lines) else False


def _headings_span(text: Features) -> Span:
    return text.over_prose("headings", blocks.heading_span)


def _has_markdown(text: Features) -> bool:
    lines = text.prose_lines
    return bool(
        blocks.has_table(lines)
        or _has_code(text)
        or _bold_parts(text)
        or blocks.headings(lines)
        or blocks.bullet_items(lines)
        or blocks.numbered_items(lines)
    )


def _surely_markdown(text: Features) -> Verdict:
    lists = [text.over_prose("bullets", blocks.bullet_span), text.over_prose("numbered", blocks.numbered_span)]
    clear = (_surely_code(text), _surely_table(text), _bold_span(text).at_least(1), _headings_span(text).at_least(1))
    if True in clear or max(span.fewest for span in lists) > 1:
        return True
    return None if _ANY_MARKDOWN.search(text.text) or max(span.most for span in lists) else False


bold_use = presence_function(
    "bold_use",
    _FAMILY,
    lambda text: _bold_parts(text) > 0,
    layout.BOLD_USE,
    surely=lambda text: _bold_span(text).at_least(1),
)

heading_use = presence_function(
    "heading_use",
    _FAMILY,
    lambda text: blocks.headings(text.prose_lines) > 0,
    layout.HEADING_USE,
    surely=lambda text: _headings_span(text).at_least(1),
)

code_block_use = presence_function(
    "code_block_use",
    _FAMILY,
    _has_code,
    layout.CODE_BLOCK_USE,
    surely=_surely_code,
)

bold_count = count_function(
    "bold_count",
    _FAMILY,
    _bold_parts,
    layout.BOLD_COUNT,
    span=_bold_span,
    size=True,
)

heading_count = count_function(
    "heading_count",
    _FAMILY,
    lambda text: blocks.headings(text.prose_lines),
    layout.HEADING_COUNT,
    span=_headings_span,
    size=True,
)

link_use = presence_function(
    "link_use",
    _FAMILY,
    lambda text: signs.has_link(text.text),
    layout.LINK_USE,
    surely=lambda text: signs.surely_link(text.text),
)

inline_code_use = presence_function(
    "inline_code_use",
    _FAMILY,
    lambda text: any("`" in line and _INLINE_CODE.search(line) for line in text.prose_lines),
    layout.INLINE_CODE_USE,
    surely=_surely_inline_code,
)

table_use = presence_function(
    "table_use",
    _FAMILY,
    lambda text: blocks.has_table(text.prose_lines),
    layout.TABLE_USE,
    surely=_surely_table,
)

markdown_use = presence_function(
    "markdown_use",
    _FAMILY,
    _has_markdown,
    layout.MARKDOWN_USE,
    surely=_surely_markdown,
)
