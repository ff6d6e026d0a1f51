"""Store rejections as JSON lines on disk instead of in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from mapl_ray.awaited import await_files
from mapl_ray.data.records import Rejection, canonical_json
from mapl_ray.data.shards import sync_folder
from mapl_ray.unfinished import unfinished


class RejectionFile:
    """Writes rejections to a temporary file, which is renamed to `path` on exit without an error."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._aside = path, unfinished(path)
        self._lines = self._aside.open("w", encoding="utf-8", newline="\n")
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._lines.flush()
                os.fsync(self._lines.fileno())
                os.replace(self._aside, self._path)
                sync_folder(self._path.parent)
        finally:
            self._lines.close()
            self._aside.unlink(missing_ok=True)

    def add(self, rejection: Rejection) -> None:
        """Append a rejection."""
        self._lines.write(canonical_json(rejection.to_row()) + "\n")
        self.count += 1


def read_rejections(path: Path) -> Iterator[Rejection]:
    """Read the rejections of a finished file, in order."""
    await_files(path.parent, [path.name])
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield Rejection(**json.loads(line))
