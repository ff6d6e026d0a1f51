"""Before Ray starts: leases of what the stages write, and what the files of a run's folder show.

These are a stage's input, and checkpoints that it can't go on from.
"""

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
    """Raise `UserError` where a stage's input is not there, or where unfinished training is of other settings.

    Of several stages the later ones' input is made by the earlier; then only settings of the training are compared.
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
    """Hold what the stages write, all of it from the start, and remove what killed runs left half-written.

    Raises `UserError` where another run holds some of it, and where a link leads out of the run's folder.
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
    """Remove files and folders with temporary names, unless another run has a lease in the folder.

    What was written in the last second stays: it may be of a run that begins just now.
    """
    before = time.time() - 1.0
    if {*lease_path(root, "any").parent.glob("*.json")} - {*own}:
        return
    for folder, folders, files in os.walk(root):
        for name in [name for name in (*folders, *files) if becomes(name) is not None]:
            path = Path(folder, name)
            with suppress(OSError):  # gone meanwhile
                if path.lstat().st_mtime > before:
                    continue
                if path.is_dir() and not path.is_symlink():
                    folders.remove(name)
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def _check_links(root: Path) -> None:
    """A link that somebody with access to shared storage put there would have a stage write or delete elsewhere."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UserError(
                    f"{path} is a link to {path.resolve()}, outside {root}. Remove the link: data_run names "
                    "another run's data, and output_dir says where runs are."
                )


def _written(config: RunConfig, stages: Sequence[str], baseline: bool) -> Iterator[tuple[Path, str]]:
    for stage in stages:
        if stage in ("synthesize", "score"):  # in the run that the data is of
            yield config.data_dir, stage
        elif stage in ("train rm", "train dpo"):
            method: Method = "rm" if stage == "train rm" else "dpo"
            for plain in _models(config, stages, baseline):
                yield config.run_dir, model_name(method, plain)
        else:
            yield config.run_dir, stage


def _models(config: RunConfig, stages: Sequence[str], baseline: bool) -> tuple[bool, ...]:
    """Which are trained, the plain baseline (True) or not."""
    if len(stages) == 1:
        return (baseline,)
    return (False, True) if config.evaluation.baseline else (False,)


def training_of(config: RunConfig, method: Method, baseline: bool) -> TrainConfig:
    """The method's training section; the baseline differs by its loss weights alone."""
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
