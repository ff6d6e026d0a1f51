"""Arrow tables and arrays in files that all processes of a machine map: one copy for all of them, made once.

The files are in a folder of the user's own below the machine's temporary folder (`TMPDIR`), named by their content. The
first process makes a file, the others wait for it; the last one that leaves removes it. What a killed process leaves
behind serves the next one that opens the same file, and goes when a file of other data is opened. Every process
compares a file with the digest beside it, and a damaged one is made again.
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
Fill = Callable[[UintArray], object]  # writes every value of the array that it is given

_TABLE, _ARRAY = ".arrow", ".npy"
_PATIENCE_SECONDS = 10.0  # for others to give a damaged file back, time in which one of them writes it aside
_WAITS = random.SystemRandom()  # training has seeded the global generator, and draws from it

T = TypeVar("T")


def mapped_table(name: str, schema: pa.Schema, make: Callable[[], Iterable[pa.Table]]) -> pa.Table:
    """The concatenated tables of `make`, from a file that is mapped and stays while the result lives.

    Args:
        name: identifies the content, `DATA` or `DATA-KIND`; letters, digits and underscores. Files of the same DATA are
            kept for each other when a process was killed.
        make: called where the file is not there yet; one table is held at a time.

    Raises `OSError` where the file can't be written, no room among the reasons, and where another run uses a damaged
    one.
    """

    def write(aside: Path) -> None:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for table in make():
                writer.write_table(table)

    return _mapped(name + _TABLE, write, lambda path: pa.ipc.open_file(pa.memory_map(str(path))).read_all())


def mapped_array(name: str, length: int, fill: Fill) -> UintArray:
    """[length] uint32 as `fill` writes them, read-only, from a file as of `mapped_table`; raises as that does."""

    def write(aside: Path) -> None:
        make: Callable[..., UintArray] = np.lib.format.open_memmap  # which has no types
        array = make(aside, mode="w+", dtype=np.uint32, shape=(length,))
        with aside.open("rb+") as file:
            # Without room on the disk, a write to a page of the map would kill the process; this raises.
            os.posix_fallocate(file.fileno(), 0, aside.stat().st_size)
        fill(array.view(np.ndarray))

    def read(path: Path) -> UintArray:
        array: UintArray = np.load(path, mmap_mode="r")
        return array

    return _mapped(name + _ARRAY, write, read)


def shared_array(name: str, recipe: object, length: int, fill: Fill, *, mapped: bool) -> UintArray:
    """[length] uint32 as `fill` writes them: mapped, or where `mapped` is false or there is no room, in own memory.

    Args:
        name: as of `mapped_table`; it is also what a message calls the array.
        recipe: what decides the values besides the data: a JSON-able value. The release and its packages count too.
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
    """What `mapped` gives, or `own` where there can be no such file, which is printed."""
    try:
        return mapped()
    except OSError as error:
        print(f"  {what} in every worker's memory, for they can't be mapped (TMPDIR): {error}", flush=True)
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
    """Have the file there, written by one process; `lock` is shared before and after."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _is_whole(path):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one process writes
            if not _is_whole(path):
                _write(path, write)
            deadline = time.monotonic() + _PATIENCE_SECONDS
        time.sleep(_WAITS.uniform(0.01, 0.1))  # two that keep each other from writing
        waits = time.monotonic()
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits for the one that does
        deadline += time.monotonic() - waits
        if time.monotonic() > deadline:
            raise OSError(f"{path} is damaged, and ranks of another run have it open")


def _write(path: Path, write: Callable[[Path], object]) -> None:
    for leftover in leftovers(path):  # of a process that was killed; no other writes now
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
    """Remove files of other data, whole or half-written, that nobody has open."""
    names = {becomes(entry.name) or entry.name for entry in ours.parent.iterdir()}
    for path in (ours.with_name(name) for name in names):
        if path.suffix in (_TABLE, _ARRAY) and _data(path) != _data(ours):
            with suppress(BlockingIOError):
                _release(path, _locked(path.with_suffix(".lock"), fcntl.LOCK_SH | fcntl.LOCK_NB))


def _release(path: Path, lock: int) -> None:
    """Give the lock back, and remove the file where nobody else has it. The lock's own file stays: it is empty, and
    removing one that another process has just opened would leave two processes with a lock each."""
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
