"""CPU and memory limits for chat templates, which are untrusted programs that may loop or multiply text forever.

A thread of this process watches all current renderings, and raises `RenderLimitError` in the thread of a rendering that
used too much CPU time or memory. Ordinary templates take about a millisecond.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

CPU_SECONDS = 10.0  # per conversation
MEMORY_BYTES = 2**31  # how much the process may grow during a rendering
_LOOK_SECONDS = 0.1
_LATE_SECONDS = 1.0  # longest delay until an asynchronous exception is raised in its thread


class RenderLimitError(Exception):
    """A template exceeded its CPU or memory limit."""


@dataclass(slots=True)
class _Work:
    thread: int
    clock: int  # id of the thread's CPU-time clock
    began: float
    memory: int | None = None  # of the process, at the first check, in bytes
    stopped: str = ""

    def excess(self) -> str:
        """The exceeded limit as text, or an empty string."""
        if time.clock_gettime(self.clock) - self.began > CPU_SECONDS:
            return f"takes more than {CPU_SECONDS:g} s of CPU time"
        now = _memory()
        self.memory = now if self.memory is None else self.memory
        return f"takes more than {MEMORY_BYTES / 2**30:g} GiB of memory" if now - self.memory > MEMORY_BYTES else ""


@dataclass(slots=True)
class _Watch:
    lock: threading.Lock = field(default_factory=threading.Lock)
    works: dict[int, _Work] = field(default_factory=dict)
    process: int = 0  # id of the process in which the thread runs: a forked process needs its own thread

    def begin(self, work: _Work) -> None:
        with self.lock:
            self.works[work.thread] = work
            if self.process != os.getpid():
                self.process = os.getpid()
                threading.Thread(target=self._look, name="chat templates", daemon=True).start()

    def end(self, work: _Work) -> None:
        with self.lock:
            self.works.pop(work.thread, None)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            with self.lock:
                for work in self.works.values():
                    if not work.stopped and (excess := work.excess()):
                        work.stopped = excess
                        kind = ctypes.py_object(RenderLimitError)
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(work.thread), kind)


_watch = _Watch()


class RenderLimits:
    """Context manager that raises `RenderLimitError`, with the exceeded limit, if its block uses too much."""

    def __enter__(self) -> None:
        thread = threading.get_ident()
        clock = time.pthread_getcpuclockid(thread)
        self._work = _Work(thread, clock, time.clock_gettime(clock))
        _watch.begin(self._work)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _watch.end(self._work)
        if not self._work.stopped:
            return
        if not isinstance(error, RenderLimitError):  # still pending: wait, so that it is not raised in later code
            with suppress(RenderLimitError):
                time.sleep(_LATE_SECONDS)
        raise RenderLimitError(self._work.stopped) from None


def _memory() -> int:
    """Resident memory of this process in bytes; 0 if the kernel does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
