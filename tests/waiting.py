"""Wait for what other processes do. Another test runs on the same two cores, so deadlines are long."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 450.0  # seconds; pytest's limit for a test is longer


def until(condition: Callable[[], T], what: str, every: float = 0.02) -> T:
    """The first true value of `condition()`. Raises `AssertionError`, naming `what`, after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(every)
    return value
