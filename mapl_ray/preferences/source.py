"""A source of raw rows, and the slices of it that workers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mapl_ray.config import DataConfig
from mapl_ray.preferences.files import RawRow
from mapl_ray.preferences.formats import COLUMNS

Rows = Callable[[], Iterator[RawRow]]


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of a source's rows, in its order, which any node can read."""

    rows: Rows | None  # None: all of them
    size: int  # bytes of text, about
    numbered: bool = True  # by their position in the source; else from 0


@dataclass(frozen=True, slots=True)
class Source:
    """One stream of raw rows."""

    name: str  # in messages: the path as the user gave it, or the data set's name
    label: str  # in records: the file's or data set's name, the same on every machine
    rows: Rows
    size: int = 0  # bytes of text, about
    cut: Callable[[int], list[Slice]] | None = None  # into slices of about so many bytes; none where that can't be done

    def slices(self, size: int) -> list[Slice]:
        """The whole source, in its order, in slices of about `size` bytes; one where it can't be cut."""
        cut = self.cut(size) if self.cut is not None and self.size > size else []
        return cut if len(cut) > 1 else [Slice(None, self.size)]


def columns_of(config: DataConfig) -> frozenset[str]:
    """The columns that are read of a source, by its own names."""
    return COLUMNS.union(config.columns.values())
