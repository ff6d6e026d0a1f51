"""What an instruction says about a response, as bounds on named counts.

A function states for its arguments alternatives, one of which has to hold, and each of which is a number of bounds that
hold together: "no more than 4 bullet points" is `(Bound("bullet", 0, 4),)`, "at least one of the words a and b" has
one alternative for either word. `compatibility.py` decides from these which instructions can stand in one prompt.

Names of counts: a plain name ("word", "bullet"), or one with a value:

    text:old stone       how often the text occurs, case folded
    at:first_word=the    1 where "the" stands at that place, else 0; only one value can stand at a place
    in:first_sentence=x  how often the text occurs in that part
    letter:e, initial:e  occurrences of a letter, and words that begin with it
    request:Go on.       1 where the response begins with this request, as it is written
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

from mapl_ray.instructions.features import fold


class Bound(NamedTuple):
    """From `low` to `high` of what `of` names; no upper end where `high` is None."""

    of: str
    low: int = 0
    high: int | None = None


Alternative: TypeAlias = tuple[Bound, ...]
Claims: TypeAlias = tuple[Alternative, ...]


def bounded(of: str, args: Mapping[str, Any]) -> Bound:
    """The bound of `direction` and `n`."""
    return Bound(of, args["n"]) if args["direction"] == "at least" else Bound(of, 0, args["n"])


def present(of: str) -> Bound:
    """At least one."""
    return Bound(of, 1)


def absent(of: str) -> Bound:
    """None."""
    return Bound(of, 0, 0)


def about(of: str) -> Bound:
    """Nothing but the name: two instructions about one count never meet."""
    return Bound(of)


def used(of: str, use: bool) -> Bound:
    """At least one, or none."""
    return present(of) if use else absent(of)


def all_of(*bounds: Bound) -> Claims:
    """All bounds hold."""
    return (bounds,)


def any_of(bounds: Iterable[Bound]) -> Claims:
    """One of the bounds holds."""
    return tuple((bound,) for bound in bounds)


def text_of(text: str) -> str:
    """The name of how often a word or phrase occurs."""
    return f"text:{fold(text)}"


def at(place: str, value: str) -> str:
    """The name of whether a value stands at a place."""
    return f"at:{place}={fold(value)}"


def occurs(text: str) -> tuple[Bound, ...]:
    """The text occurs as it is written: its capital letters count."""
    return (present(text_of(text)), *capitals(text))


def stands(place: str, text: str) -> Claims:
    """The text stands at the place as it is written."""
    return all_of(present(at(place, text)), *capitals(text))


def number_of_words(words: Iterable[str], args: Mapping[str, Any]) -> Claims:
    """At least, or at most, `n` of the words occur."""
    names = [text_of(word) for word in words]
    if args["direction"] == "at least":
        return tuple(tuple(map(present, some)) for some in combinations(names, min(args["n"], len(names))))
    return tuple(tuple(map(absent, some)) for some in combinations(names, max(0, len(names) - args["n"])))


def capitals(text: str) -> tuple[Bound, ...]:
    """A capital letter, where the text has one."""
    return (present("capitals"),) if any(unicodedata.category(sign) == "Lu" for sign in text) else ()
