"""The counting rules: what counts as a word, sentence, paragraph, list item, number, ... of a response.

These are the documented readings, which `check` uses; the other readings are in `blocks.py`, `splitting.py`,
`tokens.py` and `signs.py`. All of them accept any string (empty, huge, any script), take linear time and never raise.

| thing | rule |
|---|---|
| word | a run of letters (with their marks), digits and underscores, as IFEval counts: "don't" is two words, |
| | "well-known" two, "3.5" two |
| spelled word | letters and digits, joined by inner apostrophes and hyphens ("don't" is one): first and last words |
| character | every code point of the composed form (NFC) of the stripped text, including spaces and line breaks |
| line | ends at `\\n`, `\\r\\n` or `\\r`; lines of only white space do not count |
| paragraph | a block of lines between blank lines; a horizontal rule does not count |
| code block | from a line of three or more backticks or tildes to a line of as many of the same sign, or to the |
| | end; a line that closes its own backticks is inline code |
| sentence | ends at `.`, `!`, `?` or an ellipsis, with closing quotes, before white space but not before a lower-case |
| | letter, or at the end of a block or list item; never at an abbreviation ("Dr."), an initial or a decimal; |
| | headings, table rows and code do not count |
| bullet item | a line of `-`, `*`, `+`, `•` or another bullet sign, white space, text, at any indent, also in quotes, |
| | outside code blocks |
| numbered item | a line of `1.`, `1)`, `(1)` or `Step 1`, also in bold or a heading, then text, at any indent, |
| | outside code blocks |
| heading | a line of one to six `#`, white space, text, outside code blocks |
| bold part | `**text**` or `__text__` within one line, outside code blocks |
| number | digits, with inner points and commas ("1,000" is one), at the start of a word; list numbers do not count |
| capital word | a word of at least two letters, all of them capitals, without digits |
| table | a line of dashes between `|` signs (`|---|---|`), outside code blocks |
| link | `http://`, `https://` or `www.` and a letter, or `[text](target)` |
| inline code | text between two single backticks of one line, outside code blocks |
| year | four digits from 1000 to 2099, not part of a longer number, word or percentage |
| percentage | a digit, then `%`, "percent" or "per cent" |
| emoji | a character shown as a picture by default or by a variation selector (U+FE0F), and hearts |
| question | a sentence that ends with a question mark; an exclamation mark, closing quotes and brackets may follow |
| average, share | of words, rounded to a whole number; a threshold's margin covers the rounding |
| ending | the last words, or the last characters with their marks, before trailing white space (and double quotes) |
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
_WORD = regex.compile(r"\w+")  # `re` breaks words at combining marks, which would split Hindi words
# ASCII characters outside words. Replacing them by spaces gives the same words in a fifth of the time.
_NO_WORD = "".join(chr(sign) for sign in range(128) if not (chr(sign).isalnum() or chr(sign) == "_"))
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_SEARCHED_WORD = re.compile(r"\w+")
_SPELLED = re.compile(r"[^\W_]+(?:['\u2019\-][^\W_]+)*+")
_BOLD = re.compile(r"\*\*(?=[^\s*])[^*\n]*+\*\*|(?<!\w)__(?=[^\s_])[^_\n]*+__(?!\w)")
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"(?<![\w.,])\d++(?:[.,]\d++)*+")
_TAIL = 1000  # characters searched for the last words
_CLOSERS = " \t\r\n\f\v\u00a0\u200b\"'\u201c\u201d\u2018\u2019\u00bb)]}*_`~"


@lru_cache(maxsize=8)
def _to_spaces(signs: str) -> bytes:
    return bytes.maketrans(signs.encode("ascii"), b" " * len(signs))


def parted(ascii_text: str, signs: str) -> str:
    """ASCII text with the ASCII signs replaced by spaces; uses bytes, which takes a third of the time."""
    return ascii_text.encode("ascii").translate(_to_spaces(signs)).decode("ascii")


def foreign(text: str) -> set[str]:
    """The non-ASCII characters of a text."""
    return set() if text.isascii() else set(_FOREIGN.findall(text))


@lru_cache(maxsize=4096)
def _is_sign(character: str) -> bool:
    """Whether the character is never part of a word under any rule here."""
    return not (character.isalnum() or _WORD.search(character) or _WORD.search(normalize("NFKD", character)))


def signs_parted(text: str) -> str:
    """Replace curly quotes, dashes, emoji and the like by spaces: words stay the same, and most text becomes ASCII."""
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
    """Number of words of each text; texts must have no line breaks."""
    joined = "\n".join(texts)
    if not joined.isascii():
        return [len(words(text)) for text in texts]
    return [len(line.split()) for line in parted(joined, _NO_WORD.replace("\n", "")).split("\n")] if texts else []


def searched_words(text: str) -> list[str]:
    """Words as IFEval's search `\\bword\\b` for forbidden words finds them: a combining mark ends a word."""
    text = signs_parted(text)
    return words(text) if text.isascii() else _SEARCHED_WORD.findall(text)


def lines(text: str) -> list[str]:
    """All lines, including blank ones."""
    return _LINE_END.split(text) if "\r" in text else text.split("\n")


def bold_parts(prose_lines: list[str]) -> int:
    """Number of Markdown bold parts."""
    return sum(len(_BOLD.findall(line)) for line in prose_lines if "**" in line or "__" in line)


def numbers(all_lines: list[str]) -> int:
    """Number of numbers in digits, without list numbers."""
    return sum(len(_NUMBER.findall(line[number_end(line) :])) for line in all_lines if _DIGIT.search(line))


def capital_words(all_words: list[str]) -> int:
    """Number of words in capitals ("NASA"; not "I", not "B2B")."""
    return sum(len(word) > 1 and word.isalpha() for word in filter(str.isupper, all_words))


def first_spelled(text: str) -> str | None:
    """The first spelled word, without marks and quotes before it; None if there is none."""
    match = _SPELLED.search(text)
    return None if match is None else match.group().replace("\u2019", "'")


def last_words(text: str, number: int) -> list[str]:
    """The last `number` spelled words in order, or fewer if the text has fewer."""
    size = 20 * (number + 1)
    while size < min(_TAIL, len(text)):  # a short tail usually has them
        found = _SPELLED.findall(text[-size:])
        if len(found) > number > 0:
            return [word.replace("\u2019", "'") for word in found[-number:]]
        size *= 2
    found = _SPELLED.findall(text[-_TAIL:])
    # The tail may cut off the start of its first word.
    found = found if len(text) <= _TAIL else found[1:]
    return [word.replace("\u2019", "'") for word in found[-number:]]


def first_words(text: str, number: int) -> list[str]:
    """The first `number` spelled words, or fewer if the text has fewer."""
    return [match.group().replace("\u2019", "'") for match in islice(_SPELLED.finditer(text), number)]


def last_spelled(text: str) -> str | None:
    """The last spelled word; None if there is none."""
    # Search from the end in doubling windows, so that a long tail of marks takes linear time.
    size = 64
    while True:
        start = max(0, len(text) - size)
        found = _SPELLED.findall(text[start:])
        # The window may cut off the start of its first word: require at least two words.
        if len(found) > 1 or start == 0:
            return found[-1].replace("\u2019", "'") if found else None
        size *= 2


def mark_at_end(text: str) -> str:
    """The last character before trailing white space, closing quotes, brackets and Markdown marks; "" if none."""
    return text.rstrip(_CLOSERS)[-1:]
