"""Summarize the finished runs as one JSON-compatible value, the source of the document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.evidence.arms import ARMS, BY_NAME, FUNCTIONS, UNSEEN_FUNCTIONS, Arm
from benchmarks.evidence.evaluate import by_function, measure
from benchmarks.evidence.experiment import Experiment, Prepared, read_result, result_path, settings_of
from mapl_ray.data.records import RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.evaluation import Results
from mapl_ray.evaluation.columns import columns_of_groups, flat_rewards, relation_margins
from mapl_ray.evaluation.levels import level_results

_MEASURES = ("levels", "inter_kinds", "by_k", "by_family", "by_phrasing", "worst_family", "length_bias")


def summarise(experiment: Experiment, prepared: Prepared) -> dict[str, Any]:
    """The summary of the finished arms, over the seeds that all of them have.

    Raises `UserError` if there are none.
    """
    found = {arm.name: _runs(experiment, prepared, arm) for arm in ARMS}
    found = {name: runs for name, runs in found.items() if runs}
    seeds = [seed for seed in experiment.seeds if all(seed in runs for runs in found.values())]
    if not found or not seeds:
        raise UserError(f"{experiment.output}: no seed is finished for all started arms. Run them first.")
    runs = {name: [of_arm[seed] for seed in seeds] for name, of_arm in found.items()}
    sets = {
        name: _slim(measure(groups, _rewards(runs, name), experiment.scale, None))
        for name, groups in prepared.held_out.items()
    }
    main = next(iter(prepared.held_out))
    return {
        "command": "make evidence",
        "seeds": seeds,
        "pairs": prepared.pairs.counts,
        "pairs_sha256": prepared.pairs.digest,
        "functions": FUNCTIONS,
        "unseen_functions": UNSEEN_FUNCTIONS,
        "warm_start": json.loads((experiment.output / "warm.json").read_text(encoding="utf-8")),
        "arms": {name: _arm(BY_NAME[name], of_arm, prepared, main) for name, of_arm in runs.items()},
        "sets": sets,
        "by_function": by_function(prepared.held_out[main], _rewards(runs, main), experiment.scale),
        "provenance": [run["provenance"] for of_arm in runs.values() for run in of_arm],
        "scale": runs[next(iter(runs))][0]["settings"]["scale"],
    }


def _runs(experiment: Experiment, prepared: Prepared, arm: Arm) -> dict[int, dict[str, Any]]:
    results = {
        seed: read_result(
            result_path(experiment.output, arm, seed), settings_of(arm, experiment.scale, seed, prepared.pairs)
        )
        for seed in experiment.seeds
    }
    return {seed: result for seed, result in results.items() if result is not None}


def _rewards(runs: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> dict[str, list[Any]]:
    return {arm: [run["rewards"][name] for run in of_arm] for arm, of_arm in runs.items()}


def _arm(arm: Arm, runs: Sequence[Mapping[str, Any]], prepared: Prepared, main: str) -> dict[str, Any]:
    trained = [run["trained"] for run in runs]
    return {
        "title": arm.title,
        "question": arm.question,
        "method": arm.method,
        "baseline": arm.baseline,
        "lambda_intra": arm.lambda_intra,
        "lambda_inter": arm.lambda_inter,
        "layout": arm.layout,
        "k": {str(k): weight for k, weight in arm.k.items()},
        "steps": [one["steps"] for one in trained],
        "tokens": [one["tokens"] for one in trained],
        "cpu_seconds": [one["cpu_seconds"] for one in trained],
        "wall_seconds": [run["wall_seconds"] for run in runs],
        "curve": _mean_curve([one["curve"] for one in trained]),
        "per_seed": [_accuracies(prepared.held_out[main], run["rewards"][main], arm.name) for run in runs],
    }


def _accuracies(groups: Sequence[RelationGroup], rewards: Any, name: str) -> dict[str, float]:
    """Accuracies of one seed, by level."""
    columns = columns_of_groups(groups, {})
    rewards_S = flat_rewards(columns, [tuple(one) for one in rewards], name)
    levels = level_results(columns.items, relation_margins(columns, rewards_S, name), 0, 0)
    return {level: found["accuracy"]["value"] for level, found in levels.items()}


def _mean_curve(curves: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """The mean curve over seeds, row by row."""
    rows = []
    for of_seeds in zip(*curves, strict=False):
        names = [name for name in of_seeds[0] if all(name in row for row in of_seeds)]
        rows.append({name: sum(row[name] for row in of_seeds) / len(of_seeds) for name in names})
    return rows


def _slim(results: Results) -> dict[str, Any]:
    models: Mapping[str, Any] = results["models"]
    return {
        "counts": results["counts"],
        "models": {name: {measure: of[measure] for measure in _MEASURES} for name, of in models.items()},
        "comparisons": results["comparisons"],
    }
