"""Markdown: bold parts, headings, code blocks."""

from __future__ import annotations

import re

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import COUNT_TEMPLATES, count_function, presence_function
from mapl_ray.instructions.features import Features

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
    (
        "Put at least one part in bold with Markdown (**like this**).",
        "Your response should use Markdown bold text somewhere.",
        "Mark something in bold (**bold**).",
        "The answer must contain Markdown bold text.",
    ),
    (
        "Put no part in bold with Markdown (not **like this**).",
        "Your response should use no Markdown bold text.",
        "Do not mark anything in bold (no **bold**).",
        "The answer must not contain any Markdown bold text.",
    ),
)

heading_use = presence_function(
    "heading_use",
    _FAMILY,
    lambda text: rules.headings(text.prose_lines) > 0,
    (
        "Use at least one Markdown heading (a line that starts with #).",
        "Your response should contain a Markdown heading.",
        'Structure the answer with Markdown headings such as "## Title".',
        "The answer must have a heading marked with #.",
    ),
    (
        "Use no Markdown headings (no lines that start with #).",
        "Your response should not contain any Markdown heading.",
        'Do not structure the answer with Markdown headings such as "## Title".',
        "The answer must not have any heading marked with #.",
    ),
)

code_block_use = presence_function(
    "code_block_use",
    _FAMILY,
    lambda text: rules.has_code_block(text.lines),
    (
        "Use at least one fenced code block (```).",
        "Your response should contain a code block between triple backticks.",
        "Put something into a fenced Markdown code block.",
        "The answer must have a code block fenced with ```.",
    ),
    (
        "Use no fenced code blocks (```).",
        "Your response should not contain any code block between triple backticks.",
        "Put nothing into a fenced Markdown code block.",
        "The answer must not have any code block fenced with ```.",
    ),
)

bold_count = count_function(
    "bold_count",
    _FAMILY,
    lambda text: rules.bold_parts(text.prose_lines),
    ("part in bold (**like this**)", "parts in bold (**like this**)"),
    COUNT_TEMPLATES,
    quantity="bold_use",
    size=True,
)

heading_count = count_function(
    "heading_count",
    _FAMILY,
    lambda text: rules.headings(text.prose_lines),
    ("Markdown heading (a line that starts with #)", "Markdown headings (lines that start with #)"),
    COUNT_TEMPLATES,
    quantity="heading_use",
    size=True,
)

link_use = presence_function(
    "link_use",
    _FAMILY,
    lambda text: _LINK.search(text.text) is not None,
    (
        "Include at least one link.",
        "Your response should contain a link (a web address or a Markdown link).",
        "Give the reader one or more web links in your answer.",
        "There must be at least one web address or Markdown link in the answer.",
    ),
    (
        "Include no links.",
        "Your response should not contain any link (no web address, no Markdown link).",
        "Give the reader no web links in your answer.",
        "There must not be any web address or Markdown link in the answer.",
    ),
)

inline_code_use = presence_function(
    "inline_code_use",
    _FAMILY,
    lambda text: any("`" in line and _INLINE_CODE.search(line) for line in text.prose_lines),
    (
        "Set at least one term as inline code (`like this`).",
        "Your response should contain something set as `inline code`, between single backticks.",
        "Put one or more terms between single backticks (`term`).",
        "The answer must contain text between single backticks, such as `this`.",
    ),
    (
        "Set no term as inline code (not `like this`).",
        "Your response should contain nothing set as `inline code`, between single backticks.",
        "Put no terms between single backticks (`term`).",
        "The answer must not contain text between single backticks, such as `this`.",
    ),
)

table_use = presence_function(
    "table_use",
    _FAMILY,
    _has_table,
    (
        "Use at least one Markdown table.",
        "Your response should contain a table in Markdown, with a row of dashes (|---|---|) under its head.",
        "Present something as a Markdown table (columns between | signs).",
        "The answer must have a Markdown table.",
    ),
    (
        "Use no Markdown tables.",
        "Your response should not contain any table in Markdown, with a row of dashes (|---|---|) under its head.",
        "Present nothing as a Markdown table (no columns between | signs).",
        "The answer must not have any Markdown table.",
    ),
)

markdown_use = presence_function(
    "markdown_use",
    _FAMILY,
    _has_markdown,
    (
        "Format the answer with Markdown (headings, lists, tables, bold text or code blocks).",
        "Your response should use some Markdown: a heading, a list, a table, bold text or a code block.",
        "Use Markdown formatting, be it a heading, a list, a table, bold text or a code block.",
        "There must be Markdown in the answer: headings, lists, tables, bold text or code blocks.",
    ),
    (
        "Do not format the answer with Markdown (no headings, lists, tables, bold text or code blocks).",
        "Your response should use no Markdown: no heading, no list, no table, no bold text and no code block.",
        "Use no Markdown formatting, be it a heading, a list, a table, bold text or a code block.",
        "There must not be any Markdown in the answer: no headings, lists, tables, bold text or code blocks.",
    ),
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
