"""Instructions on the start and end of a response: words, letters, marks."""

from __future__ import annotations

import random
import re
import unicodedata
from functools import partial

from mapl_ray.instructions.claims import absent, all_of, at, stands, used
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.phrasing import fill, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.text import last_words
from mapl_ray.instructions.thresholds import in_random_order
from mapl_ray.instructions.tokens import closing_readings, folded, opening_readings
from mapl_ray.instructions.types import Args, Case
from mapl_ray.instructions.verdicts import Verdict, agreed, opposite, wanted
from mapl_ray.instructions.word_lists import COMMON_WORDS, ENDINGS, OPENERS
from mapl_ray.instructions.wordings import places

_FAMILY = "start_end"
_MARKS = {".": "a period", "?": "a question mark", "!": "an exclamation mark"}
_LIKE_MARKS = {
    ".": ("\u2026", "\u3002", "\uff0e", "\u06d4", "\u0964"),
    "?": ("\uff1f", "\u061f", "?!", "\u2049"),
    "!": ("\uff01", "!?", "\u2048"),
}
_TRAILING = " \t\r\n\u200b\"'\u201c\u201d\u2018\u2019\u00bb)]}*_`~0123456789[("  # quotes, Markdown, footnotes
_MAX_WORD = 30  # characters: a person would not call a longer run a word
_OF_ADDRESSES = ("http", "https", "www")


def _is_word(word: str | None, wanted: str) -> bool:
    return word is not None and fold(word) == fold(wanted)


def usable(word: str | None) -> bool:
    """Whether a person would name this word in an instruction."""
    return (
        word is not None
        and len(word) <= _MAX_WORD
        and any(sign.isalpha() for sign in word)
        and (len(word) > 1 or word.lower() in ("a", "i"))
        and word.lower() not in _OF_ADDRESSES
    )


def _pick(case: Case, own: list[str | None], others: list[str], rng: random.Random) -> str | None:
    """Draw a word that is the `own` word of exactly the texts that must satisfy; from `others` if none must."""
    flags = [flag for _, flag in case.flags]
    wanted = [word for word, flag in zip(own, flags, strict=True) if flag]
    pool: list[str | None] = wanted[:1] if wanted else [*others]
    fitting = [
        word
        for word in pool
        if word is not None
        and usable(word)
        and all(_is_word(mine, word) == flag for mine, flag in zip(own, flags, strict=True))
    ]
    return rng.choice(fitting) if fitting else None


def _context_words(case: Case, words: list[str | None], fallback: tuple[str, ...]) -> list[str]:
    # The other response's word at that place if there is one, else any plausible word.
    near = [word for word in words if word is not None and usable(word)]
    own = {fold(word) for word in (_first(text) for text, _ in case.flags) if word}
    return near if near and any(fold(word) not in own for word in near) else list(fallback)


def _first(text: Features) -> str | None:
    return text.first_word


def _surely_first(text: Features, word: str) -> Verdict:
    readings = text.measure("first words", lambda text: opening_readings(text.text, 1))
    return agreed(words == [folded(word)] for words in readings)


def _surely_last(text: Features, phrase: str) -> Verdict:
    """Verdict on ending with the words; None if marks separate them, such as the end of a sentence or list item."""
    sought = folded(phrase).split()
    number = len(sought)
    verdict = agreed(
        words == sought for words in text.measure(f"last {number} words", partial(_endings, number=number))
    )
    joined = number == 1 or re.search(r"[^\S\n]+".join(map(re.escape, sought)), folded(text.text[-1000:]))
    return verdict if joined or not verdict else None


def _endings(text: Features, number: int) -> list[list[str]]:
    return closing_readings(text.text, number)


def _surely_ends(text: Features, mark: str) -> Verdict:
    """Verdict on the final mark; None if quotes or marks follow, and for ellipses and marks of other scripts."""
    raw = text.text.strip()
    if raw.endswith(mark):
        return None if raw.endswith(("..", "\u2026", *(mark + other for other in _MARKS))) else True
    trimmed = raw.rstrip(_TRAILING)
    return None if text.ending_mark == mark or trimmed.endswith((mark, *_LIKE_MARKS[mark])) else False


@instruction_function(
    family=_FAMILY,
    quantity="opening",
    claims=lambda args: stands("first_word", args["word"]),
    check=lambda text, args: _is_word(text.first_word, args["word"]),
    readings=lambda text, args: _surely_first(text, args["word"]),
    spaced=True,
    phrasings=lambda args: fill(places.FIRST_WORD, word=quoted(args["word"])),
)
def first_word(case: Case, rng: random.Random) -> Args | None:
    """Draw the first word of the response."""
    own = [text.first_word for text, _ in case.flags]
    word = _pick(case, own, _context_words(case, [text.first_word for text in case.context], OPENERS), rng)
    return None if word is None else {"word": word}


