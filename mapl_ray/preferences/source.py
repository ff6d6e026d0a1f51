"""A source of raw rows, and the slices into which it is cut for workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mapl_ray.config import DataConfig
from mapl_ray.preferences.files import RawRow
from mapl_ray.preferences.formats import COLUMNS

Rows = Callable[[], Iterator[RawRow]]


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of a source's rows, in order; any node can read them."""

    rows: Rows | None  # None: all rows
    size: int  # approximate bytes of text
    numbered: bool = True  # row numbers are positions in the source; else they start at 0 in each slice


@dataclass(frozen=True, slots=True)
class Source:
    """One stream of raw rows."""

    name: str  # for messages: the path as the user gave it, or the data set's name
    label: str  # for records: name of the file or data set, the same on every machine
    rows: Rows
    size: int = 0  # approximate bytes of text
    cut: Callable[[int], list[Slice]] | None = None  # cuts the source into slices of about this many bytes, if it can

    def slices(self, size: int) -> list[Slice]:
        """The whole source, in order, as slices of about `size` bytes; a single slice if it can't be cut."""
        cut = self.cut(size) if self.cut is not None and self.size > size else []
        return cut if len(cut) > 1 else [Slice(None, self.size)]


def columns_of(config: DataConfig) -> frozenset[str]:
    """Names of the columns that are read, both the package's and those in `config.columns`."""
    return COLUMNS.union(config.columns.values())
