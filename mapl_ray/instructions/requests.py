"""Minimum counts of a response that begins with the request, word for word: its words, marks, lines, lists.

The claims of `request_repeated` follow from these. They are strict: the answer counts as a separate paragraph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.text import first_words
from mapl_ray.instructions.types import lookup

# Functions whose count can only grow when text is appended: `_count` with "at least", and `_use`.
_GROWING = (
    "sentence_count", "question_count", "longest_sentence", "paragraph_count", "line_count", "bullet_count",
    "numbered_count", "heading_count", "bold_count", "number_count", "capital_word_count", "pronoun_count",
    "unique_word_count", "long_word_count", "most_frequent_word",
    "list_use", "digit_use", "year_use", "percentage_use", "emoji_use", "code_block_use", "link_use",
    "inline_code_use", "table_use", "markdown_use", "marked_title", "placeholders", "section_use", "postscript_use",
    "repeated_start_use",
)  # fmt: skip
_ANSWER = ("sentence", "paragraph", "line")  # counts to which the answer adds at least one
_PHRASES = (2, 3)  # numbers of words of a phrase that an instruction may name
_PLACES = 10  # number of first words that `nth_word` may name


def held_by(request: str) -> dict[str, int]:
    """Name of a count -> its minimum in a response that begins with the request."""
    text = Features(request)
    found = {"request_repeated": 1, "prose": 1, "word": len(text.words) + 1, f"text:{fold(request)}": 1}
    for place, word in enumerate(first_words(request, _PLACES), start=1):
        found[f"at:{'first_word' if place == 1 else f'word_{place}'}={fold(word)}"] = 1
    found |= {f"text:{word}": number for word, number in text.word_counts.items() if word != fold(request)}
    found |= {f"text:{' '.join(run)}": 1 for size in _PHRASES for run in _runs(text.folded_words, size)}
    found |= Counter(f"initial:{word[0]}" for word in text.folded_words)
    for name in _GROWING:
        function = lookup(name)
        if not name.endswith("_count") and name not in ("longest_sentence", "most_frequent_word"):
            number = int(function.check(text, {"use": True}))
        else:
            number = _most(name, text)
        if number:
            found[function.quantity] = number + (function.quantity in _ANSWER)
    return found


def _runs(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _most(name: str, text: Features) -> int:
    """The largest n for which the text satisfies "at least n"."""
    check = lookup(name).check
    above = 1
    while check(text, {"direction": "at least", "n": above}):
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (above + below) // 2
        if check(text, {"direction": "at least", "n": middle}):
            below = middle
        else:
            above = middle
    return below
