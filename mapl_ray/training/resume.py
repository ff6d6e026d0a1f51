"""The step at which a run starts: after its newest valid checkpoint, or step 0 if there are no checkpoints.

If a run has checkpoints but can use none of them, it stops with a message, and never starts over by itself. A member of
a population starts from another run's checkpoint, with other training settings.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapl_ray.aside import set_aside
from mapl_ray.config import Method, TrainConfig
from mapl_ray.errors import RunError, UserError
from mapl_ray.training.checkpoint import (
    CheckpointManifest,
    begin_checkpoint,
    checkpoint_path,
    commit_checkpoint,
    committed,
    damage,
    read_checkpoint_manifest,
    written_files,
)
from mapl_ray.training.engine_config import inlined
from mapl_ray.training.plan import groups_per_step
from mapl_ray.training.result import OPERATIONAL

# How a step is split over ranks and micro-batches. `groups_per_step` is compared instead.
_CUT = {"num_workers", "micro_batch_size", "gradient_accumulation_steps", "sequence_parallel_size"}
_RESTART = "train.on_unusable_checkpoint=restart (the old ones are kept in a folder next to it)"


@dataclass(frozen=True, slots=True)
class Found:
    """A valid checkpoint of this run."""

    path: str
    step: int
    world_size: int
    files: Mapping[str, str]  # path below the checkpoint -> sha256


def run_settings(
    config: TrainConfig, method: Method, *, model: str, data: str, world_size: int
) -> dict[str, str | int | float | bool | None]:
    """Settings that must be equal to those of a checkpoint; flat, so that messages can name a difference.

    The number of workers may differ if the number of groups per step is the same, as the steps are the same then.
    """
    return {
        "method": method,
        "base model": model,
        "data": data,
        "groups_per_step": groups_per_step(config, world_size),
        **train_settings(config),
    }


def train_settings(config: TrainConfig) -> dict[str, Any]:
    """The part of `run_settings` that depends only on the `train` section."""
    values = config.model_dump(mode="json", exclude=OPERATIONAL | _CUT)
    return _flat("train", values | {"bf16": config.in_bf16})


def find_checkpoint(directory: Path, settings: Mapping[str, Any]) -> Found | None:
    """Find the newest valid checkpoint; None if there are no checkpoints. Prints a message for each damaged one.

    Raises `UserError` if there are checkpoints, but all are damaged or one is of other settings.
    """
    damaged = []
    for path in reversed(committed(directory)):
        manifest, reason = read_checkpoint_manifest(path)
        if manifest is not None:
            if differing := _differences(manifest.settings, settings):
                raise UserError(_other_settings(directory, path, manifest, differing))
            reason = damage(path, manifest)
        if manifest is not None and not reason:
            return Found(str(path), manifest.step, manifest.world_size, manifest.files)
        damaged.append(f"{path.name}: {reason}")
        print(f"  checkpoint {path.name} skipped: {reason}", flush=True)
    if damaged:
        raise UserError(
            f"{directory}: all checkpoints there are damaged ({'; '.join(damaged)}). Restore a good copy, "
            f"or start again from step 0 with {_RESTART}."
        )
    return None


def find_or_restart(directory: Path, settings: Mapping[str, Any], config: TrainConfig) -> Found | None:
    """Run `find_checkpoint`, and follow `train.on_unusable_checkpoint` if no checkpoint can be used."""
    try:
        return find_checkpoint(directory, settings)
    except UserError as error:
        if config.on_unusable_checkpoint == "stop":
            raise
        print(f"  {error}", flush=True)
        set_aside(directory, "can't be used")
        print("  starting again from step 0", flush=True)
        return None


def check_settings(directory: Path, settings: Mapping[str, Any], *, whole: bool) -> None:
    """Raise `UserError`, as `find_checkpoint` does, if the newest checkpoint is of other settings.

    Reads only manifests, so that it can run before anything starts. `whole`: whether `settings` has all settings. If
    not, missing ones are not compared.
    """
    for path in reversed(committed(directory)):
        manifest, _ = read_checkpoint_manifest(path)
        if manifest is not None:
            there = {key: manifest.settings.get(key) for key in {*settings, *(manifest.settings if whole else ())}}
            if differing := _differences(there, settings):
                raise UserError(_other_settings(directory, path, manifest, differing))
            return


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**here, **there} if there.get(key) != here.get(key)]
    return [f"{key}: {_short(there.get(key))} there, {_short(here.get(key))} now" for key in keys]


def _other_settings(directory: Path, path: Path, manifest: CheckpointManifest, differing: list[str]) -> str:
    cut = ""
    if differing[0].startswith("groups_per_step") and len(differing) == 1:
        cut = (
            f" Workers * train.micro_batch_size * train.gradient_accumulation_steps must stay "
            f"{manifest.settings['groups_per_step']}; {manifest.world_size} worker(s) wrote it."
        )
    return (
        f"{directory}: {path.name} is of a run with other settings ({'; '.join(differing)}).{cut} Use another name, "
        f"go back to those settings, or start again from step 0 with {_RESTART}."
    )


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {name: leaf for key, inner in value.items() for name, leaf in _flat(f"{prefix}.{key}", inner).items()}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def adopt_checkpoint(source: Path, target: Path, step: int, config: TrainConfig) -> Path:
    """Copy the checkpoint after `step` steps to another folder of checkpoints, for a run with `config`.

    Weights, optimizer states, schedule and random states are the source's; learning rate and loss weights are those of
    `config`. The caller must check that all else is compatible. Raises `RunError` if that checkpoint is missing or
    damaged.
    """
    path = checkpoint_path(source, step)
    manifest, reason = read_checkpoint_manifest(path)
    if manifest is not None:
        reason = damage(path, manifest)
    if manifest is None or reason:
        raise RunError(f"{path}: can't be copied: {reason}.")
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
