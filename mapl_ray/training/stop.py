"""Requests to a running training, checked between steps: save a checkpoint, or save one and stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType

# Looking up requests takes milliseconds, and more with more ranks, so it may take at most 1 % of the time ...
PAUSE = 100.0  # pause between two look-ups, as a multiple of a look-up's time
LONGEST_PAUSE = 2.0  # ... but happens at least every two seconds


class StopRequest(IntEnum):
    """A request. All ranks follow the strongest request of any rank."""

    NONE = 0
    LEAVE = 1  # stop after the next regular checkpoint, as more workers can be started
    SAVE = 2  # save a checkpoint now, as a node is about to be shut down
    STOP = 3  # save a checkpoint now, then stop


class StopWatch:
    """Requests to this rank: its own SIGTERM, known at once, and requests that are looked up from time to time.

    All ranks look them up in the same step, as this may be a collective. Rank 0 decides when.
    """

    def __init__(self, terminated: Callable[[], bool], look: Callable[[], StopRequest] | None) -> None:
        self._terminated, self._look = terminated, look
        self._looks, self._due = 0, 0.0  # of `time.monotonic`

    def asked(self, look: bool) -> StopRequest:
        """Return the strongest request to this rank. `look`: also look up requests, as all ranks must in this step."""
        found = StopRequest.NONE
        if look and self._look is not None:
            began = time.monotonic()
            found = self._look()
            ended = time.monotonic()
            # The first look-up is not timed, as it waits for ranks that are still loading.
            pause = min(PAUSE * (ended - began), LONGEST_PAUSE) if self._looks else 0.0
            self._looks, self._due = self._looks + 1, ended + pause
        return StopRequest.STOP if self._terminated() else found

    def is_due(self) -> bool:
        """Whether it is time for another look-up."""
        return self._look is not None and time.monotonic() >= self._due


@contextmanager
def sigterm_watch() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM was received. Always False outside the main thread, as Python
    handles signals only there."""
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
