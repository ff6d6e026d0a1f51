"""Requests to a running training, checked between two steps: save a checkpoint, or save one and stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType


class StopRequest(IntEnum):
    """The strongest request of any rank is carried out on all ranks."""

    NONE = 0
    LEAVE = 1  # leave after the next checkpoint that is due: there is room for more workers
    SAVE = 2  # a checkpoint now: a node is about to go
    STOP = 3  # a checkpoint now, then leave


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
