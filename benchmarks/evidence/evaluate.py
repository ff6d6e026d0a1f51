"""What a trained model gives the held-out groups, and the measures of all arms, seeds taken together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.evidence.arms import BY_NAME, Arm
from benchmarks.evidence.scale import Scale
from mapl_ray.config import EvaluationConfig
from mapl_ray.evaluation import Results, evaluate_models
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.provenance import Provenance
from mapl_ray.evaluation.rewards import model_rewards, reference_logps
from mapl_ray.instructions import REGISTRY
from mapl_ray.records import RelationGroup

_MICRO_BATCH = 16


def rewards_of(
    arm: Arm, groups: Sequence[RelationGroup], model: Path, reference: Path, beta: float, scale: Scale
) -> list[tuple[float, ...]]:
    """r(x, y) of every sequence; DPO's against the model it started from."""
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
    """All measures of all arms; `rewards` maps an arm to its seeds, a seed to its groups, a group to its sequences.

    The items of all seeds are taken together, and resampled by prompt: a prompt's items of every seed come or go at
    once. All arms must have as many seeds, or the paired tests have no pairs.
    """
    seeds = min(len(of_arm) for of_arm in rewards.values())
    flat = {
        name: [tuple(of_group) for of_seed in of_arm[:seeds] for of_group in of_seed]
        for name, of_arm in rewards.items()
    }
    return evaluate_models(
        list(groups) * seeds,
        flat,
        {name: function.family for name, function in REGISTRY.items()},
        provenance,
        EvaluationConfig(bootstrap_samples=scale.bootstrap_samples),
        comparisons=[
            (name, BY_NAME[name].baseline)
            for name in flat
            if name != BY_NAME[name].baseline and BY_NAME[name].baseline in flat
        ],
        unseen_phrasings=True,
    )
