"""Show the progress of long work in any process: a bar on a terminal, otherwise a line after a few silent seconds.

    with progress("score", total=2000, unit="groups") as work:
        for batch in batches:
            work.advance(len(batch))

Only the innermost activity of a process is shown. Ray prints the lines of its workers at the driver.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")
# A worker's line takes about a second to reach the driver, so there is a line at least every ten seconds.
SILENCE_SECONDS = 8.0
# For the driver while workers are busy: their lines come first.
WAITING_SECONDS = 9.5


class Activity:
    """One piece of work and its progress."""

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = "",
        silence: float = SILENCE_SECONDS,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            total: number of units; None if unknown.
            done: units finished earlier.
            unit: name of the counted unit, in the plural; empty to show only the time.
            silence: seconds without output after which a line is printed.
        """
        self.what, self.total, self.unit, self.silence = what, total, unit, silence
        self.done, self._first = done, done
        self._clock, self._began = clock, clock()
        self.bar: Any = None

    def advance(self, number: int = 1) -> None:
        """Count `number` more finished units."""
        self.done += number
        if self.bar is not None:
            self.bar.update(number)

    def line(self) -> str:
        """The line to print: name, finished units, elapsed time, remaining time."""
        seconds = self._clock() - self._began
        words = [f"  {self.what}:"]
        if self.unit:
            of_total = "" if self.total is None else f" of {self.total:,}"
            words.append(f"{self.done:,}{of_total} {self.unit},")
        words.append(tqdm.format_interval(seconds))
        if self.total is not None and self._first < self.done < self.total:
            left = seconds / (self.done - self._first) * (self.total - self.done)
            words.append(f"({tqdm.format_interval(left)} left)")
        return " ".join(words)


class Pulse:
    """Watch the output of a process and print a line of the innermost activity after a silence."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._activities: list[Activity] = []
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._last = clock()
        self._out: TextIO = sys.stdout  # stdout when the first activity begins; it may be redirected later

    def begin(self, activity: Activity) -> None:
        """Add an activity as the innermost one; the first one starts the watch."""
        with self._lock:
            if not self._activities:
                self._last, self._out = self._clock(), sys.stdout
                self._watch_output(True)
            self._activities.append(activity)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()
        self._changed.set()

    def end(self, activity: Activity) -> None:
        """Remove an activity, innermost or not."""
        with self._lock:
            self._activities.remove(activity)
            if not self._activities:
                self._watch_output(False)

    def printed(self) -> None:
        """Record that something was printed now."""
        self._last = self._clock()

    def beat(self) -> float:
        """Print a line if one is due; return the seconds until the next may be due."""
        with self._lock:
            if not self._activities:
                return SILENCE_SECONDS
            activity = self._activities[-1]
            left = self._last + activity.silence - self._clock()
            if left > 0:
                return left
            if activity.bar is not None:
                activity.bar.refresh()
            else:
                print(activity.line(), file=self._out, flush=True)
            self.printed()
            return activity.silence

    def _run(self) -> None:
        while True:
            self._changed.wait(timeout=self.beat())
            self._changed.clear()

    def _watch_output(self, on: bool) -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if on and not isinstance(stream, _Watched):
                setattr(sys, name, _Watched(stream, self))
            elif not on and isinstance(stream, _Watched):
                setattr(sys, name, stream.stream)


class _Watched:
    """A text stream that reports every write."""

    def __init__(self, stream: TextIO, pulse: Pulse) -> None:
        self.stream, self._pulse = stream, pulse

    def write(self, text: str) -> int:
        self._pulse.printed()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_PULSE = Pulse()


@contextmanager
def progress(
    what: str, total: int | None = None, unit: str = "", silence: float = SILENCE_SECONDS, done: int = 0
) -> Iterator[Activity]:
    """Show the block's progress while it runs; arguments as for `Activity`."""
    activity = Activity(what, total, unit, silence, done)
    if unit and sys.stdout.isatty():
        activity.bar = tqdm(total=total, desc=f"  {what}", unit=unit, file=sys.stdout, dynamic_ncols=True, leave=False)
    _PULSE.begin(activity)
    try:
        yield activity
    finally:
        _PULSE.end(activity)
        if activity.bar is not None:
            activity.bar.close()


def tracked(
    items: Iterable[T], what: str, unit: str, total: int | None = None, silence: float = SILENCE_SECONDS
) -> Iterator[T]:
    """Yield the items and count each one as progress."""
    with progress(what, total, unit, silence) as activity:
        for item in items:
            yield item
            activity.advance()


class CountingBar:
    """Replacement for a library's tqdm bar: shows nothing and advances an activity instead."""

    def __init__(self, activity: Activity, *args: Any, **options: Any) -> None:
        self._activity, self._bar = activity, tqdm(*args, **{**options, "file": StringIO()})

    def update(self, number: int = 1) -> None:
        """Count `number` more finished units."""
        self._activity.advance(number)
        self._bar.update(number)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bar)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)
