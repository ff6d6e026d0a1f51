"""Split text into sentences under three readings: every possible end, the documented ends, and only the certain ends.

Documented: a sentence ends at `.`, `!`, `?`, an ellipsis or the mark of another script, with closing quotes, before
white space but not before a lower-case letter, or at the end of a block or list item; never at an abbreviation, initial
or decimal.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

import regex

from mapl_ray.instructions import blocks
from mapl_ray.instructions.once import once

# A run of end marks and closing marks. The context is checked afterwards, because a pattern that starts with a
# lookbehind tries every character. Possessive, so that "......" takes linear time.
_ASCII_END = re.compile(r"[.!?]++[\"')\]*_]*+")
_END = re.compile(
    r"[.!?\u2026\u203c\u2047-\u2049\u061f\u06d4\u0964\u0965\u1362\u1367\u17d4\u104b\u0589]++[\"'\u201d\u2019\u00bb)\]*_]*+|"
    r"[\u3002\uff01\uff1f\uff61]++[\u201d\u2019\u300d\u300f\uff09]*+"
)
_UNSPACED_ENDS = ("\u3002", "\uff01", "\uff1f", "\uff61")  # end marks that are written without a space after them
_WORD = re.compile(r"\w", re.ASCII), regex.compile(r"\w")
_NO_TOKEN = re.compile(r"[^\w.]")
_LONGEST_SHORT = 6  # letters of the longest abbreviation: "approx"
_ABBREVIATIONS = frozenset(
    word
    for words in (
        "mr mrs ms dr prof sr jr st mt ft gen col capt lt sgt rev hon gov sen vs etc e.g i.e eg ie cf fig no nos",
        "vol pp ed eds al inc ltd co corp dept est approx max min ca jan feb mar apr jun jul aug sep sept oct nov",
        "dec mon tue wed thu fri sat sun ave blvd rd u.s u.k u.n u.s.a e.u a.m p.m ph.d m.d b.a m.a b.c a.d d.c",
        "a.k.a w.r.t n.b p.s",
    )
    for word in words.split()
)
# Short words that are not abbreviations.
_SHORT_WORDS = frozenset(
    word
    for words in ("am an as at be by do go he hi if in is it me", "my of oh ok on or so to tv up us we uk eu ai")
    for word in words.split()
)
_SHORT_OPENING = 2  # words: some readers do not call such a short opening a sentence
_CLOSING = re.compile(r"[\"'\u201d\u2019\u00bb)\]*_]")


class Reading(IntEnum):
    """Which ends count: those of a reading, and those of all stricter readings (larger values)."""

    FINEST = 1  # also line breaks, marks before a lower-case letter, footnote or emoji, and marks of abbreviations
    DOCUMENTED = 2
    SUREST = 3


class _Block(NamedTuple):
    """One block of text with its possible sentence ends."""

    text: str
    ends: list[tuple[int, Reading]]  # index of a possible end, and the strictest reading under which it is one
    aside: bool  # a heading or table row: a sentence only under the finest reading
    item: bool = False  # a list item
    whole: str = ""  # the only piece of a block without ends; "" if it has no word


class Sentences:
    """The sentences of some lines outside code."""

    def __init__(self, prose: list[str]) -> None:
        self._blocks = _scan(prose)
        self._pieces: dict[Reading, list[str]] = {}

    def by(self, reading: Reading) -> list[str]:
        """The sentences under a reading, in order."""
        if reading not in self._pieces:
            pieces: list[str] = []
            for block in self._blocks:
                if block.ends:
                    pieces += _cut(block, reading)
                elif block.whole and (reading is Reading.FINEST or not block.aside):
                    pieces.append(block.whole)
            self._pieces[reading] = pieces
        return self._pieces[reading]

    @once
    def finished(self) -> list[str]:
        """The sentences under the strictest reading that end with a mark."""
        return [piece for block in self._blocks if block.ends for piece in _cut(block, Reading.SUREST, rest=False)]

    @once
    def running(self) -> list[str]:
        """The documented sentences, with a list without end marks joined to its introduction ("We have:")."""
        found: list[_Block] = []
        joined: list[list[str]] = []
        open_end = False
        for block in self._blocks:
            if block.aside:
                open_end = False
                continue
            if open_end and block.item:
                joined[-1].append(block.text)
            else:
                found.append(block)
                joined.append([block.text])
                open_end = block.text.rstrip(" *_").endswith(":")
            open_end &= not _is_finished(block)
        return [
            piece
            for block, texts in zip(found, joined, strict=True)
            for piece in _cut(block if len(texts) == 1 else _ends(texts), Reading.DOCUMENTED)
        ]

    @property
    def first(self) -> list[str]:
        """Candidates for the first sentence; the documented one first."""
        return self._at(0)

    @property
    def last(self) -> list[str]:
        """Candidates for the last sentence; the documented one first."""
        return self._at(-1)

    def _at(self, place: int) -> list[str]:
        texts = [block for block in (self._blocks if place == 0 else reversed(self._blocks)) if not block.aside]
        found = [_edge(texts, reading, place) for reading in (Reading.DOCUMENTED, Reading.SUREST, Reading.FINEST)]
        every = self._blocks[:3] if place == 0 else self._blocks[-1:-4:-1]
        found += [_edge(texts, Reading.SUREST, place, rest=False), _edge(every, Reading.FINEST, place)]
        found += self.running[place:][:1]
        pieces = self.by(Reading.DOCUMENTED)
        if place == 0 and len(pieces[0].split() if pieces else ()) <= _SHORT_OPENING:  # "Certainly! Here is ..."
            found += pieces[1:2]
        # For most readers, a text of only headings and tables has no sentence.
        return [piece for piece in dict.fromkeys(found) if piece or not texts]


def _edge(blocks_in_order: list[_Block], reading: Reading, place: int, rest: bool = True) -> str:
    """The first or last piece (`place` 0 or -1) of the first block that has pieces; "" if none has."""
    return next((pieces[place] for block in blocks_in_order if (pieces := _cut(block, reading, rest))), "")


def _scan(prose: list[str]) -> list[_Block]:
    found: list[_Block] = []
    block: list[str] = []
    item = False

    def close() -> None:
        nonlocal item
        if block:
            found.append(_ends(block, item))
            block.clear()
        item = False

    for line in prose:
        first = line.lstrip()[:1]
        if not first:
            close()
            continue
        # A fast path: of lines that begin with a letter, which most do, only "Step 1" can be an item.
        if first.isalpha() and first not in "Ss" and "|" not in line:
            block.append(line)
            continue
        start = blocks.item_end(line)
        if blocks.is_rule(line):
            close()
        elif (first == "#" and blocks.is_heading(line)) or blocks.is_table_row(line):
            close()
            text = line.strip()
            found.append(_Block(text, [], True, False, text if _holds_word(text) else ""))
        elif start:
            close()
            item = True
            block.append(line[start:])
        else:
            block.append(line)
    close()
    return found


def _is_finished(block: _Block) -> bool:
    """Whether the block ends with an end mark."""
    if not block.ends:
        return False
    end, level = block.ends[-1]
    return level is not Reading.FINEST and end >= len(block.text.rstrip())


def _ends(lines: list[str], item: bool = False) -> _Block:
    text = lines[0] if len(lines) == 1 else " ".join(lines)
    ends: list[tuple[int, Reading]] = []
    start = 0
    if len(lines) == 1 and text.isascii() and "." not in text and "!" not in text and "?" not in text:
        whole = text.strip()
        return _Block(text, ends, False, item, whole if _holds_word(whole) else "")
    for match in (_ASCII_END if text.isascii() else _END).finditer(text):
        reading = _reading(text, start, match)
        if reading is not None:
            ends.append((match.end(), reading))
            if reading is not Reading.FINEST:
                start = match.end()
    if len(lines) > 1:
        at = 0
        for line in lines[:-1]:
            at += len(line) + 1
            ends.append((at, Reading.FINEST))
        ends.sort()
    whole = "" if ends else text.strip()
    return _Block(text, ends, False, item, whole if _holds_word(whole) else "")


def _holds_word(text: str) -> bool:
    """Whether a stripped text has a word. Most texts begin with a letter and need no search."""
    return text[:1].isalpha() or _WORD[not text.isascii()].search(text) is not None


def _reading(text: str, start: int, match: re.Match[str]) -> Reading | None:
    """The strictest reading under which a sentence ends here; None if it ends under none."""
    mark, end = match.group(), match.end()
    after = text[end : end + 8]
    follows = after.lstrip()[:1]
    if not after[:1].isspace() and after and not mark.startswith(_UNSPACED_ENDS):
        # "down.[1] It", "Done.\U0001f44d", "end.Start"; not "3.5", "example.com".
        return None if after[0].isalnum() and not (after[0].isupper() or mark[-1] in "*_\"')]") else Reading.FINEST
    if follows.islower():
        return Reading.FINEST
    piece = text[max(start, match.start() - 12) : match.start()]
    token = piece[piece.rfind(" ") + 1 :]
    if not token.isalnum():
        token = _NO_TOKEN.split(token)[-1]
    if mark == "." and len(token) > _LONGEST_SHORT and "." not in token:
        return Reading.SUREST  # after a plain word: an ordinary end
    if mark[0] == "." and not mark.startswith("..") and token.lower() in _ABBREVIATIONS:
        return Reading.FINEST
    if mark == "." and len(token) == 1 and token.isupper() and token != "I":
        return Reading.FINEST
    if mark.startswith(("..", "\u2026")):
        return Reading.DOCUMENTED
    # `"Stop!" John said.`, and unlisted initials, numbers and short forms.
    short = mark[0] == "." and ("." in token or (len(token) < 3 and token.lower() not in _SHORT_WORDS))
    return Reading.DOCUMENTED if follows and (short or (len(mark) > 1 and _CLOSING.search(mark))) else Reading.SUREST


def _cut(block: _Block, reading: Reading, rest: bool = True) -> list[str]:
    """The block's pieces that have a word; `rest` includes the text after the last end."""
    if not block.ends:
        return [block.whole] if rest and block.whole else []
    word = _WORD[not block.text.isascii()]
    pieces: list[str] = []
    start = 0
    for end, level in block.ends:
        if level >= reading:
            pieces.append(block.text[start:end])
            start = end
    if rest:
        pieces.append(block.text[start:])
    # Most pieces begin with a letter and need no search.
    return [text for piece in pieces if (text := piece.strip())[:1].isalpha() or word.search(text)]
