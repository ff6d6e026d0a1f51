"""Findings as sentences generated from the summary: targets, and shortcomings with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.evidence.tables import markdown_table
from mapl_ray.evaluation import Estimate, format_percent, format_points

INTRA_TARGET, UNSEEN_TARGET, NEAR_CHANCE, PREF_LOSS = 0.75, 0.60, 0.05, -0.01


def targets_table(summary: Mapping[str, Any], main: str, model: str, baseline: str) -> str:
    """A table of the experiment's targets: the result, and whether it was reached."""
    of_model, of_baseline = (summary["sets"][main]["models"][name] for name in (model, baseline))
    phrasing = of_model["by_phrasing"]["intra"]
    differences = comparison(summary, main, model, baseline)
    pref, inter = differences["pref"]["accuracy"], differences["inter"]["accuracy"]
    chance = of_baseline["levels"]["intra"]["accuracy"]
    rows = [
        _row(
            "intra, seen functions and phrasings: at least 75 %",
            phrasing["seen"],
            phrasing["seen"]["value"] >= INTRA_TARGET,
        ),
        _row(
            "intra, unseen phrasings: at least 60 %", phrasing["unseen"], phrasing["unseen"]["value"] >= UNSEEN_TARGET
        ),
        _row("the baseline's intra near 50 %", chance, abs(chance["value"] - 0.5) <= NEAR_CHANCE),
        _points_row("inter above the baseline", inter, (inter["low"] or 0.0) > 0.0),
        _points_row("pref no more than 1 point below the baseline", pref, pref["value"] >= PREF_LOSS),
    ]
    return markdown_table(["target", "found", "reached"], rows)


def comparison(summary: Mapping[str, Any], name: str, model: str, other: str) -> Mapping[str, Any]:
    """Paired differences of two arms, by level."""
    found: Mapping[str, Any] = next(
        one["levels"]
        for one in summary["sets"][name]["comparisons"]
        if (one["model"], one["baseline"]) == (model, other)
    )
    return found


def disappointments(summary: Mapping[str, Any], main: str, three: str, unseen: str) -> list[str]:
    """The shortcomings of MAPL in the results, with likely reasons; one Markdown item each."""
    items = [
        _functions(summary),
        _phrasings(summary, main),
        _unseen_functions(summary, unseen),
        _by_heart(summary),
        _pref(summary, main),
    ]
    if "independent" in summary["arms"]:
        items.append(_layouts(summary, main))
    if {"dpo-baseline", "dpo-mapl"} <= set(summary["arms"]):
        items.append(_dpo(summary, main))
    three_mapl = summary["sets"][three]["models"]["mapl"]["by_k"]["intra"].get("3")
    if three_mapl is not None:
        found = f"With k = 3, more than training had, MAPL's intra is {format_percent(three_mapl)}"
        items.append(f"**More instructions.** {found}{_k3(summary, three)}")
    return items


def _functions(summary: Mapping[str, Any]) -> str:
    of = summary["by_function"]["mapl"]["intra"]
    ranked = sorted(of, key=lambda name: float(of[name]["value"]))
    worst, best = ranked[0], ranked[-1]
    return (
        f"**Functions differ.** Best is `{best}` at {format_percent(of[best])}, worst `{worst}` at "
        f"{format_percent(of[worst])}. Whether a mark, a digit or a list occurs can be seen from a token or two; "
        "`first_word` has to find the same word in prompt and answer. Features that few pairs differ in have few "
        "relations to learn from, and wide intervals."
    )


def _phrasings(summary: Mapping[str, Any], main: str) -> str:
    phrasing = summary["sets"][main]["models"]["mapl"]["by_phrasing"]["intra"]
    seen, unseen = phrasing["seen"], phrasing["unseen"]
    return (
        f"**New words.** From phrasings of training to others intra goes from {format_percent(seen)} to "
        f"{format_percent(unseen)} ({100 * (unseen['value'] - seen['value']):+.1f} points). A model that has read "
        "nothing else knows of a new wording only the words that it shares with the old ones."
    )


def _unseen_functions(summary: Mapping[str, Any], unseen: str) -> str:
    found = summary["sets"][unseen]["models"]["mapl"]["levels"]["intra"]["accuracy"]
    names = ", ".join(f"`{name}`" for name in summary["unseen_functions"])
    chance = ", which is not distinguishable from chance" if _holds_chance(found) else ""
    return (
        f"**New functions.** On {names}, which no training group has, MAPL reaches {format_percent(found)}{chance}. "
        "What is learned here is a handful of functions, not the following of instructions in general: that takes a "
        "model that can read, and far more functions."
    )


