"""Files and folders that only this user can access on a shared machine: Ray's token and session folders."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mapl_ray.unfinished import unique_word


def private_folder(name: str, base: str | Path | None = None) -> Path:
    """The folder `NAME-UID` below `base` (default: the machine's temporary folder), mode 0700; created if missing.

    Raises `PermissionError` if that name is a link, a file, another user's folder, or a folder that others may enter.
    Any user could have created it, because `/tmp` is shared.
    """
    folder = Path(base or tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    there = folder.lstat()
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o077:
        raise PermissionError(f"{folder}: expected a folder that only this user can access, mode 0700; remove it")
    return folder


@contextmanager
def cluster_token(folder: Path) -> Iterator[Path]:
    """A file with a token for a single cluster, mode 0600, removed at the end of the block.

    `folder`: a `private_folder`. Ray's default file, `~/.ray/auth_token`, is shared by all clusters of a user, and Ray
    writes it with the umask's mode. Each process locks its file; unlocked files of killed processes are removed.
    """
    for old in folder.glob("token-*"):
        with suppress(OSError), old.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            old.unlink()
    path = folder / f"token-{unique_word()}"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        file.write(secrets.token_hex(32))
        file.flush()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
