"""What the function set needs to know of one text, computed when first asked for and only once."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from mapl_ray.instructions import blocks, signs, tokens
from mapl_ray.instructions import text as rules
from mapl_ray.instructions.splitting import Reading, Sentences
from mapl_ray.instructions.tokens import UNSPACED
from mapl_ray.instructions.verdicts import Span, Verdict
from mapl_ray.instructions.word_forms import has_form, is_name, pieces, plain_words_of, runs_of
from mapl_ray.instructions.word_lists import STOP_WORDS

T = TypeVar("T")

_CACHED_CHARS = 50_000  # longer texts are not worth holding in memory
_LONGEST_KEYWORD = 20
# The four letters beyond ASCII that `re.IGNORECASE` takes for ASCII ones (the `re` documentation lists them).
_LIKE_ASCII = {"\u0130": "i", "\u0131": "i", "\u017f": "s", "\u212a": "k"}


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
    def folded(self) -> str:
        """Normalised and case folded."""
        return fold(self.text)

    @cached_property
    def num_characters(self) -> int:
        text = self.text.strip().replace("\r\n", "\n")
        return len(text if self.ascii else unicodedata.normalize("NFC", text))

    @cached_property
    def words(self) -> list[str]:
        return rules.words(self.text)

    @property
    def num_words(self) -> int:
        """The number of words, `len(words)`."""
        return self._word_numbers[0]

    @cached_property
    def lines(self) -> list[str]:
        return rules.lines(self.text)

    @cached_property
    def spaced(self) -> bool:
        """Whether the text's words are separated by spaces: nothing is said of words where they can't."""
        return tokens.is_spaced(self.text)

    @property
    def word_span(self) -> Span:
        """The number of words by all readings."""
        return self._word_numbers[1]

    @cached_property
    def _word_numbers(self) -> tuple[int, Span]:
        return tokens.word_numbers(self.text)

    @cached_property
    def squeezed(self) -> str:
        """The folded lines, with single spaces between what stands in them."""
        return "\n".join([" ".join(line.split()) for line in rules.lines(self.folded)])

    @cached_property
    def unique_span(self) -> Span:
        """The number of different words by all readings."""
        return tokens.unique_span(self.text, len(self.word_counts))

    @cached_property
    def code(self) -> blocks.Code:
        """Where the code blocks are."""
        return blocks.Code(self.lines)

    @property
    def prose_lines(self) -> list[str]:
        """The lines outside code blocks."""
        return self.code.prose

    @cached_property
    def punctuated(self) -> str:
        """The prose without inline code, addresses and the like, where marks do not punctuate."""
        return signs.prose("\n".join(self.prose_lines))

    @cached_property
    def prose_readings(self) -> list[list[str]]:
        """`prose_lines`, and where a fence is never closed also the lines as they are without it."""
        return [self.code.prose] if self.code.unclosed is None else [self.code.prose, self.code.unclosed]

    @cached_property
    def sentence_readings(self) -> list[Sentences]:
        """The sentences of each of the `prose_readings`."""
        return [Sentences(lines) for lines in self.prose_readings]

    @property
    def sentences(self) -> list[str]:
        """The documented sentences."""
        return self.sentence_readings[0].by(Reading.DOCUMENTED)

    @cached_property
    def sentence_lengths(self) -> list[int]:
        """Words a sentence."""
        return [len(rules.words(sentence)) for sentence in self.sentences]

    @cached_property
    def paragraphs(self) -> list[str]:
        return blocks.paragraphs(self.lines)

    @cached_property
    def paragraph_span(self) -> Span:
        """The number of paragraphs by all readings."""
        return blocks.paragraph_span(self.lines, self.code)

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
        return rules.words(self.folded)

    @cached_property
    def word_counts(self) -> Counter[str]:
        """How often each folded word occurs, in the order of their first occurrence."""
        if not self.ascii:
            return Counter(self.folded_words)
        found: dict[str, int] = {}
        numbers = self._pieces
        for piece, number in zip("\n".join(numbers).lower().split("\n"), numbers.values(), strict=False):
            if piece.isalpha():
                found[piece] = found.get(piece, 0) + number
            else:
                for word in runs_of(piece):
                    found[word] = found.get(word, 0) + number
        return Counter(found)

    @cached_property
    def _pieces(self) -> Counter[str]:
        """How often each of the `pieces` occurs."""
        return Counter(pieces(self._composed))

    @cached_property
    def content_words(self) -> dict[str, str]:
        """Folded word -> how a person would write it, for the words that can serve as keywords.

        Letters alone, 3 to 20 of them, no stop words, in the order of their first occurrence.
        """
        text = self._composed
        found: dict[str, str] = {}
        for word, folded in zip(self._plain_words, self._plain_folded, strict=False):
            if not 2 < len(word) <= _LONGEST_KEYWORD or folded in STOP_WORDS:
                continue
            # Written small somewhere: that is how it is written.
            if word == folded or folded not in found:
                found[folded] = word
        for folded, word in found.items():
            # A capital at the start of a sentence or title says nothing: the small form is right.
            if word != folded and not is_name(text, word):
                found[folded] = folded
        if self.ascii:
            return found
        return {folded: word for folded, word in found.items() if folded.isascii() or not UNSPACED.search(folded)}

    @cached_property
    def _composed(self) -> str:
        return self.text if self.ascii else unicodedata.normalize("NFC", self.text)

    @cached_property
    def _plain_words(self) -> dict[str, int]:
        """How often each word occurs by itself, as it is written; in the order of their first occurrence."""
        found: dict[str, int] = {}
        for piece, number in self._pieces.items():
            if piece.isalpha():
                found[piece] = found.get(piece, 0) + number
            else:
                for word in plain_words_of(piece):
                    found[word] = found.get(word, 0) + number
        return found

    @cached_property
    def _plain_folded(self) -> list[str]:
        """The `_plain_words` folded, one for one; of no words, one empty string."""
        return fold("\n".join(self._plain_words)).split("\n")

    @cached_property
    def _plain_set(self) -> set[str]:
        return set(self._plain_folded)

    @cached_property
    def plain_counts(self) -> Counter[str]:
        """How often each folded word occurs by itself: no part of a compound, a contraction, an address or a name."""
        found: dict[str, int] = {}
        for word, number in zip(self._plain_folded, self._plain_words.values(), strict=False):
            found[word] = found.get(word, 0) + number
        return Counter(found)

    @cached_property
    def _stems(self) -> set[str]:
        """The folded words without an ending that a plural may have: forms of one word share it."""
        return {word.rstrip("es") for word in self.word_counts}

    def word_presence(self, word: str) -> Verdict:
        """Whether the whole word occurs: None where only a compound with it, or another form of it, does."""
        folded = fold(word)
        counts = self.word_counts
        if self.ascii:
            if folded in counts:
                return True if folded in self._plain_set else None
            return None if has_form(folded, counts) else False
        if folded.rstrip("es") in self._stems:
            if folded in self._plain_set:
                return True
            if folded in counts or has_form(folded, counts):
                return None
        return None if self.count_word(word) else False

    def lacking(self, words: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Of the words, given with their folded form before them, those that surely do not occur.

        The same as `word_presence(word) is False`.
        """
        counts = self.word_counts
        if self.ascii:
            return [named for named in words if named[0] not in counts and not has_form(named[0], counts)]
        return [named for named in words if named[0] not in counts and self.word_presence(named[1]) is False]

    def count_span(self, word: str) -> Span:
        """How often the word occurs: by itself alone, to all its forms and all compounds with it."""
        folded = fold(word)
        counts = self.word_counts
        forms = {folded, folded + "s", folded + "es", folded.removesuffix("s"), folded.removesuffix("es")}
        most = sum(counts[form] for form in forms)
        return Span.over(self.count_word(word), self.plain_counts[folded], most)

    def over_prose(self, name: str, span: Callable[[list[str]], Span]) -> Span:
        """The span of a count over the `prose_readings`, computed once; `name` is its key."""
        return self.measure(f"{name} over prose", lambda text: Span.over(*map(span, text.prose_readings)))

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
        text = self.text
        for sign, letter in _LIKE_ASCII.items():
            text = text.replace(sign, letter)
        return Counter(rules.searched_words(text.lower()))

    def measure(self, name: str, value: Callable[[Features], T]) -> T:
        """`value` of this text, computed once; `name` is its key."""
        if name not in self._measures:
            self._measures[name] = value(self)
        found: T = self._measures[name]
        return found


def fold(text: str) -> str:
    """Normalised and case folded: how words are compared."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", text).casefold()


def features_of(text: str | Features) -> Features:
    """The features of a text; the last few texts are remembered, so checks of one response share their work."""
    if isinstance(text, Features):
        return text
    return _remembered(text) if len(text) <= _CACHED_CHARS else Features(text)


@lru_cache(maxsize=64)
def _remembered(text: str) -> Features:
    return Features(text)
