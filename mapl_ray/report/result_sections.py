"""Report sections from evaluation.json: table, levels, k, families, gaps, length bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.evaluation.bootstrap import format_percent, format_points
from mapl_ray.evaluation.compare import in_table_order, is_own_baseline
from mapl_ray.report.charts import bars, curves_with_intervals, forest, histograms
from mapl_ray.report.markup import Markup, el, join, table
from mapl_ray.report.svg import legend

Evaluation = Mapping[str, Any]


def results_section(evaluation: Evaluation) -> Markup:
    """The table: models as rows, levels as columns; each model is followed by its baseline and their difference."""
    rows: list[list[str | Markup]] = []
    for names, comparison in in_table_order(evaluation):
        rows += [_model_row(evaluation, name) for name in names]
        if comparison is not None:
            own = is_own_baseline(comparison)
            label = el("em", "difference" if own else f"difference from {comparison['baseline']}")
            rows.append([label, *_difference_cells(comparison["levels"])])
    counts = evaluation["counts"]
    note = (
        f"Accuracy in percent: the share of {counts['relations']} held-out relations ({counts['groups']} groups, "
        f"{counts['prompts']} prompts) whose margin is above 0. Chance is 50. Brackets are 95 % "
        "bootstrap intervals over prompts; differences are in points, "
        "p is two-sided from the same paired bootstrap."
    )
    return join([table(["model", *LEVEL_FAMILIES], rows, "results"), el("p", note, class_="note")])


def levels_section(evaluation: Evaluation) -> Markup:
    """Bars per level, and separate bars for the two kinds of inter."""
    models = evaluation["models"]
    by_level = {m: {n: r["accuracy"] for n, r in models[m]["levels"].items()} for m in models}
    by_kind = {
        m: {n.removeprefix("inter_"): r["accuracy"] for n, r in models[m].get("inter_kinds", {}).items()}
        for m in models
    }
    figures = [figure_of("By level", bars(by_level, _present(by_level, LEVEL_FAMILIES)))]
    if kinds := _present(by_kind, ("widening", "narrowing")):
        figures.append(figure_of("Inter: widening and narrowing", bars(by_kind, kinds)))
    return panels(legend(list(models)), figures)


def by_k_section(evaluation: Evaluation) -> Markup | None:
    """Accuracy against the number of instructions."""
    figures = []
    for level in ("intra", "inter"):
        series = _series(evaluation, "by_k", level)
        if any(series.values()):
            figures.append(figure_of(level, curves_with_intervals(series, "number of instructions k")))
    return panels(legend(list(evaluation["models"])), figures) if figures else None


def by_family_section(evaluation: Evaluation) -> Markup | None:
    """Accuracy by instruction family, and each model's worst family."""
    figures = []
    unseen = evaluation.get("unseen_families", [])
    for level in ("intra", "inter"):
        series = {
            model: {f"{name} †" if name in unseen else name: value for name, value in values.items()}
            for model, values in _series(evaluation, "by_family", level).items()
        }
        if categories := sorted({name for values in series.values() for name in values}):
            figures.append(figure_of(level, forest(series, categories)))
    if not figures:
        return None
    worst = [
        [model, *(_worst(results, level) for level in ("intra", "inter"))]
        for model, results in evaluation["models"].items()
    ]
    return join(
        [
            panels(legend(list(evaluation["models"])), figures),
            el("p", "A relation counts for every family of its prompts. Worst family of each model:", class_="note"),
            table(["model", "intra", "inter"], worst),
            _novelty(evaluation) if unseen else None,
        ]
    )


def _novelty(evaluation: Evaluation) -> Markup:
    columns = [(level, kind) for level in ("intra", "inter") for kind in ("seen", "unseen")]
    rows: list[list[str | Markup]] = []
    for model, results in evaluation["models"].items():
        found = [results["by_novelty"].get(level, {}).get(kind) for level, kind in columns]
        rows.append([model, *("-" if value is None else with_interval(format_percent(value)) for value in found)])
    note = f"Held out of training (†): {', '.join(evaluation['unseen_families'])}. Unseen relations have one of these."
    head = ["model", *(f"{level}, {kind}" for level, kind in columns)]
    return join([el("p", note, class_="note"), table(head, rows)])


def gaps_section(evaluation: Evaluation) -> Markup | None:
    """Distributions of the gap under x, x+ and x-."""
    figures = [
        figure_of(model, histograms(results["gaps"]["edges"], results["gaps"]["kinds"]))
        for model, results in evaluation["models"].items()
        if results.get("gaps", {}).get("kinds")
    ]
    if not figures:
        return None
    note = (
        "x is the original prompt, x+ asks for something that only the chosen response does, x- for something that "
        "only the rejected one does. A model that follows instructions moves x+ to the right of x and x- to the left. "
        "Solid line: median; dashed line: 0. The outer bins include values outside the middle 99 %."
    )
    return join([el("p", note, class_="note"), panels(None, figures)])


def length_section(evaluation: Evaluation) -> Markup:
    """Pref accuracy by which response is longer, and rank correlations."""
    rows = []
    for model, results in evaluation["models"].items():
        bias = results["length_bias"]
        estimates = [bias["chosen_longer"], bias["chosen_shorter"]]
        cells = ["-" if e is None else with_interval(f"{format_percent(e)} n={e['count']}") for e in estimates]
        correlations = [bias["reward_length"], bias["gap_length"]]
        rows.append([model, *cells, *("-" if c is None else f"{c:+.2f}" for c in correlations)])
    head = [
        "model",
        "chosen is longer",
        "chosen is shorter",
        "rank corr. reward, length",
        "rank corr. gap, length difference",
    ]
    note = (
        "Pref accuracy in percent by which response has more words. A model that rewards length is right where "
        "chosen is longer and wrong where it is shorter. "
        "Rank correlations are Spearman's and near 0 without bias."
    )
    return join([table(head, rows, "results"), el("p", note, class_="note")])


def _series(evaluation: Evaluation, measure: str, level: str) -> dict[str, dict[str, Any]]:
    return {model: results.get(measure, {}).get(level, {}) for model, results in evaluation["models"].items()}


def _present(series: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(name in values for values in series.values())]


def figure_of(caption: str, figure: Markup) -> Markup:
    return el("figure", el("figcaption", caption), figure)


def panels(key: Markup | None, figures: Sequence[Markup]) -> Markup:
    return join([key, el("div", *figures, class_="panels")])


def _model_row(evaluation: Evaluation, model: str) -> list[str | Markup]:
    levels = evaluation["models"][model]["levels"]
    return [
        model,
        *(with_interval(format_percent(levels[n]["accuracy"])) if n in levels else "-" for n in LEVEL_FAMILIES),
    ]


def _difference_cells(levels: Mapping[str, Any]) -> list[str | Markup]:
    cells: list[str | Markup] = []
    for name in LEVEL_FAMILIES:
        if name not in levels:
            cells.append("-")
            continue
        p = levels[name]["p_value"]
        chance = None if p is None else el("small", f" p={p:.2g}")
        cells.append(join([with_interval(format_points(levels[name]["accuracy"])), chance]))
    return cells


def with_interval(text: str) -> Markup:
    """The value, with its interval in a smaller font; on a narrow screen the interval goes below the value."""
    value, _, interval = text.partition(" ")
    return join([value, el("small", f" {interval}") if interval else None])


def _worst(results: Mapping[str, Any], level: str) -> str:
    worst = results.get("worst_family", {}).get(level)
    return "-" if worst is None else f"{worst['family']}: {format_percent(worst['accuracy'])}"
