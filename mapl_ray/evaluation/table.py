"""The results as a plain-text table for the terminal."""

from __future__ import annotations

from mapl_ray.evaluation.bootstrap import Estimate
from mapl_ray.evaluation.results import Results
from mapl_ray.records import LEVEL_FAMILIES


def results_table(results: Results) -> str:
    """Models as rows, levels as columns: accuracy in percent with its 95 % interval, then the differences in points.

    A model is followed by its baseline and their paired difference.
    """
    rows: list[list[str] | None] = [["accuracy, %", *LEVEL_FAMILIES], None]
    told: set[str] = set()
    for comparison in results["comparisons"]:
        for model in (comparison["model"], comparison["baseline"]):
            if model not in told:
                rows.append(_model_row(results, model))
                told.add(model)
        differences = comparison["levels"]
        cells = [
            format_points(differences[level]["accuracy"]) if level in differences else "-" for level in LEVEL_FAMILIES
        ]
        rows += [["  difference", *cells], None]
    alone = [_model_row(results, model) for model in results["models"] if model not in told]
    rows += alone
    if rows[-1] is None:
        rows.pop()
    counts = results["counts"]
    about = f"{counts['relations']} relations of {counts['groups']} groups, {counts['prompts']} prompts; chance is 50 %"
    if results["config"]["bootstrap_samples"]:
        about += "; brackets: 95 % interval, prompts resampled"
    return _aligned(rows) + "\n" + about


def format_percent(value: Estimate) -> str:
    """`72.1 [68.0, 76.3]`: percent and its interval, where there is one."""
    return _format(value, "")


def format_points(value: Estimate) -> str:
    """`+4.2 [-1.0, +9.3]`: signed percentage points and their interval, where there is one."""
    return _format(value, "+")


def _format(value: Estimate, sign: str) -> str:
    text = f"{100 * value['value']:{sign}.1f}"
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} [{100 * value['low']:{sign}.1f}, {100 * value['high']:{sign}.1f}]"


def _model_row(results: Results, model: str) -> list[str]:
    levels = results["models"][model]["levels"]
    return [model, *(format_percent(levels[name]["accuracy"]) if name in levels else "-" for name in LEVEL_FAMILIES)]


def _aligned(rows: list[list[str] | None]) -> str:
    full = [row for row in rows if row is not None]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))]
    lines = []
    for row in rows:
        if row is None:
            lines.append("  ".join("-" * width for width in widths))
        else:
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)
