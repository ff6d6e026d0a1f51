"""Tables of results on public sets as rows of text, one table per set, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapl_ray.evaluation.bootstrap import format_percent, format_points

_FOLLOWING = ("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose")
_STYLES = ("hard", "normal", "easy")


def set_table(of_set: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row per model, columns by the set's own rules."""
    if of_set["following"]:
        head = ["policy", *(name.replace("_", " ") for name in _FOLLOWING), "cut", "failed"]
        rows = [
            [
                model,
                *(format_percent(results[name]) for name in _FOLLOWING),
                str(results["cut"]),
                str(results["failed"]),
            ]
            for model, results in of_set["following"].items()
        ]
        return head, rows
    models = of_set["preference"]
    styles = [name for name in _STYLES if any(name in results["styles"] for results in models.values())]
    sections = list(dict.fromkeys(name for results in models.values() for name in results["sections"]))
    has_tau = any("kendall_tau" in results.get("details", {}) for results in models.values())
    tau = ["Kendall's tau"] if has_tau else []
    head = ["model", "accuracy", *styles, *(["score"] if sections else []), *sections, *tau, "ECE"]
    rows = []
    for model, results in models.items():
        cells = [format_percent(results["accuracy"])]
        cells += [format_percent(results["styles"][name]) if name in results["styles"] else "-" for name in styles]
        if sections:
            cells += [_share(results["score"]), *(_share(results["sections"].get(name)) for name in sections)]
        if has_tau:
            cells.append(f"{results['details']['kendall_tau']:.3f}")
        rows.append([model, *cells, f"{results['calibration']['ece']:.3f}"])
    return head, rows


def set_differences(of_set: Mapping[str, Any]) -> list[list[str]]:
    """`[model, baseline, difference in points, bootstrap p, McNemar's p]` of every comparison."""
    rows = []
    for comparison in of_set["comparisons"]:
        difference = comparison["difference"]
        tests = [difference["p_value"], difference["mcnemar_p"]]
        cells = ["-" if p is None else f"{p:.2g}" for p in tests]
        rows.append([comparison["model"], comparison["baseline"], format_points(difference["accuracy"]), *cells])
    return rows


def counts_line(of_set: Mapping[str, Any]) -> str:
    """`2985 rows: 2980 used, 3 rejected, 2 too long`, and a note if the score excludes the subset Ties."""
    counts = of_set["counts"]
    line = f"{counts['rows']} rows: {counts['used']} used, {counts['rejected']} rejected, {counts['too long']} too long"
    details = [results.get("details", {}) for results in of_set["preference"].values()]
    if any("ties_ref_accuracy" in one and "ties_score" not in one for one in details):
        line += "; score excludes Ties, because no prompt has both rows (ref:N and tied:N)"
    return line


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
