"""How far long work is, in any process: a bar on a terminal, else a line after every few seconds without one.

    with progress("score", total=2000, unit="groups") as work:
        for batch in batches:
            work.advance(len(batch))

The innermost piece of work speaks for the process. What a Ray worker prints, Ray shows at the driver.
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
# Together with the second that a worker's line takes to the driver: a line at least every ten seconds.
SILENCE_SECONDS = 8.0
# Of the driver while others work: their lines come first.
WAITING_SECONDS = 9.5


class Activity:
    """One piece of work, as far as it is."""

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
            total: number of units, None where it is not known.
            done: units that were done before.
            unit: of what is counted, in the plural; empty where only time passes.
            silence: seconds without a line after which this work prints one.
        """
        self.what, self.total, self.unit, self.silence = what, total, unit, silence
        self.done, self._first = done, done
        self._clock, self._began = clock, clock()
        self.bar: Any = None

    def advance(self, number: int = 1) -> None:
        """`number` units more are done."""
        self.done += number
        if self.bar is not None:
            self.bar.update(number)

    def line(self) -> str:
        """As it is printed: what, units done, time gone by, time left."""
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
    """Watches what a process prints, and prints a line of the innermost activity when it has been silent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._activities: list[Activity] = []
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._last = clock()
        self._out: TextIO = sys.stdout  # of the first activity: a block's stdout may be redirected later

    def begin(self, activity: Activity) -> None:
        """Put it on top, and start to watch if it is the first."""
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
        """Take it off, wherever it is by now."""
        with self._lock:
            self._activities.remove(activity)
            if not self._activities:
                self._watch_output(False)

    def printed(self) -> None:
        """Something was printed just now."""
        self._last = self._clock()

    def beat(self) -> float:
        """Print if a line is due; returns the seconds until one may be."""
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
    """Show the block's progress while it runs; arguments as of `Activity`."""
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
    """The items, counted as they are asked for."""
    with progress(what, total, unit, silence) as activity:
        for item in items:
            yield item
            activity.advance()


class CountingBar:
    """In the place of a tqdm bar that a library makes: shows nothing, and advances an activity by what it counts."""

    def __init__(self, activity: Activity, *args: Any, **options: Any) -> None:
        self._activity, self._bar = activity, tqdm(*args, **{**options, "file": StringIO()})

    def update(self, number: int = 1) -> None:
        """`number` more are done."""
        self._activity.advance(number)
        self._bar.update(number)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bar)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)
