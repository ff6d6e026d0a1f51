"""The plots of the report. Each function takes plain numbers and returns a figure as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mapl_ray.report.markup import Markup, el
from mapl_ray.report.svg import BOTTOM, NUM_STYLES, TOP, Frame, padded, shortened

Value = Mapping[str, Any]  # an Estimate: value, low, high, count, prompts
# Other colors than those of the first models, because here a color stands for a prompt.
_KIND_STYLES = {"x": "s6", "x+": "s5", "x-": "s4"}


def bars(series: Mapping[str, Mapping[str, Value]], categories: Sequence[str]) -> Markup:
    """Accuracy per category as grouped bars with intervals; the dashed line is chance."""
    frame = Frame((0.0, float(len(categories))), (0.0, 1.0), "accuracy by level, bars with 95 % intervals")
    frame.y_axis("accuracy", "{:.1f}")
    width = 0.8 / max(1, len(series))
    for style, (model, values) in enumerate(series.items()):
        for index, category in enumerate(categories):
            if category in values:
                left = index + 0.1 + style * width
                _bar(frame, left, width * 0.86, values[category], style, f"{model}, {category}")
    frame.line(frame.x[0], 0.5, frame.x[1], 0.5, "chance")
    frame.x_axis("", [(index + 0.5, category) for index, category in enumerate(categories)])
    return frame.render()


def curves_with_intervals(series: Mapping[str, Mapping[str, Value]], x_name: str) -> Markup:
    """Accuracy against a small integer (as string keys): markers with intervals, and the chance line."""
    keys = sorted({int(key) for values in series.values() for key in values})
    frame = Frame((keys[0] - 0.5, keys[-1] + 0.5), (0.0, 1.0), f"accuracy by {x_name}")
    frame.y_axis("accuracy", "{:.1f}")
    frame.line(frame.x[0], 0.5, frame.x[1], 0.5, "chance")
    for style, (model, values) in enumerate(series.items()):
        shift = (style - (len(series) - 1) / 2) * 0.08
        points = [(key + shift, values[str(key)]) for key in keys if str(key) in values]
        frame.polyline([(x, value["value"]) for x, value in points], f"curve s{style % NUM_STYLES}")
        for (x, value), key in zip(points, [key for key in keys if str(key) in values], strict=True):
            _interval(frame, x, value, style)
            frame.marker(x, value["value"], style, f"{model}, k={key}: {describe(value)}")
    frame.x_axis(x_name, [(key, str(key)) for key in keys])
    return frame.render()


def forest(series: Mapping[str, Mapping[str, Value]], categories: Sequence[str]) -> Markup:
    """Accuracy per category, one row each: markers with horizontal intervals, and the chance line."""
    row = 16 + 13 * len(series)
    frame = Frame((0.0, 1.0), (0.0, 1.0), "accuracy by family", height=TOP + BOTTOM + row * len(categories), left=104)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        frame.line(tick, 0.0, tick, 1.0, "chance" if tick == 0.5 else "grid")
    for index, category in enumerate(categories):
        top = TOP + index * row
        frame.line(0.0, 1.0 - index / len(categories), 1.0, 1.0 - index / len(categories), "grid")
        frame.text(98, top + row / 2 + 4, shortened(category), anchor="end")
        for style, (model, values) in enumerate(series.items()):
            if category in values:
                value = values[category]
                y = 1.0 - (index * row + 8 + 13 * (style + 0.5)) / (row * len(categories))
                if value["low"] is not None:
                    frame.line(value["low"], y, value["high"], y, f"interval s{style % NUM_STYLES}")
                frame.marker(value["value"], y, style, f"{model}, {category}: {describe(value)}")
    frame.x_axis("accuracy", [(tick, f"{tick:g}") for tick in (0.0, 0.25, 0.5, 0.75, 1.0)])
    return frame.render()


def reliability(series: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Accuracy against the probability that a model gives its decisions; the dashed line is perfect calibration."""
    frame = Frame((0.48, 1.02), (0.0, 1.0), "accuracy against confidence")
    frame.y_axis("accuracy", "{:.1f}")
    frame.line(0.5, 0.5, 1.0, 1.0, "chance")
    for style, (model, of_model) in enumerate(series.items()):
        bins = of_model["bins"]
        frame.polyline([(one["confidence"], one["accuracy"]) for one in bins], f"curve s{style % NUM_STYLES}")
        for one in bins:
            said = (
                f"{model}: confidence {one['confidence']:.2f}, accuracy {one['accuracy']:.2f}, {one['count']} relations"
            )
            frame.marker(one["confidence"], one["accuracy"], style, said)
    frame.x_axis("confidence: sigmoid of |margin|")
    return frame.render()


