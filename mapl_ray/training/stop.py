"""Requests to a running training, checked between two steps: save a checkpoint, or save one and stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType

# Looking up requests takes milliseconds, and more the more ranks there are: at most a hundredth of the time ...
PAUSE = 100.0  # times as long as a look took
LONGEST_PAUSE = 2.0  # ... and every two seconds in any case


class StopRequest(IntEnum):
    """The strongest request of any rank is carried out on all ranks."""

    NONE = 0
    LEAVE = 1  # leave after the next checkpoint that is due: there is room for more workers
    SAVE = 2  # a checkpoint now: a node is about to go
    STOP = 3  # a checkpoint now, then leave


class StopWatch:
    """What this rank knows of requests: its own SIGTERM at once, and now and then what has to be looked up.

    All ranks look in the same step, since looking may be a collective; rank 0 says when it is due.
    """

    def __init__(self, terminated: Callable[[], bool], look: Callable[[], StopRequest] | None) -> None:
        self._terminated, self._look = terminated, look
        self._looks, self._due = 0, 0.0  # of `time.monotonic`

    def asked(self, look: bool) -> StopRequest:
        """The strongest request to this rank; `look`: look it up too, as every rank does now."""
        found = StopRequest.NONE
        if look and self._look is not None:
            began = time.monotonic()
            found = self._look()
            ended = time.monotonic()
            # In the first look ranks wait for those that are still loading.
            pause = min(PAUSE * (ended - began), LONGEST_PAUSE) if self._looks else 0.0
            self._looks, self._due = self._looks + 1, ended + pause
        return StopRequest.STOP if self._terminated() else found

    def is_due(self) -> bool:
        """Whether it is time for another look."""
        return self._look is not None and time.monotonic() >= self._due


@contextmanager
def sigterm_watch() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has arrived. Always False outside the main thread, where Python handles no signals."""
    came = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
