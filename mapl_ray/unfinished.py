"""Names of files and folders that are being written, or removed: nobody reads them.

    .NAME.HOST-RANDOM.tmp     what is to become NAME, beside it

Hosts that share storage never have the same name at once. A process id would not do: pods count theirs from 1. What a
killed process leaves behind shows which host wrote it.
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
    """`HOST-RANDOM`, of letters, digits and hyphens: another one at every call, on every host."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[-_HOST_CHARS:] or "host"
    return f"{host}-{secrets.token_hex(6)}"


def unfinished(path: Path) -> Path:
    """The name to write what is to become `path` under; nothing is made."""
    return path.with_name(f".{path.name}.{unique_word()}.tmp")


def becomes(name: str) -> str | None:
    """What the file or folder of this name was to become; None for names of another form."""
    found = _FORM.fullmatch(name)
    return None if found is None else found[1]


def leftovers(path: Path, untouched_seconds: float = 0.0) -> Iterator[Path]:
    """What writers of `path` left behind, and nobody has written to for so long.

    With 0 seconds the caller must be the only writer, as one that holds a lease is.
    """
    for one in path.parent.iterdir() if path.parent.is_dir() else ():
        with suppress(FileNotFoundError):  # it is somebody's work, and finished
            if becomes(one.name) == path.name and time.time() - one.stat().st_mtime >= untouched_seconds:
                yield one


@contextmanager
def scratch_folder(name: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder of mode 0700 below `parent` (default: the machine's temporary folder) that is removed in the end."""
    folder = unfinished((parent or Path(tempfile.gettempdir())) / name)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
