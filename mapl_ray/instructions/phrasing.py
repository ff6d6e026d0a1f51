"""Fill in the wordings of an instruction, select them by index, and quote words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload


class Wordings(Sequence[str]):
    """Templates that are filled in on access, because only one of all wordings is used."""

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
    """Index of the wording that can be held out of training: the last one, or none if there is only one."""
    return range(len(phrasings) - 1, len(phrasings)) if len(phrasings) > 1 else range(0)


def seen_wordings(phrasings: Sequence[str]) -> range:
    """Indices of the wordings that are not held out; at least one."""
    return range(max(1, len(phrasings) - 1))


def quoted(word: str) -> str:
    """The word in straight double quotes; quotes inside are escaped."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def listed(words: Sequence[str], conjunction: str) -> str:
    """The words in quotes, in the given order: `"a", "b" and "c"`."""
    *most, last = [quoted(word) for word in words]
    return f"{', '.join(most)} {conjunction} {last}" if most else last
