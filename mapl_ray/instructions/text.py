"""The counting rules: what a word, sentence, paragraph, list item, number ... of a response is.

These are the documented readings, by which `check` counts; `blocks.py`, `splitting.py`, `tokens.py` and `signs.py` hold
the others. All of them take any string (empty, enormous, any script) in linear time and never raise.

| thing | rule |
|---|---|
| word | a run of letters (with their marks), digits and underscores, as IFEval counts: "don't" is two words, |
| | "well-known" two, "3.5" two |
| spelled word | letters and digits, joined by inner apostrophes and hyphens ("don't" is one): first and last words |
| character | every code point of the composed form (NFC), spaces and line breaks too, of the text without white space |
| | at its ends |
| line | ends at `\\n`, `\\r\\n` or `\\r`; only lines that hold something other than white space count |
| paragraph | a block of lines between blank lines; a horizontal rule is none |
| code block | from a line of three or more backticks or tildes to a line of as many of the same sign, or to the |
| | end; a line that closes its own backticks is inline code |
| sentence | ends at `.`, `!`, `?` or an ellipsis, with closing quotes, before white space and no small letter, or at |
| | the end of a block or list item; never at an abbreviation ("Dr."), an initial or a decimal; headings, rows of |
| | tables and code are none |
| bullet item | a line of `-`, `*`, `+`, `•` or another bullet sign, white space, text, at any indent, in quotes too, |
| | outside code blocks |
| numbered item | a line of `1.`, `1)`, `(1)` or `Step 1`, in bold or a heading too, then text, at any indent, outside |
| | code blocks |
| heading | a line of one to six `#`, white space, text, outside code blocks |
| bold part | `**text**` or `__text__` within one line, outside code blocks |
| number | digits, with inner points and commas ("1,000" is one), at the start of a word; list numbers do not count |
| capital word | a word of at least two letters, all of them capitals, none of them digits |
| table | a line of dashes between `|` signs (`|---|---|`), outside code blocks |
| link | `http://`, `https://` or `www.` and a letter, or `[text](target)` |
| inline code | text between two single backticks of one line, outside code blocks |
| year | four digits from 1000 to 2099, part of no longer number, word or percentage |
| percentage | a digit, then `%`, "percent" or "per cent" |
| emoji | a character shown as a picture by default or by a variation selector (U+FE0F), and hearts |
| question | a sentence that ends with a question mark; an exclamation mark, closing quotes and brackets may follow |
| average, share | of words, rounded to a whole number; a threshold's margin covers what that leaves open |
| ending | the words, or with their marks the characters, before trailing white space (and double quotes) |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from unicodedata import normalize

import regex

from mapl_ray.instructions.blocks import number_end

_LINE_END = re.compile(r"\r\n|\r|\n")
_WORD = regex.compile(r"\w+")  # `re` breaks a word at a combining mark: it would cut Hindi to pieces
# ASCII signs that are part of no word, as spaces: the same for ASCII text, in a fifth of the time.
_NO_WORD = "".join(chr(sign) for sign in range(128) if not (chr(sign).isalnum() or chr(sign) == "_"))
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_SEARCHED_WORD = re.compile(r"\w+")
_SPELLED = re.compile(r"[^\W_]+(?:['\u2019\-][^\W_]+)*+")
_BOLD = re.compile(r"\*\*(?=[^\s*])[^*\n]*+\*\*|(?<!\w)__(?=[^\s_])[^_\n]*+__(?!\w)")
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"(?<![\w.,])\d++(?:[.,]\d++)*+")
_TAIL = 1000  # characters looked at for the last words
_CLOSERS = " \t\r\n\f\v\u00a0\u200b\"'\u201c\u201d\u2018\u2019\u00bb)]}*_`~"


@lru_cache(maxsize=8)
def _to_spaces(signs: str) -> bytes:
    return bytes.maketrans(signs.encode("ascii"), b" " * len(signs))


def parted(ascii_text: str, signs: str) -> str:
    """ASCII text with spaces for the ASCII signs; through bytes, which takes a third of the time."""
    return ascii_text.encode("ascii").translate(_to_spaces(signs)).decode("ascii")


def foreign(text: str) -> set[str]:
    """The characters beyond ASCII."""
    return set() if text.isascii() else set(_FOREIGN.findall(text))


@lru_cache(maxsize=4096)
def _is_sign(character: str) -> bool:
    """Whether the character is part of no word by any rule here."""
    return not (character.isalnum() or _WORD.search(character) or _WORD.search(normalize("NFKD", character)))


def signs_parted(text: str) -> str:
    """Spaces for curly quotes, dashes, emoji and the like: most text is ASCII then, and its words are the same."""
    for sign in filter(_is_sign, foreign(text)):
        text = text.replace(sign, " ")
    return text


def words(text: str) -> list[str]:
    """All words, in order."""
    text = text if text.isascii() else signs_parted(text)
    if text.isascii():
        return parted(text, _NO_WORD).split()
    found: list[str] = _WORD.findall(text)
    return found


def lengths(texts: Sequence[str]) -> list[int]:
    """The number of words of each of the texts, none of which has a line break."""
    joined = "\n".join(texts)
    if not joined.isascii():
        return [len(words(text)) for text in texts]
    return [len(line.split()) for line in parted(joined, _NO_WORD.replace("\n", "")).split("\n")] if texts else []


def searched_words(text: str) -> list[str]:
    """What a search of `\\bword\\b` finds, as IFEval's for forbidden words: a combining mark ends a word there."""
    text = signs_parted(text)
    return words(text) if text.isascii() else _SEARCHED_WORD.findall(text)


