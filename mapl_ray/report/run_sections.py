"""Report sections from the run's other files: learning curves, data, cost, provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.report.charts import curves
from mapl_ray.report.markup import Markup, el, join, table
from mapl_ray.report.run_files import DataSet, finite_or_none, short
from mapl_ray.report.svg import legend

_MAX_PANELS = 9
_COST_FIELDS = (
    "wall_seconds",
    "tokens_per_second",
    "steps",
    "tokens",
    "groups",
    "num_workers",
    "zero_stage",
    "restarts",
)


def curves_section(metrics: Mapping[str, Sequence[Mapping[str, Any]]], order: Sequence[str]) -> Markup | None:
    """One panel per metric (accuracies, losses, margins) with one line per run; `order` sets the runs' styles."""
    runs = [*(name for name in order if name in metrics), *(name for name in metrics if name not in order)]
    style_of = {run: index for index, run in enumerate([*order, *(name for name in runs if name not in order)])}
    keys = Counter(
        key for rows in metrics.values() for row in rows for key in row if finite_or_none(row[key]) is not None
    )
    wanted = sorted((key for key in keys if _rank(key) < 9), key=_order)[:_MAX_PANELS]
    figures = []
    for key in wanted:
        series = {run: _points(metrics[run], key) for run in runs}
        shown = {run: points for run, points in series.items() if points}
        if shown:
            styles = [style_of[run] for run in shown]
            figures.append(el("figure", el("figcaption", key), curves(shown, styles, key)))
    return (
        join([legend(runs, [style_of[run] for run in runs]), el("div", *figures, class_="panels")]) if figures else None
    )


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    found = []
    for row in rows:
        step, value = finite_or_none(row.get("step")), finite_or_none(row.get(key))
        if step is not None and value is not None:
            found.append((step, value))
    return sorted(found)


def _order(key: str) -> tuple[int, int, str]:
    """Sort key of panels: kind of metric, then level in the order of the method, then name."""
    last = key.rsplit("/", 1)[-1]
    return _rank(key), LEVEL_FAMILIES.index(last) if last in LEVEL_FAMILIES else len(LEVEL_FAMILIES), key


def _rank(key: str) -> int:
    """Rank of a panel by its kind of metric; metrics with rank 9 are not shown."""
    held_out = 0 if key.startswith("eval") else 4
    for rank, word in enumerate(("accurac", "loss", "margin")):
        if word in key:
            return held_out + rank
    return 9


def data_section(data_sets: Sequence[DataSet], families: Mapping[str, str]) -> Markup | None:
    """Row counts, reasons for rejection, and how often each function was used."""
    if not data_sets:
        return None
    rows = []
    for data in data_sets:
        m = data.manifest
        share = f"{100 * m.rows / m.input_rows:.1f} %" if m.input_rows else "-"
        rows.append([data.name, f"{m.input_rows:,}", f"{m.rows:,}", f"{m.rejected:,}", share])
    parts: list[Markup] = [table(["data set", "rows in", "accepted", "rejected", "acceptance"], rows)]
    reasons = sum((data.reasons for data in data_sets), Counter[str]())
    if reasons:
        parts += [el("h3", "Rejected, by reason"), table(["reason", "rows"], _counted(reasons, 10), "wrap")]
    functions = sum((data.functions for data in data_sets), Counter[str]())
    if functions:
        of_families: Counter[str] = Counter()
        for name, count in functions.items():
            of_families[families.get(name, "unknown")] += count
        if families:
            parts += [el("h3", "Instructions by family"), _counted_bars(of_families)]
        parts += [el("h3", "Instructions by function"), _counted_bars(functions)]
    return join(parts)


def cost_section(costs: Mapping[str, Mapping[str, Any]]) -> Markup | None:
    """The cost of every training run, from its result.json."""
    fields = [
        name for name in _COST_FIELDS if any(finite_or_none(cost.get(name)) is not None for cost in costs.values())
    ]
    if not fields:
        return None
    rows = [[run, *(short(cost.get(name)) for name in fields)] for run, cost in costs.items()]
    return table(["run", *(name.replace("_", " ") for name in fields)], rows)


def provenance_section(provenance: Mapping[str, Any]) -> Markup:
    """All provenance, one line per value."""
    return table(["field", "value"], _flat(provenance, ""), "wrap")


def _flat(value: Mapping[str, Any], prefix: str) -> list[list[str]]:
    rows: list[list[str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            rows += _flat(item, f"{prefix}{key} · ")
        elif isinstance(item, list):
            rows.append([prefix + key, ", ".join(str(one) for one in item) or "none"])
        else:
            rows.append([prefix + key, "-" if item is None else str(item)])
    return rows


def _counted(counter: Counter[str], limit: int) -> list[list[str]]:
    rows = [[name, f"{count:,}"] for name, count in counter.most_common(limit)]
    rest = counter.total() - sum(count for _, count in counter.most_common(limit))
    return [*rows, [f"{len(counter) - limit} more reasons", f"{rest:,}"]] if rest else rows


def _counted_bars(counter: Counter[str]) -> Markup:
    total, top = counter.total(), max(counter.values())
    rows = []
    for name, count in counter.most_common():
        bar = el("span", class_="fill", style=f"width:{100 * count / top:.1f}%")
        share = el("span", f"{count:,} ({100 * count / total:.1f} %)", class_="count")
        rows.append(el("li", el("span", name, class_="name"), el("span", bar, class_="track"), share))
    return el("ul", *rows, class_="counts")
