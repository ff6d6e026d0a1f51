"""The best evaluation so far: the weights of its step are kept next to the checkpoints, and exported after training.

    checkpoints/best/step-00000050/
        state/...            files with weights: hard links to those of that step's checkpoint, if there is one
        best.json            score and metrics
        manifest.json        as in a checkpoint

A resumed run continues with the best evaluation up to the step from which it resumes. So the folder of a best step is
committed before the checkpoint of that step. The previous best is removed only after a later checkpoint, so that no
resume goes back to a step before the new best.
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
    """The best evaluation so far: content of `best.json` in its checkpoint folder, and next to an exported `best/`."""

    by: By
    score: tuple[float, ...]  # compared lexicographically, larger is better
    step: int
    run: str  # digest of the run's settings
    metrics: dict[str, float] = field(default_factory=dict)  # of that evaluation
    weights: dict[str, WeightFile] = field(default_factory=dict)  # weight files of `best/`, after its export

    @classmethod
    def of(cls, by: By, metrics: dict[str, float], step: int, settings: dict[str, Any]) -> Best | None:
        """Build from an evaluation's metrics; None if they lack the metric `by`. Held-out loss breaks ties."""
        loss, accuracy = metrics.get("eval/loss"), metrics.get("eval/rewards/accuracies/pref")
        if loss is None or (by == "pref_accuracy" and accuracy is None):
            return None
        score = (-loss,) if by == "eval_loss" or accuracy is None else (accuracy, -loss)
        return cls(by, score, step, fingerprint_of(settings), dict(metrics))

    def write(self, output_dir: Path) -> Best:
        """Write `best.json` for an exported `best/`. Returns its content, with sizes and digests of the weights."""
        best = replace(self, weights=vouched_for(output_dir / "best"))
        write_json(output_dir / _MARK, asdict(best))
        return best

    def mark(self, folder: Path) -> Path:
        """Write `best.json` to a folder that is not committed yet."""
        path = folder / _MARK
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    def is_of(self, by: By, settings: Mapping[str, Any]) -> bool:
        """Whether this is from a run with the same `by` and settings, so that scores are comparable."""
        return self.by == by and self.run == fingerprint_of(settings)


def read_best(output_dir: Path, by: By, settings: dict[str, Any], resumed: int) -> Best | None:
    """Read the exported best of this run; None if it is damaged or later than step `resumed`."""
    best = _read(output_dir / _MARK)
    if best is None or not best.is_of(by, settings) or best.step > resumed:
        return None
    return None if weight_damage(output_dir / "best", best.weights) else best


@dataclass(frozen=True, slots=True)
class KeptBest:
    """A folder with the weights of this run's best step, not verified yet."""

    path: str
    best: Best
    world_size: int
    files: Mapping[str, str]  # path below the folder -> sha256


def find_best(checkpoints: Path, by: By, settings: dict[str, Any], resumed: int) -> KeptBest | None:
    """Find the newest kept best up to step `resumed`. Call it on one rank.

    Removes later ones, and with a message unusable ones (damaged, another `best_by`, other settings).
    """
    for path in reversed(committed(best_directory(checkpoints))):
        if step_of(path) > resumed:  # will be evaluated again
            remove_folder(path)
            continue
        manifest, reason = read_checkpoint_manifest(path)
        best = _read(path / _MARK)
        if manifest is not None and best is not None and best.is_of(by, settings):
            return KeptBest(str(path), best, manifest.world_size, manifest.files)
        if manifest is not None:
            reason = "its best.json is damaged" if best is None else f"it is the best by {best.by} or of other settings"
        drop_best(path, reason)
    return None


def drop_best(path: Path, reason: str) -> None:
    """Remove a kept best that can't be used, with a message. A later evaluation can replace it."""
    print(f"  best model of step {step_of(path)} dropped: {reason}", flush=True)
    remove_folder(path)


def remove_other_bests(checkpoints: Path, reached: int, step: int | None = None) -> None:
    """Remove all but the best of `step`, and the newest up to step `reached`, which a resumed run would need."""
    kept = committed(best_directory(checkpoints))
    newest = [path for path in kept if step_of(path) <= reached][-1:]
    for path in kept:
        if path not in newest and step_of(path) != step:
            remove_folder(path)


def remove_bests(checkpoints: Path) -> None:
    """Remove all kept bests, after the export of `best/` or if none is wanted, and remains of interrupted removals."""
    folder = best_directory(checkpoints)
    for leftover in leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.is_dir():
        remove_folder(folder)


def keep_files(source: Path, target: Path, files: Mapping[str, str]) -> bool:
    """Add synced files of one folder (path below it -> sha256) to another folder.

    Makes hard links or, if the file system does not support them, copies with a check of the digest. Returns whether
    any file was copied. Raises `RunError` if a copy differs.
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
            raise RunError(f"{path}: the copy differs from {source / name}. Check the storage.")
    return copied


def _read(path: Path) -> Best | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Best(**{**values, "score": tuple(values["score"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
