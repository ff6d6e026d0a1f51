"""The Markdown tables of the document, with all numbers from the summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from mapl_ray.evaluation import Estimate, format_percent, format_points

Row = Sequence[str]


def markdown_table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main_table(summary: Mapping[str, Any], main: str, method: str) -> str:
    """One row per arm: pref, intra with seen and unseen phrasings, inter, and cost."""
    rows = []
    for name, arm in _arms(summary, method):
        model = summary["sets"][main]["models"][name]
        phrasing = model["by_phrasing"]["intra"]
        rows.append(
            [
                arm["title"],
                _percent(model["levels"]["pref"]["accuracy"]),
                _percent(phrasing.get("seen")),
                _percent(phrasing.get("unseen")),
                _percent(model["levels"]["inter"]["accuracy"]),
                f"{mean(arm['steps']):,.0f}",
                f"{mean(arm['tokens']) / 1e6:.2f}",
                f"{mean(arm['cpu_seconds']):,.0f}",
            ]
        )
    head = ["arm", "pref", "intra, seen phrasings", "intra, unseen phrasings", "inter", "steps", "million tokens", "s"]
    return markdown_table(head, rows)


def difference_table(summary: Mapping[str, Any], main: str, against: str) -> str:
    """Paired differences from one arm, in points, with bootstrap p-values."""
    rows = []
    for comparison in summary["sets"][main]["comparisons"]:
        if comparison["baseline"] != against:
            continue
        cells = [
            f"{format_points(found['accuracy'])}, p {_p(found['p_value'])}"
            for level in ("pref", "intra", "inter")
            if (found := comparison["levels"].get(level))
        ]
        rows.append([summary["arms"][comparison["model"]]["title"], *cells])
    return markdown_table(["arm", "pref", "intra", "inter"], rows)


def function_table(summary: Mapping[str, Any], names: Sequence[str]) -> str:
    """Intra accuracy by function; a relation counts for every function of its prompts."""
    rows = [
        [f"`{function}`", *(_percent(summary["by_function"][name]["intra"].get(function)) for name in names)]
        for function in summary["functions"]
    ]
    return markdown_table(["function", *_titles(summary, names)], rows)


def family_table(summary: Mapping[str, Any], main: str, names: Sequence[str]) -> str:
    """Intra accuracy by family."""
    of = {name: summary["sets"][main]["models"][name]["by_family"]["intra"] for name in names}
    families = sorted({family for found in of.values() for family in found})
    rows = [[family, *(_percent(of[name].get(family)) for name in names)] for family in families]
    return markdown_table(["family", *_titles(summary, names)], rows)


def k_table(summary: Mapping[str, Any], sets: Sequence[str], names: Sequence[str]) -> str:
    """Intra accuracy by number of instructions, over the held-out sets that have them."""
    rows = []
    for name in names:
        by_k: dict[str, Estimate] = {}
        for held_out in sets:
            for k, found in summary["sets"][held_out]["models"][name]["by_k"]["intra"].items():
                by_k.setdefault(k, found)
        rows.append([summary["arms"][name]["title"], *(_percent(by_k.get(k)) for k in ("1", "2", "3"))])
    return markdown_table(["arm", "k = 1", "k = 2", "k = 3"], rows)


def unseen_table(summary: Mapping[str, Any], unseen: str, names: Sequence[str]) -> str:
    """Accuracy on functions that training never saw."""
    rows = []
    for name in names:
        levels = summary["sets"][unseen]["models"][name]["levels"]
        cells = [_percent(levels[level]["accuracy"]) for level in ("intra", "inter")]
        rows.append([summary["arms"][name]["title"], *cells])
    return markdown_table(["arm", "intra", "inter"], rows)


def length_table(summary: Mapping[str, Any], main: str, names: Sequence[str]) -> str:
    """Pref accuracy by which response is longer."""
    rows = []
    for name in names:
        bias = summary["sets"][main]["models"][name]["length_bias"]
        correlation = bias["gap_length"]
        rows.append(
            [
                summary["arms"][name]["title"],
                _percent(bias["chosen_longer"]),
                _percent(bias["chosen_shorter"]),
                "-" if correlation is None else f"{correlation:+.2f}",
            ]
        )
    return markdown_table(["arm", "chosen longer", "chosen shorter", "rank correlation of gap and length"], rows)


def seed_table(summary: Mapping[str, Any], names: Sequence[str]) -> str:
    """Accuracy of each seed: means over held-out relations."""
    rows = []
    for name in names:
        of_seeds = summary["arms"][name]["per_seed"]
        cells = [" / ".join(f"{100 * one[level]:.1f}" for one in of_seeds) for level in ("pref", "intra", "inter")]
        rows.append([summary["arms"][name]["title"], *cells])
    return markdown_table(["arm", "pref", "intra", "inter"], rows)


def arm_table(summary: Mapping[str, Any]) -> str:
    """The settings of the arms."""
    rows = [
        [
            arm["title"],
            "reward model" if arm["method"] == "rm" else "DPO",
            f"{arm['lambda_intra']:g}, {arm['lambda_inter']:g}",
            arm["layout"] if arm["lambda_intra"] or arm["lambda_inter"] else "-",
            ", ".join(f"{k} ({weight:g})" for k, weight in arm["k"].items())
            if arm["lambda_intra"] or arm["lambda_inter"]
            else "-",
            arm["question"],
        ]
        for arm in summary["arms"].values()
    ]
    return markdown_table(["arm", "kind", "lambda intra, inter", "layout", "k (weight)", "what it is"], rows)


def _arms(summary: Mapping[str, Any], method: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((name, arm) for name, arm in summary["arms"].items() if arm["method"] == method)


def _titles(summary: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [summary["arms"][name]["title"] for name in names]


def _percent(value: Estimate | None) -> str:
    return "-" if value is None else format_percent(value)


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
