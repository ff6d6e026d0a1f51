"""Where a run starts: after the newest whole checkpoint of its own, or at step 0 where there is none at all.

A run that finds checkpoints and can use none of them stops and says why; it never starts again by itself. A member of a
population takes another run's checkpoint as its start, with other values of the training.
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

# How one step is cut over ranks and micro-batches; `groups_per_step` stands for them.
_CUT = {"num_workers", "micro_batch_size", "gradient_accumulation_steps", "sequence_parallel_size"}
_RESTART = "train.on_unusable_checkpoint=restart (the old ones are kept in a folder beside it)"


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint that is whole and belongs to this run."""

    path: str
    step: int
    world_size: int
    files: Mapping[str, str]  # path below the checkpoint -> sha256


def run_settings(
    config: TrainConfig, method: Method, *, model: str, data: str, world_size: int
) -> dict[str, str | int | float | bool | None]:
    """What a checkpoint must agree on to be used: flat, so that a difference can be named.

    The number of workers may differ where as many groups make a step: then the steps are the same.
    """
    return {
        "method": method,
        "base model": model,
        "data": data,
        "groups_per_step": groups_per_step(config, world_size),
        **train_settings(config),
    }


def train_settings(config: TrainConfig) -> dict[str, Any]:
    """Those of `run_settings` that the training section alone decides."""
    values = config.model_dump(mode="json", exclude=OPERATIONAL | _CUT)
    return _flat("train", values | {"bf16": config.in_bf16})


def find_checkpoint(directory: Path, settings: Mapping[str, Any]) -> Found | None:
    """The newest whole checkpoint; None where there are none. Prints a message about the damaged ones that are skipped.

    Raises `UserError` where checkpoints are there and none can be used: all damaged, or of other settings.
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
        print(f"  checkpoint {path.name} passed over: {reason}", flush=True)
    if damaged:
        raise UserError(
            f"{directory}: none of the checkpoints there is whole ({'; '.join(damaged)}). Put a good copy back, "
            f"or start again from step 0 with {_RESTART}."
        )
    return None


def find_or_restart(directory: Path, settings: Mapping[str, Any], config: TrainConfig) -> Found | None:
    """`find_checkpoint`, and what `train.on_unusable_checkpoint` says where that finds none to use."""
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
    """Raise `UserError` as `find_checkpoint` does where the newest checkpoint is of other settings.

    Reads manifests alone, so that it can be said before anything starts. With `whole`, `settings` are all there are;
    else those that are not named are not compared.
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
        f"{directory}: {path.name} is of a run with other settings ({'; '.join(differing)}).{cut} Give this run a name "
        f"of its own, go back to those settings, or start again from step 0 with {_RESTART}."
    )


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {name: leaf for key, inner in value.items() for name, leaf in _flat(f"{prefix}.{key}", inner).items()}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def adopt_checkpoint(source: Path, target: Path, step: int, config: TrainConfig) -> Path:
    """Copy the checkpoint after `step` steps from one folder of checkpoints to another, as one of a run with `config`.

    Weights, moments, schedule and random states are the source's; rates and weights of the loss are the config's. The
    caller sees to it that the rest fits. Raises `RunError` where there is no whole checkpoint of that step.
    """
    path = checkpoint_path(source, step)
    manifest, reason = read_checkpoint_manifest(path)
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
