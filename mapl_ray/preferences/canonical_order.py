"""Canonical order of pairs, which depends only on their content, and an external sort.

Pairs are ordered by `place_of(pair_id)`, then by id, content and row.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TextIO

from mapl_ray.unfinished import unfinished

SORTED_CHARS = 64_000_000  # limit of characters in memory
_VALUE_CHARS = 100  # approximate overhead of a value, besides its texts

Value = tuple[str | int | float, ...]


def place_of(pair_id: str) -> float:
    """Position of a pair in [0, 1): uniform over ids, and determined only by the id."""
    digest = hashlib.sha256(pair_id.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


class ExternalSort:
    """Sort values that may not fit in memory: tuples of texts and numbers that can be compared with each other.

    Above `most` characters, values are sorted in pieces, written to files below `folder` and merged. Leaving the
    context removes the files.
    """

    def __init__(self, folder: Path, most: int = SORTED_CHARS) -> None:
        self._folder, self._most = unfinished(folder / "sort"), most
        self._values: list[Value] = []
        self._chars = 0
        self._files: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, value: Value) -> None:
        """Add a value."""
        self._values.append(value)
        self._chars += _VALUE_CHARS + sum(len(one) for one in value if isinstance(one, str))
        if self._chars > self._most:
            self._write()

    def sorted(self) -> Iterator[Value]:
        """All values in order."""
        self._values.sort()
        if not self._files:
            yield from self._values
            return
        with ExitStack() as stack:
            files = [stack.enter_context(_opened(path, "r")) for path in self._files]
            yield from heapq.merge(self._values, *(map(_value, file) for file in files))

    def _write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._values.sort()
        self._files.append(self._folder / f"{len(self._files)}.jsonl")
        with _opened(self._files[-1], "w") as file:
            file.writelines(f"{json.dumps(value)}\n" for value in self._values)
        self._values, self._chars = [], 0


def _opened(path: Path, mode: Literal["r", "w"]) -> TextIO:
    return path.open(mode, encoding="ascii", newline="\n")


def _value(line: str) -> Any:
    return tuple(json.loads(line))
