"""A table that all ranks of a machine read from one file, mapped into their memory: the machine holds it once.

The file is in a folder of the user's own below the machine's temporary folder (`TMPDIR`), named by its content. The
first rank writes it, the others wait for it; the last one that leaves removes it. What a rank that was killed leaves
behind serves the next one of the same content, and goes when one of another content comes. Every rank compares the file
with the digest beside it, and a damaged one is written again.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from mapl_ray.private_files import private_folder
from mapl_ray.shards import file_sha256
from mapl_ray.unfinished import leftovers, unfinished

_PATIENCE_SECONDS = 10.0  # for others to give a damaged file back, time in which one of them writes it aside


def mapped_table(name: str, schema: pa.Schema, make: Callable[[], Iterable[pa.Table]]) -> pa.Table:
    """The concatenated tables of `make`, from a file that is mapped and stays while the result lives.

    Args:
        name: identifies the content; usable as a file name.
        make: called where the file is not there yet; one table is held at a time.

    Raises `OSError` where the file can't be written, no room among the reasons, and where another run uses a damaged
    one.
    """
    folder = private_folder("mapl-groups")
    path, lock = folder / f"{name}.arrow", _locked(folder / f"{name}.lock", fcntl.LOCK_SH)
    try:
        _remove_unused(folder, path)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _is_whole(path):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one rank writes
                if not _is_whole(path):
                    _write(path, schema, make())
                deadline = time.monotonic() + _PATIENCE_SECONDS
            time.sleep(random.uniform(0.01, 0.1))  # two that keep each other from writing
            waits = time.monotonic()
            fcntl.flock(lock, fcntl.LOCK_SH)  # waits for the one that does
            deadline += time.monotonic() - waits
            if time.monotonic() > deadline:
                raise OSError(f"{path} is damaged, and ranks of another run have it open")
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except BaseException:
        os.close(lock)
        raise
    weakref.finalize(table, _release, path, lock)
    return table


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    for leftover in leftovers(path):  # of a rank that was killed; no other writes now
        leftover.unlink()
    aside = unfinished(path)
    try:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for table in tables:
                writer.write_table(table)
        digest = file_sha256(aside)
        aside.rename(path)
        _digest_path(path).write_text(digest, encoding="ascii")
    finally:
        aside.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    try:
        return _digest_path(path).read_bytes() == file_sha256(path).encode()
    except FileNotFoundError:
        return False


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _remove_unused(folder: Path, ours: Path) -> None:
    for path in folder.glob("*.arrow"):
        if path != ours:
            with suppress(BlockingIOError):
                _release(path, _locked(path.with_suffix(".lock"), fcntl.LOCK_SH | fcntl.LOCK_NB))


def _release(path: Path, lock: int) -> None:
    """Give the lock back, and remove the file where nobody else has it. The lock's own file stays: it is empty, and
    removing one that another rank has just opened would leave two ranks with a lock each."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        _digest_path(path).unlink(missing_ok=True)
    os.close(lock)


def _locked(path: Path, how: int) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, how)
    except BaseException:
        os.close(handle)
        raise
    return handle
