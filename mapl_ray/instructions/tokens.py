"""Words by other readings than the documented `\\w+` run: what stands between spaces, and how many words that is.

A person counts "don't", "well-known", "3.5" and "U.S." as one word each, the rule as two; blanks to fill in, signs on
their own, list numbers and numbers are words to some.
"""

from __future__ import annotations

import re
import unicodedata

import regex

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.verdicts import Span

_LETTERED = re.compile(r"[^\W\d_]\S*")
_ASCII_LETTERED = re.compile(r"[A-Za-z]\S*")
_WORDED = re.compile(r"\w\S*")
# Scripts that put no spaces between words: a run of them is no word a person would name.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3031-\u3035\u303b\u3040-\u30ff"
    "\u3100-\u312f\u31a0-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_FEW_UNSPACED = 0.02  # of all characters that are no white space: a name or a term within another language
_ALONE = regex.compile(r"(?<![\w'\u2019\-./@])[\p{L}\p{M}]++(?![\w'\u2019\-/@]|\.\w)")
_JOINED = regex.compile(r"\w++(?:['\u2019\-./@]\w++)*+")
# What stands around a word: everything but letters and digits, and the signs of C++ and C#.
_EDGES = re.compile(r"^[\W_]+|(?:[^\w+#]|_)+\Z")
_TAIL = 1000  # characters looked at for the last words


def is_spaced(text: str) -> bool:
    """Whether words can be told apart by spaces."""
    if text.isascii():
        return True
    unspaced = len(UNSPACED.findall(text))
    return unspaced <= _FEW_UNSPACED * (len(text) - len(text.split()) + 1)


def word_span(text: str) -> Span:
    """From the pieces between spaces that hold a letter to all runs, single signs and parts of names such as a_b."""
    documented = len(rules.words(text))
    fewest = len((_ASCII_LETTERED if text.isascii() else _LETTERED).findall(text))
    signs = len(text.split()) - len(_WORDED.findall(text))
    return Span.over(documented, fewest, documented + signs + text.count("_"))


def unique_span(text: str, documented: int) -> Span:
    """The number of different words: of runs, and of pieces between spaces with and without numbers."""
    pieces = {folded(word) for token in text.split() if (word := stripped(token))}
    return Span.over(documented, len(pieces), sum(any(map(str.isalpha, piece)) for piece in pieces))


def long_span(text: str, letters: int) -> Span:
    """Words of that many letters or more: letters alone, and with what hyphens, apostrophes and marks join."""
    alone = sum(len(word) >= letters and word.isalpha() for word in _ALONE.findall(text))
    joined = sum(len(word) >= letters for word in _JOINED.findall(text))
    return Span.over(alone, joined, sum(len(word) >= letters for word in rules.words(text)))


def longest_span(text: str) -> Span:
    """Letters of the longest word, alone or joined with others by hyphens and the like."""
    alone = max(map(len, _ALONE.findall(text)), default=0)
    joined = (sum(map(str.isalpha, word)) for word in _JOINED.findall(text))
    return Span.over(alone, max(joined, default=0))


def stripped(token: str) -> str:
    """The token without the marks around it."""
    return _EDGES.sub("", token)


def opening_readings(text: str, number: int) -> list[list[str]]:
    """The first `number` words by several readings, documented first, lower-case; a list number is a word to some."""
    start = text.lstrip()[: 40 * (number + 8)]
    tokens = [word for token in start.split() if (word := stripped(token))]
    runs = rules.words(start)
    spelled = rules.first_words(text, number)
    readings = [spelled, tokens[:number], runs[:number]]
    if not spelled[:1] or not any(sign.isalpha() for sign in spelled[0]):
        readings += [words[1 : number + 1] for words in (rules.first_words(text, number + 1), tokens, runs)]
    return [[folded(word) for word in words] for words in readings]


def closing_readings(text: str, number: int) -> list[list[str]]:
    """The last `number` words by several readings, documented first, lower-case."""
    end = text[-_TAIL:]
    tokens = [word for token in end.split() if (word := stripped(token))]
    readings = [rules.last_words(text, number), tokens[-number:], rules.words(end)[-number:]]
    if tokens and tokens[-1].isdigit():  # a footnote, a number
        readings += [tokens[-number - 1 : -1]]
    return [[folded(word) for word in words] for words in readings]


def folded(word: str) -> str:
    """Normalised, case folded, with straight apostrophes: how words are compared."""
    return unicodedata.normalize("NFC", word).casefold().replace("\u2019", "'").replace("\u02bc", "'")


def character_span(text: str) -> Span:
    """From what a reader sees as one character, line breaks left out, to every code point of any normal form."""
    stripped_text = text.strip().replace("\r\n", "\n")
    if stripped_text.isascii():
        return Span(len(stripped_text) - stripped_text.count("\n"), len(stripped_text))
    seen = len(regex.findall(r"\X", stripped_text)) - stripped_text.count("\n")
    return Span.over(seen, len(stripped_text), len(unicodedata.normalize("NFD", stripped_text)))
