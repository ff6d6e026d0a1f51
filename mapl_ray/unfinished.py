"""Temporary names for files and folders that are being written or removed. Nothing reads them.

    .NAME.HOST-RANDOM.tmp     next to the future NAME

Hosts that share storage never use the same name. A process id would not be unique: pods count theirs from 1. Files
left by a killed process show which host wrote them.
"""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HOST_CHARS = 40  # the last ones: names of pods differ at their end
_FORM = re.compile(r"\.(.+)\.[A-Za-z0-9-]{1,40}-[0-9a-f]{12}\.tmp", re.DOTALL)


def unique_word() -> str:
    """`HOST-RANDOM`, made of letters, digits and hyphens: unique per call and host."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[-_HOST_CHARS:] or "host"
    return f"{host}-{secrets.token_hex(6)}"


def unfinished(path: Path) -> Path:
    """A temporary path for writing `path`. Creates nothing."""
    return path.with_name(f".{path.name}.{unique_word()}.tmp")


def becomes(name: str) -> str | None:
    """The final name of a file or folder with a temporary name; None for any other name."""
    found = _FORM.fullmatch(name)
    return None if found is None else found[1]


def leftovers(path: Path, untouched_seconds: float = 0.0) -> Iterator[Path]:
    """Temporary files of `path` that were not written to for `untouched_seconds`.

    With 0 seconds the caller must be the only writer, for example the holder of a lease.
    """
    for one in path.parent.iterdir() if path.parent.is_dir() else ():
        with suppress(FileNotFoundError):  # its writer has just finished
            if becomes(one.name) == path.name and time.time() - one.stat().st_mtime >= untouched_seconds:
                yield one


@contextmanager
def scratch_folder(name: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder of mode 0700 below `parent` (default: the machine's temporary folder), removed after the block."""
    folder = unfinished((parent or Path(tempfile.gettempdir())) / name)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
