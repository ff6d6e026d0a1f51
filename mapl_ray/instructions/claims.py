"""Claims: what an instruction requires of a response, as bounds on named counts.

For its arguments, a function states alternatives, at least one of which must hold. Each alternative is a tuple of
bounds that hold together: "no more than 4 bullet points" is `(Bound("bullet", 0, 4),)`, and "at least one of the words
a and b" has one alternative per word. `compatibility.py` uses them to decide which instructions can be combined.

Names of counts: a plain name ("word", "bullet"), or one with a value:

    text:old stone       number of occurrences of the text, case-folded
    at:first_word=the    1 if "the" is at that place, else 0; a place has only one value
    in:first_sentence=x  number of occurrences of the text in that part
    letter:e, initial:e  occurrences of a letter, and words that begin with it
    request:Go on.       1 if the response begins with exactly this request
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

from mapl_ray.instructions.features import fold


class Bound(NamedTuple):
    """A count from `low` to `high` of what `of` names; `high` None means no upper limit."""

    of: str
    low: int = 0
    high: int | None = None


Alternative: TypeAlias = tuple[Bound, ...]
Claims: TypeAlias = tuple[Alternative, ...]


def bounded(of: str, args: Mapping[str, Any]) -> Bound:
    """The bound given by `direction` and `n`."""
    return Bound(of, args["n"]) if args["direction"] == "at least" else Bound(of, 0, args["n"])


def present(of: str) -> Bound:
    """The bound "at least one"."""
    return Bound(of, 1)


def absent(of: str) -> Bound:
    """The bound "none"."""
    return Bound(of, 0, 0)


def about(of: str) -> Bound:
    """A bound that allows any number: it only names the count, so that no other instruction on it is combined."""
    return Bound(of)


def used(of: str, use: bool) -> Bound:
    """The bound "at least one" or "none"."""
    return present(of) if use else absent(of)


def all_of(*bounds: Bound) -> Claims:
    """Claims that all bounds hold."""
    return (bounds,)


def any_of(bounds: Iterable[Bound]) -> Claims:
    """Claims that at least one of the bounds holds."""
    return tuple((bound,) for bound in bounds)


def text_of(text: str) -> str:
    """Name of the number of occurrences of a word or phrase."""
    return f"text:{fold(text)}"


def at(place: str, value: str) -> str:
    """Name of the count that is 1 if a value is at a place."""
    return f"at:{place}={fold(value)}"


def occurs(text: str) -> tuple[Bound, ...]:
    """Bounds for a text that occurs exactly as written, including its capital letters."""
    return (present(text_of(text)), *capitals(text))


def stands(place: str, text: str) -> Claims:
    """Claims that the text is at the place, exactly as written."""
    return all_of(present(at(place, text)), *capitals(text))


def number_of_words(words: Iterable[str], args: Mapping[str, Any]) -> Claims:
    """Claims that at least, or at most, `n` of the words occur."""
    names = [text_of(word) for word in words]
    if args["direction"] == "at least":
        return tuple(tuple(map(present, some)) for some in combinations(names, min(args["n"], len(names))))
    return tuple(tuple(map(absent, some)) for some in combinations(names, max(0, len(names) - args["n"])))


def capitals(text: str) -> tuple[Bound, ...]:
    """The bound that a capital letter occurs, if the text has one."""
    return (present("capitals"),) if any(unicodedata.category(sign) == "Lu" for sign in text) else ()
