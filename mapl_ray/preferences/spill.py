"""Pairs in an order that depends on their content alone, however many there are.

They are spilled into buckets on disk by the hash of their id, and come back bucket by bucket, each sorted in memory:
one bucket (a 256th of the data) and the write buffers are all that is ever held.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from mapl_ray.records import PreferencePair, Rejection, canonical_json

_BUCKETS = 256
_BUFFERED_CHARS = 1_000_000  # of one bucket before it is written: 256 MB in all, at the very most


def place_of(pair_id: str) -> float:
    """Where a pair stands, in [0, 1): uniform over ids, and nothing but the id decides it."""
    digest = hashlib.sha256(pair_id.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


class Spill:
    """Pairs go in in any order and come out sorted by `place_of`, id and content. Its folder goes when it is closed."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)  # what a killed run left
        directory.mkdir(parents=True)
        self._directory = directory
        self._buffers: list[list[str]] = [[] for _ in range(_BUCKETS)]
        self._chars = [0] * _BUCKETS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

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
            lines = path.read_text(encoding="utf-8", errors="surrogatepass").split("\n")[:-1] if path.is_file() else []
            path.unlink(missing_ok=True)
            pairs = []
            for line in lines:
                content, _, row = line.rpartition("\t")
                pairs.append((PreferencePair.from_row(json.loads(content) | {"row": int(row)}), content))
            pairs.sort(key=lambda entry: (place_of(entry[0].pair_id), entry[0].pair_id, entry[1], entry[0].row))
            yield from (pair for pair, _ in pairs)

    def _flush(self, bucket: int) -> None:
        if self._buffers[bucket]:
            with self._path(bucket).open("a", encoding="utf-8", errors="surrogatepass", newline="\n") as handle:
                handle.writelines(f"{line}\n" for line in self._buffers[bucket])
            self._buffers[bucket].clear()
            self._chars[bucket] = 0

    def _path(self, bucket: int) -> Path:
        return self._directory / f"{bucket:03d}.jsonl"


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
