"""Wordings of an instruction by index, and quotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload


class Wordings(Sequence[str]):
    """Templates, filled in only when they are looked at: of all wordings one is used."""

    def __init__(self, templates: Sequence[str], values: Mapping[str, object]) -> None:
        self._templates, self._values = templates, values

    def __len__(self) -> int:
        return len(self._templates)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._templates[index].format(**self._values)


def fill(templates: Sequence[str], **values: object) -> Wordings:
    """The templates with their fields filled in."""
    return Wordings(templates, values)


def held_out_wordings(phrasings: Sequence[str]) -> range:
    """Index of the wording that training can do without, the last one; none where there is but one."""
    return range(len(phrasings) - 1, len(phrasings)) if len(phrasings) > 1 else range(0)


def seen_wordings(phrasings: Sequence[str]) -> range:
    """Indices of the others, at least one."""
    return range(max(1, len(phrasings) - 1))


def quoted(word: str) -> str:
    """The word in straight double quotes; quotes inside are escaped."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def listed(words: Sequence[str], conjunction: str) -> str:
    """`"a", "b" and "c"`: the words in quotes, in the order given."""
    *most, last = [quoted(word) for word in words]
    return f"{', '.join(most)} {conjunction} {last}" if most else last
