"""The two errors that end a run. `cli.py` turns them into exit codes, without a traceback."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_FULL = ("No space left on device", "Disk quota exceeded")
_NEARLY_NOTHING = 2**20  # bytes


class UserError(Exception):
    """A user's mistake, found before work starts: exit code 2.

    The message names file, row, field and value, what was expected and what to do.
    """


class RunError(Exception):
    """A failure during the run (non-finite loss, engine that does not start): exit code 1."""


def no_space(error: BaseException, folder: Path | None = None) -> str | None:
    """The message for an `error` caused by a full disk or quota; None for any other error.

    Some libraries report a failed write without its cause. Then the free space of `folder`, the target, is checked.
    """
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    full = full or any(words in str(error) for words in _FULL)
    if not full and (folder is None or shutil.disk_usage(folder).free >= _NEARLY_NOTHING):
        return None
    where = getattr(error, "filename", None) or folder
    return (
        f"no space is left {f'for {where}' if where else 'where the run writes'}. Free some, or give output_dir more "
        "room; finished work is kept: run the same command again to go on."
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its class if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
