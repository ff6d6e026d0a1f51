"""Arrow tables and arrays in memory-mapped files that all processes of a machine share.

The files are in a private folder of the user below the temporary folder (`TMPDIR`), named by their content. The first
process writes a file and the others wait for it. The last process that closes it removes it. A file left over by a
killed process is reused by the next process that needs it, and removed when a file of other data is opened. Every
process compares a file with its digest, and a damaged file is written again.
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
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mapl_ray.data.shards import file_sha256, fingerprint_of
from mapl_ray.private_files import private_folder
from mapl_ray.unfinished import becomes, leftovers, unfinished
from mapl_ray.versions import package_versions

UintArray = npt.NDArray[np.uint32]
Fill = Callable[[UintArray], object]  # writes all values of the given array

_TABLE, _ARRAY = ".arrow", ".npy"
_PATIENCE_SECONDS = 10.0  # how long to wait for others to close a damaged file, without the time that writing takes
_WAITS = random.SystemRandom()  # not the global generator, which training seeds and uses

T = TypeVar("T")


def mapped_table(name: str, schema: pa.Schema, make: Callable[[], Iterable[pa.Table]]) -> pa.Table:
    """Concatenate the tables of `make` in a memory-mapped file, which exists as long as the result.

    Args:
        name: identifies the content, `DATA` or `DATA-KIND`; letters, digits and underscores. Files with the same DATA
            are not removed as files of other data.
        make: called if the file does not exist; one table is in memory at a time.

    Raises `OSError` if the file can't be written (such as for lack of space), or if another run uses a damaged one.
    """

    def write(aside: Path) -> None:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for table in make():
                writer.write_table(table)

    return _mapped(name + _TABLE, write, lambda path: pa.ipc.open_file(pa.memory_map(str(path))).read_all())


def mapped_array(name: str, length: int, fill: Fill) -> UintArray:
    """Array [length], uint32, read-only, with the values that `fill` writes, in a memory-mapped file. Raises as
    `mapped_table` does."""

    def write(aside: Path) -> None:
        make: Callable[..., UintArray] = np.lib.format.open_memmap  # which has no type annotations
        array = make(aside, mode="w+", dtype=np.uint32, shape=(length,))
        with aside.open("rb+") as file:
            # Allocate now: on a full disk this raises, but a write to a mapped page would kill the process.
            os.posix_fallocate(file.fileno(), 0, aside.stat().st_size)
        fill(array.view(np.ndarray))

    def read(path: Path) -> UintArray:
        array: UintArray = np.load(path, mmap_mode="r")
        return array

    return _mapped(name + _ARRAY, write, read)


def shared_array(name: str, recipe: object, length: int, fill: Fill, *, mapped: bool) -> UintArray:
    """Array [length], uint32, with the values that `fill` writes: memory-mapped, or in this process's memory if
    `mapped` is False or the file can't be written.

    Args:
        name: as in `mapped_table`; also used in messages.
        recipe: everything other than the data that determines the values, JSON-serializable. Package versions are
            added to it.
    """

    def own() -> UintArray:
        array = np.empty(length, dtype=np.uint32)
        fill(array)
        return array

    if not mapped:
        return own()
    file = f"{name}-{fingerprint_of([recipe, length, package_versions()])[:32]}"
    return mapped_or_own(name.rpartition("-")[2], lambda: mapped_array(file, length, fill), own)


def mapped_or_own(what: str, mapped: Callable[[], T], own: Callable[[], T]) -> T:
    """Return the result of `mapped`, or of `own`, with a message, if the file can't be written."""
    try:
        return mapped()
    except OSError as error:
        print(f"  {what} in every worker's memory, as they can't be mapped (TMPDIR): {error}", flush=True)
        return own()


def _mapped(file: str, write: Callable[[Path], object], read: Callable[[Path], T]) -> T:
    path = private_folder("mapl-groups") / file
    lock = _locked(path.with_suffix(".lock"), fcntl.LOCK_SH)
    try:
        _remove_unused(path)
        _make_whole(path, lock, write)
        found = read(path)
    except BaseException:
        os.close(lock)
        raise
    weakref.finalize(found, _release, path, lock)
    return found


def _make_whole(path: Path, lock: int, write: Callable[[Path], object]) -> None:
    """Wait until the file is valid; one process writes it. `lock` is shared before and after."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _is_whole(path):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one process writes
            if not _is_whole(path):
                _write(path, write)
            deadline = time.monotonic() + _PATIENCE_SECONDS
        time.sleep(_WAITS.uniform(0.01, 0.1))  # in case two processes keep each other from getting the lock
        waits = time.monotonic()
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits for the writing process
        deadline += time.monotonic() - waits
        if time.monotonic() > deadline:
            raise OSError(f"{path} is damaged, and ranks of another run have it open")


def _write(path: Path, write: Callable[[Path], object]) -> None:
    for leftover in leftovers(path):  # from killed processes, as no other process writes now
        leftover.unlink()
    aside = unfinished(path)
    try:
        write(aside)
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


def _data(path: Path) -> str:
    return path.stem.partition("-")[0]


def _remove_unused(ours: Path) -> None:
    """Remove files of other data, complete or partial, that no process has open."""
    names = {becomes(entry.name) or entry.name for entry in ours.parent.iterdir()}
    for path in (ours.with_name(name) for name in names):
        if path.suffix in (_TABLE, _ARRAY) and _data(path) != _data(ours):
            with suppress(BlockingIOError):
                _release(path, _locked(path.with_suffix(".lock"), fcntl.LOCK_SH | fcntl.LOCK_NB))


def _release(path: Path, lock: int) -> None:
    """Release the lock, and remove the file if no other process uses it. The empty lock file stays: if it were removed
    after another process opened it, two processes could each hold a lock."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for one in (path, _digest_path(path), *leftovers(path)):
            one.unlink(missing_ok=True)
    os.close(lock)


def _locked(path: Path, how: int) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, how)
    except BaseException:
        os.close(handle)
        raise
    return handle
