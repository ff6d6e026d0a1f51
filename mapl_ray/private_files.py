"""Files that this user alone may reach on a machine that others use too: Ray's token, and folders for sessions."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from mapl_ray.unfinished import unfinished


def private_folder(name: str, base: str | Path | None = None) -> Path:
    """The folder `NAME-UID` below `base` (default: the machine's temporary folder), mode 0700; made if missing.

    Raises `PermissionError` where something else has that name: a link, a file, another user's folder, or one that
    others may enter. `/tmp` is everybody's, so any user could have put it there.
    """
    folder = Path(base or tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    there = folder.lstat()
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o077:
        raise PermissionError(f"{folder}: expected a folder of this user's alone, mode 0700; remove it")
    return folder


def ensure_token_file() -> None:
    """Make Ray's default token file, mode 0600, or close one that others can read.

    A private cluster asks for a token unless RAY_AUTH_MODE says otherwise, and Ray writes a missing one with the
    umask's mode, 0644 as a rule. A token given by RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is left as it is.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Written aside and linked: another process that starts Ray must not read half of it.
        aside = unfinished(path)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):  # that other process was first
            os.link(aside, path)
        os.unlink(aside)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
