"""Lazily computed and cached features of a text, as the function set needs them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

from mapl_ray.instructions import blocks, signs, tokens
from mapl_ray.instructions import text as rules
from mapl_ray.instructions.once import once
from mapl_ray.instructions.splitting import Reading, Sentences
from mapl_ray.instructions.tokens import UNSPACED
from mapl_ray.instructions.verdicts import Span, Verdict
from mapl_ray.instructions.word_forms import has_form, is_name, pieces, plain_words_of
from mapl_ray.instructions.word_lists import STOP_WORDS

T = TypeVar("T")

_CACHED_CHARS = 50_000  # longer texts are not cached, to save memory
_LONGEST_KEYWORD = 20
# The four non-ASCII letters that match ASCII ones under `re.IGNORECASE` (listed in the `re` documentation).
_LIKE_ASCII = {"\u0130": "i", "\u0131": "i", "\u017f": "s", "\u212a": "k"}


class Features:
    """Lazy features of a text; the rules are in `text.py`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._measures: dict[str, Any] = {}

    @once
    def ascii(self) -> bool:
        return self.text.isascii()

    @once
    def digest(self) -> str:
        """The first 16 hex digits of the text's sha256, which identify the text in stored records."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @once
    def lower(self) -> str:
        return self.text.lower()

    @once
    def folded(self) -> str:
        """The text, normalized and case-folded."""
        return fold(self.text)

    @once
    def num_characters(self) -> int:
        text = self.text.strip().replace("\r\n", "\n")
        return len(text if self.ascii else unicodedata.normalize("NFC", text))

    @once
    def words(self) -> list[str]:
        return rules.words(self.text)

    @property
    def num_words(self) -> int:
        """Number of words, `len(words)`."""
        return self._word_numbers[0]

    @once
    def lines(self) -> list[str]:
        return rules.lines(self.text)

    @once
    def spaced(self) -> bool:
        """Whether words are separated by spaces; if not, instructions on words have no verdict."""
        return self.ascii or tokens.is_spaced(self.text)

    @property
    def word_span(self) -> Span:
        """Number of words under all readings."""
        return self._word_numbers[1]

    @once
    def _word_numbers(self) -> tuple[int, Span]:
        return tokens.word_numbers(self.text)

    @once
    def squeezed(self) -> str:
        """The folded lines, with runs of white space as single spaces."""
        return "\n".join([" ".join(line.split()) for line in rules.lines(self.folded)])

    @once
    def unique_span(self) -> Span:
        """Number of different words under all readings."""
        return tokens.unique_span(self.text, len(self.word_counts))

    @once
    def code(self) -> blocks.Code:
        """The code blocks."""
        return blocks.Code(self.lines)

    @property
    def prose_lines(self) -> list[str]:
        """The lines outside code blocks."""
        return self.code.prose

    @once
    def punctuated(self) -> str:
        """The prose without inline code, URLs and the like, in which marks are not punctuation."""
        return signs.prose("\n".join(self.prose_lines))

    @once
    def prose_readings(self) -> list[list[str]]:
        """`prose_lines`, and if a fence is never closed, also the lines with that fence ignored."""
        return [self.code.prose] if self.code.unclosed is None else [self.code.prose, self.code.unclosed]

    @once
    def sentence_readings(self) -> list[Sentences]:
        """The sentences of each of the `prose_readings`."""
        return [Sentences(lines) for lines in self.prose_readings]

    @property
    def sentences(self) -> list[str]:
        """The sentences under the documented reading."""
        return self.sentence_readings[0].by(Reading.DOCUMENTED)

    @once
    def sentence_lengths(self) -> list[int]:
        """Number of words of each sentence."""
        return rules.lengths(self.sentences)

    @once
    def paragraphs(self) -> list[str]:
        return blocks.paragraphs(self.lines)

    @once
    def paragraph_span(self) -> Span:
        """Number of paragraphs under all readings."""
        prose = self.code.prose
        return blocks.paragraph_span(self.lines, self.paragraphs if prose == self.lines else blocks.paragraphs(prose))

    @once
    def first_word(self) -> str | None:
        return rules.first_spelled(self.text)

    @once
    def last_word(self) -> str | None:
        return rules.last_spelled(self.text)

    @once
    def ending_mark(self) -> str:
        return rules.mark_at_end(self.text)

    @once
    def folded_words(self) -> list[str]:
        """Normalized and case-folded words, in order."""
        return rules.words(self.folded)

    @once
    def word_counts(self) -> Counter[str]:
        """Number of occurrences of each folded word, in order of first occurrence."""
        return Counter(rules.words(self._parted.lower()) if self._parted.isascii() else self.folded_words)

    @once
    def _parted(self) -> str:
        return rules.signs_parted(self.text)

    @once
    def _pieces(self) -> list[str]:
        return pieces(self._composed)

    @once
    def content_words(self) -> dict[str, str]:
        """Folded word -> its usual spelling, for words that can serve as keywords, in order of first occurrence.

        Keywords consist of 3 to 20 letters and are not stop words.
        """
        text = self._composed
        found: dict[str, str] = {}
        capitalized: list[str] = []
        for word, folded in zip(self._plain_words, self._plain_folded, strict=False):
            if not 2 < len(word) <= _LONGEST_KEYWORD or folded in STOP_WORDS:
                continue
            # A lower-case occurrence is the usual spelling.
            if word == folded:
                found[folded] = word
            elif folded not in found:
                found[folded] = word
                capitalized.append(folded)
        for folded in capitalized:
            # Capitalized only at the start of a sentence or title: the usual spelling is lower case.
            if found[folded] != folded and not is_name(text, found[folded]):
                found[folded] = folded
        if self.ascii:
            return found
        return {folded: word for folded, word in found.items() if folded.isascii() or not UNSPACED.search(folded)}

    @once
    def _composed(self) -> str:
        return self.text if self.ascii else unicodedata.normalize("NFC", self.text)

    @once
    def _plain_words(self) -> list[str]:
        """The words that occur by themselves, as written, in order of first occurrence."""
        found: list[str] = []
        for piece in dict.fromkeys(self._pieces):
            if piece.isalpha():
                found.append(piece)
            else:
                found += plain_words_of(piece)
        return [*dict.fromkeys(found)]

    @once
    def _plain_folded(self) -> list[str]:
        """The folded `_plain_words`, in the same order; [""] if there are none."""
        return fold("\n".join(self._plain_words)).split("\n")

    @once
    def plain_words(self) -> set[str]:
        """The folded words that occur by themselves; see `plain_counts`."""
        return set(self._plain_folded)

    @once
    def plain_counts(self) -> Counter[str]:
        """Number of times each folded word occurs by itself: not within a compound, contraction, URL or name."""
        written = dict.fromkeys(self._plain_words, 0)
        for piece, number in Counter(self._pieces).items():
            for word in (piece,) if piece.isalpha() else plain_words_of(piece):
                written[word] += number
        found: dict[str, int] = {}
        for word, number in zip(self._plain_folded, written.values(), strict=False):
            found[word] = found.get(word, 0) + number
        return Counter(found)

    @once
    def _stems(self) -> set[str]:
        """The folded words without plural endings; forms of one word share a stem."""
        return {word.rstrip("es") for word in self.word_counts}

    def word_presence(self, word: str) -> Verdict:
        """Whether the whole word occurs; None if only a compound with it or another form of it does."""
        folded = fold(word)
        counts = self.word_counts
        if self.ascii:
            if folded in counts:
                return True if folded in self.plain_words else None
            return None if has_form(folded, counts) else False
        if folded.rstrip("es") in self._stems:
            if folded in self.plain_words:
                return True
            if folded in counts or has_form(folded, counts):
                return None
        return None if self.count_word(word) else False

    def lacking(self, words: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Of the (folded word, word) pairs, those whose word surely does not occur.

        Equivalent to `word_presence(word) is False`.
        """
        counts, near = self.word_counts, self._near
        lacking = [
            named
            for named in words
            if named[0] not in near and not (named[0][-1:] == "s" and has_form(named[0], counts))
        ]
        return lacking if self.ascii else [named for named in lacking if self.word_presence(named[1]) is False]

    @once
    def _near(self) -> set[str]:
        """The folded words, and the singular forms of those that may be plurals."""
        plurals = [word for word in self.word_counts if word[-1] == "s"]
        return {*self.word_counts, *[word[:-1] for word in plurals], *[word.removesuffix("es") for word in plurals]}

    def count_span(self, word: str) -> Span:
        """Span of the word's occurrences: from those by itself to all forms of it and compounds with it."""
        folded = fold(word)
        counts = self.word_counts
        forms = {folded, folded + "s", folded + "es", folded.removesuffix("s"), folded.removesuffix("es")}
        most = sum(counts[form] for form in forms)
        return Span.over(self.count_word(word), self.plain_counts[folded], most)

    def over_prose(self, name: str, span: Callable[[list[str]], Span]) -> Span:
        """The span of a count over the `prose_readings`, computed once per key `name`."""
        return self.measure(f"{name} over prose", lambda text: Span.over(*map(span, text.prose_readings)))

    def count_word(self, word: str) -> int:
        """Number of occurrences of the whole word, ignoring case.

        For an ASCII word this counts `\\bword\\b` with `re.IGNORECASE`, as IFEval's check of forbidden words.
        """
        if word.isascii():
            return self._ascii_counts.get(word.lower(), 0)
        return self.word_counts.get(fold(word), 0)

    @once
    def _ascii_counts(self) -> Counter[str]:
        if self._parted.isascii():  # then all ways to count words agree
            return self.word_counts
        text = self.text
        for sign, letter in _LIKE_ASCII.items():
            text = text.replace(sign, letter)
        return Counter(rules.searched_words(text.lower()))

    def measure(self, name: str, value: Callable[[Features], T]) -> T:
        """`value(self)`, computed once per key `name`."""
        if name not in self._measures:
            self._measures[name] = value(self)
        found: T = self._measures[name]
        return found


def fold(text: str) -> str:
    """Normalize (NFC) and case-fold a text, for comparing words."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", text).casefold()


def features_of(text: str | Features) -> Features:
    """The features of a text. The last few are cached, so that checks of one response share work."""
    if isinstance(text, Features):
        return text
    return _remembered(text) if len(text) <= _CACHED_CHARS else Features(text)


@lru_cache(maxsize=64)
def _remembered(text: str) -> Features:
    return Features(text)
