"""`mapl doctor`: whether others can read Ray's token."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mapl_ray.doctor.finding import Finding


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
