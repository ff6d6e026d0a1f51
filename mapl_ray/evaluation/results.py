"""Compute all metrics of all models, as one result that can be written as JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from mapl_ray.config import EvaluationConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation.bootstrap import Estimate
from mapl_ray.evaluation.by_family import (
    WorstFamily,
    accuracy_by_family,
    accuracy_by_novelty,
    accuracy_by_phrasing,
    worst_families,
)
from mapl_ray.evaluation.calibration import Calibration, calibration_by_level
from mapl_ray.evaluation.columns import GroupColumns, columns_of_groups, flat_rewards, relation_margins
from mapl_ray.evaluation.compare import Comparison, baseline_pairs, compare
from mapl_ray.evaluation.examples import Example, pick_examples
from mapl_ray.evaluation.gaps import GapHistograms, gap_histograms
from mapl_ray.evaluation.invariance import Invariance, ScoredVariant, invariance
from mapl_ray.evaluation.items import FloatArray, Rewards
from mapl_ray.evaluation.length_bias import LengthBias, length_bias
from mapl_ray.evaluation.levels import LevelResult, accuracy_by_k, kind_results, level_results
from mapl_ray.evaluation.own_results import OwnResults
from mapl_ray.evaluation.provenance import Provenance
from mapl_ray.evaluation.set_results import SetResults
from mapl_ray.progress import progress

RESULTS_VERSION = 1


class ModelResults(TypedDict):
    """All metrics of one model."""

    levels: dict[str, LevelResult]
    inter_kinds: dict[str, LevelResult]
    by_k: dict[str, dict[str, Estimate]]
    by_family: dict[str, dict[str, Estimate]]
    by_novelty: dict[str, dict[str, Estimate]]  # families seen and unseen in training; empty if all were seen
    by_phrasing: dict[str, dict[str, Estimate]]  # the same for phrasings
    worst_family: dict[str, WorstFamily]
    length_bias: LengthBias
    gaps: GapHistograms
    calibration: dict[str, Calibration]
    invariance: dict[str, Invariance]  # by kind of variant; empty if none was scored


class Results(TypedDict):
    """The content of `evaluation.json`."""

    results_version: int
    counts: dict[str, int]
    models: dict[str, ModelResults]
    comparisons: list[Comparison]
    sets: dict[str, SetResults]  # by name of the public set
    own_prompts: OwnResults | None  # None if evaluation.own_prompts is 0
    examples: list[Example]
    families: dict[str, str]
    unseen_families: list[str]  # families that no train group has
    config: dict[str, Any]
    provenance: Provenance | None


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """Data and settings of the metrics, the same for all models."""

    columns: GroupColumns
    variants: Mapping[str, ScoredVariant]
    unseen_families: Collection[str]
    unseen_phrasings: bool
    samples: int
    seed: int


def evaluate_models(
    groups: Sequence[RelationGroup],
    rewards: Mapping[str, Rewards],
    families: Mapping[str, str],
    provenance: Provenance | None,
    config: EvaluationConfig,
    **options: Any,
) -> Results:
    """Like `evaluate_columns`, for groups in memory; `rewards` maps a model to one tuple of rewards per group."""
    columns = columns_of_groups(groups, families)
    flat = {model: flat_rewards(columns, of_model, model) for model, of_model in rewards.items()}
    rows = [group.to_row() for group in groups]
    return evaluate_columns(columns, flat, families, provenance, config, rows.__getitem__, **options)


def evaluate_columns(
    columns: GroupColumns,
    rewards: Mapping[str, FloatArray],
    families: Mapping[str, str],
    provenance: Provenance | None,
    config: EvaluationConfig,
    row_of: Callable[[int], dict[str, Any]],
    *,
    seed: int = 0,
    comparisons: Sequence[tuple[str, str]] | None = None,
    unseen_families: Collection[str] = (),
    unseen_phrasings: bool = False,
    variants: Mapping[str, ScoredVariant] | None = None,
    sets: Mapping[str, SetResults] | None = None,
    own_prompts: OwnResults | None = None,
) -> Results:
    """Measure every model on the same groups.

    `rewards` maps a model to one reward per sequence, [S]; `families` maps a function's name to its family, the same as
    in the columns; `row_of` returns the row of a group (`GROUP_SCHEMA`) by its index, for the examples; `comparisons`
    are (model, baseline), by default every `name` with `name-baseline`; `unseen_families` are the families that
    training held out, `unseen_phrasings` is whether it held out phrasings; `variants` are variants of the groups with
    every model's rewards; `sets` are the results on public sets, `own_prompts` those on answers to the groups' prompts.
    Raises `UserError` if there are neither groups nor sets, and `RunError` if rewards do not match the groups or are
    not finite.
    """
    if not len(columns) and not sets:
        raise UserError("no held-out groups to evaluate on: raise data.eval_fraction or data.limit, and run again.")
    pairs = baseline_pairs(rewards) if comparisons is None else list(comparisons)
    if missing := {name for pair in pairs for name in pair} - set(rewards):
        raise RunError(f"comparisons: no rewards for these models: {', '.join(sorted(missing))}.")
    items, samples = columns.items, config.bootstrap_samples
    margins = {model: relation_margins(columns, of_model, model) for model, of_model in rewards.items()}
    measured = _Measured(columns, variants or {}, unseen_families, unseen_phrasings, samples, seed)
    models, compared = {}, []
    with progress("measure", len(rewards) + len(pairs), "models and comparisons") as work:
        for model, of_model in rewards.items():
            models[model] = _measure(model, measured, margins[model], of_model)
            work.advance()
        for a, b in pairs:
            levels = compare(items, margins[a], margins[b], samples, seed)
            compared.append(Comparison(model=a, baseline=b, levels=levels))
            work.advance()
    return Results(
        results_version=RESULTS_VERSION,
        counts={
            "groups": len(columns),
            "prompts": len(np.unique(items.prompt_R)),
            "relations": len(items.level_R),
        },
        models=models,
        comparisons=compared,
        sets=dict(sets or {}),
        own_prompts=own_prompts,
        examples=_examples(columns, rewards, row_of),
        families=dict(families),
        unseen_families=sorted(unseen_families),
        config={**config.model_dump(mode="json"), "seed": seed},
        provenance=provenance,
    )


def _examples(
    columns: GroupColumns, rewards: Mapping[str, FloatArray], row_of: Callable[[int], dict[str, Any]]
) -> list[Example]:
    found = []
    for index in pick_examples(columns):
        low, high = np.searchsorted(columns.group_S, [index, index + 1])
        of_models = {model: of_model[low:high].tolist() for model, of_model in rewards.items()}
        found.append(Example(group=row_of(index), rewards=of_models))
    return found


def _measure(model: str, on: _Measured, margins_R: FloatArray, rewards_S: FloatArray) -> ModelResults:
    columns, items, samples, seed = on.columns, on.columns.items, on.samples, on.seed
    by_family = accuracy_by_family(items, margins_R, samples, seed)
    return ModelResults(
        levels=level_results(items, margins_R, samples, seed),
        inter_kinds=kind_results(items, margins_R, samples, seed),
        by_k=accuracy_by_k(items, margins_R, samples, seed),
        by_family=by_family,
        by_novelty=accuracy_by_novelty(items, margins_R, on.unseen_families, samples, seed),
        by_phrasing=accuracy_by_phrasing(items, margins_R, samples, seed) if on.unseen_phrasings else {},
        worst_family=worst_families(by_family),
        length_bias=length_bias(columns, margins_R, rewards_S, samples, seed),
        gaps=gap_histograms(columns, rewards_S),
        calibration=calibration_by_level(items, margins_R),
        invariance=invariance(columns, rewards_S, margins_R, on.variants, model, samples, seed),
    )
