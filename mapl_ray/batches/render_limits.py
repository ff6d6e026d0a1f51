"""Limits of a chat template's run: it is a program of whoever made the model, and may loop or multiply text forever.

A thread of this process looks at the renderings that go on and raises `RenderLimitError` in the thread of one that has
taken too much CPU time or memory. Ordinary templates take about a millisecond.
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

CPU_SECONDS = 10.0  # of one conversation
MEMORY_BYTES = 2**31  # by which the process may grow meanwhile
_LOOK_SECONDS = 0.1
_LATE_SECONDS = 1.0  # at most, from asking Python to raise an exception in a thread to the exception


class RenderLimitError(Exception):
    """A template took more than it may."""


@dataclass(slots=True)
class _Work:
    thread: int
    clock: int  # of the thread's CPU time
    began: float
    memory: int | None = None  # of the process, when the work was first looked at
    stopped: str = ""

    def excess(self) -> str:
        """What is too much, in words; empty for nothing."""
        if time.clock_gettime(self.clock) - self.began > CPU_SECONDS:
            return f"takes more than {CPU_SECONDS:g} s of CPU time"
        now = _memory()
        self.memory = now if self.memory is None else self.memory
        return f"takes more than {MEMORY_BYTES / 2**30:g} GiB of memory" if now - self.memory > MEMORY_BYTES else ""


@dataclass(slots=True)
class _Watch:
    lock: threading.Lock = field(default_factory=threading.Lock)
    works: dict[int, _Work] = field(default_factory=dict)
    process: int = 0  # in which the thread runs: a fork has none of its own

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
    """Raises `RenderLimitError`, with what is exceeded, out of the block that it is entered for."""

    def __enter__(self) -> None:
        thread = threading.get_ident()
        clock = time.pthread_getcpuclockid(thread)
        self._work = _Work(thread, clock, time.clock_gettime(clock))
        _watch.begin(self._work)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _watch.end(self._work)
        if not self._work.stopped:
            return
        if not isinstance(error, RenderLimitError):  # it was asked for, and must not come later and elsewhere
            with suppress(RenderLimitError):
                time.sleep(_LATE_SECONDS)
        raise RenderLimitError(self._work.stopped) from None


def _memory() -> int:
    """Bytes of main memory that this process has; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
