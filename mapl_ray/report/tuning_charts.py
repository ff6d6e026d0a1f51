"""Plots of a search: Pareto front, the objective against one value, and parallel coordinates of all trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mapl_ray.report.markup import Markup, el
from mapl_ray.report.run_files import finite_or_none
from mapl_ray.report.svg import BOTTOM, TOP, WIDTH, Frame, padded, shortened

FRONT, BEHIND = 0, 6  # styles of points on the front and of all others
THIRDS = (0, 1, 6)  # styles of the best, middle and last third: two colors of different brightness, one dashed
_DECADES = 0.7  # a larger range is drawn on a logarithmic axis
_LABEL_ROWS = 15
_MOST_MARKS = 6


@dataclass(frozen=True, slots=True)
class Axis:
    """Positions of one option's values on an axis: numbers, their logarithms, or indices of names."""

    name: str
    values: tuple[object, ...]  # one per trial
    kind: str  # linear, log, names

    @classmethod
    def of(cls, name: str, values: Sequence[object]) -> Axis:
        """Choose the kind: log if all values are positive and the largest is more than five times the smallest."""
        numbers = [finite_or_none(value) for value in values]
        if any(value is None for value in numbers):
            return cls(name, tuple(values), "names")
        low, high = min(n for n in numbers if n is not None), max(n for n in numbers if n is not None)
        log = low > 0 and math.log10(high / low) > _DECADES
        return cls(name, tuple(values), "log" if log else "linear")

    @property
    def names(self) -> list[str]:
        """The distinct names of an axis of names, sorted."""
        return sorted({str(value) for value in self.values})

    def place(self, value: object) -> float:
        """The position of a value."""
        if self.kind == "names":
            return float(self.names.index(str(value)))
        found = finite_or_none(value)
        assert found is not None
        return math.log10(found) if self.kind == "log" else found

    @property
    def places(self) -> list[float]:
        """The positions of all values."""
        return [self.place(value) for value in self.values]

    def marks(self) -> list[tuple[float, str]] | None:
        """Ticks with their labels; None for the default ticks of a linear axis."""
        if self.kind == "names":
            step = math.ceil(len(self.names) / _MOST_MARKS)
            return [(float(index), shortened(name, 9)) for index, name in enumerate(self.names)][::step]
        if self.kind == "linear":
            return None
        low, high = min(self.places), max(self.places)
        return [(place, f"{10**place:.2g}") for place in (low, (low + high) / 2, high)]


def pareto(points: Sequence[tuple[float, float, bool, str]], names: tuple[str, str]) -> Markup:
    """Two objectives to maximize, with the front as a staircase; points are (x, y, on the front, tooltip).

    The first point is ringed.
    """
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    frame = Frame(padded(xs, 0.12), padded(ys, 0.12), f"Pareto front: {names[1]} against {names[0]}")
    frame.y_axis(names[1])
    front = sorted({(x, y) for x, y, on, _ in points if on})
    stairs = [front[0]]
    for x, y in front[1:]:  # the staircase descends to the right; points below and left of it are dominated
        stairs += [(stairs[-1][0], y), (x, y)]
    frame.polyline([(frame.x[0], stairs[0][1]), *stairs, (stairs[-1][0], frame.y[0])], f"curve s{FRONT}")
    for x, y, on, said in sorted(points, key=lambda point: point[2]):
        frame.marker(x, y, FRONT if on else BEHIND, said)
    frame.parts.append(el("circle", cx=frame.px(xs[0]), cy=frame.py(ys[0]), r=9, class_="ring"))
    frame.x_axis(names[0])
    return frame.render()


def sensitivity(axis: Axis, objectives: Sequence[float], said: Sequence[str]) -> Markup:
    """The objective against one searched option, one dot per trial; the best trial is ringed."""
    places = axis.places
    frame = Frame(padded(places), padded(objectives), f"objective against {axis.name}")
    frame.y_axis("objective")
    for x, y, text in zip(places, objectives, said, strict=True):
        frame.marker(x, y, 0, text)
    best = max(range(len(objectives)), key=lambda index: objectives[index])
    frame.parts.append(el("circle", cx=frame.px(places[best]), cy=frame.py(objectives[best]), r=8, class_="ring"))
    frame.x_axis(f"{axis.name} (log)" if axis.kind == "log" else axis.name, axis.marks())
    return frame.render()


def parallel(axes: Sequence[Axis], thirds: Sequence[int], best: int, said: Sequence[str]) -> Markup:
    """Parallel coordinates: one vertical axis per option, one line per trial.

    `thirds` has the third (0 is the best) of each trial. The line of trial `best` is thicker.
    """
    height = 250 + 2 * _LABEL_ROWS
    frame = Frame((0.0, len(axes) - 1.0), (0.0, 1.0), "parallel coordinates: all trials", height=height, left=34)
    top = 1.0 - 2.6 * _LABEL_ROWS / (height - BOTTOM - TOP)  # leaves room for two rows of names
    scaled = [[_share(place, axis.places) * top for place in axis.places] for axis in axes]
    for index, axis in enumerate(axes):
        frame.line(index, 0.0, index, top, "base")
        anchor = "start" if index == 0 else "end" if index == len(axes) - 1 else "middle"
        shift = {"start": -26, "end": 6, "middle": 0}[anchor]
        row = TOP + 4 + (index % 2) * _LABEL_ROWS
        frame.text(frame.px(index) + shift, row, shortened(_last(axis.name), 22), "tick", anchor)
        for end in (0, 1):
            y = frame.py(0.0) + 14 if end == 0 else frame.py(top) - 4
            frame.text(frame.px(index) + shift, y, _end(axis, end), "tick", anchor)
    order = sorted(range(len(thirds)), key=lambda trial: (-thirds[trial], trial == best))
    for trial in order:
        points = [(float(index), scaled[index][trial]) for index in range(len(axes))]
        where = " ".join(f"{frame.px(x):.1f},{frame.py(y):.1f}" for x, y in points)
        class_ = f"curve {'best' if trial == best else 'thin'} s{THIRDS[thirds[trial]]}"
        frame.parts.append(el("polyline", el("title", said[trial]), points=where, class_=class_))
    frame.text(WIDTH / 2, height - 6, "one line per trial; the thick one is the best", "axis")
    return frame.render()


def _share(place: float, places: Sequence[float]) -> float:
    low, high = min(places), max(places)
    return 0.5 if high == low else (place - low) / (high - low)


def _end(axis: Axis, end: int) -> str:
    if axis.kind == "names":
        return shortened(axis.names[-1 if end else 0], 9)
    numbers = [n for value in axis.values if (n := finite_or_none(value)) is not None]
    return f"{(max if end else min)(numbers):.3g}"


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]
