"""A finding of `mapl doctor`, and what it finds of the token file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    cure: str = ""


def check_token_file() -> Iterator[Finding]:
    """Ray's token file, if there is one: nobody else may read it."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not path.is_file():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding("fail", "token file", f"{path} has mode {mode:04o}: others can read it", f"chmod 600 {path}")
    else:
        yield Finding("ok", "token file", f"{path}, mode {mode:04o}")