@instruction_function(
    family=_FAMILY,
    quantity="opening",
    claims=lambda args: all_of(absent(at("first_word", args["word"]))),
    check=lambda text, args: not _is_word(text.first_word, args["word"]),
    readings=lambda text, args: opposite(_surely_first(text, args["word"])),
    spaced=True,
    phrasings=lambda args: fill(places.FIRST_WORD_NOT, word=quoted(args["word"])),
)
def first_word_not(case: Case, rng: random.Random) -> Args | None:
    """Draw a word that the response must not begin with: the first word of texts that must violate."""
    return first_word.draw(case.opposite, rng)


def _surely_starts_with(text: Features, args: Args) -> Verdict:
    """Verdict on the first letter: of the first word, of the text, and without diacritics."""
    first = text.first_word or ""
    letter = next((sign for sign in text.text[:200] if sign.isalpha()), "")
    wanted_letter = folded(args["letter"])
    starts = [folded(first), folded(letter), folded(unicodedata.normalize("NFD", letter)[:1])]
    return agreed(start.startswith(wanted_letter) for start in starts)


def _starts_with(text: Features, letter: str) -> bool:
    return text.first_word is not None and fold(text.first_word).startswith(fold(letter))


@instruction_function(
    family=_FAMILY,
    quantity="opening",
    claims=lambda args: stands("first_letter", args["letter"]),
    check=lambda text, args: _starts_with(text, args["letter"]),
    readings=_surely_starts_with,
    phrasings=lambda args: fill(places.FIRST_LETTER, letter=quoted(args["letter"])),
)
def first_letter(case: Case, rng: random.Random) -> Args | None:
    """Draw the first letter of the response."""
    wanted = case.satisfied[:1] or [*case.context]
    pool = [text.first_word[0].upper() for text in wanted if text.first_word and text.first_word[0].isalpha()]
    if not case.satisfied:
        pool = pool if pool and not any(_starts_with(text, pool[0]) for text in case.violated) else list("ABCFHISTWY")
    fitting = [
        letter
        for letter in pool
        if all(_surely_starts_with(text, {"letter": letter}) is flag for text, flag in case.flags)
    ]
    return {"letter": rng.choice(fitting)} if fitting else None


@instruction_function(
    family=_FAMILY,
    quantity="ending",
    claims=lambda args: stands("last_word", args["word"]),
    check=lambda text, args: _is_word(text.last_word, args["word"]),
    readings=lambda text, args: _surely_last(text, args["word"]),
    spaced=True,
    phrasings=lambda args: fill(places.LAST_WORD, word=quoted(args["word"])),
)
def last_word(case: Case, rng: random.Random) -> Args | None:
    """Draw the last word of the response; punctuation may follow."""
    own = [text.last_word for text, _ in case.flags]
    near: list[str | None] = [text.last_word for text in case.context]
    taken = {fold(word) for word in own if word}
    others = [word for word in near if word is not None and usable(word) and fold(word) not in taken]
    word = _pick(case, own, others or list(COMMON_WORDS), rng)
    return None if word is None else {"word": word}


@instruction_function(
    family=_FAMILY,
    quantity="ending",
    claims=lambda args: all_of(used(at("ending_mark", args["mark"]), not args["negated"])),
    check=lambda text, args: (text.ending_mark == args["mark"]) != bool(args["negated"]),
    readings=lambda text, args: wanted(_surely_ends(text, args["mark"]), not args["negated"]),
    phrasings=lambda args: places.ENDING_MARK.of({"use": not args["negated"]}, mark=_MARKS[args["mark"]]),
)
def ending_mark(case: Case, rng: random.Random) -> Args | None:
    """Draw a mark that the response must, or must not, end with."""
    for negated in in_random_order((False, True), rng):
        marks = [
            mark for mark in _MARKS if all(_surely_ends(text, mark) is (flag != negated) for text, flag in case.flags)
        ]
        if marks:
            return {"mark": rng.choice(marks), "negated": negated}
    return None


def _last_words(text: Features, number: int) -> list[str]:
    return text.measure(
        f"{number} words at the end", lambda text: [fold(word) for word in last_words(text.text, number)]
    )


@instruction_function(
    family=_FAMILY,
    quantity="ending",
    claims=lambda args: stands("ending", args["phrase"]),
    check=lambda text, args: _last_words(text, len(args["phrase"].split())) == fold(args["phrase"]).split(),
    readings=lambda text, args: _surely_last(text, args["phrase"]),
    spaced=True,
    phrasings=lambda args: fill(places.ENDING_PHRASE, phrase=quoted(args["phrase"])),
)
def ending_phrase(case: Case, rng: random.Random) -> Args | None:
    """Draw the last two or three words of the response; punctuation may follow."""
    number = rng.randint(2, 3)
    sources = case.satisfied[:1] or [*case.context]
    phrases = [last_words(text.text, number) for text in sources]
    if not case.satisfied:
        phrases += [last_words(sentence, number) for text in case.violated for sentence in text.sentences[:6]]
        phrases += [last_words(ending, number) for ending in rng.sample(ENDINGS, 4)]
    fitting = [
        " ".join(words)
        for words in phrases
        if len(words) == number
        and all(map(usable, words))
        and all((_last_words(text, number) == [fold(word) for word in words]) == flag for text, flag in case.flags)
    ]
    return {"phrase": rng.choice(fitting)} if fitting else None
