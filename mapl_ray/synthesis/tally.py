"""Acceptance counts of synthesis, by function and by k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """Counts of a run or a part."""

    asked: Counter[str] = field(default_factory=Counter)  # by function: instructions requested, one per contrast's side
    written: Counter[str] = field(default_factory=Counter)  # by function: instructions that it could write
    draws: Counter[int] = field(default_factory=Counter)  # by k: drawn G1 with k functions
    separating: Counter[int] = field(default_factory=Counter)  # by k: of these, G1 that separated in both directions
    pairs: Counter[int] = field(default_factory=Counter)  # by k: pairs for which k instructions were drawn
    groups: Counter[int] = field(default_factory=Counter)  # by k: of these, pairs that gave a group

    def add(self, other: Tally) -> None:
        """Add the counts of another part."""
        for name in self.__slots__:
            getattr(self, name).update(getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, sorted by key."""
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
