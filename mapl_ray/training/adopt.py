"""Another run's checkpoint as the start of this one, with other values of the training."""

from __future__ import annotations

import shutil
from pathlib import Path

from mapl_ray.config import TrainConfig
from mapl_ray.errors import RunError
from mapl_ray.training.checkpoint import (
    begin_checkpoint,
    checkpoint_path,
    commit_checkpoint,
    damage,
    read_manifest,
    written_files,
)
from mapl_ray.training.engine_config import inlined
from mapl_ray.training.resume import train_settings


def adopt_checkpoint(source: Path, target: Path, step: int, config: TrainConfig) -> Path:
    """Copy the checkpoint after `step` steps from one folder of checkpoints to another, as one of a run with `config`.

    Weights, moments, schedule and random states are the source's; rates and weights of the loss are the config's. The
    caller sees to it that the rest fits. Raises `RunError` where there is no whole checkpoint of that step.
    """
    path = checkpoint_path(source, step)
    manifest, reason = read_manifest(path)
    if manifest is not None:
        reason = damage(path, manifest)
    if manifest is None or reason:
        raise RunError(f"{path}: can't be taken over: {reason}.")
    written = begin_checkpoint(target, step)
    shutil.copytree(path, written, dirs_exist_ok=True, ignore=_without_manifest)
    return commit_checkpoint(
        written,
        step,
        files=[written_files(written, (written / name for name in manifest.files))],
        world_size=manifest.world_size,
        zero_stage=manifest.zero_stage,
        settings={**manifest.settings, **train_settings(inlined(config))},
    )


def _without_manifest(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "manifest.json"]
