"""A journal of the batches that an engine starts and finishes, because a process that dies reports no cause.

One file per part of the data, with one appended JSON object per line:

    {"fingerprint": ..., "total": 1000, "size": 64}                    header: the groups and the batch size
    {"run": ..., "begin": [0, 64]}                                     groups 0 to 63 are sent to the engine
    {"run": ..., "failed": [0, 64], "reason": ...}                     the engine raised an error
    {"end": [0, 64], "outcomes": [[-12.5, ...], "too long", ...]}      scores, or why there are none

A batch that began and never ended killed its engine, or was running when something else did. It is tried once more as a
whole, then halved repeatedly until the group that causes it is found and rejected with its reason. Finished batches are
not scored again. Only failures of the same run count: an earlier run that was stopped says nothing about groups.

A line in any other form means that the file is damaged. It is truncated there, and later batches are scored again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mapl_ray.data.shards import json_lines, write_atomically

Outcome = tuple[float, ...] | str  # scores of a group's sequences, or why it has none
Span = tuple[int, int]
TRIES = 2  # engine failures after which a group is rejected
_FORMS = {
    "begin": {"run", "begin"},
    "failed": {"run", "failed", "reason"},
    "end": {"end", "outcomes"},
}


class Journal:
    """The batches of one part: the next batch, and the outcomes of finished ones."""

    def __init__(self, path: Path, fingerprint: str, total: int, size: int, run: str) -> None:
        """Load the file if it has the same fingerprint, `total` and `size`; otherwise start a new one."""
        self._path, self._total, self._size, self._run = path, total, size, run
        self._done: dict[Span, list[Outcome]] = {}
        self._begun: Counter[Span] = Counter()
        self._reasons: dict[Span, str] = {}
        kept: list[dict[str, Any]] = [{"fingerprint": fingerprint, "total": total, "size": size}]
        lines = json_lines(path)
        if next(lines, None) == kept[0]:
            for line in lines:
                if line is None or not self._take(line):
                    break
                kept.append(line)
        whole = "".join(map(_text, kept)).encode()
        if not path.is_file() or path.read_bytes() != whole:
            write_atomically(path, lambda aside: aside.write_bytes(whole))

    def next(self) -> Span | None:
        """The next batch `[low, high)` for the engine; None when every group has an outcome."""
        for low in range(0, self._total, self._size):
            for span in self._pending(low, min(low + self._size, self._total), 0):
                return span
        return None

    def begin(self, span: Span) -> None:
        """Record that a batch begins. Call it before sending the batch to the engine."""
        self._append({"run": self._run, "begin": list(span)})

    def fail(self, span: Span, reason: str) -> None:
        """Record that the engine raised an error. The engine must not be used again."""
        self._append({"run": self._run, "failed": list(span), "reason": reason})

    def end(self, span: Span, outcomes: Sequence[Outcome]) -> None:
        """Record a finished batch, with one outcome per group."""
        self._append({"end": list(span), "outcomes": list(outcomes)})

    def outcomes(self) -> list[Outcome]:
        """One outcome per group of the part, in order. Complete once `next` returns None."""
        return [outcome for _, batch in sorted(self._done.items()) for outcome in batch]

    def remove(self) -> None:
        """Delete the file. Call it when the part is written."""
        self._path.unlink(missing_ok=True)

    def _pending(self, low: int, high: int, earlier: int) -> Iterator[Span]:
        """The batches to score in `[low, high)`; `earlier` is the number of failures of larger batches with them."""
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
        reason = self._reasons.get(span, "its process died without a message; it may have run out of memory")
        return f"the engine failed on this group in {TRIES} tries, the last time with this group only: {reason}"

    def _append(self, line: dict[str, Any]) -> None:
        text = _text(line)
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(text)
        self._take(json.loads(text))

    def _take(self, line: dict[str, Any]) -> bool:
        """Apply a line. False if its form is unknown or its groups are not in this part."""
        form = next((form for form, keys in _FORMS.items() if line.keys() == keys), None)
        if form is None or (span := self._span(line[form])) is None:
            return False
        if form == "end":
            outcomes = [tuple(one) if isinstance(one, list) else one for one in line["outcomes"]]
            if len(outcomes) != span[1] - span[0] or not all(map(_is_outcome, outcomes)):
                return False
            self._done[span] = outcomes
        elif line["run"] == self._run:
            if form == "begin":
                self._begun[span] += 1
            else:
                self._reasons[span] = str(line["reason"])
        return True

    def _span(self, value: Any) -> Span | None:
        if not isinstance(value, list) or len(value) != 2 or not all(type(one) is int for one in value):
            return None
        low, high = value
        return (low, high) if 0 <= low < high <= self._total else None


def _is_outcome(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, tuple) and all(isinstance(one, float | int) for one in value) and len(value) > 0
    )


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"
