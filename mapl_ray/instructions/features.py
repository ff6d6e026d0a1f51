"""What the function set needs to know of one text, computed when first asked for and only once."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.word_lists import STOP_WORDS

T = TypeVar("T")

_CACHED_CHARS = 50_000  # longer texts are not worth holding in memory
# Letters alone, joined to nothing by an apostrophe or a hyphen.
_PLAIN_WORD = re.compile(r"(?<![\w'\u2019\-\\])[^\W\d_]{3,20}(?![\w'\u2019\-])")
# Scripts that put no spaces between words: a run of them is no word a person would name.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uff66-\uff9f\U00020000-\U0003ffff]")
# The four letters beyond ASCII that `re.IGNORECASE` takes for ASCII ones (the `re` documentation lists them).
_LIKE_ASCII = {0x130: "i", 0x131: "i", 0x17F: "s", 0x212A: "k"}
_MID_SENTENCE = re.compile(r"[^\W\d_A-Z],?[ ]\Z")


class Features:
    """Lazy features of a text; the rules are in `text.py`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._measures: dict[str, Any] = {}

    @cached_property
    def ascii(self) -> bool:
        return self.text.isascii()

    @cached_property
    def digest(self) -> str:
        """Names the text in what is stored of it: the start of its sha256."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @cached_property
    def lower(self) -> str:
        return self.text.lower()

    @cached_property
    def num_characters(self) -> int:
        return len(self.text.strip().replace("\r\n", "\n"))

    @cached_property
    def words(self) -> list[str]:
        return rules.words(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return rules.lines(self.text)

    @cached_property
    def prose_lines(self) -> list[str]:
        return rules.outside_code(self.lines)

    @cached_property
    def sentences(self) -> list[str]:
        return rules.sentences(self.prose_lines)

    @cached_property
    def sentence_lengths(self) -> list[int]:
        """Words a sentence."""
        return [len(rules.words(sentence)) for sentence in self.sentences]

    @cached_property
    def paragraphs(self) -> list[str]:
        return rules.paragraphs(self.lines)

    @cached_property
    def first_word(self) -> str | None:
        return rules.first_word(self.text)

    @cached_property
    def last_word(self) -> str | None:
        return rules.last_word(self.text)

    @cached_property
    def ending_mark(self) -> str:
        return rules.ending_mark(self.text)

    @cached_property
    def folded_words(self) -> list[str]:
        """Words normalised and case folded, in order."""
        if not self.ascii:
            return rules.words(fold(self.text))
        return "\n".join(self.words).lower().split("\n") if self.words else []

    @cached_property
    def word_counts(self) -> Counter[str]:
        """How often each folded word occurs."""
        return Counter(self.folded_words)

    @cached_property
    def content_words(self) -> dict[str, str]:
        """Folded word -> how a person would write it, for the words that can serve as keywords.

        Letters alone, 3 to 20 of them, no stop words, in the order of their first occurrence.
        """
        text = self.text if self.ascii else unicodedata.normalize("NFC", self.text)
        found: dict[str, str] = {}
        for word in dict.fromkeys(_PLAIN_WORD.findall(text)):
            folded = word.lower() if self.ascii else word.casefold()
            if folded in STOP_WORDS:
                continue
            if word == folded:
                found[folded] = folded  # written small somewhere: that is how it is written
            elif folded not in found:
                # A capital at the start of a sentence or title says nothing: the small form is right.
                found[folded] = word if _is_name(text, word) else folded
        return {folded: word for folded, word in found.items() if folded.isascii() or not _UNSPACED.search(folded)}

    def count_word(self, word: str) -> int:
        """How often the whole word occurs, case ignored.

        For an ASCII word this is `\\bword\\b` with `re.IGNORECASE`, as IFEval searches forbidden words.
        """
        if word.isascii():
            return self._ascii_counts.get(word.lower(), 0)
        return self.word_counts.get(fold(word), 0)

    @cached_property
    def _ascii_counts(self) -> Counter[str]:
        if self.ascii:
            return self.word_counts
        return Counter(rules.searched_words(self.text.translate(_LIKE_ASCII).lower()))

    def measure(self, name: str, value: Callable[[Features], T]) -> T:
        """`value` of this text, computed once; `name` is its key."""
        if name not in self._measures:
            self._measures[name] = value(self)
        found: T = self._measures[name]
        return found


def fold(text: str) -> str:
    """Normalised and case folded: how words are compared."""
    return unicodedata.normalize("NFC", text).casefold()


def features_of(text: str | Features) -> Features:
    """The features of a text; the last few texts are remembered, so checks of one response share their work."""
    if isinstance(text, Features):
        return text
    return _remembered(text) if len(text) <= _CACHED_CHARS else Features(text)


@lru_cache(maxsize=64)
def _remembered(text: str) -> Features:
    return Features(text)


def _is_name(text: str, word: str) -> bool:
    # "in Paris", "NASA": capitals that do not come from the place in the sentence.
    if word.isupper():
        return True
    start = text.find(word)
    return _MID_SENTENCE.search(text, max(0, start - 3), start) is not None
