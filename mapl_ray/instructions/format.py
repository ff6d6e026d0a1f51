"""Markdown: bold parts, headings, code blocks."""

from __future__ import annotations

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import presence_function

_FAMILY = "format"

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
