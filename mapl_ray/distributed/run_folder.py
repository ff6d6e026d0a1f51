"""Prepare a run's folder before Ray starts: take leases, and check the stages' inputs and unfinished checkpoints."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mapl_ray.config import LevelWeights, Method, RunConfig, TrainConfig
from mapl_ray.data.shards import read_manifest
from mapl_ray.distributed.evaluate import model_name, trained_models
from mapl_ray.distributed.prepare import SPLITS, resolve_model
from mapl_ray.distributed.training_job import groups_to_train
from mapl_ray.errors import UserError
from mapl_ray.lease import lease, lease_path
from mapl_ray.models import model_identity
from mapl_ray.training.engine_config import inlined
from mapl_ray.training.resume import check_settings, run_settings, train_settings
from mapl_ray.unfinished import becomes

_ON_GROUPS = ("score", "tune", "train rm", "train dpo")


def check_run_folder(config: RunConfig, stages: Sequence[str], *, baseline: bool) -> None:
    """Raise `UserError` if a stage's input is missing, or if unfinished training has other settings.

    With several stages, earlier ones make the input of later ones; then only the training settings are compared.
    """
    alone = len(stages) == 1
    if alone and stages[0] in _ON_GROUPS:
        for split in SPLITS:
            folder = config.data_dir / "groups" / split if stages[0] == "score" else groups_to_train(config, split)
            read_manifest(folder, verify=False)
    if alone and stages[0] == "evaluate" and not config.evaluation.models:
        trained_models(config)
    for stage in stages:
        if stage == "train rm":
            method: Method = "rm"
        elif stage == "train dpo":
            method = "dpo"
        else:
            continue
        for plain in _models(config, stages, baseline):
            _check_checkpoints(config, method, plain, whole=alone)


@contextmanager
def leases(config: RunConfig, stages: Sequence[str], *, baseline: bool) -> Iterator[None]:
    """Hold the leases of everything that the stages write, and remove half-written files of killed runs.

    Raises `UserError` if another run holds one of the leases, and if a link points outside the run's folder.
    """
    roots = {config.run_dir, config.data_dir}
    for root in roots:
        _check_links(root)
    with ExitStack() as held:
        own = {lease_path(folder, name) for folder, name in _written(config, stages, baseline)}
        for path in sorted(own):
            held.enter_context(lease(path))
        for root in roots:
            _remove_half_written(root, own)
        yield


def _remove_half_written(root: Path, own: Collection[Path]) -> None:
    """Remove files and folders with temporary names, unless another run holds a lease in the folder.

    Files written in the last second are kept: they may belong to a run that is just starting.
    """
    before = time.time() - 1.0
    if {*lease_path(root, "any").parent.glob("*.json")} - {*own}:
        return
    for folder, folders, files in os.walk(root):
        for name in [name for name in (*folders, *files) if becomes(name) is not None]:
            path = Path(folder, name)
            with suppress(OSError):  # already removed
                if path.lstat().st_mtime > before:
                    continue
                if path.is_dir() and not path.is_symlink():
                    folders.remove(name)
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def _check_links(root: Path) -> None:
    """Raise `UserError` for a link that points outside `root`: a stage would write or delete files elsewhere."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UserError(
                    f"{path} is a link to {path.resolve()}, outside {root}. Remove the link: use data_run for "
                    "another run's data, and output_dir to place runs elsewhere."
                )


def _written(config: RunConfig, stages: Sequence[str], baseline: bool) -> Iterator[tuple[Path, str]]:
    for stage in stages:
        if stage in ("synthesize", "score"):  # they belong to the run of the data
            yield config.data_dir, stage
        elif stage in ("train rm", "train dpo"):
            method: Method = "rm" if stage == "train rm" else "dpo"
            for plain in _models(config, stages, baseline):
                yield config.run_dir, model_name(method, plain)
        else:
            yield config.run_dir, stage


def _models(config: RunConfig, stages: Sequence[str], baseline: bool) -> tuple[bool, ...]:
    """Which models are trained: the plain baseline (True), the MAPL model (False) or both."""
    if len(stages) == 1:
        return (baseline,)
    return (False, True) if config.evaluation.baseline else (False,)


def training_of(config: RunConfig, method: Method, baseline: bool) -> TrainConfig:
    """The method's training section. The baseline differs only in its loss weights."""
    section = config.training(method)
    plain = LevelWeights(lambda_intra=0.0, lambda_inter=0.0)
    return section.model_copy(update={"weights": plain}) if baseline else section


def _check_checkpoints(config: RunConfig, method: Method, baseline: bool, *, whole: bool) -> None:
    output = config.run_dir / model_name(method, baseline)
    train = inlined(training_of(config, method, baseline))
    unfinished = (output / "checkpoints").is_dir() and not (output / "result.json").is_file()
    if not unfinished or train.on_unusable_checkpoint == "restart":
        return
    settings = {"method": method, **train_settings(train)}
    if whole:
        settings = run_settings(
            train,
            method,
            model=model_identity(resolve_model(config), config.model.revision),
            data=read_manifest(groups_to_train(config, "train"), verify=False).content_hash,
            world_size=train.num_workers,
        )
    check_settings(output / "checkpoints", settings, whole=whole)
