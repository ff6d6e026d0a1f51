"""Words under readings other than the documented `\\w+` run: the pieces between spaces, and how many words they are.

A person counts "don't", "well-known", "3.5" and "U.S." as one word each, the rule as two. Only some readers count
blanks to fill in, separate signs, list numbers and numbers as words.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import filterfalse, islice

import regex

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.verdicts import Span

_LETTERED = re.compile(r"[^\W\d_]\S*")
_WORDED = re.compile(r"\w\S*")
# Arguments of `bytes.translate`: white space becomes " " and other bytes "x"; bytes of the second argument are deleted.
_ASCII = [chr(code) for code in range(128)]
_AS_PIECES = bytes(ord(" " if sign.isspace() else "x") for sign in _ASCII) + bytes(128)
_PIECES = (_AS_PIECES,)
_LETTERED_PIECES = (_AS_PIECES, bytes(ord(sign) for sign in _ASCII if not (sign.isalpha() or sign.isspace())))
_WORDED_PIECES = (
    _AS_PIECES,
    bytes(ord(sign) for sign in _ASCII if not (sign.isalnum() or sign == "_" or sign.isspace())),
)
_RUNS = (bytes(ord("x" if sign.isalnum() or sign == "_" else " ") for sign in _ASCII) + bytes(128),)
# Scripts without spaces between words: a person would not call a run of them a word.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3031-\u3035\u303b\u3040-\u30ff"
    "\u3100-\u312f\u31a0-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_FEW_UNSPACED = 0.02  # share of non-space characters: allows a name or a term within text of another language
_JOINED = re.compile(r"\w++(?:['\u2019\-./@]\w++)*+")
# Code points that a reader may not see as separate characters: marks, joiners, selectors, skin tones, parts of letters.
_INVISIBLE = re.compile(
    "[\u00c0-\u024f\u0300-\u036f\u0590-\u109f\u1100-\u11ff\u1e00-\u1eff\u200b-\u200f\u2060\uac00-\ud7af"
    "\ufe00-\ufe0f\U0001f1e6-\U0001f3ff]"
)
# Marks around a word: everything but letters, digits and the signs of C++ and C#.
_BEFORE = string.punctuation + "\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u2013\u2014\u2026\u2022\u00bf\u00a1"
_AFTER = _BEFORE.replace("+", "").replace("#", "")
_EDGES = re.compile(r"^[\W_]+|(?:[^\w+#]|_)+\Z")


def is_spaced(text: str) -> bool:
    """Whether words are separated by spaces."""
    if not any(map(UNSPACED.match, rules.foreign(text))):
        return True
    unspaced = len(UNSPACED.findall(text))
    return unspaced <= _FEW_UNSPACED * (len(text) - len(text.split()) + 1)


def word_span(text: str) -> Span:
    """Number of words under all readings."""
    return word_numbers(text)[1]


def word_numbers(text: str) -> tuple[int, Span]:
    """Number of `\\w+` runs, and the span of the number of words under all readings.

    The span is from pieces between spaces that have a letter to all runs, separate signs and parts of names like a_b.
    """
    if text.isascii():
        return _ascii_word_numbers(text)
    pieces = text.split()
    # Pieces of only letters, or letters followed by one sign, are one word under any reading.
    others = [piece for piece in filterfalse(str.isalpha, pieces) if not piece[:-1].isalpha()]
    joined = "\n".join(others)
    clear = len(pieces) - len(others)
    runs = clear + len(rules.words(joined))
    fewest = clear + len(_LETTERED.findall(joined))
    return runs, Span(min(runs, fewest), runs + len(others) - len(_WORDED.findall(joined)) + text.count("_"))


def _ascii_word_numbers(text: str) -> tuple[int, Span]:
    """`word_numbers` for ASCII text: counts bytes instead of building a string per word."""
    text_bytes = text.encode("ascii")
    pieces, lettered, worded, runs = (
        marked.count(b" x") + marked.startswith(b"x")
        for marked in (text_bytes.translate(*table) for table in (_PIECES, _LETTERED_PIECES, _WORDED_PIECES, _RUNS))
    )
    return runs, Span(min(runs, lettered), runs + pieces - worded + text.count("_"))


def unique_span(text: str, documented: int) -> Span:
    """Number of different words: runs, and pieces between spaces with and without numbers."""
    pieces = set(map(stripped, set(folded(text).split())))
    pieces.discard("")
    return Span.over(documented, len(pieces), len(_LETTERED.findall("\n".join(pieces))))


def long_span(text: str, letters: int) -> Span:
    """Number of words with at least `letters` letters: of only letters, or joined by hyphens, apostrophes and marks."""
    pieces = [piece for piece in text.split() if len(piece) >= letters]
    marked = [word for piece in pieces if not piece.isalpha() and len(word := stripped(piece)) >= letters]
    clear = len(pieces) - sum(not piece.isalpha() for piece in pieces)
    alone = clear + sum(word.isalpha() for word in marked)
    runs = clear + sum(len(run) >= letters for run in rules.words("\n".join(marked)))
    return Span.over(alone, runs, clear + len(marked))


def longest_span(text: str) -> Span:
    """Number of letters of the longest word, by itself or joined with others by hyphens and the like."""
    alone = joined = 0
    for piece in sorted(set(text.split()), key=len, reverse=True):
        if len(piece) <= alone:
            break
        word = stripped(piece)
        if word.isalpha():
            alone = max(alone, len(word))
        for part in _JOINED.findall(word):
            joined = max(joined, sum(map(str.isalpha, part)))
    return Span.over(alone, joined)


def stripped(token: str) -> str:
    """The token without the marks around it."""
    inner = token.rstrip(_AFTER).lstrip(_BEFORE)
    return inner if inner.isascii() else _EDGES.sub("", inner)


def _tokens(tokens: Iterable[str]) -> Iterator[str]:
    """The `stripped` tokens, without empty ones."""
    return filter(None, map(stripped, tokens))


def opening_readings(text: str, number: int) -> list[list[str]]:
    """The first `number` words under several readings, lower-case; the documented reading is first."""
    start = text.lstrip()[: 40 * (number + 8)]
    tokens = [*islice(_tokens(start.split()), number + 1)]
    runs = rules.words(start)
    spelled = rules.first_words(text, number)
    readings = [spelled, tokens[:number], runs[:number]]
    if not spelled[:1] or not any(sign.isalpha() for sign in spelled[0]):
        readings += [words[1 : number + 1] for words in (rules.first_words(text, number + 1), tokens, runs)]
    if not all(map(str.isalpha, runs[:number])):  # some readers do not call numbers words
        every = rules.first_words(text, 2 * number), _tokens(start.split()), runs
        readings += [[word for word in words if any(map(str.isalpha, word))][:number] for words in every]
    return [[folded(word) for word in words] for words in readings]


def closing_readings(text: str, number: int) -> list[list[str]]:
    """The last `number` words under several readings, lower-case; the documented reading is first."""
    end = text.rstrip()[-60 * (number + 2) :]
    tokens = [*islice(_tokens(reversed(end.split())), number + 1)][::-1]
    readings = [rules.last_words(end, number), tokens[-number:], rules.words(end)[-number:]]
    if tokens and tokens[-1].isdigit():  # a footnote or a number, which some readers skip
        readings += [tokens[-number - 1 : -1]]
    return [[folded(word) for word in words] for words in readings]


def folded(word: str) -> str:
    """Normalize and case-fold a word, with straight apostrophes, for comparing words."""
    if word.isascii():
        return word.lower()
    return unicodedata.normalize("NFC", word).casefold().replace("\u2019", "'").replace("\u02bc", "'")


def character_span(text: str) -> Span:
    """Span from the characters that a reader sees, without line breaks, to the code points of any normal form."""
    stripped_text = text.strip().replace("\r\n", "\n")
    if stripped_text.isascii() or not _INVISIBLE.search(stripped_text):
        return Span(len(stripped_text) - stripped_text.count("\n"), len(stripped_text))
    seen = len(regex.findall(r"\X", stripped_text)) - stripped_text.count("\n")
    return Span.over(seen, len(stripped_text), len(unicodedata.normalize("NFD", stripped_text)))
