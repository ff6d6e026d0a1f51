"""Wording: numbers with their nouns, bounds that never change the truth, quotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

# All of a row mean the same whole number: no "over" and "under", which are off by one.
_BOUNDS = {
    "at least": ("at least {n} {nouns}", "no fewer than {n} {nouns}", "a minimum of {n} {nouns}", "{n} or more {many}"),
    "at most": ("at most {n} {nouns}", "no more than {n} {nouns}", "a maximum of {n} {nouns}", "{n} or fewer {many}"),
}
# "60 or fewer percent" is no English: a share is less or more.
_SHARES = {
    "at least": ("at least {n} {many}", "no less than {n} {many}", "a minimum of {n} {many}", "{n} {many} or more"),
    "at most": ("at most {n} {many}", "no more than {n} {many}", "a maximum of {n} {many}", "{n} {many} or less"),
}


def noun(n: int, singular: str, plural: str) -> str:
    """The noun in its number."""
    return singular if n == 1 else plural


def exact_phrase(n: int, singular: str, plural: str) -> str:
    """ "exactly 1 word", "exactly 5 words", "no words"."""
    return f"exactly {n} {noun(n, singular, plural)}" if n else f"no {plural}"


def bound_phrases(direction: str, n: int, singular: str, plural: str) -> list[str]:
    """All ways to say "at least n things" (or at most), four for either direction."""
    bounds = _SHARES if plural == "percent" else _BOUNDS
    return [bound.format(n=n, nouns=noun(n, singular, plural), many=plural) for bound in bounds[direction]]


class Wordings(Sequence[str]):
    """Templates by values, filled in only when they are looked at: of sixteen wordings one is used."""

    def __init__(self, templates: Sequence[str], values: Sequence[Mapping[str, object]]) -> None:
        self._templates, self._values = templates, values

    def __len__(self) -> int:
        return len(self._templates) * len(self._values)

    @property
    def num_templates(self) -> int:
        """Templates; the first of them come first, all with the first values."""
        return len(self._templates)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        values, template = divmod(range(len(self))[index], len(self._templates))
        return self._templates[template].format(**self._values[values])


def fill(templates: Sequence[str], **values: object) -> Wordings:
    """The templates with their fields filled in."""
    return Wordings(templates, [values])


def fill_bounds(templates: Sequence[str], bounds: Sequence[str], **values: object) -> Wordings:
    """The templates with every bound in turn, in the field `{bound}`."""
    return Wordings(templates, [{"bound": bound, **values} for bound in bounds])


def held_out_wordings(phrasings: Sequence[str]) -> range:
    """Indices of the wordings that training can do without: the last template, with every bound.

    A bound is worded alike for many functions, so a wording is new where its template is. None of one alone.
    """
    templates = phrasings.num_templates if isinstance(phrasings, Wordings) else len(phrasings)
    return range(templates - 1, len(phrasings), templates) if templates > 1 else range(0)


def seen_wordings(phrasings: Sequence[str]) -> list[int]:
    """Indices of the others, at least one."""
    held_out = held_out_wordings(phrasings)
    return [index for index in range(len(phrasings)) if index not in held_out]


def quoted(word: str) -> str:
    """The word in straight double quotes; quotes inside are escaped."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def listed(words: Sequence[str], conjunction: str) -> str:
    """`"a", "b" and "c"`: the words in quotes, in the order given."""
    *most, last = [quoted(word) for word in words]
    return f"{', '.join(most)} {conjunction} {last}" if most else last