def curves(series: Mapping[str, Sequence[tuple[float, float]]], styles: Sequence[int], name: str) -> Markup:
    """Values against training steps, one line per run; plots of accuracies have the chance line."""
    points = [point for values in series.values() for point in values]
    accuracy = "accurac" in name
    y = [value for _, value in points]
    limits = (min(0.4, *y, 0.4), max(0.9, *y, 0.9)) if accuracy else padded(y)
    steps = padded([x for x, _ in points], 0.02)
    frame = Frame(steps, limits, f"{name} against steps", left=70)  # room for values like 0.69308
    frame.y_axis("accuracy" if accuracy else name.rsplit("/", 1)[-1])
    if accuracy:
        frame.line(frame.x[0], 0.5, frame.x[1], 0.5, "chance")
    for style, values in zip(styles, series.values(), strict=True):
        thin = values[:: max(1, len(values) // 400)]
        frame.polyline(thin, f"curve s{style % NUM_STYLES}")
        if len(thin) <= 12:
            for x, value in thin:
                frame.marker(x, value, style, f"step {x:g}: {value:.4g}")
    frame.x_axis("step")
    return frame.render()


def histograms(
    edges: Sequence[float],
    kinds: Mapping[str, Mapping[str, Any]],
    x_name: str = "gap: reward of chosen minus rejected",
    signed: bool = True,
) -> Markup:
    """Stacked histograms with shared edges, as shares; medians and zero are marked."""
    room, height = 78, TOP + BOTTOM + 78 * len(kinds)
    frame = Frame((edges[0], edges[-1]), (0.0, 1.0), f"distributions of {x_name}", height=height, left=46)
    inner = room * len(kinds)
    peak = max((max(kind["counts"]) / max(1, kind["count"]) for kind in kinds.values()), default=1.0) or 1.0
    for index, (name, kind) in enumerate(kinds.items()):
        style = _KIND_STYLES.get(name, "s6")
        base = 1.0 - (index + 1) * room / inner
        scale = 0.86 * room / inner / peak / max(1, kind["count"])
        outline = [(edges[0], base)]
        for count, left, right in zip(kind["counts"], edges, edges[1:], strict=False):
            outline += [(left, base + count * scale), (right, base + count * scale)]
        frame.polyline([*outline, (edges[-1], base)], f"area {style}")
        frame.line(edges[0], base, edges[-1], base, "base")
        median = min(max(kind["median"], edges[0]), edges[-1])
        frame.line(median, base, median, base + 0.9 * room / inner, f"median {style}")
        frame.text(38, frame.py(base) - room / 2 + 6, name, "kind", anchor="end")
        median_text = f"median {kind['median']:{'+.3g' if signed else '.4g'}}"
        frame.text(350, frame.py(base) - room + 16, median_text, anchor="end")
    if edges[0] < 0.0 < edges[-1]:
        frame.line(0.0, 0.0, 0.0, 1.0, "chance")
    frame.x_axis(x_name)
    return frame.render()


def describe(value: Value) -> str:
    """`0.721 (0.680 to 0.763), 410 relations` for tooltips."""
    interval = "" if value["low"] is None else f" ({value['low']:.3f} to {value['high']:.3f})"
    return f"{value['value']:.3f}{interval}, {value['count']} relations"


def _bar(frame: Frame, left: float, width: float, value: Value, style: int, name: str) -> None:
    top = frame.py(value["value"])
    frame.parts.append(
        el(
            "rect",
            el("title", f"{name}: {describe(value)}"),
            x=frame.px(left),
            y=top,
            width=frame.px(left + width) - frame.px(left),
            height=max(0.0, frame.py(0.0) - top),
            class_=f"bar s{style % NUM_STYLES}",
        )
    )
    if value["low"] is not None:
        middle = left + width / 2
        frame.line(middle, value["low"], middle, value["high"], "whisker")


def _interval(frame: Frame, x: float, value: Value, style: int) -> None:
    if value["low"] is not None:
        frame.line(x, value["low"], x, value["high"], f"interval s{style % NUM_STYLES}")
