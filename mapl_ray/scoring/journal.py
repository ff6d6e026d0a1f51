"""What an engine has in hand, written down before it begins: a process that dies tells nobody what it died of.

One file a part of the data, one JSON text a line, appended:

    {"fingerprint": ..., "total": 1000, "size": 64}                    what the lines below are about
    {"run": ..., "begin": [0, 64]}                                     groups 0 to 63 go to the engine
    {"run": ..., "failed": [0, 64], "reason": ...}                     the engine gave an error instead of scores
    {"end": [0, 64], "outcomes": [[-12.5, ...], "too long", ...]}      scores, or why there are none

A batch that was begun and never ended killed its engine, or was in hand when something else did: it is tried once more
as it is, then halved, and so are its halves, until the group that does it stands alone and is set aside with its
reason. What is ended is not scored again. Deaths count within one run: a run that is stopped says nothing about groups.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Outcome = tuple[float, ...] | str  # scores of a group's sequences, or why it has none
Span = tuple[int, int]
TRIES = 2  # engines that a group may cost


class Journal:
    """The batches of one part: which is next, and what the finished ones gave."""

    def __init__(self, path: Path, fingerprint: str, total: int, size: int, run: str) -> None:
        """Take over what is in the file, if it is about the same `total` groups in batches of `size`."""
        self._path, self._total, self._size, self._run = path, total, size, run
        self._done: dict[Span, list[Outcome]] = {}
        self._begun: Counter[Span] = Counter()
        self._reasons: dict[Span, str] = {}
        head = {"fingerprint": fingerprint, "total": total, "size": size}
        lines = list(_read(path))
        if not lines or lines[0] != head:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(head) + "\n", encoding="utf-8")
        for line in lines[1:] if lines and lines[0] == head else ():
            self._take(line)

    def next(self) -> Span | None:
        """The next batch `[low, high)` to hand to an engine; None when every group has an outcome."""
        for low in range(0, self._total, self._size):
            for span in self._pending(low, min(low + self._size, self._total), 0):
                return span
        return None

    def begin(self, span: Span) -> None:
        """To be called before the engine sees the batch."""
        self._append({"run": self._run, "begin": list(span)})

    def fail(self, span: Span, reason: str) -> None:
        """The engine raised an error; it is not to be used any more."""
        self._append({"run": self._run, "failed": list(span), "reason": reason})

    def end(self, span: Span, outcomes: Sequence[Outcome]) -> None:
        """One outcome a group of the batch."""
        self._append({"end": list(span), "outcomes": list(outcomes)})

    def outcomes(self) -> list[Outcome]:
        """One a group of the part, in order, once `next` is None."""
        return [outcome for _, batch in sorted(self._done.items()) for outcome in batch]

    def remove(self) -> None:
        """The part is written: nothing is to be remembered."""
        self._path.unlink(missing_ok=True)

    def _pending(self, low: int, high: int, earlier: int) -> Iterator[Span]:
        """`earlier` engines died of batches that these groups were part of."""
        span = (low, high)
        if span in self._done:
            return
        deaths = self._begun[span]
        if high - low == 1:
            if deaths and earlier + deaths >= TRIES:
                self.end(span, [self._blame(span)])
            else:
                yield span
        elif self._halved(span) or span in self._reasons or deaths >= (1 if earlier else TRIES):
            middle = (low + high) // 2
            yield from self._pending(low, middle, earlier + deaths)
            yield from self._pending(middle, high, earlier + deaths)
        else:
            yield span

    def _halved(self, span: Span) -> bool:
        return any(span[0] <= low and high <= span[1] for low, high in self._done)

    def _blame(self, span: Span) -> str:
        reason = self._reasons.get(span, "its process died without a word; it may have run out of memory")
        return f"the engine broke on this group at {TRIES} tries, the last time with nothing else in hand: {reason}"

    def _append(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, allow_nan=False) + "\n"
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(text)
        self._take(json.loads(text))

    def _take(self, line: dict[str, Any]) -> None:
        if "end" in line:
            outcomes = [one if isinstance(one, str) else tuple(one) for one in line["outcomes"]]
            self._done[_span(line["end"])] = outcomes
        elif line.get("run") == self._run and "begin" in line:
            self._begun[_span(line["begin"])] += 1
        elif line.get("run") == self._run:
            self._reasons[_span(line["failed"])] = line["reason"]


def _span(value: Sequence[int]) -> Span:
    return value[0], value[1]


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; what a process wrote while it died is left out, and cut off."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    for line in whole.splitlines():
        yield json.loads(line)
