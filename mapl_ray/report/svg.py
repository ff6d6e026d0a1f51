"""A small plotting frame in SVG: scales, ticks, axes, legend. Colors come from CSS, so dark mode and print work.

Series differ by color (Okabe-Ito), marker shape and dashes, never only by color.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mapl_ray.report.markup import Markup, el

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 14, 42
NUM_STYLES = 7


@dataclass(slots=True)
class Frame:
    """Axes from (x_low, y_low) to (x_high, y_high) on a canvas of `WIDTH` times `height` pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    label: str  # text for screen readers
    height: int = HEIGHT
    left: int = LEFT
    parts: list[Markup] = field(default_factory=list)

    def px(self, x: float) -> float:
        """Pixel column of a value."""
        return self.left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - RIGHT - self.left)

    def py(self, y: float) -> float:
        """Pixel row of a value."""
        return self.height - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.height - BOTTOM - TOP)

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        """A straight line between two data points."""
        self.parts.append(el("line", x1=self.px(x1), y1=self.py(y1), x2=self.px(x2), y2=self.py(y2), class_=class_))

    def text(self, px: float, py: float, text: str, class_: str = "tick", anchor: str = "middle") -> None:
        """Text at a pixel position."""
        self.parts.append(el("text", text, x=px, y=py, class_=class_, text_anchor=anchor))

    def polyline(self, points: Sequence[tuple[float, float]], class_: str) -> None:
        """A line through data points."""
        where = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)
        self.parts.append(el("polyline", points=where, class_=class_))

    def y_axis(self, name: str, form: str = "{:g}") -> None:
        """Horizontal grid lines with their values, and the axis' name."""
        for tick in ticks(*self.y):
            self.line(self.x[0], tick, self.x[1], tick, "grid")
            self.text(self.left - 5, self.py(tick) + 4, form.format(tick), anchor="end")
        middle = (TOP + self.height - BOTTOM) / 2
        self.parts.append(
            el("text", name, class_="axis", text_anchor="middle", transform=f"translate(11 {middle:.1f}) rotate(-90)")
        )

    def x_axis(self, name: str, marks: Sequence[tuple[float, str]] | None = None) -> None:
        """Values (or the given marks) below the plot, and the axis' name."""
        chosen = [(tick, f"{tick:g}") for tick in ticks(*self.x)] if marks is None else marks
        for tick, text in chosen:
            self.text(self.px(tick), self.height - BOTTOM + 15, text)
        self.line(self.x[0], self.y[0], self.x[1], self.y[0], "base")
        self.text((self.left + WIDTH - RIGHT) / 2, self.height - 6, name, "axis")

    def marker(self, x: float, y: float, style: int, title: str) -> None:
        """A marker whose shape and color identify the series; `title` is shown on hover."""
        self.parts.append(marker_at(self.px(x), self.py(y), style, title))

    def render(self) -> Markup:
        """The finished figure."""
        return el(
            "svg", *self.parts, viewBox=f"0 0 {WIDTH} {self.height}", role="img", aria_label=self.label, class_="plot"
        )


def marker_at(px: float, py: float, style: int, title: str | None = None) -> Markup:
    """A marker at a pixel position. Shape (circle, square, diamond, triangle) and color depend on the style."""
    hover = None if title is None else el("title", title)
    class_ = f"mark s{style % NUM_STYLES}"
    shape = style % 4
    if shape == 0:
        return el("circle", hover, cx=px, cy=py, r=4, class_=class_)
    if shape == 1:
        return el("rect", hover, x=px - 3.5, y=py - 3.5, width=7, height=7, class_=class_)
    corners = [(0, -5), (5, 0), (0, 5), (-5, 0)] if shape == 2 else [(0, -5), (4.6, 4), (-4.6, 4)]
    return el("polygon", hover, points=" ".join(f"{px + x:.1f},{py + y:.1f}" for x, y in corners), class_=class_)


def legend(names: Sequence[str], styles: Sequence[int] | None = None) -> Markup:
    """Names with their markers, as HTML so that they wrap on narrow screens."""
    items = []
    for name, style in zip(names, styles or range(len(names)), strict=True):
        line = el("line", x1=0, y1=7, x2=26, y2=7, class_=f"curve s{style % NUM_STYLES}")
        icon = el("svg", line, marker_at(13, 7, style), viewBox="0 0 26 14", class_="key", aria_hidden="true")
        items.append(el("li", icon, name))
    return el("ul", *items, class_="legend")


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values between `low` and `high`, about `wanted` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if unit * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """Limits around the values, never of zero width."""
    low, high = min(values), max(values)
    room = (high - low) * share or max(abs(low) * share, 0.5)
    return low - room, high + room


def shortened(text: str, limit: int = 15) -> str:
    """The text, truncated to `limit` characters with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
