"""Progress of long work: how long a process may be silent, and what it prints then."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mapl_ray.progress import SILENCE_SECONDS, WAITING_SECONDS, Activity, CountingBar, Pulse, progress, tracked


class Clock:
    """Time that passes when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pulse() -> Pulse:
    """A pulse on a clock of its own; its thread never wakes up by itself within a test."""
    return Pulse(Clock())


def gaps(pulse: Pulse, activity: Activity, seconds: float, look: float = 0.1) -> list[float]:
    """Begin the activity, let time pass in looks of the pulse, and return the times between its lines."""
    clock = pulse._clock
    assert isinstance(clock, Clock)
    began = last = clock.now
    found, before = [], pulse._last
    pulse.begin(activity)
    while clock.now < began + seconds:
        clock.now += look
        pulse.beat()
        if pulse._last != before and clock.now > began:
            found.append(clock.now - last)
            last, before = clock.now, pulse._last
    found.append(clock.now - last)
    pulse.end(activity)
    return found


@pytest.mark.parametrize("silence", [SILENCE_SECONDS, WAITING_SECONDS])
def test_never_silent_for_ten_seconds(pulse: Pulse, silence: float, capsys: pytest.CaptureFixture[str]) -> None:
    found = gaps(pulse, Activity("score", 1200, "groups", silence), seconds=60)
    assert max(found) < 10.0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == int(60 / silence)
    assert lines[0].startswith("  score: 0 of 1,200 groups, 00:0")


def test_what_else_is_printed_counts(pulse: Pulse, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose own lines come often enough shows nothing more."""
    clock, activity = pulse._clock, Activity("train")
    assert isinstance(clock, Clock)
    pulse.begin(activity)
    for step in range(10):
        clock.now += SILENCE_SECONDS - 1
        print(f"step {step}")
        assert 0 < pulse.beat() <= SILENCE_SECONDS
    pulse.end(activity)
    assert capsys.readouterr().out.splitlines() == [f"step {step}" for step in range(10)]


def test_a_line_says_what_is_done_and_left() -> None:
    clock = Clock()
    activity = Activity("evaluate rm", 1200, "groups", clock=clock)
    activity.advance(300)
    clock.now += 65
    assert activity.line() == "  evaluate rm: 300 of 1,200 groups, 01:05 (03:15 left)"
    assert Activity("start Ray", clock=clock).line() == "  start Ray: 00:00"
    resumed = Activity("train", 100, "steps", done=50, clock=clock)
    resumed.advance(25)
    clock.now += 10
    assert resumed.line() == "  train: 75 of 100 steps, 00:10 (00:10 left)"


def test_the_innermost_work_speaks(pulse: Pulse, capsys: pytest.CaptureFixture[str]) -> None:
    clock, outer, inner = pulse._clock, Activity("outer"), Activity("inner")
    assert isinstance(clock, Clock)
    for activity in (outer, inner):
        pulse.begin(activity)
    for _ in range(2):
        clock.now += SILENCE_SECONDS
        pulse.beat()
        if inner in pulse._activities:
            pulse.end(inner)
    pulse.end(outer)
    assert [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines()] == ["inner", "outer"]


def test_a_slow_iterable_shows_its_items(capsys: pytest.CaptureFixture[str]) -> None:
    """With the real thread and clock."""

    def slow() -> Iterator[int]:
        for item in range(3):
            time.sleep(0.25)
            yield item

    stdout = sys.stdout
    assert list(tracked(slow(), "read", "rows", 3, silence=0.1)) == [0, 1, 2]
    assert sys.stdout is stdout
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 4
    assert any(line.startswith("  read: 1 of 3 rows") for line in lines)


def test_ends_where_the_work_breaks_off(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), progress("work", silence=0.05):
        raise ValueError("broken")
    time.sleep(0.2)
    assert capsys.readouterr().out == ""


def test_a_library_that_counts_on_tqdm_advances_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    """As vLLM uses it: total, update, format_dict, postfix, refresh, close; and as an iterator."""
    activity = Activity("generate", 4, "responses")
    bar = CountingBar(activity, total=4, desc="Processed prompts", dynamic_ncols=True, postfix="0 toks/s")
    for _ in range(4):
        bar.postfix = f"{1 / max(bar.format_dict['elapsed'], 1e-9):.2f} toks/s"
        bar.update(1)
    assert bar.n == activity.done == 4
    bar.refresh()
    bar.close()
    assert list(CountingBar(activity, [1, 2], desc="Rendering prompts")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_an_import_takes_neither_ray_nor_torch() -> None:
    """A worker shows progress before it has loaded them."""
    code = "import sys, mapl_ray.progress; print([n for n in ('ray', 'torch', 'transformers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
