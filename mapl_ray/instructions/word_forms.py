"""Single words of a text: which stand by themselves, which are names, and which forms of a word there may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from mapl_ray.instructions.text import parted

# Letters alone, joined to nothing by an apostrophe or a hyphen; no hashtags.
_PLAIN_WORD = re.compile(r"(?<![\w'\u2019\-\\/.@#])[^\W\d_]++(?![\w'\u2019\-@]|\.\w)")
_BEFORE, _AFTER = "\"'([{*_\u201c\u2018", "\"')]}*_\u201d\u2019\u2026.,;:!?"  # what may stand around it
_APART = ',;:!?()[]{}*~`|<>=+%^"'  # what parts words as a space does
_LONGEST_CACHED = 60  # characters: what is longer is no word


def pieces(text: str) -> list[str]:
    """What stands between two spaces, and in ASCII text between marks that part words as a space does.

    Full stops before a space are left out: most pieces are plain words then.
    """
    text = text.replace(". ", " ").replace(".\n", " ")
    return (parted(text, _APART) if text.isascii() else text).split()


def plain_words_of(piece: str) -> tuple[str, ...]:
    """The words by themselves in one of the `pieces`."""
    return _cached_plain_words(piece) if len(piece) < _LONGEST_CACHED else _plain_words(piece)


def _plain_words(piece: str) -> tuple[str, ...]:
    inner = piece.rstrip(_AFTER).lstrip(_BEFORE)
    return (inner,) if inner.isalpha() else tuple(_PLAIN_WORD.findall(inner))


_cached_plain_words = lru_cache(maxsize=1 << 14)(_plain_words)


def has_form(word: str, counts: Mapping[str, int]) -> bool:
    """Whether a plural of the folded word is among those counted, or what it may be the plural of."""
    if word + "s" in counts or word + "es" in counts:
        return True
    return word[-1:] == "s" and (word[:-1] in counts or word.removesuffix("es") in counts)


def is_name(text: str, word: str) -> bool:
    """Whether the capitals of the word, where it first occurs, do not come from its place in the sentence.

    So it is with "NASA", and with "Paris" of "in Paris".
    """
    if word.isupper():
        return True
    start = text.find(word)
    before = text[max(0, start - 3) : start]
    if before[-1:] != " ":
        return False
    last = before[-3:-2] if before[-2:-1] == "," else before[-2:-1]
    return last.isalnum() and not last.isdecimal() and not "A" <= last <= "Z"
