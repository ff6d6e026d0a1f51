"""Paragraphs: blocks of lines between blank lines."""

from __future__ import annotations

from mapl_ray.instructions.builders import count_function
from mapl_ray.instructions.text import words

_FAMILY = "paragraphs"

paragraph_count = count_function(
    "paragraph_count",
    _FAMILY,
    lambda text: len(text.paragraphs),
    ("paragraph", "paragraphs"),
    (
        "Write {bound}, separated by blank lines.",
        "Your response should contain {bound} with blank lines between them.",
        "Divide the answer by blank lines into {bound}.",
        "The answer must consist of {bound} (a blank line starts a new one).",
    ),
    size=True,
    least=2,
)

first_paragraph = count_function(
    "first_paragraph",
    _FAMILY,
    lambda text: len(words(text.paragraphs[0])) if text.paragraphs else 0,
    ("word", "words"),
    (
        "The first paragraph should have {bound}.",
        "Open with a paragraph of {bound}.",
        "Use {bound} in the first paragraph of your response.",
        "Your opening paragraph must contain {bound}.",
    ),
    least=5,
)

last_paragraph = count_function(
    "last_paragraph",
    _FAMILY,
    lambda text: len(words(text.paragraphs[-1])) if text.paragraphs else 0,
    ("word", "words"),
    (
        "The last paragraph should have {bound}.",
        "Close with a paragraph of {bound}.",
        "Use {bound} in the last paragraph of your response.",
        "Your closing paragraph must contain {bound}.",
    ),
    least=5,
)
