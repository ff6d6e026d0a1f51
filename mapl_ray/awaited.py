"""Wait for files that another node has written: network storage may report them as missing for a minute.

NFS clients cache which names they did not find. Opening and listing a folder refreshes that cache; if this does not
help at once, waiting does. Local storage is checked once.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

PATIENCE_SECONDS = 90.0  # NFS remembers for 60 s at most, unless it is mounted otherwise (acregmax, acdirmax)
# File systems that only one kernel writes to: a file that it does not find does not exist.
LOCAL = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds
_T = TypeVar("_T")


def awaited(look: Callable[[], _T | None], folder: Path) -> _T | None:
    """Call `look` until its result is not None, for up to `PATIENCE_SECONDS`, and return the last result.

    Args:
        look: reads files in `folder` that another node is known to have written; returns None while they are missing.
    """
    found = look()
    if found is not None or is_local(folder):
        return found
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
    while found is None and time.monotonic() < deadline:
        list_again(folder)
        time.sleep(pause)
        pause, found = min(2 * pause, _LONGEST_PAUSE), look()
    return found


def await_files(folder: Path, names: list[str]) -> list[str]:
    """Wait until all files exist; return the names of those that are still missing at the end."""

    def look() -> bool | None:
        return True if all((folder / name).is_file() for name in names) else None

    awaited(look, folder)
    return [name for name in names if not (folder / name).is_file()]


def has_appeared(path: Path) -> bool:
    """Whether a file that another node may have created exists by now."""
    list_again(path.parent)
    return path.exists()


def list_again(folder: Path) -> None:
    """Refresh the cached names of a folder and of its parent, so that the next lookup finds new ones."""
    for one in (folder.parent, folder):
        with suppress(OSError):
            os.listdir(one)


def is_local(path: Path) -> bool:
    """Whether the path is on storage local to this machine; False if unknown."""
    return file_system(path) in LOCAL


def file_system(path: Path) -> str:
    """The type of the file system that a path is or would be on, such as `nfs4`; empty if the kernel reports none."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real, found = path.resolve(), ""
    longest = -1
    for line in lines:
        mounted, _, source = line.partition(" - ")
        # Spaces and other special characters are written in octal.
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mounted.split()[4]))
        if real.is_relative_to(point) and len(point.parts) >= longest:
            longest, found = len(point.parts), source.split()[0]
    return found