def lines(text: str) -> list[str]:
    """All lines, blank ones too."""
    return _LINE_END.split(text) if "\r" in text else text.split("\n")


def bold_parts(prose_lines: list[str]) -> int:
    """Number of Markdown bold parts."""
    return sum(len(_BOLD.findall(line)) for line in prose_lines if "**" in line or "__" in line)


def numbers(all_lines: list[str]) -> int:
    """Number of numbers in digits, list numbers left out."""
    return sum(len(_NUMBER.findall(line[number_end(line) :])) for line in all_lines if _DIGIT.search(line))


def capital_words(all_words: list[str]) -> int:
    """Number of words in capitals ("NASA"; not "I", not "B2B")."""
    return sum(len(word) > 1 and word.isalpha() for word in filter(str.isupper, all_words))


def first_spelled(text: str) -> str | None:
    """The first spelled word, marks and quotes before it left out; None where there is none."""
    match = _SPELLED.search(text)
    return None if match is None else match.group().replace("\u2019", "'")


def last_words(text: str, number: int) -> list[str]:
    """The last `number` spelled words in order, fewer where there are no more."""
    size = 20 * (number + 1)
    while size < min(_TAIL, len(text)):  # most often the end of the tail holds them
        found = _SPELLED.findall(text[-size:])
        if len(found) > number > 0:
            return [word.replace("\u2019", "'") for word in found[-number:]]
        size *= 2
    found = _SPELLED.findall(text[-_TAIL:])
    # The first word of a cut tail may have lost its start.
    found = found if len(text) <= _TAIL else found[1:]
    return [word.replace("\u2019", "'") for word in found[-number:]]


def first_words(text: str, number: int) -> list[str]:
    """The first `number` spelled words, fewer where there are no more."""
    return [match.group().replace("\u2019", "'") for match in islice(_SPELLED.finditer(text), number)]


def last_spelled(text: str) -> str | None:
    """The last spelled word; None where there is none."""
    # From the end, in windows that double: a long tail of marks stays linear.
    size = 64
    while True:
        start = max(0, len(text) - size)
        found = _SPELLED.findall(text[start:])
        # The first word of a cut window may have lost its start: take the last of at least two.
        if len(found) > 1 or start == 0:
            return found[-1].replace("\u2019", "'") if found else None
        size *= 2


def mark_at_end(text: str) -> str:
    """The last character once white space and closing quotes, brackets and Markdown marks are taken off; "" if none."""
    return text.rstrip(_CLOSERS)[-1:]
