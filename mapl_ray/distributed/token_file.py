"""Ray's token where we start Ray ourselves: in a file that its owner alone may read."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path


def ensure_token_file() -> None:
    """Make Ray's default token file, mode 0600, or close one that others can read.

    A private cluster asks for a token unless RAY_AUTH_MODE says otherwise, and Ray writes a missing one with the
    umask's mode, 0644 as a rule. One that RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH gives is its owner's affair.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whole from the start: another process that starts Ray now must not read half of it. mkstemp's mode is 0600.
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".auth_token.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):  # that other process was first
            os.link(aside, path)
        os.unlink(aside)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
