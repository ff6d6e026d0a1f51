"""Results on public sets, by each set's own rules (`set_rules.py`).

RM-Bench (Liu et al. 2024, arXiv 2410.16184) has a matrix: m[i][j] is the share of rows in which the chosen response of
style i scores above the rejected response of style j. Styles go from concise to formatted. hard is the mean above the
diagonal, normal the mean on it, easy the mean below it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mapl_ray.errors import RunError
from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.calibration import Calibration, calibration
from mapl_ray.evaluation.column_table import prompt_text
from mapl_ray.evaluation.follow_results import FollowResults, follow_results, prompt_level
from mapl_ray.evaluation.following import FollowRow, judge_responses
from mapl_ray.evaluation.items import FloatArray, IntArray, Rewards
from mapl_ray.evaluation.paired import Difference, paired_difference
from mapl_ray.evaluation.public_sets import PublicSet
from mapl_ray.evaluation.set_rows import NUM_STYLES, SetRow
from mapl_ray.evaluation.set_rules import margins_of, row_right, score_of

_SHOWN_REJECTIONS = 20


class PreferenceResults(TypedDict):
    """Results of one model on one set. `row_right` scores a row; `ties` is the share of relations with margin 0."""

    accuracy: Estimate
    ties: float
    by_subset: dict[str, Estimate]
    sections: dict[str, float]  # the set's own sections: RewardBench's sections, RM-Bench's domains, ...
    score: float | None  # the set's own score; None if it has none
    details: dict[str, float]  # further numbers that the set defines
    matrix: list[list[float]]  # only for RM-Bench, else empty
    styles: dict[str, Estimate]  # hard, normal, easy
    calibration: Calibration


class SetComparison(TypedDict):
    """A comparison of two models on the same rows; for IFEval and IFBench by strict prompt-level accuracy."""

    model: str
    baseline: str
    difference: Difference


class SetResults(TypedDict):
    """Results on one set: `preference` by rewards; `following` for policies on IFEval and IFBench."""

    format: str
    counts: dict[str, int]  # rows, used, rejected, too long
    rejections: list[dict[str, Any]]  # the first ones; evaluation/NAME-rejected.jsonl has all
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
    """Measure every model on `rows`, the rows of the set that fit all models.

    `rewards` maps a model to rewards by row, group and sequence. `pairs` are the (model, baseline) to compare. Raises
    `RunError` for rewards that are not finite.
    """
    prompt_N = _prompt_index(rows)
    for model, of_model in rewards.items():
        _check_finite(of_model, model, found.name)
    right = {
        model: np.array([row_right(found.format, row, given) for row, given in zip(rows, of_model, strict=True)])
        for model, of_model in rewards.items()
    }
    comparisons = []
    for model, baseline in pairs:
        found_difference = paired_difference(right[model], right[baseline], prompt_N, samples, seed)
        if found_difference is not None:
            comparisons.append(SetComparison(model=model, baseline=baseline, difference=found_difference))
    return SetResults(
        format=found.format,
        counts=set_counts(found, len(rows)),
        rejections=shown_rejections(found),
        preference={
            model: _measure(found, rows, of_model, right[model], prompt_N, samples, seed)
            for model, of_model in rewards.items()
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
    """Measure every policy on `rows`, which fit all policies. `responses`: policy -> (responses, number truncated)."""
    verdicts = {model: judge_responses(rows, given) for model, (given, _) in responses.items() if rows}
    comparisons = []
    for model, baseline in pairs:
        if model in verdicts and baseline in verdicts:
            sides = [prompt_level(verdicts[name]) for name in (model, baseline)]
            found_difference = paired_difference(sides[0], sides[1], np.arange(len(rows)), samples, seed)
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
    """Counts of rows: rows = used + rejected + too long."""
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
    rewards: Sequence[Rewards],
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
    own = score_of(found.format, rows, rewards, right_N, by_subset)
    margins_R = np.array(
        [margin for row, of_row in zip(rows, rewards, strict=True) for margin in margins_of(row, of_row)]
    )
    wins_NKK = _wins(rewards) if found.format == "rm-bench" else None
    return PreferenceResults(
        accuracy=accuracy,
        ties=float((margins_R == 0.0).mean()),
        by_subset=by_subset,
        sections=own.sections,
        score=own.score,
        details=own.details,
        matrix=[] if wins_NKK is None else wins_NKK.mean(axis=0).tolist(),
        styles={} if wins_NKK is None else _styles(wins_NKK, prompt_N, samples, seed),
        calibration=calibration(margins_R),
    )


def _check_finite(rewards: Sequence[Rewards], model: str, name: str) -> None:
    if not all(math.isfinite(value) for of_row in rewards for of_group in of_row for value in of_group):
        raise RunError(f"model {model}, set {name}: the rewards are not finite.")


def _wins(rewards: Sequence[Rewards]) -> npt.NDArray[np.float64]:
    """[N, K, K]: 1 where the chosen response of style i scores above the rejected one of style j."""
    scores_NK2 = np.array(rewards, dtype=np.float64)
    wins: npt.NDArray[np.float64] = (scores_NK2[:, :, None, 0] > scores_NK2[:, None, :, 1]).astype(np.float64)
    return wins


def _styles(wins_NKK: npt.NDArray[np.float64], prompt_N: IntArray, samples: int, seed: int) -> dict[str, Estimate]:
    row, column = np.indices((NUM_STYLES, NUM_STYLES))
    cells = {"hard": column > row, "normal": column == row, "easy": column < row}
    found = {name: estimate(wins_NKK[:, mask].mean(axis=1), prompt_N, samples, seed) for name, mask in cells.items()}
    return {name: value for name, value in found.items() if value is not None}


def _prompt_index(rows: Sequence[SetRow]) -> IntArray:
    keys: dict[str, int] = {}
    return np.array([keys.setdefault(prompt_text(row.groups[0]), len(keys)) for row in rows], dtype=np.int64)
