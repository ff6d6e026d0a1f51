"""Scoring of the held-out groups with every trained model: a Ray task a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ray

from mapl_ray.config import Method, RunConfig
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation.rewards import fitting_groups, model_rewards
from mapl_ray.records import Rejection, RelationGroup

Models = Mapping[str, tuple[Method, Path]]  # name -> method, model directory


def score_models(
    config: RunConfig, models: Models, groups: Sequence[RelationGroup]
) -> tuple[list[RelationGroup], list[Rejection], dict[str, list[tuple[float, ...]]]]:
    """The groups that fit every model, those that do not, and each model's rewards of the former."""
    limit = min(config.training(method).max_sequence_tokens for method, _ in models.values())
    fitting, too_long = fitting_groups(groups, str(next(iter(models.values()))[1]), limit)
    if not fitting:
        raise UserError(f"every held-out group is longer than train.max_sequence_tokens={limit}. Raise it.")
    resources = {"num_cpus": config.evaluation.cpus, "num_gpus": config.evaluation.gpus}
    task = ray.remote(**resources, max_retries=1)(_rewards)
    shared = ray.put(fitting)
    waiting = {name: task.remote(shared, method, str(path), config, limit) for name, (method, path) in models.items()}
    rewards = {}
    for name, reference in waiting.items():
        try:
            rewards[name] = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, UserError | RunError) else RunError(f"model {name}: {cause}") from None
        print(f"  {name}: {len(fitting)} groups scored", flush=True)
    return fitting, too_long, rewards


def _rewards(
    groups: list[RelationGroup], method: Method, model_dir: str, config: RunConfig, limit: int
) -> list[tuple[float, ...]]:
    section = config.training(method)
    return model_rewards(
        groups,
        method,
        model_dir,
        beta=section.beta,
        micro_batch_size=config.evaluation.micro_batch_size,
        max_sequence_tokens=limit,
        length_normalised=section.objective.length_normalised,
    )
