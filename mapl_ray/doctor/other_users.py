"""`mapl doctor`: whether other users of this machine can read Ray's token or change Ray's session folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

from mapl_ray.doctor.finding import Finding

_SESSION = ("--session_dir=", "--session-dir=")  # arguments of raylet, the control store and the agents


def check_token_file() -> Iterator[Finding]:
    """Check that no other user can read Ray's token file, if it exists."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not path.is_file():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding("fail", "token file", f"{path} has mode {mode:04o}: others can read it", f"chmod 600 {path}")
    else:
        yield Finding("ok", "token file", f"{path}, mode {mode:04o}")


def check_session_folders() -> Iterator[Finding]:
    """Check the session folders of Ray's processes on this machine, which Ray makes writable for everyone (0777)."""
    for folder in sorted({folder for process in psutil.process_iter() for folder in _sessions(process)}):
        if others_may_write(folder):
            yield Finding(
                "fail",
                "session folder",
                f"{folder}: every user of this machine can replace sockets and logs of Ray in it",
                "stop Ray, and start it with --temp-dir inside a folder of mode 0700 (cluster/ray-launcher.yaml)",
            )
        else:
            yield Finding("ok", "session folder", f"{folder}: no other user can change its files")


def _sessions(process: psutil.Process) -> Iterator[Path]:
    try:
        words = process.cmdline()
    except (psutil.Error, OSError):
        return
    for word in words:
        if word.startswith(_SESSION):
            yield Path(word.partition("=")[2])


def others_may_write(folder: Path) -> bool:
    """Whether the file modes let a user other than the owner create or replace files in the folder."""
    try:
        modes = [path.stat().st_mode for path in (folder, *folder.parents)]
    except OSError:  # removed, or not accessible
        return False
    reachable = all(mode & stat.S_IXOTH for mode in modes)
    return reachable and bool(modes[0] & stat.S_IWOTH)
