"""Test whether storage supports what a run needs, with small files seen from one or two nodes."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mapl_ray.awaited import awaited
from mapl_ray.data.shards import sync_folder, write_atomically
from mapl_ray.errors import first_line
from mapl_ray.unfinished import unfinished

LOCKS = "locks (flock)"
SEEN = "finding a file that another node wrote"
_OLD = 1_000_000_000.0  # a modification time that no new file has, in seconds since the epoch


class Side:
    """A folder as seen by one process. Every method is one step of `try_storage` and may raise `OSError`."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._locks: dict[str, int] = {}

    def host(self) -> str:
        """Name of the node."""
        return socket.gethostname()

    def syncs(self, name: str) -> bool:
        """Flush a file and the folder's entries to disk."""
        with (self._folder / name).open("w") as file:
            os.fsync(file.fileno())
        sync_folder(self._folder)
        return True

    def write(self, name: str, text: str) -> bool:
        """Write a temporary file, fsync it and its folder, and rename it over an existing file."""
        write_atomically(self._folder / name, lambda aside: aside.write_text(text, encoding="utf-8"))
        return True

    def reads(self, name: str, text: str) -> bool:
        """Whether the file holds this text, after waiting as long as `awaited` does."""
        path = self._folder / name

        def look() -> bool | None:
            with suppress(FileNotFoundError):
                return True if path.read_text(encoding="utf-8") == text else None
            return None

        return awaited(look, path.parent) is not None

    def lacks(self, name: str) -> bool:
        """Whether the file does not exist."""
        path = self._folder / name
        return awaited(lambda: None if path.exists() else True, path.parent) is not None

    def move(self, old: str, new: str) -> bool:
        """Rename a folder."""
        (self._folder / old).rename(self._folder / new)
        sync_folder(self._folder)
        return True

    def claim(self, name: str) -> bool:
        """Create a file that must not exist yet, the way leases do: by a hard link, else by exclusive creation."""
        path = self._folder / name
        aside = unfinished(path)
        aside.touch()
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        except OSError:
            try:
                path.open("x").close()
            except FileExistsError:
                return False
        finally:
            aside.unlink()
        return True

    def touch(self, name: str) -> bool:
        """Set a file's modification time to `_OLD`."""
        os.utime(self._folder / name, (_OLD, _OLD))
        return True

    def is_touched(self, name: str) -> bool:
        """Whether the file's modification time is `_OLD`."""
        path = self._folder / name
        return awaited(lambda: True if path.stat().st_mtime == _OLD else None, self._folder) is not None

    def lock(self, name: str) -> bool:
        """Take an exclusive lock; False if another process holds it."""
        handle = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._locks[name] = handle
        return True

    def unlock(self, name: str) -> bool:
        """Release the lock."""
        os.close(self._locks.pop(name))
        return True


@dataclass(frozen=True, slots=True)
class StorageTrial:
    """The outcome of `try_storage`."""

    hosts: tuple[str, ...]
    lacking: tuple[str, ...]  # unsupported operations, with the error if there was one
    seen_seconds: float  # time until another node found a new file


def try_storage(sides: Sequence[Side]) -> StorageTrial:
    """Try the file operations of a run in the folder of the sides: one, or one on each of two nodes."""
    first, last = sides[0], sides[-1]
    hosts, lacking = tuple(dict.fromkeys(side.host() for side in sides)), list[str]()

    def holds(what: str, *steps: Callable[[], bool]) -> None:
        try:
            if not all(step() for step in steps):
                lacking.append(what)
        except OSError as error:
            lacking.append(f"{what}: {first_line(error)}")

    # Looked up before it exists: a client that caches the miss must still find it later.
    holds("fsync", lambda: last.lacks("file"), lambda: first.syncs("synced"))
    if not lacking:
        holds("renaming files", lambda: first.write("file", "1"))
    began = time.monotonic()
    if not lacking:
        holds(SEEN, lambda: last.reads("file", "1"))
    seconds = time.monotonic() - began
    if not lacking:
        holds("renaming a file over another", lambda: first.write("file", "2"), lambda: last.reads("file", "2"))
        holds(
            "renaming folders",
            *(lambda: first.write("old/file", "1"), lambda: last.reads("old/file", "1")),
            *(lambda: first.move("old", "new"), lambda: last.reads("new/file", "1"), lambda: last.lacks("old/file")),
        )
        holds("exclusive creation", lambda: first.claim("lease"), lambda: not last.claim("lease"))
        holds("modification times", lambda: first.touch("lease"), lambda: last.is_touched("lease"))
        holds(
            LOCKS,
            *(lambda: first.lock("lock"), lambda: not last.lock("lock")),
            *(lambda: first.unlock("lock"), lambda: last.lock("lock"), lambda: last.unlock("lock")),
        )
    return StorageTrial(hosts, tuple(lacking), seconds)
