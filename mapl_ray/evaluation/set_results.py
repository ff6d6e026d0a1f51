"""Results on public sets: one table a set, by the set's own rules.

RewardBench (Lambert et al. 2024, arXiv 2403.13787): sections are means over their subsets weighted by rows, where
math-prm weighs as much as all code together; the score is the mean of the sections. RM-Bench (Liu et al. 2024, arXiv
2410.16184): m[i][j] is the share of rows whose chosen response of style i is above the rejected one of style j, styles
rising from concise to formatted; hard is the mean above the diagonal, normal on it, easy below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mapl_ray.errors import RunError
from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.calibration import Calibration, calibration
from mapl_ray.evaluation.follow_results import FollowResults, follow_results, prompt_level
from mapl_ray.evaluation.following import FollowRow, judge_responses
from mapl_ray.evaluation.items import FloatArray, IntArray, Rewards, prompt_text
from mapl_ray.evaluation.paired import Difference, difference
from mapl_ray.evaluation.public_sets import NUM_STYLES, PublicSet, SetRow

_SHOWN_REJECTIONS = 20
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Chat": ("alpacaeval-", "mt-bench-easy", "mt-bench-med"),
    "Chat Hard": ("mt-bench-hard", "llmbar-"),
    "Safety": ("refusals-", "xstest-", "donotanswer"),
    "Reasoning": ("math-prm", "hep-"),
}


class PreferenceResults(TypedDict):
    """One model on one set. Ties count as wrong; of RM-Bench a row counts the share of its nine comparisons."""

    accuracy: Estimate
    ties: float
    by_subset: dict[str, Estimate]
    sections: dict[str, float]  # RewardBench's; RM-Bench's domains
    score: float | None  # mean of the sections
    matrix: list[list[float]]  # RM-Bench alone, else empty
    styles: dict[str, Estimate]  # hard, normal, easy
    calibration: Calibration


class SetComparison(TypedDict):
    """Two models on the same rows; of IFEval by strict prompt-level verdicts."""

    model: str
    baseline: str
    difference: Difference


class SetResults(TypedDict):
    """One set; `preference` of models with rewards, `following` of policies on IFEval and IFBench."""

    format: str
    counts: dict[str, int]  # rows, used, rejected, too long
    rejections: list[dict[str, Any]]  # the first of them; all are in a file beside
    preference: dict[str, PreferenceResults]
    following: dict[str, FollowResults]
    comparisons: list[SetComparison]


def preference_results(
    found: PublicSet,
    rows: Sequence[SetRow],
    rewards: Mapping[str, Sequence[Rewards]],
    pairs: Sequence[tuple[str, str]],
    samples: int,
    seed: int,
) -> SetResults:
    """Measure every model on `rows`, those of the set that fit all models.

    `rewards`: model -> a row -> one tuple (chosen, rejected) a group. `pairs` are (model, baseline) to be compared.
    Raises `RunError` for rewards that are not finite.
    """
    prompt_N = _prompt_index(rows)
    scores = {model: _scores(of_model, model, found.name) for model, of_model in rewards.items()}
    right = {model: _right(values) for model, values in scores.items()}
    comparisons = []
    for model, baseline in pairs:
        found_difference = difference(right[model], right[baseline], prompt_N, samples, seed)
        if found_difference is not None:
            comparisons.append(SetComparison(model=model, baseline=baseline, difference=found_difference))
    return SetResults(
        format=found.format,
        counts=set_counts(found, len(rows)),
        rejections=shown_rejections(found),
        preference={
            model: _measure(found, rows, values, right[model], prompt_N, samples, seed)
            for model, values in scores.items()
            if len(rows)
        },
        following={},
        comparisons=comparisons,
    )


def following_results(
    found: PublicSet,
    rows: Sequence[FollowRow],
    responses: Mapping[str, tuple[Sequence[str], int]],
    pairs: Sequence[tuple[str, str]],
    samples: int,
    seed: int,
) -> SetResults:
    """Measure every policy on `rows`, those of the set that fit all; `responses`: policy -> (one a row, number cut)."""
    verdicts = {model: judge_responses(rows, given) for model, (given, _) in responses.items() if rows}
    comparisons = []
    for model, baseline in pairs:
        if model in verdicts and baseline in verdicts:
            sides = [prompt_level(verdicts[name]) for name in (model, baseline)]
            found_difference = difference(sides[0], sides[1], np.arange(len(rows)), samples, seed)
            if found_difference is not None:
                comparisons.append(SetComparison(model=model, baseline=baseline, difference=found_difference))
    return SetResults(
        format=found.format,
        counts=set_counts(found, len(rows)),
        rejections=shown_rejections(found),
        preference={},
        following={
            model: follow_results(rows, of_model, responses[model][1], samples, seed)
            for model, of_model in verdicts.items()
        },
        comparisons=comparisons,
    )


def set_counts(found: PublicSet, used: int) -> dict[str, int]:
    """rows = used + rejected + too long."""
    rejected = len(found.rejected)
    return {
        "rows": found.input_rows,
        "used": used,
        "rejected": rejected,
        "too long": found.input_rows - rejected - used,
    }


def shown_rejections(found: PublicSet) -> list[dict[str, Any]]:
    """The first rejections as plain rows."""
    return [
        {"source": r.source, "row": r.row, "id": r.pair_id, "reason": r.reason}
        for r in found.rejected[:_SHOWN_REJECTIONS]
    ]


def _measure(
    found: PublicSet,
    rows: Sequence[SetRow],
    scores_NK2: npt.NDArray[np.float64],
    right_N: FloatArray,
    prompt_N: IntArray,
    samples: int,
    seed: int,
) -> PreferenceResults:
    accuracy = estimate(right_N, prompt_N, samples, seed)
    assert accuracy is not None  # there are rows
    subset_N = np.array([row.subset for row in rows])
    by_subset: dict[str, Estimate] = {}
    for subset in sorted({row.subset for row in rows} - {""}):
        value = estimate(right_N[subset_N == subset], prompt_N[subset_N == subset], samples, seed)
        if value is not None:
            by_subset[subset] = value
    sections = _SECTION_RULES.get(found.format, lambda _: {})(by_subset)
    margins_NK = scores_NK2[..., 0] - scores_NK2[..., 1]
    styles = found.format == "rm-bench"
    wins_NKK = _wins(scores_NK2)
    return PreferenceResults(
        accuracy=accuracy,
        ties=float((margins_NK == 0.0).mean()),
        by_subset=by_subset,
        sections=sections,
        score=float(np.mean([*sections.values()])) if sections else None,
        matrix=wins_NKK.mean(axis=0).tolist() if styles else [],
        styles=_styles(wins_NKK, prompt_N, samples, seed) if styles else {},
        calibration=calibration(margins_NK.ravel()),
    )


def _scores(rewards: Sequence[Rewards], model: str, name: str) -> npt.NDArray[np.float64]:
    """Rewards [N, K, 2]: N rows, K styles (1 but for RM-Bench), chosen and rejected."""
    scores_NK2 = np.array(rewards, dtype=np.float64)
    if not np.isfinite(scores_NK2).all():
        raise RunError(f"model {model}, set {name}: the rewards are not finite.")
    return scores_NK2.reshape(len(rewards), -1, 2)


def _wins(scores_NK2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[N, K, K]: 1 where the chosen response of style i is above the rejected one of style j."""
    wins: npt.NDArray[np.float64] = (scores_NK2[:, :, None, 0] > scores_NK2[:, None, :, 1]).astype(np.float64)
    return wins


