"""Whose process listens on a port of this machine, as far as the kernel says: a token goes to nobody else."""

from __future__ import annotations

import os
from pathlib import Path

from mapl_ray.errors import UserError

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING = "0A"


def listeners(port: int) -> set[int]:
    """User ids of the sockets that listen on a TCP port here; empty where the kernel does not say, as on macOS."""
    found = set()
    for table in _TABLES:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except (OSError, ValueError):
            continue
        for line in lines:
            fields = line.split()
            local, state, user = fields[1], fields[3], fields[7]
            if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                found.add(int(user))
    return found


def check_listener(url: str, port: int) -> None:
    """Raise `UserError` where another user than this one and root listens: any user may take a free port, answer 401
    and wait for a token."""
    others = listeners(port) - {os.getuid(), 0}
    if others:
        raise UserError(
            f"{url}: the process that listens there is of another user (uid {min(others)}), and would be sent the "
            "cluster's token. Open a tunnel of your own on another port, or submit as that user."
        )