def _by_heart(summary: Mapping[str, Any]) -> str:
    last = summary["arms"]["mapl"]["curve"][-1]
    parts = ", ".join(
        f"{level} {_two(last, f'rewards/accuracies/{level}')}"
        for level in ("pref", "intra", "inter")
        if f"rewards/accuracies/{level}" in last
    )
    return (
        f"**Learned by heart.** In the last stretch of training MAPL is right in (training and held out): {parts}. The "
        "same pairs come back several times, with new instructions and the same preference."
    )


def _pref(summary: Mapping[str, Any], main: str) -> str:
    levels = summary["sets"][main]["models"]["baseline"]["levels"]
    pref = comparison(summary, main, "mapl", "baseline")["pref"]["accuracy"]
    curve = summary["arms"]["baseline"]["curve"]
    metric = "eval/rewards/accuracies/pref"
    best, best_mapl = (max(row[metric] for row in summary["arms"][name]["curve"]) for name in ("baseline", "mapl"))
    text = (
        f"**The baseline's pref** ends at {format_percent(levels['pref']['accuracy'])} held out; its last stretch is "
        f"{_two(curve[-1], 'rewards/accuracies/pref')} in training and held out, and the best point of its mean "
        f"held-out curve {100 * best:.1f} % (MAPL's best: {100 * best_mapl:.1f} %). "
        f"At the end MAPL's difference is {format_points(pref)} points."
    )
    if pref["value"] > 0.0:
        text += (
            " Where the baseline has passed its best, MAPL's other levels work as a regulariser would: a difference "
            "above zero at equal steps is no sign that MAPL reads preferences better."
        )
    if "baseline-tokens" in summary["arms"]:
        longer = summary["sets"][main]["models"]["baseline-tokens"]["levels"]["pref"]["accuracy"]
        text += f" Trained as many tokens as MAPL, the baseline's pref is {format_percent(longer)}."
    return text


def _layouts(summary: Mapping[str, Any], main: str) -> str:
    found = comparison(summary, main, "independent", "mapl")
    own, grid = (summary["arms"][name] for name in ("independent", "mapl"))
    tokens, seconds = (sum(own[cost]) / sum(grid[cost]) for cost in ("tokens", "cpu_seconds"))
    return (
        f"**`grid` and `independent`.** At equal steps `independent` differs from MAPL's grid by "
        f"{format_points(found['intra']['accuracy'])} points of intra and {format_points(found['pref']['accuracy'])} "
        f"of pref, for {tokens:.1f} times the tokens and {seconds:.1f} times the seconds: it draws "
        "new instructions for every relation, where the grid uses the same ones for all. At equal tokens they were not "
        "compared."
    )


def _dpo(summary: Mapping[str, Any], main: str) -> str:
    model = summary["sets"][main]["models"]["dpo-mapl"]
    of = summary["by_function"]["dpo-mapl"]["intra"]
    chance = [f"`{name}`" for name in of if _holds_chance(of[name])]
    pref = comparison(summary, main, "dpo-mapl", "dpo-baseline")["pref"]
    reached, steps = model["by_phrasing"]["intra"]["seen"], summary["scale"]
    text = (
        f"**DPO** with MAPL's levels reaches {format_percent(reached)} of intra in seen phrasings, with "
        f"{steps['dpo_steps']} steps where reward models have {steps['steps']} and a learning rate that was not tried "
        f"out; its pref differs from plain DPO's by {format_points(pref['accuracy'])} points "
        f"(p {pref['p_value']:.2f}), an interval far wider than the point that is allowed."
    )
    return text + (f" Not distinguishable from chance: {', '.join(chance)}." if chance else "")


def _two(row: Mapping[str, float], name: str) -> str:
    return f"{100 * row[name]:.1f} and {100 * row[f'eval/{name}']:.1f} %"


def _k3(summary: Mapping[str, Any], three: str) -> str:
    if "k3" not in summary["arms"]:
        return "."
    own = summary["sets"][three]["models"]["k3"]["by_k"]["intra"].get("3")
    return "." if own is None else f"; the arm that was trained on nothing else reaches {format_percent(own)} there."


def _holds_chance(value: Estimate) -> bool:
    return value["low"] is not None and value["high"] is not None and value["low"] <= 0.5 <= value["high"]


def _row(name: str, value: Estimate, reached: bool) -> list[str]:
    return [name, format_percent(value), "yes" if reached else "no"]


def _points_row(name: str, value: Estimate, reached: bool) -> list[str]:
    return [name, f"{format_points(value)} points", "yes" if reached else "no"]
