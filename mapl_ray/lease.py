"""Exclusive leases: only one run at a time writes to a name. A lease is a file that its owner refreshes while it works.

    runs/mapl/.leases/rm.json    the run that works on runs/mapl/rm: host, boot, process, command

The owner counts as gone if its process can be looked up from here and does not exist, or if the file was not
refreshed for `GONE_SECONDS`, by the clock of the storage. Its lease is then taken over.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mapl_ray.errors import UserError
from mapl_ray.unfinished import unfinished

BEAT_SECONDS = 10.0
GONE_SECONDS = 90.0
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Owner:
    """The holder of a lease."""

    token: str
    host: str
    boot: str  # the kernel's boot id; "" if there is none
    processes: str  # PID namespace of `process`; pods may share process numbers, hosts and boots
    process: int
    started: str  # start time of the process in kernel ticks, because process numbers are reused
    command: str
    since: str

    @classmethod
    def this_process(cls) -> Owner:
        """A new owner: the current process."""
        return cls(
            token=secrets.token_hex(16),
            host=socket.gethostname(),
            boot=_text(Path("/proc/sys/kernel/random/boot_id")),
            processes=_namespace(),
            process=os.getpid(),
            started=_start_of(os.getpid()),
            command=shlex.join(["mapl", *sys.argv[1:]]),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}: {self.command}"


def lease_path(folder: Path, name: str) -> Path:
    """Path of the lease on `name` below a run's folder."""
    return folder / ".leases" / f"{name}.json"


@contextmanager
def lease(path: Path, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lease file `path` during the block.

    Args:
        patience_seconds: how long to wait for a living owner.

    An owner on another host is watched until its lease is refreshed, so it is alive, or becomes too old. Raises
    `UserError` if another run holds the lease. Ends the process if another run took the lease over because this
    process was suspended for too long.
    """
    me = Owner.this_process()
    _acquire(path, me, patience_seconds)
    done = threading.Event()
    beat = threading.Thread(target=_refresh, args=(path, me, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        if (owner := _owner(path)) is not None and owner.token == me.token:
            path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            with suppress(OSError):  # not empty
                folder.rmdir()


def _acquire(path: Path, me: Owner, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    waits = False
    seen: tuple[str, int] | None = None  # token and last refresh of an owner whose process can't be looked up here
    while not _take(path, me):
        owner = _owner(path)
        if owner is None:  # just released
            continue
        now = (owner.token, _refreshed(path))
        alive = _lives_here(owner)
        if alive is None and seen is not None and seen[0] == now[0] and seen[1] != now[1]:
            alive = True
        seen = now
        if alive is False or (alive is None and _age(path) > GONE_SECONDS):
            _break(path, owner)
        elif alive and time.monotonic() >= deadline:
            raise UserError(
                f"{path.parent.parent}: another run of {path.stem} is at work there ({owner}). Wait for it, stop it, "
                "or give this run another name."
            )
        else:
            if not waits:
                print(f"  {path.parent.parent}: waiting for another run of {path.stem} ({owner})", flush=True)
            waits = True
            time.sleep(_LOOK_SECONDS)


def _take(path: Path, me: Owner) -> bool:
    """Create the file atomically, only if it does not exist: a hard link does both, on network storage too."""
    aside = unfinished(path)
    while not aside.is_file():
        with suppress(FileNotFoundError):  # another run that ends may remove the empty folder
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(asdict(me)), encoding="utf-8")
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError:  # storage without hard links
        return _write_new(path, aside.read_text(encoding="utf-8"))
    finally:
        aside.unlink()
    return True


def _write_new(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _break(path: Path, owner: Owner) -> None:
    """Remove the lease of an owner that is gone. A process that comes second finds another owner's and keeps it."""
    doomed = unfinished(path)
    with suppress(FileNotFoundError):
        path.rename(doomed)
        if (found := _owner(doomed)) is not None and found.token != owner.token:
            with suppress(FileExistsError):
                os.link(doomed, path)
        else:
            print(f"  {path.parent.parent}: {path.stem} taken over from a run that is gone ({owner})", flush=True)
        doomed.unlink()


def _refresh(path: Path, me: Owner, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        owner = _owner(path)
        if owner is not None and owner.token != me.token:
            print(f"mapl: failed: {path}: taken over by another run ({owner})", file=sys.stderr, flush=True)
            os._exit(1)
        with suppress(OSError):  # storage that does not answer may answer at the next beat
            if owner is None:
                _take(path, me)
            else:
                os.utime(path)


def _owner(path: Path) -> Owner | None:
    """The owner of the lease; None if there is no lease.

    A damaged lease that was not refreshed for `GONE_SECONDS` is removed; before that it raises `UserError`.
    """
    for _ in range(20):  # without hard links another run may still be writing it
        try:
            return Owner(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            time.sleep(0.1)
    if _age(path) > GONE_SECONDS:
        path.unlink(missing_ok=True)
        return None
    raise UserError(
        f"{path}: a damaged lease. If no run works on {path.parent.parent}, try again in {GONE_SECONDS:.0f} s, or "
        "delete it."
    )


def _lives_here(owner: Owner) -> bool | None:
    """Whether the owner's process exists; None if it can't be looked up from this process."""
    if not owner.boot or not owner.processes:
        return None
    if (owner.boot, owner.processes) != (_text(Path("/proc/sys/kernel/random/boot_id")), _namespace()):
        return None
    return _start_of(owner.process) == owner.started


def _start_of(process: int) -> str:
    """Start time of a process in kernel ticks; empty if it does not exist or is a zombie."""
    fields = _text(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _refreshed(path: Path) -> int:
    try:
        with path.open("rb") as file:  # opening makes network storage ask its server
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0


def _age(path: Path) -> float:
    """Seconds since the lease was refreshed, by the clock of the storage, which may differ from this host's."""
    probe = unfinished(path)
    try:
        probe.touch()
    except FileNotFoundError:  # its owner has ended and removed the empty folder
        return 0.0
    try:
        return (_refreshed(probe) - (_refreshed(path) or _refreshed(probe))) / 1e9
    finally:
        probe.unlink()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
