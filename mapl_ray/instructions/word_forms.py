"""Classify single words of a text: words by themselves, names, and forms of a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from mapl_ray.instructions.text import parted

# Only letters, not joined to anything by an apostrophe or a hyphen; no hashtags.
_PLAIN_WORD = re.compile(r"(?<![\w'\u2019\-\\/.@#])[^\W\d_]++(?![\w'\u2019\-@]|\.\w)")
_BEFORE, _AFTER = "\"'([{*_\u201c\u2018", "\"')]}*_\u201d\u2019\u2026.,;:!?"  # allowed marks before and after a word
_APART = ',;:!?()[]{}*~`|<>=+%^"'  # marks that separate words like a space
_LONGEST_CACHED = 60  # characters: longer pieces are not words


def pieces(text: str) -> list[str]:
    """Split a text at white space and, if it is ASCII, at marks that separate words like a space.

    Periods before a space are removed, so that most pieces are plain words.
    """
    text = text.replace(". ", " ").replace(".\n", " ")
    return (parted(text, _APART) if text.isascii() else text).split()


def plain_words_of(piece: str) -> tuple[str, ...]:
    """The words that occur by themselves in one of the `pieces`."""
    return _cached_plain_words(piece) if len(piece) < _LONGEST_CACHED else _plain_words(piece)


def _plain_words(piece: str) -> tuple[str, ...]:
    inner = piece.rstrip(_AFTER).lstrip(_BEFORE)
    return (inner,) if inner.isalpha() else tuple(_PLAIN_WORD.findall(inner))


_cached_plain_words = lru_cache(maxsize=1 << 14)(_plain_words)


def has_form(word: str, counts: Mapping[str, int]) -> bool:
    """Whether `counts` has a plural of the folded word, or a word that it may be the plural of."""
    if word + "s" in counts or word + "es" in counts:
        return True
    return word[-1:] == "s" and (word[:-1] in counts or word.removesuffix("es") in counts)


def is_name(text: str, word: str) -> bool:
    """Whether the first occurrence of the word is capitalized for a reason other than starting a sentence.

    Examples: "NASA", and "Paris" in "in Paris".
    """
    if word.isupper():
        return True
    start = text.find(word)
    before = text[max(0, start - 3) : start]
    if before[-1:] != " ":
        return False
    last = before[-3:-2] if before[-2:-1] == "," else before[-2:-1]
    return last.isalnum() and not last.isdecimal() and not "A" <= last <= "Z"
