"""The results as a plain-text table for the terminal."""

from __future__ import annotations

from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.evaluation.bootstrap import format_percent, format_points
from mapl_ray.evaluation.compare import in_table_order, is_own_baseline
from mapl_ray.evaluation.own_results import OwnResults
from mapl_ray.evaluation.own_text import own_counts, own_table
from mapl_ray.evaluation.results import Results
from mapl_ray.evaluation.set_results import SetResults
from mapl_ray.evaluation.set_tables import counts_line, set_differences, set_table


def results_table(results: Results) -> str:
    """The table of the held-out groups, that of the own prompts, then one per public set."""
    parts = [_levels_table(results)] if results["models"] else []
    if (own := results["own_prompts"]) is not None and own["models"]:
        parts.append(_own_table(own))
    return "\n\n".join([*parts, *(_set_table(name, of_set) for name, of_set in results["sets"].items())])


def _levels_table(results: Results) -> str:
    """Models as rows, levels as columns: accuracy in percent with its 95 % interval.

    Each model is followed by its baseline and their paired difference in points.
    """
    rows: list[list[str] | None] = [["accuracy, %", *LEVEL_FAMILIES], None]
    for names, comparison in in_table_order(results):
        rows += [_model_row(results, name) for name in names]
        if comparison is None:
            continue
        differences, baseline = comparison["levels"], comparison["baseline"]
        own = is_own_baseline(comparison)
        cells = [
            format_points(differences[level]["accuracy"]) if level in differences else "-" for level in LEVEL_FAMILIES
        ]
        rows += [["  difference" if own else f"  difference from {baseline}", *cells], None]
    if rows[-1] is None:
        rows.pop()
    counts = results["counts"]
    about = f"{counts['relations']} relations of {counts['groups']} groups, {counts['prompts']} prompts; chance is 50 %"
    if results["config"]["bootstrap_samples"]:
        about += "; brackets: 95 % interval, prompts resampled"
    return _aligned(rows) + "\n" + about


def _own_table(own: OwnResults) -> str:
    head, models, differences = own_table(own)
    rows: list[list[str] | None] = [head, None, *models]
    rows += [[f"  {name}", *cells, "", ""] for name, *cells in differences]
    return f"{own_counts(own)}; in percent, undecided ones count as not met\n{_aligned(rows)}"


def _set_table(name: str, of_set: SetResults) -> str:
    head, body = set_table(of_set)
    rows: list[list[str] | None] = [head, None, *body]
    text = f"{name} ({of_set['format']}), {counts_line(of_set)}\n{_aligned(rows)}"
    if differences := set_differences(of_set):
        text += "\n" + _aligned([["model", "baseline", "difference", "p", "p (McNemar)"], None, *differences])
    return text


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