def _right(scores_NK2: npt.NDArray[np.float64]) -> FloatArray:
    """Share [N] of a row's comparisons that are right."""
    right_N: FloatArray = _wins(scores_NK2).mean(axis=(1, 2)) if len(scores_NK2) else np.empty(0)
    return right_N


def _styles(wins_NKK: npt.NDArray[np.float64], prompt_N: IntArray, samples: int, seed: int) -> dict[str, Estimate]:
    row, column = np.indices((NUM_STYLES, NUM_STYLES))
    cells = {"hard": column > row, "normal": column == row, "easy": column < row}
    found = {name: estimate(wins_NKK[:, mask].mean(axis=1), prompt_N, samples, seed) for name, mask in cells.items()}
    return {name: value for name, value in found.items() if value is not None}


def _rewardbench_sections(by_subset: Mapping[str, Estimate]) -> dict[str, float]:
    code = sum(value["count"] for subset, value in by_subset.items() if subset.startswith("hep-"))
    sections = {}
    for section, starts in _SECTIONS.items():
        inside = {name: value for name, value in by_subset.items() if name.startswith(starts)}
        weights = [code if name == "math-prm" and code else value["count"] for name, value in inside.items()]
        if inside:
            sections[section] = float(np.average([value["value"] for value in inside.values()], weights=weights))
    return sections


def _rm_bench_sections(by_subset: Mapping[str, Estimate]) -> dict[str, float]:
    """Domains; the two sides of safety (`safety-refuse`, `safety-response`) count as one, half each."""
    domains: dict[str, list[float]] = {}
    for name, value in by_subset.items():
        domains.setdefault(name.partition("-")[0], []).append(value["value"])
    return {name: float(np.mean(values)) for name, values in domains.items()}


_SECTION_RULES = {"rewardbench": _rewardbench_sections, "rm-bench": _rm_bench_sections}


def _prompt_index(rows: Sequence[SetRow]) -> IntArray:
    keys: dict[str, int] = {}
    return np.array([keys.setdefault(prompt_text(row.groups[0]), len(keys)) for row in rows], dtype=np.int64)
