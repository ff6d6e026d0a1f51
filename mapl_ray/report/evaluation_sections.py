"""Report sections from evaluation.json: calibration, order and phrasing of instructions, public sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.evaluation.bootstrap import format_percent
from mapl_ray.evaluation.set_tables import counts_line, set_differences, set_table
from mapl_ray.report.charts import reliability
from mapl_ray.report.markup import Markup, el, join, table
from mapl_ray.report.result_sections import Evaluation, figure_of, panels, with_interval
from mapl_ray.report.svg import legend

_INSTRUCTED = ("intra", "inter")


def calibration_section(evaluation: Evaluation) -> Markup | None:
    """A reliability curve per level, and the expected calibration errors."""
    models = evaluation["models"]
    found = {model: results.get("calibration", {}) for model, results in models.items()}
    figures = [
        figure_of(level, reliability({model: levels[level] for model, levels in found.items()}))
        for level in LEVEL_FAMILIES
        if found and all(level in levels for levels in found.values())
    ]
    if not figures:
        return None
    note = (
        "A model gives its decision on a relation the probability sigmoid(|margin|). For a calibrated model, this is "
        "its accuracy (dashed line); below the line it is overconfident. Expected calibration error, ten bins:"
    )
    rows = [
        [model, *(f"{levels[name]['ece']:.3f}" if name in levels else "-" for name in LEVEL_FAMILIES)]
        for model, levels in found.items()
    ]
    return join(
        [
            panels(legend(list(models)), figures),
            el("p", note, class_="note"),
            table(["model", *LEVEL_FAMILIES], rows),
        ]
    )


def wording_section(evaluation: Evaluation) -> Markup | None:
    """Accuracy by phrasings seen and unseen in training, and the effect of reordering and rephrasing."""
    parts = [_phrasings(evaluation), _invariance(evaluation)]
    return join(parts) if any(parts) else None


def _phrasings(evaluation: Evaluation) -> Markup | None:
    columns = [(level, kind) for level in _INSTRUCTED for kind in ("seen", "unseen")]
    rows = [
        [model, *(_estimate(results["by_phrasing"].get(level, {}).get(kind)) for level, kind in columns)]
        for model, results in evaluation["models"].items()
        if results.get("by_phrasing")
    ]
    if not rows:
        return None
    note = (
        "The last phrasing of every function was held out of training. Accuracy in percent; unseen relations have at "
        "least one instruction in such a phrasing."
    )
    head = ["model", *(f"{level}, {kind}" for level, kind in columns)]
    return join([el("h3", "Seen and unseen phrasings"), el("p", note, class_="note"), table(head, rows, "results")])


def _invariance(evaluation: Evaluation) -> Markup | None:
    rows: list[list[str | Markup]] = []
    for model, results in evaluation["models"].items():
        for kind, measured in results.get("invariance", {}).items():
            flips = [_estimate(measured["flips"].get(level)) for level in _INSTRUCTED]
            accuracies = [_before_and_after(measured, level) for level in _INSTRUCTED]
            change = f"{measured['reward_change']:.3g} of {measured['reward_deviation']:.3g}"
            rows.append([model, kind, *flips, *accuracies, change])
    if not rows:
        return None
    note = (
        "The same groups with their instructions in reverse order (order), in other phrasings (phrasing), or all in "
        "phrasings that training held out (unseen phrasing). Percent of relations whose decision flips; accuracy "
        "before and after; mean absolute change of the reward, and the standard deviation of the rewards."
    )
    head = ["model", "variant", *(f"{level}: flips" for level in _INSTRUCTED)]
    head += [*(f"{level}: accuracy" for level in _INSTRUCTED), "reward changes by"]
    return join([el("h3", "Order and phrasing"), el("p", note, class_="note"), table(head, rows, "results")])


def sets_section(evaluation: Evaluation) -> Markup | None:
    """For each public set: a table, its row counts, and the paired differences."""
    parts: list[Markup] = []
    for name, of_set in evaluation.get("sets", {}).items():
        head, rows = set_table(of_set)
        parts += [
            el("h3", f"{name} ({of_set['format']})"),
            el("p", f"Accuracy in percent with 95 % intervals. {counts_line(of_set)}.", class_="note"),
            table(head, [[model, *map(with_interval, cells)] for model, *cells in rows], "results"),
        ]
        if differences := set_differences(of_set):
            shown = [[m, baseline, with_interval(points), *tests] for m, baseline, points, *tests in differences]
            parts.append(table(["model", "baseline", "difference, points", "p", "p (McNemar)"], shown, "results"))
        if of_set["rejections"]:
            rejections = [[f"{r['source']}, row {r['row']}", r["reason"]] for r in of_set["rejections"][:5]]
            parts.append(table(["rejected", "reason"], rejections, "wrap"))
    return join(parts) if parts else None


def _estimate(value: Any) -> str | Markup:
    return "-" if value is None else with_interval(format_percent(value))


def _before_and_after(measured: Mapping[str, Any], level: str) -> str:
    before, after = (measured[name].get(level) for name in ("accuracy_before", "accuracy"))
    return "-" if before is None else f"{100 * before['value']:.1f} \u2192 {100 * after['value']:.1f}"
