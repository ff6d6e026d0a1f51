"""The report's plots as standalone SVG files, with a legend and the report's colors, light and dark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from mapl_ray.data.shards import write_atomically
from mapl_ray.report.charts import bars, curves, curves_with_intervals, forest
from mapl_ray.report.markup import Markup, el
from mapl_ray.report.svg import WIDTH, marker_at

_ROW, _TITLE = 16, 24
_AGAINST = ("baseline", "mapl", "baseline-tokens")
# MAPL is second in every plot, so that its color is the same.
_ABLATIONS = ("baseline", "mapl", "no-intra", "no-inter", "independent", "k1", "k3")
_POLICIES = ("dpo-baseline", "dpo-mapl")
_LEVELS = ("pref", "intra", "inter")


def write_plots(summary: Mapping[str, Any], main: str, three: str, folder: Path) -> dict[str, tuple[str, str]]:
    """Write the plots of the finished arms; return (file, title) by name of the plot."""
    arms = summary["arms"]
    written: dict[str, tuple[str, str]] = {}

    def write(name: str, title: str, chosen: Sequence[str], figure: Markup) -> None:
        text = standalone(title, [arms[arm]["title"] for arm in chosen], figure)
        path = folder / f"{name}.svg"
        write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))
        written[name] = (path.name, title)

    for name, title, wanted in (
        ("levels", "Reward models: accuracy on held-out prompts", _AGAINST),
        ("ablations", "Ablations: accuracy on held-out prompts", _ABLATIONS),
        ("policies", "DPO: accuracy of the implicit reward", _POLICIES),
    ):
        if chosen := [arm for arm in wanted if arm in arms]:
            write(
                name, title, chosen, bars({_title(arms, arm): _levels(summary, main, arm) for arm in chosen}, _LEVELS)
            )
    if chosen := [arm for arm in ("baseline", "mapl", *_POLICIES) if arm in arms]:
        figure = curves_with_intervals({_title(arms, arm): _by_k(summary, main, three, arm) for arm in chosen}, "k")
        write("by-k", "Intra accuracy by number of instructions", chosen, figure)
        functions = list(summary["functions"])
        by_function = {_title(arms, arm): summary["by_function"][arm]["intra"] for arm in chosen}
        write("by-function", "Intra accuracy by function", chosen, forest(by_function, functions))
    chosen = [arm for arm in ("baseline", "mapl", "no-intra", "no-inter", "independent") if arm in arms]
    for level in _LEVELS:
        metric = f"rewards/accuracies/{level}"
        series = {_title(arms, arm): _points(arms[arm]["curve"], f"eval/{metric}") for arm in chosen}
        if any(series.values()):
            figure = curves(series, range(len(series)), f"eval/{metric}")
            write(f"curve-{level}", f"Held-out {level} accuracy while training", chosen, figure)
    return written


def standalone(title: str, names: Sequence[str], figure: Markup) -> str:
    """A figure of the report with title and legend, as one SVG text."""
    found = re.match(r'<svg viewBox="0 0 (\d+) (\d+)"', figure)
    assert found is not None  # `Frame.render` writes it
    height = int(found[2])
    columns = 2 if len(names) > 1 else 1
    rows = -(-len(names) // columns)
    top = _TITLE + rows * _ROW
    parts: list[Markup] = [el("style", Markup(_style()))]
    parts.append(el("rect", width=WIDTH, height=top + height, fill="var(--page)"))
    parts.append(el("text", title, x=WIDTH / 2, y=16, class_="kind", text_anchor="middle"))
    for index, name in enumerate(names):
        x, y = 24 + (index % columns) * 170, _TITLE + 8 + (index // columns) * _ROW
        parts += [marker_at(x, y, index), el("text", name, x=x + 10, y=y + 4)]
    inner = figure.replace("<svg ", f'<svg y="{top}" width="{WIDTH}" height="{height}" ', 1)
    whole = el(
        "svg",
        *parts,
        Markup(inner),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {top + height}",
        width=2 * WIDTH,
        font_family="system-ui, sans-serif",
        role="img",
        aria_label=title,
    )
    return whole + "\n"


def _style() -> str:
    """The report's style sheet, which defines colors and dashes. Its rules for pages do not affect a figure."""
    template = (files("mapl_ray.report") / "template.html").read_text(encoding="utf-8")
    found = re.search(r"<style>(.*?)</style>", template, re.DOTALL)
    assert found is not None
    return found[1]


def _title(arms: Mapping[str, Any], name: str) -> str:
    return str(arms[name]["title"])


def _levels(summary: Mapping[str, Any], name: str, arm: str) -> dict[str, Any]:
    levels = summary["sets"][name]["models"][arm]["levels"]
    return {level: levels[level]["accuracy"] for level in levels}


def _by_k(summary: Mapping[str, Any], main: str, three: str, arm: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in (main, three):
        for k, estimate in summary["sets"][name]["models"][arm]["by_k"]["intra"].items():
            found.setdefault(k, estimate)
    return found


def _points(rows: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]
