"""What synthesis asked for and what it got: acceptance by function and by k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """Counts of a run or a part; they add up."""

    asked: Counter[str] = field(default_factory=Counter)  # function: instructions requested, one per side of a contrast
    written: Counter[str] = field(default_factory=Counter)  # those it could write
    draws: Counter[int] = field(default_factory=Counter)  # k: drawn G1 of so many functions
    separating: Counter[int] = field(default_factory=Counter)  # those that separated the responses in both directions
    pairs: Counter[int] = field(default_factory=Counter)  # k: pairs for which so many instructions were wanted
    groups: Counter[int] = field(default_factory=Counter)  # those that gave a group

    def add(self, other: Tally) -> None:
        """Take in the counts of another part."""
        for name in self.__slots__:
            getattr(self, name).update(getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries in the order of their keys."""
        return {name: {str(k): n for k, n in sorted(getattr(self, name).items())} for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, int]]) -> Tally:
        """The inverse of `to_json`. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        tally = cls()
        for name in ("asked", "written"):
            getattr(tally, name).update(value[name])
        for name in ("draws", "separating", "pairs", "groups"):
            getattr(tally, name).update({int(k): n for k, n in value[name].items()})
        return tally
