"""The best evaluation so far: weights of its step are kept beside the checkpoints, and exported when training ends.

    checkpoints/best/step-00000050/
        state/...            what holds weights: hard links to the files of that step's checkpoint, where there is one
        best.json            the mark: score and metrics
        manifest.json        as of any checkpoint

A run that is killed goes on with the best evaluation up to the step that it resumes from. So the folder of a best step
gets its name before the checkpoint of that step does, and the one before it is removed once a checkpoint makes sure
that no resume goes back behind the new one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mapl_ray.data.shards import file_sha256, fingerprint_of, link_or_copy, sync_file, write_json
from mapl_ray.errors import RunError
from mapl_ray.training.checkpoint import best_directory, committed, read_checkpoint_manifest, remove_folder, step_of
from mapl_ray.training.result import WeightFile, vouched_for, weight_damage
from mapl_ray.unfinished import leftovers

By = Literal["pref_accuracy", "eval_loss"]
_MARK = "best.json"


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far: the mark in its folder, and contents of `best.json` beside an exported `best/`."""

    by: By
    score: tuple[float, ...]  # compared from left to right, more is better
    step: int
    run: str  # digest of the settings
    metrics: dict[str, float] = field(default_factory=dict)  # of that evaluation
    weights: dict[str, WeightFile] = field(default_factory=dict)  # of `best/`, once it is exported

    @classmethod
    def of(cls, by: By, metrics: dict[str, float], step: int, settings: dict[str, Any]) -> Best | None:
        """None where the evaluation gave no such number. Ties are broken by the held-out loss."""
        loss, accuracy = metrics.get("eval/loss"), metrics.get("eval/rewards/accuracies/pref")
        if loss is None or (by == "pref_accuracy" and accuracy is None):
            return None
        score = (-loss,) if by == "eval_loss" or accuracy is None else (accuracy, -loss)
        return cls(by, score, step, fingerprint_of(settings), dict(metrics))

    def write(self, output_dir: Path) -> Best:
        """To be called after `best/` was written; returns what the file says, with size and digest of its weights."""
        best = replace(self, weights=vouched_for(output_dir / "best"))
        write_json(output_dir / _MARK, asdict(best))
        return best

    def mark(self, folder: Path) -> Path:
        """Write the mark into a folder that is not committed yet."""
        path = folder / _MARK
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    def is_of(self, by: By, settings: Mapping[str, Any]) -> bool:
        """Whether scores of that run can be compared with this one."""
        return self.by == by and self.run == fingerprint_of(settings)


def read_best(output_dir: Path, by: By, settings: dict[str, Any], resumed: int) -> Best | None:
    """The exported best of this run, if it is whole and of a step up to the one that the run goes on from."""
    best = _read(output_dir / _MARK)
    if best is None or not best.is_of(by, settings) or best.step > resumed:
        return None
    return None if weight_damage(output_dir / "best", best.weights) else best


@dataclass(frozen=True, slots=True)
class KeptBest:
    """A folder with the weights of the best step, of this run; not verified yet."""

    path: str
    best: Best
    world_size: int
    files: Mapping[str, str]  # path below the folder -> sha256


def find_best(checkpoints: Path, by: By, settings: dict[str, Any], resumed: int) -> KeptBest | None:
    """The newest up to step `resumed`. One rank calls it.

    Later ones are removed; those that can't be used (damaged, by another `best_by`, of other settings) with a message.
    """
    for path in reversed(committed(best_directory(checkpoints))):
        if step_of(path) > resumed:  # evaluated again
            remove_folder(path)
            continue
        manifest, reason = read_checkpoint_manifest(path)
        best = _read(path / _MARK)
        if manifest is not None and best is not None and best.is_of(by, settings):
            return KeptBest(str(path), best, manifest.world_size, manifest.files)
        if manifest is not None:
            reason = "its mark can't be read" if best is None else f"it is the best by {best.by} or of other settings"
        drop_best(path, reason)
    return None


def drop_best(path: Path, reason: str) -> None:
    """Remove one that can't be used, with a message: a later evaluation takes its place."""
    print(f"  best model of step {step_of(path)} dropped: {reason}", flush=True)
    remove_folder(path)


def remove_other_bests(checkpoints: Path, reached: int, step: int | None = None) -> None:
    """Remove all but the one of `step`, and the newest up to step `reached`, from which a killed run would go on."""
    kept = committed(best_directory(checkpoints))
    newest = [path for path in kept if step_of(path) <= reached][-1:]
    for path in kept:
        if path not in newest and step_of(path) != step:
            remove_folder(path)


def remove_bests(checkpoints: Path) -> None:
    """Remove them all: `best/` is exported, or there is none to be. What a killed run left of a removal goes too."""
    folder = best_directory(checkpoints)
    for leftover in leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.is_dir():
        remove_folder(folder)


def keep_files(source: Path, target: Path, files: Mapping[str, str]) -> bool:
    """Have files of one folder (path below it -> sha256), which are on the disk, in another one too.

    They are hard links; where the file system has none, copies, compared by digest. Returns whether any was copied.
    Raises `RunError` where a copy has other bytes.
    """
    copied = False
    for name, digest in sorted(files.items()):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if link_or_copy(source / name, path):
            continue
        copied = True
        sync_file(path)
        if file_sha256(path) != digest:
            raise RunError(f"{path}: not the bytes that were copied from {source / name}. Look at the storage.")
    return copied


def _read(path: Path) -> Best | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Best(**{**values, "score": tuple(values["score"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
