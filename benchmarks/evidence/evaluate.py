"""Rewards of trained models on held-out groups, and metrics of all arms with their seeds pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.evidence.arms import BY_NAME, Arm
from benchmarks.evidence.scale import Scale
from mapl_ray.config import EvaluationConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.evaluation import Estimate, Results, evaluate_models
from mapl_ray.evaluation.by_family import accuracy_by_family
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.columns import columns_of_groups, flat_rewards, relation_margins
from mapl_ray.evaluation.provenance import Provenance
from mapl_ray.evaluation.rewards import model_rewards, reference_logps
from mapl_ray.instructions import REGISTRY

_MICRO_BATCH = 16


def rewards_of(
    arm: Arm, groups: Sequence[RelationGroup], model: Path, reference: Path, beta: float, scale: Scale
) -> list[tuple[float, ...]]:
    """r(x, y) of every sequence; for DPO the reference is the model that it started from."""
    sizes: dict[str, Any] = {"micro_batch_size": _MICRO_BATCH, "max_sequence_tokens": scale.max_sequence_tokens}
    if arm.method == "dpo":
        logps = reference_logps(groups, Checkpoint("reference", str(reference), None, "dpo"), **sizes)
        groups = [replace(group, ref_logps=of_group) for group, of_group in zip(groups, logps, strict=True)]
    return model_rewards(groups, Checkpoint(arm.name, str(model), None, arm.method), beta=beta, **sizes)


def measure(
    groups: Sequence[RelationGroup],
    rewards: Mapping[str, Sequence[Sequence[Sequence[float]]]],
    scale: Scale,
    provenance: Provenance | None,
) -> Results:
    """All metrics of all arms; `rewards` maps an arm to rewards by seed, group and sequence.

    The items of all seeds are pooled and resampled by prompt, with a prompt's items of all seeds together. All arms
    must have the same number of seeds, so that the paired tests have pairs.
    """
    together = _together(groups, rewards)
    return evaluate_models(
        together.groups,
        together.rewards,
        {name: function.family for name, function in REGISTRY.items()},
        provenance,
        EvaluationConfig(bootstrap_samples=scale.bootstrap_samples),
        comparisons=_comparisons(list(rewards)),
        unseen_phrasings=True,
    )


def by_function(
    groups: Sequence[RelationGroup], rewards: Mapping[str, Sequence[Sequence[Sequence[float]]]], scale: Scale
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Accuracy by arm, level and function, instead of by family as in `measure`."""
    together = _together(groups, rewards)
    columns = columns_of_groups(together.groups, {name: name for name in REGISTRY})
    found = {}
    for name, of_arm in together.rewards.items():
        margins_R = relation_margins(columns, flat_rewards(columns, of_arm, name), name)
        found[name] = accuracy_by_family(columns.items, margins_R, scale.bootstrap_samples, 0)
    return found


@dataclass(frozen=True, slots=True)
class _Together:
    """The groups repeated once per seed, and the concatenated rewards of all seeds."""

    groups: list[RelationGroup]
    rewards: dict[str, list[tuple[float, ...]]]


def _together(groups: Sequence[RelationGroup], rewards: Mapping[str, Sequence[Sequence[Sequence[float]]]]) -> _Together:
    (seeds,) = {len(of_arm) for of_arm in rewards.values()}
    flat = {name: [tuple(of_group) for of_seed in of_arm for of_group in of_seed] for name, of_arm in rewards.items()}
    return _Together(list(groups) * seeds, flat)


def _comparisons(names: list[str]) -> list[tuple[str, str]]:
    """Pairs to compare: every arm with its baseline, and every other arm with MAPL."""
    pairs = [(name, BY_NAME[name].baseline) for name in names]
    pairs += [(name, "mapl") for name in names if BY_NAME[name].method == "rm" and name != "baseline"]
    return [(name, other) for name, other in pairs if name != other and other in names]
