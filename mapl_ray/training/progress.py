"""What is seen of a run while it runs: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TextIO

from tqdm import tqdm

from mapl_ray.progress import SILENCE_SECONDS, progress
from mapl_ray.records import LEVEL_FAMILIES


class ProgressDisplay:
    """Steps done, groups per second and time left."""

    def __init__(self, total_steps: int, done: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._total, self._first, self._began = total_steps, done, time.monotonic()
        self._shown = self._began
        self._waiting = ExitStack()  # for lines during steps that take long
        self._activity = self._waiting.enter_context(progress("train"))
        self._bar = (
            tqdm(total=total_steps, initial=done, desc="  train", unit="step", file=self._stream, dynamic_ncols=True)
            if self._stream.isatty()
            else None
        )

    def update(self, step: int, metrics: Mapping[str, float], show: bool) -> None:
        """After `step` steps; `show` leaves a line that stays, as do some seconds without one in a log."""
        self._activity.what = f"step {step + 1}/{self._total}"
        if self._bar is not None:
            self._bar.set_postfix_str(_speed(metrics), refresh=False)
            self._bar.update(step - self._bar.n)
        now = time.monotonic()
        if show or (self._bar is None and now - self._shown > SILENCE_SECONDS):
            line = f"  step {step}/{self._total}  {line_of(metrics)}"
            if self._bar is not None:
                self._bar.write(line, file=self._stream)
            else:
                print(f"{line}{self._left(step)}", file=self._stream, flush=True)
            self._shown = now

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
        self._waiting.close()

    def _left(self, step: int) -> str:
        if step >= self._total or step <= self._first:
            return ""
        seconds = (time.monotonic() - self._began) / (step - self._first) * (self._total - step)
        return f"  {tqdm.format_interval(seconds)} left"


def line_of(metrics: Mapping[str, float]) -> str:
    """The main numbers of a run; held-out ones where there are any."""
    held_out = "eval/loss" in metrics
    prefix = "eval/" if held_out else ""
    words = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    words += [f"held-out: loss {metrics['eval/loss']:.3f}"] if held_out else []
    for level in LEVEL_FAMILIES:
        if (name := f"{prefix}rewards/accuracies/{level}") in metrics:
            words.append(f"{level} {metrics[name]:.3f}")
    words += [f"{metrics['tokens_per_second']:.0f} tokens/s"] if "tokens_per_second" in metrics else []
    words += [speed] if (speed := _speed(metrics)) else []
    return "  ".join(words)


def _speed(metrics: Mapping[str, float]) -> str:
    return f"{metrics['groups_per_second']:.1f} groups/s" if "groups_per_second" in metrics else ""
