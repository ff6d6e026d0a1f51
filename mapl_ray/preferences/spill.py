"""Pairs in an order that depends on their content alone, however many there are.

They are spilled into buckets on disk by the hash of their id, and come back bucket by bucket, each sorted in memory:
one bucket (a 256th of the data) and the write buffers are all that is ever held. A bucket of more than 256 million
characters, as where many rows have one id, is sorted in pieces of that size, which are merged from disk.
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
from typing import Literal, Self, TextIO

from mapl_ray.data.records import PreferencePair, Rejection, canonical_json
from mapl_ray.unfinished import leftovers, unfinished

_BUCKETS = 256
_SORTED_CHARS = 256_000_000  # of one bucket, in memory at once
_BUFFERED_CHARS = 1_000_000  # of one bucket before it is written: 256 MB in all, at the very most


def place_of(pair_id: str) -> float:
    """Where a pair stands, in [0, 1): uniform over ids, and nothing but the id decides it."""
    digest = hashlib.sha256(pair_id.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


class Spill:
    """Pairs go in in any order and come out sorted by `place_of`, id and content. Its folder goes when it is closed."""

    def __init__(self, directory: Path) -> None:
        """`directory`: a name for the folder, which is beside it; the caller is the only one to use that name."""
        for leftover in leftovers(directory):
            shutil.rmtree(leftover, ignore_errors=True)
        self.directory = unfinished(directory)
        self.directory.mkdir(parents=True)
        self._buffers: list[list[str]] = [[] for _ in range(_BUCKETS)]
        self._chars = [0] * _BUCKETS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def add(self, pair: PreferencePair) -> None:
        """Take in a pair."""
        # JSON has no tab of its own. The row number is no part of the content, by which pairs are sorted.
        bucket, line = int(place_of(pair.pair_id) * _BUCKETS), f"{canonical_json(pair.to_row())}\t{pair.row}"
        self._buffers[bucket].append(line)
        self._chars[bucket] += len(line)
        if self._chars[bucket] > _BUFFERED_CHARS:
            self._flush(bucket)

    def sorted(self) -> Iterator[PreferencePair]:
        """All pairs in order, those with the same id one after another."""
        for bucket in range(_BUCKETS):
            self._flush(bucket)
            path = self._path(bucket)
            pieces: list[Path] = []
            lines: list[str] = []
            for lines in _pieces(path):
                lines.sort(key=_order)
                if pieces or sum(map(len, lines)) > _SORTED_CHARS:  # there may be more of them
                    pieces.append(path.with_suffix(f".{len(pieces)}"))
                    with _opened(pieces[-1], "w") as piece:
                        piece.writelines(lines)
            path.unlink(missing_ok=True)
            yield from map(_pair, _merged(pieces) if pieces else lines)

    def _flush(self, bucket: int) -> None:
        if self._buffers[bucket]:
            with _opened(self._path(bucket), "a") as handle:
                handle.writelines(f"{line}\n" for line in self._buffers[bucket])
            self._buffers[bucket].clear()
            self._chars[bucket] = 0

    def _path(self, bucket: int) -> Path:
        return self.directory / f"{bucket:03d}.jsonl"


def _opened(path: Path, mode: Literal["r", "w", "a"]) -> TextIO:
    return path.open(mode, encoding="utf-8", errors="surrogatepass", newline="\n")


def _pieces(path: Path) -> Iterator[list[str]]:
    """The lines of a bucket; a piece ends with the line that exceeds `_SORTED_CHARS`."""
    if not path.is_file():
        return
    with _opened(path, "r") as lines:
        piece, size = list[str](), 0
        for line in lines:
            piece.append(line)
            size += len(line)
            if size > _SORTED_CHARS:
                yield piece
                piece, size = [], 0
        if piece:
            yield piece


def _merged(pieces: list[Path]) -> Iterator[str]:
    with ExitStack() as stack:
        yield from heapq.merge(*(stack.enter_context(_opened(piece, "r")) for piece in pieces), key=_order)
    for piece in pieces:
        piece.unlink()


def _order(line: str) -> tuple[float, str, str, int]:
    content, _, row = line.rpartition("\t")
    pair_id = str(json.loads(content)["pair_id"])
    return place_of(pair_id), pair_id, content, int(row)


def _pair(line: str) -> PreferencePair:
    content, _, row = line.rpartition("\t")
    return PreferencePair.from_row(json.loads(content) | {"row": int(row)})


class RejectionFile:
    """Rejections as JSON lines on disk, where they take no memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = path.open("w", encoding="utf-8", newline="\n")
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()

    def add(self, rejection: Rejection) -> None:
        """Append one."""
        self._lines.write(canonical_json(rejection.to_row()) + "\n")
        self.count += 1

    def read(self) -> Iterator[Rejection]:
        """Those added so far, in order."""
        self._lines.flush()
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                yield Rejection(**json.loads(line))
